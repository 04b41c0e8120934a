"""Walk index sparsification of depth 2 while edges come and go."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch
from rankdiag._validate import describe, integer
from rankdiag.graphs._adjacency import can_iterate
from rankdiag.graphs._edges import is_networkx

__all__ = ["OneWISQueue", "stream_sparsify"]

Edge = tuple[int, int]

_PAIRS = "pairs of vertex ids"
_BLOCK = 4096  # rows of an array that are read at once
_SPARE = 4  # the heap is built anew when it holds more than this many entries for each edge, ...
_SMALL = 64  # ... and this many more


class OneWISQueue:
    """Edges of a changing undirected graph; the one whose removal hurts single vertices least comes out first.

    Parameters
    ----------
    edges : iterable of (int, int)
        Edges to begin with, in order.

    Attributes
    ----------
    degrees : dict of int to int
        Degrees of the vertices that have an edge, as a copy.

    Raises
    ------
    TypeError
        If an edge is no pair of integers.
    ValueError
        If a vertex id is negative, an edge is a self-loop, or an array is not of shape (E, 2).

    Notes
    -----
    `pop` makes the choice of walk index sparsification at depth 2 ("1-WIS") on the graph as it stands: the edge with
    the largest smaller degree, then the largest larger degree, then the one that came first. An edge that is removed
    and added again counts as new.

    A heap with entries that may be out of date: an insertion at u and v costs O((deg u + deg v) log M), a removal
    O(log M), spread over many calls. The heap is built anew before it outgrows a few entries for each edge, so that
    memory stays O(M) however long the stream.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 5, Algorithm 2, for the choice; its upkeep is derived here.

    Examples
    --------
    >>> from rankdiag.graphs import OneWISQueue
    >>> queue = OneWISQueue([(0, 1), (1, 2), (2, 3), (3, 0)])
    >>> queue.add_edge(0, 2)
    >>> queue.pop(), queue.pop(), len(queue)
    ((0, 2), (0, 1), 3)
    >>> queue.degrees
    {0: 1, 1: 1, 2: 2, 3: 2}
    """

    __slots__ = ("_heap", "_near", "_next", "_numbers")

    def __init__(self, edges: Iterable[Edge] = ()) -> None:
        self._numbers: dict[Edge, int] = {}  # number of every edge by its ends, the smaller first
        self._near: dict[int, set[int]] = {}
        self._heap: list[tuple[int, int, int, Edge]] = []  # (-min degree, -max degree, number, edge)
        self._next = 0
        for u, v in pairs_of(out_of_torch(edges, "edges", _PAIRS), "edges"):
            self._insert(u, v)
        self._rebuild()

    def add_edge(self, u: int, v: int) -> None:
        """Add an edge; one that is there already stays as it is, with its number.

        Parameters
        ----------
        u, v : int
            Its ends, two different vertex ids >= 0.

        Raises
        ------
        TypeError
            If an id is no integer.
        ValueError
            If an id is negative, or both are equal.

        Examples
        --------
        >>> from rankdiag.graphs import OneWISQueue
        >>> queue = OneWISQueue()
        >>> queue.add_edge(5, 2)
        >>> queue.peek()
        (2, 5)
        """
        self._add(integer(u, "u", low=0), integer(v, "v", low=0))

    def remove_edge(self, u: int, v: int) -> None:
        """Take an edge out.

        Parameters
        ----------
        u, v : int
            Its ends, in any order.

        Raises
        ------
        TypeError
            If an id is no integer.
        ValueError
            If an id is negative.
        KeyError
            If there is no such edge.

        Examples
        --------
        >>> from rankdiag.graphs import OneWISQueue
        >>> queue = OneWISQueue([(0, 1), (1, 2)])
        >>> queue.remove_edge(1, 0)
        >>> queue.edges()
        [(1, 2)]
        """
        first, second = integer(u, "u", low=0), integer(v, "v", low=0)
        edge = (first, second) if first < second else (second, first)
        if edge not in self._numbers:
            raise KeyError(f"no edge ({first}, {second}) in the queue")
        self._delete(edge)

    def peek(self) -> Edge:
        """Return the edge that `pop` would take.

        Returns
        -------
        tuple of int
            Its ends, the smaller first.

        Raises
        ------
        IndexError
            If no edge is left.

        Examples
        --------
        >>> from rankdiag.graphs import OneWISQueue
        >>> OneWISQueue([(0, 1), (1, 2), (2, 3)]).peek()
        (1, 2)
        """
        heap, near, numbers = self._heap, self._near, self._numbers
        while heap:
            low, high, number, edge = heap[0]
            if numbers.get(edge) != number:
                heapq.heappop(heap)
                continue
            a, b = -len(near[edge[0]]), -len(near[edge[1]])
            key = (a, b) if a >= b else (b, a)
            if key == (low, high):
                return edge
            if key > (low, high):  # worse than when it was stored
                heapq.heapreplace(heap, (*key, number, edge))
            else:  # it was stored again when it became better
                heapq.heappop(heap)
        raise IndexError("the queue has no edges")

    def pop(self) -> Edge:
        """Take out the edge whose removal hurts single vertices least.

        Returns
        -------
        tuple of int
            Its ends, the smaller first.

        Raises
        ------
        IndexError
            If no edge is left.

        Examples
        --------
        >>> from rankdiag.graphs import OneWISQueue
        >>> queue = OneWISQueue([(0, 1), (1, 2), (2, 3)])
        >>> [queue.pop() for _ in range(3)]
        [(1, 2), (0, 1), (2, 3)]
        """
        edge = self.peek()
        heapq.heappop(self._heap)
        self._delete(edge)
        return edge

    def edges(self) -> list[Edge]:
        """Return the edges in the order of their numbers, each with its smaller end first.

        Returns
        -------
        list of tuple of int
            One pair for each edge.

        Examples
        --------
        >>> from rankdiag.graphs import OneWISQueue
        >>> OneWISQueue([(4, 1), (0, 1)]).edges()
        [(1, 4), (0, 1)]
        """
        return list(self._numbers)

    @property
    def degrees(self) -> dict[int, int]:
        """Degrees of the vertices that have an edge."""
        return {vertex: len(ends) for vertex, ends in self._near.items()}

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"OneWISQueue({len(self._near)} vertices, {len(self._numbers)} edges)"

    def __copy__(self) -> OneWISQueue:
        return OneWISQueue(self.edges())

    def _add(self, u: int, v: int) -> None:
        if not self._insert(u, v):
            return
        near, numbers = self._near, self._numbers
        fresh = []
        for a in (u, v):  # the degrees of both have risen, and keys with them
            degree = -len(near[a])
            for b in near[a]:
                other = -len(near[b])
                edge = (a, b) if a < b else (b, a)
                fresh.append(
                    (degree, other, numbers[edge], edge) if degree >= other else (other, degree, numbers[edge], edge)
                )
        heap = self._heap
        if len(heap) + len(fresh) > _SPARE * len(numbers) + _SMALL:
            self._rebuild()
        elif len(fresh) > len(heap) // 4:
            heap += fresh
            heapq.heapify(heap)
        else:
            for entry in fresh:
                heapq.heappush(heap, entry)

    def _insert(self, u: int, v: int) -> bool:
        """Record an edge; False if it is there already."""
        if u == v:
            raise ValueError(f"`v` must differ from `u`; got the self-loop ({u}, {v}), which every vertex has anyway")
        edge = (u, v) if u < v else (v, u)
        if edge in self._numbers:
            return False
        self._numbers[edge] = self._next
        self._next += 1
        self._near.setdefault(u, set()).add(v)
        self._near.setdefault(v, set()).add(u)
        return True

    def _delete(self, edge: Edge) -> None:
        del self._numbers[edge]
        for a, b in (edge, edge[::-1]):
            self._near[a].remove(b)
            if not self._near[a]:
                del self._near[a]  # so that memory follows the edges that are left

    def _rebuild(self) -> None:
        near = self._near
        found = []
        for edge, number in self._numbers.items():
            a, b = -len(near[edge[0]]), -len(near[edge[1]])
            found.append((a, b, number, edge) if a >= b else (b, a, number, edge))
        heapq.heapify(found)
        self._heap = found


def stream_sparsify(edges: Iterable[Edge], budget: int) -> Iterator[Edge]:
    """Keep a stream of edges within a budget, and yield each edge as soon as it is dropped.

    Parameters
    ----------
    edges : iterable of (int, int)
        Edges of an undirected graph as they arrive; it may be endless. Repeats, also reversed, change nothing.
    budget : int
        Edges to hold at most, 0 or more.

    Returns
    -------
    iterator of tuple of int
        The dropped edges, the smaller end first, in the order of their removal. What never comes out is kept.

    Raises
    ------
    TypeError
        If `edges` cannot be iterated over, an edge is no pair of integers, or `budget` is no integer.
    ValueError
        If a vertex id or `budget` is negative, an edge is a self-loop, or an array is not of shape (E, 2).

    Notes
    -----
    After each arrival `OneWISQueue.pop` is called while there are more than `budget` edges. An edge that was dropped
    early cannot return, so the result differs from that of `wis_order` on the whole graph. An edge that arrives again
    after it was dropped counts as new.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 5, Algorithm 2, for each choice; the stream is derived here.

    Examples
    --------
    >>> from rankdiag.graphs import stream_sparsify
    >>> list(stream_sparsify([(0, 1), (1, 2), (2, 0), (2, 3)], 2))
    [(0, 1), (1, 2)]
    """
    limit = integer(budget, "budget", low=0)
    return _drops(pairs_of(edges, "edges"), limit)


def _drops(edges: Iterator[Edge], limit: int) -> Iterator[Edge]:
    queue = OneWISQueue()
    for u, v in edges:
        queue._add(u, v)
        while len(queue) > limit:
            yield queue.pop()


def pairs_of(edges: Any, name: str) -> Iterator[Edge]:
    """Read pairs of vertex ids one by one, so that a stream may be endless; of an array, some thousand rows at a time.

    Raises
    ------
    TypeError
        If `edges` cannot be iterated over, at once; if a pair is none, when it is reached.
    ValueError
        If an array is not of shape (E, 2), at once; if an id is negative, when it is reached.
    """
    if type(edges) is not np.ndarray:  # of which not even a size beyond memory matters
        edges = out_of_torch(edges, name, _PAIRS)
    if isinstance(edges, np.ndarray):
        if edges.shape != (0,) and (edges.ndim != 2 or edges.shape[1] != 2):
            raise ValueError(f"`{name}` as an array must have shape (E, 2); got shape {edges.shape}")
        if edges.size and edges.dtype.kind not in "iu":
            raise TypeError(f"`{name}` must hold pairs of vertex ids; got dtype {edges.dtype}")
        return _pairs(_rows(edges), name)
    if is_networkx(edges):
        raise TypeError(f"`{name}` must be an iterable of {_PAIRS}; got {describe(edges)}. Pass its .edges()")
    if isinstance(edges, (str, bytes, Mapping)) or not can_iterate(edges):
        raise TypeError(f"`{name}` must be an iterable of {_PAIRS}; got {describe(edges)}")
    try:
        return _pairs(iter(edges), name)
    except Exception as error:  # a foreign class may refuse to be iterated over, in any way
        raise TypeError(f"`{name}` must be an iterable of {_PAIRS}; got {describe(edges)} ({error})") from error


def _rows(edges: NDArray[Any]) -> Iterator[Any]:
    """Go through the rows of an array of any size, memory-mapped ones too, without a list of all of them."""
    for start in range(0, len(edges), _BLOCK):
        yield from edges[start : start + _BLOCK].tolist()


def _pairs(edges: Iterator[Any], name: str) -> Iterator[Edge]:
    for place, pair in enumerate(edges):
        try:
            first, second = pair
            if isinstance(first, bool) or isinstance(second, bool):
                raise TypeError("a boolean is no vertex id")
            u, v = operator.index(first), operator.index(second)
        except Exception:  # not two entries, or no integers; foreign objects may raise anything
            raise TypeError(f"`{name}` must hold pairs of vertex ids; got {describe(pair)} at place {place}") from None
        if u < 0 or v < 0:
            raise ValueError(f"`{name}` holds a negative vertex id, ({u}, {v}) at place {place}; ids start at 0")
        yield u, v

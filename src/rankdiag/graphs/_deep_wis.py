"""Walk index sparsification at any depth: exact greedy order over a heap of optimistic keys.

What the removal of an edge does to the sorted list of values is a signed count D: -1 at each old value and +1 at each
new one. Of two edges the better is the one with the smaller count at the smallest value where their D differ, for the
lists share everything else. That order of the D does not depend on the rest of the graph, so that keys of different
moments compare.

Why a lazy heap is exact (derived here). Let another edge g go. A vertex t that an edge e takes q_t walks from has the
new value n_t = w_t - q_t, the walks that avoid e. If no closed walk of length L uses both e and g, every q_t stays and
some n_t fall: at the smallest n_t that arises D gains one, and below it nothing changes, so the key of e gets worse
(likewise where an end of e is left with e alone, and n_t falls to 0). A key stored earlier is thus never too bad, and
an edge at the top whose fresh key equals its stored one is the best of all. Edges that do share a closed walk with g
can gain, for a vertex may leave their D. They go back into the heap under a bound: an undirected edge always takes from
both its ends, whose n never rise, so that its smallest new value is at most the smaller of these.

Edges that come instead of going have the same keys, and old values that rise where new ones fell. If no closed walk
uses both, the smallest old value that rises leaves D, and the key gets worse; the others are looked at again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._wis_engines import BallEngine, Counts, Engine, NearEngine, TargetEngine

__all__ = ["LazyOrder", "exact_weights", "greedy_order", "signed_key"]

Entry = tuple[float, tuple[int, ...], int, int]


def greedy_order(
    edge_list: EdgeList,
    depth: int,
    count: int,
    *,
    last: bool = False,
    batch_size: int = 1,
    vertices: NDArray[np.bool_] | None = None,
    vertex_weights: Any = None,
    keep_edges: Any = None,
    target: int | None = None,
) -> NDArray[np.int64]:
    """Return the ids of `count` edges in the exact greedy order of walk index sparsification.

    Parameters
    ----------
    edge_list : EdgeList
        The graph.
    depth : int
        Number L >= 1 of layers.
    count : int
        Edges to remove; more than there are to remove stand for all.
    last : bool
        Whether the largest of tied ids goes first.
    batch_size : int
        Edges that are chosen by the keys of one moment.
    vertices : ndarray of bool (n,), optional
        Compare the values of these vertices alone.
    vertex_weights : sequence of int, float or Fraction (n,), optional
        Positive factors of the values. Floats are taken as the binary fractions that they are, and products are exact.
    keep_edges : ndarray of bool (M,) or of int64, optional
        Edges that never go.
    target : int, optional
        Count walks that end at this vertex instead of closed ones.

    Returns
    -------
    ndarray of int64, shape (min(count, M),)
        Edge ids in removal order.

    Notes
    -----
    A removal computes the losses of the edges that come to the top of the heap, and marks those that share a closed
    walk of length L with the removed one. At depth 3 a loss costs one intersection of two neighbour sets; beyond, walks
    in the neighbourhood that closed walks through the edge reach. A star is the worst case: every removal looks at
    every edge.

    Examples
    --------
    >>> from rankdiag.graphs import as_edge_list
    >>> from rankdiag.graphs._deep_wis import greedy_order
    >>> graph = as_edge_list([[0, 0, 1, 2, 1, 2, 2, 3], [1, 2, 2, 3, 0, 0, 1, 2]])
    >>> greedy_order(graph, 3, 4).tolist()
    [1, 2, 0, 3]
    """
    kept = np.zeros(edge_list.num_edges, bool)
    if keep_edges is not None:
        given = np.asarray(keep_edges)
        kept[given if given.dtype == bool else given.astype(np.int64)] = True
    free = np.flatnonzero(~kept).tolist()
    count = min(count, len(free))
    if not count:
        return np.zeros(0, np.int64)
    engine: Engine
    if target is not None:
        engine = TargetEngine(edge_list, depth, target)
    elif edge_list.directed or depth > 3:
        engine = BallEngine(edge_list, depth)
    else:
        engine = NearEngine(edge_list, depth)
    scale = None if vertex_weights is None else exact_weights(vertex_weights)
    if vertices is not None:
        scale = [factor if used else 0 for factor, used in zip(scale or [1] * len(vertices), vertices, strict=True)]
    return np.array(LazyOrder(engine, edge_list.edges.tolist(), free, scale, last).take(count, batch_size), np.int64)


def exact_weights(weights: Any) -> list[int]:
    """Turn positive factors into integers of the same ratios; floats are the binary fractions that they stand for."""
    exact = [Fraction(value) for value in (weights.tolist() if isinstance(weights, np.ndarray) else weights)]
    common = math.lcm(*(value.denominator for value in exact))
    return [int(value * common) for value in exact]


def signed_key(old: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    """Turn old and new values into a tuple; the smaller the tuple, the larger the sorted list of all values."""
    signed: dict[int, int] = {}
    for value in old:
        signed[value] = signed.get(value, 0) - 1
    for value in new:
        signed[value] = signed.get(value, 0) + 1
    key: list[int] = []
    for value in sorted(signed):
        number = signed[value]
        if number > 0:
            key += (2, -value, number)
        elif number < 0:
            key += (0, value, number)
    key.append(1)
    return tuple(key)


class LazyOrder:
    """A heap of (lead, whole, tie, stamp): the lead is the first part of the key as one number.

    Where edges go, the lead says the smallest new value (the larger, the better) and then how many vertices get it (the
    fewer, the better); where they come, the smallest old value (the smaller, the better) and how many vertices leave
    it. The whole key follows once an edge with this lead is at the top, and is empty before. A lead may be better than
    the edge deserves, never worse.
    """

    def __init__(
        self, engine: Engine, ends: list[tuple[int, int]], free: list[int], scale: list[int] | None, last: bool
    ) -> None:
        self._engine, self._scale = engine, scale
        self._ends = ends
        self._width = len(engine.values) + 2
        highest = max(engine.values) * (1 if scale is None else max(scale))
        self._best = -(highest + 1) * self._width  # no lead is better
        self._ceiling = [self._best] * len(ends)
        self._alive = set(free)
        self._ties = [-edge if last else edge for edge in range(len(ends))]
        self._stamps = [0] * len(ends)
        self._fresh: dict[int, tuple[float, Counts]] = {}  # leads and losses in the graph as it is
        self._held = [self._bound(edge) for edge in range(len(ends))]  # leads in the heap
        self._heap: list[Entry] = [(self._held[edge], (), self._ties[edge], 0) for edge in free]
        heapq.heapify(self._heap)

    def take(self, count: int, batch_size: int) -> list[int]:
        """Remove `count` edges and return them in order."""
        order: list[int] = []
        while len(order) < count:
            batch = [self._pop() for _ in range(min(batch_size, count - len(order)))]
            for edge in batch:
                for other in self._engine.apply(edge):
                    if other in self._alive:
                        self._mark(other)
            self._fresh.clear()
            order += batch
            if len(self._heap) > 4 * len(self._alive) + 1000:
                self._heap = [entry for entry in self._heap if entry[3] == self._stamps[abs(entry[2])]]
                heapq.heapify(self._heap)
        return order

    def _pop(self) -> int:
        """Take the best edge of the graph as it is; no edge goes while this runs."""
        heap = self._heap
        while True:
            lead, last_known, tie, stamp = heap[0]
            edge = abs(tie)
            if stamp != self._stamps[edge]:
                heapq.heappop(heap)
                continue
            now, after = self._fresh.get(edge) or self._look(edge)
            whole = self._key(after) if now == lead else ()
            if whole and whole == last_known:
                heapq.heappop(heap)
                self._alive.discard(edge)
                self._stamps[edge] += 1
                return edge
            heapq.heapreplace(heap, (now, whole, tie, stamp))

    def _mark(self, edge: int) -> None:
        bound = self._bound(edge)
        if bound < self._held[edge]:
            self._stamps[edge] += 1
            self._held[edge] = bound
            heapq.heappush(self._heap, (bound, (), self._ties[edge], self._stamps[edge]))

    def _bound(self, edge: int) -> float:
        """Return a lead that no later one of the edge is better than."""
        engine, scale = self._engine, self._scale
        if not engine.least:
            return self._best
        values, bound = engine.values, self._ceiling[edge]
        for least, layer in zip(engine.least, engine.layers(edge), strict=True):
            if scale is None:
                bound = max(bound, (least - min([values[t] for t in layer])) * self._width)
            else:
                bound = max([bound, *((least - values[t]) * scale[t] * self._width for t in layer if scale[t])])
        return bound

    def _look(self, edge: int) -> tuple[float, Counts]:
        """Compute what an edge changes in the graph as it is, the lead of that, and the bound of its later leads."""
        engine = self._engine
        after = engine.after(edge)
        if engine.falling:
            new = self._new(after)
            lowest = min(new) if new else 0
            lead: float = new.count(lowest) - lowest * self._width if new else self._best
            if engine.least:
                ends = self._new({end: after[end] for end in self._ends[edge]})
                self._ceiling[edge] = -min(ends) * self._width if ends else self._best
        else:
            old = self._old(after)
            lowest = min(old) if old else 0
            lead = lowest * self._width - old.count(lowest) if old else math.inf
        self._held[edge] = lead
        self._fresh[edge] = lead, after
        return lead, after

    def _new(self, after: Counts) -> list[int]:
        scale = self._scale
        return list(after.values()) if scale is None else [x * scale[t] for t, x in after.items() if scale[t]]

    def _old(self, after: Counts) -> list[int]:
        values, scale = self._engine.values, self._scale
        return [values[t] for t in after] if scale is None else [values[t] * scale[t] for t in after if scale[t]]

    def _key(self, after: Counts) -> tuple[int, ...]:
        return signed_key(self._old(after), self._new(after))

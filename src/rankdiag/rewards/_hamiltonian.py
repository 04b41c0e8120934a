"""Graphs with a Hamiltonian cycle: answers that are easy to verify and hard to generate."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._rng import as_generator
from rankdiag._validate import boolean, describe, integer, real

if TYPE_CHECKING:
    import networkx

__all__ = ["HamiltonianPair", "hamiltonian_pairs", "is_hamiltonian_cycle"]

_WORDS = 9  # of 8 bytes that a vertex or an edge takes in a pair, its tuple and texts: measured, 7.3 to 9.2
_REDRAWS = 10_000  # of edges that leave no pair of vertices apart; with more, p is as good as 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HamiltonianPair:
    """One graph, one cycle through all its vertices, and one order that is none.

    Attributes
    ----------
    n : int
        Vertices, named 0 to n - 1.
    edges : tuple of tuple of int
        Pairs (u, v) with u < v, shuffled.
    chosen, rejected : tuple of int
        Orders of all vertices: a Hamiltonian cycle, and none.
    prompt, chosen_text, rejected_text : str
        The graph and both orders as texts, with the special tokens ``<sep>`` and ``<edge_sep>``.

    Examples
    --------
    >>> from rankdiag.rewards import hamiltonian_pairs
    >>> pair = hamiltonian_pairs(1, n=4, rng=0)[0]
    >>> pair.chosen_text, pair.graph().number_of_edges() == len(pair.edges)
    ('2<sep>0<sep>1<sep>3', True)
    """

    n: int
    edges: tuple[tuple[int, int], ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt: str
    chosen_text: str
    rejected_text: str

    def graph(self) -> networkx.Graph[int]:
        """Return the graph as a networkx object.

        Returns
        -------
        networkx.Graph
            With vertices in order and edges as they are listed.
        """
        import networkx

        graph: networkx.Graph[int] = networkx.Graph()
        graph.add_nodes_from(range(self.n))
        graph.add_edges_from(self.edges)
        return graph


def hamiltonian_pairs(
    n_graphs: int, n: int = 10, p: float = 0.2, *, hard: bool = False, rng: Any = None
) -> list[HamiltonianPair]:
    """Draw graphs with a planted Hamiltonian cycle, each with the cycle and with an order that is none.

    Parameters
    ----------
    n_graphs : int
        Number of graphs, at least 0.
    n : int
        Vertices of each, at least 4 (every order of a triangle is a cycle).
    p : float
        Probability of each edge outside the planted cycle, in [0, 1).
    hard : bool
        Whether the rejected order is one 2-opt move away from the planted cycle (one stretch of it reversed), drawn
        uniformly among the moves that are no cycle. Otherwise it is the first uniform permutation that is none, which
        as a rule misses most edges and is told by that alone.
    rng : int, numpy.random.Generator or None
        Source of randomness; an int repeats the graphs.

    Returns
    -------
    list of HamiltonianPair
        One for each graph.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a number is out of range, the pairs do not fit into memory, or `p` is so near 1 that complete graphs alone
        are drawn.

    Notes
    -----
    Order of draws for each graph: the cycle, one number for each other pair i < j, the shuffle of edges, the rejected
    order; so a seed gives the same graphs with either kind of negative as long as there is one graph. A complete
    graph has no order to reject, so its edges are drawn again. Time and memory O(n^2) a graph.

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 4 (the task); ``hard`` is added here.

    Examples
    --------
    >>> from rankdiag.rewards import hamiltonian_pairs, is_hamiltonian_cycle
    >>> pair = hamiltonian_pairs(2, n=6, hard=True, rng=0)[1]
    >>> [is_hamiltonian_cycle(order, pair.edges, pair.n) for order in (pair.chosen, pair.rejected)]
    [True, False]
    """
    count = integer(n_graphs, "n_graphs", low=0)
    size = integer(n, "n", low=4)
    share = real(p, "p", low=0.0, high=1.0, high_open=True)
    near = boolean(hard, "hard")
    refuse_size(4 * size * size, "n", (size, size))
    lines = 3 * size + round(share * size * (size - 3) / 2)
    refuse_size(count * lines * _WORDS, "n_graphs", (count, lines))
    generator, _ = as_generator(rng)
    return [_pair(generator, size, share, near) for _ in range(count)]


def is_hamiltonian_cycle(order: Any, edges: Any, n: int) -> bool:
    """Whether an order of vertices is a Hamiltonian cycle of a graph.

    Parameters
    ----------
    order : iterable of int
        What is to be verified, the answer of a model say. Anything that is no order of all vertices is no cycle.
    edges : iterable of pairs of int
        Undirected edges of the graph, either way round.
    n : int
        Vertices, named 0 to n - 1; at least 3.

    Returns
    -------
    bool
        True if `order` names each vertex once and all n neighbours, the last with the first, are joined by an edge.
        Every rotation and reversal of a cycle is one.

    Raises
    ------
    TypeError
        If `edges` is no collection of pairs of integers, or `n` no integer.
    ValueError
        If `n` is below 3, or an edge joins no two vertices of the graph.

    Examples
    --------
    >>> from rankdiag.rewards import is_hamiltonian_cycle
    >>> square = [(0, 1), (1, 2), (2, 3), (0, 3)]
    >>> is_hamiltonian_cycle([2, 3, 0, 1], square, 4), is_hamiltonian_cycle([0, 2, 1, 3], square, 4)
    (True, False)
    >>> is_hamiltonian_cycle([0, 1, 2], square, 4), is_hamiltonian_cycle(["0", 1, 2, 3], square, 4)
    (False, False)
    """
    size = integer(n, "n", low=3)
    known = _edge_set(edges, size)
    found = _vertices(order, size)
    if found is None:
        return False
    return all((min(u, v), max(u, v)) in known for u, v in zip(found, [*found[1:], found[0]], strict=True))


def _vertices(order: Any, size: int) -> list[int] | None:
    """Return distinct integers, one for each vertex; None for anything else."""
    if isinstance(order, (str, bytes)) or not isinstance(order, Iterable):
        return None
    try:
        entries = list(islice(order, size + 1))
    except TypeError:  # an array without axes
        return None
    found = [vertex for vertex in map(_vertex, entries) if vertex is not None]  # one out of range has no edge
    return found if len(entries) == len(found) == size == len(set(found)) else None


def _vertex(entry: Any) -> int | None:
    if isinstance(entry, bool) or "bool" in str(getattr(entry, "dtype", "")):
        return None
    try:
        return operator.index(entry)
    except (TypeError, ValueError, RuntimeError):  # text, a fraction, a tensor with several entries or without data
        return None


def _edge_set(edges: Any, size: int) -> set[tuple[int, int]]:
    if isinstance(edges, (str, bytes)) or not isinstance(edges, Iterable):
        raise TypeError(f"`edges` must be pairs of vertices; got {describe(edges)}")
    found = set()
    for edge in edges:
        try:
            ends = [_vertex(end) for end in edge]
        except TypeError:
            raise TypeError(f"`edges` must hold pairs of vertices; got {describe(edge)}") from None
        if len(ends) != 2 or ends[0] is None or ends[1] is None:
            raise TypeError(f"`edges` must hold pairs of integers; got {describe(str(edge))}")
        low, high = sorted((ends[0], ends[1]))
        if not 0 <= low < high < size:
            raise ValueError(f"`edges` must join two vertices from 0 to {size - 1}; got {(ends[0], ends[1])}")
        found.add((low, high))
    return found


def _pair(rng: np.random.Generator, n: int, p: float, hard: bool) -> HamiltonianPair:
    cycle = rng.permutation(n)
    planted = np.zeros((n, n), dtype=np.bool_)
    _join(planted, cycle, np.roll(cycle, -1))
    i, j = np.triu_indices(n, 1)  # pairs i < j in lexicographic order
    other = ~planted[i, j]
    for _ in range(_REDRAWS):
        drawn = rng.random(int(other.sum())) < p
        if not drawn.all():
            break
    else:
        raise ValueError(f"`p` must leave graphs of {n} vertices that are not complete; got {p!r}, too near 1")
    joined = planted.copy()
    _join(joined, i[other][drawn], j[other][drawn])
    use = joined[i, j]
    listed = np.column_stack([i[use], j[use]])[rng.permutation(int(use.sum()))]
    rejected = _two_opt(rng, cycle, joined) if hard else _permutation(rng, n, joined)
    edges = tuple((int(u), int(v)) for u, v in listed)
    return HamiltonianPair(
        n=n,
        edges=edges,
        chosen=tuple(cycle.tolist()),
        rejected=tuple(rejected.tolist()),
        prompt="Vertices: "
        + "".join(f"<sep>{v}" for v in range(n))
        + "\nEdges: "
        + "".join(f"<sep>{u}<edge_sep>{v}" for u, v in edges),
        chosen_text="<sep>".join(map(str, cycle.tolist())),
        rejected_text="<sep>".join(map(str, rejected.tolist())),
    )


def _join(joined: NDArray[np.bool_], u: NDArray[np.intp], v: NDArray[np.intp]) -> None:
    joined[u, v] = True
    joined[v, u] = True


def _permutation(rng: np.random.Generator, n: int, joined: NDArray[np.bool_]) -> NDArray[np.intp]:
    while True:  # ends: each draw misses an edge with probability 2 / (n - 1) or more, for one pair at least is apart
        order = np.asarray(rng.permutation(n), dtype=np.intp)
        if not joined[order, np.roll(order, -1)].all():
            return order


def _two_opt(rng: np.random.Generator, cycle: NDArray[np.intp], joined: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Reverse cycle[a+1 .. b]: edges (a, a+1) and (b, b+1) give way to (a, b) and (a+1, b+1)."""
    a, b = np.triu_indices(len(cycle), 2)  # the first and the last edge give the same cycle, which misses nothing
    after = np.roll(cycle, -1)
    missing = np.flatnonzero(~(joined[cycle[a], cycle[b]] & joined[after[a], after[b]]))
    move = missing[rng.integers(len(missing))]  # never empty: a pair apart is one new edge of some move
    order = cycle.copy()
    order[a[move] + 1 : b[move] + 1] = order[a[move] + 1 : b[move] + 1][::-1]
    return order

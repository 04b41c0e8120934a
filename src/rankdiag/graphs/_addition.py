"""Walk index sparsification read backwards: which new edges help the vertices that interact least."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, describe, integer
from rankdiag.graphs._adjacency import can_iterate, vertex_reader
from rankdiag.graphs._closed_walks import closed_walk_counts
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._lazy_order import LazyOrder
from rankdiag.graphs._walk_counts import as_depth
from rankdiag.graphs._wis_engines import Counts, LocalWalks, Neighbours, distances

__all__ = ["WISAdditions", "wis_addition_order"]

Ints = NDArray[np.int64]
TieBreak = Literal["first", "last"]

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WISAdditions(Result):
    """The order in which candidate edges should be added so that the vertices that interact least gain first.

    Attributes
    ----------
    candidate_ids : ndarray of int64, shape (k,)
        Row numbers of the added candidates, first added first.
    edges : ndarray of int64, shape (k, 2)
        Their ends, as the candidates give them.
    addition_rank : ndarray of int64, shape (C,)
        For every candidate its place in `candidate_ids`; -1 if it is not there.
    lowest : tuple of int, length k + 1
        Smallest value of any vertex before the first addition and after each one: closed walks of length L, 0 for a
        vertex that hears nobody.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    num_nodes : int
        Vertices of the graph.
    directed : bool
        Whether (u, v) and (v, u) are two edges.
    tie_break : {"first", "last"}
        Which of several best candidates came first: the smallest row number or the largest.

    Examples
    --------
    >>> from rankdiag.graphs import wis_addition_order
    >>> additions = wis_addition_order([[0, 1, 1, 2], [1, 0, 2, 1]], [[0, 2], [2, 3]], num_nodes=4)
    >>> additions.edges.tolist(), additions.lowest
    ([[2, 3], [0, 2]], (0, 2, 2))
    """

    tag: ClassVar[str] = "graphs.WISAdditions"
    judged: ClassVar[bool] = False

    candidate_ids: NDArray[np.int64]
    edges: NDArray[np.int64]
    addition_rank: NDArray[np.int64]
    lowest: tuple[int, ...]
    depth: int
    num_nodes: int
    directed: bool = False
    tie_break: Literal["first", "last"] = "first"

    def __len__(self) -> int:
        return len(self.candidate_ids)

    def document(self) -> Document:
        """Return what this order shows: counts, the first additions, and the smallest value as edges come."""
        numbers = (
            ("candidates", len(self.addition_rank), "Edges that could be added."),
            ("added", len(self), "Edges in the order of their addition."),
            ("vertices", self.num_nodes, "Vertices of the graph."),
            ("depth", self.depth, "Layers of the GNN; walks are one shorter."),
            ("smallest value before", self.lowest[0], "Closed walks at the vertex that has fewest."),
            ("smallest value after", self.lowest[-1], "The same after all these additions."),
        )
        grid = Grid(
            title="First edges to add",
            columns=(
                Column(name="addition", doc="1 comes first."),
                Column(name="candidate", doc="Row number among the candidates."),
                Column(name="source", label="from" if self.directed else "end"),
                Column(name="target", label="to" if self.directed else "other end"),
                Column(name="lowest", label="smallest value then", doc="Closed walks at the vertex that has fewest."),
            ),
            rows=tuple(
                (
                    place + 1,
                    int(self.candidate_ids[place]),
                    int(self.edges[place, 0]),
                    int(self.edges[place, 1]),
                    self.lowest[place + 1],
                )
                for place in range(min(len(self), _SHOWN))
            ),
        )
        return Document(
            title=f"Order of addition, depth {self.depth}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(KeyNumber(label=label, value=value, doc=doc) for label, value, doc in numbers),
            grids=(grid,) if len(self) else (),
            plots=self._plots(),
            notes=self.notes(),
        )

    def _plots(self) -> tuple[Plot, ...]:
        if not len(self) or max(self.lowest) >= 2**1000:  # beyond what an axis of float64 can show
            return ()
        series = Series(
            label="", x=[float(k) for k in range(len(self.lowest))], y=[float(value) for value in self.lowest]
        )
        return (
            Plot(
                title="Smallest value of any vertex",
                x_label="edges added",
                y_label=f"closed walks of length {self.depth}",
                series=(series,),
            ),
        )


def wis_addition_order(
    graph: Any,
    candidates: Any,
    depth: int = 2,
    *,
    num_edges: int | None = None,
    tie_break: TieBreak = "first",
    directed: bool = False,
    num_nodes: int | None = None,
) -> WISAdditions:
    r"""Order new edges so that the vertices that interact least with the rest gain first.

    Walk index sparsification removes the edge whose absence leaves the largest sorted list of the vertices' walk
    indices. This is its reverse: add the candidate whose presence makes that list largest, and so on. The reverse is
    derived here and is no algorithm of the paper.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    candidates : array-like of int (C, 2), torch.Tensor, or iterable of pairs
        Edges that may be added, one in a row, none of them in the graph; node labels for a networkx graph.
    depth : int
        Number L >= 1 of layers of the GNN; walks have length L - 1.
    num_edges : int, optional
        How many edges to add; None, and more than there are candidates, stand for all.
    tie_break : {"first", "last"}
        Of several best candidates, the one with the smallest row number comes first, or the one with the largest.
    directed : bool
        Whether columns and candidates are directed edges.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    WISAdditions
        Row numbers of the candidates in the order of their addition.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), a number is out of its bounds, or a candidate is a self-loop, is
        in the graph already, names a vertex that is not, or comes twice.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    The value of a vertex t is :math:`(A^L)_{tt}`, the closed walks with self-loops, and 0 if t hears nobody: its
    vertex-prediction walk index :math:`\mathrm{WI}_{L-1,t}(\{t\})`. Lists of values are compared upwards from their
    smallest entries, exactly. A heap holds keys that are never too bad, and after an addition only the candidates that
    come to its top or share a closed walk of length L with the new edge are looked at again; at depths 2 and 3 of an
    undirected graph a look costs one intersection of two neighbour sets.

    References
    ----------
    Derived here, from the objective of arXiv 2211.16494, section 5.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import wis_addition_order
    >>> additions = wis_addition_order(nx.path_graph("abcd"), [("a", "c"), ("a", "d"), ("b", "d")], 3, num_edges=1)
    >>> additions.edges.tolist()
    [[0, 3]]
    """
    layers = as_depth(depth)
    wanted = None if num_edges is None else integer(num_edges, "num_edges", low=0)
    rule: TieBreak = choice(tie_break, "tie_break", ("first", "last"))
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    pairs = _candidates(candidates, listed)
    count = len(pairs) if wanted is None else min(wanted, len(pairs))
    engine = _GainEngine(listed, pairs, layers)
    lowest = _Lowest(engine.values)
    engine.changed = lowest.note
    ids: list[int] = []
    if count:
        order = LazyOrder(engine, pairs, list(range(len(pairs))), None, rule == "last")
        for _ in range(count):
            ids += order.take(1, 1)
            lowest.close()
    return _result(listed, pairs, np.array(ids, np.int64), tuple(lowest.seen), layers, rule)


def _result(
    graph: EdgeList, pairs: list[tuple[int, int]], ids: Ints, lowest: tuple[int, ...], depth: int, rule: TieBreak
) -> WISAdditions:
    edges = np.array(pairs, np.int64).reshape(-1, 2)[ids]
    rank = np.full(len(pairs), -1, np.int64)
    rank[ids] = np.arange(len(ids))
    for array in (ids, edges, rank):
        array.flags.writeable = False
    walks = f"depth {depth} (walks of length {depth - 1})"
    return WISAdditions(
        candidate_ids=ids,
        edges=edges,
        addition_rank=rank,
        lowest=lowest,
        depth=depth,
        num_nodes=graph.num_nodes,
        directed=graph.directed,
        tie_break=rule,
        explanation=(
            f"{len(ids)} of {len(pairs)} candidate edges of a graph with {graph.num_nodes} vertices in the order of "
            f"their addition, {walks}. The first edges help the vertices that interact least; the smallest "
            f"value of any vertex goes from {_short(lowest[0])} to {_short(lowest[-1])}."
        ),
        meta=Meta(
            definition="greedy addition of the candidate whose presence makes the sorted list of the vertices' walk "
            "indices largest, smallest entries first",
            units="edges",
            n=len(pairs),
            details={"depth": walks.removeprefix("depth "), "ties": f"{rule} row number"},
        ),
    )


def _short(value: int) -> str:
    return str(value) if value < 10**15 else f"a number of {value.bit_length()} bits"


def _candidates(candidates: Any, graph: EdgeList) -> list[tuple[int, int]]:
    candidates = out_of_torch(candidates, "candidates", "pairs of vertices, shape (C, 2)")
    rule = "`candidates` must be pairs of vertices, shape (C, 2)"
    if isinstance(candidates, (str, bytes, dict)) or not can_iterate(candidates):
        raise TypeError(f"{rule}; got {describe(candidates)}")
    if isinstance(candidates, np.ndarray):
        if candidates.ndim != 2 or candidates.shape[1] != 2:
            raise ValueError(f"{rule}; got shape {candidates.shape}")
        rows: list[Any] = candidates.tolist()
    else:
        rows = list(candidates)
    present = {_name(u, v, graph.directed) for u, v in graph.edges.tolist()}
    vertex = vertex_reader(graph, "candidates")
    pairs: list[tuple[int, int]] = []
    seen: set[tuple[int, int]] = set()
    for row in rows:
        if not isinstance(row, (tuple, list, np.ndarray)) or len(row) != 2:
            raise ValueError(f"{rule}; got {describe(row)} among them")
        u, v = (vertex(end) for end in row)
        name = _name(u, v, graph.directed)
        if u == v:
            raise ValueError(f"`candidates` holds ({row[0]!r}, {row[1]!r}), a self-loop; walks have them already")
        if name in present:
            raise ValueError(f"`candidates` holds ({row[0]!r}, {row[1]!r}), which is an edge of the graph already")
        if name in seen:
            raise ValueError(f"`candidates` holds ({row[0]!r}, {row[1]!r}) twice")
        seen.add(name)
        pairs.append((u, v))
    return pairs


def _name(u: int, v: int, directed: bool) -> tuple[int, int]:
    return (u, v) if directed or u < v else (v, u)


class _Lowest:
    """The smallest of values that only rise, after each addition."""

    def __init__(self, values: list[int]) -> None:
        self._values = values
        self._heap = [(value, vertex) for vertex, value in enumerate(values)]
        heapq.heapify(self._heap)
        self.seen: list[int] = [self._smallest()]

    def note(self, vertex: int) -> None:
        heapq.heappush(self._heap, (self._values[vertex], vertex))

    def close(self) -> None:
        self.seen.append(self._smallest())

    def _smallest(self) -> int:
        heap = self._heap
        while heap and heap[0][0] != self._values[heap[0][1]]:
            heapq.heappop(heap)
        return heap[0][0] if heap else 0


class _GainEngine:
    """What a new edge brings: the walks that the removal of the same edge would take again."""

    falling = False
    twins = False
    least: tuple[int, ...] = ()

    def __init__(self, graph: EdgeList, pairs: list[tuple[int, int]], depth: int) -> None:
        self._graph = Neighbours(graph)
        self._pairs, self._depth = pairs, depth
        self._near = depth <= 3 and not graph.directed
        self._at: list[set[int]] = [set() for _ in range(graph.num_nodes)]  # candidates that are left, by their ends
        for number, (u, v) in enumerate(pairs):
            self._at[u].add(number)
            self._at[v].add(number)
        most = self._graph.most() + max(map(len, self._at), default=0)
        self._walks = LocalWalks(self._graph, depth, most)
        self.values: list[int] = closed_walk_counts(graph, depth).tolist()
        self.changed: Any = None

    def layers(self, edge: int) -> Iterable[Iterable[int]]:
        return ()

    def hub(self, edge: int) -> int | None:
        return None

    def after(self, edge: int) -> Counts:
        u, v = self._pairs[edge]
        found = self._found(u, v)
        values, hears = self.values, self._graph.into
        for end in (v,) if self._graph.directed else (u, v):
            if not hears[end]:
                found[end] = found.get(end, 0) + 1  # the walk along its self-loop counts from now on
        return {t: values[t] + walks for t, walks in found.items()}

    def _found(self, u: int, v: int) -> Counts:
        """Count closed walks through a candidate, by their start."""
        graph = self._graph
        if not self._near:
            graph.out[u].add(v)
            graph.into[v].add(u)
            found = self._walks.through(u, v)
            graph.out[u].discard(v)
            graph.into[v].discard(u)
            return found
        if self._depth == 3:
            common = graph.out[u] & graph.out[v]
            found = dict.fromkeys(common, 2)
            found[u] = found[v] = 2 * len(common) + 3
            return found
        return {} if self._depth == 1 else {u: 1, v: 1}

    def apply(self, edge: int) -> Iterable[int]:
        for vertex, value in self.after(edge).items():
            self.values[vertex] = value
            self.changed(vertex)
        u, v = self._pairs[edge]
        graph = self._graph
        graph.out[u].add(v)
        graph.into[v].add(u)
        self._at[u].discard(edge)
        self._at[v].discard(edge)
        return self._sharing(u, v)

    def _sharing(self, u: int, v: int) -> set[int]:
        """Candidates (x, y) that, once added, have a closed walk of length L through both: see `LocalWalks`."""
        graph, room = self._graph, self._depth - 2
        far = self._depth
        ahead, behind = distances(v, graph.out, room), distances(u, graph.into, room)
        found: set[int] = set()
        for near in {*ahead, *behind}:
            for number in self._at[near]:
                x, y = self._pairs[number]
                if graph.directed:
                    if ahead.get(x, far) + behind.get(y, far) <= room:
                        found.add(number)
                    continue
                v_x, v_y = ahead.get(x, far), ahead.get(y, far)
                v_x, v_y = min(v_x, v_y + 1), min(v_y, v_x + 1)  # the candidate is an edge too
                if min(v_x + behind.get(y, far), v_y + behind.get(x, far)) <= room:
                    found.add(number)
        return found

"""Which single edge more would raise the walk index of a partition most."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch, refuse_size
from rankdiag._document import Column, Document, KeyNumber, format_value
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import describe, integer
from rankdiag.graphs._adjacency import adjacency, as_subset, as_vertex, vertex_reader
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._walk_counts import as_depth, boundary_mask, count_walks, log_of

__all__ = ["RewiringHints", "RewiringRow", "rewiring_hints"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_POOL = 3  # pairs whose exact gain is counted, for each that is returned
_GIVEN = 100  # given candidates whose exact gain is counted at least
_BLOCK = 1 << 20  # pairs whose estimate is held at once
_SMALL = 1e-290  # estimates below it, beside the largest walk counts, may have lost digits or all of themselves
_SLACK = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RewiringRow:
    """One edge that is not there, and what it would do.

    Attributes
    ----------
    name : str
        Its ends by name, ``"u - v"``, or ``"u -> v"`` in a directed graph.
    u, v : int
        Its ends; from u to v in a directed graph.
    crosses : bool
        Whether it joins the two sides, so that its ends enter the boundary.
    gain : int
        Walk index with the edge minus that without, exact.
    linear_share : float
        Part of the gain that is linear in the edge, 0 to 1: walks that use it once, or begin where it widens the
        boundary and do not use it. The estimate which chose the edge is this part of its gain.
    walk_index : int
        Walk index with the edge, exact.
    log_change : float
        Natural logarithm of the walk index with the edge over that without; infinite where that is 0.

    Examples
    --------
    >>> from rankdiag.graphs import rewiring_hints
    >>> row = rewiring_hints([[0, 1, 1, 2], [1, 0, 2, 1]], [0], 2).rows[0]
    >>> row.name, row.crosses, row.gain, round(row.linear_share, 3)
    ('0 - 2', True, 4, 0.75)
    """

    name: str
    u: int
    v: int
    crosses: bool
    gain: int
    linear_share: float
    walk_index: int
    log_change: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RewiringHints(Table[RewiringRow]):
    """Edges that are not there, by how much each alone would raise the walk index of a partition.

    Attributes
    ----------
    rows : tuple of RewiringRow
        The best, descending by exact gain.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    target : int or None
        Vertex whose prediction is meant; None is a prediction for the graph.
    walk_index : int
        Walk index of the partition as it is, exact.

    Examples
    --------
    >>> from rankdiag.graphs import rewiring_hints
    >>> path = [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    >>> hints = rewiring_hints(path, [0, 1], 3)
    >>> hints.walk_index, [(row.name, row.gain, row.walk_index) for row in hints]
    (16, [('0 - 3', 20, 36), ('0 - 2', 16, 32), ('1 - 3', 16, 32)])
    """

    tag: ClassVar[str] = "graphs.RewiringHints"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="edge"),
        Column(name="u", label="u (position)"),
        Column(name="v", label="v (position)"),
        Column(name="crosses", doc="Whether it joins the two sides, so that the boundary grows."),
        Column(name="gain", doc="Exact rise of the walk index."),
        Column(name="linear_share", label="linear share", doc="Part of the gain that is linear in the edge."),
        Column(name="walk_index", label="walk index", doc="With the edge, exact."),
        Column(name="log_change", label="ln change", unit="nats", doc="Of the walk index."),
    )

    rows: tuple[RewiringRow, ...] = ()
    depth: int
    target: int | None = None
    walk_index: int

    def document(self) -> Document:
        """Return what these hints show: the walk index as it is, and a row for each edge."""
        shown = tuple(column.name for column in self.columns if column.name not in {"u", "v"})
        return Document(
            title=f"Edges worth adding, depth {self.depth}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="walk index", value=self.walk_index, doc="Of the partition as it is."),
                KeyNumber(label="depth", value=self.depth, doc="Layers of the GNN; walks are one shorter."),
            ),
            grids=(self.grid("Edges that would help most", shown),),
            notes=self.notes(),
        )


def rewiring_hints(
    graph: Any,
    subset: Any,
    depth: int,
    *,
    top: int = 10,
    target: Any = None,
    candidates: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> RewiringHints:
    r"""Find the edges that are not there and would raise the walk index of a partition most, each on its own.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side of the partition; node labels for a networkx graph.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    top : int
        Edges to return at most.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    candidates : iterable of pairs of vertices, optional
        Edges to choose from, none of which may be there already; None takes all pairs that are not joined.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    RewiringHints
        Edges in descending order of their exact gain; those that gain nothing are left out. There is no verdict.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, a vertex is not in the
        graph, or a candidate is a self-loop or an edge already.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    With C the boundary, the walk index :math:`1_C^\top A^{L-1} 1` grows by an edge from u to v, to first order, by
    :math:`\sum_{k=0}^{L-2} x_k(u)\,y_{L-2-k}(v)`, where :math:`x_k = (A^\top)^k 1_C` and :math:`y_m = A^m 1`. An edge
    that crosses adds :math:`y_{L-1}` of the end that enters the boundary. An undirected edge counts in both directions
    (derived here). All vectors come from two sweeps over the edges. Estimates are made for rows of pairs, the most
    promising vertex first, until none that is left can reach the best ones: O(n) memory for each row, O(L n^2) time at
    worst. Of three times `top` (of at least 100 given candidates) the exact gain is then counted, from the graph
    with the edge, and decides the order. An edge whose gain is mostly of higher order can be missed beyond that.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4, for the walk index.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import rewiring_hints
    >>> hints = rewiring_hints(nx.barbell_graph(4, 0), range(4), 3, top=1, candidates=[(0, 7), (3, 5)])
    >>> hints.rows[0].name, hints.rows[0].gain, hints.rows[0].crosses
    ('0 - 7', 48, True)
    """
    layers = as_depth(depth)
    limit = integer(top, "top", low=1)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    side = as_subset(subset, listed)
    goal = None if target is None else as_vertex(target, listed)
    given = None if candidates is None else _given(candidates, listed)
    bound = boundary_mask(listed, side)
    before = count_walks(listed, layers - 1, goal).total(bound)
    scores = _Scores.of(listed, side, bound, layers, goal)
    pool = min(max(_POOL * limit, 0 if given is None else _GIVEN), 1 << 30)
    pairs, estimates = scores.best(pool) if given is None else scores.among(given, pool)
    rows = []
    for (u, v), estimate in zip(pairs.tolist(), estimates.tolist(), strict=True):
        after = _with_edge(listed, side, layers, goal, u, v)
        if after > before:
            linear = (
                math.log(estimate) + scores.log_scale
                if estimate > _SMALL
                else _apart(scores, bound, layers, goal, u, v)
            )
            share = min(1.0, math.exp(linear - log_of(after - before)))
            rows.append(_row(listed, side, u, v, before, after, share))
    rows.sort(key=lambda row: (-row.gain, row.u, row.v))
    rows = rows[:limit]
    return _hints(rows, listed, layers, goal, before, None if given is None else len(given))


def _hints(
    rows: list[RewiringRow], listed: EdgeList, depth: int, goal: int | None, before: int, given: int | None
) -> RewiringHints:
    walks = f"depth {depth} (walks of length {depth - 1})"
    best = (
        f"The edge {rows[0].name} would raise it most, by {format_value(rows[0].gain)}."
        if rows
        else "No edge that was looked at raises it."
    )
    return RewiringHints(
        rows=tuple(rows),
        depth=depth,
        target=goal,
        walk_index=before,
        explanation=f"The walk index of this partition of {listed.num_nodes} vertices is {format_value(before)}, "
        f"{walks}. {best} Each edge is judged alone; after one is added, ask again.",
        meta=Meta(
            definition="walk index with one edge more, minus that without",
            base="e",
            units="walks",
            n=len(rows),
            details={
                "depth": walks.removeprefix("depth "),
                "candidates": "all pairs that are not joined" if given is None else given,
                **({} if goal is None else {"target": goal}),
            },
        ),
    )


def _row(listed: EdgeList, side: Mask, u: int, v: int, before: int, after: int, linear: float) -> RewiringRow:
    first, second = (u, v) if listed.labels is None else (listed.labels[u], listed.labels[v])
    return RewiringRow(
        name=f"{first} -> {second}" if listed.directed else f"{first} - {second}",
        u=u,
        v=v,
        crosses=bool(side[u] != side[v]),
        gain=after - before,
        linear_share=linear,
        walk_index=after,
        log_change=log_of(after) - log_of(before) if before else math.inf,
    )


def _apart(scores: _Scores, bound: Mask, depth: int, goal: int | None, u: int, v: int) -> float:
    """Return ln of a first-order gain that is lost beside far larger counts: from the components of both ends alone."""
    from scipy.sparse.csgraph import connected_components

    graph = scores.graph
    _, part = connected_components(adjacency(graph), directed=False)
    keep = (part == part[u]) | (part == part[v])
    if goal is not None and not keep[goal]:
        return -math.inf
    place = np.cumsum(keep) - 1
    edges = place[graph.edges[keep[graph.edges[:, 0]]]]
    near = replace(graph, num_nodes=int(keep.sum()), edges=edges, labels=None)
    end = None if goal is None else int(place[goal])
    alone = _Scores.of(near, scores.side[keep], bound[keep], depth, end)
    value = float(alone._at(place[[u]], place[[v]])[0])
    return math.log(value) + alone.log_scale if value > 0 else -math.inf


def _with_edge(listed: EdgeList, side: Mask, depth: int, goal: int | None, u: int, v: int) -> int:
    more = replace(listed, edges=np.concatenate((listed.edges, [[u, v]])))
    return count_walks(more, depth - 1, goal).total(boundary_mask(more, side))


def _given(candidates: Any, listed: EdgeList) -> Ints:
    """Read candidate pairs and refuse those that are no new edge."""
    candidates = out_of_torch(candidates, "candidates", "pairs of vertices")
    if isinstance(candidates, (str, bytes, dict)) or not isinstance(candidates, Iterable):
        raise TypeError(f"`candidates` must be pairs of vertices; got {describe(candidates)}")
    taken = {tuple(edge) for edge in listed.edges.tolist()}
    vertex = vertex_reader(listed, "candidates")
    found: dict[tuple[int, int], None] = {}
    try:
        entries = list(candidates)
    except TypeError:  # an array without axes
        raise TypeError(f"`candidates` must be pairs of vertices; got {describe(candidates)}") from None
    for place, pair in enumerate(entries):
        try:
            first, second = pair
        except (TypeError, ValueError):
            raise TypeError(f"`candidates` must hold pairs of vertices; got {describe(pair)} at {place}") from None
        u, v = vertex(first), vertex(second)
        if u == v or (u, v) in taken or (not listed.directed and (v, u) in taken):
            what = "a self-loop" if u == v else "an edge of the graph already"
            raise ValueError(f"`candidates` must hold new edges; ({first!r}, {second!r}) is {what}")
        found[(u, v) if listed.directed or u < v else (v, u)] = None
    return np.array(list(found), np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Scores:
    """First-order gains of all pairs as a product of two thin matrices, all divided by one number.

    Attributes
    ----------
    out, into : ndarray of float64, shape (n, K)
        The walks part of the gain of (u, v) is ``out[u] @ into[v]``.
    entry : ndarray of float64, shape (n,)
        Walks that begin at a vertex which is not in the boundary yet.
    side : ndarray of bool, shape (n,)
        One side of the partition.
    log_scale : float
        Natural logarithm of the number by which everything is divided.
    graph : EdgeList
        The graph.
    """

    out: Floats
    into: Floats
    entry: Floats
    side: Mask
    log_scale: float
    graph: EdgeList

    @classmethod
    def of(cls, graph: EdgeList, side: Mask, bound: Mask, depth: int, goal: int | None) -> _Scores:
        n, steps = graph.num_nodes, depth - 1
        refuse_size(4 * n * steps, "depth", (n, steps))
        end = np.ones(n) if goal is None else (np.arange(n) == goal).astype(np.float64)
        matrix = adjacency(graph).astype(np.float64)
        lefts, left_logs = _sweep(matrix.T.tocsr(), bound.astype(np.float64), steps)
        rights, right_logs = _sweep(matrix, end, steps + 1)
        walks = left_logs + right_logs[:steps][::-1]
        scale = float(max(walks.max(initial=-np.inf), right_logs[-1]))
        x = lefts * np.exp(walks - scale)[:, None]
        y = rights[:steps][::-1]
        entry = np.where(bound, 0.0, rights[-1] * np.exp(right_logs[-1] - scale))
        out, into = (x, y) if graph.directed else (np.concatenate((x, y)), np.concatenate((y, x)))
        return cls(np.ascontiguousarray(out.T), np.ascontiguousarray(into.T), entry, side, scale, graph)

    def _at(self, u: Ints, v: Ints) -> Floats:
        values: Floats = np.einsum("pk,pk->p", self.out[u], self.into[v])
        entries = self.entry[v] if self.graph.directed else self.entry[u] + self.entry[v]
        values += (self.side[u] != self.side[v]) * entries
        return values

    def among(self, pairs: Ints, pool: int) -> tuple[Ints, Floats]:
        """Return the best of given pairs and their estimates."""
        values = self._at(pairs[:, 0], pairs[:, 1])
        order = np.argsort(-values, kind="stable")[:pool]
        return pairs[order], values[order]

    def best(self, pool: int) -> tuple[Ints, Floats]:
        """Return the best of all pairs that are not joined, and their estimates."""
        n = self.graph.num_nodes
        pairs, values = np.zeros((0, 2), np.int64), np.zeros(0)
        if n < 2:
            return pairs, values
        own = 0.0 if self.graph.directed else self.entry
        limit = (self.out @ self.into.max(axis=0) + own + self.entry.max()) * _SLACK  # no pair of a row is above it
        order = np.argsort(-limit, kind="stable")
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        matrix = adjacency(self.graph)
        start, size = 0, 8
        while start < n:
            rows = order[start : start + size]
            least = float(values[-1]) if len(values) == pool else 0.0
            if limit[rows[0]] <= least:
                break
            block = self._rows(rows, place, matrix)
            found = np.flatnonzero(block > least)
            if len(found) > pool:
                found = found[np.argpartition(-block.flat[found], pool - 1)[:pool]]
            u, v = rows[found // n], found % n
            if not self.graph.directed:
                u, v = np.minimum(u, v), np.maximum(u, v)
            pairs = np.concatenate((pairs, np.stack((u, v), axis=1)))
            values = np.concatenate((values, block.flat[found]))
            keep = np.lexsort((pairs[:, 1], pairs[:, 0], -values))[:pool]
            pairs, values = pairs[keep], values[keep]
            start, size = start + size, max(1, min(2 * size, _BLOCK // n))
        return pairs, values

    def _rows(self, rows: Ints, place: Ints, matrix: Any) -> Floats:
        """Estimate all pairs of some vertices; -1 where a pair is joined, or was looked at from its other end."""
        block: Floats = self.out[rows] @ self.into.T
        entries = self.entry[None, :] if self.graph.directed else self.entry[rows][:, None] + self.entry[None, :]
        block += (self.side[rows][:, None] != self.side[None, :]) * entries
        if not self.graph.directed:
            block[place[None, :] < place[rows][:, None]] = -1.0
        block[np.arange(len(rows)), rows] = -1.0
        taken = matrix[rows]
        block[np.repeat(np.arange(len(rows)), np.diff(taken.indptr)), taken.indices] = -1.0
        return block


def _sweep(matrix: Any, start: Floats, count: int) -> tuple[Floats, Floats]:
    """Return `count` vectors ``(A + 1)^k start``, each divided by its largest entry, and the logarithms of those."""
    vectors, logs = np.zeros((count, len(start))), np.zeros(count)
    current, log = start, 0.0
    for k in range(count):
        vectors[k], logs[k] = current, log
        current = current + matrix @ current
        top = float(current.max(initial=0.0)) or 1.0
        current, log = current / top, log + math.log(top)
    return vectors, logs

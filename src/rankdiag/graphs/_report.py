"""One partition of one graph, read: its walk index, where the walks start, how it grows, where the bottleneck is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._document import Document
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import integer
from rankdiag.graphs._adjacency import as_subset, as_vertex
from rankdiag.graphs._bounds import SeparationRankBounds, separation_rank_bounds
from rankdiag.graphs._drawing import Label, as_labels, frozen, name_of, places_of
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._walk_counts import DEEPEST, WalkCounts, as_depth, boundary_mask, walks_by_length

__all__ = ["DepthRow", "WalkIndexReport", "WalkStart", "walk_index_report"]

Mask = NDArray[np.bool_]

_STARTS = 20  # vertices of the boundary that are listed
_SHALLOW = 8  # depths up to which every one is listed
_BEYOND = 2  # depths listed beyond the one asked for
_ARRAYS = 16  # numbers for each vertex that are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkStart:
    """One vertex of the boundary, and the walks that start there.

    Attributes
    ----------
    vertex : int
        Its place in the graph.
    label : str or int
        Its node label; its place where the graph has no labels.
    side : {"inside", "outside"}
        Whether it is in the subset.
    neighbours : int
        Vertices that send it messages, itself not counted.
    crossing : int
        How many of them are on the other side.
    walks : int
        Walks of length ``depth - 1`` that start there (and end at the target, if there is one).
    share : float
        Their part of the walk index.

    Examples
    --------
    >>> from rankdiag.graphs import walk_index_report
    >>> start = walk_index_report([[0, 1, 1, 2], [1, 0, 2, 1]], [0], 2).starts[0]
    >>> start.vertex, start.side, start.neighbours, start.crossing, start.walks, start.share
    (1, 'outside', 2, 1, 3, 0.6)
    """

    vertex: int
    label: str | int
    side: Literal["inside", "outside"]
    neighbours: int
    crossing: int
    walks: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRow:
    """The walk index of the same partition at one depth.

    Attributes
    ----------
    depth : int
        Layers L.
    walk_index : int
        Walks of length ``depth - 1`` that start at the boundary.
    log_walk_index : float
        Its natural logarithm; minus infinity for 0.
    walks : int
        All walks of that length (to the target, if there is one).
    share : float
        Walk index over all walks; 0 where there are none.

    Examples
    --------
    >>> from rankdiag.graphs import walk_index_report
    >>> row = walk_index_report([[0, 1, 1, 2], [1, 0, 2, 1]], [0], 2).growth[1]
    >>> row.depth, row.walk_index, row.walks
    (2, 5, 7)
    """

    depth: int
    walk_index: int
    log_walk_index: float
    walks: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WalkIndexReport(Result):
    """How much a network of a given depth can relate two sides of a graph, and where it is held up.

    Attributes
    ----------
    walk_index : int
        Walks of length ``depth - 1`` that start at the boundary; exact, of any size.
    log_walk_index : float
        Its natural logarithm; minus infinity for 0.
    share : float
        Its part of all walks of that length, 0 to 1.
    walks : int
        All walks of that length (to the target, if there is one).
    depth : int
        Layers L.
    num_nodes, num_edges : int
        Vertices and edges of the graph.
    num_inside : int
        Vertices of the subset.
    num_crossing : int
        Edges between the two sides.
    boundary : ndarray of int64
        Vertices where the sides meet, ascending.
    directed : bool
        Whether edges have a direction.
    target : int or None
        Vertex whose prediction is meant; None is a prediction for the whole graph.
    starts : tuple of WalkStart
        The 20 boundary vertices with most walks, most first.
    growth : tuple of DepthRow
        The same partition at depths from 1 to a little beyond `depth`.
    bounds : SeparationRankBounds or None
        Bounds on the separation rank, if widths were given.
    inside : ndarray of bool, shape (n,)
        The subset.
    labels : tuple of str or int, or None
        Node labels of a networkx graph; labels of other types in their own words.
    places : ndarray of float64, shape (n, 2) or (0, 2)
        Where vertices are drawn; empty for more than 60.
    edges : ndarray of int64, shape (M, 2) or (0, 2)
        Edges that are drawn; empty for more than 60 vertices.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import walk_index_report
    >>> report = walk_index_report(nx.barbell_graph(8, 0), range(8), 3)
    >>> report.walk_index, round(report.share, 2), report.num_crossing
    (148, 0.14, 1)
    >>> report.starts[0].vertex, report.starts[0].walks
    (7, 74)
    >>> [row.walk_index for row in report.growth]
    [2, 18, 148, 1206, 9818]
    """

    tag: ClassVar[str] = "graphs.WalkIndexReport"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "walk_index",
        "log_walk_index",
        "share",
        "walks",
        "num_nodes",
        "num_edges",
        "num_inside",
        "num_crossing",
        "num_boundary",
    )

    walk_index: int
    log_walk_index: float
    share: float
    walks: int
    depth: int
    num_nodes: int
    num_edges: int
    num_inside: int
    num_crossing: int
    boundary: NDArray[np.int64]
    directed: bool = False
    target: int | None = None
    starts: tuple[WalkStart, ...] = ()
    growth: tuple[DepthRow, ...] = ()
    bounds: SeparationRankBounds | None = None
    inside: NDArray[np.bool_]
    labels: tuple[str | int, ...] | None = None
    places: NDArray[np.float64]
    edges: NDArray[np.int64]

    @property
    def num_boundary(self) -> int:
        """Vertices of the boundary."""
        return len(self.boundary)

    @property
    def bottleneck(self) -> tuple[int, ...]:
        """Vertices that the minimum cut breaks, ascending; empty without widths."""
        rows = () if self.bounds is None else self.bounds.bottleneck
        return tuple(sorted({row.vertex for row in rows if row.vertex is not None}))

    def document(self) -> Document:
        """Return what this report shows: the answer in words, figures, a drawing, two tables, growth with depth."""
        from rankdiag.graphs._report_show import report_document

        return report_document(self, super(WalkIndexReport, self).notes())


def walk_index_report(
    graph: Any,
    subset: Any,
    depth: int,
    *,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
    d_in: int | None = None,
    d_hidden: int | None = None,
) -> WalkIndexReport:
    r"""Report how much a network of a given depth can relate a set of vertices to the rest.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side; node labels for a networkx graph.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the whole graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.
    d_in, d_hidden : int, optional
        Features of a vertex, and width of the hidden layers; both add `separation_rank_bounds` and the bottleneck.

    Returns
    -------
    WalkIndexReport
        Figures, tables and, for at most 60 vertices, a drawing. The verdict is always ``"unknown"``: no source sets a
        bound on walk indices.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or only one of `d_in` and `d_hidden` is given.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` or a width is out of its bounds, or a vertex is not in
        the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    With C the boundary, :math:`\mathrm{WI}_{L-1} = 1_C^\top A^{L-1} 1` (graph prediction), or the same walks to the
    target alone. O(L (n + E)) while 64 bits hold every number, about 5 times that beyond; a drawing takes some tens of
    milliseconds, the bounds a maximum flow on O(L (n + E)) arcs.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, sections 3 and 4. The share of all walks is derived here.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import walk_index_report
    >>> report = walk_index_report(nx.path_graph(["a", "b", "c", "d"]), ["a", "b"], 2, d_in=2, d_hidden=2)
    >>> report.walk_index, [start.label for start in report.starts], report.bottleneck
    (6, ['b', 'c'], (1, 2))
    """
    layers = as_depth(depth)
    if (d_in is None) != (d_hidden is None):
        raise TypeError("`d_in` and `d_hidden` must be given together, or neither")
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    refuse_size(_ARRAYS * listed.num_nodes, "graph", (_ARRAYS, listed.num_nodes))
    inside = as_subset(subset, listed)
    goal = None if target is None else as_vertex(target, listed)
    bounds = None
    if d_in is not None and d_hidden is not None:
        widths = (integer(d_in, "d_in", low=1), integer(d_hidden, "d_hidden", low=1))
        bounds = separation_rank_bounds(listed, inside, layers, *widths, target=target)
    meets = boundary_mask(listed, inside)
    counts = {steps + 1: found for steps, found in _sweep(listed, [d - 1 for d in _depths(layers)], goal)}
    growth = tuple(_depth_row(layer, found, meets) for layer, found in counts.items())
    now = next(row for row in growth if row.depth == layers)
    labels = as_labels(listed)
    places, edges = places_of(listed)
    crossing = int((inside[listed.edges[:, 0]] != inside[listed.edges[:, 1]]).sum())
    report = WalkIndexReport(
        meta=_meta(listed, layers, goal, labels),
        walk_index=now.walk_index,
        log_walk_index=now.log_walk_index,
        share=now.share,
        walks=now.walks,
        depth=layers,
        num_nodes=listed.num_nodes,
        num_edges=listed.num_edges,
        num_inside=int(inside.sum()),
        num_crossing=crossing,
        boundary=frozen(np.flatnonzero(meets)),
        directed=listed.directed,
        target=goal,
        starts=_starts(listed, inside, meets, counts[layers], labels),
        growth=growth,
        bounds=bounds,
        inside=frozen(inside),
        labels=labels,
        places=places,
        edges=edges,
    )
    return _explained(report)


def _explained(report: WalkIndexReport) -> WalkIndexReport:
    import dataclasses

    from rankdiag.graphs._report_show import explain

    return dataclasses.replace(report, explanation=explain(report))


def _meta(listed: EdgeList, layers: int, goal: int | None, labels: tuple[Label, ...] | None) -> Meta:
    return Meta(
        definition="walk index: walks that start at the boundary of the partition, self-loops included (2211.16494)",
        base="e",
        units="walks",
        n=listed.num_nodes,
        details={
            "depth": f"{layers} (walks of length {layers - 1})",
            "prediction": "for the graph" if goal is None else f"at vertex {name_of(labels, goal)}",
            "directed": listed.directed,
        },
    )


def _depths(layers: int) -> list[int]:
    """Return the depths that are listed: the first ones, doublings, and those around the one asked for."""
    last = min(layers + _BEYOND, DEEPEST)
    chosen = set(range(1, min(_SHALLOW, last) + 1)) | {layers, last}
    step = 2 * _SHALLOW
    while step < last:
        chosen.add(step)
        step *= 2
    return sorted(chosen)


def _sweep(listed: EdgeList, steps: list[int], goal: int | None) -> Iterator[tuple[int, WalkCounts]]:
    """Count walks of several lengths in one sweep."""
    wanted = set(steps)
    for length, counts in enumerate(walks_by_length(listed, max(steps), goal)):
        if length in wanted:
            yield length, counts


def _depth_row(layer: int, counts: WalkCounts, meets: Mask) -> DepthRow:
    found, every = counts.total(meets), counts.total()
    return DepthRow(
        depth=layer,
        walk_index=found,
        log_walk_index=math.log(found) if found else -math.inf,
        walks=every,
        share=found / every if every else 0.0,
    )


def _starts(
    listed: EdgeList, inside: Mask, meets: Mask, counts: WalkCounts, labels: tuple[Label, ...] | None
) -> tuple[WalkStart, ...]:
    """Return the boundary vertices with most walks; among equals the first."""
    exact = counts.exact()
    total = counts.total(meets)
    members = np.flatnonzero(meets)
    if isinstance(exact, list):
        most = sorted(members.tolist(), key=lambda vertex: (-exact[vertex], vertex))[:_STARTS]
    else:
        most = members[np.argsort(-exact[members], kind="stable")[:_STARTS]].tolist()
    u, v = listed.edges[:, 0], listed.edges[:, 1]
    crosses = (inside[u] != inside[v]).astype(float)
    heads = [v] if listed.directed else [u, v]
    senders = sum(np.bincount(head, minlength=listed.num_nodes) for head in heads)
    foreign = sum(np.bincount(head, weights=crosses, minlength=listed.num_nodes) for head in heads)
    return tuple(
        WalkStart(
            vertex=vertex,
            label=vertex if labels is None else labels[vertex],
            side="inside" if inside[vertex] else "outside",
            neighbours=int(np.asarray(senders)[vertex]),
            crossing=int(np.asarray(foreign)[vertex]),
            walks=int(exact[vertex]),
            share=int(exact[vertex]) / total if total else 0.0,
        )
        for vertex in most
    )

"""Bounds on the separation rank of product-aggregation GNNs, and where in the network the sharpest of them is set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import integer
from rankdiag.graphs._adjacency import as_subset, as_vertex
from rankdiag.graphs._admissible import Admissible, heaviest_admissible
from rankdiag.graphs._edge_types import typed_arcs
from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._layered import Layered, shared_cut
from rankdiag.graphs._multisets import log_multisets, times_log
from rankdiag.graphs._walk_counts import as_depth, boundary_mask, walks_by_length

__all__ = ["BottleneckRow", "SeparationRankBounds", "separation_rank_bounds"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Counts = list[NDArray[Any]]  # of int64, or of Python ints where they are larger

_MOST_BITS = 14_000  # about 4200 digits: what Python writes as decimals without being asked twice
_READABLE = math.log(1e12)
_NAMED = 3
_CAUTION = (
    "The walk index ranks partitions of one graph, but it is no logarithm of a rank: at a fixed width the log of the "
    "rank grows about linearly with depth, the walk index exponentially."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckRow:
    """One place where the minimum cut breaks the network: there the architecture limits.

    Attributes
    ----------
    layer : int
        0 for the features that enter, 1 to L - 1 for hidden layers, L for the readout.
    vertex : int or None
        Vertex; None for the readout of a graph prediction, which takes all vertices.
    name : str
        Its id or node label; "readout" for that of a graph prediction.
    multiplicity : int
        How often the vertex of this layer occurs in the output as a polynomial: walks from it to the output.
    cost : float
        Nats that it contributes to the bound.

    Examples
    --------
    >>> from rankdiag.graphs import BottleneckRow, separation_rank_bounds
    >>> row = separation_rank_bounds([[0, 1], [1, 0]], [0], 2, 2, 2).bottleneck[0]
    >>> isinstance(row, BottleneckRow), row.layer, row.vertex, row.multiplicity, round(row.cost, 4)
    (True, 0, 0, 4, 1.6094)
    """

    layer: int
    vertex: int | None
    name: str
    multiplicity: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeparationRankBounds(Result):
    """Lower and upper bounds on ln(separation rank) of a product-aggregation GNN, all in nats.

    The upper bounds hold for all weights, the lower ones for almost all.

    Attributes
    ----------
    walk_index : int
        Walks of length ``depth - 1`` from the boundary of the partition.
    log_upper_paper : float
        Bound by the walk index alone; that of `log_upper_layers` for directed graphs and several edge types. Infinite
        where it is beyond float64.
    log_upper_layers : float
        The same counted layer by layer.
    log_upper_symmetric : float
        As `log_upper_layers`, but counting multisets: copies of one vertex in one layer are interchangeable.
    log_upper_polynomial : float
        From the degree of the output in the features of the cheaper side.
    log_upper_mincut : float
        The least over all ways to split the network in two; the figure to read.
    log_upper_shared : float
        The same where what several vertices compute or hear alike is counted once, if that is cheaper; at most
        `log_upper_mincut`.
    log_lower_paper : float
        Bound from the heaviest admissible set.
    log_lower_multiset : float
        The sharper form of the same, ``ln C(D + walks - 1, walks)``.
    lower_multiset : int or None
        Its exact number, a lower bound on the rank itself; None where it has more than about 4200 digits.
    admissible_set : ndarray of int64
        Sorted vertices of the set behind the lower bounds; empty where there is none with a walk.
    admissible_walks : int
        Walks of length ``depth - 1`` from that set.
    exact : bool
        Whether the lower bounds are the largest over all admissible sets.
    bottleneck : tuple of BottleneckRow
        What the minimum cut breaks, the largest cost first; costs add up to `log_upper_mincut`.
    cut_gap : float
        No way to split the network is cheaper than ``log_upper_mincut - cut_gap``, nats.
    depth : int
        Layers L.

    Examples
    --------
    >>> import math
    >>> from rankdiag.graphs import separation_rank_bounds
    >>> path = [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    >>> bounds = separation_rank_bounds(path, [0, 1], 2, 2, 2)
    >>> round(math.exp(bounds.log_upper_mincut)), bounds.lower_multiset  # the rank itself is 24
    (32, 7)
    >>> bounds.reading
    'Layer 1 at vertex 1, layer 1 at vertex 2 and the readout of the graph limit.'
    """

    tag: ClassVar[str] = "graphs.SeparationRankBounds"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "log_upper_mincut",
        "log_upper_shared",
        "log_upper_symmetric",
        "log_upper_polynomial",
        "log_upper_layers",
        "log_upper_paper",
        "log_lower_multiset",
        "log_lower_paper",
        "lower_multiset",
        "walk_index",
    )

    walk_index: int
    log_upper_paper: float
    log_upper_layers: float
    log_upper_symmetric: float
    log_upper_polynomial: float
    log_upper_mincut: float
    log_upper_shared: float
    log_lower_paper: float
    log_lower_multiset: float
    lower_multiset: int | None
    admissible_set: NDArray[np.int64]
    admissible_walks: int
    exact: bool
    bottleneck: tuple[BottleneckRow, ...]
    cut_gap: float
    depth: int

    @property
    def reading(self) -> str:
        """Where the architecture limits, in one line."""
        return _reading(self.bottleneck, self.depth)

    def document(self) -> Document:
        """Return the bounds side by side, and the places that set the recommended one.

        Returns
        -------
        Document
            Two tables and the caution about walk indices.
        """
        low, high = self.log_lower_multiset, self.log_upper_shared
        return Document(
            title="Bounds on the separation rank",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="upper bound", value=high, unit="nats", doc="Minimum cut; holds for all weights."),
                KeyNumber(label="lower bound", value=low, unit="nats", doc="Holds for almost all weights."),
                KeyNumber(
                    label="walk index", value=_number(self.walk_index), doc="Ranks partitions; no logarithm of a rank."
                ),
                KeyNumber(label="places that limit", value=len(self.bottleneck), doc=self.reading),
            ),
            grids=(self._bounds_grid(), *self._bottleneck_grids()),
            notes=self.notes(),
        )

    def _bounds_grid(self) -> Grid:
        lines = (
            ("lower, paper", self.log_lower_paper, "walks from the heaviest admissible set"),
            ("lower, multisets", self.log_lower_multiset, "the same before simplification"),
            ("upper, shared", self.log_upper_shared, "minimum cut that counts once what vertices share"),
            ("upper, minimum cut", self.log_upper_mincut, "cheapest split of the network: the one to read"),
            ("upper, symmetric", self.log_upper_symmetric, "multisets at every boundary vertex of every layer"),
            ("upper, polynomial", self.log_upper_polynomial, "monomials in the features of the cheaper side"),
            ("upper, layers", self.log_upper_layers, "index tuples at every boundary vertex of every layer"),
            ("upper, paper", self.log_upper_paper, "walk index times the log of the width"),
        )
        return Grid(
            title="Bounds on the log of the separation rank",
            columns=(
                Column(name="bound"),
                Column(name="nats", label="log", unit="nats"),
                Column(name="rank", label="as a rank"),
                Column(name="reads", label="what it counts"),
            ),
            rows=tuple((name, value, _as_rank(value, lower="lower" in name), what) for name, value, what in lines),
            note="The exact generic rank lies between the lower bounds and both minimum cuts.",
        )

    def _bottleneck_grids(self) -> tuple[Grid, ...]:
        if not self.bottleneck:
            return ()
        layers = sorted({row.layer for row in self.bottleneck})
        costs = {layer: [row.cost for row in self.bottleneck if row.layer == layer] for layer in layers}
        total = math.fsum(row.cost for row in self.bottleneck)
        by_layer = Grid(
            title="Where the network limits, by layer",
            columns=(
                Column(name="layer"),
                Column(name="places"),
                Column(name="cost", unit="nats"),
                Column(name="share", doc="Of the upper bound."),
            ),
            rows=tuple(
                (_layer_name(layer, self.depth), len(found), math.fsum(found), math.fsum(found) / total)
                for layer, found in costs.items()
            ),
        )
        by_place = Grid(
            title="Where the network limits",
            columns=(
                Column(name="layer"),
                Column(name="name", label="vertex"),
                Column(name="multiplicity", doc="Walks from this vertex of this layer to the output."),
                Column(name="cost", unit="nats", doc="Log of the number of terms that splitting it makes."),
            ),
            rows=tuple(
                (_layer_name(row.layer, self.depth), row.name, _number(row.multiplicity), row.cost)
                for row in self.bottleneck
            ),
            note=self.reading,
        )
        return by_layer, by_place


def _number(count: int) -> int | str:
    """Return a count as it is where people can read it, else its power of ten."""
    return count if count < 10**15 else f"10^{math.log(count) / math.log(10):.4g}"


def _as_rank(value: float, *, lower: bool) -> str:
    """Write exp(value) as the integer that the bound allows, where it is one that people can read."""
    if value > _READABLE:
        return f"10^{value / math.log(10):.4g}"
    rank = math.exp(value)
    return str(math.ceil(rank * (1 - 1e-9)) if lower else math.floor(rank * (1 + 1e-9)))


def _layer_name(layer: int, depth: int) -> str:
    if layer == depth:
        return "readout"
    return "features" if layer == 0 else f"layer {layer}"


def _reading(rows: tuple[BottleneckRow, ...], depth: int) -> str:
    if not rows:
        return "Nothing has to be split: the two sides do not interact."
    names = [
        "the readout of the graph"
        if row.vertex is None
        else f"{'the readout' if row.layer == depth else _layer_name(row.layer, depth)} at vertex {row.name}"
        for row in rows[:_NAMED]
    ]
    rest = len(rows) - len(names)
    if rest:
        names.append(f"{rest} more place{'s' if rest > 1 else ''}")
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{listed[0].upper()}{listed[1:]} limit{'s' if len(rows) == 1 else ''}."


def separation_rank_bounds(
    graph: Any,
    subset: Any,
    depth: int,
    d_in: int,
    d_hidden: int,
    *,
    target: Any = None,
    directed: bool = False,
    edge_type: Any = None,
    num_nodes: int | None = None,
) -> SeparationRankBounds:
    r"""Bound how strongly a product-aggregation GNN can relate a set of vertices to the rest.

    Parameters
    ----------
    graph : any graph of `as_edge_list`
        The graph; self-loops are added at every vertex.
    subset : iterable of vertices or ndarray of bool (n,)
        One side I of the partition; node labels of a networkx graph.
    depth : int
        Layers L of the network; the walks that count have length L - 1.
    d_in, d_hidden : int
        Features of a vertex, and width of the hidden layers.
    target : int or node label, optional
        Vertex whose prediction is meant; None means a prediction for the whole graph.
    directed : bool
        Whether columns are directed edges.
    edge_type : array-like of int, shape (E,), optional
        Type 0, 1, ... of each input column, each with weights of its own; self-loops are of type 0.
    num_nodes : int, optional
        Vertices, where the graph does not say.

    Returns
    -------
    SeparationRankBounds
        The bounds in nats, and the places that the minimum cut breaks.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph, the subset or the target does not fit, a width or the depth is below 1, or the network would not
        fit into memory.

    Notes
    -----
    With m(l, i) the number of walks of L - l steps from i to the output, C the boundary of the partition, D the smaller
    width and B(w, m) = ln C(w + m - 1, m), a graph prediction has

    * paper: ln d_hidden (4 WI + 1), from the walk index WI [1]; a vertex prediction has no "+ 1".
    * layers: ln d_hidden (1 + sum of m(l, i) over C and l = 1..L-1), for a vertex prediction l = 1..L and no "1";
      symmetric: B(d_hidden, m) in place of each product m ln d_hidden.
    * polynomial: the sum of B(D_i, m(0, i)) over one side, the cheaper one; D_i is min(d_in, q d_hidden) with q the
      number of edge types that leave i, the loop's among them.
    * minimum cut: every pair (l, i) is put on a side. Where a pair and its inputs are not all on one side,
      B(d_hidden, m(l, i)) is paid; where features are not on their own side, B(D_i, m(0, i)); where the readout is
      torn, ln d_hidden. The least sum bounds the log of the rank for all weights, also of directed graphs and with
      several edge types. It is at most the symmetric and the polynomial bound.
    * shared: the least of three cuts, that one among them. In the second, vertices that hear the same others are one
      vector that occurs as often as all of them, and vertices of one side that are heard by the same others are their
      product. In the third, what vertices hear of one side is one vector for all that hear the same.
    * lower: a set of vertices that receive from exactly one vertex of I' inside and one of J' outside, with r walks to
      the output, gives B(D, r) and, weaker, r ln((D - 1) / r + 1); both are ln D at depth 1.

    The walk index ranks partitions of one graph. It is no log of a rank: at fixed width the log of the rank grows about
    linearly with depth, as ln C(D + m - 1, m) <= (D - 1) ln(m + 1), and the walk index exponentially.

    Cost: one maximum flow on O(L (n + E)) nodes and arcs; see `SeparationRankBounds.cut_gap` for its precision.

    References
    ----------
    .. [1] Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices",
       arXiv 2211.16494, Section 4 (the two bounds "paper"). Their constants were not compared with its text; both
       follow from the layers and the multiset bounds, which like all others are derived here.

    Examples
    --------
    >>> import math
    >>> from rankdiag.graphs import separation_rank_bounds
    >>> cycle = [[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]]
    >>> bounds = separation_rank_bounds(cycle, [0, 1], 2, 2, 2)
    >>> f"{math.exp(bounds.log_upper_paper):.1e}", round(math.exp(bounds.log_upper_mincut))  # the rank itself is 34
    ('5.6e+14', 100)
    """
    layers = as_depth(depth)
    features = integer(d_in, "d_in", low=1)
    width = integer(d_hidden, "d_hidden", low=1)
    arcs = typed_arcs(graph, edge_type, directed=directed, num_nodes=num_nodes)
    edges = arcs.edge_list
    side = as_subset(subset, edges)
    vertex = None if target is None else as_vertex(target, edges)
    refuse_size(40 * layers * (edges.num_nodes + len(arcs.source)), "depth", (layers, edges.num_nodes))
    counts = _walks_of_all_lengths(edges, layers, vertex)
    boundary = boundary_mask(edges, side)
    network = Layered.of(arcs, side, vertex, counts[:0:-1], features, width)
    cut, broken = network.minimum_cut()
    shared = min(cut.cost, shared_cut(network))
    index = _sum(counts[layers - 1], boundary)
    summed = sum(_sum(counts[layers - step], boundary) for step in range(1, layers + (vertex is not None)))
    once = vertex is None
    by_layers = times_log(summed + once, width)
    plain = not edges.directed and arcs.num_types == 1
    hidden = network.cost[1:][:, boundary].ravel().tolist()
    if once or boundary[vertex]:
        hidden.append(math.log(width))
    found = heaviest_admissible(arcs.source, arcs.target, side, boundary, counts[layers - 1])
    narrow = min(features, width)
    lower = _lower_multiset(narrow, found, layers)
    rows = _rows(broken, network, edges)
    result = SeparationRankBounds(
        walk_index=index,
        log_upper_paper=times_log(4 * index + once, width) if plain else by_layers,
        log_upper_layers=by_layers,
        log_upper_symmetric=math.fsum(hidden),
        log_upper_polynomial=min(network.side_costs()),
        log_upper_mincut=cut.cost,
        log_upper_shared=shared,
        log_lower_paper=_lower_paper(narrow, found, layers),
        log_lower_multiset=lower[0],
        lower_multiset=lower[1],
        admissible_set=found.vertices,
        admissible_walks=found.weight,
        exact=found.exact,
        bottleneck=rows,
        cut_gap=cut.gap,
        depth=layers,
        explanation=_explain(lower[0], shared, cut.cost, _reading(rows, layers), found.exact),
        meta=_meta(edges, layers, features, width, target, arcs.num_types),
    )
    result.admissible_set.flags.writeable = False
    return result


def _walks_of_all_lengths(graph: EdgeList, depth: int, target: int | None) -> Counts:
    """Return the walks of 0, 1, ..., `depth` steps from every vertex, as int64 where they fit."""
    exact = (counts.exact() for counts in walks_by_length(graph, depth, target))
    return [found if isinstance(found, np.ndarray) else np.array(found, object) for found in exact]


def _sum(counts: NDArray[Any], mask: Mask) -> int:
    return sum(int(count) for count in counts[mask].tolist())


def _lower_paper(width: int, found: Admissible, depth: int) -> float:
    if not found.weight or width == 1:
        return 0.0
    if depth == 1:
        return math.log(width)
    try:
        return float(found.weight) * math.log1p((width - 1) / found.weight)
    except OverflowError:
        return float(width - 1)  # its limit


def _lower_multiset(width: int, found: Admissible, depth: int) -> tuple[float, int | None]:
    """Return ln C(width + walks - 1, walks) and the number itself if it is not too long."""
    if not found.weight or width == 1:
        return 0.0, 1
    if depth == 1:
        return math.log(width), width
    value = float(log_multisets(width, [found.weight])[0])
    if value > _MOST_BITS * math.log(2):
        return value, None
    return value, math.comb(width + found.weight - 1, min(width - 1, found.weight))


def _rows(broken: list[tuple[int, int]], network: Layered, graph: EdgeList) -> tuple[BottleneckRow, ...]:
    depth = len(network.walks)

    def row(layer: int, vertex: int) -> BottleneckRow:
        last = layer == depth
        return BottleneckRow(
            layer=layer,
            vertex=None if vertex < 0 else vertex,
            name="readout" if vertex < 0 else str(vertex if graph.labels is None else graph.labels[vertex]),
            multiplicity=1 if last else int(network.walks[layer][vertex]),
            cost=math.log(network.width) if last else float(network.cost[layer, vertex]),
        )

    rows = [row(*place) for place in broken]
    return tuple(sorted(rows, key=lambda row: (-row.cost, row.layer, -1 if row.vertex is None else row.vertex)))


def _explain(lower: float, upper: float, cut: float, reading: str, exact: bool) -> str:
    ends = f"between {lower:.4g} and {upper:.4g} nats" if upper > lower else f"{upper:.4g} nats"
    shared = f" What several vertices share counts once, which lowers it from {cut:.4g}." if upper < cut else ""
    largest = "" if exact else " The lower bound comes from a greedy search and may be raised by a better one."
    return (
        f"The log of the separation rank that the architecture can reach is {ends}; the upper end, a minimum cut of "
        f"the network, is the figure to read, and is often exact for small networks.{shared} {reading}{largest} "
        f"{_CAUTION}"
    )


def _meta(graph: EdgeList, depth: int, d_in: int, d_hidden: int, target: Any, num_types: int) -> Meta:
    details: dict[str, Any] = {
        "depth": f"{depth} (walks of length {depth - 1})",
        "d_in": d_in,
        "d_hidden": d_hidden,
        "prediction": "graph" if target is None else f"vertex {target}",
        "directed": graph.directed,
        "edge_types": num_types,
    }
    return Meta(
        definition="bounds on the log of the separation rank of a product-aggregation GNN",
        base="e",
        units="nats",
        n=graph.num_nodes,
        details=details,
    )

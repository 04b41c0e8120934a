"""What the removal of edges costs: walk counts, isolated vertices and components along orders of removal."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, is_torch, refuse_size
from rankdiag._document import Column, Document
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import describe, real
from rankdiag.graphs._adjacency import adjacency, as_subset
from rankdiag.graphs._drawing import as_labels, places_of
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._walk_counts import as_depth
from rankdiag.graphs._walks import singleton_walk_indices, walk_indices
from rankdiag.graphs._wis import WISOrder, number_kept

__all__ = ["DrawnRemoval", "RemovalCurves", "RemovalPartitionRow", "RemovalRow", "removal_curves"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_RATIOS = tuple(step / 20 for step in range(21))
_ARRAYS = 16  # numbers for each vertex that are held at once
_MOST_RATIOS = 1000
_MOST_SUBSETS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalRow:
    """What is left of a graph at one point of one order.

    Attributes
    ----------
    order : str
        Name of the order.
    removed_share : float
        Share of the edges that are gone.
    removed, kept : int
        Edges that are gone, and that are left.
    smallest_closed_walks : int or None
        Smallest number of closed walks of length L over the vertices that had an edge at the start; 0 as soon as one of
        them has lost its last. None if no vertex had one.
    isolated : int
        Vertices without an edge.
    components : int
        Connected components, isolated vertices among them; of directed graphs the weak ones.
    mean_log_vertex : float
        Mean over all vertices t of ln(walk index of {t} for the prediction at t), nats; an isolated vertex counts 0.
    mean_log_graph : float
        The same for the prediction of the whole graph.
    log_walk_index : float or None
        Smallest logarithm of the walk index over the given subsets, nats; minus infinity where one is cut off. None
        without subsets.

    Examples
    --------
    >>> from rankdiag.graphs import removal_curves
    >>> row = removal_curves([[0, 1, 1, 2], [1, 0, 2, 1]], {"by id": [0, 1]}, 2, ratios=[0.5]).rows[0]
    >>> row.order, row.kept, row.isolated, row.components, row.smallest_closed_walks
    ('by id', 1, 1, 2, 0)
    """

    order: str
    removed_share: float
    removed: int
    kept: int
    smallest_closed_walks: int | None
    isolated: int
    components: int
    mean_log_vertex: float
    mean_log_graph: float
    log_walk_index: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPartitionRow:
    """The walk index of one subset at one point of one order.

    Attributes
    ----------
    order : str
        Name of the order.
    removed_share : float
        Share of the edges that are gone.
    subset : str
        Name of the subset.
    walk_index : int
        Its walk index, exact.
    log_walk_index : float
        Its natural logarithm; minus infinity where no edge crosses any more.

    Examples
    --------
    >>> from rankdiag.graphs import removal_curves
    >>> path = [[0, 1, 1, 2], [1, 0, 2, 1]]
    >>> row = removal_curves(path, {"by id": [0, 1]}, 2, ratios=[0.5], subsets={"end": [2]}).partitions[0]
    >>> row.subset, row.removed_share, row.walk_index
    ('end', 0.5, 4)
    """

    order: str
    removed_share: float
    subset: str
    walk_index: int
    log_walk_index: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRemoval:
    """Edges that one order has removed where the graph is drawn.

    Attributes
    ----------
    order : str
        Name of the order.
    removed : tuple of int
        Ids of the edges that are gone, ascending.

    Examples
    --------
    >>> from rankdiag.graphs import removal_curves
    >>> removal_curves([[0, 1, 1, 2], [1, 0, 2, 1]], {"backwards": [1, 0]}, 2).drawn
    (DrawnRemoval(order='backwards', removed=(1,)),)
    """

    order: str
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RemovalCurves(Table[RemovalRow]):
    """Curves of what is left of a graph while edges are removed, one for each order of removal.

    Attributes
    ----------
    rows : tuple of RemovalRow
        Order by order, and by rising share.
    partitions : tuple of RemovalPartitionRow
        Walk indices of the given subsets, one row for each order, share and subset.
    depth : int
        Layers L.
    num_nodes, num_edges : int
        Vertices and edges of the whole graph.
    directed : bool
        Whether edges have a direction.
    draw_ratio : float
        Share of removed edges at which the graph is drawn.
    drawn : tuple of DrawnRemoval
        What is gone there, one for each order; empty for more than 60 vertices.
    places : ndarray of float64, shape (n, 2) or (0, 2)
        Where vertices are drawn; empty for more than 60.
    edges : ndarray of int64, shape (M, 2) or (0, 2)
        Edges that are drawn; empty for more than 60 vertices.
    labels : tuple of str or int, or None
        Node labels of a networkx graph.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import removal_curves, wis_order
    >>> ring = nx.cycle_graph(6)
    >>> curves = removal_curves(ring, {"1-WIS": wis_order(ring), "by id": range(6)}, 2, ratios=[0.5])
    >>> [(row.order, row.kept, row.isolated, row.components) for row in curves]
    [('1-WIS', 3, 0, 3), ('by id', 3, 2, 3)]
    """

    tag: ClassVar[str] = "graphs.RemovalCurves"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="order"),
        Column(name="removed_share", label="share removed", doc="Share of the edges that are gone."),
        Column(name="removed"),
        Column(name="kept"),
        Column(
            name="smallest_closed_walks",
            label="smallest closed walks",
            doc="Over the vertices that had an edge at the start; 0 as soon as one of them has none.",
        ),
        Column(name="isolated", label="isolated vertices"),
        Column(name="components"),
        Column(
            name="mean_log_vertex",
            label="mean ln walk index, at the vertex",
            unit="nats",
            doc="Of single vertices, for the prediction there; an isolated vertex counts 0.",
        ),
        Column(
            name="mean_log_graph",
            label="mean ln walk index, of the graph",
            unit="nats",
            doc="Of single vertices, for the prediction of the graph; an isolated vertex counts 0.",
        ),
        Column(
            name="log_walk_index",
            label="smallest ln walk index of the subsets",
            unit="nats",
            doc="Minus infinity where a subset is cut off; empty without subsets.",
        ),
    )

    rows: tuple[RemovalRow, ...] = ()
    partitions: tuple[RemovalPartitionRow, ...] = ()
    depth: int
    num_nodes: int
    num_edges: int
    directed: bool = False
    draw_ratio: float = 0.5
    drawn: tuple[DrawnRemoval, ...] = ()
    places: NDArray[np.float64]
    edges: NDArray[np.int64]
    labels: tuple[str | int, ...] | None = None

    def document(self) -> Document:
        """Return what these curves show: a table, a plot of each figure, and the graph with what is gone."""
        from rankdiag.graphs._curves_show import curves_document

        return curves_document(self, super(RemovalCurves, self).notes())


def removal_curves(
    graph: Any,
    orders: Mapping[str, Any],
    depth: int,
    *,
    ratios: Any = _RATIOS,
    subsets: Any = None,
    draw_ratio: float = 0.5,
    directed: bool = False,
    num_nodes: int | None = None,
) -> RemovalCurves:
    """Follow walk counts, isolated vertices and components while edges are removed in several orders.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    orders : mapping of str to WISOrder or array-like of int, shape (k,)
        Orders of removal by name: a `WISOrder` of this graph, or edge ids, first removed first, as `random_order` and
        `spectral_order` return them. An order may be short; what it does not reach is left out and named.
    depth : int
        Number L of layers of the GNN, 1 to 10,000.
    ratios : array-like of float, shape (R,)
        Shares of the edges to remove, 0 to 1; at most 1000, every 5 % by default. Counts are rounded as `wis_sparsify`
        does.
    subsets : mapping of str to subset, ndarray of bool (P, n), or iterable of subsets, optional
        Sides of partitions whose walk index is followed too, as `walk_index` takes them; at most 1000.
    draw_ratio : float
        Share of removed edges at which a graph of at most 60 vertices is drawn.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    RemovalCurves
        One row for each order and share. The verdict is always ``"unknown"``: no source sets a bound on these figures.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), an order names an edge twice or one that is not there or belongs
        to another graph, a ratio is outside of 0 to 1, there is no order or no ratio, or more of them than the limit.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    Each point costs one walk count, one count of closed walks (degrees and triangles up to depth 3) and one search for
    components. The closed walks are what walk index sparsification keeps large (arXiv 2211.16494, section 5); their
    mean logarithm is derived here as a figure for all vertices at once: removal never raises it.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, sections 4 and 5.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import removal_curves, wis_order
    >>> graph = nx.barbell_graph(4, 0)
    >>> curves = removal_curves(graph, {"1-WIS": wis_order(graph)}, 3, ratios=[0, 0.5], subsets={"left": range(4)})
    >>> [(row.subset, row.removed_share, row.walk_index) for row in curves.partitions]  # the bridge is gone
    [('left', 0.0, 44), ('left', 0.5384615384615384, 0)]
    """
    layers = as_depth(depth)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    refuse_size(_ARRAYS * listed.num_nodes, "graph", (_ARRAYS, listed.num_nodes))
    ids = _read_orders(orders, listed)
    shares = _read_ratios(ratios)
    at = real(draw_ratio, "draw_ratio", low=0.0, high=1.0)
    names, masks = _read_subsets(subsets, listed)
    rows, parts, skipped = _follow(listed, ids, shares, layers, names, masks)
    places, edges = places_of(listed)
    count = _removed(listed, at)
    curves = RemovalCurves(
        meta=Meta(
            definition="what is left of a graph while edges are removed: closed walks, walk indices, components",
            base="e",
            n=listed.num_edges,
            skipped=skipped,
            details={"depth": f"{layers} (walks of length {layers - 1})", "directed": listed.directed},
        ),
        rows=rows,
        partitions=parts,
        depth=layers,
        num_nodes=listed.num_nodes,
        num_edges=listed.num_edges,
        directed=listed.directed,
        draw_ratio=at,
        drawn=tuple(
            DrawnRemoval(order=name, removed=tuple(sorted(order[:count].tolist())))
            for name, order in ids.items()
            if len(places) and len(order) >= count
        ),
        places=places,
        edges=edges,
        labels=as_labels(listed) if len(places) else None,
    )
    from rankdiag.graphs._curves_show import explain

    return dataclasses.replace(curves, explanation=explain(curves))


def _follow(
    listed: EdgeList, ids: dict[str, Ints], shares: list[float], layers: int, names: list[str], masks: Mask
) -> tuple[tuple[RemovalRow, ...], tuple[RemovalPartitionRow, ...], dict[str, str]]:
    """Read the graph at every share of every order; what an order does not reach is named."""
    had = _heard(listed)
    rows: list[RemovalRow] = []
    parts: list[RemovalPartitionRow] = []
    skipped: dict[str, str] = {}
    for name, order in ids.items():
        for share in shares:
            count = _removed(listed, share)
            if count > len(order):
                skipped[f"order {name!r} from {share:.0%} on"] = f"it holds {len(order)} of {listed.num_edges} edges"
                break
            left = _without(listed, order[:count])
            part = count / listed.num_edges if listed.num_edges else 0.0
            found = walk_indices(left, masks, layers) if names else []
            logs = [math.log(index) if index else -math.inf for index in found]
            parts += [
                RemovalPartitionRow(order=name, removed_share=part, subset=s, walk_index=w, log_walk_index=log)
                for s, w, log in zip(names, found, logs, strict=True)
            ]
            rows.append(_row(name, left, part, count, layers, had, min(logs, default=None)))
    return tuple(rows), tuple(parts), skipped


def _removed(listed: EdgeList, share: float) -> int:
    return listed.num_edges - number_kept(listed.num_edges, 1.0 - share)


def _without(listed: EdgeList, removed: Ints) -> EdgeList:
    keep = np.ones(listed.num_edges, bool)
    keep[removed] = False
    return EdgeList(listed.num_nodes, listed.edges[keep], np.zeros(0, np.int64), listed.directed, listed.labels)


def _heard(listed: EdgeList) -> Mask:
    """Return which vertices receive a message from another one."""
    found = np.zeros(listed.num_nodes, bool)
    found[listed.edges[:, 1]] = True
    if not listed.directed:
        found[listed.edges[:, 0]] = True
    return found


def _row(
    name: str, left: EdgeList, share: float, count: int, layers: int, had: Mask, lowest: float | None
) -> RemovalRow:
    from scipy.sparse.csgraph import connected_components

    closed = singleton_walk_indices(left, layers, prediction="vertex")
    whole = singleton_walk_indices(left, layers, prediction="graph")
    alone = np.ones(left.num_nodes, bool)
    alone[left.edges.ravel()] = False
    components = connected_components(adjacency(left), directed=left.directed, connection="weak")[0]
    return RemovalRow(
        order=name,
        removed_share=share,
        removed=count,
        kept=left.num_edges,
        smallest_closed_walks=int(closed[had].min()) if had.any() else None,
        isolated=int(alone.sum()),
        components=int(components) if left.num_nodes else 0,
        mean_log_vertex=_mean_log(closed),
        mean_log_graph=_mean_log(whole),
        log_walk_index=lowest,
    )


def _mean_log(counts: NDArray[Any]) -> float:
    """Return the mean of ln(max(1, count)); 0 without vertices."""
    if not len(counts):
        return 0.0
    if counts.dtype == object:
        return math.fsum(math.log(max(1, count)) for count in counts.tolist()) / len(counts)
    return float(np.log(np.maximum(counts, 1)).mean())


def _read_orders(orders: Any, listed: EdgeList) -> dict[str, Ints]:
    if not isinstance(orders, Mapping):
        raise TypeError(f"`orders` must be a mapping of names to orders of removal; got {describe(orders)}")
    if not orders:
        raise ValueError("`orders` must hold at least one order of removal; got none")
    found = {}
    for name, order in orders.items():
        if not isinstance(name, str):
            raise TypeError(f"`orders` must have strings as names; got {describe(name)}")
        found[name] = _read_order(order, f"`orders` at {name[:60]!r}", listed)
    return found


def _read_order(order: Any, name: str, listed: EdgeList) -> Ints:
    total = listed.num_edges
    if isinstance(order, WISOrder):
        same = order.num_edges == total and (listed.edges[order.edge_ids] == order.edges).all()
        if not same or order.num_nodes != listed.num_nodes:
            raise ValueError(f"{name} was made from another graph: its edges are not those of `graph`")
        return order.edge_ids
    wanted = f"{name} must be a WISOrder or a sequence of integer edge ids (k,)"
    if isinstance(order, (str, bytes, Mapping)) or not isinstance(order, Iterable):
        raise TypeError(f"{wanted}; got {describe(order)}")
    try:
        given: Any = order
        ids: Any = given.detach().cpu().numpy() if is_torch(given) else given
        if not isinstance(ids, np.ndarray):
            ids = np.asarray(list(itertools.islice(ids, total + 1)))
    except Exception as error:  # no axes, rows of several lengths, no data: foreign objects raise what they like
        raise TypeError(f"{wanted}; got {describe(order)}") from error
    if not ids.size and ids.ndim == 1:
        return np.zeros(0, np.int64)
    if ids.dtype.kind not in "iu" or ids.ndim != 1:
        raise TypeError(f"{wanted}; got dtype {ids.dtype} and shape {ids.shape}")
    if len(ids) > total:
        raise ValueError(f"{name} must hold each of {total} edge ids at most once; got more")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= total:
        raise ValueError(f"{name} must hold edge ids from 0 to {total - 1}; got {low if low < 0 else high}")
    found: Ints = ids.astype(np.int64)
    repeated = len(found) - len(np.unique(found))
    if repeated:
        raise ValueError(f"{name} must hold each edge id once; {repeated} are repeated")
    return found


def _read_ratios(ratios: Any) -> list[float]:
    shares = as_float64(ratios, "ratios", ndim=1, expected="shares from 0 to 1 (R,)")
    if len(shares) > _MOST_RATIOS:
        raise ValueError(f"`ratios` must hold at most {_MOST_RATIOS} shares; got {len(shares)}")
    wrong = (shares < 0) | (shares > 1)
    if wrong.any():
        raise ValueError(f"`ratios` must be shares from 0 to 1; got {shares[wrong.argmax()]}")
    return sorted(set(shares.tolist()))


def _read_subsets(subsets: Any, listed: EdgeList) -> tuple[list[str], Mask]:
    if subsets is None:
        return [], np.zeros((0, listed.num_nodes), bool)
    if isinstance(subsets, Mapping):
        pairs = [(name if isinstance(name, str) else repr(name), entry) for name, entry in subsets.items()]
    elif isinstance(subsets, (str, bytes)) or not isinstance(subsets, Iterable):
        raise TypeError(f"`subsets` must be a mapping or a collection of subsets; got {describe(subsets)}")
    else:
        try:
            few = list(itertools.islice(subsets, _MOST_SUBSETS + 1))
        except Exception as error:  # no axes, no data: foreign objects raise what they like
            raise TypeError(f"`subsets` must be a collection of subsets; got {describe(subsets)}") from error
        pairs = [(f"subset {place}", entry) for place, entry in enumerate(few)]
    if len(pairs) > _MOST_SUBSETS:
        raise ValueError(f"`subsets` must hold at most {_MOST_SUBSETS} subsets; got more. Use partition_scan")
    masks = np.zeros((len(pairs), listed.num_nodes), bool)
    for place, (name, entry) in enumerate(pairs):
        try:
            masks[place] = as_subset(entry, listed, "subsets")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} (at {name[:60]!r})") from error
    return [name for name, _ in pairs], masks

"""Walk index sparsification: the order in which edges may go, from the one that hurts least."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, out_of_torch
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, describe, integer, real
from rankdiag.graphs._adjacency import as_subset, as_vertex, can_iterate, vertex_reader
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._walk_counts import as_depth

__all__ = ["WISOrder", "number_kept", "wis_order"]

Ints = NDArray[np.int64]
TieBreak = Literal["first", "last"]

_LEVELS = 10  # lines of the table: 10%, 20%, ..., 100% of the edges removed


def number_kept(num_edges: int, keep_ratio: Any) -> int:
    """Return how many of `num_edges` edges a ratio keeps: rounded down, but 29% of 100 are 29.

    The product of the ratio and the count may lie below a whole number by rounding alone; a distance of 1e-9, or of a
    few units in the last place of the count, is taken for such.
    """
    ratio = real(keep_ratio, "keep_ratio", low=0.0, high=1.0)
    return min(num_edges, math.floor(num_edges * ratio + max(1e-9, num_edges * 2.0**-51)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WISOrder(Result):
    """The order in which walk index sparsification removes edges; one order serves every level of sparsity.

    Attributes
    ----------
    edge_ids : ndarray of int64, shape (k,)
        Ids of the removed edges, first removed first.
    edges : ndarray of int64, shape (k, 2)
        Their ends, each in the direction of its first column.
    removal_rank : ndarray of int64, shape (M,)
        For every edge of the graph its place in `edge_ids`; -1 if it is not there.
    column_edge : ndarray of int64, shape (E,)
        Edge id of every input column; -1 for self-loops.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    num_nodes : int
        Vertices of the graph, isolated ones included.
    directed : bool
        Whether (u, v) and (v, u) are two edges.
    tie_break : {"first", "last"}
        Which of several best edges went first: the smallest id or the largest.
    batch_size : int
        How many edges went at once, between two looks at the graph.

    Examples
    --------
    >>> from rankdiag.graphs import wis_order
    >>> order = wis_order([[0, 0, 1, 2, 1, 2, 2, 3], [1, 2, 2, 3, 0, 0, 1, 2]])
    >>> order.edges.tolist()
    [[0, 2], [1, 2], [0, 1], [2, 3]]
    >>> order.column_mask(num_removed=1).tolist()
    [True, False, True, True, True, False, True, True]
    """

    tag: ClassVar[str] = "graphs.WISOrder"
    judged: ClassVar[bool] = False

    edge_ids: NDArray[np.int64]
    edges: NDArray[np.int64]
    removal_rank: NDArray[np.int64]
    column_edge: NDArray[np.int64]
    depth: int
    num_nodes: int
    directed: bool = False
    tie_break: Literal["first", "last"] = "first"
    batch_size: int = 1

    @property
    def num_edges(self) -> int:
        """Number M of edges of the graph that the order was made from."""
        return len(self.removal_rank)

    def __len__(self) -> int:
        return len(self.edge_ids)

    def num_removed(self, *, keep_ratio: float | None = None, num_removed: int | None = None) -> int:
        """Return how many edges a level removes.

        Parameters
        ----------
        keep_ratio : float, optional
            Share of the M edges to keep, 0 to 1; ``int(M * keep_ratio)`` are kept.
        num_removed : int, optional
            Number of edges to remove; more than M stands for all.

        Returns
        -------
        int
            Edges to remove, at most M.

        Raises
        ------
        TypeError
            If a number has the wrong type, or not exactly one of the two is given.
        ValueError
            If it is out of its bounds, or the order is too short for it.
        """
        if (keep_ratio is None) == (num_removed is None):
            raise TypeError("exactly one of `keep_ratio` and `num_removed` must be given")
        if keep_ratio is not None:
            count = self.num_edges - number_kept(self.num_edges, keep_ratio)
        else:
            count = min(integer(num_removed, "num_removed", low=0), self.num_edges)
        if count > len(self.edge_ids):
            name = "keep_ratio" if keep_ratio is not None else "num_removed"
            raise ValueError(
                f"`{name}` asks to remove {count} edges, but this order holds {len(self.edge_ids)} of "
                f"{self.num_edges}; make it with a larger `num_edges`"
            )
        return count

    def column_mask(self, *, keep_ratio: float | None = None, num_removed: int | None = None) -> NDArray[np.bool_]:
        """Return which columns of the input stay at one level of sparsity.

        Parameters
        ----------
        keep_ratio : float, optional
            Share of the M edges to keep, 0 to 1; ``int(M * keep_ratio)`` are kept.
        num_removed : int, optional
            Number of edges to remove; more than M stands for all.

        Returns
        -------
        ndarray of bool, shape (E,)
            True where a column stays. Self-loops stay; all columns of one edge stay or go together.

        Raises
        ------
        TypeError
            If a number has the wrong type, or not exactly one of the two is given.
        ValueError
            If it is out of its bounds, or the order is too short for it.

        Examples
        --------
        >>> from rankdiag.graphs import wis_order
        >>> order = wis_order([[0, 1, 2, 1, 2, 0, 0], [1, 2, 0, 0, 1, 2, 0]])
        >>> order.column_mask(keep_ratio=0.5).tolist()
        [False, False, True, False, False, True, True]
        """
        count = self.num_removed(keep_ratio=keep_ratio, num_removed=num_removed)
        stays = (self.removal_rank < 0) | (self.removal_rank >= count)
        mask = np.ones(len(self.column_edge), bool)
        is_edge = self.column_edge >= 0
        mask[is_edge] = stays[self.column_edge[is_edge]]
        return mask

    def document(self) -> Document:
        """Return what this order shows: counts, the first edges, and when vertices lose their last edge."""
        numbers = (
            ("edges", self.num_edges, "Edges of the graph, without self-loops and repeats."),
            ("ordered", len(self.edge_ids), "Edges in the order of their removal."),
            ("vertices", self.num_nodes, "Vertices; none is ever removed."),
            ("depth", self.depth, "Layers of the GNN; walks are one shorter."),
        )
        grids, plots = self._levels()
        return Document(
            title=f"Order of removal, depth {self.depth}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(KeyNumber(label=label, value=value, doc=doc) for label, value, doc in numbers),
            grids=(*grids, self._first_edges()),
            plots=plots,
            notes=self.notes(),
        )

    def _first_edges(self) -> Grid:
        shown = min(len(self.edge_ids), _LEVELS)
        return Grid(
            title="First edges to go",
            columns=(
                Column(name="removal", doc="1 goes first."),
                Column(name="edge_id", label="edge id"),
                Column(name="source", label="from" if self.directed else "end"),
                Column(name="target", label="to" if self.directed else "other end"),
            ),
            rows=tuple(
                (place + 1, int(self.edge_ids[place]), int(self.edges[place, 0]), int(self.edges[place, 1]))
                for place in range(shown)
            ),
        )

    def _levels(self) -> tuple[tuple[Grid, ...], tuple[Plot, ...]]:
        """When vertices lose their last edge; only a whole order holds every edge."""
        total = self.num_edges
        if not total or len(self.edge_ids) < total:
            return (), ()
        last = np.full(self.num_nodes, -1, np.int64)  # an isolated vertex has lost it before the start
        place = np.arange(total)
        last[self.edges[:, 0]] = place  # of several places the last one stays
        np.maximum.at(last, self.edges[:, 1], place)
        counts = sorted({round(total * level / _LEVELS) for level in range(_LEVELS + 1)})
        alone = np.searchsorted(np.sort(last), counts)
        rows = tuple(
            (count, total - count, count / total, int(number)) for count, number in zip(counts, alone, strict=True)
        )
        grid = Grid(
            title="Levels of sparsity",
            columns=(
                Column(name="removed"),
                Column(name="kept"),
                Column(name="share", label="share removed"),
                Column(name="isolated", label="isolated vertices", doc="Vertices without an edge to another."),
            ),
            rows=rows,
        )
        plot = Plot(
            title="Vertices that have lost all edges",
            x_label="share of edges removed",
            y_label="isolated vertices",
            series=(Series(label="", x=[row[2] for row in rows], y=[float(row[3]) for row in rows]),),
        )
        return (grid,), (plot,)


def wis_order(
    graph: Any,
    depth: int = 2,
    *,
    num_edges: int | None = None,
    directed: bool = False,
    tie_break: TieBreak = "first",
    batch_size: int = 1,
    num_nodes: int | None = None,
    vertices: Any = None,
    vertex_weights: Any = None,
    keep_edges: Any = None,
    target: Any = None,
) -> WISOrder:
    r"""Order edges for removal so that single vertices keep as much interaction with the rest as possible.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1. Depth 2 is also known as 1-WIS, depth 3 as
        2-WIS.
    num_edges : int, optional
        How many edges to remove; None, and more than there are, stand for all.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    tie_break : {"first", "last"}
        Of several best edges, the one with the smallest id goes, or the one with the largest.
    batch_size : int
        Edges that are removed at once, between two looks at the graph.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.
    vertices : iterable of int, ndarray of bool (n,), or iterable of node labels, optional
        Protect only these: compare the values of these vertices alone. None takes all.
    vertex_weights : array-like of float (n,), optional
        Positive factors; a vertex counts with its value times its factor, so that a small factor protects more.
    keep_edges : iterable of int, iterable of pairs, or ndarray of bool (M,), optional
        Edges that must never go: edge ids, or their ends (node labels of a networkx graph).
    target : int or node label, optional
        Count walks that end at this vertex instead of closed ones. None takes closed walks.

    Returns
    -------
    WISOrder
        Edge ids in the order of their removal, and masks of columns for every level.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), a number is out of its bounds, or a vertex or an edge is not in
        the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    For every remaining edge e, the vertex-prediction walk indices :math:`\mathrm{WI}_{L-1,t}(\{t\})` of all vertices t
    in the graph without e are sorted upwards; the edge with the lexicographically largest list goes, and so on (arXiv
    2211.16494, section 5, Algorithm 1). The list holds the closed walks :math:`(A^L)_{tt}`, self-loops included, and 0
    for isolated vertices (derived here).

    At depth 2 of an undirected graph that is the largest (min degree, max degree) of its ends (arXiv 2211.16494,
    Algorithm 2), and an exact method over levels of the degree takes O(:math:`\alpha` M + M log M) time,
    :math:`\alpha` the arboricity; an edge of a complete graph of 700 vertices takes about 20 times as long as one of a
    sparse graph.
    On large graphs with hubs it takes about 85 bytes of memory an edge beside the input, of which the result keeps 48;
    where all degrees are alike, and in stars, 105 to 150. Any other depth, directed graphs, larger batches and the last
    four options go through an incremental method whose cost follows the neighbourhoods of the removed edges. From depth
    4 on that is hard on hubs: each removal changes the keys of all other edges there. Edges of a hub to its leaves are
    looked at as one, so that a star takes a time that grows with the square of its leaves; edges to other neighbours
    are not, and in directed graphs none are.

    The paper leaves ties open. Published code takes the first of several best edges at depth 2 and the last at other
    depths; here "first" is the default everywhere.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, section 5.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import wis_order
    >>> order = wis_order(nx.path_graph(5))
    >>> order.edges.tolist()
    [[1, 2], [2, 3], [0, 1], [3, 4]]
    >>> order.column_mask(keep_ratio=0.75).tolist()
    [True, False, True, True, True, False, True, True]
    >>> wis_order(nx.path_graph(5), num_edges=1, tie_break="last").edges.tolist()
    [[2, 3]]
    """
    layers = as_depth(depth)
    wanted = None if num_edges is None else integer(num_edges, "num_edges", low=0)
    rule: TieBreak = choice(tie_break, "tie_break", ("first", "last"))
    batch = integer(batch_size, "batch_size", low=1)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    mask = None if vertices is None else as_subset(vertices, listed, "vertices")
    weights = None if vertex_weights is None else _weights(vertex_weights, listed.num_nodes)
    kept = None if keep_edges is None else edge_mask(keep_edges, listed, "keep_edges")
    goal = None if target is None else as_vertex(target, listed, "target")
    free = listed.num_edges - (0 if kept is None else int(kept.sum()))
    count = free if wanted is None else min(wanted, free)
    plain = mask is None and weights is None and kept is None and goal is None
    if plain and layers == 2 and batch == 1 and not listed.directed:
        from rankdiag.graphs._one_wis import level_order

        ids = level_order(listed.edges, listed.num_nodes, count, rule == "last")
    elif count == 0:
        ids = np.zeros(0, np.int64)
    else:
        from rankdiag.graphs._deep_wis import greedy_order

        ids = greedy_order(
            listed,
            layers,
            count,
            last=rule == "last",
            batch_size=batch,
            vertices=mask,
            vertex_weights=weights,
            keep_edges=kept,
            target=goal,
        )
    options = {
        "vertices": None if mask is None else f"{int(mask.sum())} of {listed.num_nodes}",
        "vertex weights": None if weights is None else f"{weights.min():g} to {weights.max():g}",
        "edges kept by force": None if kept is None else int(kept.sum()),
        "target": goal,
    }
    return _order(listed, ids, layers, rule, batch, {key: entry for key, entry in options.items() if entry is not None})


def _order(listed: EdgeList, ids: Ints, depth: int, rule: TieBreak, batch: int, options: dict[str, Any]) -> WISOrder:
    total = listed.num_edges
    rank = np.full(total, -1, np.int64)
    rank[ids] = np.arange(len(ids))
    edges = listed.edges.take(ids, axis=0)
    for array in (ids, rank, edges):
        array.flags.writeable = False
    kind = "directed" if listed.directed else "undirected"
    walks = f"depth {depth} (walks of length {depth - 1})"
    text = (
        f"{len(ids)} of {total} {kind} edges of a graph with {listed.num_nodes} vertices in the order of their "
        f"removal, {walks}. The first edges cost the interaction of single vertices with the rest least; every "
        "prefix is one level of sparsity."
    )
    return WISOrder(
        edge_ids=ids,
        edges=edges,
        removal_rank=rank,
        column_edge=listed.column_edge,
        depth=depth,
        num_nodes=listed.num_nodes,
        directed=listed.directed,
        tie_break=rule,
        batch_size=batch,
        explanation=text,
        meta=Meta(
            definition="greedy removal of the edge whose absence leaves the largest sorted list of the vertices' walk "
            "indices, smallest entries first",
            units="edges",
            n=total,
            details={"depth": walks.removeprefix("depth "), "ties": f"{rule} edge id", "batch size": batch, **options},
        ),
    )


def _weights(values: Any, n: int) -> NDArray[np.float64]:
    array = as_float64(values, "vertex_weights", ndim=1, allow_empty=True, expected="factors of the vertices (n,)")
    if array.shape != (n,):
        raise ValueError(f"`vertex_weights` must hold one factor for each of {n} vertices; got shape {array.shape}")
    if (array <= 0).any():
        place = int((array <= 0).argmax())
        raise ValueError(
            f"`vertex_weights` must be positive; got {float(array[place])!r} at vertex {place}. Leave vertices out "
            "with `vertices`"
        )
    return array


def edge_mask(values: Any, graph: EdgeList, name: str) -> NDArray[np.bool_]:
    """Turn a set of edges into a mask over edge ids.

    Parameters
    ----------
    values : iterable of int, iterable of pairs, or ndarray of bool (M,)
        Edge ids, or pairs of vertex ids (node labels of a networkx graph); a boolean array of length M is a mask.
    graph : EdgeList
        The graph.
    name : str
        Name of the argument in messages.

    Returns
    -------
    ndarray of bool, shape (M,)
        True for the edges in the set; naming one twice changes nothing.

    Raises
    ------
    TypeError
        If it is no collection of edges.
    ValueError
        If an edge is not in the graph, or a mask has another length.
    """
    total = graph.num_edges
    rule = f"`{name}` must be edge ids, pairs of vertices or a boolean mask ({total},)"
    values = out_of_torch(values, name, f"edge ids, pairs of vertices or a boolean mask ({total},)")
    if isinstance(values, np.ndarray) and values.dtype == bool:
        if values.shape != (total,):
            raise ValueError(f"`{name}` as a mask must have shape ({total},); got shape {values.shape}")
        return values.copy()
    if isinstance(values, (str, bytes, dict)) or not can_iterate(values):
        raise TypeError(f"{rule}; got {describe(values)}")
    try:
        entries = list(values)
    except TypeError:  # an array without axes
        raise TypeError(f"{rule}; got {describe(values)}") from None
    mask = np.zeros(total, bool)
    place: dict[tuple[int, int], int] | None = None
    vertex = vertex_reader(graph, name)
    for entry in entries:
        if isinstance(entry, (tuple, list, np.ndarray)) and len(entry) == 2:
            if place is None:
                place = {(u, v): e for e, (u, v) in enumerate(graph.edges.tolist())}
            u, v = vertex(entry[0]), vertex(entry[1])
            found = place.get((u, v), -1)
            if found < 0 and not graph.directed:
                found = place.get((v, u), -1)
            if found < 0:
                raise ValueError(f"`{name}` holds ({entry[0]!r}, {entry[1]!r}), which is no edge of the graph")
        else:
            try:
                found = operator.index(cast("SupportsIndex", entry))
            except Exception:  # TypeError as a rule; foreign objects may raise anything
                raise TypeError(f"{rule}; got {describe(entry)} among them") from None
            if isinstance(entry, (bool, np.bool_)):
                raise TypeError(f"{rule}; got {entry!r} among them")
            if not 0 <= found < total:
                raise ValueError(f"`{name}` holds edge id {found}, but the graph has {total} edges")
        mask[found] = True
    return mask

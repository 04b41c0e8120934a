"""Sparse graphs by walk indices, each of the kind that came in."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch
from rankdiag._optional import is_loaded
from rankdiag._validate import boolean, describe, integer
from rankdiag.graphs._edges import EdgeList, is_networkx, is_pyg, normalise
from rankdiag.graphs._wis import TieBreak, WISOrder, number_kept, wis_order

__all__ = ["wis_removal_order", "wis_sparsify"]


def wis_sparsify(
    graph: Any,
    *,
    keep_ratio: float | None = None,
    num_remove: int | None = None,
    depth: int = 2,
    directed: bool | None = None,
    tie_break: TieBreak = "first",
    batch_size: int = 1,
    num_nodes: int | None = None,
    vertices: Any = None,
    vertex_weights: Any = None,
    keep_edges: Any = None,
    target: Any = None,
) -> Any:
    """Remove edges so that single vertices keep as much interaction with the rest as possible.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`. It is not changed.
    keep_ratio : float, optional
        Share of the M edges to keep, 0 to 1; ``int(M * keep_ratio)`` are kept.
    num_remove : int, optional
        Number of edges to remove; more than M stands for all. Exactly one of the two is given.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    directed : bool, optional
        Whether columns are directed edges; None takes what a networkx graph or an EdgeList says, else False.
    tie_break : {"first", "last"}
        Of several best edges, the one with the smallest id goes, or the one with the largest.
    batch_size : int
        Edges that are removed at once, between two looks at the graph.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.
    vertices : iterable of int, ndarray of bool (n,), or iterable of node labels, optional
        Protect only these; see `wis_order`.
    vertex_weights : array-like of float (n,), optional
        Positive factors of the vertices' values; see `wis_order`.
    keep_edges : iterable of int, iterable of pairs, or ndarray of bool (M,), optional
        Edges that must never go; see `wis_order`.
    target : int or node label, optional
        Count walks that end at this vertex; see `wis_order`.

    Returns
    -------
    same type as `graph`, or a pair
        A sparse matrix of the same format with the data of its entries; a copy of a networkx graph with all nodes and
        attributes; a `Data` with every attribute of its edges; an `EdgeList`. For arrays, tensors and lists the pair
        ``(edge_index, keep_mask)``, of the same dtype and on the same device; lists come back as arrays.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or not exactly one of `keep_ratio` and `num_remove` is given.
    ValueError
        If the graph is refused (see `as_edge_list`), a number is out of its bounds, or `keep_edges` leaves too few
        edges that may go.
    networkx.NetworkXNotImplemented
        If a networkx graph is a multigraph.

    Notes
    -----
    Vertices are never removed, self-loops stay, and the order of what is left is kept. All columns of one edge go
    together. Cost: one `wis_order` of the removed edges, and one copy. For several levels of sparsity call `wis_order`
    once and take its `column_mask` for each.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, section 5.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.graphs import wis_sparsify
    >>> columns = np.array([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
    >>> wis_sparsify(columns, num_remove=1)[0].tolist()
    [[1, 2, 2, 0], [2, 1, 0, 2]]
    >>> import networkx as nx
    >>> sorted(wis_sparsify(nx.path_graph(list("abcde")), keep_ratio=0.5).edges)
    [('a', 'b'), ('d', 'e')]
    """
    if (keep_ratio is None) == (num_remove is None):
        raise TypeError("exactly one of `keep_ratio` and `num_remove` must be given")
    network = _as_networkx(graph)
    listed = normalise(graph, directed=_direction(graph, network, directed), num_nodes=num_nodes, warn=False)
    total = listed.num_edges
    if keep_ratio is not None:
        count, name = total - number_kept(total, keep_ratio), "keep_ratio"
    else:
        count, name = min(integer(num_remove, "num_remove", low=0), total), "num_remove"
    order = wis_order(
        listed,
        depth,
        num_edges=count,
        directed=listed.directed,
        tie_break=tie_break,
        batch_size=batch_size,
        vertices=vertices,
        vertex_weights=vertex_weights,
        keep_edges=keep_edges,
        target=target,
    )
    if len(order) < count:
        raise ValueError(
            f"`{name}` asks to remove {count} of {total} edges, but `keep_edges` leaves only {len(order)} that may go"
        )
    return _without(graph, network, listed, order)


def wis_removal_order(
    G: Any,
    depth: int = 2,
    *,
    num_edges: int | None = None,
    tie_break: TieBreak = "first",
    batch_size: int = 1,
) -> list[tuple[Any, Any]]:
    """Return the edges of a networkx graph in the order of their removal.

    Parameters
    ----------
    G : networkx.Graph or networkx.DiGraph
        The graph; edge ids follow ``list(G.edges())`` without self-loops. Weights are not used.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    num_edges : int, optional
        How many edges to remove; None, and more than there are, stand for all.
    tie_break : {"first", "last"}
        Of several best edges, the one with the smallest id goes, or the one with the largest.
    batch_size : int
        Edges that are removed at once, between two looks at the graph.

    Returns
    -------
    list of tuple
        Pairs of node labels as ``G.edges()`` gives them, first removed first.

    Raises
    ------
    TypeError
        If `G` is no networkx graph, or a number has the wrong type.
    ValueError
        If a number is out of its bounds.
    networkx.NetworkXNotImplemented
        If `G` is a multigraph.

    See Also
    --------
    wis_order : The definition, its cost, and graphs of any kind.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, section 5.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import wis_removal_order
    >>> wis_removal_order(nx.path_graph(list("abcd")))
    [('b', 'c'), ('a', 'b'), ('c', 'd')]
    """
    network = _as_networkx(G)
    if network is None:
        raise TypeError(f"`G` must be a networkx Graph or DiGraph; got {describe(G)}. Use wis_order for other kinds")
    listed = normalise(network, directed=network.is_directed(), warn=False)
    order = wis_order(
        listed, depth, num_edges=num_edges, directed=listed.directed, tie_break=tie_break, batch_size=batch_size
    )
    return _labelled(order.edges, listed)


def _as_networkx(graph: Any) -> Any:
    """Return a networkx graph as it is, None for anything else; multigraphs are refused in networkx's own words."""
    if not is_networkx(graph):
        return None
    if graph.is_multigraph():
        import networkx

        raise networkx.NetworkXNotImplemented(
            "not implemented for multigraph type; make a networkx.Graph or DiGraph of it, which merges edges"
        )
    return graph


def _direction(graph: Any, network: Any, directed: bool | None) -> bool:
    own = network.is_directed() if network is not None else graph.directed if isinstance(graph, EdgeList) else None
    if directed is None:
        return bool(own)
    wanted = boolean(directed, "directed")
    if wanted and own is False:
        raise ValueError("`directed` is True, but `graph` is undirected; pass graph.to_directed(), or its columns")
    return wanted


def _labelled(edges: NDArray[np.int64], listed: EdgeList) -> list[tuple[Any, Any]]:
    labels = listed.labels or ()
    return [(labels[u], labels[v]) for u, v in edges.tolist()]


def _without(graph: Any, network: Any, listed: EdgeList, order: WISOrder) -> Any:
    """Copy `graph` without the edges of `order`, in the kind that it is."""
    if network is not None:
        result = network.copy()
        gone = _labelled(order.edges, listed)
        result.remove_edges_from(gone)
        if network.is_directed() and not listed.directed:
            result.remove_edges_from([(v, u) for u, v in gone])
        return result
    mask = order.column_mask(num_removed=len(order))
    if isinstance(graph, EdgeList):
        return _shorter(graph, order, mask)
    if is_loaded("scipy.sparse"):
        import scipy.sparse

        if scipy.sparse.issparse(graph):
            return _entries(graph, mask)
    if is_pyg(graph):
        return _data(graph, listed.num_nodes, mask)
    if is_torch(graph):
        import torch

        keep = torch.from_numpy(mask).to(graph.device)
        return graph[:, keep], keep
    array = np.asarray(graph)
    if array.size == 0 and array.dtype.kind not in "iu":
        array = array.astype(np.int64)  # an empty list has no dtype of its own
    return array[:, mask], mask


def _shorter(graph: EdgeList, order: WISOrder, mask: NDArray[np.bool_]) -> EdgeList:
    stays = order.removal_rank < 0
    renumbered = np.append(np.cumsum(stays) - 1, -1)  # the entry past the end is that of self-loops, -1
    edges, columns = graph.edges[stays], renumbered[graph.column_edge[mask]]
    for array in (edges, columns):
        array.flags.writeable = False
    return EdgeList(graph.num_nodes, edges, columns, graph.directed, graph.labels)


def _entries(graph: Any, mask: NDArray[np.bool_]) -> Any:
    """Take stored entries, in CSR order, out of a sparse matrix."""
    rows = graph.tocsr()
    starts = np.concatenate(([0], np.cumsum(mask)))[rows.indptr].astype(rows.indptr.dtype)
    result = type(rows)((rows.data[mask], rows.indices[mask], starts), shape=rows.shape)
    return result.asformat(graph.format)


def _data(graph: Any, num_nodes: int, mask: NDArray[np.bool_]) -> Any:
    import torch

    if getattr(graph, "edge_index", None) is None:
        if getattr(graph, "adj_t", None) is not None:
            raise ValueError("`graph` has its edges in adj_t alone; give it an edge_index first")
        return copy.copy(graph)
    result = copy.copy(graph)
    result.num_nodes = num_nodes  # an attribute-free Data would take it from the edges that are left
    return result.edge_subgraph(torch.from_numpy(mask).to(graph.edge_index.device))

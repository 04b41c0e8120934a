"""Walk index sparsification at any depth: which engine counts walks, and in what integers values are compared."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._lazy_order import LazyOrder
from rankdiag.graphs._wis_engines import BallEngine, Engine, NearEngine, TargetEngine

__all__ = ["exact_weights", "greedy_order"]


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
    in the neighbourhood that closed walks through the edge reach. Cliques are the worst case: every removal changes the
    keys of all other edges. So it does at a hub from depth 4 on, where its edges to leaves are looked at as one, and a
    star costs the square of its degree; with neighbours that are no leaves a hub costs up to the cube.

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
    graph, used = _without_isolated(edge_list, target)
    engine: Engine
    if target is not None:
        engine = TargetEngine(graph, depth, int(np.searchsorted(used, target)))
    elif graph.directed or depth > 3:
        engine = BallEngine(graph, depth)
    else:
        engine = NearEngine(graph, depth)
    scale = None if vertex_weights is None else exact_weights([vertex_weights[t] for t in used.tolist()])
    if vertices is not None:
        scale = [factor if own else 0 for factor, own in zip(scale or [1] * len(used), vertices[used], strict=True)]
    return np.array(LazyOrder(engine, graph.edges.tolist(), free, scale, last).take(count, batch_size), np.int64)


def _without_isolated(graph: EdgeList, target: int | None) -> tuple[EdgeList, NDArray[np.int64]]:
    """Return the graph of the vertices that have edges, and their ids; the others keep 0 and cost memory alone."""
    used = np.unique(graph.edges if target is None else np.append(graph.edges, target))
    if len(used) == graph.num_nodes:
        return graph, used
    edges = np.searchsorted(used, graph.edges)
    return EdgeList(len(used), edges, graph.column_edge, graph.directed), used


def exact_weights(weights: Any) -> list[int]:
    """Turn positive factors into integers of the same ratios; floats are the binary fractions that they stand for."""
    exact = [Fraction(value) for value in np.asarray(weights, object).tolist()]
    common = math.lcm(*(value.denominator for value in exact))
    return [int(value * common) for value in exact]

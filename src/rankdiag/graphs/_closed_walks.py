"""Closed walks at every vertex, exactly, without the power of the adjacency matrix that they are the diagonal of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._adjacency import adjacency, arcs
from rankdiag.graphs._edges import EdgeList

__all__ = ["closed_walk_counts", "triangle_counts"]

_SAFE = 2.0**62
_BLOCK = 2_000_000  # stored entries of a block of rows, so that memory does not grow with the graph


def closed_walk_counts(graph: EdgeList, depth: int) -> NDArray[Any]:
    """Return the closed walks of length `depth` at every vertex, self-loops included, 0 for isolated vertices.

    Parameters
    ----------
    graph : EdgeList
        The graph; its vertices have one self-loop each in walks.
    depth : int
        Length L >= 1 of the closed walks.

    Returns
    -------
    ndarray, shape (n,)
        The diagonal of A^L as int64, or as Python ints in an array of objects where int64 could overflow. Vertices
        without an edge that comes in from another vertex have 0.

    Notes
    -----
    Depths up to 3 of an undirected graph come from degrees and triangles, O(M sqrt(M)) time. Beyond, an entry is the
    dot product of a row of A^floor(L/2) with the same row of the transposed A^ceil(L/2), in blocks of rows (derived
    here); the cost is that of these two sparse powers.

    Examples
    --------
    >>> from rankdiag.graphs import as_edge_list
    >>> from rankdiag.graphs._closed_walks import closed_walk_counts
    >>> graph = as_edge_list([[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]], num_nodes=4)
    >>> closed_walk_counts(graph, 3).tolist()
    [9, 9, 9, 0]
    """
    n = graph.num_nodes
    _, target = arcs(graph)
    incoming = np.bincount(target, minlength=n)
    heard = incoming > 0
    if depth == 1 or not graph.num_edges:
        return heard.astype(np.int64)
    if not graph.directed and depth <= 3:
        walks = incoming + 1 if depth == 2 else 2 * triangle_counts(graph) + 3 * incoming + 1
    else:
        walks = _diagonal(graph, depth)
    return np.where(heard, walks, 0) if walks.dtype != object else walks * heard


def triangle_counts(graph: EdgeList) -> NDArray[np.int64]:
    """Return the triangles at every vertex of an undirected graph.

    Edges point from the lower degree to the higher, so that at most O(sqrt(M)) leave a vertex and hubs cost nothing.
    """
    from scipy.sparse import csr_array

    n = graph.num_nodes
    degree = np.bincount(graph.edges.ravel(), minlength=n)
    rank = np.empty(n, np.int64)
    rank[np.lexsort((np.arange(n), degree))] = np.arange(n)
    ends = rank[graph.edges]
    low, high = ends.min(axis=1), ends.max(axis=1)
    up = csr_array((np.ones(len(low), np.int64), (low, high)), shape=(n, n))
    found = np.zeros(n, np.int64)
    for start, stop in _blocks(up @ np.diff(up.indptr).astype(np.int64)):
        rows = up[start:stop]
        closing = (rows @ up).multiply(rows).tocsr()  # entry (a, c): the b between a and c
        found[start:stop] += np.asarray(closing.sum(axis=1)).ravel()
        np.add.at(found, closing.indices, closing.data)
        pairs = (rows.T @ rows).multiply(up)  # entry (b, c): those a of the block that lie below both
        found += np.asarray(pairs.sum(axis=1)).ravel()
    return found[rank]


def _blocks(cost: NDArray[Any]) -> list[tuple[int, int]]:
    """Cut rows into ranges whose costs add up to about `_BLOCK`."""
    place = np.floor(np.cumsum(np.asarray(cost, np.float64)) / _BLOCK)
    edges = np.flatnonzero(np.diff(place)) + 1
    cuts = [0, *edges.tolist(), len(cost)]
    return [(a, b) for a, b in pairwise(cuts) if b > a]


def _diagonal(graph: EdgeList, depth: int) -> NDArray[Any]:
    from scipy.sparse import eye_array

    n = graph.num_nodes
    whole: Any = np.int64
    matrix = (adjacency(graph) + eye_array(n, dtype=whole, format="csr")).tocsr()
    turned = matrix if not graph.directed else matrix.T.tocsr()
    out_walks, in_walks = np.ones(n), np.ones(n)
    reach = out_walks
    with np.errstate(over="ignore"):
        for step in range(depth):
            out_walks, in_walks = matrix @ out_walks, turned @ in_walks
            if step + 1 == -(-depth // 2):
                reach = np.minimum(np.minimum(out_walks, n) + np.minimum(in_walks, n), 2.0 * n)
        if not max(float(out_walks.max()), float(in_walks.max())) < _SAFE:
            return _by_hand(graph, depth)
    short = depth // 2
    found = np.zeros(n, np.int64)
    for start, stop in _blocks(reach):
        left = _power_rows(matrix, start, stop, short)
        right = left if not graph.directed else _power_rows(turned, start, stop, short)
        if depth % 2:
            right = right @ turned
        found[start:stop] = np.asarray(left.multiply(right).sum(axis=1)).ravel()
    return found


def _power_rows(matrix: Any, start: int, stop: int, power: int) -> Any:
    rows = matrix[start:stop]
    for _ in range(power - 1):
        rows = rows @ matrix
    return rows


def _by_hand(graph: EdgeList, depth: int) -> NDArray[Any]:
    """Python ints, one vertex at a time."""
    source, target = arcs(graph)
    n = graph.num_nodes
    out: list[list[int]] = [[v] for v in range(n)]
    into: list[list[int]] = [[v] for v in range(n)] if graph.directed else out
    for u, v in zip(source.tolist(), target.tolist(), strict=True):
        out[u].append(v)
        if graph.directed:
            into[v].append(u)
    found = np.zeros(n, object)
    for vertex in range(n):
        left = _steps({vertex: 1}, out, depth // 2)
        right = _steps({vertex: 1}, into, depth // 2) if graph.directed else left
        if depth % 2:
            right = _steps(right, into, 1)
        found[vertex] = sum(count * right[other] for other, count in left.items() if other in right)
    return found


def _steps(walks: dict[int, int], neighbours: list[list[int]], steps: int) -> dict[int, int]:
    for _ in range(steps):
        longer: dict[int, int] = {}
        for vertex, count in walks.items():
            for other in neighbours[vertex]:
                longer[other] = longer.get(other, 0) + count
        walks = longer
    return walks

"""Walk index sparsification at depth 2, where it needs degrees alone."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

__all__ = ["level_order"]

Ints = NDArray[np.int64]


def level_order(edges: Ints, n: int, count: int, last: bool) -> Ints:
    """Remove `count` edges one by one, each with the largest (min degree, max degree), ties by edge id.

    Parameters
    ----------
    edges : ndarray of int64, shape (M, 2)
        Canonical edges of an undirected graph.
    n : int
        Number of vertices.
    count : int
        How many edges to remove, at most M.
    last : bool
        Whether a tie goes to the largest id instead of the smallest.

    Returns
    -------
    ndarray of int64, shape (count,)
        Edge ids in the order of removal.
    """
    degree = np.bincount(edges.ravel(), minlength=n).tolist()
    ends = edges.tolist()
    sign = -1 if last else 1
    heap = [(*_key(degree[u], degree[v]), sign * e) for e, (u, v) in enumerate(ends)]
    heapq.heapify(heap)
    found: list[int] = []
    while len(found) < count:
        low, high, tie = heap[0]
        u, v = ends[sign * tie]
        fresh = _key(degree[u], degree[v])
        if fresh != (low, high):
            heapq.heapreplace(heap, (*fresh, tie))
            continue
        heapq.heappop(heap)
        degree[u] -= 1
        degree[v] -= 1
        found.append(sign * tie)
    return np.array(found, dtype=np.int64)


def _key(a: int, b: int) -> tuple[int, int]:
    return (-a, -b) if a < b else (-b, -a)

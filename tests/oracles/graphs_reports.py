"""Graph readings of reports and curves from their definitions: dense matrices of Python integers, loops, networkx."""

from __future__ import annotations

import math
from collections.abc import Iterable

import networkx as nx
import numpy as np


def loops_and_edges(n: int, edges: Iterable[tuple[int, int]], *, directed: bool = False) -> np.ndarray:
    """Adjacency with a loop at every vertex, Python integers."""
    matrix = np.zeros((n, n), dtype=object)
    for v in range(n):
        matrix[v, v] = 1
    for u, v in edges:
        matrix[u, v] = 1
        if not directed:
            matrix[v, u] = 1
    return matrix


def walks(matrix: np.ndarray, length: int, target: int | None = None) -> list[int]:
    """For every vertex the walks of that length, to anywhere or to the target."""
    power = np.array([[int(i == j) for j in range(len(matrix))] for i in range(len(matrix))], dtype=object)
    for _ in range(length):
        power = power.dot(matrix)
    return [int(sum(row)) if target is None else int(row[target]) for row in power.reshape(len(matrix), -1)]


def boundary(matrix: np.ndarray, inside: set[int]) -> list[int]:
    """Vertices that have an in-neighbour on the other side."""
    n = len(matrix)
    return [v for v in range(n) if any(matrix[u, v] and (u in inside) != (v in inside) for u in range(n))]


def singles(matrix: np.ndarray, depth: int, *, at_itself: bool) -> list[int]:
    """Walk index of every {t}, at t itself or for the whole graph."""
    found = []
    for t in range(len(matrix)):
        counts = walks(matrix, depth - 1, t if at_itself else None)
        found.append(sum(counts[v] for v in boundary(matrix, {t})))
    return found


def curve_point(n: int, edges: list[tuple[int, int]], depth: int, inside: set[int] | None = None) -> dict[str, float]:
    """What a curve of removal says of one graph."""
    matrix = loops_and_edges(n, edges)
    graph = nx.empty_graph(n)
    graph.add_edges_from(edges)
    at_itself = singles(matrix, depth, at_itself=True)
    whole = singles(matrix, depth, at_itself=False)
    counts = walks(matrix, depth - 1)
    index = sum(counts[v] for v in boundary(matrix, inside or set()))
    return {
        "closed": at_itself,
        "isolated": nx.number_of_isolates(graph),
        "components": nx.number_connected_components(graph) if n else 0,
        "mean_log_vertex": sum(math.log(max(1, w)) for w in at_itself) / n if n else 0.0,
        "mean_log_graph": sum(math.log(max(1, w)) for w in whole) / n if n else 0.0,
        "log_walk_index": math.log(index) if index else -math.inf,
    }

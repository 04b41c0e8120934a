"""Walk indices of many partitions beside a loop over them, and the counts of long walks beside Python integers.

The limit of many partitions is one sparse product of the same size: the adjacency times the 0/1 columns of all
partitions, in float64. It gives one step of walks from every side, less than the boundaries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankdiag.graphs import as_edge_list, partition_scan, rewiring_hints, walk_indices
from rankdiag.graphs._adjacency import adjacency
from rankdiag.graphs._stream import OneWISQueue
from rankdiag.graphs._walk_counts import count_walks

Works = dict[str, Callable[[], Any]]

_PRIME = 1_000_003  # what is left of a count of hundreds of digits for the comparison


def graph_of(n: int, m: int) -> Any:
    """A graph with a few hubs: one end of each edge is drawn towards small ids."""
    rng = np.random.default_rng(0)
    u, v = (n * rng.random(m) ** 2).astype(np.int64), rng.integers(0, n, m)
    return as_edge_list(np.stack((np.concatenate((u, v)), np.concatenate((v, u)))), num_nodes=n)


def citations(size: int) -> Any:
    """Cora, where its file is there (see ``bench_graphs_wis.py``), or a graph of as many vertices and edges."""
    if size < 1024:
        return graph_of(400, 800)
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "data"
    path = folder / "planetoid" / "cora.npz"
    if not path.is_file():
        return graph_of(2708, 5400)
    with np.load(path) as data:
        return as_edge_list(data["edge_index"])


def one_by_one(graph: Any, masks: Any, steps: int) -> list[float]:
    """From the definition: walk counts once, then the boundary of each partition by one pass over the edges."""
    matrix = adjacency(graph)
    y = np.ones(graph.num_nodes, np.int64)
    for _ in range(steps):
        y = y + matrix @ y
    u, v = graph.edges.T
    found = []
    for mask in masks:
        crosses = mask[u] != mask[v]
        ends = np.zeros(graph.num_nodes, bool)
        ends[u[crosses]] = ends[v[crosses]] = True
        found.append(float(y[ends].sum()))
    return found


def many_partitions(size: int) -> Works:
    graph, count = citations(size), 10_000 if size >= 1024 else 500
    masks = np.random.default_rng(1).random((count, graph.num_nodes)) < 0.5
    ids = [np.flatnonzero(mask) for mask in masks]
    matrix = adjacency(graph).astype(np.float64)
    columns = np.ascontiguousarray(masks.T).astype(np.float64)

    def product() -> None:
        matrix @ columns

    return {
        "plain-loop": lambda: one_by_one(graph, masks, 2),
        "one-sparse-product": product,
        "walk_indices-of-masks": lambda: walk_indices(graph, masks, 3),
        "walk_indices-of-id-arrays": lambda: walk_indices(graph, ids, 3),
    }


def long_walks(size: int) -> Works:
    graph, steps = citations(size), 299 if size >= 1024 else 80
    near = [[place] for place in range(graph.num_nodes)]
    for u, v in graph.edges.tolist():
        near[u].append(v)
        near[v].append(u)

    def plain() -> float:
        y = [1] * graph.num_nodes
        for _ in range(steps):
            y = [sum([y[j] for j in row]) for row in near]
        return float(sum(y) % _PRIME)

    return {
        "python-integers": plain,
        "count_walks": lambda: float(count_walks(graph, steps).total() % _PRIME),
    }


def pairs_of_groups(size: int) -> Works:
    graph = citations(size)
    k = 12 if size >= 1024 else 8
    classes = np.random.default_rng(2).integers(0, k, graph.num_nodes)

    def plain() -> list[float]:
        unions = (np.arange(1, 2 ** (k - 1))[:, None] >> np.arange(k) & 1).astype(bool)
        indices = np.array(one_by_one(graph, unions[:, classes], 2))
        return sorted(indices[unions[:, i] != unions[:, j]].min() for i in range(k) for j in range(i))

    return {
        "plain-loop": plain,
        "partition_scan": lambda: [row.walk_index for row in partition_scan(graph, classes, 3, pairs=True)],
    }


def best_new_edge(size: int) -> Works:
    graph = graph_of(2708, 5400) if size >= 1024 else graph_of(300, 600)
    side = np.arange(graph.num_nodes) < graph.num_nodes // 10

    def plain() -> float:
        """All first-order gains in one dense matrix, at depth 3."""
        n = graph.num_nodes
        a = adjacency(graph).toarray().astype(np.float64) + np.eye(n)
        start = np.zeros(n)
        u, v = graph.edges[side[graph.edges[:, 0]] != side[graph.edges[:, 1]]].T
        start[u] = start[v] = 1.0
        y1 = a @ np.ones(n)
        y2, x1 = a @ y1, a @ start
        gain = np.outer(start, y1) + np.outer(x1, np.ones(n))
        gain = gain + gain.T
        entry = np.where(start > 0, 0.0, y2)
        gain += (side[:, None] != side[None, :]) * (entry[:, None] + entry[None, :])
        gain[a > 0] = 0.0
        return float(gain.max())

    def ours() -> float:
        return max(row.gain * row.linear_share for row in rewiring_hints(graph, side, 3))

    return {"all-pairs-in-one-matrix": plain, "rewiring_hints": ours}


def removals(size: int) -> Works:
    graph = citations(size)
    edges = [tuple(edge) for edge in graph.edges[: 5400 if size >= 1024 else 500].tolist()]
    removed = 300

    def plain() -> list[float]:
        """Look at every edge before each removal."""
        u, v = np.array(edges).T
        degree = np.bincount(np.concatenate((u, v)), minlength=graph.num_nodes)
        alive = np.ones(len(u), bool)
        found = []
        for _ in range(removed):
            low, high = np.minimum(degree[u], degree[v]), np.maximum(degree[u], degree[v])
            key = np.where(alive, low * (len(u) + 1) + high, -1)
            best = int(key.argmax())
            alive[best] = False
            degree[[u[best], v[best]]] -= 1
            found.append(float(min(u[best], v[best]) * graph.num_nodes + max(u[best], v[best])))
        return found

    def ours() -> list[float]:
        queue = OneWISQueue(edges)
        return [float(u * graph.num_nodes + v) for u, v in (queue.pop() for _ in range(removed))]

    return {"look-at-every-edge": plain, "OneWISQueue": ours}


CASES: dict[str, Any] = {
    "10,000 partitions of Cora or a graph as large, depth 3": (
        many_partitions,
        {
            "plain-loop": None,
            "one-sparse-product": None,
            "walk_indices-of-masks": None,
            "walk_indices-of-id-arrays": None,
        },
    ),
    "walks of 299 steps on it": (long_walks, {"python-integers": None, "count_walks": None}),
    "pairs of 12 groups": (pairs_of_groups, {"plain-loop": None, "partition_scan": None}),
    "the best of all new edges": (best_new_edge, {"all-pairs-in-one-matrix": None, "rewiring_hints": None}),
    "300 removals from a queue of 5,400 edges": (removals, {"look-at-every-edge": None, "OneWISQueue": None}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_walks(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

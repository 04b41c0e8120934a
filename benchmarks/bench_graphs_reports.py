"""Curves of removal and the report on a partition, beside networkx and beside dense matrices.

The plain curve builds a networkx graph at every point and asks it for degrees, triangles and components, which suffice
at depth 3. The plain report raises a dense matrix to the power. The limits are one pass over the edges of each point,
and one sparse product for each step of a walk.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from rankdiag.graphs import as_edge_list, random_order, removal_curves, walk_index_report
from rankdiag.graphs._adjacency import adjacency

Works = dict[str, Callable[[], Any]]

_RATIOS = [step / 20 for step in range(21)]


def graph_of(size: int) -> Any:
    """A graph with as many vertices and edges as Cora, or a small one."""
    n, m = (2708, 5278) if size >= 1024 else (150, 300)
    return as_edge_list(nx.gnm_random_graph(n, m, seed=0))


def plain_curves(graph: Any, orders: list[Any]) -> list[float]:
    """Isolated vertices, components and the mean ln of closed walks of length 3, point by point."""
    found = []
    for order in orders:
        for ratio in _RATIOS:
            kept = order[round(len(order) * ratio) :]
            left = nx.empty_graph(graph.num_nodes)
            left.add_edges_from(map(tuple, graph.edges[kept].tolist()))
            triangles, degrees = nx.triangles(left), dict(left.degree)
            logs = [math.log(2 * triangles[v] + 3 * degrees[v] + 1) for v in left if degrees[v]]
            found += [nx.number_of_isolates(left), nx.number_connected_components(left), sum(logs) / len(left)]
    return found


def our_curves(graph: Any, orders: list[Any]) -> list[float]:
    ratios = [round(graph.num_edges * ratio) / graph.num_edges for ratio in _RATIOS]
    named = {str(place): order for place, order in enumerate(orders)}
    rows = removal_curves(graph, named, 3, ratios=ratios, subsets=[range(graph.num_nodes // 2)]).rows
    return [value for row in rows for value in (row.isolated, row.components, row.mean_log_vertex)]


def curves(size: int) -> Works:
    graph = graph_of(size)
    orders = [random_order(graph, rng=seed) for seed in range(4)]

    def passes() -> None:
        for order in orders:
            for ratio in _RATIOS:
                np.bincount(graph.edges[order[round(len(order) * ratio) :]].ravel(), minlength=graph.num_nodes)

    return {
        "networkx-every-point": lambda: plain_curves(graph, orders),
        "one-pass-each": passes,
        "removal_curves": lambda: our_curves(graph, orders),
    }


def report(size: int) -> Works:
    graph = graph_of(size)
    inside = np.arange(graph.num_nodes) < graph.num_nodes // 2
    dense = adjacency(graph).toarray().astype(np.float64) + np.eye(graph.num_nodes)

    def plain() -> list[float]:
        crosses = inside[graph.edges[:, 0]] != inside[graph.edges[:, 1]]
        meets = np.unique(graph.edges[crosses])
        return [np.linalg.matrix_power(dense, steps).sum(axis=1)[meets].sum() for steps in range(5)]

    def products() -> None:
        matrix, y = adjacency(graph), np.ones(graph.num_nodes, np.int64)
        for _ in range(4):
            y = y + matrix @ y

    return {
        "dense-powers": plain,
        "four-sparse-products": products,
        "walk_index_report": lambda: [float(row.walk_index) for row in walk_index_report(graph, inside, 3).growth],
    }


CASES: dict[str, Any] = {
    "21 points of 4 orders of a graph of Cora's size": (
        curves,
        {"networkx-every-point": None, "one-pass-each": None, "removal_curves": None},
    ),
    "the report on a half of it, depths 1 to 5": (
        report,
        {"dense-powers": None, "four-sparse-products": None, "walk_index_report": None},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_reports(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

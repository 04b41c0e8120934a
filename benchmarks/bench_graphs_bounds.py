"""Bounds on separation ranks of a graph of medium size, beside the plainest minimum cut, written with networkx.

The plain way builds the same hypergraph as a networkx.DiGraph, node by node, and calls `minimum_cut_value` in floats.
The limit is one bare maximum flow of scipy on a network of the same shape, whose capacities are rounded once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from rankdiag.graphs import separation_rank_bounds

Works = dict[str, Callable[[], Any]]
DEPTH, WIDTH = 3, 16


def ties(graph: nx.Graph, side: set[int]) -> list[tuple[list[Any], float]]:
    """Every hyperedge and its cost, from the definition."""
    n = len(graph)
    a = nx.to_numpy_array(graph, dtype=np.int64) + np.eye(n, dtype=np.int64)
    counts = [np.ones(n, np.int64)]
    for _ in range(DEPTH):
        counts.append(a @ counts[-1])

    def cost(m: int) -> float:
        return math.lgamma(WIDTH + m) - math.lgamma(m + 1) - math.lgamma(WIDTH)

    found: list[tuple[list[Any], float]] = []
    for i in range(n):
        found.append((["I" if i in side else "J", (0, i)], cost(int(counts[DEPTH][i]))))
        for layer in range(1, DEPTH):
            inputs = [(layer - 1, j) for j in (i, *graph[i])]
            found.append(([(layer, i), *inputs], cost(int(counts[DEPTH - layer][i]))))
    return [*found, ([(DEPTH - 1, i) for i in range(n)], math.log(WIDTH))]


def plain(graph: nx.Graph, side: set[int]) -> float:
    network = nx.DiGraph()
    for place, (members, cost) in enumerate(ties(graph, side)):
        network.add_edge(("in", place), ("out", place), capacity=cost)
        for member in members:
            network.add_edge(member, ("in", place))
            network.add_edge(("out", place), member)
    return float(nx.minimum_cut_value(network, "I", "J"))


def one_flow(graph: nx.Graph, side: set[int]) -> Callable[[], None]:
    found = ties(graph, side)
    number: dict[Any, int] = {"I": 0, "J": 1}
    rows, columns, capacity = [], [], []
    for place, (members, cost) in enumerate(found):
        enter = number.setdefault(("in", place), len(number))
        leave = number.setdefault(("out", place), len(number))
        arcs = [(enter, leave, int(1000 * cost))]
        for member in members:
            node = number.setdefault(member, len(number))
            arcs += [(node, enter, 2**29), (leave, node, 2**29)]
        for tail, head, most in arcs:
            rows.append(tail)
            columns.append(head)
            capacity.append(most)
    network = csr_array((np.array(capacity, np.int32), (rows, columns)), shape=(len(number), len(number)))
    return lambda: maximum_flow(network, 0, 1) and None


def medium(size: int) -> Works:
    n = 400 if size >= 1024 else 40
    graph = nx.gnm_random_graph(n, 2 * n, seed=0)
    side = set(range(n // 2))
    return {
        "plain-networkx": lambda: plain(graph, side),
        "one-flow": one_flow(graph, side),
        "separation_rank_bounds": lambda: separation_rank_bounds(graph, side, DEPTH, WIDTH, WIDTH).log_upper_mincut,
    }


CASES: dict[str, Any] = {
    "minimum cut, 400 vertices, 800 edges, depth 3": (
        medium,
        {"plain-networkx": None, "one-flow": None, "separation_rank_bounds": 0.15},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_bounds(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

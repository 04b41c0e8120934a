"""Effective resistances beside the pseudo-inverse of the Laplacian, and checking a removal order beside making it.

The graphs have many vertices on no cycle, as citation graphs do. The limit of the exact resistances is one inverse of a
symmetric matrix of the size of the largest block; that of a check is one sort of the edges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from rankdiag.graphs import (
    EdgeList,
    as_edge_list,
    effective_resistances,
    verify_wis_certificate,
    wis_certificate,
    wis_order,
)

Works = dict[str, Callable[[], Any]]


def grown(n: int, seed: int = 0) -> EdgeList:
    """Preferential attachment, half of the vertices with one edge and half with three, in random column order."""
    graph = nx.dual_barabasi_albert_graph(n, 3, 1, 0.5, seed=seed)
    pairs = np.random.default_rng(seed).permutation(np.array(graph.edges()))
    return as_edge_list(np.concatenate((pairs, pairs[:, ::-1])).T)


def by_pseudo_inverse(graph: EdgeList) -> Any:
    n, (u, v) = graph.num_nodes, graph.edges.T
    laplacian = np.zeros((n, n))
    laplacian[u, v] = laplacian[v, u] = -1.0
    np.fill_diagonal(laplacian, -laplacian.sum(axis=0))
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    return np.diag(inverse)[u] + np.diag(inverse)[v] - 2 * inverse[u, v]


def resistances(size: int) -> Works:
    graph = grown(2 * size)
    return {
        "pseudo-inverse": lambda: by_pseudo_inverse(graph),
        "dense": lambda: effective_resistances(graph, method="dense"),
    }


def projections(size: int) -> Works:
    graph = grown(2 * size)

    def estimate() -> None:
        found = effective_resistances(graph, method="jl", rng=0)
        assert abs(found.sum() / (graph.num_nodes - 1) - 1) < 0.05

    return {"pseudo-inverse": lambda: by_pseudo_inverse(graph), "200 projections": estimate}


def certificates(size: int) -> Works:
    graph = grown(20 * size)
    order = wis_order(graph)
    certificate = wis_certificate(graph, order)

    def keys_and_sort() -> None:
        degree = np.bincount(graph.edges.ravel())[graph.edges]
        np.lexsort((-degree.max(axis=1), -degree.min(axis=1)))

    def check() -> list[int]:
        assert verify_wis_certificate(graph, certificate).valid
        return order.edge_ids.tolist()

    return {
        "the order": lambda: wis_order(graph).edge_ids.tolist(),
        "one sort": keys_and_sort,
        "wis_certificate": lambda: wis_certificate(graph, order).edge_ids.tolist(),
        "verify": check,
    }


CASES: dict[str, Any] = {
    "resistances of 2048 vertices": (resistances, {"pseudo-inverse": None, "dense": 0.2}),
    "estimated resistances of 2048 vertices": (projections, {"pseudo-inverse": None, "200 projections": None}),
    "certificate of 20480 vertices": (
        certificates,
        {"the order": None, "one sort": None, "wis_certificate": None, "verify": None},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_baselines(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

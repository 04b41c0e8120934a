"""Closed walks at every vertex: worked values, identities, and the diagonal of the power written out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.graphs._closed_walks as module
from oracles.graphs_deep_wis import columns_to_edges, random_columns, values_of
from rankdiag.graphs._closed_walks import closed_walk_counts, triangle_counts
from rankdiag.graphs._edges import as_edge_list

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]


def both_ways(edges: list[tuple[int, int]]) -> np.ndarray:
    return np.array(edges + [(v, u) for u, v in edges]).T


def test_worked_values_of_the_figure() -> None:
    graph = as_edge_list(both_ways(FIGURE), num_nodes=8)
    assert closed_walk_counts(graph, 3).tolist() == [7, 7, 10, 7, 7, 10, 7, 0]
    assert closed_walk_counts(graph, 1).tolist() == [1] * 7 + [0]
    assert closed_walk_counts(graph, 2).tolist() == [3, 3, 4, 3, 3, 4, 3, 0]


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 24), st.integers(1, 7), st.booleans())
def test_equals_the_walk_indices_of_single_vertices(seed: int, n: int, m: int, depth: int, directed: bool) -> None:
    columns = random_columns(random.Random(seed), n, m, directed)
    graph = as_edge_list(np.array(columns).reshape(2, -1), directed=directed, num_nodes=n + 1)
    found = closed_walk_counts(graph, depth)
    assert found.dtype == np.int64
    assert found.tolist() == values_of(n + 1, columns_to_edges(columns, directed), depth, directed)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 4, 5, 6])
def test_counting_by_hand_and_in_small_blocks_agrees(
    depth: int, directed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = random_columns(random.Random(depth), 30, 80, directed)
    graph = as_edge_list(np.array(columns), directed=directed)
    expected = closed_walk_counts(graph, depth).tolist()
    monkeypatch.setattr(module, "_BLOCK", 50)
    assert closed_walk_counts(graph, depth).tolist() == expected
    monkeypatch.setattr(module, "_SAFE", 1.0)  # nothing is safe
    assert closed_walk_counts(graph, depth).tolist() == expected


def test_complete_graphs_need_integers_of_any_size() -> None:
    n, depth = 30, 20
    graph = as_edge_list(np.array([(u, v) for u in range(n) for v in range(n) if u != v]).T, num_nodes=n + 1)
    found = closed_walk_counts(graph, depth)
    assert found.tolist() == [n ** (depth - 1)] * n + [0]
    assert all(type(value) is int for value in found.tolist())


def test_trace_of_the_power() -> None:
    rng = np.random.default_rng(3)
    upper = np.triu(rng.random((12, 12)) < 0.25, 1)
    columns = np.argwhere(upper | upper.T).T
    matrix = (upper | upper.T) + np.eye(12, dtype=np.int64)
    graph = as_edge_list(columns, num_nodes=12)
    alone = int((matrix.sum(axis=1) == 1).sum())
    for depth in range(1, 9):
        trace = int(np.trace(np.linalg.matrix_power(matrix, depth)))
        assert int(closed_walk_counts(graph, depth).sum()) == trace - alone


def test_triangles_of_a_graph_with_hubs_equal_those_of_networkx() -> None:
    import networkx as nx

    graph = nx.barabasi_albert_graph(200, 5, seed=1)
    listed = as_edge_list(graph)
    assert triangle_counts(listed).tolist() == [nx.triangles(graph)[v] for v in range(200)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("n", [0, 3])
def test_graphs_without_edges_have_zeros(depth: int, n: int) -> None:
    for directed in (False, True):
        graph = as_edge_list(np.zeros((2, 0), np.int64), num_nodes=n, directed=directed)
        assert closed_walk_counts(graph, depth).tolist() == [0] * n

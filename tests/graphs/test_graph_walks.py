"""Walk index against walks that are enumerated, dense powers in Python ints, closed forms, and every identity."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_walks import boundary, columns_of, graphs, matrix_of, planetoid, power, walk_index_of, walks
from rankdiag.graphs._edges import as_edge_list
from rankdiag.graphs._partitions import as_partitions, partition_totals
from rankdiag.graphs._walk_counts import DEEPEST, count_walks
from rankdiag.graphs._walks import (
    boundary_mask,
    log_walk_index,
    partition_boundary,
    singleton_walk_indices,
    walk_counts,
    walk_index,
    walk_index_share,
    walk_indices,
)

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
COLUMNS = columns_of(FIGURE, False)
ONE_WAY = columns_of([(0, 1), (1, 2), (2, 0), (3, 0), (1, 3)], True)
SIDE = [0, 1, 2, 3]


def test_the_graph_of_figure_1():
    assert partition_boundary(COLUMNS, SIDE).tolist() == [2, 3, 4, 5]
    assert [walk_index(COLUMNS, SIDE, depth) for depth in range(1, 6)] == [4, 14, 48, 163, 552]
    assert [walk_index(COLUMNS, SIDE, 3, target=t) for t in range(7)] == [5, 4, 9, 6, 7, 10, 7]
    assert walk_index(COLUMNS, SIDE, 20) == 47000055035
    assert walk_index(COLUMNS, SIDE, 40) == 1750836875405351456200
    assert singleton_walk_indices(COLUMNS, 3, prediction="graph").tolist() == [33, 29, 48, 33, 34, 48, 34]
    assert singleton_walk_indices(COLUMNS, 3, prediction="vertex").tolist() == [7, 7, 10, 7, 7, 10, 7]


def test_a_small_directed_graph():
    assert [walk_index(ONE_WAY, [0], depth, directed=True) for depth in (1, 2, 3)] == [2, 5, 12]
    assert [walk_index(ONE_WAY, [3], depth, directed=True) for depth in (1, 2, 3)] == [2, 4, 9]


def test_closed_forms():
    for n in (2, 5, 9):
        clique = nx.complete_graph(n)
        for depth in (1, 2, 5, 40):
            for size in range(1, n):
                assert walk_index(clique, range(size), depth) == n**depth
                assert walk_index(clique, range(size), depth, target=n - 1) == n ** (depth - 1)
    for n in (4, 9):
        cycle = nx.cycle_graph(n)
        for depth in (1, 2, 6):
            for size in range(1, n):
                expected = 3**depth if size in {1, n - 1} else 4 * 3 ** (depth - 1)
                assert walk_index(cycle, range(size), depth) == expected
    for leaves in (1, 4, 30):
        assert walk_index(nx.star_graph(leaves), [0], 2) == 3 * leaves + 1


@given(graphs(most=5), st.integers(1, 4), st.data())
def test_every_walk_one_by_one(case, depth, data):
    n, edges, directed = case
    side = data.draw(st.sets(st.integers(0, n - 1)))
    target = data.draw(st.none() | st.integers(0, n - 1))
    a = matrix_of(n, edges, directed)
    start = boundary(a, side)
    graph = columns_of(edges, directed)
    options = {"directed": directed, "num_nodes": n}
    every = [walk for walk in walks(a, depth - 1) if target is None or walk[-1] == target]
    expected = sum(walk[0] in start for walk in every)
    assert partition_boundary(graph, side, **options).tolist() == start
    assert walk_index(graph, side, depth, target=target, **options) == expected
    assert walk_index_share(graph, side, depth, target=target, **options) == expected / len(every)
    log = log_walk_index(graph, side, depth, target=target, **options)
    assert log == (math.log(expected) if expected else -math.inf)
    if not directed:  # one side at a time, by networkx
        known = nx.Graph(edges)
        known.add_nodes_from(range(n))
        inner, outer = side, set(range(n)) - side
        assert start == sorted(nx.node_boundary(known, inner) | nx.node_boundary(known, outer))


@given(graphs(most=8), st.integers(1, 9), st.data())
def test_identities(case, depth, data):
    n, edges, directed = case
    side = data.draw(st.sets(st.integers(0, n - 1)))
    graph = as_edge_list(columns_of(edges, directed), directed=directed, num_nodes=n)
    found = walk_index(graph, side, depth)
    per_target = [walk_index(graph, side, depth, target=t) for t in range(n)]
    assert found == walk_index_of(matrix_of(n, edges, directed), side, depth)
    assert found == walk_index(graph, set(range(n)) - side, depth)
    assert found == sum(per_target)
    crosses = any((u in side) != (v in side) for u, v in edges)
    assert (found == 0) == (not crosses)
    deeper = walk_index(graph, side, depth + 1)
    deeper_per_target = [walk_index(graph, side, depth + 1, target=t) for t in range(n)]
    assert all(new >= old for new, old in zip([deeper, *deeper_per_target], [found, *per_target], strict=True))
    if not directed and crosses:
        widest = max(sum(u == t or v == t for u, v in edges) for t in range(n))
        assert 2 * found <= deeper <= (widest + 1) * found
        assert all(new >= 2 * old for new, old in zip(deeper_per_target, per_target, strict=True))
    names = data.draw(st.permutations(range(n)))
    renamed = columns_of([(names[u], names[v]) for u, v in edges], directed)
    assert found == walk_index(renamed, [names[v] for v in side], depth, directed=directed, num_nodes=n)


@given(graphs(most=7, directed=False, least=2), st.integers(1, 6), st.data())
def test_an_edge_more_never_lowers_an_undirected_walk_index(case, depth, data):
    n, edges, _ = case
    side = data.draw(st.sets(st.integers(0, n - 1)))
    u, v = data.draw(st.permutations(range(n)))[:2]
    more = [e for e in edges if set(e) != {u, v}] + [(u, v)]
    before = walk_index(columns_of(edges, False), side, depth, num_nodes=n)
    assert walk_index(columns_of(more, False), side, depth, num_nodes=n) >= before


@given(graphs(most=7), st.integers(1, 8))
def test_single_vertices(case, depth):
    n, edges, directed = case
    a = matrix_of(n, edges, directed)
    graph = as_edge_list(columns_of(edges, directed), directed=directed, num_nodes=n)
    whole = singleton_walk_indices(graph, depth, prediction="graph")
    own = singleton_walk_indices(graph, depth, prediction="vertex")
    assert whole.dtype == own.dtype == np.int64
    assert whole.tolist() == [walk_index_of(a, {t}, depth) for t in range(n)]
    assert own.tolist() == [walk_index_of(a, {t}, depth, target=t) for t in range(n)]
    closed, heard = power(a, depth), [any(a[j][t] for j in range(n) if j != t) for t in range(n)]
    assert own.tolist() == [closed[t][t] * heard[t] for t in range(n)]
    if not directed:
        assert sum(own.tolist()) == sum(closed[t][t] for t in range(n)) - heard.count(False)
        assert whole.tolist() == [sum(closed[t]) * heard[t] for t in range(n)]


def test_two_three_and_four_steps_by_degrees_and_triangles():
    graph = nx.gnm_random_graph(30, 90, seed=0)
    graph.add_nodes_from(range(30, 34))
    degree = dict(graph.degree)
    triangles = nx.triangles(graph)
    heard = [degree[t] > 0 for t in graph]
    a = np.linalg.matrix_power(nx.to_numpy_array(graph, dtype=np.int64) + np.eye(34, dtype=np.int64), 2)
    at = {L: singleton_walk_indices(graph, L, prediction="vertex").tolist() for L in (2, 3, 4)}
    assert at[2] == [(degree[t] + 1) * heard[t] for t in graph]
    assert at[3] == [(2 * triangles[t] + 3 * degree[t] + 1) * heard[t] for t in graph]
    assert at[4] == [int((a[t] ** 2).sum()) * heard[t] for t in graph]


def test_numbers_beyond_64_bits():
    # Four single edges: every number is 2^62, and fits, but their sum does not.
    edges = columns_of([(0, 1), (2, 3), (4, 5), (6, 7)], False)
    for depth in (61, 62, 63, 64, 65, 200):
        assert walk_index(edges, [0, 2, 4, 6], depth) == 2 ** (depth + 2)
        assert walk_indices(edges, [[0, 2, 4, 6], [0], [0, 1]], depth) == [2 ** (depth + 2), 2**depth, 0]
        singles = singleton_walk_indices(edges, depth, prediction="graph")
        assert singles.tolist() == [2**depth] * 8
        assert (singles.dtype == object) == (depth > 62)
    # One scale for all vertices would lose the small component.
    lonely = nx.disjoint_union(nx.complete_graph(30), nx.path_graph(2))
    assert walk_index(lonely, [30], 300) == 2**300
    assert log_walk_index(lonely, [30], 300) == pytest.approx(300 * math.log(2), rel=1e-15)
    assert walk_index(lonely, [0], 300) == 30**300
    assert log_walk_index(lonely, [0], 300) == pytest.approx(300 * math.log(30), rel=1e-15)
    assert walk_index_share(lonely, [30], 300) == 2**300 / (2**300 + 30**300)
    assert walk_index(nx.complete_graph(3), [0], DEEPEST) == 3**DEEPEST


@pytest.mark.parametrize("target", [None, 3])
def test_limbs_are_python_ints(target):
    rng = np.random.default_rng(0)
    for n, m in ((3, 2), (12, 40), (60, 59), (100, 900)):
        graph = nx.gnm_random_graph(n, m, seed=int(rng.integers(1000)))
        if m == n - 1:
            graph = nx.star_graph(n - 1)  # one hub
        listed = as_edge_list(graph)
        near = [[i, *graph[i]] for i in range(n)]
        goal = None if target is None else min(target, n - 1)
        y = [int(goal in {None, i}) for i in range(n)]
        for steps in range(45):
            counts = count_walks(listed, steps, goal)
            exact = walk_counts(listed, steps, goal)
            assert list(exact) == y
            assert isinstance(exact, np.ndarray) == (max(y) < 2**63)
            assert counts.total() == sum(y)
            y = [sum(y[j] for j in row) for row in near]


@given(graphs(most=9), st.integers(1, 60), st.integers(0, 140), st.integers(0, 2**32))
def test_many_partitions_at_once(case, depth, count, seed):
    n, edges, directed = case
    graph = as_edge_list(columns_of(edges, directed), directed=directed, num_nodes=n)
    masks = np.random.default_rng(seed).random((count, n)) < 0.5
    y = walk_counts(graph, depth - 1)
    expected = [sum(int(y[i]) for i in np.flatnonzero(boundary_mask(graph, mask))) for mask in masks]
    assert walk_indices(graph, masks, depth) == expected
    assert walk_indices(graph, masks[::-1], depth) == expected[::-1]
    assert walk_indices(graph, (np.flatnonzero(mask) for mask in masks), depth) == expected


def test_many_partitions_of_graphs_with_hubs_and_in_blocks(monkeypatch):
    from rankdiag.graphs import _partitions

    rng = np.random.default_rng(0)
    graph = nx.star_graph(700)
    graph.add_edges_from(nx.gnm_random_graph(700, 900, seed=0).edges)
    listed = as_edge_list(graph)
    masks = rng.random((300, 701)) < 0.3
    masks[0] = False
    expected = [walk_index(listed, mask, 4) for mask in masks]
    assert walk_indices(listed, masks, 4) == expected
    assert expected[0] == 0
    monkeypatch.setattr(_partitions, "_MASK_BYTES", 64 * 701 * 2)
    monkeypatch.setattr(_partitions, "_HUB", 100)
    monkeypatch.setattr(_partitions, "_WIDE", 3)
    assert walk_indices(listed, masks, 4) == expected
    found, ends, sizes = partition_totals(listed, as_partitions(masks, listed), count_walks(listed, 3))
    assert found == expected
    assert ends == [len(partition_boundary(listed, mask)) for mask in masks]
    assert sizes == masks.sum(axis=1).tolist()


def test_sums_stay_exact_where_floats_would_round():
    from rankdiag.graphs._partitions import _pieces, _weighted
    from rankdiag.graphs._walk_counts import WalkCounts

    rng = np.random.default_rng(0)
    limbs = rng.integers(2**60, 2**61, (5000, 2))
    counts = WalkCounts(limbs, 61)
    weights, shifts = _pieces(counts)
    words = rng.integers(2**63, 2**64, (5000, 2), np.uint64)
    sums = _weighted(words, weights)
    for column in (0, 7, 63, 100):
        chosen = np.flatnonzero(words[:, column // 64] >> np.uint64(column % 64) & np.uint64(1)).tolist()
        assert sums[0, column] == len(chosen)
        expected = sum(int(limbs[i, 0]) + (int(limbs[i, 1]) << 61) for i in chosen)
        assert sum(int(row[column]) << shift for row, shift in zip(sums[1:], shifts, strict=True)) == expected
    assert counts.total() == sum(low + (high << 61) for low, high in limbs.tolist())


def test_a_carry_leaves_short_digits():
    from rankdiag.graphs._walk_counts import _carry

    # With 2^31 neighbours a carry is as long as a digit.
    for bits, value in ((31, 2**62), (31, 2**62 - 1), (58, 2**62), (60, 2**60)):
        for digits in ([value], [value, value], [0, value], [2**bits, 2**bits, value]):
            found = _carry(np.array([digits, [0] * len(digits)]), bits)
            assert found.max() <= 2**bits
            old, new = (
                [sum(v << (bits * k) for k, v in enumerate(row)) for row in rows]
                for rows in ([digits, [0]], found.tolist())
            )
            assert old == new


def test_labels_of_networkx():
    graph = nx.Graph([("a", "b"), ("b", "c"), ("c", "d")])
    assert partition_boundary(graph, ["b", "a"]) == ["b", "c"]
    assert partition_boundary(graph, {"d"}) == ["c", "d"]
    assert walk_index(graph, ["a"], 3) == 13
    assert walk_index(graph, ["a"], 3, target="d") == walk_index(
        columns_of([(0, 1), (1, 2), (2, 3)], False), [0], 3, target=3
    )
    assert walk_indices(graph, [["a"], ["a", "b"], []], 3) == [13, 16, 0]
    assert partition_boundary(nx.DiGraph([("a", "b")]), ["a"], directed=True) == ["b"]
    assert walk_index(graph, np.array([True, False, False, False]), 3) == 13
    with pytest.raises(ValueError, match=r"`target` must hold node labels of the graph; got 7"):
        walk_index(graph, ["a"], 2, target=7)


def test_empty_sides_and_empty_graphs():
    for side in ([], range(7), np.zeros(7, bool), torch.ones(7, dtype=torch.bool)):
        assert partition_boundary(COLUMNS, side).tolist() == []
        assert walk_index(COLUMNS, side, 4) == 0
        assert log_walk_index(COLUMNS, side, 4) == -math.inf
        assert walk_index_share(COLUMNS, side, 4) == 0.0
    nothing = np.zeros((2, 0), np.int64)
    assert walk_index(nothing, [], 3) == 0
    assert walk_index_share(nothing, [], 3) == 0.0
    assert walk_indices(nothing, np.zeros((4, 0), bool), 3) == [0] * 4
    assert walk_indices(COLUMNS, [], 3) == []
    assert walk_indices(nothing, [[0], []], 3, num_nodes=2) == [0, 0]
    for kind in ("graph", "vertex"):
        assert singleton_walk_indices(nothing, 3, prediction=kind).tolist() == []
        assert singleton_walk_indices([[0, 1], [0, 1]], 3, prediction=kind, num_nodes=4).tolist() == [0] * 4
    assert walk_index([[0, 2, 2], [2, 0, 2]], [1], 5) == 0  # an isolated vertex is in no boundary
    assert walk_index([[0, 2, 2], [2, 0, 2]], [1], DEEPEST) == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([0], 0), {}, ValueError, r"`depth` must be an integer >= 1 and <= 10000; got 0"),
        (([0], DEEPEST + 1), {}, ValueError, "`depth` must be an integer"),
        (([0], 2.0), {}, TypeError, "`depth` must be an integer"),
        (([0], True), {}, TypeError, "`depth` must be an integer"),
        (([9], 2), {}, ValueError, "`subset` contains vertex 9 but the graph has 7 vertices"),
        (([-1], 2), {}, ValueError, "`subset` contains vertex -1 but the graph has 7 vertices"),
        (([2**70], 2), {}, ValueError, f"`subset` contains vertex {2**70} but the graph has 7 vertices"),
        (([1, 1], 2), {}, ValueError, "`subset` has duplicate vertices"),
        ((np.array([1, 1], np.uint8), 2), {}, ValueError, "`subset` has duplicate vertices"),
        ((np.array([1, 1, 0, 0, 0, 0, 0], np.uint8), 2), {}, ValueError, "a mask must be of dtype bool, not uint8"),
        ((np.zeros(6, bool), 2), {}, ValueError, r"`subset` as a mask must have shape \(7,\); got shape \(6,\)"),
        (([1.0], 2), {}, TypeError, "`subset` must hold integer vertex ids; got 1.0 among them"),
        (([True, 1], 2), {}, TypeError, "`subset` must hold vertex ids; got True among them"),
        ((3, 2), {}, TypeError, "`subset` must be a collection of vertices or a boolean mask"),
        (("01", 2), {}, TypeError, "`subset` must be a collection of vertices"),
        ((None, 2), {}, TypeError, "`subset` must be a collection of vertices"),
        (([0], 2), {"target": -1}, ValueError, "`target` must be a vertex id below 7; got -1"),
        (([0], 2), {"target": 7}, ValueError, "`target` must be a vertex id below 7; got 7"),
        (([0], 2), {"target": 0.5}, TypeError, "`target` must be a vertex id; got 0.5"),
        (([0], 2), {"num_nodes": 6}, ValueError, "`num_nodes` must be above every vertex id; got 6"),
    ],
)
def test_errors(arguments, options, error, message):
    for call in (walk_index, log_walk_index, walk_index_share):
        with pytest.raises(error, match=message):
            call(COLUMNS, *arguments, **options)


def test_errors_of_many():
    with pytest.raises(ValueError, match=r"`subsets` as masks must have shape \(P, 7\); got shape \(7,\)"):
        walk_indices(COLUMNS, np.zeros(7, bool), 2)
    with pytest.raises(ValueError, match="subset 1: `subsets` contains vertex 8"):
        walk_indices(COLUMNS, [[0], [8]], 2)
    with pytest.raises(TypeError, match=r"`subsets` must hold one collection of vertices for each partition; got 0"):
        walk_indices(COLUMNS, [0, 1], 2)
    for wild in (None, 3, "ab", {"a": [1]}, np.array(3)):
        with pytest.raises(TypeError, match="`subsets` must be a collection of subsets"):
            walk_indices(COLUMNS, wild, 2)
    with pytest.raises(ValueError, match="`prediction` must be one of 'graph', 'vertex'; got 'edge'"):
        singleton_walk_indices(COLUMNS, 2, prediction="edge")


def test_results_are_plain_and_inputs_untouched():
    frozen = COLUMNS.copy()
    frozen.flags.writeable = False
    side = np.array([True] * 4 + [False] * 3)
    side.flags.writeable = False
    assert type(walk_index(frozen, side, 3)) is int
    assert {type(value) for value in walk_indices(frozen, [side, SIDE], 3)} == {int}
    assert type(log_walk_index(frozen, side, 3)) is type(walk_index_share(frozen, side, 3)) is float
    assert partition_boundary(frozen, side).dtype == np.int64
    assert walk_indices(torch.tensor(COLUMNS), torch.tensor(np.stack([side, ~side])), 3) == [48, 48]


def test_cora():
    path = planetoid("cora.npz")
    if path is None:
        pytest.skip("planetoid/cora.npz is not beside the repository; RANKDIAG_DATA may name its folder")
    with np.load(path, allow_pickle=False) as data:
        graph = as_edge_list(data["edge_index"])
    half = np.arange(2708) < 1354
    assert len(partition_boundary(graph, half)) == 2218
    assert [walk_index(graph, half, depth) for depth in range(1, 6)] == [2218, 11879, 126635, 1167775, 16374344]
    masks = np.random.default_rng(0).random((70, 2708)) < 0.5
    for depth in (3, 40):
        assert walk_indices(graph, masks, depth) == [walk_index(graph, mask, depth) for mask in masks]

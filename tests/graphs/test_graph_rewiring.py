"""Hints against the walk index of every graph with one edge more, and against the derivative from its definition."""

from __future__ import annotations

import copy
import math
import pickle

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_walks import boundary, columns_of, graphs, matrix_of, power, walk_index_of
from rankdiag import result_from_json
from rankdiag.graphs._edges import as_edge_list
from rankdiag.graphs._rewiring import rewiring_hints

PATH = columns_of([(0, 1), (1, 2), (2, 3)], False)


def new_edges(n, edges, directed):
    taken = set(edges) | (set() if directed else {(v, u) for u, v in edges})
    pairs = [(u, v) for u in range(n) for v in range(n) if (u != v if directed else u < v)]
    return [pair for pair in pairs if pair not in taken]


def linear_gain(a, side, depth, edge, directed, target):
    """Walks of the old graph with one step along the new edge, and those from its ends that enter the boundary."""
    n = len(a)
    old = set(boundary(a, side))
    ends = range(n) if target is None else [target]
    total = 0
    for u, v in [edge] if directed else [edge, edge[::-1]]:
        for k in range(depth - 1):
            first, rest = power(a, k), power(a, depth - 2 - k)
            total += sum(first[i][u] for i in old) * sum(rest[v][j] for j in ends)
        if (u in side) != (v in side) and v not in old:
            whole = power(a, depth - 1)
            total += sum(whole[v][j] for j in ends)
    return total


@given(graphs(most=6), st.integers(1, 5), st.data())
def test_every_edge_that_is_not_there(case, depth, data):
    n, edges, directed = case
    side = data.draw(st.sets(st.integers(0, n - 1)))
    target = data.draw(st.none() | st.integers(0, n - 1))
    a = matrix_of(n, edges, directed)
    before = walk_index_of(a, side, depth, target)
    expected = {}
    for edge in new_edges(n, edges, directed):
        gain = walk_index_of(matrix_of(n, [*edges, edge], directed), side, depth, target) - before
        expected[edge] = gain, linear_gain(a, side, depth, edge, directed, target)
    graph = columns_of(edges, directed)
    options = {"target": target, "directed": directed, "num_nodes": n}
    hints = rewiring_hints(graph, side, depth, top=100, **options)
    assert hints.walk_index == before
    assert {(row.u, row.v): row.gain for row in hints} == {edge: g for edge, (g, part) in expected.items() if part}
    for row in hints:
        gain, part = expected[row.u, row.v]
        assert row.walk_index == before + gain
        assert row.linear_share == pytest.approx(part / gain, rel=1e-12)
        assert row.crosses == ((row.u in side) != (row.v in side))
        change = math.log((before + gain) / before) if before else math.inf
        assert row.log_change == pytest.approx(change, rel=1e-12)
    gains = [row.gain for row in hints]
    assert gains == sorted(gains, reverse=True)
    if expected:
        given_pairs = list(expected) if directed else [pair[::-1] for pair in expected]
        chosen = rewiring_hints(graph, side, depth, top=100, candidates=given_pairs, **options)
        assert {(row.u, row.v): row.gain for row in chosen} == {edge: g for edge, (g, _) in expected.items() if g}
    assert result_from_json(hints.to_json()) == hints


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_the_search_leaves_nothing_better_out(depth, directed):
    rng = np.random.default_rng(depth)
    graph = nx.gnm_random_graph(30, 60, seed=depth, directed=directed)
    side = set(np.flatnonzero(rng.random(30) < 0.2).tolist())
    edges = list(graph.edges)
    options = {"directed": directed}
    every = rewiring_hints(graph, side, depth, top=900, candidates=new_edges(30, edges, directed), **options)
    linear = {(row.u, row.v): row.linear_share * row.gain for row in every}
    few = rewiring_hints(graph, side, depth, top=4, **options)
    best = sorted(linear.values(), reverse=True)[:12]  # three times `top` are counted exactly
    assert len(few) == 4
    assert all(linear[row.u, row.v] >= best[-1] * (1 - 1e-9) for row in few)
    if depth == 3:
        assert few.rows[0].gain == every.rows[0].gain


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("target", [None, 5])
def test_the_search_stops_only_where_no_pair_can_be_better(directed, target):
    from rankdiag.graphs._rewiring import _Scores
    from rankdiag.graphs._walks import boundary_mask

    for seed in range(3):
        graph = nx.gnm_random_graph(120, 260, seed=seed, directed=directed)
        listed = as_edge_list(graph, directed=directed)
        side = np.random.default_rng(seed).random(120) < 0.3
        scores = _Scores.of(listed, side, boundary_mask(listed, side), 2 + seed, target)
        pairs = np.array(new_edges(120, list(graph.edges), directed))
        every = np.sort(scores._at(pairs[:, 0], pairs[:, 1]))[::-1]
        every = every[every > 0]
        for pool in (1, 5, 40, 300):
            found, values = scores.best(pool)
            np.testing.assert_allclose(values, every[:pool], rtol=1e-12)
            np.testing.assert_allclose(scores._at(found[:, 0], found[:, 1]), values, rtol=1e-12)
            assert len({tuple(pair) for pair in found.tolist()}) == len(found)


def test_a_depth_whose_counts_leave_float64():
    graph = nx.disjoint_union(nx.complete_graph(25), nx.path_graph(3))
    hints = rewiring_hints(graph, [25], 400, top=3)
    assert hints.walk_index > 10**150
    assert hints.rows[0].walk_index > 10**500
    assert all(math.isfinite(row.log_change) and 0 <= row.linear_share <= 1 for row in hints)
    assert {row.u for row in hints} <= set(range(25))  # into the clique
    assert "e+5" in hints.summary()


@pytest.mark.parametrize("directed", [False, True])
def test_counts_of_a_small_component_are_not_lost_beside_large_ones(directed):
    """Directed, the new edge 31 -> 32 ends a path: every walk uses it once, so that all of the gain is linear."""
    path, new = ([(30, 31)], (31, 32)) if directed else ([(30, 31), (31, 32)], (30, 32))
    clique = [(u, v) for u in range(30) for v in range(30) if u != v and (directed or u < v)]
    alone, joined = (columns_of(edges, directed) for edges in (path, clique + path))
    options = {"directed": directed, "num_nodes": 33, "candidates": [new]}
    found = rewiring_hints(joined, [30, 31], 400, **options).rows[0]
    wanted = rewiring_hints(alone, [30, 31], 400, **options).rows[0]
    assert found.gain == wanted.gain
    assert found.linear_share == pytest.approx(wanted.linear_share, rel=1e-9, abs=0)
    assert (found.linear_share == pytest.approx(1.0)) is directed


def test_names_of_networkx_and_what_it_shows():
    graph = nx.Graph([("a", "b"), ("b", "c"), ("c", "d")])
    hints = rewiring_hints(graph, ["a", "b"], 3, top=2)
    assert [row.name for row in hints] == ["a - d", "a - c"]
    assert [row.name for row in rewiring_hints(graph, ["a", "b"], 3, candidates=[("d", "a")])] == ["a - d"]
    assert rewiring_hints(nx.DiGraph([(0, 1), (1, 2)]), [0], 2, directed=True).rows[0].name == "1 -> 0"
    text = hints.summary()
    assert "a - d" in text
    assert "depth 3 (walks of length 2)" in text
    assert hints.verdict == "unknown"
    for twin in (copy.deepcopy(hints), pickle.loads(pickle.dumps(hints))):
        assert twin == hints
    assert "a - d" in hints.to_csv()


def test_a_given_candidate_whose_gain_is_all_of_higher_order():
    """Estimates of all four are 0, for vertices 4 and 5 are isolated."""
    graph = columns_of([(6, 0), (6, 3), (6, 1), (3, 2), (0, 3)], False)
    given = [(2, 4), (4, 5), (2, 5), (5, 6)]
    hints = rewiring_hints(graph, [0, 3], 5, target=0, num_nodes=7, top=1, candidates=given)
    assert [(row.name, row.gain, row.linear_share) for row in hints] == [("5 - 6", 7, 0.0)]


def test_nothing_to_gain():
    for side in ([], range(4)):
        hints = rewiring_hints(PATH, side, 3)
        assert len(hints) == 0
        assert "No edge" in hints.summary()
    assert len(rewiring_hints(nx.complete_graph(4), [0], 3)) == 0
    assert len(rewiring_hints(np.zeros((2, 0), np.int64), [], 2)) == 0
    assert len(rewiring_hints(PATH, [0], 2, candidates=[])) == 0
    lonely = rewiring_hints(np.zeros((2, 0), np.int64), [0], 2, num_nodes=2)
    assert [(row.gain, row.log_change) for row in lonely] == [(4, math.inf)]
    assert result_from_json(lonely.to_json()) == lonely


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top": 0}, ValueError, "`top` must be an integer >= 1; got 0"),
        ({"candidates": [(0, 1)]}, ValueError, r"`candidates` must hold new edges; \(0, 1\) is an edge of the graph"),
        ({"candidates": [(2, 1)]}, ValueError, r"\(2, 1\) is an edge of the graph already"),
        ({"candidates": [(2, 2)]}, ValueError, r"\(2, 2\) is a self-loop"),
        ({"candidates": [(0, 9)]}, ValueError, "`candidates` must be a vertex id below 4; got 9"),
        ({"candidates": [0, 3]}, TypeError, "`candidates` must hold pairs of vertices; got 0 at 0"),
        ({"candidates": 3}, TypeError, "`candidates` must be pairs of vertices; got 3"),
        ({"candidates": np.array(3)}, TypeError, "`candidates` must be pairs of vertices"),
        ({"target": 4}, ValueError, "`target` must be a vertex id below 4"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        rewiring_hints(PATH, [0, 1], 3, **options)

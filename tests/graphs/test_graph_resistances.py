"""Effective resistances against networkx, the pseudo-inverse, and what every graph must obey."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_baselines import both_ways, bridges_of, by_pseudo_inverse, planetoid_file
from rankdiag.graphs import as_edge_list, effective_resistances

FIGURE = both_ways([(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)])


@st.composite
def graphs(draw, n_max=9):
    n = draw(st.integers(1, n_max))
    pairs = [(u, v) for u in range(n) for v in range(u + 1, n)]
    kept = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    return n, [pair if draw(st.booleans()) else pair[::-1] for pair in kept]


@given(graphs(), st.randoms(use_true_random=False))
def test_they_equal_the_pseudo_inverse_and_obey_foster_with_weights(case, random):
    n, pairs = case
    weights = np.array([10.0 ** random.uniform(-2, 2) for _ in pairs])
    found = effective_resistances(both_ways(pairs), weights=weights, num_nodes=n, method="dense")
    np.testing.assert_allclose(found, by_pseudo_inverse(pairs, weights, n), rtol=1e-6)
    graph = nx.empty_graph(n)
    graph.add_edges_from(pairs)
    assert weights @ found == pytest.approx(n - nx.number_connected_components(graph), abs=1e-8)
    assert ((weights * found > 0) & (weights * found <= 1 + 1e-12)).all()
    at_one = {e for e in range(len(pairs)) if weights[e] * found[e] > 1 - 1e-9}
    assert at_one == bridges_of(pairs, n)


def test_they_equal_networkx_on_a_weighted_graph():
    graph = nx.karate_club_graph()
    edges = as_edge_list(nx.Graph(graph.edges()))
    weights = np.random.default_rng(0).uniform(0.5, 2, edges.num_edges)
    plain = nx.Graph()
    pairs = [(edges.labels[u], edges.labels[v]) for u, v in edges.edges]
    plain.add_weighted_edges_from((u, v, w) for (u, v), w in zip(pairs, weights, strict=True))
    expected = [nx.resistance_distance(plain, u, v, weight="weight", invert_weight=False) for u, v in pairs[::9]]
    np.testing.assert_allclose(effective_resistances(edges, weights=weights)[::9], expected, rtol=1e-9)


@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_closed_forms(n):
    tree = nx.random_labeled_tree(n, seed=n)
    assert effective_resistances(tree).tolist() == [1.0] * (n - 1)
    np.testing.assert_allclose(effective_resistances(nx.cycle_graph(n)), (n - 1) / n, rtol=1e-12)
    np.testing.assert_allclose(effective_resistances(nx.complete_graph(n)), 2 / n, rtol=1e-12)


def test_foster_on_the_figure_graph():
    assert effective_resistances(FIGURE).sum() == pytest.approx(6, rel=1e-12)


@given(graphs(7), st.data())
def test_adding_an_edge_never_raises_a_resistance(case, data):
    n, pairs = case
    kept = {frozenset(pair) for pair in pairs}
    free = [(u, v) for u in range(n) for v in range(u + 1, n) if {u, v} not in kept]
    if not free:
        return
    more = [*pairs, data.draw(st.sampled_from(free))]
    before = effective_resistances(both_ways(pairs), num_nodes=n)
    after = effective_resistances(both_ways(more), num_nodes=n)[:-1]
    assert (after <= before + 1e-12).all()


def test_they_go_with_the_edge_ids_and_ignore_loops_and_other_components():
    edges = as_edge_list(FIGURE)
    turned = as_edge_list(FIGURE[:, ::-1])
    lookup = {frozenset(e.tolist()): r for e, r in zip(edges.edges, effective_resistances(edges), strict=True)}
    for e, r in zip(turned.edges, effective_resistances(turned), strict=True):
        assert r == pytest.approx(lookup[frozenset(e.tolist())], rel=1e-12)
    more = np.concatenate((np.array([[3, 8], [3, 8]]), FIGURE, both_ways([(8, 9)])), axis=1)
    expected = [*effective_resistances(edges), 1.0]
    np.testing.assert_allclose(effective_resistances(more, num_nodes=12), expected, rtol=1e-12)


def test_nothing_to_measure():
    for method in ("auto", "dense", "jl"):
        assert effective_resistances(np.zeros((2, 0), int), method=method).tolist() == []
        assert effective_resistances([[0, 2], [0, 2]], num_nodes=5, method=method).tolist() == []
        assert effective_resistances([[0, 7], [7, 0]], num_nodes=10**6, method=method).tolist() == [1.0]


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1e300])
def test_units_of_the_weights_only_scale(scale):
    plain = effective_resistances(FIGURE)
    for method in ("dense", "jl"):
        one = effective_resistances(FIGURE, method=method, rng=0)
        scaled = effective_resistances(FIGURE, weights=[scale] * 8, method=method, rng=0)
        np.testing.assert_allclose(scaled * scale, one)
    np.testing.assert_allclose(effective_resistances(FIGURE, weights=[scale] * 8) * scale, plain)


def test_projections_are_close_certain_at_bridges_and_repeat_with_the_seed():
    graph = nx.barbell_graph(12, 2)
    graph.add_edges_from(nx.random_regular_graph(4, 60, seed=0).edges())
    edges = as_edge_list(graph)
    exact = effective_resistances(edges, method="dense")
    found = effective_resistances(edges, method="jl", rng=0)
    relative = found / exact - 1
    assert np.sqrt((relative**2).mean()) < 0.11  # sqrt(2 / 200) = 0.10 without the cut to what is certain
    assert abs(relative).max() < 0.5
    assert abs(relative.mean()) < 0.03
    assert (found <= 1).all()
    assert effective_resistances(edges, method="jl", rng=0).tolist() == found.tolist()
    assert effective_resistances(edges, method="jl", rng=1).tolist() != found.tolist()
    path = nx.path_graph(6)
    assert effective_resistances(path, method="jl", rng=0).tolist() == [1.0] * 5


def test_projections_never_fall_below_what_degrees_allow():
    """In a triangle the least that degrees allow is the resistance itself, 1 / (1 + 1 / 2)."""
    triangles = nx.disjoint_union_all([nx.complete_graph(3)] * 20)
    found = effective_resistances(triangles, method="jl", rng=0)
    assert found.min() == pytest.approx(2 / 3, rel=1e-12)


def test_projections_mean_what_is_exact_over_many_seeds():
    edges = as_edge_list(nx.petersen_graph())
    runs = [effective_resistances(edges, method="jl", rng=seed) for seed in range(60)]
    np.testing.assert_allclose(np.mean(runs, axis=0), effective_resistances(edges), rtol=0.05)


def test_a_long_cycle_needs_the_sparse_factor(monkeypatch):
    from rankdiag.graphs import _resistances

    edges = as_edge_list(nx.cycle_graph(400))
    weights = np.ones(400)
    weights[::7] = 0.01
    iterated = effective_resistances(edges, weights=weights, method="jl", rng=0)
    monkeypatch.setattr(_resistances, "_STEPS", 3)
    factored = effective_resistances(edges, weights=weights, method="jl", rng=0)
    np.testing.assert_allclose(iterated, factored, rtol=1e-3)
    exact = effective_resistances(edges, weights=weights)
    assert abs(factored / exact - 1).max() < 0.5


def test_auto_estimates_large_blocks_only(monkeypatch):
    from rankdiag.graphs import _resistances

    monkeypatch.setattr(_resistances, "_DENSE", 10)
    graph = nx.disjoint_union(nx.circulant_graph(20, [1, 2]), nx.complete_graph(5))
    found = effective_resistances(graph, rng=0)
    exact = effective_resistances(graph, method="dense")
    np.testing.assert_allclose(found[-10:], exact[-10:], rtol=1e-12)
    assert 1e-6 < abs(found[:-10] / exact[:-10] - 1).max() < 0.5


def test_blocks_equal_networkx():
    from rankdiag.graphs._resistances import _blocks

    for seed in range(60):
        graph = nx.gnm_random_graph(3 + seed % 15, seed % 31, seed=seed)
        edges = as_edge_list(graph)
        found = {frozenset(frozenset(edges.edges[e].tolist()) for e in part) for part in _blocks(edges)}
        blocks = [frozenset(map(frozenset, part)) for part in nx.biconnected_component_edges(graph)]
        assert found == {part for part in blocks if len(part) > 1}


def test_refusals():
    with pytest.raises(ValueError, match="`method` must be one of 'auto', 'dense', 'jl'"):
        effective_resistances(FIGURE, method="exact")
    with pytest.raises(ValueError, match="`weights` must be above 0"):
        effective_resistances(FIGURE, weights=[1, 1, 1, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"`weights` must hold one number for each of the 8 edges.*shape \(3,\)"):
        effective_resistances(FIGURE, weights=[1, 1, 1])
    with pytest.raises(ValueError, match="has no reverse"):
        effective_resistances([[0], [1]])
    with pytest.raises(ValueError, match="differ by a factor of"):
        effective_resistances(both_ways([(0, 1), (1, 2), (2, 3), (3, 0)]), weights=[1, 1e-30, 1, 1e-30])


def test_cora_by_foster():
    path = planetoid_file("cora.npz")
    if path is None:
        pytest.skip("the citation graphs are not beside the repository; set RANKDIAG_DATA to their folder")
    edges = as_edge_list(np.load(path)["edge_index"])
    assert effective_resistances(edges).sum() == pytest.approx(2630, rel=1e-9)


@pytest.mark.slow
def test_projections_on_citation_graphs():
    path = planetoid_file("pubmed_graph.npz")
    if path is None:
        pytest.skip("the citation graphs are not beside the repository; set RANKDIAG_DATA to their folder")
    edges = as_edge_list(np.load(path)["edge_index"])
    found = effective_resistances(edges, rng=0)
    assert found.sum() == pytest.approx(edges.num_nodes - 1, rel=0.02)
    edges = as_edge_list(np.load(path.with_name("cora.npz"))["edge_index"])
    relative = effective_resistances(edges, method="jl", rng=0) / effective_resistances(edges) - 1
    assert np.sqrt((relative**2).mean()) < 0.1

"""Orders to compare with: random, spectral and by a mask, against drawing and counting from the definition."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_baselines import both_ways, by_pseudo_inverse, drawing_chances, pruned
from rankdiag.graphs import as_edge_list, random_order, spectral_order, ugs_prune_step

PAIRS = [(0, 1), (1, 2), (2, 0), (2, 3)]
GRAPH = both_ways(PAIRS)


def test_random_order_is_a_permutation_that_the_seed_repeats():
    graph = nx.karate_club_graph()
    order = random_order(graph, rng=3)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(graph.number_of_edges()))
    assert random_order(graph, rng=3).tolist() == order.tolist() != random_order(graph, rng=4).tolist()
    assert random_order(graph, rng=np.random.default_rng(3)).tolist() == order.tolist()


def test_random_order_gives_all_six_orders_of_a_triangle_equally_often():
    rng = np.random.default_rng(0)
    triangle = as_edge_list(both_ways([(0, 1), (1, 2), (2, 0)]))
    found = [tuple(random_order(triangle, rng=rng).tolist()) for _ in range(3000)]
    counts = np.array([found.count(order) for order in set(found)])
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 20.5  # chi-square with 5 degrees of freedom, level 0.001


def test_random_order_of_directed_empty_and_wrong_input():
    assert sorted(random_order([[0, 1], [1, 2]], directed=True, rng=0).tolist()) == [0, 1]
    assert random_order(np.zeros((2, 0), int), rng=0).tolist() == []
    assert random_order([[0], [0]], rng=0).tolist() == []
    weighted = nx.Graph([(0, 1, {"weight": 2.5})])  # weights play no part, and nothing warns of them
    assert random_order(weighted, rng=0).tolist() == [0]
    with pytest.raises(ValueError, match="`directed` is False"):
        random_order([[0], [1]])
    with pytest.raises(TypeError, match="`rng`"):
        random_order(GRAPH, rng="seed")


def race(uniforms, scores):
    keys = [-math.log(u) / p for u, p in zip(uniforms, scores, strict=True)]
    return sorted(range(len(keys)), key=lambda edge: (-keys[edge], edge))


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.floats(1e-3, 1e3)), min_size=4, max_size=4))
def test_spectral_order_sorts_the_race(rows):
    uniforms, weights = zip(*rows, strict=True)
    resistances = by_pseudo_inverse(PAIRS, weights, 4)
    expected = race(uniforms, [w * r for w, r in zip(weights, resistances, strict=True)])
    given_ = spectral_order(GRAPH, weights=weights, resistances=resistances, uniforms=uniforms)
    keys = [-math.log(u) / (w * r) for u, w, r in zip(uniforms, weights, resistances, strict=True)]
    np.testing.assert_allclose([keys[e] for e in given_], [keys[e] for e in expected], rtol=1e-9)


def test_spectral_order_is_drawing_without_replacement_reversed():
    scores = np.array([0.5, 1.0, 2.5, 0.25])
    chances = drawing_chances(scores.tolist())
    assert sum(chances.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    graph = as_edge_list(GRAPH)
    draws = 4000
    counts = dict.fromkeys(chances, 0)
    for _ in range(draws):
        counts[tuple(spectral_order(graph, resistances=scores, rng=rng).tolist())] += 1
    # chi-square with 23 degrees of freedom, level 0.001; the order reversed, or U / p sorted, gives more than 1000
    statistic = sum((counts[order] - draws * p) ** 2 / (draws * p) for order, p in chances.items())
    assert statistic < 49.7


def test_the_race_has_exactly_the_chances_of_drawing_on_three_edges():
    """Integrate the race over a fine grid of quantiles: P(edge a is drawn first, then b) in closed form."""
    scores = [0.5, 1.0, 2.0]
    chances = drawing_chances(scores)
    middle = (np.arange(60) + 0.5) / 60
    a, b, c = np.meshgrid(middle, middle, middle, indexing="ij")
    uniforms = np.stack((a.ravel(), b.ravel(), c.ravel()), axis=1)
    keys = -np.log(uniforms) / np.array(scores)
    orders = np.argsort(-keys, axis=1)
    graph = as_edge_list(both_ways([(0, 1), (1, 2), (2, 0)]))
    for row in range(0, len(uniforms), 4001):
        assert spectral_order(graph, resistances=scores, uniforms=uniforms[row]).tolist() == orders[row].tolist()
    for order, chance in chances.items():
        assert (orders == order).all(axis=1).mean() == pytest.approx(chance, abs=4e-3)


def test_spectral_order_with_extreme_and_tied_keys():
    assert spectral_order(GRAPH, resistances=[1, 1, 1, 1], uniforms=[0.5] * 4).tolist() == [0, 1, 2, 3]
    assert spectral_order(GRAPH, uniforms=[1.0, 0.5, 1.0, 0.5]).tolist() == [1, 3, 0, 2]
    wide = [1e-300, 1e300, 1.0, 1e-300]
    assert spectral_order(GRAPH, weights=wide, resistances=wide, uniforms=[0.9] * 4).tolist() == [0, 3, 2, 1]
    assert spectral_order(np.zeros((2, 0), int), rng=0).tolist() == []


def test_spectral_order_repeats_with_the_seed_and_takes_its_own_resistances():
    graph = nx.karate_club_graph()
    nx.set_edge_attributes(graph, 1, "weight")
    order = spectral_order(graph, rng=5)
    assert spectral_order(graph, rng=5).tolist() == order.tolist() != spectral_order(graph, rng=6).tolist()
    edges = as_edge_list(graph)
    r = by_pseudo_inverse(edges.edges.tolist(), np.ones(edges.num_edges), edges.num_nodes)
    assert spectral_order(edges, resistances=r, rng=5).tolist() == order.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uniforms": [0.0, 0.5, 0.5, 0.5]}, r"`uniforms` must lie in \(0, 1\]; got 0.0"),
        ({"uniforms": [0.5, 0.5, 1.5, 0.5]}, r"`uniforms` must lie in \(0, 1\]; got 1.5"),
        ({"uniforms": [0.5]}, r"`uniforms` must hold one number for each of the 4 edges"),
        ({"weights": [1, 1, -1, 1]}, r"`weights` must be above 0 .*got -1.0 at edge 2"),
        ({"weights": [1, 1, np.nan, 1]}, "`weights` has 1 non-finite"),
        ({"resistances": [1, 0, 1, 1]}, "`resistances` must be above 0"),
    ],
)
def test_spectral_order_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        spectral_order(GRAPH, **options)


values = st.sampled_from([0.0, 0.1, -0.1, 0.2, 0.5, -0.5, 1.0, 3.0])


@given(st.lists(values, max_size=12), st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 1.0]))
def test_pruning_follows_the_sorted_absolute_values(mask, fraction):
    found = ugs_prune_step(mask, fraction, len(mask))
    assert found.tolist() == pruned(mask, fraction, len(mask))
    assert found.dtype == np.int64


def test_pruning_removes_one_edge_more_than_the_fraction_and_all_ties():
    mask = np.linspace(1.0, 2.0, 100)
    assert ugs_prune_step(mask, 0.05, 100).tolist() == list(range(6))
    assert ugs_prune_step(np.ones(100), 0.05, 100).tolist() == list(range(100))
    mask[:50] = 0
    assert ugs_prune_step(mask, 0.05, 100).tolist() == list(range(50, 56))


def test_twenty_steps_of_pruning_empty_the_graph_without_repeating_an_edge():
    mask = np.random.default_rng(0).normal(size=200)
    seen: list[int] = []
    for _ in range(20):
        gone = ugs_prune_step(mask, 0.05, 200)
        mask[gone] = 0
        seen += gone.tolist()
    assert sorted(seen) == list(range(200))
    assert ugs_prune_step(mask, 0.05, 200).tolist() == []


def test_pruning_refuses():
    with pytest.raises(ValueError, match="`mask` must hold one entry for each of the 3 original edges"):
        ugs_prune_step([1.0, 2.0], 0.1, 3)
    with pytest.raises(ValueError, match="`fraction`"):
        ugs_prune_step([1.0], 1.5, 1)
    with pytest.raises(ValueError, match="non-finite"):
        ugs_prune_step([np.inf], 0.5, 1)
    with pytest.raises(TypeError, match="`num_original_edges`"):
        ugs_prune_step([1.0], 0.5, 1.0)

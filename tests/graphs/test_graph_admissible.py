"""Admissible sets by the search of parts and by growth, and logarithms of numbers of multisets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.graphs_bounds import Case, admissible_weights, boundary, draw, multiplicities, undirected
from rankdiag.graphs import _admissible
from rankdiag.graphs._admissible import Admissible, heaviest_admissible
from rankdiag.graphs._multisets import log_multisets, times_log


def search(case: Case) -> Admissible:
    columns, _ = case.columns()
    side, edge = np.zeros(case.n, bool), np.zeros(case.n, bool)
    side[case.subset] = True
    edge[boundary(case)] = True
    weights = np.array(multiplicities(case)[1], dtype=object)
    return heaviest_admissible(columns[0], columns[1], side, edge, weights)


def test_growth_finds_admissible_sets_and_loses_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_admissible, "EXACT_LIMIT", 0)
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(60):
        case = draw(rng, most=6)
        every, found = admissible_weights(case), search(case)
        best = max(every.values(), default=0)
        assert found.exact == (not boundary(case))
        assert found.weight <= best
        if found.weight:
            assert every[frozenset(found.vertices.tolist())] == found.weight
        assert bool(found.weight) == bool(best)  # a single crossing edge is always admissible
        if best:
            shares.append(found.weight / best)
    assert np.mean(shares) > 0.9


def test_growth_sees_two_senders_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vertex 6 hears from 3 and 4, which are taken first; so 2, which it hears too, may no longer join."""
    monkeypatch.setattr(_admissible, "EXACT_LIMIT", 0)
    case = Case(undirected(7, [(0, 3), (1, 4), (2, 5), (6, 3), (6, 4), (6, 2)]), [0, 1, 2], 1, 2, 2)
    found = search(case)
    assert found.vertices.tolist() == [0, 1, 3, 4]
    assert admissible_weights(case)[frozenset(found.vertices.tolist())] == found.weight == 4


def test_growth_on_a_graph_too_large_to_try_all() -> None:
    """The condition itself, on the set that comes out of 40 vertices; many parts are searched one by one."""
    import networkx as nx

    from rankdiag.graphs import separation_rank_bounds

    graph = nx.gnm_random_graph(40, 90, seed=3)
    found = separation_rank_bounds(graph, range(20), 3, 4, 4)
    assert not found.exact
    assert len(found.admissible_set) > 4
    matching = nx.disjoint_union_all([nx.path_graph(2)] * 30)  # 30 parts of two vertices
    parts = separation_rank_bounds(matching, range(0, 60, 2), 2, 3, 3)
    assert parts.exact
    assert parts.admissible_set.tolist() == list(range(60))
    assert parts.admissible_walks == 120


@pytest.mark.parametrize("leaves", [4, 20])
@pytest.mark.parametrize("centre_inside", [True, False])
def test_a_star_has_one_edge_at_a_time(leaves: int, centre_inside: bool) -> None:
    """The centre may hear from one leaf alone; with 20 leaves the search grows sets."""
    import networkx as nx

    from rankdiag.graphs import separation_rank_bounds

    graph = nx.star_graph(leaves)
    found = separation_rank_bounds(graph, [0] if centre_inside else range(1, leaves + 1), 2, 3, 3)
    assert found.exact == (leaves == 4)
    assert found.admissible_set.tolist() == [0, 1]
    assert found.admissible_walks == leaves + 1 + 2
    assert found.lower_multiset == math.comb(leaves + 5, 2)


def test_many_parts_are_left_to_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    import networkx as nx

    from rankdiag.graphs import separation_rank_bounds

    matching = nx.disjoint_union_all([nx.path_graph(2)] * 5)
    monkeypatch.setattr(_admissible, "_MOST_PARTS", 4)
    found = separation_rank_bounds(matching, range(0, 10, 2), 2, 3, 3)
    assert not found.exact
    assert found.admissible_walks == 20


@pytest.mark.parametrize("width", [1, 2, 3, 31, 33, 34, 65, 1000, 2**20])
def test_logs_of_multisets_are_exact(width: int) -> None:
    sizes = [0, 1, 2, 5, 31, 32, 33, 64, 1000]
    found = log_multisets(width, np.array(sizes))
    expected = [math.log(math.comb(width + m - 1, m)) for m in sizes]
    np.testing.assert_allclose(found, expected, rtol=2e-14, atol=0)
    many = [10**9, 10**15, 2**70, 10**300, 10**308, 10**500]
    if width < 100:
        exact = [math.log(math.comb(width + m - 1, width - 1)) for m in many]
        np.testing.assert_allclose(log_multisets(width, many), exact, rtol=2e-14, atol=0)


@given(st.integers(1, 3000), st.integers(0, 3000))
@settings(max_examples=60)
def test_logs_of_multisets_of_any_pair(width: int, m: int) -> None:
    exact = math.log(math.comb(width + m - 1, m))
    assert float(log_multisets(width, [m])[0]) == pytest.approx(exact, rel=2e-14)
    assert float(log_multisets(np.array([width]), np.array([m]))[0]) == pytest.approx(exact, rel=2e-14)


def test_products_with_logs() -> None:
    assert times_log(10**400, 1) == 0.0
    assert times_log(0, 5) == 0.0
    assert math.isinf(times_log(10**400, 2))
    assert times_log(3, 2) == pytest.approx(math.log(8))

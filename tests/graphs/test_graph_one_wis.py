"""The order at depth 2 against its definition, on small graphs whole and on large ones through a plain heap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_one_wis import order_by_definition, order_by_heap, order_by_keys, simple_edges
from oracles.graphs_walks import planetoid
from rankdiag.graphs import _one_wis, as_edge_list, wis_order
from rankdiag.graphs._deep_wis import greedy_order
from rankdiag.graphs._one_wis import level_order

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]


CORE = _one_wis._CORE


@pytest.fixture(autouse=True, scope="module")
def levels_only():
    """Small graphs, which a plain heap would take whole, go through the levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_one_wis, "_CORE", 0)
        yield


def both_ways(edges):
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return np.concatenate((pairs, pairs[::-1]), axis=1)


def ids(edges, n, last=False, count=None):
    """Ids of simple edges in the order of their removal, without the checks of `wis_order`."""
    array = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return level_order(array, n, len(array) if count is None else count, last).tolist()


@st.composite
def graphs(draw, most=9, most_columns=30):
    """Columns with loops and repeats, each with its reverse somewhere, and a number of vertices."""
    n = draw(st.integers(1, most))
    vertex = st.integers(0, n - 1)
    some = draw(st.lists(st.tuples(vertex, vertex), max_size=most_columns))
    columns = draw(st.permutations(some + [(v, u) for u, v in some]))
    return n + draw(st.integers(0, 2)), np.array(columns, dtype=np.int64).reshape(-1, 2).T


def random_graph(seed, n, m, power=0.0):
    """Simple edges in random order; a power makes hubs."""
    rng = np.random.default_rng(seed)
    weight = np.arange(1.0, n + 1) ** -power
    ends = rng.choice(n, (2, m), p=weight / weight.sum())
    return simple_edges(rng.permutation(n)[ends])


# --- the definition --------------------------------------------------------------------------------------------------


@given(graphs(most=6, most_columns=8), st.booleans())
def test_every_choice_is_best_by_the_definition(graph, last):
    n, columns = graph
    edges = simple_edges(columns)
    order = wis_order(columns, num_nodes=n, tie_break="last" if last else "first")
    assert order.edge_ids.tolist() == order_by_definition(n, edges, last)
    assert order.edges.tolist() == [list(edges[e]) for e in order.edge_ids]


@given(graphs(), st.booleans(), st.integers(0, 40), st.sampled_from([0, 3, 7, CORE]))
def test_it_takes_the_largest_pair_of_degrees(graph, last, count, core):
    n, columns = graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_one_wis, "_CORE", core)
        check_pairs_of_degrees(n, columns, last, count)


def check_pairs_of_degrees(n, columns, last, count):
    edges = simple_edges(columns)
    whole, keys = order_by_keys(n, edges, last)
    rule = "last" if last else "first"
    order = wis_order(columns, num_nodes=n, tie_break=rule)
    assert order.edge_ids.tolist() == whole
    assert keys == sorted(keys, reverse=True)
    part = wis_order(columns, num_nodes=n, tie_break=rule, num_edges=count)
    assert part.edge_ids.tolist() == whole[:count]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("n", "m", "power"), [(40, 200, 0.0), (30, 300, 1.0), (60, 250, 0.7), (300, 900, 1.2), (8, 99, 0)]
)
def test_random_graphs_with_hubs_and_without(n, m, power, last):
    for seed in range(3):
        edges = random_graph(seed, n, m, power)
        whole = order_by_heap(n, edges, last)
        assert ids(edges, n, last) == whole
        assert ids(edges, n, last, len(edges) // 3) == whole[: len(edges) // 3]


@pytest.mark.parametrize("last", [False, True])
def test_every_way_through_a_level_agrees(monkeypatch, last):
    """Few edges go through a heap, many through rounds, and both have a limit; each alone must do."""
    edges = random_graph(5, 90, 600, 0.8)
    whole = order_by_keys(90, edges, last)[0]
    names = ("_ROUNDS", "_FEW", "_MANY", "_CHUNK", "_PART", "_SHORT")
    for limits in (
        (32, 0, 0, 4096, 2**16, 0),
        (0, 0, 10**9, 4096, 50, 10**9),
        (2, 0, 3, 2, 7, 0),
        (32, 10**9, 20, 1, 1, 10**9),
        (32, 40, 10**9, 7, 10**6, 0),
    ):
        for name, value in zip(names, limits, strict=True):
            monkeypatch.setattr(_one_wis, name, value)
        assert ids(edges, 90, last) == whole


@pytest.mark.parametrize("last", [False, True])
def test_the_uppermost_levels_may_go_through_a_heap_down_to_any(monkeypatch, last):
    edges = random_graph(6, 60, 260, 0.9)
    whole = order_by_keys(60, edges, last)[0]
    for core in (0, 1, 3, 10, 30, 60, 100, 150, 200, 240, 10**6):
        monkeypatch.setattr(_one_wis, "_CORE", core)
        for count in (1, len(edges) // 5, len(edges)):
            assert ids(edges, 60, last, count) == whole[:count]


# --- graphs that are hard for one way or another ---------------------------------------------------------------------


def test_a_star_goes_in_the_order_of_ids_without_quadratic_work():
    leaves = 3000
    edges = [(0, leaf) for leaf in np.random.default_rng(0).permutation(np.arange(1, leaves + 1)).tolist()]
    assert ids(edges, leaves + 1) == list(range(leaves))
    assert ids(edges, leaves + 1, last=True) == list(range(leaves))[::-1]


def test_two_hubs_that_share_their_leaves():
    leaves = 400
    edges = [(hub, leaf) for leaf in range(2, leaves + 2) for hub in (0, 1)]
    edges = [edges[i] for i in np.random.default_rng(1).permutation(len(edges))]
    assert ids(edges, leaves + 2) == order_by_heap(leaves + 2, edges)


def chain_of_hubs(length):
    """Vertices of degree 2, each between two hubs, with ids such that what a hub does follows from its neighbour."""
    middle, leaf = length + 1, 2 * length + 1
    edges = [pair for i in range(length) for pair in ((middle + i, i), (middle + i, i + 1))]
    owners = [0, *(hub for hub in range(length + 1) for _ in range(3))]
    return edges + [(hub, leaf + k) for k, hub in enumerate(owners)], leaf + len(owners)


def test_a_long_chain_of_consequences_is_followed_to_its_end(monkeypatch):
    edges, n = chain_of_hubs(120)
    seen = []
    whole = _one_wis._one_by_one
    monkeypatch.setattr(_one_wis, "_one_by_one", lambda *level: seen.append(len(level[1])) or whole(*level))
    assert ids(edges, n) == order_by_heap(n, edges)
    assert max(seen) == 240  # so many edges go to the heap only where the rounds were not enough


def test_a_path_whose_ids_follow_it():
    edges = [(i, i + 1) for i in range(3000)]
    assert ids(edges, 3001) == order_by_heap(3001, edges)
    assert ids(edges, 3001, last=True) == order_by_heap(3001, edges, True)


@pytest.mark.parametrize("last", [False, True])
def test_grids_and_rings_of_equal_degrees(last):
    side = 25
    grid = [(side * i + j, side * i + j + 1) for i in range(side) for j in range(side - 1)]
    grid += [(side * i + j, side * i + j + side) for i in range(side - 1) for j in range(side)]
    assert ids(grid, side * side, last) == order_by_heap(side * side, grid, last)
    ring = [(i, (i + step) % 400) for step in (1, 2, 3) for i in range(400)]
    assert ids(ring, 400, last) == order_by_heap(400, ring, last)


def test_vertices_far_beyond_the_edges():
    assert ids([(5, 10**6), (10**6, 7)], 2 * 10**6) == [0, 1]


def test_edges_that_cannot_be_numbered_are_refused_before_any_work():
    with pytest.raises(ValueError, match="`graph` must have fewer than 2\\^31 edges; got 2147483648"):
        level_order(np.broadcast_to(np.array([[0, 1]]), (2**31, 2)), 2, 1, False)


# --- worked orders ---------------------------------------------------------------------------------------------------


def test_figure_graph():
    order = wis_order(both_ways(FIGURE))
    assert [tuple(edge) for edge in order.edges.tolist()] == [
        (2, 5), (0, 1), (2, 4), (3, 5), (4, 6), (0, 2), (1, 3), (5, 6),
    ]  # fmt: skip


def test_complete_graph_of_five():
    edges = [(u, v) for u in range(5) for v in range(u + 1, 5)]
    order = wis_order(both_ways(edges))
    assert " ".join(f"{u}{v}" for u, v in order.edges.tolist()) == "01 23 04 12 34 02 13 14 03 24"


def test_matchings_go_by_id_and_regular_graphs_begin_with_edge_0():
    matching = [(2 * i, 2 * i + 1) for i in range(50)]
    assert ids(matching, 100) == list(range(50))
    cycle = [(i, (i + 1) % 30) for i in range(30)]
    assert ids(cycle, 30)[0] == 0
    assert ids(cycle, 30, last=True)[0] == 29


def test_the_middle_of_a_path_changes_what_follows():
    edges = [(i, i + 1) for i in range(5)]
    assert ids(edges, 6) == [1, 3, 0, 2, 4] == order_by_definition(6, edges)
    assert ids(edges, 6, last=True) == [3, 1, 4, 2, 0] == order_by_definition(6, edges, last=True)


# --- what no order may change ----------------------------------------------------------------------------------------


@given(graphs(), st.randoms(use_true_random=False))
def test_names_of_vertices_and_isolated_ones_and_loops_do_not_matter(graph, random):
    n, columns = graph
    plain = wis_order(columns, num_nodes=n).edge_ids.tolist()
    names = list(range(n))
    random.shuffle(names)
    renamed = np.array(names, dtype=np.int64)[columns]
    assert wis_order(renamed, num_nodes=n).edge_ids.tolist() == plain
    assert wis_order(columns, num_nodes=n + 5).edge_ids.tolist() == plain
    looped = np.concatenate((columns, [[0, n - 1], [0, n - 1]]), axis=1)
    assert wis_order(looped, num_nodes=n).edge_ids.tolist() == plain


@given(graphs(), graphs(), st.randoms(use_true_random=False))
def test_a_part_of_a_disjoint_union_keeps_its_order(one, two, random):
    (n, first), (k, second) = one, two
    owner = [0] * first.shape[1] + [1] * second.shape[1]
    random.shuffle(owner)
    parts = [iter(first.T.tolist()), iter((second + n).T.tolist())]
    mixed = np.array([next(parts[which]) for which in owner], dtype=np.int64).reshape(-1, 2).T
    order = wis_order(mixed, num_nodes=n + k).edges
    for columns, inside, shift in ((first, order[:, 0] < n, 0), (second, order[:, 0] >= n, n)):
        alone = wis_order(columns, num_nodes=max(n, k)).edges
        np.testing.assert_array_equal(order[inside] - shift, alone)


@given(graphs(most=7, most_columns=14), st.booleans())
def test_the_form_for_any_depth_agrees(graph, last):
    n, columns = graph
    listed = as_edge_list(columns, num_nodes=n)
    general = greedy_order(listed, 2, listed.num_edges, last=last)
    assert level_order(listed.edges, n, listed.num_edges, last).tolist() == general.tolist()


# --- large graphs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cora", "citeseer", "pubmed_graph"])
def test_whole_orders_of_citation_graphs(name, monkeypatch):
    monkeypatch.setattr(_one_wis, "_CORE", CORE)
    path = planetoid(f"{name}.npz")
    if path is None:
        pytest.skip(f"planetoid/{name}.npz is not beside the repository; RANKDIAG_DATA may name its folder")
    with np.load(path) as data:
        columns = data["edge_index"]
        n = int(data["num_nodes"]) if "num_nodes" in data else len(data["y"])
    edges = simple_edges(columns)
    for last in (False, True):
        order = wis_order(columns, num_nodes=n, tie_break="last" if last else "first")
        assert order.edge_ids.tolist() == order_by_heap(n, edges, last)


@pytest.mark.slow
def test_hundreds_of_random_graphs(monkeypatch):
    rng = np.random.default_rng(0)
    for seed in range(400):
        monkeypatch.setattr(_one_wis, "_CORE", int(rng.choice([0, 5, 40, CORE])))
        n, m = int(rng.integers(2, 120)), int(rng.integers(1, 700))
        edges = random_graph(seed, n, m, rng.choice([0.0, 0.5, 1.0, 2.0]))
        last, count = bool(rng.integers(2)), int(rng.integers(0, len(edges) + 1)) if rng.integers(2) else None
        assert ids(edges, n, last, count) == order_by_heap(n, edges, last, count), seed

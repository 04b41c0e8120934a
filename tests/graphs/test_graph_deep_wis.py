"""Greedy removal at any depth: worked orders, what no order may change, and the definition written out."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.graphs._wis_engines as engines
from oracles.graphs_deep_wis import columns_to_edges, dense_order, naive_order, random_columns
from rankdiag.graphs import wis_order
from rankdiag.graphs._deep_wis import exact_weights, greedy_order
from rankdiag.graphs._edges import EdgeList, as_edge_list
from rankdiag.graphs._lazy_order import signed_key

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
seeds = st.integers(0, 10**6)


def both_ways(edges: list[tuple[int, int]], num_nodes: int | None = None) -> EdgeList:
    return as_edge_list(np.array(edges + [(v, u) for u, v in edges]).reshape(-1, 2).T, num_nodes=num_nodes)


def full(graph: EdgeList, depth: int, **options: Any) -> list[int]:
    return greedy_order(graph, depth, graph.num_edges, **options).tolist()


def compare(seed: int, most_nodes: int, most_columns: int, depth: int) -> None:
    """One random graph with loops, repeats and ties against the definition."""
    draw = random.Random(seed)
    n, directed, last = draw.randint(2, most_nodes), draw.random() < 0.4, draw.random() < 0.5
    columns = random_columns(draw, n, draw.randint(1, most_columns), directed)
    graph = as_edge_list(np.array(columns), directed=directed, num_nodes=n)
    edges = columns_to_edges(columns, directed)
    batch = draw.choice([1, 1, 2, 3, 100])
    found = full(graph, depth, last=last, batch_size=batch)
    assert found == naive_order(n, edges, depth, directed=directed, last=last, batch_size=batch)


# --- worked orders ---------------------------------------------------------------------------------------------------


def test_figure_at_depth_3_with_the_last_of_ties() -> None:
    order = full(both_ways(FIGURE), 3, last=True)
    assert [FIGURE[e] for e in order] == [(2, 5), (5, 6), (2, 4), (1, 3), (0, 2), (4, 6), (3, 5), (0, 1)]


def test_figure_at_depth_2() -> None:
    order = full(both_ways(FIGURE), 2)
    assert [FIGURE[e] for e in order] == [(2, 5), (0, 1), (2, 4), (3, 5), (4, 6), (0, 2), (1, 3), (5, 6)]


def test_complete_graph_at_depth_2() -> None:
    edges = [(u, v) for u in range(5) for v in range(u + 1, 5)]
    order = full(both_ways(edges), 2)
    assert "".join(f"{edges[e][0]}{edges[e][1]}," for e in order) == "01,23,04,12,34,02,13,14,03,24,"


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_stars_and_matchings_go_by_id(depth: int) -> None:
    star = both_ways([(0, leaf) for leaf in range(1, 9)])
    matching = both_ways([(2 * k, 2 * k + 1) for k in range(8)])
    for graph in (star, matching):
        assert full(graph, depth) == list(range(8))
        assert full(graph, depth, last=True) == list(range(8))[::-1]


@pytest.mark.parametrize("depth", [7, 8, 9, 45, 64])
def test_a_longer_path_holds_more_closed_walks_than_its_last_edge(depth: int) -> None:
    """The lone edge and what is left of the path tie; a bound that takes the path's walks for the edge's is too bad."""
    assert full(both_ways([(0, 1), (2, 3), (1, 4)]), depth) == [0, 1, 2]


@pytest.mark.parametrize("depth", [8, 9, 10, 12])
def test_equals_the_definition_at_depths_with_far_bounds(depth: int) -> None:
    for seed in (188, 204, 240, 302, 331):
        compare(seed, 8, 14, depth)


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_nothing_to_remove(depth: int) -> None:
    empty = as_edge_list(np.array([[0, 1], [0, 1]]), num_nodes=3)
    assert greedy_order(empty, depth, 5).dtype == np.int64
    assert full(empty, depth) == []
    graph = both_ways(FIGURE)
    assert greedy_order(graph, depth, 0).tolist() == []
    assert greedy_order(graph, depth, 4, keep_edges=np.ones(8, bool)).tolist() == []
    assert sorted(greedy_order(graph, depth, 99).tolist()) == list(range(8))


# --- the definition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_equals_the_definition(depth: int) -> None:
    for seed in range(24):
        compare(seed, 7, 11, depth)


def test_edges_of_a_triangle_may_get_better_at_depth_3() -> None:
    """Graphs in which the removal of one edge of a triangle brings forward another; few random graphs are such."""
    first = "27 74 73 67 05 46 32 13 70 51 40 41 02"
    second = "81 02 14 45 24 64 63 10 03 83 08 17 05 04"
    third = "06 32 01 25 63 74 67 57 03 07 50 41 27 12 73 64 26"
    for text, last in ((first, False), (second, True), (third, False)):
        edges = [(int(u), int(v)) for u, v in text.split()]
        n = 1 + max(map(max, edges))
        assert full(both_ways(edges), 3, last=last) == naive_order(n, edges, 3, last=last)


def test_walks_to_a_target_change_far_from_the_removed_edge() -> None:
    for text, target in (
        ("87 17 51 58 76 23 60", 1),
        ("49 80 82 63 95 68 56 64", 4),
        ("34 49 12 31 40 65 92 20 58 95", 3),
    ):
        edges = [(int(u), int(v)) for u, v in text.split()]
        graph = both_ways(edges, num_nodes=10)
        assert full(graph, 6, target=target) == naive_order(10, edges, 6, target=target)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_equals_the_definition_on_500_graphs(depth: int) -> None:
    for seed in range(1000, 1100):
        compare(seed, 8, 17, depth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth"), [("karate", 3), ("karate", 4), ("karate", 5), ("davis", 5), ("miserables", 3)]
)
@pytest.mark.parametrize("last", [False, True])
def test_equals_the_definition_on_social_graphs(name: str, depth: int, last: bool) -> None:
    import networkx as nx

    make = {
        "karate": nx.karate_club_graph,
        "davis": nx.davis_southern_women_graph,
        "miserables": nx.les_miserables_graph,
    }[name]
    bare = nx.Graph(make().edges())
    if name == "miserables":
        bare = nx.Graph(bare.subgraph(sorted(bare, key=lambda v: -bare.degree[v])[:24]))
    graph = as_edge_list(bare)
    edges = [(u, v) for u, v in graph.edges.tolist()]
    assert full(graph, depth, last=last) == dense_order(graph.num_nodes, edges, depth, last=last)


@given(seeds, st.integers(1, 5), st.sampled_from(["vertices", "weights", "keep", "target", "all"]))
def test_variants_equal_the_definition(seed: int, depth: int, which: str) -> None:
    draw = random.Random(seed)
    n, directed, last = draw.randint(2, 6), draw.random() < 0.4, draw.random() < 0.5
    columns = random_columns(draw, n, draw.randint(1, 9), directed)
    graph = as_edge_list(np.array(columns), directed=directed, num_nodes=n)
    edges = columns_to_edges(columns, directed)
    batch = draw.choice([1, 1, 3])
    mask = [draw.random() < 0.6 for _ in range(n)]
    factors = [draw.choice([0.1, 0.5, 1.0, 3.0, 1e300, 5e-324]) for _ in range(n)]
    keep = np.array([draw.random() < 0.3 for _ in edges], bool)
    target = draw.randrange(n)
    options: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    if which in ("vertices", "all"):
        options["vertices"], plain["vertices"] = np.array(mask), mask
    if which in ("weights", "all"):
        options["vertex_weights"], plain["weights"] = np.array(factors), factors
    if which in ("keep", "all"):
        options["keep_edges"], plain["keep"] = keep, np.flatnonzero(keep).tolist()
    if which in ("target", "all"):
        options["target"], plain["target"] = target, target
    found = full(graph, depth, last=last, batch_size=batch, **options)
    assert found == naive_order(n, edges, depth, directed=directed, last=last, batch_size=batch, **plain)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_public_options_reach_the_order(depth: int) -> None:
    columns = np.array(FIGURE + [(v, u) for u, v in FIGURE]).T
    found = wis_order(
        columns, depth, vertices=[0, 6], keep_edges=[(2, 5)], vertex_weights=np.arange(1.0, 8.0), target=5
    )
    plain = naive_order(
        7, FIGURE, depth, vertices=[v in (0, 6) for v in range(7)], keep=[4], weights=range(1, 8), target=5
    )
    assert found.edge_ids.tolist() == plain
    by_ids = greedy_order(both_ways(FIGURE), depth, 8, keep_edges=[4, 0])
    assert by_ids.tolist() == naive_order(7, FIGURE, depth, keep=[0, 4])


@given(seeds, st.sampled_from([2, 3]), st.booleans(), st.sampled_from([1, 1, 2, 4]), st.integers(0, 2))
def test_hubs_with_many_leaves_equal_the_definition(seed: int, depth: int, last: bool, batch: int, more: int) -> None:
    """Edges of a hub stand for each other: trees of few hubs with leaves that are joined now and then."""
    draw = random.Random(seed)
    hubs = draw.randint(1, 3)
    edges = [(draw.randrange(min(v, hubs)), v) for v in range(1, 11)]
    for _ in range(more):
        u, v = draw.sample(range(11), 2)
        if (u, v) not in edges and (v, u) not in edges:
            edges.append((u, v))
    draw.shuffle(edges)
    found = full(both_ways(edges), depth, last=last, batch_size=batch)
    assert found == naive_order(11, edges, depth, last=last, batch_size=batch)


def hub_graph(draw: random.Random, n: int, hubs: int, more: int) -> list[tuple[int, int]]:
    """Hubs with leaves and a few other edges, in any order; the hubs are not joined unless by those."""
    edges = [(draw.randrange(min(v, hubs)), v) for v in range(1, n)]
    for _ in range(more):
        u, v = draw.sample(range(n), 2)
        if (u, v) not in edges and (v, u) not in edges:
            edges.append((u, v))
    draw.shuffle(edges)
    return [(u, v) if draw.random() < 0.5 else (v, u) for u, v in edges]


@pytest.mark.parametrize("depth", [4, 5])
def test_leaves_of_a_hub_are_alike_at_depths_4_and_5(depth: int) -> None:
    """The edges to leaves stand as one, with leaves that arise on the way, kept edges, batches."""
    for seed in range(16):
        draw = random.Random(seed)
        edges = hub_graph(draw, 9, draw.randint(1, 2), draw.randint(0, 4))
        last, batch = draw.random() < 0.5, draw.choice([1, 1, 2, 5])
        keep = draw.sample(range(len(edges)), draw.choice([0, 0, 2]))
        found = full(both_ways(edges), depth, last=last, batch_size=batch, keep_edges=keep)
        assert found == naive_order(9, edges, depth, last=last, batch_size=batch, keep=keep)


@pytest.mark.parametrize("depth", [4, 5])
def test_leaves_of_different_factors_are_not_alike(depth: int) -> None:
    for seed in range(8):
        draw = random.Random(seed)
        edges = hub_graph(draw, 8, 2, draw.randint(0, 2))
        factors = [draw.choice([1, 1, 2]) for _ in range(8)]
        mask = [draw.random() < 0.7 for _ in range(8)]
        graph = both_ways(edges)
        weighted = full(graph, depth, vertex_weights=factors, vertices=np.array(mask))
        assert weighted == naive_order(8, edges, depth, weights=factors, vertices=mask)


@pytest.mark.parametrize("seed", [60, 72, 132, 378])
def test_edges_that_stand_for_others_are_looked_at_again(seed: int) -> None:
    """Graphs of which only some vertices count, where the edges to leaves get better; few random graphs are such."""
    draw = random.Random(seed)
    n = draw.randint(8, 14)
    edges = hub_graph(draw, n, draw.randint(1, 4), draw.randint(0, 6))
    mask = [draw.random() < 0.5 for _ in range(n)]
    for depth in (4, 5):
        found = full(both_ways(edges), depth, vertices=np.array(mask))
        assert found == naive_order(n, edges, depth, vertices=mask)


def test_the_leaves_of_a_hub_are_looked_at_once_in_a_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A star of 60 leaves: two losses in each removal, where every leaf has a new key after each."""
    calls = 0
    plain = engines.BallEngine.after

    def counted(engine: Any, edge: int) -> Any:
        nonlocal calls
        calls += 1
        return plain(engine, edge)

    monkeypatch.setattr(engines.BallEngine, "after", counted)
    for depth in (4, 5):
        calls = 0
        assert full(both_ways([(leaf, 0) for leaf in range(1, 61)]), depth) == list(range(60))
        assert calls <= 2 * 60


@pytest.mark.slow
@pytest.mark.parametrize("depth", [4, 5, 6])
@pytest.mark.parametrize("last", [False, True])
def test_larger_hubs_equal_the_definition(depth: int, last: bool) -> None:
    for seed in range(12):
        draw = random.Random(seed)
        n = draw.randint(20, 30)
        edges = hub_graph(draw, n, draw.randint(1, 3), draw.randint(0, 10))
        assert full(both_ways(edges), depth, last=last) == dense_order(n, edges, depth, last=last)


# --- what must hold at any size --------------------------------------------------------------------------------------


def random_graph(seed: int, n: int = 30, columns: int = 60) -> tuple[EdgeList, np.ndarray]:
    found = np.array(random_columns(random.Random(seed), n, columns, False))
    return as_edge_list(found, num_nodes=n), found


@given(seeds, st.integers(1, 5), st.booleans(), st.integers(1, 7))
def test_prefixes_nest_and_every_edge_goes_once(seed: int, depth: int, last: bool, batch: int) -> None:
    graph, _ = random_graph(seed, 15, 30)
    order = full(graph, depth, last=last, batch_size=batch)
    assert sorted(order) == list(range(graph.num_edges))
    some = graph.num_edges // 2
    assert greedy_order(graph, depth, some, last=last, batch_size=batch).tolist() == order[:some]


@given(seeds, st.integers(1, 5), st.booleans())
def test_names_of_vertices_loops_and_isolated_vertices_change_nothing(seed: int, depth: int, last: bool) -> None:
    graph, columns = random_graph(seed, 15, 30)
    order = full(graph, depth, last=last)
    names = np.random.default_rng(seed).permutation(22)
    loops = np.repeat(np.arange(22)[None], 2, axis=0)
    other = as_edge_list(np.concatenate((loops, names[columns], loops), axis=1), num_nodes=22)
    assert full(other, depth, last=last) == order


@given(seeds, st.integers(1, 5))
def test_components_keep_their_own_orders(seed: int, depth: int) -> None:
    one, first = random_graph(seed, 9, 14)
    two, second = random_graph(seed + 1, 9, 14)
    mixed = np.concatenate((first, second + 9), axis=1)
    both = as_edge_list(mixed, num_nodes=18)
    order = full(both, depth)
    assert [e for e in order if e < one.num_edges] == full(one, depth)
    assert [e - one.num_edges for e in order if e >= one.num_edges] == full(two, depth)


@given(seeds, st.booleans())
def test_depth_2_equals_the_rule_of_degrees(seed: int, last: bool) -> None:
    graph, columns = random_graph(seed)
    by_degrees = wis_order(columns, 2, tie_break="last" if last else "first", num_nodes=30)
    assert full(graph, 2, last=last) == by_degrees.edge_ids.tolist()


@given(seeds, st.booleans())
def test_without_triangles_depths_2_and_3_agree(seed: int, last: bool) -> None:
    draw = random.Random(seed)
    edges = [(draw.randrange(10), 10 + draw.randrange(10)) for _ in range(40)]
    graph = both_ways(edges)
    assert full(graph, 3, last=last) == full(graph, 2, last=last)


@given(seeds, st.integers(1, 5), st.integers(1, 3))
def test_a_symmetric_engine_and_the_general_one_agree(seed: int, depth: int, batch: int) -> None:
    """Depths up to 3 have a form of their own; a weight of 1 and a subset of all vertices change nothing."""
    graph, _ = random_graph(seed, 12, 24)
    plain = full(graph, depth, batch_size=batch)
    assert full(graph, depth, batch_size=batch, vertex_weights=[Fraction(1, 3)] * 12) == plain
    assert full(graph, depth, batch_size=batch, vertices=np.ones(12, bool)) == plain


def test_a_protected_vertex_that_no_edge_touches_leaves_ids_in_order() -> None:
    graph = both_ways(FIGURE, num_nodes=9)
    mask = np.zeros(9, bool)
    mask[8] = True
    for depth in (1, 2, 3, 4):
        assert full(graph, depth, vertices=mask) == list(range(8))
        assert full(graph, depth, vertices=~np.ones(9, bool)) == list(range(8))
        assert full(graph, depth, target=8) == list(range(8))


def test_walk_counts_beyond_int64() -> None:
    """A clique at a depth where counts have 28 digits: the same order as with the exact definition."""
    edges = [*[(u, v) for u in range(5) for v in range(u + 1, 5)][:-2], (4, 5)]
    graph = both_ways(edges)
    assert full(graph, 40) == naive_order(6, edges, 40)
    assert full(graph, 41, last=True, batch_size=3) == naive_order(6, edges, 41, last=True, batch_size=3)


def test_little_memory_for_known_walks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = random_graph(5)
    expected = {depth: full(graph, depth) for depth in (4, 5)}
    monkeypatch.setattr(engines, "_KNOWN", 20)
    assert {depth: full(graph, depth) for depth in (4, 5)} == expected


# --- keys ------------------------------------------------------------------------------------------------------------

changes = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=5)


@given(changes, changes, st.lists(st.integers(0, 6), max_size=4))
def test_keys_order_sorted_lists(first: Any, second: Any, others: list[int]) -> None:
    """Each change turns some old values into new ones; the old values of both are in every list."""
    base = [old for old, _ in (*first, *second)] + others

    def after(change: Any) -> list[int]:
        rest = list(base)
        for old, _ in change:
            rest.remove(old)
        return sorted(rest + [new for _, new in change])

    def key(change: Any) -> tuple[int, ...]:
        return signed_key([old for old, _ in change], [new for _, new in change])

    assert (key(first) < key(second)) == (after(first) > after(second))
    assert (key(first) == key(second)) == (after(first) == after(second))


def test_weights_become_integers_of_the_same_ratios() -> None:
    assert exact_weights([0.5, 0.75, 3]) == [2, 3, 12]
    assert exact_weights(np.array([1.0, 2.0])) == [1, 2]
    assert exact_weights([Fraction(1, 3), Fraction(1, 2)]) == [2, 3]
    tiny, tenth = exact_weights([5e-324, 0.1])
    assert tiny == 1
    assert Fraction(tenth, tiny) == Fraction(0.1) / Fraction(5e-324)

"""Planted Hamiltonian cycles and orders that are none, against a search of all orders."""

from __future__ import annotations

import itertools
import math
import pickle

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_implicit import cycles, two_opt_neighbours
from rankdiag.rewards import hamiltonian_pairs, is_hamiltonian_cycle

SQUARE = [(0, 1), (1, 2), (2, 3), (0, 3)]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 6), st.sampled_from([0.0, 0.2, 0.7, 0.95]), st.booleans())
def test_pairs_are_a_cycle_and_none(seed, n, p, hard):
    for pair in hamiltonian_pairs(2, n, p, hard=hard, rng=seed):
        known = cycles(pair.edges, n)
        assert pair.chosen in known
        assert pair.rejected not in known
        assert sorted(pair.rejected) == list(range(n))
        assert len(set(pair.edges)) == len(pair.edges)
        assert all(0 <= u < v < n for u, v in pair.edges)
        for order in itertools.permutations(range(n)):
            assert is_hamiltonian_cycle(order, pair.edges, n) == (order in known)
        if hard:
            assert pair.rejected in two_opt_neighbours(pair.chosen)


def test_texts_say_what_the_pair_holds():
    pair = hamiltonian_pairs(1, 5, rng=3)[0]
    vertices, edges = pair.prompt.split("\n")
    assert vertices == "Vertices: <sep>0<sep>1<sep>2<sep>3<sep>4"
    start, *rest = edges.split("<sep>")
    assert start == "Edges: "
    assert tuple(tuple(map(int, edge.split("<edge_sep>"))) for edge in rest) == pair.edges
    assert tuple(map(int, pair.chosen_text.split("<sep>"))) == pair.chosen
    assert tuple(map(int, pair.rejected_text.split("<sep>"))) == pair.rejected


def test_a_seed_repeats_and_the_kind_of_negative_leaves_the_graph():
    assert hamiltonian_pairs(4, rng=5) == hamiltonian_pairs(4, rng=5)
    assert hamiltonian_pairs(4, rng=5) != hamiltonian_pairs(4, rng=6)
    easy, near = hamiltonian_pairs(1, rng=5)[0], hamiltonian_pairs(1, hard=True, rng=5)[0]
    assert (easy.prompt, easy.chosen) == (near.prompt, near.chosen)
    generator = np.random.default_rng(5)
    assert hamiltonian_pairs(2, rng=generator) + hamiltonian_pairs(2, rng=generator) == hamiltonian_pairs(4, rng=5)


def test_edges_and_cycles_have_their_probabilities():
    pairs = hamiltonian_pairs(2000, 6, 0.2, rng=1)
    others = sum(len(pair.edges) - 6 for pair in pairs)  # 9 pairs of vertices outside the cycle; 0.2^9 are drawn again
    assert abs(others / (2000 * 9) - 0.2) < 5 * math.sqrt(0.16 / (2000 * 9))
    shapes = [frozenset(frozenset((pair.chosen[i], pair.chosen[i - 1])) for i in range(6)) for pair in pairs]
    counts = np.array([shapes.count(shape) for shape in set(shapes)])
    assert len(counts) == 60  # (6 - 1)! / 2 cycles
    assert ((counts - 2000 / 60) ** 2 / (2000 / 60)).sum() < 59 + 5 * math.sqrt(2 * 59)
    ranks = [sorted(pair.edges).index(pair.edges[0]) / (len(pair.edges) - 1) for pair in pairs]
    assert abs(np.mean(ranks) - 0.5) < 5 * 0.35 / math.sqrt(2000)
    first = [pair.edges[0] in {tuple(sorted((pair.chosen[i], pair.chosen[i - 1]))) for i in range(6)} for pair in pairs]
    expected = np.mean([6 / len(pair.edges) for pair in pairs])  # shuffled: the first edge is any of them
    assert abs(np.mean(first) - expected) < 5 * 0.5 / math.sqrt(2000)


def test_the_order_of_draws_is_fixed():
    """Cycle, one number for each other pair i < j, shuffle of the edges, then permutations until one is no cycle."""
    rng = np.random.default_rng(11)
    closing = 0
    for pair in hamiltonian_pairs(300, n=5, p=0.6, rng=11):
        cycle = rng.permutation(5).tolist()
        planted = {frozenset((cycle[i], cycle[i - 1])) for i in range(5)}
        others = [(i, j) for i in range(5) for j in range(i + 1, 5) if frozenset((i, j)) not in planted]
        numbers = rng.random(len(others))
        while (numbers < 0.6).all():  # a complete graph has no order to reject
            numbers = rng.random(len(others))
        drawn = {frozenset(edge) for edge, number in zip(others, numbers, strict=True) if number < 0.6}
        edges = [(i, j) for i in range(5) for j in range(i + 1, 5) if frozenset((i, j)) in planted | drawn]
        edges = [edges[place] for place in rng.permutation(len(edges))]
        order = rng.permutation(5).tolist()
        while all(frozenset((order[i], order[i - 1])) in planted | drawn for i in range(5)):
            order = rng.permutation(5).tolist()
        assert (list(pair.chosen), list(pair.edges), list(pair.rejected)) == (cycle, edges, order)
        missing = [i for i in range(5) if frozenset((order[i], order[i - 1])) not in planted | drawn]
        closing += missing == [0]
    assert closing > 10  # a path through all vertices that does not close is no cycle either


def test_hard_negatives_are_close():
    def missing(pair):
        edges = set(pair.edges)
        steps = zip(pair.rejected, (*pair.rejected[1:], pair.rejected[0]), strict=True)
        return sum((min(e), max(e)) not in edges for e in steps)

    easy = np.array([missing(pair) for pair in hamiltonian_pairs(100, rng=2)])
    near = np.array([missing(pair) for pair in hamiltonian_pairs(100, hard=True, rng=2)])
    assert near.min() >= 1
    assert near.max() <= 2
    assert easy.mean() > 4


def test_nearly_complete_graphs_still_have_a_negative():
    for hard in (False, True):
        for pair in hamiltonian_pairs(30, 4, 0.9, hard=hard, rng=0):
            assert len(pair.edges) < 6
            assert not is_hamiltonian_cycle(pair.rejected, pair.edges, 4)
    with pytest.raises(ValueError, match="`p`"):
        hamiltonian_pairs(1, 4, math.nextafter(1.0, 0.0), rng=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 9), st.integers(0, 10**6))
def test_rotations_and_reversals_of_a_cycle_are_cycles(n, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    edges = [(order[i], order[i - 1]) for i in rng.permutation(n)]
    for shift in range(n):
        assert is_hamiltonian_cycle(np.roll(order, shift), edges, n)
        assert is_hamiltonian_cycle(np.roll(order, shift)[::-1].tolist(), edges, n)
    for lost in range(n):
        assert not is_hamiltonian_cycle(order, edges[:lost] + edges[lost + 1 :], n)


@pytest.mark.parametrize(
    "order",
    [
        [0, 1, 2],
        [0, 1, 2, 3, 0],
        [0, 1, 2, 2],
        [0, 1, 2, 4],
        [0, 1, 2, -1],
        [0, 2, 1, 3],
        ["0", "1", "2", "3"],
        [0, 1, 2, 3.0],
        [False, True, 2, 3],
        [0, 1, 2, None],
        [[0, 1, 2, 3]],
        "0123",
        None,
        5,
        [],
        np.array(3),
        torch.tensor([0.0, 1.0, 2.0, 3.0]),
        itertools.count(),
    ],
)
def test_anything_else_is_no_cycle(order):
    assert is_hamiltonian_cycle(order, SQUARE, 4) is False


def test_orders_of_any_kind():
    for order in ((0, 1, 2, 3), np.arange(4), np.arange(4, dtype=np.uint8), torch.arange(4), iter(range(4)), range(4)):
        assert is_hamiltonian_cycle(order, SQUARE, 4) is True
    assert is_hamiltonian_cycle([0, 1, 2, 3], np.array(SQUARE), 4)
    assert is_hamiltonian_cycle([0, 1, 2, 3], networkx.cycle_graph(4).edges, 4)


def test_the_graph_is_that_of_the_edges():
    pair = hamiltonian_pairs(1, 8, rng=4)[0]
    graph = pair.graph()
    assert list(graph.nodes) == list(range(8))
    assert {tuple(sorted(edge)) for edge in graph.edges} == set(pair.edges)
    assert pickle.loads(pickle.dumps(pair)) == pair


@pytest.mark.parametrize(
    ("arguments", "kind", "word"),
    [
        ((1, 3), ValueError, "n"),
        ((-1,), ValueError, "n_graphs"),
        ((1, 10, 1.0), ValueError, "p"),
        ((1, 10, -0.1), ValueError, "p"),
        ((1.0,), TypeError, "n_graphs"),
        ((1, 10**9), ValueError, "n"),
        ((2**40,), ValueError, "n_graphs"),
    ],
)
def test_pairs_refuse(arguments, kind, word):
    with pytest.raises(kind, match=f"`{word}`"):
        hamiltonian_pairs(*arguments, rng=0)


@pytest.mark.parametrize(
    ("edges", "n", "kind", "word"),
    [
        (SQUARE, 2, ValueError, "n"),
        ([(0, 4)], 4, ValueError, "edges"),
        ([(1, 1)], 4, ValueError, "edges"),
        ([(0, 1, 2)], 4, TypeError, "edges"),
        ([("0", 1)], 4, TypeError, "edges"),
        ([3], 4, TypeError, "edges"),
        (None, 4, TypeError, "edges"),
        ("01", 4, TypeError, "edges"),
    ],
)
def test_checks_refuse_bad_graphs(edges, n, kind, word):
    with pytest.raises(kind, match=f"`{word}`"):
        is_hamiltonian_cycle([0, 1, 2, 3], edges, n)


def test_no_graph_at_all():
    assert hamiltonian_pairs(0, rng=0) == []

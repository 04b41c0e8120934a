"""Generic separation ranks: every worked value, the closed form of one edge, and the coefficients of the polynomial."""

from __future__ import annotations

import math
from math import comb
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_ranks import both_ways, polynomial_rank, rank_of
from rankdiag import result_from_json
from rankdiag.graphs import generic_separation_rank, separation_rank_bounds
from rankdiag.graphs._modular import PRIME, modular_product, modular_rank, reduce_modulo


def columns(pairs: Any) -> np.ndarray:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return np.concatenate((table, table[::-1]), axis=1)


P2, P3 = columns([(0, 1)]), columns([(0, 1), (1, 2)])
P4, C4 = columns([(0, 1), (1, 2), (2, 3)]), columns([(0, 1), (1, 2), (2, 3), (3, 0)])


@pytest.mark.parametrize(
    ("graph", "subset", "depth", "width", "target", "rank"),
    [
        (P2, [0], 1, 2, None, 2),
        (P2, [0], 2, 2, None, 5),
        (P2, [0], 3, 2, None, 9),
        (P2, [0], 2, 3, None, 15),
        (P2, [0], 3, 3, None, 45),
        (P2, [0], 3, 3, 0, 15),
        (P3, [1], 2, 2, None, 8),
        (P3, [0], 2, 2, None, 6),
        (P4, [0, 1], 2, 2, None, 24),
        (P4, [0, 2], 2, 2, None, 36),
        (P4, [0, 1], 3, 2, 0, 6),
        (P4, [0, 1], 3, 2, 1, 16),
        (C4, [0, 1], 2, 2, None, 34),
    ],
)
def test_worked_values(graph: Any, subset: list[int], depth: int, width: int, target: int | None, rank: int) -> None:
    found = generic_separation_rank(graph, subset, depth, width, width, target=target)
    assert (found.rank, found.saturated) == (rank, False)
    assert found.samples == (32 if rank <= 27 or math.exp(found.log_upper_mincut) < rank + 0.5 <= 32 else 64)


def test_types_of_edges_multiply_what_a_vertex_sends() -> None:
    found = generic_separation_rank(P3, [1, 2], 2, 4, 3, edge_type=[1, 0, 1, 0])
    assert found.rank == 42
    assert generic_separation_rank(P3, [1, 2], 2, 4, 3).rank == 21  # one type: the monomials of degree 5 in 3 variables
    far = generic_separation_rank(P3, [1, 2], 2, 4, 3, edge_type=[10**9, 0, 10**9, 0])
    assert far.rank == 42  # only types in use take memory


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_closed_form_of_one_edge(width: int, depth: int) -> None:
    graph = comb(width + 2**depth - 1, 2**depth) if depth > 1 else width
    vertex = comb(width + 2 ** (depth - 1) - 1, 2 ** (depth - 1))
    for target, expected in ((None, graph), (0, vertex)):
        if expected < 200:
            found = generic_separation_rank(P2, [0], depth, width, width, target=target)
            assert (found.rank, found.saturated) == (expected, False)


@st.composite
def tiny(draw: Any, types: int = 2) -> tuple[int, list[tuple[int, int, int]], set[int], int, int, int, int | None, int]:
    n = draw(st.integers(2, 3))
    pairs = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=4))
    edges = [(u, v, draw(st.integers(0, types - 1))) for u, v in sorted(pairs) if u != v]
    subset = draw(st.sets(st.integers(0, n - 1)))
    depth, d_in, d_hidden = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return n, edges, subset, depth, d_in, d_hidden, draw(st.none() | st.integers(0, n - 1)), draw(st.integers(0, 99))


def rank_of_case(case: Any, **options: Any) -> Any:
    n, edges, subset, depth, d_in, d_hidden, target, _ = case
    table = np.array(edges, dtype=np.int64).reshape(-1, 3)
    options = {"directed": True, "edge_type": table[:, 2], "num_nodes": n, "target": target, **options}
    return generic_separation_rank(table[:, :2].T, sorted(subset), depth, d_in, d_hidden, **options)


@given(tiny())
def test_equals_the_rank_of_the_polynomials_coefficients(case: Any) -> None:
    n, edges, subset, depth, d_in, d_hidden, target, seed = case
    found = rank_of_case(case, rng=seed)
    assert found.rank == polynomial_rank(n, edges, subset, depth, d_in, d_hidden, target=target, seed=seed)


def test_the_polynomial_over_the_rationals_agrees() -> None:
    for case in (
        (2, both_ways([(0, 1)]), {0}, 3, 2, 2, 0, 0),
        (3, both_ways([(0, 1), (1, 2)]), {1}, 2, 2, 2, 2, 0),
    ):
        n, edges, subset, depth, d_in, d_hidden, target, _ = case
        exact = polynomial_rank(n, edges, subset, depth, d_in, d_hidden, target=target, prime=None)
        assert rank_of_case(case).rank == exact


def test_polynomials_of_many_graphs() -> None:
    rng = np.random.default_rng(0)
    for trial in range(60):
        n = int(rng.integers(2, 5))
        pairs = {(int(u), int(v)) for u, v in rng.integers(n, size=(6, 2)) if u != v}
        edges = [(u, v, int(rng.integers(2))) for u, v in sorted(pairs)]
        subset = {i for i in range(n) if rng.random() < 0.5}
        depth = int(rng.integers(1, 4)) if n == 2 else int(rng.integers(1, 3))
        target = int(rng.integers(n)) if rng.random() < 0.6 or n == 4 else None
        case = (n, edges, subset, depth, int(rng.integers(1, 3)), int(rng.integers(1, 3)), target, trial)
        expected = polynomial_rank(n, edges, subset, depth, case[4], case[5], target=target, seed=trial)
        assert rank_of_case(case, rng=trial).rank == expected


def test_what_vertices_share_ends_the_search() -> None:
    """All vertices of a clique hear the same, so that 126 is the most for any weights, and the plain cut 126^2."""
    clique = [[u for u in range(5) for v in range(5) if u != v], [v for u in range(5) for v in range(5) if u != v]]
    found = generic_separation_rank(clique, [2, 4], 3, 2, 2, max_rank=126)
    assert (found.rank, found.saturated, found.samples) == (126, False, 126)
    assert found.log_upper_mincut == pytest.approx(2 * math.log(126))
    assert "allows no more" in found.explanation


def test_bounds_of_many_graphs_hold() -> None:
    rng = np.random.default_rng(1)
    tight = total = 0
    for trial in range(120):
        n = int(rng.integers(2, 6))
        pairs = np.array([(u, v) for u in range(n) for v in range(n) if u != v and rng.random() < 0.4], dtype=np.int64)
        graph, kinds = pairs.reshape(-1, 2).T, rng.integers(0, 2, len(pairs))
        inside = rng.random(n) < 0.5
        depth, d_in, d_hidden = (int(k) for k in rng.integers(1, 4, size=3))
        target = int(rng.integers(n)) if trial % 2 else None
        options: dict[str, Any] = {"directed": True, "edge_type": kinds, "num_nodes": n, "target": target}
        found = generic_separation_rank(graph, inside, depth, d_in, d_hidden, max_rank=256, **options)
        assert (found.depth, found.d_in, found.d_hidden) == (depth, d_in, d_hidden)
        bounds = separation_rank_bounds(graph, inside, depth, d_in, d_hidden, **options)
        assert found.rank <= math.exp(bounds.log_upper_shared) * (1 + 1e-9)
        if not found.saturated:
            assert found.rank >= math.exp(bounds.log_lower_multiset) * (1 - 1e-9)
            total += 1
            tight += abs(math.log(found.rank) - bounds.log_upper_mincut) < 1e-9
    assert tight > 0.7 * total > 60


@given(tiny(), st.randoms(use_true_random=False))
def test_sides_labels_loops_and_repeats_change_nothing(case: Any, random: Any) -> None:
    n, edges, subset, depth, d_in, d_hidden, target, _ = case
    expected = rank_of_case(case).rank
    order = list(range(n))
    random.shuffle(order)
    moved = [(order[u], order[v], q) for u, v, q in edges]
    other = {order[i] for i in range(n)} - {order[i] for i in subset}
    place = None if target is None else order[target]
    changed = (n, [*moved, *moved, (0, 0, 1)], other, depth, d_in, d_hidden, place, 0)
    assert rank_of_case(changed, rng=7).rank == expected


def test_what_cannot_interact() -> None:
    apart = columns([(0, 1), (2, 3)])
    assert generic_separation_rank(apart, [0, 1], 3, 2, 3).rank == 3  # the readout alone mixes, one term for each width
    assert generic_separation_rank(apart, [0, 1], 3, 2, 3, target=0).rank == 1
    assert generic_separation_rank(P4, [3], 3, 2, 3, target=0).rank > 1  # three steps reach it
    assert generic_separation_rank(P4, [3], 2, 2, 3, target=0).rank == 1
    for side in ([], [0, 1, 2, 3]):
        found = generic_separation_rank(P4, side, 2, 2, 2)
        assert (found.rank, found.log_rank, found.log_upper_mincut) == (1, 0.0, 0.0)
    assert generic_separation_rank(C4, [0, 1], 3, 3, 1).rank == 1
    assert generic_separation_rank(C4, [0, 1], 3, 1, 3).rank == 1
    assert generic_separation_rank(np.zeros((2, 0), int), [], 2, 2, 2, num_nodes=0).rank == 1
    assert generic_separation_rank(np.zeros((2, 0), int), [0], 1, 2, 2, num_nodes=2).rank == 2


def test_saturation_is_said() -> None:
    found = generic_separation_rank(P2, [0], 4, 4, 4, max_rank=100)
    assert (found.rank, found.saturated, found.samples) == (100, True, 100)
    assert "at least 100" in found.explanation
    small = generic_separation_rank(P2, [0], 2, 2, 2, max_rank=3)
    assert (small.rank, small.saturated, small.samples) == (3, True, 3)
    bound = generic_separation_rank(P2, [0], 2, 2, 2, max_rank=5)
    assert (bound.rank, bound.saturated, bound.samples) == (5, False, 5)  # the minimum cut allows no more


def test_labels_and_inputs() -> None:
    graph = nx.path_graph(["a", "b", "c", "d"])
    found = generic_separation_rank(graph, ["a", "b"], 3, 2, 2, target="b")
    assert found.rank == 16
    assert found.meta.details["prediction"] == "for vertex b"
    assert found.meta.details["depth"] == "3 (walks of length 2)"
    mask = np.array([True, True, False, False])
    assert generic_separation_rank(P4, mask, 2, 2, 2).rank == 24


def test_repeats_with_the_seed_and_survives_json() -> None:
    a, b = (generic_separation_rank(C4, [0, 1], 2, 2, 2, rng=3) for _ in range(2))
    assert a == b
    assert result_from_json(a.to_json()) == a
    assert a.meta.seed == 3
    drawn = generic_separation_rank(C4, [0, 1], 2, 2, 2, rng=None)
    assert drawn.rank == 34
    assert generic_separation_rank(C4, [0, 1], 2, 2, 2, rng=drawn.meta.seed) == drawn
    assert "Generic separation rank" in a.summary()


def test_a_large_graph_is_evaluated_where_it_has_to_be() -> None:
    path = columns([(i, i + 1) for i in range(400)])
    found = generic_separation_rank(path, np.arange(401) < 200, 3, 2, 2, target=200)
    assert (
        found.rank
        == generic_separation_rank(columns([(i, i + 1) for i in range(10)]), range(5), 3, 2, 2, target=5).rank
    )


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: generic_separation_rank(P2, [0], 0, 2, 2), ValueError, "`depth` must be an integer >= 1 .*; got 0"),
        (lambda: generic_separation_rank(P2, [0], 1, 0, 2), ValueError, "`d_in` must be"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2.5), TypeError, "`d_hidden` must be"),
        (lambda: generic_separation_rank(P2, [9], 1, 2, 2), ValueError, "contains vertex 9 but the graph has 2"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2, target=-1), ValueError, "`target` must be a vertex id"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2, max_rank=0), ValueError, "`max_rank` must be"),
        (lambda: generic_separation_rank(P2, [0], 1, 2**40, 2), ValueError, "`d_in` of shape"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2**40), ValueError, "`d_hidden` of shape"),
        (lambda: generic_separation_rank(P2, [0], 2**40, 2, 2), ValueError, "`depth` must be"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2, repeats=2**40), ValueError, "`repeats` must be"),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2, repeats=0), ValueError, "`repeats` must be"),
        (lambda: generic_separation_rank(P2[:, :1], [0], 1, 2, 2), ValueError, "no reverse column"),
        (
            lambda: generic_separation_rank(P2, [0], 1, 2, 2, edge_type=[0]),
            ValueError,
            "`edge_type` must hold integers",
        ),
        (lambda: generic_separation_rank(P2, [0], 1, 2, 2, rng="x"), TypeError, "`rng` must be"),
    ],
)
def test_wrong_arguments_are_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@given(st.integers(0, 10**6))
def test_modular_rank_equals_elimination_one_entry_at_a_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, r = (int(i) for i in rng.integers(1, 70, size=3))
    matrix = modular_product(rng.integers(0, PRIME, size=(m, r // 2)), rng.integers(0, PRIME, size=(r // 2, k)))
    if seed % 3 == 0:
        matrix[:, rng.random(k) < 0.5] = 0
    if seed % 3 == 1:
        matrix = rng.integers(0, 2, size=(m, k)) * (rng.random((m, k)) < 0.1)
    before = matrix.copy()
    assert modular_rank(matrix) == rank_of(matrix.tolist(), PRIME)
    assert (matrix == before).all()


def test_modular_rank_holds_at_the_largest_residues() -> None:
    """Factors that are all p - 1 where they can be, so that sums inside of the elimination are as large as they get."""
    lower = np.tril(np.full((100, 40), PRIME - 1), -1) + np.eye(100, 40, dtype=np.int64)
    upper = np.triu(np.full((40, 100), PRIME - 1), 1) + np.eye(40, 100, dtype=np.int64)
    matrix = modular_product(lower, upper)
    assert modular_rank(matrix) == rank_of(matrix.tolist(), PRIME) == 40


def test_modular_product_is_exact_at_the_largest_residues() -> None:
    rng = np.random.default_rng(0)
    for inner in (1, 32, 256, 257, 700):
        left = PRIME - 1 - rng.integers(0, 3, size=(3, inner))
        right = PRIME - 1 - rng.integers(0, 3, size=(inner, 4))
        expected = (left.astype(object) @ right.astype(object)) % PRIME
        assert (modular_product(left, right) == expected).all()
    largest = np.array([(PRIME - 1) ** 2 + PRIME - 1, 2**63 - 1])
    assert reduce_modulo(largest.copy()).tolist() == [v % PRIME for v in largest.tolist()]

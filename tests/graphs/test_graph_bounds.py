"""Bounds on separation ranks, against exact ranks, all assignments, all admissible sets, and worked values."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import networkx as nx
import numpy as np
import pytest

from oracles.graphs_bounds import (
    Case,
    admissible_weights,
    data_file,
    draw,
    generic_rank,
    least_cut,
    lower_bounds,
    separates,
    ties,
    undirected,
    upper_bounds,
)
from rankdiag import result_from_dict, result_from_json
from rankdiag.graphs import _layered, as_edge_list
from rankdiag.graphs._bounds import SeparationRankBounds, separation_rank_bounds
from rankdiag.graphs._mincut import Ties, minimum_cut

SLACK = 1e-9
P2, P3, P4 = (undirected(n, [(i, i + 1) for i in range(n - 1)]) for n in (2, 3, 4))
C4 = undirected(4, [(0, 1), (1, 2), (2, 3), (3, 0)])


def bounds_of(case: Case) -> SeparationRankBounds:
    data, named = case.arguments()
    return separation_rank_bounds(*data, **named)


def at_most(low: float, high: float) -> bool:
    return low <= high + SLACK * max(1.0, abs(high))


def holds_in_order(case: Case, found: SeparationRankBounds, rank: int | None) -> bool:
    chain = [found.log_lower_paper, found.log_lower_multiset]
    if rank is not None:
        chain.append(math.log(rank))
    chain += [
        found.log_upper_shared,
        found.log_upper_mincut,
        min(found.log_upper_symmetric, found.log_upper_polynomial),
    ]
    in_order = all(at_most(a, b) for a, b in itertools.pairwise(chain))
    in_order &= at_most(found.log_upper_symmetric, found.log_upper_layers)
    return in_order and at_most(found.log_upper_layers, found.log_upper_paper)


def check(case: Case, rng: np.random.Generator) -> SeparationRankBounds:
    """Compare everything with the definitions; exact ranks too big to find are left out of the order alone."""
    found = bounds_of(case)
    for name, value in upper_bounds(case).items():
        assert getattr(found, f"log_upper_{name}") == pytest.approx(value, rel=1e-12, abs=1e-12), (name, case)
    assert found.log_upper_mincut == pytest.approx(least_cut(case), rel=1e-12, abs=1e-12), case
    paper, number = lower_bounds(case)
    assert found.log_lower_paper == pytest.approx(paper, rel=1e-12, abs=1e-12), case
    assert found.lower_multiset == number, case
    assert found.log_lower_multiset == pytest.approx(math.log(number), rel=1e-12, abs=1e-12), case
    assert found.exact
    sets = admissible_weights(case)
    chosen = frozenset(found.admissible_set.tolist())
    assert found.admissible_walks == max(sets.values(), default=0) == sets.get(chosen, 0), case
    assert math.fsum(row.cost for row in found.bottleneck) == found.log_upper_mincut
    assert separates(case, {(row.layer, row.vertex) for row in found.bottleneck}) or not found.log_upper_mincut, case
    assert holds_in_order(case, found, generic_rank(case, rng, most=128)), case
    return found


# --- order and definitions ----------------------------------------------------------------------------------


def test_forty_random_graphs_against_the_definitions_and_exact_ranks() -> None:
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(40):
        case = draw(rng, most=4)
        check(case, rng)
        kinds.add((case.directed, case.target is None, bool((case.kinds > 0).any())))
    assert len(kinds) == 8  # every kind of graph and prediction occurred


@pytest.mark.slow
def test_five_hundred_random_graphs_against_the_definitions_and_exact_ranks() -> None:
    rng = np.random.default_rng(2)
    for _ in range(500):
        check(draw(rng), rng)


@pytest.mark.parametrize(
    ("kinds", "subset", "depth", "width", "target", "rank"),
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
def test_exact_ranks_of_small_graphs_lie_between(
    kinds: Any, subset: list[int], depth: int, width: int, target: int | None, rank: int
) -> None:
    case = Case(kinds, subset, depth, width, width, target=target)
    assert generic_rank(case, np.random.default_rng(0)) == rank
    assert holds_in_order(case, bounds_of(case), rank)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_two_vertices_are_exact(width: int, depth: int) -> None:
    """The closed form of the path of two vertices is met by the minimum cut and by the lower bound."""
    walks = 2**depth if depth > 1 else 1
    expected = math.comb(width + walks - 1, walks)
    found = bounds_of(Case(P2, [0], depth, width, width))
    assert found.log_upper_mincut == pytest.approx(math.log(expected), rel=1e-12)
    assert found.lower_multiset == expected
    half = 2 ** (depth - 1)
    at_vertex = bounds_of(Case(P2, [0], depth, width, width, target=0))
    assert at_vertex.log_upper_mincut == pytest.approx(math.log(math.comb(width + half - 1, half)), rel=1e-12)


def test_worked_values() -> None:
    path, cycle = bounds_of(Case(P4, [0, 1], 2, 2, 2)), bounds_of(Case(C4, [0, 1], 2, 2, 2))
    assert math.exp(path.log_upper_mincut) == pytest.approx(32)
    assert math.exp(cycle.log_upper_mincut) == pytest.approx(100)
    assert math.exp(cycle.log_upper_paper) == pytest.approx(2.0**49)  # 5.6e14; the exact rank is 34
    assert (path.walk_index, cycle.walk_index) == (6, 12)


def test_features_enter_by_every_edge_type() -> None:
    """With the plain width min(d_in, d_hidden) the polynomial bound would be 21, below the exact rank."""
    case = Case(undirected(3, [(0, 1), (1, 2)], [1, 0]), [1, 2], 2, 4, 3)
    assert generic_rank(case, np.random.default_rng(0)) == 42
    found = bounds_of(case)
    assert math.exp(found.log_upper_polynomial) == pytest.approx(56)
    assert found.log_upper_paper == found.log_upper_layers
    assert holds_in_order(case, found, 42)


def test_figure_of_the_paper() -> None:
    edges = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
    for target, index in ((None, 48), (0, 5), (5, 10)):
        found = bounds_of(Case(undirected(7, edges), [0, 1, 2, 3], 3, 4, 4, target=target))
        assert found.walk_index == index
        assert found.log_upper_paper == pytest.approx(math.log(4) * (4 * index + (target is None)))


# --- twins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "side", "depth", "width", "target", "plain", "rank"),
    [
        (4, [1, 2], 2, 3, 0, 81, 15),
        (4, [0, 1], 3, 3, 3, 153**2, 153),
        (5, [2, 4], 3, 2, None, 126**2, 126),
    ],
)
def test_twins_make_the_bound_of_cliques_exact(
    n: int, side: list[int], depth: int, width: int, target: int | None, plain: int, rank: int
) -> None:
    clique = undirected(n, list(itertools.combinations(range(n), 2)))
    case = Case(clique, side, depth, width, width, target=target)
    assert generic_rank(case, np.random.default_rng(0)) == rank
    found = bounds_of(case)
    assert math.exp(found.log_upper_mincut) == pytest.approx(plain)
    assert math.exp(found.log_upper_shared) == pytest.approx(rank)
    assert "share counts once" in found.explanation


def test_twins_must_hear_by_the_same_types() -> None:
    """With another type than that of loops, no two vertices of a clique hear the same."""
    edges = list(itertools.combinations(range(4), 2))
    found = [bounds_of(Case(undirected(4, edges, types), [1, 2], 2, 3, 3, target=0)) for types in ([0] * 6, [1] * 6)]
    assert math.exp(found[0].log_upper_shared) == pytest.approx(15)
    assert math.exp(found[1].log_upper_shared) == pytest.approx(54)
    assert math.exp(found[1].log_upper_mincut) == pytest.approx(81)


def test_twins_that_are_heard_by_two_types_are_two_products() -> None:
    """Vertices 0 and 1 hear and are heard alike, but through one matrix among themselves and another at vertex 2."""
    case = Case(undirected(3, [(0, 1), (0, 2), (1, 2)], [0, 1, 1]), [0, 1], 2, 4, 2, target=2)
    assert generic_rank(case, np.random.default_rng(0)) == 6  # one product for both would allow 4
    assert math.exp(bounds_of(case).log_upper_shared) == pytest.approx(6)


def test_products_of_twins_stay_on_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vertices 1 and 3 are twins on two sides: one product for both would allow 65."""
    monkeypatch.setattr(_layered, "_heard_cut", lambda layered: math.inf)  # which finds 45 too
    arcs = [(0, 2), (2, 0), (1, 0), (1, 2), (1, 3), (3, 0), (3, 1), (3, 2)]
    kinds = np.where(np.eye(4, dtype=bool), 0, -1)
    kinds[tuple(np.array(arcs).T)] = 0
    case = Case(kinds, [0, 3], 2, 4, 2, directed=True)
    assert generic_rank(case, np.random.default_rng(0)) == 45
    assert math.exp(bounds_of(case).log_upper_shared) == pytest.approx(45)


def test_what_is_heard_of_one_side_counts_once() -> None:
    """No two vertices of the first graph are twins; four of five hear the same of vertices 1 and 4."""
    kinds = np.zeros((5, 5), int)
    kinds[[0, 0, 1, 2, 2, 2], [2, 3, 2, 0, 3, 4]] = 1
    case = Case(kinds, [1, 4], 3, 3, 2, target=0, directed=True)
    assert generic_rank(case, np.random.default_rng(0)) == 126
    assert math.exp(bounds_of(case).log_upper_shared) == pytest.approx(126)
    near = undirected(5, [(0, 1), (0, 2), (0, 4), (1, 2), (1, 4), (2, 3), (2, 4), (3, 4)])
    case = Case(near, [1, 2, 3], 2, 3, 2)
    assert generic_rank(case, np.random.default_rng(0)) == 76
    assert math.exp(bounds_of(case).log_upper_shared) == pytest.approx(76)


def dense(rng: np.random.Generator, most: int) -> Case:
    """A blow-up of a small random graph: vertices become cliques of twins; some edges get another type."""
    case = draw(rng, most=3)
    origin = rng.integers(0, case.n, int(rng.integers(case.n, most + 1)))
    kinds = case.kinds[np.ix_(origin, origin)]
    subset = np.flatnonzero(rng.random(len(origin)) < 0.5).tolist()
    target = None if case.target is None else int(rng.integers(len(origin)))
    return Case(kinds, subset, case.depth, case.d_in, case.d_hidden, target=target, directed=case.directed)


@pytest.mark.parametrize("seed", range(10))
def test_twins_never_fall_below_the_exact_rank(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = dense(rng, 4)
    assert holds_in_order(case, bounds_of(case), generic_rank(case, rng, most=64))


@pytest.mark.slow
def test_twins_never_fall_below_the_exact_rank_of_hundreds_of_graphs() -> None:
    rng = np.random.default_rng(5)
    lower = 0
    for _ in range(250):
        case = dense(rng, 6)
        found, rank = bounds_of(case), generic_rank(case, rng, most=128)
        assert holds_in_order(case, found, rank), case
        lower += rank is not None and found.log_upper_shared < found.log_upper_mincut - 1e-9
    assert lower > 20  # graphs where twins matter


# --- the minimum cut on larger graphs -----------------------------------------------------------------------


def cut_by_networkx(case: Case) -> float:
    """The same cut by another solver, in integers of 60 bits."""
    found, network = ties(case), nx.DiGraph()
    network.add_nodes_from("IJ")
    for place, tie in enumerate(found):
        network.add_edge(("in", place), ("out", place), capacity=round(tie.cost * 2**50))
        for member in tie.members:
            network.add_edge(member, ("in", place))
            network.add_edge(("out", place), member)
    return float(nx.minimum_cut_value(network, "I", "J")) / 2**50


def larger(rng: np.random.Generator, n: int, depth: int) -> Case:
    directed = bool(rng.integers(2))
    kinds = np.where(rng.random((n, n)) < 2 / n, rng.integers(0, 2, (n, n)), -1)
    if not directed:
        kinds = np.maximum(kinds, kinds.T)
    np.fill_diagonal(kinds, 0)
    target = int(rng.integers(n)) if rng.integers(2) else None
    subset = np.flatnonzero(np.arange(n) < n // 2).tolist()
    return Case(kinds, subset, depth, *rng.integers(2, 40, 2).tolist(), target=target, directed=directed)


@pytest.mark.parametrize("seed", range(4))
def test_minimum_cut_equals_that_of_another_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = larger(rng, 14, int(rng.integers(2, 5)))
    found = bounds_of(case)
    assert found.log_upper_mincut == pytest.approx(cut_by_networkx(case), rel=1e-10, abs=1e-10)
    assert found.cut_gap <= 1e-9 * max(1.0, found.log_upper_mincut)
    assert holds_in_order(case, found, None)


@pytest.mark.slow
def test_minimum_cut_equals_that_of_another_solver_on_many_graphs() -> None:
    rng = np.random.default_rng(9)
    for _ in range(60):
        case = larger(rng, int(rng.integers(8, 40)), int(rng.integers(1, 6)))
        assert bounds_of(case).log_upper_mincut == pytest.approx(cut_by_networkx(case), rel=1e-10, abs=1e-10)


def test_what_is_far_below_the_largest_price_is_decided_too() -> None:
    """Two separate parts: a price of 10^6 leaves no 32-bit digit for the choice between 1.0 and 1.00001 of 10^-4."""
    price = np.array([9e5, 1.00001e-4])
    ties = Ties(4, np.array([0, 0, 1, 1]), np.arange(4), price, np.arange(4), np.array([True, False, True, False]),
                np.array([1e6, 1e6, 1.0e-4, 2.0e-4]))  # fmt: skip
    found = minimum_cut(ties, np.array([True, False, True, False]))
    assert found.broken.tolist() == [True, False]
    assert found.leaf_broken.tolist() == [False, False, True, False]
    assert found.cost == 9e5 + 1e-4
    assert found.gap <= 1e-9


# --- the bottleneck -----------------------------------------------------------------------------------------


def two_cliques(size: int) -> nx.Graph:
    graph = nx.disjoint_union(nx.complete_graph(size), nx.complete_graph(size))
    graph.add_edge(0, size)
    return graph


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_joining_edge_of_two_cliques_is_the_bottleneck(depth: int) -> None:
    found = separation_rank_bounds(two_cliques(16), range(16), depth, 16, 16)
    assert found.walk_index == {2: 34, 3: 548}.get(depth, found.walk_index)
    assert {row.vertex for row in found.bottleneck} == {0, 16, None}
    assert "at vertex 16" in found.reading
    assert found.bottleneck[-1].name == "readout"
    alternating = [v for v in range(32) if v % 2 == 0]
    wide = separation_rank_bounds(two_cliques(16), alternating, depth, 16, 16)
    assert wide.walk_index == {2: 514, 3: 8258}.get(depth, wide.walk_index)
    assert wide.log_upper_mincut > 3 * found.log_upper_mincut


def test_labels_name_the_places() -> None:
    graph = nx.relabel_nodes(two_cliques(4), {v: f"v{v}" for v in range(8)})
    found = separation_rank_bounds(graph, [f"v{v}" for v in range(4)], 2, 8, 8, target="v4")
    assert {row.name for row in found.bottleneck} <= {"v0", "v4"}
    assert {row.vertex for row in found.bottleneck} <= {0, 4}
    assert "at vertex v" in found.reading
    assert "prediction vertex v4" in str(found)


def test_ranks_are_written_as_the_whole_numbers_that_bounds_allow() -> None:
    found = separation_rank_bounds(nx.path_graph(2), [0], 2, 3, 2)
    written = {row[0]: (row[1], row[2]) for row in found.document().grids[0].rows}
    for name, (value, rank) in written.items():
        rank = int(rank)
        assert rank == pytest.approx(math.exp(value), abs=1 - 1e-6)
        assert math.log(rank) >= value - 1e-9 if "lower" in name else math.log(rank) <= value + 1e-9


def test_document_names_the_figure_to_read_and_the_caution() -> None:
    found = separation_rank_bounds(two_cliques(16), range(16), 3, 16, 16)
    document = found.document()
    assert [grid.title for grid in document.grids] == [
        "Bounds on the log of the separation rank",
        "Where the network limits, by layer",
        "Where the network limits",
    ]
    text = found.summary(width=400)
    assert "depth 3 (walks of length 2)" in text
    assert "is the figure to read" in text
    assert "no logarithm of a rank" in text
    assert "exp(" not in text
    assert sum(row[3] for row in document.grids[1].rows) == pytest.approx(1)
    assert found.verdict == "unknown"


# --- symmetries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_sides_order_loops_and_duplicates_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    case = larger(rng, 9, 3)
    (columns, *rest), named = case.arguments()
    first = bounds_of(case)
    outside = [v for v in range(case.n) if v not in case.subset]
    other = separation_rank_bounds(columns, outside, *rest[1:], **named)
    move = rng.permutation(case.n)
    again = np.concatenate((move[columns], np.array([[2, 2], [2, 2]]), move[columns[:, :3]]), axis=1)
    types = np.concatenate((named["edge_type"], [1, 3], named["edge_type"][:3]))
    moved = named | {"edge_type": types, "target": None if case.target is None else int(move[case.target])}
    relabelled = separation_rank_bounds(again, move[case.subset].tolist(), *rest[1:], **moved)
    for found in (other, relabelled):
        assert found.walk_index == first.walk_index
        for field in ("paper", "layers", "symmetric", "polynomial", "mincut"):
            expected = getattr(first, f"log_upper_{field}")
            assert getattr(found, f"log_upper_{field}") == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_graphs_by_any_road() -> None:
    from scipy.sparse import csr_array

    columns, _ = Case(C4, [0, 1], 3, 3, 3).arguments()[0][0], None
    expected = separation_rank_bounds(columns, [0, 1], 3, 3, 3)
    dense = csr_array((C4 >= 0).astype(int) - np.eye(4, dtype=int))
    for graph in (as_edge_list(columns), dense, nx.from_scipy_sparse_array(dense)):
        assert separation_rank_bounds(graph, [0, 1], 3, 3, 3) == expected
    assert separation_rank_bounds(columns, np.array([True, True, False, False]), 3, 3, 3) == expected


# --- ends of the range --------------------------------------------------------------------------------------


def test_width_1_has_rank_1() -> None:
    for d_in, d_hidden in ((1, 1), (1, 3), (3, 1)):
        found = bounds_of(Case(P4, [0, 1], 3, d_in, d_hidden))
        assert found.lower_multiset == 1
        assert found.log_lower_paper == found.log_lower_multiset == 0.0
        assert found.log_upper_mincut == 0.0
        assert found.bottleneck == ()


def test_sides_that_do_not_touch() -> None:
    apart = undirected(4, [(0, 1), (2, 3)])
    for target, upper in ((None, math.log(3)), (0, 0.0)):
        found = bounds_of(Case(apart, [0, 1], 2, 3, 3, target=target))
        assert found.walk_index == 0
        assert found.log_upper_mincut == found.log_upper_layers == pytest.approx(upper)
        assert found.lower_multiset == 1
        assert len(found.admissible_set) == 0


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("whole", [False, True])
def test_one_side_is_empty(n: int, whole: bool) -> None:
    found = separation_rank_bounds(np.zeros((2, 0), int), range(n) if whole else [], 3, 2, 2, num_nodes=n)
    assert found.log_upper_mincut == 0.0
    assert found.lower_multiset == 1
    assert found.exact
    assert "do not interact" in str(found)


def test_depths_and_widths_beyond_floats() -> None:
    clique = nx.complete_graph(12)
    deep = separation_rank_bounds(clique, range(5), 400, 4, 4)  # counts of 430 digits
    assert deep.walk_index == 12**400
    assert math.isinf(deep.log_upper_paper)
    assert math.isinf(deep.log_upper_layers)
    assert at_most(deep.log_lower_multiset, deep.log_upper_mincut)
    assert at_most(deep.log_upper_mincut, deep.log_upper_polynomial)
    assert deep.log_upper_polynomial == pytest.approx(5 * math.log(math.comb(3 + 12**400, 3)), rel=1e-12)
    assert deep.log_lower_paper == pytest.approx(3.0)  # its limit, D - 1
    wide = separation_rank_bounds(clique, range(5), 3, 2**62, 2**62)
    assert math.isfinite(wide.log_upper_paper)
    assert wide.lower_multiset is None
    for found in (deep, wide):
        assert "10^" in str(found)
        assert result_from_json(found.to_json()) == found


def test_a_thousand_layers() -> None:
    found = separation_rank_bounds(nx.path_graph(2), [0], 1000, 3, 3)
    assert found.walk_index == 2**1000
    assert found.log_upper_mincut == pytest.approx(math.log(math.comb(2**1000 + 2, 2)), rel=1e-12)
    assert found.lower_multiset == math.comb(2**1000 + 2, 2)


def test_results_survive_every_road() -> None:
    found = bounds_of(Case(C4, [0, 1], 70, 3, 3))
    assert found.walk_index > 2**64
    for other in (
        result_from_dict(found.to_dict()),
        result_from_json(found.to_json()),
        pickle.loads(pickle.dumps(found)),
        copy.deepcopy(found),
    ):
        assert isinstance(other, SeparationRankBounds)
        assert other == found
        assert other.bottleneck == found.bottleneck
        assert not other.admissible_set.flags.writeable


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"depth": 0}, ValueError, "`depth` must be an integer >= 1"),
        ({"depth": 2.0}, TypeError, "`depth`"),
        ({"d_in": 0}, ValueError, "`d_in` must be an integer >= 1; got 0"),
        ({"d_hidden": True}, TypeError, "`d_hidden`"),
        ({"d_hidden": 2**70}, ValueError, "`d_hidden`"),
        ({"subset": [0, 9]}, ValueError, "`subset` contains vertex 9 but the graph has 4 vertices"),
        ({"subset": [0, 0]}, ValueError, "`subset` has duplicate vertices"),
        ({"target": -1}, ValueError, "`target` must be a vertex id below 4; got -1"),
        ({"graph": [[0], [1]]}, ValueError, "has no reverse column"),
        ({"edge_type": [0]}, ValueError, "`edge_type`"),
        ({"graph": np.zeros((2, 2))}, TypeError, "`graph`"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], error: type[Exception], text: str) -> None:
    columns, _ = Case(C4, [], 1, 1, 1).columns()
    call: dict[str, Any] = {"graph": columns, "subset": [0, 1], "depth": 2, "d_in": 2, "d_hidden": 2} | change
    with pytest.raises(error, match=text):
        separation_rank_bounds(**call)


# --- a real graph -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cora_at_depth_3() -> None:
    path = data_file("cora.npz")
    if path is None:
        pytest.skip("cora.npz is not here; set RANKDIAG_DATA to the folder that holds planetoid/")
    with np.load(path) as data:
        columns = data["edge_index"]
    found = separation_rank_bounds(columns, range(1354), 3, 64, 64)
    assert found.walk_index == 126635
    assert holds_in_order(Case(P2, [0], 3, 2, 2), found, None)
    assert found.log_upper_mincut < 0.85 * found.log_upper_symmetric
    assert found.cut_gap <= 1e-9 * found.log_upper_mincut
    assert math.fsum(row.cost for row in found.bottleneck) == found.log_upper_mincut
    assert not found.exact

"""Adding edges by the reverse of the greedy removal: worked orders, the definition, and what a result is."""

from __future__ import annotations

import copy
import json
import pickle
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_deep_wis import columns_to_edges, naive_additions, random_columns, values_of
from rankdiag import result_from_dict, result_from_json
from rankdiag.graphs import WISAdditions, as_edge_list, wis_addition_order

PATH = np.array([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
seeds = st.integers(0, 10**6)


def random_case(seed: int, most_nodes: int, most_columns: int) -> tuple[Any, ...]:
    draw = random.Random(seed)
    n, directed = draw.randint(2, most_nodes), draw.random() < 0.4
    columns = random_columns(draw, n, draw.randint(0, most_columns), directed)
    edges = columns_to_edges(columns, directed)
    taken = set(edges) if directed else {*edges, *((v, u) for u, v in edges)}
    candidates = []
    share = draw.choice([0.3, 0.9])
    for u in range(n):
        for v in range(n):
            if u != v and (u, v) not in taken and draw.random() < share:
                candidates.append((u, v))
                taken |= {(u, v)} if directed else {(u, v), (v, u)}
    draw.shuffle(candidates)
    return n, directed, np.array(columns, np.int64).reshape(2, -1), edges, candidates


def compare(seed: int, depth: int, most_nodes: int, most_columns: int) -> None:
    n, directed, columns, edges, candidates = random_case(seed, most_nodes, most_columns)
    for rule in ("first", "last"):
        found = wis_addition_order(columns, candidates, depth, directed=directed, num_nodes=n, tie_break=rule)
        order = naive_additions(n, edges, candidates, depth, directed=directed, last=rule == "last")
        assert found.candidate_ids.tolist() == order
        assert found.edges.tolist() == [list(candidates[c]) for c in order]
        assert found.addition_rank[found.candidate_ids].tolist() == list(range(len(order)))
    grown = [edges + [candidates[c] for c in order[:k]] for k in range(len(order) + 1)]
    assert list(found.lowest) == [min(values_of(n, some, depth, directed)) for some in grown]


def test_a_path_closes_into_a_cycle_first() -> None:
    found = wis_addition_order(PATH, [(0, 2), (0, 3), (1, 3)], 2)
    assert found.candidate_ids.tolist() == [1, 0, 2]
    assert found.lowest == (2, 3, 3, 4)


def test_isolated_vertices_come_first() -> None:
    found = wis_addition_order(PATH, [(0, 2), (1, 4), (4, 5)], 3, num_nodes=6)
    assert found.candidate_ids.tolist() == [2, 0, 1]
    assert found.lowest[:2] == (0, 4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_equals_the_definition(depth: int) -> None:
    for seed in range(8):
        compare(seed, depth, 7, 8)


def test_a_candidate_may_walk_twice_over_itself() -> None:
    """Graphs in which an addition brings forward a candidate whose far end nothing else reaches."""
    for text, more in (
        ("24 76 71 74 23 37 57", "20 51 62 21"),
        ("05 30 25 35 26", "70 63 76 10 75 64"),
        ("62 18 16 41 82", "76 80 85 40 84 43 64"),
    ):
        edges, candidates = ([(int(u), int(v)) for u, v in part.split()] for part in (text, more))
        columns = np.array(edges + [(v, u) for u, v in edges]).T
        found = wis_addition_order(columns, candidates, 4, num_nodes=9)
        assert found.candidate_ids.tolist() == naive_additions(9, edges, candidates, 4)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_equals_the_definition_on_300_graphs(depth: int) -> None:
    for seed in range(1000, 1060):
        compare(seed, depth, 7, 8)


@given(seeds, st.integers(1, 5))
def test_prefixes_nest_and_names_of_vertices_change_nothing(seed: int, depth: int) -> None:
    n, directed, columns, _, candidates = random_case(seed, 10, 14)
    whole = wis_addition_order(columns, candidates, depth, directed=directed, num_nodes=n)
    some = wis_addition_order(
        columns, candidates, depth, directed=directed, num_nodes=n, num_edges=len(candidates) // 2
    )
    assert some.candidate_ids.tolist() == whole.candidate_ids[: len(candidates) // 2].tolist()
    assert some.lowest == whole.lowest[: len(some) + 1]
    assert list(whole.lowest) == sorted(whole.lowest)
    names = np.random.default_rng(seed).permutation(n)
    other = wis_addition_order(
        names[columns], names[np.array(candidates, np.int64).reshape(-1, 2)], depth, directed=directed, num_nodes=n
    )
    assert other.candidate_ids.tolist() == whole.candidate_ids.tolist()


def test_every_kind_of_input_gives_the_same() -> None:
    import networkx as nx
    import torch

    pairs = [(0, 2), (0, 3), (1, 3)]
    expected = wis_addition_order(PATH, pairs, 3).candidate_ids.tolist()
    labels = [("abcd"[u], "abcd"[v]) for u, v in pairs]
    assert wis_addition_order(nx.path_graph("abcd"), labels, 3).candidate_ids.tolist() == expected
    for candidates in (np.array(pairs), torch.tensor(pairs), np.array(pairs, np.uint8), (tuple(p) for p in pairs)):
        assert wis_addition_order(torch.tensor(PATH), candidates, 3).candidate_ids.tolist() == expected
    assert wis_addition_order(as_edge_list(PATH), pairs, 3).candidate_ids.tolist() == expected


def test_counts() -> None:
    pairs = [(0, 2), (0, 3)]
    assert len(wis_addition_order(PATH, pairs, num_edges=0)) == 0
    assert len(wis_addition_order(PATH, pairs, num_edges=9)) == 2
    empty = wis_addition_order(PATH, np.zeros((0, 2), np.int64))
    assert (len(empty), empty.edges.shape, empty.lowest) == (0, (0, 2), (2,))
    assert wis_addition_order(np.zeros((2, 0), np.int64), []).lowest == (0,)
    assert str(empty)


@pytest.mark.parametrize("depth", [3, 80])
def test_results_survive_every_way_out_and_back(depth: int) -> None:
    found = wis_addition_order(PATH, [(0, 2), (0, 3), (1, 3)], depth, tie_break="last")
    assert found.lowest[-1] == 4 ** (depth - 1)  # K4
    for other in (
        result_from_dict(found.to_dict()),
        result_from_json(found.to_json()),
        WISAdditions.from_dict(json.loads(found.to_json())),
        pickle.loads(pickle.dumps(found)),
        copy.deepcopy(found),
    ):
        assert other == found
        assert isinstance(other, WISAdditions)
        assert other.lowest == found.lowest
        np.testing.assert_array_equal(other.candidate_ids, found.candidate_ids)
    assert not found.candidate_ids.flags.writeable
    assert f"depth {depth} (walks of length {depth - 1})" in found.explanation
    assert found.verdict == "unknown"
    assert "First edges to add" in str(found)
    assert "<table" in found._repr_html_()


def test_huge_values_are_left_out_of_the_plot_alone() -> None:
    found = wis_addition_order(PATH, [(0, 2), (0, 3), (1, 3)], 600)
    assert found.lowest[-1] == 4**599
    assert found.document().plots == ()
    assert len(wis_addition_order(PATH, [(0, 2)], 9).document().plots) == 1
    assert str(found)


@pytest.mark.parametrize(
    ("candidates", "error", "text"),
    [
        ([(0, 1)], ValueError, "an edge of the graph already"),
        ([(1, 0)], ValueError, "an edge of the graph already"),
        ([(2, 2)], ValueError, "self-loop"),
        ([(0, 2), (2, 0)], ValueError, "twice"),
        ([(0, 4)], ValueError, "below 4"),
        ([(0, -1)], ValueError, "below 4"),
        ([(0, 2.5)], TypeError, "vertex id"),
        ([(0, 1, 2)], ValueError, r"\(C, 2\)"),
        ([3], ValueError, r"\(C, 2\)"),
        (np.zeros((2, 3), int), ValueError, r"\(2, 3\)"),
        (np.array([[0.0, 2.0]]), TypeError, "vertex id"),
        (np.array(3), ValueError, r"\(C, 2\)"),
        ("02", TypeError, r"\(C, 2\)"),
        (5, TypeError, r"\(C, 2\)"),
        (None, TypeError, r"\(C, 2\)"),
    ],
)
def test_wrong_candidates_are_named(candidates: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match="`candidates`.*" + text):
        wis_addition_order(PATH, candidates)


def test_directed_candidates_may_be_the_reverse_of_an_edge() -> None:
    ring = np.array([[0, 1, 2], [1, 2, 0]])
    found = wis_addition_order(ring, [(1, 0), (0, 2)], 3, directed=True)
    assert sorted(found.candidate_ids.tolist()) == [0, 1]
    with pytest.raises(ValueError, match="`depth` must"):
        wis_addition_order(ring, [], 0, directed=True)
    with pytest.raises(ValueError, match="`tie_break` must"):
        wis_addition_order(ring, [], directed=True, tie_break="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`num_edges` must"):
        wis_addition_order(ring, [], directed=True, num_edges=-1)

"""`wis_order` as a call: what it takes, what it refuses, what its result says, and the masks of every level."""

from __future__ import annotations

import copy
import json
import pickle
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag import result_from_dict, result_from_json
from rankdiag.graphs import EdgeList, WISOrder, as_edge_list, wis_order
from rankdiag.graphs._wis import number_kept

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]


def both_ways(edges):
    pairs = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return np.concatenate((pairs, pairs[::-1]), axis=1)


# --- what it returns -------------------------------------------------------------------------------------------------


def test_every_field_of_the_figure_graph():
    order = wis_order(both_ways(FIGURE), num_edges=3)
    assert order.edge_ids.tolist() == [4, 0, 3]
    assert order.edges.tolist() == [[2, 5], [0, 1], [2, 4]]
    assert order.removal_rank.tolist() == [1, -1, -1, 2, 0, -1, -1, -1]
    assert order.column_edge.tolist() == [*range(8), *range(8)]
    assert (order.depth, order.num_nodes, order.directed, order.tie_break, order.batch_size) == (
        2,
        7,
        False,
        "first",
        1,
    )
    assert (order.num_edges, len(order)) == (8, 3)
    for array in (order.edge_ids, order.edges, order.removal_rank, order.column_edge):
        assert array.dtype == np.int64
        assert not array.flags.writeable


def test_depth_3_takes_the_general_way():
    order = wis_order(both_ways(FIGURE), 3, tie_break="last")
    assert [tuple(edge) for edge in order.edges.tolist()] == [
        (2, 5), (5, 6), (2, 4), (1, 3), (0, 2), (4, 6), (3, 5), (0, 1),
    ]  # fmt: skip


def test_all_kinds_of_graphs_agree():
    columns = both_ways(FIGURE)
    graph = nx.Graph(FIGURE)
    names = list(graph.nodes)
    ways = {
        "list": columns.tolist(),
        "int32": columns.astype(np.int32),
        "tensor": torch.tensor(columns),
        "edge list": as_edge_list(columns),
    }
    for name, way in ways.items():
        assert wis_order(way).edge_ids.tolist() == wis_order(columns).edge_ids.tolist(), name
    matrix = sp.csr_array((np.ones(16), (columns[0], columns[1])), shape=(7, 7))
    assert wis_order(matrix).edges.tolist() == wis_order(columns).edges.tolist()
    labelled = [[names[u], names[v]] for u, v in wis_order(graph).edges.tolist()]
    assert sorted(map(sorted, labelled)) == sorted(map(list, FIGURE))


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_graphs_without_edges_have_an_empty_order(depth, directed):
    for columns in (np.zeros((2, 0), int), [[0, 1], [0, 1]], [[], []]):
        order = wis_order(columns, depth, directed=directed, num_nodes=3)
        assert order.edge_ids.shape == (0,)
        assert order.edges.shape == (0, 2)
        assert order.column_mask(keep_ratio=0.5).tolist() == [True] * len(columns[0])
        assert str(order)
    assert wis_order(both_ways(FIGURE), depth, num_edges=0, directed=directed).edge_ids.shape == (0,)


def test_more_edges_than_there_are_stand_for_all():
    whole = wis_order(both_ways(FIGURE))
    assert wis_order(both_ways(FIGURE), num_edges=10**12) == whole
    assert wis_order(both_ways(FIGURE), num_edges=8) == whole


def test_repeats_go_together_and_loops_stay():
    columns = np.array([[0, 0, 1, 2, 1, 1, 0, 1], [1, 0, 0, 1, 2, 0, 1, 1]])
    order = wis_order(columns)
    assert order.num_edges == 2
    assert order.column_edge.tolist() == [0, -1, 0, 1, 1, 0, 0, -1]
    assert order.column_mask(num_removed=1).tolist() == [False, True, False, True, True, False, False, True]
    assert order.column_mask(num_removed=2).tolist() == [False, True] + [False] * 5 + [True]
    assert order.column_mask(num_removed=0).all()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25), st.integers(0, 30))
def test_masks_nest_and_count(pairs, removed):
    columns = both_ways(pairs)
    order = wis_order(columns, num_nodes=7)
    mask = order.column_mask(num_removed=removed)
    left = as_edge_list(columns[:, mask], num_nodes=7)
    assert left.num_edges == max(order.num_edges - removed, 0)
    assert (mask | ~order.column_mask(num_removed=removed + 1)).all()
    kept_pairs = {frozenset(edge) for edge in left.edges.tolist()}
    gone = {frozenset(edge) for edge in order.edges[:removed].tolist()}
    assert not kept_pairs & gone
    np.testing.assert_array_equal(order.column_mask(keep_ratio=1.0), order.column_mask(num_removed=0))
    np.testing.assert_array_equal(order.column_mask(keep_ratio=0), order.column_edge < 0)


def test_a_ratio_rounds_down_unless_only_floats_stand_below_a_whole_number():
    assert int(100 * 0.29) == 28
    assert number_kept(100, 0.29) == 29
    assert number_kept(7, 0.5) == 3
    assert [number_kept(m, 1.0) for m in (0, 1, 10**9)] == [0, 1, 10**9]
    for m in (4552, 5278, 44324, 10**7, 123_456_789, 10**12 + 1):
        for percent in range(101):
            assert number_kept(m, percent / 100) == m * Fraction(percent, 100) // 1


def test_a_short_order_says_so():
    order = wis_order(both_ways(FIGURE), num_edges=3)
    assert order.column_mask(num_removed=3).sum() == 10
    assert order.column_mask(keep_ratio=5 / 8).sum() == 10
    with pytest.raises(ValueError, match="`num_removed` asks to remove 4 edges, but this order holds 3 of 8"):
        order.column_mask(num_removed=4)
    with pytest.raises(ValueError, match="`keep_ratio` asks to remove 4 edges"):
        order.column_mask(keep_ratio=0.5)


@pytest.mark.parametrize("levels", [{}, {"keep_ratio": 0.5, "num_removed": 1}])
def test_a_level_is_named_once(levels):
    with pytest.raises(TypeError, match="exactly one of `keep_ratio` and `num_removed`"):
        wis_order(both_ways(FIGURE)).column_mask(**levels)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), float("inf")])
def test_ratios_out_of_bounds(ratio):
    with pytest.raises(ValueError, match="`keep_ratio`"):
        wis_order(both_ways(FIGURE)).column_mask(keep_ratio=ratio)


# --- options ---------------------------------------------------------------------------------------------------------


def test_batches_are_chosen_from_the_keys_of_one_moment():
    path = both_ways([(i, i + 1) for i in range(5)])
    assert wis_order(path).edge_ids.tolist() == [1, 3, 0, 2, 4]
    assert wis_order(path, batch_size=3).edge_ids[:3].tolist() == [1, 2, 3]
    assert wis_order(path, batch_size=3, tie_break="last").edge_ids[:3].tolist() == [3, 2, 1]


def test_directed_edges_go_one_by_one():
    columns = np.array([[0, 1, 2, 3, 1], [1, 2, 0, 0, 3]])
    order = wis_order(columns, directed=True)
    assert sorted(order.edge_ids.tolist()) == list(range(5))
    assert order.directed
    with pytest.raises(ValueError, match="no reverse column"):
        wis_order(columns)


def test_kept_edges_never_go_and_may_be_named_in_three_ways():
    columns = both_ways(FIGURE)
    by_id = wis_order(columns, keep_edges=[4, 0])
    assert len(by_id) == 6
    assert by_id.removal_rank[[0, 4]].tolist() == [-1, -1]
    mask = np.zeros(8, bool)
    mask[[0, 4]] = True
    for same in (
        [(5, 2), (0, 1)],
        mask,
        torch.tensor(mask),
        np.array([[2, 5], [1, 0]]),
        torch.tensor([4, 0]),
        [4, 0, 4],
    ):
        assert wis_order(columns, keep_edges=same).edge_ids.tolist() == by_id.edge_ids.tolist()
    graph = nx.relabel_nodes(nx.Graph(FIGURE), dict(enumerate("abcdefg")))
    ids = {frozenset(edge): e for e, edge in enumerate(graph.edges)}
    named = wis_order(graph, keep_edges=[("f", "c")])
    assert named.removal_rank[ids[frozenset("cf")]] == -1
    assert len(named) == 7
    assert wis_order(columns, keep_edges=[]).edge_ids.tolist() == wis_order(columns).edge_ids.tolist()
    assert len(wis_order(columns, keep_edges=np.ones(8, bool))) == 0


class Label:
    """A node label that counts how often it is looked up."""

    asked = 0

    def __hash__(self):
        Label.asked += 1
        return id(self)


def test_labels_are_looked_through_once_and_not_for_each_pair():
    graph = as_edge_list(nx.path_graph([Label() for _ in range(60)]))
    ends = [(graph.labels[u], graph.labels[v]) for u, v in graph.edges.tolist()]
    Label.asked = 0
    assert len(wis_order(graph, keep_edges=ends)) == 0
    assert Label.asked <= 60 + 2 * 59


def test_directed_pairs_are_kept_in_their_direction():
    columns = [[0, 1, 1], [1, 0, 2]]
    assert wis_order(columns, directed=True, keep_edges=[(1, 0)]).removal_rank[1] == -1
    with pytest.raises(ValueError, match=r"`keep_edges` holds \(2, 1\), which is no edge"):
        wis_order(columns, directed=True, keep_edges=[(2, 1)])


def test_options_that_change_nothing_change_nothing():
    columns = both_ways(FIGURE)
    plain = wis_order(columns).edge_ids.tolist()
    assert wis_order(columns, vertices=range(7)).edge_ids.tolist() == plain
    assert wis_order(columns, vertices=np.ones(7, bool)).edge_ids.tolist() == plain
    assert wis_order(columns, vertex_weights=[0.25] * 7).edge_ids.tolist() == plain
    only = wis_order(columns, vertices=[0])
    assert only.edge_ids[-2:].tolist() == [0, 1]  # the edges of the only vertex that counts
    assert wis_order(columns, target=3).meta.details["target"] == 3


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"depth": 0}, ValueError, "`depth` must be .*; got 0"),
        ({"depth": 2.0}, TypeError, "`depth` must be an integer"),
        ({"depth": True}, TypeError, "`depth` must be an integer"),
        ({"num_edges": -1}, ValueError, "`num_edges` must be an integer >= 0; got -1"),
        ({"num_edges": 0.5}, TypeError, "`num_edges` must be an integer"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1; got 0"),
        ({"tie_break": "middle"}, ValueError, "`tie_break` must be one of 'first', 'last'; got 'middle'"),
        ({"tie_break": None}, TypeError, "`tie_break` must be one of"),
        ({"directed": 1}, TypeError, "`directed` must be True or False"),
        ({"vertices": [9]}, ValueError, "`vertices` contains vertex 9 but the graph has 7 vertices"),
        ({"vertices": [1, 1]}, ValueError, "`vertices` has duplicate vertices"),
        ({"vertex_weights": [1.0]}, ValueError, r"`vertex_weights` must hold one factor for each of 7 vertices"),
        ({"vertex_weights": [1.0] * 6 + [0.0]}, ValueError, "`vertex_weights` must be positive; got 0.0 at vertex 6"),
        ({"vertex_weights": [1.0] * 6 + [np.nan]}, ValueError, "`vertex_weights` has 1 non-finite entry"),
        ({"target": 7}, ValueError, "`target` must be a vertex id below 7; got 7"),
        ({"target": -1}, ValueError, "`target` must be a vertex id"),
        ({"keep_edges": [8]}, ValueError, "`keep_edges` holds edge id 8, but the graph has 8 edges"),
        ({"keep_edges": [(0, 6)]}, ValueError, r"`keep_edges` holds \(0, 6\), which is no edge"),
        ({"keep_edges": np.ones(3, bool)}, ValueError, r"`keep_edges` as a mask must have shape \(8,\)"),
        ({"keep_edges": "01"}, TypeError, "`keep_edges` must be edge ids, pairs"),
        ({"keep_edges": 3}, TypeError, "`keep_edges` must be edge ids, pairs"),
        ({"keep_edges": [0.5]}, TypeError, "`keep_edges` must be edge ids, pairs"),
        ({"keep_edges": [True]}, TypeError, "`keep_edges` must be edge ids, pairs"),
        ({"keep_edges": np.array(1)}, TypeError, "`keep_edges` must be edge ids, pairs"),
        ({"keep_edges": [(0, 9)]}, ValueError, "`keep_edges` must be a vertex id below 7"),
        ({"num_nodes": 3}, ValueError, "`num_nodes` must be above every vertex id"),
        ({"walk_length": 1}, TypeError, "walk_length"),
    ],
)
def test_refusals(options, error, text):
    with pytest.raises(error, match=text):
        wis_order(both_ways(FIGURE), **options)


def test_weights_of_edges_are_named_once():
    with pytest.warns(UserWarning, match="weights other than 1") as caught:
        wis_order(sp.csr_array([[0.0, 2.0], [2.0, 0.0]]))
    assert len(caught) == 1


# --- the result ------------------------------------------------------------------------------------------------------


def test_it_survives_json_and_pickle_and_copies():
    order = wis_order(both_ways(FIGURE), num_edges=5, tie_break="last")
    for back in (
        result_from_dict(json.loads(json.dumps(order.to_dict()))),
        result_from_json(order.to_json()),
        pickle.loads(pickle.dumps(order)),
        copy.copy(order),
        copy.deepcopy(order),
    ):
        assert isinstance(back, WISOrder)
        assert back == order
        np.testing.assert_array_equal(back.column_mask(num_removed=4), order.column_mask(num_removed=4))
    empty = wis_order(np.zeros((2, 0), int))
    assert result_from_json(empty.to_json()) == empty
    assert result_from_json(empty.to_json()).edges.shape == (0, 2)


def test_it_shows_counts_levels_and_both_lengths():
    order = wis_order(both_ways(FIGURE), 2)
    text = order.summary()
    assert order.verdict == "unknown"
    assert "depth 2 (walks of length 1)" in text
    assert "8 of 8 undirected edges" in text
    document = order.document()
    levels, first = document.grids
    assert [row[0] for row in levels.rows] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [row[3] for row in levels.rows] == [isolated_after(FIGURE, order.edge_ids[:k], 7) for k in range(9)]
    assert first.rows[0] == (1, 4, 2, 5)
    assert len(document.plots) == 1
    assert "<svg" in order._repr_html_()


def isolated_after(edges, gone, n):
    left = nx.Graph([edge for e, edge in enumerate(edges) if e not in set(gone.tolist())])
    return n - sum(1 for _, degree in left.degree if degree)


def test_a_part_of_an_order_shows_no_levels():
    document = wis_order(both_ways(FIGURE), num_edges=3).document()
    assert len(document.grids) == 1
    assert not document.plots


def test_options_are_told():
    order = wis_order(both_ways(FIGURE), keep_edges=[0], vertices=[0, 1], vertex_weights=[1, 2, 1, 1, 1, 1, 1])
    details = order.meta.details
    assert details["edges kept by force"] == 1
    assert details["vertices"] == "2 of 7"
    assert details["vertex weights"] == "1 to 2"
    assert order.meta.n == 8


def test_an_edge_list_speaks_for_itself():
    directed = as_edge_list([[0, 1], [1, 2]], directed=True)
    assert isinstance(directed, EdgeList)
    assert wis_order(directed).directed
    with pytest.raises(ValueError, match="`directed` is True, but this EdgeList"):
        wis_order(as_edge_list(both_ways(FIGURE)), directed=True)

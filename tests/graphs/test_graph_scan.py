"""Scans of groups against single walk indices, and of pairs against every union of groups, tried one by one."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_walks import boundary, columns_of, graphs, matrix_of, planetoid, power, walk_index_of
from rankdiag import result_from_json
from rankdiag.graphs._change import walk_index_change
from rankdiag.graphs._edges import as_edge_list
from rankdiag.graphs._partitions import group_totals
from rankdiag.graphs._rewiring import rewiring_hints
from rankdiag.graphs._scan import PartitionScan, partition_scan
from rankdiag.graphs._walk_counts import count_walks
from rankdiag.graphs._walks import singleton_walk_indices

PATH = columns_of([(0, 1), (1, 2), (2, 3)], False)


@given(graphs(most=8), st.integers(1, 6), st.data())
def test_groups_one_by_one(case, depth, data):
    n, edges, directed = case
    sides = data.draw(st.lists(st.sets(st.integers(0, n - 1)), max_size=5))
    target = data.draw(st.none() | st.integers(0, n - 1))
    a = matrix_of(n, edges, directed)
    groups = {f"g{k}": side for k, side in enumerate(sides)}
    scan = partition_scan(columns_of(edges, directed), groups, depth, target=target, directed=directed, num_nodes=n)
    every = sum(sum(row) if target is None else row[target] for row in power(a, depth - 1))
    expected = [
        (f"g{k}", len(side), len(boundary(a, side)), walk_index_of(a, side, depth, target))
        for k, side in enumerate(sides)
    ]
    expected.sort(key=lambda row: row[3])
    assert [(row.name, row.size, row.boundary, row.walk_index) for row in scan] == expected
    assert scan.num_walks == every
    assert scan.meta.details.get("target") == target
    assert [row.share for row in scan] == [row[3] / every for row in expected]
    logs = [math.log(row[3]) if row[3] else -math.inf for row in expected]
    assert [row.log_walk_index for row in scan] == logs
    assert scan.verdict == "unknown"
    assert result_from_json(scan.to_json()) == scan


@given(graphs(most=8), st.integers(1, 5), st.data())
def test_pairs_are_separated_where_it_costs_least(case, depth, data):
    n, edges, directed = case
    classes = data.draw(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=n, max_size=n))
    a = matrix_of(n, edges, directed)
    scan = partition_scan(columns_of(edges, directed), classes, depth, pairs=True, directed=directed, num_nodes=n)
    names = list(dict.fromkeys(c for c in classes if c is not None))
    blocks = [*names, None]
    assert [
        (row.name, row.other) for row in sorted(scan, key=lambda r: (names.index(r.name), names.index(r.other)))
    ] == [*itertools.combinations(names, 2)]
    for row in scan:
        unions = [u for size in range(1, len(blocks) + 1) for u in itertools.combinations(blocks, size)]
        found = [
            walk_index_of(a, {i for i in range(n) if classes[i] in union}, depth)
            for union in unions
            if row.name in union and row.other not in union
        ]
        assert row.walk_index == min(found)
        side = {i for i in range(n) if (classes[i] or "(none)") in row.side}
        assert row.name in row.side
        assert row.other not in row.side
        assert walk_index_of(a, side, depth) == row.walk_index
        assert row.size == len(side)
        assert row.boundary == len(boundary(a, side))
    assert [row.walk_index for row in scan] == sorted(row.walk_index for row in scan)


def test_many_groups_fall_back_to_single_ones():
    ring = nx.cycle_graph(40)
    classes = [v // 2 for v in range(40)]
    scan = partition_scan(ring, classes, 3, pairs=True)
    assert len(scan) == 190
    assert {row.walk_index for row in scan} == {36}
    assert scan.meta.details["unions"] == "single groups"
    assert partition_scan(ring, [v // 4 for v in range(40)], 3, pairs=True).meta.details["unions"] == "all"


@given(graphs(most=8), st.sampled_from([1, 3, 45]), st.data())
def test_groups_that_do_not_overlap_are_read_off_the_edges(case, depth, data):
    n, edges, directed = case
    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.int64)  # 3 is none
    listed = as_edge_list(columns_of(edges, directed), directed=directed, num_nodes=n)
    counts = count_walks(listed, depth - 1)
    a = matrix_of(n, edges, directed)
    sides = [set(np.flatnonzero(group == k).tolist()) for k in range(3)]
    expected = (
        [walk_index_of(a, side, depth, None) for side in sides],
        [len(boundary(a, side)) for side in sides],
        [len(side) for side in sides],
    )
    assert group_totals(listed, group, 3, counts) == expected


def test_every_vertex_of_a_graph_is_a_group():
    graph = nx.gnm_random_graph(400, 700, seed=1)
    scan = partition_scan(graph, range(400), 3)
    indices = singleton_walk_indices(graph, 3, prediction="graph").tolist()
    assert [row.walk_index for row in scan] == sorted(indices)
    assert "single vertex is small in any large graph: compare vertices with one another." in scan.explanation
    assert all(row.walk_index == indices[int(row.name)] and row.size == 1 for row in scan)
    twice = {**{str(v): [v] for v in range(399)}, "two": [398, 399]}  # these overlap
    mixed = partition_scan(graph, twice, 3)
    assert "single vertex" not in mixed.explanation  # one group has two
    rows = {row.name: row for row in mixed}
    assert (rows["two"].size, rows["398"].walk_index) == (2, indices[398])


def test_ways_to_say_groups():
    graph = nx.Graph([("p", "q"), ("q", "r"), ("r", "s")])
    nx.set_node_attributes(graph, {"p": "x", "q": "x", "r": "y"}, "kind")
    expected = [("x", 16), ("y", 21)]
    given_ways = [
        (graph, "kind"),
        (graph, {"x": ["p", "q"], "y": ["r"]}),
        (graph, ["x", "x", "y", None]),
        (PATH, {"x": [0, 1], "y": np.array([False, False, True, False])}),
    ]
    for g, groups in given_ways:
        assert [(row.name, row.walk_index) for row in partition_scan(g, groups, 3)] == expected
    for classes in (
        np.array([7, 7, -1, 2]),
        torch.tensor([7, 7, -1, 2]),
        [7, np.int8(7), -1, 2],
        ["7", "7", "-1", "2"],
    ):
        scan = partition_scan(PATH, classes, 3)
        assert [(row.name, row.walk_index) for row in scan] == [("2", 13), ("7", 16), ("-1", 21)]
    lists = partition_scan(graph, [{"p", "q"}, ["r"]], 3)
    assert [(row.name, row.walk_index) for row in lists] == [("0", 16), ("1", 21)]
    with pytest.raises(ValueError, match="`groups` must name an attribute of the nodes, which have kind; got 'sort'"):
        partition_scan(graph, "sort", 3)
    assert len(partition_scan(np.zeros((2, 0), np.int64), [], 3)) == 0
    assert len(partition_scan(PATH, {}, 3, pairs=True)) == 0
    assert len(partition_scan(PATH, [0] * 4, 3, pairs=True)) == 0


def test_what_it_shows():
    scan = partition_scan(nx.barbell_graph(5, 0), {"left": range(5), "odd": range(1, 10, 2)}, 70)
    assert scan.rows[0].walk_index > 2**64
    text = scan.summary()
    assert "depth 70 (walks of length 69)" in text
    assert "left" in text
    assert f"{scan.rows[0].walk_index:.3e}"[:4] in text
    assert str(scan.rows[0].walk_index) in scan.to_csv()
    assert list(scan.document().plots[0].series[0].y) == [row.share for row in scan]
    for twin in (copy.deepcopy(scan), pickle.loads(pickle.dumps(scan)), PartitionScan.from_dict(scan.to_dict())):
        assert twin == scan
        assert twin.rows[0].walk_index == scan.rows[0].walk_index
    pairs = partition_scan(PATH, ["a", "a", "b", "c"], 3, pairs=True)
    assert "a + b" in pairs.summary()
    assert result_from_json(pairs.to_json()).rows[0].side == ("a", "b")
    assert partition_scan(PATH, {}, 3).summary()


def test_how_shares_are_to_be_read():
    def says(n, groups, **options):
        return partition_scan(PATH, groups, 2, num_nodes=n, **options).explanation

    assert "share 0" not in says(4, [0, 0, 1, 1])
    assert "A share of a few per cent" in says(4, [0, 0, 1, 1])
    assert "1 of them has share 0: no walk starts at its boundary. The poorest share above 0 is" in says(5, range(5))
    assert "compare vertices" not in says(5, range(5))
    assert "2 of them have share 0: no walk starts at their boundary." in says(4, {"a": [], "b": range(4)})
    assert "poorest" not in says(4, {"a": [], "b": range(4)})
    numbers = {n.label: n.value for n in partition_scan(PATH, range(6), 2, num_nodes=6).document().key_numbers}
    assert numbers["of share 0"] == 2
    assert numbers["smallest share above"] == 5 / 12


@pytest.mark.parametrize(
    ("groups", "options", "error", "message"),
    [
        ([0, 1], {}, ValueError, "hold the class of each of 4 vertices; got 2 entries"),
        ([0.5] * 4, {}, TypeError, "integers, strings or None; got 0.5 at vertex 0"),
        (3, {}, TypeError, "`groups` must map names to vertices"),
        (None, {}, TypeError, "`groups` must map names to vertices"),
        ({0: "x", 1: "y"}, {}, TypeError, "`groups` as a mapping goes from names .* got a value 'x'. For the class"),
        ("kind", {}, ValueError, "`groups` may name a node attribute of a networkx graph only; got 'kind'"),
        (np.zeros((4, 2), int), {}, TypeError, "`groups` must map names to vertices"),
        ({"a": [0, 9]}, {}, ValueError, "group 'a': `groups` contains vertex 9 but the graph has 4 vertices"),
        ({"a": [0], "b": 1}, {}, TypeError, "group 'b': `groups` must be a collection of vertices"),
        ({1: [0], "1": [1]}, {}, ValueError, "`groups` has two groups of the name '1'"),
        ({"a": [0, 1], "b": [1]}, {"pairs": True}, ValueError, "must not overlap .* vertex 1 is in 'a' and 'b'"),
        ([0] * 4, {"pairs": 1}, TypeError, "`pairs` must be True or False"),
        ([0] * 4, {"target": 4}, ValueError, "`target` must be a vertex id below 4"),
    ],
)
def test_errors(groups, options, error, message):
    with pytest.raises(error, match=message):
        partition_scan(PATH, groups, 3, **options)


def test_counts_of_thousands_of_digits():
    graph = nx.complete_graph(12)
    scan = partition_scan(graph, {"a": [0], "b": [0, 1]}, 4200)
    assert scan.rows[0].walk_index == 12**4200  # more digits than Python writes
    assert f"{12**4200:#x}" in scan.to_csv()
    assert result_from_json(scan.to_json()) == scan
    assert "e+4532" in scan.summary()
    assert "e+4532" in scan._repr_html_()
    fewer = nx.complete_graph(12)
    fewer.remove_edge(0, 1)
    hints = rewiring_hints(fewer, [0], 4200, candidates=[(0, 1)])
    assert "e+" in hints.summary()
    assert hints.rows[0].walk_index == 12**4200
    change = walk_index_change(graph, fewer, {"a": [0]}, 4200)
    assert change.rows[0].before == 12**4200
    assert "e+4532" in change.summary()


def test_cora():
    path = planetoid("cora.npz")
    if path is None:
        pytest.skip("planetoid/cora.npz is not beside the repository; RANKDIAG_DATA may name its folder")
    with np.load(path, allow_pickle=False) as data:
        graph, classes = as_edge_list(data["edge_index"]), data["y"]
    single = partition_scan(graph, classes, 3)
    pairs = partition_scan(graph, classes, 3, pairs=True)
    alone = {row.name: row.walk_index for row in single}
    assert len(pairs) == 21
    assert all(row.walk_index <= min(alone[row.name], alone[row.other]) for row in pairs)

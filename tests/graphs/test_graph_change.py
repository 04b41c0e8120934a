"""Drops against single logarithms, and the gate: what it lets through, what it stops, and what it cannot judge."""

from __future__ import annotations

import copy
import math
import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_walks import columns_of, graphs, matrix_of, power, walk_index_of
from rankdiag import result_from_json
from rankdiag.graphs._change import walk_index_change
from rankdiag.graphs._edges import as_edge_list

RING = columns_of([(0, 1), (1, 2), (2, 3), (3, 0)], False)
LINE = columns_of([(0, 1), (1, 2), (2, 3)], False)


@given(graphs(most=7, least=2), st.integers(1, 5), st.data())
def test_a_graph_that_loses_edges(case, depth, data):
    n, edges, directed = case
    rest = [edge for edge in edges if data.draw(st.booleans())]
    sides = data.draw(st.lists(st.sets(st.integers(0, n - 1)), max_size=4))
    target = data.draw(st.none() | st.integers(0, n - 1))
    allowed = data.draw(st.none() | st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    options = {"max_drop": allowed, "target": target, "directed": directed, "num_nodes": n}
    change = walk_index_change(columns_of(edges, directed), columns_of(rest, directed), sides, depth, **options)
    matrices = matrix_of(n, edges, directed), matrix_of(n, rest, directed)
    every = [sum(sum(row) if target is None else row[target] for row in power(a, depth - 1)) for a in matrices]
    drops = []
    for row, side in zip(change, sides, strict=True):
        old, new = (walk_index_of(a, side, depth, target) for a in matrices)
        assert (row.size, row.before, row.after) == (len(side), old, new)
        logs = [math.log(value) if value else -math.inf for value in (old, new)]
        drops.append(0.0 if old == new else logs[0] - logs[1])
        assert row.drop == drops[-1]
        assert row.drop >= 0.0 or directed
        assert (row.share_before, row.share_after) == (old / every[0], new / every[1])
    if allowed is None or not sides:
        assert change.verdict == "unknown"
    else:
        assert change.verdict == ("alert" if max(drops) > allowed else "ok")
    assert result_from_json(change.to_json()) == change
    assert change.summary()


def test_the_gate():
    change = walk_index_change(RING, LINE, {"half": [0, 1], "end": [3]}, 3, max_drop=0.5)
    rows = {row.name: row for row in change}
    assert (rows["half"].before, rows["half"].after) == (36, 16)
    assert rows["half"].drop == pytest.approx(math.log(36 / 16), rel=1e-12)
    assert (rows["half"].share_before, rows["half"].share_after) == (1.0, 16 / 26)
    assert rows["end"].drop == pytest.approx(math.log(27 / 13), rel=1e-12)
    assert change.verdict == "alert"
    assert change.thresholds[0].source == "given by the caller"
    assert (change.thresholds[0].quantity, change.thresholds[0].op, change.thresholds[0].value) == ("drop", ">", 0.5)
    assert "2 of them lose more than the 0.5" in change.summary(width=400)
    assert [line.value for line in change.document().plots[0].lines] == [0.5]
    assert change.document().grids[0].levels == ("alert", "alert")
    exactly = rows["half"].drop
    assert walk_index_change(RING, LINE, {"half": [0, 1]}, 3, max_drop=exactly).verdict == "ok"
    assert walk_index_change(RING, RING, {"half": [0, 1]}, 3, max_drop=0).verdict == "ok"
    assert walk_index_change(RING, LINE, {"half": [0, 1]}, 3).verdict == "unknown"
    assert walk_index_change(RING, LINE, {}, 3, max_drop=0.1).verdict == "unknown"
    gone = walk_index_change(RING, np.zeros((2, 0), np.int64), [[0, 1]], 3, max_drop=100.0)
    assert gone.rows[0].drop == math.inf
    assert gone.verdict == "alert"
    assert "no walk left" in gone.summary(width=400)
    gained = walk_index_change(LINE, RING, [[0, 1]], 3, max_drop=0.0)
    assert gained.rows[0].drop < 0
    assert gained.verdict == "ok"
    born = walk_index_change(np.zeros((2, 0), np.int64), RING, [[0, 1]], 3, num_nodes=4)
    assert born.rows[0].drop == -math.inf


def test_graphs_of_networkx_may_lose_vertices_and_their_order():
    before = nx.Graph([("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")])
    after = nx.Graph([("c", "b"), ("b", "a")])
    change = walk_index_change(before, after, {"left": ["a", "b"], "right": ["d", "e"]}, 2)
    isolated = nx.Graph(after)
    isolated.add_nodes_from(["e", "d"])
    assert [row.after for row in change] == [5, 0]
    assert [row.after for row in walk_index_change(before, isolated, {"l": ["a", "b"], "r": ["d", "e"]}, 2)] == [5, 0]
    assert change.meta.details["vertices that are gone"] == 2
    towards = walk_index_change(before, after, {"left": ["a", "b"]}, 3, target="a")
    assert (towards.rows[0].before, towards.rows[0].after) == (3, 3)
    lost = walk_index_change(before, after, {"left": ["a", "b"]}, 3, target="e")
    assert (lost.rows[0].before, lost.rows[0].after, lost.rows[0].share_after) == (1, 0, 0.0)
    with pytest.raises(ValueError, match="`after` must have no vertex that `before` lacks; got 'z'"):
        walk_index_change(before, nx.Graph([("a", "z")]), {"left": ["a"]}, 2)


def test_kinds_of_graphs_and_of_subsets():
    line = as_edge_list(LINE)
    matrix = scipy.sparse.csr_array((np.ones(6), LINE), shape=(4, 4))
    masks = np.array([[True, False, False, False], [True, True, False, False]])
    ring = nx.cycle_graph(4)
    for after in (LINE, line, matrix, nx.path_graph(4)):
        for subsets in ([[0], [0, 1]], masks, {"x": [0], "y": [0, 1]}):
            change = walk_index_change(ring, after, subsets, 2)
            assert [row.before for row in change] == [9, 12]
            assert [row.after for row in change] == [5, 6]
    classes = walk_index_change(RING, LINE, ["x", "y", "y", "y"], 2)
    assert [(row.name, row.before) for row in classes] == [("x", 9), ("y", 9)]
    short = columns_of([(0, 1)], False)  # its largest id is 1, but it has the vertices of the graph before
    assert walk_index_change(RING, short, [[0]], 2).rows[0].after == 4


def test_copies():
    change = walk_index_change(RING, LINE, {"half": [0, 1]}, 200, max_drop=1.0)
    assert change.rows[0].before > 2**200
    for twin in (copy.deepcopy(change), pickle.loads(pickle.dumps(change)), result_from_json(change.to_json())):
        assert twin == change
        assert twin.rows[0].before == change.rows[0].before
    assert f"{change.rows[0].before}" in change.to_csv()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((RING, LINE, [[0]], 2), {"max_drop": -0.1}, ValueError, "`max_drop` must be a finite real number >= 0"),
        ((RING, LINE, [[0]], 2), {"max_drop": "1"}, TypeError, "`max_drop` must be a real number"),
        ((RING, [[0], [1]], [[0]], 2), {}, ValueError, r"edge \(0, 1\) has no reverse column"),
        ((RING, [[0, 5], [5, 0]], [[0]], 2), {}, ValueError, "`after` holds vertex 5"),
        ((RING, None, [[0]], 2), {}, TypeError, "`after` must be a"),
        ((0.5, LINE, [[0]], 2), {}, TypeError, "`before` must be a"),
        (
            (RING, as_edge_list([[0, 1], [1, 0]]), [[0]], 2),
            {},
            ValueError,
            "`after` must have the 4 vertices of `before`",
        ),
        ((RING, LINE, [[7]], 2), {}, ValueError, "subset 0: `subsets` contains vertex 7"),
        ((RING, LINE, {"a": [7]}, 2), {}, ValueError, "group 'a': `subsets` contains vertex 7"),
        ((RING, LINE, 3, 2), {}, TypeError, "`subsets` must map names to vertices"),
        ((RING, LINE, [0, 1], 2), {}, ValueError, "hold the class of each of 4 vertices; got 2 entries"),
        ((RING, LINE, [[0]], 0), {}, ValueError, "`depth` must be an integer >= 1"),
    ],
)
def test_errors(arguments, options, error, message):
    with pytest.raises(error, match=message):
        walk_index_change(*arguments, **options)


class Sullen:
    """Every attribute that its class lacks raises something of its own."""

    def __getattr__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("name", ["before", "after", "subsets", "target"])
def test_objects_whose_attributes_raise(name):
    path = [[0, 1, 1, 2], [1, 0, 2, 1]]
    arguments = {"before": path, "after": path, "subsets": [[0]], "depth": 2, name: Sullen()}
    with pytest.raises(TypeError, match=f"`{name}` must"):
        walk_index_change(**arguments)
    with pytest.raises(ValueError, match="`subsets` must"):
        walk_index_change(path, path, [Sullen()], 2)

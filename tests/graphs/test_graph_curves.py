"""Curves of removal: every point from the definition, orders read and refused, plots, drawings, files."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_reports import curve_point
from oracles.html_page import Page, problems
from rankdiag._result import result_from_json
from rankdiag._rules import flag
from rankdiag.graphs import as_edge_list, random_order, removal_curves, walk_index, wis_order, wis_sparsify
from rankdiag.report import to_html


@st.composite
def cases(draw):
    n = draw(st.integers(1, 7))
    pairs = [(u, v) for u in range(n) for v in range(u)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12)) if pairs else []
    order = draw(st.permutations(range(len(edges))))
    return n, edges, order, draw(st.integers(1, 4)), draw(st.sets(st.integers(0, n - 1)))


@given(cases())
def test_every_point_is_that_of_the_definition(case):
    n, edges, order, depth, inside = case
    columns = np.array([*edges, *((v, u) for u, v in edges)], dtype=np.int64).reshape(-1, 2).T
    curves = removal_curves(
        columns, {"o": order}, depth, ratios=[0, 0.3, 0.5, 0.8, 1], subsets={"s": inside}, num_nodes=n
    )
    total = len(edges)
    start = curve_point(n, edges, depth)
    had = [t for t in range(n) if start["closed"][t]]
    assert [row.removed for row in curves] == [
        total - math.floor(total * keep + 1e-9) for keep in (1.0, 0.7, 0.5, 0.2, 0.0)
    ]
    for row, part in zip(curves.rows, curves.partitions, strict=True):
        left = [edges[e] for e in order[row.removed :]]
        point = curve_point(n, left, depth, inside)
        assert row.kept == len(left)
        assert row.removed_share == (row.removed / total if total else 0.0)
        assert row.smallest_closed_walks == (min(point["closed"][t] for t in had) if had else None)
        assert (row.isolated, row.components) == (point["isolated"], point["components"])
        assert row.mean_log_vertex == pytest.approx(point["mean_log_vertex"], abs=1e-12)
        assert row.mean_log_graph == pytest.approx(point["mean_log_graph"], abs=1e-12)
        assert row.log_walk_index == part.log_walk_index == pytest.approx(point["log_walk_index"])
        assert part.walk_index == (0 if part.log_walk_index == -math.inf else round(math.exp(part.log_walk_index)))
    for name in ("mean_log_vertex", "mean_log_graph", "kept"):
        values = curves.column(name)
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    for name in ("isolated", "components"):
        values = curves.column(name)
        assert values == sorted(values)
    assert result_from_json(curves.to_json()) == curves


def test_a_point_is_the_graph_that_sparsification_leaves():
    graph = nx.gnm_random_graph(30, 70, seed=3)
    curves = removal_curves(graph, {"1-WIS": wis_order(graph)}, 3, subsets={"a": range(9)})
    assert len(curves) == 21
    for row, part, keep in zip(curves.rows, curves.partitions, [1 - step / 20 for step in range(21)], strict=True):
        left = wis_sparsify(graph, keep_ratio=keep)
        assert row.kept == left.number_of_edges()
        assert row.isolated == nx.number_of_isolates(left)
        assert part.walk_index == walk_index(left, range(9), 3)
    assert curves.rows[0].removed == 0
    assert curves.rows[-1].kept == 0
    assert curves.rows[-1].log_walk_index == -math.inf
    assert curves.rows[-1].mean_log_vertex == 0.0


def test_orders_may_be_results_arrays_tensors_or_lists():
    torch = pytest.importorskip("torch")
    graph = nx.gnm_random_graph(12, 20, seed=1)
    order = wis_order(graph)
    same = {
        "result": order,
        "array": order.edge_ids,
        "int32": order.edge_ids.astype(np.int32),
        "tensor": torch.tensor(order.edge_ids.copy()),
        "list": order.edge_ids.tolist(),
        "range, as it were": iter(order.edge_ids.tolist()),
    }
    curves = removal_curves(graph, same, 2, ratios=[0.25, 0.5])
    rows = [[(r.removed, r.isolated, r.mean_log_vertex) for r in curves if r.order == name] for name in same]
    assert all(row == rows[0] for row in rows)


def test_short_orders_end_early_and_the_curves_say_so():
    graph = nx.cycle_graph(10)
    curves = removal_curves(graph, {"short": [0, 1, 2], "whole": range(10)}, 2, ratios=[0.1, 0.3, 0.4, 0.9])
    assert [row.removed for row in curves if row.order == "short"] == [1, 3]
    assert len([row for row in curves if row.order == "whole"]) == 4
    assert curves.meta.skipped == {"order 'short' from 40% on": "it holds 3 of 10 edges"}
    assert [drawn.order for drawn in curves.drawn] == ["whole"]
    assert "different shares" in curves.explanation
    assert "Skipped order 'short'" in str(curves)
    nothing = removal_curves(graph, {"none": []}, 2, ratios=[0.5])
    assert nothing.rows == ()
    assert nothing.explanation == "No order reaches the shares asked for."
    assert problems(to_html(nothing)) == []


def test_directed_graphs():
    arrows = [[0, 1, 2, 3, 1], [1, 2, 0, 0, 3]]
    order = wis_order(arrows, depth=3, directed=True)
    curves = removal_curves(arrows, {"o": order}, 3, ratios=[0, 0.4, 1], subsets=[[0]], directed=True)
    first = curves.partitions[0]
    assert (first.subset, first.walk_index) == ("subset 0", 12)
    left = nx.DiGraph(list(zip(*arrows, strict=True)))
    left.remove_edges_from(map(tuple, order.edges[:2].tolist()))
    assert curves.column("components") == [1, nx.number_weakly_connected_components(left), 4]
    assert curves.column("isolated") == [0, nx.number_of_isolates(left), 4]
    assert curves.document().networks[0].directed
    last = curves.rows[-1]
    assert (last.isolated, last.components, last.mean_log_vertex) == (4, 4, 0.0)


def test_drawings_show_what_is_gone():
    graph = nx.barbell_graph(4, 0)
    orders = {"1-WIS": wis_order(graph), "random": random_order(graph, rng=0)}
    curves = removal_curves(graph, orders, 2, draw_ratio=0.6)
    first, second = curves.document().networks
    assert first.title == "1-WIS: 8 of 13 edges removed"
    assert (first.x, first.y) == (second.x, second.y)  # one place for every drawing
    gone = {edge for edge, kind in zip(first.edges, first.edge_class, strict=True) if kind}
    listed = as_edge_list(graph)
    assert gone == {tuple(listed.edges[e].tolist()) for e in orders["1-WIS"].edge_ids[:8]}
    left = nx.Graph([edge for edge in first.edges if edge not in gone])
    alone = [v for v in range(8) if v not in left]
    assert [v for v, kind in enumerate(first.node_class) if kind] == alone
    assert {k.dash for k in first.edge_classes} == {"solid", "dotted"}
    assert {k.shape for k in first.node_classes} == {"circle", "square"}


def test_a_large_graph_is_not_drawn_and_the_curves_say_so():
    for n, drawings in ((60, 2), (61, 0)):
        graph = nx.cycle_graph(n)
        curves = removal_curves(graph, {"a": range(n), "b": wis_order(graph)}, 3)
        document = curves.document()
        assert len(document.networks) == drawings
        assert len(curves.places) == (60 if drawings else 0)
        assert any(note.startswith("Not drawn: the graph has 61") for note in document.notes) == (not drawings)
        page = to_html(curves)
        assert problems(page) == []
        assert page.count('role="img"') == 4 + drawings


def test_names_are_escaped_and_survive_files():
    bad = "<script>alert(1)</script>"
    graph = nx.Graph([(bad, "&"), ("&", 3), (3, bad)])
    curves = removal_curves(graph, {bad: wis_order(graph)}, 2, subsets={bad: [bad], 7: [3]})
    page = to_html(curves)
    assert problems(page) == []
    assert bad not in page
    assert bad in Page(page).text
    back = result_from_json(curves.to_json())
    assert back == curves
    assert to_html(back) == page
    assert [plot.title for plot in curves.document().plots][-2:] == [f"Walk index of {bad}", "Walk index of 7"]
    assert "removed_share" in curves.to_csv().splitlines()[0]
    assert curves.verdict == "unknown"


def test_the_words_compare_orders():
    graph = nx.barbell_graph(6, 2)
    curves = removal_curves(graph, {"1-WIS": wis_order(graph), "by id": range(33)}, 2)
    assert "With 17 of 33 edges removed (52%)" in curves.explanation
    assert f"1-WIS 0 and {curves.rows[10].mean_log_vertex:.2f}; by id " in curves.explanation
    assert curves.explanation.endswith("1-WIS keeps most.")
    followed = removal_curves(graph, {"a": wis_order(graph)}, 2, subsets={"left": range(6)})
    left = min(abs(row.removed_share - 0.5) for row in followed.rows)
    log = next(row.log_walk_index for row in followed.rows if abs(row.removed_share - 0.5) == left)
    assert f"Of the subsets that are followed the smallest ln walk index is: a {log:.2f}. " in followed.explanation
    assert removal_curves(nx.empty_graph(3), {"a": []}, 2).explanation == "The graph has no edges to remove."
    found = flag(curves, ["isolated > 13", "mean_log_vertex < 0.01"])
    assert {finding.severity for finding in found} == {"alert"}


def test_deep_curves_stay_exact():
    graph = nx.complete_graph(12)
    curves = removal_curves(graph, {"a": wis_order(graph)}, 60, ratios=[0, 0.5], subsets=[range(5)])
    assert curves.partitions[0].walk_index == 12**60
    assert curves.rows[0].mean_log_graph == pytest.approx(60 * math.log(12))
    assert curves.rows[0].smallest_closed_walks == (12**60) // 12
    assert result_from_json(curves.to_json()) == curves
    assert problems(to_html(curves)) == []


@pytest.mark.parametrize(
    "graph", [nx.empty_graph(0), nx.empty_graph(1), nx.empty_graph(4), nx.path_graph(2)], ids=["0", "1", "4", "path"]
)
def test_edge_cases_render(graph):
    curves = removal_curves(graph, {"o": wis_order(graph)}, 2)
    assert problems(to_html(curves)) == []
    assert result_from_json(curves.to_json()) == curves
    assert str(curves)
    assert curves.rows[-1].kept == 0


GRAPH = [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"orders": [0, 1]}, TypeError, "`orders` must be a mapping"),
        ({"orders": {}}, ValueError, "`orders` must hold at least one"),
        ({"orders": {1: [0]}}, TypeError, "`orders` must have strings as names"),
        ({"orders": {"a": [0, 2]}}, ValueError, "`orders` at 'a' must hold edge ids from 0 to 1; got 2"),
        ({"orders": {"a": [-1]}}, ValueError, r"edge ids from 0 to 1; got -1"),
        ({"orders": {"a": [1, 1]}}, ValueError, "each edge id once; 1 are repeated"),
        ({"orders": {"a": [0.5]}}, TypeError, "integer edge ids"),
        ({"orders": {"a": [True]}}, TypeError, "integer edge ids"),
        ({"orders": {"a": [[0], [1]]}}, TypeError, "integer edge ids"),
        ({"orders": {"a": [[0], [1, 2]]}}, TypeError, "`orders` at 'a' must be a WISOrder"),
        ({"orders": {"a": "01"}}, TypeError, "must be a WISOrder or a sequence"),
        ({"orders": {"a": 5}}, TypeError, "must be a WISOrder or a sequence"),
        ({"orders": {"a": np.array(3)}}, TypeError, "integer edge ids"),
        ({"orders": {"a": [0, 1, 0]}}, ValueError, "each of 2 edge ids at most once"),
        ({"orders": {"a": itertools.count()}}, ValueError, "each of 2 edge ids at most once"),
        ({"orders": {"a": wis_order(nx.path_graph(4))}}, ValueError, "was made from another graph"),
        ({"orders": {"a": wis_order(nx.star_graph(2))}}, ValueError, "was made from another graph"),
        ({"ratios": []}, ValueError, "`ratios` must not be empty"),
        ({"ratios": np.zeros(1001)}, ValueError, "`ratios` must hold at most 1000"),
        ({"ratios": [1.5]}, ValueError, "`ratios`"),
        ({"ratios": 0.5}, ValueError, "`ratios`"),
        ({"ratios": ["x"]}, TypeError, "`ratios`"),
        ({"ratios": [float("nan")]}, ValueError, "`ratios`"),
        ({"draw_ratio": 2}, ValueError, "`draw_ratio`"),
        ({"subsets": [[9]]}, ValueError, "subset 0"),
        ({"subsets": {"a": [0, 0]}}, ValueError, "has duplicate vertices"),
        ({"subsets": 3}, TypeError, "`subsets`"),
        ({"subsets": itertools.repeat([0])}, ValueError, "`subsets` must hold at most 1000"),
        ({"depth": 0}, ValueError, "`depth`"),
        ({"graph": [[0, 1], [1, 2]]}, ValueError, "`directed`"),
    ],
)
def test_what_is_wrong_is_named(changes, error, words):
    call = {"graph": GRAPH, "orders": {"a": [0]}, "depth": 2, **changes}
    with pytest.raises(error, match=words):
        removal_curves(call.pop("graph"), call.pop("orders"), call.pop("depth"), **call)


@pytest.mark.slow
def test_a_citation_graph_loses_fewer_vertices_by_sparsification_than_by_chance():
    named = os.environ.get("RANKDIAG_DATA")
    folders = [Path(named)] if named else [parent / "shared" / "data" for parent in Path(__file__).parents]
    files = [folder / "planetoid" / "cora.npz" for folder in folders]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        pytest.skip("planetoid/cora.npz is not beside the repository; RANKDIAG_DATA may name its folder")
    graph = as_edge_list(np.load(found)["edge_index"], num_nodes=2708)
    orders = {"1-WIS": wis_order(graph), **{f"random {seed}": random_order(graph, rng=seed) for seed in range(3)}}
    curves = removal_curves(graph, orders, 3, subsets=[range(1354)])
    assert len(curves) == 84
    assert curves.partitions[0].walk_index == 126635
    assert curves.rows[10].isolated < 10 < curves.rows[31].isolated  # half of the edges are gone

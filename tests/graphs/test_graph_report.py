"""The report on a partition: figures from the definition, words, a drawing, and every way out of it."""

from __future__ import annotations

import copy
import math
import pickle

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_reports import boundary, loops_and_edges, walks
from oracles.html_page import Page, problems
from rankdiag._result import result_from_json
from rankdiag._rules import flag
from rankdiag.graphs import WalkIndexReport, separation_rank_bounds, walk_index_report, walk_index_share
from rankdiag.report import Section, from_json, to_html, to_json, to_text

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]


def _columns(edges: list[tuple[int, int]]) -> np.ndarray:
    both = [*edges, *((v, u) for u, v in edges)]
    return np.array(both, dtype=np.int64).reshape(-1, 2).T


def _karate() -> tuple[nx.Graph, list[int]]:
    club = nx.karate_club_graph()
    graph = nx.Graph()
    graph.add_nodes_from(club)
    graph.add_edges_from(club.edges)
    return graph, [v for v, name in club.nodes(data="club") if name == "Mr. Hi"]


def test_the_graph_of_the_first_figure():
    report = walk_index_report(_columns(FIGURE), [0, 1, 2, 3], 3)
    assert (report.walk_index, report.depth, report.num_crossing) == (48, 3, 3)
    assert report.boundary.tolist() == [2, 3, 4, 5]
    assert [row.walk_index for row in report.growth] == [4, 14, 48, 163, 552]
    assert [row.depth for row in report.growth] == [1, 2, 3, 4, 5]
    assert report.log_walk_index == math.log(48)
    assert report.share == walk_index_share(_columns(FIGURE), [0, 1, 2, 3], 3)
    per_target = [walk_index_report(_columns(FIGURE), [0, 1, 2, 3], 3, target=t).walk_index for t in range(7)]
    assert per_target == [5, 4, 9, 6, 7, 10, 7]
    assert walk_index_report(_columns(FIGURE), [0, 1, 2, 3], 20).walk_index == 47000055035
    assert walk_index_report(_columns(FIGURE), [0, 1, 2, 3], 40).walk_index == 1750836875405351456200


@st.composite
def cases(draw):
    n = draw(st.integers(1, 8))
    pairs = [(u, v) for u in range(n) for v in range(n) if u != v]
    directed = draw(st.booleans())
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    if not directed:
        edges = sorted({(min(e), max(e)) for e in edges})
    inside = draw(st.sets(st.integers(0, n - 1)))
    target = draw(st.none() | st.integers(0, n - 1))
    return n, edges, directed, inside, draw(st.integers(1, 5)), target


@given(cases())
def test_figures_are_those_of_the_definition(case):
    n, edges, directed, inside, depth, target = case
    columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T if directed else _columns(edges)
    report = walk_index_report(columns, inside, depth, target=target, directed=directed, num_nodes=n)
    matrix = loops_and_edges(n, edges, directed=directed)
    meets = boundary(matrix, inside)
    assert report.boundary.tolist() == meets
    assert report.num_crossing == sum((u in inside) != (v in inside) for u, v in edges)
    for row in report.growth:
        counts = walks(matrix, row.depth - 1, target)
        assert row.walks == sum(counts)
        assert row.walk_index == sum(counts[v] for v in meets)
        assert row.share == pytest.approx(row.walk_index / row.walks if row.walks else 0.0)
    counts = walks(matrix, depth - 1, target)
    assert [(s.vertex, s.walks) for s in report.starts] == sorted(
        ((v, counts[v]) for v in meets), key=lambda pair: (-pair[1], pair[0])
    )
    for start in report.starts:
        senders = [u for u in range(n) if u != start.vertex and matrix[u, start.vertex]]
        assert start.neighbours == len(senders)
        assert start.crossing == sum((u in inside) != (start.vertex in inside) for u in senders)
        assert (start.side == "inside") == (start.vertex in inside)
    assert sum(start.share for start in report.starts) == pytest.approx(1.0 if report.walk_index else 0.0)
    assert result_from_json(report.to_json()) == report
    assert problems(to_html(report)) == []


def test_depths_around_a_deep_one_are_listed_and_exact():
    report = walk_index_report(_columns(FIGURE), [0, 1, 2, 3], 100)
    assert [row.depth for row in report.growth] == [*range(1, 9), 16, 32, 64, 100, 102]
    matrix = loops_and_edges(7, FIGURE)
    for row in report.growth[-4:]:
        counts = walks(matrix, row.depth - 1)
        assert row.walk_index == sum(counts[v] for v in (2, 3, 4, 5))
    assert max(row.walk_index for row in report.growth) > 2**128
    counts = walks(matrix, 99)
    assert [s.vertex for s in report.starts] == sorted((2, 3, 4, 5), key=lambda v: (-counts[v], v))


def test_a_very_deep_report_goes_to_files_and_back():
    report = walk_index_report(nx.complete_graph(9), range(4), 4600)
    assert report.walk_index == 9**4600
    assert report.log_walk_index == pytest.approx(4600 * math.log(9))
    assert result_from_json(report.to_json()).walk_index == 9**4600
    assert "e+4389" in str(report)
    assert problems(to_html(report)) == []
    assert [f.severity for f in flag(report, ["log_walk_index > 3", "share < 0.5"])] == ["alert"]


def test_every_way_out_keeps_everything():
    graph, hi = _karate()
    report = walk_index_report(graph, hi, 3, d_in=2, d_hidden=2)
    for back in (
        result_from_json(report.to_json()),
        pickle.loads(pickle.dumps(report)),
        copy.deepcopy(report),
        from_json(to_json(report)),
    ):
        assert back == report
        assert type(back) is WalkIndexReport
        assert to_html(back) == to_html(report)
        for name in ("boundary", "inside", "places", "edges"):
            array = getattr(back, name)
            assert array.dtype == getattr(report, name).dtype
            assert not array.flags.writeable


def test_the_page_has_the_drawing_and_loads_nothing():
    graph, hi = _karate()
    report = walk_index_report(graph, hi, 3, d_in=2, d_hidden=2)
    page = to_html([Section(title="A club", results=[report])])
    assert problems(page) == []
    (network,) = report.document().networks
    assert f"<title>{network.names[33]} (outside, boundary, bottleneck)</title>" in page
    assert page.count("<line") > 78
    text = to_text(report)
    assert "The graph and its two sides: a drawing of 34 vertices" in " ".join(text.split())
    assert "Not drawn" not in text
    drawn = dict(zip(network.names, network.node_class, strict=True))
    for vertex in range(34):
        kind = network.node_classes[drawn[str(vertex)]]
        assert (kind.shape == "circle") == (vertex in hi)
        assert kind.filled == (vertex in report.boundary)
        assert kind.ring == (vertex in report.bottleneck)
    crossing = [e for e, kind in zip(network.edges, network.edge_class, strict=True) if kind]
    assert len(crossing) == report.num_crossing == 11
    assert all((u in hi) != (v in hi) for u, v in crossing)


def test_kinds_of_vertices_are_told_apart_without_colour():
    graph = nx.path_graph(6)
    (network,) = walk_index_report(graph, [0, 1, 2], 2, target=0, d_in=2, d_hidden=2).document().networks
    looks = [(k.shape, k.filled, k.ring) for k in network.node_classes]
    assert len(set(looks)) == len(looks)
    target = network.node_classes[network.node_class[0]]
    assert target.shape == "diamond"
    assert "target" in target.label


def test_bounds_are_there_when_widths_are():
    graph = nx.path_graph(["a", "b", "c", "d"])
    report = walk_index_report(graph, ["a", "b"], 2, d_in=2, d_hidden=2, target="b")
    alone = separation_rank_bounds(graph, ["a", "b"], 2, 2, 2, target="b")
    assert report.bounds.log_upper_mincut == alone.log_upper_mincut
    assert report.bounds.bottleneck == alone.bottleneck
    assert report.bottleneck == tuple(sorted({r.vertex for r in alone.bottleneck if r.vertex is not None}))
    assert [part.title for part in report.document().sections] == ["Bounds on the separation rank"]
    plain = walk_index_report(graph, ["a", "b"], 2)
    assert plain.bounds is None
    assert plain.bottleneck == ()
    assert plain.document().sections == ()
    with pytest.raises(TypeError, match="`d_in` and `d_hidden` must be given together"):
        walk_index_report(graph, ["a", "b"], 2, d_in=2)
    with pytest.raises(ValueError, match="`d_hidden`"):
        walk_index_report(graph, ["a", "b"], 2, d_in=2, d_hidden=0)


def test_labels_of_networkx_are_kept_and_escaped():
    bad = '<script>alert("x")</script>'
    graph = nx.Graph([(bad, 3), (3, ("a", 1)), (("a", 1), "&")])
    report = walk_index_report(graph, [bad, 3], 2, target=3)
    assert report.labels == (bad, 3, "('a', 1)", "&")
    assert [start.label for start in report.starts] == [3, "('a', 1)"]
    assert report.target == 1
    page = to_html(report)
    assert problems(page) == []
    assert bad not in page
    assert bad in Page(page).text
    assert "at vertex 3" in report.document().title
    assert result_from_json(report.to_json()).labels == report.labels


def test_a_large_graph_is_not_drawn_and_the_report_says_so():
    for n, drawn in ((60, True), (61, False)):
        report = walk_index_report(nx.cycle_graph(n), range(20), 3)
        document = report.document()
        assert bool(document.networks) == drawn
        assert (len(report.places), len(report.edges)) == ((n, n) if drawn else (0, 0))
        words = [note for note in document.notes if note.startswith("Not drawn")]
        assert len(words) == (not drawn)
        page = to_html(report)
        assert page.count('role="img"') == 1 + drawn
        assert ("Not drawn: the graph has 61 vertices" in page) == (not drawn)


def test_the_words_say_how_to_read_it():
    said = lambda *args, **kw: walk_index_report(*args, **kw).explanation  # noqa: E731 - one line for many cases
    assert "mixes the two sides freely" in said(nx.barbell_graph(8, 0), range(0, 16, 2), 3)
    far = nx.barbell_graph(31, 0)
    assert "bottleneck" in said(far, range(31), 3)
    assert "other partitions of this graph" in said(nx.barbell_graph(8, 0), range(8), 3)
    assert "1 edge crosses" in said(far, range(31), 3)
    assert "One side is empty" in said(far, [], 3)
    assert "One side is empty" in said(far, range(62), 3)
    assert "No edge crosses" in said([[0, 1], [1, 0]], [0, 1], 3, num_nodes=3)
    assert "no vertices" in said(nx.empty_graph(0), [], 3)
    assert "No walk of length 1 leads from the boundary to vertex 0" in said(nx.path_graph(9), range(5), 2, target=0)
    for report in (walk_index_report(far, range(31), 3), walk_index_report(far, [], 2)):
        assert report.verdict == "unknown"
        assert report.meta.details["depth"].startswith(str(report.depth))


def test_edge_cases_render():
    for graph, subset in (
        (nx.empty_graph(0), []),
        (nx.empty_graph(1), [0]),
        (nx.empty_graph(3), [1]),
        (nx.path_graph(2), [0]),
        (nx.complete_graph(3), [0, 1, 2]),
        (nx.DiGraph([(0, 1), (1, 2), (2, 0), (3, 0), (1, 3)]), [0]),
    ):
        report = walk_index_report(graph, subset, 3, directed=graph.is_directed())
        assert problems(to_html(report)) == []
        assert result_from_json(report.to_json()) == report
        assert str(report)
    assert report.walk_index == 12
    assert report.document().networks[0].directed


def test_growth_is_plotted_and_drawn_with_matplotlib():
    matplotlib = pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    matplotlib.use("Agg")
    report = walk_index_report(nx.barbell_graph(8, 0), range(8), 3)
    first, second = Figure().subplots(1, 2)
    report.plot(first)
    assert first.lines[0].get_ydata().tolist() == [row.log_walk_index for row in report.growth]
    assert report.plot(second, which=1).get_title() == "The graph and its two sides"


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"depth": 0}, ValueError, "`depth`"),
        ({"depth": 2.5}, TypeError, "`depth`"),
        ({"subset": [9]}, ValueError, "`subset` contains vertex 9"),
        ({"target": 9}, ValueError, "`target`"),
        ({"num_nodes": 2}, ValueError, "`num_nodes`"),
        ({"graph": [[0, 1], [1, 2]]}, ValueError, "`directed`"),
        ({"num_nodes": 2**31}, ValueError, "`graph` of shape"),
        ({"directed": "yes"}, TypeError, "`directed`"),
    ],
)
def test_what_is_wrong_is_named(changes, error, words):
    given_ = {"graph": _columns(FIGURE), "subset": [0], "depth": 2, **changes}
    with pytest.raises(error, match=words):
        walk_index_report(given_.pop("graph"), given_.pop("subset"), given_.pop("depth"), **given_)

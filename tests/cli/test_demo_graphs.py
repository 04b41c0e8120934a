"""The club of the demo: what its page claims holds, it is the same every time, and it warns of nothing."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from oracles.html_page import problems
from rankdiag.cli.demo import found
from rankdiag.report import Section, to_html, to_text


@pytest.fixture(scope="module")
def section():
    return next(module for module in found() if module.__name__.endswith(".graphs"))


@pytest.fixture(scope="module")
def results(section):
    return section.run(Path())  # a warning about weights would fail


@pytest.fixture(scope="module")
def club():
    return nx.karate_club_graph()


def test_the_report_is_about_the_split_of_the_club(results, club):
    report = results[0]
    hi = {member for member, leader in club.nodes(data="club") if leader == "Mr. Hi"}
    assert set(np.flatnonzero(report.inside).tolist()) == hi
    crossing = [(u, v) for u, v in club.edges if (u in hi) != (v in hi)]
    assert report.num_crossing == len(crossing) == 11
    adjacency = (nx.to_numpy_array(club, weight=None) + np.eye(34)).astype(int)
    walks = np.linalg.matrix_power(adjacency, 2).sum(axis=1)
    assert report.walk_index == walks[sorted({v for edge in crossing for v in edge})].sum()
    (network,) = report.document().networks
    assert sum(network.edge_class) == 11


def test_a_random_half_is_seen_across_far_better(results):
    scan = results[1]
    share = {row.name: row.share for row in scan}
    assert len(share) >= 8
    assert share["a random half"] > 0.9 > 0.6 > share["the split"]
    assert share["the split"] == results[0].share


def test_half_of_the_edges_go_and_nobody_is_left_alone(results):
    order, curves = results[2:]
    half = {row.order: row for row in curves if row.removed == 39}
    assert len(order.edge_ids) == 78
    assert half["1-WIS"].isolated == half["2-WIS"].isolated == 0
    assert half["random"].isolated > 0
    assert half["spectral"].isolated > 0
    assert min(half["1-WIS"].mean_log_vertex, half["2-WIS"].mean_log_vertex) > max(
        half["random"].mean_log_vertex, half["spectral"].mean_log_vertex
    )
    assert [network.title.split(":")[0] for network in curves.document().networks] == list(half)


def test_a_second_run_is_the_first_one(section, results):
    assert section.run(Path()) == results


def test_the_page_and_the_text_show_it(section, results):
    part = [Section(title=section.TITLE, intro=section.INTRO, results=results)]
    page = to_html(part)
    assert problems(page) == []
    assert page.count("The same in words") == 5
    text = to_text(part)
    assert "a drawing of 34 vertices" in " ".join(text.split())
    assert "a random half" in text

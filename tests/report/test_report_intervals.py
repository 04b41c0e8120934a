"""Intervals of a series: a band around a line and a bar through a point, in both back ends, and what leaves one out."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from oracles.html_page import problems
from rankdiag._document import Plot, Series
from rankdiag._mpl import draw
from rankdiag._svg import render_plot

HEIGHT = 260


def _plot(*series, **options):
    return Plot(title="t", x_label="x", y_label="y", series=series, **options)


def _figure(plot):
    text = render_plot(plot, "p")
    assert problems(f"<h2>x</h2>{text}") == []
    return ElementTree.fromstring(text)


def _bands(figure):
    return [path.get("d") for path in figure.iter("path") if "fill-opacity:.18" in (path.get("style") or "")]


def _corners(path):
    return [tuple(map(float, corner)) for corner in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def _line(**options):
    values = {"x": [0.0, 1.0, 2.0], "y": [1.0, 2.0, 3.0], "low": [0.0, 1.0, 2.0], "high": [4.0, 3.0, 4.0], **options}
    return Series(label="a", **values)


def test_a_band_runs_along_its_upper_ends_and_back_along_its_lower_ones():
    corners = _corners(_bands(_figure(_plot(_line())))[0])
    start, end = corners[0][0], corners[2][0]
    middle = (start + end) / 2
    assert [x for x, _ in corners] == pytest.approx([start, middle, end, end, middle, start], abs=0.1)
    heights = [HEIGHT - y for _, y in corners]
    step = heights[0] / 4.0  # the range starts at 0, the lowest end
    assert heights == pytest.approx([4 * step, 3 * step, 4 * step, 2 * step, step, 0.0], abs=0.2)
    assert [t.text for t in _figure(_plot(_line())).iter("title")][1] == "a (0, 1), 0 to 4"


def test_a_gap_cuts_a_band_and_an_end_that_is_not_finite_leaves_its_interval_out():
    long = {"x": list(range(7)), "y": [1.0, 2.0, 1.0, math.nan, 1.0, 2.0, 1.0]}
    gap = Series(label="", **long, low=[0.5] * 7, high=[3.0] * 7)
    assert _bands(_figure(_plot(gap)))[0].count("M") == 2
    hole = _line(x=[0, 1, 2, 3, 4], y=[1.0] * 5, low=[0.0] * 5, high=[2.0, 2.0, math.inf, 2.0, 2.0])
    band = _bands(_figure(_plot(hole)))[0]
    assert band.count("M") == 2
    assert len(_corners(band)) == 8
    assert _bands(_figure(_plot(_line(low=(), high=())))) == []
    assert _bands(_figure(_plot(_line(low=[0.0] * 3), y_scale="log"))) == []


def test_steps_have_a_band_of_steps():
    corners = _corners(_bands(_figure(_plot(_line(kind="steps"))))[0])
    assert len(corners) == 10
    assert corners[1] == (corners[2][0], corners[0][1])


def test_points_have_upright_bars():
    figure = _figure(_plot(_line(kind="points", high=[4.0, math.nan, 4.0])))
    group = next(g for g in figure.iter("g") if "stroke-width:1.6" in (g.get("style") or ""))
    bars = [(line.get("x1"), line.get("x2"), float(line.get("y1")) > float(line.get("y2"))) for line in group]
    assert len(bars) == 2
    assert all(left == right and down for left, right, down in bars)


def test_matplotlib_draws_the_same_intervals():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    ax = draw(_plot(_line(), _line(kind="points", high=[4.0, math.nan, 4.0])), Figure().subplots())
    band, bars = ax.collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0.0
    assert band.get_paths()[0].vertices[:, 1].max() == 4.0
    drawn = [part.tolist() for part in bars.get_segments() if len(part)]
    assert drawn == [[[0.0, 0.0], [0.0, 4.0]], [[2.0, 2.0], [2.0, 4.0]]]


def test_intervals_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`low` and `high` must both be empty or have 3 entries; got 2 and 3"):
        _line(low=[0.0, 1.0])
    with pytest.raises(ValueError, match="got 3 and 0"):
        _line(high=())
    with pytest.raises(ValueError, match="must be empty for bars"):
        _line(kind="bars")

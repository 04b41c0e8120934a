"""Plots as inline SVG, read back as XML: what is drawn, where, and what is said about the rest."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from oracles.html_page import problems
from rankdiag._document import Plot, ReferenceLine, Series
from rankdiag._svg import render_plot

HEIGHT = 260


def _figure(plot: Plot, ident: str = "p") -> ElementTree.Element:
    text = render_plot(plot, ident)
    assert problems(f"<h2>x</h2>{text}") == []
    return ElementTree.fromstring(text)


def _plot(*series: Series, **options: object) -> Plot:
    return Plot(title="t", x_label="x", y_label="y", series=series, **options)  # type: ignore[arg-type]


def _points(figure: ElementTree.Element) -> list[tuple[float, float, str]]:
    return [
        (float((c.get("cx") or "").rstrip("%")), float(c.get("cy") or ""), c.findtext("title") or "")
        for c in figure.iter("circle")
        if c.get("cx", "").endswith("%")
    ]


def _paths(figure: ElementTree.Element) -> list[str]:
    return [path.get("d") or "" for path in figure.iter("path") if path.get("vector-effect")]


def _notes(figure: ElementTree.Element) -> str:
    return " ".join(p.text or "" for p in figure.iter("p") if p.get("class") == "rankdiag-small")


def test_points_lie_where_their_values_say():
    x, y = [0.0, 1.0, 4.0], [1.0, 0.0, 2.0]
    points = _points(_figure(_plot(Series(label="s", x=x, y=y, kind="points", names=["a", "b", "c"]))))
    assert [title for *_, title in points] == ["a (0, 1)", "b (1, 0)", "c (4, 2)"]
    across, down = [p[0] for p in points], [p[1] for p in points]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(1 / 4, abs=1e-3)
    assert (down[0] - down[2]) / (down[1] - down[2]) == pytest.approx(1 / 2, abs=1e-3)
    assert down[1] == pytest.approx(HEIGHT)  # zero is the foot of the plot


def test_log_axes_space_powers_of_ten_evenly():
    series = Series(label="s", x=[1.0, 10.0, 1000.0], y=[1e-3, 1e-2, 1.0], kind="points")
    points = sorted(_points(_figure(_plot(series, x_scale="log", y_scale="log"))))
    across, down = [p[0] for p in points], [p[1] for p in points]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(1 / 3, abs=1e-3)
    assert (down[0] - down[1]) / (down[0] - down[2]) == pytest.approx(1 / 3, abs=1e-3)


def test_bars_are_as_tall_as_their_values_and_do_not_overlap():
    x, first, second = [1.0, 2.0, 3.0], [1.0, 4.0, 2.0], [3.0, 0.0, -2.0]
    figure = _figure(_plot(Series(label="a", x=x, y=first, kind="bars"), Series(label="b", x=x, y=second, kind="bars")))
    bars = [rect for rect in figure.iter("rect") if (rect.get("x") or "").endswith("%")]
    assert len(bars) == 6
    heights = [float(bar.get("height") or "") for bar in bars]
    unit = heights[0]
    assert heights == pytest.approx([unit * abs(v) for v in (*first, *second)], abs=0.2)
    spans = sorted((float((b.get("x") or "").rstrip("%")), float((b.get("width") or "").rstrip("%"))) for b in bars)
    for (start, width), (following, _) in itertools.pairwise(spans):
        assert start + width <= following + 0.02
    base = float(bars[0].get("y") or "") + heights[0]
    assert float(bars[5].get("y") or "") == pytest.approx(base, abs=0.2)  # a negative bar hangs below zero


def test_steps_go_across_and_then_up():
    (path,) = _paths(_figure(_plot(Series(label="s", x=[0.0, 1.0, 2.0], y=[0.0, 5.0, 2.0], kind="steps"))))
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}", path)


def test_values_that_cannot_be_drawn_leave_gaps_and_are_counted():
    y = [1.0, 2.0, math.nan, 4.0, math.inf, 6.0, 0.0, None, 3.0, 2.0]
    figure = _figure(_plot(Series(label="loss", x=list(range(10)), y=y), y_scale="log"))  # type: ignore[arg-type]
    (path,) = _paths(figure)
    assert path.count("M") == 4
    assert path.count("h0") == 2  # 4 and 6 stand alone
    assert len(_points(figure)) == 6
    assert _notes(figure) == "4 of 10 values of loss are not drawn: not finite, or not positive."


def test_a_huge_series_keeps_its_peaks_and_says_so():
    count = 100_000
    y = [math.sin(i / 1000) for i in range(count)]
    y[12_345], y[77_777] = 30.0, -40.0
    figure = _figure(_plot(Series(label="s", x=list(range(count)), y=y)))
    (path,) = _paths(figure)
    downs = [float(d) for d in re.findall(r"[ML][\d.-]+ ([\d.-]+)", path)]
    drawn = len(downs)
    assert drawn <= 800
    assert _notes(figure) == f"{drawn} of 100000 values of s are drawn, every peak among them."
    others = sorted(downs)[1:-1]
    assert min(downs) < min(others) - 80  # the two peaks stand out by themselves
    assert max(downs) > max(others) + 80
    assert path.count("M") == 1
    assert len(render_plot(_plot(Series(label="s", x=list(range(count)), y=y)), "p")) < 40_000


def test_gaps_of_a_huge_series_stay_gaps():
    y = [math.nan if 5000 <= i < 6000 else 1.0 for i in range(20_000)]
    (path,) = _paths(_figure(_plot(Series(label="s", x=list(range(20_000)), y=y))))
    assert path.count("M") == 2


def test_reference_lines_have_their_labels_apart():
    values = (0.1, 0.12, 0.14, 0.5, -0.5, -0.52, 0.99)
    lines = tuple(ReferenceLine(axis="y", value=v, label=f"threshold {v}") for v in values)
    lines += tuple(ReferenceLine(axis="x", value=float(v), label=f"edge {v}") for v in (3, 4, 5, 20, 21))
    series = Series(label="s", x=list(range(30)), y=[math.sin(i / 4) for i in range(30)])
    figure = _figure(_plot(series, lines=lines))
    labels = {"".join(t.itertext()).partition(")")[2]: t for t in figure.iter("text") if t.find("title") is not None}
    assert set(labels) == {line.label for line in lines}
    downs = sorted(float(labels[f"threshold {v}"].get("y") or "") for v in values)
    assert all(b - a >= 14 for a, b in itertools.pairwise(downs))
    assert downs[0] >= 0
    assert downs[-1] <= HEIGHT
    rows = [float(labels[f"edge {v}"].get("y") or "") for v in (3, 4, 5)]
    assert len(set(rows)) == 3
    assert all(row < 0 for row in rows)


def test_many_lines_at_one_place_still_fit():
    lines = tuple(ReferenceLine(axis="y", value=0.5, label=f"line {i}") for i in range(12))
    figure = _figure(_plot(Series(label="s", x=[0.0, 1.0], y=[0.0, 1.0]), lines=lines))
    downs = sorted(float(t.get("y") or "") for t in figure.iter("text") if t.find("title") is not None)
    assert len(downs) == 12
    assert all(b - a >= 14 for a, b in itertools.pairwise(downs))
    assert downs[0] >= 0
    assert downs[-1] <= HEIGHT


@pytest.mark.parametrize("axis", ["x", "y"])
def test_too_many_lines_to_label_are_named_in_the_legend(axis):
    lines = tuple(ReferenceLine(axis=axis, value=i / 40, label=f"line {i}") for i in range(40))
    figure = _figure(_plot(Series(label="s", x=[0.0, 1.0], y=[0.0, 1.0]), lines=lines))
    assert [t for t in figure.iter("text") if t.find("title") is not None] == []
    legend = " ".join("".join(item.itertext()) for item in figure.iter("li"))
    assert all(f"line {i} ({i / 40:.4g})" in legend for i in range(40))
    assert len([e for e in figure.iter("line") if (e.get("x1"), e.get("y1")) != (e.get("x2"), e.get("y2"))]) >= 40


def test_a_long_upright_label_stays_within_a_narrow_plot():
    label = "a label of exactly forty letters, no less"[:40]
    for at, place, anchor in ((0.05, None, "start"), (0.4, "0%", "start"), (0.6, "100%", "end"), (0.95, None, "end")):
        lines = (ReferenceLine(axis="x", value=at, label=label),)
        figure = _figure(_plot(Series(label="s", x=[0.0, 1.0], y=[0.0, 1.0]), lines=lines))
        (text,) = [t for t in figure.iter("text") if t.find("title") is not None]
        assert text.get("text-anchor") == anchor
        if place is not None:
            assert text.get("x") == place


def test_a_line_outside_is_named_below():
    figure = _figure(
        _plot(Series(label="s", x=[0.0, 1.0], y=[1.0, 2.0]), lines=(ReferenceLine(axis="y", value=1e6, label="limit"),))
    )
    assert "Outside this plot: limit (1000000)." in _notes(figure)


def test_a_long_label_is_shortened_in_the_plot_and_whole_in_the_legend():
    label = "the bound of theorem 4 in a paper with a very long title"
    figure = _figure(
        _plot(Series(label="s", x=[0.0, 1.0], y=[1.0, 2.0]), lines=(ReferenceLine(axis="y", value=1.5, label=label),))
    )
    inside = next(t for t in figure.iter("text") if t.find("title") is not None)
    assert "".join(inside.itertext()).endswith("…")
    assert f"{label} (1.5)" in " ".join("".join(item.itertext()) for item in figure.iter("li"))


def test_every_odd_plot_is_sound(odd_plots):
    for number, plot in enumerate(odd_plots):
        text = render_plot(plot, f"p{number}")
        figure = _figure(plot, f"p{number}")
        assert not re.search(r'="[^"]*\b(nan|inf)\b', text), plot.title
        empty = plot.title in {"no series", "empty series", "nothing finite", "nothing positive", "only a line"}
        assert ("no values to draw" in text) == empty
        for value in re.findall(r'(?:x|x1|x2|cx)="(-?[\d.]+)%"', text):
            assert -0.01 <= float(value) <= 100.01, plot.title
        for element in figure.iter("circle"):
            assert 0 <= float(element.get("cy") or "0") <= HEIGHT + 0.1


def test_a_plot_says_in_words_what_it_shows():
    series = Series(label="loss", x=[1.0, 2.0, 3.0], y=[5.0, 4.0, 2.5])
    lines = (ReferenceLine(axis="y", value=2.0, label="floor"),)
    figure = _figure(_plot(series, lines=lines, description="Loss falls."))
    image = figure.find(".//svg[@role='img']")
    assert image is not None
    ids = {e.get("id"): "".join(e.itertext()) for e in figure.iter() if e.get("id")}
    words = [ids[i] for i in (image.get("aria-labelledby") or "").split()]
    assert words == ["t", "Loss falls. loss: 3 values, from 2.5 to 5. floor: 2."]


def test_series_differ_by_more_than_colour():
    lines = [Series(label=str(i), x=[0.0, 1.0], y=[0.0, i]) for i in range(6)]
    figure = _figure(_plot(*lines))
    dashes = {re.sub(r"stroke:var\([^)]*\)", "", p.get("style") or "") for p in figure.iter("path")}
    assert len(dashes) == 6
    points = [Series(label=str(i), x=[0.0], y=[i], kind="points") for i in range(6)]
    figure = _figure(_plot(*points))
    groups = [g for g in figure.iter("g") if "fill" in (g.get("style") or "") and g.find(".//title") is not None]
    looks = {
        (g[0].tag, (g.find(".//path").get("d") if g.find(".//path") is not None else ""), "paper" in g.get("style"))  # type: ignore[union-attr,operator]
        for g in groups
    }
    assert len(looks) == 6


def test_the_same_plot_gives_the_same_bytes_and_ids_of_its_own(weights):
    first = render_plot(weights.plots[0], "a")
    assert first == render_plot(weights.plots[0], "a")
    both = first + render_plot(weights.plots[0], "b")
    assert problems(f"<h2>x</h2>{both}") == []

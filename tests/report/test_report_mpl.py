"""Plots with matplotlib: on the axes that are given, nothing else touched, every part labelled."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest

from rankdiag._document import Plot, ReferenceLine, Series
from rankdiag._mpl import draw

matplotlib = pytest.importorskip("matplotlib")


matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture
def axes():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.subplots()


def _plot(*series, **options):
    return Plot(title="A title", x_label="layer", y_label="rank (directions)", series=series, **options)


def test_given_axes_are_drawn_on_and_returned(axes):
    from matplotlib import pyplot

    before, settings = pyplot.get_fignums(), copy.deepcopy(dict(matplotlib.rcParams))
    series = Series(label="loss", x=[1, 2, 3], y=[1.0, math.nan, 3.0])
    lines = (ReferenceLine(axis="y", value=2.0, label="limit"), ReferenceLine(axis="x", value=1.5, label="edge"))
    assert draw(_plot(series, lines=lines, x_scale="log"), axes) is axes
    assert pyplot.get_fignums() == before
    assert dict(matplotlib.rcParams) == settings
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("A title", "layer", "rank (directions)")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["loss", "limit (2)", "edge (1.5)"]
    drawn, limit, edge = axes.lines
    assert drawn.get_xdata()[0] == 1
    assert math.isnan(drawn.get_ydata()[1])
    assert set(limit.get_ydata()) == {2.0}
    assert set(edge.get_xdata()) == {1.5}
    axes.figure.canvas.draw()


def test_without_axes_there_is_one_new_figure_which_is_not_shown(monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda *a, **k: pytest.fail("show was called"))
    before = pyplot.get_fignums()
    ax = draw(_plot(Series(label="", x=[1, 2], y=[1, 2])))
    assert len(pyplot.get_fignums()) == len(before) + 1
    assert ax.figure.axes == [ax]
    assert ax.get_legend() is None


def test_kinds(axes):
    x = [1.0, 2.0, 3.0]
    draw(
        _plot(
            Series(label="p", x=x, y=x, kind="points"),
            Series(label="s", x=x, y=x, kind="steps"),
            Series(label="b", x=x, y=[1.0, 2.0, -1.0], kind="bars"),
            Series(label="c", x=x, y=x, kind="bars"),
        ),
        axes,
    )
    points, steps = axes.lines
    assert points.get_linestyle() == "None"
    assert points.get_marker() == "o"
    assert steps.get_drawstyle() == "steps-post"
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[1.0, 2.0, -1.0], [1.0, 2.0, 3.0]]
    first, second = ([(bar.get_x(), bar.get_width()) for bar in bars] for bars in axes.containers)
    for (x1, w1), (x2, w2), centre in zip(first, second, x, strict=True):
        assert x1 + w1 == pytest.approx(x2)
        assert (x1 + x2 + w2) / 2 == pytest.approx(centre)
    axes.figure.canvas.draw()


def test_two_plots_on_one_axes_keep_apart(axes):
    for label in ("first", "second"):
        draw(_plot(Series(label=label, x=[1, 2], y=[1, 2])), axes)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["first", "second"]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()


def test_odd_plots_draw_without_a_warning(odd_plots, axes):
    for plot in odd_plots:
        axes.clear()
        if plot.title in {"largest floats", "close together", "all magnitudes", "subnormal"}:
            continue  # beyond what matplotlib's own tickers can place
        draw(plot, axes)
        axes.figure.canvas.draw()


def test_names_are_text_and_no_formula(axes, hostile_names):
    names = [name for name in hostile_names if name.isascii() and len(name) < 100] + [r"$\frac{$"]
    series = [Series(label=name, x=[0, 1], y=[0, 1]) for name in names]
    plot = Plot(title=r"$\frac{$", x_label=r"$\frac{$", y_label=r"$\frac{$", series=tuple(series))
    draw(plot, axes)
    axes.figure.canvas.draw()
    labels = [text.get_text().strip() for text in axes.get_legend().get_texts()]
    assert len(labels) == len(names)
    assert "_hidden" in labels


def test_only_axes_are_drawn_on():
    from matplotlib.figure import Figure

    with pytest.raises(TypeError, match="`ax` must be a matplotlib Axes or None; got Figure"):
        draw(_plot(), Figure())


def test_a_result_draws_its_plots_by_number(axes, weights, sample):
    with pytest.raises(ValueError, match=r"`which` names one of the plots of a result, and .* has none here"):
        sample.plot(axes)


def test_the_missing_package_is_named():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from rankdiag._document import Plot\nfrom rankdiag._mpl import draw\n"
        "try:\n    draw(Plot(title='', x_label='', y_label='', series=()))\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError plot() needs the package 'matplotlib'")
    assert 'rankdiag[plot]"' in done.stdout

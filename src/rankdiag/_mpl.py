"""Plots with matplotlib, on the axes that are given and on nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from rankdiag._document import Network, NodeClass, Plot, Series, clean, format_value
from rankdiag._optional import optional
from rankdiag._svg import PALETTE

__all__ = ["draw"]

_DASHES = ("-", (0, (5, 2)), (0, (1, 2)), (0, (5, 2, 1, 2)), (0, (8, 3)), (0, (3, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "^", "v", "P")
_SHAPES = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^"}
_LINES = {"solid": "-", "dashed": (0, (5, 3)), "dotted": (0, (1, 2))}
_REFERENCE_DASHES = ((0, (4, 3)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)))


def draw(plot: Plot | Network, ax: Any = None) -> Any:
    """Draw a plot or a graph with matplotlib.

    Parameters
    ----------
    plot : Plot or Network
        What to draw.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; None makes one new figure, which is not shown.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on. Points that are not finite, or not positive on a log scale, leave gaps.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    TypeError
        If `ax` is no matplotlib axes.
    """
    axes = optional("matplotlib.axes", extra="plot", feature="plot()").Axes
    if ax is None:
        ax = optional("matplotlib.pyplot", extra="plot", feature="plot()").subplots(layout="constrained")[1]
    elif not isinstance(ax, axes):
        raise TypeError(f"`ax` must be a matplotlib Axes or None; got {type(ax).__name__}")
    if isinstance(plot, Network):
        _network(plot, ax)
    else:
        _plot(plot, ax)
    ax.set_title(clean(plot.title), parse_math=False)  # names come from files: a dollar sign in them is no formula
    if ax.get_legend_handles_labels()[1]:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": 2, "frameon": False, "fontsize": "small"}
        for text in ax.legend(**(below if isinstance(plot, Network) else {})).get_texts():
            text.set_parse_math(False)
    return ax


def _plot(plot: Plot, ax: Any) -> None:
    before = len(ax.get_legend_handles_labels()[1])  # what was drawn here before keeps its own colours
    bars = [series for series in plot.series if series.kind == "bars"]
    for number, series in enumerate(plot.series):
        _series(plot, series, before + number, bars, ax)
    for number, line in enumerate(plot.lines):
        if _drawable(line.value, plot.y_scale if line.axis == "y" else plot.x_scale):
            across = ax.axhline if line.axis == "y" else ax.axvline
            dash = _REFERENCE_DASHES[number % len(_REFERENCE_DASHES)]
            label = _label(f"{line.label} ({format_value(float(line.value))})")
            across(line.value, color="0.35", linewidth=1.2, linestyle=dash, zorder=1.5, label=label)
    if any(x == x for series in plot.series for x, _ in _pairs(plot, series)):  # no log scale without data
        ax.set_xscale(plot.x_scale)
        ax.set_yscale(plot.y_scale)
    ax.set_xlabel(clean(plot.x_label), parse_math=False)
    ax.set_ylabel(clean(plot.y_label), parse_math=False)


def _label(text: str) -> str:
    """Return a label for a legend; matplotlib would leave out one that starts with an underscore."""
    return f" {clean(text)}" if text.startswith("_") else clean(text)


def _drawable(value: float, scale: str) -> bool:
    return math.isfinite(value) and not (scale == "log" and value <= 0)


def _series(plot: Plot, series: Series, number: int, bars: list[Series], ax: Any) -> None:
    style = {"color": PALETTE[number % len(PALETTE)], "label": _label(series.label)}
    pairs = list(_pairs(plot, series))
    if len(series.low):
        _intervals(plot, series, pairs, ax, style["color"])
    if series.kind == "bars":
        _bars(pairs, [s is series for s in bars].index(True), len(bars), ax, style)
        return
    xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
    if series.kind == "points":
        marker = _MARKERS[number % len(_MARKERS)]
        ax.plot(xs, ys, marker=marker, markersize=4, linestyle="none", alpha=0.85, **style)
        return
    ax.plot(
        xs,
        ys,
        linestyle=_DASHES[number % len(_DASHES)],
        linewidth=1.6,
        marker="o" if len(pairs) <= 60 and series.kind == "line" else None,
        markersize=3,
        drawstyle="steps-post" if series.kind == "steps" else "default",
        **style,
    )


def _intervals(plot: Plot, series: Series, pairs: list[tuple[float, float]], ax: Any, colour: str) -> None:
    """Draw a band around a line, or an upright bar through each point."""
    ends = []
    for pair, low, high in zip(pairs, series.low, series.high, strict=True):
        both = tuple(math.nan if end is None else float(end) for end in (low, high))
        good = pair[0] == pair[0] and all(_drawable(end, plot.y_scale) for end in both)
        ends.append((pair[0], *both) if good else (math.nan, math.nan, math.nan))
    xs, lows, highs = ([row[place] for row in ends] for place in range(3))
    if series.kind in {"line", "steps"}:
        step = "post" if series.kind == "steps" else None
        ax.fill_between(xs, lows, highs, color=colour, alpha=0.2, linewidth=0, step=step)
    else:
        ax.vlines(xs, lows, highs, color=colour, linewidth=1.4)


def _pairs(plot: Plot, series: Series) -> Iterator[tuple[float, float]]:
    for x, y in zip(series.x, series.y, strict=True):
        pair = (math.nan if x is None else float(x), math.nan if y is None else float(y))
        good = _drawable(pair[0], plot.x_scale) and _drawable(pair[1], plot.y_scale)
        yield pair if good else (math.nan, math.nan)


def _bars(pairs: list[tuple[float, float]], place: int, count: int, ax: Any, style: dict[str, str]) -> None:
    drawn = [pair for pair in pairs if math.isfinite(pair[0])]
    places = sorted({x for x, _ in drawn})
    width = 0.84 * min((b - a for a, b in itertools.pairwise(places)), default=1.0) / count
    left = [x + width * (place - count / 2) for x, _ in drawn]
    ax.bar(left, [y for _, y in drawn], width=width, align="edge", alpha=0.85, **style)


# --- drawn graphs ------------------------------------------------------------------------------------------


def _network(network: Network, ax: Any) -> None:
    """Draw edges, then vertices, then labels; the axes themselves are hidden."""
    size = 12.0 if len(network.names) <= 40 else 9.0
    for edge in sorted(range(len(network.edge_classes)), key=lambda place: network.edge_classes[place].strong):
        kind = network.edge_classes[edge]
        pairs = [pair for pair, own in zip(network.edges, network.edge_class, strict=True) if own == edge]
        style = {
            "color": "0.5" if kind.colour is None else PALETTE[kind.colour % len(PALETTE)],
            "linestyle": _LINES[kind.dash],
            "linewidth": 2.0 if kind.strong else 1.0,
        }
        if pairs:
            xs = [x for u, v in pairs for x in (network.x[u], network.x[v], math.nan)]
            ys = [y for u, v in pairs for y in (network.y[u], network.y[v], math.nan)]
            ax.plot(xs, ys, zorder=1.5, label=_label(kind.label), **style)
        for u, v in pairs if network.directed else ():
            ends = {"xy": (network.x[v], network.y[v]), "xytext": (network.x[u], network.y[u])}
            arrow = {"arrowstyle": "-|>", "color": style["color"], "shrinkB": size / 2, "linewidth": 0}
            ax.annotate("", arrowprops=arrow, **ends)
    for place, node in enumerate(network.node_classes):
        members = [vertex for vertex, own in enumerate(network.node_class) if own == place]
        if members:
            xs, ys = [network.x[v] for v in members], [network.y[v] for v in members]
            _nodes(node, xs, ys, size, ax)
    for x, y, name, own in zip(network.x, network.y, network.names, network.node_class, strict=True):
        short = len(name) <= 2
        colour = "white" if network.node_classes[own].filled and short else "0.1"
        look = {"ha": "center", "va": "center" if short else "bottom", "fontsize": 7, "color": colour}
        offset = (0.0, 0.0 if short else size / 2 + 1)
        text = ax.annotate(
            clean(name), (x, y), offset, textcoords="offset points", zorder=3, annotation_clip=False, **look
        )
        text.set_parse_math(False)
    ax.set_xlim(-0.06, 1.06)
    ax.set_ylim(-0.06, 1.06)
    ax.set_axis_off()


def _nodes(node: NodeClass, xs: list[float], ys: list[float], size: float, ax: Any) -> None:
    colour, marker = PALETTE[node.colour % len(PALETTE)], _SHAPES[node.shape]
    if node.ring:
        ring = {"markerfacecolor": "white", "markeredgecolor": "0.1", "markeredgewidth": 1.2}
        ax.plot(xs, ys, linestyle="none", marker=marker, markersize=size + 5, zorder=2, **ring)
    edge = {"markeredgecolor": "0.1" if node.ring else colour, "markeredgewidth": 1.4}
    face = {"markerfacecolor": colour if node.filled else "white", **edge}
    ax.plot(xs, ys, linestyle="none", marker=marker, markersize=size, zorder=2.5, label=_label(node.label), **face)

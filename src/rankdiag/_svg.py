"""Plots as inline SVG: no script, nothing loaded, readable on a phone and in either theme.

Widths are percentages and heights are pixels, so that text and marks keep their size at any width. Lines lie in
an inner drawing of 1000 units that stretches, with strokes that do not. Colours are CSS variables with a
fall-back, so that a plot is still readable where a viewer removes style sheets.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rankdiag._document import Plot, ReferenceLine, Series, abbreviate, clean, format_value
from rankdiag._scale import Axis, Tick, fit

__all__ = ["PALETTE", "escape", "render_plot"]

# Okabe and Ito's hues, darkened until each has a contrast of 3 to 1 on white; the page's style sheet holds
# lighter ones for a dark page. Shape and dashes tell the series apart where colours cannot.
PALETTE = ("#0068a8", "#c2500c", "#007a58", "#a34a80", "#8a6a00", "#5f6b76")
_DASHES = ("", "7 3", "2 3", "8 3 2 3", "12 4", "4 2 1 2")
_HEIGHT = 260.0  # px, of the area that is drawn in
_NARROW = 280.0  # px, the narrowest area that labels are laid out for
_CHAR = 6.6  # px, a digit of tick labels and, on average, a letter
_LINE = 15.0  # px between the baselines of labels
_LABELLED = 14  # lines of one direction up to which each has its label in the plot
_LABEL = 40  # letters of a label inside the plot
_MOST = 800  # points of one series that are drawn
_MARKED = 60  # a line with at most so many points shows them
_DENSE = 300  # a line with more points than these is drawn thinner
_MUTED = "fill:var(--rankdiag-muted,#57606a)"
_FAINT = "stroke:var(--rankdiag-faint,#d8dee4);stroke-width:1"


def escape(text: str) -> str:
    """Make any text safe inside HTML and SVG, in an element or a quoted attribute.

    Hidden characters are made visible, and endless words short.
    """
    return html.escape(clean(abbreviate(text)))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What is drawn of one series: positions of its points, and which of them start a new line."""

    series: Series
    style: int
    x: list[float]  # 0 to 1
    y: list[float]  # px from the top
    source: list[int]
    fresh: list[bool]
    ends: list[tuple[float, float] | None]  # px from the top, of the interval of each point
    missing: int
    total: int

    @property
    def colour(self) -> str:
        number = self.style % len(PALETTE)
        return f"var(--rankdiag-{number + 1},{PALETTE[number]})"


@dataclass(frozen=True, slots=True)
class _Stage:
    """A plot with its axes, and what is drawn and what stays outside."""

    plot: Plot
    x: Axis
    y: Axis
    room: float  # half of the distance of bars, in units of the axis
    drawn: list[_Drawn]
    lines: list[ReferenceLine]
    outside: list[ReferenceLine]


def render_plot(plot: Plot, ident: str, *, level: int = 3) -> str:
    """Write a plot as an HTML figure with an inline SVG.

    Parameters
    ----------
    plot : Plot
        What to draw.
    ident : str
        Prefix of the ids inside; letters, digits and hyphens, unique on the page.
    level : int
        Level of its heading.

    Returns
    -------
    str
        One ``<figure>`` element; the same plot and `ident` give the same text.
    """
    stage = _stage(plot)
    upright, rows = _upright_lines(stage)
    y_ticks = stage.y.ticks(5)
    left = max((len(tick.label) for tick in y_ticks), default=0) * _CHAR + 14
    body = [*_frame(stage.x, y_ticks), *_series(stage), *upright, *_level_lines(stage)]
    if not any(d.total for d in stage.drawn):
        body = [*upright, *_level_lines(stage)]
        body.append(f'<text x="50%" y="{_HEIGHT / 2:g}" text-anchor="middle" style="{_MUTED}">no values to draw</text>')
    title, description = escape(plot.title), escape(_describe(stage))
    return "".join(
        [
            '<figure class="rankdiag-plot">',
            f'<figcaption><h{level} id="{ident}-t">{title}</h{level}></figcaption>' if title else "",
            f'<p class="rankdiag-axis">{escape(plot.y_label)}</p>' if plot.y_label else "",
            f'<div class="rankdiag-frame" style="padding:{14 + rows * _LINE:g}px 16px 26px {left:.0f}px">',
            f'<svg role="img" aria-labelledby="{ident}-n {ident}-d" width="100%" height="{_HEIGHT:g}"',
            ' font-size="12" fill="currentColor" style="display:block;overflow:visible">',
            f'<title id="{ident}-n">{title or "Plot"}</title><desc id="{ident}-d">{description}</desc>',
            *body,
            "</svg></div>",
            f'<p class="rankdiag-axis rankdiag-x">{escape(plot.x_label)}</p>' if plot.x_label else "",
            *_legend(stage),
            *_notes(stage),
            "</figure>",
        ]
    )


def _stage(plot: Plot) -> _Stage:
    x_log, y_log = plot.x_scale == "log", plot.y_scale == "log"
    data = [([_number(v) for v in s.x], [_number(v) for v in s.y]) for s in plot.series]
    ends = [(list(s.x), [_number(v) for v in part]) for s in plot.series for part in (s.low, s.high) if len(part)]
    usable = [
        (x, y)
        for xs, ys in [*data, *(([_number(v) for v in xs], ys) for xs, ys in ends)]
        for x, y in zip(xs, ys, strict=True)
        if math.isfinite(x) and math.isfinite(y) and not (x_log and x <= 0) and not (y_log and y <= 0)
    ]
    upright = [line for line in plot.lines if line.axis == "x"]
    level = [line for line in plot.lines if line.axis == "y"]
    bars = any(series.kind == "bars" for series in plot.series)
    room = _bar_room([x for x, _ in usable], x_log) if bars else 0.0
    x_values, y_values = [x for x, _ in usable], [y for _, y in usable]
    x_axis, x_inside = fit(x_values, [line.value for line in upright], log=x_log, zero="never", margin=room)
    zero: Literal["always", "near"] = "always" if bars else "near"
    y_axis, y_inside = fit(y_values, [line.value for line in level], log=y_log, zero=zero)
    most = max(100, min(_MOST, 4 * _MOST // max(1, len(plot.series))))
    within = dict(zip(map(id, [*upright, *level]), [*x_inside, *y_inside], strict=True))
    return _Stage(
        plot=plot,
        x=x_axis,
        y=y_axis,
        room=room,
        drawn=[_place(s, i, *data[i], x_axis, y_axis, most) for i, s in enumerate(plot.series)],
        lines=[line for line in plot.lines if within[id(line)]],
        outside=[line for line in plot.lines if not within[id(line)]],
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


# --- what is drawn -----------------------------------------------------------------------------------------


def _place(series: Series, style: int, xs: list[float], ys: list[float], x: Axis, y: Axis, most: int) -> _Drawn:
    across, down = [x.at(value) for value in xs], [(1 - y.at(value)) * _HEIGHT for value in ys]
    good = [i for i in range(len(xs)) if math.isfinite(across[i]) and math.isfinite(down[i])]
    order = sorted(good, key=lambda i: across[i]) if series.kind in {"points", "bars"} else good
    kept = _thin(order, down, most)
    ends = _ends(series, y)
    holes = {index: index - number for number, index in enumerate(good)}  # what cannot be drawn before each point
    return _Drawn(
        series=series,
        style=style,
        x=[across[i] for i in kept],
        y=[down[i] for i in kept],
        source=kept,
        fresh=[n == 0 or holes[kept[n]] != holes[kept[n - 1]] for n in range(len(kept))],
        ends=[ends[i] for i in kept] if ends else [],
        missing=len(xs) - len(good),
        total=len(good),
    )


def _ends(series: Series, y: Axis) -> list[tuple[float, float] | None]:
    """Return where the intervals of a series end, in px from the top; None where there is none to draw."""
    found: list[tuple[float, float] | None] = []
    for low, high in zip(series.low, series.high, strict=True):
        bottom, top = ((1 - y.at(_number(end))) * _HEIGHT for end in (low, high))
        found.append((bottom, top) if math.isfinite(bottom) and math.isfinite(top) else None)
    return found


def _thin(order: list[int], down: list[float], most: int) -> list[int]:
    """Choose at most `most` points: of each stretch its first, last, highest and lowest."""
    if len(order) <= most:
        return order
    stretches = max(1, most // 4)
    kept: list[int] = []
    for n in range(stretches):
        part = order[n * len(order) // stretches : (n + 1) * len(order) // stretches]
        ends = {0, len(part) - 1, min(range(len(part)), key=lambda i: down[part[i]])}
        ends.add(max(range(len(part)), key=lambda i: down[part[i]]))
        kept += [part[i] for i in sorted(ends)]
    return kept


def _bar_room(xs: list[float], log: bool) -> float:
    """Return half of the smallest distance between bars, in units of the axis."""
    places = sorted({math.log10(value) if log else value for value in xs})
    gaps = [b / 2 - a / 2 for a, b in itertools.pairwise(places)]
    return min(gaps, default=0.3 if log else 0.5)


# --- frame and ticks ---------------------------------------------------------------------------------------


def _room_for(letters: int) -> int:
    """Return how many labels of so many letters stand beside each other on a narrow screen, at most seven."""
    return max(2, min(7, int(_NARROW / (letters * _CHAR + 16))))


def _frame(x: Axis, y_ticks: Sequence[Tick]) -> Iterator[str]:
    ticks = x.ticks(_room_for(5))
    ticks = x.ticks(_room_for(max((len(tick.label) for tick in ticks), default=1)))
    yield f'<g style="{_FAINT}">'
    for tick in y_ticks:
        start = "0" if tick.label else "-4"
        yield _line(start, "100%" if tick.label else "0", (1 - tick.at) * _HEIGHT)
    for tick in ticks:
        at = _percent(tick.at)
        yield f'<line x1="{at}" x2="{at}" y1="{_HEIGHT:g}" y2="{_HEIGHT + (6 if tick.label else 4):g}"/>'
    yield "</g>"
    yield f'<g style="stroke:var(--rankdiag-muted,#57606a);stroke-width:1">{_line("0", "100%", _HEIGHT)}</g>'
    yield f'<g style="{_MUTED};font-variant-numeric:tabular-nums">'
    for tick in y_ticks:
        if tick.label:
            yield f'<text x="-8" y="{(1 - tick.at) * _HEIGHT + 4:.1f}" text-anchor="end">{tick.label}</text>'
    for tick in ticks:
        if tick.label:
            yield f'<text x="{_percent(tick.at)}" y="{_HEIGHT + 20:g}" text-anchor="middle">{tick.label}</text>'
    yield "</g>"


def _line(x1: str, x2: str, y: float) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"


# --- series ------------------------------------------------------------------------------------------------


def _series(stage: _Stage) -> Iterator[str]:
    bars = [d for d in stage.drawn if d.series.kind == "bars"]
    for number, d in enumerate(bars):
        yield from _bars(stage, d, number, len(bars))
    for d in stage.drawn:
        if d.series.kind == "points" and any(d.ends):
            yield from _whiskers(d)
    lines = [d for d in stage.drawn if d.series.kind in {"line", "steps"} and d.x]
    if lines:
        yield f'<svg viewBox="0 0 1000 {_HEIGHT:g}" preserveAspectRatio="none" width="100%" height="{_HEIGHT:g}"'
        yield ' style="overflow:visible" fill="none" stroke-linejoin="round" stroke-linecap="round">'
        for d in lines:
            if any(d.ends):
                yield f'<path style="fill:{d.colour};fill-opacity:.18;stroke:none" d="{_band(d)}"/>'
        for d in lines:
            yield f'<path vector-effect="non-scaling-stroke" style="{_stroke(d)}" d="{_path(d)}"/>'
        yield "</svg>"
    for d in stage.drawn:
        if d.series.kind == "points" or (d.series.kind != "bars" and (d.series.names or len(d.x) <= _MARKED)):
            yield from _points(d)


def _stroke(d: _Drawn) -> str:
    dash = _DASHES[d.style % len(_DASHES)]
    width = 1.2 if len(d.x) > _DENSE else 2
    return f"stroke:{d.colour};stroke-width:{width}" + (f";stroke-dasharray:{dash}" if dash else "")


def _path(d: _Drawn) -> str:
    parts = []
    for n, (x, y) in enumerate(zip(d.x, d.y, strict=True)):
        place = f"{1000 * x:.1f} {y:.1f}"
        if d.fresh[n]:
            alone = n + 1 == len(d.x) or d.fresh[n + 1]
            parts.append(f"M{place}" + ("h0" if alone else ""))  # a point between two gaps is a dot
        else:
            parts.append(f"H{1000 * x:.1f}V{y:.1f}" if d.series.kind == "steps" else f"L{place}")
    return "".join(parts)


def _band(d: _Drawn) -> str:
    """Return the outline of the intervals of a line: along the upper ends, and back along the lower ones."""
    runs: list[list[int]] = []
    for n, end in enumerate(d.ends):
        if end is None:
            continue
        if d.fresh[n] or not runs or runs[-1][-1] != n - 1:
            runs.append([])
        runs[-1].append(n)
    parts = []
    for run in runs:
        upper = [(1000 * d.x[n], end[1]) for n in run if (end := d.ends[n]) is not None]
        lower = [(1000 * d.x[n], end[0]) for n in run if (end := d.ends[n]) is not None]
        if d.series.kind == "steps":
            upper, lower = _stairs(upper), _stairs(lower)
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in [*upper, *reversed(lower)]) + "Z")
    return "".join(parts)


def _stairs(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [*(p for a, b in itertools.pairwise(places) for p in (a, (b[0], a[1]))), *places[-1:]]


def _whiskers(d: _Drawn) -> Iterator[str]:
    """Draw an upright bar between the ends of the interval of each point."""
    yield f'<g style="stroke:{d.colour};stroke-width:1.6">'
    for x, end in zip(d.x, d.ends, strict=True):
        if end is not None:
            at = _percent(x)
            yield f'<line x1="{at}" x2="{at}" y1="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    yield "</g>"


def _points(d: _Drawn) -> Iterator[str]:
    """Draw the points of a series; those of a long or stepped line are only there to be pointed at."""
    alone = d.series.kind == "points"
    style = d.style if alone else 0
    seen = alone or (d.series.kind == "line" and len(d.x) <= _MARKED)
    size = 3.5 if alone else (2.5 if seen else 6)
    yield f'<g style="{_marker_style(style, d.colour) if seen else "fill:transparent"}">'
    for n in range(len(d.x)):
        shape = _marker(style, _percent(d.x[n]), d.y[n], size)
        yield f"{shape[0]}<title>{escape(_point_name(d, n))}</title>{shape[1]}"
    yield "</g>"


def _point_name(d: _Drawn, n: int) -> str:
    index = d.source[n]
    name = str(d.series.names[index]) if d.series.names else d.series.label
    text = f"{name} ({format_value(_number(d.series.x[index]))}, {format_value(_number(d.series.y[index]))})".lstrip()
    if not d.ends or d.ends[n] is None:
        return text
    return f"{text}, {format_value(_number(d.series.low[index]))} to {format_value(_number(d.series.high[index]))}"


def _marker_style(style: int, colour: str) -> str:
    if style % 6 < 3:
        return f"fill:{colour};fill-opacity:.8"
    return f"fill:var(--rankdiag-paper,#fff);stroke:{colour};stroke-width:1.6"


def _marker(style: int, x: str, y: float, size: float) -> tuple[str, str]:
    """Return the opening and the end of a circle, a square or a diamond."""
    if style % 3 == 0:
        return f'<circle cx="{x}" cy="{y:.1f}" r="{size:g}">', "</circle>"
    path = "M-3-3h6v6h-6z" if style % 3 == 1 else "M0-4.4L4.4 0 0 4.4-4.4 0z"
    return f'<svg x="{x}" y="{y:.1f}" style="overflow:visible"><path d="{path}">', "</path></svg>"


def _bars(stage: _Stage, d: _Drawn, number: int, count: int) -> Iterator[str]:
    span = stage.x.high / 2 - stage.x.low / 2
    width = max(stage.room / span * 0.84 / count, 0.0005)
    base = _HEIGHT if stage.y.log else (1 - stage.y.at(0.0)) * _HEIGHT
    yield f'<g style="fill:{d.colour};fill-opacity:.85">'
    for n in range(len(d.x)):
        start = d.x[n] + width * (number - count / 2)
        top, bottom = sorted((d.y[n], base))
        yield f'<rect x="{_percent(start)}" width="{_percent(width)}" y="{top:.1f}" height="{bottom - top:.1f}">'
        yield f"<title>{escape(_point_name(d, n))}</title></rect>"
    yield "</g>"


# --- reference lines ---------------------------------------------------------------------------------------

_REFERENCE = "stroke:var(--rankdiag-ink,#1b1f24);stroke-width:1.2;stroke-dasharray:5 4;stroke-opacity:.75"
_HALO = "stroke:var(--rankdiag-paper,#fff);stroke-width:4;stroke-linejoin:round;paint-order:stroke"


def _upright_lines(stage: _Stage) -> tuple[list[str], int]:
    """Draw vertical lines, with their labels above the plot in as many rows as keep them apart.

    Labels on the left run to the right and the other way round; the outer ones lie higher, so that no line
    crosses a label.
    """
    lines = sorted((line for line in stage.lines if line.axis == "x"), key=lambda line: stage.x.at(line.value))
    inner = [line for line in reversed(lines) if stage.x.at(line.value) < 0.5]
    inner += [line for line in lines if stage.x.at(line.value) >= 0.5]
    rows: list[list[tuple[float, float]]] = []
    parts, labels = [], []
    for line in inner:
        at, label = stage.x.at(line.value), _shorten(line.label)
        x, anchor, start = _beside(at, len(label) * _CHAR)
        span = (start - 5, start + len(label) * _CHAR + 5)
        free = (n for n, row in enumerate(rows) if all(span[1] <= low or high <= span[0] for low, high in row))
        row = next(free, len(rows))
        rows[row:] = [[*(rows[row] if row < len(rows) else []), span], *rows[row + 1 :]]
        y = -8 - row * _LINE
        place, top = _percent(at), 0 if _crowded(stage, "x") else y + 4
        parts.append(f'<line x1="{place}" x2="{place}" y1="{top:g}" y2="{_HEIGHT:g}" style="{_REFERENCE}"/>')
        labels.append(_label(line, label, x, 0, y, anchor))
    return (parts, 0) if _crowded(stage, "x") else ([*parts, *labels], len(rows))


def _beside(at: float, size: float) -> tuple[str, str, float]:
    """Return where the label of a vertical line is anchored, and where it starts in px on a narrow screen."""
    place = at * _NARROW
    if at < 0.5 and place + size <= _NARROW:
        return _percent(at), "start", place
    if at >= 0.5 and place >= size:
        return _percent(at), "end", place - size
    return ("0%", "start", 0.0) if at < 0.5 else ("100%", "end", _NARROW - size)


def _level_lines(stage: _Stage) -> Iterator[str]:
    """Draw horizontal lines, with their labels above them, moved apart, at the side where fewer points lie."""
    lines = sorted((line for line in stage.lines if line.axis == "y"), key=lambda line: -stage.y.at(line.value))
    heights = [(1 - stage.y.at(line.value)) * _HEIGHT for line in lines]
    bases: list[float] = []
    for height in heights:
        wanted = height - 5 if height >= 16 else height + 13  # above its line, or below it at the top edge
        bases.append(max(wanted, bases[-1] + _LINE if bases else 0.0))
    for n in reversed(range(len(bases))):  # back up from the bottom edge
        bases[n] = min(bases[n], _HEIGHT - 4 if n + 1 == len(bases) else bases[n + 1] - _LINE)
    for height in heights:
        yield f'<g style="{_REFERENCE}">{_line("0", "100%", height)}</g>'
    if _crowded(stage, "y"):
        return
    for line, base in zip(lines, bases, strict=True):
        right = _crowd(stage.drawn, base, 0.55, 1.0) <= _crowd(stage.drawn, base, 0.0, 0.45)
        x, shift, anchor = ("100%", -6, "end") if right else ("0%", 6, "start")
        yield _label(line, _shorten(line.label), x, shift, base, anchor)


def _crowded(stage: _Stage, axis: str) -> bool:
    """Whether there are too many lines to label in the plot; the legend names them then."""
    return sum(line.axis == axis for line in stage.lines) > _LABELLED


def _crowd(drawn: Sequence[_Drawn], base: float, start: float, end: float) -> int:
    return sum(start <= x <= end and base - 14 <= y <= base + 4 for d in drawn for x, y in zip(d.x, d.y, strict=True))


def _label(line: ReferenceLine, label: str, x: str, shift: int, y: float, anchor: str) -> str:
    place = f'x="{x}" dx="{shift}" y="{y:.1f}" text-anchor="{anchor}"'
    full = f"<title>{escape(line.label)} ({format_value(float(line.value))})</title>"
    return f'<text {place} style="{_HALO}">{full}{escape(label)}</text>'


def _shorten(label: str) -> str:
    return label if len(clean(label)) <= _LABEL else f"{clean(label)[: _LABEL - 1]}…"


# --- words beside the drawing ------------------------------------------------------------------------------


def _legend(stage: _Stage) -> Iterator[str]:
    entries = [(_swatch(d), d.series.label) for d in stage.drawn if d.series.label]
    long = [line for line in stage.lines if _crowded(stage, line.axis) or _shorten(line.label) != line.label]
    dashed = f'<line x1="1" x2="25" y1="6" y2="6" style="{_REFERENCE}"/>'
    entries += [(dashed, f"{line.label} ({format_value(float(line.value))})") for line in long]
    if entries:
        yield '<ul class="rankdiag-legend">'
        for swatch, label in entries:
            yield f'<li><svg width="26" height="12" aria-hidden="true">{swatch}</svg> {escape(label)}</li>'
        yield "</ul>"


def _swatch(d: _Drawn) -> str:
    if d.series.kind == "bars":
        return f'<rect x="7" y="1" width="12" height="10" style="fill:{d.colour};fill-opacity:.85"/>'
    if d.series.kind == "points":
        return f'<g style="{_marker_style(d.style, d.colour)}">{"".join(_marker(d.style, "13", 6.0, 3.5))}</g>'
    return f'<line x1="2" x2="24" y1="6" y2="6" style="{_stroke(d)}"/>'


def _describe(stage: _Stage) -> str:
    plot = stage.plot
    parts = [plot.description or f"{plot.y_label or 'y'} against {plot.x_label or 'x'}"]
    for d in stage.drawn:
        ys = [_number(d.series.y[i]) for i in d.source]
        spread = f", from {format_value(min(ys))} to {format_value(max(ys))}" if ys else ""
        parts.append(f"{d.series.label or 'Series'}: {d.total} values{spread}")
    parts += [f"{line.label}: {format_value(float(line.value))}" for line in stage.lines]
    return ". ".join(part.rstrip(".") for part in parts) + "."


def _notes(stage: _Stage) -> Iterator[str]:
    """Say what is not drawn: nothing is left out in silence."""
    sentences = []
    for d in stage.drawn:
        name = f" of {d.series.label}" if d.series.label else ""
        if d.missing:
            reason = "not finite" + (", or not positive" if "log" in {stage.plot.x_scale, stage.plot.y_scale} else "")
            sentences.append(f"{d.missing} of {d.missing + d.total} values{name} are not drawn: {reason}.")
        if len(d.x) < d.total:
            sentences.append(f"{len(d.x)} of {d.total} values{name} are drawn, every peak among them.")
    sentences += [f"Outside this plot: {line.label} ({format_value(float(line.value))})." for line in stage.outside]
    if sentences:
        yield f'<p class="rankdiag-small">{escape(" ".join(sentences))}</p>'

"""Drawn graphs as inline SVG: no script, nothing loaded, readable on a phone, in either theme and without colour.

As in plots, places across are percentages and places down are pixels, so that labels and marks keep their size at any
width. A label is written only where it stays clear of vertices and other labels from a phone to a wide screen; the
others appear when a vertex is pointed at, and in the list below the drawing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rankdiag._document import EdgeClass, Network, NodeClass, clean, count_classes
from rankdiag._svg import PALETTE, escape

__all__ = ["render_network"]

_NARROW, _BROAD = 280.0, 900.0  # px, the widths between which labels stay apart
_MARGIN = 18.0  # px around the drawing, for labels and marks at its edge
_LETTER, _BROAD_LETTER = 6.4, 12.0  # px, a letter of a label and one that is not ASCII
_LABEL = 24  # letters of a label that is written beside its vertex
_UP, _DOWN = 9.0, 4.0  # px, what a label takes above and below its baseline
_LISTED = 80  # members of one kind up to which they are listed below the drawing
_DASHES = {"solid": "", "dashed": ";stroke-dasharray:6 4", "dotted": ";stroke-dasharray:1.5 3.5;stroke-linecap:round"}
_INK = "var(--rankdiag-ink,#1b1f24)"
_MUTED = "var(--rankdiag-muted,#57606a)"
_PAPER = "var(--rankdiag-paper,#fff)"


class _Box(NamedTuple):
    """A box around a place `at` of the width, reaching `left` to `right` px from it, `top` to `bottom` px down."""

    at: float
    left: float
    right: float
    top: float
    bottom: float

    def clear_of(self, other: _Box) -> bool:
        """Whether the two stay apart at every width between a phone and a wide screen."""
        if self.bottom <= other.top or other.bottom <= self.top:
            return True
        shift = other.at - self.at
        before = min(shift * _NARROW, shift * _BROAD) >= self.right - other.left
        return before or min(-shift * _NARROW, -shift * _BROAD) >= other.right - self.left

    def inside(self) -> bool:
        """Whether it stays within the drawing and its margin."""
        low = min(self.at * width + self.left for width in (_NARROW, _BROAD))
        high = max(self.at * width + self.right - width for width in (_NARROW, _BROAD))
        return low >= -_MARGIN and high <= _MARGIN


@dataclass(frozen=True, slots=True)
class _Label:
    """Where the label of a vertex is written, in px from its centre."""

    text: str
    anchor: str
    dx: float
    dy: float
    inner: bool


def render_network(network: Network, ident: str, *, level: int = 3) -> str:
    """Write a drawn graph as an HTML figure with an inline SVG.

    Parameters
    ----------
    network : Network
        What to draw.
    ident : str
        Prefix of the ids inside; letters, digits and hyphens, unique on the page.
    level : int
        Level of its heading.

    Returns
    -------
    str
        One ``<figure>`` element; the same network and `ident` give the same text.
    """
    count = len(network.names)
    height = min(440.0, 180.0 + 8.0 * count)
    size = 10.0 if count <= 40 else 8.0 if count <= 70 else 6.0
    labels = _labels(network, height, size)
    title, words = escape(network.title), escape(_describe(network))
    body = [*_arrows(network, ident, size), *_edges(network, ident, height), *_vertices(network, labels, height, size)]
    if not count:
        body = [f'<text x="50%" y="{height / 2:g}" text-anchor="middle" style="fill:{_MUTED}">no vertices</text>']
    return "".join(
        [
            '<figure class="rankdiag-plot">',
            f'<figcaption><h{level} id="{ident}-t">{title}</h{level}></figcaption>' if title else "",
            f'<div class="rankdiag-frame" style="padding:{_MARGIN:g}px">',
            f'<svg role="img" aria-labelledby="{ident}-n {ident}-d" width="100%" height="{height:g}"',
            ' font-size="11" fill="currentColor" style="display:block;overflow:visible">',
            f'<title id="{ident}-n">{title or "Graph"}</title><desc id="{ident}-d">{words}</desc>',
            *body,
            "</svg></div>",
            *_legend(network),
            *_notes(network, labels),
            *_lists(network),
            "</figure>",
        ]
    )


def _colour(number: int) -> str:
    return f"var(--rankdiag-{number % len(PALETTE) + 1},{PALETTE[number % len(PALETTE)]})"


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"


# --- edges -------------------------------------------------------------------------------------------------


def _line_colour(kind: EdgeClass) -> str:
    return _MUTED if kind.colour is None else _colour(kind.colour)


def _line_style(kind: EdgeClass) -> str:
    faint = "" if kind.strong else ";stroke-opacity:.7"
    return f"stroke:{_line_colour(kind)};stroke-width:{2.4 if kind.strong else 1.2}{faint}{_DASHES[kind.dash]}"


def _arrows(network: Network, ident: str, size: float) -> Iterator[str]:
    """Define an arrow head for each kind of edge; it ends at the outline of the vertex."""
    if not network.directed:
        return
    yield "<defs>"
    for place, kind in enumerate(network.edge_classes):
        yield f'<marker id="{ident}-a{place}" markerUnits="userSpaceOnUse" markerWidth="9" markerHeight="8"'
        yield f' refX="{9 + size + 1:g}" refY="4" orient="auto"><path d="M0 0L9 4 0 8z" style="fill:'
        yield f'{_line_colour(kind)}"/></marker>'
    yield "</defs>"


def _edges(network: Network, ident: str, height: float) -> Iterator[str]:
    order = sorted(range(len(network.edge_classes)), key=lambda place: network.edge_classes[place].strong)
    for place in order:
        members = [edge for edge, kind in zip(network.edges, network.edge_class, strict=True) if kind == place]
        if not members:
            continue
        head = f' marker-end="url(#{ident}-a{place})"' if network.directed else ""
        yield f'<g style="{_line_style(network.edge_classes[place])}">'
        for u, v in members:
            across = f'x1="{_percent(network.x[u])}" x2="{_percent(network.x[v])}"'
            down = f'y1="{(1 - network.y[u]) * height:.1f}" y2="{(1 - network.y[v]) * height:.1f}"'
            yield f"<line {across} {down}{head}/>"
        yield "</g>"


# --- vertices ----------------------------------------------------------------------------------------------


def _outline(kind: NodeClass, size: float) -> str:
    """Return the path of a shape of about the same area around the origin."""
    if kind.shape == "circle":
        return f"M{-size:g} 0a{size:g} {size:g} 0 1 0 {2 * size:g} 0a{size:g} {size:g} 0 1 0 {-2 * size:g} 0z"
    if kind.shape == "square":
        half = 0.9 * size
        return f"M{-half:g} {-half:g}h{2 * half:g}v{2 * half:g}h{-2 * half:g}z"
    if kind.shape == "diamond":
        half = 1.25 * size
        return f"M0 {-half:g}L{half:g} 0 0 {half:g} {-half:g} 0z"
    half = 1.2 * size
    return f"M0 {-half:g}L{half:g} {0.8 * half:g}H{-half:g}z"


def _shape(kind: NodeClass, size: float) -> str:
    fill = _colour(kind.colour) if kind.filled else _PAPER
    ring = ""
    if kind.ring:
        ring = f'<path d="{_outline(kind, size + 4)}" style="fill:{_PAPER};stroke:{_INK};stroke-width:1.6"/>'
    return (
        f'{ring}<path d="{_outline(kind, size)}" style="fill:{fill};stroke:{_colour(kind.colour)};stroke-width:1.8"/>'
    )


def _vertices(network: Network, labels: list[_Label | None], height: float, size: float) -> Iterator[str]:
    written = []
    for vertex, label in enumerate(labels):
        kind = network.node_classes[network.node_class[vertex]]
        place = f'x="{_percent(network.x[vertex])}" y="{(1 - network.y[vertex]) * height:.1f}"'
        name = f"{network.names[vertex]} ({kind.label})" if kind.label else network.names[vertex]
        inner = ""
        if label is not None and label.inner:
            ink = _PAPER if kind.filled else _INK
            inner = f'<text text-anchor="middle" y="4" style="fill:{ink}">{escape(label.text)}</text>'
        elif label is not None:
            halo = f"fill:{_INK};stroke:{_PAPER};stroke-width:4;stroke-linejoin:round;paint-order:stroke"
            shift = f'dx="{label.dx:g}" dy="{label.dy:g}" text-anchor="{label.anchor}"'
            written.append(f'<text {place} {shift} style="{halo}">{escape(label.text)}</text>')
        yield f'<svg {place} style="overflow:visible"><g><title>{escape(name)}</title>'
        yield f"{_shape(kind, size)}{inner}</g></svg>"
    yield from written


def _width(text: str) -> float:
    return sum(_LETTER if letter.isascii() else _BROAD_LETTER for letter in text)


def _labels(network: Network, height: float, size: float) -> list[_Label | None]:
    """Choose a place for each label: inside its vertex, or on one of its sides, or none at all.

    Vertices that stand out come first, then those with many edges.
    """
    count = len(network.names)
    degrees = [0] * count
    for u, v in network.edges:
        degrees[u] += 1
        degrees[v] += 1
    down = [(1 - y) * height for y in network.y]
    kinds = [network.node_classes[kind] for kind in network.node_class]
    reach = [size + (5 if kind.ring else 1) for kind in kinds]
    bodies = [_Box(x, -r, r, y - r, y + r) for x, y, r in zip(network.x, down, reach, strict=True)]
    order = sorted(range(count), key=lambda v: (not kinds[v].ring, not kinds[v].filled, -degrees[v], v))
    taken: list[_Box] = []
    found: list[_Label | None] = [None] * count
    for vertex in order:
        name = clean(network.names[vertex])
        text = name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"
        others = [body for place, body in enumerate(bodies) if place != vertex]
        for label, box in _candidates(text, network.x[vertex], down[vertex], size, reach[vertex]):
            if (label.inner or box.inside()) and all(box.clear_of(other) for other in (*taken, *others)):
                found[vertex] = label
                taken.append(box)
                break
    return found


def _candidates(text: str, at: float, y: float, size: float, reach: float) -> Iterator[tuple[_Label, _Box]]:
    width = _width(text)
    if not text.strip():
        return
    if width <= 2 * size:
        half = width / 2
        yield _Label(text, "middle", 0, 4, True), _Box(at, -half, half, y - _UP, y + _DOWN)
        return
    gap = reach + 3
    for anchor, dx, dy, left in (
        ("start", gap, 4.0, gap),
        ("end", -gap, 4.0, -gap - width),
        ("middle", 0.0, gap + _UP - 1, -width / 2),
        ("middle", 0.0, -gap - 1, -width / 2),
    ):
        yield _Label(text, anchor, dx, dy, False), _Box(at, left, left + width, y + dy - _UP, y + dy + _DOWN)


# --- words beside the drawing ------------------------------------------------------------------------------


def _describe(network: Network) -> str:
    counts = count_classes(network)
    return f"{network.description.rstrip('.')}. {counts}." if network.description else f"{counts}."


def _legend(network: Network) -> Iterator[str]:
    entries = [
        (f'<svg width="26" height="18" viewBox="-13 -9 26 18" aria-hidden="true">{_shape(kind, 4.5)}</svg>', kind.label)
        for place, kind in enumerate(network.node_classes)
        if kind.label and place in network.node_class
    ]
    for place, edge in enumerate(network.edge_classes):
        if edge.label and place in network.edge_class:
            line = f'<line x1="1" x2="25" y1="6" y2="6" style="{_line_style(edge)}"/>'
            entries.append((f'<svg width="26" height="12" aria-hidden="true">{line}</svg>', edge.label))
    if entries:
        yield '<ul class="rankdiag-legend">'
        yield from (f"<li>{swatch} {escape(label)}</li>" for swatch, label in entries)
        yield "</ul>"


def _notes(network: Network, labels: list[_Label | None]) -> Iterator[str]:
    written = sum(label is not None for label in labels)
    if written < len(labels):
        yield f'<p class="rankdiag-small">{written} of {len(labels)} labels are written; point at a vertex to read '
        yield "its label.</p>"


def _lists(network: Network) -> Iterator[str]:
    """List what is drawn, for readers who cannot see it."""
    if not network.names:
        return
    rows = []
    for place, kind in enumerate(network.node_classes):
        members = [name for name, own in zip(network.names, network.node_class, strict=True) if own == place]
        rows.append((kind.label or "vertices", members))
    arrow = "→" if network.directed else "-"
    for place, edge in enumerate(network.edge_classes):
        pairs = [pair for pair, own in zip(network.edges, network.edge_class, strict=True) if own == place]
        rows.append((edge.label or "edges", [f"{network.names[u]} {arrow} {network.names[v]}" for u, v in pairs]))
    yield '<details><summary>The same in words</summary><dl class="rankdiag-columns">'
    for label, members in rows:
        if members:
            listed = ", ".join(members[:_LISTED])
            more = f", and {len(members) - _LISTED} more" if len(members) > _LISTED else ""
            yield f"<dt>{escape(label)} ({len(members)})</dt><dd>{escape(listed)}{more}</dd>"
    yield "</dl></details>"

"""The neutral document that every result turns into before it is shown.

A result says *what* is to be seen (title, verdict, key numbers, tables, plots, notes); the text, HTML and
matplotlib back ends decide *how*. No back end knows a single measurement, and no measurement knows a back end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Column",
    "Document",
    "EdgeClass",
    "Grid",
    "KeyNumber",
    "Network",
    "NodeClass",
    "Plot",
    "ReferenceLine",
    "Series",
    "Verdict",
    "abbreviate",
    "clean",
    "count_classes",
    "format_column",
    "format_value",
    "rows_to_show",
]

Verdict = Literal["ok", "warn", "alert", "unknown"]

_LONGEST_WORD = 160
_LONG_INTEGER = 128  # bits from which on nobody reads all digits of an integer
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyNumber:
    """One number worth reading first.

    Attributes
    ----------
    label : str
        Its name.
    value : object
        A number, a string or None (shown as an en dash).
    unit : str
        Its unit, if it has one.
    doc : str
        How to read it, in one sentence.
    """

    label: str
    value: Any
    unit: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table: the field of the row, and what it means.

    Attributes
    ----------
    name : str
        Field of the row, also the header in machine-readable output.
    label : str
        Header for people; empty takes the name.
    unit : str
        Unit, if it has one.
    doc : str
        What it measures and how to read it.
    """

    name: str
    label: str = ""
    unit: str = ""
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table ready to be shown: columns, and rows with one cell for each column.

    Attributes
    ----------
    title : str
        Heading.
    columns : tuple of Column
        Columns in order.
    rows : tuple of tuple
        Cells in order: numbers, strings, booleans or None.
    levels : tuple of Verdict
        One for each row, or empty: marks rows that need attention.
    note : str
        A sentence below the table.

    Raises
    ------
    ValueError
        If a row has not one cell for each column, or `levels` has not one entry for each row.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    levels: tuple[Verdict, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        wide = len(self.columns)
        for index, row in enumerate(self.rows):
            if len(row) != wide:
                raise ValueError(f"`rows` must have {wide} cells, one for each column; row {index} has {len(row)}")
        if self.levels and len(self.levels) != len(self.rows):
            raise ValueError(f"`levels` must be empty or have {len(self.rows)} entries; got {len(self.levels)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line, set of points or set of bars of a plot.

    Attributes
    ----------
    label : str
        Name in the legend; empty leaves it out.
    x, y : sequence of float
        Coordinates, of one length; entries that are not finite leave a gap.
    kind : {"line", "points", "bars", "steps"}
        How it is drawn.
    names : sequence of str
        What each point is called when pointed at, or empty.
    low, high : sequence of float
        Ends of an interval of each y, or both empty: a band around a line, a bar through a point. An entry that is not
        finite leaves its interval out.

    Raises
    ------
    ValueError
        If `x` and `y` differ in length, `names`, `low` or `high` is neither empty nor of that length, or bars have
        intervals.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "points", "bars", "steps"] = "line"
    names: Sequence[str] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"`x` and `y` must have one length; got {len(self.x)} and {len(self.y)}")
        if not len(self.low) == len(self.high) in {0, len(self.x)}:
            raise ValueError(
                f"`low` and `high` must both be empty or have {len(self.x)} entries; got {len(self.low)} and "
                f"{len(self.high)}"
            )
        if len(self.low) and self.kind == "bars":
            raise ValueError("`low` and `high` must be empty for bars, which have no intervals; draw points")
        if len(self.names) not in {0, len(self.x)}:
            raise ValueError(f"`names` must be empty or have {len(self.x)} entries; got {len(self.names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLine:
    """A labelled straight line: a threshold of the theory, or a baseline.

    Attributes
    ----------
    axis : {"x", "y"}
        ``"y"`` is a horizontal line at `value`, ``"x"`` a vertical one.
    value : float
        Where it lies, in the units of the axis.
    label : str
        What it is.
    """

    axis: Literal["x", "y"]
    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot: labelled axes with units, series and reference lines.

    Attributes
    ----------
    title : str
        Heading.
    x_label, y_label : str
        Axis labels, with units.
    series : tuple of Series
        What is drawn.
    x_scale, y_scale : {"linear", "log"}
        Scales; on a log scale, entries <= 0 leave a gap.
    lines : tuple of ReferenceLine
        Thresholds and baselines.
    description : str
        What the plot shows, in one sentence, for readers who cannot see it.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Literal["linear", "log"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    lines: tuple[ReferenceLine, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClass:
    """One kind of vertex of a drawn graph, and how it is told from the others.

    Attributes
    ----------
    label : str
        Its name in the legend.
    shape : {"circle", "square", "diamond", "triangle"}
        Outline.
    colour : int
        Number of its hue, as the series of a plot are numbered; never the only difference between two kinds.
    filled : bool
        Whether it is filled with its hue, or only outlined.
    ring : bool
        Whether a second outline lies around it.
    """

    label: str
    shape: Literal["circle", "square", "diamond", "triangle"] = "circle"
    colour: int = 0
    filled: bool = False
    ring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeClass:
    """One kind of edge of a drawn graph, and how it is told from the others.

    Attributes
    ----------
    label : str
        Its name in the legend.
    dash : {"solid", "dashed", "dotted"}
        How its line is drawn.
    colour : int or None
        Number of its hue; None is a muted grey.
    strong : bool
        Whether its line is thick, and drawn above the others.
    """

    label: str
    dash: Literal["solid", "dashed", "dotted"] = "solid"
    colour: int | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A small graph ready to be drawn: where its vertices lie, and of which kind vertices and edges are.

    Attributes
    ----------
    title : str
        Heading.
    x, y : sequence of float
        Place of each vertex in the unit square, (0, 0) at the lower left.
    names : sequence of str
        Label of each vertex.
    node_class : sequence of int
        For each vertex its place in `node_classes`.
    node_classes : tuple of NodeClass
        Kinds of vertices.
    edges : sequence of (int, int)
        Vertices at both ends, each edge once; from the first to the second if `directed`.
    edge_class : sequence of int
        For each edge its place in `edge_classes`.
    edge_classes : tuple of EdgeClass
        Kinds of edges.
    directed : bool
        Whether edges have a direction.
    description : str
        What the drawing shows, in one sentence, for readers who cannot see it.

    Raises
    ------
    ValueError
        If lengths differ, a place lies outside the unit square, an edge is a loop or leads to no vertex, or a kind
        is not among those listed.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    names: Sequence[str]
    node_class: Sequence[int]
    node_classes: tuple[NodeClass, ...]
    edges: Sequence[tuple[int, int]] = ()
    edge_class: Sequence[int] = ()
    edge_classes: tuple[EdgeClass, ...] = ()
    directed: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        count = len(self.names)
        lengths = (len(self.x), len(self.y), len(self.node_class))
        if set(lengths) != {count}:
            raise ValueError(f"`x`, `y` and `node_class` must have {count} entries, as `names` has; got {lengths}")
        if len(self.edge_class) != len(self.edges):
            raise ValueError(f"`edge_class` must have {len(self.edges)} entries; got {len(self.edge_class)}")
        if not all(0 <= value <= 1 for values in (self.x, self.y) for value in values):
            raise ValueError("`x` and `y` must lie in the unit square, from 0 to 1")
        if not all(0 <= u < count and 0 <= v < count and u != v for u, v in self.edges):
            raise ValueError(f"`edges` must join two different vertices below {count}")
        for name, kinds, known in (
            ("node_class", self.node_class, len(self.node_classes)),
            ("edge_class", self.edge_class, len(self.edge_classes)),
        ):
            if not all(0 <= kind < known for kind in kinds):
                raise ValueError(f"`{name}` must hold places in `{name}es`, below {known}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a result shows.

    Attributes
    ----------
    title : str
        Heading.
    verdict : Verdict
        Overall judgement.
    explanation : str
        One paragraph: what the numbers mean.
    key_numbers : tuple of KeyNumber
        Numbers worth reading first.
    grids : tuple of Grid
        Tables.
    plots : tuple of Plot
        Plots.
    notes : tuple of str
        Conventions, thresholds with their sources, what was skipped.
    sections : tuple of Document
        Parts of a larger report, each a document of its own.
    networks : tuple of Network
        Drawings of small graphs.
    """

    title: str
    verdict: Verdict = "unknown"
    explanation: str = ""
    key_numbers: tuple[KeyNumber, ...] = ()
    grids: tuple[Grid, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[Document, ...] = ()
    networks: tuple[Network, ...] = ()


def format_value(value: Any, digits: int = 4) -> str:
    """Write one value for people.

    Parameters
    ----------
    value : object
        A float gets `digits` significant digits and an exponent only below 1e-4 or from 1e7 on, an integer of
        more than 38 digits as many and an exponent; None is an en dash, a shape is written with crosses, anything
        else in its own words.
    digits : int
        Significant digits of a float; digits before the decimal point are always all written.

    Returns
    -------
    str
        Its text, not yet safe for a terminal or a page: see `clean`.
    """
    if value is None:
        return "–"  # noqa: RUF001 - an en dash is what is meant
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _format_float(value, digits)
    if isinstance(value, int) and value.bit_length() > _LONG_INTEGER:
        from decimal import Decimal

        return f"{Decimal(value):.{digits - 1}e}"
    if isinstance(value, (tuple, list)):
        return "×".join(str(entry) for entry in value)  # noqa: RUF001 - shapes are written with a cross
    return str(value)


def _format_float(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    if not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    text = f"{value:.{max(0, digits - 1 - _exponent(value))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def format_column(values: Sequence[Any]) -> list[str]:
    """Write the cells of one column for people, so that their decimal points stand below each other.

    Parameters
    ----------
    values : sequence of object
        The cells, as `format_value` takes them.

    Returns
    -------
    list of str
        Floats that span at most three powers of ten get one number of decimals, which leaves three significant
        digits to the smallest and four to the largest; any other column is written cell by cell.
    """
    sizes = [abs(v) for v in values if isinstance(v, float) and v != 0 and math.isfinite(v)]
    if not sizes or not 1e-4 <= min(sizes) <= max(sizes) < 1e7 or max(sizes) > 1e3 * min(sizes):
        return [format_value(value) for value in values]
    decimals = max(0, 2 - _exponent(min(sizes)), 3 - _exponent(max(sizes)))
    fixed = {i: f"{v:.{decimals}f}" for i, v in enumerate(values) if isinstance(v, float) and v != 0 and v - v == 0}
    spare = min((len(text) - len(text.rstrip("0")) for text in fixed.values()), default=0) if decimals else 0
    cut = decimals + 1 if spare >= decimals else spare
    return [
        (fixed[i][: len(fixed[i]) - cut] if decimals else fixed[i]) if i in fixed else format_value(value)
        for i, value in enumerate(values)
    ]


def count_classes(network: Network) -> str:
    """Say how many vertices and edges of each kind a drawn graph has; kinds that do not occur are left out."""
    vertices = _count("vertex", "vertices", network.node_class, [kind.label for kind in network.node_classes])
    edge = "directed edge" if network.directed else "edge"
    return f"{vertices}, {_count(edge, f'{edge}s', network.edge_class, [kind.label for kind in network.edge_classes])}"


def _count(one: str, many: str, kinds: Sequence[int], labels: Sequence[str]) -> str:
    counts = [(sum(kind == place for kind in kinds), label) for place, label in enumerate(labels)]
    listed = "; ".join(f"{count} {label}" for count, label in counts if count and label)
    return f"{len(kinds)} {one if len(kinds) == 1 else many}" + (f" ({listed})" if listed else "")


def rows_to_show(grid: Grid, limit: int) -> list[int]:
    """Choose the rows of a table that are shown when it has more than `limit`.

    Parameters
    ----------
    grid : Grid
        The table.
    limit : int
        Rows to show at most.

    Returns
    -------
    list of int
        Row numbers in order: alerts, then warnings, then the first of the other rows, up to the limit.
    """
    count = len(grid.rows)
    if count <= limit:
        return list(range(count))
    gravity = {"alert": 0, "warn": 1}
    ranked = sorted(range(count), key=lambda row: gravity.get(grid.levels[row], 2) if grid.levels else 2)
    return sorted(ranked[:limit])


def clean(text: str) -> str:
    """Make control, format and unassigned characters visible, so that a name from a file cannot steer a reader."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def abbreviate(text: str) -> str:
    """Shorten every word beyond 160 characters to both of its ends, and say how much is left out."""
    return _LONG_WORD.sub(_ends, text) if len(text) > _LONGEST_WORD else text


def _ends(match: re.Match[str]) -> str:
    word, kept = match.group(), _LONGEST_WORD // 4
    return f"{word[: 2 * kept]}…({len(word) - 3 * kept} characters)…{word[-kept:]}"

"""The neutral document that every result turns into before it is shown.

A result says *what* is to be seen (title, verdict, key numbers, tables, plots, notes); the text, HTML and
matplotlib back ends decide *how*. No back end knows a single measurement, and no measurement knows a back end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Column",
    "Document",
    "Grid",
    "KeyNumber",
    "Plot",
    "ReferenceLine",
    "Series",
    "Verdict",
    "format_value",
]

Verdict = Literal["ok", "warn", "alert", "unknown"]


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
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    levels: tuple[Verdict, ...] = ()
    note: str = ""


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
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "points", "bars", "steps"] = "line"
    names: Sequence[str] = ()


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
    """

    title: str
    verdict: Verdict = "unknown"
    explanation: str = ""
    key_numbers: tuple[KeyNumber, ...] = ()
    grids: tuple[Grid, ...] = ()
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[Document, ...] = ()


def format_value(value: Any, digits: int = 4) -> str:
    """Write one cell for people: `digits` significant digits, an en dash for None, plain words otherwise."""
    if value is None:
        return "–"  # noqa: RUF001 - an en dash is what is meant
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, (tuple, list)):
        return "×".join(str(entry) for entry in value)  # noqa: RUF001 - shapes are written with a cross
    return str(value)

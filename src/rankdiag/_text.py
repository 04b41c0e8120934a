"""Documents as plain text for terminals and logs."""

from __future__ import annotations

import textwrap

from rankdiag._document import Document, Grid, format_value

__all__ = ["render_text"]

_MARKS = {"ok": "[ok]", "warn": "[WARN]", "alert": "[ALERT]", "unknown": ""}


def render_text(document: Document, *, width: int = 100, max_rows: int = 30) -> str:
    """Write a document as plain text.

    Parameters
    ----------
    document : Document
        What to show.
    width : int
        Columns of the terminal; prose is wrapped to it, tables are not.
    max_rows : int
        Rows of a table that are shown; the number left out is said.

    Returns
    -------
    str
        Lines without a final newline.
    """
    return "\n".join(_lines(document, width, max_rows))


def _lines(document: Document, width: int, max_rows: int) -> list[str]:
    mark = _MARKS[document.verdict]
    lines = [f"{clean(document.title)} {mark}".rstrip()]
    if document.explanation:
        lines += textwrap.wrap(clean(document.explanation), width)
    if document.key_numbers:
        labels = [clean(number.label) for number in document.key_numbers]
        pad = max(map(len, labels))
        lines.append("")
        for label, number in zip(labels, document.key_numbers, strict=True):
            lines.append(f"  {label:<{pad}}  {clean(format_value(number.value))} {number.unit}".rstrip())
    for grid in document.grids:
        lines += ["", *_grid(grid, width, max_rows)]
    if document.notes:
        lines.append("")
        for note in document.notes:
            lines += textwrap.wrap(clean(note), width, initial_indent="- ", subsequent_indent="  ")
    for section in document.sections:
        lines += ["", "-" * min(width, 72), *_lines(section, width, max_rows)]
    return lines


def _grid(grid: Grid, width: int, max_rows: int) -> list[str]:
    header = [clean(column.label or column.name) for column in grid.columns]
    shown = grid.rows[:max_rows]
    cells = [[clean(format_value(cell)) for cell in row] for row in shown]
    if any(level not in {"ok", "unknown"} for level in grid.levels):
        header.append("")
        for row, level in zip(cells, grid.levels, strict=False):
            row.append(_MARKS[level])
    numeric = [
        all(isinstance(row[i], (int, float, type(None))) for row in grid.rows) if i < len(grid.columns) else False
        for i in range(len(header))
    ]
    widths = [max([len(header[i]), *(len(row[i]) for row in cells)]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        parts = [f"{c:>{w}}" if n else f"{c:<{w}}" for c, w, n in zip(row, widths, numeric, strict=True)]
        return "  ".join(parts).rstrip()

    lines = [clean(grid.title)] if grid.title else []
    lines += [line(header), line(["-" * w for w in widths]), *(line(row) for row in cells)]
    if len(grid.rows) > len(shown):
        lines.append(f"... and {len(grid.rows) - len(shown)} more rows")
    if grid.note:
        lines += textwrap.wrap(clean(grid.note), width)
    return lines


def clean(text: str) -> str:
    """Make control characters visible, so that a name from a file cannot steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)

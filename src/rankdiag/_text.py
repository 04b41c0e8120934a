"""Documents as plain text for terminals and logs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rankdiag._document import (
    Document,
    Grid,
    KeyNumber,
    Verdict,
    abbreviate,
    clean,
    count_classes,
    format_column,
    format_value,
    rows_to_show,
)

__all__ = ["clean", "display_width", "render_text"]

_MARKS: dict[Verdict, str] = {"ok": "[ok]", "warn": "[WARN]", "alert": "[ALERT]", "unknown": ""}
_GAP = 2  # blanks between columns
_HEADER_LINES = 3
_DOC_WIDTH = 30  # below this many columns the reading of a key number is left out


def render_text(document: Document, *, width: int = 100, max_rows: int = 30) -> str:
    """Write a document as plain text.

    Parameters
    ----------
    document : Document
        What to show.
    width : int
        Columns of the terminal. Prose is wrapped to it; a table that is wider loses its empty columns first and
        then those on the right, and names what it left out.
    max_rows : int
        Rows of a table that are shown, rows with an alert or a warning first; the number left out is said.

    Returns
    -------
    str
        Lines without a final newline.
    """
    return "\n".join(_lines(document, width, max_rows))


def _lines(document: Document, width: int, max_rows: int) -> list[str]:
    mark = _MARKS[document.verdict]
    lines = _prose(f"{document.title} {mark}", width)
    if document.explanation:
        lines += _prose(document.explanation, width)
    if document.key_numbers:
        lines += ["", *_key_numbers(document.key_numbers, width)]
    for network in document.networks:
        title = f"{network.title}: " if network.title else ""
        lines += ["", *_prose(f"{title}a drawing of {count_classes(network)}; see plot() or the HTML page.", width)]
    for grid in document.grids:
        lines += ["", *_grid(grid, width, max_rows)]
    if document.notes:
        lines.append("")
        for note in document.notes:
            lines += _prose(note, width, first="- ", rest="  ")
    for section in document.sections:
        lines += ["", "-" * min(width, 72), *_lines(section, width, max_rows)]
    return lines


def _key_numbers(numbers: Sequence[KeyNumber], width: int) -> list[str]:
    labels = [_shorten(clean(number.label), width // 2) for number in numbers]
    values = [clean(abbreviate(f"{format_value(number.value)} {number.unit}".rstrip())) for number in numbers]
    left, middle = max(map(display_width, labels)), max(map(display_width, values))
    doc_start = 2 + left + _GAP + middle + _GAP
    lines = []
    for label, value, number in zip(labels, values, numbers, strict=True):
        start = f"  {_pad(label, left)}{' ' * _GAP}"
        if number.doc and width - doc_start >= _DOC_WIDTH:
            lines += _prose(number.doc, width, first=_pad(start + value, doc_start), rest=" " * doc_start)
        else:
            lines += _wrap(value, width, first=start, rest=" " * display_width(start))
    return lines


# --- tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Strip:
    """One column, laid out: its header lines, its cells, and how wide they are."""

    name: str
    header: list[str]
    cells: list[str]
    width: int
    right: bool
    empty: bool


def _grid(grid: Grid, width: int, max_rows: int) -> list[str]:
    shown = rows_to_show(grid, max_rows)
    strips = [_strip(grid, index, shown, width) for index in range(len(grid.columns))]
    marks = _marks(grid, shown)
    kept = [*_fit(strips, width - _total(marks) - (_GAP if marks else 0)), *marks]
    depth = max((len(strip.header) for strip in kept), default=0)
    lines = _prose(grid.title, width) if grid.title else []
    for level in range(depth):
        lines.append(_line((_at(s.header, level - depth + len(s.header)), s) for s in kept))
    lines.append(_line(("-" * strip.width, strip) for strip in kept))
    lines += [_line((strip.cells[row], strip) for strip in kept) for row in range(len(shown))]
    if len(grid.rows) > len(shown):
        lines += _wrap(_rows_left_out(grid, shown), width)
    hidden = [strip.name for strip in strips if not any(strip is other for other in kept)]
    if hidden:
        plural = "s" if len(hidden) > 1 else ""
        text = f"{len(hidden)} column{plural} left out: {', '.join(hidden)} (a larger width shows more)"
        lines += _wrap(f"... {text}", width)
    if grid.note:
        lines += _prose(grid.note, width)
    return lines


def _rows_left_out(grid: Grid, shown: list[int]) -> str:
    text = f"... and {len(grid.rows) - len(shown)} more rows"
    if shown == list(range(len(shown))):
        return text
    kept = set(shown)
    grave = sum(level in {"alert", "warn"} and row not in kept for row, level in enumerate(grid.levels))
    return f"{text}, {grave or 'none'} of them with an alert or a warning"


def _strip(grid: Grid, index: int, shown: list[int], width: int) -> _Strip:
    column = grid.columns[index]
    entries = [grid.rows[row][index] for row in shown]
    room = max(16, width // 2 if index == 0 else width // 3)
    cells = [_shorten(clean(text), room) for text in format_column(entries)]
    label = clean(column.label or column.name)
    title = f"{label} [{clean(column.unit)}]" if column.unit else label
    header = [_shorten(line, room) for line in _header(title, max(map(display_width, cells), default=0))]
    return _Strip(
        name=label,
        header=header,
        cells=cells,
        width=max(1, *map(display_width, header), *map(display_width, cells)),  # a column without a name has a line too
        right=all(_is_number(entry) for entry in entries) and bool(entries),
        empty=all(entry is None for entry in entries) and bool(entries),
    )


def _is_number(entry: Any) -> bool:
    return entry is None or (isinstance(entry, (int, float)) and not isinstance(entry, bool))


def _marks(grid: Grid, shown: list[int]) -> list[_Strip]:
    if not any(level in {"warn", "alert"} for level in grid.levels):
        return []
    cells = [_MARKS[grid.levels[row]] for row in shown]
    return [_Strip(name="", header=[], cells=cells, width=max(map(len, cells)), right=False, empty=False)]


def _header(label: str, room: int) -> list[str]:
    """Break a header over a few lines, so that it is not much wider than its cells."""
    words = [word for word in re.split(r"(?<=_)|\s+", label) if word]
    if not words:
        return [""]
    for room_now in range(max(room, *map(display_width, words)), display_width(label) + 1):
        lines = [words[0]]
        for word in words[1:]:
            joined = lines[-1] + ("" if lines[-1].endswith("_") else " ") + word
            if display_width(joined) <= room_now:
                lines[-1] = joined
            else:
                lines.append(word)
        if len(lines) <= _HEADER_LINES:
            return lines
    return [label]


def _fit(strips: list[_Strip], width: int) -> list[_Strip]:
    """Leave out empty columns, then columns from the right, until the rest fits; the first one stays."""
    kept = list(strips)
    for strip in [s for s in reversed(strips[1:]) if s.empty] + [s for s in reversed(strips[1:]) if not s.empty]:
        if _total(kept) <= width:
            break
        kept.remove(strip)
    return kept


def _total(strips: Sequence[_Strip]) -> int:
    return sum(strip.width for strip in strips) + _GAP * max(0, len(strips) - 1)


def _line(cells: Iterable[tuple[str, _Strip]]) -> str:
    return (" " * _GAP).join(_pad(text, strip.width, right=strip.right) for text, strip in cells).rstrip()


def _at(lines: list[str], index: int) -> str:
    return lines[index] if 0 <= index < len(lines) else ""


# --- widths ------------------------------------------------------------------------------------------------


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _pad(text: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - display_width(text))
    return blanks + text if right else text + blanks


def _shorten(text: str, width: int) -> str:
    """Keep both ends of a text that is too long; names of layers differ at either."""
    if display_width(text) <= width:
        return text
    tail = _take(text[::-1], (width - 1) // 2)[::-1]
    return f"{_take(text, width - 1 - display_width(tail))}…{tail}"


def _take(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > width:
            return text[:index]
    return text


def _prose(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    return _wrap(clean(abbreviate(" ".join(text.split()))), width, first=first, rest=rest)


def _wrap(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Break a text at blanks, and a word that is longer than a line anywhere."""
    lines, line, blank = [], first, ""
    for word in text.split(" "):
        if display_width(line + blank + word) <= width:
            line, blank = line + blank + word, " "
            continue
        if blank:
            lines.append(line)
            line = rest
        while display_width(line + word) > width and len(line) < width:
            part = _take(word, width - display_width(line)) or word[:1]
            lines.append(line + part)
            line, word = rest, word[len(part) :]
        line, blank = line + word, " "
    return [*lines, line]

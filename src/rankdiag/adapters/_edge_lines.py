"""Lists of edges in text, one edge a line, read with array operations and written back line by line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EdgeLines", "parse", "without"]

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_BLOCK = 1 << 24  # bytes that are looked at together
_WIDEST = 18  # digits that are sure to fit into 64 bits
_BOM = b"\xef\xbb\xbf"
_COMMENT = (35, 37)  # "#" and "%"
_NEWLINE, _QUOTE = 10, 34
_HEADERS = {"source", "target", "src", "dst", "from", "to", "u", "v", "node1", "node2", "id_1", "id_2", "head", "tail"}


@dataclass(frozen=True, slots=True, eq=False)
class EdgeLines:
    """The edges of a text, and which line has which."""

    source: Ints
    target: Ints
    labels: tuple[str, ...] | None
    line: Ints
    fields: int  # of the first line with an edge
    text: bytes


def parse(text: bytes, name: str, *, as_labels: bool | None = None) -> EdgeLines:
    """Read edges out of text.

    Parameters
    ----------
    text : bytes
        One edge a line: two fields between white space, tabs, commas or semicolons, and perhaps further ones. Lines
        that start with # or % are comments; the first line may be a header.
    name : str
        Name of the file in messages.
    as_labels : bool, optional
        Whether fields are labels of vertices; None takes integers for ids if the first edge has two.

    Returns
    -------
    EdgeLines
        Ids in the order of the lines; labels are numbered as they appear.

    Raises
    ------
    ValueError
        If a line is no edge; the message has its number.
    """
    array = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", np.uint8)
    if b"\0" in text:
        raise ValueError(f"{name}: is no UTF-8 text with one edge a line; it holds zero bytes")
    first = _first_lines(text)
    if not first:
        empty = np.zeros(0, np.int64)
        return EdgeLines(empty, empty, None, empty, 0, text)
    delimiter = _delimiter(first[0][1])
    if delimiter == "\t" and _are_ids(first[-1][1].split()):
        delimiter = None  # ids hold no spaces, so that tabs and spaces may both stand between them
    rows = [_split(line, delimiter) for _, line in first]
    header = as_labels is not True and len(rows) > 1 and not _are_ids(rows[0]) and _are_ids(rows[1])
    header = header or {field.strip().lower() for field in rows[0][:2]} <= _HEADERS
    start_line = first[0][0] + int(header)
    sample = rows[1:2] if header else rows[:1]
    fields = len(sample[0]) if sample else 0
    if as_labels is None:
        as_labels = not (sample and _are_ids(sample[0]))
    if as_labels or b'"' in text:
        return _by_line(text, name, start_line, delimiter, as_labels, fields)
    found = list(_blocks(array, name, start_line, delimiter))
    source, target, line = (np.concatenate([block[i] for block in found]) for i in range(3))
    return EdgeLines(source, target, None, line, fields, text)


def without(lines: EdgeLines, gone: NDArray[np.bool_]) -> bytes:
    """Return the text without the lines of these edges; comments, headers and order stay."""
    array = np.frombuffer(lines.text, np.uint8)
    ends = np.append(np.flatnonzero(array == _NEWLINE) + 1, len(array))
    lengths = np.diff(ends, prepend=0)
    stays = np.ones(len(lengths), bool)
    stays[lines.line[gone]] = False
    return bytes(array[np.repeat(stays, lengths)].tobytes())


def _first_lines(text: bytes) -> list[tuple[int, str]]:
    """Return numbers and texts of the first two lines that are neither empty nor comments."""
    found: list[tuple[int, str]] = []
    begin, number = len(_BOM) if text.startswith(_BOM) else 0, 0
    while begin < len(text) and len(found) < 2:
        end = text.find(b"\n", begin)
        end = len(text) if end < 0 else end
        line = text[begin:end].strip()
        if line and line[0] not in _COMMENT:
            found.append((number, line.decode("utf-8", "replace")))
        begin, number = end + 1, number + 1
    return found


def _delimiter(line: str) -> str | None:
    """Return what stands between fields; None for white space."""
    before = line.partition("{")[0]  # attributes of an edge as networkx writes them, which hold commas
    return next((mark for mark in (",", ";", "\t") if mark in before), None)


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]


def _are_ids(fields: list[str]) -> bool:
    return len(fields) >= 2 and all(field.lstrip("-").isascii() and field.lstrip("-").isdigit() for field in fields[:2])


# --- ids, a block at a time ----------------------------------------------------------------------------------------


def _blocks(array: Bytes, name: str, start_line: int, delimiter: str | None) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yield sources, targets and line numbers of blocks of whole lines."""
    begin, line = _start(array, start_line), start_line
    while begin < len(array):
        end = min(begin + _BLOCK, len(array))
        if end < len(array):
            last = np.flatnonzero(array[begin:end] == _NEWLINE)
            if not len(last):  # a line longer than a block
                rest = np.flatnonzero(array[end:] == _NEWLINE)
                end = end + int(rest[0]) + 1 if len(rest) else len(array)
            else:
                end = begin + int(last[-1]) + 1
        block = array[begin:end]
        yield _of_block(block, name, line, delimiter)
        line += int(np.count_nonzero(block == _NEWLINE))
        begin = end


def _start(array: Bytes, start_line: int) -> int:
    """Return where a line begins."""
    if not start_line:
        return len(_BOM) if array[:3].tobytes() == _BOM else 0
    found, begin = 0, 0
    while True:
        ends = np.flatnonzero(array[begin : begin + _BLOCK] == _NEWLINE)
        if found + len(ends) >= start_line or begin + _BLOCK >= len(array):
            return begin + int(ends[start_line - found - 1]) + 1
        found, begin = found + len(ends), begin + _BLOCK


def _of_block(block: Bytes, name: str, line: int, delimiter: str | None) -> tuple[Ints, Ints, Ints]:
    if (even := _even(block, delimiter)) is not None:
        return even[0], even[1], line + np.arange(len(even[0]))
    table = np.zeros(256, bool)
    table[[9, 10, 11, 12, 13, 32]] = True
    if delimiter is not None:
        table[ord(delimiter)] = True
    between = table[block]
    turns = np.flatnonzero(np.diff(between, prepend=True, append=True))
    starts, stops = turns[::2], turns[1::2]
    line_of = line + np.searchsorted(np.flatnonzero(block == _NEWLINE), starts)
    is_first = np.ones(len(starts), bool)
    np.not_equal(line_of[1:], line_of[:-1], out=is_first[1:])
    mark = block[starts]
    first = np.flatnonzero(is_first)
    first = first[(mark[first] != _COMMENT[0]) & (mark[first] != _COMMENT[1])]
    second = np.minimum(first + 1, len(starts) - 1)
    number = line_of[first]
    single = (first + 1 >= len(starts)) | (line_of[second] != number)
    if delimiter not in (None, "\t") and len(first):
        single |= _has_gap(block, delimiter, line, number, starts[first], stops[first], starts[second])
    if single.any():
        raise ValueError(f"{name}, line {int(number[single][0]) + 1}: must have two vertices; an edge is two fields")
    return (
        _integers(block, starts[first], stops[first], number, name),
        _integers(block, starts[second], stops[second], number, name),
        number,
    )


def _even(block: Bytes, delimiter: str | None) -> tuple[Ints, Ints] | None:
    """Read a block in which every line has the same number of digits-only fields, one mark apart; None for others."""
    if not len(block) or block[-1] != _NEWLINE:
        return None
    marks = np.flatnonzero(block < 48)
    ends = block[marks] == _NEWLINE
    fields = int(np.argmax(ends)) + 1
    if fields < 2 or len(marks) % fields or block.max() > 57:
        return None
    mark = int(block[marks[0]])
    inner = block[marks].reshape(-1, fields)
    width = np.diff(marks, prepend=-1)
    if mark != (ord(delimiter) if delimiter else 32) or width.min() < 2 or width.max() > _WIDEST:
        return None
    if not (inner[:, -1] == _NEWLINE).all() or not (inner[:, :-1] == mark).all():
        return None
    text = block.tobytes()
    values = np.fromstring(text.replace(bytes([mark]), b" "), np.int64, sep=" ").reshape(-1, fields)
    return values[:, 0].copy(), values[:, 1].copy()


def _has_gap(
    block: Bytes, delimiter: str, line: int, number: Ints, start: Ints, stop: Ints, following: Ints
) -> NDArray[np.bool_]:
    """Whether one of the first two fields is empty: another count of delimiters than none before and one between."""
    marks = np.flatnonzero(block == ord(delimiter))
    begins = np.append(0, np.flatnonzero(block == _NEWLINE) + 1)[number - line]
    before = np.searchsorted(marks, start) - np.searchsorted(marks, begins)
    between = np.searchsorted(marks, following) - np.searchsorted(marks, stop)
    found: NDArray[np.bool_] = (before > 0) | (between != 1)
    return found


def _integers(block: Bytes, start: Ints, stop: Ints, number: Ints, name: str) -> Ints:
    """Read digits between places."""
    width = stop - start
    value = np.zeros(len(start), np.int64)
    wrong = width > _WIDEST
    for place in range(min(int(width.max(initial=0)), _WIDEST)):
        live = np.flatnonzero(place < width) if place else slice(None)
        digit = block[start[live] + place] - np.uint8(48)  # anything else wraps to 10 or more
        wrong[live] |= digit > 9
        value[live] = value[live] * 10 + digit
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        field = block[start[place] : min(stop[place], start[place] + 40)].tobytes().decode("utf-8", "replace")
        raise ValueError(f"{name}, line {int(number[place]) + 1}: {_no_id(field)}")
    return value


def _no_id(field: str) -> str:
    if field.startswith("-") and field[1:].isdigit():
        return f"{field} is negative, and vertex ids start at 0"
    if field.isascii() and field.isdigit():
        return f"{field} is too large for a vertex id; read the file with labels"
    return f"{field!r} is no vertex id, as the fields before it are; read the file with labels if it has names"


# --- labels, and fields in quotes ----------------------------------------------------------------------------------


def _by_line(text: bytes, name: str, start_line: int, delimiter: str | None, as_labels: bool, fields: int) -> EdgeLines:
    place: dict[str, int] = {}
    source, target, line = [], [], []
    try:
        content = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}, line {number}: is no UTF-8 text") from None
    for number, row in enumerate(content.split("\n")):
        stripped = row.strip()
        if number < start_line or not stripped or stripped[0] in "#%":
            continue
        parts = stripped.split() if delimiter is None else _split(stripped, delimiter)
        if len(parts) < 2 or not parts[0] or not parts[1]:
            raise ValueError(f"{name}, line {number + 1}: must have two vertices; an edge is two fields")
        if as_labels:
            source.append(place.setdefault(parts[0], len(place)))
            target.append(place.setdefault(parts[1], len(place)))
        else:
            for field in parts[:2]:
                if not (field.isascii() and field.isdigit() and len(field) <= _WIDEST):
                    raise ValueError(f"{name}, line {number + 1}: {_no_id(field)}")
            source.append(int(parts[0]))
            target.append(int(parts[1]))
        line.append(number)
    arrays = (np.array(values, np.int64) for values in (source, target, line))
    u, v, lines = arrays
    return EdgeLines(u, v, tuple(place) if as_labels else None, lines, fields, text)

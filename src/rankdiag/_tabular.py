"""Cells of tables in formats that other programs read: CSV and Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any

__all__ = ["csv_cell", "csv_line", "markdown_cell", "whole"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LONG_BITS = 14_000  # Python refuses to write integers of more than 4300 digits in base 10


def whole(value: int) -> int | str:
    """Return an integer as it is, or in base 16 as ``"0x..."`` where it is too long for base 10 (4200 digits)."""
    return value if value.bit_length() <= _LONG_BITS else hex(value)


def csv_line(cells: list[Any]) -> str:
    """Write one row as a line of CSV without its end."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\r\n").writerow(cells)  # it quotes only those line ends that it writes itself
    return stream.getvalue()[:-2]


def csv_cell(value: Any) -> Any:
    """Turn a cell into what a CSV writer writes in full, and no text into what a spreadsheet takes for a formula."""
    if isinstance(value, (tuple, list)):
        value = "x".join(str(entry) for entry in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(value)
    if isinstance(value, str) and value[:1] in _FORMULA:
        return "'" + value
    return value


def markdown_cell(text: str) -> str:
    """Write a text on one line without live markup."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for mark in ("\\", "|", "<", ">", "&", "`", "*", "_", "~", "$", "[", "]"):
        plain = plain.replace(mark, "\\" + mark)
    return plain

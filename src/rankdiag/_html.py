"""Documents as HTML: a fragment for notebooks, and a page that is one self-contained file.

No script and nothing loaded from elsewhere; every text of a document is escaped, and its control and direction
characters are made visible. The same document always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator, Sequence
from typing import Any

from rankdiag._document import (
    Document,
    Grid,
    KeyNumber,
    Verdict,
    abbreviate,
    clean,
    format_column,
    format_value,
    rows_to_show,
)
from rankdiag._style import PAGE, VIEW
from rankdiag._svg import escape, render_plot
from rankdiag._svg_network import render_network
from rankdiag._version import __version__

__all__ = ["render_fragment", "render_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_WORDS: dict[Verdict, str] = {"ok": "✓ ok", "warn": "▲ warning", "alert": "■ alert", "unknown": "no verdict"}
_HINT = "No threshold with a source applies, so nothing is judged."
_TALL = 24  # rows from which a table scrolls in a box of its own
_WIDE = 9  # columns up to which a table is printed upright
_WRAPS = 32  # a cell with more characters than these may wrap
_HINT_LENGTH = 4000
_WORDY = 16  # a key number of more characters is text, and set smaller
_BREAKS = re.compile(r"([._/])(?=\w)")  # where the name of a tensor may wrap
_OPEN_NOTES = 6  # at most so many notes are shown unfolded
_PREFIX = "\x00"  # stands for the prefix of ids until the rest is written; no escaped text can hold it


def render_fragment(document: Document, *, max_rows: int = 100) -> str:
    """Write a document as an HTML fragment for notebooks.

    Parameters
    ----------
    document : Document
        What to show.
    max_rows : int
        Rows of a table that are shown, rows with an alert or a warning first; the number left out is said.

    Returns
    -------
    str
        One ``<div>`` with its own style sheet, whose rules hold inside it only.
    """
    body = "".join(_document(document, f"{_PREFIX}s", 3, max_rows))
    prefix = f"rankdiag-{hashlib.sha256(body.encode()).hexdigest()[:10]}-"
    return f'<div class="rankdiag rankdiag-view"><style>{VIEW}</style>{body.replace(_PREFIX, prefix)}</div>'


def render_page(
    documents: Document | Sequence[Document], *, title: str | None = None, intro: str = "", max_rows: int = 1000
) -> str:
    """Write one or several documents as one self-contained HTML page.

    Parameters
    ----------
    documents : Document or sequence of Document
        What to show, in order.
    title : str, optional
        Heading of the page; None takes that of a single document.
    intro : str
        A paragraph below it.
    max_rows : int
        Rows of a table that are shown, rows with an alert or a warning first; the number left out is said.

    Returns
    -------
    str
        The page.
    """
    if isinstance(documents, Document) and title is None:
        page = documents
    else:
        parts = (documents,) if isinstance(documents, Document) else tuple(documents)
        page = Document(title=title or "Report", explanation=intro, sections=parts)
    heading = escape(page.title or "Report")
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"/>\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n',
            '<meta name="color-scheme" content="light dark"/>\n<meta name="referrer" content="no-referrer"/>\n',
            f'<link rel="icon" href="data:,"/>\n<title>{heading}</title>\n<style>{VIEW}{PAGE}</style>\n</head>\n',
            '<body class="rankdiag rankdiag-page">\n<a class="rankdiag-skip" href="#main">Skip to the content</a>\n',
            f'<header><div class="rankdiag-head"><h1>{heading}</h1>{_heading_badge(page)}</div>',
            _paragraph(page.explanation),
            _contents(page),
            '</header>\n<main id="main">\n',
            *_content(page, "s", 2, max_rows),
            f"\n</main>\n<footer><p>Written by rankdiag {escape(__version__)}. One file: no script, and nothing is ",
            "loaded from elsewhere.</p></footer>\n</body>\n</html>\n",
        ]
    )


# --- documents ---------------------------------------------------------------------------------------------


def _document(document: Document, ident: str, level: int, max_rows: int) -> Iterator[str]:
    shown = min(level, 6)
    yield f'<section aria-labelledby="{ident}"><div class="rankdiag-head">'
    yield f'<h{shown} id="{ident}">{escape(document.title or "Untitled")}</h{shown}>'
    yield f"{_heading_badge(document)}</div>{_paragraph(document.explanation)}"
    yield from _content(document, ident, level + 1, max_rows)
    yield "</section>\n"


def _content(document: Document, ident: str, level: int, max_rows: int) -> Iterator[str]:
    if document.key_numbers:
        yield '<dl class="rankdiag-keys">'
        yield from map(_key_number, document.key_numbers)
        yield "</dl>"
    if document.plots or document.networks:
        yield '<div class="rankdiag-plots">'
        for number, network in enumerate(document.networks, 1):
            yield render_network(network, f"{ident}-g{number}", level=min(level, 6))
        for number, plot in enumerate(document.plots, 1):
            yield render_plot(plot, f"{ident}-p{number}", level=min(level, 6))
        yield "</div>"
    for number, grid in enumerate(document.grids, 1):
        yield from _grid(grid, f"{ident}-t{number}", min(level, 6), max_rows)
    if document.notes:
        unfolded = ' open=""' if len(document.notes) <= _OPEN_NOTES else ""
        yield f"<details{unfolded}><summary>Conventions and sources ({len(document.notes)})</summary>"
        yield '<ul class="rankdiag-notes">'
        yield from (f"<li>{_prose(note)}</li>" for note in document.notes)
        yield "</ul></details>"
    for number, section in enumerate(document.sections, 1):
        yield from _document(
            section, f"{ident}{number}" if ident.endswith("s") else f"{ident}-{number}", level, max_rows
        )


def _prose(text: str) -> str:
    return escape(" ".join(text.split()))


def _paragraph(text: str) -> str:
    return f"<p>{_prose(text)}</p>" if text.strip() else ""


def _badge(verdict: Verdict) -> str:
    if verdict == "unknown":
        return f'<span class="rankdiag-badge" title="{_HINT}">{_WORDS[verdict]}</span>'
    return f'<span class="rankdiag-badge rankdiag-{verdict}">{_WORDS[verdict]}</span>'


def _heading_badge(document: Document) -> str:
    return "" if document.verdict == "unknown" and document.sections else _badge(document.verdict)


def _key_number(number: KeyNumber) -> str:
    unit = f' <span class="rankdiag-unit">{escape(number.unit)}</span>' if number.unit else ""
    doc = f'<dd class="rankdiag-read">{_prose(number.doc)}</dd>' if number.doc else ""
    value = _digits(number.value, escape(format_value(number.value)))
    kind = ' class="rankdiag-words"' if isinstance(number.value, str) and len(number.value) > _WORDY else ""
    return f"<div><dt>{escape(number.label)}</dt><dd{kind}>{value}{unit}</dd>{doc}</div>"


def _contents(page: Document) -> str:
    if len(page.sections) < 2:
        return ""
    items = []
    for number, section in enumerate(page.sections, 1):
        inner = "".join(
            f"<li>{_entry(part, f's{number}-{place}')}</li>" for place, part in enumerate(section.sections, 1)
        )
        items.append(f"<li>{_entry(section, f's{number}')}{f'<ol>{inner}</ol>' if inner else ''}</li>")
    return f'<nav aria-label="Contents"><ol>{"".join(items)}</ol></nav>'


def _entry(section: Document, ident: str) -> str:
    badge = _badge(section.verdict) if section.verdict != "unknown" else ""
    return f'<a href="#{ident}">{escape(section.title or "Untitled")}</a>{badge}'


# --- tables ------------------------------------------------------------------------------------------------


def _grid(grid: Grid, ident: str, level: int, max_rows: int) -> Iterator[str]:
    shown = rows_to_show(grid, max_rows)
    tall = " rankdiag-tall" if len(shown) > _TALL else ""
    wide = " rankdiag-wide" if len(grid.columns) > _WIDE else ""
    yield f'<div class="rankdiag-table{wide}">'
    if grid.title:
        yield f'<h{level} id="{ident}">{escape(grid.title)}</h{level}>'
    label = f'aria-labelledby="{ident}"' if grid.title else 'aria-label="Table"'
    yield f'<div class="rankdiag-scroll{tall}" role="region" {label} tabindex="0"><table {label}><thead><tr>'
    texts = [_is_text([grid.rows[row][index] for row in shown]) for index in range(len(grid.columns))]
    for column, text in zip(grid.columns, texts, strict=True):
        hint = f' title="{_prose(column.doc)}"' if column.doc else ""
        kind = ' class="rankdiag-text"' if text else ""
        yield f'<th scope="col"{kind}{hint}><div>{_column_name(column)}</div></th>'
    yield "</tr></thead><tbody>"
    yield from _rows(grid, shown, texts)
    yield "</tbody></table></div>"
    if len(shown) < len(grid.rows):
        yield f'<p class="rankdiag-small">{_left_out(grid, shown)}</p>'
    if grid.note:
        yield f'<p class="rankdiag-small">{_prose(grid.note)}</p>'
    explained = [column for column in grid.columns if column.doc]
    if explained:
        yield '<details><summary>What the columns mean</summary><dl class="rankdiag-columns">'
        yield from (f"<dt>{_column_name(column)}</dt><dd>{_prose(column.doc)}</dd>" for column in explained)
        yield "</dl></details>"
    yield "</div>"


def _column_name(column: Any) -> str:
    unit = f' <span class="rankdiag-unit">{escape(column.unit)}</span>' if column.unit else ""
    return escape(column.label or column.name).replace("_", "_<wbr/>") + unit


def _rows(grid: Grid, shown: list[int], texts: list[bool]) -> Iterator[str]:
    entries = [[grid.rows[row][index] for row in shown] for index in range(len(grid.columns))]
    columns = [
        [_cell(value, text, names=index == 0) for value, text in zip(column, format_column(column), strict=True)]
        for index, column in enumerate(entries)
    ]
    opening = ['<td class="rankdiag-text">' if text else "<td>" for text in texts]
    for place, row in enumerate(shown):
        level: Verdict = grid.levels[row] if grid.levels else "unknown"
        grave = level in {"warn", "alert"}
        yield f'<tr class="rankdiag-row-{level}">' if grave else "<tr>"
        for index, column in enumerate(columns):
            if index == 0:
                yield f'<th scope="row"><div>{column[place]}{_badge(level) if grave else ""}</div></th>'
            else:
                yield f"{opening[index]}{column[place]}</td>"
        yield "</tr>"


def _cell(value: Any, text: str, *, names: bool) -> str:
    """Write one cell; a long one may wrap, and one that is abbreviated shows its text when pointed at."""
    shown = _BREAKS.sub(r"\1<wbr/>", escape(text)) if names else escape(text)
    if len(text) <= _WRAPS:
        return _digits(value, shown)
    whole = f' title="{html.escape(clean(text[:_HINT_LENGTH]))}"' if abbreviate(text) != text else ""
    return f'<div class="rankdiag-long"{whole}>{shown}</div>'


def _left_out(grid: Grid, shown: list[int]) -> str:
    kept = set(shown)
    grave = sum(level in {"warn", "alert"} and row not in kept for row, level in enumerate(grid.levels))
    marked = any(level in {"warn", "alert"} for level in grid.levels)
    which = (
        f", {grave} of the others with an alert or a warning"
        if grave
        else ", all with an alert or a warning among them"
    )
    return (
        f"{len(shown)} of {len(grid.rows)} rows are shown{which if marked else ''}; "
        "the result itself holds them all (to_json, to_csv)."
    )


def _is_text(entries: list[Any]) -> bool:
    return any(
        entry is not None and (isinstance(entry, bool) or not isinstance(entry, (int, float))) for entry in entries
    )


def _digits(value: Any, text: str) -> str:
    """Set the digits of a large integer in groups of three, with space that is not copied."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) < 10_000 or abs(value) >= 10**18:
        return text
    head, *groups = f"{value:,}".split(",")
    return head + "".join(f"<i>{group}</i>" for group in groups)

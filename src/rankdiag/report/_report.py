"""One result, or several in order and in sections, as text, JSON or one HTML page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from rankdiag._document import Document
from rankdiag._files import write_text
from rankdiag._html import render_page
from rankdiag._json import SCHEMA_VERSION
from rankdiag._result import Result, result_from_dict, worst
from rankdiag._text import render_text
from rankdiag._validate import describe, integer, string

__all__ = ["Section", "from_json", "to_html", "to_json", "to_text", "write_html", "write_json"]

_TAG = "report.Report"
_SECTION_KEYS = {"title", "intro", "results"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Results that belong together, below one heading of a report.

    Attributes
    ----------
    title : str
        Heading.
    results : sequence of Result
        What is shown, in order; kept as a tuple.
    intro : str
        A paragraph below the heading.

    Raises
    ------
    TypeError
        If `title` or `intro` is no string, or `results` is no sequence of results.
    ValueError
        If `results` is empty.

    Examples
    --------
    >>> from rankdiag.report import Section, to_text
    >>> from rankdiag.spectral import spectrum
    >>> section = Section(title="A layer", results=[spectrum([[3.0, 0.0], [0.0, 1.0]])])
    >>> to_text(section).splitlines()[0]
    'A layer'
    """

    title: str
    results: tuple[Result, ...]
    intro: str = ""

    def __post_init__(self) -> None:
        string(self.title, "title")
        string(self.intro, "intro")
        object.__setattr__(self, "results", _results(self.results))


Part: TypeAlias = Result | Section
Parts: TypeAlias = Part | Sequence[Part] | Iterator[Part]


def _results(results: Any) -> tuple[Result, ...]:
    found = _parts(results, (Result,), "a result or a sequence of results")
    return tuple(part for part in found if isinstance(part, Result))


def _parts(results: Any, kinds: tuple[type, ...], wanted: str) -> tuple[Part, ...]:
    if isinstance(results, kinds):
        return (cast(Part, results),)
    # Arrays are no sequences, so none is listed entry by entry before it is refused.
    if isinstance(results, (str, bytes)) or not isinstance(results, (Sequence, Iterator)):
        raise TypeError(f"`results` must be {wanted}; got {describe(results)}")
    parts: list[Part] = []
    for index, part in enumerate(results):
        if not isinstance(part, kinds):
            raise TypeError(f"`results` must be {wanted}; entry {index} is {describe(part)}")
        parts.append(cast(Part, part))
    if not parts:
        raise ValueError("`results` must hold at least one result; got none")
    return tuple(parts)


def _given(results: Any) -> tuple[Part, ...]:
    return _parts(results, (Result, Section), "a result, a section, or a sequence of them")


def _document(part: Part) -> Document:
    if isinstance(part, Result):
        return part.document()
    return Document(
        title=part.title,
        verdict=worst([result.verdict for result in part.results]),
        explanation=part.intro,
        sections=tuple(result.document() for result in part.results),
    )


def _whole(results: Parts, title: str | None, intro: str) -> Document:
    parts = _given(results)
    heading = None if title is None else string(title, "title")
    words = string(intro, "intro")
    documents = tuple(map(_document, parts))
    if len(documents) == 1 and heading is None and not words:
        return documents[0]
    verdict = worst([document.verdict for document in documents])
    return Document(title=heading or "Report", verdict=verdict, explanation=words, sections=documents)


def to_text(results: Parts, *, title: str | None = None, intro: str = "", width: int = 100, max_rows: int = 30) -> str:
    """Return results as plain text for a terminal or a log.

    Parameters
    ----------
    results : Result, Section or sequence of them
        What is shown, in order.
    title : str, optional
        Heading of the whole; None takes that of a single result, or "Report".
    intro : str
        A paragraph below it.
    width : int
        Columns to wrap prose and to fit tables to, at least 20; what does not fit is named.
    max_rows : int
        Rows of a table that are shown; those with an alert or a warning come first, and the rest is counted.

    Returns
    -------
    str
        Several lines, without a final newline. Control characters of names are made visible.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no result, or `width` or `max_rows` is too small.

    Examples
    --------
    >>> from rankdiag.report import to_text
    >>> from rankdiag.spectral import spectrum
    >>> print(to_text(spectrum([[3.0, 0.0], [0.0, 1.0]]), title="A layer").splitlines()[0])
    A layer
    """
    document = _whole(results, title, intro)
    return render_text(document, width=integer(width, "width", low=20), max_rows=integer(max_rows, "max_rows", low=1))


def to_html(results: Parts, *, title: str | None = None, intro: str = "", max_rows: int = 1000) -> str:
    """Return results as one self-contained HTML page.

    The page has no script and loads nothing, follows the reader's light or dark theme, and reads well on a phone,
    on paper and through a screen reader. Every text is escaped; the same results give the same bytes.

    Parameters
    ----------
    results : Result, Section or sequence of them
        What is shown, in order; two or more get a table of contents.
    title : str, optional
        Heading of the page; None takes that of a single result, or "Report".
    intro : str
        A paragraph below it.
    max_rows : int
        Rows of a table that are shown; those with an alert or a warning come first, and the rest is counted.

    Returns
    -------
    str
        The page, about 20 bytes for each cell of a table and 100 for each point of a plot.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no result, or `max_rows` is below 1.

    Examples
    --------
    >>> from rankdiag.report import to_html
    >>> from rankdiag.spectral import spectrum
    >>> page = to_html(spectrum([[3.0, 0.0], [0.0, 1.0]]), title="Layers < 3")
    >>> page.startswith("<!DOCTYPE html>"), "<title>Layers &lt; 3</title>" in page, "<script" in page
    (True, True, False)
    """
    document = _whole(results, title, intro)
    return render_page(document, max_rows=integer(max_rows, "max_rows", low=1))


def to_json(results: Parts, *, indent: int | None = None) -> str:
    """Return results as one JSON document.

    Parameters
    ----------
    results : Result, Section or sequence of them
        One result is written as its `to_json` writes it. A sequence becomes an object with ``schema_version``,
        ``type`` and ``results``, a list in the given order; a section in it is an object with ``title``, ``intro``
        and ``results``.
    indent : int, optional
        Blanks for each level, at most 16; None writes one line.

    Returns
    -------
    str
        JSON without NaN or infinity (see `Result.to_dict`), read back by `from_json`.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no result, or `indent` is out of its range.

    Examples
    --------
    >>> from rankdiag.report import from_json, to_json
    >>> from rankdiag.spectral import spectrum
    >>> results = (spectrum([[3.0]]), spectrum([[4.0]]))
    >>> from_json(to_json(results)) == results
    True
    """
    spaces = None if indent is None else integer(indent, "indent", low=0, high=16)
    if isinstance(results, Result):
        data: dict[str, Any] = results.to_dict()
    else:
        entries = [_as_dict(part) for part in _given(results)]
        data = {"schema_version": SCHEMA_VERSION, "type": _TAG, "results": entries}
    text = json.dumps(data, indent=spaces, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate has no UTF-8; JSON can spell it out


def _as_dict(part: Part) -> dict[str, Any]:
    if isinstance(part, Result):
        return part.to_dict()
    return {"title": part.title, "intro": part.intro, "results": [result.to_dict() for result in part.results]}


def from_json(text: str) -> Part | tuple[Part, ...]:
    """Read back what `to_json` wrote.

    Parameters
    ----------
    text : str
        The JSON document.

    Returns
    -------
    Result or tuple of Result and Section
        Equal to what was written: a tuple where a sequence was.

    Raises
    ------
    TypeError
        If `text` is no string.
    ValueError
        If it is no JSON, or not that of results; the place is in the message.

    Examples
    --------
    >>> from rankdiag.report import from_json, to_json
    >>> from rankdiag.spectral import spectrum
    >>> from_json(to_json(spectrum([[3.0]]))).stable_rank()
    1.0
    """
    try:
        data = json.loads(string(text, "text"))
    except RecursionError:
        raise ValueError("`text` must be the JSON of results; it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"`text` must be JSON; {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"`text` must hold a JSON object; got {type(data).__name__}")
    if data.get("type") != _TAG:
        return result_from_dict(data)
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"`text` must have schema_version {SCHEMA_VERSION}; got {data.get('schema_version')!r}")
    return tuple(_from_dict(entry, f"/results/{i}") for i, entry in enumerate(_entries(data, "")))


def _from_dict(entry: dict[str, Any], place: str) -> Part:
    if set(entry) != _SECTION_KEYS:
        return result_from_dict(entry)
    results = tuple(result_from_dict(inner) for inner in _entries(entry, place))
    return Section(title=entry["title"], intro=entry["intro"], results=results)


def _entries(data: dict[str, Any], place: str) -> list[Any]:
    entries = data.get("results")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"`text` must hold a list of results at {place}/results; got {type(entries).__name__}")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"`text` must hold an object at {place}/results/{index}; got {type(entry).__name__}")
    return entries


def write_html(
    results: Parts, path: str | os.PathLike[str], *, title: str | None = None, intro: str = "", max_rows: int = 1000
) -> Path:
    """Write results as one self-contained HTML page; the file appears whole or not at all.

    Parameters
    ----------
    results : Result, Section or sequence of them
        What is shown, in order.
    path : str or path-like
        File to write; its folder must exist.
    title : str, optional
        Heading of the page; None takes that of a single result, or "Report".
    intro : str
        A paragraph below it.
    max_rows : int
        Rows of a table that are shown; those with an alert or a warning come first, and the rest is counted.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no result, or `max_rows` is below 1.
    OSError
        If the folder does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from rankdiag.report import write_html
    >>> from rankdiag.spectral import spectrum
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_html(spectrum([[3.0]]), Path(folder) / "layer.html")
    ...     file.name, file.read_text(encoding="utf-8")[:15]
    ('layer.html', '<!DOCTYPE html>')
    """
    target = _path(path)
    return write_text(target, to_html(results, title=title, intro=intro, max_rows=max_rows))


def write_json(results: Parts, path: str | os.PathLike[str], *, indent: int | None = 2) -> Path:
    """Write results as one JSON document; the file appears whole or not at all.

    Parameters
    ----------
    results : Result, Section or sequence of them
        What is written, in order; see `to_json`.
    path : str or path-like
        File to write; its folder must exist.
    indent : int, optional
        Blanks for each level, at most 16; None writes one line.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no result, or `indent` is out of its range.
    OSError
        If the folder does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from rankdiag.report import from_json, write_json
    >>> from rankdiag.spectral import spectrum
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = write_json(spectrum([[3.0]]), Path(folder) / "layer.json")
    ...     from_json(file.read_text(encoding="utf-8")).stable_rank()
    1.0
    """
    target = _path(path)
    return write_text(target, to_json(results, indent=indent) + "\n")


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`path` must be a string or a path; got {describe(path)}")
    return Path(path)

"""Results: frozen, typed objects that know their own conventions and say what they mean.

Every result renders through `Result.document`, is written as JSON and read back through one pair of methods,
and is found again by its type tag. A subclass adds fields and, where it has something to show, `document`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from rankdiag._document import Column, Document, Grid, KeyNumber, Network, Plot, Verdict, format_value
from rankdiag._files import write_text
from rankdiag._json import SCHEMA_VERSION, decode_fields, encode
from rankdiag._meta import VERDICTS, Finding, Meta, Threshold, worst
from rankdiag._tabular import csv_cell, csv_line, markdown_cell
from rankdiag._text import render_text
from rankdiag._validate import describe, integer, string
from rankdiag._validate import names as check_names

__all__ = ["Finding", "Meta", "Result", "Table", "Threshold", "result_from_dict", "result_from_json", "worst"]

_REGISTRY: dict[str, type[Result]] = {}
_MOST_ENTRIES = 12  # of a tuple that repr shows whole
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TAG = re.compile(r"[a-z_]+\.[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """Base of every result.

    Attributes
    ----------
    meta : Meta
        Conventions: definition, units, sample size, seed, what was skipped, dtype, version.
    verdict : {"ok", "warn", "alert", "unknown"}
        Judgement; ``"unknown"`` where no threshold with a source exists.
    explanation : str
        One paragraph: what the numbers mean.
    thresholds : tuple of Threshold
        The bounds behind the verdict, each with its source.
    """

    tag: ClassVar[str] = ""
    judged: ClassVar[bool] = True  # False where no source sets a bound, so that the verdict is always "unknown"

    meta: Meta = field(default_factory=Meta)
    verdict: Verdict = "unknown"
    explanation: str = ""
    thresholds: tuple[Threshold, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Result, cls).__init_subclass__(**kwargs)  # the short form fails in a dataclass with slots
        if "__repr__" not in cls.__dict__:  # or a dataclass writes one that shows every row
            setattr(cls, "__repr__", Result.__repr__)  # noqa: B010 - a plain assignment to a method is no valid type
        own = cls.__dict__.get("tag")
        if own:
            if not _TAG.fullmatch(own):
                raise TypeError(f"the tag of a result must look like 'room.ClassName'; got {own!r}")
            _REGISTRY[own] = cls

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Result):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(_hashable(self.to_dict()))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        frozen = tuple(name for name, value in state.items() if _is_read_only(value))
        return _rebuild, (type(self), state, frozen)

    def __repr__(self) -> str:
        shown = (f"{f.name}={_brief(getattr(self, f.name))}" for f in dataclasses.fields(self) if f.repr)
        return f"{type(self).__name__}({', '.join(shown)})"

    # --- showing -------------------------------------------------------------------------------------------

    def document(self) -> Document:
        """Return what this result shows, free of any output format.

        Returns
        -------
        Document
            Title, verdict, explanation, key numbers, tables, plots and notes.
        """
        return Document(
            title=type(self).__name__,
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(
                KeyNumber(label=f.name.replace("_", " "), value=getattr(self, f.name))
                for f in dataclasses.fields(self)
                if isinstance(getattr(self, f.name), (bool, int, float)) and f.name not in _BASE_FIELDS
            ),
            notes=self.notes(),
        )

    def notes(self) -> tuple[str, ...]:
        """Return the conventions as sentences: definition, thresholds, sample size, seed, what was skipped."""
        meta = self.meta
        lines = [f"Definition: {meta.definition}."] if meta.definition else []
        for bound in self.thresholds:
            source = f" ({bound.source})" if bound.source else ""
            lines.append(f"{bound.severity} where {bound.quantity} {bound.op} {bound.value:g}{source}.")
        facts = {
            "log base": meta.base,
            "ddof": meta.ddof,
            "unit": meta.units,
            "n": meta.n,
            "seed": meta.seed,
            "dtype": meta.dtype,
            **{key.replace("_", " "): entry for key, entry in meta.details.items()},
        }
        stated = ", ".join(f"{k} {format_value(v)}" for k, v in facts.items() if v is not None)
        if stated:
            lines.append(f"Conventions: {stated}.")
        lines += [f"Skipped {name}: {reason}." for name, reason in meta.skipped.items()]
        return tuple(lines)

    def summary(self, *, width: int = 100, max_rows: int = 30) -> str:
        """Return the result as plain text for a terminal or a log.

        Parameters
        ----------
        width : int
            Columns to wrap prose to.
        max_rows : int
            Rows of a table that are shown.

        Returns
        -------
        str
            Several lines.
        """
        return render_text(
            self.document(),
            width=integer(width, "width", low=20),
            max_rows=integer(max_rows, "max_rows", low=1),
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from rankdiag._html import render_fragment

        return render_fragment(self.document())

    def plot(self, ax: Any = None, *, which: int = 0) -> Any:
        """Draw one of the plots of this result, or one of its drawn graphs, with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; None makes a figure of its own, which is not shown.
        which : int
            Which plot, if the result has several; drawn graphs are counted after the plots.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        ValueError
            If this result has no such plot.
        """
        document = self.document()
        drawings: tuple[Plot | Network, ...] = (*document.plots, *document.networks)
        index = integer(which, "which", low=0)
        if not (document.plots or document.networks):
            raise ValueError(f"`which` names one of the plots of a result, and {type(self).__name__} has none here")
        if index >= len(drawings):
            raise ValueError(f"`which` must be below {len(drawings)}, the number of plots of this result; got {index}")
        from rankdiag._mpl import draw

        return draw(drawings[index], ax)

    # --- JSON ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe dictionary that `result_from_dict` turns back into an equal result.

        Returns
        -------
        dict
            Keys ``schema_version``, ``type``, ``fields``, ``non_finite``. NaN and infinity are None in ``fields``
            and are named, with their place, in ``non_finite``.
        """
        non_finite: dict[str, str] = {}
        fields = encode(self, "", non_finite)
        return {
            "schema_version": SCHEMA_VERSION,
            "type": self.tag,
            "fields": fields,
            "non_finite": non_finite,
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return `to_dict` as JSON text.

        Parameters
        ----------
        indent : int, optional
            Spaces of one level; None puts everything on one line.

        Returns
        -------
        str
            JSON; non-ASCII characters are kept, but for halves of surrogate pairs, which are escaped.

        Raises
        ------
        TypeError
            If `indent` is no integer.
        ValueError
            If `indent` is negative or above 16.
        """
        spaces = None if indent is None else integer(indent, "indent", low=0, high=16)
        text = json.dumps(self.to_dict(), indent=spaces, allow_nan=False, ensure_ascii=False)
        return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a result from `to_dict`; the type tag says of which class.

        Parameters
        ----------
        data : mapping
            What `to_dict` returned.

        Returns
        -------
        Result
            Equal to the one that was written.

        Raises
        ------
        TypeError
            If `data` is no mapping, or holds a result of another class.
        ValueError
            If its version, type or fields are not those of a result.
        """
        result = result_from_dict(data)
        if not isinstance(result, cls):
            raise TypeError(f"`data` must hold a {cls.__name__}; got {type(result).__name__}")
        return result


def _brief(value: Any) -> str:
    """Write a field for a line of a log: of a long tuple the first entries, and integers of any length."""
    if type(value) is tuple and len(value) > _MOST_ENTRIES:
        return f"({', '.join(map(_brief, value[:3]))}, ... {len(value) - 3} more)"
    try:
        return repr(value)
    except ValueError:  # Python writes integers of up to 4300 digits
        return format_value(value) if isinstance(value, int) else f"<{type(value).__name__} with a longer integer>"


def _rebuild(cls: type[Result], state: Mapping[str, Any], frozen: tuple[str, ...]) -> Result:
    """Make a result again after a copy or a pickle, which both forget that an array was read-only."""
    for name in frozen:
        state[name].flags.writeable = False
    return cls(**state)


def _is_read_only(value: Any) -> bool:
    flags = getattr(value, "flags", None)
    return flags is not None and not getattr(flags, "writeable", True)


def _hashable(value: Any) -> Any:
    """Turn JSON-like data into tuples and sets, so that equal data have equal hashes whatever their order."""
    if isinstance(value, dict):
        return frozenset((key, _hashable(entry)) for key, entry in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


_BASE_FIELDS = {f.name for f in dataclasses.fields(Result)}


def result_from_dict(data: Mapping[str, Any]) -> Result:
    """Rebuild any result from its dictionary; see `Result.from_dict`.

    Parameters
    ----------
    data : mapping
        What `Result.to_dict` returned, perhaps after a trip through JSON.

    Returns
    -------
    Result
        Of the class that its type tag names.

    Raises
    ------
    TypeError
        If `data` is no mapping.
    ValueError
        If its version, type or fields are not those of a result.

    Examples
    --------
    >>> import rankdiag as rd
    >>> from rankdiag import result_from_dict
    >>> s = rd.spectrum([[3.0, 0.0], [0.0, 1.0]])
    >>> result_from_dict(s.to_dict()) == s
    True
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"`data` must be a mapping as to_dict returns it; got {describe(data)}")
    version, tag = data.get("schema_version"), data.get("type")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(f"`data` must have schema_version {SCHEMA_VERSION}; got {describe(version)}")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise ValueError(f"`data` must have a type tag like 'weights.WeightReport'; got {describe(tag)}")
    cls = _find(tag)
    non_finite = data.get("non_finite", {})
    if not isinstance(non_finite, Mapping):
        raise ValueError(f"`data` must hold a mapping under 'non_finite'; got {describe(non_finite)}")
    try:
        result: Result = decode_fields(cls, data.get("fields"), "", non_finite)
    except RecursionError:
        raise ValueError("`data` is nested too deeply for a result") from None
    return result


def result_from_json(text: str) -> Result:
    """Rebuild any result from JSON text; see `result_from_dict`.

    Parameters
    ----------
    text : str
        What `Result.to_json` returned.

    Returns
    -------
    Result
        Of the class that its type tag names.

    Raises
    ------
    TypeError
        If `text` is no string.
    ValueError
        If it is no JSON, or not that of a result.

    Examples
    --------
    >>> import rankdiag as rd
    >>> from rankdiag import result_from_json
    >>> s = rd.spectrum([[3.0, 0.0], [0.0, 1.0]])
    >>> result_from_json(s.to_json()).stable_rank() == s.stable_rank()
    True
    """
    if not isinstance(text, str):
        raise TypeError(f"`text` must be a string; got {describe(text)}")
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ValueError(f"`text` must be JSON; {error}") from None
    except RecursionError:
        raise ValueError("`text` is nested too deeply for a result") from None
    return result_from_dict(data)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON value")


def _find(tag: str) -> type[Result]:
    if tag not in _REGISTRY:  # the room may not have been imported yet; only rooms of this package are tried
        room = tag.partition(".")[0]
        if (Path(__file__).parent / room / "__init__.py").is_file():
            module = importlib.import_module(f"rankdiag.{room}")
            getattr(module, tag.partition(".")[2], None)  # rooms load their modules on first use of a name
    if tag not in _REGISTRY:
        raise ValueError(f"`data` has the unknown type {tag!r}; known are {sorted(_REGISTRY)}")
    return _REGISTRY[tag]


RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table(Result, Generic[RowT]):
    """A result with many rows, one for each tensor, prompt, cut or pair.

    A subclass narrows the annotation of `rows` to its own frozen row class and lists its columns.

    Attributes
    ----------
    rows : tuple
        Row objects in source order; their fields are the columns.
    """

    columns: ClassVar[tuple[Column, ...]] = ()

    rows: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[RowT]:
        return iter(self.rows)

    def column(self, name: str) -> list[Any]:
        """Return one column as a list, in row order.

        Parameters
        ----------
        name : str
            Name of the column, as `columns` lists it.

        Returns
        -------
        list
            One entry for each row.

        Raises
        ------
        TypeError
            If `name` is no string.
        ValueError
            If there is no such column; the message lists them.
        """
        known = [column.name for column in self.columns]
        if string(name, "name") not in known:
            raise ValueError(f"`name` must be one of {', '.join(known)}; got {describe(name)}")
        return [getattr(row, name) for row in self.rows]

    def grid(self, title: str = "", names: tuple[str, ...] = (), levels: tuple[Verdict, ...] = ()) -> Grid:
        """Return the rows as a table for a document.

        Parameters
        ----------
        title : str
            Heading.
        names : tuple of str
            Columns to show, in order; empty takes all.
        levels : tuple of {"ok", "warn", "alert", "unknown"}
            One for each row, or empty: marks rows that need attention.

        Returns
        -------
        Grid
            Columns and cells.

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If there is no such column or level, or not one level for each row.
        """
        known = {column.name: column for column in self.columns}
        columns = tuple(known[name] for name in check_names(names, "names", known)) or self.columns
        marks = cast("tuple[Verdict, ...]", check_names(levels, "levels", VERDICTS))
        if marks and len(marks) != len(self.rows):
            raise ValueError(f"`levels` must hold one entry for each of {len(self.rows)} rows; got {len(marks)}")
        return Grid(
            title=string(title, "title"),
            columns=columns,
            rows=tuple(tuple(getattr(row, column.name) for column in columns) for row in self.rows),
            levels=marks,
        )

    def document(self) -> Document:
        """Return what this table shows: its explanation, all columns and its notes."""
        return dataclasses.replace(
            super(Table, self).document(),  # the short form of super() fails in a dataclass with slots
            grids=(self.grid(),),
        )

    def to_pandas(self) -> Any:
        """Return the rows as a pandas DataFrame with stable column order.

        Returns
        -------
        pandas.DataFrame
            One row for each row of this table.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        return pandas.DataFrame({column.name: self.column(column.name) for column in self.columns})

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the rows as CSV with full precision.

        A text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@`` or a control
        character) gets an apostrophe in front, for names come from files of other people; `to_json` and
        `to_pandas` keep every name as it is. Numbers are never touched.

        Parameters
        ----------
        path : str or path-like, optional
            File to write, whole or not at all; None only returns the text.

        Returns
        -------
        str
            The CSV text; missing values are empty cells.

        Raises
        ------
        FileNotFoundError
            If the folder of `path` does not exist.
        OSError
            If the file cannot be written.
        """
        lines = [csv_line([column.name for column in self.columns])]
        lines += [csv_line([csv_cell(getattr(row, column.name)) for column in self.columns]) for row in self.rows]
        text = "\n".join([*lines, ""])
        if path is not None:
            write_text(path, text)
        return text

    def to_markdown(self) -> str:
        """Return the rows as a Markdown table with four significant digits."""
        header = [column.label or column.name for column in self.columns]
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        for row in self.rows:
            cells = [markdown_cell(format_value(getattr(row, column.name))) for column in self.columns]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def plots_of(document: Document) -> tuple[Plot, ...]:
    """Return the plots of a document and of all its sections, in order."""
    return document.plots + tuple(plot for section in document.sections for plot in plots_of(section))

"""What every result with one number for each preference pair shares: keys, statuses, columns, rules, tables."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._files import write_text
from rankdiag._meta import Finding, Threshold
from rankdiag._result import Result
from rankdiag._rules import flag
from rankdiag._tabular import csv_cell, csv_line
from rankdiag._validate import choice, describe, integer, string

__all__ = ["STATUS", "PairColumns", "PairText", "TokenAttribution", "check_pairs", "regime_names", "score_array"]

Floats = NDArray[np.float64]

STATUS = ("ok", "empty_prompt", "empty_chosen", "empty_rejected", "too_long", "identical", "unusable")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairText:
    """The words of one pair, for a report.

    Attributes
    ----------
    key : str
        Key of the pair.
    prompt, chosen, rejected : str
        What stands in the data, or a part of it.
    """

    key: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAttribution:
    """How much each token of a chosen response adds to the predicted change of its log-probability.

    Attributes
    ----------
    key : str
        Key of the pair.
    tokens : tuple of str
        The tokens of the chosen response, as text.
    contributions : tuple of float
        One for each token: its part of d/dt ln pi(chosen | prompt); negative ones are pushed down.
    """

    key: str
    tokens: tuple[str, ...]
    contributions: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.contributions):
            raise ValueError(
                f"`contributions` must have one entry for each of {len(self.tokens)} tokens; "
                f"got {len(self.contributions)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairColumns(Result):
    """A result with one row for each pair, in input order, and float64 columns.

    Attributes
    ----------
    keys : tuple of str
        One for each pair, unique.
    status : tuple of str
        ``"ok"``, or why the pair cannot be used.
    texts : tuple of PairText
        Words of the pairs that a report shows.
    attribution : tuple of TokenAttribution
        Contributions of single tokens, for the pairs that a report shows.
    """

    rule_names: ClassVar[tuple[str, ...]] = ()

    keys: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    texts: tuple[PairText, ...] = ()
    attribution: tuple[TokenAttribution, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        usable = int(self.usable.sum())
        return f"{type(self).__name__}({len(self)} pairs, {usable} usable; {', '.join(self.columns)})"

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each pair is usable; a pair with two identical responses is not, whatever its score."""
        return np.array([word == "ok" for word in self.status], dtype=bool)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns())

    @property
    def ranking(self) -> str:
        """Column by which pairs are called the worst."""
        raise NotImplementedError

    def _columns(self) -> Mapping[str, Floats]:
        raise NotImplementedError

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one column.

        Parameters
        ----------
        name : str
            One of `columns`.

        Returns
        -------
        ndarray of float64, shape (N,)
            One entry for each pair in input order, NaN where there is none; read-only.

        Raises
        ------
        TypeError
            If `name` is no string.
        ValueError
            If there is no such column; the message lists them.
        """
        return self._column_of(name, "name")

    def _column_of(self, value: Any, argument: str) -> Floats:
        known = self._columns()
        if string(value, argument) not in known:
            raise ValueError(f"`{argument}` must be one of {', '.join(known)}; got {describe(value)}")
        return known[value]

    def usable_values(self, name: str) -> NDArray[np.float64]:
        """Return the finite entries of a column over the usable pairs.

        Parameters
        ----------
        name : str
            One of `columns`.

        Returns
        -------
        ndarray of float64
            In input order, perhaps empty.
        """
        values = self.column(name)
        return values[self.usable & np.isfinite(values)]

    def worst_pairs(self, n: int = 10, *, by: str | None = None) -> tuple[int, ...]:
        """Return the pairs with the highest scores, which are those to look at first.

        Parameters
        ----------
        n : int
            How many at most.
        by : str, optional
            Column to rank by; None takes `ranking`.

        Returns
        -------
        tuple of int
            Positions of usable pairs, highest score first, ties in input order.

        Raises
        ------
        TypeError
            If `n` is no integer or `by` no string.
        ValueError
            If `n` is below 1, or there is no such column.
        """
        count = integer(n, "n", low=1)
        values = self.column(self.ranking) if by is None else self._column_of(by, "by")
        index = np.flatnonzero(self.usable & ~np.isnan(values))
        order = index[np.argsort(-values[index], kind="stable")]
        return tuple(int(i) for i in order[:count])

    def status_counts(self) -> dict[str, int]:
        """Return how many pairs have each status, in a fixed order, without the zeros."""
        found = Counter(self.status)
        return {word: found[word] for word in STATUS if found[word]}

    def flag(self, rules: Iterable[str | Threshold]) -> tuple[Finding, ...]:
        """Compare columns pair by pair, or numbers of the whole dataset, with declarative thresholds.

        Parameters
        ----------
        rules : iterable of str or Threshold
            ``"COLUMN OP NUMBER"`` such as ``"relative > 0"``, or a number of the dataset such as
            ``"both_fall_fraction > 0.3"``.

        Returns
        -------
        tuple of Finding
            One for each pair (or number) that meets a rule. A pair that is unusable, or whose responses are
            identical, has no value: its finding has severity ``"unknown"``.

        Raises
        ------
        TypeError
            If `rules` is a single string, or holds something that is no rule.
        ValueError
            If a rule does not parse or names an unknown column.
        """
        return flag(self, rules)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one plain row for each pair: key, status, columns; None where there is no finite number."""
        columns = {name: values.tolist() for name, values in self._columns().items()}
        for index, (key, word) in enumerate(zip(self.keys, self.status, strict=True)):
            row: dict[str, Any] = {"key": key, "status": word}
            for name, values in columns.items():
                row[name] = values[index] if np.isfinite(values[index]) else None
            yield row

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write one row for each pair as CSV with full precision.

        A key that a spreadsheet would take for a formula gets an apostrophe in front.

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
        lines = [csv_line(["key", "status", *self.columns])]
        lines += [csv_line([csv_cell(cell) for cell in row.values()]) for row in self.records()]
        text = "\n".join([*lines, ""])
        if path is not None:
            write_text(path, text)
        return text

    def to_pandas(self) -> Any:
        """Return one row for each pair as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            Columns ``key``, ``status``, then `columns`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        table: dict[str, Any] = {"key": list(self.keys), "status": list(self.status)}
        table.update({name: np.array(values) for name, values in self._columns().items()})
        return pandas.DataFrame(table)


def regime_names(relative: Floats) -> list[str]:
    """Return what each relative score rho says: both_fall (> 0), ideal (-1 to 0), both_rise (< -1) or undefined."""
    words = np.select(
        [np.isnan(relative), relative > 0, relative >= -1],
        ["undefined", "both_fall", "ideal"],
        default="both_rise",
    )
    return [str(word) for word in words]


def score_array(value: Any, name: str, count: int, *, infinite: bool = False) -> Floats:
    """Return a read-only float64 copy of one number for each pair; NaN is legal.

    Raises
    ------
    TypeError
        If it is no array of numbers.
    ValueError
        If it has not one axis, not `count` entries, or an infinity where none is legal.
    """
    array = np.array(as_float64(value, name, ndim=1, allow_empty=True, finite=False, expected="one number per pair"))
    if len(array) != count:
        raise ValueError(f"`{name}` must have one entry for each of {count} pairs; got {len(array)}")
    bad = np.isinf(array)
    if bad.any() and not infinite:
        pair = int(bad.argmax())
        raise ValueError(f"pair {pair}: `{name}` must be finite, or NaN where unusable; got {float(array[pair])}")
    array.flags.writeable = False
    return array


def check_pairs(result: PairColumns) -> dict[str, Any]:
    """Check the fields that all pair results share and return them in their final form.

    Raises
    ------
    TypeError
        If keys or statuses are no sequences of strings.
    ValueError
        If there is no pair, a key repeats, a status is unknown, or lengths differ.
    """
    keys = _strings(result.keys, "keys")
    if not keys:
        raise ValueError("`keys` must name at least one pair; got none")
    if len(set(keys)) != len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise ValueError(f"`keys` must be unique; {describe(twice)} stands there more than once")
    status = tuple(choice(word, "status", STATUS) for word in _strings(result.status, "status"))
    if len(status) != len(keys):
        raise ValueError(f"`status` must have one entry for each of {len(keys)} pairs; got {len(status)}")
    known = set(keys)
    for name in ("texts", "attribution"):
        for entry in getattr(result, name):
            if entry.key not in known:
                raise ValueError(f"`{name}` must be of pairs that are there; {describe(entry.key)} is no key")
    return {
        "keys": keys,
        "status": status,
        "texts": tuple(result.texts),
        "attribution": tuple(result.attribution),
    }


def _strings(value: Any, name: str) -> tuple[str, ...]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a list of strings, one for each pair; got {describe(value)}")
    return tuple(string(entry, name) for entry in value)

"""Tables of rewards out of rows: JSON lines, JSON, Parquet, folders of datasets and CSV, long and wide."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag._validate import describe
from rankdiag.cli.rewards._input import is_wide, meta_of

if TYPE_CHECKING:
    from rankdiag.rewards import RewardTable

__all__ = ["Rows", "csv_rows"]

Located = tuple[str, Mapping[str, Any]]

_NO_VALUE = {"", "nan", "null", "none"}
_TRUTH = {"true": 1.0, "false": 0.0}
_OWN = ("log_prob", "length", "gold")  # read where they are there, by these names
_MOST_NAMED = 12  # columns that a message lists


class Rows:
    """A file of rows, read once.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with ``add_table_arguments``.
    path : pathlib.Path
        The file, or the folder of a dataset.

    Raises
    ------
    FileNotFoundError, MissingExtraError, ValueError
        If it cannot be read, or holds no row.
    """

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        from rankdiag.language_models._records import iterate_records

        self._options, self._path = options, path
        self._text = path.suffix.lower() == ".csv"
        rows = csv_rows(path) if self._text else iterate_records(str(path), "TABLE", split=options.split)
        self._rows: list[Located] = list(rows)
        if not self._rows:
            raise ValueError(f"{path.name}: holds no row; a table needs at least one rollout")

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the first row."""
        return tuple(self._rows[0][1])

    @property
    def rows(self) -> list[Located]:
        """Rows as they are, each with the words that say where it stands."""
        return self._rows

    def table(self, reward: str | None = None, *, negate: bool = False) -> RewardTable:
        """Return the table whose rewards are in this column; of wide rows, in the columns of this pattern."""
        sign = -1.0 if negate else 1.0
        return self._wide(reward, sign) if is_wide(self._options) else self._long(reward, sign)

    # --- a row for each rollout ----------------------------------------------------------------------------------

    def _long(self, reward: str | None, sign: float) -> RewardTable:
        from rankdiag.rewards import RewardTable

        columns = self._columns(reward)
        ids = self.prompt_ids()
        cells = {
            ours: [self._number(place, row, theirs, ours) for place, row in self._rows]
            for ours, theirs in columns.items()
        }
        cells["reward"] = [0.0 + sign * value for value in cells["reward"]]
        names = list(cells)
        records = (
            {**key, **dict(zip(names, values, strict=True))} for key, *values in zip(ids, *cells.values(), strict=True)
        )
        return RewardTable.from_records(records, meta=self._meta(columns["reward"], sign))

    def _columns(self, reward: str | None) -> dict[str, str]:
        """Return the column of each thing: those that options name, and those that have our names."""
        options, names = self._options, self.names
        given = reward if reward is not None else (getattr(options, "reward", None) or ["reward"])[0]
        found = {"reward": self._known(given, "--reward")}
        for ours in _OWN:
            theirs = getattr(options, ours)
            if theirs is not None:
                found[ours] = self._known(theirs, f"--{ours.replace('_', '-')}")
            elif ours in names and ours != given:
                found[ours] = ours
        return found

    def prompt_ids(self) -> list[dict[str, Any]]:
        """Return for each row its ``prompt_id`` or its ``prompt``, as ``RewardTable.from_records`` takes them."""
        name, names = self._options.prompt_id, self.names
        if name is None and "prompt_id" not in names:
            if "prompt" not in names:
                raise ValueError(
                    f"{self._path.name}: rows must have a 'prompt_id' or a 'prompt'; they have {_listed(names)}. Name "
                    "the column with --prompt-id, or say with --wide that every row is a prompt"
                )
            return [{"prompt": self._cell(place, row, "prompt")} for place, row in self._rows]
        column = self._known("prompt_id" if name is None else name, "--prompt-id")
        return [{"prompt_id": key} for key in self._ids(column)]

    def _ids(self, column: str) -> list[str]:
        found: list[str] = []
        first: type | None = None
        for place, row in self._rows:
            value = self._cell(place, row, column)
            kind = type(value)
            if kind not in {str, int}:
                raise ValueError(
                    f"{place}: {column!r} must be a text or a whole number, which tells prompts apart; got "
                    f"{describe(value)}"
                )
            first = first or kind
            if kind is not first:
                raise ValueError(
                    f"{place}: {column!r} must be of one kind in all rows, texts or whole numbers, for 1 and '1' would "
                    f"be one prompt; got {describe(value)}, and before {describe(found[0])} of the other kind"
                )
            found.append(str(value))
        return found

    # --- a row for each prompt -----------------------------------------------------------------------------------

    def _wide(self, reward: str | None, sign: float) -> RewardTable:
        import numpy as np

        from rankdiag.rewards import RewardTable

        options = self._options
        pattern = options.wide if reward is None else reward
        values = self._block(pattern, "--wide" if reward is None else "--proxy", "reward")
        arrays = {}
        for ours, theirs in (("gold", options.gold_wide), ("log_prob", options.log_prob), ("length", options.length)):
            if theirs is not None:
                flag = "--gold-wide" if ours == "gold" else f"--{ours.replace('_', '-')}"
                arrays[ours] = self._block(theirs, flag, ours)
                if arrays[ours].shape != values.shape:
                    raise ValueError(
                        f"{self._path.name}: {flag} {theirs!r} gives {arrays[ours].shape[1]} rollouts of a prompt, and "
                        f"{pattern!r} gives {values.shape[1]}; they must be of the same rollouts"
                    )
        ids = self._wide_ids()
        lengths = arrays.get("length")
        return RewardTable.from_array(
            0.0 + sign * values,
            prompt_ids=ids,
            gold=arrays.get("gold"),
            log_probs=arrays.get("log_prob"),
            lengths=None if lengths is None else np.nan_to_num(lengths, nan=0.0),
            meta=self._meta(pattern, sign),
        )

    def _block(self, pattern: str, flag: str, ours: str) -> Any:
        """Return the columns that match as an array (N, k); one column may hold lists."""
        import numpy as np

        names = [name for name in self.names if fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(
                f"{self._path.name}: no column matches {pattern!r}; columns are {_listed(self.names)}. Give {flag} a "
                "name of them, or a pattern such as 'reward_*'"
            )
        if len(names) == 1 and isinstance(self._rows[0][1][names[0]], (list, tuple)):
            lists = [self._entries(place, row, names[0], ours) for place, row in self._rows]
            block = np.full((len(lists), max(1, *map(len, lists))), np.nan)
            for row, entries in zip(block, lists, strict=True):
                row[: len(entries)] = entries
            return block
        return np.array([[self._number(place, row, name, ours) for name in names] for place, row in self._rows])

    def _entries(self, place: str, row: Mapping[str, Any], name: str, ours: str) -> list[float]:
        cell = self._cell(place, row, name)
        if not isinstance(cell, (list, tuple)):
            raise ValueError(f"{place}: {name!r} must be a list of numbers, as in the first row; got {describe(cell)}")
        return [self._checked(f"{place}, entry {number}", entry, name, ours) for number, entry in enumerate(cell)]

    def _wide_ids(self) -> tuple[str, ...] | None:
        column = self._options.prompt_id
        if column is None and "prompt_id" not in self.names:
            return None
        found = self._ids(self._known("prompt_id" if column is None else column, "--prompt-id"))
        seen: set[str] = set()
        for (place, _), key in zip(self._rows, found, strict=True):
            if key in seen:
                raise ValueError(f"{place}: the prompt {key!r} has a row already; with --wide every row is a prompt")
            seen.add(key)
        return tuple(found)

    # --- cells -----------------------------------------------------------------------------------------------------

    def _known(self, name: str, flag: str) -> str:
        if name not in self.names:
            raise ValueError(
                f"{self._path.name}: has no column {name!r}; columns are {_listed(self.names)}. Name one with {flag}"
            )
        return name

    def _cell(self, place: str, row: Mapping[str, Any], name: str) -> Any:
        value = row.get(name)
        if value is None or (self._text and value == ""):
            raise ValueError(f"{place}: has no {name!r}, which other rows have; give every row one")
        return value

    def _number(self, place: str, row: Mapping[str, Any], name: str, ours: str) -> float:
        if name not in row:
            raise ValueError(
                f"{place}: has no {name!r}, which the first row has; write null for a rollout without a value"
            )
        return self._checked(place, row[name], name, ours)

    def _checked(self, place: str, value: Any, name: str, ours: str) -> float:
        """Return one cell as a float, NaN for none; refuse what is no number, and infinities."""
        found = _as_number(value, text=self._text)
        if found is None:
            hint = "; write it without quotes" if isinstance(value, str) and not self._text else ""
            raise ValueError(f"{place}: {name!r} must be a number, or nothing; got {describe(value)}{hint}")
        if math.isinf(found) and not (ours == "log_prob" and found < 0):
            raise ValueError(f"{place}: {name!r} must be finite; got {found}. Leave it empty if it cannot be scored")
        if ours == "length" and found == found and (found < 0 or found != math.floor(found)):
            raise ValueError(f"{place}: {name!r} must be a whole number of tokens, at least 0; got {found:g}")
        return found

    def _meta(self, column: str, sign: float) -> dict[str, Any]:
        reward = column if sign > 0 else f"minus {column}"
        return {"source": self._path.name, "reward": reward, **meta_of(self._options)}


def csv_rows(path: Path) -> Iterator[Located]:
    """Yield the rows of a CSV file, each with the words that say where it stands.

    Raises
    ------
    ValueError
        If it has no header, a name twice, a row of another length, or is no CSV in UTF-8.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise ValueError(f"{path.name}: must have a header with names of columns in line 1; it has none")
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{path.name}, line 1: the column {twice!r} stands there twice")
            for row in reader:
                place = f"{path.name}, line {reader.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"{place}: has {len(row)} cells, and the header has {len(header)}")
                yield place, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise ValueError(f"{path.name}, line {reader.line_num}: is no CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name}: is no UTF-8 ({error.reason} at byte {error.start})") from None


def _as_number(value: Any, *, text: bool) -> float | None:
    """Return a cell as a float, NaN for an empty one, and None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, (bool, int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if not text or not isinstance(value, str):
        return None
    word = value.strip()
    if word.lower() in _NO_VALUE:
        return math.nan
    if word.lower() in _TRUTH:
        return _TRUTH[word.lower()]
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    return shown + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")

"""Rewards of rollouts as one table: a row for each prompt, a column for each rollout, and what goes with them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._json import SCHEMA_VERSION, decode, encode
from rankdiag._validate import describe, string

__all__ = ["RewardTable", "as_table", "canonical_json", "hashed_prompt"]

Floats = NDArray[np.float64]

_TAG = "rewards.RewardTable"
_FIELDS = {"values", "prompt_ids", "log_probs", "lengths", "gold", "verdicts", "meta"}
_SHOWN = 12  # prompts of a table that are shown


class RewardTable:
    """Rewards of k rollouts for each of N prompts; made by `from_array` and `from_records`, never changed.

    Attributes
    ----------
    values : ndarray of float64, shape (N, k)
        Reward of each rollout; NaN where it cannot be scored, or where a prompt has fewer rollouts.
    prompt_ids : tuple of str
        One for each prompt, unique; their positions where none were given.
    log_probs : ndarray of float64, shape (N, k), or None
        ln pi of each rollout under the policy that sampled it, in nats.
    lengths : ndarray of int64, shape (N, k), or None
        Response tokens of each rollout.
    gold : ndarray of float64, shape (N, k), or None
        Ground-truth reward of the same rollouts.
    verdicts : ndarray of bool, shape (N, k, m), or None
        Whether each of m constraints is satisfied.
    meta : mapping of str to object
        Sampler, temperature, top_k, top_p, seed, policy, reward name; read-only.

    Examples
    --------
    >>> from rankdiag.rewards import RewardTable
    >>> table = RewardTable.from_array([[0.0, 1.0, 1.0], [1.0, 1.0, float("nan")]])
    >>> table
    RewardTable(2 prompts, 2 to 3 rollouts)
    >>> table.prompt_ids, table.counts.tolist()
    (('0', '1'), [3, 2])
    """

    __slots__ = ("_ids", "gold", "lengths", "log_probs", "meta", "values", "verdicts")

    values: Floats
    log_probs: Floats | None
    lengths: NDArray[np.int64] | None
    gold: Floats | None
    verdicts: NDArray[np.bool_] | None
    meta: Mapping[str, Any]
    _ids: tuple[str, ...] | None

    def __init__(self) -> None:
        raise TypeError("make a RewardTable with RewardTable.from_array or RewardTable.from_records")

    @classmethod
    def from_array(
        cls,
        values: Any,
        *,
        prompt_ids: Sequence[str] | None = None,
        log_probs: Any = None,
        lengths: Any = None,
        gold: Any = None,
        verdicts: Any = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a table of an array of rewards.

        Parameters
        ----------
        values : array-like or torch.Tensor, shape (N, k)
            Rewards; NaN or None for a rollout that cannot be scored.
        prompt_ids : sequence of str, optional
            One for each prompt, unique; None takes positions.
        log_probs : array-like, shape (N, k), optional
            ln pi of the same rollouts, in nats.
        lengths : array-like of int, shape (N, k), optional
            Their response tokens.
        gold : array-like, shape (N, k), optional
            Their ground-truth rewards.
        verdicts : array-like of bool, shape (N, k, m), optional
            Whether each constraint is satisfied.
        meta : mapping, optional
            How the rollouts were drawn and scored.

        Returns
        -------
        RewardTable
            With arrays of its own, read-only.

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If `values` has not two axes or is empty, a reward is infinite, shapes differ, or an id repeats.

        Examples
        --------
        >>> from rankdiag.rewards import RewardTable
        >>> RewardTable.from_array([[0.0, 1.0]], prompt_ids=["p"], meta={"reward": "correct"}).meta["reward"]
        'correct'
        """
        rewards = _rewards(values, "values")
        if rewards.ndim != 2 or 0 in rewards.shape:
            raise ValueError(f"`values` must be a table (N, k) with at least one reward; got {describe(values)}")
        shape = rewards.shape
        table = object.__new__(cls)
        table._set("values", _frozen(rewards))
        table._set("_ids", None if prompt_ids is None else _ids(prompt_ids, shape[0]))
        for name, given in (("log_probs", log_probs), ("gold", gold)):
            array = None if given is None else _rewards(given, name, infinite=name == "log_probs")
            if array is not None and array.shape != shape:
                raise ValueError(f"`{name}` must align with `values` rollout by rollout: got {array.shape} and {shape}")
            table._set(name, None if array is None else _frozen(array))
        table._set("lengths", None if lengths is None else _lengths(lengths, shape))
        table._set("verdicts", None if verdicts is None else _verdicts(verdicts, shape))
        if meta is not None and not isinstance(meta, Mapping):
            raise TypeError(f"`meta` must be a mapping; got {describe(meta)}")
        table._set("meta", MappingProxyType(dict(meta or {})))
        return table

    @classmethod
    def from_records(cls, rows: Iterable[Mapping[str, Any]], *, meta: Mapping[str, Any] | None = None) -> Self:
        """Make a table of one record for each rollout; rollouts of one prompt need not stand together.

        Parameters
        ----------
        rows : iterable of mapping
            ``reward`` (a number, or None), and ``prompt_id``, or ``prompt`` whose id is the sha1 of its canonical JSON;
            optionally ``log_prob``, ``length`` and ``gold``, in all rows or in none.
        meta : mapping, optional
            As in `from_array`.

        Returns
        -------
        RewardTable
            Prompts in order of first appearance, rollouts in the order of their rows.

        Raises
        ------
        TypeError
            If a row is no mapping, or holds something that is no number.
        ValueError
            If there is no row, a row lacks a field that others have, a reward is infinite, or ids differ in their type
            alone.

        Examples
        --------
        >>> from rankdiag.rewards import RewardTable
        >>> rows = [{"prompt_id": p, "reward": r} for p, r in (("a", 1), ("b", 0), ("a", 0))]
        >>> RewardTable.from_records(rows).values.tolist()
        [[1.0, 0.0], [0.0, nan]]
        """
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise TypeError(f"`rows` must be records, one for each rollout; got {describe(rows)}")
        places: dict[str, int] = {}
        texts: dict[str, bool] = {}
        group: list[int] = []
        columns: dict[str, list[Any]] = {"reward": []}
        for place, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(f"`rows` must hold mappings; row {place} is {describe(row)}")
            if place == 0:
                columns |= {name: [] for name in ("log_prob", "length", "gold") if name in row}
            key = _row_id(row, place)
            group.append(places.setdefault(key, len(places)))
            text = isinstance(row.get("prompt_id"), (str, type(None)))
            if texts.setdefault(key, text) != text:
                raise ValueError(
                    f"`rows`: row {place} has the 'prompt_id' {row['prompt_id']!r}, which an earlier row has as "
                    f"{'text' if texts[key] else 'a number'}; make all of them texts"
                )
            for name, entries in columns.items():
                if name not in row:
                    raise ValueError(f"`rows`: row {place} has no {name!r}, which row 0 has")
                entries.append(np.nan if row[name] is None else row[name])
            extra = next((name for name in ("log_prob", "length", "gold") if name in row and name not in columns), None)
            if extra is not None:
                raise ValueError(f"`rows`: row {place} has {extra!r}, which row 0 has not")
        if not group:
            raise ValueError("`rows` must hold at least one rollout; got none")
        rank = _ranks(np.array(group))
        shape = (len(places), int(rank.max()) + 1)
        arrays = {name: _spread(entries, name, group, rank, shape) for name, entries in columns.items()}
        lengths = arrays.get("length")
        return cls.from_array(
            arrays["reward"],
            prompt_ids=tuple(places),
            log_probs=arrays.get("log_prob"),
            lengths=None if lengths is None else np.nan_to_num(lengths, nan=0.0),
            gold=arrays.get("gold"),
            meta=meta,
        )

    @classmethod
    def _of(cls, values: Floats) -> Self:
        table = object.__new__(cls)
        for name in cls.__slots__:
            table._set(name, None)
        table._set("values", values)
        table._set("meta", MappingProxyType({}))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe dictionary, of the form that results have, which `from_dict` turns into an equal table.

        Returns
        -------
        dict
            Keys ``schema_version``, ``type``, ``fields``, ``non_finite``; NaN is None in ``fields``, named in the last.

        Raises
        ------
        TypeError
            If `meta` holds something that JSON cannot.

        Examples
        --------
        >>> from rankdiag.rewards import RewardTable
        >>> table = RewardTable.from_array([[0.0, float("nan")]])
        >>> RewardTable.from_dict(table.to_dict()) == table
        True
        """
        non_finite: dict[str, str] = {}
        fields = encode(self._arguments(), "", non_finite)
        return {"schema_version": SCHEMA_VERSION, "type": _TAG, "fields": fields, "non_finite": non_finite}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a table from `to_dict`.

        Parameters
        ----------
        data : mapping
            What `to_dict` returned, perhaps after a trip through JSON, which makes tuples of the lists of `meta`.

        Returns
        -------
        RewardTable
            Equal to the one that was written.

        Raises
        ------
        TypeError
            If `data` is no mapping, or a field has the wrong type.
        ValueError
            If its version, type or fields are not those of a table.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"`data` must be a mapping as to_dict returns it; got {describe(data)}")
        kind = (data.get("schema_version"), data.get("type"))
        if kind != (SCHEMA_VERSION, _TAG):
            raise ValueError(f"`data` must have schema_version {SCHEMA_VERSION} and type {_TAG!r}; got {kind}")
        fields, non_finite = data.get("fields"), data.get("non_finite")
        if not (isinstance(fields, Mapping) and isinstance(non_finite, Mapping) and set(fields) == _FIELDS):
            raise ValueError(f"`data` must have the fields {sorted(_FIELDS)} and a mapping under 'non_finite'")
        return cls.from_array(**decode(dict(fields), Any, "", non_finite))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a RewardTable is not changed; make another one, with {name} in RewardTable.from_array")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a RewardTable is not changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self._arguments(),)

    def _arguments(self) -> dict[str, Any]:
        names = ("values", "log_probs", "lengths", "gold", "verdicts")
        return {**{name: getattr(self, name) for name in names}, "prompt_ids": self._ids, "meta": dict(self.meta)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RewardTable):
            return NotImplemented
        mine, theirs = self._arguments(), other._arguments()
        same = all(_equal(mine[name], theirs[name]) for name in ("values", "log_probs", "lengths", "gold", "verdicts"))
        return same and self.prompt_ids == other.prompt_ids and mine["meta"] == theirs["meta"]

    __hash__ = None  # type: ignore[assignment]  # tables hold arrays, and are compared by them

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        low, high = int(self.counts.min()), int(self.counts.max())
        rollouts = f"{high} rollouts" if low == high else f"{low} to {high} rollouts"
        also = [name for name in ("log_probs", "lengths", "gold", "verdicts") if getattr(self, name) is not None]
        return f"RewardTable({len(self)} prompts, {rollouts}{''.join(', ' + name for name in also)})"

    def __str__(self) -> str:
        from rankdiag._text import render_text

        return render_text(self.document())

    def _repr_html_(self) -> str:
        from rankdiag._html import render_fragment

        return render_fragment(self.document())

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        """One for each prompt; positions are written out only when they are asked for."""
        return tuple(map(str, range(len(self)))) if self._ids is None else self._ids

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rollouts of each prompt that have a reward, shape (N,)."""
        return np.asarray((~np.isnan(self.values)).sum(axis=1), dtype=np.int64)

    def document(self) -> Document:
        """Return what a table shows by itself: its size, its range, and its first prompts.

        Returns
        -------
        Document
            `summarize` says what the rewards mean.
        """
        known = self.values[~np.isnan(self.values)]
        first = [" ".join(f"{value:.4g}" for value in row[:8]) for row in self.values[:_SHOWN]]
        ids = self._ids[:_SHOWN] if self._ids is not None else map(str, range(len(first)))
        return Document(
            title=repr(self),
            verdict="unknown",
            explanation="summarize(table) says how far these rewards can move a policy.",
            key_numbers=(
                KeyNumber(label="prompts", value=len(self)),
                KeyNumber(label="scored rollouts", value=len(known)),
                KeyNumber(label="lowest reward", value=float(known.min()) if len(known) else None),
                KeyNumber(label="highest reward", value=float(known.max()) if len(known) else None),
            ),
            grids=(
                Grid(
                    title="First prompts",
                    columns=(Column(name="prompt"), Column(name="rewards")),
                    rows=tuple(zip(ids, first, strict=True)),
                ),
            ),
            notes=tuple(f"{name}: {value}." for name, value in self.meta.items()),
        )

    def to_pandas(self) -> Any:
        """Return one row for each scored rollout as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            ``prompt_id``, ``rollout``, ``reward``, and ``log_prob``, ``length`` and ``gold`` where they are there.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        prompts, rollouts = np.nonzero(~np.isnan(self.values))
        ids = np.array(self.prompt_ids, dtype=object)
        table: dict[str, Any] = {
            "prompt_id": ids[prompts],
            "rollout": rollouts,
            "reward": self.values[prompts, rollouts],
        }
        for column, name in (("log_prob", "log_probs"), ("length", "lengths"), ("gold", "gold")):
            array = getattr(self, name)
            if array is not None:
                table[column] = array[prompts, rollouts]
        return pandas.DataFrame(table)


def as_table(value: Any, name: str = "table") -> RewardTable:
    """Return a RewardTable as it is, and an array (N, k) as one that shares its memory.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        As in `RewardTable.from_array`; the message names the argument.
    """
    if isinstance(value, RewardTable):
        return value
    rewards = _rewards(value, name)
    if rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(f"`{name}` must be a RewardTable or an array (N, k) of rewards; got {describe(value)}")
    view = rewards.view()  # no copy: the table lives as long as the call that reads it
    view.flags.writeable = False
    return RewardTable._of(view)


def canonical_json(value: Any) -> str:
    """Return one JSON text for equal values: sorted keys, no spaces, characters as they are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hashed_prompt(prompt: Any) -> str:
    """Return the id of a prompt that has none: the sha1 of its canonical JSON."""
    text = canonical_json(prompt)
    return hashlib.sha1(text.encode("utf-8", "backslashreplace"), usedforsecurity=False).hexdigest()


def _rebuilt(arguments: dict[str, Any]) -> RewardTable:
    return RewardTable.from_array(**arguments)


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return bool(a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    own = np.array(array)
    own.flags.writeable = False
    return own


def _rewards(value: Any, name: str, *, infinite: bool = False) -> Floats:
    """Return float64 rewards, None as NaN; refuse infinities by row and column."""
    if isinstance(value, (list, tuple)) and any(
        entry is None for row in value if isinstance(row, (list, tuple)) for entry in row
    ):
        value = [[np.nan if entry is None else entry for entry in row] for row in value]
    array = as_float64(value, name, allow_empty=True, finite=False, expected="rewards (N, k)")
    bad = np.isposinf(array) if infinite else np.isinf(array)
    if bad.any():
        place = [int(axis[0]) for axis in np.nonzero(bad)]
        kind = "log-probabilities" if infinite else "rewards"
        where = f"at row {place[0]}, column {place[1]}" if len(place) == 2 else f"at {tuple(place)}"
        raise ValueError(f"`{name}` must be finite, or NaN where there is none; {kind} contain +-inf {where}")
    return np.asarray(array, dtype=np.float64)


def _ids(value: Any, count: int) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"`prompt_ids` must be a sequence of strings; got {describe(value)}")
    if len(value) != count:
        raise ValueError(f"`prompt_ids` must have one entry for each of {count} prompts; got {len(value)}")
    found = tuple(string(entry, "prompt_ids") for entry in value)
    if len(set(found)) != len(found):
        twice = next(entry for entry, count in Counter(found).items() if count > 1)
        raise ValueError(f"`prompt_ids` must be unique; {describe(twice)} stands there more than once")
    return found


def _lengths(value: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    array = as_float64(value, "lengths", expected="numbers of tokens (N, k)")
    if array.shape != shape:
        raise ValueError(f"`lengths` must align with `values` rollout by rollout: got {array.shape} and {shape}")
    if (array < 0).any() or (array != np.floor(array)).any() or (array > 2**53).any():
        raise ValueError("`lengths` must be whole numbers of tokens, at least 0")
    return np.asarray(_frozen(array.astype(np.int64)))


def _verdicts(value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = np.asarray(as_float64(value, "verdicts", expected="verdicts (N, k, m)"))
    if array.ndim != 3 or array.shape[:2] != shape or not array.shape[2]:
        raise ValueError(f"`verdicts` must have shape {(*shape, 'm')}, one for each constraint; got {array.shape}")
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError("`verdicts` must be boolean: whether each constraint is satisfied")
    return np.asarray(_frozen(array.astype(np.bool_)))


def _row_id(row: Mapping[str, Any], place: int) -> str:
    if "reward" not in row:
        raise ValueError(f"`rows` must have a 'reward' each; row {place} has none")
    if row.get("prompt_id") is not None:
        return str(row["prompt_id"])
    if "prompt" not in row:
        raise ValueError(f"`rows` must have a 'prompt_id' or a 'prompt' each; row {place} has neither")
    try:
        return hashed_prompt(row["prompt"])
    except (TypeError, ValueError) as error:
        raise TypeError(f"`rows`: the prompt of row {place} must be text, or what JSON can hold; {error}") from None


def _ranks(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row how many earlier rows have its group."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    ranks = np.empty(len(group), dtype=np.int64)
    ranks[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks


def _spread(entries: list[Any], name: str, group: list[int], rank: NDArray[np.int64], shape: tuple[int, int]) -> Floats:
    flat = as_float64(entries, f"rows[{name!r}]", ndim=1, finite=False, expected="one number for each rollout")
    if name != "log_prob" and np.isinf(flat).any():
        place = int(np.flatnonzero(np.isinf(flat))[0])
        raise ValueError(f"`rows` must hold finite numbers, or None; the {name} of row {place} is {flat[place]}")
    found = np.full(shape, np.nan)
    found[np.array(group), rank] = flat
    return found

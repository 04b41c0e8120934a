"""Encoded records: token ids, groups and slots, what was wrong with which row, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._files import file_path, written_whole
from rankdiag._optional import optional
from rankdiag._validate import choice, describe, integer

__all__ = ["STATUSES", "Encoded", "EncodedPreferences", "fingerprint_of"]

Ids = NDArray[np.int32]
Kind = Literal["pairs", "responses", "ids"]

_KINDS: tuple[Kind, ...] = ("pairs", "responses", "ids")
_RESPONSES = ("ok", "empty_prompt", "empty_response", "too_long")
STATUSES: dict[str, tuple[str, ...]] = {
    "pairs": ("ok", "empty_prompt", "empty_chosen", "empty_rejected", "too_long", "identical"),
    "responses": _RESPONSES,
    "ids": _RESPONSES,
}
_MEANING = {
    "ok": "can be used",
    "empty_prompt": "the prompt has no token",
    "empty_chosen": "the chosen response has no token",
    "empty_rejected": "the rejected response has no token",
    "empty_response": "a response has no token",
    "too_long": "after truncation no prompt token, or no response token, is left",
    "identical": "both responses are the same tokens",
}
_INDICES = ("group", "slot", "prompt_id", "prompt_start")
_COUNTS = ("n_boundary_merges", "n_truncated", "n_lost_eos")
_FORMAT = 1  # of the Parquet files
_ROWS = 1000  # rows of a Parquet row group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Encoded:
    """Responses to prompts as token ids.

    A *group* is what belongs together: the two responses of a pair, or the rollouts of one prompt. A *row* is one
    response. Rows stand in group order, and inside a group in slot order.

    Attributes
    ----------
    kind : {"pairs", "responses", "ids"}
        What the records were. Pairs have slot 0 chosen and slot 1 rejected.
    keys : tuple of str
        One for each group, unique, in input order.
    status : tuple of str
        One for each group: ``"ok"``, or why it cannot be used.
    prompts : tuple of ndarray of int32
        Distinct prompts, in order of first appearance.
    group, slot, prompt_id, prompt_start : ndarray of int64, shape (rows,)
        Group and slot of each row; which prompt it answers; how many tokens of that prompt were cut off its front.
    response_ids : tuple of ndarray of int32
        One for each row, perhaps empty where the status is not ``"ok"``.
    loss_mask : tuple of (ndarray of bool or None)
        One for each row: which response tokens count; None counts all.
    n_boundary_merges, n_truncated, n_lost_eos : int
        Groups whose prompt and response merged into one token, that were cut, and that lost an EOS by it.
    tokenizer : mapping of str to object
        ``length``, ``hash``, ``eos`` (id or None) and the options of the encoding; JSON-safe.
    notes : tuple of str
        What a reader should know: an example of a merged boundary, say.
    records : str
        sha256 of the records as they were read, all their columns and their order; empty if unknown. It tells whether
        scores and records belong together.
    fingerprint : str
        sha256 of ids and options; computed where it is left empty.

    Raises
    ------
    TypeError
        If a field is not of its kind.
    ValueError
        If fields contradict each other: other lengths, repeated keys, rows out of order, an index out of range.

    Notes
    -----
    `encode` makes these. Arrays are shared, not copied; they are held as read-only views. To change a field, use
    ``dataclasses.replace(data, ..., fingerprint="")``, which computes the fingerprint anew.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> data = encode([{"prompt_ids": [5, 6], "responses_ids": [[7], [8, 9]]}], kind="responses")
    >>> data
    Encoded(1 group of 2 responses: 1 ok; 7 tokens)
    >>> data.status_counts
    {'ok': 1}
    """

    kind: Kind
    keys: tuple[str, ...]
    status: tuple[str, ...]
    prompts: tuple[Ids, ...]
    group: NDArray[np.int64]
    slot: NDArray[np.int64]
    prompt_id: NDArray[np.int64]
    prompt_start: NDArray[np.int64]
    response_ids: tuple[Ids, ...]
    loss_mask: tuple[NDArray[np.bool_] | None, ...]
    n_boundary_merges: int = 0
    n_truncated: int = 0
    n_lost_eos: int = 0
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    records: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _check(self)
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint_of(self))

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts.items()) or "none"
        return f"{type(self).__name__}({self._size()}: {counts}; {self.n_tokens} tokens)"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from rankdiag._html import render_fragment

        return render_fragment(self.document())

    def _size(self) -> str:
        groups, rows = len(self.keys), len(self.response_ids)
        if self.kind == "pairs":
            return _plural(groups, "pair")
        return _plural(groups, "group") if groups == rows else f"{_plural(groups, 'group')} of {rows} responses"

    @property
    def status_counts(self) -> dict[str, int]:
        """How many groups have each status; only those that occur, ``"ok"`` first."""
        counts = Counter(self.status)
        return {status: counts[status] for status in STATUSES[self.kind] if counts[status]}

    @property
    def n_usable(self) -> int:
        """Number of groups whose status is ``"ok"``."""
        return self.status.count("ok")

    @property
    def n_tokens(self) -> int:
        """Tokens of all rows, each with the prompt that is left to it: what a model reads if nothing is shared."""
        lengths = np.array([len(prompt) for prompt in self.prompts], dtype=np.int64)
        prompts = int((lengths[self.prompt_id] - self.prompt_start).sum()) if len(self.prompt_id) else 0
        return prompts + sum(len(ids) for ids in self.response_ids)

    def document(self) -> Document:
        """Return what there is to show, free of any output format."""
        counts = self.status_counts
        rows = tuple((name, count, count / len(self), _MEANING[name]) for name, count in counts.items())
        columns = (
            Column(name="status"),
            Column(name="groups"),
            Column(name="share", doc="of all groups"),
            Column(name="meaning"),
        )
        return Document(
            title=f"{type(self).__name__}: {self._size()}",
            key_numbers=(
                KeyNumber(label="usable", value=self.n_usable),
                KeyNumber(label="tokens", value=self.n_tokens, doc="prompts counted once for each response"),
                KeyNumber(label="distinct prompts", value=len(self.prompts)),
                KeyNumber(label="merged at the boundary", value=self.n_boundary_merges),
                KeyNumber(label="truncated", value=self.n_truncated),
                KeyNumber(label="lost their EOS", value=self.n_lost_eos),
            ),
            grids=(Grid(title="Status", columns=columns, rows=rows),) if rows else (),
            notes=(*self.notes, f"Fingerprint: {self.fingerprint}."),
        )

    def summary(self, *, width: int = 100) -> str:
        """Return counts and notes as plain text.

        Parameters
        ----------
        width : int
            Columns to wrap prose to.

        Returns
        -------
        str
            Several lines.
        """
        from rankdiag._text import render_text

        return render_text(self.document(), width=integer(width, "width", low=20))

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one Parquet file, one line for each row; the file appears as a whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Where the file goes; its folder must exist.

        Raises
        ------
        MissingExtraError
            If pyarrow is not installed.
        TypeError
            If `path` is no path.
        ValueError
            If no file can have this name.
        OSError
            If the file cannot be written.

        Notes
        -----
        Columns: ``key, status, group, slot, prompt_id, prompt_start, prompt_ids, response_ids, loss_mask``. The rest
        (kind, counts, tokenizer, notes, fingerprint) is JSON in the metadata of the schema, under ``rankdiag``.
        """
        pa = optional("pyarrow", extra="parquet", feature="Encoded.to_parquet")
        parquet = optional("pyarrow.parquet", extra="parquet", feature="Encoded.to_parquet")
        header = {"format": _FORMAT} | {name: getattr(self, name) for name in _header_names()}
        schema = _schema(pa).with_metadata({"rankdiag": json.dumps(header, default=_plain)})
        with written_whole(path) as stream, parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
            for first in range(0, len(self.response_ids), _ROWS):
                writer.write_table(_table(pa, schema, self, slice(first, first + _ROWS)))

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> Encoded:
        """Read back what `to_parquet` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        Encoded
            Equal in every field; an `EncodedPreferences` if the file holds pairs.

        Raises
        ------
        MissingExtraError
            If pyarrow is not installed.
        ValueError
            If the file was not written by `to_parquet`, or its content no longer fits its fingerprint.
        TypeError
            If `path` is no path, or the file holds no pairs and an `EncodedPreferences` was asked for.
        OSError
            If the file cannot be read.
        """
        parquet = optional("pyarrow.parquet", extra="parquet", feature="Encoded.from_parquet")
        name = str(file_path(path))
        try:
            with parquet.ParquetFile(name) as file:
                header = json.loads((file.schema_arrow.metadata or {})[b"rankdiag"])
                if header.pop("format") != _FORMAT:
                    raise ValueError("it has another format version")
                values = _columns(file)
            kind = EncodedPreferences if header["kind"] == "pairs" else Encoded
            header["notes"] = tuple(header["notes"])
            data = kind(**header, **values)
        except Exception as error:  # damage makes pyarrow, or what builds on its values, raise of many kinds
            if isinstance(error, OSError) and error.errno is not None:  # from the system: no such file, say
                raise
            raise ValueError(f"`path` must be a file that Encoded.to_parquet wrote; {name!r}: {error}") from error
        if fingerprint_of(data) != data.fingerprint:
            raise ValueError(f"`path`: the content of {name!r} does not fit its fingerprint; it was changed")
        if not isinstance(data, cls):
            raise TypeError(f"`path`: {name!r} holds no pairs; read it with Encoded.from_parquet")
        return data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EncodedPreferences(Encoded):
    """Preference pairs as token ids: an `Encoded` of kind ``"pairs"`` read by pair.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> data = encode_preferences([{"prompt_ids": [1, 5], "chosen_ids": [7, 2], "rejected_ids": [8, 9, 2]}])
    >>> data.prompt_ids[0].tolist(), data.chosen_ids[0].tolist(), data.rejected_ids[0].tolist()
    ([1, 5], [7, 2], [8, 9, 2])
    """

    @property
    def prompt_ids(self) -> tuple[Ids, ...]:
        """Full prompt of each pair."""
        return tuple(self.prompts[int(index)] for index in self.prompt_id[0::2])

    @property
    def chosen_ids(self) -> tuple[Ids, ...]:
        """Chosen response of each pair."""
        return self.response_ids[0::2]

    @property
    def rejected_ids(self) -> tuple[Ids, ...]:
        """Rejected response of each pair."""
        return self.response_ids[1::2]

    @property
    def chosen_start(self) -> NDArray[np.int64]:
        """Prompt tokens cut off in front of each chosen response."""
        return self.prompt_start[0::2]

    @property
    def rejected_start(self) -> NDArray[np.int64]:
        """Prompt tokens cut off in front of each rejected response."""
        return self.prompt_start[1::2]


def fingerprint_of(data: Encoded) -> str:
    """Return the sha256 of everything that a score depends on: ids, masks, cuts, keys, statuses and options."""
    digest = hashlib.sha256()
    header = {"kind": data.kind, "keys": data.keys, "status": data.status, "tokenizer": dict(data.tokenizer)}
    digest.update(json.dumps(header, sort_keys=True, default=_plain).encode("utf-8", "backslashreplace"))
    for name in _INDICES:
        digest.update(np.ascontiguousarray(getattr(data, name), dtype=np.int64).tobytes())
    for ids in (*data.prompts, *data.response_ids):
        digest.update(np.int64(len(ids)).tobytes())
        digest.update(np.ascontiguousarray(ids, dtype=np.int32).tobytes())
    for mask in data.loss_mask:
        digest.update(b"-" if mask is None else b"+" + np.packbits(mask).tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Turn numpy numbers and mappings into what JSON knows; anything else into its text."""
    if isinstance(value, np.generic):
        return value.item()
    return dict(value) if isinstance(value, Mapping) else str(value)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# --- checks -------------------------------------------------------------------------------------------------------


def _check(data: Encoded) -> None:
    """Check every field once; what is below trusts them."""
    choice(data.kind, "kind", _KINDS)
    if isinstance(data, EncodedPreferences) and data.kind != "pairs":
        raise ValueError(f"`kind` of EncodedPreferences must be 'pairs'; got {data.kind!r}")
    for name in ("keys", "status", "prompts", "response_ids", "loss_mask", "notes"):
        if not isinstance(getattr(data, name), tuple):
            raise TypeError(f"`{name}` must be a tuple; got {describe(getattr(data, name))}")
    if not isinstance(data.tokenizer, Mapping):
        raise TypeError(f"`tokenizer` must be a mapping; got {describe(data.tokenizer)}")
    for name in _COUNTS:
        integer(getattr(data, name), name, low=0)
    _check_groups(data)
    for name in ("prompts", "response_ids"):
        views = tuple(_view(ids, np.int32, f"{name}[{index}]") for index, ids in enumerate(getattr(data, name)))
        for index, ids in enumerate(views):
            if ids.size and int(ids.min()) < 0:
                raise ValueError(f"`{name}[{index}]` must hold ids >= 0; got {int(ids.min())}")
        object.__setattr__(data, name, views)
    _check_rows(data)
    masks = []
    for index, (ids, mask) in enumerate(zip(data.response_ids, data.loss_mask, strict=True)):
        masks.append(None if mask is None else _view(mask, np.bool_, f"loss_mask[{index}]"))
        if mask is not None and len(mask) != len(ids):
            raise ValueError(f"`loss_mask[{index}]` must have {len(ids)} entries, as the response; got {len(mask)}")
    object.__setattr__(data, "loss_mask", tuple(masks))


def _check_groups(data: Encoded) -> None:
    if len(data.status) != len(data.keys):
        raise ValueError(f"`status` must have {len(data.keys)} entries, one for each key; got {len(data.status)}")
    wrong = next((key for key in data.keys if not isinstance(key, str)), None)
    if wrong is not None:
        raise TypeError(f"`keys` must hold strings; got {describe(wrong)}")
    if len(set(data.keys)) != len(data.keys):
        key, count = Counter(data.keys).most_common(1)[0]
        raise ValueError(f"`keys` must be unique; {key!r} comes {count} times")
    allowed = STATUSES[data.kind]
    for index, status in enumerate(data.status):
        if status not in allowed:
            raise ValueError(f"`status[{index}]` must be one of {', '.join(allowed)}; got {describe(status)}")


def _check_rows(data: Encoded) -> None:
    rows = len(data.response_ids)
    for name in _INDICES:
        values = _view(getattr(data, name), np.int64, name)
        if len(values) != rows:
            raise ValueError(f"`{name}` must have {rows} entries, one for each response; got {len(values)}")
        object.__setattr__(data, name, values)
    if len(data.loss_mask) != rows:
        raise ValueError(f"`loss_mask` must have {rows} entries, one for each response; got {len(data.loss_mask)}")
    sizes = np.bincount(data.group, minlength=len(data.keys)) if rows and data.group.min() >= 0 else np.zeros(0, int)
    if len(sizes) != len(data.keys) or (rows and sizes.min() < 1) or np.any(np.diff(data.group) < 0):
        raise ValueError(f"`group` must count up from 0 to {len(data.keys) - 1}, and leave none out")
    slots = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if not np.array_equal(data.slot, slots):
        raise ValueError("`slot` must count the rows of each group from 0")
    if data.kind == "pairs" and np.any(sizes != 2):
        raise ValueError(f"pairs must have 2 rows; group {int(np.argmax(sizes != 2))} has another number")
    used = np.unique(data.prompt_id)
    if not np.array_equal(used, np.arange(len(data.prompts))):
        raise ValueError(f"`prompt_id` must name each of the {len(data.prompts)} `prompts`, and no other")
    lengths = np.array([len(prompt) for prompt in data.prompts], dtype=np.int64)
    outside = (data.prompt_start < 0) | (data.prompt_start > lengths[data.prompt_id]) if rows else np.zeros(0, bool)
    if np.any(outside):
        row = int(np.argmax(outside))
        raise ValueError(f"`prompt_start[{row}]` must lie within its prompt; got {int(data.prompt_start[row])}")


def _view(array: Any, dtype: Any, name: str) -> NDArray[Any]:
    """Check one array and return a read-only view of it."""
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype != dtype:
        raise TypeError(f"`{name}` must be a 1-D array of {np.dtype(dtype).name}; got {describe(array)}")
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return cast("NDArray[Any]", array)


# --- Parquet ------------------------------------------------------------------------------------------------------


def _header_names() -> list[str]:
    arrays = {"keys", "status", "prompts", *_INDICES, "response_ids", "loss_mask"}
    return [entry.name for entry in fields(Encoded) if entry.name not in arrays]


def _schema(pa: Any) -> Any:
    ids, index = pa.list_(pa.int32()), pa.int64()
    columns = [("key", pa.string()), ("status", pa.string()), *((name, index) for name in _INDICES)]
    return pa.schema([*columns, ("prompt_ids", ids), ("response_ids", ids), ("loss_mask", pa.list_(pa.bool_()))])


def _table(pa: Any, schema: Any, data: Encoded, rows: slice) -> Any:
    groups = data.group[rows].tolist()
    columns = [
        [data.keys[group] for group in groups],
        [data.status[group] for group in groups],
        *(getattr(data, name)[rows] for name in _INDICES),
        [data.prompts[int(prompt)] for prompt in data.prompt_id[rows]],
        list(data.response_ids[rows]),
        list(data.loss_mask[rows]),
    ]
    return pa.table([pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _columns(file: Any) -> dict[str, Any]:
    """Read the rows back, a batch at a time, each prompt once."""
    keys: dict[int, str] = {}
    status: dict[int, str] = {}
    prompts: dict[int, Ids] = {}
    indices: dict[str, list[NDArray[np.int64]]] = {name: [np.zeros(0, np.int64)] for name in _INDICES}
    response_ids: list[Ids] = []
    masks: list[NDArray[np.bool_] | None] = []
    for batch in file.iter_batches(batch_size=_ROWS):
        for name in _INDICES:
            indices[name].append(batch.column(name).to_numpy(zero_copy_only=False))
        group, prompt = indices["group"][-1], indices["prompt_id"][-1]
        for row in range(len(batch)):
            if int(group[row]) not in keys:
                keys[int(group[row])] = batch.column("key")[row].as_py()
                status[int(group[row])] = batch.column("status")[row].as_py()
            if int(prompt[row]) not in prompts:
                prompts[int(prompt[row])] = _ids(batch.column("prompt_ids")[row])
            response_ids.append(_ids(batch.column("response_ids")[row]))
            mask = batch.column("loss_mask")[row].values
            masks.append(None if mask is None else mask.to_numpy(zero_copy_only=False).astype(np.bool_))
    return {
        "keys": tuple(keys[group] for group in sorted(keys)),
        "status": tuple(status[group] for group in sorted(status)),
        "prompts": tuple(prompts[prompt] for prompt in sorted(prompts)),
        **{name: np.concatenate(parts).astype(np.int64) for name, parts in indices.items()},
        "response_ids": tuple(response_ids),
        "loss_mask": tuple(masks),
    }


def _ids(entry: Any) -> Ids:
    return np.array(entry.values.to_numpy(zero_copy_only=False), dtype=np.int32)

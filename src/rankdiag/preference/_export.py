"""Writing the pairs that were kept, in the layout they came in, with their score and where it came from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rankdiag._files import file_path, write_text, written_whole
from rankdiag._optional import optional
from rankdiag._validate import describe, integer, string
from rankdiag.language_models._records import RecordsDigest
from rankdiag.preference._scores import PreferenceScores

__all__ = ["export", "write_records"]

_SUFFIXES = (".jsonl", ".parquet")


def export(
    indices: Any,
    dataset: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    scores: PreferenceScores | None = None,
    by: str = "ln_ches",
    key: str = "key",
    rule: str = "",
) -> Path:
    """Write some pairs of a dataset, as they are, with the score they were chosen by.

    Parameters
    ----------
    indices : array-like of int
        Positions in the dataset, as `keep_lowest` and its kin return them; rows are written in this order.
    dataset : iterable of mapping
        The records that were scored: a list, or a Dataset of HF.
    path : path
        ``.jsonl`` or ``.parquet``; written whole or not at all.
    scores : PreferenceScores, optional
        Adds the column ``rankdiag_<by>`` to every row, and writes ``<path>.manifest.json``: the model, the data and the
        options behind the scores.
    by : str
        Which column of `scores`.
    key : str
        Column of the dataset that held the keys of the pairs when they were encoded; where there is none, the keys
        are positions.
    rule : str
        How the pairs were chosen, for the manifest.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a position is out of range or repeated, the scores are those of another dataset (other records or another
        order, other keys, another number of pairs), the column is unknown, or the suffix is neither of the two.
    MissingExtraError
        If pyarrow is missing for ``.parquet``.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from rankdiag.preference import export, keep_lowest
    >>> rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "d", "chosen": "e", "rejected": "f"}]
    >>> path = export(keep_lowest([0.5, -0.5], n=1), rows, pathlib.Path(tempfile.mkdtemp()) / "kept.jsonl")
    >>> path.read_text().strip()
    '{"prompt": "d", "chosen": "e", "rejected": "f"}'
    """
    target = file_path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"`path` must end in {' or '.join(_SUFFIXES)}; got {str(target)!r}")
    if isinstance(dataset, (str, bytes, Mapping)) or not isinstance(dataset, Iterable):
        raise TypeError(f"`dataset` must be the records, a list or a Dataset; got {describe(dataset)}")
    column, named, how = string(by, "by"), string(key, "key"), string(rule, "rule")
    records = [_record(entry, place) for place, entry in enumerate(dataset)]
    if scores is not None:
        _same_data(scores, records, named)
    places = _places(indices, len(records))
    if scores is not None:
        values = scores.column(column)
        name = f"rankdiag_{by}"
        for place in places:
            value = float(values[place])
            records[place] = {**records[place], name: value if np.isfinite(value) else None}
    write_records([records[place] for place in places], target)
    if scores is not None:
        facts = {
            "column": f"rankdiag_{by}",
            **({"rule": how} if how else {}),
            "rows": len(places),
            "of": len(records),
            "scores": dict(scores.manifest),
        }
        write_text(target.with_name(target.name + ".manifest.json"), json.dumps(facts, indent=1, default=str) + "\n")
    return target


def write_records(records: list[dict[str, Any]], target: Path) -> None:
    """Write plain rows as JSON Lines or Parquet, whole or not at all."""
    if target.suffix.lower() == ".jsonl":
        lines = [json.dumps(record, ensure_ascii=False, default=_plain) + "\n" for record in records]
        with written_whole(target) as stream:
            stream.writelines(line.encode("utf-8", "backslashreplace") for line in lines)
        return
    arrow = optional("pyarrow", extra="parquet", feature="writing Parquet")
    parquet = optional("pyarrow.parquet", extra="parquet", feature="writing Parquet")
    names = dict.fromkeys(name for record in records for name in record)  # rows need not have the same columns
    columns = {}
    for name in names:
        try:
            columns[name] = arrow.array([record.get(name) for record in records])
        except (arrow.ArrowException, OverflowError) as error:
            raise ValueError(
                f"`path` can hold one type in a column of Parquet, and column {name!r} mixes several ({error}); "
                "write .jsonl"
            ) from error
    table = arrow.table(columns)
    with written_whole(target) as stream:
        parquet.write_table(table, stream)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


def _record(entry: Any, place: int) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"`dataset` must hold mappings; record {place} is {describe(entry)}")
    return dict(entry)


def _places(indices: Any, count: int) -> list[int]:
    if isinstance(indices, np.ndarray) and indices.size > count:
        raise ValueError(f"`indices` must not name a pair twice; got {indices.size} positions of {count} pairs")
    values = indices.tolist() if isinstance(indices, np.ndarray) else indices
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"`indices` must be positions in the dataset; got {describe(indices)}")
    places = [integer(value, "indices", low=0, high=count - 1) for value in values]
    if len(set(places)) != len(places):
        raise ValueError("`indices` must not name a pair twice")
    return places


def _same_data(scores: Any, records: list[dict[str, Any]], key: str) -> None:
    if not isinstance(scores, PreferenceScores):
        raise TypeError(f"`scores` must be PreferenceScores; got {describe(scores)}")
    if len(scores) != len(records):
        raise ValueError(
            f"`scores` must be those of this dataset; they have {len(scores)} pairs, it has {len(records)}"
        )
    for place, (stated, record) in enumerate(zip(scores.keys, records, strict=True)):
        own = str(record.get(key, place))
        if own != stated:
            raise ValueError(
                f"`scores` must be those of this dataset; pair {place} is {stated!r} there and {own!r} here. If "
                "another column than 'key' held the keys, name it with `key` (--columns key=NAME)"
            )
    digest = RecordsDigest()
    for record in records:
        digest.add(record)
    if scores.manifest.get("records") not in {None, "", digest.hexdigest()}:
        raise ValueError(
            "`scores` must be those of this dataset; its records have another fingerprint than those that were scored: "
            "other rows, other columns or another order"
        )

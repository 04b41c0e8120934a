"""Scores of preference pairs out of files: rows of ours, long or wide, and result files of RewardBench."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankdiag.cli.rewards._rows import csv_rows

__all__ = ["PairScores", "read_scores"]

_BENCHMARK = ({"scores_chosen", "scores_rejected"}, {"scores", "num_correct"})
_ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
_ALL = "pairs"  # name of the dataset of a file that names none
_CHOSEN, _REJECTED = "chosen", "rejected"
Located = tuple[str, Mapping[str, Any]]


@dataclass(slots=True)
class PairScores:
    """Scores of both responses of pairs, by model and dataset, and the group of each dataset as far as files say."""

    scores: dict[str, dict[str, tuple[list[float], list[float]]]] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of datasets, in order of appearance."""
        return tuple(dict.fromkeys(name for cells in self.scores.values() for name in cells))

    def add(self, model: str, dataset: str, chosen: float, rejected: float) -> None:
        """Append one pair."""
        cell = self.scores.setdefault(model, {}).setdefault(dataset, ([], []))
        cell[0].append(chosen)
        cell[1].append(rejected)


def read_scores(files: Sequence[tuple[str, str]]) -> PairScores:
    """Read files of scores.

    Parameters
    ----------
    files : sequence of (str, str)
        File, and name of the model in a file that names none.

    Returns
    -------
    PairScores
        All of them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MissingExtraError
        If reading needs a package that is not installed.
    ValueError
        If a file is damaged or holds no scores, a cell holds no number, or two files have scores of one model on one
        dataset.

    Notes
    -----
    Rows have ``chosen`` and ``rejected`` and perhaps ``model``, or ``NAME_chosen`` and ``NAME_rejected`` for each
    model; and perhaps ``dataset`` and ``group``.
    """
    result = PairScores()
    for path, model in files:
        own = _read(Path(path), model)
        for name, cells in own.scores.items():
            known = result.scores.setdefault(name, {})
            twice = next((dataset for dataset in cells if dataset in known), None)
            if twice is not None:
                raise ValueError(
                    f"{Path(path).name}: scores of {name!r} on {twice!r} stand in another file too; name models with "
                    "NAME=FILE"
                )
            known.update(cells)
        for dataset, group in own.groups.items():
            if result.groups.setdefault(dataset, group) != group:
                raise ValueError(
                    f"{Path(path).name}: {dataset!r} is {group!r} here and {result.groups[dataset]!r} before"
                )
    return result


def _read(path: Path, model: str) -> PairScores:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r} of scores")
    if _is_benchmark(path):
        from rankdiag.adapters._rewardbench import rewardbench_pairs

        try:
            pairs = rewardbench_pairs(path)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
        return PairScores(scores={model: {name: (c.tolist(), r.tolist()) for name, (c, r) in pairs.items()}})
    if path.suffix.lower() not in _ENDINGS or not path.is_file():
        raise ValueError(f"{path.name}: scores are read from {', '.join(_ENDINGS)}, or a result file of RewardBench")
    rows = list(_rows(path))
    if not rows:
        raise ValueError(f"{path.name}: holds no row")
    return _of_rows(path.name, rows, model)


def _is_benchmark(path: Path) -> bool:
    """Whether a file is JSON as RewardBench writes it, rows or columns, one value or many."""
    if path.suffix.lower() not in {".json", ".jsonl"} or not path.is_file():
        return False
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        first, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, dict) and any(names <= set(first) for names in _BENCHMARK)


def _rows(path: Path) -> Any:
    from rankdiag.language_models._records import iterate_records

    return csv_rows(path) if path.suffix.lower() == ".csv" else iterate_records(str(path), "--rewards")


def _of_rows(file: str, rows: list[Located], model: str) -> PairScores:
    names = tuple(rows[0][1])
    wide = [
        name.removesuffix(f"_{_CHOSEN}") for name in names if name.endswith(f"_{_CHOSEN}") and name != f"_{_CHOSEN}"
    ]
    wide = [name for name in wide if f"{name}_{_REJECTED}" in names]
    long = {_CHOSEN, _REJECTED} <= set(names)
    if not wide and not long:
        raise ValueError(
            f"{file}: rows must have scores under 'chosen' and 'rejected', or under 'NAME_chosen' and 'NAME_rejected' "
            f"for each model; columns are {', '.join(map(repr, names[:12]))}"
        )
    found = PairScores()
    for place, row in rows:
        dataset = _word(place, row, "dataset", _ALL)
        if row.get("group") is not None:
            group = _word(place, row, "group", "")
            if found.groups.setdefault(dataset, group) != group:
                raise ValueError(
                    f"{place}: 'group' of {dataset!r} is {group!r} here and {found.groups[dataset]!r} before"
                )
        if long:
            own = _word(place, row, "model", model)
            found.add(own, dataset, _number(place, row, _CHOSEN), _number(place, row, _REJECTED))
        for name in wide:
            found.add(
                name, dataset, _number(place, row, f"{name}_{_CHOSEN}"), _number(place, row, f"{name}_{_REJECTED}")
            )
    return found


def _word(place: str, row: Mapping[str, Any], name: str, default: str) -> str:
    value = row.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        raise ValueError(f"{place}: {name!r} must be a name; got {value!r}")
    return value


def _number(place: str, row: Mapping[str, Any], name: str) -> float:
    """Return a score, NaN where the cell is empty."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan"}):
        return float("nan")
    try:
        if isinstance(value, (bool, list, dict)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        shown = repr(value)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
        remedy = ". Texts of pairs need a model: --policy or --explicit" if isinstance(value, (str, list)) else ""
        raise ValueError(f"{place}: {name!r} must be a score; got {shown}{remedy}") from None

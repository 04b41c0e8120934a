"""Rollouts that TRL's GRPO and RLOO trainers wrote down, as a table of rewards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankdiag._array import as_float64
from rankdiag._files import file_path
from rankdiag._optional import optional
from rankdiag._validate import describe, integer, string
from rankdiag.rewards._table import RewardTable

__all__ = ["from_trl_log"]

_OWN = {"step", "prompt", "completion", "advantage", "image"}
_REMEDY = (
    "has only figures of whole batches, no reward of a rollout. Switch on log_completions=True: GRPO then writes "
    "completions/completions_STEP.parquet into its output_dir; RLOO sends the same table to the logging backends only "
    "(export it from there)"
)


def from_trl_log(
    source: Any,
    *,
    num_generations: int,
    rewards: str | Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    gold: str | None = None,
) -> RewardTable:
    """Read the completions that a GRPO or RLOO trainer of TRL logged.

    Parameters
    ----------
    source : path, pandas.DataFrame or mapping of str to sequence
        The trainer's output_dir, its folder of completions, one of their Parquet files, or their columns.
    num_generations : int
        Rollouts of a prompt, as the trainer was configured: rows are grouped by their place, for two groups may share
        one prompt.
    rewards : str or sequence of str, optional
        Columns of the reward functions; may be left out where there is one column beside TRL's own.
    weights : sequence of float, optional
        Weight of each reward function; None takes 1. A rollout that some functions could not score gets the sum of the
        others, as in the trainer; one that none could score is NaN.
    gold : str, optional
        Column that holds the ground truth.

    Returns
    -------
    RewardTable
        One row for each prompt of each generation; ids are ``step:group``.

    Raises
    ------
    MissingExtraError
        If pandas is needed and missing.
    FileNotFoundError
        If there is no such file.
    TypeError
        If an argument has the wrong type.
    ValueError
        If the log has no rollouts (the message says what to switch on), a column is missing, or rows do not fall into
        groups.

    Notes
    -----
    TRL 1.16 keeps the rollouts of the last generation only, so one logged step holds at most one generation; a file
    that repeats the rollouts of the file before it is read once.

    Examples
    --------
    >>> from rankdiag.adapters import from_trl_log
    >>> columns = {"step": [1, 1], "prompt": ["a", "a"], "completion": ["b", "c"], "exact": [0.0, 1.0]}
    >>> from_trl_log(columns, num_generations=2).values.tolist()
    [[0.0, 1.0]]
    """
    size = integer(num_generations, "num_generations", low=1)
    parts = _parts(source)
    names = _names(parts[0], rewards)
    scales = [1.0] * len(names) if weights is None else _weights(weights, len(names))
    values, ids, truths = [], [], []
    before: Any = None
    for part in parts:
        content = {key: [str(x) for x in part[key]] for key in ("prompt", "completion") if key in part}
        if content and content == before:
            continue
        before = content
        columns = [_numbers(part, name) for name in names]
        count = len(columns[0])
        if count % size:
            raise ValueError(f"`num_generations` must divide the rollouts of a step; got {size} for {count}")
        prompts = content.get("prompt", [])
        if any(prompts[i] != prompts[i - i % size] for i in range(len(prompts))):
            raise ValueError(f"`num_generations` must be that of the trainer; with {size} a group has several prompts")
        stacked = np.stack([c * scale for c, scale in zip(columns, scales, strict=True)])
        total = np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))
        values.append(total.reshape(-1, size))
        steps = list(part["step"]) if "step" in part else [len(values) - 1] * count
        ids += [f"{steps[i * size]}:{i}" for i in range(count // size)]
        if gold is not None:
            truths.append(_numbers(part, string(gold, "gold")).reshape(-1, size))
    return RewardTable.from_array(
        np.concatenate(values),
        prompt_ids=tuple(ids),
        gold=np.concatenate(truths) if truths else None,
        meta={"source": "TRL log of completions", "rewards": names, "weights": scales, "num_generations": size},
    )


def _weights(weights: Any, count: int) -> list[float]:
    array = as_float64(weights, "weights", ndim=1, expected="one weight for each reward function")
    if len(array) != count:
        raise ValueError(f"`weights` must have {count} entries, one for each reward function; got {len(array)}")
    return [float(weight) for weight in array]


def _parts(source: Any) -> list[Mapping[str, Any]]:
    """Return the columns of every file, or those given."""
    if isinstance(source, (str, os.PathLike)):
        folder = file_path(source, "source")
        if not folder.is_dir():
            if folder.suffix == ".json":
                raise ValueError(f"`source` {folder.name!r} {_REMEDY}")
            files = [file_path(folder, "source")]
        else:
            inner = folder / "completions"
            files = sorted((inner if inner.is_dir() else folder).glob("completions_*.parquet"), key=_step)
        if not files:
            raise ValueError(f"`source` {folder.name!r} {_REMEDY}")
        pandas = optional("pandas", extra="tables", feature="from_trl_log()")
        return [_columns(pandas.read_parquet(path)) for path in files]
    if isinstance(source, (list, tuple)):
        raise ValueError(f"`source` is a list, as trainer.state.log_history is: it {_REMEDY}")
    return [_columns(source)]


def log_columns(source: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the columns of the reward functions in a log of completions.

    Raises
    ------
    MissingExtraError, FileNotFoundError, ValueError
        As `from_trl_log`.
    """
    return tuple(name for name in _parts(source)[0] if name not in _OWN)


def _step(path: Path) -> tuple[int, str]:
    digits = path.stem.rpartition("_")[2]
    return (int(digits) if digits.isdecimal() else -1, path.name)


def _columns(source: Any) -> Mapping[str, Any]:
    if not isinstance(source, Mapping) and hasattr(source, "columns") and hasattr(source, "to_dict"):
        source = source.to_dict(orient="list")
    if not isinstance(source, Mapping):
        raise TypeError(f"`source` must be a path, a data frame or a mapping of columns; got {describe(source)}")
    if "completion" not in source:
        raise ValueError(f"`source` {_REMEDY}")
    return source


def _names(columns: Mapping[str, Any], rewards: Any) -> list[str]:
    if isinstance(rewards, str):
        return [rewards]
    if rewards is not None:
        if not isinstance(rewards, Sequence) or not rewards:
            raise TypeError(f"`rewards` must be a name or names of columns; got {describe(rewards)}")
        return [string(name, "rewards") for name in rewards]
    others = [name for name in columns if name not in _OWN]
    if len(others) != 1:
        raise ValueError(f"`rewards` must name the columns of the reward functions; the log has {others}")
    return others


def _numbers(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        raise ValueError(f"`source` must have the column {name!r}; it has {list(columns)}")
    column = [np.nan if entry is None else entry for entry in columns[name]]
    return as_float64(column, f"source[{name!r}]", ndim=1, finite=False, expected="one number a rollout")

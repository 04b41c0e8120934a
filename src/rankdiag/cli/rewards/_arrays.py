"""Tables of rewards that others wrote whole: arrays of numpy, tables as JSON, and the completions TRL logs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rankdiag.cli.rewards._input import is_wide, meta_of

if TYPE_CHECKING:
    from rankdiag.rewards import RewardTable

__all__ = ["Arrays", "Log", "looks_like_log", "stored_table"]

_TAG = "rewards.RewardTable"
_OTHER = {"gold": "gold", "log_probs": "log_prob", "lengths": "length", "prompt_ids": "prompt_id"}


class Arrays:
    """Arrays (N, k) of rewards by name, and what goes with them.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with ``add_table_arguments``.
    path : pathlib.Path
        Where they come from.
    arrays : mapping of str to ndarray
        Arrays by name.
    meta : mapping, optional
        What the file says of its rollouts.
    """

    def __init__(
        self, options: argparse.Namespace, path: Path, arrays: Mapping[str, Any], meta: Mapping[str, Any] | None = None
    ) -> None:
        if is_wide(options):
            raise ValueError(f"{path.name}: holds arrays, one row a prompt; --wide and --gold-wide are for rows")
        self._options, self._path, self._arrays, self._stored = options, path, dict(arrays), dict(meta or {})

    @classmethod
    def read(cls, options: argparse.Namespace, path: Path) -> Self:
        """Read a ``.npy`` or ``.npz`` file; nothing in it is run."""
        import numpy as np

        try:
            with path.open("rb") as stream:
                found = np.load(stream, allow_pickle=False)
                one = isinstance(found, np.ndarray)
                arrays = {"values": found} if one else {name: found[name] for name in found.files}
        except Exception as error:  # damage and pickles raise of many kinds
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path.name}: is no readable file of arrays ({error})") from error
        return cls(options, path, arrays)

    @classmethod
    def of(cls, options: argparse.Namespace, path: Path, table: RewardTable) -> Self:
        """Take the arrays of a table that was stored."""
        parts = {"values": table.values, "gold": table.gold, "log_probs": table.log_probs, "lengths": table.lengths}
        arrays: dict[str, Any] = {name: array for name, array in parts.items() if array is not None}
        return cls(options, path, {**arrays, "prompt_ids": table.prompt_ids}, table.meta)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(self._arrays)

    def table(self, reward: str | None = None, *, negate: bool = False) -> RewardTable:
        """Return the table whose rewards are in this array (None: in ``values``, or the only one)."""
        from rankdiag.rewards import RewardTable

        options = self._options
        given = reward if reward is not None else (getattr(options, "reward", None) or [None])[0]
        if given is None:
            given = self.names[0] if len(self.names) == 1 else "values"
        values = self._array(given, "--reward")
        parts = {}
        for name, option in _OTHER.items():
            chosen = getattr(options, option)
            if chosen is not None:
                parts[name] = self._array(chosen, f"--{option.replace('_', '-')}")
            elif name in self._arrays and name != given:
                parts[name] = self._arrays[name]
        if "prompt_ids" in parts:
            parts["prompt_ids"] = self._ids(parts["prompt_ids"])
        meta = {**self._stored, "source": self._path.name, "reward": f"minus {given}" if negate else given}
        try:
            table = RewardTable.from_array(values, **parts, meta={**meta, **meta_of(options)})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._path.name}: {given!r} is no table of rewards: {error}") from None
        if not negate:
            return table
        return RewardTable.from_array(0.0 - table.values, **parts, meta=table.meta)

    def _array(self, name: str, flag: str) -> Any:
        if name not in self._arrays:
            known = ", ".join(map(repr, self.names)) or "none"
            raise ValueError(f"{self._path.name}: has no array {name!r}; arrays are {known}. Name one with {flag}")
        return self._arrays[name]

    def _ids(self, ids: Any) -> tuple[str, ...]:
        import numpy as np

        found = np.asarray(ids)
        if found.ndim != 1 or found.dtype.kind not in "Uiu":
            raise ValueError(
                f"{self._path.name}: prompt ids must be texts or whole numbers (N,); got {found.dtype} {found.shape}"
            )
        return tuple(map(str, found.tolist()))


class Log:
    """Completions that a GRPO or RLOO trainer of TRL logged.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with ``add_table_arguments``.
    path : pathlib.Path
        The trainer's output_dir, its folder of completions, or one file of them.
    """

    def __init__(self, options: argparse.Namespace, path: Path) -> None:
        if options.num_generations is None:
            raise ValueError(
                f"{path.name}: holds completions that a trainer logged, grouped by their place; say with "
                "--num-generations how many rollouts of a prompt it was configured for"
            )
        self._options, self._path = options, path

    @property
    def names(self) -> tuple[str, ...]:
        """Columns of the reward functions."""
        from rankdiag.adapters._trl_log import log_columns

        return log_columns(self._path)

    def table(self, reward: str | None = None, *, negate: bool = False) -> RewardTable:
        """Return the table of this reward function (None: of those that the options name, weighted and summed)."""
        from rankdiag.adapters import from_trl_log
        from rankdiag.rewards import RewardTable

        options = self._options
        weights = getattr(options, "reward_weight", None) if reward is None else None
        table = from_trl_log(
            str(self._path),
            num_generations=options.num_generations,
            rewards=[reward] if reward is not None else getattr(options, "reward", None),
            weights=weights,
            gold=options.gold,
        )
        return RewardTable.from_array(
            0.0 - table.values if negate else table.values,
            prompt_ids=table.prompt_ids,
            gold=table.gold,
            meta={**table.meta, **meta_of(options)},
        )


def looks_like_log(folder: Path) -> bool:
    """Whether a folder is one that a trainer of TRL wrote."""
    inner = folder / "completions"
    return next((inner if inner.is_dir() else folder).glob("completions_*.parquet"), None) is not None


def stored_table(path: Path) -> RewardTable | None:
    """Return the RewardTable that a JSON file holds, None if it holds something else.

    Raises
    ------
    ValueError
        If it says that it is one and is not.
    """
    from rankdiag.rewards import RewardTable

    with path.open("rb") as file:
        if not file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # the reader of rows says what is wrong, and where
    if content.get("type") != _TAG:
        return None
    try:
        return RewardTable.from_dict(content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: is no table of rewards that to_dict wrote: {error}") from None

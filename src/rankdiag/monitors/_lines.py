"""The file of a monitor: one JSON object on each line, appended as training goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag._files import write_text
from rankdiag._validate import describe

if TYPE_CHECKING:
    from rankdiag.language_models import EncodedPreferences
    from rankdiag.preference import DisplacementReport, LogProbs

__all__ = ["Lines", "describe_pairs", "plain_list", "summarise"]

_FIELDS = (
    "mean_delta_chosen",
    "median_delta_chosen",
    "mean_delta_rejected",
    "mean_per_token_delta_chosen",
    "displaced_fraction",
    "both_fell_fraction",
    "both_rose_fraction",
    "implicit_reward_accuracy",
)
_QUANTILES = ("q05", "q25", "q50", "q75", "q95")


class Lines:
    """Append-only JSON lines, cut back to a checkpoint when a run is resumed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _checked(path)

    def begin(self, *, resumed_at: int | None) -> None:
        """Make the folder, cut a torn last line off, and forget what comes after the checkpoint resumed from.

        Runs that were started afresh on the same file stay: each begins with a line whose event is ``"start"``.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        lines = text.split("\n")[:-1]  # what follows the last line break is torn, or nothing
        if resumed_at is not None:
            records = [self._record(line) for line in lines]
            begun = [index for index, record in enumerate(records) if record["event"] == "start"]
            own = begun[-1] if begun else 0
            lines = [
                line
                for index, (line, record) in enumerate(zip(lines, records, strict=True))
                if index < own or record["step"] <= resumed_at
            ]
        kept = "".join(line + "\n" for line in lines)
        if kept != text:
            write_text(self.path, kept)

    def _record(self, line: str) -> dict[str, Any]:
        """Read one line, and refuse a file that something else has written."""
        try:
            found = json.loads(line)
            if {"event", "step"} <= found.keys():
                return dict(found)
        except (ValueError, AttributeError):
            pass
        raise ValueError(
            f"`out` must be a file of this monitor, or a new one; {str(self.path)!r} holds the line {line[:60]!r}"
        )

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line."""
        line = json.dumps(record, allow_nan=False, ensure_ascii=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def plain_list(values: Any) -> list[float | None]:
    """Return numbers as JSON can hold them: NaN and infinity become None."""
    return [float(value) if math.isfinite(value) else None for value in values]


def describe_pairs(probe: EncodedPreferences, before: LogProbs) -> dict[str, Any]:
    """Return the pairs that are watched, and where they start from."""
    return {
        "keys": list(probe.keys),
        "status": list(probe.status),
        "chosen_logp": plain_list(before.chosen),
        "rejected_logp": plain_list(before.rejected),
        "n_chosen": plain_list(before.n_chosen),
        "n_rejected": plain_list(before.n_rejected),
    }


def summarise(report: DisplacementReport) -> dict[str, float]:
    """Return the numbers of a report that are worth a curve, as plain floats."""
    low, high = report.mean_delta_chosen_interval
    found = {name: getattr(report, name) for name in _FIELDS}
    found |= {"mean_delta_chosen_low": low, "mean_delta_chosen_high": high}
    found |= {
        f"delta_chosen_{name}": value
        for name, value in zip(_QUANTILES, report.quantiles_delta_chosen, strict=True)
        if name != "q50"  # the median
    }
    found |= {"accuracy": report.accuracy_after, "loss": report.loss_after}
    found["dataset_displaced"] = report.dataset_displaced
    return {name: float(value) for name, value in found.items()}


def _checked(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"`out` must be the path of a file or None; got {describe(path)}")
    found = Path(path)
    try:
        found.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # what is missing is made when training begins
        return found
    except (OSError, ValueError):  # too long, or with a character that no name may have
        raise ValueError(f"`out` must be a name that a file can have; got {describe(path)}") from None
    if found.is_dir():
        raise ValueError(
            f"`out` must be the path of a file; {str(found)!r} is a folder. Add a name, displacement.jsonl"
        )
    return found

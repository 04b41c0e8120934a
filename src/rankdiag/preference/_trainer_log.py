"""Displacement read off a trainer's own log: what TRL writes down anyway, and what that cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, real

__all__ = ["TrainerLogDisplacement", "from_trainer_log"]

_CAVEAT = (
    "Every entry averages the training pairs since the entry before it, so other pairs at every step, each at the "
    "moment it was trained on; the first batch is exactly 0. A fixed probe of pairs may have moved the other way: "
    "watch one with DisplacementCallback."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainerLogDisplacement(Result):
    """Mean displacement of the training windows of a log.

    Attributes
    ----------
    steps : ndarray of int64, shape (T,)
        Step of each entry.
    mean_delta_chosen, mean_delta_rejected : ndarray of float64, shape (T,)
        Mean of ln pi - ln pi_ref over the window, in nats; NaN where the log has no rejected reward.
    displaced : ndarray of bool, shape (T,)
        Whether mean_delta_chosen is below 0.

    Examples
    --------
    >>> from rankdiag.preference import from_trainer_log
    >>> from_trainer_log([{"rewards/chosen": 0.2, "step": 1}], beta=0.1).displaced.tolist()
    [False]
    """

    tag: ClassVar[str] = "preference.TrainerLogDisplacement"

    steps: NDArray[np.int64]
    mean_delta_chosen: NDArray[np.float64]
    mean_delta_rejected: NDArray[np.float64]
    displaced: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.steps)

    def document(self) -> Document:
        """Return what this log shows: the last window, and both curves."""
        return Document(
            title="Displacement in a trainer's log",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="windows", value=len(self)),
                KeyNumber(label="displaced windows", value=int(self.displaced.sum())),
                KeyNumber(label="last window, chosen", value=float(self.mean_delta_chosen[-1]), unit="nat"),
                KeyNumber(label="last window, rejected", value=float(self.mean_delta_rejected[-1]), unit="nat"),
            ),
            plots=(
                Plot(
                    title="Change of log-probabilities over training",
                    x_label="step",
                    y_label="mean of ln pi - ln pi_ref in the window (nat)",
                    series=tuple(
                        Series(label=label, x=self.steps.tolist(), y=values.tolist())
                        for label, values in (
                            ("chosen", self.mean_delta_chosen),
                            ("rejected", self.mean_delta_rejected),
                        )
                    ),
                    lines=(ReferenceLine(axis="y", value=0.0, label="no change"),),
                    description="Below 0 the responses of that window were less probable than under the reference.",
                ),
            ),
            notes=(*self.notes(), _CAVEAT),
        )


def from_trainer_log(log_history: Sequence[Mapping[str, Any]], beta: float) -> TrainerLogDisplacement:
    """Read mean displacement off the log of a DPO trainer.

    Parameters
    ----------
    log_history : sequence of mapping
        ``trainer.state.log_history``: entries with ``rewards/chosen`` are read, others passed over.
    beta : float
        The beta of the loss, by which the logged rewards were multiplied.

    Returns
    -------
    TrainerLogDisplacement
        One entry for each log entry with rewards.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If beta is not positive, a reward is no finite number, or no entry has rewards.

    Notes
    -----
    TRL logs ``rewards/chosen`` = beta times the mean of ln pi(chosen) - ln pi_ref(chosen) over the batches since the
    last entry. That averages other pairs at every step; ``logps/chosen`` mixes in how hard they are and is never
    displacement. With length-desensitised log-probabilities (``ld_alpha``) rewards are no plain sums and must not be
    read this way.

    Examples
    --------
    >>> from rankdiag.preference import from_trainer_log
    >>> log = [{"loss": 0.69, "step": 1}, {"rewards/chosen": -0.35, "rewards/rejected": -0.8, "step": 2}]
    >>> from_trainer_log(log, beta=0.1).mean_delta_chosen.round(6).tolist()
    [-3.5]
    """
    scale = real(beta, "beta", low=0.0, low_open=True)
    if isinstance(log_history, (str, bytes, Mapping)) or not isinstance(log_history, Sequence):
        raise TypeError(f"`log_history` must be a list of mappings; got {describe(log_history)}")
    steps, chosen, rejected = [], [], []
    for place, entry in enumerate(log_history):
        if not isinstance(entry, Mapping):
            raise TypeError(f"`log_history` must hold mappings; entry {place} is {describe(entry)}")
        if "rewards/chosen" in entry:
            steps.append(_step(entry.get("step", place), place))
            chosen.append(_reward(entry["rewards/chosen"], "rewards/chosen", place))
            missing = "rewards/rejected" not in entry
            rejected.append(np.nan if missing else _reward(entry["rewards/rejected"], "rewards/rejected", place))
    if not steps:
        raise ValueError("`log_history` must have an entry with 'rewards/chosen', as TRL's preference trainers log it")
    with np.errstate(over="ignore"):
        plus, minus = np.array(chosen) / scale, np.array(rejected) / scale
    if np.isinf(plus).any() or np.isinf(minus).any():
        raise ValueError(f"`beta` must not be so small that rewards divided by it exceed float64; got {scale!r}")
    arrays: dict[str, Any] = {
        "steps": np.array(steps, dtype=np.int64),
        "mean_delta_chosen": plus,
        "mean_delta_rejected": minus,
        "displaced": plus < 0,
    }
    for array in arrays.values():
        array.flags.writeable = False
    share = float((plus < 0).mean())
    return TrainerLogDisplacement(
        **arrays,
        explanation=(
            f"Chosen responses were less probable than under the reference in {share:.0%} of the logged windows."
        ),
        meta=Meta(
            definition="rewards / beta, the mean of ln pi - ln pi_ref over the pairs of each logging window",
            base="e",
            units="nat",
            n=len(steps),
            details={"beta": scale},
        ),
    )


def _step(value: Any, place: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`log_history` entry {place}: step must be an integer; got {describe(value)}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"`log_history` entry {place}: step must fit into 64 bits; got {describe(value)}")
    return int(value)


def _reward(value: Any, name: str, place: int) -> float:
    return float(as_float64(value, f"log_history[{place}][{name!r}]", ndim=0, expected="one number"))

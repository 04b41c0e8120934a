"""All constraints or a share of them: what binary and partial credit do for verifiable rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, integer
from rankdiag.rewards._flow import simulate_policy_gradient
from rankdiag.rewards._moments import row_moments

__all__ = ["CreditReport", "credit_report"]

Floats = NDArray[np.float64]

_LEVEL, _HORIZON = 0.9, 1e6
_DEAD = 0.8  # share of groups without spread above which binary credit is not advised: a heuristic
_MOST_CLASSES = 512  # the flow costs the cube of their number


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CreditReport(Result):
    """Binary beside partial credit on the same rollouts.

    Attributes
    ----------
    p_all : float
        Share of rollouts that satisfy all constraints.
    p_each, p_only : ndarray of float64, shape (m,)
        Share that satisfies each constraint; and it alone.
    partial_to_all : float
        Share that satisfies some but not all, over `p_all`; inf where only the latter is 0, NaN where both are.
    rms_std_binary, rms_std_partial : float
        Root of the mean unbiased within-prompt variance of each reward.
    zero_std_binary, zero_std_partial : mapping of str to float
        Group size -> expected share of groups whose rewards are all equal; NaN above the rollouts of a prompt.
    times : mapping of str to float
        "binary/tabular", "binary/factorised", "partial/tabular", "partial/factorised" -> flow time until the
        probability of all constraints is .9, from the pooled shares of verdicts; inf where it is not by 1e6.

    Examples
    --------
    >>> from rankdiag.rewards import credit_report
    >>> credit_report([[[1, 1], [1, 0], [0, 0], [0, 0]]], group_sizes=(2,)).p_all
    0.25
    """

    tag: ClassVar[str] = "rewards.CreditReport"
    rule_names: ClassVar[tuple[str, ...]] = ("p_all", "partial_to_all", "rms_std_binary", "rms_std_partial")

    p_all: float
    p_each: NDArray[np.float64]
    p_only: NDArray[np.float64]
    partial_to_all: float
    rms_std_binary: float
    rms_std_partial: float
    zero_std_binary: Mapping[str, float]
    zero_std_partial: Mapping[str, float]
    times: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in ("p_each", "p_only"):
            array = np.array(as_float64(getattr(self, name), name, ndim=1))
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain(self))

    def document(self) -> Document:
        """Return what this result shows: shares, spreads of both rewards, and times."""
        sizes = tuple((size, self.zero_std_binary[size], self.zero_std_partial[size]) for size in self.zero_std_binary)
        return Document(
            title="Binary or partial credit",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="all satisfied", value=self.p_all),
                KeyNumber(label="partial to all", value=self.partial_to_all),
                KeyNumber(label="rms std, binary", value=self.rms_std_binary),
                KeyNumber(label="rms std, partial", value=self.rms_std_partial),
            ),
            grids=(
                Grid(
                    title="Groups without spread",
                    columns=(Column(name="group size"), Column(name="binary"), Column(name="partial")),
                    rows=sizes,
                ),
                Grid(
                    title="Flow time until all are satisfied with probability 0.9",
                    columns=(Column(name="reward / kernel"), Column(name="time")),
                    rows=tuple(self.times.items()),
                ),
            ),
            plots=(
                Plot(
                    title="Groups without spread, by size",
                    x_label="group size",
                    y_label="share of groups",
                    series=tuple(
                        Series(label=label, x=[int(size) for size in shares], y=list(shares.values()), kind="points")
                        for label, shares in (("binary", self.zero_std_binary), ("partial", self.zero_std_partial))
                    ),
                    lines=(ReferenceLine(axis="y", value=_DEAD, label="above: binary credit wastes most groups"),),
                    description=f"Expected share of groups whose rewards are all equal, at {len(sizes)} group sizes.",
                ),
            ),
            notes=self.notes(),
        )


def credit_report(verdicts: Any, *, weights: Any = None, group_sizes: Any = (4, 8, 16)) -> CreditReport:
    """Compare reward for all constraints with reward for a share of them.

    Parameters
    ----------
    verdicts : array-like of bool or 0/1, shape (N, k, m)
        Verdict of each of m constraints on k rollouts of N prompts; k >= 2.
    weights : array-like, shape (m,), optional
        Weights of the partial reward, non-negative, adding up to a positive number; None takes 1/m each.
    group_sizes : sequence of int
        Group sizes for the shares of groups without spread.

    Returns
    -------
    CreditReport
        Shares, spreads and simulated times.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `verdicts` has another shape or entries beside 0 and 1, or `weights` do not fit.

    Notes
    -----
    The simulation runs on the verdict classes that occur, from their pooled shares, once with a table of logits and
    once with the verdicts as features (K = Phi Phi^T); above 512 classes times are NaN. Time O(N k m), and O(C^3) for
    a stiff step on C classes. The advice in the explanation is a heuristic of ours.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 5 (the two rewards); the simulation and the advice are derived here.

    Examples
    --------
    >>> from rankdiag.rewards import credit_report
    >>> report = credit_report([[[1, 1], [1, 0], [1, 0], [0, 0]]], group_sizes=(2, 4))
    >>> report.p_each.tolist(), report.partial_to_all, report.zero_std_binary["2"]
    ([0.75, 0.25], 2.0, 0.5)
    """
    table = as_float64(verdicts, "verdicts", ndim=3, expected="verdicts (N, k, m)")
    if not ((table == 0) | (table == 1)).all():
        raise ValueError("`verdicts` must hold only True and False, or 0 and 1; got other numbers")
    if table.shape[1] < 2:
        raise ValueError(f"`verdicts` must have at least 2 rollouts for each prompt; got shape {table.shape}")
    share = _weights(weights, table.shape[2])
    if isinstance(group_sizes, (str, bytes)) or not hasattr(group_sizes, "__iter__"):
        raise TypeError(f"`group_sizes` must be a sequence of integers; got {describe(group_sizes)}")
    sizes = [integer(size, "group_sizes", low=1) for size in group_sizes]
    count = table.sum(axis=2)
    whole = count == table.shape[2]
    rewards = {"binary": whole.astype(np.float64), "partial": np.where(whole, 1.0, table @ share)}
    p_all, some = float(whole.mean()), float(((count > 0) & ~whole).mean())
    ratio = some / p_all if p_all else (float("inf") if some else float("nan"))
    spread = {name: float(np.sqrt(row_moments(reward).var.mean())) for name, reward in rewards.items()}
    zero = {name: {str(size): _zero_std(reward, size) for size in sizes} for name, reward in rewards.items()}
    return CreditReport(
        p_all=p_all,
        p_each=table.mean(axis=(0, 1)),
        p_only=(table * (count == 1)[..., None]).mean(axis=(0, 1)),
        partial_to_all=ratio,
        rms_std_binary=spread["binary"],
        rms_std_partial=spread["partial"],
        zero_std_binary=zero["binary"],
        zero_std_partial=zero["partial"],
        times=_times(table.reshape(-1, table.shape[2]), share),
        meta=Meta(
            definition="binary = all constraints satisfied; partial = weighted share of those satisfied",
            ddof=1,
            n=int(table.shape[0]),
            details={"level": _LEVEL, "horizon": _HORIZON},
        ),
    )


def _weights(weights: Any, size: int) -> Floats:
    if weights is None:
        return np.full(size, 1.0 / size)
    array = as_float64(weights, "weights", ndim=1, expected="one weight for each constraint")
    with np.errstate(over="ignore"):
        total = float(array.sum())
    if array.size != size or (array < 0).any() or not 0 < total < np.inf:
        raise ValueError(f"`weights` must be {size} non-negative numbers with a positive sum; got {describe(weights)}")
    return np.asarray(array / total, dtype=np.float64)


def _zero_std(reward: Floats, size: int) -> float:
    """Return the mean over prompts of the chance that `size` of their rollouts share one reward."""
    from scipy.special import comb

    rollouts = reward.shape[1]
    if size > rollouts:
        return float("nan")
    chance = np.zeros(len(reward))
    for level in np.unique(reward):
        chance += comb((reward == level).sum(axis=1), size) / comb(rollouts, size)
    return float(chance.mean())


def _times(rows: Floats, share: Floats) -> dict[str, float]:
    classes, counts = np.unique(rows, axis=0, return_counts=True)
    whole = classes.all(axis=1).astype(np.float64)
    rewards = {"binary": whole, "partial": np.where(whole > 0, 1.0, classes @ share)}
    found = {}
    for name, reward in rewards.items():
        for kernel, features in (("tabular", None), ("factorised", classes)):
            if len(classes) > _MOST_CLASSES:
                time = float("nan")
            elif not whole.any():
                time = float("inf")
            else:
                run = simulate_policy_gradient(
                    counts / counts.sum(), reward, {"all": whole}, features=features, horizon=_HORIZON,
                    record=[0.0], stop=("all", _LEVEL),
                )  # fmt: skip
                time = float(run.hitting_time)
            found[f"{name}/{kernel}"] = time
    return found


def _explain(report: CreditReport) -> str:
    text = f"{report.p_all:.1%} of the rollouts satisfy all constraints."
    for size, dead in report.zero_std_binary.items():
        if np.isnan(dead):
            continue
        if report.p_all * int(size) < 1:
            advice = "partial credit, or a schedule from partial to binary"
        elif dead < _DEAD:
            advice = "binary credit"
        else:
            advice = "no clear case"
        text += f" Groups of {size}: {dead:.0%} without spread under binary credit; {advice}."
    return text + " The advice is a heuristic."

"""Accuracy on given pairs, chosen against one or many rejected responses, and the weights of on-policy pairs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, refuse_size
from rankdiag._document import Document, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import RankdiagWarning, boolean, choice
from rankdiag.rewards._accuracy import log_weights

__all__ = ["PairAccuracy", "PairWeights", "pair_accuracy", "pair_weights", "wilson"]

Floats = NDArray[np.float64]
_Z95 = 1.959963984540054  # upper 2.5 % point of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairAccuracy(Result):
    """Share of given comparisons that a reward gets right.

    Attributes
    ----------
    accuracy : float
        Weighted mean of the credits.
    per_prompt : ndarray of float64, shape (N,)
        Credit of each comparison; NaN where it was dropped.
    ess : float
        Effective number of comparisons, (sum w)^2 / sum w^2.
    interval : tuple of float
        Wilson interval at 95 %, with `ess` as the number of trials.

    Examples
    --------
    >>> from rankdiag.rewards import pair_accuracy
    >>> float(pair_accuracy([1.0, 0.0], [0.0, 0.0]))
    0.75
    """

    tag: ClassVar[str] = "rewards.PairAccuracy"

    accuracy: float
    per_prompt: NDArray[np.float64]
    ess: float
    interval: tuple[float, float]

    def __post_init__(self) -> None:
        array = np.array(as_float64(self.per_prompt, "per_prompt", ndim=1, finite=False, allow_empty=True))
        array.flags.writeable = False
        object.__setattr__(self, "per_prompt", array)

    def __float__(self) -> float:
        return self.accuracy

    def document(self) -> Document:
        """Return what this result shows: the accuracy, its interval and how many comparisons carry it."""
        return Document(
            title="Pair accuracy",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="accuracy", value=self.accuracy),
                KeyNumber(label="lower, 95 %", value=self.interval[0]),
                KeyNumber(label="upper, 95 %", value=self.interval[1]),
                KeyNumber(label="effective comparisons", value=self.ess),
            ),
            notes=self.notes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairWeights(Result):
    """Weights of all pairs of rollouts.

    Attributes
    ----------
    weights : ndarray of float64, shape (N, k(k-1)/2)
        Pairs i < j row by row; they sum to 1; 0 where a rollout has no log-probability.
    ess : float
        Effective number of pairs, 1 / sum w^2.

    Examples
    --------
    >>> from rankdiag.rewards import pair_weights
    >>> round(pair_weights([[0.0, 0.0, 0.0]]).ess, 6)
    3.0
    """

    tag: ClassVar[str] = "rewards.PairWeights"

    weights: NDArray[np.float64]
    ess: float

    def __post_init__(self) -> None:
        array = np.array(as_float64(self.weights, "weights", ndim=2, finite=False, allow_empty=True))
        array.flags.writeable = False
        object.__setattr__(self, "weights", array)


def pair_accuracy(
    chosen: Any,
    rejected: Any,
    *,
    ties: Literal["half", "strict"] = "half",
    harm_aware: bool = False,
    expected_reward: Any = None,
    weighting: Literal["uniform", "sequence", "length_normalised"] = "uniform",
    log_probs_chosen: Any = None,
    log_probs_rejected: Any = None,
    lengths_chosen: Any = None,
    lengths_rejected: Any = None,
    compat: Literal["half", "strict", "best_of_k"] | None = None,
) -> PairAccuracy:
    """Say how often a reward puts the chosen response above the rejected one, or above all rejected ones.

    Parameters
    ----------
    chosen : array-like, shape (N,)
        Rewards of the chosen responses; NaN drops the comparison.
    rejected : array-like, shape (N,) or (N, m)
        Rewards of the rejected responses; NaN drops the entry, so ragged rows are padded with it.
    ties : {"half", "strict"}
        A tie with the best rejected response counts one half, or as wrong.
    harm_aware : bool
        Whether a comparison is right also where all rejected responses lie below `expected_reward`.
    expected_reward : array-like, shape (N,), optional
        Mean proxy reward of the policy's rollouts of each prompt; NaN, where there are none, drops the comparison.
    weighting : {"uniform", "sequence", "length_normalised"}
        All alike, or a softmax over prompts of ln pi(chosen) + the sum of ln pi(rejected).
    log_probs_chosen, log_probs_rejected : array-like, optional
        In nats, of the shapes of the rewards.
    lengths_chosen, lengths_rejected : array-like, optional
        In tokens, of the shapes of the rewards.
    compat : {"half", "strict", "best_of_k"}, optional
        Published rules on rewards rounded to float32: half ties (arXiv 2507.07981), a tie is wrong (RewardBench), or
        1 / number of maxima if the chosen one is among them (RewardBench 2).

    Returns
    -------
    PairAccuracy
        Accuracy, credits, effective number, interval.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a reward is infinite, something needed is missing, or no comparison remains.

    Warns
    -----
    RankdiagWarning
        If a weighted mode leaves fewer than 20 effective comparisons, or fewer than one hundredth.

    Notes
    -----
    O(N m). The interval takes comparisons for independent, half credits for fractions of a success.

    References
    ----------
    Harm-aware accuracy: arXiv 2604.25872, Section 4. Wilson (1927) for the interval.

    Examples
    --------
    >>> from rankdiag.rewards import pair_accuracy
    >>> pair_accuracy([1.0, 0.0], [[0.5, 0.2], [0.0, -1.0]]).per_prompt.tolist()
    [1.0, 0.5]
    """
    rule = choice(ties, "ties", ("half", "strict"))
    mode = choice(weighting, "weighting", ("uniform", "sequence", "length_normalised"))
    harm = boolean(harm_aware, "harm_aware")
    kind = None if compat is None else choice(compat, "compat", ("half", "strict", "best_of_k"))
    c, r = _rewards(chosen, "chosen", 1), _rewards(rejected, "rejected", None)
    if r.ndim not in {1, 2} or len(r) != len(c):
        raise ValueError(f"`rejected` must have shape ({len(c)},) or ({len(c)}, m), as `chosen` has; got {r.shape}")
    shape, r = r.shape, r.reshape(len(c), -1)
    bar = _bar(expected_reward, len(c)) if harm else None
    if harm and kind == "best_of_k":
        raise ValueError("`harm_aware` must be False with compat='best_of_k', which has no waiver; got True")
    if kind is not None:
        with np.errstate(over="ignore"):
            c, r = (x.astype(np.float32).astype(np.float64) for x in (c, r))
    credit = _credits(c, r, rule if kind is None else kind, bar)
    use = ~np.isnan(credit)
    if not use.any():
        raise ValueError("`chosen` and `rejected` must leave one comparison without NaN; got none")
    weight = use / use.sum()
    if mode != "uniform":
        lc = log_weights(log_probs_chosen, lengths_chosen, mode, c.shape, "_chosen")
        lr = log_weights(log_probs_rejected, lengths_rejected, mode, shape, "_rejected").reshape(r.shape)
        logs = lc + np.where(np.isnan(r), 0.0, lr).sum(axis=1)  # a padded entry has no weight
        use = use & ~np.isnan(logs)
        if not use.any():
            raise ValueError("`log_probs_chosen` and `log_probs_rejected` must leave one comparison; got NaN for all")
        credit = np.where(use, credit, np.nan)
        weight = np.where(use, np.exp(np.where(use, logs, -np.inf) - logs[use].max()), 0.0)
        weight /= weight.sum()
    count, ess = int(use.sum()), float(1.0 / (weight @ weight))
    if mode != "uniform" and ess < max(20.0, 0.01 * count):
        warnings.warn(
            f"the weights leave {ess:.3g} effective of {count} comparisons: ignore this figure",
            RankdiagWarning,
            stacklevel=2,
        )
    accuracy = min(1.0, float(credit[use].mean() if mode == "uniform" else weight[use] @ credit[use]))
    low, high = wilson(accuracy, ess)
    return PairAccuracy(
        accuracy=accuracy,
        per_prompt=credit,
        ess=ess,
        interval=(low, high),
        explanation=f"The reward gets {accuracy:.1%} of {count} comparisons right ({low:.1%} to {high:.1%}).",
        meta=Meta(
            definition="share of comparisons with the chosen response above all rejected ones",
            n=count,
            details={
                "ties": "shared by all maxima" if kind == "best_of_k" else kind or rule,
                "weighting": mode,
                "harm_aware": harm,
                **({} if kind is None else {"compat": kind}),
                "interval": "Wilson",
            },
        ),
    )


def pair_weights(log_probs: Any, *, lengths: Any = None, over: Literal["all", "prompt"] = "all") -> PairWeights:
    """Return the weights that a softmax of summed log-probabilities gives to all pairs of rollouts.

    Parameters
    ----------
    log_probs : array-like, shape (N, k)
        Of the rollouts, in nats; NaN for a rollout that is not there.
    lengths : array-like, shape (N, k), optional
        In tokens; given, each log-probability is divided by max(1, length) first.
    over : {"all", "prompt"}
        Softmax over all pairs, or within each prompt, which then weighs 1 / N.

    Returns
    -------
    PairWeights
        Weights of the pairs i < j, row by row, and their effective number.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, k < 2, an entry is infinite, no pair remains, or the pairs do not fit into memory.

    Notes
    -----
    O(N k^2) time and memory; `ranking_accuracy` weights without listing them.

    References
    ----------
    arXiv 2604.25872, weighted accuracy.

    Examples
    --------
    >>> from rankdiag.rewards import pair_weights
    >>> pair_weights([[0.0, 0.0], [0.0, 0.0]]).weights.tolist()
    [[0.5], [0.5]]
    """
    where = choice(over, "over", ("all", "prompt"))
    logs = as_float64(log_probs, "log_probs", ndim=2, finite=False, expected="log-probabilities (N, k)")
    logs = log_weights(logs, lengths, "sequence" if lengths is None else "length_normalised", logs.shape)
    count, k = logs.shape
    if k < 2:
        raise ValueError(f"`log_probs` must have at least 2 rollouts a prompt; got shape {logs.shape}")
    refuse_size(count * k * (k - 1) // 2, "log_probs", (count, k * (k - 1) // 2))
    i, j = np.triu_indices(k, 1)
    with np.errstate(over="ignore"):
        sums = logs[:, i] + logs[:, j]
    if np.isinf(sums).any():
        raise ValueError("`log_probs` must have sums that float64 can hold")
    sums = np.where(np.isnan(sums), -np.inf, sums)
    top = sums.max(axis=1)
    some = np.isfinite(top)
    if not some.any():
        raise ValueError("`log_probs` must leave one pair without NaN; got none")
    shift = np.where(some, top, 0.0)[:, None] if where == "prompt" else sums.max()
    weights = np.exp(sums - shift)
    if where == "prompt":
        weights[some] /= weights[some].sum(axis=1, keepdims=True)
    weights /= weights.sum()
    ess = float(1.0 / np.einsum("ij,ij->", weights, weights))
    return PairWeights(
        weights=weights,
        ess=ess,
        explanation=f"The weights are worth {ess:.3g} of {int(np.isfinite(sums).sum())} pairs.",
        meta=Meta(definition="softmax of the summed log-probabilities of a pair", n=count, details={"over": where}),
    )


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the Wilson interval at 95 % of a share of `n` trials."""
    z = _Z95 * _Z95 / n
    middle, half = (share + z / 2) / (1 + z), _Z95 * math.sqrt(share * (1 - share) / n + z / (4 * n)) / (1 + z)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _credits(c: Floats, r: Floats, rule: str, bar: Floats | None) -> Floats:
    best = np.where(np.isnan(r), -np.inf, r).max(axis=1)
    if rule == "best_of_k":
        credit = np.where(c >= best, 1.0 / (1 + (r == c[:, None]).sum(axis=1)), 0.0)
    else:
        credit = np.where(c > best, 1.0, np.where((c == best) & (rule == "half"), 0.5, 0.0))
    if bar is not None:
        credit = np.where(best < bar, 1.0, np.where(np.isnan(bar), np.nan, credit))
    return np.asarray(np.where(np.isnan(c) | np.isnan(r).all(axis=1), np.nan, credit), dtype=np.float64)


def _rewards(value: Any, name: str, ndim: int | None) -> Floats:
    array: Floats = as_float64(value, name, ndim=ndim, finite=False, expected="rewards of responses")
    if np.isinf(array).any():
        place = [int(axis[0]) for axis in np.nonzero(np.isinf(array))]
        where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
        raise ValueError(f"`{name}` must hold finite rewards or NaN; rewards contain +-inf at {where}")
    return array


def _bar(value: Any, count: int) -> Floats:
    if value is None:
        raise ValueError("`expected_reward` must be given for harm_aware=True; got None. Pass the mean of the rollouts")
    bar: Floats = as_float64(value, "expected_reward", ndim=1, finite=False, expected="one reward a prompt (N,)")
    if len(bar) != count:
        raise ValueError(f"`expected_reward` must have {count} entries, as `chosen` has; got {len(bar)}")
    return bar

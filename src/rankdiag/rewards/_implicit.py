"""Implicit reward models: their reward, how well any reward tells pairs apart, and what a perfect one still lets be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._document import Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import real
from rankdiag.rewards._exact import as_probs
from rankdiag.rewards._pairs import wilson

__all__ = [
    "PairReport",
    "VerifierTilt",
    "implicit_reward",
    "pair_credits",
    "pair_report",
    "pair_rewards",
    "verifier_tilt",
]

Floats = NDArray[np.float64]

MARGIN_EPSILON = 1e-8  # added to the std of `normalised_margin` by arXiv 2507.07981; its published numbers need it
_LARGE = 2.0**500  # squares of larger rewards come near the end of float64, so those are scaled by a power of two


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairReport(Result):
    """How well a reward tells chosen from rejected responses.

    Attributes
    ----------
    accuracy : float
        Share of pairs with the chosen response above the rejected one; a tie counts one half.
    accuracy_interval : tuple of float
        Wilson interval at 95 %.
    normalised_margin : float
        Mean absolute difference over the standard deviation (ddof=1) of all rewards together; larger is easier to
        separate.
    bt_loss : float
        Bradley-Terry loss, mean of -ln sigmoid(difference), in nats.
    mean_chosen, mean_rejected : float
        Mean rewards, in reward units.

    Examples
    --------
    >>> from rankdiag.rewards import pair_report
    >>> pair_report([1.0, 2.0, 0.0], [0.0, 1.0, 0.0]).mean_chosen
    1.0
    """

    tag: ClassVar[str] = "rewards.PairReport"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "lower",
        "upper",
        "normalised_margin",
        "bt_loss",
        "mean_chosen",
        "mean_rejected",
    )

    accuracy: float
    accuracy_interval: tuple[float, float]
    normalised_margin: float
    bt_loss: float
    mean_chosen: float
    mean_rejected: float

    @property
    def lower(self) -> float:
        """Lower end of the interval of the accuracy."""
        return self.accuracy_interval[0]

    @property
    def upper(self) -> float:
        """Upper end of the interval of the accuracy."""
        return self.accuracy_interval[1]

    def document(self) -> Document:
        """Return what this result shows: the accuracy with its interval, margin, loss and means."""
        low, high = self.accuracy_interval
        return Document(
            title="Rewards of pairs",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="accuracy", value=self.accuracy, doc="A tie counts one half."),
                KeyNumber(label="lower, 95 %", value=low),
                KeyNumber(label="upper, 95 %", value=high),
                KeyNumber(label="normalised margin", value=self.normalised_margin, doc="Larger is easier to separate."),
                KeyNumber(label="Bradley-Terry loss", value=self.bt_loss, unit="nats"),
                KeyNumber(label="mean reward, chosen", value=self.mean_chosen),
                KeyNumber(label="mean reward, rejected", value=self.mean_rejected),
            ),
            notes=self.notes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifierTilt(Result):
    """A policy whose implicit reward verifies perfectly, and how little it must generate.

    Attributes
    ----------
    probs : ndarray of float64, shape (Y,)
        pi, proportional to pi_ref exp((delta / beta) 1[correct]).
    margin : float
        Implicit reward of a correct output less that of a wrong one, which is delta.
    p_correct, p_correct_ref : float
        Probability of a correct output under pi and under pi_ref.
    factor_cap : float
        exp(delta / beta): p_correct is at most this times p_correct_ref. Infinite beyond float64.

    Examples
    --------
    >>> from rankdiag.rewards import verifier_tilt
    >>> tilt = verifier_tilt([0.001, 0.999], [0], delta=1.0, beta=1.0)
    >>> tilt.margin, round(tilt.p_correct, 6)
    (1.0, 0.002714)
    """

    tag: ClassVar[str] = "rewards.VerifierTilt"
    judged: ClassVar[bool] = False

    probs: NDArray[np.float64]
    margin: float
    p_correct: float
    p_correct_ref: float
    factor_cap: float

    def __post_init__(self) -> None:
        array = np.array(as_float64(self.probs, "probs", ndim=1, expected="probabilities (Y,)"))
        array.flags.writeable = False
        object.__setattr__(self, "probs", array)

    def document(self) -> Document:
        """Return what this result shows: the margin, both probabilities of a correct output, and the policy."""
        index = np.arange(len(self.probs)).tolist()
        return Document(
            title="A verifier as an implicit reward",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="margin", value=self.margin, doc="Implicit reward, correct less wrong."),
                KeyNumber(label="P(correct)", value=self.p_correct),
                KeyNumber(label="P(correct), reference", value=self.p_correct_ref),
                KeyNumber(label="largest factor", value=self.factor_cap, doc="exp(delta / beta)."),
            ),
            plots=(
                Plot(
                    title="The tilted policy",
                    x_label="output",
                    y_label="probability",
                    series=(Series(label="pi", x=index, y=self.probs.tolist(), kind="points"),),
                    description=f"Probability of each of {len(index)} outputs.",
                ),
            ),
            notes=self.notes(),
        )


def implicit_reward(logp: Any, logp_ref: Any = None, beta: float = 1.0) -> Floats:
    """Reward that a language model gives by its own log-probabilities: beta (ln pi - ln pi_ref).

    Parameters
    ----------
    logp : array-like or torch.Tensor
        ln pi of each response, summed over its tokens, in nats, of any shape; NaN where it cannot be scored.
    logp_ref : array-like or torch.Tensor, optional
        ln pi_ref of the same responses, of the same shape; None leaves the reference out.
    beta : float
        Scale, > 0. Accuracy and normalised margin do not depend on it.

    Returns
    -------
    ndarray of float64
        Rewards of the shape of `logp`; NaN where either log-probability is.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes differ, an entry is infinite, or a reward leaves float64.

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 2.

    Examples
    --------
    >>> from rankdiag.rewards import implicit_reward
    >>> implicit_reward([-3.0, -5.0], [-4.0, -4.5], beta=2.0).tolist()
    [2.0, -1.0]
    """
    scale = real(beta, "beta", low=0.0, low_open=True)
    own = pair_rewards(logp, "logp", ndim=None, expected="log-probabilities")
    if logp_ref is None:
        base: Floats | float = 0.0
    else:
        base = pair_rewards(logp_ref, "logp_ref", ndim=None, expected="log-probabilities")
        if base.shape != own.shape:
            raise ValueError(f"`logp_ref` must have the shape of `logp`, {own.shape}; got {base.shape}")
    with np.errstate(over="ignore", under="ignore"):  # overflow is refused below, underflow rounds to 0
        reward = np.asarray(scale * (own - base), dtype=np.float64)
    if np.isinf(reward).any():
        raise ValueError("`logp`, `logp_ref` and `beta` must give rewards that float64 can hold; got an infinite one")
    return reward


def pair_report(chosen: Any, rejected: Any) -> PairReport:
    """Report how a reward tells chosen from rejected responses: accuracy, margin, loss, means.

    Parameters
    ----------
    chosen, rejected : array-like or torch.Tensor, shape (N,)
        Rewards of both responses of each pair, of an implicit or an explicit reward model; a NaN drops its pair.

    Returns
    -------
    PairReport
        Six figures over the pairs that remain.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If shapes differ, an entry or a difference is infinite, or no pair remains.

    Notes
    -----
    A factor on all rewards leaves accuracy and, but for the published constant 1e-8, the margin; a common shift leaves
    both and the loss. The margin stands in for the variance that the reward induces. Time and memory O(N).

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 5 (accuracy and absolute reward margin). Wilson (1927) for the interval.

    Examples
    --------
    >>> from rankdiag.rewards import pair_report
    >>> report = pair_report([1.0, 2.0, 0.0], [0.0, 1.0, 0.0])
    >>> round(report.accuracy, 4), round(report.normalised_margin, 4), round(report.bt_loss, 4)
    (0.8333, 0.8165, 0.4399)
    """
    c, r = _pairs(chosen, rejected)
    use = ~(np.isnan(c) | np.isnan(r))
    if not use.any():
        raise ValueError("`chosen` and `rejected` must leave one pair without NaN; got none")
    dropped = int((~use).sum())
    c, r = c[use], r[use]
    with np.errstate(over="ignore", under="ignore"):  # an infinite difference is refused below
        d = c - r
        if np.isinf(d).any():
            raise ValueError("`chosen` and `rejected` must have differences that float64 can hold; scale them down")
        loss = np.logaddexp(0.0, -d)
    accuracy, margin = float(pair_credits(c, r).mean()), _margin(c, r)
    low, high = wilson(accuracy, float(len(d)))
    skipped = {"pairs": f"{dropped} of {dropped + len(d)} hold a NaN"} if dropped else {}
    return PairReport(
        accuracy=accuracy,
        accuracy_interval=(low, high),
        normalised_margin=margin,
        bt_loss=_mean(loss),
        mean_chosen=_mean(c),
        mean_rejected=_mean(r),
        explanation=(
            f"The chosen response has the higher reward in {accuracy:.1%} of {len(d)} pairs ({low:.1%} to {high:.1%}), "
            f"and the two rewards of a pair lie {margin:.3g} standard deviations apart."
        ),
        meta=Meta(
            definition="share of pairs with chosen above rejected; mean |difference| / (std of all rewards + 1e-8)",
            base="e",
            ddof=1,
            n=len(d),
            skipped=skipped,
            details={"ties": "half", "interval": "Wilson, 95 %"},
        ),
    )


def verifier_tilt(pi_ref: Any, correct: Any, *, delta: float, beta: float) -> VerifierTilt:
    """Tilt a policy so that its implicit reward puts every correct output `delta` above every wrong one.

    Parameters
    ----------
    pi_ref : array-like or torch.Tensor, shape (Y,)
        Reference policy.
    correct : array-like of int
        Indices of the correct outputs, each once.
    delta : float
        Margin, >= 0.
    beta : float
        Scale of the implicit reward, > 0.

    Returns
    -------
    VerifierTilt
        The policy, its margin, and how probable a correct output is before and after.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `pi_ref` is no distribution or gives no mass to correct or to wrong outputs, or an index is out of range or
        repeated.

    Notes
    -----
    Verifying does not need generating: accuracy 1 with margin delta, and a correct output stays as rare as
    exp(delta / beta) times before at most. Time O(Y).

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 4 (implicit reward models need not learn to generate).

    Examples
    --------
    >>> from rankdiag.rewards import verifier_tilt
    >>> tilt = verifier_tilt([0.1, 0.4, 0.5], [0], delta=2.0, beta=2.0)
    >>> round(tilt.p_correct, 4), tilt.p_correct_ref, round(tilt.factor_cap, 4)
    (0.232, 0.1, 2.7183)
    """
    ref = as_probs(as_float64(pi_ref, "pi_ref", ndim=1, expected="probabilities (Y,)"), "pi_ref")
    right = _indices(correct, len(ref))
    gap, scale = real(delta, "delta", low=0.0), real(beta, "beta", low=0.0, low_open=True)
    p_ref = float(ref[right].sum())
    if not (p_ref > 0.0 and (ref[~right] > 0).any()):
        raise ValueError(
            f"`correct` must name some but not all outputs that `pi_ref` can generate; they have probability {p_ref:g}"
        )
    with np.errstate(over="ignore", under="ignore", divide="ignore"):  # beyond float64 the factor is infinite
        exponent = np.float64(gap) / np.float64(scale)
        factor = float(np.exp(exponent))
        weights = np.where(right, ref, ref * np.exp(-exponent))
        probs = weights / weights.sum()
    p_correct = min(1.0, float(probs[right].sum()))
    return VerifierTilt(
        probs=probs,
        margin=gap,
        p_correct=p_correct,
        p_correct_ref=min(1.0, p_ref),
        factor_cap=factor,
        explanation=(
            f"As a verifier this policy puts every correct output {gap:.3g} above every wrong one; it generates a "
            f"correct one with probability {p_correct:.3g}, {p_ref:.3g} before."
        ),
        meta=Meta(
            definition="pi proportional to pi_ref exp((delta / beta) 1[correct])",
            n=len(ref),
            details={"delta": gap, "beta": scale, "correct": int(right.sum())},
        ),
    )


def pair_credits(chosen: Floats, rejected: Floats) -> Floats:
    """Return 1, one half or 0 for each pair: above, tied, below; NaN where either reward is."""
    credit = np.where(chosen > rejected, 1.0, np.where(chosen == rejected, 0.5, 0.0))
    return np.where(np.isnan(chosen) | np.isnan(rejected), np.nan, credit)


def pair_rewards(value: Any, name: str, *, ndim: int | None = 1, expected: str = "one reward a pair (N,)") -> Floats:
    """Return rewards as float64; NaN stays, infinity is refused by name."""
    array: Floats = as_float64(value, name, ndim=ndim, finite=False, expected=expected)
    if np.isinf(array).any():
        raise ValueError(f"`{name}` must be finite, or NaN where it cannot be scored; got +-inf")
    return array


def _pairs(chosen: Any, rejected: Any) -> tuple[Floats, Floats]:
    c, r = pair_rewards(chosen, "chosen"), pair_rewards(rejected, "rejected")
    if c.shape != r.shape:
        raise ValueError(f"`rejected` must have the shape of `chosen`, {c.shape}; got {r.shape}")
    return c, r


def _unit(values: Floats) -> float:
    """Return a power of two to divide by, so that squares and sums stay within float64; 1 for most rewards."""
    top = float(np.abs(values).max())
    return 2.0 ** min(1000, math.frexp(top)[1]) if top > _LARGE else 1.0


def _mean(values: Floats) -> float:
    unit = _unit(values)
    return float((values / unit).mean()) * unit


def _margin(chosen: Floats, rejected: Floats) -> float:
    pooled = np.concatenate([chosen, rejected])
    unit = _unit(pooled)
    pooled = pooled / unit
    with np.errstate(under="ignore"):  # squares of tiny rewards vanish beside the constant
        spread = 0.0 if pooled.min() == pooled.max() else float(pooled.std(ddof=1))
        return float(np.abs(chosen / unit - rejected / unit).mean()) / (spread + MARGIN_EPSILON / unit)


def _indices(value: Any, size: int) -> NDArray[np.bool_]:
    """Return the mask of some indices."""
    array = as_float64(value, "correct", ndim=1, allow_empty=True, expected="indices of outputs")
    if array.size and "int" not in input_dtype(value):
        raise TypeError(
            f"`correct` must hold integers, indices of outputs; got dtype {input_dtype(value)}. "
            "Pass np.flatnonzero(mask) for a mask"
        )
    if not ((array >= 0) & (array < size)).all():
        raise ValueError(
            f"`correct` must hold indices from 0 to {size - 1}; got {float(array.min()):g} to {float(array.max()):g}"
        )
    if len(np.unique(array)) != len(array):
        raise ValueError("`correct` must name each output once; got an index twice")
    mask = np.zeros(size, dtype=np.bool_)
    mask[array.astype(np.int64)] = True
    return mask

"""How sure a spread of rewards is: intervals for the standard deviation of one prompt, at one look or at many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Document, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import choice, integer, real
from rankdiag._warnings import without_warnings
from rankdiag.rewards._std_bounds import (
    CERTIFIED,
    Certified,
    check_range,
    finite_moments,
    require_ends,
    require_inside,
    reward_rows,
    row_bounds,
    unit_radius,
)

__all__ = ["SequentialStd", "StdInterval", "std_interval"]

Floats = NDArray[np.float64]
State = Literal["low", "high", "continue", "exhausted"]

_METHODS = (*CERTIFIED, "chi2", "bootstrap")
_RESAMPLES = 2000
_FIRST_LOOK = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StdInterval(Result):
    """Interval for the standard deviation of the reward of one prompt.

    Attributes
    ----------
    std : float
        Sample standard deviation (ddof=1), in reward units.
    lower, upper : float
        Confidence bounds, in reward units; NaN where the method gives none, see `reason`.
    radius : float
        Unclipped half-width of "maurer_pontil", in reward units; NaN for the other methods.
    method : {"maurer_pontil", "self_bounding", "binary_exact", "chi2", "bootstrap"}
        Where the bounds come from.
    delta : float
        Error probability.
    sides : {"one", "two"}
        "one": each bound holds with probability 1 - delta on its own; "two": both hold together.
    reason : str or None
        Why there are no bounds, or no look yet; None where there are bounds.

    Examples
    --------
    >>> from rankdiag.rewards import std_interval
    >>> std_interval([0.0] * 10, method="binary_exact", reward_range=(0, 1)).lower
    0.0
    """

    tag: ClassVar[str] = "rewards.StdInterval"

    std: float
    lower: float
    upper: float
    radius: float
    method: str
    delta: float
    sides: str
    reason: str | None

    def document(self) -> Document:
        """Return the std, its bounds and how they were made.

        Returns
        -------
        Document
            What is NaN is left out.
        """
        together = "together" if self.sides == "two" else "on its own"
        each = f"Holds {together} with probability {1 - self.delta:.4g}, by {self.method}."
        numbers = (
            ("std", self.std, "Of these rollouts."),
            ("lower bound", self.lower, each),
            ("upper bound", self.upper, each),
            ("radius", self.radius, "Before clipping to what is possible."),
        )
        return Document(
            title="How sure the spread of one prompt is",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(
                KeyNumber(label=label, value=value, doc=doc) for label, value, doc in numbers if not math.isnan(value)
            ),
            notes=self.notes(),
        )


def std_interval(
    values: Any,
    *,
    method: Literal["maurer_pontil", "self_bounding", "binary_exact", "chi2", "bootstrap"] = "maurer_pontil",
    reward_range: tuple[float, float] | None = None,
    delta: float = 0.05,
    sides: Literal["one", "two"] = "one",
    rng: Any = None,
) -> StdInterval:
    r"""Bound the standard deviation of the reward of one prompt from its rollouts.

    Parameters
    ----------
    values : array-like or torch.Tensor, shape (n,)
        Rewards of one prompt; NaN is an unscorable rollout and is dropped.
    method : {"maurer_pontil", "self_bounding", "binary_exact", "chi2", "bootstrap"}
        See Notes. The first three are certified: with independent rollouts they hold at every n.
    reward_range : tuple of float, optional
        Ends (lo, hi) of all possible rewards, not of those seen; required by the certified methods.
    delta : float
        Error probability, in (0, 1); below 1/2 for "bootstrap" with sides "one".
    sides : {"one", "two"}
        "one": lower and upper each hold with probability 1 - delta on their own. "two": delta / 2 is spent on each and
        they hold together.
    rng : int or numpy.random.Generator, optional
        Of the bootstrap.

    Returns
    -------
    StdInterval
        Sample std (ddof=1) and its bounds, in reward units.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there are fewer than two valid rewards, they are infinite or too far apart for float64 to hold their squares,
        the range is missing or does not contain them, or an option is not in its list.

    Notes
    -----
    With r = (hi - lo) sqrt(2 ln(1/delta) / (n - 1)), clipped to [0, (hi - lo)/2]:

    * "maurer_pontil": s - r and s + r ([MP] Theorem 10). At hi - lo = 1, delta = .05, r is .816 at n = 10 and .153 at
      n = 256: ten rollouts never certify a small spread.
    * "self_bounding" (derived here): the two tails of s^2 behind that theorem solved for sigma, without the relaxation
      of its last step. On [0, 1] coordinate k can lower Z = n s^2 by (x_k - mean of the others)^2 <= 1 at most; the
      squares of these add up to at most n/(n-1) Z, so that [MP] Theorem 7 gives, each with probability 1 - delta,
      sigma^2 - s^2 <= r sigma and s^2 - sigma^2 <= r^2/4 + r sqrt(sigma^2 + r^2/16). Hence upper r/2 +
      sqrt(s^2 + r^2/4) and lower^2 = s^2 + r^2/4 - r sqrt(s^2 + r^2/16), 0 where s^2 <= r^2/2. Never wider than
      "maurer_pontil"; its distances from s tend to half of r as r falls below s.
    * "binary_exact": rewards are lo or hi only. Clopper-Pearson ends of p mapped through (hi - lo) sqrt(p(1-p)), but
      with sides "one" the upper bound is the largest sigma under which the rarer reward comes up as seldom as it did
      with probability >= delta (derived here). The map of the two one-sided ends of p does not hold at 1 - delta, for
      p near 1/2 is missed on either side: at n = 5, p = 1/2, delta = .05 its upper bound is .498 < sigma in 2 of 32
      cases.
    * "chi2": normal rewards only; s sqrt((n-1)/q) with q the quantiles of chi-squared with n - 1 degrees of freedom.
    * "bootstrap": BCa with 2000 resamples, no guarantee at small n; NaN and a reason where it is degenerate.

    Time O(n), "bootstrap" O(2000 n).

    References
    ----------
    [MP] Maurer, Pontil, "Empirical Bernstein Bounds and Sample Variance Penalization", arXiv 0907.3740, Theorems 7, 10.
    Clopper, Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934).

    Examples
    --------
    >>> from rankdiag.rewards import std_interval
    >>> round(std_interval([0.0] * 10, method="binary_exact", reward_range=(0, 1)).upper, 3)
    0.438
    >>> wide = std_interval([0.0, 1.0] * 128, reward_range=(0, 1))
    >>> round(wide.lower, 3), round(wide.radius, 3)
    (0.348, 0.153)
    """
    array = _one_row(values, "values")
    method = choice(method, "method", cast("tuple[Any, ...]", _METHODS))
    sides = choice(sides, "sides", cast("tuple[Any, ...]", ("one", "two")))
    delta = real(delta, "delta", low=0.0, high=1.0, low_open=True, high_open=True)
    valid = array[~np.isnan(array)]
    if len(valid) < 2:
        raise ValueError(f"`values` must hold at least 2 valid rewards, for the std needs two; got {len(valid)}")
    span = None if reward_range is None else check_range(reward_range)
    if span is not None:
        require_inside(array, span, "values")
    if method in CERTIFIED:
        return _certified(valid, method, span, delta, sides, "values")
    std = float(finite_moments(valid[None], "values").std[0])
    each = delta / 2 if sides == "two" else delta
    if method == "chi2":
        return _interval_result(std, _chi2(std, len(valid), each), "chi2", delta, sides, len(valid))
    if each >= 0.5:
        raise ValueError(f"`delta` must be below 1/2 for the bootstrap with sides 'one'; got {delta!r}")
    generator, seed = as_generator(rng)
    ends, reason = _bootstrap(valid, each, generator)
    return _interval_result(std, ends, "bootstrap", delta, sides, len(valid), reason=reason, seed=seed)


def _one_row(values: Any, name: str) -> Floats:
    rows, single = reward_rows(values, name)
    if not single:
        raise ValueError(f"`{name}` must be rewards (n,) of one prompt; got shape {rows.shape}")
    row: Floats = rows[0]
    return row


def _certified(
    valid: Floats, method: Certified, span: tuple[float, float] | None, delta: float, sides: str, name: str
) -> StdInterval:
    if span is None:
        raise ValueError(f"`reward_range` is required by {method!r}: pass the ends of all possible rewards; got None")
    if method == "binary_exact":
        require_ends(valid, span)
    found = row_bounds(valid[None], method=method, reward_range=span, delta=delta, two=sides == "two", name=name)
    each = delta / 2 if sides == "two" else delta
    radius = float(unit_radius(found.count, each)[0]) * (span[1] - span[0]) if method == "maurer_pontil" else math.nan
    ends = float(found.lower[0]), float(found.upper[0])
    return _interval_result(float(found.std[0]), ends, method, delta, sides, len(valid), radius=radius, span=span)


def _interval_result(
    std: float,
    ends: tuple[float, float],
    method: str,
    delta: float,
    sides: str,
    n: int,
    *,
    radius: float = math.nan,
    reason: str | None = None,
    seed: int | None = None,
    span: tuple[float, float] | None = None,
) -> StdInterval:
    together = "together" if sides == "two" else "each on its own"
    text = f"{n} rollouts with std {std:.4g}: no bounds, {reason}."
    if reason is None:
        text = f"{n} rollouts with std {std:.4g}: {ends[0]:.4g} to {ends[1]:.4g}, {together} at {1 - delta:.4g}."
        if span is not None and ends == (0.0, (span[1] - span[0]) / 2):
            text += " That is the whole range: these rollouts certify nothing."
    return StdInterval(
        std=std,
        lower=ends[0],
        upper=ends[1],
        radius=radius,
        method=method,
        delta=delta,
        sides=sides,
        reason=reason,
        explanation=text,
        meta=Meta(
            definition="bounds of the standard deviation of the reward of one prompt",
            ddof=1,
            units="reward",
            n=n,
            seed=seed,
            details={} if span is None else {"reward range": f"{span[0]:g} to {span[1]:g}"},
        ),
    )


def _chi2(std: float, n: int, delta: float) -> tuple[float, float]:
    from scipy.special import gammainccinv, gammaincinv

    if std == 0.0:
        return 0.0, 0.0
    half = (n - 1) / 2
    with np.errstate(divide="ignore", over="ignore"):  # a quantile may underflow to 0: the bound is infinite then
        upper = std * np.sqrt(half / np.float64(gammaincinv(half, delta)))
        lower = std * np.sqrt(half / np.float64(gammainccinv(half, delta)))
    return float(lower), float(upper)


def _bootstrap(valid: Floats, delta: float, rng: np.random.Generator) -> tuple[tuple[float, float], str | None]:
    none = (math.nan, math.nan)
    base = float(valid.min())
    scale = float(valid.max()) - base
    if scale == 0.0:
        return none, "all rewards are equal, so that every resample is"
    if len(valid) < 3:
        return none, "the bootstrap needs at least 3 rewards"
    from scipy.stats import DegenerateDataWarning, bootstrap

    # scipy warns where BCa is degenerate; here that is said as a reason
    with without_warnings(DegenerateDataWarning), np.errstate(all="ignore"):
        found = bootstrap(
            ((valid - base) / scale,),
            lambda rows, axis: np.std(rows, axis=axis, ddof=1),
            n_resamples=_RESAMPLES,
            batch=max(1, (1 << 22) // len(valid)),
            confidence_level=1.0 - 2.0 * delta,
            method="BCa",
            rng=rng,
        ).confidence_interval
    low, high = float(found.low) * scale, float(found.high) * scale
    if math.isnan(low) or math.isnan(high):
        return none, "BCa is degenerate on these rewards"
    return (low, high), None


class SequentialStd:
    r"""Draw rollouts of one prompt until its spread is known to be at most tau, or above it.

    Parameters
    ----------
    tau : float
        Threshold of the standard deviation, in reward units, >= 0.
    reward_range : tuple of float
        Ends (lo, hi) of all possible rewards.
    delta : float
        Probability of ever deciding wrongly, in (0, 1).
    max_rollouts : int
        Where to give up, >= 2.
    method : {"maurer_pontil", "self_bounding", "binary_exact"}
        Interval of each look; see `std_interval`.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of its bounds.

    Notes
    -----
    Looks at n = 8, 16, 32, ... and at `max_rollouts`; look j spends delta_j = 6 delta / (pi^2 j^2), half on each bound.
    These add up to at most delta, so that with independent rollouts all looked-at intervals hold together with
    probability 1 - delta (union bound, derived here). A reward range of 1, delta = .05 and a gap g between sigma and
    tau need about 2 ln(2/delta_j) / g^2 rollouts with "maurer_pontil". Rewards of 0 and 1 at p = 1/2 and tau = .35 were
    decided after 1024, 256 and 32 rollouts by the three methods (median of 2000 streams,
    reproductions/rewards_certified.py). Batches may have any size: the rule looks at the same prefixes of the stream,
    whatever the batches. NaN rewards are dropped and do not count. Memory O(max_rollouts).

    Examples
    --------
    >>> from rankdiag.rewards import SequentialStd
    >>> rule = SequentialStd(0.2, reward_range=(0, 1), max_rollouts=1024, method="binary_exact")
    >>> rule.update([0.0] * 8), rule.update([0.0] * 300)
    ('continue', 'low')
    """

    def __init__(
        self,
        tau: float,
        *,
        reward_range: tuple[float, float],
        delta: float = 0.05,
        max_rollouts: int,
        method: Certified = "maurer_pontil",
    ) -> None:
        self.tau = real(tau, "tau", low=0.0)
        self.reward_range = check_range(reward_range)
        self.delta = real(delta, "delta", low=0.0, high=1.0, low_open=True, high_open=True)
        self.max_rollouts = integer(max_rollouts, "max_rollouts", low=2)
        self.method: Certified = choice(method, "method", CERTIFIED)
        self._rewards: list[Floats] = []
        self._count = 0
        self._looks = 0
        self._state: State = "continue"
        self._interval: StdInterval | None = None

    def __repr__(self) -> str:
        return f"SequentialStd(tau={self.tau:g}, {self._state!r} after {self._count} rollouts)"

    @property
    def state(self) -> State:
        """Where the rule stands: "low", "high" and "exhausted" are final."""
        return self._state

    @property
    def count(self) -> int:
        """Rewards taken so far, without those that could not be scored or came after the end."""
        return self._count

    @property
    def looks(self) -> int:
        """Looks taken so far."""
        return self._looks

    @property
    def interval(self) -> StdInterval:
        """Two-sided interval of the last look, with its delta_j; before the first, all that is possible."""
        if self._interval is not None:
            return self._interval
        low, high = self.reward_range
        first = min(_FIRST_LOOK, self.max_rollouts)
        return _interval_result(
            math.nan,
            (0.0, (high - low) / 2),
            self.method,
            self.delta,
            "two",
            self._count,
            reason=f"no look yet: the first is at {first} rewards",
        )

    def update(self, rewards: Any) -> State:
        """Take more rewards, in the order in which they were drawn.

        Parameters
        ----------
        rewards : array-like or torch.Tensor, shape (n,)
            Of the same prompt; NaN is dropped. After a final state they are checked and ignored.

        Returns
        -------
        {"low", "high", "continue", "exhausted"}
            The state after them.

        Raises
        ------
        TypeError
            If they are no rewards.
        ValueError
            If they are not 1-D, empty, infinite or outside the range, or no end of it with "binary_exact".
        """
        array = _one_row(rewards, "rewards")
        require_inside(array, self.reward_range, "rewards")
        valid = array[~np.isnan(array)]
        if self.method == "binary_exact":
            require_ends(valid, self.reward_range)
        while len(valid) and self._state == "continue":
            target = min(_FIRST_LOOK << self._looks, self.max_rollouts)
            part, valid = valid[: target - self._count], valid[target - self._count :]
            self._rewards.append(part.copy())
            self._count += len(part)
            if self._count == target:
                self._look()
        return self._state

    def _look(self) -> None:
        self._looks += 1
        spent = 6.0 * self.delta / (math.pi * self._looks) ** 2
        seen = np.concatenate(self._rewards)
        self._rewards = [seen]
        self._interval = _certified(seen, self.method, self.reward_range, spent, "two", "rewards")
        if self._interval.upper <= self.tau:
            self._state = "low"
        elif self._interval.lower > self.tau:
            self._state = "high"
        elif self._count == self.max_rollouts:
            self._state = "exhausted"
        if self._state != "continue":
            self._rewards = []

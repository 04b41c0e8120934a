"""How sure a spread of rewards is: intervals for the standard deviation of one prompt, at one look or at many."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, real

__all__ = [
    "Bounds",
    "SequentialStd",
    "StdInterval",
    "check_range",
    "reward_array",
    "row_bounds",
    "row_std",
    "std_interval",
]

Floats = NDArray[np.float64]
Certified = Literal["maurer_pontil", "self_bounding", "binary_exact"]
State = Literal["low", "high", "continue", "exhausted"]

_CERTIFIED: tuple[Certified, ...] = ("maurer_pontil", "self_bounding", "binary_exact")
_METHODS = (*_CERTIFIED, "chi2", "bootstrap")
_RESAMPLES = 2000
_FIRST_LOOK = 8
_HALVINGS = 60  # of [0, 1/2]: below the spacing of float64


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


class Bounds(NamedTuple):
    """Readings of many rows at once: valid rewards, std (ddof=1), and its bounds; NaN below two valid rewards."""

    count: NDArray[np.int64]
    std: Floats
    lower: Floats
    upper: Floats


def check_range(value: Any) -> tuple[float, float]:
    """Check a pair (lo, hi) of finite ends with lo < hi and return it as floats."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != 2:
        raise TypeError(f"`reward_range` must be a pair (lo, hi); got {describe(value)}")
    low, high = real(value[0], "reward_range[0]"), real(value[1], "reward_range[1]")
    if not low < high or not math.isfinite(high - low):
        raise ValueError(f"`reward_range` must be a pair lo < hi with a finite difference; got ({low:g}, {high:g})")
    return low, high


def reward_array(values: Any, name: str, *, ndim: tuple[int, ...]) -> Floats:
    """Return rewards as float64 with NaN for what could not be scored; a RewardTable gives its values."""
    if hasattr(values, "prompt_ids"):
        values = values.values
    array = as_float64(values, name, finite=False, allow_empty=True, expected="an array of rewards")
    if array.ndim not in ndim:
        allowed = " or ".join(f"{axes}-D" for axes in ndim)
        raise ValueError(f"`{name}` must be {allowed}; got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"`{name}` must hold at least one reward; got shape {array.shape}")
    infinite = np.isinf(array)
    if infinite.any():
        place = np.unravel_index(int(infinite.argmax()), array.shape)
        where = f"row {place[0]}, column {place[1]}" if array.ndim == 2 else f"entry {place[0]}"
        raise ValueError(f"`{name}`: rewards contain +-inf at {where}; mark unscorable rollouts with NaN")
    return cast("Floats", array)


def require_inside(array: Floats, low: float, high: float, name: str) -> None:
    """Refuse rewards outside the range."""
    outside = (array < low) | (array > high)
    if outside.any():
        value = float(array[outside][0])
        raise ValueError(f"`reward_range` [{low:g}, {high:g}] must contain all rewards of `{name}`; got {value:.6g}")


def row_std(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return valid rewards and std (ddof=1) of each row; NaN below two valid rewards, exactly 0 where all are equal."""
    valid = ~np.isnan(values)
    count = valid.sum(axis=-1)
    top = np.where(valid, values, -np.inf).max(axis=-1)
    low = np.where(valid, values, np.inf).min(axis=-1)
    scale = np.where(count > 0, np.maximum(np.abs(top), np.abs(low)), 1.0)
    scale = np.where(scale > 0, scale, 1.0)
    unit = np.where(valid, values / scale[..., None], 0.0)  # in [-1, 1], so that squares neither overflow nor vanish
    mean = unit.sum(axis=-1) / np.maximum(count, 1)
    centred = np.where(valid, unit - mean[..., None], 0.0)
    square = (centred**2).sum(axis=-1) - centred.sum(axis=-1) ** 2 / np.maximum(count, 1)
    with np.errstate(over="ignore"):  # two rewards near the end of float64 have a std beyond it
        std = np.sqrt(np.maximum(square, 0.0) / np.maximum(count - 1, 1)) * scale
    return count, np.where(count < 2, np.nan, np.where(top == low, 0.0, std))


def row_bounds(
    values: Floats, *, method: Certified, reward_range: tuple[float, float], delta: float, two: bool
) -> Bounds:
    """Return certified bounds of the std of every row.

    Parameters
    ----------
    values : ndarray of float64, shape (N, k)
        Rewards inside the range, NaN where unscorable.
    method : {"maurer_pontil", "self_bounding", "binary_exact"}
        Certified ones only; for "binary_exact" every reward is an end of the range.
    reward_range : tuple of float
        Ends (lo, hi).
    delta : float
        Error probability of each row, in (0, 1).
    two : bool
        Whether both bounds hold together (delta / 2 on each) or each on its own.

    Returns
    -------
    Bounds
        NaN for rows with fewer than two valid rewards.

    Notes
    -----
    Time and memory O(N k).
    """
    low, high = reward_range
    width = high - low
    each = delta / 2 if two else delta
    if method == "binary_exact":
        count, std = row_std(values)
        successes = (values == high).sum(axis=-1)
        lower, upper = _binary_bounds(np.minimum(successes, count - successes), count, each, two)
    else:
        count, std = row_std((values - low) / width)
        with np.errstate(invalid="ignore"):  # NaN rows stay NaN
            lower, upper = _tail_bounds(std, _radius(count, each), method)
        std = std * width
    few = count < 2
    lower, upper = (np.where(few, np.nan, bound * width) for bound in (lower, upper))
    return Bounds(count, std, lower, upper)


def _radius(count: NDArray[np.int64], delta: float) -> Floats:
    """Return sqrt(2 ln(1/delta) / (n - 1)), for rewards in [0, 1]."""
    return cast("Floats", np.sqrt(-2.0 * math.log(delta) / np.maximum(count - 1, 1)))


def _tail_bounds(std: Floats, radius: Floats, method: Certified) -> tuple[Floats, Floats]:
    """Turn the two tails of the sample variance of rewards in [0, 1] into bounds of the standard deviation."""
    if method == "maurer_pontil":
        lower, upper = std - radius, std + radius
    else:
        upper = radius / 2 + np.sqrt(std**2 + radius**2 / 4)
        # (V + r^2/4)^2 - r^2 (V + r^2/16) = V (V - r^2/2): the difference without cancellation
        total = std**2 + radius**2 / 4 + radius * np.sqrt(std**2 + radius**2 / 16)
        lower = std * np.sqrt(np.maximum(std**2 - radius**2 / 2, 0.0) / total)
    return np.clip(lower, 0.0, 0.5), np.clip(upper, 0.0, 0.5)


def _binary_bounds(
    rarer: NDArray[np.int64], count: NDArray[np.int64], delta: float, two: bool
) -> tuple[Floats, Floats]:
    """Bound sqrt(p(1-p)) from how often the rarer of two rewards was seen; `delta` is that of one side."""
    from scipy.special import betaincinv

    m, n = rarer.astype(np.float64), np.maximum(count, 1).astype(np.float64)
    low = np.where(m > 0, betaincinv(np.maximum(m, 1.0), n - m + 1.0, delta), 0.0)
    # the other end p_U is never above 1 - p_L, so that the smaller end of the map is always that of p_L
    high = betaincinv(m + 1.0, np.maximum(n - m, 1.0), 1.0 - delta) if two else _folded_upper(m, n, delta)
    high = np.minimum(high, 0.5)
    return np.sqrt(low * (1.0 - low)), np.sqrt(high * (1.0 - high))


def _folded_upper(m: Floats, n: Floats, delta: float) -> Floats:
    """Return the largest q <= 1/2 under which the rarer reward comes up at most m times with probability >= delta."""
    from scipy.special import bdtr, bdtrc

    def chance(q: Floats) -> Floats:  # of m or fewer, or of n - m or more; the two meet where 2m >= n
        both = bdtr(m, n, q) + bdtrc(np.maximum(n - m - 1.0, 0.0), n, q)
        return cast("Floats", np.where(2 * m >= n - 1, 1.0, both))

    low, high = np.zeros_like(m), np.full_like(m, 0.5)
    open_ended = chance(high) >= delta
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = chance(middle) >= delta
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(open_ended, 0.5, high)


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
        See Notes. The first three are certified: they hold at every n.
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
        If there are fewer than two valid rewards, the range is missing or does not contain them, or an option is not
        in its list.

    Notes
    -----
    With r = (hi - lo) sqrt(2 ln(1/delta) / (n - 1)), clipped to [0, (hi - lo)/2]:

    * "maurer_pontil": s - r and s + r ([MP] Theorem 10). At hi - lo = 1, delta = .05, r is .816 at n = 10 and .153 at
      n = 256: ten rollouts never certify a small spread.
    * "self_bounding": the two tails of s^2 behind that theorem ([MP] Theorem 7), solved for sigma without its last
      relaxation (derived here): upper r/2 + sqrt(s^2 + r^2/4); lower^2 = s^2 + r^2/4 - r sqrt(s^2 + r^2/16), 0 where
      s^2 <= r^2/2. Never wider than "maurer_pontil", and half as wide where s is well above r.
    * "binary_exact": rewards are lo or hi only; Clopper-Pearson ends of p mapped through (hi - lo) sqrt(p(1-p)). With
      sides "one" the upper bound folds both tails together (derived here): p near 1/2 can be missed on either side, so
      the map of two one-sided ends would fail with probability up to 2 delta.
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
    array = reward_array(values, "values", ndim=(1,))
    method = choice(method, "method", cast("tuple[Any, ...]", _METHODS))
    sides = choice(sides, "sides", cast("tuple[Any, ...]", ("one", "two")))
    delta = real(delta, "delta", low=0.0, high=1.0, low_open=True, high_open=True)
    valid = array[~np.isnan(array)]
    if len(valid) < 2:
        raise ValueError(f"`values` must hold at least 2 valid rewards, for the std needs two; got {len(valid)}")
    span = None if reward_range is None else check_range(reward_range)
    if span is not None:
        require_inside(array, *span, "values")
    if method in _CERTIFIED:
        return _certified(valid, cast("Certified", method), span, delta, sides)
    std = float(row_std(valid[None])[1][0])
    each = delta / 2 if sides == "two" else delta
    if method == "chi2":
        return _interval_result(std, _chi2(std, len(valid), each), "chi2", delta, sides, len(valid))
    if each >= 0.5:
        raise ValueError(f"`delta` must be below 1/2 for the bootstrap with sides 'one'; got {delta!r}")
    generator, seed = as_generator(rng)
    ends, reason = _bootstrap(valid, each, generator)
    return _interval_result(std, ends, "bootstrap", delta, sides, len(valid), reason=reason, seed=seed)


def _certified(
    valid: Floats, method: Certified, span: tuple[float, float] | None, delta: float, sides: str
) -> StdInterval:
    if span is None:
        raise ValueError(f"`reward_range` is required by {method!r}: pass the ends of all possible rewards; got None")
    if method == "binary_exact":
        require_ends(valid, span)
    found = row_bounds(valid[None], method=method, reward_range=span, delta=delta, two=sides == "two")
    each = delta / 2 if sides == "two" else delta
    radius = float(_radius(found.count, each)[0]) * (span[1] - span[0]) if method == "maurer_pontil" else math.nan
    ends = float(found.lower[0]), float(found.upper[0])
    return _interval_result(float(found.std[0]), ends, method, delta, sides, len(valid), radius=radius, span=span)


def require_ends(valid: Floats, span: tuple[float, float]) -> None:
    """Refuse rewards that are neither end of the range."""
    between = (valid != span[0]) & (valid != span[1])
    if between.any():
        raise ValueError(
            f"'binary_exact' needs rewards that are {span[0]:g} or {span[1]:g}, the ends of `reward_range`; got "
            f"{float(valid[between][0]):.6g}. Use 'maurer_pontil'"
        )


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
            details={} if span is None else {"reward range": list(span)},
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
    if valid.min() == valid.max():
        return none, "all rewards are equal, so that every resample is"
    if len(valid) < 3:
        return none, "the bootstrap needs at least 3 rewards"
    from scipy.stats import bootstrap

    scale = float(np.abs(valid).max())
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # scipy warns where BCa is degenerate; said as a reason
        warnings.simplefilter("ignore")
        found = bootstrap(
            (valid / scale,),
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
    These add up to at most delta, so that all looked-at intervals hold together with probability 1 - delta (union
    bound, derived here). A reward range of 1, delta = .05 and a gap g between sigma and tau need about
    2 ln(2/delta_j) / g^2 rollouts with "maurer_pontil". Batches may have any size: the rule looks at the same prefixes
    of the stream, whatever the batches. NaN rewards are dropped and do not count. Memory O(max_rollouts).

    Examples
    --------
    >>> from rankdiag.rewards import SequentialStd
    >>> rule = SequentialStd(0.2, reward_range=(0, 1), max_rollouts=1024, method="binary_exact")
    >>> rule.update([0.0] * 8), rule.update([0.0] * 150)
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
        self.method = choice(method, "method", _CERTIFIED)
        self._rewards: list[Floats] = []
        self._count = 0
        self._looks = 0
        self._state: State = "continue"
        self._interval: StdInterval | None = None

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
        found = _interval_result(
            math.nan,
            (0.0, (high - low) / 2),
            self.method,
            self.delta,
            "two",
            self._count,
            reason=f"no look yet: the first is at {first} rewards",
        )
        return found

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
            If they are not 1-D, infinite or outside the range, or no end of it with "binary_exact".
        """
        array = reward_array(rewards, "rewards", ndim=(1,))
        require_inside(array, *self.reward_range, "rewards")
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
        self._interval = _certified(seen, self.method, self.reward_range, spent, "two")
        if self._interval.upper <= self.tau:
            self._state = "low"
        elif self._interval.lower > self.tau:
            self._state = "high"
        elif self._count == self.max_rollouts:
            self._state = "exhausted"
        if self._state != "continue":
            self._rewards = []

"""Certified bounds of the standard deviation of rewards, for many prompts at once; the arithmetic alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe, real
from rankdiag.rewards._moments import RowMoments, row_moments
from rankdiag.rewards._table import RewardTable, as_table

__all__ = [
    "CERTIFIED",
    "Bounds",
    "Certified",
    "at_ends",
    "check_range",
    "finite_moments",
    "require_ends",
    "require_inside",
    "reward_rows",
    "row_bounds",
    "unit_radius",
]

Floats = NDArray[np.float64]
Certified = Literal["maurer_pontil", "self_bounding", "binary_exact"]

CERTIFIED: tuple[Certified, ...] = ("maurer_pontil", "self_bounding", "binary_exact")

_HALVINGS = 60  # of [0, 1/2]: below the spacing of float64


@dataclass(frozen=True, slots=True)
class Bounds:
    """Readings of many prompts: scored rewards, std (ddof=1) and its bounds; NaN below two scored rewards."""

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


def reward_rows(values: Any, name: str) -> tuple[Floats, bool]:
    """Return rewards as rows (N, k), NaN for what could not be scored, and whether one plain row (k,) came in."""
    if isinstance(values, (list, tuple)):
        single = not any(isinstance(entry, (list, tuple)) or getattr(entry, "ndim", 0) for entry in values)
        return as_table([values] if single else values, name).values, single
    if isinstance(values, RewardTable):
        return values.values, False
    array = as_float64(values, name, finite=False, allow_empty=True, expected="rewards")
    if array.ndim not in (1, 2):
        raise ValueError(f"`{name}` must be rewards (k,) or (N, k); got shape {array.shape}")
    return as_table(array[None] if array.ndim == 1 else array, name).values, array.ndim == 1


def require_inside(array: Floats, span: tuple[float, float], name: str) -> None:
    """Refuse rewards outside the range."""
    outside = (array < span[0]) | (array > span[1])
    if outside.any():
        value = float(array[outside][0])
        raise ValueError(
            f"`reward_range` [{span[0]:g}, {span[1]:g}] must contain all rewards of `{name}`; got {value:.6g}"
        )


def at_ends(array: Floats, span: tuple[float, float]) -> bool:
    """Whether every scored reward is an end of the range."""
    return bool(((array == span[0]) | (array == span[1]) | np.isnan(array)).all())


def require_ends(array: Floats, span: tuple[float, float]) -> None:
    """Refuse rewards that are neither end of the range."""
    if not at_ends(array, span):
        between = array[(array != span[0]) & (array != span[1]) & ~np.isnan(array)]
        raise ValueError(
            f"'binary_exact' needs rewards that are {span[0]:g} or {span[1]:g}, the ends of `reward_range`; got "
            f"{float(between[0]):.6g}. Use 'maurer_pontil'"
        )


def finite_moments(values: Floats, name: str) -> RowMoments:
    """Return the moments of each row; refuse differences whose squares float64 cannot hold."""
    found = row_moments(values)
    if (np.isinf(found.var) | np.isinf(found.mean)).any():
        raise ValueError(f"`{name}` must have differences whose squares float64 can hold; scale the rewards down")
    return found


def row_bounds(
    values: Floats, *, method: Certified, reward_range: tuple[float, float], delta: float, two: bool, name: str
) -> Bounds:
    """Return certified bounds of the std of every row.

    Parameters
    ----------
    values : ndarray of float64, shape (N, k)
        Rewards inside the range, NaN where unscorable.
    method : {"maurer_pontil", "self_bounding", "binary_exact"}
        For "binary_exact" every reward is an end of the range.
    reward_range : tuple of float
        Ends (lo, hi).
    delta : float
        Error probability of each row, in (0, 1).
    two : bool
        Whether both bounds hold together (delta / 2 on each) or each on its own.
    name : str
        Name of the argument in messages.

    Returns
    -------
    Bounds
        NaN for rows with fewer than two scored rewards.

    Notes
    -----
    Time and memory O(N k).
    """
    low, high = reward_range
    width = high - low
    each = delta / 2 if two else delta
    found = finite_moments(values, name)
    count, std = found.count, found.std
    if method == "binary_exact":
        successes = (values == high).sum(axis=-1)
        lower, upper = _binary_bounds(np.minimum(successes, count - successes), count, each, two)
    else:
        with np.errstate(invalid="ignore"):  # NaN rows stay NaN
            lower, upper = _tail_bounds(std / width, unit_radius(count, each), method)
    few = count < 2
    lower, upper = (np.where(few, np.nan, bound * width) for bound in (np.minimum(lower, upper), upper))
    return Bounds(count, std, lower, upper)


def unit_radius(count: NDArray[np.int64], delta: float) -> Floats:
    """Return sqrt(2 ln(1/delta) / (n - 1)), for rewards in [0, 1]."""
    return np.asarray(np.sqrt(-2.0 * math.log(delta) / np.maximum(count - 1, 1)))


def _tail_bounds(std: Floats, radius: Floats, method: Certified) -> tuple[Floats, Floats]:
    """Turn the two tails of the sample variance V of rewards in [0, 1] into bounds of the standard deviation sigma.

    With prob. 1 - delta each: sigma^2 - V <= r sigma, and V - sigma^2 <= r^2/4 + r sqrt(sigma^2 + r^2/16).
    """
    if method == "maurer_pontil":
        lower, upper = std - radius, std + radius
    else:
        upper = radius / 2 + np.sqrt(std**2 + radius**2 / 4)
        # (V + r^2/4)^2 - r^2 (V + r^2/16) = V (V - r^2/2): the difference without cancellation
        total = std**2 + radius**2 / 4 + radius * np.sqrt(std**2 + radius**2 / 16)
        total = np.where(total > 0, total, 1.0)  # no spread and no radius left in float64
        lower = std * np.sqrt(np.maximum(std**2 - radius**2 / 2, 0.0) / total)
    return np.clip(lower, 0.0, 0.5), np.clip(upper, 0.0, 0.5)


def _binary_bounds(
    rarer: NDArray[np.int64], count: NDArray[np.int64], delta: float, two: bool
) -> tuple[Floats, Floats]:
    """Bound sqrt(p(1-p)) from how often the rarer of two rewards was seen; `delta` is that of one side."""
    from scipy.special import betainccinv, betaincinv

    pairs, place = np.unique(np.stack((rarer, np.maximum(count, 1))), axis=1, return_inverse=True)
    m, n = pairs.astype(np.float64)
    low = np.where(m > 0, betaincinv(np.maximum(m, 1.0), n - m + 1.0, delta), 0.0)
    # the other end p_U is never above 1 - p_L, so that the smaller end of the map is always that of p_L
    high = betainccinv(m + 1.0, n - m, delta) if two else _folded_upper(m, n, delta)
    ends = np.stack((low, np.minimum(high, 0.5)))
    lower, upper = np.sqrt(ends * (1.0 - ends))[:, place.reshape(-1)]
    return lower, upper


def _folded_upper(m: Floats, n: Floats, delta: float) -> Floats:
    """Return the largest q <= 1/2 under which the rarer reward comes up at most m times with probability >= delta.

    That probability, P(S <= m) + P(S >= n - m) for S ~ Bin(n, q), falls in q: its derivative is n C(n-1, m) times
    q^(n-m-1) (1-q)^m - q^m (1-q)^(n-m-1), which is not positive for q <= 1/2 and 2m <= n - 1.
    """
    from scipy.special import betainc

    low, high = np.zeros_like(m), np.full_like(m, 0.5)
    always = 2 * m >= n - 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = betainc(n - m, m + 1.0, 1.0 - middle) + betainc(n - m, m + 1.0, middle) >= delta
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(always, 0.5, high)

"""Groups without spread at every size: unbiased up to the rollouts that were drawn, a model beyond them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag.rewards._std_bounds import at_ends
from rankdiag.rewards._zero_std import beta_binomial_zero_std, fit_beta, level_counts, subset_shares

__all__ = ["ZeroStdCurve", "zero_std_curve"]

Floats = NDArray[np.float64]

_CELLS = 1 << 19  # rewards that are looked at: the standard error over so many prompts is below what a plot shows
_SIZES = 48  # group sizes of the curve
_BEYOND = 8  # times the largest group seen, to which a model is followed,
_LARGEST = 1_000_000  # and at most to this size, for each costs as much as its size
_MODEL = 13  # sizes of that part


class ZeroStdCurve(NamedTuple):
    """Share of groups without spread by group size.

    Attributes
    ----------
    seen : tuple of (k, mean, standard error, prompts)
        For sizes up to the rollouts of a prompt.
    beyond : tuple of (k, share)
        Under a Beta distribution of success rates; empty where rewards have not two values, or it cannot be fitted.
    beta : tuple of (a, b) or None
        Of that distribution.
    """

    seen: tuple[tuple[float, float, float, float], ...]
    beyond: tuple[tuple[float, float], ...]
    beta: tuple[float, float] | None


def zero_std_curve(
    values: Floats, count: NDArray[np.int64], ends: tuple[float, float], also: tuple[int, ...] = ()
) -> ZeroStdCurve:
    """Return how often k rollouts of a prompt all have one reward, for k = 1, 2, ...

    Parameters
    ----------
    values : ndarray of float64, shape (N, k)
        Rewards, NaN where there is none.
    count : ndarray of int64, shape (N,)
        Rewards of each prompt.
    ends : tuple of float
        Lowest and highest reward.
    also : tuple of int
        Sizes that are wanted beside those of the curve.

    Returns
    -------
    ZeroStdCurve
        At size k over the prompts with at least k rewards. Of more than half a million rewards, evenly spaced prompts.

    Notes
    -----
    The mean of `zero_std_at_k` over prompts, with its standard error over prompts, for all sizes from one sort; at
    most 48 sizes, evenly spaced in log k where there are more. O(N k log k) for at most half a million rewards.
    """
    step = max(1, math.ceil(values.size / _CELLS))
    use = np.flatnonzero(count >= 2)[::step]
    if not len(use):
        return ZeroStdCurve((), (), None)
    rows, drawn = values[use], count[use]
    level, row = level_counts(rows, drawn)
    top = int(drawn.max())
    seen = []
    for size in sorted({*_sizes(1, top, _SIZES), *(size for size in also if size <= top)}):
        enough = level >= size
        level, row = level[enough], row[enough]
        shares = np.minimum(subset_shares(level, row, drawn, size, rows.shape[1]), 1.0)
        here = shares[drawn >= size] if size > 1 else np.ones(len(drawn))
        n = len(here)
        error = float(here.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        seen.append((float(size), float(here.mean()), error, float(n)))
    beta = _fitted(rows, drawn, ends)
    if beta is None:
        return ZeroStdCurve(tuple(seen), (), None)
    last = min(_BEYOND * top, _LARGEST)
    wanted = sorted({*(_sizes(top, last, _MODEL) if top < last else ()), *(size for size in also if size > top)})
    beyond = tuple((float(k), beta_binomial_zero_std(*beta, k)) for k in wanted)
    return ZeroStdCurve(tuple(seen), beyond, beta)


def _sizes(first: int, last: int, most: int) -> list[int]:
    """Return whole numbers from first to last: all, or at most so many, evenly spaced in their logarithm."""
    if last - first < most:
        return list(range(first, last + 1))
    return sorted({round(size) for size in np.geomspace(first, last, most).tolist()})


def _fitted(rows: Floats, count: NDArray[np.int64], ends: tuple[float, float]) -> tuple[float, float] | None:
    low, high = ends
    if low == high or not at_ends(rows, ends):
        return None
    a, b, edge = fit_beta((rows == high).sum(axis=1), count)
    return None if edge else (a, b)

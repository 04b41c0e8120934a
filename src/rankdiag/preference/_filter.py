"""Which pairs to keep: the lowest scores, all but the highest, or a window around a quantile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe, integer, real, string

__all__ = ["drop_highest", "keep_lowest", "quantile_window"]

Indices = NDArray[np.int64]

_ROUNDING = 1e-9  # of a count: 0.1 * 30 is 3.0000000000000004 and must keep 3


def keep_lowest(
    scores: Any, *, fraction: float | None = None, n: int | None = None, by: str = "ln_ches"
) -> NDArray[np.int64]:
    """Return the pairs with the lowest scores, in the order of the dataset.

    Parameters
    ----------
    scores : array-like of shape (N,), or PreferenceScores
        Higher means more displacement. NaN is never kept; of a `PreferenceScores` neither is a pair that is unusable,
        nor one whose two responses are identical, whatever its score.
    fraction : float, optional
        Share of the valid pairs to keep, in (0, 1]; rounded up, at least one.
    n : int, optional
        Number of pairs to keep, at least 1; all if there are fewer. Exactly one of `fraction` and `n` is given.
    by : str
        Column of a `PreferenceScores`.

    Returns
    -------
    ndarray of int64
        Positions in the dataset, ascending; ties of scores go to the earlier pair.

    Raises
    ------
    TypeError
        If not exactly one of `fraction` and `n` is given, or an argument has the wrong type.
    ValueError
        If it is out of range, the column is unknown, or no score is valid.

    References
    ----------
    arXiv 2410.08847, section 6: training on the 5 % of pairs with the lowest length-normalised CHES score.

    Examples
    --------
    >>> from rankdiag.preference import keep_lowest
    >>> keep_lowest([0.3, float("nan"), -1.0, 0.3], n=2).tolist()
    [0, 2]
    """
    order = _order(_values(scores, by))
    return np.sort(order[: _count(fraction, n, len(order))])


def drop_highest(
    scores: Any, *, fraction: float | None = None, n: int | None = None, by: str = "ln_ches"
) -> NDArray[np.int64]:
    """Return all valid pairs but those with the highest scores, in the order of the dataset.

    Parameters
    ----------
    scores : array-like of shape (N,), or PreferenceScores
        See `keep_lowest`.
    fraction : float, optional
        Share of the valid pairs to drop, in (0, 1]; rounded up, at least one.
    n : int, optional
        Number of pairs to drop, at least 1.
    by : str
        Column of a `PreferenceScores`.

    Returns
    -------
    ndarray of int64
        Positions in the dataset, ascending, perhaps none; of equal scores the later pair is dropped first.

    Raises
    ------
    TypeError
        If not exactly one of `fraction` and `n` is given, or an argument has the wrong type.
    ValueError
        If it is out of range, the column is unknown, or no score is valid.

    Examples
    --------
    >>> from rankdiag.preference import drop_highest
    >>> drop_highest([0.3, float("nan"), -1.0, 0.3], n=1).tolist()
    [0, 2]
    """
    order = _order(_values(scores, by))
    return np.sort(order[: len(order) - _count(fraction, n, len(order))])


def quantile_window(scores: Any, q: float, num: int, *, by: str = "ln_ches") -> NDArray[np.int64]:
    """Return the pairs around a quantile of the scores, in ascending order of score.

    Parameters
    ----------
    scores : array-like of shape (N,), or PreferenceScores
        See `keep_lowest`; pairs without a valid score are left out of N.
    q : float
        Quantile in [0, 1]: 0 takes the lowest pairs, 1 the highest.
    num : int
        How many pairs; all if there are fewer. The window begins num // 2 places below place q (N - 1), halves to even,
        and is moved inside.
    by : str
        Column of a `PreferenceScores`.

    Returns
    -------
    ndarray of int64
        Positions in the dataset, ``min(num, N)`` of them.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If it is out of range, the column is unknown, or no score is valid.

    References
    ----------
    arXiv 2410.08847, figure 2: windows of 512 pairs around five percentiles.

    Examples
    --------
    >>> from rankdiag.preference import quantile_window
    >>> quantile_window([5.0, 1.0, 4.0, 2.0, 3.0], 0.5, 3).tolist()
    [3, 4, 2]
    """
    place = real(q, "q", low=0.0, high=1.0)
    count = integer(num, "num", low=1)
    order = _order(_values(scores, by))
    centre = _nearest(place * (len(order) - 1))
    start = max(0, min(max(0, centre - count // 2), len(order) - count))
    return order[start : start + count]


def _nearest(value: float) -> int:
    """Round halves to even, also those that a quantile such as 15/22 misses by its own rounding."""
    low = math.floor(value)
    return low + low % 2 if abs(value - low - 0.5) <= _ROUNDING else round(value)


def _values(scores: Any, by: str) -> NDArray[np.float64]:
    column = string(by, "by")
    table = getattr(scores, "scores", None)
    if table is None:
        return as_float64(scores, "scores", ndim=1, finite=False, expected="one score for each pair")
    if column not in table:
        raise ValueError(f"`by` must be one of the columns {', '.join(table)}; got {describe(by)}")
    usable = np.array([word == "ok" for word in scores.status], dtype=bool)
    return np.where(usable, table[column], np.nan)


def _order(values: NDArray[np.float64]) -> Indices:
    """Return the valid positions by ascending score, ties by position."""
    valid = np.flatnonzero(~np.isnan(values))
    if not len(valid):
        raise ValueError("`scores` must have at least one pair with a score; all are NaN or unusable")
    return np.asarray(valid[np.argsort(values[valid], kind="stable")], dtype=np.int64)


def _count(fraction: float | None, n: int | None, valid: int) -> int:
    if (fraction is None) == (n is None):
        raise TypeError("exactly one of `fraction` and `n` must be given")
    if n is not None:
        return min(integer(n, "n", low=1), valid)
    share = real(fraction, "fraction", low=0.0, high=1.0, low_open=True)
    return max(1, math.ceil(valid * share - _ROUNDING))

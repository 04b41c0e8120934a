"""The largest fall of a probability over a run, and which runs kept learning: the statistic of the paper's tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64

__all__ = ["MaxDecrease", "max_decrease", "strictly_decreasing_loss"]


class MaxDecrease(NamedTuple):
    """Largest fall of each run.

    Attributes
    ----------
    start, end : ndarray of int64, shape (runs,)
        Steps between which it fell; 0 and 0 where it never did.
    drop : ndarray of float64, shape (runs,)
        By how much; 0 where it never did.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    drop: NDArray[np.float64]


def max_decrease(p: Any) -> MaxDecrease:
    """Find the largest fall of each run from an earlier to a later step.

    Parameters
    ----------
    p : array-like, shape (runs, steps + 1) or (steps + 1,)
        A probability, or anything else, at every step; entry 0 is before training.

    Returns
    -------
    MaxDecrease
        ``drop`` is the maximum over s <= t of p_s - p_t; of equal falls the one that ends first counts, and of those
        the one that starts first.

    Raises
    ------
    TypeError
        If `p` is no array of numbers.
    ValueError
        If it has not one or two axes, is empty, or holds NaN or infinity.

    Notes
    -----
    Time and memory O(runs * steps), by a running maximum. Tables 1 to 3 of arXiv 2410.08847 report it for runs whose
    loss decreased at every step, see `strictly_decreasing_loss`.

    Examples
    --------
    >>> from rankdiag.preference import max_decrease
    >>> result = max_decrease([0.5, 0.75, 0.25, 0.5])
    >>> result.start.tolist(), result.end.tolist(), result.drop.tolist()
    ([1], [2], [0.5])
    """
    runs = _runs(p, "p")
    peak = np.maximum.accumulate(runs, axis=1)
    # The step at which the running maximum was first reached: it only moves where the maximum strictly grows.
    fresh = np.empty(runs.shape, dtype=bool)
    fresh[:, 0] = True
    fresh[:, 1:] = runs[:, 1:] > peak[:, :-1]
    first = np.maximum.accumulate(np.where(fresh, np.arange(runs.shape[1]), 0), axis=1)
    with np.errstate(over="ignore"):
        fall = peak - runs
    if not np.isfinite(fall).all():
        raise ValueError("`p` must not fall by more than float64 can hold")
    end = fall.argmax(axis=1)
    rows = np.arange(len(runs))
    drop = fall[rows, end]
    fell = drop > 0
    return MaxDecrease(np.where(fell, first[rows, end], 0), end, drop)


def strictly_decreasing_loss(loss: Any) -> NDArray[np.bool_]:
    """Say which runs had a smaller loss after every step than before it.

    Parameters
    ----------
    loss : array-like, shape (runs, steps + 1) or (steps + 1,)
        Loss at every step; entry 0 is before training.

    Returns
    -------
    ndarray of bool, shape (runs,)
        To select runs with; True for a run without a step.

    Raises
    ------
    TypeError
        If `loss` is no array of numbers.
    ValueError
        If it has not one or two axes, is empty, or holds NaN or infinity.

    Examples
    --------
    >>> from rankdiag.preference import strictly_decreasing_loss
    >>> strictly_decreasing_loss([[3.0, 2.0, 1.0], [3.0, 2.0, 2.0]]).tolist()
    [True, False]
    """
    runs = _runs(loss, "loss")
    return np.asarray((runs[:, 1:] < runs[:, :-1]).all(axis=1))


def _runs(value: Any, name: str) -> NDArray[np.float64]:
    array = as_float64(value, name, min_ndim=1, expected="one row of steps for each run")
    if array.ndim > 2:
        raise ValueError(f"`{name}` must have one or two axes (runs, steps + 1); got shape {array.shape}")
    return np.atleast_2d(array)

"""How many multisets there are, as a logarithm: C(D + m - 1, m) for any width D and any number m, however large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_multisets", "times_log"]

Floats = NDArray[np.float64]

_DIRECT = 32  # up to here terms are added one by one; beyond, the series is exact to 2e-14


def log_multisets(width: Any, counts: NDArray[np.int64] | Sequence[int]) -> Floats:
    """Return ln C(width + m - 1, m), the number of multisets of m out of `width`, for every m.

    Parameters
    ----------
    width : int or ndarray of int64, shape (n,)
        Kinds to choose from, at least 1.
    counts : ndarray of int64 (n,) or sequence of int
        Sizes m >= 0; Python ints may have any size.

    Returns
    -------
    ndarray of float64, shape (n,)
        Natural logarithms, to a relative error of 1e-14; 0 where m is 0 or the width 1.

    Notes
    -----
    With a >= b the two numbers width - 1 and m, it is ln C(a + b, b): the sum of ln((a + k) / k) over k <= b while b is
    at most 32, Stirling's series with three terms beyond. No difference of large numbers is taken.

    Examples
    --------
    >>> from rankdiag.graphs._multisets import log_multisets
    >>> [round(float(x), 6) for x in log_multisets(3, [0, 1, 2, 10**400])]
    [0.0, 1.098612, 1.791759, 1841.374927]
    """
    size, log_size = _float_and_log(counts)
    kinds = np.broadcast_to(np.asarray(width, np.float64) - 1.0, size.shape)
    swap = size < kinds
    a = np.maximum(np.where(swap, kinds, size), 1.0)
    b = np.where(swap, size, kinds)
    log_a = np.where(swap, np.log(a), log_size)
    ratio = b / a  # 0 where a is beyond float64
    result = np.zeros(size.shape)
    few = (b > 0) & (b <= _DIRECT)
    for k in range(1, int(b[few].max(initial=0)) + 1):
        step = log_a - math.log(k) + np.log1p(k / a)
        result += np.where(few & (b >= k), step, 0.0)
    many = b > _DIRECT
    if many.any():
        result[many] = _stirling(a[many], b[many], log_a[many], ratio[many])
    return result


def _float_and_log(counts: NDArray[np.int64] | Sequence[int]) -> tuple[Floats, Floats]:
    """Return numbers as floats, infinity where they are beyond them, and ln max(m, 1)."""
    if isinstance(counts, np.ndarray) and counts.dtype != object:
        size = counts.astype(np.float64)
        return size, np.log(np.maximum(size, 1.0))
    size = np.array([_as_float(int(m)) for m in counts], dtype=np.float64)
    return size, np.array([math.log(m) if m > 1 else 0.0 for m in counts], dtype=np.float64)


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _stirling(a: Floats, b: Floats, log_a: Floats, ratio: Floats) -> Floats:
    """Return ln C(a + b, b) = a ln(1 + b/a) + b ln(1 + a/b) - ln(2 pi a b / (a + b)) / 2 + the rest of the series."""
    finite = np.isfinite(a)
    spread = np.log1p(ratio)
    first = np.where(finite, np.where(finite, a, 1.0) * spread, b)
    log_b = np.log(b)
    second = b * (log_a - log_b + spread)
    third = (spread - log_b - math.log(2 * math.pi)) / 2
    result: Floats = first + second + third + _rest(a + b) - _rest(a) - _rest(b)
    return result


def _rest(x: Floats) -> Floats:
    inverse = 1.0 / x
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def times_log(count: int, width: int) -> float:
    """Return ``count * ln(width)``; infinity where it is beyond float64."""
    if width == 1 or count == 0:
        return 0.0
    return _as_float(count) * math.log(width)

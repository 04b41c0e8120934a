"""The measures themselves: pure functions of descending singular values, over any leading axes.

Every function takes ``values`` of shape (..., k), float64, descending and not negative, and returns an array of shape
(...). Values are first divided by the largest one, so nothing overflows or underflows on the way; a spectrum of zeros
gives 0 everywhere.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bracketed_eps_rank",
    "count_above",
    "effective_rank",
    "eps_rank",
    "nuclear_ratio",
    "participation_ratio",
    "ratio",
    "relative",
    "renyi_entropy",
    "schatten_norm",
    "stable_rank",
    "tail_norms",
    "without_noise",
]

Floats = NDArray[np.float64]


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide where the denominator is positive; 0 elsewhere, which is what a spectrum of zeros reads."""
    out = np.zeros(np.broadcast_shapes(numerator.shape, denominator.shape))
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def relative(values: Floats) -> Floats:
    """Return the values divided by the largest; zeros stay zeros."""
    return ratio(values, values[..., :1])


def without_noise(values: Floats, bound: Floats) -> Floats:
    """Return the values with those below the error bound set to 0."""
    return np.where(values < np.asarray(bound)[..., None], 0.0, values)


def _log(x: Floats) -> Floats:
    """Logarithm of positive entries; 0 where the entry is 0, to be multiplied by that 0."""
    out = np.zeros_like(x)
    np.log(x, out=out, where=x > 0)
    return out


def _weights(values: Floats, energy: bool) -> tuple[Floats, Floats]:
    """Return (t, log t): what the probabilities are proportional to, largest entry 1."""
    t = relative(values)
    logs = _log(t)
    return (t * t, 2.0 * logs) if energy else (t, logs)


def effective_rank(values: Floats, energy: bool) -> Floats:
    """Return exp of the Shannon entropy of s/sum(s), or of s^2/sum(s^2)."""
    t, logs = _weights(values, energy)
    total = t.sum(axis=-1)
    # exp(H) = S * exp(-sum(t log t) / S): no rounding at all when all values are equal
    exact: Floats = total * np.exp(-ratio((t * logs).sum(axis=-1), total))
    return exact


def renyi_entropy(values: Floats, energy: bool, order: float) -> Floats:
    """Return the Renyi entropy of any order >= 0 (1 is Shannon, infinity the min-entropy), in nats."""
    t, logs = _weights(values, energy)
    alive = values > 0
    total = t.sum(axis=-1)
    log_total = _log(total)
    if order == 0.0:
        return _log(alive.sum(axis=-1).astype(np.float64))
    if math.isinf(order):
        return log_total
    if abs(order - 1.0) < 0.1:
        # sum p^a = 1 + sum p expm1((a - 1) log p): no cancellation as the order goes to 1
        log_p = logs - log_total[..., None]
        shift = order - 1.0
        gain = np.expm1(shift * log_p) / shift if shift else log_p
        deficit = ratio(np.where(alive, t * gain, 0.0).sum(axis=-1), total)
        near: Floats = -np.log1p(shift * deficit) / shift if shift else -deficit
        return np.maximum(near, 0.0)
    power_sum = np.where(alive, np.exp(order * logs), 0.0).sum(axis=-1)
    far: Floats = (order * log_total - _log(power_sum)) / (order - 1.0) if order < 1e300 else log_total
    return np.maximum(far, 0.0)


def participation_ratio(values: Floats) -> Floats:
    """Return (sum s^2)^2 / sum s^4."""
    t = relative(values) ** 2
    return ratio(t.sum(axis=-1) ** 2, (t * t).sum(axis=-1))


def stable_rank(values: Floats) -> Floats:
    """Return sum s^2 / s_1^2."""
    total: Floats = (relative(values) ** 2).sum(axis=-1)
    return total


def nuclear_ratio(values: Floats) -> Floats:
    """Return sum s / s_1."""
    total: Floats = relative(values).sum(axis=-1)
    return total


def schatten_norm(values: Floats, p: float) -> Floats:
    """Return (sum s^p)^(1/p); infinity where float64 cannot hold it."""
    top: Floats = values[..., 0]
    if math.isinf(p):
        return top.copy()
    t = relative(values)
    power_sum = (t**p).sum(axis=-1)
    with np.errstate(over="ignore"):
        size: Floats = top * np.exp(_log(power_sum) / p) if p not in {1.0, 2.0} else top * power_sum ** (1.0 / p)
    return np.where(top > 0, size, 0.0)


def tail_norms(values: Floats) -> Floats:
    """Return sqrt(sum_{i>R} s_i^2) for R = 0..k along the last axis, summed from the smallest value up."""
    tails = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    tails[..., :-1] = _tails_upward(values)[..., ::-1]
    return tails * values[..., :1]


def _tails_upward(values: Floats) -> Floats:
    """Return norms of the 1, 2, ..., k smallest relative values; hypot keeps squares from underflowing."""
    tails: Floats = np.hypot.accumulate(relative(values)[..., ::-1], axis=-1)
    return tails


def eps_rank(values: Floats, eps: float) -> Floats:
    """Return the smallest R whose tail is at most eps times the whole, in the Frobenius norm."""
    if eps >= 1.0:
        return np.zeros(values.shape[:-1])
    tails = _tails_upward(values)
    kept = tails > eps * tails[..., -1:]
    return np.asarray(kept.sum(axis=-1), dtype=np.float64)


def bracketed_eps_rank(tails: Floats, unsure: Floats, eps: float) -> tuple[Floats, bool]:
    """Return the eps-rank from tail energies that are only known to lie within `unsure`, and whether that settles it.

    Parameters
    ----------
    tails, unsure : ndarray, shape (..., k + 1)
        Shares of the energy beyond rank R = 0..k, and how far each may be off.
    eps : float
        Share of the norm.

    Returns
    -------
    rank : ndarray, shape (...)
        The rank, where it is settled.
    settled : bool
        Whether no tail within its uncertainty of eps^2 stands in the way, for any matrix.
    """
    limit = min(eps, 1.0) ** 2
    above = (tails > limit + unsure).sum(axis=-1)
    last = np.minimum(above, tails.shape[-1] - 1)[..., None]
    enough = np.take_along_axis(tails, last, -1) <= limit - np.take_along_axis(unsure, last, -1)
    return np.asarray(above, dtype=np.float64), bool((enough[..., 0] | (tails[..., 0] == 0)).all())


def count_above(values: Floats, threshold: Floats | float) -> Floats:
    """Return how many values exceed a threshold."""
    limit = np.asarray(threshold, dtype=np.float64)[..., None]
    return np.asarray((values > limit).sum(axis=-1), dtype=np.float64)

"""Columns of the CHES family over arrays of sums, in blocks, and scaled only where squares leave float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "ches_columns", "row_blocks"]

Floats = NDArray[np.float64]

COLUMNS = ("ches", "ln_ches", "relative", "cross", "chosen_sq", "rejected_sq", "swapped", "cond")
_BLOCK = 1 << 16  # entries of a block of rows: half a megabyte
_SMALL, _LARGE, _LONG = 1e-200, 1e200, 1e30  # of squares and lengths: beyond, products of them may leave float64


def ches_columns(sum_chosen: Floats, difference: Floats, n_chosen: Floats, n_rejected: Floats) -> dict[str, Floats]:
    """Return every column of the CHES family for many pairs at once.

    Parameters
    ----------
    sum_chosen : ndarray of float64, shape (N, d)
        S+, the sum of the states of the chosen response.
    difference : ndarray of float64, shape (N, d)
        D = S- - S+ of the states that the responses do not share.
    n_chosen, n_rejected : ndarray of float64, shape (N,)
        Numbers of states, at least 1.

    Returns
    -------
    dict of str to ndarray of float64, shape (N,)
        ``ches, ln_ches, relative, cross, chosen_sq, rejected_sq, swapped, cond``.
    """
    found = np.empty((len(COLUMNS), len(sum_chosen)))
    for rows in row_blocks(sum_chosen.shape):
        found[:, rows] = _block(sum_chosen[rows], difference[rows], n_chosen[rows], n_rejected[rows])
    return dict(zip(COLUMNS, found, strict=True))


def _block(plus: Floats, gap: Floats, n_plus: Floats, n_minus: Floats) -> Floats:
    """Return the columns of some pairs, in the order of `COLUMNS`."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        minus = plus + gap
        ches, chosen_sq, distance = _dot(plus, gap), _dot(plus, plus), _dot(gap, gap)
        cross, rejected_sq, back = _dot(plus, minus), _dot(minus, minus), _dot(minus, gap)
        relative = np.where(distance > 0, ches / distance, np.nan)
        cond = (np.abs(cross) + chosen_sq) / np.abs(ches)
        # n+ n- (mu- - mu+) = n+ D - (n- - n+) S+, formed before it is multiplied: means may nearly agree.
        apart = gap * n_plus[:, None]
        apart -= np.multiply(plus, (n_minus - n_plus)[:, None], out=minus)
        ln_ches = np.where(n_plus == n_minus, ches / n_plus**2, _dot(plus, apart) / (n_plus**2 * n_minus))
        found = np.array([ches, ln_ches, relative, cross, chosen_sq, rejected_sq, 0.0 - back, cond])
        low, high = np.minimum(chosen_sq, distance), np.maximum(chosen_sq, distance)
    odd = ~((low > _SMALL) & (high < _LARGE) & (np.maximum(n_plus, n_minus) < _LONG))
    if odd.any():
        found[:, odd] = _scaled_block(plus[odd], gap[odd], n_plus[odd], n_minus[odd])
    return found


def _mean_gap(plus: Floats, gap: Floats, n_plus: Floats, n_minus: Floats) -> Floats:
    """Return mu- - mu+ = D/n- - S+ (n- - n+)/(n+ n-), which is D/n where the lengths are equal."""
    means = gap / n_minus[:, None]
    uneven = n_plus != n_minus
    if uneven.any():
        # Divided one after the other, so that the product of long lengths cannot overflow.
        longer = plus[uneven] * (n_minus - n_plus)[uneven, None] / n_plus[uneven, None]
        means[uneven] -= longer / n_minus[uneven, None]
    return np.asarray(means, dtype=np.float64)


def _scaled_block(plus: Floats, gap: Floats, n_plus: Floats, n_minus: Floats) -> Floats:
    """Return the columns of pairs whose squares may leave float64 though their ratios do not: vectors are scaled."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        p, a = _unit(plus)
        g, b = _unit(gap)
        m, c = _unit(plus + gap)
        mean, e = _unit(_mean_gap(plus, gap, n_plus, n_minus))
        pg, pp, gg, pm, mm, mg = _dot(p, g), _dot(p, p), _dot(g, g), _dot(p, m), _dot(m, m), _dot(m, g)
        relative = np.where(gg > 0, np.ldexp(pg / gg, a - b), np.nan)
        cond = np.ldexp((np.ldexp(np.abs(pm), c - a) + pp) / np.abs(pg), a - b)
        columns = (
            np.ldexp(pg, a + b),
            np.where(n_plus == n_minus, np.ldexp(pg / n_plus**2, a + b), np.ldexp(_dot(p, mean) / n_plus, a + e)),
            relative,
            np.ldexp(pm, a + c),
            np.ldexp(pp, 2 * a),
            np.ldexp(mm, 2 * c),
            0.0 - np.ldexp(mg, b + c),
            cond,
        )
    return np.array(columns)


def _unit(vectors: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return vectors with largest entries from 1/2 to 1, and the powers of two that they were divided by."""
    exponent = np.frexp(np.abs(vectors).max(axis=1))[1].astype(np.int64)
    return np.ldexp(vectors, -exponent[:, None]), exponent


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yield the rows of a matrix in blocks that stay in the cache while several sums are taken of them."""
    step = max(1, _BLOCK // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("nd,nd->n", a, b), dtype=np.float64)

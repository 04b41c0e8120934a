"""Arithmetic and rank modulo one prime, exact, on whole arrays of 64-bit integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRIME", "modular_product", "modular_rank", "reduce_modulo"]

Ints = NDArray[np.int64]

PRIME = 2**29 - 3  # 32 products of residues add up to less than 2^63
_SPLIT = 15  # bits of the low part of a factor: 256 products of 15 and 29 bits are exact in float64
_INNER = 256
_PANEL = 32


def reduce_modulo(values: Ints) -> Ints:
    """Reduce non-negative integers in place and return them; a division by a constant is faster than a remainder."""
    quotient = values // PRIME
    quotient *= PRIME
    values -= quotient
    return values


def modular_product(left: Ints, right: Ints) -> Ints:
    """Multiply two matrices of residues.

    Parameters
    ----------
    left : ndarray of int64, shape (a, k)
        Residues.
    right : ndarray of int64, shape (k, b)
        Residues.

    Returns
    -------
    ndarray of int64, shape (a, b)
        Residues of the product.

    Notes
    -----
    The left factor is cut into 14 high and 15 low bits; both float64 products are exact for up to 256 terms, and longer
    sums are added up in parts.
    """
    total: Ints | None = None
    for first in range(0, left.shape[1], _INNER):
        part = left[:, first : first + _INNER]
        other = right[first : first + _INNER].astype(np.float64)
        high = reduce_modulo(((part >> _SPLIT).astype(np.float64) @ other).astype(np.int64))
        high <<= _SPLIT
        high += ((part & ((1 << _SPLIT) - 1)).astype(np.float64) @ other).astype(np.int64)
        total = reduce_modulo(high) if total is None else reduce_modulo(total + reduce_modulo(high))
    return np.zeros((left.shape[0], right.shape[1]), np.int64) if total is None else total


def modular_rank(matrix: Ints) -> int:
    """Return the rank of a matrix of residues over GF(`PRIME`).

    Parameters
    ----------
    matrix : ndarray of int64, shape (m, k)
        Residues; not changed.

    Returns
    -------
    int
        Its rank.

    Notes
    -----
    Gaussian elimination in panels of 32 columns: inside of a panel one step a pivot, to its right one matrix product
    for the whole panel. It ends where nothing is left, so the cost is O(m k r) for rank r.
    """
    a = matrix.copy()
    rows, columns = a.shape
    rank = 0
    for first in range(0, columns, _PANEL):
        if rank == rows or not a[rank:, first:].any():
            break
        rest = a[rank:, first:]
        width = min(_PANEL, columns - first)
        lower = _eliminate_panel(rest, width)
        found = lower.shape[1]
        right = rest[:, width:]
        for i in range(1, found):
            right[i] += PRIME - reduce_modulo(lower[i, :i] @ right[:i])
            reduce_modulo(right[i])
        if found and right.shape[1]:
            below = right[found:]
            below += PRIME - modular_product(lower[found:], right[:found])
            reduce_modulo(below)
        rank += found
    return rank


def _eliminate_panel(rest: Ints, width: int) -> Ints:
    """Eliminate the first columns of a matrix, moving whole rows, and return the multipliers of each pivot."""
    panel = rest[:, :width]
    lower = np.zeros((len(rest), width), np.int64)
    found = 0
    for column in range(width):
        if found == len(rest):
            break
        pivots = np.flatnonzero(panel[found:, column])
        if not len(pivots):
            continue
        row = found + int(pivots[0])
        if row != found:
            rest[[found, row]] = rest[[row, found]]
            lower[[found, row]] = lower[[row, found]]
        head = panel[found, column:]
        factor = reduce_modulo(panel[found + 1 :, column] * pow(int(head[0]), -1, PRIME))
        lower[found + 1 :, found] = factor
        below = panel[found + 1 :, column:]
        below += PRIME - reduce_modulo(factor[:, None] * head)
        reduce_modulo(below)
        found += 1
    return lower[:, :found]

"""The largest singular values without a full decomposition: Krylov iterations with full reorthogonalisation.

`golub_kahan` finds the k largest by a block iteration; `stable_rank_of` needs only the largest and gets most of the way
in float32. In the former, vectors are rows throughout, so that every product runs along contiguous memory. With V and U
the right and left bases (rows), the recurrence keeps V A^T = L U exactly; the singular values of L are the Ritz values,
and what A^H U has outside V is the residual. For complex matrices transposes of rows and conjugates of A stand where
the real case has none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag.spectral._decompose import (
    EPS32,
    EPS64,
    START_SEED,
    Decomposition,
    as_reals,
    binary_exponent,
    full_decomposition,
    in_units,
    rescale,
    svd_bound,
    tall,
    to_working,
)

__all__ = ["largest_values", "stable_rank_of", "top_decomposition"]

Floats = NDArray[np.float64]

# Relative change of the Ritz values, and size of the residual against the largest value, at which iteration stops.
_CHANGE = 1e-7
# A residual r means that some singular value lies within r. The wanted one may be further off where it hides above a
# cluster of p values that holds most of the vector, but only by about r sqrt(p), because a random start has its share
# of every direction; p shows in how much of the start the vector has. So residuals count sqrt(p) times, and twice that
# in a stated bound.
#
# Residual relative to s_1 that the value for a stable rank needs. The float32 iteration stops at half of it and leaves
# the rest to rounding.
_TOLERANCE = 5e-7
_POLISH = 3  # steps of power iteration in float64 to get there, before a float64 iteration takes over
_SAFE_FOURTH = 8  # entries within these powers of two of 1 have fourth powers whose sums float32 can hold
_FLOAT32_FLOOR = 2e-7  # residuals below this are rounding in float32
# A row that loses this much to orthogonalisation is orthogonalised twice (Kahan's rule).
_TWICE = 0.7
# Smaller matrices are decomposed in full: it is faster.
_SMALL = 128


class Ritz(NamedTuple):
    """Approximate singular triplets: ``values`` descending, vectors as rows, and size of clusters they stand for."""

    values: Floats
    left: NDArray[Any]
    right: NDArray[Any]
    copies: float


def _orthonormal_rows(
    rows: NDArray[Any], basis: NDArray[Any], known: NDArray[Any] | None, floor: float, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Split rows = C basis + R Q with orthonormal Q orthogonal to the basis.

    `known` are the coefficients on the last rows of the basis, from the recurrence; the rest is rounding, so one pass
    removes it, and a second one only where little is left. Where nothing is left of a row (below `floor`), Q gets a
    random direction instead, so that the iteration goes on outside an invariant subspace and finds further copies of
    repeated values.
    """
    if known is not None:
        rows = rows - known @ basis[-len(known) :]
    before = _norm(rows)
    coefficients = rows @ basis.conj().T
    rows = rows - coefficients @ basis
    norm = _norm(rows)
    if norm < _TWICE * before:
        again = rows @ basis.conj().T
        rows -= again @ basis
        coefficients += again
        norm = _norm(rows)
    if known is not None:
        coefficients[:, -len(known) :] += known
    if len(rows) == 1 and norm > floor:
        return coefficients, np.full((1, 1), norm, dtype=rows.dtype), rows / norm
    q, r = np.linalg.qr(rows.T)
    q, r = q.T, r.T
    if np.abs(np.diagonal(r)).min() <= floor:
        q = _refill(q, np.abs(np.diagonal(r)) <= floor, basis, rng)
        r = rows @ q.conj().T
    return coefficients, r, q


def _norm(rows: NDArray[Any]) -> float:
    return math.sqrt(abs(np.vdot(rows, rows)))


def _refill(q: NDArray[Any], dead: NDArray[Any], basis: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Replace dead rows by random ones, orthonormal to the basis and to the living rows."""
    count = int(dead.sum())
    fresh = rng.standard_normal((count, q.shape[1])).astype(q.dtype)
    others = np.concatenate([basis, q[~dead]])
    for _ in range(2):
        fresh -= (fresh @ others.conj().T) @ others
    out = q.copy()
    out[dead] = np.linalg.qr(fresh.T)[0].T
    return out


def golub_kahan(
    a: NDArray[Any],
    count: int,
    rng: np.random.Generator,
    *,
    tolerance: float,
    max_basis: int,
    start: NDArray[Any] | None = None,
) -> Ritz | None:
    """Iterate until the `count` largest Ritz values change by less than 1e-7 and their residuals are small.

    Once the values have settled, the residual gets as many vectors again to come down; inside a cluster it may not, and
    the values are returned all the same, for the caller to state the residual that is left.

    Parameters
    ----------
    a : ndarray, shape (m, n)
        Entries of moderate size, not all zero.
    count : int
        Values wanted; also the block size, so that values repeated up to `count` times are all found.
    rng : numpy.random.Generator
        Draws the start.
    tolerance : float
        Largest residual allowed, relative to the largest value.
    max_basis : int
        Vectors to keep before giving up.
    start : ndarray, shape (count, n), optional
        Orthonormal rows to start from instead of random ones.

    Returns
    -------
    Ritz or None
        None if `max_basis` vectors were not enough.
    """
    m, n = a.shape
    eps = float(np.finfo(a.dtype).eps)
    a_t, a_c = a.T, (a.conj() if a.dtype.kind == "c" else a)
    size = max_basis + count
    right, left = np.empty((size + count, n), a.dtype), np.empty((size, m), a.dtype)
    lower = np.zeros((size, size), a.dtype)
    block = np.linalg.qr(rng.standard_normal((n, count)).astype(a.dtype))[0].T if start is None else start
    s: NDArray[Any] | None = None
    values, residual, copies = np.zeros(count), np.inf, 1.0
    settled_at, checked_at, next_check, used, floor = 0, 0, 8 * count, 0, 0.0
    while used + count <= max_basis:
        new = slice(used, used + count)
        right[new] = block
        known = None if s is None else s.conj().T
        coefficients, r, u = _orthonormal_rows(block @ a_t, left[:used], known, floor, rng)
        lower[new, :used], lower[new, new], left[new] = coefficients, r, u
        used += count
        floor = max(floor, 4.0 * eps * float(np.abs(r).max()))
        _, s, block = _orthonormal_rows(u @ a_c, right[:used], r.conj().T, floor, rng)
        floor = max(floor, 4.0 * eps * float(np.abs(s).max()))
        if used < next_check and used + count <= max_basis:
            continue
        p, theta, q_h = np.linalg.svd(lower[:used, :used])
        change = float(np.max((1.0 - _CHANGE) * theta[:count] - values))
        was, values = residual, theta[:count].astype(np.float64)
        if start is None:
            copies = max(n / count * float((np.abs(p[:count, :count]) ** 2).sum(axis=0).max()), 1.0)
        residual = math.sqrt(copies) * float(np.linalg.norm(q_h[:count, used - count :] @ s)) / values[0]
        if change <= 4.0 * eps * values[0]:
            settled_at = settled_at or used
            if residual <= tolerance or used >= 2 * settled_at:
                return Ritz(values, q_h[:count] @ left[:used], p[:, :count].conj().T @ right[:used], copies)
        rate = np.log(was / residual) / (used - checked_at) if np.isfinite(was) and residual > 0.0 else 0.0
        checked_at, next_check = used, used + _pause(residual, tolerance, rate, used, count)
    return None


def _pause(residual: float, tolerance: float, rate: float, used: int, count: int) -> int:
    """Guess how many vectors to add before looking again, from how fast the residual fell since the last look."""
    longest = max(3 * used // 4 // count, 1)
    wanted = 0.85 * np.log(residual / tolerance) / rate / count if rate > 0.0 and residual > tolerance else 1.0
    return count * max(min(int(np.ceil(wanted)), longest), 1)


def largest_values(
    a: NDArray[Any], count: int, rng: np.random.Generator, *, tolerance: float, start: NDArray[Any] | None = None
) -> Ritz | None:
    """Run `golub_kahan` with room for a reasonable number of vectors; None where a full decomposition is better."""
    small = min(a.shape)
    max_basis = min(small // 2, 40 * count + 200)
    if small <= _SMALL or max_basis < 8 * count:
        return None
    return golub_kahan(a, count, rng, tolerance=tolerance, max_basis=max_basis, start=start)


def _residual(a: NDArray[Any], ritz: Ritz) -> float:
    """Return the Frobenius norm of A^H U - V S, which no singular value is further from a Ritz value than."""
    a_c = a.conj() if a.dtype.kind == "c" else a
    return float(np.linalg.norm(ritz.left @ a_c - ritz.values[:, None].astype(np.finfo(a.dtype).dtype) * ritz.right))


def top_decomposition(
    array: NDArray[Any], k: int, rng: np.random.Generator, *, dtype: str = "float64", name: str = "matrix"
) -> tuple[Decomposition, str]:
    """Find the k largest singular values of (a stack of) matrices.

    Parameters
    ----------
    array : ndarray of float64 or complex128, shape (..., m, n)
        Finite and not empty.
    k : int
        How many, at most min(m, n).
    rng : numpy.random.Generator
        Draws the start vectors.
    dtype : {"float64", "float32"}
        Arithmetic.
    name : str
        Argument named in messages.

    Returns
    -------
    decomposition : Decomposition
        k values; the bound is the residual left plus rounding.
    solver : {"golub-kahan", "svd"}
        What was run in the end; ``"svd"`` where k is large, the matrix small or convergence slow.
    """
    leading, (m, n) = array.shape[:-2], array.shape[-2:]
    work, exponent = to_working(array, dtype)
    eps = EPS64 if dtype == "float64" else EPS32
    flat = work.reshape(-1, m, n)
    rows, residuals = np.zeros((len(flat), k)), np.zeros(len(flat))
    solver = "golub-kahan"
    for index, one in enumerate(flat):
        if not one.any():
            continue
        ritz = largest_values(one, k, rng, tolerance=max(_CHANGE, 64.0 * eps))
        if ritz is None:
            solver = "svd"
            rows[index] = full_decomposition(one, "svd", dtype=dtype).values[:k]
        else:
            rows[index], residuals[index] = ritz.values, 2.0 * math.sqrt(ritz.copies) * _residual(one, ritz)
    values = rows.reshape(*leading, k)
    bound = np.asarray(residuals.reshape(leading) + svd_bound(values[..., 0], (m, n), eps))
    found = Decomposition(values, bound, frobenius_norm(work), "topk")
    return in_units(found, exponent, name), solver


def frobenius_norm(work: NDArray[Any]) -> Floats:
    """Return the Frobenius norm over the last two axes, summed in float64."""
    flat = as_reals(work)
    if flat.ndim == 1 and flat.dtype == np.float64:
        return np.asarray(math.sqrt(flat @ flat))
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", flat, flat, dtype=np.float64)))


def stable_rank_of(array: NDArray[Any]) -> float | None:
    """Return ||A||_F^2 / s_1^2 of one matrix to relative 1e-6, without a decomposition.

    The iteration runs in float32, which halves the memory that it reads; the vector it finds is good to about 1e-6,
    and its Rayleigh quotient in float64 is good to the square of that.

    Parameters
    ----------
    array : ndarray of float64 or complex128, shape (m, n)
        Finite and not empty.

    Returns
    -------
    float or None
        None where convergence is too slow to trust, so that the caller decomposes instead.
    """
    work = tall(array)
    exponent = int(binary_exponent(work))
    if abs(exponent) > _SAFE_FOURTH:
        work = rescale(work, -exponent)
    single = work.astype(np.complex64 if work.dtype.kind == "c" else np.float32)
    if not single.any():
        return 0.0
    rng = np.random.default_rng(START_SEED)
    found = _strongest_direction(single, rng)
    if found is None:
        return None
    v, copies = found
    tolerance = _TOLERANCE / math.sqrt(copies)
    norm = float(frobenius_norm(work))
    right = v.astype(work.dtype)
    for _ in range(_POLISH):
        right /= _norm(right)
        left = work @ right
        s = _norm(left)
        back = work.conj().T @ (left / s)
        if _norm(back - s * right) <= tolerance * s:
            return (norm / s) ** 2
        right = back  # one step of power iteration, which takes most of the float32 rounding away
    start = (right / _norm(right))[None]
    better = largest_values(work, 1, rng, tolerance=tolerance / 2.0, start=start)
    if better is None or _residual(work, better) > tolerance * better.values[0]:
        return None
    return (norm / float(better.values[0])) ** 2


def _strongest_direction(a: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], float] | None:
    """Return the right vector of the largest value, and how many values about as large it may stand for.

    Lanczos on A^H A with full reorthogonalisation: only right vectors are kept, which where one product takes 50
    microseconds is a good part of the time, and for the largest value squaring loses nothing.
    """
    n = a.shape[1]
    steps = min(min(a.shape) // 2, 240)
    a_c = a.conj()
    basis, diagonal, beside = np.empty((steps + 1, n), a.dtype), np.zeros(steps), np.zeros(steps)
    basis[0] = rng.standard_normal(n)
    basis[0] /= np.linalg.norm(basis[0])
    floor, checked_at, next_check, was = 0.0, 0, 16, np.inf
    for j in range(steps):
        image = a @ basis[j]
        diagonal[j] = _norm(image) ** 2
        w = image @ a_c
        w -= a.dtype.type(diagonal[j]) * basis[j]
        if j:
            w -= a.dtype.type(beside[j - 1]) * basis[j - 1]
        before, known = _norm(w), basis[: j + 1]
        w -= (known.conj() @ w) @ known
        if _norm(w) < _TWICE * before:
            w -= (known.conj() @ w) @ known
        beside[j] = _norm(w)
        floor = max(floor, 4.0 * EPS32 * max(diagonal[j], beside[j]))
        ends = beside[j] <= floor  # the space is invariant, and a random start has the largest value in it
        if ends or j + 1 >= next_check:
            inner = beside[:j]
            theta, q = np.linalg.eigh(np.diag(diagonal[: j + 1]) + np.diag(inner, 1) + np.diag(inner, -1))
            copies = max(n * float(q[0, -1]) ** 2, 1.0)
            residual = beside[j] * abs(float(q[-1, -1])) / theta[-1]
            target = max(_TOLERANCE / 2.0 / math.sqrt(copies), _FLOAT32_FLOOR)
            if ends or residual <= target:
                return q[:, -1].astype(a.dtype) @ basis[: j + 1], copies
            rate = np.log(was / residual) / (j + 1 - checked_at) if np.isfinite(was) else 0.0
            checked_at, was = j + 1, residual
            next_check = j + 1 + _pause(residual, target, rate, j + 1, 1)
        basis[j + 1] = w * a.dtype.type(1.0 / beside[j])
    return None

"""The largest singular values without a full decomposition: block Golub-Kahan with full reorthogonalisation.

Vectors are rows throughout, so that every product runs along contiguous memory. With V and U the right and left bases
(rows), the recurrence keeps V A^T = L U exactly; the singular values of L are the Ritz values, and what A^H U has
outside V is the residual. For complex matrices transposes of rows and conjugates of A stand where the real case has
none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag.spectral._decompose import (
    EPS32,
    EPS64,
    TINY,
    Decomposition,
    full_decomposition,
    scale_back,
    svd_bound,
    to_working,
)

__all__ = ["largest_values", "stable_rank_of", "top_decomposition"]

Floats = NDArray[np.float64]

# Relative change of the Ritz values, and size of the residual against the largest value, at which iteration stops.
_CHANGE = 1e-7
# Smaller matrices are decomposed in full: it is faster.
_SMALL = 128


class Ritz(NamedTuple):
    """Approximate singular triplets: ``values`` descending, vectors as rows, and what the iteration cost."""

    values: Floats
    left: NDArray[Any]
    right: NDArray[Any]
    steps: int


def _orthonormal_rows(
    rows: NDArray[Any], basis: NDArray[Any], floor: float, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Split rows = C basis + R Q with orthonormal Q orthogonal to the basis.

    Where nothing is left of a row (below `floor`), Q gets a random direction instead, so that the iteration goes on
    outside an invariant subspace and finds further copies of repeated values.
    """
    coefficients = rows @ basis.conj().T
    rows = rows - coefficients @ basis
    again = rows @ basis.conj().T  # twice is enough
    rows -= again @ basis
    coefficients += again
    if len(rows) == 1:
        norm = np.linalg.norm(rows)
        if norm > floor:
            return coefficients, np.full((1, 1), norm, dtype=rows.dtype), rows / norm
    q, r = np.linalg.qr(rows.T)
    q, r = q.T, r.T
    if np.abs(np.diagonal(r)).min() <= floor:
        q = _refill(q, np.abs(np.diagonal(r)) <= floor, basis, rng)
        r = rows @ q.conj().T
    return coefficients, r, q


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
    start = rng.standard_normal((n, count)).astype(a.dtype)
    block = np.linalg.qr(start)[0].T
    previous = np.zeros(count)
    settled_at, next_check, used, floor = 0, 4 * count, 0, 0.0
    while used + count <= max_basis:
        new = slice(used, used + count)
        right[new] = block
        coefficients, r, u = _orthonormal_rows(block @ a_t, left[:used], floor, rng)
        lower[new, :used], lower[new, new], left[new] = coefficients, r, u
        used += count
        floor = max(floor, 4.0 * eps * float(np.abs(r).max()))
        _, s, block = _orthonormal_rows(u @ a_c, right[:used], floor, rng)
        if used < next_check and used + count <= max_basis:
            continue
        p, theta, q_h = np.linalg.svd(lower[:used, :used])
        values = theta[:count].astype(np.float64)
        residual = float(np.linalg.norm(q_h[:count, used - count :] @ s))
        change = float(np.max((values - previous) - _CHANGE * values))
        previous = values
        top = values[0]
        if change <= 4.0 * eps * top:
            settled_at = settled_at or used
            if residual <= tolerance * top or used >= 2 * settled_at:
                return Ritz(values, q_h[:count] @ left[:used], p[:, :count].conj().T @ right[:used], used)
        next_check = used + max(count, _steps_to_go(residual / top, tolerance, used) // count * count)
    return None


def _steps_to_go(residual: float, tolerance: float, used: int) -> int:
    """Guess how many more vectors the residual needs, a little short: it falls faster as the iteration goes on."""
    if residual <= tolerance:
        return 1
    rate = max(-np.log(min(residual, 0.9)) / used, 1e-3)
    return int(min(0.5 * np.log(residual / tolerance) / rate, 0.3 * used)) + 1


def largest_values(a: NDArray[Any], count: int, rng: np.random.Generator, *, tolerance: float) -> Ritz | None:
    """Run `golub_kahan` with room for a reasonable number of vectors; None where a full decomposition is better."""
    small = min(a.shape)
    max_basis = min(small // 2, 40 * count + 200)
    if small <= _SMALL or max_basis < 8 * count:
        return None
    return golub_kahan(a, count, rng, tolerance=tolerance, max_basis=max_basis)


def _residual(a: NDArray[Any], ritz: Ritz) -> float:
    """Return the Frobenius norm of A^H U - V S, which no singular value is further from a Ritz value than."""
    a_c = a.conj() if a.dtype.kind == "c" else a
    return float(np.linalg.norm(ritz.left @ a_c - ritz.values[:, None].astype(a.real.dtype) * ritz.right))


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
            rows[index], residuals[index] = ritz.values, _residual(one, ritz)
    scaled = rows.reshape(*leading, k)
    values = scale_back(scaled, exponent, name)
    total = residuals.reshape(leading) + svd_bound(scaled[..., 0], (m, n), eps)
    bound = scale_back(total, exponent, name) + np.where(exponent != 0, TINY, 0.0)
    frobenius = scale_back(frobenius_norm(work), exponent, name)
    return Decomposition(values, np.asarray(bound), np.asarray(frobenius), "topk"), solver


def frobenius_norm(work: NDArray[Any]) -> Floats:
    """Return the Frobenius norm over the last two axes, summed in float64."""
    flat = work.reshape(*work.shape[:-2], -1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype) if flat.flags.c_contiguous else np.concatenate([flat.real, flat.imag], -1)
    out: Floats = np.sqrt(np.einsum("...i,...i->...", flat, flat, dtype=np.float64))
    return out


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
    work, _ = to_working(array, "float64")
    single, _ = to_working(work, "float32")
    if not single.any():
        return 0.0 if not work.any() else None
    ritz = largest_values(single, 1, np.random.default_rng(0), tolerance=_FLOAT32_TOLERANCE)
    if ritz is None:
        return None
    v = ritz.right[0].astype(work.dtype)
    v /= np.linalg.norm(v)
    u = work @ v
    s = float(np.linalg.norm(u))
    u /= s
    residual = float(np.linalg.norm((work.T if work.dtype.kind != "c" else work.conj().T) @ u - s * v))
    if residual > _TRUSTED * s:
        return None
    return (float(frobenius_norm(work)) / s) ** 2


# Residual at which the float32 iteration stops, and the largest one in float64 that is trusted: an error of s_1 is at
# most the residual, and in practice its square over the gap to the next value.
_FLOAT32_TOLERANCE = 3e-7
_TRUSTED = 1e-6

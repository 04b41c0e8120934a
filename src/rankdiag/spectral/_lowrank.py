"""Gram spectra of matrices with a few strong directions over a floor that a Gram matrix cannot see.

A Gram matrix loses everything below about sqrt(n eps) s_1. Where only a few values stand above that, they are split off
exactly: with orthonormal bases U, V of their singular subspaces and R V^H = U^H A,

    A = U R V^H + F,   U^H F = 0,   so   A^H A = V R^H R V^H + F^H F,

and the values of A are those of R together with those of F, up to twice the norm of the coupling F V. F has a scale of
its own, so its Gram matrix sees the floor. The coupling is computed and has to be below a quarter of the rounding of an
SVD, so the bound is measured, not assumed. (Derived here; the perturbation step is Weyl's inequality.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.spectral._decompose import (
    EPS64,
    START_SEED,
    Decomposition,
    full_decomposition,
    svd_bound,
    tall,
)

__all__ = ["deflated_gram"]

# Split off only where the strong part is this small a share of the side; otherwise an SVD is as fast.
_SHARE = 8
# A value is strong when it stands this many error bounds above zero.
_CLEAR = 4.0
# Columns beyond the strong directions, and rounds of subspace iteration.
_EXTRA = 8
_ROUNDS = 3


def deflated_gram(array: NDArray[Any], coarse: Decomposition) -> Decomposition | None:
    """Redo a Gram spectrum of one matrix with its strong directions split off.

    Parameters
    ----------
    array : ndarray of float64 or complex128, shape (m, n)
        The matrix, its largest entry of moderate size.
    coarse : Decomposition
        Its plain Gram spectrum.

    Returns
    -------
    Decomposition or None
        With method ``"gram"`` and a smaller bound; None where the split does not pay or the coupling is too large.
    """
    values, bound = coarse.values, float(coarse.bound)
    strong = int((values > _CLEAR * bound).sum())
    if strong == 0 or strong > len(values) // _SHARE:
        return None
    work = tall(array)
    u, r, v = _strong_part(work, strong)
    rest = work - u @ (r @ v.conj().T)
    coupling = float(np.linalg.norm(rest @ v))
    part = full_decomposition(rest, "gram")
    top = np.linalg.svd(r, compute_uv=False)
    rounding = float(svd_bound(top[0], work.shape, EPS64))
    total = float(part.bound) + rounding
    if 4.0 * coupling > rounding or total >= bound / 16.0:
        return None
    # F has rank at most n - strong: its smallest `strong` values are zeros that stand for the directions taken out
    merged = np.sort(np.concatenate([top, part.values[: len(values) - strong]]))[::-1]
    frobenius = np.asarray(np.hypot(np.linalg.norm(r), np.linalg.norm(rest)))
    return Decomposition(merged, np.asarray(total), frobenius, "gram")


def _strong_part(work: NDArray[Any], strong: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Find orthonormal U (m, r), V (n, r) and R (r, r) with U^H A = R V^H, for the r strongest directions."""
    adjoint = work.conj().T
    width = min(strong + _EXTRA, min(work.shape))
    v = np.random.default_rng(START_SEED).standard_normal((work.shape[1], width)).astype(work.dtype)
    for _ in range(_ROUNDS):
        q = np.linalg.qr(work @ v)[0]
        v = np.linalg.qr(adjoint @ q)[0]
    image = work @ v
    q, small = np.linalg.qr(image)
    u = q @ np.linalg.svd(small)[0][:, :strong]
    v, r_adjoint = np.linalg.qr(adjoint @ u)
    return u, r_adjoint.conj().T, v

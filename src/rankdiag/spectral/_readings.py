"""Measures of a matrix or of a spectrum as functions, each by the cheapest route that keeps its digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import input_dtype
from rankdiag._validate import boolean, real
from rankdiag.spectral import _measures
from rankdiag.spectral._options import Weights, is_energy, schatten_power
from rankdiag.spectral._routes import as_matrix, exact, for_sums, frobenius, stable_ranks, sums_where_it_lies
from rankdiag.spectral._spectrum import Reading, Spectrum, make_spectrum

__all__ = [
    "effective_rank",
    "nuclear_ratio",
    "participation_ratio",
    "schatten_norm",
    "singular_values",
    "spectral_entropy",
    "stable_rank",
]

Floats = NDArray[np.float64]


def _plain(value: Floats) -> Reading:
    return value if value.ndim else float(value)


def _sums(a: Any, reading: Callable[[Floats], Floats]) -> Reading:
    """Read a trace-like measure of a matrix to relative 1e-6."""
    found = sums_where_it_lies(a, (reading,)) or for_sums(as_matrix(a, "a"), (reading,), name="a")
    return _plain(reading(found.values))


def _values(a: Any) -> Floats:
    """Return all singular values of a matrix to 8 max(m, n, 16) eps s_1."""
    return exact(as_matrix(a, "a"), name="a").values


def singular_values(a: Any) -> NDArray[np.float64]:
    r"""Return the singular values, descending.

    The lengths of the axes of the ellipsoid that the matrix makes of the unit ball.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.

    Returns
    -------
    ndarray of float64, shape (..., min(m, n))
        Not negative, in the units of the matrix; the top ones of a ``"topk"`` spectrum.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite; or if `a` is a partial spectrum of method ``"slq"``.

    Notes
    -----
    Every value is good to 8 max(m, n, 16) eps s_1.

    Cost: one SVD, about 4 M n^2 to 12 M n^2 flops with M >= n the two sides; memory a copy of the matrix.

    References
    ----------
    G. Golub, C. Van Loan (2013), Matrix Computations, section 2.4.

    Examples
    --------
    >>> from rankdiag.spectral import singular_values
    >>> singular_values([[0.0, 2.0], [3.0, 0.0]]).round(12).tolist()
    [3.0, 2.0]
    """
    if isinstance(a, Spectrum):
        return a.singular_values()
    return _values(a)


def effective_rank(a: Any, *, weights: Weights = "sigma") -> Reading:
    r"""Return the effective rank: how many directions of comparable size a matrix has.

    1 means one direction, min(m, n) that all are equal, 0 a zero matrix. The whole tail counts, unlike in
    `stable_rank`.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    weights : {"sigma", "energy"}
        Probabilities from singular values, s_i / sum(s), or from their squares.

    Returns
    -------
    float or ndarray of float64
        Between 1 and the rank; 0 for a zero matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or `weights` is unknown; or if `a` is a partial spectrum
        without the values.

    Notes
    -----
    Definition: :math:`\exp(-\sum_i p_i \log p_i)` with :math:`p_i = s_i / \sum_j s_j` (sigma) or
    :math:`p_i = s_i^2 / \sum_j s_j^2` (energy); 0 log 0 = 0. Only exact zeros drop out. Invariant under scaling,
    transposition and orthogonal maps. Also known as: Roy-Vetterli effective rank; with ``"energy"`` the exponential of
    the von Neumann or entanglement entropy. Of an ``"slq"`` spectrum the sigma form is the middle of its bracket.

    Cost: one SVD up to a smaller side of 512; beyond, a Gram matrix and its eigenvalues, M n^2 + (4/3) n^3 flops with
    M >= n the two sides, and the exact route where noise would show by more than 1e-6.

    References
    ----------
    O. Roy, M. Vetterli (2007), The effective rank: a measure of effective dimensionality, equation (2). N. Razin,
    N. Cohen (2020), arXiv 2005.06398.

    Examples
    --------
    >>> import rankdiag as rd
    >>> round(rd.effective_rank([[3.0, 0.0], [0.0, 1.0]]), 6)
    1.754765
    >>> round(rd.effective_rank([[3.0, 0.0], [0.0, 1.0]], weights="energy"), 6)
    1.384145
    """
    if isinstance(a, Spectrum):
        return a.effective_rank(weights=weights)
    energy = is_energy(weights)
    return _sums(a, lambda values: _measures.effective_rank(values, energy))


def spectral_entropy(a: Any, *, weights: Weights = "sigma", order: float = 1.0, normalize: bool = False) -> Reading:
    r"""Return the Renyi entropy of the spectrum, in nats.

    The exponential counts directions: order 1 is the logarithm of the effective rank, larger orders listen more to the
    largest values, order 0 counts what is not zero.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    weights : {"sigma", "energy"}
        Probabilities from singular values or from their squares.
    order : float
        Order >= 0: 1 is Shannon, ``inf`` the min-entropy -log p_1.
    normalize : bool
        Divide by the logarithm of the numerical rank; a rank of 1 or less gives 0.

    Returns
    -------
    float or ndarray of float64
        Entropy in nats, or a share of log(rank) with `normalize`; 0 for a zero matrix; an array over the leading axes
        for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or an option is out of range; or if `a` is a partial
        spectrum without the values.

    Notes
    -----
    Definition: :math:`H_a = \log(\sum_i p_i^a) / (1 - a)`, continued by Shannon at a = 1; computed without cancellation
    near 1. :math:`\exp H_2` of the energy form is the participation ratio, :math:`\exp H_\infty` the stable rank, and
    of the sigma form the nuclear ratio. WeightWatcher's "entropy" is the normalised energy form.

    Cost: one SVD up to a smaller side of 512; beyond, a Gram matrix and its eigenvalues, M n^2 + (4/3) n^3 flops with M
    >= n the two sides, and the exact route where noise would show by more than 1e-6. Orders below 1 and `normalize`
    count small values, so they take an SVD.

    References
    ----------
    A. Renyi (1961), On measures of entropy and information.

    Examples
    --------
    >>> import math
    >>> from rankdiag.spectral import spectral_entropy
    >>> round(math.exp(spectral_entropy([[3.0, 0.0], [0.0, 1.0]], weights="energy", order=2)), 6)
    1.219512
    >>> spectral_entropy([[2.0, 0.0], [0.0, 2.0]], normalize=True)
    1.0
    """
    if isinstance(a, Spectrum):
        return a.spectral_entropy(weights=weights, order=order, normalize=normalize)
    energy = is_energy(weights)
    alpha = real(order, "order", low=0.0, infinite=True)
    if boolean(normalize, "normalize"):
        array = as_matrix(a, "a")
        found = exact(array, name="a")
        shape = (int(array.shape[-2]), int(array.shape[-1]))
        whole = make_spectrum(found, shape=shape, input_dtype=input_dtype(a))
        return whole.spectral_entropy(weights=weights, order=alpha, normalize=True)
    if alpha < 1.0:
        return _plain(_measures.renyi_entropy(_values(a), energy, alpha))
    return _sums(a, lambda values: _measures.renyi_entropy(values, energy, alpha))


def participation_ratio(a: Any) -> Reading:
    r"""Return the participation ratio: over how many directions the energy spreads.

    Between the stable rank and the energy effective rank; a few large values pull it down more than the effective rank.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.

    Returns
    -------
    float or ndarray of float64
        (sum s^2)^2 / sum s^4; 0 for a zero matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite; or if `a` is a partial spectrum.

    Notes
    -----
    Definition: :math:`(\sum_i s_i^2)^2 / \sum_i s_i^4`, the exponential of the energy entropy of order 2.

    Cost: one SVD up to a smaller side of 512; beyond, a Gram matrix and its eigenvalues, M n^2 + (4/3) n^3 flops with
    M >= n the two sides, and the exact route where noise would show by more than 1e-6.

    References
    ----------
    F. Wegner (1980), Inverse participation ratio in 2 + epsilon dimensions.

    Examples
    --------
    >>> import rankdiag as rd
    >>> round(rd.participation_ratio([[3.0, 0.0], [0.0, 1.0]]), 6)
    1.219512
    """
    if isinstance(a, Spectrum):
        return a.participation_ratio()
    return _sums(a, _measures.participation_ratio)


def stable_rank(a: Any) -> Reading:
    r"""Return the stable rank: the energy in units of the largest direction.

    Reacts only to the largest value: 1 means that one direction holds all energy, min(m, n) that all are equal. If it
    is 5 and the effective rank 300, a few strong directions stand over a broad floor.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.

    Returns
    -------
    float or ndarray of float64
        sum s^2 / s_1^2; 0 for a zero matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite; or if `a` is a partial spectrum of method ``"slq"``.

    Notes
    -----
    Definition: :math:`\|A\|_F^2 / \|A\|_2^2`, the exponential of the energy min-entropy. Also known as: numerical rank
    in the sense of Rudelson and Vershynin, intrinsic dimension of the Gram matrix.

    Cost: from a smaller side of 256 on no decomposition at all: the Frobenius norm, and Lanczos with full
    reorthogonalisation for the largest value, run in float32 until its residual is small and finished in float64; some
    60 products with a vector each way at 1024 x 1024. The result is good to relative 1e-6, usually to 1e-12; where the
    two largest values differ by only a few 1e-6 it may rest on the second. Where the iteration does not converge, a
    Gram matrix decides.

    References
    ----------
    M. Rudelson, R. Vershynin (2007), Sampling from large matrices, section 1.

    Examples
    --------
    >>> import rankdiag as rd
    >>> round(rd.stable_rank([[3.0, 0.0], [0.0, 1.0]]), 6)
    1.111111
    """
    if isinstance(a, Spectrum):
        return a.stable_rank()
    return _plain(stable_ranks(as_matrix(a, "a"), "a"))


def nuclear_ratio(a: Any) -> Reading:
    r"""Return the nuclear norm in units of the largest singular value.

    A softer stable rank: never below it, never above (nuclear / Frobenius)^2.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.

    Returns
    -------
    float or ndarray of float64
        sum s / s_1; 0 for a zero matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite; or if `a` is a partial spectrum.

    Notes
    -----
    Definition: :math:`\sum_i s_i / s_1`, the exponential of the sigma min-entropy.

    Cost: one SVD up to a smaller side of 512; beyond, a Gram matrix and its eigenvalues, M n^2 + (4/3) n^3 flops with
    M >= n the two sides, and the exact route where noise would show by more than 1e-6.

    References
    ----------
    N. Razin, N. Cohen (2020), arXiv 2005.06398, for norms beside ranks.

    Examples
    --------
    >>> from rankdiag.spectral import nuclear_ratio
    >>> round(nuclear_ratio([[3.0, 0.0], [0.0, 1.0]]), 6)
    1.333333
    """
    if isinstance(a, Spectrum):
        return a.nuclear_ratio()
    return _sums(a, _measures.nuclear_ratio)


def schatten_norm(a: Any, p: float | Literal["nuc", "fro", "spec"]) -> Reading:
    r"""Return a Schatten norm, or quasi-norm for p < 1: the p-norm of the singular values.

    p = 1 is the nuclear norm, 2 the Frobenius norm, infinity the spectral norm.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    p : float or {"nuc", "fro", "spec"}
        Power > 0, or the name of 1, 2 or infinity.

    Returns
    -------
    float or ndarray of float64
        Norm in the units of the matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or `p` is not positive, or the norm is beyond float64; or if
        `a` is a partial spectrum that this norm cannot be read from.

    Notes
    -----
    Definition: :math:`(\sum_i s_i^p)^{1/p}`. For p < 1 the triangle inequality holds with the constant
    :math:`2^{1/p - 1}`.

    Cost: one SVD up to a smaller side of 512; beyond, a Gram matrix and its eigenvalues, M n^2 + (4/3) n^3 flops with M
    >= n the two sides, and the exact route where noise would show by more than 1e-6. p = 2 is one pass over the
    entries; p < 1 listens to the smallest values, so it takes an SVD.

    References
    ----------
    N. Razin, N. Cohen (2020), arXiv 2005.06398. R. Bhatia (1997), Matrix Analysis, section IV.2.

    Examples
    --------
    >>> from rankdiag.spectral import schatten_norm
    >>> schatten_norm([[3.0, 0.0], [0.0, 4.0]], "nuc"), schatten_norm([[3.0, 0.0], [0.0, 4.0]], 2)
    (7.0, 5.0)
    """
    if isinstance(a, Spectrum):
        return a.schatten_norm(p)
    power = schatten_power(p)
    if power == 2.0:
        return _plain(frobenius(as_matrix(a, "a"), "a"))
    array = as_matrix(a, "a")

    def reading(values: Floats) -> Floats:
        return _measures.schatten_norm(values, power)

    found = exact(array, name="a") if power < 1.0 else for_sums(array, (reading,), name="a")
    norm = reading(found.values)
    if not np.isfinite(norm).all():
        raise ValueError(f"the Schatten norm with `p` = {power:g} is beyond float64 here; use a larger p")
    return _plain(norm)

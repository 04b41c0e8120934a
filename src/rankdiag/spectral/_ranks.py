"""Ranks and distances to ranks as functions: readings that listen to small singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import input_dtype
from rankdiag._validate import integer, real
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import EPS64, full_decomposition, gram_bound
from rankdiag.spectral._options import rank_tolerances
from rankdiag.spectral._routes import SMALL, as_matrix, exact
from rankdiag.spectral._spectrum import Count, Reading, Spectrum, rank_is_settled

__all__ = ["certified_rank", "distance_to_rank", "eps_rank", "numerical_rank"]

Floats = NDArray[np.float64]


def _count(value: Floats) -> Count:
    return value if value.ndim else int(value)


def numerical_rank(a: Any, *, rtol: float | None = None, atol: float | None = None) -> Count:
    r"""Return how many singular values stand above a tolerance.

    A claim about rank is a claim about the tolerance: state it beside the number (`Spectrum.rank_threshold`).

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    rtol : float, optional
        Relative to the largest value; by default max(m, n) eps of the dtype that came in (integers: float64), and eps
        alone for 16-bit and smaller floats.
    atol : float, optional
        Absolute, in the units of the matrix; 0 by default.

    Returns
    -------
    int or ndarray of float64
        Number of values above max(atol, rtol s_1); an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or a tolerance is negative; or if `a` is a partial spectrum.

    Notes
    -----
    Definition: :math:`\#\{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)\}`. The default is numpy's rule; for 16 bits
    its size factor would exceed 1, while rounding puts noise at only 0.03 to 0.1 eps s_1.

    Cost: from a smaller side of 512 on, and a threshold that a Gram spectrum can see, the count comes from the Gram
    matrix if no value lies within its error bound of the threshold; one SVD otherwise.

    References
    ----------
    W. Press et al. (2007), Numerical Recipes, section 2.6, for the default tolerance.

    Examples
    --------
    >>> import rankdiag as rd
    >>> rd.numerical_rank([[1.0, 2.0], [2.0, 4.0]]), rd.numerical_rank([[1.0, 0.0], [0.0, 1e-3]], rtol=1e-2)
    (1, 1)
    """
    if isinstance(a, Spectrum):
        return a.numerical_rank(rtol=rtol, atol=atol)
    relative, absolute = rank_tolerances(rtol, atol, (1, 1), "float64")
    array = as_matrix(a, "a")
    shape = (int(array.shape[-2]), int(array.shape[-1]))
    relative, absolute = rank_tolerances(rtol, atol, shape, input_dtype(a))
    # relative to s_1, what a Gram count needs; an absolute tolerance is only known to be large enough once s_1 is
    visible = relative > float(gram_bound(np.asarray(1.0), shape, EPS64)) or absolute > 0.0
    found = full_decomposition(array, "gram", name="a") if min(shape) > SMALL and visible else exact(array, name="a")
    threshold = np.maximum(absolute, relative * found.values[..., 0])
    if found.method == "gram" and not rank_is_settled(found.values, threshold, found.bound):
        found = exact(array, name="a")
        threshold = np.maximum(absolute, relative * found.values[..., 0])
    return _count(_measures.count_above(found.values, threshold))


def eps_rank(a: Any, eps: float) -> Count:
    r"""Return the smallest rank that leaves at most a share `eps` of the Frobenius norm.

    The rank that a truncated SVD needs for a relative error of `eps`.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    eps : float
        Share of the norm, >= 0; 0 counts the values that are not zero, 1 and more gives 0.

    Returns
    -------
    int or ndarray of float64
        Smallest R with sqrt(sum_{i>R} s_i^2) <= eps ||A||_F; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or `eps` is negative; or if `a` is a partial spectrum whose
        values do not reach that far.

    Notes
    -----
    The tail is summed from the smallest value up. Eckart-Young: no matrix of lower rank comes as close.

    Cost: one SVD, about 4 M n^2 to 12 M n^2 flops with M >= n the two sides; memory a copy of the matrix.

    References
    ----------
    C. Eckart, G. Young (1936), The approximation of one matrix by another of lower rank.

    Examples
    --------
    >>> from rankdiag.spectral import eps_rank
    >>> eps_rank([[3.0, 0.0], [0.0, 1.0]], 0.5), eps_rank([[3.0, 0.0], [0.0, 1.0]], 0.1)
    (1, 2)
    """
    if isinstance(a, Spectrum):
        return a.eps_rank(eps)
    share = real(eps, "eps", low=0.0, infinite=True)
    return _count(_measures.eps_rank(exact(as_matrix(a, "a"), name="a").values, share))


def distance_to_rank(a: Any, rank: int) -> Reading:
    r"""Return the Frobenius distance to the nearest matrix of a rank.

    0 at rank min(m, n), the Frobenius norm at rank 0.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    rank : int
        Between 0 and min(m, n).

    Returns
    -------
    float or ndarray of float64
        sqrt(sum_{i>rank} s_i^2), in the units of the matrix; an array over the leading axes for a stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or `rank` is out of range; or if `a` is a partial spectrum
        whose values do not reach that far.

    Notes
    -----
    By Eckart-Young the nearest matrix is the truncated SVD.

    Cost: one SVD, about 4 M n^2 to 12 M n^2 flops with M >= n the two sides; memory a copy of the matrix.

    References
    ----------
    C. Eckart, G. Young (1936), The approximation of one matrix by another of lower rank. N. Razin, N. Cohen (2020),
    arXiv 2005.06398, for its use as a measure of implicit regularization.

    Examples
    --------
    >>> from rankdiag.spectral import distance_to_rank
    >>> distance_to_rank([[3.0, 0.0], [0.0, 4.0]], 1), distance_to_rank([[3.0, 0.0], [0.0, 4.0]], 0)
    (3.0, 5.0)
    """
    if isinstance(a, Spectrum):
        return a.distance_to_rank(rank)
    r = integer(rank, "rank", low=0)
    array = as_matrix(a, "a")
    integer(r, "rank", low=0, high=min(array.shape[-2:]))
    tail = _measures.tail_norms(exact(array, name="a").values)[..., r]
    return tail if tail.ndim else float(tail)


def certified_rank(a: Any, error_norm: float) -> Count:
    r"""Return a rank that the true matrix has for certain, if `a` is known up to an error.

    If the true matrix differs from `a` by at most `error_norm` in the spectral norm, its rank is at least this.

    Parameters
    ----------
    a : array-like, torch.Tensor or Spectrum
        Matrix of shape (..., m, n), real or complex, or its spectrum.
    error_norm : float
        Bound on the spectral norm of the error, >= 0, in the units of the matrix.

    Returns
    -------
    int or ndarray of float64
        Number of values above `error_norm` plus the error bound of the spectrum; an array over the leading axes for a
        stack.

    Raises
    ------
    TypeError
        If `a` is no array of numbers.
    ValueError
        If `a` is not at least 2-D, is empty or not finite, or `error_norm` is negative; or if `a` is a partial
        spectrum.

    Notes
    -----
    Weyl: :math:`|s_i(A + E) - s_i(A)| \le \|E\|_2`. The error bound of the spectrum, 8 max(m, n, 16) eps s_1 for
    an SVD, pays for rounding.

    Cost: one SVD, about 4 M n^2 to 12 M n^2 flops with M >= n the two sides; memory a copy of the matrix.

    References
    ----------
    H. Weyl (1912), Das asymptotische Verteilungsgesetz der Eigenwerte linearer partieller Differentialgleichungen.

    Examples
    --------
    >>> from rankdiag.spectral import certified_rank
    >>> certified_rank([[3.0, 0.0], [0.0, 1.0]], 0.5), certified_rank([[3.0, 0.0], [0.0, 1.0]], 1.0)
    (2, 1)
    """
    if isinstance(a, Spectrum):
        return a.certified_rank(error_norm)
    size = real(error_norm, "error_norm", low=0.0)
    found = exact(as_matrix(a, "a"), name="a")
    return _count(_measures.count_above(found.values, size + found.bound))

"""Spectrum of a low-rank update ``scaling * B @ A`` from its factors, without forming it."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, machine_eps
from rankdiag._validate import real
from rankdiag.spectral._decompose import EPS64, TINY, svd_bound

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["lora_delta_spectrum", "lora_factor_spectra"]

Floats = NDArray[np.float64]


def lora_delta_spectrum(B: Any, A: Any, *, scaling: float = 1.0) -> Spectrum:
    r"""Return the singular values of the low-rank update ``scaling * B @ A``.

    Parameters
    ----------
    B : array-like of shape (out, r)
        Up-projection, zero in a fresh adapter.
    A : array-like of shape (r, in)
        Down-projection.
    scaling : float
        Factor in front, of any sign: ``lora_alpha / r`` in peft, ``lora_alpha / sqrt(r)`` with rank stabilisation.

    Returns
    -------
    rankdiag.spectral.Spectrum
        Of `shape` (out, in), with the min(r, out, in) values that need not be zero. The others are exactly zero and
        not listed, and every reading counts them: all readings are those of the dense update.
        `input_dtype` is the coarser one of the two factors.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a factor is not 2-D, is empty or not finite, if the inner sizes differ, if `scaling` is not finite, or if
        the product is beyond float64.

    See Also
    --------
    lora_factor_spectra : Spectra of the two factors, each on its own.

    Notes
    -----
    With :math:`B = Q_B R_B` and :math:`A^T = Q_A R_A`, the update is :math:`Q_B (c R_B R_A^T) Q_A^T` with
    orthonormal outer factors, so its non-zero singular values are those of the small matrix in the middle (derived).
    Products of transposed factors, as adapters of embeddings store them, have the same values.

    `error_bound` is relative to :math:`|c| \|B\|_2 \|A\|_2`, which is larger than the first value where the factors
    cancel each other.

    How to read it: the effective rank says how many of the r directions the adapter uses; a numerical rank below r
    means that a smaller r would have given the same update.

    Cost O((out + in) r^2) time and O((out + in) r) memory; the (out, in) product is never formed.

    References
    ----------
    E. J. Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685, equation 3.

    Examples
    --------
    >>> from rankdiag.weights import lora_delta_spectrum
    >>> s = lora_delta_spectrum([[1.0], [0.0]], [[2.0, 0.0]], scaling=0.5)
    >>> s.values.tolist(), s.shape, s.effective_rank()
    ([1.0], (2, 2), 1.0)
    """
    from rankdiag.spectral import Spectrum, singular_values

    left, right = _factors(B, A)
    factor = real(scaling, "scaling")
    digits, exponent = math.frexp(abs(factor))
    r_left, left_exponent = _triangle(left)
    r_right, right_exponent = _triangle(right.T)
    exponent += left_exponent + right_exponent
    values = singular_values(r_left @ r_right.T) * digits
    size = singular_values(r_left)[0] * singular_values(r_right)[0] * digits
    m, r, n = left.shape[0], left.shape[1], right.shape[1]
    spread = svd_bound(size, (max(m, n), r), EPS64)
    with np.errstate(over="ignore", under="ignore"):
        norm = float(np.ldexp(np.linalg.norm(values), exponent))
        values = np.ldexp(values, exponent)
        bound = float(np.ldexp(spread, exponent)) + (TINY if size else 0.0)
    if not (math.isfinite(norm) and math.isfinite(bound)):
        raise ValueError("`B`, `A` and `scaling` have a product beyond float64; lower the scaling")
    dtype = max(input_dtype(B), input_dtype(A), key=machine_eps)
    found = Spectrum.from_values(values, shape=(m, n), input_dtype=dtype, error_bound=bound)
    meta = dataclasses.replace(
        found.meta,
        definition="singular values of the update scaling * B A, from its factors",
        details={**found.meta.details, "scaling": factor, "r": r},
    )
    return dataclasses.replace(found, meta=meta)


def lora_factor_spectra(B: Any, A: Any) -> tuple[Spectrum, Spectrum]:
    """Return the spectra of the two factors of a low-rank update, each on its own.

    Parameters
    ----------
    B : array-like of shape (out, r)
        Up-projection.
    A : array-like of shape (r, in)
        Down-projection.

    Returns
    -------
    spectrum_b, spectrum_a : rankdiag.spectral.Spectrum
        Of `B` and of `A`; the scaling belongs to neither.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a factor is not 2-D, is empty or not finite, or if the inner sizes differ.

    See Also
    --------
    lora_delta_spectrum : Spectrum of the update that they make together.

    Notes
    -----
    A fresh adapter has a random `A` and a zero `B`; the spectrum of `B` shows what training has added, that of `A`
    is near its start for as long as the update is small. Cost O((out + in) r^2).

    References
    ----------
    E. J. Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685, section 4.1.

    Examples
    --------
    >>> from rankdiag.weights import lora_factor_spectra
    >>> b, a = lora_factor_spectra([[0.0], [0.0]], [[3.0, 4.0]])
    >>> b.numerical_rank(), a.values.tolist()
    (0, [5.0])
    """
    from rankdiag.spectral import spectrum

    _factors(B, A)
    return spectrum(B), spectrum(A)


def _factors(B: Any, A: Any) -> tuple[Floats, Floats]:
    left = as_float64(B, "B", ndim=2, expected="a factor (out, r)")
    right = as_float64(A, "A", ndim=2, expected="a factor (r, in)")
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"`A` must have as many rows as `B` has columns; got B of shape {left.shape} and A of shape {right.shape}"
        )
    return left, right


def _triangle(tall: Floats) -> tuple[Floats, int]:
    """Triangular factor of `tall` divided by a power of two, and the exponent of that power."""
    exponent = int(np.frexp(np.abs(tall).max())[1])
    return np.asarray(np.linalg.qr(np.ldexp(tall, -exponent), mode="r")), exponent

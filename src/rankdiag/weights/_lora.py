"""Spectrum of a low-rank update ``scaling * B @ A`` from its factors, without forming it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, machine_eps
from rankdiag._validate import real

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["lora_delta_spectrum", "lora_factor_spectra"]


def lora_delta_spectrum(B: Any, A: Any, *, scaling: float = 1.0) -> Spectrum:
    from rankdiag.spectral import Spectrum

    left, right = _factors(B, A)
    scaling = real(scaling, "scaling")
    out, inner = left.shape[0], right.shape[1]
    r_left, left_exponent = _triangle(left)
    r_right, right_exponent = _triangle(right.T)
    core = np.linalg.svd(r_left @ r_right.T, compute_uv=False)
    values = np.zeros(min(out, inner))
    values[: core.size] = np.ldexp(core * abs(scaling), left_exponent + right_exponent)
    size = float(np.linalg.norm(r_left, 2) * np.linalg.norm(r_right, 2)) * abs(scaling)
    bound = 8 * max(out, inner, left.shape[1]) * float(np.finfo(np.float64).eps) * size
    return Spectrum.from_values(
        values,
        shape=(out, inner),
        input_dtype=max((input_dtype(B), input_dtype(A)), key=machine_eps),
        error_bound=float(np.ldexp(bound, left_exponent + right_exponent)),
    )


def lora_factor_spectra(B: Any, A: Any) -> tuple[Spectrum, Spectrum]:
    from rankdiag.spectral import spectrum

    _factors(B, A)
    return spectrum(B), spectrum(A)


def _factors(B: Any, A: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left = as_float64(B, "B", ndim=2, expected="a factor (out, r)")
    right = as_float64(A, "A", ndim=2, expected="a factor (r, in)")
    if left.shape[1] != right.shape[0]:
        raise ValueError(
            f"`A` must have as many rows as `B` has columns; got B of shape {left.shape} and A of shape {right.shape}"
        )
    return left, right


def _triangle(tall: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Triangular factor of `tall` over a power of two, and the exponent of that power."""
    exponent = int(np.frexp(np.abs(tall).max())[1])
    scaled = np.ldexp(tall, -exponent)
    triangle: NDArray[np.float64] = np.linalg.qr(scaled, mode="r")
    return triangle, exponent

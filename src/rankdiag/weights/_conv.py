"""Spectra of convolution kernels: as a flat matrix, slice by slice, or as the operator on an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, memory_limit
from rankdiag._validate import choice, describe, integer

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["conv_spectrum"]

_BLOCK = 1 << 26  # bytes of transfer matrices held at a time


def conv_spectrum(
    weight: Any, *, mode: Literal["flatten", "slices", "fft"] = "flatten", input_size: Sequence[int] | None = None
) -> Spectrum:
    from rankdiag.spectral import Spectrum, spectrum

    mode = choice(mode, "mode", ("flatten", "slices", "fft"))
    array = as_float64(weight, "weight", min_ndim=3, expected="a kernel (out, in, k...)")
    name = input_dtype(weight)
    out, inner = array.shape[:2]
    eps = float(np.finfo(np.float64).eps)
    if mode != "fft" and input_size is not None:
        raise ValueError(f"`input_size` is for mode='fft' only; got {input_size!r} with mode={mode!r}")
    if mode == "flatten":
        return dataclasses.replace(spectrum(array.reshape(out, -1)), input_dtype=name)
    if mode == "slices":
        stack = np.moveaxis(array.reshape(out, inner, -1), -1, 0)
        count = stack.shape[0]
        values = np.sort(np.linalg.svd(stack, compute_uv=False), axis=None)[::-1]
        return Spectrum.from_values(
            values,
            shape=(count * out, count * inner),
            input_dtype=name,
            error_bound=8 * max(out, inner) * eps * float(values[0]),
        )
    height, width = _size(array, input_size)
    values = _operator_values(array, height, width)
    return Spectrum.from_values(
        values,
        shape=(height * width * out, height * width * inner),
        input_dtype=name,
        error_bound=8 * max(out, inner) * eps * float(values[0]),
    )


def _size(array: NDArray[np.float64], input_size: Any) -> tuple[int, int]:
    if array.ndim != 4:
        raise ValueError(f"`weight` must be (out, in, kh, kw) for mode='fft'; got shape {array.shape}")
    if input_size is None:
        raise ValueError("`input_size` (h, w) is needed for mode='fft': the spectrum depends on it; got None")
    if isinstance(input_size, (str, bytes)) or not isinstance(input_size, Sequence) or len(input_size) != 2:
        raise TypeError(f"`input_size` must be two integers (h, w); got {describe(input_size)}")
    height, width = (integer(side, "input_size", low=1) for side in input_size)
    need = 24 * height * width * min(array.shape[:2])
    if need > memory_limit():
        raise ValueError(
            f"`input_size` {(height, width)} gives {height * width * min(array.shape[:2])} singular values, which need "
            f"{need / 1e9:.1f} GB, more than the {memory_limit() / 1e9:.1f} GB of this machine; pass a smaller one"
        )
    return height, width


def _operator_values(array: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    kh, kw = array.shape[2:]
    rows = np.exp(-2j * np.pi * (np.outer(np.arange(height), np.arange(kh)) % height) / height)
    found = []
    for column in range(width // 2 + 1):
        twice = 0 < column and 2 * column != width
        phase = np.exp(-2j * np.pi * (column * np.arange(kw) % width) / width)
        stack = np.tensordot(rows, np.moveaxis(array @ phase, 2, 0), axes=1)
        values = np.linalg.svd(stack, compute_uv=False).ravel()
        found += [values, values] if twice else [values]
    result: NDArray[np.float64] = np.sort(np.concatenate(found))[::-1]
    return result

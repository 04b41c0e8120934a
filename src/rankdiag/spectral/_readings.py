"""The public functions: `spectrum`, and every measure of a matrix or of a spectrum."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._validate import boolean, choice, integer, real
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import full_decomposition, prefers_qr
from rankdiag.spectral._spectrum import (
    Count,
    Reading,
    Spectrum,
    Weights,
    make_spectrum,
    rank_tolerances,
    schatten_power,
)

__all__ = [
    "certified_rank",
    "distance_to_rank",
    "effective_rank",
    "eps_rank",
    "nuclear_ratio",
    "numerical_rank",
    "participation_ratio",
    "schatten_norm",
    "singular_values",
    "spectral_entropy",
    "spectrum",
    "stable_rank",
]

_SMALL = 512


def _matrix(a: Any, name: str) -> NDArray[Any]:
    return as_float64(a, name, min_ndim=2, allow_complex=True, expected="a matrix")


def spectrum(
    matrix: Any,
    *,
    method: Literal["auto", "svd", "qr_svd", "gram", "topk", "slq"] = "auto",
    need: Literal["rank", "sums", "top"] = "rank",
    k: int | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    rng: int | np.random.Generator | None = None,
) -> Spectrum:
    """Decompose a matrix."""
    route = choice(method, "method", ("auto", "svd", "qr_svd", "gram", "topk", "slq"))
    wanted = choice(need, "need", ("rank", "sums", "top"))
    arithmetic = choice(dtype, "dtype", ("float64", "float32"))
    array = _matrix(matrix, "matrix")
    m, n = int(array.shape[-2]), int(array.shape[-1])
    if route == "auto":
        if min(m, n) <= _SMALL:
            route = "svd"
        elif wanted == "sums":
            route = "gram"
        else:
            route = "qr_svd" if prefers_qr((m, n)) else "svd"
    if route in {"topk", "slq"}:
        raise NotImplementedError(route)
    found = full_decomposition(array, route, dtype=arithmetic)
    return make_spectrum(found, shape=(m, n), input_dtype=input_dtype(matrix), arithmetic=arithmetic)


def _read(a: Any, need: Literal["rank", "sums"] = "rank") -> Spectrum:
    return a if isinstance(a, Spectrum) else spectrum(a, need=need)


def singular_values(a: Any) -> NDArray[np.float64]:
    """Return the singular values."""
    return _read(a).singular_values()


def effective_rank(a: Any, *, weights: Weights = "sigma") -> Reading:
    """Return the effective rank."""
    return _read(a, "sums").effective_rank(weights=weights)


def spectral_entropy(a: Any, *, weights: Weights = "sigma", order: float = 1.0, normalize: bool = False) -> Reading:
    """Return the entropy."""
    return _read(a).spectral_entropy(weights=weights, order=order, normalize=normalize)


def participation_ratio(a: Any) -> Reading:
    """Return the participation ratio."""
    return _read(a, "sums").participation_ratio()


def stable_rank(a: Any) -> Reading:
    """Return the stable rank."""
    return _read(a, "sums").stable_rank()


def nuclear_ratio(a: Any) -> Reading:
    """Return the nuclear ratio."""
    return _read(a).nuclear_ratio()


def schatten_norm(a: Any, p: float | Literal["nuc", "fro", "spec"]) -> Reading:
    """Return the Schatten norm."""
    return _read(a).schatten_norm(p)


def numerical_rank(a: Any, *, rtol: float | None = None, atol: float | None = None) -> Count:
    """Return the numerical rank."""
    return _read(a).numerical_rank(rtol=rtol, atol=atol)


def eps_rank(a: Any, eps: float) -> Count:
    """Return the eps rank."""
    return _read(a).eps_rank(eps)


def distance_to_rank(a: Any, rank: int) -> Reading:
    """Return the distance."""
    return _read(a).distance_to_rank(rank)


def certified_rank(a: Any, error_norm: float) -> Count:
    """Return the certified rank."""
    return _read(a).certified_rank(error_norm)

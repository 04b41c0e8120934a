"""Random matrices as a baseline: what a layer would look like if its entries were independent noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from rankdiag._array import as_float64, input_dtype
from rankdiag._result import Meta, Result
from rankdiag._rng import as_generator
from rankdiag._validate import describe, integer, real

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = [
    "MarchenkoPastur",
    "marchenko_pastur",
    "marchenko_pastur_edge",
    "marchenko_pastur_effective_rank",
    "mp_outliers",
    "shuffled_spectrum",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MarchenkoPastur(Result):
    """Spectrum of a large random matrix in closed form.

    Attributes
    ----------
    m, n : int
        Shape of the matrix.
    std : float
        Standard deviation of its entries.
    edge : float
        Where the singular values end: ``std (sqrt(m) + sqrt(n))``.
    lower_edge : float
        Where they begin: ``std |sqrt(m) - sqrt(n)|``.
    effective_rank : float
        Sigma effective rank.
    effective_rank_energy : float
        Energy effective rank.
    participation_ratio : float
        Participation ratio.
    stable_rank : float
        Stable rank.
    effective_rank_ratio : float
        `effective_rank` over ``min(m, n)``.
    """

    tag: ClassVar[str] = "weights.MarchenkoPastur"

    m: int
    n: int
    std: float
    edge: float
    lower_edge: float
    effective_rank: float
    effective_rank_energy: float
    participation_ratio: float
    stable_rank: float
    effective_rank_ratio: float


def marchenko_pastur(m: int, n: int, *, std: float = 1.0) -> MarchenkoPastur:
    m, n = integer(m, "m", low=1), integer(n, "n", low=1)
    std = real(std, "std", low=0.0)
    small, large = min(m, n), max(m, n)
    rank = marchenko_pastur_effective_rank(m, n)
    return MarchenkoPastur(
        m=m,
        n=n,
        std=std,
        edge=marchenko_pastur_edge(m, n, std),
        lower_edge=std * (math.sqrt(large) - math.sqrt(small)),
        effective_rank=rank,
        effective_rank_energy=max(1.0, small * math.exp(-0.5 * small / large)),
        participation_ratio=max(1.0, small / (1 + small / large)),
        stable_rank=max(1.0, small / (1 + math.sqrt(small / large)) ** 2),
        effective_rank_ratio=rank / small,
        meta=Meta(definition="limit of a large m x n matrix with independent entries of mean 0"),
    )


def marchenko_pastur_edge(m: int, n: int, std: float) -> float:
    m, n = integer(m, "m", low=1), integer(n, "n", low=1)
    return real(std, "std", low=0.0) * (math.sqrt(m) + math.sqrt(n))


def marchenko_pastur_effective_rank(m: int, n: int) -> float:
    m, n = integer(m, "m", low=1), integer(n, "n", low=1)
    small, large = min(m, n), max(m, n)
    if small == 1:
        return 1.0
    return small * _ratio(small, large)


@lru_cache(maxsize=4096)
def _ratio(small: int, large: int) -> float:
    """Sigma effective rank over `small` in the limit of a large matrix of this shape."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    # Panels that halve towards the lower edge resolve it however close to 0 it lies.
    edges = np.concatenate([[0.0], np.pi * 2.0 ** np.arange(-30, 1)])
    half = np.diff(edges)[:, None] / 2
    phi = (edges[:-1, None] + half + half * nodes).ravel()
    weight = (half * weights).ravel()
    root = math.sqrt(small / large)
    gap = (large - small) / large / (1 + root)
    sine = np.sin(phi / 2)
    value = np.sqrt(gap * gap + 4 * root * sine * sine)
    density = (2 / np.pi) * weight * np.sin(phi) ** 2 / value**2
    mean = float(density @ value)
    mean_log = float(density @ (value * np.log(value)))
    return mean * math.exp(-mean_log / mean)


def mp_outliers(values: Any, shape: Sequence[int], std: float, *, margin: float = 0.02) -> int:
    spectrum = as_float64(values, "values", ndim=1, allow_empty=True, expected="a list of singular values")
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise TypeError(f"`shape` must be two integers (m, n); got {describe(shape)}")
    m, n = (integer(side, "shape", low=1) for side in shape)
    margin = real(margin, "margin", low=0.0)
    return int((spectrum > marchenko_pastur_edge(m, n, std) * (1 + margin)).sum())


def shuffled_spectrum(
    matrix: Any, *, rng: int | np.random.Generator | None = None, need: Literal["rank", "sums", "top"] = "rank"
) -> Spectrum:
    from rankdiag.spectral import spectrum

    array = as_float64(matrix, "matrix", ndim=2, expected="a matrix")
    generator, seed = as_generator(rng)
    result = spectrum(generator.permutation(array.ravel()).reshape(array.shape), need=need)
    return dataclasses.replace(
        result,
        input_dtype=input_dtype(matrix),
        meta=dataclasses.replace(result.meta, seed=seed, dtype=input_dtype(matrix)),
    )

"""What type checkers see of `rankdiag.spectral`: checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import rankdiag as rd
from rankdiag.spectral import (
    GramAccumulator,
    QRAccumulator,
    Spectrum,
    certified_rank,
    distance_to_rank,
    effective_rank_loss,
    eps_rank,
    nuclear_ratio,
    participation_ratio_loss,
    schatten_norm,
    singular_values,
    spectrum,
    stable_rank_loss,
)


def readings_of_a_matrix(weight: NDArray[np.float32], tensor: torch.Tensor) -> None:
    # a plain number for one matrix, an array for a stack: usable as either without a cast
    assert_type(rd.effective_rank(weight), float | Any)
    assert_type(rd.effective_rank(tensor, weights="energy"), float | Any)
    assert_type(rd.spectral_entropy(weight, order=2, normalize=True), float | Any)
    assert_type(rd.participation_ratio(weight), float | Any)
    assert_type(rd.stable_rank([[1.0, 2.0]]), float | Any)
    assert_type(nuclear_ratio(weight), float | Any)
    assert_type(schatten_norm(weight, "nuc"), float | Any)
    assert_type(distance_to_rank(weight, 3), float | Any)
    assert_type(rd.numerical_rank(weight, rtol=1e-3), int | Any)
    assert_type(eps_rank(weight, 0.1), int | Any)
    assert_type(certified_rank(weight, 0.1), int | Any)
    assert_type(singular_values(weight), NDArray[np.float64])
    number: float = rd.effective_rank(weight)
    count: int = rd.numerical_rank(weight)
    print(number, count)


def readings_of_a_spectrum(weight: NDArray[np.float64]) -> None:
    s = spectrum(weight, method="topk", k=3, rng=0)
    assert_type(s, Spectrum)
    assert_type(s.values, NDArray[np.float64])
    assert_type(s.shape, tuple[int, int])
    assert_type(s.stable_rank(), float | Any)
    assert_type(s.numerical_rank(), int | Any)
    assert_type(s.error_bound, float | NDArray[np.float64])
    assert_type(rd.effective_rank(s), float | Any)
    assert_type(Spectrum.from_values([1.0, 2.0]), Spectrum)


def streams(block: NDArray[np.float32]) -> None:
    gram = GramAccumulator(4, shape=(8, 4), input_dtype="float32")
    gram.update(block)
    assert_type(gram.merge(gram), GramAccumulator)
    assert_type(gram.spectrum(), Spectrum)
    assert_type(QRAccumulator(4, shape=(8, 4), input_dtype="float32").spectrum(), Spectrum)


def losses(weight: torch.Tensor) -> None:
    assert_type(effective_rank_loss(weight, weights="energy"), torch.Tensor)
    assert_type(participation_ratio_loss(weight), torch.Tensor)
    assert_type(stable_rank_loss(weight), torch.Tensor)


def refused(weight: NDArray[np.float64]) -> None:
    rd.effective_rank(weight, weights="squares")  # type: ignore[arg-type]  # an unknown choice
    rd.effective_rank(weight, weigths="energy")  # type: ignore[call-arg]  # a misspelt option
    spectrum(weight, method="lanczos")  # type: ignore[arg-type]  # an unknown method

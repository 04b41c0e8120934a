"""Routes to a spectrum beside LAPACK's SVD of the same matrix and the one product that bounds a Gram spectrum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import rankdiag as rd
from rankdiag.weights import power_law_tail

ONE_RUN = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}


def measure(benchmark: Any, work: Callable[[Any], None], data: Any, *, goal: float = 0, baseline: bool = False) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": baseline})
    benchmark.pedantic(work, args=(data,), **ONE_RUN)


def svd_float64(matrix: np.ndarray) -> None:
    scipy.linalg.svdvals(matrix)


def product(matrix: np.ndarray) -> None:
    matrix @ matrix.T


def by(method: str) -> Callable[[np.ndarray], None]:
    def run(matrix: np.ndarray) -> None:
        rd.spectrum(matrix, method=method, k=1 if method == "topk" else None, rng=0)

    return run


@pytest.mark.benchmark(group="wide matrix, four times as wide as high", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(svd_float64, id="svdvals-float64"),
        pytest.param(product, id="gram-product-only"),
        pytest.param(by("svd"), id="svd"),
        pytest.param(by("qr_svd"), id="qr_svd"),
        pytest.param(by("gram"), id="gram"),
        pytest.param(by("topk"), id="topk-1"),
        pytest.param(rd.effective_rank, id="effective_rank"),
        pytest.param(rd.stable_rank, id="stable_rank"),
        pytest.param(rd.numerical_rank, id="numerical_rank"),
    ],
)
def test_wide(benchmark: Any, size: int, work: Any) -> None:
    matrix = np.random.default_rng(0).standard_normal((size, 4 * size))
    measure(benchmark, work, matrix, baseline=work is svd_float64)


@pytest.mark.benchmark(group="effective rank of a large square matrix", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(rd.effective_rank, id="gram"),
        pytest.param(by("slq"), id="slq"),
    ],
)
def test_stochastic(benchmark: Any, size: int, work: Any) -> None:
    matrix = np.random.default_rng(0).standard_normal((4 * size, 4 * size))
    measure(benchmark, work, matrix, baseline=work is rd.effective_rank)


def direct_loop(evals: np.ndarray) -> None:
    """The fit from its definition: every cut-off, its exponent and its distance in turn."""
    x = np.sort(evals)
    best = math.inf
    for start in range(x.size - 1):
        tail = x[start:]
        slope = tail.size / np.log(tail / tail[0]).sum()
        gap = np.abs(1 - (tail / tail[0]) ** -slope - np.arange(tail.size) / tail.size)
        best = min(best, gap.max())


@pytest.mark.benchmark(group="power-law tail of 4 x size eigenvalues", timer=time.process_time)
@pytest.mark.parametrize(
    "work", [pytest.param(direct_loop, id="direct-loop"), pytest.param(power_law_tail, id="power_law_tail")]
)
def test_tail(benchmark: Any, size: int, work: Any) -> None:
    rng = np.random.default_rng(0)
    evals = np.linalg.svd(rng.standard_normal((4 * size, 64)), compute_uv=False) ** 2
    evals = np.concatenate([evals, rng.pareto(2.0, 4 * size - evals.size) + 1])
    measure(benchmark, work, evals, baseline=work is direct_loop)

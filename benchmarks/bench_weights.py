"""Weight reports beside plain SVDs of the same ten matrices, and the GEMM that bounds a Gram spectrum from below."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import rankdiag as rd

LAYERS = 10
ONE_RUN = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}


def random_layers(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"layers.{i}.weight": rng.standard_normal((size, size)).astype(np.float32) for i in range(LAYERS)}


def low_rank_layers(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"layers.{i}.weight": (rng.standard_normal((size, 5)) @ rng.standard_normal((5, size))).astype(np.float32)
        for i in range(LAYERS)
    }


def svd_float64(layers: dict[str, np.ndarray]) -> None:
    for weight in layers.values():
        scipy.linalg.svdvals(weight.astype(np.float64))


def svd_float32(layers: dict[str, np.ndarray]) -> None:
    for weight in layers.values():
        scipy.linalg.svdvals(weight)


def gram_product(layers: dict[str, np.ndarray]) -> None:
    for weight in layers.values():
        wide = weight.astype(np.float64)
        wide.T @ wide


def report(measures: str) -> Callable[[dict[str, np.ndarray]], None]:
    def run(layers: dict[str, np.ndarray]) -> None:
        assert len(rd.weight_report(layers, measures=measures)) == LAYERS

    return run


def measure(
    benchmark: Any, work: Callable[[Any], None], layers: Any, *, goal: float = 0, baseline: bool = False
) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": baseline})
    benchmark.pedantic(work, args=(layers,), **ONE_RUN)


@pytest.mark.benchmark(group="random layers", timer=time.process_time)
@pytest.mark.parametrize(
    ("work", "goal"),
    [
        pytest.param(svd_float64, 0, id="svdvals-float64"),
        pytest.param(gram_product, 0, id="gram-product-only"),
        pytest.param(report("no_tail"), 0.6, id="report-without-tail"),
        pytest.param(report("all"), 0, id="report-with-tail"),
    ],
)
def test_random_layers(benchmark: Any, size: int, work: Any, goal: float) -> None:
    measure(benchmark, work, random_layers(size), goal=goal, baseline=work is svd_float64)


@pytest.mark.benchmark(group="stable rank of random layers", timer=time.process_time)
@pytest.mark.parametrize(
    ("work", "goal"),
    [
        pytest.param(svd_float32, 0, id="svdvals-float32"),
        pytest.param(report("stable_rank"), 0.1, id="report-stable-rank"),
    ],
)
def test_stable_rank(benchmark: Any, size: int, work: Any, goal: float) -> None:
    measure(benchmark, work, random_layers(size), goal=goal, baseline=work is svd_float32)


@pytest.mark.benchmark(group="rank-5 layers", timer=time.process_time)
@pytest.mark.parametrize(
    ("work", "goal"),
    [
        pytest.param(svd_float64, 0, id="svdvals-float64"),
        pytest.param(report("no_tail"), 1.7, id="report-without-tail"),
    ],
)
def test_low_rank_layers(benchmark: Any, size: int, work: Any, goal: float) -> None:
    measure(benchmark, work, low_rank_layers(size), goal=goal, baseline=work is svd_float64)

"""Array side of the preference room beside the plainest implementation and the pass over memory that bounds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.preference import ches_from_sums, dataset_pressure, edit_similarity

ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}
WIDTH = 512


def measure(benchmark: Any, work: Callable[[Any], Any], data: Any, *, goal: float = 0, baseline: bool = False) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": baseline})
    benchmark.pedantic(work, args=(data,), **ROUNDS)


def plain_table(pairs: Any) -> None:
    """The quadratic table, one row kept."""
    for a, b in pairs:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            new = [i]
            for j, y in enumerate(b, 1):
                new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
            row = new


def bit_parallel(pairs: Any) -> None:
    for a, b in pairs:
        edit_similarity(a, b)


def edits(benchmark: Any, length: int, work: Any) -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 32000, length).tolist(), rng.integers(0, 32000, length).tolist()) for _ in range(8)]
    measure(benchmark, work, pairs, goal=0.2 if work is bit_parallel else 0, baseline=work is plain_table)


WORK = pytest.mark.parametrize(
    "work", [pytest.param(plain_table, id="plain-table"), pytest.param(bit_parallel, id="edit_similarity")]
)


@pytest.mark.benchmark(group="edit similarity of 8 pairs of size/16 random ids", timer=time.process_time)
@WORK
def test_short_edits(benchmark: Any, size: int, work: Any) -> None:
    edits(benchmark, max(4, size // 16), work)


@pytest.mark.benchmark(group="edit similarity of 8 pairs of size/2 random ids", timer=time.process_time)
@WORK
def test_long_edits(benchmark: Any, size: int, work: Any) -> None:
    edits(benchmark, max(4, size // 2), work)


def sums(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = 60_000 if size >= 1024 else 8 * size
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, WIDTH)), rng.standard_normal((count, WIDTH)), rng.integers(1, 99, count)


def one_pass(data: Any) -> None:
    data[0].sum()
    data[1].sum()


def plain_einsum(data: Any) -> None:
    """Every column of the result from its formula over whole arrays."""
    plus, minus, n = data
    mean_plus, mean_minus = plus / n[:, None], minus / (n + 1)[:, None]
    for a, b in ((plus, minus), (plus, plus), (minus, minus), (mean_plus, mean_minus - mean_plus)):
        np.einsum("nd,nd->n", a, b)
    gap = plus - minus
    np.einsum("nd,nd->n", gap, gap)


def scores(data: Any) -> None:
    ches_from_sums(data[0], data[1], data[2], data[2] + 1)


@pytest.mark.benchmark(group="CHES of 60000 x 512 sums", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(plain_einsum, id="plain-einsum"),
        pytest.param(one_pass, id="one-pass-over-memory"),
        pytest.param(scores, id="ches_from_sums"),
    ],
)
def test_ches(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, sums(size), goal=1 if work is scores else 0, baseline=work is plain_einsum)


def matrix_vector(data: Any) -> None:
    data[0] @ data[1][0]


def pressure(data: Any) -> None:
    dataset_pressure(data[0], data[1])


@pytest.mark.benchmark(group="pressure of 60000 x 512 sums", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(matrix_vector, id="one-matrix-vector-product"),
        pytest.param(one_pass, id="one-pass-over-memory"),
        pytest.param(pressure, id="dataset_pressure"),
    ],
)
def test_pressure(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, sums(size), goal=3 if work is pressure else 0, baseline=work is one_pass)

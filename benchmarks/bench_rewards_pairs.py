"""Pair metrics of 2000 prompts and 64 rollouts, beside all pairs at once and beside one pass over the comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import _pair_counts, ranking_accuracy

pytest.importorskip("pytest_benchmark")


def _table(n: int, k: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, k)), rng.normal(size=(n, k)), rng.normal(-1.0, 0.1, size=(n, k))


def plainest(p: Any, g: Any, logs: Any) -> tuple[float, float]:
    """Accuracy and weighted accuracy from the definition, every pair in memory."""
    i, j = np.triu_indices(p.shape[1], 1)
    kept = g[:, i] != g[:, j]
    right = np.where(g[:, i] > g[:, j], p[:, i] > p[:, j], p[:, j] > p[:, i]) + 0.5 * (p[:, i] == p[:, j])
    weight = np.exp(logs[:, i] + logs[:, j])
    return right[kept].mean(), (weight * right)[kept].sum() / weight[kept].sum()


def one_pass(p: Any, g: Any) -> int:
    """One comparison of each pair, the least that any such count needs."""
    pt, count = np.ascontiguousarray(p.T), 0
    size = max(1, (1 << 15) // len(pt))
    for start in range(0, pt.shape[1], size):
        block = np.ascontiguousarray(pt[:, start : start + size])
        for d in range(1, len(block)):
            count += int(np.count_nonzero(block[:-d] > block[d:]))
    return count


@pytest.mark.parametrize("way", ["ours", "plainest", "one pass"])
def test_accuracy_and_weighted_accuracy(benchmark: Any, way: str) -> None:
    p, g, logs = _table(2000, 64)

    def ours() -> tuple[float, float]:
        weighted = ranking_accuracy(p, g, weighting="sequence", log_probs=logs)
        return ranking_accuracy(p, g).accuracy, weighted.accuracy

    if way == "one pass":
        benchmark(one_pass, p, g)
        return
    found = benchmark(ours) if way == "ours" else benchmark(plainest, p, g, logs)
    np.testing.assert_allclose(found, plainest(p, g, logs), rtol=1e-10)


@pytest.mark.parametrize("k", [512, 5_120, 51_200])
def test_slope_of_the_sweep(benchmark: Any, k: int) -> None:
    p, g, logs = _table(1, k)
    benchmark(_pair_counts.pair_sums, p, g, log_weights=logs)

"""Pair metrics of 2000 prompts and 64 rollouts, and of prompts with many, beside every pair in memory.

The plain way holds eight arrays over all pairs: both rewards, both log-probabilities, what is right, what is waived,
and two kinds of weights. The limits are one comparison of each pair, and one sort.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import ranking_accuracy

Works = dict[str, Callable[[], Any]]


def table(n: int, k: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, k)), rng.normal(size=(n, k)), rng.normal(-1.0, 0.1, size=(n, k))


def plainest(p: Any, g: Any, logs: Any) -> list[float]:
    """Accuracy, harm-aware accuracy and both of them weighted, from the definition."""
    i, j = np.triu_indices(p.shape[1], 1)
    gold_i, gold_j, proxy_i, proxy_j = g[:, i], g[:, j], p[:, i], p[:, j]
    kept = gold_i != gold_j
    chosen, rejected = np.where(gold_i > gold_j, proxy_i, proxy_j), np.where(gold_i > gold_j, proxy_j, proxy_i)
    right = (chosen > rejected) + 0.5 * (chosen == rejected)
    waived = np.where(rejected < p.mean(axis=1, keepdims=True), 1.0, right)
    logits = np.where(kept, logs[:, i] + logs[:, j], -np.inf)
    weight = np.exp(logits - logits.max())
    weight /= weight.sum()
    return [right[kept].mean(), waived[kept].mean(), (weight * right).sum(), (weight * waived).sum()]


def ours(p: Any, g: Any, logs: Any) -> list[float]:
    weighted: dict[str, Any] = {"weighting": "sequence", "log_probs": logs}
    return [
        ranking_accuracy(p, g, harm_aware=harm, **options).accuracy
        for options in ({}, weighted)
        for harm in (False, True)
    ]


def one_pass(p: Any) -> None:
    """One comparison of each pair, the least that any such count needs."""
    turned = np.ascontiguousarray(p.T)
    size = max(1, (1 << 15) // len(turned))
    for start in range(0, turned.shape[1], size):
        block = np.ascontiguousarray(turned[:, start : start + size])
        for d in range(1, len(block)):
            np.count_nonzero(block[:-d] > block[d:])


def many_prompts(size: int) -> Works:
    p, g, logs = table(2000 if size >= 1024 else 200, 64)
    return {
        "plain-every-pair": lambda: plainest(p, g, logs),
        "one-comparison-each": lambda: one_pass(p),
        "ranking_accuracy": lambda: ours(p, g, logs),
    }


def two_figures(size: int) -> Works:
    p, g, logs = table(2000 if size >= 1024 else 200, 64)
    figures: Works = many_prompts(size)
    return {
        "plain-every-pair": lambda: plainest(p, g, logs)[::2],
        "one-comparison-each": figures["one-comparison-each"],
        "ranking_accuracy": lambda: [
            ranking_accuracy(p, g).accuracy,
            ranking_accuracy(p, g, weighting="sequence", log_probs=logs).accuracy,
        ],
    }


def one_prompt(k: int) -> Works:
    """All four figures of one prompt of k rollouts."""
    p, g, logs = table(1, k)

    def sorts() -> None:
        np.sort(p[0])
        np.sort(g[0])

    return {
        "plain-every-pair": lambda: plainest(p, g, logs),
        "two-sorts": sorts,
        "ranking_accuracy": lambda: ours(p, g, logs),
    }


def many_rollouts(size: int) -> Works:
    return one_prompt(4096 if size >= 1024 else 512)


CASES: dict[str, Any] = {
    "accuracy and weighted accuracy, 2000 x 64": (
        two_figures,
        {"plain-every-pair": None, "one-comparison-each": None, "ranking_accuracy": 0.037},
    ),
    "the same two harm-aware too": (
        many_prompts,
        {"plain-every-pair": None, "one-comparison-each": None, "ranking_accuracy": 0.037},
    ),
    "four accuracies of one prompt with 4096 rollouts": (
        many_rollouts,
        {"plain-every-pair": None, "two-sorts": None, "ranking_accuracy": None},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_pairs(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

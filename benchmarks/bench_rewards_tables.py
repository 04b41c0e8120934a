"""Summaries and moments of tables of rewards beside the plainest numpy and the pass over memory that bounds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import MomentState, RewardTable, reward_moments, summarize

ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}
ROLLOUTS = 8


def measure(benchmark: Any, work: Callable[[Any], Any], data: Any, *, goal: float = 0, baseline: bool = False) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": baseline})
    benchmark.pedantic(work, args=(data,), **ROUNDS)


def prompts(size: int) -> int:
    return 1_000_000 if size >= 1024 else 100 * size


def normal(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((prompts(size), ROLLOUTS))


def binary(size: int) -> np.ndarray:
    """Rewards of a verifier, a tenth of them missing."""
    rng = np.random.default_rng(0)
    table = (rng.random((prompts(size), ROLLOUTS)) < 0.3).astype(np.float64)
    table[rng.random(table.shape) < 0.1] = np.nan
    return table


def one_pass(table: Any) -> None:
    table.sum()


def plain_moments(table: Any) -> None:
    """Count, mean, variance, standard deviation, ends and distinct rewards, one numpy call for each."""
    (~np.isnan(table)).sum(axis=1)
    np.nanmean(table, axis=1)
    np.nanvar(table, axis=1, ddof=1)
    np.nanstd(table, axis=1, ddof=1)
    np.nanmin(table, axis=1)
    np.nanmax(table, axis=1)
    ordered = np.sort(table, axis=1)
    (ordered[:, 1:] > ordered[:, :-1]).sum(axis=1)


def plain_summary(table: Any) -> None:
    """The figures of a summary from whole arrays, as a notebook computes them."""
    count = (~np.isnan(table)).sum(axis=1)
    use = table[count >= 2]
    mean, var, std = np.nanmean(use, axis=1), np.nanvar(use, axis=1, ddof=1), np.nanstd(use, axis=1, ddof=1)
    low, high = np.nanmin(use, axis=1), np.nanmax(use, axis=1)
    levels = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    np.quantile(std, levels)
    np.quantile(mean, levels)
    for flags in (low == high, (low == high) & (low == low.min()), (low == high) & (low == high.max())):
        flags.mean()
    for tau in (0.01, 0.05):
        (std <= tau).mean()
        ((std <= tau) & (mean < 0.5)).mean()
    np.median(count)
    var.std(ddof=1)
    mean.std(ddof=1)
    np.nanvar(use, ddof=1)
    (count[count >= 2] * (mean - np.nanmean(use)) ** 2).sum()
    np.histogram(std, bins=30)


def moments(table: Any) -> None:
    reward_moments(table)


def summary(table: Any) -> None:
    summarize(table)


def cases(plain: Any, ours: Any, name: str) -> Any:
    return pytest.mark.parametrize(
        "work",
        [
            pytest.param(plain, id="plain-numpy"),
            pytest.param(one_pass, id="one-pass-over-memory"),
            pytest.param(ours, id=name),
        ],
    )


@pytest.mark.benchmark(group="moments of 10^6 x 8 rewards", timer=time.process_time)
@cases(plain_moments, moments, "reward_moments")
def test_moments(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, normal(size), goal=1 if work is moments else 0, baseline=work is plain_moments)


@pytest.mark.benchmark(group="summary of 10^6 x 8 rewards", timer=time.process_time)
@cases(plain_summary, summary, "summarize")
def test_summary(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, normal(size), goal=1 if work is summary else 0, baseline=work is plain_summary)


@pytest.mark.benchmark(group="summary of 10^6 x 8 verdicts, a tenth missing", timer=time.process_time)
@cases(plain_summary, summary, "summarize")
def test_summary_with_holes(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, binary(size), goal=1 if work is summary else 0, baseline=work is plain_summary)


def plain_groups(rows: Any) -> None:
    """A dictionary of lists, padded by a loop."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row["reward"])
    width = max(map(len, groups.values()))
    np.array([rewards + [np.nan] * (width - len(rewards)) for rewards in groups.values()])


def records(rows: Any) -> None:
    RewardTable.from_records(rows)


@pytest.mark.benchmark(group="table of size x 256 records", timer=time.process_time)
@pytest.mark.parametrize(
    "work", [pytest.param(plain_groups, id="plain-dictionary"), pytest.param(records, id="from_records")]
)
def test_records(benchmark: Any, size: int, work: Any) -> None:
    rows = [{"prompt_id": f"p{index % (32 * size)}", "reward": float(index % 3)} for index in range(256 * size)]
    measure(benchmark, work, rows, goal=2 if work is records else 0, baseline=work is plain_groups)


def streamed(table: Any) -> None:
    state = MomentState()
    for part in np.array_split(table, 64):
        state = state.update(part)


def plain_variance(table: Any) -> None:
    table.mean()
    table.var(ddof=1)
    table.min()
    table.max()


@pytest.mark.benchmark(group="8 x 10^6 rewards streamed in 64 parts", timer=time.process_time)
@cases(plain_variance, streamed, "MomentState")
def test_stream(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, normal(size), goal=3 if work is streamed else 0, baseline=work is plain_variance)

"""Summaries and moments of tables of rewards beside the plainest numpy and the pass over memory that bounds them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import MomentState, RewardTable, reward_moments, summarize

Works = dict[str, Callable[[], Any]]

ROLLOUTS = 8


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


def groups(make: Any, plain: Any, ours: Any, name: str) -> Any:
    """Three works on one table that `make` returns."""

    def works(size: int) -> Works:
        table = make(size)
        return {
            "plain-numpy": lambda: plain(table),
            "one-pass-over-memory": lambda: one_pass(table),
            name: lambda: ours(table),
        }

    return works, {"plain-numpy": None, "one-pass-over-memory": None, name: 3.0 if name == "MomentState" else 1.0}


def plain_groups(rows: Any) -> None:
    """A dictionary of lists, padded by a loop."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["prompt_id"], []).append(row["reward"])
    width = max(map(len, found.values()))
    np.array([rewards + [np.nan] * (width - len(rewards)) for rewards in found.values()])


def one_loop(rows: Any) -> None:
    """Look at each record once."""
    for row in rows:
        row["prompt_id"], row["reward"]


def records(size: int) -> Works:
    rows = [{"prompt_id": f"p{index % (32 * size)}", "reward": float(index % 3)} for index in range(256 * size)]

    def ours() -> None:
        RewardTable.from_records(rows)

    return {
        "plain-dictionary": lambda: plain_groups(rows),
        "one-loop-over-records": lambda: one_loop(rows),
        "from_records": ours,
    }


def streamed(table: Any) -> None:
    state = MomentState()
    for part in np.array_split(table, 64):
        state = state.update(part)


def plain_variance(table: Any) -> None:
    table.mean()
    table.var(ddof=1)
    table.min()
    table.max()


def moments(table: Any) -> None:
    reward_moments(table)


def summary(table: Any) -> None:
    summarize(table)


CASES: dict[str, Any] = {
    "moments of 10^6 x 8 rewards": groups(normal, plain_moments, moments, "reward_moments"),
    "summary of 10^6 x 8 rewards": groups(normal, plain_summary, summary, "summarize"),
    "summary of 10^6 x 8 verdicts, a tenth missing": groups(binary, plain_summary, summary, "summarize"),
    "table of size x 256 records": (
        records,
        {"plain-dictionary": None, "one-loop-over-records": None, "from_records": 2.0},
    ),
    "8 x 10^6 rewards streamed in 64 parts": groups(normal, plain_variance, streamed, "MomentState"),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_tables(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""What one prompt after the other costs: streams of moments, shares without spread, certified intervals.

Plain code is a dictionary of lists of five numbers that a loop updates, a count over all subsets, and a standard
deviation of everything seen so far at each new reward. The limits are one sort and one pass.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.monitors import RewardStdMetric
from rankdiag.rewards import MomentState, SequentialStd, low_std_fraction, std_interval, zero_std_at_k

Works = dict[str, Callable[[], Any]]


# --- streams ----------------------------------------------------------------------------------------------------------


def stream(prompts: int) -> list[tuple[Any, Any]]:
    """Return batches of 4096 rewards and their prompts, 8 for each prompt, in random order."""
    rng = np.random.default_rng(0)
    keys = rng.permutation(np.repeat(np.arange(prompts), 8))
    rewards = rng.random(len(keys))
    return [(rewards[i : i + 4096], keys[i : i + 4096]) for i in range(0, len(keys), 4096)]


def plain_states(batches: Any) -> dict[int, list[float]]:
    """Welford's update of [count, mean, sum of squares, lowest, highest], one reward after the other."""
    states: dict[int, list[float]] = {}
    for rewards, keys in batches:
        for reward, key in zip(rewards.tolist(), keys.tolist(), strict=True):
            state = states.get(key)
            if state is None:
                states[key] = [1, reward, 0.0, reward, reward]
                continue
            state[0] += 1
            gap = reward - state[1]
            state[1] += gap / state[0]
            state[2] += gap * (reward - state[1])
            if reward < state[3]:
                state[3] = reward
            if reward > state[4]:
                state[4] = reward
    return states


def plain_rms(batches: Any) -> float:
    states = plain_states(batches).values()
    return math.sqrt(sum(state[2] / (state[0] - 1) for state in states) / len(states))


def metric_rms(batches: Any) -> float:
    metric = RewardStdMetric()
    for rewards, keys in batches:
        metric.update(torch.from_numpy(rewards), torch.from_numpy(keys))
    return float(metric.compute()["rms_std"])


def one_sort(batches: Any) -> None:
    np.argsort(np.concatenate([keys for _, keys in batches]), kind="stable")


def shuffled(size: int) -> Works:
    return streams(100_000 if size >= 1024 else 2_000)


def streams(prompts: int) -> Works:
    batches = stream(prompts)
    return {
        "plain-dictionary": lambda: plain_rms(batches),
        "one-sort-of-the-keys": lambda: one_sort(batches),
        "RewardStdMetric": lambda: metric_rms(batches),
    }


def groups(size: int) -> Works:
    """Rewards that come as whole groups of 8: one state for each prompt."""
    rows = np.random.default_rng(0).random((20_000 if size >= 1024 else 500, 8))
    batches = [(rows.ravel(), np.repeat(np.arange(len(rows)), 8))]

    def ours() -> float:
        states = [MomentState.from_values(row) for row in rows]
        return math.sqrt(sum(state.var() for state in states) / len(states))

    return {
        "plain-dictionary": lambda: plain_rms(batches),
        "numpy-variance-of-each": lambda: math.sqrt(sum(row.var(ddof=1) for row in rows) / len(rows)),
        "MomentState": ours,
    }


# --- shares without spread --------------------------------------------------------------------------------------------


def plain_share(row: Any, k: int) -> float:
    """The share of all k-subsets whose rewards are equal, each of them made."""
    flat = total = 0
    for subset in itertools.combinations(row.tolist(), k):
        total += 1
        flat += min(subset) == max(subset)
    return flat / total


def plain_levels(row: Any, k: int) -> float:
    """The same by counting the rewards of each level."""
    counts = Counter(row.tolist())
    return sum(math.comb(n, k) for n in counts.values()) / math.comb(len(row), k)


def verdicts(count: int, k: int) -> Any:
    return (np.random.default_rng(0).random((count, k)) < 0.3).astype(np.float64)


def sort(rows: Any) -> None:
    np.sort(rows, axis=1)


def subsets(size: int) -> Works:
    rows = verdicts(50 if size >= 1024 else 5, 16)
    return {
        "plain-all-subsets": lambda: np.array([plain_share(row, 8) for row in rows]),
        "one-sort": lambda: sort(rows),
        "zero_std_at_k": lambda: zero_std_at_k(rows, 8),
    }


def levels(size: int) -> Works:
    rows = verdicts(20_000 if size >= 1024 else 500, 64)
    return {
        "plain-levels": lambda: np.array([plain_levels(row, 8) for row in rows]),
        "one-sort": lambda: sort(rows),
        "zero_std_at_k": lambda: zero_std_at_k(rows, 8),
    }


# --- certified spreads ------------------------------------------------------------------------------------------------


def plain_interval(values: Any, delta: float = 0.05) -> tuple[float, float]:
    """Maurer and Pontil's interval for rewards in [0, 1], written down."""
    n = len(values)
    mean = sum(values) / n
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    radius = math.sqrt(2.0 * math.log(1.0 / delta) / (n - 1))
    return max(0.0, std - radius), min(0.5, std + radius)


def intervals(size: int) -> Works:
    rows = np.random.default_rng(0).random((2_000 if size >= 1024 else 100, 64))

    def at_once() -> None:
        """The intervals of all prompts in one call, which keeps their shares alone."""
        low_std_fraction(rows, 0.05, method="certified", reward_range=(0.0, 1.0))

    def stds() -> None:
        for row in rows:
            row.std(ddof=1)

    def ours(method: Any) -> Any:
        made = [std_interval(row, method=method, reward_range=(0.0, 1.0)) for row in rows]
        return np.array([(one.lower, one.upper) for one in made]) if method == "maurer_pontil" else None

    return {
        "plain-maurer-pontil": lambda: np.array([plain_interval(row.tolist()) for row in rows]),
        "numpy-std-of-each": stds,
        "maurer_pontil": lambda: ours("maurer_pontil"),
        "self_bounding": lambda: ours("self_bounding"),
        "low_std_fraction": at_once,
    }


def looks(size: int) -> Works:
    """One reward after the other, 1024 at most, for 20 prompts; plain code makes the interval anew at each."""
    rows = np.random.default_rng(0).random((20 if size >= 1024 else 1, 1024))
    ends = 2.0 * 0.05  # at the n-th look a share 6 / (pi n)^2 of delta, half of it on each side

    def plain() -> None:
        for row in rows:
            seen: list[float] = []
            for reward in row.tolist():
                seen.append(reward)
                if len(seen) > 1:
                    plain_interval(seen, ends / len(seen) ** 2)

    def ours(method: Any) -> None:
        for row in rows:
            rule = SequentialStd(0.3, reward_range=(0.0, 1.0), max_rollouts=1024, method=method)
            for reward in row:
                rule.update([reward])

    return {
        "plain-interval-at-each": plain,
        "maurer_pontil": lambda: ours("maurer_pontil"),
        "self_bounding": lambda: ours("self_bounding"),
    }


CASES: dict[str, Any] = {
    "800000 rewards of 100000 prompts in random order": (
        shuffled,
        {"plain-dictionary": None, "one-sort-of-the-keys": None, "RewardStdMetric": 1.0},
    ),
    "20000 groups of 8 rewards": (
        groups,
        {"plain-dictionary": None, "numpy-variance-of-each": None, "MomentState": None},
    ),
    "equal subsets, 50 x 16, k = 8": (subsets, {"plain-all-subsets": None, "one-sort": None, "zero_std_at_k": 1.0}),
    "equal subsets, 20000 x 64, k = 8": (levels, {"plain-levels": None, "one-sort": None, "zero_std_at_k": 1.0}),
    "intervals of 2000 prompts": (
        intervals,
        {
            "plain-maurer-pontil": None,
            "numpy-std-of-each": None,
            "maurer_pontil": None,
            "self_bounding": None,
            "low_std_fraction": 1.0,
        },
    ),
    "1024 single rewards of 20 prompts": (
        looks,
        {"plain-interval-at-each": None, "maurer_pontil": 1.0, "self_bounding": 1.0},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_prompts(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

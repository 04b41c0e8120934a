"""What watching rewards costs: one step of 1024 completions, beside a plain computation and beside a step of GRPO.

``python -m pytest benchmarks/bench_reward_monitor.py --benchmark-enable``. The plain computation is a loop over groups
with numpy's own mean and variance: what a reward function would do by hand for the same readings, less the quantiles.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.monitors import RewardLandscapeCallback, RewardLandscapeMonitor, RewardStdMetric, wrap_reward_fn

GROUP = 8


def plainly(functions: list[list[float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    sums = [sum(row) for row in zip(*functions, strict=True)]
    groups = [np.array(sums[first : first + GROUP]) for first in range(0, len(sums), GROUP)]
    variances = np.array([group.var(ddof=1) for group in groups])
    flat = np.array([group.min() == group.max() for group in groups])
    found["within_std_rms"] = float(np.sqrt(variances.mean()))
    found["frac_zero_std"] = float(flat.mean())
    found["frac_all_worst"] = float(np.mean([f and g[0] == min(sums) for f, g in zip(flat, groups, strict=True)]))
    found["frac_all_best"] = float(np.mean([f and g[0] == max(sums) for f, g in zip(flat, groups, strict=True)]))
    found["frac_low_std"] = float((variances <= 0.05**2).mean())
    between = GROUP * np.var([group.mean() for group in groups], ddof=1)
    found["icc"] = float((between - variances.mean()) / (between + (GROUP - 1) * variances.mean()))
    found["normalised_variance"] = float(variances.mean() / np.var(sums, ddof=1))
    for place, rewards in enumerate(functions):
        own = [np.array(rewards[first : first + GROUP]) for first in range(0, len(sums), GROUP)]
        spread = np.array([group.var(ddof=1) for group in own])
        found[f"{place}/within_std_rms"] = float(np.sqrt(spread.mean()))
        found[f"{place}/conflict"] = float(((spread > 0) & flat).mean())
        found[f"{place}/zero_in_sum"] = float(((spread == 0) & ~flat).mean())
    return found


@pytest.mark.benchmark(group="rewards of one step", timer=time.process_time)
@pytest.mark.parametrize("what", ["plain", "monitor-by-place", "monitor-by-prompt"])
def test_one_step(benchmark: Any, size: int, what: str) -> None:
    draw = np.random.default_rng(0)
    functions = [draw.integers(0, 3, size).astype(float).tolist() for _ in range(2)]
    prompts = [f"What is {index // GROUP} plus one? Answer in one word." for index in range(size)]
    monitor = RewardLandscapeMonitor(group_size=GROUP if what == "monitor-by-place" else None)

    def giver(name: str, rewards: list[float]) -> Any:
        def function(prompts: Any, completions: Any) -> list[float]:
            return rewards

        function.__name__ = name
        return wrap_reward_fn(function, monitor)

    watched = [giver(str(place), rewards) for place, rewards in enumerate(functions)]

    def watch() -> dict[str, float]:
        for function in watched:
            function(prompts=prompts, completions=prompts)
        return monitor.collect()

    run = (lambda: plainly(functions)) if what == "plain" else watch
    plain, found = plainly(functions), watch()
    for name, value in plain.items():
        assert found[f"rankdiag/rewards/{name}"] == pytest.approx(value)
    benchmark.extra_info.update({"goal": 0 if what == "plain" else 1.0, "baseline": what == "plain"})
    benchmark.pedantic(run, rounds=50 if size >= 1024 else 5, iterations=20, warmup_rounds=2)
    if what == "monitor-by-place" and benchmark.stats is not None and size <= 1024:
        assert benchmark.stats.stats.median < 1e-3


@pytest.mark.benchmark(group="four steps of GRPO", timer=time.process_time)
@pytest.mark.parametrize("watched", [pytest.param(False, id="alone"), pytest.param(True, id="watched")])
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")
def test_four_steps(benchmark: Any, size: int, tmp_path: Path, watched: bool) -> None:
    pytest.importorskip("trl")
    from monitors.dpo_run import save_model
    from monitors.rewards_run import reward_trainer

    model = save_model(tmp_path / "model")
    monitors: list[RewardLandscapeMonitor] = []
    took: list[float] = []
    steps = 4 if size >= 1024 else 1

    def early(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        return [float(sum(ids) % 3 == 0) for ids in completion_ids]

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        monitor = RewardLandscapeMonitor()
        function = wrap_reward_fn(early, monitor) if watched else early
        sizes = {"per_device_train_batch_size": size, "num_generations": max(2, size // 32)}
        made = reward_trainer(model, tmp_path, "grpo", [function], max_steps=steps, **sizes)
        if watched:
            RewardLandscapeCallback(monitor).bind(made)
            monitors.append(monitor)
        return (made,), {}

    benchmark.extra_info.update({"goal": 1.1 if watched else 0, "baseline": not watched})

    def train(made: Any) -> None:
        began = time.perf_counter()
        made.train()
        took.append(time.perf_counter() - began)

    benchmark.pedantic(train, setup=setup, rounds=3 if size >= 1024 else 1)
    if monitors:  # noise of training is larger than what the monitor takes, so that is measured by itself
        share = [monitor.seconds / seconds for monitor, seconds in zip(monitors, took, strict=True)]
        benchmark.extra_info["share_of_the_monitor"] = share
        assert size < 1024 or min(share) < 0.01


@pytest.mark.benchmark(group="a batch of 64 rewards into a metric", timer=time.process_time)
@pytest.mark.parametrize("what", ["MeanMetric", "RewardStdMetric"])
def test_one_update(benchmark: Any, what: str) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    rewards, prompts = torch.rand(64, generator=torch.Generator().manual_seed(0)), torch.arange(64) // 8
    mean, spread = torchmetrics.MeanMetric(), RewardStdMetric()
    run = (lambda: mean.update(rewards)) if what == "MeanMetric" else (lambda: spread.update(rewards, prompts))
    benchmark.extra_info.update({"goal": 0 if what == "MeanMetric" else 3, "baseline": what == "MeanMetric"})
    benchmark.pedantic(run, rounds=50, iterations=100, warmup_rounds=2)

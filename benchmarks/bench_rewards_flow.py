"""The simulator on the five-output instance beside a plain autograd loop and beside its bare right-hand sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import simulate_policy_gradient
from rankdiag.rewards._flow_methods import Problem

ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}
STEPS, SHORTER = 50_000, 50  # the autograd loop makes one step in fifty; multiply its time by that
START, GOLD = [0.05, 0.5, 0.15, 0.15, 0.15], [1.0, 0.8, -1.0, -1.0, -1.0]
SIDES = 530  # right-hand sides of this flow to t = 5000, counted


def updates(size: int) -> int:
    return STEPS if size >= 1024 else STEPS // 50


def autograd(steps: int) -> None:
    """One step in fifty of the loop that the definition suggests."""
    import torch

    logits = torch.tensor(START, dtype=torch.float64).log().requires_grad_()
    reward = torch.tensor(GOLD, dtype=torch.float64)
    optimizer = torch.optim.SGD([logits], lr=0.1)
    for _ in range(max(1, steps // SHORTER)):
        optimizer.zero_grad()
        (-(torch.softmax(logits, 0) @ reward)).backward()
        optimizer.step()


def right_hand_sides(count: int) -> None:
    problem = Problem(start=np.log(START), reward=np.array(GOLD), log_ref=np.log(START))
    for _ in range(count):
        problem.pulls(problem.start)


def flow_sides(steps: int) -> None:
    right_hand_sides(SIDES)


def step_sides(steps: int) -> None:
    right_hand_sides(steps)


def flow(steps: int) -> None:
    simulate_policy_gradient(START, GOLD, {"gold": GOLD}, horizon=0.1 * steps, stop=("gold", 0.95))


def gd(steps: int) -> None:
    simulate_policy_gradient(START, GOLD, {"gold": GOLD}, method="gd", steps=steps, stop=("gold", 0.95))


def measure(benchmark: Any, work: Callable[[int], None], size: int, goal: float) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": work is autograd})
    benchmark.pedantic(work, args=(updates(size),), **ROUNDS)


@pytest.mark.benchmark(group="five outputs, 50000 steps; the loop makes 1000", timer=time.process_time)
@pytest.mark.parametrize(
    ("work", "goal"),
    [
        pytest.param(autograd, 0, id="plain-autograd-one-step-in-50"),
        pytest.param(flow_sides, 0, id="right-hand-sides-of-a-flow"),
        pytest.param(step_sides, 0, id="right-hand-sides-of-all-steps"),
        pytest.param(flow, 0, id="flow"),
        pytest.param(gd, 0, id="gd"),
    ],
)
def test_five_outputs(benchmark: Any, size: int, work: Any, goal: float) -> None:
    measure(benchmark, work, size, goal)

"""The simulator on the five-output instance beside plain loops, and beside its bare right-hand sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import simulate_policy_gradient
from rankdiag.rewards._flow_methods import Problem

Works = dict[str, Callable[[], Any]]

STEPS, RATE = 50_000, 0.1
PART = 50  # the autograd loop makes one step in fifty: its time, times fifty, is what all of them would take
START, GOLD = [0.05, 0.5, 0.15, 0.15, 0.15], [1.0, 0.8, -1.0, -1.0, -1.0]
SIDES = 530  # right-hand sides of this flow to t = 5000, counted


def updates(size: int) -> int:
    return STEPS if size >= 1024 else STEPS // 50


def plain_loop(steps: int, stop: float = np.inf) -> list[float]:
    """Exact gradient steps as they are written down; the mean reward is looked at before each, as a user would."""
    probs, reward = np.array(START), np.array(GOLD)
    logits = np.log(probs)
    for _ in range(steps):
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        value = probs @ reward
        if value >= stop:
            break
        logits += RATE * probs * (reward - value)
    probs = np.exp(logits - logits.max())
    return list(probs / probs.sum())


def autograd(steps: int) -> None:
    """One step in fifty of the loop that a framework suggests."""
    import torch

    logits = torch.tensor(START, dtype=torch.float64).log().requires_grad_()
    reward = torch.tensor(GOLD, dtype=torch.float64)
    optimizer = torch.optim.SGD([logits], lr=RATE)
    for _ in range(max(1, steps // PART)):
        optimizer.zero_grad()
        (-(torch.softmax(logits, 0) @ reward)).backward()
        optimizer.step()


def right_hand_sides(count: int) -> None:
    problem = Problem(start=np.log(START), reward=np.array(GOLD), log_ref=np.log(START))
    for _ in range(count):
        problem.pulls(problem.start)


def flow(steps: int) -> None:
    """Follow the flow to t = 5000; it is not the loop, which makes steps of 0.1."""
    simulate_policy_gradient(START, GOLD, {"gold": GOLD}, horizon=RATE * steps, stop=("gold", 0.95))


def gd(steps: int) -> Any:
    run = simulate_policy_gradient(START, GOLD, {"gold": GOLD}, method="gd", lr=RATE, steps=steps, stop=("gold", 0.95))
    return run.probs[-1]


def plain_samples(steps: int) -> list[float]:
    """Draw one output a step by inversion, one uniform number each; no baseline."""
    probs, reward = np.array(START), np.array(GOLD)
    logits = np.log(probs)
    for uniform in np.random.default_rng(0).random(steps):
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        drawn = int(np.searchsorted(np.cumsum(probs[:-1]), uniform, side="right"))
        logits -= RATE * reward[drawn] * probs
        logits[drawn] += RATE * reward[drawn]
    probs = np.exp(logits - logits.max())
    return list(probs / probs.sum())


def reinforce(steps: int) -> Any:
    return simulate_policy_gradient(START, GOLD, method="reinforce", lr=RATE, steps=steps, rng=0).probs[-1]


def five_outputs(size: int) -> Works:
    steps = updates(size)
    return {
        "plain-numpy-loop": lambda: plain_loop(steps, 0.95),
        "plain-autograd-one-step-in-50": lambda: autograd(steps),
        "right-hand-sides-of-a-flow": lambda: right_hand_sides(SIDES),
        "flow": lambda: flow(steps),
        "gd": lambda: gd(steps),
    }


def samples(size: int) -> Works:
    steps = updates(size)
    return {"plain-numpy-loop": lambda: plain_samples(steps), "reinforce": lambda: reinforce(steps)}


def many_instances(size: int) -> Works:
    """Twenty instances at once beside one plain loop after the other."""
    steps = updates(size) // 10
    starts = np.tile(START, (20, 1))
    return {
        "plain-numpy-loops": lambda: [plain_loop(steps) for _ in starts],
        "gd": lambda: simulate_policy_gradient(starts, GOLD, method="gd", lr=RATE, steps=steps).probs[-1],
    }


CASES: dict[str, Any] = {
    "five outputs, 50000 steps": (
        five_outputs,
        {
            "plain-numpy-loop": None,
            "plain-autograd-one-step-in-50": None,
            "right-hand-sides-of-a-flow": None,
            "flow": 0.26,
            "gd": 1.0,
        },
    ),
    "five outputs, 50000 sampled steps": (samples, {"plain-numpy-loop": None, "reinforce": 1.0}),
    "twenty instances, 5000 steps": (many_instances, {"plain-numpy-loops": None, "gd": 0.2}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_flow(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""Derivatives of the theory beside the plainest correct code, and beside the one product that nothing can avoid."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.preference import multi_token_dynamics, simulate_single_token

ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}
TOKENS, WIDTH, STEPS = 64, 256, 100


def measure(benchmark: Any, work: Callable[[Any], Any], data: Any, *, goal: float = 0, baseline: bool = False) -> None:
    benchmark.extra_info.update({"goal": goal, "baseline": baseline})
    benchmark.pedantic(work, args=(data,), **ROUNDS)


def responses(size: int) -> tuple[Any, ...]:
    """Return W, states and ids of two responses that share nothing but the prompt."""
    rng = np.random.default_rng(0)
    vocabulary = 8 * size
    weight = rng.standard_normal((vocabulary, WIDTH)) / WIDTH**0.5
    plus, minus = rng.standard_normal((2, TOKENS, WIDTH))
    minus[0] = plus[0]
    return weight, plus, minus, np.arange(TOKENS), np.arange(TOKENS) + TOKENS


def one_product(data: Any) -> None:
    """Logits of the distinct states."""
    weight, plus, minus, *_ = data
    np.vstack([plus, minus[1:]]) @ weight.T


def plain_gradients(data: Any) -> None:
    """Gradients by W and by every state, formed whole, and their inner products."""
    weight, plus, minus, plus_ids, minus_ids = data
    gradients = []
    for states, ids in ((plus, plus_ids), (minus, minus_ids)):
        logits = states @ weight.T
        logits -= logits.max(axis=1, keepdims=True)
        delta = np.exp(logits)
        delta /= -delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(ids)), ids] += 1
        gradients.append((delta.T @ states, delta @ weight, delta))
    first, second = gradients
    for a, b, shared in ((first, first, TOKENS), (first, second, 1), (second, second, TOKENS)):
        np.vdot(a[0], b[0]) + np.vdot(a[1][:shared], b[1][:shared])
    first[2] @ first[2].T, first[2] @ second[2].T


def dynamics(data: Any) -> None:
    multi_token_dynamics(*data)


@pytest.mark.benchmark(group="derivatives of two responses of 64 tokens, d 256", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(one_product, id="one-product-of-logits"),
        pytest.param(plain_gradients, id="plain-gradients"),
        pytest.param(dynamics, id="multi_token_dynamics"),
    ],
)
def test_dynamics(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, responses(size), goal=3 if work is dynamics else 0, baseline=work is one_product)


def token(size: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((8 * size, WIDTH)) / WIDTH**0.5, rng.standard_normal(WIDTH)


def logits_only(data: Any) -> None:
    """What every step needs: the logits."""
    weight, h = data
    for _ in range(STEPS):
        weight @ h


def autograd(data: Any) -> None:
    """Gradient descent on W and h, with the gradients of torch."""
    import torch

    weight, h = (torch.tensor(array, requires_grad=True) for array in data)
    start = torch.log_softmax(weight @ h, 0).detach()
    for _ in range(STEPS):
        logp = torch.log_softmax(weight @ h, 0)
        loss = -torch.nn.functional.logsigmoid(0.1 * ((logp - start)[0] - (logp - start)[1]))
        steps = torch.autograd.grad(loss, (weight, h))
        with torch.no_grad():
            weight -= 0.01 * steps[0]
            h -= 0.01 * steps[1]


def simulate(data: Any) -> None:
    simulate_single_token(data[0], data[1], 0, 1, lr=0.01, steps=STEPS)


@pytest.mark.benchmark(group="100 steps on one token, d 256", timer=time.process_time)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(logits_only, id="logits-of-every-step"),
        pytest.param(autograd, id="autograd"),
        pytest.param(simulate, id="simulate_single_token"),
    ],
)
def test_simulation(benchmark: Any, size: int, work: Any) -> None:
    measure(benchmark, work, token(size), goal=2 if work is simulate else 0, baseline=work is logits_only)

"""What one step on a pair does to other responses, beside gradients of the output layer that are really formed.

Plain code makes the gradient of the unembedding, (V, d), of each response and takes products of all pairs of them.
The limit is one product of all states with the output layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.rewards import ResponseStates, reward_transfer

Works = dict[str, Callable[[], Any]]


def responses(rng: np.random.Generator, count: int, tokens: int, vocab: int, width: int) -> list[ResponseStates]:
    return [ResponseStates(rng.normal(size=(tokens, width)), rng.integers(0, vocab, tokens)) for _ in range(count)]


def gradient(response: ResponseStates, words: Any) -> Any:
    """Gradient of ln pi of one response by the output layer, (V, d)."""
    delta = response.states @ words.T
    delta -= delta.max(axis=1, keepdims=True)
    np.exp(delta, out=delta)
    delta /= -delta.sum(axis=1, keepdims=True)
    delta[np.arange(len(response)), response.tokens] += 1.0
    return delta.T @ response.states


def plain(chosen: Any, rejected: Any, watched: Any, words: Any) -> Any:
    trained = [gradient(a, words) - gradient(b, words) for a, b in zip(chosen, rejected, strict=True)]
    found = np.empty((len(watched), len(trained)))
    for row, response in enumerate(watched):
        own = gradient(response, words)
        for column, other in enumerate(trained):
            found[row, column] = 0.5 * np.vdot(own, other)  # sigmoid(0), the weight of the loss
    return found


def transfer(count: int, tokens: int, vocab: int, width: int) -> Works:
    """`count` training pairs and as many evaluated responses, of `tokens` tokens each."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(vocab, width)) / np.sqrt(width)
    chosen, rejected, watched = (responses(rng, count, tokens, vocab, width) for _ in range(3))
    states = np.concatenate([response.states for part in (chosen, rejected, watched) for response in part])

    def product() -> None:
        for start in range(0, vocab, 1024):
            states @ words[start : start + 1024].T

    return {
        "plain-gradients": lambda: plain(chosen, rejected, watched, words),
        "one-product-with-the-output-layer": product,
        "reward_transfer": lambda: reward_transfer(chosen, rejected, watched, kind="im", unembedding=words),
    }


def short(size: int) -> Works:
    return transfer(16, 24, 32000, 128) if size >= 1024 else transfer(4, 6, 500, 32)


def long(size: int) -> Works:
    return transfer(8, 128, 16000, 512) if size >= 1024 else transfer(3, 12, 500, 32)


_NAMES = {"plain-gradients": None, "one-product-with-the-output-layer": None, "reward_transfer": 1.0}
CASES: dict[str, Any] = {
    "transfer, 16 x 16 responses of 24 tokens, V = 32000, d = 128": (short, _NAMES),
    "transfer, 8 x 8 responses of 128 tokens, V = 16000, d = 512": (long, _NAMES),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_transfer(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

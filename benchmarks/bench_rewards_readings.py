"""What the smaller readings of the rewards room cost beside their formulas, prompt by prompt or as arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.rewards import (
    ResponseStates,
    attraction,
    error_attribution,
    error_report,
    exact_reward_moments,
    normalised_reward_variance,
    pair_accuracy,
    response_log_probs,
    teacher_report,
    token_coefficients,
    trl_batch_metrics,
    variance_components,
)

Works = dict[str, Callable[[], Any]]


def policies(size: int) -> tuple[Any, Any, Any]:
    """Return probabilities and two rewards of policies of 50 outputs."""
    rng = np.random.default_rng(0)
    shape = (20_000 if size >= 1024 else 500, 50)
    return rng.dirichlet(np.ones(50), size=shape[0]), rng.normal(size=shape), rng.normal(size=shape)


def moments(size: int) -> Works:
    probs, reward, _ = policies(size)

    def plain() -> Any:
        mean = (probs * reward).sum(axis=1)
        return np.stack([mean, (probs * (reward - mean[:, None]) ** 2).sum(axis=1)])

    def ours() -> Any:
        found = exact_reward_moments(probs, reward)
        return np.stack([found.mean, found.exact_var])

    return {"plain-arrays": plain, "exact_reward_moments": ours}


def rates(size: int) -> Works:
    probs, reward, _ = policies(size)
    return {
        "plain-row-by-row": lambda: np.array([p * (r - p @ r) for p, r in zip(probs, reward, strict=True)]),
        "attraction": lambda: attraction(probs, reward).logit_rate,
    }


def shares(size: int) -> Works:
    probs, proxy, gold = policies(size)
    first = slice(0, len(probs) // 10)

    def plain() -> Any:
        found = []
        for p, a, b in zip(probs[first], proxy[first], gold[first], strict=True):
            pull = p * (b - p @ b)
            found.append((a - b) * p * (pull - p @ pull))
        return np.array(found)

    def ours() -> Any:
        triples = zip(probs[first], proxy[first], gold[first], strict=True)
        return np.array([error_attribution(p, a, b) for p, a, b in triples])

    return {"plain-row-by-row": plain, "error_attribution": ours}


def batch(size: int) -> Works:
    rewards = (np.random.default_rng(0).random((1024 if size >= 1024 else 64, 8)) < 0.3).astype(np.float64)

    def plain() -> Any:
        found = []
        for group in rewards:
            mean = sum(group) / 8
            std = (sum((r - mean) ** 2 for r in group) / 7) ** 0.5
            found.append([(r - mean) / (std + 1e-4) for r in group])
        return np.array(found).ravel()

    return {
        "plain-group-by-group": plain,
        "trl_batch_metrics": lambda: np.ravel(trl_batch_metrics(rewards.ravel(), num_generations=8).advantages),
    }


def pairs(size: int) -> Works:
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 100_000 if size >= 1024 else 1_000))

    def plain() -> float:
        return float((chosen > rejected).mean() + (chosen == rejected).mean() / 2)

    return {"plain-arrays": plain, "pair_accuracy": lambda: pair_accuracy(chosen, rejected).accuracy}


def table(size: int) -> Any:
    return np.random.default_rng(0).normal(size=(100_000 if size >= 1024 else 1_000, 8))


def components(size: int) -> Works:
    values = table(size)

    def plain() -> Any:
        means = values.mean(axis=1)
        within = ((values - means[:, None]) ** 2).sum()
        return np.array([within, 8 * ((means - values.mean()) ** 2).sum()])

    def ours() -> Any:
        found = variance_components(values)
        return np.array([found.ssw, found.ssb])

    return {
        "plain-arrays": plain,
        "variance_components": ours,
    }


def whitened(size: int) -> Works:
    values = table(size)
    return {
        "plain-arrays": lambda: float((values.var(axis=1, ddof=1) / values.var(ddof=1)).mean()),
        "normalised_reward_variance": lambda: float(normalised_reward_variance(values)),
    }


def plain_accuracy(proxy: Any, gold: Any) -> float:
    first, second = np.triu_indices(proxy.shape[1], 1)
    true, said = gold[:, first] - gold[:, second], proxy[:, first] - proxy[:, second]
    return float(((true * said > 0).sum() + (said == 0).sum() / 2) / true.size)


def teachers(size: int) -> Works:
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(2_000 if size >= 1024 else 100, 10))
    models = {str(i): gold + i * rng.normal(size=gold.shape) for i in range(1, 6)}

    def plain() -> Any:
        return np.array(
            [(float((v.var(axis=1, ddof=1) / v.var(ddof=1)).mean()), plain_accuracy(v, gold)) for v in models.values()]
        )

    def ours() -> Any:
        report = teacher_report(models, gold, bootstrap=0)
        return np.array([(row.normalised_variance, row.on_policy_accuracy) for row in report.rows])

    return {"plain-two-figures": plain, "teacher_report": ours}


def errors(size: int) -> Works:
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(20_000 if size >= 1024 else 200, 8))
    proxy = gold + rng.normal(size=gold.shape)

    def plain() -> Any:
        cosines = [np.corrcoef(a, b)[0, 1] for a, b in zip(proxy, gold, strict=True)]
        return np.array([plain_accuracy(proxy, gold), np.median(cosines)])

    def ours() -> Any:
        report = error_report(proxy, gold)
        return np.array([report.accuracy, np.median(report.prompt_cosine)])

    return {"plain-prompt-by-prompt": plain, "error_report": ours}


def given_logits(size: int) -> Works:
    rng = np.random.default_rng(0)
    rows, tokens, vocab = (4, 128, 16_000) if size >= 1024 else (2, 16, 500)
    logits = torch.from_numpy(rng.normal(size=(rows, tokens, vocab)).astype(np.float32))
    ids = torch.from_numpy(rng.integers(0, vocab, (rows, tokens)))
    mask = np.ones((rows, tokens), dtype=bool)
    mask[:, 0] = False

    def plain() -> Any:
        logs = torch.log_softmax(logits.double(), dim=-1)
        return logs[:, :-1].gather(2, ids[:, 1:, None])[..., 0].sum(dim=1).numpy()

    return {"plain-log-softmax": plain, "response_log_probs": lambda: response_log_probs(logits, ids, mask).sum}


def coefficients(size: int) -> Works:
    rng = np.random.default_rng(0)
    vocab, width, n = (8_000, 64, 32) if size >= 1024 else (300, 16, 6)
    head = rng.normal(size=(vocab, width)) / width**0.5
    one, other = (ResponseStates(rng.normal(size=(n, width)), rng.integers(0, vocab, n)) for _ in range(2))

    def plain() -> Any:
        def chances(states: Any) -> Any:
            weights = np.exp(states @ head.T)
            return weights / weights.sum(axis=1, keepdims=True)

        p, q = chances(np.asarray(one.states)), chances(np.asarray(other.states))
        found = np.empty((n, n))
        for k, own in enumerate(np.asarray(one.tokens)):
            for j, token in enumerate(np.asarray(other.tokens)):
                found[k, j] = (own == token) - q[j, own] - p[k, token] + p[k] @ q[j]
        return found

    return {"plain-token-by-token": plain, "token_coefficients": lambda: token_coefficients(one, other, head)}


CASES: dict[str, tuple[Callable[[int], Works], dict[str, float | None]]] = {
    "exact moments, 20000 policies of 50 outputs": (moments, {"plain-arrays": None, "exact_reward_moments": None}),
    "rates of logits, the same policies": (rates, {"plain-row-by-row": None, "attraction": 1.0}),
    "attribution of errors, 2000 of them": (shares, {"plain-row-by-row": None, "error_attribution": None}),
    "advantages of 1024 groups of 8": (batch, {"plain-group-by-group": None, "trl_batch_metrics": 1.0}),
    "accuracy of 100000 pairs": (pairs, {"plain-arrays": None, "pair_accuracy": None}),
    "variance components, 100000 x 8": (components, {"plain-arrays": None, "variance_components": None}),
    "normalised variance, 100000 x 8": (whitened, {"plain-arrays": None, "normalised_reward_variance": None}),
    "five teachers, 2000 x 10": (teachers, {"plain-two-figures": None, "teacher_report": None}),
    "errors, 20000 x 8": (errors, {"plain-prompt-by-prompt": None, "error_report": 1.0}),
    "log-probabilities of given logits, 4 x 128 x 16000": (
        given_logits,
        {"plain-log-softmax": None, "response_log_probs": 1.0},
    ),
    "token coefficients, 32 x 32 tokens": (coefficients, {"plain-token-by-token": None, "token_coefficients": 1.0}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group, (_, names) in CASES.items() for name in names])
def test_readings(benchmark: Any, compare: Callable[..., None], group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""Paths that only large or extreme inputs take: they must give what the common ones give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rankdiag.language_models import encode
from rankdiag.monitors import RewardStdMetric, _reward_metric
from rankdiag.rewards import (
    MomentState,
    ResponseStates,
    _gradient_runs,
    _transfer,
    expected_gradient_norm,
    reward_transfer,
    simulate_policy_gradient,
)
from rankdiag.rewards._pair_counts import pair_sums
from rankdiag.testing import tiny_language_model

START, REWARD = [0.1, 0.5, 0.4], [1.0, -0.5, 0.25]


def every_pair(p, g, logs):
    """Counts, and log-weights of kept pairs with their credits, of one row."""
    kept = right = ties = 0.0
    weights, credits_ = [], []
    for i in range(len(p)):
        for j in range(i):
            if g[i] == g[j]:
                continue
            high, low = (i, j) if g[i] > g[j] else (j, i)
            credit = 1.0 if p[high] > p[low] else 0.5 * (p[high] == p[low])
            kept, right, ties = kept + 1, right + credit, ties + (p[high] == p[low])
            weights.append(logs[i] + logs[j])
            credits_.append(credit)
    return kept, right, ties, np.array(weights), np.array(credits_)


@pytest.mark.parametrize(("k", "spread"), [(300, 0.1), (300, 30.0), (40, 2000.0)])
def test_pairs_beyond_a_byte_and_weights_beyond_products(k, spread):
    rng = np.random.default_rng(0)
    p, g, logs = rng.integers(0, 9, k).astype(float), rng.integers(0, 5, k).astype(float), spread * rng.normal(size=k)
    found = pair_sums(p[None], g[None], log_weights=logs[None])
    kept, right, ties, weights, credit = every_pair(p, g, logs)
    assert (found.pairs[0], found.credit[0], found.proxy_ties[0]) == (kept, right, ties)
    assert found.pairs[0] + found.gold_ties[0] == k * (k - 1) / 2
    share = np.exp(weights - weights.max())
    assert found.weighted_credit[0] / found.weight[0] == pytest.approx((share @ credit) / share.sum(), rel=1e-9)
    ess = found.weight[0] ** 2 / found.weight_squared[0]
    assert ess == pytest.approx(share.sum() ** 2 / (share @ share), rel=1e-9)


@pytest.mark.parametrize(
    ("lr", "kl"), [(0.1, 0.0), (0.1, 0.3), (50.0, 0.0)], ids=["small steps", "with a reference", "large steps"]
)
def test_one_instance_is_the_loop(lr, kl):
    run = simulate_policy_gradient(START, REWARD, method="gd", lr=lr, kl=kl, steps=400)
    start, reward = np.array(START), np.array(REWARD)
    logits = np.log(start)
    for _ in range(400):
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        pulled = reward - kl * np.log(probs / start) if kl else reward
        logits += lr * probs * (pulled - probs @ pulled)
    probs = np.exp(logits - logits.max())
    np.testing.assert_allclose(run.probs[-1], probs / probs.sum(), rtol=1e-9, atol=1e-300)
    batch = simulate_policy_gradient([START] * 2, REWARD, method="gd", lr=lr, kl=kl, steps=400)
    np.testing.assert_allclose(batch.probs[:, 0], run.probs, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("samples", [1, 5])
def test_sampled_steps_of_one_instance_follow_the_stream(samples):
    run = simulate_policy_gradient(START, REWARD, method="reinforce", lr=0.2, steps=50, samples=samples, rng=3)
    reward, logits = np.array(REWARD), np.log(START)
    for draws in np.random.default_rng(3).random((50, samples)):
        probs = np.exp(logits) / np.exp(logits).sum()
        picked = [int((probs.cumsum()[:-1] <= draw).sum()) for draw in draws]
        logits += 0.2 * np.mean([reward[y] * (np.eye(3)[y] - probs) for y in picked], axis=0)
    np.testing.assert_allclose(run.probs[-1], np.exp(logits) / np.exp(logits).sum(), rtol=1e-9)


def test_a_metric_merged_in_parts_says_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rewards, keys = torch.from_numpy(rng.random(9000)), torch.from_numpy(rng.integers(-300, 300, 9000))
    found = []
    for part in (1 << 17, 64):
        monkeypatch.setattr(_reward_metric, "_PART", part)
        metric = RewardStdMetric()
        for start in range(0, 9000, 500):
            metric.update(rewards[start : start + 500], keys[start : start + 500])
        found.append({name: float(value) for name, value in metric.compute().items()})
    assert found[1] == pytest.approx(found[0], rel=1e-12)
    states = [MomentState.from_values(rewards[keys == key]) for key in keys.unique()]
    assert found[1]["rms_std"] == pytest.approx(np.sqrt(np.mean([state.var() for state in states])), rel=1e-12)


def test_coefficients_do_not_depend_on_where_the_vocabulary_is_cut(monkeypatch):
    rng = np.random.default_rng(0)
    words = rng.normal(size=(50, 4)) * np.linspace(0.1, 9.0, 50)[:, None]  # the largest logit rises block after block
    plus, minus, other = ([ResponseStates(rng.normal(size=(3, 4)), rng.integers(0, 50, 3))] for _ in range(3))
    whole = reward_transfer(plus, minus, other, kind="im", unembedding=words)
    monkeypatch.setattr(_transfer, "_BLOCK", 6)
    np.testing.assert_allclose(reward_transfer(plus, minus, other, kind="im", unembedding=words), whole, rtol=1e-12)


def test_products_of_gradients_do_not_depend_on_blocks(monkeypatch):
    data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3], [4, 5], [5], [6, 3]]}], kind="responses")
    options = {"rewards": [[1.0, 0.0, np.nan, 0.5]], "params": "all", "estimator": "gram"}
    few = expected_gradient_norm(tiny_language_model(), data, **options)
    assert np.isnan(few.squared_norm[0])  # three scorable rollouts
    assert few.fisher_top[0] > 0
    options["rewards"] = [[1.0, 0.0, 0.25, 0.5]]
    whole = expected_gradient_norm(tiny_language_model(), data, **options)
    monkeypatch.setattr(_gradient_runs, "_BLOCK", 40)
    cut = expected_gradient_norm(tiny_language_model(), data, **options)
    np.testing.assert_allclose(cut.squared_norm, whole.squared_norm, rtol=1e-10)


def test_parts_with_equal_rewards_have_no_gradient():
    data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3], [4], [5], [6]]}] * 2, kind="responses")
    rewards = [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.5, 0.25]]
    found = expected_gradient_norm(tiny_language_model(), data, rewards, params="all", groups=2, rng=0)
    assert found.squared_norm[0] == 0.0
    assert np.isfinite(found.squared_norm[1])
    assert found.squared_norm[1] != 0.0

"""Rates against autograd over W and one free vector for every prefix: one token, several, third responses, samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.dynamics import FreeFeatures, dpo, theorem_parts
from rankdiag.preference import multi_sample_dynamics, multi_token_dynamics, single_token_dynamics

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def draw(seed, *shape, scale=1.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


PAIRS = {
    "micro-example 7": ((2, 1, 3), (5, 4)),
    "one shared token": ((2, 1, 3), (2, 4)),
    "long shared prefix": ((2, 1, 3, 0, 5), (2, 1, 3, 4)),
    "one is the start of the other": ((2, 1, 3), (2, 1)),
    "identical": ((2, 1, 3), (2, 1, 3)),
    "one token each": ((2,), (5,)),
    "repeated tokens": ((2, 2, 2), (2, 2, 5, 2)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_pair_agrees_with_autograd_of_a_loss(name, scale):
    plus, minus = PAIRS[name]
    model = FreeFeatures(draw(1, 6, 4, scale=scale))
    states = [model.states(ids) for ids in (plus, minus)]
    a, b = model.logp(plus), model.logp(minus)
    reference, beta = (a.item() + 0.7, b.item() - 0.4), 0.8
    loss = dpo(a, b, *reference, beta)
    g = beta * sigmoid(-beta * ((a.item() - reference[0]) - (b.item() - reference[1])))
    d = multi_token_dynamics(model.W, *states, plus, minus, w_chosen=g, w_rejected=g)
    np.testing.assert_allclose(d.rate_chosen, model.rate(a, loss), **CLOSE)
    np.testing.assert_allclose(d.rate_rejected, model.rate(b, loss), **CLOSE)
    rows = [model.rate(value, loss) for value in model.token_logps(plus)]
    np.testing.assert_allclose(d.token_contributions, rows, **CLOSE)


@pytest.mark.parametrize("name", PAIRS)
def test_parts_agree_with_products_of_gradients(name):
    plus, minus = PAIRS[name]
    model = FreeFeatures(draw(2, 6, 4))
    states = [model.states(ids) for ids in (plus, minus)]
    a, b = model.logp(plus), model.logp(minus)
    head = [model.head_gradient(value) for value in (a, b)]
    d = multi_token_dynamics(model.W, *states, plus, minus)
    np.testing.assert_allclose(d.chosen_sq, (head[0] * head[0]).sum().item(), **CLOSE)
    np.testing.assert_allclose(d.cross, (head[0] * head[1]).sum().item(), **CLOSE)
    np.testing.assert_allclose(d.score, (head[0] * (head[1] - head[0])).sum().item(), **CLOSE)
    full = [model.gradient(value) for value in (a, b)]
    np.testing.assert_allclose(d.chosen_sq + d.hidden_self, (full[0] @ full[0]).item(), **CLOSE)
    np.testing.assert_allclose(d.cross + d.hidden_shared, (full[0] @ full[1]).item(), **CLOSE)
    sums = [rows.sum(axis=0) for rows in states]
    np.testing.assert_allclose(d.ches, sums[0] @ sums[1] - sums[0] @ sums[0], **CLOSE)
    probs = [torch.softmax(torch.tensor(rows) @ model.W.detach().T, dim=1).numpy() for rows in states]
    deltas = [np.eye(6)[list(ids)] - p for ids, p in zip((plus, minus), probs, strict=True)]
    np.testing.assert_allclose(d.alpha_plus, deltas[0] @ deltas[0].T, **CLOSE)
    np.testing.assert_allclose(d.alpha_minus, deltas[0] @ deltas[1].T, **CLOSE)
    pooled = np.concatenate([d.alpha_plus.ravel(), d.alpha_minus.ravel()])
    assert d.alpha_positive_fraction == (pooled > 0).mean()


responses = st.lists(st.integers(0, 4), min_size=1, max_size=5).map(tuple)


@settings(max_examples=40)
@given(
    plus=responses,
    minus=responses,
    others=st.lists(responses, max_size=3),
    weights=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    seed=st.integers(0, 1000),
)
def test_any_responses_agree_with_autograd(plus, minus, others, weights, seed):
    model = FreeFeatures(draw(seed, 5, 3, scale=1.5), seed=seed)
    states = [model.states(ids) for ids in (plus, minus, *others)]
    values = [model.logp(ids) for ids in (plus, minus, *others)]
    loss = -weights[0] * values[0] + weights[1] * values[1]
    d = multi_token_dynamics(
        model.W, *states[:2], plus, minus, None, *weights, others=list(zip(states[2:], others, strict=True))
    )
    found = [d.rate_chosen, d.rate_rejected, *d.rate_others]
    np.testing.assert_allclose(found, [model.rate(value, loss) for value in values], **CLOSE)
    rows = [model.rate(value, loss) for value in model.token_logps(plus)]
    np.testing.assert_allclose(d.token_contributions, rows, **CLOSE)


@pytest.mark.parametrize("third", [(2, 1, 0), (5, 4, 1), (5, 3), (4,), (2, 1, 3), (5, 4)])
def test_two_prompts_share_no_state(third):
    """With n_shared = 0 the rejected response follows a prompt of its own, and third ones that of the chosen."""
    plus, minus = (2, 1, 3), (2, 1, 4)
    model = FreeFeatures(draw(3, 6, 4))
    states = model.states(plus), model.states(minus, "other prompt")
    a, b, c = model.logp(plus), model.logp(minus, "other prompt"), model.logp(third)
    d = multi_token_dynamics(model.W, *states, plus, minus, 0, 0.7, 1.2, others=[(model.states(third), third)])
    loss = -0.7 * a + 1.2 * b
    found = [d.rate_chosen, d.rate_rejected, *d.rate_others]
    np.testing.assert_allclose(found, [model.rate(value, loss) for value in (a, b, c)], **CLOSE)
    assert d.n_shared == 0
    assert d.hidden_shared == pytest.approx(0, abs=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_whole_vocabulary_agrees_with_autograd(seed, scale):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 9))
    plus, minus = (int(token) for token in rng.choice(size, 2, replace=False))
    model = FreeFeatures(rng.normal(size=(size, 3)) * scale, seed=seed)
    h = model.states([0])[0]
    logps = [model.logp([z]) for z in range(size)]
    beta, reference = 0.3, (-1.0, -2.5)
    loss = dpo(logps[plus], logps[minus], *reference, beta)
    g = beta * sigmoid(-beta * ((logps[plus].item() + 1.0) - (logps[minus].item() + 2.5)))
    d = single_token_dynamics(model.W, h, plus, minus, g)
    np.testing.assert_allclose(d.rate_all, [model.rate(value, loss) for value in logps], **CLOSE)
    m, s = theorem_parts(model.W.tolist(), h.tolist(), plus, minus)
    np.testing.assert_allclose((d.m, d.S), (m, s), **CLOSE)
    assert (d.rate_chosen, d.rate_rejected) == (d.rate_all[plus], d.rate_all[minus])


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_several_samples_agree_with_autograd(seed, count):
    rng = np.random.default_rng(seed)
    pairs = [rng.choice(4, 2, replace=False) for _ in range(count)]  # few tokens, so that samples contradict
    plus, minus = np.array(pairs).T
    model = FreeFeatures(rng.normal(size=(4, 3)) * 1.5, seed=seed)
    hidden = np.stack([model.states([0], i)[0] for i in range(count)])
    a = [model.logp([plus[i]], i) for i in range(count)]
    b = [model.logp([minus[i]], i) for i in range(count)]
    beta, shift = 0.5, rng.normal(size=count)
    loss = sum(dpo(a[i], b[i], float(shift[i]), 0.0, beta) for i in range(count)) / count
    g = [beta * sigmoid(-beta * (a[i].item() - shift[i] - b[i].item())) for i in range(count)]
    d = multi_sample_dynamics(model.W, hidden, plus, minus, g)
    np.testing.assert_allclose(d.rates, [model.rate(value, loss) for value in a], **CLOSE)
    alone = [model.rate(a[i], dpo(a[i], b[i], float(shift[i]), 0.0, beta) / count) for i in range(count)]
    np.testing.assert_allclose(d.own, alone, **CLOSE)
    probs = torch.softmax(torch.tensor(hidden) @ model.W.detach().T, dim=1).numpy()
    for i in range(count):
        for j in range(count):
            expected = float(plus[i] == plus[j]) - float(plus[i] == minus[j])
            expected += probs[i, minus[j]] - probs[i, plus[j]]
            assert d.alpha[i, j] == pytest.approx(expected, abs=1e-12)

"""Rates of logits and rewards against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_flow import log_rates_by_difference, rate_by_difference
from rankdiag.rewards import attraction, error_attribution, gradient_alignment


def draw(seed, size=4):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((size, 3))
    return (
        rng.dirichlet(np.ones(size)) * 0.9 + 0.1 / size,
        rng.normal(size=size),
        rng.normal(size=size),
        features @ features.T,
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), plain=st.booleans())
def test_rates_are_derivatives(seed, plain):
    probs, train, gold, kernel = draw(seed)
    kernel = None if plain else kernel
    rates = attraction(probs, train, kernel=kernel)
    np.testing.assert_allclose(rates.logprob_rate, log_rates_by_difference(probs, train, kernel), atol=1e-7)
    assert probs @ rates.logprob_rate == pytest.approx(0, abs=1e-12)
    found = gradient_alignment(probs, train, gold, kernel=kernel)
    assert found.rate == pytest.approx(rate_by_difference(probs, train, gold, kernel), abs=1e-7)
    assert -1 <= found.cosine <= 1
    shares = error_attribution(probs, train, gold, kernel=kernel)
    own = gradient_alignment(probs, gold, gold, kernel=kernel)
    assert shares.sum() == pytest.approx(found.rate - own.rate, abs=1e-12)
    assert own.cosine == pytest.approx(1, abs=1e-12)


def test_known_numbers():
    assert attraction([0.9, 0.05, 0.05], [0, -0.05, 1]).logprob_rate[1] == pytest.approx(0.0315, abs=5e-5)
    case = [0.1, 0.6, 0.3], [1, 0.5, 0], [1, 0.9, 0]
    assert gradient_alignment(*case).rate == pytest.approx(0.03456)
    assert gradient_alignment(case[0], case[2], case[2]).rate == pytest.approx(0.062496)
    np.testing.assert_allclose(error_attribution(*case), [0, -0.027936, 0], atol=1e-12)


def test_equal_rewards_move_nothing():
    assert not attraction([0.1, 0.2, 0.7], [0.3, 0.3, 0.3]).logit_rate.any()
    assert np.isnan(gradient_alignment([0.1, 0.9], [1, 1], [0, 1]).cosine)


def test_a_gradient_in_the_null_space_of_the_kernel_has_no_direction():
    """Features that do not tell outputs apart move nothing, though rounding leaves 1e-17 of a gradient."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        probs, reward = rng.dirichlet(np.ones(5)), rng.normal(size=5)
        flat = gradient_alignment(probs, reward, reward, kernel=np.ones((5, 5)))
        assert np.isnan(flat.cosine)
        assert flat.rate == pytest.approx(0, abs=1e-15)
    half = np.kron(np.eye(2), np.ones((2, 2)))  # tells pairs of outputs apart: a policy over two
    found = gradient_alignment([0.1, 0.3, 0.2, 0.4], [1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0], kernel=half)
    g, w = np.array([0.24, -0.24]), np.array([0.1 * -0.8 + 0.3 * 1.2, 0.2 * 0.2 + 0.4 * -0.8])
    assert found.rate == pytest.approx(g @ w)
    assert found.cosine == pytest.approx(g @ w / np.linalg.norm(g) / np.linalg.norm(w))


def test_refusals():
    with pytest.raises(ValueError, match="sum to 1"):
        attraction([0.5, 0.6], [1, 0])
    with pytest.raises(ValueError, match="evaluation"):
        gradient_alignment([0.5, 0.5], [1, 0], [1, 0, 0])
    with pytest.raises(ValueError, match="reward"):
        attraction([0.5, 0.5], [1e308, -1e308])

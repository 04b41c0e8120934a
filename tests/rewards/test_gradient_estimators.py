"""Estimates of a policy gradient and its squared norm: their definitions, and no bias over all samples there are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_policies import every_sample, leave_one_out, quadruples
from rankdiag.rewards import TabularPolicy, rloo_gradient, squared_gradient_norm

numbers = st.floats(-4, 4, allow_subnormal=False)
S = np.array([1.0, -1.0, 2.0, 0.0])


@st.composite
def rollouts(draw, least=4, most=7):
    k = draw(st.integers(least, most))
    rewards = np.array(draw(st.lists(numbers, min_size=k, max_size=k)))
    rows = draw(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=k, max_size=k))
    return rewards, np.array(rows)


def test_worked_values():
    assert squared_gradient_norm([1, 0, 0, 1], np.outer(S, S)) == pytest.approx(-0.416667, abs=1e-6)
    assert rloo_gradient([1, 0, 0, 1], S[:, None]).tolist() == [0.0]  # so the plug-in is 0
    assert isinstance(squared_gradient_norm([1, 0, 0, 1], np.outer(S, S)), float)


@given(rollouts())
@settings(max_examples=30)
def test_squared_norm_is_the_mean_over_quadruples(data):
    r, s = data
    gram = s @ s.T
    size = 1 + np.abs(r).max() ** 2 * np.abs(gram).max()
    assert squared_gradient_norm(r, gram) == pytest.approx(quadruples(r, gram), abs=1e-12 * size)


@given(rollouts(least=2), st.floats(-1e3, 1e3), st.floats(-3, 3))
@settings(max_examples=40)
def test_leave_one_out_is_a_covariance(data, shift, scale):
    r, s = data
    found = rloo_gradient(r, s)
    np.testing.assert_allclose(found, leave_one_out(r, s), atol=1e-12)
    np.testing.assert_allclose(found, np.cov(np.column_stack([r, s]).T, ddof=1)[0, 1:], atol=1e-12)
    np.testing.assert_allclose(rloo_gradient(r + shift, s), found, atol=1e-10)
    np.testing.assert_allclose(rloo_gradient(scale * r, s), scale * found, atol=1e-11)
    np.testing.assert_allclose(rloo_gradient(r, s + shift), found, atol=1e-10)  # scores may have a mean


@given(rollouts(), st.floats(-1e3, 1e3), st.floats(-3, 3))
@settings(max_examples=40)
def test_squared_norm_is_blind_to_shifts_and_quadratic(data, shift, scale):
    r, s = data
    gram = s @ s.T
    size = 1e-10 * (1 + np.abs(gram).max())
    found = squared_gradient_norm(r, gram)
    assert squared_gradient_norm(r + shift, gram) == pytest.approx(found, abs=10 * size)
    assert squared_gradient_norm(scale * r, gram) == pytest.approx(scale**2 * found, abs=10 * size)
    moved = s + np.array([1.0, -2.0, 0.5])
    assert squared_gradient_norm(r, moved @ moved.T) == pytest.approx(found, abs=10 * size)
    order = np.argsort(r)
    assert squared_gradient_norm(r[order], gram[np.ix_(order, order)]) == pytest.approx(found, abs=size)


@pytest.mark.parametrize("reward", [[1.0, 0.0, -1.0], [1.0, 1.0, 0.5], [0.3, 0.3, 0.3]])
def test_neither_has_a_bias(reward):
    """All 3^4 samples of 4 outputs, each with its probability: an expectation, not an average."""
    policy = TabularPolicy([0.4, -0.3, 0.1])
    scores = np.eye(3) - policy.probs
    truth = policy.grad(reward)
    gradient, square, plug_in = np.zeros(3), [], []
    for sample, weight in every_sample(policy.probs.tolist(), 4):
        r, s = np.array(reward)[sample], scores[sample]
        found = rloo_gradient(r, s)
        gradient += weight * found
        square.append(weight * squared_gradient_norm(r, s @ s.T))
        plug_in.append(weight * float(found @ found))
    np.testing.assert_allclose(gradient, truth, atol=1e-15)
    assert math.fsum(square) == pytest.approx(truth @ truth, rel=1e-12, abs=1e-18)
    if truth.any():
        assert math.fsum(plug_in) > 1.2 * (truth @ truth)  # the square of an estimate is not an estimate of the square


def test_equal_rewards_give_exactly_nothing():
    gram = np.outer(S, S)
    for level in (0.1, -1e308, 5e-324):
        assert squared_gradient_norm([level] * 4, gram) == 0.0
        assert rloo_gradient([level] * 4, S[:, None]).tolist() == [0.0]
    assert squared_gradient_norm([1, 0, 0, 1], np.zeros((4, 4))) == 0.0


def test_large_and_small_numbers_keep_their_digits():
    r, gram = np.array([1.0, 0.0, 0.0, 1.0]), np.outer(S, S)
    for reward, matrix in ((1e-200, 1e300), (1e200, 1e-300), (1e-150, 1.0)):
        found = squared_gradient_norm(r * reward, gram * matrix)
        assert found == pytest.approx(-5 / 12 * matrix * reward * reward, rel=1e-12)
    assert squared_gradient_norm(r + 2.0**40, gram) == pytest.approx(-5 / 12, rel=1e-12)
    assert rloo_gradient(r * 1e-200, S[:, None] * 1e300 + 1e300) == pytest.approx([0.0], abs=1e90)


def test_float32_products_count_as_symmetric():
    matrix = np.outer(S, S)
    matrix[0, 1] += 1e-7
    assert squared_gradient_norm([1, 0, 0, 1], matrix) == pytest.approx(-5 / 12, abs=1e-6)


def test_three_rollouts_are_too_few():
    with pytest.raises(ValueError, match="at least 4 rollouts"):
        squared_gradient_norm([1.0, 0.0, 2.0], np.outer(S[:3], S[:3]))


def test_inputs_are_left_alone():
    r, gram = np.array([1.0, 0.0, 0.0, 1.0]), np.outer(S, S)
    r.flags.writeable = gram.flags.writeable = False
    squared_gradient_norm(r, gram)
    rloo_gradient(r, gram)
    assert gram[0, 0] == 1.0


def test_every_kind_of_array_comes_in(xp):
    r, gram = [1.0, 0.0, 0.0, 1.0], np.outer(S, S)
    assert squared_gradient_norm(xp.asarray(r), xp.asarray(gram)) == pytest.approx(-5 / 12, rel=1e-12)
    assert rloo_gradient(xp.asarray(r), xp.asarray(gram)).tolist() == rloo_gradient(r, gram).tolist()


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "name"),
    [
        (rloo_gradient, ([1.0], [[1.0]]), ValueError, "rewards"),
        (rloo_gradient, ([], [[1.0]]), ValueError, "rewards"),
        (rloo_gradient, ([[1.0, 2.0]], [[1.0]]), ValueError, "rewards"),
        (rloo_gradient, ([1.0, np.nan], [[1.0], [2.0]]), ValueError, "rewards"),
        (rloo_gradient, ("ab", [[1.0], [2.0]]), TypeError, "rewards"),
        (rloo_gradient, ([1.0, 2.0], [1.0, 2.0]), ValueError, "scores"),
        (rloo_gradient, ([1.0, 2.0], [[1.0]]), ValueError, "scores"),
        (rloo_gradient, ([1.0, 2.0], [[1.0], [np.inf]]), ValueError, "scores"),
        (rloo_gradient, ([1e200, -1e200], [[1e200], [0.0]]), ValueError, "rewards"),
        (rloo_gradient, ([1.7e308, -1.7e308], [[0.0], [0.0]]), ValueError, "rewards"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0], np.eye(3)), ValueError, "rewards"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, np.inf], np.eye(4)), ValueError, "rewards"),
        (squared_gradient_norm, ([1.7e308, 0.0, 1.0, -1.7e308], np.eye(4)), ValueError, "rewards"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], np.eye(3)), ValueError, "gram"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], np.ones(4)), ValueError, "gram"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], np.ones((4, 5))), ValueError, "gram"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], np.tri(4)), ValueError, "gram"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], np.full((4, 4), np.nan)), ValueError, "gram"),
        (squared_gradient_norm, ([1e200, 0.0, 0.0, 1e200], np.outer(S, S)), ValueError, "rewards"),
        (squared_gradient_norm, ([1.0, 0.0, 1.0, 0.0], None), TypeError, "gram"),
    ],
)
def test_refusals_name_the_argument(function, arguments, kind, name):
    with pytest.raises(kind, match=f"`{name}`"):
        function(*arguments)


def test_opposite_extremes_are_not_symmetric():
    gram = np.eye(4)
    gram[0, 1], gram[1, 0] = 1.7e308, -1.7e308
    with pytest.raises(ValueError, match="`gram` must be symmetric"):
        squared_gradient_norm([1, 0, 0, 1], gram)

"""What must hold for any derivative: conserved probability, bounds, invariances, exact zeros, and kept digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdiag.preference import _unembedding as reading
from rankdiag.preference import ches_from_states, multi_sample_dynamics, multi_token_dynamics, single_token_dynamics

TOY = np.array([[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]])
STATE = np.array([-0.5, -0.9])


def pair(seed, *, size=7, width=4, longest=5, scale=1.0):
    """Return W, states and ids of a random pair whose shared states are equal."""
    rng = np.random.default_rng(seed)
    plus, minus = (rng.integers(0, size, int(rng.integers(1, longest + 1))) for _ in range(2))
    shared = int(rng.integers(0, min(plus.size, minus.size) + 1))
    minus[:shared] = plus[:shared]
    states = [rng.normal(size=(ids.size, width)) * scale for ids in (plus, minus)]
    least = min(plus.size, minus.size)
    agree = int(np.cumprod(plus[:least] == minus[:least]).sum())
    s = min(agree + 1, least)
    states[1][:s] = states[0][:s]
    return rng.normal(size=(size, width)) * scale, *states, plus, minus


seeds = st.integers(0, 100_000)
scales = st.sampled_from([0.1, 1.0, 4.0])


def test_worked_example_to_all_digits():
    d = single_token_dynamics(TOY, STATE, 3, 4, 0.05)
    assert d.probs.round(4).tolist() == [0.0314, 0.0120, 0.1586, 0.6304, 0.0270, 0.1407]
    assert d.unembedding_inner == 22.5
    assert (round(d.m, 5), round(d.S, 5), round(d.m + d.S, 5)) == (6.23913, -9.96158, -3.72245)
    assert d.rate_all.round(6).tolist() == [1.110877, 0.908377, 0.593377, -0.186123, -3.104623, 0.435877]
    assert d.verdict == "warn"
    assert round(sum(single_token_dynamics(TOY, STATE, 3, 0).to_dict()["fields"][part] for part in "mS"), 2) == 6.95


@given(seed=seeds, scale=scales)
def test_one_token(seed, scale):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 12))
    W, h = rng.normal(size=(size, 3)) * scale, rng.normal(size=3) * scale
    plus, minus = (int(token) for token in rng.choice(size, 2, replace=False))
    g = float(rng.uniform(0.1, 2.0))
    d = single_token_dynamics(W, h, plus, minus, g)
    near = 1e-12 * (1 + scale**2 * 30)
    assert d.m >= 0
    assert d.rate_chosen == pytest.approx(g * (d.m + d.S), abs=near)
    assert float(d.probs @ d.rate_all) == pytest.approx(0, abs=near)
    assert d.rate_chosen >= d.rate_rejected - near  # the margin never falls
    assert d.alignment == pytest.approx(W @ (W[plus] - W[minus]), abs=near)
    gap = 1 - d.probs[plus] + d.probs[minus]
    assert pytest.approx(-gap * d.unembedding_inner - d.other_alignment, abs=near) == d.S
    other = single_token_dynamics(W, h, minus, plus, g)
    assert other.alignment == pytest.approx(-d.alignment, abs=near)
    shifted = single_token_dynamics(W + rng.normal(size=3), h, plus, minus, g)
    assert shifted.rate_all == pytest.approx(d.rate_all, abs=10 * near)
    frozen_part = gap * float(h @ h)
    only_state = single_token_dynamics(np.zeros_like(W), h, plus, minus)
    assert frozen_part >= 0
    assert only_state.rate_chosen == pytest.approx(float(h @ h))  # equal probabilities: 1 - p+ + p- is 1


@given(seed=seeds)
def test_tokens_that_gain(seed):
    rng = np.random.default_rng(seed)
    W = rng.integers(-2, 3, size=(8, 2)).astype(float)  # with ties
    d = single_token_dynamics(W, rng.normal(size=2), 0, 1)
    for by, gains in (("logp", d.rate_all), ("prob", d.probs * d.rate_all)):
        expected = sorted(range(8), key=lambda z: (-gains[z], z))
        assert d.top_gaining(3, by=by).tolist() == expected[:3]
        assert d.top_gaining(100, by=by).tolist() == expected


def test_digits_near_probability_one():
    """At p = 1 - 4e-35 every rate is still right to twelve digits."""
    W, h = np.array([[1.0, 0.5], [-1.0, 0.25], [-1.0, -0.5]]), np.array([40.0, 0.0])
    d = single_token_dynamics(W, h, 0, 1)
    rest = math.exp(-80.0)  # of token 1 and of token 2, relative to token 0
    toward = W @ (W[0] - W[1])
    through_rows = 1600.0 * 3 * rest  # 1 - p+ + p-
    exact = rest * (toward[0] - toward[1] + toward[0] - toward[2]) + through_rows
    assert d.rate_chosen == pytest.approx(exact, rel=1e-12, abs=0)
    assert d.m + d.S == pytest.approx(exact, rel=1e-12, abs=0)
    both = multi_token_dynamics(W, h[None], h[None], [0], [1])
    assert both.rate_chosen == pytest.approx(exact, rel=1e-12, abs=0)
    assert both.alpha_plus[0, 0] == pytest.approx((2 * rest) ** 2 + 2 * rest**2, rel=1e-12, abs=0)
    assert multi_sample_dynamics(W, h[None], [0], [1]).rates[0] == pytest.approx(exact, rel=1e-12, abs=0)


def test_huge_logits():
    d = single_token_dynamics(TOY * 1e3, STATE * 1e3, 3, 4)
    assert np.isfinite(d.rate_all).all()
    assert d.probs.sum() == pytest.approx(1)
    both = multi_token_dynamics(TOY * 1e3, STATE[None] * 1e3, STATE[None] * 1e3, [3], [4])
    assert both.rate_chosen == pytest.approx(d.rate_chosen, rel=1e-12)


@given(seed=seeds, scale=scales)
def test_one_token_is_a_short_response_and_one_sample(seed, scale):
    rng = np.random.default_rng(seed)
    W, h = rng.normal(size=(5, 3)) * scale, rng.normal(size=(1, 3)) * scale
    d = single_token_dynamics(W, h[0], 1, 4, 0.3)
    both = multi_token_dynamics(W, h, h, [1], [4], None, 0.3, 0.3, others=[(h, [z]) for z in range(5)])
    near = {"rel": 1e-9, "abs": 1e-12}
    assert both.rate_others == pytest.approx(d.rate_all, **near)
    assert both.rate_chosen == pytest.approx(d.rate_chosen, **near)
    assert both.rate_rejected == pytest.approx(d.rate_rejected, **near)
    assert multi_sample_dynamics(W, h, [1], [4], 0.3).rates[0] == pytest.approx(d.rate_chosen, **near)


@given(seed=seeds, scale=scales)
def test_alphas_and_parts(seed, scale):
    W, *states, plus, minus = pair(seed, scale=scale)
    d = multi_token_dynamics(W, *states, plus, minus)
    for alpha in (d.alpha_plus, d.alpha_minus):
        assert np.abs(alpha).max() <= 2 + 1e-12
    assert (d.alpha_plus == d.alpha_plus.T).all()
    assert np.linalg.eigvalsh(d.alpha_plus).min() >= -1e-12
    assert d.alpha_plus.diagonal().min() >= 0
    assert 0 <= d.alpha_positive_fraction <= 1
    assert d.score == pytest.approx(d.cross - d.chosen_sq, rel=1e-9, abs=1e-12)
    assert d.token_contributions.sum() == pytest.approx(d.rate_chosen, rel=1e-9, abs=1e-12)
    assert d.rate_chosen == pytest.approx(-d.score + d.hidden_self - d.hidden_shared, rel=1e-9, abs=1e-9)
    assert d.rate_chosen - d.rate_rejected >= -1e-9  # equal weights: the margin never falls
    assert d.ches == pytest.approx(ches_from_states([states[0]], [states[1]]).ches[0], rel=1e-9, abs=1e-9)


@given(seed=seeds, w=st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
def test_rates_are_linear_in_the_weights_and_swap(seed, w):
    W, *states, plus, minus = pair(seed)
    one, two, both = (multi_token_dynamics(W, *states, plus, minus, None, *weights) for weights in ((1, 0), (0, 1), w))
    for name in ("rate_chosen", "rate_rejected"):
        expected = w[0] * getattr(one, name) + w[1] * getattr(two, name)
        assert getattr(both, name) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    swapped = multi_token_dynamics(W, *states[::-1], minus, plus, None, -w[1], -w[0])
    assert swapped.rate_chosen == pytest.approx(both.rate_rejected, rel=1e-9, abs=1e-9)
    assert swapped.rate_rejected == pytest.approx(both.rate_chosen, rel=1e-9, abs=1e-9)


@given(seed=seeds)
def test_head_score_ignores_a_constant_vector_in_every_row(seed):
    W, *states, plus, minus = pair(seed)
    shift = np.random.default_rng(seed + 1).normal(size=W.shape[1])
    one, two = (multi_token_dynamics(matrix, *states, plus, minus) for matrix in (W, W + shift))
    for name in ("score", "rate_chosen", "rate_rejected", "hidden_self"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-8, abs=1e-9)


@given(seed=seeds)
def test_probability_of_all_next_tokens_is_conserved(seed):
    """Over every continuation of one prefix, sum p d ln p / dt is zero."""
    W, *states, plus, minus = pair(seed)
    size = len(W)
    first = states[0][:1]
    d = multi_token_dynamics(W, *states, plus, minus, None, 0.7, 0.4, others=[(first, [z]) for z in range(size)])
    logits = W @ first[0]
    p = np.exp(logits - logits.max())
    assert float(p / p.sum() @ d.rate_others) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_identical_responses_give_exactly_zero(seed):
    W, states, _, ids, _ = pair(seed)
    d = multi_token_dynamics(W, states, states, ids, ids, others=[(states, ids)])
    assert (d.rate_chosen, d.rate_rejected, d.score, d.ches) == (0, 0, 0, 0)
    assert d.rate_others.tolist() == [0]
    assert not d.token_contributions.any()


def test_what_is_common_cancels_before_it_is_summed():
    """Beside a shared state of 1e10 or 1e20, the difference between the responses keeps all its digits."""
    flat = np.zeros((4, 1))  # equal probabilities: alpha is 3/4 for one token, -1/4 for two
    d = multi_token_dynamics(flat, [[1e10], [1.0]], [[1e10], [1.0]], [0, 1], [0, 2])
    assert d.n_shared == 2
    assert d.score == -1.0  # -1e10/4 and +1e10/4 cancel, the last token leaves -3/4 - 1/4
    assert d.rate_chosen == 1.0
    assert multi_token_dynamics(flat, [[1e20], [1.0]], [[1e20], [1.0], [1.0]], [0, 1], [0, 2, 3]).ches == 1e20


@pytest.mark.parametrize("seed", range(20))
def test_hidden_parts_of_a_common_prefix_are_equal(seed):
    rng = np.random.default_rng(seed)
    W, states, ids = rng.normal(size=(50, 8)) * 10, rng.normal(size=(40, 8)), rng.integers(0, 50, 40)
    d = multi_token_dynamics(W, states[:3], states, ids[:3], ids)
    assert d.n_shared == 3
    assert d.hidden_self == d.hidden_shared


def test_third_responses_take_their_states_from_the_longer_shared_prefix():
    rng = np.random.default_rng(3)
    W, plus, minus = rng.normal(size=(6, 3)), rng.normal(size=(3, 3)), rng.normal(size=(4, 3))
    minus[0] = plus[0]
    for ids, source in (([2, 1, 0], plus), ([5, 4, 0, 1], minus)):
        given = source[: len(ids)].copy()
        expected = multi_token_dynamics(W, plus, minus, [2, 1, 3], [5, 4, 3, 1], others=[(given, ids)])
        given[:3] += 0.1
        off = multi_token_dynamics(W, plus, minus, [2, 1, 3], [5, 4, 3, 1], others=[(given, ids)])
        assert off.rate_others.tolist() == expected.rate_others.tolist()
        assert off.meta.details["shared_state_difference"] > 0


def test_third_responses_repeat_the_pair():
    W, *states, plus, minus = pair(11)
    others = [(states[0], plus), (states[1], minus)]
    d = multi_token_dynamics(W, *states, plus, minus, None, 0.3, 0.8, others=others)
    assert d.rate_others == pytest.approx([d.rate_chosen, d.rate_rejected], rel=1e-12)


@settings(max_examples=20)
@given(seed=seeds, block=st.integers(1, 40))
def test_blocks_of_the_vocabulary_change_nothing(seed, block):
    W, *states, plus, minus = pair(seed, size=9, scale=3.0)
    others = [(states[0], plus)]
    whole = multi_token_dynamics(W, *states, plus, minus, others=others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_BLOCK", block)
        patch.setattr(reading, "_CACHED", block)
        parts = multi_token_dynamics(W, *states, plus, minus, others=others)
        one = single_token_dynamics(W, states[0][0], 0, 1)
    assert parts.alpha_plus == pytest.approx(whole.alpha_plus, rel=1e-10, abs=1e-13)
    assert (parts.alpha_plus == parts.alpha_plus.T).all()
    assert parts.rate_chosen == pytest.approx(whole.rate_chosen, rel=1e-10, abs=1e-12)
    assert parts.rate_rejected == pytest.approx(whole.rate_rejected, rel=1e-10, abs=1e-12)
    assert one.rate_all == pytest.approx(single_token_dynamics(W, states[0][0], 0, 1).rate_all, rel=1e-10, abs=1e-12)


@given(seed=seeds)
def test_samples(seed):
    rng = np.random.default_rng(seed)
    n, size = int(rng.integers(1, 7)), 5
    W, hidden = rng.normal(size=(size, 3)), rng.normal(size=(n, 3))
    plus, minus = np.array([rng.choice(size, 2, replace=False) for _ in range(n)]).T
    d = multi_sample_dynamics(W, hidden, plus, minus, rng.uniform(0.1, 1, n))
    assert d.rates.tolist() == (d.own + d.cross).tolist()
    assert d.alpha.diagonal().min() >= 0
    assert np.abs(d.alpha).max() <= 2
    order = rng.permutation(n)
    equal = multi_sample_dynamics(W, hidden, plus, minus, 0.5)
    moved = multi_sample_dynamics(W, hidden[order], plus[order], minus[order], 0.5)
    assert moved.rates == pytest.approx(equal.rates[order], rel=1e-10, abs=1e-12)
    assert moved.alpha == pytest.approx(equal.alpha[np.ix_(order, order)], rel=1e-10, abs=1e-12)
    alone = [single_token_dynamics(W, hidden[i], plus[i], minus[i], 0.5 / n).rate_chosen for i in range(n)]
    assert equal.own == pytest.approx(alone, rel=1e-10, abs=1e-12)


def test_contradicting_samples_have_negative_alpha():
    d = multi_sample_dynamics(TOY, [STATE, STATE], [3, 4], [4, 3])
    assert d.alpha[0, 1] < 0
    assert d.alpha[1, 0] < 0
    assert (d.cross < 0).all()

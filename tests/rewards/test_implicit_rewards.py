"""Implicit rewards, reports on pairs, and tilted verifiers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_implicit import report
from rankdiag import result_from_json
from rankdiag.rewards import implicit_reward, pair_accuracy, pair_report, verifier_tilt

NAN = float("nan")
rewards = st.lists(
    st.tuples(*[st.integers(-40, 40).map(lambda i: i / 8) for _ in range(2)]), min_size=1, max_size=12
).map(lambda rows: np.array(rows).T)


@settings(max_examples=40, deadline=None)
@given(rewards)
def test_report_is_that_of_its_definition(pair):
    found, plain = pair_report(*pair), report(*pair.tolist())
    assert found.accuracy == pytest.approx(plain["accuracy"], rel=1e-14)
    assert found.accuracy_interval == pytest.approx(plain["interval"], abs=1e-12)
    assert found.normalised_margin == pytest.approx(plain["margin"], rel=1e-10, abs=1e-12)
    assert found.bt_loss == pytest.approx(plain["loss"], rel=1e-12)
    assert (found.mean_chosen, found.mean_rejected) == pytest.approx((plain["chosen"], plain["rejected"]), abs=1e-14)
    assert found.accuracy == float(pair_accuracy(*pair))


@settings(max_examples=30, deadline=None)
@given(rewards, st.sampled_from([0.125, 2.0, 64.0]), st.integers(-5, 5))
def test_a_factor_and_a_shift_leave_accuracy_and_margin(pair, factor, shift):
    plain = pair_report(*pair)
    scaled, moved = pair_report(*(factor * pair)), pair_report(*(pair + shift))
    assert plain.accuracy == scaled.accuracy == moved.accuracy
    assert scaled.normalised_margin == pytest.approx(plain.normalised_margin, rel=1e-6)
    assert moved.normalised_margin == pytest.approx(plain.normalised_margin, rel=1e-10)
    assert moved.bt_loss == pytest.approx(plain.bt_loss, rel=1e-12)
    turned = pair_report(pair[1], pair[0])
    assert turned.accuracy == pytest.approx(1 - plain.accuracy, abs=1e-14)


@settings(max_examples=20, deadline=None)
@given(rewards, st.sampled_from([0.25, 1.0, 8.0]))
def test_beta_leaves_accuracy_and_margin(pair, beta):
    one = pair_report(implicit_reward(pair[0], 0.5 * pair[0]), implicit_reward(pair[1], 0.5 * pair[1]))
    other = pair_report(
        implicit_reward(pair[0], 0.5 * pair[0], beta=beta), implicit_reward(pair[1], 0.5 * pair[1], beta=beta)
    )
    assert one.accuracy == other.accuracy
    assert one.normalised_margin == pytest.approx(other.normalised_margin, rel=1e-5)


def test_the_reference_itself_gives_no_reward():
    logp = np.array([-3.25, -1e5, -0.1])
    assert not implicit_reward(logp, logp, beta=0.01).any()
    zero = pair_report(implicit_reward(logp, logp), implicit_reward(logp, logp))
    assert (zero.accuracy, zero.normalised_margin, zero.bt_loss) == (0.5, 0.0, pytest.approx(math.log(2)))


def test_implicit_reward_takes_what_comes():
    half = torch.tensor([-3.0, -5.0], dtype=torch.bfloat16)
    assert implicit_reward(half, half / 2, beta=2).tolist() == [-3.0, -5.0]
    assert implicit_reward(-3.0, beta=0.5) == -1.5
    found = implicit_reward([[-1.0, NAN]], [[NAN, -1.0]])
    assert found.shape == (1, 2)
    assert np.isnan(found).all()
    tiny = implicit_reward([-5e-324], beta=0.25)
    assert tiny.tolist() == [0.0]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([-1.0, -2.0], [-1.0]), "logp_ref"),
        (([-math.inf], None), "logp"),
        (([-1e308], [1e308]), "float64"),
        (([-1.0], None, 0.0), "beta"),
        (([-1.0], None, NAN), "beta"),
    ],
)
def test_implicit_reward_refuses(arguments, word):
    with pytest.raises(ValueError, match=word):
        implicit_reward(*arguments)


def test_known_reports():
    found = pair_report([1.0, 2.0, 0.0], [0.0, 1.0, 0.0])
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.bt_loss == pytest.approx((2 * math.log(1 + math.exp(-1)) + math.log(2)) / 3)
    assert pair_report([800.0], [0.0]).bt_loss == 0.0
    assert pair_report([0.0], [800.0]).bt_loss == 800.0  # a sigmoid taken first would give infinity
    assert pair_report([0.1] * 3, [0.1] * 3).normalised_margin == 0.0


def test_the_largest_rewards_have_a_report():
    found = pair_report([1.7e308, 1.7e308], [1e308, 1.7e308])
    assert (found.accuracy, found.mean_chosen) == (0.75, 1.7e308)
    assert found.normalised_margin == pytest.approx(1.0, rel=1e-12)  # mean difference .35, std .35


def test_missing_pairs_are_dropped_and_counted():
    found, plain = pair_report([1, NAN, 2, 3], [0, 1, NAN, 4]), pair_report([1, 3], [0, 4])
    assert found.meta.n == 2
    assert "2 of 4" in found.meta.skipped["pairs"]
    assert found.accuracy_interval == plain.accuracy_interval
    assert found.bt_loss == plain.bt_loss


@pytest.mark.parametrize("unit", [1e-320, 1e-160, 1e160, 5e306])
def test_reports_at_the_ends_of_float64(unit):
    pair = np.array([[1.0, 4.0, 3.0], [2.0, 0.0, 1.0]])
    found, plain = pair_report(*(unit * pair)), pair_report(*pair)
    assert found.accuracy == plain.accuracy
    assert found.mean_chosen == pytest.approx(unit * plain.mean_chosen, rel=1e-3)
    if unit > 1:
        margin = np.abs(pair[0] - pair[1]).mean() / pair.std(ddof=1)  # the published constant is nothing beside it
        assert found.normalised_margin == pytest.approx(margin, rel=1e-12)
        assert found.bt_loss == pytest.approx(unit / 3, rel=1e-12)
    else:
        assert 0 <= found.normalised_margin < 1e-100


@pytest.mark.parametrize(
    ("chosen", "rejected", "word"),
    [
        ([1.0], [1.0, 2.0], "rejected"),
        ([NAN], [1.0], "one pair"),
        ([math.inf], [1.0], "chosen"),
        ([1.7e308], [-1.7e308], "float64"),
        ([], [], "chosen"),
        ([[1.0]], [[1.0]], "chosen"),
    ],
)
def test_reports_refuse(chosen, rejected, word):
    with pytest.raises(ValueError, match=word):
        pair_report(chosen, rejected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 30), st.floats(0.05, 5))
def test_a_tilted_verifier_has_its_margin_and_keeps_its_cap(seed, delta, beta):
    rng = np.random.default_rng(seed)
    ref = rng.dirichlet(np.ones(5))
    correct = rng.permutation(5)[: rng.integers(1, 5)]
    found = verifier_tilt(ref, correct, delta=delta, beta=beta)
    wrong = np.setdiff1d(np.arange(5), correct)
    assert found.probs.sum() == pytest.approx(1, abs=1e-12)
    assert found.margin == delta
    assert found.factor_cap == pytest.approx(math.exp(delta / beta), rel=1e-12)
    if delta / beta < 100 and (found.probs > 1e-200).all():  # read off the policy where no probability vanishes
        reward = beta * np.log(found.probs / ref)
        np.testing.assert_allclose(reward[correct][:, None] - reward[wrong], delta, atol=1e-10)
    assert found.p_correct == pytest.approx(found.probs[correct].sum(), abs=1e-12)
    assert found.p_correct_ref == pytest.approx(ref[correct].sum(), abs=1e-12)
    assert found.p_correct <= found.factor_cap * found.p_correct_ref * (1 + 1e-12)
    assert found.p_correct >= found.p_correct_ref * (1 - 1e-12)


def test_tilts_at_their_limits():
    assert verifier_tilt([0.5, 0.5], [0], delta=1e308, beta=1e-300).probs.tolist() == [1.0, 0.0]
    assert verifier_tilt([0.5, 0.5], [0], delta=1e308, beta=1e-300).factor_cap == math.inf
    rare = verifier_tilt([1e-12, 1 - 1e-12], torch.tensor([0]), delta=5.0, beta=1.0)
    assert rare.p_correct == pytest.approx(math.exp(5) * 1e-12, rel=1e-9)
    assert rare.margin == 5.0


@pytest.mark.parametrize(
    ("arguments", "kind", "word"),
    [
        (([0.5, 0.6], [0], 1.0, 1.0), ValueError, "pi_ref"),
        (([0.5, 0.5], [2], 1.0, 1.0), ValueError, "correct"),
        (([0.5, 0.5], [-1], 1.0, 1.0), ValueError, "correct"),
        (([0.5, 0.5], [0, 0], 1.0, 1.0), ValueError, "twice"),
        (([0.5, 0.5], [True, False], 1.0, 1.0), TypeError, "flatnonzero"),
        (([0.5, 0.5], [0.0], 1.0, 1.0), TypeError, "correct"),
        (([0.5, 0.5], [], 1.0, 1.0), ValueError, "correct"),
        (([0.5, 0.5], [0, 1], 1.0, 1.0), ValueError, "correct"),
        (([0.0, 1.0], [0], 1.0, 1.0), ValueError, "correct"),
        (([0.5, 0.5], [0], -1.0, 1.0), ValueError, "delta"),
        (([0.5, 0.5], [0], 1.0, 0.0), ValueError, "beta"),
    ],
)
def test_tilts_refuse(arguments, kind, word):
    ref, correct, delta, beta = arguments
    with pytest.raises(kind, match=word):
        verifier_tilt(ref, correct, delta=delta, beta=beta)


@pytest.mark.parametrize(
    "result",
    [
        pair_report([1, NAN, 0.1], [0, 1, 0.3]),
        verifier_tilt([0.1, 0.9], [0], delta=1.0, beta=0.1),
        verifier_tilt([0.1, 0.9], [1], delta=1e308, beta=1e-300),
    ],
)
def test_results_come_back_and_show(result):
    again = result_from_json(result.to_json())
    assert again == result
    assert again.to_json() == result.to_json()
    assert result.verdict == "unknown"
    assert result.explanation in result.summary(width=10_000)

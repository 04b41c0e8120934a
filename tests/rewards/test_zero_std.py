"""Groups without spread: subsets one by one, moments of Beta in fractions, fits against grids and known truths."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from oracles.rewards_intervals import beta_binomial_equal, equal_subsets, log_likelihood
from rankdiag import result_from_json
from rankdiag.rewards import (
    RewardTable,
    beta_binomial_zero_std,
    low_std_fraction,
    std_interval,
    zero_std_at_k,
    zero_std_probability,
)

REWARD = st.sampled_from([0.0, 0.5, 1.0, -2.0, math.nan])


@settings(max_examples=40)
@given(st.lists(st.lists(REWARD, min_size=7, max_size=7), min_size=1, max_size=4), st.integers(1, 7))
def test_every_subset(rows, k):
    short = [i for i, row in enumerate(rows) if sum(not math.isnan(v) for v in row) < k]
    if short:
        with pytest.raises(ValueError, match=f"`k` = {k} exceeds the .* valid rollouts of prompt {short[0]}"):
            zero_std_at_k(rows, k)
        return
    expected = [float(equal_subsets(row, k)) for row in rows]
    np.testing.assert_allclose(zero_std_at_k(rows, k), expected, atol=1e-13)
    single = zero_std_at_k(rows[0], k)
    assert isinstance(single, float)
    assert single == pytest.approx(expected[0], abs=1e-13)


def test_known_values_and_monotony():
    row = [1, 1, 1, 0, 0]
    found = [zero_std_at_k(row, k) for k in range(1, 6)]
    np.testing.assert_allclose(found, [1.0, 0.4, 0.1, 0.0, 0.0], atol=1e-15)
    assert zero_std_at_k([3.0] * 1000, 700) == 1.0
    rows = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(float)
    by_k = np.array([zero_std_at_k(rows, k) for k in range(1, 31)])
    assert (np.diff(by_k, axis=0) <= 1e-14).all()
    np.testing.assert_array_equal(by_k[-1], (rows.min(axis=1) == rows.max(axis=1)) * 1.0)
    big = np.repeat([0.0, 1.0], [900_000, 100_000])
    assert zero_std_at_k(big, 10) == pytest.approx(0.9**10 + 0.1**10, rel=1e-4)


def test_unbiased_for_the_probability_of_a_group_without_spread():
    n, k, p = 8, 3, Fraction(1, 5)
    mean = sum(
        math.comb(n, s) * p**s * (1 - p) ** (n - s) * equal_subsets([1.0] * s + [0.0] * (n - s), k)
        for s in range(n + 1)
    )
    assert mean == p**k + (1 - p) ** k
    assert float(mean) == pytest.approx(zero_std_probability(0.2, 3))
    rows = np.random.default_rng(1).random((4000, n)) < 0.2
    found = zero_std_at_k(rows.astype(float), k)
    assert found.mean() == pytest.approx(float(mean), abs=4 * found.std() / math.sqrt(len(found)))


def test_tables_and_their_names():
    table = RewardTable.from_array([[0.0, 1.0, np.nan], [1.0, 1.0, 1.0]], prompt_ids=["hard", "easy"])
    np.testing.assert_allclose(zero_std_at_k(table, 2), [0.0, 1.0])
    with pytest.raises(ValueError, match="`k` = 3 exceeds the 2 valid rollouts of prompt hard"):
        zero_std_at_k(table, 3)
    with pytest.raises(ValueError, match="exceeds the 1 valid rollouts; draw"):
        zero_std_at_k([0.0, None], 2)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="`k`"):
            zero_std_at_k(table, bad)
    with pytest.raises(TypeError, match="`k`"):
        zero_std_at_k(table, 2.0)


def test_probability_of_agreement():
    assert zero_std_probability(0.5, 1) == 1.0
    p = np.linspace(0, 1, 11)
    np.testing.assert_allclose(zero_std_probability(p, 3), [x**3 + (1 - x) ** 3 for x in p])
    assert zero_std_probability(1e-3, 2**40) == 0.0
    for bad in (-0.1, 1.5, np.nan):
        with pytest.raises(ValueError, match="`p`"):
            zero_std_probability(bad, 2)


@settings(max_examples=30)
@given(st.fractions(Fraction(1, 50), 40, max_denominator=50), st.fractions(Fraction(1, 50), 40), st.integers(1, 30))
def test_beta_model_by_moments_in_fractions(a, b, k):
    assert beta_binomial_zero_std(float(a), float(b), k) == pytest.approx(float(beta_binomial_equal(a, b, k)), rel=1e-9)


def test_beta_model_in_closed_forms_and_at_extremes():
    for k in (1, 2, 7, 500):
        assert beta_binomial_zero_std(1.0, 1.0, k) == pytest.approx(2 / (k + 1))
        assert beta_binomial_zero_std(0.5, 0.5, k) == pytest.approx(2 * math.comb(2 * k, k) / 4**k)
    assert beta_binomial_zero_std(1e300, 1e308, 3) == pytest.approx(1.0)
    assert beta_binomial_zero_std(1e308, 1e308, 3) == pytest.approx(0.25)
    assert beta_binomial_zero_std(5e-324, 1.0, 9) == pytest.approx(1.0)
    for bad in ({"a": 0.0}, {"b": -1.0}, {"k": 0}, {"k": 2**62}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            beta_binomial_zero_std(**{"a": 1.0, "b": 1.0, "k": 2, **bad})


# --- shares of prompts ------------------------------------------------------------------------------------------------


def test_how_wrong_counting_is_for_rare_rewards():
    law = stats.beta(0.3, 0.6)
    q = (1 - math.sqrt(1 - 4 * 0.05**2)) / 2
    truth = law.cdf(q) + law.sf(1 - q)
    assert truth == pytest.approx(0.144, abs=5e-4)
    stated = {
        4: 0.618,
        8: 0.483,
        16: 0.378,
        64: 0.235,
    }  # what counting expects: no std of 64 binary rewards is in (0, .05]
    for k, share in stated.items():
        assert beta_binomial_zero_std(0.3, 0.6, k) == pytest.approx(share, abs=5e-4)
    rng = np.random.default_rng(3)
    rewards = (rng.random((3000, 8)) < law.rvs((3000, 1), random_state=rng)) * 1.0
    assert low_std_fraction(rewards, 0.05).estimate == pytest.approx(stated[8], abs=0.03)
    found = low_std_fraction(rewards, 0.05, method="beta_binomial")
    assert found.estimate == pytest.approx(truth, abs=0.03)
    assert found.beta_params == pytest.approx((0.3, 0.6), abs=0.06)


def test_fit_is_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(4)
    counts = rng.integers(2, 12, 200)
    rewards = np.full((200, 11), np.nan)
    for i, n in enumerate(counts):
        rewards[i, :n] = np.where(rng.random(n) < rng.beta(0.7, 2.0), 5.0, -1.0)
    found = low_std_fraction(rewards, 1.2, method="beta_binomial")
    a, b = found.beta_params
    successes = (rewards == 5.0).sum(axis=1)
    best = log_likelihood(a, b, successes.tolist(), counts.tolist())
    for step in (0.9, 0.999, 1.001, 1.1):
        assert log_likelihood(a * step, b, successes.tolist(), counts.tolist()) < best
        assert log_likelihood(a, b * step, successes.tolist(), counts.tolist()) < best
    p = stats.beta(a, b).ppf((np.arange(200_000) + 0.5) / 200_000)
    assert found.estimate == pytest.approx((np.sqrt(p * (1 - p)) * 6 <= 1.2).mean(), abs=1e-4)


def test_fits_without_a_maximum_say_so():
    pure = low_std_fraction(np.repeat([[0.0], [1.0], [1.0]], 4, axis=1), 0.1, method="beta_binomial")
    assert pure.estimate == pytest.approx(1.0, abs=1e-3)
    assert "no prompt has both rewards" in pure.explanation
    same = np.tile([0.0, 1.0, 0.0, 0.0], (50, 1))  # more alike than chance: sigma is sqrt(3)/4 everywhere
    for tau, share in ((0.42, 0.0), (0.44, 1.0)):
        found = low_std_fraction(same, tau, method="beta_binomial")
        assert found.estimate == pytest.approx(share, abs=1e-6)
        assert "do not differ between prompts" in found.explanation
    zeros = low_std_fraction(np.zeros((4, 3)), 0.2, method="beta_binomial", reward_range=(0, 1))
    assert zeros.estimate == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("binary", [True, False])
def test_certified_shares_are_those_of_single_intervals(binary):
    rng = np.random.default_rng(5)
    rewards = rng.random((40, 700)) ** 3
    if binary:
        rewards = (rewards < rng.choice([0.0, 0.001, 0.3], (40, 1))) * 1.0
    else:
        rewards[::2] *= 0.01
    rewards[3, 5:] = np.nan
    rewards[7, 1:] = np.nan
    method = "binary_exact" if binary else "maurer_pontil"
    bounds = [
        std_interval(row, method=method, reward_range=(0, 1), delta=0.1) for i, row in enumerate(rewards) if i != 7
    ]
    low = sum(b.upper <= 0.15 for b in bounds) / 39
    high = sum(b.lower > 0.15 for b in bounds) / 39
    found = low_std_fraction(rewards, 0.15, method="certified", reward_range=(0, 1), delta=0.1)
    assert (found.certain_low, found.certain_high) == (low, high)
    assert min(low, high) > 0
    assert found.certain_low + found.undecided + found.certain_high == pytest.approx(1.0)
    assert math.isnan(found.estimate)
    assert found.beta_params is None
    assert found.meta.details["interval"] == method
    assert found.meta.skipped == {"prompts": "1 with fewer than 2 valid rollouts"}


def test_ten_rollouts_certify_no_small_spread():
    found = low_std_fraction(np.zeros((5, 10)), 0.4, method="certified", reward_range=(0, 1))
    assert found.undecided == 1.0
    assert "100.0% are undecided" in found.explanation


def test_shares_survive_every_trip_and_show_what_they_have():
    rows = [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    for method in ("plugin", "beta_binomial", "certified"):
        found = low_std_fraction(rows, 0.1, method=method, reward_range=(0, 1))
        assert found.method == method
        for other in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found))):
            assert other == found
            assert other.beta_params == found.beta_params
        assert not any(isinstance(n.value, float) and math.isnan(n.value) for n in found.document().key_numbers)
        assert len(found.document().key_numbers) == {"plugin": 1, "beta_binomial": 3, "certified": 3}[method]
    assert low_std_fraction(rows, 0.0).estimate == 0.5


@pytest.mark.parametrize(
    ("table", "options", "error", "match"),
    [
        ([[1.0], [0.0]], {}, ValueError, "at least 2"),
        ([1.0, 0.0], {}, ValueError, "table"),
        ([[0.0, 1.0]], {"tau": -0.1}, ValueError, "tau"),
        ([[0.0, 1.0]], {"method": "exact"}, ValueError, "method"),
        ([[0.0, 1.0]], {"method": "certified"}, ValueError, "`reward_range` is required"),
        ([[0.0, 2.0]], {"method": "certified", "reward_range": (0, 1)}, ValueError, "contain"),
        ([[0.0, 0.5, 1.0]], {"method": "beta_binomial"}, ValueError, "two-valued"),
        ([[0.0, 0.0]], {"method": "beta_binomial"}, ValueError, "all rewards are equal"),
        ([[0.0, 1.0]], {"delta": 0.0}, ValueError, "delta"),
        ([[-1e200, 1e200]], {}, ValueError, "float64 can hold"),
    ],
)
def test_share_refusals(table, options, error, match):
    with pytest.raises(error, match=match):
        low_std_fraction(table, **{"tau": 0.1, **options})

"""Summaries, components and scales of rewards against loops and scipy, and the figures of real tables as printed."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from oracles.rewards_pairs import reward_data
from oracles.rewards_tables import columns, components, known, mean, quantile, summary, variance
from rankdiag import result_from_json
from rankdiag.rewards import (
    NormalisedVariance,
    RewardNormalizer,
    RewardSummary,
    RewardTable,
    normalised_reward_variance,
    optimal_rollouts,
    ranking_accuracy,
    summarize,
    variance_components,
    zero_std_at_k,
)
from rankdiag.rewards import _components as module

NAN = float("nan")
TWO_ROWS = [[0, 1, 1, 0], [1, 1, 1, 1]]
LEVELS = ("0", "0.1", "0.25", "0.5", "0.75", "0.9", "1")


@st.composite
def tables(draw, *, whole=False, least=1):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(least, 7)), draw(st.integers(least, 6)))
    table = rng.integers(0, draw(st.sampled_from([2, 3, 50])), shape) * draw(st.sampled_from([1.0, 0.1]))
    table[rng.random(shape[0]) < 0.2] = table.max()
    if not whole:
        table[rng.random(shape) < draw(st.sampled_from([0.0, 0.4]))] = NAN
    return table


def same(found, exact):
    if exact is None:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(float(exact), rel=1e-10, abs=1e-13)


@given(
    table=tables(),
    taus=st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.4, 1.0]), unique=True, max_size=3),
    r_max=st.none() | st.sampled_from([0.5, 3.0]),
    margin=st.none() | st.sampled_from([0.0, 0.3]),
)
def test_every_figure_equals_a_loop(table, taus, r_max, margin):
    assume(not np.isnan(table).all())
    found = summarize(table, taus=taus, r_max=r_max, margin=margin)
    plain, shares = summary(table, taus, r_max, margin)
    for name, exact in plain.items():
        same(getattr(found, name), exact)
    for name, exact in shares.items():
        assert list(getattr(found, name)) == [f"{tau:g}" for tau in taus]
        for value, wanted in zip(getattr(found, name).values(), exact, strict=True):
            same(value, wanted)
    two = [row for row in map(known, table) if len(row) > 1]
    for name, values in (
        ("std_quantiles", [math.sqrt(variance(row)) for row in two]),
        ("mean_quantiles", [mean(row) for row in map(known, table) if row]),
    ):
        assert tuple(getattr(found, name)) == LEVELS
        for level, value in getattr(found, name).items():
            same(value, quantile(values, float(level)) if values else None)
    assert found.meta.n == len(two)
    assert bool(found.meta.skipped) == (found.n_undefined > 0)
    assert sum(count for _, count in found.std_histogram) == len(two) == len(found.points)


@given(table=tables(whole=True, least=2), level=st.sampled_from([0.5, 0.95, 0.999]))
def test_t_intervals_are_those_of_scipy(table, level):
    found = summarize(table, ci=level)
    for name, values in (("mean_var", table.var(axis=1, ddof=1)), ("grand_mean", table.mean(axis=1))):
        low, high = getattr(found, f"ci_{name}")
        error = stats.sem(values)
        if np.ptp(values) == 0:
            assert low == high == getattr(found, name)
            continue
        expected = stats.t.interval(level, len(values) - 1, loc=values.mean(), scale=error)
        floor = 0.0 if name == "mean_var" else -math.inf
        assert (low, high) == pytest.approx((max(floor, expected[0]), expected[1]), rel=1e-9, abs=1e-12)
        assert getattr(found, f"se_{name}") == pytest.approx(error, rel=1e-9, abs=1e-15)
    assert found.ci_rms_std == pytest.approx(tuple(map(math.sqrt, found.ci_mean_var)))


@pytest.mark.parametrize("scale", [1.0, 2.0**400, 2.0**-300])
def test_bootstrap_is_that_of_scipy_over_prompts(scale):
    table = np.random.default_rng(0).integers(0, 3, (30, 4)) * 1.0
    found = summarize(table * scale, bootstrap=200, rng=7)
    assert found.meta.seed == 7
    rng = np.random.default_rng(7)
    for name, values, unit in (
        ("mean_var", table.var(axis=1, ddof=1), scale**2),
        ("grand_mean", table.mean(axis=1), scale),
    ):
        expected = stats.bootstrap((values,), np.mean, n_resamples=200, method="BCa", rng=rng).confidence_interval
        assert getattr(found, f"ci_{name}") == pytest.approx(tuple(end * unit for end in expected), rel=1e-12)
        assert getattr(found, f"se_{name}") == pytest.approx(stats.sem(values) * unit, rel=1e-12)
    assert found == summarize(table * scale, bootstrap=200, rng=7)
    assert summarize(table, bootstrap=50).meta.seed is not None


@given(table=tables(whole=True, least=2), resamples=st.integers(2, 20), seed=st.integers(0, 50))
@settings(max_examples=20)
def test_a_bootstrap_that_cannot_say_says_nan(table, resamples, seed):
    found = summarize(table, bootstrap=resamples, rng=seed)
    for low, high in (found.ci_mean_var, found.ci_grand_mean):
        assert np.isnan(low) == np.isnan(high)
        assert not low > high


def test_worked_values():
    found = summarize(TWO_ROWS)
    assert found.grand_mean == found.pooled_mean == 0.75
    assert found.pooled_std**2 == pytest.approx(1.5 / 7)
    assert found.normalised_variance == pytest.approx(0.777778, abs=5e-7)
    assert (found.frac_zero_std, found.frac_all_min, found.frac_all_max) == (0.5, 0.0, 0.5)
    assert found.share_far_from_opt == {"0.01": 0.0, "0.05": 0.0}
    assert summarize(TWO_ROWS, r_max=2.0).share_far_from_opt["0.05"] == 0.5
    assert summarize(TWO_ROWS, taus=np.array([1e-7, 1.00000001e-7])).frac_low_std == {
        "1e-07": 0.5,
        "1.00000001e-07": 0.5,
    }
    single = summarize([[0.5]])
    assert np.isnan([single.mean_var, single.rms_std, single.pooled_std, single.icc1, *single.ci_grand_mean]).all()
    assert "draw at least 2" in single.explanation
    one = summarize([[0.0, 1.0]])
    assert np.isnan([*one.ci_mean_var, *one.ci_rms_std, one.se_mean_var, one.icc1, one.msb]).all()
    assert one.mean_var == 0.5


def test_zero_std_is_equality_not_a_small_number():
    found = summarize([[0.1] * 10, [1e-300, 0.0] * 5, [1.0, 1.0 + 2**-52] * 5, [NAN, 0.1] * 5], taus=[0.0, 1e-15])
    assert found.frac_zero_std == 0.5
    assert found.frac_low_std == {"0": 0.5, "1e-15": 1.0}
    rounded = summarize([[1.0, 1.0, 1.0, 1.0 + 2**-52], [2.0] * 4])  # the mean of the first is its lowest reward
    assert (rounded.frac_zero_std, rounded.frac_all_min, rounded.frac_all_max) == (0.5, 0.0, 0.5)


def test_words_follow_the_figures():
    flat = summarize([[0.0, 0.001], [1.0, 1.0], [0.5, 0.5]])
    for words in ("flat for most prompts", "More than half", "tell prompts apart"):
        assert words in flat.explanation
    lively = summarize([[0.0, 1.0], [1.0, 0.0]])
    for words in ("flat for most prompts", "More than half", "tell prompts apart"):
        assert words not in lively.explanation
    assert flat.verdict == lively.verdict == "unknown"
    assert "0% of the prompts have none" in lively.explanation


@given(table=tables(), block=st.sampled_from([1 << 16, 4]))
def test_components_equal_fractions(table, block):
    assume(not np.isnan(table).all())
    found, exact = variance_components(table), components(table)
    for name, value in exact.items():
        same(getattr(found, name), value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        pooled = module.pooled_moments(RewardTable.from_array(table))
    values = known(table.ravel())
    assert (pooled.count[0], pooled.min[0], pooled.max[0]) == (len(values), min(values), max(values))
    same(pooled.mean[0], mean(values))
    same(pooled.var[0], variance(values))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([[0.0, 1.0]], "One prompt cannot"),
        ([[0.0], [1.0]], "No prompt has 2 scored"),
        ([[1.0, 1.0], [1.0, 1.0]], "no variance"),
        ([[0.0, 0.0], [1.0, 1.0]], "100% of the variance"),
    ],
)
def test_components_say_why_they_cannot_say(table, words):
    found = variance_components(table)
    assert words in found.explanation
    assert np.isnan(found.icc1) == ("100%" not in words)


@given(
    table=tables(whole=True, least=2),
    scheme=st.sampled_from(["pooled_std", "mean_within"]),
    shift=st.sampled_from([-7.0, 0.0, 3.5]),
    scale=st.sampled_from([-2.0, 0.1, 1e100, 1e-100]),
)
def test_normalised_variance(table, scheme, shift, scale):
    within = table.var(axis=1, ddof=1)
    assume(within.max() > 0)
    found = normalised_reward_variance(table, scheme=scheme)
    moved = normalised_reward_variance((table + shift) * scale, scheme=scheme)
    assert float(moved) == moved.mean == pytest.approx(found.mean, rel=1e-9)
    np.testing.assert_allclose(moved.per_prompt, found.per_prompt, rtol=1e-8, atol=1e-12)
    prompts, k = table.shape
    exact = components(table)
    total = (exact["ssw"] + exact["ssb"]) / (prompts * k - 1)
    if scheme == "pooled_std":
        assert found.mean == pytest.approx(float(exact["msw"] / total), rel=1e-10)
        assert 0 <= found.mean <= (prompts * k - 1) / (prompts * (k - 1)) * (1 + 1e-12)
        assert found.mean == pytest.approx(summarize(table).normalised_variance, rel=1e-12)
    else:
        assert found.mean == pytest.approx(1.0, rel=1e-12)
    for name, q in (("min", 0), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("max", 1)):
        assert getattr(found, name) == pytest.approx(quantile(found.per_prompt.tolist(), q), rel=1e-12, abs=1e-15)
    plain = normalised_reward_variance(table, scheme="none")
    np.testing.assert_allclose(plain.per_prompt, within, rtol=1e-10, atol=1e-15)


def test_a_pooled_scale_hides_dead_prompts_and_quantiles_show_them():
    table = np.random.default_rng(0).normal(size=(40, 8))
    table[::2] *= 0.001
    found = normalised_reward_variance(table)
    assert found.mean > 0.5
    assert found.q25 < 1e-5
    assert np.isnan(normalised_reward_variance([[0.0, 1.0], [5.0, NAN]]).per_prompt).tolist() == [False, True]


def test_the_normalizer_is_the_published_one():
    table = np.random.default_rng(1).normal(3.0, 2.0, (50, 10))
    fitted = RewardNormalizer.fit(table)
    assert fitted.shift == pytest.approx(-table.mean(), rel=1e-12)
    assert fitted.scale == pytest.approx(1 / np.sqrt(table.var(ddof=1) + 1e-8), rel=1e-12)
    np.testing.assert_allclose(fitted.transform(table), (table + fitted.shift) * fitted.scale)
    assert np.isnan(fitted.transform([NAN])[0])
    assert fitted.transform(3.0).shape == ()
    assert pickle.loads(pickle.dumps(fitted)) == copy.copy(fitted) == fitted
    assert RewardNormalizer.fit([[0.0, 1e-9]]).scale == pytest.approx(1e4)
    assert str(RewardNormalizer.fit([[-1.0, 1.0]]).shift) == "0.0"


def test_optimal_rollouts_follow_the_formula():
    rng = np.random.default_rng(0)
    variances = rng.choice([0.2, 1.0, 3.0], 40_000)
    pilot = rng.normal(size=(len(variances), 5)) * np.sqrt(variances)[:, None]
    expected = 1 + math.sqrt(2 * np.mean(variances**2) / np.var(variances))
    assert optimal_rollouts(pilot) == pytest.approx(expected, rel=0.05)
    assert optimal_rollouts(RewardTable.from_array(pilot * 1e-100)) == pytest.approx(optimal_rollouts(pilot), rel=1e-9)
    # The formula minimises the standard error of mean_var at a fixed number of rollouts in all.
    cost = [(k * (np.var(variances) + 2 * np.mean(variances**2) / (k - 1)), k) for k in np.arange(1.5, 20, 0.01)]
    assert min(cost)[1] == pytest.approx(expected, abs=0.02)
    assert optimal_rollouts([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]) == math.inf


HUGE = [[0.0, 1e200], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "`table` must hold at least one reward", lambda: summarize([[NAN, NAN]])),
        (ValueError, "`table` must hold at least one reward", lambda: variance_components([[NAN]])),
        (ValueError, "`table` must be a RewardTable or an array", lambda: summarize([1.0, 2.0])),
        (ValueError, r"`table`.*\+-inf at row 0, column 1", lambda: summarize([[0.0, np.inf]])),
        (TypeError, "`taus` must be a sequence", lambda: summarize(TWO_ROWS, taus=0.1)),
        (ValueError, "`taus`", lambda: summarize(TWO_ROWS, taus=[-0.1])),
        (ValueError, "`taus`", lambda: summarize(TWO_ROWS, taus=[[0.1]])),
        (ValueError, "`taus`", lambda: summarize(TWO_ROWS, taus=np.broadcast_to(0.1, (2**45,)))),  # beyond memory
        (ValueError, "`ci`", lambda: summarize(TWO_ROWS, ci=95)),
        (ValueError, "`bootstrap`", lambda: summarize(TWO_ROWS, bootstrap=-1)),
        (ValueError, "`bootstrap`", lambda: summarize(TWO_ROWS, bootstrap=2**31)),
        (ValueError, "`bootstrap` must be 0", lambda: summarize(TWO_ROWS, bootstrap=1)),
        (TypeError, "`rng`", lambda: summarize(TWO_ROWS, bootstrap=9, rng="a")),
        (ValueError, "`margin`", lambda: summarize(TWO_ROWS, margin=-1.0)),
        (ValueError, "`r_max`", lambda: summarize(TWO_ROWS, r_max=NAN)),
        (TypeError, "unexpected keyword", lambda: summarize(TWO_ROWS, tau=0.1)),
        (ValueError, "`scheme`.*mean_within", lambda: normalised_reward_variance(TWO_ROWS, scheme="pooled")),
        (ValueError, "`table`: all rewards identical", lambda: normalised_reward_variance([[1.0, 1.0]] * 2)),
        (ValueError, "`table`: all rewards identical", lambda: RewardNormalizer.fit([[0.1] * 3] * 2)),
        (ValueError, "`table` must hold at least 2 rewards; got 1", lambda: RewardNormalizer.fit([[1.0, NAN]])),
        (
            ValueError,
            "`table`: no prompt has any spread",
            lambda: normalised_reward_variance([[1.0, 1.0], [0.0, 0.0]], scheme="mean_within"),
        ),
        (ValueError, "`table` must have a prompt with at least 2", lambda: normalised_reward_variance([[1.0], [0.0]])),
        (
            ValueError,
            "`table`: squares of the differences are too small",
            lambda: normalised_reward_variance([[0, 1e-300]]),
        ),
        (ValueError, "`table` must have differences.*row 0", lambda: summarize(HUGE)),
        (ValueError, "`table` must have differences", lambda: variance_components(HUGE)),
        (ValueError, "`table` must have differences", lambda: normalised_reward_variance(HUGE)),
        (ValueError, "`table` must have differences", lambda: normalised_reward_variance([[-1e308, 1e308]])),
        (ValueError, "`table` must have differences", lambda: RewardNormalizer.fit(HUGE)),
        (ValueError, "`table` must have differences", lambda: summarize([[1e308] * 2, [-1e308] * 2])),
        (ValueError, "`pilot` must have differences", lambda: optimal_rollouts([[0.0, 1e200, 0.0]] * 2)),
        (
            ValueError,
            "`pilot` must have at least 2 prompts",
            lambda: optimal_rollouts([[0, 1, 2], [0, 1, NAN]]),
        ),
        (ValueError, "`pilot` must have a prompt whose rewards differ", lambda: optimal_rollouts([[1.0] * 3] * 2)),
        (ValueError, "`rewards` must be finite", lambda: RewardNormalizer(0.0, 1.0).transform([np.inf])),
        (ValueError, "`rewards` must be finite", lambda: RewardNormalizer(0.0, 1e300).transform([1e300])),
        (ValueError, "`scale`", lambda: RewardNormalizer(0.0, 0.0)),
        (ValueError, "`shift`", lambda: RewardNormalizer(NAN, 1.0)),
    ],
)
def test_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "result",
    [
        summarize(TWO_ROWS),
        summarize([[0.5]]),
        summarize([[0.0, 1e150], [5e-324, NAN], [NAN, NAN]], taus=[]),
        summarize([[1e308, 1e308]] * 3),
        summarize([[0.0, 5e-324], [5e-324, 0.0]]),
        summarize(RewardTable.from_array(TWO_ROWS, meta={"policy": "<b>", "top_p": 1, "x": [1]}), bootstrap=20, rng=1),
        variance_components(TWO_ROWS),
        variance_components([[1.0]]),
        normalised_reward_variance([[0.0, 1.0], [1.0, NAN]]),
    ],
)
def test_results_survive_every_trip_and_show_themselves(result):
    for back in (result_from_json(result.to_json()), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert back == result
        assert type(back) is type(result)
    assert result.explanation in " ".join(result.summary(width=400).split())
    assert "<b>" not in result._repr_html_()
    assert all(number.value is None or not isinstance(number.value, str) for number in result.document().key_numbers)
    if isinstance(result, RewardSummary):
        frame = result.to_pandas()
        assert list(frame.index) == list(RewardSummary.rule_names)
        np.testing.assert_array_equal(frame["mean_var"], result.mean_var)
    if isinstance(result, NormalisedVariance):
        assert float(result_from_json(result.to_json())) == result.mean


def test_meta_of_a_table_goes_into_the_summary():
    found = summarize(RewardTable.from_array(TWO_ROWS, meta={"policy": "p", 3: 4, "other": [1]}))
    assert found.meta.details == {"interval": "0.95 t over prompts", "policy": "p"}


# --- real tables: every figure as printed beside them -------------------------------------------------------


@pytest.fixture(scope="module")
def solvers():
    path = reward_data("gsm8k_four_solvers_rewards.csv")
    if path is None:
        pytest.skip("the table of GSM8K rewards is not beside this repository; RANKDIAG_DATA may name its folder")
    names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    table = np.array(columns(path, [f"{column}_{name}" for column in ("correct", "chars") for name in names]))
    return table[:, :4], table[:, 4:]


def test_gsm8k_as_printed(solvers):
    correct, chars = solvers
    assert correct.shape == (1319, 4)
    assert correct.mean(axis=0).round(4).tolist() == [0.2168, 0.3904, 0.3472, 0.5625]
    found = summarize(correct)
    printed = {
        "frac_all_min": 0.3275,
        "frac_all_max": 0.1183,
        "frac_zero_std": 0.4458,
        "rms_std": 0.3917,
        "mean_std": 0.2909,
        "normalised_variance": 0.6517,
    }
    assert {name: round(getattr(found, name), 4) for name in printed} == printed
    assert (round(found.mean_var, 5), round(found.se_mean_var, 5)) == (0.15346, 0.00387)
    assert [round(float(zero_std_at_k(correct, k).mean()), 4) for k in (2, 3)] == [0.6931, 0.5396]
    plain = ranking_accuracy(-chars, correct)
    assert (round(plain.accuracy, 4), plain.n_pairs) == (0.4599, 2429)
    assert round(ranking_accuracy(-chars, correct, harm_aware=True).accuracy, 4) == 0.5494


def test_ifbench_as_printed():
    path = reward_data("ifbench_verifier_rewards.csv")
    if path is None:
        pytest.skip("the table of IFBench verdicts is not beside this repository; RANKDIAG_DATA may name its folder")
    rows = columns(path, ["prompt_index", "strict", "loose"])
    strict, loose = (
        RewardTable.from_records([{"prompt_id": int(row[0]), "reward": row[side]} for row in rows]) for side in (1, 2)
    )
    assert (len(rows), len(strict), strict.values.shape[1]) == (335, 294, 2)
    assert round(summarize(strict).pooled_mean, 4) == 0.2776
    assert round(summarize(loose).pooled_mean, 4) == 0.3254
    both = RewardTable.from_array(strict.values[strict.counts == 2])
    assert len(both) == 41
    found = summarize(both)
    assert round(found.frac_all_max, 4) == 0.0732
    assert round(found.grand_mean, 4) == 0.2317

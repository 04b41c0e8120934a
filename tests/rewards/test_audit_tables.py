"""What the rooms promise of tables and accuracies, sentence by sentence, against fractions and the plainest code."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_audit import ranking_oracle
from rankdiag._validate import RankdiagWarning
from rankdiag.rewards import (
    RewardNormalizer,
    RewardTable,
    SequentialStd,
    _pair_counts,
    c4_factor,
    exact_reward_moments,
    low_std_fraction,
    normalised_reward_variance,
    pair_accuracy,
    ranking_accuracy,
    reward_moments,
    std_interval,
    summarize,
    trl_batch_metrics,
    zero_std_at_k,
)

nan = float("nan")

# --- ranking accuracy ---


@st.composite
def rankings(draw: Any) -> tuple[Any, Any, Any, Any]:
    """Dyadic rewards, so that means are exact; NaN anywhere; differences that float32 cannot hold."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 8)))
    step = draw(st.sampled_from([1.0, 0.25, 2.0**-28]))
    proxy = 1.0 + step * rng.integers(0, draw(st.integers(2, 5)), shape)
    gold = 1.0 + step * rng.integers(0, draw(st.integers(1, 4)), shape)
    logs, lengths = rng.normal(-9, draw(st.sampled_from([0.3, 4.0, 300.0])), shape), rng.integers(0, 9, shape)
    for table in (proxy, gold, logs):
        table[rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = nan
    return proxy, gold, logs, lengths


@pytest.mark.filterwarnings("ignore::rankdiag._validate.RankdiagWarning")
@pytest.mark.parametrize("sweep_from", [512, 2])
@settings(max_examples=80)
@given(
    tables=rankings(),
    proxy_ties=st.sampled_from(["half", "strict"]),
    weighting=st.sampled_from(["uniform", "prompt", "sequence", "length_normalised"]),
    softmax_over=st.sampled_from(["all", "prompt"]),
    waiver=st.sampled_from(["no", "mean", "loo"]),
    compat=st.sampled_from([None, None, "sign_agreement", "index_ties"]),
)
def test_every_combination_of_options_is_its_definition(
    sweep_from: int, tables: Any, proxy_ties: Any, weighting: Any, softmax_over: Any, waiver: str, compat: Any
) -> None:
    proxy, gold, logs, lengths = tables
    if compat == "sign_agreement":
        waiver, weighting = "no", "prompt" if weighting == "prompt" else "uniform"
    options = {
        "proxy_ties": proxy_ties, "weighting": weighting, "softmax_over": softmax_over,
        "harm_aware": waiver != "no", "loo": waiver == "loo", "compat": compat,
    }  # fmt: skip
    own = {"sequence": logs, "length_normalised": logs / np.maximum(1, lengths)}.get(weighting)
    few = [row for row in range(len(proxy)) if np.isfinite(proxy[row]).sum() < 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pair_counts, "_SWEEP_FROM", sweep_from)

        def call() -> Any:
            return ranking_accuracy(proxy, gold, log_probs=logs, lengths=lengths, **options)

        wanted = ranking_oracle(proxy.tolist(), gold.tolist(), None if own is None else own.tolist(), **options)
        if wanted is None:
            with pytest.raises(ValueError, match="all gold rewards tie"):
                call()
            return
        if waiver == "loo" and any(not np.isnan(wanted["per_prompt"][row]) for row in few):
            with pytest.raises(ValueError, match="`loo` needs at least 3 scored rollouts"):
                call()
            return
        found = call()
    assert (found.n_pairs, found.n_gold_ties, found.n_proxy_ties) == (
        wanted["n_pairs"], wanted["n_gold_ties"], wanted["n_proxy_ties"]
    )  # fmt: skip
    np.testing.assert_allclose([found.accuracy, found.ess], [wanted["accuracy"], wanted["ess"]], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.per_prompt, wanted["per_prompt"], rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore::rankdiag._validate.RankdiagWarning")
@pytest.mark.parametrize("weighting", ["uniform", "prompt", "sequence", "length_normalised"])
@pytest.mark.parametrize("harm", [False, True])
def test_the_sweep_says_what_all_pairs_say_with_weights_and_ties(weighting: Any, harm: bool) -> None:
    rng = np.random.default_rng(3)
    proxy, gold = rng.integers(0, 25, (3, 530)) / 4, rng.integers(0, 9, (3, 530)) / 4
    proxy[0, :5] = gold[1, 7:9] = nan
    options: dict[str, Any] = {
        "weighting": weighting, "harm_aware": harm, "log_probs": rng.normal(-9, 1, (3, 530)),
        "lengths": rng.integers(1, 9, (3, 530)), "softmax_over": "prompt" if harm else "all",
    }  # fmt: skip
    swept = ranking_accuracy(proxy, gold, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pair_counts, "_SWEEP_FROM", 10**9)
        plain = ranking_accuracy(proxy, gold, **options)
    counts = [(x.n_pairs, x.n_gold_ties, x.n_proxy_ties) for x in (swept, plain)]
    assert counts[0] == counts[1]
    np.testing.assert_allclose([swept.accuracy, swept.ess], [plain.accuracy, plain.ess], rtol=1e-10)
    np.testing.assert_allclose(swept.per_prompt, plain.per_prompt, rtol=1e-10)


@pytest.mark.parametrize("k", [3, 7, 600])
def test_a_reward_that_equals_the_mean_is_not_below_it(k: int) -> None:
    """The float sum of three tenths divided by three is above a tenth."""
    gold = [list(range(k))]
    assert ranking_accuracy([[0.1] * k], gold, harm_aware=True).accuracy == 0.5
    assert ranking_accuracy([[-1e300] * k], gold, harm_aware=True).accuracy == 0.5
    if k < 600:
        assert ranking_accuracy([[0.1] * k], gold, harm_aware=True, loo=True).accuracy == 0.5


def test_the_mean_is_over_every_rollout_that_the_proxy_scored() -> None:
    """The third rollout has no gold reward, and no pair, but the policy drew it."""
    proxy, gold = [[1.0, 0.0, 8.0, 0.0]], [[0.0, 1.0, nan, nan]]
    for loo in (False, True):
        assert ranking_accuracy(proxy, gold, harm_aware=True, loo=loo).accuracy == 1.0
    proxy = [[1.0, 0.0, -8.0, 0.0]]
    for loo in (False, True):
        assert ranking_accuracy(proxy, gold, harm_aware=True, loo=loo).accuracy == 0.0


def test_leaving_out_a_huge_reward_leaves_the_small_ones() -> None:
    """Pair (0, 1): the rest is 1 + 2; a sum in float64 has lost it beside 2^60."""
    proxy, gold = [[2.0**60, 1.0, 1.0, 2.0]], [[1.0, 2.0, nan, nan]]
    assert ranking_accuracy(proxy, gold, harm_aware=True, loo=True).accuracy == 0.0
    gold = [[2.0, 1.0, nan, nan]]
    assert ranking_accuracy([[-(2.0**60), 1.0, 1.0, 2.0]], gold, harm_aware=True, loo=True).accuracy == 1.0
    assert ranking_accuracy([[-(2.0**60), 1.0, 1.0, 1.0]], gold, harm_aware=True, loo=True).accuracy == 0.0


def test_sums_beyond_float64_have_a_mean() -> None:
    """The rejected one lies below the mean, 1.75e307; columns one and three add up to infinity, two and four too."""
    proxy, gold = [[1.7e308, -1.7e308, 1.7e308, -1e308]], [[nan, 2.0, nan, 1.0]]
    assert ranking_accuracy(proxy, gold).accuracy == 0.0
    assert ranking_accuracy(proxy, gold, harm_aware=True).accuracy == 1.0


def test_a_prompt_without_a_pair_needs_no_third_rollout() -> None:
    proxy, gold = [[1.0, 2.0, 3.0], [1.0, 2.0, nan]], [[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]
    found = ranking_accuracy(proxy, gold, harm_aware=True, loo=True)
    assert (found.accuracy, found.n_pairs, found.n_gold_ties) == (1.0, 3, 1)


@pytest.mark.parametrize(("heavy", "said"), [(8, True), (11, False), (6, True)])
def test_few_effective_pairs_are_warned_of(heavy: int, said: bool) -> None:
    """Of 4,950 pairs a hundredth is 49.5; `heavy` rollouts carry the weight, so 28, 55 or 15 pairs do."""
    order = [list(range(100))]
    logs = [[0.0] * heavy + [-90.0] * (100 - heavy)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = ranking_accuracy(order, order, weighting="sequence", log_probs=logs)
    assert found.ess == pytest.approx(heavy * (heavy - 1) / 2)
    assert [w.category for w in seen] == [RankdiagWarning] * said


def test_modes_of_published_programs_round_to_float32() -> None:
    near = 1.0 + 2.0**-30
    assert ranking_accuracy([[1.0, near, 2.0]], [[1.0, 2.0, 3.0]]).accuracy == 1.0
    assert ranking_accuracy([[1.0, near, 2.0]], [[1.0, 2.0, 3.0]], compat="sign_agreement").accuracy == 2 / 3
    assert ranking_accuracy([[1.0, 3.0, 2.0]], [[1.0, near, 3.0]], compat="index_ties").accuracy == 2 / 3
    assert ranking_accuracy([[3.0, 1.0, 2.0]], [[near, 1.0, 3.0]], compat="index_ties").accuracy == 1 / 3
    for compat, credit in (("half", 0.5), ("strict", 0.0), ("best_of_k", 0.5)):
        assert pair_accuracy([near], [1.0], compat=compat).accuracy == credit
    assert pair_accuracy([near], [1.0]).accuracy == 1.0


def test_a_result_says_which_rule_for_ties_was_used() -> None:
    proxy = gold = [[1.0, 2.0]]
    for compat, ties in ((None, "half"), ("sign_agreement", "right where gold ties too"), ("index_ties", "strict")):
        details = ranking_accuracy(proxy, gold, compat=compat).meta.details
        assert (details["proxy_ties"], details.get("compat")) == (ties, compat)
    for rule, ties in ((None, "half"), ("strict", "strict"), ("best_of_k", "shared by all maxima")):
        assert pair_accuracy([1.0], [0.0], compat=rule).meta.details["ties"] == ties


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loo": True}, "`loo` must be False without harm_aware=True"),
        ({"compat": "sign_agreement", "harm_aware": True}, "neither a waiver nor weights"),
        ({"compat": "sign_agreement", "weighting": "sequence", "log_probs": [[0.0] * 3]}, "neither a waiver"),
        ({"gold_ties": "keep"}, "`gold_ties` must be one of"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ranking_accuracy([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], **options)


def test_one_rollout_a_prompt_makes_no_pair() -> None:
    with pytest.raises(ValueError, match="k=1 rollout per prompt makes no pair, draw at least 2"):
        ranking_accuracy([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="row 1 has 2"):
        ranking_accuracy([[1.0, 2.0, 3.0], [0.3, 0.1, nan]], [[1.0, 2.0, 3.0]] * 2, harm_aware=True, loo=True)


# --- given pairs ---


def test_the_waiver_has_its_limits_and_needs_an_expected_reward() -> None:
    chosen, rejected = [0.0, 1.0, 1.0, 2.0], [[1.0, nan], [1.0, 0.0], [0.0, 0.5], [1.0, 3.0]]
    plain = pair_accuracy(chosen, rejected)
    assert plain.per_prompt.tolist() == [0.0, 0.5, 1.0, 0.0]

    def aware(bars: list[float]) -> list[float]:
        return pair_accuracy(chosen, rejected, harm_aware=True, expected_reward=bars).per_prompt.tolist()

    assert aware([-np.inf] * 4) == [0.0, 0.5, 1.0, 0.0]
    assert aware([np.inf] * 4) == [1.0] * 4
    assert aware([1.0, 1.0, 1.0, 3.0]) == [0.0, 0.5, 1.0, 0.0]  # below is strict
    np.testing.assert_array_equal(aware([nan, 1.5, nan, 3.5]), [nan, 1.0, nan, 1.0])  # no rollouts: dropped


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), mode=st.sampled_from(["sequence", "length_normalised"]))
@pytest.mark.filterwarnings("ignore::rankdiag._validate.RankdiagWarning")
def test_one_against_many_weighs_by_the_sum_over_the_rejected(seed: int, mode: Any) -> None:
    """And one rejected response is the pairwise case."""
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.integers(0, 3, 6) * 1.0, rng.integers(0, 3, (6, 3)) * 1.0
    rejected[rng.random((6, 3)) < 0.3] = nan
    rejected[0] = 0.0
    own, others = rng.normal(-3, 1, 6), rng.normal(-3, 1, (6, 3))
    n, m = rng.integers(0, 5, 6), rng.integers(0, 5, (6, 3))
    found = pair_accuracy(
        chosen, rejected, weighting=mode, log_probs_chosen=own, log_probs_rejected=others,
        lengths_chosen=n, lengths_rejected=m,
    )  # fmt: skip
    weights, earned = [], []
    for i in range(6):
        kept = [j for j in range(3) if not np.isnan(rejected[i, j])]
        if kept:
            scale = (lambda x, length: x / max(1, length)) if mode == "length_normalised" else (lambda x, _: x)
            weights.append(np.exp(scale(own[i], n[i]) + sum(scale(others[i, j], m[i, j]) for j in kept)))
            top = max(rejected[i, j] for j in kept)
            earned.append(1.0 if chosen[i] > top else 0.5 if chosen[i] == top else 0.0)
    assert found.accuracy == pytest.approx(np.dot(weights, earned) / sum(weights), abs=1e-12)
    assert found.ess == pytest.approx(sum(weights) ** 2 / np.dot(weights, weights))
    narrow = pair_accuracy(
        chosen, rejected[:, 0], weighting=mode, log_probs_chosen=own, log_probs_rejected=others[:, 0],
        lengths_chosen=n, lengths_rejected=m[:, 0],
    )  # fmt: skip
    column = pair_accuracy(
        chosen, rejected[:, :1], weighting=mode, log_probs_chosen=own, log_probs_rejected=others[:, :1],
        lengths_chosen=n, lengths_rejected=m[:, :1],
    )  # fmt: skip
    assert narrow == column


# --- tables ---


def test_ids_that_differ_in_their_type_alone_are_not_merged() -> None:
    rows = [{"prompt_id": 1, "reward": 0.0}, {"prompt_id": np.int64(1), "reward": 1.0}]
    assert RewardTable.from_records(rows).values.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match="row 2 has the 'prompt_id' '1', which an earlier row has as a number"):
        RewardTable.from_records([*rows, {"prompt_id": "1", "reward": 2.0}])
    with pytest.raises(ValueError, match="row 1 has the 'prompt_id' 7, which an earlier row has as text"):
        RewardTable.from_records([{"prompt_id": "7", "reward": 0.0}, {"prompt_id": 7, "reward": 0.0}])


def test_prompts_without_an_id_have_the_hash_of_their_canonical_json() -> None:
    """Keys sorted, no spaces, characters as they are, UTF-8: by hashlib alone."""
    text = '[{"a":1.5,"content":"h\u00e9 \u4f60","role":"user"}]'
    wanted = hashlib.sha1(text.encode("utf-8")).hexdigest()
    rows = [
        {"prompt": [{"role": "user", "content": "h\u00e9 \u4f60", "a": 1.5}], "reward": 1.0},
        {"prompt": "plain", "reward": 2.0},
        {"prompt": [{"a": 1.5, "content": "h\u00e9 \u4f60", "role": "user"}], "reward": 3.0},
    ]
    table = RewardTable.from_records(rows)
    assert table.prompt_ids == (wanted, hashlib.sha1(b'"plain"').hexdigest())
    np.testing.assert_array_equal(table.values, [[1.0, 3.0], [2.0, nan]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RewardTable.from_array([[0.0, 1.0], [np.inf, 2.0]]), "rewards contain .-inf at row 1, column 0"),
        (lambda: reward_moments([[0.0, 1.0], [0.0, -np.inf]]), "rewards contain .-inf at row 1, column 1"),
        (lambda: ranking_accuracy([[0.0, np.inf]], [[0.0, 1.0]]), "rewards contain .-inf at row 0, column 1"),
        (lambda: pair_accuracy([0.0], [[1.0, np.inf]]), "rewards contain .-inf at row 0, column 1"),
        (lambda: pair_accuracy([0.0, np.inf], [1.0, 1.0]), "`chosen`.*rewards contain .-inf at row 1"),
        (lambda: ranking_accuracy([[0.0, 1.0]], [[0.0]]), r"gold rewards must align .* got \(1, 1\) and \(1, 2\)"),
        (lambda: zero_std_at_k([[1.0, 2.0, nan]], 3), "exceeds the 2 valid rollouts of prompt 0"),
        (lambda: std_interval([0.0, 2.0], reward_range=(0, 1)), r"`reward_range` \[0, 1\] must contain all rewards"),
        (lambda: exact_reward_moments([[0.5, 0.6]], [[1.0, 2.0]]), r"must sum to 1 .*got 1\.1"),
        (lambda: normalised_reward_variance([[1.0, 1.0]]), "all rewards identical"),
        (lambda: RewardNormalizer.fit([[1.0, 1.0]]), "all rewards identical"),
        (
            lambda: ranking_accuracy(
                [[0.0, 1.0]], [[0.0, 1.0]], weighting="sequence", log_probs=[[-1.7e308, -1.7e308]]
            ),
            "`log_probs` must have sums that float64 can hold",
        ),
        (lambda: ranking_accuracy([[0.0, 1.0]], [[1.0, 1.0]]), "all gold rewards tie: accuracy is undefined"),
    ],
)
def test_errors_say_what_is_wrong_and_where(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_published_micro_figures() -> None:
    table = [[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    found = summarize(table)
    assert found.pooled_mean == 0.75
    assert round(found.pooled_std**2, 6) == 0.214286
    assert round(found.normalised_variance, 6) == 0.777778
    fit = RewardNormalizer.fit(table)
    assert (fit.shift, fit.scale) == (-0.75, pytest.approx(1 / np.sqrt(1.5 / 7 + 1e-8), rel=1e-15))
    assert fit.transform(2.0) == pytest.approx(1.25 * fit.scale, rel=1e-15)
    assert [round(c4_factor(k), 6) for k in (2, 4, 8, 10, 16)] == [0.797885, 0.921318, 0.965030, 0.972659, 0.983484]
    assert c4_factor(10**6) == pytest.approx(1 - 1 / (4e6 - 3), rel=1e-9)
    radii = [std_interval(np.arange(n) % 2, reward_range=(0, 1)).radius for n in (10, 64, 256, 1024)]
    assert [round(r, d) for r, d in zip(radii, (3, 3, 3, 4), strict=True)] == [0.816, 0.308, 0.153, 0.0765]
    assert round(std_interval([1.0] * 1000, method="binary_exact", reward_range=(0, 1)).upper, 4) == 0.0546


# --- spread ---


def test_a_bound_that_is_the_threshold_is_low_above_and_undecided_below() -> None:
    """`tau` is a threshold of at most: an upper bound equal to it certifies, a lower bound equal to it does not."""
    row = np.array([1.0] * 200 + [0.0] * 40)
    found = std_interval(row, method="binary_exact", reward_range=(0, 1))
    assert 0 < found.lower < found.upper < 0.5
    for tau, wanted in ((found.upper, (1.0, 0.0, 0.0)), (found.lower, (0.0, 1.0, 0.0))):
        shares = low_std_fraction(row[None], tau, method="certified", reward_range=(0, 1))
        assert (shares.certain_low, shares.undecided, shares.certain_high) == wanted
    below = low_std_fraction(row[None], np.nextafter(found.lower, 0), method="certified", reward_range=(0, 1))
    assert below.certain_high == 1.0
    eight = np.array([0.0, 1.0] * 4)
    first = std_interval(eight, reward_range=(0, 20), method="maurer_pontil", sides="two", delta=6 * 0.05 / np.pi**2)
    whole = SequentialStd(first.upper, reward_range=(0, 20), max_rollouts=8)
    assert (whole.update(eight), whole.interval.upper) == ("low", first.upper)


def test_the_trainers_own_test_for_zero_has_a_tolerance_and_ours_has_none() -> None:
    rewards = [1.0, 1.0 + 1e-9, 0.0, 1.0]
    assert trl_batch_metrics(rewards, num_generations=2).frac_reward_zero_std == 0.5
    assert summarize(np.reshape(rewards, (2, 2))).frac_zero_std == 0.0
    wide = [1.0, 1.0 + 4e-8, 0.0, 1.0]
    assert trl_batch_metrics(wide, num_generations=2).frac_reward_zero_std == 0.0

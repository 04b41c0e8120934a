"""Displacement reports: what is counted, what is strict, what is left out, how sure the mean is, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rankdiag as rd
from oracles.displacement import report as slow_report
from rankdiag.preference import DisplacementReport, LogProbs, displacement_report

NAN = float("nan")
ARRAYS = (
    "delta_chosen", "delta_rejected", "margin_change", "per_token_delta_chosen", "displaced", "displacement_ratio",
)  # fmt: skip
COLUMNS = tuple(name for name in ARRAYS if name != "displaced")
SHARES = ("displaced_fraction", "both_fell_fraction", "both_rose_fraction", "accuracy_before", "accuracy_after")
NUMBERS = (
    *SHARES, "mean_delta_chosen", "mean_delta_rejected", "median_delta_chosen", "mean_per_token_delta_chosen",
    "loss_before", "loss_after", "implicit_reward_accuracy", "pushed_down_on_purpose",
)  # fmt: skip
OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}

# Multiples of 1/8 down to -50 nats: every difference of two is exact, so signs and counts are too.
LOGP = st.integers(-400, 0).map(lambda i: i / 8)
PAIR = st.tuples(LOGP, LOGP, LOGP, LOGP, LOGP, LOGP, st.integers(1, 9), st.integers(1, 9))
PAIRS = st.lists(PAIR, min_size=1, max_size=12)


def record(chosen, rejected, n_chosen=None, n_rejected=None, **more) -> LogProbs:
    lengths = np.where(np.isnan(np.asarray(chosen, float)), 0, 2)
    return LogProbs(
        chosen=chosen,
        rejected=rejected,
        n_chosen=lengths if n_chosen is None else n_chosen,
        n_rejected=lengths if n_rejected is None else n_rejected,
        **more,
    )


def records(pairs) -> tuple[LogProbs, LogProbs, LogProbs]:
    """Return before, after and reference of rows (a, b, a after, b after, a of ref, b of ref, n+, n-)."""
    a, b, c, d, e, f, n, m = (np.array(column, float) for column in zip(*pairs, strict=True))
    return record(a, b, n, m), record(c, d, n, m), record(e, f, n, m)


def swapped(entry: LogProbs) -> LogProbs:
    return record(entry.rejected, entry.chosen, entry.n_rejected, entry.n_chosen)


def moved(deltas, rng=0, start=-100.0) -> DisplacementReport:
    """Return the report of pairs whose chosen response moved by `deltas` and whose rejected one stayed."""
    level = np.full(len(deltas), start)
    return displacement_report(record(level, level), record(level + deltas, level), rng=rng)


def bits(value) -> bytes:
    return value.tobytes() if isinstance(value, np.ndarray) else struct.pack("<d", value)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


HAND_BEFORE = record([-4.0, -6.0, NAN, -8.0, -10.0], [-4.0, -7.0, NAN, -8.0, -9.0], [2, 4, 0, 1, 5], [3, 1, 0, 2, 2])
HAND_AFTER = record([-5.0, -5.0, NAN, -8.0, -12.0], [-8.0, -6.0, NAN, -9.0, -11.0], [2, 4, 0, 1, 5], [3, 1, 0, 2, 2])


# --- values ------------------------------------------------------------------------------------------------------


def test_five_pairs_by_hand():
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    expected = {
        "delta_chosen": [-1.0, 1.0, NAN, 0.0, -2.0],
        "delta_rejected": [-4.0, 1.0, NAN, -1.0, -2.0],
        "margin_change": [3.0, 0.0, NAN, 1.0, 0.0],
        "per_token_delta_chosen": [-0.5, 0.25, NAN, 0.0, -0.4],
        "displaced": [True, False, False, False, True],
        "displacement_ratio": [1 / 3, NAN, NAN, 0.0, NAN],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(report, name), values, err_msg=name)
    assert report.displaced.dtype == bool
    assert report.mean_delta_chosen == -0.5
    assert report.mean_delta_rejected == -1.5
    assert report.median_delta_chosen == -0.5
    assert report.quantiles_delta_chosen == pytest.approx((-1.85, -1.25, -0.5, 0.25, 0.85))
    assert report.mean_per_token_delta_chosen == pytest.approx(-0.1625)
    assert report.displaced_fraction == 0.5
    assert report.both_fell_fraction == 0.5
    assert report.both_rose_fraction == 0.25
    assert report.accuracy_before == 0.25
    assert report.accuracy_after == 0.75
    assert report.implicit_reward_accuracy == 0.5
    assert report.loss_before == pytest.approx(math.log(2))
    assert report.loss_after == pytest.approx((softplus(-0.3) + softplus(-0.1) + 2 * math.log(2)) / 4)
    assert report.dataset_displaced is True
    assert report.pushed_down_on_purpose == 0
    assert report.verdict == "unknown"
    assert report.loss == "dpo"
    assert report.worst_pairs() == (4, 0, 3, 1)
    assert report.worst_pairs(1) == (4,)
    assert report.worst_pairs(by="margin_change") == (1, 4, 3, 0)
    assert report.keys == ("pair 0", "pair 1", "pair 2", "pair 3", "pair 4")


def test_results_are_plain_numbers():
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    assert {type(getattr(report, name)) for name in NUMBERS} == {float}
    assert {type(value) for value in (*report.quantiles_delta_chosen, *report.mean_delta_chosen_interval)} == {float}


@given(PAIRS)
def test_every_number_is_that_of_the_slow_oracle(pairs):
    before, after, ref = records(pairs)
    report = displacement_report(before, after, ref=ref)
    rows = [(a, b, n, m) for a, b, *_, n, m in pairs]
    later = [(c, d, n, m) for _, _, c, d, *_, n, m in pairs]
    anchor = [(e, f, n, m) for *_, e, f, n, m in pairs]
    for name, value in slow_report(rows, later, anchor).items():
        np.testing.assert_allclose(getattr(report, name), value, rtol=1e-12, atol=1e-12, err_msg=name)
    losses = [
        sum(softplus(-0.1 * ((x[0] - r[0]) - (x[1] - r[1]))) for x, r in zip(side, anchor, strict=True)) / len(pairs)
        for side in (rows, later)
    ]
    assert (report.loss_before, report.loss_after) == pytest.approx(losses)
    fell = report.loss_after < report.loss_before and report.mean_delta_chosen < 0
    assert report.dataset_displaced is fell
    order = sorted(c - a for a, _, c, *_ in pairs)
    for share, value in zip((0.05, 0.25, 0.5, 0.75, 0.95), report.quantiles_delta_chosen, strict=True):
        place = share * (len(order) - 1)
        low, part = math.floor(place), place % 1
        assert value == pytest.approx(order[low] + part * (order[min(low + 1, len(order) - 1)] - order[low]))
    assert report.median_delta_chosen == report.quantiles_delta_chosen[2]


@pytest.mark.parametrize(
    ("delta", "fell", "expected"),
    [((-1.0, -2.0), True, True), ((1.0, -2.0), True, False), ((-2.0, -1.0), False, False), ((0.0, -1.0), True, False)],
)
def test_a_dataset_is_displaced_only_if_the_loss_fell_and_the_mean_did(delta, fell, expected):
    before = record([-5.0, -5.0], [-5.0, -5.0])
    report = displacement_report(before, record([-5.0 + delta[0]] * 2, [-5.0 + delta[1]] * 2))
    assert (report.loss_after < report.loss_before) is fell
    assert report.dataset_displaced is expected


def test_an_unchanged_loss_is_no_displacement():
    report = displacement_report(record([-5.0], [-5.0]), record([-6.0], [-6.0]))
    assert report.loss_after == report.loss_before
    assert report.displaced_fraction == 1
    assert report.dataset_displaced is False


def test_the_mean_of_sums_decides_not_that_of_tokens():
    # Summed: -1 and +3, so it rose. Per token: -1 and +0.03, so it fell.
    before, after = ([-9.0, -90.0], [-9.0, -9.0]), ([-10.0, -87.0], [-20.0, -20.0])
    report = displacement_report(record(*before, [1, 100], [1, 1]), record(*after, [1, 100], [1, 1]))
    assert report.mean_per_token_delta_chosen < 0 < report.mean_delta_chosen
    assert report.dataset_displaced is False


def test_the_reference_changes_the_loss_and_the_implicit_accuracy_alone():
    before, after = record([-5.0, -5.0], [-5.0, -5.0]), record([-6.0, -4.0], [-7.0, -6.0])
    ref = record([-1.0, -5.0], [-5.0, -5.0])
    plain, other = displacement_report(before, after), displacement_report(before, after, ref=ref)
    assert plain.implicit_reward_accuracy == 1
    assert other.implicit_reward_accuracy == 0.5  # (-6 + 1) - (-7 + 5) = -3 and (-4 + 5) - (-6 + 5) = 2
    assert other.loss_before == pytest.approx((softplus(0.4) + math.log(2)) / 2)
    assert other.loss_after == pytest.approx((softplus(0.3) + softplus(-0.2)) / 2)
    for name in (*ARRAYS, *SHARES, "mean_delta_chosen", "mean_delta_chosen_interval"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
    assert plain.meta.details["reference"] == "before"
    assert other.meta.details["reference"] == "ref"


def test_lengths_reach_a_loss_that_has_them_and_a_function_is_named():
    def gap(a, b, ra, rb, n, m):
        return b / m - a / n

    loss = displacement_report(HAND_BEFORE, HAND_AFTER, loss="simpo", beta=2.0, loss_options={"gamma": 0.5}).loss_after
    margins = [-5 / 2 + 8 / 3, -5 / 4 + 6, -8 + 9 / 2, -12 / 5 + 11 / 2]
    assert loss == pytest.approx(sum(softplus(0.5 - 2 * x) for x in margins) / 4)
    report = displacement_report(HAND_BEFORE, HAND_AFTER, loss=gap, beta=None)
    assert report.loss == "gap"
    assert report.loss_after == pytest.approx(-sum(margins) / 4)


# --- signs and identities ------------------------------------------------------------------------------------------


def test_nothing_that_stays_fell_or_rose():
    report = displacement_report(HAND_BEFORE, HAND_BEFORE)
    assert report.displaced_fraction == report.both_fell_fraction == report.both_rose_fraction == 0
    assert report.implicit_reward_accuracy == 0
    assert np.isnan(report.displacement_ratio).all()
    assert report.mean_delta_chosen_interval == (0.0, 0.0)


@pytest.mark.parametrize(
    ("deltas", "displaced", "fell", "rose"),
    [
        ((0.0, -1.0), 0, 0, 0),
        ((-1.0, 0.0), 1, 0, 0),
        ((0.0, 1.0), 0, 0, 0),
        ((1.0, 0.0), 0, 0, 0),
        ((-(2.0**-40), -(2.0**-40)), 1, 1, 0),
        ((2.0**-40, 2.0**-40), 0, 0, 1),
        ((-1.0, 1.0), 1, 0, 0),
    ],
)
def test_zero_is_neither_side(deltas, displaced, fell, rose):
    report = displacement_report(record([-2.0], [-2.0]), record([-2.0 + deltas[0]], [-2.0 + deltas[1]]))
    assert report.displaced.tolist() == [bool(displaced)]
    assert (report.displaced_fraction, report.both_fell_fraction, report.both_rose_fraction) == (displaced, fell, rose)


def test_equal_log_probabilities_are_not_accurate():
    same = record([-2.0, -3.0], [-2.0, -3.0])
    report = displacement_report(same, same)
    assert report.accuracy_before == report.accuracy_after == 0


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_margin_below_a_billionth_of_a_nat_has_no_ratio(sign):
    edge = 1e-9
    below = math.nextafter(edge, 0)
    start, rejected = record([0.0] * 2, [0.0] * 2), np.zeros(2)
    fall = displacement_report(start, record([-edge, -below], rejected))
    np.testing.assert_array_equal(fall.displacement_ratio, [-1.0, NAN])
    # The other sign: the rejected response falls and the chosen one stays.
    grow = displacement_report(start, record(rejected, [-edge, -below]))
    np.testing.assert_array_equal(grow.margin_change, [edge, below])
    np.testing.assert_array_equal(grow.displacement_ratio, [0.0, NAN])


@given(PAIRS)
def test_ratios_name_regimes_where_the_margin_grew(pairs):
    before, after, _ = records(pairs)
    report = displacement_report(before, after)
    for up, down, margin, ratio in zip(
        report.delta_chosen, report.delta_rejected, report.margin_change, report.displacement_ratio, strict=True
    ):
        assert margin == up - down
        assert np.isnan(ratio) == (margin == 0)
        if margin > 0:
            assert (ratio > 0) == (up < 0)
            assert (ratio < -1) == (down > 0)
            assert (-1 < ratio < 0) == (up > 0 and down < 0)
        elif margin < 0:  # the same signs mean the opposite
            assert (ratio > 0) == (up > 0)
            assert (ratio < -1) == (down < 0)


@given(PAIRS)
def test_chosen_and_rejected_change_places(pairs):
    before, after, ref = records(pairs)
    report = displacement_report(before, after, ref=ref)
    other = displacement_report(swapped(before), swapped(after), ref=swapped(ref))
    np.testing.assert_array_equal(other.delta_chosen, report.delta_rejected)
    np.testing.assert_array_equal(other.delta_rejected, report.delta_chosen)
    np.testing.assert_array_equal(other.margin_change, -report.margin_change)
    np.testing.assert_allclose(
        other.displacement_ratio + report.displacement_ratio, np.where(report.margin_change, -1, NAN)
    )
    assert other.mean_delta_chosen == report.mean_delta_rejected
    assert other.displaced_fraction == np.mean(report.delta_rejected < 0)
    assert other.both_fell_fraction == report.both_fell_fraction
    assert other.both_rose_fraction == report.both_rose_fraction
    for name, entry in (("accuracy_before", before), ("accuracy_after", after)):
        ties = np.mean(entry.chosen == entry.rejected)
        assert getattr(report, name) + getattr(other, name) + ties == pytest.approx(1)


@given(PAIRS)
def test_shares_add_up(pairs):
    before, after, _ = records(pairs)
    report = displacement_report(before, after)
    assert report.displaced_fraction + np.mean(report.delta_chosen >= 0) == pytest.approx(1)
    assert report.displaced_fraction == report.displaced.mean()
    assert 0 <= report.both_fell_fraction <= report.displaced_fraction
    assert report.both_rose_fraction + report.displaced_fraction <= 1


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(pairs, random):
    order = list(range(len(pairs)))
    random.shuffle(order)
    report = displacement_report(*records(pairs)[:2])
    other = displacement_report(*records([pairs[i] for i in order])[:2])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(other, name), getattr(report, name)[order])
    for name in NUMBERS:
        assert getattr(other, name) == pytest.approx(getattr(report, name), rel=1e-12, abs=1e-14)
    assert other.quantiles_delta_chosen == report.quantiles_delta_chosen
    assert other.dataset_displaced == report.dataset_displaced


@given(PAIRS, st.integers(0, 80), st.integers(0, 80))
def test_a_constant_before_and_after_cancels(pairs, left, right):
    before, after, _ = records(pairs)
    report = displacement_report(before, after)
    low = [record(e.chosen - left / 8, e.rejected - right / 8, e.n_chosen, e.n_rejected) for e in (before, after)]
    other = displacement_report(*low)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(other, name), getattr(report, name))
    for name in {*NUMBERS} - {"accuracy_before", "accuracy_after"}:
        assert getattr(other, name) == getattr(report, name), name
    assert other.mean_delta_chosen_interval == report.mean_delta_chosen_interval
    if left == right:
        assert other.accuracy_before == report.accuracy_before
        assert other.accuracy_after == report.accuracy_after


@given(PAIRS, st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_scaling_moves_nats_and_no_share(pairs, scale):
    before, after, _ = records(pairs)
    report = displacement_report(before, after)
    big = [record(e.chosen * scale, e.rejected * scale, e.n_chosen, e.n_rejected) for e in (before, after)]
    other = displacement_report(*big, beta=0.1 / scale)
    for name in ("delta_chosen", "delta_rejected", "margin_change", "per_token_delta_chosen"):
        np.testing.assert_array_equal(getattr(other, name), getattr(report, name) * scale)
    np.testing.assert_array_equal(other.displacement_ratio, report.displacement_ratio)
    np.testing.assert_array_equal(other.displaced, report.displaced)
    for name in ("mean_delta_chosen", "mean_delta_rejected", "median_delta_chosen", "mean_per_token_delta_chosen"):
        assert getattr(other, name) == pytest.approx(getattr(report, name) * scale, rel=1e-12)
    for name in (*SHARES, "implicit_reward_accuracy"):
        assert getattr(other, name) == getattr(report, name)
    assert other.mean_delta_chosen_interval == pytest.approx([x * scale for x in report.mean_delta_chosen_interval])
    assert (other.loss_before, other.loss_after) == pytest.approx((report.loss_before, report.loss_after))


def test_the_inputs_are_left_alone():
    kept = [e.to_dict() for e in (HAND_BEFORE, HAND_AFTER)]
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    assert [e.to_dict() for e in (HAND_BEFORE, HAND_AFTER)] == kept
    for name in ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(report, name)[0] = 1


# --- how sure the mean is ------------------------------------------------------------------------------------------


def test_a_seed_repeats_the_interval_and_is_stored():
    deltas = np.random.default_rng(5).standard_normal(40)
    report = moved(deltas, rng=3)
    assert report.meta.seed == 3
    assert moved(deltas, rng=3) == report
    assert moved(deltas, rng=np.random.default_rng(3)).mean_delta_chosen_interval == report.mean_delta_chosen_interval
    assert moved(deltas, rng=4).mean_delta_chosen_interval != report.mean_delta_chosen_interval
    drawn = moved(deltas, rng=None)
    assert moved(deltas, rng=drawn.meta.seed).mean_delta_chosen_interval == drawn.mean_delta_chosen_interval
    assert moved(deltas).meta.seed == 0


def test_a_generator_goes_on():
    deltas, rng = np.random.default_rng(5).standard_normal(40), np.random.default_rng(3)
    first, second = (moved(deltas, rng=rng).mean_delta_chosen_interval for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("draw", "mean", "deviation"),
    [
        (lambda rng, size: rng.normal(-0.3, 2.0, size), -0.3, 2.0),
        (lambda rng, size: 1.0 - rng.exponential(1.5, size), -0.5, 1.5),
        (lambda rng, size: rng.uniform(-1.0, 1.0, size), 0.0, math.sqrt(1 / 3)),
    ],
    ids=["normal", "skewed", "uniform"],
)
def test_the_interval_holds_the_true_mean_nineteen_times_of_twenty(draw, mean, deviation):
    size, runs = 60, 300
    rng = np.random.default_rng(2024)
    found = np.array([moved(draw(rng, size), rng=run).mean_delta_chosen_interval for run in range(runs)])
    covered = np.mean((found[:, 0] <= mean) & (mean <= found[:, 1]))
    assert 0.90 <= covered <= 0.98  # nominal 0.95, its standard error 0.013; a bootstrap of 60 is a little short
    normal = 2 * 1.959964 * deviation / math.sqrt(size)
    assert 0.94 <= np.mean(found[:, 1] - found[:, 0]) / normal <= 1.02  # at 90 % it would be 0.84, at 99 % 1.31
    assert np.mean(found[:, 0] > mean) < 0.06
    assert np.mean(found[:, 1] < mean) < 0.06


def test_the_interval_is_that_of_the_resampled_means():
    deltas = np.array([-3.0, -1.0, 0.5, 2.0, 4.0])
    means = np.array(np.meshgrid(*[deltas] * 5)).reshape(5, -1).mean(axis=0)  # every resample there is, 5^5 of them
    low, high = moved(deltas).mean_delta_chosen_interval
    # Each bound of 1000 resamples lies within a few ranks of the exact one.
    assert np.quantile(means, 0.012) <= low <= np.quantile(means, 0.042)
    assert np.quantile(means, 0.958) <= high <= np.quantile(means, 0.988)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_pairs_that_moved_alike_leave_no_doubt(size):
    assert moved(np.full(size, -0.5)).mean_delta_chosen_interval == (-0.5, -0.5)


def test_many_pairs_are_resampled_in_blocks():
    deltas = np.random.default_rng(1).standard_normal(9000)  # 9 million indices: more than one block
    low, high = moved(deltas).mean_delta_chosen_interval
    assert low < deltas.mean() < high
    assert (high - low) == pytest.approx(2 * 1.96 / math.sqrt(9000), rel=0.1)


@pytest.mark.parametrize(
    ("deltas", "words"),
    [
        ([-1.0, -1.5, -2.0, -1.2], "less probable: by 1.43 nats on average"),
        ([1.0, 1.5, 2.0, 1.2], "more probable: by 1.43 nats on average"),
        ([-1.0, 1.5, -2.0, 1.2], "no more than noise"),
    ],
)
def test_noise_is_not_called_displacement(deltas, words):
    report = moved(np.array(deltas))
    low, high = report.mean_delta_chosen_interval
    assert words in report.explanation
    assert f"({low:.3g} to {high:.3g})" in report.explanation
    assert f"{report.displaced_fraction:.0%} of the pairs fell" in report.explanation


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [(-11.0, -30.0, True), (-0.21, -5.0, True), (-0.19, -5.0, False), (-0.21, 0.0, False), (1.0, -5.0, False)],
)
def test_unlearning_is_named(chosen, rejected, said):
    report = displacement_report(record([-50.0] * 3, [-50.0] * 3), record([-50.0 + chosen] * 3, [-50.0 + rejected] * 3))
    assert ("unlearning" in report.explanation) is said


# --- pairs that cannot be used -------------------------------------------------------------------------------------


@given(PAIRS, st.data())
def test_unusable_pairs_change_nothing_but_their_count(pairs, data):
    before, after, ref = records(pairs)
    places = data.draw(st.lists(st.integers(0, len(pairs)), min_size=1, max_size=4).map(sorted))
    side = data.draw(st.sampled_from([0, 1, 2]))
    holes = []
    for number, entry in enumerate((before, after, ref)):
        # In one record the pair is missing; in the others it has numbers that must not be read.
        fill = NAN if number == side else -7.0
        columns = [np.insert(getattr(entry, name), places, fill) for name in ("chosen", "rejected")]
        lengths = [
            np.insert(getattr(entry, name), places, 0 if number == side else 3) for name in ("n_chosen", "n_rejected")
        ]
        holes.append(record(*columns, *lengths))
    whole, other = displacement_report(before, after, ref=ref), displacement_report(*holes[:2], ref=holes[2])
    for name in (*NUMBERS, "quantiles_delta_chosen", "mean_delta_chosen_interval", "dataset_displaced"):
        assert getattr(other, name) == getattr(whole, name), name
    used = other.usable
    assert used.sum() == len(pairs) == other.meta.n
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(other, name)[used], getattr(whole, name))
    for name in COLUMNS:
        assert np.isnan(getattr(other, name)[~used]).all()
    assert not other.displaced[~used].any()
    assert other.status_counts() == {"ok": len(pairs), "unusable": len(places)}
    assert list(other.meta.skipped) == [f"{len(places)} of {len(used)} pairs"]
    assert f"Skipped {len(places)} of {len(used)} pairs" in " ".join(other.summary().split())
    assert set(other.worst_pairs(99)) == set(np.flatnonzero(used).tolist())


def test_the_first_of_the_left_out_pairs_are_named():
    gaps = record([-1.0, NAN, NAN, NAN, NAN], [-2.0, NAN, NAN, NAN, NAN], keys=list("abcde"))
    report = displacement_report(gaps, gaps)
    assert list(report.meta.skipped) == ["4 of 5 pairs"]
    assert "(b, c, d and 1 more)" in report.meta.skipped["4 of 5 pairs"]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("bound", [-1.0, 0.0, 1.0])
def test_an_unusable_pair_meets_no_rule_and_is_named_by_every_rule(column, op, bound):
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    values = report.column(column)
    found = {finding.name: finding for finding in report.flag([f"{column} {op} {bound}"])}
    for key, value in zip(report.keys, values, strict=True):
        if np.isnan(value):
            assert found[key].severity == "unknown"
            assert found[key].value is None
        else:
            assert (key in found) == OPS[op](value, bound)
            assert key not in found or found[key].severity == "alert"
    assert found["pair 2"].severity == "unknown"


def test_a_rule_may_name_a_number_of_the_whole_dataset():
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    for name in {*NUMBERS} - {"pushed_down_on_purpose"}:
        value = getattr(report, name)
        (finding,) = report.flag([f"{name} >= {value!r}"])
        assert (finding.name, finding.severity, finding.value) == ("", "alert", value)
        assert report.flag([f"{name} > {value!r}"]) == ()


# --- what is refused -----------------------------------------------------------------------------------------------


def keyed(*keys) -> LogProbs:
    return record([-1.0] * len(keys), [-1.0] * len(keys), keys=list(keys))


TWO = record([-1.0, -2.0], [-3.0, -4.0])
THREE = record([-1.0] * 3, [-1.0] * 3)


@pytest.mark.parametrize("wrong", [3, "x", {"chosen": [-1.0]}, np.zeros(2), [TWO]])
@pytest.mark.parametrize("name", ["before", "after", "ref"])
def test_what_is_no_record_is_named(name, wrong):
    with pytest.raises(TypeError, match=f"^`{name}` must be LogProbs; got "):
        displacement_report(**{"before": TWO, "after": TWO, name: wrong})


@pytest.mark.parametrize("name", ["after", "ref"])
@pytest.mark.parametrize(
    ("before", "other", "words"),
    [
        (keyed("a", "b", "c"), keyed("a", "x", "y"), "hold the pairs of `before`: 2 keys missing in {name}"),
        (keyed("a", "b", "c"), keyed("c", "a"), "hold the pairs of `before`: 1 keys missing in {name}"),
        (keyed("a", "b"), keyed("a", "b", "c", "d"), "hold the pairs of `before`: 2 keys too many in {name}"),
        (keyed("a", "b"), keyed("b", "a"), "hold the pairs of `before` in the same order"),
        (TWO, THREE, "hold 2 pairs, as `before` does; got 3"),
        (THREE, TWO, "hold 3 pairs, as `before` does; got 2"),
    ],
)
def test_records_of_other_pairs_are_refused_with_the_number_of_keys(name, before, other, words):
    given_records = {"before": before, "after": before, name: other}
    with pytest.raises(ValueError, match=f"^`{name}` must {words.format(name=name)}$"):
        displacement_report(**given_records)


@pytest.mark.parametrize("name", ["after", "ref"])
@pytest.mark.parametrize("pair", [(TWO, keyed("a", "b")), (keyed("a", "b"), TWO)])
def test_keys_on_one_side_only_are_refused(name, pair):
    before, other = pair
    with pytest.raises(ValueError, match=f"`before` and `{name}` must both have keys, or neither"):
        displacement_report(**{"before": before, "after": before, name: other})


@pytest.mark.parametrize("name", ["after", "ref"])
@pytest.mark.parametrize("side", ["n_chosen", "n_rejected"])
def test_responses_of_other_lengths_are_refused_with_the_pair(name, side):
    before = record([-1.0, -2.0], [-3.0, -4.0], [2, 2], [2, 2])
    other = dataclasses.replace(before, **{side: [2, 5]})
    words = rf"^pair 1: `{name}` has 5 tokens in {side} and `before` has 2; both must be encoded alike"
    with pytest.raises(ValueError, match=words):
        displacement_report(**{"before": before, "after": before, name: other})


@pytest.mark.parametrize("name", ["before", "after", "ref"])
def test_one_record_without_any_usable_pair_is_refused(name):
    nothing = record([NAN, NAN], [NAN, NAN])
    with pytest.raises(ValueError, match=f"no pair has log-probabilities in .*`{name}`.*at least one is needed"):
        displacement_report(**{"before": TWO, "after": TWO, name: nothing})


def test_records_without_a_common_usable_pair_are_refused():
    with pytest.raises(ValueError, match="at least one is needed"):
        displacement_report(record([-1.0, NAN], [-1.0, NAN]), record([NAN, -1.0], [NAN, -1.0]))


@pytest.mark.parametrize("name", ["before", "after", "ref"])
@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_positive_log_probabilities_are_refused_on_either_side(name, side):
    wrong = dataclasses.replace(TWO, **{side: [-1.0, 0.25]})
    with pytest.raises(ValueError, match=rf"^`{name}` must hold log-probabilities, at most 0; got 0.25"):
        displacement_report(**{"before": TWO, "after": TWO, name: wrong})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loss": "dpoo"}, ValueError, "`loss` must be one of dpo, .*'dpoo'"),
        ({"loss": 3}, TypeError, "`loss` must be a name"),
        ({"beta": 0.0}, ValueError, "`beta` must be a finite real number > 0; got 0.0"),
        ({"beta": -1.0}, ValueError, "`beta`"),
        ({"beta": NAN}, ValueError, "`beta`"),
        ({"beta": "0.1"}, TypeError, "`beta`"),
        ({"beta": None}, TypeError, "missing `beta`"),
        ({"loss": "ipo"}, TypeError, "missing `tau`, unexpected `beta`.*'ipo_norm'"),
        ({"loss": "ipo", "beta": None, "loss_options": {"tau": 0.0}}, ValueError, "`tau`"),
        ({"loss": "robust", "loss_options": {"eps": 0.5}}, ValueError, "`eps`"),
        ({"loss_options": {"tau": 1.0}}, TypeError, "unexpected `tau`; it takes exactly beta"),
        ({"loss_options": {"beta": 1.0}}, TypeError, "`loss_options` must not hold beta"),
        ({"loss_options": {"ref_chosen": 1.0}}, TypeError, "`loss_options` holds 'ref_chosen'"),
        ({"loss_options": [1.0]}, TypeError, "`loss_options` must be a mapping"),
        ({"rng": "a"}, TypeError, "`rng` must be None, a seed >= 0 or a numpy Generator; got 'a'"),
        ({"rng": True}, TypeError, "`rng`"),
        ({"rng": 1.5}, TypeError, "`rng`"),
        ({"rng": -1}, ValueError, "`rng`"),
        ({"level": 0.9}, TypeError, "unexpected keyword argument 'level'"),
    ],
)
def test_options_are_refused_by_name(options, error, words):
    with pytest.raises(error, match=words):
        displacement_report(TWO, TWO, **options)


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        displacement_report(TWO, TWO, "dpo")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"chosen": [-1.0]}, ValueError, "`rejected` must have one entry for each of 1 pairs; got 2"),
        ({"rejected": [-1.0]}, ValueError, "`rejected` must have one entry for each of 2 pairs; got 1"),
        ({"n_chosen": [1]}, ValueError, "`n_chosen` must have one entry for each of 2 pairs; got 1"),
        ({"n_rejected": [1, 2, 3]}, ValueError, "`n_rejected` must have one entry for each of 2 pairs; got 3"),
        ({"chosen": [-1.0, -np.inf]}, ValueError, "pair 1: `chosen` is -inf; .* or NaN in both responses"),
        ({"rejected": [np.inf, -1.0]}, ValueError, "pair 0: `rejected` is inf"),
        ({"chosen": [-1.0, NAN]}, ValueError, "pair 1: `chosen` is nan and `rejected` is -4.0; give both, or NaN"),
        ({"rejected": [NAN, -1.0]}, ValueError, "pair 0: `chosen` is -1.0 and `rejected` is nan"),
        ({"chosen": [[-1.0, -2.0]]}, ValueError, "`chosen`"),
        ({"chosen": []}, ValueError, "`chosen` must not be empty"),
        ({"chosen": ["a", "b"]}, TypeError, "`chosen`"),
        ({"chosen": [1j, 2j]}, TypeError, "`chosen`"),
        ({"chosen": None}, TypeError, "`chosen`"),
        ({"n_chosen": [1, 0]}, ValueError, "pair 1: `n_chosen` must be a whole number of tokens >= 1; got 0.0"),
        ({"n_chosen": [-1, 1]}, ValueError, "pair 0: `n_chosen`"),
        ({"n_rejected": [1.5, 1]}, ValueError, "pair 0: `n_rejected` must be a whole number.*1.5"),
        ({"n_rejected": [NAN, 1]}, ValueError, "`n_rejected`"),
        ({"keys": ["a", "a"]}, ValueError, "pair 1: `keys` must be unique; 'a' is the key of pair 0 too"),
        ({"keys": [1, "1"]}, ValueError, "pair 1: `keys` must be unique"),
        ({"keys": ["a"]}, ValueError, "`keys` must have one entry for each of 2 pairs; got 1"),
        ({"keys": "ab"}, TypeError, "`keys` must be a list of strings"),
        ({"keys": [1.5, 2]}, TypeError, "pair 0: `keys` must hold strings or integers"),
        ({"keys": [True, False]}, TypeError, "pair 0: `keys`"),
        ({"chosen_tokens": [[-1.0, 0.0]]}, ValueError, "`chosen_tokens` must have one array for each of 2 pairs"),
        ({"chosen_tokens": [[-1.0], [-2.0, 0.0]]}, ValueError, "pair 0: `chosen_tokens` must have 2 tokens; got 1"),
        ({"rejected_tokens": [[-3.0, 0.0], [-2.0, 0.0]]}, ValueError, "pair 1: `rejected_tokens` add up to -2, not"),
        ({"rejected_tokens": -3.0}, TypeError, "`rejected_tokens` must be a list of arrays"),
    ],
)
def test_a_record_refuses_wrong_fields_by_name(change, error, words):
    good = {"chosen": [-1.0, -2.0], "rejected": [-3.0, -4.0], "n_chosen": [2, 2], "n_rejected": [2, 2]}
    with pytest.raises(error, match=words):
        LogProbs(**{**good, **change})


def test_columns_and_ranks_are_refused_by_name():
    report = displacement_report(TWO, TWO)
    with pytest.raises(ValueError, match=r"must be one of delta_chosen, .*displacement_ratio; got 'displaced'"):
        report.column("displaced")
    with pytest.raises(TypeError, match="`name`"):
        report.column(3)
    with pytest.raises(ValueError, match="`n` must be an integer >= 1"):
        report.worst_pairs(0)
    with pytest.raises(TypeError, match="`by`"):
        report.worst_pairs(by=3)
    with pytest.raises(ValueError, match="nope"):
        report.worst_pairs(by="nope")
    with pytest.raises(ValueError, match=r"both_rose_fraction.*nope"):
        report.flag(["nope > 0"])
    with pytest.raises(TypeError, match="`rules`"):
        report.flag("delta_chosen > 0")


# --- in and out ----------------------------------------------------------------------------------------------------

TRIPS = {
    "json": lambda r: rd.result_from_json(r.to_json()),
    "dict": lambda r: type(r).from_dict(r.to_dict()),
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
ANY = st.floats(-1e300, 0.0)


@pytest.mark.parametrize("trip", TRIPS)
@settings(max_examples=20)
@given(rows=st.lists(st.tuples(ANY, ANY, ANY, ANY), min_size=1, max_size=5), hole=st.booleans())
def test_a_report_comes_back_equal_to_the_bit(trip, rows, hole):
    a, b, c, d = (list(column) + [NAN] * hole for column in zip(*rows, strict=True))
    keys = [f"é\n<{i}>" for i in range(len(a))]
    report = displacement_report(record(a, b, keys=keys), record(c, d, keys=keys))
    again = TRIPS[trip](report)
    assert type(again) is DisplacementReport
    assert again == report
    assert hash(again) == hash(report)
    for name in ARRAYS:
        value = getattr(again, name)
        assert value.dtype == getattr(report, name).dtype
        assert bits(value) == bits(getattr(report, name)), name
        assert not value.flags.writeable
    for name in NUMBERS:
        assert bits(getattr(again, name)) == bits(getattr(report, name)), name
    for name in ("quantiles_delta_chosen", "mean_delta_chosen_interval"):
        assert [bits(x) for x in getattr(again, name)] == [bits(x) for x in getattr(report, name)]
    for name in ("keys", "status", "loss", "meta", "explanation", "verdict", "dataset_displaced"):
        assert getattr(again, name) == getattr(report, name)
    assert again.flag(["delta_chosen < 0"]) == report.flag(["delta_chosen < 0"])


@pytest.mark.parametrize("trip", TRIPS)
def test_a_record_comes_back_equal_to_the_bit(trip):
    tokens = [[-0.1, -0.2], [-1 / 3], []]
    entry = LogProbs(
        chosen=[-0.3, -1 / 3, NAN],
        rejected=[-5e-324, -1e300, NAN],
        n_chosen=[2, 1, 0],
        n_rejected=[1, 1, 0],
        keys=["a", "\ud800", "c"],
        chosen_tokens=tokens,
    )
    again = TRIPS[trip](entry)
    assert again == entry
    for name in ("chosen", "rejected", "n_chosen", "n_rejected"):
        assert bits(getattr(again, name)) == bits(getattr(entry, name))
    assert [bits(x) for x in again.chosen_tokens] == [bits(np.array(x, float)) for x in tokens]
    assert again.rejected_tokens is None
    assert again.keys == entry.keys
    assert again.meta == entry.meta


def test_reports_of_other_numbers_are_not_equal():
    report = displacement_report(HAND_BEFORE, HAND_AFTER)
    assert report != displacement_report(HAND_BEFORE, HAND_BEFORE)
    assert report != displacement_report(HAND_BEFORE, HAND_AFTER, rng=1)
    data = report.to_dict()
    assert data["type"] == "preference.DisplacementReport"
    assert data["fields"]["delta_chosen"]["data"] == [-1.0, 1.0, None, 0.0, -2.0]
    assert set(data["non_finite"].values()) == {"nan"}
    with pytest.raises(TypeError, match="`data` must hold a LogProbs"):
        LogProbs.from_dict(data)


def test_rows_for_other_programs(tmp_path):
    keys = ["=1+1", "b,c", "d", 'e"', "f"]
    report = displacement_report(
        dataclasses.replace(HAND_BEFORE, keys=keys), dataclasses.replace(HAND_AFTER, keys=keys)
    )
    frame = report.to_pandas()
    assert frame.columns.tolist() == ["key", "status", *COLUMNS]
    assert frame["key"].tolist() == keys
    assert frame["status"].tolist() == ["ok", "ok", "unusable", "ok", "ok"]
    for name in COLUMNS:
        np.testing.assert_array_equal(frame[name].to_numpy(), report.column(name))
    frame.loc[0, "delta_chosen"] = 9.0  # a copy: the report is not touched
    assert report.delta_chosen[0] == -1
    target = tmp_path / "pairs.csv"
    text = report.to_csv(target)
    assert target.read_text(encoding="utf-8") == text
    lines = text.splitlines()
    assert lines[0] == "key,status," + ",".join(COLUMNS)
    assert lines[1] == "'=1+1,ok,-1.0,-4.0,3.0,-0.5,0.3333333333333333"
    assert lines[2] == '"b,c",ok,1.0,1.0,0.0,0.25,'
    assert lines[3] == "d,unusable,,,,,"
    assert len(lines) == 6
    rows = list(report.records())
    assert rows[2] == {"key": "d", "status": "unusable", **dict.fromkeys(COLUMNS)}
    assert rows[1]["displacement_ratio"] is None
    with pytest.raises(FileNotFoundError):
        report.to_csv(tmp_path / "no" / "pairs.csv")


def test_a_record_is_a_table_too():
    frame = HAND_BEFORE.to_pandas()
    assert frame.columns.tolist() == ["key", "chosen", "rejected", "n_chosen", "n_rejected"]
    assert frame["key"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(frame["chosen"].to_numpy(), HAND_BEFORE.chosen)
    assert record([-1.0], [-1.0], keys=[7]).keys == ("7",)
    np.testing.assert_array_equal(HAND_BEFORE.per_token_chosen, [-2.0, -1.5, NAN, -8.0, -2.0])
    np.testing.assert_allclose(HAND_BEFORE.per_token_rejected, [-4 / 3, -7.0, NAN, -4.0, -4.5])
    np.testing.assert_allclose(HAND_BEFORE.prob_chosen, [NAN, NAN, NAN, math.exp(-8), NAN])
    np.testing.assert_allclose(HAND_BEFORE.prob_rejected, [NAN, math.exp(-7), NAN, NAN, NAN])
    assert "Skipped 1 of 5 pairs" in " ".join(HAND_BEFORE.summary().split())
    assert len(HAND_BEFORE) == 5


def test_a_page_shows_the_answer_and_escapes_keys():
    bad = "<script>alert(1)</script>\x1b[31m"
    entry = record([-1.0, -2.0], [-3.0, -4.0], keys=[bad, "b"])
    page = displacement_report(entry, entry)._repr_html_()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert "Likelihood displacement" in page
    shown = displacement_report(HAND_BEFORE, HAND_AFTER)
    text = " ".join(shown.summary(width=200).split())
    assert "mean change of chosen -0.5 nat" in text
    assert "dataset displaced yes" in text
    assert "bootstrap resamples 1000" in text.replace(",", "")
    assert "beta 0.1" in text
    numbers = {number.label: number.value for number in shown.document().key_numbers}
    assert (numbers["displaced"], numbers["both fell"], numbers["both rose"]) == (0.5, 0.5, 0.25)
    assert (numbers["accuracy before"], numbers["accuracy after"], numbers["pairs"]) == (0.25, 0.75, 4)
    worst = next(grid for grid in shown.document().grids if "fell the most" in grid.title)
    assert [row[0] for row in worst.rows] == ["pair 4", "pair 0", "pair 3", "pair 1"]

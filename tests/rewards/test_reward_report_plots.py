"""What reports of rewards draw: the curve of groups without spread against enumeration, and teachers side by side."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rankdiag import result_from_json
from rankdiag.rewards import RewardTable, summarize, teacher_report


def enumerated(table, k):
    """Mean over prompts, and its standard error, of the share of k-subsets that are all equal."""
    shares = []
    for row in table:
        scored = [reward for reward in row if reward == reward]
        if len(scored) >= max(k, 2):
            subsets = list(itertools.combinations(scored, k))
            shares.append(sum(len(set(subset)) == 1 for subset in subsets) / len(subsets))
    n = len(shares)
    mean = math.fsum(shares) / n
    spread = math.fsum((share - mean) ** 2 for share in shares) / (n - 1) / n if n > 1 else math.nan
    return mean, math.sqrt(spread), n


def simulated(a, b, k, *, draws=100_000):
    """Share of groups of k fresh rollouts without spread, prompts' success rates drawn from Beta(a, b)."""
    rng = np.random.default_rng(5)
    wins = rng.binomial(k, rng.beta(a, b, size=draws))
    return float(((wins == 0) | (wins == k)).mean())


@pytest.mark.parametrize("levels", [2, 3, 50])
def test_the_curve_is_the_enumeration_of_all_groups(levels):
    rng = np.random.default_rng(levels)
    table = rng.integers(0, levels, size=(40, 6)).astype(float) * rng.integers(0, 2, size=(40, 1))
    table[rng.random(table.shape) < 0.2] = np.nan
    table[0] = [1.0, *[np.nan] * 5]
    curve = summarize(table).zero_std_curve
    assert [k for k, *_ in curve] == [float(k) for k in range(1, len(curve) + 1)]
    for k, *found in curve:
        assert found == pytest.approx(enumerated(table, int(k)), rel=1e-12, abs=1e-15)


def test_the_curve_ends_at_what_was_seen_and_starts_at_one():
    table = np.random.default_rng(0).integers(0, 2, size=(30, 5)).astype(float)
    summary = summarize(table)
    assert summary.zero_std_curve[0][:3] == (1.0, 1.0, 0.0)
    assert summary.zero_std_curve[-1][1] == pytest.approx(summary.frac_zero_std, rel=1e-12)
    assert result_from_json(summary.to_json()) == summary


def test_larger_groups_are_shown_for_two_values_alone_and_follow_the_truth():
    rng = np.random.default_rng(1)
    rates = rng.beta(0.3, 0.6, size=4000)
    summary = summarize(rng.binomial(1, rates[:, None], size=(4000, 8)).astype(float))
    for k, share in summary.zero_std_beyond:
        assert share == pytest.approx(simulated(0.3, 0.6, int(k)), abs=0.03)
    assert summary.zero_std_beyond[0][0] == 8.0
    assert summary.zero_std_beyond[-1][0] == 64.0
    assert summary.zero_std_beta == pytest.approx((0.3, 0.6), rel=0.15)
    text = summary.summary()
    assert "model-based" in text
    assert "Beta(" in text
    three = summarize(rng.integers(0, 3, size=(50, 4)).astype(float))
    assert three.zero_std_beyond == ()
    assert three.zero_std_beta is None
    assert "model-based" not in three.summary()


@pytest.mark.parametrize("table", [np.ones((5, 3)), np.repeat([[0.0], [1.0]], 4, axis=1), np.full((4, 1), 2.0)])
def test_no_model_where_none_can_be_fitted(table):
    summary = summarize(table)
    assert summary.zero_std_beyond == ()
    assert [plot.title for plot in summary.document().plots][1:2] in ([], ["Groups without spread, by their size"])


def test_sizes_that_are_asked_for_are_the_table():
    binary = np.random.default_rng(2).integers(0, 2, size=(50, 4)).astype(float)
    grid = summarize(binary, group_sizes=[3, 30, 2]).document().grids[2]
    assert [(row[0], row[3]) for row in grid.rows] == [(2, "unbiased"), (3, "unbiased"), (30, "model-based")]
    assert grid.rows[1][1] == pytest.approx(enumerated(binary, 3)[0])
    normal = np.random.default_rng(2).normal(size=(20, 4))
    row = summarize(normal, group_sizes=[8]).document().grids[2].rows[0]
    assert (row[1], row[3]) == (None, "beyond these rollouts")
    for sizes, error in (
        ([0], ValueError),
        ("8", TypeError),
        (8, TypeError),
        ([2.5], TypeError),
        ([10**7], ValueError),
    ):
        with pytest.raises(error, match="`group_sizes`"):
            summarize(normal, group_sizes=sizes)


def test_many_rollouts_and_many_prompts_are_bounded():
    rng = np.random.default_rng(3)
    wide = summarize(rng.integers(0, 2, size=(20, 3000)).astype(float))
    assert len(wide.zero_std_curve) <= 48
    assert wide.zero_std_curve[-1][0] == 3000.0
    long = summarize((rng.random((3, 150_000)) < [[0.1], [0.5], [0.9]]).astype(float))
    assert [k for k, _ in long.zero_std_beyond][-1] == 1_000_000.0
    many = rng.binomial(1, 0.3, size=(200_000, 4)).astype(float)
    curve = summarize(many).zero_std_curve
    assert curve[1][3] == 100_000  # every second prompt
    assert curve[1][1] == pytest.approx(0.3**2 + 0.7**2, abs=5 * curve[1][2])


def test_the_curve_is_drawn_with_its_band_and_the_model_apart():
    rng = np.random.default_rng(4)
    table = RewardTable.from_array(rng.binomial(1, rng.beta(1, 1, size=(60, 1)), size=(60, 6)).astype(float))
    plots = {plot.title: plot for plot in summarize(table).document().plots}
    seen, model = plots["Groups without spread, by their size"].series
    assert all(low <= y <= high for low, y, high in zip(seen.low, seen.y, seen.high, strict=True))
    assert seen.high[2] - seen.low[2] == pytest.approx(4 * enumerated(table.values, 3)[1])
    assert "model-based" in model.label
    assert model.x[0] == seen.x[-1]
    assert len(model.low) == 0


# --- teachers ------------------------------------------------------------------------------------------------------


def tables(n=40, k=5):
    rng = np.random.default_rng(7)
    gold = rng.integers(0, 3, size=(n, k)).astype(float)  # ties, so that prompts have different numbers of pairs
    proxies = {
        "near": gold + 0.6 * rng.normal(size=gold.shape),
        "coarse": np.round(gold / 2 + 0.3 * rng.normal(size=gold.shape)),
    }
    proxies["near"][rng.random(gold.shape) < 0.1] = np.nan
    return proxies, gold, -15.0 + 3.0 * rng.normal(size=gold.shape)


def test_a_teacher_row_has_quantiles_the_normaliser_sizes_and_weights():
    proxies, gold, logs = tables()
    first = RewardTable.from_array(proxies["near"], log_probs=logs)
    report = teacher_report({"near": first, "coarse": proxies["coarse"]}, gold, bootstrap=0)
    for row in report.rows:
        rewards = proxies[row.name]
        white = np.nanvar(rewards, axis=1, ddof=1) / np.nanvar(rewards, ddof=1)
        found = (row.variance_min, row.variance_q25, row.variance_median, row.variance_q75, row.variance_max)
        assert found == pytest.approx(np.quantile(white, [0, 0.25, 0.5, 0.75, 1]).tolist())
        assert row.shift == pytest.approx(-np.nanmean(rewards))
        assert row.scale == pytest.approx(1 / math.sqrt(np.nanvar(rewards, ddof=1) + 1e-8))
        for k, *curve in row.zero_std_curve:
            assert curve == pytest.approx(enumerated(rewards, int(k)), abs=1e-15)
        assert (row.weighted_accuracy, row.ess) == pytest.approx(weighted(rewards, gold, logs))
    assert any("few effective pairs" in caution for caution in report.cautions)
    plain = teacher_report(proxies, gold, bootstrap=0)
    assert np.isnan(plain.rows[0].ess)
    assert plain.cautions == ()


def weighted(proxy, gold, logs):
    """Accuracy with pairs weighed by the probability of both, and 1 / sum of squared weights."""
    pairs = [
        (float(logs[i, a] + logs[i, b]), (proxy[i, a] - proxy[i, b]) * (gold[i, a] - gold[i, b]))
        for i in range(len(gold))
        for a, b in itertools.combinations(range(gold.shape[1]), 2)
        if gold[i, a] != gold[i, b] and proxy[i, a] == proxy[i, a] and proxy[i, b] == proxy[i, b]
    ]
    top = max(log for log, _ in pairs)
    weights = [math.exp(log - top) for log, _ in pairs]
    shares = [1.0 if sign > 0 else 0.5 if sign == 0 else 0.0 for _, sign in pairs]
    total = math.fsum(weights)
    right = math.fsum(w * c for w, c in zip(weights, shares, strict=True)) / total
    return right, total**2 / math.fsum(w * w for w in weights)


def test_paired_differences_are_those_of_the_columns_and_a_grid():
    proxies, gold, _ = tables()
    report = teacher_report(proxies, gold, bootstrap=300, rng=0)
    rows = {row.name: row for row in report.rows}
    grid = next(grid for grid in report.document().grids if grid.title == "Paired differences")
    assert len(grid.rows) == len(report.differences) == 2
    for d, cells in zip(report.differences, grid.rows, strict=True):
        gap = getattr(rows[d.first], d.figure) - getattr(rows[d.second], d.figure)
        assert d.difference == pytest.approx(gap, abs=1e-12)
        assert d.lower < d.difference < d.upper
        assert cells == (d.first, d.second, d.figure, d.difference, d.lower, d.upper, d.lower > 0 or d.upper < 0)
    # By hand: the same resamples of prompts for both, a sum over a sum.
    draws = np.random.default_rng(0).integers(0, 40, (300, 40))
    parts = {name: correct_pairs(proxies[name], gold) for name in proxies}
    gaps = [
        np.subtract(*(parts[name][0][draw].sum() / parts[name][1][draw].sum() for name in proxies)) for draw in draws
    ]
    found = next(d for d in report.differences if d.figure == "on_policy_accuracy")
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


def correct_pairs(proxy, gold):
    credit, pairs = np.zeros(len(gold)), np.zeros(len(gold))
    for i, a, b in ((i, a, b) for i in range(len(gold)) for a, b in itertools.combinations(range(gold.shape[1]), 2)):
        p, g = proxy[i, a] - proxy[i, b], gold[i, a] - gold[i, b]
        if g != 0 and p == p:
            pairs[i] += 1
            credit[i] += 1.0 if p * g > 0 else 0.5 if p == 0 else 0.0
    return credit, pairs


def test_teachers_are_drawn_with_intervals_names_and_curves():
    proxies, gold, _ = tables()
    report = teacher_report(proxies, gold, bootstrap=100, rng=0)
    variance, accuracy, sizes = report.document().plots
    for series, row in zip(variance.series, report.rows, strict=True):
        assert (series.label, list(series.y)) == (row.name, [row.normalised_variance])
        assert (list(series.low), list(series.high)) == ([row.variance_lower], [row.variance_upper])
    assert [(s.label, list(s.x), list(s.y)) for s in accuracy.series] == [
        (row.name, [row.on_policy_accuracy], [row.normalised_variance]) for row in report.rows
    ]
    assert [len(series.x) for series in sizes.series] == [5, 5]
    many = {f"m{i}": proxies["near"] + i for i in range(8)}
    (together,) = teacher_report(many, gold, bootstrap=0).document().plots[1].series
    assert list(together.names) == list(many)
    alone = teacher_report({"a": proxies["near"]}, bootstrap=0).document()
    assert [plot.title for plot in alone.plots][1] == "Groups without spread, by their size"
    assert all(len(series.low) == 0 for series in alone.plots[0].series)


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"top_k": 50}, "top_k 50"),
        ({"top_p": 0.9, "temperature": 0.7}, "top_p 0.9, temperature 0.7"),
        ({"top_k": 0, "top_p": 1.0, "temperature": 1}, None),
        ({"top_k": -1}, None),
        ({"top_k": None, "top_p": "all", "temperature": True}, None),
    ],
)
def test_a_sampler_that_cuts_is_a_caution(meta, said):
    table = RewardTable.from_array([[0.0, 1.0], [1.0, 0.0]], meta={**meta, "policy": "base"})
    report = teacher_report({"a": table}, bootstrap=0)
    notes = " ".join(report.document().notes)
    assert (f"drawn with {said}:" in notes) if said else report.cautions == ()
    assert report.document().title == "Reward models as teachers of base"
    assert teacher_report({"a": table}, bootstrap=0, policy="other").meta.details["policy"] == "other"


def test_a_reward_at_chance_is_a_caution_whatever_its_variance():
    gold = [[0.0, 1.0], [1.0, 0.0]]
    report = teacher_report({"good": gold, "blind": [[1.0, 0.0], [1.0, 0.0]]}, gold, bootstrap=0)
    assert report.rows[1].combined > 0.9
    assert [caution for caution in report.cautions if "No better than chance" in caution and ": blind." in caution]


def test_a_ranked_report_is_the_same_report_in_order():
    proxies, gold, _ = tables()
    report = teacher_report({"coarse": proxies["coarse"], "near": proxies["near"]}, gold, bootstrap=20, rng=0)
    best = report.ranked("on_policy_accuracy")
    assert [row.name for row in best.rows] == list(report.rank("on_policy_accuracy")) == ["near", "coarse"]
    assert "By on_policy_accuracy, the best first: near, coarse." in best.document().explanation
    assert best.differences == report.differences
    assert result_from_json(best.to_json()) == best
    with pytest.raises(ValueError, match="`by` must be one of"):
        report.ranked("luck")

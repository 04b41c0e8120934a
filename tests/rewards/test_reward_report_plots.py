"""What reports of rewards draw: the curve of groups without spread against enumeration, and teachers side by side."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rankdiag import result_from_json
from rankdiag.rewards import RewardTable, summarize


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

"""Binary and partial credit against counting by hand and the stated flow times."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rankdiag import result_from_json
from rankdiag.rewards import credit_report


def test_everything_by_counting():
    verdicts = np.random.default_rng(0).random((5, 6, 2)) < 0.5
    report = credit_report(verdicts, group_sizes=(2, 3, 9))
    rows = [tuple(map(int, row)) for prompt in verdicts for row in prompt]
    assert report.p_all == pytest.approx(rows.count((1, 1)) / 30)
    np.testing.assert_allclose(report.p_only, [rows.count((1, 0)) / 30, rows.count((0, 1)) / 30])
    np.testing.assert_allclose(report.p_each, np.mean(rows, axis=0))
    assert report.partial_to_all == pytest.approx((rows.count((1, 0)) + rows.count((0, 1))) / rows.count((1, 1)))
    for name, reward in (("binary", verdicts.all(axis=2) * 1.0), ("partial", verdicts.mean(axis=2))):
        pairs = [np.mean([(a - b) ** 2 / 2 for a, b in combinations(row, 2)]) for row in reward]
        assert getattr(report, f"rms_std_{name}") == pytest.approx(np.sqrt(np.mean(pairs)))
        for size in (2, 3):
            equal = np.mean([len(set(group)) == 1 for row in reward for group in combinations(row, size)])
            assert getattr(report, f"zero_std_{name}")[str(size)] == pytest.approx(equal)
        assert np.isnan(getattr(report, f"zero_std_{name}")["9"])
    assert result_from_json(report.to_json()) == report


@pytest.mark.parametrize(
    ("counts", "times"),
    [((560, 400, 20, 20), (47.7, 71.2, 193.3, 84.7)), ((300, 600, 50, 50), (26.5, 52.0, 58.7, 77.3))],
)
def test_stated_times(counts, times):
    rows = np.repeat([[0, 0], [1, 0], [0, 1], [1, 1]], counts, axis=0)
    found = credit_report(rows.reshape(10, 100, 2)).times
    names = ("binary/tabular", "binary/factorised", "partial/tabular", "partial/factorised")
    np.testing.assert_allclose([found[name] for name in names], times, atol=0.06)


def test_weights_are_shares_of_the_partial_reward():
    verdicts = np.array([[[1, 0], [0, 1], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 0], [0, 0]]])
    report = credit_report(verdicts, weights=[3.0, 1.0], group_sizes=(2,))
    rewards = np.array([[0.75, 0.25, 1.0, 0.0], [0.75, 0.75, 0.0, 0.0]])
    assert report.rms_std_partial == pytest.approx(np.sqrt(rewards.var(axis=1, ddof=1).mean()))
    assert report.zero_std_partial["2"] == pytest.approx((0 + 1 / 3) / 2)
    assert credit_report(verdicts, weights=[0.0, 2.0]).p_only.tolist() == [3 / 8, 1 / 8]


@pytest.mark.parametrize(
    ("ones", "advice"),
    [
        (1, "partial credit, or a schedule from partial to binary"),  # p_all * 4 < 1, whatever the groups
        (48, "binary credit"),
    ],
)
def test_advice_follows_the_rule(ones, advice):
    verdicts = np.zeros((10, 16, 2))
    verdicts.reshape(-1, 2)[np.random.default_rng(0).permutation(160)[:ones]] = 1
    text = credit_report(verdicts, group_sizes=(4,)).explanation
    assert f"; {advice}." in text
    assert "heuristic" in text


def test_neither_advice_where_prompts_are_all_or_nothing():
    verdicts = np.zeros((10, 8, 2))
    verdicts[:4] = 1
    report = credit_report(verdicts, group_sizes=(4,))
    assert report.zero_std_binary["4"] == 1.0
    assert "no clear case" in report.explanation


def test_a_class_that_never_occurs_is_left_out_and_many_are_not_simulated():
    never = credit_report(np.array([[[1, 0], [0, 0]]]), group_sizes=(2,))
    assert set(never.times.values()) == {np.inf}
    assert never.partial_to_all == np.inf
    assert np.isnan(credit_report(np.zeros((1, 2, 2)), group_sizes=(2,)).partial_to_all)
    wide = np.random.default_rng(1).random((1, 600, 12)) < 0.5
    assert np.isnan(list(credit_report(wide, group_sizes=(2,)).times.values())).all()


def test_the_page_shows_shares_by_size():
    report = credit_report(np.random.default_rng(0).random((5, 8, 2)) < 0.5)
    (plot,) = report.document().plots
    assert list(plot.series[0].x) == [4, 8, 16]
    np.testing.assert_array_equal(plot.series[1].y, list(report.zero_std_partial.values()))
    assert plot.lines[0].value == 0.8


def test_refusals():
    with pytest.raises(ValueError, match="verdicts"):
        credit_report(np.full((1, 2, 2), 0.5))
    with pytest.raises(ValueError, match="weights"):
        credit_report(np.ones((1, 2, 2)), weights=[1.0])

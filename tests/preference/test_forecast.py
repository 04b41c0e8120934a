"""Forecasts beside outcomes: correlation, signs, intervals, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rankdiag import result_from_dict
from rankdiag.preference import DisplacementScores, LogProbs, forecast_report


def log_probs(chosen, keys=None):
    n = len(chosen)
    return LogProbs(
        chosen=chosen,
        rejected=np.where(np.isnan(chosen), np.nan, -1.0),
        n_chosen=[2] * n,
        n_rejected=[2] * n,
        keys=keys,
    )


FLOATS = st.floats(-50, 0).map(lambda x: round(x, 1))


@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=2, max_size=30))
def test_correlation_and_signs_are_those_of_the_definition(rows):
    score, before, after = (np.array(column) for column in zip(*rows, strict=True))
    report = forecast_report(score, log_probs(before), log_probs(after), kind="score")
    change = after - before
    assert report.sign_agreement == sum((s > 0) == (c < 0) for s, c in zip(score, change, strict=True)) / len(rows)
    assert report.displaced_fraction == np.mean(change < 0)
    if len(set(score)) > 1 and len(set(change)) > 1:
        assert report.spearman == pytest.approx(spearmanr(score, change).statistic, abs=1e-12)
    else:
        assert np.isnan(report.spearman)
    opposite = forecast_report(-score, log_probs(before), log_probs(after), kind="change")
    assert opposite.sign_agreement == report.sign_agreement
    np.testing.assert_allclose(opposite.spearman, -report.spearman, atol=1e-12)


def test_the_interval_covers_as_often_as_it_says():
    """Bivariate normal pairs of known rank correlation, 6/pi asin(r/2)."""
    rng = np.random.default_rng(0)
    r, n, inside, runs = 0.6, 60, 0, 800
    truth = 6 / np.pi * np.arcsin(r / 2)
    for _ in range(runs):
        x = rng.standard_normal(n)
        y = r * x + np.sqrt(1 - r * r) * rng.standard_normal(n)
        low, high = forecast_report(
            x, log_probs(np.full(n, -9.0)), log_probs(-9.0 + y / 10), kind="score"
        ).spearman_interval
        inside += low <= truth <= high
    assert 0.92 < inside / runs < 0.98


def test_scores_and_predicted_changes_know_what_they_are():
    before, after = log_probs([-3.0, -4.0], ("a", "b")), log_probs([-4.0, -3.0], ("a", "b"))
    scores = DisplacementScores(
        keys=("a", "b"), status=("ok", "ok"), level="head", chosen_sq=[1, 1], cross=[2, 0], rejected_sq=[4, 1]
    )
    report = forecast_report(scores, before, after)
    assert (report.kind, report.spearman, report.sign_agreement) == ("score", pytest.approx(-1.0), 1.0)
    assert "head" in report.name
    changes = LogProbs(chosen=[-0.5, 0.5], rejected=[0.0, 0.0], n_chosen=[1, 1], n_rejected=[1, 1], keys=("a", "b"))
    assert forecast_report(changes, before, after).kind == "change"
    assert forecast_report(changes, before, after).spearman == pytest.approx(1.0)
    with pytest.raises(TypeError, match="`kind` must not be given"):
        forecast_report(changes, before, after, kind="change")
    with pytest.raises(ValueError, match="`predicted` must be of the same pairs"):
        forecast_report(changes, log_probs([-3.0, -4.0], ("a", "c")), log_probs([-4.0, -3.0], ("a", "c")))


def test_pairs_without_a_number_are_left_out_and_counted():
    report = forecast_report(
        [0.1, np.nan, 0.2, -0.1],
        log_probs([-1.0, -2.0, np.nan, -3.0]),
        log_probs([-2.0, -1.0, np.nan, -2.0]),
        kind="score",
    )
    assert report.meta.n == 2
    assert report.sign_agreement == 1.0
    assert report.meta.skipped == {"2 pairs": "no forecast or no log-probability"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([0.1], log_probs([-1.0]), log_probs([-1.0])), TypeError, "`kind` must say"),
        (([0.1, 0.2], log_probs([-1.0]), log_probs([-1.0]), "score"), ValueError, "`before` must hold 2 pairs"),
        (([0.1], log_probs([-1.0]), 3, "score"), TypeError, "`after` must be LogProbs"),
        (([0.1], log_probs([-1.0], ("a",)), log_probs([-1.0], ("b",)), "score"), ValueError, "same keys"),
        (([np.nan], log_probs([-1.0]), log_probs([-1.0]), "score"), ValueError, "at least one pair"),
        (([0.1], log_probs([-1.0]), log_probs([-1.0]), "guess"), ValueError, "`kind` must be one of"),
    ],
)
def test_refusals(arguments, error, words):
    predicted, before, after, *kind = arguments
    with pytest.raises(error, match=words):
        forecast_report(predicted, before, after, kind=kind[0] if kind else None)


def test_it_shows_itself_and_comes_back_from_json():
    report = forecast_report(
        [0.4, 0.1, -0.2, -0.3], log_probs([-9.0] * 4), log_probs([-9.5, -8.0, -7.0, -9.1]), kind="score"
    )
    assert result_from_dict(report.to_dict()) == report
    (plot,) = report.document().plots
    assert list(plot.series[0].x) == [0.4, 0.1, -0.2, -0.3]
    assert "Spearman" in report.summary()
    assert not report.predicted.flags.writeable

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


def test_refusals():
    with pytest.raises(ValueError, match="verdicts"):
        credit_report(np.full((1, 2, 2), 0.5))
    with pytest.raises(ValueError, match="weights"):
        credit_report(np.ones((1, 2, 2)), weights=[1.0])

"""Displacement reports with losses that take more than a beta, and with what is no log-probability."""

from __future__ import annotations

import numpy as np
import pytest

from rankdiag.preference import LogProbs, displacement_report, loss_weights


def record(chosen, rejected):
    n = np.where(np.isnan(chosen), 0, 2)
    return LogProbs(chosen=chosen, rejected=rejected, n_chosen=n, n_rejected=n)


BEFORE = record([-1.0, -2.0, np.nan, -3.0], [-2.0, -3.0, np.nan, -3.0])
AFTER = record([-1.5, -1.0, np.nan, -9.0], [-4.0, -3.5, np.nan, -40.0])


@pytest.mark.parametrize("kind", [list, np.array])
def test_a_reward_for_each_pair_goes_with_the_pairs_that_are_used(kind):
    options = {"eta": 0.5, "reward_chosen": kind([1.0, 2.0, 50.0, 3.0]), "reward_rejected": kind([0.0, 0.5, 9.0, 0.0])}
    report = displacement_report(BEFORE, AFTER, loss="rebel", beta=None, loss_options=options)
    a, b = AFTER.chosen - BEFORE.chosen, AFTER.rejected - BEFORE.rejected
    expected = [((a[i] - b[i]) / 0.5 - [1.0, 1.5, 0, 3.0][i]) ** 2 for i in (0, 1, 3)]
    assert report.loss_after == pytest.approx(np.mean(expected))


def test_a_loss_that_pushes_chosen_responses_down_later_is_said_to():
    use = [0, 1, 3]
    reference = BEFORE.chosen[use], BEFORE.rejected[use]
    after = loss_weights("apo_down", AFTER.chosen[use], AFTER.rejected[use], *reference, beta=0.1)
    start = loss_weights("apo_down", *reference, *reference, beta=0.1)
    share = np.mean((after.w_chosen < 0) | (start.w_chosen < 0))
    report = displacement_report(BEFORE, AFTER, loss="apo_down")
    assert report.pushed_down_on_purpose == share > 0
    assert "on purpose" in report.explanation
    assert displacement_report(BEFORE, AFTER).pushed_down_on_purpose == 0


@pytest.mark.parametrize("name", ["before", "after", "ref"])
def test_changes_are_no_log_probabilities(name):
    changes = record([0.5, -0.1, np.nan, 0.0], [0.1, 0.1, np.nan, 0.0])
    records = {"before": BEFORE, "after": AFTER, name: changes}
    with pytest.raises(ValueError, match=f"`{name}` must hold log-probabilities, at most 0; got 0.5"):
        displacement_report(**records)

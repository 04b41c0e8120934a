"""Categories of reward errors, one instance for each, and the simulated effect."""

from __future__ import annotations

import math

import numpy as np
import pytest

from oracles.rewards_flow import rk4
from rankdiag import result_from_json
from rankdiag.rewards import categorize_errors

START = [0.1, 0.5, 0.3995, 0.0005]  # gold mean under START: 0.1 + 0.4 - 0.4 = 0.1
GOLD = [1.0, 0.8, -1.0, -1.0]


@pytest.mark.parametrize(
    ("output", "value", "category"),
    [
        (3, 5.0, "benign_II"),
        (2, -0.9, "benign_I"),
        (2, -2.0, "benign_I"),
        (1, -1.0, "beneficial_I"),
        (0, -1.0, "harmful_missed"),
        (2, 1.0, "harmful_I"),
        (2, 0.85, "harmful_II"),
        (1, 0.9, "unclassified"),
    ],
)
def test_each_category(output, value, category):
    proxy = np.array(GOLD)
    proxy[output] = value
    (record,) = categorize_errors(START, proxy, GOLD)
    assert (record.index, record.category) == (output, category)
    assert math.isnan(record.effect)
    assert result_from_json(record.to_json()) == record


def test_no_error_no_record():
    assert categorize_errors(START, GOLD, GOLD, verify="flow") == []


def test_the_effect_is_an_integral_and_its_sign_decides():
    proxy = [1.0, -1.0, -1.0, -1.0]
    (record,) = categorize_errors(START, proxy, GOLD, verify="flow", horizon=40.0)
    times = np.linspace(0, 40, 81)
    curves = [[np.dot(rk4(START, r, t, max(1, int(4 * t))), GOLD) for t in times] for r in (proxy, GOLD)]
    assert record.effect == pytest.approx(np.trapezoid(np.subtract(*curves), times), abs=0.05)
    assert record.attribution < 0
    assert record.sign == np.sign(record.effect) == 1


def test_refusals():
    with pytest.raises(ValueError, match="verify"):
        categorize_errors(START, GOLD, GOLD, verify="gd")
    with pytest.raises(ValueError, match="r_gold"):
        categorize_errors(START, GOLD, GOLD[:3])
    never = [0.0, 0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match="`pi0` must be positive"):
        categorize_errors(never, [1.0, 0.5, -1.0, -1.0], GOLD, verify="flow")
    assert (
        categorize_errors(never, [0.5, 0.8, -1.0, -1.0], GOLD)[0].category == "benign_II"
    )  # without a flow it may be 0

"""Bounds of the gate: what they accept, and which probes cross them."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from rankdiag.monitors import DisplacementLimit
from rankdiag.preference import DisplacementReport, LogProbs, displacement_report


def report(*deltas: float, length: int = 4) -> DisplacementReport:
    """Return a report in which the chosen responses moved by these numbers, and the rejected ones stayed."""
    n = [length] * len(deltas)
    before = LogProbs(chosen=[-50.0] * len(deltas), rejected=[-60.0] * len(deltas), n_chosen=n, n_rejected=n)
    after = LogProbs(chosen=[-50.0 + d for d in deltas], rejected=[-60.0] * len(deltas), n_chosen=n, n_rejected=n)
    return displacement_report(before, after)


@pytest.mark.parametrize(
    ("limit", "deltas", "words"),
    [
        ({}, (-5.0, -5.0), ()),
        ({}, (-5.0, -5.5), ("-5.25 nat, below -5",)),
        ({"mean_below": -6.0}, (-5.0, -5.5), ()),
        ({"mean_below": None, "displaced_fraction_above": 0.5}, (-1.0, 1.0), ()),
        ({"mean_below": None, "displaced_fraction_above": 0.5}, (-1.0, -1.0, 9.0), ("0.6667, above 0.5",)),
        ({"mean_below": None, "per_token_below": -1.0}, (-4.0, -4.0), ()),
        ({"mean_below": None, "per_token_below": -1.0}, (-4.0, -6.0), ("-1.25 nat, below -1",)),
        (
            {"displaced_fraction_above": 0.0, "per_token_below": -1.0},
            (-8.0, -8.0),
            ("-8 nat, below -5", "1, above 0", "-2 nat, below -1"),
        ),
    ],
)
def test_what_is_crossed(limit: dict, deltas: tuple[float, ...], words: tuple[str, ...]) -> None:
    found = DisplacementLimit(**limit).exceeded(report(*deltas))
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert sentence.endswith(word)


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"mean_below": None}, ValueError, "a limit needs a bound"),
        ({"mean_below": math.nan}, ValueError, "mean_below"),
        ({"mean_below": -math.inf}, ValueError, "mean_below"),
        ({"mean_below": "low"}, TypeError, "mean_below"),
        ({"per_token_below": math.inf}, ValueError, "per_token_below"),
        ({"patience": 0}, ValueError, "patience"),
        ({"patience": 1.0}, TypeError, "patience"),
        ({"patience": True}, TypeError, "patience"),
        ({"displaced_fraction_above": 1.0}, ValueError, "displaced_fraction_above"),
        ({"displaced_fraction_above": -0.1}, ValueError, "displaced_fraction_above"),
    ],
)
def test_bad_bounds_are_refused(options: dict, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        DisplacementLimit(**options)


def test_a_limit_is_a_value() -> None:
    limit = DisplacementLimit(mean_below=-2.0, patience=1)
    assert limit == DisplacementLimit(mean_below=-2.0, patience=1)
    assert pickle.loads(pickle.dumps(limit)) == copy.deepcopy(limit) == limit
    with pytest.raises(AttributeError):
        limit.patience = 2

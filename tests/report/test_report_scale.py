"""Ranges and ticks: every label says where its tick is, whatever the values."""

# ruff: noqa: RUF001 - the minus and the cross of tick labels

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._scale import fit

_POWERS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def _read(label: str) -> float:
    """Read a tick label as a person would."""
    mantissa, cross, power = label.replace("−", "-").partition("×10")
    if cross:
        return float(f"{mantissa}e{power.translate(_POWERS)}")
    if label.startswith("10") and label[2:].translate(_POWERS) != label[2:]:
        return float(f"1e{label[2:].translate(_POWERS)}")
    return float(mantissa)


def _labels(values, marks=(), wanted=5, **options):
    return [tick.label for tick in fit(values, marks, **options)[0].ticks(wanted) if tick.label]


@pytest.mark.parametrize(
    ("values", "options", "labels"),
    [
        ([0, 1], {}, ["0", "1"]),
        ([0, 0.99], {}, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([1, 2, 3, 10], {}, ["0", "2", "4", "6", "8", "10"]),
        ([-3.5, 2.25], {}, ["−3", "−2", "−1", "0", "1", "2"]),
        ([90.0, 100.0], {}, ["90", "92", "94", "96", "98", "100"]),
        ([1e6, 5e6], {}, ["0", "1×10⁶", "2×10⁶", "3×10⁶", "4×10⁶", "5×10⁶"]),
        ([1e-5, 4e-5], {}, ["0", "1.0×10⁻⁵", "2.0×10⁻⁵", "3.0×10⁻⁵", "4.0×10⁻⁵"]),
        ([5], {}, ["5"]),
        ([0.0, 1e-323], {}, ["0", "9.88e-324"]),  # two of the smallest floats: no step fits between
        ([], {}, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([1, 1000], {"log": True}, ["1", "10", "100", "1000"]),
        ([1, 10], {"log": True}, ["1", "2", "5", "10"]),
        ([1e-12, 1e3], {"log": True}, ["10⁻¹⁰", "10⁻⁵", "10⁰"]),
        ([2, 30], {"log": True}, ["2", "5", "10", "20"]),
        ([2000, 2100], {"log": True}, ["2000", "2020", "2040", "2060", "2080", "2100"]),
        ([1e-9, 2e-9], {"log": True}, ["1.0×10⁻⁹", "1.2×10⁻⁹", "1.4×10⁻⁹", "1.6×10⁻⁹", "1.8×10⁻⁹", "2.0×10⁻⁹"]),
        ([1e-300, 1e300], {"log": True}, ["10⁻³⁰⁰", "10⁻²⁰⁰", "10⁻¹⁰⁰", "10⁰", "10¹⁰⁰", "10²⁰⁰", "10³⁰⁰"]),
    ],
)
def test_labels(values, options, labels):
    assert _labels(values, **options) == labels


def test_between_powers_of_ten_lie_eight_minor_ticks():
    ticks = fit([1, 1000], log=True)[0].ticks(5)
    major = [i for i, tick in enumerate(ticks) if tick.label]
    assert all(b - a == 9 for a, b in itertools.pairwise(major))


_finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(_finite, min_size=1, max_size=6), st.sampled_from(["near", "never", "always"]), st.integers(2, 8))
def test_linear_axes_hold_all_values_and_label_them_rightly(values, zero, wanted):
    axis, _ = fit(values, zero=zero)
    places = [axis.at(value) for value in values]
    assert all(0 <= place <= 1 for place in places)
    assert all((a < b) <= (p <= q) for (a, p), (b, q) in itertools.pairwise(zip(values, places, strict=True)))
    ticks = axis.ticks(wanted)
    assert 1 <= len(ticks) <= 2 * wanted + 2
    assert [tick.at for tick in ticks] == sorted(tick.at for tick in ticks)
    largest = max(abs(axis.low), abs(axis.high))
    for tick in ticks:
        assert -1e-9 <= tick.at <= 1 + 1e-9
        if largest > 1e-300:  # subnormal numbers have too few digits for this
            assert axis.at(_read(tick.label)) == pytest.approx(tick.at, abs=1e-2)


@given(st.lists(st.floats(5e-324, 1.7e308), min_size=1, max_size=6), st.integers(2, 8))
def test_log_axes_hold_all_values_and_label_them_rightly(values, wanted):
    axis, _ = fit(values, log=True)
    assert all(0 <= axis.at(value) <= 1 for value in values)
    ticks = axis.ticks(wanted)
    labelled = [tick for tick in ticks if tick.label]
    assert 1 <= len(labelled) <= 2 * wanted + 6
    for tick in labelled:
        value = _read(tick.label)
        if 1e-307 < value < math.inf:
            assert axis.at(value) == pytest.approx(tick.at, abs=1e-2)


@pytest.mark.parametrize("log", [False, True])
def test_what_cannot_be_drawn_has_no_place(log):
    axis, _ = fit([1.0, math.nan, 2.0, math.inf, -math.inf], log=log)
    assert 0.5 < axis.low + 1 < axis.high + 1 < 4
    assert math.isnan(axis.at(math.nan))
    assert math.isnan(axis.at(math.inf))
    assert math.isnan(axis.at(0.0)) == log
    assert math.isnan(axis.at(-1.0)) == log


def test_a_line_far_away_does_not_squash_the_data():
    axis, inside = fit([1.0, 2.0], [2.5, 1000.0, math.nan])
    assert inside == [True, False, False]
    assert axis.high < 3
    assert fit([1.0, 2.0], [-1.0])[1] == [True]
    assert fit([], [7.0])[1] == [True]
    assert fit([5.0], [7.0])[1] == [True]
    assert fit([1.0, 10.0], [0.0, 1e4, 1e9], log=True)[1] == [False, True, False]


def test_whole_numbers_get_whole_ticks():
    assert _labels([0, 1, 2], zero="never") == ["0", "1", "2"]
    assert _labels([0.0, 0.5, 2.0]) == ["0", "0.5", "1.0", "1.5", "2.0"]


def test_bars_stand_on_zero_and_near_values_reach_it():
    assert fit([90.0, 100.0], zero="always")[0].low == 0
    assert fit([40.0, 100.0])[0].low == 0
    assert fit([40.0, 100.0], zero="never")[0].low > 30
    assert fit([-90.0, -100.0], zero="always")[0].high == 0

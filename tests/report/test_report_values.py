"""How values, columns and names are written for people, before any back end."""

# ruff: noqa: RUF001 - the dash and the cross that people are shown

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._document import (
    Column,
    Grid,
    Series,
    abbreviate,
    clean,
    format_column,
    format_value,
    rows_to_show,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (3, "3"),
        (12345678, "12345678"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.123456, "0.1235"),
        (-12.3456, "-12.35"),
        (9999.96, "10000"),
        (12345.678, "12346"),
        (1234567.8, "1234568"),
        (1e7, "1e+07"),
        (0.00012346, "0.0001235"),
        (0.000012346, "1.235e-05"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (5e-324, "4.941e-324"),
        ((3, 4), "3×4"),
        ("word", "word"),
    ],
)
def test_one_value(value, text):
    assert format_value(value) == text


@given(st.floats(-1.79e308, 1.79e308))
def test_four_digits_of_every_float_survive(value):
    assert float(format_value(value)) == pytest.approx(value, rel=5.1e-4, abs=0)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, 2.0, 30.0], ["1", "2", "30"]),
        ([0.5, 100.25, None], ["0.50", "100.25", "–"]),
        ([1.5, 12.25, math.nan, 0.0], ["1.50", "12.25", "nan", "0"]),
        ([1e-9, 1.0], ["1e-09", "1"]),
        ([1, 2, None], ["1", "2", "–"]),
        (["a", 1.25], ["a", "1.25"]),
        ([100.0, 2000.0], ["100", "2000"]),
        ([], []),
    ],
)
def test_one_column(values, texts):
    assert format_column(values) == texts


@given(st.lists(st.floats(0.01, 9.99), min_size=1, max_size=8))
def test_decimal_points_of_a_column_stand_below_each_other(values):
    texts = format_column(values)
    assert len({len(text.partition(".")[2]) for text in texts}) == 1
    for text, value in zip(texts, values, strict=True):
        assert float(text) == pytest.approx(value, rel=5.1e-3)
    assert float(max(texts, key=float)) == pytest.approx(max(values), rel=5.1e-4)


@given(st.text())
def test_cleaned_text_is_printable_and_printable_text_is_kept(text):
    cleaned = clean(text)
    assert cleaned.isprintable()
    cleaned.encode("utf-8")
    assert cleaned == text or not text.isprintable()


def test_words_that_never_end_keep_both_ends_and_their_length():
    long = "a" * 500 + "b" * 500
    short = abbreviate(f"see {long} here")
    assert short == f"see {'a' * 80}…(880 characters)…{'b' * 40} here"
    assert abbreviate("word " * 100) == "word " * 100
    assert abbreviate("x" * 160) == "x" * 160


def _grid(levels):
    return Grid(title="", columns=(Column(name="n"),), rows=tuple((i,) for i in range(len(levels))), levels=levels)


def test_grave_rows_are_shown_before_the_first_ones():
    levels = ("ok", "unknown", "warn", "ok", "alert", "warn")
    assert rows_to_show(_grid(levels), 6) == [0, 1, 2, 3, 4, 5]
    assert rows_to_show(_grid(levels), 4) == [0, 2, 4, 5]
    assert rows_to_show(_grid(levels), 2) == [2, 4]
    assert rows_to_show(_grid(levels), 1) == [4]
    plain = Grid(title="", columns=(Column(name="n"),), rows=((1,), (2,), (3,)))
    assert rows_to_show(plain, 2) == [0, 1]


def test_a_table_must_be_a_table():
    with pytest.raises(ValueError, match=re.escape("`rows` must have 1 cells, one for each column; row 1 has 2")):
        Grid(title="", columns=(Column(name="n"),), rows=((1,), (1, 2)))
    with pytest.raises(ValueError, match="`levels` must be empty or have 2 entries; got 1"):
        Grid(title="", columns=(Column(name="n"),), rows=((1,), (2,)), levels=("ok",))


def test_a_series_must_be_a_series():
    with pytest.raises(ValueError, match="`x` and `y` must have one length; got 2 and 1"):
        Series(label="", x=[1, 2], y=[1])
    with pytest.raises(ValueError, match="`names` must be empty or have 2 entries; got 1"):
        Series(label="", x=[1, 2], y=[1, 2], names=["a"])

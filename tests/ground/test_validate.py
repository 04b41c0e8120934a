"""Checks of single arguments."""

import fractions
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._validate import RankdiagWarning, boolean, choice, describe, integer, names, real, string
from rankdiag.testing._values import hostile_arrays, hostile_objects

EVERYTHING = [*hostile_objects(), *hostile_arrays()]
CHECKS = {
    "real": lambda value: real(value, "x"),
    "real with bounds": lambda value: real(value, "x", low=0, high=1, low_open=True, infinite=True),
    "integer": lambda value: integer(value, "x"),
    "integer with bounds": lambda value: integer(value, "x", low=0, high=10),
    "boolean": lambda value: boolean(value, "x"),
    "string": lambda value: string(value, "x"),
    "choice of str": lambda value: choice(value, "x", ("svd", "gram")),
    "names": lambda value: names(value, "x", ("svd", "gram")),
    "choice of mixed": lambda value: choice(value, "x", ("inf", 1, 2.0, None, True)),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
def test_anything_at_all_gives_a_value_or_an_error_that_names_the_argument(check):
    unnamed = []
    for value in EVERYTHING:
        try:
            check(value.make())
        except (TypeError, ValueError) as error:
            if not (str(error).startswith("`x` must") and "; got " in str(error)):
                unnamed.append((value.label, str(error)))
    assert unnamed == []


@pytest.mark.parametrize(
    "value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), torch.tensor(2.0), fractions.Fraction(2)]
)
def test_real_takes_every_kind_of_number(value):
    number = real(value, "x")
    assert type(number) is float
    assert number == 2.0


@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), "2", b"2", None, 1j, [2.0], np.array([2.0]), np.array("2"), float]
)
def test_real_refuses_other_kinds(value):
    with pytest.raises(TypeError, match="`x` must be a real number"):
        real(value, "x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400, -(10**5000)], ids=type)
def test_real_refuses_what_is_not_finite(value):
    with pytest.raises(ValueError, match=r"`x` must be a (finite )?real number"):
        real(value, "x")


def test_real_with_infinity():
    assert real(math.inf, "x", infinite=True) == math.inf
    for value in (-math.inf, math.nan, 10**400):
        with pytest.raises(ValueError, match="`x`"):
            real(value, "x", infinite=True)


@given(st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.booleans())
def test_real_bounds(value, low_open, high_open):
    legal = (value > -1 if low_open else value >= -1) and (value < 2 if high_open else value <= 2)
    if legal:
        assert real(value, "x", low=-1, high=2, low_open=low_open, high_open=high_open) == value
    else:
        with pytest.raises(ValueError, match=r"`x` must be a finite real number >=? -1 and <=? 2; got"):
            real(value, "x", low=-1, high=2, low_open=low_open, high_open=high_open)


@pytest.mark.parametrize("low_open", [False, True])
@pytest.mark.parametrize("high_open", [False, True])
@pytest.mark.parametrize("value", [-1.0, 2.0, np.nextafter(-1.0, -2.0), np.nextafter(2.0, 3.0), np.nextafter(2.0, 0.0)])
def test_real_at_the_bounds_themselves(value, low_open, high_open):
    legal = -1.0 < value < 2.0 or (value == -1.0 and not low_open) or (value == 2.0 and not high_open)
    options = {"low": -1, "high": 2, "low_open": low_open, "high_open": high_open}
    if legal:
        assert real(value, "x", **options) == value
    else:
        with pytest.raises(ValueError, match="`x`"):
            real(value, "x", **options)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_integer_takes_every_kind_of_integer(value):
    number = integer(value, "n")
    assert type(number) is int
    assert number == 3


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), 3.0, np.float64(3), "3", None, 3j, [3]])
def test_integer_refuses_other_kinds(value):
    with pytest.raises(TypeError, match="`n` must be an integer"):
        integer(value, "n")


def test_integer_bounds_and_numbers_too_long_to_print():
    assert integer(2**63 - 1, "n", low=1) == 2**63 - 1
    for value in (2**63, -(2**63), 10**5000):
        with pytest.raises(ValueError, match="`n` must be an integer; got"):
            integer(value, "n")
    assert integer(1, "n", low=1, high=10) == 1
    assert integer(10, "n", low=1, high=10) == 10
    for value in (0, 11, 10**5000, -(10**5000)):
        with pytest.raises(ValueError, match=r"`n` must be an integer >= 1 and <= 10; got"):
            integer(value, "n", low=1, high=10)


def test_tensors_without_data_are_no_numbers():
    empty = torch.empty((), device="meta")
    with pytest.raises(TypeError, match="`x` must be a real number"):
        real(empty, "x")
    with pytest.raises(TypeError, match="`n` must be an integer"):
        integer(torch.empty((), dtype=torch.int64, device="meta"), "n")


def test_boolean_and_string():
    assert boolean(np.True_, "b") is True
    assert boolean(False, "b") is False
    assert type(string(np.str_("a"), "s")) is str
    for value in (1, 0, "True", None, np.array([True])):
        with pytest.raises(TypeError, match="`b` must be True or False"):
            boolean(value, "b")
    for value in (1, None, b"a"):
        with pytest.raises(TypeError, match="`s` must be a string"):
            string(value, "s")


def test_choice():
    assert choice("b", "c", ("a", "b")) == "b"
    assert choice(None, "c", ("a", None)) is None
    with pytest.raises(ValueError, match="`c` must be one of 'a', 'b'; got 'x'"):
        choice("x", "c", ("a", "b"))
    with pytest.raises(TypeError, match="`c` must be one of 'a', 'b'; got 1"):
        choice(1, "c", ("a", "b"))
    with pytest.raises((TypeError, ValueError), match="`c` must be one of 1, 2"):
        choice(True, "c", (1, 2))  # equal to 1, and yet another thing
    assert choice("b", "c", iter(("a", "b"))) == "b"


def test_names():
    assert names(["b", "a"], "c", ("a", "b")) == ("b", "a")
    assert names({"a": 1}, "c", ("a",)) == names({"a"}.union(), "c", iter("a")) == ("a",)
    assert names((), "c", ("a",)) == ()
    with pytest.raises(TypeError, match="`c` must be a list of names among a, b; got 'ab'"):
        names("ab", "c", ("a", "b"))
    with pytest.raises(ValueError, match="`c` must hold names among a, b; got 'x'"):
        names(["a", "x"], "c", ("a", "b"))
    with pytest.raises(TypeError, match="`c` must hold names among a, b; got 3"):
        names(["a", 3], "c", ("a", "b"))


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: value.label)
def test_describe_never_fails_and_is_short(value):
    text = describe(value.make())
    assert text
    assert len(text) <= 200


def test_describe():
    assert describe(np.zeros((2, 3))) == "ndarray of shape (2, 3)"
    assert describe(np.ndarray) == "type"
    assert describe("x" * 78) == "'" + "x" * 78 + "'"
    assert describe("x" * 79) == "'" + "x" * 76 + "..."
    assert describe(None) == "None"
    assert describe({}) == "dict"


def test_the_warning_class_can_be_filtered():
    assert issubclass(RankdiagWarning, UserWarning)

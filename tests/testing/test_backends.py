"""Array kinds and their tolerances, and the fixture that runs a test on each."""

import numpy as np
import pytest
import torch

import rankdiag as rd
from rankdiag.testing import BACKENDS, Backend
from rankdiag.testing.backends import __all__ as names

VALUES = np.array([[3.0, 0.1], [1 / 3, -1.0]])


def test_the_fixture_gives_every_kind(xp):
    assert isinstance(xp, Backend)
    xp.assert_close(rd.effective_rank(xp.asarray(VALUES)), rd.effective_rank(xp.rounded(VALUES)))
    xp.assert_close(rd.effective_rank(xp.asarray(VALUES)), rd.effective_rank(VALUES), before_rounding=True)


def test_arrays_have_the_library_and_dtype_they_are_named_after(xp):
    array = xp.asarray(VALUES)
    assert xp.name == f"{xp.library}-{xp.dtype}"
    assert isinstance(array, torch.Tensor if xp.library == "torch" else np.ndarray)
    assert str(array.dtype).removeprefix("torch.") == xp.dtype
    assert array.shape == VALUES.shape


def test_arrays_are_fresh(xp):
    array = xp.asarray(VALUES)
    array[0, 0] = 9.0
    assert VALUES[0, 0] == 3.0
    assert xp.asarray(VALUES)[0, 0] == 3.0


def test_rounded_is_what_the_array_holds(xp):
    rounded = xp.rounded(VALUES)
    assert rounded.dtype == np.float64
    held = xp.asarray(VALUES)
    np.testing.assert_array_equal(rounded, held.double().numpy() if xp.library == "torch" else held.astype(float))
    assert (rounded == VALUES).all() == (xp.dtype == "float64")


def test_there_is_one_of_each():
    assert [backend.name for backend in BACKENDS] == [
        "numpy-float64",
        "numpy-float32",
        "torch-float64",
        "torch-float32",
        "torch-bfloat16",
    ]
    assert names == ["BACKENDS", "Backend"]


def test_tolerances_are_felt(xp):
    one = np.ones(3)
    xp.assert_close(one + 0.5e-10, one)
    with pytest.raises(AssertionError, match=xp.name):
        xp.assert_close(one + 1e-9, one)
    xp.assert_close(one + 0.5e-7, one, ill_conditioned=True)
    with pytest.raises(AssertionError, match=xp.name):
        xp.assert_close(one + 1e-6, one, ill_conditioned=True)
    xp.assert_close(one * (1 + 0.9 * xp.rtol_input), one, before_rounding=True)
    with pytest.raises(AssertionError, match=xp.name):
        xp.assert_close(one * (1 + 1.5 * xp.rtol_input), one, before_rounding=True)
    xp.assert_close([0.0, 1e-12], [1e-12, 0.0], atol=1e-11)
    with pytest.raises(AssertionError, match=xp.name):
        xp.assert_close([0.0, 1e-12], [1e-12, 0.0])


def test_nan_equals_only_nan(xp):
    xp.assert_close(np.nan, np.nan)
    with pytest.raises(AssertionError):
        xp.assert_close(1.0, np.nan)


@pytest.mark.parametrize("option", ["ill_conditioned", "before_rounding"])
def test_options_are_checked(xp, option):
    with pytest.raises(TypeError, match=f"`{option}`"):
        xp.assert_close(1.0, 1.0, **{option: 1})
    with pytest.raises(ValueError, match="`atol`"):
        xp.assert_close(1.0, 1.0, atol=-1.0)
    with pytest.raises(TypeError, match="`values`"):
        xp.asarray("x")

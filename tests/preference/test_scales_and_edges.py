"""Scales at which squares leave float64, means that nearly agree, windows at odd quantiles, ids beyond 64 bits."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from rankdiag.preference import (
    ches_from_states,
    ches_from_sums,
    dataset_pressure,
    edit_similarity,
    influence_matrix,
    quantile_window,
)


def test_ln_ches_uses_the_difference_of_the_means():
    a = np.array([[1e8, 1.0]] * 3)
    b = np.vstack([a, [[1e8, 1.0 + 2**-20]]])
    assert ches_from_states([a], [b]).ln_ches[0] == pytest.approx(2**-22, rel=1e-6, abs=0)


def test_ln_ches_at_a_likely_size():
    """One state of 1e3 in 1,001: relative error 2.7e-5, the direct form has 1e-9."""
    a = np.array([[1e3, 1.0]] * 1000)
    b = np.vstack([a, [[1e3, 1.0 + 2**-20]]])
    assert ches_from_states([a], [b]).ln_ches[0] == pytest.approx(2**-20 / 1001, rel=1e-7, abs=0)


@pytest.mark.parametrize("c", [2e-162, 1e-170])
def test_small_scales_are_not_silently_wrong(c):
    """rho is scale free: S+ = c (1, 2), S- = c (2.5, 2) has CHES 1.5 c^2, distance 2.25 c^2, rho 2/3."""
    found = ches_from_sums([[c, 2 * c]], [[2.5 * c, 2 * c]], [1], [1])
    assert found.relative[0] == pytest.approx(2 / 3, rel=1e-6)
    assert found.regime == ["both_fall"]


def test_rho_of_sums_whose_distance_underflows():
    """<S+, D> = 2e-200 is held, ||D||^2 is not; rho = 5e199 fits, but NaN is given: `sums are equal`."""
    found = ches_from_states([[[1.0], [1e-200]]], [[[1.0], [3e-200]]])
    assert found.regime == ["both_fall"]


def test_cond_of_parts_whose_sum_overflows():
    """Both parts are 1.44e308 and CHES 1.4e302, so cond is about 2.1e6"""
    found = ches_from_sums([[1.2e154]], [[1.2e154 * (1 + 2**-20)]], [1], [1])
    assert found.cond[0] == pytest.approx(2**21, rel=1e-5)


def test_a_length_gap_does_not_make_products_overflow():
    """||S+||^2 = 1e304 and every column fit; ||S+||^2 times the gap of 99,999 does not."""
    found = ches_from_sums([[1e152]], [[1e152]], [1], [100_000])
    assert found.ln_ches[0] == pytest.approx(1e304 / 1e5 - 1e304, rel=1e-9)


def test_the_refusal_of_opposite_sums_names_the_pair():
    with pytest.raises(ValueError, match="pair 1"):
        ches_from_sums([[1], [1e308]], [[1], [-1e308]], [1, 1], [1, 1])


def test_pressure_refuses_by_its_value_only():
    """Both influences, their mean and the pressure are 1.7e308: the matrix is given, the pressure refused."""
    plus, minus = [[1.0], [1.0]], [[1.7e308], [1.7e308]]
    expected = influence_matrix(plus, minus).max()
    assert dataset_pressure(plus, minus).pressure.tolist() == [expected] * 2


def test_pressure_names_weights_that_are_too_large():
    with pytest.raises(ValueError, match="weights"):
        dataset_pressure([[1e3]], [[0.0]], weights=[1e306])


@pytest.mark.parametrize("ids", [[2**63, 1], [2**63, -1], [2**64]])
def test_whole_numbers_beyond_64_bits_are_whole_numbers(ids):
    """They are integers, yet the error says they must be; either take them or say that they are too large."""
    try:
        assert edit_similarity(ids, ids) == 0
    except TypeError as error:
        assert "must hold integers" not in str(error)


def test_an_empty_list_is_an_empty_response():
    with pytest.raises(ValueError, match="pair 1: rejected response has no tokens"):
        ches_from_states([[[1.0]], [[1.0]]], [[[1.0]], []])


def test_an_empty_float_tensor_is_read_like_an_empty_array():
    assert edit_similarity(np.array([]), []) == edit_similarity([], []) == 0
    assert edit_similarity(torch.tensor([]), []) == 0


@pytest.mark.parametrize(("q", "count", "centre"), [(Fraction(15, 22), 12, 8), (Fraction(15, 26), 14, 8)])
def test_a_window_at_a_half_that_is_no_binary_fraction(q, count, centre):
    """q (N-1) = 7.5 goes to 8; the product of floats is 7.499999999999999. `keep_lowest` has a slack for this."""
    assert quantile_window(np.arange(count), float(q), 1).tolist() == [centre]


def test_one_nan_weight_has_a_readable_index():
    with pytest.raises(ValueError) as error:
        ches_from_sums([[1.0]], [[2.0]], [1], [1]).weighted(float("nan"), 1)
    assert "index ()" not in str(error.value)


def test_lengths_beyond_1e103_keep_ln_ches():
    """mu+ = mu- = 1e-110: ln_CHES is 0"""
    found = ches_from_sums([[1e10]], [[2e10]], [1e120], [2e120])
    assert abs(found.ln_ches[0]) <= 1e-235

"""Worked values with their digits, closed forms, and the conventions at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

import rankdiag.spectral as sp
from oracles import spectral as oracle

DIAG = np.diag([3.0, 1.0])
HILBERT = oracle.hilbert(3)


def every_rank(a):
    """All readings that are 1 for a rank-one matrix, n for c*I and 0 for a zero matrix."""
    return {
        "erank": sp.effective_rank(a),
        "energy": sp.effective_rank(a, weights="energy"),
        "participation": sp.participation_ratio(a),
        "stable": sp.stable_rank(a),
        "nuclear": sp.nuclear_ratio(a),
        "numerical": sp.numerical_rank(a),
        "eps": sp.eps_rank(a, 1e-12),
        "exp entropy": math.exp(sp.spectral_entropy(a, order=2)) if sp.numerical_rank(a) else 0.0,
    }


def test_diag_three_one():
    assert sp.effective_rank(DIAG) == pytest.approx(1.754765, abs=5e-7)
    assert sp.effective_rank(DIAG, weights="energy") == pytest.approx(1.384145, abs=5e-7)
    assert sp.participation_ratio(DIAG) == pytest.approx(1.219512, abs=5e-7)
    assert sp.stable_rank(DIAG) == pytest.approx(1.111111, abs=5e-7)
    assert sp.nuclear_ratio(DIAG) == pytest.approx(4 / 3, rel=1e-14)
    assert (sp.schatten_norm(DIAG, "nuc") / sp.schatten_norm(DIAG, "fro")) ** 2 == pytest.approx(1.6, rel=1e-14)
    assert sp.singular_values(DIAG).tolist() == [3.0, 1.0]
    assert sp.spectral_entropy(DIAG) == pytest.approx(0.5623351446188083, rel=1e-14)  # 2 ln 2 - (3/4) ln 3
    assert sp.spectral_entropy(DIAG, order=2) == pytest.approx(math.log(1.6), rel=1e-14)
    assert sp.spectral_entropy(DIAG, weights="energy", order=0.5) == pytest.approx(math.log(1.6), rel=1e-14)
    assert sp.spectral_entropy(DIAG, weights="energy", order=math.inf) == pytest.approx(math.log(10 / 9), rel=1e-13)
    assert sp.spectral_entropy(DIAG, order=math.inf) == pytest.approx(math.log(4 / 3), rel=1e-14)
    assert sp.spectral_entropy(DIAG, order=0) == pytest.approx(math.log(2), rel=1e-14)
    assert sp.spectral_entropy(DIAG, normalize=True) == pytest.approx(0.5623351446188083 / math.log(2), rel=1e-14)
    assert sp.numerical_rank(DIAG) == 2
    assert sp.distance_to_rank(DIAG, 0) == pytest.approx(math.sqrt(10), rel=1e-15)
    assert sp.distance_to_rank(DIAG, 1) == pytest.approx(1.0, rel=1e-15)
    assert sp.distance_to_rank(DIAG, 2) == 0.0
    assert sp.schatten_norm(DIAG, 0.5) == pytest.approx((math.sqrt(3) + 1) ** 2, rel=1e-14)
    assert sp.schatten_norm(DIAG, 3) == pytest.approx(28 ** (1 / 3), rel=1e-14)


def test_hilbert():
    np.testing.assert_allclose(sp.singular_values(HILBERT), [1.408319, 0.122327, 0.002687], rtol=0, atol=5e-7)
    assert sp.effective_rank(HILBERT) == pytest.approx(1.337706, abs=5e-7)
    assert sp.effective_rank(HILBERT, weights="energy") == pytest.approx(1.045149, abs=5e-7)
    assert sp.participation_ratio(HILBERT) == pytest.approx(1.015096, abs=5e-7)
    assert sp.stable_rank(HILBERT) == pytest.approx(1.007548, abs=5e-7)
    assert sp.numerical_rank(HILBERT) == 3
    assert sp.spectrum(HILBERT).effective_rank() == sp.effective_rank(HILBERT)


@pytest.mark.parametrize("scale", [1.0, -7.3, 1e-300, 1e300, 5e-324])
def test_rank_one_is_one(scale):
    matrix = np.outer([1.0, -2.0, 0.0, 4.0], [2.0, 0.0, 1.0]) * scale
    for name, value in every_rank(matrix).items():
        assert value == pytest.approx(1, abs=1e-13), name


@pytest.mark.parametrize("n", [1, 2, 5, 32])
@pytest.mark.parametrize("scale", [1.0, -0.3, 1e-300, 1e300, 5e-324])
def test_multiple_of_identity_is_n(n, scale):
    for name, value in every_rank(scale * np.eye(n)).items():
        assert value == pytest.approx(n, rel=1e-13), name
    assert sp.spectral_entropy(scale * np.eye(n), normalize=True) == pytest.approx(1.0 if n > 1 else 0.0, rel=1e-13)


@pytest.mark.parametrize("n", [2, 8, 16])
def test_hadamard_is_flat(n):
    for name, value in every_rank(oracle.hadamard(n)).items():
        assert value == pytest.approx(n, rel=1e-12), name
    np.testing.assert_allclose(sp.singular_values(oracle.hadamard(n)), math.sqrt(n), rtol=1e-14)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (6, 2)])
def test_zero_matrix_is_zero_everywhere(shape):
    zero = np.zeros(shape)
    for name, value in every_rank(zero).items():
        assert value == 0, name
    for weights in ("sigma", "energy"):
        for order in (0, 0.5, 1, 2, math.inf):
            for normalize in (False, True):
                assert sp.spectral_entropy(zero, weights=weights, order=order, normalize=normalize) == 0
    for rank in (0, 1, min(shape)):
        assert sp.distance_to_rank(zero, rank) == 0
    for p in (0.5, 1, 2, math.inf, "nuc", "fro", "spec"):
        assert sp.schatten_norm(zero, p) == 0
    assert sp.eps_rank(zero, 0) == 0
    assert sp.certified_rank(zero, 0) == 0
    assert sp.singular_values(zero).tolist() == [0.0] * min(shape)


def test_large_zero_matrix():
    zero = np.zeros((514, 513))  # beyond the size where sums take another route
    assert sp.effective_rank(zero) == 0
    assert sp.numerical_rank(zero) == 0
    assert sp.stable_rank(zero) == 0


def test_single_entry():
    for name, value in every_rank([[-5.0]]).items():
        assert value == pytest.approx(1, abs=1e-15), name
    assert sp.singular_values([[-5.0]]).tolist() == [5.0]


def test_named_norms():
    a = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]])
    assert sp.schatten_norm(a, "fro") == pytest.approx(np.linalg.norm(a), rel=1e-14)
    assert sp.schatten_norm(a, "nuc") == pytest.approx(np.linalg.norm(a, "nuc"), rel=1e-14)
    assert sp.schatten_norm(a, "spec") == pytest.approx(np.linalg.norm(a, 2), rel=1e-14)
    assert sp.schatten_norm(a, math.inf) == sp.schatten_norm(a, "spec")
    assert sp.schatten_norm(a, 1) == sp.schatten_norm(a, "nuc")
    assert sp.schatten_norm(a, 2) == sp.schatten_norm(a, "fro")


def test_default_tolerance_follows_the_input_dtype():
    import torch

    values = [1.0, 1e-2, 1e-4, 1e-9]
    matrix = np.diag(values)
    assert sp.numerical_rank(matrix) == 4
    assert sp.numerical_rank(matrix.astype(np.float32)) == 3  # 4 * 2^-23 = 4.8e-7
    assert sp.numerical_rank(matrix.astype(np.float16)) == 2  # 2^-10 = 9.8e-4, whatever the size
    assert sp.numerical_rank(torch.tensor(matrix, dtype=torch.bfloat16)) == 2  # 2^-7 = 7.8e-3
    assert sp.numerical_rank(torch.tensor(matrix, dtype=torch.float32)) == 3
    assert sp.numerical_rank(np.diag([10**14, 1])) == 2  # integers count as float64
    assert sp.numerical_rank(np.diag([10**16, 1])) == 1


@pytest.mark.parametrize(("dtype", "eps"), [("float64", 2.0**-52), ("float32", 2.0**-23)])
@pytest.mark.parametrize("shape", [(4, 4), (4, 64), (100, 4)])
def test_default_tolerance_is_the_larger_side_times_eps(dtype, eps, shape):
    matrix = np.zeros(shape, dtype)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 1, 1.01 * max(shape) * eps, 0.99 * max(shape) * eps
    assert sp.numerical_rank(matrix) == 2


@pytest.mark.parametrize(("dtype", "eps"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_sixteen_bit_tolerance_ignores_the_size(dtype, eps):
    torch = pytest.importorskip("torch")
    matrix = torch.zeros((3, 200), dtype=getattr(torch, dtype))
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = 1, 1.25 * eps, 0.75 * eps
    assert sp.numerical_rank(matrix) == 2
    assert sp.numerical_rank(matrix[:, :3]) == 2


def test_thresholds_are_strict():
    assert sp.numerical_rank(np.diag([4.0, 1.0]), rtol=0.25) == 1
    assert sp.numerical_rank(np.diag([4.0, 1.0]), rtol=0.2499) == 2
    assert sp.numerical_rank(np.diag([4.0, 1.0]), atol=1.0) == 1
    assert sp.numerical_rank(np.diag([4.0, 1.0]), atol=4.0) == 0
    assert sp.numerical_rank(np.diag([4.0, 1.0]), rtol=0.1, atol=2.0) == 1  # the larger of the two
    assert sp.numerical_rank(np.diag([4.0, 1.0]), rtol=0.5, atol=0.1) == 1
    assert sp.numerical_rank(np.diag([4.0, 0.0]), rtol=0, atol=0) == 1
    assert sp.numerical_rank(np.diag([1.0, 1e-17]), atol=0.0) == 1  # the default rtol stays


def test_eps_rank_edges():
    flat = np.eye(4)
    assert sp.eps_rank(flat, 0.5) == 3  # sqrt(1) <= 0.5 * 2 holds with equality
    assert sp.eps_rank(flat, 0.499) == 4
    assert sp.eps_rank(flat, 0) == 4
    assert sp.eps_rank(np.diag([1.0, 1e-200, 0.0]), 0) == 2  # squares underflow, the count does not
    assert sp.eps_rank(np.diag([1.0, 1e-200, 0.0]), 1e-100) == 1
    for eps in (1, 1.0, 1.5, 1e300):
        assert sp.eps_rank(flat, eps) == 0
    assert sp.eps_rank(flat, 0.9999) == 1
    assert sp.eps_rank(flat, np.nextafter(1.0, 0.0)) >= 1


def test_eps_rank_sums_the_tail_from_its_end():
    # Each 1e-16 vanishes beside 1.0, a hundred of them do not: only a sum that starts at the small end sees them.
    s = sp.Spectrum.from_values([1.0, *[1e-8] * 100])
    assert s.eps_rank(1.0001e-7) == 1
    assert s.eps_rank(0.9999e-7) == 2
    assert s.distance_to_rank(1) == pytest.approx(1e-7, rel=1e-12)


def test_certified_rank_subtracts_error_and_slack():
    s = sp.Spectrum.from_values([3.0, 2.0, 1.0], error_bound=0.5)
    assert [s.certified_rank(e) for e in (0.0, 0.49, 0.5, 1.49, 1.5, 2.5, 9.0)] == [3, 3, 2, 2, 1, 0, 0]
    assert sp.certified_rank(np.diag([3.0, 2.0, 1.0]), 1.0 - 1e-6) == 3
    assert sp.certified_rank(np.diag([3.0, 2.0, 1.0]), 1.0) == 2
    assert sp.certified_rank(np.diag([1.0, 1e-20]), 0.0) == 1  # below what a float64 decomposition can certify


@pytest.mark.parametrize("weights", ["sigma", "energy"])
def test_normalised_entropy_divides_by_the_numerical_rank(weights):
    matrix = np.diag([2.0, 1.0, 1.0, 0.0])
    plain = sp.spectral_entropy(matrix, weights=weights)
    assert sp.spectral_entropy(matrix, weights=weights, normalize=True) == pytest.approx(plain / math.log(3))
    single = matrix.astype(np.float32) + np.diag([0, 0, 0, 1e-12]).astype(np.float32)
    assert sp.spectral_entropy(single, weights=weights, normalize=True) == pytest.approx(plain / math.log(3))
    assert sp.spectral_entropy(np.diag([1.0, 1e-18]), weights=weights, normalize=True) == 0


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12, 2.0**-52])
@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_is_continuous_at_order_one(distance, sign):
    matrix = np.diag([5.0, 3.0, 1.0, 0.5, 0.01])
    for weights in ("sigma", "energy"):
        shannon = sp.spectral_entropy(matrix, weights=weights)
        near = sp.spectral_entropy(matrix, weights=weights, order=1 + sign * distance)
        assert near == pytest.approx(shannon, abs=distance + 1e-12)


@pytest.mark.parametrize("order", [1e-9, 0.01, 50.0, 1e4, 1e300])
def test_extreme_orders_stay_finite(order):
    values = [1.0, 0.5, 1e-3, 1e-200]
    found = sp.Spectrum.from_values(values).spectral_entropy(order=order)
    low, high = oracle.entropy(values, order=math.inf), oracle.entropy(values, order=0)
    assert low - 1e-12 <= found <= high + 1e-12
    if order < 1000:
        assert found == pytest.approx(oracle.entropy(values, order=order), rel=1e-9)


def test_from_values_is_the_same_as_the_matrix():
    values = [0.5, 3.0, 1.0]
    s = sp.Spectrum.from_values(values)
    assert s.method == "values"
    assert s.values.tolist() == [3.0, 1.0, 0.5]
    assert s.effective_rank() == pytest.approx(sp.effective_rank(np.diag(values)), rel=1e-14)
    assert s.error_bound == 0
    assert s.input_dtype == "float64"
    tall = sp.Spectrum.from_values([1.0, 1e-5], shape=(400, 2), input_dtype="float32")
    assert tall.shape == (400, 2)
    assert tall.numerical_rank() == 1  # 400 * 2^-23 = 4.8e-5
    assert sp.Spectrum.from_values([1.0, 1e-5], input_dtype="float32").numerical_rank() == 2


def test_from_values_with_room_for_zeros():
    s = sp.Spectrum.from_values([2.0, 1.0], shape=(5, 4))
    assert s.distance_to_rank(3) == 0
    assert s.distance_to_rank(4) == 0
    assert s.distance_to_rank(1) == 1
    assert s.numerical_rank() == 2
    with pytest.raises(ValueError, match="rank"):
        s.distance_to_rank(5)
    stack = sp.Spectrum.from_values(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 0.0]]))
    np.testing.assert_allclose(stack.effective_rank(), [3, 1])


def test_readings_take_a_spectrum_as_they_take_a_matrix():
    s = sp.spectrum(HILBERT)
    assert sp.effective_rank(s, weights="energy") == s.effective_rank(weights="energy")
    assert sp.spectral_entropy(s, order=2) == s.spectral_entropy(order=2)
    assert sp.participation_ratio(s) == s.participation_ratio()
    assert sp.stable_rank(s) == s.stable_rank()
    assert sp.nuclear_ratio(s) == s.nuclear_ratio()
    assert sp.schatten_norm(s, 3) == s.schatten_norm(3)
    assert sp.numerical_rank(s, rtol=0.01) == s.numerical_rank(rtol=0.01) == 2
    assert sp.eps_rank(s, 0.01) == s.eps_rank(0.01)
    assert sp.distance_to_rank(s, 1) == s.distance_to_rank(1)
    assert sp.certified_rank(s, 0.1) == s.certified_rank(0.1) == 2
    assert sp.singular_values(s).tolist() == s.values.tolist()
    with pytest.raises((TypeError, ValueError)):
        sp.spectrum("not a matrix")


def test_front_door_offers_the_same_functions():
    import rankdiag as rd

    for name in (
        "spectrum",
        "effective_rank",
        "stable_rank",
        "numerical_rank",
        "participation_ratio",
        "spectral_entropy",
    ):
        assert getattr(rd, name) is getattr(sp, name)

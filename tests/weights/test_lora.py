"""Low-rank updates from their factors against the dense product, in float64 and in extended precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.spectral import singular_values as exact_values
from rankdiag._result import result_from_json
from rankdiag.spectral import spectrum
from rankdiag.testing import fuzz
from rankdiag.weights._lora import lora_delta_spectrum, lora_factor_spectra


def factors(seed, out, r, inner):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((out, r)), rng.standard_normal((r, inner))


shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 9))


@given(shapes, st.integers(0, 999), st.floats(-100, 100))
def test_values_equal_those_of_the_dense_update(shape, seed, scaling):
    out, r, inner = shape
    b, a = factors(seed, out, r, inner)
    s = lora_delta_spectrum(b, a, scaling=scaling)
    dense = np.linalg.svd(scaling * b @ a, compute_uv=False)
    k = min(out, r, inner)
    assert s.shape == (out, inner)
    assert s.values.size == k
    np.testing.assert_allclose(s.values, dense[:k], rtol=1e-9, atol=1e-11 * abs(scaling))
    assert np.all(dense[k:] <= 1e-11 * abs(scaling))


@given(shapes, st.integers(0, 999), st.sampled_from([1.0, -0.25, 7.5]), st.booleans())
def test_every_reading_equals_that_of_the_dense_update(shape, seed, scaling, twin):
    out, r, inner = shape
    b, a = factors(seed, out, r, inner)
    if twin:
        b[:, -1] = b[:, 0]  # a rank below r
    s, dense = lora_delta_spectrum(b, a, scaling=scaling), spectrum(scaling * (b @ a))
    close = {"rel": 1e-8, "abs": 1e-12}
    assert s.effective_rank() == pytest.approx(dense.effective_rank(), **close)
    assert s.effective_rank(weights="energy") == pytest.approx(dense.effective_rank(weights="energy"), **close)
    assert s.participation_ratio() == pytest.approx(dense.participation_ratio(), **close)
    assert s.stable_rank() == pytest.approx(dense.stable_rank(), **close)
    assert s.nuclear_ratio() == pytest.approx(dense.nuclear_ratio(), **close)
    assert s.schatten_norm(1) == pytest.approx(dense.schatten_norm(1), **close)
    assert s.frobenius == pytest.approx(dense.frobenius, **close)
    assert s.eps_rank(0.05) == dense.eps_rank(0.05)
    assert s.certified_rank(1e-3 * dense.values[0]) == dense.certified_rank(1e-3 * dense.values[0])
    for rank in range(min(out, inner) + 1):
        assert s.distance_to_rank(rank) == pytest.approx(dense.distance_to_rank(rank), rel=1e-8, abs=1e-10)
    assert s.numerical_rank(rtol=1e-12) == dense.numerical_rank(rtol=1e-12)
    assert float(s.rank_threshold()) == pytest.approx(float(dense.rank_threshold()), rel=1e-9)


@given(shapes, st.integers(0, 999), st.sampled_from([0.0, 1e-9, 1e-14]))
def test_error_bound_holds_in_extended_precision(shape, seed, part):
    out, r, inner = shape
    b, a = factors(seed, out, r, inner)
    if r > 1:  # the two factors cancel but for `part`
        b[:, 1] = b[:, 0]
        a[1] = -a[0] + part * a[1]
    s = lora_delta_spectrum(b, a, scaling=3.0)
    true = 3 * exact_values(b.astype(np.longdouble) @ a.astype(np.longdouble))[: s.values.size]
    assert np.abs(s.values - true).max() <= s.error_bound
    size = 3.0 * np.linalg.norm(b, 2) * np.linalg.norm(a, 2)
    assert s.error_bound == pytest.approx(8 * max(*shape, 16) * 2.0**-52 * size, rel=1e-10, abs=0)


def test_error_bound_grows_with_the_longest_side():
    for shape in ((40, 2, 3), (3, 40, 2), (2, 3, 40)):
        b, a = factors(11, *shape)
        size = np.linalg.norm(b, 2) * np.linalg.norm(a, 2)
        s = lora_delta_spectrum(b, a)
        assert s.error_bound == pytest.approx(8 * 40 * 2.0**-52 * size, rel=1e-10, abs=0)
        assert s.meta.details["error_bound"] == s.error_bound


@given(shapes, st.integers(0, 999), st.integers(-300, 300), st.integers(-300, 300), st.integers(-300, 300))
def test_powers_of_two_only_scale(shape, seed, left, right, front):
    b, a = factors(seed, *shape)
    s = lora_delta_spectrum(b, a)
    scaled = lora_delta_spectrum(np.ldexp(b, left), np.ldexp(a, right), scaling=math.ldexp(1.0, front))
    np.testing.assert_allclose(scaled.values, np.ldexp(s.values, left + right + front), rtol=1e-13)


def test_factors_of_extreme_size_meet_in_the_middle():
    b, a = factors(0, 5, 2, 4)
    plain = lora_delta_spectrum(b, a)
    extreme = lora_delta_spectrum(np.ldexp(b, 1000), np.ldexp(a, -1000))
    np.testing.assert_allclose(extreme.values, plain.values, rtol=1e-13)
    extreme = lora_delta_spectrum(np.ldexp(b, 900), np.ldexp(a, 900), scaling=2.0**-1070)
    np.testing.assert_allclose(extreme.values, np.ldexp(plain.values, 730), rtol=1e-13)
    small = lora_delta_spectrum(np.ldexp(b, -600), np.ldexp(a, -600))
    assert small.values[0] <= 5e-324  # a product below float64 is zero up to its last bit
    assert small.error_bound >= 5e-324
    with pytest.raises(ValueError, match=r"`B`, `A` and `scaling`.*beyond float64"):
        lora_delta_spectrum(np.ldexp(b, 600), np.ldexp(a, 600))
    eye = np.ldexp(np.eye(4), 511)
    assert lora_delta_spectrum(eye, eye).frobenius == 2.0**1023
    with pytest.raises(
        ValueError, match=r"`B`, `A` and `scaling`.*beyond float64"
    ):  # every value is within, their norm is not
        lora_delta_spectrum(eye, eye, scaling=3.0)


@given(shapes, st.integers(0, 999))
def test_orthogonal_maps_and_transposes_change_nothing(shape, seed):
    out, r, inner = shape
    b, a = factors(seed, out, r, inner)
    left, _ = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((out, out)))
    middle, _ = np.linalg.qr(np.random.default_rng(seed + 2).standard_normal((r, r)))
    s = lora_delta_spectrum(b, a)
    np.testing.assert_allclose(lora_delta_spectrum(left @ b @ middle, middle.T @ a).values, s.values, atol=1e-12)
    flipped = lora_delta_spectrum(a.T, b.T)
    np.testing.assert_allclose(flipped.values, s.values, atol=1e-12)
    assert flipped.shape == (inner, out)


@given(shapes, st.integers(0, 999), st.integers(1, 5))
def test_unused_directions_change_nothing(shape, seed, more):
    b, a = factors(seed, *shape)
    s = lora_delta_spectrum(b, a)
    wider = lora_delta_spectrum(np.hstack([b, np.zeros((len(b), more))]), np.vstack([a, np.ones((more, a.shape[1]))]))
    np.testing.assert_allclose(wider.values[: s.values.size], s.values, atol=1e-11)
    assert np.all(wider.values[s.values.size :] <= wider.error_bound)


def test_worked_example_of_the_specification():
    s = lora_delta_spectrum([[1], [0]], [[2, 0]], scaling=0.5)
    assert s.values.tolist() == [1.0]
    assert s.shape == (2, 2)
    assert (s.numerical_rank(), s.effective_rank(), s.distance_to_rank(2)) == (1, 1.0, 0.0)


@pytest.mark.parametrize(("b", "scaling"), [(np.zeros((6, 2)), 2.0), (np.ones((6, 2)), 0.0), (np.ones((6, 2)), -0.0)])
def test_a_fresh_or_switched_off_adapter_is_zero(b, scaling):
    s = lora_delta_spectrum(b, np.ones((2, 5)), scaling=scaling)
    assert s.values.tolist() == [0.0, 0.0]
    assert s.error_bound == 0.0
    assert (s.effective_rank(), s.stable_rank(), s.numerical_rank(), s.frobenius) == (0.0, 0.0, 0, 0.0)


def test_the_sign_of_the_scaling_does_not_matter():
    b, a = factors(3, 7, 2, 5)
    assert (lora_delta_spectrum(b, a, scaling=-2.5).values == lora_delta_spectrum(b, a, scaling=2.5).values).all()
    np.testing.assert_allclose(
        lora_delta_spectrum(b, a, scaling=-2.5).values, 2.5 * lora_delta_spectrum(b, a).values, rtol=1e-14
    )


def test_the_default_tolerance_is_that_of_the_full_shape():
    b, a = factors(4, 400, 2, 300)
    b = b.astype(np.float32)
    b[:, 1] *= 2e-5  # below 400 eps of float32, above 2 eps
    a = a.astype(np.float32)
    s = lora_delta_spectrum(b, a)
    assert float(s.rank_threshold()) == pytest.approx(400 * 2.0**-23 * s.values[0], rel=1e-12)
    assert s.numerical_rank() == spectrum(b.astype(np.float64) @ a).numerical_rank(rtol=400 * 2.0**-23) == 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_factors_are_read_as_they_are(dtype):
    torch = pytest.importorskip("torch")
    b, a = (torch.from_numpy(x).to(getattr(torch, dtype)).requires_grad_() for x in factors(5, 8, 3, 6))
    s = lora_delta_spectrum(b, a, scaling=2.0)
    wide = [x.detach().double().numpy() for x in (b, a)]
    assert (s.values == lora_delta_spectrum(*wide, scaling=2.0).values).all()
    np.testing.assert_allclose(s.values, np.linalg.svd(2 * wide[0] @ wide[1], compute_uv=False)[:3], rtol=1e-12)
    assert s.input_dtype == s.meta.dtype == dtype
    # The coarser of the two decides.
    assert lora_delta_spectrum(b.double(), a).input_dtype == dtype
    assert lora_delta_spectrum(b, a.double()).input_dtype == dtype


def test_the_dense_update_is_never_formed():
    import tracemalloc

    b, a = factors(6, 20_000, 2, 20_000)
    tracemalloc.start()
    s = lora_delta_spectrum(b, a)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert s.shape == (20_000, 20_000)
    assert peak < 20 * b.nbytes  # the product would take 3.2 GB


def test_the_result_says_what_was_read_and_travels():
    b, a = factors(7, 4, 2, 3)
    s = lora_delta_spectrum(b, a, scaling=0.5)
    assert s.meta.details["scaling"] == 0.5
    assert s.meta.details["r"] == 2
    assert "scaling * B A" in s.meta.definition
    assert result_from_json(s.to_json()) == s


def test_inputs_are_left_alone():
    b, a = factors(8, 6, 2, 5)
    before = b.copy(), a.copy()
    b.flags.writeable = a.flags.writeable = False
    lora_delta_spectrum(b, a)
    lora_delta_spectrum(b[::-1], np.asfortranarray(a)[:, ::-1])
    assert (b == before[0]).all()
    assert (a == before[1]).all()


def test_factor_spectra_are_those_of_the_factors():
    b, a = factors(9, 6, 2, 5)
    left, right = lora_factor_spectra(b.astype(np.float32), a)
    assert (left.values == spectrum(b.astype(np.float32)).values).all()
    assert (right.values == spectrum(a).values).all()
    assert (left.input_dtype, right.input_dtype) == ("float32", "float64")
    assert (left.shape, right.shape) == ((6, 2), (2, 5))


FINE = np.ones((2, 2))


@pytest.mark.parametrize("call", [lora_delta_spectrum, lora_factor_spectra])
@pytest.mark.parametrize(
    ("b", "a", "name", "error"),
    [
        (np.ones(3), FINE, "B", ValueError),
        (FINE, np.ones((2, 2, 2)), "A", ValueError),
        (np.ones((3, 2)), np.ones((3, 2)), "A", ValueError),
        (np.ones((3, 0)), np.ones((0, 3)), "B", ValueError),
        (FINE, np.ones((2, 0)), "A", ValueError),
        (FINE * math.nan, FINE, "B", ValueError),
        (FINE, FINE * math.inf, "A", ValueError),
        (FINE.astype(complex), FINE, "B", TypeError),
        (FINE, None, "A", TypeError),
        ("factor", FINE, "B", TypeError),
    ],
)
def test_bad_factors_are_named(call, b, a, name, error):
    with pytest.raises(error, match=f"`{name}`"):
        call(b, a)


@pytest.mark.parametrize(
    ("scaling", "error"),
    [(math.nan, ValueError), (math.inf, ValueError), ("2", TypeError), (None, TypeError), (True, TypeError)],
)
def test_bad_scalings_are_named(scaling, error):
    with pytest.raises(error, match="`scaling`"):
        lora_delta_spectrum(FINE, FINE, scaling=scaling)


@pytest.mark.parametrize("call", [lora_delta_spectrum, lora_factor_spectra])
def test_bad_and_extreme_values_are_read_or_refused_by_name(call):
    b, a = factors(10, 3, 2, 4)
    extra = {"B": [b * x for x in (5e-324, 1e-300, 1e300)], "A": [a * x for x in (5e-324, 1e-300, 1e300)]}
    fuzz(call, arguments={"B": b, "A": a}, extra=extra).raise_for_violations()


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword"):
        lora_delta_spectrum(FINE, FINE, alpha=2.0)
    with pytest.raises(TypeError, match="positional"):
        lora_delta_spectrum(FINE, FINE, 2.0)

"""Spectra of kernels against the dense matrices that torch applies, entry-by-entry operators, and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.spectral import singular_values as exact_values
from oracles.weights_math import circular_convolution_matrix
from rankdiag import _array
from rankdiag._result import result_from_json
from rankdiag.testing import fuzz
from rankdiag.weights import _conv
from rankdiag.weights._conv import conv_spectrum

torch = pytest.importorskip("torch")


def dense(values):
    return np.linalg.svd(values, compute_uv=False)


def applied(module, channels, size):
    """Dense matrix of a module, column by column from one-hot inputs."""
    count = channels * math.prod(size)
    with torch.no_grad():
        out = module(torch.eye(count, dtype=torch.float64).reshape(count, channels, *size))
    return out.reshape(count, -1).T.numpy()


def kernel(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def circular(inner, out, window, **options):
    """A torch convolution with circular padding whose weights come from numpy, not from torch's global generator."""
    module = torch.nn.utils.skip_init(
        torch.nn.Conv2d, inner, out, window, padding_mode="circular", bias=False, dtype=torch.float64, **options
    )
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(kernel(0, *module.weight.shape)))
    return module


# --- fft -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [(3, 2), (2, 3), (1, 1), (4, 4)])
@pytest.mark.parametrize("window", [(3, 3), (1, 1), (1, 3), (5, 3), (2, 4)])
@pytest.mark.parametrize("size", [(5, 5), (6, 4), (5, 8)])
def test_operator_equals_what_torch_applies(channels, window, size):
    out, inner = channels
    module = circular(inner, out, window, padding="same")
    matrix = applied(module, inner, size)
    s = conv_spectrum(module.weight, mode="fft", input_size=size)
    assert s.shape == matrix.shape
    assert s.values.size == math.prod(size) * min(out, inner)
    np.testing.assert_allclose(s.values, dense(matrix), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_operator_equals_what_torch_applies(groups):
    module = circular(4, 8, 3, padding=1, groups=groups)
    matrix = applied(module, 4, (4, 5))
    s = conv_spectrum(module.weight, mode="fft", input_size=(4, 5), groups=groups)
    assert s.shape == matrix.shape
    np.testing.assert_allclose(s.values, dense(matrix), rtol=1e-12, atol=1e-13)


def test_transposed_operator_has_the_values_of_its_weight_read_as_it_is_stored():
    weight = kernel(1, 3, 2, 3, 3)  # (in, out, kh, kw)
    size = (5, 6)
    padded = torch.nn.functional.pad(torch.eye(90, dtype=torch.float64).reshape(90, 3, *size), (2, 2, 2, 2), "circular")
    full = torch.nn.functional.conv_transpose2d(padded, torch.from_numpy(weight))
    matrix = full[..., 3:8, 3:9].reshape(90, -1).T.numpy()  # away from the border every tap is there
    s = conv_spectrum(weight, mode="fft", input_size=size)
    np.testing.assert_allclose(s.values, dense(matrix), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 3, 5, 5), (3, 2)),  # the kernel is larger than the image and wraps around
        ((2, 2, 3, 3), (3, 3)),  # as large
        ((2, 1, 7, 1), (2, 5)),
        ((1, 2, 4, 4), (1, 1)),
        ((2, 2, 1, 5), (1, 4)),
        ((3, 2, 2, 2), (7, 1)),
    ],
)
def test_operator_of_kernels_that_wrap_equals_its_definition(shape, size):
    weight = kernel(2, *shape)
    matrix = circular_convolution_matrix(weight, *size)
    s = conv_spectrum(weight, mode="fft", input_size=size)
    assert s.shape == matrix.shape
    np.testing.assert_allclose(s.values, dense(matrix), rtol=1e-12, atol=1e-13)


sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), sizes, st.integers(0, 99))
def test_operator_equals_its_definition(shape, size, seed):
    weight = np.round(4 * kernel(seed, *shape)) / 4  # exact sums, many equal and zero values
    matrix = circular_convolution_matrix(weight, *size)
    s = conv_spectrum(weight, mode="fft", input_size=size)
    np.testing.assert_allclose(s.values, dense(matrix), rtol=1e-10, atol=1e-12)
    assert s.frobenius == pytest.approx(np.linalg.norm(matrix), rel=1e-12)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), sizes, st.integers(0, 99))
def test_sum_of_squares(out, inner, kh, kw, extra, seed):
    weight = kernel(seed, out, inner, kh, kw)
    size = (kh + extra[0] - 1, kw + extra[1] - 1)  # the kernel fits
    s = conv_spectrum(weight, mode="fft", input_size=size)
    assert (s.values**2).sum() == pytest.approx(math.prod(size) * (weight**2).sum(), rel=1e-12)


@given(st.integers(0, 99), st.sampled_from([1e-290, 1e-30, 1e30, 1e290]))
def test_error_bound_holds_in_extended_precision(seed, unit):
    weight = kernel(seed, 2, 2, 3, 2)
    weight[1] = weight[0] * (1 + 1e-9 * (seed % 3))  # nearly, or quite, of low rank
    weight *= unit
    s = conv_spectrum(weight, mode="fft", input_size=(3, 3))
    true = exact_values(circular_convolution_matrix(weight, 3, 3)).astype(np.float64)
    assert np.abs(s.values - true).max() <= s.error_bound
    assert s.error_bound <= 1e-12 * s.values[0]


def test_error_bound_is_that_of_the_decompositions_and_of_the_sums():
    weight = 1e-30 * kernel(12, 2, 20, 4, 2)
    s = conv_spectrum(weight, mode="fft", input_size=(5, 5))
    eps = 2.0**-52
    sums = 2 * (4 + 2 + 4) * eps * np.linalg.norm(np.abs(weight).sum(axis=(2, 3)))
    assert s.error_bound == pytest.approx(8 * 20 * eps * s.values[0] + sums, rel=1e-10, abs=0)
    assert s.meta.details["error_bound"] == s.error_bound
    s = conv_spectrum(weight, mode="slices")
    assert s.error_bound == pytest.approx(8 * 20 * eps * s.values[0], rel=1e-10, abs=0)
    assert s.meta.details["error_bound"] == s.error_bound


def test_closed_forms_of_operators():
    identity = np.zeros((3, 3, 3, 3))
    identity[range(3), range(3), 1, 1] = 1.0
    assert conv_spectrum(identity, mode="fft", input_size=(4, 6)).values == pytest.approx(np.ones(72))
    shift = np.zeros((1, 1, 3, 3))
    shift[0, 0, 2, 0] = -2.0
    assert conv_spectrum(shift, mode="fft", input_size=(5, 5)).values == pytest.approx(np.full(25, 2.0))
    mean = np.full((1, 1, 3, 3), 1 / 9)
    values = conv_spectrum(mean, mode="fft", input_size=(3, 3)).values
    assert values[0] == pytest.approx(1.0)
    assert np.abs(values[1:]).max() < 1e-15  # a box as large as the image keeps nothing but the mean
    difference = np.array([[[[1.0, -1.0]]]])
    expected = np.sort(2 * np.abs(np.sin(np.pi * np.arange(8) / 8)))[::-1]
    np.testing.assert_allclose(
        conv_spectrum(difference, mode="fft", input_size=(1, 8)).values, expected, rtol=1e-13, atol=1e-15
    )


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 6))
def test_operator_of_a_one_by_one_kernel_is_its_matrix_at_every_pixel(seed, h, w):
    weight = kernel(seed, 3, 4, 1, 1)
    s = conv_spectrum(weight, mode="fft", input_size=(h, w))
    np.testing.assert_allclose(s.values, np.repeat(dense(weight[:, :, 0, 0]), h * w), rtol=1e-12)


def test_operator_readings_are_those_of_the_dense_matrix():
    from rankdiag.spectral import spectrum

    weight = kernel(3, 4, 3, 3, 3)
    weight[3] = weight[0]
    matrix = spectrum(circular_convolution_matrix(weight, 5, 4))
    s = conv_spectrum(weight, mode="fft", input_size=(5, 4))
    assert s.effective_rank() == pytest.approx(matrix.effective_rank(), rel=1e-10)
    assert s.stable_rank() == pytest.approx(matrix.stable_rank(), rel=1e-10)
    assert s.numerical_rank() == matrix.numerical_rank() == 60
    assert s.distance_to_rank(17) == pytest.approx(matrix.distance_to_rank(17), rel=1e-10)


def test_blocks_do_not_show(monkeypatch):
    weight = kernel(4, 3, 2, 3, 4)
    whole = conv_spectrum(weight, mode="fft", input_size=(7, 6))
    for size in (1, 16 * 6 * 2, 16 * 6 * 7, 16 * 6 * 20):
        monkeypatch.setattr(_conv, "_BLOCK", size)
        np.testing.assert_allclose(
            conv_spectrum(weight, mode="fft", input_size=(7, 6)).values, whole.values, rtol=1e-13, atol=1e-14
        )


def test_memory_is_what_the_refusal_counts(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(_conv, "_BLOCK", 1 << 18)
    weight = kernel(4, 8, 8, 3, 3)
    tracemalloc.start()
    s = conv_spectrum(weight, mode="fft", input_size=(150, 150))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * _conv._BYTES * s.values.size


def test_huge_images_are_refused_before_work():
    with pytest.raises(ValueError, match=r"`input_size` \(1000000, 1000000\).*GB"):
        conv_spectrum(np.ones((8, 8, 3, 3)), mode="fft", input_size=(10**6, 10**6))
    with pytest.raises(ValueError, match="`input_size`"):
        conv_spectrum(np.ones((1, 1, 1, 1)), mode="fft", input_size=(10**200, 1))


def test_refusal_counts_every_value(monkeypatch):
    monkeypatch.setattr(_conv, "memory_limit", lambda: 48 * 4 * 4 * 2)
    conv_spectrum(np.ones((2, 3, 1, 1)), mode="fft", input_size=(4, 4))
    conv_spectrum(np.ones((2, 1, 1, 1)), mode="fft", input_size=(4, 4), groups=2)
    with pytest.raises(ValueError, match="80 singular values"):
        conv_spectrum(np.ones((4, 5, 1, 1)), mode="fft", input_size=(4, 5))
    with pytest.raises(ValueError, match="64 singular values"):
        conv_spectrum(np.ones((4, 1, 1, 1)), mode="fft", input_size=(4, 4), groups=4)


# --- flatten and slices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 2, 3, 3), (2, 4, 2, 2, 3), (1, 1, 1)])
def test_flatten_is_the_kernel_as_a_matrix(shape):
    weight = kernel(5, *shape)
    s = conv_spectrum(weight)
    assert s.shape == (shape[0], math.prod(shape[1:]))
    np.testing.assert_allclose(s.values, dense(weight.reshape(shape[0], -1)), rtol=1e-13)


@pytest.mark.parametrize("shape", [(4, 3, 3), (3, 2, 3, 3), (2, 4, 2, 2, 3), (1, 1, 1)])
def test_slices_pool_every_kernel_position(shape):
    weight = kernel(6, *shape)
    positions = math.prod(shape[2:])
    flat = weight.reshape(shape[0], shape[1], positions)
    expected = np.sort(np.concatenate([dense(flat[:, :, k]) for k in range(positions)]))[::-1]
    s = conv_spectrum(weight, mode="slices")
    assert s.shape == (positions * shape[0], positions * shape[1])
    np.testing.assert_allclose(s.values, expected, rtol=1e-12)
    assert s.frobenius == pytest.approx(np.linalg.norm(weight), rel=1e-12)


def test_groups_are_blocks_of_one_matrix():
    weight = kernel(7, 6, 2, 3, 3)
    blocks = weight.reshape(3, 2, 2, 9)
    flat = np.zeros((6, 6 * 9))
    sliced = np.zeros((9 * 6, 9 * 6))
    for g in range(3):
        flat[2 * g : 2 * g + 2, 18 * g : 18 * g + 18] = blocks[g].reshape(2, 18)
        for k in range(9):
            at = 2 * (9 * g + k)
            sliced[at : at + 2, at : at + 2] = blocks[g, :, :, k]
    s = conv_spectrum(weight, groups=3)
    assert s.shape == flat.shape
    np.testing.assert_allclose(s.values, dense(flat), rtol=1e-12)
    s = conv_spectrum(weight, mode="slices", groups=3)
    assert s.shape == sliced.shape
    np.testing.assert_allclose(s.values, dense(sliced), rtol=1e-12)


@given(st.integers(0, 99), st.sampled_from(["flatten", "slices", "fft"]), st.integers(-900, 900))
def test_a_power_of_two_only_scales(seed, mode, exponent):
    weight = kernel(seed, 3, 2, 2, 2)
    size = (3, 2) if mode == "fft" else None
    s = conv_spectrum(weight, mode=mode, input_size=size)
    scaled = conv_spectrum(np.ldexp(weight, exponent), mode=mode, input_size=size)
    np.testing.assert_allclose(scaled.values, np.ldexp(s.values, exponent), rtol=1e-12, atol=5e-324)
    assert scaled.effective_rank() == pytest.approx(s.effective_rank(), rel=1e-11)


@pytest.mark.parametrize("mode", ["flatten", "slices", "fft"])
def test_zero_kernels_have_no_rank(mode):
    s = conv_spectrum(np.zeros((2, 3, 2, 2)), mode=mode, input_size=(3, 3) if mode == "fft" else None)
    assert (s.effective_rank(), s.stable_rank(), s.numerical_rank(), s.frobenius) == (0.0, 0.0, 0, 0.0)
    assert not s.values.any()
    assert s.error_bound == 0.0


@pytest.mark.parametrize("mode", ["flatten", "slices", "fft"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_kernels_are_read_as_they_are(mode, dtype):
    weight = torch.from_numpy(kernel(8, 4, 3, 3, 3)).to(getattr(torch, dtype)).requires_grad_()
    size = (4, 4) if mode == "fft" else None
    s = conv_spectrum(weight, mode=mode, input_size=size)
    wide = conv_spectrum(weight.detach().double().numpy(), mode=mode, input_size=size)
    assert (s.values == wide.values).all()
    assert s.input_dtype == s.meta.dtype == dtype
    assert wide.input_dtype == "float64"
    lists = conv_spectrum(weight.detach().double().tolist(), mode=mode, input_size=size)
    assert (lists.values == wide.values).all()


def test_memory_layout_does_not_matter():
    weight = kernel(9, 4, 3, 3, 3)
    frozen = np.asfortranarray(weight[::-1, :, ::-1])
    frozen.flags.writeable = False
    for mode, size in (("flatten", None), ("slices", None), ("fft", (5, 3))):
        got = conv_spectrum(frozen, mode=mode, input_size=size).values
        expected = conv_spectrum(frozen.copy(order="C"), mode=mode, input_size=size).values
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)


def test_the_result_says_what_was_read_and_travels():
    weight = kernel(10, 2, 2, 2, 2)
    s = conv_spectrum(weight, mode="fft", input_size=[3, 4])
    assert s.meta.details["mode"] == "fft"
    assert s.meta.details["input_size"] == (3, 4)
    assert s.meta.details["groups"] == 1
    assert "circular padding" in s.meta.definition
    assert "slices" in conv_spectrum(weight, mode="slices").meta.definition
    assert conv_spectrum(weight).meta.details["mode"] == "flatten"
    assert "input_size" not in conv_spectrum(weight).meta.details
    assert result_from_json(s.to_json()) == s


FINE = np.ones((2, 2, 3, 3))


@pytest.mark.parametrize(
    ("weight", "options", "name", "error"),
    [
        (np.ones((3, 3)), {}, "weight", ValueError),
        (np.ones(3), {"mode": "slices"}, "weight", ValueError),
        (np.ones((3, 3, 0)), {}, "weight", ValueError),
        (np.full((2, 2, 2), math.nan), {}, "weight", ValueError),
        (np.full((2, 2, 2), math.inf), {"mode": "slices"}, "weight", ValueError),
        (FINE.astype(complex), {}, "weight", TypeError),
        ("kernel", {}, "weight", TypeError),
        (None, {}, "weight", TypeError),
        (np.ones((2, 2, 3)), {"mode": "fft", "input_size": (4, 4)}, "weight", ValueError),
        (np.ones((2, 2, 3, 3, 3)), {"mode": "fft", "input_size": (4, 4)}, "weight", ValueError),
        (np.full((2, 2, 3, 3), 1.7e308), {"mode": "fft", "input_size": (4, 4)}, "weight", ValueError),
        (FINE, {"mode": "dense"}, "mode", ValueError),
        (FINE, {"mode": None}, "mode", TypeError),
        (FINE, {"mode": "fft"}, "input_size", ValueError),
        (FINE, {"mode": "fft", "input_size": 4}, "input_size", TypeError),
        (FINE, {"mode": "fft", "input_size": "44"}, "input_size", TypeError),
        (FINE, {"mode": "fft", "input_size": (4,)}, "input_size", ValueError),
        (FINE, {"mode": "fft", "input_size": (4, 4, 4)}, "input_size", ValueError),
        (FINE, {"mode": "fft", "input_size": (4, 0)}, "input_size", ValueError),
        (FINE, {"mode": "fft", "input_size": (4.0, 4)}, "input_size", TypeError),
        (FINE, {"mode": "fft", "input_size": (True, 4)}, "input_size", TypeError),
        (FINE, {"input_size": (4, 4)}, "input_size", ValueError),
        (FINE, {"mode": "slices", "input_size": (4, 4)}, "input_size", ValueError),
        (FINE, {"groups": 0}, "groups", ValueError),
        (FINE, {"groups": 3}, "groups", ValueError),
        (np.ones((3, 2, 3)), {"groups": 2}, "groups", ValueError),
        (FINE, {"groups": 1.0}, "groups", TypeError),
    ],
)
def test_bad_arguments_are_named(weight, options, name, error):
    with pytest.raises(error, match=f"`{name}`"):
        conv_spectrum(weight, **options)


@pytest.mark.parametrize(("mode", "size"), [("flatten", None), ("slices", None), ("fft", (3, 4))])
def test_bad_and_extreme_values_are_read_or_refused_by_name(mode, size):
    arguments = {"weight": kernel(11, 2, 2, 3, 3), "mode": mode, "input_size": size}
    extra = {"weight": [np.full((2, 1, 2, 2), x) for x in (5e-324, 1e-300, 1e300, 1e308, -0.0)]}
    fuzz(conv_spectrum, arguments=arguments, extra=extra).raise_for_violations()


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword"):
        conv_spectrum(FINE, padding="zeros")
    with pytest.raises(TypeError, match="positional"):
        conv_spectrum(FINE, "fft")


def test_refusal_uses_the_memory_of_this_machine():
    assert _conv.memory_limit is _array.memory_limit

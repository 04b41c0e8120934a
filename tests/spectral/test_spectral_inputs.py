"""What comes in: kinds of arrays, batches, and what is refused, in which words."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle

MATRIX = np.random.default_rng(3).standard_normal((6, 4))
READINGS = {
    "effective_rank": lambda a: sp.effective_rank(a),
    "effective_rank energy": lambda a: sp.effective_rank(a, weights="energy"),
    "spectral_entropy": lambda a: sp.spectral_entropy(a),
    "spectral_entropy 2": lambda a: sp.spectral_entropy(a, weights="energy", order=2, normalize=True),
    "spectral_entropy 0": lambda a: sp.spectral_entropy(a, order=0),
    "spectral_entropy inf": lambda a: sp.spectral_entropy(a, order=math.inf),
    "participation_ratio": sp.participation_ratio,
    "stable_rank": sp.stable_rank,
    "nuclear_ratio": sp.nuclear_ratio,
    "schatten_norm": lambda a: sp.schatten_norm(a, 0.7),
    "schatten_norm nuc": lambda a: sp.schatten_norm(a, "nuc"),
    "schatten_norm spec": lambda a: sp.schatten_norm(a, math.inf),
    "numerical_rank": sp.numerical_rank,
    "numerical_rank tol": lambda a: sp.numerical_rank(a, rtol=0.3, atol=0.1),
    "eps_rank": lambda a: sp.eps_rank(a, 0.4),
    "distance_to_rank": lambda a: sp.distance_to_rank(a, 1),
    "certified_rank": lambda a: sp.certified_rank(a, 0.5),
}
TAKES_MATRIX = {**READINGS, "spectrum": sp.spectrum, "singular_values": sp.singular_values}
COUNTS = {"numerical_rank", "numerical_rank tol", "eps_rank", "certified_rank"}

each_reading = pytest.mark.parametrize("reading", list(READINGS.values()), ids=list(READINGS))
each_entry = pytest.mark.parametrize("entry", list(TAKES_MATRIX.values()), ids=list(TAKES_MATRIX))


class Foreign:
    """Anything with __array__."""

    def __array__(self, dtype=None, copy=None):
        return np.array(MATRIX, dtype=dtype)


def numpy_kinds(tmp_path):
    stored = tmp_path / "matrix.npy"
    np.save(stored, MATRIX)
    read_only = MATRIX.copy()
    read_only.flags.writeable = False
    wide = np.zeros((12, 8))
    wide[::2, ::2] = MATRIX
    return {
        "fortran": np.asfortranarray(MATRIX),
        "negative strides": MATRIX[::-1, ::-1].copy()[::-1, ::-1],
        "strided": wide[::2, ::2],
        "read-only": read_only,
        "memory-mapped": np.load(stored, mmap_mode="r"),
        "byte-swapped": MATRIX.astype(">f8"),
        "matrix list": MATRIX.tolist(),
        "foreign": Foreign(),
        "subclass": MATRIX.view(np.matrix) if hasattr(np, "matrix") else MATRIX,
        "torch": torch.tensor(MATRIX),
        "torch grad": torch.tensor(MATRIX, requires_grad=True),
        "torch transposed": torch.tensor(MATRIX.T.copy()).T,
        "torch parameter": torch.nn.Parameter(torch.tensor(MATRIX)),
    }


def test_every_kind_of_array_gives_the_same(tmp_path):
    for name, array in numpy_kinds(tmp_path).items():
        s = sp.spectrum(array)
        np.testing.assert_allclose(s.values, sp.spectrum(MATRIX).values, rtol=1e-14, err_msg=name)
        assert s.shape == (6, 4), name
        assert s.input_dtype.lstrip(">") in {"float64", "f8"}, name
        for reading in READINGS.values():
            assert reading(array) == pytest.approx(reading(MATRIX), rel=1e-12), name


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@each_reading
def test_numpy_floats_equal_float64_of_the_rounded_input(dtype, reading):
    rounded = MATRIX.astype(dtype)
    found = reading(rounded)
    if reading in (READINGS["numerical_rank"], READINGS["spectral_entropy 2"]):  # read the tolerance of the dtype
        s = sp.Spectrum.from_values(
            np.linalg.svd(rounded.astype(float), compute_uv=False), shape=(6, 4), input_dtype=dtype
        )
        assert found == pytest.approx(reading(s), rel=1e-12)
    else:
        assert found == pytest.approx(reading(rounded.astype(np.float64)), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_torch_floats_equal_float64_of_the_rounded_input(dtype):
    rounded = torch.tensor(MATRIX).to(getattr(torch, dtype))
    wide = rounded.to(torch.float64).numpy()
    s = sp.spectrum(rounded)
    assert s.input_dtype == dtype
    np.testing.assert_allclose(s.values, sp.spectrum(wide).values, rtol=1e-14)
    for name, reading in READINGS.items():
        if name not in {"numerical_rank", "spectral_entropy 2"}:
            assert reading(rounded) == pytest.approx(reading(wide), rel=1e-12), name


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint64", "bool"])
def test_integers_and_booleans_count_as_float64(dtype):
    whole = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    as_torch = torch.tensor(whole) if dtype not in {"uint64"} else whole
    for array in (whole, as_torch):
        s = sp.spectrum(array)
        assert s.input_dtype == dtype
        np.testing.assert_allclose(s.values, np.linalg.svd(whole.astype(float), compute_uv=False), atol=1e-14)
        for name, reading in READINGS.items():
            assert reading(array) == pytest.approx(reading(whole.astype(float)), rel=1e-12), name


@pytest.mark.parametrize("method", ["auto", "svd", "qr_svd", "gram"])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_complex_matrices(method, dtype, shape):
    rng = np.random.default_rng(5)
    matrix = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    truth = oracle.singular_values(matrix)
    for array in (matrix, torch.tensor(matrix)):
        s = sp.spectrum(array, method=method)
        assert s.values.dtype == np.float64
        assert oracle.error_ratio(s.values, s.error_bound, truth) <= 1
        assert s.input_dtype == dtype
    assert sp.effective_rank(matrix) == pytest.approx(oracle.effective_rank(truth), rel=1e-12)
    assert sp.numerical_rank(np.diag([1.0, 1e-9]).astype(dtype)) == (2 if dtype == "complex128" else 1)
    assert sp.spectrum(matrix * 1e-300 if dtype == "complex128" else matrix).frobenius > 0


def test_conjugated_views_of_complex_tensors():
    matrix = torch.tensor([[1 + 2j, 3.0], [0.5j, -1.0]], dtype=torch.complex128)
    np.testing.assert_allclose(sp.singular_values(matrix.conj().T), sp.singular_values(matrix), rtol=1e-14)


# --- nothing is changed, nothing is shared -----------------------------------------------------------------


@each_entry
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 5), (5, 1), (3, 2, 4, 5)])
def test_input_is_not_changed(entry, order, shape):
    given_array = np.asarray(np.random.default_rng(0).standard_normal(shape), order=order)
    before = given_array.copy()
    entry(given_array)
    np.testing.assert_array_equal(given_array, before)


@pytest.mark.parametrize("method", ["svd", "qr_svd", "gram", "topk"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 3)])
def test_values_share_no_memory_with_the_input(method, shape):
    matrix = np.abs(np.random.default_rng(0).standard_normal(shape))
    tensor = torch.tensor(matrix)
    for array, raw in ((matrix, matrix), (tensor, tensor.numpy())):
        before = raw.copy()
        options = {"k": 1} if method == "topk" else {}
        s = sp.spectrum(array, method=method, **options)
        assert not np.shares_memory(s.values, raw)
        kept = s.values.copy()
        np.testing.assert_array_equal(raw, before)
        raw *= -3
        np.testing.assert_array_equal(s.values, kept)
        with pytest.raises(ValueError, match="read-only"):
            s.values[0] = 1.0


def test_from_values_copies():
    values = np.array([3.0, 2.0, 1.0])
    s = sp.Spectrum.from_values(values)
    assert not np.shares_memory(s.values, values)
    values[:] = 0
    assert s.values.tolist() == [3.0, 2.0, 1.0]
    assert values.flags.writeable


def test_singular_values_may_be_kept_by_the_caller():
    s = sp.spectrum(MATRIX)
    found = sp.singular_values(s)
    assert found.dtype == np.float64
    if found.flags.writeable:
        found[:] = 0
        assert s.values[0] > 0


# --- batches -------------------------------------------------------------------------------------------------


@each_reading
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_batches_equal_loops(reading, backend):
    batch = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    batch[0, 1] = 0
    batch[1, 0] *= 1e-200
    batch[1, 1] = np.outer(np.arange(5), np.arange(4))
    batch[1, 2] *= 1e250
    found = reading(torch.tensor(batch) if backend == "torch" else batch)
    assert isinstance(found, np.ndarray)
    assert found.shape == (2, 3)
    looped = np.array([[reading(batch[i, j]) for j in range(3)] for i in range(2)])
    np.testing.assert_allclose(found, looped, rtol=1e-11)
    assert found.dtype == np.float64
    name = next(key for key, value in READINGS.items() if value is reading)
    if name in COUNTS:
        assert np.all(found == np.round(found))


@pytest.mark.parametrize("method", ["svd", "qr_svd", "gram"])
@pytest.mark.parametrize("shape", [(4, 2, 3, 5), (1, 5, 3), (3, 1, 1)])
def test_batched_spectra_equal_loops(method, shape):
    batch = np.random.default_rng(2).standard_normal(shape)
    s = sp.spectrum(batch, method=method)
    assert s.method == method
    assert s.shape == shape[-2:]
    assert s.values.shape == (*shape[:-2], min(shape[-2:]))
    assert np.shape(s.error_bound) == np.shape(s.frobenius) == shape[:-2]
    for index in np.ndindex(shape[:-2]):
        one = sp.spectrum(batch[index], method=method)
        np.testing.assert_allclose(s.values[index], one.values, rtol=1e-12)
        assert s.error_bound[index] == pytest.approx(one.error_bound, rel=1e-12)
        assert s.frobenius[index] == pytest.approx(one.frobenius, rel=1e-14)


def test_batched_readings_of_a_batched_spectrum():
    batch = np.random.default_rng(4).standard_normal((3, 6, 4))
    s = sp.spectrum(batch)
    for reading in READINGS.values():
        np.testing.assert_allclose(reading(s), reading(batch), rtol=1e-12)
    np.testing.assert_allclose(sp.singular_values(batch), s.values)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_batched_counts_against_the_definition(seed, size):
    batch = np.random.default_rng(seed).integers(-2, 3, (size, 4, 3)).astype(float)
    batch[0] *= 10.0 ** ((seed % 7) * 40 - 120)
    s = sp.spectrum(batch)
    for i in range(size):
        values = s.values[i]
        assert s.numerical_rank()[i] == oracle.numerical_rank(values, (4, 3))
        assert s.certified_rank(0.5)[i] == oracle.certified_rank(values, 0.5, s.error_bound[i])
        for rank in range(4):
            assert s.distance_to_rank(rank)[i] == pytest.approx(float(oracle.tail(values, rank)), rel=1e-12)


# --- refusals --------------------------------------------------------------------------------------------------


@each_entry
@pytest.mark.parametrize(
    ("bad", "shape"),
    [
        (np.ones(7), "(7,)"),
        ([1.0, 2.0], "(2,)"),
        (np.float64(3), "()"),
        (3.0, "()"),
        (torch.ones(7), "(7,)"),
        (torch.tensor(1.0), "()"),
    ],
)
def test_fewer_than_two_axes(entry, bad, shape):
    with pytest.raises(ValueError, match=re.escape(f"expected a matrix, got shape {shape}")):
        entry(bad)


@each_entry
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0, 3, 3), (2, 0, 3)])
def test_empty_arrays(entry, shape):
    with pytest.raises(ValueError, match=r"empty.*" + re.escape(str(shape))):
        entry(np.zeros(shape))


@each_entry
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("backend", ["numpy", "float32", "torch", "bfloat16"])
def test_non_finite_entries_are_counted_and_placed(entry, poison, backend):
    matrix = np.ones((3, 4))
    matrix[1, 2] = matrix[2, 0] = matrix[2, 3] = poison
    array = {
        "numpy": matrix,
        "float32": matrix.astype(np.float32),
        "torch": torch.tensor(matrix),
        "bfloat16": torch.tensor(matrix).bfloat16(),
    }[backend]
    with pytest.raises(ValueError, match=r"3 non-finite entries.*index \(1, 2\)"):
        entry(array)


def test_one_non_finite_entry_in_a_batch():
    batch = np.ones((2, 3, 2, 2))
    batch[1, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 non-finite entry.*index \(1, 0, 1, 1\)"):
        sp.effective_rank(batch)


@each_entry
@pytest.mark.parametrize(
    "bad",
    [
        np.array([[object(), 1], [2, 3]], dtype=object),
        np.array([["a", "b"]]),
        np.array([["2020-01-01"]], dtype="datetime64[D]"),
        np.ma.masked_array(np.ones((2, 2)), mask=[[0, 1], [0, 0]]),
        "text",
        b"bytes",
        None,
        {"a": 1},
        [["a", "b"], ["c", "d"]],
        object(),
        np.zeros((2, 2), dtype=[("x", float)]),
        lambda: None,
        torch.ones(2, 2).to_sparse(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_array_of_numbers(entry, bad):
    with pytest.raises((TypeError, ValueError), match=r"`[a-z]+`"):
        entry(bad)


@each_entry
def test_ragged_and_sparse(entry):
    import scipy.sparse

    with pytest.raises(ValueError, match="different lengths"):
        entry([[1.0, 2.0], [3.0]])
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        with pytest.raises(TypeError, match="toarray"):
            entry(kind(np.eye(3)))


@each_entry
def test_meta_tensors_and_impossible_sizes(entry):
    with pytest.raises(ValueError, match="meta"):
        entry(torch.empty(3, 3, device="meta"))
    with pytest.raises(ValueError, match="GB"):
        entry(np.broadcast_to(np.float64(1), (10**7, 10**7)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda a: sp.spectral_entropy(a, order=-1), ValueError, "order"),
        (lambda a: sp.spectral_entropy(a, order=-1e-9), ValueError, "order"),
        (lambda a: sp.spectral_entropy(a, order=math.nan), ValueError, "order"),
        (lambda a: sp.spectral_entropy(a, order="two"), TypeError, "order"),
        (lambda a: sp.spectral_entropy(a, normalize=1), TypeError, "normalize"),
        (lambda a: sp.schatten_norm(a, 0), ValueError, "p"),
        (lambda a: sp.schatten_norm(a, -1.5), ValueError, "p"),
        (lambda a: sp.schatten_norm(a, math.nan), ValueError, "p"),
        (lambda a: sp.schatten_norm(a, "nuclear"), ValueError, "nuc.*fro.*spec"),
        (lambda a: sp.schatten_norm(a, None), TypeError, "p"),
        (lambda a: sp.distance_to_rank(a, -1), ValueError, "rank"),
        (lambda a: sp.distance_to_rank(a, 5), ValueError, "rank"),
        (lambda a: sp.distance_to_rank(a, 1.0), TypeError, "rank"),
        (lambda a: sp.distance_to_rank(a, True), TypeError, "rank"),
        (lambda a: sp.eps_rank(a, -1e-300), ValueError, "eps"),
        (lambda a: sp.eps_rank(a, math.nan), ValueError, "eps"),
        (lambda a: sp.eps_rank(a, "0.1"), TypeError, "eps"),
        (lambda a: sp.numerical_rank(a, rtol=-0.1), ValueError, "rtol"),
        (lambda a: sp.numerical_rank(a, atol=-0.1), ValueError, "atol"),
        (lambda a: sp.numerical_rank(a, rtol=math.nan), ValueError, "rtol"),
        (lambda a: sp.numerical_rank(a, rtol="x"), TypeError, "rtol"),
        (lambda a: sp.certified_rank(a, -1.0), ValueError, "error_norm"),
        (lambda a: sp.certified_rank(a, math.nan), ValueError, "error_norm"),
        (lambda a: sp.certified_rank(a, "x"), TypeError, "error_norm"),
        (lambda a: sp.effective_rank(a, weights="sigmoid"), ValueError, "'sigma', 'energy'"),
        (lambda a: sp.effective_rank(a, weights=np.ones(4)), TypeError, "weights"),
        (lambda a: sp.spectral_entropy(a, weights="Energy"), ValueError, "'sigma', 'energy'"),
        (lambda a: sp.spectrum(a, method="lanczos"), ValueError, "auto.*svd.*qr_svd.*gram.*topk.*slq"),
        (lambda a: sp.spectrum(a, method="SVD"), ValueError, "'svd'"),
        (lambda a: sp.spectrum(a, method=3), TypeError, "method"),
        (lambda a: sp.spectrum(a, need="all"), ValueError, "rank.*sums.*top"),
        (lambda a: sp.spectrum(a, dtype="float16"), ValueError, "float64.*float32"),
        (lambda a: sp.spectrum(a, method="topk", k=0), ValueError, "k"),
        (lambda a: sp.spectrum(a, method="topk", k=5), ValueError, "k"),
        (lambda a: sp.spectrum(a, method="topk", k=1.5), TypeError, "k"),
        (lambda a: sp.spectrum(a, method="slq", rng=-1), ValueError, "rng"),
        (lambda a: sp.spectrum(a, method="slq", rng="seed"), TypeError, "rng"),
        (lambda a: sp.spectrum(a, method="slq", rng=np.random.RandomState(0)), TypeError, "rng"),
        (lambda a: sp.spectrum(a, method="slq", probes=0), ValueError, "probes"),
        (lambda a: sp.spectrum(a, method="slq", steps=0), ValueError, "steps"),
    ],
)
def test_bad_options_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(MATRIX)


@pytest.mark.parametrize("values", [[], [-1.0], [1.0, math.nan], [math.inf], [[1.0, 2.0], [3.0]], "abc", [1j], None])
def test_from_values_refuses(values):
    with pytest.raises((TypeError, ValueError), match="values"):
        sp.Spectrum.from_values(values)


def test_from_values_checks_its_options():
    with pytest.raises(ValueError, match="shape"):
        sp.Spectrum.from_values([1.0, 2.0], shape=(1, 5))  # cannot hold two values
    with pytest.raises((TypeError, ValueError), match="shape"):
        sp.Spectrum.from_values([1.0, 2.0], shape=(2, 2, 2))
    with pytest.raises(ValueError, match="error_bound"):
        sp.Spectrum.from_values([1.0], error_bound=-1.0)


@pytest.mark.parametrize("name", [n for n in sorted(sp.__all__) if inspect.isfunction(getattr(sp, n))])
def test_unknown_keywords_raise(name):
    function = getattr(sp, name)
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(MATRIX, weigths="energy")


def test_options_are_keyword_only():
    for call in (
        lambda: sp.effective_rank(MATRIX, "energy"),
        lambda: sp.spectral_entropy(MATRIX, "energy"),
        lambda: sp.spectrum(MATRIX, "svd"),
        lambda: sp.numerical_rank(MATRIX, 0.1),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()


@pytest.mark.parametrize("method", ["auto", "svd", "qr_svd", "gram", "topk", "slq"])
@pytest.mark.parametrize("size", [1.0, 1.7e308])
def test_values_beyond_float64_are_never_silent(method, size):
    # The largest value of a full matrix is the side times its entries: 1.7e308 entries cannot be represented.
    matrix = np.full((4, 4), size)
    options = {"k": 2} if method == "topk" else {}
    s, refusal = oracle.attempt(lambda: sp.spectrum(matrix, method=method, **options))
    if refusal:
        assert size > 1
        assert "`matrix`" in refusal
    else:
        assert np.all(np.isfinite(s.values))
        assert np.all(np.isfinite(s.frobenius))
        if method not in {"topk"}:
            assert s.effective_rank() == pytest.approx(1, abs=1e-6)

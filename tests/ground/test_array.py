"""Arrays at the boundary: what comes in, what comes out, what is refused and how."""

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankdiag import _array
from rankdiag._array import as_float64, input_dtype, is_torch, machine_eps, memory_limit, require_finite
from rankdiag.testing._values import hostile_arrays, hostile_objects
from rankdiag.testing.strategies import layouts

MATRIX = np.array([[1.0, -2.5, 3.0], [0.0, 4.0, 1e-3]])
FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool", "longdouble", ">f4", ">i2"])
def test_every_real_dtype_comes_out_as_float64_without_loss(dtype):
    values = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    out = as_float64(values, "m")
    assert out.dtype == np.float64
    assert out.dtype.isnative
    np.testing.assert_array_equal(out, values.astype(np.float64))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "int64", "uint8", "bool"])
def test_every_torch_dtype_comes_out_as_float64_of_the_rounded_values(dtype):
    tensor = torch.tensor([[0.1, 1.0], [3.0, -2.7]]).to(getattr(torch, dtype))
    out = as_float64(tensor, "m")
    assert type(out) is np.ndarray
    assert out.dtype == np.float64
    assert out.tolist() == tensor.double().tolist()


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bit_floats_are_widened(dtype):
    tensor = torch.tensor([0.5, 1.0, 2.0]).to(getattr(torch, dtype))
    assert as_float64(tensor, "m").tolist() == [0.5, 1.0, 2.0]


@given(layouts(MATRIX))
def test_memory_layout_does_not_matter(values):
    np.testing.assert_array_equal(as_float64(values, "m"), MATRIX)


def test_lists_tuples_and_objects_with_an_array_method():
    class Arrayish:
        def __array__(self, dtype=None, copy=None):
            return MATRIX.astype(np.float32)

    np.testing.assert_array_equal(as_float64(MATRIX.tolist(), "m"), MATRIX)
    np.testing.assert_array_equal(as_float64(tuple(map(tuple, MATRIX)), "m"), MATRIX)
    np.testing.assert_array_equal(as_float64(Arrayish(), "m"), MATRIX.astype(np.float32))
    assert as_float64(3, "m").shape == ()


def test_float64_input_is_shared_and_left_alone():
    values = MATRIX.copy()
    assert np.shares_memory(as_float64(values, "m"), values)
    tensor = torch.from_numpy(values.copy())
    assert as_float64(tensor, "m").ctypes.data == tensor.data_ptr()
    as_float64(values.astype(np.float32), "m")[0, 0] = 7.0  # a widened copy belongs to the caller
    assert values[0, 0] == 1.0


def test_gradients_are_left_behind_and_the_mode_is_kept():
    leaf = torch.ones(2, 2, requires_grad=True)
    out = as_float64(leaf * 3, "m")
    assert out.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert torch.is_grad_enabled()
    assert leaf.grad is None


def test_lazy_conjugates_and_negatives_are_resolved():
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert as_float64(z.conj(), "m", allow_complex=True).tolist() == [1 - 2j, 3 + 1j]
    assert as_float64(z.conj().imag, "m").tolist() == [-2.0, 1.0]


def test_complex_comes_out_as_complex128_where_it_is_allowed():
    for value in (np.array([1 + 1j], dtype=np.complex64), torch.tensor([1 + 1j])):
        out = as_float64(value, "m", allow_complex=True)
        assert out.dtype == np.complex128
        with pytest.raises(TypeError, match="`m` must be real"):
            as_float64(value, "m")
    with pytest.raises(ValueError, match="1 non-finite entry"):
        as_float64(np.array([complex(0, np.nan)]), "m", allow_complex=True)


def test_number_of_axes():
    with pytest.raises(ValueError, match=r"`m` must be a matrix with 2 axes.*got shape \(3,\)"):
        as_float64([1.0, 2.0, 3.0], "m", ndim=2, expected="a matrix")
    with pytest.raises(ValueError, match=r"`m` .* at least 3 axes.* got shape \(2, 3\)"):
        as_float64(MATRIX, "m", min_ndim=3)
    assert as_float64(MATRIX, "m", ndim=2, min_ndim=1).shape == (2, 3)


def test_empty_arrays():
    for value in (np.zeros((0, 3)), [], torch.zeros(2, 0)):
        with pytest.raises(ValueError, match="`m` must not be empty"):
            as_float64(value, "m")
        assert as_float64(value, "m", allow_empty=True).size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["numpy", "torch", "bfloat16"])
def test_non_finite_entries_are_counted_and_placed(bad, kind):
    values = np.ones((3, 4))
    values[1, 2] = values[2, 3] = bad
    given_ = values if kind == "numpy" else torch.from_numpy(values)
    if kind == "bfloat16":
        given_ = given_.bfloat16()
    with pytest.raises(ValueError, match=r"`m` has 2 non-finite entries .*first at index \(1, 2\); got shape \(3, 4\)"):
        as_float64(given_, "m")
    assert as_float64(given_, "m", finite=False).shape == (3, 4)


def test_the_finite_test_survives_sums_that_overflow():
    largest = np.finfo(np.float64).max
    for values in (np.full(10, largest), np.full(10, -largest), np.tile([largest, -largest], 100)):
        require_finite(values, "m")
    mixed = np.full(10, largest)
    mixed[7] = np.nan
    with pytest.raises(ValueError, match=r"1 non-finite entry .* index \(7,\)"):
        require_finite(mixed, "m")
    with pytest.raises(ValueError, match="2 non-finite"):
        require_finite(np.array([np.inf, -np.inf, 1.0]), "m")


@given(hnp.arrays(np.float64, st.integers(0, 20), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_the_finite_test_agrees_with_the_definition(values):
    count = sum(not np.isfinite(value) for value in values.tolist())
    if count == 0:
        require_finite(values, "m")
    else:
        with pytest.raises(ValueError, match=f"`m` has {count} non-finite"):
            require_finite(values, "m")


def test_numbers_beyond_float64_are_refused_as_infinite():
    wide = np.array([np.longdouble("1e400")])
    if np.isinf(wide.astype(np.longdouble))[0]:
        pytest.skip("long double is float64 here")
    with pytest.raises(ValueError, match="non-finite"):
        as_float64(wide, "m")


def test_arrays_beyond_memory_are_refused_before_anything_is_allocated():
    side = int((memory_limit() // 4) ** 0.5)
    for value in (np.broadcast_to(1.0, (side, side)), torch.ones(1).expand(side, side)):
        with pytest.raises(ValueError, match=r"`m` of shape .* needs .* GB as float64, more than the .* GB"):
            as_float64(value, "m")


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    physical = memory_limit()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(_array, "_GROUP_LIMITS", (str(limit), str(tmp_path / "absent")))
    limit.write_text("max\n")
    assert memory_limit() >= physical
    limit.write_text("1000000000\n")
    assert memory_limit() == 10**9
    with pytest.raises(ValueError, match=r"more than the 1\.0 GB"):
        as_float64(np.broadcast_to(1.0, (200_000_000,)), "m")
    assert as_float64(np.ones(3), "m").size == 3


def test_small_arrays_are_taken_without_a_look_at_the_limit_and_exactly_the_limit_fits(monkeypatch):
    monkeypatch.setattr(_array, "memory_limit", lambda: pytest.fail("a small array needs no look"))
    assert as_float64(np.ones(3), "m").size == 3
    assert as_float64(np.broadcast_to(1.0, (_array._SMALL // 8,)), "m").size == _array._SMALL // 8
    entries = _array._SMALL // 8 + 1
    monkeypatch.setattr(_array, "memory_limit", lambda: 8 * entries)
    assert as_float64(np.broadcast_to(1.0, (entries,)), "m").size == entries
    with pytest.raises(ValueError, match="`m` of shape"):
        as_float64(np.broadcast_to(1.0, (entries + 1,)), "m")


@pytest.mark.parametrize("value", ["1.0", b"1.0", {"a": 1.0}, {1.0}, frozenset({1.0}), None])
def test_what_is_no_array_at_all_is_called_what_it_is(value):
    with pytest.raises(TypeError, match="`m` must be an array of numbers; got "):
        as_float64(value, "m")


def test_without_the_names_of_this_system_a_default_is_used(monkeypatch):
    monkeypatch.setattr(_array.os, "sysconf", lambda name: -1 if name == "SC_PAGE_SIZE" else int("x"))
    monkeypatch.setattr(_array, "_GROUP_LIMITS", ())
    assert memory_limit() == 2**36


@pytest.mark.parametrize("value", hostile_arrays(), ids=lambda value: value.label)
def test_hostile_arrays_give_numbers_or_an_error_that_names_the_argument(value):
    try:
        out = as_float64(value.make(), "m")
    except (TypeError, ValueError) as error:
        assert "`m`" in str(error)
    else:
        assert out.dtype == np.float64
        assert np.isfinite(out).all()


@pytest.mark.parametrize(
    "value",
    [value for value in hostile_objects() if value.fits is not None and not value.fits & {"array", "int", "float"}],
    ids=lambda value: value.label,
)
def test_objects_that_are_no_numbers_are_refused(value):
    with pytest.raises(TypeError, match="`m`"):
        as_float64(value.make(), "m")


@pytest.mark.parametrize(
    ("label", "kind", "words"),
    [
        ("masked", TypeError, "masked array. Fill or drop"),
        ("a sparse tensor", TypeError, r"Call \.to_dense\(\) first"),
        ("a tensor on the meta device", ValueError, "meta device and has no data"),
        ("a nested tensor", TypeError, "nested"),
        ("a ragged list", ValueError, "rows of different lengths"),
        ("str", TypeError, "must hold numbers"),
        ("dates", TypeError, "must hold numbers"),
        ("objects", TypeError, "must hold numbers"),
        ("an object that fails to become an array", TypeError, "no data today"),
    ],
)
def test_refusals_say_what_to_do(label, kind, words):
    value = next(value for value in hostile_arrays() if value.label == label)
    with pytest.raises(kind, match=words):
        as_float64(value.make(), "m")


def test_sparse_matrices_are_refused_by_name():
    from scipy import sparse

    for value in (sparse.csr_matrix(MATRIX), sparse.coo_array(MATRIX)):
        with pytest.raises(TypeError, match=r"`m` must be a dense array.*toarray"):
            as_float64(value, "m")


def test_tensors_that_torch_itself_cannot_read():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(3)
    with pytest.raises(TypeError, match="`m` must be a tensor with plain data"):
        as_float64(fake, "m")


def test_a_type_of_a_package_that_is_not_loaded_is_never_looked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)

    assert not is_torch(object())
    assert "torch" not in sys.modules
    assert as_float64([1.0], "m").tolist() == [1.0]


def test_input_dtype():
    assert input_dtype(torch.ones(1, dtype=torch.bfloat16)) == "bfloat16"
    assert input_dtype(torch.ones(1)) == "float32"
    assert input_dtype(np.ones(1, dtype=np.float16)) == "float16"
    assert input_dtype([1.0, 2.0]) == "float64"
    assert input_dtype([1, 2]) == str(np.asarray([1, 2]).dtype)
    assert input_dtype(types.SimpleNamespace(dtype="float32")) == "float32"


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"])
def test_machine_eps_is_that_of_torch(name):
    assert machine_eps(name) == torch.finfo(getattr(torch, name)).eps


def test_machine_eps_of_everything_else_is_that_of_float64():
    assert machine_eps("complex64") == np.finfo(np.float32).eps
    for name in ("int8", "int64", "bool", "complex128", "longdouble", "unknown"):
        assert machine_eps(name) == np.finfo(np.float64).eps

"""Hostile values: everything a user may pass by mistake, at the edge of what is legal, or out of malice.

Each value is made afresh on every call, so that one case cannot spoil the next. Values of a package that is not
loaded are left out: nobody can pass an object of a type that does not exist in this process.
"""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import pathlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import memory_limit
from rankdiag._optional import is_loaded

__all__ = ["Hostile", "hostile_arrays", "hostile_objects"]

Group = Literal["shape", "entries", "scale", "dtype", "layout", "size", "sequence", "foreign", "torch", "object"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One value to feed into a parameter.

    Attributes
    ----------
    label : str
        What it is, in a few words.
    make : callable
        Returns a fresh object.
    group : str
        What is special about it: its shape, entries, scale, dtype, layout, size, or the kind of object it is.
    fits : frozenset of str or None
        Kinds of annotation that the value satisfies (``"int"``, ``"str"``, ``"array"``, ...), so that a parameter
        of any other kind must refuse it; None where no judgement is made.
    """

    label: str
    make: Callable[[], Any]
    group: Group
    fits: frozenset[str] | None = None


_ARRAY = frozenset({"array", "iterable"})
_LIKE_NUMBERS = {"no axes", "one entry", "thirty axes", "a tensor with no axes"}  # may pass where a number is asked for


def _matrix(rows: int = 4, columns: int = 3) -> NDArray[np.float64]:
    """Return a matrix without any structure, the same every time."""
    values: NDArray[np.float64] = np.cos(np.arange(1.0, rows * columns + 1.0) ** 2)
    return values.reshape(rows, columns)


def _with(entry: float) -> NDArray[np.float64]:
    values = _matrix()
    values[1, 2] = entry
    return values


def _read_only() -> NDArray[np.float64]:
    values = _matrix()
    values.flags.writeable = False
    return values


def _mapped() -> NDArray[np.float64]:
    with tempfile.TemporaryFile() as stream:
        mapped = np.memmap(stream, dtype=np.float64, mode="w+", shape=(4, 3))
    mapped[:] = _matrix()
    return mapped


def _huge(shape: Literal["square", "tall", "long"]) -> NDArray[np.float64]:
    """Return an array of no size whose copy would need a quarter more than the memory of this machine."""
    entries = memory_limit() // 8 * 5 // 4
    side = int(entries**0.5)
    shapes = {"square": (side, side), "tall": (entries // 3, 3), "long": (entries,)}
    return np.broadcast_to(np.float64(1.0), shapes[shape])


class _BadArray:
    """An object that claims to be an array and fails to become one."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no data today")


class _BadShape:
    """An object whose attributes raise."""

    @property
    def shape(self) -> Any:
        raise RuntimeError("no shape today")

    dtype = ndim = shape


def _cyclic() -> list[Any]:
    values: list[Any] = [1.0]
    values.append(values)
    return values


def _arrays() -> dict[Group, dict[str, Callable[[], Any]]]:
    tiny = np.finfo(np.float64).smallest_subnormal
    return {
        "shape": {
            "an empty vector": lambda: np.zeros(0),
            "no rows": lambda: np.zeros((0, 3)),
            "no columns": lambda: np.zeros((3, 0)),
            "an empty batch": lambda: np.zeros((0, 3, 3)),
            "no axes": lambda: np.array(2.0),
            "one axis": lambda: np.arange(1.0, 6.0),
            "three axes": lambda: np.cos(np.arange(1.0, 25.0)).reshape(2, 4, 3),
            "four axes": lambda: np.cos(np.arange(1.0, 17.0)).reshape(2, 2, 2, 2),
            "thirty axes": lambda: np.ones((1,) * 30),
            "one entry": lambda: np.array([[2.0]]),
            "one row": lambda: _matrix(1, 5),
            "one column": lambda: _matrix(5, 1),
            "length-1 axes": lambda: _matrix().reshape(1, 4, 1, 3, 1),
            "square": lambda: _matrix(4, 4),
            "wide": lambda: _matrix(2, 30),
            "tall": lambda: _matrix(30, 2),
        },
        "entries": {
            "one NaN": lambda: _with(np.nan),
            "plus infinity": lambda: _with(np.inf),
            "minus infinity": lambda: _with(-np.inf),
            "all NaN": lambda: np.full((4, 3), np.nan),
            "both infinities": lambda: np.array([[np.inf, -np.inf], [1.0, 2.0]]),
            "a NaN in a vector": lambda: np.array([1.0, np.nan, 0.5]),
            "all zeros": lambda: np.zeros((4, 3)),
            "minus zeros": lambda: -np.zeros((4, 3)),
            "constant": lambda: np.full((4, 3), 0.1),
            "identity": lambda: np.eye(4),
            "negative": lambda: -np.abs(_matrix()),
            "a negative vector": lambda: -np.arange(1.0, 5.0),
            "zeros in a vector": lambda: np.zeros(4),
            "an ascending vector": lambda: np.arange(4.0),
            "rank one": lambda: np.outer(np.arange(1.0, 5.0), np.arange(1.0, 4.0)),
            "one zero row": lambda: _matrix() * np.array([[1.0], [0.0], [1.0], [1.0]]),
            "repeated columns": lambda: np.repeat(_matrix(4, 1), 3, axis=1),
        },
        "scale": {
            "subnormal": lambda: np.full((4, 3), tiny) * np.arange(1.0, 13.0).reshape(4, 3),
            "1e-300": lambda: _matrix() * 1e-300,
            "1e-160": lambda: _matrix() * 1e-160,
            "1e160": lambda: _matrix() * 1e160,
            "1e300": lambda: _matrix() * 1e300,
            "the largest float": lambda: np.full((4, 3), np.finfo(np.float64).max),
            "1e-300 beside 1e300": lambda: np.array([[1e300, 0.0], [0.0, 1e-300]]),
            "a vector of both scales": lambda: np.array([1e300, 1.0, 1e-300, tiny]),
        },
        "dtype": {
            "float16": lambda: _matrix().astype(np.float16),
            "float32": lambda: _matrix().astype(np.float32),
            "long double": lambda: _matrix().astype(np.longdouble),
            "long double beyond float64": lambda: _matrix().astype(np.longdouble) * np.longdouble("1e400"),
            "big-endian": lambda: _matrix().astype(">f8"),
            "int8": lambda: np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
            "int64": lambda: np.arange(12).reshape(4, 3),
            "the largest int64": lambda: np.full((4, 3), np.iinfo(np.int64).max),
            "uint8": lambda: np.arange(250, 262).astype(np.uint8).reshape(4, 3),
            "bool": lambda: np.eye(4, 3) == 1,
            "complex": lambda: _matrix() + 1j * _matrix()[::-1],
            "complex64 without imaginary part": lambda: _matrix().astype(np.complex64),
            "objects that are numbers": lambda: _matrix().astype(object),
            "objects": lambda: np.array([[None, {}], [(), "x"]], dtype=object),
            "str": lambda: np.array([["1.0", "2.0"], ["x", ""]]),
            "bytes": lambda: np.array([b"1", b"2"]),
            "dates": lambda: np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"),
            "durations": lambda: np.arange(4).reshape(2, 2).astype("timedelta64[s]"),
            "records": lambda: np.zeros((2, 2), dtype=[("x", np.float64), ("y", np.int32)]),
        },
        "layout": {
            "Fortran order": lambda: np.asfortranarray(_matrix()),
            "every other entry": lambda: _matrix(8, 6)[::2, ::2],
            "negative strides": lambda: _matrix()[::-1, ::-1],
            "transposed": lambda: _matrix(3, 4).T,
            "read-only": _read_only,
            "rows that share memory": lambda: np.broadcast_to(np.arange(1.0, 4.0), (4, 3)),
            "overlapping windows": lambda: np.lib.stride_tricks.sliding_window_view(np.arange(1.0, 7.0), 3),
            "not aligned": lambda: np.frombuffer(b"\0" + _matrix().tobytes(), dtype=np.float64, offset=1).reshape(4, 3),
            "memory-mapped": _mapped,
            "masked": lambda: np.ma.masked_array(_matrix(), mask=_matrix() > 0),
            "masked nowhere": lambda: np.ma.masked_array(_matrix()),
            "a sub-class": lambda: _matrix().view(np.recarray),
        },
        "size": {
            "a square beyond memory": lambda: _huge("square"),
            "rows beyond memory": lambda: _huge("tall"),
            "a vector beyond memory": lambda: _huge("long"),
        },
        "sequence": {
            "nested lists": lambda: _matrix().tolist(),
            "nested tuples": lambda: tuple(map(tuple, _matrix().tolist())),
            "a list of vectors": lambda: list(_matrix()),
            "a ragged list": lambda: [[1.0, 2.0], [3.0]],
            "an empty list": list,
            "an empty nested list": lambda: [[]],
            "a list with None": lambda: [[1.0, None], [2.0, 3.0]],
            "a list of strings": lambda: [["a", "b"], ["c", "d"]],
            "a list of objects": lambda: [object(), object()],
            "a list that holds itself": _cyclic,
            "a list with a huge integer": lambda: [[10**400, 1], [2, 3]],
            "a list of booleans": lambda: [True, False],
        },
        "foreign": {
            "an array of the standard library": lambda: array.array("d", [3.0, 2.0, 1.0]),
            "a memory view": lambda: memoryview(array.array("d", [3.0, 2.0, 1.0])),
            "an object that fails to become an array": _BadArray,
            "an object whose attributes raise": _BadShape,
        },
    }


def _scipy() -> dict[str, Callable[[], Any]]:
    from scipy import sparse

    return {
        "a sparse matrix": lambda: sparse.csr_matrix(_matrix()),
        "a sparse array": lambda: sparse.coo_array(_matrix()),
    }


def _pandas() -> dict[str, Callable[[], Any]]:
    pandas = sys.modules["pandas"]
    return {
        "a data frame": lambda: pandas.DataFrame(_matrix()),
        "a series with a gap": lambda: pandas.Series([1.0, None, 2.0]),
    }


def _torch() -> dict[str, Callable[[], Any]]:
    import torch

    def tensor() -> torch.Tensor:
        return torch.from_numpy(_matrix())

    def huge() -> torch.Tensor:
        return torch.ones(1, dtype=torch.float64).expand(_huge("square").shape)

    def nested() -> torch.Tensor:
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)

    def used() -> torch.Tensor:
        leaf = tensor().requires_grad_()
        return leaf * 2.0

    def inference() -> torch.Tensor:
        with torch.inference_mode():
            return tensor() * 2.0

    plain: dict[str, Callable[[], Any]] = {
        "a tensor of float64": tensor,
        "a tensor of float32": lambda: tensor().float(),
        "a tensor of bfloat16": lambda: tensor().bfloat16(),
        "a tensor of float16": lambda: tensor().half(),
        "a tensor of float8": lambda: tensor().to(torch.float8_e4m3fn),
        "a tensor of integers": lambda: torch.arange(12).reshape(4, 3),
        "a tensor of booleans": lambda: tensor() > 0,
        "a complex tensor": lambda: torch.complex(tensor(), tensor()),
        "a conjugate view": lambda: torch.complex(tensor(), tensor()).conj(),
        "a negative view": lambda: torch.complex(tensor(), tensor()).conj().imag,
        "a tensor with gradient": lambda: tensor().requires_grad_(),
        "a tensor inside a graph": used,
        "an inference tensor": inference,
        "a parameter": lambda: torch.nn.Parameter(tensor()),
        "a tensor on the meta device": lambda: torch.empty(4, 3, device="meta"),
        "a sparse tensor": lambda: tensor().to_sparse(),
        "a nested tensor": nested,
        "a transposed tensor": lambda: tensor().T,
        "a tensor with a gap between entries": lambda: torch.from_numpy(_matrix(8, 6))[::2, ::2],
        "an expanded tensor": lambda: torch.arange(1.0, 4.0).expand(4, 3),
        "a tensor with no axes": lambda: torch.tensor(2.0),
        "an empty tensor": lambda: torch.zeros(0, 3),
        "a tensor with NaN": lambda: torch.from_numpy(_with(np.nan)),
        "a bfloat16 tensor with infinity": lambda: torch.from_numpy(_with(np.inf)).bfloat16(),
        "a tensor of three axes": lambda: torch.ones(2, 4, 3),
        "a tensor beyond memory": huge,
    }
    return plain


def hostile_arrays() -> tuple[Hostile, ...]:
    """Return array-like values of every bad and extreme kind, for the packages that are loaded.

    Returns
    -------
    tuple of Hostile
        In a fixed order.
    """
    groups: dict[Group, dict[str, Callable[[], Any]]] = _arrays()
    if is_loaded("scipy.sparse"):
        groups["foreign"] |= _scipy()
    if is_loaded("pandas"):
        groups["foreign"] |= _pandas()
    if is_loaded("torch"):
        groups["torch"] = _torch()
    return tuple(
        Hostile(label=label, make=make, group=group, fits=None if label in _LIKE_NUMBERS else _ARRAY)
        for group, members in groups.items()
        for label, make in members.items()
    )


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


def _object(label: str, make: Callable[[], Any], fits: str | None) -> Hostile:
    kinds = None if fits is None else frozenset(fits.split())
    return Hostile(label=label, make=make, group="object", fits=kinds)


def hostile_objects() -> tuple[Hostile, ...]:
    """Return numbers, texts and other objects of every bad and extreme kind.

    Returns
    -------
    tuple of Hostile
        In a fixed order; `Hostile.fits` says for which annotations each is of the right type.
    """
    numbers: dict[str, tuple[Any, str | None]] = {
        "None": (None, "none"),
        "True": (True, None),
        "False": (False, None),
        "0": (0, "int float"),
        "1": (1, "int float"),
        "-1": (-1, "int float"),
        "7": (7, "int float"),
        "2**31": (2**31, "int float"),
        "2**63": (2**63, "int float"),
        "10**5000": (10**5000, "int float"),
        "0.0": (0.0, "float"),
        "-0.0": (-0.0, "float"),
        "0.5": (0.5, "float"),
        "-0.5": (-0.5, "float"),
        "1.5": (1.5, "float"),
        "1e-320": (1e-320, "float"),
        "1e300": (1e300, "float"),
        "NaN": (float("nan"), "float"),
        "infinity": (float("inf"), "float"),
        "minus infinity": (float("-inf"), "float"),
        "a complex number": (1 + 2j, "complex"),
        "a numpy float32": (np.float32(0.5), "float"),
        "a numpy int64": (np.int64(2), "int float"),
        "a numpy bool": (np.True_, None),
        "a fraction": (fractions.Fraction(1, 3), None),
        "a decimal": (decimal.Decimal("0.5"), None),
        "an empty text": ("", "str path"),
        "a text that is no option": ("no such option", "str path"),
        "a text with a zero byte": ("a\0b", "str path"),
        "half a surrogate pair": ("\ud800", "str path"),
        "a very long text": ("x" * 5000, "str path"),
        "bytes": (b"svd", "bytes path"),
        "a date": (datetime.date(2026, 1, 1), ""),
        "a relative path": (pathlib.PurePosixPath("no/such/place"), "path"),
        "a class": (int, "callable"),
        "a module": (np, ""),
        "Ellipsis": (..., ""),
        "NotImplemented": (NotImplemented, ""),
    }
    fresh: dict[str, tuple[Callable[[], Any], str | None]] = {
        "an empty list": (list, "array iterable"),
        "a list of numbers": (lambda: [1.0, 2.0], "array iterable"),
        "an empty tuple": (tuple, "array iterable"),
        "an empty dict": (dict, "mapping iterable"),
        "a dict": (lambda: {"a": 1.0}, "mapping iterable"),
        "a dict with other keys": (lambda: {1: None}, "mapping iterable"),
        "a set": (lambda: {1.0, 2.0}, "iterable"),
        "a range": (lambda: range(3), None),
        "a generator": (lambda: (x for x in (1.0, 2.0)), "iterable"),
        "a function": (lambda: lambda: None, "callable"),
        "an object": (object, ""),
    }
    return (
        *(_object(label, _always(value), fits) for label, (value, fits) in numbers.items()),
        *(_object(label, make, fits) for label, (make, fits) in fresh.items()),
    )

"""Arrays: everything array-like enters through here once and comes out as float64 numpy.

Accepted are numpy arrays (any real dtype, any memory order, read-only, memory-mapped), torch tensors (any
device, any float dtype, with or without gradient), nested lists, and anything with ``__array__``. Refused,
by name and with what to do, are objects, strings, dates, ragged lists, masked and sparse arrays, tensors
without data, non-finite entries, and arrays whose float64 copy would not fit into this machine's memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._optional import is_loaded
from rankdiag._validate import describe

__all__ = [
    "as_float64",
    "histogram",
    "input_dtype",
    "is_torch",
    "machine_eps",
    "memory_limit",
    "out_of_torch",
    "refuse_size",
    "require_finite",
]

_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_LISTED = 8  # machine words of an integer in a list
_SMALL = 1 << 28  # bytes that need no look at the limit
_EXTENSION_FLOATS = {"bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"}


def is_torch(x: object) -> bool:
    """Whether `x` is a torch tensor; torch is not imported to find out."""
    if not is_loaded("torch"):
        return False
    import torch

    return isinstance(x, torch.Tensor)


def input_dtype(x: Any) -> str:
    """Name of the dtype that came in, ``"bfloat16"`` for a torch tensor of that kind."""
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        dtype = np.asarray(x).dtype
    return str(dtype).removeprefix("torch.")


def machine_eps(dtype: str) -> float:
    """Distance from 1 to the next number of an input dtype, by name; integers count as float64.

    Parameters
    ----------
    dtype : str
        Name as `input_dtype` gives it.

    Returns
    -------
    float
        2^-7 for bfloat16, 2^-10 for float16, 2^-23 for float32 and complex64, 2^-52 for everything wider.
    """
    special = {
        "bfloat16": 2.0**-7,
        "float16": 2.0**-10,
        "half": 2.0**-10,
        "float32": 2.0**-23,
        "complex64": 2.0**-23,
        "complex32": 2.0**-10,
        "float8_e4m3fn": 2.0**-3,
        "float8_e4m3fnuz": 2.0**-3,
        "float8_e5m2": 2.0**-2,
        "float8_e5m2fnuz": 2.0**-2,
    }
    return special.get(dtype, 2.0**-52)


def memory_limit() -> int:
    """Bytes of memory this process may hope for; larger requests are refused, not tried.

    The physical memory of the machine, or the limit of the control group (container, batch job) if that is lower.
    """
    try:
        limit = int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):  # systems without these names
        limit = 1 << 36
    for path in _GROUP_LIMITS:
        try:
            limit = min(limit, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return limit


def as_float64(
    x: Any,
    name: str,
    *,
    ndim: int | None = None,
    min_ndim: int = 0,
    allow_complex: bool = False,
    allow_empty: bool = False,
    finite: bool = True,
    expected: str = "an array of numbers",
) -> NDArray[Any]:
    """Bring any array-like to a float64 (or complex128) numpy array.

    The result may share memory with the input, so callers must not write into it.

    Parameters
    ----------
    x : array-like or torch.Tensor
        What the user passed.
    name : str
        Name of the argument in messages.
    ndim : int, optional
        Exact number of axes required.
    min_ndim : int
        Smallest number of axes.
    allow_complex : bool
        Whether complex entries are legal; they come out as complex128.
    allow_empty : bool
        Whether an axis of length 0 is legal.
    finite : bool
        Whether NaN and infinity are refused.
    expected : str
        What to call a legal value in messages.

    Returns
    -------
    ndarray of float64 or complex128
        Same shape as `x`.

    Raises
    ------
    TypeError
        Wrong kind of object or dtype.
    ValueError
        Wrong shape, non-finite entries, no data behind a tensor, or too large for this machine.
    """
    array = _from_torch(x, name, allow_complex) if is_torch(x) else _from_numpy(x, name, allow_complex, expected)
    shape = array.shape
    if ndim is not None and len(shape) != ndim:
        raise ValueError(f"`{name}` must be {expected} with {ndim} axes; expected {expected}, got shape {shape}")
    if len(shape) < min_ndim:
        raise ValueError(
            f"`{name}` must be {expected} with at least {min_ndim} axes; expected {expected}, got shape {shape}"
        )
    if not allow_empty and 0 in shape:
        raise ValueError(f"`{name}` must not be empty; got shape {shape}")
    if finite:
        require_finite(array, name)
    return array


def out_of_torch(x: Any, name: str, expected: str) -> Any:
    """Return a torch tensor as a numpy array of its own dtype, and anything else as it is; for ids, masks and names.

    Parameters
    ----------
    x : object
        What the user passed.
    name : str
        Name of the argument in messages.
    expected : str
        What to call a legal value in messages.

    Returns
    -------
    object
        A numpy array if a tensor came in, which may share its memory.

    Raises
    ------
    TypeError
        If the tensor has no plain data: nested, sparse, lazy, of a dtype that numpy lacks. If it is a masked array,
        whose mask would be lost, or a scipy sparse matrix, whose rows are no lists.
    ValueError
        If an array has more entries than a list of them could hold in this machine's memory.
    """
    if is_torch(x):
        try:
            x = x.detach().cpu().numpy()
        except Exception as error:  # torch has an error of its own for each
            raise TypeError(f"`{name}` must be {expected}; got {describe(x)}, which has no plain data") from error
    _refuse_masked_and_sparse(x, name, expected)
    if isinstance(x, np.ndarray) and x.dtype.itemsize:
        refuse_size(_LISTED * x.size if x.dtype != bool else x.size, name, x.shape)
    return x


def _refuse_masked_and_sparse(x: Any, name: str, expected: str) -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be {expected}; got a masked array. Fill or drop the masked entries first")
    if is_loaded("scipy.sparse"):
        import scipy.sparse

        if scipy.sparse.issparse(x):
            raise TypeError(f"`{name}` must be {expected}; got {describe(x)}. Call .toarray() first")


def refuse_size(size: int, name: str, shape: tuple[int, ...]) -> None:
    """Refuse an array of `size` entries whose float64 copy would not fit into this machine's memory.

    Raises
    ------
    ValueError
        If it would not; the message names the argument, its shape and both sizes.
    """
    need = 8 * size
    if need <= _SMALL:
        return
    have = memory_limit()
    if need > have:
        raise ValueError(
            f"`{name}` of shape {shape} needs {need / 1e9:.1f} GB as float64, more than the {have / 1e9:.1f} GB "
            "of this machine; pass it in parts"
        )


def _from_numpy(x: Any, name: str, allow_complex: bool, expected: str) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"`{name}` must be a plain array; got a masked array. Fill or drop the masked entries first")
    if is_loaded("scipy.sparse"):
        import scipy.sparse

        if scipy.sparse.issparse(x):
            raise TypeError(f"`{name}` must be a dense array; got {describe(x)}. Call .toarray() first")
    if isinstance(x, (str, bytes, dict, set, frozenset)) or x is None:
        raise TypeError(f"`{name}` must be {expected}; got {describe(x)}")
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"`{name}` must be {expected}; got rows of different lengths") from None
    except Exception as error:  # __array__ of a foreign type may raise anything
        raise TypeError(
            f"`{name}` must be {expected}; got {describe(x)}, which numpy cannot read ({type(error).__name__}: {error})"
        ) from error
    kind = array.dtype.kind
    if kind == "c":
        if not allow_complex:
            raise TypeError(f"`{name}` must be real; got dtype {array.dtype}")
        target: type[Any] = np.complex128
    elif kind in "biuf" or array.dtype.name in _EXTENSION_FLOATS:
        target = np.float64
    else:
        raise TypeError(f"`{name}` must hold numbers; got dtype {array.dtype}")
    refuse_size(array.size, name, array.shape)
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinity and is refused as such
        return array.astype(target, copy=False)


def _from_torch(x: Any, name: str, allow_complex: bool) -> NDArray[Any]:
    import torch

    if x.is_nested:
        raise TypeError(f"`{name}` must be one dense tensor; got a nested tensor. Pass its parts one by one")
    if x.layout != torch.strided:
        raise TypeError(f"`{name}` must be a dense tensor; got layout {x.layout}. Call .to_dense() first")
    shape = tuple(x.shape)
    if x.is_quantized:
        raise TypeError(f"`{name}` must not be quantised; got dtype {x.dtype}. Call .dequantize() first")
    if x.device.type == "meta":
        raise ValueError(
            f"`{name}` is on the meta device and has no data; got shape {shape}. Load the weights, or pass the "
            "path of the checkpoint"
        )
    if x.is_complex() and not allow_complex:
        raise TypeError(f"`{name}` must be real; got dtype {x.dtype}")
    refuse_size(x.numel(), name, shape)
    target = torch.complex128 if x.is_complex() else torch.float64
    try:
        with torch.no_grad():
            array: NDArray[Any] = x.detach().to("cpu").to(target).resolve_conj().resolve_neg().numpy()
    except RuntimeError as error:  # tensors of a tracer, of a transform, of a dtype without a conversion
        raise TypeError(
            f"`{name}` must be a tensor with plain data; got {describe(x)}, which torch cannot read ({error})"
        ) from error
    return array


def require_finite(array: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity, with their number and the place of the first.

    Raises
    ------
    ValueError
        If any entry is not finite.
    """
    if array.size == 0:
        return
    # One pass without a mask: a sum is finite only if nothing poisons it. An overflow of finite entries makes
    # it infinite too, so only then the exact test is made.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()
    if np.isfinite(total):
        return
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count == 0:
        return
    first = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
    if not first:
        raise ValueError(f"`{name}` must be finite; got {float(array)!r}")
    entries = "entry" if count == 1 else "entries"
    raise ValueError(
        f"`{name}` has {count} non-finite {entries} (NaN or infinity), the first at index {first}; got shape "
        f"{array.shape}"
    )


def histogram(values: NDArray[np.float64], bins: int) -> tuple[list[float], list[int]]:
    """Count finite values in bins of equal width, for a plot.

    Parameters
    ----------
    values : ndarray of float64
        Finite, at least one.
    bins : int
        Bins at most; values that differ by rounding alone share one.

    Returns
    -------
    centres : list of float
        Middle of each bin.
    counts : list of int
        How many values lie in it.
    """
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high / 4 - low / 4 <= 16 * bins * np.finfo(np.float64).eps * size:
        return [low / 2 + high / 2], [len(values)]
    counts, edges = np.histogram(values / 4, bins=max(1, min(bins, len(values))))  # a quarter: differences stay finite
    return (2 * (edges[:-1] + edges[1:])).tolist(), counts.tolist()

"""Matrix to singular values by full decompositions: SVD, SVD after QR, and the Gram matrix of the small side.

Every route first scales by a power of two where entries are so large or small that squares would leave float64, which
changes no digit. Error bounds are absolute and hold for every value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EPS32",
    "EPS64",
    "SAFE_EXPONENT",
    "START_SEED",
    "TINY",
    "Decomposition",
    "as_reals",
    "binary_exponent",
    "full_decomposition",
    "gram_bound",
    "in_units",
    "prefers_qr",
    "rescale",
    "sqrt_clipped",
    "svd_bound",
    "tall",
    "to_working",
]

Floats = NDArray[np.float64]
EPS64 = 2.0**-52
EPS32 = 2.0**-23
TINY = 5e-324  # the smallest positive float64: what rounding costs when values are scaled back to denormals

# Start of the random iterations behind plain readings, which must repeat; a number nobody draws matrices with.
START_SEED = 6_148_914_691
# Squares and their sums of entries within these powers of two of 1 stay inside the format, so no scaling is needed.
SAFE_EXPONENT = {"float64": 250, "float32": 30}
_SMALLEST_SIZE = 16  # of the error bound of an SVD
# Rows that one Gram product takes at once; also what its inner sums accumulate before they are added up.
_GRAM_ROWS = 4096
# Depth of the sums inside one BLAS product: the block of the inner dimension that common kernels use.
_GRAM_DEPTH = 512


class Decomposition(NamedTuple):
    """Singular values with what is known about them, before they become a `Spectrum`.

    ``values`` is (..., k); ``bound`` and ``frobenius`` are (...).
    """

    values: Floats
    bound: Floats
    frobenius: Floats
    method: Literal["svd", "qr_svd", "gram", "topk", "slq", "values"]


def as_reals(array: NDArray[Any]) -> NDArray[Any]:
    """Return the entries of every matrix in one row, complex ones as pairs of real numbers."""
    flat = np.ascontiguousarray(array).reshape(*array.shape[:-2], -1)
    return flat.view(np.finfo(flat.dtype).dtype) if flat.dtype.kind == "c" else flat


def binary_exponent(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return e with 2^(e-1) <= largest absolute entry < 2^e over the last two axes; 0 for a zero matrix."""
    if array.dtype.kind == "c":
        parts = as_reals(array)
        size = np.maximum(parts.max(axis=-1), -parts.min(axis=-1))
    else:
        size = np.maximum(array.max(axis=(-2, -1)), -array.min(axis=(-2, -1)))
    exponent: NDArray[np.int64] = np.frexp(size)[1].astype(np.int64)
    return exponent


def rescale(array: NDArray[Any], exponent: Any) -> NDArray[Any]:
    """Multiply by 2^exponent in two steps, either of which float64 can hold."""
    half = np.asarray(exponent) // 2
    out: NDArray[Any] = array * np.ldexp(1.0, half) * np.ldexp(1.0, np.asarray(exponent) - half)
    return out


def to_working(array: NDArray[Any], dtype: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the matrix in the arithmetic asked for, scaled if need be, and the exponent taken out of it."""
    exponent = binary_exponent(array)
    if np.abs(exponent).max() > SAFE_EXPONENT[dtype]:
        array = rescale(array, -exponent[..., None, None])
    else:
        exponent = np.zeros_like(exponent)
    if dtype == "float32":
        array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)
    return array, exponent


def scale_back(values: Floats, exponent: NDArray[np.int64], name: str) -> Floats:
    """Undo `to_working` on singular values.

    Raises
    ------
    ValueError
        If the largest value is beyond float64.
    """
    if not exponent.any():
        return values
    with np.errstate(over="ignore"):
        out: Floats = rescale(values, exponent if values.ndim == exponent.ndim else exponent[..., None])
    if not np.isfinite(out).all():
        raise ValueError(
            f"`{name}` has entries so large that its norm is beyond float64; divide it by a constant first"
        )
    return out


def in_units(found: Decomposition, exponent: NDArray[np.int64], name: str) -> Decomposition:
    """Bring a decomposition of a scaled matrix back to its units; rounding to denormals goes into the bound."""
    if not exponent.any():
        return found
    values, bound, frobenius = (scale_back(x, exponent, name) for x in found[:3])
    return found._replace(values=values, bound=np.where(exponent != 0, bound + TINY, bound), frobenius=frobenius)


def svd_bound(top: Floats, shape: tuple[int, int], eps: float) -> Floats:
    """Return 8 max(m, n, 16) eps s_1: what SVD and QR routes keep to.

    The floor of 16 is LAPACK's stopping rule: it drops off-diagonal entries of the bidiagonal form below 90 eps,
    whatever the size, and clustered values were measured to be off by up to 66 eps s_1.
    """
    bound: Floats = 8.0 * max(*shape, _SMALLEST_SIZE) * eps * top
    return bound


def gram_bound(top: Floats, shape: tuple[int, int], eps: float, updates: int = 1) -> Floats:
    """Return sqrt(d eps) s_1: d is the small side, but at least the depth of the sums that made the Gram matrix.

    That depth is what one BLAS product adds up in a row plus the number of such partial sums, or the number of blocks.
    """
    long = max(shape)
    depth = max(min(shape), min(long, _GRAM_DEPTH) + (long - 1) // _GRAM_DEPTH, updates)
    bound: Floats = np.sqrt(depth * eps) * top
    return bound


def sqrt_clipped(eigenvalues: NDArray[Any]) -> Floats:
    """Turn ascending Gram eigenvalues into descending singular values; negative noise becomes 0."""
    flipped = eigenvalues[..., ::-1].astype(np.float64)
    out: Floats = np.sqrt(np.maximum(flipped, 0.0))
    return out


def prefers_qr(shape: tuple[int, int]) -> bool:
    """Whether QR first is faster than LAPACK's SVD on the tall orientation.

    From about twice as long as wide, LAPACK itself starts with a QR; below 1.3 the QR costs more than it saves.
    """
    return 1.3 <= max(shape) / min(shape) < 1.9


def tall(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.shape[-2] >= array.shape[-1] else np.swapaxes(array, -1, -2)


def _each(array: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Apply a function from a matrix to a vector over the leading axes."""
    flat = array.reshape(-1, *array.shape[-2:])
    return np.stack([function(one) for one in flat]).reshape(*array.shape[:-2], -1)


def _is_single(array: NDArray[Any]) -> bool:
    return array.dtype in (np.float32, np.complex64)  # numpy's own routines compute these in double precision


def _svdvals(array: NDArray[Any]) -> NDArray[Any]:
    """Return singular values by LAPACK's divide and conquer, over any leading axes."""
    if _is_single(array):
        from scipy.linalg import svdvals

        return _each(array, lambda one: np.asarray(svdvals(one, check_finite=False)))
    try:
        values: NDArray[Any] = np.linalg.svd(array, compute_uv=False)
    except np.linalg.LinAlgError:  # divide and conquer did not converge; QR iteration is slower and always has
        from scipy.linalg import svd

        return _each(array, lambda one: np.asarray(svd(one, compute_uv=False, lapack_driver="gesvd")))
    return values


def _triangle(array: NDArray[Any]) -> NDArray[Any]:
    """Return R of a QR of tall matrices; Q is never formed."""
    if not _is_single(array):
        return np.asarray(np.linalg.qr(array, mode="r"))
    from scipy.linalg import qr

    side = array.shape[-1]
    flat = _each(array, lambda one: np.asarray(qr(one, mode="r", check_finite=False)[0])[:side].ravel())
    return flat.reshape(*array.shape[:-2], side, side)


def _eigenvalues(gram: NDArray[Any]) -> NDArray[Any]:
    """Return ascending eigenvalues of Hermitian matrices."""
    if not _is_single(gram):
        values: NDArray[Any] = np.linalg.eigvalsh(gram)
        return values
    from scipy.linalg import eigh

    return _each(gram, lambda one: np.asarray(eigh(one, eigvals_only=True, check_finite=False)))


def _gram(array: NDArray[Any]) -> NDArray[Any]:
    long = tall(array)
    total: NDArray[Any] | None = None
    for start in range(0, long.shape[-2], _GRAM_ROWS):
        block = long[..., start : start + _GRAM_ROWS, :]
        adjoint = np.swapaxes(block.conj() if block.dtype.kind == "c" else block, -1, -2)
        product = adjoint @ block
        if total is None:
            total = product
        else:
            total += product
    assert total is not None  # noqa: S101 - a matrix has at least one row
    return total


def full_decomposition(
    array: NDArray[Any], method: Literal["svd", "qr_svd", "gram"], *, dtype: str = "float64", name: str = "matrix"
) -> Decomposition:
    """Decompose (a stack of) matrices by one of the routes that give every singular value.

    Parameters
    ----------
    array : ndarray of float64 or complex128, shape (..., m, n)
        Finite and not empty.
    method : {"svd", "qr_svd", "gram"}
        Route.
    dtype : {"float64", "float32"}
        Arithmetic.
    name : str
        Argument named in messages.

    Returns
    -------
    Decomposition
        All min(m, n) values.
    """
    shape = (int(array.shape[-2]), int(array.shape[-1]))
    work, exponent = to_working(array, dtype)
    eps = EPS64 if dtype == "float64" else EPS32
    if method == "gram":
        values = sqrt_clipped(_eigenvalues(_gram(work)))
    elif method == "qr_svd":
        values = _svdvals(_triangle(tall(work)))
    else:
        values = _svdvals(tall(work))
    values = np.maximum(values.astype(np.float64), 0.0)
    rule = gram_bound if method == "gram" else svd_bound
    bound = np.asarray(rule(values[..., 0], shape, eps))
    frobenius = np.asarray(np.sqrt((values * values).sum(axis=-1)))
    return in_units(Decomposition(values, bound, frobenius, method), exponent, name)

"""Hypothesis strategies: spectra, matrices with a prescribed spectrum, memory layouts, bad arrays.

Everything drawn comes from integers and floats that hypothesis chooses, so that failures shrink and repeat. This is
the only module of the package that imports hypothesis; it comes with ``pip install "rankdiag[testing]"``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from rankdiag._optional import optional
from rankdiag._validate import boolean, integer, names, real
from rankdiag.testing._values import Group, Hostile, hostile_arrays

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:  # the same module, with an error that names the extra where it is missing
    st = optional("hypothesis.strategies", extra="testing", feature="rankdiag.testing.strategies")

__all__ = ["PrescribedMatrix", "bad_arrays", "layouts", "matrices", "orthogonal", "scales", "spectra"]

Array = NDArray[np.float64]
SpectrumKind = Literal["any", "flat", "steep", "clustered", "deficient", "power", "zero"]
_KINDS: tuple[SpectrumKind, ...] = get_args(SpectrumKind)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrescribedMatrix:
    """A matrix and the singular values it was made from.

    Attributes
    ----------
    matrix : ndarray of float64, shape (m, n)
        The matrix.
    values : ndarray of float64, shape (min(m, n),)
        Its singular values, descending; true to about ``8 * max(m, n) * eps * values[0]``.
    kind : str
        Shape of the spectrum, as `spectra` names it.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.testing.strategies import PrescribedMatrix
    >>> PrescribedMatrix(matrix=np.eye(2), values=np.ones(2), kind="flat").values
    array([1., 1.])
    """

    matrix: Array
    values: Array
    kind: str


def scales(*, low: float = 1e-300, high: float = 1e300) -> st.SearchStrategy[float]:
    """Draw a positive factor, its logarithm spread evenly.

    Parameters
    ----------
    low, high : float
        Bounds, positive.

    Returns
    -------
    SearchStrategy of float
        Shrinks towards 1 if the bounds allow it.

    Raises
    ------
    TypeError
        If a bound is no real number.
    ValueError
        If a bound is not positive, or `low` is above `high`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from rankdiag.testing.strategies import scales
    >>> find(scales(), lambda scale: scale > 0)
    1.0
    """
    return _scales(low, high, "low", "high")


def _scales(low: float, high: float, low_name: str, high_name: str) -> st.SearchStrategy[float]:
    smallest = real(low, low_name, low=0.0, low_open=True)
    largest = real(high, high_name, low=0.0, low_open=True)
    if smallest > largest:
        raise ValueError(f"`{low_name}` must be at most `{high_name}`; got {smallest!r} and {largest!r}")
    exponents = st.floats(float(np.log10(smallest)), float(np.log10(largest)))
    return exponents.map(lambda exponent: min(max(10.0**exponent, smallest), largest))


def spectra(
    *,
    min_size: int = 1,
    max_size: int = 8,
    kinds: Collection[SpectrumKind] = ("any", "flat", "steep", "clustered", "deficient", "power"),
    min_scale: float = 1e-300,
    max_scale: float = 1e300,
) -> st.SearchStrategy[Array]:
    """Draw singular values: descending, not negative, of every adversarial shape.

    Parameters
    ----------
    min_size, max_size : int
        Number of values, zeros included.
    kinds : collection of str
        Shapes to draw from: ``"any"`` (free values in [0, 1]), ``"flat"`` (all equal), ``"steep"`` (geometric, down
        to 1e-16 or below), ``"clustered"`` (groups that differ by a few units in the last place), ``"deficient"``
        (zeros at the end, at least one), ``"power"`` (i to a negative power), ``"zero"`` (nothing else).
    min_scale, max_scale : float
        Bounds of the common factor.

    Returns
    -------
    SearchStrategy of ndarray of float64, shape (k,)
        Values, read-only.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a size or scale is out of bounds, or a kind unknown.

    Examples
    --------
    >>> from hypothesis import find
    >>> from rankdiag.testing.strategies import spectra
    >>> find(spectra(kinds=["flat"], min_size=2), lambda values: values[0] == 1.0)
    array([1., 1.])
    """
    smallest, largest = _sizes(min_size, max_size)
    common = _scales(min_scale, max_scale, "min_scale", "max_scale")
    shapes_of = _members(kinds, "kinds", _KINDS)
    sizes = st.integers(smallest, largest)
    return st.tuples(st.sampled_from(shapes_of), sizes, common).flatmap(
        lambda drawn: _shape(drawn[0], drawn[1]).map(lambda values: _read_only(np.sort(values)[::-1] * drawn[2]))
    )


def _shape(kind: SpectrumKind, size: int) -> st.SearchStrategy[Array]:
    """Draw values in [0, 1], of one kind, in any order."""
    index = np.arange(float(size))
    ones = np.ones(size)
    if kind == "flat":
        return st.just(ones)
    if kind == "zero":
        return st.just(np.zeros(size))
    if kind == "steep":
        return st.floats(1e-16, 0.5).map(lambda ratio: np.maximum(ratio**index, 1e-300))
    if kind == "power":
        return st.floats(0.25, 8.0).map(lambda power: (index + 1.0) ** -power)
    if kind == "clustered":
        steps = st.lists(st.integers(0, 3), min_size=size, max_size=size)
        levels = st.lists(st.sampled_from([1.0, 0.5, 1e-3, 1e-8]), min_size=size, max_size=size)
        return st.tuples(steps, levels).map(
            lambda drawn: np.array(drawn[1]) * (1.0 - np.array(drawn[0]) * np.finfo(np.float64).eps)
        )
    free = st.lists(st.floats(0.0, 1.0, allow_subnormal=False), min_size=size, max_size=size).map(np.array)
    if kind == "deficient":
        return st.tuples(free, st.integers(0, max(size - 1, 0))).map(lambda drawn: _cut(drawn[0], drawn[1]))
    return free.map(lambda values: np.asarray(values, dtype=np.float64))


def _cut(values: Array, kept: int) -> Array:
    return np.where(np.arange(len(values)) < kept, np.maximum(values, 1e-3), 0.0)


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values


def orthogonal(rows: int, columns: int) -> st.SearchStrategy[Array]:
    """Draw a matrix with orthonormal columns: a product of Householder reflections, then QR of a Gaussian matrix.

    Parameters
    ----------
    rows, columns : int
        Shape, with ``columns <= rows``.

    Returns
    -------
    SearchStrategy of ndarray of float64, shape (rows, columns)
        Shrinks towards columns of the identity.

    Raises
    ------
    TypeError
        If a size is no integer.
    ValueError
        If a size is below 1, or `columns` above `rows`.

    Examples
    --------
    >>> from hypothesis import find
    >>> from rankdiag.testing.strategies import orthogonal
    >>> find(orthogonal(2, 1), lambda q: True)
    array([[1.],
           [0.]])
    """
    m, n = integer(rows, "rows", low=1), integer(columns, "columns", low=1)
    if n > m:
        raise ValueError(f"`columns` must be at most `rows` = {m}; got {n}")
    vectors = st.lists(st.integers(-4, 4), min_size=m, max_size=m)
    reflections = st.lists(vectors, max_size=3).map(lambda drawn: _reflect(drawn, m)[:, :n])
    return reflections | st.integers(0, 2**32 - 1).map(lambda seed: _gaussian_factor(seed, m, n))


def _reflect(vectors: list[list[int]], size: int) -> Array:
    result = np.eye(size)
    for entries in vectors:
        vector = np.array(entries, dtype=np.float64)
        square = float(vector @ vector)
        if square:
            result -= np.outer(vector, (2.0 / square) * (vector @ result))
    return result


def _gaussian_factor(seed: int, rows: int, columns: int) -> Array:
    return cast(Array, np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))[0])


def matrices(
    *,
    min_side: int = 1,
    max_side: int = 8,
    kinds: Collection[SpectrumKind] = ("any", "flat", "steep", "clustered", "deficient", "power"),
    min_scale: float = 1e-300,
    max_scale: float = 1e300,
    square: bool = False,
) -> st.SearchStrategy[PrescribedMatrix]:
    """Draw matrices whose singular values are known.

    Parameters
    ----------
    min_side, max_side : int
        Bounds of both sides.
    kinds : collection of str
        Shapes of the spectrum, see `spectra`.
    min_scale, max_scale : float
        Bounds of the common factor.
    square : bool
        Whether both sides are equal.

    Returns
    -------
    SearchStrategy of PrescribedMatrix
        Tall, wide and square; the matrix is read-only.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a side or scale is out of bounds, or a kind unknown.

    Notes
    -----
    The product is formed at scale 1 and multiplied by the common factor at the end, so that entries of 1e-300 keep
    their digits.

    Examples
    --------
    >>> import numpy as np
    >>> from hypothesis import given
    >>> from rankdiag.testing.strategies import matrices
    >>> @given(matrices(max_side=4, min_scale=1e-3, max_scale=1e3))
    ... def test_frobenius_norm(drawn):
    ...     norm = np.linalg.norm(drawn.matrix)
    ...     assert abs(norm - np.linalg.norm(drawn.values)) <= 1e-12 * max(norm, 1e-300)
    """
    smallest, largest = _sizes(min_side, max_side, "side")
    same = boolean(square, "square")
    common = _scales(min_scale, max_scale, "min_scale", "max_scale")
    shapes_of = _members(kinds, "kinds", _KINDS)
    sides = st.integers(smallest, largest)
    shapes = sides.map(lambda side: (side, side)) if same else st.tuples(sides, sides)
    return st.tuples(st.sampled_from(shapes_of), shapes, common).flatmap(lambda drawn: _prescribed(*drawn))


def _prescribed(kind: SpectrumKind, shape: tuple[int, int], scale: float) -> st.SearchStrategy[PrescribedMatrix]:
    k = min(shape)
    parts = st.tuples(orthogonal(shape[0], k), _shape(kind, k), orthogonal(shape[1], k))

    def build(drawn: tuple[Array, Array, Array]) -> PrescribedMatrix:
        left, values, right = drawn
        values = np.sort(values)[::-1]
        matrix = (left * values) @ right.T
        return PrescribedMatrix(matrix=_read_only(matrix * scale), values=_read_only(values * scale), kind=kind)

    return parts.map(build)


def layouts(values: Any) -> st.SearchStrategy[Array]:
    """Draw copies of an array in every memory layout: the same numbers, laid out differently.

    Parameters
    ----------
    values : array-like
        Numbers of any shape.

    Returns
    -------
    SearchStrategy of ndarray of float64
        In C order, Fortran order, as every other entry of a larger array, with negative strides, read-only, not
        aligned, or as a read-only memory map.

    Raises
    ------
    TypeError
        If `values` holds no real numbers.
    ValueError
        If it is ragged.

    Examples
    --------
    >>> from hypothesis import find
    >>> from rankdiag.testing.strategies import layouts
    >>> find(layouts([[1.0, 2.0]]), lambda array: not array.flags.writeable).tolist()
    [[1.0, 2.0]]
    """
    from rankdiag._array import as_float64

    plain = np.array(as_float64(values, "values", allow_empty=True, finite=False), copy=True, order="C")
    return st.sampled_from(_LAYOUTS).map(lambda name: _lay_out(plain, name))


_LAYOUTS = ("C", "Fortran", "strided", "negative", "read-only", "not aligned", "memory-mapped")


def _lay_out(plain: Array, layout: str) -> Array:
    if layout == "Fortran":
        return np.array(plain, order="F")
    if layout == "strided":
        wide = np.full(tuple(2 * size for size in plain.shape), np.nan)
        wide[tuple(slice(None, None, 2) for _ in plain.shape)] = plain
        return cast(Array, wide[tuple(slice(None, None, 2) for _ in plain.shape)])
    if layout == "negative":
        flipped = tuple(slice(None, None, -1) for _ in plain.shape)
        return plain[flipped].copy()[flipped]
    if layout == "read-only":
        return _read_only(plain.copy())
    if layout == "not aligned":
        raw = np.frombuffer(b"\0" + plain.tobytes(), dtype=np.float64, offset=1, count=plain.size)
        return raw.reshape(plain.shape)
    if layout == "memory-mapped" and plain.size:
        import tempfile

        with tempfile.TemporaryFile() as stream:
            stream.write(plain.tobytes())
            stream.flush()
            return np.memmap(stream, dtype=np.float64, mode="r", shape=plain.shape)
    return plain.copy()


def bad_arrays(*, groups: Collection[Group] = (), skip: Collection[Group] = ()) -> st.SearchStrategy[Any]:
    """Draw what a user may pass for an array by mistake or at the edge of what is legal.

    Parameters
    ----------
    groups : collection of str
        Kinds to draw from: ``"shape"``, ``"entries"``, ``"scale"``, ``"dtype"``, ``"layout"``, ``"size"``,
        ``"sequence"``, ``"foreign"``, ``"torch"``; empty takes all.
    skip : collection of str
        Kinds to leave out.

    Returns
    -------
    SearchStrategy of object
        Fresh objects: empty and 0-d arrays, NaN, infinity, subnormals, integers, strings, dates, masked and sparse
        arrays, arrays beyond memory, ragged lists, tensors without data, and so on. Values of packages that are
        not loaded are left out.

    Raises
    ------
    TypeError
        If an argument is no collection of names.
    ValueError
        If a name is unknown, or nothing is left to draw from.

    Examples
    --------
    >>> from hypothesis import find
    >>> from rankdiag.testing.strategies import bad_arrays
    >>> find(bad_arrays(groups=["shape"]), lambda array: array.ndim == 0)
    array(2.)
    """
    known = tuple(name for name in get_args(Group) if name != "object")
    wanted = set(names(groups, "groups", known) or known) - set(names(skip, "skip", known))
    values: list[Hostile] = [value for value in hostile_arrays() if value.group in wanted]
    if not values:
        raise ValueError("`skip` must leave something to draw from; got every group")
    return st.sampled_from(values).map(lambda value: value.make())


def _sizes(smallest: Any, largest: Any, what: str = "size") -> tuple[int, int]:
    low = integer(smallest, f"min_{what}", low=1)
    return low, integer(largest, f"max_{what}", low=low)


def _members(given: Any, name: str, known: tuple[Any, ...]) -> list[Any]:
    members = list(names(given, name, known))
    if not members:
        raise ValueError(f"`{name}` must not be empty")
    return members

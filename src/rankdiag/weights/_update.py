"""The update between two stored matrices, and what rounding alone would make of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import machine_eps
from rankdiag.weights._spectra import frobenius
from rankdiag.weights._subject import Bound
from rankdiag.weights._views import KernelView, LowRankView, NormedView, Runs, StackView, StoredView, View

__all__ = ["AdapterUpdate", "Update", "UpdateStats", "coarser", "first_rows", "renamed"]

Floats = NDArray[np.float64]

# Exponent of the smallest normal number, below which the spacing no longer shrinks.
_SMALLEST_EXPONENT = {"float16": -14, "bfloat16": -126, "float32": -126}


def coarser(first: str, second: str) -> str:
    """Return the dtype with the larger spacing of two; the second if they are alike."""
    return first if machine_eps(first) > machine_eps(second) else second


def renamed(view: View, names: dict[str, str]) -> View:
    """Return a view of the tensors of another source that stand for those of this one."""
    if isinstance(view, NormedView):
        return dataclasses.replace(view, magnitude=names[view.magnitude], direction=names[view.direction])
    if isinstance(view, LowRankView):
        return dataclasses.replace(view, left=names[view.left], right=names[view.right])
    if isinstance(view, (KernelView, StackView, StoredView)):
        return dataclasses.replace(view, name=names[view.name])
    raise TypeError(f"no way to rename a {type(view).__name__}")


def first_rows(view: View, rows: int, stored: tuple[int, int]) -> StoredView | None:
    """Return a view of the first rows of a plain matrix whose tensor has the shape `stored`."""
    if not isinstance(view, StoredView) or view.rows is not None or view.columns is not None or view.groups > 1:
        return None
    return StoredView(view.name, stored, rows=Runs(0, rows, stored[0], stored[0]))


@dataclass(slots=True)
class UpdateStats:
    """Sums over a pair of matrices, gathered while they are read once.

    Attributes
    ----------
    base : float
        Frobenius norm of the base.
    changed, entries : int
        Entries that differ, and all of them.
    eps : float
        Spacing of the coarser dtype at 1.
    smallest : int
        Exponent of its smallest normal number.
    row_noise, column_noise : dict of int to ndarray
        Sums of the rounding variance by row and by column, by the place where a block begins.
    """

    dtype: str
    base: float = 0.0
    changed: int = 0
    entries: int = 0
    finite: bool = True
    row_noise: dict[int, Floats] = field(default_factory=dict)
    column_noise: dict[int, Floats] = field(default_factory=dict)

    def observe(self, old: NDArray[Any], new: NDArray[Any], rounded: NDArray[Any], row: int, column: int) -> None:
        """Add a pair of blocks that begins at a row and a column; `rounded` is the one in the coarser dtype."""
        self.entries += new.size
        self.changed += int(np.count_nonzero(new != old))
        self.base = math.hypot(self.base, frobenius(old))
        variance = _rounding_variance(rounded, self.dtype)
        axes = tuple(range(variance.ndim - 2))
        rows, columns = variance.sum(axis=(*axes, -1)), variance.sum(axis=(*axes, -2))
        self.row_noise[row] = self.row_noise.get(row, 0.0) + rows
        self.column_noise[column] = self.column_noise.get(column, 0.0) + columns

    def edge(self) -> float:
        """Return the largest singular value that rounding can be expected to cause."""
        tops = [
            max((float(sums.max()) for sums in noise.values()), default=0.0)
            for noise in (self.row_noise, self.column_noise)
        ]
        return math.sqrt(tops[0]) + math.sqrt(tops[1])


def _rounding_variance(array: NDArray[Any], dtype: str) -> Floats:
    """Return the variance of rounding each entry to the nearest number of a dtype: spacing^2 / 12.

    The spacing at w is ``eps * 2**floor(log2|w|)``; the error is taken as uniform over it, the usual model.
    """
    exponent = np.frexp(array)[1] - 1
    np.maximum(exponent, _SMALLEST_EXPONENT.get(dtype, -1022), out=exponent)
    spacing = np.ldexp(machine_eps(dtype) / math.sqrt(12.0), exponent)
    variance: Floats = spacing * spacing
    variance[array == 0] = 0.0
    return variance


@dataclass(slots=True)
class Update:
    """The difference of two views: a subject for `measure`, and statistics of the pair.

    Attributes
    ----------
    tuned, base : Bound
        The two sides, of one shape.
    dtype : str
        The coarser of their dtypes.
    stats : UpdateStats
        Filled while the update is read for the first time.
    """

    tuned: Bound
    base: Bound
    dtype: str = ""
    stats: UpdateStats = field(init=False)
    _seen: bool = False

    def __post_init__(self) -> None:
        self.dtype = coarser(self.base.dtype, self.tuned.dtype)
        self.stats = UpdateStats(self.dtype)

    @property
    def view(self) -> View:
        """The view of the tuned side."""
        return self.tuned.view

    def _rounded(self, old: NDArray[Any], new: NDArray[Any]) -> NDArray[Any]:
        return new if self.dtype == self.tuned.dtype else old

    def dense(self) -> NDArray[Any]:
        """Return tuned minus base in float64."""
        new, old = self.tuned.dense(), self.base.dense()
        if not self._seen:
            self._observe(old, new, 0, 0)
            self._seen = True
        with np.errstate(invalid="ignore", over="ignore"):
            difference: NDArray[Any] = np.subtract(new, old, dtype=np.float64)
        return difference

    def _observe(self, old: NDArray[Any], new: NDArray[Any], row: int, column: int) -> None:
        if np.isfinite(new).all() and np.isfinite(old).all():
            self.stats.observe(old, new, self._rounded(old, new), row, column)
        else:
            self.stats.finite = False

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Yield blocks of tuned minus base; both sides are cut at the same places."""
        at = 0
        limits = self._limits(axis, max_bytes)
        for new, old in zip(self.tuned.blocks(axis, limits[0]), self.base.blocks(axis, limits[1]), strict=True):
            if not self._seen:
                self._observe(old, new, at if axis == 0 else 0, 0 if axis == 0 else at)
            at += new.shape[axis]
            with np.errstate(invalid="ignore", over="ignore"):
                difference = new - old
            del new, old
            yield difference
            del difference
        self._seen = True

    def _limits(self, axis: int, max_bytes: int) -> tuple[int, int]:
        """Return the block sizes that cut both stored tensors, which may differ in one axis, at the same places."""
        across = [
            8 * (bound.view.stored if isinstance(bound.view, StoredView) else bound.view.shape)[1 if axis == 0 else 0]
            for bound in (self.tuned, self.base)
        ]
        steps = max(1, max_bytes // max(across))
        return steps * across[0], steps * across[1]

    def factors(self) -> None:
        """Have no factors."""


@dataclass(slots=True)
class AdapterUpdate:
    """The update of a weight-decomposed adapter (DoRA, arXiv:2402.09353): magnitudes times unit rows, minus the base.

    Attributes
    ----------
    pair : Bound
        The low-rank part.
    base : Bound
        The weight, as (out, in).
    magnitude : str
        Tensor of the magnitudes, one for each output.
    transposed : bool
        Whether the base stores (in, out).
    """

    pair: Bound
    base: Bound
    magnitude: str
    transposed: bool
    dtype: str = ""

    @property
    def view(self) -> View:
        """The view of the low-rank part, whose shape this update has."""
        return self.pair.view

    def dense(self) -> NDArray[Any]:
        """Return the update in float64."""
        weight = np.asarray(self.base.dense(), dtype=np.float64)
        weight = weight.T if self.transposed else weight
        merged = weight + self.pair.dense()
        scale = np.asarray(self.pair.reader.source.read(self.magnitude), dtype=np.float64).reshape(-1, 1)
        norm = np.sqrt((merged * merged).sum(axis=1, keepdims=True))
        result: NDArray[Any] = merged * (scale / np.where(norm > 0, norm, 1.0)) - weight
        return result

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Not available: the whole matrix is needed."""
        raise NotImplementedError

    def factors(self) -> None:
        """Have no factors: the magnitudes change every row."""

"""Matrices inside stored tensors: where they lie, and how they are read whole or block by block.

A view knows names, shapes and index patterns; it holds no data. Reading goes through a `Reader`, which keeps
the tensor at hand so that four gates or sixty-four experts cost one read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rankdiag.checkpoints import TensorSource

__all__ = [
    "KernelView",
    "LowRankView",
    "NormedView",
    "Reader",
    "Runs",
    "StackView",
    "StoredView",
    "View",
    "float64_bytes",
]


def float64_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a float64 array of this shape."""
    return 8 * math.prod(shape)


@dataclass(frozen=True, slots=True)
class Runs:
    """Positions along an axis: `length` of them from `offset` on, in every period of `period`.

    Attributes
    ----------
    offset, length, period, total : int
        ``offset + length <= period`` and `period` divides `total`, the length of the axis.
    """

    offset: int
    length: int
    period: int
    total: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.length * (self.total // self.period)

    def within(self, low: int, high: int) -> slice | NDArray[np.intp]:
        """Return the positions in ``[low, high)``, counted from `low`; a slice where they are neighbours."""
        if self.period == self.total:
            start = min(max(self.offset, low), high)
            return slice(start - low, min(max(self.offset + self.length, start), high) - low)
        every = np.arange(low, high)
        place = every % self.period
        return np.flatnonzero((place >= self.offset) & (place < self.offset + self.length))


class Reader:
    """Reads tensors of one source for one job and keeps the last one at hand.

    Parameters
    ----------
    source : TensorSource
        Where the tensors are.
    max_bytes : int
        A tensor above this many bytes of float64 is never held whole.
    """

    def __init__(self, source: TensorSource, max_bytes: int) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self._name = ""
        self._array: NDArray[Any] | None = None
        self._stack: tuple[str, int, Iterator[NDArray[np.float64]]] | None = None

    def small(self, name: str) -> bool:
        """Whether a tensor may be held whole."""
        return float64_bytes(self.source.info(name).shape) <= self.max_bytes

    def whole(self, name: str) -> NDArray[Any]:
        """Return a tensor in its stored shape, float32 or float64."""
        if self._array is None or self._name != name:
            self._array = None  # let the last one go before the next one comes
            array: NDArray[Any] = self.source.read(name)
            self._array, self._name = array, name
            return array
        return self._array

    def entry(self, name: str, index: int, size: int) -> NDArray[Any]:
        """Return entry `index` of a stack along its first axis, flat; going through in order reads it once."""
        if self.small(name):
            flat: NDArray[Any] = self.whole(name)[index].reshape(-1)
            return flat
        if self._stack is None or self._stack[0] != name or self._stack[1] > index:
            # A block as large as one entry holds exactly one.
            self._stack = (name, 0, self.source.blocks(name, axis=0, max_bytes=8 * size))
        _, at, blocks = self._stack
        row = next(blocks)
        while at < index:
            row, at = next(blocks), at + 1
        self._stack = (name, index + 1, blocks)
        return row.reshape(-1)


class View:
    """A matrix, or several of one shape that are pooled into one spectrum.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of each matrix.
    pool : int
        How many matrices are pooled; 1 nearly always.
    streamable : bool
        Whether `blocks` works.
    """

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        raise NotImplementedError

    @property
    def pool(self) -> int:
        """Number of pooled matrices."""
        return 1

    @property
    def streamable(self) -> bool:
        """Whether `blocks` works."""
        return False

    def dense(self, reader: Reader) -> NDArray[Any]:
        """Return the matrix, or the pooled ones as (pool, m, n); float32 or float64, not to be written into."""
        raise NotImplementedError

    def blocks(self, reader: Reader, *, axis: int, max_bytes: int) -> Iterator[NDArray[np.float64]]:
        """Yield row blocks (axis 0) or column blocks (axis -1) of the matrix in float64."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class StoredView(View):
    """Rows and columns of a tensor seen as (first axis, all others); groups of rows are pooled.

    Attributes
    ----------
    name : str
        The tensor.
    stored : tuple of int
        Its shape as 2-D, before anything is taken.
    rows, columns : Runs or None
        What is taken; None takes all.
    groups : int
        Equal groups of rows that see different inputs, as in a grouped convolution.
    """

    name: str
    stored: tuple[int, int]
    rows: Runs | None = None
    columns: Runs | None = None
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        m = self.stored[0] if self.rows is None else self.rows.size
        n = self.stored[1] if self.columns is None else self.columns.size
        return m // self.groups, n

    @property
    def pool(self) -> int:
        return self.groups

    @property
    def streamable(self) -> bool:
        return self.groups == 1

    def dense(self, reader: Reader) -> NDArray[Any]:
        if reader.small(self.name) or not self.streamable:
            flat = reader.whole(self.name).reshape(self.stored)
            taken = self._take(flat, 0, self.stored[0])
        else:
            taken = np.empty(self.shape)
            at = 0
            for block in self.blocks(reader, axis=0, max_bytes=max(reader.max_bytes // 4, 1)):
                taken[at : at + len(block)] = block
                at += len(block)
        return taken.reshape(self.groups, *self.shape) if self.groups > 1 else taken

    def _take(self, flat: NDArray[Any], low: int, high: int) -> NDArray[Any]:
        if self.rows is not None:
            flat = flat[self.rows.within(low, high)]
        if self.columns is not None:
            flat = flat[:, self.columns.within(0, self.stored[1])]
        return flat

    def blocks(self, reader: Reader, *, axis: int, max_bytes: int) -> Iterator[NDArray[np.float64]]:
        if axis == 0:
            low = 0
            for block in reader.source.blocks(self.name, axis=0, max_bytes=max_bytes):
                taken = self._take(block, low, low + len(block))
                low += len(block)
                if taken.size:
                    yield taken
            return
        low = 0
        for block in reader.source.blocks(self.name, axis=-1, max_bytes=max_bytes):
            high = low + block.shape[1]
            taken = block if self.columns is None else block[:, self.columns.within(low, high)]
            if self.rows is not None:
                taken = taken[self.rows.within(0, self.stored[0])]
            low = high
            if taken.size:
                yield taken


@dataclass(frozen=True, slots=True)
class StackView(View):
    """One entry of a tensor along its first axis, or the whole tensor, in the shape of a matrix: an expert, say.

    Attributes
    ----------
    name : str
        The tensor.
    index : int or None
        Which entry; None for all of them.
    entry : tuple of int
        Rows and columns.
    """

    name: str
    index: int | None
    entry: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        return self.entry

    def dense(self, reader: Reader) -> NDArray[Any]:
        if self.index is None:
            return reader.whole(self.name).reshape(self.entry)
        return reader.entry(self.name, self.index, math.prod(self.entry)).reshape(self.entry)


@dataclass(frozen=True, slots=True)
class NormedView(View):
    """The weight of a weight-normalised layer: ``magnitude * direction / ||direction||``, seen as a matrix.

    Attributes
    ----------
    magnitude, direction : str
        The two stored tensors.
    full : tuple of int
        Shape of the weight.
    kept : tuple of int
        Axes that have a norm of their own, as the shape of `magnitude` says.
    groups : int
        Groups of rows that see different inputs.
    """

    magnitude: str
    direction: str
    full: tuple[int, ...]
    kept: tuple[int, ...]
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.full[0] // self.groups, math.prod(self.full[1:])

    @property
    def pool(self) -> int:
        return self.groups

    def weight(self, reader: Reader) -> NDArray[np.float64]:
        """Return the weight in its own shape."""
        scale = np.array(reader.source.read(self.magnitude), dtype=np.float64)
        direction = np.asarray(reader.whole(self.direction), dtype=np.float64)
        axes = tuple(axis for axis in range(len(self.full)) if axis not in self.kept)
        top = float(np.abs(direction).max(initial=0.0))
        if top == 0.0 or not np.isfinite(top):
            return direction * np.nan if top else direction
        norm = np.sqrt(((direction / top) ** 2).sum(axis=axes, keepdims=True)) * top
        safe = np.where(norm > 0, norm, 1.0)
        result: NDArray[np.float64] = direction * (scale.reshape(norm.shape) / safe)
        return result

    def dense(self, reader: Reader) -> NDArray[Any]:
        weight = self.weight(reader)
        return weight.reshape(self.groups, *self.shape) if self.groups > 1 else weight.reshape(self.shape)


@dataclass(frozen=True, slots=True)
class KernelView(View):
    """A convolution read slice by slice, or as the operator on an image.

    Attributes
    ----------
    name : str
        The tensor.
    full : tuple of int
        Its shape (out, in, k...).
    groups : int
        Groups of rows that see different inputs; their values are pooled.
    mode : {"slices", "fft"}
        How `conv_spectrum` reads each group.
    input_size : tuple of int or None
        Height and width of the image, for ``"fft"``.
    """

    name: str
    full: tuple[int, ...]
    groups: int
    mode: Literal["slices", "fft"]
    input_size: tuple[int, int] | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.full[0] // self.groups, self.full[1]

    @property
    def pool(self) -> int:
        return self.groups * math.prod(self.full[2:] if self.input_size is None else self.input_size)

    def dense(self, reader: Reader) -> NDArray[Any]:
        """Return the kernel as it is stored, (out, in / groups, k...)."""
        return reader.whole(self.name)


@dataclass(frozen=True, slots=True)
class LowRankView(View):
    """The update ``scaling * B @ A`` of a low-rank adapter.

    Attributes
    ----------
    left, right : str
        Tensors B (out, r) and A (r, in...); trailing axes of length 1 of B are dropped, those of A flattened.
    full : tuple of int
        Rows and columns of the update.
    rank : int
        Rows of A that belong to one expert.
    scaling : float
        Factor in front.
    expert : tuple of int or None
        Index and number of experts whose factors are stored together.
    groups : int
        Groups of the convolution B: its rows see different rows of A.
    """

    left: str
    right: str
    full: tuple[int, int]
    rank: int
    scaling: float
    expert: tuple[int, int] | None = None
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.full

    def factors(self, reader: Reader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return B as (out, r) and A as (r, in)."""
        left = np.asarray(reader.source.read(self.left), dtype=np.float64)
        right = np.asarray(reader.source.read(self.right), dtype=np.float64)
        left = left.reshape(left.shape[0], -1)
        right = right.reshape(right.shape[0], -1)
        if self.expert is not None:
            index, count = self.expert
            right = right.reshape(count, self.rank, -1)[index]
            left = left.reshape(left.shape[0], self.rank, count)[:, :, index]
        if self.groups > 1:
            narrow, each = left, left.shape[1]
            left = np.zeros((narrow.shape[0], each * self.groups))
            step = narrow.shape[0] // self.groups
            for g in range(self.groups):
                left[g * step : (g + 1) * step, g * each : (g + 1) * each] = narrow[g * step : (g + 1) * step]
        return left, right

    def dense(self, reader: Reader) -> NDArray[Any]:
        left, right = self.factors(reader)
        return self.scaling * (left @ right)

"""Tensors of safetensors files, read block by block with positioned reads.

Nothing is memory-mapped: pages of a map that were touched count as resident memory until it is closed.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.checkpoints._header import DTYPES, Entry, Stamp, open_regular
from rankdiag.checkpoints._info import CheckpointError, TensorInfo, unreadable_reason
from rankdiag.checkpoints._source import Format, Span, TensorSource

__all__ = ["DiskSource", "Shard"]

_CHUNK = 1 << 20  # bytes read at once into a buffer that stays in the cache
_GAP = 1 << 14  # bytes that are cheaper to read and drop than to skip with a call of their own
_MAX_OPEN = 8  # descriptors kept open while nobody reads from them
_RAW = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

Shard = tuple[str, list[Entry], Stamp]  # name of the file, its tensors, its identity


class DiskSource(TensorSource):
    """Tensors of one or several safetensors files; see `TensorSource` and `open_source`.

    Parameters
    ----------
    location : str
        What was opened.
    format : {"safetensors", "sharded", "adapter"}
        Kind of source.
    shards : sequence of Shard
        Checked files in order.
    config, set_aside, revision
        As in `TensorSource`.
    """

    def __init__(
        self,
        *,
        location: str,
        format: Format,  # noqa: A002 - as in TensorSource
        shards: Sequence[Shard],
        config: Mapping[str, Any] | None = None,
        set_aside: Mapping[str, str] | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(
            location=location,
            format=format,
            tensors=[_describe(entry, file) for file, entries, _ in shards for entry in entries],
            config=config,
            files=[file for file, _, _ in shards],
            set_aside=set_aside,
            revision=revision,
        )
        self._entries = {entry.name: entry for _, entries, _ in shards for entry in entries}
        self._stamps = {file: stamp for file, _, stamp in shards}
        self._handles = _Handles()

    def _fill(self, info: TensorInfo, rows: Span, columns: Span, out: NDArray[Any]) -> None:
        entry = self._entries[info.name]
        width = info.matrix_shape[1]
        stamp = self._stamps[info.file or ""]
        with self._handles.use(stamp) as handle:
            reader = _Reader(handle, entry, out.dtype, stamp.shown)
            if columns == (0, width):
                reader.run(rows[0] * width, out.reshape(-1))
            else:
                reader.columns(rows, columns, width, out)

    def close(self) -> None:
        """Close every file; one that a thread reads from at this moment is closed when that read ends."""
        super().close()
        self._handles.close()


def _describe(entry: Entry, file: str) -> TensorInfo:
    dtype = DTYPES[entry.code][0]
    reason = unreadable_reason(dtype)
    return TensorInfo(
        name=entry.name,
        shape=entry.shape,
        dtype=dtype,
        nbytes=entry.nbytes,
        file=file,
        readable=not reason,
        reason=reason,
    )


class _Handles:
    """Descriptors of the files: opened on first use, shared by threads, few kept open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Stamp, list[int]] = {}  # file -> descriptor, number of users; least recently used first
        self._closed = False
        weakref.finalize(self, _close_all, self._open)

    @contextmanager
    def use(self, stamp: Stamp) -> Iterator[int]:
        with self._lock:
            slot = self._open.pop(stamp, None) or [_reopen(stamp), 0]
            self._open[stamp] = slot
            slot[1] += 1
        try:
            yield slot[0]
        finally:
            with self._lock:
                slot[1] -= 1
                self._trim()

    def _trim(self) -> None:
        idle = [stamp for stamp, (_, users) in self._open.items() if not users]
        for stamp in idle if self._closed else idle[: max(0, len(self._open) - _MAX_OPEN)]:
            os.close(self._open.pop(stamp)[0])

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._trim()


def _reopen(stamp: Stamp) -> int:
    handle, found = open_regular(stamp.path, stamp.shown)
    if found != stamp:
        os.close(handle)
        raise CheckpointError(f"{stamp.shown!r} has changed since it was opened; open the checkpoint again")
    return handle


def _close_all(slots: dict[Stamp, list[int]]) -> None:
    while slots:
        os.close(slots.popitem()[1][0])


class _Reader:
    """Reads of one tensor into float32 or float64 memory."""

    def __init__(self, handle: int, entry: Entry, target: np.dtype[Any], shown: str) -> None:
        self._handle = handle
        self._entry = entry
        self._shown = shown
        self._raw = np.dtype(_RAW[entry.code])
        self._direct = self._raw == target  # never for BF16, whose raw dtype is an integer

    def run(self, first: int, out: NDArray[Any]) -> None:
        """Read consecutive entries, from number `first` on, into the 1-D `out`."""
        if self._direct:
            self._bytes(first, out)
            return
        size = max(1, _CHUNK // self._raw.itemsize)
        buffer = np.empty(min(size, out.size), dtype=self._raw)
        for start in range(0, out.size, size):
            piece = out[start : start + size]
            raw = buffer[: piece.size]
            self._bytes(first + start, raw)
            self._widen(raw, piece)

    def columns(self, rows: Span, columns: Span, width: int, out: NDArray[Any]) -> None:
        """Read columns of the rows of a matrix with `width` columns into the 2-D `out`."""
        item = self._raw.itemsize
        run, row = (columns[1] - columns[0]) * item, width * item
        if row <= _CHUNK and row - run <= _GAP:
            step = max(1, _CHUNK // row)
            whole = np.empty((min(step, len(out)), width), dtype=self._raw)
            for start in range(0, len(out), step):
                piece = out[start : start + step]
                raw = whole[: len(piece)]
                self._bytes((rows[0] + start) * width, raw.reshape(-1))
                self._widen(raw[:, columns[0] : columns[1]], piece)
        elif self._direct:
            self._runs(rows[0], columns[0], width, out)
        elif run >= _CHUNK:
            for index in range(len(out)):
                self.run((rows[0] + index) * width + columns[0], out[index])
        else:
            step = max(1, _CHUNK // run)
            buffer = np.empty((min(step, len(out)), out.shape[1]), dtype=self._raw)
            for start in range(0, len(out), step):
                piece = out[start : start + step]
                raw = buffer[: len(piece)]
                self._runs(rows[0] + start, columns[0], width, raw)
                self._widen(raw, piece)

    def _runs(self, row: int, column: int, width: int, raw: NDArray[Any]) -> None:
        """Read the same columns of consecutive rows, one call for each row."""
        view = raw.reshape(-1).view(np.uint8).data
        run = raw.shape[1] * self._raw.itemsize
        stride = width * self._raw.itemsize
        place = self._entry.offset + (row * width + column) * self._raw.itemsize
        for start in range(0, len(view), run):
            self._exactly(view[start : start + run], place)
            place += stride

    def _bytes(self, first: int, raw: NDArray[Any]) -> None:
        self._exactly(raw.view(np.uint8).data, self._entry.offset + first * self._raw.itemsize)

    def _exactly(self, view: memoryview, place: int) -> None:
        count = _read_at(self._handle, view, place)
        while count < len(view):
            got = _read_at(self._handle, view[count:], place + count)
            if not got:
                raise CheckpointError(f"{self._shown!r} was truncated while tensor {self._entry.name!r} was read")
            count += got

    def _widen(self, raw: NDArray[Any], out: NDArray[Any]) -> None:
        with np.errstate(invalid="ignore"):  # signalling NaN bits would warn; NaN is for the caller to judge
            if self._entry.code != "BF16":
                out[...] = raw
                return
            # A bfloat16 is the upper half of a float32.
            bits = out.view(np.uint32) if out.dtype == np.float32 else np.empty(out.shape, dtype=np.uint32)
            bits[...] = raw
            np.left_shift(bits, 16, out=bits)
            if out.dtype != np.float32:
                out[...] = bits.view(np.float32)


_SEEK_LOCK = threading.Lock()


def _read_at(handle: int, view: memoryview, place: int) -> int:
    """Read into `view` from byte `place` of a file; the number of bytes may be smaller than asked for."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [view], place)
    with _SEEK_LOCK:  # systems without positioned reads
        os.lseek(handle, place, os.SEEK_SET)
        data = os.read(handle, min(len(view), _CHUNK))
    view[: len(data)] = data
    return len(data)

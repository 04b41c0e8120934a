"""The header of a safetensors file: checked as a whole before anything is read by it.

The safetensors package decides whether a header is valid. It is then parsed once more, for the places of the tensors,
and held against the file by rules of our own, so that a read never leaves the bytes that belong to a tensor.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankdiag._validate import describe
from rankdiag.checkpoints._info import CheckpointError

__all__ = ["DTYPES", "MAX_JSON", "Entry", "Stamp", "load_json", "open_regular", "read_header"]

MAX_JSON = 100_000_000  # bytes; the limit that safetensors sets for its header, used for every JSON file here
_MAX_AXES = 32  # what every numpy can hold
_MAX_SIZE = 1 << 60  # entries, empty axes left out: what can be counted in bytes

# Code in the file -> name as torch spells it, bits of one entry.
DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("float6_e2m3fn", 6),
    "F6_E3M2": ("float6_e3m2fn", 6),
    "F4": ("float4_e2m1fn", 4),
    "C64": ("complex64", 64),
    "BOOL": ("bool", 8),
    "I8": ("int8", 8),
    "I16": ("int16", 16),
    "I32": ("int32", 32),
    "I64": ("int64", 64),
    "U8": ("uint8", 8),
    "U16": ("uint16", 16),
    "U32": ("uint32", 32),
    "U64": ("uint64", 64),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file.

    Attributes
    ----------
    name : str
        Its name.
    shape : tuple of int
        Its axes.
    code : str
        Dtype as the file writes it, a key of `DTYPES`.
    offset : int
        Byte of the file at which it starts.
    nbytes : int
        Bytes it takes.
    """

    name: str
    shape: tuple[int, ...]
    code: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which file it was that the header came from; a later open must find the same."""

    path: str
    shown: str
    device: int
    inode: int
    size: int
    mtime_ns: int


def open_regular(path: str, shown: str) -> tuple[int, Stamp]:
    """Open a regular file for reading; the caller closes the descriptor.

    Parameters
    ----------
    path : str
        The file, without links.
    shown : str
        What to call it in messages.

    Returns
    -------
    handle : int
        Descriptor.
    stamp : Stamp
        Identity of the file.

    Raises
    ------
    CheckpointError
        If it is a folder, a pipe or a device.
    OSError
        If it cannot be opened.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for a writer
        raise CheckpointError(f"{shown!r} must be a regular file")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    found = os.fstat(handle)
    return handle, Stamp(path, shown, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def load_json(raw: bytes, shown: str, what: str, *, unique: bool = True) -> Any:
    """Parse JSON that a stranger wrote.

    Parameters
    ----------
    raw : bytes
        UTF-8 text.
    shown : str
        The file, for messages.
    what : str
        What to call the text in messages.
    unique : bool
        Whether a key that one object holds twice is an error; otherwise the last one counts.

    Returns
    -------
    object
        Parsed JSON.

    Raises
    ------
    CheckpointError
        If it is no JSON, is nested too deeply, or holds a key twice.
    """

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) and unique:
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise CheckpointError(f"{shown!r} is damaged: its {what} has the name {twice!r} twice")
        return found

    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=collect)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{shown!r} is damaged: its {what} is no JSON ({detail})") from None


def read_header(path: str, shown: str) -> tuple[list[Entry], Stamp]:
    """Check the header of a safetensors file and return its tensors in the order of their bytes.

    Parameters
    ----------
    path : str
        The file, without links.
    shown : str
        What to call it in messages.

    Returns
    -------
    entries : list of Entry
        Every tensor.
    stamp : Stamp
        Identity of the file that was checked.

    Raises
    ------
    CheckpointError
        If the header is damaged, or does not fit the bytes of the file.
    OSError
        If the file cannot be opened.
    """
    handle, stamp = open_regular(path, shown)
    try:
        start = os.read(handle, 64)
        _refuse_other_formats(start, shown)
        _ask_library(path, shown)
        length = int.from_bytes(start[:8], "little")
        if length > min(MAX_JSON, stamp.size - 8):
            raise CheckpointError(
                f"{shown!r} is damaged: its header of {length} bytes does not fit a file of {stamp.size} bytes"
            )
        os.lseek(handle, 8, os.SEEK_SET)
        raw = _read_exactly(handle, length, shown)
    finally:
        os.close(handle)
    header = load_json(raw, shown, "header")
    if not isinstance(header, dict):
        raise CheckpointError(f"{shown!r} is damaged: its header must be an object; got {describe(header)}")
    header.pop("__metadata__", None)
    entries = [_entry(name, fields, 8 + length, shown) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.offset + entry.nbytes))
    _require_cover(entries, 8 + length, stamp.size, shown)
    return entries, stamp


def _read_exactly(handle: int, count: int, shown: str) -> bytes:
    parts = []
    while count:
        part = os.read(handle, count)
        if not part:
            raise CheckpointError(f"{shown!r} is damaged: it ends inside its header")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _refuse_other_formats(start: bytes, shown: str) -> None:
    if len(start) < 8:
        raise CheckpointError(f"{shown!r} is damaged: a safetensors file has at least 8 bytes; got {len(start)}")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{shown!r} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")) and start[8:9] != b"{":
        raise CheckpointError(f"{shown!r} is no safetensors file; it looks like one that torch.save or pickle wrote")


def _ask_library(path: str, shown: str) -> None:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except OSError:
        raise
    except Exception as error:  # its own error class; a damaged header must not surface as anything else
        raise CheckpointError(f"{shown!r} is damaged: {error}") from None


def _entry(name: str, fields: Any, start: int, shown: str) -> Entry:
    try:
        code, shape, (begin, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        bits = DTYPES[code][1]
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in (*shape, begin, end)) or begin > end:
            raise ValueError(name)
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(
            f"{shown!r} is damaged: dtype, shape or offsets of {name!r} are not valid ({fields!r:.200})"
        ) from None
    if len(shape) > _MAX_AXES or math.prod(size for size in shape if size) > _MAX_SIZE:
        raise CheckpointError(f"{shown!r} is damaged: {name!r} has the impossible shape {shape!r:.200}")
    if math.prod(shape) * bits != 8 * (end - begin):
        raise CheckpointError(
            f"{shown!r} is damaged: {name!r} of shape {shape} and dtype {code} has {end - begin} bytes; "
            f"{math.prod(shape) * bits / 8:g} are needed"
        )
    return Entry(name, shape, code, start + begin, end - begin)


def _require_cover(entries: list[Entry], start: int, size: int, shown: str) -> None:
    """Every byte behind the header belongs to exactly one tensor."""
    for entry in entries:
        if entry.offset != start:
            word = "overlaps the tensor before it" if entry.offset < start else "leaves a gap before it"
            raise CheckpointError(f"{shown!r} is damaged: {entry.name!r} {word}")
        start += entry.nbytes
    if start != size:
        word = "truncated" if size < start else "too long"
        raise CheckpointError(f"{shown!r} is damaged: {word}; its header asks for {start} bytes, the file has {size}")

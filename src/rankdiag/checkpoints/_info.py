"""What is known of a tensor before it is read, and which dtypes are read at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["READABLE", "CheckpointError", "TensorInfo", "unreadable_reason"]

READABLE = frozenset({"float64", "float32", "float16", "bfloat16"})


class CheckpointError(ValueError):
    """A checkpoint is damaged, contradicts itself, or points outside its folder.

    Raised before any tensor is read, except where a file changes or shrinks while it is open. The message names the
    file. A missing shard is a ``FileNotFoundError`` instead.

    Examples
    --------
    >>> from rankdiag.checkpoints import CheckpointError
    >>> issubclass(CheckpointError, ValueError)
    True
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a source, as its header or its object describes it; nothing has been read.

    Attributes
    ----------
    name : str
        Name in the state dict or file.
    shape : tuple of int
        Its axes.
    dtype : str
        Torch's spelling: ``"bfloat16"``, ``"float32"``, ``"float8_e4m3fn"``, ``"int8"``, ...
    nbytes : int
        Bytes that its entries take in the source.
    file : str or None
        File that holds it, relative to the folder; None in memory.
    alias_of : str or None
        For tied weights: the first name, in source order, that stands for the same memory. None for the owner.
    readable : bool
        Whether `TensorSource.read` and `TensorSource.blocks` give it.
    reason : str
        Why it is not readable; empty if it is.

    Examples
    --------
    >>> from rankdiag.checkpoints import TensorInfo
    >>> info = TensorInfo(name="conv.weight", shape=(8, 3, 5, 5), dtype="float32", nbytes=2400)
    >>> info.matrix_shape, info.size, info.readable
    ((8, 75), 600, True)
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    file: str | None = None
    alias_of: str | None = None
    readable: bool = True
    reason: str = ""

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of the tensor seen as a matrix: the first axis, and all others together."""
        if not self.shape:
            return 1, 1
        return self.shape[0], math.prod(self.shape[1:])


def unreadable_reason(dtype: str) -> str:
    """Say why tensors of a dtype are not read; empty if they are.

    Parameters
    ----------
    dtype : str
        Torch's spelling.

    Returns
    -------
    str
        The reason, in a few words.
    """
    if dtype in READABLE:
        return ""
    if dtype.startswith("float8_e8m0"):
        return "float8 exponents: scales of another tensor"
    for family in ("float8", "float6", "float4"):
        if dtype.startswith(family):
            return f"{family} without scales"
    if dtype.startswith("complex"):
        return "complex tensor: no real matrix"
    if dtype == "bool":
        return "bool tensor: a mask, no weights"
    if dtype.startswith(("int", "uint", "quint", "qint", "bits")):
        return "integer tensor: quantised weights without scales, or indices"
    return f"dtype {dtype}: no plain float up to 64 bits"

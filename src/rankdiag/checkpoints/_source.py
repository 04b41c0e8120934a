"""The one interface to tensors, wherever they are: list them, read one, or walk one block by block."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import memory_limit
from rankdiag._validate import describe, integer, string
from rankdiag.checkpoints._info import TensorInfo

__all__ = ["Format", "Span", "TensorSource"]

Format = Literal["module", "state_dict", "safetensors", "sharded", "adapter"]
Span = tuple[int, int]  # first index, and one past the last

_ITEM = 8  # bytes of a float64


class TensorSource(ABC):
    """The tensors of a model or a checkpoint; `open_source` makes one.

    A context manager: leaving it, or `close`, gives back file handles and references. Several threads may read from
    one source at the same time.

    Parameters
    ----------
    location : str
        What was opened, for people: a path, a repo id, or the class of a module.
    format : {"module", "state_dict", "safetensors", "sharded", "adapter"}
        Kind of source; ``"sharded"`` means several files.
    tensors : sequence of TensorInfo
        Every tensor, in source order.
    config : mapping, optional
        Parsed ``config.json`` or ``adapter_config.json``, or the configuration of a module.
    files : sequence of str
        Files that hold the tensors, relative to the folder.
    set_aside : mapping of str to str, optional
        Weight files of the folder that are not read, each with the reason.
    revision : str, optional
        Commit of a repo of the hub.

    Attributes
    ----------
    location, format, config, files, set_aside, revision
        As above; `config` is empty if there is none.
    tensors : tuple of TensorInfo
        Every tensor is accounted for, also those that cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.checkpoints import open_source
    >>> with open_source({"a": np.eye(3, dtype="float32"), "ids": np.arange(4)}) as source:
    ...     for info in source.tensors:
    ...         print(info.name, info.shape, info.dtype, info.reason or "readable")
    ...     [block.shape for block in source.blocks("a", axis=0, max_bytes=2 * 3 * 8)]
    a (3, 3) float32 readable
    ids (4,) int64 integer tensor: quantised weights without scales, or indices
    [(2, 3), (1, 3)]
    """

    def __init__(
        self,
        *,
        location: str,
        format: Format,  # noqa: A002 - the public attribute has this name
        tensors: Sequence[TensorInfo],
        config: Mapping[str, Any] | None = None,
        files: Sequence[str] = (),
        set_aside: Mapping[str, str] | None = None,
        revision: str | None = None,
    ) -> None:
        self.location = location
        self.format: Format = format
        self.tensors = tuple(tensors)
        self.config: Mapping[str, Any] = MappingProxyType(dict(config or {}))
        self.files = tuple(files)
        self.set_aside: Mapping[str, str] = MappingProxyType(dict(set_aside or {}))
        self.revision = revision
        self._infos = {info.name: info for info in self.tensors}
        self._closed = False

    # --- what is there -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<{self.format} {self.location!r}: {len(self.tensors)} tensors{state}>"

    def info(self, name: str) -> TensorInfo:
        """Describe one tensor without reading it.

        Parameters
        ----------
        name : str
            Name of the tensor.

        Returns
        -------
        TensorInfo
            Shape, dtype, where it is, and whether it can be read.

        Raises
        ------
        ValueError
            If there is no such tensor; close names are suggested.
        """
        found = self._infos.get(string(name, "name"))
        if found is None:
            close = difflib.get_close_matches(name, self._infos, n=3) if len(self._infos) < 10_000 else []
            hint = f"; close are {', '.join(map(repr, close))}" if close else ""
            raise ValueError(f"`name` must be a tensor of {self.location!r}; got {describe(name)}{hint}")
        return found

    def module_kind(self, name: str) -> str | None:
        """Name the torch class that owns a parameter.

        Parameters
        ----------
        name : str
            Name of the tensor.

        Returns
        -------
        str or None
            ``"Linear"``, ``"Conv1D"``, ``"Embedding"``, ...; for a parametrised module the class it had before.
            None if the source is no module.
        """
        self.info(name)
        return None

    def module_of(self, name: str) -> Any:
        """Return the torch module that owns a parameter.

        Parameters
        ----------
        name : str
            Name of the tensor.

        Returns
        -------
        torch.nn.Module or None
            The object itself, to be read and left as it is. For a parametrised weight, the module that applies the
            parametrisation. None if the source is no module.
        """
        self.info(name)
        return None

    # --- reading -------------------------------------------------------------------------------------------

    def read(self, name: str) -> NDArray[Any]:
        """Read a whole tensor.

        Parameters
        ----------
        name : str
            Name of the tensor.

        Returns
        -------
        ndarray of float32 or float64
            In its own shape: float32 for 16- and 32-bit floats, which is exact, float64 for 64-bit floats. Either a
            fresh array, or a read-only view of memory that the source stands for. NaN and infinity pass through.

        Raises
        ------
        ValueError
            If there is no such tensor, it is not readable, the source is closed, or the array would exceed the
            memory of this machine.
        CheckpointError
            If the file has changed since it was opened.
        """
        info = self._readable(name)
        dtype = np.float64 if info.dtype == "float64" else np.float32
        _fits(info, info.size * np.dtype(dtype).itemsize)
        rows, columns = info.matrix_shape
        out = np.empty((rows, columns), dtype=dtype)
        if out.size:
            self._fill(info, (0, rows), (0, columns), out)
        return out.reshape(info.shape)

    def blocks(self, name: str, *, axis: Literal[0, -1], max_bytes: int) -> Iterator[NDArray[np.float64]]:
        """Walk a tensor, seen as a matrix of shape (shape[0], prod(shape[1:])), in float64 blocks.

        Parameters
        ----------
        name : str
            Name of the tensor.
        axis : {0, -1}
            0 gives blocks of whole rows, -1 blocks of whole columns.
        max_bytes : int
            Most bytes of one float64 block. A block has at least one row or column, even if that is larger.

        Returns
        -------
        iterator of ndarray of float64
            Fresh C-ordered arrays of shape (rows, n) or (m, columns), all of one size but the last. A tensor without
            entries has no blocks.

        Raises
        ------
        ValueError
            As `read`; also if `axis` is neither 0 nor -1 or `max_bytes` is below 1. Raised by the call itself.
        CheckpointError
            If the file has changed since it was opened.

        Notes
        -----
        Every entry is read once for rows. Column blocks of a file read one piece of each row, or whole rows where the
        pieces are so short that this is cheaper. Memory: the block, and at most 2 MiB to read into. In a plain
        ``for`` loop the last block is still alive while the next is made; ``del block`` at the end of the body
        avoids this.
        """
        info = self._readable(name)
        if integer(axis, "axis") not in (0, -1):
            raise ValueError(f"`axis` must be 0 (row blocks) or -1 (column blocks); got {describe(axis)}")
        limit = integer(max_bytes, "max_bytes", low=1)
        rows, columns = info.matrix_shape
        across, along = (columns, rows) if axis == 0 else (rows, columns)
        step = max(1, limit // max(1, _ITEM * across))
        _fits(info, min(step, along) * across * _ITEM)
        return self._walk(info, axis == 0, along if across else 0, step)

    def _walk(self, info: TensorInfo, by_rows: bool, along: int, step: int) -> Iterator[NDArray[np.float64]]:
        rows, columns = info.matrix_shape
        for start in range(0, along, step):
            span = (start, min(start + step, along))
            yield self._block(info, span, (0, columns)) if by_rows else self._block(info, (0, rows), span)

    def _block(self, info: TensorInfo, rows: Span, columns: Span) -> NDArray[np.float64]:
        self._require_open()
        out = np.empty((rows[1] - rows[0], columns[1] - columns[0]))
        self._fill(info, rows, columns, out)
        return out

    @abstractmethod
    def _fill(self, info: TensorInfo, rows: Span, columns: Span, out: NDArray[Any]) -> None:
        """Write a non-empty rectangle of the matrix into `out`, C-ordered float32 or float64 of its shape."""

    def _readable(self, name: str) -> TensorInfo:
        info = self.info(name)
        self._require_open()
        if not info.readable:
            raise ValueError(f"tensor {info.name!r} of {self.location!r} is not readable: {info.reason}")
        return info

    # --- closing -------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"the source {self.location!r} is closed; open it again to read from it")

    def close(self) -> None:
        """Give back file handles and references; closing twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fits(info: TensorInfo, need: int) -> None:
    have = memory_limit() if need > 1 << 28 else need
    if need > have:
        raise ValueError(
            f"tensor {info.name!r} of shape {info.shape} needs {need / 1e9:.1f} GB at once, more than the "
            f"{have / 1e9:.1f} GB of this machine; walk it with `blocks` and a smaller `max_bytes`"
        )

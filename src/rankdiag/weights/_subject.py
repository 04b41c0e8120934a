"""What is measured, with which options, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rankdiag.weights._views import LowRankView, Reader, View

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["Bound", "Measured", "Options", "Subject"]

Floats = NDArray[np.float64]
_TOP_ONLY = frozenset({"stable_rank", "spectral", "fro"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured and how; checked already.

    Attributes
    ----------
    wanted : frozenset of str
        Names out of `MEASURED`.
    method : str
        ``"auto"`` or a route of `rankdiag.spectral.spectrum`.
    max_bytes : int
        A matrix above this many float64 bytes is streamed.
    baseline : {"mp", "shuffle"}
        Closed form, or a shuffled copy.
    """

    wanted: frozenset[str]
    method: Literal["auto", "svd", "qr_svd", "gram"] = "auto"
    max_bytes: int = 1 << 26
    baseline: Literal["mp", "shuffle"] = "mp"

    @property
    def top_only(self) -> bool:
        """Whether the largest value and the Frobenius norm are all that is needed."""
        return self.wanted <= _TOP_ONLY and self.method == "auto"


@dataclass(slots=True)
class Measured:
    """Readings of one matrix, by column.

    Attributes
    ----------
    cells : dict
        Column -> value.
    nulls : dict
        Column -> why there is none.
    remarks : list of str
        What else a reader has to know.
    sketch : tuple of float
        Spectrum over its largest value at a few positions.
    entries : int
        Entries that were read.
    non_finite : int
        NaN and infinite entries; nothing else is known if there are any.
    zero : bool
        Whether every entry is zero.
    spectrum : Spectrum or None
        The singular values, if they were to be kept.
    """

    cells: dict[str, Any] = field(default_factory=dict)
    nulls: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    sketch: tuple[float, ...] = ()
    entries: int = 0
    non_finite: int = 0
    zero: bool = False
    spectrum: Spectrum | None = None


class Subject(Protocol):
    """A matrix that can be read: the view of a tensor bound to its reader, or the difference of two."""

    @property
    def view(self) -> View:
        """Shape, pooling and whether blocks can be read."""
        ...

    @property
    def dtype(self) -> str:
        """Stored dtype."""
        ...

    def dense(self) -> NDArray[Any]:
        """Return the matrix (m, n), or the pooled ones (pool, m, n)."""
        ...

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Yield row blocks (axis 0) or column blocks (axis -1) in float64."""
        ...

    def factors(self) -> tuple[Floats, Floats, float] | None:
        """Return B, A and the scaling of a low-rank update, None for any other matrix."""


@dataclass(slots=True)
class Bound:
    """A view and the reader of its source."""

    view: View
    reader: Reader
    dtype: str

    def dense(self) -> NDArray[Any]:
        """Return the matrix."""
        return self.view.dense(self.reader)

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Yield its blocks."""
        return self.view.blocks(self.reader, axis=axis, max_bytes=max_bytes)

    def factors(self) -> tuple[Floats, Floats, float] | None:
        """Return its factors, if it has any."""
        if not isinstance(self.view, LowRankView):
            return None
        left, right = self.view.factors(self.reader)
        return left, right, self.view.scaling

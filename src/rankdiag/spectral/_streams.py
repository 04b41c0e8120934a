"""Spectra of matrices that never fit into memory: block after block, by Gram sums or by a tall-skinny QR."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe, integer, string
from rankdiag.spectral._decompose import (
    EPS64,
    SAFE_EXPONENT,
    Decomposition,
    binary_exponent,
    gram_bound,
    in_units,
    rescale,
    sqrt_clipped,
    svd_bound,
)
from rankdiag.spectral._spectrum import Spectrum, checked_shape, make_spectrum

__all__ = ["GramAccumulator", "QRAccumulator"]


_NOTHING = -(1 << 20)  # exponent below any float64: nothing but zeros so far
_PANEL = 32  # columns that LAPACK factors at once; 16 to 64 measured alike


class _Accumulator:
    """What both accumulators share: the checks, the running power of two, and the rows seen."""

    def __init__(self, side: int, *, shape: tuple[int, int], input_dtype: str) -> None:
        self.side = integer(side, "side", low=1)
        self.shape = checked_shape(shape)
        if self.side not in self.shape:
            raise ValueError(f"`side` must be one of the two sides of `shape` {self.shape}; got {self.side}")
        self.input_dtype = string(input_dtype, "input_dtype")
        self.rows = 0
        self.updates = 0
        self._exponent = _NOTHING
        self._square = np.zeros((self.side, self.side), order="F")  # upper triangle only, as LAPACK likes it

    def _enter(self, block: Any) -> NDArray[np.float64]:
        """Check a block and bring it to the running scale; the state is rescaled when the block is larger."""
        array = as_float64(block, "block", ndim=2, expected="a block (rows, side)")
        if array.shape[1] != self.side:
            raise ValueError(f"`block` must have {self.side} columns, the side; got shape {array.shape}")
        if array.any():
            exponent = int(binary_exponent(array))
            if abs(exponent) <= SAFE_EXPONENT["float64"]:
                exponent = 0
            if exponent > self._exponent:
                self._rise_to(exponent)
        self.rows += array.shape[0]
        self.updates += 1
        return array if self._exponent in {0, _NOTHING} else rescale(array, -self._exponent)

    def _rise_to(self, exponent: int) -> None:
        raise NotImplementedError

    def _checked_other(self, other: Any) -> None:
        if type(other) is not type(self):
            raise TypeError(f"`other` must be a {type(self).__name__}; got {describe(other)}")
        if (other.side, other.shape) != (self.side, self.shape):
            raise ValueError(
                f"`other` must stream the same matrix, side {self.side} of shape {self.shape}; got side {other.side} "
                f"of shape {other.shape}"
            )

    def _check_complete(self) -> None:
        expected = self.shape[0] * self.shape[1] // self.side
        if self.rows != expected:
            raise ValueError(
                f"`shape` {self.shape} has {expected} rows of {self.side} entries; {self.rows} have been given by "
                "update and merge"
            )

    def _finish(
        self, values: NDArray[np.float64], bound: NDArray[np.float64], method: Literal["gram", "qr_svd"]
    ) -> Spectrum:
        exponent = np.asarray(0 if self._exponent == _NOTHING else self._exponent)
        frobenius = np.asarray(np.sqrt((values * values).sum()))
        found = in_units(Decomposition(values, np.asarray(bound), frobenius, method), exponent, "block")
        return make_spectrum(
            found,
            shape=self.shape,
            input_dtype=self.input_dtype,
            details={"streamed_blocks": self.updates},
        )


class GramAccumulator(_Accumulator):
    """Gram matrix of a streamed matrix, for every measure that is a sum over the spectrum.

    Adds ``block.T @ block`` in float64, under a running power of two, so entries of any size from 1e-300 to 1e300 may
    come in any order. A wide matrix (m < n) is fed as transposed column blocks with ``side=m``.

    Parameters
    ----------
    side : int
        Columns of every block; the smaller of the two sides costs least.
    shape : tuple of int
        (m, n) of the whole matrix.
    input_dtype : str
        Dtype that the matrix is stored in; sets the default tolerance of `Spectrum.numerical_rank`.

    Notes
    -----
    Time: rows * side^2 flops a block and (4/3) side^3 at the end. Memory: one block and one (side, side) float64
    array, a second one while `spectrum` runs.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.spectral import GramAccumulator
    >>> stream = GramAccumulator(2, shape=(4, 2), input_dtype="float64")
    >>> for block in (np.diag([3.0, 0.0]), np.diag([0.0, 1.0])):
    ...     stream.update(block)
    >>> stream.spectrum().values.round(12).tolist()
    [3.0, 1.0]
    """

    def update(self, block: Any) -> None:
        """Add a block of rows.

        Parameters
        ----------
        block : array-like, shape (rows, side)
            The next rows, in any order.

        Raises
        ------
        TypeError
            If it is no array of real numbers.
        ValueError
            If its shape is wrong or an entry is not finite.
        """
        from scipy.linalg import get_blas_funcs

        array = self._enter(block)
        rows_first = array.flags.c_contiguous
        # adds one triangle in place: half the flops, and no second square
        syrk: Any = get_blas_funcs("syrk", dtype=np.float64)
        self._square = syrk(
            1.0,
            array.T if rows_first else np.asfortranarray(array),
            trans=not rows_first,
            beta=1.0,
            c=self._square,
            overwrite_c=True,
        )

    def _rise_to(self, exponent: int) -> None:
        if self.rows and self._square.any():
            self._square = np.asfortranarray(rescale(self._square, max(2 * (self._exponent - exponent), -2200)))
        self._exponent = exponent

    def merge(self, other: GramAccumulator) -> GramAccumulator:
        """Add what another accumulator of the same matrix has seen; `other` is left as it was.

        Parameters
        ----------
        other : GramAccumulator
            Of the same side and shape.

        Returns
        -------
        GramAccumulator
            This one.

        Raises
        ------
        TypeError
            If it is of another kind.
        ValueError
            If it belongs to a matrix of another shape.
        """
        self._checked_other(other)
        if other._square.any():
            if other._exponent > self._exponent:
                self._rise_to(other._exponent)
            shift = max(2 * (other._exponent - self._exponent), -2200)
            self._square += rescale(other._square, shift) if shift else other._square
        self.rows += other.rows
        self.updates += other.updates
        return self

    def spectrum(self) -> Spectrum:
        """Return the spectrum of all rows seen; more may be added later.

        Returns
        -------
        Spectrum
            With method ``"gram"`` and its error bound.

        Raises
        ------
        ValueError
            If the rows seen are not those of `shape`.
        """
        self._check_complete()
        values = sqrt_clipped(np.linalg.eigvalsh(self._square, UPLO="U"))[: min(self.shape)]
        return self._finish(values, gram_bound(values[0], self.shape, EPS64, self.updates), "gram")


class QRAccumulator(_Accumulator):
    """Triangular factor of a streamed matrix, for everything that needs small singular values.

    Keeps R of a tall-skinny QR, so values are as accurate as those of an SVD of the whole. A wide matrix (m < n) is
    fed as transposed column blocks with ``side=m``.

    Parameters
    ----------
    side : int
        Columns of every block; the smaller of the two sides costs least.
    shape : tuple of int
        (m, n) of the whole matrix.
    input_dtype : str
        Dtype that the matrix is stored in; sets the default tolerance of `Spectrum.numerical_rank`.

    Notes
    -----
    Time: 2 rows side^2 flops a block and O(side^3) at the end. Memory: one block and two (side, side)
    float64 arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.spectral import QRAccumulator
    >>> stream = QRAccumulator(2, shape=(4, 2), input_dtype="float64")
    >>> for block in (np.diag([3.0, 0.0]), np.diag([0.0, 1.0])):
    ...     stream.update(block)
    >>> stream.spectrum().values.round(12).tolist()
    [3.0, 1.0]
    """

    def update(self, block: Any) -> None:
        """Add a block of rows.

        Parameters
        ----------
        block : array-like, shape (rows, side)
            The next rows, in any order.

        Raises
        ------
        TypeError
            If it is no array of real numbers.
        ValueError
            If its shape is wrong or an entry is not finite.
        """
        self._fold(self._enter(block))

    def _fold(self, rows: NDArray[np.float64]) -> None:
        """Rotate rows into the triangle, `side` of them at a time so that their copy stays small."""
        from scipy.linalg import get_lapack_funcs

        tpqrt: Any = get_lapack_funcs("tpqrt", dtype=np.float64)  # the upper part is triangular: half the flops of a QR
        for start in range(0, len(rows), self.side):
            chunk = np.array(rows[start : start + self.side], order="F")
            self._square, _, _, info = tpqrt(
                0, min(_PANEL, self.side), self._square, chunk, overwrite_a=True, overwrite_b=True
            )
            if info:
                raise np.linalg.LinAlgError(f"the QR update failed with LAPACK info {info}")

    def _rise_to(self, exponent: int) -> None:
        if self.rows and self._square.any():
            self._square = np.asfortranarray(rescale(self._square, max(self._exponent - exponent, -1100)))
        self._exponent = exponent

    def merge(self, other: QRAccumulator) -> QRAccumulator:
        """Add what another accumulator of the same matrix has seen; `other` is left as it was.

        Parameters
        ----------
        other : QRAccumulator
            Of the same side and shape.

        Returns
        -------
        QRAccumulator
            This one.

        Raises
        ------
        TypeError
            If it is of another kind.
        ValueError
            If it belongs to a matrix of another shape.
        """
        self._checked_other(other)
        if other._square.any():
            if other._exponent > self._exponent:
                self._rise_to(other._exponent)
            shift = max(other._exponent - self._exponent, -1100)
            triangle = np.triu(other._square)
            self._fold(rescale(triangle, shift) if shift else triangle)
        self.rows += other.rows
        self.updates += other.updates
        return self

    def spectrum(self) -> Spectrum:
        """Return the spectrum of all rows seen; more may be added later.

        Returns
        -------
        Spectrum
            With method ``"qr_svd"`` and its error bound.

        Raises
        ------
        ValueError
            If the rows seen are not those of `shape`.
        """
        self._check_complete()
        values = np.linalg.svd(np.triu(self._square), compute_uv=False)[: min(self.shape)].astype(np.float64)
        return self._finish(values, svd_bound(values[0], self.shape, EPS64), "qr_svd")

"""Array kinds that every numeric test runs on, with the tolerances that go with them.

A reading is computed in float64 whatever came in, so it must agree with the float64 reading *of the rounded input*
as closely as two float64 readings agree; rounding itself is only felt when the unrounded values are the yardstick.
Both comparisons have their own tolerance here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankdiag._array import as_float64
from rankdiag._validate import boolean, real

__all__ = ["BACKENDS", "Backend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One kind of array: a library and a dtype.

    Attributes
    ----------
    name : str
        Name for test ids, ``"torch-bfloat16"``.
    library : {"numpy", "torch"}
        Whose array it is; torch is imported on first use.
    dtype : str
        Dtype by name.
    rtol : float
        Relative tolerance against float64 of the rounded input: 1e-10 for every dtype.
    rtol_ill : float
        The same after a decomposition of an ill-conditioned input: 1e-7.
    rtol_input : float
        Relative tolerance against the values before rounding: what one rounding of every entry does to a
        well-conditioned reading.

    Examples
    --------
    >>> import rankdiag as rd
    >>> from rankdiag.testing import BACKENDS
    >>> xp = next(backend for backend in BACKENDS if backend.name == "numpy-float32")
    >>> a = [[3.0, 0.1], [0.0, 1.0]]
    >>> xp.assert_close(rd.effective_rank(xp.asarray(a)), rd.effective_rank(xp.rounded(a)))
    """

    name: str
    library: Literal["numpy", "torch"]
    dtype: str
    rtol: float = 1e-10
    rtol_ill: float = 1e-7
    rtol_input: float

    def asarray(self, values: ArrayLike) -> Any:
        """Return the values as a fresh array of this kind, rounded to its dtype.

        Parameters
        ----------
        values : array-like
            Numbers of any shape.

        Returns
        -------
        ndarray or torch.Tensor
            Shares no memory with `values`.

        Raises
        ------
        TypeError
            If `values` holds no numbers.
        """
        wide = np.array(as_float64(values, "values", allow_empty=True, finite=False), dtype=np.float64, copy=True)
        if self.library == "numpy":
            with np.errstate(over="ignore"):  # an entry beyond the dtype becomes infinity, as a cast does
                return wide.astype(self.dtype)
        import torch

        return torch.from_numpy(wide).to(getattr(torch, self.dtype))

    def rounded(self, values: ArrayLike) -> NDArray[np.float64]:
        """Return what `asarray` holds after rounding, as float64: the input of the reference computation.

        Parameters
        ----------
        values : array-like
            Numbers of any shape.

        Returns
        -------
        ndarray of float64
            Same shape.

        Raises
        ------
        TypeError
            If `values` holds no numbers.
        """
        array: NDArray[np.float64] = as_float64(self.asarray(values), "values", allow_empty=True, finite=False)
        return array

    def assert_close(
        self,
        actual: Any,
        expected: ArrayLike,
        *,
        ill_conditioned: bool = False,
        before_rounding: bool = False,
        atol: float = 0.0,
    ) -> None:
        """Compare two readings with the tolerance of this kind of array.

        Parameters
        ----------
        actual : float, ndarray or torch.Tensor
            What was computed from `asarray`.
        expected : array-like
            What was computed in float64, from `rounded` or from the values themselves.
        ill_conditioned : bool
            Whether the reading passed through a decomposition of an ill-conditioned input.
        before_rounding : bool
            Whether `expected` comes from the values before rounding.
        atol : float
            Absolute tolerance, for numbers that are small beside the terms they are the sum of.

        Raises
        ------
        AssertionError
            If they differ; the text shows where.
        TypeError
            If an option has the wrong type.
        ValueError
            If `atol` is negative.
        """
        rtol = self.rtol_ill if boolean(ill_conditioned, "ill_conditioned") else self.rtol
        if boolean(before_rounding, "before_rounding"):
            rtol = max(rtol, self.rtol_input)
        np.testing.assert_allclose(
            as_float64(actual, "actual", allow_empty=True, finite=False),
            as_float64(expected, "expected", allow_empty=True, finite=False),
            rtol=rtol,
            atol=real(atol, "atol", low=0.0),
            err_msg=self.name,
        )


BACKENDS: tuple[Backend, ...] = (
    Backend(name="numpy-float64", library="numpy", dtype="float64", rtol_input=1e-10),
    Backend(name="numpy-float32", library="numpy", dtype="float32", rtol_input=1e-4),
    Backend(name="torch-float64", library="torch", dtype="float64", rtol_input=1e-10),
    Backend(name="torch-float32", library="torch", dtype="float32", rtol_input=1e-4),
    Backend(name="torch-bfloat16", library="torch", dtype="bfloat16", rtol_input=5e-2),
)

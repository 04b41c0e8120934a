"""Exact policies over finitely many outputs: what a distribution and a kernel must be, checked in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64

__all__ = ["as_kernel", "as_probs", "as_rewards", "kernel_product"]

Floats = NDArray[np.float64]

_SUM_TOLERANCE = 1e-8  # the rule of the room for probabilities given by the user
_SYMMETRY_TOLERANCE = 1e-8  # of the largest entry: a product Phi Phi^T in another order differs by rounding only


def as_probs(value: Any, name: str = "probs") -> Floats:
    """Check probabilities over the last axis and return them as float64.

    Parameters
    ----------
    value : array-like or torch.Tensor, shape (..., Y)
        Non-negative, and adding up to 1 within 1e-8 along the last axis; never rescaled.
    name : str
        Name of the argument in messages.

    Returns
    -------
    ndarray of float64, shape (..., Y)
        May share memory with the input, so callers must not write into it.

    Raises
    ------
    TypeError
        If it is no array of real numbers.
    ValueError
        If it is empty or has no axis, or an entry is negative, NaN or infinite, or a row does not add up to 1.

    Examples
    --------
    >>> from rankdiag.rewards._exact import as_probs
    >>> as_probs([0.25, 0.75]).tolist()
    [0.25, 0.75]
    """
    array = as_float64(value, name, min_ndim=1, expected="probabilities (..., Y)")
    if (array < 0).any():
        place = tuple(int(i) for i in np.unravel_index(int((array < 0).argmax()), array.shape))
        raise ValueError(f"`{name}` must be non-negative; got {float(array[place]):g} at index {place}")
    with np.errstate(over="ignore"):  # entries of 1e308 add up to infinity, which is refused below
        total = array.sum(axis=-1)
    wrong = ~(np.abs(total - 1.0) <= _SUM_TOLERANCE)
    if wrong.any():
        found = float(np.ravel(total)[int(np.ravel(wrong).argmax())])
        raise ValueError(
            f"`{name}` must sum to 1 within {_SUM_TOLERANCE:g} along the last axis (got {found:.12g}); "
            "apply softmax in float64, or divide by the sum"
        )
    return array


def as_rewards(value: Any, name: str, size: int) -> Floats:
    """Check one finite reward for each of `size` outputs along the last axis.

    Parameters
    ----------
    value : array-like or torch.Tensor, shape (..., Y)
        Rewards.
    name : str
        Name of the argument in messages.
    size : int
        Y, the number of outputs.

    Returns
    -------
    ndarray of float64, shape (..., Y)
        May share memory with the input.

    Raises
    ------
    TypeError
        If it is no array of real numbers.
    ValueError
        If an entry is NaN or infinite, or the last axis has not `size` entries.
    """
    array = as_float64(value, name, min_ndim=1, expected=f"one reward for each of the {size} outputs")
    if array.shape[-1] != size:
        raise ValueError(f"`{name}` must hold one reward for each of the {size} outputs; got shape {array.shape}")
    return array


def as_kernel(value: Any, name: str, size: int) -> Floats | None:
    """Check a kernel between outputs and return it as float64; None stays None and means the identity.

    Parameters
    ----------
    value : array-like or torch.Tensor or None, shape (Y, Y)
        Symmetric; entry (y, y') says how far a step on the logit of y' moves that of y.
    name : str
        Name of the argument in messages.
    size : int
        Y, the number of outputs.

    Returns
    -------
    ndarray of float64, shape (Y, Y), or None
        May share memory with the input.

    Raises
    ------
    TypeError
        If it is no array of real numbers.
    ValueError
        If it is not (Y, Y), not finite, or differs from its transpose by more than 1e-8 of its largest entry.

    Examples
    --------
    >>> from rankdiag.rewards._exact import as_kernel
    >>> as_kernel([[2, 1], [1, 2]], "kernel", 2).tolist()
    [[2.0, 1.0], [1.0, 2.0]]
    """
    if value is None:
        return None
    array = as_float64(value, name, expected="a kernel (Y, Y)")
    if array.shape != (size, size):
        raise ValueError(
            f"`{name}` must be symmetric (Y, Y) with Y={size}, the number of outputs; got shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # entries of opposite sign near 1e308 differ by infinity, which is refused
        gap = float(np.abs(array - array.T).max())
    if gap > _SYMMETRY_TOLERANCE * float(np.abs(array).max()):
        raise ValueError(
            f"`{name}` must be symmetric (Y, Y); it differs from its transpose by up to {gap:g}. Pass (K + K.T) / 2"
        )
    return array


def kernel_product(kernel: Floats | None, v: Floats) -> Floats:
    """Multiply vectors along the last axis by a symmetric kernel; None is the identity.

    Parameters
    ----------
    kernel : ndarray of float64 or None, shape (Y, Y)
        As `as_kernel` returns it.
    v : ndarray of float64, shape (..., Y)
        Vectors.

    Returns
    -------
    ndarray of float64, shape (..., Y)
        ``kernel @ v`` for each vector; `v` itself (not a copy) for the identity.

    Notes
    -----
    Time O(Y^2) for each vector, nothing for the identity. Overflow gives infinity, or NaN where infinities cancel,
    without a warning.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.rewards._exact import kernel_product
    >>> kernel_product(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([1.0, -1.0])).tolist()
    [1.0, -1.0]
    """
    if kernel is None:
        return v
    with np.errstate(over="ignore", invalid="ignore"):
        product: Floats = v @ kernel.T  # the transpose, so that a kernel asymmetric by rounding acts from the left
    return product

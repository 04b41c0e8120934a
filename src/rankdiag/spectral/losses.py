"""Differentiable twins of the measures: torch in, torch out, gradients kept, usable as regularizers.

Each equals its plain twin in value. All are invariant under scaling, so every matrix is first scaled by a power of two,
which changes neither values nor gradients. A zero matrix gives 0 with a zero gradient. Half precision is computed in
float32 and comes back in the dtype that came in.
"""

from __future__ import annotations

from typing import Literal

import torch

from rankdiag._array import refuse_size
from rankdiag._validate import describe
from rankdiag.spectral._options import is_energy

__all__ = ["effective_rank_loss", "participation_ratio_loss", "stable_rank_loss"]

_HALF = {torch.float16, torch.bfloat16}
_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64)


def effective_rank_loss(matrix: torch.Tensor, *, weights: Literal["sigma", "energy"] = "sigma") -> torch.Tensor:
    r"""Return the effective rank as a differentiable tensor.

    Minimise it to concentrate a matrix on few directions, maximise it to spread it over many.

    Parameters
    ----------
    matrix : torch.Tensor, shape (..., m, n)
        Of dtype float64, float32, float16, bfloat16, complex128 or complex64, on any device.
    weights : {"sigma", "energy"}
        Probabilities from singular values or from their squares.

    Returns
    -------
    torch.Tensor, shape (...)
        Real, of the precision and device of `matrix`.

    Raises
    ------
    TypeError
        If `matrix` is no dense tensor of such a dtype.
    ValueError
        If it is not at least 2-D, is empty, not finite, without data, or beyond this machine's memory, or `weights` is
        unknown.

    Notes
    -----
    Definition: :math:`\exp(-\sum_i p_i \log p_i)`; see `rankdiag.spectral.effective_rank`. The gradient needs only
    singular values, :math:`d s_i = u_i^T \, dA \, v_i`, so it is stable for repeated values too. The slope towards a
    value that is exactly 0 is infinite; it is taken as 0, like the value's own contribution.

    Cost: one SVD with vectors when a gradient is wanted, without them otherwise.

    References
    ----------
    O. Roy, M. Vetterli (2007), The effective rank: a measure of effective dimensionality, equation (2).

    Examples
    --------
    >>> import torch
    >>> from rankdiag.spectral import effective_rank_loss
    >>> a = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    >>> loss = effective_rank_loss(a)
    >>> round(loss.item(), 6)
    1.754765
    >>> loss.backward()
    >>> [round(x, 6) + 0.0 for x in a.grad.diagonal().tolist()]
    [-0.120488, 0.361464]
    """
    energy = is_energy(weights)
    t = torch.linalg.svdvals(_scaled(matrix))
    if energy:
        t = t * t
    positive = t > 0
    safe = torch.where(positive, t, 1.0)
    total, alive = _safe(t.sum(dim=-1))
    spread = torch.where(positive, safe * safe.log(), 0.0).sum(dim=-1)
    return _finish(total * torch.exp(-spread / total), alive, matrix)


def participation_ratio_loss(matrix: torch.Tensor) -> torch.Tensor:
    r"""Return the participation ratio as a differentiable tensor, without a decomposition.

    The cheapest of the three: two matrix products, gradients that are safe everywhere.

    Parameters
    ----------
    matrix : torch.Tensor, shape (..., m, n)
        Of dtype float64, float32, float16, bfloat16, complex128 or complex64, on any device.

    Returns
    -------
    torch.Tensor, shape (...)
        Real, of the precision and device of `matrix`.

    Raises
    ------
    TypeError
        If `matrix` is no dense tensor of such a dtype.
    ValueError
        If it is not at least 2-D, is empty, not finite, without data, or beyond this machine's memory.

    Notes
    -----
    Definition: :math:`(\operatorname{tr} G)^2 / \operatorname{tr} G^2` with the Gram matrix G of the smaller side; see
    `rankdiag.spectral.participation_ratio`.

    Cost: M n^2 multiplications with M >= n the two sides, memory n^2.

    References
    ----------
    F. Wegner (1980), Inverse participation ratio in 2 + epsilon dimensions.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.spectral import participation_ratio_loss
    >>> a = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> round(participation_ratio_loss(a).item(), 6)
    1.219512
    """
    x = _scaled(matrix)
    gram = x.mH @ x if x.shape[-2] >= x.shape[-1] else x @ x.mH
    energy = gram.diagonal(dim1=-2, dim2=-1).real.sum(dim=-1) if x.is_complex() else _trace(gram)
    squares = (gram * gram.conj()).real if gram.is_complex() else gram * gram
    fourth, alive = _safe(squares.sum(dim=(-2, -1)))
    return _finish(energy * energy / fourth, alive, matrix)


def stable_rank_loss(matrix: torch.Tensor) -> torch.Tensor:
    r"""Return the stable rank as a differentiable tensor.

    Its gradient acts through the largest singular value and the Frobenius norm alone.

    Parameters
    ----------
    matrix : torch.Tensor, shape (..., m, n)
        Of dtype float64, float32, float16, bfloat16, complex128 or complex64, on any device.

    Returns
    -------
    torch.Tensor, shape (...)
        Real, of the precision and device of `matrix`.

    Raises
    ------
    TypeError
        If `matrix` is no dense tensor of such a dtype.
    ValueError
        If it is not at least 2-D, is empty, not finite, without data, or beyond this machine's memory.

    Notes
    -----
    Definition: :math:`\|A\|_F^2 / \|A\|_2^2`; see `rankdiag.spectral.stable_rank`. Where the largest value is repeated,
    the gradient is that of one of its directions, a subgradient.

    Cost: one SVD with vectors when a gradient is wanted, without them otherwise.

    References
    ----------
    M. Rudelson, R. Vershynin (2007), Sampling from large matrices, section 1.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.spectral import stable_rank_loss
    >>> a = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> round(stable_rank_loss(a).item(), 6)
    1.111111
    """
    values = torch.linalg.svdvals(_scaled(matrix))
    top, alive = _safe(values[..., 0])
    relative = values / top.unsqueeze(-1)
    return _finish((relative * relative).sum(dim=-1), alive, matrix)


def _trace(gram: torch.Tensor) -> torch.Tensor:
    return gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _scaled(matrix: torch.Tensor) -> torch.Tensor:
    """Check the argument, widen half precision, and bring the largest entry of every matrix to [0.5, 1)."""
    if not isinstance(matrix, torch.Tensor):
        raise TypeError(f"`matrix` must be a torch tensor; got {describe(matrix)}. For arrays use the plain measures")
    if matrix.is_nested or matrix.layout != torch.strided:
        raise TypeError(f"`matrix` must be one dense tensor; got {describe(matrix)}. Call .to_dense() first")
    if matrix.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        raise TypeError(f"`matrix` must be a tensor of dtype {names}; got {matrix.dtype}")
    shape = tuple(matrix.shape)
    if matrix.device.type == "meta":
        raise ValueError(f"`matrix` is on the meta device and has no data; got shape {shape}")
    if matrix.device.type == "cpu":
        refuse_size(matrix.numel(), "matrix", shape)
    if matrix.ndim < 2:
        raise ValueError(f"`matrix` must be at least 2-D (..., m, n); expected a matrix, got shape {shape}")
    if 0 in shape:
        raise ValueError(f"`matrix` must not be empty; got shape {shape}")
    x = matrix.to(torch.float32) if matrix.dtype in _HALF else matrix
    size = (torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()).abs()
    largest = size.amax(dim=(-3, -2, -1) if x.is_complex() else (-2, -1), keepdim=True)
    if x.is_complex():
        largest = largest.squeeze(-1)
    if not bool(torch.isfinite(largest).all()):
        count = int((~torch.isfinite(matrix.detach())).sum())
        raise ValueError(f"`matrix` has {count} non-finite entries (NaN or infinity); got shape {shape}")
    exponent = torch.frexp(largest).exponent
    half = exponent // 2  # in two steps: a power of two beyond the format would be infinite
    one = torch.ones_like(largest)
    return x * torch.ldexp(one, -half) * torch.ldexp(one, half - exponent)


def _safe(divisor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a divisor of 0, which only a zero matrix has, by 1; also return where it is positive."""
    alive = divisor > 0
    return torch.where(alive, divisor, 1.0), alive


def _finish(value: torch.Tensor, alive: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Put 0, with a zero gradient, where the matrix is zero, and return to the precision that came in."""
    result = torch.where(alive, value, torch.zeros_like(value))
    return result.to(matrix.dtype) if matrix.dtype in _HALF else result

"""Differentiable twins of the CHES scores, on torch tensors: for use inside training code."""

from __future__ import annotations

from typing import Any

import torch

from rankdiag._validate import describe

__all__ = ["ches_loss", "ln_ches_loss", "relative_ches_loss"]


def ches_loss(
    chosen: torch.Tensor, chosen_mask: torch.Tensor, rejected: torch.Tensor, rejected_mask: torch.Tensor
) -> torch.Tensor:
    """CHES score of each pair of a padded batch, differentiable in the states.

    Parameters
    ----------
    chosen : torch.Tensor, shape (N, T, d)
        Hidden states of any float dtype; what lies under False is never read.
    chosen_mask : torch.Tensor of bool, shape (N, T)
        True exactly at the states that predict a token of the response; padding on any side.
    rejected : torch.Tensor, shape (N, T', d)
        The same of the rejected responses; T' need not be T.
    rejected_mask : torch.Tensor of bool, shape (N, T')
        Their mask.

    Returns
    -------
    torch.Tensor, shape (N,)
        <S+, S-> - ||S+||^2, float64 for float64 states and else float32, on their device. Its mean, added to a loss,
        pushes the states of two responses apart.

    Raises
    ------
    TypeError
        If an argument is no tensor, or a mask is not boolean.
    ValueError
        If shapes do not fit, or a response has no states.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.preference.losses import ches_loss
    >>> a, b = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]]), torch.tensor([[[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]]])
    >>> ches_loss(a, torch.ones(1, 2, dtype=torch.bool), b, torch.ones(1, 3, dtype=torch.bool))
    tensor([3.])
    """
    plus, minus, _, _ = _sums(chosen, chosen_mask, rejected, rejected_mask)
    return (plus * (minus - plus)).sum(dim=1)


def ln_ches_loss(
    chosen: torch.Tensor, chosen_mask: torch.Tensor, rejected: torch.Tensor, rejected_mask: torch.Tensor
) -> torch.Tensor:
    """Length-normalised CHES score of each pair of a padded batch, differentiable in the states.

    Parameters
    ----------
    chosen : torch.Tensor
        See `ches_loss`.
    chosen_mask : torch.Tensor of bool
        See `ches_loss`.
    rejected : torch.Tensor
        See `ches_loss`.
    rejected_mask : torch.Tensor of bool
        See `ches_loss`.

    Returns
    -------
    torch.Tensor, shape (N,)
        <mu+, mu- - mu+> with the means of the states.

    Raises
    ------
    TypeError
        See `ches_loss`.
    ValueError
        See `ches_loss`.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.preference.losses import ln_ches_loss
    >>> a, b = torch.tensor([[[2.0], [2.0]]]), torch.tensor([[[3.0]]])
    >>> ln_ches_loss(a, torch.ones(1, 2, dtype=torch.bool), b, torch.ones(1, 1, dtype=torch.bool))
    tensor([2.])
    """
    plus, minus, n_plus, n_minus = _sums(chosen, chosen_mask, rejected, rejected_mask)
    mean = plus / n_plus[:, None]
    return (mean * (minus / n_minus[:, None] - mean)).sum(dim=1)


def relative_ches_loss(
    chosen: torch.Tensor, chosen_mask: torch.Tensor, rejected: torch.Tensor, rejected_mask: torch.Tensor
) -> torch.Tensor:
    """Scale-free CHES score of each pair of a padded batch, differentiable in the states.

    Parameters
    ----------
    chosen : torch.Tensor
        See `ches_loss`.
    chosen_mask : torch.Tensor of bool
        See `ches_loss`.
    rejected : torch.Tensor
        See `ches_loss`.
    rejected_mask : torch.Tensor of bool
        See `ches_loss`.

    Returns
    -------
    torch.Tensor, shape (N,)
        CHES / ||S+ - S-||^2; NaN, with NaN gradients, where both sums are equal.

    Raises
    ------
    TypeError
        See `ches_loss`.
    ValueError
        See `ches_loss`.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.preference.losses import relative_ches_loss
    >>> a, b = torch.tensor([[[1.0]]]), torch.tensor([[[3.0]]])
    >>> relative_ches_loss(a, torch.ones(1, 1, dtype=torch.bool), b, torch.ones(1, 1, dtype=torch.bool))
    tensor([0.5000])
    """
    plus, minus, _, _ = _sums(chosen, chosen_mask, rejected, rejected_mask)
    difference = minus - plus
    return (plus * difference).sum(dim=1) / difference.square().sum(dim=1)


def _sums(
    chosen: Any, chosen_mask: Any, rejected: Any, rejected_mask: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    found = []
    for states, mask, name in ((chosen, chosen_mask, "chosen"), (rejected, rejected_mask, "rejected")):
        if not isinstance(states, torch.Tensor) or not states.is_floating_point():
            raise TypeError(f"`{name}` must be a float tensor of states (N, T, d); got {describe(states)}")
        if states.ndim != 3:
            raise ValueError(f"`{name}` must have shape (N, T, d); got {tuple(states.shape)}")
        if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"`{name}_mask` must be a boolean tensor; got {describe(mask)}")
        if mask.shape != states.shape[:2]:
            raise ValueError(
                f"`{name}_mask` must have the shape of its states, {tuple(states.shape[:2])}; got {tuple(mask.shape)}"
            )
        if not bool(mask.any(dim=1).all()):
            raise ValueError(f"`{name}_mask` must be True somewhere in every row: a response has at least one state")
        wide = states if states.dtype == torch.float64 else states.float()
        kept = torch.where(mask[..., None], wide, torch.zeros((), dtype=wide.dtype, device=wide.device))
        found.append((kept.sum(dim=1), mask.sum(dim=1)))
    (plus, n_plus), (minus, n_minus) = found
    if plus.shape != minus.shape:
        raise ValueError(
            f"`rejected` must hold as many pairs of the same width as `chosen`; got {tuple(rejected.shape)}"
        )
    return plus, minus, n_plus, n_minus

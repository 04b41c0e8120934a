"""Differentiable twins of the measures: torch in, torch out, gradients kept.

Each equals its plain twin in value. A zero matrix gives 0 with a zero gradient. Half precision is computed in float32
and returned in the dtype that came in.
"""

from __future__ import annotations

from typing import Literal

import torch

from rankdiag._validate import choice, describe

__all__ = ["effective_rank_loss", "participation_ratio_loss", "stable_rank_loss"]


def effective_rank_loss(matrix: torch.Tensor, *, weights: Literal["sigma", "energy"] = "sigma") -> torch.Tensor:
    """Return the effective rank as a differentiable tensor."""
    choice(weights, "weights", ("sigma", "energy"))
    raise NotImplementedError(describe(matrix))


def participation_ratio_loss(matrix: torch.Tensor) -> torch.Tensor:
    """Return the participation ratio as a differentiable tensor."""
    raise NotImplementedError(describe(matrix))


def stable_rank_loss(matrix: torch.Tensor) -> torch.Tensor:
    """Return the stable rank as a differentiable tensor."""
    raise NotImplementedError(describe(matrix))

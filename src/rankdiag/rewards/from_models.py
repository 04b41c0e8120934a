"""Rewards through language models: rollouts, rewards that models give, and gradients of real policies.

The engine runs the model and hands over arrays; the other modules of this room say what they mean.
"""

from __future__ import annotations

from rankdiag.rewards._gradient_norm import GradientNorm, expected_gradient_norm
from rankdiag.rewards._hf_sampler import HFSampler
from rankdiag.rewards._model_rewards import implicit_rewards, sequence_rewards
from rankdiag.rewards._rollouts import Rollouts, Sampler, TableSampler, from_sampler, score_rollouts

__all__ = [
    "GradientNorm",
    "HFSampler",
    "Rollouts",
    "Sampler",
    "TableSampler",
    "expected_gradient_norm",
    "from_sampler",
    "implicit_rewards",
    "score_rollouts",
    "sequence_rewards",
]

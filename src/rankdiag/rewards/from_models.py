"""Rewards through language models: rollouts, rewards that models give, and gradients of real policies.

The engine runs the model and hands over arrays; the other modules of this room say what they mean.
"""

from __future__ import annotations

from rankdiag.rewards._gradient_norm import expected_gradient_norm
from rankdiag.rewards._jacobian import jacobian_norm
from rankdiag.rewards._model_rewards import generative_rewards, implicit_rewards, sequence_rewards
from rankdiag.rewards._reward_function import reward_function
from rankdiag.rewards._rollouts import from_sampler, score_rollouts
from rankdiag.rewards._token_cues import token_cues

__all__ = [
    "expected_gradient_norm",
    "from_sampler",
    "generative_rewards",
    "implicit_rewards",
    "jacobian_norm",
    "reward_function",
    "score_rollouts",
    "sequence_rewards",
    "token_cues",
]

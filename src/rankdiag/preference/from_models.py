"""Preference pairs through a language model: scores before training, log-probabilities before and after it.

The engine runs the model and hands over arrays; the other modules of this room say what they mean.
"""

from __future__ import annotations

from rankdiag.preference._levels import displacement_score, head_pressure, token_contributions
from rankdiag.preference._score_pairs import merge_scores, score_preferences
from rankdiag.preference._sequences import logprob_change_along, sequence_log_probs

__all__ = [
    "displacement_score",
    "head_pressure",
    "logprob_change_along",
    "merge_scores",
    "score_preferences",
    "sequence_log_probs",
    "token_contributions",
]

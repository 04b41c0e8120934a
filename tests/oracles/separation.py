"""Readings of an interaction matrix from their definitions, in numpy's plainest form. No code of src."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def matrix(fn: Callable[[Any], float], left: Any, right: Any, join: Callable[[Any, Any], Any]) -> np.ndarray:
    """One evaluation for each pair."""
    return np.array([[fn(join(a, b)) for b in right] for a in left])


def readings(f: np.ndarray) -> dict[str, float]:
    """Rank, entropy, interaction share and centred rank from the definitions."""
    m, k = f.shape
    s = np.linalg.svd(f, compute_uv=False)
    tolerance = max(m, k) * np.finfo(float).eps * s[0]
    p = s**2 / (s**2).sum() if s[0] else s
    entropy = -sum(v * math.log(v) for v in p if v > 0)
    centred = f - f.mean(axis=1, keepdims=True) - f.mean(axis=0, keepdims=True) + f.mean()
    spread = ((f - f.mean()) ** 2).sum()
    return {
        "rank": int((s > tolerance).sum()),
        "entropy": entropy,
        "effective_rank": math.exp(entropy) if s[0] else 0.0,
        "interaction_share": (centred**2).sum() / spread if spread else 0.0,
        "rank_centred": int((np.linalg.svd(centred, compute_uv=False) > tolerance).sum()),
    }

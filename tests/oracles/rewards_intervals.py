"""Spreads of rewards by counting: binomial sums in fractions, subsets one by one, and what TRL 1.16 logs, line by line.

Shares no code with src.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np


def binomial(n: int, p: Fraction) -> list[Fraction]:
    return [math.comb(n, s) * p**s * (1 - p) ** (n - s) for s in range(n + 1)]


def miss(n: int, p: Fraction, bounds: list[tuple[float, float]]) -> tuple[Fraction, Fraction, Fraction]:
    """Probability that sqrt(p(1-p)) lies below the lower bound, above the upper, outside; bounds[s] of s successes.

    A bound that equals sigma but for rounding holds.
    """
    sigma = math.sqrt(p * (1 - p))
    law = binomial(n, p)
    low = sum((w for w, (lower, _) in zip(law, bounds, strict=True) if lower > sigma + 1e-12), Fraction(0))
    high = sum((w for w, (_, upper) in zip(law, bounds, strict=True) if upper < sigma - 1e-12), Fraction(0))
    return low, high, low + high


def folded(n: int, m: int, q: Fraction) -> Fraction:
    """Probability that the rarer of two rewards comes up at most m times in n."""
    return sum((w for s, w in enumerate(binomial(n, q)) if min(s, n - s) <= m), Fraction(0))


def equal_subsets(row: list[float], k: int) -> Fraction:
    groups = list(combinations([value for value in row if not math.isnan(value)], k))
    return Fraction(sum(min(group) == max(group) for group in groups), len(groups))


def beta_binomial_equal(a: Fraction, b: Fraction, k: int) -> Fraction:
    """Expectation of p^k + (1-p)^k by the raw moments of Beta(a, b)."""
    up = down = Fraction(1)
    for j in range(k):
        up *= (a + j) / (a + b + j)
        down *= (b + j) / (a + b + j)
    return up + down


def log_likelihood(a: float, b: float, successes: list[int], counts: list[int]) -> float:
    """Of Beta-binomial counts, without what does not depend on a and b."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    return sum(log_beta(a + s, b + n - s) - log_beta(a, b) for s, n in zip(successes, counts, strict=True))


def trl_logs(rewards: Any, k: int, trainer: str, scale: str, dtype: str = "float64") -> dict[str, Any]:
    """What TRL 1.16 computes of summed rewards (B,), statement by statement, in torch.

    GRPOTrainer and RLOOTrainer, `_generate_and_score_completions`, with multi_objective_aggregation
    "sum_then_normalize", no clipping, beta 0 and normalize_advantages False.
    """
    import torch

    def nanstd(tensor: Any, dim: int | None = None) -> Any:
        mean = torch.nanmean(tensor, dim=dim, keepdim=True)
        variance = torch.nanmean((tensor - mean) ** 2, dim=dim, keepdim=True)
        count = torch.sum(~torch.isnan(tensor), dim=dim, keepdim=True)
        correction = count / (count - 1)
        correction = torch.where(count > 1, correction, torch.full_like(correction, float("nan")))
        std = torch.sqrt(variance * correction)
        return std.squeeze() if dim is None else std.squeeze(dim)

    x = torch.tensor(np.asarray(rewards, dtype=np.float64).reshape(-1), dtype=getattr(torch, dtype))
    grouped = x.view(-1, k)
    if trainer == "grpo":
        mean = torch.nanmean(grouped, dim=1).repeat_interleave(k, dim=0)
        if scale == "batch":
            std = nanstd(x).expand_as(x) if x.numel() > 1 else torch.zeros_like(x)
        elif k > 1:
            std = nanstd(grouped, dim=1).repeat_interleave(k, dim=0)
        else:
            std = torch.zeros_like(x)
        advantages = x - mean
        if scale != "none":
            advantages = advantages / (std + 1e-4)
    else:
        std = nanstd(grouped, dim=1) if k > 1 else torch.zeros_like(torch.nanmean(grouped, dim=1))
        counts = (~torch.isnan(grouped)).sum(dim=1, keepdim=True)
        total = torch.nansum(grouped, dim=1, keepdim=True)
        advantages = x - ((total - grouped) / (counts - 1)).view(-1) if k > 1 else torch.zeros_like(x)
    return {
        "reward": torch.nanmean(x).item(),
        "reward_std": nanstd(x).item(),
        "frac_reward_zero_std": torch.isclose(std, torch.zeros_like(std)).float().mean().item(),
        "advantages": torch.nan_to_num(advantages, nan=0.0).numpy(),
        "group_std": nanstd(grouped, dim=1).numpy(),
    }

"""What the reward monitor must say, from the definitions alone: lists of rewards, sums over pairs, no arrays."""

from __future__ import annotations

import itertools
import math
from typing import Any


def scored(rewards: list[Any]) -> list[float]:
    return [float(r) for r in rewards if r is not None and math.isfinite(float(r))]


def variance(rewards: list[float]) -> float:
    """Mean of half the squared difference over pairs."""
    pairs = list(itertools.combinations(rewards, 2))
    return math.fsum((a - b) ** 2 / 2 for a, b in pairs) / len(pairs)


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def flat(rewards: list[float]) -> bool:
    return len(set(rewards)) == 1


def weighted_sums(functions: dict[str, list[Any]], weights: dict[str, float]) -> list[float | None]:
    """Sum over the functions that scored a completion; None where none did."""
    sums: list[float | None] = []
    for row in zip(*functions.values(), strict=True):
        terms = [weights[n] * s for n, r in zip(functions, row, strict=True) for s in scored([r])]
        sums.append(math.fsum(terms) if terms else None)
    return sums


def expected(groups: list[dict[str, list[Any]]], weights: dict[str, float], low_std: float) -> dict[str, float]:
    """Return all readings of some groups, each a mapping from function to rewards; exact sums, no rounding."""
    sums = [scored(weighted_sums(group, weights)) for group in groups]
    known = [(group, total) for group, total in zip(groups, sums, strict=True) if len(total) >= 2]
    if not known:
        return {}
    variances = [variance(total) for _, total in known]
    stds = [math.sqrt(v) for v in variances]
    every = [r for total in sums for r in total]
    share = len(known)
    found = {
        "within_std_rms": math.sqrt(math.fsum(variances) / share),
        "within_std_q10": quantile(stds, 0.1),
        "within_std_q50": quantile(stds, 0.5),
        "within_std_q90": quantile(stds, 0.9),
        "frac_zero_std": sum(flat(t) for _, t in known) / share,
        "frac_all_worst": sum(flat(t) and t[0] == min(every) for _, t in known) / share,
        "frac_all_best": sum(flat(t) and t[0] == max(every) for _, t in known) / share,
        "frac_low_std": sum(s <= low_std for s in stds) / share,
        "effective_prompts": float(sum(not flat(t) for _, t in known)),
    }
    if not flat(every):
        found["normalised_variance"] = math.fsum(variances) / share / variance(every)
        rows = [t for t in sums if t]
        n, groups_n = len(every), len(rows)
        if 1 < groups_n < n:
            means = [math.fsum(t) / len(t) for t in rows]
            grand = math.fsum(every) / n
            ssw = math.fsum((r - m) ** 2 for t, m in zip(rows, means, strict=True) for r in t)
            ssb = math.fsum(len(t) * (m - grand) ** 2 for t, m in zip(rows, means, strict=True))
            k0 = (n - sum(len(t) ** 2 for t in rows) / n) / (groups_n - 1)
            msw, msb = ssw / (n - groups_n), ssb / (groups_n - 1)
            found["icc"] = (msb - msw) / (msb + (k0 - 1) * msw)
    for name in weights:
        own = [scored(group[name]) for group in groups]
        spread = [variance(r) for r in own if len(r) >= 2]
        if spread:
            found[f"{name}/within_std_rms"] = math.sqrt(math.fsum(spread) / len(spread))
        cases = [(len(set(scored(group[name]))) > 1, not flat(total)) for group, total in known]
        found[f"{name}/conflict"] = sum(mine and not both for mine, both in cases) / share
        found[f"{name}/zero_in_sum"] = sum(both and not mine for mine, both in cases) / share
    return found


def zero_std_at(rewards: list[float], k: int) -> float:
    """Share of subsets of k rewards that are all equal."""
    subsets = list(itertools.combinations(rewards, k))
    return sum(len(set(subset)) == 1 for subset in subsets) / len(subsets)

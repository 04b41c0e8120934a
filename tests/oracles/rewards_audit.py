"""Ranking accuracy as its definition says it, in fractions: every option, every missing entry, no rounding."""

from __future__ import annotations

import itertools
import math
import struct
from fractions import Fraction
from typing import Any


def float32(x: float) -> float:
    return struct.unpack("f", struct.pack("f", x))[0]


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _mean(rewards: list[float]) -> Fraction:
    return sum(map(Fraction, rewards)) / len(rewards)


def _credit(p: list[float], g: list[float], i: int, j: int, options: dict[str, Any]) -> float | None:
    if options["compat"] == "sign_agreement":
        return float(_sign(p[i] - p[j]) == _sign(g[i] - g[j]))
    if g[i] == g[j] and options["compat"] is None:
        return None
    up, down = (i, j) if g[i] > g[j] else (j, i)
    if options["harm_aware"]:
        left_out = (i, j) if options["loo"] else ()
        policy = [x for place, x in enumerate(p) if place not in left_out and not math.isnan(x)]
        if policy and Fraction(p[down]) < _mean(policy):
            return 1.0
    tie = 0.5 if options["proxy_ties"] == "half" and options["compat"] is None else 0.0
    return 1.0 if p[up] > p[down] else tie if p[up] == p[down] else 0.0


def ranking_oracle(
    proxy: list[list[float]], gold: list[list[float]], logs: Any, **options: Any
) -> dict[str, Any] | None:
    """Return all figures, None where no pair remains; `logs` are the log-weights of rollouts, or None."""
    if options["compat"]:
        proxy, gold = ([[float32(x) for x in row] for row in table] for table in (proxy, gold))
    pairs: list[tuple[int, float, float]] = []
    gold_ties = proxy_ties = 0
    for row, (p, g) in enumerate(zip(proxy, gold, strict=True)):
        for i, j in itertools.combinations(range(len(p)), 2):
            weigh = 0.0 if logs is None else logs[row][i] + logs[row][j]
            if any(map(math.isnan, (p[i], p[j], g[i], g[j], weigh))):
                continue
            gold_ties += g[i] == g[j]
            credit = _credit(p, g, i, j, options)
            if credit is not None:
                proxy_ties += p[i] == p[j]
                pairs.append((row, credit, weigh))
    if not pairs:
        return None
    rows = sorted({row for row, _, _ in pairs})
    by_row = {row: [pair for pair in pairs if pair[0] == row] for row in rows}
    whole = max(w for _, _, w in pairs)
    alike = options["compat"] == "sign_agreement" or options["weighting"] == "prompt"
    within = alike or (logs is not None and options["softmax_over"] == "prompt")
    weights, per_prompt = [], [math.nan] * len(proxy)
    for row in rows:
        best = max(w for _, _, w in by_row[row])
        own = [math.exp(w - best) for _, _, w in by_row[row]]
        per_prompt[row] = sum(w * c for w, (_, c, _) in zip(own, by_row[row], strict=True)) / sum(own)
        scale = 1 / sum(own) if within else math.exp(best - whole)
        weights += [w * scale for w in own]
    total = sum(weights)
    earned = [c for row in rows for _, c, _ in by_row[row]]
    return {
        "accuracy": sum(w * c for w, c in zip(weights, earned, strict=True)) / total,
        "per_prompt": per_prompt,
        "ess": total**2 / sum(w * w for w in weights),
        "n_pairs": len(pairs),
        "n_gold_ties": gold_ties,
        "n_proxy_ties": proxy_ties,
    }

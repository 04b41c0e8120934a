"""Accuracies as plainly as they can be written: loops over all pairs. Shares no code with src."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path


def reward_data(name: str) -> Path | None:
    """Find a table of real rewards beside the repository; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = folder / "rewards" / name
    return path if path.is_file() else None


def sign(x):
    return (x > 0) - (x < 0)


def ranking(
    proxy,
    gold,
    *,
    half=True,
    weights=None,
    by_prompt=False,
    per_prompt_softmax=False,
    harm=False,
    loo=False,
    compat=None,
):
    """Accuracy, number of pairs, ess, gold ties, proxy ties; `weights` are log-weights of rollouts."""
    rows, gold_ties, proxy_ties = [], 0, 0
    for r, (p, g) in enumerate(zip(proxy, gold, strict=True)):
        row = []
        valid = [x for x in p if not math.isnan(x)]
        for i, j in itertools.combinations(range(len(p)), 2):
            if any(math.isnan(x) for x in (p[i], p[j], g[i], g[j])):
                continue
            gold_ties += g[i] == g[j]
            if g[i] == g[j] and compat is None:
                continue
            proxy_ties += p[i] == p[j]
            up, down = (i, j) if g[i] > g[j] else (j, i)
            if compat == "sign_agreement":
                credit = float(sign(p[i] - p[j]) == sign(g[i] - g[j]))
            elif p[up] > p[down]:
                credit = 1.0
            else:
                credit = 0.5 if half and compat is None and p[up] == p[down] else 0.0
            if harm:
                n = len(valid)
                bar = (sum(valid) - p[i] - p[j]) / (n - 2) if loo and n > 2 else sum(valid) / n
                if p[down] < bar and not (loo and n <= 2):
                    credit = 1.0
            row.append((0.0 if weights is None else weights[r][i] + weights[r][j], credit))
        if row:
            rows.append(row)
    top = max(w for row in rows for w, _ in row)
    pairs = []
    for row in rows:
        shift = max(w for w, _ in row) if per_prompt_softmax or by_prompt else top
        raw = [math.exp(w - shift) for w, _ in row]
        scale = sum(raw) * len(rows) if per_prompt_softmax or by_prompt else 1.0
        pairs += [(w / scale, credit) for w, (_, credit) in zip(raw, row, strict=True)]
    total = sum(w for w, _ in pairs)
    accuracy = sum(w * credit for w, credit in pairs) / total
    return accuracy, len(pairs), total**2 / sum(w * w for w, _ in pairs), gold_ties, proxy_ties


def best_of(proxy, gold, n):
    """Mean over all subsets of the gold reward of the best by proxy, ties shared."""
    found = []
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        tied = [i for i in range(len(proxy)) if proxy[i] == top]
        inside = [gold[i] for i in tied]
        found.append(sum(inside) / len(inside))
    return sum(found) / len(found)


def one_against_many(c, rejected, *, rule="half", bar=None):
    """Credit of one comparison, or None where it is dropped."""
    rest = [x for x in rejected if not math.isnan(x)]
    if math.isnan(c) or not rest:
        return None
    if rule == "best_of_k":
        top = max([c, *rest])
        return 1.0 / [c, *rest].count(top) if c == top else 0.0
    if bar is not None and all(x < bar for x in rest):
        return 1.0
    if all(c > x for x in rest):
        return 1.0
    return 0.5 if rule == "half" and c == max(rest) else 0.0

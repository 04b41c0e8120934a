"""Moments of tables of rewards from their definitions, in exact fractions and plain loops. Shares no code with src."""

from __future__ import annotations

import csv
import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction

PI = Decimal("3.14159265358979323846264338327950288419716939937510582")


def known(row):
    """Rewards of a row that are not NaN, as fractions."""
    return [Fraction(float(value)) for value in row if value == value]


def mean(values):
    return sum(values, Fraction(0)) / len(values)


def squares(values):
    centre = mean(values)
    return sum(((value - centre) ** 2 for value in values), Fraction(0))


def variance(values, ddof=1):
    """None where it is not defined."""
    return squares(values) / (len(values) - ddof) if len(values) > ddof else None


def pair_variance(values):
    """Mean over unordered pairs of half the squared difference."""
    halves = [(a - b) ** 2 / 2 for i, a in enumerate(values) for b in values[:i]]
    return mean(halves) if halves else None


def quantile(values, q):
    """Linear between order statistics."""
    ordered = sorted(values)
    place = Fraction(q).limit_denominator(1000) * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below]) + float(place - below) * (float(ordered[above]) - float(ordered[below]))


def components(table):
    """ssw, ssb, msw, msb, k0 and icc1, None where not defined."""
    rows = [row for row in map(known, table) if row]
    pooled = [value for row in rows for value in row]
    n, prompts, centre = len(pooled), len(rows), mean(pooled)
    ssw = sum((squares(row) for row in rows), Fraction(0))
    ssb = sum((len(row) * (mean(row) - centre) ** 2 for row in rows), Fraction(0))
    msw = ssw / (n - prompts) if n > prompts else None
    msb = ssb / (prompts - 1) if prompts > 1 else None
    k0 = (n - Fraction(sum(len(row) ** 2 for row in rows), n)) / (prompts - 1) if prompts > 1 else Fraction(n)
    icc = None
    if msw is not None and msb is not None and msb + (k0 - 1) * msw > 0:
        icc = (msb - msw) / (msb + (k0 - 1) * msw)
    return {"ssw": ssw, "ssb": ssb, "msw": msw, "msb": msb, "k0": k0, "icc1": icc}


def summary(table, taus, r_max, margin):
    """Every plain figure of a summary; None where it is not defined."""
    rows = [known(row) for row in table]
    two, some = [row for row in rows if len(row) > 1], [row for row in rows if row]
    pooled = [value for row in some for value in row]
    variances, means = [variance(row) for row in two], [mean(row) for row in some]
    stds = [math.sqrt(value) for value in variances]
    low, high = min(pooled), max(pooled)
    best = high if r_max is None else Fraction(r_max)
    far = (high - low) / 4 if margin is None else Fraction(margin)
    counts = sorted(map(len, rows))
    half = len(counts) // 2

    def share(flags):
        flags = list(flags)
        return Fraction(sum(flags), len(flags)) if flags else None

    def error(values):
        return math.sqrt(variance(values) / len(values)) if len(values) > 1 else None

    total = variance(pooled)
    return {
        "n_prompts": len(rows),
        "n_undefined": len(rows) - len(two),
        "k_min": counts[0],
        "k_median": counts[half] if len(counts) % 2 else (counts[half - 1] + counts[half]) / 2,
        "k_max": counts[-1],
        "grand_mean": mean(means),
        "se_grand_mean": error(means),
        "mean_var": mean(variances) if two else None,
        "se_mean_var": error(variances),
        "rms_std": math.sqrt(mean(variances)) if two else None,
        "mean_std": math.fsum(stds) / len(stds) if two else None,
        "frac_zero_std": share(min(row) == max(row) for row in two),
        "frac_all_min": share(min(row) == max(row) == low for row in two),
        "frac_all_max": share(min(row) == max(row) == high for row in two),
        "pooled_mean": mean(pooled),
        "pooled_std": math.sqrt(total) if total is not None else None,
        "normalised_variance": mean(variances) / total if two and total else None,
        "r_min": low,
        "r_max": best,
        "margin": far,
        **{name: components(table)[name] for name in ("msw", "msb", "icc1")},
    }, {
        "frac_low_std": [share(std <= tau for std in stds) for tau in taus],
        "share_far_from_opt": [
            share(std <= tau and mean(row) < best - far for std, row in zip(stds, two, strict=True)) for tau in taus
        ],
    }


def c4(k):
    """Ratios of Gamma at half steps follow from the first: two of them multiply to (k - 1) / 2. To 50 digits."""
    with localcontext() as context:
        context.prec = 50
        ratio = 1 / PI.sqrt()
        for step in range(2, k):
            ratio = Decimal(step - 1) / (2 * ratio)
        return float((Decimal(2) / (k - 1)).sqrt() * ratio)


def text_of(value):
    """Canonical JSON, written by hand: sorted keys, no spaces, characters as they are."""
    if isinstance(value, dict):
        return "{" + ",".join(f'"{key}":{text_of(value[key])}' for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def grouped(rows):
    """Rewards by prompt, in order of first appearance."""
    found = {}
    for row in rows:
        name = row.get("prompt_id")
        if name is None:
            name = hashlib.sha1(text_of(row["prompt"]).encode("utf-8"), usedforsecurity=False).hexdigest()
        found.setdefault(str(name), []).append(row["reward"])
    return found


def columns(path, names):
    """Some columns of a CSV file as floats, a row for each line."""
    with path.open(encoding="utf-8", newline="") as file:
        return [[float(line[name]) for name in names] for line in csv.DictReader(file)]

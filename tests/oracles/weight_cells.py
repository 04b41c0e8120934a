"""Cells of a weight report from the dense matrix, straight from their definitions, with numpy's SVD alone."""

from __future__ import annotations

import math

import numpy as np

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def cells(matrix, dtype="float64"):
    """Return column -> value for a dense matrix whose entries were stored in `dtype`."""
    a = np.asarray(matrix, dtype=np.float64)
    m, n = a.shape
    s = np.linalg.svd(a, compute_uv=False)
    if s[0] == 0:
        names = ("stable_rank", "effective_rank", "erank_energy", "participation", "spectral", "fro", "nuclear")
        return dict.fromkeys(names, 0.0) | {"numerical_rank": 0, "lora_rank_hint": 0, "n": min(m, n)}
    rtol = EPS[dtype] if dtype in {"float16", "bfloat16"} else max(m, n) * EPS[dtype]
    energy = s**2
    out = {
        "n": min(m, n),
        "stable_rank": energy.sum() / energy[0],
        "effective_rank": _entropy_rank(s),
        "erank_energy": _entropy_rank(energy),
        "participation": energy.sum() ** 2 / (energy**2).sum(),
        "numerical_rank": int((s > rtol * s[0]).sum()),
        "spectral": s[0],
        "fro": math.sqrt(energy.sum()),
        "nuclear": s.sum(),
        "rank_rtol": rtol,
        "lora_rank_hint": eps_rank(s, math.sqrt(0.05)),
        "mp_edge_outliers": int((s > 1.02 * a.std() * (math.sqrt(m) + math.sqrt(n))).sum()),
    }
    out["effective_rank_ratio"] = out["effective_rank"] / min(m, n)
    out["stable_rank_ratio"] = out["stable_rank"] / min(m, n)
    out["numerical_rank_ratio"] = out["numerical_rank"] / min(m, n)
    out["condition"] = s[0] / s[-1] if s[-1] > 0 else math.inf
    return out


def _entropy_rank(weights):
    p = weights / weights.sum()
    p = p[p > 0]
    return math.exp(-(p * np.log(p)).sum())


def eps_rank(s, eps):
    """Return the smallest R with ||tail|| <= eps ||all||."""
    total = math.sqrt((s**2).sum())
    for rank in range(len(s) + 1):
        if math.sqrt((s[rank:] ** 2).sum()) <= eps * total:
            return rank
    raise AssertionError("the empty tail fits")


def bfloat16(array):
    """Round to bfloat16 (nearest, ties to even) and widen again, on the bits."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def pad(values, size):
    """Return the values, descending, with zeros up to a size."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))[::-1]
    return np.pad(ordered, (0, max(0, size - ordered.size)))

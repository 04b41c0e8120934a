"""Resistances, drawing without replacement and pruning, as plainly as they can be written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np


def planetoid_file(name: str) -> Path | None:
    """Find a citation graph beside the repository; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = folder / "planetoid" / name
    return path if path.is_file() else None


def both_ways(pairs) -> np.ndarray:
    pairs = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return np.concatenate((pairs, pairs[:, ::-1])).T.copy()


def by_pseudo_inverse(pairs, weights, n) -> np.ndarray:
    laplacian = np.zeros((n, n))
    for (u, v), w in zip(pairs, weights, strict=True):
        laplacian[u, u] += w
        laplacian[v, v] += w
        laplacian[u, v] -= w
        laplacian[v, u] -= w
    inverse = np.linalg.pinv(laplacian, hermitian=True)
    return np.array([inverse[u, u] + inverse[v, v] - 2 * inverse[u, v] for u, v in pairs])


def bridges_of(pairs, n) -> set[int]:
    """Edges whose removal makes one more component."""

    def components(kept) -> int:
        label = list(range(n))
        for u, v in kept:
            old, new = label[u], label[v]
            label = [new if entry == old else entry for entry in label]
        return len(set(label))

    whole = components(pairs)
    return {e for e in range(len(pairs)) if components([p for i, p in enumerate(pairs) if i != e]) > whole}


def drawing_chances(scores) -> dict[tuple[int, ...], float]:
    """Chance of every removal order when edges are drawn one by one and go in the reverse order."""
    found = {}
    for drawn in itertools.permutations(range(len(scores))):
        chance, left = 1.0, sum(scores)
        for edge in drawn:
            chance *= scores[edge] / left
            left -= scores[edge]
        found[drawn[::-1]] = chance
    return found


def pruned(mask, fraction, original) -> list[int]:
    alive = sorted(abs(value) for value in mask if value != 0)
    if not alive:
        return []
    place = int(original * fraction)
    threshold = alive[place] if place < len(alive) else alive[-1]
    return [edge for edge, value in enumerate(mask) if value != 0 and not abs(value) > threshold]

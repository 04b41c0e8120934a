"""Walks one by one, boundaries pair by pair, powers of dense matrices of Python ints. Shares no code with src."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from hypothesis import strategies as st


def planetoid(name: str) -> Path | None:
    """Find a citation graph beside the repository; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = folder / "planetoid" / name
    return path if path.is_file() else None


def matrix_of(n, edges, directed):
    """The adjacency with a loop at every vertex, as lists of Python ints."""
    a = [[int(i == j) for j in range(n)] for i in range(n)]
    for u, v in edges:
        a[u][v] = 1
        if not directed:
            a[v][u] = 1
    return a


def columns_of(edges, directed):
    """A (2, E) array of the edges, with every reverse after them if they have no direction."""
    pairs = [*edges] if directed else [*edges, *((v, u) for u, v in edges)]
    return np.array(pairs, np.int64).reshape(-1, 2).T


def walks(a, steps):
    """Every walk of so many steps, as a tuple of vertices."""
    found = [(i,) for i in range(len(a))]
    for _ in range(steps):
        found = [(*walk, j) for walk in found for j in range(len(a)) if a[walk[-1]][j]]
    return found


def power(a, steps):
    """The power of a matrix in Python ints."""
    n = len(a)
    found = [[int(i == j) for j in range(n)] for i in range(n)]
    for _ in range(steps):
        found = [[sum(row[k] * a[k][j] for k in range(n) if row[k]) for j in range(n)] for row in found]
    return found


def boundary(a, side):
    """Vertices with a neighbour that sends to them from the other side, from the definition."""
    n = len(a)
    return [i for i in range(n) if any(a[j][i] and (j in side) != (i in side) for j in range(n))]


def walk_index_of(a, side, depth, target=None):
    start = set(boundary(a, side))
    found = power(a, depth - 1)
    return sum(found[i][j] for i in start for j in range(len(a)) if target is None or j == target)


@st.composite
def graphs(draw, most=7, directed=None, least=1):
    """Vertices, edges without repeats in any order and direction, and whether they are directed.

    Most are drawn from a seed, for lists that are drawn entry by entry are mostly short.
    """
    arrows = draw(st.booleans()) if directed is None else directed
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = int(rng.integers(least, most + 1))
    pairs = [(i, j) for i in range(n) for j in range(n) if (i != j if arrows else i < j)]
    share = draw(st.sampled_from([0.3, 0.5, 0.8, 0.15, 0.0]))
    edges = [pairs[k] for k in rng.permutation(len(pairs)) if rng.random() < share]
    if not arrows:
        edges = [(v, u) if rng.random() < 0.5 else (u, v) for u, v in edges]
    return n, edges, arrows

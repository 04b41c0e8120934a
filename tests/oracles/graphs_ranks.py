"""Product GNNs and separation ranks from their definitions: loops, whole numbers, polynomials. No code of src.

A polynomial is a dict from exponents (one for each input number) to whole coefficients. The separation rank of a
polynomial is the rank of its coefficients, monomials of one side against monomials of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

Polynomial = dict[tuple[int, ...], int]
Edge = tuple[int, int, int]  # source, target, type
_PRIME = 2**61 - 1


def neighbours(n: int, edges: Sequence[Edge]) -> list[list[tuple[int, int]]]:
    """Incoming neighbours with types, the vertex itself along type 0 among them; every edge once."""
    found = [{(i, 0)} for i in range(n)]
    for u, v, q in edges:
        if u != v:
            found[v].add((u, q))
    return [sorted(pairs) for pairs in found]


def both_ways(pairs: Sequence[tuple[int, int]], kind: int = 0) -> list[Edge]:
    return [(u, v, kind) for u, v in pairs] + [(v, u, kind) for u, v in pairs]


def walks(n: int, edges: Sequence[Edge], length: int) -> list[list[int]]:
    """Number of walks of a length between all vertices, counted one step at a time."""
    senders = neighbours(n, edges)
    counts = [[int(i == j) for j in range(n)] for i in range(n)]
    for _ in range(length):
        counts = [[sum(counts[i][k] for k, _ in senders[j]) for j in range(n)] for i in range(n)]
    return counts


def forward(x: Any, edges: Sequence[Edge], weights: Any, out: Any, target: int | None = None) -> list[Any]:
    """Outputs of a product GNN, in the arithmetic of its entries; weights[l][type][row][column]."""
    n = len(x)
    senders = neighbours(n, edges)
    h = [list(row) for row in x]
    for layer in weights:
        new = []
        for i in range(n):
            state = [1] * len(layer[0])
            for j, q in senders[i]:
                sent = [sum(w * v for w, v in zip(row, h[j], strict=True)) for row in layer[q]]
                state = [a * b for a, b in zip(state, sent, strict=True)]
            new.append(state)
        h = new
    final = h[target] if target is not None else [1] * len(h[0])
    if target is None:
        for state in h:
            final = [a * b for a, b in zip(final, state, strict=True)]
    return [sum(w * v for w, v in zip(row, final, strict=True)) for row in out]


class Poly:
    """Polynomial with whole coefficients: enough arithmetic for `forward`."""

    def __init__(self, terms: Polynomial) -> None:
        self.terms = terms

    def __add__(self, other: Any) -> Poly:
        if isinstance(other, int):
            other = Poly({(0,) * len(next(iter(self.terms))): other}) if other else Poly({})
        terms = dict(self.terms)
        for key, value in other.terms.items():
            terms[key] = terms.get(key, 0) + value
        return Poly({key: value for key, value in terms.items() if value})

    __radd__ = __add__

    def __mul__(self, other: Any) -> Poly:
        if isinstance(other, int):
            return Poly({key: value * other for key, value in self.terms.items() if value * other})
        terms: Polynomial = {}
        for a, u in self.terms.items():
            for b, v in other.terms.items():
                key = tuple(i + j for i, j in zip(a, b, strict=True))
                terms[key] = terms.get(key, 0) + u * v
        return Poly({key: value for key, value in terms.items() if value})

    __rmul__ = __mul__


def rank_of(rows: list[list[int]], prime: int | None = _PRIME) -> int:
    """Rank over GF(prime), or over the rationals with None, by elimination one entry at a time."""
    left: Any = [[Fraction(v) if prime is None else v % prime for v in row] for row in rows]
    rank = 0
    for column in range(len(left[0]) if left else 0):
        pivot = next((r for r in range(rank, len(left)) if left[r][column]), None)
        if pivot is None:
            continue
        left[rank], left[pivot] = left[pivot], left[rank]
        head = left[rank]
        inverse = 1 / head[column] if prime is None else pow(head[column], -1, prime)
        for r in range(rank + 1, len(left)):
            if left[r][column]:
                factor = left[r][column] * inverse
                left[r] = [
                    a - factor * b if prime is None else (a - factor * b) % prime
                    for a, b in zip(left[r], head, strict=True)
                ]
        rank += 1
    return rank


def polynomial_rank(
    n: int,
    edges: Sequence[Edge],
    subset: set[int],
    depth: int,
    d_in: int,
    d_hidden: int,
    *,
    target: int | None = None,
    prime: int | None = _PRIME,
    seed: int = 0,
) -> int:
    """Separation rank of a product GNN with random whole weights, from all of its coefficients."""
    rng = np.random.default_rng(seed)
    types = 1 + max((q for _, _, q in edges), default=0)
    size = 9 if prime is None else 2**40
    weights = [
        rng.integers(-size, size + 1, size=(types, d_hidden, width)).tolist()
        for width in (d_in, *[d_hidden] * (depth - 1))
    ]
    out = rng.integers(1, size + 1, size=(1, d_hidden)).tolist()
    variables = n * d_in

    def variable(index: int) -> Poly:
        return Poly({tuple(int(k == index) for k in range(variables)): 1})

    x = [[variable(i * d_in + c) for c in range(d_in)] for i in range(n)]
    (found,) = forward(x, edges, weights, out, target)
    terms = {key: (value if prime is None else value % prime) for key, value in found.terms.items()}
    inside = [i * d_in + c for i in range(n) if i in subset for c in range(d_in)]
    outside = [k for k in range(variables) if k not in inside]
    cells: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
    for key, value in terms.items():
        cells.setdefault(tuple(key[k] for k in inside), {})[tuple(key[k] for k in outside)] = value
    columns = sorted({column for row in cells.values() for column in row})
    return rank_of([[row.get(column, 0) for column in columns] for row in cells.values()], prime)

"""Generic separation ranks and interaction matrices, beside one pair at a time and beside the least that they need.

The plain way evaluates the GNN modulo the prime for each pair of settings in Python integers, and eliminates one row at
a time. The limit of an interaction matrix is one forward of the same model over the same rows, made in one piece.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.graphs import ProductGNN, generic_separation_rank, interaction_profile
from rankdiag.graphs._modular import PRIME, modular_rank
from rankdiag.separation import interaction_matrix, interaction_spectrum

Works = dict[str, Callable[[], Any]]


def both(pairs: list[tuple[int, int]]) -> np.ndarray:
    table = np.array(pairs).T
    return np.concatenate((table, table[::-1]), axis=1)


def forward(x: list[list[int]], senders: list[list[int]], weights: list[Any], out: list[int]) -> int:
    """One output modulo the prime, in Python integers."""
    h = x
    for weight in weights:
        sent = [[sum(w * v for w, v in zip(row, state, strict=True)) % PRIME for row in weight] for state in h]
        h = [[1] * len(weight) for _ in senders]
        for i, neighbours in enumerate(senders):
            for j in neighbours:
                h[i] = [a * b % PRIME for a, b in zip(h[i], sent[j], strict=True)]
    final = [1] * len(out)
    for state in h:
        final = [a * b % PRIME for a, b in zip(final, state, strict=True)]
    return sum(w * v for w, v in zip(out, final, strict=True)) % PRIME


def plain_rank(matrix: np.ndarray) -> int:
    """Elimination, one row at a time."""
    a, rank = matrix.copy(), 0
    for column in range(a.shape[1]):
        pivots = np.flatnonzero(a[rank:, column])
        if not len(pivots):
            continue
        a[[rank, rank + pivots[0]]] = a[[rank + pivots[0], rank]]
        inverse = pow(int(a[rank, column]), -1, PRIME)
        for row in range(rank + 1, len(a)):
            if a[row, column]:
                a[row] = (a[row] - int(a[row, column]) * inverse % PRIME * a[rank]) % PRIME
        rank += 1
    return rank


def generic(size: int) -> Works:
    """P4 at depth 3, rank 126: settings of each side go up to 256."""
    n, samples, depth, width = 4, (256 if size >= 1024 else 32), (3 if size >= 1024 else 2), 2
    graph = both([(0, 1), (1, 2), (2, 3)])
    senders = [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]

    def one_pair_at_a_time() -> int:
        rng = np.random.default_rng(0)
        weights = [rng.integers(0, PRIME, size=(width, width)).tolist() for _ in range(depth)]
        out = rng.integers(0, PRIME, size=width).tolist()
        left, right = (rng.integers(0, PRIME, size=(samples, n // 2, width)).tolist() for _ in range(2))
        return plain_rank(np.array([[forward(a + b, senders, weights, out) for b in right] for a in left]))

    return {
        "plain-pairs": one_pair_at_a_time,
        "generic_separation_rank": lambda: generic_separation_rank(graph, [0, 1], depth, width, width, repeats=1).rank,
    }


def elimination(size: int) -> Works:
    m = 512 if size >= 1024 else 64
    rng = np.random.default_rng(0)
    matrix = rng.integers(0, PRIME, size=(m, m))
    floats = matrix.astype(np.float64)

    def product() -> None:
        floats @ floats

    return {
        "plain-row-by-row": lambda: plain_rank(matrix),
        "modular_rank": lambda: modular_rank(matrix),
        "one-float-product": product,
    }


def interactions(size: int) -> Works:
    """A product GNN on a ring of 16, 128 x 128 hybrids."""
    n, m = 16, (128 if size >= 1024 else 24)
    graph = torch.from_numpy(both([(i, (i + 1) % n) for i in range(n)]))
    model = ProductGNN(2, 4, 8, rng=0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(m, n // 2, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    index = torch.arange(m).repeat_interleave(m), torch.arange(m).repeat(m)
    rows = torch.cat((left[index[0]], right[index[1]]), dim=1)

    def join(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.cat((a, b), dim=1)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return model(x, graph)

    def one_forward() -> None:
        with torch.no_grad():
            for part in rows.split(1024):
                model(part, graph)

    def one_pair_at_a_time() -> np.ndarray:
        with torch.no_grad():
            return np.array([[fn(join(a[None], b[None])).item() for b in right] for a in left])

    return {
        "plain-pairs": one_pair_at_a_time,
        "bare-forward": one_forward,
        "interaction_matrix": lambda: interaction_matrix(fn, left, right, combine=join, batch_size=1024),
    }


def readings(size: int) -> Works:
    m = 1024 if size >= 1024 else 128
    values = np.random.default_rng(0).normal(size=(m, m))

    def svd_of_both() -> list[float]:
        s = np.linalg.svd(values, compute_uv=False)
        centred = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
        inner = np.linalg.svd(centred, compute_uv=False)
        p = s**2 / (s**2).sum()
        return [-(p * np.log(p)).sum(), (inner**2).sum() / ((values - values.mean()) ** 2).sum()]

    def ours() -> list[float]:
        found = interaction_spectrum(values)
        return [found.entropy, found.interaction_share]

    return {"two-svds": svd_of_both, "interaction_spectrum": ours}


def profiles(size: int) -> Works:
    n, m = 16, (64 if size >= 1024 else 16)
    graph = torch.from_numpy(both([(i, (i + 1) % n) for i in range(n)]))
    model = ProductGNN(2, 4, 8, rng=0, dtype=torch.float64)
    x = torch.randn(4 * m, n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sides = [list(range(k)) for k in range(1, 9)]
    batch = x[torch.arange(m * m) % len(x)]

    def forwards() -> None:
        with torch.no_grad():
            for _ in sides:
                for part in batch.split(1024):
                    model(part, graph)

    def ours() -> None:
        interaction_profile(
            lambda rows: model(rows, graph),
            x,
            sides,
            graph=graph,
            depth=2,
            d_hidden=8,
            samples=m,
            batch_size=1024,
            rng=0,
        )

    return {"bare-forwards": forwards, "interaction_profile": ours}


CASES: dict[str, Any] = {
    "generic rank of P4 at depth 3, m = 256": (generic, {"plain-pairs": None, "generic_separation_rank": None}),
    "rank modulo p of 512 x 512": (
        elimination,
        {"plain-row-by-row": None, "modular_rank": None, "one-float-product": None},
    ),
    "matrix of 128 x 128 hybrids on 16 vertices": (
        interactions,
        {"plain-pairs": None, "bare-forward": None, "interaction_matrix": None},
    ),
    "readings of a 1024 x 1024 matrix": (readings, {"two-svds": None, "interaction_spectrum": None}),
    "profile of 8 partitions": (profiles, {"bare-forwards": None, "interaction_profile": None}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_ranks(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

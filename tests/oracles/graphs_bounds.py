"""Separation ranks of product-aggregation GNNs and bounds on them, from the definitions. Shares no code with src.

Graphs are dense: `kinds[j, i]` is the type of the message from j to i, -1 where there is none; the diagonal is 0.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PRIME = 536_870_909


def data_file(name: str) -> Path | None:
    """Find a graph of the Planetoid sets beside the repository; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = folder / "planetoid" / name
    return path if path.is_file() else None


@dataclass
class Case:
    kinds: np.ndarray
    subset: list[int]
    depth: int
    d_in: int
    d_hidden: int
    target: int | None = None
    directed: bool = False

    @property
    def n(self) -> int:
        return len(self.kinds)

    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """(2, E) columns without loops, and their types."""
        s, t = np.nonzero((self.kinds >= 0) & ~np.eye(self.n, dtype=bool))
        return np.stack((s, t)), self.kinds[s, t]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        columns, types = self.columns()
        named = {"target": self.target, "directed": self.directed, "edge_type": types, "num_nodes": self.n}
        return (columns, self.subset, self.depth, self.d_in, self.d_hidden), named


@dataclass
class Tie:
    name: tuple[int, int | None]  # layer and vertex
    members: list[Any]
    cost: float


def undirected(n: int, edges: list[tuple[int, int]], types: list[int] | None = None) -> np.ndarray:
    kinds = np.full((n, n), -1)
    np.fill_diagonal(kinds, 0)
    for (u, v), kind in zip(edges, types or [0] * len(edges), strict=True):
        kinds[u, v] = kinds[v, u] = kind
    return kinds


def draw(rng: np.random.Generator, *, most: int = 5, deepest: int = 3) -> Case:
    """A random graph with its partition, depth, widths and prediction."""
    n = int(rng.integers(2, most + 1))
    directed = bool(rng.integers(2))
    kinds = np.where(rng.random((n, n)) < rng.choice([0.4, 0.6, 0.8]), rng.integers(0, rng.integers(1, 3), (n, n)), -1)
    if not directed:
        kinds = np.where(np.tri(n, k=-1, dtype=bool), kinds, -1)
        kinds = np.maximum(kinds, kinds.T)
    np.fill_diagonal(kinds, 0)
    size = int(rng.integers(1, n))
    subset = sorted(rng.choice(n, size, replace=False).tolist())
    target = int(rng.integers(n)) if rng.integers(2) else None
    depth = int(rng.integers(1, deepest + 1)) if rng.random() < 0.4 else deepest - int(rng.integers(2))
    widths = rng.choice([1, 2, 3], 2, p=[0.1, 0.45, 0.45]).tolist()
    return Case(kinds, subset, depth, *widths, target=target, directed=directed)


def exact_adjacency(case: Case) -> np.ndarray:
    return (case.kinds >= 0).astype(object)


def multiplicities(case: Case) -> list[list[int]]:
    """Row l, entry i: walks of L - l steps from i to the output, by powers of the adjacency."""
    a, n = exact_adjacency(case), case.n
    end = np.array([int(case.target in (None, i)) for i in range(n)], dtype=object)
    rows = []
    for layer in range(case.depth + 1):
        power = np.array([[int(i == j) for j in range(n)] for i in range(n)], dtype=object)
        for _ in range(case.depth - layer):
            power = power.dot(a)
        rows.append([int(x) for x in power.dot(end)])
    return rows


def ln_comb(width: int, m: int) -> float:
    return math.log(math.comb(width + m - 1, m))


def ties(case: Case) -> list[Tie]:
    """Every tie, the readout last; the sides themselves are the members "I" and "J"."""
    m = multiplicities(case)
    found = []
    for i in range(case.n):
        types = {int(case.kinds[i, j]) for j in range(case.n) if case.kinds[i, j] >= 0} | {0}
        width = min(case.d_in, len(types) * case.d_hidden)
        if m[0][i]:
            found.append(Tie((0, i), ["I" if i in case.subset else "J", (0, i)], ln_comb(width, m[0][i])))
    for layer in range(1, case.depth):
        for i in range(case.n):
            if m[layer][i]:
                inputs = [(layer - 1, j) for j in range(case.n) if case.kinds[j, i] >= 0]
                found.append(Tie((layer, i), [(layer, i), *inputs], ln_comb(case.d_hidden, m[layer][i])))
    last = [(case.depth - 1, j) for j in range(case.n) if case.target is None or case.kinds[j, case.target] >= 0]
    return [*found, Tie((case.depth, case.target), last, math.log(case.d_hidden))]


def least_cut(case: Case) -> float:
    """Minimum over all assignments of sides to pairs, every one of them tried."""
    found = ties(case)
    pairs = sorted({pair for tie in found for pair in tie.members if not isinstance(pair, str)})
    codes = np.arange(2 ** len(pairs))
    sides = {pair: (codes >> place & 1).astype(bool) for place, pair in enumerate(pairs)}
    sides |= {"I": np.ones(len(codes), bool), "J": np.zeros(len(codes), bool)}
    total = np.zeros(len(codes))
    for tie in found:
        stacked = np.stack([sides[member] for member in tie.members])
        total += tie.cost * (stacked.any(axis=0) & ~stacked.all(axis=0))
    return float(total.min())


def separates(case: Case, broken: set[tuple[int, int | None]]) -> bool:
    """Whether removing ties, and those that cost nothing, leaves no connection between both sides."""
    parent: dict[Any, Any] = {}

    def root(x: Any) -> Any:
        while parent.setdefault(x, x) != x:
            x = parent[x]
        return x

    for tie in ties(case):
        if tie.name not in broken and tie.cost > 0:
            for member in tie.members[1:]:
                parent[root(member)] = root(tie.members[0])
    return root("I") != root("J")


def boundary(case: Case) -> list[int]:
    inside = set(case.subset)
    return [i for i in range(case.n) if any(case.kinds[j, i] >= 0 and (j in inside) != (i in inside)
                                            for j in range(case.n))]  # fmt: skip


def upper_bounds(case: Case) -> dict[str, float]:
    """Paper, layers, symmetric and polynomial bounds, sum by sum."""
    m, edge, graph = multiplicities(case), boundary(case), case.target is None
    log = math.log(case.d_hidden)
    steps = range(1, case.depth if graph else case.depth + 1)
    layers = log * (graph + sum(m[layer][i] for layer in steps for i in edge))
    symmetric = log * graph + sum(ln_comb(case.d_hidden, m[layer][i]) for layer in steps for i in edge if m[layer][i])
    leaves = [0.0, 0.0]
    for tie in ties(case):
        if tie.name[0] == 0:
            leaves[tie.members[0] == "J"] += tie.cost
    index = sum(m[1][i] for i in edge)
    typed = case.directed or bool((case.kinds > 0).any())
    paper = layers if typed else log * (4 * index + graph)
    return {"paper": paper, "layers": layers, "symmetric": symmetric, "polynomial": min(leaves)}


def admissible_weights(case: Case) -> dict[frozenset[int], int]:
    """Every admissible set, by all pairs of subsets, and the walks of L - 1 steps from it."""
    m = multiplicities(case)[1]
    inside = case.subset
    outside = [i for i in range(case.n) if i not in inside]
    found = {}
    for a in range(len(inside) + 1):
        for b in range(len(outside) + 1):
            for one, other in itertools.product(itertools.combinations(inside, a), itertools.combinations(outside, b)):
                hits = [(sum(case.kinds[i, k] >= 0 for i in one), sum(case.kinds[j, k] >= 0 for j in other))
                        for k in range(case.n)]  # fmt: skip
                common = frozenset(k for k, (x, y) in enumerate(hits) if x and y)
                if common and all(hits[k] == (1, 1) for k in common):
                    found[common] = sum(m[k] for k in common)
    return found


def lower_bounds(case: Case) -> tuple[float, int]:
    """Best paper bound, and best multiset number, over all admissible sets."""
    width = min(case.d_in, case.d_hidden)
    paper, number = 0.0, 1
    for weight in admissible_weights(case).values():
        if weight:
            one = math.log(width) if case.depth == 1 else weight * math.log((width - 1) / weight + 1)
            paper = max(paper, one)
            number = max(number, width if case.depth == 1 else math.comb(width + weight - 1, weight))
    return paper, number


def generic_rank(case: Case, rng: np.random.Generator, most: int = 256) -> int | None:
    """Rank for random weights over a finite field; None where it is not below `most` - 5."""
    samples = 16
    while True:
        rank = _rank(_matrix(case, rng, samples))
        if rank <= samples - 5:
            return rank
        if samples >= most:
            return None
        samples = min(2 * samples, most)


def _matrix(case: Case, rng: np.random.Generator, samples: int) -> np.ndarray:
    """f of every pair of a left and a right half, modulo a prime."""
    kinds = int(case.kinds.max()) + 1
    h = [rng.integers(0, PRIME, (case.d_in, samples, 1) if i in case.subset else (case.d_in, 1, samples))
         for i in range(case.n)]  # fmt: skip
    width = case.d_in
    for _ in range(case.depth):
        weights = rng.integers(0, PRIME, (kinds, case.d_hidden, width))
        new = []
        for i in range(case.n):
            product: Any = 1
            for j in range(case.n):
                if case.kinds[j, i] >= 0:
                    product = product * _linear(weights[case.kinds[j, i]], h[j]) % PRIME
            new.append(product)
        h, width = new, case.d_hidden
    last: Any = 1
    if case.target is None:
        for part in h:
            last = last * part % PRIME
    else:
        last = h[case.target]
    out = _linear(rng.integers(0, PRIME, (1, case.d_hidden)), last)[0]
    return np.broadcast_to(out, (samples, samples)).copy()


def _linear(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return sum((matrix[:, r, None, None] * vector[r] % PRIME for r in range(matrix.shape[1])), np.int64(0)) % PRIME


def _rank(matrix: np.ndarray) -> int:
    """Gaussian elimination modulo the prime."""
    m, rank = matrix.copy(), 0
    for column in range(m.shape[1]):
        rows = np.flatnonzero(m[rank:, column])
        if not len(rows):
            continue
        m[[rank, rank + rows[0]]] = m[[rank + rows[0], rank]]
        m[rank] = m[rank] * pow(int(m[rank, column]), PRIME - 2, PRIME) % PRIME
        below = m[rank + 1 :, column].copy()
        m[rank + 1 :] = (m[rank + 1 :] - below[:, None] * m[rank] % PRIME) % PRIME
        rank += 1
        if rank == len(m):
            break
    return rank

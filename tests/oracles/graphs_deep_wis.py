"""Walk index sparsification from its definition: every walk counted, every list of values written out and sorted."""

from __future__ import annotations

from fractions import Fraction


def columns_to_edges(columns, directed):
    """First columns of the edges: loops dropped, each pair once."""
    seen, edges = set(), []
    for u, v in zip(*columns, strict=True):
        name = (u, v) if directed else (min(u, v), max(u, v))
        if u != v and name not in seen:
            seen.add(name)
            edges.append((u, v))
    return edges


def matrix_of(n, edges, directed):
    rows = [[int(i == j) for j in range(n)] for i in range(n)]
    for u, v in edges:
        rows[u][v] = 1
        if not directed:
            rows[v][u] = 1
    return rows


def product(a, b):
    columns = list(zip(*b, strict=True))
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in a]


def power(a, exponent):
    n = len(a)
    found = [[int(i == j) for j in range(n)] for i in range(n)]
    for _ in range(exponent):
        found = product(found, a)
    return found


def singleton_index(a, walks, t, target):
    """Walks to `target` that start at the boundary of {t} and its complement; `walks` is a power of `a`."""
    n = len(a)
    boundary = [j for j in range(n) if j != t and a[t][j]]  # outsiders that hear t
    if any(a[j][t] for j in range(n) if j != t):
        boundary.append(t)  # t hears an outsider
    return sum(walks[i][target] for i in boundary)


def values_of(n, edges, depth, directed=False, target=None):
    a = matrix_of(n, edges, directed)
    walks = power(a, depth - 1)
    return [singleton_index(a, walks, t, t if target is None else target) for t in range(n)]


def sorted_values(n, edges, depth, directed=False, vertices=None, weights=None, target=None):
    values = values_of(n, edges, depth, directed, target)
    if weights is not None:
        values = [Fraction(weight) * value for weight, value in zip(weights, values, strict=True)]
    return tuple(sorted(values if vertices is None else [values[t] for t in range(n) if vertices[t]]))


def naive_order(n, edges, depth, *, count=None, directed=False, last=False, batch_size=1, keep=(), **options):
    """Edge ids in removal order."""
    left = [e for e in range(len(edges)) if e not in keep]
    order = []
    count = len(left) if count is None else min(count, len(left))
    while len(order) < count:
        remaining = [e for e in range(len(edges)) if e not in order]
        keyed = []
        for e in left:
            rest = [edges[f] for f in remaining if f != e]
            keyed.append((sorted_values(n, rest, depth, directed, **options), e if last else -e))
        keyed.sort(reverse=True)
        batch = [abs(tie) for _, tie in keyed[: min(batch_size, count - len(order))]]
        order += batch
        left = [e for e in left if e not in batch]
    return order


def naive_additions(n, edges, candidates, depth, *, count=None, directed=False, last=False):
    """Candidate numbers in the order in which they are added."""
    edges, left, order = list(edges), list(range(len(candidates))), []
    while left and (count is None or len(order) < count):
        keyed = [(sorted_values(n, [*edges, candidates[c]], depth, directed), c if last else -c) for c in left]
        best = abs(max(keyed)[1])
        order.append(best)
        left.remove(best)
        edges.append(candidates[best])
    return order


def dense_order(n, edges, depth, *, last=False):
    """The same order of an undirected graph for larger graphs: dense int64 powers, one candidate after another."""
    import numpy as np

    a = np.eye(n, dtype=np.int64)
    for u, v in edges:
        a[u, v] = a[v, u] = 1
    left, order = list(range(len(edges))), []
    while left:
        best = None
        for e in left:
            u, v = edges[e]
            a[u, v] = a[v, u] = 0
            values = np.diagonal(np.linalg.matrix_power(a, depth)).copy()
            values[a.sum(axis=1) == 1] = 0  # nothing but the loop
            a[u, v] = a[v, u] = 1
            key = (np.sort(values).tolist(), e if last else -e)
            best = key if best is None else max(best, key)
        e = abs(best[1])
        order.append(e)
        left.remove(e)
        u, v = edges[e]
        a[u, v] = a[v, u] = 0
    return order


def random_columns(generator, n, columns, directed):
    """Columns with loops and repeats; undirected ones come with their reverses, in any order."""
    pairs = [(generator.randrange(n), generator.randrange(n)) for _ in range(columns)]
    if not directed:
        pairs += [(v, u) for u, v in pairs]
        generator.shuffle(pairs)
    return [[u for u, _ in pairs], [v for _, v in pairs]]

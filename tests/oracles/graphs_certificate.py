"""Judging a removal order step by step, from the definition of the walk index. Slow and plain."""

from __future__ import annotations

import numpy as np


def values(pairs, n, depth, directed) -> np.ndarray:
    """WI_{L-1,t}({t}) of every vertex t: walks of length L - 1 from the boundary of {t} to t."""
    a = np.eye(n, dtype=object)
    for u, v in pairs:
        a[u, v] = 1
        if not directed:
            a[v, u] = 1
    power = np.eye(n, dtype=object)
    for _ in range(depth - 1):
        power = power.dot(a)
    found = []
    for t in range(n):
        others = [v for v in range(n) if v != t]
        boundary = [t] if any(a[v, t] for v in others) else []
        boundary += [v for v in others if a[t, v]]
        found.append(sum(int(power[v, t]) for v in boundary))
    return np.array(found, dtype=object)


def key_of(pairs, edge, n, depth, directed):
    """The key that a certificate holds for the removal of one edge from the graph of these pairs."""
    u, v = pairs[edge]
    if depth == 2 and not directed:
        degrees = [sum(x in pair for pair in pairs.values()) for x in (u, v)]
        return tuple(sorted(degrees))
    before = values(pairs.values(), n, depth, directed).tolist()
    after = values([p for e, p in pairs.items() if e != edge], n, depth, directed).tolist()
    flat = []
    for value in sorted(set(before) | set(after)):
        change = after.count(value) - before.count(value)
        if change:
            flat += [value, change]
    return tuple(flat)


def judge(edges, n, removed, keys, depth, tie_break, *, batch=1, directed=False):
    """Return (reason, step, better edge) as a verification should."""
    left = {e: tuple(pair) for e, pair in enumerate(edges)}
    picked: list[int] = []
    start = dict(left)
    for step, edge in enumerate(removed):
        if edge not in left:
            return "repeated edge", step, None
        if step % batch == 0:
            start = dict(left)
            lists = {
                e: sorted(values([p for f, p in start.items() if f != e], n, depth, directed).tolist()) for e in start
            }
            sign = 1 if tie_break == "first" else -1
            ranked = sorted(start, key=lambda e: sign * e)
            picked = sorted(ranked, key=lambda e: lists[e], reverse=True)
        if tuple(keys[step]) != key_of(start, edge, n, depth, directed):
            return "wrong key", step, None
        best = picked[step % batch]
        if best != edge:
            return ("tie rule" if lists[best] == lists[edge] else "better edge"), step, best
        del left[edge]
    return "", None, None


def judge_by_degree(edges, n, removed, keys, tie_break):
    """The same for depth 2 of an undirected graph, from degrees, for graphs that are too large for `judge`."""
    alive = set(range(len(edges)))
    degree = [sum(x in pair for pair in edges) for x in range(n)]
    sign = -1 if tie_break == "first" else 1
    for step, edge in enumerate(removed):
        if edge not in alive:
            return "repeated edge", step, None
        key = {e: tuple(sorted((degree[edges[e][0]], degree[edges[e][1]]))) for e in alive}
        if tuple(keys[step]) != key[edge]:
            return "wrong key", step, None
        best = max(alive, key=lambda e: (key[e], sign * e))
        if best != edge:
            return ("tie rule" if key[best] == key[edge] else "better edge"), step, best
        alive.remove(edge)
        for x in edges[edge]:
            degree[x] -= 1
    return "", None, None

"""Edges that survive sparsification at depth 2, one removal at a time, from degrees. Shares no code with src."""

from __future__ import annotations


def surviving(columns: list[tuple[int, int]], removals: int, *, last: bool = False) -> set[frozenset[int]]:
    """Remove the edge with the largest (smaller degree, larger degree) again and again; columns fix the ties."""
    edges: list[frozenset[int]] = []
    for u, v in columns:
        if u != v and frozenset((u, v)) not in edges:
            edges.append(frozenset((u, v)))
    for _ in range(min(removals, len(edges))):
        degree: dict[int, int] = {}
        for edge in edges:
            for vertex in edge:
                degree[vertex] = degree.get(vertex, 0) + 1
        keys = [sorted(degree[vertex] for vertex in edge) for edge in edges]
        places = [place for place, key in enumerate(keys) if key == max(keys)]
        del edges[places[-1] if last else places[0]]
    return set(edges)


def kept_columns(columns: list[tuple[int, int]], removals: int, *, last: bool = False) -> list[int]:
    """Return the places of the columns that stay: loops, and both directions of what survives."""
    alive = surviving(columns, removals, last=last)
    return [place for place, (u, v) in enumerate(columns) if u == v or frozenset((u, v)) in alive]

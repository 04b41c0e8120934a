"""The simple graph behind columns, one column at a time, in a dictionary. Shares no code with src."""

from __future__ import annotations


def canonical(columns, directed):
    """Edges in the order and direction of their first columns, and for every column its edge, or -1 for a loop."""
    known: dict[object, int] = {}
    edges: list[tuple[int, int]] = []
    column_edge = []
    for u, v in columns:
        key = (u, v) if directed else frozenset((u, v))
        if u == v:
            column_edge.append(-1)
        else:
            if key not in known:
                known[key] = len(edges)
                edges.append((u, v))
            column_edge.append(known[key])
    return edges, column_edge


def first_without_reverse(columns):
    """The first column whose reverse is missing; None if there is none."""
    return next((column for column in columns if column[::-1] not in set(columns)), None)

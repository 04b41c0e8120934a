"""Where the vertices of a small graph are drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._edges import EdgeList

__all__ = ["MOST_DRAWN", "layout"]

MOST_DRAWN = 60  # vertices up to which reports draw a graph

Floats = NDArray[np.float64]

_STRETCH = 2.0  # the narrow side of a component is widened to fill its box, at most by so much
_ROUNDS = 300  # of moving vertices apart


def layout(graph: EdgeList) -> Floats:
    """Return a place in the unit square for each vertex: joined vertices near, all of them apart.

    Parameters
    ----------
    graph : EdgeList
        A small graph, at most some hundred vertices.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Places; the same graph always gets the same ones. A single vertex lies in the middle.

    Notes
    -----
    Each component is laid out by the stress model of Kamada and Kawai (Information Processing Letters 31, 1989) as
    networkx has it, started on a circle, turned so that its long side lies across. Components get boxes by their size,
    those of one vertex a row at the foot. Then vertices that are too close are moved apart. O(n^2) memory and about 50
    ms for 60 vertices.
    """
    n = graph.num_nodes
    places = np.full((n, 2), 0.5)
    groups = _components(graph)
    large = [group for group in groups if len(group) > 1]
    alone = [int(group[0]) for group in groups if len(group) == 1]
    rows = -(-len(alone) // 10) if large else math.ceil(math.sqrt(len(alone)))
    foot = min(0.5, 0.12 * rows) if large else 1.0
    boxes = _boxes([len(group) for group in large], foot if alone else 0.0)
    for group, (left, bottom, width, height) in zip(large, boxes, strict=True):
        inner = _connected(graph, group)
        pad = 0.03 if len(large) > 1 else 0.0
        places[group, 0] = left + width * (pad + (1 - 2 * pad) * inner[:, 0])
        places[group, 1] = bottom + height * (pad + (1 - 2 * pad) * inner[:, 1])
    for number, vertex in enumerate(alone):
        across = -(-len(alone) // rows)
        row, column = divmod(number, across)
        filled = min(across, len(alone) - row * across)
        places[vertex] = (column + 0.5) / filled, foot * (rows - row - 0.5) / rows
    return _apart(places)


def _components(graph: EdgeList) -> list[NDArray[np.int64]]:
    """Return the vertices of each component, the largest first, then by smallest vertex."""
    from scipy.sparse.csgraph import connected_components

    from rankdiag.graphs._adjacency import adjacency

    if not graph.num_nodes:
        return []
    count, label = connected_components(adjacency(graph), directed=graph.directed, connection="weak")
    groups = [np.flatnonzero(label == number) for number in range(count)]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _boxes(sizes: list[int], foot: float) -> list[tuple[float, float, float, float]]:
    """Cut the square above `foot` into a box for each component, across or down in turn, by their sizes."""
    found: list[tuple[float, float, float, float]] = []
    left, bottom, width, height = 0.0, foot, 1.0, 1.0 - foot
    rest = sum(sizes)
    for size in sizes:
        part = max(size / rest, 0.0)
        rest -= size
        if width >= height:
            found.append((left, bottom, width * part, height))
            left, width = left + width * part, width * (1 - part)
        else:
            found.append((left, bottom + height * (1 - part), width, height * part))
            height *= 1 - part
    return found


def _connected(graph: EdgeList, group: NDArray[np.int64]) -> Floats:
    """Lay out one component in the unit square."""
    import networkx

    place = {int(vertex): number for number, vertex in enumerate(group)}
    part: Any = networkx.Graph()
    part.add_nodes_from(range(len(group)))
    part.add_edges_from((place[u], place[v]) for u, v in graph.edges.tolist() if u in place)
    found = networkx.kamada_kawai_layout(part)
    raw = np.array([found[number] for number in range(len(group))])
    raw -= raw.mean(axis=0)
    turn = np.linalg.svd(raw, full_matrices=False)[2]
    turn *= np.where(turn[np.arange(2), np.abs(turn).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]  # no sign left open
    raw = raw @ turn.T
    raw -= (raw.min(axis=0) + raw.max(axis=0)) / 2
    reach = np.abs(raw).max(axis=0)
    scale = 0.5 / max(float(reach.max()), 1e-12)
    stretch = [min(_STRETCH, 0.5 / max(side * scale, 1e-12)) for side in reach.tolist()]
    square: Floats = np.clip(raw * scale * stretch + 0.5, 0.0, 1.0)
    return square


def _apart(places: Floats) -> Floats:
    """Move vertices that are too close apart, a little at a time, and keep them in the square."""
    n = len(places)
    if n < 2:
        return places
    wanted = min(0.11, 0.62 / np.sqrt(n))
    first, second = np.triu_indices(n, 1)
    turn = 2.4 * np.arange(len(first))  # directions for pairs on one spot
    spare = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    for _ in range(_ROUNDS):
        step = places[first] - places[second]
        distance = np.hypot(step[:, 0], step[:, 1])
        close = distance < wanted * (1 - 1e-6)
        if not close.any():
            break
        length = distance[close, None]
        way = np.where(length > 1e-9, step[close] / np.maximum(length, 1e-9), spare[close])
        push = 0.5 * (wanted - length) * way
        move = np.zeros_like(places)
        np.add.at(move, first[close], push)
        np.add.at(move, second[close], -push)
        places = np.clip(places + 0.6 * move, 0.0, 1.0)
    return places

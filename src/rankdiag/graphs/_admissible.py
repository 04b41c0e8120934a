"""Sets of vertices that a partition cannot avoid: neighbours of both sides, each by exactly one vertex of either side.

For a subset I, take I' inside and J' outside. The vertices that receive from both are admissible if each of them
receives from exactly one vertex of I' and one of J'. Many walks from such a set force a large separation rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Admissible", "heaviest_admissible"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

EXACT_LIMIT = 12  # all pairs of subsets of 12 vertices are at most 4096
_MOST_PARTS = 2000
_MOST_STEPS = 20_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Admissible:
    """An admissible set of the largest weight found.

    Attributes
    ----------
    vertices : ndarray of int64
        Sorted ids; empty where no set has a positive weight.
    weight : int
        Sum of the weights of its vertices.
    exact : bool
        Whether no admissible set weighs more.
    """

    vertices: Ints
    weight: int
    exact: bool


def heaviest_admissible(source: Ints, target: Ints, side: Mask, boundary: Mask, weights: NDArray[Any]) -> Admissible:
    """Search the admissible set whose vertices have the largest sum of weights.

    Parameters
    ----------
    source, target : ndarray of int64, shape (A,)
        Arcs without loops; every vertex also receives from itself.
    side : ndarray of bool, shape (n,)
        The subset.
    boundary : ndarray of bool, shape (n,)
        Vertices that receive from the other side.
    weights : ndarray of int64 or of Python ints, shape (n,)
        Weights >= 0.

    Returns
    -------
    Admissible
        Exact where every part of the boundary's neighbourhood has at most 12 vertices, greedy elsewhere.

    Notes
    -----
    Only vertices that send into the boundary matter, and the condition ties only those that share a receiver: the
    search is done for each connected part of them. A set that is not admissible stays so when it grows, so the greedy
    search never takes back. Exact: O(4096) a part. Greedy: O(crossing edges times degree), at most 2e7 steps.
    """
    receivers = np.flatnonzero(boundary)
    into = boundary[target]
    senders = np.concatenate((receivers, source[into]))
    receiving = np.concatenate((receivers, target[into]))
    heavy = dict(zip(receivers.tolist(), weights[receivers].tolist(), strict=True))
    sends: dict[int, list[int]] = {}
    for v, k in zip(senders.tolist(), receiving.tolist(), strict=True):
        sends.setdefault(v, []).append(k)
    found: list[int] = []
    large: list[int] = []
    parts = _parts(senders, receiving, len(side))
    if len(parts) > _MOST_PARTS:
        parts, large = [], sorted(sends)
    for part in parts:
        if len(part) > EXACT_LIMIT:
            large += part
        else:
            found += _best_of_all(part, sends, heavy, side)
    if large:
        found += _greedy(sorted(large), sends, heavy, side, source, target)
    weight = sum(heavy[k] for k in found)
    return Admissible(np.array(sorted(found) if weight else [], np.int64), weight, not large)


def _parts(senders: Ints, receivers: Ints, n: int) -> list[list[int]]:
    """Group senders that share receivers, directly or through others."""
    if not len(senders):
        return []
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    shared = csr_array((np.ones(len(senders), np.int8), (senders, receivers)), shape=(n, n))
    _, label = connected_components(shared, directed=False)
    ids = np.unique(senders)
    ids = ids[np.argsort(label[ids], kind="stable")]
    return [part.tolist() for part in np.split(ids, np.flatnonzero(np.diff(label[ids])) + 1)]


def _best_of_all(part: list[int], sends: dict[int, list[int]], heavy: dict[int, int], side: Mask) -> list[int]:
    """Try every pair of subsets of one part; of equal weights the smallest set, then the first in order of ids."""
    receivers = sorted({k for v in part for k in sends[v]})
    bit = {k: 1 << place for place, k in enumerate(receivers)}
    seen, twice = [], []
    for inside in (True, False):
        once, more = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for v in part:
            if bool(side[v]) == inside:
                reached = sum(bit[k] for k in sends[v])
                more = np.concatenate((more, more | (once & reached)))
                once = np.concatenate((once, once | reached))
        seen.append(once)
        twice.append(more)
    common = seen[0][:, None] & seen[1][None, :]
    clash = common & (twice[0][:, None] | twice[1][None, :])
    sets = np.unique(common[clash == 0]).tolist()

    def chosen(code: int) -> list[int]:
        return [k for k in receivers if code & bit[k]]

    return max(
        (chosen(code) for code in sets), key=lambda ids: (sum(heavy[k] for k in ids), -len(ids), [-k for k in ids])
    )


def _greedy(
    part: list[int], sends: dict[int, list[int]], heavy: dict[int, int], side: Mask, source: Ints, target: Ints
) -> list[int]:
    """Grow both subsets by crossing edges, the heaviest first; the better of two ideas of what is heavy."""
    allowed = np.zeros(len(side), bool)
    allowed[part] = True
    crossing = (side[source] != side[target]) & allowed[source] & allowed[target]
    u, v = source[crossing], target[crossing]
    ends = np.unique(np.stack((np.where(side[u], u, v), np.where(side[u], v, u)), axis=1), axis=0).tolist()
    reach = {vertex: set(sends[vertex]) for vertex in part}
    steps = 0
    scored = []
    for i, j in ends:
        few, many = sorted((reach[i], reach[j]), key=len)
        steps += len(few)
        weight = sum(heavy[k] for k in few if k in many) if steps <= _MOST_STEPS else heavy.get(i, 0)
        scored.append((weight, len(few) + len(many), i, j))
    by_weight = sorted(scored, key=lambda entry: (-entry[0], entry[2], entry[3]))
    by_share = sorted(scored, key=lambda entry: (-(1024 * entry[0] // entry[1]), entry[2], entry[3]))
    grown = [_grow([(i, j) for *_, i, j in order], part, sends, heavy, side) for order in (by_weight, by_share)]
    return max(grown, key=lambda ids: sum(heavy[k] for k in ids))


def _grow(
    pairs: list[tuple[int, int]], part: list[int], sends: dict[int, list[int]], heavy: dict[int, int], side: Mask
) -> list[int]:
    count: tuple[dict[int, int], dict[int, int]] = (dict.fromkeys(heavy, 0), dict.fromkeys(heavy, 0))
    taken: set[int] = set()
    dead: set[int] = set()
    steps = 0

    def fits(vertex: int, place: int) -> bool:
        own, other = count[place], count[1 - place]
        return not any(other[k] and (own[k] or other[k] > 1) for k in sends[vertex])

    def put(vertex: int, place: int, change: int = 1) -> None:
        for k in sends[vertex]:
            count[place][k] += change

    for i, j in pairs:
        if i in dead or j in dead or steps > _MOST_STEPS:
            continue
        steps += len(sends[i]) + len(sends[j])
        if i not in taken and not fits(i, 0):
            dead.add(i)
            continue
        if i not in taken:
            put(i, 0)
        if j in taken or fits(j, 1):
            if j not in taken:
                put(j, 1)
            taken |= {i, j}
        elif i not in taken:
            put(i, 0, -1)
    for vertex in part:
        place = 0 if side[vertex] else 1
        own, other = count[place], count[1 - place]
        gains = any(other[k] == 1 and not own[k] and heavy[k] for k in sends[vertex])
        if vertex not in taken and gains and fits(vertex, place):
            put(vertex, place)
            taken.add(vertex)
    return [k for k in heavy if count[0][k] and count[1][k]]

"""Whether a removal order is the greedy one: by degrees at depth 2, by closed walks in general.

No line is shared with the modules that make orders. Edges are numbered by id, `tie[e]` is e or M - 1 - e, so that the
smaller wins; a removal order is a sequence of edge ids without repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches_by_degree", "batches_by_walks", "degree_keys", "degrees_hold", "walk_keys"]

Ints = NDArray[np.int64]
Key = tuple[int, ...]


def degree_keys(edges: Ints, n: int, removed: Ints, batch: int) -> Ints:
    """Return (min degree, max degree) of every removed edge at the start of its batch, shape (k, 2)."""
    degree = np.bincount(edges.ravel(), minlength=n)
    found = np.empty((len(removed), 2), np.int64)
    if batch == 1:
        left = degree.tolist()
        for i, (u, v) in enumerate(edges[removed].tolist()):
            a, b = left[u], left[v]
            found[i] = (a, b) if a < b else (b, a)
            left[u] -= 1
            left[v] -= 1
        return found
    for start in range(0, len(removed), batch):
        ends = edges[removed[start : start + batch]]
        found[start : start + batch] = np.sort(degree[ends], axis=1)
        degree -= np.bincount(ends.ravel(), minlength=n)
    return found


def degrees_hold(edges: Ints, n: int, removed: Ints, keys: Ints, tie: Ints) -> int | None:
    """Check an order of depth 2, batches of one; see `verify_wis_certificate` for the argument.

    Parameters
    ----------
    edges : ndarray of int64, shape (M, 2)
        Edges of an undirected simple graph.
    n : int
        Vertices.
    removed : ndarray of int64, shape (k,)
        Edge ids in removal order, without repeats.
    keys : ndarray of int64, shape (k, 2)
        Claimed (min degree, max degree) of every removal.
    tie : ndarray of int64, shape (M,)
        Of edges with equal keys, the one with the smallest number goes first.

    Returns
    -------
    int or None
        None if every removal is right. Otherwise the step at which a contradiction came up: some removal up to and
        including it is wrong, not necessarily this one.
    """
    count = len(removed)
    if not count:
        return None
    low, high, number = keys[:, 0], keys[:, 1], tie[removed]
    falls = (low[1:] < low[:-1]) | (
        (low[1:] == low[:-1]) & ((high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (number[1:] > number[:-1])))
    )
    stop = count if falls.all() else int((~falls).argmax()) + 1  # in a right order removals only get worse
    state = _Levels(edges, n, tie)
    for step, (edge, claimed) in enumerate(zip(removed[:stop].tolist(), keys[:stop].tolist(), strict=True)):
        if not state.remove(edge, claimed[0], claimed[1]):
            return step
    if stop < count:
        return stop
    return None if state.rest_holds(int(low[-1]), int(high[-1]), int(number[-1])) else count - 1


class _Levels:
    """The graph while edges go: degrees, living edges at each vertex, and how many have which min degree."""

    def __init__(self, edges: Ints, n: int, tie: Ints) -> None:
        degree = np.bincount(edges.ravel(), minlength=n)
        self.ends: list[list[int]] = edges.tolist()
        self.tie: list[int] = tie.tolist()
        self.degree: list[int] = degree.tolist()
        self.alive = bytearray(b"\x01") * len(self.ends)
        order = np.argsort(edges.ravel(), kind="stable") // 2
        cuts = np.cumsum(degree).tolist()
        listed = order.tolist()
        self.at = [listed[start:stop] for start, stop in zip([0, *cuts], cuts, strict=False)]
        smaller = degree[edges].min(axis=1) if len(edges) else np.zeros(0, np.int64)
        self.with_min: list[int] = np.bincount(smaller, minlength=1).tolist()
        self.level = len(self.with_min) - 1
        self.last = [-1] * n  # largest tie number that left the hub in this level
        self.seen = [-1] * n  # the level that `last` belongs to

    def remove(self, edge: int, low: int, high: int) -> bool:
        """Take one edge away; False if that contradicts a greedy order."""
        degree, (u, v) = self.degree, self.ends[edge]
        if degree[u] > degree[v]:
            u, v = v, u
        if (degree[u], degree[v]) != (low, high):
            return False
        while self.level > low:
            if self.with_min[self.level]:
                return False  # a level ends when no edge is left in it
            self.level -= 1
        self.alive[edge] = 0
        self.with_min[low] -= 1
        number = self.tie[edge]
        if self._jumped(u, v, low, number):
            return False
        if not self._leaves(u, low, high, number):
            return False
        if high == low:
            if not self._leaves(v, low, high, number):
                return False
        else:
            self.seen[v], self.last[v] = low, number
            degree[v] -= 1
        return True

    def _leaves(self, x: int, low: int, high: int, number: int) -> bool:
        """Lower the degree of a vertex of the current level; its edges leave the level, so they are looked at now."""
        degree, ends, alive = self.degree, self.ends, self.alive
        kept = self.at[x] = [edge for edge in self.at[x] if alive[edge]]
        for edge in kept:
            y = ends[edge][0] + ends[edge][1] - x
            far, own = degree[y], self.tie[edge]
            if far >= low:
                if far > high or (far == high and own < number) or self._jumped(x, y, low, own):
                    return False
                self.with_min[low] -= 1
                self.with_min[low - 1] += 1
        degree[x] -= 1
        return True

    def _jumped(self, x: int, y: int, level: int, own: int) -> bool:
        """Whether a hub at one end lost, in this level, an edge with the same key and a worse number than `own`."""
        return (self.seen[x] == level and self.last[x] > own) or (self.seen[y] == level and self.last[y] > own)

    def rest_holds(self, low: int, high: int, number: int) -> bool:
        """Whether every edge that is still there may stand back behind the last removal, already taken away."""
        kept = np.flatnonzero(np.frombuffer(self.alive, np.uint8))
        ends = np.array(self.ends, np.int64).reshape(-1, 2)[kept]
        degree = np.array(self.degree, np.int64)[ends]
        own = np.array(self.tie, np.int64)[kept]
        seen = np.array(self.seen, np.int64)
        left = np.where(seen == low, np.array(self.last, np.int64), -1)[ends].max(axis=1, initial=-1)
        far = degree.max(axis=1, initial=0)
        ahead = (far > high) | ((far == high) & (own < number)) | (left > own)
        return not bool((ahead & (degree.min(axis=1, initial=low) == low)).any())


class ClosedWalks:
    """The graph while edges go: closed walks of length L at every vertex, and what one edge less would change.

    Walks follow the definition, vertex by vertex in Python ints, from neighbour lists that hold the vertex itself.
    """

    def __init__(self, edges: Ints, n: int, depth: int, directed: bool) -> None:
        self.depth, self.directed = depth, directed
        self.ends: list[list[int]] = edges.tolist()
        self.out: list[set[int]] = [{v} for v in range(n)]
        self.into: list[set[int]] = [{v} for v in range(n)] if directed else self.out
        self.near: list[set[int]] = [{v} for v in range(n)] if directed else self.out  # either direction
        for u, v in self.ends:
            self._join(u, v)
        self.walks = [self._count(vertex) for vertex in range(n)]

    def _join(self, u: int, v: int) -> None:
        self.out[u].add(v)
        self.into[v].add(u)
        self.near[u].add(v)
        self.near[v].add(u)

    def _part(self, u: int, v: int) -> None:
        self.out[u].discard(v)
        self.into[v].discard(u)
        if self.directed and u not in self.out[v]:
            self.near[u].discard(v)
            self.near[v].discard(u)

    def _count(self, vertex: int) -> int:
        if len(self.into[vertex]) == 1:
            return 0
        forth = self._steps(vertex, self.out, self.depth // 2)
        back = self._steps(vertex, self.into, self.depth - self.depth // 2)
        return sum(walks * back[other] for other, walks in forth.items() if other in back)

    @staticmethod
    def _steps(vertex: int, neighbours: list[set[int]], steps: int) -> dict[int, int]:
        walks = {vertex: 1}
        for _ in range(steps):
            longer: dict[int, int] = {}
            for end, count in walks.items():
                for other in neighbours[end]:
                    longer[other] = longer.get(other, 0) + count
            walks = longer
        return walks

    def ball(self, edge: int, hops: int) -> set[int]:
        """Vertices within `hops` of an end of an edge, whatever the direction."""
        found = set(self.ends[edge])
        rim = found
        for _ in range(hops):
            rim = {other for vertex in rim for other in self.near[vertex]} - found
            found |= rim
        return found

    def key(self, edge: int) -> Key:
        """Return (value, change, value, change, ...): how the histogram of the walk counts changes without `edge`."""
        u, v = self.ends[edge]
        touched = self.ball(edge, (self.depth - 1) // 2)  # others have no closed walk of length L over the edge
        self._part(u, v)
        change: dict[int, int] = {}
        for vertex in touched:
            value = self._count(vertex)
            if value != self.walks[vertex]:
                change[value] = change.get(value, 0) + 1
                change[self.walks[vertex]] = change.get(self.walks[vertex], 0) - 1
        self._join(u, v)
        return tuple(number for value in sorted(change) if change[value] for number in (value, change[value]))

    def remove(self, edges: Iterable[int]) -> None:
        """Take edges away for good."""
        for edge in edges:
            touched = self.ball(edge, (self.depth - 1) // 2)
            self._part(*self.ends[edge])
            for vertex in touched:
                self.walks[vertex] = self._count(vertex)


def rank_of(key: Key) -> tuple[tuple[int, ...], ...]:
    """Turn a change of the histogram into a tuple that is larger where the sorted list of walk counts is larger.

    Of two lists of equal length, the one with fewer entries at the smallest value where they differ is larger.
    """
    pairs = zip(key[::2], key[1::2], strict=True)
    return (*((1, -value, -change) if change < 0 else (-1, value, -change) for value, change in pairs), (0,))


def walk_keys(edges: Ints, n: int, depth: int, directed: bool, removed: Ints, batch: int) -> tuple[Key, ...]:
    """Return the key of every removed edge at the start of its batch, for any depth."""
    state = ClosedWalks(edges, n, depth, directed)
    listed = removed.tolist()
    found: list[Key] = []
    for start in range(0, len(listed), batch):
        part = listed[start : start + batch]
        found += [state.key(edge) for edge in part]
        state.remove(part)
    return tuple(found)


def batches_by_degree(edges: Ints, n: int, removed: Ints, batch: int, tie: Ints) -> Iterator[tuple[list[int], Ints]]:
    """Yield, for each batch along the order, the edges that the rule picks, and (min, max degree) of all edges."""
    alive = np.ones(len(edges), bool)
    for start in range(0, len(removed), batch):
        ids = np.flatnonzero(alive)
        degree = np.bincount(edges[ids].ravel(), minlength=n)
        keys = np.sort(degree[edges], axis=1)
        best = ids[np.lexsort((tie[ids], -keys[ids, 1], -keys[ids, 0]))]
        part = removed[start : start + batch]
        yield best[: len(part)].tolist(), keys
        alive[part] = False


def batches_by_walks(
    edges: Ints, n: int, depth: int, directed: bool, removed: Ints, batch: int, tie: Ints
) -> Iterator[tuple[list[int], dict[int, Key]]]:
    """Yield, for each batch along the order, the edges that the rule picks, and the keys of all living edges.

    A key is computed again only if the vertices that it depends on met those of a removed edge.
    """
    state = ClosedWalks(edges, n, depth, directed)
    number = tie.tolist()
    listed = removed.tolist()
    keys = {edge: state.key(edge) for edge in range(len(edges))}
    ranks = {edge: (rank_of(key), -number[edge]) for edge, key in keys.items()}
    at: list[list[int]] = [[] for _ in range(n)]
    for edge, (u, v) in enumerate(state.ends):
        at[u].append(edge)
        at[v].append(edge)
    for start in range(0, len(listed), batch):
        part = listed[start : start + batch]
        if len(part) == 1:
            best = [max(ranks, key=ranks.__getitem__)]
        else:
            best = sorted(ranks, key=ranks.__getitem__, reverse=True)[: len(part)]
        yield best, keys
        rim = set().union(*(state.ball(edge, 2 * ((depth - 1) // 2)) for edge in part))
        state.remove(part)
        for edge in part:
            del keys[edge], ranks[edge]
        for edge in {edge for vertex in rim for edge in at[vertex]}:
            if edge in keys:
                keys[edge] = state.key(edge)
                ranks[edge] = (rank_of(keys[edge]), -number[edge])

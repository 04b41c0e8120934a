"""Whether a removal order is the greedy one: by degrees at depth 2, by closed walks in general.

No line is shared with the modules that make orders. Edges are numbered by id, `tie[e]` is e or M - 1 - e, so that the
smaller wins; a removal order is a sequence of edge ids without repeats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches_by_degree", "batches_by_walks", "compact", "degree_keys", "degrees_hold", "walk_keys"]

Ints = NDArray[np.int64]
Key = tuple[int, ...]


def compact(edges: Ints, n: int) -> tuple[Ints, int]:
    """Leave isolated vertices out of the numbering, if most are; keys are the same."""
    edges = edges.astype(np.int64, copy=False)
    if n <= 8 * len(edges) + 1024:
        return edges, n
    used, ends = np.unique(edges, return_inverse=True)
    return ends.reshape(-1, 2), len(used)


class _Losses:
    """When each vertex loses its edges, and the degrees that follow from it."""

    def __init__(self, edges: Ints, n: int, removed: Ints) -> None:
        ends = edges[removed].ravel()
        order = np.argsort(ends, kind="stable")
        self.degree = np.bincount(edges.ravel(), minlength=n)
        self.count = np.bincount(ends, minlength=n)
        self.start = np.cumsum(self.count) - self.count
        self.steps = order // 2  # of all losses, vertex by vertex
        self.span = len(removed) + 1
        self.places = ends[order] * self.span + self.steps
        before = np.empty(len(ends), np.int64)
        before[order] = self.degree[ends[order]] - (np.arange(len(ends)) - self.start[ends[order]])
        pairs = before.reshape(-1, 2)
        self.low, self.high = pairs.min(axis=1), pairs.max(axis=1)

    def falls_below(self, vertex: Ints, degree: Ints) -> Ints:
        """Step at which a vertex of at least this degree falls below it; the number of steps if it never does."""
        slot = self.degree[vertex] - degree
        happens = slot < self.count[vertex]
        found = np.full(len(vertex), self.span - 1)
        found[happens] = self.steps[self.start[vertex[happens]] + slot[happens]]
        return found

    def lost_before(self, vertex: Ints, step: Ints) -> Ints:
        """How many edges a vertex has lost before a step."""
        return np.searchsorted(self.places, vertex * self.span + step) - self.start[vertex]

    def passed_over(self, vertex: Ints, lost: Ints, level: Ints, own: Ints, number: Ints) -> NDArray[np.bool_]:
        """Whether the last of `lost` losses of a vertex was in this level, of an edge with a worse number."""
        found = np.zeros(len(vertex), bool)
        some = np.flatnonzero(lost > 0)
        last = self.steps[self.start[vertex[some]] + lost[some] - 1]
        found[some] = (self.low[last] == level[some]) & (number[last] > own[some])
        return found


def degree_keys(edges: Ints, n: int, removed: Ints, batch: int) -> Ints:
    """Return (min degree, max degree) of every removed edge at the start of its batch, shape (k, 2)."""
    if batch == 1:
        losses = _Losses(edges, n, removed)
        return np.stack((losses.low, losses.high), axis=1)
    degree = np.bincount(edges.ravel(), minlength=n)
    found = np.empty((len(removed), 2), np.int64)
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
        None if every removal is right. Otherwise a step at which a contradiction came up: some removal up to and
        including it is wrong, not necessarily this one.
    """
    count = len(removed)
    if not count:
        return None
    losses = _Losses(edges, n, removed)
    low, high, number = losses.low, losses.high, tie[removed]
    good = (keys[:, 0] == low) & (keys[:, 1] == high)
    good[1:] &= (low[1:] < low[:-1]) | (
        (low[1:] == low[:-1]) & ((high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (number[1:] > number[:-1])))
    )
    if not good.all():  # a wrong key, or a removal that is better than the one before it
        bad = int((~good).argmax())
        earlier = degrees_hold(edges, n, removed[:bad], keys[:bad], tie)
        return bad if earlier is None else earlier
    for side in (0, 1):
        vertex = edges[removed, side]
        lost = losses.lost_before(vertex, np.arange(count))
        wrong = losses.passed_over(vertex, lost, low, number, number)
        if wrong.any():
            return int(wrong.argmax())
    return _others_wait(losses, edges, removed, tie)


def _others_wait(losses: _Losses, edges: Ints, removed: Ints, tie: Ints) -> int | None:
    """Check that no edge was better than a removal while it stayed, one level of each edge after the other."""
    count = len(removed)
    low, high, number = losses.low, losses.high, tie[removed]
    gone = np.full(len(edges), count)
    gone[removed] = np.arange(count)
    ids = np.arange(len(edges))
    level = losses.degree[edges].min(axis=1)
    while len(ids):
        x, y = edges[ids, 0], edges[ids, 1]
        first, second = losses.falls_below(x, level), losses.falls_below(y, level)
        leaves = np.minimum(first, second)
        x, y = np.where(first <= second, x, y), np.where(first <= second, y, x)
        here = np.flatnonzero(leaves < gone[ids])
        at, a, own = leaves[here], level[here], tie[ids[here]]
        lost = losses.lost_before(y[here], at)
        far = losses.degree[y[here]] - lost
        wrong = (low[at] < a) | (far > high[at]) | ((far == high[at]) & (own < number[at]))
        # If x itself was a hub of this level before, y has degree a, and being worse than this removal is enough.
        wrong |= losses.passed_over(y[here], lost, a, own, number)
        if wrong.any():
            return int(at[wrong].min())
        ids, level = ids[here], level[here] - 1
    kept = np.flatnonzero(gone == count)
    left = (losses.degree - losses.count)[edges[kept]]
    a, far, own = left.min(axis=1), left.max(axis=1), tie[kept]
    wrong = (a > low[-1]) | ((a == low[-1]) & ((far > high[-1]) | ((far == high[-1]) & (own < number[-1]))))
    for side in (0, 1):
        vertex = edges[kept, side]
        wrong |= losses.passed_over(vertex, losses.count[vertex], a, own, number)
    return count - 1 if wrong.any() else None


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

    def _without(self, edge: int) -> dict[int, int]:
        """Walk counts of the vertices that an edge matters to, in the graph without it."""
        u, v = self.ends[edge]
        if self.depth == 3 and not self.directed:  # 2 triangles + 3 degree + 1
            common = self.out[u] & self.out[v] - {u, v}
            found = {other: self.walks[other] - 2 for other in common}
            for end in (u, v):
                found[end] = self.walks[end] - 2 * len(common) - 3 if len(self.out[end]) > 2 else 0
            return found
        touched = self.ball(edge, (self.depth - 1) // 2)  # others have no closed walk of length L over the edge
        self._part(u, v)
        found = {vertex: self._count(vertex) for vertex in touched}
        self._join(u, v)
        return found

    def key(self, edge: int) -> Key:
        """Return (value, change, value, change, ...): how the histogram of the walk counts changes without `edge`."""
        change: dict[int, int] = {}
        for vertex, value in self._without(edge).items():
            change[value] = change.get(value, 0) + 1
            change[self.walks[vertex]] = change.get(self.walks[vertex], 0) - 1
        return tuple(number for value in sorted(change) if change[value] for number in (value, change[value]))

    def reach(self, edge: int) -> tuple[set[int], set[int]]:
        """Return vertices around an edge; when it goes, keys may change of edges at the first or between the second."""
        if self.depth == 3 and not self.directed:
            u, v = self.ends[edge]
            changed = self.out[u] & self.out[v] | {u, v}
            return changed, set().union(*(self.out[vertex] for vertex in changed))
        return self.ball(edge, 2 * ((self.depth - 1) // 2)), set()

    def remove(self, edges: Iterable[int]) -> None:
        """Take edges away for good."""
        for edge in edges:
            for vertex, value in self._without(edge).items():
                self.walks[vertex] = value
            self._part(*self.ends[edge])


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
        near = [state.reach(edge) for edge in part]
        state.remove(part)
        for edge in part:
            del keys[edge], ranks[edge]
        stale = {edge for around, _ in near for vertex in around for edge in at[vertex]}
        for _, inner in near:
            for vertex in inner:
                stale.update(edge for edge in at[vertex] if inner.issuperset(state.ends[edge]))
        for edge in stale:
            if edge in keys:
                keys[edge] = state.key(edge)
                ranks[edge] = (rank_of(keys[edge]), -number[edge])

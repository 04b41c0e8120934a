"""Greedy orders of edges by exact keys, of which few are computed.

What the removal of an edge does to the sorted list of values is a signed count D: -1 at each old value and +1 at each
new one. Of two edges the better is the one with the smaller count at the smallest value where their D differ, for the
lists share everything else. That order of the D does not depend on the rest of the graph, so that keys of different
moments compare.

Why a lazy heap is exact (derived here). Let another edge g go. A vertex t that an edge e takes q_t walks from has the
new value n_t = w_t - q_t, the walks that avoid e. If no closed walk of length L uses both e and g, every q_t stays and
some n_t fall: at the smallest n_t that arises D gains one, and below it nothing changes, so the key of e gets worse
(likewise where an end of e is left with e alone, and n_t falls to 0). A key stored earlier is thus never too bad, and
an edge at the top whose fresh key equals its stored one is the best of all. Edges that do share a closed walk with g
can gain, for a vertex may leave their D. They go back into the heap under a bound: an undirected edge always takes from
both its ends, whose n never rise, so that its smallest new value is at most the smaller of these.

Edges that come instead of going have the same keys, and old values that rise where new ones fell. If no closed walk
uses both, the smallest old value that rises leaves D, and the key gets worse; the others are looked at again.

Edges without common neighbours, at depths 2 and 3, have keys that follow from the values of their two ends alone.
Those that share the end of the larger value, and whose other ends have equal values, stand in the heap as one, by the
first of them: without that, every removal at a hub would look at all its edges.

Beyond, the edges of a hub to its leaves stand as one where leaves have one factor: to swap two leaves changes nothing
in the graph, so that their edges have the same key at any depth. A leaf stays one until its edge goes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from rankdiag.graphs._wis_engines import Counts, Engine

__all__ = ["LazyOrder", "signed_key"]

Entry = tuple[float, tuple[int, ...], int, int]


def signed_key(old: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    """Turn old and new values into a tuple; the smaller the tuple, the larger the sorted list of all values."""
    signed: dict[int, int] = {}
    for value in old:
        signed[value] = signed.get(value, 0) - 1
    for value in new:
        signed[value] = signed.get(value, 0) + 1
    key: list[int] = []
    for value in sorted(signed):
        number = signed[value]
        if number > 0:
            key += (2, -value, number)
        elif number < 0:
            key += (0, value, number)
    key.append(1)
    return tuple(key)


class LazyOrder:
    """A heap of (lead, whole, tie, stamp): the lead is the first part of the key as one number.

    Where edges go, the lead says the smallest new value (the larger, the better) and then how many vertices get it (the
    fewer, the better); where they come, the smallest old value (the smaller, the better) and how many vertices leave
    it. The whole key follows once an edge with this lead is at the top, and is empty before. A lead may be better than
    the edge deserves, never worse.
    """

    def __init__(
        self, engine: Engine, ends: list[tuple[int, int]], free: list[int], scale: list[int] | None, last: bool
    ) -> None:
        self._engine, self._scale = engine, scale
        self._ends = ends
        self._width = len(engine.values) + 2
        highest = max(engine.values) * (1 if scale is None else max(scale))
        self._best = -(highest + 1) * self._width  # no lead is better
        self._ceiling = [self._best] * len(ends)
        self._alive = set(free)
        self._ties = [-edge if last else edge for edge in range(len(ends))]
        self._stamps = [0] * len(ends)
        self._fresh: dict[int, tuple[float, Counts]] = {}  # leads and losses in the graph as it is
        self._held = [self._bound(edge) for edge in range(len(ends))]  # leads in the heap
        self._twins = scale is None and engine.twins
        self._members: dict[tuple[int, int], list[int]] = {}  # ties of edges that stand in the heap as one
        self._group: list[tuple[int, int] | None] = [None] * len(ends)  # the hub, and what the other ends share
        self._heap: list[Entry] = [(self._held[edge], (), self._ties[edge], 0) for edge in free]
        heapq.heapify(self._heap)

    def take(self, count: int, batch_size: int) -> list[int]:
        """Remove `count` edges and return them in order."""
        order: list[int] = []
        while len(order) < count:
            batch = [self._pop() for _ in range(min(batch_size, count - len(order)))]
            for edge in batch:
                for other in self._engine.apply(edge):
                    if other in self._alive:
                        self._mark(other)
            self._fresh.clear()
            order += batch
            if len(self._heap) > 4 * len(self._alive) + 1000:
                self._heap = [entry for entry in self._heap if entry[3] == self._stamps[abs(entry[2])]]
                heapq.heapify(self._heap)
        return order

    def _pop(self) -> int:
        """Take the best edge of the graph as it is; no edge goes while this runs."""
        heap = self._heap
        while True:
            lead, known, tie, stamp = heap[0]
            edge = abs(tie)
            if stamp != self._stamps[edge]:
                heapq.heappop(heap)
                continue
            group = self._group[edge]
            spoke = None if group else self._spoke(edge)
            if spoke:
                heapq.heappop(heap)
                self._join(edge, spoke, lead, known)
                continue
            if group and self._twins and self._left(edge, group):
                self._drop(group, lead, known)
                now = self._look(edge)[0]
                self._join(edge, self._twin(edge), now, ())
                continue
            now, after = self._fresh.get(edge) or self._look(edge)
            whole = self._key(after) if now == lead else ()
            if whole and whole == known:
                if group:
                    following = self._drop(group, lead, known)
                    if following is not None:
                        self._ceiling[following] = self._ceiling[edge]
                else:
                    heapq.heappop(heap)
                self._alive.discard(edge)
                self._stamps[edge] += 1
                return edge
            if self._twins and not group and len(after) == 2:
                heapq.heappop(heap)
                self._join(edge, self._twin(edge), now, whole)
            else:
                heapq.heapreplace(heap, (now, whole, tie, stamp))

    def _spoke(self, edge: int) -> tuple[int, int] | None:
        """Return the group of an edge to a leaf: the hub, and the factor of the leaf."""
        hub = self._engine.hub(edge)
        if hub is None:
            return None
        u, v = self._ends[edge]
        return hub, 1 if self._scale is None else self._scale[u if v == hub else v]

    def _twin(self, edge: int) -> tuple[int, int]:
        """Return the group of an edge that changes its ends alone: the larger of them, and the value of the other."""
        u, v = self._ends[edge]
        values = self._engine.values
        return (u, values[v]) if values[u] > values[v] else (v, values[u])

    def _join(self, edge: int, group: tuple[int, int], lead: float, whole: tuple[int, ...]) -> None:
        """Put an edge into a group, with a key that no member has a better one than."""
        self._group[edge] = group
        members = self._members.setdefault(group, [])
        first = members[0] if members else None
        heapq.heappush(members, self._ties[edge])
        if members[0] != first:
            if first is not None:
                self._stamps[abs(first)] += 1  # it no longer stands for the group
            self._push(edge, lead, whole)

    def _left(self, edge: int, group: tuple[int, int]) -> bool:
        """Return whether the value of the lesser end has changed since the edge joined."""
        u, v = self._ends[edge]
        return self._engine.values[v if u == group[0] else u] != group[1]

    def _drop(self, group: tuple[int, int], lead: float, whole: tuple[int, ...]) -> int | None:
        """Take the edge at the top out of its group; the next member stands for the group, with the same key."""
        heapq.heappop(self._heap)
        members = self._members[group]
        self._group[abs(heapq.heappop(members))] = None
        if not members:
            del self._members[group]
            return None
        following = abs(members[0])
        self._push(following, lead, whole)
        return following

    def _push(self, edge: int, lead: float, whole: tuple[int, ...]) -> None:
        self._held[edge] = lead
        self._stamps[edge] += 1
        heapq.heappush(self._heap, (lead, whole, self._ties[edge], self._stamps[edge]))

    def _mark(self, edge: int) -> None:
        group = self._group[edge]
        if group and abs(self._members[group][0]) != edge:
            return  # another stands for it
        bound = self._bound(edge)
        if bound < self._held[edge]:
            self._push(edge, bound, ())

    def _bound(self, edge: int) -> float:
        """Return a lead that no later one of the edge is better than."""
        engine, scale = self._engine, self._scale
        if not engine.least:
            return self._best
        values, bound = engine.values, self._ceiling[edge]
        for least, layer in zip(engine.least, engine.layers(edge), strict=True):
            if scale is None:
                bound = max(bound, (least - min([values[t] for t in layer])) * self._width)
            else:
                bound = max([bound, *((least - values[t]) * scale[t] * self._width for t in layer if scale[t])])
        return bound

    def _look(self, edge: int) -> tuple[float, Counts]:
        """Compute what an edge changes in the graph as it is, the lead of that, and the bound of its later leads."""
        engine = self._engine
        after = engine.after(edge)
        if engine.falling:
            new = self._new(after)
            lowest = min(new) if new else 0
            lead: float = new.count(lowest) - lowest * self._width if new else self._best
            if engine.least:
                ends = self._new({end: after[end] for end in self._ends[edge]})
                self._ceiling[edge] = -min(ends) * self._width if ends else self._best
        else:
            old = self._old(after)
            lowest = min(old) if old else 0
            lead = lowest * self._width - old.count(lowest) if old else math.inf
        self._held[edge] = lead
        self._fresh[edge] = lead, after
        return lead, after

    def _new(self, after: Counts) -> list[int]:
        scale = self._scale
        return list(after.values()) if scale is None else [x * scale[t] for t, x in after.items() if scale[t]]

    def _old(self, after: Counts) -> list[int]:
        values, scale = self._engine.values, self._scale
        return [values[t] for t in after] if scale is None else [values[t] * scale[t] for t in after if scale[t]]

    def _key(self, after: Counts) -> tuple[int, ...]:
        return signed_key(self._old(after), self._new(after))

"""What one removed edge changes: closed walks at the vertices around it, in each of the forms that a depth allows.

An engine holds the graph that remains and the value of every vertex. It answers three questions about an edge: which
values its removal lowers and to what, what removing it for good does, and for which other edges that answer may now
have become better. The last is the heart of the lazy order: see `rankdiag.graphs._deep_wis`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._closed_walks import closed_walk_counts
from rankdiag.graphs._edges import EdgeList

__all__ = ["BallEngine", "Engine", "NearEngine", "TargetEngine"]

Losses = dict[int, int]
_INT64 = 2**62
_KNOWN = 5_000_000  # remembered losses; about 100 bytes each


class Engine(Protocol):
    """Values of the vertices of a graph that loses one edge after another."""

    values: list[int]
    ends_lose: bool  # whether both ends of any edge always lose, as long as the edge is there

    def losses(self, edge: int) -> Losses:
        """Return by how much the value of each vertex falls without `edge`; vertices that keep theirs are left out."""

    def remove(self, edge: int) -> Iterable[int]:
        """Remove `edge`; return the edges whose losses may have become smaller, perhaps with others among them."""


class _Neighbours:
    """Adjacent vertices as sets, and edge ids by their ends."""

    def __init__(self, graph: EdgeList) -> None:
        n = graph.num_nodes
        self.directed = graph.directed
        self.ends: list[tuple[int, int]] = [(u, v) for u, v in graph.edges.tolist()]
        self.out: list[set[int]] = [set() for _ in range(n)]
        self.into: list[set[int]] = [set() for _ in range(n)] if graph.directed else self.out
        self.ids: list[dict[int, int]] = [{} for _ in range(n)]
        for edge, (u, v) in enumerate(self.ends):
            self.out[u].add(v)
            self.into[v].add(u)
            self.ids[u][v] = edge
            if not graph.directed:
                self.ids[v][u] = edge

    def cut(self, edge: int) -> tuple[int, int]:
        u, v = self.ends[edge]
        self.out[u].discard(v)
        self.into[v].discard(u)
        del self.ids[u][v]
        if not self.directed:
            del self.ids[v][u]
        return u, v

    def falls_silent(self, edge: int) -> tuple[int, ...]:
        """Which ends hear nobody once `edge` is gone."""
        u, v = self.ends[edge]
        if self.directed:
            return (v,) if len(self.into[v]) == 1 else ()
        return tuple(end for end in (u, v) if len(self.out[end]) == 1)


class NearEngine:
    """Undirected graphs at depths 1 to 3: degrees and common neighbours say everything."""

    def __init__(self, graph: EdgeList, depth: int) -> None:
        self._graph = _Neighbours(graph)
        self._depth = depth
        self.values: list[int] = closed_walk_counts(graph, depth).tolist()
        self.ends_lose = depth > 1

    def losses(self, edge: int) -> Losses:
        u, v = self._graph.ends[edge]
        sets, values = self._graph.out, self.values
        if self._depth == 3:
            common = sets[u] & sets[v]
            found = dict.fromkeys(common, 2)
            found[u] = found[v] = 2 * len(common) + 3
        else:
            found = {} if self._depth == 1 else {u: 1, v: 1}
        for end in self._graph.falls_silent(edge):
            found[end] = values[end]
        return found

    def remove(self, edge: int) -> Iterable[int]:
        for vertex, loss in self.losses(edge).items():
            self.values[vertex] -= loss
        u, v = self._graph.cut(edge)
        if self._depth < 3:
            return ()
        ids = self._graph.ids
        common = self._graph.out[u] & self._graph.out[v]
        return [ids[end][x] for x in common for end in (u, v)]


class BallEngine:
    """Any depth, directed or not: walks in the part of the graph that closed walks through the edge reach.

    With A the matrix of the graph and B that without the edge (u, v), the closed walks of length L at t that use the
    edge number ``sum_i (B^i)[t, u] (A^(L-1-i))[v, t]``, counted by their first step over it; an undirected edge has the
    same sum with u and v swapped besides.
    """

    def __init__(self, graph: EdgeList, depth: int) -> None:
        self._graph = _Neighbours(graph)
        self._depth = depth
        self.values: list[int] = closed_walk_counts(graph, depth).tolist()
        self.ends_lose = not graph.directed and depth > 1
        degree = max((len(near) for sets in (self._graph.out, self._graph.into) for near in sets), default=0)
        self._small = 2 * depth * (degree + 1) ** depth < _INT64
        self._known: dict[int, Losses] = {}  # walks through an edge, until an edge that shares one goes
        self._room = _KNOWN

    def losses(self, edge: int) -> Losses:
        known = self._known.get(edge)
        if known is None:
            known = self._through(*self._graph.ends[edge])
            if len(known) <= self._room:
                self._known[edge] = known
                self._room -= len(known)
        found = dict(known)
        for end in self._graph.falls_silent(edge):
            found[end] = self.values[end]
        return found

    def remove(self, edge: int) -> Iterable[int]:
        found = self.losses(edge)
        others = self._sharing(edge)
        for vertex, loss in found.items():
            self.values[vertex] -= loss
        self._graph.cut(edge)
        for other in (edge, *others):
            self._room += len(self._known.pop(other, ()))
        return others

    def _sharing(self, edge: int) -> list[int]:
        """Edges (x, y) with a closed walk of length L through both: 2 + d(v, x) + d(y, u) <= L, or so reversed."""
        graph, depth = self._graph, self._depth
        u, v = graph.ends[edge]
        room = depth - 2
        if graph.directed:
            ahead, behind = _distances(v, graph.out, room), _distances(u, graph.into, room)
            pairs = ((ahead, behind),)
        else:
            near_u, near_v = _distances(u, graph.out, depth // 2), _distances(v, graph.out, depth // 2)
            pairs = ((near_v, near_u), (near_u, near_v))
        found = {
            graph.ids[x][y]
            for start, end in pairs
            for x, steps in start.items()
            for y in graph.out[x]
            if steps + end.get(y, depth) <= room
        }
        found.discard(edge)
        return list(found)

    def _region(self, u: int, v: int) -> list[int]:
        """Vertices t with d(v, t) + d(t, u) <= L - 1."""
        graph, length = self._graph, self._depth - 1
        reach = length if graph.directed else (length + 1) // 2
        ahead, behind = _distances(v, graph.out, reach), _distances(u, graph.into, reach)
        return [t for t, steps in ahead.items() if steps + behind.get(t, length + 1) <= length]

    def _through(self, u: int, v: int) -> Losses:
        region = self._region(u, v)
        if not region:
            return {}
        directed, length = self._graph.directed, self._depth - 1
        place = {t: i for i, t in enumerate(region)}
        inside = set(region)
        at_u, at_v = place[u], place[v]
        back = _Rows(place, inside, self._graph.out)  # (A x)[t] sums x over the out-neighbours of t
        ahead = _Rows(place, inside, self._graph.into) if directed else back
        kind = np.int64 if self._small else object
        size = len(region)
        to_u: list[NDArray] = [_unit(size, [at_u] if directed else [at_u, at_v], kind)]
        from_v: list[NDArray] = [_unit(size, [at_v] if directed else [at_v, at_u], kind)]
        for _ in range(length):
            last = to_u[-1]
            step = back.step(last)
            step[at_u] -= last[at_v]  # without the edge
            if not directed:
                step[at_v] -= last[at_u]
            to_u.append(step)
            from_v.append(ahead.step(from_v[-1]))
        total = sum(to_u[i] * from_v[length - i] for i in range(length + 1)).sum(axis=1)
        return {t: int(q) for t, q in zip(region, total.tolist(), strict=True) if q}


class _Rows:
    """Rows of neighbours inside a region, each vertex among its own, for sums over neighbours."""

    def __init__(self, place: dict[int, int], inside: set[int], sets: list[set[int]]) -> None:
        columns: list[int] = []
        starts: list[int] = []
        for t, own in place.items():
            starts.append(len(columns))
            columns.append(own)
            columns += [place[other] for other in sets[t] & inside]
        self._columns = np.array(columns)
        self._starts = np.array(starts)

    def step(self, walks: NDArray) -> NDArray:
        return np.add.reduceat(walks[self._columns], self._starts, axis=0)


def _unit(size: int, places: list[int], kind: type) -> NDArray:
    found = np.zeros((size, len(places)), kind)
    for column, place in enumerate(places):
        found[place, column] = 1
    return found


def _distances(start: int, sets: list[set[int]], reach: int) -> dict[int, int]:
    """Steps to every vertex that is at most `reach` steps away."""
    found = {start: 0}
    edge = {start}
    for steps in range(1, reach + 1):
        edge = set().union(*[sets[vertex] for vertex in edge]).difference(found)
        if not edge:
            break
        found.update(dict.fromkeys(edge, steps))
    return found


class TargetEngine:
    """Walks that end at one vertex: the value of t is the number of those that start at the boundary of {t}."""

    def __init__(self, graph: EdgeList, depth: int, target: int) -> None:
        self._graph = _Neighbours(graph)
        self._depth = depth
        self.ends_lose = False
        n = graph.num_nodes
        row = [0] * n
        row[target] = 1
        self._reach = [row]  # entry k: walks of length k from each vertex to the target
        for _ in range(depth):
            last = self._reach[-1]
            self._reach.append([last[t] + sum(last[x] for x in self._graph.out[t]) for t in range(n)])
        self.values: list[int] = [self._value(t, self._reach, len(self._graph.into[t])) for t in range(n)]

    def _value(self, t: int, reach: list[list[int]], incoming: int) -> int:
        """Walks from the out-neighbours of t, and from t itself if it hears anybody."""
        return reach[-1][t] - (0 if incoming else reach[-2][t])

    def _through(self, edge: int) -> list[Losses]:
        """Return the walks to the target over `edge`, for every length up to L, by their start."""
        graph, depth = self._graph, self._depth
        u, v = graph.ends[edge]
        found: list[Losses] = [{} for _ in range(depth + 1)]
        for near, far in ((u, v),) if graph.directed else ((u, v), (v, u)):
            walks = {near: 1}  # without the edge
            for i in range(depth):
                for k in range(depth - i):
                    rest = self._reach[k][far]
                    if rest:
                        level = found[i + k + 1]
                        for t, count in walks.items():
                            level[t] = level.get(t, 0) + count * rest
                longer: Losses = {}
                for x, count in walks.items():
                    longer[x] = longer.get(x, 0) + count
                    for t in graph.into[x]:
                        if not ((t == u and x == v) or (not graph.directed and t == v and x == u)):
                            longer[t] = longer.get(t, 0) + count
                walks = longer
        return found

    def _falls(self, edge: int, through: list[Losses]) -> Losses:
        graph = self._graph
        u, v = graph.ends[edge]
        found = {}
        for t in {*through[-1], *through[-2], u, v}:
            last = through[-1].get(t, 0)
            incoming = len(graph.into[t]) - (t == v or (t == u and not graph.directed))
            before = self._reach[-2][t] - through[-2].get(t, 0)
            value = self._reach[-1][t] - last - (0 if incoming else before)
            if value != self.values[t]:
                found[t] = self.values[t] - value
        return found

    def losses(self, edge: int) -> Losses:
        return self._falls(edge, self._through(edge))

    def remove(self, edge: int) -> Iterable[int]:
        graph = self._graph
        through = self._through(edge)
        for vertex, loss in self._falls(edge, through).items():
            self.values[vertex] -= loss
        for k, level in enumerate(through):
            row = self._reach[k]
            for vertex, count in level.items():
                row[vertex] -= count
        around: set[int] = set(graph.ends[edge])
        rim = around
        for _ in range(self._depth - 1):
            rim = set().union(*[graph.out[t] | graph.into[t] for t in rim]) - around
            around |= rim
        graph.cut(edge)
        others = {graph.ids[t][x] for t in around for x in graph.out[t]}
        others |= {graph.ids[x][t] for t in around for x in graph.into[t]}
        return others

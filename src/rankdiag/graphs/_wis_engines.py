"""What one removed edge changes: closed walks at the vertices around it, in each of the forms that a depth allows.

An engine holds the graph as it is and the value of every vertex. It answers two questions about an edge: which values
change with it, and to what; and, when it goes for good, for which other edges that answer may have become better. The
second is the heart of the lazy order: see `rankdiag.graphs._deep_wis`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._closed_walks import closed_walk_counts
from rankdiag.graphs._edges import EdgeList

__all__ = ["BallEngine", "Counts", "Engine", "LocalWalks", "NearEngine", "Neighbours", "TargetEngine", "distances"]

Counts = dict[int, int]  # a number for each of some vertices
_INT64 = 2**62
_KNOWN = 5_000_000  # remembered walks; about 100 bytes each


class Engine(Protocol):
    """Values of the vertices of a graph that changes by one edge after another."""

    values: list[int]
    falling: bool  # values fall, since edges go; else they rise, since edges come
    twins: bool  # falling values only: where two values change, they say how, and for good
    least: tuple[int, ...]  # what vertices up to each distance from an edge lose at least; empty: nothing is known

    def layers(self, edge: int) -> Iterable[Iterable[int]]:
        """Return the vertices at each distance of `least`; vertices of smaller distance may be among them."""
        ...

    def hub(self, edge: int) -> int | None:
        """Return the end of `edge` whose other end is a leaf, where that end's edges to leaves are alike."""
        ...

    def after(self, edge: int) -> Counts:
        """Return the new values of the vertices whose values change with `edge`."""
        ...

    def apply(self, edge: int) -> Iterable[int]:
        """Change the graph for good; return the edges whose answer may now be better, perhaps with others."""
        ...


class Neighbours:
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

    def most(self) -> int:
        """Return the largest number of neighbours of a vertex, its own loop left out."""
        return max((len(near) for sets in (self.out, self.into) for near in sets), default=0)

    def cut(self, edge: int) -> tuple[int, int]:
        u, v = self.ends[edge]
        self.out[u].discard(v)
        self.into[v].discard(u)
        del self.ids[u][v]
        if not self.directed:
            del self.ids[v][u]
        return u, v

    def falls_silent(self, edge: int) -> tuple[int, ...]:
        """Return the ends that hear nobody once `edge` is gone."""
        u, v = self.ends[edge]
        if self.directed:
            return (v,) if len(self.into[v]) == 1 else ()
        return tuple(end for end in (u, v) if len(self.out[end]) == 1)


_FAR = 2  # distance beyond which a bound costs more than it saves


def _least(depth: int) -> tuple[int, ...]:
    """Return what the vertices up to each distance from an undirected edge lose at least when it goes.

    A vertex at distance d loses the closed walks on its shortest path there, those from one end of a path of d + 2
    vertices that use its last edge; none are left at distances above (L - 2) / 2. From depth 8 on, a longer path holds
    more of them, so the least over all distances up to d counts.
    """
    found = []
    for distance in range(min((depth - 2) // 2, _FAR) + 1):
        counts = []
        for size in (distance + 1, distance + 2):
            walks = [1] + [0] * (size - 1)
            for _ in range(depth):
                walks = [sum(walks[max(i - 1, 0) : i + 2]) for i in range(size)]
            counts.append(walks[0])
        found.append(counts[1] - counts[0])
    return tuple(accumulate(found, min))


class NearEngine:
    """Undirected graphs at depths 1 to 3: degrees and common neighbours say everything."""

    falling = True

    def __init__(self, graph: EdgeList, depth: int) -> None:
        self._graph = Neighbours(graph)
        self._depth = depth
        self.values: list[int] = closed_walk_counts(graph, depth).tolist()
        self.twins = depth > 1
        self.least = _least(depth)

    def layers(self, edge: int) -> Iterable[Iterable[int]]:
        return (self._graph.ends[edge],)

    def hub(self, edge: int) -> int | None:
        return None

    def after(self, edge: int) -> Counts:
        u, v = self._graph.ends[edge]
        sets, values = self._graph.out, self.values
        if self._depth == 3:
            common = sets[u] & sets[v]
            found = {x: values[x] - 2 for x in common}
            own = 2 * len(common) + 3
            found[u], found[v] = values[u] - own, values[v] - own
        else:
            found = {} if self._depth == 1 else {u: values[u] - 1, v: values[v] - 1}
        for end in self._graph.falls_silent(edge):
            found[end] = 0
        return found

    def apply(self, edge: int) -> Iterable[int]:
        for vertex, value in self.after(edge).items():
            self.values[vertex] = value
        u, v = self._graph.cut(edge)
        if self._depth < 3:
            return ()
        ids = self._graph.ids
        return [ids[end][x] for x in self._graph.out[u] & self._graph.out[v] for end in (u, v)]


class LocalWalks:
    """Closed walks through an edge, counted in the part of the graph that they reach.

    With A the matrix of the graph and B that without the edge (u, v), the closed walks of length L at t that use the
    edge number ``sum_i (B^i)[t, u] (A^(L-1-i))[v, t]``, counted by their first step over it; an undirected edge has the
    same sum with u and v swapped besides.

    `most_neighbours` is a bound on the degrees, loops left out; it says whether int64 is safe.
    """

    def __init__(self, graph: Neighbours, depth: int, most_neighbours: int) -> None:
        self._graph, self._depth = graph, depth
        self._kind: Any = np.int64 if 2 * depth * (most_neighbours + 1) ** depth < _INT64 else object

    def region(self, u: int, v: int) -> list[int]:
        """Return the vertices t with d(v, t) + d(t, u) <= L - 1."""
        graph, length = self._graph, self._depth - 1
        reach = length if graph.directed else (length + 1) // 2
        ahead, behind = distances(v, graph.out, reach), distances(u, graph.into, reach)
        return [t for t, steps in ahead.items() if steps + behind.get(t, length + 1) <= length]

    def through(self, u: int, v: int) -> Counts:
        """Return the closed walks through an edge of the graph, by the vertex where they start."""
        if self._depth == 4 and not self._graph.directed:
            return self._through_at_4(u, v)
        region = self.region(u, v)
        if not region:
            return {}
        directed, length = self._graph.directed, self._depth - 1
        place = {t: i for i, t in enumerate(region)}
        at_u, at_v = place[u], place[v]
        back = _Rows(place, self._graph.out)  # (A x)[t] sums x over the out-neighbours of t
        ahead = _Rows(place, self._graph.into) if directed else back
        size = len(region)
        to_u = [_units(size, [at_u] if directed else [at_u, at_v], self._kind)]
        from_v = [_units(size, [at_v] if directed else [at_v, at_u], self._kind)]
        for _ in range(length):
            last = to_u[-1]
            step = back.step(last)
            step[at_u] -= last[at_v]  # without the edge
            if not directed:
                step[at_v] -= last[at_u]
            to_u.append(step)
            from_v.append(ahead.step(from_v[-1]))
        total: Any = sum(to_u[i] * from_v[length - i] for i in range(length + 1))
        return {t: int(walks) for t, walks in zip(region, total.sum(axis=1).tolist(), strict=True) if walks}

    def _through_at_4(self, u: int, v: int) -> Counts:
        """Count by (A^4)[t, t] = sum_j (A^2)[t, j]^2, where A^2 counts the vertices that two vertices both hear."""
        sets = self._graph.out
        found: Counts = {}
        both = 4 * len(sets[u] & sets[v]) + 4
        for end, other in ((u, v), (v, u)):
            near = sets[end]
            own = 2 * len(near) + 1 + both
            for j in sets[other]:
                if j != end:  # loses `other` from what it hears together with `end`
                    loss = 2 * len(near & sets[j]) + (3 if j in near else -1)
                    found[j] = found.get(j, 0) + loss
                    own += loss
            found[end] = found.get(end, 0) + own
        return found

    def sharing(self, edge: int) -> list[int]:
        """Return the edges (x, y) with a closed walk through both: 2 + d(v, x) + d(y, u) <= L, or so reversed."""
        graph, depth = self._graph, self._depth
        u, v = graph.ends[edge]
        room = depth - 2
        reach = room if graph.directed else depth // 2
        ahead, behind = distances(v, graph.out, reach), distances(u, graph.into, reach)
        ways = [(ahead, behind)] if graph.directed else [(ahead, behind), (behind, ahead)]
        found = {
            graph.ids[x][y]
            for start, end in ways
            for x, steps in start.items()
            for y in graph.out[x]
            if steps + end.get(y, depth) <= room
        }
        found.discard(edge)
        return list(found)


class BallEngine:
    """Any depth, directed or not: walks through an edge, remembered until an edge that shares one goes."""

    falling = True
    twins = False

    def __init__(self, graph: EdgeList, depth: int) -> None:
        self._graph = Neighbours(graph)
        self._walks = LocalWalks(self._graph, depth, self._graph.most())
        self.values: list[int] = closed_walk_counts(graph, depth).tolist()
        self.least: tuple[int, ...] = () if graph.directed else _least(depth)
        self._known: dict[int, Counts] = {}
        self._room = _KNOWN

    def layers(self, edge: int) -> Iterable[Iterable[int]]:
        found: list[Iterable[int]] = [self._graph.ends[edge]]
        for _ in self.least[1:]:
            found.append(set().union(*[self._graph.out[t] for t in found[-1]]))
        return found

    def hub(self, edge: int) -> int | None:
        if self._graph.directed:
            return None
        u, v = self._graph.ends[edge]
        return u if len(self._graph.out[v]) == 1 else v if len(self._graph.out[u]) == 1 else None

    def after(self, edge: int) -> Counts:
        known = self._known.get(edge)
        if known is None:
            known = self._walks.through(*self._graph.ends[edge])
            if len(known) <= self._room:
                self._known[edge] = known
                self._room -= len(known)
        values = self.values
        found = {t: values[t] - walks for t, walks in known.items()}
        for end in self._graph.falls_silent(edge):
            found[end] = 0
        return found

    def apply(self, edge: int) -> Iterable[int]:
        found = self.after(edge)
        others = self._walks.sharing(edge)
        for vertex, value in found.items():
            self.values[vertex] = value
        self._graph.cut(edge)
        for other in (edge, *others):
            self._room += len(self._known.pop(other, ()))
        return others


class _Rows:
    """Rows of neighbours inside a region, each vertex among its own, for sums over neighbours."""

    def __init__(self, place: dict[int, int], sets: list[set[int]]) -> None:
        inside = set(place)
        columns: list[int] = []
        starts: list[int] = []
        for t, own in place.items():
            starts.append(len(columns))
            columns.append(own)
            columns += [place[other] for other in sets[t] & inside]
        self._columns = np.array(columns)
        self._starts = np.array(starts)

    def step(self, walks: NDArray[Any]) -> NDArray[Any]:
        return np.add.reduceat(walks[self._columns], self._starts, axis=0)


def _units(size: int, places: list[int], kind: Any) -> NDArray[Any]:
    found: NDArray[Any] = np.zeros((size, len(places)), kind)
    for column, place in enumerate(places):
        found[place, column] = 1
    return found


def distances(start: int, sets: list[set[int]], reach: int) -> dict[int, int]:
    """Return the steps to every vertex that is at most `reach` steps away."""
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

    falling = True
    twins = False

    def __init__(self, graph: EdgeList, depth: int, target: int) -> None:
        self._graph = Neighbours(graph)
        self._depth = depth
        self.least: tuple[int, ...] = ()
        n = graph.num_nodes
        row = [0] * n
        row[target] = 1
        self._reach = [row]  # entry k: walks of length k from each vertex to the target
        for _ in range(depth):
            last = self._reach[-1]
            self._reach.append([last[t] + sum(last[x] for x in self._graph.out[t]) for t in range(n)])
        self.values: list[int] = [self._value(t, self._reach, len(self._graph.into[t])) for t in range(n)]

    def _value(self, t: int, reach: list[list[int]], incoming: int) -> int:
        """Count walks from the out-neighbours of t, and from t itself if it hears anybody."""
        return reach[-1][t] - (0 if incoming else reach[-2][t])

    def _through(self, edge: int) -> list[Counts]:
        """Return the walks to the target over `edge`, for every length up to L, by their start."""
        graph, depth = self._graph, self._depth
        u, v = graph.ends[edge]
        found: list[Counts] = [{} for _ in range(depth + 1)]
        for near, far in ((u, v),) if graph.directed else ((u, v), (v, u)):
            walks = {near: 1}  # without the edge
            for i in range(depth):
                for k in range(depth - i):
                    rest = self._reach[k][far]
                    if rest:
                        level = found[i + k + 1]
                        for t, count in walks.items():
                            level[t] = level.get(t, 0) + count * rest
                longer: Counts = {}
                for x, count in walks.items():
                    longer[x] = longer.get(x, 0) + count
                    for t in graph.into[x]:
                        if not ((t == u and x == v) or (not graph.directed and t == v and x == u)):
                            longer[t] = longer.get(t, 0) + count
                walks = longer
        return found

    def _after(self, edge: int, through: list[Counts]) -> Counts:
        graph = self._graph
        u, v = graph.ends[edge]
        found = {}
        for t in {*through[-1], *through[-2], u, v}:
            incoming = len(graph.into[t]) - (t == v or (t == u and not graph.directed))
            stays = 0 if incoming else self._reach[-2][t] - through[-2].get(t, 0)
            value = self._reach[-1][t] - through[-1].get(t, 0) - stays
            if value != self.values[t]:
                found[t] = value
        return found

    def layers(self, edge: int) -> Iterable[Iterable[int]]:
        return ()

    def hub(self, edge: int) -> int | None:
        return None

    def after(self, edge: int) -> Counts:
        return self._after(edge, self._through(edge))

    def apply(self, edge: int) -> Iterable[int]:
        graph = self._graph
        through = self._through(edge)
        for vertex, value in self._after(edge, through).items():
            self.values[vertex] = value
        for row, level in zip(self._reach, through, strict=True):
            for vertex, count in level.items():
                row[vertex] -= count
        around = rim = set(graph.ends[edge])
        for _ in range(self._depth - 1):
            rim = set().union(*[graph.out[t] | graph.into[t] for t in rim]) - around
            around = around | rim
        graph.cut(edge)
        others = {graph.ids[t][x] for t in around for x in graph.out[t]}
        return others | {graph.ids[x][t] for t in around for x in graph.into[t]}

"""Walk index sparsification at depth 2 of undirected graphs, which needs degrees alone.

Removing {u, v} lowers two degrees by one, so the best edge is one with the largest (min degree, max degree), ties by
id. Keys never rise. All edges of one smaller degree a, "level a", therefore go together, and only edges between the
vertices X of degree exactly a and vertices of degree >= a take part in it. A vertex of X loses at most one edge in its
level, for its degree is a - 1 then. No edge joins two vertices of degrees above a: the levels before saw to that.

Inside a level the edges from X to "hubs" of larger degree go first. A hub of degree d gives edges up in the order of
their ids, the first at key (a, d), the next at (a, d - 1), and passes over those whose other end has been used: the
time of an edge is (d less what its hub gave up before it, downwards; its id), and each vertex of X takes its earliest
one. A set of taken edges that agrees with its own times is the greedy choice, by induction over time, and only that one
does. It is found by iteration: from a guess follow times, from times a better guess. k rounds settle at least the first
k removals, and graphs in use need fewer than a dozen; where they are not enough, a heap of hubs takes over.

What is left of the level joins two vertices of degree a, and goes in the order of ids while both ends are unused.

The uppermost levels are many and hold few edges; a plain heap of edges is through with them before arrays are set up.
"""

from __future__ import annotations

import heapq
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["level_order"]

Ints = NDArray[np.int64]
Short = NDArray[np.int64]  # in fact of int32 in large graphs, as long as ids fit

_MOST_EDGES = 2**31  # beyond, an edge id and a vertex do not fit into 63 bits
_ROUNDS = 32  # rounds of guesses before the heap takes over; each costs one pass over the edges of the level
_MANY = 200  # edges from which passes over arrays pay beside a loop
_CHUNK = 4096  # edges of one loop
_PART = 1 << 16  # edges of one pass over arrays, whose temporary arrays then stay in the cache
_SHORT = 1 << 14  # edges from which int32 is worth a cast wherever it points into an array
_CORE = 250  # edges of the uppermost levels, which a heap of edges deals with sooner than arrays do
_FEW = 40  # edges that the heap deals with sooner than arrays do


def level_order(edges: Ints, n: int, count: int, last: bool) -> Ints:
    """Remove `count` edges one by one, each with the largest (min degree, max degree), ties by edge id.

    Parameters
    ----------
    edges : ndarray of int64, shape (M, 2)
        Canonical edges of an undirected graph.
    n : int
        Number of vertices.
    count : int
        How many edges to remove, at most M.
    last : bool
        Whether a tie goes to the largest id instead of the smallest.

    Returns
    -------
    ndarray of int64, shape (count,)
        Edge ids in the order of removal.

    Raises
    ------
    ValueError
        If there are 2^31 edges or more.

    Notes
    -----
    O(sum over removals of the smaller degree + M log M) time, which is O(arboricity M + M log M); O(M) memory.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 5, Algorithm 2. The levels are derived here.
    """
    if len(edges) >= _MOST_EDGES:
        raise ValueError(f"`graph` must have fewer than 2^31 edges; got {len(edges)}")
    if not count:
        return np.zeros(0, np.int64)
    ids = _Levels(edges[::-1] if last else edges, n, count).run().astype(np.int64)
    return len(edges) - 1 - ids if last else ids


class _Levels:
    """The graph while its edges go, level by level."""

    def __init__(self, edges: Ints, n: int, count: int) -> None:
        m = len(edges)
        self.kind = cast("type[np.int64]", np.int32 if _SHORT <= max(m, n) < 2**31 else np.int64)
        flat = edges.ravel()
        degree = np.bincount(flat, minlength=n)
        by_degree = _places(degree)
        place = np.empty(n, self.kind)
        place[by_degree] = np.arange(n)
        degree = degree[by_degree]
        flat = place[flat]  # from here on vertices are numbered by their degree
        u, v = flat[::2], flat[1::2]
        self.across = u ^ v  # with one end of an edge it gives the other
        lower = np.minimum(u, v)
        lower = degree[lower]
        self.top = self._few_levels(lower)
        core = (lower > self.top).nonzero()[0]
        self.core = core, u[core], v[core]
        del lower, u, v
        self.incident = _places(flat).astype(self.kind)
        self.incident >>= 1
        self.first = np.zeros(n + 1, self.kind if m < 2**30 else np.int64)
        np.cumsum(degree, out=self.first[1:])
        self.bucket = degree.searchsorted(np.arange(self.top + 2)).tolist()
        self.degree = degree.astype(self.kind)
        self.alive = np.ones(m, bool)
        self.flags = bytearray(n)
        self.used = np.frombuffer(self.flags, np.bool_)  # the same bytes, for numpy
        self.earliest = np.empty(n, self.kind)
        self.bits = m.bit_length()  # of an edge id; a full row of ones is none
        self.removed = np.empty(count, self.kind)
        self.size = 0

    def run(self) -> Short:
        """Go down the levels until enough edges are removed."""
        none: Short = np.zeros(0, self.kind)
        x, e, members = none, none, np.zeros(0, np.int64)
        hit = self._few()
        for a in range(self.top, 0, -1):
            if self.size == len(self.removed):
                break
            low, high = self.bucket[a : a + 2]
            if low < high:  # these have not lost an edge yet
                fresh = np.arange(low, high)
                members = np.concatenate((members, fresh)) if len(members) else fresh
                fresh = fresh.astype(self.kind, copy=False).repeat(a)
                x = np.concatenate((x, fresh)) if len(x) else fresh
                del fresh
                e = np.concatenate((e, self.incident[self.first[low] : self.first[high]]))
            if len(hit):
                x, e = self._gather(hit, x, e)
                members = np.concatenate((members, hit))
            if not len(members):
                continue
            start = self.size
            above, equal = self._sides(a, x, e)
            hit = above[:0]
            if len(above):
                hit, more = self._hubs(a, members, above)
                equal = self._unused(np.concatenate((equal, more)) if len(more) else equal)
            del above
            if len(equal) and self.size < len(self.removed):
                self._equals(equal, max(_CHUNK, len(members)))
            del equal
            self.alive[self.removed[start : self.size]] = False
            keep = self.used.take(x)
            keep &= self.alive.take(e)
            x = x.compress(keep)
            e = e.compress(keep)
            del keep
            members = members.compress(self.used.take(members))
            hit = hit.compress(self.used.take(hit))
            for group in (members, hit) if len(hit) else (members,):
                self.degree[group] -= 1
                self.used[group] = False
        return self.removed

    def _few_levels(self, lower: Ints) -> int:
        """Return the highest level that arrays deal with: above it there are few edges."""
        above = np.bincount(lower)[::-1].cumsum()
        return max(0, len(above) - 1 - int(above.searchsorted(_CORE, "right")))

    def _few(self) -> Ints:
        """Deal with the levels above the top one through a heap of edges; return who comes down to the top by that."""
        core, u, v = self.core
        if not len(core):
            return core
        ends = np.concatenate((u, v))
        degrees = self.degree[ends].tolist()
        names = ends.tolist()
        degree = dict(zip(names, degrees, strict=True))
        taken = core[_edge_by_edge(names[: len(core)], names[len(core) :], degree, self.top, len(self.removed))]
        self._take(taken)
        self.alive[taken] = False
        vertices = np.array(list(degree), np.int64)
        now = np.array(list(degree.values()), np.int64)
        self.degree[vertices] = now
        down: Ints = vertices[now == self.top]
        return down

    def _gather(self, hit: Ints, x: Short, e: Short) -> tuple[Short, Short]:
        """Append the remaining edges at vertices that have come down to the level as hubs."""
        begin = self.first[hit]
        size = self.first[hit + 1] - begin
        place = (begin - size.cumsum() + size).repeat(size)
        place += np.arange(len(place))
        ids = self.incident.take(place)
        there = self.alive.take(ids)
        ends = hit.astype(self.kind, copy=False).repeat(size)
        return np.concatenate((x, ends.compress(there))), np.concatenate((e, ids.compress(there)))

    def _sides(self, a: int, x: Short, e: Short) -> tuple[Ints, Ints]:
        """Return keys (y, e) of edges to hubs y, of degree above a, and keys (e, x) of edges of two members, x < y."""
        above, equal = [], []
        for start in range(0, len(x), _PART):
            edge, one = e[start : start + _PART], x[start : start + _PART]
            other = self.across.take(edge)
            other ^= one
            size = self.degree.take(other)
            pick = (size > a).nonzero()[0]
            key = other.take(pick).astype(np.int64, copy=False)
            key <<= self.bits
            key |= edge.take(pick)
            above.append(key)
            equals = size == a
            equals &= one < other
            pick = equals.nonzero()[0]
            key = edge.take(pick).astype(np.int64, copy=False)
            key <<= 32
            key |= one.take(pick)
            equal.append(key)
        if len(above) == 1:
            return above[0], equal[0]
        return np.concatenate(above), np.concatenate(equal)

    def _unused(self, key: Ints) -> Ints:
        """Return those keys (e, x) of which neither end is used."""
        u = key & 0xFFFFFFFF
        pick = self.used.take(u)
        pick |= self.used.take(self.across.take(key >> 32) ^ u)
        return key.compress(~pick)

    def _take(self, ids: Ints) -> None:
        room = len(self.removed) - self.size
        ids = ids[:room]
        self.removed[self.size : self.size + len(ids)] = ids
        self.size += len(ids)

    def _hubs(self, a: int, members: Ints, key: Ints) -> tuple[Ints, Ints]:
        """Remove edges to hubs; return the hubs that come down to a by that, and keys (e, x) of edges to these."""
        key.sort()
        e = key & ((1 << self.bits) - 1)
        key >>= self.bits
        new = np.empty(len(key), bool)
        new[0] = True
        np.not_equal(key[1:], key[:-1], out=new[1:])
        begin = new.nonzero()[0]
        del new
        hubs = key.take(begin)
        high = self.degree.take(hubs).astype(np.int64, copy=False)
        if len(key) <= _FEW:
            taken, ids = _one_by_one(a, e, self.across.take(e) ^ key, begin, high)
        else:
            taken, ids = self._times(a, members, e, key, begin, high)
        self._take(ids)
        self.used[self.across.take(e.compress(taken)) ^ key.compress(taken)] = True
        high -= np.add.reduceat(taken, begin, dtype=np.int64)
        self.degree[hubs] = high
        down = hubs.compress(high == a)
        if not len(down):
            return down, down
        pick = self.degree.take(key) == a
        e = e.compress(pick)
        x = self.across.take(e) ^ key.compress(pick)
        e <<= 32
        e |= x
        return down, e

    def _times(
        self, a: int, members: Ints, e: Ints, y: Ints, begin: Ints, high: Ints
    ) -> tuple[NDArray[np.bool_], Ints]:
        """Return which edges are taken, which stand hub by hub and by id in each, and their ids by time."""
        bits = np.int64(self.bits)
        ids = (1 << bits) - 1
        top = int(high.max())
        never = ((top - a) << self.bits) - 1  # at the next time the hub has come down to degree a
        size = np.empty(len(begin), np.int64)
        np.subtract(begin[1:], begin[:-1], out=size[:-1])
        size[-1] = len(e) - begin[-1]
        first = begin.repeat(size)  # edge of the same hub
        self.earliest[members] = np.arange(len(members))
        owner = self.earliest.take(self.across.take(e) ^ y).astype(np.int64, copy=False)
        e |= ((top - high) << bits).repeat(size)  # the earliest times, in place of ids while they are needed
        earliest = np.empty(len(members), np.int64)
        taken = np.ones(len(e), bool)
        for _ in range(_ROUNDS):
            time = taken.cumsum()
            time -= taken
            time -= time.take(first)
            time <<= bits
            time += e
            earliest.fill(never)
            np.minimum.at(earliest, owner, time)
            better = earliest.take(owner) == time
            if better.tobytes() == taken.tobytes():  # the quickest way to compare few
                e &= ids
                time = time.compress(taken)
                time.sort()
                time &= ids
                return taken, time
            taken = better
        e &= ids
        return _one_by_one(a, e, self.across.take(e) ^ y, begin, high)

    def _equals(self, key: Ints, size: int) -> None:
        """Remove edges between vertices of the same degree, given by keys (e, x), in the order of ids.

        The first `size` edges are looked at, then twice as many, and so on: they leave few ends unused in dense graphs.
        """
        key.sort()
        found: list[Short] = []
        start = 0
        while start < len(key):
            part = key[start : start + size]
            if start:
                part = self._unused(part)
            self._in_order(part, found)
            start += size
            size *= 2
        self._take(np.sort(np.concatenate(found)) if len(found) > 1 else found[0])

    def _in_order(self, key: Ints, found: list[Short]) -> None:
        """Take those of the edges, sorted by id, whose ends are unused when their turn comes."""
        ids, u = (key >> 32).astype(self.kind, copy=False), (key & 0xFFFFFFFF).astype(self.kind, copy=False)
        v = self.across.take(ids) ^ u
        if len(ids) > _MANY:
            ids, u, v = self._first_at_both_ends(ids, u, v, found)
        flags, used = self.flags, self.used
        for start in range(0, len(ids), _CHUNK):
            part: Any = slice(start, start + _CHUNK)
            if start:  # what earlier edges rule out need not go through the loop
                part = start + (~(used[u[part]] | used[v[part]])).nonzero()[0]
            last = []
            for edge, one, other in zip(ids[part].tolist(), u[part].tolist(), v[part].tolist(), strict=True):
                if not (flags[one] or flags[other]):
                    flags[one] = flags[other] = 1
                    last.append(edge)
            found.append(np.array(last, self.kind))

    def _first_at_both_ends(self, ids: Short, u: Short, v: Short, found: list[Short]) -> tuple[Short, Short, Short]:
        """Take, all at once, edges that come first at both ends, as long as there are many; return what is left."""
        earliest, used = self.earliest, self.used
        before = 2 * len(ids)
        while _MANY < len(ids) < 0.9 * before:
            before = len(ids)
            parts = [slice(start, start + _PART) for start in range(0, len(ids), _PART)]
            for part in reversed(parts):
                ends = np.stack((v[part][::-1], u[part][::-1]), axis=1).ravel()
                earliest[ends] = ids[part][::-1].repeat(2)  # of several entries the last one stays
            first = np.empty(len(ids), bool)
            for part in parts:
                np.equal(earliest.take(u[part]), ids[part], out=first[part])
                first[part] &= earliest.take(v[part]) == ids[part]
            found.append(ids.compress(first))
            used[u.compress(first)] = True
            used[v.compress(first)] = True
            first = used.take(u)
            first |= used.take(v)
            np.logical_not(first, out=first)
            ids = ids.compress(first)
            u = u.compress(first)
            v = v.compress(first)
        return ids, u, v


def _places(values: Ints) -> Ints:
    """Return where values that are not negative stand, smallest value first, of equal ones in their order."""
    bits = len(values).bit_length()
    key = values.astype(np.int64)
    key <<= bits
    key |= np.arange(len(values))
    key.sort()
    key &= (1 << bits) - 1
    return key


def _edge_by_edge(us: list[int], vs: list[int], degree: dict[int, int], low: int, count: int) -> list[int]:
    """Remove edges whose smaller degree is above `low`, by the definition; `degree` is of the graph and is kept true.

    A key waits in the heap until it comes up, and goes back if it has fallen since.
    """
    bits = len(us).bit_length()
    mask = (1 << bits) - 1
    wide = max(degree.values()).bit_length()
    heap: list[int] = []
    for edge, (u, v) in enumerate(zip(us, vs, strict=True)):
        a, b = degree[u], degree[v]
        heap.append(edge - (((a << wide) + b if a < b else (b << wide) + a) << bits))
    heapq.heapify(heap)
    taken: list[int] = []
    while heap and len(taken) < count:
        key = heap[0]
        edge = key & mask
        u, v = us[edge], vs[edge]
        a, b = degree[u], degree[v]
        if a > b:
            a, b = b, a
        now = edge - (((a << wide) + b) << bits)
        if now != key and a > low:
            heapq.heapreplace(heap, now)
            continue
        heapq.heappop(heap)
        if a > low:
            taken.append(edge)
            degree[u] -= 1
            degree[v] -= 1
    return taken


def _one_by_one(a: int, edges: Ints, ends: Ints, begin: Ints, high: Ints) -> tuple[NDArray[np.bool_], Ints]:
    """Do what `_Levels._times` does, with a heap of hubs in place of rounds."""
    e, x = edges.tolist(), ends.tolist()
    place = begin.tolist()
    stop = [*place[1:], len(e)]
    heap = [(-degree, e[place[hub]], hub) for hub, degree in enumerate(high.tolist())]
    heapq.heapify(heap)
    used: set[int] = set()
    taken: list[int] = []
    while heap:
        degree, edge, hub = heap[0]
        at, end = place[hub], stop[hub]
        while at < end and x[at] in used:
            at += 1
        if at < end and e[at] == edge:
            used.add(x[at])
            taken.append(at)
            degree += 1
            at += 1
        place[hub] = at
        if at == end or degree == -a:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (degree, e[at], hub))
    places = np.array(taken, np.int64)
    mask = np.zeros(len(e), bool)
    mask[places] = True
    return mask, edges[places]

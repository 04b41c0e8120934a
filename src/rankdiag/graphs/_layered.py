"""A product GNN as a hypergraph: nodes are vertices of layers, ties are products, prices are numbers of monomials.

A node (l, i) stands for vertex i in layer l. A tie holds (l, i) to its inputs (l - 1, j), the readout ties the last
layer together, and the side of vertex i holds (0, i). A vector of width w that occurs m times in the output enters it
by C(w + m - 1, m) monomials, and each of them is a product over its inputs. So breaking its tie multiplies the number
of products of two sides by that much, and no tie that stays whole multiplies it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.graphs._edge_types import TypedArcs
from rankdiag.graphs._mincut import Cut, Ties, minimum_cut
from rankdiag.graphs._multisets import log_multisets

__all__ = ["Layered", "shared_cut"]

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_ARCS = 1_000_000  # beyond, two more flows take longer than what they save is worth


@dataclass(frozen=True, slots=True, eq=False)
class Layered:
    """A product GNN of depth L on n vertices, and a partition of them.

    Attributes
    ----------
    arcs : TypedArcs
        Who hears whom.
    side : ndarray of bool, shape (n,)
        True for vertices of the subset.
    target : int or None
        Vertex of the prediction; None for the graph.
    walks : list of ndarray, L of shape (n,)
        Row l: how often vertex i of layer l occurs in the output.
    cost : ndarray of float64, shape (L, n)
        Price of taking vertex i of layer l apart, 0 where it does not occur.
    width : int
        Width of the hidden layers.
    """

    arcs: TypedArcs
    side: Mask
    target: int | None
    walks: list[NDArray[Any]]
    cost: Floats
    width: int

    @classmethod
    def of(
        cls, arcs: TypedArcs, side: Mask, target: int | None, walks: list[NDArray[Any]], d_in: int, d_hidden: int
    ) -> Layered:
        """Price every node; `walks` are those of L, L - 1, ..., 1 steps to the output."""
        cost = np.zeros((len(walks), len(side)))
        cost[0] = log_multisets(_input_widths(arcs, d_in, d_hidden, len(side)), walks[0])
        for layer, counts in enumerate(walks[1:], 1):
            cost[layer] = log_multisets(d_hidden, counts)
        return cls(arcs, side, target, walks, cost, d_hidden)

    @property
    def used(self) -> Mask:
        """Which vertices of which layers occur in the output, (L, n)."""
        return np.stack([np.asarray(row > 0, bool) for row in self.walks])

    def readout(self) -> Ints:
        """Return the vertices whose last layer the readout multiplies."""
        if self.target is None:
            return np.arange(len(self.side))
        heard = self.arcs.source[self.arcs.target == self.target]
        return np.append(heard, self.target)

    def minimum_cut(self) -> tuple[Cut, list[tuple[int, int]]]:
        """Return the minimum cut, and the (layer, vertex) of all it breaks; vertex -1 is the readout of a graph."""
        used, depth = self.used, len(self.walks)
        number = np.full(used.shape, -1, np.int64)
        number[used] = np.arange(int(used.sum()))
        builder = _Builder(int(used.sum()))
        for layer in range(1, depth):
            here = np.flatnonzero(used[layer])
            place = np.full(len(self.side), -1, np.int64)
            place[here] = np.arange(len(here))
            heard = place[self.arcs.target] >= 0
            builder.add(
                self.cost[layer][here],
                np.concatenate((np.tile(np.arange(len(here)), 2), place[self.arcs.target[heard]])),
                np.concatenate((number[layer][here], number[layer - 1][here],
                                number[layer - 1][self.arcs.source[heard]])),
            )  # fmt: skip
        last = number[-1][self.readout()]
        builder.add(np.array([math.log(self.width)]), np.zeros(len(last), np.int64), last)
        leaves = np.flatnonzero(used[0])
        ties = builder.ties(number[0][leaves], self.side[leaves], self.cost[0][leaves])
        cut = minimum_cut(ties, np.broadcast_to(self.side, used.shape)[used])
        names = [*np.argwhere(used[1:]).tolist(), (depth - 1, -1 if self.target is None else self.target)]
        broken = [(0, int(leaves[k])) for k in np.flatnonzero(cut.leaf_broken)]
        broken += [(names[k][0] + 1, names[k][1]) for k in np.flatnonzero(cut.broken)]
        return cut, broken

    def side_costs(self) -> tuple[float, float]:
        """Return the sum of the prices of all features of the subset, and of the rest."""
        leaves = self.cost[0]
        return math.fsum(leaves[self.side].tolist()), math.fsum(leaves[~self.side].tolist())


class _Builder:
    """Ties, as they are added."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self.costs: list[Floats] = []
        self.parts: list[tuple[Ints, Ints]] = []

    def add(self, cost: Floats, tie: Ints, member: Ints) -> None:
        """Add ties 0, 1, ... of these costs with members (tie, node)."""
        self.costs.append(cost)
        self.parts.append((tie + self.count, member))
        self.count += len(cost)

    def add_one(self, cost: float, member: Ints) -> None:
        """Add one tie."""
        self.add(np.array([cost]), np.zeros(len(member), np.int64), member)

    def new(self) -> int:
        """Add one node and return its number."""
        self.size += 1
        return self.size - 1

    def ties(self, leaf: Ints, inside: Mask, leaf_cost: Floats) -> Ties:
        tie, member = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        return Ties(self.size, tie, member, np.concatenate(self.costs), leaf, inside, leaf_cost)


def _input_widths(arcs: TypedArcs, d_in: int, d_hidden: int, n: int) -> Ints:
    """Return through how many numbers the features of each vertex enter the network."""
    other = arcs.kind > 0
    pairs = np.unique(arcs.source[other] * arcs.num_types + arcs.kind[other])
    types = np.bincount(pairs // arcs.num_types, minlength=n) + 1  # the loop is of type 0
    return np.where(types > d_in // d_hidden, d_in, types * min(d_hidden, d_in))


def _twins(own: Ints, other: Ints, kind: Ints, num_types: int, n: int, selves: Ints) -> Ints:
    """Label vertices so that two have one label if and only if they have the same neighbours by the same types.

    The label is the first such vertex. Those of `selves` are neighbours of themselves by type 0.
    """
    who, code = np.concatenate((own, selves)), np.concatenate((other * num_types + kind, selves * num_types))
    order = np.lexsort((code, who))
    code = code[order]
    ends = np.cumsum(np.bincount(who, minlength=n)).tolist()
    first: dict[bytes, int] = {}
    start, label = 0, np.empty(n, np.int64)
    for vertex, end in enumerate(ends):
        label[vertex] = first.setdefault(code[start:end].tobytes(), vertex)
        start = end
    return label


def shared_cut(layered: Layered) -> float:
    """Return the least cut of two networks that compute the same, but once what several vertices share.

    Parameters
    ----------
    layered : Layered
        The network.

    Returns
    -------
    float
        Nats; infinity where nothing is shared, at depth 1, and for more than a million arcs, L (n + A).
    """
    arcs = len(layered.walks) * (len(layered.side) + len(layered.arcs.source))
    if len(layered.walks) == 1 or not len(layered.side) or arcs > _MOST_ARCS:
        return math.inf
    return min(_twin_cut(layered), _heard_cut(layered))


def _twin_cut(layered: Layered) -> float:
    """Return the minimum cut where twins count once; infinity where there are no twins.

    Parameters
    ----------
    layered : Layered
        The network.

    Returns
    -------
    float
        Nats.

    Notes
    -----
    Two refinements of the hypergraph, both with the argument of this module. Vertices that hear the same vertices by
    the same types compute the same vector in every hidden layer, so one node stands for them, occurs as often as all of
    them, and every one of them is a copy of it that may be taken apart alone. Vertices of one side that are heard by
    the same vertices, all by type 0, are only ever heard as a product, so a node stands for that product. As each copy
    and each factor is still a node, no cut of the plain hypergraph is lost, and none becomes dearer.
    """
    arcs, n = layered.arcs, len(layered.side)
    everyone = np.arange(n)
    same = _twins(arcs.target, arcs.source, arcs.kind, arcs.num_types, n, everyone)
    heard = _twins(arcs.source, arcs.target, arcs.kind, arcs.num_types, n, everyone) + n * layered.side
    alone = n * 2 + np.arange(n)  # of other types than 0: each vertex is its own group
    typed = np.zeros(n, bool)
    typed[arcs.source[arcs.kind > 0]] = True
    group = np.where(typed, alone, heard)
    if len(np.unique(same)) == n == len(np.unique(group)):
        return math.inf
    return _TwinNetwork(layered, same, group).cost()


class _TwinNetwork:
    """The hypergraph of `_twin_cut`."""

    def __init__(self, layered: Layered, same: Ints, group: Ints) -> None:
        self.layered, self.same, self.group = layered, same, group
        self.used = layered.used
        count = int(self.used.sum())
        self.number = np.full(self.used.shape, -1, np.int64)
        self.number[self.used] = np.arange(count)
        self.builder = _Builder(count)
        self.sides = np.broadcast_to(layered.side, self.used.shape)[self.used].tolist()

    def cost(self) -> float:
        """Build the hypergraph and cut it."""
        layered, builder = self.layered, self.builder
        for layer in range(1, len(layered.walks)):
            self._join(layer, self._products(layer - 1))
        builder.add_one(math.log(layered.width), self.number[-1][layered.readout()])
        leaves = np.flatnonzero(self.used[0])
        ties = builder.ties(self.number[0][leaves], layered.side[leaves], layered.cost[0][leaves])
        return minimum_cut(ties, np.array(self.sides)).cost

    def _node(self, vertex: int) -> int:
        self.sides.append(bool(self.layered.side[vertex]))
        return self.builder.new()

    def _products(self, layer: int) -> Ints:
        """Return the node by which each vertex is heard: that of its group's product, or its own."""
        heard: Ints = self.number[layer].copy()
        for members in _groups(self.group, self.used[layer]):
            node = self._node(int(members[0]))
            counts = self.layered.walks[layer][members[:1]]  # one number: who hears one hears all
            price = float(log_multisets(self.layered.width, counts)[0])
            self.builder.add_one(price, np.append(self.number[layer][members], node))
            heard[members] = node
        return heard

    def _join(self, layer: int, heard: Ints) -> None:
        """Tie every vector of a layer to what it hears, and copies to the vector that they copy."""
        layered, own = self.layered, self.number[layer].copy()
        price = layered.cost[layer].copy()
        speaks = self.used[layer].copy()
        for members in _groups(self.same, self.used[layer]):
            node = self._node(int(members[0]))
            total = sum(layered.walks[layer][members].tolist())
            for vertex in members.tolist():
                self.builder.add_one(price[vertex], np.array([own[vertex], node]))
            price[members[0]] = float(log_multisets(layered.width, [total])[0])
            own[members[0]] = node
            speaks[members[1:]] = False
        here = np.flatnonzero(speaks)
        place = np.full(len(own), -1, np.int64)
        place[here] = np.arange(len(here))
        arcs = layered.arcs
        kept = place[arcs.target] >= 0
        tie = np.concatenate((np.arange(len(here)), place[arcs.target[kept]]))
        inputs = np.concatenate((heard[here], heard[arcs.source[kept]]))
        pairs = np.unique(tie * self.builder.size + inputs)  # a product is heard once by all of its factors
        tie, inputs = pairs // self.builder.size, pairs % self.builder.size
        self.builder.add(price[here], np.concatenate((np.arange(len(here)), tie)), np.concatenate((own[here], inputs)))


def _groups(label: Ints, used: Mask) -> list[Ints]:
    """Return the sets of at least two used vertices with one label, each sorted."""
    ids = np.flatnonzero(used)
    ids = ids[np.argsort(label[ids], kind="stable")]
    parts = np.split(ids, np.flatnonzero(np.diff(label[ids])) + 1)
    return [part for part in parts if len(part) > 1]


def _heard_cut(layered: Layered) -> float:
    """Return the minimum cut where what is heard of each side counts once.

    Parameters
    ----------
    layered : Layered
        The network.

    Returns
    -------
    float
        Nats; infinity where no two vertices hear the same of a side.

    Notes
    -----
    The vector of a vertex is the product of what it hears of the subset and of what it hears of the rest. Each of both
    is a node, one for all vertices that hear the same of that side, and occurs as often as all of them. Vertices that
    hear the same of both sides are one node. A product of inputs from two sides must be taken apart twice here, so
    this cut may be dearer than the plain one.
    """
    arcs, n, depth = layered.arcs, len(layered.side), len(layered.walks)
    everyone, used = np.arange(n), layered.used
    same = _twins(arcs.target, arcs.source, arcs.kind, arcs.num_types, n, everyone)
    leaves = np.flatnonzero(used[0])
    before = np.full(n, -1, np.int64)
    before[leaves] = np.arange(len(leaves))
    builder, sides = _Builder(len(leaves)), layered.side[leaves].tolist()
    heard = []
    for side in (True, False):
        speaks = layered.side[arcs.source] == side
        selves = np.flatnonzero(layered.side == side)
        own, other = np.append(arcs.target[speaks], selves), np.append(arcs.source[speaks], selves)
        label = _twins(arcs.target[speaks], arcs.source[speaks], arcs.kind[speaks], arcs.num_types, n, selves)
        label[~np.isin(everyone, own)] = -1  # hears nothing of this side
        heard.append((side, label, own, other))
    if all(len(np.unique(label[label >= 0])) == int((label >= 0).sum()) for _, label, *_ in heard):
        return math.inf  # no two vertices hear the same of a side

    def nodes_of(label: Ints, layer: int, side: Mask) -> tuple[Ints, Ints, Floats]:
        """Add a node for every label of used vertices; return labels, the node of each label, and prices."""
        totals: dict[int, int] = {}
        here = np.flatnonzero(used[layer] & (label >= 0))
        for key, count in zip(label[here].tolist(), layered.walks[layer][here].tolist(), strict=True):
            totals[key] = totals.get(key, 0) + count
        keys = np.array(list(totals), np.int64)
        node = np.full(n, -1, np.int64)
        node[keys] = builder.size + np.arange(len(keys))
        builder.size += len(keys)
        sides.extend(side[keys].tolist())
        return keys, node, log_multisets(layered.width, list(totals.values()))

    for layer in range(1, depth):
        keys, node, price = nodes_of(same, layer, layered.side)
        tie, member = [np.arange(len(keys))], [node[keys]]
        for side, label, own, other in heard:
            parts, product, cost = nodes_of(label, layer, np.full(n, side))
            place = np.full(n, -1, np.int64)
            place[parts] = np.arange(len(parts))
            kept = place[own] >= 0
            pairs = np.unique(place[own[kept]] * builder.size + before[other[kept]])
            builder.add(
                cost,
                np.concatenate((np.arange(len(parts)), pairs // builder.size)),
                np.concatenate((product[parts], pairs % builder.size)),
            )
            hears = np.flatnonzero(label[keys] >= 0)
            tie.append(hears)
            member.append(product[label[keys[hears]]])
        builder.add(price, np.concatenate(tie), np.concatenate(member))
        before = node[same]
    builder.add_one(math.log(layered.width), np.unique(before[layered.readout()]))
    ties = builder.ties(np.arange(len(leaves)), layered.side[leaves], layered.cost[0][leaves])
    return minimum_cut(ties, np.array(sides)).cost

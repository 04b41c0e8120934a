"""The cheapest way to split the computation of a product GNN in two: a minimum cut of a layered hypergraph.

A pair (l, i) stands for vertex i in layer l. Every layer l >= 1 ties (l, i) to its inputs (l - 1, j), the readout ties
the last layer together, and every input (0, i) is tied to its side. Putting the pairs on two sides breaks some ties; a
broken tie costs the number of terms, in nats, that its expansion has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cut", "Layers", "minimum_cut", "side_costs"]

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BITS = 29  # capacities of scipy's flow are 32-bit, and a residual capacity is the sum of two
_ROUNDS = 5
_CLOSE, _CLOSE_LARGE = 1e-13, 1e-8  # relative distance to the optimum at which the search stops
_LARGE = 100_000  # arcs from which a round of the search takes longer than what it still can gain is worth


@dataclass(frozen=True, slots=True, eq=False)
class Layers:
    """Ties of a product GNN of depth L on n vertices, and what each costs when it is broken.

    Attributes
    ----------
    source, target : ndarray of int64, shape (A,)
        Arcs without loops; (l, target) takes its input from (l - 1, source), and from (l - 1, target).
    side : ndarray of bool, shape (n,)
        True for vertices of the subset.
    used : ndarray of bool, shape (L, n)
        Whether pair (l, i), l = 0..L-1, reaches the output.
    cost : ndarray of float64, shape (L, n)
        Row 0: cost of tying input i to its side; row l: cost of the tie at (l, i). 0 where not used.
    readout : ndarray of bool, shape (n,)
        Vertices whose last layer the readout ties together.
    readout_cost : float
        What breaking the readout costs.
    """

    source: Ints
    target: Ints
    side: Mask
    used: Mask
    cost: Floats
    readout: Mask
    readout_cost: float


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A way to put all pairs on two sides.

    Attributes
    ----------
    cost : float
        Sum over broken ties, in nats.
    broken : ndarray of bool, shape (L, n)
        Broken ties of inputs (row 0) and of layers 1..L-1.
    readout_broken : bool
        Whether the readout is broken.
    gap : float
        No cut costs less than ``cost - gap``.
    """

    cost: float
    broken: Mask
    readout_broken: bool
    gap: float = 0.0


def split(layers: Layers, sides: Mask) -> Cut:
    """Return which ties an assignment of sides, shape (L, n), breaks, and what that costs."""
    broken = np.empty_like(layers.used)
    broken[0] = sides[0] != layers.side
    for depth in range(1, len(sides)):
        own, inputs = sides[depth], sides[depth - 1]
        broken[depth] = own != inputs
        broken[depth][layers.target[inputs[layers.source] != own[layers.target]]] = True
    broken &= layers.used & (layers.cost > 0)
    last = sides[-1][layers.readout]
    torn = bool(last.any()) and not bool(last.all()) and layers.readout_cost > 0
    costs = layers.cost[broken].tolist()
    return Cut(math.fsum([*costs, layers.readout_cost] if torn else costs), broken, torn)


def side_costs(layers: Layers) -> tuple[float, float]:
    """Return the sum of the input costs of the subset, and of the rest."""
    leaves = layers.cost[0]
    return math.fsum(leaves[layers.side].tolist()), math.fsum(leaves[~layers.side].tolist())


def minimum_cut(layers: Layers) -> Cut:
    """Find an assignment of least cost.

    Parameters
    ----------
    layers : Layers
        Ties and costs.

    Returns
    -------
    Cut
        The best cut found, never worse than leaving every pair on the side of its vertex or putting all on one side;
        `gap` bounds how far it is from the minimum.

    Notes
    -----
    A tie becomes an arc of its cost between two nodes of its own, with arcs without limit from and to its members. The
    flow is found in 32-bit integers, rounded down so that it is a flow of the real capacities as well. What capacity is
    left is scaled up and the flow goes on there. Each round shrinks the distance between the flow and the cut by about
    2^29 over the number of broken ties: two or three rounds reach the precision of float64, or a relative 1e-8 for
    networks of more than 100,000 arcs. O(L (n + A)) nodes and arcs, about 300 bytes each; the time of the flow grows
    with the power 1.2 to 1.7 of their number.
    """
    shape = layers.used.shape
    own = np.broadcast_to(layers.side, shape)
    starts = [own, np.ones(shape, bool), np.zeros(shape, bool)]
    best = min((split(layers, sides) for sides in starts), key=lambda cut: cut.cost)
    if best.cost == 0:
        return best
    return _Network(layers).improve(best)


class _Network:
    """The flow network of `Layers`, its capacities in nats, and what of them a flow has used."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        used = layers.used
        pairs = int(used.sum())
        number = np.full(used.shape, -1, np.int64)
        number[used] = np.arange(pairs)
        self.pairs, self.start, self.end = pairs, pairs, pairs + 1
        tails, heads, caps = [], [], []

        def join(tail: Ints, head: Ints, capacity: Floats) -> None:
            tails.append(tail)
            heads.append(head)
            caps.append(capacity)

        inside, outside = used[0] & layers.side, used[0] & ~layers.side
        for mask, forward in ((inside, True), (outside, False)):
            ids = number[0][mask]
            ends = np.full(len(ids), self.start if forward else self.end)
            join(ends if forward else ids, ids if forward else ends, layers.cost[0][mask])
        tie, member, weight = self._ties(number)
        enter = pairs + 2 + 2 * np.arange(len(weight))
        join(enter, enter + 1, weight)
        limitless = np.full(len(tie), math.inf)
        join(member, enter[tie], limitless)
        join(enter[tie] + 1, member, limitless)
        self.size = pairs + 2 + 2 * len(weight)
        self.tail, self.head = np.concatenate(tails), np.concatenate(heads)
        self.forward, self.backward = np.concatenate(caps), np.zeros(len(self.tail))

    def _ties(self, number: Ints) -> tuple[Ints, Ints, Floats]:
        """Return the members of all ties but those of inputs, as (tie, pair), and the cost of each tie."""
        layers = self.layers
        ties, members, weights, count = [], [], [], 0
        for depth in range(1, len(number)):
            here = np.flatnonzero(layers.used[depth] & (layers.cost[depth] > 0))
            place = np.full(number.shape[1], -1, np.int64)
            place[here] = np.arange(count, count + len(here))
            arc = place[layers.target] >= 0
            ties += [place[here], place[here], place[layers.target[arc]]]
            members += [number[depth][here], number[depth - 1][here], number[depth - 1][layers.source[arc]]]
            weights.append(layers.cost[depth][here])
            count += len(here)
        if layers.readout_cost > 0:
            last = number[-1][layers.readout]
            ties.append(np.full(len(last), count))
            members.append(last)
            weights.append(np.array([layers.readout_cost]))
        if not ties:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return np.concatenate(ties), np.concatenate(members), np.concatenate(weights)

    def improve(self, best: Cut) -> Cut:
        """Return the better of `best` and the minimum cut."""
        total, gap = 0.0, best.cost
        close = _CLOSE if len(self.tail) < _LARGE else _CLOSE_LARGE
        for _ in range(_ROUNDS):
            power = _BITS - math.frexp(gap)[1]  # gap * 2^power lies between 2^28 and 2^29
            flow, sides = self._round(gap, power)
            total += math.ldexp(flow, -power)
            found = split(self.layers, sides)
            if found.cost <= best.cost:
                best = found
            gap = best.cost - total
            if gap <= close * best.cost:
                break
        return Cut(best.cost, best.broken, best.readout_broken, max(gap, 0.0))

    def _round(self, gap: float, power: int) -> tuple[int, Mask]:
        """Send an integer flow through what capacity is left; return its value and the sides of its minimum cut."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        both = [np.floor(np.ldexp(np.minimum(left, gap), power)) for left in (self.forward, self.backward)]
        forward, backward = (part.astype(np.int32) for part in both)
        rows, columns = np.concatenate((self.tail, self.head)), np.concatenate((self.head, self.tail))
        shape = (self.size, self.size)
        capacity = csr_array((np.concatenate((forward, backward)), (rows, columns)), shape=shape)
        result = maximum_flow(capacity, self.start, self.end)
        flow = np.asarray(result.flow[self.tail, self.head]).ravel().astype(np.int64)
        moved = np.ldexp(flow.astype(np.float64), -power)
        self.forward, self.backward = self.forward - moved, self.backward + moved
        free = np.concatenate((forward - flow, backward + flow)) > 0
        graph = csr_array((np.ones(int(free.sum()), np.int8), (rows[free], columns[free])), shape=shape)
        reached = np.zeros(self.size, bool)
        reached[breadth_first_order(graph, self.start, return_predecessors=False)] = True
        sides = np.zeros(self.layers.used.shape, bool)
        sides[self.layers.used] = reached[: self.pairs]
        return int(result.flow_value), sides

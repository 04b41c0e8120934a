"""Numbers of walks, exact at any length: 64-bit integers while they fit, then several integers a number.

A number that outgrows 64 bits is held as limbs, digits to the base 2^b. A step of the walk is then one sparse product
for all limbs of all vertices, and one carry. b is so small that the product of a limb with the largest row sum fits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._validate import integer
from rankdiag.graphs._adjacency import adjacency
from rankdiag.graphs._edges import EdgeList

__all__ = [
    "DEEPEST",
    "WalkCounts",
    "as_depth",
    "boundary_mask",
    "count_walks",
    "log_of",
    "walk_counts",
    "walks_by_length",
]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

DEEPEST = 10_000  # a walk count of such a depth has tens of thousands of digits
_FITS = 2**63 - 1
_HALF = 32


def as_depth(depth: Any) -> int:
    """Check a number of layers.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is below 1, or above 10,000, where exact counts take minutes.
    """
    return integer(depth, "depth", low=1, high=DEEPEST)


@dataclass(frozen=True, slots=True, eq=False)
class WalkCounts:
    """One number of walks for every vertex, as limbs: ``sum over k of limbs[:, k] << (bits * k)``.

    Attributes
    ----------
    limbs : ndarray of int64, shape (n, k)
        Digits, the lowest first; not negative, and at most 2^bits unless there is but one.
    bits : int
        Bits of a digit.
    """

    limbs: Ints
    bits: int

    def exact(self) -> Ints | list[int]:
        """Return the numbers as int64 where all of them fit, else as a list of Python ints."""
        if self.limbs.shape[1] == 1:
            return self.limbs[:, 0]
        total: Any = self.limbs[:, -1].astype(object)
        for place in range(self.limbs.shape[1] - 2, -1, -1):
            total = (total << self.bits) + self.limbs[:, place]
        numbers: list[int] = total.tolist()
        return np.array(numbers, np.int64) if max(numbers, default=0) <= _FITS else numbers

    def total(self, mask: Mask | None = None) -> int:
        """Add the numbers of the vertices in a mask, or of all; the sum is exact."""
        chosen = self.limbs if mask is None else self.limbs[mask]
        low = (chosen & (2**_HALF - 1)).sum(axis=0).tolist()  # halves of digits: at most 2^31 of them fit
        high = (chosen >> _HALF).sum(axis=0).tolist()
        return sum(((h << _HALF) + v) << (self.bits * k) for k, (h, v) in enumerate(zip(high, low, strict=True)))


def count_walks(graph: EdgeList, steps: int, target: int | None = None, *, matrix: Any = None) -> WalkCounts:
    """Count the walks of `steps` steps from every vertex, to anywhere or to `target`; self-loops count as steps.

    Parameters
    ----------
    graph : EdgeList
        The graph.
    steps : int
        Length of the walks.
    target : int, optional
        Vertex where they must end; None counts all.
    matrix : scipy sparse array, optional
        What `adjacency` returns for the graph, if it is at hand.

    Returns
    -------
    WalkCounts
        ``A^steps @ 1``, or ``A^steps @ e_target``, with A the adjacency with loops.

    Raises
    ------
    ValueError
        If the numbers would not fit into this machine's memory.

    Notes
    -----
    O(steps (n + E)) time while 64 bits suffice, and that times the number of limbs beyond.
    """
    return deque(walks_by_length(graph, steps, target, matrix=matrix), maxlen=1).pop()


def walks_by_length(
    graph: EdgeList, steps: int, target: int | None = None, *, matrix: Any = None
) -> Iterator[WalkCounts]:
    """Yield what `count_walks` returns for 0, 1, ..., `steps` steps, each from the one before."""
    n = graph.num_nodes
    if target is None:
        y = np.ones(n, np.int64)
    else:
        y = np.zeros(n, np.int64)
        y[target] = 1
    matrix = adjacency(graph) if matrix is None else matrix
    widest = int(np.diff(matrix.indptr).max(initial=0)) + 1  # row sum with the loop
    bits = 62 - widest.bit_length()  # widest * 2^bits < 2^62
    done, top = 0, 1
    yield WalkCounts(y[:, None], bits)
    while done < steps and top * widest <= _FITS:
        if widest > 1:  # else there are no edges, and every walk stays where it is
            y = y + matrix @ y
            top = int(y.max())
        done += 1
        yield WalkCounts(y[:, None], bits)
    if done == steps:
        return
    size = n * (1 + steps * widest.bit_length() // bits)
    refuse_size(size, "depth", (n, size // n))
    limbs = _carry(y[:, None], bits)
    for _ in range(done, steps):
        limbs = _carry(limbs + matrix @ limbs, bits)
        yield WalkCounts(limbs, bits)


def _carry(limbs: Ints, bits: int) -> Ints:
    """Bring digits below 2^62 down to at most 2^bits; twice, for the first carry may be as large as a digit."""
    for _ in range(2):
        over = limbs >> bits
        if not over.any():
            break
        limbs = limbs & ((1 << bits) - 1)
        if over[:, -1].any():
            limbs = np.concatenate((limbs, np.zeros((len(limbs), 1), np.int64)), axis=1)
            limbs[:, 1:] += over
        else:
            limbs[:, 1:] += over[:, :-1]
    return limbs


def walk_counts(graph: EdgeList, steps: int, target: int | None = None) -> Ints | list[int]:
    """Return `count_walks` as int64 (n,) where all numbers fit, else as a list of n Python ints."""
    return count_walks(graph, steps, target).exact()


def boundary_mask(graph: EdgeList, mask: Mask) -> Mask:
    """Return the vertices that receive a message from the other side of a partition.

    Parameters
    ----------
    graph : EdgeList
        The graph.
    mask : ndarray of bool, shape (n,)
        One side.

    Returns
    -------
    ndarray of bool, shape (n,)
        True at both ends of every edge that crosses; at its target alone if the graph is directed.
    """
    u, v = graph.edges[:, 0], graph.edges[:, 1]
    crosses = mask[u] != mask[v]
    found = np.zeros(graph.num_nodes, bool)
    found[v[crosses]] = True
    if not graph.directed:
        found[u[crosses]] = True
    return found


def log_of(count: int) -> float:
    """Return the natural logarithm of a count of any size; minus infinity for 0."""
    return math.log(count) if count else -math.inf

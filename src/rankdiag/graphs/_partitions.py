"""Many partitions of one graph at once: 64 of them in a word, and a sum over their boundaries as one product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch
from rankdiag._validate import describe
from rankdiag.graphs._adjacency import adjacency, as_subset, can_iterate
from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._walk_counts import WalkCounts

__all__ = ["Partitions", "as_partitions", "group_totals", "one_of_many", "partition_totals"]

Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

_MASK_BYTES = 1 << 26  # masks of one block of partitions
_WORD = 64
_AT_ONCE = 8 * _WORD  # masks that are packed at once: they stay in the cache
_FEW = 16  # fewer rows than this are reduced one by one
_HUB = 1 << 16  # senders of such a row that are looked at together
_PIECE = 16  # bits of a weight; 2^8 of them add up in float32 without rounding
_ROWS = 1 << (24 - _PIECE)
_WIDE = 32  # words that are spread out to float32 at once


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """Partitions of a graph with n vertices: how many, and the masks of any range of them.

    Attributes
    ----------
    count : int
        Partitions.
    masks : callable
        ``masks(start, stop)`` gives one side of each as an array of bool, shape (stop - start, n).
    """

    count: int
    masks: Callable[[int, int], Mask]


def as_partitions(subsets: Any, graph: EdgeList, name: str = "subsets") -> Partitions:
    """Read many subsets of the vertices: an array of masks, or subsets one by one.

    Raises
    ------
    TypeError
        If it is no collection of subsets.
    ValueError
        If an array of masks is not of shape (P, n), or a subset names a vertex twice or one that is not there.
    """
    n = graph.num_nodes
    subsets = out_of_torch(subsets, name, f"a collection of subsets or masks (P, {n})")
    if isinstance(subsets, np.ndarray) and subsets.dtype == bool:
        if subsets.ndim != 2 or subsets.shape[1] != n:
            raise ValueError(f"`{name}` as masks must have shape (P, {n}); got shape {subsets.shape}")
        masks = subsets
        return Partitions(len(masks), lambda start, stop: masks[start:stop])
    if isinstance(subsets, (str, bytes, Mapping)) or not isinstance(subsets, Iterable):
        raise TypeError(f"`{name}` must be a collection of subsets or masks (P, {n}); got {describe(subsets)}")
    try:
        entries = list(subsets)
    except TypeError:  # an array without axes
        raise TypeError(
            f"`{name}` must be a collection of subsets or masks (P, {n}); got {describe(subsets)}"
        ) from None
    for place, entry in enumerate(entries):
        if not can_iterate(entry):
            raise TypeError(f"`{name}` must hold one collection of vertices for each partition; got {describe(entry)}")
        if not hasattr(type(entry), "__len__"):
            entries[place] = list(entry)  # an iterator can be read but once

    def masks_of(start: int, stop: int) -> Mask:
        found = np.zeros((stop - start, n), bool)
        for row, entry in enumerate(entries[start:stop]):
            found[row] = one_of_many(entry, graph, name, f"subset {start + row}")
        return found

    return Partitions(len(entries), masks_of)


def one_of_many(subset: Any, graph: EdgeList, name: str, which: str) -> Mask:
    """Read one of several subsets as `as_subset` does; messages begin with which one it is."""
    try:
        return as_subset(subset, graph, name)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{which}: {error}") from None


def partition_totals(
    graph: EdgeList, partitions: Partitions, counts: WalkCounts
) -> tuple[list[int], list[int], list[int]]:
    """Add walk counts over the boundary of every partition.

    Returns
    -------
    totals : list of int
        Exact sums.
    boundaries : list of int
        Vertices in each boundary.
    sizes : list of int
        Vertices of the side that was given.

    Notes
    -----
    A block holds 64 partitions, and more while their masks stay below 64 MB.
    """
    n = graph.num_nodes
    totals: list[int] = []
    boundaries: list[int] = []
    sizes: list[int] = []
    plan = _Rows.of(graph)
    weights, shifts = _pieces(counts)
    step = _WORD * max(1, min(-(-partitions.count // _WORD), _MASK_BYTES // (_WORD * max(n, 1))))
    for start in range(0, partitions.count, step):
        masks = partitions.masks(start, min(start + step, partitions.count))
        sums = _weighted(plan.boundaries(_packed(masks)), weights)[:, : len(masks)].tolist()
        boundaries += sums[0]
        sizes += [int(np.count_nonzero(mask)) for mask in masks]
        found = [0] * len(masks)
        for row, shift in zip(sums[1:], shifts, strict=True):
            found = [total + (part << shift) for total, part in zip(found, row, strict=True)]
        totals += found
    return totals, boundaries, sizes


def group_totals(
    graph: EdgeList, group: NDArray[np.int64], count: int, counts: WalkCounts
) -> tuple[list[int], list[int], list[int]]:
    """Add walk counts over the boundary of every group of vertices that do not overlap, each against all others.

    Parameters
    ----------
    graph : EdgeList
        The graph.
    group : ndarray of int64, shape (n,)
        Group of each vertex, below `count`; `count` itself if it is in none.
    count : int
        Groups.
    counts : WalkCounts
        Walks from every vertex.

    Returns
    -------
    totals, boundaries, sizes : lists of int
        As `partition_totals` gives them.

    Notes
    -----
    O(n + E) for any number of groups: a vertex is in the boundary of its own group if a message from another one
    reaches it, and in that of every other group that sends it one.
    """
    from scipy.sparse import csr_array

    source, target = graph.edges[:, 0], graph.edges[:, 1]
    crosses = group[source] != group[target]
    source, target = source[crosses], target[crosses]
    if not graph.directed:
        source, target = np.concatenate((source, target)), np.concatenate((target, source))
    rows = np.concatenate((group[source], group[target]))
    members = csr_array(
        (np.ones(len(rows), np.int64), (rows, np.concatenate((target, target)))), shape=(count + 1, graph.num_nodes)
    )
    members.sum_duplicates()
    members.data[:] = 1
    totals = [0] * count
    for place in range(counts.limbs.shape[1]):
        digits = counts.limbs[:, place]
        for half, shift in ((digits & (2**32 - 1), 0), (digits >> 32, 32)):  # sums of up to 2^31 halves fit
            if half.any():
                sums: Any = (members @ half)[:count].tolist()
                shift += counts.bits * place
                totals = [total + (part << shift) for total, part in zip(totals, sums, strict=True)]
    boundaries = np.diff(members.indptr)[:count].tolist()
    return totals, boundaries, np.bincount(group, minlength=count + 1)[:count].tolist()


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Senders to each vertex, the vertices with most senders first."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    degrees: NDArray[np.int64]
    senders: NDArray[np.int64]

    @classmethod
    def of(cls, graph: EdgeList) -> _Rows:
        matrix = adjacency(graph)
        if graph.directed:
            matrix = matrix.T.tocsr()
        degree = np.diff(matrix.indptr).astype(np.int64)
        order = np.argsort(-degree, kind="stable")
        return cls(order, matrix.indptr[:-1].astype(np.int64)[order], degree[order], matrix.indices)

    def boundaries(self, sides: Words) -> Words:
        """Return for words of membership (n, w) the same words of boundaries: who has a sender on the other side."""
        own = sides[self.order]
        found = np.zeros_like(own)
        place = 0
        while True:  # the k-th sender of all vertices that have one, for k = 0, 1, ...
            rows = int(np.searchsorted(-self.degrees, -place, side="left"))
            if rows < _FEW:
                break
            found[:rows] |= sides[self.senders[self.starts[:rows] + place]] ^ own[:rows]
            place += 1
        for row in range(rows):  # a few vertices with very many senders
            first, last = int(self.starts[row]) + place, int(self.starts[row] + self.degrees[row])
            for start in range(first, last, _HUB):
                block = sides[self.senders[start : min(start + _HUB, last)]] ^ own[row]
                found[row] |= np.bitwise_or.reduce(block, axis=0)
        result = np.empty_like(found)
        result[self.order] = found
        return result


def _packed(masks: Mask) -> Words:
    """Pack masks (P, n) into words (n, ceil(P / 64)): bit p of a row says whether the vertex is in subset p."""
    count, n = masks.shape
    octets = np.zeros((8 * max(1, -(-count // _WORD)), n), np.uint8)
    for top in range(0, count, _AT_ONCE):
        rows = masks[top : top + _AT_ONCE].view(np.uint8)
        block = octets[top // 8 : -(-(top + len(rows)) // 8)]
        for bit in range(7, -1, -1):  # the highest bit first, doubled once for each that follows
            np.add(block, block, out=block)
            part = rows[bit::8]
            block[: len(part)] += part
    return np.ascontiguousarray(octets.T).view("<u8").astype(np.uint64, copy=False)


def _pieces(counts: WalkCounts) -> tuple[NDArray[np.float32], list[int]]:
    """Cut walk counts into pieces of 16 bits; a row of ones stands before them.

    Returns
    -------
    weights : ndarray of float32, shape (1 + pieces, n)
        Ones, and the pieces.
    shifts : list of int
        Power of two that each piece is worth.
    """
    rows, shifts = [np.ones(len(counts.limbs), np.float32)], []
    for place in range(counts.limbs.shape[1]):
        rest, shift = counts.limbs[:, place], counts.bits * place
        while rest.any():
            rows.append((rest & (2**_PIECE - 1)).astype(np.float32))
            shifts.append(shift)
            rest, shift = rest >> _PIECE, shift + _PIECE
    return np.stack(rows), shifts


def _weighted(words: Words, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Add rows of `weights` where bits are set: (r, n) and words (n, w) give exact sums (r, 64 w).

    The bits of some rows are spread out to float32 at a time, so few that it adds without rounding.
    """
    n, wide = words.shape
    sums = np.zeros((len(weights), _WORD * wide), np.int64)
    octets = words.astype("<u8", copy=False)
    spread = np.empty((_ROWS, _WORD * min(wide, _WIDE)), np.float32)
    for top in range(0, n, _ROWS):
        for left in range(0, wide, _WIDE):
            block = np.ascontiguousarray(octets[top : top + _ROWS, left : left + _WIDE])
            bits = np.unpackbits(block.view(np.uint8), axis=1, bitorder="little")
            part = spread[: bits.shape[0], : bits.shape[1]]
            part[...] = bits
            place = slice(_WORD * left, _WORD * left + bits.shape[1])
            sums[:, place] += (weights[:, top : top + _ROWS] @ part).astype(np.int64)
    return sums

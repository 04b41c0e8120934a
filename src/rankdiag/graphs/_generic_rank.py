"""The separation rank that an architecture reaches for almost all weights, counted exactly in modular arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._document import Document, KeyNumber
from rankdiag._result import Meta, Result
from rankdiag._rng import as_generator
from rankdiag._validate import integer
from rankdiag.graphs._adjacency import as_subset, as_vertex
from rankdiag.graphs._edge_types import TypedArcs, typed_arcs
from rankdiag.graphs._modular import PRIME, modular_product, modular_rank, reduce_modulo
from rankdiag.graphs._walk_counts import as_depth

__all__ = ["GenericRank", "generic_separation_rank", "rank_bounds"]

Ints = NDArray[np.int64]

_START = 32
_SPARE = 5  # a rank that is this far below the sample size is not its limit
_MOST_REPEATS = 1000
_CELLS = 1 << 17  # entries of one block of a hidden state, so that it stays in the cache
_LIVE = 1 << 25  # entries of all hidden states of a block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenericRank(Result):
    """Separation rank of a product GNN for almost all of its weights: what the architecture can do, not a model.

    Attributes
    ----------
    rank : int
        The separation rank; if `saturated`, a lower bound of it.
    saturated : bool
        Whether the rank was still as large as the samples let it be.
    samples : int
        Largest number of settings of each side that were used.
    log_upper_mincut : float
        Upper bound of ln rank, from the minimum cut.
    depth, d_in, d_hidden : int
        The architecture.

    Examples
    --------
    >>> from rankdiag.graphs import generic_separation_rank
    >>> found = generic_separation_rank([[0, 1], [1, 0]], [0], 2, 2, 2)
    >>> found.rank, found.saturated, found.samples
    (5, False, 32)
    """

    tag: ClassVar[str] = "graphs.GenericRank"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = ("rank", "log_rank", "log_upper_mincut", "samples")

    rank: int
    saturated: bool
    samples: int
    log_upper_mincut: float
    depth: int
    d_in: int
    d_hidden: int

    @property
    def log_rank(self) -> float:
        """Natural logarithm of `rank`."""
        return math.log(self.rank)

    def document(self) -> Document:
        """Return what this result shows: the rank, its bound, and how many samples it took."""
        return Document(
            title="Generic separation rank",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="rank, at least" if self.saturated else "rank", value=self.rank),
                KeyNumber(label="ln rank", value=self.log_rank, unit="nats"),
                KeyNumber(
                    label="ln upper bound",
                    value=self.log_upper_mincut,
                    unit="nats",
                    doc="Minimum cut; holds for all weights.",
                ),
                KeyNumber(label="depth", value=self.depth, doc=f"Walks of length {self.depth - 1}."),
                KeyNumber(label="samples", value=self.samples, doc="Settings of each side."),
            ),
            notes=self.notes(),
        )


def generic_separation_rank(
    graph: Any,
    subset: Any,
    depth: int,
    d_in: int,
    d_hidden: int,
    *,
    target: Any = None,
    directed: bool = False,
    edge_type: Any = None,
    num_nodes: int | None = None,
    max_rank: int = 512,
    rng: int | np.random.Generator | None = 0,
    repeats: int = 2,
) -> GenericRank:
    """Count the separation rank of a product GNN across a partition, for almost all weights.

    It is the largest over all weights, so the exact capacity of the architecture to model interactions between the
    vertices of `subset` and all others.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse, networkx graph, PyG Data or EdgeList
        See `as_edge_list`.
    subset : iterable of int, or ndarray of bool (n,)
        Vertices of one side; node labels if `graph` is of networkx.
    depth : int
        Layers L of the GNN.
    d_in, d_hidden : int
        Width of vertex features and of hidden layers.
    target : int, optional
        Vertex that is predicted for; None predicts for the graph, by a product over vertices.
    directed : bool
        Whether columns are directed edges.
    edge_type : array-like of int, shape (E,), optional
        Type of each input column; every type has weights of its own.
    num_nodes : int, optional
        Vertices; None takes what the input says.
    max_rank : int
        Most settings of each side; ranks above ``max_rank - 5`` are not resolved.
    rng : None, int or numpy.random.Generator
        Draws weights and features.
    repeats : int
        Draws of weights; the largest rank counts.

    Returns
    -------
    GenericRank
        The rank; with ``saturated=True`` a lower bound.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is wrong, a vertex is not in it, `depth`, a width, `max_rank` or `repeats` is below 1,
        `edge_type` does not fit the columns, or the network would not fit into memory.

    Notes
    -----
    Weights and m settings of the features of each side are drawn modulo the prime p = 2^29 - 3, the GNN is evaluated on
    all m x m pairs, and the rank of this matrix over GF(p) is found by elimination. It never exceeds the generic rank,
    and falls short of it with probability of about (degree / p) a draw. m starts at 32 and doubles until the rank is at
    most m - 5, or is what `log_upper_shared` of `separation_rank_bounds` allows, which no weights exceed.

    Cost O(m^2 r) for the elimination, and m^2 d_hidden (edges + vertices d_hidden) operations a layer over vertices
    that hear from both sides by then; memory O(m^2) and at most 256 MB of hidden states, or 8 m d_hidden bytes for each
    such vertex.

    References
    ----------
    Separation rank and the GNN: arXiv 2211.16494, sections 2 and 3. The count modulo a prime was derived here.

    Examples
    --------
    >>> from rankdiag.graphs import generic_separation_rank
    >>> path = [[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]]
    >>> [generic_separation_rank(path, side, 2, 2, 2).rank for side in ([0, 1], [0, 2])]
    [24, 36]
    """
    layers = as_depth(depth)
    widths = integer(d_in, "d_in", low=1), integer(d_hidden, "d_hidden", low=1)
    most = integer(max_rank, "max_rank", low=1)
    draws = integer(repeats, "repeats", low=1, high=_MOST_REPEATS)
    generator, seed = as_generator(rng)
    found = typed_arcs(graph, edge_type, directed=directed, num_nodes=num_nodes)
    inside = as_subset(subset, found.edge_list)
    vertex = None if target is None else as_vertex(target, found.edge_list)
    log_upper, least = rank_bounds(found, inside, layers, widths, vertex)
    wide = "d_in" if widths[0] > widths[1] else "d_hidden"
    refuse_size(3 * layers * widths[1] * max(widths), wide, (widths[1], max(widths)))
    limit = math.floor(math.exp(least) * (1 + 1e-9)) if least < 64.0 else math.inf
    network = _Network(found, inside, layers, widths, vertex)
    samples, rank = min(_START, most), 0
    for _ in range(draws):
        while True:
            refuse_size(3 * samples * samples, "max_rank", (samples, samples))
            refuse_size(3 * len(inside) * samples * widths[0], "d_in", (len(inside), widths[0], samples))
            rank = max(rank, modular_rank(network.values(samples, generator)))
            if rank >= limit or rank <= samples - _SPARE or samples == most:
                break
            samples = min(2 * samples, most)
        if rank >= min(limit, most):
            break  # no draw can find more
    saturated = samples - _SPARE < rank < limit
    place = "the graph" if vertex is None else f"vertex {_label(found, vertex)}"
    return GenericRank(
        rank=rank,
        saturated=saturated,
        samples=samples,
        log_upper_mincut=log_upper,
        depth=layers,
        d_in=widths[0],
        d_hidden=widths[1],
        explanation=_explain(rank, saturated, layers, limit),
        meta=Meta(
            definition="rank over GF(p) of a product GNN on all pairs of random settings of the two sides",
            base="e",
            n=samples,
            seed=seed,
            details={
                "depth": f"{layers} (walks of length {layers - 1})",
                "prediction": f"for {place}",
                "vertices": found.edge_list.num_nodes,
                "vertices_inside": int(inside.sum()),
                "edge_types": len(np.unique(np.append(found.kind, 0))),
                "prime": PRIME,
                "repeats": draws,
            },
        ),
    )


def _label(found: TypedArcs, vertex: int) -> Any:
    labels = found.edge_list.labels
    return vertex if labels is None else labels[vertex]


def _explain(rank: int, saturated: bool, depth: int, limit: float) -> str:
    start = f"For almost all weights a product GNN of depth {depth} (walks of length {depth - 1}) "
    if saturated:
        return (
            f"{start}has a separation rank of at least {rank} here: the count has met the number of samples, and a "
            "larger `max_rank` may find more."
        )
    bound = "; a minimum cut of the network allows no more, for any weights" if rank == limit else ""
    return (
        f"{start}has separation rank {rank} here: its output is a sum of {rank} products of a function of one side and "
        f"a function of the other, and of no fewer{bound}. 1 means that the sides do not interact."
    )


def rank_bounds(
    found: TypedArcs, inside: NDArray[np.bool_], depth: int, widths: tuple[int, int], vertex: int | None
) -> tuple[float, float]:
    """Return `log_upper_mincut` and the tighter `log_upper_shared` of a graph that is already read."""
    from rankdiag.graphs._bounds import separation_rank_bounds

    bounds = separation_rank_bounds(
        np.stack((found.source, found.target)),
        inside,
        depth,
        *widths,
        target=vertex,
        directed=found.edge_list.directed,
        edge_type=found.kind,
        num_nodes=found.edge_list.num_nodes,
    )
    return bounds.log_upper_mincut, bounds.log_upper_shared


class _Network:
    """A product GNN over GF(p), evaluated on all pairs of settings of the two sides.

    A hidden state is an array (width, rows or 1, columns or 1): what hears from one side only is not repeated for the
    settings of the other.
    """

    def __init__(
        self, found: TypedArcs, inside: NDArray[np.bool_], depth: int, widths: tuple[int, int], vertex: int | None
    ) -> None:
        n = found.edge_list.num_nodes
        self.inside, self.depth, self.vertex = inside, depth, vertex
        self.d_in, self.d_hidden = widths
        types, kind = np.unique(np.append(found.kind, 0), return_inverse=True)  # only those in use get weights
        self.types = len(types)
        self.senders: list[list[tuple[int, int]]] = [[(i, 0)] for i in range(n)]
        for u, v, q in zip(found.source.tolist(), found.target.tolist(), kind.tolist(), strict=False):
            self.senders[v].append((u, q))
        wanted = set(range(n)) if vertex is None else {vertex}
        self.layers: list[list[int]] = []  # vertices whose state is needed, from the last layer to the first
        for _ in range(depth):
            self.layers.append(sorted(wanted))
            wanted = {j for i in wanted for j, _ in self.senders[i]}
        sides = [{bool(side)} for side in inside]
        for _ in range(depth):  # the last layer has most vertices that hear from both sides
            sides = [set().union(*(sides[j] for j, _ in senders)) for senders in self.senders]
        self.mixed = 1 + sum(len(side) > 1 for side in sides)

    def values(self, samples: int, generator: np.random.Generator) -> Ints:
        """Return the outputs for `samples` settings of each side, (samples, samples) residues."""
        n = len(self.senders)
        shapes = [(self.types, self.d_hidden, self.d_in)]
        shapes += [(self.types, self.d_hidden, self.d_hidden)] * (self.depth - 1)
        weights = [generator.integers(0, PRIME, size=shape) for shape in shapes]
        out = generator.integers(0, PRIME, size=(1, self.d_hidden))
        features = generator.integers(0, PRIME, size=(n, self.d_in, samples))
        found = np.empty((samples, samples), np.int64)
        for rows in self._blocks(samples):
            states: dict[int, Ints] = {
                i: features[i][:, rows, None] if self.inside[i] else features[i][:, None, :] for i in range(n)
            }
            for weight, wanted in zip(weights, reversed(self.layers), strict=True):
                states = self._layer(weight, states, wanted)
            last = states[self.vertex] if self.vertex is not None else _multiplied(list(states.values()))
            if last is None:
                last = np.ones((self.d_hidden, 1, 1), np.int64)
            found[rows] = _mapped(out, last)[0]
        return found

    def _blocks(self, samples: int) -> Iterator[slice]:
        wide = samples * max(self.d_hidden, self.d_in)
        size = max(1, min(_CELLS // wide, _LIVE // (wide * self.mixed * (1 + self.types))))
        return (slice(first, min(first + size, samples)) for first in range(0, samples, size))

    def _layer(self, weight: Ints, states: dict[int, Ints], wanted: list[int]) -> dict[int, Ints]:
        sent: dict[tuple[int, int], Ints] = {}
        for i in wanted:
            for j, q in self.senders[i]:
                if (j, q) not in sent:
                    sent[j, q] = _mapped(weight[q], states[j])
        return {i: _multiplied([sent[pair] for pair in self.senders[i]]) for i in wanted}


def _mapped(weight: Ints, state: Ints) -> Ints:
    """Apply a matrix to the first axis."""
    shape = state.shape[1:]
    return modular_product(weight, state.reshape(len(state), -1)).reshape(len(weight), *shape)


def _multiplied(factors: list[Ints]) -> Any:
    """Multiply states entry by entry, those of one side first; None if there are none."""
    groups: dict[tuple[int, ...], Ints] = {}
    for factor in sorted(factors, key=lambda state: state.size):
        held = groups.get(factor.shape)
        groups[factor.shape] = factor if held is None else reduce_modulo(held * factor)
    product: Ints | None = None
    for part in groups.values():
        product = part if product is None else reduce_modulo(product * part)
    return product

"""A trained model beside its architecture: how much interaction across each partition it has, and could have."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, is_torch, machine_eps
from rankdiag._document import Column, Document, Plot, Series
from rankdiag._result import Meta, Table
from rankdiag._rng import as_generator
from rankdiag._validate import boolean, describe, integer, real
from rankdiag.graphs._adjacency import as_vertex
from rankdiag.graphs._edge_types import TypedArcs, typed_arcs
from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._generic_rank import rank_bounds
from rankdiag.graphs._partitions import as_partitions
from rankdiag.graphs._walk_counts import as_depth
from rankdiag.separation import InteractionSpectrum, interaction_spectrum
from rankdiag.separation._blocks import called, pair_values, rows_of, take

__all__ = ["InteractionProfile", "InteractionProfileRow", "interaction_profile"]

Mask = NDArray[np.bool_]
CapacityReading = Literal["capacity unused", "capacity used", "capacity missing", "too few settings", "not compared"]

_UNUSED, _FULL = 0.5, 0.9  # of the logarithm of the capacity
_CROWDED = 0.5  # of the settings: an effective rank above it is a matter of their number


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionProfileRow:
    """What a model does across one partition of the vertices.

    Attributes
    ----------
    name : str
        Name of the partition.
    inside : int
        Vertices on the side that was named.
    interaction_share : float
        Share of the variance that no sum of a function of each side explains.
    effective_rank : float
        exp(entropy).
    entropy : float
        Entropy of the squared singular values, nats.
    rank : int
        Singular values above the tolerance.
    log_capacity : float or None
        Natural logarithm of the largest rank that the architecture allows; None if it was not given.
    capacity_used : float or None
        ``entropy / log_capacity``; None without capacity, or if that is 0.
    reading : {"capacity unused", "capacity used", "capacity missing", "too few settings", "not compared"}
        The comparison in words.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.graphs import interaction_profile
    >>> x = np.random.default_rng(0).normal(size=(30, 2, 1))
    >>> (row,) = interaction_profile(lambda batch: batch.sum(axis=(1, 2)), x, {"ends": [0]}, capacity=[3.0], rng=0)
    >>> row.name, row.inside, row.interaction_share, row.rank, row.reading
    ('ends', 1, 0.0, 2, 'capacity unused')
    """

    name: str
    inside: int
    interaction_share: float
    effective_rank: float
    entropy: float
    rank: int
    log_capacity: float | None
    capacity_used: float | None
    reading: CapacityReading


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InteractionProfile(Table[InteractionProfileRow]):
    """Interaction that a model has across partitions of its vertices, beside what its architecture allows.

    Attributes
    ----------
    rows : tuple of InteractionProfileRow
        One for each partition, in the order given.
    settings : int
        Examples that each side was taken from.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.graphs import interaction_profile
    >>> x = np.random.default_rng(0).normal(size=(40, 3, 1))
    >>> model = lambda batch: batch[:, 0, 0] * batch[:, 1, 0] + batch[:, 2, 0]
    >>> found = interaction_profile(model, x, {"0 | 1, 2": [0], "2 | 0, 1": [2]}, rng=0)
    >>> [(row.name, row.rank, row.interaction_share > 0) for row in found]
    [('0 | 1, 2', 2, True), ('2 | 0, 1', 2, False)]
    """

    tag: ClassVar[str] = "graphs.InteractionProfile"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="partition", doc="Name of the partition."),
        Column(name="inside", label="vertices", doc="On the side that was named."),
        Column(
            name="interaction_share",
            label="interaction share",
            doc="Share of the variance beyond a function of one side plus a function of the other.",
        ),
        Column(name="effective_rank", label="effective rank", doc="exp(entropy); 1 is one product."),
        Column(name="entropy", unit="nats", doc="Of the squared singular values."),
        Column(name="rank", doc="Singular values above the tolerance."),
        Column(name="log_capacity", label="ln capacity", unit="nats", doc="Largest ln rank of the architecture."),
        Column(name="capacity_used", label="capacity used", doc="Entropy over ln capacity."),
        Column(name="reading", doc="The comparison in words."),
    )

    rows: tuple[InteractionProfileRow, ...] = ()
    settings: int = 0

    def document(self) -> Document:
        """Return what this profile shows: its rows, and entropy against capacity or the interaction shares."""
        plots = (_plot_of_shares(self.rows),) if self.rows else ()
        if any(row.log_capacity is not None for row in self.rows):
            plots = (_plot_of_capacity(self.rows), *plots)
        return dataclasses.replace(super(InteractionProfile, self).document(), title="Interaction profile", plots=plots)


def interaction_profile(
    fn: Callable[[Any], Any],
    features: Any,
    partitions: Any,
    *,
    graph: Any = None,
    depth: int | None = None,
    d_in: int | None = None,
    d_hidden: int | None = None,
    target: Any = None,
    directed: bool = False,
    edge_type: Any = None,
    capacity: Any = None,
    combine: Callable[[Any, Any, Mask], Any] | None = None,
    samples: int = 64,
    rtol: float | None = None,
    batch_size: int = 4096,
    rng: int | np.random.Generator | None = None,
) -> InteractionProfile:
    """Measure how strongly a model mixes the two sides of each partition, beside what its architecture allows.

    Features of one side are cut from some examples and pasted into others, so the interaction is that on the data. A
    model far below its capacity has not learned to relate the sides; one at its capacity may need a deeper network, or
    edges that cross.

    Parameters
    ----------
    fn : callable or torch.nn.Module
        Takes a batch of vertex features (B, n, ...) over one fixed graph and returns B numbers, (B,) or (B, 1). A
        module runs in evaluation mode; of a callable around one, call eval() first.
    features : array-like or torch.Tensor, shape (N, n, ...)
        Vertex features of N examples; batches come as arrays or tensors, as these are.
    partitions : mapping of str to subset, sequence of subsets, or ndarray of bool (P, n)
        One side of each partition: vertices, or node labels of a networkx `graph`, or masks.
    graph : any graph of `as_edge_list`, optional
        Graph of the architecture; with `depth` and `d_hidden` it gives the capacity of each partition.
    depth : int, optional
        Layers L.
    d_in : int, optional
        Width of vertex features; that of `features` if None.
    d_hidden : int, optional
        Width of hidden layers.
    target : int, optional
        Vertex that the model predicts for; None for the whole graph.
    directed : bool
        Whether columns of `graph` are directed edges.
    edge_type : array-like of int, shape (E,), optional
        Type of each column of `graph`.
    capacity : array-like of float, shape (P,), optional
        Instead of `graph`: natural logarithm of the largest rank for each partition.
    combine : callable, optional
        ``combine(left, right, mask)`` builds the input of `fn` from two batches of examples and the mask (n,) of the
        vertices that come from the left; None pastes the features.
    samples : int
        Examples drawn for each side, without repeats; all N if there are fewer.
    rtol : float, optional
        Tolerance of `rank`, relative to the largest singular value; by default max(m, k) times the machine epsilon of
        what `fn` returns.
    batch_size : int
        Most inputs at a time.
    rng : None, int or numpy.random.Generator
        Draws the examples; all partitions share them.

    Returns
    -------
    InteractionProfile
        One row for each partition.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a vertex is not there, the architecture is given in part or beside `capacity`, or `fn`
        returns something else than one finite, repeatable number for each input, or raises.

    Notes
    -----
    The capacity is `log_upper_shared` of `separation_rank_bounds`, a bound on the rank of all GNNs with product
    aggregation of this shape. Other GNNs are compared with it by analogy: a network with ReLU may exceed it, as its
    rank has no bound. "capacity unused" is an entropy below half of ln capacity, "capacity missing" one above nine
    tenths, or a capacity of 0; both limits are a convention of this table. An effective rank above half of the settings
    says "too few settings".

    The rank of a polynomial of high degree, as a product GNN is, comes out too low in floating point: its values span
    many powers of ten. For the architecture, `generic_separation_rank` counts exactly.

    ``samples^2`` evaluations and two decompositions of that size for each partition.

    References
    ----------
    Interaction across a partition and its capacity: arXiv 2211.16494, sections 2 to 4. The profile was derived here.

    Examples
    --------
    >>> import math
    >>> import torch
    >>> from rankdiag.graphs import ProductGNN, interaction_profile
    >>> edge = torch.tensor([[0, 1], [1, 0]])
    >>> model = ProductGNN(2, 2, 2, rng=0, dtype=torch.float64)
    >>> x = torch.randn(50, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> shape = {"graph": edge, "depth": 2, "d_hidden": 2}
    >>> row = interaction_profile(lambda batch: model(batch, edge), x, {"ends": [0]}, **shape, rng=0).rows[0]
    >>> row.rank, round(math.exp(row.log_capacity))
    (5, 5)
    """
    data, total = rows_of(features, "features")
    if data.ndim < 2:
        raise ValueError(f"`features` must have shape (N, n, ...); got shape {tuple(data.shape)}")
    if not callable(fn):
        raise TypeError(f"`fn` must be callable; got {describe(fn)}")
    if combine is not None and not callable(combine):
        raise TypeError(f"`combine` must be callable or None; got {describe(combine)}")
    n = int(data.shape[1])
    count = min(total, integer(samples, "samples", low=1))
    size = integer(batch_size, "batch_size", low=1)
    relative = None if rtol is None else real(rtol, "rtol", low=0.0)
    one_way = boolean(directed, "directed")
    if graph is None:
        _require_none(depth=depth, d_in=d_in, d_hidden=d_hidden, target=target, edge_type=edge_type)
    found = None if graph is None else typed_arcs(graph, edge_type, directed=one_way, num_nodes=n)
    nothing = np.zeros((0, 2), np.int64)
    edges = EdgeList(n, nothing, np.zeros(0, np.int64)) if found is None else found.edge_list
    labels, masks = _named_masks(partitions, edges)
    widths = (_width(data) if d_in is None else integer(d_in, "d_in", low=1), d_hidden)
    limits = _capacities(found, masks, depth, widths, target, capacity)
    generator, seed = as_generator(rng)
    left, right = (take(data, generator.choice(total, size=count, replace=False)) for _ in range(2))
    rows = tuple(
        _row(name, mask, _spectrum(fn, combine or _pasted, left, right, mask, size, relative), limit)
        for name, mask, limit in zip(labels, masks, limits, strict=True)
    )
    details: dict[str, Any] = {"examples": total, "vertices": n}
    if found is not None:
        layers = as_depth(depth)
        details |= {"depth": f"{layers} (walks of length {layers - 1})", "d_in": widths[0], "d_hidden": d_hidden}
    return InteractionProfile(
        rows=rows,
        settings=count,
        explanation=_explain(rows),
        meta=Meta(
            definition="spectrum of the model's values on examples whose two sides are cut and pasted",
            base="e",
            n=count * count,
            seed=seed,
            details=details,
        ),
    )


def _require_none(**shape: Any) -> None:
    for name, value in shape.items():
        if value is not None:
            raise ValueError(f"`{name}` describes an architecture and needs `graph`; got no `graph`")


def _width(data: Any) -> int:
    return max(1, math.prod(int(side) for side in data.shape[2:]))


def _named_masks(partitions: Any, edges: EdgeList) -> tuple[list[str], list[Mask]]:
    names: list[str] | None = None
    if isinstance(partitions, Mapping):
        names = list(partitions)
        if not all(isinstance(name, str) for name in names):
            raise TypeError("`partitions` must have names that are strings")
        partitions = list(partitions.values())
    try:
        found = as_partitions(partitions, edges, "partitions")
        masks = list(found.masks(0, found.count))
    except (TypeError, ValueError) as error:
        raise type(error)(re.sub(r"^subset (?=\d+: )", "partition ", str(error))) from None
    if not masks:
        raise ValueError("`partitions` must hold at least one partition")
    return names or [f"partition {k}" for k in range(len(masks))], masks


def _capacities(
    found: TypedArcs | None,
    masks: list[Mask],
    depth: Any,
    widths: tuple[int, Any],
    target: Any,
    capacity: Any,
) -> list[float | None]:
    if found is None:
        if capacity is None:
            return [None] * len(masks)
        values = as_float64(capacity, "capacity", ndim=1, expected="one logarithm for each partition")
        if len(values) != len(masks) or (values < 0).any():
            raise ValueError(
                f"`capacity` must hold {len(masks)} logarithms of ranks, each >= 0; got {len(values)} with smallest "
                f"{float(values.min())!r}"
            )
        return list(values.tolist())
    if capacity is not None:
        raise ValueError("`capacity` must be None where `graph` gives it")
    for name, value in (("depth", depth), ("d_hidden", widths[1])):
        if value is None:
            raise ValueError(f"`{name}` must be given with `graph`, to compute the capacity")
    layers, width = as_depth(depth), integer(widths[1], "d_hidden", low=1)
    vertex = None if target is None else as_vertex(target, found.edge_list)
    return [rank_bounds(found, mask, layers, (widths[0], width), vertex)[1] for mask in masks]


def _pasted(left: Any, right: Any, mask: Mask) -> Any:
    """Take the vertices of the mask from the left examples and all others from the right ones."""
    shape = (-1, *[1] * (left.ndim - 2))
    if is_torch(left):
        import torch

        return torch.where(torch.from_numpy(mask).to(left.device).reshape(shape), left, right)
    return np.where(mask.reshape(shape), left, right)


def _spectrum(
    fn: Callable[[Any], Any],
    combine: Callable[[Any, Any, Mask], Any],
    left: Any,
    right: Any,
    mask: Mask,
    batch_size: int,
    rtol: float | None,
) -> InteractionSpectrum:
    dtypes: set[str] = set()
    shape = (len(left), len(right))

    def make(a: NDArray[np.int64], b: NDArray[np.int64]) -> Any:
        return called(combine, "combine", len(a), take(left, a), take(right, b), mask)

    values = pair_values(fn, make, shape, batch_size=batch_size, dtypes=dtypes)
    rounding = max(machine_eps(dtype) for dtype in dtypes)
    return interaction_spectrum(values, rtol=max(shape) * rounding if rtol is None else rtol)


def _row(name: str, mask: Mask, found: InteractionSpectrum, limit: float | None) -> InteractionProfileRow:
    used = found.entropy / limit if limit else None
    return InteractionProfileRow(
        name=name,
        inside=int(mask.sum()),
        interaction_share=found.interaction_share,
        effective_rank=found.effective_rank,
        entropy=found.entropy,
        rank=found.rank,
        log_capacity=limit,
        capacity_used=used,
        reading=_reading(found, limit, used),
    )


def _reading(found: InteractionSpectrum, limit: float | None, used: float | None) -> CapacityReading:
    if limit is None:
        return "not compared"
    if used is None or used >= _FULL:
        return "capacity missing"
    if found.effective_rank > _CROWDED * min(found.shape):
        return "too few settings"
    return "capacity unused" if used < _UNUSED else "capacity used"


def _explain(rows: tuple[InteractionProfileRow, ...]) -> str:
    top = max(rows, key=lambda row: row.interaction_share)
    text = "The model is a sum of a function of each side, for every partition."
    if top.interaction_share > 0:
        text = (
            f"The model mixes the sides of {top.name!r} most: {100 * top.interaction_share:.3g}% of its variance there "
            "is interaction, which no sum of a function of each side explains."
        )
    unused = [row.name for row in rows if row.reading == "capacity unused"]
    missing = [row.name for row in rows if row.reading == "capacity missing"]
    if unused:
        text += (
            f" Capacity unused ({_few(unused)}): the architecture could relate the sides far more than the model does."
        )
    if missing:
        text += (
            f" Capacity missing ({_few(missing)}): the model is at what the architecture allows; more depth, width or "
            "edges that cross would allow more."
        )
    return text


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _plot_of_shares(rows: tuple[InteractionProfileRow, ...]) -> Plot:
    return Plot(
        title="Interaction share",
        x_label="partition",
        y_label="share of the variance",
        series=(
            Series(
                label="",
                x=tuple(range(len(rows))),
                y=tuple(row.interaction_share for row in rows),
                kind="bars",
                names=tuple(row.name for row in rows),
            ),
        ),
        description="Share of the model's variance that is interaction, for each partition in order.",
    )


def _plot_of_capacity(rows: tuple[InteractionProfileRow, ...]) -> Plot:
    known = [(row.log_capacity, row.entropy, row.name) for row in rows if row.log_capacity is not None]
    end = max(limit for limit, _, _ in known)
    return Plot(
        title="Entropy against capacity",
        x_label="ln capacity, nats",
        y_label="entropy, nats",
        series=(
            Series(
                label="partitions",
                x=tuple(limit for limit, _, _ in known),
                y=tuple(entropy for _, entropy, _ in known),
                kind="points",
                names=tuple(name for _, _, name in known),
            ),
            Series(label="all of the capacity", x=(0.0, end), y=(0.0, end)),
        ),
        description="Entropy of the model across each partition against the logarithm of what the architecture allows.",
    )

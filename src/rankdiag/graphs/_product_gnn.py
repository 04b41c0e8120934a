"""The GNN that the theory analyses: messages are multiplied, not added, and nothing else is non-linear."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._array import as_float64, refuse_size
from rankdiag._rng import as_generator, torch_generator
from rankdiag._validate import choice, describe, integer
from rankdiag.graphs._adjacency import as_vertex
from rankdiag.graphs._edge_types import typed_arcs
from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._walk_counts import DEEPEST

__all__ = ["ProductGNN", "product_gnn_log_forward"]

_Scaled = tuple[torch.Tensor, torch.Tensor]  # mantissas, and powers of two as float64
_TYPICAL = math.exp((np.euler_gamma + math.log(2.0)) / 2.0)  # times it, a Gaussian has geometric mean magnitude 1


class _Messages(NamedTuple):
    """Which vertex sends to which along which type, in the order in which messages are multiplied."""

    edges: EdgeList
    source: torch.Tensor  # (F,), grouped by target, the loop first
    kind: torch.Tensor  # (F,), positions in `types`
    types: torch.Tensor  # types in use, ascending
    rounds: tuple[_Round, ...]


class _Round(NamedTuple):
    """One halving of all groups: of the entries that come in, which are multiplied and which stay."""

    left: torch.Tensor
    right: torch.Tensor
    single: torch.Tensor
    order: torch.Tensor  # brings products and single entries back into the order of groups


class ProductGNN(torch.nn.Module):
    r"""GNN with product aggregation, whose separation rank walk counts bound from both sides.

    Layer l gives vertex i the element-wise product of ``W[l, type] h[j]`` over its neighbours j, itself included
    (along type 0); the readout multiplies over vertices and applies a linear map. There is no bias.

    Parameters
    ----------
    num_layers : int
        Depth L, at least 1. Walks of length L - 1 decide which groups of vertices it can relate.
    d_in, d_hidden : int
        Width of vertex features and of hidden layers.
    d_out : int
        Outputs.
    num_edge_types : int
        Types of edges; each has its own weights in every layer.
    readout : {"product", None}
        ``"product"`` predicts for the graph; None predicts for every vertex.
    rng : None, int or numpy.random.Generator
        Draws the weights; the global state of torch is not used.
    dtype : torch.dtype, optional
        Of the weights; the default dtype of torch if None.
    device : torch.device or str, optional
        Of the weights; the default device of torch if None.

    Attributes
    ----------
    weights : torch.nn.ParameterList
        One parameter a layer, (num_edge_types, d_hidden, width before it).
    out_weight : torch.nn.Parameter
        (d_out, d_hidden).

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a size is below 1, the depth above 10,000, the weights would not fit into memory, or torch cannot use the
        device.

    Notes
    -----
    Weights start Gaussian with standard deviation ``exp((gamma + ln 2) / 2) / sqrt(fan_in)``, 1.887 over the root: a
    factor then has geometric mean magnitude 1 on features of unit size, so that a product of many is as likely to be
    small as large. Its spread still grows with the number of factors: use `product_gnn_log_forward` where a graph has
    more than some tens of vertices.

    Time O(L (n d_in d_hidden q + E d_hidden)) for n vertices, E edges and q types in use. Factors are multiplied in a
    fixed binary tree: the same result on every run, gradients that are right where factors are 0, and
    O(log(largest degree)) steps.

    References
    ----------
    arXiv 2211.16494, section 3, and the appendix on several edge types. The starting weights were derived here.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.graphs import ProductGNN
    >>> model = ProductGNN(2, 2, 2, dtype=torch.float64)
    >>> state = {
    ...     "weights.0": torch.tensor([[[1.0, 2.0], [-1.0, 0.5]]]),
    ...     "weights.1": torch.tensor([[[0.5, 1.0], [1.0, -1.0]]]),
    ...     "out_weight": torch.tensor([[1.0, -2.0]]),
    ... }
    >>> _ = model.load_state_dict(state)
    >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> x = torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0]], dtype=torch.float64)
    >>> model(x, path).item()
    64059.451171875
    """

    def __init__(
        self,
        num_layers: int,
        d_in: int,
        d_hidden: int,
        *,
        d_out: int = 1,
        num_edge_types: int = 1,
        readout: Literal["product"] | None = "product",
        rng: int | np.random.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.num_layers = integer(num_layers, "num_layers", low=1, high=DEEPEST)
        self.d_in = integer(d_in, "d_in", low=1)
        self.d_hidden = integer(d_hidden, "d_hidden", low=1)
        self.d_out = integer(d_out, "d_out", low=1)
        self.num_edge_types = integer(num_edge_types, "num_edge_types", low=1)
        self.readout: str | None = choice(readout, "readout", ("product", None))
        wide = max(self.d_in, self.d_hidden, self.d_out)
        shape = (self.num_layers, self.num_edge_types, self.d_hidden, wide)
        refuse_size(math.prod(shape), "d_hidden", shape)
        wanted, place = _dtype(dtype), _device(device)
        generator = torch_generator(as_generator(rng)[0])

        def drawn(*shape: int) -> torch.nn.Parameter:
            values = torch.randn(shape, generator=generator, dtype=torch.float64) * (_TYPICAL / math.sqrt(shape[-1]))
            return torch.nn.Parameter(values.to(device=place, dtype=wanted))

        widths = (self.d_in, *[self.d_hidden] * (self.num_layers - 1))
        self.weights = torch.nn.ParameterList(drawn(self.num_edge_types, self.d_hidden, width) for width in widths)
        self.out_weight = drawn(self.d_out, self.d_hidden)

    def extra_repr(self) -> str:
        """Return the shape of the network, with both of its lengths, for ``repr``."""
        return (
            f"depth {self.num_layers} (walks of length {self.num_layers - 1}), d_in={self.d_in}, "
            f"d_hidden={self.d_hidden}, d_out={self.d_out}, num_edge_types={self.num_edge_types}, "
            f"readout={self.readout!r}"
        )

    def hidden(self, x: Any, edge_index: Any, edge_type: Any = None) -> torch.Tensor:
        """Return the last hidden layer of every vertex.

        Parameters
        ----------
        x : torch.Tensor or array-like, shape (..., n, d_in)
            Features of the vertices; leading axes are a batch over one graph.
        edge_index : torch.Tensor, array-like of int (2, E), or any graph of `as_edge_list`
            Columns are messages from row 0 to row 1, as they stand. Loops are dropped and one is added for each vertex;
            duplicate columns count once.
        edge_type : array-like of int, shape (E,), optional
            Type of each column; entries of loops are ignored. None makes all 0.

        Returns
        -------
        torch.Tensor, shape (..., n, d_hidden)
            Hidden states after the last layer.

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If shapes do not fit, a vertex is not in `x`, or a type has no weights.
        """
        h = _features(self, x)
        messages = _messages(self, edge_index, edge_type, h)
        for weight in self.weights:
            h = _product(_sent(weight, h, messages), messages.rounds)
        return h

    def forward(self, x: Any, edge_index: Any, edge_type: Any = None, target: Any = None) -> torch.Tensor:
        """Return the outputs for the graph, for one vertex, or for every vertex.

        Parameters
        ----------
        x : torch.Tensor or array-like, shape (..., n, d_in)
            Features of the vertices.
        edge_index : torch.Tensor, array-like of int (2, E), or any graph of `as_edge_list`
            Messages, see `hidden`.
        edge_type : array-like of int, shape (E,), optional
            Type of each column.
        target : int, optional
            Vertex to predict for; None takes the readout.

        Returns
        -------
        torch.Tensor
            (..., d_out); (..., n, d_out) without readout and `target`.

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If shapes do not fit, a vertex is not in `x`, or a type has no weights.
        """
        h = _features(self, x)
        messages = _messages(self, edge_index, edge_type, h)
        for weight in self.weights:
            h = _product(_sent(weight, h, messages), messages.rounds)
        if target is not None:
            h = h[..., as_vertex(target, messages.edges), :]
        elif self.readout == "product":
            h = _over_vertices(h)
        return h @ self.out_weight.mT


def product_gnn_log_forward(
    model: ProductGNN, x: Any, edge_index: Any, *, edge_type: Any = None, target: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sign and logarithm of the outputs of a `ProductGNN`, where the outputs themselves under- or overflow.

    Parameters
    ----------
    model : ProductGNN
        The network.
    x : torch.Tensor or array-like, shape (..., n, d_in)
        Features of the vertices.
    edge_index : torch.Tensor, array-like of int (2, E), or any graph of `as_edge_list`
        Messages, as in `ProductGNN.hidden`.
    edge_type : array-like of int, shape (E,), optional
        Type of each column.
    target : int, optional
        Vertex to predict for; None takes the readout of the model.

    Returns
    -------
    sign : torch.Tensor
        -1, 0 or 1, of the shape of the outputs: (..., d_out), or (..., n, d_out) without readout and `target`.
    log_magnitude : torch.Tensor
        Natural logarithm of the magnitude, -inf where the output is 0. Gradients are those of ln|f|.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a vertex is not in `x`, or a type has no weights.

    Notes
    -----
    Every number is kept as a mantissa in [1/2, 1) and an integer power of two of its own; both are renewed after every
    factor, and the powers are held as float64, so that exponents up to 2^53 are exact. Weights and features of 16 bits
    are computed with in float32. A linear map of width w takes w times the memory of `ProductGNN.forward`.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.graphs import ProductGNN, product_gnn_log_forward
    >>> model = ProductGNN(3, 2, 2, rng=0)
    >>> ring = torch.stack([torch.arange(500), (torch.arange(500) + 1) % 500])
    >>> x = torch.full((500, 2), 1e-3)
    >>> sign, log_magnitude = product_gnn_log_forward(model, x, ring)
    >>> model(x, ring).item(), sign.abs().item(), bool(log_magnitude.item() < -1e4)
    (0.0, 1.0, True)
    """
    if not isinstance(model, ProductGNN):
        raise TypeError(f"`model` must be a ProductGNN; got {describe(model)}")
    features = _features(model, x)
    messages = _messages(model, edge_index, edge_type, features)
    wide = torch.promote_types(features.dtype, torch.float32)
    h = _scaled(features.to(wide), torch.zeros(features.shape, dtype=torch.float64, device=features.device))
    for weight in model.weights:
        sent = [_linear(weight[kind].to(wide), h) for kind in messages.types]
        mantissa, power = (torch.stack(parts, dim=-2) for parts in zip(*sent, strict=True))
        picked = (messages.source, messages.kind)
        h = _scaled_product((mantissa[..., *picked, :], power[..., *picked, :]), messages.rounds)
    if target is not None:
        vertex = as_vertex(target, messages.edges)
        h = (h[0][..., vertex, :], h[1][..., vertex, :])
    elif model.readout == "product":
        h = _scaled_over_vertices(h)
    mantissa, power = _linear(model.out_weight.to(wide), h)
    return mantissa.detach().sign(), mantissa.abs().log() + (power * math.log(2.0)).to(wide)


def _dtype(dtype: Any) -> torch.dtype:
    if dtype is None:
        return torch.get_default_dtype()
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"`dtype` must be a floating-point torch.dtype or None; got {describe(dtype)}")
    return dtype


def _device(device: Any) -> torch.device:
    if device is None:
        return torch.get_default_device()
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"`device` must be a torch.device, its name, or None; got {describe(device)}")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except Exception as error:  # a wrong name, or a device that this build or machine does not have
        raise ValueError(f"`device` must be one that torch can use here; got {device!r} ({error})") from error
    return place


def _features(model: ProductGNN, x: Any) -> torch.Tensor:
    weight = model.out_weight
    if isinstance(x, torch.Tensor):
        if x.dtype != weight.dtype or x.device != weight.device:
            raise TypeError(
                f"`x` must have the dtype and device of the weights, {weight.dtype} on {weight.device}; got {x.dtype} "
                f"on {x.device}"
            )
        values = x
    else:
        array = as_float64(x, "x", allow_empty=True, finite=False, expected="features of vertices")
        values = torch.from_numpy(array.copy()).to(weight.device, weight.dtype)
    if values.ndim < 2 or values.shape[-1] != model.d_in:
        raise ValueError(f"`x` must have shape (..., n, {model.d_in}); got shape {tuple(values.shape)}")
    return values


def _messages(model: ProductGNN, edge_index: Any, edge_type: Any, x: torch.Tensor) -> _Messages:
    one_way = edge_index.directed if isinstance(edge_index, EdgeList) else True
    n = int(x.shape[-2])
    try:
        found = typed_arcs(edge_index, edge_type, directed=one_way, num_nodes=n)
    except (TypeError, ValueError) as error:  # the reader of graphs calls them `graph`
        raise type(error)(str(error).replace("`graph`", "`edge_index`")) from error
    if found.num_types > model.num_edge_types:
        raise ValueError(
            f"`edge_type` must be below {model.num_edge_types}, the edge types of the model; got {found.num_types - 1}"
        )
    loops = np.arange(n)
    target = np.concatenate((loops, found.target))
    order = np.argsort(target, kind="stable")
    types, kind = np.unique(np.concatenate((np.zeros(n, np.int64), found.kind)), return_inverse=True)
    source = np.concatenate((loops, found.source))[order]

    def on_device(array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.int64, device=x.device)

    rounds = _rounds(np.bincount(target, minlength=n), x.device)
    types = types if len(types) else np.zeros(1, np.int64)
    return _Messages(found.edge_list, on_device(source), on_device(kind[order]), on_device(types), rounds)


def _rounds(sizes: NDArray[np.int64], device: torch.device) -> tuple[_Round, ...]:
    """Plan the products of consecutive groups of these sizes: halve all groups until each has one entry."""
    rounds = []
    while int(sizes.max(initial=0)) > 1:
        first = np.cumsum(sizes) - sizes
        place = np.arange(int(sizes.sum())) - np.repeat(first, sizes)
        last = np.repeat(sizes, sizes) - 1
        left = np.flatnonzero((place % 2 == 0) & (place < last))
        single = np.flatnonzero((place % 2 == 0) & (place == last))
        order = np.argsort(np.concatenate((left, single)), kind="stable")
        parts = (left, left + 1, single, order)
        rounds.append(_Round(*(torch.as_tensor(part, dtype=torch.int64, device=device) for part in parts)))
        sizes = (sizes + 1) // 2
    return tuple(rounds)


def _sent(weight: torch.Tensor, h: torch.Tensor, messages: _Messages) -> torch.Tensor:
    """Return the factors (..., F, d_hidden): what each source sends along its type."""
    if len(messages.types) == 1:  # the loops use type 0, so it is that one
        return (h @ weight[0].mT)[..., messages.source, :]
    sent = torch.einsum("qdc,...nc->...nqd", weight[messages.types], h)
    return sent[..., messages.source, messages.kind, :]


def _product(values: torch.Tensor, rounds: tuple[_Round, ...]) -> torch.Tensor:
    """Multiply the groups along the last axis but one."""
    for step in rounds:
        paired = values[..., step.left, :] * values[..., step.right, :]
        values = torch.cat((paired, values[..., step.single, :]), dim=-2)[..., step.order, :]
    return values


def _over_vertices(h: torch.Tensor) -> torch.Tensor:
    """Multiply over all vertices; of none it is the empty product, 1."""
    if not h.shape[-2]:
        return h.new_ones((*h.shape[:-2], h.shape[-1]))
    return _product(h, _rounds(np.array([h.shape[-2]]), h.device))[..., 0, :]


def _scaled(mantissa: torch.Tensor, power: torch.Tensor) -> _Scaled:
    """Move powers of two out of the mantissas; they carry no gradient, so that of the value is untouched."""
    limit = _largest_power(mantissa.dtype)
    moved = torch.frexp(mantissa.detach()).exponent.clamp(-limit, limit)
    return mantissa * torch.exp2(-moved.to(mantissa.dtype)), power + moved


def _largest_power(dtype: torch.dtype) -> int:
    return int(math.log2(torch.finfo(dtype).max)) - 4


def _scaled_product(h: _Scaled, rounds: tuple[_Round, ...]) -> _Scaled:
    mantissa, power = h
    for step in rounds:
        left, right, single = step.left, step.right, step.single
        paired, powers = _scaled(
            mantissa[..., left, :] * mantissa[..., right, :], power[..., left, :] + power[..., right, :]
        )
        mantissa = torch.cat((paired, mantissa[..., single, :]), dim=-2)[..., step.order, :]
        power = torch.cat((powers, power[..., single, :]), dim=-2)[..., step.order, :]
    return mantissa, power


def _scaled_over_vertices(h: _Scaled) -> _Scaled:
    mantissa, power = h
    if not mantissa.shape[-2]:
        return _over_vertices(mantissa), _over_vertices(power) - 1.0
    found = _scaled_product(h, _rounds(np.array([mantissa.shape[-2]]), mantissa.device))
    return found[0][..., 0, :], found[1][..., 0, :]


def _linear(weight: torch.Tensor, h: _Scaled) -> _Scaled:
    """Apply a matrix to scaled numbers: every output has a power of its own, that of its largest term."""
    mantissa, power = h
    terms = weight * mantissa.unsqueeze(-2)
    powers = power.unsqueeze(-2)
    sizes = torch.frexp(terms.detach()).exponent + powers
    top = sizes.masked_fill(terms.detach() == 0, -math.inf).amax(dim=-1, keepdim=True)
    top = top.masked_fill(top == -math.inf, 0.0)
    shift = (powers - top).clamp(max=_largest_power(terms.dtype)).to(terms.dtype)
    return _scaled((terms * torch.exp2(shift)).sum(dim=-1), top.squeeze(-1))

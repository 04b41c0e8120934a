"""Types of edges: one entry for each input column becomes one type for each arc of the simple graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch
from rankdiag._validate import boolean, describe
from rankdiag.graphs._adjacency import arcs
from rankdiag.graphs._edges import EdgeList, GraphColumns, canonical_edges, graph_columns, normalise

__all__ = ["TypedArcs", "typed_arcs"]

Ints = NDArray[np.int64]
_MOST_TYPES = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class TypedArcs:
    """The ordered pairs of joined vertices, no loops, and the type of each.

    Attributes
    ----------
    edge_list : EdgeList
        The simple graph.
    source, target : ndarray of int64, shape (A,)
        Arcs in the order of `arcs`: the canonical edges, followed by the same reversed if the graph is undirected.
    kind : ndarray of int64, shape (A,)
        Type of each arc; all 0 where none were given. A loop, which every vertex has, is of type 0.
    num_types : int
        One more than the largest type, at least 1.
    """

    edge_list: EdgeList
    source: Ints
    target: Ints
    kind: Ints
    num_types: int


def typed_arcs(graph: Any, edge_type: Any, *, directed: bool, num_nodes: int | None) -> TypedArcs:
    """Read a graph and the types of its columns.

    Parameters
    ----------
    graph : any graph of `as_edge_list`
        The graph; with types it must have columns, so it cannot be an `EdgeList`.
    edge_type : array-like of int, shape (E,), or None
        Type 0, 1, ... of each input column; None makes every arc type 0. Entries of self-loop columns are ignored. The
        two directions of an undirected edge may differ, as messages along them are two.
    directed : bool
        Whether columns are directed edges.
    num_nodes : int or None
        Vertices.

    Returns
    -------
    TypedArcs
        The simple graph, its arcs and their types.

    Raises
    ------
    TypeError
        If the graph is of no accepted kind, types come with an `EdgeList`, or are no integers.
    ValueError
        If the graph is wrong, `edge_type` has not one entry for each column, a type is negative, or two columns of one
        arc have different types.
    """
    if edge_type is None:
        edges = normalise(graph, directed=directed, num_nodes=num_nodes)
        source, target = arcs(edges)
        return TypedArcs(edges, source, target, np.zeros(len(source), np.int64), 1)
    if isinstance(graph, EdgeList):
        raise TypeError(
            "`edge_type` has one entry for each input column, and an EdgeList no longer has columns; pass the "
            "(2, E) array that it was made of"
        )
    columns = graph_columns(graph, num_nodes=num_nodes)
    edges = canonical_edges(columns, directed=boolean(directed, "directed"))
    source, target = arcs(edges)
    kind = _kinds_of(columns, _read(edge_type, len(columns.source)), source, target)
    return TypedArcs(edges, source, target, kind, int(kind.max(initial=0)) + 1)


def _read(edge_type: Any, count: int) -> Ints:
    wanted = f"`edge_type` must hold integers, one for each column of `graph` ({count},)"
    if isinstance(edge_type, (str, bytes, dict, set, frozenset, np.ma.MaskedArray)):
        raise TypeError(f"{wanted}; got {describe(edge_type)}")
    try:
        if is_torch(edge_type):
            value: Any = edge_type.detach().cpu()
            value = value.numpy() if not value.is_floating_point() else value.double().numpy()
        else:
            value = edge_type
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{wanted}; got rows of different lengths") from None
    except Exception as error:  # a tensor without data or of another layout, __array__ of a foreign type
        raise TypeError(f"{wanted}; got {describe(edge_type)} ({type(error).__name__}: {error})") from error
    if array.size == 0 and array.shape == (count,):
        return np.zeros(0, np.int64)  # an empty list has no integer dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"{wanted}; got {describe(edge_type)} of dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"{wanted}; got shape {array.shape}")
    if array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(2**62))
    return array.astype(np.int64)


def _kinds_of(columns: GraphColumns, types: Ints, source: Ints, target: Ints) -> Ints:
    """Return the type of each arc (source, target), found among the columns."""
    kept = np.flatnonzero(columns.source != columns.target)
    types = types[kept]
    if not len(kept):
        return np.zeros(0, np.int64)
    low, high = int(types.min()), int(types.max())
    if low < 0:
        raise ValueError(f"`edge_type` must hold types 0, 1, ...; got {low}")
    if high >= _MOST_TYPES:
        raise ValueError(f"`edge_type` must hold types below {_MOST_TYPES}; got {high}")
    key = columns.source[kept] * columns.num_nodes + columns.target[kept]
    order = np.argsort(key, kind="stable")
    key, types = key[order], types[order]
    clash = np.flatnonzero((key[1:] == key[:-1]) & (types[1:] != types[:-1]))
    if len(clash):
        u, v = divmod(int(key[clash[0]]), columns.num_nodes)
        raise ValueError(
            f"`edge_type` gives edge ({u}, {v}) the types {types[clash[0]]} and {types[clash[0] + 1]}; duplicate "
            "columns must agree"
        )
    found: Ints = types[np.searchsorted(key, source * columns.num_nodes + target)]
    return found

"""Reading an `EdgeList`: arcs, sparse adjacency, and sets of vertices as the user names them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch
from rankdiag._validate import describe
from rankdiag.graphs._edges import EdgeList

__all__ = ["adjacency", "arcs", "as_subset", "as_vertex", "can_iterate", "vertex_reader"]


def arcs(graph: EdgeList) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sources and targets of all ordered pairs that are joined, no loops: M of them if directed, else 2 M.

    The arcs of an undirected graph are its canonical edges followed by the same reversed.
    """
    u, v = graph.edges[:, 0], graph.edges[:, 1]
    if graph.directed:
        return np.ascontiguousarray(u), np.ascontiguousarray(v)
    return np.concatenate((u, v)), np.concatenate((v, u))


def adjacency(graph: EdgeList) -> Any:
    """Return A without loops as a scipy CSR array of int64, ``A[source, target] = 1``, indices sorted in each row."""
    from scipy.sparse import csr_array

    source, target = arcs(graph)
    shape = (graph.num_nodes, graph.num_nodes)
    matrix = csr_array((np.ones(len(source), np.int64), (source, target)), shape=shape)
    matrix.sort_indices()
    return matrix


def as_subset(subset: Any, graph: EdgeList, name: str = "subset") -> NDArray[np.bool_]:
    """Turn a set of vertices into a mask.

    Parameters
    ----------
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        Vertices; a boolean array of length n is a mask. Of a networkx graph they are node labels.
    graph : EdgeList
        The graph.
    name : str
        Name of the argument in messages.

    Returns
    -------
    ndarray of bool, shape (n,)
        True inside.

    Raises
    ------
    TypeError
        If it is no collection of vertices.
    ValueError
        If a vertex is not in the graph or appears twice, or a mask has another length.
    """
    n = graph.num_nodes
    subset = out_of_torch(subset, name, f"a collection of vertices or a boolean mask ({n},)")
    if isinstance(subset, np.ndarray) and subset.dtype == bool:
        if subset.shape != (n,):
            raise ValueError(f"`{name}` as a mask must have shape ({n},); got shape {subset.shape}")
        return subset.copy()
    if isinstance(subset, (str, bytes, dict)) or not can_iterate(subset):
        raise TypeError(f"`{name}` must be a collection of vertices or a boolean mask ({n},); got {describe(subset)}")
    if isinstance(subset, np.ndarray) and subset.ndim == 1 and subset.dtype.kind in "iu" and graph.labels is None:
        return _mask_of(subset, n, name)
    try:
        entries = list(subset)
    except TypeError:  # an array without axes
        raise TypeError(
            f"`{name}` must be a collection of vertices or a boolean mask ({n},); got {describe(subset)}"
        ) from None
    if graph.labels is None and entries and set(map(type, entries)) <= {bool, np.bool_}:
        return as_subset(np.array(entries, bool), graph, name)
    if graph.labels is not None:
        place = {label: index for index, label in enumerate(graph.labels)}
        ids = np.array([_place_of(entry, place, name) for entry in entries], np.int64)
    else:
        ids = _vertex_ids(entries, name)
    return _mask_of(ids, n, name)


def _vertex_ids(entries: list[Any], name: str) -> NDArray[Any]:
    """Read vertex ids one by one; plain ints, which most lists hold, at once."""
    if set(map(type, entries)) != {int}:
        entries = [_vertex_id(entry, name) for entry in entries]
    try:
        return np.array(entries, np.int64)
    except OverflowError:  # far outside, to be named by the caller
        return np.array(entries, object)


def _mask_of(ids: NDArray[Any], n: int, name: str) -> NDArray[np.bool_]:
    mask = np.zeros(n, bool)
    if not len(ids):
        return mask
    outside = (ids < 0) | (ids >= n)
    if outside.any():
        raise ValueError(
            f"`{name}` contains vertex {describe(int(ids[outside.argmax()]))} but the graph has {n} vertices"
        )
    mask[ids.astype(np.int64, copy=False)] = True
    if np.count_nonzero(mask) != len(ids):
        hint = f"; a mask must be of dtype bool, not {ids.dtype}" if len(ids) == n and ids.max() <= 1 else ""
        raise ValueError(f"`{name}` has duplicate vertices{hint}")
    return mask


def _vertex_id(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must hold vertex ids; got {value!r} among them")
    try:
        return operator.index(value)
    except Exception:  # TypeError as a rule; foreign objects may raise anything
        raise TypeError(f"`{name}` must hold integer vertex ids; got {describe(value)} among them") from None


def _place_of(label: Any, place: dict[Any, int], name: str) -> int:
    try:
        return place[label]
    except (KeyError, TypeError):  # absent, or not hashable
        raise ValueError(f"`{name}` must hold node labels of the graph; got {describe(label)}") from None


def as_vertex(value: Any, graph: EdgeList, name: str = "target") -> int:
    """Turn a vertex id, or the node label of a networkx graph, into a position.

    Raises
    ------
    TypeError
        If it is no integer (and the graph has no labels).
    ValueError
        If it is not in the graph.
    """
    return vertex_reader(graph, name)(value)


def vertex_reader(graph: EdgeList, name: str) -> Callable[[Any], int]:
    """Return `as_vertex` for many vertices of one graph: the labels are looked through once, not for each vertex."""
    if graph.labels is not None:
        place = {label: index for index, label in enumerate(graph.labels)}
        return lambda value: _place_of(value, place, name)

    def read(value: Any) -> int:
        try:
            vertex = _vertex_id(value, name)
        except TypeError:
            raise TypeError(f"`{name}` must be a vertex id; got {describe(value)}") from None
        if not 0 <= vertex < graph.num_nodes:
            raise ValueError(f"`{name}` must be a vertex id below {graph.num_nodes}; got {describe(vertex)}")
        return vertex

    return read


def can_iterate(value: Any) -> bool:
    """Whether the class of an object has ``__iter__``; the object itself is not asked, for its attributes may raise."""
    return hasattr(type(value), "__iter__")

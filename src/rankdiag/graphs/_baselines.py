"""Orders to compare walk index sparsification with: random, by effective resistance, and by a trained edge mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._rng import as_generator
from rankdiag._validate import integer, real
from rankdiag.graphs._edges import EdgeList, normalise

__all__ = ["edge_weights", "random_order", "spectral_order", "ugs_prune_step"]


def random_order(
    graph: Any, *, rng: Any = None, directed: bool = False, num_nodes: int | None = None
) -> NDArray[np.int64]:
    """Return all edges in a random removal order.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`. Weights play no part.
    rng : None, int or numpy.random.Generator
        Source of randomness; the same seed gives the same order.
    directed : bool
        Whether columns are directed edges.
    num_nodes : int, optional
        Vertices; None takes what the input says.

    Returns
    -------
    ndarray of int64, shape (M,)
        Edge ids, the first to go first; every order has the same chance.

    Raises
    ------
    TypeError
        If `graph` or `rng` is of no accepted kind.
    ValueError
        If `graph` is not a legal graph, or `rng` is a negative seed.

    Notes
    -----
    An undirected edge is one edge: both of its columns go together. O(M) time and memory after the graph was read.

    References
    ----------
    arXiv 2211.16494, section 5, compares with this order.

    Examples
    --------
    >>> from rankdiag.graphs import random_order
    >>> order = random_order([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]], rng=0)
    >>> sorted(order.tolist())
    [0, 1, 2]
    """
    edges = normalise(graph, directed=directed, num_nodes=num_nodes, warn=False)
    generator, _ = as_generator(rng)
    return generator.permutation(edges.num_edges).astype(np.int64, copy=False)


def spectral_order(
    graph: Any,
    *,
    weights: Any = None,
    resistances: Any = None,
    uniforms: Any = None,
    rng: Any = None,
    num_nodes: int | None = None,
) -> NDArray[np.int64]:
    """Return all edges in the removal order of spectral sparsification.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph, undirected; see `as_edge_list`.
    weights : array-like of float, shape (M,), optional
        Weights of the edges by edge id, above 0; None takes 1.
    resistances : array-like of float, shape (M,), optional
        Effective resistances by edge id, above 0; None computes them with `effective_resistances`.
    uniforms : array-like of float, shape (M,), optional
        Uniform numbers in (0, 1], one for each edge id, instead of drawing them.
    rng : None, int or numpy.random.Generator
        Source of randomness for the uniforms, and for resistances of a large graph.
    num_nodes : int, optional
        Vertices; None takes what the input says.

    Returns
    -------
    ndarray of int64, shape (M,)
        Edge ids, the first to go first.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `graph` is not a legal undirected graph, or an array has another shape or entries outside its range.

    Notes
    -----
    An edge has the score ``p = weight * resistance``. All edges are drawn without replacement, each time with
    probability proportional to the score of those that are left; edges drawn early are kept long, so the removal order
    is the drawing order reversed. The draw is made as a race: with U uniform, ``-ln(U) / p`` is an exponential time of
    rate p, the first to arrive is edge e with probability p_e over the sum of all, and the same holds again for the
    rest, because exponential times forget. So edges go from the largest time down; equal times by edge id. The keys
    are compared as logarithms, which do not overflow. O(M log M) after the resistances.

    References
    ----------
    arXiv 0803.0929 for the scores; arXiv 2211.16494, section 5, for the comparison; the race: derived here.

    Examples
    --------
    >>> from rankdiag.graphs import spectral_order
    >>> triangle_with_tail = [[0, 1, 1, 2, 2, 0, 2, 3], [1, 0, 2, 1, 0, 2, 3, 2]]
    >>> spectral_order(triangle_with_tail, uniforms=[0.5, 0.6, 0.4, 0.45]).tolist()
    [2, 0, 3, 1]
    """
    edges = normalise(graph, num_nodes=num_nodes, warn=weights is None)
    w = edge_weights(weights, edges, "weights")
    generator, _ = as_generator(rng)
    if resistances is None:
        from rankdiag.graphs._resistances import effective_resistances

        r = effective_resistances(edges, weights=w, rng=generator)
    else:
        r = edge_weights(resistances, edges, "resistances")
    if uniforms is None:
        u = 1.0 - generator.random(edges.num_edges)  # in (0, 1]
    else:
        u = _entries(uniforms, edges, "uniforms")
        if ((u <= 0) | (u > 1)).any():
            raise ValueError(f"`uniforms` must lie in (0, 1]; got {float(u[(u <= 0) | (u > 1)][0])!r}")
    with np.errstate(divide="ignore"):  # U = 1 arrives at time 0, whose logarithm is -inf
        key = np.log(-np.log(u)) - np.log(w) - np.log(r)
    return np.argsort(-key, kind="stable").astype(np.int64, copy=False)


def _entries(values: Any, graph: EdgeList, name: str) -> NDArray[np.float64]:
    array = as_float64(values, name, ndim=1, allow_empty=True, expected="one number for each edge (M,)")
    if array.shape != (graph.num_edges,):
        raise ValueError(
            f"`{name}` must hold one number for each of the {graph.num_edges} edges, by edge id; got shape "
            f"{array.shape}"
        )
    return array


def edge_weights(values: Any, graph: EdgeList, name: str) -> NDArray[np.float64]:
    """Check positive numbers by edge id; None stands for 1 everywhere.

    Raises
    ------
    ValueError
        If the shape is not (M,), or an entry is not above 0 with a finite reciprocal.
    """
    if values is None:
        return np.ones(graph.num_edges)
    array = _entries(values, graph, name)
    bad = array < np.finfo(np.float64).tiny
    if bad.any():
        raise ValueError(
            f"`{name}` must be above 0 (at least 2.3e-308); got {float(array[bad][0])!r} at edge {int(bad.argmax())}"
        )
    return array


def ugs_prune_step(mask: Any, fraction: float, num_original_edges: int) -> NDArray[np.int64]:
    """Return the edges that one pruning step on a trained edge mask removes.

    Parameters
    ----------
    mask : array-like or torch.Tensor, shape (num_original_edges,)
        Trained weight of each undirected edge; 0 marks an edge that was pruned before.
    fraction : float
        Share of the original edges to prune in this step, in [0, 1]; 0.05 in the published code of the comparison.
    num_original_edges : int
        Undirected edges of the graph before any pruning.

    Returns
    -------
    ndarray of int64
        Ids of the edges removed now, ascending; an edge pruned before is never among them.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `mask` has not one finite entry for each original edge, or `fraction` is outside [0, 1].

    Notes
    -----
    The threshold is the entry at place ``int(num_original_edges * fraction)``, counted from 0, of the sorted absolute
    weights that are not 0 (the last if there are fewer), and edges at or below it go. So a step removes one edge more
    than the fraction says, and more on ties; `fraction` 0 removes the smallest. This is how the published code
    counts. O(M log M).

    References
    ----------
    arXiv 2102.06790 for the method; arXiv 2211.16494, section 5, prunes edges alone.

    Examples
    --------
    >>> from rankdiag.graphs import ugs_prune_step
    >>> ugs_prune_step([0.9, -0.1, 0.0, 1.2, 0.3], 0.2, 5).tolist()
    [1, 4]
    """
    count = integer(num_original_edges, "num_original_edges", low=0)
    share = real(fraction, "fraction", low=0.0, high=1.0)
    size = np.abs(as_float64(mask, "mask", ndim=1, allow_empty=True, expected="one weight for each edge (M,)"))
    if len(size) != count:
        raise ValueError(
            f"`mask` must hold one entry for each of the {count} original edges, 0 for a pruned one; got {len(size)}"
        )
    alive = np.sort(size[size > 0])
    if not len(alive):
        return np.zeros(0, np.int64)
    threshold = alive[min(int(count * share), len(alive) - 1)]
    return np.flatnonzero((size > 0) & (size <= threshold)).astype(np.int64, copy=False)

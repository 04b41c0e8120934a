"""Effective resistances of edges: exact by dense factors, or estimated by random projections and sparse solves."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._rng import as_generator
from rankdiag._validate import choice
from rankdiag.graphs._baselines import edge_weights
from rankdiag.graphs._edges import EdgeList, normalise

__all__ = ["effective_resistances"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_DENSE = 5000  # vertices of a block up to which "auto" is exact
_PROJECTIONS = 200  # relative standard deviation sqrt(2 / 200), a tenth
_BLOCK = 40  # projections solved at once
_STEPS = 1000  # of the iteration, before a sparse factor takes over
_TOLERANCE = 1e-6  # relative residual of a solve, far below the noise of the projections


def effective_resistances(
    graph: Any,
    *,
    method: Literal["auto", "dense", "jl"] = "auto",
    weights: Any = None,
    rng: Any = None,
    num_nodes: int | None = None,
) -> Floats:
    """Return the effective resistance between the two ends of every edge.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph, undirected; see `as_edge_list`.
    method : {"auto", "dense", "jl"}
        ``"dense"`` is exact; ``"jl"`` estimates from 200 random projections; ``"auto"`` is exact on blocks (below)
        of at most 5000 vertices and estimates on larger ones.
    weights : array-like of float, shape (M,), optional
        Conductances of the edges by edge id, above 0; None takes 1.
    rng : None, int or numpy.random.Generator
        Source of randomness of the projections.
    num_nodes : int, optional
        Vertices; None takes what the input says.

    Returns
    -------
    ndarray of float64, shape (M,)
        Resistances by edge id, in units of one over a weight: ``0 < weight * resistance <= 1``, and 1 at bridges.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `graph` is not a legal undirected graph, `weights` has another shape or entries that are not above 0, the
        weights of a block differ by too much for float64, or a dense factor does not fit into memory.

    Notes
    -----
    A current between two ends of an edge stays inside their block (two edges are in one block if a cycle runs through
    both), so each block is treated alone. An edge on no cycle is a bridge, of resistance 1 / weight, without any
    solving. The Laplacian of a block is singular; with the row and column of one vertex deleted (grounded) it is not.

    *Dense*: inverse of the grounded Laplacian from its Cholesky factor, ``R = X_uu + X_vv - 2 X_uv``; O(n^3) time and
    8 n^2 bytes for the largest block. Each block is checked by Foster's theorem: the sum of weight times resistance is
    n - 1.

    *Projections*: with signs q drawn at random, ``(x_u - x_v)^2`` averaged over 200 solutions of
    ``L x = B^T W^(1/2) q`` has expectation R_uv and a relative standard deviation of at most sqrt(2 / 200) = 0.10. Each
    estimate is then cut to what is certain: at most 1 / weight, and at least the resistance left when all other
    vertices are joined to one. On Cora the relative error was 0.075 (root mean square), 0.35 at most. Solves are by
    conjugate gradients with the diagonal as preconditioner, by a sparse factor if 1000 steps do not suffice.
    O(200 * steps * (n + M)) time, O(40 (n + M)) memory.

    References
    ----------
    arXiv 0803.0929 (resistances as scores, random projections); the blocks, the cut of the estimates and the check:
    derived here.

    Examples
    --------
    >>> from rankdiag.graphs import effective_resistances
    >>> triangle_with_tail = [[0, 1, 1, 2, 2, 0, 2, 3], [1, 0, 2, 1, 0, 2, 3, 2]]
    >>> effective_resistances(triangle_with_tail).round(6).tolist()
    [0.666667, 0.666667, 0.666667, 1.0]
    """
    way = choice(method, "method", ("auto", "dense", "jl"))
    edges = normalise(graph, num_nodes=num_nodes, warn=weights is None)
    w = edge_weights(weights, edges, "weights")
    generator, _ = as_generator(rng)
    found = 1.0 / w
    for ids in _blocks(edges):
        vertices, place = np.unique(edges.edges[ids], return_inverse=True)
        place = place.reshape(-1, 2)
        u, v = place[:, 0], place[:, 1]
        top = float(w[ids].max())
        c = w[ids] / top
        if way == "dense" or (way == "auto" and len(vertices) <= _DENSE):
            values = _dense(u, v, c, len(vertices))
        else:
            values = _projected(u, v, c, len(vertices), generator)
        with np.errstate(over="ignore"):
            found[ids] = np.minimum(values / top, found[ids])
    return found


def _blocks(graph: EdgeList) -> list[Ints]:
    """Return the edge ids, ascending, of every block with more than one edge; all other edges are bridges.

    Two edges are in one block if a cycle runs through both. Along a depth-first search from a root, joined to one
    vertex of each component, a tree edge (p, x) opens a block if no edge leads from below x to above p.
    """
    if not graph.num_edges:
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, depth_first_order

    used, ends = np.unique(graph.edges, return_inverse=True)  # isolated vertices cost nothing
    n = len(used)
    u, v = ends.reshape(-1, 2).T
    joined = coo_array((np.ones(len(u), np.int8), (u, v)), shape=(n, n))
    _, first = np.unique(connected_components(joined, directed=False)[1], return_index=True)
    root = np.full(len(first), n)
    source, target = np.concatenate((u, v, root, first)), np.concatenate((v, u, first, root))
    matrix = coo_array((np.ones(len(source), np.int8), (source, target)), shape=(n + 1, n + 1)).tocsr()
    order, parent = depth_first_order(matrix, n)
    number = np.empty(n + 1, np.int64)
    number[order] = np.arange(n + 1)
    deep = np.where(number[u] > number[v], u, v)
    high = np.where(number[u] > number[v], v, u)
    lowest = number.copy()
    back = parent[deep] != high
    np.minimum.at(lowest, deep[back], number[high[back]])
    low, up, rank = lowest.tolist(), parent.tolist(), number.tolist()
    order = order[1:].tolist()
    for x in reversed(order):
        if low[x] < low[up[x]]:
            low[up[x]] = low[x]
    block = list(range(n + 1))
    for x in order:
        if low[x] < rank[up[x]]:
            block[x] = block[up[x]]
    label = np.array(block)[deep]
    ids = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[ids])) + 1
    return [part for part in np.split(ids, cuts) if len(part) > 1]


def _dense(u: Ints, v: Ints, c: Floats, n: int) -> Floats:
    from scipy import linalg

    lapack: Any = linalg.lapack
    refuse_size(n * n, "graph", (n, n))
    laplacian = np.zeros((n, n), order="F")
    laplacian[u, v] = -c
    laplacian[v, u] = -c
    degree = np.bincount(u, c, n) + np.bincount(v, c, n)
    laplacian[np.arange(n), np.arange(n)] = degree
    ground = int(degree.argmax())
    laplacian[ground, :] = 0.0
    laplacian[:, ground] = 0.0
    laplacian[ground, ground] = 1.0
    inverse, info = lapack.dpotrf(laplacian, lower=1, overwrite_a=1)
    if info == 0:
        inverse, info = lapack.dpotri(inverse, lower=1, overwrite_c=1)
    if info != 0:
        raise _too_wide(c)
    diagonal = np.diagonal(inverse).copy()
    diagonal[ground] = 0.0
    found: Floats = diagonal[u] + diagonal[v] - 2.0 * inverse[np.maximum(u, v), np.minimum(u, v)]
    if not abs(float(c @ found) - (n - 1)) <= 1e-6 * n or not (found > 0).all():
        raise _too_wide(c)
    return found


def _too_wide(c: Floats) -> ValueError:
    return ValueError(
        f"`weights` of one block differ by a factor of {1 / float(c.min()):.2g}, too much for float64 here; scale "
        "or drop the smallest"
    )


def _projected(u: Ints, v: Ints, c: Floats, n: int, rng: np.random.Generator) -> Floats:
    from scipy.sparse import coo_array

    degree: Floats = np.bincount(u, c, n).astype(np.float64) + np.bincount(v, c, n)
    free = np.arange(n) != int(degree.argmax())
    rows = np.concatenate((u, v, np.arange(n)))
    columns = np.concatenate((v, u, np.arange(n)))
    whole = coo_array((np.concatenate((-c, -c, degree)), (rows, columns)), shape=(n, n)).tocsr()
    grounded = whole[free][:, free]
    root = np.sqrt(c)
    total = np.zeros(len(u))
    factor: Any = None
    ends = coo_array(
        (np.repeat([1.0, -1.0], len(u)), (np.concatenate((u, v)), np.tile(np.arange(len(u)), 2))), shape=(n, len(u))
    ).tocsr()
    for start in range(0, _PROJECTIONS, _BLOCK):
        count = min(_BLOCK, _PROJECTIONS - start)
        q = np.where(rng.random((len(u), count)) < 0.5, -root[:, None], root[:, None])
        right = (ends @ q)[free]
        solved = None if factor is not None else _conjugate_gradients(grounded, degree[free], right)
        if solved is None:
            factor = factor or _factor(grounded, c)
            solved = factor.solve(right)
        x = np.zeros((n, count))
        x[free] = solved
        total += np.square(x[u] - x[v]).sum(axis=1)
    found = total / _PROJECTIONS
    left, right_ = degree[u] - c, degree[v] - c  # every vertex of a block has a second edge
    both = left + right_
    low = 1.0 / (c + np.divide(left * right_, both, out=np.zeros_like(both), where=both > 0))
    return np.clip(found, low, 1.0 / c)


def _conjugate_gradients(matrix: Any, diagonal: Floats, right: Floats) -> Floats | None:
    """Solve for all columns at once; None if the residuals are not small enough after the last step."""
    x = np.zeros_like(right)
    r = right.copy()
    z = r / diagonal[:, None]
    p = z.copy()
    rho = np.einsum("ij,ij->j", r, z)
    goal = _TOLERANCE**2 * rho
    for _ in range(_STEPS):
        moved = matrix @ p
        below = np.einsum("ij,ij->j", p, moved)
        alpha = np.divide(rho, below, out=np.zeros_like(rho), where=below > 0)
        x += alpha * p
        moved *= alpha
        r -= moved
        np.divide(r, diagonal[:, None], out=z)
        fresh = np.einsum("ij,ij->j", r, z)
        if (fresh <= goal).all():
            return x
        p *= np.divide(fresh, rho, out=np.zeros_like(rho), where=rho > 0)
        p += z
        rho = fresh
    return None


def _factor(matrix: Any, c: Floats) -> Any:
    from scipy.sparse.linalg import splu

    try:
        return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # singular in float64
        raise _too_wide(c) from None

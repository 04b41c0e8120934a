"""Walk index of partitions: how many walks start where the two sides of a cut meet."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._validate import choice
from rankdiag.graphs._adjacency import adjacency, as_subset, as_vertex
from rankdiag.graphs._closed_walks import closed_walk_counts
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._partitions import as_partitions, partition_totals
from rankdiag.graphs._walk_counts import as_depth, boundary_mask, count_walks, log_of, walk_counts

__all__ = [
    "boundary_mask",
    "log_walk_index",
    "partition_boundary",
    "singleton_walk_indices",
    "walk_counts",
    "walk_index",
    "walk_index_share",
    "walk_indices",
]


def partition_boundary(
    graph: Any, subset: Any, *, directed: bool = False, num_nodes: int | None = None
) -> NDArray[np.int64] | list[Any]:
    """Return the vertices where the two sides of a partition meet.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side; node labels for a networkx graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    ndarray of int64, or list of node labels
        Both ends of every edge that crosses, ascending; of a directed edge its target alone. Of a networkx graph the
        labels, in the order of its nodes.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), or `subset` names a vertex twice or one that is not there.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    One pass over the edges. A vertex is in the boundary if it receives a message from the other side. An empty side
    has an empty boundary.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, section 3.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import partition_boundary
    >>> partition_boundary([[0, 1, 1, 2], [1, 0, 2, 1]], [0]).tolist()
    [0, 1]
    >>> partition_boundary(nx.path_graph(["a", "b", "c"]), ["a"])
    ['a', 'b']
    """
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    places = np.flatnonzero(boundary_mask(listed, as_subset(subset, listed)))
    return places if listed.labels is None else [listed.labels[place] for place in places.tolist()]


def walk_index(
    graph: Any,
    subset: Any,
    depth: int,
    *,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> int:
    r"""Count the walks that start where the two sides of a partition meet.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side; node labels for a networkx graph.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant, so that only walks which end there count; None is a prediction for the graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    int
        Exact, of any size; 0 where no edge crosses.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, or a vertex is not in the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    :math:`\mathrm{WI}_{L-1}(I) = 1_C^\top A^{L-1} 1`, or :math:`1_C^\top A^{L-1} e_t`, with C the boundary and A the
    adjacency with a loop at every vertex. O(L (n + E)) time and O(n + E) memory while 64 bits hold every number, and
    both times the number of 64-bit words that they need beyond.

    Compare partitions of one graph at one depth: the larger the walk index, the better a network of this depth can
    relate the two sides. It is no logarithm of a rank.

    References
    ----------
    Razin, Verbin, Cohen, "On the Ability of Graph Neural Networks to Model Interactions Between Vertices", arXiv
    2211.16494, section 4.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import walk_index
    >>> barbell = nx.barbell_graph(8, 0)
    >>> walk_index(barbell, range(8), 3), walk_index(barbell, range(0, 16, 2), 3)
    (148, 1058)
    >>> walk_index(barbell, range(8), 3, target=0)
    9
    """
    layers = as_depth(depth)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    side = as_subset(subset, listed)
    goal = None if target is None else as_vertex(target, listed)
    return count_walks(listed, layers - 1, goal).total(boundary_mask(listed, side))


def walk_indices(
    graph: Any,
    subsets: Any,
    depth: int,
    *,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> list[int]:
    """Return the walk index of many partitions of one graph; walks are counted once.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subsets : ndarray of bool (P, n), or iterable of subsets
        One side of every partition: masks, or what `walk_index` takes as `subset`.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    list of int
        Exact, one for each partition, in order.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, or a vertex is not in the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    64 partitions share a word: their boundaries are one bitwise reduction over the edges, O(P E / 64) operations on
    words, and the sums one product of the boundaries with the walk counts. Memory beyond the input stays at some tens
    of megabytes, whatever the number of partitions.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4.

    Examples
    --------
    >>> from rankdiag.graphs import walk_indices
    >>> path = [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    >>> walk_indices(path, [[0], [0, 1], [0, 2], []], 3)
    [13, 16, 26, 0]
    """
    layers = as_depth(depth)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    goal = None if target is None else as_vertex(target, listed)
    blocks = as_partitions(subsets, listed)
    return partition_totals(listed, blocks, count_walks(listed, layers - 1, goal))[0]


def log_walk_index(
    graph: Any,
    subset: Any,
    depth: int,
    *,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> float:
    """Return the natural logarithm of `walk_index`.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side; node labels for a networkx graph.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    float
        In nats; minus infinity where no edge crosses.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, or a vertex is not in the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    The logarithm of the exact count, so that a small component beside a large one keeps its value at any depth.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4.

    Examples
    --------
    >>> from rankdiag.graphs import log_walk_index
    >>> round(log_walk_index([[0, 1], [1, 0]], [0], 300), 6)  # 300 ln 2
    207.944154
    """
    return log_of(walk_index(graph, subset, depth, target=target, directed=directed, num_nodes=num_nodes))


def walk_index_share(
    graph: Any,
    subset: Any,
    depth: int,
    *,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> float:
    """Return the part of all walks that start where the two sides of a partition meet.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    subset : iterable of int, ndarray of bool (n,), or iterable of node labels
        One side; node labels for a networkx graph.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    float
        Between 0 and 1. Near 1 the network mixes the two sides freely; at a few per cent expect it to fit interactions
        across this partition poorly, whatever its width. 0 for a graph without vertices.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, or a vertex is not in the graph.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    The walk index over the number of all walks of its length, or of all that end at `target` (derived here). The
    quotient of the exact counts, rounded once.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4, for the walk index.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import walk_index_share
    >>> round(walk_index_share(nx.barbell_graph(8, 0), range(8), 3), 4)
    0.1399
    """
    layers = as_depth(depth)
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    side = as_subset(subset, listed)
    goal = None if target is None else as_vertex(target, listed)
    counts = count_walks(listed, layers - 1, goal)
    every = counts.total()
    return counts.total(boundary_mask(listed, side)) / every if every else 0.0


def singleton_walk_indices(
    graph: Any,
    depth: int,
    *,
    prediction: Literal["graph", "vertex"],
    directed: bool = False,
    num_nodes: int | None = None,
) -> NDArray[Any]:
    r"""Return the walk index of every single vertex against all others.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    depth : int
        Number L of layers of the GNN, 1 to 10,000; walks have length L - 1.
    prediction : {"graph", "vertex"}
        Whether the network predicts for the whole graph, or at the vertex itself.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    ndarray of int64 or object, shape (n,)
        Exact counts in vertex order; Python ints (dtype object) where 64 bits do not hold all of them. 0 where no
        other vertex is a neighbour.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, or `prediction` is no such word.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    For an undirected graph these are :math:`(A^L 1)_t` and :math:`(A^L)_{tt}` where t has a neighbour (derived here):
    the first takes one walk count, O(L (n + E)). The second is the dot product of a row of
    :math:`A^{\lfloor L/2\rfloor}` with a column of :math:`A^{\lceil L/2\rceil}`, taken for some rows at a time; the
    cost follows the number of vertices within L/2 steps. Vertices that no message reaches count 0 there.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4.

    Examples
    --------
    >>> from rankdiag.graphs import singleton_walk_indices
    >>> star = [[0, 0, 0, 1, 2, 3], [1, 2, 3, 0, 0, 0]]
    >>> singleton_walk_indices(star, 2, prediction="graph").tolist()
    [10, 6, 6, 6]
    >>> singleton_walk_indices(star, 3, prediction="vertex", num_nodes=5).tolist()
    [10, 4, 4, 4, 0]
    """
    layers = as_depth(depth)
    kind: str = choice(prediction, "prediction", ("graph", "vertex"))
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    if kind == "vertex":
        return closed_walk_counts(listed, layers)
    return _singleton_totals(listed, layers)


def _singleton_totals(listed: EdgeList, layers: int) -> NDArray[Any]:
    """Add walk counts over the boundary of each vertex: itself if a message reaches it, and those it sends one to."""
    matrix = adjacency(listed)
    counts = count_walks(listed, layers - 1, matrix=matrix)
    reached = np.zeros(listed.num_nodes, bool)
    reached[listed.edges[:, 1]] = True
    if not listed.directed:
        reached[listed.edges[:, 0]] = True
    widest = int(np.diff(matrix.indptr).max(initial=0)) + 1
    if counts.limbs.shape[1] == 1 and int(counts.limbs.max(initial=0)) * widest < 2**63:
        walks = counts.limbs[:, 0]
        fits: NDArray[np.int64] = np.where(reached, walks, 0) + matrix @ walks
        return fits
    total = [0] * listed.num_nodes
    for place in range(counts.limbs.shape[1]):
        digits = counts.limbs[:, place]
        for half, shift in ((digits & (2**32 - 1), 0), (digits >> 32, 32)):  # sums of up to 2^31 halves fit
            sums = (np.where(reached, half, 0) + matrix @ half).tolist()
            total = [t + (s << (counts.bits * place + shift)) for t, s in zip(total, sums, strict=True)]
    return _as_array(total)


def _as_array(numbers: list[int]) -> NDArray[Any]:
    if max(numbers, default=0) < 2**63:
        return np.array(numbers, np.int64)
    array = np.empty(len(numbers), object)
    array[:] = numbers
    return array

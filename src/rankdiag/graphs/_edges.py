"""One way in for graphs: whatever a person has becomes an `EdgeList`, checked once.

Accepted are (2, E) integer arrays and tensors, scipy sparse matrices, networkx graphs, PyTorch Geometric's `Data`, and
an `EdgeList` itself. No framework is imported to find out what arrived.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import MemberDescriptorType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch, refuse_size
from rankdiag._optional import is_loaded
from rankdiag._validate import RankdiagWarning, boolean, describe, integer

__all__ = [
    "EdgeList",
    "GraphColumns",
    "as_edge_list",
    "canonical_edges",
    "graph_columns",
    "is_networkx",
    "is_pyg",
    "normalise",
]

Ints = NDArray[np.int64]

_FORMS = (
    "a (2, E) array of vertex ids, a scipy sparse (n, n) matrix, a networkx Graph or DiGraph, a PyTorch Geometric Data "
    "or an EdgeList"
)
_ARRAYS = 16  # every reading holds several numbers for each vertex
_MOST_NODES = 3_000_000_000  # an ordered pair of vertices still fits into 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class EdgeList:
    """The simple graph behind an input: its canonical edges, and which input column belongs to which.

    Attributes
    ----------
    num_nodes : int
        Vertices; ids are 0 to ``num_nodes - 1``.
    edges : ndarray of int64, shape (M, 2)
        Canonical edges: self-loops are dropped, and of the columns of one edge the first is kept, in the order and in
        the direction of that first column. The row number is the edge id.
    column_edge : ndarray of int64, shape (E,)
        Edge id of every input column; -1 for self-loops.
    directed : bool
        Whether (u, v) and (v, u) are two edges.
    labels : tuple or None
        Node labels of a networkx graph in vertex order; None for everything else.

    Examples
    --------
    >>> from rankdiag.graphs import as_edge_list
    >>> graph = as_edge_list([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])
    >>> graph
    EdgeList(3 vertices, 2 undirected edges, 5 columns)
    >>> graph.edges.tolist(), graph.column_edge.tolist()
    ([[0, 1], [1, 2]], [0, 0, 1, 1, -1])
    """

    num_nodes: int
    edges: Ints
    column_edge: Ints
    directed: bool = False
    labels: tuple[Any, ...] | None = None

    @property
    def num_edges(self) -> int:
        """Number of canonical edges M."""
        return len(self.edges)

    def __repr__(self) -> str:
        kind = "directed" if self.directed else "undirected"
        return f"EdgeList({self.num_nodes} vertices, {self.num_edges} {kind} edges, {len(self.column_edge)} columns)"


@dataclass(frozen=True, slots=True, eq=False)
class GraphColumns:
    """The columns of an input as they came: sources, targets, and how many vertices there are."""

    source: Ints
    target: Ints
    num_nodes: int
    labels: tuple[Any, ...] | None = None


def as_edge_list(graph: Any, *, directed: bool = False, num_nodes: int | None = None) -> EdgeList:
    """Turn any accepted graph into an `EdgeList`.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        Row 0 holds sources, row 1 targets. The columns of a sparse matrix are its stored entries in CSR order; those of
        a networkx graph are ``list(G.edges())``, followed by the same list reversed if it is undirected. Self-loops and
        duplicate columns are legal. An `EdgeList` is returned as it is.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    EdgeList
        Canonical edges and the edge id of every column.

    Raises
    ------
    TypeError
        If `graph` is of no accepted kind, or its ids are no integers.
    ValueError
        If its shape is not (2, E), an id is negative or not below `num_nodes`, a reverse column is missing, a networkx
        graph is a multigraph, or `directed` contradicts an `EdgeList`.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    O(E log E) time for one sort, about 32 bytes a column while it runs and 16 after it.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import as_edge_list
    >>> as_edge_list(nx.path_graph(["a", "b", "c"])).labels
    ('a', 'b', 'c')
    """
    return normalise(graph, directed=directed, num_nodes=num_nodes)


def normalise(graph: Any, *, directed: bool = False, num_nodes: int | None = None, warn: bool = True) -> EdgeList:
    """As `as_edge_list`; `warn=False` says nothing about weights, for callers that carry them along."""
    two_way = not boolean(directed, "directed")
    if isinstance(graph, EdgeList):
        if graph.directed and two_way:
            return _same_count(graph, num_nodes)  # it says itself what it is
        if not graph.directed and not two_way:
            raise ValueError(
                "`directed` is True, but this EdgeList was made with directed=False; make one from the columns"
            )
        return _same_count(graph, num_nodes)
    columns = graph_columns(graph, num_nodes=num_nodes, warn=warn)
    return canonical_edges(columns, directed=not two_way)


def _same_count(graph: EdgeList, num_nodes: int | None) -> EdgeList:
    if num_nodes is not None and integer(num_nodes, "num_nodes", low=0) != graph.num_nodes:
        raise ValueError(f"`num_nodes` must be {graph.num_nodes}, as the EdgeList says; got {num_nodes}")
    return graph


def graph_columns(graph: Any, *, num_nodes: int | None = None, warn: bool = True) -> GraphColumns:
    """Read the columns of any accepted graph but an `EdgeList`; see `as_edge_list`."""
    count = None if num_nodes is None else integer(num_nodes, "num_nodes", low=0, high=_MOST_NODES)
    if is_networkx(graph):
        return _from_networkx(graph, count, warn)
    if is_loaded("scipy.sparse"):
        import scipy.sparse

        if scipy.sparse.issparse(graph):
            return _from_scipy(graph, count, warn)
    if is_pyg(graph):
        return _from_pyg(graph, count, warn)
    source, target = _rows(graph)
    return _checked(source, target, count)


def is_networkx(graph: Any) -> bool:
    """Whether `graph` is a graph of networkx or of one of its backends, as its class says."""
    if not is_loaded("networkx"):
        return False
    import networkx

    return isinstance(graph, networkx.Graph) or hasattr(type(graph), "__networkx_backend__")


def is_pyg(graph: Any) -> bool:
    """Whether `graph` is a Data, Batch or HeteroData of PyTorch Geometric, as the module of its class says."""
    return any(base.__module__.startswith("torch_geometric.data.") for base in type(graph).__mro__)


def _rows(graph: Any) -> tuple[Ints, Ints]:
    """Read a (2, E) array or tensor of integers."""
    if is_torch(graph):
        import torch

        if graph.layout != torch.strided:
            raise TypeError(f"`graph` must be a dense (2, E) tensor; got layout {graph.layout}. Pass its indices()")
        if graph.is_floating_point() or graph.is_complex() or graph.dtype == torch.bool:
            raise TypeError(f"`graph` must hold integer vertex ids; got dtype {graph.dtype}")
        if graph.device.type == "meta":
            raise ValueError("`graph` is on the meta device and has no vertex ids; load it first")
        array: Any = graph.detach().cpu().numpy()
    else:
        if (
            isinstance(graph, (str, bytes, dict, set, frozenset))
            or graph is None
            or isinstance(graph, np.ma.MaskedArray)
        ):
            hint = ". Files are read with read_graph of rankdiag.adapters" if isinstance(graph, str) else ""
            raise TypeError(f"`graph` must be {_FORMS}; got {describe(graph)}{hint}")
        slot = getattr(type(graph), "edges", None)
        if isinstance(slot, MemberDescriptorType) and isinstance(slot.__get__(graph), EdgeList):  # a GraphFile
            raise TypeError(f"`graph` must be {_FORMS}; got {describe(graph)}. Pass its .edges")
        try:
            array = np.asarray(graph)
        except ValueError:
            raise ValueError("`graph` must have shape (2, E); got rows of different lengths") from None
        except Exception as error:  # __array__ of a foreign type may raise anything
            raise TypeError(f"`graph` must be {_FORMS}; got {describe(graph)}") from error
    if array.size == 0 and array.ndim == 2 and array.shape[0] == 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"`graph` must be {_FORMS}; got {describe(graph)} of dtype {array.dtype}")
    if array.ndim != 2 or array.shape[0] != 2:
        hint = "; transpose it" if array.ndim == 2 and array.shape[1] == 2 else ""
        raise ValueError(f"`graph` must have shape (2, E), sources above targets; got shape {array.shape}{hint}")
    refuse_size(array.size, "graph", array.shape)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and int(array.max()) >= 2**63:
        raise ValueError(f"`graph` must hold vertex ids below {_MOST_NODES}; got {int(array.max())}")
    return array[0].astype(np.int64, copy=False), array[1].astype(np.int64, copy=False)


def _checked(source: Ints, target: Ints, num_nodes: int | None) -> GraphColumns:
    if not len(source):
        _refuse_vertices(num_nodes or 0)
        return GraphColumns(source, target, num_nodes or 0)
    low = min(int(source.min()), int(target.min()))
    high = max(int(source.max()), int(target.max()))
    if low < 0:
        raise ValueError(f"`graph` holds a negative vertex id, {low}; ids start at 0")
    if high >= _MOST_NODES:
        raise ValueError(f"`graph` must hold vertex ids below {_MOST_NODES}; got {high}")
    if num_nodes is not None and high >= num_nodes:
        raise ValueError(f"`num_nodes` must be above every vertex id; got {num_nodes}, and `graph` holds vertex {high}")
    count = high + 1 if num_nodes is None else num_nodes
    _refuse_vertices(count)
    return GraphColumns(source, target, count)


def _refuse_vertices(count: int) -> None:
    refuse_size(_ARRAYS * count, "graph", (_ARRAYS, count))


def _from_scipy(graph: Any, num_nodes: int | None, warn: bool) -> GraphColumns:
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        raise ValueError(f"`graph` must be a square (n, n) adjacency matrix; got shape {tuple(graph.shape)}")
    size = int(graph.shape[0])
    if num_nodes is not None and num_nodes != size:
        raise ValueError(f"`num_nodes` must be {size}, the size of the matrix; got {num_nodes}")
    _refuse_vertices(size)
    rows = graph.tocsr()
    if warn:
        _warn_of_weights(rows.data)
    source = np.repeat(np.arange(size, dtype=np.int64), np.diff(rows.indptr))
    return GraphColumns(source, rows.indices.astype(np.int64), size)


def _from_networkx(graph: Any, num_nodes: int | None, warn: bool) -> GraphColumns:
    import networkx

    if graph.is_multigraph():
        raise ValueError("`graph` must not be a multigraph; make a networkx.Graph or DiGraph of it, which merges edges")
    labels = tuple(graph.nodes)
    if num_nodes is not None and num_nodes != len(labels):
        raise ValueError(f"`num_nodes` must be {len(labels)}, the number of nodes of the graph; got {num_nodes}")
    place = {label: index for index, label in enumerate(labels)}
    pairs = np.array([(place[u], place[v]) for u, v in graph.edges()], dtype=np.int64).reshape(-1, 2)
    if warn:
        weights = networkx.get_edge_attributes(graph, "weight")
        if any(value != 1 for value in weights.values()):
            _warn_of_weights(None)
    source, target = pairs[:, 0], pairs[:, 1]
    if not graph.is_directed():
        source, target = np.concatenate((source, target)), np.concatenate((target, source))
    return GraphColumns(np.ascontiguousarray(source), np.ascontiguousarray(target), len(labels), labels)


def _from_pyg(graph: Any, num_nodes: int | None, warn: bool) -> GraphColumns:
    if not hasattr(graph, "is_directed") or hasattr(graph, "edge_types"):
        raise TypeError("`graph` must be homogeneous; pass the edge_index of one edge type of a HeteroData")
    index = getattr(graph, "edge_index", None)
    if index is None and getattr(graph, "adj_t", None) is not None:
        index = _transposed_columns(graph.adj_t)
    if index is None:
        index = np.zeros((2, 0), np.int64)
    own = graph.num_nodes if num_nodes is None or "num_nodes" in graph else None  # PyG warns where it has to guess
    if num_nodes is not None and own is not None and num_nodes != own:
        raise ValueError(f"`num_nodes` must be {own}, as the Data says; got {num_nodes}")
    weight = getattr(graph, "edge_weight", None)
    if warn and weight is not None:
        _warn_of_weights(weight.detach().cpu().double().numpy())
    return _checked(*_rows(index), own if num_nodes is None else num_nodes)


def _transposed_columns(adj_t: Any) -> Any:
    """Read the columns of PyG's transposed adjacency, a torch sparse tensor or a SparseTensor of torch_sparse."""
    if is_torch(adj_t):
        target, source = adj_t.to_sparse_coo().coalesce().indices()
    else:
        target, source, _ = adj_t.coo()
    return np.stack((source.detach().cpu().numpy(), target.detach().cpu().numpy()))


def _warn_of_weights(values: Any) -> None:
    if values is None or (len(values) and bool(np.any(np.asarray(values) != 1))):
        warnings.warn(
            "`graph` has weights other than 1; walk counts use the edges alone and ignore them",
            RankdiagWarning,
            stacklevel=2,
        )


def canonical_edges(columns: GraphColumns, *, directed: bool) -> EdgeList:
    """Find the simple graph behind columns: which are loops, which repeat, and that reverses are there.

    Raises
    ------
    ValueError
        If the graph is undirected and a column has no reverse; the message names the first.
    """
    source, target, n = columns.source, columns.target, columns.num_nodes
    column_edge = np.full(len(source), -1, np.int64)
    kept = (source != target).nonzero()[0]
    loops = len(kept) != len(source)
    s, t = (source.take(kept), target.take(kept)) if loops else (source, target)
    if not len(kept):
        return EdgeList(n, np.zeros((0, 2), np.int64), column_edge, directed, columns.labels)
    if not loops:
        kept = np.zeros(0, np.int64)
    key, order = _sorted_keys(s, t, n, directed)
    fresh = np.empty(len(key), bool)
    fresh[0] = True
    back = None if directed else (key & 1).astype(bool)
    if back is not None:
        key >>= 1
    np.not_equal(key[1:], key[:-1], out=fresh[1:])
    del key
    starts = fresh.nonzero()[0]
    if back is not None:
        _require_both_ways(s, t, order, starts, back, columns.labels)
        back = None
    first = np.minimum.reduceat(order, starts)  # the first column of each edge
    chosen = np.zeros(len(order), bool)
    chosen[first] = True
    rank = chosen.cumsum(dtype=order.dtype).take(first)
    rank -= 1
    del first
    size = np.diff(starts, append=len(order))
    del starts, fresh
    column_edge[kept.take(order) if loops else order] = rank.repeat(size)
    del order, rank, size
    place = chosen.nonzero()[0]
    edges = np.empty((len(place), 2), np.int64)
    np.take(s, place, out=edges[:, 0])
    np.take(t, place, out=edges[:, 1])
    for array in (edges, column_edge):
        array.flags.writeable = False
    return EdgeList(n, edges, column_edge, directed, columns.labels)


def _sorted_keys(source: Ints, target: Ints, n: int, directed: bool) -> tuple[Ints, Ints]:
    """Sort the columns by pairs of vertices; return numbers of the pairs, and columns in any order inside a pair.

    The number of an undirected pair, below n (n - 1), ends with a bit that is 1 if the smaller vertex is the target.
    Where a number and its column fit into 63 bits together, one sort of these is all it takes.
    """
    if directed:
        key = source * n
        key += target
    else:
        key = np.maximum(source, target)
        key *= key - 1
        key += 2 * np.minimum(source, target)
        key |= source > target
    wide = len(key).bit_length()
    narrow: Any = np.int32 if len(key) < 2**31 else np.int64
    if (n * n).bit_length() + wide <= 63:
        key <<= wide
        key |= np.arange(len(key))
        key.sort()
        order = (key & ((1 << wide) - 1)).astype(narrow)
        key >>= wide
        return key, order
    order = key.argsort()
    key = key[order]
    return key, order.astype(narrow)


def _require_both_ways(
    source: Ints, target: Ints, order: Ints, starts: Ints, back: NDArray[np.bool_], labels: tuple[Any, ...] | None
) -> None:
    """Refuse pairs whose sorted columns do not begin with one towards the larger vertex and end with one back."""
    alone = back[starts]
    alone[:-1] |= ~back[starts[1:] - 1]
    alone[-1] |= ~back[-1]
    if alone.any():
        column = int(np.minimum.reduceat(order, starts)[alone].min())
        ends = [int(source[column]), int(target[column])]
        edge = ", ".join(str(end) if labels is None else describe(labels[end]) for end in ends)
        raise ValueError(
            f"`directed` is False, but edge ({edge}) has no reverse column; symmetrise the graph first or pass "
            "directed=True"
        )

"""The one way in: every kind of graph gives the edge list of a dictionary filled column by column, or its error."""

from __future__ import annotations

import pickle

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_edges import canonical, first_without_reverse
from rankdiag import RankdiagWarning
from rankdiag.graphs._adjacency import adjacency, arcs, as_subset, as_vertex
from rankdiag.graphs._edges import EdgeList, GraphColumns, as_edge_list, canonical_edges, normalise

# A loop, a repeated column, both directions, in no order.
PAIRS = [(2, 0), (0, 1), (1, 1), (0, 2), (1, 0), (2, 0), (3, 1), (1, 3)]
COLUMNS = np.array(PAIRS).T
EDGES, COLUMN_EDGE = [(2, 0), (0, 1), (3, 1)], [0, 1, -1, 0, 1, 0, 2, 2]

INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
COLUMN = st.tuples(st.integers(0, 5), st.integers(0, 5))


def same(found: EdgeList, edges=EDGES, column_edge=COLUMN_EDGE, num_nodes=4, directed=False, labels=None):
    assert isinstance(found, EdgeList)
    assert (found.edges.dtype, found.column_edge.dtype) == (np.int64, np.int64)
    assert found.edges.shape == (len(edges), 2)
    assert [tuple(edge) for edge in found.edges.tolist()] == list(edges)
    assert found.column_edge.tolist() == list(column_edge)
    assert (found.num_nodes, found.num_edges, found.directed, found.labels) == (num_nodes, len(edges), directed, labels)
    assert type(found.num_nodes) is int


@given(st.lists(COLUMN, max_size=24), st.booleans(), st.integers(0, 3))
def test_columns_one_by_one(columns, directed, more):
    n = max((max(column) for column in columns), default=-1) + 1 + more
    array = np.array(columns, np.int64).reshape(-1, 2).T
    alone = first_without_reverse(columns)
    if not directed and alone is not None:
        message = rf"`directed` is False, but edge \({alone[0]}, {alone[1]}\) has no reverse column; symmetrise"
        with pytest.raises(ValueError, match=message):
            as_edge_list(array, num_nodes=n)
        return
    same(as_edge_list(array, directed=directed, num_nodes=n), *canonical(columns, directed), n, directed)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("scale", [1, 10**6, 4 * 10**7])
def test_ids_of_any_size_and_many_columns(directed, scale):
    rng = np.random.default_rng(0)
    half = rng.integers(0, 60, (500, 2)) * scale + 7
    columns = half if directed else np.concatenate((half, half[:, ::-1]))
    columns = columns[rng.permutation(len(columns))]
    pairs = [tuple(column) for column in columns.tolist()]
    edges, column_edge = canonical(pairs, directed)
    # No array of this many vertices is made here: the columns alone are read.
    source, target = np.ascontiguousarray(columns[:, 0]), np.ascontiguousarray(columns[:, 1])
    listed = canonical_edges(GraphColumns(source, target, int(columns.max()) + 1), directed=directed)
    same(listed, edges, column_edge, int(columns.max()) + 1, directed)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_arrays_of_every_integer_dtype(dtype):
    array = COLUMNS.astype(dtype)
    array.flags.writeable = False
    same(as_edge_list(array))
    same(as_edge_list(np.asfortranarray(array)))
    same(as_edge_list(array[:, ::-1][:, ::-1]))
    same(as_edge_list(array.astype(array.dtype.newbyteorder())))
    assert array.tolist() == COLUMNS.tolist()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_tensors(dtype):
    same(as_edge_list(torch.tensor(COLUMNS, dtype=dtype)))
    same(as_edge_list(torch.tensor(PAIRS, dtype=dtype).T))


def test_lists_and_memory_maps(tmp_path):
    same(as_edge_list(COLUMNS.tolist()))
    same(as_edge_list((tuple(COLUMNS[0]), tuple(COLUMNS[1]))))
    np.save(tmp_path / "graph.npy", COLUMNS.astype(np.int32))
    mapped = np.load(tmp_path / "graph.npy", mmap_mode="r", allow_pickle=False)
    same(as_edge_list(mapped, num_nodes=6), num_nodes=6)
    same(as_edge_list([[], []]), [], [], 0)
    same(as_edge_list(np.zeros((2, 0))), [], [], 0)
    same(as_edge_list(np.zeros((2, 0), np.int64), num_nodes=3), [], [], 3)
    same(as_edge_list([[1, 1], [1, 1]]), [], [-1, -1], 2)
    same(as_edge_list([[1], [0]], directed=True), [(1, 0)], [0], 2, True)


@pytest.mark.parametrize("make", ["csr_array", "csc_array", "coo_array", "csr_matrix", "csc_matrix", "coo_matrix"])
@pytest.mark.parametrize("dtype", [np.int8, np.float32, bool])
def test_sparse_matrices(make, dtype):
    matrix = getattr(scipy.sparse, make)((np.ones(7, dtype), np.array(sorted(set(PAIRS))).T), shape=(5, 5))
    ordered = sorted(set(PAIRS))  # the entries in CSR order
    same(as_edge_list(matrix), *canonical(ordered, False), 5)
    same(as_edge_list(matrix, directed=True), *canonical(ordered, True), 5, True)
    with pytest.raises(ValueError, match="`num_nodes` must be 5, the size of the matrix; got 6"):
        as_edge_list(matrix, num_nodes=6)
    with pytest.raises(ValueError, match=r"square .* got shape \(2, 5\)"):
        as_edge_list(getattr(scipy.sparse, make)((2, 5), dtype=dtype))


def test_networkx_graphs():
    graph = nx.Graph([("b", "a"), ("a", "c"), ("c", "c")])
    graph.add_node(("lonely", 1))
    listed = list(graph.edges())
    place = {label: index for index, label in enumerate(graph.nodes)}
    pairs = [(place[u], place[v]) for u, v in listed]
    both = [*pairs, *((v, u) for u, v in pairs)]
    same(as_edge_list(graph), *canonical(both, False), 4, labels=("b", "a", "c", ("lonely", 1)))
    digraph = nx.DiGraph([("x", "y"), ("y", "x"), ("y", "z")])
    same(as_edge_list(digraph, directed=True), [(0, 1), (1, 0), (1, 2)], [0, 1, 2], 3, True, ("x", "y", "z"))
    with pytest.raises(ValueError, match=r"edge \('y', 'z'\) has no reverse column"):
        as_edge_list(digraph)
    same(as_edge_list(nx.DiGraph([(0, 1), (1, 0)])), [(0, 1)], [0, 0], 2, labels=(0, 1))
    for kind in (nx.MultiGraph, nx.MultiDiGraph):
        with pytest.raises(ValueError, match="`graph` must not be a multigraph"):
            as_edge_list(kind([(0, 1)]))
    same(as_edge_list(nx.Graph()), [], [], 0, labels=())
    with pytest.raises(ValueError, match="`num_nodes` must be 4, the number of nodes of the graph; got 9"):
        as_edge_list(graph, num_nodes=9)


def test_weights_are_said_to_be_ignored():
    index = np.array([[0, 1], [1, 0]])
    weighted = [
        scipy.sparse.csr_array(([2.0, 2.0], index), shape=(2, 2)),
        nx.Graph([(0, 1, {"weight": 0.5})]),
    ]
    for graph in weighted:
        with pytest.warns(RankdiagWarning, match="`graph` has weights other than 1; .* ignore them"):
            assert as_edge_list(graph).num_edges == 1
        assert normalise(graph, warn=False).num_edges == 1
    as_edge_list(scipy.sparse.csr_array(([1.0, 1.0], index), shape=(2, 2)))
    as_edge_list(nx.Graph([(0, 1, {"weight": 1.0, "name": "x"})]))


def test_an_edge_list_is_returned_as_it_is():
    listed, arrows = as_edge_list(COLUMNS), as_edge_list(COLUMNS, directed=True)
    assert as_edge_list(listed) is listed
    assert as_edge_list(listed, num_nodes=4) is listed
    assert as_edge_list(arrows, directed=True) is arrows
    assert as_edge_list(arrows) is arrows
    with pytest.raises(ValueError, match="`directed` is True, but this EdgeList was made with directed=False"):
        as_edge_list(listed, directed=True)
    with pytest.raises(ValueError, match="`num_nodes` must be 4, as the EdgeList says; got 5"):
        as_edge_list(listed, num_nodes=5)
    assert repr(listed) == "EdgeList(4 vertices, 3 undirected edges, 8 columns)"
    assert repr(arrows) == "EdgeList(4 vertices, 6 directed edges, 8 columns)"
    same(pickle.loads(pickle.dumps(listed)))


@pytest.mark.parametrize(
    ("graph", "options", "error", "message"),
    [
        ([[0, 1, 2]], {}, ValueError, r"`graph` must have shape \(2, E\), sources above targets; got shape \(1, 3\)"),
        ([[0, 1], [1, 2], [2, 0]], {}, ValueError, r"sources above targets; got shape \(3, 2\); transpose it"),
        (np.zeros((3, 2), int), {}, ValueError, r"`graph` must have shape \(2, E\)"),
        ([[0, 1], [1]], {}, ValueError, r"`graph` must have shape \(2, E\); got rows of different lengths"),
        (np.zeros((2, 2, 2), int), {}, ValueError, r"`graph` must have shape \(2, E\)"),
        ([[0, -1], [-1, 0]], {}, ValueError, "`graph` holds a negative vertex id, -1; ids start at 0"),
        ([[0.0, 1.0], [1.0, 0.0]], {}, TypeError, "`graph` must be .*; got list of dtype float64"),
        ([[True, False], [False, True]], {}, TypeError, "of dtype bool"),
        ([["a", "b"], ["b", "a"]], {}, TypeError, "`graph` must be"),
        (torch.zeros(2, 2), {}, TypeError, "`graph` must hold integer vertex ids; got dtype torch.float32"),
        (torch.zeros((2, 2), dtype=torch.bool), {}, TypeError, "integer vertex ids"),
        (torch.zeros((2, 2), dtype=torch.int64).to_sparse(), {}, TypeError, r"dense \(2, E\) tensor"),
        (torch.zeros((2, 2), dtype=torch.int64, device="meta"), {}, ValueError, "meta device"),
        (np.array([[0, 2**63], [2**63, 0]], np.uint64), {}, ValueError, "`graph` must hold vertex ids below"),
        ([[0, 2**62], [2**62, 0]], {}, ValueError, "`graph` must hold vertex ids below"),
        (np.ma.masked_array([[0, 1], [1, 0]]), {}, TypeError, "`graph` must be"),
        (None, {}, TypeError, "`graph` must be .*; got None"),
        ("0 1", {}, TypeError, "`graph` must be .*; got '0 1'. Files are read with read_graph of rankdiag.adapters"),
        ({0: [1]}, {}, TypeError, "`graph` must be"),
        (object(), {}, TypeError, "`graph` must be"),
        (7, {}, ValueError, r"`graph` must have shape \(2, E\)"),
        (COLUMNS, {"num_nodes": 3}, ValueError, "`num_nodes` must be above every vertex id; got 3, .* vertex 3"),
        (COLUMNS, {"num_nodes": -1}, ValueError, "`num_nodes` must be an integer >= 0"),
        (COLUMNS, {"num_nodes": 4.0}, TypeError, "`num_nodes` must be an integer"),
        (COLUMNS, {"directed": 1}, TypeError, "`directed` must be True or False; got 1"),
    ],
)
def test_errors(graph, options, error, message):
    with pytest.raises(error, match=message):
        as_edge_list(graph, **options)


@given(st.lists(COLUMN, max_size=15), st.booleans())
def test_arcs_and_adjacency(columns, directed):
    pairs = columns if directed else [*columns, *((v, u) for u, v in columns)]
    listed = as_edge_list(np.array(pairs, np.int64).reshape(-1, 2).T, directed=directed, num_nodes=6)
    dense = np.zeros((6, 6), np.int64)
    for u, v in pairs:
        dense[u, v] = u != v
    matrix = adjacency(listed)
    assert matrix.format == "csr"
    assert matrix.dtype == np.int64
    assert matrix.has_sorted_indices
    assert np.array_equal(matrix.toarray(), dense)
    source, target = arcs(listed)
    assert sorted(zip(source.tolist(), target.tolist(), strict=True)) == list(map(tuple, np.argwhere(dense).tolist()))
    if not directed:
        m = listed.num_edges
        assert source[:m].tolist() == target[m:].tolist() == listed.edges[:, 0].tolist()


def test_masks_of_masked_and_rows_of_sparse_arrays_are_not_lost():
    listed = as_edge_list(COLUMNS)
    for wild in (np.ma.masked_array([0, 2], [0, 1]), scipy.sparse.csr_array([[0, 2]]), scipy.sparse.coo_matrix([[1]])):
        with pytest.raises(TypeError, match="`subset` must be a collection of vertices"):
            as_subset(wild, listed)


def test_subsets_and_vertices():
    listed = as_edge_list(COLUMNS)
    mask = [True, False, True, False]
    ways = [[0, 2], (2, 0), {0, 2}, range(0, 4, 2), np.array([2, 0], np.uint8), torch.tensor([0, 2]), iter([0, 2])]
    ways += [np.array(mask), torch.tensor(mask), mask, [np.int8(0), np.int64(2)], {0: "x", 2: "y"}.keys()]
    for way in ways:
        found = as_subset(way, listed)
        assert found.dtype == bool
        assert found.tolist() == mask
    own = np.array(mask)
    as_subset(own, listed)[:] = False
    assert own.tolist() == mask  # a copy
    assert not as_subset([], listed).any()
    named = as_edge_list(nx.path_graph(["a", "b", ("c", 1)]))
    assert as_subset(["a", ("c", 1)], named).tolist() == [True, False, True]
    assert as_subset(np.array([True, False, False]), named).tolist() == [True, False, False]
    assert as_vertex(("c", 1), named) == 2
    assert as_vertex(np.int16(3), listed) == 3
    for wild in ("c", ["a"], 0):
        with pytest.raises(ValueError, match="`target` must hold node labels of the graph"):
            as_vertex(wild, named)
    with pytest.raises(ValueError, match="`subset` must hold node labels of the graph; got 'z'"):
        as_subset(["a", "z"], named)
    with pytest.raises(ValueError, match="`subset` has duplicate vertices"):
        as_subset(["a", "a"], named)
    for wild in (-1, 4, 2**70):
        with pytest.raises(ValueError, match=f"`target` must be a vertex id below 4; got {wild}"):
            as_vertex(wild, listed)
        with pytest.raises(ValueError, match=f"`subset` contains vertex {wild} but the graph has 4 vertices"):
            as_subset([0, wild], listed)
    for wild in (True, 0.0, "0", None, [0]):
        with pytest.raises(TypeError, match="`target` must be a vertex id; got"):
            as_vertex(wild, listed)
    for wild in ("02", b"02", {0: 1}, 3, None, np.array(1), torch.tensor(1)):
        with pytest.raises(TypeError, match="`subset` must be a collection of vertices or a boolean mask"):
            as_subset(wild, listed)
    for wild in ([0.0, 1.0], ["0"], [[0, 1]], [None], np.array([0.0]), [True, 2]):
        with pytest.raises(TypeError, match="`subset` must hold"):
            as_subset(wild, listed)

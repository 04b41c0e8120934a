"""Sparse graphs come back in the kind that came in, with everything that was on their edges."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag.graphs import EdgeList, as_edge_list, wis_order, wis_removal_order, wis_sparsify

FIGURE = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
COLUMNS = np.concatenate((np.array(FIGURE).T, np.array(FIGURE).T[::-1], [[3], [3]]), axis=1)  # and a loop at 3


# --- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_arrays_keep_their_dtype(dtype):
    given_array = COLUMNS.astype(dtype)
    before = given_array.copy()
    columns, mask = wis_sparsify(given_array, num_remove=2)
    assert columns.dtype == dtype
    np.testing.assert_array_equal(columns, COLUMNS[:, mask])
    assert mask.tolist() == [e not in (0, 4) for e in range(8)] * 2 + [True]
    np.testing.assert_array_equal(given_array, before)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_tensors_keep_their_dtype_and_device(dtype):
    columns, mask = wis_sparsify(torch.tensor(COLUMNS, dtype=dtype), keep_ratio=0.75)
    assert (columns.dtype, mask.dtype, mask.device) == (dtype, torch.bool, columns.device)
    np.testing.assert_array_equal(columns.numpy(), COLUMNS[:, mask.numpy()])
    assert int(mask.sum()) == 13


def test_lists_come_back_as_arrays():
    columns, mask = wis_sparsify(COLUMNS.tolist(), num_remove=99)
    assert columns.tolist() == [[3], [3]]
    assert mask.tolist() == [False] * 16 + [True]
    empty, nothing = wis_sparsify([[], []], keep_ratio=0.5)
    assert empty.shape == (2, 0)
    assert empty.dtype == np.int64
    assert nothing.shape == (0,)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20), st.floats(0, 1))
def test_it_is_the_mask_of_the_order(pairs, ratio):
    pairs = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    columns = np.concatenate((pairs, pairs[::-1]), axis=1)
    found, mask = wis_sparsify(columns, keep_ratio=ratio, num_nodes=6)
    np.testing.assert_array_equal(mask, wis_order(columns, num_nodes=6).column_mask(keep_ratio=ratio))
    np.testing.assert_array_equal(found, columns[:, mask])


# --- scipy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csr_matrix])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_sparse_matrices_keep_format_and_data(kind, form):
    values = np.arange(1, 18, dtype=np.float32)
    matrix = kind((values, (COLUMNS[0], COLUMNS[1])), shape=(9, 9)).asformat(form)
    result = wis_sparsify(matrix, num_remove=2)
    assert type(result) is type(matrix)
    assert (result.dtype, result.shape) == (np.float32, (9, 9))
    dense, before = result.toarray(), matrix.toarray()
    gone = wis_order(matrix.astype(bool), num_edges=2).edges
    expected = before.copy()
    for u, v in gone.tolist():
        expected[u, v] = expected[v, u] = 0
    np.testing.assert_array_equal(dense, expected)
    assert dense[3, 3] == 17
    np.testing.assert_array_equal(matrix.toarray(), before)


def test_a_stored_zero_is_an_edge_and_stays_one():
    data, rows, columns = np.array([0.0, 0.0, 1.0, 1.0]), [0, 1, 1, 2], [1, 0, 2, 1]
    result = wis_sparsify(sp.csr_array((data, (rows, columns)), shape=(3, 3)), num_remove=1)
    assert result.nnz == 2
    assert wis_sparsify(sp.csr_array((data, (rows, columns)), shape=(3, 3)), num_remove=0).nnz == 4


# --- networkx --------------------------------------------------------------------------------------------------------


def test_networkx_graphs_keep_nodes_and_attributes():
    graph = nx.Graph(name="figure")
    graph.add_node("alone", colour="red")
    names = "abcdefg"
    for weight, (u, v) in enumerate(FIGURE):
        graph.add_edge(names[u], names[v], weight=weight + 2)
    graph.add_edge("a", "a")
    before = graph.copy()
    result = wis_sparsify(graph, num_remove=2)
    assert nx.utils.graphs_equal(graph, before)
    assert list(result.nodes(data=True)) == list(graph.nodes(data=True))
    assert result.graph == {"name": "figure"}
    gone = wis_removal_order(graph, num_edges=2)
    assert {frozenset(edge) for edge in graph.edges} - {frozenset(edge) for edge in result.edges} == set(
        map(frozenset, gone)
    )
    assert all(result.edges[edge] == graph.edges[edge] for edge in result.edges)
    assert result.has_edge("a", "a")


def test_the_order_of_a_networkx_graph_is_told_in_its_own_pairs():
    graph = nx.relabel_nodes(nx.karate_club_graph(), lambda node: f"member {node}")
    pairs = wis_removal_order(graph)
    assert sorted(pairs) == sorted(graph.edges())
    assert wis_removal_order(graph, num_edges=5) == pairs[:5]
    assert wis_removal_order(graph, tie_break="last") != pairs
    assert wis_removal_order(nx.Graph()) == []
    assert wis_removal_order(nx.star_graph(3), 3) == [(0, 1), (0, 2), (0, 3)]


def test_directed_networkx_graphs_go_by_closed_walks():
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (3, 0), (1, 3), (1, 0)])
    pairs = wis_removal_order(graph)
    assert sorted(pairs) == sorted(graph.edges)
    result = wis_sparsify(graph, num_remove=2)
    assert set(graph.edges) - set(result.edges) == set(pairs[:2])
    both = nx.Graph(FIGURE).to_directed()
    undirected = wis_sparsify(both, num_remove=1, directed=False)
    assert len(both.edges) - len(undirected.edges) == 2
    with pytest.raises(ValueError, match="no reverse column"):
        wis_sparsify(graph, num_remove=1, directed=False)
    with pytest.raises(ValueError, match="`graph` is undirected; pass"):
        wis_sparsify(nx.Graph(FIGURE), num_remove=1, directed=True)


@pytest.mark.parametrize("kind", [nx.MultiGraph, nx.MultiDiGraph])
def test_multigraphs_are_refused_in_the_words_of_networkx(kind):
    with pytest.raises(nx.NetworkXNotImplemented, match="multigraph"):
        wis_removal_order(kind([(0, 1)]))
    with pytest.raises(nx.NetworkXNotImplemented, match="multigraph"):
        wis_sparsify(kind([(0, 1)]), num_remove=1)


def test_the_order_of_a_networkx_graph_wants_a_networkx_graph():
    with pytest.raises(TypeError, match="`G` must be a networkx Graph or DiGraph; got ndarray"):
        wis_removal_order(COLUMNS)


# --- edge lists and PyG ----------------------------------------------------------------------------------------------


def test_edge_lists_come_back_renumbered():
    listed = as_edge_list(COLUMNS, num_nodes=9)
    result = wis_sparsify(listed, num_remove=3)
    assert isinstance(result, EdgeList)
    again = as_edge_list(COLUMNS[:, wis_order(listed).column_mask(num_removed=3)], num_nodes=9)
    np.testing.assert_array_equal(result.edges, again.edges)
    np.testing.assert_array_equal(result.column_edge, again.column_edge)
    assert (result.num_nodes, result.num_edges, result.directed) == (9, 5, False)
    assert wis_sparsify(listed, keep_ratio=0).column_edge.tolist() == [-1]


def test_pyg_data_keeps_its_vertices_and_cuts_every_attribute_of_its_edges():
    Data = pytest.importorskip("torch_geometric.data").Data
    attributes = torch.arange(17.0)
    data = Data(edge_index=torch.tensor(COLUMNS), edge_attr=attributes, x=torch.zeros(9, 2), weight=attributes[:, None])
    result = wis_sparsify(data, num_remove=2)
    mask = torch.tensor([e not in (0, 4) for e in range(8)] * 2 + [True])
    assert torch.equal(result.edge_index, data.edge_index[:, mask])
    assert torch.equal(result.edge_attr, attributes[mask])
    assert torch.equal(result.weight, attributes[mask][:, None])
    assert result.x.shape == (9, 2)
    assert data.edge_index.shape == (2, 17)
    assert "num_nodes" not in data
    bare = Data(edge_index=torch.tensor([[0, 1, 4, 0], [1, 0, 0, 4]]))
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):  # says PyG
        result = wis_sparsify(bare, num_remove=2)
    assert (result.num_nodes, result.num_edges) == (5, 0)
    result = wis_sparsify(bare, num_remove=2, num_nodes=8)
    assert (result.num_nodes, result.num_edges) == (8, 0)
    assert wis_sparsify(Data(num_nodes=3), keep_ratio=0.5).num_nodes == 3


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "exactly one of `keep_ratio` and `num_remove`"),
        ({"keep_ratio": 0.5, "num_remove": 1}, TypeError, "exactly one of `keep_ratio` and `num_remove`"),
        ({"keep_ratio": 1.5}, ValueError, "`keep_ratio` must be a finite real number >= 0 and <= 1; got 1.5"),
        ({"num_remove": -1}, ValueError, "`num_remove` must be an integer >= 0; got -1"),
        ({"num_remove": 1, "depth": 0}, ValueError, "`depth` must be"),
        (
            {"num_remove": 8, "keep_edges": [0]},
            ValueError,
            "`num_remove` asks to remove 8 of 8 edges, but `keep_edges`",
        ),
        (
            {"keep_ratio": 0, "keep_edges": [0]},
            ValueError,
            "`keep_ratio` asks to remove 8 of 8 edges, but `keep_edges`",
        ),
        ({"num_remove": 1, "directed": "no"}, TypeError, "`directed` must be True or False"),
    ],
)
def test_refusals(options, error, text):
    with pytest.raises(error, match=text):
        wis_sparsify(COLUMNS, **options)


def test_other_depths_and_options_pass_through():
    columns, _ = wis_sparsify(COLUMNS, num_remove=2, depth=3, tie_break="last")
    left = {frozenset(pair) for pair in columns.T.tolist()} - {frozenset([3])}
    assert {frozenset(edge) for edge in FIGURE} - left == {frozenset((2, 5)), frozenset((5, 6))}
    kept, _ = wis_sparsify(COLUMNS, num_remove=7, keep_edges=[(2, 5)])
    assert {frozenset(pair) for pair in kept.T.tolist()} == {frozenset([3]), frozenset((2, 5))}

"""Graphs of PyTorch Geometric on the one way in: the same edge list as from their columns, or an error."""

from __future__ import annotations

import pytest
import torch

from oracles.graphs_edges import canonical
from rankdiag import RankdiagWarning
from rankdiag._warnings import without_warnings
from rankdiag.graphs._edges import as_edge_list, normalise

PAIRS = [(2, 0), (0, 1), (1, 1), (0, 2), (1, 0), (2, 0), (3, 1), (1, 3)]
INDEX = torch.tensor(PAIRS).T


@pytest.fixture(scope="module")
def pyg():
    with without_warnings():  # torch_geometric uses what torch no longer likes
        return pytest.importorskip("torch_geometric.data")


def same(found, pairs, num_nodes, directed=False):
    edges, column_edge = canonical(pairs, directed)
    assert [tuple(edge) for edge in found.edges.tolist()] == edges
    assert found.column_edge.tolist() == column_edge
    assert (found.num_nodes, found.directed, found.labels) == (num_nodes, directed, None)


def test_every_kind_of_data(pyg):
    same(as_edge_list(pyg.Data(edge_index=INDEX, num_nodes=4)), PAIRS, 4)
    same(as_edge_list(pyg.Data(edge_index=INDEX, num_nodes=4), directed=True), PAIRS, 4, True)
    same(as_edge_list(pyg.Data(edge_index=INDEX, x=torch.zeros(6, 2))), PAIRS, 6)
    same(as_edge_list(pyg.Data(edge_index=INDEX), num_nodes=5), PAIRS, 5)
    batch = pyg.Batch.from_data_list([pyg.Data(edge_index=INDEX, num_nodes=4)] * 2)
    same(as_edge_list(batch), [*PAIRS, *((u + 4, v + 4) for u, v in PAIRS)], 8)
    same(as_edge_list(pyg.Data(num_nodes=3)), [], 3)
    turned = torch.sparse_coo_tensor(torch.tensor([[1, 2], [0, 1]]), torch.ones(2), (3, 3), check_invariants=True)
    for matrix in (turned, turned.coalesce()):
        same(as_edge_list(pyg.Data(adj_t=matrix, num_nodes=3), directed=True), [(0, 1), (1, 2)], 3, True)
    with pytest.raises(ValueError, match="`num_nodes` must be 4, as the Data says; got 5"):
        as_edge_list(pyg.Data(edge_index=INDEX, num_nodes=4), num_nodes=5)
    with pytest.raises(ValueError, match=r"edge \(0, 1\) has no reverse column"):
        as_edge_list(pyg.Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
    with pytest.raises(TypeError, match="`graph` must be homogeneous"):
        as_edge_list(pyg.HeteroData())


def test_weights(pyg):
    index = torch.tensor([[0, 1], [1, 0]])
    weighted = pyg.Data(edge_index=index, edge_weight=torch.tensor([1.0, 3.0]), num_nodes=2)
    with pytest.warns(RankdiagWarning, match="`graph` has weights other than 1"):
        same(as_edge_list(weighted), [(0, 1), (1, 0)], 2)
    same(normalise(weighted, warn=False), [(0, 1), (1, 0)], 2)
    same(as_edge_list(pyg.Data(edge_index=index, edge_weight=torch.ones(2), num_nodes=2)), [(0, 1), (1, 0)], 2)
    same(as_edge_list(pyg.Data(edge_index=index, edge_attr=torch.full((2, 3), 2.0), num_nodes=2)), [(0, 1), (1, 0)], 2)

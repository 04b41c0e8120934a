"""Types of edges: every kind of input gives the same typed arcs, and a contradiction is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._warnings import without_warnings
from rankdiag.graphs._edge_types import typed_arcs
from rankdiag.graphs._edges import as_edge_list

COLUMNS = np.array([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 2, 1]])
TYPES = np.array([3, 3, 0, 2, 9, 3])


def triples(found: Any) -> list[tuple[int, int, int]]:
    return list(zip(found.source.tolist(), found.target.tolist(), found.kind.tolist(), strict=True))


def test_without_types_every_arc_is_of_type_0() -> None:
    found = typed_arcs(COLUMNS, None, directed=False, num_nodes=None)
    assert triples(found) == [(0, 1, 0), (1, 2, 0), (1, 0, 0), (2, 1, 0)]
    assert found.num_types == 1
    assert triples(typed_arcs(as_edge_list(COLUMNS), None, directed=False, num_nodes=None)) == triples(found)


def test_loops_are_ignored_and_directions_may_differ() -> None:
    found = typed_arcs(COLUMNS, TYPES, directed=False, num_nodes=4)
    assert triples(found) == [(0, 1, 3), (1, 2, 0), (1, 0, 3), (2, 1, 2)]
    assert found.num_types == 4
    assert found.edge_list.num_nodes == 4


def test_tensor_sparse_and_networkx_agree_with_the_array() -> None:
    import networkx as nx
    import torch
    from scipy.sparse import csr_array

    expected = triples(typed_arcs(COLUMNS, TYPES, directed=True, num_nodes=3))
    tensor = torch.tensor(COLUMNS)
    assert triples(typed_arcs(tensor, torch.tensor(TYPES), directed=True, num_nodes=None)) == expected
    digraph = nx.DiGraph()
    digraph.add_nodes_from(range(3))
    digraph.add_edges_from([(0, 1), (1, 0), (1, 2), (2, 1), (2, 2)])
    order = [{(0, 1): 3, (1, 0): 3, (1, 2): 0, (2, 1): 2, (2, 2): 5}[pair] for pair in digraph.edges()]
    assert sorted(triples(typed_arcs(digraph, order, directed=True, num_nodes=None))) == sorted(expected)
    matrix = csr_array(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 1]]))
    found = typed_arcs(matrix, [3, 3, 0, 2, 7], directed=True, num_nodes=None)
    assert sorted(triples(found)) == sorted(expected)


@pytest.mark.slow
def test_data_of_pytorch_geometric_agrees_with_the_array() -> None:
    import torch

    with without_warnings(DeprecationWarning):
        data = pytest.importorskip("torch_geometric.data")
    graph = data.Data(edge_index=torch.tensor(COLUMNS), num_nodes=3)
    expected = triples(typed_arcs(COLUMNS, TYPES, directed=True, num_nodes=3))
    assert triples(typed_arcs(graph, torch.tensor(TYPES), directed=True, num_nodes=None)) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12), st.integers(0, 10**6))
def test_every_column_finds_its_type(pairs: list[tuple[int, int]], seed: int) -> None:
    kind_of = {pair: int(t) for pair, t in zip(pairs, np.random.default_rng(seed).integers(0, 3, 12), strict=False)}
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    found = typed_arcs(columns, [kind_of[pair] for pair in pairs], directed=True, num_nodes=5)
    expected = {(u, v, kind_of[u, v]) for u, v in pairs if u != v}
    assert len(found.kind) == len(expected)
    assert set(triples(found)) == expected


@pytest.mark.parametrize(
    ("types", "error", "text"),
    [
        ([0, 0, 0, 0, 0, 1], ValueError, r"edge \(0, 1\) the types 0 and 1; duplicate columns must agree"),
        ([0, 0, 0, 0, 0], ValueError, r"column of `graph` \(6,\); got shape \(5,\)"),
        ([[0] * 6], ValueError, r"got shape \(1, 6\)"),
        ([0, 0, 0, -1, 0, 0], ValueError, "types 0, 1, ...; got -1"),
        ([0, 0, 0, 2**40, 0, 0], ValueError, "below 2147483648"),
        (np.full(6, 2**64 - 1, np.uint64), ValueError, "below 2147483648"),
        ([0.0] * 6, TypeError, "must hold integers"),
        ([False] * 6, TypeError, "must hold integers"),
        ("zero", TypeError, "must hold integers"),
        ([[0], [0, 1]], ValueError, "different lengths"),
    ],
)
def test_wrong_types_are_named(types: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        typed_arcs(COLUMNS, types, directed=False, num_nodes=None)


def test_an_edge_list_has_no_columns_to_type() -> None:
    with pytest.raises(TypeError, match="an EdgeList no longer has columns"):
        typed_arcs(as_edge_list(COLUMNS), TYPES, directed=False, num_nodes=None)


def test_graphs_without_edges() -> None:
    for columns, types in ((np.zeros((2, 0), int), []), (np.array([[1], [1]]), [4])):
        found = typed_arcs(columns, types, directed=False, num_nodes=3)
        assert len(found.kind) == 0
        assert found.num_types == 1
        assert found.edge_list.num_nodes == 3

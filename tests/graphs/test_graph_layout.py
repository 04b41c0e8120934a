"""Where the vertices of a small graph are drawn: in the square, apart, the same every time, neighbours near."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from rankdiag.graphs._edges import as_edge_list
from rankdiag.graphs._layout import layout

GRAPHS = {
    "two parts and singles": nx.disjoint_union_all([nx.path_graph(9), nx.complete_graph(5), nx.empty_graph(13)]),
    "pairs": nx.disjoint_union_all([nx.path_graph(2)] * 12),
    "complete": nx.complete_graph(60),
    "star": nx.star_graph(59),
    "singles": nx.empty_graph(60),
    "sparse": nx.gnm_random_graph(60, 45, seed=1),
    "cycle": nx.cycle_graph(17),
    "hundred": nx.gnm_random_graph(100, 150, seed=4),
}


def _distances(places: np.ndarray) -> np.ndarray:
    found = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    found[np.diag_indices(len(places))] = np.inf
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_vertices_lie_apart_in_the_square_and_at_the_same_place_again(name):
    graph = as_edge_list(GRAPHS[name])
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - what must stay as it is
    places = layout(graph)
    assert places.shape == (graph.num_nodes, 2)
    assert places.dtype == np.float64
    assert ((places >= 0) & (places <= 1)).all()
    assert np.ptp(places[:, 0]) > 0.8
    assert _distances(places).min() > 0.55 / np.sqrt(max(graph.num_nodes, 32))
    assert (layout(graph) == places).all()
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002 - as above


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_vertices(n):
    for graph in (nx.empty_graph(n), nx.complete_graph(n)):
        places = layout(as_edge_list(graph))
        assert places.shape == (n, 2)
        if n == 1:
            assert places.tolist() == [[0.5, 0.5]]
        elif n:
            assert _distances(places).min() > 0.1


def test_neighbours_are_nearer_than_others():
    graph = as_edge_list(nx.cycle_graph(20))
    apart = _distances(layout(graph))
    joined = np.zeros((20, 20), bool)
    joined[tuple(graph.edges.T)] = joined[tuple(graph.edges.T[::-1])] = True
    np.fill_diagonal(apart, 0)
    assert apart[joined].max() < 0.7 * apart[~joined].mean()


def test_directed_graphs_are_drawn_by_their_weak_components():
    arrows = as_edge_list([[0, 2, 3], [1, 1, 4]], directed=True)
    lines = as_edge_list([[0, 2, 3, 1, 1, 4], [1, 1, 4, 0, 2, 3]])
    assert (layout(arrows) == layout(lines)).all()

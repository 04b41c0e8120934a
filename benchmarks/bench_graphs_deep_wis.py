"""Walk index sparsification beyond depth 2: whole orders beside the definition, and beside one sparse product.

The definition counts the closed walks of the graph without each remaining edge, sorts them, and takes the largest list.
That is quadratic in the edges, so whole orders are compared on a small random graph. On Cora (with the data folder
``RANKDIAG_DATA``, else a random graph of its size) the definition is measured for 10 of the 5278 candidates of the
first removal; a whole order looks at 1.4e7 candidates, so that the baseline times 1.4e6 is what it would take.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankdiag.graphs import EdgeList, as_edge_list, wis_addition_order, wis_order

Works = dict[str, Callable[[], Any]]


def citation_graph(name: str) -> EdgeList | None:
    """Cora, Citeseer or PubMed from the data folder; None where there is none."""
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "data"
    path = folder / "planetoid" / name
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return as_edge_list(arrays["edge_index"])


def random_graph(n: int, m: int) -> EdgeList:
    import networkx as nx

    return as_edge_list(nx.gnm_random_graph(n, m, seed=0))


def sparse_matrix(graph: EdgeList, without: int | None = None) -> Any:
    from scipy.sparse import csr_array

    kept = np.delete(graph.edges, without, axis=0) if without is not None else graph.edges
    own = np.arange(graph.num_nodes)
    rows, columns = np.concatenate((kept[:, 0], kept[:, 1], own)), np.concatenate((kept[:, 1], kept[:, 0], own))
    return csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=(graph.num_nodes,) * 2)


def plain_tuple(graph: EdgeList, edge: int | None, depth: int) -> Any:
    """Sorted closed walks of length 3 or 4, of the graph without an edge or with all."""
    matrix = sparse_matrix(graph, edge)
    square = matrix @ matrix
    values = np.asarray((square.multiply(matrix if depth == 3 else square)).sum(axis=1)).ravel()
    alone = np.diff(matrix.indptr) == 1
    return np.sort(np.where(alone, 0, values))


def plain_order(graph: EdgeList, depth: int) -> list[int]:
    """All edges by the definition, dense."""
    a = np.eye(graph.num_nodes, dtype=np.int64)
    edges = graph.edges.tolist()
    for u, v in edges:
        a[u, v] = a[v, u] = 1
    order: list[int] = []
    left = list(range(len(edges)))
    while left:
        keyed = []
        for e in left:
            u, v = edges[e]
            a[u, v] = a[v, u] = 0
            values = np.diagonal(np.linalg.matrix_power(a, depth)).copy()
            values[a.sum(axis=1) == 1] = 0
            keyed.append((np.sort(values).tolist(), -e))
            a[u, v] = a[v, u] = 1
        best = -max(keyed)[1]
        order.append(best)
        left.remove(best)
        u, v = edges[best]
        a[u, v] = a[v, u] = 0
    return order


def small(depth: int, batch_size: int = 1) -> Callable[[int], Works]:
    def make(size: int) -> Works:
        graph = random_graph(40, 100) if size >= 1024 else random_graph(15, 25)
        return {
            "definition": lambda: plain_order(graph, depth),
            "wis_order": lambda: wis_order(graph, depth, batch_size=batch_size).edge_ids,
        }

    return make


def citations(depth: int, batch_size: int = 1) -> Callable[[int], Works]:
    def make(size: int) -> Works:
        found = citation_graph("cora.npz") if size >= 1024 else random_graph(200, 400)
        graph = random_graph(2708, 5278) if found is None else found

        def ten() -> None:
            max(plain_tuple(graph, edge, depth).tolist() for edge in range(10))

        def product() -> None:
            matrix = sparse_matrix(graph)
            matrix @ matrix

        def depth_2() -> None:
            wis_order(graph, 2)

        def ours() -> None:
            wis_order(graph, depth, batch_size=batch_size)

        return {"definition-10-candidates": ten, "one-product": product, "depth-2-order": depth_2, "wis_order": ours}

    return make


def additions(size: int) -> Works:
    """The first of 2000 candidates by the definition, and all of them in order."""
    graph = random_graph(300, 600) if size >= 1024 else random_graph(40, 60)
    taken = {(min(u, v), max(u, v)) for u, v in graph.edges.tolist()}
    rng = np.random.default_rng(0)
    pairs = {(int(min(p)), int(max(p))) for p in rng.integers(0, graph.num_nodes, (4000, 2)) if p[0] != p[1]}
    candidates = np.array(sorted(pairs - taken)[: 2000 if size >= 1024 else 50])

    def plain() -> float:
        keyed = []
        for c, pair in enumerate(candidates):
            more = np.concatenate((graph.edges, pair[None]))
            other = as_edge_list(np.concatenate((more, more[:, ::-1])).T, num_nodes=graph.num_nodes)
            keyed.append((plain_tuple(other, None, 3).tolist(), -c))
        return -max(keyed)[1]

    return {
        "definition-first": plain,
        "wis_addition_order-all": lambda: float(wis_addition_order(graph, candidates, 3).candidate_ids[0]),
    }


WHOLE = {"definition": None, "wis_order": 0.05}
CORA = {"definition-10-candidates": None, "one-product": None, "depth-2-order": None, "wis_order": None}
CASES: dict[str, Any] = {
    "whole order of 100 edges at depth 3": (small(3), WHOLE),
    "whole order of 100 edges at depth 4": (small(4), WHOLE),
    "whole order of 100 edges at depth 5": (small(5), {"definition": None, "wis_order": 0.2}),
    "whole order of Cora at depth 3": (citations(3), CORA),
    "whole order of Cora at depth 3 in batches of 100": (citations(3, 100), CORA),
    "whole order of Cora at depth 4": (citations(4), CORA),
    "2000 candidates added at depth 3": (additions, {"definition-first": None, "wis_addition_order-all": None}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_deep_wis(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""Plain calls of what takes graphs; `meta.plain` joins them to its own tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import numpy as np

import rankdiag as rd

TRIANGLE_AND_TAIL = [[0, 1, 1, 2, 2, 0, 2, 3, 3], [1, 0, 2, 1, 0, 2, 3, 2, 3]]
FEATURES = np.random.default_rng(0).normal(size=(12, 4, 2))


def graph(**more: Any) -> dict[str, Any]:
    return {"graph": TRIANGLE_AND_TAIL, **more}


def order() -> Any:
    return rd.graphs.wis_order(TRIANGLE_AND_TAIL)


def mixed(features: Any) -> Any:
    return features[:, 0].prod(axis=1) * features[:, 3].sum(axis=1)


def joined(left: Any, right: Any) -> Any:
    return np.concatenate((left, right), axis=1)


def product_gnn() -> Any:
    return rd.graphs.ProductGNN(2, 2, 3, rng=0)


ARGUMENTS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "rankdiag.walk_index": lambda: graph(subset=[0], depth=2),
    "rankdiag.wis_order": graph,
    "rankdiag.wis_sparsify": lambda: graph(keep_ratio=0.5),
    "rankdiag.graphs.OneWISQueue": lambda: {"edges": [(0, 1), (1, 2)]},
    "rankdiag.graphs.ProductGNN": lambda: {"num_layers": 2, "d_in": 2, "d_hidden": 3},
    "rankdiag.graphs.as_edge_list": graph,
    "rankdiag.graphs.effective_resistances": graph,
    "rankdiag.graphs.generic_separation_rank": lambda: graph(subset=[0], depth=2, d_in=2, d_hidden=2, max_rank=32),
    "rankdiag.graphs.interaction_profile": lambda: {
        "fn": mixed,
        "features": FEATURES,
        "partitions": {"first": [0], "ends": [0, 3]},
        "samples": 6,
    },
    "rankdiag.graphs.log_walk_index": lambda: graph(subset=[0], depth=2),
    "rankdiag.graphs.make_same_class_task": lambda: {
        "images": FEATURES,
        "labels": [0, 1, 2] * 4,
        "n_pairs": 4,
        "patches": 4,
        "layout": "high",
    },
    "rankdiag.graphs.partition_boundary": lambda: graph(subset=[0]),
    "rankdiag.graphs.partition_scan": lambda: graph(groups={"a": [0], "b": [2, 3]}, depth=2),
    "rankdiag.graphs.product_gnn_log_forward": lambda: {
        "model": product_gnn(),
        "x": FEATURES[0],
        "edge_index": TRIANGLE_AND_TAIL,
    },
    "rankdiag.graphs.random_order": graph,
    "rankdiag.graphs.removal_curves": lambda: graph(orders={"1-WIS": order()}, depth=2, ratios=[0.0, 0.5]),
    "rankdiag.graphs.rewiring_hints": lambda: graph(subset=[3], depth=2),
    "rankdiag.graphs.same_class_graph": lambda: {"patches": 4},
    "rankdiag.graphs.same_class_layout": lambda: {"patches": 4, "layout": "low"},
    "rankdiag.graphs.separation_rank_bounds": lambda: graph(subset=[0], depth=2, d_in=2, d_hidden=2),
    "rankdiag.graphs.singleton_walk_indices": lambda: graph(depth=2, prediction="graph"),
    "rankdiag.graphs.spectral_order": graph,
    "rankdiag.graphs.stream_sparsify": lambda: {"edges": [(0, 1), (1, 2), (2, 0)], "budget": 2},
    "rankdiag.graphs.ugs_prune_step": lambda: {
        "mask": [1.0, 0.5, 0.25, 2.0],
        "fraction": 0.25,
        "num_original_edges": 4,
    },
    "rankdiag.graphs.verify_wis_certificate": lambda: graph(
        certificate=rd.graphs.wis_certificate(TRIANGLE_AND_TAIL, order())
    ),
    "rankdiag.graphs.walk_index": lambda: graph(subset=[0], depth=2),
    "rankdiag.graphs.walk_index_change": lambda: {
        "before": TRIANGLE_AND_TAIL,
        "after": [row[2:] for row in TRIANGLE_AND_TAIL],
        "subsets": {"first": [0]},
        "depth": 2,
    },
    "rankdiag.graphs.walk_index_report": lambda: graph(subset=[0], depth=2),
    "rankdiag.graphs.walk_index_share": lambda: graph(subset=[0], depth=2),
    "rankdiag.graphs.walk_indices": lambda: graph(subsets=[[0], [1, 2]], depth=2),
    "rankdiag.graphs.wis_addition_order": lambda: graph(candidates=[[0, 3], [1, 3]]),
    "rankdiag.graphs.wis_certificate": lambda: graph(order=order()),
    "rankdiag.graphs.wis_order": graph,
    "rankdiag.graphs.wis_removal_order": lambda: {"G": nx.path_graph(4)},
    "rankdiag.graphs.wis_sparsify": lambda: graph(keep_ratio=0.5),
    "rankdiag.separation.interaction_matrix": lambda: {
        "fn": mixed,
        "left": FEATURES[:3, :2],
        "right": FEATURES[:4, 2:],
        "combine": joined,
    },
    "rankdiag.separation.interaction_spectrum": lambda: {"F": FEATURES[:, :, 0]},
}
METHOD_ARGUMENTS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "OneWISQueue.add_edge": lambda own: {"u": 5, "v": 6},
    "OneWISQueue.remove_edge": lambda own: {"u": 0, "v": 1},
    "ProductGNN.forward": lambda own: {"x": FEATURES[0], "edge_index": TRIANGLE_AND_TAIL},
    "ProductGNN.hidden": lambda own: {"x": FEATURES[0], "edge_index": TRIANGLE_AND_TAIL},
    "WISOrder.column_mask": lambda own: {"keep_ratio": 0.5},
    "WISOrder.num_removed": lambda own: {"num_removed": 1},
}
OBJECTS: dict[str, Callable[[], Any]] = {
    "OneWISQueue.remove_edge": lambda: rd.graphs.OneWISQueue([(0, 1), (1, 2)]),
    "OneWISQueue": lambda: rd.graphs.OneWISQueue([(0, 1), (1, 2)]),
}

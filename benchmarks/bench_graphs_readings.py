"""Smaller readings of graphs, each beside its bare formula in numpy: what checks, labels and exactness add."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rankdiag.graphs import (
    as_edge_list,
    log_walk_index,
    partition_boundary,
    same_class_graph,
    singleton_walk_indices,
    spectral_order,
    stream_sparsify,
    ugs_prune_step,
    walk_index_change,
    walk_index_share,
    wis_sparsify,
)

Works = dict[str, Callable[[], Any]]


def columns(size: int) -> Any:
    n = 20 * size
    rng = np.random.default_rng(0)
    u, v = rng.integers(0, n, (2, 5 * n))
    return np.stack((np.concatenate((u, v)), np.concatenate((v, u))))


def walks(edges: Any, n: int, steps: int) -> Any:
    """Walks from every vertex; edges are simple, both ways, without loops."""
    y = np.ones(n)
    for _ in range(steps):
        y = y + np.bincount(edges[0], y[edges[1]], n)
    return y


def partitions(size: int) -> Works:
    listed = as_edge_list(columns(size))
    edges = np.concatenate((listed.edges, listed.edges[:, ::-1])).T
    n = listed.num_nodes
    side = np.arange(n) % 3 == 0

    def plain() -> list[float]:
        ends = np.unique(edges[:, side[edges[0]] != side[edges[1]]])
        y = walks(edges, n, 2)
        found = y[ends].sum()
        return [len(ends), math.log(found), found / y.sum()]

    def ours() -> list[float]:
        return [
            len(partition_boundary(listed, side)),
            log_walk_index(listed, side, 3),
            walk_index_share(listed, side, 3),
        ]

    return {"bare-arrays": plain, "boundary-log-and-share": ours}


def singletons(size: int) -> Works:
    listed = as_edge_list(columns(size))
    edges = np.concatenate((listed.edges, listed.edges[:, ::-1])).T
    n = listed.num_nodes
    return {
        "bare-arrays": lambda: walks(edges, n, 3) * (np.bincount(edges[0], minlength=n) > 0),
        "singleton_walk_indices": lambda: singleton_walk_indices(listed, 3, prediction="graph"),
    }


def changes(size: int) -> Works:
    before = as_edge_list(columns(size))
    half = before.edges[::2]
    after = as_edge_list(np.concatenate((half, half[:, ::-1])).T, num_nodes=before.num_nodes)
    masks = np.random.default_rng(1).random((20, before.num_nodes)) < 0.5

    def plain() -> list[float]:
        logs = []
        for graph in (before, after):
            edges = np.concatenate((graph.edges, graph.edges[:, ::-1])).T
            y = walks(edges, graph.num_nodes, 2)
            logs.append([math.log(y[np.unique(edges[:, m[edges[0]] != m[edges[1]]])].sum()) for m in masks])
        return [a - b for a, b in zip(*logs, strict=True)]

    return {
        "bare-arrays": plain,
        "walk_index_change": lambda: [row.drop for row in walk_index_change(before, after, masks, 3)],
    }


def copies(size: int) -> Works:
    edges = columns(size)
    count = as_edge_list(edges).num_edges

    def mask_alone() -> None:
        np.compress(np.arange(edges.shape[1]) % 2 == 0, edges, axis=1)

    def one_sort() -> None:
        np.lexsort(edges)

    return {
        "one-lexsort": one_sort,
        "one-mask": mask_alone,
        "wis_sparsify": lambda: wis_sparsify(edges, num_remove=count // 2) and None,
    }


def baselines(size: int) -> Works:
    listed = as_edge_list(columns(size))
    m = listed.num_edges
    rng = np.random.default_rng(2)
    resistances, uniforms, mask = rng.uniform(0.1, 1.0, m), rng.uniform(0.1, 1.0, m), rng.normal(size=m)
    count = int(m * 0.05)

    def plain() -> Any:
        gone = np.flatnonzero(np.abs(mask) <= np.sort(np.abs(mask))[count])
        return np.concatenate((np.argsort(np.log(uniforms) / resistances, kind="stable"), gone))

    def ours() -> Any:
        order = spectral_order(listed, resistances=resistances, uniforms=uniforms)
        return np.concatenate((order, ugs_prune_step(mask, 0.05, m)))

    return {"bare-arrays": plain, "spectral_order-and-ugs_prune_step": ours}


def streams(size: int) -> Works:
    edges = [tuple(sorted(edge)) for edge in same_class_graph(20 if size >= 1024 else 8).T.tolist()]
    edges = sorted(set(edges))
    budget = len(edges) - 20

    def plain() -> list[float]:
        kept: list[Any] = []
        dropped = []
        for edge in edges:
            kept.append(edge)
            if len(kept) > budget:
                degree: dict[int, int] = {}
                for u, v in kept:
                    degree[u] = degree.get(u, 0) + 1
                    degree[v] = degree.get(v, 0) + 1
                best = max(kept, key=lambda e: (min(degree[e[0]], degree[e[1]]), max(degree[e[0]], degree[e[1]])))
                kept.remove(best)
                dropped.append(1000.0 * best[0] + best[1])
        return dropped

    return {
        "look-at-every-edge": plain,
        "stream_sparsify": lambda: [1000.0 * u + v for u, v in stream_sparsify(edges, budget)],
    }


CASES: dict[str, Any] = {
    "one partition, depth 3": (partitions, {"bare-arrays": None, "boundary-log-and-share": None}),
    "every single vertex, depth 3": (singletons, {"bare-arrays": None, "singleton_walk_indices": None}),
    "20 partitions before and after": (changes, {"bare-arrays": None, "walk_index_change": None}),
    "half of the columns": (copies, {"one-lexsort": None, "one-mask": None, "wis_sparsify": None}),
    "baselines, resistances at hand": (baselines, {"bare-arrays": None, "spectral_order-and-ugs_prune_step": None}),
    "20 edges dropped from a stream": (streams, {"look-at-every-edge": None, "stream_sparsify": None}),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_readings(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""Whole removal orders at depth 2 of citation graphs beside three plain ways to the same order.

The definition compares, for each removal, the sorted walk indices of all vertices without each edge in turn. Looking at
degrees again before each removal is the published way. The third, ten lines of numpy, holds the key of every edge and
corrects those at both ends of a removed one. Graphs come from ``RANKDIAG_DATA`` or ``shared/data`` beside the
repository; where they are not, a random graph of the same size stands in, as its name then says.
``graphs_citations.py`` prints the same ratios, and the whole order by the definition extrapolated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankdiag.graphs import as_edge_list, wis_order

Works = dict[str, Callable[[], Any]]
SIZES = {"cora": (2708, 5278), "citeseer": (3327, 4552), "pubmed_graph": (19717, 44324)}


def data_file(name: str) -> Path | None:
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / "shared" / "data"
    path = folder / "planetoid" / f"{name}.npz"
    return path if path.is_file() else None


def random_columns(n: int, m: int) -> Any:
    """An edge_index of m edges whose expected degrees fall like a power of their rank."""
    rng = np.random.default_rng(0)
    weight = np.arange(1.0, n + 1) ** -0.6
    ends = np.sort(rng.choice(n, (2, 3 * m), p=weight / weight.sum()), axis=0)
    pairs = np.unique(ends[:, ends[0] != ends[1]], axis=1)
    pairs = rng.permutation(pairs, axis=1)[:, :m]
    return np.concatenate((pairs, pairs[::-1]), axis=1)


def columns_of(name: str, size: int) -> Any:
    if size < 1024:
        return random_columns(200, 400)
    path = data_file(name)
    if path is None:
        return random_columns(*SIZES[name])
    with np.load(path) as data:
        return data["edge_index"].astype(np.int64)


def by_definition(u: Any, v: Any, n: int, count: int) -> Any:
    """Sorted walk indices of all vertices (degree + 1, and 0 without edges), without each edge in turn."""
    left, found = np.arange(len(u)), []
    for _ in range(count):
        degree = np.bincount(np.concatenate((u[left], v[left])), minlength=n)
        best: Any = ()
        for e in left.tolist():
            degree[[u[e], v[e]]] -= 1
            values = tuple(np.sort(np.where(degree > 0, degree + 1, 0)).tolist())
            if values > best:
                best, chosen = values, e
            degree[[u[e], v[e]]] += 1
        found.append(chosen)
        left = left[left != chosen]
    return np.array(found)


def looking_again(u: Any, v: Any, n: int, count: int) -> Any:
    """Degrees and keys of all remaining edges anew before each removal."""
    left, found = np.arange(len(u)), np.empty(count, np.int64)
    for place in range(count):
        degree = np.bincount(np.concatenate((u[left], v[left])), minlength=n)
        a, b = degree[u[left]], degree[v[left]]
        best = (np.minimum(a, b) * (n + 1) + np.maximum(a, b)).argmax()
        found[place] = left[best]
        left = np.delete(left, best)
    return found


def ten_lines(u: Any, v: Any, n: int, count: int) -> Any:
    degree, found = np.bincount(np.concatenate((u, v)), minlength=n), np.empty(count, np.int64)
    at = np.split(np.concatenate((u, v)).argsort(kind="stable") % len(u), degree.cumsum()[:-1])
    key = np.minimum(degree[u], degree[v]) * (n + 1) + np.maximum(degree[u], degree[v])
    for place in range(count):
        e = found[place] = key.argmax()
        degree[u[e]] -= 1
        degree[v[e]] -= 1
        near = np.concatenate((at[u[e]], at[v[e]]))
        near, key[e] = near[key[near] >= 0], -1
        a, b = degree[u[near]], degree[v[near]]
        key[near] = np.minimum(a, b) * (n + 1) + np.maximum(a, b)
        key[e] = -1
    return found


def whole_order(name: str) -> Callable[[int], Works]:
    def make(size: int) -> Works:
        columns = columns_of(name, size)

        def plain(way: Callable[[Any, Any, int, int], Any]) -> Any:
            graph = as_edge_list(columns)
            u, v = np.ascontiguousarray(graph.edges.T)
            return way(u, v, graph.num_nodes, graph.num_edges)

        return {
            "looking-again": lambda: plain(looking_again),
            "ten-lines": lambda: plain(ten_lines),
            "wis_order": lambda: wis_order(columns).edge_ids,
        }

    return make


def first_removals(size: int) -> Works:
    columns = columns_of("cora", size)
    graph = as_edge_list(columns)
    u, v = np.ascontiguousarray(graph.edges.T)
    return {
        "definition": lambda: by_definition(u, v, graph.num_nodes, 2),
        "looking-again": lambda: looking_again(u, v, graph.num_nodes, 2),
        "wis_order": lambda: wis_order(columns, num_edges=2).edge_ids,
    }


def named(name: str, title: str) -> str:
    return f"whole order of {title}" if data_file(name) else f"whole order of a random graph of the size of {title}"


CASES: dict[str, Any] = {
    named("cora", "Cora"): (whole_order("cora"), {"ten-lines": None, "looking-again": None, "wis_order": 0.08}),
    named("citeseer", "Citeseer"): (whole_order("citeseer"), {"ten-lines": None, "wis_order": 0.1}),
    named("pubmed_graph", "PubMed"): (whole_order("pubmed_graph"), {"ten-lines": None, "wis_order": 0.1}),
    "first two removals of Cora, or of that random graph": (
        first_removals,
        {"definition": None, "looking-again": None, "wis_order": 0.01},
    ),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_removal_orders(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""Sparsification at depth 2 from its definition, and as a plain heap over edges; shares no code with src."""

from __future__ import annotations

import heapq

import numpy as np


def simple_edges(columns):
    """Edges of an undirected graph in the order of their first columns, loops left out."""
    found = {}
    for u, v in zip(*columns, strict=True):
        if u != v:
            found.setdefault(frozenset((int(u), int(v))), (int(u), int(v)))
    return list(found.values())


def sorted_walk_indices(n, edges):
    """For every vertex the walks of one step, loops included, from the boundary of {t} to t; sorted."""
    a = np.eye(n, dtype=int)
    for u, v in edges:
        a[u, v] = a[v, u] = 1
    values = []
    for t in range(n):
        others = [j for j in range(n) if j != t and a[j, t]]
        boundary = [t, *others] if others else []
        values.append(int(sum(a[i, t] for i in boundary)))
    return sorted(values)


def order_by_definition(n, edges, last=False, count=None):
    """Remove the edge without which the sorted list of all vertices is largest."""
    left, order = list(range(len(edges))), []
    while left and (count is None or len(order) < count):
        lists = {e: sorted_walk_indices(n, [edges[f] for f in left if f != e]) for e in left}
        best = max(lists.values())
        tied = [e for e in left if lists[e] == best]
        order.append(tied[-1] if last else tied[0])
        left.remove(order[-1])
    return order


def order_by_keys(n, edges, last=False, count=None):
    """Remove the edge of the largest (smaller degree, larger degree); also return these pairs."""
    degree = [0] * n
    for u, v in edges:
        degree[u] += 1
        degree[v] += 1
    left, order, keys = set(range(len(edges))), [], []
    while left and (count is None or len(order) < count):
        key, tie = max((sorted((degree[edges[e][0]], degree[edges[e][1]])), e if last else -e) for e in left)
        chosen = tie if last else -tie
        order.append(chosen)
        keys.append(tuple(key))
        left.remove(chosen)
        for vertex in edges[chosen]:
            degree[vertex] -= 1
    return order, keys


def order_by_heap(n, edges, last=False, count=None):
    """The same for larger graphs: keys never rise, so that a stale one is put back with its value of now."""
    degree = [0] * n
    for u, v in edges:
        degree[u] += 1
        degree[v] += 1

    def key(e):
        u, v = edges[e]
        return -min(degree[u], degree[v]), -max(degree[u], degree[v]), -e if last else e

    heap = [key(e) for e in range(len(edges))]
    heapq.heapify(heap)
    order = []
    while heap and (count is None or len(order) < count):
        chosen = abs(heap[0][2])
        now = key(chosen)
        if now != heap[0]:
            heapq.heapreplace(heap, now)
            continue
        heapq.heappop(heap)
        order.append(chosen)
        for vertex in edges[chosen]:
            degree[vertex] -= 1
    return order

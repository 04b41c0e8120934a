"""Whole orders of the citation graphs beyond depth 2: CPU seconds, keys, and ratios to smaller works.

``python benchmarks/graphs_deep_wis.py [depth [batch size]]`` reads ``planetoid`` of the folder ``RANKDIAG_DATA`` and
prints a line for each graph: edges; CPU seconds of the whole order; edges whose losses were computed; that time over
the time of the order at depth 2, and over one sparse product of the adjacency matrix; and the time that the definition
would take, from the sorted lists of 10 candidates times the M (M + 1) / 2 that it looks at (depths 3 and 4).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from bench_graphs_deep_wis import citation_graph, plain_tuple, sparse_matrix

from rankdiag.graphs import wis_order
from rankdiag.graphs._wis_engines import BallEngine, NearEngine


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Return the shortest CPU time of some calls, of one if that takes long."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < 5:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def count_keys(work: Callable[[], Any]) -> int:
    """Return how often the losses of an edge are computed, once in each removal besides."""
    number = 0
    plain = {engine: engine.after for engine in (NearEngine, BallEngine)}

    def counted(engine: Any) -> Any:
        def after(self: Any, edge: int) -> Any:
            nonlocal number
            number += 1
            return plain[engine](self, edge)

        return after

    for engine in plain:
        engine.after = counted(engine)  # type: ignore[method-assign]
    try:
        work()
    finally:
        for engine, method in plain.items():
            engine.after = method  # type: ignore[method-assign]
    return number


def line(name: str, depth: int, batch_size: int) -> str:
    graph = citation_graph(f"{name}.npz")
    if graph is None:
        return f"{name}: no data; set RANKDIAG_DATA"

    def whole() -> None:
        wis_order(graph, depth, batch_size=batch_size)

    def product() -> None:
        matrix = sparse_matrix(graph)
        matrix @ matrix

    m = graph.num_edges
    own = seconds(whole)
    text = f"{name}: {m} edges, {own:.2f} s, {count_keys(whole) - m} keys"
    text += f", {own / seconds(lambda: wis_order(graph, 2)):.1f} x depth 2, {own / seconds(product):.0f} x one product"
    if depth in (3, 4):
        ten = seconds(lambda: [plain_tuple(graph, edge, depth).tolist() for edge in range(10)], 1)
        days = ten / 10 * m * (m + 1) / 2 / 86400
        text += f"; definition about {days:.1f} days (extrapolated), {days * 86400 / own:.1e} x this"
    return text


def main() -> None:
    depth = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    batch_size = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print(f"depth {depth} (walks of length {depth - 1}), batches of {batch_size}")
    for name in ("cora", "citeseer", "pubmed_graph"):
        print(line(name, depth, batch_size), flush=True)


if __name__ == "__main__":
    main()

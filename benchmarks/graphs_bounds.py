"""How the cost of bounds on separation ranks grows with the graph, and how far the minimum cut is from its optimum.

``python benchmarks/graphs_bounds.py [--largest 100000]`` prints CPU seconds and peak memory for random graphs of 2 n
edges, each ten times as large as the one before; ``--graph FILE`` reads the `edge_index` of an .npz file instead.
"""

from __future__ import annotations

import argparse
import itertools
import math
import resource
import time

import numpy as np

from rankdiag.graphs import as_edge_list, separation_rank_bounds


def random_columns(n: int) -> np.ndarray:
    pairs = np.random.default_rng(0).integers(0, n, (2, 2 * n))
    return np.concatenate((pairs, pairs[::-1]), axis=1)


def measure(columns: np.ndarray, n: int, depth: int, width: int) -> float:
    graph = as_edge_list(columns, num_nodes=n)
    start = time.process_time()
    found = separation_rank_bounds(graph, np.arange(n) < n // 2, depth, width, width)
    took = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arcs = depth * (n + 2 * graph.num_edges)
    share = found.log_upper_mincut / min(found.log_upper_symmetric, found.log_upper_polynomial)
    print(f"{n:8d} {graph.num_edges:9d} {depth:5d} {arcs:10d} {took:9.3f} {1e6 * took / arcs:12.2f} {peak:10.0f} "
          f"{found.log_upper_mincut:12.1f} {found.cut_gap / found.log_upper_mincut:10.1e} {share:14.3f}")  # fmt: skip
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--graph")
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    print("vertices     edges depth       arcs     CPU s   us per arc  peak, MiB    cut, nats   rel. gap  over others")
    if options.graph:
        with np.load(options.graph) as data:
            columns = data["edge_index"]
        for depth in (2, 3, 5):
            measure(columns, int(columns.max()) + 1, depth, options.width)
        return
    for depth in (2, 3):
        n, times = 1000, []
        while n <= options.largest:
            times.append(measure(random_columns(n), n, depth, options.width))
            n *= 10
        slopes = ", ".join(f"{math.log10(b / a):.2f}" for a, b in itertools.pairwise(times))
        print(f"  depth {depth}: slopes {slopes}")


if __name__ == "__main__":
    main()

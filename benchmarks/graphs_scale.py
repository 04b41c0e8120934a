"""Removal orders at depth 2 of random graphs with heavy hubs as they grow: time, slope and memory.

``python benchmarks/graphs_scale.py [--edges 100000 1000000 10000000]`` prints for each size the CPU time of
``wis_order(edge_index)``, of one ``numpy.lexsort`` of the same edges, and their ratio; the peak of memory that the call
adds to its input in bytes an edge, as tracemalloc counts it and as the process grows; and, between the first and the
last size, the slopes of log time over log edges. Every size runs in a process of its own.

With ``--shapes`` it prints time and memory of graphs whose degrees are alike, or nearly: a ring, a grid, a complete
graph, a star, a matching, a random regular graph, with vertices and edges in random order. ``--complete 700`` does so
for complete graphs of these sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

EXPONENT = 2.5
MEAN_DEGREE = 10.0


def chung_lu(num_edges: int, seed: int = 0) -> Any:
    """A (2, 2 num_edges) edge_index: edges in random order, followed by their reverses.

    Expected degrees follow a power law of exponent 2.5 with mean 10. Both ends of an edge are drawn in proportion to
    them; loops and repeats are drawn anew. The names of the vertices are a random permutation.
    """
    rng = np.random.default_rng(seed)
    n = round(2 * num_edges / MEAN_DEGREE)
    ends = np.cumsum(np.arange(1, n + 1) ** (-1 / (EXPONENT - 1)))
    ends /= ends[-1]
    keys = np.zeros(0, np.int64)
    while len(keys) < num_edges:
        u, v = (ends.searchsorted(rng.random((num_edges - len(keys)) * 11 // 10 + 16)) for _ in range(2))
        fresh = np.minimum(u, v) * n + np.maximum(u, v)
        keys = np.unique(np.concatenate((keys, fresh[u != v])))
    keys = rng.permutation(keys)[:num_edges]
    names = rng.permutation(n)
    u, v = names[keys // n], names[keys % n]
    return np.stack((np.concatenate((u, v)), np.concatenate((v, u))))


def shuffled(u: Any, v: Any) -> Any:
    """A (2, 2 M) edge_index of edges u-v in random order, followed by their reverses, and of renamed vertices."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(u))
    names = rng.permutation(int(max(u.max(), v.max())) + 1)
    u, v = names[u[order]], names[v[order]]
    return np.stack((np.concatenate((u, v)), np.concatenate((v, u))))


def shapes(size: int = 100_000) -> dict[str, Any]:
    """Graphs of about `size` edges."""
    rng = np.random.default_rng(0)
    line = np.arange(size)
    side = round((size / 2) ** 0.5)
    cell = np.arange(side * side).reshape(side, side)
    ends = np.sort([[rng.permutation(size // 5) for _ in range(5)] for _ in range(2)], axis=0).reshape(2, -1)
    ends = np.unique(ends[:, ends[0] != ends[1]], axis=1)
    return {
        "ring": shuffled(line, (line + 1) % size),
        "grid": shuffled(
            np.concatenate((cell[:, :-1].ravel(), cell[:-1].ravel())),
            np.concatenate((cell[:, 1:].ravel(), cell[1:].ravel())),
        ),
        "complete": complete(round((2 * size) ** 0.5)),
        "star": shuffled(np.zeros_like(line), line + 1),
        "matching": shuffled(2 * line, 2 * line + 1),
        "degrees near 10": shuffled(*ends),
    }


def complete(n: int) -> Any:
    return shuffled(*np.triu_indices(n, 1))


def held(field: str) -> int:
    """Bytes that this process holds now (VmRSS) or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def measure(path: str, traced: bool) -> dict[str, float]:
    from rankdiag.graphs import wis_order

    wis_order([[0, 1], [1, 0]])  # imports are paid for here
    columns = np.load(path)
    num_edges = columns.shape[1] // 2
    if traced:
        tracemalloc.start()
        wis_order(columns)
        return {"traced": tracemalloc.get_traced_memory()[1] / num_edges}
    before = held("VmRSS")
    start = time.process_time()
    order = wis_order(columns)
    spent = time.process_time() - start
    peak = (held("VmHWM") - before) / num_edges
    u, v = np.ascontiguousarray(order.edges.T)
    start = time.process_time()
    np.lexsort((v, u))
    return {"time": spent, "sort": time.process_time() - start, "peak": peak}


def apart(columns: Any) -> dict[str, float]:
    """Measure in processes of their own."""
    row: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "columns.npy"
        np.save(path, columns)
        del columns
        for one in ("time", "traced"):
            command = [sys.executable, __file__, "--columns", str(path), "--one", one]
            row.update(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return row


def line(name: str, size: int, row: dict[str, float]) -> str:
    return (
        f"{name:<22} {size:>11,} edges: {row['time']:8.3f} s, {row['time'] / row['sort']:5.2f} times one lexsort "
        f"({row['sort']:.3f} s); {row['traced']:.0f} bytes an edge traced, {row['peak']:.0f} in the process"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--complete", type=int, nargs="+", default=[])
    parser.add_argument("--one", choices=["time", "traced"], help=argparse.SUPPRESS)
    parser.add_argument("--columns", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.columns, chosen.one == "traced")))
        return
    if chosen.shapes or chosen.complete:
        for name, columns in {
            **(shapes() if chosen.shapes else {}),
            **{f"complete, {n} vertices": complete(n) for n in chosen.complete},
        }.items():
            print(line(name, columns.shape[1] // 2, apart(columns)), flush=True)
        return
    rows = []
    for size in chosen.edges:
        rows.append(apart(chung_lu(size)))
        print(line("hubs", size, rows[-1]), flush=True)
    if len(rows) > 1:
        wide = math.log(chosen.edges[-1] / chosen.edges[0])
        slopes = {name: math.log(rows[-1][name] / rows[0][name]) / wide for name in ("time", "sort")}
        print(f"slope of log time over log edges: {slopes['time']:.3f}; of lexsort {slopes['sort']:.3f}")


if __name__ == "__main__":
    main()

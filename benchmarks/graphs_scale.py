"""Removal orders at depth 2 of random graphs with heavy hubs as they grow: time, slope and memory.

``python benchmarks/graphs_scale.py [--edges 100000 1000000 10000000]`` prints for each size the CPU time of
``wis_order(edge_index)``, of one ``numpy.lexsort`` of the same edges, and their ratio; the peak of memory that the call
adds to its input in bytes an edge, as tracemalloc counts it and as the process grows; and, between the first and the
last size, the slopes of log time over log edges. Every size runs in a process of its own.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--one", choices=["time", "traced"], help=argparse.SUPPRESS)
    parser.add_argument("--columns", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.columns, chosen.one == "traced")))
        return
    rows = []
    for size in chosen.edges:
        row: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "columns.npy"
            np.save(path, chung_lu(size))
            for one in ("time", "traced"):
                command = [sys.executable, __file__, "--columns", str(path), "--one", one]
                row.update(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        rows.append(row)
        print(
            f"{size:>11,} edges: {row['time']:8.3f} s, {row['time'] / row['sort']:5.2f} times one lexsort "
            f"({row['sort']:.3f} s); {row['traced']:.0f} bytes an edge traced, {row['peak']:.0f} in the process",
            flush=True,
        )
    if len(rows) > 1:
        wide = math.log(chosen.edges[-1] / chosen.edges[0])
        slopes = {name: math.log(rows[-1][name] / rows[0][name]) / wide for name in ("time", "sort")}
        print(f"slope of log time over log edges: {slopes['time']:.3f}; of lexsort {slopes['sort']:.3f}")


if __name__ == "__main__":
    main()

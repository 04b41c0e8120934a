"""How cost grows with the work: CPU seconds and peak memory for ten and a hundred times the entries.

``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/slopes.py`` prints, for each measurement, the three sizes
and the exponent e of ``seconds ~ entries^e`` between neighbours. A square SVD has e = 1.5, one pass over the data 1.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

import rankdiag as rd
from rankdiag.weights import power_law_tail

ENTRIES = (40_000, 400_000, 4_000_000)
MEGABYTE = 1 << 20


def square(entries: int) -> np.ndarray:
    side = math.isqrt(entries)
    return np.random.default_rng(0).standard_normal((side, side))


def values(entries: int) -> np.ndarray:
    return np.random.default_rng(0).pareto(2.0, entries // 100) + 1


MEASUREMENTS: dict[str, tuple[Callable[[int], Any], Callable[[Any], Any]]] = {
    "numpy SVD (the plain way)": (square, lambda matrix: np.linalg.svd(matrix, compute_uv=False)),
    "spectrum, need='rank'": (square, rd.spectrum),
    "effective_rank": (square, rd.effective_rank),
    "stable_rank": (square, rd.stable_rank),
    "power_law_tail of entries/100 values": (values, power_law_tail),
}


def main() -> None:
    rd.effective_rank(np.eye(600))  # load what is loaded on first use
    for name, (make, work) in MEASUREMENTS.items():
        print(name)
        seconds = []
        for entries in ENTRIES:
            data = make(entries)
            rounds = []
            for _ in range(3):
                start = time.process_time()
                work(data)
                rounds.append(time.process_time() - start)
            seconds.append(sorted(rounds)[1])
            tracemalloc.start()
            work(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            slope = f"e = {math.log10(seconds[-1] / seconds[-2]):.2f}" if len(seconds) > 1 and seconds[-2] > 0 else ""
            print(
                f"  {entries:9d} entries  {seconds[-1]:8.4f} s  {slope:9s}  "
                f"peak {peak / MEGABYTE:7.1f} MB beyond {data.nbytes / MEGABYTE:.1f} MB of data"
            )


if __name__ == "__main__":
    main()

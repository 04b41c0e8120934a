"""CPU time of ``weight_report`` over that of WeightWatcher's ``analyze``, on the same layers in one run.

Not part of the suite, since WeightWatcher is no dependency: in an environment that has both, run
``OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/against_weightwatcher.py``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import sys
import time
from collections.abc import Callable

import torch
import weightwatcher

import rankdiag as rd

LAYERS, ROUNDS = 10, 3


def seconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(size, size, bias=False) for _ in range(LAYERS)))
    with torch.no_grad():
        for layer in model:
            layer.weight.copy_(torch.randn(size, size, generator=generator))
    theirs = seconds(lambda: weightwatcher.WeightWatcher(model=model).analyze())
    ours = seconds(lambda: rd.weight_report(model))
    print(f"{LAYERS} layers {size}x{size} float32, CPU seconds on one thread, median of {ROUNDS}")
    print(f"WeightWatcher {weightwatcher.__version__} analyze()  {theirs:8.2f}")
    print(f"rankdiag weight_report, every column   {ours:8.2f}")
    print(f"ratio                                  {ours / theirs:8.3f}")


if __name__ == "__main__":
    main()

"""Everything of the rewards room beside plain code and limits, in turns, so that a slow machine slows all of them.

``OMP_NUM_THREADS=1 python benchmarks/rewards_ratios.py [part of a group's name ...]`` takes the groups of
``bench_rewards_*.py`` at full size, makes each work once, and then all works of a group once in every one of five
rounds. Printed are the least CPU seconds, and the medians over rounds of two ratios: to the first entry of the group,
and to its second, which is a limit or another plain way.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

MODULES = ("pairs", "flow", "tables", "prompts", "readings", "transfer", "models")
ROUNDS, SIZE = 5, 1024


def seconds_of(works: dict[str, Any], names: list[str]) -> dict[str, list[float]]:
    """Return the CPU seconds of each work in each round."""
    first = works[names[0]]()
    for name in names[1:]:
        found = works[name]()
        if found is not None and first is not None:
            np.testing.assert_allclose(found, first, rtol=1e-4, atol=1e-8, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            begun = time.process_time()
            works[name]()
            seconds[name].append(time.process_time() - begun)
    return seconds


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for module in MODULES:
        cases = importlib.import_module(f"bench_rewards_{module}").CASES
        for group, (make, names) in cases.items():
            if wanted and not any(part in group for part in wanted):
                continue
            with threadpool_limits(1):
                seconds = seconds_of(make(SIZE), list(names))
            plain, limit = (list(seconds.values())[place] for place in (0, 1))
            print(group)
            for name, values in seconds.items():
                ratios = (
                    statistics.median(value / other for value, other in zip(values, others, strict=True))
                    for others in (plain, limit)
                )
                shown = "".join(f"{ratio:9.3f}" for ratio in ratios)
                print(f"  {name:34s} {min(values):9.4f} s {shown}", flush=True)


if __name__ == "__main__":
    main()

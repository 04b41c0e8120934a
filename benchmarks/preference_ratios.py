"""Scores beside bare forwards, in turns, so that a machine that slows down slows all of them.

``python benchmarks/preference_ratios.py`` takes the random pairs of ``bench_language_models.py`` and runs each piece
of work once in every one of five rounds. Printed are the median CPU seconds and their ratio to the fastest bare
forward (in batches of 4, of 16, and of the plan).
"""

from __future__ import annotations

import statistics
import time

import bench_language_models as bench
import torch

from rankdiag.preference import score_preferences

ROUNDS = 5


def main() -> None:
    torch.set_num_threads(1)
    model, data = bench.random_pairs(1024)
    works = {
        "bare, batches of 4": bench.bare(4)(model, data),
        "bare, batches of 16": bench.bare(16)(model, data),
        "bare, planned batches": bench.bare(0)(model, data),
        "CHES": lambda: score_preferences(model, data, columns=("ches", "ln_ches", "relative")),
        "CHES and edit similarity": lambda: score_preferences(model, data),
        "CHES, edit similarity, head": lambda: score_preferences(model, data, head_score=True),
        "plain loop of two forwards": bench.plain_loop(model, data),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.process_time()
            work()
            seconds[name].append(time.process_time() - begun)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bare = min(value for name, value in medians.items() if name.startswith("bare"))
    for name, value in medians.items():
        print(f"{name:30s} {value:6.2f} s  {value / bare:6.3f}  {len(data) / value:6.1f} pairs/s")


if __name__ == "__main__":
    main()

"""Benchmarks run on one thread and are read as ratios of CPU time within one run.

``python -m pytest benchmarks --benchmark-enable`` runs them; ``RANKDIAG_BENCHMARK_SIZE=128`` makes a smoke run.
Each group ends with one line for each entry: its median over that of the group's baseline.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits

SIZE = int(os.environ.get("RANKDIAG_BENCHMARK_SIZE", "1024"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def size() -> int:
    return SIZE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    groups = defaultdict(list)
    for entry in getattr(session, "benchmarks", ()):
        if entry.stats.data:
            groups[entry.group].append(entry)
    for group, entries in groups.items():
        baseline = [entry for entry in entries if entry.extra_info.get("baseline")]
        if not baseline:
            continue
        terminalreporter.write_line(f"{group}: CPU time over {baseline[0].name} ({baseline[0].stats.median:.3f} s)")
        for entry in entries:
            bound = entry.extra_info.get("goal")
            goal = f"   (goal: at most {bound})" if bound else ""
            ratio = entry.stats.median / baseline[0].stats.median
            terminalreporter.write_line(f"  {ratio:7.3f}  {entry.name}{goal}")

"""Benchmarks run on one thread and are read as ratios of CPU time within one run.

``python -m pytest benchmarks --benchmark-enable`` runs them; ``RANKDIAG_BENCHMARK_SIZE=128`` makes a smoke run.
Each group ends with one line for each entry: its median over that of the group's baseline.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
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


@pytest.fixture(scope="session")
def compare(size: int) -> Callable[..., None]:
    """Measure one entry of a group, and compare what it returns with what the group's first entry returns.

    A module's ``CASES`` maps the name of a group to a function of the size, which makes {name: work without arguments},
    and to {name: goal}: the first name is the baseline. A work that returns None is a limit, and compared with nothing.
    """
    made: dict[str, Any] = {}

    def measure(benchmark: Any, cases: dict[str, Any], group: str, name: str) -> None:
        make, goals = cases[group]
        first = next(iter(goals))
        if made.get("group") != group:
            made.clear()
            works = make(size)
            made.update(group=group, works=works, plain=works[first]())
        benchmark.group = group
        benchmark.extra_info.update({"goal": goals[name] or 0, "baseline": name == first})
        found = benchmark.pedantic(made["works"][name], rounds=3, iterations=1, warmup_rounds=0 if name == first else 1)
        if found is not None:
            np.testing.assert_allclose(found, made["plain"], rtol=1e-4, atol=1e-8)

    return measure


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

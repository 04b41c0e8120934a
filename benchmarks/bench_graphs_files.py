"""A list of a million edges read from a file, beside a loop over its lines and numpy's reader of text.

The loop splits every line; numpy's reader gives the two columns and nothing else. `read_graph` also finds the graph
behind them: which lines repeat, which are loops, which edge each line is.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankdiag.adapters import read_graph
from rankdiag.adapters._edge_lines import parse

Works = dict[str, Callable[[], Any]]
FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def split_lines(path: Path, delimiter: str | None) -> list[tuple[int, int]]:
    found = []
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            fields = line.split(delimiter)
            found.append((int(fields[0]), int(fields[1])))
    return found


def ids_of(path: Path) -> Any:
    found = parse(path.read_bytes(), path.name)
    return np.stack((found.source, found.target), axis=1)


def reading(size: int, name: str, fmt: list[str], delimiter: str | None) -> Works:
    count = 1_000_000 if size >= 1024 else 20_000
    rng = np.random.default_rng(0)
    path = FOLDER / f"{count}-{name}"
    if not path.exists():
        columns = [*rng.integers(0, count // 5, size=(2, count)), rng.integers(0, 1000, size=count)]
        np.savetxt(path, np.stack(columns[: len(fmt)], axis=1), fmt=fmt, delimiter=delimiter or " ")
    return {
        "loop over lines": lambda: split_lines(path, delimiter),
        "numpy.loadtxt": lambda: np.loadtxt(path, np.int64, delimiter=delimiter, usecols=(0, 1)),
        "lines to ids": lambda: ids_of(path),
        "read_graph": lambda: read_graph(path).columns.T,
    }


def bare(size: int) -> Works:
    return reading(size, "bare.txt", ["%d", "%d"], None)


def weighted(size: int) -> Works:
    return reading(size, "weighted.csv", ["%d", "%d", "%d"], ",")


def floats(size: int) -> Works:
    return reading(size, "floats.tsv", ["%d", "%d", "%.3f"], "\t")


LINES: dict[str, Any] = {"loop over lines": None, "numpy.loadtxt": None, "lines to ids": None, "read_graph": None}
CASES: dict[str, Any] = {
    "a million lines of two ids": (bare, LINES),
    "a million lines with an integer weight, by commas": (weighted, LINES),
    "a million lines with a decimal weight, by tabs": (floats, LINES),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_files(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

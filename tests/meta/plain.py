"""Legal plain calls of everything public: found by trying, or listed here where trying cannot know.

The list holds what a signature does not say (a path, a callable under test, two shapes that must agree). A new
function that no automatic choice satisfies fails its test until it is listed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import rankdiag as rd
from meta.surface import Entry, classes, functions, methods
from rankdiag._rng import as_generator
from rankdiag.testing._fuzz import plain_result

# These are not called with wild values: the reason stands beside each.
NOT_FUZZED = {
    "rankdiag.cli.main": "reads a command line of texts and ends in exit codes; tests/cli runs it as a process",
}

MATRIX = np.array([[2.0, 0.5, 0.0], [0.1, 1.0, 0.3], [0.0, 0.2, 0.5], [1.0, -1.0, 0.25]])


def checked(value: float) -> float:
    return float(np.clip(value, 0.0, 1.0)) if isinstance(value, float) and value == value else 0.0


def spectrum() -> Any:
    return rd.spectrum(MATRIX)


ARGUMENTS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "rankdiag.report.from_json": lambda: {"text": rd.report.to_json(spectrum())},
    "rankdiag.report.to_html": lambda: {"results": spectrum()},
    "rankdiag.report.to_json": lambda: {"results": spectrum()},
    "rankdiag.report.to_text": lambda: {"results": spectrum()},
    "rankdiag.report.write_html": lambda: {"results": spectrum(), "path": "written.html"},
    "rankdiag.report.write_json": lambda: {"results": spectrum(), "path": "written.json"},
    "rankdiag.weights.power_law_tail": lambda: {"evals": np.linspace(1.0, 3.0, 60) ** 4},
    "rankdiag.result_from_dict": lambda: {"data": spectrum().to_dict()},
    "rankdiag.result_from_json": lambda: {"text": spectrum().to_json()},
    "rankdiag.testing.fuzz": lambda: {"function": checked, "max_cases": 3},
    "rankdiag.testing.strategies.orthogonal": lambda: {"rows": 3, "columns": 2},
}


def arguments(name: str) -> dict[str, Any]:
    return dict(ARGUMENTS[name]()) if name in ARGUMENTS else {}


def fuzzed_functions() -> tuple[Entry, ...]:
    plain = [entry for entry in classes() if not dataclasses.is_dataclass(entry.value)]
    built = [
        entry for entry in plain if not issubclass(entry.value, BaseException) and not inspect.isabstract(entry.value)
    ]
    return tuple(entry for entry in (*functions(), *built) if entry.name not in NOT_FUZZED)


@functools.cache
def result_of(name: str) -> Any:
    entry = next(entry for entry in fuzzed_functions() if entry.name == name)
    return plain_result(entry.value, arguments=arguments(name))


def _parts(value: Any, depth: int = 0) -> list[Any]:
    if depth > 3 or isinstance(value, (str, bytes, np.ndarray, type)):
        return []
    if isinstance(value, (list, tuple)):
        return [part for entry in value[:3] for part in _parts(entry, depth + 1)]
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return [value, *(part for field in fields for part in _parts(field, depth + 1))]
    return [value]


@functools.cache
def instances() -> dict[type, Any]:
    """Return one object of every public class that some plain call returns, and of every type of BACKENDS."""
    found: dict[type, Any] = {}
    values = []
    for entry in fuzzed_functions():
        try:
            values.append(result_of(entry.name))
        except Exception:
            continue
    for value in (*values, *rd.testing.BACKENDS):
        for part in _parts(value):
            found.setdefault(type(part), part)
    return found


def fuzzed_methods() -> tuple[tuple[str, type, str], ...]:
    """Return (name, class, method) of every public method of those objects, each function once."""
    seen: set[int] = set()
    found = []
    public = {entry.value: entry.name for entry in classes()}
    for cls, name in public.items():
        if cls in instances():
            for method, value in methods(cls).items():
                function = getattr(value, "__func__", value)
                if id(function) not in seen and not isinstance(value, property):
                    seen.add(id(function))
                    found.append((f"{name}.{method}", cls, method))
    return tuple(sorted(found, key=lambda item: item[0]))


def generator(seed: int) -> Any:
    return as_generator(seed)[0]

"""Thread-safety smoke: every public function gives from many threads what it gives from one."""

from __future__ import annotations

import dataclasses
import inspect
import threading

import numpy as np
import pytest

from meta.plain import arguments, fuzzed_functions
from rankdiag._result import Result
from rankdiag.testing._fuzz import _Runner
from rankdiag.testing._signature import parameters_of

THREADS, ROUNDS = 4, 3
# Fuzzing and guarding are about global state, which threads share; writing one file from many threads is pointless.
FOR_ONE_THREAD = (
    "rankdiag.testing.",
    "rankdiag.report.write_",
    "rankdiag.language_models.Journal",
    "rankdiag.preference.export",
    "rankdiag.preference.logprob_change_along",  # it moves the parameters of its model, and back
    "rankdiag.preference.merge_scores",
)


def comparable(value):
    """Return what can be compared: numbers, arrays as lists, results without the seconds that they took."""
    if isinstance(value, Result):
        return comparable(value.to_dict())
    if dataclasses.is_dataclass(value):
        return {f.name: comparable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: comparable(entry) for key, entry in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [comparable(entry) for entry in value]
    if hasattr(value, "detach"):
        return value.detach().tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__


FUNCTIONS = [entry for entry in fuzzed_functions() if not entry.name.startswith(FOR_ONE_THREAD)]


@pytest.mark.parametrize("entry", FUNCTIONS, ids=lambda entry: entry.name)
def test_many_threads_agree_with_one(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = arguments(entry.name)
    if "rng" in inspect.signature(entry.value).parameters:
        given["rng"] = 0
    runner = _Runner(function=entry.value, parameters=parameters_of(entry.value))
    plain = runner.plain_call(given)

    def once():
        return comparable(entry.value(**{name: make() for name, make in plain.items()}))

    expected = once()
    found, errors = [], []
    start = threading.Barrier(THREADS)

    def work():
        start.wait()
        try:
            found.extend([once() for _ in range(ROUNDS)])
        except BaseException as error:  # shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(found) == THREADS * ROUNDS
    assert all(value == expected for value in found)

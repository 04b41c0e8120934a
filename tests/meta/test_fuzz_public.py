"""Every public function and method is fuzzed; the number of cases is counted and printed.

The default run varies one argument at a time; the slow one lets every array meet every option.
"""

from __future__ import annotations

import builtins
import inspect

import pandas as pd  # noqa: F401 - loaded, so that data frames are among the values
import pytest
import scipy.sparse  # noqa: F401 - the same for sparse matrices
import torch  # noqa: F401 - and for tensors
from numpydoc.docscrape import FunctionDoc

from meta.plain import ASSERTS, NAN_OK, NOT_FUZZED, arguments, fuzzed_functions, fuzzed_methods, result_of
from meta.surface import classes, entries, functions
from rankdiag.testing import fuzz

CASES: dict[str, int] = {}
FEW_PARAMETERS = 4  # up to here even the default run combines


def documented_errors(function) -> tuple[type[BaseException], ...]:
    """Return the exceptions that the section Raises promises, beside ValueError and TypeError."""
    public = {entry.name.rpartition(".")[2]: entry.value for entry in entries()}
    names = {
        part.type.strip() or part.name.strip() for part in FunctionDoc(function, doc=inspect.getdoc(function))["Raises"]
    }
    found = [getattr(builtins, name, public.get(name)) for name in names - {"AssertionError", "Exception"}]
    return tuple(value for value in found if isinstance(value, type) and issubclass(value, Exception))


def run(name, function, plain, combine, qualname=""):
    allowed = documented_errors(function) + ((AssertionError,) if qualname in ASSERTS else ())
    report = fuzz(
        function,
        arguments=plain,
        allowed=allowed,
        combine=combine,
        nan_ok={qualname, name.rpartition(".")[2]} & NAN_OK != set(),
        time_limit=30.0,
    )
    CASES[f"{name}, combined" if combine else name] = report.cases
    report.raise_for_violations()
    assert report.returned > 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own for functions that write files under wild names."""
    monkeypatch.chdir(tmp_path)


# Fuzzed with the slow tests, so that the default run stays short.
SLOW = (
    *("rankdiag.adapters.", "rankdiag.monitors.Reward", "rankdiag.monitors.wrap", "rankdiag.rewards."),
    *("rankdiag.graphs.", "rankdiag.walk_index", "rankdiag.wis_"),
    *("rankdiag.language_models.as_batch_fn", "rankdiag.preference.displacement_score"),
    "rankdiag.preference.head_pressure",
)


def cases(entries) -> list:
    return [
        pytest.param(entry, id=entry.name, marks=[pytest.mark.slow] * entry.name.startswith(SLOW)) for entry in entries
    ]


def few(function) -> bool:
    return len(inspect.signature(function).parameters) <= FEW_PARAMETERS


@pytest.mark.parametrize("entry", cases(fuzzed_functions()))
def test_functions(entry, folder):
    run(entry.name, entry.value, arguments(entry.name), combine=few(entry.value))


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry", [entry for entry in fuzzed_functions() if not few(entry.value)], ids=lambda entry: entry.name
)
def test_functions_with_every_option(entry, folder):
    run(entry.name, entry.value, arguments(entry.name), combine=True)


@pytest.mark.parametrize("method", cases(fuzzed_methods()))
def test_methods(method, folder):
    run(method.name, method.bound(), method.arguments(), combine=True, qualname=method.qualname)


def test_what_is_left_out_exists_and_has_its_reason():
    names = {entry.name for entry in (*functions(), *classes())}
    for name, reason in NOT_FUZZED.items():
        assert name in names
        assert len(reason) > 20


@pytest.mark.parametrize("entry", fuzzed_functions(), ids=lambda entry: entry.name)
def test_plain_calls_are_known(entry, folder):
    result_of(entry.name)


def test_number_of_cases(capsys, record_property):
    """Print how many calls were made; this test comes last in its file."""
    total = sum(CASES.values())
    record_property("fuzz_cases", total)
    with capsys.disabled():
        print(f"\n  fuzzed {len(CASES)} functions and methods: {total} calls")
    if len(CASES) >= len(fuzzed_functions()):  # not when a part of this file is selected
        assert total >= 10_000

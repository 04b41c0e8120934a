"""The guard of global state: what it sees, what it forgives, what it puts back."""
# ruff: noqa: NPY002 - the legacy state of numpy is one of the things that are guarded

import logging
import os
import random
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorly
import torch

from rankdiag.testing import GlobalStateError, no_global_change
from rankdiag.testing._guard import _PROBES


def matplotlib_settings():
    import matplotlib

    matplotlib.rcParams["lines.linewidth"] = 7.0


def environment():
    os.environ["RANKDIAG_TEST"] = "1"


OFFENCES = {
    "python random state": lambda: random.random(),
    "numpy random state": lambda: np.random.rand(),
    "numpy error handling": lambda: np.seterr(over="ignore"),
    "numpy print options": lambda: np.set_printoptions(precision=3),
    "torch random state": lambda: torch.rand(1),
    "torch default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch default device": lambda: torch.set_default_device("meta"),
    "torch gradient mode": lambda: torch.set_grad_enabled(False),
    "torch threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "torch matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "tensorly backend": lambda: tensorly.set_backend("pytorch"),
    "warning filters": lambda: warnings.simplefilter("ignore"),
    "root logger": lambda: logging.getLogger().setLevel(logging.DEBUG),
    "working directory": lambda: os.chdir("/"),
    "environment variables": environment,
    "sys.path": lambda: sys.path.append("/nowhere"),
    "matplotlib settings": matplotlib_settings,
}
FLAVOURS = {
    "seed of numpy": ("numpy random state", lambda: np.random.seed(0)),
    "seed of torch": ("torch random state", lambda: torch.manual_seed(0)),
    "a handler": ("root logger", lambda: logging.getLogger().addHandler(logging.NullHandler())),
    "a removed variable": ("environment variables", lambda: os.environ.pop("PATH")),
    "a changed variable": ("environment variables", lambda: os.environ.update(PATH="")),
    "the first filter": ("warning filters", lambda: warnings.filters.pop(0)),
}


@pytest.fixture(autouse=True)
def _everything_is_loaded():
    import matplotlib  # noqa: F401 - loaded so that it is watched


def test_every_state_has_its_offence():
    """A state that nothing here changes would be watched on trust."""
    assert set(OFFENCES) | {"torch random state of CUDA", "torch inference mode"} == set(_PROBES)


@pytest.mark.parametrize(("state", "offence"), [*OFFENCES.items(), *FLAVOURS.values()])
def test_a_change_is_seen_named_and_put_back(state, offence):
    before = _PROBES[state].read()
    with pytest.raises(GlobalStateError, match=f"the block changed {state} "), no_global_change():
        offence()
    assert _PROBES[state].read() == before


def test_random_states_are_put_back_exactly():
    def offend():
        random.seed(1)
        np.random.standard_normal()  # also fills the cache of the second normal number
        torch.randn(3)

    expected = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with pytest.raises(GlobalStateError) as caught, no_global_change():
        offend()
    for state in ("python", "numpy", "torch"):
        assert f"{state} random state" in str(caught.value)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == expected


def test_inference_mode_is_seen():
    mode = torch.inference_mode()
    try:
        with pytest.raises(GlobalStateError, match="torch inference mode"), no_global_change(restore=False):
            mode.__enter__()
    finally:
        mode.__exit__(None, None, None)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.changes_global_state("python random state")
def test_restore_may_be_switched_off():
    before = random.getstate()
    with pytest.raises(GlobalStateError), no_global_change(restore=False):
        random.random()
    assert random.getstate() != before


def test_no_change_is_no_error():
    with no_global_change():
        np.random.default_rng(0).random()
        torch.rand(2, generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
        state = random.getstate()
        random.random()
        random.setstate(state)


def test_an_error_of_the_block_passes_through_with_a_note():
    def offend():
        random.random()
        raise KeyError("x")

    before = random.getstate()
    with pytest.raises(KeyError) as caught, no_global_change():
        offend()
    assert caught.value.__notes__ == ["the block changed python random state (it is another one now)"]
    assert random.getstate() == before
    with pytest.raises(KeyError) as caught, no_global_change():
        raise KeyError("x")
    assert not hasattr(caught.value, "__notes__")


def test_ignore():
    state = random.getstate()
    with no_global_change(ignore=["python random state"]):
        random.random()
    random.setstate(state)
    with pytest.raises(ValueError, match=r"`ignore` must hold names among python random state, .*; got 'nothing'"):
        no_global_change(ignore=["nothing"])
    for value in ("warning filters", 3):
        with pytest.raises(TypeError, match="`ignore`"):
            no_global_change(ignore=value)
    with pytest.raises(TypeError, match="`restore`"):
        no_global_change(restore=1)


def test_as_a_decorator():
    @no_global_change()
    def careless():
        return random.random()

    for _ in range(2):
        with pytest.raises(GlobalStateError):
            careless()


def test_one_guard_may_be_entered_again_while_it_is_open():
    guard = no_global_change()

    @guard
    def deeper(depth):
        return deeper(depth - 1) if depth else random.random()

    with pytest.raises(GlobalStateError):
        deeper(3)
    with guard, guard:
        pass


def test_messages_say_what_became_of_it(monkeypatch):
    with (
        pytest.raises(GlobalStateError, match=r"torch default dtype \(torch.float32 -> torch.float64\)"),
        no_global_change(),
    ):
        torch.set_default_dtype(torch.float64)
    with pytest.raises(GlobalStateError, match=r"variables \(RANKDIAG_TEST\)$"), no_global_change():
        environment()


def run(script, *arguments, cwd=None):
    command = [sys.executable, *arguments, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_nothing_is_imported_to_be_watched():
    process = run(
        """
        import sys
        from rankdiag.testing import no_global_change
        with no_global_change():
            pass
        loaded = {"numpy", "torch", "tensorly", "matplotlib"} & set(sys.modules)
        assert not loaded, loaded
        """
    )
    assert process.returncode == 0, process.stderr


def test_the_first_import_of_a_foreign_package_is_forgiven_and_no_later_change(tmp_path):
    (tmp_path / "foreign.py").write_text(
        "import os, warnings, random\n"
        "warnings.simplefilter('ignore', ResourceWarning)\n"
        "os.environ['FOREIGN'] = '1'\n"
        "def touch():\n    warnings.simplefilter('error', ResourceWarning)\n"
    )
    process = run(
        """
        import sys, random
        from rankdiag.testing import no_global_change, GlobalStateError
        with no_global_change():
            import foreign
        with no_global_change():
            import foreign
        for offence in (foreign.touch, random.random):
            try:
                with no_global_change():
                    offence()
            except GlobalStateError as error:
                print(error)
        sys.modules.pop("foreign")
        try:
            with no_global_change():
                import foreign
                random.random()
        except GlobalStateError as error:
            print("with import:", error)
        """,
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    first, second, third = process.stdout.splitlines()
    assert "warning filters" in first
    assert "python random state" in second
    assert third == "with import: the block changed python random state (it is another one now)"


OFFENDERS = """
import os, random, warnings
import pytest
from hypothesis import given, strategies as st

def test_clean(monkeypatch, tmp_path):
    monkeypatch.setenv("A", "b")
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning):
        warnings.warn("x")

@given(st.integers())
def test_clean_property(x): random.random()

def test_bad_random(): random.random()
def test_bad_filters(): warnings.simplefilter("ignore")
def test_bad_environment(): os.environ["NEW"] = "1"
def test_bad_folder(): os.chdir("/")
def test_clean_after_all_of_them(): assert "NEW" not in os.environ

@pytest.mark.changes_global_state("environment variables")
def test_clean_with_leave(): os.environ["NEW"] = "1"
"""
OFFENDERS_WITH_TORCH = """
import numpy as np, torch
from hypothesis import given, strategies as st

def test_clean_import(): import tensorly

@given(st.integers())
def test_clean_property(x): np.random.rand()

def test_bad_numpy(): np.random.seed(3)
def test_bad_torch(): torch.manual_seed(3)
def test_bad_dtype(): torch.set_default_dtype(torch.float64)
def test_bad_threads(): torch.set_num_threads(3)
def test_bad_backend():
    import tensorly
    tensorly.set_backend("pytorch")

def test_clean_after_all_of_them(): assert torch.get_default_dtype() == torch.float32
"""


@pytest.mark.parametrize(
    "tests", [OFFENDERS, pytest.param(OFFENDERS_WITH_TORCH, marks=pytest.mark.slow)], ids=["", "torch"]
)
def test_every_test_of_this_suite_is_guarded(tmp_path, tests):
    """Run pytest on tests that offend, with the conftest of this suite: exactly the offenders fail."""
    conftest = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    (tmp_path / "test_offenders.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    changes_global_state: x\n")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    lines = process.stdout.splitlines()
    failed = {line.split("::")[1].split(" ")[0] for line in lines if line.startswith(("ERROR", "FAILED"))}
    names = [line.split("(")[0].removeprefix("def ") for line in tests.splitlines() if line.startswith("def test_")]
    assert failed == {name for name in names if name.startswith("test_bad")}, process.stdout
    for name in names:
        if name.startswith("test_clean"):
            assert f"PASSED test_offenders.py::{name}" in lines, process.stdout

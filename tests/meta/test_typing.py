"""The types that users see, checked by mypy as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rankdiag

ROOT = Path(__file__).parents[2]


def test_the_package_says_that_it_is_typed():
    assert (Path(rankdiag.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_snippets_have_the_types_they_assert():
    snippets = sorted(str(path) for path in (ROOT / "tests" / "typing").glob("*.py"))
    assert snippets
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *snippets]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert process.returncode == 0, process.stdout + process.stderr

"""The code in the pages runs and prints what the pages say; the tool that checks it is itself checked."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *(path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts)]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rankdiag_docs_blocks", DOCS / "blocks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def runs_code(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return any(f"```{language}\n" in text for language in ("python", "pycon", "console"))


SLOW = {
    "weights",
    "preference",
    "monitor-training",
    "rewards",
}  # transformers, the command called often, training


def cases() -> list[Any]:
    pages = [page for page in PAGES if runs_code(page)]
    return [pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in SLOW)) for page in pages]


@pytest.mark.parametrize("path", cases())
def test_page_prints_what_it_says(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "blocks.py"), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pages_with_code_are_found() -> None:
    assert {page.stem for page in PAGES if runs_code(page)} >= {"README", "start", "spectra", "weights", "reproduction"}


def run(tool: ModuleType, text: str, folder: Path) -> list[str]:
    page = tool.Page(text, folder)
    page.run()
    return [failure.got.strip() for failure in page.failures]


RIGHT = {
    "python": "```python\nprint(1 + 1)\n```\n\n```text\n2\n```\n",
    "python without output": "```python\nx = 3\n```\n",
    "pycon": '```pycon\n>>> x = 2\n>>> x * 3\n6\n>>> print("a  b")\na b\n```\n',
    "two lines": "```pycon\n>>> for i in range(2):\n...     print(i)\n0\n1\n```\n",
    "error": "```pycon\n>>> int('x')\nTraceback (most recent call last):\n  ...\nValueError: invalid ...\n```\n",
    "console": "```console\n$ echo one; echo two\none\ntwo\n$ true\n```\n",
    "any text": "```console\n$ echo a b c\na ... c\n```\n",
    "seconds": "```console\n$ echo it took 3.25 s\nit took 1.0 s\n```\n",
    "not run": "<!-- not run: because -->\n```console\n$ exit 3\nnothing\n```\n",
    "another language": "```toml\nx = 1\n```\n",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_output_passes(tool: ModuleType, name: str, tmp_path: Path) -> None:
    assert run(tool, RIGHT[name], tmp_path) == []


WRONG = {
    "python": "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
    "unshown output": "```python\nprint(1 + 1)\n```\n",
    "output that no longer comes": "```python\nx = 3\n```\n\n```text\n3\n```\n",
    "an exception": "```python\nraise ValueError('no')\n```\n",
    "pycon": "```pycon\n>>> 2 * 3\n7\n```\n",
    "pycon, too little": "```pycon\n>>> 2 * 3\n```\n",
    "another error": "```pycon\n>>> int('x')\nTraceback (most recent call last):\n  ...\nTypeError: no\n```\n",
    "console": "```console\n$ echo 1\n2\n```\n",
    "console, too much": "```console\n$ true\nmore\n```\n",
    "a prefix": "```pycon\n>>> 66\n6\n```\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_output_is_caught(tool: ModuleType, name: str, tmp_path: Path) -> None:
    assert len(run(tool, WRONG[name], tmp_path)) == 1


def test_names_last_for_the_page(tool: ModuleType, tmp_path: Path) -> None:
    text = "```python\nx = 3\n```\n\nand then\n\n```pycon\n>>> x\n3\n```\n"
    assert run(tool, text, tmp_path) == []


@pytest.mark.parametrize("name", ["python", "pycon", "console", "pycon, too little", "another error"])
def test_written_page_passes(tool: ModuleType, name: str, tmp_path: Path) -> None:
    page = tool.Page(WRONG[name], tmp_path)
    page.run()
    assert page.written() != WRONG[name]
    assert run(tool, page.written(), tmp_path) == []


def test_writing_keeps_what_was_right(tool: ModuleType, tmp_path: Path) -> None:
    page = tool.Page("a\n```pycon\n>>> 'x y'\n'x ...'\n>>> 2\n3\n```\nb\n", tmp_path)
    page.run()
    assert page.written() == "a\n```pycon\n>>> 'x y'\n'x ...'\n>>> 2\n2\n```\nb\n"

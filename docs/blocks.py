"""Run the code of the documentation pages: ``python docs/blocks.py [--write] PAGE...``.

A page is read from top to bottom, in a folder of its own. What runs:

- a ```` ```python ```` block; if a ```` ```text ```` block follows at once, that is what it prints;
- a ```` ```pycon ```` block, a session with ``>>>``, with the values between;
- a ```` ```console ```` block: each line that starts with ``$ `` is a shell command, the lines below it its output.

A block below ``<!-- not run: reason -->`` is left alone. Outputs are compared word by word (runs of spaces count as
one); ``...`` stands for any text, and so does each number of seconds. ``--write`` puts what was printed into the page.
"""

from __future__ import annotations

import argparse
import code
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
SKIP = re.compile(r"<!-- not run: [^>]+ -->\s*\Z")
SECONDS = re.compile(r"\b\d+(?:\.\d+)?(?= s(?:econds)?\b)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and where that text lies in the page."""

    language: str
    text: str
    start: int
    end: int
    skipped: bool
    adjacent: bool  # nothing but space between it and the block before


@dataclass(frozen=True, slots=True)
class Failure:
    """A block whose output is not the one in the page."""

    line: int
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"line {self.line}\n--- in the page\n{self.wanted}\n--- printed\n{self.got}"


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    found: list[Block] = []
    last = 0
    for match in FENCE.finditer(page):
        before = page[last : match.start()]
        found.append(
            Block(
                language=match[1],
                text=match[2],
                start=match.start(2),
                end=match.end(2),
                skipped=SKIP.search(before) is not None,
                adjacent=bool(found) and not before.strip(),
            )
        )
        last = match.end()
    return found


def same(wanted: str, got: str) -> bool:
    """Whether an output is the one in the page."""
    pattern = r"\s+".join(
        ".*?".join(re.escape(part) for part in word.split("...")) for word in SECONDS.sub("...", wanted).split()
    )
    return re.fullmatch(pattern, got.strip(), re.DOTALL) is not None


class Page:
    """One page being run: its Python names, its folder, and the text with the outputs that were printed."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.failures: list[Failure] = []
        self.ran = 0
        self._edits: list[tuple[int, int, str]] = []

    def run(self) -> None:
        """Run every block."""
        found = blocks(self.text)
        for block, following in zip(found, [*found[1:], None], strict=True):
            if block.skipped:
                continue
            if block.language == "python":
                self.ran += 1
                printed = self._execute(block)
                if following is not None and following.language == "text" and following.adjacent:
                    self._compare(following, following.text, printed)
                elif printed.strip():
                    self._compare(block, "(no output block follows)", printed)
            elif block.language in {"pycon", "console"}:
                self.ran += 1
                prompt = ">>> " if block.language == "pycon" else "$ "
                self._session(block, prompt)

    def written(self) -> str:
        """Return the page with the outputs that were printed."""
        text = self.text
        for start, end, printed in sorted(self._edits, reverse=True):
            text = text[:start] + printed + text[end:]
        return text

    def _line(self, block: Block) -> int:
        return self.text.count("\n", 0, block.start) + 1

    def _compare(self, block: Block, wanted: str, got: str) -> None:
        if not same(wanted, got):
            self.failures.append(Failure(self._line(block), wanted, got))
            if block.language != "python":
                self._edits.append((block.start, block.end, got.rstrip("\n") + "\n"))

    def _execute(self, block: Block) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(block.text, f"<line {self._line(block)}>", "exec"), self.names)
            except Exception:
                traceback.print_exc(file=printed, limit=-1)
        return printed.getvalue()

    def _session(self, block: Block, prompt: str) -> None:
        got, wanted = [], []
        for entry, output in steps(block.text, prompt):
            printed = self._statement(entry) if prompt == ">>> " else self._command(entry)
            wanted.append((entry, output))
            got.append((entry, printed))
        if not all(same(before[1], after[1]) for before, after in zip(wanted, got, strict=True)):
            continued = "... " if prompt == ">>> " else "> "
            text = "".join(
                prompt + entry.replace("\n", f"\n{continued}") + "\n" + (kept if same(kept, printed) else printed)
                for (entry, kept), (_, printed) in zip(wanted, got, strict=True)
            )
            self.failures.append(Failure(self._line(block), block.text, text))
            self._edits.append((block.start, block.end, text))

    def _statement(self, source: str) -> str:
        printed = io.StringIO()
        interpreter = code.InteractiveInterpreter(self.names)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            hook, sys.excepthook = sys.excepthook, sys.__excepthook__
            try:
                interpreter.runcode(compile(source + "\n", "<stdin>", "single"))
            finally:
                sys.excepthook = hook
        return short_traceback(printed.getvalue())

    def _command(self, command: str) -> str:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment["COLUMNS"] = "100"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.stdout


def steps(text: str, prompt: str) -> list[tuple[str, str]]:
    """Split a session into what was typed and what came back."""
    continued = "... " if prompt == ">>> " else "> "
    found: list[tuple[str, str]] = []
    typing = False
    for line in text.splitlines():
        if line.startswith(prompt):
            found.append((line[len(prompt) :], ""))
            typing = True
        elif typing and line.startswith(continued):
            found[-1] = (f"{found[-1][0]}\n{line[len(continued) :]}", "")
        elif found:
            typing = False
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        else:
            raise ValueError(f"a session must start with {prompt!r}; got {line!r}")
    return found


def short_traceback(text: str) -> str:
    """Keep the first and the last line of a traceback, as documentation shows it."""
    if not text.startswith("Traceback"):
        return text
    lines = text.rstrip("\n").splitlines()
    first = next(i for i, line in enumerate(lines[1:], 1) if not line.startswith(" "))
    return "\n".join(["Traceback (most recent call last):", "  ...", *lines[first:]]) + "\n"


def run_page(path: Path) -> Page:
    """Run one page in a fresh folder, which is the current one meanwhile."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        page = Page(path.read_text(encoding="utf-8"), Path(folder))
        page.run()
    return page


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the code of documentation pages and compare its output.")
    parser.add_argument("--write", action="store_true", help="put what was printed into the pages")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    options = parser.parse_args()
    failed = False
    for path in [page.resolve() for page in options.pages]:
        page = run_page(path)
        print(f"{path.name}: {page.ran} blocks, {len(page.failures)} differ")
        for failure in page.failures:
            print(f"{path.name}, {failure}")
        if options.write and page.failures:
            path.write_text(page.written(), encoding="utf-8")
        failed = failed or bool(page.failures)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

"""``rankdiag demo``: the rooms that stand, run on small offline data, as one self-contained HTML page."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

from rankdiag._document import Document
from rankdiag._files import write_text
from rankdiag._optional import MissingExtraError
from rankdiag.cli import sections

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--output", metavar="DIR", default="rankdiag-demo", help="folder for report.html and the demo's own files"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo and return its exit code: 4 only if no section could run."""
    from rankdiag._html import render_page

    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    modules = found()
    parts, missing = [], None
    for module in modules:
        sys.stderr.write(f"{module.TITLE} ...")
        sys.stderr.flush()
        start = time.perf_counter()
        try:
            results = module.run(folder)
        except MissingExtraError as error:
            missing = error
            sys.stderr.write(" skipped\n")
            parts.append(Document(title=module.TITLE, explanation=f"Skipped: {error}"))
            continue
        sys.stderr.write(f" {time.perf_counter() - start:.1f} s\n")
        shown = tuple(result.document() for result in results)
        parts.append(Document(title=module.TITLE, explanation=module.INTRO, sections=shown))
        for result in results:
            sys.stdout.write(result.summary(max_rows=8) + "\n\n")
    if missing is not None and all(not part.sections for part in parts):
        raise missing
    page = Document(
        title="rankdiag demo",
        explanation="Each section runs one room of rankdiag on data that ships with its dependencies.",
        sections=tuple(parts),
    )
    path = write_text(folder / "report.html", render_page(page))
    sys.stdout.write(f"The whole report: {path}\n")
    return 0


def found() -> list[Any]:
    """Return the section modules in their order."""
    names = [module.name for module in pkgutil.iter_modules(sections.__path__)]
    modules = [importlib.import_module(f"{sections.__name__}.{name}") for name in names]
    return sorted(modules, key=lambda module: (module.ORDER, module.TITLE))

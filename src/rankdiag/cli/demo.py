"""``rankdiag demo``: the rooms that stand, run on small offline data, as one self-contained HTML page."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

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
    from rankdiag.report import Section, to_text, write_html

    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Section] = []
    skipped: list[str] = []
    missing = None
    for module in found():
        sys.stderr.write(f"{module.TITLE} ...")
        sys.stderr.flush()
        start = time.perf_counter()
        try:
            results = module.run(folder)
        except MissingExtraError as error:
            missing = error
            skipped.append(f"{module.TITLE} ({error})")
            sys.stderr.write(" skipped\n")
            continue
        sys.stderr.write(f" {time.perf_counter() - start:.1f} s\n")
        parts.append(Section(title=module.TITLE, intro=module.INTRO, results=results))
    if missing is not None and not parts:
        raise missing
    intro = "Each section runs one room of rankdiag on data that ships with its dependencies, on this machine."
    if skipped:
        intro += f" Not shown: {'; '.join(skipped)}."
    sys.stdout.write(to_text(parts, title="rankdiag demo", intro=intro, max_rows=8) + "\n")
    path = write_html(parts, folder / "report.html", title="rankdiag demo", intro=intro)
    sys.stdout.write(f"\nThe whole report: {path}\n")
    return 0


def found() -> list[Any]:
    """Return the section modules in their order."""
    names = [module.name for module in pkgutil.iter_modules(sections.__path__)]
    modules = [importlib.import_module(f"{sections.__name__}.{name}") for name in names]
    return sorted(modules, key=lambda module: (module.ORDER, module.TITLE))

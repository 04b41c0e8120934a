"""What the pages include and nobody writes by hand: the API index of every room, and the pictures.

``conf.py`` calls `main` before each build. A new room needs no change here: it is found by its folder.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType

import rankdiag

ROOT = Path(rankdiag.__file__).parent


def rooms() -> list[str]:
    """Return the public sub-packages that stand, in alphabetical order; the command line has its own page."""
    found = (path.parent.name for path in ROOT.glob("*/__init__.py"))
    return sorted(name for name in found if not name.startswith("_") and name != "cli")


def write(path: Path, text: str) -> None:
    """Write a file only if its content changes, so that a second build stays incremental."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def heading(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def listing(names: list[str]) -> list[str]:
    return [".. autosummary::", "   :toctree: .", "   :nosignatures:", "", *(f"   {name}" for name in names), ""]


def sort_names(module: ModuleType) -> tuple[list[str], list[str], list[str]]:
    """Return the public names of a module as functions, classes and modules."""
    functions, classes, modules = [], [], []
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        if inspect.ismodule(value):
            modules.append(name)
        elif inspect.isclass(value):
            classes.append(name)
        elif callable(value):
            functions.append(name)
    return functions, classes, modules


def module_page(name: str, folder: Path) -> None:
    """Write the page of one public module, and of its public modules in turn."""
    module = importlib.import_module(name)
    functions, classes, modules = sort_names(module)
    lines = [*heading(name, "="), f".. automodule:: {name}", "   :no-members:", "", f".. currentmodule:: {name}", ""]
    for title, names in (("Functions", functions), ("Classes", classes)):
        if names:
            lines += [*heading(title, "-"), *listing(names)]
    if modules:
        lines += [*heading("Modules", "-"), ".. toctree::", "   :maxdepth: 1", ""]
        lines += [f"   {name}.{inner} <module.{name}.{inner}>" for inner in modules] + [""]
    kind = "room" if name.count(".") == 1 else "module"
    write(folder / f"{kind}.{name}.rst", "\n".join(lines))
    for inner in modules:
        module_page(f"{name}.{inner}", folder)


def front_door(folder: Path) -> None:
    """Write the table of the names that ``import rankdiag`` offers, each linked to its room."""
    own, lines = [], []
    for name in sorted(rankdiag.__all__, key=str.lower):
        value = getattr(rankdiag, name)
        if inspect.ismodule(value) or isinstance(value, str):
            continue
        homes = [room for room in rooms() if name in importlib.import_module(f"rankdiag.{room}").__all__]
        if homes:
            kind = "class" if inspect.isclass(value) else "func"
            summary = (inspect.getdoc(value) or "").partition("\n")[0]
            lines.append(f"   * - :py:{kind}:`rankdiag.{name} <rankdiag.{homes[0]}.{name}>`\n     - {summary}")
        else:
            own.append(name)
    table = [".. list-table::", "   :widths: 35 65", "", *lines, ""]
    text = [
        *heading("import rankdiag as rd", "="),
        "The plainest call of each room, loaded on first use, and the rooms themselves.",
        "",
        ".. currentmodule:: rankdiag",
        "",
        *table,
        *heading("Of the front door itself", "-"),
        *listing(own),
    ]
    write(folder / "front_door.rst", "\n".join(text))


def api(folder: Path) -> None:
    """Write the API pages below `folder`."""
    for room in rooms():
        module_page(f"rankdiag.{room}", folder)
    front_door(folder)


def main(docs: Path) -> None:
    """Write everything that the pages include."""
    import pictures

    api(docs / "api" / "generated")
    pictures.main(docs / "_generated")

"""What is public, found by walking the installed package; nothing here is a list to keep up to date by hand."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import types
from dataclasses import dataclass
from typing import Any

import rankdiag


@dataclass(frozen=True, slots=True)
class Entry:
    """One public object, under the name a user finds it by."""

    name: str  # dotted, "rankdiag.spectral.effective_rank"
    value: Any

    @property
    def kind(self) -> str:
        if inspect.isclass(self.value):
            return "class"
        if inspect.ismodule(self.value):
            return "module"
        return "function" if callable(self.value) else "value"


def all_module_names() -> tuple[str, ...]:
    """Return every module of the package, private ones included."""
    found = [info.name for info in pkgutil.walk_packages(rankdiag.__path__, "rankdiag.", onerror=_raise)]
    return ("rankdiag", *sorted(found))


def _raise(name: str) -> None:
    raise ImportError(f"{name} cannot be imported")


@functools.cache
def module_names() -> tuple[str, ...]:
    """Return the public modules: the package, its rooms, and those modules of a room that the room announces."""
    found = []
    for name in all_module_names():
        parent, _, last = name.rpartition(".")
        if any(part.startswith("_") for part in name.split(".")):
            continue
        if parent in {"", "rankdiag"} or last in getattr(importlib.import_module(parent), "__all__", ()):
            found.append(name)
    return tuple(found)


def modules() -> dict[str, Any]:
    return {name: importlib.import_module(name) for name in module_names()}


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Return every public object once, under its deepest public name; modules are left out."""
    places: dict[int, list[tuple[str, Any]]] = {}
    for name, module in modules().items():
        for public in getattr(module, "__all__", ()):  # a missing list or name has a test of its own
            value = getattr(module, public, None)
            if value is None or inspect.ismodule(value):
                continue
            key = id(value) if callable(value) else hash((name, public))
            places.setdefault(key, []).append((f"{name}.{public}", value))
    found = [Entry(_home(names), names[0][1]) for names in places.values()]
    return tuple(sorted(found, key=lambda entry: entry.name))


def _home(places: list[tuple[str, Any]]) -> str:
    """Choose the package whose private module defines the object, else the shortest name."""
    defined = getattr(places[0][1], "__module__", "")

    def rank(name: str) -> tuple[bool, int, str]:
        package = name.rpartition(".")[0]
        inside = defined == package or defined.startswith(package + "._")
        return (not inside or package == "rankdiag", len(name), name)

    return min((name for name, _ in places), key=rank)


def functions() -> tuple[Entry, ...]:
    return tuple(entry for entry in entries() if entry.kind == "function")


def classes() -> tuple[Entry, ...]:
    return tuple(entry for entry in entries() if entry.kind == "class")


def methods(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class has from this package, by name."""
    kinds = (types.FunctionType, classmethod, staticmethod, property)
    bases = [base for base in reversed(cls.__mro__) if base.__module__.partition(".")[0] == "rankdiag"]
    return {
        name: value
        for base in bases
        for name, value in vars(base).items()
        if not name.startswith("_") and isinstance(value, kinds) and not _is_hook(cls, name)
    }


def _is_hook(cls: type, name: str) -> bool:
    """Whether a class of another package prescribes this method, with keywords that it may add to at any time."""
    foreign = [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in {"rankdiag", "builtins"}]
    prescribed = next((vars(base)[name] for base in foreign if name in vars(base)), None)
    if not isinstance(prescribed, types.FunctionType):
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(prescribed).parameters.values())


def method_entries() -> tuple[Entry, ...]:
    """Return every public method of every public class, once for each function."""
    found: dict[int, Entry] = {}
    for entry in classes():
        for name in methods(entry.value):
            bound = inspect.getattr_static(entry.value, name)
            function = getattr(bound, "__func__", getattr(bound, "fget", bound))
            found.setdefault(id(function), Entry(f"{entry.name}.{name}", function))
    return tuple(sorted(found.values(), key=lambda entry: entry.name))

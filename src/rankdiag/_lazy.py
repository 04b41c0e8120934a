"""Public names that load on first use (PEP 562); the types come from a hand-written stub beside each package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, names: Mapping[str, str], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make the module hooks of a package whose public names load on first use.

    Parameters
    ----------
    package : str
        The package, its ``__name__``.
    names : mapping of str to str
        Public name -> dotted name of the module that defines it.
    modules : iterable of str
        Public sub-modules.

    Returns
    -------
    getattr_, dir_, all_
        To be bound to ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """
    public = sorted({*names, *modules})
    submodules = frozenset(modules)

    def load(name: str) -> Any:
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(names[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        return sorted({*public, *vars(sys.modules[package])})

    return load, listing, public

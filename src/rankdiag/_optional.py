"""Optional packages: imported inside the function that needs them, through one helper.

Presence is not health: a package that is installed but raises while it is imported is reported like a
missing one, with its own error as the cause.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["MissingExtraError", "is_loaded", "optional"]


class MissingExtraError(ImportError):
    """An optional package is missing, or is installed but fails to import.

    The text names the feature that asked and the exact command that installs what it needs.
    """


def optional(module: str, *, extra: str, feature: str) -> Any:
    """Import an optional module now, or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted name of the module.
    extra : str
        Extra of rankdiag that installs it.
    feature : str
        What the caller was doing, for the message.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingExtraError
        If the module is absent or raises while it is imported.
    """
    command = f'python -m pip install "rankdiag[{extra}]"'
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name == root:
            raise MissingExtraError(
                f"{feature} needs the package {root!r}, which is not installed. Run: {command}",
                name=root,
            ) from error
        raise _broken(module, feature, command, error) from error
    except (Exception, SystemExit) as error:  # a broken package may raise anything at all
        raise _broken(module, feature, command, error) from error


def _broken(module: str, feature: str, command: str, error: BaseException) -> MissingExtraError:
    root = module.partition(".")[0]
    return MissingExtraError(
        f"{feature} needs the package {root!r}, which is installed but failed to import "
        f"({type(error).__name__}: {error}). Repair it with: {command} --upgrade",
        name=root,
    )


def is_loaded(module: str) -> bool:
    """Whether `module` has been imported; an object can be one of its types only then."""
    return sys.modules.get(module) is not None

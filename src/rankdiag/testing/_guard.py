"""Global state: what it consists of, what changed, and how it is put back."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import ContextDecorator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rankdiag._optional import is_loaded
from rankdiag._validate import boolean, names

__all__ = ["GlobalStateError", "changed", "no_global_change", "put_back", "snapshot"]


class GlobalStateError(AssertionError):
    """Global state was changed where nothing may change it; the text says which and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """One piece of global state.

    Attributes
    ----------
    package : str
        Module that must be loaded for the state to exist; empty if it always does.
    read : callable
        Returns the state as something that compares with ``==``.
    write : callable or None
        Puts the state back; None where that is impossible.
    imports_may_change : bool
        Whether the first import of somebody else's package may change it without being held against the block.
    """

    package: str = ""
    read: Callable[[], Any]
    write: Callable[[Any], Any] | None = None
    imports_may_change: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Global state at one moment: value of each probe, and how many modules were loaded."""

    values: Mapping[str, Any]
    modules: int


def snapshot(ignore: Collection[str] = ()) -> Snapshot:
    """Read all global state that exists now; nothing is imported for it."""
    values = {
        name: probe.read()
        for name, probe in _PROBES.items()
        if name not in ignore and (not probe.package or is_loaded(probe.package))
    }
    return Snapshot(values, len(sys.modules))


def changed(before: Snapshot, after: Snapshot) -> dict[str, str]:
    """Say what differs between two moments, by name of the state; what appeared in between is no change."""
    found = {}
    for name, old in before.values.items():
        new = after.values.get(name, old)
        if new != old and not (_PROBES[name].imports_may_change and _foreign(before.modules)):
            found[name] = _difference(old, new, show=name != "environment variables")  # their values may be secrets
    return found


def put_back(before: Snapshot, states: Collection[str]) -> None:
    """Restore the named state where that is possible."""
    for name in states:
        write = _PROBES[name].write
        if write is not None:
            write(before.values[name])


def _foreign(loaded: int) -> bool:
    """Whether a package of somebody else is among the modules that came after the first `loaded` ones."""
    roots = {module.partition(".")[0] for module in list(sys.modules)[loaded:]}
    return bool(roots - set(sys.stdlib_module_names) - {"rankdiag", "__main__", "__mp_main__"})


def _difference(old: Any, new: Any, show: bool) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key, _difference) != new.get(key, _difference)]
        if not show:
            return ", ".join(keys[:5])
        return ", ".join(f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys[:5])
    if isinstance(old, (tuple, list, bytes)):
        return "it is another one now"
    return f"{_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def no_global_change(*, ignore: Collection[str] = (), restore: bool = True) -> Guard:
    """Fail if the block, or the function it decorates, changes global state.

    Watched are the random states of Python, numpy and torch; numpy's error handling and print options; torch's
    default dtype and device, gradient mode, thread count, determinism and matmul precision; tensorly's backend;
    matplotlib's settings; warning filters; the root logger; the working directory, environment variables and
    ``sys.path``. A package that is not loaded is not imported to be watched. The first import of somebody else's
    package inside the block may add warning filters, environment variables, log handlers and search paths.

    Parameters
    ----------
    ignore : collection of str
        Names of states, as messages write them, that the block is allowed to change.
    restore : bool
        Whether a change is undone before the error is raised.

    Returns
    -------
    context manager and decorator
        Leaving it raises `GlobalStateError` if something changed. An error that the block itself raises passes
        through, with a note about the change.

    Raises
    ------
    TypeError
        If `ignore` is a string or no collection, or `restore` no boolean.
    ValueError
        If `ignore` holds an unknown name; the message lists the known ones.

    Notes
    -----
    Cost: about 0.1 ms for each use. State that belongs to a thread (gradient mode, tensorly's backend) is watched
    in the calling thread only.

    Examples
    --------
    >>> import random
    >>> from rankdiag.testing import no_global_change
    >>> with no_global_change():
    ...     value = random.Random(0).random()
    >>> with no_global_change():
    ...     value = random.random()
    Traceback (most recent call last):
        ...
    rankdiag.testing._guard.GlobalStateError: the block changed python random state (it is another one now)
    """
    return Guard(names(ignore, "ignore", _PROBES), boolean(restore, "restore"))


class Guard(ContextDecorator):
    """What `no_global_change` returns; it may be entered again, also while it is open."""

    def __init__(self, ignore: Collection[str], restore: bool) -> None:
        self._ignore = ignore
        self._restore = restore
        self._open: list[Snapshot] = []

    def __enter__(self) -> None:
        self._open.append(snapshot(self._ignore))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = self._open.pop()
        found = changed(before, snapshot(self._ignore))
        if not found:
            return
        if self._restore:
            put_back(before, found)
        if error is None:
            raise GlobalStateError(_sentence(found))
        error.add_note(_sentence(found))


def _sentence(found: Mapping[str, str]) -> str:
    return "the block changed " + "; ".join(f"{name} ({how})" for name, how in found.items())


# --- the probes ------------------------------------------------------------------------------------------------


def _numpy() -> Any:
    import numpy as np

    return np


def _torch() -> Any:
    import torch

    return torch


def _read_numpy_random() -> Any:
    state = _numpy().random.get_state(legacy=False)
    return {**state, "state": {**state["state"], "key": state["state"]["key"].tobytes()}}


def _write_numpy_random(state: Any) -> None:
    np = _numpy()
    key = np.frombuffer(state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state, "state": {**state["state"], "key": key}})


def _read_cuda_random() -> Any:
    torch = _torch()
    if not torch.cuda.is_initialized():
        return None
    return [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]


def _torch_bytes(data: bytes) -> Any:
    torch = _torch()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _write_filters(saved: tuple[Any, ...]) -> None:
    warnings.resetwarnings()  # also makes every module forget what it has warned of
    warnings.filters.extend(saved)  # type: ignore[attr-defined]  # typeshed calls the list a Sequence


def _write_logger(saved: tuple[int, tuple[logging.Handler, ...]]) -> None:
    root = logging.getLogger()
    root.setLevel(saved[0])
    root.handlers[:] = saved[1]


def _read_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}


def _write_environment(saved: dict[str, str]) -> None:
    for key in _read_environment():
        if key not in saved:
            del os.environ[key]
    os.environ.update(saved)


def _write_path(saved: list[str]) -> None:
    sys.path[:] = saved


def _matplotlib_settings() -> Any:
    return sys.modules["matplotlib"].rcParams


_PROBES: dict[str, _Probe] = {
    "python random state": _Probe(read=random.getstate, write=random.setstate),
    "warning filters": _Probe(read=lambda: tuple(warnings.filters), write=_write_filters, imports_may_change=True),
    "root logger": _Probe(
        read=lambda: (logging.getLogger().level, tuple(logging.getLogger().handlers)),
        write=_write_logger,
        imports_may_change=True,
    ),
    "working directory": _Probe(read=os.getcwd, write=os.chdir),
    "environment variables": _Probe(read=_read_environment, write=_write_environment, imports_may_change=True),
    "sys.path": _Probe(read=lambda: list(sys.path), write=_write_path, imports_may_change=True),
    "numpy random state": _Probe(package="numpy.random.mtrand", read=_read_numpy_random, write=_write_numpy_random),
    "numpy error handling": _Probe(
        package="numpy", read=lambda: _numpy().geterr(), write=lambda saved: _numpy().seterr(**saved)
    ),
    "numpy print options": _Probe(
        package="numpy",
        read=lambda: _numpy().get_printoptions(),
        write=lambda saved: _numpy().set_printoptions(**saved),
    ),
    "torch random state": _Probe(
        package="torch",
        read=lambda: _torch().get_rng_state().numpy().tobytes(),
        write=lambda saved: _torch().set_rng_state(_torch_bytes(saved)),
    ),
    "torch random state of CUDA": _Probe(
        package="torch",
        read=_read_cuda_random,
        write=lambda saved: saved and _torch().cuda.set_rng_state_all([_torch_bytes(part) for part in saved]),
    ),
    "torch default dtype": _Probe(
        package="torch",
        read=lambda: _torch().get_default_dtype(),
        write=lambda saved: _torch().set_default_dtype(saved),
    ),
    "torch default device": _Probe(
        package="torch",
        read=lambda: str(getattr(_torch(), "get_default_device", lambda: "cpu")()),  # torch 2.2 has no such call
        write=lambda saved: _torch().set_default_device(None if saved == "cpu" else saved),
    ),
    "torch gradient mode": _Probe(
        package="torch",
        read=lambda: _torch().is_grad_enabled(),
        write=lambda saved: _torch().set_grad_enabled(saved),
    ),
    "torch inference mode": _Probe(package="torch", read=lambda: _torch().is_inference_mode_enabled()),
    "torch threads": _Probe(
        package="torch",
        read=lambda: _torch().get_num_threads(),
        write=lambda saved: _torch().set_num_threads(saved),
    ),
    "torch deterministic algorithms": _Probe(
        package="torch",
        read=lambda: _torch().are_deterministic_algorithms_enabled(),
        write=lambda saved: _torch().use_deterministic_algorithms(saved),
    ),
    "torch matmul precision": _Probe(
        package="torch",
        read=lambda: _torch().get_float32_matmul_precision(),
        write=lambda saved: _torch().set_float32_matmul_precision(saved),
    ),
    "tensorly backend": _Probe(
        package="tensorly",
        read=lambda: sys.modules["tensorly"].get_backend(),
        write=lambda saved: sys.modules["tensorly"].set_backend(saved),
    ),
    "matplotlib settings": _Probe(
        package="matplotlib",
        # The plain dict behind it: its own access resolves the back end, which is a change too.
        read=lambda: dict(dict.items(_matplotlib_settings())),
        write=lambda saved: dict.update(_matplotlib_settings(), saved),
    ),
}

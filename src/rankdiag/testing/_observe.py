"""Watching one call: what it returned or raised, and what it did besides."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import hashlib
import io
import itertools
import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from rankdiag._array import is_torch
from rankdiag._optional import is_loaded
from rankdiag.testing._guard import changed, put_back, snapshot

__all__ = ["Hang", "Outcome", "aliases", "has_nan", "observe"]

_ITEMS = 1000  # entries of a lazy result that are drawn
_SPARE = 1 << 32  # bytes of address space that a call on an array beyond memory may still ask for


class Hang(BaseException):
    """A call went on beyond its time limit; no Exception, so that no handler in the called code swallows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one call did.

    Attributes
    ----------
    value : object
        What it returned, None if it raised; a lazy result is drawn into a list.
    error : BaseException or None
        What it raised.
    seconds : float
        Wall time.
    warned : tuple of warnings.WarningMessage
        Warnings it let out.
    printed : str
        What it wrote to standard output.
    state : mapping of str to str
        Global state it changed, by name; it is put back.
    mutated : tuple of str
        Arguments that are not what they were.
    """

    value: Any
    error: BaseException | None
    seconds: float
    warned: tuple[warnings.WarningMessage, ...]
    printed: str
    state: Mapping[str, str]
    mutated: tuple[str, ...]


def observe(
    call: Callable[[], Any], arguments: Mapping[str, Any], *, time_limit: float, limit_memory: bool = False
) -> Outcome:
    """Run one call and record everything it does.

    Parameters
    ----------
    call : callable
        Takes nothing, uses `arguments`.
    arguments : mapping of str to object
        What is looked at for changes, by name.
    time_limit : float
        Seconds after which Python code is interrupted.
    limit_memory : bool
        Whether to bound the address space, so that a careless copy fails instead of filling the machine.

    Returns
    -------
    Outcome
        Errors of every kind are in it; only an interrupt by the user passes through.
    """
    prints = {name: fingerprint(value) for name, value in arguments.items()}
    value, error = None, None
    output = io.StringIO()
    with contextlib.ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        stack.enter_context(contextlib.redirect_stdout(output))
        if limit_memory:
            stack.enter_context(_bounded_memory())
        before = snapshot()
        start = time.perf_counter()
        try:
            with _alarm(time_limit):
                value = call()
                if isinstance(value, Iterator):
                    value = list(itertools.islice(value, _ITEMS))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:
            error = raised
        seconds = time.perf_counter() - start
        state = changed(before, snapshot())
        put_back(before, state)
        warned = tuple(caught)
    return Outcome(
        value=value,
        error=error,
        seconds=seconds,
        warned=warned,
        printed=output.getvalue(),
        state=state,
        mutated=tuple(name for name, argument in arguments.items() if fingerprint(argument) != prints[name]),
    )


@contextlib.contextmanager
def _alarm(seconds: float) -> Generator[None, None, None]:
    """Raise `Hang` in the block after some seconds, where the system has such a signal and this is the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise Hang

    old_handler = signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, old_handler)
        if left:  # somebody else's alarm was running: let it ring when it would have
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - started), 1e-3), interval)


@contextlib.contextmanager
def _bounded_memory() -> Generator[None, None, None]:
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - the shortest way to one line
            used = int(stream.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        bound = used + _SPARE
        resource.setrlimit(resource.RLIMIT_AS, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    except (ImportError, OSError, ValueError):  # systems without such limits
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- arguments: what they are ----------------------------------------------------------------------------------


def fingerprint(value: Any, depth: int = 0) -> Any:
    """Return something that differs when the value was changed in place; objects of unknown kinds count as one."""
    if depth > 8:
        return None
    if isinstance(value, np.ndarray):
        return _array_print(value, depth)
    if is_torch(value):
        return _tensor_print(value)
    if isinstance(value, Mapping):
        return ("mapping", [(repr(key), fingerprint(entry, depth + 1)) for key, entry in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, len(value), [fingerprint(entry, depth + 1) for entry in value])
    if isinstance(value, (set, frozenset)):
        return ("set", sorted(map(repr, value)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [fingerprint(getattr(value, field.name, None), depth + 1) for field in dataclasses.fields(value)]
    if is_loaded("torch") and isinstance(value, sys.modules["torch"].nn.Module):
        return _module_print(value)
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return (type(value).__name__, value if value == value else "nan")
    if isinstance(value, memoryview):
        return value.tobytes()
    return None


def _array_print(value: np.ndarray[Any, Any], depth: int) -> Any:
    kept = (value.dtype.str, value.shape, value.strides, value.flags.writeable)
    if value.dtype.hasobject:
        return (*kept, [fingerprint(entry, depth + 1) for entry in value.ravel()[:100].tolist()])
    # An axis of stride 0 repeats one entry: looking at it once is enough, and all there is of an array beyond memory.
    once = np.asarray(value)[tuple(slice(1) if stride == 0 else slice(None) for stride in value.strides)]
    if once.dtype.char in "gG":  # a long double has bytes that belong to no digit and may hold anything
        return (*kept, repr(once.ravel().tolist()))
    mask = np.ma.getmaskarray(value).tobytes() if isinstance(value, np.ma.MaskedArray) else b""
    return (*kept, hashlib.blake2b(once.tobytes() + mask).hexdigest())


def _tensor_print(value: Any) -> Any:
    torch = sys.modules["torch"]
    kept = [
        str(value.dtype),
        value.layout,
        str(value.device),
        value.requires_grad,
        value.is_leaf and value.grad is None,
    ]
    if value.is_nested or value.layout != torch.strided or value.device.type == "meta":
        return kept
    with torch.no_grad():
        once = value.detach()[tuple(slice(1) if stride == 0 else slice(None) for stride in value.stride())]
        if once.is_complex():
            once = torch.view_as_real(once.resolve_conj())
        plain = torch.empty(once.numel(), dtype=once.dtype)  # a copy, for strides of length-1 axes may be anything
        data = plain.copy_(once.resolve_neg().flatten()).view(torch.uint8).numpy().tobytes()
    return [*kept, tuple(value.shape), value.stride(), hashlib.blake2b(data).hexdigest()]


def _module_print(module: Any) -> Any:
    parts = [(name, _tensor_print(entry)) for name, entry in module.state_dict(keep_vars=True).items()]
    modes = [
        (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
        for name, part in module.named_modules()
    ]
    return (parts, modes)


# --- results: what is wrong with them --------------------------------------------------------------------------


def has_nan(value: Any) -> bool:
    """Whether a result holds a NaN anywhere, at any depth."""
    return any(_leaf_is_nan(leaf) for leaf, _ in _leaves(value))


def _leaf_is_nan(leaf: Any) -> bool:
    if isinstance(leaf, (float, np.floating)):
        return math.isnan(leaf)
    if isinstance(leaf, (complex, np.complexfloating)):
        return leaf != leaf
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "fc" and bool(np.isnan(leaf).any())
    if is_torch(leaf) and leaf.layout == sys.modules["torch"].strided and leaf.device.type != "meta":
        return (leaf.is_floating_point() or leaf.is_complex()) and bool(leaf.detach().isnan().any())
    return False


def _leaves(value: Any, inside: bool = False, depth: int = 0) -> Iterator[tuple[Any, bool]]:
    """Yield scalars and arrays of a nested value, each with whether it lies inside a frozen dataclass."""
    if depth > 8:
        return
    children: Iterable[Any]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = inside or bool(type(value).__dataclass_params__.frozen)  # type: ignore[attr-defined]  # not in typeshed
        children = (getattr(value, field.name, None) for field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        children = value
    elif type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy"):
        children = [cast("Any", value).to_numpy()]
    else:
        yield value, inside
        return
    for child in children:
        yield from _leaves(child, inside, depth + 1)


def aliases(result: Any, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of arguments whose memory a result shares, or that come back as the same mutable object.

    Arrays inside a frozen dataclass may be shared: whoever made it has given them away.
    """
    spans = [span for leaf, _ in _leaves(result) if (span := _span(leaf))]
    found = []
    for name, argument in arguments.items():
        given = [span for leaf, inside in _leaves(argument) if not inside and (span := _span(leaf))]
        same = isinstance(argument, (list, dict, set)) and argument is result
        if same or any(a[0] < b[1] and b[0] < a[1] for a in spans for b in given):
            found.append(name)
    return tuple(found)


def _span(leaf: Any) -> tuple[int, int] | None:
    """Return the first and last address of an array's memory, or None for anything else."""
    if isinstance(leaf, (array.array, memoryview)):
        leaf = np.asarray(leaf)
    if isinstance(leaf, np.ndarray) and leaf.size:
        return np.lib.array_utils.byte_bounds(leaf)
    if not is_torch(leaf):
        return None
    tensor = cast("Any", leaf)
    if not tensor.is_nested and tensor.layout == sys.modules["torch"].strided and tensor.numel():
        storage = tensor.untyped_storage()
        start = storage.data_ptr()
        return (start, start + storage.nbytes()) if start else None
    return None

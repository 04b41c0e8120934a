"""Values of a function on cut-and-paste inputs, in blocks: each setting of one side with each of the other."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, is_torch, refuse_size
from rankdiag._optional import is_loaded
from rankdiag._validate import describe

__all__ = ["called", "pair_values", "quiet", "rows_of", "take"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PROBED = 16  # inputs of the first block that are evaluated a second time
_TOLERANCE = 1e-3  # of the largest value: float32 and reduced-precision products differ by less between batch sizes


def rows_of(values: Any, name: str) -> tuple[Any, int]:
    """Return settings that can be indexed by an array along axis 0, and their number.

    Raises
    ------
    TypeError
        If they are nothing of the kind.
    ValueError
        If there is none.
    """
    if is_torch(values):
        if values.is_nested or str(values.layout) != "torch.strided" or values.device.type == "meta":
            raise TypeError(f"`{name}` must be a dense tensor of settings along axis 0; got {describe(values)}")
        found: Any = values
    elif isinstance(values, (str, bytes, dict, set, frozenset)) or values is None:
        raise TypeError(f"`{name}` must be an array of settings along axis 0; got {describe(values)}")
    else:
        try:
            found = np.asarray(values)
        except ValueError:
            raise ValueError(
                f"`{name}` must be one array of settings along axis 0; got parts of different shapes"
            ) from None
        except Exception as error:  # __array__ of a foreign type may raise anything
            raise TypeError(f"`{name}` must be an array of settings along axis 0; got {describe(values)}") from error
    if found.ndim < 1:
        raise TypeError(f"`{name}` must be an array of settings along axis 0; got {describe(values)}")
    refuse_size(int(np.prod(found.shape, dtype=object)), name, tuple(found.shape))
    if not len(found):
        raise ValueError(f"`{name}` must hold at least one setting; got shape {tuple(found.shape)}")
    return found, len(found)


def take(values: Any, index: Ints) -> Any:
    """Return the settings at these places: a numpy array, or a tensor where it was one."""
    if not is_torch(values):
        return values[index]
    import torch

    return values[torch.from_numpy(index).to(values.device)]


def pair_values(
    fn: Callable[[Any], Any],
    make: Callable[[Ints, Ints], Any],
    shape: tuple[int, int],
    *,
    batch_size: int,
    dtypes: set[str] | None = None,
) -> Floats:
    """Evaluate a function on all pairs of settings, some rows of the matrix at a time.

    Parameters
    ----------
    fn : callable
        Function of a batch of inputs, or a torch module.
    make : callable
        ``make(a, b)`` builds the inputs for pairs of settings, row for row.
    shape : tuple of int
        (m, k): settings of the one and of the other side.
    batch_size : int
        Most inputs at a time.
    dtypes : set of str, optional
        Receives the dtypes of the values that `fn` returned.

    Returns
    -------
    ndarray of float64, shape (m, k)
        Values.

    Raises
    ------
    TypeError
        If `fn` returns no numbers.
    ValueError
        If it returns another number of values, one that is not finite, or others for the same inputs.
    """
    m, k = shape
    refuse_size(m * k, "left", shape)
    found = np.empty(m * k)
    with quiet(fn):
        for first in range(0, m * k, batch_size):
            pairs = np.arange(first, min(first + batch_size, m * k))
            a, b = np.divmod(pairs, k)
            inputs = make(a, b)
            values = called(fn, "fn", len(pairs), inputs)
            found[pairs] = _scalars(values, len(pairs))
            if dtypes is not None:
                dtypes.add(input_dtype(values))
            bad = np.flatnonzero(~np.isfinite(found[pairs]))
            if len(bad):
                raise ValueError(
                    f"`fn` must return finite numbers; got {found[pairs[bad[0]]]} for setting {a[bad[0]]} of `left` "
                    f"with setting {b[bad[0]]} of `right`"
                )
            if not first:
                _require_repeatable(fn, make(a[-_PROBED:], b[-_PROBED:]), found[pairs])
    return found.reshape(shape)


def called(function: Callable[..., Any], name: str, count: int, *arguments: Any) -> Any:
    """Call what the user gave; an error out of it says which argument failed, with itself as the cause.

    Raises
    ------
    TypeError, ValueError
        If it raises anything but an error for want of memory.
    """
    try:
        return function(*arguments)
    except Exception as error:  # whatever a foreign function may raise
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`{name}` failed for a batch of {count}: {type(error).__name__}: {error}") from error


def _scalars(values: Any, count: int) -> Floats:
    array: Floats = as_float64(values, "fn(inputs)", finite=False, expected=f"an array of {count} numbers")
    if array.shape not in {(count,), (count, 1)}:
        raise ValueError(
            f"`fn` must return one number for each of {count} inputs, shape ({count},) or ({count}, 1); got shape "
            f"{array.shape}. Pick one output, or sum them, inside of it"
        )
    return array.reshape(count)


def _require_repeatable(fn: Callable[[Any], Any], inputs: Any, before: Floats) -> None:
    """Refuse a function whose values are random, or depend on what else is in the batch."""
    count = min(_PROBED, len(before))
    again = _scalars(called(fn, "fn", count, inputs), count)
    off = np.abs(again - before[-count:])
    if not off.max() <= _TOLERANCE * np.abs(before).max():
        raise ValueError(
            f"`fn` must be a function of one input at a time; the same inputs gave values that differ by up to "
            f"{off.max():.3g} in a batch of another size. Call eval() of the model, or pass the module itself"
        )


def _module_of(fn: Any) -> Any:
    """Return the torch module behind a callable: itself, the owner of a method, or what a partial calls."""
    if isinstance(fn, functools.partial):
        return _module_of(fn.func)
    if is_loaded("torch"):
        import torch

        owner = fn if isinstance(fn, torch.nn.Module) else getattr(fn, "__self__", None)
        if isinstance(owner, torch.nn.Module):
            return owner
    return None


@contextlib.contextmanager
def quiet(fn: Any) -> Iterator[None]:
    """Run a function without a trace: a torch module in evaluation mode, no gradients, random states put back.

    The module is seen where `fn` is one, a method of one, or a partial of these.
    """
    if not is_loaded("torch"):
        yield
        return
    import torch

    module = _module_of(fn)
    training = [] if module is None else [part for part in module.modules() if part.training]
    places = [] if module is None else [p.device for p in (*module.parameters(), *module.buffers())]
    devices = sorted({device.index or 0 for device in places if device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            for part in training:
                part.training = False
            yield
        finally:
            for part in training:
                part.training = True

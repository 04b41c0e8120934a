"""What a function takes: its parameters, what their annotations allow, and legal values to start from."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from numpy.typing import ArrayLike

from rankdiag._optional import is_loaded

__all__ = ["Parameter", "parameters_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a function.

    Attributes
    ----------
    name : str
        Its name.
    positional : bool
        Whether it can only be passed by position.
    required : bool
        Whether it has no default.
    default : object
        Its default.
    kinds : frozenset of str or None
        Kinds of values that the annotation allows (``"int"``, ``"array"``, ``"none"``, ...); None if it allows
        anything or says nothing that can be judged.
    options : tuple
        Values that the annotation lists: those of ``Literal``, both booleans, and None where it is legal.
    """

    name: str
    positional: bool
    required: bool
    default: Any
    kinds: frozenset[str] | None
    options: tuple[Any, ...]

    def candidates(self) -> tuple[Callable[[], Any], ...]:
        """Return makers of values that are likely to be legal, likeliest first."""
        literal = tuple(_same(option) for option in self.options)
        if self.kinds is None:
            return (*literal, *_ARRAYS, *_OTHERS["int"], *_OTHERS["str"], *_OTHERS["iterable"], *_OTHERS["mapping"])
        found = list(literal)
        for kind in ("tensor", "array", "int", "float", "str", "mapping", "iterable", "callable"):
            if kind in self.kinds:
                found += _ARRAYS if kind == "array" else _tensors() if kind == "tensor" else _OTHERS[kind]
        return tuple(found)


def _same(value: Any) -> Callable[[], Any]:
    return lambda: value


_ARRAYS: tuple[Callable[[], Any], ...] = (
    lambda: np.array([[2.0, 0.5, 0.0], [0.1, 1.0, 0.3], [0.0, 0.2, 0.5], [1.0, -1.0, 0.25]]),
    lambda: np.array([3.0, 2.0, 1.0, 0.5]),
    lambda: np.array([[2.0, 0.5], [0.5, 1.0]]),
    lambda: np.array([[[2.0, 0.5], [0.1, 1.0]], [[1.0, 0.0], [0.3, 0.7]]]),
    lambda: np.array([0, 1]),
)


def _tensors() -> list[Callable[[], Any]]:
    import torch

    def tensor(make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: torch.from_numpy(make())

    return [tensor(make) for make in _ARRAYS]


_OTHERS: dict[str, tuple[Callable[[], Any], ...]] = {
    "int": (_same(2), _same(1), _same(4), _same(0)),
    "float": (_same(0.5), _same(2.0), _same(1.0)),
    "str": (_same("name"),),
    "mapping": (lambda: {"weight": _ARRAYS[0]()}, dict),
    "iterable": (lambda: (2, 1), lambda: ("name",), lambda: (), lambda: [_ARRAYS[0]()]),
    "callable": (lambda: lambda *values: values[0] if values else 0.0,),
}


def parameters_of(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Read a signature; parameters that collect any number of arguments are left out.

    Parameters
    ----------
    function : callable
        A function, method or class.

    Returns
    -------
    tuple of Parameter
        In order.

    Raises
    ------
    TypeError
        If it has no signature that Python can read.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise TypeError("`function` must have a signature that inspect.signature can read") from None
    hints = _hints(function)
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        kinds, options = _read(hints.get(parameter.name, Any))
        found.append(
            Parameter(
                name=parameter.name,
                positional=parameter.kind is parameter.POSITIONAL_ONLY,
                required=parameter.default is parameter.empty,
                default=parameter.default,
                kinds=kinds,
                options=options,
            )
        )
    return tuple(found)


class _AnyName(type):
    """Type of `_Unresolved`: any attribute of it is itself."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Unresolved(metaclass=_AnyName):
    """Stands for a name that only a type checker can see."""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


class _Names(dict[str, Any]):
    """Names for reading annotations: what is not known is `_Unresolved` instead of an error."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, _Unresolved)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = inspect.unwrap(function)
    if inspect.isclass(target):
        target = target.__init__
    names = _Names(np=np, NDArray=np.ndarray, ArrayLike=ArrayLike, Any=Any, Literal=Literal)
    if is_loaded("torch"):
        import torch

        names.update(torch=torch, Tensor=torch.Tensor)
    names.update(getattr(target, "__globals__", {}))
    try:
        return typing.get_type_hints(target, localns=names)
    except Exception:  # an annotation that is no type: nothing is known then
        return {}


_KINDS: tuple[tuple[Any, str], ...] = (
    (np.ndarray, "array"),
    (os.PathLike, "path"),
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (complex, "complex"),
    (str, "str"),
    (bytes, "bytes"),
    (type(None), "none"),
    (collections.abc.Mapping, "mapping"),
    (collections.abc.Iterable, "iterable"),
    (collections.abc.Callable, "callable"),
)
_ARRAY = frozenset({"array", "iterable", "int", "float", "complex"})  # a number is an array with no axes
_WIDER = {
    "array": _ARRAY,
    "path": frozenset({"str", "path"}),
    "float": frozenset({"int", "float"}),
    "complex": frozenset({"int", "float", "complex"}),
    "iterable": frozenset({"iterable", "array", "str", "bytes", "mapping"}),
}


def _read(hint: Any) -> tuple[frozenset[str] | None, tuple[Any, ...]]:
    """Return the kinds of values that an annotation allows, and the values that it lists."""
    if hint in (Any, object, _Unresolved) or isinstance(hint, typing.TypeVar):
        return None, ()
    if hint == ArrayLike:
        return _ARRAY, ()
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return _read(get_args(hint)[0])
    if origin in {Union, types.UnionType}:
        parts = [_read(part) for part in get_args(hint)]
        options = tuple(option for _, listed in parts for option in listed)
        if any(kinds is None for kinds, _ in parts):
            return None, options
        return frozenset().union(*(kinds for kinds, _ in parts if kinds)), options
    if origin is Literal:
        return frozenset({"option"}), get_args(hint)
    plain = origin or hint
    if plain is None or plain is type(None):
        return frozenset({"none"}), (None,)
    if plain is bool:
        return frozenset({"bool"}), (False, True)
    if is_loaded("torch") and isinstance(plain, type):
        import torch

        if issubclass(plain, torch.Tensor):
            return _ARRAY | {"tensor"}, ()
    if not isinstance(plain, type) or getattr(plain, "_is_protocol", False):
        return None, ()
    for known, kind in _KINDS:
        if plain is known or (known not in {int, float, str} and issubclass(plain, known)):
            return _WIDER.get(kind, frozenset({kind})), ()
    return frozenset({"other"}), ()

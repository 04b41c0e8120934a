"""Results to JSON and back, with nothing lost.

JSON has no NaN and no infinity: such a value is written as null, and its place and kind are kept under
``"non_finite"``, so that a reader sees why it is null and `decode` restores it. An integer too long for
base 10 (more than 4200 digits) is written as a string in base 16.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

from rankdiag._optional import is_loaded
from rankdiag._tabular import whole
from rankdiag._validate import describe

__all__ = ["SCHEMA_VERSION", "decode", "encode"]

SCHEMA_VERSION = 1
_HEXADECIMAL = re.compile(r"-?0x[0-9a-f]+")  # an integer too long for base 10
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_ARRAY_KEYS = {"dtype", "shape", "data"}
_ARRAY_KINDS: dict[str, type[Any]] = {
    "bool": bool,
    **dict.fromkeys(("float16", "float32", "float64"), float),
    **dict.fromkeys([f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)], int),
}


def encode(value: Any, path: str, non_finite: dict[str, str]) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
        None, a bool, int, float, str, numpy scalar or array, sequence, mapping with string keys, or dataclass.
    path : str
        JSON pointer of the value.
    non_finite : dict
        Receives pointer -> "nan", "inf" or "-inf" for every value that became null.

    Returns
    -------
    object
        Built of dict, list, str, int, float, bool and None only.

    Raises
    ------
    TypeError
        If a value of another type is met.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return whole(int(value))
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        non_finite[path] = "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(getattr(value, field.name), f"{path}/{field.name}", non_finite)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {_key(key): encode(entry, f"{path}/{_escape(_key(key))}", non_finite) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(entry, f"{path}/{index}", non_finite) for index, entry in enumerate(value)]
    if is_loaded("numpy"):
        import numpy as np

        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return encode(value.item(), path, non_finite)
        if isinstance(value, np.ndarray) and value.dtype.name in _ARRAY_KINDS:
            flat = value.ravel().tolist()
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                flat = [encode(entry, f"{path}/data/{i}", non_finite) for i, entry in enumerate(flat)]
            return {"dtype": value.dtype.name, "shape": list(value.shape), "data": flat}
    raise TypeError(f"cannot write a {type(value).__name__} at {path or '/'} as JSON")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"keys must be strings to be written as JSON; got {key!r}")
    return key


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def decode(value: Any, hint: Any, path: str, non_finite: Mapping[str, str]) -> Any:
    """Rebuild a value of the annotated type `hint` from what `encode` wrote.

    Parameters
    ----------
    value : object
        Parsed JSON.
    hint : type
        Annotation of the field.
    path : str
        JSON pointer of the value, for `non_finite` and for messages.
    non_finite : mapping
        Pointer -> kind, as `encode` filled it.

    Returns
    -------
    object
        A value of type `hint`.

    Raises
    ------
    ValueError
        If the value does not fit the annotation; the place is in the message.
    """
    origin = get_origin(hint)
    if value is None and path in non_finite and hint in {float, Any}:
        return _special(path, non_finite)
    if hint is Any:
        return _decode_any(value, path, non_finite)
    if origin in {Union, types.UnionType}:
        return _decode_union(value, hint, path, non_finite)
    if origin is Literal:
        if not any(type(option) is type(value) and option == value for option in get_args(hint)):
            raise _misfit(value, hint, path)
        return value
    if hint is None or hint is type(None):
        if value is not None:
            raise _misfit(value, hint, path)
        return None
    if hint in {bool, str}:
        if not isinstance(value, hint):
            raise _misfit(value, hint, path)
        return value
    if hint is int:
        if isinstance(value, str) and _HEXADECIMAL.fullmatch(value):
            return int(value, 16)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _misfit(value, hint, path)
        return value
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _misfit(value, hint, path)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):  # such a value is written as null
            raise _misfit(value, hint, path)
        return number
    if origin is tuple:
        return _decode_tuple(value, hint, path, non_finite)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _misfit(value, hint, path)
        inner = get_args(hint)[1]
        return {key: decode(entry, inner, _inside(path, key), non_finite) for key, entry in value.items()}
    if _is_array_hint(hint, origin):
        return _decode_array(value, path, non_finite)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return decode_fields(hint, value, path, non_finite)
    raise TypeError(f"no way to read the annotation {hint!r} at {path or '/'}")


def decode_fields(cls: type[Any], value: Any, path: str, non_finite: Mapping[str, str]) -> Any:
    """Build a dataclass from a dict of its fields.

    Raises
    ------
    ValueError
        If a field is missing or unknown, or a value does not fit.
    """
    if not isinstance(value, dict):
        raise _misfit(value, cls, path)
    hints = _hints(cast("Hashable", cls))
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(str(key)[:60] for key in value if key not in fields)
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in value and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise ValueError(f"`data` does not fit {cls.__name__} at {path or '/'}: missing {missing}, unknown {unknown}")
    return cls(**{name: decode(entry, hints[name], f"{path}/{name}", non_finite) for name, entry in value.items()})


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _misfit(value: Any, hint: Any, path: str) -> ValueError:
    wanted = str(hint) if get_origin(hint) is not None else getattr(hint, "__name__", str(hint))
    return ValueError(f"`data` must hold {wanted} at {path or '/'}; got {describe(value)}")


def _inside(path: str, key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"`data` must have strings as keys at {path or '/'}; got {describe(key)}")
    return f"{path}/{_escape(key)}"


def _special(path: str, non_finite: Mapping[str, str]) -> float:
    kind = non_finite[path]
    if not isinstance(kind, str) or kind not in _SPECIAL:
        raise ValueError(f"`data` must name one of {', '.join(_SPECIAL)} for {path}; got {describe(kind)}")
    return _SPECIAL[kind]


def _decode_any(value: Any, path: str, non_finite: Mapping[str, str]) -> Any:
    if value is None and path in non_finite:
        return _special(path, non_finite)
    if isinstance(value, dict):
        if set(value) == _ARRAY_KEYS:
            return _decode_array(value, path, non_finite)
        return {key: _decode_any(entry, _inside(path, key), non_finite) for key, entry in value.items()}
    if isinstance(value, list):
        return tuple(_decode_any(entry, f"{path}/{i}", non_finite) for i, entry in enumerate(value))
    return value


def _decode_union(value: Any, hint: Any, path: str, non_finite: Mapping[str, str]) -> Any:
    members = get_args(hint)
    if value is None and float in members and path in non_finite:
        return _special(path, non_finite)
    if value is None and type(None) in members:
        return None
    # An int fits a float field too: try the exact scalar types first so that 3 stays an int in `int | float`.
    ranked = sorted(members, key=lambda member: member is float and isinstance(value, int))
    error: Exception | None = None
    for member in ranked:
        if member is type(None):
            continue
        try:
            return decode(value, member, path, non_finite)
        except ValueError as caught:
            error = caught
    raise error if error is not None else _misfit(value, hint, path)


def _decode_tuple(value: Any, hint: Any, path: str, non_finite: Mapping[str, str]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _misfit(value, hint, path)
    inner = get_args(hint)
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(decode(entry, inner[0], f"{path}/{i}", non_finite) for i, entry in enumerate(value))
    if len(inner) != len(value):
        raise _misfit(value, hint, path)
    return tuple(
        decode(entry, member, f"{path}/{i}", non_finite)
        for i, (entry, member) in enumerate(zip(value, inner, strict=True))
    )


def _is_array_hint(hint: Any, origin: Any) -> bool:
    target = origin or hint
    return getattr(target, "__module__", "") == "numpy" and getattr(target, "__name__", "") == "ndarray"


def _decode_array(value: Any, path: str, non_finite: Mapping[str, str]) -> Any:
    import numpy as np

    if not isinstance(value, dict) or set(value) != _ARRAY_KEYS:
        raise _misfit(value, np.ndarray, path)
    dtype, shape, data = value["dtype"], value["shape"], value["data"]
    if not isinstance(dtype, str) or dtype not in _ARRAY_KINDS or not isinstance(data, (list, tuple)):
        raise _misfit(value, np.ndarray, path)
    if not isinstance(shape, (list, tuple)) or not all(type(size) is int and size >= 0 for size in shape):
        raise _misfit(value, np.ndarray, path)
    scalar = _ARRAY_KINDS[dtype]
    entries = [decode(entry, scalar, f"{path}/data/{i}", non_finite) for i, entry in enumerate(data)]
    try:
        array = np.array(entries, dtype=dtype).reshape(shape)
    except (ValueError, OverflowError):  # another number of entries, or one beyond the dtype
        raise _misfit(value, np.ndarray, path) from None
    array.flags.writeable = False
    return array

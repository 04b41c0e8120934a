"""Checks of arguments: one place, one voice.

Every message says which argument, what was required and what arrived. Checks return the value in the
plain Python type that the code below the boundary works with.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, TypeVar

__all__ = [
    "RankdiagWarning",
    "boolean",
    "choice",
    "describe",
    "integer",
    "names",
    "real",
    "string",
]

T = TypeVar("T")
_BEYOND = 2**63


class RankdiagWarning(UserWarning):
    """Base class of every warning that rankdiag gives."""


def describe(value: object) -> str:
    """Say in a few words what arrived, for the end of an error message; never raises."""
    kind = type(value).__name__
    try:
        shape = None if isinstance(value, type) else getattr(value, "shape", None)
        if shape is not None:
            return f"{kind} of shape {tuple(shape)}"
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            text = repr(value)
            return text if len(text) <= 80 else text[:77] + "..."
    except Exception:  # a shape without sizes, an integer too long to print: whatever a foreign object may raise
        return kind
    return kind


def real(
    value: Any,
    name: str,
    *,
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    infinite: bool = False,
) -> float:
    """Check one real number and return it as a float.

    Parameters
    ----------
    value : object
        What the caller passed; booleans, strings and arrays with several entries are refused.
    name : str
        Name of the argument.
    low, high : float, optional
        Bounds; `low_open` and `high_open` exclude the bound itself.
    low_open, high_open : bool
        Whether the bound itself is refused.
    infinite : bool
        Whether plus infinity is a legal value.

    Returns
    -------
    float
        The number.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is NaN, or outside the bounds.
    """
    rule = _interval(low, high, low_open, high_open)
    try:
        number = _as_float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a real number{rule}; got a number beyond float64") from None
    if number is None:
        raise TypeError(f"`{name}` must be a real number{rule}; got {describe(value)}")
    legal = math.isfinite(number) or (infinite and number == math.inf)
    if low is not None:
        legal = legal and (number > low if low_open else number >= low)
    if high is not None:
        legal = legal and (number < high if high_open else number <= high)
    if not legal:
        raise ValueError(f"`{name}` must be a {'' if infinite else 'finite '}real number{rule}; got {number!r}")
    return number


def _as_float(value: Any) -> float | None:
    """Return a number, or an array with no axes, as a float; None for anything else."""
    if isinstance(value, (bool, str, bytes)):
        return None
    if not isinstance(value, numbers.Real):
        if not _has_no_axes(value):
            return None
        try:
            value = value.item()
        except Exception:  # a tensor without data, say
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return None
    return float(value)


def _has_no_axes(value: Any) -> bool:
    try:
        return bool(value.ndim == 0) and not hasattr(value, "mask")  # a masked entry is no number
    except Exception:  # no such attribute, or an object that refuses to say
        return False


def _interval(low: float | None, high: float | None, low_open: bool, high_open: bool) -> str:
    parts = []
    if low is not None:
        parts.append(f"{'>' if low_open else '>='} {low:g}")
    if high is not None:
        parts.append(f"{'<' if high_open else '<='} {high:g}")
    return " " + " and ".join(parts) if parts else ""


def integer(value: Any, name: str, *, low: int | None = None, high: int | None = None) -> int:
    """Check one integer and return it as an int.

    Parameters
    ----------
    value : object
        What the caller passed; booleans and floats (also whole ones) are refused.
    name : str
        Name of the argument.
    low, high : int, optional
        Inclusive bounds; nothing counts beyond 64 bits, so a larger number is out of bounds in any case.

    Returns
    -------
    int
        The integer.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is outside the bounds.
    """
    rule = _interval(low, high, False, False)
    try:
        number = operator.index(value)
    except Exception:  # TypeError as a rule; a tensor without data raises something else
        raise TypeError(f"`{name}` must be an integer{rule}; got {describe(value)}") from None
    if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
        raise TypeError(f"`{name}` must be an integer{rule}; got {describe(value)}")
    beyond = abs(number) >= _BEYOND
    if beyond or (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"`{name}` must be an integer{rule}; got {describe(number)}")
    return number


def boolean(value: Any, name: str) -> bool:
    """Check one True/False option (numpy booleans included) and return it as a bool.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if isinstance(value, bool) or type(value).__name__ in {"bool_", "bool"}:
        return bool(value)
    raise TypeError(f"`{name}` must be True or False; got {describe(value)}")


def string(value: Any, name: str) -> str:
    """Check one string and return it.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    if not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string; got {describe(value)}")
    return str(value)


def choice(value: Any, name: str, allowed: Iterable[T]) -> T:
    """Check that a value is one of a short list and return the list's own member.

    Raises
    ------
    TypeError
        If it has the wrong type.
    ValueError
        If it is not in the list; the list is in the message.
    """
    options = tuple(allowed)
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    listing = ", ".join(repr(option) for option in options)
    kind = ValueError if any(isinstance(value, type(option)) for option in options) else TypeError
    raise kind(f"`{name}` must be one of {listing}; got {describe(value)}")


def names(value: Any, name: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """Check a list, set or mapping of words out of a short list and return them in the order given.

    Raises
    ------
    TypeError
        If it is a single string or no such collection, or holds something that is no string.
    ValueError
        If a word is not in the list; the list is in the message.
    """
    options = tuple(allowed)
    if isinstance(value, (str, bytes, bytearray)) or not isinstance(value, (Sequence, Set, Mapping)):
        raise TypeError(f"`{name}` must be a list of names among {', '.join(options)}; got {describe(value)}")
    found = []
    for entry in value:
        if not isinstance(entry, str):
            raise TypeError(f"`{name}` must hold names among {', '.join(options)}; got {describe(entry)}")
        if entry not in options:
            raise ValueError(f"`{name}` must hold names among {', '.join(options)}; got {describe(entry)}")
        found.append(str(entry))
    return tuple(found)

"""Checks of arguments: one place, one voice.

Every message says which argument, what was required and what arrived. Checks return the value in the
plain Python type that the code below the boundary works with.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = [
    "RankdiagWarning",
    "boolean",
    "choice",
    "describe",
    "integer",
    "real",
    "string",
]

T = TypeVar("T")


class RankdiagWarning(UserWarning):
    """Base class of every warning that rankdiag gives."""


def describe(value: object) -> str:
    """Say in a few words what arrived, for the end of an error message."""
    shape = getattr(value, "shape", None)
    if shape is not None and not isinstance(value, type):
        try:
            return f"{type(value).__name__} of shape {tuple(shape)}"
        except TypeError:
            return type(value).__name__
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = repr(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return f"{type(value).__name__}"


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
    if isinstance(value, (bool, str, bytes)) or type(value).__name__ == "bool_":
        raise TypeError(f"`{name}` must be a real number{rule}; got {describe(value)}")
    if not isinstance(value, numbers.Real):
        if getattr(value, "ndim", None) != 0 or isinstance(value, numbers.Complex):
            raise TypeError(f"`{name}` must be a real number{rule}; got {describe(value)}")
        value = value.item()
        return real(value, name, low=low, high=high, low_open=low_open, high_open=high_open, infinite=infinite)
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"`{name}` must be a real number{rule}; got an integer beyond float64") from None
    legal = not math.isnan(number) and (infinite or not math.isinf(number))
    if low is not None:
        legal = legal and (number > low if low_open else number >= low)
    if high is not None:
        legal = legal and (number < high if high_open else number <= high)
    if not legal:
        raise ValueError(f"`{name}` must be a {'' if infinite else 'finite '}real number{rule}; got {number!r}")
    return number


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
        Inclusive bounds.

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
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        raise TypeError(f"`{name}` must be an integer{rule}; got {describe(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be an integer{rule}; got {describe(value)}") from None
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"`{name}` must be an integer{rule}; got {number}")
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

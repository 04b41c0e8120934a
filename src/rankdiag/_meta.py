"""What a result says about itself: its conventions, the bounds behind its verdict, and what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rankdiag._document import Verdict
from rankdiag._version import __version__

__all__ = ["VERDICTS", "Finding", "Meta", "Threshold", "worst"]

VERDICTS: tuple[Verdict, ...] = ("unknown", "ok", "warn", "alert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """The conventions behind a result.

    Attributes
    ----------
    definition : str
        What was computed, in one line.
    base : str or None
        Base of logarithms, ``"e"`` for nats.
    ddof : int or None
        Divisor convention of variances.
    units : str or None
        Unit of the main number.
    n : int or None
        Sample size: rows, prompts, tensors.
    seed : int or None
        Seed that repeats the result, if randomness was used.
    skipped : mapping of str to str
        What was left out, each with its reason.
    dtype : str or None
        Dtype that came in.
    version : str
        Version of rankdiag.
    details : mapping of str to object
        Further conventions: tolerances, methods, options; JSON-safe values.
    """

    definition: str = ""
    base: str | None = None
    ddof: int | None = None
    units: str | None = None
    n: int | None = None
    seed: int | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None
    version: str = __version__
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A bound that a verdict rests on, and who says so.

    Attributes
    ----------
    quantity : str
        Column or field that is compared.
    op : {"<", "<=", ">", ">=", "==", "!="}
        The finding is raised where ``quantity op value`` holds.
    value : float
        The bound.
    severity : {"warn", "alert"}
        Verdict that the finding brings.
    source : str
        Paper, section, or "set by the user".
    """

    quantity: str
    op: Literal["<", "<=", ">", ">=", "==", "!="]
    value: float
    severity: Literal["warn", "alert"] = "warn"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a reader should look at.

    Attributes
    ----------
    name : str
        The row it is about, or empty for the whole result.
    severity : {"ok", "warn", "alert", "unknown"}
        How bad.
    sentence : str
        What was found, with its number and bound.
    quantity : str
        Column that gave it.
    value : float or None
        The number.
    threshold : Threshold or None
        The bound and its source.
    """

    name: str
    severity: Verdict
    sentence: str
    quantity: str = ""
    value: float | None = None
    threshold: Threshold | None = None


def worst(verdicts: Iterator[Verdict] | tuple[Verdict, ...] | list[Verdict]) -> Verdict:
    """Return the gravest of several verdicts; ``"unknown"`` if there is none."""
    return VERDICTS[max((VERDICTS.index(verdict) for verdict in verdicts), default=0)]

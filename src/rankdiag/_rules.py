"""Declarative thresholds on any result: ``COLUMN OP NUMBER``, ``alert``, ``warn``.

The same rules serve `flag` methods of results and the gates of the command line. A cell without a value never
meets a rule and never passes one in silence: it becomes a finding of severity ``"unknown"``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any, Literal, cast

from rankdiag._result import Finding, Result, Table, Threshold
from rankdiag._validate import describe, string

__all__ = ["flag", "parse_rule", "rule_columns"]

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_RULE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")


def parse_rule(rule: str, *, columns: Sequence[str] = (), judged: bool = True) -> Threshold | Literal["alert", "warn"]:
    """Read one rule.

    Parameters
    ----------
    rule : str
        ``"alert"``, ``"warn"`` or a comparison such as ``"effective_rank_ratio < 0.05"``.
    columns : sequence of str
        Columns that a comparison may name; empty allows any.
    judged : bool
        Whether the result has a verdict at all, which ``"alert"`` and ``"warn"`` look at.

    Returns
    -------
    Threshold or {"alert", "warn"}
        The comparison, with severity ``"alert"`` and source ``"set by the user"``, or the word itself.

    Raises
    ------
    TypeError
        If `rule` is no string.
    ValueError
        If it is no rule, or names an unknown column; the message lists what is legal.

    Examples
    --------
    >>> from rankdiag._rules import parse_rule
    >>> rule = parse_rule("effective_rank_ratio < 0.05")
    >>> rule.quantity, rule.op, rule.value
    ('effective_rank_ratio', '<', 0.05)
    """
    return _read(rule, "rule", columns, judged)


def _read(text: Any, name: str, columns: Sequence[str], judged: bool) -> Threshold | Literal["alert", "warn"]:
    word = string(text, name).strip()
    if word in {"alert", "warn"}:
        if not judged:
            raise ValueError(
                f"`{name}` must be COLUMN OP NUMBER here, for no source sets a bound on these numbers and the verdict "
                f"is always 'unknown'; got {describe(word)}. Columns: {', '.join(columns)}"
            )
        return cast(Literal["alert", "warn"], word)
    match = _RULE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"`{name}` must be 'alert', 'warn' or COLUMN OP NUMBER with OP one of <, <=, >, >=, ==, !=; "
            f"got {describe(text)}"
        )
    quantity, op, number = match.groups()
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must end in a finite number; got {number!r} in {text!r}")
    if columns and quantity not in columns:
        raise ValueError(f"`{name}` must name one of the columns {', '.join(columns)}; got {quantity!r} in {text!r}")
    return Threshold(quantity=quantity, op=cast(Any, op), value=value, severity="alert", source="set by the user")


def rule_columns(result: type[Result] | Result) -> tuple[str, ...]:
    """Return the names that a rule on this kind of result may use."""
    if isinstance(result, Table) or (isinstance(result, type) and issubclass(result, Table)):
        return tuple(column.name for column in result.columns)
    return tuple(getattr(result, "rule_names", ()))


def flag(result: Result, rules: Iterable[str | Threshold]) -> tuple[Finding, ...]:
    """Compare a result with thresholds.

    Parameters
    ----------
    result : Result
        A table is compared row by row, any other result by the field of the rule's name.
    rules : iterable of str or Threshold
        As `parse_rule` reads them, or thresholds with a severity and source of their own.

    Returns
    -------
    tuple of Finding
        One for each row that meets a rule, in rule and then row order; severity ``"unknown"`` where a row has
        no value to compare.

    Raises
    ------
    TypeError
        If `rules` is a single string, or holds something that is no rule.
    ValueError
        If a rule does not parse or names an unknown column.
    """
    if isinstance(rules, (str, bytes)) or not isinstance(rules, (Sequence, Set, Iterator)):
        raise TypeError(f"`rules` must be a sequence of rules; got {describe(rules)}")
    found: list[Finding] = []
    for rule in rules:
        parsed = rule if isinstance(rule, Threshold) else _read(rule, "rules", rule_columns(result), result.judged)
        if isinstance(parsed, Threshold):
            found += _compare(result, parsed)
        elif result.verdict == "alert" or (parsed == "warn" and result.verdict == "warn"):
            found.append(Finding(name="", severity=result.verdict, sentence=result.explanation or "the verdict"))
    return tuple(found)


def _compare(result: Result, rule: Threshold) -> list[Finding]:
    if isinstance(result, Table):
        allowed = rule_columns(result)
        if rule.quantity not in allowed:
            raise ValueError(f"`rules` must name columns among {', '.join(allowed)}; got {rule.quantity!r}")
        rows = [
            (str(getattr(row, "name", index)), getattr(row, rule.quantity)) for index, row in enumerate(result.rows)
        ]
    elif rule.quantity in getattr(result, "columns", ()):  # one number for each entry, in arrays
        values = cast(Any, result).column(rule.quantity)
        usable = cast(Any, result).usable
        named = zip(cast(Any, result).keys, values.tolist(), usable.tolist(), strict=True)
        rows = [(key, value if good else None) for key, value, good in named]
    elif hasattr(result, rule.quantity):
        rows = [("", getattr(result, rule.quantity))]
    elif rule.quantity in rule_columns(result):
        raise ValueError(
            f"`rules` must name a column that was computed, {', '.join(getattr(result, 'columns', ()))}; "
            f"{rule.quantity!r} was not"
        )
    else:
        raise ValueError(f"`rules` must name fields of {type(result).__name__}; got {rule.quantity!r}")
    found = []
    for name, value in rows:
        subject = f"{name}: " if name else ""
        if isinstance(value, (int, float)) and value == value:
            if _COMPARE[rule.op](value, rule.value):
                found.append(
                    Finding(
                        name=name,
                        severity=rule.severity,
                        sentence=f"{subject}{rule.quantity} {_number(value)} {rule.op} {rule.value:g}",
                        quantity=rule.quantity,
                        value=_as_float(value),
                        threshold=rule,
                    )
                )
        else:
            found.append(
                Finding(
                    name=name,
                    severity="unknown",
                    sentence=f"{subject}{rule.quantity} has no value, so {rule.op} {rule.value:g} was not checked",
                    quantity=rule.quantity,
                    threshold=rule,
                )
            )
    return found


def _number(value: float) -> str:
    try:
        return f"{value:.6g}"
    except OverflowError:  # an exact count beyond float64
        return f"{'-' if value < 0 else ''}10^{math.log10(abs(value)):.6g}"


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, 1 if value > 0 else -1)

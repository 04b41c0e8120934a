"""Rules: their grammar, what meets them, and that a missing value is never passed in silence."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._document import Column
from rankdiag._result import Result, Table, Threshold
from rankdiag._rules import flag, parse_rule, rule_columns

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows(Table[Row]):
    columns: ClassVar[tuple[Column, ...]] = (Column(name="name"), Column(name="ratio"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scalar(Result):
    value: float = 0.0


def table(*values: float | None) -> Rows:
    return Rows(rows=tuple(Row(name=f"row{i}", ratio=value) for i, value in enumerate(values)))


@given(
    op=st.sampled_from(sorted(OPERATORS)),
    bound=st.floats(allow_nan=False, allow_infinity=False),
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=6),
    space=st.sampled_from(["", " ", "  "]),
)
def test_a_rule_finds_exactly_the_rows_that_meet_it(op: str, bound: float, values: list[float], space: str) -> None:
    found = flag(table(*values), [f"ratio{space}{op}{space}{bound!r}"])
    assert [finding.name for finding in found] == [
        f"row{i}" for i, value in enumerate(values) if OPERATORS[op](value, bound)
    ]
    assert all(finding.severity == "alert" and finding.threshold is not None for finding in found)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_value_is_a_finding_of_its_own(value: float | None) -> None:
    (finding,) = flag(table(value), ["ratio < 1"])
    assert finding.severity == "unknown"
    assert "was not checked" in finding.sentence


def test_words_read_the_verdict() -> None:
    warned, alerted = Scalar(verdict="warn", explanation="look"), Scalar(verdict="alert", explanation="look")
    assert [len(flag(result, ["warn"])) for result in (Scalar(), warned, alerted)] == [0, 1, 1]
    assert [len(flag(result, ["alert"])) for result in (Scalar(), warned, alerted)] == [0, 0, 1]


def test_a_field_of_a_plain_result_can_be_named() -> None:
    assert len(flag(Scalar(value=2.0), ["value > 1"])) == 1
    with pytest.raises(ValueError, match=r"`rules` must name fields of Scalar; got 'other'"):
        flag(Scalar(), ["other > 1"])


def test_a_threshold_keeps_its_severity_and_source() -> None:
    bound = Threshold(quantity="ratio", op=">", value=1.0, severity="warn", source="a paper")
    (finding,) = flag(table(2.0), [bound])
    assert finding.severity == "warn"
    assert finding.threshold is bound


@pytest.mark.parametrize(
    "text", ["", "ratio", "ratio <", "< 1", "ratio < x", "ratio < nan", "ratio ~ 1", "Warn", "a b < 1"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`rule` must"):
        parse_rule(text)


def test_unknown_columns_are_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="name, ratio"):
        parse_rule("rate < 1", columns=rule_columns(Rows))
    with pytest.raises(ValueError, match="name, ratio"):
        flag(table(1.0), ["rate < 1"])


@pytest.mark.parametrize("rules", ["ratio < 1", 3, None])
def test_rules_must_be_a_sequence(rules: object) -> None:
    with pytest.raises(TypeError, match="`rules` must be a sequence of rules"):
        flag(table(1.0), rules)  # type: ignore[arg-type]  # wrong on purpose


def test_a_rule_must_be_a_string() -> None:
    with pytest.raises(TypeError, match="`rule` must be a string"):
        flag(table(1.0), [3])  # type: ignore[list-item]  # wrong on purpose

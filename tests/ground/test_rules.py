"""Rules on results: one grammar for flags and gates."""

import dataclasses
import math
import operator
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._document import Column
from rankdiag._result import Result, Table, Threshold
from rankdiag._rules import flag, parse_rule, rule_columns

OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    name: str
    ratio: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layers(Table[Layer]):
    tag: ClassVar[str] = "groundtest.Layers"
    columns: ClassVar[tuple[Column, ...]] = (Column(name="name"), Column(name="ratio"))
    rows: tuple[Layer, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class One(Result):
    tag: ClassVar[str] = "groundtest.One"
    number: float = 1.0


@given(st.sampled_from(sorted(OPS)), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["", " ", "  "]))
def test_comparisons_are_read_exactly(op, value, space):
    rule = parse_rule(f"{space}ratio{space}{op}{space}{value!r}{space}")
    assert (rule.quantity, rule.op, rule.value, rule.severity) == ("ratio", op, value, "alert")
    assert rule.source == "set by the user"


def test_words():
    assert parse_rule(" alert ") == "alert"
    assert parse_rule("warn") == "warn"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be 'alert', 'warn' or COLUMN OP NUMBER"),
        ("ratio", "COLUMN OP NUMBER"),
        ("ratio < ", "COLUMN OP NUMBER"),
        ("ratio = 1", "COLUMN OP NUMBER"),
        ("ratio < 1 2", "COLUMN OP NUMBER"),
        ("1 < ratio", "COLUMN OP NUMBER"),
        ("ratio < x", "must end in a finite number; got 'x'"),
        ("ratio < nan", "must end in a finite number"),
        ("nothing < 1", "one of the columns ratio; got 'nothing'"),
    ],
)
def test_what_is_no_rule_is_refused(text, words):
    with pytest.raises(ValueError, match=f"`rule`.*{words}"):
        parse_rule(text, columns=("ratio",))


def test_a_rule_is_a_text():
    with pytest.raises(TypeError, match="`rule` must be a string"):
        parse_rule(3)


@given(
    st.lists(st.none() | st.floats(allow_nan=True), max_size=5),
    st.sampled_from(sorted(OPS)),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_row_is_compared_or_said_to_have_no_value(values, op, bound):
    table = Layers(rows=tuple(Layer(name=f"l{i}", ratio=value) for i, value in enumerate(values)))
    found = flag(table, [f"ratio {op} {bound!r}"])
    expected = []
    for index, value in enumerate(values):
        if value is None or math.isnan(value):
            expected.append((f"l{index}", "unknown"))
        elif OPS[op](value, bound):
            expected.append((f"l{index}", "alert"))
    assert [(finding.name, finding.severity) for finding in found] == expected


def test_findings_carry_their_threshold():
    table = Layers(rows=(Layer(name="a", ratio=0.01), Layer(name="b", ratio=0.5)))
    bound = Threshold(quantity="ratio", op="<", value=0.05, severity="warn", source="a paper")
    (finding,) = flag(table, [bound])
    assert (finding.name, finding.severity, finding.value, finding.threshold) == ("a", "warn", 0.01, bound)
    assert finding.sentence == "a: ratio 0.01 < 0.05"


def test_results_without_rows():
    assert flag(One(number=2.0), ["number > 1"])[0].value == 2.0
    assert flag(One(number=0.0), ["number > 1"]) == ()
    with pytest.raises(ValueError, match="`rules` must name fields of One"):
        flag(One(), [Threshold(quantity="nothing", op="<", value=1.0)])


def test_verdicts():
    assert flag(One(verdict="warn"), ["alert"]) == ()
    assert flag(One(verdict="warn", explanation="why"), ["warn"])[0].sentence == "why"
    assert flag(One(verdict="alert"), ["warn"])[0].severity == "alert"
    assert flag(One(verdict="ok"), ["warn", "alert"]) == ()


@pytest.mark.parametrize("rules", ["alert", b"x", 3, None])
def test_rules_are_a_sequence(rules):
    with pytest.raises(TypeError, match="`rules` must be a sequence"):
        flag(One(), rules)


def test_names_that_rules_may_use():
    assert rule_columns(Layers) == rule_columns(Layers()) == ("name", "ratio")
    assert rule_columns(One()) == ()
    with pytest.raises(ValueError, match="columns among name, ratio"):
        flag(Layers(), [Threshold(quantity="nothing", op="<", value=1.0)])

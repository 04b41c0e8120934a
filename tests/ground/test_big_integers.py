"""Integers of any size survive every trip of a result, and are shown short."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import ClassVar

import pytest

from rankdiag._document import Column, format_value
from rankdiag._html import render_page
from rankdiag._result import Table, result_from_json
from rankdiag._tabular import whole

SIZES = (0, 2**53 + 1, 2**63, 10**40, 2**14_000 - 1, 2**14_000, 7 * 10**5000 + 3, -(10**9000))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    count: int
    maybe: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counts(Table[Row]):
    tag: ClassVar[str] = "groundtest.Counts"
    columns: ClassVar[tuple[Column, ...]] = (Column(name="name"), Column(name="count"), Column(name="maybe"))
    rows: tuple[Row, ...] = ()
    total: int = 0


@pytest.mark.parametrize("number", SIZES, ids=lambda n: f"{n.bit_length()} bits")
def test_integers_of_any_size_come_back(number):
    result = Counts(rows=(Row(name="a", count=number, maybe=number), Row(name="b", count=1)), total=number)
    text = result.to_json()
    json.loads(text)
    for back in (result_from_json(text), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert back == result
        assert back.total == number
        assert type(back.total) is int
        assert back.rows[0].maybe == number
    line = result.to_csv().splitlines()[1].split(",")
    assert int(line[1], 0 if line[1].lstrip("-").startswith("0x") else 10) == number
    assert max(map(len, str(result).splitlines())) <= 100
    assert len(render_page(result.document())) < 40_000
    assert len(result.to_markdown()) < 300


def test_only_what_is_too_long_is_written_in_base_16():
    assert [type(whole(number)) for number in SIZES] == [int] * 5 + [str] * 3
    assert Counts(total=2**14_000 - 1).to_dict()["fields"]["total"] == 2**14_000 - 1


@pytest.mark.parametrize("text", ["0x", "ff", "0xG1", "1", " 0x1", "0x1\n", "0X1"])
def test_other_strings_are_no_integers(text):
    data = Counts().to_dict()
    data["fields"]["total"] = text
    with pytest.raises(ValueError, match="must hold int at /total"):
        Counts.from_dict(data)


def test_long_integers_are_shown_with_an_exponent():
    assert format_value(10**38) == "1" + "0" * 38
    assert format_value(123456 * 10**40) == "1.235e+45"
    assert format_value(-(10**5000)) == "-1.000e+5000"
    assert format_value(99999 * 10**4000) == "1.000e+4005"

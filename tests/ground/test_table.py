"""Tables: many rows, and the formats they leave in."""

import csv
import dataclasses
import io
import math
import pickle
import re
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._document import Column
from rankdiag._optional import MissingExtraError
from rankdiag._result import Table, result_from_json


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    value: float | None
    shape: tuple[int, ...] = ()
    flag: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows(Table[Row]):
    tag: ClassVar[str] = "groundtest.Rows"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", doc="Name."),
        Column(name="value", label="the value", unit="nats", doc="Value."),
        Column(name="shape"),
        Column(name="flag"),
    )
    rows: tuple[Row, ...] = ()


NAMES = st.text(st.characters(codec=None), max_size=6) | st.sampled_from(
    ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", '"', ",", "\n"]
)
TABLES = st.lists(
    st.builds(
        Row,
        name=NAMES,
        value=st.none() | st.floats(allow_nan=True),
        shape=st.lists(st.integers(0, 9), max_size=3).map(tuple),
        flag=st.booleans(),
    ),
    max_size=4,
).map(lambda rows: Rows(rows=tuple(rows)))


def test_rows_and_columns():
    table = Rows(rows=(Row(name="a", value=1.0), Row(name="b", value=None)))
    assert len(table) == 2
    assert [row.name for row in table] == ["a", "b"]
    assert table.column("value") == [1.0, None]
    with pytest.raises(ValueError, match="`name` must be one of name, value, shape, flag; got 'nothing'"):
        table.column("nothing")
    assert Rows().column("value") == []


def test_repr_is_short_and_never_fails():
    rows = [Row(name=f"row {k}", value=float(k)) for k in range(10_000)]
    text = repr(Rows(rows=tuple(rows)))
    assert text.startswith("Rows(")
    assert repr(rows[2]) + ", ... 9997 more)" in text
    assert len(text) < 1000
    assert repr(Rows(rows=tuple(rows[:12]))).count("Row(") == 12
    long = Row(name="", value=10**5000)  # more digits than Python writes
    assert "rows=<tuple with a longer integer>" in repr(Rows(rows=(long,)))
    assert "<Row with a longer integer>, ... 10 more)" in repr(Rows(rows=(long,) * 13))
    assert "rows=1.000e+5000" in repr(Rows(rows=10**5000))


@given(TABLES)
def test_round_trip(table):
    back = result_from_json(table.to_json())
    assert back == table
    assert all(type(row) is Row for row in back)
    assert pickle.loads(pickle.dumps(table)) == table
    assert hash(back) == hash(table)


@given(TABLES)
def test_csv_keeps_every_digit_and_every_name(table):
    lines = list(csv.reader(io.StringIO(table.to_csv(), newline="")))
    assert lines[0] == ["name", "value", "shape", "flag"]
    assert len(lines) == len(table) + 1
    for row, (name, value, shape, flag) in zip(table, lines[1:], strict=True):
        assert (name[1:] if name[:1] == "'" and row.name[:1] != "'" else name) == row.name
        assert (float(value) if value else None) == row.value or math.isnan(row.value)
        assert shape == "x".join(map(str, row.shape))
        assert flag == str(row.flag)


@given(TABLES)
def test_no_csv_cell_of_text_is_a_formula(table):
    for line in csv.reader(io.StringIO(table.to_csv(), newline="")):
        assert not line[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_csv_in_particular():
    table = Rows(
        rows=(
            Row(name="=HYPERLINK(1)", value=-1.5, shape=(2, 3)),
            Row(name="a'b", value=np.float64(0.1)),
            Row(name="a,b", value=math.inf),
            Row(name="-x", value=None, shape=("=1",)),
        )
    )
    assert table.to_csv().splitlines() == [
        "name,value,shape,flag",
        "'=HYPERLINK(1),-1.5,2x3,False",
        "a'b,0.1,,False",
        '"a,b",inf,,False',
        "'-x,,'=1,False",
    ]


def test_csv_file(tmp_path):
    table = Rows(rows=(Row(name="é\ud800", value=1.0),))
    text = table.to_csv(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == text.encode("utf-8", "backslashreplace")
    with pytest.raises(FileNotFoundError, match="`path` must lie in a folder that exists"):
        table.to_csv(tmp_path / "nowhere" / "t.csv")


@given(TABLES)
def test_markdown_has_one_line_for_each_row_and_no_live_markup(table):
    lines = table.to_markdown().split("\n")
    assert len(lines) == len(table) + 2
    for line in lines:
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
        assert len(cells) == 4 + 2
        assert not re.search(r"(?<!\\)(?:\\\\)*[<>`*_\[\]&$~]", line)
    assert lines[0] == "| name | the value | shape | flag |"


def test_markdown_in_particular():
    table = Rows(rows=(Row(name="a|b<script>\n**x**", value=0.123456789, shape=(2, 3)),))
    assert table.to_markdown().split("\n")[2] == "| a\\|b\\<script\\> \\*\\*x\\*\\* | 0.1235 | 2×3 | no |"  # noqa: RUF001 - shapes are written with a cross


def test_pandas():
    table = Rows(rows=(Row(name="=x", value=math.nan, shape=(1, 2)), Row(name="b", value=2.0)))
    frame = table.to_pandas()
    assert list(frame.columns) == ["name", "value", "shape", "flag"]
    assert frame["name"].tolist() == ["=x", "b"]
    assert frame["value"].tolist()[1] == 2.0
    assert frame["shape"].tolist() == [(1, 2), ()]
    assert Rows().to_pandas().shape == (0, 4)


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r'to_pandas\(\) needs .*pip install "rankdiag\[tables\]"'):
        Rows().to_pandas()


def test_grid_selects_and_orders_columns():
    table = Rows(rows=(Row(name="a", value=1.0),))
    grid = table.grid("title", names=("value", "name"))
    assert [column.name for column in grid.columns] == ["value", "name"]
    assert grid.rows == ((1.0, "a"),)
    assert table.document().grids[0].rows == (("a", 1.0, (), False),)
    assert "nats" in str(table)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"title": 3}, "`title`"),
        ({"names": ("nothing",)}, "`names` must hold names among name, value, shape, flag; got 'nothing'"),
        ({"names": "name"}, "`names` must be a list"),
        ({"levels": ("bad",)}, "`levels` must hold names among unknown, ok, warn, alert"),
        ({"levels": ("ok", "ok")}, "`levels` must hold one entry for each of 1 rows; got 2"),
    ],
)
def test_grid_checks_its_options(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Rows(rows=(Row(name="a", value=1.0),)).grid(**options)

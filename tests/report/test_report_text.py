"""Documents in a terminal: aligned, never wider than it, nothing left out in silence."""

# ruff: noqa: RUF001 - the dash and the cross that people are shown

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._text import display_width, render_text


def _columns(text: str) -> int:
    """Width in a terminal, from a short list of known characters."""
    wide, none = "層重み数値漢字かなＡ한국😀", "\u0301\u0308"
    return sum(2 if c in wide else 0 if c in none else 1 for c in text)


@pytest.mark.parametrize("text", ["abc", "層の重み"[0] + "x", "e\u0301", "한국", "😀!", ""])
def test_widths(text):
    assert display_width(text) == _columns(text)


def test_the_whole_of_a_small_document():
    grid = Grid(
        title="Layers",
        columns=(
            Column(name="name"),
            Column(name="effective_rank", label="effective rank"),
            Column(name="n", unit="s"),
        ),
        rows=(("a", 1.5, 10), ("層b", 12.25, None)),
        levels=("ok", "warn"),
        note="A note.",
    )
    document = Document(
        title="Title",
        verdict="warn",
        explanation="Some words.",
        key_numbers=(KeyNumber(label="rank", value=12.5, unit="of 20"), KeyNumber(label="n", value=3)),
        grids=(grid,),
        notes=("Definition: x.",),
        sections=(Document(title="Part"),),
    )
    assert render_text(document, width=40) == "\n".join(
        [
            "Title [WARN]",
            "Some words.",
            "",
            "  rank  12.5 of 20",
            "  n     3",
            "",
            "Layers",
            "      effective    n",
            "name       rank  [s]",
            "----  ---------  ---  ------",
            "a          1.50   10  [ok]",
            "層b       12.25    –  [WARN]",
            "A note.",
            "",
            "- Definition: x.",
            "",
            "-" * 40,
            "Part",
        ]
    )


_names = st.text(st.sampled_from("abc._ 層한\u0301😀"), max_size=30)
_cells = st.one_of(st.none(), st.integers(-999, 99999), st.floats(-1e9, 1e9), st.booleans(), _names)


@given(st.integers(1, 9), st.integers(0, 6), st.integers(20, 120), st.data())
def test_no_table_is_wider_than_the_terminal(wide, tall, width, data):
    columns = tuple(Column(name=data.draw(_names) or "c") for _ in range(wide))
    rows = tuple(tuple(data.draw(_cells) for _ in range(wide)) for _ in range(tall))
    text = render_text(Document(title="t", grids=(Grid(title="", columns=columns, rows=rows),)), width=width)
    lines = text.splitlines()
    assert all(_columns(line) <= width for line in lines)
    rule = next(line for line in lines[1:] if set(line) <= {"-", " "} and line.strip())
    table = lines[lines.index(rule) + 1 :][:tall]
    edges = [i for i, c in enumerate(rule) if c == "-" and (i + 1 == len(rule) or rule[i + 1] == " ")]
    for line in table:  # between two columns every line is blank
        cells = "".join(c + "\0" * (_columns(c) - 1) for c in line if _columns(c))
        for edge in edges[:-1]:
            assert cells[edge + 1 : edge + 3].strip() == ""
    left_out = len(columns) - len(edges)
    assert (f"... {left_out} column" in text) == (left_out > 0)


@pytest.mark.parametrize("name", [" ", ".....層層層層層層層層", "a" * 300])
def test_names_that_are_blank_or_wider_than_the_terminal(name):
    grid = Grid(title="", columns=(Column(name="key"), Column(name=name)), rows=((1, 2),))
    lines = render_text(Document(title="t", grids=(grid,)), width=20).splitlines()
    assert all(display_width(line) <= 20 for line in lines)
    alone = Grid(title="", columns=(Column(name=name),), rows=())
    lines = render_text(Document(title="t", grids=(alone,)), width=20).splitlines()
    assert all(display_width(line) <= 20 for line in lines)
    assert set(lines[-1]) == {"-"}


def test_numbers_end_below_each_other():
    rows = (("a", 0.5, 7), ("bb", 123.25, 12345), ("c", None, 8))
    grid = Grid(title="", columns=(Column(name="k"), Column(name="value"), Column(name="count")), rows=rows)
    lines = render_text(Document(title="t", grids=(grid,))).splitlines()[-3:]
    assert lines == ["a     0.50      7", "bb  123.25  12345", "c        –      8"]


def test_a_narrow_terminal_loses_empty_columns_first_and_says_so():
    columns = (Column(name="name"), Column(name="nothing"), Column(name="rank"), Column(name="last_column"))
    grid = Grid(title="", columns=columns, rows=(("some.layer.weight", None, 3, 4),))
    text = render_text(Document(title="t", grids=(grid,)), width=31)
    assert "nothing" not in text.splitlines()[2]
    assert "... 1 column left out: nothing" in text.replace("\n", " ")
    text = render_text(Document(title="t", grids=(grid,)), width=24)
    assert "... 2 columns left out: nothing, last_column" in text.replace("\n", " ")


def test_rows_left_out_are_counted():
    rows = tuple((f"layer.{i}",) for i in range(50))
    grid = Grid(title="", columns=(Column(name="name"),), rows=rows)
    text = render_text(Document(title="t", grids=(grid,)), max_rows=7)
    assert text.count("layer.") == 7
    assert text.endswith("... and 43 more rows")


def test_a_row_with_an_alert_is_never_the_one_left_out():
    rows = tuple((f"layer.{i}",) for i in range(50))
    levels = tuple("alert" if i == 33 else "warn" if i == 44 else "ok" for i in range(50))
    grid = Grid(title="", columns=(Column(name="name"),), rows=rows, levels=levels)
    text = render_text(Document(title="t", grids=(grid,)), max_rows=3)
    assert "layer.33  [ALERT]" in text
    assert "layer.44  [WARN]" in text
    assert "... and 47 more rows, none of them with an alert or a warning" in text
    text = render_text(Document(title="t", grids=(grid,)), max_rows=1)
    assert "... and 49 more rows, 1 of them with an alert or a warning" in text


def test_how_to_read_a_key_number_stands_beside_it():
    numbers = (KeyNumber(label="rank", value=2, doc="how many directions carry the matrix, of at most ten"),)
    text = render_text(Document(title="t", key_numbers=numbers), width=51)
    assert text.splitlines()[2:] == ["  rank  2  how many directions carry the matrix, of", "           at most ten"]
    assert "directions" not in render_text(Document(title="t", key_numbers=numbers), width=30)


def test_nothing_in_a_hostile_document_steers_the_terminal(hostile):
    text = render_text(hostile, width=80)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "evil\\u202egnp.exe" in text
    assert "\\x1b[31mred" in text
    assert "<script>alert(1)</script>" in text
    text.encode("utf-8")
    assert all(display_width(line) <= 80 for line in text.split("\n"))


def test_words_longer_than_a_line_are_broken():
    text = render_text(Document(title="t", explanation=f"a {'x' * 50} b"), width=20)
    assert text.split("\n") == ["t", "a", "x" * 20, "x" * 20, "x" * 10 + " b"]

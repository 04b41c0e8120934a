"""The file of a monitor: whole lines, cut back where a run is resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankdiag.monitors._lines import Lines, plain_list


def record(step: int, event: str = "step") -> dict:
    return {"event": event, "step": step}


def written(path: Path) -> list[tuple[str, int]]:
    return [(entry["event"], entry["step"]) for entry in map(json.loads, path.read_text().splitlines())]


def test_folders_are_made_and_lines_appended(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "a" / "b.jsonl")
    lines.begin(resumed_at=None)
    lines.append({"event": "start", "step": 0, "text": "ä\n"})
    lines.append(record(5))
    assert written(lines.path) == [("start", 0), ("step", 5)]
    assert lines.path.read_bytes().count(b"\n") == 2


def test_a_fresh_run_goes_behind_the_last_one(tmp_path: Path) -> None:
    lines = Lines(str(tmp_path / "x.jsonl"))
    for _ in range(2):
        lines.begin(resumed_at=None)
        lines.append(record(0, "start"))
        lines.append(record(5))
    assert written(lines.path) == [("start", 0), ("step", 5)] * 2


@given(
    steps=st.lists(st.integers(1, 50), min_size=0, max_size=8),
    earlier=st.lists(st.integers(1, 50), min_size=0, max_size=3),
    at=st.integers(1, 50),
    torn=st.sampled_from(["", '{"event": "st', "{", "nonsense"]),
)
def test_a_resume_forgets_what_came_after_its_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], earlier: list[int], at: int, torn: str
) -> None:
    lines = Lines(tmp_path_factory.mktemp("run") / "x.jsonl")
    first = [("start", 0), *(("step", step) for step in earlier)] if earlier else []
    second = [("start", 0), *(("step", step) for step in sorted(steps))]
    lines.begin(resumed_at=None)
    for event, step in [*first, *second]:
        lines.append(record(step, event))
    with lines.path.open("a") as stream:
        stream.write(torn)
    lines.begin(resumed_at=at)
    assert written(lines.path) == first + [entry for entry in second if entry[1] <= at]


def test_a_torn_line_goes_when_a_fresh_run_begins(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "x.jsonl")
    lines.path.write_text('{"event": "start", "step": 0}\n{"event": "st')
    lines.begin(resumed_at=None)
    assert lines.path.read_text() == '{"event": "start", "step": 0}\n'


@pytest.mark.parametrize("text", ["a diary\n", "[1, 2]\n", '{"event": "start"}\n', "\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match="`out` must be a file of this monitor"):
        Lines(path).begin(resumed_at=3)
    assert path.read_text() == text


def test_numbers_are_json() -> None:
    assert plain_list([1, 2.5, math.nan, math.inf]) == [1.0, 2.5, None, None]


def test_places_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        Lines(tmp_path)
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(ValueError, match="a name that a file can have"):
            Lines(name)
    with pytest.raises(TypeError, match="`out`"):
        Lines(3)
    with pytest.raises(TypeError, match="`out`"):
        Lines(b"x.jsonl")

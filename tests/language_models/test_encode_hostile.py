"""Hostile rows: each gives a named error or a status, whatever it holds and wherever it stands."""

from __future__ import annotations

import collections
import contextlib
import copy
import datetime
import json
import re
import types

import numpy as np
import pytest

from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag.language_models import encode, read_records


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


BASES = {
    "pairs": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": [user("Hi")], "chosen": [bot("Hello")], "rejected": [bot("No")]},
        {"chosen": "The sky is blue", "rejected": "The sky is green"},
        {"chosen": [user("Hi"), bot("Hello")], "rejected": [user("Hi"), bot("No")]},
        {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]},
        {"prompt": "Hi", "chosen": [user("Hi"), bot("Hello")], "rejected": [user("Hi"), bot("No")]},
    ],
    "responses": [
        {"prompt": "The sky is", "responses": [" blue.", " green."]},
        {"prompt": "The sky is", "response": " blue."},
        {"prompt": [user("Hi")], "responses": [[bot("Hello")], [bot("No")]]},
        {"prompt_ids": [1, 2], "responses_ids": [[3], [4, 5]]},
        {"prompt_ids": [1, 2], "response_ids": [3]},
    ],
    "ids": [{"input_ids": [1, 2, 3, 4], "response_mask": [False, True, False, True]}],
}


def endless():
    yield from iter(int, 1)


class Refuses:
    """An object that raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError("no attributes")

    def __len__(self):
        raise RuntimeError("no length")

    def __iter__(self):
        raise RuntimeError("no entries")


LOOP: list = []
LOOP.append(LOOP)
DEEP: list = []
for _ in range(200):
    DEEP = [DEEP]

VALUES = {
    "None": None,
    "zero": 0,
    "minus one": -1,
    "float": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "huge integer": 10**40,
    "True": True,
    "bytes": b"text",
    "empty string": "",
    "space": " ",
    "NUL": "a\0b",
    "only NUL": "\0",
    "half a surrogate": "a\ud800b",
    "other half": "\udfff",
    "newlines": "\r\n\u2028\x85",
    "control": "".join(map(chr, range(32))),
    "right to left": "\u202eabc\u202c",
    "combining": "e" + "\u0301" * 500,
    "emoji": "👩‍👩‍👧‍👦" * 30,
    "enormous": "word " * 10_000,
    "one long word": "x" * 20_000,
    "special tokens": "</s><|user|><pad>",
    "template code": "{{ 7 * 7 }}{% raw %}",
    "template loop": "{% for i in range(10) %}{{ i }}{% endfor %}",
    "empty list": [],
    "empty tuple": (),
    "empty mapping": {},
    "list of None": [None],
    "list of numbers": [1, 2],
    "list of floats": [1.0, 2.0],
    "list of NaN": [float("nan")],
    "list of strings": ["a", "b"],
    "list of lists": [[1], [2, 3]],
    "list of empty lists": [[], []],
    "mixed list": [1, "a", None, {}],
    "negative ids": [-1, 2],
    "ids beyond 32 bits": [2**31],
    "ids beyond 64 bits": [2**70],
    "booleans as ids": [True, False],
    "booleans among ids": [1, True],
    "itself": LOOP,
    "nested deeply": DEEP,
    "array": np.array([1, 2]),
    "empty array": np.zeros(0),
    "array of 2 axes": np.ones((2, 2), dtype=int),
    "array without axes": np.array(3),
    "array of objects": np.array([None, "a"], dtype=object),
    "array of floats": np.array([1.0, np.nan]),
    "array of unsigned": np.array([2**63], dtype=np.uint64),
    "complex": 1j,
    "set": {1, 2},
    "range": range(3),
    "generator": endless(),
    "date": datetime.date(2024, 1, 1),
    "function": endless,
    "type": int,
    "module": types,
    "refuses everything": Refuses(),
    "message": user("not in a list"),
    "messages of no role": [{"content": "x"}],
    "messages of no content": [{"role": "user"}],
    "messages from and value": [{"from": "human", "value": "x"}],
    "role of None": [{"role": None, "content": "x"}],
    "role of a number": [{"role": 3, "content": "x"}],
    "role of a list": [{"role": ["user"], "content": "x"}],
    "empty role": [{"role": "", "content": "x"}],
    "unknown role": [{"role": "martian", "content": "x"}],
    "role with code": [{"role": "{{ x }}", "content": "x"}],
    "role of half a surrogate": [{"role": "\ud800", "content": "x"}],
    "content of None": [{"role": "user", "content": None}],
    "content of a number": [{"role": "user", "content": 3}],
    "content of bytes": [{"role": "user", "content": b"x"}],
    "content of a mapping": [{"role": "user", "content": {"text": "x"}}],
    "content in parts": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    "content of half a surrogate": [user("\ud800")],
    "content of NUL": [user("\0")],
    "enormous content": [user("word " * 10_000)],
    "message of numbers as names": [{1: 2, "role": "user", "content": "x"}],
    "message and number": [user("x"), 3],
    "message and None": [user("x"), None],
    "message in a list": [[user("x")]],
    "columns instead of rows": {"role": ["user"], "content": ["x"]},
    "many turns": [user("x"), bot("y")] * 200,
}
ALLOWED = {
    "pairs": {"ok", "empty_prompt", "empty_chosen", "empty_rejected", "too_long", "identical"},
    "responses": {"ok", "empty_prompt", "empty_response", "too_long"},
    "ids": {"ok", "empty_prompt", "empty_response", "too_long"},
}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def hostile_rows(kind):
    """Rows of one kind: each value in each column, columns taken away, names of columns that are odd."""
    for number, base in enumerate(BASES[kind]):
        for column in base:
            for name, value in VALUES.items():
                yield f"{kind} {number}: {name} as {column}", number, {**base, column: value}
            yield f"{kind} {number}: without {column}", number, {k: v for k, v in base.items() if k != column}
        for column in ("tools", "chat_template_kwargs", "key"):
            for name, value in VALUES.items():
                yield f"{kind} {number}: {name} as {column}", number, {**base, column: value}
        yield f"{kind} {number}: odd names", number, {**base, 3: 4, None: None, ("a",): [], "\ud800": "\ud800"}
        yield f"{kind} {number}: other mapping", number, types.MappingProxyType(dict(base))
        yield f"{kind} {number}: ordered", number, collections.OrderedDict(base)
        for column in list(base):
            lists = isinstance(base[column], list) and base[column]
            for name, value in VALUES.items() if lists else ():
                if name != "generator":
                    yield f"{kind} {number}: {name} inside {column}", number, {**base, column: [*base[column], value]}


def judge(kind, rows, place, tokenizer, what):
    """Encode, and say whether the hostile row at `place` was refused by name or has its place in the result."""
    try:
        data = encode(rows, tokenizer, kind=kind)
    except ValueError as error:
        named = re.search(r"record (\d+)", str(error))
        assert named, f"{what}: {error}"
        assert int(named[1]) == place, f"{what}: {error}"
        assert len(str(error)) < 700, f"{what}: {len(str(error))}"
        assert repr(str(error)).isprintable(), what
        return "refused"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert len(data) == len(rows), what
    assert data.status[place] in ALLOWED[kind], what
    others = [status for index, status in enumerate(data.status) if index != place]
    assert set(others) <= {"ok"}, what
    for row in np.flatnonzero(data.group == place):
        ok = data.status[place] == "ok"
        assert not ok or (len(data.response_ids[row]) and len(data.prompts[data.prompt_id[row]])), what
    return data.status[place]


@pytest.mark.parametrize("kind", BASES)
def test_hostile_rows_are_refused_by_name_or_keep_a_place(kind, tokenizer, record_property):
    outcomes: collections.Counter[str] = collections.Counter()
    for what, number, row in hostile_rows(kind):
        good = BASES[kind][number]
        alone = judge(kind, [row], 0, tokenizer, what)
        keyed = [{**good, "key": f"g{i}"} for i in range(2)] if "key" in row else [good, good]
        after = judge(kind, [*keyed, row], 2, tokenizer, what)
        outcomes.update([alone, after])
        assert after in {alone, "refused"}, what  # good rows before may only make the layout stricter
    record_property("tried", sum(outcomes.values()))
    least = {"pairs": 4000, "responses": 3000, "ids": 900}[kind]
    assert sum(outcomes.values()) >= least, outcomes
    assert outcomes["refused"] > least // 3
    assert len(outcomes) >= (2 if kind == "ids" else 4), outcomes


def test_hostile_rows_leave_the_records_alone(tokenizer):
    for what, number, row in hostile_rows("pairs"):
        if number % 3 or any(word in what for word in ("generator", "refuses", "module")):
            continue
        before = copy.deepcopy(dict(row))
        with contextlib.suppress(ValueError):
            encode([row], tokenizer)
        assert repr(dict(row)) == repr(before), what


def test_hostile_lines_are_refused_by_line_or_keep_a_place(tokenizer, tmp_path):
    path, tried = tmp_path / "hostile.jsonl", 0
    good = json.dumps(BASES["pairs"][0])
    for what, number, row in hostile_rows("pairs"):
        if number:
            continue
        try:
            line = json.dumps(dict(row))
        except (TypeError, ValueError, RecursionError):
            continue
        path.write_text(f"{good}\n\n{line}\n", encoding="utf-8")
        keyless = "key" not in row
        try:
            data = encode(path, tokenizer)
        except ValueError as error:
            assert ("record 1 (hostile.jsonl, line 3)" in str(error)) or "hostile.jsonl, line 3" in str(error), what
        else:
            assert keyless, what
            assert len(data) == len(read_records(path)) == 2, what
        tried += 1
    assert tried > 200


@pytest.mark.parametrize("kind", BASES)
def test_a_wrong_layout_in_the_middle_is_named(kind, tokenizer):
    for number, base in enumerate(BASES[kind]):
        for other, row in enumerate(BASES[kind]):
            data = None
            try:
                data = encode([base] * 5 + [row] + [base] * 5, tokenizer, kind=kind)
            except ValueError as error:
                assert "record 5 has another layout" in str(error), (number, other)
            if data is not None:
                assert len(data) == 11
        with pytest.raises(ValueError, match=r"record 5: expected columns"):
            encode([base] * 5 + [{"other": 1}], tokenizer, kind=kind)


def test_a_hostile_key_never_reaches_the_result(tokenizer):
    rows = [{**BASES["pairs"][0], "key": f"a\nb{i}\0"} for i in range(2)]
    data = encode(rows, tokenizer)
    assert data.keys == ("a\nb0\0", "a\nb1\0")
    assert "\0" not in repr(data)


def test_an_endless_source_stops_at_the_first_bad_row(tokenizer):
    def rows():
        yield BASES["pairs"][0]
        while True:
            yield {"prompt": 3}

    with pytest.raises(ValueError, match="record 1"):
        encode(rows(), tokenizer)

"""Reading records: every source gives the same rows, and damage is named with its file and line."""

from __future__ import annotations

import datetime
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdiag.language_models import encode, read_records

ROWS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green \x00 🙂.", "n": 1},
    {"prompt": "Привет\u2028!", "chosen": 'a "quote"\n', "rejected": "\\", "n": None},
    {"prompt": "x" * 70_000, "chosen": "a", "rejected": "b", "n": 3},
]
CHAT = [
    {
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello"}],
        "rejected": [{"role": "assistant", "content": "No"}],
    }
]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def as_lines(folder, rows):
    return write_lines(folder / "rows.jsonl", rows)


def as_json(folder, rows):
    path = folder / "rows.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def as_parquet(folder, rows):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def datasets():
    return pytest.importorskip("datasets")


def as_folder(folder, rows):
    found = datasets()
    found.utils.logging.disable_progress_bar()
    try:
        found.Dataset.from_list(rows).save_to_disk(str(folder / "saved"))
    finally:
        found.utils.logging.enable_progress_bar()
    return folder / "saved"


def as_dict_folder(folder, rows):
    found = datasets()
    found.utils.logging.disable_progress_bar()
    try:
        found.DatasetDict({"train": found.Dataset.from_list(rows)}).save_to_disk(str(folder / "both"))
    finally:
        found.utils.logging.enable_progress_bar()
    return folder / "both"


SOURCES = {
    "jsonl": as_lines,
    "path as str": lambda folder, rows: str(as_lines(folder, rows)),
    "json": as_json,
    "parquet": as_parquet,
    "dataset folder": as_folder,
    "dataset dict folder": as_dict_folder,
    "Dataset": lambda folder, rows: datasets().Dataset.from_list(rows),
    "Dataset with a format": lambda folder, rows: datasets().Dataset.from_list(rows).with_format("numpy"),
    "shuffled view": lambda folder, rows: datasets().Dataset.from_list(rows[::-1]).select(range(len(rows) - 1, -1, -1)),
    "IterableDataset": lambda folder, rows: datasets().Dataset.from_list(rows).to_iterable_dataset(),
    "DatasetDict": lambda folder, rows: datasets().DatasetDict({"only": datasets().Dataset.from_list(rows)}),
    "list": lambda folder, rows: rows,
    "tuple": lambda folder, rows: tuple(rows),
    "generator": lambda folder, rows: (row for row in rows),
}


@pytest.mark.parametrize("rows", [ROWS, CHAT], ids=["strings", "chat"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_the_same_rows(source, rows, tmp_path):
    found = read_records(SOURCES[source](tmp_path, rows))
    assert isinstance(found, list)
    assert found == rows
    assert all(type(row) is dict for row in found)


@pytest.mark.parametrize("source", SOURCES)
def test_encoding_takes_every_source_directly(source, tmp_path):
    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5], "key": "a"}]
    assert encode(SOURCES[source](tmp_path, rows)).fingerprint == encode(rows).fingerprint


def test_masks_survive_every_file(tmp_path):
    rows = [{"input_ids": [1, 2, 3], "response_mask": [False, True, True]}]
    want = encode(rows, kind="ids").fingerprint
    for make in (as_lines, as_json, as_parquet, as_folder):
        assert encode(make(tmp_path, rows), kind="ids").fingerprint == want


def test_what_a_schema_fills_up_with_none_is_taken_out_of_messages(tmp_path):
    rows = [*CHAT, {**CHAT[0], "chosen": [{"role": "assistant", "content": "", "tool_calls": "f()"}]}]
    found = read_records(as_parquet(tmp_path, rows))
    assert found[0]["chosen"][0] == {"role": "assistant", "content": "Hello", "tool_calls": None}  # as it is read
    from oracles.tiny_tokenizer import tiny_tokenizer

    tok = tiny_tokenizer()
    tok.chat_template = "{% for m in messages %}{{ m['content'] }}{{ 'tool_calls' in m }}{% endfor %}"
    data = encode([{**row, "prompt": [dict(row["prompt"][0])]} for row in found], tok)
    assert tok.decode(data.chosen_ids[0]).endswith("HelloFalse")
    assert data.status == ("ok", "ok")
    assert tok.decode(data.chosen_ids[1]).endswith("True")


def test_records_are_read_lazily_by_encode(tmp_path):
    path = tmp_path / "long.jsonl"
    row = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}
    write_lines(path, [row] * 1000)
    with path.open("ab") as file:
        file.write(b"{torn")
    with pytest.raises(ValueError, match=r"long.jsonl, line 1001"):
        encode(path)
    write_lines(path, [row, {"prompt_ids": 3, "chosen_ids": [2], "rejected_ids": [3]}])
    with path.open("ab") as file:
        file.write(b"{torn")
    with pytest.raises(ValueError, match=r"record 1 \(long.jsonl, line 2\): `prompt_ids`"):
        encode(path)


# --- damage ---------------------------------------------------------------------------------------------------------

GOOD = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
LINES = {
    "torn": b'{"prompt": "a", "chos',
    "not JSON": b"prompt,chosen,rejected",
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "a list": b"[1, 2]",
    "a string": b'"text"',
    "null": b"null",
    "a number": b"17",
    "two objects": b'{"a": 1} {"a": 2}',
    "repeated key": b'{"prompt": "a", "chosen": "b", "prompt": "c"}',
    "repeated key inside": b'{"prompt": [{"role": "a", "role": "b"}]}',
    "too deep": b'{"prompt": ' + b"[" * 100_000,
    "too many digits": b'{"prompt": ' + b"9" * 5000 + b"}",
    "NUL bytes": b"\0\0\0\0",
    "single quotes": b"{'prompt': 'a'}",
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_named(name, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD + LINES[name] + b"\n" + GOOD)
    with pytest.raises(ValueError, match=r"pairs\.jsonl, line 4\b"):
        read_records(path)


@pytest.mark.parametrize("name", [name for name in LINES if name not in {"torn", "two objects"}])
def test_a_bad_json_file_is_named(name, tmp_path):
    path = tmp_path / "pairs.json"
    path.write_bytes(b"[" + GOOD + b",\n" + LINES[name] + b"]")
    with pytest.raises(ValueError, match=r"pairs\.json"):
        read_records(path)
    if name in {"not UTF-8", "not JSON", "single quotes"}:
        with pytest.raises(ValueError, match=r"pairs\.json, line 3\b"):
            read_records(path)


def test_lines_in_a_json_file_get_advice(tmp_path):
    path = tmp_path / "pairs.json"
    path.write_bytes(GOOD + GOOD)
    with pytest.raises(ValueError, match=r"line 2: .*\.jsonl"):
        read_records(path)
    path.write_bytes(GOOD)
    with pytest.raises(ValueError, match="must hold a list"):
        read_records(path)


def test_harmless_oddities_are_read(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n  \n" + GOOD.replace(b"\n", b"\r\n") + GOOD.rstrip())
    assert len(read_records(path)) == 3
    path.write_bytes(b'{"prompt": "\\ud83d\\ude42", "x": NaN}')
    assert read_records(path)[0]["prompt"] == "🙂"
    path = tmp_path / "odd.json"
    path.write_bytes(b"\xef\xbb\xbf[]")
    assert read_records(path) == []
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")
    assert read_records(path) == []
    with pytest.raises(ValueError, match="at least one record"):
        encode(path)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_rows_or_a_named_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    for ending in ("jsonl", "json", "parquet"):
        path = folder / f"any.{ending}"
        path.write_bytes(content)
        try:
            found = read_records(path)
        except ValueError as error:
            assert f"any.{ending}" in str(error)
        else:
            assert all(isinstance(row, dict) for row in found)


@pytest.mark.parametrize("keep", [0, 4, 100, -8, -1])
def test_a_damaged_parquet_file_is_named(keep, tmp_path):
    path = as_parquet(tmp_path, ROWS)
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"rows\.parquet"):
        read_records(path)


def test_a_parquet_file_with_flipped_bytes_never_crashes(tmp_path):
    path = as_parquet(tmp_path, ROWS[:2])
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(content)
        changed[int(rng.integers(4, len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            assert all(isinstance(row, dict) for row in read_records(path))
        except ValueError as error:
            assert "rows.parquet" in str(error)


def test_parquet_with_columns_of_one_name_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet.*repeat"):
        read_records(tmp_path / "twice.parquet")


def test_folders(tmp_path):
    with pytest.raises(ValueError, match="save_to_disk"):
        read_records(tmp_path)
    saved = as_folder(tmp_path, ROWS)
    (saved / "state.json").write_text("{broken")
    with pytest.raises(ValueError, match="cannot be read"):
        read_records(saved)


def test_splits(tmp_path):
    found = datasets()
    parts = {name: found.Dataset.from_list([{"prompt": name}]) for name in ("train", "test")}
    both = found.DatasetDict(parts)
    assert read_records(both, split="test") == [{"prompt": "test"}]
    with pytest.raises(ValueError, match="splits 'train', 'test'; choose one"):
        read_records(both)
    with pytest.raises(ValueError, match="`split` must be one of 'train', 'test'; got 'dev'"):
        read_records(both, split="dev")
    with pytest.raises(ValueError, match="`split` must be left out"):
        read_records(parts["train"], split="train")
    with pytest.raises(ValueError, match="`split` must be left out"):
        read_records(as_lines(tmp_path, ROWS), split="train")
    with pytest.raises(ValueError, match="`split` must be left out"):
        read_records(as_folder(tmp_path, ROWS), split="train")
    with pytest.raises(TypeError, match="split"):
        read_records(both, split=3)
    folder = as_dict_folder(tmp_path, ROWS)
    assert len(read_records(folder, split="train")) == 3
    with pytest.raises(ValueError, match="`split` must be one of"):
        read_records(folder, split="test")


@pytest.mark.parametrize("source", [None, 3, 2.5, object(), {"prompt": ["a"]}, True])
def test_what_is_no_source(source):
    with pytest.raises(TypeError, match="`source`"):
        read_records(source)


def test_tables_of_pandas_get_advice():
    pd = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="to_dict"):
        read_records(pd.DataFrame(ROWS))


@pytest.mark.parametrize("row", [None, 3, "text", b"x", ["a", "b"], [("prompt", "a")], np.zeros(2), object()])
def test_rows_that_are_no_mappings_are_named(row):
    with pytest.raises(ValueError, match="`source`: record 2 must be a mapping"):
        read_records([{}, {}, row])


def test_paths():
    with pytest.raises(FileNotFoundError, match="Nothing is downloaded"):
        read_records("trl-lib/ultrafeedback_binarized")
    with pytest.raises(FileNotFoundError, match="`records`: there is no file") as caught:
        encode("a text that somebody took for a record " * 200)
    assert len(str(caught.value)) < 400
    with pytest.raises(ValueError, match="path"):
        read_records("a\0b.jsonl")
    with pytest.raises(ValueError, match="path"):
        read_records(_Bytes())


class _Bytes(os.PathLike):
    def __fspath__(self):
        return b"name"


def test_other_endings_are_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("a,b")
    with pytest.raises(ValueError, match=r"\.jsonl, \.json or \.parquet"):
        read_records(path)


def test_endings_may_be_in_capitals(tmp_path):
    assert read_records(write_lines(tmp_path / "ROWS.JSONL", ROWS)) == ROWS


def test_columns_of_other_types_are_left_as_they_are(tmp_path):
    rows = [{"prompt": "a", "when": datetime.date(2024, 1, 1), "score": 0.5, "raw": b"\xff"}]
    assert read_records(as_parquet(tmp_path, rows)) == rows


def test_errors_of_a_generator_are_its_own():
    def rows():
        yield {}
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read_records(rows())

"""The encoded data itself: what it checks, what it shows, and the way to Parquet and back."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag.language_models import Encoded, EncodedPreferences, encode, encode_preferences
from rankdiag.language_models._encoded import fingerprint_of

PAIRS = [
    {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6], "key": "a"},
    {"prompt_ids": [1, 2, 3], "chosen_ids": [4], "rejected_ids": [4], "key": "<b>"},
    {"prompt_ids": [], "chosen_ids": [4], "rejected_ids": [], "key": "c"},
    {"prompt_ids": [9], "chosen_ids": [7, 7, 7], "rejected_ids": [8, 8, 8, 8], "key": "d\n"},
]


def pairs(**options) -> EncodedPreferences:
    return encode_preferences(PAIRS, **options)


def equal(first, second) -> bool:
    """Whether two encodings agree in every field, dtype included."""
    if type(first) is not type(second):
        return False
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(second, field.name)
        one, two = (value if isinstance(value, tuple) else (value,) for value in (one, two))
        if len(one) != len(two):
            return False
        for a, b in zip(one, two, strict=True):
            if isinstance(a, np.ndarray) != isinstance(b, np.ndarray):
                return False
            if isinstance(a, np.ndarray) and (a.dtype != b.dtype or not np.array_equal(a, b)):
                return False
            if not isinstance(a, np.ndarray) and a != b:
                return False
    return True


def test_fields_of_pairs():
    data = pairs()
    assert data.keys == ("a", "<b>", "c", "d\n")
    assert data.status == ("ok", "identical", "empty_prompt", "ok")
    assert data.n_usable == 2
    assert len(data) == 4
    assert len(data.prompts) == 3
    assert data.prompt_id.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert data.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert data.slot.tolist() == [0, 1] * 4
    assert [ids.tolist() for ids in data.prompt_ids] == [[1, 2, 3], [1, 2, 3], [], [9]]
    assert [ids.tolist() for ids in data.chosen_ids] == [[4, 5], [4], [4], [7, 7, 7]]
    assert [ids.tolist() for ids in data.rejected_ids] == [[6], [4], [], [8, 8, 8, 8]]
    assert all(ids.dtype == np.int32 for ids in (*data.prompts, *data.response_ids))
    assert data.n_tokens == 2 * 3 + 3 + 2 * 3 + 2 + 1 + 2 + 7
    cut = pairs(max_length=4, truncation="keep_end")
    assert cut.n_tokens == sum(
        len(cut.prompts[p]) - start + len(ids)
        for p, start, ids in zip(cut.prompt_id, cut.prompt_start, cut.response_ids, strict=True)
    )


def test_arrays_are_read_only_and_inputs_stay_writable():
    given = np.array([4, 5], dtype=np.int32)
    data = encode_preferences([{"prompt_ids": [1], "chosen_ids": given, "rejected_ids": [6]}])
    given[0] = 99
    assert data.chosen_ids[0].tolist() == [4, 5]
    for array in (*data.prompts, *data.response_ids, data.group, data.slot, data.prompt_id, data.prompt_start):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.keys = ()
    own = np.array([0, 0], dtype=np.int64)
    dataclasses.replace(data, group=own, fingerprint="")
    assert own.flags.writeable


def test_shown_in_one_line_in_text_and_in_html():
    data = pairs(max_length=5)
    assert repr(data) == "EncodedPreferences(4 pairs: 2 ok, 1 empty_prompt, 1 identical; 27 tokens)"
    text = data.summary(width=80)
    assert str(data) == data.summary()
    assert "empty_prompt" in text
    assert "Unusable, identical: '<b>'." in text
    assert data.fingerprint in text
    html = data._repr_html_()
    assert "<b>'" not in html
    assert "&lt;b&gt;" in html
    rollouts = encode([{"prompt_ids": [1], "responses_ids": [[2], [3]]}] * 2, kind="responses")
    assert repr(rollouts) == "Encoded(2 groups of 4 responses: 2 ok; 8 tokens)"
    single = encode([{"prompt_ids": [1], "response_ids": [2]}], kind="responses")
    assert repr(single) == "Encoded(1 group: 1 ok; 2 tokens)"
    with pytest.raises(ValueError, match="width"):
        data.summary(width=3)


def test_copies_are_equal():
    data = pairs()
    for other in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert equal(other, data)
        assert fingerprint_of(other) == data.fingerprint


# --- fingerprint ----------------------------------------------------------------------------------------------------


def test_the_fingerprint_covers_everything_that_a_score_depends_on():
    data = encode([{"input_ids": [1, 5, 7, 8, 9], "response_mask": [0, 0, 1, 0, 1]}], kind="ids")
    changes = {
        "keys": ("other",),
        "status": ("too_long",),
        "prompts": (np.array([1, 6], dtype=np.int32),),
        "response_ids": (np.array([7, 8, 8], dtype=np.int32),),
        "loss_mask": (np.array([True, True, True]),),
        "prompt_start": np.array([1]),
        "tokenizer": {**data.tokenizer, "eos": 7},
    }
    prints = {data.fingerprint}
    for name, value in changes.items():
        prints.add(dataclasses.replace(data, **{name: value}, fingerprint="").fingerprint)
    prints.add(dataclasses.replace(data, loss_mask=(None,), fingerprint="").fingerprint)
    assert len(prints) == len(changes) + 2
    assert all(len(value) == 64 for value in prints)
    assert dataclasses.replace(data, notes=("other",), fingerprint="").fingerprint == data.fingerprint
    assert json.loads(json.dumps(data.tokenizer)) == data.tokenizer


def test_moving_a_token_between_rows_changes_the_fingerprint():
    first = encode_preferences([{"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [4]}])
    second = encode_preferences([{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3, 4]}])
    third = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}])
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3


# --- checks ---------------------------------------------------------------------------------------------------------

INT = np.int64
WRONG = {
    "kind": ({"kind": "triples"}, ValueError, "kind"),
    "kind of pairs": ({"kind": "responses"}, ValueError, "EncodedPreferences"),
    "keys no tuple": ({"keys": ["a", "b", "c", "d"]}, TypeError, "`keys` must be a tuple"),
    "keys no strings": ({"keys": ("a", "b", "c", 4)}, TypeError, "`keys`"),
    "keys repeat": ({"keys": ("a", "b", "c", "a")}, ValueError, "`keys` must be unique; 'a' comes 2"),
    "keys missing": ({"keys": ("a", "b", "c")}, ValueError, "`status`"),
    "status unknown": ({"status": ("ok", "fine", "ok", "ok")}, ValueError, r"`status\[1\]`"),
    "status of another kind": ({"status": ("ok", "ok", "empty_response", "ok")}, ValueError, r"`status\[2\]`"),
    "rows missing": ({"group": np.zeros(2, INT)}, ValueError, "`group` must have 8"),
    "group float": ({"group": np.zeros(8)}, TypeError, "`group` must be a 1-D array of int64"),
    "group as list": ({"group": [0] * 8}, TypeError, "`group`"),
    "group unsorted": ({"group": np.array([0, 0, 2, 2, 1, 1, 3, 3])}, ValueError, "`group` must count"),
    "group left out": ({"group": np.array([0, 0, 1, 1, 3, 3, 3, 3])}, ValueError, "`group` must count"),
    "group too large": ({"group": np.array([0, 0, 1, 1, 2, 2, 4, 4])}, ValueError, "`group` must count"),
    "group negative": ({"group": np.array([-1, 0, 1, 1, 2, 2, 3, 3])}, ValueError, "`group` must count"),
    "three rows": (
        {"group": np.array([0, 0, 0, 1, 2, 2, 3, 3]), "slot": np.array([0, 1, 2, 0, 0, 1, 0, 1])},
        ValueError,
        "pairs must have 2 rows; group 0",
    ),
    "slot": ({"slot": np.array([0, 1, 0, 1, 1, 0, 0, 1])}, ValueError, "`slot`"),
    "prompt unknown": ({"prompt_id": np.array([0, 0, 0, 0, 1, 1, 3, 3])}, ValueError, "`prompt_id`"),
    "prompt unused": ({"prompt_id": np.zeros(8, INT)}, ValueError, "`prompt_id`"),
    "start beyond": ({"prompt_start": np.array([0, 4, 0, 0, 0, 0, 0, 0])}, ValueError, r"`prompt_start\[1\]`"),
    "start negative": ({"prompt_start": np.array([0, 0, 0, 0, 0, 0, 0, -1])}, ValueError, r"`prompt_start\[7\]`"),
    "prompts int64": ({"prompts": (np.zeros(1, INT),) * 3}, TypeError, r"`prompts\[0\]` must be .* int32"),
    "response 2-D": ({"response_ids": (np.zeros((1, 1), np.int32),) * 8}, TypeError, r"`response_ids\[0\]`"),
    "negative id": ({"response_ids": (np.array([-1], np.int32),) * 8}, ValueError, r"`response_ids\[0\]` .* >= 0"),
    "mask missing": ({"loss_mask": (None,) * 7}, ValueError, "`loss_mask` must have 8"),
    "mask length": ({"loss_mask": (*(None,) * 7, np.ones(3, bool))}, ValueError, r"`loss_mask\[7\]` must have 4"),
    "mask of numbers": ({"loss_mask": (*(None,) * 7, np.ones(4))}, TypeError, r"`loss_mask\[7\]`"),
    "count negative": ({"n_truncated": -1}, ValueError, "n_truncated"),
    "tokenizer": ({"tokenizer": None}, TypeError, "`tokenizer`"),
    "notes": ({"notes": "text"}, TypeError, "`notes`"),
}


@pytest.mark.parametrize("name", WRONG)
def test_fields_that_contradict_each_other_are_refused(name):
    changes, kind, words = WRONG[name]
    with pytest.raises(kind, match=words):
        dataclasses.replace(pairs(), **changes)


def test_an_empty_one_is_legal():
    nothing = np.zeros(0, INT)
    data = Encoded(
        kind="responses", keys=(), status=(), prompts=(), group=nothing, slot=nothing, prompt_id=nothing,
        prompt_start=nothing, response_ids=(), loss_mask=(),
    )  # fmt: skip
    assert (len(data), data.n_tokens, data.status_counts) == (0, 0, {})
    assert repr(data) == "Encoded(0 groups: none; 0 tokens)"
    assert "usable" in data.summary()


# --- Parquet --------------------------------------------------------------------------------------------------------

pyarrow = pytest.importorskip("pyarrow")

tokens = st.lists(st.integers(0, 2**31 - 1), max_size=5)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(tokens, st.lists(tokens, max_size=3)), min_size=1, max_size=5), st.integers(1, 8), st.booleans()
)
def test_any_rollouts_come_back_equal(tmp_path_factory, groups, limit, front):
    records = [{"prompt_ids": prompt, "responses_ids": responses} for prompt, responses in groups]
    data = encode(records, kind="responses", max_length=limit, truncation="keep_end" if front else "keep_start")
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    data.to_parquet(path)
    assert equal(Encoded.from_parquet(path), data)


def test_pairs_masks_and_text_come_back_equal(tmp_path):
    path = tmp_path / "x.parquet"
    text = [{"prompt": "Привет", "chosen": " a\0", "rejected": " b 🙂", "key": "ключ\0"}]
    masked = [{"input_ids": [1, 5, 7, 8, 9], "response_mask": [0, 0, 1, 0, 1]}, {"input_ids": [], "response_mask": []}]
    for data in (pairs(max_length=5), encode(text, tiny_tokenizer()), encode(masked, kind="ids")):
        data.to_parquet(path)
        assert equal(Encoded.from_parquet(path), data)
    pairs().to_parquet(str(path))
    assert isinstance(EncodedPreferences.from_parquet(str(path)), EncodedPreferences)
    encode(masked, kind="ids").to_parquet(path)
    with pytest.raises(TypeError, match="holds no pairs"):
        EncodedPreferences.from_parquet(path)


def test_several_row_groups(tmp_path):
    records = [{"prompt_ids": [i % 7 + 1], "chosen_ids": [i], "rejected_ids": [i + 1]} for i in range(1300)]
    data = encode(records)
    data.to_parquet(tmp_path / "x.parquet")
    file = pyarrow.parquet.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 3
    assert file.metadata.num_rows == 2600
    assert equal(Encoded.from_parquet(tmp_path / "x.parquet"), data)
    table = file.read()
    assert table.column("prompt_ids")[2599].as_py() == data.prompts[data.prompt_id[2599]].tolist()
    assert table.column("key")[5].as_py() == "2"


def test_a_file_appears_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    pairs().to_parquet(path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    from rankdiag.language_models import _encoded

    monkeypatch.setattr(_encoded, "_table", fail)
    with pytest.raises(OSError, match="disk full"):
        pairs(max_length=4).to_parquet(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.parquet"]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        pairs().to_parquet(tmp_path / "missing" / "x.parquet")
    with pytest.raises(IsADirectoryError):
        pairs().to_parquet(tmp_path)


def test_files_of_others_and_damage_are_refused(tmp_path):
    import pyarrow.parquet as parquet

    other = tmp_path / "other.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["a"]}), other)
    with pytest.raises(ValueError, match=r"Encoded.to_parquet wrote; .*other\.parquet"):
        Encoded.from_parquet(other)
    with pytest.raises(FileNotFoundError):
        Encoded.from_parquet(tmp_path / "missing.parquet")
    path = tmp_path / "x.parquet"
    pairs().to_parquet(path)
    content = path.read_bytes()
    for keep in (0, 4, 50, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match="`path`"):
            Encoded.from_parquet(path)


def test_a_changed_id_is_found_by_the_fingerprint(tmp_path):
    import pyarrow.parquet as parquet

    path = tmp_path / "x.parquet"
    pairs().to_parquet(path)
    table = parquet.read_table(path)
    ids = [[4, 6], *table.column("response_ids").to_pylist()[1:]]
    changed = table.set_column(
        table.column_names.index("response_ids"), "response_ids", pyarrow.array(ids, pyarrow.list_(pyarrow.int32()))
    )
    parquet.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    with pytest.raises(ValueError, match="does not fit its fingerprint"):
        Encoded.from_parquet(path)
    for name in ("group", "key", "prompt_ids"):
        parquet.write_table(table.drop_columns([name]), path)
        with pytest.raises(ValueError, match="`path`"):
            Encoded.from_parquet(path)


def test_flipped_bytes_never_crash(tmp_path):
    path = tmp_path / "x.parquet"
    data = pairs()
    data.to_parquet(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(150):
        changed = bytearray(content)
        changed[int(rng.integers(4, len(content)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            back = Encoded.from_parquet(path)
        except ValueError as error:
            assert "`path`" in str(error)
            found += 1
        else:
            assert fingerprint_of(back) == data.fingerprint
    assert found > 30


def test_without_pyarrow_the_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for call in (pairs().to_parquet, Encoded.from_parquet):
        with pytest.raises(ImportError, match=r"rankdiag\[parquet\]"):
            call(tmp_path / "x.parquet")

"""Writing kept pairs: rows as they were, a score beside them, and nothing at all when something is wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdiag.language_models._records import RecordsDigest
from rankdiag.preference import PreferenceScores, export, keep_lowest

ROWS = [
    {"prompt": "a", "chosen": "b", "rejected": "c", "extra": {"deep": ["1", None, "é"]}},
    {"prompt": "=d", "chosen": "<e>", "rejected": "f\n\u2028", "extra": None},
    {"prompt": "g", "chosen": "same", "rejected": "same", "extra": None},
]


def scores(values=(0.5, -0.5, 0.0), **options) -> PreferenceScores:
    count = len(values)
    lengths = dict.fromkeys(("n_chosen", "n_rejected", "length_gap", "shared_prefix"), np.ones(count))
    return PreferenceScores(
        keys=tuple(map(str, range(count))),
        status=("ok",) * (count - 1) + ("identical",),
        scores={"ln_ches": values, **lengths},
        **options,
    )


def records_fingerprint(rows: list[dict]) -> str:
    digest = RecordsDigest()
    for row in rows:
        digest.add(row)
    return digest.hexdigest()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_rows_come_out_as_they_went_in(tmp_path):
    target = tmp_path / "kept.jsonl"
    assert export([0, 1, 2], ROWS, target) == target
    assert lines(target) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["kept.jsonl"]


def test_the_score_and_where_it_came_from(tmp_path):
    target = tmp_path / "kept.jsonl"
    found = scores(manifest={"data": "abc", "models": [{"name": "tiny"}]})
    export(keep_lowest(found, fraction=0.5), ROWS, target, scores=found)
    assert lines(target) == [{**ROWS[1], "rankdiag_ln_ches": -0.5}]
    manifest = json.loads((tmp_path / "kept.jsonl.manifest.json").read_text())
    assert manifest == {"column": "rankdiag_ln_ches", "rows": 1, "of": 3, "scores": dict(found.manifest)}
    assert "rankdiag_ln_ches" not in ROWS[1]  # the input is left alone


def test_an_identical_pair_is_never_kept_by_its_zero():
    assert keep_lowest(scores((0.5, 0.4, 0.0)), n=3).tolist() == [0, 1]


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "kept.parquet"
    export([1, 0], ROWS, target, scores=scores())
    rows = parquet.read_table(target).to_pylist()
    assert [row["prompt"] for row in rows] == ["=d", "a"]
    assert [row["extra"] for row in rows] == [None, ROWS[0]["extra"]]
    assert [row["rankdiag_ln_ches"] for row in rows] == [-0.5, 0.5]


def test_parquet_loses_no_column_that_the_first_row_lacks(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    target = tmp_path / "kept.parquet"
    export([0, 1], [{"a": 1}, {"b": "x", "a": None}], target)
    assert parquet.read_table(target).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_dataset_of_datasets_is_taken(tmp_path):
    datasets = pytest.importorskip("datasets")
    target = tmp_path / "kept.jsonl"
    table = [{"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in ROWS]
    export([2], datasets.Dataset.from_list(table), target)
    assert lines(target) == [table[2]]


def test_scores_of_other_records_are_refused_and_nothing_is_written(tmp_path):
    good = scores(manifest={"records": records_fingerprint(ROWS)})
    export([0], ROWS, tmp_path / "good.jsonl", scores=good)
    other = [*ROWS[:2], {**ROWS[2], "rejected": "changed"}]
    with pytest.raises(ValueError, match="another fingerprint"):
        export([0], other, tmp_path / "bad.jsonl", scores=good)
    with pytest.raises(ValueError, match="3 pairs, it has 2"):
        export([0], ROWS[:2], tmp_path / "bad.jsonl", scores=good)
    with pytest.raises(ValueError, match="pair 1"):
        export([0], ROWS, tmp_path / "bad.jsonl", scores=dataclasses.replace(good, keys=("0", "x", "2")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.jsonl", "good.jsonl.manifest.json"]


def test_the_fingerprint_sees_order_values_and_names_but_not_the_order_of_columns():
    base = records_fingerprint(ROWS)
    assert records_fingerprint([dict(reversed(row.items())) for row in ROWS]) == base
    assert records_fingerprint(ROWS[::-1]) != base
    assert records_fingerprint(ROWS[:2]) != base
    assert records_fingerprint([{**ROWS[0], "more": 1}, *ROWS[1:]]) != base


@pytest.mark.parametrize(
    ("indices", "dataset", "path", "words"),
    [
        ([3], ROWS, "x.jsonl", "indices"),
        ([-1], ROWS, "x.jsonl", "indices"),
        ([0, 0], ROWS, "x.jsonl", "twice"),
        (["0"], ROWS, "x.jsonl", "indices"),
        ("0", ROWS, "x.jsonl", "indices"),
        ([0], "rows", "x.jsonl", "dataset"),
        ([0], ["row"], "x.jsonl", "record 0"),
        ([0], ROWS, "x.csv", "jsonl"),
        ([0], ROWS, "no/such/folder/x.jsonl", "folder"),
    ],
)
def test_wrong_arguments_are_named_and_leave_no_file(tmp_path, indices, dataset, path, words):
    with pytest.raises((ValueError, TypeError, OSError), match=words):
        export(indices, dataset, tmp_path / path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    pytest.importorskip("pyarrow")
    target = tmp_path / "kept.parquet"
    export([0], ROWS, target)
    before = target.read_bytes()
    with pytest.raises(ValueError, match=r"column 'a' mixes several"):
        export([0, 1], [{"a": 1}, {"a": {"b": "c"}}], target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept.parquet"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=4), min_size=1, max_size=5), st.data())
def test_any_rows_in_any_order_survive(tmp_path_factory, rows, data):
    places = data.draw(st.permutations(range(len(rows))))
    target = tmp_path_factory.mktemp("any") / "kept.jsonl"
    export(places, rows, target)
    assert lines(target) == [rows[place] for place in places]


def test_scores_of_real_pairs_know_the_order_of_their_records(tmp_path):
    """Scores that a model gave refuse the same pairs in another order, which have the same keys, positions."""
    from rankdiag.language_models import encode_preferences
    from rankdiag.preference import score_preferences
    from rankdiag.testing import tiny_language_model

    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3, 4 + i], "rejected_ids": [5, 6 + i]} for i in range(4)]
    scored = score_preferences(tiny_language_model(), encode_preferences(rows))
    assert export(keep_lowest(scored, n=2), rows, tmp_path / "kept.jsonl", scores=scored).exists()
    for other in (rows[::-1], [*rows[:3], {**rows[3], "more": 1}]):
        with pytest.raises(ValueError, match="another fingerprint"):
            export(keep_lowest(scored, n=2), other, tmp_path / "wrong.jsonl", scores=scored)
    assert not (tmp_path / "wrong.jsonl").exists()


def test_keys_in_a_column_of_another_name(tmp_path):
    rows = [{**row, "id": f"r{place}"} for place, row in enumerate(ROWS)]
    named = dataclasses.replace(scores(), keys=("r0", "r1", "r2"))
    with pytest.raises(ValueError, match="name it with `key`"):
        export([0], rows, tmp_path / "kept.jsonl", scores=named)
    export([0], rows, tmp_path / "kept.jsonl", scores=named, key="id", rule="by hand")
    facts = json.loads((tmp_path / "kept.jsonl.manifest.json").read_text())
    assert facts["rule"] == "by hand"

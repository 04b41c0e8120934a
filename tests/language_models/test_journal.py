"""The journal alone: what comes back, what a cut leaves, what is refused, and a full disk."""

from __future__ import annotations

import json
import math
import resource
import signal

import numpy as np
import pytest

from rankdiag.language_models import Columns, Journal


def columns(places, *, offset=0.0, vectors=False):
    values = {
        "score": np.array([[math.nan, math.inf, -math.inf, 0.1][place % 4] + offset for place in places]),
        "tokens": tuple(np.array([place / 3, math.inf, math.nan])[: place % 4] for place in places),
    }
    if vectors:
        values["sums"] = np.array([[place, place + 0.5] for place in places])
    return Columns(
        keys=tuple(f"k{place}" for place in places),
        group=np.array(places),
        slot=np.zeros(len(places), dtype=np.int64),
        status=tuple("ok" if place % 5 else "too_long" for place in places),
        values=values,
    )


def written(folder, batches, *, rank=0, **manifest):
    with Journal(folder, {"n_groups": 12, **manifest}, rank=rank) as journal:
        for batch in batches:
            journal.append(columns(batch))
    return journal


BATCHES = [[11, 3, 5], [0, 1, 2, 4], [10, 9, 8, 7, 6]]


def test_nothing_is_lost_of_what_json_cannot_say(tmp_path):
    written(tmp_path, BATCHES)
    rows = list(Journal.read(tmp_path))
    assert [row["key"] for row in rows] == [f"k{place}" for place in range(12)]
    assert [row["score"] for row in rows[:4]] == [None, math.inf, -math.inf, 0.1]
    assert rows[3]["tokens"] == [1.0, math.inf, None]
    assert rows[5]["status"] == "too_long"
    for part in tmp_path.glob("part-*.jsonl"):
        for line in part.read_text().splitlines():
            json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_cut_at_every_byte_the_merged_file_is_the_same(tmp_path):
    expected = written(tmp_path / "whole", BATCHES).merge().read_bytes()
    data = (tmp_path / "whole" / "part-r000-00000.jsonl").read_bytes()
    for size in range(0, len(data) + 1, 7):
        folder = tmp_path / str(size)
        written(folder, [])
        (folder / "part-r000-00000.jsonl").write_bytes(data[:size])
        assert written(folder, BATCHES).merge().read_bytes() == expected
        assert (folder / "part-r000-00000.jsonl").read_bytes() == data


def test_processes_write_parts_of_their_own_and_repeat_nothing(tmp_path):
    expected = written(tmp_path / "one", BATCHES).merge().read_bytes()
    first, second = Journal(tmp_path / "two", {"n_groups": 12}), Journal(tmp_path / "two", {"n_groups": 12}, rank=1)
    first.append(columns(BATCHES[0]))
    second.append(columns(BATCHES[0]))  # it did not know: identical rows twice
    second.append(columns(BATCHES[1]))
    first.append(columns(BATCHES[2]))
    first.close()
    second.close()
    assert first.merge().read_bytes() == expected
    assert len((tmp_path / "two" / "part-r001-00000.jsonl").read_text().splitlines()) == 7


def test_different_rows_of_one_key_are_refused(tmp_path):
    first, second = Journal(tmp_path, {}), Journal(tmp_path, {}, rank=1)
    first.append(columns([3]))
    second.append(columns([3], offset=1e-9))
    with pytest.raises(ValueError, match=r"line 1 of part-r001-00000\.jsonl .* key 'k3'"):
        first.merge()


def test_missing_rows_are_counted_and_no_file_is_left(tmp_path):
    journal = written(tmp_path, BATCHES[:2])
    with pytest.raises(ValueError, match=r"5 of 12 rows are missing in .* \(rows \d+, \d+, \d+, \.\.\. of the data\)"):
        journal.merge(tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("damage", [b"{", b"\0\0\0\n", b"[]\n", b"\xff\xfe\n", b'{"key": 3}\n'])
def test_a_damaged_line_is_named(tmp_path, damage):
    written(tmp_path, BATCHES[:2])
    part = tmp_path / "part-r000-00000.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([lines[0], damage, *lines[1:]]))
    with pytest.raises(ValueError, match=r"line 2 of part-r000-00000\.jsonl"):
        Journal(tmp_path, {"n_groups": 12})


def test_the_first_field_that_differs_is_named_with_both_values(tmp_path):
    written(tmp_path, [], models=[{"weights": "aa"}], options={"mode": "joint"})
    with pytest.raises(ValueError, match=r'models\[0\]\.weights was "aa" and is now "bb"'):
        written(tmp_path, [], models=[{"weights": "bb"}], options={"mode": "offset"})
    with pytest.raises(ValueError, match=r'options\.mode was "joint" and is now "offset"'):
        written(tmp_path, [], models=[{"weights": "aa"}], options={"mode": "offset"})


def test_a_thousand_rows_begin_the_next_part(tmp_path):
    with Journal(tmp_path, {}) as journal:
        for start in range(0, 2200, 550):
            journal.append(columns(list(range(start, start + 550))))
    sizes = [len(path.read_text().splitlines()) for path in sorted(tmp_path.glob("part-*.jsonl"))]
    assert sizes == [1100, 1100]
    assert len(Journal(tmp_path, {}).done()) == 2200


def test_vectors_lie_at_the_place_of_their_group(tmp_path):
    journal = Journal(tmp_path, {"n_groups": 12})
    for batch in BATCHES:
        journal.append(columns(batch, vectors=True))
    journal.close()
    found = np.load(tmp_path / "sums.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.arange(12)[:, None] + [0, 0.5])
    with pytest.raises(ValueError, match="n_groups"):
        Journal(tmp_path / "other", {}).append(columns([1], vectors=True))


def test_a_write_that_fails_half_way_leaves_whole_lines(tmp_path):
    journal = Journal(tmp_path, {"n_groups": 12})
    journal.append(columns(BATCHES[0]))
    size = (tmp_path / "part-r000-00000.jsonl").stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append(columns(BATCHES[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "part-r000-00000.jsonl").stat().st_size == size
    for batch in BATCHES:
        journal.append(columns(batch))
    journal.close()
    assert journal.merge().read_bytes() == written(tmp_path / "whole", BATCHES).merge().read_bytes()


def test_parquet_holds_the_same_numbers(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(written(tmp_path, BATCHES).merge(tmp_path / "out.parquet")).to_pylist()
    assert rows == list(Journal.read(tmp_path))

"""Tables of rewards: made of arrays and of records, never changed, written and read back, and honest when refused."""

from __future__ import annotations

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_tables import grouped, text_of
from rankdiag.rewards import RewardTable
from rankdiag.rewards._table import as_table, canonical_json

NAN = float("nan")


def full_table(odd="b\ud800"):
    return RewardTable.from_array(
        [[0.5, NAN, 1e308], [5e-324, -0.0, 1.0]],
        prompt_ids=["ä", odd],
        log_probs=[[-1.0, -np.inf, NAN], [-2.0, -3.0, 0.0]],
        lengths=[[3, 0, 4], [1, 2, 2**53]],
        gold=[[1, 0, NAN], [0, 1, 1]],
        verdicts=np.array([[[True, False]] * 3, [[False, False]] * 3]),
        meta={"sampler": "greedy", "temperature": 0.7, "seed": None, "stop": ["a", "b"], "nothing": NAN},
    )


def test_arrays_come_in_whole_and_read_only():
    source = np.array([[1.0, NAN], [3.0, 4.0]])
    table = RewardTable.from_array(source, gold=source)
    source[:] = 9.0
    np.testing.assert_array_equal(table.values, [[1.0, NAN], [3.0, 4.0]])
    assert table.values.dtype == np.float64
    assert table.prompt_ids == ("0", "1")
    assert RewardTable.from_array([[1.0]], prompt_ids=np.array(["a"])).prompt_ids == ("a",)
    assert table.counts.tolist() == [1, 2]
    assert len(table) == 2
    for array in (table.values, table.gold):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 5.0
    for name in ("values", "meta", "other"):
        with pytest.raises(AttributeError, match="not changed"):
            setattr(table, name, None)
    with pytest.raises(AttributeError, match="not changed"):
        del table.values
    with pytest.raises(TypeError, match=r"from_array or RewardTable\.from_records"):
        RewardTable()
    with pytest.raises(TypeError):
        table.meta["a"] = 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(table)


def test_any_kind_of_array_gives_the_same_table(xp):
    values = [[0.5, 1.0, -2.0], [0.25, 0.0, 4.0]]  # exact in every dtype
    assert RewardTable.from_array(xp.asarray(values)) == RewardTable.from_array(values)


def test_none_is_nan():
    table = RewardTable.from_array([[None, 1], (0.5, None)])
    np.testing.assert_array_equal(table.values, [[NAN, 1.0], [0.5, NAN]])


def test_rows_are_grouped_by_id_not_by_adjacency():
    rows = [
        {"prompt": "x", "reward": 1, "log_prob": -1.0, "length": 3, "gold": 0},
        {"prompt": {"b": [1, "é"], "a": 2}, "reward": 0.5, "log_prob": None, "length": None, "gold": None},
        {"prompt": "x", "reward": None, "log_prob": -2.0, "length": 4, "gold": 1},
        {"prompt": {"a": 2, "b": [1, "é"]}, "reward": 0, "log_prob": -3.0, "length": 5, "gold": 1},
        {"prompt_id": "own", "prompt": "x", "reward": True, "log_prob": -4.0, "length": 6, "gold": 0},
        {"prompt_id": None, "prompt": "x", "reward": 2, "log_prob": -5.0, "length": 7, "gold": 0},
    ]
    table = RewardTable.from_records(iter(rows), meta={"policy": "p"})
    np.testing.assert_array_equal(table.values, [[1, NAN, 2], [0.5, 0, NAN], [1, NAN, NAN]])
    np.testing.assert_array_equal(table.log_probs, [[-1, -2, -5], [NAN, -3, NAN], [-4, NAN, NAN]])
    np.testing.assert_array_equal(table.gold, [[0, 1, 0], [NAN, 1, NAN], [0, NAN, NAN]])
    assert table.lengths.tolist() == [[3, 4, 7], [0, 5, 0], [6, 0, 0]]
    assert table.prompt_ids == tuple(grouped(rows))
    assert table.meta["policy"] == "p"


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | st.floats(-1e300, 1e300)), min_size=1, max_size=30))
@settings(max_examples=40)
def test_records_equal_a_loop(pairs):
    rows = [{"prompt_id": name, "reward": reward} for name, reward in pairs]
    table = RewardTable.from_records(rows)
    expected = grouped(rows)
    assert table.prompt_ids == tuple(expected)
    for row, rewards in zip(table.values, expected.values(), strict=True):
        padded = [NAN if reward is None else reward for reward in rewards] + [NAN] * (row.size - len(rewards))
        np.testing.assert_array_equal(row, padded)


@given(
    st.recursive(
        st.integers() | st.text(st.characters(categories=["L", "N"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abä", max_size=2), inner, max_size=3),
        max_leaves=8,
    )
)
def test_canonical_json_is_one_text_for_equal_prompts(prompt):
    assert canonical_json(prompt) == text_of(prompt)
    if isinstance(prompt, dict):
        assert canonical_json(dict(reversed(prompt.items()))) == canonical_json(prompt)


@pytest.mark.parametrize("table", [full_table(), RewardTable.from_array([[NAN, NAN]]), RewardTable.from_array([[1]])])
def test_round_trips(table):
    for back in (
        copy.copy(table),
        copy.deepcopy(table),
        pickle.loads(pickle.dumps(table)),
        RewardTable.from_dict(table.to_dict()),
        RewardTable.from_dict(json.loads(json.dumps(table.to_dict(), allow_nan=False))),
    ):
        assert {**back.meta, "nothing": 0, "stop": 0} == {**table.meta, "nothing": 0, "stop": 0}
        assert back.prompt_ids == table.prompt_ids
        for name in ("values", "log_probs", "lengths", "gold", "verdicts"):
            mine, theirs = getattr(back, name), getattr(table, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
                assert not mine.flags.writeable


def test_equality_is_of_contents():
    def make(**changes):
        return RewardTable.from_array(changes.pop("values", [[0.0, NAN], [1.0, 2.0]]), **changes)

    assert make() == make() == make(prompt_ids=["0", "1"])
    others = [
        make(values=[[0.0, NAN], [1.0, 3.0]]),
        make(prompt_ids=["a", "b"]),
        make(gold=[[0, 0], [0, 0]]),
        make(lengths=[[0, 0], [0, 0]]),
        make(log_probs=[[0, 0], [0, 0]]),
        make(verdicts=np.zeros((2, 2, 1), dtype=bool)),
        make(meta={"a": 1}),
    ]
    for a, b in itertools.combinations([make(), *others], 2):
        assert a != b
    assert make() != 3


def test_it_shows_itself():
    table = full_table()
    assert repr(table) == "RewardTable(2 prompts, 2 to 3 rollouts, log_probs, lengths, gold, verdicts)"
    text = str(table)
    assert "scored rollouts" in text
    assert "temperature: 0.7" in text
    assert "<script" not in RewardTable.from_array([[1]], meta={"a": "<script>"})._repr_html_()
    assert "1 prompts" in RewardTable.from_array([[NAN]])._repr_html_()
    frame = full_table("b").to_pandas()
    assert list(frame.columns) == ["prompt_id", "rollout", "reward", "log_prob", "length", "gold"]
    assert frame["rollout"].tolist() == [0, 2, 0, 1, 2]
    assert frame["reward"].tolist() == [0.5, 1e308, 5e-324, 0.0, 1.0]
    assert list(RewardTable.from_array([[1]]).to_pandas().columns) == ["prompt_id", "rollout", "reward"]


def test_as_table_copies_nothing_and_lends_no_way_to_write():
    source = np.array([[1.0, 2.0]])
    table = as_table(source)
    assert np.shares_memory(table.values, source)
    assert not table.values.flags.writeable
    assert source.flags.writeable
    assert as_table(table) is table
    assert table == RewardTable.from_array(source)
    with pytest.raises(ValueError, match=r"`pilot` must be a RewardTable or an array"):
        as_table([1.0, 2.0], "pilot")


TWO = [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("error", "words", "values", "options"),
    [
        (ValueError, "`values`.*table", [1.0, 2.0], {}),
        (ValueError, "`values`", [[]], {}),
        (ValueError, "`values`", np.empty((0, 3)), {}),
        (ValueError, "`values`", [[1.0], [1.0, 2.0]], {}),
        (ValueError, r"`values`.*\+-inf at row 1, column 0", [[0.0, 1.0], [-np.inf, 1.0]], {}),
        (TypeError, "`values`", [["a"]], {}),
        (TypeError, "`values`", [[1j]], {}),
        (
            ValueError,
            r"`gold` must align with `values` rollout by rollout: got \(1, 3\) and",
            TWO,
            {"gold": [[1, 2, 3]]},
        ),
        (ValueError, r"`log_probs` must align with `values`", TWO, {"log_probs": [[1], [2]]}),
        (ValueError, r"`lengths` must align with `values`", TWO, {"lengths": [1, 2]}),
        (ValueError, "`gold`.*row 0, column 1", TWO, {"gold": [[0, np.inf]]}),
        (ValueError, "`log_probs`.*row 0, column 1", TWO, {"log_probs": [[-np.inf, np.inf]]}),
        (ValueError, "`lengths` must be whole", TWO, {"lengths": [[1.5, 1]]}),
        (ValueError, "`lengths` must be whole", TWO, {"lengths": [[-1, 1]]}),
        (ValueError, "`lengths`", TWO, {"lengths": [[NAN, 1]]}),
        (ValueError, "`verdicts` must have shape", TWO, {"verdicts": [[True, False]]}),
        (ValueError, "`verdicts` must be boolean", TWO, {"verdicts": [[[2], [1]]]}),
        (TypeError, "`prompt_ids` must be a sequence of strings", TWO, {"prompt_ids": "a"}),
        (TypeError, "`prompt_ids`", TWO, {"prompt_ids": [1]}),
        (ValueError, "`prompt_ids`", TWO, {"prompt_ids": np.broadcast_to("a", (2**45,))}),
        (ValueError, "`prompt_ids` must have one entry for each of 1", TWO, {"prompt_ids": ["a", "b"]}),
        (ValueError, "`prompt_ids` must be unique.*'a'", [[0], [1], [1]], {"prompt_ids": ["b", "a", "a"]}),
        (TypeError, "`meta` must be a mapping", TWO, {"meta": 3}),
        (TypeError, "unexpected keyword", TWO, {"golds": TWO}),
    ],
)
def test_arrays_refused(error, words, values, options):
    with pytest.raises(error, match=words):
        RewardTable.from_array(values, **options)


@pytest.mark.parametrize(
    ("error", "words", "rows"),
    [
        (ValueError, "`rows` must hold at least one rollout", []),
        (TypeError, "`rows` must be records", {"reward": 1}),
        (TypeError, "`rows` must be records", "text"),
        (TypeError, "`rows` must be records", 3),
        (TypeError, "`rows` must hold mappings; row 0", [3]),
        (ValueError, "row 0 has none", [{"prompt": "a"}]),
        (ValueError, "row 1 has neither", [{"prompt": "a", "reward": 1}, {"reward": 1}]),
        (TypeError, "the prompt of row 0 must be text", [{"prompt": object(), "reward": 1}]),
        (ValueError, "row 1 has no 'gold'", [{"prompt": 1, "reward": 1, "gold": 1}, {"prompt": 1, "reward": 1}]),
        (ValueError, "row 1 has 'gold'", [{"prompt": 1, "reward": 1}, {"prompt": 1, "reward": 1, "gold": 1}]),
        (ValueError, "`rows`.*reward of row 1 is -inf", [{"prompt": 1, "reward": r} for r in (1, -np.inf)]),
        (TypeError, r"rows\['reward'\]", [{"prompt": 1, "reward": "good"}]),
    ],
)
def test_records_refused(error, words, rows):
    with pytest.raises(error, match=words):
        RewardTable.from_records(rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("type"),
        lambda data: data.update(schema_version=99),
        lambda data: data.update(type="rewards.RewardSummary"),
        lambda data: data["fields"].pop("gold"),
        lambda data: data["fields"].update(other=1),
        lambda data: data.update(non_finite=None),
    ],
)
def test_data_of_something_else_is_refused(change):
    data = full_table().to_dict()
    change(data)
    with pytest.raises(ValueError, match="`data`"):
        RewardTable.from_dict(data)
    with pytest.raises(TypeError, match="`data` must be a mapping"):
        RewardTable.from_dict([1])

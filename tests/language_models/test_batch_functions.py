"""The unit of work as a callable: what it returns, and under the schedulers of other people, each for real."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from oracles.scoring_worker import loaded, pairs
from rankdiag.language_models import LogProbs, StateSums, TokenStats, as_batch_fn, plan, run
from rankdiag.testing import tiny_language_model

IDS = [
    {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]},
    {"prompt_ids": [1, 2], "chosen_ids": [], "rejected_ids": [5]},
    {"prompt_ids": [8], "chosen_ids": [3], "rejected_ids": [3, 9]},
]


def gap(columns):
    return {"gap": columns["logp"][0::2] - columns["logp"][1::2]}


def batch(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def one_run(model, data):
    outputs = [LogProbs()]
    found = np.full((len(data), 2), np.nan)
    for columns in run(model, plan(data, model, outputs), outputs):
        found[columns.group, columns.slot] = columns["logp"]
    return found


def test_columns_come_in_the_order_of_the_batch():
    from rankdiag.language_models import encode_preferences

    model = tiny_language_model()
    expected = one_run(model, encode_preferences(IDS))
    found = as_batch_fn(model, [LogProbs(), TokenStats()])(batch(IDS))
    assert found["status"] == ["ok", "empty_chosen", "ok"]
    assert found["logp"][1] == []
    np.testing.assert_allclose([found["logp"][0], found["logp"][2]], expected[[0, 2]], rtol=1e-6)
    assert [len(entry) for entry in found["surprisal"][2]] == [1, 2]


def test_columns_that_are_kept():
    function = as_batch_fn(tiny_language_model(), [LogProbs()], gap, keep=("name",))
    assert function({**batch(IDS), "name": ["a", "b", "c"]})["name"] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="`rows` must have the columns of `keep`; 'name'"):
        function(batch(IDS))


def test_reduced_columns_have_one_number_and_nan_where_unusable():
    found = as_batch_fn(tiny_language_model(), [LogProbs()], gap)(batch(IDS))
    assert np.isnan(found["gap"][1])
    assert isinstance(found["gap"][0], float)


@pytest.mark.parametrize("seen", [False, True])
def test_a_batch_with_no_usable_record_has_the_columns_of_every_other(seen):
    def reduced(columns):
        return {**gap(columns), "both": columns["logp"].reshape(-1, 2)}

    function = as_batch_fn(tiny_language_model(), [LogProbs()], reduced)
    if seen:
        function(batch(IDS))
    found = function(batch([IDS[1], IDS[1]]))
    assert list(found) == ["gap", "both", "status"]
    assert np.isnan(found["gap"]).tolist() == [True, True]
    assert found["both"] == [[], []]


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("responses", {"prompt_ids": [[1]], "response_ids": [[]]}),
        ("ids", {"input_ids": [[1, 2]], "response_mask": [[0, 0]]}),
    ],
)
def test_a_batch_with_no_usable_record_of_other_kinds(kind, bad):
    function = as_batch_fn(tiny_language_model(), [LogProbs()], lambda part: {"own": part["logp"]}, kind=kind)
    found = function(bad)
    assert list(found) == ["own", "status"]
    assert np.isnan(found["own"]).all()


def test_arrays_and_lists_are_one_batch():
    function = as_batch_fn(tiny_language_model(), [StateSums()])
    rows = [IDS[0], IDS[0]]
    arrays = {name: np.array(values) for name, values in batch(rows).items()}
    assert function(arrays) == function(batch(rows))


def test_how_to_run_the_model_is_found_out_once(monkeypatch):
    from rankdiag.language_models import _plan

    calls = []
    original = _plan.self_check
    monkeypatch.setattr(_plan, "self_check", lambda *args: calls.append(1) or original(*args))
    function = as_batch_fn(tiny_language_model(), [LogProbs()], gap)
    first = function(batch(IDS))
    assert function(batch(IDS))["gap"][0] == first["gap"][0]
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([1], TypeError, "`rows` must be a batch"),
        ({}, TypeError, "`rows` must be a batch"),
        ({"prompt_ids": [[1]], "chosen_ids": []}, ValueError, "columns of one length"),
    ],
)
def test_batches_that_are_none(rows, error, words):
    with pytest.raises(error, match=words):
        as_batch_fn(tiny_language_model(), [LogProbs()])(rows)


def test_it_can_be_pickled_if_what_it_is_made_of_can():
    function = as_batch_fn(toy_states, [StateSums()], total)
    assert pickle.loads(pickle.dumps(function))(batch(IDS))["total"][0] == function(batch(IDS))["total"][0]


def toy_states(input_ids, attention_mask, position_ids):
    import torch

    return torch.nn.functional.one_hot(input_ids, 12).double().cumsum(dim=1)


def total(columns):
    return {"total": columns["sum"][0::2].sum(axis=1)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from oracles.scoring_worker import build

    folder = tmp_path_factory.mktemp("batches")
    build(folder)
    model, data = loaded(folder)
    return model, folder, one_run(model, data)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [None, 2])
def test_under_datasets_map(world, processes):
    import datasets
    from transformers import AutoTokenizer

    model, folder, expected = world
    function = as_batch_fn(model, [LogProbs()], gap, tokenizer=AutoTokenizer.from_pretrained(folder / "model"))
    rows = datasets.Dataset.from_list(pairs())
    mapped = rows.map(function, batched=True, batch_size=17, num_proc=processes, load_from_cache_file=False)
    assert mapped["status"][7] == "empty_chosen"
    np.testing.assert_allclose(mapped["gap"], expected[:, 0] - expected[:, 1], rtol=1e-5, equal_nan=True)


@pytest.mark.slow
@pytest.mark.changes_global_state("python random state")
@pytest.mark.filterwarnings("ignore")  # Ray's own, many and changing from release to release
def test_under_ray_data(world):
    import ray
    from transformers import AutoTokenizer

    model, folder, expected = world

    def difference(columns):  # of this function's own, so that it travels by value: workers do not have this file
        return {"gap": columns["logp"][0::2] - columns["logp"][1::2]}

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    function = as_batch_fn(model, [LogProbs()], difference, tokenizer=tokenizer, keep=("key",))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        rows = ray.data.from_items(pairs()).map_batches(function, batch_size=16).take_all()
    finally:
        ray.shutdown()
    found = {row["key"]: row["gap"] for row in rows}  # blocks come back in any order
    values = [found[f"pair {i}"] for i in range(len(rows))]
    np.testing.assert_allclose(values, expected[:, 0] - expected[:, 1], rtol=1e-5, equal_nan=True)

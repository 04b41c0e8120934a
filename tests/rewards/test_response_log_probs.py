"""Log-probabilities of responses on given logits, against plain loops, and against the whole space of sequences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_implicit import log_prob
from rankdiag import result_from_json
from rankdiag._validate import RankdiagWarning
from rankdiag.rewards import _log_probs, response_log_probs


def draw(seed, rows=3, length=6, vocabulary=5):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(rows, length, vocabulary))
    ids = rng.integers(0, vocabulary, size=(rows, length))
    mask = rng.random((rows, length)) < 0.6
    mask[:, 0], mask[:, 1] = False, True
    return logits, ids, mask


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_sums_are_those_of_plain_loops(seed):
    logits, ids, mask = draw(seed)
    found = response_log_probs(logits, ids, mask)
    plain = [log_prob(*row) for row in zip(logits.tolist(), ids.tolist(), mask.tolist(), strict=True)]
    np.testing.assert_allclose(found.sum, plain, rtol=1e-12)
    np.testing.assert_array_equal(found.lengths, mask.sum(axis=1))
    np.testing.assert_allclose(found.length_normalised, found.sum / mask.sum(axis=1), rtol=1e-15)
    moved = response_log_probs(logits + 1e4, ids, mask)
    np.testing.assert_allclose(moved.sum, found.sum, rtol=1e-9)


def test_all_sequences_add_up_to_one():
    vocabulary, length = 3, 4
    rng = np.random.default_rng(0)
    table = rng.normal(size=(vocabulary, vocabulary))  # logits of the next token given the last one
    ids = np.array([(0, *tail) for tail in itertools.product(range(vocabulary), repeat=length)])
    mask = np.ones(ids.shape, dtype=bool)
    mask[:, 0] = False
    assert np.exp(response_log_probs(table[ids], ids, mask).sum).sum() == pytest.approx(1, abs=1e-12)


def test_rows_do_not_see_each_other_nor_the_padding_nor_blocks(monkeypatch):
    logits, ids, mask = draw(1, rows=7, length=9)
    whole = response_log_probs(logits, ids, mask)
    for i in range(7):
        assert response_log_probs(logits[i : i + 1], ids[i : i + 1], mask[i : i + 1]).sum[0] == whole.sum[i]
    spoilt, other = logits.copy(), ids.copy()
    spoilt[:, :-1][~mask[:, 1:]] = np.nan  # logits that score no response token
    spoilt[:, -1] = np.inf
    other[~mask] = -100
    assert response_log_probs(spoilt, other, mask) == whole
    wider = np.concatenate([logits, np.zeros((7, 3, 5))], axis=1)
    padded = response_log_probs(wider, np.pad(ids, ((0, 0), (0, 3))), np.pad(mask, ((0, 0), (0, 3))))
    assert padded == whole
    monkeypatch.setattr(_log_probs, "_BLOCK", 6)  # one position at a time
    assert response_log_probs(logits, ids, mask) == whole


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_torch_in_float64_out(dtype):
    logits, ids, mask = draw(2)
    given_logits = torch.tensor(logits, dtype=dtype, requires_grad=True)
    found = response_log_probs(given_logits, torch.tensor(ids), torch.tensor(mask))
    rounded = given_logits.detach().double()
    expected = torch.log_softmax(rounded, -1)[:, :-1].gather(2, torch.tensor(ids)[:, 1:, None])[..., 0]
    np.testing.assert_allclose(found.sum, (expected * torch.tensor(mask)[:, 1:]).sum(1), rtol=1e-12)
    assert found.sum.dtype == np.float64
    assert found.meta.dtype == str(dtype).removeprefix("torch.")


def test_forbidden_tokens_and_extreme_logits():
    logits = np.array([[[0.0, -math.inf], [1e308, -1e308]]])
    assert response_log_probs(logits, [[0, 0]], [[0, 1]]).sum[0] == 0.0
    assert response_log_probs(logits, [[0, 1]], [[0, 1]]).sum[0] == -math.inf
    assert response_log_probs(logits[:, ::-1], [[0, 0]], [[0, 1]]).sum[0] == 0.0
    assert response_log_probs(logits[:, ::-1], [[0, 1]], [[0, 1]]).sum[0] == -math.inf


def test_a_row_without_tokens_counts_zero_and_warns():
    with pytest.warns(RankdiagWarning, match="no token in row 1"):
        found = response_log_probs(np.zeros((2, 2, 4)), [[0, 1], [0, 1]], [[0, 1], [0, 0]])
    assert found.sum.tolist() == [-math.log(4), 0.0]
    assert found.length_normalised.tolist() == [-math.log(4), 0.0]
    assert found.lengths.tolist() == [1, 0]
    assert "row 1" in found.meta.skipped


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"response_mask": [[1, 1, 0]]}, "position 0"),
        ({"response_mask": [[0, 2, 0]]}, "boolean"),
        ({"response_mask": [[0, 1]]}, "response_mask"),
        ({"input_ids": [[0, 2, 0]]}, "input_ids"),
        ({"input_ids": [[0, -1, 0]]}, "input_ids"),
        ({"input_ids": [[0, 0.5, 0]]}, "input_ids"),
        ({"input_ids": [[0, 1]]}, "input_ids"),
        ({"logits": np.full((1, 3, 2), np.nan)}, "row 0, position 0"),
        ({"logits": np.full((1, 3, 2), -np.inf)}, "only -inf"),
        ({"logits": np.full((1, 3, 2), np.inf)}, "logits"),
        ({"logits": np.zeros((3, 2))}, "logits"),
        ({"logits": np.zeros((1, 3, 0))}, "logits"),
    ],
)
def test_refusals(change, word):
    arguments = {"logits": np.zeros((1, 3, 2)), "input_ids": [[0, 1, 0]], "response_mask": [[0, 1, 0]], **change}
    with pytest.raises(ValueError, match=word):
        response_log_probs(**arguments)


@pytest.mark.parametrize(
    "logits", [None, "abc", [[["a", "b"]]], [[[0], [0, 1]]], np.zeros((1, 2, 2), dtype=complex), np.ma.zeros((1, 2, 2))]
)
def test_what_holds_no_logits_is_refused(logits):
    with pytest.raises((TypeError, ValueError), match="logits"):
        response_log_probs(logits, [[0, 1]], [[0, 1]])


def test_the_result_comes_back_and_shows():
    found = response_log_probs(*draw(4))
    again = result_from_json(found.to_json())
    assert again == found
    assert again.lengths.dtype == np.int64
    assert not again.sum.flags.writeable
    assert len(found) == 3
    assert "response tokens" in found.summary()


def test_views_beyond_memory_are_refused_and_not_read():
    logits = np.broadcast_to(np.float32(0), (2**20, 2**10, 2**10))
    with pytest.raises(ValueError, match="`logits`"):
        response_log_probs(logits, [[0, 1]], [[0, 1]])

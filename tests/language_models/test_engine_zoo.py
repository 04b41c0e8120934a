"""The small models and the oracle that judge the engine: they must themselves be right, and hard enough."""

import copy

import numpy as np
import pytest
import torch

from oracles.causal_zoo import EOS, FAMILIES, VOCAB, Zoo, fill, most_different_first
from oracles.engine_cases import CASES, MULTI_TURN, PAIRS, as_encoded
from oracles.engine_oracle import ches, facts, forward, free_states_gram, head_gram, log_softmax, shared_positions


@pytest.mark.parametrize("name", most_different_first())
def test_states_are_what_the_output_projection_reads(zoo, name):
    model = zoo.load(name)
    ids = PAIRS.groups[0][0][0]
    seen = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    states, logits = forward(model, ids)
    handle.remove()
    np.testing.assert_array_equal(seen[0][0].double().numpy(), states)
    assert 0.3 < logits.std() < 5  # neither flat nor one-hot, or errors would not show


@pytest.mark.parametrize("name", most_different_first())
def test_models_read_order_and_context(zoo, name):
    model = zoo.load(name)
    states, _ = forward(model, [5, 6, 7, 8, 9, 10])
    swapped, _ = forward(model, [6, 5, 7, 8, 9, 10])
    assert np.abs(states[-1] - swapped[-1]).max() > 1e-3 * np.abs(states[-1]).max()
    np.testing.assert_allclose(forward(model, [5, 6, 7])[0], states[:3], rtol=0, atol=1e-5)  # causal


def test_weights_are_the_same_on_every_run_and_survive_the_disk(zoo, tmp_path):
    again = Zoo(tmp_path).load("llama")
    for (name, first), (_, second) in zip(zoo.load("llama").named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second), name
    other = zoo.load("llama", seed=1)
    assert not torch.equal(other.model.norm.weight, again.model.norm.weight)
    copied = fill(copy.deepcopy(other), 1)
    assert not torch.equal(copied.model.norm.weight, torch.ones(32))


def test_tied_families_have_one_matrix_on_both_sides(zoo):
    found = set()
    for name in FAMILIES:
        model = zoo.load(name)
        if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
            found.add(name)
    assert {"llama_tied", "gpt2", "gemma2", "bloom", "mamba", "cohere"} <= found
    assert not {"llama", "gpt_neox", "granite", "qwen2"} & found


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt_projected", "mamba"])
def test_head_gram_by_autograd_is_the_textbook_sum_where_logits_are_plain(zoo, name):
    model = zoo.load(name)
    rows = PAIRS.fed_group(2)
    both = [facts(model, row) for row in rows]
    deltas = [np.eye(VOCAB)[row.ids] - np.exp(row.log_probs) for row in both]
    explicit = [delta.T @ row.states for delta, row in zip(deltas, both, strict=True)]
    expected = np.array([[(a * b).sum() for b in explicit] for a in explicit])
    np.testing.assert_allclose(head_gram(model, rows), expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "scale"), [("cohere", 0.25), ("granite", 1 / 3)])
def test_head_gram_by_autograd_carries_the_logit_scale_twice(zoo, name, scale):
    model = zoo.load(name)
    rows = PAIRS.fed_group(0)
    row = facts(model, rows[0])
    delta = np.eye(VOCAB)[row.ids] - np.exp(row.log_probs)
    plain = float(((delta.T @ row.states) ** 2).sum())
    np.testing.assert_allclose(head_gram(model, rows)[0, 0], scale**2 * plain, rtol=1e-5)


def test_free_states_add_what_shared_prefixes_give(zoo):
    model = zoo.load("llama")
    rows = PAIRS.fed_group(2)
    weight = model.get_output_embeddings().weight.detach().double().numpy()
    lines = []
    for row in rows:
        one = facts(model, row)
        lines.append((np.eye(VOCAB)[one.ids] - np.exp(one.log_probs)) @ weight)
    s = shared_positions(rows)
    assert s == 7
    extra = np.array(
        [
            [sum(float(a[k] @ b[k]) for k in range(s if i != j else len(a))) for j, b in enumerate(lines)]
            for i, a in enumerate(lines)
        ]
    )
    np.testing.assert_allclose(free_states_gram(model, rows) - head_gram(model, rows), extra, rtol=1e-4)


def test_closed_values():
    # sums (4, 1) and (3, 8): a worked example of the room's page
    assert ches(np.array([4.0, 1.0]), np.array([3.0, 8.0])) == 3.0
    np.testing.assert_allclose(np.exp(log_softmax([0.0, np.log(3.0)])), [0.25, 0.75])
    x = [7]
    assert shared_positions([(x, [1, 2], None), (x, [1, 3, 4], None)]) == 2
    assert shared_positions([(x, [1], None), (x, [1, 3, 4], None)]) == 1
    assert shared_positions([(x, [1], None), (x, [2], None)]) == 1
    assert shared_positions([([7, 8], [1], None), (x, [1], None)]) == 0


def test_cases_are_as_ragged_as_they_claim():
    for case in CASES.values():
        as_encoded(case)
        for _, _, (prompt, response, counted) in case.rows():
            assert len(prompt) >= 1
            assert len(response) >= 1
            assert counted is None or len(counted) == len(response)
            assert max(*prompt, *response) < VOCAB
            assert EOS not in response
    lengths = {len(prompt) + len(response) for _, _, (prompt, response, _) in PAIRS.rows()}
    assert len(lengths) >= 10
    assert any(len(response) == 1 for _, _, (_, response, _) in PAIRS.rows())
    assert any(not all(counted) for _, _, (_, _, counted) in MULTI_TURN.rows())

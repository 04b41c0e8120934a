"""First-order change of rewards against real gradient steps, with the trained weights alone free."""

from __future__ import annotations

import copy
import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_implicit import coefficients, explicit_step, implicit_step
from rankdiag.rewards import ResponseStates, _transfer, reward_transfer, token_coefficients

WORDS = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def draw(rng, count, width=4, vocabulary=6, longest=5):
    lengths = rng.integers(1, longest + 1, size=count)
    return [ResponseStates(rng.normal(size=(n, width)), rng.integers(0, vocabulary, size=n)) for n in lengths]


def plain(response):
    return response.states, response.tokens


def test_micro():
    eval_state = [[1.0, 0.0]]
    train = [ResponseStates([[1.0, 2.0]], [v]) for v in (0, 1)]
    same = token_coefficients(ResponseStates(eval_state, [0]), train[0], WORDS)
    other = token_coefficients(ResponseStates(eval_state, [0]), train[1], WORDS)
    assert same[0, 0] == pytest.approx(0.480220, abs=5e-7)
    assert other[0, 0] == pytest.approx(-0.155604, abs=5e-7)
    # <hb, h> = 1, so the step moves the reward by the difference of both coefficients
    moved = reward_transfer([train[0]], [train[1]], [ResponseStates(eval_state, [0])], kind="im", unembedding=WORDS)
    assert moved[0, 0] == pytest.approx(0.5 * (same[0, 0] - other[0, 0]), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_coefficients_are_those_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    words = rng.normal(scale=2, size=(6, 4))
    left, right = draw(rng, 2)
    found = token_coefficients(left, right, words)
    args = [part.tolist() for part in (*plain(left), *plain(right), words)]
    np.testing.assert_allclose(found, coefficients(*args), atol=1e-12)
    assert np.abs(found).max() <= 2 + 1e-12
    equal = left.tokens[:, None] == right.tokens
    assert (found[equal] >= -1e-12).all()  # (1 - a) (1 - b) and products of the other probabilities
    np.testing.assert_allclose(token_coefficients(right, left, words), found.T, atol=1e-12)
    # the mean over the token that the policy would draw is 0: a step on its own samples moves nothing on average
    q = np.exp(right.states[0] @ words.T)
    q /= q.sum()
    first = right.states[:1]
    over = sum(q[v] * token_coefficients(left, ResponseStates(first, [v]), words) for v in range(6))
    np.testing.assert_allclose(over, 0, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 3.0]), st.sampled_from([0.0, -2.0, 1.5]))
def test_an_implicit_step_moves_as_predicted(seed, beta, gap):
    rng = np.random.default_rng(seed)
    words = rng.normal(size=(6, 4))
    plus, minus, watched = draw(rng, 2), draw(rng, 2), draw(rng, 3)
    lr = 1e-6
    found = reward_transfer(plus, minus, watched, kind="im", unembedding=words, beta=beta, lr=lr, gap=[gap, 0.5])
    real = [
        [
            implicit_step(plain(c), plain(r), plain(e), words, beta, lr, g)
            for c, r, g in zip(plus, minus, (gap, 0.5), strict=True)
        ]
        for e in watched
    ]
    np.testing.assert_allclose(found, real, rtol=1e-4, atol=1e-4 * np.abs(real).max() + 1e-14)


def test_the_error_of_an_implicit_step_is_of_second_order():
    rng = np.random.default_rng(3)
    words = rng.normal(size=(6, 4))
    (plus, minus, watched) = draw(rng, 3)
    errors = []
    for lr in (1e-2, 1e-3):
        found = reward_transfer([plus], [minus], [watched], kind="im", unembedding=words, lr=lr)[0, 0]
        errors.append(abs(found - implicit_step(plain(plus), plain(minus), plain(watched), words, 1.0, lr)))
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.2)
    lr = 1e-6
    found = reward_transfer([plus], [minus], [watched], kind="im", unembedding=words, lr=lr)[0, 0]
    assert found == pytest.approx(implicit_step(plain(plus), plain(minus), plain(watched), words, 1.0, lr), rel=1e-5)


@pytest.mark.parametrize("lr", [1e-6, 1.0, 100.0])
def test_an_explicit_step_is_exact(lr):
    rng = np.random.default_rng(0)
    plus, minus, watched, head = (rng.normal(size=shape) for shape in ((3, 5), (3, 5), (4, 5), 5))
    steps = [[explicit_step(c, r, e, head, lr) for c, r in zip(plus, minus, strict=True)] for e in watched]
    found = reward_transfer(plus, minus, watched, lr=lr, gap=[gap for _, gap in steps[0]], beta=7.0)
    np.testing.assert_allclose(found, [[moved for moved, _ in row] for row in steps], rtol=1e-10)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    words = rng.normal(size=(11, 4))
    plus, minus, watched = draw(rng, 6, vocabulary=11), draw(rng, 6, vocabulary=11), draw(rng, 7, vocabulary=11)
    whole = reward_transfer(plus, minus, watched, kind="im", unembedding=words)
    rho = token_coefficients(watched[0], plus[0], words)
    monkeypatch.setattr(_transfer, "_TOKENS", 4)  # less than the longest response
    monkeypatch.setattr(_transfer, "_BLOCK", 12)  # one or two words of the vocabulary
    np.testing.assert_allclose(reward_transfer(plus, minus, watched, kind="im", unembedding=words), whole, atol=1e-13)
    np.testing.assert_allclose(token_coefficients(watched[0], plus[0], words), rho, atol=1e-14)
    one = reward_transfer(plus[2:3], minus[2:3], watched[4:5], kind="im", unembedding=words)
    np.testing.assert_allclose(one, whole[4:5, 2:3], atol=1e-13)


def test_groups_hold_whole_responses_and_few_tokens(monkeypatch):
    monkeypatch.setattr(_transfer, "_TOKENS", 5)
    responses = [ResponseStates(np.ones((n, 1)), [0] * n) for n in (2, 3, 1, 7, 4, 2)]
    assert [[len(r) for r in group] for group in _transfer._groups(responses)] == [[2, 3], [1], [7], [4], [2]]


@pytest.mark.parametrize("seed", [0, 1])
def test_training_separates_both_kinds(seed):
    """Trained step by step, each kind moves by its own transfer: explicit carries over, implicit does not."""
    rng = np.random.default_rng(seed)
    side = np.eye(8)[0]
    h = rng.normal(size=(3, 8)) / 3
    tokens = np.array([side, -side, side, -side]) + 0.1 * rng.normal(size=(4, 8))
    chosen, rejected = h + tokens[0], h + tokens[1]
    unseen = np.concatenate([h + tokens[2], h + tokens[3]])
    explicit = reward_transfer(chosen, rejected, unseen).sum(axis=1)  # a whole batch is the sum of its pairs
    assert (explicit[:3] > explicit[3:]).all()
    words = np.zeros((4, 8))
    first, second, third, fourth = ([ResponseStates(row[None], [v]) for row in h] for v in range(4))
    implicit = reward_transfer(first, second, [*first, *second, *third, *fourth], kind="im", unembedding=words).sum(1)
    margins = implicit.reshape(4, 3)
    assert (margins[0] > margins[1]).all()
    np.testing.assert_allclose(margins[2], margins[3], atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stated_accuracies_of_both_kinds_come_out(seed, monkeypatch):
    path = Path(__file__).parents[2] / "reproductions" / "rewards_implicit.py"
    spec = importlib.util.spec_from_file_location("rewards_implicit", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rewards_implicit", module)
    spec.loader.exec_module(module)
    accuracies, cosine, moved = module.separation(seed, 3000)
    assert accuracies == [1.0, 1.0, 1.0, 0.5]
    assert 0.98 <= cosine <= 1
    assert moved == 0.0


def test_tokens_that_training_never_saw_keep_their_margin():
    """Single tokens, one state a prompt: a step on {0, 1} moves neither 2 against 3, whatever the states."""
    rng = np.random.default_rng(6)
    words, h, hb = rng.normal(size=(4, 3)), rng.normal(size=(1, 3)), rng.normal(size=(1, 3))
    watched = [ResponseStates(hb, [2]), ResponseStates(hb, [3])]
    moved = reward_transfer([ResponseStates(h, [0])], [ResponseStates(h, [1])], watched, kind="im", unembedding=words)
    assert moved[0, 0] == pytest.approx(moved[1, 0], rel=1e-12)
    assert abs(moved[0, 0]) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_unembeddings_are_read_in_parts(dtype):
    rng = np.random.default_rng(7)
    words = torch.tensor(rng.normal(size=(6, 4)), dtype=dtype, requires_grad=True)
    plus, minus, watched = draw(rng, 3)
    found = reward_transfer([plus], [minus], [watched], kind="im", unembedding=words)
    wide = reward_transfer([plus], [minus], [watched], kind="im", unembedding=words.detach().double().numpy())
    np.testing.assert_array_equal(found, wide)


def test_weights_and_scales():
    rng = np.random.default_rng(8)
    words = rng.normal(size=(6, 4))
    plus, minus, watched = draw(rng, 2), draw(rng, 2), draw(rng, 2)
    one = reward_transfer(plus, minus, watched, kind="im", unembedding=words)
    np.testing.assert_allclose(
        reward_transfer(plus, minus, watched, kind="im", unembedding=words, beta=0.1, lr=3.0), 0.03 * one, rtol=1e-12
    )
    assert not reward_transfer(plus, minus, watched, kind="im", unembedding=words, gap=1e308).any()
    np.testing.assert_allclose(
        reward_transfer(plus, minus, watched, kind="im", unembedding=words, gap=-1e308), 2 * one, rtol=1e-12
    )
    np.testing.assert_array_equal(
        reward_transfer(minus, plus, watched, kind="im", unembedding=words),
        -reward_transfer(plus, minus, watched, kind="im", unembedding=words),
    )


def test_large_logits_stay_exact():
    rho = token_coefficients(ResponseStates([[1e4, 0.0]], [0]), ResponseStates([[0.0, 1e4]], [1]), WORDS)
    assert rho.tolist() == [[0.0]]  # both are certain, of different tokens: 0 - 0 - 0 + 0
    rho = token_coefficients(ResponseStates([[1e4, 0.0]], [1]), ResponseStates([[1e4, 0.0]], [1]), WORDS)
    assert rho.tolist() == [[2.0]]


def test_states_are_own_and_read_only():
    states = np.ones((2, 3))
    response = ResponseStates(torch.tensor(states, dtype=torch.bfloat16), torch.tensor([1, 2]))
    assert response.states.dtype == np.float64
    assert response.tokens.dtype == np.int64
    own = ResponseStates(states, [1, 2])
    states[0] = 7
    assert own.states.tolist() == [[1.0] * 3] * 2
    for again in (own, copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert not again.states.flags.writeable
        assert again.tokens.tolist() == [1, 2]
    assert repr(own) == "ResponseStates(2 tokens, d=3)"


@pytest.mark.parametrize(
    ("states", "tokens", "kind", "word"),
    [
        ([[1.0]], [0, 1], ValueError, "tokens"),
        ([[1.0]], [0.0], TypeError, "tokens"),
        ([[1.0]], [True], TypeError, "tokens"),
        ([[1.0]], [-1], ValueError, "tokens"),
        ([[np.nan]], [0], ValueError, "states"),
        (np.zeros((0, 3)), np.zeros(0, dtype=int), ValueError, "states"),
        ([1.0], [0], ValueError, "states"),
    ],
)
def test_states_refuse(states, tokens, kind, word):
    with pytest.raises(kind, match=f"`{word}`"):
        ResponseStates(states, tokens)


ONE = ResponseStates([[1.0, 2.0]], [0])


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"unembedding": None}, ValueError, "unembedding"),
        ({"unembedding": [[1.0, 0.0, 0.0]]}, ValueError, "width"),
        ({"unembedding": [[np.nan, 0.0]]}, ValueError, "unembedding"),
        ({"unembedding": np.zeros((0, 2))}, ValueError, "unembedding"),
        ({"unembedding": "words"}, TypeError, "unembedding"),
        ({"unembedding": np.full((3, 2), 1e308)}, ValueError, "logits"),
        ({"chosen": [ResponseStates([[1.0, 2.0]], [3])]}, ValueError, "chosen"),
        ({"chosen": [ONE, ONE]}, ValueError, "rejected"),
        ({"chosen": []}, ValueError, "chosen"),
        ({"evaluation": ONE}, TypeError, "evaluation"),
        ({"evaluation": [[1.0, 2.0]]}, TypeError, "evaluation"),
        ({"gap": [0.0, 1.0]}, ValueError, "gap"),
        ({"beta": 0.0}, ValueError, "beta"),
        ({"lr": -1.0}, ValueError, "lr"),
        ({"kind": "both"}, ValueError, "kind"),
        ({"kind": "ex", "chosen": [[1.0]], "rejected": [[1.0]], "evaluation": [[1.0]]}, ValueError, "unembedding"),
    ],
)
def test_transfer_refuses(change, kind, word):
    arguments = {"chosen": [ONE], "rejected": [ONE], "evaluation": [ONE], "kind": "im", "unembedding": WORDS, **change}
    with pytest.raises(kind, match=word):
        reward_transfer(**arguments)


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        (([[1.0]], [[1.0, 2.0]], [[1.0]]), "rejected"),
        (([[1.0]], [[2.0]], [[1.0, 2.0]]), "evaluation"),
        (([[1e308]], [[-1e308]], [[2.0]]), "float64"),
        (([[np.inf]], [[2.0]], [[1.0]]), "chosen"),
    ],
)
def test_explicit_transfer_refuses(arrays, word):
    with pytest.raises(ValueError, match=word):
        reward_transfer(*arrays)


def test_coefficients_want_responses():
    with pytest.raises(TypeError, match="train"):
        token_coefficients(ONE, [[1.0]], WORDS)

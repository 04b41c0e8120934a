"""Squared norms of policy gradients of real models, against autograd and the definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from oracles.rewards_gradients import by_parts, by_quadruples, leave_one_out, noise, scores
from rankdiag import result_from_json
from rankdiag.language_models import encode
from rankdiag.rewards import Rollouts, _gradient_norm, expected_gradient_norm
from rankdiag.testing import tiny_language_model

PROMPTS = [[1, 2], [3], [4, 5, 6]]
RESPONSES = [
    [[3, 4], [5], [3, 6, 7], [8, 8], [3, 4, 9]],
    [[1], [2], [3], [4], [5]],
    [[7, 7], [7, 7], [1, 2, 3], [4], [5, 6]],
]
REWARDS = np.array([[1.0, 0.0, 0.5, 0.25, -1.0], [0.0, 0.0, 1.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
CHOICES = {
    "lm_head": ("lm_head", lambda name: name == "lm_head.weight"),
    "all": ("all", lambda name: True),
    "names": (["lm_head.weight", "base_model.places"], lambda name: name in {"lm_head.weight", "base_model.places"}),
    "predicate": (lambda name, parameter: "mixing" in name, lambda name: "mixing" in name),
}


@pytest.fixture(scope="module")
def model():
    return tiny_language_model().double()


def data():
    return encode(
        [{"prompt_ids": p, "responses_ids": r} for p, r in zip(PROMPTS, RESPONSES, strict=True)], kind="responses"
    )


def matrices(model, chosen):
    return [scores(model, prompt, responses, chosen) for prompt, responses in zip(PROMPTS, RESPONSES, strict=True)]


@pytest.mark.parametrize("kind", CHOICES)
def test_gram_is_the_mean_over_quadruples_of_explicit_scores(model, kind):
    params, chosen = CHOICES[kind]
    found = expected_gradient_norm(model, data(), REWARDS, params=params, estimator="gram")
    for place, matrix in enumerate(matrices(model, chosen)):
        rewards = REWARDS[place]
        assert found.squared_norm[place] == pytest.approx(by_quadruples(rewards, matrix), rel=1e-9, abs=1e-12)
        top = float(np.linalg.eigvalsh(matrix @ matrix.T)[-1]) / len(rewards)
        assert found.fisher_top[place] == pytest.approx(top, rel=1e-9)
        std = rewards.std(ddof=1)
        assert found.fisher_bound[place] == pytest.approx(std * np.sqrt(top), rel=1e-9, abs=1e-12)
        assert found.norm[place] == pytest.approx(np.sqrt(max(0.0, found.squared_norm[place])))
        if std > 0:
            assert found.alignment[place] == pytest.approx(found.norm[place] / found.fisher_bound[place])
            share = max(0.0, found.squared_norm[place]) / (noise(rewards, matrix) / len(rewards))
            assert found.snr[place] == pytest.approx(share, rel=1e-8)


@pytest.mark.parametrize("kind", CHOICES)
def test_groups_multiply_gradients_of_parts(model, kind):
    params, chosen = CHOICES[kind]
    found = expected_gradient_norm(model, data(), REWARDS, params=params, estimator="groups", rng=3)
    generator = np.random.default_rng(3)
    for place, matrix in enumerate(matrices(model, chosen)):
        parts = np.array_split(generator.permutation(5), 2)
        expected = by_parts(REWARDS[place], matrix, parts)
        assert found.squared_norm[place] == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert found.squared_norm[2] == 0.0


@pytest.mark.parametrize("kind", ["lm_head", "all"])
def test_jvp_squares_covariances_along_random_directions(model, kind):
    params, chosen = CHOICES[kind]
    found = expected_gradient_norm(model, data(), REWARDS, params=params, estimator="jvp", probes=3, rng=5)
    generator = np.random.default_rng(5)
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if chosen(name)]
    draws = [
        np.concatenate([generator.standard_normal(shape, dtype=np.float32).ravel() for shape in shapes]).astype(float)
        for _ in range(3)
    ]
    for place, matrix in enumerate(matrices(model, chosen)):
        expected = np.mean([by_quadruples(REWARDS[place], (matrix @ draw)[:, None]) for draw in draws])
        assert found.squared_norm[place] == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert np.isnan(found.fisher_top).all()


@pytest.mark.parametrize("kind", ["lm_head", "names"])
def test_signal_to_noise_where_there_is_a_signal(model, kind):
    """Rewards that grow along the sum of the scores: every squared norm is above 0, and the ratio that of the law."""
    params, chosen = CHOICES[kind]
    found_scores = matrices(model, chosen)
    rewards = np.array([matrix @ matrix.sum(axis=0) for matrix in found_scores])
    rewards /= np.abs(rewards).max(axis=1, keepdims=True)
    gram = expected_gradient_norm(model, data(), rewards, params=params, estimator="gram")
    parts = expected_gradient_norm(model, data(), rewards, params=params, estimator="groups", rng=4)
    along = expected_gradient_norm(model, data(), rewards, params=params, estimator="jvp", probes=2, rng=5)
    deal, generator = np.random.default_rng(4), np.random.default_rng(5)
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if chosen(name)]
    draws = [
        np.concatenate([generator.standard_normal(shape, dtype=np.float32).ravel() for shape in shapes]).astype(float)
        for _ in range(2)
    ]
    for place, matrix in enumerate(found_scores):
        r = rewards[place]
        assert gram.squared_norm[place] > 0
        signal = noise(r, matrix) / 5
        assert gram.snr[place] == pytest.approx(gram.squared_norm[place] / signal, rel=1e-7)
        assert gram.alignment[place] == pytest.approx(gram.norm[place] / gram.fisher_bound[place], rel=1e-9) != 0
        dealt = [leave_one_out(r[part], matrix[part]) for part in np.array_split(deal.permutation(5), 2)]
        spread = float(np.trace(np.atleast_2d(np.cov(np.array(dealt).T, ddof=1)))) / 2  # of their mean
        wanted = max(0.0, parts.squared_norm[place]) / (signal if kind == "lm_head" else spread)
        assert parts.snr[place] == pytest.approx(wanted, rel=1e-6)
        lines = np.mean([noise(r, (matrix @ draw)[:, None]) for draw in draws]) / 5
        assert along.snr[place] == pytest.approx(max(0.0, along.squared_norm[place]) / lines, rel=1e-5)
    assert (parts.snr > 0).any()
    assert (along.snr > 0).any()


@pytest.mark.parametrize(
    ("alignment", "snr", "said", "unsaid"),
    [
        (0.099, 1.0, "these parameters cannot use it", "mostly noise"),
        (0.11, 0.99, "mostly noise", "cannot use it"),
        (np.nan, np.nan, "has norm 2", "of what the spread"),
    ],
)
def test_readings_are_put_into_words(alignment, snr, said, unsaid):
    text = _gradient_norm._explain(*(np.array([value]) for value in (2.0, alignment, snr, 1.0)))
    assert said in text
    assert unsaid not in text


def test_many_probes_agree_with_the_gram(model):
    exact = expected_gradient_norm(model, data(), REWARDS, estimator="gram").squared_norm
    many = expected_gradient_norm(model, data(), REWARDS, estimator="jvp", probes=400, rng=0).squared_norm
    assert abs(many[0] - exact[0]) < 0.35 * abs(exact[0])  # the law of one probe is a chi square: 7 % for each sigma


def test_parts_of_two_average_to_the_gram(model):
    """Over all three ways to deal four rollouts to two parts the products are the mean over quadruples, exactly."""
    four = encode([{"prompt_ids": PROMPTS[0], "responses_ids": RESPONSES[0][:4]}], kind="responses")
    rewards = REWARDS[:1, :4]
    exact = expected_gradient_norm(model, four, rewards, estimator="gram").squared_norm[0]
    seen = {
        round(float(expected_gradient_norm(model, four, rewards, groups=2, rng=seed).squared_norm[0]), 9)
        for seed in range(30)
    }
    assert len(seen) == 3
    assert np.mean(list(seen)) == pytest.approx(exact, abs=1e-8)


def test_unscorable_rollouts_are_left_out(model):
    rewards = REWARDS.copy()
    rewards[0, 2] = np.nan
    rewards[1, :2] = np.nan
    for estimator in ("gram", "groups", "jvp"):
        found = expected_gradient_norm(model, data(), rewards, estimator=estimator, rng=1)
        assert found.n_rollouts.tolist() == [4, 3, 5]
        assert np.isnan(found.squared_norm[1])
        assert np.isnan(found.snr[1])
        assert "fewer than 4 scorable" in next(iter(found.meta.skipped.values()))
    kept = [row for place, row in enumerate(RESPONSES[0]) if place != 2]
    small = encode([{"prompt_ids": PROMPTS[0], "responses_ids": kept}], kind="responses")
    alone = expected_gradient_norm(model, small, rewards[:1, [0, 1, 3, 4]], estimator="gram")
    whole = expected_gradient_norm(model, data(), rewards, estimator="gram")
    assert whole.squared_norm[0] == pytest.approx(alone.squared_norm[0], rel=1e-9)


@pytest.mark.parametrize("estimator", ["gram", "groups", "jvp"])
def test_prompts_may_have_different_numbers_of_rollouts(model, estimator):
    ragged = encode(
        [
            {"prompt_ids": PROMPTS[0], "responses_ids": RESPONSES[0]},
            {"prompt_ids": PROMPTS[1], "responses_ids": RESPONSES[1][:4]},
        ],
        kind="responses",
    )
    rewards = np.array([REWARDS[0], [*REWARDS[1, :4], np.nan]])
    found = expected_gradient_norm(model, ragged, rewards, estimator=estimator, rng=2)
    assert found.n_rollouts.tolist() == [5, 4]
    assert np.isfinite(found.squared_norm).all()
    if estimator == "gram":
        matrix = scores(model, PROMPTS[1], RESPONSES[1][:4], lambda name: name == "lm_head.weight")
        assert found.squared_norm[1] == pytest.approx(by_quadruples(rewards[1, :4], matrix), rel=1e-9, abs=1e-12)


def test_a_shift_of_rewards_changes_nothing_and_a_scale_squares(model):
    base = expected_gradient_norm(model, data(), REWARDS, estimator="gram")
    moved = expected_gradient_norm(model, data(), REWARDS + 7.0, estimator="gram")
    scaled = expected_gradient_norm(model, data(), 3.0 * REWARDS, estimator="gram")
    np.testing.assert_allclose(moved.squared_norm, base.squared_norm, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(scaled.squared_norm, 9.0 * base.squared_norm, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(scaled.alignment, base.alignment, rtol=1e-8)


def small_llama(tied: bool):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=2, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=8, tie_word_embeddings=tied, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("params", ["lm_head", "all"])
def test_no_bias_on_a_real_model_over_all_samples_there_are(tied, params):
    """Every sample of 4 rollouts of 2 responses as one group, each with its probability: an expectation."""
    import torch

    llama, prompt, reward = small_llama(tied), [1, 0], np.array([1.0, -0.7])
    samples = np.array(list(itertools.product(range(2), repeat=4)))
    with torch.no_grad():
        probs = llama(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).numpy()
    weights = probs[samples].prod(axis=1)
    if params == "all":
        rows = scores(llama, prompt, [[0], [1]], lambda name: True)
        shapes = [tuple(p.shape) for _, p in llama.named_parameters()]
    else:  # the output side alone, also where the input side is the same matrix
        with torch.no_grad():
            state = llama.model(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1].numpy()
        rows = np.array([np.outer(np.eye(2)[y] - probs, state).ravel() for y in range(2)])
        shapes = [(2, 4)]
    gradient = (probs * reward) @ rows
    groups = encode([{"prompt_ids": prompt, "responses_ids": s[:, None].tolist()} for s in samples], kind="responses")
    estimated = expected_gradient_norm(llama, groups, reward[samples], params=params, estimator="gram").squared_norm
    assert weights @ estimated == pytest.approx(gradient @ gradient, rel=1e-6)
    along = expected_gradient_norm(llama, groups, reward[samples], params=params, estimator="jvp", probes=1, rng=2)
    generator = np.random.default_rng(2)
    draw = np.concatenate([generator.standard_normal(shape, dtype=np.float32).ravel() for shape in shapes])
    assert weights @ along.squared_norm == pytest.approx((gradient @ draw) ** 2, rel=1e-5)


@pytest.mark.parametrize("level", [0.1, 0.7, 1 / 3])  # the mean of seven of them is not this number
@pytest.mark.parametrize("params", ["lm_head", lambda name, parameter: "mixing" in name])
def test_equal_rewards_have_no_gradient_and_no_noise(model, level, params):
    assert level == 1 / 3 or np.mean([level] * 7) != level
    seven = encode([{"prompt_ids": [1], "responses_ids": [[token] for token in range(3, 10)]}], kind="responses")
    for estimator in ("groups", "gram", "jvp"):
        found = expected_gradient_norm(
            model, seven, [[level] * 7], params=params, estimator=estimator, groups=2, probes=1, rng=0
        )
        assert found.squared_norm.tolist() == found.reward_std.tolist() == [0.0]
        assert np.isnan(found.snr[0])


def test_the_model_is_left_as_it_was(model):
    import torch

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    state = torch.random.get_rng_state()
    for estimator in ("gram", "groups", "jvp"):
        expected_gradient_norm(model, data(), REWARDS, params="all", estimator=estimator, rng=0, probes=1)
    assert model.training
    assert bool((torch.random.get_rng_state() == state).all())
    assert all(p.grad is None and bool((p == before[name]).all()) for name, p in model.named_parameters())
    model.eval()


def test_a_result_travels(model):
    found = expected_gradient_norm(model, data(), REWARDS, estimator="gram")
    assert result_from_json(found.to_json()) == found
    assert "Prompts with the smallest gradients" in found.summary()
    page = found.document()
    numbers = {number.label: number.value for number in page.key_numbers}
    assert numbers["median rollouts"] == 5
    assert numbers["median Fisher bound"] == pytest.approx(np.median(found.fisher_bound))
    order = np.argsort(found.squared_norm, kind="stable").tolist()
    assert [row[:2] for row in page.grids[0].rows] == [(found.keys[i], 5) for i in order]
    assert [row[4] for row in page.grids[0].rows] == [found.reward_std[i] for i in order]
    assert "no spread of rewards" in found.explanation
    assert found.meta.ddof == 1


def test_refusals(model):
    responses = data()
    cases = [
        (lambda: expected_gradient_norm(model, responses, REWARDS[:2]), ValueError, "`rewards` must have one row"),
        (lambda: expected_gradient_norm(model, responses, REWARDS[:, :4]), ValueError, "up to 5 rollouts"),
        (lambda: expected_gradient_norm(model, responses, np.ones((3, 6))), ValueError, "more rewards than prompt"),
        (lambda: expected_gradient_norm(model, [[1]], REWARDS), TypeError, "`rollouts` must be"),
        (lambda: expected_gradient_norm(model, responses, REWARDS, params="head"), ValueError, "`params`"),
        (lambda: expected_gradient_norm(model, responses, REWARDS, params=["nothing"]), ValueError, "`parameters`"),
        (lambda: expected_gradient_norm(model, responses, REWARDS, estimator="mean"), ValueError, "`estimator`"),
        (lambda: expected_gradient_norm(model, responses, REWARDS, groups=1), ValueError, "`groups`"),
        (lambda: expected_gradient_norm(model, responses, REWARDS, probes=0), ValueError, "`probes`"),
        (lambda: expected_gradient_norm(len, responses, REWARDS, estimator="jvp"), ValueError, "output projection"),
    ]
    for call, kind, said in cases:
        with pytest.raises(kind, match=said):
            call()
    texts = Rollouts(prompts=("a",), texts=(("b", "c"),))
    with pytest.raises(ValueError, match="no token ids"):
        expected_gradient_norm(model, texts, [[1.0, 0.0]])

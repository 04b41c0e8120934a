"""Token cues against loops and autograd, what official code does otherwise, and what scaling and penalties do."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from oracles.causal_zoo import Zoo, quiet
from oracles.rewards_implicit import coefficients
from rankdiag import result_from_json
from rankdiag.language_models import encode, encode_preferences
from rankdiag.rewards import (
    ResponseStates,
    TabularPolicy,
    _transfer,
    sequence_rewards,
    simulate_policy_gradient,
    token_cue_share,
    token_cues,
)

WORDS = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
PAIRS = [([1, 5, 6], [10, 11, 12], [11, 13]), ([1, 9], [10, 10], [14, 15, 16]), ([3], [17], [18])]
OTHERS = [([1, 5, 7], [10, 20, 11], [11]), ([2, 9], [21, 22], [23])]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    quiet()
    return Zoo(tmp_path_factory.mktemp("zoo"))


def draw(rng, count, width=4, vocabulary=6, longest=5):
    lengths = rng.integers(1, longest + 1, size=count)
    return [ResponseStates(rng.normal(size=(n, width)), rng.integers(0, vocabulary, size=n)) for n in lengths]


def loop_sums(watched, pair, words):
    """|rho <h, h>| over tokens of one watched response and both responses of a pair: of equal tokens, and of all."""
    matched = total = 0.0
    for other in pair:
        rho = coefficients(*(part.tolist() for part in (watched.states, watched.tokens, other.states, other.tokens)),
                           np.asarray(words).tolist())  # fmt: skip
        for k, m in itertools.product(range(len(watched)), range(len(other))):
            size = abs(rho[k][m] * float(watched.states[k] @ other.states[m]))
            total += size
            matched += size * (watched.tokens[k] == other.tokens[m])
    return matched, total


@pytest.mark.parametrize("seed", range(3))
def test_cue_share_is_the_sum_over_pairs_of_tokens(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    words = rng.normal(scale=1.5, size=(6, 4))
    plus, minus, watched = draw(rng, 3), draw(rng, 3), draw(rng, 4)
    sums = [[loop_sums(e, pair, words) for pair in zip(plus, minus, strict=True)] for e in watched]
    wanted = [[matched / total for matched, total in row] for row in sums]
    found = token_cue_share(plus, minus, watched, unembedding=words)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert ((found >= 0) & (found <= 1)).all()
    assert ((found > 0.01) & (found < 0.99)).any()
    np.testing.assert_allclose(token_cue_share(minus, plus, watched, unembedding=words), found, rtol=1e-12)
    monkeypatch.setattr(_transfer, "_TOKENS", 4)
    monkeypatch.setattr(_transfer, "_BLOCK", 12)
    np.testing.assert_allclose(token_cue_share(plus, minus, watched, unembedding=words), found, rtol=1e-12)


def test_cue_share_of_worked_tokens():
    plus, minus = (ResponseStates([[1.0, 2.0]], [v]) for v in (0, 1))
    same, other = (ResponseStates([[1.0, 0.0]], [v]) for v in (0, 2))
    share = token_cue_share([plus], [minus], [same, other], unembedding=WORDS)
    assert share[0, 0] == pytest.approx(0.480220 / (0.480220 + 0.155604), abs=2e-6)
    assert share[1, 0] == 0.0
    apart = ResponseStates([[0.0, 0.0]], [0])  # a state of 0 moves nothing
    assert math.isnan(token_cue_share([plus], [minus], [apart], unembedding=WORDS)[0, 0])
    twin = token_cue_share([plus], [plus], [same], unembedding=WORDS)
    assert twin[0, 0] == 1.0


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        ({"unembedding": None}, ValueError, "unembedding"),
        ({"unembedding": [[1.0, 0.0, 0.0]]}, ValueError, "width"),
        ({"chosen": []}, ValueError, "chosen"),
        ({"chosen": [ResponseStates([[1.0, 2.0]], [3])]}, ValueError, "chosen"),
        ({"rejected": [ResponseStates([[1.0, 2.0]], [0])] * 2}, ValueError, "rejected"),
        ({"evaluation": [[1.0, 2.0]]}, TypeError, "evaluation"),
        ({"evaluation": [ResponseStates([[1e300, 0.0]], [0])], "unembedding": [[1e-300, 0], [0, 1], [0, 0]],
          "chosen": [ResponseStates([[1e300, 0.0]], [1])]}, ValueError, "float64"),
    ],
)  # fmt: skip
def test_cue_share_refuses_by_name(change, kind, word):
    one = ResponseStates([[1.0, 2.0]], [0])
    arguments = {"chosen": [one], "rejected": [one], "evaluation": [one], "unembedding": WORDS, **change}
    with pytest.raises(kind, match=word):
        token_cue_share(**arguments)


def pairs(rows):
    return encode_preferences([{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in rows])


def response_states(model, prompt, response):
    """States of one plain forward of the network, and the tokens."""
    with torch.no_grad():
        states = model.base_model(input_ids=torch.tensor([[*prompt, *response]])).last_hidden_state[0]
    scale = getattr(model.config, "logit_scale", None) or 1.0
    return ResponseStates(scale * states[len(prompt) - 1 : -1].double().numpy(), response)


def margin(model, row, weight):
    """r(chosen) - r(rejected) = ln pi - ln pi, differentiable by the output projection alone."""
    values = []
    scale = getattr(model.config, "logit_scale", None) or 1.0
    for response in row[1:]:
        with torch.no_grad():
            states = model.base_model(input_ids=torch.tensor([[*row[0], *response]])).last_hidden_state[0]
        lines = (scale * states[len(row[0]) - 1 : -1].double() @ weight.T).log_softmax(dim=-1)
        values.append(lines[torch.arange(len(response)), torch.tensor(response)].sum())
    return values[0] - values[1]


@pytest.mark.parametrize("kind", ["llama", "llama_tied", "cohere"])
def test_forecast_is_a_gradient_step_on_the_output_projection(zoo, kind):
    model = zoo.load(kind)
    found = token_cues(model, pairs(PAIRS), evaluation=pairs(OTHERS), beta=0.5, lr=3.0, gap=[0.0, 1.0, -2.0])
    weight = model.get_output_embeddings().weight.detach().double().requires_grad_()
    slopes = [torch.autograd.grad(margin(model, row, weight), weight)[0] for row in (*PAIRS, *OTHERS)]
    factor = 3.0 * 0.25 / (1 + np.exp([0.0, 1.0, -2.0]))
    wanted = [[float((slopes[3 + e] * slopes[t]).sum()) * factor[t] for t in range(3)] for e in range(2)]
    np.testing.assert_allclose(found.margin_change, wanted, rtol=2e-4, atol=2e-5 * np.abs(wanted).max())
    words = model.get_output_embeddings().weight.detach().double().numpy()
    sides = [[response_states(model, row[0], response) for response in row[1:]] for row in (*PAIRS, *OTHERS)]
    for e, t in itertools.product(range(2), range(3)):
        sums = [loop_sums(watched, sides[t], words) for watched in sides[3 + e]]
        share = sum(matched for matched, _ in sums) / sum(total for _, total in sums)
        assert found.cue_share[e, t] == pytest.approx(share, rel=1e-3)
    assert found.cue_share[1].max() == 0.0  # no token in common with any training pair
    assert found.cue_share[0].max() > 0.01


def test_a_pair_widens_its_own_margin_and_masks_and_unusable_pairs_are_left_out(zoo):
    model = zoo.load("llama")
    own = token_cues(model, pairs(PAIRS))
    assert own.margin_change.shape == (3, 3)
    assert (np.diag(own.margin_change) > 0).all()
    masked = pairs(PAIRS)
    keep = (np.array([True, False, True]), *[None] * 5)
    masked = token_cues(model, dataclasses.replace(masked, loss_mask=keep, fingerprint=""), evaluation=pairs(OTHERS))
    words = model.get_output_embeddings().weight.detach().double().numpy()
    chosen = response_states(model, PAIRS[0][0], PAIRS[0][1])
    chosen = ResponseStates(chosen.states[[0, 2]], chosen.tokens[[0, 2]])
    watched = [response_states(model, OTHERS[0][0], response) for response in OTHERS[0][1:]]
    sums = [loop_sums(e, (chosen, response_states(model, PAIRS[0][0], PAIRS[0][2])), words) for e in watched]
    assert masked.cue_share[0, 0] == pytest.approx(sum(m for m, _ in sums) / sum(t for _, t in sums), rel=1e-3)
    broken = encode(
        [
            {"prompt_ids": PAIRS[0][0], "chosen_ids": [], "rejected_ids": [4]},
            {"prompt_ids": PAIRS[0][0], "chosen_ids": PAIRS[0][1], "rejected_ids": PAIRS[0][2]},
        ],
        kind="pairs",
    )
    some = token_cues(model, broken, evaluation=pairs(PAIRS))
    assert np.isnan(some.margin_change[:, 0]).all()
    np.testing.assert_allclose(some.margin_change[:, 1], own.margin_change[:, 0], rtol=1e-4)
    assert some.meta.skipped == {"pairs of `train`": "1 cannot be used"}
    weighed = token_cues(model, broken, evaluation=pairs(PAIRS), gap=[50.0, 0.0])  # each pair keeps its own gap
    np.testing.assert_allclose(weighed.margin_change[:, 1], some.margin_change[:, 1], rtol=1e-12)
    for twin in (result_from_json(some.to_json()), pickle.loads(pickle.dumps(some)), copy.deepcopy(some)):
        assert twin == some
        assert not twin.cue_share.flags.writeable
    page = own.document()
    assert [row[0] for row in page.grids[0].rows] == [
        own.keys[i] for i in np.argsort(own.margin_change.mean(axis=1), kind="stable")
    ]
    assert len(page.plots[0].series[0].x) == 9
    assert f"{(own.margin_change < 0).mean():.0%} of cases" in own.explanation


def test_token_cues_refuse_by_name(zoo):
    model = zoo.load("llama")
    data = pairs(PAIRS)
    three = encode([{"prompt_ids": [1, 2], "responses_ids": [[3], [4], [5]]}], kind="responses")
    none = encode([{"prompt_ids": [1], "chosen_ids": [], "rejected_ids": [4]}], kind="pairs")
    cases = [
        (lambda: token_cues(model, [[1]]), TypeError, "`train`"),
        (lambda: token_cues(model, data, evaluation=[[1]]), TypeError, "`evaluation`"),
        (lambda: token_cues(model, three), ValueError, "`train` must hold pairs"),
        (lambda: token_cues(model, data, evaluation=none), ValueError, "`evaluation` must hold at least one pair"),
        (lambda: token_cues(model, data, beta=0.0), ValueError, "`beta`"),
        (lambda: token_cues(model, data, lr=-1.0), ValueError, "`lr`"),
        (lambda: token_cues(model, data, gap=[0.0]), ValueError, "`gap`"),
        (lambda: token_cues(zoo.load("gemma2"), data), ValueError, "`model` must have logits"),
    ]
    for call, kind, said in cases:
        with pytest.raises(kind, match=said):
            call()


# --- exact policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [None, [[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]])
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_a_factor_on_the_reward_divides_the_time(features, factor):
    """Exactly so for the flow, whatever the kernel; with a KL penalty it holds where that is scaled as well."""
    p, reward = [0.1, 0.3, 0.6], np.array([1.0, 0.5, -1.0])
    times = {}
    for c in (1.0, factor):
        for kl in (0.0, 0.05):
            run = simulate_policy_gradient(
                p, c * reward, {"watched": reward}, features=features, kl=c * kl, horizon=1e4, record=[0.0],
                stop=("watched", 0.4),
            )  # fmt: skip
            times[c, kl] = run.hitting_time
    assert times[factor, 0.0] == pytest.approx(times[1.0, 0.0] / factor, rel=1e-6)
    assert times[factor, 0.05] == pytest.approx(times[1.0, 0.05] / factor, rel=1e-6)
    assert times[1.0, 0.05] > times[1.0, 0.0] * 1.01  # the penalty is there


@pytest.mark.parametrize("method", ["flow", "gd"])
def test_without_a_reference_the_penalty_is_to_the_start(method):
    p, reward = [0.1, 0.3, 0.6], [1.0, 0.5, -1.0]
    options = {"kl": 0.5, "method": method, "horizon": 5.0, "steps": 50}
    plain = simulate_policy_gradient(p, reward, **options)
    named = simulate_policy_gradient(p, reward, ref=p, **options)
    other = simulate_policy_gradient(p, reward, ref=[0.3, 0.3, 0.4], **options)
    np.testing.assert_allclose(plain.probs, named.probs, rtol=1e-9)
    assert np.abs(plain.probs[-1] - other.probs[-1]).max() > 1e-3
    assert plain.grad_norm[0] == pytest.approx(np.linalg.norm(TabularPolicy.from_probs(p).grad(reward)), rel=1e-9)


@pytest.mark.parametrize(("off", "refused"), [(0.9e-5, False), (-0.9e-5, False), (1.1e-5, True), (-1.1e-5, True)])
def test_rounded_starts_are_mended_up_to_their_limit(off, refused):
    p = [0.1, 0.3, 0.6 + off]
    if refused:
        with pytest.raises(ValueError, match="`p0` must sum to 1 within 1e-05"):
            simulate_policy_gradient(p, [1.0, 0.5, -1.0], horizon=1.0)
    else:
        probs = simulate_policy_gradient(p, [1.0, 0.5, -1.0], horizon=1.0, record=[0.0]).probs[0]
        np.testing.assert_allclose(probs, np.array(p) / np.sum(p), rtol=1e-14)


def test_variances_of_inputs_are_centred_one_by_one():
    """The mean over inputs of exact variances knows no spread between inputs; centring on the batch would add it."""
    policy = TabularPolicy(np.log([[0.5, 0.5], [0.5, 0.5]]))
    reward = [[1.0, 0.0], [11.0, 10.0]]
    assert policy.exact_var(reward).tolist() == [0.25, 0.25]
    pooled = np.array(reward) - policy.value(reward).mean()
    assert (policy.probs * pooled**2).sum(axis=1).mean() > 25
    np.testing.assert_allclose(policy.grad(reward), [[0.25, -0.25]] * 2, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_advantages_over_their_deviation_have_a_bounded_gradient_and_the_same_signal_to_noise(seed):
    rng = np.random.default_rng(seed)
    policy = TabularPolicy(rng.normal(size=5))
    for scale in (1.0, 1e-6):
        reward = scale * rng.uniform(-1, 1, 5)
        std = math.sqrt(policy.exact_var(reward))
        top = float(np.linalg.eigvalsh(policy.fisher())[-1])
        assert np.linalg.norm(policy.grad(reward / std)) <= math.sqrt(top) * (1 + 1e-9)
        scores = np.eye(5) - policy.probs
        ratios = []
        for r in (reward, reward / std):
            terms = (r - policy.value(r))[:, None] * scores
            mean = policy.probs @ terms
            ratios.append(mean @ mean / (policy.probs @ ((terms - mean) ** 2).sum(axis=1)))
        assert ratios[1] == pytest.approx(ratios[0], rel=1e-9)


def test_explicit_rewards_ask_for_no_layer_but_the_last(zoo):
    """The network alone runs: neither the states of every layer nor the head of the model are asked for."""
    model = zoo.load("llama")
    with torch.random.fork_rng(devices=[]):
        model.score = torch.nn.Linear(32, 1)
    asked = []
    handle = model.base_model.register_forward_pre_hook(
        lambda module, args, options: asked.append(options.get("output_hidden_states")), with_kwargs=True
    )
    refused = model.register_forward_pre_hook(lambda module, args: asked.append("the whole model"))
    try:
        for pool in ("last", "mean"):
            sequence_rewards(model, pairs(PAIRS), pool=pool)
    finally:
        handle.remove()
        refused.remove()
        del model.score
    assert asked
    assert set(asked) <= {None, False}

"""Norms of Jacobians of logits against singular values, and probabilities of yes, one plain forward each."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from oracles.causal_zoo import Zoo, quiet
from rankdiag import result_from_json
from rankdiag.language_models import _run, encode
from rankdiag.rewards import Rollouts, generative_rewards, jacobian_norm
from rankdiag.testing import tiny_language_model

RECORDS = [
    {"prompt_ids": [1, 2], "responses_ids": [[3, 4, 9], [5, 9], [3, 7]]},
    {"prompt_ids": [1], "responses_ids": [[], [3], [4]]},
    {"prompt_ids": [6], "responses_ids": [[3], [4], [5]]},
]
PREFIXES = {0: [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 5]], 2: [[6]]}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    quiet()
    return Zoo(tmp_path_factory.mktemp("zoo"))


def data():
    return encode(RECORDS, kind="responses")


def singular_value(model, prefix, chosen) -> float:
    """Largest singular value of d logits / d theta behind a prefix, from the whole matrix, row by row."""
    logits = model(input_ids=torch.tensor([prefix])).logits[0, -1]
    parameters = [p for name, p in model.named_parameters() if chosen(name)]
    rows = []
    for value in logits:
        parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        rows.append(torch.cat([part.flatten() for part in flat]).double())
    matrix = torch.stack(rows)
    return float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1].sqrt())


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("tiny", "all"),
        ("tiny", "names"),
        ("llama_tied", "predicate"),
        pytest.param("llama_tied", "all", marks=pytest.mark.slow),
    ],
)
def test_the_norm_is_the_largest_singular_value_and_never_above_it(zoo, kind, params):
    model = tiny_language_model() if kind == "tiny" else zoo.load(kind)
    names = [name for name, _ in model.named_parameters()]
    given, chosen = {
        "all": ("all", lambda name: True),
        "predicate": (lambda name, p: name == names[-1], lambda name: name == names[-1]),
        "names": (names[:2], lambda name: name in names[:2]),
    }[params]
    found = jacobian_norm(model, data(), params=given, rng=1)
    assert found.n_prefixes.tolist() == [4, 0, 1]
    assert np.isnan(found.norm[1])
    for group, prefixes in PREFIXES.items():
        wanted = max(singular_value(model, prefix, chosen) for prefix in prefixes)
        assert wanted * 0.99 <= found.norm[group] <= wanted * (1 + 1e-5)
    assert found.params == {"all": "all", "predicate": "a predicate", "names": ", ".join(names[:2])}[params]
    assert found.meta.seed == 1


@pytest.mark.parametrize("kind", ["llama", "cohere", "gemma2"])
def test_at_the_head_the_norm_is_exact(zoo, kind, monkeypatch):
    """Of logits = cap tanh(scale W h / cap): the gradients by W of different logits never meet, so each is one row."""
    monkeypatch.setattr(_run, "_NARROWEST", 8)
    monkeypatch.setattr(_run, "_BLOCK", 64)  # slopes of 256 logits come in several blocks
    model = zoo.load(kind)
    found = jacobian_norm(model, data())
    weight = model.get_output_embeddings().weight
    for group, prefixes in PREFIXES.items():
        sizes = []
        for prefix in prefixes:
            with torch.no_grad():
                states = model.base_model(input_ids=torch.tensor([prefix])).last_hidden_state[0, -1]
                logits = model(input_ids=torch.tensor([prefix])).logits[0, -1].double()
            scale = getattr(model.config, "logit_scale", None) or 1.0
            cap = getattr(model.config, "final_logit_softcapping", None)
            slope = 1.0 if cap is None else float((1 - (logits / cap) ** 2).max())
            sizes.append(scale * slope * float(states.double().norm()))
        assert found.norm[group] == pytest.approx(max(sizes), rel=1e-5)
    assert weight.requires_grad
    assert found.meta.seed is None
    if kind == "llama":
        names = {id(p): name for name, p in model.named_parameters()}
        iterated = jacobian_norm(model, data(), params=[names[id(weight)]], rng=0)
        np.testing.assert_allclose(iterated.norm, found.norm, rtol=1e-5)  # all singular values are equal there


def test_few_prefixes_are_a_lower_estimate_and_seeds_repeat():
    model = tiny_language_model()
    whole = jacobian_norm(model, data(), params="all", rng=0).norm[0]
    few = [jacobian_norm(model, data(), params="all", prefixes=1, rng=seed) for seed in range(4)]
    assert all(one.n_prefixes.tolist() == [1, 0, 1] for one in few)
    assert all(one.norm[0] <= whole * 1.001 for one in few)
    assert min(one.norm[0] for one in few) < whole * 0.999
    assert jacobian_norm(model, data(), params="all", prefixes=1, rng=3) == few[3]
    short = jacobian_norm(model, data(), params="all", iterations=1, rng=0)
    assert short.norm[0] < whole
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    jacobian_norm(model, data(), params="all", rng=0)
    assert model.training
    assert all(p.grad is None and bool((p == before[name]).all()) for name, p in model.named_parameters())


def test_norms_travel_and_say_that_they_are_estimates():
    found = jacobian_norm(tiny_language_model(), data())
    for twin in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert twin == found
        assert not twin.norm.flags.writeable
    assert "estimate from below" in found.explanation
    assert "stimates from below" in found.document().grids[0].note
    assert [row[0] for row in found.document().grids[0].rows] == [found.keys[i] for i in np.argsort(-found.norm)[:2]]
    assert found.meta.skipped == {"prompts": "1 of 3 cannot be used"}


def test_jacobian_refusals(zoo):
    model = tiny_language_model()
    cases = [
        (lambda: jacobian_norm(model, [[1]]), TypeError, "`rollouts`"),
        (lambda: jacobian_norm(model, data(), params="head"), ValueError, "`params`"),
        (lambda: jacobian_norm(model, data(), params=["nothing"]), ValueError, "`parameters`"),
        (lambda: jacobian_norm(model, data(), prefixes=0), ValueError, "`prefixes`"),
        (lambda: jacobian_norm(model, data(), iterations=0), ValueError, "`iterations`"),
        (lambda: jacobian_norm(len, data()), ValueError, "cannot be run as a causal"),
        (lambda: jacobian_norm(model, Rollouts(prompts=("a",), texts=(("b", "c"),))), ValueError, "no token ids"),
    ]
    for call, kind, said in cases:
        with pytest.raises(kind, match=said):
            call()


# --- generative rewards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("layout", ["plain", "auto"])
def test_probability_of_yes_behind_the_last_token(zoo, kind, layout, monkeypatch):
    from rankdiag.rewards import _model_rewards

    monkeypatch.setattr(_model_rewards, "_VOCABULARY", 100)  # of 256
    model = zoo.load(kind)
    yes, no = [10, 20, 200], [11, 199]  # two in one block; the last of each are at the edges of a block
    alone = generative_rewards(model, data(), yes=10, layout=layout)
    both = generative_rewards(model, data(), yes, no=no, layout=layout)
    for group in (0, 2):
        prompt = RECORDS[group]["prompt_ids"]
        for slot, response in enumerate(RECORDS[group]["responses_ids"]):
            with torch.no_grad():
                p = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, -1].double().softmax(-1)
            assert alone.values[group, slot] == pytest.approx(float(p[10]), rel=1e-4)
            assert both.values[group, slot] == pytest.approx(float(p[yes].sum() / p[yes + no].sum()), rel=1e-4)
    assert np.isnan(alone.values[1]).all()
    assert alone.lengths[0].tolist() == [3, 2, 2]
    assert alone.meta["yes"] == [10]


def test_generative_refusals(zoo):
    model = zoo.load("llama")
    cases = [
        (lambda: generative_rewards(model, [[1]], 10), TypeError, "`data`"),
        (lambda: generative_rewards(model, data(), 256), ValueError, "`yes`"),
        (lambda: generative_rewards(model, data(), -1), ValueError, "`yes`"),
        (lambda: generative_rewards(model, data(), "yes"), TypeError, "`yes`"),
        (lambda: generative_rewards(model, data(), []), ValueError, "`yes`"),
        (lambda: generative_rewards(model, data(), [3, 3]), ValueError, "`yes`"),
        (lambda: generative_rewards(model, data(), 3, no=[4, 3]), ValueError, "`yes` and `no`"),
        (lambda: generative_rewards(model, data(), 3, no=999), ValueError, "`no`"),
        (lambda: generative_rewards(len, data(), 3), ValueError, "output projection"),
    ]
    for call, kind, said in cases:
        with pytest.raises(kind, match=said):
            call()

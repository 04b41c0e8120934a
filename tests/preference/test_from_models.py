"""Preference scores of real models, against one sequence at a time and gradients formed as they are defined."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from rankdiag import RankdiagWarning
from rankdiag.language_models import Journal, encode_preferences
from rankdiag.preference import (
    ches_from_states,
    ches_from_sums,
    dataset_pressure,
    displacement_score,
    head_pressure,
    keep_lowest,
    logprob_change_along,
    merge_scores,
    multi_token_dynamics,
    score_preferences,
    sequence_log_probs,
    token_contributions,
)

VOCAB, EOS = 40, 2
COLUMNS = ("ches", "ln_ches", "relative", "cross", "chosen_sq", "rejected_sq", "swapped", "cond", "last_state_inner")


@functools.cache
def llama(kind: str = "llama"):
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": EOS,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gemma2":  # a soft cap on the logits
            config = Gemma2Config(**sizes, head_dim=6, final_logit_softcapping=3.0, attn_implementation="eager")
            model = Gemma2ForCausalLM(config)
        else:
            model = LlamaForCausalLM(LlamaConfig(**sizes))
        for parameter in model.parameters():
            parameter.data += 0.15 * torch.randn_like(parameter)
    return model.double().eval()


def records(seed: int = 0, count: int = 9):
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        shared = rng.integers(3, VOCAB, rng.integers(0, 4)).tolist()
        sides = [shared + rng.integers(3, VOCAB, rng.integers(1, 7)).tolist() for _ in range(2)]
        prompt = rng.integers(3, VOCAB, rng.integers(1, 9)).tolist()
        rows.append({"key": f"row {number}", "prompt_ids": prompt, "chosen_ids": sides[0], "rejected_ids": sides[1]})
    rows[2]["rejected_ids"] = rows[2]["chosen_ids"] + [5, 6]  # one begins with the other
    rows[4]["rejected_ids"] = list(rows[4]["chosen_ids"])  # identical
    rows[6]["chosen_ids"] = []
    return rows


@functools.cache
def data():
    return encode_preferences(records())


USABLE = [0, 1, 2, 3, 5, 7, 8]


def states_of(model, prompt, response):
    """States that predict each token of a response, and the state after it, one sequence at a time."""
    row = torch.tensor([*prompt, *response])[None]
    with torch.no_grad():
        states = model.model(input_ids=row).last_hidden_state[0]
    return states[len(prompt) - 1 : -1].numpy(), states[-1].numpy()


def sides(pair, *, eos: bool = False):
    row = records()[pair]
    end = [EOS] if eos else []
    return row["prompt_ids"], [*row["chosen_ids"], *end], [*row["rejected_ids"], *end]


def shared(a, b):
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return same


@pytest.mark.parametrize("layout", ["plain", "packed", "auto"])
@pytest.mark.parametrize("end", ["given", "implied_eos"])
def test_scores_are_those_of_states_taken_one_sequence_at_a_time(layout, end):
    model = llama()
    pairs = data()
    if end == "implied_eos":
        pairs = dataclasses.replace(pairs, tokenizer={**pairs.tokenizer, "eos": EOS}, fingerprint="")
    scores = score_preferences(model, pairs, layout=layout, columns=COLUMNS, response_end=end)
    for pair in USABLE:
        prompt, chosen, rejected = sides(pair, eos=end == "implied_eos")
        plus, _ = states_of(model, prompt, chosen)
        minus, _ = states_of(model, prompt, rejected)
        s = min(shared(chosen, rejected) + 1, len(chosen), len(rejected))
        expected = ches_from_states([plus], [minus], n_shared=[s])
        for name in COLUMNS[:-1]:
            np.testing.assert_allclose(scores.scores[name][pair], getattr(expected, name)[0], rtol=1e-5, err_msg=name)
        last = [states_of(model, prompt, ids[: len(ids) - (end == "implied_eos")])[1] for ids in (chosen, rejected)]
        np.testing.assert_allclose(scores.scores["last_state_inner"][pair], last[0] @ last[1], rtol=1e-6)
        assert scores.scores["n_chosen"][pair] == len(chosen)
        assert scores.scores["length_gap"][pair] == len(rejected) - len(chosen)
        assert scores.scores["shared_prefix"][pair] == shared(*sides(pair)[1:])


def test_pairs_that_cannot_be_used_keep_their_place():
    scores = score_preferences(llama(), data(), logps=True, head_score=True)
    assert scores.status[4] == "identical"
    assert scores.status[6] == "empty_chosen"
    for name in ("ches", "ln_ches", "edit_similarity"):
        assert scores.scores[name][4] == 0
        assert np.isnan(scores.scores[name][6])
    for name in ("relative", "head", "chosen_logp"):
        assert np.isnan(scores.scores[name][[4, 6]]).all()
    assert not {4, 6} & set(keep_lowest(scores, n=9).tolist())


def gradient(model, pair, side, parameters):
    prompt, *responses = sides(pair)
    ids = responses[side]
    logits = model(input_ids=torch.tensor([*prompt, *ids])[None]).logits[0, len(prompt) - 1 : -1]
    logp = torch.log_softmax(logits, dim=-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()
    return [part.detach() for part in torch.autograd.grad(logp, parameters)]


def inner(a, b):
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("level", ["head", "full"])
def test_levels_are_inner_products_of_the_gradients_that_they_name(kind, level):
    model = llama(kind)
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    if tied and level == "head":  # the output side alone
        head = torch.nn.Parameter(head.detach().clone())
        model = llama.__wrapped__(kind)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = head
    parameters = [head] if level == "head" else [p for p in model.parameters() if p.requires_grad]
    scores = displacement_score(model, data(), level=level)
    for pair in USABLE:
        plus, minus = (gradient(model, pair, side, parameters) for side in (0, 1))
        expected = inner(plus, plus), inner(plus, minus), inner(minus, minus)
        found = scores.chosen_sq[pair], scores.cross[pair], scores.rejected_sq[pair]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * max(expected))
    assert np.isnan(scores.score[[4, 6]]).all()


def test_the_unconstrained_level_and_its_tokens_are_those_of_the_theory():
    model = llama()
    scores = displacement_score(model, data(), level="ufm")
    contributions = token_contributions(model, data(), USABLE)
    for pair in USABLE:
        prompt, chosen, rejected = sides(pair)
        dynamics = multi_token_dynamics(
            model.lm_head.weight.detach(),
            states_of(model, prompt, chosen)[0],
            states_of(model, prompt, rejected)[0],
            chosen,
            rejected,
        )
        np.testing.assert_allclose(-scores.score[pair], dynamics.rate_chosen, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(contributions[pair], dynamics.token_contributions, rtol=1e-4, atol=1e-6)


def test_one_column_of_a_scoring_run_is_what_each_level_gives():
    scores = score_preferences(llama(), data(), head_score=True, logps=True, columns=("ches",))
    np.testing.assert_allclose(
        scores.scores["head"], displacement_score(llama(), data(), level="head").score, rtol=1e-9
    )
    usable = np.array(USABLE)
    np.testing.assert_allclose(
        scores.scores["ches"][usable], displacement_score(llama(), data(), level="ches").score[usable], rtol=1e-9
    )
    record = sequence_log_probs(llama(), data(), per_token=True)
    np.testing.assert_array_equal(scores.scores["chosen_logp"], record.chosen)
    for pair in USABLE:
        np.testing.assert_allclose(record.rejected_tokens[pair].sum(), record.rejected[pair], rtol=1e-12)


def test_full_level_predicts_a_small_step_exactly():
    """The ratio of what a step of SGD does to what was predicted goes to 1 with the step."""
    model = llama.__wrapped__()
    pairs = data()
    scores = displacement_score(model, pairs, level="full")
    start = [p.detach().clone() for p in model.parameters()]
    errors = []
    for lr in (1e-1, 1e-2, 1e-3):
        plus, minus = (gradient(model, 0, side, list(model.parameters())) for side in (0, 1))
        with torch.no_grad():
            for p, a, b in zip(model.parameters(), plus, minus, strict=True):
                p += lr * 0.05 * (a - b)
        after = sequence_log_probs(model, pairs)
        with torch.no_grad():
            for p, old in zip(model.parameters(), start, strict=True):
                p.copy_(old)
        before = sequence_log_probs(model, pairs)
        predicted = scores.predict_delta(lr, 0.05, 0.05)
        errors.append(abs((after.chosen[0] - before.chosen[0]) / predicted.delta_chosen[0] - 1))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_pressure_at_the_head_is_the_product_of_explicit_gradients(kind):
    model = llama.__wrapped__(kind)
    head = torch.nn.Parameter(model.get_output_embeddings().weight.detach().clone())
    model.config.tie_word_embeddings = False
    model.lm_head.weight = head
    g = np.linspace(0.5, 2.0, len(data()))
    result = head_pressure(model, data(), weights=g)
    gradients = {pair: [gradient(model, pair, side, [head])[0] for side in (0, 1)] for pair in USABLE}
    mean = sum(g[pair] * (minus - plus) for pair, (plus, minus) in gradients.items()) / len(USABLE)
    for pair, (plus, minus) in gradients.items():
        np.testing.assert_allclose(result.pressure[pair], float((plus * mean).sum()), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.own[pair], float((plus * (minus - plus)).sum()), rtol=1e-5, atol=1e-6)
    assert np.isnan(result.pressure[[4, 6]]).all()


@pytest.mark.parametrize("method", ["jvp", "central"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_change_along_an_update_is_the_product_with_the_gradient(method):
    model = llama.__wrapped__()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rng = torch.Generator().manual_seed(0)
    update = {name: torch.randn(p.shape, generator=rng).double() for name, p in model.named_parameters()}
    found = logprob_change_along(model, data(), update, method=method)
    for pair in USABLE:
        for side, values in enumerate((found.chosen, found.rejected)):
            expected = inner(gradient(model, pair, side, list(model.parameters())), list(update.values()))
            close = 2e-3 if method == "jvp" else 2e-2  # norms of this "float64" model are float32 inside
            np.testing.assert_allclose(values[pair], expected, rtol=close, atol=close)
    assert found.meta.details["method"] == method
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())  # to the bit


def test_sums_that_are_kept_score_again_without_the_model(tmp_path):
    scores = score_preferences(llama(), data(), out=tmp_path, keep_sums=True)
    plus, minus = (np.load(tmp_path / f"sum_{side}.npy", mmap_mode="r") for side in ("chosen", "rejected"))
    assert plus.dtype == np.float32
    assert np.isnan(plus[[4, 6]]).all()
    use = np.array(USABLE)
    again = ches_from_sums(plus[use], minus[use], scores.scores["n_chosen"][use], scores.scores["n_rejected"][use])
    np.testing.assert_allclose(again.ches, scores.scores["ches"][use], rtol=1e-3, atol=1e-4 * again.chosen_sq.max())
    np.testing.assert_allclose(dataset_pressure(plus[use], minus[use]).own, again.ches, rtol=1e-6, atol=1e-6)
    assert merge_scores(tmp_path) == scores


def test_processes_share_a_folder_and_the_last_one_merges(tmp_path):
    whole = score_preferences(llama(), data(), token_budget=20)
    first = score_preferences(llama(), data(), token_budget=20, out=tmp_path, rank=1, world_size=2)
    assert len(first) < len(data())
    with pytest.raises(ValueError, match="rows are missing"):
        merge_scores(tmp_path)
    last = score_preferences(llama(), data(), token_budget=20, out=tmp_path, rank=0, world_size=2)
    assert last.keys == whole.keys
    for name, values in whole.scores.items():
        np.testing.assert_array_equal(last.scores[name], values)


def test_single_tokens_say_nothing_and_a_warning_says_so():
    rows = [{"prompt_ids": [3, 4], "chosen_ids": [5], "rejected_ids": [6]}]
    with pytest.warns(RankdiagWarning, match="1 of 1 pairs consist of two single-token responses"):
        scores = score_preferences(llama(), encode_preferences(rows), head_score=True)
    assert scores.scores["ches"][0] == 0
    assert scores.scores["head"][0] != 0


def test_prompts_that_are_cut_differently_share_nothing():
    row = {"prompt_ids": list(range(3, 15)), "chosen_ids": [20, 21, 22, 23], "rejected_ids": [20, 25]}
    pairs = encode_preferences([{"key": "cut", **row}, *records()[:2]], max_length=12, truncation="keep_end")
    assert pairs.chosen_start[0] != pairs.rejected_start[0]
    scores = score_preferences(llama(), pairs, columns=("ches", "cross", "rejected_sq"))
    start = pairs.chosen_start[0], pairs.rejected_start[0]
    plus, _ = states_of(llama(), row["prompt_ids"][start[0] :], row["chosen_ids"])
    minus, _ = states_of(llama(), row["prompt_ids"][start[1] :], row["rejected_ids"])
    expected = ches_from_states([plus], [minus], n_shared=[0])
    np.testing.assert_allclose(scores.scores["ches"][0], expected.ches[0], rtol=1e-6)
    np.testing.assert_allclose(scores.scores["rejected_sq"][0], expected.rejected_sq[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: score_preferences(llama(), data(), columns=("chess",)), ValueError, "`columns` must hold names among"),
        (lambda: score_preferences(llama(), [1]), TypeError, "`data` must be encoded preference pairs"),
        (lambda: score_preferences(llama(), data(), keep_sums=True), ValueError, "`keep_sums=True` needs `out`"),
        (lambda: score_preferences(llama(), data(), rank=0), ValueError, "`rank` and `world_size` must be given"),
        (lambda: score_preferences(llama(), data(), rank=0, world_size=2), ValueError, "`world_size` above 1 needs"),
        (lambda: displacement_score(llama(), data(), level="top"), ValueError, "`level` must be one of"),
        (lambda: displacement_score(llama(), data(), parameters=["a"]), ValueError, "belongs to level 'full'"),
        (
            lambda: displacement_score(llama(), data(), level="full", parameters=["a"]),
            ValueError,
            "`parameters` must name parameters",
        ),
        (lambda: head_pressure(llama(), data(), weights=[1.0]), ValueError, "`weights` must have one entry for each"),
        (lambda: logprob_change_along(llama(), data(), {}), TypeError, "`update` must map names"),
        (
            lambda: logprob_change_along(llama(), data(), {"no": torch.ones(1)}),
            ValueError,
            "`update` must name parameters",
        ),
        (
            lambda: token_contributions(llama(), data(), [6]),
            ValueError,
            "`pairs` must be usable; pair 6 is 'empty_chosen'",
        ),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_journal_that_is_there_is_refused_if_asked(tmp_path):
    score_preferences(llama(), data(), out=tmp_path)
    with pytest.raises(ValueError, match="`out` holds a journal already"):
        score_preferences(llama(), data(), out=tmp_path, resume=False)
    Journal(tmp_path / "other", {"n_groups": 0}).close()
    with pytest.raises(ValueError, match="`path` must hold the journal of score_preferences"):
        merge_scores(tmp_path / "other")

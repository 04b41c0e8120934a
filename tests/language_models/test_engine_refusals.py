"""What cannot be measured is refused by name, before the work where that can be known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.causal_zoo import POSITIONS, VOCAB, as_callable, quiet
from oracles.engine_cases import EVERYTHING, FEW_PAIRS, PAIRS, Case, as_encoded, gather
from oracles.engine_oracle import deviations, expected_columns
from rankdiag.language_models import (
    HeadGram,
    HeadReward,
    LastState,
    LogProbs,
    StateSums,
    TokenKL,
    TokenStats,
    plan,
    run,
)


@pytest.mark.parametrize("layout", ["plain", "packed", "auto"])
def test_weights_that_are_not_numbers_are_named(zoo, layout):
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()], layout=layout)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"(?i)nan|finite"):
        gather(run(model, planned, [StateSums()]))
    with pytest.raises(ValueError, match=r"(?i)nan|finite"):
        gather(run(model, plan(as_encoded(PAIRS), model, [StateSums()], layout="plain"), [StateSums()]))


def test_states_that_are_not_numbers_name_their_group(zoo):
    """Only one prompt holds the token whose embedding is broken."""
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()], layout="plain", token_budget=1)
    with torch.no_grad():
        model.model.embed_tokens.weight[ord("Q")] = float("inf")  # the only Q is the prompt of group 6
    with pytest.raises(ValueError, match=r"key-6"):
        gather(run(model, planned, [StateSums()]))


def test_infinite_logits_are_named(zoo):
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [LogProbs()])
    with torch.no_grad():
        model.lm_head.weight[ord("Z")] = float("nan")  # no row holds it, every distribution does
    with pytest.raises(ValueError, match=r"(?i)nan|finite"):
        gather(run(model, planned, [LogProbs()]))


@pytest.mark.parametrize("where", ["prompt", "response"])
@pytest.mark.parametrize("bad", [VOCAB, 10**6, -1])
def test_ids_outside_the_embedding(zoo, where, bad):
    prompt, response = ([4, bad], [5, 6]) if where == "prompt" else ([4], [5, bad, 6])
    case = Case(kind="responses", groups=((([4], [5], None),), ((prompt, response, None),)))
    with pytest.raises(ValueError, match=rf"(?is)\bids?\b.*{bad}"):
        plan(as_encoded(case), zoo.load("llama"), [StateSums()])


def test_the_last_id_counts_though_it_is_not_fed(zoo):
    case = Case(kind="responses", groups=((([4], [5, VOCAB], None),),))
    with pytest.raises(ValueError, match=r"(?i)id|embedding|vocabulary"):
        plan(as_encoded(case), zoo.load("llama"), [LogProbs()])


def test_ids_of_unusable_groups_are_not_looked_at(zoo):
    case = Case(kind="pairs", groups=(PAIRS.groups[0], (([4], [VOCAB], None), ([4], [VOCAB], None))),
                status={1: "identical"})  # fmt: skip
    model = zoo.load("llama")
    found = gather(run(model, plan(as_encoded(case), model, [StateSums()]), [StateSums()]))
    assert {group for group, _ in found["sum"]} == {0}


@pytest.mark.parametrize("name", ["gpt2", "opt", "llama"])
def test_position_limit_to_the_token(zoo, name):
    model = zoo.load(name)

    def case(length):
        return as_encoded(Case(kind="responses", groups=((([4] * 8, [5] * (length - 8), None),),)), eos=2)

    fits = case(POSITIONS + 1)  # the last token of a response is not fed
    for layout in ("plain", "packed"):
        found = gather(run(model, plan(fits, model, [StateSums()], layout=layout), [StateSums()]))
        assert np.isfinite(found["sum"][0, 0]).all()
    with pytest.raises(ValueError, match=rf"(?is)key-0.*{POSITIONS}"):
        plan(case(POSITIONS + 2), model, [StateSums()])
    with pytest.raises(ValueError, match=rf"(?is)key-0.*{POSITIONS}"):
        plan(fits, model, [LastState()])
    with pytest.raises(ValueError, match=rf"(?is)key-0.*{POSITIONS}"):
        plan(fits, model, [StateSums()], response_end="implied_eos")


def test_the_tighter_limit_of_two_models_holds(zoo):
    long = as_encoded(Case(kind="responses", groups=((([4] * 8, [5] * 80, None),),)))
    models = (zoo.load("llama"), zoo.load("llama", max_position_embeddings=64))
    for pair in (models, models[::-1]):
        with pytest.raises(ValueError, match=r"(?is)key-0.*64"):
            plan(long, pair, [TokenKL()])


def test_a_tokenizer_longer_than_the_embedding(zoo):
    model = zoo.load("llama")
    with pytest.raises(ValueError, match=rf"(?is)tokenizer.*{VOCAB + 1}.*{VOCAB}"):
        plan(as_encoded(FEW_PAIRS, length=VOCAB + 1), model, [StateSums()])
    for length in (VOCAB, VOCAB - 10, None):
        plan(as_encoded(FEW_PAIRS, length=length), model, [StateSums()])


def test_encoder_decoder_models():
    quiet()
    import transformers as tf

    with torch.random.fork_rng(devices=[]):
        model = tf.T5ForConditionalGeneration(
            tf.T5Config(vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0,
                        decoder_start_token_id=0)
        ).eval()  # fmt: skip
    with pytest.raises(ValueError, match=r"(?i)decoder-only|encoder-decoder"):
        plan(as_encoded(FEW_PAIRS), model, [StateSums()])


@pytest.mark.parametrize("made", [LogProbs, TokenStats, HeadGram])
def test_models_without_output_embeddings(zoo, made):
    for model in (zoo.backbone("llama"), as_callable(zoo.load("llama"))):
        with pytest.raises(ValueError, match=r"(?i)output embeddings|output projection|unembedding"):
            plan(as_encoded(FEW_PAIRS), model, [made()])


def test_vocabularies_of_two_models_must_match(zoo):
    models = (zoo.load("llama"), zoo.load("llama", vocab_size=VOCAB + 8))
    with pytest.raises(ValueError, match=r"(?i)vocabular"):
        plan(as_encoded(FEW_PAIRS), models, [TokenKL()])


def test_kl_needs_two_models(zoo):
    with pytest.raises(ValueError, match=r"(?i)two models|second model|models"):
        plan(as_encoded(FEW_PAIRS), zoo.load("llama"), [TokenKL()])


def test_models_on_devices_that_do_not_match(zoo):
    model = zoo.load("llama")
    elsewhere = zoo.load("llama").to("meta")
    for models in ((model, elsewhere), (elsewhere, model)):
        with pytest.raises(ValueError, match=r"(?i)device"):
            plan(as_encoded(FEW_PAIRS), models, [TokenKL()])


def test_a_model_without_weights(zoo):
    with pytest.raises(ValueError, match=r"(?i)meta"):
        plan(as_encoded(FEW_PAIRS), zoo.load("llama").to("meta"), [StateSums()])


def test_a_reward_head_of_the_wrong_width(zoo):
    model = zoo.load("llama")
    outputs = [HeadReward(np.ones(31))]
    with pytest.raises(ValueError, match=r"(?is)weight.*3[12]"):
        gather(run(model, plan(as_encoded(FEW_PAIRS), model, outputs), outputs))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"layout": "dense"}, "layout"),
        ({"response_end": "eos"}, "response_end"),
        ({"token_budget": 0}, "token_budget"),
        ({"token_budget": -5}, "token_budget"),
    ],
)
def test_options_that_do_not_exist(zoo, options, word):
    with pytest.raises(ValueError, match=word):
        plan(as_encoded(FEW_PAIRS), zoo.load("llama"), [StateSums()], **options)


def test_choices_of_outputs_that_do_not_exist():
    with pytest.raises(ValueError, match="direction"):
        TokenKL(direction="sideways")
    with pytest.raises(ValueError, match="pool"):
        HeadReward(np.ones(3), pool="max")
    with pytest.raises(TypeError):
        LogProbs(per_tokens=True)


def test_implied_eos_needs_an_eos_where_its_id_is_read(zoo):
    model = zoo.load("llama")
    model.config.eos_token_id = None
    with pytest.raises(ValueError, match=r"(?i)eos"):
        plan(as_encoded(FEW_PAIRS, eos=None), model, [LogProbs()], response_end="implied_eos")


def test_nothing_to_do(zoo):
    model = zoo.load("llama")
    dead = Case(kind="pairs", groups=PAIRS.groups[:2], status={0: "too_long", 1: "identical"})
    planned = plan(as_encoded(dead), model, [StateSums()])
    assert len(planned.batches) == 0
    assert list(run(model, planned, [StateSums()])) == []


def test_no_outputs(zoo):
    with pytest.raises(ValueError, match=r"(?i)outputs"):
        plan(as_encoded(FEW_PAIRS), zoo.load("llama"), [])


def test_two_outputs_with_one_column_name(zoo):
    """Two reward heads would write one column: it is an error, not the last one's."""
    outputs = [HeadReward(np.ones(32)), HeadReward(np.zeros(32))]
    model = zoo.load("llama")
    with pytest.raises(ValueError, match=r"reward"):
        gather(run(model, plan(as_encoded(FEW_PAIRS), model, outputs), outputs))


def test_a_run_with_other_outputs_than_planned(zoo):
    """The plan fed no last token and looked for no head; a run that needs them must not read something else."""
    model = zoo.load("llama")
    planned = plan(as_encoded(EVERYTHING), model, [StateSums()])
    expected = expected_columns(model, EVERYTHING, gram=False)
    try:
        found = gather(run(model, planned, [StateSums(), LastState()]))
    except ValueError as error:
        assert "output" in str(error)
    else:
        assert max(deviations(found, expected).values()) < 1e-5


def test_a_model_swapped_after_planning_is_noticed_or_measured(zoo):
    planned = plan(as_encoded(FEW_PAIRS), zoo.load("llama"), [StateSums()], layout="packed")
    other = zoo.load("mistral_window")
    try:
        found = gather(run(other, planned, [StateSums()]))
    except ValueError as error:
        assert "plan" in str(error)
    else:
        assert max(deviations(found, expected_columns(other, FEW_PAIRS, gram=False)).values()) < 1e-5


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"reduce": 3}, "reduce"),
        ({"reduce": lambda columns: None}, "reduce"),
        ({"journal": 3}, "journal"),
        ({"autocast": "bf16"}, "autocast"),
        ({"progress": "yes"}, "progress"),
    ],
)
def test_arguments_of_the_wrong_kind(zoo, options, word):
    model = zoo.load("llama")
    planned = plan(as_encoded(FEW_PAIRS), model, [StateSums()])
    with pytest.raises(TypeError, match=rf"`{word}`"):
        list(run(model, planned, [StateSums()], **options))


@pytest.mark.parametrize("models", ["gpt2", None, 3])
def test_models_that_are_none(models):
    with pytest.raises(TypeError, match="`models`"):
        plan(as_encoded(FEW_PAIRS), models, [StateSums()])


def test_callables_that_give_no_states(zoo):
    states = as_callable(zoo.load("llama"))

    def flat(ids, mask, positions):
        return states(ids, mask, positions)[..., 0]

    def boxed(ids, mask, positions):
        return (states(ids, mask, positions),)

    def failing(ids, mask, positions):
        raise RuntimeError("no such luck")

    def narrow(ids, mask):
        return states(ids, mask, None)

    for wrong, word in ((flat, "flat"), (boxed, "boxed"), (failing, "no such luck"), (narrow, "narrow")):
        with pytest.raises(ValueError, match=rf"(?s)`models`.*{word}"):
            plan(as_encoded(FEW_PAIRS), wrong, [StateSums()])


def test_a_reduction_that_loses_a_group(zoo):
    model = zoo.load("llama")
    planned = plan(as_encoded(FEW_PAIRS), model, [StateSums()])
    with pytest.raises(ValueError, match=r"`reduce`.*one entry"):
        list(run(model, planned, [StateSums()], reduce=lambda columns: {"x": np.zeros(1)}))

"""The shared-prompt layout is checked on the model itself: what breaks it must be noticed, and would be wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.causal_zoo import as_callable
from oracles.engine_cases import EVERYTHING, PAIRS, Case, as_encoded, gather, text
from oracles.engine_oracle import deviations, expected_columns
from rankdiag.language_models import LastState, LogProbs, StateSums, TokenKL, plan, run


def outputs():
    return [StateSums()]


def worst(model, planned, expected) -> float:
    return max(deviations(gather(run(model, planned, outputs())), expected).values())


class Loose:
    """A states callable that can lose what the shared-prompt layout needs of it, before or after planning."""

    def __init__(self, model) -> None:
        self.states = as_callable(model)
        self.blind = False  # to masks: rejected rows see chosen columns
        self.lost = False  # positions: what came later in the row counts as later in the text

    def __call__(self, input_ids, attention_mask, position_ids):
        if self.blind and attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = None
        return self.states(input_ids, attention_mask, None if self.lost else position_ids)


@pytest.mark.parametrize("what", ["blind", "lost"])
def test_a_model_deaf_to_masks_or_positions_falls_back_to_the_plain_layout(zoo, what):
    model = zoo.load("llama")
    loose = Loose(model)
    assert plan(as_encoded(PAIRS), loose, outputs(), layout="auto").layout == "packed"
    setattr(loose, what, True)
    chosen = plan(as_encoded(PAIRS), loose, outputs(), layout="auto")
    assert chosen.layout == "plain"
    assert "check" in chosen.reason.lower(), chosen.reason
    assert worst(loose, chosen, expected_columns(model, PAIRS, gram=False)) < 1e-5


@pytest.mark.parametrize("what", ["blind", "lost"])
def test_what_the_check_catches_would_have_been_wrong(zoo, what):
    """The check is passed honestly, then the model goes deaf: numbers must be far off, or the check guards nothing."""
    model = zoo.load("llama")
    loose = Loose(model)
    chosen = plan(as_encoded(PAIRS), loose, outputs(), layout="packed")
    expected = expected_columns(model, PAIRS, gram=False)
    assert worst(loose, chosen, expected) < 1e-5
    setattr(loose, what, True)
    assert worst(loose, chosen, expected) > 1e-2


@pytest.mark.parametrize("what", ["blind", "lost"])
def test_asking_for_the_packed_layout_does_not_go_round_the_check(zoo, what):
    loose = Loose(zoo.load("llama"))
    setattr(loose, what, True)
    with pytest.raises(ValueError, match=r"(?is)packed.*check|check.*packed"):
        plan(as_encoded(PAIRS), loose, outputs(), layout="packed")


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_attention_that_drops_its_mask_is_noticed(zoo, name, monkeypatch):
    """Every fused attention call becomes plainly causal, so that a rejected row reads the chosen columns."""
    model = zoo.load(name, attention="sdpa")
    expected = expected_columns(model, PAIRS, gram=False)
    honest = plan(as_encoded(PAIRS), model, outputs(), layout="auto")
    assert honest.layout == "packed"
    original = torch.nn.functional.scaled_dot_product_attention

    def causal_only(query, key, value, attn_mask=None, **options):
        options["is_causal"] = query.shape[-2] > 1
        return original(query, key, value, attn_mask=None, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", causal_only)
    chosen = plan(as_encoded(PAIRS), model, outputs(), layout="auto")
    assert chosen.layout == "plain"
    assert "check" in chosen.reason.lower(), chosen.reason
    assert worst(model, chosen, expected) < 1e-5
    assert worst(model, honest, expected) > 1e-2


def test_a_leak_into_the_second_branch_alone_is_noticed(zoo, monkeypatch):
    """One attention head in one layer lets the last row of a sequence look one column too far back."""
    model = zoo.load("llama", attention="sdpa")
    original = torch.nn.functional.scaled_dot_product_attention

    def leaky(query, key, value, attn_mask=None, **options):
        if attn_mask is not None and attn_mask.ndim == 4 and attn_mask.dtype == torch.bool:
            causal = torch.ones(attn_mask.shape[-2:], dtype=torch.bool).tril()
            attn_mask = attn_mask.expand(-1, query.shape[1], -1, -1).clone()
            attn_mask[:, 0] = causal
        return original(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", leaky)
    assert plan(as_encoded(PAIRS), model, outputs(), layout="auto").layout == "plain"


def test_attention_kinds_that_take_no_mask_of_four_dimensions_are_not_packed(zoo):
    model = zoo.load("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match=r"(?is)flash"):
        plan(as_encoded(PAIRS), model, outputs(), layout="packed")


def test_each_model_of_two_is_checked(zoo):
    good = zoo.load("llama")
    for models in ((good, zoo.load("mistral_window")), (zoo.load("mistral_window"), good)):
        chosen = plan(as_encoded(PAIRS), models, [TokenKL()], layout="auto")
        assert chosen.layout == "plain"
        assert "window" in chosen.reason
        with pytest.raises(ValueError, match=r"(?is)window"):
            plan(as_encoded(PAIRS), models, [TokenKL()], layout="packed")


def test_the_verdict_is_recorded(zoo):
    model = zoo.load("llama")
    packed = plan(as_encoded(PAIRS), model, outputs(), layout="auto")
    assert packed.self_check is not None
    manifest = packed.to_manifest()
    assert manifest["layout"] == "packed"
    plain = plan(as_encoded(PAIRS), zoo.load("bloom"), outputs(), layout="auto")
    assert plain.to_manifest()["layout"] == "plain"
    assert plain.to_manifest() != manifest


def test_rows_that_share_nothing_are_still_right_in_the_packed_layout(zoo):
    model = zoo.load("llama")
    lonely = Case(
        kind="responses",
        groups=tuple(((text(prompt), text(response), None),) for prompt, response in (("a", "bcd"), ("efg", "h"))),
    )
    made = [StateSums(), LastState(), LogProbs()]
    for layout in ("auto", "packed", "plain"):
        found = gather(run(model, plan(as_encoded(lonely), model, made, layout=layout), made))
        assert max(deviations(found, expected_columns(model, lonely, gram=False)).values()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rounding_of_the_dtype_is_no_reason_to_fall_back(zoo, dtype):
    for name in ("llama", "gpt2", "gemma2", "cohere"):
        model = zoo.load(name, dtype=dtype)
        chosen = plan(as_encoded(EVERYTHING), model, outputs(), layout="auto")
        assert chosen.layout == "packed", (name, chosen.reason)


def test_positions_of_a_packed_row_do_not_count_its_length(zoo):
    """Eight responses make a row longer than the model has positions, while no response reaches its end."""
    model = zoo.load("gpt2")
    prompt = text("p" * 60)
    rows = tuple((prompt, text(letter * 40), None) for letter in "abcdefgh")
    case = Case(kind="responses", groups=(rows,))
    made = [StateSums(), LogProbs()]
    chosen = plan(as_encoded(case), model, made, layout="auto")
    assert chosen.layout == "packed", chosen.reason
    assert chosen.n_tokens == 60 + 8 * 39
    found = gather(run(model, chosen, made))
    deviation = deviations(found, expected_columns(model, case, gram=False))
    assert max(deviation.values()) < 1e-5, deviation
    assert np.isfinite(list(found["logp"].values())).all()

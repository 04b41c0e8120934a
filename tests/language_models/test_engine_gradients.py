"""Gradients of log-probabilities, and changes along a step, against autograd through the whole model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oracles.causal_zoo import as_callable
from oracles.engine_cases import CUT_PAIRS, EIGHT_SLOTS, FEW_PAIRS, MASKED_PAIRS, MULTI_TURN, PAIRS, as_encoded
from rankdiag.language_models import gradients, sequence_log_probs
from rankdiag.language_models._along import log_probs_along

LAYOUTS = pytest.mark.parametrize("layout", ["plain", "packed"])


def log_prob(model, row) -> torch.Tensor:
    """Sum of the counted log-probabilities of one row, with its graph."""
    prompt, response, counted = row
    logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].double()
    places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    lines = logits[places].log_softmax(dim=-1)[torch.arange(len(response)), torch.tensor(response)]
    return lines if counted is None else lines[torch.tensor(counted)]


def gradient(model, row, names) -> list[torch.Tensor]:
    wanted = [parameter for name, parameter in model.named_parameters() if name in names]
    found = torch.autograd.grad(log_prob(model, row).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, wanted, strict=True)]


def check(model, case, layout, limit, **options) -> None:
    chosen = options.get("parameters")
    wanted = chosen if callable(chosen) else lambda name, parameter: chosen is None or name in chosen
    names = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and wanted(name, parameter)
    ]
    seen = []
    for group, slots in gradients(model, as_encoded(case), layout=layout, **options):
        seen.append(int(group))
        assert len(slots) == len(case.groups[group])
        for slot, found in enumerate(slots):
            expected = gradient(model, case.fed(group, slot), names)
            assert len(found) == len(expected)
            size = max(float(line.abs().max()) for line in expected)
            for name, got, want in zip(names, found, expected, strict=True):
                assert got.shape == want.shape, name
                assert not got.requires_grad
                assert float((got - want).abs().max()) <= limit * size, (group, slot, name)
    assert seen == sorted({group for group, _, _ in case.rows()})


@LAYOUTS
@pytest.mark.parametrize("name", ["llama_tied", "gemma2"])
def test_gradients_of_every_parameter(zoo, name, layout):
    check(zoo.load(name, dtype=torch.float64), FEW_PAIRS, layout, 1e-6)


@LAYOUTS
@pytest.mark.parametrize("case", [CUT_PAIRS, MASKED_PAIRS, EIGHT_SLOTS], ids=["cut", "masked", "eight"])
def test_gradients_of_every_kind_of_group(zoo, case, layout):
    check(zoo.load("llama", dtype=torch.float64), case, layout, 1e-6)


@pytest.mark.parametrize("name", ["mistral_window", "mamba", "bloom", "opt"])
def test_gradients_where_nothing_is_packed(zoo, name):
    check(zoo.load(name), FEW_PAIRS, "auto", 2e-5)


def test_gradients_of_masked_turns(zoo):
    check(zoo.load("llama", dtype=torch.float64), MULTI_TURN, "auto", 1e-6)


def test_gradients_of_chosen_parameters(zoo):
    model = zoo.load("llama", dtype=torch.float64)
    for chosen in (["lm_head.weight"], ["model.norm.weight", "model.layers.0.mlp.up_proj.weight"],
                   lambda name, parameter: parameter.ndim == 1):  # fmt: skip
        check(model, FEW_PAIRS, "auto", 1e-6, parameters=chosen)
    with pytest.raises(ValueError, match="lm_heat"):
        next(iter(gradients(model, as_encoded(FEW_PAIRS), parameters=["lm_heat.weight"])))
    with pytest.raises(ValueError, match="parameters"):
        next(iter(gradients(model, as_encoded(FEW_PAIRS), parameters=lambda name, parameter: False)))
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        next(iter(gradients(model, as_encoded(FEW_PAIRS), parameters=["lm_head.weight"])))
    with pytest.raises(TypeError):
        next(iter(gradients(as_callable(model), as_encoded(FEW_PAIRS))))


def test_gradients_of_adapters(zoo):
    model = zoo.lora(dtype=torch.float64)
    assert 0 < sum(parameter.requires_grad for parameter in model.parameters()) < len(list(model.parameters()))
    check(model, FEW_PAIRS, "auto", 1e-6)


def test_the_head_gradient_is_the_first_order_effect_of_the_head(zoo):
    """<G+, G-> - <G+, G+> from gradients is what a small step on the pair's difference does to the chosen response."""
    model = zoo.load("llama", dtype=torch.float64)
    rows = PAIRS.fed_group(0)
    (_, ((chosen,), (rejected,))) = next(iter(gradients(model, as_encoded(FEW_PAIRS), parameters=["lm_head.weight"])))
    with torch.no_grad():
        before = float(log_prob(model, rows[0]).sum())
        model.lm_head.weight.add_(1e-6 * (chosen - rejected))
        after = float(log_prob(model, rows[0]).sum())
    rate = float((chosen * (chosen - rejected)).sum())
    assert abs((after - before) / 1e-6 - rate) < 1e-3 * abs(rate)


@LAYOUTS
def test_gradients_leave_no_trace(zoo, layout):
    model = zoo.load("gpt2", dtype=torch.float64)
    model.train()
    model.transformer.h[0].eval()
    model.transformer.ln_f.weight.requires_grad_(False)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)

    def portrait():
        parameters = [
            (name, p.requires_grad, p.detach().numpy().tobytes(), None if p.grad is None else p.grad.numpy().tobytes())
            for name, p in model.named_parameters()
        ]
        modes = [module.training for module in model.modules()]
        return parameters, modes, torch.get_rng_state().tolist(), torch.is_grad_enabled()

    before = portrait()
    evaluated = zoo.load("gpt2", dtype=torch.float64)
    evaluated.transformer.ln_f.weight.requires_grad_(False)
    (_, found), (_, expected) = (
        next(iter(gradients(one, as_encoded(FEW_PAIRS), layout=layout))) for one in (model, evaluated)
    )
    for got, want in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(got, want)  # dropout was off
    assert portrait() == before
    for _ in gradients(model, as_encoded(FEW_PAIRS), layout=layout):
        pass
    assert portrait() == before
    with torch.no_grad():
        next(iter(gradients(model, as_encoded(FEW_PAIRS), layout=layout)))
        assert not torch.is_grad_enabled()
    assert portrait() == before


def along(model, data, update, method):
    return log_probs_along(
        model, data, update, method=method, measure=lambda: np.asarray(sequence_log_probs(model, data)["logp"])
    )


def directions(model, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype) * 1e-3
        for name, parameter in model.named_parameters()
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, on its first forward mode
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("llama_tied", "jvp"),
        ("gpt2", "central"),
        ("gemma2", "auto"),
        *(
            pytest.param(name, method, marks=pytest.mark.slow)
            for name, method in (("llama_tied", "central"), ("gpt2", "jvp"), ("gemma2", "jvp"), ("gemma2", "central"))
        ),
    ],
)
def test_changes_along_a_step_are_products_with_gradients(zoo, name, method):
    model = zoo.load(name, attention="eager", dtype=torch.float64)
    update = directions(model)
    data = as_encoded(PAIRS)
    before = {key: value.numpy().tobytes() for key, value in model.state_dict().items()}
    change, _ = along(model, data, update, method)
    assert {key: value.numpy().tobytes() for key, value in model.state_dict().items()} == before
    places = list(zip(data.group.tolist(), data.slot.tolist(), strict=True))
    rows = {(group, slot): row for group, slot, row in PAIRS.rows()}
    names = list(update)
    expected = {
        place: sum(float((g * update[n]).sum()) for g, n in zip(gradient(model, row, names), names, strict=True))
        for place, row in rows.items()
    }
    size = max(map(abs, expected.values()))
    for place, value in zip(places, change, strict=True):
        if place in expected:
            assert abs(value - expected[place]) < (1e-6 if method == "jvp" else 3e-4) * size, place
        else:
            assert np.isnan(value)


def test_a_step_that_fails_half_way_leaves_the_parameters(zoo):
    model = zoo.load("llama", dtype=torch.float64)
    before = {key: value.numpy().tobytes() for key, value in model.state_dict().items()}
    calls = []

    def measure():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return np.asarray(sequence_log_probs(model, as_encoded(FEW_PAIRS))["logp"])

    with pytest.raises(KeyboardInterrupt):
        log_probs_along(model, as_encoded(FEW_PAIRS), directions(model), method="central", measure=measure)
    assert {key: value.numpy().tobytes() for key, value in model.state_dict().items()} == before


@pytest.mark.parametrize(
    ("update", "word"),
    [
        ({"nothing.weight": torch.ones(2)}, "nothing"),
        ({"lm_head.weight": torch.ones(3)}, "lm_head"),
        ({"model.norm.weight": torch.full((32,), float("nan"))}, r"model\.norm"),
        ({"model.norm.weight": torch.zeros(32)}, "zero"),
    ],
)
def test_steps_that_are_none(zoo, update, word):
    with pytest.raises(ValueError, match=word):
        along(zoo.load("llama"), as_encoded(FEW_PAIRS), update, "auto")

"""A run leaves the model and the process as it found them, also when it ends early."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch

from oracles.engine_cases import PAIRS, as_encoded, gather
from oracles.engine_oracle import deviations, expected_columns
from rankdiag.language_models import HeadGram, LastState, LogProbs, StateSums, TokenStats, plan, run

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def outputs():
    return [StateSums(), LastState(), LogProbs(), TokenStats(), HeadGram()]


def portrait(model) -> dict:
    """Everything about a model that a run might change."""
    found: dict = {"config": model.config.to_dict(), "attention": model.config._attn_implementation}
    for name, module in model.named_modules():
        found["training", name] = module.training
        found["attributes", name] = sorted(vars(module))
        found["forward", name] = vars(module).get("forward")
        for kind in HOOKS:
            found[kind, name] = list(getattr(module, kind).items())
    for name, parameter in (*model.named_parameters(), *model.named_buffers()):
        found["data", name] = (
            parameter.data_ptr(),
            parameter.dtype,
            parameter.requires_grad,
            parameter.is_inference(),
            parameter.detach().view(torch.uint8).numpy().tobytes(),
        )
        found["grad", name] = None if parameter.grad is None else parameter.grad.clone().numpy().tobytes()
    return found


def world() -> tuple:
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),  # noqa: NPY002 - it is the global state that is watched
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.backends.cuda.math_sdp_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.fixture
def lived_in(zoo):
    """A model in the middle of somebody's work: mixed modes, frozen parts, gradients, a hook."""
    model = zoo.load("llama")
    model.train()
    model.model.layers[0].eval()
    model.model.layers[1].mlp.eval()
    model.model.norm.weight.requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    model.model.layers[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_a_whole_run_leaves_no_trace(lived_in, layout):
    before, around = portrait(lived_in), world()
    found = gather(run(lived_in, plan(as_encoded(PAIRS), lived_in, outputs(), layout=layout), outputs()))
    assert portrait(lived_in) == before
    assert world() == around
    assert found


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_planning_leaves_no_trace(lived_in, layout):
    before, around = portrait(lived_in), world()
    plan(as_encoded(PAIRS), lived_in, outputs(), layout=layout)
    assert portrait(lived_in) == before
    assert world() == around


@pytest.mark.parametrize("layout", ["packed"])
def test_an_abandoned_run_leaves_no_trace(lived_in, layout):
    planned = plan(as_encoded(PAIRS), lived_in, outputs(), layout=layout, token_budget=1)
    before, around = portrait(lived_in), world()
    stream = run(lived_in, planned, outputs())
    next(stream)
    next(stream)
    assert world() == around, "nothing of the run reaches what its reader does between two batches"
    stream.close()
    assert portrait(lived_in) == before
    stream = run(lived_in, planned, outputs())
    next(stream)
    del stream
    gc.collect()
    assert portrait(lived_in) == before
    assert world() == around


def test_a_run_that_is_never_started_leaves_no_trace(lived_in):
    planned = plan(as_encoded(PAIRS), lived_in, outputs())
    before = portrait(lived_in)
    stream = run(lived_in, planned, outputs())
    assert portrait(lived_in) == before
    del stream
    assert portrait(lived_in) == before


class Trouble(Exception):
    pass


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_an_error_in_the_middle_leaves_no_trace(lived_in, layout):
    planned = plan(as_encoded(PAIRS), lived_in, outputs(), layout=layout, token_budget=1)
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 3:
            raise Trouble

    handle = lived_in.model.layers[1].register_forward_pre_hook(fail)
    before, around = portrait(lived_in), world()
    with pytest.raises(Trouble):
        list(run(lived_in, planned, outputs()))
    assert len(calls) == 3
    assert portrait(lived_in) == before
    assert world() == around
    handle.remove()


def test_an_error_of_the_reduction_leaves_no_trace(lived_in):
    planned = plan(as_encoded(PAIRS), lived_in, outputs(), token_budget=1)
    before, around = portrait(lived_in), world()

    def reduce(columns):
        raise Trouble

    with pytest.raises(Trouble):
        list(run(lived_in, planned, outputs(), reduce=reduce))
    assert portrait(lived_in) == before
    assert world() == around


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_dropout_is_off_during_the_run_and_on_afterwards(zoo, name):
    model = zoo.load(name)
    expected = expected_columns(model, PAIRS, gram=False)
    model.train()
    ids = torch.tensor([PAIRS.groups[0][0][0]])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits), "dropout is on"
    for layout in ("plain", "packed"):
        made = outputs()[:4]
        found = gather(run(model, plan(as_encoded(PAIRS), model, made, layout=layout), made))
        assert max(deviations(found, expected).values()) < 1e-5
    assert all(module.training for module in model.modules())


def test_training_may_go_on_between_two_batches(zoo):
    """A reader that trains while it reads is not caught in inference mode, and its tensors are ordinary ones."""
    model = zoo.load("llama")
    planned = plan(as_encoded(PAIRS), model, [StateSums()], token_budget=1)
    for _ in run(model, planned, [StateSums()]):
        out = model(input_ids=torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]]))
        out.loss.backward()
        assert model.lm_head.weight.grad is not None
        model.zero_grad()


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_a_run_inside_other_modes_keeps_them(zoo, layout):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    planned = plan(as_encoded(PAIRS), model, outputs(), layout=layout)
    for around in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with around():
            kept = world()
            found = gather(run(model, planned, outputs()))
            assert world() == kept
        assert max(deviations(found, expected).values()) < 1e-5


def test_two_interleaved_runs_do_not_disturb_each_other(lived_in):
    before = portrait(lived_in)
    planned = plan(as_encoded(PAIRS), lived_in, [StateSums()], token_budget=1)
    alone = gather(run(lived_in, planned, [StateSums()]))
    first, second = run(lived_in, planned, [StateSums()]), run(lived_in, planned, [StateSums()])
    pairs = list(zip(first, second, strict=True))
    for side in (0, 1):
        assert max(deviations(gather(pair[side] for pair in pairs), alone).values()) == 0
    assert portrait(lived_in) == before


@pytest.mark.changes_global_state("torch default dtype")
def test_default_dtype_of_the_process_is_no_influence(zoo):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    torch.set_default_dtype(torch.float64)
    try:
        found = gather(run(model, plan(as_encoded(PAIRS), model, outputs()), outputs()))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert max(deviations(found, expected).values()) < 1e-5


def test_inputs_are_not_written_to(zoo):
    model = zoo.load("llama")
    data = as_encoded(PAIRS)
    frozen = [array.copy() for array in (*data.prompts, *data.response_ids, data.group, data.slot, data.prompt_start)]
    for array in (*data.prompts, *data.response_ids, data.group, data.slot, data.prompt_start):
        array.flags.writeable = False
    gather(run(model, plan(data, model, outputs()), outputs()))
    for old, new in zip(
        frozen, (*data.prompts, *data.response_ids, data.group, data.slot, data.prompt_start), strict=True
    ):
        np.testing.assert_array_equal(old, new)

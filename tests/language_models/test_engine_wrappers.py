"""Models as people hold them: adapted, compiled, prepared, wrapped, or no module at all."""

from __future__ import annotations

import pytest
import torch

from oracles.causal_zoo import Wrapped, as_callable
from oracles.engine_cases import EVERYTHING, PAIRS, as_encoded, gather
from oracles.engine_oracle import deviations, expected_columns
from rankdiag.language_models import HeadGram, LastState, LogProbs, StateSums, TokenStats, plan, run

LAYOUTS = pytest.mark.parametrize("layout", ["plain", "packed"])


def outputs():
    return [StateSums(), LastState(), LogProbs(per_token=True), TokenStats(), HeadGram()]


def measure(model, case, layout, made=outputs):
    return gather(run(model, plan(as_encoded(case), model, made(), layout=layout), made()))


@LAYOUTS
def test_adapters_stay_active(zoo, layout):
    model = zoo.lora()
    expected = expected_columns(model, PAIRS, gram=False)
    found = measure(model, PAIRS, layout)
    assert max(deviations(found, expected).values()) < 1e-5
    plain = measure(zoo.load("llama"), PAIRS, layout)
    assert deviations({"sum": plain["sum"]}, expected)["sum"] > 1e-2  # the adapters do something


def test_a_disabled_adapter_is_the_base_model(zoo):
    model = zoo.lora()
    with model.disable_adapter():
        found = measure(model, PAIRS, "plain")
    assert max(deviations(found, expected_columns(zoo.load("llama"), PAIRS)).values()) < 1e-5


@LAYOUTS
def test_the_module_behind_a_wrapper_is_found(zoo, layout):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    for wrapped in (Wrapped(model), Wrapped(Wrapped(model))):
        assert max(deviations(measure(wrapped, PAIRS, layout), expected).values()) < 1e-5


def test_a_wrapped_adapted_model(zoo):
    model = zoo.lora()
    found = measure(Wrapped(model), PAIRS, "auto")
    assert max(deviations(found, expected_columns(model, PAIRS, gram=False)).values()) < 1e-5


@pytest.mark.slow
@LAYOUTS
@pytest.mark.changes_global_state("python random state", "numpy random state", "warning filters")
def test_a_compiled_model(zoo, layout):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    compiled = torch.compile(model, backend="eager")
    assert max(deviations(measure(compiled, PAIRS, layout), expected).values()) < 1e-5


@pytest.mark.slow
def test_a_prepared_model(zoo):
    accelerate = pytest.importorskip("accelerate")
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    prepared = accelerate.Accelerator(cpu=True).prepare(model)
    assert max(deviations(measure(prepared, PAIRS, "auto"), expected).values()) < 1e-5


@pytest.mark.slow
def test_a_distributed_data_parallel_model(zoo, tmp_path):
    import torch.distributed as dist

    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        assert max(deviations(measure(wrapped, PAIRS, "auto"), expected).values()) < 1e-5
    finally:
        dist.destroy_process_group()


@LAYOUTS
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_plain_callable_gives_states(zoo, name, layout):
    model = zoo.load(name)
    found = measure(as_callable(model), EVERYTHING, layout, lambda: [StateSums(), LastState()])
    assert max(deviations(found, expected_columns(model, EVERYTHING, gram=False)).values()) < 1e-5


def test_a_plain_callable_has_no_head(zoo):
    states = as_callable(zoo.load("llama"))
    for made in ([LogProbs()], [TokenStats()], [HeadGram()]):
        with pytest.raises(ValueError, match=r"(?i)output embeddings|output projection|unembedding|head"):
            plan(as_encoded(PAIRS), states, made)


def test_a_backbone_gives_states_and_has_no_head(zoo):
    backbone = zoo.backbone("llama")
    found = measure(backbone, PAIRS, "auto", lambda: [StateSums()])
    assert max(deviations(found, expected_columns(zoo.load("llama"), PAIRS, gram=False)).values()) < 1e-5
    with pytest.raises(ValueError, match=r"(?i)output embeddings|output projection|unembedding|head"):
        plan(as_encoded(PAIRS), backbone, [LogProbs()])


def test_autocast_is_used_where_asked_for_and_only_there(zoo):
    model = zoo.load("llama")
    expected = expected_columns(model, PAIRS, gram=False)
    made = [StateSums()]
    planned = plan(as_encoded(PAIRS), model, made, layout="plain")
    found = gather(run(model, planned, made, autocast=torch.bfloat16))
    deviation = deviations(found, expected)["sum"]
    assert 1e-4 < deviation < 0.06
    assert deviations(gather(run(model, planned, made)), expected)["sum"] < 1e-5
    assert not torch.is_autocast_enabled("cpu")

"""What tells models apart: an edit of any tensor is seen, and nothing else is."""

from __future__ import annotations

import json

import pytest
import torch

from rankdiag.language_models import model_fingerprint
from rankdiag.testing import tiny_language_model


def test_an_edit_of_every_single_tensor_is_seen():
    model = tiny_language_model()
    before = model_fingerprint(model)
    assert json.loads(json.dumps(before)) == before
    for _, tensor in model.named_parameters():
        with torch.no_grad():
            kept = tensor.clone()
            tensor.view(-1)[-1] += 0.5
            after = model_fingerprint(model)
            tensor.copy_(kept)
        assert {name for name in before if before[name] != after[name]} == {"weights"}
    assert model_fingerprint(model) == before


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers
def test_one_adapter_weight_is_seen():
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    with torch.random.fork_rng(devices=[]):
        base = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_attention_heads=2, **sizes))
        model = peft.get_peft_model(base, peft.LoraConfig(r=40, target_modules=["q_proj"]))
    before = model_fingerprint(model)
    name, tensor = next((name, tensor) for name, tensor in model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        tensor[3, 33] = 1e-6  # one of 640
    assert model_fingerprint(model)["weights"] != before["weights"], name


def test_gradients_mode_and_random_state_are_left_alone():
    model = tiny_language_model().train()
    state = torch.get_rng_state()
    before = model_fingerprint(model)
    assert model_fingerprint(model.eval()) == before
    assert torch.equal(state, torch.get_rng_state())

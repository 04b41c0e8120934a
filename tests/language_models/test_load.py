"""Loading from folders: what comes back, and what is refused in words."""

from __future__ import annotations

import sys

import pytest
import torch

from oracles.scoring_worker import build
from rankdiag.language_models import load_language_model

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))  # the builder adds to it
    with torch.random.fork_rng(devices=[]):
        build(tmp_path)
    return tmp_path / "model"


def test_a_saved_model_comes_back_in_evaluation_mode(folder):
    model, tokenizer = load_language_model(folder, dtype="float64", attn_implementation="eager")
    assert not any(module.training for module in model.modules())
    assert (model.dtype, model.config._attn_implementation) == (torch.float64, "eager")
    assert tokenizer("a kite")["input_ids"]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers
def test_an_adapter_is_put_on(folder, tmp_path):
    peft = pytest.importorskip("peft")
    base = load_language_model(folder).model
    with torch.random.fork_rng(devices=[]):
        tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, tensor in tuned.named_parameters():
            if "lora_B" in name:
                tensor.fill_(0.25)
    tuned.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    state = torch.get_rng_state()
    loaded = load_language_model(folder, adapter=tmp_path / "adapter").model
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        found = loaded(ids).logits
        torch.testing.assert_close(found, tuned.eval()(ids).logits)
        assert not torch.allclose(found, load_language_model(folder).model(ids).logits)


def test_folders_without_a_part(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` must be a folder that exists"):
        load_language_model(tmp_path / "none")
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises((FileNotFoundError, ValueError), match="tokenizer"):
        load_language_model(folder)


def test_pickled_weights_are_refused(folder):
    model = load_language_model(folder).model
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="in a pickle"):
        load_language_model(folder)


@pytest.mark.parametrize("size", [0, 4, 200])
def test_damaged_weights_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="safetensors"):
        load_language_model(folder)


def test_an_encoder_decoder_is_refused(tmp_path):
    transformers.T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'t5' .* has an encoder"):
        load_language_model(tmp_path)

"""Checkpoints as transformers and peft write them, against the tensors that these libraries hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rankdiag.checkpoints import CheckpointError, open_source

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def llama():
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_saved_by_transformers(tmp_path, llama, max_shard_size):
    llama.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    state = llama.state_dict()
    with open_source(tmp_path) as disk, open_source(llama) as memory:
        assert disk.format == ("safetensors" if max_shard_size == "1GB" else "sharded")
        assert len(disk.files) == len(list(tmp_path.glob("*.safetensors")))
        assert disk.config["num_key_value_heads"] == memory.config["num_key_value_heads"] == 2
        owners = {info.name for info in memory.tensors if info.alias_of is None}
        assert {info.name for info in disk.tensors} == owners
        assert memory.info("lm_head.weight").alias_of == "model.embed_tokens.weight"
        assert memory.module_kind("model.layers.0.input_layernorm.weight") == "LlamaRMSNorm"
        for info in disk.tensors:
            other = memory.info(info.name)
            assert (info.shape, info.dtype, info.nbytes) == (other.shape, other.dtype, other.nbytes)
            np.testing.assert_array_equal(disk.read(info.name), state[info.name].float())
            np.testing.assert_array_equal(memory.read(info.name), state[info.name].float())


def test_every_shard_of_a_saved_model_is_needed(tmp_path, llama):
    llama.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    for path in sorted(tmp_path.glob("*.safetensors")):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=path.name):
            open_source(tmp_path)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=rf"names the file '{path.name}' for tensor '") as caught:
            open_source(tmp_path)
        assert any(repr(name) in str(caught.value) for name, file in index["weight_map"].items() if file == path.name)
        path.write_bytes(whole)
    open_source(tmp_path).close()


def test_saved_pickles_are_refused(tmp_path, llama):
    llama.config.save_pretrained(tmp_path)
    torch.save(llama.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin.* whose weights are pickles|whose weights are pickles"):
        open_source(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning"
)  # peft asks transformers by the old name
def test_saved_by_peft(tmp_path, llama):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(transformers.LlamaForCausalLM(llama.config), config)
    model.save_pretrained(tmp_path)
    expected = load_file(tmp_path / "adapter_model.safetensors")
    with open_source(tmp_path) as source:
        assert source.format == "adapter"
        assert (source.config["r"], source.config["lora_alpha"]) == (4, 8)
        assert {info.name for info in source.tensors} == set(expected)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(source.read(name), tensor)
    with open_source(model) as source:
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
        assert source.module_kind(name) == "Linear"
        assert source.module_kind("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight") == "Linear"
        assert source.config["model_type"] == "llama"


def test_a_model_that_transformers_made_on_meta(llama):
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(llama.config)
    with pytest.raises(ValueError, match="Pass the path of the checkpoint"):
        open_source(model)

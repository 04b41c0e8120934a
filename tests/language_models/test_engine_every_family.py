"""Causal models of transformers built small from one set of sizes: none may be wrong, whatever layout is chosen."""

from __future__ import annotations

import pytest
import torch

from oracles.causal_zoo import EOS, fill, quiet
from oracles.engine_cases import EIGHT_SLOTS, PAIRS, as_encoded, gather, together
from oracles.engine_oracle import deviations, expected_columns
from rankdiag.language_models import LogProbs, StateSums, plan, run

CASE = together(PAIRS, EIGHT_SLOTS)
SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "n_embd": 32,
    "d_model": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "max_seq_len": 128,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "rotary_dim": 4,
    "state_size": 4,
    "time_step_rank": 4,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "query_pre_attn_scalar": 8,
    "lru_width": 32,
}
# Model -> layout that "auto" must choose, and what its configuration needs beside the sizes; an option None is left out
# of the sizes. Two layers, one of each kind where a model mixes kinds.
MODELS = {
    "Afmoe": ("packed", {}),
    "Apertus": ("packed", {}),
    "BioGpt": ("packed", {}),
    "BitNet": ("packed", {}),
    "CTRLLMHead": ("packed", {}),
    "CodeGen": ("packed", {}),
    "Cohere2": ("packed", {}),
    "DeepseekV3": ("packed", {"num_key_value_heads": 4, "head_dim": None}),
    "DiffLlama": ("packed", {}),
    "Ernie4_5": ("packed", {}),
    "Exaone4": ("packed", {}),
    "Falcon": ("packed", {"alibi": False, "head_dim": None}),
    "GPTBigCode": ("packed", {}),
    "GPTJ": ("packed", {}),
    "GPTNeoXJapanese": ("packed", {}),
    "Gemma": ("packed", {}),
    "Glm4": ("packed", {}),
    "Glm4Moe": ("packed", {}),
    "GptOss": ("packed", {}),
    "GraniteMoe": ("packed", {}),
    "Helium": ("packed", {}),
    "JetMoe": ("packed", {}),
    "MiniMaxM2": ("packed", {}),
    "Mixtral": ("packed", {}),
    "Nemotron": ("packed", {"num_key_value_heads": 2}),
    "Olmo": ("packed", {}),
    "Olmo2": ("packed", {}),
    "Olmo3": ("packed", {}),
    "Olmoe": ("packed", {}),
    "Persimmon": ("packed", {}),
    "Phi": ("packed", {}),
    "Phi3": ("packed", {}),
    "Phimoe": ("packed", {}),
    "Qwen2Moe": ("packed", {}),
    "Qwen3Moe": ("packed", {}),
    "SeedOss": ("packed", {}),
    "SmolLM3": ("packed", {}),
    "StableLm": ("packed", {}),
    "Starcoder2": ("packed", {}),
    "VaultGemma": ("packed", {}),
    "XGLM": ("packed", {}),
    "Falcon ALiBi": ("plain", {"alibi": True, "head_dim": None}),
    "Mpt": ("plain", {}),
    "OpenAIGPTLMHead": ("plain", {}),
    "Rwkv": ("plain", {}),
    "FalconMamba": ("plain", {}),
    "GPTNeo": ("plain", {"attention_types": [[["global", "local"], 1]], "window_size": 8}),
    "Bamba": ("plain", {"attn_layer_indices": [1]}),
    "Jamba": ("plain", {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}),
    "Lfm2": ("plain", {"layer_types": ["conv", "full_attention"]}),
    "MiniMax": ("plain", {"layer_types": ["linear_attention", "full_attention"]}),
    "ModernBertDecoder": ("plain", {"layer_types": ["sliding_attention", "full_attention"]}),
    "Qwen3Next": ("plain", {"layer_types": ["linear_attention", "full_attention"]}),
    "RecurrentGemma": ("plain", {}),
}
ALWAYS = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")


def build(name: str, options: dict):
    """Build one model of transformers with whatever of `SIZES` its configuration knows."""
    quiet()
    import transformers as tf

    stem = name.split()[0]
    kind = getattr(tf, f"{stem}Model" if stem.endswith("LMHead") else f"{stem}ForCausalLM", None)
    if kind is None:
        pytest.skip(f"transformers {tf.__version__} has no {stem}")
    plain = kind.config_class()
    sizes = SIZES | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
    known = {key: value for key, value in sizes.items() if key in ALWAYS or getattr(plain, key, None) is not None}
    known = {key: value for key, value in known.items() if not _read_only(type(plain), key)} | options
    config = kind.config_class(**{key: value for key, value in known.items() if value is not None})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fill(kind(config)).eval()


def _read_only(kind: type, key: str) -> bool:
    found = getattr(kind, key, None)
    return isinstance(found, property) and found.fset is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what old models say about themselves
@pytest.mark.parametrize("name", MODELS)
def test_every_causal_model_is_right(name):
    layout, options = MODELS[name]
    model = build(name, options)
    outputs = [StateSums(), LogProbs()]
    planned = plan(as_encoded(CASE), model, outputs, token_budget=300)
    assert planned.layout == layout, planned.reason
    assert planned.reason
    deviation = deviations(gather(run(model, planned, outputs)), expected_columns(model, CASE, gram=False))
    assert max(deviation.values()) < 1e-5, deviation


def test_chunked_attention_is_not_packed_and_its_network_is_found():
    model = build("Llama4", {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 8,
                             "moe_layers": [1], "intermediate_size_mlp": 48})  # fmt: skip
    outputs = [StateSums(), LogProbs()]
    planned = plan(as_encoded(CASE), model, outputs)
    assert planned.layout == "plain"
    deviation = deviations(gather(run(model, planned, outputs)), expected_columns(model, CASE, gram=False))
    assert max(deviation.values()) < 1e-5, deviation


BERT = {"is_decoder": False}


@pytest.mark.parametrize("layout", ["auto", "plain"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("BertLMHead", BERT), ("MegatronBert", BERT), ("Gemma3", {"use_bidirectional_attention": True})],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_read_ahead_are_refused(name, options, layout):
    """A state that has read the response says nothing about what the model would answer."""
    model = build(name, options)
    with pytest.raises(ValueError, match=r"(?i)causal|later tokens|reads? ahead"):
        plan(as_encoded(CASE), model, [StateSums()], layout=layout)


@pytest.mark.parametrize("layout", ["auto", "plain"])
@pytest.mark.parametrize("name", ["Roberta", "Camembert", "Data2VecText"])
def test_positions_are_those_that_the_model_would_take_itself(name, layout):
    """These count positions from behind the padding index, when nobody tells them otherwise."""
    model = build(name, {"is_decoder": True})
    planned = plan(as_encoded(CASE), model, [StateSums()], layout=layout)
    deviation = deviations(gather(run(model, planned, [StateSums()])), expected_columns(model, CASE, gram=False))
    assert max(deviation.values()) < 1e-5, deviation


@pytest.mark.parametrize("layout", ["auto", "plain"])
def test_factors_that_depend_on_the_longest_row(layout):
    """Rotary factors change for every row of a forward once its longest one passes a limit: none may ride along."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 4.0, 8.0, 16.0],
        "original_max_position_embeddings": 32,
        "factor": 4.0,
    }
    model = build("Phi3", {"original_max_position_embeddings": 32, "rope_parameters": rope, "head_dim": None})
    lengths = {len(prompt) + len(response) for _, _, (prompt, response, _) in CASE.rows()}
    assert 33 not in lengths  # there, feeding the last token or not makes the difference
    assert min(lengths) < 32 < max(lengths)
    outputs = [StateSums(), LogProbs()]
    for budget in (1, 100, 10**6):
        planned = plan(as_encoded(CASE), model, outputs, layout=layout, token_budget=budget)
        deviation = deviations(gather(run(model, planned, outputs)), expected_columns(model, CASE, gram=False))
        assert max(deviation.values()) < 1e-5, (budget, deviation)

"""Tiny causal language models of many families, with weights that are the same on every run."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

VOCAB = 256
POSITIONS = 128
EOS = 2

_LLAMA_LIKE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is built, and what the shared-prompt layout may do with it.

    `packed` is True where one row may hold a prompt with several responses; else a word that the reason must hold.
    """

    name: str
    model: str
    config: str
    options: dict[str, Any] = field(default_factory=dict)
    attention: tuple[str, ...] = ("sdpa", "eager")
    packed: bool | str = True


def _llama_like(
    name: str, model: str, *, config: str = "", packed: bool | str = True, attention=("sdpa", "eager"), **options
) -> Family:
    config = f"{config or model}Config"
    return Family(name, f"{model}ForCausalLM", config, _LLAMA_LIKE | _IDS | options, attention, packed)


_SMALL_GPT = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS} | _IDS
_OPT = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "dropout": 0.1,
} | _IDS
_BLOOM = {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": POSITIONS} | _IDS
_MAMBA = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4} | _IDS

FAMILIES = {
    family.name: family
    for family in (
        _llama_like("llama", "Llama"),
        _llama_like("llama_tied", "Llama", tie_word_embeddings=True),
        _llama_like("qwen2", "Qwen2"),
        _llama_like("qwen3", "Qwen3", head_dim=8),
        _llama_like("mistral_window", "Mistral", sliding_window=8, packed="window"),
        _llama_like("mistral_wide", "Mistral", sliding_window=4096),
        _llama_like(
            "gemma2",
            "Gemma2",
            head_dim=8,
            query_pre_attn_scalar=8,
            final_logit_softcapping=3.0,
            attn_logit_softcapping=2.0,
            sliding_window=4096,
            attention=("eager",),
        ),
        _llama_like(
            "gemma3_window",
            "Gemma3",
            config="Gemma3Text",
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            packed="window",
        ),
        _llama_like(
            "gemma3_wide", "Gemma3", config="Gemma3Text", head_dim=8, query_pre_attn_scalar=8, sliding_window=4096
        ),
        _llama_like("cohere", "Cohere", logit_scale=0.25),
        _llama_like(
            "granite",
            "Granite",
            logits_scaling=3.0,
            embedding_multiplier=2.0,
            residual_multiplier=0.5,
            attention_multiplier=0.3,
        ),
        Family("gpt2", "GPT2LMHeadModel", "GPT2Config", _SMALL_GPT),
        _llama_like("gpt_neox", "GPTNeoX", rotary_pct=0.5),
        Family("opt", "OPTForCausalLM", "OPTConfig", _OPT),
        Family("opt_projected", "OPTForCausalLM", "OPTConfig", _OPT | {"word_embed_proj_dim": 16}),
        Family("bloom", "BloomForCausalLM", "BloomConfig", _BLOOM, attention=("eager",), packed="position"),
        Family("mamba", "MambaForCausalLM", "MambaConfig", _MAMBA, attention=("none",), packed="position"),
    )
}


def quiet() -> None:
    """Keep transformers from writing progress and advice into the output of a test run."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers as tf

    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def fill(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fill all parameters from one seed, large enough that every layer, gate, bias and cap matters."""
    generator = torch.Generator().manual_seed(seed)
    head = None
    with contextlib.suppress(AttributeError, NotImplementedError):
        head = model.get_output_embeddings()
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim < 2 or name.endswith("A_log"):
                parameter.add_((0.2 * noise).to(parameter.dtype))  # around ones and zeros: norms, biases, decays
            elif "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
                parameter.copy_(0.35 * noise)
            elif head is not None and parameter is head.weight:
                parameter.copy_(2.0 / parameter.shape[1] ** 0.5 * noise)
            else:
                parameter.copy_(1.2 / parameter.shape[-1] ** 0.5 * noise)
    return model


class Zoo:
    """Models by family name, written once to a folder with `save_pretrained` and read back with the Auto classes.

    Every call of `load` gives a new object, in eval mode, so a test may do to it what it likes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._read: dict[tuple, Any] = {}

    def path(self, name: str, seed: int = 0, **changes: Any) -> Path:
        """Folder of the saved checkpoint of a family, built on first use; `changes` are options of its config."""
        import transformers as tf

        quiet()
        tag = "-".join([name, str(seed), *(f"{key}={value}" for key, value in sorted(changes.items()))])
        path = self.folder / tag
        if not (path / "config.json").exists():
            family = FAMILIES[name]
            config = getattr(tf, family.config)(**family.options | changes)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = fill(getattr(tf, family.model)(config), seed)
            model.tie_weights()
            model.save_pretrained(path)
        return path

    def load(
        self, name: str, *, attention: str | None = None, dtype: torch.dtype = torch.float32, seed: int = 0, **changes
    ) -> Any:
        """Read a family back as a causal language model; a second one of the same kind is copied from the first."""
        import transformers as tf

        path = self.path(name, seed, **changes)
        attention = attention or FAMILIES[name].attention[0]
        key = (path, attention, dtype)
        if key not in self._read:
            options = {} if attention == "none" else {"attn_implementation": attention}
            with torch.random.fork_rng(devices=[]):
                self._read[key] = tf.AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options).eval()
        return copy.deepcopy(self._read[key])

    def backbone(self, name: str) -> Any:
        """Read a family back without its output projection."""
        import transformers as tf

        return tf.AutoModel.from_pretrained(self.path(name)).eval()

    def lora(self, name: str = "llama", *, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Any:
        """Wrap a family with LoRA adapters whose weights are not zero."""
        import peft

        base = self.load(name, dtype=dtype, attention=attention)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what peft asks of transformers is going to be renamed
            model = peft.get_peft_model(
                base,
                peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.1),
            )
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for key, parameter in sorted(model.named_parameters()):
                if "lora_" in key:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(noise / parameter.shape[1] ** 0.5)
        return model.eval()


class Wrapped(torch.nn.Module):
    """What data-parallel wrappers look like from outside: the model stands in `.module`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.module(*arguments, **options)


def as_callable(model: Any):
    """Return a plain function from ids, mask and positions to states."""
    backbone = model.base_model

    def states(input_ids, attention_mask, position_ids):
        return backbone(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        ).last_hidden_state

    return states


def most_different_first(names=tuple(FAMILIES)):
    """Parametrise over families; those that differ from another one in little wait for the slow run."""
    import pytest

    alike = {"llama_tied", "qwen2", "mistral_wide", "gemma3_wide", "granite", "gpt_neox", "opt_projected"}
    return [pytest.param(name, marks=pytest.mark.slow) if name in alike else name for name in names]

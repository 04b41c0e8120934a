"""Small trainings for the tests of the monitors: a tiny Llama, a tiny tokenizer, pairs written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from oracles.tiny_tokenizer import tiny_tokenizer

_WRITTEN = (
    ("How do I keep bread fresh?", " Wrap it in a cloth and keep it in a dry box.", " Put it in water."),
    ("Why is the sky blue?", " Air scatters blue light more than red light.", " Because the sea is blue."),
    ("Name a prime number.", " Seven is a prime number.", " Nine is a prime number."),
    ("What does a compiler do?", " It turns source text into machine code.", " It deletes the source text."),
    ("May I share my password?", " No. Nobody needs it but you.", " Yes, with everyone who asks."),
    ("How many legs has a spider?", " Eight.", " Six."),
    ("Who wrote this sentence?", " Somebody who needed a test.", " Nobody at all."),
    ("Is water wet?", " It makes other things wet.", " It is dry."),
    ("Give me a word for cold.", " Chilly.", " Sunny."),
    ("Which month comes after May?", " June.", " March."),
    ("How do I open a file in Python?", " with open(path) as stream: ...", " close(path)"),
    ("What is a list?", " A sequence of objects that can grow.", " A number."),
)


def pairs() -> list[dict[str, str]]:
    """Return 32 preference pairs as text."""
    sums = [
        {
            "prompt": f"What is {a} plus {b}?",
            "chosen": f" {a} plus {b} is {a + b}.",
            "rejected": f" {a} plus {b} is {a + b + 1}.",
        }
        for a, b in ((n, 3 * n % 7) for n in range(2, 22))
    ]
    return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in _WRITTEN] + sums


def many_pairs() -> list[dict[str, str]]:
    """Return more pairs than one forward holds, the last one unusable."""
    more = [{**pair, "prompt": f"{turn}. {pair['prompt']}"} for turn in range(3) for pair in pairs()]
    return [*more, {"prompt": "Say nothing.", "chosen": " x", "rejected": " x"}]


def save_model(folder: Path, *, dropout: float = 0.0) -> Path:
    """Write a tiny Llama with its tokenizer to a folder, so that a trainer can load it and its reference."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def plain_sums(model: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sum log-probabilities in the plainest way: one sequence at a time, all logits, float64."""
    was = {name: module.training for name, module in model.named_modules()}
    model.eval()
    found: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for pair in range(len(data)):
            prompt = [int(token) for token in data.prompt_ids[pair]]
            for side, ids in enumerate((data.chosen_ids[pair], data.rejected_ids[pair])):
                response = [int(token) for token in ids]
                if data.status[pair] != "ok":
                    found[side].append(float("nan"))
                    continue
                logits = model(input_ids=torch.tensor([prompt + response])).logits[0].double()
                logp = torch.log_softmax(logits, dim=-1)
                where = torch.arange(len(response)) + len(prompt) - 1
                found[side].append(float(logp[where, torch.tensor(response)].sum()))
    for name, module in model.named_modules():
        module.training = was[name]
    return np.array(found[0]), np.array(found[1])


def dpo_arguments(folder: Path, **options: Any) -> Any:
    """Return arguments of a DPO run that touches no network, no tracker and no progress bar."""
    from trl import DPOConfig

    settings = {
        "max_steps": 20,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-4,
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "activation_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "beta": 0.1,
        "seed": 3,
    }
    return DPOConfig(output_dir=str(folder), **{**settings, **options})


def dpo_trainer(model_folder: Path, folder: Path, *, model: Any = None, **options: Any) -> Any:
    """Return a real DPO trainer of TRL on the pairs of this module."""
    from datasets import Dataset
    from trl import DPOTrainer

    extra = {
        key: options.pop(key) for key in ("callbacks", "peft_config", "eval_dataset", "ref_model") if key in options
    }
    return DPOTrainer(
        model=load_model(model_folder) if model is None else model,
        args=dpo_arguments(folder, **options),
        train_dataset=Dataset.from_list(pairs()),
        processing_class=tiny_tokenizer(),
        **extra,
    )


def plain_trainer(
    model_folder: Path,
    folder: Path,
    *,
    steps: int = 10,
    eval_every: int | None = None,
    save_every: int | None = None,
    callbacks: list[Any] | None = None,
    model: Any = None,
    **options: Any,
) -> Any:
    """Return the plain trainer of transformers, imitating the chosen responses."""
    from transformers import Trainer, TrainingArguments

    tokenizer = tiny_tokenizer()
    rows = []
    for pair in pairs():
        ids = tokenizer(pair["prompt"] + pair["chosen"], max_length=32, truncation=True, padding="max_length")
        seen = torch.tensor(ids.attention_mask)
        tokens = torch.tensor(ids.input_ids)
        rows.append({"input_ids": tokens, "attention_mask": seen, "labels": tokens.masked_fill(seen == 0, -100)})
    settings = {
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 5,
        "eval_strategy": "no" if eval_every is None else "steps",
        "eval_steps": eval_every,
        "save_strategy": "no" if save_every is None else "steps",
        "save_steps": save_every or 500,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
    }
    return Trainer(
        model=load_model(model_folder) if model is None else model,
        args=TrainingArguments(output_dir=str(folder), **{**settings, **options}),
        train_dataset=rows[:24],
        eval_dataset=rows[24:],
        callbacks=callbacks,
    )


class Reporter(TrainerCallback):
    """Keeps what a tracker would be sent; may end training, and counts what comes after it was told that it ended."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[dict[str, Any]] = []
        self.training: list[tuple[int, bool]] = []
        self.after_the_end = 0
        self._stop_at = stop_at
        self._ended = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **kwargs: Any) -> None:
        self.seen.append(dict(logs))
        self.training.append((state.global_step, all(module.training for module in model.modules())))
        self.after_the_end += self._ended
        if state.global_step == self._stop_at:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._ended = True


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def records(trainer: Any, *, ours: bool) -> list[dict[str, float]]:
    """Return the log records of a trainer that are ours, or those that are not, without wall-clock figures."""
    clocks = ("runtime", "per_second", "_time")
    return [
        {key: value for key, value in record.items() if not any(word in key for word in clocks)}
        for record in trainer.state.log_history
        if any(key.startswith("rankdiag/") for key in record) == ours
    ]

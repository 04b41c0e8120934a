"""Small GRPO and RLOO runs for the tests of the reward monitor: a tiny Llama, and reward functions of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from monitors.dpo_run import load_model, pairs
from oracles.tiny_tokenizer import tiny_tokenizer


class Rewards:
    """Reward functions that keep what they returned, and where each completion stands among those of all processes."""

    def __init__(self) -> None:
        self.calls: list[dict[str, list[Any]]] = []

    def early(self, prompts: list[str], completions: list[str], completion_ids: Any, **columns: Any) -> list[Any]:
        """Return 1 for an early letter; None now and then; often equal in a group."""
        rewards = [None if sum(ids) % 5 == 4 else float(sum(ids) % 3 == 0) for ids in completion_ids]
        self.calls.append({"early": rewards, "prompts": list(prompts)})
        return rewards

    def late(self, prompts: list[str], completions: list[str], completion_ids: Any, **columns: Any) -> list[Any]:
        """Return what takes back most of `early`."""
        rewards = [0.25 - float(sum(ids) % 3 == 0) if ids[0] % 2 else 0.0 for ids in completion_ids]
        self.calls[-1]["late"] = rewards
        return rewards

    async def slow(self, prompts: list[str], completions: list[str], completion_ids: Any, **columns: Any) -> list[Any]:
        rewards = [float(len(set(ids)) > 5) for ids in completion_ids]
        self.calls[-1]["slow"] = rewards
        return rewards

    def functions(self, kind: str) -> list[Callable[..., Any]]:
        return [self.early, self.late, self.slow] if kind == "async" else [self.early, self.late]


def reward_trainer(model_folder: Path, folder: Path, kind: str, functions: list[Any], **options: Any) -> Any:
    """Return a real GRPO or RLOO trainer of TRL."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, trainer = (RLOOConfig, RLOOTrainer) if kind == "rloo" else (GRPOConfig, GRPOTrainer)
    extra = {key: options.pop(key) for key in ("callbacks", "eval_dataset") if key in options}
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "temperature": 1.0,
        "seed": 3,
    }
    return trainer(
        model=load_model(model_folder),
        args=config(output_dir=str(folder), **{**settings, **options}),
        reward_funcs=functions,
        train_dataset=Dataset.from_list([{"prompt": pair["prompt"]} for pair in pairs()]),
        processing_class=tiny_tokenizer(),
        **extra,
    )


def groups_of(calls: list[dict[str, list[Any]]], names: list[str], size: int) -> list[dict[str, list[Any]]]:
    """Return the groups of some calls: completions stand together, `size` at a time."""
    return [
        {name: call[name][first : first + size] for name in names}
        for call in calls
        for first in range(0, len(call["prompts"]), size)
    ]

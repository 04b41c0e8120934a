"""One process of a data-parallel run: ``torchrun ... one_of_several.py MODEL_FOLDER OUT KIND MONITORED``."""

from __future__ import annotations

import json
import os
import sys
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from monitors.dpo_run import (
    Reporter,
    dpo_trainer,
    load_model,
    many_pairs,
    plain_trainer,
    records,
    tiny_tokenizer,
)
from rankdiag.language_models import encode_preferences, run
from rankdiag.monitors import DisplacementCallback, DisplacementLimit, _score


def sharded(model_folder: Path, out: Path) -> None:
    """Score a model whose parameters lie in both processes; a trainer shards on accelerators only."""
    from torch.distributed.fsdp import fully_shard
    from transformers import TrainingArguments

    settings = TrainingArguments(output_dir=str(out), ddp_backend="gloo", use_cpu=True, report_to="none")
    assert settings.world_size == 2
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    model = load_model(model_folder).train()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    record = _score.Scorer(model, encode_preferences(many_pairs(), tiny_tokenizer()), settings).score()
    result = {"chosen": record.chosen.tolist(), "rejected": record.rejected.tolist(), "training": model.training}
    (out / f"rank{settings.process_index}.json").write_text(json.dumps(result))


def rewarded(model_folder: Path, out: Path, monitored: bool) -> None:
    """Train with GRPO on groups of four, six completions in each process."""
    from monitors.rewards_run import Rewards, reward_trainer
    from rankdiag.monitors import RewardLandscapeCallback, RewardLandscapeMonitor, wrap_reward_fn

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing")
    rewards, monitor = Rewards(), RewardLandscapeMonitor()
    functions = rewards.functions("grpo")
    if monitored:
        functions = [wrap_reward_fn(function, monitor) for function in functions]
    trainer = reward_trainer(
        model_folder,
        out / "run",
        "grpo",
        functions,
        per_device_train_batch_size=6,
        max_steps=3,
        ddp_backend="gloo",
    )
    assert trainer.args.world_size == 2
    if monitored:
        RewardLandscapeCallback(monitor).bind(trainer)
    trainer.train()
    result = {
        "calls": rewards.calls,
        "readings": monitor.readings,
        "ours": records(trainer, ours=True),
        "theirs": records(trainer, ours=False),
        "weights": [sha256(value.numpy().tobytes()).hexdigest() for value in trainer.model.state_dict().values()],
    }
    (out / f"rank{trainer.args.process_index}.json").write_text(json.dumps(result))


def main(model_folder: Path, out: Path, kind: str, monitored: bool) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="`(is_)?gradient_checkpointing")  # TRL uses old names of transformers
    fed: list[int] = []

    def counted(model: Any, plan: Any, outputs: Any, **options: Any) -> Any:
        fed.append(plan.n_tokens)
        return run(model, plan, outputs, **options)

    _score.run = counted
    make = dpo_trainer if kind == "dpo" else plain_trainer
    options = {"max_steps": 8} if kind == "dpo" else {"steps": 8}
    reporter = Reporter()
    trainer = make(
        model_folder, out / "run", ddp_backend="gloo", lr_scheduler_type="constant", callbacks=[reporter], **options
    )
    rank = trainer.args.process_index
    assert trainer.args.world_size == 2
    result: dict[str, Any] = {}
    if monitored:
        probe = encode_preferences(many_pairs(), tiny_tokenizer())
        limit = DisplacementLimit(mean_below=1e6, patience=2)
        monitor = DisplacementCallback(probe, every=3, out=out / "probe.jsonl", stop_if=limit).bind(trainer)
        trainer.train()
        assert monitor.report is not None
        result = {
            "delta_chosen": monitor.report.delta_chosen.tolist(),
            "delta_rejected": monitor.report.delta_rejected.tolist(),
            "ours": records(trainer, ours=True),
            "fed": fed,
            "tokens": _score.plan(probe, trainer.model, [_score.ResponseLogProbs()]).n_tokens,
            "stopped": monitor.stopped,
        }
    else:
        trainer.args.max_steps = 6  # where the gate of the other run stops it
        trainer.train()
    result |= {"step": trainer.state.global_step, "theirs": records(trainer, ours=False)}
    (out / f"rank{rank}.json").write_text(json.dumps(result))
    if rank == 0:
        trainer.model.save_pretrained(out / "after")


if __name__ == "__main__":
    if sys.argv[3] == "sharded":
        sharded(Path(sys.argv[1]), Path(sys.argv[2]))
    elif sys.argv[3] == "rewards":
        rewarded(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4] == "monitored")
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "monitored")
    torch.distributed.barrier()
    os._exit(0)  # taking gloo and DDP down in order hangs now and then, with a monitor and without

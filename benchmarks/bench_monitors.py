"""What it costs to watch a DPO run: twenty steps with and without the monitor, and one probe beside a bare forward.

The model is a Llama of 4 layers, width 256 and 8000 tokens in float32, the pairs are random, 64 prompt and 2 x 64
response tokens. A step trains on 8 pairs, with a reference model; the probe has 64 pairs and is scored at the start and
every 5 steps: five probes of 64 pairs beside twenty steps of 8, and once more under the reference.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.language_models import LogProbs, encode_preferences, plan, run
from rankdiag.monitors import DisplacementCallback

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")  # old names, in TRL


def records(count: int, seed: int) -> list[dict[str, list[int]]]:
    draw = functools.partial(np.random.default_rng(seed).integers, 3, 8000, 64)
    return [
        {"prompt_ids": draw().tolist(), "chosen_ids": draw().tolist(), "rejected_ids": draw().tolist()}
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


def trainer(model_folder: Path, steps: int) -> Any:
    """Make a DPO trainer on ids; its own preparation, which wants text, is passed over."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    from oracles.tiny_tokenizer import tiny_tokenizer

    class Prepared(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
            return dataset

    settings = DPOConfig(
        output_dir=str(model_folder / "run"),
        max_steps=steps,
        per_device_train_batch_size=8,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        bf16=False,
        use_cpu=True,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    return Prepared(
        model=str(model_folder),
        args=settings,
        train_dataset=datasets.Dataset.from_list(records(8 * steps, 1)),
        processing_class=tiny_tokenizer(),
    )


@pytest.mark.benchmark(group="twenty steps of DPO", timer=time.process_time)
@pytest.mark.parametrize("watched", [pytest.param(False, id="alone"), pytest.param(True, id="watched-every-5")])
def test_twenty_steps(benchmark: Any, size: int, model_folder: Path, watched: bool) -> None:
    steps, count = (20, 64) if size >= 1024 else (2, 8)
    probe = encode_preferences(records(count, 2))
    monitors = []

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        made = trainer(model_folder, steps)
        if watched:
            monitors.append(DisplacementCallback(probe, every=5).bind(made))
        return (made,), {}

    benchmark.extra_info.update({"goal": 0, "baseline": not watched})
    benchmark.pedantic(lambda made: made.train(), setup=setup, rounds=1)
    if monitors:
        benchmark.extra_info["seconds_of_probes"] = [monitor.seconds for monitor in monitors]


@pytest.mark.benchmark(group="one probe", timer=time.process_time)
@pytest.mark.parametrize("what", ["engine", "monitor"])
def test_one_probe(benchmark: Any, size: int, model_folder: Path, what: str) -> None:
    probe = encode_preferences(records(64 if size >= 1024 else 8, 2))
    made = trainer(model_folder, 1)
    outputs = [LogProbs()]
    planned = plan(probe, made.model, outputs)
    monitor = DisplacementCallback(probe, every=1).bind(made)
    monitor.on_train_begin(made.args, made.state, made.control, model=made.model)

    def engine() -> None:
        for _ in run(made.model, planned, outputs):
            pass

    def watch() -> None:
        made.state.global_step += 1
        monitor.on_step_end(made.args, made.state, made.control, model=made.model)

    benchmark.extra_info.update({"goal": 0 if what == "engine" else 1.1, "baseline": what == "engine"})
    benchmark.pedantic({"engine": engine, "monitor": watch}[what], rounds=5, iterations=1, warmup_rounds=1)
    assert monitor.probes >= 1

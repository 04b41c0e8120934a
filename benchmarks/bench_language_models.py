"""Scores of preference pairs beside a bare forward over the same tokens, and beside the plain loop of forwards.

The workload: a Llama of 4 layers, width 256 and 8000 tokens, in float32; 256 pairs of 64 prompt and 2 x 64 response
tokens. The bare forward sees the same 48,640 tokens in the same shared-prompt layout; its batch size is the fastest of
4, 16 and the planned one. A second workload are real pairs of code and mathematics, where responses share long
beginnings.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.language_models import HeadGram, StateSums, encode_preferences, plan, run
from rankdiag.language_models._layout import feed_packed
from rankdiag.preference import displacement_score, score_preferences, sequence_log_probs

ROUNDS = {"rounds": 3, "iterations": 1, "warmup_rounds": 1}


def llama(vocab: int, length: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=length,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@functools.cache
def random_pairs(size: int) -> tuple[Any, Any]:
    count = 256 if size >= 1024 else 8
    rng = np.random.default_rng(0)
    draw = functools.partial(rng.integers, 1, 8000, 64)
    records = [
        {"prompt_ids": draw().tolist(), "chosen_ids": draw().tolist(), "rejected_ids": draw().tolist()}
        for _ in range(count)
    ]
    return llama(8000, 256), encode_preferences(records)


@functools.cache
def real_pairs(size: int) -> tuple[Any, Any]:
    from oracles.tiny_tokenizer import tiny_tokenizer

    root = Path(os.environ.get("RANKDIAG_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = root / "preferences" / "code_math_pairs.jsonl"
    if not path.exists():
        pytest.skip("the real pairs are not there; RANKDIAG_DATA names the folder of them")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tokenizer = tiny_tokenizer(vocab=1024)
    return llama(len(tokenizer), 4096), encode_preferences(rows if size >= 1024 else rows[:8], tokenizer)


def feeds(model: Any, data: Any, batch: int) -> list[dict[str, Any]]:
    """Lay out the tokens of all pairs; nothing of it is timed. 0 takes the batches of the plan."""
    made = plan(data, model, [StateSums()], layout="packed")
    trees = [tree for part in made.batches for tree in part.trees]
    parts = [trees[i : i + batch] for i in range(0, len(trees), batch)] if batch else [b.trees for b in made.batches]
    inputs = []
    for part in parts:
        feed = feed_packed(made.source, list(part))
        inputs.append(
            {
                "input_ids": torch.from_numpy(feed.ids),
                "attention_mask": torch.from_numpy(feed.mask)[:, None],
                "position_ids": torch.from_numpy(feed.positions),
                "use_cache": False,
            }
        )
    return inputs


def bare(batch: int) -> Callable[[Any, Any], Callable[[], None]]:
    def prepare(model: Any, data: Any) -> Callable[[], None]:
        inputs = feeds(model, data, batch)

        def work() -> None:
            with torch.inference_mode():
                for entry in inputs:
                    model.model(**entry)

        return work

    return prepare


def plain_loop(model: Any, data: Any) -> Callable[[], None]:
    """CHES from its definition: every response by itself, with its prompt, all hidden states and all logits."""

    def work() -> None:
        with torch.no_grad():
            for prompt, *responses in zip(data.prompt_ids, data.chosen_ids, data.rejected_ids, strict=True):
                sums = []
                for ids in responses:
                    row = torch.from_numpy(np.concatenate([prompt, ids]).astype(np.int64))[None]
                    states = model(input_ids=row, output_hidden_states=True).hidden_states[-1][0]
                    sums.append(states[len(prompt) - 1 : -1].double().sum(dim=0))
                float(sums[0] @ sums[1] - sums[0] @ sums[0])

    return work


def plain_head(model: Any, data: Any) -> Callable[[], None]:
    """The score at the head from its definition: both gradients as matrices (V, d), then their products."""

    def work() -> None:
        weight = model.lm_head.weight.detach()
        with torch.no_grad():
            for prompt, *responses in zip(data.prompt_ids, data.chosen_ids, data.rejected_ids, strict=True):
                found = []
                for ids in responses:
                    row = torch.from_numpy(np.concatenate([prompt, ids]).astype(np.int64))[None]
                    states = model.model(input_ids=row).last_hidden_state[0, len(prompt) - 1 : -1]
                    delta = -torch.softmax(states @ weight.T, dim=-1)
                    delta[torch.arange(len(ids)), torch.from_numpy(ids.astype(np.int64))] += 1.0
                    found.append(delta.T @ states)
                float((found[0] * found[1]).sum() - (found[0] ** 2).sum())

    return work


def ours(call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Callable[[], None]]:
    return lambda model, data: lambda: call(model, data)


def engine(outputs: Callable[[], list[Any]]) -> Callable[[Any, Any], Callable[[], None]]:
    def work(model: Any, data: Any) -> None:
        made = plan(data, model, outputs())
        for _ in run(model, made, outputs()):
            pass

    return ours(work)


CASES = [
    pytest.param(bare(0), {"baseline": True}, id="bare-planned-batches"),
    pytest.param(bare(4), {}, id="bare-batches-of-4"),
    pytest.param(bare(16), {}, id="bare-batches-of-16"),
    pytest.param(
        ours(lambda m, d: score_preferences(m, d, columns=("ches", "ln_ches", "relative"))), {"goal": 1.08}, id="ches"
    ),
    pytest.param(ours(lambda m, d: score_preferences(m, d)), {}, id="ches-and-edit-similarity"),
    pytest.param(ours(sequence_log_probs), {}, id="log-probs"),
    pytest.param(engine(lambda: [StateSums(), HeadGram()]), {}, id="ches-and-head"),
    pytest.param(ours(lambda m, d: displacement_score(m, d, level="ufm")), {}, id="ufm"),
    pytest.param(plain_loop, {}, id="plain-loop-ches"),
    pytest.param(plain_head, {}, id="plain-loop-head"),
]


@pytest.mark.benchmark(group="random pairs", timer=time.process_time)
@pytest.mark.parametrize(("prepare", "info"), CASES)
def test_random_pairs(benchmark: Any, size: int, prepare: Any, info: dict[str, Any]) -> None:
    model, data = random_pairs(size)
    benchmark.extra_info.update({"goal": 0, "baseline": False, **info})
    benchmark.pedantic(prepare(model, data), **ROUNDS)


@pytest.mark.benchmark(group="real pairs of code and mathematics", timer=time.process_time)
@pytest.mark.parametrize(("prepare", "info"), [case for case in CASES if case.id not in {"ufm", "plain-loop-head"}])
def test_real_pairs(benchmark: Any, size: int, prepare: Any, info: dict[str, Any]) -> None:
    model, data = real_pairs(size)
    benchmark.extra_info.update({"goal": 0, "baseline": info.get("baseline", False)})
    benchmark.pedantic(prepare(model, data), **{**ROUNDS, "rounds": 1})

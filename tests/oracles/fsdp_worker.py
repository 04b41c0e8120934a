"""Worker of the test of sharded models: two gloo processes score with an FSDP Llama and compare with a whole one."""

from __future__ import annotations

import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from rankdiag.language_models import StateSums, encode_preferences, plan, run


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rng = np.random.default_rng(0)
    data = encode_preferences(
        [
            {
                name: rng.integers(1, 64, rng.integers(2, 12)).tolist()
                for name in ("prompt_ids", "chosen_ids", "rejected_ids")
            }
            for _ in range(7)
        ]
    )
    whole, sharded = llama(), llama()
    mesh = init_device_mesh("cpu", (2,))
    for layer in sharded.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    expected = {}
    for columns in run(whole, plan(data, whole, [StateSums()], token_budget=1), [StateSums()]):
        expected.update(
            zip(zip(columns.group.tolist(), columns.slot.tolist(), strict=True), columns["sum"], strict=True)
        )
    made = plan(data, sharded, [StateSums()], token_budget=1)
    own = made.shard(rank, 2)
    assert (len(made), len(own), own.steps) == (7, 4 - rank, 4)
    seen = 0
    for columns in run(sharded, own, [StateSums()]):
        for place, sums in zip(
            zip(columns.group.tolist(), columns.slot.tolist(), strict=True), columns["sum"], strict=True
        ):
            np.testing.assert_allclose(sums, expected[place], rtol=1e-5, atol=1e-6)
            seen += 1
    assert seen == 2 * len(own)
    sys.stdout.write(f"rank {rank}: {seen} rows, layout {made.layout}\n")
    sys.stdout.flush()
    dist.barrier()
    os._exit(0)  # taking gloo down in order ends in an abort now and then, with this package and without


if __name__ == "__main__":
    main()

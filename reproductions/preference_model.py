"""The small language model of the preference reproductions: a Llama trained on prompts and chosen responses.

Width 96, 3 layers, 4 heads, a byte-level vocabulary of 1024 entries trained on the same pairs; 16 x 128 tokens a step,
AdamW at 3e-3 with 30 steps of warm-up and a cosine.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankdiag.language_models import EncodedPreferences, encode_preferences

SPECIAL = ("<pad>", "<s>", "</s>")


def records() -> list[dict[str, Any]]:
    """Read the 517 pairs of code and mathematics (RewardBench); RANKDIAG_DATA names the folder of data."""
    root = Path(os.environ.get("RANKDIAG_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = root / "preferences" / "code_math_pairs.jsonl"
    if not path.exists():
        sys.exit(f"{path.name} is not there; set RANKDIAG_DATA to the folder that holds preferences/{path.name}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tokenizer_of(rows: list[dict[str, Any]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(
        (text for row in rows for text in (row["prompt"] + row["chosen"], row["rejected"])), trainer
    )
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def trained_model(rows: list[dict[str, Any]], tokenizer: Any, *, seed: int, steps: int) -> tuple[Any, float]:
    """Train and return the model, in evaluation mode, and the mean loss of the last 20 steps."""
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = tokenizer([row["prompt"] + row["chosen"] for row in rows])["input_ids"]
    stream = torch.tensor([token for ids in texts for token in [*ids, 2]])
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    warm_up = 30

    def rate(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses = []
    for _ in range(steps):
        starts = torch.randint(len(stream) - 129, (16,))
        batch = torch.stack([stream[start : start + 128] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return model.eval(), float(np.mean(losses[-20:]))


def short_pairs(
    rows: list[dict[str, Any]], tokenizer: Any, *, prompt: int = 64, response: int = 96
) -> EncodedPreferences:
    """Encode pairs with the last `prompt` tokens of each prompt and the first `response` of each response."""
    full = encode_preferences(rows, tokenizer, mode="joint", add_eos="never")
    return encode_preferences(
        [
            {
                "key": key,
                "prompt_ids": ids[-prompt:].tolist(),
                "chosen_ids": chosen[:response].tolist(),
                "rejected_ids": rejected[:response].tolist(),
            }
            for key, ids, chosen, rejected in zip(
                full.keys, full.prompt_ids, full.chosen_ids, full.rejected_ids, strict=True
            )
        ]
    )


def subset(data: EncodedPreferences, indices: Any) -> EncodedPreferences:
    """Return some pairs of encoded data, in the order of `indices`."""
    return encode_preferences(
        [
            {
                "key": data.keys[int(i)],
                "prompt_ids": data.prompt_ids[int(i)].tolist(),
                "chosen_ids": data.chosen_ids[int(i)].tolist(),
                "rejected_ids": data.rejected_ids[int(i)].tolist(),
            }
            for i in indices
        ]
    )


def pair_log_probs(model: Any, data: EncodedPreferences, indices: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Differentiable log-probabilities of chosen and rejected responses, in the plainest way."""
    sequences, starts = [], []
    for i in indices:
        for ids in (data.chosen_ids[i], data.rejected_ids[i]):
            sequences.append(np.concatenate([data.prompt_ids[i], ids]))
            starts.append(len(data.prompt_ids[i]))
    width = max(map(len, sequences))
    batch = torch.zeros((len(sequences), width), dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for place, sequence in enumerate(sequences):
        batch[place, : len(sequence)] = torch.from_numpy(sequence.astype(np.int64))
        mask[place, starts[place] : len(sequence)] = True
    logits = model(input_ids=batch).logits[:, :-1]
    tokens = torch.log_softmax(logits, dim=-1).gather(2, batch[:, 1:, None])[..., 0]
    sums = (tokens * mask[:, 1:]).sum(dim=1)
    return sums[0::2], sums[1::2]


def dpo_loss(model: Any, data: EncodedPreferences, indices: Any, reference: Any, beta: float = 0.1) -> torch.Tensor:
    """Mean DPO loss of some pairs; `reference` holds the log-probabilities of the initial model."""
    chosen, rejected = pair_log_probs(model, data, indices)
    margin = (chosen - reference[0][indices]) - (rejected - reference[1][indices])
    return -torch.nn.functional.logsigmoid(beta * margin).mean()

"""Log-probabilities, shared prompts, reward heads, sampling and gradient norms beside plain code on the same models.

Plain code holds the logits of whole rows and their log-softmax, runs every row by itself with its prompt, and takes one
backward pass for each rollout. The limits are forwards without a head over the same tokens, laid out as the plan has
them, and one product with the output projection.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rankdiag.language_models import LogProbs, encode, plan, run, sequence_log_probs
from rankdiag.language_models._layout import feed_packed, feed_plain
from rankdiag.rewards import HFSampler, expected_gradient_norm, sequence_rewards, squared_gradient_norm

Works = dict[str, Callable[[], Any]]


def config(vocab: int, width: int, layers: int, **more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )


def built(kind: str, made: Any) -> Any:
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, kind)(made).eval()


@functools.cache
def small(vocab: int, width: int, layers: int) -> Any:
    return built("LlamaForCausalLM", config(vocab, width, layers))


def draw(vocab: int, prompts: int, prompt: int, responses: int, low: int, high: int) -> list[dict[str, Any]]:
    """Random ids from 3 on: prompts of one length, responses of `low` to `high` tokens."""
    rng = np.random.default_rng(0)
    return [
        {
            "prompt_ids": rng.integers(3, vocab, prompt).tolist(),
            "responses_ids": [
                rng.integers(3, vocab, int(n)).tolist() for n in rng.integers(low, high + 1, size=responses)
            ],
        }
        for _ in range(prompts)
    ]


def rows_of(records: list[dict[str, Any]]) -> list[tuple[int, torch.Tensor]]:
    """Return prompt length and ids of each row."""
    return [
        (len(record["prompt_ids"]), torch.tensor([record["prompt_ids"] + ids]))
        for record in records
        for ids in record["responses_ids"]
    ]


# --- log-probabilities ------------------------------------------------------------------------------------------------


def plain_log_probs(model: Any, batches: list[torch.Tensor], prompt: int) -> Any:
    found = []
    with torch.no_grad():
        for ids in batches:
            logs = torch.log_softmax(model(input_ids=ids).logits.float(), dim=-1)
            picked = logs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
            found.append(picked[:, prompt - 1 :].sum(dim=1))
    return torch.cat(found).numpy()


def one_product(model: Any, tokens: int) -> None:
    """Run one product of as many states as are scored with the output projection, a block of it at a time."""
    states = torch.ones(tokens, model.config.hidden_size)
    with torch.inference_mode():
        for part in model.lm_head.weight.split(512):
            states @ part.T


def bare(model: Any, made: Any) -> None:
    """Run the backbone alone over the forwards of a plan."""
    network = getattr(model, "model", model)
    with torch.inference_mode():
        for batch in made.batches:
            rows = [row for group in batch.groups for row in made.source.of_group(group)]
            feed = feed_packed(made.source, batch.trees) if batch.trees else feed_plain(made.source, rows)
            mask = torch.from_numpy(feed.mask)
            network(
                input_ids=torch.from_numpy(feed.ids),
                attention_mask=mask[:, None] if mask.ndim == 3 else mask,
                position_ids=torch.from_numpy(feed.positions),
                use_cache=False,
            )


def planned(model: Any, made: Any) -> Any:
    return np.concatenate([columns["logp"] for columns in run(model, made, [LogProbs()])])[np.argsort(rows_in(made))]


def rows_in(made: Any) -> list[int]:
    return [row for batch in made.batches for group in batch.groups for row in made.source.of_group(group)]


def log_probs(prompt: int) -> Callable[[int], Works]:
    """B = 4 rows of T = 384 tokens, of which the first `prompt` are not scored."""

    def make(size: int) -> Works:
        vocab, rows, length = (32000, 4, 384) if size >= 1024 else (4000, 2, 96)
        start = max(1, prompt * length // 384)
        model = small(vocab, 128, 2)
        records = draw(vocab, rows, start, 1, length - start, length - start)
        data, batch = encode(records, kind="responses"), [torch.cat([ids for _, ids in rows_of(records)])]
        made = plan(data, model, [LogProbs()])

        def limit() -> None:
            bare(model, made)
            one_product(model, rows * (length - start))

        return {
            "plain-full-logits": lambda: plain_log_probs(model, batch, start),
            "bare-forward-and-one-product": limit,
            "run": lambda: planned(model, made),
            "sequence_log_probs": lambda: sequence_log_probs(model, data)["logp"],
        }

    return make


# --- shared prompts ---------------------------------------------------------------------------------------------------


def shared(prompts: int) -> Callable[[int], Works]:
    """Prompts of 256 tokens with 10 responses of 24 to 48 each."""

    def make(size: int) -> Works:
        vocab, width, layers = (8000, 256, 4) if size >= 1024 else (500, 64, 2)
        model = small(vocab, width, layers)
        records = draw(vocab, prompts if size >= 1024 else 1, 256, 10, 24, 48)
        data, rows = encode(records, kind="responses"), [ids for _, ids in rows_of(records)]
        made = plan(data, model, [LogProbs()])
        return {
            "plain-row-by-row": lambda: plain_log_probs(model, rows, 256),
            "bare-forward-over-shared-prompts": lambda: bare(model, made),
            "run": lambda: planned(model, made),
            "sequence_log_probs": lambda: sequence_log_probs(model, data)["logp"],
        }

    return make


def heads(size: int) -> Works:
    """A classifier's head on the same rows."""
    vocab, width, layers = (8000, 256, 4) if size >= 1024 else (500, 64, 2)
    model = built("LlamaForSequenceClassification", config(vocab, width, layers, num_labels=1))
    records = draw(vocab, 8 if size >= 1024 else 1, 256, 10, 24, 48)
    data, rows = encode(records, kind="responses"), [ids for _, ids in rows_of(records)]
    made = plan(data, small(vocab, width, layers), [LogProbs()])

    def plain() -> Any:
        with torch.no_grad():
            return torch.cat([model(input_ids=ids).logits[:, 0] for ids in rows]).numpy()

    return {
        "plain-row-by-row": plain,
        "bare-forward-over-shared-prompts": lambda: bare(model, made),
        "sequence_rewards": lambda: sequence_rewards(model, data).values.ravel(),
    }


def sampling(size: int) -> Works:
    """Ten responses of 48 tokens to each of 3 prompts of 256: plain generation runs each prompt ten times."""
    vocab, width, layers, steps = (8000, 256, 4, 48) if size >= 1024 else (500, 64, 2, 4)
    model = small(vocab, width, layers)
    prompts = [record["prompt_ids"] for record in draw(vocab, 3 if size >= 1024 else 1, 256, 1, 1, 1)]
    ids = torch.tensor(prompts)
    many = ids.repeat_interleave(10, dim=0)
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": steps}
    sampler = HFSampler(model, max_new_tokens=steps)

    def plain() -> None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model.generate(input_ids=many, attention_mask=torch.ones_like(many), pad_token_id=0, **options)

    def drawn() -> None:
        sampler.sample(prompts, 10, rng=0)

    def forwards() -> None:
        """Each prompt once, then one token for each response and step, with logits and nothing drawn."""
        with torch.inference_mode():
            out = model(input_ids=ids[:, :-1], use_cache=True, logits_to_keep=1)
            name = "cache" if "cache" in out else "past_key_values"  # by the version of transformers
            cache = out[name]
            cache.batch_repeat_interleave(10)
            for _ in range(steps):
                model(input_ids=many[:, -1:], use_cache=True, **{name: cache})

    return {
        "plain-generate": plain,
        "forwards-of-the-tokens": forwards,
        "HFSampler": drawn,
    }


# --- gradient norms ---------------------------------------------------------------------------------------------------


def gradient_norms(params: str) -> Callable[[int], Works]:
    """Four prompts of 32 tokens with 8 rollouts of 48; the plain way keeps one gradient for each rollout."""

    def make(size: int) -> Works:
        vocab, width, prompts = (4000, 128, 4) if size >= 1024 else (300, 32, 1)
        model = small(vocab, width, 2)
        records = draw(vocab, prompts, 32, 8, 48, 48)
        data, rows = encode(records, kind="responses"), rows_of(records)
        rewards = np.random.default_rng(1).random((prompts, 8))
        chosen = [model.lm_head.weight] if params == "lm_head" else list(model.parameters())

        def plain() -> Any:
            found = []
            for group, values in enumerate(rewards):
                kept = []
                for start, ids in rows[8 * group : 8 * group + 8]:
                    logs = torch.log_softmax(model(input_ids=ids).logits.float(), dim=-1)[0, :-1]
                    total = logs.gather(1, ids[0, 1:, None])[start - 1 :].sum()
                    kept.append(torch.cat([part.flatten() for part in torch.autograd.grad(total, chosen)]).double())
                scores = torch.stack(kept)
                found.append(squared_gradient_norm(values, (scores @ scores.T).numpy()))
            return np.array(found)

        def ours(estimator: Any, **options: Any) -> Any:
            made = expected_gradient_norm(model, data, rewards, params=params, estimator=estimator, rng=0, **options)
            return made.squared_norm if estimator == "gram" else None  # the others draw

        def backward() -> None:
            """One forward and one backward pass through each row, and nothing else."""
            for _, ids in rows:
                torch.autograd.grad(model(input_ids=ids).logits.sum(), chosen)

        return {
            "plain-gradient-of-each": plain,
            "bare-backward-of-each": backward,
            "gram": lambda: ours("gram"),
            "groups": lambda: ours("groups"),
            "jvp-one-probe": lambda: ours("jvp", probes=1),
        }

    return make


_LOG_PROBS = {"plain-full-logits": None, "bare-forward-and-one-product": None, "run": 0.64, "sequence_log_probs": None}
_SHARED = {
    "plain-row-by-row": None,
    "bare-forward-over-shared-prompts": None,
    "run": 0.25,
    "sequence_log_probs": None,
}
_NORMS = {
    "plain-gradient-of-each": None,
    "bare-backward-of-each": None,
    "gram": 1.0,
    "groups": 1.0,
    "jvp-one-probe": None,
}
CASES: dict[str, Any] = {
    "log-probabilities, 4 x 384 tokens of 32000, all scored": (log_probs(1), _LOG_PROBS),
    "log-probabilities, 4 x 384 tokens of 32000, half scored": (log_probs(192), _LOG_PROBS),
    "8 prompts of 256 with 10 responses each": (shared(8), _SHARED),
    "1 prompt of 256 with 10 responses": (shared(1), _SHARED),
    "a reward head on 8 prompts of 256 with 10 responses": (
        heads,
        {"plain-row-by-row": None, "bare-forward-over-shared-prompts": None, "sequence_rewards": 0.25},
    ),
    "sampling 10 responses of 48 to 3 prompts of 256": (
        sampling,
        {"plain-generate": None, "forwards-of-the-tokens": None, "HFSampler": None},
    ),
    "squared gradient norms at the head": (gradient_norms("lm_head"), _NORMS),
    "squared gradient norms of all parameters": (gradient_norms("all"), _NORMS),
}


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("group", "name"), [(group, name) for group in CASES for name in CASES[group][1]])
def test_models(benchmark: Any, compare: Any, group: str, name: str) -> None:
    compare(benchmark, CASES, group, name)

"""A small Llama is trained and saved, then fine-tuned and saved: its weights, and what the second step changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankdiag._optional import optional
from rankdiag._result import Result

__all__ = ["INTRO", "ORDER", "TITLE", "run"]

ORDER = 10
TITLE = "Weights of a checkpoint, and the rank of a fine-tuning"
INTRO = (
    "A Llama of 1.3 million parameters reads reference pages of the Python language byte by byte, is saved, goes "
    "on to read sums, and is saved again. The first table reads the spectra of its weights; the second those of "
    "the difference between the two checkpoints."
)

_BLOCK, _BATCH = 96, 16


def run(folder: Path) -> tuple[Result, ...]:
    """Build both checkpoints below `folder` and report on them.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder; ``base`` and ``tuned`` are written into it.

    Returns
    -------
    tuple of Result
        The weight report of the fine-tuned model and the delta report.

    Raises
    ------
    MissingExtraError
        If transformers is missing or broken.
    """
    import torch

    from rankdiag.weights import weight_delta_report, weight_report

    base, tuned = folder / "base", folder / "tuned"
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(0)
        model = _small_llama()
        _train(model, _reference_pages(), steps=80)
        model.save_pretrained(base)
        _train(model, _sums(), steps=40)
        model.save_pretrained(tuned)
    return weight_report(tuned), weight_delta_report(base, tuned)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Hand nothing from thread to thread: the matrices are small, and on a busy machine threads wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _small_llama() -> Any:
    transformers = optional("transformers", extra="hf", feature="this section of the demo")
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=_BLOCK,
    )
    return transformers.LlamaForCausalLM(config)


def _reference_pages() -> bytes:
    from pydoc_data.topics import topics  # ships with Python

    return "\n".join(topics[name] for name in sorted(topics)).encode()


def _sums() -> bytes:
    return "".join(f"{a}+{b}={a + b}\n" for a in range(200) for b in range(1, 200, 3)).encode()


def _train(model: Any, text: bytes, *, steps: int) -> None:
    import torch

    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(steps):
        starts = torch.randint(len(data) - _BLOCK, (_BATCH,))
        batch = torch.stack([data[start : start + _BLOCK] for start in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()

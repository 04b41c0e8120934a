"""Two hundred preference pairs of our own: screened, trained on for one step, forecast against outcome."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankdiag._optional import optional
from rankdiag._result import Result

__all__ = ["INTRO", "ORDER", "TITLE", "run"]

ORDER = 30
TITLE = "Preference pairs, screened before one step of DPO"
INTRO = (
    "A small Llama has read the preferred answers of 200 pairs written for this demo: sums with a wrong result, "
    "colours, opposites with a long refusal, errands in a wrong order. First the pairs are scored, then one step of "
    "DPO is taken on all of them. The two plots at the end show what was forecast for each pair beside what the step "
    "did: once from the pair alone, and once from the derivative along that very step."
)

_RATE, _BETA = 0.002, 0.1
_COLOURS = {"grass": "green", "snow": "white", "coal": "black", "the sea": "blue", "a ripe tomato": "red"}
_OPPOSITES = {"hot": "cold", "early": "late", "heavy": "light", "open": "closed", "loud": "quiet", "full": "empty"}
_PLACES = ("the market", "the library", "the station", "the bakery", "the harbour")
_THINGS = ("bread", "a map", "two apples", "a lamp", "some tea", "a kite", "new boots")


def run(folder: Path) -> tuple[Result, ...]:
    """Train, screen, take one step, and compare.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder; ``preference-model`` and ``preference-pairs.jsonl`` are written into it.

    Returns
    -------
    tuple of Result
        The scores, the displacement report, and two forecasts beside the outcome.

    Raises
    ------
    MissingExtraError
        If transformers is missing or broken.
    """
    import json

    import torch

    from rankdiag.language_models import encode_preferences
    from rankdiag.preference import (
        displacement_report,
        displacement_score,
        forecast_report,
        logprob_change_along,
        score_preferences,
        sequence_log_probs,
    )

    rows = pairs()
    text = "".join(json.dumps({"key": f"pair {i}", **row}) + "\n" for i, row in enumerate(rows))
    (folder / "preference-pairs.jsonl").write_text(text, encoding="utf-8")
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(0)
        tokenizer = _tokenizer(rows)
        model = _reader(rows, tokenizer)
        model.save_pretrained(folder / "preference-model")
        tokenizer.save_pretrained(folder / "preference-model")
        data = encode_preferences([{"key": f"pair {i}", **row} for i, row in enumerate(rows)], tokenizer)
        scores = score_preferences(model, data, head_score=True)
        head = displacement_score(model, data, level="head")
        before = sequence_log_probs(model, data)
        update = _dpo_step(model, data, before)
        along = logprob_change_along(model, data, update)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += update[name]
        after = sequence_log_probs(model, data)
    return (
        scores,
        displacement_report(before, after, beta=_BETA),
        forecast_report(head, before, after, name="head-level score of the pair alone"),
        forecast_report(along, before, after, name="change predicted along the step"),
    )


def pairs() -> list[dict[str, str]]:
    """Return the 200 pairs: prompt, chosen, rejected."""
    rows: list[tuple[str, str, str]] = []
    sums = [(a, b) for a in range(2, 12) for b in (3, 5, 8, 9)]
    rows += [
        (f"What is {a} plus {b}?", f" {a} plus {b} is {a + b}.", f" {a} plus {b} is {a + b + 1}.") for a, b in sums
    ]
    for thing, colour in _COLOURS.items():
        for other in sorted(set(_COLOURS.values()) - {colour}):
            question = f"Which colour has {thing}, {colour} or {other}?"
            rows.append((question, f" It is {colour}.", f" It is {other}."))
            rows.append(
                (f"Say in one word: {question}", f" {colour.title()}.", f" {other.title()}, I would say, or {colour}.")
            )
    for word, opposite in _OPPOSITES.items():
        for form in (
            "Name the opposite of {}.",
            "What is the contrary of {}?",
            "Not {}, but what?",
            "{}: its opposite?",
        ):
            refusal = " I am sorry, I cannot answer this without knowing more about what you have in mind."
            rows.append((form.format(word), f" {opposite.title()}.", refusal))
    for place in _PLACES:
        for thing in _THINGS:
            right = f" First I walk to {place}, then I buy {thing}, and then I come home."
            wrong = f" First I come home, then I buy {thing}, and then I walk to {place}."
            rows.append((f"How do I get {thing} from {place}?", right, wrong))
    for a in range(2, 12):
        for b in (2, 4, 6, 7):
            if len(rows) < 200:
                product = f" {a} times {b} is {a * b}."
                rows.append((f"What is {a} times {b}?", product, f" That is {a} plus {b}, so it is {a + b}."))
    for a in range(20, 60):
        if len(rows) < 200:
            rows.append((f"Which number follows {a}?", f" After {a} comes {a + 1}.", f" Before {a} comes {a - 1}."))
    return [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tokenizer(rows: list[dict[str, str]]) -> Any:
    """Train a byte-level tokenizer of 400 entries on the pairs themselves."""
    transformers = optional("transformers", extra="hf", feature="this section of the demo")
    tokenizers = optional("tokenizers", extra="hf", feature="this section of the demo")
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator((part for row in rows for part in row.values()), trainer)
    core.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **marks)


def _reader(rows: list[dict[str, str]], tokenizer: Any) -> Any:
    """Train a Llama of 0.2 million parameters on prompts and preferred answers for 60 steps."""
    import torch

    transformers = optional("transformers", extra="hf", feature="this section of the demo")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    texts = tokenizer([row["prompt"] + row["chosen"] + "</s>" for row in rows])["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        batch = [texts[i] for i in torch.randint(len(texts), (24,)).tolist()]
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        loss = model(input_ids=ids, labels=ids.masked_fill(ids == 0, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


def _dpo_step(model: Any, data: Any, before: Any) -> dict[str, Any]:
    """Return the update of one step of gradient descent on the mean DPO loss of all pairs."""
    import torch

    from rankdiag.language_models import gradients
    from rankdiag.preference import loss_weights

    weights = loss_weights("dpo", before.chosen, before.rejected, before.chosen, before.rejected, beta=_BETA)
    total = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for group, (chosen, rejected) in gradients(model, data):
        plus, minus = float(weights.w_chosen[group]), float(weights.w_rejected[group])
        for place, a, b in zip(total.values(), chosen, rejected, strict=True):
            place += (_RATE / len(data)) * (plus * a - minus * b)
    return total

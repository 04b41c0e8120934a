"""Tiny byte-level BPE tokenizers, trained on the spot from Python's own help texts: deterministic, no network."""

from __future__ import annotations

import functools
import json
import pydoc_data.topics
from typing import Any

SPECIAL = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
PAD, BOS, EOS = 0, 1, 2
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
KINDS = ("plain", "bos_is_eos", "no_eos", "appends_eos", "no_template", "no_bos")


@functools.cache
def _trained(vocab: int) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    tokenizer.train_from_iterator(texts, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(vocab: int = 512, kind: str = "plain") -> Any:
    """Make a new tokenizer of transformers.

    Parameters
    ----------
    vocab : int
        Entries of the vocabulary, special tokens and the 256 bytes included; at least 262.
    kind : str
        ``"plain"``: BOS in front of plain text, EOS, chat template, and a newline after the EOS of a turn.
        ``"bos_is_eos"``: one token for both, and it is put in front of plain text (GPT-2 style).
        ``"no_eos"``: no end token. ``"appends_eos"``: puts EOS behind every plain text itself.
        ``"no_template"``: without a chat template. ``"no_bos"``: nothing is put in front.
    """
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}; got {kind!r}")
    core = Tokenizer.from_str(_trained(vocab))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    single, both = "<s> $A", "<s> $A <s> $B"
    if kind == "bos_is_eos":
        single, both = "</s> $A", "</s> $A </s> $B"
        names["bos_token"] = "</s>"
    elif kind == "no_eos":
        del names["eos_token"]
    elif kind == "appends_eos":
        single, both = "<s> $A </s>", "<s> $A </s> <s> $B </s>"
    if kind == "no_bos":
        del names["bos_token"]
    else:
        specials = [("<s>", BOS), ("</s>", EOS)]
        core.post_processor = processors.TemplateProcessing(single=single, pair=both, special_tokens=specials)
    made = PreTrainedTokenizerFast(tokenizer_object=core, **names)  # the role marks are special in `core` already
    if kind != "no_template":
        made.chat_template = TEMPLATE
    return made


def vocabulary(tokenizer: Any) -> dict[str, int]:
    """Vocabulary as the file of the tokenizer has it, for checks that it is the same on every run."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return dict(content["model"]["vocab"])

"""What sub-commands share that run language models on preference pairs: their options, and how both are read."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rankdiag._optional import optional
from rankdiag.cli._output import wants_progress

if TYPE_CHECKING:
    from rankdiag.language_models import EncodedPreferences

__all__ = [
    "PAIRS",
    "add_data",
    "add_encoding",
    "add_model",
    "column_names",
    "compare_tokenizers",
    "encode",
    "has_ids",
    "load",
    "records_of",
]


PAIRS = "pairs: .jsonl, .json, .parquet, or the folder of an HF dataset"


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add DATA, a file of pairs, and how it is read and encoded."""
    parser.add_argument("data", metavar="DATA", help=PAIRS)
    add_encoding(parser)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how pairs are read and encoded."""
    group = parser.add_argument_group("data")
    group.add_argument("--split", metavar="NAME", help="split of a dataset folder")
    group.add_argument("--columns", metavar="OURS=THEIRS,...", help="names of columns")
    group.add_argument("--mode", choices=("joint", "separate", "offset"), default="joint", help="tokenisation")
    group.add_argument("--add-eos", choices=("auto", "never"), default="auto", help="EOS behind string responses")
    group.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and response at most")
    group.add_argument("--max-prompt-length", type=int, metavar="N", help="tokens of a prompt at most; its end is kept")
    group.add_argument("--truncation", choices=("keep_start", "keep_end"), default="keep_start", help="what is kept")


def add_model(parser: argparse.ArgumentParser, adapter: str = "adapter of peft to put on the model") -> None:
    """Add the options that say how a model is loaded and run."""
    group = parser.add_argument_group("model")
    group.add_argument("--layout", choices=("auto", "plain", "packed"), default="auto", help="of a forward")
    group.add_argument("--token-budget", type=int, metavar="N", help="padded tokens of a forward")
    group.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16", "float64"), default="auto", help="of the weights"
    )
    group.add_argument("--device", metavar="NAME", help="cuda, say (default cpu)")
    group.add_argument("--adapter", metavar="DIR", help=adapter)
    group.add_argument("--revision", metavar="NAME", help="branch, tag or commit of a repo id")
    group.add_argument("--trust-remote-code", action="store_true", help="let code of the checkpoint run")


def has_ids(options: argparse.Namespace, records: list[Any]) -> bool:
    """Whether records hold token ids, which need no tokenizer."""
    theirs = (column_names(options) or {}).get("prompt_ids", "prompt_ids")
    return bool(records) and isinstance(records[0], dict) and theirs in records[0]


def records_of(options: argparse.Namespace, path: str) -> list[Any]:
    """Read the records of a file or folder."""
    from rankdiag.language_models import read_records

    return list(read_records(path, split=options.split))


def compare_tokenizers(before: Any, after: Any, names: tuple[str, str] = ("BEFORE", "AFTER")) -> None:
    """Say on standard error where two models that score the same tokens have different tokenizers."""
    if before is None or after is None:
        return
    from rankdiag.language_models._tokenise import TextTokeniser

    if TextTokeniser(before).identity() != TextTokeniser(after).identity():
        sys.stderr.write(
            f"rankdiag: {names[0]} and {names[1]} have different tokenizers; both were scored on the tokens of "
            f"{names[0]}\n"
        )


def load(
    options: argparse.Namespace, path: str, adapter: str | None, *, words: bool, classifier: bool = False
) -> tuple[Any, Any]:
    """Return a model as the options ask for it, a sequence classifier on request, and with `words` its tokenizer."""
    from rankdiag.language_models import _load

    read = _load.load_sequence_classifier if classifier else _load.load_language_model
    with _quiet_loading(not wants_progress(options)):
        loaded = read(
            path,
            revision=options.revision,
            dtype=options.dtype,
            device=options.device,
            adapter=adapter,
            trust_remote_code=options.trust_remote_code,
            tokenizer=words,
        )
    return loaded.model, loaded.tokenizer


@contextlib.contextmanager
def _quiet_loading(quiet: bool) -> Iterator[None]:
    """Keep the progress bars of transformers off, which would else be drawn into log files too."""
    logging = optional("transformers.utils.logging", extra="hf", feature="loading a language model")
    shown = logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def encode(options: argparse.Namespace, records: list[Any], tokenizer: Any) -> EncodedPreferences:
    """Encode records as the options ask."""
    from rankdiag.language_models import encode_preferences

    return encode_preferences(
        records,
        tokenizer,
        mode=options.mode,
        add_eos=options.add_eos,
        max_length=options.max_length,
        max_prompt_length=options.max_prompt_length,
        truncation=options.truncation,
        columns=column_names(options),
    )


def column_names(options: argparse.Namespace) -> dict[str, str] | None:
    """Return our column -> theirs, None where none is renamed; anything else ends as wrong usage."""
    if options.columns is None:
        return None
    entries = [entry.partition("=") for entry in options.columns.split(",")]
    if not all(ours and theirs for ours, _, theirs in entries):
        options.usage_error(f"argument --columns: must be OURS=THEIRS,...; got {options.columns!r}")
    return {ours: theirs for ours, _, theirs in entries}

"""Rewards that sequence classifiers give to rows of a file, and to pairs of responses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag.cli._models import add_model, load
from rankdiag.cli._output import wants_progress

if TYPE_CHECKING:
    from rankdiag.cli.rewards._input import Source
    from rankdiag.rewards import RewardTable

__all__ = [
    "add_reward_model",
    "add_scoring",
    "check_reward_model",
    "score_pairs",
    "score_rows",
    "scored_table",
    "texts_of",
]

_PROMPTS = ("prompt", "prompt_ids")
_RESPONSES = ("response", "completion", "response_ids")


def add_scoring(group: Any) -> None:
    """Add the options that say how a reward model scores rows, but for the column of the response."""
    group.add_argument("--prompt", metavar="COLUMN", help="prompt of a row (default prompt, or prompt_ids)")
    group.add_argument("--label", type=int, metavar="N", help="which output of a head that has several")
    group.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and response at most")
    group.add_argument("--add-eos", choices=("auto", "never"), default="auto", help="EOS behind string responses")


def add_reward_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--reward-model``, which takes the place of a column of rewards, and what goes with it."""
    group = parser.add_argument_group("reward model")
    group.add_argument(
        "--reward-model",
        metavar="CHECKPOINT",
        help="a sequence classifier that scores prompt and response of every row, instead of a column of rewards",
    )
    add_scoring(group)
    add_model(parser, adapter="adapter of peft to put on the reward model")


def check_reward_model(options: argparse.Namespace) -> None:
    """Refuse what says where rewards are beside a reward model that gives them; ends as wrong usage."""
    if options.reward_model is None:
        for name in ("prompt", "label", "max_length", "adapter", "device", "revision", "token_budget"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --{name.replace('_', '-')}: needs --reward-model")
        return
    for name in ("reward", "negate", "wide", "gold_wide", "num_generations"):
        if getattr(options, name):
            options.usage_error(f"argument --reward-model: not with --{name.replace('_', '-')}")


def scored_table(options: argparse.Namespace, source: Source) -> RewardTable:
    """Return the rewards of ``--reward-model``, with the gold rewards of the rows where they have some.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with `add_reward_model` and ``--response``.
    source : Source
        The open table, which must be rows.

    Returns
    -------
    RewardTable
        Rollouts in the order of the file; NaN where a row cannot be scored.

    Raises
    ------
    FileNotFoundError, MissingExtraError, ValueError
        As `score_rows`.
    """
    from rankdiag.rewards import RewardTable

    name = Path(options.reward_model).name
    found = score_rows(options, source, {name: options.reward_model})[name]
    gold = options.gold if options.gold is not None else ("gold" if "gold" in source.names else None)
    if gold is None:
        return found
    base = source.table(gold)
    places = {key: place for place, key in enumerate(found.prompt_ids)}
    return RewardTable.from_array(
        found.values[[places[key] for key in base.prompt_ids]],
        prompt_ids=base.prompt_ids,
        log_probs=base.log_probs,
        lengths=base.lengths,
        gold=base.values,
        meta={**base.meta, "reward": name},
    )


def score_rows(options: argparse.Namespace, source: Source, models: Mapping[str, str]) -> dict[str, RewardTable]:
    """Score prompt and response of every row with each reward model.

    Parameters
    ----------
    options : argparse.Namespace
        Of the sub-command.
    source : Source
        The open table, which must be rows.
    models : mapping of str to str
        Name -> checkpoint.

    Returns
    -------
    dict of str to RewardTable
        One row for each prompt, rollouts in the order of the file; NaN where a row cannot be scored.

    Raises
    ------
    FileNotFoundError, MissingExtraError, ValueError
        If rows have no prompt or response, or a checkpoint is no sequence classifier.
    """
    from rankdiag.language_models import encode
    from rankdiag.language_models._load import check_language_model

    records, ids = _records(options, source)
    for path in models.values():
        check_language_model(path, revision=options.revision, trust_remote_code=options.trust_remote_code)
    found = {}
    for name, path in models.items():
        model, tokenizer = load(options, path, options.adapter, words=not ids, classifier=True)
        data = encode(records, tokenizer, kind="responses", add_eos=options.add_eos, max_length=options.max_length)
        found[name] = _score(options, name, model, data)
    return found


def texts_of(options: argparse.Namespace, file: str) -> list[Any] | None:
    """Return the records of a file of pairs whose responses are texts, conversations or token ids, else None."""
    from rankdiag.language_models import read_records

    path = Path(file)
    if not path.is_dir() and path.suffix.lower() not in {".jsonl", ".json", ".parquet"}:
        return None
    try:
        records = read_records(file, split=options.split if path.is_dir() else None)
    except ValueError:
        return None  # the reader of scores takes forms that are no rows, or says what is wrong
    first = records[0] if records else {}
    return records if isinstance(first.get("chosen"), (str, list)) or "chosen_ids" in first else None


def score_pairs(options: argparse.Namespace, path: str, records: list[Any]) -> tuple[list[float], list[float]]:
    """Return what a reward model gives to the chosen and the rejected response of each pair."""
    from rankdiag.language_models import encode

    model, tokenizer = load(options, path, options.adapter, words="chosen_ids" not in records[0], classifier=True)
    data = encode(records, tokenizer, kind="pairs", add_eos=options.add_eos, max_length=options.max_length)
    values = _score(options, Path(path).name, model, data, unit="pairs").values
    return values[:, 0].tolist(), values[:, 1].tolist()


def _score(options: argparse.Namespace, name: str, model: Any, data: Any, unit: str = "prompts") -> RewardTable:
    import numpy as np

    from rankdiag.rewards import sequence_rewards

    table = sequence_rewards(
        model,
        data,
        label=options.label,
        layout=options.layout,
        token_budget=options.token_budget,
        progress=wants_progress(options),
    )
    unusable = int(np.isnan(table.values).all(axis=1).sum())
    if unusable and not options.quiet:
        sys.stderr.write(f"rankdiag: {name} could not score {unusable} of {len(table)} {unit}\n")
    return table


def _records(options: argparse.Namespace, source: Source) -> tuple[list[dict[str, Any]], bool]:
    """Return a record for each prompt with all its responses, and whether they are token ids."""
    from rankdiag.cli.rewards._rows import Rows
    from rankdiag.rewards._table import hashed_prompt

    if not isinstance(source, Rows):
        raise ValueError("TABLE: holds rewards alone; --reward-model needs rows with prompt and response")
    prompt = _column(options.prompt, _PROMPTS, source, "--prompt")
    response = _column(options.response, _RESPONSES, source, "--response")
    ids = isinstance(source.rows[0][1].get(response), list) and all(
        isinstance(entry, int) for entry in source.rows[0][1][response]
    )
    ours = ("prompt_ids", "responses_ids") if ids else ("prompt", "responses")
    found: dict[str, dict[str, Any]] = {}
    for (place, row), key in zip(source.rows, source.prompt_ids(), strict=True):
        name = key["prompt_id"] if "prompt_id" in key else hashed_prompt(key["prompt"])
        record = found.setdefault(name, {"key": name, ours[0]: row.get(prompt), ours[1]: []})
        if record[ours[0]] != row.get(prompt):
            raise ValueError(f"{place}: {prompt!r} differs from that of an earlier row of the prompt {name!r}")
        record[ours[1]].append(row.get(response))
    return list(found.values()), ids


def _column(given: str | None, known: tuple[str, ...], source: Source, flag: str) -> str:
    names = (given,) if given is not None else known
    found = next((name for name in names if name in source.names), None)
    if found is None:
        raise ValueError(
            f"TABLE has no column {' or '.join(map(repr, names))} for --reward-model; columns are "
            f"{', '.join(map(repr, source.names[:12]))}. Name one with {flag}"
        )
    return found

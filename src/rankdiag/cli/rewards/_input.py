"""Tables of rewards out of files: which option names which column, which reader reads which file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rankdiag.rewards import RewardTable

__all__ = ["Source", "add_table_arguments", "check_columns", "columns_of", "open_source"]

_ENDINGS = ".jsonl, .json, .parquet, .csv, .npy or .npz"
FILES = f"rollouts with rewards: {_ENDINGS}, or the folder of a dataset or of a trainer's logged completions"


class Source(Protocol):
    """A file of rollouts that is open: it makes a table of each of its columns."""

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that can hold rewards."""
        ...

    def table(self, reward: str | None = None, *, negate: bool = False) -> RewardTable:
        """Return the table whose rewards are in this column (None: in the one that the options name)."""
        ...


def add_table_arguments(parser: argparse.ArgumentParser, *, reward: bool = True) -> None:
    """Add the options that say how a file of rollouts is read.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a sub-command.
    reward : bool
        Whether the command reads one column of rewards, with ``--reward``, ``--reward-weight`` and ``--negate``.
    """
    group = parser.add_argument_group("table")
    if reward:
        group.add_argument(
            "--reward",
            action="append",
            metavar="COLUMN",
            help="column of the reward (default reward); repeated for the reward functions of a trainer's log",
        )
        group.add_argument(
            "--reward-weight",
            action="append",
            type=float,
            metavar="X",
            help="weight of each reward function of a trainer's log, in the order of --reward (default 1)",
        )
        group.add_argument("--negate", action="store_true", help="take minus the column as the reward")
    group.add_argument("--gold", metavar="COLUMN", help="column of the ground-truth reward (default gold, if there)")
    group.add_argument("--prompt-id", metavar="COLUMN", help="column that tells prompts apart (default prompt_id)")
    group.add_argument("--log-prob", metavar="COLUMN", help="column of ln pi of the rollout (default log_prob)")
    group.add_argument("--length", metavar="COLUMN", help="column of its number of tokens (default length)")
    group.add_argument(
        "--wide",
        metavar="PATTERN",
        help="every row is a prompt, and the columns that match are its rollouts: 'correct_*', say",
    )
    group.add_argument("--gold-wide", metavar="PATTERN", help="of such rows, the columns of the ground-truth reward")
    group.add_argument(
        "--num-generations", type=int, metavar="N", help="rollouts of a prompt, to read the completions TRL logged"
    )
    group.add_argument("--split", metavar="NAME", help="split of a dataset folder")
    group.add_argument(
        "--meta",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what a reader should know of the rollouts: policy=..., temperature=1, top_k=0, top_p=1",
    )


def open_source(options: argparse.Namespace, path: str) -> Source:
    """Open a file of rollouts with the reader for it.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with `add_table_arguments`, after `check_columns`.
    path : str
        The file or folder.

    Returns
    -------
    Source
        Gives tables with ``gold``, ``log_probs`` and ``lengths`` where the file has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MissingExtraError
        If reading needs a package that is not installed.
    ValueError
        If the file is damaged or empty, or lacks a column, or a cell does not hold what it should: the message has
        file, row, column and remedy.
    """
    from rankdiag.cli.rewards._arrays import Arrays, Log, looks_like_log, stored_table
    from rankdiag.cli.rewards._rows import Rows

    place = Path(path)
    if not place.exists():
        raise FileNotFoundError(f"there is no file or folder {path!r}; TABLE must be {_ENDINGS}, or a folder")
    suffix = place.suffix.lower()
    if suffix in {".npy", ".npz"}:
        return Arrays.read(options, place)
    if options.num_generations is not None or (place.is_dir() and looks_like_log(place)):
        return Log(options, place)
    if suffix == ".json" and (stored := stored_table(place)) is not None:
        return Arrays.of(options, place, stored)
    return Rows(options, place)


def check_columns(options: argparse.Namespace) -> None:
    """Refuse options for columns that exclude each other; ends as wrong usage."""
    chosen: dict[str, str] = {}
    for flag, name in columns_of(options).items():
        if name in chosen:
            options.usage_error(f"argument {flag}: {name!r} is the column of {chosen[name]}; name another one")
        chosen[name] = flag
    if is_wide(options):
        if getattr(options, "reward", None):
            options.usage_error("argument --reward: not with --wide, which names the columns of the reward")
        if options.gold is not None:
            options.usage_error("argument --gold: not with --wide; --gold-wide names the columns of the ground truth")
        if hasattr(options, "reward") and options.wide is None:
            options.usage_error("argument --gold-wide: needs --wide, which names the columns of the reward")
        if options.num_generations is not None:
            options.usage_error("argument --num-generations: not with --wide")
    rewards = getattr(options, "reward", None) or []
    if len(rewards) > 1 and options.num_generations is None:
        options.usage_error("argument --reward: several only with --num-generations, for the log of a trainer")
    weights = getattr(options, "reward_weight", None)
    if weights is not None and (options.num_generations is None or len(weights) != len(rewards)):
        options.usage_error("argument --reward-weight: must be given once for each --reward, with --num-generations")
    meta_of(options)


def is_wide(options: argparse.Namespace) -> bool:
    """Whether rows are prompts."""
    return options.wide is not None or options.gold_wide is not None


def columns_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the columns and patterns that options name, by option."""
    found = {
        "--prompt-id": options.prompt_id,
        "--gold": options.gold,
        "--log-prob": options.log_prob,
        "--length": options.length,
        "--wide": options.wide,
        "--gold-wide": options.gold_wide,
    }
    named = {flag: name for flag, name in found.items() if name is not None}
    rewards = getattr(options, "reward", None) or []
    for number, name in enumerate(rewards):
        named["--reward" if not number else f"--reward (number {number + 1})"] = name
    return named


def meta_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what ``--meta`` says, numbers as numbers; anything else ends as wrong usage."""
    found: dict[str, Any] = {}
    for text in options.meta:
        name, sign, value = text.partition("=")
        if not (name and sign):
            options.usage_error(f"argument --meta: must be NAME=VALUE; got {text!r}")
        found[name] = _plain(value)
    return found


def _plain(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

"""``rankdiag rewards teacher``: reward models side by side, on the same rollouts of one policy."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag.cli._models import add_model
from rankdiag.cli._output import add_output_arguments, check_output, deliver
from rankdiag.cli.rewards._classifiers import add_scoring
from rankdiag.cli.rewards._input import FILES, add_table_arguments, check_columns, is_wide, open_source

if TYPE_CHECKING:
    from rankdiag.cli.rewards._input import Source
    from rankdiag.rewards import RewardTable

__all__ = ["add_arguments"]

_GOLD = "gold"


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "teacher",
        help="which of several reward models teaches this policy best",
        description="Compare reward models on the same rollouts of one policy: the variance they give it, their "
        "accuracy on its own responses, and both together, which predicts best what training gains.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", help=FILES)
    models = parser.add_argument_group("reward models")
    models.add_argument(
        "--proxy",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="a column of TABLE (with --wide or --gold-wide a pattern of columns), another FILE with rewards of the "
        "same rollouts, or FILE:COLUMN; repeatable",
    )
    models.add_argument("--negate", action="append", default=[], metavar="NAME", help="take minus this proxy")
    models.add_argument(
        "--reward-model",
        action="append",
        default=[],
        metavar="NAME=CHECKPOINT",
        help="a sequence classifier that scores prompt and response of every row of TABLE; repeatable",
    )
    models.add_argument(
        "--pairs",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="for the off-policy accuracy: scores of chosen and rejected responses, a result file of RewardBench, or "
        "for a reward model the texts of pairs; repeatable",
    )
    add_scoring(models)
    models.add_argument(
        "--response", metavar="COLUMN", help="its response (default response, completion, response_ids)"
    )
    add_table_arguments(parser, reward=False)
    figures = parser.add_argument_group("figures")
    figures.add_argument("--policy", metavar="NAME", help="the policy that drew the rollouts")
    figures.add_argument(
        "--by", metavar="COLUMN", help="order of the table (default combined, or normalised_variance without gold)"
    )
    figures.add_argument(
        "--bootstrap", type=int, default=1000, metavar="B", help="resamples of prompts (default 1000; 0 for none)"
    )
    figures.add_argument("--seed", type=int, metavar="N", help="of the resamples")
    figures.add_argument("--ci", type=float, default=0.95, metavar="LEVEL", help="level of intervals (default 0.95)")
    add_model(parser, adapter="adapter of peft to put on every reward model")
    add_output_arguments(parser, "normalised_variance < 0.1")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.rewards import TeacherReport, teacher_report

    proxies, models = _named(options, "proxy", {}), _named(options, "reward_model", {})
    for name in models:
        if name in proxies:
            options.usage_error(f"argument --reward-model: {name!r} is a proxy already; take another name")
    _check(options, proxies, models)
    pairs = _pair_files(options, {*proxies, *models})
    files = [value for value in proxies.values() if Path(value).exists()]
    check_output(options, TeacherReport, inputs=[options.table, *files, *models.values(), *(file for _, file in pairs)])
    source = open_source(options, options.table)
    tables = _tables(options, source, proxies, models)
    report = teacher_report(
        tables,
        offline_pairs=_offline(options, pairs, models) if pairs else None,
        policy=options.policy,
        bootstrap=options.bootstrap,
        ci=options.ci,
        rng=options.seed,
    )
    gold = any(table.gold is not None for table in tables.values())
    by = options.by if options.by is not None else ("combined" if gold else "normalised_variance")
    return deliver(report.ranked(by), options)


def _named(options: argparse.Namespace, option: str, found: dict[str, str]) -> dict[str, str]:
    """Return name -> value of a repeated option; anything else ends as wrong usage."""
    flag = f"--{option.replace('_', '-')}"
    for text in getattr(options, option):
        name, _, value = text.partition("=")
        if not (name and value):
            options.usage_error(f"argument {flag}: must be NAME=SOURCE, a name of yours and where it is; got {text!r}")
        if name in found:
            options.usage_error(f"argument {flag}: {name!r} is there twice; take another name")
        found[name] = value
    return found


def _check(options: argparse.Namespace, proxies: dict[str, str], models: dict[str, str]) -> None:
    """Refuse what cannot work before anything is read; ends as wrong usage."""
    from rankdiag.rewards import TeacherReport

    check_columns(options)
    if not proxies and not models:
        options.usage_error("one of the arguments --proxy --reward-model is required: name at least one reward model")
    for name in options.negate:
        if name not in proxies:
            options.usage_error(f"argument --negate: must be the name of a proxy; got {name!r}")
    known = [column.name for column in TeacherReport.columns[1:]]
    if options.by is not None and options.by not in known:
        options.usage_error(f"argument --by: must be one of {', '.join(known)}; got {options.by!r}")
    if options.bootstrap < 0:
        options.usage_error(f"argument --bootstrap: must be >= 0; got {options.bootstrap}")
    if models and is_wide(options):
        options.usage_error("argument --reward-model: scores rows of prompt and response; not with --wide, --gold-wide")


def _pair_files(options: argparse.Namespace, names: set[str]) -> list[tuple[str, str]]:
    """Return (name, file) of each ``--pairs``; the name is empty where the file is to name its models."""
    found = []
    for text in options.pairs:
        name, sign, file = text.partition("=")
        if sign and name in names and file:
            found.append((name, file))
        elif Path(text).exists():
            found.append(("", text))
        else:
            options.usage_error(
                f"argument --pairs: must be NAME=FILE with a name of {', '.join(sorted(names))}, or a file that names "
                f"its models; got {text!r}"
            )
    return found


# --- rewards of the rollouts ---------------------------------------------------------------------------------------


def _tables(
    options: argparse.Namespace, source: Source, proxies: dict[str, str], models: dict[str, str]
) -> dict[str, RewardTable]:
    """Return the rewards of each model, in the order of the rollouts of TABLE, with its gold rewards."""
    from rankdiag.rewards import RewardTable

    own = {name: value for name, value in proxies.items() if _is_column(options, source, value)}
    found = {name: source.table(value, negate=name in options.negate) for name, value in own.items()}
    gold = _gold(options, source)
    base = gold if gold is not None else next(iter(found.values()), None)
    for name, value in proxies.items():
        if name not in own:
            found[name] = _of_file(options, source, name, value)
    if models:
        from rankdiag.cli.rewards._classifiers import score_rows

        found |= score_rows(options, source, models)
    base = base if base is not None else next(iter(found.values()))
    return {
        name: RewardTable.from_array(
            _aligned(name, found[name], base),
            prompt_ids=base.prompt_ids,
            log_probs=base.log_probs,
            lengths=base.lengths,
            gold=None if gold is None else gold.values,
            meta={**found[name].meta, **({} if base is found[name] else dict(base.meta)), "reward": name},
        )
        for name in (*proxies, *models)
    }


def _is_column(options: argparse.Namespace, source: Source, value: str) -> bool:
    if is_wide(options):
        return any(fnmatchcase(name, value) for name in source.names)
    return value in source.names


def _gold(options: argparse.Namespace, source: Source) -> RewardTable | None:
    """Return the table whose rewards are the ground truth; None where there is none."""
    if is_wide(options):
        return None if options.gold_wide is None else source.table(options.gold_wide)
    if options.gold is not None:
        return source.table(options.gold)
    return source.table(_GOLD) if _GOLD in source.names else None


def _of_file(options: argparse.Namespace, source: Source, name: str, value: str) -> RewardTable:
    file, sign, column = value, "", ""
    if not Path(value).exists():
        file, sign, column = value.rpartition(":")
    if not file or not Path(file).exists():
        raise ValueError(
            f"--proxy {name}={value}: there is neither a column nor a file {value!r}; columns of TABLE are "
            f"{', '.join(map(repr, source.names[:12]))}"
        )
    theirs = argparse.Namespace(**vars(options))
    theirs.gold = theirs.gold_wide = theirs.log_prob = theirs.length = None
    return open_source(theirs, file).table(column if sign else None, negate=name in options.negate)


def _aligned(name: str, table: RewardTable, base: RewardTable) -> Any:
    """Return the rewards of a table in the order of the prompts of another one."""
    if table.prompt_ids == base.prompt_ids and table.values.shape == base.values.shape:
        return table.values
    places = {key: place for place, key in enumerate(table.prompt_ids)}
    missing = [key for key in base.prompt_ids if key not in places]
    if missing or len(table) != len(base):
        extra = next(iter(set(places) - set(base.prompt_ids)), None)
        odd = f"has no prompt {missing[0]!r}" if missing else f"has the prompt {extra!r}, which others have not"
        raise ValueError(f"{name}: must be rewards of the same rollouts; it {odd}. Align both by --prompt-id")
    if table.values.shape[1] != base.values.shape[1]:
        raise ValueError(
            f"{name}: must be rewards of the same rollouts; it has up to {table.values.shape[1]} of a prompt, and "
            f"others have {base.values.shape[1]}"
        )
    return table.values[[places[key] for key in base.prompt_ids]]


# --- given pairs ---------------------------------------------------------------------------------------------------


def _offline(
    options: argparse.Namespace, pairs: list[tuple[str, str]], models: dict[str, str]
) -> dict[str, tuple[Any, Any]]:
    """Return the rewards of chosen and rejected responses by name of the reward model."""
    from rankdiag.cli.rewards._scores import read_scores

    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, file in pairs:
        if name in models:
            from rankdiag.cli.rewards._classifiers import score_pairs, texts_of

            texts = texts_of(options, file)
            if texts is not None:
                found[name] = score_pairs(options, models[name], texts)
                continue
        scores = read_scores([(file, name)]).scores
        known = [name] if name else [model for model in scores if model]
        missing = next((model for model in known if model not in scores), None)
        if missing is not None or not known:
            listed = ", ".join(map(repr, scores)) or "none"
            raise ValueError(
                f"{Path(file).name}: has no scores of {name!r}; it has those of {listed}. Name the model with "
                "--pairs NAME=FILE"
            )
        for model in known:
            chosen, rejected = found.setdefault(model, ([], []))
            for own_chosen, own_rejected in scores[model].values():
                chosen += own_chosen
                rejected += own_rejected
    return found

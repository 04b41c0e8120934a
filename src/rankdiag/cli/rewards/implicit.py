"""``rankdiag rewards implicit``: whether reward models can be trusted on pairs they were not trained for."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag.cli._models import PAIRS, add_encoding, add_model, compare_tokenizers, encode, has_ids, load, records_of
from rankdiag.cli._output import add_output_arguments, check_output, deliver, wants_progress

if TYPE_CHECKING:
    from rankdiag.cli.rewards._scores import PairScores
    from rankdiag.rewards import GeneralisationReport, PairReport, RewardTable

__all__ = ["add_arguments"]

_GROUPS = ("in_distribution", "token_shift", "domain_shift")
_MODEL_OPTIONS = ("policy", "explicit", "reference", "beta", "pool", "label")


@dataclass(frozen=True, slots=True)
class _Dataset:
    name: str
    path: str
    group: str


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "implicit",
        help="whether an implicit or explicit reward model holds on other wordings and in other domains",
        description=(
            "Compare reward models on preference pairs like those of training, on other wordings of them, and on pairs "
            "from elsewhere. A language model gives implicit rewards, a sequence classifier explicit ones; or scores "
            "that exist are read with --rewards, and need no model. One model on one dataset gives a short report."
        ),
        allow_abbrev=False,
    )
    data = parser.add_argument_group(
        "datasets", "Each may be repeated. With --rewards, NAME alone puts a dataset of these files in a group."
    )
    for group, words in zip(_GROUPS, ("like those of training", "in other words", "from elsewhere"), strict=True):
        flag = f"--{group.replace('_', '-')}"
        data.add_argument(
            flag, action="append", default=[], metavar="[NAME=]FILE", help=f"{PAIRS}; {words} (name: that of the file)"
        )
    data.add_argument(
        "--original",
        action="append",
        default=[],
        metavar="NAME=NAME",
        help="which dataset has the original wording of a reworded one, if several are in distribution",
    )
    models = parser.add_argument_group("reward models")
    models.add_argument(
        "--policy", action="append", default=[], metavar="[NAME=]MODEL", help="language model, an implicit reward model"
    )
    models.add_argument("--reference", metavar="MODEL", help="its reference model (default: none, ln pi alone)")
    models.add_argument("--beta", type=float, metavar="X", help="factor of implicit rewards (default 1)")
    models.add_argument(
        "--explicit", action="append", default=[], metavar="[NAME=]MODEL", help="sequence classifier with a linear head"
    )
    models.add_argument("--pool", choices=("last", "mean"), help="state that an explicit model reads (default last)")
    models.add_argument("--label", type=int, metavar="N", help="output of a head that has several")
    models.add_argument(
        "--rewards",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="scores instead of models: rows with chosen and rejected (and model), or NAME_chosen and NAME_rejected, "
        "and perhaps dataset and group, in .jsonl, .json, .parquet or .csv; or a result file of RewardBench 1 or 2, "
        "whose subsets are datasets",
    )
    comparison = parser.add_argument_group("comparison")
    comparison.add_argument(
        "--bootstrap", type=int, default=1000, metavar="B", help="resamples for differences of models (default 1000)"
    )
    comparison.add_argument("--seed", type=int, metavar="N", help="of the resamples")
    add_encoding(parser)
    add_model(parser, adapter="adapter of peft to put on the policy")
    add_output_arguments(parser, "gap > 0.05")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.rewards:
        return _from_files(options)
    if not (options.policy or options.explicit):
        options.usage_error("one of --policy, --explicit and --rewards is needed")
    if not options.policy:
        for name in ("reference", "beta", "adapter"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --{name}: needs --policy")
    if not options.explicit:
        for name in ("pool", "label"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --{name}: needs --explicit")
    if options.beta is not None and not options.beta > 0:
        options.usage_error(f"argument --beta: must be > 0; got {options.beta:g}")
    return _from_models(options)


# --- scores that exist ---------------------------------------------------------------------------------------------


def _from_files(options: argparse.Namespace) -> int:
    from rankdiag.cli.rewards._scores import read_scores

    for name in _MODEL_OPTIONS:
        if getattr(options, name) not in (None, []):
            options.usage_error(f"argument --{name}: not with --rewards, which needs no model")
    files = [_named(text) for text in options.rewards]
    found = read_scores([(path, name) for name, path in files])
    groups = _groups_of(options, found)
    return _report(options, found.scores, groups, inputs=[path for _, path in files])


def _groups_of(options: argparse.Namespace, found: PairScores) -> dict[str, str]:
    """Return dataset -> group: as options say, else as files say; all are in distribution where neither says any."""
    groups = dict(found.groups)
    given: dict[str, str] = {}
    for group in _GROUPS:
        flag = f"--{group.replace('_', '-')}"
        for name in getattr(options, group):
            if name not in found.datasets:
                known = ", ".join(map(repr, found.datasets[:12]))
                options.usage_error(f"argument {flag}: must be a dataset of --rewards, {known}; got {name!r}")
            if given.setdefault(name, group) != group:
                options.usage_error(f"argument {flag}: {name!r} is in another group too")
    groups.update(given)
    wrong = next((name for name, group in groups.items() if group not in _GROUPS), None)
    if wrong is not None:
        raise ValueError(f"'group' of {wrong!r} must be one of {', '.join(_GROUPS)}; got {groups[wrong]!r}")
    if not groups:
        if len(found.datasets) > 1:
            sys.stderr.write("rankdiag: no groups are given, so all datasets count as in distribution\n")
        return dict.fromkeys(found.datasets, _GROUPS[0])
    missing = [name for name in found.datasets if name not in groups]
    if missing:
        listed = ", ".join(map(repr, missing[:6]))
        options.usage_error(f"datasets without a group: {listed}; name each with --in-distribution, --token-shift, ...")
    return {name: groups[name] for name in found.datasets}


# --- scores of models ----------------------------------------------------------------------------------------------


def _from_models(options: argparse.Namespace) -> int:
    from rankdiag.language_models._load import check_language_model

    datasets = _datasets(options)
    if not datasets:
        options.usage_error("a dataset is needed: --in-distribution, --token-shift or --domain-shift")
    models = _models(options)
    groups = {data.name: data.group for data in datasets}
    _check(options, len(models), groups, [data.path for data in datasets] + [path for _, path, _ in models])
    records = {data.name: records_of(options, data.path) for data in datasets}
    for path in [path for _, path, _ in models] + [options.reference] * (options.reference is not None):
        check_language_model(path, revision=options.revision, trust_remote_code=options.trust_remote_code)
    reference = None
    words = not all(has_ids(options, rows) for rows in records.values())
    if options.reference is not None:
        reference = load(options, options.reference, None, words=words)
    scores = {name: _scores(options, path, explicit, records, reference, words) for name, path, explicit in models}
    return _deliver(options, scores, groups)


def _scores(
    options: argparse.Namespace,
    path: str,
    explicit: bool,
    records: dict[str, list[Any]],
    reference: tuple[Any, Any] | None,
    words: bool,
) -> dict[str, tuple[Any, Any]]:
    """Return the rewards of both responses by dataset, as one model gives them."""
    from rankdiag.rewards import implicit_rewards, sequence_rewards

    model, tokenizer = load(options, path, None if explicit else options.adapter, words=words, classifier=explicit)
    if not explicit and reference is not None:
        compare_tokenizers(tokenizer, reference[1], ("the policy", "the reference"))
    common: dict[str, Any] = {
        "layout": options.layout, "token_budget": options.token_budget, "progress": wants_progress(options)
    }  # fmt: skip
    found = {}
    for name, rows in records.items():
        data = encode(options, rows, tokenizer)
        table: RewardTable
        if explicit:
            table = sequence_rewards(model, data, pool=options.pool or "last", label=options.label, **common)
        else:
            base = None if reference is None else reference[0]
            table = implicit_rewards(model, base, data, beta=1.0 if options.beta is None else options.beta, **common)
        found[name] = (table.values[:, 0], table.values[:, 1])
    return found


def _datasets(options: argparse.Namespace) -> list[_Dataset]:
    found: list[_Dataset] = []
    for group in _GROUPS:
        for text in getattr(options, group):
            name, path = _named(text)
            if any(data.name == name for data in found):
                flag = f"--{group.replace('_', '-')}"
                options.usage_error(f"argument {flag}: a dataset named {name!r} is there already; give NAME=FILE")
            found.append(_Dataset(name, path, group))
    return found


def _models(options: argparse.Namespace) -> list[tuple[str, str, bool]]:
    """Return name, path and whether it is explicit, of each model; a lone one of its kind is called after its kind."""
    found: list[tuple[str, str, bool]] = []
    for kind, texts in (("implicit", options.policy), ("explicit", options.explicit)):
        for text in texts:
            name, path = _named(text)
            if len(texts) == 1 and path == text:
                name = kind
            if any(name == other for other, _, _ in found):
                options.usage_error(f"two models are named {name!r}; give NAME=MODEL")
            found.append((name, path, kind == "explicit"))
    return found


# --- the report ----------------------------------------------------------------------------------------------------


def _report(options: argparse.Namespace, scores: dict[str, Any], groups: dict[str, str], inputs: list[str]) -> int:
    _check(options, len(scores), groups, inputs)
    return _deliver(options, scores, groups)


def _check(options: argparse.Namespace, models: int, groups: dict[str, str], inputs: list[str]) -> None:
    """Refuse what cannot work, before any model is run; ends as wrong usage."""
    from rankdiag.rewards import GeneralisationReport, PairReport

    lone = models == 1 and len(groups) == 1
    if not lone and _GROUPS[0] not in groups.values():
        options.usage_error("argument --in-distribution: is needed, for gaps are measured from it")
    for name, source in _originals(options).items():
        for word in (name, source):
            if word not in groups:
                options.usage_error(f"argument --original: must name datasets, {', '.join(groups)}; got {word!r}")
    check_output(options, PairReport if lone else GeneralisationReport, inputs=inputs)


def _originals(options: argparse.Namespace) -> dict[str, str]:
    found = {}
    for text in options.original:
        name, sign, source = text.partition("=")
        if not (name and sign and source):
            options.usage_error(f"argument --original: must be NAME=NAME; got {text!r}")
        found[name] = source
    return found


def _deliver(options: argparse.Namespace, scores: dict[str, Any], groups: dict[str, str]) -> int:
    from rankdiag.rewards import generalisation_report, pair_report

    result: PairReport | GeneralisationReport
    if len(scores) == 1 and len(groups) == 1:
        ((_, cells),) = scores.items()
        ((_, pair),) = cells.items()
        result = pair_report(*pair)
    else:
        result = generalisation_report(
            scores, groups, originals=_originals(options) or None, bootstrap=options.bootstrap, rng=options.seed
        )
    return deliver(result, options)


def _named(text: str) -> tuple[str, str]:
    """Split NAME=FILE; without a name it is that of the file. A file whose own name has a = in it is one."""
    name, sign, path = text.partition("=")
    if sign and name and path and not Path(text).exists():
        return name, path
    return Path(text).stem or text, text

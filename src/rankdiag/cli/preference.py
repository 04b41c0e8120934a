"""``rankdiag preference``: score pairs before training, filter them, and see afterwards what training did to them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag._text import clean
from rankdiag.cli._models import (
    add_data,
    add_model,
    column_names,
    compare_tokenizers,
    encode,
    has_ids,
    load,
    records_of,
)
from rankdiag.cli._output import add_output_arguments, check_output, check_targets, deliver, wants_progress

if TYPE_CHECKING:
    from rankdiag.language_models import EncodedPreferences
    from rankdiag.preference import PreferenceScores

__all__ = ["add_arguments", "run"]

_COLUMNS = ("ches", "ln_ches", "relative", "edit_similarity")
_TEXT = 400  # characters of a text in a report
_LOSSES_WITHOUT_BETA = {"ipo", "slic", "rebel", "orpo"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their arguments."""
    commands = parser.add_subparsers(title="what to do", metavar="score|filter|displacement", required=True)
    score = commands.add_parser(
        "score",
        help="score pairs under a model, before training",
        description="Score preference pairs under a model: which of them will push their chosen response down.",
        allow_abbrev=False,
    )
    score.add_argument("model", metavar="MODEL", help="a folder as save_pretrained writes it, or a repo id")
    add_data(score)
    add_model(score)
    score.add_argument(
        "--level",
        choices=("ches", "head", "ufm", "full"),
        help="score at one level of the ladder from cheap to exact, instead of the CHES columns",
    )
    score.add_argument(
        "--head-score", action="store_true", help="add the head-level score, which predicts far better than CHES"
    )
    score.add_argument("--logps", action="store_true", help="add log-probabilities of both responses")
    score.add_argument("--column", action="append", metavar="NAME", help="a column to compute; may be repeated")
    score.add_argument("--response-end", choices=("given", "implied_eos"), default="given", help="where responses end")
    score.add_argument("--journal", metavar="DIR", help="write rows there as they are scored, and go on after a kill")
    score.add_argument("--worst", type=int, default=10, metavar="N", help="pairs whose words a report shows")
    add_output_arguments(score, "unusable_fraction > 0.1")
    score.set_defaults(run=_score)

    choose = commands.add_parser(
        "filter",
        help="keep the pairs with the lowest scores",
        description="Keep pairs by their scores, in input order; unusable and identical pairs are never kept.",
        allow_abbrev=False,
    )
    choose.add_argument("data", metavar="DATA", help="the pairs that were scored: .jsonl, .json, .parquet or a folder")
    choose.add_argument("--split", metavar="NAME", help="split of a dataset folder")
    choose.add_argument("--columns", metavar="OURS=THEIRS,...", help="names of columns, as in scoring; key is read")
    choose.add_argument(
        "--scores",
        metavar="FILE",
        required=True,
        help="what `preference score` wrote: .json, .jsonl or .parquet, or its journal",
    )
    choose.add_argument("--by", default="ln_ches", metavar="COLUMN", help="column to choose by (default ln_ches)")
    rule = choose.add_mutually_exclusive_group(required=True)
    rule.add_argument("--keep-lowest", type=float, metavar="FRACTION", help="share of the valid pairs to keep")
    rule.add_argument("--drop-highest", type=float, metavar="FRACTION", help="share of the valid pairs to drop")
    rule.add_argument("-n", type=int, metavar="N", help="how many of the lowest to keep")
    choose.add_argument("--output", metavar="FILE", required=True, help="kept rows: .jsonl or .parquet")
    choose.add_argument("--removed", metavar="FILE", help="what was removed and why: .jsonl or .parquet")
    choose.set_defaults(run=_filter, usage_error=choose.error)

    after = commands.add_parser(
        "displacement",
        help="report what training did to the pairs",
        description="Compare two checkpoints on preference pairs: which responses fell, and how far.",
        allow_abbrev=False,
    )
    after.add_argument("before", metavar="BEFORE", help="the initial model")
    after.add_argument("after", metavar="AFTER", help="the trained model")
    add_data(after)
    add_model(after, adapter="adapter of peft to put on BEFORE, to make AFTER, if both are one base")
    after.add_argument("--loss", default="dpo", metavar="NAME", help="what was trained (default dpo)")
    after.add_argument("--beta", type=float, metavar="X", help="its beta (default 0.1 for losses that have one)")
    after.add_argument(
        "--loss-option", action="append", default=[], metavar="NAME=X", help="another hyper-parameter of the loss"
    )
    after.add_argument("--worst", type=int, default=10, metavar="N", help="pairs whose words a report shows")
    add_output_arguments(after, "displaced_fraction > 0.5")
    after.set_defaults(run=_displacement)


def run(options: argparse.Namespace) -> int:
    """Run the sub-command that was named and return its exit code."""
    code: int = options.run(options)
    return code


# --- score ---------------------------------------------------------------------------------------------------------


def _score(options: argparse.Namespace) -> int:
    from rankdiag.preference import DisplacementScores, PreferenceScores, displacement_score, score_preferences

    _check_worst(options)
    if options.level is None:
        _check_rules(options)
    check_output(
        options,
        PreferenceScores if options.level is None else DisplacementScores,
        inputs=(options.data, options.model, options.journal, options.adapter),
    )
    if options.level is not None:
        for name in ("head_score", "logps", "column", "journal"):
            if getattr(options, name):
                options.usage_error(f"argument --{name.replace('_', '-')}: not with --level")
    records = records_of(options, options.data)
    model, tokenizer = load(options, options.model, options.adapter, words=not has_ids(options, records))
    data = encode(options, records, tokenizer)
    common = {"layout": options.layout, "token_budget": options.token_budget, "progress": wants_progress(options)}
    result: Any
    if options.level is None:
        result = score_preferences(
            model,
            data,
            columns=tuple(options.column or _COLUMNS),
            logps=options.logps,
            head_score=options.head_score,
            response_end=options.response_end,
            out=options.journal,
            **common,
        )
    else:
        result = displacement_score(model, data, level=options.level, **common)
    shown = result
    if options.html is not None and options.worst > 0 and result.usable.any():
        shown = _with_words(result, _named(options, records), data, model, tokenizer, options.worst)
    code = _deliver(result, shown, options)
    _beside(result, options)
    return code


def _check_worst(options: argparse.Namespace) -> None:
    if options.worst < 0:
        options.usage_error(f"argument --worst: must be >= 0; got {options.worst}")


def _check_rules(options: argparse.Namespace) -> None:
    """Refuse rules on columns that these options do not compute; ends as wrong usage."""
    named = {text.split()[0].rstrip("<>=!") for text in options.fail_on if text.split()}
    wanted = set(options.column or _COLUMNS)
    optional_columns = {
        "head": ("--head-score", options.head_score),
        "head_positive_fraction": ("--head-score", options.head_score),
        "chosen_logp": ("--logps", options.logps),
        "rejected_logp": ("--logps", options.logps),
        "near_duplicate_fraction": ("--column edit_similarity", "edit_similarity" in wanted),
        "both_fall_fraction": ("--column relative", "relative" in wanted),
        "length_correlation": ("--column ches", "ches" in wanted),
        **{
            name: (f"--column {name}", name in wanted)
            for name in (*_COLUMNS, "cross", "chosen_sq", "rejected_sq", "swapped", "cond", "last_state_inner")
        },
    }
    for name, (remedy, there) in optional_columns.items():
        if name in named and not there:
            options.usage_error(f"argument --fail-on: {name} is computed with {remedy} only")


def _beside(result: Any, options: argparse.Namespace) -> None:
    """Write beside rows what they are of, which their file cannot say, and to the terminal what a reader must know."""
    if options.output is None:
        return
    path = Path(options.output)
    if path.suffix.lower() in {".jsonl", ".parquet", ".csv"} and not options.json and path.is_file():
        from rankdiag._files import write_text

        write_text(_manifest_of(path), json.dumps(dict(result.manifest), indent=1, sort_keys=True) + "\n")
    if not options.quiet:
        usable = int(result.usable.sum())
        sys.stderr.write(f"rankdiag: {usable} of {len(result)} pairs can be used; wrote {options.output}\n")
        for note in result.document().notes:
            if note.startswith("Warning:"):
                sys.stderr.write(f"rankdiag: {clean(note)}\n")


def _manifest_of(path: Path) -> Path:
    return path.with_name(path.name + ".manifest.json")


def _deliver(result: Any, shown: Any, options: argparse.Namespace) -> int:
    """Deliver a result; the words of single pairs go to the page alone, for they would drown a terminal."""
    if options.html is not None:
        from rankdiag.report import write_html

        write_html(shown, options.html)
        options.html = None
    return deliver(result, options)


def _with_words(
    result: Any, records: list[Any], data: EncodedPreferences, model: Any, tokenizer: Any, count: int
) -> Any:
    """Add the words of the worst pairs, and what each token of their chosen responses contributes."""
    from rankdiag.preference._pair_columns import TokenAttribution
    from rankdiag.preference.from_models import token_contributions

    if tokenizer is None:
        return result
    worst = result.worst_pairs(count)
    found = token_contributions(model, data, worst)
    attribution = tuple(
        TokenAttribution(
            key=data.keys[pair],
            tokens=tuple(
                tokenizer.convert_tokens_to_string([token]) for token in _tokens(tokenizer, data.chosen_ids[pair])
            ),
            contributions=tuple(values),
        )
        for pair, values in found.items()
    )
    return dataclasses.replace(result, texts=_texts(records, result.keys, worst), attribution=attribution)


def _tokens(tokenizer: Any, ids: Any) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens([int(index) for index in ids])]


def _named(options: argparse.Namespace, records: list[Any]) -> list[dict[str, Any]]:
    """Return the records with prompt, chosen and rejected under these names, a shared beginning cut out as prompt."""
    from rankdiag.language_models import extract_prompt

    theirs = column_names(options) or {}
    found = []
    for record in records:
        words = {name: record.get(theirs.get(name, name)) for name in ("prompt", "chosen", "rejected")}
        if isinstance(words["chosen"], list) and not isinstance(words["prompt"], list):
            words["prompt"] = None
        if words["prompt"] is None:
            try:
                words = extract_prompt({name: words[name] for name in ("chosen", "rejected")})
            except (TypeError, ValueError):  # token ids, or a pair that cannot be used
                words["prompt"] = ""
        found.append(words)
    return found


def _texts(records: list[Any], keys: tuple[str, ...], pairs: tuple[int, ...]) -> tuple[Any, ...]:
    from rankdiag.preference._pair_columns import PairText

    return tuple(
        PairText(key=keys[pair], **{name: _words(records[pair].get(name)) for name in ("prompt", "chosen", "rejected")})
        for pair in pairs
    )


def _words(value: Any) -> str:
    """Return a text, or the turns of a conversation, in at most 400 characters."""
    if isinstance(value, list):
        value = " | ".join(f"{turn.get('role')}: {turn.get('content')}" for turn in value if isinstance(turn, dict))
    text = "" if value is None else str(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT // 2]} ... {text[-_TEXT // 2 :]}"


# --- filter --------------------------------------------------------------------------------------------------------


def _filter(options: argparse.Namespace) -> int:
    from rankdiag.preference import drop_highest, export, keep_lowest
    from rankdiag.preference._export import write_records

    targets = {"--output": options.output, "--removed": options.removed}
    for flag, name in targets.items():
        if name is not None and Path(name).suffix.lower() not in {".jsonl", ".parquet"}:
            options.usage_error(f"argument {flag}: must end in .jsonl or .parquet; got {name!r}")
    check_targets(options, targets, (options.data, options.scores))
    records = records_of(options, options.data)
    scores = _read_scores(Path(options.scores))
    if options.by not in scores.columns:
        options.usage_error(f"argument --by: must be one of {', '.join(scores.columns)}; got {options.by!r}")
    if options.drop_highest is not None:
        kept = drop_highest(scores, fraction=options.drop_highest, by=options.by)
        rule = f"among the highest {options.drop_highest:g} by {options.by}"
    elif options.n is not None:
        kept = keep_lowest(scores, n=options.n, by=options.by)
        rule = f"not among the lowest {options.n} by {options.by}"
    else:
        kept = keep_lowest(scores, fraction=options.keep_lowest, by=options.by)
        rule = f"not among the lowest {options.keep_lowest:g} by {options.by}"
    removed = _removed(scores, set(kept.tolist()), records, options.by, rule)
    if options.removed is not None:
        write_records(removed, Path(options.removed))
    key = (column_names(options) or {}).get("key", "key")
    export(kept, records, options.output, scores=scores, by=options.by, key=key, rule=f"removed: {rule}")
    if not scores.manifest.get("records"):
        sys.stderr.write(
            "rankdiag: these scores do not say which records they are of, so only number and keys were compared\n"
        )
    unusable = sum(1 for row in removed if row["rankdiag_status"] != "ok")
    sys.stdout.write(
        f"kept {len(kept)} of {len(records)} pairs by {options.by} ({options.output}); removed {len(removed)}, "
        f"{unusable} of them unusable or identical\n"
    )
    if "head" in scores.columns and options.by != "head":
        head = scores.column("head")
        share = {name: [head[i] > 0 for i in places] for name, places in _sides(scores, kept).items()}
        words = ", ".join(f"{name} {sum(flags)} of {len(flags)}" for name, flags in share.items())
        sys.stdout.write(f"head-level score above 0 (chosen predicted to fall): {words}\n")
        high = scores.worst_pairs(max(1, len(_sides(scores, kept)["removed"])), by="head")
        left = sum(place in set(kept.tolist()) for place in high)
        sys.stdout.write(
            f"of the {len(high)} pairs with the highest head-level score {left} were kept (--by head drops them)\n"
        )
        agreement = scores.rank_correlation(options.by, "head")
        sys.stdout.write(f"rank correlation of {options.by} with the head-level score: {agreement:.2f}\n")
    return 0


def _sides(scores: PreferenceScores, kept: Any) -> dict[str, list[int]]:
    chosen = set(kept.tolist())
    usable = [i for i, good in enumerate(scores.usable.tolist()) if good]
    return {"kept": [i for i in usable if i in chosen], "removed": [i for i in usable if i not in chosen]}


def _removed(scores: PreferenceScores, kept: set[int], records: list[Any], by: str, rule: str) -> list[dict[str, Any]]:
    """Return the removed rows, each with its status, its score, its rank from the highest and the reason."""
    import numpy as np

    values = np.where(scores.usable, scores.column(by), np.nan)
    order = np.argsort(-values, kind="stable")  # NaN last
    rank = {int(place): number for number, place in enumerate(order, 1)}
    head = scores.column("head") if "head" in scores.columns else None
    rows = []
    for place, record in enumerate(records):
        if place in kept:
            continue
        value = float(values[place])
        usable = np.isfinite(value)
        facts: dict[str, Any] = {
            "rankdiag_status": scores.status[place],
            f"rankdiag_{by}": value if usable else None,
            "rankdiag_rank": rank[place] if usable else None,
            "rankdiag_reason": rule if usable else f"unusable: {scores.status[place]}",
        }
        if head is not None and by != "head":
            facts["rankdiag_head"] = float(head[place]) if np.isfinite(head[place]) else None
        rows.append({**record, **facts})
    return rows


def _read_scores(path: Path) -> PreferenceScores:
    """Read what ``preference score`` wrote: a result as JSON, or rows with key, status and columns."""
    import numpy as np

    from rankdiag._result import result_from_json
    from rankdiag.language_models import read_records
    from rankdiag.preference import DisplacementScores, PreferenceScores

    if not path.exists():
        raise FileNotFoundError(f"`--scores` must be a file of scores; there is no {str(path)!r}")
    if path.is_dir():
        from rankdiag.preference import merge_scores

        return merge_scores(path)
    if path.suffix.lower() == ".json":
        result = result_from_json(path.read_text(encoding="utf-8"))
        if isinstance(result, PreferenceScores):
            return result
        if isinstance(result, DisplacementScores):
            return _as_preference_scores(result)
        raise ValueError(
            f"`--scores` must hold scores of preference pairs; {str(path)!r} holds {type(result).__name__}"
        )
    rows = list(read_records(path))
    if not rows or not {"key", "status"} <= set(rows[0]):
        raise ValueError(
            f"`--scores` must hold rows with key and status, as preference score writes them; {str(path)!r} does not"
        )
    names = [name for name in rows[0] if name not in {"key", "status", "index"}]
    columns = {name: [np.nan if row.get(name) is None else float(row[name]) for row in rows] for name in names}
    for name in ("n_chosen", "n_rejected", "length_gap", "shared_prefix"):
        columns.setdefault(name, [np.nan] * len(rows))
    beside = _manifest_of(path)
    return PreferenceScores(
        keys=tuple(str(row["key"]) for row in rows),
        status=tuple(str(row["status"]) for row in rows),
        scores={name: np.array(values) for name, values in columns.items()},
        manifest=json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {},
    )


def _as_preference_scores(result: Any) -> PreferenceScores:
    import numpy as np

    from rankdiag.preference import PreferenceScores

    blank = np.full(len(result), np.nan)
    always = dict.fromkeys(("n_chosen", "n_rejected", "length_gap", "shared_prefix"), blank)
    columns = {name: result.column(name) for name in result.columns}
    return PreferenceScores(
        keys=result.keys, status=result.status, scores={**always, **columns}, manifest=result.manifest
    )


# --- displacement --------------------------------------------------------------------------------------------------


def _displacement(options: argparse.Namespace) -> int:
    from rankdiag.language_models._load import check_language_model
    from rankdiag.preference import DisplacementReport, displacement_report, sequence_log_probs
    from rankdiag.preference._loss_weights import ONE_PAIR, weights_from_options

    _check_worst(options)
    check_output(options, DisplacementReport, inputs=(options.data, options.before, options.after, options.adapter))
    extra = {}
    for text in options.loss_option:
        name, _, number = text.partition("=")
        try:
            extra[name] = float(number)
        except ValueError:
            options.usage_error(f"argument --loss-option: must be NAME=NUMBER; got {text!r}")
    beta = options.beta if options.beta is not None or options.loss in _LOSSES_WITHOUT_BETA else 0.1
    # Models take long: a loss that cannot be computed is refused before they are run.
    weights_from_options(options.loss, ONE_PAIR, beta=beta, loss_options=extra or None)
    records = records_of(options, options.data)
    common = {"layout": options.layout, "token_budget": options.token_budget, "progress": wants_progress(options)}
    words = not has_ids(options, records)
    for path in (options.before, options.after):
        check_language_model(path, revision=options.revision, trust_remote_code=options.trust_remote_code)
    model, tokenizer = load(options, options.before, None, words=words)
    data = encode(options, records, tokenizer)
    before = sequence_log_probs(model, data, **common)
    del model
    model, other = load(options, options.after, options.adapter, words=words)
    compare_tokenizers(tokenizer, other)
    after = sequence_log_probs(model, data, **common)
    del model
    report = displacement_report(before, after, loss=options.loss, beta=beta, loss_options=extra or None)
    shown = report
    if options.html is not None and options.worst > 0 and report.usable.any():
        texts = _texts(_named(options, records), report.keys, report.worst_pairs(options.worst))
        shown = dataclasses.replace(report, texts=texts)
    return _deliver(report, shown, options)

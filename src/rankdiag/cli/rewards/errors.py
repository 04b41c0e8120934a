"""``rankdiag rewards errors``: which errors of a proxy reward hurt, on rollouts or on small policy problems."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag.cli._output import add_output_arguments, check_output, deliver
from rankdiag.cli.rewards._classifiers import add_reward_model, check_reward_model, scored_table
from rankdiag.cli.rewards._input import FILES, add_table_arguments, check_columns, columns_of, open_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rankdiag.cli.rewards._input import Source
    from rankdiag.rewards import ErrorReport, InstanceReport

__all__ = ["add_arguments"]

_FIELD = "initial_probs"  # by which a file of policy problems is known
_RESPONSE = "response"
_LEVEL, _HORIZON = 0.95, 1e5


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "errors",
        help="which errors of a proxy reward hurt, do nothing, or help",
        description=(
            "Say which errors of a proxy reward hurt. A table of rollouts with a proxy and a true reward gives "
            "accuracies, what of the misrankings is harmless, and whether ascent of the proxy raises the true reward, "
            "for which the distinct rollouts of a prompt stand for its policy. JSON of policy problems (initial_probs, "
            "train_reward, ground_truth_reward, and features or kernel) gives categories of errors and the time of "
            "the gradient flow."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help=f"policy problems in .json, any number of files; or one table: {FILES}",
    )
    add_table_arguments(parser)
    add_reward_model(parser)
    rollouts = parser.add_argument_group("rollouts")
    rollouts.add_argument(
        "--response",
        metavar="COLUMN",
        help=f"column of the response: equal ones of a prompt are one output (default {_RESPONSE}, if there)",
    )
    rollouts.add_argument(
        "--verdicts",
        metavar="COLUMN,...",
        help="columns with a verdict of each constraint: adds binary beside partial credit. Without a true reward all "
        "must hold for it, without a proxy the share that holds is the proxy",
    )
    rollouts.add_argument("--loo", action="store_true", help="leave both of a pair out of its prompt's mean reward")
    problems = parser.add_argument_group("policy problems")
    problems.add_argument(
        "--level", type=float, metavar="X", help=f"true reward whose first time is asked for (default {_LEVEL:g})"
    )
    problems.add_argument("--horizon", type=float, metavar="T", help=f"end of the flows (default {_HORIZON:g})")
    problems.add_argument(
        "--method", choices=("flow", "gd"), help="gradient flow (default), or steps of exact gradient ascent"
    )
    problems.add_argument(
        "--lr", type=float, metavar="X", help="size of a step (default: learning_rate of the problem)"
    )
    problems.add_argument("--steps", type=int, metavar="N", help="steps at most (default: steps of the problem)")
    problems.add_argument(
        "--verify", action="store_true", help="simulate what each error does in the long run, by repairing it alone"
    )
    add_output_arguments(parser, "harm_aware_accuracy < 0.6")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.rewards import ErrorReport, InstanceReport

    found = [(path, _problems(Path(path))) for path in options.inputs]
    problems = [problem for _, part in found if part is not None for problem in part]
    table = next((path for path, part in found if part is None), None)
    if problems and table is not None:
        options.usage_error(f"argument INPUT: policy problems and tables not together; {table!r} holds none")
    if not problems and len(options.inputs) > 1:
        options.usage_error(f"argument INPUT: one table at a time; got {len(options.inputs)}")
    _check(options, problems=bool(problems))
    check_output(options, InstanceReport if problems else ErrorReport, inputs=[*options.inputs, options.reward_model])
    return deliver(_of_problems(options, problems) if problems else _of_table(options, options.inputs[0]), options)


def _check(options: argparse.Namespace, *, problems: bool) -> None:
    """Refuse options that are for the other kind of input; ends as wrong usage."""
    of_table = {
        **columns_of(options),
        "--response": options.response,
        "--verdicts": options.verdicts,
        "--loo": options.loo,
        "--negate": options.negate,
        "--reward-weight": options.reward_weight,
        "--num-generations": options.num_generations,
        "--split": options.split,
        "--meta": options.meta,
        "--reward-model": options.reward_model,
    }
    of_problems = {
        "--level": options.level,
        "--horizon": options.horizon,
        "--method": options.method,
        "--lr": options.lr,
        "--steps": options.steps,
        "--verify": options.verify,
    }
    for flag, value in (of_table if problems else of_problems).items():
        if value not in (None, False, []):
            kind = "a table of rollouts" if problems else "policy problems in .json"
            options.usage_error(f"argument {flag.split()[0]}: is for {kind}; {options.inputs[0]!r} is no such file")
    if not problems:
        check_reward_model(options)
        check_columns(options)
    elif options.method != "gd":
        for name in ("lr", "steps"):
            if getattr(options, name) is not None:
                options.usage_error(f"argument --{name}: needs --method gd")
    elif options.horizon is not None and not options.verify:
        options.usage_error("argument --horizon: with --method gd it is the end of --verify alone")


# --- policy problems -----------------------------------------------------------------------------------------------


def _problems(path: Path) -> list[Any] | None:
    """Return the policy problems of a file; None where it holds something else."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # the reader of tables says what is wrong, and where
    many = content if isinstance(content, list) else [content]
    return many if any(isinstance(entry, dict) and _FIELD in entry for entry in many) else None


def _of_problems(options: argparse.Namespace, problems: list[Any]) -> InstanceReport:
    from rankdiag.rewards import instance_report

    return instance_report(
        problems,
        level=_LEVEL if options.level is None else options.level,
        horizon=_HORIZON if options.horizon is None else options.horizon,
        method=options.method or "flow",
        lr=options.lr,
        steps=options.steps,
        verify="flow" if options.verify else None,
    )


# --- rollouts ------------------------------------------------------------------------------------------------------


def _of_table(options: argparse.Namespace, path: str) -> ErrorReport:
    import numpy as np

    from rankdiag.rewards import RewardTable, error_report

    source = open_source(options, path)
    names = [] if options.verdicts is None else options.verdicts.split(",")
    verdicts = np.stack([_verdict(source, name, path) for name in names], axis=2) if names else _stored(path)
    if options.reward_model is not None:
        table = scored_table(options, source)
    elif (
        names
        and verdicts is not None
        and options.reward is None
        and options.wide is None
        and "reward" not in source.names
    ):
        first = source.table(names[0])
        table = RewardTable.from_array(
            verdicts.mean(axis=2),
            prompt_ids=first.prompt_ids,
            log_probs=first.log_probs,
            lengths=first.lengths,
            gold=first.gold,
        )
    else:
        table = source.table(negate=options.negate)
    if table.gold is None and verdicts is None:
        raise ValueError(
            f"{Path(path).name}: has no true reward; name its column with --gold (or --gold-wide), or the verdicts it "
            "follows from with --verdicts"
        )
    return error_report(table, verdicts=verdicts, outputs=_outputs(options, source, table, path), loo=options.loo)


def _stored(path: str) -> NDArray[Any] | None:
    """Return the verdicts of a table that was stored whole; None where there are none, or rollouts are missing."""
    import numpy as np

    from rankdiag.cli.rewards._arrays import stored_table

    table = stored_table(Path(path)) if Path(path).suffix.lower() == ".json" else None
    return None if table is None or np.isnan(table.values).any() else table.verdicts


def _verdict(source: Source, name: str, path: str) -> NDArray[Any]:
    import numpy as np

    values = source.table(name).values
    if not (np.isnan(values) | (values == 0) | (values == 1)).all():
        raise ValueError(f"{Path(path).name}: {name!r} must hold verdicts, true or false (1 or 0), to be in --verdicts")
    return values


def _outputs(options: argparse.Namespace, source: Source, table: Any, path: str) -> NDArray[Any] | None:
    """Return a number for each distinct response of a prompt; None where the file has no responses."""
    import numpy as np

    from rankdiag.cli.rewards._rows import Rows
    from rankdiag.rewards import RewardTable

    name = _RESPONSE if options.response is None else options.response
    if not isinstance(source, Rows) or options.wide is not None or name not in source.names:
        if options.response is not None:
            listed = ", ".join(map(repr, source.names[:12]))
            raise ValueError(f"{Path(path).name}: has no column {name!r} of responses; columns are {listed}")
        return None
    known: dict[str, int] = {}
    texts = [json.dumps(row.get(name), sort_keys=True, ensure_ascii=False) for _, row in source.rows]
    keys = source.prompt_ids()
    records = ({**key, "reward": known.setdefault(t, len(known))} for key, t in zip(keys, texts, strict=True))
    found = RewardTable.from_records(records).values
    return np.where(np.isnan(found), -1.0, found)

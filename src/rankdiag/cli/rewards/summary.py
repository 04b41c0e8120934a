"""``rankdiag rewards summary``: whether the rewards of a file of rollouts can move a policy."""

from __future__ import annotations

import argparse
from typing import Any

from rankdiag.cli._output import add_output_arguments, check_output, deliver
from rankdiag.cli.rewards._classifiers import add_reward_model, check_reward_model, scored_table
from rankdiag.cli.rewards._input import FILES, add_table_arguments, check_columns, open_source

__all__ = ["add_arguments"]


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "summary",
        help="whether these rewards can move a policy, and for how many prompts they cannot",
        description="Summarise rewards of rollouts: how far they can move a policy, and how many prompts give nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", help=FILES)
    add_table_arguments(parser)
    add_reward_model(parser)
    parser.add_argument(
        "--response",
        metavar="COLUMN",
        help="response of a row, for --reward-model (default response, completion, response_ids)",
    )
    group = parser.add_argument_group("figures")
    group.add_argument(
        "--tau", type=float, action="append", metavar="X", help="a standard deviation that counts as flat; repeatable"
    )
    group.add_argument("--ci", type=float, default=0.95, metavar="LEVEL", help="level of intervals (default 0.95)")
    group.add_argument("--bootstrap", type=int, default=0, metavar="B", help="resamples of prompts instead of t")
    group.add_argument("--seed", type=int, metavar="N", help="of the resamples")
    group.add_argument("--r-max", type=float, metavar="X", help="the best reward (default the highest of the table)")
    group.add_argument("--margin", type=float, metavar="X", help="how far below it is far (default a quarter of range)")
    group.add_argument(
        "--group-size",
        type=int,
        action="append",
        metavar="K",
        help="show the share of groups without spread at this size (default doublings); repeatable",
    )
    add_output_arguments(parser, "frac_zero_std > 0.5")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.rewards import RewardSummary, summarize

    check_reward_model(options)
    check_columns(options)
    check_output(options, RewardSummary, inputs=(options.table, options.reward_model))
    source = open_source(options, options.table)
    table = source.table(negate=options.negate) if options.reward_model is None else scored_table(options, source)
    given: dict[str, Any] = {} if options.tau is None else {"taus": tuple(options.tau)}
    result = summarize(
        table,
        ci=options.ci,
        bootstrap=options.bootstrap,
        rng=options.seed,
        r_max=options.r_max,
        margin=options.margin,
        group_sizes=tuple(options.group_size or ()),
        **given,
    )
    return deliver(result, options)

"""``rankdiag graph bounds``: bounds on what a graph network of given widths can express across a partition."""

from __future__ import annotations

import argparse
from typing import Any

from rankdiag.cli._output import add_output_arguments, check_output, deliver
from rankdiag.cli.graph._input import add_graph, add_subset, add_target, files_of, open_graph, subset_of, target_of

__all__ = ["add_arguments"]


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "bounds",
        help="bounds on what a network of given widths can express across a partition, and its bottleneck",
        description=(
            "Bound the separation rank of a graph network with products across a partition of the vertices, and show "
            "which vertices of which layer limit it. --exact counts the rank of almost all weights as well."
        ),
        allow_abbrev=False,
    )
    add_graph(parser)
    group = parser.add_argument_group("network")
    add_subset(group, required=True)
    group.add_argument(
        "--depth", type=int, required=True, metavar="L", help="layers of the network; walks have length L - 1"
    )
    group.add_argument("--d-in", type=int, required=True, metavar="D", help="features of a vertex")
    group.add_argument("--d-hidden", type=int, required=True, metavar="D", help="width of the hidden layers")
    add_target(group)
    group.add_argument("--exact", action="store_true", help="count the generic rank too, up to --max-rank")
    group.add_argument("--max-rank", type=int, metavar="R", help="samples of each side at most (default 512)")
    group.add_argument("--seed", type=int, metavar="N", help="of the samples (default 0)")
    add_output_arguments(parser, "log_upper_mincut < 3")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.graphs import GenericRank, SeparationRankBounds, generic_separation_rank, separation_rank_bounds

    for name in ("max_rank", "seed"):
        if getattr(options, name) is not None and not options.exact:
            options.usage_error(f"argument --{name.replace('_', '-')}: needs --exact")
    kinds = (SeparationRankBounds, GenericRank) if options.exact else (SeparationRankBounds,)
    check_output(options, *kinds, inputs=files_of(options))
    graph = open_graph(options).edges
    sizes = (options.depth, options.d_in, options.d_hidden)
    subset, target = subset_of(options, graph), target_of(options, graph)
    found = separation_rank_bounds(graph, subset, *sizes, target=target)
    if not options.exact:
        return deliver(found, options)
    limit = {} if options.max_rank is None else {"max_rank": options.max_rank}
    rank = generic_separation_rank(graph, subset, *sizes, target=target, rng=options.seed or 0, **limit)
    return deliver(found, options, rank)

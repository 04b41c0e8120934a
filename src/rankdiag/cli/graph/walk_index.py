"""``rankdiag graph walk-index``: how far a graph network of a given depth can relate two sides of a graph."""

from __future__ import annotations

import argparse
from typing import Any

from rankdiag.cli._output import add_output_arguments, check_output, deliver
from rankdiag.cli.graph._input import (
    add_graph,
    add_groups,
    add_subset,
    add_target,
    files_of,
    groups_of,
    open_graph,
    subset_of,
    target_of,
)

__all__ = ["add_arguments"]

_MOST = 1_000_000  # vertices that are compared one by one: ten seconds and two gigabytes


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "walk-index",
        help="how far a graph network of a given depth can relate two sides of a graph",
        description=(
            "Count the walks through which a graph network of a given depth can relate a set of vertices to the rest. "
            "One side with --subset gives a report, groups with --group-by a table of every group against the rest; "
            "with neither, every vertex is a group."
        ),
        allow_abbrev=False,
    )
    add_graph(parser)
    group = parser.add_argument_group("partition")
    sides = group.add_mutually_exclusive_group()
    add_subset(sides)
    add_groups(sides, text="each group is compared with the rest")
    group.add_argument(
        "--depth", type=int, required=True, metavar="L", help="layers of the network; walks have length L - 1"
    )
    add_target(group)
    group.add_argument("--pairs", action="store_true", help="of groups, compare two at a time")
    group.add_argument("--d-in", type=int, metavar="D", help="features of a vertex: adds bounds to the report")
    group.add_argument("--d-hidden", type=int, metavar="D", help="width of the network, with --d-in")
    add_output_arguments(parser, "share < 0.05")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.graphs import PartitionScan, WalkIndexReport, partition_scan, walk_index_report

    if (options.d_in is None) != (options.d_hidden is None):
        options.usage_error("argument --d-in: needs --d-hidden, and the other way round")
    if options.d_in is not None and options.subset is None:
        options.usage_error("argument --d-in: needs --subset")
    if options.pairs and options.group_by is None:
        options.usage_error("argument --pairs: needs --group-by")
    one = options.subset is not None
    check_output(options, WalkIndexReport if one else PartitionScan, inputs=files_of(options))
    file = open_graph(options)
    graph = file.edges
    target = target_of(options, graph)
    if one:
        sizes = {"d_in": options.d_in, "d_hidden": options.d_hidden}
        return deliver(
            walk_index_report(graph, subset_of(options, graph), options.depth, target=target, **sizes), options
        )
    if options.group_by is not None:
        groups = groups_of(options, file)
    elif graph.num_nodes > _MOST:
        raise ValueError(
            f"{file.name}: has {graph.num_nodes} vertices, more than the {_MOST} that are compared one by one; name "
            "--subset or --group-by, or take --labels if most ids are in no edge"
        )
    else:  # every vertex is a group
        groups = [str(vertex) for vertex in (range(graph.num_nodes) if graph.labels is None else graph.labels)]
    return deliver(partition_scan(graph, groups, options.depth, target=target, pairs=options.pairs), options)

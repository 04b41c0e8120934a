"""``rankdiag graph sparsify``: remove edges from a graph, those first that cost its vertices least."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankdiag._files import write_text
from rankdiag.cli._output import add_output_arguments, check_output, check_targets, deliver
from rankdiag.cli.graph._input import add_graph, add_groups, add_subset, files_of, groups_of, open_graph, subset_of

if TYPE_CHECKING:
    from rankdiag.adapters import GraphFile
    from rankdiag.graphs import EdgeList

__all__ = ["add_arguments"]

_NAME = "WIS"


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser(
        "sparsify",
        help="remove edges, those first that cost the vertices least",
        description=(
            "Remove edges by walk index sparsification, and show what is left of the graph level by level. Without "
            "--keep-ratio and --num-remove all levels are shown and nothing is written. A rule of --fail-on looks at "
            "every level that is shown."
        ),
        allow_abbrev=False,
    )
    add_graph(parser)
    group = parser.add_argument_group("removal")
    amount = group.add_mutually_exclusive_group()
    amount.add_argument("--keep-ratio", type=float, metavar="R", help="share of the edges to keep, 0 to 1")
    amount.add_argument("--num-remove", type=int, metavar="K", help="number of edges to remove")
    group.add_argument(
        "--depth", type=int, default=2, metavar="L", help="layers of the network (default 2, by degrees alone)"
    )
    group.add_argument(
        "--tie-break", choices=("first", "last"), default="first", help="of equal edges, which goes (default first)"
    )
    group.add_argument(
        "--batch-size", type=int, default=1, metavar="B", help="edges that go between two looks at the graph"
    )
    group.add_argument("--write", metavar="FILE", help="write the sparsified graph here, in the format of the input")
    group.add_argument("--certificate", metavar="FILE", help="write a certificate of the order here, as .json")
    curves = parser.add_argument_group("curves")
    curves.add_argument(
        "--compare", action="append", choices=("random", "spectral"), default=[], help="another order; repeatable"
    )
    curves.add_argument("--seed", type=int, default=0, metavar="N", help="of those orders (default 0)")
    sides = curves.add_mutually_exclusive_group()
    add_subset(sides, text="a set of vertices whose walk index is followed too")
    add_groups(sides, text="the walk index of each group is followed")
    add_output_arguments(parser, "isolated > 0")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rankdiag.graphs import RemovalCurves, removal_curves, wis_order

    _check(options)
    check_output(options, RemovalCurves, inputs=files_of(options))
    targets = {
        "--output": options.output,
        "--html": options.html,
        "--write": options.write,
        "--certificate": options.certificate,
    }
    check_targets(options, targets, files_of(options))
    file = open_graph(options)
    graph = file.edges
    gone = _removals(options, graph)
    order = wis_order(graph, options.depth, num_edges=gone, tie_break=options.tie_break, batch_size=options.batch_size)
    orders = {_NAME: order, **_others(options, graph, gone)}
    curves = removal_curves(graph, orders, options.depth, subsets=_followed(options, file), **_levels(graph, gone))
    if options.certificate is not None:
        from rankdiag.graphs import wis_certificate

        write_text(options.certificate, wis_certificate(graph, order).to_json() + "\n")
    if options.write is not None:
        from rankdiag.adapters import write_graph

        keep = order.removal_rank < 0
        write_graph(file, options.write, keep=keep)
        if file.format == "edges" and not options.quiet:
            _say_what_is_lost(file, options.write, keep)
    return deliver(curves, options)


def _say_what_is_lost(file: GraphFile, path: str, keep: Any) -> None:
    """Say on standard error how many vertices have lost their last line in a list of edges."""
    import numpy as np

    ids = file.edges.column_edge[: file.columns.shape[1]]
    stays = (ids < 0) | np.append(keep, False)[ids]
    alone = len(np.unique(file.columns)) - len(np.unique(file.columns[:, stays]))
    if alone:
        remedy = "" if file.edges.labels is not None else f"; read it with --num-nodes {file.edges.num_nodes}"
        sys.stderr.write(f"rankdiag: {Path(path).name}: {alone} vertices have no line any more{remedy}\n")


def _check(options: argparse.Namespace) -> None:
    """Refuse options that cannot work together; ends as wrong usage."""
    from rankdiag.adapters._graph_files import format_of

    if options.write is not None:
        if options.keep_ratio is None and options.num_remove is None:
            options.usage_error("argument --write: needs --keep-ratio or --num-remove")
        try:
            wanted = options.format or format_of(Path(options.file))
        except ValueError:
            return  # the reader says what FILE must be
        try:
            written = format_of(Path(options.write))
        except ValueError:
            written = None
        if written != wanted:
            options.usage_error(
                f"argument --write: must end as FILE does, for the format stays {wanted}; got {options.write!r}"
            )
    if options.certificate is not None and Path(options.certificate).suffix.lower() != ".json":
        options.usage_error(f"argument --certificate: must end in .json; got {options.certificate!r}")


def _removals(options: argparse.Namespace, graph: EdgeList) -> int | None:
    """Return how many edges are to go; None for all levels."""
    from rankdiag._validate import integer
    from rankdiag.graphs._wis import number_kept

    if options.keep_ratio is not None:
        return graph.num_edges - number_kept(graph.num_edges, options.keep_ratio)
    if options.num_remove is not None:
        return min(integer(options.num_remove, "num_remove", low=0), graph.num_edges)
    return None


def _levels(graph: EdgeList, gone: int | None) -> dict[str, Any]:
    """Return the shares of edges at which curves are read: ten up to what is removed, or every 5 %."""
    total = graph.num_edges
    if gone is None or not total:
        return {}
    counts = sorted({round(gone * step / 10) for step in range(11)})
    return {"ratios": [count / total for count in counts], "draw_ratio": gone / total}


def _others(options: argparse.Namespace, graph: EdgeList, gone: int | None) -> dict[str, Any]:
    from rankdiag.graphs import random_order, spectral_order

    makers: dict[str, Any] = {"random": random_order, "spectral": spectral_order}
    return {name: makers[name](graph, rng=options.seed)[:gone] for name in dict.fromkeys(options.compare)}


def _followed(options: argparse.Namespace, file: GraphFile) -> dict[str, Any] | None:
    """Return the sets of vertices whose walk index is followed, by name."""
    import numpy as np

    if options.subset is not None:
        return {"subset": subset_of(options, file.edges)}
    if options.group_by is None:
        return None
    groups = groups_of(options, file)
    names = sorted({group for group in groups if group is not None})
    return {name: np.array([group == name for group in groups], bool) for name in names}

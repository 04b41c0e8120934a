"""``rankdiag weights``: the spectra of a checkpoint's weights, or of what a fine-tuning changed."""

from __future__ import annotations

import argparse

from rankdiag.cli._output import add_output_arguments, check_output, deliver, wants_progress

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a .safetensors file, an index .json, a folder as transformers or peft save it, or a repo id",
    )
    parser.add_argument("--delta", metavar="BASE", help="report what changed from this checkpoint to PATH")
    parser.add_argument("--select", metavar="REGEX", help="only tensors whose name this pattern finds")
    parser.add_argument(
        "--measures",
        choices=("all", "no_tail", "stable_rank"),
        default="all",
        help="which columns: all, without the power-law tail, or the stable rank alone (fast)",
    )
    parser.add_argument("--n-jobs", type=int, default=1, metavar="N", help="threads (default 1)")
    parser.add_argument(
        "--max-bytes", type=int, metavar="N", help="read a tensor above this many bytes of float64 in blocks"
    )
    add_output_arguments(parser, "effective_rank_ratio < 0.05")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from rankdiag.weights import WeightDeltaReport, WeightReport, weight_delta_report, weight_report

    check_output(
        options,
        WeightReport if options.delta is None else WeightDeltaReport,
        inputs=(options.path, options.delta),
    )
    choices = {
        "select": options.select,
        "measures": options.measures,
        "n_jobs": options.n_jobs,
        "progress": wants_progress(options),
        **({} if options.max_bytes is None else {"max_bytes": options.max_bytes}),
    }
    if options.delta is None:
        return deliver(weight_report(options.path, **choices), options)
    return deliver(weight_delta_report(options.delta, options.path, **choices), options)

"""``rankdiag graph``: what a graph network can relate on a graph in a file, and which of its edges may go."""

from __future__ import annotations

import argparse

from rankdiag.cli.graph import bounds, sparsify, walk_index

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their arguments."""
    commands = parser.add_subparsers(title="what to do", metavar="walk-index|sparsify|bounds", required=True)
    for module in (walk_index, sparsify, bounds):
        module.add_arguments(commands)


def run(options: argparse.Namespace) -> int:
    """Run the sub-command that was named and return its exit code."""
    code: int = options.run(options)
    return code

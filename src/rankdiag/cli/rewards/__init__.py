"""``rankdiag rewards``: what a file of rollouts with rewards says about the training that is to come."""

from __future__ import annotations

import argparse

from rankdiag.cli.rewards import errors, implicit, summary, teacher

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands and their arguments."""
    commands = parser.add_subparsers(title="what to do", metavar="summary|teacher|errors|implicit", required=True)
    for module in (summary, teacher, errors, implicit):
        module.add_arguments(commands)


def run(options: argparse.Namespace) -> int:
    """Run the sub-command that was named and return its exit code."""
    code: int = options.run(options)
    return code

"""``rankdiag rewards teacher``."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_arguments"]


def add_arguments(commands: Any) -> None:
    """Add the sub-command and its arguments."""
    parser = commands.add_parser("teacher", help="teacher", allow_abbrev=False)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    raise ValueError("`teacher` is not there yet")

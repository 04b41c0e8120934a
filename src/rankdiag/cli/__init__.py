"""The command `rankdiag`: one module for each sub-command, loaded when it is named.

Exit codes: 0 done; 1 a gate of ``--fail-on`` was hit; 2 wrong usage; 3 input that cannot be read or is not
valid; 4 an optional package is missing; 130 interrupted.
"""

from rankdiag.cli._main import main

__all__ = ["main"]

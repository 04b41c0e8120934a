"""Choose the sub-command, run it, and turn what went wrong into an exit code and one line on standard error."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from rankdiag._optional import MissingExtraError
from rankdiag._text import clean
from rankdiag._version import __version__

__all__ = ["COMMANDS", "GATE", "INPUT", "INTERRUPTED", "MISSING", "OK", "USAGE", "main"]

OK, GATE, USAGE, INPUT, MISSING, INTERRUPTED = 0, 1, 2, 3, 4, 130

COMMANDS = {
    "demo": "run the rooms that stand on small offline data and write one HTML report",
    "graph": "what a graph network can relate on a graph in a file, where it is held up, and which edges may go",
    "preference": "screen preference pairs before training, filter them, and see what training did to them",
    "rewards": "read rollouts with rewards before training: gradients, teachers, reward errors, implicit rewards",
    "weights": "report the spectra of a checkpoint's weights, or of a fine-tuning's update",
}

_EXIT_CODES = """exit codes:
  0  done, and no rule of --fail-on was met
  1  a rule of --fail-on was met
  2  wrong usage
  3  input that cannot be read, or is not valid
  4  an optional package is missing"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; None takes those of the process.

    Returns
    -------
    int
        Exit code: 0 done, 1 a gate was hit, 2 usage, 3 unreadable or invalid input, 4 a missing extra,
        130 interrupted.

    Raises
    ------
    Exception
        Only what is a defect of this package; wrong usage and bad input end in an exit code and a line on standard
        error.

    Examples
    --------
    >>> from rankdiag.cli import main
    >>> main(["--version"])
    rankdiag 0.1.0
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser(arguments).parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse leaves this way, after --help too
        return stop.code if isinstance(stop.code, int) else USAGE
    except MissingExtraError as error:
        return _fail(error, MISSING)
    except BrokenPipeError:  # the reader of a pipe has gone, `| head` say; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ValueError, TypeError, OSError) as error:
        return _fail(error, INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("rankdiag: interrupted\n")
        return INTERRUPTED


def _fail(error: Exception, code: int) -> int:
    text = "\n".join(clean(line) for line in str(error).splitlines()) or type(error).__name__
    sys.stderr.write(f"rankdiag: {text}\n")
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankdiag",
        description="Theory diagnostics for deep learning.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rankdiag {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    named = next((word for word in arguments if not word.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            epilog=_EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name == named:
            importlib.import_module(f"rankdiag.cli.{name}").add_arguments(command)
    return parser

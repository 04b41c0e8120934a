"""What every sub-command does with its result: print or write it, and compare it with the gates.

Nothing here knows a single measurement: a result renders itself, and a rule names one of its columns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rankdiag._files import write_text, written_whole
from rankdiag._optional import optional
from rankdiag._result import Result, Table
from rankdiag._rules import flag, parse_rule, rule_columns
from rankdiag._text import clean

__all__ = ["add_output_arguments", "check_output", "check_targets", "deliver", "wants_progress"]

_MAX_FINDINGS = 20  # lines of met rules on standard error; a dataset has many rows
_SUFFIXES = (".json", ".csv", ".md", ".txt", ".jsonl", ".parquet")
_COLOURS = {"[ok]": "32", "[WARN]": "33", "[ALERT]": "31;1"}


def add_output_arguments(parser: argparse.ArgumentParser, rule: str) -> None:
    """Add what every sub-command has for its result; `rule` is an example for ``--fail-on``."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON document to standard output")
    group.add_argument(
        "--output",
        metavar="FILE",
        help="write the result here instead of printing it: .json, .csv, .md, .txt, or .jsonl and .parquet if there "
        "is a row for each input (with --json always JSON)",
    )
    group.add_argument("--html", metavar="FILE", help="write one self-contained HTML page as well")
    group.add_argument(
        "--fail-on",
        metavar="RULE",
        action="append",
        default=[],
        help="exit with 1 if it is met: 'alert', 'warn' (or worse), or COLUMN OP NUMBER such as "
        f"'{rule}'; may be repeated",
    )
    group.add_argument("--max-rows", type=int, default=40, metavar="N", help="rows of a printed table (default 40)")
    group.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.set_defaults(usage_error=parser.error)


def wants_progress(options: argparse.Namespace) -> bool:
    """Whether to ask for a progress bar; it is drawn on standard error, and only if that is a terminal."""
    return not options.quiet and sys.stderr.isatty()


def check_output(
    options: argparse.Namespace, kind: type[Result], *others: type[Result], inputs: Sequence[str | None] = ()
) -> None:
    """Refuse rules and file names that cannot work, before any long computation; ends as wrong usage.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    kind : type
        Class of the result, whose columns a rule may name.
    *others : type
        Classes of results that come with it.
    inputs : sequence of str
        Files and folders that are read, which no output may replace.
    """
    try:
        for text in options.fail_on:
            columns = [name for each in (kind, *others) for name in rule_columns(each)]
            parse_rule(text, columns=columns, judged=any(each.judged for each in (kind, *others)))
    except ValueError as error:
        options.usage_error(f"argument --fail-on: {error}")
    if options.max_rows < 1:
        options.usage_error(f"argument --max-rows: must be >= 1; got {options.max_rows}")
    suffix = "" if options.output is None else Path(options.output).suffix.lower()
    if options.output is not None and not options.json and suffix not in _SUFFIXES and not _is_device(options.output):
        options.usage_error(f"argument --output: must end in {', '.join(_SUFFIXES)}; got {options.output!r}")
    check_targets(options, {"--output": options.output, "--html": options.html}, inputs)


def check_targets(options: argparse.Namespace, targets: Mapping[str, str | None], inputs: Sequence[str | None]) -> None:
    """Refuse files that cannot be written, that are inputs, or that two options name; ends as wrong usage.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    targets : mapping of str to str
        Option -> file that it names, None where it is not given.
    inputs : sequence of str
        Files and folders that are read.
    """
    read = [Path(name).resolve() for name in inputs if name is not None]
    taken: dict[Path, str] = {}
    for flag_name, name in targets.items():
        if name is None or _is_device(name):
            continue
        path = Path(name).resolve()
        if not path.parent.is_dir():
            options.usage_error(f"argument {flag_name}: the folder of {name!r} does not exist")
        if path.is_dir():
            options.usage_error(f"argument {flag_name}: must be a file; {name!r} is a folder")
        if path in read:
            options.usage_error(f"argument {flag_name}: {name!r} is an input, and would be replaced; take another name")
        if path in taken:
            options.usage_error(f"argument {flag_name}: {name!r} is what {taken[path]} writes; take another name")
        taken[path] = flag_name
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            options.usage_error(f"argument {flag_name}: {name!r} cannot be written ({error.strerror})")


def _is_device(name: str) -> bool:
    """Whether a name is that of a device or a pipe, which is written to as it is."""
    path = Path(name)
    return path.exists() and not path.is_file() and not path.is_dir()


def deliver(result: Result, options: argparse.Namespace, *others: Result) -> int:
    """Print or write a result as the options ask, and return 1 if a rule of ``--fail-on`` is met, else 0.

    With `others` they make one document; a table or rows are those of the first result. A rule looks at the first of
    them that has its column.
    """
    if options.output is not None and Path(options.output).suffix.lower() == ".parquet" and not options.json:
        _write_parquet(result, options.output)
    elif options.output is not None:
        write_text(options.output, _as_file(result, Path(options.output).suffix.lower(), options, others))
    elif options.json:
        sys.stdout.write(_as_json(result, others))
    else:
        sys.stdout.write(_as_text(result, options.max_rows, others) + "\n")
    if options.html is not None:
        from rankdiag.report import write_html

        write_html((result, *others) if others else result, options.html)
    parts = (result, *others)
    return max(_gate(part, [rule for rule in options.fail_on if _part_of(rule, parts) is part]) for part in parts)


def _part_of(rule: str, parts: Sequence[Result]) -> Result:
    """Return the first result that a rule can look at."""
    for part in parts:
        with contextlib.suppress(ValueError):
            parse_rule(rule, columns=rule_columns(part), judged=part.judged)
            return part
    return parts[0]


def _gate(result: Result, rules: list[str]) -> int:
    findings = flag(result, rules)
    met = [finding for finding in findings if finding.severity in {"warn", "alert"}]
    unchecked: dict[str, int] = {}
    for finding in findings:
        if finding.severity == "unknown":
            unchecked[finding.quantity] = unchecked.get(finding.quantity, 0) + 1
    for finding in met[:_MAX_FINDINGS]:
        sys.stderr.write(f"rankdiag: --fail-on: {clean(finding.sentence)}\n")
    if len(met) > _MAX_FINDINGS:
        sys.stderr.write(f"rankdiag: --fail-on: and {len(met) - _MAX_FINDINGS} more\n")
    for column, count in unchecked.items():
        sys.stderr.write(f"rankdiag: --fail-on: {count} rows have no {column} and were not checked\n")
    if not met and any(count == _rows_compared(result, column) for column, count in unchecked.items()):
        raise ValueError("a rule of --fail-on could not be checked on any row; choose a column that has values")
    return 1 if met else 0


def _rows_compared(result: Result, column: str) -> int:
    """Return how many cells a rule on a column looks at: one for each row, or one for a number of the whole."""
    per_row = isinstance(result, Table) or column in getattr(result, "columns", ())
    return len(cast(Any, result)) if per_row else 1


def _as_json(result: Result, others: Sequence[Result]) -> str:
    if not others:
        return result.to_json(indent=2) + "\n"
    from rankdiag.report import to_json

    return to_json((result, *others), indent=2) + "\n"


def _summary(result: Result, others: Sequence[Result], **size: Any) -> str:
    if not others:
        return result.summary(**size)
    from rankdiag.report import to_text

    return to_text((result, *others), **size)


def _as_file(result: Result, suffix: str, options: argparse.Namespace, others: Sequence[Result]) -> str:
    if options.json or suffix == ".json":
        return _as_json(result, others)
    if suffix == ".csv" and hasattr(result, "to_csv"):
        return str(cast(Any, result).to_csv())
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(result))
    if suffix == ".md":
        return _as_markdown(result, options.max_rows, others)
    return _summary(result, others, max_rows=options.max_rows) + "\n"


def _as_markdown(result: Result, max_rows: int, others: Sequence[Result]) -> str:
    """Return a table as a table of Markdown, and anything else as text that no reader of Markdown interprets."""
    if isinstance(result, Table) and not others:
        return result.to_markdown() + "\n"
    text = _summary(result, others, max_rows=max_rows)
    fence = "`" * (1 + max(2, *(len(run) for run in re.findall("`+", text)), 0))
    return f"{fence}text\n{text}\n{fence}\n"


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    """Return plain rows, one for each input, of a result that has them."""
    if not hasattr(result, "records"):
        raise ValueError(f"{type(result).__name__} has no rows for .jsonl or .parquet; write .json or .csv")
    rows: Iterator[dict[str, Any]] = cast(Any, result).records()
    return rows


def _write_parquet(result: Result, path: str) -> None:
    arrow = optional("pyarrow", extra="parquet", feature="writing Parquet")
    parquet = optional("pyarrow.parquet", extra="parquet", feature="writing Parquet")
    table = arrow.Table.from_pylist(list(_rows(result)))
    with written_whole(path) as stream:
        parquet.write_table(table, stream)


def _as_text(result: Result, max_rows: int, others: Sequence[Result]) -> str:
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    text = _summary(result, others, width=width, max_rows=max_rows)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        for mark, colour in _COLOURS.items():
            text = text.replace(mark, f"\x1b[{colour}m{mark}\x1b[0m")
    return text

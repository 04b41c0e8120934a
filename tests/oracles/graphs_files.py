"""Reading a list of edges as plainly as it can be done: one line, one split. Shares no code with src."""

from __future__ import annotations


def plain_edges(text: str, delimiter: str | None = None) -> list[tuple[str, str]]:
    """Return the two ends of every line that is neither empty nor a comment."""
    found = []
    for line in text.split("\n"):
        if line.strip() and line.strip()[0] not in "#%":
            fields = line.split() if delimiter is None else [field.strip() for field in line.split(delimiter)]
            found.append((fields[0], fields[1]))
    return found


def lines_of(text: str, gone: set[frozenset[str]], delimiter: str | None = None) -> str:
    """Return the text without the lines of these edges."""
    kept = []
    for line in text.splitlines(keepends=True):
        if line.strip() and line.strip()[0] not in "#%":
            fields = line.split() if delimiter is None else [field.strip() for field in line.split(delimiter)]
            if frozenset(fields[:2]) in gone:
                continue
        kept.append(line)
    return "".join(kept)

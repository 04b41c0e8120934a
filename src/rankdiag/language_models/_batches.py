"""What is run together: which rows share a tree, which groups a batch, and how a batch is cut into forwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rankdiag.language_models._layout import Rows, Tree
from rankdiag.language_models._model import Subject

__all__ = [
    "Batch",
    "Layout",
    "batches_of",
    "forwards_of",
    "grow_trees",
    "padded_tokens",
    "refuse_packed",
    "straddles",
]


Layout = Literal["plain", "packed"]


_LARGEST_TREE = 4096  # tokens: beyond, a dense mask costs more than the tokens it saves, unless it is cheaper anyway


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole groups that are delivered together.

    Attributes
    ----------
    index : int
        Place in the plan.
    layout : {"plain", "packed"}
        How its rows are laid out.
    groups : tuple of int
        Its groups, ascending.
    rows : tuple of int
        Their rows, ascending.
    trees : tuple of Tree
        The trees of a packed batch.
    n_tokens : int
        Tokens fed, without padding.
    n_padded : int
        Tokens fed, with padding.

    Examples
    --------
    >>> from rankdiag.language_models import StateSums, encode_preferences, plan
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> [(batch.layout, batch.groups, batch.rows) for batch in plan(data, model, [StateSums()]).batches]
    [('packed', (0,), (0, 1))]
    """

    index: int
    layout: Layout
    groups: tuple[int, ...]
    rows: tuple[int, ...]
    trees: tuple[Tree, ...]
    n_tokens: int
    n_padded: int


def grow_trees(
    source: Rows, usable: Sequence[int], subjects: Sequence[Subject], layout: str, budget: int, depth: int
) -> tuple[list[Tree], list[int], str]:
    """Find what to pack: trees, the groups that stay plain, and why."""
    if layout == "plain":
        return [], list(usable), "the plain layout was asked for"
    if layout == "packed":
        refuse_packed(subjects, depth)
    refusals = [text for text in (subject.packed_refusal(depth) for subject in subjects) if text]
    if refusals:
        return [], list(usable), refusals[0]
    by_prompt: dict[tuple[int, int], list[int]] = {}
    loose: list[int] = []
    for group in usable:
        if source.one_prompt(group):
            row = source.of_group(group).start
            key = (int(source.data.prompt_id[row]), int(source.data.prompt_start[row]))
            by_prompt.setdefault(key, []).append(group)
        else:
            loose.append(group)
    trees: list[Tree] = []
    for groups in by_prompt.values():
        for part in _parts(source, groups, budget):
            tree = Tree.grow(source, part)
            if _pays(source, tree):
                trees.append(tree)
            else:
                loose += part
    if not trees:
        return [], sorted(loose), "no two rows share a prompt"
    return trees, sorted(loose), "rows with one prompt share it, and the beginnings that their responses share"


def refuse_packed(subjects: Sequence[Subject], depth: int) -> None:
    for subject in subjects:
        text = subject.packed_refusal(depth)
        if text:
            raise ValueError(f"`layout='packed'` would be wrong on this model: {text}. Use layout='auto'")


def _parts(source: Rows, groups: Sequence[int], budget: int) -> list[list[int]]:
    """Put groups of one prompt together while their tree cannot exceed the budget."""
    parts: list[list[int]] = []
    room = 0
    limit = min(budget, _LARGEST_TREE)
    for group in groups:
        rows = source.of_group(group)
        need = sum(len(source.fed(row)) for row in rows)
        if not parts or need > room:
            parts.append([])
            room = limit - len(source.prompt(rows.start))
        parts[-1].append(group)
        room -= need
    return parts


def _pays(source: Rows, tree: Tree) -> bool:
    lengths = [source.length(row) for row in tree.rows]
    if tree.n_tokens >= sum(lengths):
        return False
    return tree.n_tokens <= _LARGEST_TREE or tree.n_tokens**2 <= sum(length**2 for length in lengths)


def straddles(source: Rows, rows: Sequence[int], turn: int) -> bool:
    return len({source.length(row) > turn for row in rows}) > 1


def batches_of(
    source: Rows, trees: Sequence[Tree], loose: Sequence[int], budget: int, whole: bool, turn: int | None
) -> tuple[Batch, ...]:
    """Fill batches with trees and plain groups of like length, the longest first."""
    parts: list[tuple[int, Layout, list[Any]]] = []
    ordered = sorted(trees, key=lambda tree: (-tree.n_tokens, tree.groups))
    for side in _sides([(t.n_tokens, 1, t) for t in ordered], [t.depth for t in ordered], turn):
        parts.extend((width, "packed", part) for width, part in _fill(side, budget))
    units = [(max(source.length(row) for row in source.of_group(group)), group) for group in loose]
    units.sort(key=lambda unit: (-unit[0], unit[1]))
    sized = [(length, len(source.of_group(group)), group) for length, group in units]
    alone = [unit for unit in sized if turn is not None and straddles(source, source.of_group(unit[2]), turn)]
    parts.extend((unit[0], "plain", [unit[2]]) for unit in alone)
    rest = [unit for unit in sized if unit not in alone]
    for side in _sides(rest, [unit[0] for unit in rest], turn):
        parts.extend((width, "plain", part) for width, part in _fill(side, budget))
    parts.sort(key=lambda part: -part[0])
    batches = []
    for index, (_, kind, members) in enumerate(parts):
        own = tuple(members) if kind == "packed" else ()
        groups = sorted(group for tree in own for group in tree.groups) if own else sorted(members)
        rows = tuple(row for group in groups for row in source.of_group(group))
        n_tokens = sum(tree.n_tokens for tree in own) if own else sum(source.length(row) for row in rows)
        n_padded = sum(padded_tokens(source, part) for part in forwards_of(source, own, groups, budget, whole, turn))
        batches.append(
            Batch(
                index=index,
                layout=kind,
                groups=tuple(groups),
                rows=rows,
                trees=own,
                n_tokens=n_tokens,
                n_padded=n_padded,
            )
        )
    return tuple(batches)


def _sides(units: Sequence[Any], lengths: Sequence[int], turn: int | None) -> list[list[Any]]:
    """Part units at the length on whose two sides none may share a forward."""
    if turn is None:
        return [list(units)]
    pairs = list(zip(units, lengths, strict=True))
    return [[unit for unit, length in pairs if (length > turn) is beyond] for beyond in (True, False)]


def _fill(units: Sequence[tuple[int, int, Any]], budget: int) -> list[tuple[int, list[Any]]]:
    """Cut units (length, sequences, member), sorted by length, into runs whose padded size fits the budget."""
    runs: list[tuple[int, list[Any]]] = []
    width = used = 0
    for length, count, member in units:
        if not runs or (used + count) * width > budget:
            runs.append((length, []))
            width, used = length, 0
        runs[-1][1].append(member)
        used += count
    return runs


Member = Tree | tuple[int, ...]  # of a forward: a tree, or rows of one group in the plain layout


def forwards_of(
    source: Rows, trees: Sequence[Tree], groups: Sequence[int], budget: int, whole: bool, turn: int | None = None
) -> list[list[Member]]:
    """Cut a batch into forwards: one, unless a single plain group is larger than the budget and may be cut."""
    if trees:
        return [list(trees)]
    units = [tuple(source.of_group(group)) for group in groups]
    if turn is not None and len(units) == 1 and straddles(source, units[0], turn):
        sides = [tuple(row for row in units[0] if (source.length(row) > turn) is beyond) for beyond in (True, False)]
        return [part for side in sides for part in _cut(source, [side], budget, whole)]
    return _cut(source, units, budget, whole)


def _cut(source: Rows, units: Sequence[tuple[int, ...]], budget: int, whole: bool) -> list[list[Member]]:
    rows = [row for unit in units for row in unit]
    longest = max(source.length(row) for row in rows)
    if whole or len(units) > 1 or longest * len(rows) <= budget:
        return [list(units)]
    size = max(1, budget // longest)
    return [[tuple(rows[first : first + size])] for first in range(0, len(rows), size)]


def padded_tokens(source: Rows, members: Sequence[Member]) -> int:
    """Tokens of a forward, padding included."""
    if isinstance(members[0], Tree):
        return max(member.n_tokens for member in members if isinstance(member, Tree)) * len(members)
    lengths = [source.length(row) for member in members if not isinstance(member, Tree) for row in member]
    return max(lengths) * len(lengths)

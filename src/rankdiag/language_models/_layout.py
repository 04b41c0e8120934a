"""Rows as sequences of tokens: which rows share tokens, and where in a forward each state is found.

Rows with one prompt form a tree: the prompt is its trunk, and responses branch off where they first differ. In the
packed layout a whole tree is one sequence; a token sees its ancestors only. In the plain layout a row is a sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankdiag.language_models._encoded import Encoded

__all__ = ["Feed", "Rows", "Tree", "feed_packed", "feed_plain", "prefix_length"]

Ints = NDArray[np.int64]


def prefix_length(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    """Length of the common prefix of two sequences of ids."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


@dataclass(slots=True, kw_only=True)
class Rows:
    """The rows of some data under one convention for the end of a response.

    Attributes
    ----------
    data : Encoded
        The data.
    implied_eos : bool
        Whether an EOS is taken to follow every response.
    feed_last : bool
        Whether the last token of a response is fed as well, for its state.
    """

    data: Encoded
    implied_eos: bool
    feed_last: bool
    first_row: Ints = field(init=False)
    _shared: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.first_row = np.searchsorted(self.data.group, np.arange(len(self.data) + 1))

    def of_group(self, group: int) -> range:
        """Rows of a group."""
        return range(int(self.first_row[group]), int(self.first_row[group + 1]))

    def prompt(self, row: int) -> NDArray[np.int32]:
        """Return what is left of the prompt of a row."""
        return self.data.prompts[int(self.data.prompt_id[row])][int(self.data.prompt_start[row]) :]

    def targets(self, row: int) -> NDArray[np.int64]:
        """Ids that the states of a row predict; an implied EOS without an id is -1."""
        ids = self.data.response_ids[row].astype(np.int64)
        if not self.implied_eos:
            return ids
        eos = self.data.tokenizer.get("eos")
        return np.append(ids, -1 if eos is None else int(eos))

    def counted(self, row: int) -> NDArray[np.bool_]:
        """Which of its states count."""
        mask = self.data.loss_mask[row]
        n = len(self.data.response_ids[row])
        full = np.ones(n, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        return np.append(full, True) if self.implied_eos else full

    def fed(self, row: int) -> NDArray[np.int32]:
        """Response tokens that are fed: all but the last, whose state predicts nothing, unless that is asked for."""
        ids = self.data.response_ids[row]
        return ids if self.implied_eos or self.feed_last else ids[:-1]

    def length(self, row: int) -> int:
        """Tokens fed for a row by itself."""
        return len(self.prompt(row)) + len(self.fed(row))

    def one_prompt(self, group: int) -> bool:
        """Whether all rows of a group have the same prompt tokens in front of them."""
        rows = self.of_group(group)
        ids, starts = self.data.prompt_id[rows.start : rows.stop], self.data.prompt_start[rows.start : rows.stop]
        return bool((ids == ids[0]).all() and (starts == starts[0]).all())

    def shared(self, group: int) -> int:
        """States that all rows of a group have in common: 0 for a single row or for prompts cut differently."""
        if group not in self._shared:
            rows = self.of_group(group)
            if len(rows) < 2 or not self.one_prompt(group):
                self._shared[group] = 0
            else:
                first = self.targets(rows[0])
                others = [self.targets(row) for row in rows[1:]]
                common = min(prefix_length(first, other) for other in others)
                self._shared[group] = min(common + 1, len(first), *(len(other) for other in others))
        return self._shared[group]


@dataclass(slots=True, kw_only=True)
class Tree:
    """Rows that share one prompt, as the tree of their tokens.

    Attributes
    ----------
    groups : tuple of int
        Groups whose rows these are.
    rows : tuple of int
        Rows in lexicographic order of what is fed.
    kept : tuple of int
        For each row in that order: how many response tokens it shares with the row before.
    n_tokens : int
        Tokens of the tree.
    depth : int
        Tokens of its longest path.
    """

    groups: tuple[int, ...]
    rows: tuple[int, ...]
    kept: tuple[int, ...]
    n_tokens: int
    depth: int

    @classmethod
    def grow(cls, source: Rows, groups: Sequence[int]) -> Tree:
        """Build the tree of the rows of some groups with one prompt."""
        rows = [row for group in groups for row in source.of_group(group)]
        rows.sort(key=lambda row: source.fed(row).astype(">u4").tobytes())
        kept = [0]
        for before, row in itertools.pairwise(rows):
            kept.append(prefix_length(source.fed(before), source.fed(row)))
        prompt = len(source.prompt(rows[0]))
        lengths = [len(source.fed(row)) for row in rows]
        return cls(
            groups=tuple(groups),
            rows=tuple(rows),
            kept=tuple(kept),
            n_tokens=prompt + sum(lengths) - sum(kept),
            depth=prompt + max(lengths),
        )


@dataclass(slots=True, kw_only=True)
class Feed:
    """One forward: what goes in, and where the states of each row come out.

    Attributes
    ----------
    ids, positions : ndarray of int64, shape (B, T)
        Tokens, padded on the right with id 0, and their positions.
    mask : ndarray of bool, shape (B, T) or (B, T, T)
        No padding, or which token sees which.
    rows : ndarray of int64, shape (R,)
        Rows served, in (group, slot) order.
    ptr : ndarray of int64, shape (R + 1,)
        States of row i are entries ``ptr[i]:ptr[i + 1]``.
    place : ndarray of int64, shape (E,)
        For each entry, where its state is in the flat (B * T) output. States that several rows of a group share are
        taken from the first of them.
    targets : ndarray of int64, shape (E,)
        Id that each entry predicts, -1 if there is none.
    counted : ndarray of bool, shape (E,)
        Whether it counts.
    last : ndarray of int64, shape (R,)
        Where the state of the last response token is; -1 if it was not fed.
    n_tokens : int
        Tokens that are no padding.
    """

    ids: Ints
    positions: Ints
    mask: NDArray[np.bool_]
    rows: Ints
    ptr: Ints
    place: Ints
    targets: Ints
    counted: NDArray[np.bool_]
    last: Ints
    n_tokens: int


def feed_plain(source: Rows, rows: Sequence[int], *, share: bool = True) -> Feed:
    """Lay every row out as a sequence of its own, padded on the right.

    Parameters
    ----------
    source : Rows
        The data.
    rows : sequence of int
        Rows in (group, slot) order.
    share : bool
        Whether states that rows of a group share are read from the first of them.
    """
    sequences = [np.concatenate([source.prompt(row), source.fed(row)]) for row in rows]
    width = max(len(sequence) for sequence in sequences)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    for place, sequence in enumerate(sequences):
        ids[place, : len(sequence)] = sequence
        mask[place, : len(sequence)] = True
    positions = np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    paths = [place * width + np.arange(len(sequence), dtype=np.int64) for place, sequence in enumerate(sequences)]
    n_tokens = sum(len(sequence) for sequence in sequences)
    return _finish(source, rows, ids, positions, mask, paths, n_tokens, share)


def feed_packed(source: Rows, trees: Sequence[Tree]) -> Feed:
    """Lay every tree out as one sequence in which a token sees its ancestors only."""
    width = max(tree.n_tokens for tree in trees)
    ids = np.zeros((len(trees), width), dtype=np.int64)
    positions = np.zeros((len(trees), width), dtype=np.int64)
    mask = np.zeros((len(trees), width, width), dtype=bool)
    diagonal = np.arange(width)
    mask[:, diagonal, diagonal] = True  # padding sees itself, so that no softmax is empty
    paths: dict[int, Ints] = {}
    for place, tree in enumerate(trees):
        prompt = source.prompt(tree.rows[0])
        trunk = len(prompt)
        ids[place, :trunk] = prompt
        positions[place, :trunk] = np.arange(trunk)
        mask[place, :trunk, :trunk] = np.tri(trunk, dtype=bool)
        path, used = np.arange(trunk, dtype=np.int64), trunk
        for row, kept in zip(tree.rows, tree.kept, strict=True):
            fed = source.fed(row)
            fresh = len(fed) - kept
            new = np.arange(used, used + fresh, dtype=np.int64)
            path = np.concatenate([path[: trunk + kept], new])
            ids[place, used : used + fresh] = fed[kept:]
            positions[place, used : used + fresh] = np.arange(trunk + kept, trunk + len(fed))
            mask[place, used : used + fresh, path[: trunk + kept]] = True
            mask[place, used : used + fresh, used : used + fresh] = np.tri(fresh, dtype=bool)
            used += fresh
            paths[row] = place * width + path
    rows = sorted(paths)
    n_tokens = sum(tree.n_tokens for tree in trees)
    return _finish(source, rows, ids, positions, mask, [paths[row] for row in rows], n_tokens, True)


def _finish(
    source: Rows,
    rows: Sequence[int],
    ids: Ints,
    positions: Ints,
    mask: NDArray[np.bool_],
    paths: Sequence[Ints],
    n_tokens: int,
    share: bool,
) -> Feed:
    """Say for each row where its states, its targets and its last state are."""
    place, targets, counted, last = [], [], [], []
    first_of: dict[int, Ints] = {}
    for row, path in zip(rows, paths, strict=True):
        wanted = source.targets(row)
        start = len(source.prompt(row)) - 1
        states = path[start : start + len(wanted)]
        group = int(source.data.group[row])
        if share and group in first_of:
            common = min(source.shared(group), len(states))
            states = np.concatenate([first_of[group][:common], states[common:]])
        first_of.setdefault(group, states)
        at = start + len(source.data.response_ids[row])
        last.append(int(path[at]) if at < len(path) else -1)
        place.append(states)
        targets.append(wanted)
        counted.append(source.counted(row))
    lengths = [len(entry) for entry in place]
    return Feed(
        ids=ids,
        positions=positions,
        mask=mask,
        rows=np.asarray(rows, dtype=np.int64),
        ptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        place=np.concatenate(place),
        targets=np.concatenate(targets),
        counted=np.concatenate(counted),
        last=np.asarray(last, dtype=np.int64),
        n_tokens=n_tokens,
    )

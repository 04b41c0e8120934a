"""What is looked at before a run: data fit models, a model is causal, packed rows and heads agree with plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from rankdiag.language_models._layout import Feed, Rows, Tree, feed_packed, feed_plain
from rankdiag.language_models._model import Subject

__all__ = ["SelfCheck", "check_heads", "check_limits", "forward", "probe", "self_check"]


_CHECKED, _CHECKED_SHARE = 4, 250  # trees of the self-check at most; beyond the first one token in so many


_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


_HALF_TOLERANCE = 3e-2


_HEAD_TOLERANCE, _HALF_HEAD_TOLERANCE = 1e-3, 5e-2


_COMPARED = 16  # states whose logits are compared


_PROBED = 8  # tokens on which a model shows that it is causal


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Comparison of the packed layout with the plain one, on a few trees of the data itself.

    Attributes
    ----------
    verdict : {"passed", "failed", "not needed"}
        ``"not needed"`` where nothing is packed.
    max_relative_error : float or None
        Largest difference of a state, relative to the largest entry of all compared states.
    tolerance : float or None
        What was allowed.
    n_trees : int
        Trees compared.
    reason : str
        Why it failed, or was not needed.

    Examples
    --------
    >>> from rankdiag.language_models import SelfCheck
    >>> SelfCheck(verdict="passed", max_relative_error=2e-7, tolerance=1e-3, n_trees=4).verdict
    'passed'
    """

    verdict: Literal["passed", "failed", "not needed"]
    max_relative_error: float | None = None
    tolerance: float | None = None
    n_trees: int = 0
    reason: str = ""


def check_limits(source: Rows, usable: Sequence[int], subjects: Sequence[Subject]) -> int:
    """Compare ids, lengths and the tokenizer with what the models can take; return the length of the longest row."""
    data = source.data
    highest, longest, where, at = -1, 0, "", ""
    for group in usable:
        for row in source.of_group(group):
            for ids in (source.prompt(row), data.response_ids[row]):
                top = int(ids.max(initial=-1))
                if len(ids) and int(ids.min()) < 0:
                    raise ValueError(f"`data` must hold token ids >= 0; {data.keys[group]!r} has {int(ids.min())}")
                if top > highest:
                    highest, where = top, data.keys[group]
            if source.length(row) > longest:
                longest, at = source.length(row), data.keys[group]
    for subject in subjects:
        if subject.device.type == "meta":
            raise ValueError(
                f"`models`: {subject.name} is on the meta device and has no weights; load them, or dispatch the model "
                "with its weights on a device or in memory"
            )
        rows, size = subject.n_embeddings, data.tokenizer.get("length")
        if rows is not None and highest >= rows:
            raise ValueError(
                f"`data` has the token id {highest} (record {where!r}), but {subject.name} has {rows} embedding rows; "
                "encode with the tokenizer of this model"
            )
        if rows is not None and isinstance(size, int) and size > rows:
            raise ValueError(
                f"`data` was encoded by a tokenizer of {size} tokens, but {subject.name} has {rows} embedding rows; "
                "use the tokenizer of this model, without tokens added to it"
            )
        limit = subject.position_limit
        if limit is not None and longest > limit:
            raise ValueError(
                f"`data` has a row of {longest} tokens (record {at!r}), but {subject.name} allows {limit}; encode with "
                f"max_length={limit} (--max-length {limit})"
            )
    return longest


def probe(source: Rows, usable: Sequence[int], subject: Subject) -> None:
    """Run a model on a few tokens of the data: it must be causal, and positions from 0 must be its own.

    Raises
    ------
    ValueError
        If its forward fails, or states in front of a token depend on that token.
    """
    row = next((row for group in usable for row in source.of_group(group) if source.length(row) > 1), None)
    if row is None:
        return
    ids = np.concatenate([source.prompt(row), source.fed(row)])[:_PROBED].astype(np.int64)
    other = ids.copy()
    other[-1] = next((token for token in (*ids[:-1].tolist(), 0, 1) if token != ids[-1]), 0)
    allowed = _TOLERANCE.get(subject.dtype, _HALF_TOLERANCE)
    try:
        states, changed = (_plain_states(subject, tokens) for tokens in (ids, other))
        if subject.causal is not None and "position_ids" in subject.accepts and subject.root is None:
            subject.counts_from_zero = False
            alone = _plain_states(subject, ids)
            subject.counts_from_zero = _close(states, alone, allowed)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"`models`: {subject.name} cannot be run as a causal language model; its forward fails on {len(ids)} "
            f"tokens ({type(error).__name__}: {error})"
        ) from error
    if torch.isfinite(states).all() and not _close(states[:-1], changed[:-1], allowed):
        raise ValueError(
            f"`models`: {subject.name} is not causal: its states depend on later tokens; look at is_decoder and "
            "use_bidirectional_attention in its configuration"
        )


def _plain_states(subject: Subject, ids: Any) -> torch.Tensor:
    feed = torch.from_numpy(ids)[None].to(subject.device)
    places = torch.arange(len(ids), device=subject.device)[None]
    return subject.states(feed, torch.ones_like(feed, dtype=torch.bool), places)[0].to("cpu", torch.float64)


def _close(a: torch.Tensor, b: torch.Tensor, allowed: float) -> bool:
    size = float(torch.maximum(a.abs().max(), b.abs().max())) if a.numel() else 0.0
    return size == 0.0 or not float((a - b).abs().max()) > allowed * size


def self_check(source: Rows, trees: Sequence[Tree], subjects: Sequence[Subject]) -> SelfCheck:
    """Compare packed and plain states on the longest tree that forks and on the shortest others.

    A tree without a fork is an ordinary row, in which no mask and no position can be wrong.
    """
    forked = sorted(
        (tree for tree in trees if tree.depth < tree.n_tokens), key=lambda tree: (-tree.n_tokens, tree.groups)
    )
    if not forked:
        return SelfCheck(verdict="not needed", reason="no two responses part before their last token")
    picked, room = forked[:1], sum(tree.n_tokens for tree in trees) // _CHECKED_SHARE
    for tree in reversed(forked[1:]):
        room -= tree.n_tokens
        if len(picked) == _CHECKED or room < 0:
            break
        picked.append(tree)
    count = len(picked)
    worst, tolerance = 0.0, 0.0
    for subject in subjects:
        allowed = _TOLERANCE.get(subject.dtype, _HALF_TOLERANCE)
        for tree in picked:
            try:
                packed = states_of(subject, feed_packed(source, [tree]))
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                text = f"its forward fails on packed rows ({type(error).__name__}: {error})"
                return SelfCheck(verdict="failed", n_trees=count, reason=text)
            rows = sorted(tree.rows)
            size, difference = 0.0, 0.0
            begin = 0
            for row in rows:  # one at a time: the plainest layout there is
                plain = states_of(subject, feed_plain(source, [row], share=False))
                part = packed[begin : begin + len(plain)]
                begin += len(plain)
                size = max(size, float(plain.abs().max()))
                difference = max(difference, float((part - plain).abs().max()))
            error_here = difference / size if size > 0 else difference
            if not error_here <= allowed:
                text = f"states differ by {error_here:.2g} of the largest entry, {allowed:g} is allowed"
                if error_here != error_here:
                    text = "states are not finite"
                return SelfCheck(
                    verdict="failed",
                    max_relative_error=error_here,
                    tolerance=allowed,
                    n_trees=count,
                    reason=text,
                )
            worst, tolerance = max(worst, error_here), max(tolerance, allowed)
    return SelfCheck(verdict="passed", max_relative_error=worst, tolerance=tolerance, n_trees=count)


def states_of(subject: Subject, feed: Feed) -> torch.Tensor:
    """Run one forward and return the states of all entries, in float64."""
    flat = forward(subject, feed)
    return flat[torch.from_numpy(feed.place).to(flat.device)].to("cpu", torch.float64)


def forward(subject: Subject, feed: Feed) -> torch.Tensor:
    """Run one forward and return the states of all its tokens, shape (B * T, d), on the device of the model."""
    device = subject.device
    mask = torch.from_numpy(feed.mask).to(device)
    states = subject.states(
        torch.from_numpy(feed.ids).to(device),
        mask[:, None] if mask.ndim == 3 else mask,
        torch.from_numpy(feed.positions).to(device),
    )
    return states.reshape(-1, states.shape[-1])


def check_heads(source: Rows, usable: Sequence[int], subjects: Sequence[Subject]) -> None:
    """Compare the head of each model with its own logits once, on its shortest row."""
    row = min((row for group in usable for row in source.of_group(group)), key=source.length)
    for subject in subjects:
        if subject.causal is None:
            raise ValueError(
                f"`models`: log-probabilities and head scores need a model with an output projection; "
                f"{subject.name} is a plain callable that returns states"
            )
        if subject.head is None:
            raise ValueError(
                f"`models`: log-probabilities and head scores need output embeddings; {subject.name} has none"
            )
        # accelerate puts the autocast of a mixed-precision run around the model's own forward, not around its parts.
        half = subject.dtype not in _TOLERANCE or hasattr(subject.causal, "_original_forward")
        ids = torch.from_numpy(feed_plain(source, [row]).ids[:, :_COMPARED]).to(subject.device)
        places = torch.arange(ids.shape[1], device=subject.device)[None]
        expected = subject.causal(input_ids=ids, use_cache=False).logits[0]
        tolerance = _HALF_HEAD_TOLERANCE if half else _HEAD_TOLERANCE
        subject.head.verify(subject.states(ids, torch.ones_like(ids, dtype=torch.bool), places)[0], expected, tolerance)
    sizes = {subject.head.size for subject in subjects if subject.head is not None}
    if len(sizes) > 1:
        raise ValueError(f"`models` must have one vocabulary; got {' and '.join(map(str, sorted(sizes)))} entries")

"""The plan of a run: whole groups in batches of like length, prompts shared where that is right, limits checked.

The plan depends on the data, the models and the options alone, never on what has been done already; so a run that is
killed and goes on, or is dealt out to several processes, makes the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch

from rankdiag._validate import choice, describe, integer
from rankdiag._version import __version__
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._layout import Feed, Rows, Tree, feed_packed, feed_plain
from rankdiag.language_models._model import Subject, adapt, untouched
from rankdiag.language_models._outputs import Output

__all__ = ["Batch", "Plan", "SelfCheck", "plan", "subjects_of"]

Layout = Literal["plain", "packed"]

# A thousand tokens a forward keep a CPU's caches and threads busy; more only grows the activations. An accelerator
# wants more. Both were measured, see the decisions.
_CPU_BUDGET, _DEVICE_BUDGET = 1024, 16384
_LARGEST_TREE = 4096  # tokens: beyond, a dense mask costs more than the tokens it saves, unless it is cheaper anyway
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What will be run, in which batches.

    Attributes
    ----------
    data : Encoded
        The data.
    layout : {"plain", "packed"}
        ``"packed"`` if any batch shares prompts.
    reason : str
        Why the layout is what it is.
    response_end : {"given", "implied_eos"}
        Convention for the end of a response.
    token_budget : int
        Padded tokens of a forward at most, unless one row alone is longer.
    batches : tuple of Batch
        Longest first.
    n_tokens, n_padded : int
        Tokens that all batches feed, without and with padding.
    self_check : SelfCheck
        Comparison of the layouts.
    attention : tuple of str
        Attention implementation of each model.
    columns : tuple of str
        Columns of the outputs it was made for.
    source : Rows
        The data under its convention for the end of a response.
    subjects : tuple of Subject
        The models, unwrapped.
    whole_groups : bool
        Whether an output needs all rows of a group in one forward.
    turning_length : int or None
        Length on whose two sides no rows may share a forward.
    spare : Batch or None
        The smallest batch, which a process runs while it waits for the others of a sharded model.
    steps : int
        Forwards that every process of a sharded model makes together, so that none waits for another for ever.
    splits : list of dict
        Forwards that a run had to cut because they did not fit into memory; empty before a run.

    Examples
    --------
    >>> from rankdiag.language_models import StateSums, encode_preferences, plan
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> made = plan(data, model, [StateSums()], token_budget=64)
    >>> len(made), made.shard(0, 2).n_tokens, made.shard(1, 2).n_tokens
    (1, 5, 0)
    """

    data: Encoded
    layout: Layout
    reason: str
    response_end: Literal["given", "implied_eos"]
    token_budget: int
    batches: tuple[Batch, ...]
    n_tokens: int
    n_padded: int
    self_check: SelfCheck
    attention: tuple[str, ...]
    columns: tuple[str, ...]
    source: Rows = dataclasses.field(repr=False)
    subjects: tuple[Subject, ...] = dataclasses.field(repr=False)
    steps: int = 0
    whole_groups: bool = dataclasses.field(default=False, repr=False)
    turning_length: int | None = dataclasses.field(default=None, repr=False)
    spare: Batch | None = dataclasses.field(default=None, repr=False)
    splits: list[dict[str, Any]] = dataclasses.field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.batches)

    def shard(self, rank: int, world_size: int) -> Plan:
        """Return the part of one process: every `world_size`-th batch, from number `rank` on.

        Parameters
        ----------
        rank : int
            Number of this process, from 0.
        world_size : int
            Number of processes.

        Returns
        -------
        Plan
            Whole batches; their composition does not depend on the number of processes.

        Raises
        ------
        TypeError
            If an argument is no integer.
        ValueError
            If `rank` is not below `world_size`.
        """
        world = integer(world_size, "world_size", low=1)
        own = integer(rank, "rank", low=0, high=world - 1)
        batches = self.batches[own::world]
        return dataclasses.replace(
            self,
            batches=batches,
            steps=max(
                (
                    sum(forwards_in(self, batch) for batch in self.batches[part::world])
                    for part in range(min(world, len(self.batches)))
                ),
                default=0,
            ),
            splits=[],
            n_tokens=sum(batch.n_tokens for batch in batches),
            n_padded=sum(batch.n_padded for batch in batches),
        )

    def to_manifest(self) -> dict[str, Any]:
        """Return what decides about the numbers of a run, JSON-safe: two runs with equal manifests may be joined."""
        from rankdiag.language_models._fingerprint import model_fingerprint

        transformers = _version("transformers")
        return {
            "format": 1,
            "rankdiag": __version__,
            "torch": str(torch.__version__),
            **({} if transformers is None else {"transformers": transformers}),
            "columns": list(self.columns),
            "response_end": self.response_end,
            "layout": self.layout,
            "token_budget": self.token_budget,
            "attention": list(self.attention),
            "self_check": self.self_check.verdict,
            "n_groups": len(self.data),
            "data": self.data.fingerprint,
            "tokenizer": dict(self.data.tokenizer),
            "models": [model_fingerprint(subject.given) for subject in self.subjects],
        }


def forwards_in(plan: Plan, batch: Batch) -> int:
    """Return how many forwards a batch of a plan is."""
    return _forwards(plan.source, batch, plan.token_budget, plan.whole_groups, plan.turning_length)


def _version(package: str) -> str | None:
    import sys

    module = sys.modules.get(package)
    return None if module is None else str(getattr(module, "__version__", ""))


def plan(
    data: Encoded,
    models: Any,
    outputs: Sequence[Output],
    *,
    layout: Literal["auto", "plain", "packed"] = "auto",
    token_budget: int | None = None,
    response_end: Literal["given", "implied_eos"] = "given",
    checked: SelfCheck | None = None,
) -> Plan:
    """Plan a run: check the data against the models, choose the layout, make batches.

    Parameters
    ----------
    data : Encoded
        As `encode` returns it; groups that are not ``"ok"`` are left out.
    models : model, or tuple of models
        See `run`.
    outputs : sequence of Output
        What will be read; decides whether last tokens are fed and logits are needed.
    layout : {"auto", "plain", "packed"}
        ``"packed"`` computes shared prompts and shared beginnings of responses once. ``"auto"`` packs where the model
        allows it and a comparison with the plain layout on up to four trees agrees.
    token_budget : int, optional
        Padded tokens of one forward; None takes 1024 on a CPU and 16384 on an accelerator.
    response_end : {"given", "implied_eos"}
        Whether a response ends where its ids end, or with one EOS more.
    checked : SelfCheck, optional
        Of an earlier plan for the same models: it is believed, and the comparison of the layouts not made again.

    Returns
    -------
    Plan
        The batches and what was found out about the models.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an id has no embedding, a row is longer than a model allows, an output needs logits and a model has no
        dense head, or ``layout="packed"`` would be wrong on a model.

    Notes
    -----
    Cost: linear in the tokens of the data, one or two short forwards for the comparison.

    Examples
    --------
    >>> from rankdiag.language_models import StateSums, encode_preferences, plan
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> made = plan(data, model, [StateSums()])
    >>> made.layout, made.n_tokens, made.self_check.verdict
    ('packed', 5, 'passed')
    """
    if not isinstance(data, Encoded):
        raise TypeError(f"`data` must be encoded records, see encode; got {describe(data)}")
    wanted = checked_outputs(outputs)
    chosen = choice(layout, "layout", ("auto", "plain", "packed"))
    end = choice(response_end, "response_end", ("given", "implied_eos"))
    subjects = subjects_of(models)
    needs = frozenset[str]().union(*(output.needs for output in wanted))
    if "states_b" in needs and len(subjects) != 2:
        raise ValueError(f"`models` must be two models for a comparison of both; got {len(subjects)}")
    source = Rows(data=data, implied_eos=end == "implied_eos", feed_last="last" in needs)
    usable = [group for group, status in enumerate(data.status) if status == "ok"]
    if "logits" in needs and end == "implied_eos" and data.tokenizer.get("eos") is None and usable:
        raise ValueError(
            "`response_end='implied_eos'` needs the id of the EOS token for log-probabilities; the data was encoded "
            "without one. Use response_end='given', or a tokenizer with an EOS"
        )
    if checked is not None and not isinstance(checked, SelfCheck):
        raise TypeError(f"`checked` must be the SelfCheck of an earlier plan; got {describe(checked)}")
    depth = _check_limits(source, usable, subjects)
    if chosen == "packed":
        _refuse_packed(subjects, depth)
    with untouched(subjects):
        for subject in subjects:
            _probe(source, usable, subject)
    on_cpu = all(subject.device.type == "cpu" for subject in subjects)
    default = _CPU_BUDGET if on_cpu else _DEVICE_BUDGET
    budget = default if token_budget is None else integer(token_budget, "token_budget", low=1)

    turn = next((subject.turning_length for subject in subjects if subject.turning_length is not None), None)
    trees, loose, reason = _trees(source, usable, subjects, chosen, budget, depth)
    if turn is not None:  # a tree on both sides of it cannot be one forward
        loose = sorted([*loose, *(g for tree in trees if _straddles(source, tree.rows, turn) for g in tree.groups)])
        trees = [tree for tree in trees if not _straddles(source, tree.rows, turn)]
    check = SelfCheck(verdict="not needed", reason=reason)
    with untouched(subjects):
        if trees:
            check = _self_check(source, trees, subjects) if checked is None else checked
            if check.verdict == "failed":
                if chosen == "packed":
                    raise ValueError(
                        f"`layout='packed'` fails its self-check on this model: {check.reason}. Use layout='auto'"
                    )
                loose, trees, reason = usable, [], f"the packed layout failed its self-check: {check.reason}"
        if "logits" in needs and usable:
            _check_heads(source, usable, subjects)
    for output in wanted:
        check_output = getattr(output, "check", None)
        if check_output is not None and usable:
            check_output(source, usable, subjects)
    whole = any(getattr(output, "whole_groups", False) for output in wanted)
    if turn is not None and whole:
        for group in usable:
            if _straddles(source, source.of_group(group), turn):
                raise ValueError(
                    f"`data`: record {data.keys[group]!r} has responses on both sides of {turn} tokens, where the "
                    "rotary factors of this model change; its responses cannot be read together. Use a max_length"
                )
    batches = _batches(source, trees, loose, budget, whole, turn)
    return Plan(
        data=data,
        layout="packed" if trees else "plain",
        reason=reason,
        response_end=cast("Literal['given', 'implied_eos']", end),
        token_budget=budget,
        batches=batches,
        n_tokens=sum(batch.n_tokens for batch in batches),
        n_padded=sum(batch.n_padded for batch in batches),
        self_check=check,
        attention=tuple(subject.attention for subject in subjects),
        columns=tuple(name for output in wanted for name in output.columns),
        source=source,
        subjects=subjects,
        steps=sum(_forwards(source, batch, budget, whole, turn) for batch in batches),
        whole_groups=whole,
        turning_length=turn,
        spare=batches[-1] if batches else None,
    )


def subjects_of(models: Any) -> tuple[Subject, ...]:
    """Adapt one model, or a tuple or list of one or two."""
    if isinstance(models, (tuple, list)):
        if not 1 <= len(models) <= 2:
            raise ValueError(f"`models` must be one model or two; got {len(models)}")
        found = tuple(adapt(model) for model in models)
    else:
        found = (adapt(models),)
    if len({subject.device for subject in found}) > 1:
        raise ValueError(
            f"`models` must be on one device; got {', '.join(str(subject.device) for subject in found)}. Move one of "
            "them with .to()"
        )
    return found


def checked_outputs(outputs: Any) -> tuple[Output, ...]:
    """Check the outputs and that no two of them give a column of one name."""
    if isinstance(outputs, Mapping) or not isinstance(outputs, Sequence):
        raise TypeError(f"`outputs` must be a sequence of outputs such as StateSums(); got {describe(outputs)}")
    if not outputs:
        raise ValueError("`outputs` must hold at least one output; got none")
    for output in outputs:
        if isinstance(output, type) or not isinstance(output, Output):
            raise TypeError(f"`outputs` must hold outputs such as StateSums(); got {describe(output)}")
    names = [name for output in outputs for name in output.columns]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"`outputs` must give every column once; got {', '.join(double)} twice")
    return tuple(outputs)


def _check_limits(source: Rows, usable: Sequence[int], subjects: Sequence[Subject]) -> int:
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
                f"max_length={limit}"
            )
    return longest


def _probe(source: Rows, usable: Sequence[int], subject: Subject) -> None:
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


def _trees(
    source: Rows, usable: Sequence[int], subjects: Sequence[Subject], layout: str, budget: int, depth: int
) -> tuple[list[Tree], list[int], str]:
    """Find what to pack: trees, the groups that stay plain, and why."""
    if layout == "plain":
        return [], list(usable), "the plain layout was asked for"
    if layout == "packed":
        _refuse_packed(subjects, depth)
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


def _refuse_packed(subjects: Sequence[Subject], depth: int) -> None:
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


def _self_check(source: Rows, trees: Sequence[Tree], subjects: Sequence[Subject]) -> SelfCheck:
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


def _check_heads(source: Rows, usable: Sequence[int], subjects: Sequence[Subject]) -> None:
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


def _forwards(source: Rows, batch: Batch, budget: int, whole: bool, turn: int | None) -> int:
    return len(forwards_of(source, batch.trees, batch.groups, budget, whole, turn))


def _straddles(source: Rows, rows: Sequence[int], turn: int) -> bool:
    return len({source.length(row) > turn for row in rows}) > 1


def _batches(
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
    alone = [unit for unit in sized if turn is not None and _straddles(source, source.of_group(unit[2]), turn)]
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
    if turn is not None and len(units) == 1 and _straddles(source, units[0], turn):
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

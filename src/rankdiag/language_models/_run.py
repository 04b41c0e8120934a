"""The run: forwards of planned batches, outputs read off them, columns handed on, rows appended to a journal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch

from rankdiag._progress import Progress
from rankdiag._validate import boolean, describe
from rankdiag.language_models._batches import Batch, Member, forwards_of, padded_tokens
from rankdiag.language_models._checks import forward
from rankdiag.language_models._columns import Columns
from rankdiag.language_models._context import Context, LogitsBlock, Output
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._layout import Feed, Tree, feed_packed, feed_plain
from rankdiag.language_models._model import Subject, untouched
from rankdiag.language_models._outputs import LogProbs
from rankdiag.language_models._plan import Plan, checked_outputs, forwards_in, plan, subjects_of

__all__ = ["run", "sequence_log_probs"]

_BLOCK = 1 << 19  # entries of one block of logits on a CPU: it stays in the cache while it is read
_DEVICE_BLOCK = 1 << 26
_NARROWEST = 256  # vocabulary entries of a block at least

Reduce = Callable[[Columns], Mapping[str, Any]]


def run(
    models: Any,
    plan: Plan,
    outputs: Sequence[Output],
    *,
    reduce: Reduce | None = None,
    journal: Any = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> Iterator[Columns]:
    """Run models over planned batches and yield what the outputs read off them.

    Parameters
    ----------
    models : model, or tuple of two models
        A causal language model of transformers, bare or wrapped by peft, torch.compile, accelerate or DDP; or a
        callable ``(input_ids, attention_mask, position_ids) -> (B, T, d)``. Two models for outputs that compare them.
    plan : Plan
        As the function `plan` made it for these models and outputs, or a shard of it.
    outputs : sequence of Output
        What to read.
    reduce : callable, optional
        Called with the columns of a batch, which holds whole groups; returns columns over its groups.
    journal : Journal, optional
        Gets every batch's columns, and says which groups are done: batches all of whose groups are done are not run.
        A half-done batch is run whole again, so that its numbers do not depend on where a run was cut off.
    autocast : torch.dtype, optional
        Lower precision for the forwards; None runs the models as they are.
    progress : bool
        Whether to draw a progress bar.

    Yields
    ------
    Columns
        One for each batch, longest batches first; over rows, or over groups with `reduce`.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If states are not finite (the message names the record), or the outputs are not those of the plan.
    torch.OutOfMemoryError
        If a single row does not fit; anything larger is halved until it does.

    Notes
    -----
    Models run in evaluation and inference mode; the mode of every sub-module, gradients, hooks and random states are
    as before whenever the caller's code runs. Time is that of a bare forward over the same tokens, and one product
    with the output projection where logits are needed. Beyond the model, memory holds one forward and one block of
    logits of about 2^19 entries (2^26 on an accelerator), never (batch, length, vocabulary).

    Examples
    --------
    >>> from rankdiag.language_models import LogProbs, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [LogProbs()]
    >>> for columns in run(model, plan(data, model, outputs), outputs):
    ...     print(columns.keys, columns["n_tokens"].tolist(), columns["logp"].round(2).tolist())
    ('0', '0') [2, 3] [-7.46, -8.19]
    """
    wanted = checked_outputs(outputs)
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan, see rankdiag.language_models.plan; got {describe(plan)}")
    subjects = _same_subjects(models, plan)
    for subject in subjects:
        if subject.head is not None:
            subject.head.dense = None  # a head with adapters may have been trained since the plan was made
    names = tuple(name for output in wanted for name in output.columns)
    missing = [output for output in wanted if "last" in output.needs and not plan.source.feed_last]
    if missing or names != plan.columns:
        raise ValueError(f"`outputs` must be those of the plan, with columns {', '.join(plan.columns)}; got {names}")
    if autocast is not None and not isinstance(autocast, torch.dtype):
        raise TypeError(f"`autocast` must be None or a torch.dtype; got {describe(autocast)}")
    if reduce is not None and not callable(reduce):
        raise TypeError(f"`reduce` must be None or a function of columns; got {describe(reduce)}")
    if journal is not None and not (hasattr(journal, "done") and hasattr(journal, "append")):
        raise TypeError(f"`journal` must be None or a Journal; got {describe(journal)}")
    return _batches(subjects, plan, wanted, reduce, journal, autocast, boolean(progress, "progress"))


def _batches(
    subjects: tuple[Subject, ...],
    plan: Plan,
    outputs: tuple[Output, ...],
    reduce: Reduce | None,
    journal: Any,
    autocast: torch.dtype | None,
    progress: bool,
) -> Iterator[Columns]:
    done = frozenset(journal.done()) if journal is not None else frozenset()
    memory, noted = _Memory(), 0
    plan.splits.clear()
    keys = plan.data.keys
    sharded = any(subject.root is not None for subject in subjects)
    made = 0
    with Progress(progress, total=plan.n_tokens, label="scoring", unit="token") as bar:
        for batch in plan.batches:
            finished = bool(done) and all(keys[group] in done for group in batch.groups)
            if finished and sharded:  # the other processes wait for this one's part of every layer
                with untouched(subjects), _precision(subjects, autocast):
                    _batch(subjects, plan, batch, outputs, memory)
            if not finished:
                with untouched(subjects), _precision(subjects, autocast):
                    columns = _batch(subjects, plan, batch, outputs, memory)
                if reduce is not None:
                    columns = _reduced(plan, batch, reduce(columns))
                if journal is not None:
                    journal.append(columns)
                    for split in plan.splits[noted:]:
                        journal.note({"out of memory": split, "batch": batch.index})
                    noted = len(plan.splits)
                yield columns
            made += forwards_in(plan, batch)
            bar.advance(batch.n_tokens)
        if sharded and plan.spare is not None:
            _wait(subjects, plan, plan.steps - made, autocast)


def _wait(subjects: tuple[Subject, ...], plan: Plan, count: int, autocast: torch.dtype | None) -> None:
    """Make as many forwards more as the other processes of a sharded model still do."""
    spare = cast(Batch, plan.spare)
    members = forwards_of(
        plan.source, spare.trees, spare.groups, plan.token_budget, plan.whole_groups, plan.turning_length
    )[-1]
    for _ in range(count):
        with untouched(subjects), _precision(subjects, autocast):
            for subject in subjects:
                forward(subject, _feed(plan, members))


def _same_subjects(models: Any, plan: Plan) -> tuple[Subject, ...]:
    given = tuple(models) if isinstance(models, (tuple, list)) else (models,)
    if len(given) == len(plan.subjects) and all(
        subject.given is model for subject, model in zip(plan.subjects, given, strict=True)
    ):
        return plan.subjects
    found = subjects_of(models)
    if len(found) != len(plan.subjects):
        raise ValueError(f"`models` must be as many as in the plan, {len(plan.subjects)}; got {len(found)}")
    for old, new in zip(plan.subjects, found, strict=True):
        if old.causal is not new.causal or (old.causal is None and old.backbone is not new.backbone):
            raise ValueError("`models` must be those of the plan; make a new plan for other models")
        if new.head is not None and old.head is not None:
            new.head.own = old.head.own
    return found


@contextlib.contextmanager
def _precision(subjects: tuple[Subject, ...], autocast: torch.dtype | None) -> Iterator[None]:
    if autocast is None:
        yield
        return
    with torch.autocast(subjects[0].device.type, dtype=autocast):
        yield


def _batch(
    subjects: tuple[Subject, ...], plan: Plan, batch: Batch, outputs: tuple[Output, ...], memory: _Memory
) -> Columns:
    pieces = []
    parts = forwards_of(
        plan.source, batch.trees, batch.groups, plan.token_budget, plan.whole_groups, plan.turning_length
    )
    for members in parts:
        pieces += _forward(subjects, plan, members, outputs, memory)
    rows = np.concatenate([piece[0] for piece in pieces])
    order = np.argsort(rows, kind="stable")
    values = {name: _joined([piece[1][name] for piece in pieces], order) for name in plan.columns}
    rows = rows[order]
    data = plan.data
    group = data.group[rows]
    return Columns(
        keys=tuple(data.keys[int(index)] for index in group),
        group=group,
        slot=data.slot[rows],
        status=tuple(data.status[int(index)] for index in group),
        values=values,
    )


def _joined(parts: list[Any], order: Any) -> Any:
    if isinstance(parts[0], tuple):
        flat = [entry for part in parts for entry in part]
        return tuple(flat[int(place)] for place in order)
    return np.concatenate(parts)[order]


@dataclass(slots=True)
class _Memory:
    """What a run has learned about the memory: the padded tokens a forward may have, once one did not fit."""

    limit: int | None = None


def _forward(
    subjects: tuple[Subject, ...],
    plan: Plan,
    members: Sequence[Member],
    outputs: tuple[Output, ...],
    memory: _Memory,
) -> list[tuple[Any, dict[str, Any]]]:
    """Run one forward, or two half ones where it does not fit into memory or is not expected to."""
    size = padded_tokens(plan.source, members)
    halves: list[Sequence[Member]] = []
    if memory.limit is not None and size > memory.limit:
        halves = _halves(plan, members)
    if not halves:
        feed = _feed(plan, members)
        try:
            return [(feed.rows, _read(subjects, plan, feed, outputs))]
        except RuntimeError as error:
            if not _out_of_memory(error) or any(subject.root is not None for subject in subjects):
                raise  # a process that made more forwards than the others of a sharded model would hang them all
            halves = _halves(plan, members)
            if not halves:
                raise
        plan.splits.append({"tokens": size, "rows": len(feed.rows)})
        memory.limit = size // 2
        del feed
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return [piece for part in halves for piece in _forward(subjects, plan, part, outputs, memory)]


def _feed(plan: Plan, members: Sequence[Member]) -> Feed:
    trees = [member for member in members if isinstance(member, Tree)]
    if trees:
        return feed_packed(plan.source, trees)
    return feed_plain(plan.source, [row for member in members if not isinstance(member, Tree) for row in member])


def _halves(plan: Plan, members: Sequence[Member]) -> list[Sequence[Member]]:
    """Return two halves of a forward, or nothing where it cannot be cut: a single row, or a group read as a whole."""
    middle = len(members) // 2
    if middle:
        return [members[:middle], members[middle:]]
    only = members[0]
    if isinstance(only, Tree):  # a tree by itself: its groups in the plain layout
        return [[tuple(plan.source.of_group(group)) for group in sorted(only.groups)]]
    if plan.whole_groups or len(only) < 2:
        return []
    return [[only[: len(only) // 2]], [only[len(only) // 2 :]]]


_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_MEMORY)


def _read(subjects: tuple[Subject, ...], plan: Plan, feed: Feed, outputs: tuple[Output, ...]) -> dict[str, Any]:
    needs = frozenset[str]().union(*(output.needs for output in outputs))
    context = _context(subjects, plan, feed, needs)
    columns: dict[str, Any] = {}
    with torch.autocast(context.hidden.device.type, enabled=False):  # lower precision is for the network alone
        accumulators = [output.start(context) for output in outputs]
        if "logits" in needs:
            readers = [pair for pair in zip(outputs, accumulators, strict=True) if "logits" in pair[0].needs]
            _vocabulary(context, readers)
        for output, accumulator in zip(outputs, accumulators, strict=True):
            columns.update(output.finish(accumulator))
    return columns


def _context(subjects: tuple[Subject, ...], plan: Plan, feed: Feed, needs: frozenset[str]) -> Context:
    data, source = plan.data, plan.source
    used, entry = np.unique(feed.place, return_inverse=True)
    flat = forward(subjects[0], feed)
    device = flat.device
    where = torch.from_numpy(used).to(device)
    hidden = flat[where]
    last = flat[torch.from_numpy(feed.last).to(device)] if "last" in needs else None
    del flat
    hidden_b = None
    if "states_b" in needs:
        hidden_b = forward(subjects[1], feed)[where]
    for states in (hidden, last, hidden_b):
        if states is not None and not bool(torch.isfinite(states).all()):
            _refuse_states(plan, feed, entry, hidden, states)
    group = data.group[feed.rows]
    return Context(
        hidden=hidden,
        entry=torch.from_numpy(entry.reshape(-1).astype(np.int64)).to(device),
        targets=torch.from_numpy(feed.targets).to(device),
        counted=torch.from_numpy(feed.counted).to(device),
        ptr=feed.ptr,
        rows=feed.rows,
        group=group,
        slot=data.slot[feed.rows],
        shared=np.array([source.shared(int(index)) for index in group], dtype=np.int64),
        one_prompt=np.array([source.one_prompt(int(index)) for index in group]),
        implied_eos=source.implied_eos,
        last=last,
        head=subjects[0].head,
        hidden_b=hidden_b,
        head_b=subjects[1].head if len(subjects) > 1 else None,
    )


def _refuse_states(plan: Plan, feed: Feed, entry: Any, hidden: torch.Tensor, states: torch.Tensor) -> None:
    bad = (~torch.isfinite(states).all(dim=1)).cpu().numpy()
    row = int(feed.rows[0])
    if states is hidden:
        first = int(np.flatnonzero(bad[entry.reshape(-1)])[0])
        row = int(feed.rows[np.searchsorted(feed.ptr, first, side="right") - 1])
    elif len(bad) == len(feed.rows):
        row = int(feed.rows[np.flatnonzero(bad)[0]])
    group = int(plan.data.group[row])
    raise ValueError(
        f"record {plan.data.keys[group]!r} (number {group}): hidden states contain NaN or infinity. Either weights "
        "are damaged, or float16 overflowed: load the model in bfloat16 or float32"
    )


def _vocabulary(context: Context, readers: Sequence[tuple[Output, Any]]) -> None:
    """Pass over the vocabulary once, block by block, and let every output see each block."""
    head = cast(Any, context.head)
    n = len(context.hidden)
    entries = _BLOCK if context.hidden.device.type == "cpu" else _DEVICE_BLOCK
    size = max(_NARROWEST, entries // n)
    paired = context.hidden_b is not None
    second = cast(Any, context.head_b).blocks(context.hidden_b, size) if paired else None
    a = _Running(context.hidden, head)
    b = _Running(context.hidden_b, head) if paired else None
    target = torch.empty(len(context.targets), dtype=head.precision(context.hidden), device=context.hidden.device)
    order = torch.argsort(context.targets)
    ordered = context.targets[order].contiguous()
    for first, last, logits in head.blocks(context.hidden, size):
        begin, end = torch.searchsorted(ordered, torch.tensor([first, last], device=ordered.device)).tolist()
        inside = order[begin:end]
        target[inside] = logits[context.entry[inside], context.targets[inside] - first]
        weights, rescale, growth = a.add(logits)
        block = LogitsBlock(first=first, last=last, logits=logits, weights=weights, rescale=rescale, growth=growth)
        if b is not None and second is not None:
            _, _, logits_b = next(second)
            block.logits_b = logits_b
            block.weights_b, block.rescale_b, block.growth_b = b.add(logits_b)
        for output, accumulator in readers:
            output.update(accumulator, block)
    if not bool(torch.isfinite(a.total).all()) or not bool(torch.isfinite(a.peak).all()):
        raise ValueError(
            f"`models`: {type(head.causal).__name__} gives logits that are NaN or infinite for finite hidden states; "
            "its output projection is damaged"
        )
    context.peak, context.total, context.target_logit = a.peak, a.total, target
    if b is not None:
        context.peak_b, context.total_b = b.peak, b.total


class _Running:
    """Largest logit so far, and the sum of exponentials relative to it, of every state."""

    def __init__(self, states: Any, head: Any) -> None:
        high = head.precision(states)
        self.peak = torch.full((len(states),), -torch.inf, dtype=high, device=states.device)
        self.total = torch.zeros(len(states), dtype=torch.float64, device=states.device)

    def add(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        peak = torch.maximum(self.peak, logits.amax(dim=1))
        # A block without a finite logit leaves the peak at -inf; 0 then keeps every difference a number.
        base = torch.where(torch.isneginf(peak), torch.zeros_like(peak), peak)
        growth = torch.where(torch.isneginf(self.peak), torch.zeros_like(peak), base - self.peak)
        rescale = torch.where(torch.isneginf(self.peak), torch.zeros_like(peak), torch.exp(-growth))
        weights = (logits - base[:, None]).exp_()
        self.total = self.total * rescale.double() + weights.sum(dim=1, dtype=torch.float64)
        self.peak = peak
        return weights, rescale, growth


def _reduced(plan: Plan, batch: Batch, values: Mapping[str, Any]) -> Columns:
    if not isinstance(values, Mapping):
        raise TypeError(f"`reduce` must return a mapping of columns; it returned {describe(values)}")
    data, groups = plan.data, np.asarray(batch.groups, dtype=np.int64)
    for name, column in values.items():
        if len(column) != len(groups):
            raise ValueError(
                f"`reduce` must return one entry for each of {len(groups)} groups; {name!r} has {len(column)}"
            )
    return Columns(
        keys=tuple(data.keys[int(group)] for group in groups),
        group=groups,
        slot=np.zeros(len(groups), dtype=np.int64),
        status=tuple(data.status[int(group)] for group in groups),
        values=dict(values),
    )


def sequence_log_probs(
    model: Any,
    data: Encoded,
    *,
    per_token: bool = False,
    layout: Literal["auto", "plain", "packed"] = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> Columns:
    """Log-probabilities of all responses of some data, in the order of its rows.

    Parameters
    ----------
    model : model
        As `run` takes it; it needs an output projection.
    data : Encoded
        Records of any kind.
    per_token : bool
        Whether to keep the log-probability of every token.
    layout : {"auto", "plain", "packed"}
        See `plan`.
    token_budget : int, optional
        See `plan`.
    autocast : torch.dtype, optional
        See `run`.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    Columns
        ``logp`` (nats, summed over counted tokens; NaN for rows of unusable groups), ``n_tokens`` (0 there), and with
        `per_token` ``token_logp``, one array for each row.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        See `plan` and `run`.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences, sequence_log_probs
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> sequence_log_probs(model, data)["n_tokens"].tolist()
    [2, 3]
    """
    outputs = [LogProbs(per_token=per_token)]
    made = plan(data, model, outputs, layout=layout, token_budget=token_budget)
    rows = len(data.response_ids)
    logp, n_tokens = np.full(rows, np.nan), np.zeros(rows, dtype=np.int64)
    tokens: list[Any] = [np.empty(0)] * rows
    for columns in run(model, made, outputs, autocast=autocast, progress=progress):
        place = np.searchsorted(data.group, columns.group) + columns.slot
        logp[place], n_tokens[place] = columns["logp"], columns["n_tokens"]
        if per_token:
            for row, entry in zip(place.tolist(), columns["token_logp"], strict=True):
                tokens[row] = entry
    values: dict[str, Any] = {"logp": logp, "n_tokens": n_tokens}
    return Columns(
        keys=tuple(data.keys[int(index)] for index in data.group),
        group=data.group,
        slot=data.slot,
        status=tuple(data.status[int(index)] for index in data.group),
        values={**values, "token_logp": tuple(tokens)} if per_token else values,
    )

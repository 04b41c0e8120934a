"""The plan of a run: whole groups in batches of like length, prompts shared where that is right, limits checked.

The plan depends on the data, the models and the options alone, never on what has been done already; so a run that is
killed and goes on, or is dealt out to several processes, makes the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from rankdiag._validate import choice, describe, integer
from rankdiag._version import __version__
from rankdiag.language_models._batches import (
    Batch,
    Layout,
    batches_of,
    forwards_of,
    grow_trees,
    refuse_packed,
    straddles,
)
from rankdiag.language_models._checks import SelfCheck, check_heads, check_limits, probe, self_check
from rankdiag.language_models._context import Output
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._layout import Rows
from rankdiag.language_models._model import Subject, adapt, untouched

__all__ = ["Plan", "checked_outputs", "forwards_in", "plan", "subjects_of"]


# A thousand tokens a forward keep a CPU's caches and threads busy; more only grows the activations. An accelerator
# wants more. Both were measured, see the decisions.
_CPU_BUDGET, _DEVICE_BUDGET = 1024, 16384


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
    groups : tuple of int or None
        Positions of the groups it was asked to run; None where that is all.
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
    groups: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
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
            **({} if self.groups is None else {"groups": list(self.groups)}),
            "data": self.data.fingerprint,
            "records": self.data.records,
            "tokenizer": dict(self.data.tokenizer),
            "models": [model_fingerprint(subject.given) for subject in self.subjects],
        }


def forwards_in(plan: Plan, batch: Batch) -> int:
    """Return how many forwards a batch of a plan is."""
    turn = plan.turning_length
    return len(forwards_of(plan.source, batch.trees, batch.groups, plan.token_budget, plan.whole_groups, turn))


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
    groups: Sequence[int] | None = None,
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
    groups : sequence of int, optional
        Positions of the groups to run; None takes all that can be run.

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
    usable = _usable(data, groups)
    if "logits" in needs and end == "implied_eos" and data.tokenizer.get("eos") is None and usable:
        raise ValueError(
            "`response_end='implied_eos'` needs the id of the EOS token for log-probabilities; the data was encoded "
            "without one. Use response_end='given', or a tokenizer with an EOS"
        )
    if checked is not None and not isinstance(checked, SelfCheck):
        raise TypeError(f"`checked` must be the SelfCheck of an earlier plan; got {describe(checked)}")
    depth = check_limits(source, usable, subjects)
    if chosen == "packed":
        refuse_packed(subjects, depth)
    with untouched(subjects):
        for subject in subjects:
            probe(source, usable, subject)
    on_cpu = all(subject.device.type == "cpu" for subject in subjects)
    default = _CPU_BUDGET if on_cpu else _DEVICE_BUDGET
    budget = default if token_budget is None else integer(token_budget, "token_budget", low=1)

    turn = next((subject.turning_length for subject in subjects if subject.turning_length is not None), None)
    trees, loose, reason = grow_trees(source, usable, subjects, chosen, budget, depth)
    if turn is not None:  # a tree on both sides of it cannot be one forward
        loose = sorted([*loose, *(g for tree in trees if straddles(source, tree.rows, turn) for g in tree.groups)])
        trees = [tree for tree in trees if not straddles(source, tree.rows, turn)]
    check = SelfCheck(verdict="not needed", reason=reason)
    with untouched(subjects):
        if trees:
            check = self_check(source, trees, subjects) if checked is None else checked
            if check.verdict == "failed":
                if chosen == "packed":
                    raise ValueError(
                        f"`layout='packed'` fails its self-check on this model: {check.reason}. Use layout='auto'"
                    )
                loose, trees, reason = usable, [], f"the packed layout failed its self-check: {check.reason}"
        if "logits" in needs and usable:
            check_heads(source, usable, subjects)
    for output in wanted:
        check_output = getattr(output, "check", None)
        if check_output is not None and usable:
            check_output(source, usable, subjects)
    whole = any(getattr(output, "whole_groups", False) for output in wanted)
    if turn is not None and whole:
        for group in usable:
            if straddles(source, source.of_group(group), turn):
                raise ValueError(
                    f"`data`: record {data.keys[group]!r} has responses on both sides of {turn} tokens, where the "
                    "rotary factors of this model change; its responses cannot be read together. Use a max_length"
                )
    batches = batches_of(source, trees, loose, budget, whole, turn)
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
        groups=None if groups is None else tuple(usable),
        source=source,
        subjects=subjects,
        steps=sum(len(forwards_of(source, batch.trees, batch.groups, budget, whole, turn)) for batch in batches),
        whole_groups=whole,
        turning_length=turn,
        spare=batches[-1] if batches else None,
    )


def _usable(data: Encoded, groups: Sequence[int] | None) -> list[int]:
    usable = [group for group, status in enumerate(data.status) if status == "ok"]
    if groups is None:
        return usable
    if isinstance(groups, (str, bytes, Mapping)) or not isinstance(groups, Sequence):
        raise TypeError(f"`groups` must be a sequence of positions; got {describe(groups)}")
    wanted = {integer(group, "groups", low=0, high=len(data) - 1) for group in groups}
    return [group for group in usable if group in wanted]


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

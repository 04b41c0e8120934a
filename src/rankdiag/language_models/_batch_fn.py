"""The unit of work as a plain callable, for schedulers of other people: a batch of rows in, a batch of columns out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch

from rankdiag._validate import choice, describe, integer, string
from rankdiag.language_models._checks import SelfCheck
from rankdiag.language_models._columns import Columns
from rankdiag.language_models._context import Output
from rankdiag.language_models._encode import encode
from rankdiag.language_models._plan import Plan, checked_outputs, plan, subjects_of
from rankdiag.language_models._run import run

__all__ = ["as_batch_fn"]

Reduce = Callable[[Columns], Mapping[str, Any]]
Layout = Literal["auto", "plain", "packed"]
_TINY: dict[str, dict[str, list[int]]] = {
    "pairs": {"prompt_ids": [0], "chosen_ids": [0, 0], "rejected_ids": [0]},
    "responses": {"prompt_ids": [0], "response_ids": [0]},
    "ids": {"input_ids": [0, 0], "response_mask": [0, 1]},
}


class _BatchFunction:
    """What `as_batch_fn` returns; picklable if models, tokenizer and reduction are."""

    def __init__(
        self, models: Any, outputs: tuple[Output, ...], reduce: Reduce | None, options: dict[str, Any]
    ) -> None:
        self._models, self._outputs, self._reduce, self._options = models, outputs, reduce, options
        self._check: SelfCheck | None = None
        self._blanks: dict[str, Any] | None = None

    def __repr__(self) -> str:
        names = ", ".join(name for output in self._outputs for name in output.columns)
        return f"<batch of rows -> batch of columns {names}>"

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        options = self._options
        records = _records(rows)
        missing = [name for name in options["keep"] if name not in rows]
        if missing:
            raise ValueError(f"`rows` must have the columns of `keep`; {missing[0]!r} is not there")
        data = encode(records, options["tokenizer"], kind=options["kind"], **options["encoding"])
        made = plan(
            data,
            self._models,
            self._outputs,
            layout=options["layout"],
            token_budget=options["token_budget"],
            response_end=options["response_end"],
            checked=self._check,
        )
        if made.self_check.verdict != "not needed":
            self._check = made.self_check
        parts = list(run(self._models, made, self._outputs, reduce=self._reduce, autocast=options["autocast"]))
        columns = _per_record(made, parts, reduced=self._reduce is not None)
        if self._reduce is not None and parts:
            self._blanks = {name: _blank(column) for name, column in columns.items()}
        elif self._reduce is not None:  # a batch with no usable record has the columns of every other
            columns = {name: [blank] * len(data) for name, blank in self._known_blanks().items()}
        kept = {name: list(rows[name]) for name in options["keep"]}
        return {**kept, **columns, "status": list(data.status)}

    def _known_blanks(self) -> dict[str, Any]:
        """Return the columns of the reduction with what unusable records get; unknown so far, a tiny record tells."""
        if self._blanks is None:
            data = encode([_TINY[self._options["kind"]]], kind=self._options["kind"])
            made = plan(data, self._models, self._outputs, layout="plain")
            parts = list(
                run(self._models, made, self._outputs, reduce=self._reduce, autocast=self._options["autocast"])
            )
            found = _per_record(made, parts, reduced=True)
            self._blanks = {name: _blank(column) for name, column in found.items()}
        return self._blanks


def as_batch_fn(
    models: Any,
    outputs: Sequence[Output],
    reduce: Reduce | None = None,
    *,
    tokenizer: Any = None,
    kind: Literal["pairs", "responses", "ids"] = "pairs",
    mode: Literal["joint", "separate", "offset"] = "joint",
    add_eos: Literal["auto", "never"] = "auto",
    max_length: int | None = None,
    truncation: Literal["keep_start", "keep_end"] = "keep_start",
    max_prompt_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    layout: Layout = "auto",
    token_budget: int | None = None,
    response_end: Literal["given", "implied_eos"] = "given",
    autocast: torch.dtype | None = None,
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Make a function from a batch of records to a batch of columns, for ``datasets.map`` or Ray Data.

    Parameters
    ----------
    models : model, or tuple of two models
        See `run`.
    outputs : sequence of Output
        What to read.
    reduce : callable, optional
        From the columns of whole groups to one entry for each group; without it a record gets a list, one entry for
        each of its responses.
    tokenizer : tokenizer, optional
        See `encode`.
    kind : {"pairs", "responses", "ids"}
        See `encode`.
    mode : {"joint", "separate", "offset"}
        See `encode`.
    add_eos : {"auto", "never"}
        See `encode`.
    max_length : int, optional
        See `encode`.
    truncation : {"keep_start", "keep_end"}
        See `encode`.
    max_prompt_length : int, optional
        See `encode`.
    columns : mapping, optional
        See `encode`.
    keep : sequence of str
        Columns of the batch that are handed on unchanged, a key say; Ray Data keeps no others.
    layout : {"auto", "plain", "packed"}
        See `plan`; how the model is to be run is found out on the first batch that can tell, and remembered.
    token_budget : int, optional
        See `plan`.
    response_end : {"given", "implied_eos"}
        See `plan`.
    autocast : torch.dtype, optional
        See `run`.

    Returns
    -------
    callable
        Takes a mapping of column names to lists or arrays (a batch of HF datasets or of Ray Data) and returns a dict of
        lists in the order of the batch, with a column ``status``. Numbers of a record that cannot be used are NaN, its
        lists empty. It can be pickled if what it was made of can.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an option is unknown. The callable raises what `encode`, `plan` and `run` raise.

    Notes
    -----
    Batches of a few hundred records keep forwards full. Numbers agree with those of one `run` to about 1e-5.

    Examples
    --------
    >>> from rankdiag.language_models import LogProbs, as_batch_fn
    >>> from rankdiag.testing import tiny_language_model
    >>> function = as_batch_fn(tiny_language_model(), [LogProbs()])
    >>> batch = function({"prompt_ids": [[1, 2]], "chosen_ids": [[3, 4]], "rejected_ids": [[5]]})
    >>> batch["status"], batch["n_tokens"]
    (['ok'], [[2, 1]])
    """
    wanted = checked_outputs(outputs)
    subjects_of(models)
    if reduce is not None and not callable(reduce):
        raise TypeError(f"`reduce` must be None or a function of columns; got {describe(reduce)}")
    choice(kind, "kind", ("pairs", "responses", "ids"))
    choice(mode, "mode", ("joint", "separate", "offset"))
    choice(add_eos, "add_eos", ("auto", "never"))
    choice(truncation, "truncation", ("keep_start", "keep_end"))
    choice(layout, "layout", ("auto", "plain", "packed"))
    choice(response_end, "response_end", ("given", "implied_eos"))
    for value, name in (
        (max_length, "max_length"),
        (max_prompt_length, "max_prompt_length"),
        (token_budget, "token_budget"),
    ):
        if value is not None:
            integer(value, name, low=1)
    if columns is not None and not isinstance(columns, Mapping):
        raise TypeError(f"`columns` must map our names to those of the data; got {describe(columns)}")
    if isinstance(keep, (str, bytes)) or not isinstance(keep, Sequence):
        raise TypeError(f"`keep` must be a sequence of names of columns; got {describe(keep)}")
    if tokenizer is not None and not callable(tokenizer):
        raise TypeError(f"`tokenizer` must be None or a tokenizer of transformers; got {describe(tokenizer)}")
    if autocast is not None and not isinstance(autocast, torch.dtype):
        raise TypeError(f"`autocast` must be None or a torch.dtype; got {describe(autocast)}")
    encoding = {
        "mode": mode,
        "add_eos": add_eos,
        "max_length": max_length,
        "truncation": truncation,
        "max_prompt_length": max_prompt_length,
        "columns": columns,
    }
    options = {
        "tokenizer": tokenizer,
        "kind": kind,
        "keep": tuple(string(name, "keep") for name in keep),
        "encoding": encoding,
        "layout": layout,
        "token_budget": token_budget,
        "response_end": response_end,
        "autocast": autocast,
    }
    return _BatchFunction(models, wanted, reduce, options)


def _records(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, Mapping) or not rows:
        raise TypeError(f"`rows` must be a batch, a mapping of column names to values; got {describe(rows)}")
    lists = {name: values.tolist() if isinstance(values, np.ndarray) else list(values) for name, values in rows.items()}
    lengths = {len(values) for values in lists.values()}
    if len(lengths) != 1:
        raise ValueError(f"`rows` must have columns of one length; got {', '.join(map(str, sorted(lengths)))}")
    return [dict(zip(lists, entries, strict=True)) for entries in zip(*lists.values(), strict=True)]


def _per_record(made: Plan, parts: Sequence[Columns], *, reduced: bool) -> dict[str, list[Any]]:
    """Put the columns of all batches into the order of the records."""
    count = len(made.data)
    names = list(parts[0].values) if parts else ([] if reduced else list(made.columns))
    found: dict[str, list[Any]] = {name: [None] * count for name in names}
    for part in parts:
        for name in names:
            values = part[name]
            for place, group in enumerate(part.group.tolist()):
                entry = _plain(values[place])
                if reduced:
                    found[name][group] = entry
                else:
                    found[name][group] = [*(found[name][group] or []), entry]
    for name, column in found.items():
        shape = next((entry for entry in column if entry is not None), None)
        blank: Any = [] if isinstance(shape, list) or not reduced else float("nan")
        found[name] = [blank if entry is None else entry for entry in column]
    return found


def _blank(column: list[Any]) -> Any:
    return [] if any(isinstance(entry, list) for entry in column) else float("nan")


def _plain(value: Any) -> Any:
    return cast(Any, value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value

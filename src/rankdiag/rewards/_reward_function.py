"""A reward model as a reward function: called with prompts and completions, as trainers call functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from rankdiag._validate import choice, describe, integer
from rankdiag.language_models import encode
from rankdiag.language_models._model import adapt
from rankdiag.rewards._model_rewards import linear_head, sequence_rewards

if TYPE_CHECKING:
    import torch

__all__ = ["reward_function"]

Layout = Literal["auto", "plain", "packed"]


def reward_function(
    model: Any,
    tokenizer: Any = None,
    *,
    pool: Literal["last", "mean"] = "last",
    label: int | None = None,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
) -> Callable[..., list[float | None]]:
    """Make a reward function of a sequence classifier, to be mixed with others.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        As in `sequence_rewards`.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Of the model, which need not be that of the policy: texts and conversations are encoded with it and its
        template. Without one, prompts must be lists of ids and completions have ids.
    pool, label, layout, token_budget, autocast
        As in `sequence_rewards`.

    Returns
    -------
    callable
        Called as TRL's trainers call reward functions, ``function(prompts=..., completions=..., completion_ids=...)``;
        returns one reward for each completion, None where it cannot be encoded. Its name is that of the model's folder.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the model has no linear head, or one with several outputs and no `label`, or it is not causal.

    Notes
    -----
    Equal prompts that stand together are run once. Texts are given an end by the template or the tokenizer, whether or
    not a rollout reached its own.

    Examples
    --------
    >>> from rankdiag.rewards import from_models
    >>> from rankdiag.testing import tiny_language_model
    >>> try:
    ...     from_models.reward_function(tiny_language_model())
    ... except ValueError as error:
    ...     print(str(error)[:44])
    `model` must have a linear head on its state
    """
    subject = adapt(model, "model")
    linear_head(subject, label)
    choice(pool, "pool", ("last", "mean"))
    choice(layout, "layout", ("auto", "plain", "packed"))
    if token_budget is not None:
        integer(token_budget, "token_budget", low=1)
    if autocast is not None and type(autocast).__name__ != "dtype":
        raise TypeError(f"`autocast` must be None or a torch.dtype; got {describe(autocast)}")
    options: dict[str, Any] = {
        "pool": pool, "label": label, "layout": layout, "token_budget": token_budget, "autocast": autocast
    }  # fmt: skip

    def given(prompts: Any, completions: Any, completion_ids: Any = None, **columns: Any) -> list[float | None]:
        found = _scored(prompts, completions, completion_ids, model, tokenizer, options)
        return [None if value != value else value for value in found]

    name = str(getattr(getattr(subject.causal, "config", None), "_name_or_path", "") or subject.name)
    given.__name__ = name.rstrip("/").rpartition("/")[2]
    return given


def _scored(
    prompts: Any, completions: Any, completion_ids: Any, model: Any, tokenizer: Any, options: dict[str, Any]
) -> list[float]:
    """Return one reward for each completion, NaN where it cannot be encoded."""
    records: list[dict[str, Any]] = []
    before: Any = None
    owner: list[tuple[int, int]] = []
    for place, prompt in enumerate(prompts):
        if tokenizer is None:
            if completion_ids is None or isinstance(prompt, str) or not all(isinstance(t, int) for t in prompt):
                raise ValueError(
                    "`tokenizer` must be given to reward_function for prompts that are texts; got None. Without one, "
                    "prompts are lists of ids and completions have ids"
                )
            kind, response, key = "responses_ids", list(completion_ids[place]), "prompt_ids"
        else:
            kind, key, response = "responses", "prompt", completions[place]
        if not records or prompt != before:
            records.append({key: prompt, kind: []})
        before = prompt
        owner.append((len(records) - 1, len(records[-1][kind])))
        records[-1][kind].append(response)
    if not records:
        return []
    values = sequence_rewards(model, encode(records, tokenizer, kind="responses"), **options).values
    found = [float(values[group, slot]) if slot < values.shape[1] else math.nan for group, slot in owner]
    kind = "responses_ids" if tokenizer is None else "responses"
    alone = [i for i, value in enumerate(found) if value != value and len(records[owner[i][0]][kind]) > 1]
    if alone:  # one response that cannot be encoded takes its whole group along
        single = [{**records[owner[i][0]], kind: [records[owner[i][0]][kind][owner[i][1]]]} for i in alone]
        again = sequence_rewards(model, encode(single, tokenizer, kind="responses"), **options).values[:, 0]
        for i, value in zip(alone, again.tolist(), strict=True):
            found[i] = value
    return found

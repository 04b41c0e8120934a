"""Rewards that models give: linear heads on states, log-probabilities against a reference, the probability of yes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._validate import describe, integer, real
from rankdiag.language_models import _run
from rankdiag.language_models._checks import check_heads
from rankdiag.language_models._context import Context, PlainOutput
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._model import Subject, adapt, untouched
from rankdiag.language_models._outputs import HeadReward
from rankdiag.language_models._plan import plan
from rankdiag.rewards._table import RewardTable

__all__ = ["generative_rewards", "implicit_rewards", "linear_head", "sequence_rewards"]

Floats = NDArray[np.float64]
Layout = Literal["auto", "plain", "packed"]

_VOCABULARY = 1 << 14  # logits of one block for each response
_HEADS = ("score", "classifier", "v_head", "reward_head", "regression_head")


def sequence_rewards(
    model: Any,
    data: Encoded,
    *,
    pool: Literal["last", "mean"] = "last",
    label: int | None = None,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> RewardTable:
    """Rewards of a sequence classifier: its linear head on the state of the last token of each response.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder with a linear head on its states, ``AutoModelForSequenceClassification`` say; peft adapters stay
        active.
    data : Encoded
        Responses, or pairs, encoded with the tokenizer and template of this model; what the template writes behind a
        response belongs to it.
    pool : {"last", "mean"}
        The state of the last token, or the mean over the states of all response tokens.
    label : int, optional
        Which output of a head that has several.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`.
    token_budget : int, optional
        See `rankdiag.language_models.plan`.
    autocast : torch.dtype, optional
        Lower precision for the forwards.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    RewardTable
        One row for each group; NaN where it cannot be used.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the model has no linear head, or one with several outputs and no `label`, or it is not causal.

    Notes
    -----
    The last token is the last one that was encoded, whatever the padding token is: the head of transformers looks for
    the last token that is not the padding token, which is wrong where that is the EOS. Prompts that several responses
    share are run once. Logits are never made.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import sequence_rewards
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3, 4], [5]]}], kind="responses")
    >>> try:
    ...     sequence_rewards(tiny_language_model(), data)
    ... except ValueError as error:
    ...     print(str(error)[:44])
    `model` must have a linear head on its state
    """
    subject = adapt(model, "model")
    _check(data)
    weight, bias = linear_head(subject, label)
    outputs: list[Any] = [HeadReward(weight, bias, pool=pool)]
    made = plan(data, subject, outputs, layout=layout, token_budget=token_budget)
    values = _empty(data)
    for columns in _run.run(subject, made, outputs, autocast=autocast, progress=progress):
        values[columns.group, columns.slot] = columns["reward"]
    return RewardTable.from_array(
        values, prompt_ids=data.keys, lengths=_lengths(data), meta={"reward": subject.name, "pool": pool}
    )


def implicit_rewards(
    model: Any,
    reference: Any,
    data: Encoded,
    *,
    beta: float = 1.0,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> RewardTable:
    """Implicit rewards of a policy: beta (ln pi(y | x) - ln pi_ref(y | x)), summed over response tokens.

    Parameters
    ----------
    model : torch.nn.Module
        The policy: a causal language model.
    reference : torch.nn.Module or None
        The reference model; None leaves its term out.
    data : Encoded
        Responses, or pairs.
    beta : float
        Factor, > 0. Accuracies and normalised margins do not depend on it.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`.
    token_budget : int, optional
        See `rankdiag.language_models.plan`.
    autocast : torch.dtype, optional
        Lower precision for the forwards.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    RewardTable
        Rewards, with ``log_probs`` under `model`; NaN where a group cannot be used.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `beta` is not above 0, or the data does not fit a model.

    References
    ----------
    Razin et al., "Why is Your Language Model a Poor Implicit Reward Model?", arXiv 2507.07981, equation 2.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import implicit_rewards
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3, 4], [5]]}], kind="responses")
    >>> model = tiny_language_model()
    >>> implicit_rewards(model, model, data).values.tolist()
    [[0.0, 0.0]]
    """
    _check(data)
    factor = real(beta, "beta", low=0.0, low_open=True)
    options: dict[str, Any] = {
        "layout": layout, "token_budget": token_budget, "autocast": autocast, "progress": progress
    }  # fmt: skip
    own = _run.sequence_log_probs(model, data, **options)
    difference = own["logp"]
    if reference is not None:
        difference = difference - _run.sequence_log_probs(reference, data, **options)["logp"]
    values, log_probs = _empty(data), _empty(data)
    values[data.group, data.slot] = factor * difference
    log_probs[data.group, data.slot] = own["logp"]
    return RewardTable.from_array(
        values,
        prompt_ids=data.keys,
        log_probs=log_probs,
        lengths=_lengths(data),
        meta={"reward": "implicit", "beta": factor, "reference": reference is not None},
    )


def generative_rewards(
    model: Any,
    data: Encoded,
    yes: int | Sequence[int],
    *,
    no: int | Sequence[int] | None = None,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> RewardTable:
    """Rewards of a generative reward model: the probability that its next word is yes.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model.
    data : Encoded
        Responses, or pairs, each with the question that asks for the verdict behind it (as part of the response), down
        to where the verdict would begin; encode with ``add_eos=False``.
    yes : int or sequence of int
        Tokens that mean yes; several (capitals, a leading space) add up. They must not be in `no`.
    no : int or sequence of int, optional
        Tokens that mean no: the reward is then P(yes) / (P(yes) + P(no)). None takes P(yes) among all tokens.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`.
    token_budget : int, optional
        See `rankdiag.language_models.plan`.
    autocast : torch.dtype, optional
        Lower precision for the forwards.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    RewardTable
        Rewards in [0, 1], one row for each group; NaN where it cannot be used.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a token is outside the vocabulary, given twice, or both yes and no, or the model has no output projection.

    Notes
    -----
    The output projection meets the last state of each response alone. Probabilities so small that the next of them is
    equal are ties: give `no`, or compare ln P by `rankdiag.language_models.sequence_log_probs`.

    References
    ----------
    Zhang et al., "Generative Verifiers: Reward Modeling as Next-Token Prediction", arXiv 2408.15240; compared with
    explicit and implicit reward models in Razin et al., arXiv 2507.07981.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import generative_rewards
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3, 4, 9], [5, 9]]}], kind="responses")
    >>> table = generative_rewards(tiny_language_model(), data, yes=10, no=11)
    >>> table.values.shape, bool(((table.values > 0) & (table.values < 1)).all())
    ((1, 2), True)
    """
    subject = adapt(model, "model")
    _check(data)
    if subject.head is None:
        raise ValueError(f"`model` must have an output projection; {describe(model)} has none")
    wanted = _tokens(yes, "yes", subject.head.size)
    others = [] if no is None else _tokens(no, "no", subject.head.size)
    if set(wanted) & set(others):
        raise ValueError(f"`yes` and `no` must be different tokens; both hold {min(set(wanted) & set(others))}")
    outputs: list[Any] = [_Verdict(wanted, others)]
    made = plan(data, subject, outputs, layout=layout, token_budget=token_budget)
    usable = [group for group, status in enumerate(data.status) if status == "ok"]
    if usable:
        with untouched([subject]):
            check_heads(made.source, usable, [subject])
    values = _empty(data)
    for columns in _run.run(subject, made, outputs, autocast=autocast, progress=progress):
        values[columns.group, columns.slot] = columns["verdict"]
    meta = {"reward": "generative", "model": subject.name, "yes": wanted, "no": others or None}
    return RewardTable.from_array(values, prompt_ids=data.keys, lengths=_lengths(data), meta=meta)


class _Verdict(PlainOutput):
    """Probability of some tokens behind the last one of each response, among all tokens or against some others."""

    needs = frozenset({"states", "last"})
    columns = ("verdict",)

    def __init__(self, yes: list[int], no: list[int]) -> None:
        self._yes, self._no = yes, no

    def finish(self, acc: Any) -> Mapping[str, Any]:
        context: Context = acc
        head: Any = context.head
        yes: list[torch.Tensor] = []
        other: list[torch.Tensor] = []
        for first, last, block in head.blocks(context.last, _VOCABULARY):
            logits = block.double()
            yes += _picked(logits, self._yes, first, last)
            other += _picked(logits, self._no, first, last) if self._no else [logits.logsumexp(dim=1, keepdim=True)]
        gap = torch.cat(yes, dim=1).logsumexp(dim=1) - torch.cat(other, dim=1).logsumexp(dim=1)
        return {"verdict": (torch.sigmoid(gap) if self._no else gap.exp()).cpu().numpy()}


def _picked(logits: torch.Tensor, tokens: Sequence[int], first: int, last: int) -> list[torch.Tensor]:
    """Return the columns of the tokens that lie in a block of the vocabulary, if there are any."""
    inside = [token - first for token in tokens if first <= token < last]
    return [logits[:, inside]] if inside else []


def _tokens(value: Any, name: str, size: int) -> list[int]:
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    tokens = [integer(token, name, low=0, high=size - 1) for token in given]
    if not tokens or len(set(tokens)) != len(tokens):
        raise ValueError(f"`{name}` must hold at least one token, each once; got {describe(str(tokens))}")
    return tokens


def _check(data: Any) -> None:
    if not isinstance(data, Encoded):
        raise TypeError(f"`data` must be encoded responses, see encode; got {describe(data)}")
    if not len(data):
        raise ValueError("`data` must hold at least one prompt; got none")


def _empty(data: Encoded) -> Floats:
    return np.full((len(data), int(data.slot.max(initial=0)) + 1), np.nan)


def _lengths(data: Encoded) -> NDArray[np.int64]:
    found = np.zeros((len(data), int(data.slot.max(initial=0)) + 1), dtype=np.int64)
    found[data.group, data.slot] = [len(ids) for ids in data.response_ids]
    return found


def linear_head(subject: Subject, label: int | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight (d,) and bias of the linear head of a classifier, in float64."""
    module = next((found for name in _HEADS if (found := getattr(subject.causal, name, None)) is not None), None)
    saved = getattr(module, "modules_to_save", None)  # peft trains a copy of the head beside the original
    if saved is not None:
        active = getattr(module, "active_adapter", None)
        name = active[0] if isinstance(active, (list, tuple)) and active else active
        module = saved[name] if name in saved else getattr(module, "original_module", module)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
        raise ValueError(
            f"`model` must have a linear head on its states, named {', '.join(_HEADS[:-1])} or {_HEADS[-1]}; "
            f"{subject.name} has none. Use the engine's HeadReward with a weight of your own"
        )
    if label is None and weight.shape[0] != 1:
        raise ValueError(f"`label` must say which of the {weight.shape[0]} outputs of the head is the reward")
    row = 0 if label is None else integer(label, "label", low=0, high=int(weight.shape[0]) - 1)
    bias = getattr(module, "bias", None)
    return weight[row].detach().double().cpu(), None if bias is None else bias[row].detach().double().cpu()

"""Rollouts: what a sampler drew for each prompt, and the rewards that functions of their text give them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._rng import as_generator
from rankdiag._validate import describe, integer
from rankdiag.rewards._table import RewardTable

__all__ = ["Rollouts", "Sampler", "TableSampler", "from_sampler", "score_rollouts"]

Floats = NDArray[np.float64]
RewardFunction = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollouts:
    """Responses that a policy sampled, k or fewer for each prompt.

    Attributes
    ----------
    prompts : tuple
        As they were given: texts, conversations (lists of ``{"role", "content"}``) or lists of ids.
    texts : tuple of tuple of str
        Responses to each prompt.
    prompt_ids : tuple of tuple of int, or None
        Tokens of each prompt, where a tokenizer was there.
    token_ids : tuple of tuple of tuple of int, or None
        Tokens of each response, its EOS among them.
    lengths : tuple of tuple of int
        Tokens of each response; characters where there are no tokens.
    finish_reasons : tuple of tuple of str
        ``"stop"``, or ``"length"`` where a response was cut off.
    log_probs : tuple of tuple of float, or None
        Log-probability of each response under the policy that sampled it, in nats.
    meta : mapping of str to object
        Sampler, temperature, top_k, top_p, seed, policy.

    Raises
    ------
    TypeError
        If a field is not of its kind.
    ValueError
        If there is no prompt, or fields do not have one entry for each response.

    Examples
    --------
    >>> from rankdiag.rewards import Rollouts
    >>> rollouts = Rollouts(prompts=("1 + 1 =",), texts=((" 2", " 3"),))
    >>> len(rollouts), rollouts.sizes, rollouts.truncated_fraction
    (1, (2,), 0.0)
    """

    prompts: tuple[Any, ...]
    texts: tuple[tuple[str, ...], ...]
    prompt_ids: tuple[tuple[int, ...], ...] | None = None
    token_ids: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    lengths: tuple[tuple[int, ...], ...] = ()
    finish_reasons: tuple[tuple[str, ...], ...] = ()
    log_probs: tuple[tuple[float, ...], ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prompts: Any = self.prompts
        if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
            raise TypeError(f"`prompts` must be a sequence of prompts; got {describe(prompts)}")
        if not prompts:
            raise ValueError("`prompts` must hold at least one prompt; got none")
        texts = _nested(self.texts, "texts", len(self.prompts), str)
        found: dict[str, Any] = {"prompts": tuple(self.prompts), "texts": texts}
        if self.token_ids is not None:
            found["token_ids"] = tuple(
                tuple(tuple(int(token) for token in response) for response in row) for row in self.token_ids
            )
            _same_sizes(found["token_ids"], texts, "token_ids")
        if self.prompt_ids is not None:
            found["prompt_ids"] = tuple(tuple(int(token) for token in row) for row in self.prompt_ids)
            if len(found["prompt_ids"]) != len(texts):
                raise ValueError(
                    f"`prompt_ids` must have one entry for each of {len(texts)} prompts; got {len(self.prompt_ids)}"
                )
        tokens = found.get("token_ids", texts)
        found["lengths"] = self.lengths or tuple(tuple(len(response) for response in row) for row in tokens)
        found["finish_reasons"] = self.finish_reasons or tuple(tuple("stop" for _ in row) for row in texts)
        for name in ("lengths", "finish_reasons", "log_probs"):
            value = found.get(name, getattr(self, name))
            if value is not None:
                _same_sizes(value, texts, name)
                found[name] = tuple(tuple(row) for row in value)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"Rollouts({len(self)} prompts, {sum(self.sizes)} responses, {self.truncated_fraction:.0%} cut off)"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Responses to each prompt."""
        return tuple(len(row) for row in self.texts)

    @property
    def truncated_fraction(self) -> float:
        """Share of the responses that were cut off before their EOS."""
        reasons = [reason for row in self.finish_reasons for reason in row]
        return sum(reason == "length" for reason in reasons) / max(1, len(reasons))

    def encoded(self) -> Any:
        """Return the rollouts as the engine of language models takes them, without tokenising anything again.

        Returns
        -------
        rankdiag.language_models.Encoded
            One group for each prompt.

        Raises
        ------
        ValueError
            If there are no token ids.
        """
        from rankdiag.language_models import encode

        if self.token_ids is None or self.prompt_ids is None:
            raise ValueError("these rollouts have no token ids; sample with HFSampler, or encode their texts")
        records = [
            {"prompt_ids": list(prompt), "responses_ids": [list(response) for response in responses]}
            for prompt, responses in zip(self.prompt_ids, self.token_ids, strict=True)
        ]
        return encode(records, kind="responses")


def _nested(value: Any, name: str, count: int, kind: type) -> tuple[tuple[Any, ...], ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must hold a sequence for each prompt; got {describe(value)}")
    if len(value) != count:
        raise ValueError(f"`{name}` must have one entry for each of {count} prompts; got {len(value)}")
    for row in value:
        if isinstance(row, (str, bytes)) or not isinstance(row, Sequence):
            raise TypeError(f"`{name}` must hold a sequence for each prompt; got {describe(row)}")
        for entry in row:
            if not isinstance(entry, kind):
                raise TypeError(f"`{name}` must hold {kind.__name__} entries; got {describe(entry)}")
    return tuple(tuple(row) for row in value)


def _same_sizes(value: Any, texts: tuple[tuple[str, ...], ...], name: str) -> None:
    sizes, wanted = [len(row) for row in value], [len(row) for row in texts]
    if sizes != wanted:
        raise ValueError(f"`{name}` must have one entry for each response; got {sizes[:8]} for {wanted[:8]} responses")


@runtime_checkable
class Sampler(Protocol):
    """Whatever draws responses: a model, a server, a table.

    Examples
    --------
    >>> from rankdiag.rewards import Sampler, TableSampler
    >>> isinstance(TableSampler([["a", "b"]]), Sampler)
    True
    """

    def sample(self, prompts: Sequence[Any], k: int, *, rng: Any = None) -> Rollouts:
        """Draw k responses to each prompt.

        Parameters
        ----------
        prompts : sequence
            Texts, conversations or ids.
        k : int
            Responses to each.
        rng : int or numpy.random.Generator, optional
            Of the draw.

        Returns
        -------
        Rollouts
            What was drawn.
        """
        ...


class TableSampler:
    """Draws from responses that are there already, without replacement.

    Parameters
    ----------
    responses : sequence of sequence of str
        Responses to each prompt, in the order of the prompts that `sample` gets.

    Examples
    --------
    >>> from rankdiag.rewards import TableSampler
    >>> TableSampler([[" 2", " 3", " 4"]]).sample(["1 + 1 ="], 2).texts
    ((' 2', ' 3'),)
    """

    def __init__(self, responses: Sequence[Sequence[str]]) -> None:
        count = len(responses) if isinstance(responses, Sequence) else 0
        self.responses = _nested(responses, "responses", count, str)

    def __repr__(self) -> str:
        return f"TableSampler({len(self.responses)} prompts)"

    def sample(self, prompts: Sequence[Any], k: int, *, rng: Any = None) -> Rollouts:
        """Draw k of the responses to each prompt; the first k without `rng`.

        Parameters
        ----------
        prompts : sequence
            As many prompts as there are rows of responses.
        k : int
            Responses to each prompt.
        rng : int or numpy.random.Generator, optional
            Of the draw.

        Returns
        -------
        Rollouts
            What was drawn.

        Raises
        ------
        ValueError
            If there are other prompts than rows, or fewer than k responses to one.
        """
        count = integer(k, "k", low=1)
        if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Sequence):
            raise TypeError(f"`prompts` must be a sequence of prompts; got {describe(prompts)}")
        if len(prompts) != len(self.responses):
            raise ValueError(f"`prompts` must be the {len(self.responses)} prompts of the table; got {len(prompts)}")
        short = [place for place, row in enumerate(self.responses) if len(row) < count]
        if short:
            raise ValueError(
                f"k={count} exceeds the {len(self.responses[short[0]])} responses to prompt {short[0]} of the table"
            )
        generator, seed = (None, None) if rng is None else as_generator(rng)
        picked = []
        for row in self.responses:
            places = range(count) if generator is None else generator.permutation(len(row))[:count].tolist()
            picked.append(tuple(row[place] for place in places))
        return Rollouts(
            prompts=tuple(prompts), texts=tuple(picked), meta={"sampler": "TableSampler", "seed": seed, "k": count}
        )


# --- rewards ----------------------------------------------------------------------------------------------------------


def score_rollouts(
    rollouts: Rollouts,
    functions: RewardFunction | Sequence[RewardFunction],
    *,
    weights: Any = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    gold: RewardFunction | None = None,
) -> RewardTable:
    """Score rollouts with reward functions as TRL's trainers call them.

    Parameters
    ----------
    rollouts : Rollouts
        Responses to score.
    functions : callable or sequence of callable
        Called as ``function(prompts=..., completions=..., completion_ids=..., **columns)`` with one entry for each
        response; returns one number for each, None for one that cannot be scored. May be async. Responses to
        conversations come as ``[{"role": "assistant", "content": text}]``.
    weights : array-like, shape (functions,), optional
        Weight of each function in the sum, 1 by default.
    columns : mapping of str to sequence, optional
        Further columns of the dataset, one entry for each prompt.
    gold : callable, optional
        Ground-truth reward of the same responses.

    Returns
    -------
    RewardTable
        The weighted sum. A response that no function can score is NaN; one that some can score is the sum over these,
        as in TRL.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a function returns another number of rewards than there are responses, or columns do not fit.

    Notes
    -----
    Texts are passed on untouched. Cost: that of the functions.

    Examples
    --------
    >>> from rankdiag.rewards import Rollouts, score_rollouts
    >>> rollouts = Rollouts(prompts=("1 + 1 =", "2 + 2 ="), texts=((" 2", " 3"), (" 4", " 4")))
    >>> def correct(completions, answer, **_):
    ...     return [float(text.strip() == known) for text, known in zip(completions, answer)]
    >>> score_rollouts(rollouts, correct, columns={"answer": ["2", "4"]}).values.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    if not isinstance(rollouts, Rollouts):
        raise TypeError(f"`rollouts` must be Rollouts; got {describe(rollouts)}")
    every, names, factors = function_names(functions, weights)
    arguments, count = function_arguments(rollouts, columns), sum(rollouts.sizes)
    scores = np.stack([called(function, arguments, count) for function in every])
    base = rollout_table(rollouts)
    where = ~np.isnan(base.values)
    return RewardTable.from_array(
        as_rows(summed(scores, factors), where),
        log_probs=base.log_probs,
        lengths=base.lengths,
        gold=None if gold is None else as_rows(called(gold, arguments, count), where),
        meta={**rollouts.meta, "reward": " + ".join(names)},
    )


def from_sampler(
    sampler: Sampler,
    prompts: Sequence[Any],
    k: int,
    functions: RewardFunction | Sequence[RewardFunction],
    *,
    weights: Any = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    gold: RewardFunction | None = None,
    rng: Any = None,
) -> RewardTable:
    """Draw rollouts and score them: `score_rollouts` of what a sampler draws.

    Parameters
    ----------
    sampler : Sampler
        Draws responses.
    prompts : sequence
        Texts, conversations or ids, as the sampler takes them.
    k : int
        Responses to each prompt.
    functions, weights, columns, gold
        As in `score_rollouts`.
    rng : int or numpy.random.Generator, optional
        Of the draw.

    Returns
    -------
    RewardTable
        Rewards, N prompts by k.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        See `score_rollouts`.

    Examples
    --------
    >>> from rankdiag.rewards import TableSampler, from_sampler
    >>> sampler = TableSampler([["yes", "no"], ["no", "no"]])
    >>> table = from_sampler(sampler, ["a", "b"], 2, lambda completions, **_: [float(t == "yes") for t in completions])
    >>> table.values.tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    if not isinstance(sampler, Sampler):
        raise TypeError(f"`sampler` must have a method sample(prompts, k, rng=...); got {describe(sampler)}")
    if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Sequence):
        raise TypeError(f"`prompts` must be a sequence of prompts; got {describe(prompts)}")
    rollouts = sampler.sample(prompts, integer(k, "k", low=1), rng=rng)
    return score_rollouts(rollouts, functions, weights=weights, columns=columns, gold=gold)


def function_arguments(rollouts: Rollouts, columns: Mapping[str, Sequence[Any]] | None) -> dict[str, Any]:
    """Return what reward functions are called with: one entry for each response."""
    sizes = rollouts.sizes
    chat = [
        isinstance(prompt, (list, tuple)) and bool(prompt) and isinstance(prompt[0], Mapping)
        for prompt in rollouts.prompts
    ]
    arguments: dict[str, Any] = {
        "prompts": [prompt for prompt, size in zip(rollouts.prompts, sizes, strict=True) for _ in range(size)],
        "completions": [
            [{"role": "assistant", "content": text}] if is_chat else text
            for row, is_chat in zip(rollouts.texts, chat, strict=True)
            for text in row
        ],
        "completion_ids": None
        if rollouts.token_ids is None
        else [list(response) for row in rollouts.token_ids for response in row],
    }
    if columns is not None and not isinstance(columns, Mapping):
        raise TypeError(f"`columns` must map names to one entry for each prompt; got {describe(columns)}")
    for name, values in (columns or {}).items():
        if name in arguments:
            raise ValueError(f"`columns` must not hold {name!r}, which is made from the rollouts")
        if isinstance(values, (str, bytes)) or len(values) != len(rollouts):
            raise ValueError(f"`columns` must have {len(rollouts)} entries in {name!r}, one for each prompt")
        arguments[name] = [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]
    return arguments


def function_names(functions: Any, weights: Any) -> tuple[list[RewardFunction], list[str], Floats]:
    """Return reward functions as a list, their names and their weights."""
    every = [functions] if callable(functions) else list(functions) if isinstance(functions, Sequence) else []
    if not every or not all(callable(function) for function in every):
        raise TypeError(f"`functions` must be a reward function, or a sequence of them; got {describe(functions)}")
    for function in every:
        if hasattr(function, "named_parameters"):
            raise TypeError(
                f"`functions` must not hold models; make one a function with reward_function: {describe(function)}"
            )
    factors = np.ones(len(every)) if weights is None else as_float64(weights, "weights", ndim=1)
    if len(factors) != len(every):
        raise ValueError(f"`weights` must have one entry for each of {len(every)} functions; got {len(factors)}")
    return every, [_name(function) for function in every], np.asarray(factors, dtype=np.float64)


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def called(function: RewardFunction, arguments: Mapping[str, Any], count: int) -> Floats:
    """Return what a reward function gives to `count` rollouts, None as NaN; waits for an async one."""
    name = _name(function)
    given: Any = function(**arguments)
    if inspect.isawaitable(given):
        given = _awaited(given)
    values = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise TypeError(f"`functions`: {name} must return one reward for each response; it returned {describe(given)}")
    if len(values) != count:
        raise ValueError(f"`functions`: {name} returned {len(values)} rewards for {count} responses")
    found = np.array(
        as_float64([np.nan if value is None else value for value in values], f"rewards of {name}", ndim=1, finite=False)
    )
    if np.isinf(found).any():
        place = int(np.isinf(found).argmax())
        raise ValueError(f"`functions`: rewards of {name} contain +-inf at response {place}; None marks no reward")
    return found


def summed(scores: Floats, weights: Floats) -> Floats:
    """Return the weighted sum (n,) of rewards (functions, n) over those that are there; NaN where none is."""
    with np.errstate(over="ignore", invalid="ignore"):  # a sum beyond float64 is refused by the table
        total = np.nansum(scores * weights[:, None], axis=0)
    return np.asarray(np.where(np.isnan(scores).all(axis=0), np.nan, total), dtype=np.float64)


def _awaited(given: Any) -> Any:
    """Wait for an async reward function, also where a loop runs already, as in a notebook."""

    async def wait() -> Any:
        return await given

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, wait()).result()


def _flat(rows: Any) -> Floats:
    return np.array([value for row in rows for value in row], dtype=np.float64)


def as_rows(flat: Floats, where: NDArray[np.bool_]) -> Floats:
    """Return one number for each rollout as rows (N, k), NaN where a prompt has fewer rollouts."""
    rows = np.full(where.shape, np.nan)
    rows[where] = flat
    return rows


def rollout_table(rollouts: Rollouts) -> RewardTable:
    """Return rollouts as a table whose rewards are all 0: what they have beside rewards, padded to rows."""
    sizes = np.array(rollouts.sizes)
    where = np.arange(max(1, int(sizes.max()))) < sizes[:, None]
    return RewardTable.from_array(
        np.where(where, 0.0, np.nan),
        log_probs=None if rollouts.log_probs is None else as_rows(_flat(rollouts.log_probs), where),
        lengths=np.nan_to_num(as_rows(_flat(rollouts.lengths), where), nan=0.0).astype(np.int64),
        meta=rollouts.meta,
    )

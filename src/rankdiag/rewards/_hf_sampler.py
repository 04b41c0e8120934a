"""Rollouts drawn from a causal language model of transformers: from its whole distribution, unless told otherwise."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rankdiag._array import refuse_size
from rankdiag._optional import optional
from rankdiag._rng import as_generator
from rankdiag._validate import RankdiagWarning, boolean, describe, integer, real
from rankdiag.language_models import _run
from rankdiag.language_models._model import Subject, adapt, untouched
from rankdiag.language_models._tokenise import TextTokeniser
from rankdiag.rewards._rollouts import Rollouts

__all__ = ["HFSampler"]


class HFSampler:
    """Draws responses from a causal language model with ``generate`` of transformers.

    Parameters
    ----------
    model : transformers.PreTrainedModel or wrapper of one
        The policy; peft, accelerate and torch.compile wrappers are looked through, adapters stay active.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        For prompts that are texts or conversations. Without one, prompts are lists of ids, and texts are ids written
        out.
    max_new_tokens : int
        Tokens of a response at most; longer ones are cut off, and their share is the ``truncated_fraction`` of the
        rollouts and of what their ``meta`` says, as it does in a table of their rewards.
    temperature : float
        1 samples from the policy itself.
    top_k : int
        Keep only so many of the most probable tokens; 0 keeps all.
    top_p : float
        Keep only the most probable tokens with this total probability; 1 keeps all.
    batch_size : int
        Responses drawn at a time.
    log_probs : bool
        Whether to add the log-probability of each response; only for the policy itself.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If one is out of range, or log-probabilities are asked for of another distribution than the policy's.

    Warns
    -----
    RankdiagWarning
        If the distribution is cut (top_k, top_p): spread of rewards, accuracies and gradients are then those of another
        policy than the one that training moves.

    Notes
    -----
    Every setting of the model's own generation configuration is put aside for the draw, among them the truncation to 50
    tokens that libraries have by default. Prompts are sorted by length; each is run once and its cache repeated for its
    responses, where the cache can be. A response ends with its first EOS, which belongs to it. The model runs in
    evaluation mode and random states of torch are as before; the draw depends on `rng`, on `batch_size` and on the
    other prompts, never on earlier calls. Log-probabilities come from the engine, not from the scores of generation.

    Examples
    --------
    >>> from rankdiag.rewards import HFSampler
    >>> try:
    ...     HFSampler("gpt2")
    ... except TypeError as error:
    ...     print(str(error)[:46])
    `model` must be a causal language model of tra
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        max_new_tokens: int = 512,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        batch_size: int = 32,
        log_probs: bool = False,
    ) -> None:
        subject = adapt(model, "model") if callable(model) else None
        if subject is None or not callable(getattr(subject.causal, "generate", None)):
            raise TypeError(
                f"`model` must be a causal language model of transformers, with generate(); got {describe(model)}"
            )
        self._subject: Subject = subject
        self._text = None if tokenizer is None else TextTokeniser(tokenizer)
        self.max_new_tokens = integer(max_new_tokens, "max_new_tokens", low=1)
        self.temperature = real(temperature, "temperature", low=0.0, low_open=True)
        self.top_k = integer(top_k, "top_k", low=0)
        self.top_p = real(top_p, "top_p", low=0.0, high=1.0, low_open=True)
        self.batch_size = integer(batch_size, "batch_size", low=1)
        self.log_probs = boolean(log_probs, "log_probs")
        cut = self.top_k > 0 or self.top_p < 1.0
        if self.log_probs and (cut or self.temperature != 1.0):
            raise ValueError(
                "`log_probs=True` needs temperature=1, top_k=0 and top_p=1: those of another distribution are not "
                "those of the policy"
            )
        if cut:
            warnings.warn(
                f"top_k={self.top_k} and top_p={self.top_p:g} cut the distribution: rewards of these rollouts are "
                "those of another policy than the one that training moves",
                RankdiagWarning,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        return (
            f"HFSampler({self._subject.name}, temperature={self.temperature:g}, max_new_tokens={self.max_new_tokens})"
        )

    def sample(self, prompts: Sequence[Any], k: int, *, rng: Any = None) -> Rollouts:
        """Draw k responses to each prompt.

        Parameters
        ----------
        prompts : sequence
            Texts, conversations (lists of ``{"role", "content"}``) or lists of ids.
        k : int
            Responses to each.
        rng : int or numpy.random.Generator, optional
            Of the draw; None takes fresh entropy.

        Returns
        -------
        Rollouts
            Texts, ids, lengths and why each response ended.

        Raises
        ------
        TypeError
            If an argument has the wrong type.
        ValueError
            If a prompt is empty, or is longer than the model allows together with `max_new_tokens`.
        """
        count = integer(k, "k", low=1)
        generator, seed = as_generator(rng)
        ids = self._prompt_ids(prompts)
        limit = self._subject.position_limit
        longest = max(len(row) for row in ids)
        if limit is not None and longest + self.max_new_tokens > limit:
            raise ValueError(
                f"`prompts` has one of {longest} tokens, which leaves {limit - longest} of the {limit} positions of "
                f"this model; max_new_tokens is {self.max_new_tokens}"
            )
        refuse_size(len(ids) * count * (longest + self.max_new_tokens), "k", (len(ids), count))
        order = sorted(range(len(ids)), key=lambda place: (-len(ids[place]), place))
        size = max(1, self.batch_size // count)
        found: dict[int, list[list[int]]] = {}
        ends = self._ends()
        for first in range(0, len(order), size):
            batch = order[first : first + size]
            draw = self._draw([ids[place] for place in batch], count, int(generator.integers(2**63)), ends)
            for number, place in enumerate(batch):
                found[place] = [_until(row, ends) for row in draw[number * count : (number + 1) * count]]
        tokens = tuple(tuple(tuple(row) for row in found[place]) for place in range(len(ids)))
        reasons = tuple(tuple("stop" if row[-1] in ends else "length" for row in rows) for rows in tokens)
        rollouts = Rollouts(
            prompts=tuple(prompts),
            texts=tuple(tuple(self._written(row) for row in rows) for rows in tokens),
            prompt_ids=tuple(tuple(row) for row in ids),
            token_ids=tokens,
            finish_reasons=reasons,
            meta={**self._meta(count, seed), "truncated_fraction": _truncated(reasons)},
        )
        return self._with_log_probs(rollouts) if self.log_probs else rollouts

    def _meta(self, k: int, seed: int | None) -> dict[str, Any]:
        config = getattr(self._subject.causal, "config", None)
        return {
            "sampler": "HFSampler",
            "policy": str(getattr(config, "_name_or_path", "") or self._subject.name),
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "max_new_tokens": self.max_new_tokens,
            "k": k,
            "seed": seed,
        }

    def _prompt_ids(self, prompts: Any) -> list[list[int]]:
        if isinstance(prompts, (str, bytes, Mapping)) or not isinstance(prompts, Sequence):
            raise TypeError(f"`prompts` must be a sequence of prompts; got {describe(prompts)}")
        if not prompts:
            raise ValueError("`prompts` must hold at least one prompt; got none")
        found = [self._one_prompt(prompt, f"prompt {place}") for place, prompt in enumerate(prompts)]
        for place, row in enumerate(found):
            if not row:
                raise ValueError(f"`prompts` must have at least one token each; prompt {place} has none")
        return found

    def _one_prompt(self, prompt: Any, place: str) -> list[int]:
        listed = isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes))
        if listed and all(isinstance(token, (int, np.integer)) for token in prompt):
            top = self._subject.n_embeddings
            return [integer(token, f"{place}: token", low=0, high=None if top is None else top - 1) for token in prompt]
        if self._text is None:
            raise TypeError(f"`prompts` must be lists of ids without a tokenizer; {place} is {describe(prompt)}")
        if isinstance(prompt, str):
            return self._text.ids([prompt], [place], special=True)[0]
        if listed and all(isinstance(turn, Mapping) for turn in prompt):
            text = self._text.render(list(prompt), {}, place, generation=True)
            return self._text.ids([text], [place], special=False)[0]
        raise TypeError(f"`prompts` must be texts, conversations or lists of ids; {place} is {describe(prompt)}")

    def _ends(self) -> frozenset[int]:
        """Return the ids that end a response: those of the model's generation, and that of the tokenizer."""
        causal = self._subject.causal
        found: set[int] = set()
        for config in (getattr(causal, "generation_config", None), getattr(causal, "config", None)):
            value = getattr(config, "eos_token_id", None)
            found.update([value] if isinstance(value, int) else value or [])
            if found:
                break
        if self._text is not None and self._text.eos is not None:
            found.add(self._text.eos)
        return frozenset(found)

    def _written(self, row: Sequence[int]) -> str:
        if self._text is None:
            return " ".join(map(str, row))
        return str(self._text.tokenizer.decode(list(row), skip_special_tokens=True))

    def _draw(self, prompts: list[list[int]], k: int, seed: int, ends: frozenset[int]) -> list[list[int]]:
        """Draw k responses to each prompt of a batch, prompts padded on the left."""
        subject = self._subject
        width = max(map(len, prompts))
        pad = min(ends) if ends else 0
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in prompts], device=subject.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=subject.device)
        config = _generation_config(self, pad, ends)
        with untouched([subject]), _without_own_settings(subject.causal, config):
            cache = _shared_cache(subject.causal, ids, mask, k) if k > 1 and width > 1 else {}
            torch.manual_seed(seed)
            out = subject.causal.generate(
                input_ids=ids.repeat_interleave(k, dim=0),
                attention_mask=mask.repeat_interleave(k, dim=0),
                generation_config=config,
                **cache,
            )
        return [[int(token) for token in row] for row in out[:, width:].tolist()]

    def _with_log_probs(self, rollouts: Rollouts) -> Rollouts:
        rows = _run.sequence_log_probs(self._subject, rollouts.encoded())["logp"]
        starts = np.cumsum([0, *rollouts.sizes])
        found = tuple(tuple(rows[a:b].tolist()) for a, b in itertools.pairwise(starts))
        return dataclasses.replace(rollouts, log_probs=found)


def _truncated(reasons: tuple[tuple[str, ...], ...]) -> float:
    every = [reason for row in reasons for reason in row]
    return every.count("length") / len(every)


def _until(row: list[int], ends: frozenset[int]) -> list[int]:
    """Cut a response behind its first EOS."""
    for place, token in enumerate(row):
        if token in ends:
            return row[: place + 1]
    return row


def _generation_config(sampler: HFSampler, pad: int, ends: frozenset[int]) -> Any:
    transformers = optional("transformers", extra="hf", feature="sampling from a language model")
    return transformers.GenerationConfig(
        do_sample=True,
        temperature=sampler.temperature,
        top_k=sampler.top_k,
        top_p=sampler.top_p,
        max_new_tokens=sampler.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends) or None,
        use_cache=True,
    )


@contextlib.contextmanager
def _without_own_settings(causal: Any, config: Any) -> Iterator[None]:
    """Put the model's own generation settings aside: what is unset in a configuration would be taken from them."""
    own = causal.generation_config
    causal.generation_config = copy.deepcopy(config)
    try:
        yield
    finally:
        causal.generation_config = own


def _shared_cache(causal: Any, ids: torch.Tensor, mask: torch.Tensor, k: int) -> dict[str, Any]:
    """Run each prompt but its last token once, and repeat its cache; nothing where a cache cannot be repeated."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    arguments = {"attention_mask": mask[:, :-1], "position_ids": positions[:, :-1], "use_cache": True}
    accepted = inspect.signature(causal.forward).parameters
    if "position_ids" not in accepted and bool((mask == 0).any()):
        return {}
    out = causal(input_ids=ids[:, :-1], **{name: value for name, value in arguments.items() if name in accepted})
    cache: Any = getattr(out, "cache", None)
    cache = getattr(out, "past_key_values", None) if cache is None else cache
    try:
        cache.batch_repeat_interleave(k)
    except (AttributeError, NotImplementedError, TypeError):  # a recurrent state, or a cache of another kind
        return {}
    generation = optional("transformers.generation.utils", extra="hf", feature="sampling from a language model")
    known = getattr(generation, "ALL_CACHE_NAMES", ())
    return {"cache" if "cache" in known else "past_key_values": cache}

"""What can be read off one forward: sums of states, states, log-probabilities, distributions, rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from rankdiag._array import as_float64
from rankdiag._validate import boolean, choice, describe
from rankdiag.language_models._context import Column, Context, LogitsBlock, PlainOutput

__all__ = ["HeadReward", "LastState", "LogProbs", "StateSums", "States", "TokenKL", "TokenStats"]


class StateSums(PlainOutput):
    """Sums of the hidden states that predict the tokens of each response.

    Columns: ``sum`` (rows, d), all counted states; ``sum_beyond`` (rows, d), those that the row does not share with
    its whole group; ``n_states`` and ``n_shared`` (rows,), how many there are and how many are shared (s of
    arXiv 2410.08847 as read here: positions with identical prefixes). Sums are float64.

    Examples
    --------
    >>> from rankdiag.language_models import StateSums, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [StateSums()]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["sum"].shape, columns["n_states"].tolist(), columns["n_shared"].tolist()
    ((2, 8), [2, 3], [2, 2])
    """

    columns = ("sum", "sum_beyond", "n_states", "n_shared")

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc
        both = torch.cat([context.selection(), context.selection(beyond=True)])
        sums = (both @ context.hidden.double()).cpu().numpy()
        n = len(context.rows)
        counted = context.counted.cpu().numpy()
        pieces = list(zip(context.ptr[:-1], context.ptr[1:], strict=True))
        return {
            "sum": sums[:n],
            "sum_beyond": sums[n:],
            "n_states": np.array([int(counted[first:last].sum()) for first, last in pieces], dtype=np.int64),
            "n_shared": context.shared.copy(),
        }


class States(PlainOutput):
    """The hidden states themselves.

    Column: ``states``, one array (n, d) for each row, float64 for a float64 model and else float32; state k predicts
    token k, whether it counts or not.

    Examples
    --------
    >>> from rankdiag.language_models import States, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [States()]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> [states.shape for states in columns["states"]]
    [(2, 8), (3, 8)]
    """

    columns = ("states",)

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc
        dtype = torch.float64 if context.hidden.dtype == torch.float64 else torch.float32
        hidden = context.hidden.to("cpu", dtype).numpy()
        entry = context.entry.cpu().numpy()
        pieces = zip(context.ptr[:-1], context.ptr[1:], strict=True)
        return {"states": tuple(hidden[entry[first:last]] for first, last in pieces)}


class LastState(PlainOutput):
    """The state of the last token of each response, which predicts nothing that is part of it.

    Column: ``last_state`` (rows, d), float64. Costs one token more for each response.

    Examples
    --------
    >>> from rankdiag.language_models import LastState, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [LastState()]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["last_state"].shape
    (2, 8)
    """

    needs = frozenset({"states", "last"})
    columns = ("last_state",)

    def finish(self, acc: Any) -> Mapping[str, Column]:
        return {"last_state": acc.last.to("cpu", torch.float64).numpy()}


class LogProbs(PlainOutput):
    """Log-probabilities of responses, in nats.

    Columns: ``logp`` (rows,), the sum over counted tokens, float64; ``n_tokens`` (rows,), their number; with
    `per_token`, ``token_logp``, one array for each row with all its tokens, counted or not.

    Parameters
    ----------
    per_token : bool
        Whether to keep the log-probability of every token.

    Examples
    --------
    >>> from rankdiag.language_models import LogProbs, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [LogProbs(per_token=True)]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> [len(tokens) for tokens in columns["token_logp"]]
    [2, 3]
    """

    needs = frozenset({"states", "logits"})

    def __init__(self, *, per_token: bool = False) -> None:
        self.per_token = boolean(per_token, "per_token")
        self.columns: tuple[str, ...] = ("logp", "n_tokens", "token_logp") if self.per_token else ("logp", "n_tokens")

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc
        per_token = context.target_logit.double() - context.log_partition[context.entry]
        tokens = context.by_row(per_token)
        counted = context.counted.cpu().numpy()
        masks = [counted[first:last] for first, last in zip(context.ptr[:-1], context.ptr[1:], strict=True)]
        columns: dict[str, Column] = {
            "logp": np.array([float(row[mask].sum()) for row, mask in zip(tokens, masks, strict=True)]),
            "n_tokens": np.array([int(mask.sum()) for mask in masks], dtype=np.int64),
        }
        return {**columns, "token_logp": tokens} if self.per_token else columns


class TokenStats(PlainOutput):
    """How surprising each token is, and how uncertain the model was of it, in nats.

    Columns, one float64 array for each row: ``surprisal`` = -ln p(y_k), ``entropy`` = -sum p ln p and ``varentropy`` =
    the variance of ln p under p, of the distribution that predicts token k.

    Examples
    --------
    >>> from rankdiag.language_models import TokenStats, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [TokenStats()]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> bool((columns["entropy"][0] > 0).all())
    True
    """

    needs = frozenset({"states", "logits"})
    columns = ("surprisal", "entropy", "varentropy")

    def start(self, context: Context) -> Any:
        zeros = torch.zeros(len(context.hidden), dtype=torch.float64, device=context.hidden.device)
        return {"context": context, "first": zeros, "second": zeros.clone(), "total": zeros.clone()}

    def update(self, acc: Any, block: LogitsBlock) -> None:
        growth, rescale = block.growth.double(), block.rescale.double()
        first, second, total = acc["first"], acc["second"], acc["total"]
        acc["second"] = rescale * (second - 2 * growth * first + growth**2 * total)
        acc["first"] = rescale * (first - growth * total)
        acc["total"] = rescale * total
        # weights = exp(logits - peak), so their logarithm is the shifted logit; 0 ln 0 counts as 0.
        shifted = block.weights.log().masked_fill_(block.weights == 0, 0.0)
        part = block.weights * shifted
        acc["first"] += part.sum(dim=1, dtype=torch.float64)
        acc["second"] += part.mul_(shifted).sum(dim=1, dtype=torch.float64)
        acc["total"] += block.weights.sum(dim=1, dtype=torch.float64)

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc["context"]
        mean = acc["first"] / acc["total"]
        entropy = (acc["total"].log() - mean).clamp_(min=0.0)
        variance = (acc["second"] / acc["total"] - mean**2).clamp_(min=0.0)
        surprisal = context.log_partition[context.entry] - context.target_logit.double()
        return {
            "surprisal": context.by_row(surprisal),
            "entropy": context.by_row(entropy[context.entry]),
            "varentropy": context.by_row(variance[context.entry]),
        }


class TokenKL(PlainOutput):
    """Kullback-Leibler divergence between two models at every token, in nats.

    With models ``(p, q)``, ``kl_reverse`` = KL(p || q) and ``kl_forward`` = KL(q || p), of the whole next-token
    distributions at the prefix of each token; one float64 array for each row. Summed over a response they are exact
    for the given prefixes; they estimate a divergence of the two policies only on responses that the first argument
    sampled.

    Parameters
    ----------
    direction : {"both", "reverse", "forward"}
        Which columns to compute.

    Examples
    --------
    >>> from rankdiag.language_models import TokenKL, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> models = tiny_language_model(), tiny_language_model(rng=1)
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [TokenKL()]
    >>> (columns,) = run(models, plan(data, models, outputs), outputs)
    >>> [bool((kl > 0).all()) for kl in columns["kl_reverse"]]
    [True, True]
    """

    needs = frozenset({"states", "logits", "states_b"})

    def __init__(self, *, direction: Literal["both", "reverse", "forward"] = "both") -> None:
        self.direction = choice(direction, "direction", ("both", "reverse", "forward"))
        names = {"both": ("kl_reverse", "kl_forward"), "reverse": ("kl_reverse",), "forward": ("kl_forward",)}
        self.columns = names[self.direction]

    def start(self, context: Context) -> Any:
        zeros = torch.zeros(len(context.hidden), dtype=torch.float64, device=context.hidden.device)
        return {"context": context, "reverse": zeros, "forward": zeros.clone()}

    def update(self, acc: Any, block: LogitsBlock) -> None:
        if block.logits_b is None or block.rescale_b is None or block.weights_b is None:
            raise ValueError("TokenKL compares two models; pass `models=(p, q)`")
        difference = block.logits - block.logits_b
        if self.direction != "forward":
            part = _expected(block.weights, difference, block.logits)
            acc["reverse"] = acc["reverse"] * block.rescale.double() + part
        if self.direction != "reverse":
            part = _expected(block.weights_b, -difference, block.logits_b)
            acc["forward"] = acc["forward"] * block.rescale_b.double() + part

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc["context"]
        p = context.log_partition
        q = context.peak_b.double() + context.total_b.log()
        columns: dict[str, Column] = {}
        if "kl_reverse" in self.columns:
            columns["kl_reverse"] = context.by_row((acc["reverse"] / context.total - p + q).clamp(min=0)[context.entry])
        if "kl_forward" in self.columns:
            value = (acc["forward"] / context.total_b - q + p).clamp(min=0)
            columns["kl_forward"] = context.by_row(value[context.entry])
        return columns


def _expected(weights: torch.Tensor, difference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Sum weights times difference; a token that the first law excludes counts 0, one only the second excludes inf."""
    if torch.isinf(difference).any() or torch.isnan(difference).any():
        difference = torch.where(torch.isneginf(logits), torch.zeros_like(difference), difference)
        product = torch.where(torch.isposinf(difference), difference, weights * difference)
        return product.sum(dim=1, dtype=torch.float64)
    return (weights * difference).sum(dim=1, dtype=torch.float64)


class HeadReward(PlainOutput):
    """A linear reward head on the hidden states of each response.

    Column: ``reward`` (rows,), float64.

    Parameters
    ----------
    weight : array-like or torch.Tensor, shape (d,) or (1, d)
        The head, ``model.score.weight`` of a sequence classifier, say.
    bias : float or tensor with one entry, optional
        Its bias.
    pool : {"last", "mean"}
        On the state of the last response token, or the mean over the states of all counted response tokens.

    Examples
    --------
    >>> from rankdiag.language_models import HeadReward, encode_preferences, plan, run
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> outputs = [HeadReward([1.0] * 8)]
    >>> (columns,) = run(model, plan(data, model, outputs), outputs)
    >>> columns["reward"].shape
    (2,)
    """

    columns = ("reward",)

    def __init__(self, weight: Any, bias: Any = None, *, pool: Literal["last", "mean"] = "last") -> None:
        array = as_float64(weight, "weight", min_ndim=1, expected="a reward head (d,) or (1, d)")
        if array.ndim > 2 or (array.ndim == 2 and array.shape[0] != 1):
            raise ValueError(f"`weight` must have shape (d,) or (1, d); got {describe(weight)}")
        self._weight = array.reshape(-1)
        offset = 0.0 if bias is None else as_float64(bias, "bias", expected="one number")
        if np.size(offset) != 1:
            raise ValueError(f"`bias` must be one number; got {describe(bias)}")
        self._bias = float(np.reshape(offset, ()))
        self.pool = choice(pool, "pool", ("last", "mean"))
        self.needs = frozenset({"states", "last"})

    def finish(self, acc: Any) -> Mapping[str, Column]:
        context: Context = acc
        if context.last is None or len(self._weight) != context.last.shape[1]:
            width = context.hidden.shape[1]
            raise ValueError(f"`weight` must have one entry for each of {width} hidden units; got {len(self._weight)}")
        last = context.last.to("cpu", torch.float64).numpy() @ self._weight
        if self.pool == "last":
            return {"reward": last + self._bias}
        # The state *of* token k predicts token k + 1: entries 1 .. n-1 of a row, and the last state. With an implied
        # EOS that last state is an entry too and must not be counted twice.
        hidden = (context.hidden.to("cpu", torch.float64).numpy() @ self._weight)[context.entry.cpu().numpy()]
        counted = context.counted.cpu().numpy()
        rewards = []
        for row, first in enumerate(context.ptr[:-1]):
            n = int(context.ptr[row + 1] - first) - context.implied_eos
            values = np.append(hidden[first + 1 : first + n], last[row])
            rewards.append(float(values[counted[first : first + n]].mean()))
        return {"reward": np.array(rewards) + self._bias}

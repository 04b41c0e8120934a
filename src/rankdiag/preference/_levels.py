"""Scores of pairs from cheap to exact, their parts by token, and the pressure of a whole dataset at the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import choice, describe, integer
from rankdiag.language_models import _outputs, _run
from rankdiag.language_models._columns import Columns
from rankdiag.language_models._encoded import EncodedPreferences
from rankdiag.language_models._gradients import gradients
from rankdiag.language_models._head_outputs import HeadGradient, HeadGram, HeadPressure
from rankdiag.language_models._layout import Rows
from rankdiag.language_models._model import adapt
from rankdiag.language_models._plan import plan
from rankdiag.preference._dynamics import multi_token_dynamics
from rankdiag.preference._model_pairs import Layout, encoded_pairs, remarks_of
from rankdiag.preference._pressure import DatasetPressure
from rankdiag.preference._scores import DisplacementScores

__all__ = ["displacement_score", "head_pressure", "token_contributions"]

Floats = NDArray[np.float64]
Level = Literal["ches", "head", "ufm", "full"]


def displacement_score(
    model: Any,
    data: EncodedPreferences,
    *,
    level: Level = "head",
    parameters: Sequence[str] | Callable[[str, Any], bool] | None = None,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> DisplacementScores:
    """Score pairs at one level of a ladder from cheap to exact; positive predicts that the chosen response falls.

    Parameters
    ----------
    model : torch.nn.Module or callable
        See `score_preferences`; all levels but ``"ches"`` need an output projection, ``"full"`` a torch module.
    data : EncodedPreferences
        The pairs.
    level : {"ches", "head", "ufm", "full"}
        Which parameters are taken to train. ``"ches"``: a surrogate of ``"head"`` with every coefficient set to 1, no
        logits needed. ``"head"``: the output projection, exactly. ``"ufm"``: the output projection and one free vector
        for each prefix, the unconstrained features model of [U]. ``"full"``: all of `parameters`, exactly, by two
        backward passes a pair.
    parameters : sequence of str or callable, optional
        For level ``"full"``: names, or a predicate ``(name, parameter) -> bool``; None takes all that require a
        gradient.
    layout : {"auto", "plain", "packed"}
        See `score_preferences`.
    token_budget : int, optional
        See `score_preferences`.
    autocast : torch.dtype, optional
        See `score_preferences`; not for level ``"full"``.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    DisplacementScores
        ``chosen_sq`` = ||g+||^2, ``cross`` = <g+, g->, ``rejected_sq`` = ||g-||^2 with g the gradients of
        ln pi(response | prompt) at that level, and ``score`` = cross - chosen_sq.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the level is unknown, `parameters` is given at another level, or the model has no dense output projection.
    NotImplementedError
        At level ``"full"``, if parameters are sharded over processes.

    Notes
    -----
    Head level: no gradient is formed. With T states of a pair, 2 T V d operations for the logits and T^2 V for the
    products of distributions, in blocks of the vocabulary ([U] Theorem 6 with its coefficients kept; derived here for
    shared prefixes). Tied embeddings: ``"head"`` means the output side only.

    References
    ----------
    [U] Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment", arXiv 2410.08847, Theorem 6.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import displacement_score
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> [bool(displacement_score(model, data, level=level).score[0] < 0) for level in ("head", "ufm", "full")]
    [True, True, True]
    """
    pairs = encoded_pairs(data)
    kind = choice(level, "level", ("ches", "head", "ufm", "full"))
    if parameters is not None and kind != "full":
        raise ValueError(f"`parameters` belongs to level 'full'; got level {kind!r}")
    by_level: dict[str, Any] = {
        "ches": _outputs.StateSums(),
        "head": HeadGram(),
        "ufm": HeadGram(unembedding_terms=True),
        "full": _outputs.LogProbs(),
    }
    outputs = [by_level[kind]]
    made = plan(pairs, model, outputs, layout=layout, token_budget=token_budget)
    products = {name: np.full(len(pairs), np.nan) for name in ("chosen_sq", "cross", "rejected_sq", "score")}
    if kind == "full":
        if autocast is not None:
            raise ValueError("`autocast` must be None at level 'full', whose gradients are taken as the model is")
        _full_products(model, pairs, parameters, layout, products, progress=progress)
    else:
        reduce = _level_products(kind)
        for part in _run.run(model, made, outputs, reduce=reduce, autocast=autocast, progress=progress):
            for name, values in products.items():
                values[part.group] = part[name]
    manifest = made.to_manifest()
    return DisplacementScores(
        keys=pairs.keys,
        status=pairs.status,
        level=cast(Level, kind),
        layout=made.layout,
        model=manifest["models"][0],
        data_fingerprint=pairs.fingerprint,
        manifest={**manifest, "level": kind},
        remarks=remarks_of(made),
        chosen_sq=products["chosen_sq"],
        cross=products["cross"],
        rejected_sq=products["rejected_sq"],
        score=products["score"],
    )


def _level_products(level: str) -> Callable[[Columns], Mapping[str, Any]]:
    def from_sums(columns: Columns) -> Mapping[str, Any]:
        plus, beyond = columns["sum"][0::2], columns["sum_beyond"]
        difference = beyond[1::2] - beyond[0::2]
        score = np.einsum("nd,nd->n", plus, difference)
        chosen_sq = np.einsum("nd,nd->n", plus, plus)
        minus = plus + difference
        return {
            "chosen_sq": chosen_sq,
            "cross": chosen_sq + score,
            "rejected_sq": np.einsum("nd,nd->n", minus, minus),
            "score": score,
        }

    def from_gram(columns: Columns) -> Mapping[str, Any]:
        gram = columns["head_gram" if level == "head" else "ufm_gram"]
        chosen_sq, cross, rejected_sq = gram[0::2, 0], gram[0::2, 1], gram[1::2, 1]
        return {"chosen_sq": chosen_sq, "cross": cross, "rejected_sq": rejected_sq, "score": cross - chosen_sq}

    return from_sums if level == "ches" else from_gram


def _full_products(
    model: Any,
    pairs: EncodedPreferences,
    parameters: Any,
    layout: str,
    products: dict[str, Floats],
    *,
    progress: bool,
) -> None:
    for group, (plus, minus) in gradients(model, pairs, parameters=parameters, layout=layout, progress=progress):
        products["chosen_sq"][group] = _inner(plus, plus)
        products["cross"][group] = _inner(plus, minus)
        products["rejected_sq"][group] = _inner(minus, minus)
        products["score"][group] = products["cross"][group] - products["chosen_sq"][group]


def _inner(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    return float(sum(float(torch.dot(x.flatten().double(), y.flatten().double())) for x, y in zip(a, b, strict=True)))


def token_contributions(model: Any, data: EncodedPreferences, pairs: Sequence[int]) -> dict[int, list[float]]:
    """Return what each token of some chosen responses adds to the predicted change of its log-probability.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model.
    data : EncodedPreferences
        The pairs.
    pairs : sequence of int
        Positions of usable pairs.

    Returns
    -------
    dict of int to list of float
        Contributions to d/dt ln pi(chosen) in the unconstrained features model, per unit of loss weight, by position of
        the pair; empty for a model that changes its logits by a scale or a cap, whose terms are others.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a position is out of range, or its pair is not usable.

    Notes
    -----
    The rows of [U] Theorem 6 by themselves; they add up to the rate of the whole response. Negative tokens are pushed
    down.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import token_contributions
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> {pair: len(tokens) for pair, tokens in token_contributions(model, data, [0]).items()}
    {0: 2}
    """
    head = adapt(model, "model").head
    encoded_pairs(data)
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Sequence):
        raise TypeError(f"`pairs` must be a sequence of positions; got {describe(pairs)}")
    pairs = [integer(pair, "pairs", low=0, high=len(data) - 1) for pair in pairs]
    for pair in pairs:
        if data.status[pair] != "ok":
            raise ValueError(f"`pairs` must be usable; pair {pair} is {data.status[pair]!r}")
    if head is None or not pairs or head.scale != 1.0 or head.cap is not None or head.bias is not None:
        return {}
    outputs: list[Any] = [_outputs.States()]
    made = plan(data, model, outputs, groups=pairs)
    source = Rows(data=data, implied_eos=False, feed_last=False)
    states: dict[tuple[int, int], Any] = {}
    for columns in _run.run(model, made, outputs):
        for group, slot, entry in zip(columns.group.tolist(), columns.slot.tolist(), columns["states"], strict=True):
            states[group, slot] = entry
    found = {}
    for pair in pairs:
        dynamics = multi_token_dynamics(
            head.weight,
            states[pair, 0],
            states[pair, 1],
            data.chosen_ids[pair],
            data.rejected_ids[pair],
            n_shared=source.shared(pair),
        )
        found[pair] = [float(value) for value in dynamics.token_contributions]
    return found


def head_pressure(
    model: Any,
    data: EncodedPreferences,
    *,
    weights: Any = None,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> DatasetPressure:
    """How hard a step on the whole dataset pushes each chosen response down, exactly at the output projection.

    Parameters
    ----------
    model : torch.nn.Module
        See `score_preferences`; it needs a dense output projection.
    data : EncodedPreferences
        The pairs.
    weights : array-like, shape (N,), optional
        Loss weight g of each pair (see `loss_weights`), 1 by default; entries of unusable pairs are not read.
    layout : {"auto", "plain", "packed"}
        See `score_preferences`.
    token_budget : int, optional
        See `score_preferences`.
    autocast : torch.dtype, optional
        See `score_preferences`.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    DatasetPressure
        ``own`` = <G+, G-> - ||G+||^2 of each pair and ``pressure`` = <G+, M> with M the mean over the usable pairs of
        g (G- - G+), G = grad_W ln pi(response | prompt); positive pushes the chosen response down. NaN where a pair
        is unusable.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `weights` has not one entry for each pair, or the model has no dense output projection.

    Notes
    -----
    Derived here; the same algebra as `dataset_pressure`, with all coefficients kept. Two passes over the data, each a
    forward and three products of the size of the logits; memory one matrix of the size of the output projection.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import head_pressure
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> result = head_pressure(model, data)
    >>> bool(abs(result.own[0] - result.pressure[0]) < 1e-4)  # a pair alone is the whole dataset
    True
    """
    pairs = encoded_pairs(data)
    usable = np.array([status == "ok" for status in pairs.status])
    if not usable.any():
        raise ValueError("`data` must hold at least one usable pair; got none")
    g = np.ones(len(pairs)) if weights is None else np.array(as_float64(weights, "weights", ndim=1, finite=False))
    if len(g) != len(pairs):
        raise ValueError(f"`weights` must have one entry for each of {len(pairs)} pairs; got {len(g)}")
    if not np.isfinite(g[usable]).all():
        raise ValueError("`weights` must be finite for every usable pair")
    coefficients = np.zeros(2 * len(pairs))
    coefficients[0::2] = np.where(usable, -g, 0.0) / usable.sum()
    coefficients[1::2] = -coefficients[0::2]
    gradient, options = HeadGradient(coefficients), {"autocast": autocast, "progress": progress}
    first: list[Any] = [HeadGram(), gradient]
    own, pressure = np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    made = plan(pairs, model, first, layout=layout, token_budget=token_budget)
    for part in _run.run(model, made, first, reduce=_level_products("head"), **cast(Any, options)):
        own[part.group] = part["score"]
    second: list[Any] = [HeadPressure(gradient.matrix)]
    made = plan(pairs, model, second, layout=layout, token_budget=token_budget)
    for columns in _run.run(model, made, second, **cast(Any, options)):
        pressure[columns.group[0::2]] = columns["pressure"][0::2]
    return DatasetPressure(own=own, pressure=pressure)

"""Log-probabilities of both responses of each pair, and how an update of the parameters changes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._validate import boolean, choice, integer
from rankdiag.language_models import _run
from rankdiag.language_models._along import log_probs_along
from rankdiag.language_models._encoded import EncodedPreferences
from rankdiag.language_models._fingerprint import model_fingerprint
from rankdiag.preference._log_probs import LogProbs
from rankdiag.preference._model_pairs import Layout, encoded_pairs

__all__ = ["logprob_change_along", "sequence_log_probs"]

Floats = NDArray[np.float64]


def sequence_log_probs(
    model: Any,
    data: EncodedPreferences,
    *,
    per_token: bool = False,
    layout: Layout = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> LogProbs:
    """Log-probabilities of both responses of every pair under a model.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model; see `score_preferences`.
    data : EncodedPreferences
        The pairs.
    per_token : bool
        Whether to keep the log-probability of every token.
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
    LogProbs
        Sums in nats; NaN where a pair is unusable.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the data does not fit the model, or the model has no output projection.

    Notes
    -----
    Time: a bare forward and one product of the response states with the output projection; logits are never held
    for more than a block. Dropout is off.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import sequence_log_probs
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> record = sequence_log_probs(model, data)
    >>> record.n_chosen.tolist(), record.n_rejected.tolist(), bool(record.chosen[0] < 0)
    ([2.0], [3.0], True)
    """
    pairs = encoded_pairs(data)
    rows = _run.sequence_log_probs(
        model,
        pairs,
        per_token=per_token,
        layout=layout,
        token_budget=token_budget,
        autocast=autocast,
        progress=progress,
    )
    result = _as_log_probs(pairs, rows["logp"], rows["n_tokens"], rows["token_logp"] if per_token else None)
    return _with_details(result, _origin(model, pairs))


def _origin(model: Any, pairs: EncodedPreferences) -> dict[str, Any]:
    """Say which model and which data log-probabilities are of."""
    found = model_fingerprint(model)
    return {
        "model": found.get("name") or found["class"],
        "weights": found.get("weights"),
        "data": pairs.fingerprint,
    }


def _as_log_probs(pairs: EncodedPreferences, logp: Any, n_tokens: Any, tokens: Any) -> LogProbs:
    return LogProbs(
        chosen=logp[0::2],
        rejected=logp[1::2],
        n_chosen=n_tokens[0::2].astype(np.float64),
        n_rejected=n_tokens[1::2].astype(np.float64),
        keys=pairs.keys,
        chosen_tokens=None if tokens is None else tokens[0::2],
        rejected_tokens=None if tokens is None else tokens[1::2],
    )


def logprob_change_along(
    model: Any,
    data: EncodedPreferences,
    update: Mapping[str, Any],
    *,
    method: Literal["auto", "jvp", "central"] = "auto",
    layout: Layout = "auto",
    token_budget: int | None = None,
    progress: bool = False,
) -> LogProbs:
    """First-order change of every log-probability when the parameters move by a given update.

    The exact answer to "what will this optimiser step do to my probe?": the update may be that of any optimiser, with
    its preconditioning, weight decay and clipping.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model.
    data : EncodedPreferences
        The pairs to look at, not necessarily those the update was made from.
    update : mapping of str to torch.Tensor
        Name of a parameter, as ``model.named_parameters()`` has it -> how it moves, of its shape.
    method : {"auto", "jvp", "central"}
        ``"jvp"``: forward-mode differentiation, exact to rounding. ``"central"``: central differences at three step
        sizes, extrapolated; works on any architecture. ``"auto"`` tries the first and falls back on the second.
    layout : {"auto", "plain", "packed"}
        Of the forwards of ``"central"``; see `score_preferences`.
    token_budget : int, optional
        See `score_preferences`.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    LogProbs
        ``chosen`` and ``rejected`` hold the changes in nats. ``meta.details`` names the method and, for differences,
        how far the two extrapolations are apart.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a name or shape does not fit the model, the update is not finite, or it is zero everywhere.

    Notes
    -----
    Derived here. Parameters are restored to the bit. Cost: one forward-mode pass, or six forwards.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import logprob_change_along
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> shift = logprob_change_along(model, data, {"lm_head.weight": torch.ones(12, 8)})  # moves all logits alike
    >>> bool(abs(shift.chosen[0]) < 1e-2)
    True
    """
    pairs = encoded_pairs(data)
    how = choice(method, "method", ("auto", "jvp", "central"))
    choice(layout, "layout", ("auto", "plain", "packed"))
    boolean(progress, "progress")
    if token_budget is not None:
        integer(token_budget, "token_budget", low=1)

    def measure() -> Floats:
        rows = _run.sequence_log_probs(model, pairs, layout=layout, token_budget=token_budget, progress=progress)
        return cast(Floats, rows["logp"])

    change, details = log_probs_along(model, pairs, update, method=how, measure=measure)
    n_tokens = np.array([len(ids) for ids in pairs.response_ids])
    usable = np.repeat([status == "ok" for status in pairs.status], 2)
    result = _as_log_probs(pairs, change, np.where(usable, n_tokens, 0), None)
    return _with_details(result, details, definition="d ln pi(y|x) along an update of the parameters, to first order")


def _with_details(result: LogProbs, details: Mapping[str, Any], *, definition: str = "") -> LogProbs:
    meta = dataclasses.replace(
        result.meta,
        definition=definition or result.meta.definition,
        details={**result.meta.details, **details},
    )
    return dataclasses.replace(result, meta=meta)

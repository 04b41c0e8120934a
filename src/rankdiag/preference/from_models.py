"""Preference pairs through a language model: scores before training, log-probabilities before and after it.

The engine runs the model and hands over arrays; the other modules of this room say what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._files import file_path
from rankdiag._validate import RankdiagWarning, boolean, choice, describe, integer, names
from rankdiag.language_models import _layout, _outputs, _run
from rankdiag.language_models._along import log_probs_along
from rankdiag.language_models._columns import Columns
from rankdiag.language_models._encoded import EncodedPreferences
from rankdiag.language_models._gradients import gradients
from rankdiag.language_models._head_outputs import HeadGradient, HeadGram, HeadPressure
from rankdiag.language_models._journal import Journal
from rankdiag.language_models._plan import Plan, plan
from rankdiag.preference._ches import ches_columns
from rankdiag.preference._edit import edit_similarity
from rankdiag.preference._log_probs import LogProbs
from rankdiag.preference._pressure import DatasetPressure
from rankdiag.preference._scores import DisplacementScores, PreferenceScores

__all__ = [
    "displacement_score",
    "head_pressure",
    "logprob_change_along",
    "merge_scores",
    "score_preferences",
    "sequence_log_probs",
    "token_contributions",
]

Floats = NDArray[np.float64]
Layout = Literal["auto", "plain", "packed"]
Level = Literal["ches", "head", "ufm", "full"]

_SCORE_COLUMNS = (
    "ches",
    "ln_ches",
    "relative",
    "cross",
    "chosen_sq",
    "rejected_sq",
    "swapped",
    "cond",
    "edit_similarity",
    "last_state_inner",
)
_ALWAYS = ("n_chosen", "n_rejected", "length_gap", "shared_prefix")
_ZERO_IF_IDENTICAL = ("ches", "ln_ches", "edit_similarity")
_SUMS = ("sum_chosen", "sum_rejected")
_SINGLE_TOKENS = 0.01  # share of pairs of single tokens from which a warning is given
_MERGED = "scores.jsonl"


def score_preferences(
    model: Any,
    data: EncodedPreferences,
    *,
    layout: Layout = "auto",
    token_budget: int | None = None,
    columns: Sequence[str] = ("ches", "ln_ches", "relative", "edit_similarity"),
    logps: bool = False,
    head_score: bool = False,
    keep_sums: bool = False,
    response_end: Literal["given", "implied_eos"] = "given",
    autocast: torch.dtype | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    rank: int | None = None,
    world_size: int | None = None,
    progress: bool = False,
) -> PreferenceScores:
    """Score preference pairs before training: which of them will push their chosen response down.

    Parameters
    ----------
    model : torch.nn.Module or callable
        A causal language model of transformers, bare or wrapped by peft, torch.compile, accelerate or DDP; or, for
        columns that need no output projection, a callable ``(input_ids, attention_mask, position_ids)`` that returns
        hidden states (B, T, d).
    data : EncodedPreferences
        Pairs as `rankdiag.language_models.encode_preferences` returns them.
    layout : {"auto", "plain", "packed"}
        ``"packed"`` computes a shared prompt, and what both responses share, once; ``"auto"`` does so where it is
        right on this model.
    token_budget : int, optional
        Padded tokens of one forward; None takes what is fast: 1024 on a CPU, 16384 on an accelerator.
    columns : sequence of str
        Among ``ches``, ``ln_ches``, ``relative``, ``cross``, ``chosen_sq``, ``rejected_sq``, ``swapped``, ``cond``,
        ``edit_similarity``, ``last_state_inner``.
    logps : bool
        Whether to add ``chosen_logp`` and ``rejected_logp`` (nats, summed over tokens).
    head_score : bool
        Whether to add ``head``, the exact first-order score of the output projection. It predicts the change of single
        pairs far better than CHES, for about the cost of the forward once more; recommended where that is affordable.
    keep_sums : bool
        Whether to keep the sums of hidden states, float32 files of shape (N, d) in `out`, for `dataset_pressure`.
    response_end : {"given", "implied_eos"}
        Whether a response ends where its ids end ([U] Definition 2), or one EOS later (what the authors' script does).
    autocast : torch.dtype, optional
        Lower precision for the forwards; None runs the model as it is. Sums are float64 in any case.
    out : path, optional
        Folder of a journal: rows are written there as they are scored, and a run that is killed goes on where it was.
    resume : bool
        Whether a journal that is there is gone on with; False refuses a folder that has one.
    rank, world_size : int, optional
        Part of this process, only with `out`; None takes what accelerate or torchrun has set.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    PreferenceScores
        One row for each pair in input order. With several processes, the rows of this one, or those of all if it is
        the last to end.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a column is unknown, the data does not fit the model, hidden states are not finite, `out` holds the journal
        of another run (the message names what differs), or an option needs `out`.

    Warns
    -----
    RankdiagWarning
        If more than 1 % of the pairs consist of single-token responses, for which every CHES score is 0.

    Notes
    -----
    CHES(x, y+, y-) = <S+, S-> - ||S+||^2 with S the sum of the final hidden states that predict the tokens of a
    response ([U] Definition 2). Time: a bare forward over P + c + max(n+ - c - 1, 0) + max(n- - c - 1, 0) tokens a
    pair, P of the prompt and c shared by the responses, and a few per cent. Memory: one forward.

    References
    ----------
    [U] Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment", arXiv 2410.08847.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import score_preferences
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> scores = score_preferences(model, data, head_score=True)
    >>> scores.status, scores.columns[:4], bool(scores.scores["head"][0] < 0)
    (('ok',), ('n_chosen', 'n_rejected', 'length_gap', 'shared_prefix'), True)
    """
    pairs = _pairs(data)
    wanted = tuple(dict.fromkeys(names(columns, "columns", _SCORE_COLUMNS)))
    folder = None if out is None else file_path(out, "out", "folder")
    goes_on = boolean(resume, "resume")
    if boolean(keep_sums, "keep_sums") and folder is None:
        raise ValueError("`keep_sums=True` needs `out`, the folder for the files of sums")
    place = _process(rank, world_size, folder)
    outputs: list[Any] = [_outputs.StateSums()]
    outputs += [_outputs.LastState()] if "last_state_inner" in wanted else []
    outputs += [_outputs.LogProbs()] if boolean(logps, "logps") else []
    outputs += [HeadGram()] if boolean(head_score, "head_score") else []
    made = plan(pairs, model, outputs, layout=layout, token_budget=token_budget, response_end=response_end)
    _warn_of_single_tokens(made)
    extra = (*(("chosen_logp", "rejected_logp") if logps else ()), *(("head",) if head_score else ()))
    every = (*_ALWAYS, *wanted, *extra)
    reduce = _pair_scores(made, every, keep_sums=keep_sums)
    missing = _unusable_rows(made, every)
    manifest = {
        **made.to_manifest(),
        "subject": "preference",
        "columns": list(every),
        "keep_sums": keep_sums,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "remarks": list(_remarks(made)),
    }
    if folder is None:
        parts = _run.run(model, made, outputs, reduce=reduce, autocast=autocast, progress=progress)
        rows = _collect(every, pairs, [missing, *parts])
        return _scores(pairs.keys, pairs.status, rows, manifest)
    if not goes_on and (folder / "manifest.json").exists():
        raise ValueError(f"`out` holds a journal already: {str(folder)!r}. Pass resume=True, or another folder")
    with Journal(folder, manifest, rank=place[0]) as journal:
        if place[0] == 0:
            journal.append(missing)
        own = made.shard(*place)
        for _ in _run.run(model, own, outputs, reduce=reduce, journal=journal, autocast=autocast, progress=progress):
            pass
    if keep_sums and place[0] == 0:
        _blank(folder, missing.group)
    return _from_journal(folder)


# --- one batch -----------------------------------------------------------------------------------------------------


def _pairs(data: Any) -> EncodedPreferences:
    if not isinstance(data, EncodedPreferences):
        raise TypeError(f"`data` must be encoded preference pairs, see encode_preferences; got {describe(data)}")
    if not len(data):
        raise ValueError("`data` must hold at least one pair; got none")
    return data


def _pair_scores(made: Plan, every: Sequence[str], *, keep_sums: bool) -> Callable[[Columns], Mapping[str, Any]]:
    """Return the function that turns the sums of one batch of pairs into scores."""
    pairs = cast(EncodedPreferences, made.data)

    def reduce(columns: Columns) -> Mapping[str, Any]:
        sums, beyond, n_states = columns["sum"], columns["sum_beyond"], columns["n_states"].astype(np.float64)
        groups = columns.group[0::2]
        difference = beyond[1::2] - beyond[0::2]
        found: dict[str, Any] = dict(ches_columns(sums[0::2], difference, n_states[0::2], n_states[1::2]))
        found.update(_lengths(pairs, groups, n_states[0::2], n_states[1::2]))
        if "edit_similarity" in every:
            ids = pairs.response_ids
            found["edit_similarity"] = np.array([edit_similarity(ids[2 * g], ids[2 * g + 1]) for g in groups.tolist()])
        if "last_state_inner" in every:
            last = columns["last_state"]
            found["last_state_inner"] = np.einsum("nd,nd->n", last[0::2], last[1::2])
        if "chosen_logp" in every:
            found["chosen_logp"], found["rejected_logp"] = columns["logp"][0::2], columns["logp"][1::2]
        if "head" in every:
            gram = columns["head_gram"][0::2]
            found["head"] = gram[:, 1] - gram[:, 0]
        kept = {name: np.asarray(found[name], dtype=np.float64) for name in every}
        if keep_sums:
            kept["sum_chosen"], kept["sum_rejected"] = sums[0::2], sums[0::2] + difference
        return kept

    return reduce


def _lengths(pairs: EncodedPreferences, groups: Any, n_chosen: Floats, n_rejected: Floats) -> dict[str, Floats]:
    ids = pairs.response_ids
    shared = [_layout.prefix_length(ids[2 * group], ids[2 * group + 1]) for group in groups.tolist()]
    return {
        "n_chosen": n_chosen,
        "n_rejected": n_rejected,
        "length_gap": n_rejected - n_chosen,
        "shared_prefix": np.array(shared, dtype=np.float64),
    }


def _unusable_rows(made: Plan, every: Sequence[str]) -> Columns:
    """Return rows for the pairs that are not run: lengths where there are any, 0 where identical, else NaN."""
    pairs = cast(EncodedPreferences, made.data)
    groups = np.array([index for index, status in enumerate(pairs.status) if status != "ok"], dtype=np.int64)
    extra = 1 if made.response_end == "implied_eos" else 0
    n = [np.array([len(pairs.response_ids[2 * g + slot]) + extra for g in groups.tolist()], float) for slot in (0, 1)]
    values: dict[str, Any] = {name: np.full(len(groups), np.nan) for name in every}
    values.update(_lengths(pairs, groups, *n))
    same = np.array([pairs.status[int(group)] == "identical" for group in groups], dtype=bool)
    for name in _ZERO_IF_IDENTICAL:
        if name in values:
            values[name][same] = 0.0
    return Columns(
        keys=tuple(pairs.keys[int(group)] for group in groups),
        group=groups,
        slot=np.zeros(len(groups), dtype=np.int64),
        status=tuple(pairs.status[int(group)] for group in groups),
        values=values,
    )


def _warn_of_single_tokens(made: Plan) -> None:
    import warnings

    pairs = made.data
    usable = [group for group, status in enumerate(pairs.status) if status == "ok"]
    if made.response_end != "given" or not usable:
        return
    single = sum(len(pairs.response_ids[2 * g]) == 1 == len(pairs.response_ids[2 * g + 1]) for g in usable)
    if single > _SINGLE_TOKENS * len(usable):
        warnings.warn(
            f"{single} of {len(usable)} pairs consist of two single-token responses, for which CHES is 0 whatever they "
            "are; use head_score=True, or single_token_dynamics",
            RankdiagWarning,
            stacklevel=3,
        )


def _remarks(made: Plan) -> tuple[str, ...]:
    pairs = made.data
    remarks = [f"Layout {made.layout}: {made.reason}."]
    if pairs.n_truncated:
        remarks.append(f"{pairs.n_truncated} pairs were truncated, {pairs.n_lost_eos} of them lost their EOS.")
    return (*remarks, *pairs.notes)


# --- whole runs ----------------------------------------------------------------------------------------------------


def _process(rank: int | None, world_size: int | None, folder: Path | None) -> tuple[int, int]:
    """Say which part of the work is this process's: from the arguments, accelerate, or the environment of torchrun."""
    if (rank is None) != (world_size is None):
        raise ValueError("`rank` and `world_size` must be given together, or not at all")
    if rank is not None and world_size is not None:
        world = integer(world_size, "world_size", low=1)
        own = integer(rank, "rank", low=0, high=world - 1)
        if folder is None and world > 1:
            raise ValueError("`world_size` above 1 needs `out`, the folder in which the processes meet")
        return own, world
    if folder is None:
        return 0, 1
    import sys

    state = getattr(sys.modules.get("accelerate.state"), "PartialState", None)
    if state is not None and state._shared_state:
        return int(state().process_index), int(state().num_processes)
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _collect(every: Sequence[str], pairs: EncodedPreferences, parts: Sequence[Columns]) -> dict[str, Floats]:
    rows = {name: np.full(len(pairs), np.nan) for name in every}
    for part in parts:
        for name in every:
            rows[name][part.group] = part[name]
    return rows


def _scores(
    keys: tuple[str, ...], status: tuple[str, ...], rows: Mapping[str, Floats], manifest: Mapping[str, Any]
) -> PreferenceScores:
    return PreferenceScores(
        keys=keys,
        status=status,
        scores=rows,
        response_end=manifest["response_end"],
        layout=manifest["layout"],
        model=manifest["models"][0],
        data_fingerprint=manifest["data"],
        manifest=manifest,
        remarks=tuple(manifest["remarks"]),
    )


def _from_journal(folder: Path) -> PreferenceScores:
    """Return the rows that are there; if these are all, write them into one file as well."""
    manifest = Journal.manifest(folder)
    found = list(Journal.read(folder))
    rows = {
        name: np.array([np.nan if row[name] is None else row[name] for row in found], dtype=np.float64)
        for name in manifest["columns"]
    }
    if len(found) == manifest["n_groups"]:
        Journal.merge_folder(folder, folder / _MERGED)
    return _scores(tuple(row["key"] for row in found), tuple(row["status"] for row in found), rows, manifest)


def _blank(folder: Path, groups: Any) -> None:
    """Put NaN where an unusable pair has no sums."""
    for name in _SUMS:
        path = folder / f"{name}.npy"
        if path.exists() and len(groups):
            sums = np.load(path, mmap_mode="r+", allow_pickle=False)
            sums[groups] = np.nan
            sums.flush()


def merge_scores(path: str | os.PathLike[str]) -> PreferenceScores:
    """Read the journal of a scoring run, of one process or of several, into one result.

    Parameters
    ----------
    path : path
        Folder that was given to `score_preferences` as `out`.

    Returns
    -------
    PreferenceScores
        All rows that were scored, in input order. Rows that several processes wrote alike count once.

    Raises
    ------
    FileNotFoundError
        If there is no journal.
    ValueError
        If rows are missing, two processes wrote different rows for one key, a file is damaged, or the journal is not of
        `score_preferences`.

    Examples
    --------
    >>> import tempfile
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.preference import merge_scores, score_preferences
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}])
    >>> folder = tempfile.mkdtemp()
    >>> scores = score_preferences(model, data, out=folder)
    >>> merge_scores(folder) == scores
    True
    """
    folder = file_path(path, "path", "folder")
    manifest = Journal.manifest(folder)
    if manifest.get("subject") != "preference":
        raise ValueError(f"`path` must hold the journal of score_preferences; {str(folder)!r} holds another one")
    Journal.merge_folder(folder, folder / _MERGED)
    return _from_journal(folder)


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
    pairs = _pairs(data)
    rows = _run.sequence_log_probs(
        model,
        pairs,
        per_token=per_token,
        layout=layout,
        token_budget=token_budget,
        autocast=autocast,
        progress=progress,
    )
    return _as_log_probs(pairs, rows["logp"], rows["n_tokens"], rows["token_logp"] if per_token else None)


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
    pairs = _pairs(data)
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
        _full_products(model, pairs, parameters, layout, products)
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
        remarks=_remarks(made),
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
    model: Any, pairs: EncodedPreferences, parameters: Any, layout: str, products: dict[str, Floats]
) -> None:
    for group, (plus, minus) in gradients(model, pairs, parameters=parameters, layout=layout):
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
    from rankdiag.language_models._layout import Rows
    from rankdiag.language_models._model import adapt
    from rankdiag.preference._dynamics import multi_token_dynamics

    head = adapt(model, "model").head
    _pairs(data)
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Sequence):
        raise TypeError(f"`pairs` must be a sequence of positions; got {describe(pairs)}")
    pairs = [integer(pair, "pairs", low=0, high=len(data) - 1) for pair in pairs]
    for pair in pairs:
        if data.status[pair] != "ok":
            raise ValueError(f"`pairs` must be usable; pair {pair} is {data.status[pair]!r}")
    if head is None or not pairs or head.scale != 1.0 or head.cap is not None or head.bias is not None:
        return {}
    outputs: list[Any] = [_outputs.States()]
    made = plan(_some(data, set(pairs)), model, outputs)
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


def _some(data: EncodedPreferences, pairs: set[int]) -> EncodedPreferences:
    """Return the data with every other pair marked as not to be run."""
    import dataclasses

    status = tuple(word if index in pairs or word != "ok" else "too_long" for index, word in enumerate(data.status))
    return dataclasses.replace(data, status=status, fingerprint="")


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
    pairs = _pairs(data)
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
    pairs = _pairs(data)
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
    return _with_details(result, details)


def _with_details(result: LogProbs, details: Mapping[str, Any]) -> LogProbs:
    import dataclasses

    meta = dataclasses.replace(
        result.meta,
        definition="d ln pi(y|x) along an update of the parameters, to first order",
        details={**result.meta.details, **details},
    )
    return dataclasses.replace(result, meta=meta)

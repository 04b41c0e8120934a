"""Scores of preference pairs before training, from hidden states of a model; kept in a journal, read back from it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._files import file_path
from rankdiag._validate import RankdiagWarning, boolean, names
from rankdiag.language_models import _layout, _outputs, _run
from rankdiag.language_models._columns import Columns
from rankdiag.language_models._encoded import EncodedPreferences
from rankdiag.language_models._head_outputs import HeadGram
from rankdiag.language_models._journal import Journal
from rankdiag.language_models._plan import Plan, plan
from rankdiag.language_models._processes import share_of_work
from rankdiag.preference._ches_columns import ches_columns
from rankdiag.preference._edit import edit_similarity
from rankdiag.preference._model_pairs import Layout, encoded_pairs, remarks_of
from rankdiag.preference._scores import PreferenceScores

__all__ = ["merge_scores", "score_preferences"]

Floats = NDArray[np.float64]

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
    pairs = encoded_pairs(data)
    wanted = tuple(dict.fromkeys(names(columns, "columns", _SCORE_COLUMNS)))
    folder = None if out is None else file_path(out, "out", "folder")
    goes_on = boolean(resume, "resume")
    if boolean(keep_sums, "keep_sums") and folder is None:
        raise ValueError("`keep_sums=True` needs `out`, the folder for the files of sums")
    place = share_of_work(rank, world_size, meeting=folder)
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
        "remarks": list(remarks_of(made)),
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


# --- whole runs ----------------------------------------------------------------------------------------------------


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

"""What scores of preference pairs show: the answer first, then the pairs to look at, then how far to trust it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag.preference._evidence import evidence_grid, evidence_sentence
from rankdiag.preference._log_probs import points_to_show

if TYPE_CHECKING:
    from rankdiag.preference._pair_columns import PairColumns
    from rankdiag.preference._scores import DisplacementScores, PreferenceScores

__all__ = ["SCORE_DOCS", "explain_level", "explain_scores", "level_document", "scores_document"]

SCORE_DOCS: dict[str, str] = {
    "head": "Exact first-order score if only the output projection trains; above 0 the chosen response falls.",
    "ln_ches": "CHES of mean states: no length effect; the column to filter by where head is missing.",
    "relative": "CHES over ||S+ - S-||^2: above 0 both responses fall, -1 to 0 is ideal, below -1 both rise.",
    "ches": "Inner product of summed states minus the square of the chosen sum; ranks pairs, has no scale of its own.",
    "edit_similarity": "Minus the edit distance of the token ids over the longer length; 0 means the same tokens.",
    "last_state_inner": "Inner product of the states of both last tokens.",
    "cross": "<S+, S->, or <g+, g-> at a level of gradients.",
    "chosen_sq": "||S+||^2, or ||g+||^2 at a level of gradients.",
    "rejected_sq": "||S-||^2, or ||g-||^2 at a level of gradients.",
    "swapped": "CHES with the two responses swapped; where it is the larger one, the label may be flipped.",
    "cond": "Size of the two parts of CHES over CHES; above about 100 its sign is not reliable in half precision.",
    "chosen_logp": "ln pi(chosen | prompt), summed over tokens.",
    "rejected_logp": "ln pi(rejected | prompt), summed over tokens.",
    "n_chosen": "Tokens of the chosen response.",
    "n_rejected": "Tokens of the rejected response.",
    "length_gap": "n_rejected - n_chosen.",
    "shared_prefix": "First tokens that both responses share.",
    "score": "<g+, g-> - ||g+||^2; above 0 the chosen response is predicted to fall.",
}
_UNITS = {"chosen_logp": "nat", "rejected_logp": "nat"} | dict.fromkeys(
    ("n_chosen", "n_rejected", "length_gap", "shared_prefix"), "tokens"
)
_COUNTS = ("n_chosen", "n_rejected", "length_gap", "shared_prefix")
_SHOWN_WORST = 10
_LENGTH_EFFECT = 0.3
_SINGLE_TOKENS = 0.01
_AGREEMENT = 0.5  # no source sets this: below it a reader is told, and nothing else follows
_UNRELIABLE = 100.0
_TOP_TOKENS = 8
_MAX_BARS = 200
_LEVEL_WORDS = {
    "ches": "a surrogate that needs hidden states alone",
    "head": "exact to first order if only the output projection trains",
    "ufm": "exact to first order if the output projection and one free vector for each prefix train",
    "full": "exact to first order for a gradient step over all parameters that were looked at",
}


# --- explanations ------------------------------------------------------------------------------------------


def explain_scores(s: PreferenceScores) -> str:
    """Return the answer in one paragraph: how many pairs are predicted to fall, and how far to trust that."""
    count = int(s.usable.sum())
    if not count:
        return "No pair can be used; the statuses say why."
    name = "head" if "head" in s.scores else "relative"
    share = s.head_positive_fraction if name == "head" else s.both_fall_fraction
    if math.isnan(share):
        return f"Scores of {count} usable pairs: the highest are the first candidates to look at."
    if name == "head":
        return (
            f"{share:.0%} of {count} usable pairs have the head-level score above 0: one small step on such a pair "
            "alone is predicted to lower the log-probability of its own chosen response. High scores are the first "
            f"candidates to look at, then to drop or to sample again. {evidence_sentence('head')}"
        )
    return (
        f"CHES ranks {count} usable pairs: the highest are the first candidates to look at, then to drop or to sample "
        f"again. How many will fall it does not say: it is above 0 for {share:.0%} of them, and its sign is often "
        "wrong. For a forecast compute the head-level score (head_score=True, --head-score). "
        f"{evidence_sentence('ches')}"
    )


def explain_level(s: DisplacementScores) -> str:
    """Return the answer in one paragraph, with what the level means."""
    count = int(s.usable.sum())
    if not count:
        return "No pair can be used; the statuses say why."
    return (
        f"{s.both_fall_fraction:.0%} of {count} usable pairs have a score above 0 at level {s.level} "
        f"({_LEVEL_WORDS[s.level]}): one small step on such a pair alone is predicted to lower the log-probability of "
        f"its own chosen response. {evidence_sentence(s.level)}"
    )


# --- documents ---------------------------------------------------------------------------------------------


def scores_document(s: PreferenceScores, conventions: tuple[str, ...]) -> Document:
    """Return the document of `PreferenceScores`."""
    ranked = tuple(name for name in ("head", "ln_ches", "relative", "ches") if name in s.scores) or (s.ranking,)
    others = tuple(name for name in ("edit_similarity", "n_chosen", "n_rejected", "shared_prefix") if name in s.scores)
    rest = tuple(name for name in s.columns if name not in {*ranked, *others})
    usable = bool(s.usable.any())
    measured = tuple(name for name in (*ranked, *rest, *others) if name != "relative")
    return Document(
        title=f"Preference scores of {len(s)} pairs",
        verdict=s.verdict,
        explanation=s.explanation,
        key_numbers=_scores_numbers(s),
        grids=(
            *([_worst_grid(s, (*ranked, *others))] if usable else []),
            *([_quartiles(s, (*ranked, *rest, *others))] if usable else []),
            *([evidence_grid(measured)] if usable else []),
        ),
        plots=(*(_distribution(s, name) for name in ranked), _length_plot(s, ranked[0])) if usable else (),
        notes=(*_findings(s), *s.remarks, *_HOW_TO_READ, *conventions),
        sections=_pair_sections(s),
    )


def level_document(s: DisplacementScores, conventions: tuple[str, ...]) -> Document:
    """Return the document of `DisplacementScores`."""
    usable = bool(s.usable.any())
    return Document(
        title=f"Displacement scores of {len(s)} pairs at level {s.level}",
        verdict=s.verdict,
        explanation=s.explanation,
        key_numbers=(*_counts(s), *_regime_numbers(s)),
        grids=(_worst_grid(s, s.columns), _quartiles(s, s.columns), evidence_grid((s.level,))) if usable else (),
        plots=(_distribution(s, "score"), _distribution(s, "relative"), _parts_plot(s)) if usable else (),
        notes=(*s.remarks, f"Level {s.level}: {_LEVEL_WORDS[s.level]}.", *_HOW_TO_READ[1:], *conventions),
        sections=_pair_sections(s),
    )


_HOW_TO_READ = (
    "Rank pairs by ln_ches, or by head where it was computed; raw CHES grows with the length of the rejected response.",
    "Look at the highest pairs by hand before dropping them. A high score with nearly equal texts is usually a problem "
    "of the data; a high CHES with a short chosen and a long rejected response is usually the length effect.",
    "How far a response falls does not say how much harm that does: this depends on where the probability goes.",
)


# --- numbers -----------------------------------------------------------------------------------------------


def _counts(s: PairColumns) -> tuple[KeyNumber, ...]:
    usable = int(s.usable.sum())
    return (
        KeyNumber(label="pairs", value=len(s)),
        KeyNumber(label="usable pairs", value=usable),
        *(
            KeyNumber(label=f"status {word}", value=count, doc=_STATUS_DOCS[word])
            for word, count in s.status_counts().items()
            if word != "ok"
        ),
    )


_STATUS_DOCS = {
    "empty_prompt": "No prompt token; a model needs one to predict the first token of a response.",
    "empty_chosen": "The chosen response has no token.",
    "empty_rejected": "The rejected response has no token.",
    "too_long": "Nothing is left of the prompt or of a response after truncation.",
    "identical": "Both responses are the same; the pair teaches nothing, and no filter keeps it.",
    "unusable": "Its numbers are missing.",
}


def _regime_numbers(s: PreferenceScores | DisplacementScores) -> tuple[KeyNumber, ...]:
    regimes = [word for word in s.regime if word != "undefined"]
    if not regimes:
        return ()
    docs = {
        "both_fall": "Share of usable pairs with relative above 0: chosen and rejected are both predicted to fall.",
        "ideal": "-1 to 0: chosen rises, rejected falls.",
        "both_rise": "Below -1: both rise.",
    }
    if hasattr(s, "scores"):
        docs["both_fall"] = "Share of usable pairs with CHES above 0: a surrogate, whose sign is often wrong."
    return tuple(
        KeyNumber(label=f"{word.replace('_', ' ')} (relative)", value=regimes.count(word) / len(regimes), doc=doc)
        for word, doc in docs.items()
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _scores_numbers(s: PreferenceScores) -> tuple[KeyNumber, ...]:
    numbers = list(_counts(s))
    if not s.usable.any():
        return tuple(numbers)
    if "head" in s.scores:
        numbers.append(
            KeyNumber(
                label="share head > 0",
                value=_known(s.head_positive_fraction),
                doc="Chosen predicted to fall, exact if only the output projection trains.",
            )
        )
    numbers += _regime_numbers(s)
    if "edit_similarity" in s.scores:
        numbers.append(
            KeyNumber(
                label="near duplicates",
                value=_known(s.near_duplicate_fraction),
                doc="Share with an edit similarity above -0.05.",
            )
        )
    if "ches" in s.scores:
        numbers.append(
            KeyNumber(
                label="Spearman(CHES, length gap)",
                value=_known(s.length_correlation),
                doc="Beyond 0.3 in size raw CHES ranks lengths; ln_ches does not.",
            )
        )
    if {"head", "ln_ches"} <= set(s.scores):
        numbers.append(
            KeyNumber(
                label="Spearman(ln_ches, head)",
                value=_known(s.rank_correlation("ln_ches", "head")),
                doc="How well the cheap score stands in for the head level on these pairs.",
            )
        )
    numbers.append(KeyNumber(label="ranked by", value=s.ranking, doc=SCORE_DOCS.get(s.ranking, "")))
    return tuple(numbers)


def _findings(s: PreferenceScores) -> list[str]:
    """Return sentences on what is odd about this dataset, each with its number."""
    found = []
    correlation = s.length_correlation
    if abs(correlation) > _LENGTH_EFFECT:
        found.append(
            f"Warning: Spearman(CHES, length gap) is {correlation:.2f}, beyond 0.3 in size: raw CHES mostly ranks "
            f"lengths here.{'' if 'head' in s.scores else ' Use ln_ches for filtering.'}"
        )
    use = s.usable
    lengths = s.scores["n_chosen"][use], s.scores["n_rejected"][use]
    if len(lengths[0]):
        single = float(((lengths[0] == 1) & (lengths[1] == 1)).mean())
        if single > _SINGLE_TOKENS and s.response_end == "given":
            found.append(
                f"Warning: {single:.0%} of the usable pairs have responses of one token, where CHES is 0 and says "
                "nothing. Use single_token_dynamics for them."
            )
    if "cond" in s.scores:
        shaky = float((s.scores["cond"][use] > _UNRELIABLE).mean()) if use.any() else 0.0
        if shaky:
            found.append(
                f"{shaky:.0%} of the usable pairs have cond above 100: with states in half precision the sign of their "
                "CHES is not reliable."
            )
    agreement = s.rank_correlation("ln_ches", "head")
    if agreement < _AGREEMENT:
        found.append(
            f"Warning: Spearman(ln_ches, head) is {agreement:.2f}: CHES orders these pairs otherwise than the head "
            "level, which predicts better. Use head for filtering."
        )
    if "swapped" in s.scores and "ches" in s.scores and use.any():
        flipped = float((s.scores["swapped"][use] < s.scores["ches"][use]).mean())
        found.append(f"CHES is higher than with swapped responses for {flipped:.0%} of the usable pairs.")
    return found


# --- tables ------------------------------------------------------------------------------------------------


def _column(name: str) -> Column:
    return Column(name=name, label=name.replace("_", " "), unit=_UNITS.get(name, ""), doc=SCORE_DOCS.get(name, ""))


def _cell(name: str, value: float) -> int | float | None:
    if math.isnan(value):
        return None
    return int(value) if name in _COUNTS and value == int(value) else float(value)


def _worst_grid(s: PairColumns, names: tuple[str, ...]) -> Grid:
    first = s.ranking
    shown = (first, *(name for name in names if name != first))
    index = s.worst_pairs(max(_SHOWN_WORST, len(s.texts)))
    columns = {name: s.column(name) for name in shown}
    return Grid(
        title=f"Worst pairs, highest {first} first",
        columns=(Column(name="key", doc="Key of the pair."), *map(_column, shown)),
        rows=tuple((s.keys[i], *(_cell(name, float(columns[name][i])) for name in shown)) for i in index),
        note="Look at these by hand first.",
    )


def _quartiles(s: PairColumns, names: tuple[str, ...]) -> Grid:
    rows = []
    for name in names:
        values = s.usable_values(name)
        if len(values):
            rows.append((name, *(float(q) for q in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))), len(values)))
    return Grid(
        title="Scores over usable pairs",
        columns=(
            Column(name="score"),
            *(Column(name=name) for name in ("min", "25%", "median", "75%", "max")),
            Column(name="n", doc="Pairs with a value."),
        ),
        rows=tuple(rows),
    )


# --- plots -------------------------------------------------------------------------------------------------


def _distribution(s: PairColumns, name: str) -> Plot:
    values = s.usable_values(name)
    order = np.argsort(values, kind="stable")
    percent = 100.0 * (np.arange(len(values)) + 0.5) / max(len(values), 1)
    shown = points_to_show(np.arange(len(values)))
    zero = (ReferenceLine(axis="y", value=0.0, label="zero"),) if name in _SIGNED else ()
    return Plot(
        title=f"Distribution of {name}",
        x_label="percentile of pairs",
        y_label=name,
        series=(Series(label=name, x=percent[shown].tolist(), y=values[order][shown].tolist()),),
        lines=(ReferenceLine(axis="x", value=75.0, label="75th percentile"), *zero),
        description=(
            f"{name} of {len(values)} usable pairs in ascending order; those right of the 75th percentile are the "
            "first candidates to look at."
        ),
    )


_SIGNED = {"head", "ln_ches", "relative", "ches", "score"}


def _length_plot(s: PreferenceScores, name: str) -> Plot:
    both = np.flatnonzero(s.usable & np.isfinite(s.scores[name]) & np.isfinite(s.scores["length_gap"]))
    shown = points_to_show(both)
    return Plot(
        title=f"{name} against the length gap",
        x_label="n_rejected - n_chosen (tokens)",
        y_label=name,
        series=(
            Series(
                label="pairs",
                x=s.scores["length_gap"][shown].tolist(),
                y=s.scores[name][shown].tolist(),
                kind="points",
                names=tuple(s.keys[int(i)] for i in shown),
            ),
        ),
        lines=(ReferenceLine(axis="y", value=0.0, label="zero"),),
        description=f"{len(shown)} of {len(both)} usable pairs; a slope means that the score follows the lengths.",
    )


def _parts_plot(s: DisplacementScores) -> Plot:
    use = np.flatnonzero(s.usable & np.isfinite(s.cross) & np.isfinite(s.chosen_sq))
    shown = points_to_show(use)
    x, y = s.chosen_sq[shown], s.cross[shown]
    ends = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    return Plot(
        title="What pulls down against what pushes up",
        x_label="||g+||^2",
        y_label="<g+, g->",
        series=(
            Series(
                label="pairs", x=x.tolist(), y=y.tolist(), kind="points", names=tuple(s.keys[int(i)] for i in shown)
            ),
            Series(label="equal", x=ends, y=ends),
        ),
        description="Above the line the chosen response of a pair is predicted to fall.",
    )


# --- single pairs ------------------------------------------------------------------------------------------


def _pair_sections(s: PairColumns) -> tuple[Document, ...]:
    """Return one section for each pair whose words or tokens are known, the worst first."""
    texts = {entry.key: entry for entry in s.texts}
    tokens = {entry.key: entry for entry in s.attribution}
    place = {key: i for i, key in enumerate(s.keys)}
    values = s.column(s.ranking)
    keys = sorted({*texts, *tokens}, key=lambda key: (-np.nan_to_num(values[place[key]], nan=-np.inf), place[key]))
    parts = []
    for key in keys:
        i = place[key]
        grids, plots = [], []
        if key in texts:
            entry = texts[key]
            grids.append(
                Grid(
                    title="Words",
                    columns=(Column(name="part"), Column(name="text")),
                    rows=(("prompt", entry.prompt), ("chosen", entry.chosen), ("rejected", entry.rejected)),
                )
            )
        if key in tokens:
            names, parts_of = tokens[key].tokens, np.array(tokens[key].contributions)
            if (parts_of < 0).any():
                grids.append(_token_grid(names, parts_of))
            plots.append(_token_plot(names, parts_of))
        numbers = (
            KeyNumber(label=name, value=_cell(name, float(s.column(name)[i])))
            for name in s.columns
            if not math.isnan(float(s.column(name)[i]))
        )
        parts.append(Document(title=f"Pair {key}", key_numbers=tuple(numbers), grids=tuple(grids), plots=tuple(plots)))
    return tuple(parts)


def _token_grid(names: tuple[str, ...], contributions: np.ndarray) -> Grid:
    lowest = np.argsort(contributions, kind="stable")[:_TOP_TOKENS]
    return Grid(
        title="Tokens of the chosen response that are pushed down most",
        columns=(
            Column(name="token"),
            Column(name="position", doc="0 is the first token of the response."),
            Column(name="contribution", doc="Part of d/dt ln pi(chosen | prompt); the parts add up to it."),
        ),
        rows=tuple((names[k], int(k), float(contributions[k])) for k in lowest if contributions[k] < 0),
        note=f"Sum over all {len(names)} tokens: {float(contributions.sum()):.4g}.",
    )


def _token_plot(names: tuple[str, ...], contributions: np.ndarray) -> Plot:
    shown = min(len(names), _MAX_BARS)
    return Plot(
        title="Contribution of each token of the chosen response",
        x_label="token of the response",
        y_label="part of d/dt ln pi(chosen)",
        series=(
            Series(
                label="tokens",
                x=[float(k) for k in range(shown)],
                y=contributions[:shown].tolist(),
                kind="bars",
                names=names[:shown],
            ),
        ),
        lines=(ReferenceLine(axis="y", value=0.0, label="zero"),),
        description=f"The first {shown} of {len(names)} tokens; those below zero are pushed down.",
    )

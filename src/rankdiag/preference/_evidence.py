"""How well each score is known to predict what training does, with the conditions of every figure.

One table, so that a newer measurement replaces a row here and nowhere else.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from rankdiag._document import Column, Grid

__all__ = ["evidence_grid", "evidence_sentence"]

Setting = Literal["pair", "batch"]


class _Evidence(NamedTuple):
    """One measurement of one score: agreement with the real change of ln pi(chosen), one figure for each seed."""

    score: str
    setting: Setting
    spearman: tuple[float, ...]  # rank correlation of -score with the change; 1 is perfect
    sign: tuple[float, ...] = ()  # share of pairs for which "score > 0" says rightly that it fell


_MODEL = (
    "A Llama of 3 layers, width 96 and vocabulary 1024, trained for 300 steps on the prompts and chosen responses of "
    "code and mathematics pairs; 150 pairs (prompts of up to 64, responses of up to 96 tokens), one SGD step of DPO "
    "(rate 0.002, beta 0.1)"
)
_CONDITIONS: dict[Setting, str] = {
    "pair": "on the pair alone",
    "batch": "on all pairs at once",
}
# Printed by reproductions/preference_per_pair_step.py; the reproduction ledger has the commands.
_EVIDENCE: tuple[_Evidence, ...] = (
    _Evidence("ches", "pair", (0.70, 0.61), (0.72, 0.68)),
    _Evidence("ln_ches", "pair", (0.69, 0.58), (0.77, 0.71)),
    _Evidence("edit_similarity", "pair", (0.83, 0.84)),
    _Evidence("last_state_inner", "pair", (0.69, 0.61)),
    _Evidence("head", "pair", (0.94, 0.96), (0.94, 0.93)),
    _Evidence("ufm", "pair", (0.94, 0.96), (0.95, 0.93)),
    _Evidence("full", "pair", (0.999, 1.00), (0.99, 0.99)),
    _Evidence("ches", "batch", (0.52, 0.48), (0.65, 0.65)),
    _Evidence("ln_ches", "batch", (0.57, 0.55), (0.70, 0.69)),
    _Evidence("edit_similarity", "batch", (0.59, 0.49)),
    _Evidence("last_state_inner", "batch", (0.56, 0.41)),
    _Evidence("head", "batch", (0.71, 0.58), (0.80, 0.69)),
    _Evidence("ufm", "batch", (0.71, 0.58), (0.81, 0.68)),
    _Evidence("full", "batch", (0.73, 0.56), (0.80, 0.70)),
    _Evidence("ches_pressure", "batch", (0.13, 0.20), (0.59, 0.52)),
    _Evidence("head_pressure", "batch", (0.69, 0.69), (0.81, 0.76)),
)
_SAME = {"relative": "ches"}  # the sign of the ratio is that of the score it is made of


def _two(values: tuple[float, ...]) -> str | None:
    return ", ".join(f"{value:.3g}" for value in values) or None


def evidence_grid(names: tuple[str, ...]) -> Grid:
    """Return what is known of the named scores as a table, with the conditions below it.

    Parameters
    ----------
    names : tuple of str
        Scores to show; those without a measurement are left out.

    Returns
    -------
    Grid
        One row for each measurement.
    """
    rows = [entry for entry in _EVIDENCE if entry.score in names]
    return Grid(
        title="How well the scores are known to predict",
        columns=(
            Column(name="score"),
            Column(name="step", doc="Which pairs the one training step saw."),
            Column(
                name="spearman",
                label="rank correlation",
                doc="Of the score with how far ln pi(chosen) fell, over pairs; 1 is a perfect order, 0 none.",
            ),
            Column(
                name="sign", label="right sign", doc="Share of pairs for which score > 0 says rightly that it fell."
            ),
        ),
        rows=tuple((entry.score, _CONDITIONS[entry.setting], _two(entry.spearman), _two(entry.sign)) for entry in rows),
        note=f"{_MODEL}. One figure for each of seeds 0 and 1. Other models and data may differ: no promise.",
    )


def evidence_sentence(score: str) -> str:
    """Return in one sentence how well a score orders pairs: for a step on one pair, and for a step on a batch.

    Parameters
    ----------
    score : str
        Name of the score, or of the level.

    Returns
    -------
    str
        The sentence, or an empty one where nothing was measured.
    """
    found = {entry.setting: entry for entry in _EVIDENCE if entry.score == _SAME.get(score, score)}
    if "pair" not in found:
        return ""
    alone = f"rank correlation {_span(found['pair'].spearman)} with the real change after one small step on that pair"
    batch = (
        f"; after one step on all pairs at once it was {_span(found['batch'].spearman)}"
        if "batch" in found
        else "; after a step on a whole batch it was not measured, and no score of a pair alone does well there"
    )
    return f"On a small model, {score} had {alone}{batch}."


def _span(values: tuple[float, ...]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"

"""What the first derivatives of log-probabilities show: explanations, key numbers, tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series

if TYPE_CHECKING:
    from rankdiag.preference._dynamics_results import MultiSampleDynamics, MultiTokenDynamics, SingleTokenDynamics

__all__ = [
    "explain_multi",
    "explain_samples",
    "explain_single",
    "multi_document",
    "sample_document",
    "single_document",
]

Floats = NDArray[np.float64]

_MOVERS = 8  # tokens shown at either end
_ZERO = ReferenceLine(axis="y", value=0.0, label="no change")
_HARM = "Whether that is harmful is decided by which responses gain, not by the size."


# --- one token ---------------------------------------------------------------------------------------------


def explain_single(rate: float, weight: float, m: float, s: float, similarity: float, aligned: float) -> str:
    """Say which way the preferred token moves, and which part of S is responsible."""
    if weight <= 0:
        return (
            "The weight is not positive: the loss itself pushes the preferred token down here, which is no "
            "displacement."
        )
    parts = f"m = {m:.4g} pushes it up, S = {s:.4g} adds to that"
    if rate >= 0:
        return f"The preferred token starts to rise, by {rate:.4g} nats per unit of learning rate: {parts}."
    larger = (
        "the similarity of W+ and W-"
        if similarity < aligned
        else "the alignment of other tokens with W+ - W-, which gain instead"
    )
    return (
        f"The preferred token starts to fall, by {-rate:.4g} nats per unit of learning rate, although the loss falls: "
        f"m = {m:.4g} pushes it up, S = {s:.4g} outweighs it, mostly through {larger}. {_HARM}"
    )


def single_document(d: SingleTokenDynamics, notes: tuple[str, ...]) -> Document:
    """Return the document of one token's dynamics."""
    flow = d.probs * d.rate_all
    ranked = d.top_gaining(d.probs.size).tolist()
    gain, lose = ranked[:_MOVERS], ranked[_MOVERS:][-_MOVERS:]
    shown = [*gain, *(z for z in lose if flow[z] < 0)]
    return Document(
        title=f"First step of preferring token {d.chosen} over token {d.rejected}",
        verdict=d.verdict,
        explanation=d.explanation,
        key_numbers=(
            KeyNumber(label="rate of the preferred token", value=d.rate_chosen, unit="nats", doc="weight (m + S)."),
            KeyNumber(label="rate of the dispreferred token", value=d.rate_rejected, unit="nats"),
            KeyNumber(label="m", value=d.m, doc="Always pushes the preferred token up."),
            KeyNumber(label="S", value=d.S, doc="Unembedding geometry; negative pushes the preferred token down."),
            KeyNumber(label="<W+, W->", value=d.unembedding_inner, doc="Similar tokens: lowers S."),
            KeyNumber(label="alignment of other tokens", value=d.other_alignment, doc="Sum of p <W_z, W+ - W->."),
            KeyNumber(label="weight", value=d.weight, doc="-l'(margin) of the loss."),
        ),
        grids=(
            Grid(
                title="Tokens that gain and lose most probability",
                columns=(
                    Column(name="token"),
                    Column(name="role"),
                    Column(name="p", doc="Probability before."),
                    Column(name="rate_prob", label="d p / dt"),
                    Column(name="rate_logp", label="d ln p / dt", unit="nats"),
                    Column(name="alignment", label="<W_z, W+ - W->"),
                ),
                rows=tuple(
                    (z, _role(z, d), float(d.probs[z]), float(flow[z]), float(d.rate_all[z]), float(d.alignment[z]))
                    for z in shown
                ),
            ),
        ),
        plots=(
            Plot(
                title="Where the probability starts to go",
                x_label="token, largest gain first",
                y_label="d p / dt (per unit of learning rate)",
                series=(
                    Series(
                        label="",
                        x=[float(i + 1) for i in range(len(shown))],
                        y=flow[shown].tolist(),
                        kind="bars",
                        names=[f"token {z} {_role(z, d)}".rstrip() for z in shown],
                    ),
                ),
                lines=(_ZERO,),
                description="Rates of probability of the tokens that gain and lose most; they sum to zero over all.",
            ),
        ),
        notes=notes,
    )


def _role(token: int, d: SingleTokenDynamics) -> str:
    return "preferred" if token == d.chosen else "dispreferred" if token == d.rejected else ""


# --- several tokens ----------------------------------------------------------------------------------------


def explain_multi(
    rate_chosen: float, rate_rejected: float, score: float, hidden: float, w_chosen: float, w_rejected: float
) -> str:
    """Say which way both responses move, and which of the two paths is responsible."""
    if w_chosen <= 0:
        return (
            "The weight of the preferred response is not positive: the loss itself pushes it down here, which is no "
            "displacement."
        )
    verbs = ["rise" if rate >= 0 else "fall" for rate in (rate_chosen, rate_rejected)]
    text = (
        f"The preferred response starts to {verbs[0]} ({rate_chosen:+.4g} nats per unit of learning rate), the "
        f"dispreferred one to {verbs[1]} ({rate_rejected:+.4g})."
    )
    if w_chosen == w_rejected:
        text += (
            f" Per unit of weight, the output projection contributes {-score:+.4g} and the hidden states {hidden:+.4g}."
        )
    if rate_chosen < 0:
        text += f" The tokens with the most negative contributions are where the responses are too similar. {_HARM}"
    return text


def multi_document(d: MultiTokenDynamics, notes: tuple[str, ...]) -> Document:
    """Return the document of the dynamics of two responses."""
    n = d.chosen_ids.size
    places = list(range(1, n + 1))
    parts = d.token_contributions.tolist()
    third = tuple(
        KeyNumber(label=f"rate of third response {i}", value=float(rate), unit="nats")
        for i, rate in enumerate(d.rate_others)
    )
    return Document(
        title="First step on one preference pair",
        verdict=d.verdict,
        explanation=d.explanation,
        key_numbers=(
            KeyNumber(
                label="rate of the preferred response", value=d.rate_chosen, unit="nats", doc="Sum of the table."
            ),
            KeyNumber(label="rate of the dispreferred response", value=d.rate_rejected, unit="nats"),
            *third,
            KeyNumber(
                label="score", value=d.score, doc="Positive: training the output projection alone lowers the response."
            ),
            KeyNumber(label="CHES", value=d.ches, doc="The score with every alpha taken as 1."),
            KeyNumber(
                label="share of alphas > 0",
                value=d.alpha_positive_fraction,
                doc="Near one half, CHES says little about this pair.",
            ),
            KeyNumber(label="hidden states, own", value=d.hidden_self, doc="Pushes the preferred response up."),
            KeyNumber(label="hidden states, shared", value=d.hidden_shared, doc="Subtracted, from shared prefixes."),
            KeyNumber(label="shared states", value=d.n_shared),
        ),
        grids=(
            Grid(
                title="Contribution of every token of the preferred response",
                columns=(
                    Column(name="position"),
                    Column(name="token"),
                    Column(name="prefix", doc="Whether the dispreferred response has the same prefix here."),
                    Column(name="contribution", label="d ln pi / dt", unit="nats"),
                ),
                rows=tuple(
                    (k, int(token), "shared" if k <= d.n_shared else "own", part)
                    for k, token, part in zip(places, d.chosen_ids, parts, strict=True)
                ),
            ),
        ),
        plots=(
            Plot(
                title="Contribution of every token",
                x_label="position in the preferred response",
                y_label="d ln pi / dt (nats per unit of learning rate)",
                series=(
                    Series(
                        label="",
                        x=[float(k) for k in places],
                        y=parts,
                        kind="bars",
                        names=[f"position {k}, token {token}" for k, token in zip(places, d.chosen_ids, strict=True)],
                    ),
                ),
                lines=(_ZERO,),
                description="What each token of the preferred response adds to the rate of its log-probability.",
            ),
        ),
        notes=notes,
    )


# --- several samples ---------------------------------------------------------------------------------------


def explain_samples(rates: Floats, own: Floats, cross: Floats) -> str:
    """Say how many preferred tokens fall, and whether they would fall by themselves."""
    falling = rates < 0
    text = (
        f"{int(falling.sum())} of {rates.size} preferred tokens start to fall; the mean rate is {rates.mean():+.4g} "
        "nats per unit of learning rate."
    )
    pushed = int((falling & (own >= 0)).sum())
    if pushed:
        text += f" Pushed down by the other samples alone: {pushed}."
    saved = int((~falling & (own < 0)).sum())
    if saved:
        text += f" Held up by the other samples alone: {saved}."
    return text


def sample_document(d: MultiSampleDynamics, notes: tuple[str, ...]) -> Document:
    """Return the document of the dynamics of several samples."""
    count = d.rates.size
    index = [float(i) for i in range(count)]
    off = d.alpha[~np.eye(count, dtype=bool)]
    return Document(
        title=f"First step on {count} preference samples",
        verdict=d.verdict,
        explanation=d.explanation,
        key_numbers=(
            KeyNumber(label="mean rate", value=float(d.rates.mean()), unit="nats", doc="Of the preferred tokens."),
            KeyNumber(label="share that falls", value=float((d.rates < 0).mean())),
            KeyNumber(label="share that would fall alone", value=float((d.own < 0).mean())),
            KeyNumber(
                label="share of negative alphas",
                value=float((off < 0).mean()) if off.size else None,
                doc="Between different samples.",
            ),
        ),
        grids=(
            Grid(
                title="Samples",
                columns=(
                    Column(name="sample"),
                    Column(name="chosen", doc="Preferred token."),
                    Column(name="rejected", doc="Dispreferred token."),
                    Column(name="own", unit="nats", doc="From the sample itself."),
                    Column(name="cross", unit="nats", doc="From all others."),
                    Column(name="rate", unit="nats", doc="Sum of both."),
                ),
                rows=tuple(
                    zip(
                        range(count),
                        d.chosen.tolist(),
                        d.rejected.tolist(),
                        d.own.tolist(),
                        d.cross.tolist(),
                        d.rates.tolist(),
                        strict=True,
                    )
                ),
                levels=tuple("warn" if rate < 0 else "unknown" for rate in d.rates) if d.thresholds else (),
            ),
        ),
        plots=(
            Plot(
                title="Own and cross part of every sample",
                x_label="sample",
                y_label="d ln pi / dt (nats per unit of learning rate)",
                series=(
                    Series(label="own", x=index, y=d.own.tolist(), kind="points"),
                    Series(label="cross", x=index, y=d.cross.tolist(), kind="points"),
                ),
                lines=(_ZERO,),
                description="What a sample does to its preferred token, and what all other samples do to it.",
            ),
        ),
        notes=notes,
    )

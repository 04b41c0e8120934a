"""What a summary of rewards shows: the answer in words, figures with intervals, quantiles, plots, how to read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series

if TYPE_CHECKING:
    from rankdiag.rewards._summary import RewardSummary

__all__ = ["explain", "summary_document"]

_FLAT = 0.02  # of the range of rewards: experience, no threshold of a source
_WASTED = 0.5
_BETWEEN = 0.9
_BAND = 2.0  # standard errors at either side of a curve
_READING = (
    "rms_std below 2 % of the range of the rewards: flat for most prompts. It does not depend on the number of "
    "rollouts; mean_std does, and is low at few.",
    "frac_zero_std above one half: half of every batch of this group size is wasted. Draw more rollouts (the table of "
    "group sizes says how many), leave such prompts out, or warm up with supervised finetuning.",
    "frac_all_min high: too hard, or a broken verifier. frac_all_max high: retire these prompts.",
    "Intraclass correlation above 0.9: rewards mostly tell prompts apart, not responses.",
    "Normalised variance compares reward models on the same policy and the same rollouts only.",
)


def explain(fields: Mapping[str, Any]) -> str:
    """Return in words whether these rewards can move a policy."""
    rms, span = fields["rms_std"], fields["pooled_std"]
    if math.isnan(rms):
        return "No prompt has 2 scored rollouts: draw at least 2 for each, or nothing can be said of gradients."
    width = max(fields["r_max"], fields["r_min"]) - fields["r_min"]
    parts = [f"Within a prompt rewards have a standard deviation of {rms:.3g}"]
    if width > 0:
        parts[0] += f", {rms / width:.1%} of their range"
    zero, hard, easy = fields["frac_zero_std"], fields["frac_all_min"], fields["frac_all_max"]
    parts.append(
        f"{zero:.0%} of the prompts have none at this number of rollouts ({hard:.0%} all at the lowest reward, "
        f"{easy:.0%} all at the highest)"
    )
    text = ". ".join(parts) + "."
    if width > 0 and rms / width < _FLAT:
        text += " That is flat for most prompts: their gradients vanish, however far they are from the best reward."
    if zero > _WASTED:
        text += " More than half of every batch is wasted."
    if span > 0 and fields["icc1"] > _BETWEEN:
        text += " Rewards mostly tell prompts apart, not responses."
    return text


def summary_document(s: RewardSummary, conventions: tuple[str, ...]) -> Document:
    """Return the document of a `RewardSummary`."""
    return Document(
        title=f"Rewards of {s.n_prompts} prompts",
        verdict=s.verdict,
        explanation=s.explanation,
        key_numbers=_numbers(s),
        grids=(_quantile_grid(s), _share_grid(s), _size_grid(s)),
        plots=_plots(s),
        notes=(*_READING, *conventions),
    )


def _numbers(s: RewardSummary) -> tuple[KeyNumber, ...]:
    return (
        KeyNumber(label="rms std", value=_known(s.rms_std), doc=f"sqrt of the mean variance; {_span(s.ci_rms_std)}"),
        KeyNumber(label="mean variance", value=_known(s.mean_var), doc=_span(s.ci_mean_var)),
        KeyNumber(label="mean reward", value=_known(s.grand_mean), doc=_span(s.ci_grand_mean)),
        KeyNumber(label="share of zero std", value=_known(s.frac_zero_std), doc="All rewards of the prompt equal."),
        KeyNumber(label="all lowest", value=_known(s.frac_all_min), doc="Too hard, or a broken verifier."),
        KeyNumber(label="all highest", value=_known(s.frac_all_max), doc="Nothing left to learn."),
        KeyNumber(label="intraclass correlation", value=_known(s.icc1), doc="Near 1: rewards tell prompts apart."),
        KeyNumber(label="normalised variance", value=_known(s.normalised_variance)),
        KeyNumber(label="mean std", value=_known(s.mean_std), doc=f"Biased low at {s.k_median:g} rollouts."),
        KeyNumber(label="rollouts of a prompt", value=s.k_median, doc=f"Median; from {s.k_min:g} to {s.k_max:g}."),
        KeyNumber(label="prompts", value=s.n_prompts),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _span(ends: tuple[float, float]) -> str:
    return "No interval." if math.isnan(ends[0]) else f"{ends[0]:.4g} to {ends[1]:.4g}."


def _quantile_grid(s: RewardSummary) -> Grid:
    names = tuple(s.std_quantiles)
    rows = (
        ("standard deviation", *(_known(value) for value in s.std_quantiles.values())),
        ("mean", *(_known(value) for value in s.mean_quantiles.values())),
    )
    columns = (Column(name="of prompts"), *(Column(name=f"q{name}", label=name) for name in names))
    return Grid(title="Quantiles over prompts", columns=columns, rows=rows)


def _share_grid(s: RewardSummary) -> Grid:
    rows = tuple((tau, s.frac_low_std[tau], s.share_far_from_opt[tau]) for tau in s.frac_low_std)
    return Grid(
        title="Flat prompts",
        columns=(
            Column(name="tau", doc="In units of the reward."),
            Column(name="std at most tau", doc="Biased up at few rollouts; see low_std_fraction."),
            Column(name="and far from best", doc=f"Mean below {s.r_max - s.margin:.4g}."),
        ),
        rows=rows,
    )


def _size_grid(s: RewardSummary) -> Grid:
    rows: list[tuple[Any, ...]] = []
    seen = {k: (share, error) for k, share, error, _ in s.zero_std_curve}
    beyond = dict(s.zero_std_beyond)
    for size in _sizes_shown(s):
        if size in seen:
            share, error = seen[size]
            rows.append((size, share, _known(error), "unbiased"))
        else:
            rows.append((size, beyond.get(size), None, "model-based" if size in beyond else "beyond these rollouts"))
    note = ""
    if s.zero_std_beta is not None:
        a, b = s.zero_std_beta
        note = f"Model-based: success rates of prompts follow Beta({a:.3g}, {b:.3g}), fitted to this table."
    return Grid(
        title="Groups without spread",
        columns=(
            Column(name="rollouts of a group"),
            Column(name="share", doc="Of groups of this size whose rewards are all equal: they have no gradient."),
            Column(name="standard error", doc="Over prompts."),
            Column(name="by"),
        ),
        rows=tuple(rows),
        note=note,
    )


def _sizes_shown(s: RewardSummary) -> list[int]:
    """Return the sizes that were asked for, or doublings, the largest group seen, and doublings of that."""
    if s.group_sizes or not s.zero_std_curve:
        return list(s.group_sizes)
    sizes = [int(k) for k, *_ in s.zero_std_curve]
    doublings = [k for k in sizes[1:-1] if k & (k - 1) == 0]
    larger = [int(k) for k, _ in s.zero_std_beyond if k in {2 * sizes[-1], 4 * sizes[-1], 8 * sizes[-1]}]
    return [*doublings, *sizes[-1:], *larger]


def _curve_plot(s: RewardSummary) -> Plot:
    k, share, error, _ = zip(*s.zero_std_curve, strict=True)
    band = [0.0 if math.isnan(e) else _BAND * e for e in error]
    series = [
        Series(
            label="unbiased, with two standard errors",
            x=list(k),
            y=list(share),
            low=[max(0.0, m - e) for m, e in zip(share, band, strict=True)],
            high=[min(1.0, m + e) for m, e in zip(share, band, strict=True)],
        )
    ]
    if s.zero_std_beyond:
        larger, model = zip(*s.zero_std_beyond, strict=True)
        series.append(Series(label="model-based, beyond these rollouts", x=list(larger), y=list(model)))
    return Plot(
        title="Groups without spread, by their size",
        x_label="rollouts of a group",
        y_label="share of groups whose rewards are all equal",
        x_scale="log",
        series=tuple(series),
        description="How much of a batch has no gradient, at every group size.",
    )


def _plots(s: RewardSummary) -> tuple[Plot, ...]:
    if not s.std_histogram:
        return ()
    centres, counts = zip(*s.std_histogram, strict=True)
    means, stds = zip(*s.points, strict=True)
    return (
        Plot(
            title="Standard deviation of the rewards of a prompt",
            x_label="standard deviation",
            y_label="prompts",
            series=(Series(label="", x=list(centres), y=list(counts), kind="bars"),),
            lines=(ReferenceLine(axis="x", value=s.rms_std, label="rms"),),
            description="Prompts at the left have no gradient.",
        ),
        _curve_plot(s),
        Plot(
            title="Spread against mean",
            x_label="mean reward",
            y_label="standard deviation",
            series=(Series(label="prompts", x=list(means), y=list(stds), kind="points"),),
            lines=(ReferenceLine(axis="x", value=s.r_max - s.margin, label="far from the best: left of here"),),
            description="Lower left: not learned, and will not be by reward alone. Lower right: done.",
        ),
    )

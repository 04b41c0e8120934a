"""What a comparison of reward models shows: a row for each, paired differences, plots, cautions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankdiag._document import Column, Document, Grid, Plot, Series

if TYPE_CHECKING:
    from rankdiag.rewards._table import RewardTable
    from rankdiag.rewards._teacher import TeacherReport, TeacherRow

__all__ = ["of_accuracy", "of_sampler", "of_weights", "teacher_document"]

_LONG = ("variance_min", "variance_q25", "variance_median", "variance_q75", "variance_max", "shift", "scale")
_WEIGHTED = ("weighted_accuracy", "ess")
_APART = 6  # reward models up to which each has its own colour and mark
_CHANCE = 0.5
_FEW_PAIRS, _SMALL_SHARE = 20.0, 0.01  # as `ranking_accuracy` warns
_CUTS: Mapping[str, Callable[[float], bool]] = {
    "top_k": lambda value: value > 0,
    "top_p": lambda value: value < 1,
    "temperature": lambda value: value != 1,
}
_READING = (
    "Normalised variance of 0.1 trained a policy of 2.8 billion parameters much more slowly than 0.3 to 0.6 at an "
    "accuracy of 1. Its mean can hide prompts without any: read the quantiles.",
    "Public reward models order 64 to 76 % of the pairs of a policy as a large gold model does, and 80 to 86 % of the "
    "pairs of a dataset: trust the accuracy on the policy's own rollouts.",
    "Harm-aware less plain accuracy is the share of pairs whose mistake cannot attract the policy.",
)


def of_sampler(tables: Sequence[RewardTable]) -> tuple[str, ...]:
    """Say where the meta of a table shows that its rollouts are those of another distribution."""
    cut: dict[str, Any] = {}
    for table in tables:
        for name, means_cut in _CUTS.items():
            value = table.meta.get(name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and means_cut(value):
                cut[name] = value
    if not cut:
        return ()
    listed = ", ".join(f"{name} {value:g}" for name, value in cut.items())
    return (
        f"The rollouts were drawn with {listed}: variances and accuracies are those of that distribution, not of the "
        "policy that training changes. Draw with temperature 1 and neither top_k nor top_p.",
    )


def of_accuracy(rows: Sequence[TeacherRow]) -> tuple[str, ...]:
    """Say which reward models move the policy and do not know where to."""
    blind = [row.name for row in rows if row.on_policy_accuracy <= _CHANCE]
    if not blind:
        return ()
    return (
        f"No better than chance on the policy's own rollouts: {', '.join(blind)}. Variance moves the policy, and not "
        "towards the ground truth; `combined` counts it all the same.",
    )


def of_weights(rows: Sequence[TeacherRow], n_pairs: float) -> tuple[str, ...]:
    few = [row.name for row in rows if row.ess < max(_FEW_PAIRS, _SMALL_SHARE * n_pairs)]
    if not few:
        return ()
    return (f"The weights leave few effective pairs: ignore the weighted accuracy of {', '.join(few)}.",)


def teacher_document(report: TeacherReport, conventions: tuple[str, ...]) -> Document:
    """Return the document of a `TeacherReport`."""
    policy = report.meta.details.get("policy")
    explanation = report.explanation
    if report.ranked_by and report.rows:
        explanation += f" By {report.ranked_by}, the best first: {', '.join(row.name for row in report.rows)}."
    return Document(
        title="Reward models as teachers" + (f" of {policy}" if policy is not None else ""),
        verdict=report.verdict,
        explanation=explanation,
        grids=tuple(grid for grid in _grids(report) if grid.rows),
        plots=_plots(report) if report.rows else (),
        notes=(*(f"Warning: {caution}" for caution in report.cautions), *_READING, *conventions),
    )


def _grids(report: TeacherReport) -> tuple[Grid, ...]:
    main = [c for c in report.columns if c.name not in {*_LONG, *_WEIGHTED}]
    main += [c for c in report.columns if c.name in _WEIGHTED and _some(report, c.name)]
    long = [report.columns[0], *(c for c in report.columns if c.name in _LONG)]
    return (
        _grid("Reward models on the same rollouts", main, report.rows),
        _grid("Whitened variance over prompts, and what training sees", long, report.rows),
        _sizes(report),
        Grid(
            title="Paired differences",
            columns=(
                Column(name="first"),
                Column(name="second"),
                Column(name="figure"),
                Column(name="difference", doc="First less second."),
                Column(name="lower"),
                Column(name="upper"),
                Column(name="apart", doc="Whether the interval leaves 0 out."),
            ),
            rows=tuple(
                (
                    d.first,
                    d.second,
                    d.figure,
                    *map(_known, (d.difference, d.lower, d.upper)),
                    d.lower > 0 or d.upper < 0,
                )
                for d in report.differences
            ),
            note="The same resamples of prompts for all reward models.",
        ),
    )


def _some(report: TeacherReport, name: str) -> bool:
    return any(getattr(row, name) == getattr(row, name) for row in report.rows)


def _grid(title: str, columns: list[Column], rows: tuple[TeacherRow, ...]) -> Grid:
    return Grid(
        title=title,
        columns=tuple(columns),
        rows=tuple(tuple(_known(getattr(row, column.name)) for column in columns) for row in rows),
    )


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _sizes(report: TeacherReport) -> Grid:
    """Return the shares of groups without spread, at doublings and the largest size that was drawn."""
    curves = [(row.name, {int(k): share for k, share, *_ in row.zero_std_curve}) for row in report.rows]
    every = sorted({size for _, curve in curves for size in curve})
    shown = [size for size in every if size > 1 and (size & (size - 1) == 0 or size == every[-1])]
    return Grid(
        title="Groups without spread, by their size",
        columns=(Column(name="name", label="reward model"), *(Column(name=f"{size} rollouts") for size in shown)),
        rows=tuple((name, *(curve.get(size) for size in shown)) for name, curve in curves) if shown else (),
        note="Share of groups of this size whose rewards are all equal, and which have no gradient.",
    )


def _plots(report: TeacherReport) -> tuple[Plot, ...]:
    rows = report.rows
    interval = any(row.variance_lower == row.variance_lower for row in rows)
    numbered = [float(place) for place in range(1, len(rows) + 1)]
    plots = [
        Plot(
            title="Normalised variance of each reward model",
            x_label="reward model, in the order of the table",
            y_label="normalised variance",
            series=_apart(
                rows,
                numbered,
                [row.normalised_variance for row in rows],
                ([row.variance_lower for row in rows], [row.variance_upper for row in rows]) if interval else None,
            ),
            description="How far each reward model moves this policy, with its interval over prompts.",
        )
    ]
    if _some(report, "on_policy_accuracy"):
        plots.append(
            Plot(
                title="Accuracy beside variance",
                x_label="on-policy accuracy",
                y_label="normalised variance",
                series=_apart(
                    rows, [row.on_policy_accuracy for row in rows], [row.normalised_variance for row in rows], None
                ),
                description="Right: mistakes are few. Up: gradients are large. A good teacher has both.",
            )
        )
    curves = [row for row in rows if row.zero_std_curve]
    if curves:
        plots.append(
            Plot(
                title="Groups without spread, by their size",
                x_label="rollouts of a group",
                y_label="share of groups whose rewards are all equal",
                x_scale="log",
                series=tuple(
                    Series(label=row.name, x=[p[0] for p in row.zero_std_curve], y=[p[1] for p in row.zero_std_curve])
                    for row in curves
                ),
                description="How much of a batch has no gradient under each reward model.",
            )
        )
    return tuple(plots)


def _apart(
    rows: tuple[TeacherRow, ...], x: list[float], y: list[float], ends: tuple[list[float], list[float]] | None
) -> tuple[Series, ...]:
    """Return a series for each reward model, or one of all where there are too many to tell apart."""
    names = [row.name for row in rows]
    low, high = ends if ends is not None else ([], [])
    if len(rows) > _APART:
        return (Series(label="reward models", x=x, y=y, kind="points", names=names, low=low, high=high),)
    return tuple(
        Series(label=name, x=x[i : i + 1], y=y[i : i + 1], kind="points", low=low[i : i + 1], high=high[i : i + 1])
        for i, name in enumerate(names)
    )

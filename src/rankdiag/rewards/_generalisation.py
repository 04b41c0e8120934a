"""Reward models on pairs they were not trained for: accuracy lost to other wordings and to other domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, string
from rankdiag.rewards._implicit import pair_credits, pair_report, pair_rewards

__all__ = ["GeneralisationCell", "GeneralisationReport", "GroupReading", "ModelDifference", "generalisation_report"]

Floats = NDArray[np.float64]
Pairs = tuple[Floats, Floats]

GROUPS = ("in_distribution", "token_shift", "domain_shift")

# Signs of a reward that reads tokens, not meaning: averages of arXiv 2507.07981 lie on either side of them (implicit
# margin .763 under token shift, explicit .976). They are no rule of the paper, so they give a sentence, not a verdict.
_CUE_MARGIN = 0.8
_CUE_DROP = 0.05
_BESIDE = 0.08  # distance of two models in the plot, in datasets
_MOST_DRAWS = 10**6  # of a bootstrap: 40 MB, and quantiles that no longer move


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralisationCell:
    """One model on one dataset.

    Attributes
    ----------
    model, dataset, group : str
        Names, and the kind of shift.
    n : int
        Pairs without NaN.
    accuracy, lower, upper : float
        Share of pairs in the right order, ties one half, with its Wilson interval at 95 %.
    normalised_margin : float
        See `PairReport`.
    flip_rate : float or None
        Share of pairs whose order differs from that of the original wording, from or to a tie one half; None where
        there is no original.
    gap : float
        Mean accuracy of the model in distribution less this accuracy.
    """

    model: str
    dataset: str
    group: str
    n: int
    accuracy: float
    lower: float
    upper: float
    normalised_margin: float
    flip_rate: float | None
    gap: float = 0.0

    @property
    def name(self) -> str:
        """What a finding calls this cell."""
        return f"{self.model} on {self.dataset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReading:
    """One model on one group of datasets.

    Attributes
    ----------
    model, group : str
        Names.
    accuracy, normalised_margin : float
        Means over the datasets of the group, each dataset alike.
    gap : float
        Accuracy in distribution less this one; 0 in distribution.
    """

    model: str
    group: str
    accuracy: float
    normalised_margin: float
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDifference:
    """Two models on the same pairs of one dataset.

    Attributes
    ----------
    first, second, dataset : str
        Names.
    n : int
        Pairs that both models score.
    difference, lower, upper : float or None
        Accuracy of the first less that of the second, with the percentile interval at 95 % of a paired bootstrap; None
        without one, or without a pair that both score.
    first_only, second_only : int
        Pairs on which one model does better than the other.
    p_value : float
        Exact McNemar test of equal accuracy, two-sided.
    """

    first: str
    second: str
    dataset: str
    n: int
    difference: float | None
    lower: float | None
    upper: float | None
    first_only: int
    second_only: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GeneralisationReport(Table[GeneralisationCell]):
    """Accuracy of reward models in distribution, under other wordings and in other domains.

    Attributes
    ----------
    rows : tuple of GeneralisationCell
        One for each model and dataset.
    groups : tuple of GroupReading
        One for each model and group.
    differences : tuple of ModelDifference
        One for each pair of models and dataset.

    Examples
    --------
    >>> from rankdiag.rewards import generalisation_report
    >>> rewards = {"ex": {"id": ([1.0, 1.0], [0.0, 0.0]), "fr": ([1.0, 0.0], [0.0, 1.0])}}
    >>> report = generalisation_report(rewards, {"id": "in_distribution", "fr": "token_shift"}, rng=0)
    >>> report.column("flip_rate"), report.groups[1].gap
    ([None, 0.5], 0.5)
    """

    tag: ClassVar[str] = "rewards.GeneralisationReport"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="model"),
        Column(name="dataset"),
        Column(name="group"),
        Column(name="n", label="pairs"),
        Column(name="accuracy", doc="Ties count one half."),
        Column(name="lower", label="lower, 95 %"),
        Column(name="upper", label="upper, 95 %"),
        Column(name="normalised_margin", label="normalised margin", doc="Larger is easier to separate."),
        Column(name="flip_rate", label="flips", doc="Share of pairs in another order than in the original wording."),
        Column(name="gap", doc="Mean accuracy of the model in distribution less this one."),
    )

    rows: tuple[GeneralisationCell, ...] = ()
    groups: tuple[GroupReading, ...] = ()
    differences: tuple[ModelDifference, ...] = ()

    def document(self) -> Document:
        """Return what this result shows: groups, cells, differences of models, and accuracy by dataset."""
        models = list(dict.fromkeys(cell.model for cell in self.rows))
        return Document(
            title="Generalisation of reward models",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="models", value=len(models)),
                KeyNumber(label="datasets", value=len({cell.dataset for cell in self.rows})),
            ),
            grids=(
                _grid("Groups", GroupReading, self.groups, "Means over datasets; gap = in distribution less this."),
                self.grid("Datasets"),
                _grid("Models on the same pairs", ModelDifference, self.differences, "Exact McNemar test."),
            ),
            plots=(
                Plot(
                    title="Accuracy, and its interval at 95 %",
                    x_label="dataset, in the order of the table",
                    y_label="accuracy",
                    series=tuple(_accuracies(m, i - (len(models) - 1) / 2, self.rows) for i, m in enumerate(models)),
                    lines=(ReferenceLine(axis="y", value=0.5, label="chance"),),
                    description=f"Accuracy of {len(models)} models by dataset, with its interval at 95 %.",
                ),
                Plot(
                    title="Normalised margin",
                    x_label="dataset, in the order of the table",
                    y_label="margin, in standard deviations",
                    series=tuple(_margins(model, self.rows) for model in models),
                    description=f"Normalised margin of {len(models)} models by dataset.",
                ),
            ),
            notes=self.notes(),
        )


def generalisation_report(
    rewards: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, str],
    *,
    originals: Mapping[str, str] | None = None,
    bootstrap: int = 1000,
    rng: Any = None,
) -> GeneralisationReport:
    """Compare reward models in distribution, under token shift and under domain shift.

    Parameters
    ----------
    rewards : mapping of str to mapping of str to (chosen, rejected)
        For each model and dataset the rewards of both responses of each pair, arrays of shape (N,); NaN drops a pair.
        All models must have all datasets, with the same pairs in the same order.
    groups : mapping of str to {"in_distribution", "token_shift", "domain_shift"}
        For each dataset, whether its pairs are like those of training, other wordings of such pairs (paraphrases,
        translations), or from elsewhere. At least one is in distribution.
    originals : mapping of str to str, optional
        Dataset of other wordings -> dataset with the original wording of the same pairs. None takes the dataset in
        distribution for every dataset of ``"token_shift"``, if there is one only and it has as many pairs.
    bootstrap : int
        Resamples of the paired bootstrap of each difference of two models; 0 leaves its interval out.
    rng : int, numpy.random.Generator or None
        Randomness of the bootstrap.

    Returns
    -------
    GeneralisationReport
        Cells, groups, and differences of every two models.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a model lacks a dataset, a dataset has no group, shapes differ, or a cell has no pair left.

    Notes
    -----
    Accuracy on other wordings of the same pairs drops by no more than the flip rate, and by less where pairs also flip
    to the right order. The bootstrap draws pairs with replacement; as a difference of credits has five values, their
    counts are drawn, at a cost that does not grow with the pairs. The McNemar test is the exact binomial test on the
    pairs on which the models differ. Time O(models^2 datasets (N + bootstrap)).

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 5 (the three groups). McNemar (1947).

    Examples
    --------
    >>> from rankdiag.rewards import generalisation_report
    >>> id_pairs, shifted = ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), ([0.0, 0.0, 3.0], [1.0, 2.0, 0.0])
    >>> rewards = {"ex": {"id": id_pairs, "fr": id_pairs}, "im": {"id": id_pairs, "fr": shifted}}
    >>> report = generalisation_report(rewards, {"id": "in_distribution", "fr": "token_shift"}, rng=0)
    >>> [(group.model, group.group, round(group.gap, 3)) for group in report.groups if group.gap]
    [('im', 'token_shift', 0.667)]
    >>> last = report.differences[-1]
    >>> round(last.difference, 3), last.first_only, last.second_only, last.p_value
    (0.667, 2, 0, 0.5)
    """
    kinds = _groups(groups)
    table = _rewards(rewards, kinds)
    sources, skipped = _originals(originals, kinds, table)
    draws = integer(bootstrap, "bootstrap", low=0, high=_MOST_DRAWS)
    generator, seed = as_generator(rng)
    rows = [
        _cell(model, dataset, kinds[dataset], cells[dataset], cells.get(sources.get(dataset, "")), skipped)
        for model, cells in table.items()
        for dataset in kinds
    ]
    readings = _readings(rows)
    home = {r.model: r.accuracy for r in readings if r.group == GROUPS[0]}
    rows = [replace(cell, gap=home[cell.model] - cell.accuracy) for cell in rows]
    differences = [
        _difference(first, second, dataset, table[first][dataset], table[second][dataset], draws, generator)
        for first, second in combinations(table, 2)
        for dataset in kinds
    ]
    return GeneralisationReport(
        rows=tuple(rows),
        groups=readings,
        differences=tuple(differences),
        explanation=_explain(readings),
        meta=Meta(
            definition="accuracy by dataset; gap = mean accuracy in distribution less that of the group",
            ddof=1,
            n=sum(len(pair[0]) for pair in next(iter(table.values())).values()),
            seed=seed if draws and differences else None,
            skipped=skipped,
            details={"ties": "half", "interval": "Wilson, 95 %", "bootstrap": draws},
        ),
    )


def _groups(value: Any) -> dict[str, str]:
    """Return dataset -> group, those in distribution first."""
    if not isinstance(value, Mapping):
        raise TypeError(f"`groups` must map datasets to {', '.join(GROUPS)}; got {describe(value)}")
    named = {string(name, "groups"): choice(group, "groups", GROUPS) for name, group in value.items()}
    if GROUPS[0] not in named.values():
        raise ValueError("`groups` must hold a dataset that is 'in_distribution', from which gaps are measured")
    return {name: group for kind in GROUPS for name, group in named.items() if group == kind}


def _rewards(value: Any, kinds: Mapping[str, str]) -> dict[str, dict[str, Pairs]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`rewards` must map models to datasets; got {describe(value)}")
    if not value:
        raise ValueError("`rewards` must hold at least one model; got none")
    table: dict[str, dict[str, Pairs]] = {}
    for model, cells in value.items():
        if not isinstance(cells, Mapping):
            raise TypeError(
                f"`rewards` of {string(model, 'rewards')!r} must map datasets to pairs; got {describe(cells)}"
            )
        wrong = set(cells).symmetric_difference(kinds)
        if wrong:
            name = sorted(map(str, wrong))[0]
            where = "has no group in `groups`" if name in cells else "is missing"
            raise ValueError(f"`rewards` of {model!r} must hold the datasets of `groups`; {name!r} {where}")
        table[string(model, "rewards")] = {name: _pair(cells[name], f"rewards[{model!r}][{name!r}]") for name in kinds}
    first, *others = table
    for model in others:
        for name in kinds:
            if table[model][name][0].shape != table[first][name][0].shape:
                raise ValueError(
                    f"`rewards` must be of the same pairs for all models; {name!r} has {len(table[first][name][0])} "
                    f"for {first!r} and {len(table[model][name][0])} for {model!r}"
                )
    return table


def _pair(value: Any, name: str) -> Pairs:
    try:
        chosen, rejected = value
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a pair (chosen, rejected) of arrays; got {describe(value)}") from None
    c, r = pair_rewards(chosen, name), pair_rewards(rejected, name)
    if c.shape != r.shape:
        raise ValueError(f"`{name}` must hold arrays of one length; got {len(c)} and {len(r)}")
    if (np.isnan(c) | np.isnan(r)).all():
        raise ValueError(f"`{name}` must leave one pair without NaN; got none")
    return c, r


def _originals(
    value: Any, kinds: Mapping[str, str], table: Mapping[str, Mapping[str, Pairs]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return dataset -> dataset with the original wording, and why others have none."""
    sizes = {name: len(pair[0]) for name, pair in next(iter(table.values())).items()}
    skipped: dict[str, str] = {}
    if value is None:
        home = [name for name, group in kinds.items() if group == GROUPS[0]]
        shifted = [name for name, group in kinds.items() if group == GROUPS[1]]
        if len(home) > 1:
            skipped = {f"flips of {name}": "several datasets in distribution; pass `originals`" for name in shifted}
            return {}, skipped
        fits = {name: home[0] for name in shifted if sizes[name] == sizes[home[0]]}
        skipped = {f"flips of {name}": f"not the pairs of {home[0]}" for name in shifted if name not in fits}
        return fits, skipped
    if not isinstance(value, Mapping):
        raise TypeError(f"`originals` must map datasets to datasets; got {describe(value)}")
    for name, source in value.items():
        choice(name, "originals", kinds)
        choice(source, "originals", kinds)
        if sizes[name] != sizes[source]:
            raise ValueError(
                f"`originals` must join datasets of the same pairs; {name!r} has {sizes[name]} and {source!r} has "
                f"{sizes[source]}"
            )
    return dict(value), skipped


def _cell(
    model: str, dataset: str, group: str, pair: Pairs, original: Pairs | None, skipped: dict[str, str]
) -> GeneralisationCell:
    try:
        report = pair_report(*pair)
    except ValueError as error:
        raise ValueError(f"`rewards` of {model!r} on {dataset!r}: {error}") from None
    if report.meta.skipped:
        skipped[f"pairs of {model} on {dataset}"] = report.meta.skipped["pairs"]
    flips = None
    if original is not None:
        moved = np.abs(pair_credits(*pair) - pair_credits(*original))
        moved = moved[~np.isnan(moved)]
        flips = float(moved.mean()) if len(moved) else None
    return GeneralisationCell(
        model=model,
        dataset=dataset,
        group=group,
        n=int(report.meta.n or 0),
        accuracy=report.accuracy,
        lower=report.accuracy_interval[0],
        upper=report.accuracy_interval[1],
        normalised_margin=report.normalised_margin,
        flip_rate=flips,
    )


def _readings(rows: Sequence[GeneralisationCell]) -> tuple[GroupReading, ...]:
    found: list[GroupReading] = []
    home = 0.0
    for model in dict.fromkeys(cell.model for cell in rows):
        for group in GROUPS:
            cells = [cell for cell in rows if cell.model == model and cell.group == group]
            if not cells:
                continue
            accuracy = float(np.mean([cell.accuracy for cell in cells]))
            if group == GROUPS[0]:
                home = accuracy
            margin = float(np.mean([cell.normalised_margin for cell in cells]))
            found.append(
                GroupReading(model=model, group=group, accuracy=accuracy, normalised_margin=margin, gap=home - accuracy)
            )
    return tuple(found)


def _difference(
    first: str, second: str, dataset: str, a: Pairs, b: Pairs, draws: int, rng: np.random.Generator
) -> ModelDifference:
    from scipy.special import bdtr

    gain = pair_credits(*a) - pair_credits(*b)
    gain = gain[~np.isnan(gain)]
    up, down = int((gain > 0).sum()), int((gain < 0).sum())
    low = high = None
    if draws and len(gain):
        values, counts = np.unique(gain, return_counts=True)
        means = rng.multinomial(len(gain), counts / len(gain), size=draws) @ values / len(gain)
        low, high = (float(end) for end in np.quantile(means, (0.025, 0.975)))
    return ModelDifference(
        first=first,
        second=second,
        dataset=dataset,
        n=len(gain),
        difference=float(gain.mean()) if len(gain) else None,
        lower=low,
        upper=high,
        first_only=up,
        second_only=down,
        p_value=min(1.0, 2.0 * float(bdtr(min(up, down), up + down, 0.5))),
    )


def _explain(readings: Sequence[GroupReading]) -> str:
    parts = [
        f"{r.model} has accuracy {r.accuracy:.1%} under {r.group.replace('_', ' ')}, {abs(r.gap):.1%} "
        f"{'below' if r.gap >= 0 else 'above'} that in distribution."
        for r in readings
        if r.group != GROUPS[0]
    ]
    cues = [
        r.model for r in readings if r.group == GROUPS[1] and r.gap > _CUE_DROP and r.normalised_margin < _CUE_MARGIN
    ]
    if cues:
        parts.append(
            f"A margin below {_CUE_MARGIN} with accuracy that drops by more than {_CUE_DROP} under other wordings "
            f"points to token cues ({', '.join(cues)}): prefer an explicit head, or train with paraphrases."
        )
    if not parts:
        parts = [f"{r.model} has accuracy {r.accuracy:.1%} in distribution." for r in readings]
    return " ".join(parts)


def _accuracies(model: str, place: float, rows: Sequence[GeneralisationCell]) -> Series:
    """Return the accuracies of a model with their intervals, beside those of other models."""
    cells = [cell for cell in rows if cell.model == model]
    return Series(
        label=model,
        x=[x + _BESIDE * place for x in range(len(cells))],
        y=[cell.accuracy for cell in cells],
        kind="points",
        names=[cell.dataset for cell in cells],
        low=[cell.lower for cell in cells],
        high=[cell.upper for cell in cells],
    )


def _margins(model: str, rows: Sequence[GeneralisationCell]) -> Series:
    cells = [cell for cell in rows if cell.model == model]
    return Series(
        label=model,
        x=list(range(len(cells))),
        y=[cell.normalised_margin for cell in cells],
        kind="points",
        names=[cell.dataset for cell in cells],
    )


def _grid(title: str, kind: type[Any], rows: Sequence[Any], note: str) -> Grid:
    names = tuple(kind.__dataclass_fields__)
    return Grid(
        title=title,
        columns=tuple(Column(name=name, label=name.replace("_", " ")) for name in names),
        rows=tuple(tuple(getattr(row, name) for name in names) for row in rows),
        note=note,
    )

"""Reward models as teachers of one policy, side by side on the same rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._document import Column, Document
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, real
from rankdiag.rewards._accuracy import ranking_accuracy, rewards_2d
from rankdiag.rewards._moments import row_moments
from rankdiag.rewards._pairs import pair_accuracy

__all__ = ["TeacherDifference", "TeacherReport", "TeacherRow", "teacher_report"]

Floats = NDArray[np.float64]
_FIGURES = ("normalised_variance", "on_policy_accuracy", "harm_aware_accuracy", "off_policy_accuracy", "combined")
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRow:
    """One reward model; a figure that could not be computed is NaN."""

    name: str
    normalised_variance: float
    variance_lower: float
    variance_upper: float
    on_policy_accuracy: float
    harm_aware_accuracy: float
    off_policy_accuracy: float
    combined: float
    zero_std_fraction: float
    std_q10: float
    std_median: float
    std_q90: float
    pooled_mean: float
    pooled_std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherDifference:
    """Difference of one figure between two reward models, with a paired bootstrap interval over prompts."""

    first: str
    second: str
    figure: str
    difference: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherReport(Table[TeacherRow]):
    """Reward models on the same rollouts of one policy.

    Attributes
    ----------
    rows : tuple of TeacherRow
        One for each reward model, in the order given.
    differences : tuple of TeacherDifference
        Paired differences of normalised variance and on-policy accuracy; empty without a bootstrap.

    Examples
    --------
    >>> from rankdiag.rewards import teacher_report
    >>> gold = [[0.0, 1.0], [1.0, 0.0]]
    >>> report = teacher_report({"a": gold, "b": [[1.0, 0.0], [1.0, 0.0]]}, gold, bootstrap=0)
    >>> report.rank(by="on_policy_accuracy")
    ('a', 'b')
    """

    tag: ClassVar[str] = "rewards.TeacherReport"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="reward model"),
        Column(name="normalised_variance", doc="Mean variance within a prompt, of rewards whitened over the table."),
        Column(name="variance_lower", label="lower"),
        Column(name="variance_upper", label="upper"),
        Column(name="on_policy_accuracy"),
        Column(name="harm_aware_accuracy"),
        Column(name="off_policy_accuracy"),
        Column(name="combined", doc="Mean of the normalised variance and of the mean of both accuracies."),
        Column(name="zero_std_fraction", doc="Prompts whose rewards are all equal."),
        Column(name="std_q10"),
        Column(name="std_median"),
        Column(name="std_q90"),
        Column(name="pooled_mean"),
        Column(name="pooled_std"),
    )

    rows: tuple[TeacherRow, ...] = ()
    differences: tuple[TeacherDifference, ...] = ()

    def rank(self, by: str = "combined") -> tuple[str, ...]:
        """Return the names of the reward models, the largest figure first; NaN stands last.

        Parameters
        ----------
        by : str
            Name of a numeric column.

        Returns
        -------
        tuple of str
            Names; equal figures keep their order.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        values = self._figure(by)
        return tuple(self.rows[i].name for i in np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable"))

    def correlate(
        self, increase: Mapping[str, float], method: Literal["pearson", "spearman"] = "pearson"
    ) -> dict[str, float]:
        """Correlate every figure of the reward models with what training with them gained.

        Parameters
        ----------
        increase : mapping of str to float
            Gain in reward after training, by name of the reward model.
        method : {"pearson", "spearman"}
            Of the values or of their ranks (ties share the mean rank).

        Returns
        -------
        dict of str to float
            Figure -> correlation; NaN where a figure does not vary or is missing.

        Raises
        ------
        TypeError
            If `increase` is no mapping of numbers.
        ValueError
            If a reward model has no entry, or there are fewer than two.
        """
        kind = choice(method, "method", ("pearson", "spearman"))
        if not isinstance(increase, Mapping):
            raise TypeError(f"`increase` must map names of reward models to gains; got {describe(increase)}")
        missing = [row.name for row in self.rows if row.name not in increase]
        if missing or len(self.rows) < 2:
            raise ValueError(f"`increase` must have an entry for each of two or more reward models; missing {missing}")
        gains = np.array([real(increase[row.name], f"increase[{row.name!r}]") for row in self.rows])
        return {figure: _correlation(self._figure(figure), gains, kind) for figure in _FIGURES}

    def _figure(self, name: str) -> Floats:
        known = tuple(column.name for column in self.columns[1:])
        return np.array(self.column(choice(name, "by", known)), dtype=np.float64)

    def document(self) -> Document:
        """Return what this report shows: one row a reward model, and the paired differences as notes."""
        return Document(
            title="Reward models as teachers",
            verdict=self.verdict,
            explanation=self.explanation,
            grids=(self.grid(title="Reward models on the same rollouts"),),
            notes=(
                *self.notes(),
                *(
                    f"{d.first} - {d.second}, {d.figure}: {d.difference:+.4f} ({d.lower:+.4f} to {d.upper:+.4f})."
                    for d in self.differences
                ),
            ),
        )


def teacher_report(
    proxies: Mapping[str, Any],
    gold: Any = None,
    *,
    offline_pairs: Mapping[str, tuple[Any, Any]] | None = None,
    bootstrap: int = 1000,
    ci: float = 0.95,
    rng: Any = None,
) -> TeacherReport:
    """Compare reward models as teachers of one policy: variance and accuracy on the same rollouts.

    Parameters
    ----------
    proxies : mapping of str to RewardTable or array-like, shape (N, k)
        Rewards of the same rollouts by each reward model.
    gold : array-like, shape (N, k), optional
        Ground-truth rewards of these rollouts; None takes those of the first table that has them.
    offline_pairs : mapping of str to (chosen, rejected), optional
        Rewards of given pairs by each reward model, for the off-policy accuracy.
    bootstrap : int
        Resamples of the prompts, the same for all reward models; 0 leaves intervals and differences out.
    ci : float
        Level of the percentile intervals.
    rng : None, int or numpy.random.Generator
        Seed of the bootstrap.

    Returns
    -------
    TeacherReport
        One row a reward model, and paired differences.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the rewards do not align, or all rewards of a model are identical.

    Notes
    -----
    The best reward model depends on the policy: an accurate one with little variance teaches slowly. `combined` is
    (normalised variance + mean of both accuracies) / 2, with the on-policy accuracy alone where no pairs are given.
    O(N k^2) for the accuracies, O(bootstrap N) for the intervals; in a resample, rewards keep the pooled standard
    deviation of the whole table.

    References
    ----------
    arXiv 2503.15477, Definitions 1 and 2, Tables 1 and 2.

    Examples
    --------
    >>> from rankdiag.rewards import teacher_report
    >>> gold = [[0.0, 1.0], [1.0, 0.0]]
    >>> round(teacher_report({"a": gold}, gold, bootstrap=0).rows[0].normalised_variance, 6)
    1.5
    """
    if not isinstance(proxies, Mapping) or not proxies or not all(isinstance(name, str) for name in proxies):
        raise TypeError(f"`proxies` must map names of reward models to rewards; got {describe(proxies)}")
    if offline_pairs is not None and not isinstance(offline_pairs, Mapping):
        raise TypeError(f"`offline_pairs` must map names to (chosen, rejected); got {describe(offline_pairs)}")
    resamples, level = (
        integer(bootstrap, "bootstrap", low=0),
        real(ci, "ci", low=0, high=1, low_open=True, high_open=True),
    )
    generator, seed = as_generator(rng)
    tables = {name: rewards_2d(value, f"proxies[{name!r}]") for name, value in proxies.items()}
    shape = next(iter(tables.values())).shape
    for name, values in tables.items():
        if values.shape != shape:
            raise ValueError(
                f"`proxies` must be rewards of the same rollouts: {name!r} has {values.shape}, not {shape}"
            )
    if gold is None:
        gold = next((t.gold for t in proxies.values() if getattr(t, "gold", None) is not None), None)
    refuse_size(resamples * shape[0], "bootstrap", (resamples, shape[0]))
    draws = generator.integers(0, shape[0], (resamples, shape[0])) if resamples else np.zeros((0, shape[0]), dtype=int)
    rows, per_prompt = [], {}
    for name, values in tables.items():
        row, prompts = _row(name, values, gold, (offline_pairs or {}).get(name), draws, level)
        rows.append(row)
        per_prompt[name] = prompts
    return TeacherReport(
        rows=tuple(rows),
        differences=tuple(_differences(per_prompt, draws, level)),
        explanation=(
            f"{len(rows)} reward models on the same {shape[0]} prompts. Trust the accuracy on the policy's own "
            "rollouts; compare reward models only on one policy."
        ),
        meta=Meta(
            definition="normalised reward variance and ranking accuracy on the same rollouts",
            ddof=1,
            n=shape[0],
            seed=seed if resamples else None,
            details={"bootstrap": resamples, "ci": level},
        ),
    )


def _row(
    name: str, values: Floats, gold: Any, pairs: Any, draws: NDArray[Any], level: float
) -> tuple[TeacherRow, dict[str, Floats]]:
    valid = values[~np.isnan(values)]
    if len(valid) < 2 or valid.min() == valid.max():
        raise ValueError(f"`proxies`: all rewards identical for {name!r}; the normalised variance is undefined")
    mean, std = float(valid.mean()), float(valid.std(ddof=1))
    spread = row_moments(values).var
    white = spread / std**2
    accuracy = harm = None
    if gold is not None:
        accuracy = ranking_accuracy(values, gold)
        harm = ranking_accuracy(values, gold, harm_aware=True)
    off = _NAN if pairs is None else pair_accuracy(*pairs).accuracy
    on = _NAN if accuracy is None else accuracy.accuracy
    some = white[~np.isnan(white)]
    if not len(some):
        raise ValueError("k=1 rollout per prompt: variance is undefined, draw at least 2")
    prompts = {"normalised_variance": white}
    if accuracy is not None:
        prompts["on_policy_accuracy"] = accuracy.per_prompt
    low, high = _interval(_means(white, draws), level)
    quantiles = np.quantile(np.sqrt(spread[~np.isnan(spread)]), [0.1, 0.5, 0.9]).tolist()
    row = TeacherRow(
        name=name,
        normalised_variance=float(some.mean()),
        variance_lower=low,
        variance_upper=high,
        on_policy_accuracy=on,
        harm_aware_accuracy=_NAN if harm is None else harm.accuracy,
        off_policy_accuracy=off,
        combined=(float(some.mean()) + (on if off != off else (on + off) / 2)) / 2,
        zero_std_fraction=float((some == 0).mean()),
        std_q10=quantiles[0],
        std_median=quantiles[1],
        std_q90=quantiles[2],
        pooled_mean=mean,
        pooled_std=std,
    )
    return row, prompts


def _means(values: Floats, draws: NDArray[Any]) -> Floats:
    found = np.empty(len(draws))
    for i, draw in enumerate(draws):
        some = values[draw]
        some = some[~np.isnan(some)]
        found[i] = some.mean() if len(some) else np.nan
    return found


def _interval(values: Floats, level: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return _NAN, _NAN
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _differences(
    per_prompt: Mapping[str, Mapping[str, Floats]], draws: NDArray[Any], level: float
) -> list[TeacherDifference]:
    names, found = list(per_prompt), []
    for i, first in enumerate(names if len(draws) else []):
        for second in names[i + 1 :]:
            for figure in per_prompt[first]:
                gap = per_prompt[first][figure] - per_prompt[second][figure]
                some = gap[~np.isnan(gap)]
                low, high = _interval(_means(gap, draws), level)
                mean = float(some.mean()) if len(some) else _NAN
                found.append(
                    TeacherDifference(first=first, second=second, figure=figure, difference=mean, lower=low, upper=high)
                )
    return found


def _correlation(x: Floats, y: Floats, kind: str) -> float:
    if np.isnan(x).any() or (x == x[0]).all() or (y == y[0]).all():
        return _NAN
    if kind == "spearman":
        x, y = _ranks(x), _ranks(y)
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _ranks(values: Floats) -> Floats:
    ordered = np.sort(values)
    left, right = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((left + right + 1) / 2, dtype=np.float64)

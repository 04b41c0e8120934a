"""Reward models as teachers of one policy, side by side on the same rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import refuse_size
from rankdiag._document import Column, Document
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, real, string
from rankdiag.rewards._accuracy import combine, log_weights, rewards_2d
from rankdiag.rewards._components import RewardNormalizer
from rankdiag.rewards._moments import row_moments
from rankdiag.rewards._pair_counts import expected_reward, pair_sums
from rankdiag.rewards._pairs import pair_accuracy
from rankdiag.rewards._table import RewardTable
from rankdiag.rewards._teacher_show import of_accuracy, of_sampler, of_weights, teacher_document
from rankdiag.rewards._zero_std_curve import zero_std_curve

__all__ = ["TeacherDifference", "TeacherReport", "TeacherRow", "teacher_report"]

Floats = NDArray[np.float64]
Ratio = tuple[Floats, Floats]  # a figure as a sum over prompts by a sum over prompts
_FIGURES = ("normalised_variance", "on_policy_accuracy", "harm_aware_accuracy", "off_policy_accuracy", "combined")
_QUANTILES = ("variance_min", "variance_q25", "variance_median", "variance_q75", "variance_max")
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRow:
    """One reward model; a figure that could not be computed is NaN.

    Attributes
    ----------
    name : str
        Of the reward model.
    normalised_variance, variance_lower, variance_upper : float
        Mean variance within a prompt of rewards whitened over the table, and its interval over prompts.
    on_policy_accuracy, harm_aware_accuracy, off_policy_accuracy : float
        Of pairs of rollouts, the same with harmless mistakes waived, and of given pairs.
    combined : float
        (normalised variance + mean of on- and off-policy accuracy) / 2.
    zero_std_fraction : float
        Share of prompts whose rewards are all equal.
    std_q10, std_median, std_q90 : float
        Quantiles over prompts of the standard deviation, in units of the reward.
    pooled_mean, pooled_std : float
        Over all rewards, ddof=1.
    variance_min, variance_q25, variance_median, variance_q75, variance_max : float
        Quantiles over prompts of the whitened variance, whose mean is `normalised_variance`.
    shift, scale : float
        Of `RewardNormalizer`: training sees (r + shift) * scale.
    weighted_accuracy, ess : float
        Accuracy with pairs weighed by their probability under the policy, and the effective number of pairs behind it.
    zero_std_curve : tuple of tuple of float
        As in `RewardSummary`.
    """

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
    variance_min: float = _NAN
    variance_q25: float = _NAN
    variance_median: float = _NAN
    variance_q75: float = _NAN
    variance_max: float = _NAN
    shift: float = _NAN
    scale: float = _NAN
    weighted_accuracy: float = _NAN
    ess: float = _NAN
    zero_std_curve: tuple[tuple[float, float, float, float], ...] = ()


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
    cautions : tuple of str
        What makes these figures those of another policy, of too few pairs, or of no use.
    ranked_by : str
        Column by which the rows stand in order; empty where they stand as given.

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
        Column(name="variance_min", doc="Of the whitened variance over prompts: a mean can hide dead prompts."),
        Column(name="variance_q25"),
        Column(name="variance_median"),
        Column(name="variance_q75"),
        Column(name="variance_max"),
        Column(name="shift", doc="Training sees (r + shift) * scale."),
        Column(name="scale"),
        Column(name="weighted_accuracy", doc="Pairs weighed by their probability under the policy."),
        Column(name="ess", label="effective pairs", doc="Behind the weighted accuracy; few: ignore it."),
    )

    rows: tuple[TeacherRow, ...] = ()
    differences: tuple[TeacherDifference, ...] = ()
    cautions: tuple[str, ...] = ()
    ranked_by: str = ""

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

    def ranked(self, by: str = "combined") -> TeacherReport:
        """Return this report with its rows in the order of `rank`.

        Parameters
        ----------
        by : str
            Name of a numeric column.

        Returns
        -------
        TeacherReport
            The same figures; `ranked_by` says the column.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        rows = {row.name: row for row in self.rows}
        return replace(self, rows=tuple(rows[name] for name in self.rank(by)), ranked_by=by)

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
        """Return what this report shows: a row for each reward model, what tells them apart, three plots, cautions."""
        return teacher_document(self, super(TeacherReport, self).notes())


def teacher_report(
    proxies: Mapping[str, Any],
    gold: Any = None,
    *,
    offline_pairs: Mapping[str, tuple[Any, Any]] | None = None,
    policy: str | None = None,
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
    policy : str, optional
        Name of the policy that drew the rollouts; None takes ``policy`` of the meta of a table.
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
    Log-probabilities of the first table that has them weigh pairs for `weighted_accuracy` and `ess`. The meta of the
    tables says how rollouts were drawn: a cut distribution (top_k, top_p) or another temperature is a caution.

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
    named = None if policy is None else string(policy, "policy")
    generator, seed = as_generator(rng)
    tables = {name: rewards_2d(value, f"proxies[{name!r}]") for name, value in proxies.items()}
    shape = next(iter(tables.values())).shape
    for name, values in tables.items():
        if values.shape != shape:
            raise ValueError(
                f"`proxies` must be rewards of the same rollouts: {name!r} has {values.shape}, not {shape}"
            )
    known = [value for value in proxies.values() if isinstance(value, RewardTable)]
    gold = _first(known, "gold") if gold is None else gold
    truth = None if gold is None else _aligned(gold, shape)
    logs = _first(known, "log_probs")
    weights = None if logs is None else log_weights(logs, None, "sequence", shape)
    refuse_size(resamples * shape[0], "bootstrap", (resamples, shape[0]))
    draws = generator.integers(0, shape[0], (resamples, shape[0])) if resamples else np.zeros((0, shape[0]), dtype=int)
    rows, ratios, n_pairs = [], {}, 0.0
    for name, values in tables.items():
        row, own, pairs = _row(name, values, truth, weights, (offline_pairs or {}).get(name), draws, level)
        rows.append(row)
        ratios[name] = own
        n_pairs = max(n_pairs, pairs)
    who = named if named is not None else next((t.meta["policy"] for t in known if "policy" in t.meta), None)
    return TeacherReport(
        rows=tuple(rows),
        differences=tuple(_differences(ratios, draws, level)),
        cautions=(*of_sampler(known), *of_accuracy(rows), *of_weights(rows, n_pairs)),
        explanation=(
            f"{len(rows)} reward models on the same {shape[0]} prompts. Trust the accuracy on the policy's own "
            "rollouts; compare reward models only on one policy."
        ),
        meta=Meta(
            definition="normalised reward variance and ranking accuracy on the same rollouts",
            ddof=1,
            n=shape[0],
            seed=seed if resamples else None,
            details={"bootstrap": resamples, "ci": level, **({} if who is None else {"policy": str(who)})},
        ),
    )


def _first(tables: Sequence[RewardTable], name: str) -> Any:
    return next((found for table in tables if (found := getattr(table, name)) is not None), None)


def _aligned(gold: Any, shape: tuple[int, ...]) -> Floats:
    truth = rewards_2d(gold, "gold")
    if truth.shape != shape:
        raise ValueError(f"gold rewards must align with rewards rollout by rollout: got {truth.shape} and {shape}")
    return truth


def _row(
    name: str,
    values: Floats,
    gold: Floats | None,
    weights: Floats | None,
    pairs: Any,
    draws: NDArray[Any],
    level: float,
) -> tuple[TeacherRow, dict[str, Ratio], float]:
    valid = values[~np.isnan(values)]
    if len(valid) < 2 or valid.min() == valid.max():
        raise ValueError(f"`proxies`: all rewards identical for {name!r}; the normalised variance is undefined")
    mean, std = float(valid.mean()), float(valid.std(ddof=1))
    moments = row_moments(values)
    white = moments.var / std**2
    known = ~np.isnan(white)
    if not known.any():
        raise ValueError("k=1 rollout per prompt: variance is undefined, draw at least 2")
    some = white[known]
    ratios: dict[str, Ratio] = {"normalised_variance": (np.where(known, white, 0.0), known.astype(np.float64))}
    on = harm = weighted = ess = _NAN
    count = 0.0
    if gold is not None:
        plain, waived = (
            pair_sums(values, gold, log_weights=weights),
            pair_sums(values, gold, bar=expected_reward(values)),
        )
        count = float(plain.pairs.sum())
        if values.shape[1] < 2 or not count:
            raise ValueError(
                "all gold rewards tie: accuracy is undefined (no pair of valid rollouts differs in `gold`)"
            )
        on, harm = combine(plain, False, "all", False)[0], combine(waived, False, "all", False)[0]
        ratios["on_policy_accuracy"] = (plain.credit, plain.pairs)
        if weights is not None:
            weighted, _, ess = combine(plain, True, "all", False)
    off = _NAN if pairs is None else pair_accuracy(*pairs).accuracy
    low, high = _interval(_resampled(ratios["normalised_variance"], draws), level)
    spreads = np.quantile(np.sqrt(moments.var[known]), [0.1, 0.5, 0.9]).tolist()
    quantiles = np.quantile(some, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    normalizer = RewardNormalizer.fit(values)
    row = TeacherRow(
        name=name,
        normalised_variance=float(some.mean()),
        variance_lower=low,
        variance_upper=high,
        on_policy_accuracy=on,
        harm_aware_accuracy=harm,
        off_policy_accuracy=off,
        combined=(float(some.mean()) + (on if off != off else (on + off) / 2)) / 2,
        zero_std_fraction=float((some == 0).mean()),
        **dict(zip(("std_q10", "std_median", "std_q90"), spreads, strict=True)),
        pooled_mean=mean,
        pooled_std=std,
        **dict(zip(_QUANTILES, quantiles, strict=True)),
        shift=normalizer.shift,
        scale=normalizer.scale,
        weighted_accuracy=weighted,
        ess=ess,
        zero_std_curve=zero_std_curve(values, moments.count, (float(valid.min()), float(valid.max()))).seen,
    )
    return row, ratios, count


def _resampled(ratio: Ratio, draws: NDArray[Any]) -> Floats:
    """Return sum over sum for each resample of the prompts; NaN where nothing is left."""
    found = np.empty(len(draws))
    for i, draw in enumerate(draws):
        below = ratio[1][draw].sum()
        found[i] = ratio[0][draw].sum() / below if below else np.nan
    return found


def _interval(values: Floats, level: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return _NAN, _NAN
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def _differences(
    ratios: Mapping[str, Mapping[str, Ratio]], draws: NDArray[Any], level: float
) -> list[TeacherDifference]:
    if not len(draws):
        return []
    drawn = {name: {figure: _resampled(r, draws) for figure, r in own.items()} for name, own in ratios.items()}
    found = []
    for first, second in combinations(ratios, 2):
        for figure, (above, below) in ratios[first].items():
            other = ratios[second][figure]
            low, high = _interval(drawn[first][figure] - drawn[second][figure], level)
            gap = float(above.sum() / below.sum() - other[0].sum() / other[1].sum())
            found.append(
                TeacherDifference(first=first, second=second, figure=figure, difference=gap, lower=low, upper=high)
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

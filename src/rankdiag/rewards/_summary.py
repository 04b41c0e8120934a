"""What a table of rewards says about a policy gradient: how many prompts can move, how far, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, histogram
from rankdiag._document import Document
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import describe, integer, real
from rankdiag._warnings import without_warnings
from rankdiag.rewards._components import components_of, pooled_moments
from rankdiag.rewards._moments import RowMoments, row_moments
from rankdiag.rewards._table import as_table
from rankdiag.rewards._zero_std_curve import zero_std_curve

__all__ = ["RewardSummary", "summarize"]

Floats = NDArray[np.float64]
Interval = tuple[float, float]

_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_BINS = 30
_POINTS = 1000
_MOST_SIZES = 100
_LARGEST_GROUP = 1_000_000
_MOST_RESAMPLES = 1_000_000  # more change no digit that a reader uses, and take hours
_NOTHING = (math.nan, math.nan)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RewardSummary(Result):
    """Rewards of many prompts in figures, each with what it says about training.

    Attributes
    ----------
    n_prompts, n_undefined : int
        Prompts, and those with fewer than 2 scored rollouts, which no figure on variances counts.
    k_min, k_median, k_max : float
        Scored rollouts of a prompt.
    grand_mean, se_grand_mean : float
        Mean over prompts of their mean reward, and its standard error over prompts.
    mean_var, se_mean_var : float
        Mean over prompts of the unbiased variance, and its standard error over prompts.
    rms_std : float
        sqrt(mean_var), the headline scale; it does not depend on how many rollouts were drawn.
    mean_std : float
        Mean standard deviation, biased low at few rollouts.
    ci_grand_mean, ci_mean_var, ci_rms_std : tuple of float
        Intervals over prompts; NaN for fewer than 2.
    std_quantiles, mean_quantiles : mapping of str to float
        Of the standard deviations and the means of prompts, at 0, 0.1, 0.25, 0.5, 0.75, 0.9 and 1.
    frac_zero_std, frac_all_min, frac_all_max : float
        Share of prompts whose rewards are all equal, all the lowest reward of the table (too hard), all the highest
        (too easy).
    frac_low_std : mapping of str to float
        tau -> share of prompts with a standard deviation of at most tau.
    share_far_from_opt : mapping of str to float
        tau -> share of prompts with such a standard deviation and a mean below r_max - margin: flat, and far from done.
    pooled_mean, pooled_std : float
        Over all rewards, ddof=1.
    msw, msb, icc1 : float
        As in `variance_components`.
    normalised_variance : float
        As in `normalised_reward_variance`; NaN if all rewards are equal.
    r_min, r_max, margin : float
        Lowest reward; what counts as the best reward, and how far from it is far.
    std_histogram : tuple of tuple of float
        Centre and count of each bin, for a plot.
    points : tuple of tuple of float
        Mean and standard deviation of up to 1000 prompts, for a plot.
    zero_std_curve : tuple of tuple of float
        Group size k, mean over prompts of `zero_std_at_k`, its standard error over prompts, and prompts with so many
        rewards; up to the rollouts of a prompt. Of more than half a million rewards, evenly spaced prompts.
    zero_std_beyond : tuple of tuple of float
        Group size and share of larger groups without spread, model-based; empty where rewards have not two values.
    zero_std_beta : tuple of float or None
        (a, b) of the Beta distribution of success rates behind it.
    group_sizes : tuple of int
        Sizes that were asked for.

    Examples
    --------
    >>> from rankdiag.rewards import summarize
    >>> summary = summarize([[0, 1, 1, 0], [1, 1, 1, 1]])
    >>> round(summary.mean_var, 6), summary.frac_zero_std, summary.frac_all_max
    (0.166667, 0.5, 0.5)
    """

    tag: ClassVar[str] = "rewards.RewardSummary"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "n_prompts",
        "n_undefined",
        "k_min",
        "k_median",
        "k_max",
        "grand_mean",
        "se_grand_mean",
        "mean_var",
        "se_mean_var",
        "rms_std",
        "mean_std",
        "frac_zero_std",
        "frac_all_min",
        "frac_all_max",
        "pooled_mean",
        "pooled_std",
        "msw",
        "msb",
        "icc1",
        "normalised_variance",
        "r_min",
        "r_max",
        "margin",
    )

    n_prompts: int
    n_undefined: int
    k_min: float
    k_median: float
    k_max: float
    grand_mean: float
    se_grand_mean: float
    mean_var: float
    se_mean_var: float
    rms_std: float
    mean_std: float
    ci_grand_mean: tuple[float, float]
    ci_mean_var: tuple[float, float]
    ci_rms_std: tuple[float, float]
    std_quantiles: Mapping[str, float]
    mean_quantiles: Mapping[str, float]
    frac_zero_std: float
    frac_all_min: float
    frac_all_max: float
    frac_low_std: Mapping[str, float]
    share_far_from_opt: Mapping[str, float]
    pooled_mean: float
    pooled_std: float
    msw: float
    msb: float
    icc1: float
    normalised_variance: float
    r_min: float
    r_max: float
    margin: float
    std_histogram: tuple[tuple[float, float], ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    zero_std_curve: tuple[tuple[float, float, float, float], ...] = ()
    zero_std_beyond: tuple[tuple[float, float], ...] = ()
    zero_std_beta: tuple[float, float] | None = None
    group_sizes: tuple[int, ...] = ()

    def to_pandas(self) -> Any:
        """Return the figures as a pandas Series.

        Returns
        -------
        pandas.Series
            One entry for each plain number.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        return pandas.Series({name: float(getattr(self, name)) for name in self.rule_names})

    def document(self) -> Document:
        """Return what these figures show: the answer, intervals, quantiles, two plots, how to read them."""
        from rankdiag.rewards._summary_show import summary_document

        return summary_document(self, super(RewardSummary, self).notes())


def summarize(
    table: Any,
    *,
    taus: Sequence[float] = (0.01, 0.05),
    ci: float = 0.95,
    bootstrap: int = 0,
    rng: Any = None,
    r_max: float | None = None,
    margin: float | None = None,
    group_sizes: Sequence[int] = (),
) -> RewardSummary:
    """Summarise rewards of many prompts: whether they can move a policy, and for how many prompts they cannot.

    Parameters
    ----------
    table : RewardTable or array-like, shape (N, k)
        Rewards of k rollouts for each prompt; NaN for one that cannot be scored.
    taus : sequence of float
        Standard deviations, in units of the reward, below which a prompt counts as flat.
    ci : float
        Level of the intervals, in (0, 1).
    bootstrap : int
        Resamples of prompts (BCa), at most 10^6, for the intervals of mean_var and grand_mean; 0 takes t intervals. NaN
        where all resamples lie on one side of the mean, as they may if they are few.
    rng : int or numpy.random.Generator, optional
        Of the bootstrap.
    r_max : float, optional
        The best reward; None takes the highest of the table.
    margin : float, optional
        How far below the best reward is far; None takes a quarter of the range of the table.
    group_sizes : sequence of int
        Group sizes whose share of groups without spread is shown; none takes doublings. Sizes beyond the rollouts of
        the table need rewards of two values, and a model.

    Returns
    -------
    RewardSummary
        All figures.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no reward, or an argument is out of range.

    Notes
    -----
    Prompts are the sampling unit: standard errors and resamples run over prompts, never over rollouts. Time O(N k), and
    O(B N + N^2) with a bootstrap, which is scipy's BCa with its jackknife; memory of one block beyond the table.

    Groups without spread: unbiased up to the rollouts that were drawn, with a band of two standard errors over prompts.
    Larger groups are shown for rewards of two values alone, by `beta_binomial_zero_std` with the fit of
    `low_std_fraction`: model-based, and labelled so.

    References
    ----------
    Razin et al., arXiv 2310.20703: the gradient of a prompt vanishes with its standard deviation; the 10th percentile
    of which predicts the gap between reinforcement and supervised finetuning over datasets.

    Examples
    --------
    >>> from rankdiag.rewards import summarize
    >>> summary = summarize([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], taus=[0.1])
    >>> summary.frac_low_std, round(summary.rms_std, 4)
    ({'0.1': 0.3333333333333333}, 0.5774)
    """
    rewards = as_table(table)
    level = real(ci, "ci", low=0.0, high=1.0, low_open=True, high_open=True)
    resamples = integer(bootstrap, "bootstrap", low=0, high=_MOST_RESAMPLES)
    if resamples == 1:
        raise ValueError("`bootstrap` must be 0 for t intervals, or at least 2 resamples, better 2000; got 1")
    bounds, sizes = _taus(taus), _sizes(group_sizes)
    rows = row_moments(rewards.values)
    scored, known = rows.count > 0, np.isfinite(rows.var)
    if not scored.any():
        raise ValueError("`table` must hold at least one reward; all are NaN")
    parts = components_of(rows)
    pooled = pooled_moments(rewards)
    pooled_var, low, high = (float(entry[0]) for entry in (pooled.var, pooled.min, pooled.max))
    best = high if r_max is None else real(r_max, "r_max")
    far = (high - low) / 4.0 if margin is None else real(margin, "margin", low=0.0)
    var, std = rows.var[known], rows.std[known]
    generator, seed = as_generator(rng) if resamples else (None, None)
    mean_var, se_var, ci_var = _interval(var, level, resamples, generator)
    grand, se_mean, ci_mean = _interval(rows.mean[scored], level, resamples, generator)
    ci_var = (max(0.0, ci_var[0]), ci_var[1]) if not math.isnan(ci_var[0]) else ci_var
    counts = rows.count
    shares = _shares(rows, known, bounds, (low, high, best - far))
    fields: dict[str, Any] = {
        "n_prompts": len(rewards),
        "n_undefined": int((~known).sum()),
        "k_min": float(counts.min()),
        "k_median": float(np.median(counts)),
        "k_max": float(counts.max()),
        "grand_mean": grand,
        "se_grand_mean": se_mean,
        "mean_var": mean_var,
        "se_mean_var": se_var,
        "rms_std": math.sqrt(mean_var) if mean_var >= 0 else math.nan,
        "mean_std": float(std.mean()) if len(std) else math.nan,
        "ci_grand_mean": ci_mean,
        "ci_mean_var": ci_var,
        "ci_rms_std": tuple(math.sqrt(end) if end >= 0 else math.nan for end in ci_var),
        "std_quantiles": _quantiles(std),
        "mean_quantiles": _quantiles(rows.mean[scored]),
        **shares,
        "pooled_mean": float(pooled.mean[0]),
        "pooled_std": float(pooled.std[0]),
        "msw": parts.msw,
        "msb": parts.msb,
        "icc1": parts.icc1,
        "normalised_variance": mean_var / pooled_var if pooled_var > 0 else math.nan,
        "r_min": low,
        "r_max": best,
        "margin": far,
        **_for_plots(rows, known),
        **_curve(rewards.values, counts, (low, high), sizes),
    }
    from rankdiag.rewards._summary_show import explain

    undefined = int((~known).sum())
    return RewardSummary(
        **fields,
        explanation=explain(fields),
        meta=Meta(
            definition="moments of rewards by prompt, averaged over prompts",
            ddof=1,
            n=int(known.sum()),
            seed=seed,
            skipped={f"{undefined} of {len(rewards)} prompts": "fewer than 2 scored rollouts"} if undefined else {},
            details={
                "interval": f"{level:.3g} "
                + (f"BCa, {resamples} resamples of prompts" if resamples else "t over prompts"),
                **{
                    name: value
                    for name, value in rewards.meta.items()
                    if isinstance(name, str) and isinstance(value, (str, int, float, bool))
                },
            },
        ),
    )


def _taus(taus: Any) -> tuple[float, ...]:
    if isinstance(taus, (str, bytes, Mapping)) or not isinstance(taus, (Sequence, np.ndarray)):
        raise TypeError(f"`taus` must be a sequence of standard deviations; got {describe(taus)}")
    array = as_float64(taus, "taus", ndim=1, allow_empty=True, expected="standard deviations")
    return tuple(real(tau, "taus", low=0.0) for tau in array.tolist())


def _sizes(group_sizes: Any) -> tuple[int, ...]:
    if isinstance(group_sizes, (str, bytes, Mapping)) or not isinstance(group_sizes, (Sequence, np.ndarray)):
        raise TypeError(f"`group_sizes` must be a sequence of group sizes; got {describe(group_sizes)}")
    if len(group_sizes) > _MOST_SIZES:
        raise ValueError(f"`group_sizes` must be at most {_MOST_SIZES} sizes; got {len(group_sizes)}")
    return tuple(sorted({integer(size, "group_sizes", low=1, high=_LARGEST_GROUP) for size in group_sizes}))


def _curve(
    values: Floats, count: NDArray[np.int64], ends: tuple[float, float], sizes: tuple[int, ...]
) -> dict[str, Any]:
    seen, beyond, beta = zero_std_curve(values, count, ends, sizes)
    return {"zero_std_curve": seen, "zero_std_beyond": beyond, "zero_std_beta": beta, "group_sizes": sizes}


def _interval(
    values: Floats, level: float, resamples: int, generator: np.random.Generator | None
) -> tuple[float, float, Interval]:
    """Return the mean of one number for each prompt, its standard error, and an interval."""
    n = len(values)
    if not n:
        return math.nan, math.nan, _NOTHING
    base = float(values.min())
    mean = base + float((values - base).mean())
    if n < 2:
        return mean, math.nan, _NOTHING
    # By a power of two, which changes no digit: squares and cubes of variances of large rewards stay in float64.
    unit = math.frexp(float(np.abs(values).max()))[1]
    values = np.ldexp(values, -unit)
    error = math.ldexp(float(values.std(ddof=1)) / math.sqrt(n), unit) if values.max() > values.min() else 0.0
    if resamples and error > 0:
        from scipy.stats import DegenerateDataWarning, bootstrap

        # All resamples on one side of the mean: scipy divides infinities, warns, and gives the documented NaN.
        with np.errstate(invalid="ignore", divide="ignore"), without_warnings(DegenerateDataWarning):
            found = bootstrap(
                (values,),
                np.mean,
                n_resamples=resamples,
                confidence_level=level,
                method="BCa",
                rng=generator,
                vectorized=True,
                batch=max(1, 4_000_000 // n),
            ).confidence_interval
        return mean, error, (math.ldexp(float(found.low), unit), math.ldexp(float(found.high), unit))
    from scipy.special import stdtrit

    width = float(stdtrit(n - 1, 0.5 + level / 2.0)) * error
    return mean, error, (mean - width, mean + width)


def _quantiles(values: Floats) -> dict[str, float]:
    found = np.quantile(values, _QUANTILES) if len(values) else [math.nan] * len(_QUANTILES)
    return {f"{q:g}": float(value) for q, value in zip(_QUANTILES, found, strict=True)}


def _shares(
    rows: RowMoments, known: NDArray[np.bool_], taus: tuple[float, ...], ends: tuple[float, float, float]
) -> dict[str, Any]:
    low, high, enough = ends
    std, mean = rows.std[known], rows.mean[known]
    zero = rows.min[known] == rows.max[known]
    n = len(std)

    def share(flags: Any) -> float:
        return float(np.count_nonzero(flags)) / n if n else math.nan

    return {
        "frac_zero_std": share(zero),
        "frac_all_min": share(zero & (mean == low)),
        "frac_all_max": share(zero & (mean == high)),
        "frac_low_std": {_name(tau): share(std <= tau) for tau in taus},
        "share_far_from_opt": {_name(tau): share((std <= tau) & (mean < enough)) for tau in taus},
    }


def _name(tau: float) -> str:
    """Return the shortest text that stands for this number alone."""
    return repr(tau).removesuffix(".0")


def _for_plots(rows: RowMoments, known: NDArray[np.bool_]) -> dict[str, Any]:
    std, mean = rows.std[known], rows.mean[known]
    if not len(std):
        return {}
    centres, counts = histogram(std, _BINS)
    step = max(1, math.ceil(len(std) / _POINTS))
    points = zip(mean[::step].tolist(), std[::step].tolist(), strict=True)
    return {"std_histogram": tuple(zip(centres, map(float, counts), strict=True)), "points": tuple(points)}

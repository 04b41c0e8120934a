"""Parts of the variance of a table of rewards: within prompts, between them, and within by the size of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, real
from rankdiag.rewards._moments import RowMoments, refuse_overflow, row_moments
from rankdiag.rewards._table import RewardTable, as_table

__all__ = [
    "NormalisedVariance",
    "RewardNormalizer",
    "VarianceComponents",
    "components_of",
    "normalised_reward_variance",
    "optimal_rollouts",
    "pooled_moments",
    "variance_components",
]

Floats = NDArray[np.float64]

_BLOCK = 1 << 16  # rewards of a block
_PUBLISHED_EPSILON = 1e-8  # in the scale of the published recipe, whose rewards it must reproduce


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VarianceComponents(Result):
    """One-way analysis of variance of rewards, prompts being the groups.

    Attributes
    ----------
    ssw, ssb : float
        Sums of squares within prompts and between them.
    msw, msb : float
        The same by their degrees of freedom, n - N and N - 1.
    k0 : float
        Rollouts of a prompt; the effective number where prompts have different ones.
    icc1 : float
        (msb - msw) / (msb + (k0 - 1) msw). Near 1 rewards differ between prompts, and the policy gradient of most
        prompts vanishes. NaN for one prompt, or if all rewards are equal.

    Examples
    --------
    >>> from rankdiag.rewards import variance_components
    >>> round(variance_components([[0.0, 1.0], [1.0, 2.0]]).icc1, 6)
    0.333333
    """

    tag: ClassVar[str] = "rewards.VarianceComponents"

    ssw: float
    ssb: float
    msw: float
    msb: float
    k0: float
    icc1: float


def variance_components(table: Any) -> VarianceComponents:
    """Split the variance of rewards into that within prompts and that between them.

    Parameters
    ----------
    table : RewardTable or array-like, shape (N, k)
        Rewards; NaN is left out, prompts without a reward too.

    Returns
    -------
    VarianceComponents
        Sums and means of squares, and the intraclass correlation.

    Raises
    ------
    TypeError
        If `table` holds no numbers.
    ValueError
        If there is no reward at all, or squares are beyond float64.

    Notes
    -----
    One-way random effects. Time O(N k).

    Examples
    --------
    >>> from rankdiag.rewards import variance_components
    >>> parts = variance_components([[0, 1, 1, 0], [1, 1, 1, 1]])
    >>> parts.ssw, parts.ssb, round(parts.msw, 6)
    (1.0, 0.5, 0.166667)
    """
    rewards = as_table(table).values
    return components_of(row_moments(rewards))


def components_of(rows: RowMoments) -> VarianceComponents:
    """Return the components from the moments of each prompt."""
    use = rows.count > 0
    k, mean = rows.count[use].astype(np.float64), rows.mean[use]
    if not len(k):
        raise ValueError("`table` must hold at least one reward; all are NaN")
    refuse_overflow(rows, "table")
    var = np.where(rows.count[use] > 1, rows.var[use], 0.0)
    n, prompts = float(k.sum()), len(k)
    with np.errstate(over="ignore", invalid="ignore"):
        base = mean.min()
        centre = base + float((k * (mean - base)).sum()) / n
        ssw, ssb = float(((k - 1.0) * var).sum()), float((k * (mean - centre) ** 2).sum())
    if not math.isfinite(ssw + ssb):
        raise ValueError("`table` must have differences whose squares float64 can hold; scale the rewards down")
    msw = ssw / (n - prompts) if n > prompts else math.nan
    msb = ssb / (prompts - 1) if prompts > 1 else math.nan
    k0 = (n - float((k**2).sum()) / n) / (prompts - 1) if prompts > 1 else n
    bottom = msb + (k0 - 1.0) * msw
    icc = (msb - msw) / bottom if bottom > 0 else math.nan
    return VarianceComponents(
        ssw=ssw,
        ssb=ssb,
        msw=msw,
        msb=msb,
        k0=k0,
        icc1=icc,
        explanation=_share(icc, prompts, n),
        meta=Meta(definition="one-way random effects of rewards by prompt", n=int(n), details={"prompts": prompts}),
    )


def _share(icc: float, prompts: int, n: float) -> str:
    if math.isfinite(icc):
        return (
            f"By the intraclass correlation {max(0.0, icc):.0%} of the variance is between prompts; what is within "
            "prompts moves the policy."
        )
    if prompts < 2:
        return "One prompt cannot tell variance within prompts from variance between them."
    if n <= prompts:
        return "No prompt has 2 scored rollouts: nothing can be said of variance within prompts."
    return "There is no variance, within prompts or between them."


def pooled_moments(table: RewardTable) -> RowMoments:
    """Return the moments of all rewards of a table as one row, in two passes over blocks of them."""
    flat = table.values.reshape(-1)
    blocks = [flat[first : first + _BLOCK] for first in range(0, len(flat), _BLOCK)]
    parts = [row_moments(block[None]) for block in blocks]
    count = np.array([part.count[0] for part in parts])
    n = int(count.sum())
    low = float(np.min([part.min[0] for part in parts], initial=np.inf, where=count > 0))
    high = float(np.max([part.max[0] for part in parts], initial=-np.inf, where=count > 0))
    if not low < high:  # nothing, or equal rewards
        mean, var = (low if n else math.nan), (0.0 if n > 1 else math.nan)
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            offset = math.fsum(float(np.nansum(block - low)) / n for block in blocks)
            square = sum(float(np.nansum((block - low - offset) ** 2)) for block in blocks)
        mean, var = min(low + offset, high), square / (n - 1)
    ends = (low, high) if n else (math.nan, math.nan)
    row = [np.array([entry]) for entry in (mean, var, math.sqrt(var) if var >= 0 else math.nan, *ends)]
    return refuse_overflow(RowMoments(np.array([n]), *row), "table")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalisedVariance(Result):
    """Variance of the rewards of each prompt after the whole table was brought to one scale.

    Attributes
    ----------
    mean : float
        Over prompts; also ``float(result)``. With the default scheme the figure that predicts how fast a reward model
        teaches.
    per_prompt : ndarray of float64, shape (N,)
        NaN where a prompt has fewer than 2 rewards.
    min, q25, median, q75, max : float
        Of `per_prompt`. Look at them: scaling half of the prompts by 0.001 leaves the mean far from 0.
    scheme : str
        What the rewards were divided by.

    Examples
    --------
    >>> from rankdiag.rewards import normalised_reward_variance
    >>> round(float(normalised_reward_variance([[0, 1, 1, 0], [1, 1, 1, 1]])), 6)
    0.777778
    """

    tag: ClassVar[str] = "rewards.NormalisedVariance"

    mean: float
    per_prompt: NDArray[np.float64]
    min: float
    q25: float
    median: float
    q75: float
    max: float
    scheme: str

    def __float__(self) -> float:
        return self.mean


def normalised_reward_variance(table: Any, *, scheme: str = "pooled_std") -> NormalisedVariance:
    """Measure the variance within prompts on the scale of the whole table.

    Parameters
    ----------
    table : RewardTable or array-like, shape (N, k)
        Rewards.
    scheme : {"pooled_std", "mean_within", "none"}
        Divide by the standard deviation of all rewards (ddof=1), by the root of the mean variance within prompts (the
        mean is then 1 by construction), or by nothing.

    Returns
    -------
    NormalisedVariance
        Mean and quantiles over prompts.

    Raises
    ------
    TypeError
        If `table` holds no numbers.
    ValueError
        If no prompt has 2 rewards, all rewards are equal, or the scheme is unknown.

    Notes
    -----
    With ``"pooled_std"`` it is the mean square within over the mean square in all, does not depend on shift and scale,
    and tends to 1 - ICC for many prompts (derived here).

    References
    ----------
    Razin et al., arXiv 2503.15477, Appendix F (pooled) and E.1 (within).

    Examples
    --------
    >>> from rankdiag.rewards import normalised_reward_variance
    >>> normalised_reward_variance([[0.0, 2.0], [5.0, 7.0]], scheme="mean_within").per_prompt.tolist()
    [1.0, 1.0]
    """
    how = choice(scheme, "scheme", ("pooled_std", "mean_within", "none"))
    rewards = as_table(table)
    rows = refuse_overflow(row_moments(rewards.values), "table")
    return normalised_of(rows, float(pooled_moments(rewards).var[0]), how)


def normalised_of(rows: RowMoments, pooled_var: float, scheme: str) -> NormalisedVariance:
    """Return the normalised variance from the moments of each prompt and the variance of all rewards."""
    known = rows.var[np.isfinite(rows.var)]
    if not len(known):
        raise ValueError("`table` must have a prompt with at least 2 rewards; draw at least 2 rollouts")
    within = float(known.mean())
    unit = {"pooled_std": pooled_var, "mean_within": within, "none": 1.0}[scheme]
    if not unit > 0:
        what = "all rewards identical" if scheme == "pooled_std" else "no prompt has any spread"
        if (rows.min < rows.max).any():
            what = "squares of the differences are too small for float64"
        raise ValueError(f"`table`: {what}, so there is no scale to normalise by")
    per_prompt = rows.var / unit
    per_prompt.flags.writeable = False
    low, q25, median, q75, high = (float(q) for q in np.quantile(known / unit, (0, 0.25, 0.5, 0.75, 1)))
    return NormalisedVariance(
        mean=within / unit,
        per_prompt=per_prompt,
        min=low,
        q25=q25,
        median=median,
        q75=q75,
        max=high,
        scheme=scheme,
        explanation=(
            f"Within a prompt rewards vary {within / unit:.3g} times as much as the scale of all rewards. Compare "
            "reward models on the same policy and rollouts only."
        ),
        meta=Meta(definition=f"mean over prompts of var(ddof=1), divided by {scheme}^2", ddof=1, n=len(known)),
    )


@dataclass(frozen=True, slots=True)
class RewardNormalizer:
    """A shift and a scale for rewards, fitted once on rollouts of the initial policy and kept.

    Parameters
    ----------
    shift : float
        Added to a reward.
    scale : float
        Multiplied with the sum.

    Examples
    --------
    >>> from rankdiag.rewards import RewardNormalizer
    >>> RewardNormalizer.fit([[0.0, 2.0], [0.0, 2.0]]).transform([1.0]).tolist()
    [0.0]
    """

    shift: float
    scale: float

    def __post_init__(self) -> None:
        real(self.shift, "shift")
        real(self.scale, "scale", low=0.0, low_open=True)

    @classmethod
    def fit(cls, table: Any) -> RewardNormalizer:
        """Fit to the mean and the variance (ddof=1) of all rewards of a table.

        Parameters
        ----------
        table : RewardTable or array-like, shape (N, k)
            Rewards; 500 prompts of 10 rollouts of the initial policy in the published recipe.

        Returns
        -------
        RewardNormalizer
            shift = -mean, scale = 1 / sqrt(var + 1e-8); the constant is the recipe's.

        Raises
        ------
        TypeError
            If `table` holds no numbers.
        ValueError
            If there are fewer than 2 rewards, or all are equal.

        References
        ----------
        arXiv 2503.15477, Appendix F.
        """
        pooled = pooled_moments(as_table(table))
        if pooled.count[0] < 2:
            raise ValueError(f"`table` must hold at least 2 rewards; got {int(pooled.count[0])}")
        if pooled.min[0] == pooled.max[0]:
            raise ValueError("`table`: all rewards identical, so there is no scale to normalise by")
        return cls(0.0 - float(pooled.mean[0]), 1.0 / math.sqrt(float(pooled.var[0]) + _PUBLISHED_EPSILON))

    def transform(self, rewards: Any) -> NDArray[np.float64]:
        """Return (r + shift) * scale.

        Parameters
        ----------
        rewards : array-like or torch.Tensor
            Rewards, of any shape; NaN stays NaN.

        Returns
        -------
        ndarray of float64
            Of the same shape.

        Raises
        ------
        TypeError
            If `rewards` holds no numbers.
        ValueError
            If a reward is infinite, or what comes out is beyond float64.
        """
        array = as_float64(rewards, "rewards", finite=False, allow_empty=True, expected="rewards")
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            found = np.asarray((array + self.shift) * self.scale, dtype=np.float64)
        if np.isinf(found).any() or np.isinf(array).any():
            raise ValueError("`rewards` must be finite, or NaN where unscorable, before and after the scale; got +-inf")
        return found


def optimal_rollouts(pilot: Any) -> float:
    """Return how many rollouts a prompt should get, for a fixed number in all, to measure the mean variance best.

    Parameters
    ----------
    pilot : RewardTable or array-like, shape (N, k)
        Rewards of a small run, at least 2 prompts with at least 3 rollouts.

    Returns
    -------
    float
        1 + sqrt(2 E sigma^4 / Var sigma^2) over prompts, at least 2; infinite where the pilot shows no difference of
        variances between prompts beyond its own noise.

    Raises
    ------
    TypeError
        If `pilot` holds no numbers.
    ValueError
        If fewer than 2 prompts have 3 rewards, no prompt has any spread, or squares are beyond float64.

    Notes
    -----
    Derived here for rewards of normal kurtosis; for sparse binary rewards 3 or 4 are best as a rule. The moments of
    sigma^2 are freed of the noise of the estimates: s^4 (n - 1) / (n + 1) for sigma^4, Var(s^2) less its mean noise.

    Examples
    --------
    >>> from rankdiag.rewards import optimal_rollouts
    >>> optimal_rollouts([[0.0, 1.0, 0.0], [0.0, 30.0, 1.0], [0.0, 0.0, 0.0]]) >= 2
    True
    """
    rows = refuse_overflow(row_moments(as_table(pilot, "pilot").values), "pilot")
    use = rows.count >= 3
    if int(use.sum()) < 2:
        raise ValueError("`pilot` must have at least 2 prompts with 3 rewards each")
    n, s2 = rows.count[use].astype(np.float64), rows.var[use]
    unit = float(s2.max())
    if not unit > 0:
        raise ValueError("`pilot` must have a prompt whose rewards differ; all have no spread")
    s2 = s2 / unit
    fourth = s2**2 * (n - 1.0) / (n + 1.0)
    between = float(s2.var(ddof=1)) - float((2.0 * fourth / (n - 1.0)).mean())
    if between <= 0:
        return math.inf
    return max(2.0, 1.0 + math.sqrt(2.0 * float(fourth.mean()) / between))

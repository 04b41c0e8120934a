"""How many prompts have rewards without spread: at other group sizes, in truth, and for certain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, integer, real
from rankdiag.rewards._std_bounds import (
    at_ends,
    check_range,
    finite_moments,
    require_inside,
    reward_rows,
    row_bounds,
)
from rankdiag.rewards._table import RewardTable, as_table

__all__ = [
    "LowStdFraction",
    "beta_binomial_zero_std",
    "fit_beta",
    "level_counts",
    "low_std_fraction",
    "subset_shares",
    "zero_std_at_k",
    "zero_std_probability",
]

Floats = NDArray[np.float64]

_METHODS = ("plugin", "beta_binomial", "certified")
_LARGEST_GROUP = 10**7
_BLOCK = 1 << 16
_LOGIT = 35.0  # bounds of the fit: logit of the mean, and logarithm of a + b
_LOG_TOTAL = (-14.0, 16.0)


def zero_std_at_k(values: Any, k: int) -> Any:
    """Estimate how often k fresh rollouts of a prompt would all have one reward.

    Parameters
    ----------
    values : RewardTable or array-like or torch.Tensor, shape (n,) or (N, n)
        Rewards of one prompt, or of N; NaN is an unscorable rollout and is dropped.
    k : int
        Group size, at most the number of scored rollouts of every prompt.

    Returns
    -------
    float or ndarray of float64, shape (N,)
        Share of the k-subsets of the rollouts of a prompt whose rewards are all equal; a float for one prompt.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `k` is below 1 or exceeds the scored rollouts of a prompt, or a reward is infinite.

    Notes
    -----
    Sum over rewards v of C(n_v, k) / C(n, k), n_v the rollouts with reward v: unbiased for independent rollouts
    (derived here, in the way of pass@k). 1 at k = 1, never rises with k, and at k = n it says what was seen. Its mean
    over prompts predicts the `frac_reward_zero_std` that a trainer logs at group size k. Time O(N n log n).

    Examples
    --------
    >>> from rankdiag.rewards import zero_std_at_k
    >>> [round(zero_std_at_k([1, 1, 1, 0, 0], k), 6) for k in (1, 2, 3, 4)]
    [1.0, 0.4, 0.1, 0.0]
    """
    size = integer(k, "k", low=1)
    rows, single = reward_rows(values, "values")
    count = (~np.isnan(rows)).sum(axis=1)
    short = count < size
    if short.any():
        place = int(short.argmax())
        name = values.prompt_ids[place] if isinstance(values, RewardTable) else str(place)
        which = "" if single else f" of prompt {name}"
        raise ValueError(f"`k` = {size} exceeds the {int(count[place])} valid rollouts{which}; draw more, or lower `k`")
    found = np.ones(len(rows)) if size == 1 else np.minimum(_equal_subsets(rows, count, size), 1.0)
    return float(found[0]) if single else found


def _equal_subsets(rows: Floats, count: NDArray[np.int64], size: int) -> Floats:
    level, row = level_counts(rows, count)
    enough = level >= size
    return subset_shares(level[enough], row[enough], count, size, rows.shape[1])


def level_counts(rows: Floats, count: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many rollouts of a row have one reward, for each distinct reward of each row, and its row."""
    ordered = np.sort(rows, axis=1)  # NaN last
    first = np.ones(rows.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first &= ~np.isnan(ordered)
    starts = np.flatnonzero(first)
    row = starts // rows.shape[1]
    ends = np.minimum(np.append(starts[1:], rows.size), row * rows.shape[1] + count[row])
    return ends - starts, row


def subset_shares(
    level: NDArray[np.int64], row: NDArray[np.int64], count: NDArray[np.int64], size: int, width: int
) -> Floats:
    """Return for each row the share of its subsets of this size that lie within one of the levels, all >= size."""
    from scipy.special import gammaln

    log = gammaln(np.arange(1.0, width + 2.0))  # ln n! at n
    share = np.exp((log[level] - log[level - size]) - (log[count[row]] - log[count[row] - size]))
    return np.bincount(row, weights=share, minlength=len(count)).astype(np.float64)


def zero_std_probability(p: Any, k: int) -> Any:
    """Return how often k rollouts of a two-valued reward all have the same one.

    Parameters
    ----------
    p : float or array-like
        Probability of one of the two rewards, in [0, 1].
    k : int
        Group size, at least 1.

    Returns
    -------
    float or ndarray of float64
        p^k + (1 - p)^k, in the shape of `p`.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a probability is outside [0, 1], or `k` below 1.

    Examples
    --------
    >>> from rankdiag.rewards import zero_std_probability
    >>> zero_std_probability(0.5, 4)
    0.125
    """
    size = integer(k, "k", low=1)
    array = as_float64(p, "p", allow_empty=True, expected="probabilities")
    if ((array < 0) | (array > 1)).any():
        raise ValueError(f"`p` must be in [0, 1]; got {float(array[(array < 0) | (array > 1)][0]):g}")
    with np.errstate(under="ignore"):  # a probability below float64 is 0
        found = np.minimum(array**size + (1.0 - array) ** size, 1.0)
    return float(found) if found.ndim == 0 else found


def beta_binomial_zero_std(a: float, b: float, k: int) -> float:
    """Return how often k rollouts of a two-valued reward agree, over prompts whose success rates follow Beta(a, b).

    Parameters
    ----------
    a, b : float
        Parameters of the Beta distribution, > 0; `low_std_fraction` with method "beta_binomial" fits them.
    k : int
        Group size, from 1 to 10 million.

    Returns
    -------
    float
        [B(a + k, b) + B(a, b + k)] / B(a, b).

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If it is out of its bounds.

    Notes
    -----
    Model-based: with it the share of prompts without a signal is extrapolated to groups larger than those seen, where
    `zero_std_at_k` has nothing to say. a = b = 1 gives 2 / (k + 1). Time O(k).

    Examples
    --------
    >>> from rankdiag.rewards import beta_binomial_zero_std
    >>> round(beta_binomial_zero_std(1.0, 1.0, 9), 6), round(beta_binomial_zero_std(0.3, 0.6, 8), 3)
    (0.2, 0.483)
    """
    first, second = real(a, "a", low=0.0, low_open=True), real(b, "b", low=0.0, low_open=True)
    size = integer(k, "k", low=1, high=_LARGEST_GROUP)
    return 1.0 if size == 1 else min(1.0, _all_of(first, second, size) + _all_of(second, first, size))


def _all_of(a: float, b: float, k: int) -> float:
    """Return the product of (a + j) / (a + b + j) over j < k."""
    total = 0.0
    with np.errstate(over="ignore", under="ignore"):  # b / a may leave float64: the factor is 0 or 1 then
        for start in range(0, k, _BLOCK):
            j = np.arange(start, min(k, start + _BLOCK), dtype=np.float64)
            total -= float(np.log1p(b / (a + j)).sum())
    return math.exp(total)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowStdFraction(Result):
    """Share of prompts whose reward has a standard deviation of at most tau.

    Attributes
    ----------
    estimate : float
        The share; NaN for "certified", which only bounds it.
    certain_low, undecided, certain_high : float
        Shares of prompts with the upper bound at most tau, with neither, and with the lower bound above tau; they add
        up to 1. NaN for the other methods.
    beta_params : tuple of float or None
        (a, b) of the fitted Beta distribution of the probability of the higher reward; None for the other methods.
    method : {"plugin", "beta_binomial", "certified"}
        How the share was found.

    Examples
    --------
    >>> from rankdiag.rewards import low_std_fraction
    >>> low_std_fraction([[0, 0, 0], [0, 1, 0]], 0.1).estimate
    0.5
    """

    tag: ClassVar[str] = "rewards.LowStdFraction"

    estimate: float
    certain_low: float
    undecided: float
    certain_high: float
    beta_params: tuple[float, float] | None
    method: str

    def document(self) -> Document:
        """Return the share, or what is certain about it.

        Returns
        -------
        Document
            What is NaN is left out.
        """
        numbers: list[tuple[str, float, str]] = [
            ("share of low std", self.estimate, f"By {self.method}."),
            ("certainly low", self.certain_low, "Each prompt at its own error probability."),
            ("undecided", self.undecided, "These rollouts cannot tell; draw more."),
            ("certainly high", self.certain_high, "Each prompt at its own error probability."),
        ]
        if self.beta_params is not None:
            a, b = self.beta_params
            numbers += [("a", a, "Of the fitted Beta distribution."), ("b", b, "Of the fitted Beta distribution.")]
        return Document(
            title="Prompts with a low standard deviation",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(
                KeyNumber(label=label, value=value, doc=doc) for label, value, doc in numbers if not math.isnan(value)
            ),
            notes=self.notes(),
        )


def low_std_fraction(
    table: Any,
    tau: float,
    *,
    method: Literal["plugin", "beta_binomial", "certified"] = "plugin",
    reward_range: tuple[float, float] | None = None,
    delta: float = 0.05,
) -> LowStdFraction:
    """Estimate or bound the share of prompts whose reward has a standard deviation of at most tau.

    Parameters
    ----------
    table : RewardTable or array-like, shape (N, k)
        Rewards; prompts with fewer than two scored rollouts are left out.
    tau : float
        Threshold, in reward units, >= 0.
    method : {"plugin", "beta_binomial", "certified"}
        See Notes.
    reward_range : tuple of float, optional
        Ends (lo, hi) of all possible rewards. "certified" needs it; "beta_binomial" takes the two rewards of the table
        without it.
    delta : float
        Error probability of each bound of each prompt, in (0, 1); for "certified".

    Returns
    -------
    LowStdFraction
        Shares over the prompts with at least two scored rollouts.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If no prompt has two scored rollouts, the range is missing or does not contain the rewards, there are more than
        two rewards for "beta_binomial", or an option is not in its list.

    Notes
    -----
    * "plugin" counts sample standard deviations of at most tau. With binary rewards and few rollouts it is far too
      high: for success rates of Beta(.3, .6) and tau = .05 it expects .618, .483, .378, .235 at 4, 8, 16, 64 rollouts,
      where the truth is .144.
    * "beta_binomial", two-valued rewards only: fits Beta(a, b) to the success counts by maximum likelihood and returns
      P(sqrt(p(1-p)) (hi - lo) <= tau) under it. As good as the model; 0 at tau = 0, for it is continuous. Where the
      likelihood has no maximum (all prompts pure, or no spread between prompts) the fit ends at the edge of its bounds
      and says so.
    * "certified" bounds each prompt by itself with `std_interval`, sides "one": "binary_exact" where every reward is an
      end of the range, else "maurer_pontil". `certain_low` is a low estimate.

    Time O(N k).

    Examples
    --------
    >>> from rankdiag.rewards import low_std_fraction
    >>> rewards = [[0] * 400, [0, 1] * 200, [0] * 399 + [1]]
    >>> found = low_std_fraction(rewards, 0.1, method="certified", reward_range=(0, 1))
    >>> [round(share, 3) for share in (found.certain_low, found.undecided, found.certain_high)]
    [0.333, 0.333, 0.333]
    """
    values = as_table(table).values
    threshold = real(tau, "tau", low=0.0)
    chosen = str(choice(method, "method", cast("tuple[Any, ...]", _METHODS)))
    error = real(delta, "delta", low=0.0, high=1.0, low_open=True, high_open=True)
    span = None if reward_range is None else check_range(reward_range)
    if span is not None:
        require_inside(values, span, "table")
    use = (~np.isnan(values)).sum(axis=1) >= 2
    rows, left_out = values[use], int((~use).sum())
    if not len(rows):
        raise ValueError("`table` must have a prompt with at least 2 valid rollouts; draw at least 2 for each")
    if chosen == "plugin":
        return _plugin(rows, threshold, left_out)
    if chosen == "beta_binomial":
        return _beta_binomial(rows, threshold, span, left_out)
    if span is None:
        raise ValueError("`reward_range` is required by 'certified': pass the ends of all possible rewards; got None")
    return _certified(rows, threshold, span, error, left_out)


def _result(
    method: str, tau: float, n: int, left_out: int, explanation: str, details: dict[str, Any], **fields: Any
) -> LowStdFraction:
    blank = dict.fromkeys(("estimate", "certain_low", "undecided", "certain_high"), math.nan)
    return LowStdFraction(
        **{**blank, "beta_params": None, **fields},
        method=method,
        explanation=explanation,
        meta=Meta(
            definition="share of prompts whose reward has a standard deviation of at most tau",
            ddof=None if method == "beta_binomial" else 1,
            n=n,
            skipped={"prompts": f"{left_out} with fewer than 2 valid rollouts"} if left_out else {},
            details={"tau": tau, **details},
        ),
    )


def _plugin(rows: Floats, tau: float, left_out: int) -> LowStdFraction:
    share = float((finite_moments(rows, "table").std <= tau).mean())
    text = (
        f"{share:.1%} of {len(rows)} prompts have a sample standard deviation of at most {tau:.4g}. Few rollouts hide "
        "rare rewards: the share of prompts that truly are so flat is lower where rewards are sparse."
    )
    return _result("plugin", tau, len(rows), left_out, text, {}, estimate=share)


def _certified(rows: Floats, tau: float, span: tuple[float, float], delta: float, left_out: int) -> LowStdFraction:
    method: Literal["binary_exact", "maurer_pontil"] = "binary_exact" if at_ends(rows, span) else "maurer_pontil"
    found = row_bounds(rows, method=method, reward_range=span, delta=delta, two=False, name="table")
    low = found.upper <= tau
    high = ~low & (found.lower > tau)
    counts = int(low.sum()), int((~low & ~high).sum()), int(high.sum())
    certain_low, undecided, certain_high = (count / len(rows) for count in counts)
    text = (
        f"Of {len(rows)} prompts {certain_low:.1%} certainly have a standard deviation of at most {tau:.4g}, "
        f"{certain_high:.1%} certainly a larger one, and {undecided:.1%} are undecided, each at {1 - delta:.4g}."
    )
    details = {"interval": method, "delta": delta, "reward range": f"{span[0]:g} to {span[1]:g}"}
    shares = {"certain_low": certain_low, "undecided": undecided, "certain_high": certain_high}
    return _result("certified", tau, len(rows), left_out, text, details, **shares)


def _beta_binomial(rows: Floats, tau: float, span: tuple[float, float] | None, left_out: int) -> LowStdFraction:
    from scipy.special import betainc

    low, high = span or (float(np.nanmin(rows)), float(np.nanmax(rows)))
    if low == high:
        raise ValueError(f"`reward_range` is required where all rewards are equal; they are {low:g}, pass (lo, hi)")
    if not at_ends(rows, (low, high)):
        raise ValueError(
            f"`method` 'beta_binomial' needs two-valued rewards, {low:g} and {high:g} here; `table` has others. Use "
            "'plugin' or 'certified'"
        )
    count = (~np.isnan(rows)).sum(axis=1)
    a, b, edge = fit_beta((rows == high).sum(axis=1), count)
    share = min(tau / (high - low), 0.5)
    q = 2.0 * share**2 / (1.0 + math.sqrt(max(0.0, 1.0 - 4.0 * share**2)))  # smaller root of q (1 - q) = share^2
    estimate = min(1.0, float(betainc(a, b, q) + betainc(b, a, q)))
    text = (
        f"Under a Beta({a:.4g}, {b:.4g}) distribution of success rates, fitted to {len(rows)} prompts, {estimate:.1%} "
        f"of the prompts have a standard deviation of at most {tau:.4g}. Model-based.{edge}"
    )
    details = {"rewards": f"{low:g} or {high:g}"}
    return _result(
        "beta_binomial", tau, len(rows), left_out, text, details, estimate=estimate, beta_params=(a, b)
    )  # fmt: skip


def fit_beta(successes: NDArray[np.int64], count: NDArray[np.int64]) -> tuple[float, float, str]:
    """Fit Beta(a, b) to success counts by maximum likelihood; a sentence if the fit is at the edge of its bounds."""
    from scipy.optimize import minimize
    from scipy.special import expit

    top = int(count.max())
    # ln of the likelihood is the sum over j of won_j ln(a+j) + lost_j ln(b+j) - all_j ln(a+b+j): exact at any a + b
    won, lost, every = (_above(part, top) / len(count) for part in (successes, count - successes, count))
    j = np.arange(top, dtype=np.float64)

    def loss(x: Floats) -> tuple[float, Floats]:
        total, share, rest = math.exp(x[1]), float(expit(x[0])), float(expit(-x[0]))
        a, b = total * share, total * rest
        value = won @ np.log(a + j) + lost @ np.log(b + j) - every @ np.log(total + j)
        by_a, by_b, by_total = won @ (1 / (a + j)), lost @ (1 / (b + j)), every @ (1 / (total + j))
        slope = np.array([total * share * rest * (by_a - by_b), a * by_a + b * by_b - total * by_total])
        return -float(value), -slope

    mean = (successes.sum() + 0.5) / (count.sum() + 1.0)
    start = np.array([math.log(mean / (1.0 - mean)), 0.0])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(-_LOGIT, _LOGIT), _LOG_TOTAL],
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )  # fmt: skip
    logit, log_total = float(found.x[0]), float(found.x[1])
    edge = ""
    if ((successes == 0) | (successes == count)).all():
        edge = " The likelihood has no maximum: no prompt has both rewards."
    elif log_total > _LOG_TOTAL[1] - 0.1:
        edge = " The likelihood has no maximum: success rates do not differ between prompts."
    total = math.exp(log_total)
    return total * float(expit(logit)), total * float(expit(-logit)), edge


def _above(values: NDArray[np.int64], top: int) -> Floats:
    """Return for each j < top how many values exceed j."""
    return np.asarray(len(values) - np.cumsum(np.bincount(values, minlength=top + 1))[:top], dtype=np.float64)

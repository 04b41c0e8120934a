"""Mean, variance and standard deviation of rewards: of the rollouts of a prompt, and of an exact policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import integer
from rankdiag.rewards._exact import as_probs
from rankdiag.rewards._table import RewardTable

__all__ = [
    "ExactMoments",
    "RewardMoments",
    "RowMoments",
    "c4_factor",
    "exact_reward_moments",
    "refuse_overflow",
    "reward_moments",
    "reward_std",
    "reward_variance",
    "row_moments",
]

Floats = NDArray[np.float64]

_BLOCK = 1 << 16  # entries of a block of rows
_SHOWN = 20
_SMALLEST = 1e-290  # variances below may have lost digits to underflow
_LEAST = 5e-324
_SERIES_FROM = 300  # Stirling's series of Gamma(x + 1/2) / Gamma(x) is exact to rounding; logarithms of Gamma are not


@dataclass(frozen=True, slots=True)
class RowMoments:
    """Moments over the last axis, NaN left out."""

    count: NDArray[np.int64]
    mean: Floats
    var: Floats
    std: Floats
    min: Floats
    max: Floats


def row_moments(values: Floats, *, ddof: int = 1) -> RowMoments:
    """Return the moments of each row of an array of rewards, in two passes over blocks of rows.

    Rows without a valid entry have NaN in mean, min and max; rows with no more than `ddof` NaN in var and std; rows
    whose rewards are all equal a variance of exactly 0. The standard deviation is 0 for those alone: where the
    variance is too small for float64 it is taken on the scale of the row.
    """
    flat = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    rows, k = flat.shape
    found = np.empty((5, rows))
    count = np.empty(rows, dtype=np.int64)
    step = max(1, _BLOCK // max(1, k))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for first in range(0, rows, step):
            part = flat[first : first + step]
            _block(part, ddof, count[first : first + step], found[:, first : first + step])
    shape = values.shape[:-1]
    mean, var, std, low, high = (entry.reshape(shape) for entry in found)
    return RowMoments(count.reshape(shape), mean, var, std, low, high)


def _block(part: Floats, ddof: int, count: NDArray[np.int64], out: Floats) -> None:
    valid = ~np.isnan(part)
    whole = bool(valid.all())
    n = np.full(len(part), part.shape[1]) if whole else valid.sum(axis=1)
    count[:] = n
    empty = n == 0
    low = part.min(axis=1, initial=np.inf, where=True if whole else valid)
    high = part.max(axis=1, initial=-np.inf, where=True if whole else valid)
    # Around a reward of the row: differences of large equal numbers are exact, and sums of large ones do not overflow.
    shift = np.where(empty, 0.0, low)
    gap = part - shift[:, None]
    if not whole:
        gap[~valid] = 0.0
    size = np.where(n > 0, n, 1)
    offset = gap.sum(axis=1) / size
    gap -= offset[:, None]
    if not whole:
        gap[~valid] = 0.0
    var = np.einsum("nk,nk->n", gap, gap) / np.where(n > ddof, n - ddof, 1)  # exactly 0 for equal rewards: gaps are
    std = np.sqrt(var)
    tiny = (var < _SMALLEST) & (low < high)
    if tiny.any():
        std[tiny] = _scaled_std(gap[tiny], n[tiny], ddof)
    var[n <= ddof] = std[n <= ddof] = np.nan
    out[0] = np.minimum(shift + offset, high)
    out[1] = var
    out[2] = std
    out[3], out[4] = low, high
    out[0][empty] = out[3][empty] = out[4][empty] = np.nan


def _scaled_std(gap: Floats, n: NDArray[np.int64], ddof: int) -> Floats:
    """Return standard deviations of deviations whose squares are below float64, at least its smallest number."""
    part = np.ldexp(gap, 600)
    wide = np.sqrt(np.einsum("nk,nk->n", part, part) / np.where(n > ddof, n - ddof, 1))
    return np.asarray(np.maximum(np.ldexp(wide, -600), _LEAST), dtype=np.float64)


def refuse_overflow(rows: RowMoments, name: str, *, ddof: int = 1) -> RowMoments:
    """Return moments as they are, unless a mean or a variance is beyond float64.

    Raises
    ------
    ValueError
        If one is; the message names the argument.
    """
    beyond = ((rows.count > 0) & ~np.isfinite(rows.mean)) | ((rows.count > ddof) & ~np.isfinite(rows.var))
    if beyond.any():
        raise ValueError(
            f"`{name}` must have differences whose squares float64 can hold; those of row {int(np.argmax(beyond))} are "
            "larger: scale the rewards down"
        )
    return rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RewardMoments(Result):
    """Moments of the rewards of each prompt.

    Attributes
    ----------
    count : ndarray of int64
        Scored rollouts.
    mean, var, std, min, max : ndarray of float64
        Over the scored rollouts. ``var`` has the ddof of ``meta`` (1: unbiased); NaN where there are not more rollouts
        than that; exactly 0 where all rewards are equal. ``std`` is its root, biased low.
    n_distinct : ndarray of int64
        Different rewards.

    Examples
    --------
    >>> from rankdiag.rewards import reward_moments
    >>> reward_moments([[0, 1, 1, 0], [1, 1, 1, 1]]).var.round(6).tolist()
    [0.333333, 0.0]
    """

    tag: ClassVar[str] = "rewards.RewardMoments"

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    n_distinct: NDArray[np.int64]

    def document(self) -> Document:
        """Return what these moments show: the first prompts, and how many have no spread."""
        names = ("count", "mean", "var", "std", "min", "max", "n_distinct")
        flat = {name: np.atleast_1d(getattr(self, name)).ravel() for name in names}
        defined = np.isfinite(flat["var"])
        equal = defined & (flat["min"] == flat["max"])
        rows = tuple(
            (index, *(_cell(flat[name][index]) for name in names)) for index in range(min(_SHOWN, len(flat["count"])))
        )
        return Document(
            title=f"Rewards of {len(flat['count'])} prompts",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="prompts", value=len(flat["count"])),
                KeyNumber(label="without a variance", value=int((~defined).sum()), doc="Too few scored rollouts."),
                KeyNumber(label="of equal rewards", value=int(equal.sum())),
            ),
            grids=(
                Grid(
                    title="First prompts",
                    columns=(Column(name="prompt"), *(Column(name=name) for name in names)),
                    rows=rows,
                ),
            ),
            notes=self.notes(),
        )


def _cell(value: Any) -> int | float | None:
    if isinstance(value, np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else None


def reward_moments(values: Any, *, ddof: int = 1) -> RewardMoments:
    """Mean, variance and standard deviation of the rewards of each prompt.

    Parameters
    ----------
    values : RewardTable or array-like or torch.Tensor, shape (..., k)
        Rewards of k rollouts along the last axis; NaN for one that cannot be scored, which is left out.
    ddof : int
        1 divides by n - 1 (unbiased), 0 by n.

    Returns
    -------
    RewardMoments
        Arrays of shape (...).

    Raises
    ------
    TypeError
        If `values` holds no numbers.
    ValueError
        If it has no axis or no rollout, a reward is infinite, or `ddof` is below 0.

    Notes
    -----
    Two passes in float64, whatever comes in. var(ddof=1) is the mean of (r_i - r_j)^2 / 2 over pairs. The standard
    deviation is biased low; see `c4_factor`. Time and memory O(N k).

    References
    ----------
    Razin et al., "Vanishing Gradients in Reinforcement Finetuning of Language Models", arXiv 2310.20703: the gradient
    of a prompt vanishes with the standard deviation of its rewards.

    Examples
    --------
    >>> from rankdiag.rewards import reward_moments
    >>> moments = reward_moments([[0.0, 1.0, 1.0, 0.0], [2.0, 2.0, float("nan"), 2.0]])
    >>> moments.mean.tolist(), moments.std.round(4).tolist(), moments.count.tolist()
    ([0.5, 2.0], [0.5774, 0.0], [4, 3])
    """
    degrees = integer(ddof, "ddof", low=0)
    array = _array(values)
    found = refuse_overflow(row_moments(array, ddof=degrees), "values", ddof=degrees)
    names = ("count", "mean", "var", "std", "min", "max")
    fields: dict[str, Any] = {**{name: getattr(found, name) for name in names}, "n_distinct": _distinct(array)}
    for entry in fields.values():
        entry.flags.writeable = False
    zero = int(((found.min == found.max) & (found.count > degrees)).sum())
    return RewardMoments(
        **fields,
        explanation=(
            f"{zero} of {found.count.size} prompts have equal rewards in all rollouts: these rollouts give the policy "
            "gradient nothing to work with."
        ),
        meta=Meta(definition="moments of the rewards of each prompt", ddof=degrees, n=int(found.count.sum())),
    )


def _array(values: Any) -> Floats:
    if isinstance(values, RewardTable):
        return values.values
    array = as_float64(values, "values", min_ndim=1, finite=False, expected="rewards, rollouts along the last axis")
    if np.isinf(array).any():
        place = tuple(int(axis[0]) for axis in np.nonzero(np.isinf(array)))
        where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else f"{place}"
        raise ValueError(f"`values` must be finite, or NaN where unscorable; rewards contain +-inf at {where}")
    return np.asarray(array, dtype=np.float64)


def _distinct(array: Floats) -> NDArray[np.int64]:
    flat = array.reshape(-1, array.shape[-1])
    found = np.empty(len(flat), dtype=np.int64)
    step = max(1, _BLOCK // flat.shape[1])
    for first in range(0, len(flat), step):
        ordered = np.sort(flat[first : first + step], axis=-1)  # NaN last
        fresh = (ordered[:, 1:] != ordered[:, :-1]) & ~np.isnan(ordered[:, 1:])
        found[first : first + step] = fresh.sum(axis=-1) + ~np.isnan(ordered[:, 0])
    return found.reshape(array.shape[:-1])


def reward_variance(values: Any) -> Any:
    """Unbiased variance of the rewards of each prompt (ddof=1).

    Parameters
    ----------
    values : RewardTable or array-like, shape (k,) or (..., k)
        Rewards, rollouts along the last axis; NaN is left out.

    Returns
    -------
    float or ndarray of float64, shape (...)
        NaN with fewer than 2 scored rollouts, exactly 0 where all rewards are equal.

    Raises
    ------
    TypeError
        If `values` holds no numbers.
    ValueError
        See `reward_moments`.

    Examples
    --------
    >>> from rankdiag import reward_variance
    >>> reward_variance([0.0, 1.0, 1.0, 0.0])
    0.3333333333333333
    """
    found = reward_moments(values).var
    return float(found) if found.ndim == 0 else found


def reward_std(values: Any) -> Any:
    """Return the standard deviation of the rewards of each prompt: the root of the unbiased variance, biased low.

    Parameters
    ----------
    values : RewardTable or array-like, shape (k,) or (..., k)
        Rewards, rollouts along the last axis; NaN is left out.

    Returns
    -------
    float or ndarray of float64, shape (...)
        NaN with fewer than 2 scored rollouts, exactly 0 where all rewards are equal.

    Raises
    ------
    TypeError
        If `values` holds no numbers.
    ValueError
        See `reward_moments`.

    Examples
    --------
    >>> from rankdiag import reward_std
    >>> round(reward_std([0.0, 1.0, 1.0, 0.0]), 6)
    0.57735
    """
    found = reward_moments(values).std
    return float(found) if found.ndim == 0 else found


# --- exact policies ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactMoments(Result):
    """Moments of a reward under a known distribution over outputs.

    Attributes
    ----------
    mean, exact_var, exact_std : ndarray of float64
        Expectation, variance sum pi (r - V)^2 (no ddof: nothing is sampled) and its root.

    Examples
    --------
    >>> from rankdiag.rewards import exact_reward_moments
    >>> float(exact_reward_moments([0.2, 0.3, 0.5], [1.0, 0.0, -1.0]).exact_var.round(6))
    0.61
    """

    tag: ClassVar[str] = "rewards.ExactMoments"

    mean: NDArray[np.float64]
    exact_var: NDArray[np.float64]
    exact_std: NDArray[np.float64]

    def document(self) -> Document:
        """Return what these moments show: a line for each of the first policies."""
        names = ("mean", "exact_var", "exact_std")
        flat = [np.atleast_1d(getattr(self, name)).ravel()[:_SHOWN].tolist() for name in names]
        columns = (Column(name="policy"), *(Column(name=name) for name in names))
        rows = tuple((index, *row) for index, row in enumerate(zip(*flat, strict=True)))
        return Document(
            title=f"Rewards under {self.mean.size} known policies",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(KeyNumber(label="policies", value=int(self.mean.size)),),
            grids=(Grid(title="First policies", columns=columns, rows=rows),),
            notes=self.notes(),
        )


def exact_reward_moments(probs: Any, rewards: Any) -> ExactMoments:
    """Return expectation and variance of rewards under known probabilities.

    Parameters
    ----------
    probs : array-like or torch.Tensor, shape (..., Y)
        Probabilities of the outputs.
    rewards : array-like or torch.Tensor, shape (Y,) or (..., Y)
        Their rewards.

    Returns
    -------
    ExactMoments
        Arrays of shape (...).

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If probabilities are negative or do not sum to 1 within 1e-8, a reward is not finite, or shapes do not fit.

    Examples
    --------
    >>> from rankdiag.rewards import exact_reward_moments
    >>> float(exact_reward_moments([0.2, 0.3, 0.5], [1.0, 0.0, -1.0]).mean.round(6))
    -0.3
    """
    p = as_probs(probs, "probs")
    r = as_float64(rewards, "rewards", min_ndim=1, expected="a reward for each output (..., Y)")
    if r.shape[-1] != p.shape[-1]:
        raise ValueError(f"`rewards` must have {p.shape[-1]} outputs, as `probs` has; got {r.shape[-1]}")
    try:
        r = np.broadcast_to(r, np.broadcast_shapes(p.shape, r.shape))
    except ValueError:
        raise ValueError(f"`rewards` must fit the shape {p.shape} of `probs`; got {r.shape}") from None
    with np.errstate(over="ignore", invalid="ignore"):
        base = r.min(axis=-1, keepdims=True)
        gap = r - base
        offset = (p * gap).sum(axis=-1, keepdims=True)
        var = (p * (gap - offset) ** 2).sum(axis=-1)
        mean = (base + offset)[..., 0]
    if not (np.isfinite(var).all() and np.isfinite(mean).all()):
        raise ValueError("`rewards` must have differences whose squares float64 can hold; scale them down")
    var = np.where(r.max(axis=-1) == r.min(axis=-1), 0.0, var)
    fields: dict[str, Any] = {"mean": np.array(mean), "exact_var": np.array(var), "exact_std": np.array(np.sqrt(var))}
    for entry in fields.values():
        entry.flags.writeable = False
    return ExactMoments(
        **fields,
        explanation="Moments under the given probabilities; nothing was sampled.",
        meta=Meta(definition="V = sum pi r and sum pi (r - V)^2", n=p.shape[-1]),
    )


def c4_factor(k: int) -> float:
    """Return the expected standard deviation of k normal rewards over the true one (ddof=1).

    Parameters
    ----------
    k : int
        Rollouts, at least 2.

    Returns
    -------
    float
        sqrt(2 / (k - 1)) Gamma(k / 2) / Gamma((k - 1) / 2), below 1.

    Raises
    ------
    TypeError
        If `k` is no integer.
    ValueError
        If it is below 2.

    Notes
    -----
    For other laws the bias differs, and for rare binary rewards it is far larger: compare root mean square standard
    deviations, whose square is unbiased.

    Examples
    --------
    >>> from rankdiag.rewards import c4_factor
    >>> round(c4_factor(4), 6)
    0.921318
    """
    n = integer(k, "k", low=2)
    if n > _SERIES_FROM:
        x = 2.0 / (n - 1)
        return 1.0 + x * (-1 / 8 + x * (1 / 128 + x * (5 / 1024 - x * (21 / 32768 + x * 399 / 262144))))
    return math.sqrt(2.0 / (n - 1)) * math.gamma(n / 2.0) / math.gamma((n - 1) / 2.0)

"""Upper bounds of a policy gradient by the standard deviation of the rewards, and what they cost in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import integer, real

__all__ = ["GradientBounds", "TwoOutputTimes", "gradient_bounds", "two_output_times"]

Floats = NDArray[np.float64]

_SHOWN = 200  # rows that a page shows of bounds for many prompts
_PUBLISHED = 6.0  # the constant of the theorem
_TIGHT = 3.0 * 4.0 ** (1.0 / 3.0)  # the smallest constant that its proof gives


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientBounds(Result):
    """Bounds of the norm of a policy gradient, from the loosest to the tightest.

    Attributes
    ----------
    published : ndarray of float64
        6 M^(1/3) L J std^(2/3).
    published_tight : ndarray of float64
        The same with the smallest constant of its proof, 3 * 4^(1/3) (derived here).
    sqrt_length : ndarray of float64
        sqrt(L) J std (derived here).
    fisher : ndarray of float64
        std sqrt(lambda_max(F)) (derived here); NaN where the top of the Fisher matrix was not given.

    Examples
    --------
    >>> from rankdiag.rewards import gradient_bounds
    >>> bounds = gradient_bounds(0.001, length=100, jacobian=1.0)
    >>> float(bounds.published.round(6)), float(bounds.sqrt_length.round(6))
    (6.0, 0.01)
    """

    tag: ClassVar[str] = "rewards.GradientBounds"

    published: NDArray[np.float64]
    published_tight: NDArray[np.float64]
    sqrt_length: NDArray[np.float64]
    fisher: NDArray[np.float64]

    def document(self) -> Document:
        """Return what this result shows: each bound, or the middle of it over prompts and a row for each of them."""
        return readings(
            self,
            "Bounds of the policy gradient",
            {
                "published": "6 M^(1/3) L J std^(2/3).",
                "published_tight": "3 * 4^(1/3) M^(1/3) L J std^(2/3).",
                "sqrt_length": "sqrt(L) J std.",
                "fisher": "std sqrt(lambda_max(F)); needs the top of the Fisher matrix.",
            },
        )


def gradient_bounds(
    std: Any, *, length: int, jacobian: Any, half_range: float = 1.0, fisher_top: Any = None
) -> GradientBounds:
    """Bound the norm of the policy gradient of a prompt by the standard deviation of its rewards.

    Parameters
    ----------
    std : array-like, shape (...)
        Standard deviation of the reward under the policy; for an objective with a KL penalty, that of the reward minus
        lam ln(pi / ref).
    length : int
        L, tokens of a response at most.
    jacobian : array-like, shape (...)
        J: largest spectral norm, over prefixes, of the Jacobian of the logits by the parameters.
    half_range : float
        M = (b - a) / 2 for rewards in [a, b]; only the published bounds need it.
    fisher_top : array-like, shape (...), optional
        Largest eigenvalue of the Fisher matrix of the policy.

    Returns
    -------
    GradientBounds
        Arrays of the common shape.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If one is negative or not finite, or shapes do not fit.

    Notes
    -----
    By Cauchy-Schwarz <u, grad> = Cov(r, <u, score>) <= std sqrt(u^T F u); scores of successive tokens are martingale
    differences, so the trace of F is at most L J^2. With exact J and rewards in the range: norm <= fisher <=
    sqrt_length <= published_tight <= published. Derived here, except the published one. A token adds at most J^2 / 2 to
    the top of F, for no direction of its law has more variance than 1/2, so fisher <= sqrt_length / sqrt(2).

    Advantages over their standard deviation (GRPO) have a gradient of at most sqrt(lambda_max(F)): in expectation the
    vanishing goes, but noise grows by the same factor, and a group of equal rewards has no gradient either way. A KL
    penalty still has one there. An imperfect value baseline (PPO) adds noise on such prompts, never signal.

    The standard deviation of rewards in the range is at most M; one of few samples (ddof=1) may be larger, and then the
    order of the bounds may differ. Beyond float64 a bound is infinite.

    References
    ----------
    Razin et al., arXiv 2310.20703, Theorem 1 (rewards in [-1, 1]); Razin et al., arXiv 2503.15477, Proposition 2 (M).

    Examples
    --------
    >>> from rankdiag.rewards import gradient_bounds
    >>> bounds = gradient_bounds([0.0, 0.5], length=4, jacobian=2.0, fisher_top=1.0)
    >>> bounds.fisher.tolist(), bounds.sqrt_length.tolist()
    ([0.0, 0.5], [0.0, 2.0])
    """
    n = integer(length, "length", low=1)
    half = real(half_range, "half_range", low=0.0, low_open=True)
    s, j = _positive(std, "std"), _positive(jacobian, "jacobian")
    top = np.array(np.nan) if fisher_top is None else _positive(fisher_top, "fisher_top")
    try:
        s, j, top = np.broadcast_arrays(s, j, top)
    except ValueError:
        raise ValueError(
            f"`std`, `jacobian` and `fisher_top` must fit one shape; got {s.shape}, {j.shape} and {top.shape}"
        ) from None
    with np.errstate(over="ignore", invalid="ignore"):
        base = j * np.cbrt(s) ** 2 * (half ** (1.0 / 3.0) * n)  # J first: a large L J times a std of 0 is 0
        fields = {
            "published": _PUBLISHED * base,
            "published_tight": _TIGHT * base,
            "sqrt_length": j * s * np.sqrt(n),
            "fisher": s * np.sqrt(top),
        }
    arrays: dict[str, Any] = {name: np.array(value) for name, value in fields.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return GradientBounds(
        **arrays,
        explanation=(
            "No policy of this kind has a larger gradient: where the standard deviation of the rewards vanishes, so "
            "does the gradient, however far the mean is from the best reward."
        ),
        meta=Meta(
            definition="upper bounds of ||grad E r||",
            n=int(s.size),
            details={"length": n, "half_range": half},
        ),
    )


def readings(result: Result, title: str, fields: dict[str, str]) -> Document:
    """Return a document of arrays of one shape: their values, or medians and a grid.

    Parameters
    ----------
    result : Result
        What is shown.
    title : str
        Title of the document.
    fields : dict of str to str
        Fields to show, and a sentence on each; one that is NaN throughout was not asked for, and is left out.

    Returns
    -------
    Document
        Key numbers, and a grid of at most 200 rows where there is more than one value.
    """
    arrays = {name: np.ravel(getattr(result, name)) for name in fields}
    arrays = {name: values for name, values in arrays.items() if not np.isnan(values).all()}
    count = len(next(iter(arrays.values())))
    grids: tuple[Grid, ...] = ()
    if count > 1:
        shown = range(min(count, _SHOWN))
        grids = (
            Grid(
                title="Each of them" if count <= _SHOWN else f"The first {_SHOWN} of {count}",
                columns=(Column(name="index"), *(Column(name=n.replace("_", " "), doc=fields[n]) for n in arrays)),
                rows=tuple((i, *(float(v[i]) for v in arrays.values())) for i in shown),
            ),
        )
    middle = "" if count == 1 else ", median"
    return Document(
        title=title,
        verdict=result.verdict,
        explanation=result.explanation,
        key_numbers=tuple(
            KeyNumber(label=name.replace("_", " ") + middle, value=_median(values), doc=fields[name])
            for name, values in arrays.items()
        ),
        grids=grids,
        notes=result.notes(),
    )


def _median(values: Floats) -> float:
    """Return the lower median: one of the values, so that infinities need no arithmetic."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _positive(value: Any, name: str) -> Floats:
    array = np.asarray(as_float64(value, name, expected="a number, or one for each prompt"), dtype=np.float64)
    if (array < 0).any():
        raise ValueError(f"`{name}` must be at least 0; got {float(array.min()):g}")
    return array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoOutputTimes(Result):
    """Times until the better of two outputs has probability 1/2.

    Attributes
    ----------
    reinforcement : ndarray of float64
        Under the gradient flow of the expected reward: about 1 / std^2.
    supervised : ndarray of float64
        Under that of the log-likelihood of the better output: about ln(1 / std).

    Examples
    --------
    >>> from rankdiag.rewards import two_output_times
    >>> times = two_output_times(0.05)
    >>> float(times.reinforcement.round(6)), float(times.supervised.round(6))
    (6.209062, 1.945904)
    """

    tag: ClassVar[str] = "rewards.TwoOutputTimes"

    reinforcement: NDArray[np.float64]
    supervised: NDArray[np.float64]

    def document(self) -> Document:
        """Return what this result shows: both times, or their middle and a row for each start."""
        return readings(
            self,
            "Two outputs: reinforcement and supervised finetuning",
            {"reinforcement": "About 1 / std^2.", "supervised": "About ln(1 / std)."},
        )


def two_output_times(eps: Any) -> TwoOutputTimes:
    """Compare reinforcement and supervised finetuning on two outputs with rewards +1 and -1.

    Parameters
    ----------
    eps : array-like, shape (...)
        Probability of the better output at the start, in (0, 1/2].

    Returns
    -------
    TwoOutputTimes
        Arrays of the shape of `eps`.

    Raises
    ------
    TypeError
        If `eps` holds no numbers.
    ValueError
        If an entry is not in (0, 1/2].

    Notes
    -----
    Gradient flow on both logits, in closed form; derived here. The standard deviation at the start is
    2 sqrt(eps (1 - eps)), so the first time grows like its inverse square and the second like a logarithm.

    References
    ----------
    Razin et al., arXiv 2310.20703, section 4.3, for the exponential gap between the two.

    Examples
    --------
    >>> from rankdiag.rewards import two_output_times
    >>> two_output_times([0.5, 0.001]).reinforcement.round(1).tolist()
    [0.0, 253.2]
    """
    p = np.asarray(as_float64(eps, "eps", expected="a probability"), dtype=np.float64)
    if not ((p > 0) & (p <= 0.5)).all():
        raise ValueError("`eps` must be in (0, 1/2], the probability of the better output at the start")
    # (1 - 2p) is exact from 1/4 on, so these forms cancel nowhere
    with np.errstate(over="ignore"):
        odds = np.log1p((1.0 - 2.0 * p) / p)
        first = 0.25 * ((1.0 - 2.0 * p) / p / (1.0 - p) + 2.0 * odds)
    if not np.isfinite(first).all():
        raise ValueError("`eps` must not be so small that its inverse exceeds float64")
    second = 0.5 * ((1.0 - 2.0 * p) / (1.0 - p) + odds)
    arrays: dict[str, Any] = {"reinforcement": np.array(first), "supervised": np.array(second)}
    for array in arrays.values():
        array.flags.writeable = False
    return TwoOutputTimes(
        **arrays,
        explanation="Rare good outputs are found late by reward, and soon by examples.",
        meta=Meta(definition="time of gradient flow until the better output has probability 1/2", n=int(p.size)),
    )

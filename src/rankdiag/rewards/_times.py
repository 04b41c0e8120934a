"""How long a policy gradient needs at least to raise a reward, and how far accurate and inaccurate teachers part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import boolean, integer, real
from rankdiag.rewards._bounds import readings
from rankdiag.rewards._exact import as_probs

__all__ = ["TeacherTimes", "TimeBounds", "teacher_times", "time_lower_bounds"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeBounds(Result):
    """Lower bounds of the time in which the expectation of any reward can rise by gamma.

    Attributes
    ----------
    general : ndarray of float64
        For any autoregressive policy and KL penalty.
    tabular : ndarray of float64
        For a table of logits; NaN unless it was asked for.
    sharper : ndarray of float64
        For any autoregressive policy, always above `general` (derived here).

    Examples
    --------
    >>> from rankdiag.rewards import time_lower_bounds
    >>> bounds = time_lower_bounds(0.5, 0.01, length=1, jacobian=1.0, tabular=True)
    >>> [float(x.round(6)) for x in (bounds.general, bounds.tabular, bounds.sharper)]
    [0.031354, 4.423984, 4.211691]
    """

    tag: ClassVar[str] = "rewards.TimeBounds"

    general: NDArray[np.float64]
    tabular: NDArray[np.float64]
    sharper: NDArray[np.float64]

    def document(self) -> Document:
        """Return what this result shows: each bound, or its middle and a row for each variance."""
        return readings(
            self,
            "Least time to improve",
            {
                "general": "Any autoregressive policy and KL penalty.",
                "tabular": "A table of logits, where asked for.",
                "sharper": "Any autoregressive policy; derived here.",
            },
        )


def time_lower_bounds(
    gamma: float,
    mean_var: Any,
    *,
    length: int,
    jacobian: float,
    kl: float = 0.0,
    n_prompts: int = 1,
    tabular: bool = False,
) -> TimeBounds:
    """Bound from below the time in which gradient flow on a reward can raise any other reward by gamma.

    Parameters
    ----------
    gamma : float
        Rise of the expectation, > 0, of any reward in [-1, 1].
    mean_var : array-like, shape (...)
        Variance of the training reward (in [-1, 1]) under the initial policy, averaged over prompts.
    length : int
        L, tokens of a response at most.
    jacobian : float
        J: largest spectral norm of the Jacobian of the logits by the parameters, over prefixes and the path, > 0.
    kl : float
        Coefficient of the KL penalty, at least 0; only the general bound depends on it.
    n_prompts : int
        Prompts of the tabular policy.
    tabular : bool
        Whether the policy is a table of logits, and `mean_var` the variance of the prompt in question.

    Returns
    -------
    TimeBounds
        Arrays of the shape of `mean_var`; infinite where the variance is 0.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If it is out of range.

    Notes
    -----
    They hold for gradient flow, not for Adam or finite steps. A time above the planned learning rate times steps says
    that such a run cannot gain gamma, however accurate the reward.

    References
    ----------
    Razin et al., "What Makes a Reward Model a Good Teacher?", arXiv 2503.15477, Theorem 4 (general) and Proposition 3
    (tabular); the sharper one is derived here.

    Examples
    --------
    >>> from rankdiag.rewards import time_lower_bounds
    >>> time_lower_bounds(0.1, [0.0, 0.25], length=2, jacobian=1.0).sharper.round(4).tolist()
    [inf, 0.0952]
    """
    rise = real(gamma, "gamma", low=0.0, low_open=True)
    n, prompts = integer(length, "length", low=1), integer(n_prompts, "n_prompts", low=1)
    j, lam = real(jacobian, "jacobian", low=0.0, low_open=True), real(kl, "kl", low=0.0)
    in_table = boolean(tabular, "tabular")
    var = np.asarray(as_float64(mean_var, "mean_var", expected="a variance"), dtype=np.float64)
    if (var < 0).any() or (var > 1.0 + 1e-9).any():
        raise ValueError("`mean_var` must be in [0, 1], the variance of a reward in [-1, 1]")
    reach = -math.expm1(-rise / 9.0)
    if lam > 0.0:
        reach = min(reach, -math.expm1(-7.0 / 3.0 / lam))
    sharp = math.sqrt(2.0) * -math.expm1(-rise * math.sqrt(n / 2.0)) / n**1.5
    fields = {
        "general": _over(reach / (8.0 * n**2), j, np.cbrt(var)),
        "tabular": _over(2.0 * prompts * -math.expm1(-rise / 2.0), 1.0, np.sqrt(var)),
        "sharper": _over(sharp, j, np.sqrt(var)),
    }
    if not in_table:
        fields["tabular"] = np.full(var.shape, np.nan)
    arrays: dict[str, Any] = {name: np.array(value) for name, value in fields.items()}
    for array in arrays.values():
        array.flags.writeable = False
    return TimeBounds(
        **arrays,
        explanation=(
            f"No reward can rise by {rise:g} sooner than this under gradient flow on a reward of this variance, "
            "whatever the accuracy of the reward."
        ),
        meta=Meta(
            definition="lower bounds of the time of gradient flow",
            n=int(var.size),
            details={"gamma": rise, "length": n, "jacobian": j, "kl": lam, "n_prompts": prompts},
        ),
    )


def _over(numerator: float, jacobian: float, spread: Floats) -> Floats:
    """Return numerator / (jacobian^2 spread), infinite where the spread is 0, whatever leaves float64 in between."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        value = np.float64(numerator) / jacobian / spread / jacobian
    return np.where(spread == 0, np.inf, value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherTimes(Result):
    """Times in which an accurate and an inaccurate reward raise the true one.

    Attributes
    ----------
    target : int
        Output that the inaccurate reward singles out.
    rho : float
        (V + gamma + 1) / (r(target) + 1): probability of the target that is enough.
    accurate_lower : float
        The perfectly accurate reward with values in (0, 1/scale) needs at least this.
    inaccurate_upper : float
        The reward that is 1 on the target and wrong on nearly all else needs at most this.

    Examples
    --------
    >>> from rankdiag.rewards import teacher_times
    >>> times = teacher_times([0.25, 0.25, 0.5], [1.0, 0.0, -1.0], 0.5, scale=1e5)
    >>> times.target, round(times.rho, 3), times.inaccurate_upper < times.accurate_lower
    (0, 0.625, True)
    """

    tag: ClassVar[str] = "rewards.TeacherTimes"

    target: int
    rho: float
    accurate_lower: float
    inaccurate_upper: float


def teacher_times(
    pi0: Any, gold: Any, gamma: float, *, target: int | None = None, n_prompts: int = 1, scale: float = 1.0
) -> TeacherTimes:
    """Compare a perfectly accurate reward of low variance with a nearly wrong one of high variance.

    Parameters
    ----------
    pi0 : array-like, shape (Y,)
        Initial policy over the outputs of a prompt.
    gold : array-like, shape (Y,)
        True rewards in [-1, 1].
    gamma : float
        Rise of the expected true reward, > 0.
    target : int, optional
        Output that the inaccurate reward singles out; None takes the best.
    n_prompts : int
        Prompts of the tabular policy.
    scale : float
        T: values of the accurate reward are in (0, 1/T), > 0.

    Returns
    -------
    TeacherTimes
        Both times of gradient flow.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If it is out of range, shapes do not fit, or the reward of the target is not above V + gamma.

    References
    ----------
    Razin et al., arXiv 2503.15477, Theorem 5; the upper time holds for a KL coefficient that is small enough.

    Examples
    --------
    >>> from rankdiag.rewards import teacher_times
    >>> round(teacher_times([0.5, 0.5], [1.0, -1.0], 0.5).accurate_lower, 6)
    0.442398
    """
    p = as_probs(pi0, "pi0")
    r = as_float64(gold, "gold", ndim=1, expected="a reward for each output (Y,)")
    if p.ndim != 1 or p.shape != r.shape:
        raise ValueError(f"`pi0` and `gold` must have one entry for each output; got {p.shape} and {r.shape}")
    if (np.abs(r) > 1.0).any():
        raise ValueError("`gold` must be in [-1, 1]")
    rise = real(gamma, "gamma", low=0.0, low_open=True)
    prompts, factor = integer(n_prompts, "n_prompts", low=1), real(scale, "scale", low=0.0, low_open=True)
    best = int(r.argmax()) if target is None else integer(target, "target", low=0, high=len(r) - 1)
    mean = float(p @ r)
    if not r[best] > mean + rise:
        raise ValueError(
            f"`gold` of the target must be above V + gamma = {mean + rise:g}, else the rise is out of reach; got "
            f"{r[best]:g}"
        )
    if p[best] == 0:
        raise ValueError("`pi0` of the target must be above 0")
    rho = (mean + rise + 1.0) / (float(r[best]) + 1.0)
    short = (float(r[best]) - mean - rise) / (float(r[best]) + 1.0)  # 1 - rho, which may round to 0
    lower = 2.0 * prompts * -math.expm1(-rise / 2.0) * factor
    upper = 4.0 * prompts * short**-4 * (1.0 / float(p[best]) - 1.0 / rho) if short > 0 else math.inf
    return TeacherTimes(
        target=best,
        rho=rho,
        accurate_lower=lower,
        inaccurate_upper=max(0.0, upper),
        explanation=(
            f"A perfectly accurate reward of values below {1.0 / factor:.3g} needs a time of at least {lower:.4g}; one "
            f"that is right about output {best} alone needs at most {max(0.0, upper):.4g}."
        ),
        meta=Meta(definition="times of gradient flow until the expected true reward has risen by gamma", n=len(r)),
    )

"""Moments of rewards that arrive in parts: a state of five numbers, merged as parts come in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankdiag._array import as_float64
from rankdiag._validate import describe, integer, real

__all__ = ["MomentState"]


@dataclass(frozen=True, slots=True)
class MomentState:
    """Count, mean, sum of squares about it, and ends of rewards seen so far; states of parts merge into that of all.

    Parameters
    ----------
    count : int
        Rewards seen.
    mean : float
        Their mean.
    m2 : float
        Sum of (r - mean)^2.
    min, max : float
        The lowest and the highest.

    Notes
    -----
    Merging is associative and commutative: count, min and max exactly, the mean to 1e-12 of the largest reward, m2 to
    1e-12 of the sum of squares. ``MomentState()`` is neutral. Sums of squares are never subtracted.

    Examples
    --------
    >>> from rankdiag.rewards import MomentState
    >>> both = MomentState.from_values([1.0, 2.0]).merge(MomentState.from_values([3.0]))
    >>> both.count, both.mean, both.var()
    (3, 2.0, 1.0)
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    def __post_init__(self) -> None:
        integer(self.count, "count", low=0)
        real(self.mean, "mean")
        real(self.m2, "m2", low=0.0)
        if not self.count:
            if (self.mean, self.m2, self.min, self.max) != (0.0, 0.0, math.inf, -math.inf):
                raise ValueError("`count` must be above 0 for a state with a mean, a sum of squares or ends; got 0")
            return
        if real(self.min, "min") > real(self.max, "max"):
            raise ValueError(f"`min` must be at most `max`; got {self.min!r} and {self.max!r}")

    @classmethod
    def from_values(cls, values: Any) -> MomentState:
        """Return the state of some rewards; NaN is left out.

        Parameters
        ----------
        values : array-like or torch.Tensor
            Rewards, of any shape.

        Returns
        -------
        MomentState
            Their state.

        Raises
        ------
        TypeError
            If `values` holds no numbers.
        ValueError
            If a reward is infinite, or squares are beyond float64.

        Examples
        --------
        >>> from rankdiag.rewards import MomentState
        >>> MomentState.from_values([0.0, float("nan"), 2.0])
        MomentState(count=2, mean=1.0, m2=2.0, min=0.0, max=2.0)
        """
        array = as_float64(values, "values", allow_empty=True, finite=False, expected="rewards").reshape(-1)
        if len(array) and math.isnan(array.min()):
            array = array[~np.isnan(array)]
        n = len(array)
        if not n:
            return cls()
        low, high = float(array.min()), float(array.max())
        if math.isinf(low) or math.isinf(high):
            raise ValueError("`values` must be finite, or NaN where unscorable; got +-inf")
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            gap = array - low  # about a reward: exact for large equal numbers, so that those have no spread at all
            offset = float(gap.sum()) / n
            gap -= offset
            return _state(n, min(low + offset, high), float(gap @ gap), low, high, "values")

    def update(self, values: Any) -> MomentState:
        """Return the state after more rewards.

        Parameters
        ----------
        values : array-like or torch.Tensor
            Rewards; NaN is left out.

        Returns
        -------
        MomentState
            A new state.

        Raises
        ------
        TypeError
            If `values` holds no numbers.
        ValueError
            See `from_values`.
        """
        return self.merge(MomentState.from_values(values))

    def merge(self, other: MomentState) -> MomentState:
        """Return the state of the rewards of both.

        Parameters
        ----------
        other : MomentState
            State of other rewards.

        Returns
        -------
        MomentState
            A new state.

        Raises
        ------
        TypeError
            If `other` is no state.
        ValueError
            If the squares of the differences between the two are beyond float64.
        """
        if not isinstance(other, MomentState):
            raise TypeError(f"`other` must be a MomentState; got {describe(other)}")
        if not other.count:
            return self
        if not self.count:
            return other
        n = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / n)
        m2 = self.m2 + other.m2 + gap * gap * (self.count / n * other.count)
        low, high = min(self.min, other.min), max(self.max, other.max)
        return _state(n, mean, m2, low, high, "other")

    def var(self, ddof: int = 1) -> float:
        """Return the variance; NaN with no more rewards than `ddof`, exactly 0 where all are equal.

        Parameters
        ----------
        ddof : int
            1 for the unbiased one.

        Returns
        -------
        float
            m2 / (count - ddof).

        Raises
        ------
        TypeError
            If `ddof` is no integer.
        ValueError
            If it is below 0.
        """
        degrees = integer(ddof, "ddof", low=0)
        if self.count <= degrees:
            return math.nan
        return self.m2 / (self.count - degrees)

    def std(self, ddof: int = 1) -> float:
        """Return the root of `var`.

        Parameters
        ----------
        ddof : int
            As in `var`.

        Returns
        -------
        float
            Standard deviation, NaN where the variance is.

        Raises
        ------
        TypeError
            If `ddof` is no integer.
        ValueError
            If it is below 0.
        """
        return math.sqrt(self.var(ddof))


def _state(n: int, mean: float, m2: float, low: float, high: float, name: str) -> MomentState:
    """Return a state of what was computed, which need not be checked as a caller's numbers are."""
    if not (math.isfinite(mean) and math.isfinite(m2)):
        raise ValueError(f"`{name}` must have differences whose squares float64 can hold; scale the rewards down")
    made = object.__new__(MomentState)
    for field, value in (("count", n), ("mean", mean), ("m2", m2), ("min", low), ("max", high)):
        object.__setattr__(made, field, value)
    return made

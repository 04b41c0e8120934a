"""Power-law tail of a list of eigenvalues, by the smallest Kolmogorov-Smirnov distance."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._document import Document, KeyNumber
from rankdiag._result import Meta, Result

__all__ = ["TailFit", "power_law_tail"]

Floats = NDArray[np.float64]

_FEWEST = 10  # values that a search over cut-offs needs at least
_QUANTILES = 9  # points of each tail where its distance is looked at first
_CELLS = 1 << 20  # entries of one block of that first look: 8 MB
_SLACK = 1e-12  # distances closer than this are equal but for rounding
_RELIABLE = 50  # tail size that Clauset, Shalizi and Newman 2009, section 3.2, ask for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TailFit(Result):
    """A power law ``p(x) ~ x^(-alpha)`` fitted to the values from `x_min` up.

    The verdict is always ``"unknown"``: neither `alpha` nor `D` has a threshold that theory backs.

    Attributes
    ----------
    alpha : float
        Exponent of the density, > 1; smaller means a heavier tail.
    x_min : float
        Smallest value that belongs to the tail, in the units of the values.
    D : float
        Largest gap between the fitted and the observed distribution of the tail, 0 to 1; smaller is better.
    n_tail : int
        Values in the tail, `x_min` included.
    sigma : float
        Standard error of `alpha` for a cut-off known beforehand: ``(alpha - 1) / sqrt(n_tail)``.
    meta : Meta
        Definition, number of positive values, dtype; in ``details`` the number of zeros and the largest value.
    verdict : str
        ``"unknown"``.
    explanation : str
        How to read the fit, with a caution where the tail is short.
    thresholds : tuple of Threshold
        Empty.

    Examples
    --------
    >>> from rankdiag.weights import power_law_tail
    >>> fit = power_law_tail([2.0**k for k in range(12)])
    >>> fit.verdict, fit.n_tail, fit.x_min, round(float(fit), 2)
    ('unknown', 12, 1.0, 1.26)
    """

    tag: ClassVar[str] = "weights.TailFit"

    alpha: float
    x_min: float
    D: float
    n_tail: int
    sigma: float

    def __float__(self) -> float:
        return self.alpha

    def document(self) -> Document:
        """Return what this fit shows: the exponent first, then what it rests on."""
        return dataclasses.replace(
            super(TailFit, self).document(),  # the short form of super() fails in a dataclass with slots
            title="Power-law tail",
            key_numbers=(
                KeyNumber(label="alpha", value=self.alpha, doc="exponent of the density; smaller is heavier"),
                KeyNumber(label="sigma", value=self.sigma, doc="standard error of alpha at this cut-off"),
                KeyNumber(label="x_min", value=self.x_min, doc="smallest value in the tail"),
                KeyNumber(label="D", value=self.D, doc="largest gap between fit and data; 0 is a perfect fit"),
                KeyNumber(label="n_tail", value=self.n_tail, doc="values in the tail"),
            ),
        )


def power_law_tail(evals: Any) -> TailFit:
    r"""Fit a power law to the upper tail of a list of eigenvalues.

    Every distinct value but the largest is tried as the cut-off :math:`x_{\min}`; the exponent of each tail is
    its maximum-likelihood estimate, and the tail with the smallest Kolmogorov-Smirnov distance wins.

    Parameters
    ----------
    evals : array-like of shape (n,)
        Eigenvalues :math:`\lambda = s^2 \ge 0` (squared singular values) in any order and any unit. Zeros are
        dropped and counted in ``meta.details["zeros"]``. Drop values that are only rounding noise first: the
        search would take them for data.

    Returns
    -------
    TailFit
        Exponent, cut-off, distance, tail size and standard error.

    Raises
    ------
    TypeError
        If `evals` holds no real numbers.
    ValueError
        If `evals` is not 1-D, has negative or non-finite entries or fewer than 10 positive ones, or if all
        positive ones are equal, for a tail of equal values has no exponent.

    See Also
    --------
    rankdiag.weights.marchenko_pastur : What the spectrum of a random matrix looks like instead.

    Notes
    -----
    For the sorted tail :math:`x_0 \le \dots \le x_{n-1}` with :math:`x_0 = x_{\min}`,

    .. math::

        \alpha = 1 + \frac{n}{\sum_i \log (x_i / x_{\min})}, \qquad
        D = \max_{0 \le k < n} \left| 1 - (x_k / x_{\min})^{1 - \alpha} - \frac{k}{n} \right| , \qquad
        \sigma = \frac{\alpha - 1}{\sqrt n} .

    The empirical distribution is taken at its lower steps :math:`k/n`, the one-sided convention of the package
    ``powerlaw``, so that exponents stay comparable. Of equal values only the first is a cut-off, and its tail
    holds all of them; :math:`k` runs over every one, so that `D` hardly changes when rounding parts equal values
    (``powerlaw`` looks at the first of them only and can choose another cut-off where values repeat). Where two
    cut-offs have the same distance to 1e-12, the smaller one is taken. The fit does not change when all values are
    multiplied by one number, except that `x_min` is.

    How to read it: first `D` (is this a power law at all?) and `n_tail` (from how many values?), then `alpha`
    with its `sigma`. Every list of values has a best cut-off, so an exponent alone proves nothing; in particular
    it does not say whether a layer is over- or undertrained. `sigma` treats the cut-off as given; that it was
    chosen from the same values makes the true uncertainty larger. Clauset, Shalizi and Newman ask for about 50
    values in the tail (section 3.2); below that the explanation of the result says so.

    The search is exact: it gives the cut-off of the direct loop over all of them. All exponents come from one
    cumulative sum over logarithms of neighbouring values, where nothing cancels. Distances are bounded from below at
    nine quantiles of each tail and computed in full only while the bound is below the best one found; the place of
    the largest gap of each computed tail then sharpens the bounds of all others. Usually five to ten tails of
    thousands are computed in full, and time is that of a sort and about twenty exponentials a value; the worst case
    is that of the direct loop, O(n^2). Memory is O(n).

    References
    ----------
    A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical data", SIAM Review 51
    (2009), arXiv:0706.1062, equations 3.1, 3.2 and 3.9.

    J. Alstott, E. Bullmore, D. Plenz, "powerlaw: a Python package for analysis of heavy-tailed distributions",
    PLoS ONE 9 (2014), arXiv:1305.0215.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.weights import power_law_tail
    >>> shares = (np.arange(2000) + 0.5) / 2000
    >>> fit = power_law_tail((1 - shares) ** (-1 / 1.5))  # density x^-2.5 from 1 up
    >>> print(f"{fit.alpha:.2f} +- {fit.sigma:.2f} from {fit.n_tail} values, D = {fit.D:.4f}")
    2.50 +- 0.03 from 2000 values, D = 0.0003
    """
    given = as_float64(evals, "evals", ndim=1, expected="a list of eigenvalues")
    values = np.sort(given[given != 0.0])
    if values.size and values[0] < 0:
        raise ValueError(
            f"`evals` must be >= 0; got {int((given < 0).sum())} negative values, the smallest {values[0]:.6g}. Pass "
            "squared singular values, and clip the rounding noise of an eigensolver to 0"
        )
    if values.size < _FEWEST:
        raise ValueError(f"`evals` must hold at least {_FEWEST} positive values; got {values.size} of {given.size}")
    if values[0] == values[-1]:
        raise ValueError(
            f"`evals` must hold at least two different positive values; got {values.size} times {values[0]}"
        )
    start, slope, distance = _search(values)
    n_tail = values.size - start
    return TailFit(
        alpha=1.0 + slope,
        x_min=float(values[start]),
        D=distance,
        n_tail=n_tail,
        sigma=slope / math.sqrt(n_tail),
        explanation=_explain(slope, float(values[start]), distance, n_tail, values.size),
        meta=Meta(
            definition="power law fitted to the values from x_min up; x_min has the smallest Kolmogorov-Smirnov "
            "distance among all values, against the empirical distribution k/n, k = 0..n-1",
            n=values.size,
            dtype=input_dtype(evals),
            details={"zeros": given.size - values.size, "x_max": float(values[-1])},
        ),
    )


def _explain(slope: float, x_min: float, distance: float, n_tail: int, n: int) -> str:
    text = (
        f"The {n_tail} largest of {n} positive values, from {x_min:.4g} up, have a density that falls like "
        f"x^-{1 + slope:.4g} "
        f"(standard error {slope / math.sqrt(n_tail):.2g} at this cut-off). Fit and data differ by at most D = "
        f"{distance:.3g} in cumulative share. alpha alone does not tell an overtrained layer from an undertrained "
        "one: every list of values has a best cut-off, power law or not."
    )
    if n_tail < _RELIABLE:
        text += (
            f" The tail has fewer than {_RELIABLE} values, below which such estimates are to be treated with caution "
            "(Clauset, Shalizi and Newman 2009, section 3.2)."
        )
    return text


def _search(values: Floats) -> tuple[int, float, float]:
    """Return position, alpha - 1 and distance of the best cut-off of ascending positive `values`."""
    size = values.size
    gaps = _log_ratios(values[:-1], values[1:])
    below = _log_ratios(values, values[-1:])
    # Sum of log(x_i / x_min) over a tail: a gap counts once for each value above it. All terms are >= 0, so
    # nothing cancels, however close together or far apart the values are.
    sums = np.cumsum((gaps * np.arange(size - 1, 0, -1))[::-1])[::-1]
    first = np.ones(size - 1, dtype=bool)
    first[1:] = gaps[:-1] > 0
    starts = np.flatnonzero(first & (sums > 0))
    counts = size - starts
    slopes = counts / sums[starts]

    bounds = _coarse_bounds(below, starts, counts, slopes)
    distances = np.full(starts.size, math.inf)
    best = math.inf
    while True:
        candidate = int(bounds.argmin())
        if bounds[candidate] > best + _SLACK:
            break
        start, count = int(starts[candidate]), int(counts[candidate])
        gap = _gap(below[start] - below[start:], slopes[candidate], np.arange(count) / count)
        place = start + int(gap.argmax())
        distances[candidate] = gap.max()
        best = min(best, float(distances[candidate]))
        reached = slice(int(np.searchsorted(starts, place, side="right")))  # tails that hold this place
        there = _gap(
            below[starts[reached]] - below[place], slopes[reached], (place - starts[reached]) / counts[reached]
        )
        np.maximum(bounds[reached], there, out=bounds[reached])
        bounds[candidate] = math.inf
    winner = int((distances <= best + _SLACK).argmax())
    return int(starts[winner]), float(slopes[winner]), float(distances[winner])


def _log_ratios(low: Floats, high: Floats) -> Floats:
    """Logarithm of ``high / low >= 1``, with full relative accuracy for any spacing and any scale."""
    low_digits, low_exponents = np.frexp(low)
    high_digits, high_exponents = np.frexp(high)
    shift = high_exponents - low_exponents
    # The quotient stays between 1/2 and 2, and within a factor of two the difference is exact.
    near = np.where(shift <= 1, np.ldexp(high_digits, np.minimum(shift, 1)), low_digits)
    small = (near - low_digits) / low_digits
    return np.where(shift <= 1, np.log1p(small), np.log(high_digits / low_digits) + shift * math.log(2.0))


def _coarse_bounds(below: Floats, starts: NDArray[np.intp], counts: NDArray[np.intp], slopes: Floats) -> Floats:
    """Largest gap of every tail at some of its quantiles."""
    bounds = np.empty(starts.size)
    shares = np.arange(_QUANTILES) / (_QUANTILES - 1)
    step = max(1, _CELLS // _QUANTILES)
    for low in range(0, starts.size, step):
        part = slice(low, low + step)
        ranks = ((counts[part, None] - 1) * shares).astype(np.intp)
        logs = below[starts[part], None] - below[starts[part, None] + ranks]
        bounds[part] = _gap(logs, slopes[part, None], ranks / counts[part, None]).max(axis=1)
    return bounds


def _gap(logs: Floats, slopes: Floats | float, shares: Floats) -> Floats:
    """Distance between fitted and observed distribution at points `logs` above the cut-off."""
    gap: Floats = np.abs(-np.expm1(-slopes * logs) - shares)
    return gap

"""Random matrices as a baseline: what a layer would look like if its entries were independent noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._document import Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._result import Meta, Result
from rankdiag._rng import as_generator
from rankdiag._validate import describe, integer, real

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = [
    "MarchenkoPastur",
    "marchenko_pastur",
    "marchenko_pastur_edge",
    "marchenko_pastur_effective_rank",
    "mp_outliers",
    "shuffled_spectrum",
]

Floats = NDArray[np.float64]

_LARGEST = 2**53  # sides that float64 holds exactly
_PANELS = 30  # halvings towards the lower edge; what is left of the integral there is below 1e-18
_NODES = 16  # Gauss-Legendre points of a panel
_CURVE = 201  # points of the density in a plot


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MarchenkoPastur(Result):
    """What the spectrum of a random matrix of this shape looks like, in closed form.

    Every number is the limit of large matrices with independent entries of mean 0 and equal variance; a matrix with
    one row or column has rank readings of exactly 1.

    Attributes
    ----------
    m, n : int
        Shape of the matrix.
    std : float
        Standard deviation of its entries.
    edge : float
        Where the singular values end, in the units of the entries: ``std * (sqrt(m) + sqrt(n))``.
    lower_edge : float
        Where they begin: ``std * |sqrt(m) - sqrt(n)|``.
    effective_rank : float
        Sigma effective rank.
    effective_rank_energy : float
        Energy effective rank.
    participation_ratio : float
        Participation ratio.
    stable_rank : float
        Stable rank.
    effective_rank_ratio : float
        `effective_rank` over ``min(m, n)``: 0.805 for a square matrix, towards 1 for an elongated one.
    meta : Meta
        Definition.
    verdict : str
        ``"unknown"``: a baseline is nothing to judge.
    explanation : str
        How to compare a layer with it.
    thresholds : tuple of Threshold
        Empty.

    Examples
    --------
    >>> from rankdiag.weights import marchenko_pastur
    >>> baseline = marchenko_pastur(64, 16, std=0.5)
    >>> baseline.edge, baseline.lower_edge, round(baseline.effective_rank, 2), round(baseline.stable_rank, 2)
    (6.0, 2.0, 15.46, 7.11)
    """

    tag: ClassVar[str] = "weights.MarchenkoPastur"

    m: int
    n: int
    std: float
    edge: float
    lower_edge: float
    effective_rank: float
    effective_rank_energy: float
    participation_ratio: float
    stable_rank: float
    effective_rank_ratio: float

    def density(self, s: Any) -> Floats:
        r"""Return the density of the singular values at `s`, in one over the units of the entries.

        Parameters
        ----------
        s : array-like
            Where, in the units of the entries.

        Returns
        -------
        ndarray of float64
            Same shape as `s`; 0 outside the edges, and everywhere if the matrix has one row or column or `std` is 0,
            where all of the mass is in one place. It integrates to 1.

        Raises
        ------
        TypeError, ValueError
            If `s` holds no finite real numbers.

        Notes
        -----
        With p the smaller and q the larger side, and :math:`s_\pm = \sigma (\sqrt q \pm \sqrt p)`,

        .. math::

            f(s) = \frac{\sqrt{(s_+^2 - s^2)(s^2 - s_-^2)}}{\pi\, p\, \sigma^2\, s} .

        References
        ----------
        V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", Math. USSR
        Sbornik 1 (1967); in this form derived by substituting s^2 for the eigenvalue.

        Examples
        --------
        >>> from rankdiag.weights import marchenko_pastur
        >>> baseline = marchenko_pastur(100, 100)
        >>> [round(float(f), 4) for f in baseline.density([10.0, 25.0])]  # the quarter circle that ends at 20
        [0.0551, 0.0]
        """
        at = as_float64(s, "s", allow_empty=True)
        result = np.zeros(at.shape)
        inside = (at > self.lower_edge) & (at < self.edge) & (min(self.m, self.n) > 1)
        if inside.any():
            t, low = at[inside] / self.edge, self.lower_edge / self.edge
            # For a square matrix the root holds a factor t too, which is taken out: t may be too small to be squared.
            over_t = np.ones_like(t) if low == 0.0 else np.sqrt((t - low) * (t + low)) / t
            root = np.sqrt((1.0 - t) * (1.0 + t)) * over_t
            result[inside] = root * (self.edge / self.std) ** 2 / (np.pi * min(self.m, self.n)) / self.edge
        return result

    def document(self) -> Document:
        """Return what this baseline shows: its numbers, and the density of the singular values."""
        plots: tuple[Plot, ...] = ()
        if min(self.m, self.n) > 1 and self.std > 0:
            # Points crowd towards the edges, where the curve is steep.
            share = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, _CURVE))
            at = self.lower_edge * (1 - share) + self.edge * share
            plots = (
                Plot(
                    title="Singular values of random matrices",
                    x_label="singular value (units of the entries)",
                    y_label="density",
                    series=(Series(label="Marchenko-Pastur", x=at.tolist(), y=self.density(at).tolist()),),
                    lines=(ReferenceLine(axis="x", value=self.edge, label="edge"),),
                    description="Density of the singular values of a large random matrix of this shape.",
                ),
            )
        return dataclasses.replace(
            super(MarchenkoPastur, self).document(),  # the short form of super() fails in a dataclass with slots
            title=f"Random {self.m} x {self.n} matrix",
            key_numbers=(
                KeyNumber(label="edge", value=self.edge, doc="no singular value of pure noise is far above it"),
                KeyNumber(label="lower edge", value=self.lower_edge, doc="nor far below this one"),
                KeyNumber(label="effective rank (sigma)", value=self.effective_rank),
                KeyNumber(label="effective rank / min(m, n)", value=self.effective_rank_ratio),
                KeyNumber(label="effective rank (energy)", value=self.effective_rank_energy),
                KeyNumber(label="participation ratio", value=self.participation_ratio),
                KeyNumber(label="stable rank", value=self.stable_rank),
            ),
            plots=plots,
        )


def marchenko_pastur(m: int, n: int, *, std: float = 1.0) -> MarchenkoPastur:
    r"""Return the readings of a large random matrix: independent entries of mean 0 and one variance.

    Parameters
    ----------
    m, n : int
        Shape of the matrix, >= 1.
    std : float
        Standard deviation of its entries, >= 0; only the edges depend on it.

    Returns
    -------
    MarchenkoPastur
        Edges, effective ranks, participation ratio and stable rank.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If a side is below 1 or beyond 2^53, or `std` is negative, not finite, or so large that the edge is beyond
        float64.

    See Also
    --------
    shuffled_spectrum : The same question asked of the entries that a matrix really has.

    Notes
    -----
    With p the smaller side, q the larger and y = p / q, the singular values over :math:`\sigma \sqrt q` follow the
    Marchenko-Pastur law, and with :math:`E` its mean

    - sigma effective rank :math:`p\, E[t]\, \exp(-E[t \log t] / E[t])`, see `marchenko_pastur_effective_rank`;
    - energy effective rank :math:`p\, e^{-y/2}`, from :math:`E[t^2 \log t^2] = y / 2` (the large-matrix form of Page
      1993; derived here from the moments :math:`E[t^{2s}] = {}_2F_1(-s, 1 - s; 2; y)`);
    - participation ratio :math:`p / (1 + y) = m n / (m + n)`, from :math:`E[t^4] = 1 + y` (derived);
    - stable rank :math:`p / (1 + \sqrt y)^2 = m n / (\sqrt m + \sqrt n)^2` (derived).

    Against sampled Gaussian matrices the sigma effective rank is within 3 % from 4 x 4 on, and within 1 % from
    32 x 32 on; the stable rank follows the largest value and converges more slowly (10 % above its limit at 32 x 32,
    1.3 % at 512 x 512).
    Entries with heavy tails, or with a mean that is not 0, add values above the edge.

    How to read it: a layer whose effective rank is near the baseline looks random (untrained or frozen); values above
    the edge are structure that training has put in.

    References
    ----------
    V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", Math. USSR Sbornik
    1 (1967).

    D. N. Page, "Average entropy of a subsystem", Phys. Rev. Lett. 71 (1993), arXiv:gr-qc/9305007.

    Examples
    --------
    >>> from rankdiag.weights import marchenko_pastur
    >>> baseline = marchenko_pastur(1500, 1000, std=0.02)
    >>> round(baseline.effective_rank_ratio, 4), round(baseline.participation_ratio), round(baseline.edge, 4)
    (0.8942, 600, 1.4071)
    """
    small, large = _sides(m, n)
    edge = marchenko_pastur_edge(m, n, std)
    std = real(std, "std")
    effective_rank = marchenko_pastur_effective_rank(m, n)
    ratio = small / large
    return MarchenkoPastur(
        m=int(m),
        n=int(n),
        std=std,
        edge=edge,
        lower_edge=std * (large - small) / (math.sqrt(large) + math.sqrt(small)),
        effective_rank=effective_rank,
        effective_rank_energy=1.0 if small == 1 else small * math.exp(-ratio / 2),
        participation_ratio=1.0 if small == 1 else small / (1 + ratio),
        stable_rank=1.0 if small == 1 else small / (1 + math.sqrt(ratio)) ** 2,
        effective_rank_ratio=effective_rank / small,
        explanation=(
            f"A random {m} x {n} matrix has an effective rank near {effective_rank:.4g}, {effective_rank / small:.3g} "
            f"of its {small} directions, and no singular value far above {edge:.4g}. A trained layer that reads the "
            "same cannot be told from noise by its spectrum."
        ),
        meta=Meta(
            definition="Marchenko-Pastur limit: independent entries of mean 0 and one variance, large sides",
            base="e",
        ),
    )


def marchenko_pastur_edge(m: int, n: int, std: float) -> float:
    r"""Return where the singular values of a large random matrix end: ``std * (sqrt(m) + sqrt(n))``.

    Parameters
    ----------
    m, n : int
        Shape of the matrix, >= 1.
    std : float
        Standard deviation of its entries, >= 0. For a matrix whose mean entry is not 0 that is not the root mean
        square: the mean makes one large value of its own.

    Returns
    -------
    float
        The edge, in the units of `std`.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If a side is below 1 or beyond 2^53, or `std` is negative, not finite, or so large that the edge is beyond
        float64.

    References
    ----------
    V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", Math. USSR Sbornik
    1 (1967). That the largest value converges to the edge: S. Geman, Ann. Probab. 8 (1980).

    Examples
    --------
    >>> from rankdiag.weights import marchenko_pastur_edge
    >>> marchenko_pastur_edge(64, 16, 0.5)
    6.0
    """
    small, large = _sides(m, n)
    std = real(std, "std", low=0.0)
    edge = std * (math.sqrt(small) + math.sqrt(large))
    if math.isinf(edge):
        raise ValueError(f"`std` must give an edge within float64; got {std!r} for shape ({m}, {n})")
    return edge


def marchenko_pastur_effective_rank(m: int, n: int) -> float:
    r"""Return the sigma effective rank of a large random matrix of this shape.

    Parameters
    ----------
    m, n : int
        Shape of the matrix, >= 1.

    Returns
    -------
    float
        Between ``0.805 min(m, n)`` (square) and ``min(m, n)`` (very elongated); exactly 1 for one row or column.

    Raises
    ------
    TypeError
        If a side is no integer.
    ValueError
        If a side is below 1 or beyond 2^53.

    Notes
    -----
    With y = min(m, n) / max(m, n), the squared singular values over the larger side are
    :math:`\lambda(\theta) = |1 + \sqrt y e^{i \theta}|^2` with density :math:`(2 / \pi) \sin^2 \theta / \lambda`
    on :math:`0 \le \theta \le \pi` (Marchenko and Pastur 1967, substituted). For a large matrix the sums in the
    entropy become means over this law, so with :math:`t = \sqrt \lambda`

    .. math::

        \frac{\mathrm{erank}}{\min(m, n)} = E[t]\, e^{-E[t \log t] / E[t]},

    derived; at y = 1 it is :math:`2 e^{4/3} / (3 \pi) = 0.80504`. The means are Gauss-Legendre integrals over panels
    of :math:`\theta` that halve towards :math:`\pi`, where :math:`\lambda` comes close to 0: 496 points, relative
    error below 1e-13 for every aspect ratio. The factor that depends on the shape is cached.

    References
    ----------
    V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", Math. USSR Sbornik
    1 (1967). O. Roy, M. Vetterli, "The effective rank", EUSIPCO 2007.

    Examples
    --------
    >>> from rankdiag.weights import marchenko_pastur_effective_rank
    >>> round(marchenko_pastur_effective_rank(1000, 1000), 3), round(marchenko_pastur_effective_rank(1000, 1500), 3)
    (805.041, 894.154)
    """
    small, large = _sides(m, n)
    return 1.0 if small == 1 else small * _rank_ratio(small, large)


def _sides(m: Any, n: Any) -> tuple[int, int]:
    first, second = integer(m, "m", low=1, high=_LARGEST), integer(n, "n", low=1, high=_LARGEST)
    return min(first, second), max(first, second)


@lru_cache(maxsize=1024)
def _rank_ratio(small: int, large: int) -> float:
    """Sigma effective rank over `small` in the limit of large matrices of this aspect ratio."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    edges = np.concatenate([[0.0], np.pi * 2.0 ** np.arange(-_PANELS, 1)])
    half = np.diff(edges)[:, None] / 2
    phi = (edges[:-1, None] + half * (1 + nodes)).ravel()  # pi - theta
    root = math.sqrt(small / large)
    gap = (large - small) / large / (1 + root)  # 1 - root
    sine = np.sin(phi / 2)
    t = np.sqrt(gap * gap + 4 * root * sine * sine)
    density = (2 / np.pi) * (half * weights).ravel() * (np.sin(phi) / t) ** 2
    mean = float(density @ t)
    return mean * math.exp(-float(density @ (t * np.log(t))) / mean)


def mp_outliers(values: Any, shape: Sequence[int], std: float, *, margin: float = 0.02) -> int:
    r"""Count the singular values above the Marchenko-Pastur edge: structure that noise does not explain.

    Parameters
    ----------
    values : array-like of shape (k,)
        Singular values, in any order.
    shape : (m, n)
        Shape of the matrix they belong to.
    std : float
        Standard deviation of its entries, >= 0.
    margin : float
        How far above the edge a value has to be, relative to it, >= 0.

    Returns
    -------
    int
        Number of values above ``(1 + margin) * std * (sqrt(m) + sqrt(n))``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `values` is not 1-D or has negative or non-finite entries, if `shape` is not two sides >= 1, or if `std` or
        `margin` is negative or not finite.

    Notes
    -----
    The largest value of a finite random matrix is spread around the edge by about :math:`p^{-2/3}` of it (Johnstone
    2001). With the margin of 2 %, pure noise has an outlier in about 6 % of square matrices of side 16 to 32, 4 % at
    64 and 1.5 % at 128, and practically never from 512 on (measured on Gaussian matrices).

    References
    ----------
    V. A. Marchenko, L. A. Pastur, "Distribution of eigenvalues for some sets of random matrices", Math. USSR Sbornik
    1 (1967). I. M. Johnstone, "On the distribution of the largest eigenvalue in principal components analysis", Ann.
    Statist. 29 (2001), theorem 1.1.

    Examples
    --------
    >>> from rankdiag.weights import mp_outliers
    >>> mp_outliers([30.0, 20.3, 19.0, 5.0], (100, 100), 1.0)  # the edge is 20
    1
    >>> mp_outliers([30.0, 20.3, 19.0, 5.0], (100, 100), 1.0, margin=0.0)
    2
    """
    spectrum = as_float64(values, "values", ndim=1, allow_empty=True, expected="a list of singular values")
    if (spectrum < 0).any():
        raise ValueError(f"`values` must be singular values >= 0; the smallest is {float(spectrum.min())!r}")
    if isinstance(shape, (str, bytes)) or not isinstance(shape, Sequence):
        raise TypeError(f"`shape` must be two integers (m, n); got {describe(shape)}")
    if len(shape) != 2:
        raise ValueError(f"`shape` must be two integers (m, n); got {len(shape)} entries")
    m, n = (integer(side, "shape", low=1, high=_LARGEST) for side in shape)
    limit = marchenko_pastur_edge(m, n, std) * (1 + real(margin, "margin", low=0.0))
    return int((spectrum > limit).sum())


def shuffled_spectrum(
    matrix: Any, *, rng: int | np.random.Generator | None = None, need: Literal["rank", "sums", "top"] = "rank"
) -> Spectrum:
    """Return the spectrum of a matrix whose entries have been shuffled: its own distribution, without structure.

    Parameters
    ----------
    matrix : array-like of shape (m, n)
        The matrix; it is left as it is.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the shuffle; None draws a seed, which ``meta.seed`` of the result repeats.
    need : {"rank", "sums", "top"}
        What will be read, as for `rankdiag.spectral.spectrum`.

    Returns
    -------
    rankdiag.spectral.Spectrum
        Of the shuffled matrix, with the seed in ``meta.seed`` (None if a generator came in).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If `matrix` is not 2-D, is empty or not finite, or the seed is negative.

    See Also
    --------
    marchenko_pastur : The same baseline in closed form, for entries without heavy tails.

    Notes
    -----
    All m n entries are permuted with equal chance. Unlike the closed form this keeps heavy tails and the mean of the
    entries, so a value above its largest one is due to where the entries are, not to what they are. One shuffle is
    one sample. Cost: a copy of the matrix and one decomposition.

    References
    ----------
    C. H. Martin, M. W. Mahoney, "Implicit self-regularization in deep neural networks", JMLR 22 (2021),
    arXiv:1810.01075 (randomised weights).

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.weights import shuffled_spectrum
    >>> ramp = np.outer(np.ones(8), np.arange(8.0))  # rank 1
    >>> shuffled = shuffled_spectrum(ramp, rng=0)
    >>> shuffled.numerical_rank(), shuffled.meta.seed
    (8, 0)
    """
    from rankdiag.spectral import spectrum

    array = as_float64(matrix, "matrix", ndim=2, expected="a matrix")
    generator, seed = as_generator(rng)
    found = spectrum(generator.permutation(array.ravel()).reshape(array.shape), need=need)
    dtype = input_dtype(matrix)
    meta = dataclasses.replace(
        found.meta,
        definition="singular values of the matrix with its entries shuffled",
        seed=seed,
        dtype=dtype,
    )
    return dataclasses.replace(found, input_dtype=dtype, meta=meta)

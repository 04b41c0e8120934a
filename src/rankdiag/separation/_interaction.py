"""How strongly a given function mixes two sides of its input: the spectrum of its values on cut-and-paste inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype
from rankdiag._document import Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._result import Meta, Result
from rankdiag._validate import describe, integer
from rankdiag.separation._blocks import called, pair_values, rows_of, take
from rankdiag.spectral import spectrum

__all__ = ["InteractionSpectrum", "interaction_matrix", "interaction_spectrum"]

Floats = NDArray[np.float64]

_ADDITIVE = 0.05  # of the variance; below it the text says "almost additive"
_MAX_POINTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InteractionSpectrum(Result):
    """Singular values of a function's values on all pairs of settings of its two sides, and what they say.

    Attributes
    ----------
    singular_values : ndarray of float64, shape (min(m, k),)
        Of ``F / sqrt(m k)``, descending: estimates of the Schmidt coefficients of the function.
    rank : int
        Number of them above the tolerance; never above the separation rank of the function.
    entropy : float
        Shannon entropy of the shares of squared singular values, nats: the entanglement entropy.
    effective_rank : float
        exp(entropy), 0 for a zero matrix.
    interaction_share : float
        Share of the variance of F that no sum of a function of one side and a function of the other explains, in
        [0, 1]; 0 if F is constant or additive up to rounding.
    rank_centred : int
        Singular values above the same tolerance once row and column means are taken off.
    shape : tuple of int
        (m, k), settings of the two sides.
    tolerance : float
        What singular values were compared with, in the units of `singular_values`.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.separation import interaction_spectrum
    >>> x, y = np.array([-1.0, 0, 1, 2])[:, None], np.array([-2.0, -1, 1, 3, 4])
    >>> found = interaction_spectrum(1 + x + y + 2 * x * y)
    >>> found.rank, found.rank_centred, found.shape
    (2, 1, (4, 5))
    """

    tag: ClassVar[str] = "separation.InteractionSpectrum"
    judged: ClassVar[bool] = False

    singular_values: NDArray[np.float64]
    rank: int
    entropy: float
    effective_rank: float
    interaction_share: float
    rank_centred: int
    shape: tuple[int, int]
    tolerance: float

    def document(self) -> Document:
        """Return what this result shows: its readings, and a plot of the singular values."""
        return Document(
            title=f"Interaction of two sides, {self.shape[0]} x {self.shape[1]} settings",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(
                    label="interaction share",
                    value=self.interaction_share,
                    doc="Share of the variance beyond a function of one side plus a function of the other.",
                ),
                KeyNumber(label="effective rank", value=self.effective_rank, doc="exp(entropy) of squared values."),
                KeyNumber(label="entropy", value=self.entropy, unit="nats"),
                KeyNumber(label="rank", value=self.rank, doc=f"Of at most {min(self.shape)}."),
                KeyNumber(label="rank, centred", value=self.rank_centred, doc="Without row and column means."),
            ),
            plots=(self._spectrum_plot(),),
            notes=self.notes(),
        )

    def _spectrum_plot(self) -> Plot:
        count = len(self.singular_values)
        step = max(1, math.ceil(count / _MAX_POINTS))
        lines = (
            (ReferenceLine(axis="y", value=self.tolerance, label="tolerance of rank"),) if self.tolerance > 0 else ()
        )
        return Plot(
            title="Singular values",
            x_label="number",
            y_label="singular value of F / sqrt(m k)",
            series=(
                Series(
                    label="",
                    x=tuple(range(1, count + 1, step)),
                    y=tuple(self.singular_values[::step].tolist()),
                    kind="points",
                ),
            ),
            y_scale="log",
            lines=lines,
            description="Singular values of the function's values, descending, on a log scale.",
        )


def interaction_matrix(
    fn: Callable[[Any], Any],
    left: Any,
    right: Any,
    *,
    combine: Callable[[Any, Any], Any],
    batch_size: int = 4096,
) -> NDArray[np.float64]:
    """Evaluate a function on every setting of one side combined with every setting of the other.

    Parameters
    ----------
    fn : callable
        Takes what `combine` returns and gives B numbers, (B,) or (B, 1). A torch module, a method of one or a partial
        of these runs in evaluation mode; gradients are off for every callable, and modes and random states of torch are
        put back.
    left : array-like or torch.Tensor, shape (m, ...)
        Settings of one side, along axis 0.
    right : array-like or torch.Tensor, shape (k, ...)
        Settings of the other side.
    combine : callable
        ``combine(left[a], right[b])`` for two index arrays of one length B <= `batch_size`: builds the batch of inputs,
        row for row.
    batch_size : int
        Most inputs at a time.

    Returns
    -------
    ndarray of float64, shape (m, k)
        Entry (a, b) is the function of setting a of `left` with setting b of `right`.

    Raises
    ------
    TypeError
        If an argument has the wrong type, `fn` returns no numbers, or it or `combine` raises a TypeError.
    ValueError
        If there are no settings, or `fn` returns another number of values, one that is not finite, or other values for
        the same inputs in another batch (dropout, or batch normalisation, left on). Also if `fn` or `combine` raises
        something else than a TypeError; its own error is the cause.

    Notes
    -----
    m k evaluations and up to 16 more, to see whether they repeat. Memory 8 m k bytes for the result, and what one batch
    of inputs takes; nothing else grows with m k.

    References
    ----------
    Cutting and pasting halves of inputs follows the definition of separation rank, arXiv 2211.16494, section 2: the
    rank of this matrix is at most the separation rank of the function.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.separation import interaction_matrix
    >>> pair = lambda a, b: np.stack((a, b), axis=1)
    >>> interaction_matrix(lambda x: x[:, 0] * x[:, 1], [1.0, 2.0], [3.0, 4.0, 5.0], combine=pair)
    array([[ 3.,  4.,  5.],
           [ 6.,  8., 10.]])
    """
    for value, name in ((fn, "fn"), (combine, "combine")):
        if not callable(value):
            raise TypeError(f"`{name}` must be callable; got {describe(value)}")
    size = integer(batch_size, "batch_size", low=1)
    one, m = rows_of(left, "left")
    other, k = rows_of(right, "right")

    def make(a: NDArray[np.int64], b: NDArray[np.int64]) -> Any:
        return called(combine, "combine", len(a), take(one, a), take(other, b))

    return pair_values(fn, make, (m, k), batch_size=size)


def interaction_spectrum(F: Any, *, rtol: float | None = None) -> InteractionSpectrum:
    r"""Read how strongly a function mixes two sides of its input, from its values on all pairs of settings.

    Parameters
    ----------
    F : array-like or torch.Tensor, shape (m, k)
        Values, as `interaction_matrix` gives them.
    rtol : float, optional
        Singular values count towards a rank above ``rtol`` times the largest one of F; by default max(m, k) times the
        machine epsilon of the dtype of F. Values that a model computed in float32 need about 1e-5.

    Returns
    -------
    InteractionSpectrum
        Singular values, ranks, entropy and the share of variance that is interaction.

    Raises
    ------
    TypeError
        If F is no array of real numbers.
    ValueError
        If F has not two axes, is empty, not finite or of a norm beyond float64, or `rtol` is negative.

    Notes
    -----
    With :math:`p_i = \sigma_i^2 / \sum_j \sigma_j^2` the entropy is :math:`-\sum_i p_i \ln p_i`. The interaction share
    is :math:`\|\tilde F\|_F^2 / \|F - \mathrm{mean}(F)\|_F^2`, where :math:`\tilde F` has no row and column means;
    it is 0 where the denominator, or every singular value of :math:`\tilde F`, is rounding. Below about 0.05 the
    function treats its sides almost additively; an effective rank near 1 is one product of functions.

    Functions of networks with ReLU or attention have no finite separation rank as a rule: read entropy and effective
    rank there, not `rank`.

    Cost of two decompositions, O(m k min(m, k)). Memory: about three float64 arrays of the size of F, itself among
    them. For sides far beyond a few thousand settings draw fewer: readings of a random subset of rows and columns
    estimate the same.

    References
    ----------
    Separation rank: arXiv 2211.16494, section 2. The interaction share is the two-way share of an analysis of variance.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.separation import interaction_spectrum
    >>> x, y = np.arange(3.0)[:, None], np.arange(4.0)
    >>> product, additive = interaction_spectrum((1 + x) * (1 + y)), interaction_spectrum(x + y)
    >>> product.rank, round(product.effective_rank, 12), additive.rank, additive.interaction_share
    (1, 1.0, 2, 0.0)
    """
    values: Floats = as_float64(F, "F", ndim=2, expected="a matrix of values (m, k)")
    shape = (int(values.shape[0]), int(values.shape[1]))
    size = math.sqrt(shape[0]) * math.sqrt(shape[1])
    if float(np.abs(values).max()) > np.finfo(np.float64).max / (2 * size):
        raise ValueError("`F` has entries so large that its norm is beyond float64; divide it by a constant first")
    whole = spectrum(F)
    limit = float(whole.rank_threshold(rtol=rtol))
    rounding = float(whole.rank_threshold())
    share, centred = _interaction(values, rounding)
    singular = whole.values / size
    singular.flags.writeable = False
    found = InteractionSpectrum(
        singular_values=singular,
        rank=int(whole.numerical_rank(rtol=rtol)),
        entropy=float(whole.spectral_entropy(weights="energy")),
        effective_rank=float(whole.effective_rank(weights="energy")),
        interaction_share=share,
        rank_centred=int((centred > limit).sum()),
        shape=shape,
        tolerance=limit / size,
    )
    meta = Meta(
        definition="singular values of F / sqrt(m k), F the function on all pairs of settings of its two sides",
        base="e",
        n=shape[0] * shape[1],
        dtype=input_dtype(F),
        details={
            "effective_rank": "exp of the entropy of squared singular values (weights='energy')",
            "rtol": "max(m, k) eps" if rtol is None else float(rtol),
        },
    )
    return dataclasses.replace(found, meta=meta, explanation=_explain(found))


def _interaction(values: Floats, rounding: float) -> tuple[float, Floats]:
    """Return the share of variance that is interaction, and the singular values without row and column means."""
    largest = float(np.abs(values).max())
    if largest == 0:
        return 0.0, np.zeros(min(values.shape))
    power = math.frexp(largest)[1] - 1
    scaled = np.ldexp(values, -power)  # exact, and no square leaves float64
    scaled -= scaled.mean()
    total = float(np.linalg.norm(scaled))
    scaled -= scaled.mean(axis=1, keepdims=True)
    scaled -= scaled.mean(axis=0, keepdims=True)
    inner = float(np.linalg.norm(scaled))
    centred = np.ldexp(spectrum(scaled).values, power)
    if total == 0 or centred[0] <= rounding:
        return 0.0, centred
    return min(1.0, (inner / total) ** 2), centred


def _explain(found: InteractionSpectrum) -> str:
    m, k = found.shape
    if found.effective_rank == 0:
        return "The function is 0 on every pair of settings: the sides have nothing to interact in."
    share = f"{100 * found.interaction_share:.3g}% of the variance"
    if found.interaction_share == 0:
        first = "The function is a sum of a function of each side, up to rounding: no interaction was seen. "
    elif found.interaction_share < _ADDITIVE:
        first = f"The function treats the two sides almost additively: {share} is interaction. "
    else:
        first = f"{share} is interaction, which no sum of a function of each side explains. "
    second = (
        f"Its values weigh as much as {found.effective_rank:.4g} products of a function of each side (effective rank; "
        "1 is one product)."
    )
    if found.rank == min(m, k) > 1:
        second += f" All {found.rank} singular values are above the tolerance: more settings may show a higher rank."
    return first + second

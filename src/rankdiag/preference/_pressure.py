"""How hard training on a whole dataset pushes each chosen response down: sums over all pairs in one product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, refuse_size
from rankdiag._document import Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe
from rankdiag.preference._ches_columns import row_blocks
from rankdiag.preference._log_probs import points_to_show

__all__ = ["DatasetPressure", "dataset_pressure", "influence_matrix"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DatasetPressure(Result):
    """What each pair does to its own chosen response, and what all pairs together do to it.

    Attributes
    ----------
    own : ndarray of float64, shape (N,)
        Influence of a pair on its own chosen response, its CHES score (or its head-level score).
    pressure : ndarray of float64, shape (N,)
        Mean influence of all pairs, the pair itself among them; positive pushes the chosen response down.

    Examples
    --------
    >>> from rankdiag.preference import dataset_pressure
    >>> len(dataset_pressure([[1.0, 0.0]], [[3.0, 0.0]]))
    1
    """

    tag: ClassVar[str] = "preference.DatasetPressure"

    own: NDArray[np.float64]
    pressure: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("own", "pressure"):
            array = np.array(as_float64(getattr(self, name), name, ndim=1, finite=False, expected="one number a pair"))
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if len(self.own) != len(self.pressure):
            raise ValueError(f"`pressure` must have {len(self.own)} entries, as `own` has; got {len(self.pressure)}")
        if not self.explanation:
            object.__setattr__(self, "explanation", self._explain())
        if not self.meta.definition:
            meta = Meta(
                definition="mean over the dataset of the influence of each pair on ln pi(chosen); positive is down",
                n=int(np.isfinite(self.pressure).sum()),
                details={"reference": "derived here from arXiv 2410.08847, Theorem 6"},
            )
            object.__setattr__(self, "meta", meta)

    def __len__(self) -> int:
        return len(self.own)

    def _explain(self) -> str:
        usable = np.isfinite(self.pressure)
        share = float((self.pressure[usable] > 0).mean()) if usable.any() else float("nan")
        return (
            f"A step on the whole dataset is predicted to push {share:.0%} of the chosen responses down. Of the scores "
            "of this kind only the one at the head orders the outcomes of batch training well; where it matters, "
            "predict the step itself with logprob_change_along."
        )

    def document(self) -> Document:
        """Return what this result shows: shares, and own influence against that of the dataset."""
        usable = np.isfinite(self.pressure) & np.isfinite(self.own)
        shown = points_to_show(np.flatnonzero(usable))
        share = float((self.pressure[usable] > 0).mean()) if usable.any() else None
        return Document(
            title="Pressure of the dataset on its chosen responses",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="pairs", value=len(self)),
                KeyNumber(label="pushed down", value=share, doc="Share of pairs with pressure > 0."),
            ),
            plots=(
                Plot(
                    title="A pair alone against the whole dataset",
                    x_label="own influence",
                    y_label="pressure of the dataset",
                    series=(
                        Series(
                            label="pairs", x=self.own[shown].tolist(), y=self.pressure[shown].tolist(), kind="points"
                        ),
                    ),
                    description=f"{len(shown)} pairs; above 0 the chosen response is pushed down.",
                ),
            ),
            notes=self.notes(),
        )


def dataset_pressure(sum_chosen: Any, sum_rejected: Any, *, weights: Any = None) -> DatasetPressure:
    """Influence of the whole dataset on each chosen response, from sums of hidden states.

    Parameters
    ----------
    sum_chosen, sum_rejected : array-like or torch.Tensor, shape (N, d)
        S+ and S- of each pair.
    weights : array-like, shape (N,), optional
        Loss weight g of each pair, see `loss_weights`; None takes 1.

    Returns
    -------
    DatasetPressure
        ``own`` = <S+_i, S-_i - S+_i>, which is CHES, without weights; ``pressure`` = <S+_i, M> with M the mean over all
        pairs of g (S- - S+).

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If shapes do not fit or an entry is not finite.

    Notes
    -----
    Derived here. Time O(N d); memory of one block of rows beyond the input, and a float64 copy of an input that is of
    another dtype. All coefficients of the exact formula are set to 1; `head_pressure` keeps them and predicts better.

    Examples
    --------
    >>> from rankdiag.preference import dataset_pressure
    >>> result = dataset_pressure([[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 0.0]])
    >>> result.own.tolist(), result.pressure.tolist()
    ([2.0, -1.0], [1.0, -0.5])
    """
    plus, minus = _sums(sum_chosen, sum_rejected)
    count = len(plus)
    g = np.ones(count) if weights is None else as_float64(weights, "weights", ndim=1, expected="one weight a pair")
    if len(g) != count:
        raise ValueError(f"`weights` must have one entry for each of {count} pairs; got {describe(weights)}")
    own, mean = np.empty(count), np.zeros(plus.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in row_blocks(plus.shape):  # differences first: what the sums share would drown them in rounding
            difference = minus[rows] - plus[rows]
            own[rows] = np.einsum("nd,nd->n", plus[rows], difference)
            mean += (g[rows] / count) @ difference
        pressure = plus @ mean
    _refuse_overflow(own, pressure, names="`sum_chosen`, `sum_rejected` and `weights`")
    return DatasetPressure(own=own, pressure=pressure)


def influence_matrix(sum_chosen: Any, sum_rejected: Any) -> NDArray[np.float64]:
    """Influence of every pair on the chosen response of every pair.

    Parameters
    ----------
    sum_chosen, sum_rejected : array-like or torch.Tensor, shape (N, d)
        S+ and S- of each pair.

    Returns
    -------
    ndarray of float64, shape (N, N)
        Entry (i, j) is <S+_i, S-_j - S+_j>: positive where training on pair j pushes the chosen response of pair i
        down. The diagonal is CHES, the row means are the pressure.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If shapes do not fit, an entry is not finite, or the matrix would not fit into memory.

    Notes
    -----
    Derived here. Time O(N^2 d), memory O(N^2).

    Examples
    --------
    >>> from rankdiag.preference import influence_matrix
    >>> influence_matrix([[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 0.0]]).tolist()
    [[2.0, 0.0], [0.0, -1.0]]
    """
    plus, minus = _sums(sum_chosen, sum_rejected)
    refuse_size(len(plus) ** 2, "sum_chosen", (len(plus), len(plus)))
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(plus @ (minus - plus).T + 0.0, dtype=np.float64)
    _refuse_overflow(found, names="`sum_chosen` and `sum_rejected`")
    return found


def _refuse_overflow(*arrays: Floats, names: str) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{names} have products beyond float64; scale them down")


def _sums(sum_chosen: Any, sum_rejected: Any) -> tuple[Floats, Floats]:
    plus = as_float64(sum_chosen, "sum_chosen", ndim=2, expected="sums of states (N, d)")
    minus = as_float64(sum_rejected, "sum_rejected", ndim=2, expected="sums of states (N, d)")
    if plus.shape != minus.shape:
        raise ValueError(f"`sum_rejected` must have the shape of `sum_chosen`, {plus.shape}; got {minus.shape}")
    return plus, minus

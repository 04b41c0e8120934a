"""Geometry of the unembedding rows of a preferred and a dispreferred token."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rankdiag._document import Document, KeyNumber
from rankdiag._result import Meta, Result
from rankdiag.preference._unembedding import Unembedding, require_within_float64, token_pair

__all__ = ["UnembeddingGeometry", "unembedding_geometry"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnembeddingGeometry(Result):
    """How the unembedding rows of two tokens lie to each other.

    Training on a preference pushes the hidden state along W+ - W-. Where that difference is mostly orthogonal to
    W+, other tokens along it gain more than the preferred one.

    Attributes
    ----------
    norm_chosen, norm_rejected : float
        Norms of W+ and W-, the rows of the preferred and the dispreferred token.
    inner : float
        <W+, W->.
    rejected_projection_on_chosen : float
        <W+, W-> / ||W+||, with its sign.
    difference_projection_on_chosen : float
        <W+ - W-, W+> / ||W+||, with its sign.
    orthogonal_norm : float
        Norm of the part of W- that is orthogonal to W+; the same for W+ - W-.
    orthogonal_dominates : bool
        Whether `orthogonal_norm` is above the absolute value of `difference_projection_on_chosen`.
    meta : Meta
        Definition, size of a row, dtype, the two tokens.
    verdict : str
        ``"unknown"``: no threshold of the theory stands on these numbers alone.
    explanation : str
        How to read them.
    thresholds : tuple of Threshold
        Empty.

    Examples
    --------
    >>> from rankdiag.preference import unembedding_geometry
    >>> unembedding_geometry([[3.0, 0.0], [4.0, 5.0]], 0, 1).orthogonal_norm
    5.0
    """

    tag: ClassVar[str] = "preference.UnembeddingGeometry"

    norm_chosen: float
    norm_rejected: float
    inner: float
    rejected_projection_on_chosen: float
    difference_projection_on_chosen: float
    orthogonal_norm: float
    orthogonal_dominates: bool

    def document(self) -> Document:
        """Return what this result shows: the two parts of W+ - W- first, then norms and products."""
        along = "part of W+ - W- along W+"
        return dataclasses.replace(
            super(UnembeddingGeometry, self).document(),  # the short form of super() fails in a dataclass with slots
            title="Unembedding geometry of a preference pair",
            key_numbers=(
                KeyNumber(label=along, value=self.difference_projection_on_chosen, doc="Feeds the preferred token."),
                KeyNumber(
                    label="part of W+ - W- orthogonal to W+",
                    value=self.orthogonal_norm,
                    doc="Feeds whichever tokens lie along it; the same for W-.",
                ),
                KeyNumber(label="orthogonal part dominates", value=self.orthogonal_dominates),
                KeyNumber(label="part of W- along W+", value=self.rejected_projection_on_chosen),
                KeyNumber(label="<W+, W->", value=self.inner, doc="Positive: similar tokens."),
                KeyNumber(label="norm of W+", value=self.norm_chosen),
                KeyNumber(label="norm of W-", value=self.norm_rejected),
            ),
        )


def unembedding_geometry(W: Any, chosen: int, rejected: int) -> UnembeddingGeometry:
    r"""Split W+ - W-, the direction in which a preference moves hidden states, along and across W+.

    Parameters
    ----------
    W : array-like of shape (V, d)
        Unembedding matrix (output projection); only two of its rows are read.
    chosen, rejected : int
        Ids of the preferred and the dispreferred token.

    Returns
    -------
    UnembeddingGeometry
        Norms, inner product, both projections, the orthogonal part and whether it dominates.

    Raises
    ------
    TypeError
        If `W` holds no numbers or an id is no integer.
    ValueError
        If `W` is not 2-D, one of the two rows is not finite or is beyond float64 when squared, an id is outside
        [0, V), both ids are the same, or W+ is zero and has no direction.

    See Also
    --------
    rankdiag.preference.single_token_dynamics : What the geometry does to every token's probability.

    Notes
    -----
    With the unit vector :math:`\hat w = W_+ / \|W_+\|` the two parts of :math:`W_+ - W_-` are

    .. math::

        \langle W_+ - W_-, \hat w \rangle = \|W_+\| - \langle W_-, \hat w \rangle, \qquad
        \big\| W_- - \langle W_-, \hat w \rangle \hat w \big\| .

    The paper finds the orthogonal part the larger one for every model and pair of tokens that it looks at
    (Table 13). The orthogonal part is formed as a vector, so that it keeps its digits where W- is nearly parallel
    to W+. Cost: O(d).

    References
    ----------
    N. Razin, S. Malladi, A. Bhaskar, D. Chen, S. Arora, B. Hanin, "Unintentional Unalignment: Likelihood
    Displacement in Direct Preference Optimization", arXiv:2410.08847, section 4.2 and Table 13.

    Examples
    --------
    >>> from rankdiag.preference import unembedding_geometry
    >>> W = [[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]]
    >>> g = unembedding_geometry(W, chosen=3, rejected=4)  # No over Never
    >>> g.inner, g.difference_projection_on_chosen, g.orthogonal_norm, g.orthogonal_dominates
    (22.5, -4.5, 6.0, True)
    """
    matrix = Unembedding(W)
    ids = token_pair(chosen, rejected, matrix.shape[0])
    plus, minus = matrix.take(ids)
    scale = float(np.abs(plus).max())
    if scale == 0.0:
        raise ValueError(f"`W` must have a direction at row `chosen` = {int(ids[0])}; got zeros")
    unit = plus / scale
    unit = unit / np.linalg.norm(unit)
    with np.errstate(over="ignore", invalid="ignore"):
        along, inner = float(minus @ unit), float(plus @ minus)
        norm_chosen, norm_rejected = float(np.linalg.norm(plus)), float(np.linalg.norm(minus))
        difference = float((plus - minus) @ unit)
        orthogonal = float(np.linalg.norm(minus - along * unit))
    require_within_float64(inner, norm_chosen, norm_rejected, difference, orthogonal, names="the rows of `W`")
    dominates = orthogonal > abs(difference)
    return UnembeddingGeometry(
        norm_chosen=norm_chosen,
        norm_rejected=norm_rejected,
        inner=inner,
        rejected_projection_on_chosen=along,
        difference_projection_on_chosen=difference,
        orthogonal_norm=orthogonal,
        orthogonal_dominates=dominates,
        explanation=_explain(difference, orthogonal),
        meta=Meta(
            definition="parts of W+ - W- along and across W+",
            dtype=matrix.dtype,
            details={"chosen": int(ids[0]), "rejected": int(ids[1]), "d": matrix.shape[1]},
        ),
    )


def _explain(along: float, orthogonal: float) -> str:
    share = orthogonal / math.hypot(along, orthogonal) if along or orthogonal else 0.0
    larger = "larger" if orthogonal > abs(along) else "not larger"
    return (
        f"Training moves the hidden state along W+ - W-. Its part across W+ is {larger} than its part along W+ "
        f"({share:.0%} of its norm lies across). The part across helps whichever tokens have rows along it, and these "
        "may mean the opposite of the preferred token; look at what gains with single_token_dynamics."
    )

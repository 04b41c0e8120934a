"""One row of a delta report, and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass

from rankdiag._document import Column
from rankdiag.weights._row import NAMING, SPECTRAL_COLUMNS, WeightRow

__all__ = ["DELTA_COLUMNS", "EPS_RANKS", "WeightDeltaRow"]

EPS_RANKS = (("eps_rank_10", 0.1), ("eps_rank_1", 0.01))
"""Columns and relative Frobenius errors of the two eps-ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDeltaRow(WeightRow):
    """What a fine-tuning did to one matrix: the spectrum of its update, tuned minus base.

    The attributes of `WeightRow` are those of the update; these come on top.

    Attributes
    ----------
    status : str
        ``"changed"``, ``"identical"``, ``"resized"`` (the common rows are compared), ``"adapter"`` (the update of a
        low-rank adapter), ``"shape differs"``, ``"only in base"``, ``"only in tuned"``.
    update : str
        ``"none"``, ``"low rank"``, ``"low rank above rounding"``, ``"rounding only"``, ``"dense"``, or empty.
    base_fro, relative_norm : float or None
        Frobenius norm of the base, and that of the update over it.
    changed_fraction : float or None
        Share of the entries that differ at all.
    rounding_edge : float or None
        Largest singular value that rounding the tuned weights to their dtype can be expected to cause.
    rank_above_rounding : int or None
        Singular values of the update beyond that edge by more than 2 %.
    eps_rank_10, eps_rank_1 : int or None
        Smallest ranks that leave at most 10 % and 1 % of the Frobenius norm.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> base = np.random.default_rng(0).standard_normal((8, 6))
    >>> (row,) = rd.weight_delta_report({"a": base}, {"a": base + 1.0}).rows
    >>> row.status, row.update, row.numerical_rank, row.changed_fraction
    ('changed', 'low rank', 1, 1.0)
    """

    status: str = ""
    update: str = ""
    base_fro: float | None = None
    relative_norm: float | None = None
    changed_fraction: float | None = None
    rounding_edge: float | None = None
    rank_above_rounding: int | None = None
    eps_rank_10: int | None = None
    eps_rank_1: int | None = None


DELTA_COLUMNS = (
    *NAMING,
    Column(name="status", doc="How the two sides relate: changed, identical, resized, adapter, on one side only."),
    Column(name="update", doc="Kind of update: none, low rank, low rank above rounding, rounding only, dense."),
    Column(name="relative_norm", label="norm / base", doc="Frobenius norm of the update over that of the base."),
    *(column for column in SPECTRAL_COLUMNS if column.name != "remark"),
    Column(name="base_fro", label="base norm", doc="Frobenius norm of the base."),
    Column(name="changed_fraction", label="changed", doc="Share of the entries that differ at all."),
    Column(
        name="rounding_edge",
        label="rounding edge",
        doc="Largest singular value that rounding to the stored dtype can be expected to cause.",
    ),
    Column(
        name="rank_above_rounding",
        label="rank above rounding",
        unit="values",
        doc="Singular values of the update beyond the rounding edge by more than 2 %.",
    ),
    Column(
        name="eps_rank_10",
        label="eps-rank 10 %",
        unit="values",
        doc="Smallest rank that leaves at most 10 % of the Frobenius norm.",
    ),
    Column(
        name="eps_rank_1",
        label="eps-rank 1 %",
        unit="values",
        doc="Smallest rank that leaves at most 1 % of the Frobenius norm.",
    ),
    Column(name="remark", doc="Why cells are empty, and what else a reader has to know."),
)

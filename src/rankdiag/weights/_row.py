"""One row of a weight report, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rankdiag._document import Column

__all__ = ["LOW_RANK_RATIO", "MEASURED", "PROFILES", "SPECTRAL_COLUMNS", "TAIL_ENERGY", "WeightRow", "sketch_positions"]

TAIL_ENERGY = 0.05
"""Share of the energy ||W||_F^2 that the LoRA rank hint may leave out."""

LOW_RANK_RATIO = 0.3
"""Effective rank over n below which a matrix is called strongly low rank."""

MEASURED = (
    "stable_rank",
    "effective_rank",
    "erank_energy",
    "participation",
    "numerical_rank",
    "spectral",
    "fro",
    "nuclear",
    "alpha",
    "mp_edge_outliers",
    "condition",
    "baseline_effective_rank",
    "lora_rank_hint",
)
"""What `measures` may name; columns derived from these come with them."""

PROFILES: Mapping[str, frozenset[str]] = {
    "all": frozenset(MEASURED),
    "no_tail": frozenset(MEASURED) - {"alpha"},
    "stable_rank": frozenset({"stable_rank", "spectral", "fro"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRow:
    """One matrix: what it is, and every reading of its spectrum s_1 >= ... >= s_n.

    A reading that was not asked for is None; one that was asked for and has no value is None with a reason in
    `nulls`.

    Attributes
    ----------
    name : str
        Tensor, or ``"tensor[part]"`` for a gate, an expert or a part of a fused matrix.
    shape : tuple of int
        Shape of the tensor as stored, or of the part.
    kind : str
        Kind of layer.
    matricization : str
        What the rows and columns of the matrix are.
    dtype : str
        Stored dtype.
    n : int
        Number of singular values.
    stable_rank, effective_rank, erank_energy, participation : float or None
        Sum s^2 / s_1^2; exp of the entropy of s; the same of s^2; (sum s^2)^2 / sum s^4.
    numerical_rank : int or None
        Values above `rank_rtol` * s_1.
    spectral, fro, nuclear : float or None
        Largest singular value, Frobenius and nuclear norm.
    alpha, x_min, D, sigma : float or None
        Power law of the eigenvalues s^2: exponent, cut-off, distance, standard error of the exponent.
    n_tail : int or None
        Eigenvalues in the tail.
    mp_edge_outliers : int or None
        Singular values beyond the edge of a random matrix by more than 2 %.
    condition : float or None
        s_1 / s_n.
    seconds : float
        Time spent on this row.
    parameters : int
        Entries of the matrix, or of the factors of an update.
    effective_rank_ratio, stable_rank_ratio, numerical_rank_ratio : float or None
        The three ranks over n.
    baseline_effective_rank, effective_rank_over_baseline : float or None
        Effective rank of a random matrix of this shape, and the measured one over it.
    lora_rank_hint : int or None
        Smallest rank that leaves at most 5 % of the energy.
    rank_rtol : float or None
        Relative tolerance of `numerical_rank`.
    method : str
        Route that gave the values.
    error_bound : float or None
        No singular value is further than this from the true one.
    tensors : tuple of str
        Tensors of the source that the matrix is made of.
    nulls : mapping of str to str
        Column -> why it has no value.
    remarks : tuple of str
        What else a reader has to know.
    sketch : tuple of float
        Singular values over s_1 at at most 32 places that are even in the logarithm, for plots.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> (row,) = rd.weight_report({"a.weight": np.diag([2.0, 1.0, 1.0])}).rows
    >>> row.kind, row.n, row.stable_rank, row.condition
    ('Linear', 3, 1.5, 2.0)
    >>> row.nulls["alpha"]
    'a tail needs 10 eigenvalues above the noise floor; there are 3'
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    matricization: str
    dtype: str
    n: int
    stable_rank: float | None = None
    effective_rank: float | None = None
    erank_energy: float | None = None
    participation: float | None = None
    numerical_rank: int | None = None
    spectral: float | None = None
    fro: float | None = None
    nuclear: float | None = None
    alpha: float | None = None
    x_min: float | None = None
    D: float | None = None
    sigma: float | None = None
    n_tail: int | None = None
    mp_edge_outliers: int | None = None
    condition: float | None = None
    seconds: float = 0.0
    parameters: int = 0
    effective_rank_ratio: float | None = None
    stable_rank_ratio: float | None = None
    numerical_rank_ratio: float | None = None
    baseline_effective_rank: float | None = None
    effective_rank_over_baseline: float | None = None
    lora_rank_hint: int | None = None
    rank_rtol: float | None = None
    method: str = ""
    error_bound: float | None = None
    tensors: tuple[str, ...] = ()
    nulls: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    sketch: tuple[float, ...] = ()

    @property
    def remark(self) -> str:
        """Why cells are empty, and what else a reader has to know, as one line."""
        reasons: dict[str, list[str]] = {}
        for column, reason in self.nulls.items():
            reasons.setdefault(reason, []).append(column)
        lines = [*self.remarks, *(f"no {', '.join(columns)}: {reason}" for reason, columns in reasons.items())]
        return "; ".join(lines)


def sketch_positions(n: int, points: int = 32) -> tuple[int, ...]:
    """Return at most `points` places in ``0 .. n-1``, the first and the last among them, evenly spread in the log."""
    if n <= points:
        return tuple(range(n))
    ratio = n ** (1 / (points - 1))
    places = {0, n - 1}
    for index in range(1, points - 1):
        places.add(min(n - 1, round(ratio**index) - 1))
    return tuple(sorted(places))


NAMING = (
    Column(name="name", label="tensor", doc="Tensor, or tensor[part] for a gate, an expert or a fused part."),
    Column(name="shape", doc="Shape as stored, or of the part."),
    Column(name="kind", doc="Kind of layer."),
    Column(name="matricization", doc="What the rows and columns of the matrix are."),
    Column(name="dtype", doc="Stored dtype."),
    Column(name="n", unit="values", doc="Number of singular values."),
)

SPECTRAL_COLUMNS = (
    Column(
        name="stable_rank",
        label="stable rank",
        unit="directions",
        doc="sum s^2 / s_1^2; reacts only to the largest value.",
    ),
    Column(
        name="effective_rank",
        label="effective rank",
        unit="directions",
        doc="exp of the entropy of s / sum(s) (sigma weights): how many directions of comparable size.",
    ),
    Column(name="erank_energy", label="energy erank", unit="directions", doc="The same of s^2 / sum(s^2)."),
    Column(name="participation", unit="directions", doc="(sum s^2)^2 / sum s^4."),
    Column(
        name="numerical_rank",
        label="numerical rank",
        unit="values",
        doc="Values above rank_rtol * s_1; the default tolerance is that of the stored dtype.",
    ),
    Column(name="spectral", label="spectral norm", doc="Largest singular value s_1."),
    Column(name="fro", label="Frobenius norm", doc="sqrt(sum s^2)."),
    Column(name="nuclear", label="nuclear norm", doc="sum s."),
    Column(name="alpha", doc="Exponent of a power law fitted to the eigenvalues s^2; says little without D, n_tail."),
    Column(name="x_min", label="x min", doc="Smallest eigenvalue of the fitted tail."),
    Column(name="D", doc="Kolmogorov-Smirnov distance of the fit; 0 is perfect."),
    Column(name="sigma", doc="Standard error of alpha for a cut-off known beforehand."),
    Column(name="n_tail", label="n tail", unit="values", doc="Eigenvalues in the tail."),
    Column(
        name="mp_edge_outliers",
        label="outliers",
        unit="values",
        doc="Singular values beyond the random-matrix edge std (sqrt(m) + sqrt(n)) by more than 2 %.",
    ),
    Column(name="condition", doc="s_1 / s_n, where s_n is known to 0.1 %."),
    Column(name="seconds", unit="s", doc="Time spent on this row."),
    Column(name="parameters", doc="Entries of the matrix, or of the factors of an update."),
    Column(
        name="effective_rank_ratio",
        label="erank / n",
        doc="Effective rank over n; below 0.3 is strongly low rank.",
    ),
    Column(name="stable_rank_ratio", label="stable / n", doc="Stable rank over n."),
    Column(name="numerical_rank_ratio", label="rank / n", doc="Numerical rank over n."),
    Column(
        name="baseline_effective_rank",
        label="random erank",
        unit="directions",
        doc="Effective rank of a random matrix of this shape.",
    ),
    Column(
        name="effective_rank_over_baseline",
        label="erank / random",
        doc="Effective rank over that of a random matrix; near 1 looks random (untrained or frozen).",
    ),
    Column(
        name="lora_rank_hint",
        label="LoRA rank",
        unit="values",
        doc="Smallest rank that leaves at most 5 % of the energy (eps-rank at eps = sqrt(0.05)).",
    ),
    Column(name="rank_rtol", label="rank rtol", doc="Relative tolerance of the numerical rank."),
    Column(name="method", doc="Route that gave the singular values."),
    Column(name="error_bound", label="error bound", doc="No singular value is further than this from the true one."),
    Column(name="remark", doc="Why cells are empty, and what else a reader has to know."),
)

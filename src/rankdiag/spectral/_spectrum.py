"""The result of a decomposition: singular values with what is known about them, read as often as wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, machine_eps
from rankdiag._document import Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._result import Meta, Result
from rankdiag._validate import boolean, choice, describe, integer, real, string
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import EPS32, Decomposition

__all__ = ["METHODS", "Count", "Method", "Reading", "Spectrum", "Weights", "make_spectrum"]

Floats = NDArray[np.float64]
Method = Literal["svd", "qr_svd", "gram", "topk", "slq", "values"]
METHODS: tuple[Method, ...] = ("svd", "qr_svd", "gram", "topk", "slq", "values")
Weights = Literal["sigma", "energy"]
# One matrix gives a plain number, a stack an array; the second is Any because no annotation can tell them apart.
Reading = float | Any
Count = int | Any

_DEFINITION = "singular values s_1 >= ... >= s_k of an m x n matrix"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum(Result):
    """Singular values of a matrix, or of a stack of matrices of one shape.

    Decompose once with `spectrum`, read often: every measure is a method here, and a function of the same name that
    takes a matrix or a `Spectrum`. Readings of one matrix are plain numbers, readings of a stack are float64 arrays
    over its leading axes. A partial spectrum (``"topk"``, ``"slq"``) refuses what it cannot answer.

    Attributes
    ----------
    values : ndarray of float64, shape (..., k)
        Descending, not negative, read-only; empty for ``"slq"``.
    shape : tuple of int
        (m, n) of the matrix.
    method : {"svd", "qr_svd", "gram", "topk", "slq", "values"}
        Route that gave the values; ``"values"`` for a list that was given.
    error_bound : float or ndarray
        No value is further than this from the true one, in the units of the values.
    input_dtype : str
        Dtype of the matrix that came in; the default tolerance of `numerical_rank` follows from it.
    frobenius : float or ndarray
        Frobenius norm of the whole matrix, also where only some values are known.
    effective_rank_low, effective_rank_high : float, ndarray or None
        Bracket of the sigma effective rank, ``"slq"`` only.
    effective_rank_stderr : float, ndarray or None
        Standard error over the probes, to be added to both sides of the bracket.
    probes : int or None
        Number of probe vectors, ``"slq"`` only.
    meta : Meta
        Definition, method, error bound, arithmetic, seed.
    verdict : str
        ``"unknown"``: the theory sets no threshold for a spectrum alone.
    explanation : str
        How to read the numbers.
    thresholds : tuple of Threshold
        Empty.

    Examples
    --------
    >>> import rankdiag as rd
    >>> s = rd.spectrum([[3.0, 0.0], [0.0, 1.0]])
    >>> s.values.tolist()
    [3.0, 1.0]
    >>> round(s.effective_rank(), 6), round(s.stable_rank(), 6), s.numerical_rank()
    (1.754765, 1.111111, 2)
    """

    tag: ClassVar[str] = "spectral.Spectrum"

    values: NDArray[np.float64]
    shape: tuple[int, int]
    method: Method
    error_bound: float | NDArray[np.float64] = 0.0
    input_dtype: str = "float64"
    frobenius: float | NDArray[np.float64] = 0.0
    effective_rank_low: float | NDArray[np.float64] | None = None
    effective_rank_high: float | NDArray[np.float64] | None = None
    effective_rank_stderr: float | NDArray[np.float64] | None = None
    probes: int | None = None

    def __post_init__(self) -> None:
        method = choice(self.method, "method", METHODS)
        values = _checked_values(self.values, allow_empty=method == "slq")
        m, n = _checked_shape(self.shape)
        if method in {"svd", "qr_svd", "gram"} and values.shape[-1] != min(m, n):
            raise ValueError(f"`values` must hold min{(m, n)} entries for {method!r}; got shape {values.shape}")
        leading = values.shape[:-1]
        checked = {
            "values": values,
            "shape": (m, n),
            "input_dtype": string(self.input_dtype, "input_dtype"),
            "error_bound": _leading(self.error_bound, "error_bound", leading),
            "frobenius": _leading(self.frobenius, "frobenius", leading),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_values(
        cls, values: Any, *, shape: tuple[int, int] | None = None, input_dtype: str = "float64", error_bound: Any = 0.0
    ) -> Spectrum:
        """Make a spectrum of values that are already known, in any order.

        Values that a larger `shape` has room for and that are not listed count as zeros.

        Parameters
        ----------
        values : array-like, shape (..., k)
            Singular values, not negative.
        shape : tuple of int, optional
            (m, n) of the matrix they belong to; (k, k) by default.
        input_dtype : str
            Dtype that sets the default tolerance of `numerical_rank`.
        error_bound : float or array-like
            How far a value may be from the true one.

        Returns
        -------
        Spectrum
            With method ``"values"``.

        Raises
        ------
        TypeError
            If an argument is of the wrong kind.
        ValueError
            If a value is negative or not finite, or there is none.

        Examples
        --------
        >>> from rankdiag.spectral import Spectrum
        >>> Spectrum.from_values([1.0, 2.0, 1.0]).stable_rank()
        1.5
        """
        array = as_float64(values, "values", min_ndim=1, expected="a list of singular values")
        if (array < 0).any():
            raise ValueError(f"`values` must not be negative; the smallest is {float(array.min())!r}")
        ordered = np.sort(array, axis=-1)[..., ::-1]
        k = int(ordered.shape[-1])
        top = ordered[..., :1]
        with np.errstate(over="ignore"):
            frobenius = top[..., 0] * np.sqrt((_measures.relative(ordered) ** 2).sum(axis=-1))
        if not np.isfinite(frobenius).all():
            raise ValueError("`values` are so large that their norm is beyond float64; divide them by a constant first")
        found = Decomposition(ordered, np.zeros_like(frobenius), frobenius, "values")
        bound = _leading(error_bound, "error_bound", ordered.shape[:-1])
        return make_spectrum(
            found._replace(bound=np.broadcast_to(np.asarray(bound), frobenius.shape)),
            shape=(k, k) if shape is None else shape,
            input_dtype=input_dtype,
        )

    # --- measures -------------------------------------------------------------------------------------------

    def singular_values(self) -> NDArray[np.float64]:
        """Return the values, descending; of a ``"topk"`` spectrum the top ones."""
        if self.method == "slq":
            raise self._cannot("singular values")
        return self.values

    def effective_rank(self, *, weights: Weights = "sigma") -> Reading:
        """Return exp of the Shannon entropy; see `rankdiag.spectral.effective_rank`."""
        energy = choice(weights, "weights", ("sigma", "energy")) == "energy"
        if self.method == "slq" and not energy:
            low, high = np.asarray(self.effective_rank_low), np.asarray(self.effective_rank_high)
            return _plain((low + high) / 2.0)
        self._need_all(f"effective rank ({weights})")
        return _plain(_measures.effective_rank(self.values, energy))

    @property
    def bracket(self) -> tuple[Reading, Reading, Reading] | None:
        """(low, high, stderr) of the sigma effective rank of an ``"slq"`` spectrum; None for the others."""
        if self.effective_rank_low is None:
            return None
        return self.effective_rank_low, self.effective_rank_high, self.effective_rank_stderr

    def spectral_entropy(self, *, weights: Weights = "sigma", order: float = 1.0, normalize: bool = False) -> Reading:
        """Return the Renyi entropy in nats; see `rankdiag.spectral.spectral_entropy`."""
        energy = choice(weights, "weights", ("sigma", "energy")) == "energy"
        a = real(order, "order", low=0.0, infinite=True)
        scaled = boolean(normalize, "normalize")
        if self.method == "topk" and energy and math.isinf(a) and not scaled:
            return _plain(np.log(np.maximum(np.asarray(self.stable_rank()), 1.0)))
        self._need_all("spectral entropy")
        entropy = _measures.renyi_entropy(self.values, energy, a)
        if not scaled:
            return _plain(entropy)
        size = np.asarray(self.numerical_rank(), dtype=np.float64)
        out = np.zeros_like(entropy)
        np.divide(entropy, np.log(np.maximum(size, 1.0)), out=out, where=size > 1)
        return _plain(out)

    def participation_ratio(self) -> Reading:
        """Return (sum s^2)^2 / sum s^4; see `rankdiag.spectral.participation_ratio`."""
        self._need_all("participation ratio")
        return _plain(_measures.participation_ratio(self.values))

    def stable_rank(self) -> Reading:
        """Return sum s^2 / s_1^2; see `rankdiag.spectral.stable_rank`."""
        if self.method == "topk":
            top = self.values[..., 0]
            ratio = np.zeros_like(top)
            np.divide(np.asarray(self.frobenius), top, out=ratio, where=top > 0)
            return _plain(ratio * ratio)
        self._need_all("stable rank")
        return _plain(_measures.stable_rank(self.values))

    def nuclear_ratio(self) -> Reading:
        """Return sum s / s_1; see `rankdiag.spectral.nuclear_ratio`."""
        self._need_all("nuclear ratio")
        return _plain(_measures.nuclear_ratio(self.values))

    def schatten_norm(self, p: float | Literal["nuc", "fro", "spec"]) -> Reading:
        """Return (sum s^p)^(1/p); see `rankdiag.spectral.schatten_norm`."""
        power = schatten_power(p)
        if self.method == "topk" and math.isinf(power):
            return _plain(self.values[..., 0])
        if self.method == "topk" and power == 2.0:
            return self.frobenius
        self._need_all(f"Schatten norm of p = {power:g}")
        return _plain(finite_norm(_measures.schatten_norm(self.values, power), power))

    def numerical_rank(self, *, rtol: float | None = None, atol: float | None = None) -> Count:
        """Return the number of values above a tolerance; see `rankdiag.spectral.numerical_rank`."""
        self._need_all("numerical rank")
        threshold = self.rank_threshold(rtol=rtol, atol=atol)
        if self._coarse() and not rank_is_settled(self.values, threshold, np.asarray(self.error_bound)):
            worst = float(np.max(np.asarray(self.error_bound)))
            raise ValueError(
                f"a spectrum by method {self.method!r} cannot count values here: its error bound {worst:.3g} reaches "
                f"the threshold or a value near it; use spectrum(matrix, need='rank'), or a larger `rtol` or `atol`"
            )
        return _plain_count(_measures.count_above(self.values, threshold))

    def rank_threshold(self, *, rtol: float | None = None, atol: float | None = None) -> NDArray[np.float64]:
        """Return max(atol, rtol * s_1), the bound that `numerical_rank` compares with.

        Parameters
        ----------
        rtol : float, optional
            Relative tolerance; by default max(m, n) eps of the input dtype, eps alone for 16-bit and smaller floats.
        atol : float, optional
            Absolute tolerance; 0 by default.

        Returns
        -------
        ndarray of float64
            Over the leading axes; 0-dimensional for one matrix.

        Raises
        ------
        ValueError
            If a tolerance is negative.
        """
        self._need_all("numerical rank")
        relative, absolute = rank_tolerances(rtol, atol, self.shape, self.input_dtype)
        limit: NDArray[np.float64] = np.maximum(absolute, relative * self.values[..., 0])
        return limit

    def eps_rank(self, eps: float) -> Count:
        """Return the smallest rank that leaves at most eps of the norm; see `rankdiag.spectral.eps_rank`."""
        limit = real(eps, "eps", low=0.0, infinite=True)
        self._need_all("eps-rank")
        return _plain_count(_measures.eps_rank(self.values, limit))

    def distance_to_rank(self, rank: int) -> Reading:
        """Return the Frobenius distance to the matrices of a rank; see `rankdiag.spectral.distance_to_rank`."""
        r = integer(rank, "rank", low=0, high=min(self.shape) if self.method != "values" else None)
        self._need_all("distance to a rank")
        tails = _measures.tail_norms(self.values)
        return _plain(tails[..., min(r, tails.shape[-1] - 1)])

    def certified_rank(self, error_norm: float) -> Count:
        """Return a rank that no error of this norm can hide; see `rankdiag.spectral.certified_rank`."""
        size = real(error_norm, "error_norm", low=0.0)
        self._need_all("certified rank")
        return _plain_count(_measures.count_above(self.values, size + np.asarray(self.error_bound)))

    # --- what can be answered -------------------------------------------------------------------------------

    def _cannot(self, what: str) -> ValueError:
        return ValueError(
            f"a spectrum by method {self.method!r} is partial and has no {what}; use spectrum(matrix) for all values"
        )

    def _need_all(self, what: str) -> None:
        if self.method in {"topk", "slq"}:
            raise self._cannot(what)

    def _coarse(self) -> bool:
        """Whether the error bound is far above what the input dtype can show, so that rank counts need care."""
        arithmetic = self.meta.details.get("arithmetic")
        return self.method == "gram" or (arithmetic == "float32" and machine_eps(self.input_dtype) < EPS32)

    # --- showing --------------------------------------------------------------------------------------------

    def document(self) -> Document:
        """Return what this spectrum shows: its readings, each rank with its tolerance, and a plot of the values."""
        base = super(Spectrum, self).document()
        return Document(
            title=f"Spectrum of a {self.shape[0]} x {self.shape[1]} matrix",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=_key_numbers(self),
            plots=_plots(self),
            notes=base.notes,
        )


def _checked_values(values: Any, *, allow_empty: bool) -> NDArray[np.float64]:
    array = as_float64(values, "values", min_ndim=1, allow_empty=allow_empty, expected="a list of singular values")
    if (array < 0).any() or (array[..., 1:] > array[..., :-1]).any():
        raise ValueError("`values` must be descending and not negative; use Spectrum.from_values to sort a list")
    out = np.array(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def _checked_shape(shape: Any) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"`shape` must be a pair (m, n); got {describe(shape)}")
    return integer(shape[0], "shape", low=1), integer(shape[1], "shape", low=1)


def _leading(value: Any, name: str, leading: tuple[int, ...]) -> float | NDArray[np.float64]:
    """Check a number that may be an array over the leading axes."""
    if not leading:
        return real(value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value, name, low=0.0)
    array = as_float64(value, name, expected="numbers over the leading axes")
    if (array < 0).any():
        raise ValueError(f"`{name}` must not be negative; the smallest is {float(array.min())!r}")
    try:
        out = np.array(np.broadcast_to(array, leading), dtype=np.float64)
    except ValueError:
        raise ValueError(f"`{name}` must have the leading axes {leading}; got shape {array.shape}") from None
    out.flags.writeable = False
    return out


def _plain(value: Any) -> Reading:
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim else float(array)


def _plain_count(value: Any) -> Count:
    array = np.asarray(value, dtype=np.float64)
    return array if array.ndim else int(array)


def schatten_power(p: Any) -> float:
    """Read the argument `p` of `schatten_norm`."""
    if isinstance(p, str):
        return {"nuc": 1.0, "fro": 2.0, "spec": math.inf}[choice(p, "p", ("nuc", "fro", "spec"))]
    return real(p, "p", low=0.0, low_open=True, infinite=True)


def finite_norm(norm: Floats, power: float) -> Floats:
    """Refuse a norm that float64 cannot hold."""
    if not np.isfinite(norm).all():
        raise ValueError(f"the Schatten norm of `p` = {power:g} is beyond float64 for this matrix; use a larger p")
    return norm


def rank_tolerances(rtol: Any, atol: Any, shape: tuple[int, int], dtype: str) -> tuple[float, float]:
    """Check tolerances and fill in the default: max(m, n) eps of the input dtype, eps alone for 16 bits and less."""
    eps = machine_eps(dtype)
    default = eps if eps > EPS32 else max(shape) * eps
    relative = default if rtol is None else real(rtol, "rtol", low=0.0)
    return relative, 0.0 if atol is None else real(atol, "atol", low=0.0)


def rank_is_settled(values: Floats, threshold: Floats, bound: Floats) -> bool:
    """Whether no value lies within the error bound of the threshold, and the threshold above the bound."""
    near = np.abs(values - threshold[..., None]) <= bound[..., None]
    zero = values[..., 0] == 0
    return bool(((~near.any(axis=-1) & (threshold > bound)) | zero).all())


def make_spectrum(
    found: Decomposition,
    *,
    shape: tuple[int, int],
    input_dtype: str,
    arithmetic: str = "float64",
    seed: int | None = None,
    details: dict[str, Any] | None = None,
    **fields: Any,
) -> Spectrum:
    """Wrap values and what is known about them as a result.

    Parameters
    ----------
    found : Decomposition
        Values, bound, norm and method.
    shape : tuple of int
        (m, n).
    input_dtype : str
        Dtype that came in.
    arithmetic : str
        Dtype computed in.
    seed : int, optional
        Seed of the random start, if there was one.
    details : dict, optional
        Further conventions of the method.
    **fields : object
        Fields of the method's own.

    Returns
    -------
    Spectrum
        Frozen.
    """
    batched = found.values.ndim > 1
    stated = {
        "method": found.method,
        "arithmetic": arithmetic,
        "error_bound": float(np.max(found.bound)) if found.bound.size else 0.0,
        **(details or {}),
    }
    return Spectrum(
        values=found.values,
        shape=shape,
        method=found.method,  # type: ignore[arg-type]  # a checked choice by now
        error_bound=found.bound if batched else float(found.bound),
        input_dtype=input_dtype,
        frobenius=found.frobenius if batched else float(found.frobenius),
        meta=Meta(definition=_DEFINITION, base="e", seed=seed, dtype=input_dtype, details=stated),
        explanation=_explain(found, shape),
        **fields,
    )


def _explain(found: Decomposition, shape: tuple[int, int]) -> str:
    if found.values.ndim > 1 or found.method in {"topk", "slq"}:
        return ""
    if found.values[0] == 0:
        return "The matrix is zero: every rank and entropy is 0."
    erank = float(_measures.effective_rank(found.values, False))
    stable = float(_measures.stable_rank(found.values))
    return (
        f"About {erank:.4g} of {min(shape)} directions are of comparable size (effective rank; 1 means one direction). "
        f"The stable rank {stable:.4g} reacts only to the largest value, the effective rank to the whole tail: a small "
        "stable rank beside a large effective rank means a few strong directions over a broad floor."
    )


def _key_numbers(s: Spectrum) -> tuple[KeyNumber, ...]:
    return ()


def _plots(s: Spectrum) -> tuple[Plot, ...]:
    return ()


_ = (ReferenceLine, Series)

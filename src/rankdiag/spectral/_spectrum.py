"""The result of a decomposition: singular values with what is known about them, read as often as wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, machine_eps
from rankdiag._document import Document
from rankdiag._result import Meta, Result
from rankdiag._validate import boolean, choice, describe, integer, real, string
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import EPS32, EPS64, Decomposition, svd_bound
from rankdiag.spectral._options import Weights, is_energy, rank_tolerances, schatten_power

__all__ = ["Count", "Method", "Reading", "Spectrum", "make_spectrum", "rank_is_settled"]

Floats = NDArray[np.float64]
Method = Literal["svd", "qr_svd", "gram", "topk", "slq", "values"]
_METHODS: tuple[Method, ...] = ("svd", "qr_svd", "gram", "topk", "slq", "values")
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
        Standard error over the probes, by which either end of the bracket may be off; ``"slq"`` only.
    probes : int or None
        Number of probe vectors, ``"slq"`` only.
    seed : int or None
        Seed that repeats a ``"topk"`` or ``"slq"`` spectrum; None if nothing random was used, or a generator given.
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
    seed: int | None = None

    def __post_init__(self) -> None:
        method = choice(self.method, "method", _METHODS)
        values = _checked_values(self.values, allow_empty=method == "slq")
        shape = checked_shape(self.shape)
        count, room = values.shape[-1], min(shape)
        if count > room or (method in {"svd", "qr_svd", "gram"} and count != room):
            raise ValueError(f"`shape` {shape} has room for {room} values by method {method!r}; got {count}")
        leading = values.shape[:-1]
        checked: dict[str, Any] = {"values": values, "shape": shape, "method": method}
        checked["input_dtype"] = string(self.input_dtype, "input_dtype")
        for name in ("error_bound", "frobenius", *_BRACKET):
            entry = getattr(self, name)
            if name in _BRACKET and (entry is None) != (method != "slq"):
                raise ValueError(f"`{name}` belongs to method 'slq' and only to it; got method {method!r}")
            checked[name] = None if entry is None else over_leading(entry, name, leading)
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
        frobenius = _measures.schatten_norm(ordered, 2.0)
        if not np.isfinite(frobenius).all():
            raise ValueError("`values` are so large that their norm is beyond float64; divide them by a constant first")
        k = int(ordered.shape[-1])
        sides = (k, k) if shape is None else checked_shape(shape)
        bound = np.asarray(over_leading(error_bound, "error_bound", ordered.shape[:-1]))
        return make_spectrum(
            Decomposition(ordered, bound, frobenius, "values"),
            shape=sides,
            input_dtype=input_dtype,
        )

    # --- measures -------------------------------------------------------------------------------------------

    def singular_values(self) -> NDArray[np.float64]:
        """Return the values, descending; of a ``"topk"`` spectrum the top ones."""
        if self.method == "slq":
            self._refuse("singular values")
        return self.values

    def effective_rank(self, *, weights: Weights = "sigma") -> Reading:
        """Return exp of the Shannon entropy; see `rankdiag.spectral.effective_rank`.

        Of an ``"slq"`` spectrum it is the middle of the bracket.
        """
        energy = is_energy(weights)
        if self.method == "slq" and not energy:
            return _plain((np.asarray(self.effective_rank_low) + np.asarray(self.effective_rank_high)) / 2.0)
        self._need_all(f"effective rank with weights={weights!r}")
        return _plain(_measures.effective_rank(self.values, energy))

    @property
    def bracket(self) -> tuple[Reading, Reading, Reading] | None:
        """(low, high, stderr) of the sigma effective rank of an ``"slq"`` spectrum; None for all others."""
        if self.effective_rank_low is None:
            return None
        return self.effective_rank_low, self.effective_rank_high, self.effective_rank_stderr

    def spectral_entropy(self, *, weights: Weights = "sigma", order: float = 1.0, normalize: bool = False) -> Reading:
        """Return the Renyi entropy in nats; see `rankdiag.spectral.spectral_entropy`."""
        energy = is_energy(weights)
        alpha = real(order, "order", low=0.0, infinite=True)
        normalized = boolean(normalize, "normalize")
        if self.method == "topk" and energy and math.isinf(alpha) and not normalized:
            return _plain(np.log(np.maximum(np.asarray(self.stable_rank()), 1.0)))
        self._need_all("spectral entropy")
        entropy = _measures.renyi_entropy(self.values, energy, alpha)
        if not normalized:
            return _plain(entropy)
        rank = np.asarray(self.numerical_rank(), dtype=np.float64)
        ratio = np.zeros_like(entropy)
        np.divide(entropy, np.log(np.maximum(rank, 1.0)), out=ratio, where=rank > 1)
        return _plain(ratio)

    def participation_ratio(self) -> Reading:
        """Return (sum s^2)^2 / sum s^4; see `rankdiag.spectral.participation_ratio`."""
        self._need_all("participation ratio")
        return _plain(_measures.participation_ratio(self.values))

    def stable_rank(self) -> Reading:
        """Return sum s^2 / s_1^2; see `rankdiag.spectral.stable_rank`."""
        if self.method == "topk":
            return _plain(_measures.ratio(np.asarray(self.frobenius), self.values[..., 0]) ** 2)
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
        if self.method in {"topk", "slq"} and power == 2.0:
            return self.frobenius
        self._need_all(f"Schatten norm with p={power:g}")
        norm = _measures.schatten_norm(self.values, power)
        if not np.isfinite(norm).all():
            raise ValueError(f"the Schatten norm with `p` = {power:g} is beyond float64 here; use a larger p")
        return _plain(norm)

    def numerical_rank(self, *, rtol: float | None = None, atol: float | None = None) -> Count:
        """Return the number of values above a tolerance; see `rankdiag.spectral.numerical_rank`."""
        threshold = self.rank_threshold(rtol=rtol, atol=atol)
        if self._is_coarse() and not rank_is_settled(self.values, threshold, np.asarray(self.error_bound)):
            raise ValueError(
                f"a spectrum by method {self.method!r} cannot count values above {float(np.min(threshold)):.3g}: its "
                f"error bound {float(np.max(np.asarray(self.error_bound))):.3g} reaches the threshold or a value near "
                "it. Use spectrum(matrix, need='rank'), or a larger `rtol` or `atol`"
            )
        return _plain_count(_measures.count_above(self.values, threshold))

    def rank_threshold(self, *, rtol: float | None = None, atol: float | None = None) -> NDArray[np.float64]:
        """Return max(atol, rtol * s_1), which `numerical_rank` compares with.

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
        TypeError
            If a tolerance is no number.
        ValueError
            If a tolerance is negative.
        """
        relative, absolute = rank_tolerances(rtol, atol, self.shape, self.input_dtype)
        self._need_all("numerical rank")
        limit: NDArray[np.float64] = np.maximum(absolute, relative * self.values[..., 0])
        return limit

    def eps_rank(self, eps: float) -> Count:
        """Return the smallest rank that leaves at most eps of the norm; see `rankdiag.spectral.eps_rank`."""
        share = real(eps, "eps", low=0.0, infinite=True)
        if self.method != "topk":
            self._need_all("eps-rank")
            if not self._is_coarse():
                return _plain_count(_measures.eps_rank(self.values, share))
        rank, settled = _measures.bracketed_eps_rank(*self._tail_energies(), share)
        if share < 1.0 and not settled:
            raise ValueError(
                f"a spectrum by method {self.method!r} cannot tell the eps-rank for `eps` = {share:g}: that tail is "
                "beyond its values or its error bound. Use spectrum(matrix, need='rank'), or a larger eps"
            )
        return _plain_count(rank if share < 1.0 else np.zeros_like(rank))

    def distance_to_rank(self, rank: int) -> Reading:
        """Return the Frobenius distance to the matrices of a rank; see `rankdiag.spectral.distance_to_rank`."""
        r = integer(rank, "rank", low=0, high=min(self.shape))
        if self.method == "topk":
            if r > self.values.shape[-1]:
                self._refuse(f"distance to rank {r}, only to ranks up to {self.values.shape[-1]}")
            return _plain(np.sqrt(self._tail_energies()[0][..., r]) * np.asarray(self.frobenius))
        self._need_all("distance to a rank")
        tails = _measures.tail_norms(self.values)
        return _plain(tails[..., min(r, tails.shape[-1] - 1)])

    def certified_rank(self, error_norm: float) -> Count:
        """Return a rank that no error of this norm can hide; see `rankdiag.spectral.certified_rank`."""
        size = real(error_norm, "error_norm", low=0.0)
        self._need_all("certified rank")
        return _plain_count(_measures.count_above(self.values, size + np.asarray(self.error_bound)))

    # --- partial spectra ------------------------------------------------------------------------------------

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"a spectrum by method {self.method!r} is partial and has no {what}; use spectrum(matrix) for all values"
        )

    def _need_all(self, what: str) -> None:
        if self.method in {"topk", "slq"}:
            self._refuse(what)

    def _is_coarse(self) -> bool:
        """Whether the error bound is far above what the input dtype can show, so that counts need care."""
        in_float32 = self.meta.details.get("arithmetic") == "float32"
        return self.method == "gram" or (in_float32 and machine_eps(self.input_dtype) < EPS32)

    def _tail_energies(self) -> tuple[Floats, Floats]:
        """Return sum_{i>R} s_i^2 for R = 0..k as shares of the whole, and how far each may be off.

        All values: summed from the smallest up, where the squares of a Gram spectrum are off by the square of its bound
        and those of an SVD by 2 s_i times it. Top values: what the Frobenius norm leaves.
        """
        norm, top = np.asarray(self.frobenius)[..., None], self.values[..., :1]
        share, bound = (
            _measures.ratio(self.values, norm),
            _measures.ratio(np.asarray(self.error_bound)[..., None], norm),
        )
        nothing = np.zeros((*share.shape[:-1], 1))
        if self.method == "topk":
            energies = np.concatenate([nothing, np.cumsum(share * share, axis=-1)], axis=-1)
            sums = np.concatenate([nothing, np.cumsum(share, axis=-1)], axis=-1)
            return np.maximum(np.where(norm > 0, 1.0, 0.0) - energies, 0.0), 2.0 * sums * bound + 64.0 * EPS64
        eps = EPS32 if self.meta.details.get("arithmetic") == "float32" else EPS64
        rounding = np.minimum(bound, _measures.ratio(svd_bound(top, self.shape, eps), norm))
        off = bound * bound + 2.0 * share * rounding
        upward = [
            np.cumsum(x[..., ::-1], axis=-1)[..., ::-1] for x in (share * share, np.broadcast_to(off, share.shape))
        ]
        tails, unsure = (np.concatenate([x, nothing], axis=-1) for x in upward)
        return tails, unsure

    # --- showing --------------------------------------------------------------------------------------------

    def document(self) -> Document:
        """Return what this spectrum shows: its readings, each rank with its tolerance, and a plot of the values."""
        from rankdiag.spectral._show import spectrum_document

        return spectrum_document(self, super(Spectrum, self).notes())


_BRACKET = ("effective_rank_low", "effective_rank_high", "effective_rank_stderr")


def _checked_values(values: Any, *, allow_empty: bool) -> NDArray[np.float64]:
    array = as_float64(values, "values", min_ndim=1, allow_empty=allow_empty, expected="a list of singular values")
    if (array < 0).any() or (array[..., 1:] > array[..., :-1]).any():
        raise ValueError("`values` must be descending and not negative; Spectrum.from_values sorts a list")
    out = np.array(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def checked_shape(shape: Any) -> tuple[int, int]:
    """Check a pair of positive integers, the argument `shape`."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"`shape` must be a pair (m, n); got {describe(shape)}")
    return integer(shape[0], "shape", low=1), integer(shape[1], "shape", low=1)


def over_leading(value: Any, name: str, leading: tuple[int, ...]) -> float | NDArray[np.float64]:
    """Check a number >= 0, or for a stack an array of them over the leading axes."""
    if not leading:
        return real(value, name, low=0.0)
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


def rank_is_settled(values: Floats, threshold: Floats, bound: Floats) -> bool:
    """Whether the threshold is above the error bound and no value within the bound of it, for every matrix."""
    near = (np.abs(values - threshold[..., None]) <= bound[..., None]).any(axis=-1)
    return bool(((~near & (threshold > bound)) | (values[..., 0] == 0)).all())


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
        Fields that belong to the method.

    Returns
    -------
    Spectrum
        Frozen.
    """
    from rankdiag.spectral._show import explain

    stack = found.values.ndim > 1
    stated: dict[str, Any] = {"method": found.method, "arithmetic": arithmetic, **(details or {})}
    if found.method != "slq":
        stated["error_bound"] = float(np.max(found.bound))
    if found.method == "gram":
        kept = _measures.effective_rank(found.values, energy=False)
        cut = _measures.effective_rank(_measures.without_noise(found.values, found.bound), energy=False)
        stated["effective_rank_uncertainty"] = float(np.max(np.abs(kept - cut)))
    return Spectrum(
        values=found.values,
        shape=shape,
        method=found.method,
        error_bound=found.bound if stack else float(found.bound),
        input_dtype=input_dtype,
        frobenius=found.frobenius if stack else float(found.frobenius),
        seed=seed,
        meta=Meta(definition=_DEFINITION, base="e", seed=seed, dtype=input_dtype, details=stated),
        explanation=explain(found, shape),
        **fields,
    )

"""One matrix to its singular values: in memory or in blocks, with one decomposition wherever one is enough.

Precision policy, by column. Sums of squares (stable rank, energy measures, norms) are good to 1e-6 from any route.
Sigma measures (effective rank, nuclear norm) are read from a Gram spectrum only while its error bound moves them by
less than 1e-6 of their size; else the matrix is decomposed again by SVD, or by a streamed QR. A rank is counted only
where no singular value lies within the error bound of the threshold.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.weights._subject import Measured, Options, Subject
from rankdiag.weights._views import KernelView, View, float64_bytes

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["Found", "NonFiniteError", "decompose", "frobenius", "gram_sum_error", "settled_rank"]

Floats = NDArray[np.float64]
SUM_TOLERANCE = 1e-6  # relative error up to which a Gram spectrum may serve the effective rank and the nuclear norm
_TOP_FROM = 512  # below this smaller side a full decomposition costs little and says more
_TOP_ERROR = 1e-6  # relative error that the stable rank is good to
SECOND_PASS_BYTES = 1 << 28  # what an exact decomposition of a streamed matrix may take, however small the matrix
BLOCK_BYTES = 1 << 25  # float64 bytes of one block: enough rows for full matrix-product speed


@dataclass(slots=True)
class Found:
    """A spectrum and the moments of the entries that it came with."""

    spectrum: Spectrum
    mean: float
    entries: int
    shape: tuple[int, int]
    pool: int
    energy_gain: float = 1.0


class NonFiniteError(Exception):
    """Entries that are no numbers were met."""

    def __init__(self, count: int, entries: int) -> None:
        super().__init__(count)
        self.count = count
        self.entries = entries


def decompose(subject: Subject, options: Options, out: Measured) -> Found:
    """Return the singular values of a matrix, by the cheapest route that keeps what is wanted.

    Raises
    ------
    NonFiniteError
        If some entries are no numbers.
    """
    from rankdiag.spectral import Spectrum, spectrum

    factors = subject.factors()
    if factors is not None:
        return _from_factors(*factors, subject.dtype)
    view = subject.view
    size = float64_bytes((view.pool, *view.shape))
    if isinstance(view, KernelView):
        return _from_kernels(subject, view)
    if size > options.max_bytes and view.streamable:
        return _streamed(subject, options, out)
    array = subject.dense()
    if options.top_only and array.ndim == 2 and min(array.shape) > _TOP_FROM:
        top = _top_value(array, subject.dtype)
        if top is not None:
            return _found(top, math.nan, array.size, view)  # nothing that is wanted needs the mean
    mean = _mean(array)
    if mean == 0.0 and not array.any():
        nothing = Spectrum.from_values(np.zeros(view.pool * min(view.shape)), input_dtype=subject.dtype)
        return _found(nothing, 0.0, array.size, view)
    first = _pooled(spectrum(array, method=options.method, need="sums"), subject.dtype)
    settled = _settle(first, options, lambda: _exact(array, subject.dtype), out)
    return _found(settled, mean, array.size, view)


def _found(spectrum: Spectrum, mean: float, entries: int, view: View) -> Found:
    return Found(spectrum=spectrum, mean=mean, entries=entries, shape=view.shape, pool=view.pool)


def _mean(array: NDArray[Any]) -> float:
    """Return the mean of the entries; raises where some are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(array.sum(dtype=np.float64))
    if not math.isfinite(total):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise NonFiniteError(bad, array.size)
        return float((array / array.size).sum(dtype=np.float64))
    return total / array.size


def _top_value(array: NDArray[Any], dtype: str) -> Spectrum | None:
    """Return the largest value and the Frobenius norm, by the iteration behind `rankdiag.spectral.stable_rank`.

    None for a zero matrix, and for one with entries that are no numbers.
    """
    from rankdiag.spectral import Spectrum, stable_rank

    matrix = np.asarray(array, dtype=np.float64)
    size = frobenius(matrix)
    if size == 0.0 or not math.isfinite(size):
        return None
    top = size / math.sqrt(stable_rank(matrix))
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    return Spectrum(
        values=np.array([top]),
        shape=shape,
        method="topk",
        error_bound=_TOP_ERROR * top,
        input_dtype=dtype,
        frobenius=size,
    )


def frobenius(array: NDArray[Any]) -> float:
    """Return the Frobenius norm of entries of any size; those that are no numbers make it infinite or NaN."""
    flat = np.asarray(array, dtype=np.float64).ravel()
    with np.errstate(over="ignore", under="ignore"):
        square = float(flat @ flat)
    if 1e-280 < square < 1e280:
        return math.sqrt(square)
    top = float(np.abs(flat).max(initial=0.0))
    if top == 0.0 or not math.isfinite(top):
        return top
    return top * float(np.linalg.norm(flat / top))


def _exact(array: NDArray[Any], dtype: str) -> Spectrum:
    from rankdiag.spectral import spectrum

    return _pooled(spectrum(array, need="rank"), dtype)


def _pooled(found: Spectrum, dtype: str) -> Spectrum:
    """Make one spectrum of a stack of them, and name the dtype that the entries were stored in."""
    from rankdiag.spectral import Spectrum

    if found.values.ndim == 1:
        return dataclasses.replace(found, input_dtype=dtype)
    count = found.values.shape[0]
    m, n = found.shape
    return Spectrum.from_values(
        found.values.ravel(),
        shape=(count * m, count * n),
        input_dtype=dtype,
        error_bound=float(np.max(found.error_bound)),
    )


def _from_factors(left: Floats, right: Floats, scaling: float, dtype: str) -> Found:
    from rankdiag.weights._lora import lora_delta_spectrum

    bad = sum(factor.size - int(np.isfinite(factor).sum()) for factor in (left, right))
    if bad or not math.isfinite(scaling):
        raise NonFiniteError(bad or 1, left.size + right.size)
    m, n = left.shape[0], right.shape[1]
    spectrum = dataclasses.replace(lora_delta_spectrum(left, right, scaling=scaling), input_dtype=dtype)
    mean = scaling * float((left.sum(axis=0) / m) @ (right.sum(axis=1) / n))
    return Found(spectrum=spectrum, mean=mean, entries=left.size + right.size, shape=(m, n), pool=1)


def _from_kernels(subject: Subject, view: KernelView) -> Found:
    from rankdiag.weights._conv import conv_spectrum

    kernel = subject.dense()
    mean = _mean(kernel)
    spectrum = dataclasses.replace(
        conv_spectrum(kernel, mode=view.mode, input_size=view.input_size, groups=view.groups),
        input_dtype=subject.dtype,
    )
    # At every frequency the operator adds up all entries of a kernel, each with a phase.
    gain = math.prod(view.full[2:]) if view.mode == "fft" else 1.0
    return Found(
        spectrum=spectrum, mean=mean, entries=kernel.size, shape=view.shape, pool=view.pool, energy_gain=float(gain)
    )


def _streamed(subject: Subject, options: Options, out: Measured) -> Found:
    exact = options.method in {"svd", "qr_svd"}
    spectrum, mean, entries = _stream(subject, options, exact=exact)
    return _found(_settle(spectrum, options, _second_pass(subject, options), out), mean, entries, subject.view)


def _second_pass(subject: Subject, options: Options) -> Callable[[], Spectrum] | None:
    """Return how to decompose a streamed matrix exactly, or None where that would take too much memory."""
    m, n = subject.view.shape
    # As much as the tensor itself takes in float32, and never less than a quarter of a gigabyte.
    budget = max(options.max_bytes, SECOND_PASS_BYTES, 4 * m * n)
    if 3 * 8 * min(m, n) ** 2 <= budget:  # a QR stream holds the triangle, what it is stacked on, and a copy
        return lambda: _stream(subject, options, exact=True)[0]
    if 2 * 8 * m * n <= budget:
        return lambda: _exact(subject.dense(), subject.dtype)
    return None


def _stream(subject: Subject, options: Options, *, exact: bool) -> tuple[Spectrum, float, int]:
    """Feed the matrix block by block, along its long side, and count what is no number.

    Blocks of zeros cost nothing unless others follow or went before: an update often leaves whole tensors as they are.
    """
    from rankdiag.spectral import GramAccumulator, QRAccumulator, Spectrum

    m, n = subject.view.shape
    axis, side = (0, n) if m >= n else (-1, m)
    kind = QRAccumulator if exact else GramAccumulator
    accumulator = kind(side, shape=(m, n), input_dtype=subject.dtype)
    shift, bad, entries, zeros = 0.0, 0, 0, 0
    for block in subject.blocks(axis, min(BLOCK_BYTES, options.max_bytes)):
        entries += block.size
        try:
            mean = _mean(block)
        except NonFiniteError as error:
            bad += error.count
            continue
        finally:
            rows = block if axis == 0 else block.T
            del block
        shift += mean * (rows.size / (m * n))
        if mean == 0.0 and not rows.any():
            zeros += len(rows)
        elif not bad:
            accumulator.update(rows)
        del rows
    if bad:
        raise NonFiniteError(bad, entries)
    if zeros * side == m * n:
        return Spectrum.from_values(np.zeros(side), shape=(m, n), input_dtype=subject.dtype), 0.0, entries
    step = max(1, BLOCK_BYTES // (8 * side))
    for start in range(0, zeros, step):
        accumulator.update(np.zeros((min(step, zeros - start), side)))
    return accumulator.spectrum(), shift, entries


# --- precision -------------------------------------------------------------------------------------------------


def _settle(spectrum: Spectrum, options: Options, again: Callable[[], Spectrum] | None, out: Measured) -> Spectrum:
    """Return a spectrum that serves what is wanted: this one, or a better one where a Gram spectrum falls short."""
    if spectrum.method != "gram":
        return spectrum
    error = gram_sum_error(spectrum.values, float(spectrum.error_bound))
    sums = options.wanted & {"effective_rank", "nuclear"}
    short = bool(sums) and error > SUM_TOLERANCE
    if not short and not ("numerical_rank" in options.wanted and settled_rank(spectrum) is None):
        return spectrum
    if options.method == "auto" and again is not None:
        return again()
    if short and options.method == "gram":
        out.remarks.append(f"effective rank and nuclear norm from a Gram matrix, good to {error:.1g} of their size")
    elif short:
        reason = f"a Gram matrix leaves it open by {error:.1g} of its size; pass method='qr_svd'"
        out.nulls.update(dict.fromkeys(sorted(sums), reason))
    return spectrum


def gram_sum_error(values: Floats, bound: float) -> float:
    """Bound the relative error of effective rank and nuclear norm that a Gram spectrum's error bound allows.

    A Gram eigenvalue is off by at most ``bound**2``, so a singular value s by at most ``min(bound, bound**2 / s)``.
    To first order the entropy moves by ``sum |log p + H| ds / sum(s)`` and the nuclear norm by ``sum(ds)`` (derived
    here).
    """
    top = float(values[0])
    if top == 0.0:
        return 0.0
    s = values / top
    b = bound / top
    if b == 0.0:
        return 0.0
    floor = np.maximum(s, b)
    off = np.minimum(b, b * (b / floor))
    total = float(s.sum())
    logs = np.log(floor / total)
    entropy = -float((s / total) @ logs)
    return float(off @ np.maximum(np.abs(logs + entropy), 1.0)) / total


def settled_rank(spectrum: Spectrum) -> int | None:
    """Return the numerical rank, or None where the error bound leaves it open."""
    limit = float(spectrum.rank_threshold())
    if spectrum.values[-1] > limit + float(spectrum.error_bound):
        return int(spectrum.values.size)
    try:
        return int(spectrum.numerical_rank())
    except ValueError:
        return None

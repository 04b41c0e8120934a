"""One matrix to one set of readings: in memory or in blocks, with one decomposition and a stated precision.

Precision policy, by column. Sums of squares (stable rank, energy measures, norms) are good to 1e-6 from any route.
Sigma measures (effective rank, nuclear norm) are read from a Gram spectrum only while its error bound moves them by
less than 1e-6 of their size; else the matrix is decomposed again by SVD, or by a streamed QR. A rank is counted only
where no singular value lies within the error bound of the threshold. The condition number is given only where the
smallest value is known to 1e-3 of its size.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rankdiag.weights._row import MEASURED, TAIL_ENERGY, sketch_positions
from rankdiag.weights._views import KernelView, LowRankView, Reader, View, float64_bytes

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["Bound", "Measured", "Options", "Subject", "measure"]

Floats = NDArray[np.float64]
SUM_TOLERANCE = 1e-6  # relative error up to which a Gram spectrum may serve the effective rank and the nuclear norm
CONDITION_TOLERANCE = 1e-3  # relative error of the smallest singular value up to which a condition number is given
EDGE_MARGIN = 0.02  # a singular value is an outlier from this far beyond the random-matrix edge
BLOCK_BYTES = 1 << 25  # float64 bytes of one block: enough rows for full matrix-product speed
_TOP_ONLY = frozenset({"stable_rank", "spectral", "fro"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured and how; checked already.

    Attributes
    ----------
    wanted : frozenset of str
        Names out of `MEASURED`.
    method : str
        ``"auto"`` or a route of `rankdiag.spectral.spectrum`.
    max_bytes : int
        A matrix above this many float64 bytes is streamed.
    baseline : {"mp", "shuffle"}
        Closed form, or a shuffled copy.
    """

    wanted: frozenset[str]
    method: Literal["auto", "svd", "qr_svd", "gram"] = "auto"
    max_bytes: int = 1 << 27
    baseline: Literal["mp", "shuffle"] = "mp"

    @property
    def top_only(self) -> bool:
        """Whether the largest value and the Frobenius norm are all that is needed."""
        return self.wanted <= _TOP_ONLY and self.method == "auto"


@dataclass(slots=True)
class Measured:
    """Readings of one matrix, by column.

    Attributes
    ----------
    cells : dict
        Column -> value.
    nulls : dict
        Column -> why there is none.
    remarks : list of str
        What else a reader has to know.
    sketch : tuple of float
        Spectrum over its largest value at a few positions.
    entries : int
        Entries that were read.
    non_finite : int
        NaN and infinite entries; nothing else is known if there are any.
    zero : bool
        Whether every entry is zero.
    """

    cells: dict[str, Any] = field(default_factory=dict)
    nulls: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    sketch: tuple[float, ...] = ()
    entries: int = 0
    non_finite: int = 0
    zero: bool = False


class Subject(Protocol):
    """A matrix that can be read: the view of a tensor bound to its reader, or the difference of two."""

    view: View
    dtype: str

    def dense(self) -> NDArray[Any]:
        """Return the matrix (m, n), or the pooled ones (pool, m, n)."""

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Yield row blocks (axis 0) or column blocks (axis -1) in float64."""

    def factors(self) -> tuple[Floats, Floats, float] | None:
        """Return B, A and the scaling of a low-rank update, None for any other matrix."""


@dataclass(slots=True)
class Bound:
    """A view and the reader of its source."""

    view: View
    reader: Reader
    dtype: str

    def dense(self) -> NDArray[Any]:
        """Return the matrix."""
        return self.view.dense(self.reader)

    def blocks(self, axis: int, max_bytes: int) -> Iterator[Floats]:
        """Yield its blocks."""
        return self.view.blocks(self.reader, axis=axis, max_bytes=max_bytes)

    def factors(self) -> tuple[Floats, Floats, float] | None:
        """Return its factors, if it has any."""
        if not isinstance(self.view, LowRankView):
            return None
        left, right = self.view.factors(self.reader)
        return left, right, self.view.scaling


@dataclass(slots=True)
class _Found:
    """A spectrum and the moments of the entries that it came with."""

    spectrum: Spectrum
    mean: float
    entries: int
    shape: tuple[int, int]
    pool: int
    energy_gain: float = 1.0


class _NonFiniteError(Exception):
    """Entries that are no numbers were met."""

    def __init__(self, count: int, entries: int) -> None:
        super().__init__(count)
        self.count = count
        self.entries = entries


def measure(subject: Subject, options: Options, rng: np.random.Generator | None = None) -> Measured:
    """Read one matrix.

    Parameters
    ----------
    subject : Subject
        The matrix.
    options : Options
        What is wanted.
    rng : numpy.random.Generator, optional
        Source of the shuffled baseline.

    Returns
    -------
    Measured
        Readings; those of a matrix with non-finite entries are all empty, with the count as the reason.
    """
    start = time.perf_counter()
    out = Measured()
    try:
        found = _decompose(subject, options, out)
    except _NonFiniteError as error:
        out.non_finite, out.entries = error.count, error.entries
        entries = "entry" if error.count == 1 else "entries"
        reason = f"{error.count} non-finite {entries} (NaN or infinity)"
        out.nulls = dict.fromkeys((name for name in MEASURED if name in options.wanted), reason)
    else:
        out.entries = found.entries
        out.zero = found.spectrum.frobenius == 0.0
        _read(found, options, out)
        if "baseline_effective_rank" in options.wanted or "mp_edge_outliers" in options.wanted:
            _baseline(found, subject, options, rng, out)
        _ratios(found, out)
    out.cells["seconds"] = time.perf_counter() - start
    return out


# --- decomposing -----------------------------------------------------------------------------------------------


def _decompose(subject: Subject, options: Options, out: Measured) -> _Found:
    from rankdiag.spectral import Spectrum

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
    mean = _mean(array)
    if mean == 0.0 and not array.any():
        nothing = Spectrum.from_values(np.zeros(view.pool * min(view.shape)), input_dtype=subject.dtype)
        return _found(nothing, 0.0, array.size, view)
    spectrum = _settle(
        _dense_spectrum(array, options, subject.dtype),
        options,
        lambda: _exact(array, subject.dtype),
        out,
    )
    return _found(spectrum, mean, array.size, view)


def _found(spectrum: Spectrum, mean: float, entries: int, view: View) -> _Found:
    return _Found(spectrum=spectrum, mean=mean, entries=entries, shape=view.shape, pool=view.pool)


def _mean(array: NDArray[Any]) -> float:
    """Return the mean of the entries; raises where some are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(array.sum(dtype=np.float64))
    if not math.isfinite(total):
        bad = array.size - int(np.isfinite(array).sum())
        if bad:
            raise _NonFiniteError(bad, array.size)
        return float((array / array.size).sum(dtype=np.float64))
    return total / array.size


def _dense_spectrum(array: NDArray[Any], options: Options, dtype: str) -> Spectrum:
    from rankdiag.spectral import spectrum

    if options.top_only and array.ndim == 2:
        found = spectrum(array, need="top", rng=0)
    else:
        found = spectrum(array, method=options.method, need="sums")
    return _pooled(found, dtype)


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


def _from_factors(left: Floats, right: Floats, scaling: float, dtype: str) -> _Found:
    from rankdiag.weights._lora import lora_delta_spectrum

    bad = sum(factor.size - int(np.isfinite(factor).sum()) for factor in (left, right))
    if bad or not math.isfinite(scaling):
        raise _NonFiniteError(bad or 1, left.size + right.size)
    m, n = left.shape[0], right.shape[1]
    spectrum = dataclasses.replace(lora_delta_spectrum(left, right, scaling=scaling), input_dtype=dtype)
    mean = scaling * float((left.sum(axis=0) / m) @ (right.sum(axis=1) / n))
    return _Found(spectrum=spectrum, mean=mean, entries=left.size + right.size, shape=(m, n), pool=1)


def _from_kernels(subject: Subject, view: KernelView) -> _Found:
    from rankdiag.weights._conv import conv_spectrum

    kernel = subject.dense()
    mean = _mean(kernel)
    spectrum = dataclasses.replace(
        conv_spectrum(kernel, mode=view.mode, input_size=view.input_size, groups=view.groups),
        input_dtype=subject.dtype,
    )
    # At every frequency the operator adds up all entries of a kernel, each with a phase.
    gain = math.prod(view.full[2:]) if view.mode == "fft" else 1.0
    return _Found(
        spectrum=spectrum, mean=mean, entries=kernel.size, shape=view.shape, pool=view.pool, energy_gain=float(gain)
    )


def _streamed(subject: Subject, options: Options, out: Measured) -> _Found:
    exact = options.method in {"svd", "qr_svd"}
    spectrum, mean, entries = _stream(subject, exact=exact)
    m, n = subject.view.shape
    side = min(m, n)
    # The QR stream holds about three (side, side) arrays; they may weigh as much as the tensor itself in float32.
    affordable = 3 * 8 * side * side <= max(options.max_bytes, 1 << 28, 4 * m * n)
    again: Callable[[], Spectrum] | None = None
    if affordable:
        again = lambda: _stream(subject, exact=True)[0]  # noqa: E731 - named where it is chosen
    return _found(_settle(spectrum, options, again, out), mean, entries, subject.view)


def _stream(subject: Subject, *, exact: bool) -> tuple[Spectrum, float, int]:
    """Feed the matrix block by block, along its long side, and count what is no number.

    Blocks of zeros cost nothing unless others follow or went before: an update often leaves whole tensors as they are.
    """
    from rankdiag.spectral import GramAccumulator, QRAccumulator, Spectrum

    m, n = subject.view.shape
    axis, side = (0, n) if m >= n else (-1, m)
    kind = QRAccumulator if exact else GramAccumulator
    accumulator = kind(side, shape=(m, n), input_dtype=subject.dtype)
    shift, bad, entries, zeros = 0.0, 0, 0, 0
    for block in subject.blocks(axis, BLOCK_BYTES):
        entries += block.size
        try:
            mean = _mean(block)
        except _NonFiniteError as error:
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
        raise _NonFiniteError(bad, entries)
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
    if not short and not ("numerical_rank" in options.wanted and _rank(spectrum) is None):
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


def _rank(spectrum: Spectrum) -> int | None:
    """Return the numerical rank, or None where the error bound leaves it open."""
    limit = float(spectrum.rank_threshold())
    if spectrum.values[-1] > limit + float(spectrum.error_bound):
        return int(spectrum.values.size)
    try:
        return int(spectrum.numerical_rank())
    except ValueError:
        return None


# --- reading ---------------------------------------------------------------------------------------------------


def _read(found: _Found, options: Options, out: Measured) -> None:
    spectrum, wanted, cells = found.spectrum, options.wanted, out.cells
    cells["method"] = spectrum.method
    cells["error_bound"] = float(spectrum.error_bound)
    plain: dict[str, Callable[[], Any]] = {
        "stable_rank": spectrum.stable_rank,
        "effective_rank": spectrum.effective_rank,
        "erank_energy": lambda: spectrum.effective_rank(weights="energy"),
        "participation": spectrum.participation_ratio,
        "spectral": lambda: spectrum.schatten_norm("spec"),
        "fro": lambda: spectrum.frobenius,
        "nuclear": lambda: spectrum.schatten_norm("nuc"),
        "lora_rank_hint": lambda: spectrum.eps_rank(math.sqrt(TAIL_ENERGY)),
    }
    for name, read in plain.items():
        if name not in wanted or name in out.nulls:
            continue
        try:
            value = read()
        except ValueError as error:  # a norm beyond float64
            out.nulls[name] = str(error)
        else:
            cells[name] = int(value) if name == "lora_rank_hint" else float(value)
    if "numerical_rank" in wanted:
        _read_rank(spectrum, out)
    if "condition" in wanted:
        _read_condition(spectrum, float(_padded(found)[-1]), out)
    if "alpha" in wanted:
        _read_tail(spectrum, out)
    if spectrum.method != "topk":
        out.sketch = _sketch(_padded(found))


def _padded(found: _Found) -> Floats:
    """Return all singular values; the spectrum of an update lists only those that need not be zero."""
    values = found.spectrum.values
    missing = found.pool * min(found.shape) - values.size
    return np.pad(values, (0, missing)) if missing > 0 and found.spectrum.method == "values" else values


def _sketch(values: Floats) -> tuple[float, ...]:
    if values[0] == 0.0:
        return ()
    places = list(sketch_positions(values.size))
    return tuple(float(value) for value in values[places] / values[0])


def _read_rank(spectrum: Spectrum, out: Measured) -> None:
    top = float(spectrum.values[0])
    rank = _rank(spectrum)
    if top > 0:
        out.cells["rank_rtol"] = float(spectrum.rank_threshold()) / top
    if rank is None:
        out.nulls["numerical_rank"] = (
            f"a value lies within the error bound {float(spectrum.error_bound):.3g} of the threshold "
            f"{float(spectrum.rank_threshold()):.3g}; pass method='qr_svd'"
        )
    else:
        out.cells["numerical_rank"] = rank


def _read_condition(spectrum: Spectrum, low: float, out: Measured) -> None:
    top, bound = float(spectrum.values[0]), float(spectrum.error_bound)
    if top == 0.0:
        out.nulls["condition"] = "the matrix is zero"
        return
    if low == 0.0 and spectrum.method == "values":
        out.nulls["condition"] = "the smallest singular value is 0"
        return
    share = math.inf if low == 0.0 else bound / low
    error = share * share if spectrum.method == "gram" else share
    if error <= CONDITION_TOLERANCE:
        out.cells["condition"] = top / low
        return
    least = top / (low + bound)
    hint = "; pass method='svd'" if spectrum.method == "gram" else ""
    out.nulls["condition"] = f"the smallest singular value is not known to 0.1 %; at least {least:.3g}{hint}"


def _read_tail(spectrum: Spectrum, out: Measured) -> None:
    from rankdiag.weights._tail import power_law_tail

    top = float(spectrum.values[0])
    alive = spectrum.values[spectrum.values > float(spectrum.error_bound)]
    if top == 0.0 or alive.size < 10:
        out.nulls["alpha"] = f"a tail needs 10 eigenvalues above the noise floor; there are {alive.size if top else 0}"
        return
    try:
        fit = power_law_tail((alive / top) ** 2)
    except ValueError as error:
        out.nulls["alpha"] = str(error)
        return
    out.cells.update(alpha=fit.alpha, D=fit.D, sigma=fit.sigma, n_tail=fit.n_tail)
    x_min = fit.x_min * top * top
    if math.isfinite(x_min):
        out.cells["x_min"] = x_min
    else:
        out.nulls["x_min"] = "beyond float64"


def _baseline(
    found: _Found, subject: Subject, options: Options, rng: np.random.Generator | None, out: Measured
) -> None:
    from rankdiag.weights._baseline import marchenko_pastur_effective_rank, mp_outliers

    wanted = options.wanted & {"baseline_effective_rank", "mp_edge_outliers"}
    if options.baseline == "shuffle":
        _shuffled(found, subject, options, rng, out)
        return
    m, n = found.shape
    if "baseline_effective_rank" in wanted:
        out.cells["baseline_effective_rank"] = found.pool * marchenko_pastur_effective_rank(m, n)
    if "mp_edge_outliers" not in wanted:
        return
    if found.spectrum.method == "topk":
        out.nulls["mp_edge_outliers"] = "only the largest value is known"
        return
    out.cells["mp_edge_outliers"] = mp_outliers(found.spectrum.values, (m, n), _std(found), margin=EDGE_MARGIN)


def _std(found: _Found) -> float:
    """Return the standard deviation of the entries from their norm and mean, times the gain of the operator."""
    m, n = found.shape
    frobenius = float(found.spectrum.frobenius)
    if frobenius == 0.0:
        return 0.0
    rms = frobenius / math.sqrt(found.pool * m * n * 1.0)
    share = found.mean * math.sqrt(found.energy_gain) / rms
    return rms * math.sqrt(max(0.0, 1.0 - share * share))


def _shuffled(
    found: _Found, subject: Subject, options: Options, rng: np.random.Generator | None, out: Measured
) -> None:
    from rankdiag.weights._baseline import shuffled_spectrum

    view = subject.view
    wanted = options.wanted & {"baseline_effective_rank", "mp_edge_outliers"}
    if isinstance(view, KernelView) or view.pool > 1:
        reason = "pooled values are not shuffled; pass baseline='mp'"
    elif float64_bytes(view.shape) > options.max_bytes:
        reason = "shuffling needs the whole matrix in memory; pass a larger max_bytes, or baseline='mp'"
    else:
        reason = ""
    if reason:
        out.nulls.update(dict.fromkeys(sorted(wanted), reason))
        return
    shuffled = shuffled_spectrum(subject.dense(), rng=rng, need="sums")
    if "baseline_effective_rank" in wanted:
        out.cells["baseline_effective_rank"] = float(shuffled.effective_rank())
    if "mp_edge_outliers" in wanted:
        edge = float(shuffled.values[0]) * (1 + EDGE_MARGIN)
        out.cells["mp_edge_outliers"] = int((found.spectrum.values > edge).sum())


def _ratios(found: _Found, out: Measured) -> None:
    m, n = found.shape
    count = found.pool * min(m, n)
    for name in ("effective_rank", "stable_rank", "numerical_rank"):
        if out.cells.get(name) is not None:
            out.cells[f"{name}_ratio"] = out.cells[name] / count
    measured, baseline = out.cells.get("effective_rank"), out.cells.get("baseline_effective_rank")
    if measured is not None and baseline:
        out.cells["effective_rank_over_baseline"] = measured / baseline

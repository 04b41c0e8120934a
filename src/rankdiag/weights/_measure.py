"""A spectrum to the cells of a row, each with its precision, or with the reason why it is empty."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.weights._row import MEASURED, TAIL_ENERGY, sketch_positions
from rankdiag.weights._spectra import Found, NonFiniteError, decompose, settled_rank
from rankdiag.weights._subject import Measured, Options, Subject
from rankdiag.weights._views import KernelView, float64_bytes

if TYPE_CHECKING:
    from rankdiag.spectral import Spectrum

__all__ = ["EDGE_MARGIN", "measure"]

Floats = NDArray[np.float64]
CONDITION_TOLERANCE = 1e-3  # relative error of the smallest singular value up to which a condition number is given
_SMALLEST_NORMAL = float(np.finfo(np.float64).tiny)
EDGE_MARGIN = 0.02  # a singular value is an outlier from this far beyond the random-matrix edge


def measure(
    subject: Subject, options: Options, rng: np.random.Generator | None = None, *, keep: bool = False
) -> Measured:
    """Read one matrix.

    Parameters
    ----------
    subject : Subject
        The matrix.
    options : Options
        What is wanted.
    rng : numpy.random.Generator, optional
        Source of the shuffled baseline.
    keep : bool
        Whether the result keeps the spectrum.

    Returns
    -------
    Measured
        Readings; those of a matrix with non-finite entries are all empty, with the count as the reason.
    """
    start = time.perf_counter()
    out = Measured()
    try:
        found = decompose(subject, options, out)
    except NonFiniteError as error:
        out.non_finite, out.entries = error.count, error.entries
        entries = "entry" if error.count == 1 else "entries"
        reason = f"{error.count} non-finite {entries} (NaN or infinity)"
        out.nulls = dict.fromkeys((name for name in MEASURED if name in options.wanted), reason)
    else:
        out.entries = found.entries
        out.spectrum = found.spectrum if keep else None
        out.zero = found.spectrum.frobenius == 0.0
        _read(found, options, out)
        if "baseline_effective_rank" in options.wanted or "mp_edge_outliers" in options.wanted:
            _baseline(found, subject, options, rng, out)
        _ratios(found, out)
    out.cells["seconds"] = time.perf_counter() - start
    return out


def _read(found: Found, options: Options, out: Measured) -> None:
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


def _padded(found: Found) -> Floats:
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
    rank = settled_rank(spectrum)
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
    if _SMALLEST_NORMAL <= x_min < math.inf:
        out.cells["x_min"] = x_min
    else:
        out.nulls["x_min"] = "a square beyond float64"


def _baseline(found: Found, subject: Subject, options: Options, rng: np.random.Generator | None, out: Measured) -> None:
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


def _std(found: Found) -> float:
    """Return the standard deviation of the entries from their norm and mean, times the gain of the operator."""
    m, n = found.shape
    frobenius = float(found.spectrum.frobenius)
    if frobenius == 0.0:
        return 0.0
    rms = frobenius / math.sqrt(found.pool * m * n * 1.0)
    share = found.mean * math.sqrt(found.energy_gain) / rms
    return rms * math.sqrt(max(0.0, 1.0 - share * share))


def _shuffled(found: Found, subject: Subject, options: Options, rng: np.random.Generator | None, out: Measured) -> None:
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


def _ratios(found: Found, out: Measured) -> None:
    m, n = found.shape
    count = found.pool * min(m, n)
    for name in ("effective_rank", "stable_rank", "numerical_rank"):
        if out.cells.get(name) is not None:
            out.cells[f"{name}_ratio"] = out.cells[name] / count
    measured, baseline = out.cells.get("effective_rank"), out.cells.get("baseline_effective_rank")
    if measured is not None and baseline:
        out.cells["effective_rank_over_baseline"] = measured / baseline

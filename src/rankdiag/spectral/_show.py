"""What a spectrum shows: its explanation, key numbers with their tolerances, a table for a stack, and the plot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag.spectral import _measures
from rankdiag.spectral._decompose import Decomposition

if TYPE_CHECKING:
    from rankdiag.spectral._spectrum import Spectrum

__all__ = ["explain", "spectrum_document"]

_EPS = 0.05
_MAX_POINTS = 1000
_MAX_LINES = 8


def explain(found: Decomposition, shape: tuple[int, int]) -> str:
    """Return one paragraph on how to read a spectrum."""
    count = math.prod(found.values.shape[:-1])
    if found.method == "slq":
        return (
            "A bracket for the sigma effective rank: quadrature keeps the estimate of every probe between the two "
            "ends, and sampling may move both by a few standard errors."
        )
    if found.method == "topk":
        return (
            "The largest singular values and the Frobenius norm: enough for the stable rank and for distances to low "
            "ranks, not for anything that needs the whole tail."
        )
    if count > 1 or found.values.ndim > 1:
        return f"A stack of {count} matrices of one shape; every reading is an array over the leading axes."
    if found.values[0] == 0:
        return "The matrix is zero: every rank and entropy is 0."
    rank, stable = (
        float(f) for f in (_measures.effective_rank(found.values, False), _measures.stable_rank(found.values))
    )
    return (
        f"About {rank:.4g} of {min(shape)} directions are of comparable size (effective rank; 1 means one direction). "
        f"The stable rank {stable:.4g} reacts only to the largest value, the effective rank to the whole tail: a small "
        "stable rank beside a large effective rank means a few strong directions over a broad floor."
    )


def spectrum_document(s: Spectrum, notes: tuple[str, ...]) -> Document:
    """Return the document of a spectrum."""
    stack = s.values.ndim > 1
    return Document(
        title=f"Spectrum of {'matrices' if stack else 'a matrix'} {s.shape[0]} x {s.shape[1]}",
        verdict=s.verdict,
        explanation=s.explanation,
        key_numbers=() if stack else _key_numbers(s),
        grids=(_stack_grid(s),) if stack else (),
        plots=() if s.method == "slq" else (_plot(s),),
        notes=notes,
    )


def _attempt(reading: Callable[[], Any]) -> Any:
    """Return a reading, or None where this spectrum cannot give it."""
    try:
        return reading()
    except ValueError:
        return None


def _key_numbers(s: Spectrum) -> tuple[KeyNumber, ...]:
    if s.bracket is not None:
        low, high, stderr = s.bracket
        return (
            KeyNumber(label="effective rank, low", value=low, doc="Quadrature keeps every probe above this."),
            KeyNumber(label="effective rank, high", value=high, doc="Quadrature keeps every probe below this."),
            KeyNumber(label="standard error", value=stderr, doc=f"Over {s.probes} probes."),
            KeyNumber(label="Frobenius norm", value=s.frobenius),
        )
    ends = (
        KeyNumber(label="largest value", value=float(s.values[0]), doc="Spectral norm."),
        KeyNumber(label="Frobenius norm", value=s.frobenius),
        KeyNumber(label="error bound", value=s.error_bound, doc="No value is further than this from the true one."),
    )
    stable = KeyNumber(label="stable rank", value=s.stable_rank(), doc="Reacts only to the largest value.")
    eps = KeyNumber(
        label=f"eps-rank (tail at most {_EPS:g} of the norm)",
        value=_attempt(lambda: s.eps_rank(_EPS)),
        doc="Smallest rank whose best approximation leaves this share of the Frobenius norm.",
    )
    if s.method == "topk":
        return (stable, eps, *ends)
    limit = float(s.rank_threshold())
    unsure = s.meta.details.get("effective_rank_uncertainty")
    size = "How many directions are of comparable size; the whole tail counts."
    return (
        KeyNumber(
            label="effective rank (sigma)",
            value=s.effective_rank(),
            doc=size
            if unsure is None
            else f"{size} Uncertain by {unsure:.2g}: values below the error bound are noise.",
        ),
        KeyNumber(
            label="effective rank (energy)", value=s.effective_rank(weights="energy"), doc="From squared values."
        ),
        KeyNumber(label="participation ratio", value=s.participation_ratio()),
        stable,
        KeyNumber(
            label=f"numerical rank (values above {limit:.3g})",
            value=_attempt(s.numerical_rank),
            doc="Not given where the error bound of the method reaches the tolerance.",
        ),
        eps,
        *ends,
    )


def _stack_grid(s: Spectrum) -> Grid:
    readings: dict[str, Callable[[], Any]] = {
        "effective_rank": s.effective_rank,
        "stable_rank": s.stable_rank,
        "numerical_rank": s.numerical_rank,
        "spectral_norm": lambda: s.schatten_norm("spec"),
    }
    columns, cells = [Column(name="index", doc="Position over the leading axes.")], []
    for name, reading in readings.items():
        found = _attempt(reading)
        if found is not None:
            columns.append(Column(name=name))
            cells.append(np.asarray(found).reshape(-1).tolist())
    places = [",".join(map(str, place)) for place in np.ndindex(*s.values.shape[:-1])]
    return Grid(title="Readings", columns=tuple(columns), rows=tuple(zip(places, *cells, strict=True)))


def _plot(s: Spectrum) -> Plot:
    k = s.values.shape[-1]
    flat = s.values.reshape(-1, k)
    picked = (
        np.unique(np.round(np.geomspace(1, k, min(k, _MAX_POINTS))).astype(int))
        if k > _MAX_POINTS
        else np.arange(1, k + 1)
    )
    x = picked.astype(float).tolist()
    series = tuple(
        Series(label="singular values" if len(flat) == 1 else f"matrix {i}", x=x, y=row[picked - 1].tolist())
        for i, row in enumerate(flat[:_MAX_LINES])
    )
    bound = float(np.max(np.asarray(s.error_bound)))
    marks = {"error bound": bound}
    if len(flat) == 1 and s.method != "topk":
        marks["tolerance of the numerical rank"] = float(np.max(s.rank_threshold()))
    lines = [ReferenceLine(axis="y", value=y, label=label) for label, y in marks.items() if y > 0]
    return Plot(
        title="Singular values",
        x_label="index i",
        y_label="singular value s_i (units of the matrix)",
        series=series,
        y_scale="log",
        lines=tuple(lines),
        description="Singular values in descending order on a log scale; below the error bound they are noise.",
    )

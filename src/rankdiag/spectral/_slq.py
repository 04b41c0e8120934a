"""The effective rank of a very large matrix by stochastic Lanczos quadrature, as a bracket.

With s the singular values divided by (an estimate of) the largest, S = sum s and T = -sum s log s are traces of
functions of the Gram operator, sqrt(x) and -sqrt(x) log(x) / 2, and the effective rank is exp(log S + T / S). Gauss
quadrature of K Lanczos steps is never below such a quadratic form and Gauss-Radau with a node at 0 never above it,
because all derivatives of order 3 and higher keep one sign on (0, 1]. Both come from one Golub-Kahan bidiagonal B: the
Gauss nodes are the singular values of B, the Gauss-Radau nodes those of B with its next off-diagonal entry as one more
column.

The trace is split as sum_j q_j^H f q_j + tr (I - Q Q^H) f (I - Q Q^H) for a basis Q of strong directions. The identity
is exact for any Q; the first part is free of sampling noise, and only the second is estimated with probes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag.spectral._decompose import to_working

__all__ = ["Bracket", "effective_rank_bracket"]

Floats = NDArray[np.float64]
_ROUNDING = 1e-12  # relative widening of the bracket; rounding in the sums was measured at a tenth of it


class Bracket(NamedTuple):
    """Lower and upper end of the effective rank, and the standard error over the probes."""

    low: float
    high: float
    stderr: float


class _Forms(NamedTuple):
    """Quadratic forms of both functions, one entry for each start vector."""

    s_low: Floats
    s_high: Floats
    t_low: Floats
    t_high: Floats


def effective_rank_bracket(array: NDArray[Any], probes: int, steps: int, rng: np.random.Generator) -> Bracket:
    """Bracket the sigma effective rank of one matrix.

    Parameters
    ----------
    array : ndarray of float64 or complex128, shape (m, n)
        Finite and not empty.
    probes : int
        Random vectors, and as many strong directions taken out before.
    steps : int
        Lanczos steps for each; more of them narrow the bracket.
    rng : numpy.random.Generator
        Draws the probes.

    Returns
    -------
    Bracket
        (low, high, stderr); zeros for a zero matrix.
    """
    work, _ = to_working(array, "float64")
    if not work.any():
        return Bracket(0.0, 0.0, 0.0)
    if work.shape[0] < work.shape[1]:
        work = np.swapaxes(work, 0, 1)
    n = work.shape[1]
    steps = min(steps, n)
    strong, scale = _strong_directions(work, min(probes, n // 4), rng)
    exact = _forms(work, strong, steps, scale)
    # uniform on the sphere of the complement: its trace is its dimension times the mean form
    starts = rng.standard_normal((probes, n)).astype(work.dtype)
    for _ in range(2):
        starts -= (starts @ strong.conj().T) @ strong
    starts /= np.linalg.norm(starts, axis=1)[:, None]
    sampled = _Forms(*(forms * (n - len(strong)) for forms in _forms(work, starts, steps, scale)))
    return _combine(exact, sampled)


def _strong_directions(work: NDArray[Any], count: int, rng: np.random.Generator) -> tuple[NDArray[Any], float]:
    """Return orthonormal rows that span roughly the strongest right singular directions, and roughly s_1."""
    width = max(count, 1)
    block = rng.standard_normal((work.shape[1], width)).astype(work.dtype)
    q = np.linalg.qr(block)[0]
    for _ in range(3):
        image = work @ q
        q = np.linalg.qr(work.conj().T @ image)[0]
    scale = float(np.linalg.norm(work @ q, 2))
    return q[:, :count].T, scale


def _forms(work: NDArray[Any], starts: NDArray[Any], steps: int, scale: float) -> _Forms:
    """Bracket x^H f x for every unit row x of `starts`, for both functions at once."""
    count = len(starts)
    alpha, beta = _bidiagonalize(work, starts, steps)
    wide = np.zeros((count, steps, steps + 1))
    index = np.arange(steps)
    wide[:, index, index] = alpha / scale
    wide[:, index, index + 1] = beta / scale
    s_high, t_high = _quadrature(wide[:, :, :steps])
    s_low, t_low = _quadrature(wide)
    return _Forms(s_low, s_high, t_low, t_high)


def _quadrature(bidiagonal: Floats) -> tuple[Floats, Floats]:
    _, nodes, right = np.linalg.svd(bidiagonal, full_matrices=False)
    weights = right[:, :, 0] ** 2
    logs = np.zeros_like(nodes)
    np.log(nodes, out=logs, where=nodes > 0)
    return (weights * nodes).sum(axis=-1), -(weights * nodes * logs).sum(axis=-1)


def _bidiagonalize(work: NDArray[Any], starts: NDArray[Any], steps: int) -> tuple[Floats, Floats]:
    """Run one Golub-Kahan recurrence for every start row in lockstep, each with full reorthogonalisation."""
    count, n = starts.shape
    forward, backward = work.T, (work.conj() if work.dtype.kind == "c" else work)
    right = np.zeros((count, steps, n), work.dtype)
    left = np.zeros((count, steps, work.shape[0]), work.dtype)
    alpha, beta = np.zeros((count, steps)), np.zeros((count, steps))
    floor = np.zeros(count)
    rows = starts
    for j in range(steps):
        right[:, j] = rows
        image = _reorthogonalized(rows @ forward, left[:, :j])
        alpha[:, j], left[:, j] = _normalized(image, floor)
        floor = np.maximum(floor, 16.0 * np.finfo(np.float64).eps * alpha[:, j])
        image = _reorthogonalized(left[:, j] @ backward, right[:, : j + 1])
        beta[:, j], rows = _normalized(image, floor)
    return alpha, beta


def _reorthogonalized(rows: NDArray[Any], bases: NDArray[Any]) -> NDArray[Any]:
    """Make every row orthogonal to its own basis; `rows` is overwritten."""
    for row, basis in zip(rows, bases, strict=True):  # one matrix-vector product each: faster than a batched one
        for _ in range(2):
            row -= (basis.conj() @ row) @ basis
    return rows


def _normalized(rows: NDArray[Any], floor: Floats) -> tuple[Floats, NDArray[Any]]:
    """Return norms and unit rows; a row at the rounding floor ends its recurrence with zeros."""
    norms = np.linalg.norm(rows, axis=1)
    alive = norms > floor
    norms = np.where(alive, norms, 0.0)
    return norms, rows * np.where(alive, 1.0 / np.where(alive, norms, 1.0), 0.0)[:, None]


def _combine(exact: _Forms, sampled: _Forms) -> Bracket:
    s_low, s_high, t_low, t_high = (float(e.sum() + p.mean()) for e, p in zip(exact, sampled, strict=True))
    if s_high <= 0.0:
        return Bracket(0.0, 0.0, 0.0)

    def log_rank(s: float, t: float) -> float:
        return math.log(s) + t / s

    # log S + T / S grows with T; in S it falls up to S = T and grows from there
    low = log_rank(min(max(t_low, s_low), s_high), t_low)
    high = max(log_rank(s_low, t_high), log_rank(s_high, t_high))
    s_mid, t_mid = (s_low + s_high) / 2.0, (t_low + t_high) / 2.0
    spread_s = (sampled.s_low + sampled.s_high) / 2.0
    spread_t = (sampled.t_low + sampled.t_high) / 2.0
    effect = (s_mid - t_mid) / s_mid**2 * (spread_s - spread_s.mean()) + (spread_t - spread_t.mean()) / s_mid
    count = len(effect)
    stderr = float(np.sqrt((effect**2).sum() / (count - 1) / count))
    ends = sorted((math.exp(low), math.exp(high)))  # rounding may cross ends that quadrature has made equal
    return Bracket(ends[0] * (1.0 - _ROUNDING), ends[1] * (1.0 + _ROUNDING), math.sqrt(ends[0] * ends[1]) * stderr)

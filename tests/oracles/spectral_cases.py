"""Hypothesis strategies for matrices with awkward spectra, and a plain record of one case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from oracles.spectral import integer_householder, orthogonal

SHAPES = ("gaussian", "clustered", "steep", "cliff", "deficient", "integer", "rank_one", "constant", "sparse", "graded")


@dataclass(frozen=True)
class Case:
    """One matrix and how it was made, so that a failure can be read."""

    matrix: np.ndarray
    kind: str
    scale: float


def prescribed(rng, kind, m, n):
    """An m x n matrix of one kind, entries of order one."""
    k = min(m, n)
    if kind == "gaussian":
        return rng.standard_normal((m, n))
    if kind == "integer":
        return rng.integers(-9, 10, (m, n)).astype(float)
    if kind == "sparse":
        return rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.3)
    if kind == "constant":
        return np.full((m, n), rng.standard_normal())
    if kind == "rank_one":
        return np.outer(rng.standard_normal(m), rng.standard_normal(n))
    if kind == "deficient":
        r = int(rng.integers(0, k + 1))
        return rng.integers(-3, 4, (m, r)).astype(float) @ rng.integers(-3, 4, (r, n)).astype(float)
    if kind == "graded":
        return rng.standard_normal((m, n)) * 10.0 ** -rng.uniform(0, 12, n)
    if kind == "clustered":
        first = rng.uniform(4, 17)
        first, last = (first - 4 if rng.random() < 0.5 else first), first + 6
        values = 1 + 10.0 ** -rng.uniform(first, last, k)
    elif kind == "steep":
        values = 10.0 ** -np.linspace(0, rng.uniform(2, 20), k)
    else:  # cliff: a few ones over a floor
        values = np.where(np.arange(k) < rng.integers(1, k + 1), 1.0, 10.0 ** -rng.uniform(6, 17))
    return (orthogonal(rng, m)[:, :k] * values) @ orthogonal(rng, n)[:k]


def _scaled(matrix, exponent):
    with np.errstate(under="ignore", over="ignore"):
        return matrix * 10.0 ** (exponent / 2) * 10.0 ** (exponent / 2)


@st.composite
def cases(draw, *, max_side=12, kinds=SHAPES, scales=(0,)):
    m, n = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    kind = draw(st.sampled_from(kinds))
    exponent = draw(st.sampled_from(scales))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Case(_scaled(prescribed(rng, kind, m, n), exponent), kind, 10.0 ** (exponent / 2) * 10.0 ** (exponent / 2))


def _small(draw, m, n):
    entry = st.integers(-5, 5).map(float) | st.floats(-1e3, 1e3, allow_subnormal=False)
    return np.array(draw(st.lists(st.lists(entry, min_size=n, max_size=n), min_size=m, max_size=m)))


@st.composite
def matrices(draw, *, max_side=6, shape=None):
    """A matrix with entries up to 1e3 in size: from a list that shrinks well, or of one of the kinds."""
    m, n = shape or (draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    if draw(st.booleans()):
        return _small(draw, m, n)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return prescribed(rng, draw(st.sampled_from(SHAPES)), m, n)


@st.composite
def spectra(draw, *, max_size=12, scale=True):
    """A list of values >= 0 in any order, zeros and repeats included."""
    value = st.sampled_from([0.0, 1.0, 2.0, 1e-3, 1e-9]) | st.floats(0, 1e3, allow_subnormal=False)
    values = draw(st.lists(value, min_size=1, max_size=max_size))
    factor = draw(st.sampled_from([1.0, 1e-280, 1e280])) if scale else 1.0
    return np.array(values) * factor


@st.composite
def exact_cases(draw):
    """A matrix of integers and its exact singular values, made with integer reflections."""
    m, n = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    unit = st.integers(-3, 3)
    left = draw(st.lists(unit, min_size=m, max_size=m).filter(any))
    right = draw(st.lists(unit, min_size=n, max_size=n).filter(any))
    values = draw(st.lists(st.integers(0, 1000), min_size=min(m, n), max_size=min(m, n)))
    middle = np.zeros((m, n))
    np.fill_diagonal(middle, values)
    factor = float(np.dot(left, left) * np.dot(right, right))
    matrix = integer_householder(left) @ middle @ integer_householder(right)
    return matrix, np.sort(np.array(values, dtype=float) * factor)[::-1]

"""The oracle itself: against arbitrary precision, and against spectra that are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given

from oracles import spectral as oracle
from oracles.spectral_cases import exact_cases, prescribed

mpmath = pytest.importorskip("mpmath", reason="mpmath comes with sympy, which torch brings")


@pytest.mark.parametrize("kind", ["gaussian", "steep", "cliff", "deficient", "graded", "clustered"])
@pytest.mark.parametrize("shape", [(12, 9), (5, 12), (1, 7)])
def test_jacobi_agrees_with_arbitrary_precision(kind, shape):
    matrix = prescribed(np.random.default_rng(7), kind, *shape)
    found = oracle.singular_values(matrix)
    with mpmath.workprec(200):
        exact = sorted(mpmath.svd_r(mpmath.matrix(matrix.tolist()), compute_uv=False), reverse=True)
        for value, truth in zip(found, exact, strict=True):
            head = float(value)
            rest = float(value - oracle.LONG(head))
            assert abs(mpmath.mpf(head) + mpmath.mpf(rest) - truth) <= 2e-18 * exact[0]


@given(exact_cases())
def test_jacobi_finds_exact_spectra(case):
    matrix, truth = case
    np.testing.assert_allclose(oracle.singular_values(matrix).astype(float), truth, rtol=0, atol=1e-17 * truth[0])


def test_oracle_on_numbers_done_by_hand():
    assert oracle.entropy([1, 1, 1, 1]) == pytest.approx(math.log(4))
    assert oracle.entropy([2, 1, 1], order=2) == pytest.approx(-math.log(0.25 + 2 * 0.0625))
    assert oracle.entropy([2, 1, 1], "energy", math.inf) == pytest.approx(-math.log(4 / 6))
    assert oracle.entropy([3, 0, 1], order=0) == pytest.approx(math.log(2))
    assert oracle.participation_ratio([3, 1]) == pytest.approx(100 / 82)
    assert oracle.schatten_norm([3, 4], 2) == pytest.approx(5)
    assert oracle.eps_rank([4, 3], 0.61) == 1
    assert oracle.eps_rank([4, 3], 0.59) == 2
    assert float(oracle.distance_to_rank([4, 3, 12], 1)) == pytest.approx(5)
    assert oracle.numerical_rank([4, 1], (2, 2), rtol=0.25) == 1

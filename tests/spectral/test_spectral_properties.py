"""The properties that every matrix obeys, and agreement of every reading with its definition."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle
from oracles.spectral_cases import matrices, prescribed, spectra

WEIGHTS = st.sampled_from(["sigma", "energy"])
ORDERS = st.sampled_from([0.0, 0.25, 0.5, 0.999, 1.0, 1.001, 2.0, 3.5, 20.0, math.inf])
SEEDS = st.integers(0, 2**32 - 1)
SMOOTH = (
    ("effective", lambda a: sp.effective_rank(a)),
    ("energy", lambda a: sp.effective_rank(a, weights="energy")),
    ("participation", sp.participation_ratio),
    ("stable", sp.stable_rank),
    ("nuclear", sp.nuclear_ratio),
    ("entropy 2", lambda a: sp.spectral_entropy(a, order=2)),
    ("entropy inf", lambda a: sp.spectral_entropy(a, weights="energy", order=math.inf)),
)


def norm_ratio(a):
    fro = sp.schatten_norm(a, "fro")
    return (sp.schatten_norm(a, "nuc") / fro) ** 2 if fro else 0.0


def random_orthogonal(seed, n):
    return oracle.orthogonal(np.random.default_rng(seed), n)


# --- definitions -------------------------------------------------------------------------------------------


@given(matrices(), WEIGHTS, ORDERS)
def test_readings_agree_with_their_definitions(matrix, weights, order):
    values = [float(v) for v in np.linalg.svd(matrix, compute_uv=False)]
    s = sp.spectrum(matrix)
    close = {"rel": 1e-9, "abs": 1e-9}
    assert s.effective_rank(weights=weights) == pytest.approx(oracle.effective_rank(values, weights), **close)
    assert s.participation_ratio() == pytest.approx(oracle.participation_ratio(values), **close)
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(values), **close)
    assert s.nuclear_ratio() == pytest.approx(oracle.nuclear_ratio(values), **close)
    for p in (1, 2, 5, math.inf, "nuc", "fro", "spec"):
        assert s.schatten_norm(p) == pytest.approx(oracle.schatten_norm(values, p), rel=1e-12)
    if order >= 0.5:  # low orders see the rounding noise of a rank-deficient matrix, which differs by method
        assert s.spectral_entropy(weights=weights, order=order) == pytest.approx(
            oracle.entropy(values, weights, order), abs=1e-5 if order < 1 else 1e-9
        )


@given(spectra(), WEIGHTS, ORDERS)
def test_readings_of_given_values_agree_with_their_definitions(values, weights, order):
    s = sp.Spectrum.from_values(values)
    n = len(values)
    assert s.shape == (n, n)
    assert s.values.tolist() == sorted(values.tolist(), reverse=True)
    assert s.effective_rank(weights=weights) == pytest.approx(oracle.effective_rank(values, weights), rel=1e-12)
    assert s.spectral_entropy(weights=weights, order=order) == pytest.approx(
        oracle.entropy(values, weights, order), rel=1e-11, abs=1e-12
    )
    assert s.participation_ratio() == pytest.approx(oracle.participation_ratio(values), rel=1e-12)
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(values), rel=1e-12)
    assert s.nuclear_ratio() == pytest.approx(oracle.nuclear_ratio(values), rel=1e-12)
    assert s.numerical_rank() == oracle.numerical_rank(values, s.shape)
    assert s.frobenius == pytest.approx(oracle.schatten_norm(values, 2), rel=1e-12)
    for p in (0.5, 1, 2, 7.5, math.inf):
        assert s.schatten_norm(p) == pytest.approx(oracle.schatten_norm(values, p), rel=1e-11)
    for rank in range(n + 1):
        assert s.distance_to_rank(rank) == pytest.approx(float(oracle.distance_to_rank(values, rank)), rel=1e-12)


@given(spectra(), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1e3))
def test_counts_of_given_values_agree_with_their_definitions(values, eps, rtol, atol):
    whole = oracle.tail(values, 0)
    ratios = [float(oracle.tail(values, r) / whole) if whole else 0.0 for r in range(len(values) + 1)]
    assume(all(abs(eps - ratio) > 1e-12 or ratio == eps == 0 for ratio in ratios))
    s = sp.Spectrum.from_values(values)
    assert s.eps_rank(eps) == oracle.eps_rank(values, eps)
    top = max(values)
    assume(all(abs(v - max(atol, rtol * top)) > 1e-14 * v for v in values))
    assert s.numerical_rank(rtol=rtol, atol=atol) == oracle.numerical_rank(values, s.shape, "float64", rtol, atol)
    assert s.certified_rank(atol) == oracle.certified_rank(values, atol, 0)
    assert s.eps_rank(0) == int(np.count_nonzero(values))
    assert s.eps_rank(1) == 0


@given(spectra(), st.floats(0, 0.999), st.floats(0, 0.999))
def test_eps_rank_falls_as_eps_grows(values, one, two):
    s = sp.Spectrum.from_values(values)
    low, high = sorted((one, two))
    assert s.eps_rank(low) >= s.eps_rank(high)
    rank = s.eps_rank(low)
    whole = s.distance_to_rank(0)
    assert s.distance_to_rank(rank) <= low * whole * (1 + 1e-12)
    if rank > 0:
        assert s.distance_to_rank(rank - 1) > low * whole * (1 - 1e-12)


# --- order ---------------------------------------------------------------------------------------------


@given(matrices())
def test_order_chain(matrix):
    s = sp.spectrum(matrix)
    rank = int(np.count_nonzero(s.values))
    chain = [
        s.stable_rank(),
        s.participation_ratio(),
        s.effective_rank(weights="energy"),
        norm_ratio(s),
        s.effective_rank(),
        rank,
        min(matrix.shape),
    ]
    for low, high in pairwise(chain):
        assert low <= high * (1 + 1e-12), chain
    assert s.stable_rank() <= s.nuclear_ratio() * (1 + 1e-12)
    assert s.nuclear_ratio() <= norm_ratio(s) * (1 + 1e-12)
    assert s.numerical_rank() <= rank
    if matrix.any():
        assert s.stable_rank() >= 1 - 1e-12


@given(spectra(), WEIGHTS)
def test_renyi_entropies_fall_with_the_order_and_stay_in_range(values, weights):
    s = sp.Spectrum.from_values(values)
    orders = [0, 0.1, 0.5, 0.99, 1, 1.01, 2, 5, 100, math.inf]
    found = [s.spectral_entropy(weights=weights, order=order) for order in orders]
    for high, low in pairwise(found):
        assert low <= high + 1e-12
    support = int(np.count_nonzero(values))
    assert found[0] == pytest.approx(math.log(support) if support else 0.0, rel=1e-14)
    assert found[-1] >= -1e-15


@given(spectra())
def test_named_readings_are_exponentials_of_renyi_entropies(values):
    s = sp.Spectrum.from_values(values)
    assume(values.any())
    assert s.participation_ratio() == pytest.approx(math.exp(s.spectral_entropy(weights="energy", order=2)))
    assert s.stable_rank() == pytest.approx(math.exp(s.spectral_entropy(weights="energy", order=math.inf)))
    assert s.nuclear_ratio() == pytest.approx(math.exp(s.spectral_entropy(order=math.inf)))
    assert s.effective_rank() == pytest.approx(math.exp(s.spectral_entropy()))
    assert s.effective_rank(weights="energy") == pytest.approx(math.exp(s.spectral_entropy(weights="energy")))
    assert norm_ratio(s) == pytest.approx(math.exp(s.spectral_entropy(order=2)))
    assert norm_ratio(s) == pytest.approx(math.exp(s.spectral_entropy(weights="energy", order=0.5)))
    rank = s.numerical_rank()
    expected = s.spectral_entropy() / math.log(rank) if rank > 1 else 0.0
    assert s.spectral_entropy(normalize=True) == pytest.approx(expected)


@given(spectra(scale=False), st.floats(0.05, 10), st.floats(0.05, 10))
def test_schatten_norms_fall_with_p(values, one, two):
    s = sp.Spectrum.from_values(values)
    p, q = sorted((one, two))
    assert s.schatten_norm(q) <= s.schatten_norm(p) * (1 + 1e-12)
    assert s.schatten_norm(math.inf) <= s.schatten_norm(q) * (1 + 1e-12)


# --- invariance ------------------------------------------------------------------------------------------


@given(matrices(), st.sampled_from([-1.0, 2.0**-30, 0.1, -7e5, 1e-250, 3e250]))
def test_scaling_changes_nothing(matrix, factor):
    assume(np.abs(matrix).max() == 0 or np.abs(matrix[matrix != 0]).min() > 1e-40)
    for name, reading in SMOOTH:
        assert reading(factor * matrix) == pytest.approx(reading(matrix), rel=1e-9, abs=1e-10), name
    assert sp.schatten_norm(factor * matrix, 2) == pytest.approx(abs(factor) * sp.schatten_norm(matrix, 2), rel=1e-12)
    assert sp.schatten_norm(factor * matrix, 0.5) == pytest.approx(
        abs(factor) * sp.schatten_norm(matrix, 0.5), rel=1e-5
    )


@given(matrices())
def test_transpose_changes_nothing(matrix):
    for name, reading in SMOOTH:
        assert reading(matrix.T) == pytest.approx(reading(matrix), rel=1e-9, abs=1e-10), name
    np.testing.assert_allclose(
        sp.singular_values(matrix.T), sp.singular_values(matrix), rtol=0, atol=2e-14 * (np.abs(matrix).max() + 1e-300)
    )


@given(matrices(), SEEDS)
def test_rotations_and_permutations_change_nothing(matrix, seed):
    m, n = matrix.shape
    rng = np.random.default_rng(seed)
    turned = random_orthogonal(seed, m) @ matrix @ random_orthogonal(seed + 1, n)
    shuffled = matrix[rng.permutation(m)][:, rng.permutation(n)]
    for name, reading in SMOOTH:
        assert reading(turned) == pytest.approx(reading(matrix), rel=1e-9, abs=1e-9), name
        assert reading(shuffled) == pytest.approx(reading(matrix), rel=1e-9, abs=1e-9), name


@given(matrices(), st.integers(0, 5), st.integers(0, 5))
def test_zero_padding_changes_nothing(matrix, rows, columns):
    padded = np.pad(matrix, ((0, rows), (0, columns)))
    for name, reading in SMOOTH:
        assert reading(padded) == pytest.approx(reading(matrix), rel=1e-9, abs=1e-10), name


@given(SEEDS, st.integers(1, 4), st.integers(4, 9), st.integers(4, 9))
def test_rank_of_a_product_of_integers(seed, rank, m, n):
    rng = np.random.default_rng(seed)
    left = np.eye(m, rank) + np.triu(rng.integers(-2, 3, (m, rank)), 1)  # unit triangular: exactly this rank
    right = np.eye(rank, n) + np.tril(rng.integers(-2, 3, (rank, n)), -1)
    matrix = left @ right
    assert sp.numerical_rank(matrix) == rank
    assert sp.numerical_rank(matrix.T) == rank
    assert sp.numerical_rank(random_orthogonal(seed, m) @ matrix, rtol=1e-13) == rank
    assert sp.eps_rank(matrix, 1e-13) == rank
    assert sp.certified_rank(matrix, 0.0) == rank


# --- composition -------------------------------------------------------------------------------------------


@given(matrices(max_side=4), matrices(max_side=4), WEIGHTS)
def test_kronecker_products_multiply(a, b, weights):
    product = np.kron(a, b)
    for reading in (
        lambda x: sp.effective_rank(x, weights=weights),
        sp.participation_ratio,
        sp.stable_rank,
        sp.nuclear_ratio,
        lambda x: sp.schatten_norm(x, 1.5),
    ):
        assert reading(product) == pytest.approx(reading(a) * reading(b), rel=1e-9, abs=1e-12)


@given(matrices(max_side=5), matrices(max_side=5))
def test_direct_sum_formula(a, b):
    assume(a.any() and b.any())
    total = np.zeros((a.shape[0] + b.shape[0], a.shape[1] + b.shape[1]))
    total[: a.shape[0], : a.shape[1]] = a
    total[a.shape[0] :, a.shape[1] :] = b
    one, two = sp.schatten_norm(a, 1), sp.schatten_norm(b, 1)
    t = one / (one + two)
    h = -sum(x * math.log(x) for x in (t, two / (one + two)) if x > 0)
    expected = t * sp.spectral_entropy(a) + (1 - t) * sp.spectral_entropy(b) + h
    assert math.log(sp.effective_rank(total)) == pytest.approx(expected, abs=1e-9)


@given(SEEDS, st.integers(1, 7))
def test_effective_rank_is_subadditive_on_psd_matrices(seed, n):
    rng = np.random.default_rng(seed)
    a = prescribed(rng, "deficient" if seed % 2 else "graded", n, n)
    b = prescribed(rng, "rank_one" if seed % 3 else "gaussian", n, n) * 10.0 ** rng.uniform(-3, 3)
    a, b = a @ a.T, b @ b.T
    assert sp.effective_rank(a + b) <= (sp.effective_rank(a) + sp.effective_rank(b)) * (1 + 1e-8)


# --- perturbation and approximation ------------------------------------------------------------------------


@given(matrices(), SEEDS, st.sampled_from([1e-12, 1e-6, 1e-2, 1.0]))
def test_weyl_and_certified_rank(matrix, seed, size):
    error = np.random.default_rng(seed).standard_normal(matrix.shape) * size
    norm = float(np.linalg.norm(error, 2)) * (1 + 1e-13)
    clean, noisy = sp.spectrum(matrix), sp.spectrum(matrix + error)
    rounding = 2.0**-52 * np.linalg.norm(matrix + error)  # of the sum itself
    slack = float(clean.error_bound) + float(noisy.error_bound) + norm + rounding
    assert np.all(np.abs(clean.values - noisy.values) <= slack)
    certified = noisy.certified_rank(norm + rounding)
    true_rank = int(np.sum(oracle.singular_values(matrix) > 1e-17 * np.abs(matrix).max()))
    assert certified <= true_rank
    for extra in (0.0, 1e-3, 1.0):
        assert noisy.certified_rank(norm + extra) == oracle.certified_rank(
            noisy.values, norm + extra, float(noisy.error_bound)
        )


@given(matrices())
def test_certified_rank_falls_with_the_error(matrix):
    found = [sp.certified_rank(matrix, e) for e in (0, 1e-12, 1e-3, 1, 1e3, 1e9)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0
    assert found[0] <= sp.eps_rank(matrix, 0)


@given(matrices(), SEEDS)
def test_eckart_young(matrix, seed):
    k = min(matrix.shape)
    u, values, vt = np.linalg.svd(matrix)
    whole = float(np.linalg.norm(matrix))
    s = sp.spectrum(matrix)
    rng = np.random.default_rng(seed)
    for rank in range(k + 1):
        best = (u[:, :rank] * values[:rank]) @ vt[:rank]
        distance = s.distance_to_rank(rank)
        assert distance == pytest.approx(float(np.linalg.norm(matrix - best)), abs=1e-13 * whole)
        left = rng.standard_normal((matrix.shape[0], rank))
        other = left @ np.linalg.lstsq(left, matrix, rcond=None)[0] if rank else np.zeros_like(matrix)
        assert distance <= float(np.linalg.norm(matrix - other)) + 1e-13 * whole


@given(matrices())
def test_distance_to_rank_falls_from_the_norm_to_zero(matrix):
    k = min(matrix.shape)
    s = sp.spectrum(matrix)
    found = [s.distance_to_rank(rank) for rank in range(k + 1)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0
    assert found[0] == pytest.approx(float(np.linalg.norm(matrix)), rel=1e-13)
    assert found[0] == pytest.approx(float(s.frobenius), rel=1e-13)
    assert found == [sp.distance_to_rank(matrix, rank) for rank in range(k + 1)]


@given(matrices(shape=(4, 3)), matrices(shape=(4, 3)), st.floats(0.2, 6))
def test_triangle_inequality_and_its_quasi_form(a, b, p):
    constant = max(1.0, 2 ** (1 / p - 1))
    sides = sp.schatten_norm(a, p) + sp.schatten_norm(b, p)
    assert sp.schatten_norm(a + b, p) <= constant * sides * (1 + 1e-6)


@given(matrices())
def test_spectrum_is_well_formed(matrix):
    s = sp.spectrum(matrix)
    assert s.values.dtype == np.float64
    assert s.values.shape == (min(matrix.shape),)
    assert s.shape == matrix.shape
    assert np.all(s.values >= 0)
    assert np.all(np.diff(s.values) <= 0)
    assert not s.values.flags.writeable
    assert s.error_bound >= 0
    for reading in (s.effective_rank(), s.stable_rank(), s.schatten_norm(2), s.distance_to_rank(0), s.frobenius):
        assert type(reading) is float
    for count in (s.numerical_rank(), s.eps_rank(0.1), s.certified_rank(0.1)):
        assert type(count) is int

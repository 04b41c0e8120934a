"""The random-matrix baseline against quadrature, a series, closed forms and sampled Gaussian matrices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.weights_math import entropy_rank, mp_effective_rank_series, mp_means
from rankdiag._result import result_from_json
from rankdiag.testing import fuzz
from rankdiag.weights._baseline import (
    MarchenkoPastur,
    marchenko_pastur,
    marchenko_pastur_edge,
    marchenko_pastur_effective_rank,
    mp_outliers,
    shuffled_spectrum,
)

SQUARE = 2 * math.exp(4 / 3) / (3 * math.pi)

SHAPES = [(300, 300), (299, 300), (1000, 1001), (1000, 1500), (512, 2048), (64, 4096), (2, 10**6), (999_999, 10**6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_effective_rank_equals_quadrature_of_the_density(shape):
    m, n = shape
    means = mp_means(m, n)
    assert means["1"] == pytest.approx(1.0, abs=1e-10)  # the oracle is a probability density
    assert means["t2"] == pytest.approx(1.0, abs=1e-10)
    expected = min(m, n) * means["t"] * math.exp(-means["t log t"] / means["t"])
    assert marchenko_pastur_effective_rank(m, n) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_effective_rank_equals_the_hypergeometric_series(shape):
    m, n = shape
    y = min(m, n) / max(m, n)
    # Terms fall like k^-3 log k at y = 1, so 20,000 of them leave about 1e-8.
    assert marchenko_pastur_effective_rank(m, n) == pytest.approx(
        mp_effective_rank_series(m, n), rel=1e-12 if y < 0.99 else 3e-8
    )


def test_square_matrices_in_closed_form():
    for n in (2, 30, 1000, 10**9, 2**53):
        assert marchenko_pastur_effective_rank(n, n) / n == pytest.approx(SQUARE, rel=1e-13)
    assert pytest.approx(0.8050413, abs=1e-7) == SQUARE


@pytest.mark.parametrize("gap", [1, 10, 10**3, 10**6])
def test_nearly_square_matrices_join_the_closed_form(gap):
    n = 10**12
    assert marchenko_pastur_effective_rank(n, n + gap) / n == pytest.approx(SQUARE, rel=10 * gap / n + 1e-13)


def test_about_nine_tenths_at_ratio_one_and_a_half():
    assert marchenko_pastur_effective_rank(1000, 1500) / 1000 == pytest.approx(0.894154, abs=1e-6)


def test_very_elongated_matrices():
    # From the series: erank / p = 1 - y / 8 + O(y^2) (derived).
    for p, q in ((2, 2**53), (3, 10**12), (1000, 10**9)):
        assert 1 - marchenko_pastur_effective_rank(p, q) / p == pytest.approx(p / q / 8, rel=1e-3, abs=1e-14)


@given(st.integers(2, 10**6), st.integers(2, 10**6))
def test_effective_rank_is_symmetric_bounded_and_depends_on_the_ratio(m, n):
    value = marchenko_pastur_effective_rank(m, n)
    small = min(m, n)
    assert value == marchenko_pastur_effective_rank(n, m)
    assert SQUARE * (1 - 1e-12) <= value / small < 1
    assert marchenko_pastur_effective_rank(3 * m, 3 * n) == pytest.approx(3 * value, rel=1e-13)


@given(st.integers(2, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_the_ratio_grows_with_the_aspect(small, extra, more):
    near = marchenko_pastur_effective_rank(small, small + extra)
    far = marchenko_pastur_effective_rank(small, small + extra + more)
    assert far > near


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_rank_and_participation_equal_quadrature(shape):
    m, n = shape
    means, small = mp_means(m, n), min(m, n)
    baseline = marchenko_pastur(m, n)
    assert baseline.effective_rank_energy == pytest.approx(small * math.exp(-means["t2 log t2"]), rel=1e-9)
    assert baseline.participation_ratio == pytest.approx(small / means["t4"], rel=1e-9)
    assert baseline.participation_ratio == pytest.approx(m * n / (m + n), rel=1e-14)
    assert baseline.stable_rank == pytest.approx(m * n / (math.sqrt(m) + math.sqrt(n)) ** 2, rel=1e-14)
    assert baseline.effective_rank == marchenko_pastur_effective_rank(m, n)
    assert baseline.effective_rank_ratio == baseline.effective_rank / small


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_readings_keep_the_order_of_the_measures(m, n):
    b = marchenko_pastur(m, n)
    chain = [1.0, b.stable_rank, b.participation_ratio, b.effective_rank_energy, b.effective_rank, min(m, n)]
    if min(m, n) > 3:
        assert all(low <= high * (1 + 1e-12) for low, high in itertools.pairwise(chain))
    assert 0 <= b.lower_edge <= b.edge


@pytest.mark.parametrize(("m", "n"), [(150, 150), (100, 300), (400, 60)])
def test_sampled_gaussian_matrices_read_like_the_baseline(m, n):
    rng = np.random.default_rng(m)
    samples = []
    for _ in range(12):
        s = np.linalg.svd(0.3 * rng.standard_normal((m, n)), compute_uv=False)
        q = s * s
        samples.append((entropy_rank(s), entropy_rank(q), q.sum() ** 2 / (q * q).sum(), q.sum() / q[0], s[0], s[-1]))
    b = marchenko_pastur(m, n, std=0.3)
    mean = np.mean(samples, axis=0)
    assert mean[0] == pytest.approx(b.effective_rank, rel=4e-3)
    assert mean[1] == pytest.approx(b.effective_rank_energy, rel=6e-3)
    assert mean[2] == pytest.approx(b.participation_ratio, rel=1e-2)
    assert mean[3] == pytest.approx(b.stable_rank, rel=6e-2)
    assert mean[4] == pytest.approx(b.edge, rel=4e-2)
    assert abs(mean[5] - b.lower_edge) < 0.05 * b.edge


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 7), (7, 1), (1, 10**6)])
def test_one_row_or_column_is_exact(m, n):
    b = marchenko_pastur(m, n)
    assert (b.effective_rank, b.effective_rank_energy, b.participation_ratio, b.stable_rank) == (1.0,) * 4
    assert b.edge == 1 + math.sqrt(max(m, n))
    assert not b.document().plots
    assert not b.density([0.5, math.sqrt(max(m, n))]).any()


@pytest.mark.parametrize(("m", "n"), [(100, 100), (40, 90), (7, 3)])
def test_density_is_that_of_the_law(m, n):
    b = marchenko_pastur(m, n, std=2.5)
    # Chebyshev points of the second kind integrate a density with square-root ends exactly enough.
    theta = (np.arange(20_000) + 0.5) * np.pi / 20_000
    s = 0.5 * (b.edge + b.lower_edge) - 0.5 * (b.edge - b.lower_edge) * np.cos(theta)
    weight = 0.5 * (b.edge - b.lower_edge) * np.sin(theta) * np.pi / 20_000
    f = b.density(s)
    assert f @ weight == pytest.approx(1.0, abs=1e-6)
    assert f @ (weight * s * s) == pytest.approx(max(m, n) * 2.5**2, rel=1e-6)
    assert f @ (weight * s**4) == pytest.approx((max(m, n) * 2.5**2) ** 2 * (1 + min(m, n) / max(m, n)), rel=1e-6)
    assert b.density([[b.edge * 1.001], [b.lower_edge * 0.999], [0.0]]).tolist() == [[0.0], [0.0], [0.0]]


def test_edges_are_those_of_the_law():
    assert marchenko_pastur_edge(16, 64, 0.5) == 6.0
    b = marchenko_pastur(64, 16, std=0.5)
    assert (b.edge, b.lower_edge) == (6.0, 2.0)
    assert marchenko_pastur_edge(3, 5, 0.0) == 0.0
    assert marchenko_pastur(9, 4, std=0).document().plots == ()
    assert marchenko_pastur_edge(np.int64(16), np.int32(64), np.float32(0.5)) == 6.0


def test_lower_edge_of_nearly_square_matrices_does_not_cancel():
    n = 10**15
    assert marchenko_pastur(n, n + 1).lower_edge == pytest.approx(0.5 / math.sqrt(n), rel=1e-12, abs=0)


@pytest.mark.parametrize("call", [marchenko_pastur, marchenko_pastur_effective_rank])
@pytest.mark.parametrize(
    ("m", "n", "name", "error"),
    [
        (0, 3, "m", ValueError),
        (3, -1, "n", ValueError),
        (2.0, 3, "m", TypeError),
        (2, True, "n", TypeError),
        ("2", 3, "m", TypeError),
        (10**400, 3, "m", ValueError),
        (3, 2**53 + 1, "n", ValueError),
    ],
)
def test_bad_sides_are_named(call, m, n, name, error):
    with pytest.raises(error, match=f"`{name}`"):
        call(m, n)
    with pytest.raises(error, match=f"`{name}`"):
        marchenko_pastur_edge(m, n, 1.0)


@pytest.mark.parametrize(
    ("std", "error"),
    [(-1.0, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (1.7e308, ValueError)],
)
def test_bad_deviations_are_named(std, error):
    with pytest.raises(error, match="`std`"):
        marchenko_pastur(10, 10, std=std)
    with pytest.raises(error, match="`std`"):
        marchenko_pastur_edge(10, 10, std)
    with pytest.raises(error, match="`std`"):
        mp_outliers([1.0], (10, 10), std)


def test_result_shows_and_travels():
    b = marchenko_pastur(30, 20, std=0.1)
    assert isinstance(b, MarchenkoPastur)
    assert result_from_json(b.to_json()) == b
    assert b.verdict == "unknown"
    document = b.document()
    (plot,) = document.plots
    assert plot.lines[0].value == b.edge
    assert max(plot.series[0].y) > 0
    assert len(plot.series[0].x) == len(plot.series[0].y)
    for label in ("edge", "effective rank (sigma)", "stable rank"):
        assert label in b.summary()


# --- outliers ------------------------------------------------------------------------------------------------


def test_outliers_count_values_above_the_edge_and_its_margin():
    values = [20.0, 20.3, 20.41, 19.0, 0.0, 100.0]
    assert mp_outliers(values, (100, 100), 1.0) == 2  # the edge is 20, with its margin 20.4
    assert mp_outliers(values, (100, 100), 1.0, margin=0.0) == 3  # not the value on the edge
    assert mp_outliers(values, (100, 100), 1.0, margin=4.0) == 0
    assert mp_outliers(values, (100, 100), 0.0) == 5
    assert mp_outliers([], (3, 4), 1.0) == 0
    assert mp_outliers(np.float32(values), [100, 100], 1.0) == 2


def test_a_planted_direction_is_an_outlier_and_noise_has_none():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((300, 400))
    assert mp_outliers(np.linalg.svd(noise, compute_uv=False), noise.shape, 1.0) == 0
    u, v = rng.standard_normal((300, 2)), rng.standard_normal((400, 2))
    planted = noise + 2.0 * u @ v.T / math.sqrt(100)
    assert mp_outliers(np.linalg.svd(planted, compute_uv=False), noise.shape, float(planted.std())) == 2


def test_small_noise_passes_the_edge_as_often_as_stated():
    rng = np.random.default_rng(5)
    found = [
        mp_outliers(np.linalg.svd(rng.standard_normal((16, 16)), compute_uv=False), (16, 16), 1.0) for _ in range(600)
    ]
    assert 0.03 < np.mean(np.array(found) > 0) < 0.09


@given(st.floats(1e-250, 1e250), st.lists(st.floats(0, 60), min_size=1, max_size=12))
def test_outliers_do_not_depend_on_the_unit(unit, values):
    spectrum = np.array(values)
    limit = 1.02 * (math.sqrt(50) + math.sqrt(80))
    if np.abs(spectrum - limit).min() > 1e-9:
        assert mp_outliers(spectrum * unit, (50, 80), unit) == mp_outliers(spectrum, (50, 80), 1.0)
        assert mp_outliers(spectrum, (80, 50), 1.0) == int((spectrum > limit).sum())


@pytest.mark.parametrize(
    ("arguments", "options", "name", "error"),
    [
        (([1.0, -1.0], (2, 2), 1.0), {}, "values", ValueError),
        (([[1.0]], (2, 2), 1.0), {}, "values", ValueError),
        (([math.nan], (2, 2), 1.0), {}, "values", ValueError),
        ((None, (2, 2), 1.0), {}, "values", TypeError),
        (([1.0], 4, 1.0), {}, "shape", TypeError),
        (([1.0], "22", 1.0), {}, "shape", TypeError),
        (([1.0], (2,), 1.0), {}, "shape", ValueError),
        (([1.0], (2, 2, 2), 1.0), {}, "shape", ValueError),
        (([1.0], (2, 0), 1.0), {}, "shape", ValueError),
        (([1.0], (2, 2.0), 1.0), {}, "shape", TypeError),
        (([1.0], (2, 2), 1.0), {"margin": -0.1}, "margin", ValueError),
        (([1.0], (2, 2), 1.0), {"margin": math.inf}, "margin", ValueError),
        (([1.0], (2, 2), 1.0), {"margin": None}, "margin", TypeError),
    ],
)
def test_bad_arguments_of_outliers_are_named(arguments, options, name, error):
    with pytest.raises(error, match=f"`{name}`"):
        mp_outliers(*arguments, **options)


# --- shuffling -----------------------------------------------------------------------------------------------


def test_shuffling_keeps_the_entries_and_breaks_the_structure():
    matrix = np.outer(np.linspace(1, 2, 30), np.linspace(-1, 3, 20))
    before = matrix.copy()
    s = shuffled_spectrum(matrix, rng=3)
    assert (matrix == before).all()
    assert s.frobenius == pytest.approx(np.linalg.norm(matrix), rel=1e-13)
    assert s.numerical_rank() == 20
    assert s.shape == (30, 20)
    assert s.values[0] < np.linalg.norm(matrix, 2)


def test_shuffling_is_uniform_over_entries():
    # A single large entry lands everywhere: the first row and column get their share.
    matrix = np.zeros((3, 2))
    matrix[0, 0], matrix[0, 1] = 3.0, 4.0
    # The two entries share a row or a column (s = 5), or neither (s = 4, 3): 9 and 6 of the 15 pairs of places.
    apart = sum(shuffled_spectrum(matrix, rng=seed).values[0] < 4.5 for seed in range(400))
    assert 400 * 6 / 15 - 45 < apart < 400 * 6 / 15 + 45


def test_the_seed_repeats_the_shuffle():
    matrix = np.arange(24.0).reshape(4, 6)
    drawn = shuffled_spectrum(matrix)
    assert drawn.meta.seed is not None
    assert (shuffled_spectrum(matrix, rng=drawn.meta.seed).values == drawn.values).all()
    assert shuffled_spectrum(matrix, rng=5).meta.seed == 5
    generator = np.random.default_rng(5)
    first = shuffled_spectrum(matrix, rng=generator)
    assert first.meta.seed is None
    assert (first.values == shuffled_spectrum(matrix, rng=5).values).all()
    assert (shuffled_spectrum(matrix, rng=generator).values != first.values).any()


def test_a_gaussian_matrix_is_its_own_shuffle():
    matrix = np.random.default_rng(1).standard_normal((120, 200))
    shuffled = shuffled_spectrum(matrix, rng=2)
    assert shuffled.effective_rank() == pytest.approx(marchenko_pastur_effective_rank(120, 200), rel=5e-3)


def test_need_reaches_the_decomposition():
    matrix = np.random.default_rng(1).standard_normal((520, 520))
    assert shuffled_spectrum(matrix, rng=0, need="sums").method == "gram"
    assert shuffled_spectrum(matrix[:40, :40], rng=0, need="rank").method == "svd"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_shuffling_reads_torch_and_keeps_its_dtype(dtype):
    torch = pytest.importorskip("torch")
    matrix = torch.linspace(-1, 1, 35).reshape(5, 7).to(getattr(torch, dtype)).requires_grad_()
    s = shuffled_spectrum(matrix, rng=0)
    assert s.input_dtype == s.meta.dtype == dtype
    assert (s.values == shuffled_spectrum(matrix.detach().double().numpy(), rng=0).values).all()


@pytest.mark.parametrize(
    ("matrix", "options", "name", "error"),
    [
        ([1.0, 2.0], {}, "matrix", ValueError),
        (np.zeros((0, 3)), {}, "matrix", ValueError),
        ([[math.nan]], {}, "matrix", ValueError),
        ([[1j]], {}, "matrix", TypeError),
        ([[1.0]], {"rng": -1}, "rng", ValueError),
        ([[1.0]], {"rng": "x"}, "rng", TypeError),
        ([[1.0]], {"need": "all"}, "need", ValueError),
    ],
)
def test_bad_arguments_of_shuffling_are_named(matrix, options, name, error):
    with pytest.raises(error, match=f"`{name}`"):
        shuffled_spectrum(matrix, **options)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (marchenko_pastur, {"m": 3, "n": 4}),
        (marchenko_pastur_edge, {"m": 3, "n": 4, "std": 1.0}),
        (marchenko_pastur_effective_rank, {"m": 3, "n": 4}),
        (marchenko_pastur(5, 6).density, {"s": [0.5, 1.0, 2.0]}),
        (mp_outliers, {"values": [3.0, 2.0], "shape": (4, 5), "std": 1.0}),
        (shuffled_spectrum, {"matrix": [[1.0, 2.0], [3.0, 4.0]], "rng": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_and_extreme_values_are_read_or_refused_by_name(call, arguments):
    fuzz(call, arguments=arguments).raise_for_violations()

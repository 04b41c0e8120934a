"""Every method against the truth, at the error bound that it states."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle
from oracles.spectral_cases import SHAPES, cases, exact_cases, prescribed

pytestmark = pytest.mark.skipif(not oracle.EXTENDED, reason="the oracle needs 80-bit long doubles")

METHODS = ("svd", "qr_svd", "gram")
SCALES = (-318, -310, -300, -160, -20, 0, 0, 0, 20, 160, 300)
DENORMAL = 5e-324
# Seeds of `prescribed(default_rng(seed), kind, n, n)` where LAPACK errs most, found by a search over 40,000
# matrices: 46 to 62 eps s_1, whatever n. The tests demand that the stated bound covers them, but only just.
CLUSTERED = [("clustered", 3, 23311), ("clustered", 4, 35480), ("clustered", 5, 18855), ("clustered", 6, 32860)]
HARD = {"svd": CLUSTERED, "qr_svd": CLUSTERED, "gram": [("rank_one", 2, seed) for seed in range(40)]}


def check(matrix, method, truth):
    """The largest error of one method over its bound; the spectrum must be well formed."""
    s = sp.spectrum(matrix, method=method)
    assert s.method == method
    assert s.values.shape == truth.shape
    assert np.all(np.isfinite(s.values))
    assert np.all(s.values >= 0)
    assert np.all(np.diff(s.values) <= 0)
    ratio = oracle.error_ratio(s.values, s.error_bound, truth)
    assert ratio <= 1, f"{method}: error is {ratio:.3g} times the bound {s.error_bound:.3g}"
    return ratio


@pytest.mark.parametrize("method", METHODS)
@given(cases(max_side=8, scales=SCALES))
def test_values_within_the_stated_bound(method, case):
    check(case.matrix, method, oracle.singular_values(case.matrix))


@pytest.mark.parametrize("method", METHODS)
@given(exact_cases())
def test_exactly_known_spectra(method, case):
    matrix, truth = case
    check(matrix, method, truth.astype(oracle.LONG))


@pytest.mark.slow
def test_ten_thousand_cases_within_the_stated_bounds(capsys):
    worst: Counter = Counter()  # denormal matrices apart: there the bound is the spacing of the values
    by_kind: Counter = Counter()
    ran = 0

    @settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(cases(max_side=12, scales=SCALES))
    def run(case):
        nonlocal ran
        truth = oracle.singular_values(case.matrix)
        for method in METHODS:
            ratio = check(case.matrix, method, truth)
            worst[method, case.scale < 1e-290] = max(worst[method, case.scale < 1e-290], ratio)
            if case.scale > 1e-290:
                by_kind[method, case.kind] = max(by_kind[method, case.kind], ratio)
        ran += 1

    run()
    with capsys.disabled():
        for method in METHODS:
            kinds = ", ".join(f"{kind} {by_kind[method, kind]:.3f}" for kind in SHAPES)
            print(f"\n{ran} cases, {method}: worst error/bound {worst[method, False]:.3f} ", end="")
            print(f"(denormal matrices {worst[method, True]:.3f}): {kinds}", end="")
        print()
    assert ran >= 10_000
    assert all(worst[method, False] > 0.1 for method in METHODS), "a bound shrunk tenfold would go unnoticed"


@pytest.mark.parametrize("method", METHODS)
def test_a_bound_shrunk_tenfold_would_fail(method):
    ratios = []
    for kind, n, seed in HARD[method]:
        matrix = prescribed(np.random.default_rng(seed), kind, n, n)
        ratios.append(check(matrix, method, oracle.singular_values(matrix)))
    assert max(ratios) > 0.1, ratios


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 40), (300, 7)])
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
def test_bound_is_the_documented_one(method, shape, scale):
    matrix = np.random.default_rng(0).standard_normal(shape) * scale
    s = sp.spectrum(matrix, method=method)
    low, high = oracle.error_bound_range(method, shape, float(s.values[0]))
    assert low * (1 - 1e-9) <= s.error_bound <= high


@pytest.mark.parametrize("method", METHODS)
def test_bound_of_denormal_values_counts_their_rounding(method):
    matrix = np.array([[1.0, 1.0], [1.0, 0.0]]) * 1e-320
    truth = oracle.singular_values(matrix)
    s = sp.spectrum(matrix, method=method)
    assert oracle.error_ratio(s.values, s.error_bound, truth) <= 1
    assert s.error_bound >= DENORMAL
    assert s.effective_rank() == pytest.approx(oracle.effective_rank(truth), rel=0.01)
    assert sp.spectrum(np.full((3, 2), DENORMAL), method=method).values[0] == pytest.approx(
        6**0.5 * DENORMAL, abs=DENORMAL
    )


@pytest.mark.parametrize("method", METHODS)
def test_bound_of_a_zero_matrix_is_harmless(method):
    s = sp.spectrum(np.zeros((4, 3)), method=method)
    assert s.values.tolist() == [0.0, 0.0, 0.0]
    assert 0 <= s.error_bound <= 1e-300
    assert s.numerical_rank(rtol=0.5) == 0
    assert s.effective_rank() == 0


@pytest.mark.parametrize("method", METHODS)
@given(
    cases(
        max_side=10,
        kinds=("gaussian", "clustered", "deficient", "cliff", "integer"),
        scales=(-300, -30, -20, 0, 0, 20, 30, 300),
    )
)
def test_float32_work_states_a_float32_bound(method, case):
    truth = oracle.singular_values(case.matrix)
    s = sp.spectrum(case.matrix, method=method, dtype="float32")
    assert s.values.dtype == np.float64
    assert oracle.error_ratio(s.values, s.error_bound, truth) <= 1
    if case.matrix.any():
        low, high = oracle.error_bound_range(method, case.matrix.shape, float(s.values[0]), eps=2.0**-23)
        assert low * (1 - 1e-6) <= s.error_bound <= 2 * high


@pytest.mark.parametrize("rows", [1000, 20_000, 100_000])
@pytest.mark.parametrize("columns", [2, 3, 8])
@pytest.mark.parametrize("wide", [False, True])
def test_gram_bound_holds_for_very_long_matrices(rows, columns, wide):
    # The rounding of a long sum outgrows sqrt(min(m, n) eps), the worst where every term rounds the same way.
    rng = np.random.default_rng(rows + columns)
    base = rng.random((rows, 1)) + 0.1
    matrices = [
        base * rng.uniform(0.5, 2, columns) + spread * rng.standard_normal((rows, columns)) for spread in (0, 1e-8)
    ]
    matrices += [np.ones((rows, 1)) * rng.uniform(0.5, 2, columns) for _ in range(3)]
    matrices.append(np.full((rows, columns), 0.1 * (1 + rng.random())))
    for matrix in matrices:
        r = np.linalg.qr(matrix, mode="r")
        truth = oracle.singular_values(r)  # to 1e-15 of the largest value, far below the bound of a Gram
        s = sp.spectrum(matrix.T if wide else matrix, method="gram")
        assert oracle.error_ratio(s.values, s.error_bound, truth) <= 1


@given(cases(max_side=8, scales=(-300, 0, 300)), st.sampled_from(METHODS))
def test_frobenius_norm_is_exact_to_rounding(case, method):
    s = sp.spectrum(case.matrix, method=method)
    exact = float(oracle.tail(np.abs(case.matrix).ravel(), 0))
    assert s.frobenius == pytest.approx(exact, rel=1e-13)


@given(cases(max_side=8))
def test_energy_readings_of_a_gram_lose_nothing(case):
    truth = oracle.singular_values(case.matrix)
    s = sp.spectrum(case.matrix, method="gram")
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(truth), rel=1e-12)
    assert s.participation_ratio() == pytest.approx(oracle.participation_ratio(truth), rel=1e-12)
    assert s.effective_rank(weights="energy") == pytest.approx(oracle.effective_rank(truth, "energy"), rel=1e-11)
    assert s.schatten_norm(2) == pytest.approx(oracle.schatten_norm(truth, 2), rel=1e-13)


@given(cases(max_side=10, kinds=("gaussian", "deficient", "cliff", "steep")), st.floats(-16, -0.05))
def test_gram_never_gives_a_wrong_count(case, exponent):
    rtol = 10.0**exponent
    truth = oracle.singular_values(case.matrix)
    s = sp.spectrum(case.matrix, method="gram")
    found, refusal = oracle.attempt(lambda: s.numerical_rank(rtol=rtol))
    if refusal:
        assert "gram" in refusal
        near = np.abs(s.values - rtol * s.values[0]).min() if truth[0] > 0 else 0
        assert near <= s.error_bound * 1.01 or rtol * s.values[0] <= s.error_bound * 1.01
    else:
        assert found == oracle.numerical_rank(truth, case.matrix.shape, rtol=rtol)


@given(cases(max_side=10, kinds=("gaussian", "deficient", "cliff", "steep")), st.floats(-16, -0.05))
def test_float32_work_never_gives_a_wrong_count(case, exponent):
    truth = oracle.singular_values(case.matrix)
    s = sp.spectrum(case.matrix, method="svd", dtype="float32")
    found, refusal = oracle.attempt(lambda: s.numerical_rank(rtol=10.0**exponent))
    if refusal:
        near = np.abs(s.values - 10.0**exponent * s.values[0]).min() if truth[0] > 0 else 0
        assert min(near, 10.0**exponent * s.values[0]) <= s.error_bound * 1.01
    else:
        assert found == oracle.numerical_rank(truth, case.matrix.shape, rtol=10.0**exponent)


@given(cases(max_side=10), st.floats(0, 1))
def test_certified_rank_never_exceeds_the_truth(case, share):
    truth = oracle.singular_values(case.matrix)
    error = share * float(truth[0])
    for method in METHODS:
        found = sp.spectrum(case.matrix, method=method).certified_rank(error)
        assert found <= sum(1 for v in truth if v > error)


def test_gram_refuses_every_threshold_below_its_bound():
    with pytest.raises(ValueError, match="gram"):
        sp.spectrum(np.eye(3), method="gram").numerical_rank()
    assert sp.spectrum(np.eye(3), method="gram").numerical_rank(rtol=1e-3) == 3


# --- partial spectra: shares of brackets that hold -------------------------------------------------------


def topk_case(rng, index):
    m, n = int(rng.integers(1, 60)), int(rng.integers(1, 60))
    kind = SHAPES[index % len(SHAPES)]
    return prescribed(rng, kind, m, n), int(rng.integers(1, min(m, n, 8) + 1))


def topk_holds(matrix, k, seed):
    truth = np.linalg.svd(matrix, compute_uv=False)[:k]
    s = sp.spectrum(matrix, method="topk", k=k, rng=seed)
    assert s.values.shape == (k,)
    assert np.all(np.diff(s.values) <= 0)
    slack = 16 * max(matrix.shape) * 2.0**-52 * max(truth[0], DENORMAL)  # of the float64 reference
    return bool(np.all(np.abs(s.values - truth) <= s.error_bound + slack)), s, truth


def test_topk_on_many_small_matrices():
    rng = np.random.default_rng(11)
    held = [topk_holds(*topk_case(rng, i), i)[0] for i in range(60)]
    assert np.mean(held) >= 0.98


@pytest.mark.slow
def test_share_of_topk_brackets(capsys):
    rng = np.random.default_rng(12)
    held: dict[str, list[bool]] = {kind: [] for kind in SHAPES}
    for i in range(500):
        ok, _, _ = topk_holds(*topk_case(rng, i), i)
        held[SHAPES[i % len(SHAPES)]].append(ok)
    for i in range(48):  # shapes where Lanczos has to stop early
        m, n = [(250, 250), (150, 600), (500, 200)][i % 3]
        kind = ("gaussian", "cliff", "clustered", "steep")[i % 4]
        held[kind].append(topk_holds(prescribed(rng, kind, m, n), int(rng.integers(1, 6)), i)[0])
    share = float(np.mean([x for rows in held.values() for x in rows]))
    with capsys.disabled():
        print(f"\ntopk: {share:.4f} of {sum(map(len, held.values()))} brackets hold; ", end="")
        print(", ".join(f"{kind} {np.mean(rows):.3f}" for kind, rows in held.items()))
    assert share >= 0.99


@pytest.mark.parametrize(("kind", "n", "seed"), CLUSTERED)
def test_topk_of_a_small_cluster_states_the_rounding(kind, n, seed):
    matrix = prescribed(np.random.default_rng(seed), kind, n, n)
    s = sp.spectrum(matrix, method="topk", k=n, rng=0)
    assert oracle.error_ratio(s.values, s.error_bound, oracle.singular_values(matrix)) <= 1


@pytest.mark.parametrize("width", [1e-5, 1e-6, 1e-7, 1e-8])
@pytest.mark.parametrize("k", [1, 3])
def test_topk_inside_a_cluster_states_what_it_left(width, k):
    # Lanczos cannot tell these values apart; what it returns lies inside the cluster, and the bound must say so.
    values = np.r_[1 + width * np.linspace(1, 0, 120), np.linspace(0.3, 0.1, 140)]
    matrix = oracle.with_spectrum(np.random.default_rng(5), 270, 260, values)
    for seed in range(3):
        s = sp.spectrum(matrix, method="topk", k=k, rng=seed)
        assert np.all(np.abs(s.values - values[:k]) <= s.error_bound + 1e-14)


def slq_case(rng, index, top=60):
    m, n = int(rng.integers(2, top)), int(rng.integers(2, top))
    kind = ("gaussian", "cliff", "clustered", "integer", "steep", "deficient", "graded")[index % 7]
    return kind, prescribed(rng, kind, m, n)


def slq_misses(matrix, seed):
    """How many standard errors outside its bracket the true effective rank lies; 0 inside."""
    s = sp.spectrum(matrix, method="slq", rng=seed)
    low, high, stderr = s.bracket
    truth = oracle.effective_rank(np.linalg.svd(matrix, compute_uv=False))
    assert 0 <= low <= high
    assert stderr >= 0
    assert low - stderr <= s.effective_rank() <= high + stderr
    outside = max(low - truth, truth - high, 0.0)
    return 0.0 if outside <= 1e-9 * max(truth, 1) else outside / stderr if stderr > 0 else np.inf


def test_slq_on_many_small_matrices():
    rng = np.random.default_rng(21)
    misses = np.array([slq_misses(slq_case(rng, i, 30)[1], i) for i in range(42)])
    assert np.mean(misses <= 2) >= 0.85
    assert np.mean(misses <= 4) >= 0.95


@pytest.mark.slow
def test_share_of_slq_brackets(capsys):
    rng = np.random.default_rng(22)
    held: dict[str, list[float]] = {}
    for i in range(420):
        kind, matrix = slq_case(rng, i)
        held.setdefault(kind, []).append(slq_misses(matrix, i))
    for i in range(28):
        kind, matrix = slq_case(rng, i, 300)
        held[kind].append(slq_misses(matrix, i))
    misses = np.concatenate([np.array(rows) for rows in held.values()])
    shares = {t: float(np.mean(misses <= t)) for t in (0, 1, 2, 3)}
    with capsys.disabled():
        print(f"\nslq: of {misses.size} brackets hold, widened by t standard errors: {shares}; at 2: ", end="")
        print(", ".join(f"{kind} {np.mean(np.array(rows) <= 2):.3f}" for kind, rows in held.items()))
    assert shares[2] >= 0.9
    assert shares[3] >= 0.95


def test_slq_is_exact_where_every_probe_sees_the_same():
    for n in (1, 2, 17):
        low, high, stderr = sp.spectrum(3.0 * np.eye(n), method="slq", rng=0).bracket
        assert low == pytest.approx(n, rel=1e-9)
        assert high == pytest.approx(n, rel=1e-9)
        assert stderr <= 1e-9 * n
    for scale in (1.0, 1e-300, 1e300, 1e-310):
        low, high, stderr = sp.spectrum(scale * oracle.hadamard(8), method="slq", rng=1).bracket
        assert low - stderr - 1e-6 <= 8 <= high + stderr + 1e-6
    zero = sp.spectrum(np.zeros((4, 3)), method="slq", rng=0)
    assert zero.bracket == (0.0, 0.0, 0.0)
    assert zero.effective_rank() == 0


def test_more_steps_narrow_the_bracket_and_more_probes_the_error():
    matrix = np.random.default_rng(2).standard_normal((150, 100))
    truth = oracle.effective_rank(np.linalg.svd(matrix, compute_uv=False))
    wide = sp.spectrum(matrix, method="slq", steps=5, probes=8, rng=0).bracket
    narrow = sp.spectrum(matrix, method="slq", steps=40, probes=8, rng=0).bracket
    assert narrow[1] - narrow[0] < 0.2 * (wide[1] - wide[0])
    many = sp.spectrum(matrix, method="slq", steps=40, probes=128, rng=0)
    assert many.probes == 128
    assert many.bracket[2] < 0.5 * narrow[2]
    assert many.bracket[0] - 4 * many.bracket[2] <= truth <= many.bracket[1] + 4 * many.bracket[2]
    assert many.effective_rank() == pytest.approx(truth, rel=0.02)


def test_standard_error_of_slq_is_that_of_its_estimate():
    # Few probes, many seeds: the stated error must be the spread that is seen, with n - 1 in its denominator.
    matrix = np.random.default_rng(3).standard_normal((16, 12))
    found = [sp.spectrum(matrix, method="slq", probes=2, rng=seed) for seed in range(300)]
    spread = np.std([s.effective_rank() for s in found], ddof=1)
    stated = np.sqrt(np.mean([s.bracket[2] ** 2 for s in found]))
    assert stated / spread == pytest.approx(1, abs=0.2)


def test_slq_brackets_of_few_steps_hold_those_of_many():
    # Each probe carries a bracket that is certain, so with the same probes more steps stay inside it.
    for seed in range(12):
        kind, matrix = slq_case(np.random.default_rng(seed), seed, 50)
        low, high, _ = sp.spectrum(matrix, method="slq", steps=60, rng=seed).bracket
        for steps in (2, 3, 5, 9):
            wide_low, wide_high, _ = sp.spectrum(matrix, method="slq", steps=steps, rng=seed).bracket
            assert wide_low <= low * (1 + 1e-9), (kind, steps)
            assert high <= wide_high * (1 + 1e-9), (kind, steps)


def test_slq_of_a_matrix_drawn_with_the_same_seed():
    # Probes that are rows of the matrix itself would not be independent of it.
    misses = []
    for seed in range(30):
        matrix = np.random.default_rng(seed).standard_normal((40, 30))
        misses += [slq_misses(matrix, seed), slq_misses(matrix.T, seed)]
    assert np.mean(np.array(misses) <= 2) >= 0.8
    assert np.mean(np.array(misses) <= 4) >= 0.95

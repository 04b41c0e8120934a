"""Which method is chosen when, what a partial spectrum refuses, and spectra made to break a method."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle
from oracles.spectral_cases import cases


@pytest.fixture(scope="module")
def low_rank():
    rng = np.random.default_rng(0)
    return rng.standard_normal((1024, 5)) @ rng.standard_normal((5, 1024))


@pytest.fixture(scope="module")
def low_rank_values(low_rank):
    """From the two thin factors of a QR of the same product, so without a 1024 x 1024 decomposition."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((1024, 5)), rng.standard_normal((5, 1024))
    return np.linalg.svd(np.linalg.qr(left)[1] @ np.linalg.qr(right.T)[1].T, compute_uv=False)


# --- auto ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("need", ["rank", "sums"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (512, 20), (20, 2000), (300, 512)])
def test_auto_takes_the_full_svd_up_to_512(need, shape):
    matrix = np.random.default_rng(0).standard_normal(shape)
    method = sp.spectrum(matrix, need=need).method
    assert method == "svd" or (method == "qr_svd" and max(shape) > 2 * min(shape))


@pytest.mark.parametrize(("shape", "method"), [((520, 800), "qr_svd"), ((1600, 520), "svd"), ((530, 520), "svd")])
def test_auto_takes_qr_where_it_is_faster_and_gram_for_sums(shape, method):
    matrix = np.random.default_rng(0).standard_normal(shape)
    ranked = sp.spectrum(matrix)
    summed = sp.spectrum(matrix, need="sums")
    assert ranked.method == method
    assert summed.method == "gram"
    assert np.all(np.abs(ranked.values - summed.values) <= ranked.error_bound + summed.error_bound)
    assert ranked.error_bound <= oracle.error_bound_range("qr_svd", shape, ranked.values[0])[1]
    assert summed.effective_rank() == pytest.approx(ranked.effective_rank(), rel=1e-12)
    assert ranked.numerical_rank() == 520


def test_need_top_gives_the_top_values():
    matrix = np.random.default_rng(1).standard_normal((520, 560))
    truth = np.linalg.svd(matrix, compute_uv=False)
    s = sp.spectrum(matrix, need="top", k=3)
    np.testing.assert_allclose(s.values[:3], truth[:3], rtol=1e-6)
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(truth), rel=1e-6)
    assert sp.spectrum(matrix, need="top").values.shape == (1,)


def test_rank_five_of_1024(low_rank, low_rank_values):
    assert sp.numerical_rank(low_rank) == 5
    assert sp.effective_rank(low_rank) == pytest.approx(oracle.effective_rank(low_rank_values), rel=1e-6)


@pytest.mark.slow
def test_other_readings_of_rank_five_of_1024(low_rank, low_rank_values):
    assert sp.nuclear_ratio(low_rank) == pytest.approx(oracle.nuclear_ratio(low_rank_values), rel=1e-6)
    assert sp.stable_rank(low_rank) == pytest.approx(oracle.stable_rank(low_rank_values), rel=1e-6)
    assert sp.participation_ratio(low_rank) == pytest.approx(oracle.participation_ratio(low_rank_values), rel=1e-10)
    assert sp.schatten_norm(low_rank, "nuc") == pytest.approx(oracle.schatten_norm(low_rank_values, 1), rel=1e-6)
    assert sp.certified_rank(low_rank, 1.0) == 5
    assert sp.eps_rank(low_rank, 1e-10) == 5
    assert sp.spectrum(low_rank).method in {"svd", "qr_svd"}  # never a count from a Gram


def test_gram_states_its_uncertainty_where_it_is_used_by_hand(low_rank, low_rank_values):
    truth = oracle.effective_rank(low_rank_values)
    s = sp.spectrum(low_rank, method="gram")
    assert s.effective_rank() == pytest.approx(truth, rel=1e-3)  # its noise adds up: no more is promised
    assert s.effective_rank(weights="energy") == pytest.approx(
        oracle.effective_rank(low_rank_values, "energy"), rel=1e-10
    )
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(low_rank_values), rel=1e-10)
    assert s.participation_ratio() == pytest.approx(oracle.participation_ratio(low_rank_values), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 40])
@pytest.mark.parametrize("shape", [(700, 700), (600, 900)])
def test_convenience_forms_fall_back_when_the_gram_is_too_coarse(rank, shape):
    rng = np.random.default_rng(rank)
    left, right = rng.standard_normal((shape[0], rank)), rng.standard_normal((rank, shape[1]))
    truth = np.linalg.svd(np.linalg.qr(left)[1] @ np.linalg.qr(right.T)[1].T, compute_uv=False)
    matrix = left @ right
    assert sp.effective_rank(matrix) == pytest.approx(oracle.effective_rank(truth), rel=1e-6)
    assert sp.spectral_entropy(matrix, order=1) == pytest.approx(oracle.entropy(truth), rel=1e-6)
    assert sp.spectral_entropy(matrix, order=0.5) == pytest.approx(oracle.entropy(truth, order=0.5), abs=1e-4)
    assert sp.schatten_norm(matrix, "nuc") == pytest.approx(oracle.schatten_norm(truth, 1), rel=1e-6)
    assert sp.schatten_norm(matrix, 1.5) == pytest.approx(oracle.schatten_norm(truth, 1.5), rel=1e-6)
    assert sp.nuclear_ratio(matrix) == pytest.approx(oracle.nuclear_ratio(truth), rel=1e-6)
    assert sp.numerical_rank(matrix) == rank
    assert sp.eps_rank(matrix, 1e-10) == rank
    assert sp.certified_rank(matrix, 0.0) == rank
    assert sp.distance_to_rank(matrix, rank) <= 1e-10 * truth[0]
    assert sp.spectral_entropy(matrix, normalize=True) == pytest.approx(
        oracle.entropy(truth) / math.log(rank) if rank > 1 else 0.0, rel=2e-6, abs=1e-12
    )


@pytest.mark.slow
def test_steep_spectrum_of_a_large_matrix():
    values = 10.0 ** -np.linspace(0, 14, 600)
    matrix = oracle.with_spectrum(np.random.default_rng(5), 600, 700, values)
    assert sp.effective_rank(matrix) == pytest.approx(oracle.effective_rank(values), rel=1e-6)
    assert sp.nuclear_ratio(matrix) == pytest.approx(oracle.nuclear_ratio(values), rel=1e-6)
    assert sp.numerical_rank(matrix, rtol=1e-10) == int(np.sum(values > 1e-10))
    assert sp.schatten_norm(matrix, 0.5) == pytest.approx(oracle.schatten_norm(values, 0.5), rel=1e-4)


def floor_matrix(rank, floor, shape=(530, 520), scale=1.0):
    """A few strong directions over a broad floor, and the spectrum of it."""
    values = np.r_[np.linspace(2, 1, rank), np.full(min(shape) - rank, floor)]
    return oracle.with_spectrum(np.random.default_rng(rank), *shape, values) * scale, values * scale


@pytest.mark.parametrize(("rank", "floor"), [(3, 1e-5), (3, 1e-9), (60, 1e-7), (200, 1e-9)])
def test_sums_of_strong_directions_over_a_floor(rank, floor):
    # The floor is below what a plain Gram can see, yet 500 of its values count in sigma readings.
    matrix, values = floor_matrix(rank, floor)
    s = sp.spectrum(matrix, need="sums")
    assert oracle.error_ratio(s.values, s.error_bound, values.astype(oracle.LONG)) <= 1
    assert s.effective_rank() == pytest.approx(oracle.effective_rank(values), rel=1e-6)
    assert sp.effective_rank(matrix) == pytest.approx(oracle.effective_rank(values), rel=1e-6)
    assert sp.schatten_norm(matrix, 1) == pytest.approx(oracle.schatten_norm(values, 1), rel=1e-6)
    assert s.frobenius == pytest.approx(oracle.schatten_norm(values, 2), rel=1e-12)


def test_sums_where_no_line_separates_strong_from_weak():
    # Values on both sides of the line up to which a Gram can see: what is split off does not separate cleanly.
    values = np.r_[1.0, 1.7e-6 * np.linspace(1, 0.5, 100), np.full(419, 1e-7)]
    matrix = oracle.with_spectrum(np.random.default_rng(4), 530, 520, values)
    s = sp.spectrum(matrix, need="sums")
    assert oracle.error_ratio(s.values, s.error_bound, values.astype(oracle.LONG)) <= 1
    assert s.effective_rank() == pytest.approx(oracle.effective_rank(values), rel=1e-6)
    assert sp.nuclear_ratio(matrix) == pytest.approx(oracle.nuclear_ratio(values), rel=1e-6)


def test_counts_of_large_matrices():
    matrix, values = floor_matrix(7, 1e-4)
    assert sp.numerical_rank(matrix, rtol=1e-2) == 7
    assert sp.numerical_rank(matrix, rtol=0, atol=1.25) == int(np.sum(values > 1.25)) == 5
    assert sp.numerical_rank(matrix.astype(np.float16)) == 7  # its default tolerance is 2^-10
    # a Gram cannot tell on which side of these thresholds the fourth value lies
    assert sp.numerical_rank(matrix, rtol=0, atol=values[3] - 1e-12) == 4
    assert sp.numerical_rank(matrix, rtol=0, atol=values[3] + 1e-12) == 3


def test_counts_that_a_gram_gets_wrong_are_redone():
    values = np.r_[1.0, np.full(199, 0.5), 1e-6 * (1 + 1e-5 * np.linspace(1, -1, 320))]
    matrix = oracle.with_spectrum(np.random.default_rng(3), 530, 520, values)
    assert sp.numerical_rank(matrix, rtol=1e-6) == 200 + 160
    assert sp.numerical_rank(matrix, rtol=0, atol=1e-6) == 200 + 160


STABLE = {
    "flat": np.ones(260),
    "one above a plateau": np.r_[1.001, np.ones(259)],
    "one hardly above a plateau": np.r_[1 + 1e-5, np.ones(259)],
    "one hidden above a plateau": np.r_[1 + 1e-8, np.ones(259)],
    "close pair": np.r_[1.0, 1 - 1e-6, np.linspace(0.5, 0.1, 258)],
    "equal pair": np.r_[1.0, 1.0, np.linspace(0.5, 0.1, 258)],
    "cluster at the top": np.r_[1 - 1e-7 * np.arange(40), np.full(220, 1e-3)],
    "rank one": np.r_[1.0, np.zeros(259)],
    "steep": 10.0 ** -np.linspace(0, 12, 260),
    "linear": np.linspace(1, 0, 260),
}


@pytest.mark.parametrize("name", list(STABLE))
def test_stable_rank_of_spectra_made_to_break_lanczos(name):
    matrix = oracle.with_spectrum(np.random.default_rng(1), 290, 260, STABLE[name])
    assert sp.stable_rank(matrix) == pytest.approx(oracle.stable_rank(STABLE[name]), rel=2e-6)
    assert sp.stable_rank(matrix.T * 1e-200) == pytest.approx(oracle.stable_rank(STABLE[name]), rel=2e-6)


@pytest.mark.parametrize("scale", [1e200, 1e-310])
def test_stable_rank_of_large_matrices_at_extreme_scales(scale):
    matrix = oracle.with_spectrum(np.random.default_rng(1), 290, 260, STABLE["linear"]) * scale
    assert sp.stable_rank(matrix) == pytest.approx(oracle.stable_rank(STABLE["linear"]), rel=2e-6)


def test_stable_rank_of_complex_and_stacked_large_matrices():
    rng = np.random.default_rng(2)
    stack = rng.standard_normal((2, 257, 300)) * np.array([1.0, 1e-250])[:, None, None]
    stack[1] += 1e-250
    truth = [oracle.stable_rank(np.linalg.svd(one, compute_uv=False)) for one in stack]
    np.testing.assert_allclose(sp.stable_rank(stack), truth, rtol=1e-6)
    matrix = stack[0] + 1j * rng.standard_normal((257, 300))
    truth = oracle.stable_rank(np.linalg.svd(matrix, compute_uv=False))
    assert sp.stable_rank(matrix) == pytest.approx(truth, rel=1e-6)


# --- gram and counts -----------------------------------------------------------------------------------------


def test_gram_refuses_a_count_inside_its_noise():
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30))
    s = sp.spectrum(matrix, method="gram")
    for tolerance in ({}, {"rtol": 1e-12}, {"rtol": 0}, {"atol": 1e-9, "rtol": 0}):
        with pytest.raises(ValueError, match=r"gram.*(svd|rtol|atol)"):
            s.numerical_rank(**tolerance)
    with pytest.raises(ValueError, match="gram"):
        s.spectral_entropy(normalize=True)
    assert s.numerical_rank(rtol=1e-3) == 3
    assert sp.numerical_rank(s, rtol=1e-3) == 3
    edge = float(s.values[1] / s.values[0])
    with pytest.raises(ValueError, match="gram"):  # a value within the bound of the threshold
        s.numerical_rank(rtol=edge)
    assert s.certified_rank(0.0) <= 3
    assert s.certified_rank(1e-3) == 3


def test_gram_refuses_an_eps_rank_inside_its_noise():
    rng = np.random.default_rng(1)
    s = sp.spectrum(rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30)), method="gram")
    for eps in (0, 1e-14, 1e-10):
        with pytest.raises(ValueError, match="gram"):
            s.eps_rank(eps)
    assert s.eps_rank(1e-3) == 3
    assert sp.spectrum(np.diag([3.0, 2.0, 1.0]), method="gram").eps_rank(0.5) == 2


@given(cases(max_side=10, kinds=("gaussian", "deficient", "cliff", "steep")), st.floats(-16, -0.05))
def test_gram_never_gives_a_wrong_eps_rank(case, exponent):
    eps = 10.0**exponent
    truth = oracle.singular_values(case.matrix)
    whole = oracle.tail(truth, 0)
    tails = [oracle.tail(truth, r) for r in range(truth.size + 1)]
    assume(all(abs(t - eps * whole) > 1e-13 * whole for t in tails))
    found, refusal = oracle.attempt(lambda: sp.spectrum(case.matrix, method="gram").eps_rank(eps))
    if refusal:
        assert "gram" in refusal
        assert eps < 1e-5 or min(abs(t - eps * whole) for t in tails) < 1e-5 * whole
    else:
        assert found == oracle.eps_rank(truth, eps)


def test_gram_allows_the_count_of_a_coarse_input():
    matrix = np.diag([1.0, 0.5, 1e-2]).astype(np.float32)  # threshold 3.6e-7, Gram noise 2.6e-8
    assert sp.spectrum(matrix, method="gram").numerical_rank() == 3
    assert sp.spectrum(matrix.astype(np.float16), method="gram").numerical_rank() == 3


def test_gram_refusal_in_a_batch():
    good, bad = np.diag([4.0, 2.0, 1.0]), np.diag([4.0, 2.0, 0.4])
    s = sp.spectrum(np.stack([good, good]), method="gram")
    assert s.numerical_rank(rtol=0.1 + 1e-6).tolist() == [3, 3]
    with pytest.raises(ValueError, match="gram"):
        sp.spectrum(np.stack([good, bad]), method="gram").numerical_rank(rtol=0.1)


# --- partial spectra -----------------------------------------------------------------------------------------


MATRIX = np.random.default_rng(8).standard_normal((30, 20))
TRUTH = np.linalg.svd(MATRIX, compute_uv=False)


@pytest.fixture(scope="module")
def topk():
    return sp.spectrum(MATRIX, method="topk", k=4, rng=0)


@pytest.fixture(scope="module")
def slq():
    return sp.spectrum(MATRIX, method="slq", rng=0)


def test_topk_answers_what_it_can(topk):
    assert topk.method == "topk"
    np.testing.assert_allclose(topk.values, TRUTH[:4], rtol=1e-6)
    assert topk.frobenius == pytest.approx(np.linalg.norm(MATRIX), rel=1e-13)
    assert topk.stable_rank() == pytest.approx(oracle.stable_rank(TRUTH), rel=1e-6)
    assert topk.schatten_norm("fro") == pytest.approx(np.linalg.norm(MATRIX), rel=1e-13)
    assert topk.schatten_norm("spec") == pytest.approx(TRUTH[0], rel=1e-6)
    for rank in range(5):
        assert topk.distance_to_rank(rank) == pytest.approx(float(oracle.tail(TRUTH, rank)), rel=1e-6)
    for rank in range(4):
        cut = float((oracle.tail(TRUTH, rank) + oracle.tail(TRUTH, rank + 1)) / 2 / oracle.tail(TRUTH, 0))
        assert topk.eps_rank(cut) == rank + 1 == oracle.eps_rank(TRUTH, cut)


@pytest.mark.parametrize(
    "reading",
    [
        lambda s: s.effective_rank(),
        lambda s: s.effective_rank(weights="energy"),
        lambda s: s.spectral_entropy(),
        lambda s: s.spectral_entropy(order=2),
        lambda s: s.spectral_entropy(normalize=True),
        lambda s: s.participation_ratio(),
        lambda s: s.nuclear_ratio(),
        lambda s: s.schatten_norm("nuc"),
        lambda s: s.schatten_norm(3),
        lambda s: s.numerical_rank(),
        lambda s: s.numerical_rank(rtol=1e-3),
        lambda s: s.distance_to_rank(5),
        lambda s: s.eps_rank(1e-3),
        lambda s: s.eps_rank(0),
    ],
)
def test_topk_refuses_the_rest_by_name(topk, reading):
    with pytest.raises(ValueError, match="topk"):
        reading(topk)


@pytest.mark.parametrize(
    "reading",
    [
        lambda s: s.effective_rank(weights="energy"),
        lambda s: s.spectral_entropy(order=2),
        lambda s: s.spectral_entropy(normalize=True),
        lambda s: s.participation_ratio(),
        lambda s: s.stable_rank(),
        lambda s: s.nuclear_ratio(),
        lambda s: s.schatten_norm("nuc"),
        lambda s: s.schatten_norm(3),
        lambda s: s.numerical_rank(),
        lambda s: s.distance_to_rank(1),
        lambda s: s.eps_rank(0.5),
        lambda s: s.certified_rank(0.1),
        sp.singular_values,
    ],
)
def test_slq_refuses_the_rest_by_name(slq, reading):
    with pytest.raises(ValueError, match="slq"):
        reading(slq)


def test_slq_has_no_values(slq):
    assert slq.method == "slq"
    assert slq.values.shape == (0,)
    assert slq.shape == (30, 20)
    assert slq.frobenius == pytest.approx(np.linalg.norm(MATRIX), rel=1e-12)


def test_topk_certified_rank_is_still_a_lower_bound(topk):
    found, refusal = oracle.attempt(lambda: topk.certified_rank(float(TRUTH[1])))
    assert "topk" in refusal if refusal else found <= 1


def test_partial_spectra_of_stacks_and_complex_matrices():
    rng = np.random.default_rng(4)
    stack = rng.standard_normal((2, 3, 20, 10))
    top = sp.spectrum(stack, method="topk", k=2, rng=0)
    assert top.values.shape == (2, 3, 2)
    truth = np.linalg.svd(stack, compute_uv=False)
    np.testing.assert_allclose(top.values, truth[..., :2], rtol=1e-6)
    np.testing.assert_allclose(top.stable_rank(), (truth**2).sum(-1) / truth[..., 0] ** 2, rtol=1e-6)
    np.testing.assert_allclose(top.distance_to_rank(1), np.sqrt((truth[..., 1:] ** 2).sum(-1)), rtol=1e-6)
    low, high, stderr = sp.spectrum(stack, method="slq", rng=0).bracket
    exact = np.array([[oracle.effective_rank(truth[i, j]) for j in range(3)] for i in range(2)])
    assert low.shape == high.shape == stderr.shape == (2, 3)
    assert np.all(low - 4 * stderr <= exact)
    assert np.all(exact <= high + 4 * stderr)
    matrix = rng.standard_normal((9, 12)) + 1j * rng.standard_normal((9, 12))
    values = oracle.singular_values(matrix).astype(float)
    np.testing.assert_allclose(sp.spectrum(matrix, method="topk", k=3, rng=0).values, values[:3], rtol=1e-6)
    low, high, stderr = sp.spectrum(matrix, method="slq", rng=0).bracket
    assert low - 4 * stderr <= oracle.effective_rank(values) <= high + 4 * stderr


def test_options_of_other_methods_are_refused():
    for options, word in (
        ({"method": "svd", "k": 3}, "k"),
        ({"k": 3}, "k"),
        ({"method": "gram", "probes": 3}, "probes"),
        ({"method": "topk", "steps": 3}, "steps"),
    ):
        with pytest.raises(ValueError, match=f"`{word}`"):
            sp.spectrum(MATRIX, **options)


def test_topk_of_everything_and_of_one():
    np.testing.assert_allclose(sp.spectrum(MATRIX, method="topk", k=20, rng=0).values, TRUTH, rtol=1e-6)
    np.testing.assert_allclose(sp.spectrum(MATRIX.T, method="topk", k=1, rng=0).values, TRUTH[:1], rtol=1e-6)
    np.testing.assert_allclose(sp.spectrum(MATRIX, method="topk", rng=0).values[0], TRUTH[0], rtol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300, 1e-310])
@pytest.mark.parametrize(
    ("values", "k"),
    [
        ([1.0] * 12, 3),  # the Krylov space of one vector has one dimension
        ([5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 0.5, 0.1], 3),
        ([5.0, 5.0, 5.0, 1.0, 1.0, 1.0, 0.5, 0.1], 5),
        ([3.0, 0, 0, 0, 0, 0], 3),
        ([0.0] * 6, 2),
        ([1.0, 1.0 - 1e-9, 1.0 - 2e-9, 0.5, 0.25], 2),
        ([1.0, 1e-9, 1e-18, 1e-27, 1e-36], 4),
    ],
)
def test_topk_on_spectra_made_to_break_lanczos(values, k, scale):
    matrix = np.diag(values) * scale
    s = sp.spectrum(matrix, method="topk", k=k, rng=0)
    truth = np.sort(np.diag(matrix))[::-1][:k]
    assert s.values.shape == (k,)
    np.testing.assert_allclose(s.values / scale, truth / scale, rtol=0, atol=1e-6)
    assert np.all(np.abs(s.values - truth) <= s.error_bound + 1e-15 * scale + 5e-324)


def test_topk_sees_through_a_flat_spectrum():
    # Twenty steps of a power iteration are off by 3 % on a flat spectrum like this.
    matrix = np.random.default_rng(0).standard_normal((400, 1600))
    truth = np.linalg.svd(matrix, compute_uv=False)
    s = sp.spectrum(matrix, method="topk", k=1, rng=0)
    assert s.values[0] == pytest.approx(truth[0], rel=1e-6)
    assert abs(s.values[0] - truth[0]) <= s.error_bound + 1e-12
    assert sp.stable_rank(matrix) == pytest.approx(oracle.stable_rank(truth), rel=1e-6)


@given(cases(max_side=8, kinds=("gaussian", "integer", "cliff")), st.sampled_from([1 - 1e-15, 1 + 1e-15, 0.999, 1.001]))
def test_topk_never_gives_a_wrong_eps_rank(case, factor):
    # Thresholds at the very edge of a tail: inside rounding the answer must be a refusal.
    truth = oracle.singular_values(case.matrix)
    k = max(truth.size - 2, 1)
    s = sp.spectrum(case.matrix, method="topk", k=k, rng=0)
    whole = oracle.tail(truth, 0)
    for rank in range(k + 1):
        eps = float(oracle.tail(truth, rank) / whole * oracle.LONG(factor)) if whole else 0.0
        found, refusal = oracle.attempt(lambda eps=eps: s.eps_rank(eps))
        assert "topk" in refusal if refusal else found == oracle.eps_rank(truth, eps)


@given(cases(max_side=10), st.integers(0, 2**32 - 1))
def test_topk_values_never_exceed_the_frobenius_norm(case, seed):
    k = min(case.matrix.shape)
    s = sp.spectrum(case.matrix, method="topk", k=k, rng=seed)
    truth = oracle.singular_values(case.matrix).astype(float)
    np.testing.assert_allclose(s.values, truth, rtol=0, atol=1e-6 * truth[0])
    for rank in range(k + 1):
        distance = s.distance_to_rank(rank)
        assert 0 <= distance <= s.frobenius * (1 + 1e-12)
        assert distance == pytest.approx(float(oracle.tail(truth, rank)), abs=1e-6 * s.frobenius)


# --- adversarial spectra, every full method --------------------------------------------------------------------


ADVERSARIAL = {
    "one huge, many tiny": np.r_[1.0, np.full(19, 1e-12)],
    "two clusters": np.r_[np.full(10, 1.0), np.full(10, 1e-4)],
    "geometric": 2.0 ** -np.arange(20),
    "almost equal": 1 + 1e-13 * np.arange(20)[::-1],
    "deficient": np.r_[np.ones(7), np.zeros(13)],
    "power law": 1.0 / np.arange(1, 21),
}


@pytest.mark.parametrize("method", ["svd", "qr_svd", "gram"])
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e300])
@pytest.mark.parametrize("name", list(ADVERSARIAL))
def test_readings_of_adversarial_spectra(name, scale, method):
    values = ADVERSARIAL[name]
    matrix = oracle.with_spectrum(np.random.default_rng(0), 30, 20, values) * scale
    s = sp.spectrum(matrix, method=method)
    coarse = method == "gram"
    assert s.effective_rank() == pytest.approx(oracle.effective_rank(values), rel=1e-4 if coarse else 1e-9)
    assert s.effective_rank(weights="energy") == pytest.approx(oracle.effective_rank(values, "energy"), rel=1e-9)
    assert s.participation_ratio() == pytest.approx(oracle.participation_ratio(values), rel=1e-9)
    assert s.stable_rank() == pytest.approx(oracle.stable_rank(values), rel=1e-9)
    assert s.nuclear_ratio() == pytest.approx(oracle.nuclear_ratio(values), rel=1e-4 if coarse else 1e-9)
    if not coarse:
        assert s.numerical_rank() == oracle.numerical_rank(values, (30, 20))
        assert s.numerical_rank(rtol=0, atol=1e-8 * scale) == int(np.sum(values > 1e-8))
    assert s.numerical_rank(rtol=1e-3) == int(np.sum(values > 1e-3))
    assert s.schatten_norm(2) / scale == pytest.approx(oracle.schatten_norm(values, 2), rel=1e-12)
    assert s.distance_to_rank(5) / scale == pytest.approx(
        float(oracle.tail(values, 5)), rel=1e-6, abs=1e-7 if coarse else 1e-13
    )

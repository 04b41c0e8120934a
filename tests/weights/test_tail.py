"""The power-law tail against the direct loop in extended precision, the package powerlaw, and closed forms."""

from __future__ import annotations

import math
import pickle
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oracles.weights_math import plain_tail_loop, tail_fits
from rankdiag._result import result_from_json
from rankdiag.testing import fuzz
from rankdiag.weights import _tail
from rankdiag.weights._tail import TailFit, power_law_tail

EQUAL = 1e-12  # distances that count as equal


def check_against_loop(values):
    fit = power_law_tail(values)
    fits = tail_fits(values)
    lowest = min(distance for _, _, distance, _ in fits)
    x_min, alpha, distance, n_tail = next(f for f in fits if f[2] <= lowest + EQUAL)
    assert fit.x_min == x_min
    assert fit.n_tail == n_tail
    assert fit.alpha - 1 == pytest.approx(alpha - 1, rel=1e-12)
    assert pytest.approx(distance, abs=1e-13) == fit.D
    assert fit.sigma == pytest.approx((alpha - 1) / math.sqrt(n_tail), rel=1e-12)
    return fit


def spread(low, high, **size):
    return st.lists(st.floats(low, high).map(math.exp), **size).filter(lambda v: len(set(v)) > 1)


@given(spread(-5.0, 5.0, min_size=10, max_size=80))
def test_equals_the_direct_loop(values):
    check_against_loop(values)


@given(spread(-690.0, 690.0, min_size=10, max_size=40))
def test_equals_the_direct_loop_from_1e_minus_300_to_1e300(values):
    check_against_loop(values)


@given(st.lists(st.integers(0, 6), min_size=10, max_size=40).filter(lambda v: len(set(v)) > 1))
def test_equals_the_direct_loop_where_values_and_distances_repeat(exponents):
    check_against_loop([2.0**e for e in exponents])


@given(
    st.lists(
        st.tuples(st.sampled_from([1e-200, 1.0, 1.5, 1e200]), st.integers(-20, 20)), min_size=10, max_size=40
    ).filter(lambda v: len(set(v)) > 1)
)
def test_equals_the_direct_loop_on_clusters_a_few_units_in_the_last_place_wide(parts):
    check_against_loop([centre * (1 + step * 2.0**-52) for centre, step in parts])


@given(st.lists(st.floats(-1, 1), min_size=10, max_size=40))
def test_equals_the_direct_loop_around_a_power_of_two(places):
    values = [4.0 * (1 + place * 1e-9) for place in places]
    assume(len(set(values)) > 1)
    check_against_loop(values)


def test_subnormal_values_are_values():
    check_against_loop(np.arange(1, 30) * 5e-324)
    check_against_loop([5e-324 * k for k in range(1, 12)] + [1e-300, 1.0, 1.7e308])


@pytest.mark.parametrize(
    ("exponents", "cuts"),
    [
        ([0, 3, 3, 3, 4, 8, 8, 8, 9, 10, 10, 11, 12], (5, 9)),
        ([0, 3, 4, 5, 6, 6, 7, 7, 8, 8], (1, 4)),
        ([0, 3, 4, 9, 10, 10, 10, 11, 11, 12], (4, 7)),
        ([0, 0, 0, 1, 5, 6, 7, 7, 7, 8, 9, 10], (0, 9)),
    ],
)
def test_of_two_cut_offs_with_one_distance_the_smaller_is_taken(exponents, cuts):
    values = [2.0**e for e in exponents]
    fits = {x_min: distance for x_min, _, distance, _ in tail_fits(values)}
    first, second = (fits[values[cut]] for cut in cuts)
    assert first == pytest.approx(second, abs=1e-15)  # the case is what it claims to be
    assert min(fits.values()) >= first - EQUAL
    fit = power_law_tail(values)
    assert fit.x_min == values[cuts[0]]
    assert fit.n_tail == len(values) - cuts[0]


@pytest.mark.parametrize(
    ("base", "exponents", "cuts"),
    [
        (5.0, [0, 0, 3, 4, 4, 7, 9, 9, 10, 11, 12, 12], (0, 6)),
        (3.0, [0, 0, 1, 3, 4, 4, 6, 6, 7, 10, 11, 12], (0, 3)),
        (1.01, [1, 2, 4, 4, 9, 10, 10, 11, 11, 12], (0, 5)),
        (1.01, [0, 2, 3, 4, 5, 6, 6, 8, 9, 10, 12], (3, 7)),
    ],
)
def test_rounding_does_not_decide_between_equal_distances(base, exponents, cuts):
    # In exact arithmetic the two distances are equal; in float64 the larger cut-off comes out ahead by one rounding.
    values = [base**e for e in exponents]
    fits = {x_min: distance for x_min, _, distance, _ in tail_fits(values)}
    first, second = (fits[values[cut]] for cut in cuts)
    assert first == pytest.approx(second, abs=1e-13)
    assert power_law_tail(values).x_min == values[cuts[0]]


# What powerlaw 1.5 and 2.0.0 (alpha unbounded) both give: alpha, x_min, D, standard error, values in the tail.
U = (np.arange(1, 301) * 0.6180339887498949) % 1.0
POWERLAW = {
    "pareto": (U ** (-1 / 1.5), 2.5179615800747066, 1.0020757864416827, 0.005764782058820028, 0.08763955268756414, 300),
    "exponential": (-np.log(U), 4.057388822898759, 2.150025574887797, 0.07483942664732324, 0.5167930344064595, 35),
    "mixture": (
        np.where(np.arange(1, 301) % 3 == 0, U**-0.8, U + 0.2),
        2.3588088234362,
        1.1887637612290802,
        0.02037624357479073,
        0.15097875815957776,
        81,
    ),
    "ten values": (1.0 / np.arange(1, 11), 2.262396997804536, 0.1, 0.08548473574710069, 0.3992049824420915, 10),
}


@pytest.mark.parametrize("name", POWERLAW)
def test_equals_the_package_powerlaw(name):
    values, alpha, x_min, distance, sigma, n_tail = POWERLAW[name]
    fit = power_law_tail(values)
    assert fit.alpha == pytest.approx(alpha, rel=1e-12)
    assert fit.x_min == x_min
    assert pytest.approx(distance, rel=1e-12) == fit.D
    assert fit.sigma == pytest.approx(sigma, rel=1e-12)
    assert fit.n_tail == n_tail


def test_equal_values_all_count_in_the_distance():
    # 2^0 (three times) and 2^1, 2^2, ...: at the second copy of x_min the fit says 0, the data 1/n.
    values = [1.0, 1.0, 1.0, *2.0 ** np.arange(1, 9)]
    check_against_loop(values)
    whole = next(f for f in tail_fits(values) if f[0] == 1.0)
    assert whole[3] == 11
    assert whole[2] >= 2 / 11


@given(spread(-5.0, 5.0, min_size=10, max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert power_law_tail(shuffled) == power_law_tail(values)


@given(spread(-5.0, 5.0, min_size=10, max_size=60), st.integers(-900, 900))
def test_a_power_of_two_changes_x_min_only(values, exponent):
    fit, scaled = power_law_tail(values), power_law_tail(np.ldexp(values, exponent))
    assert (scaled.alpha, scaled.D, scaled.n_tail, scaled.sigma) == (fit.alpha, fit.D, fit.n_tail, fit.sigma)
    assert scaled.x_min == math.ldexp(fit.x_min, exponent)


def well_apart(values):
    """Values far enough apart that one rounding of each moves no distance by 1e-9."""
    logs = np.unique(np.log(values))
    return logs.size > 1 and np.diff(logs).min() > 1e-5


@given(spread(-5.0, 5.0, min_size=10, max_size=60), st.floats(-600, 600).map(math.exp))
def test_any_factor_keeps_exponent_and_distance(values, factor):
    assume(well_apart(values))
    lowest = sorted(f[2] for f in tail_fits(values))
    fit, scaled = power_law_tail(values), power_law_tail(np.array(values) * factor)
    assert pytest.approx(fit.D, abs=1e-9) == scaled.D
    if len(lowest) == 1 or lowest[1] - lowest[0] > 1e-8:  # one cut-off is the best by more than rounding
        assert scaled.alpha == pytest.approx(fit.alpha, rel=1e-9)
        assert scaled.n_tail == fit.n_tail


@given(spread(-5.0, 5.0, min_size=10, max_size=60), st.floats(0.3, 3.0))
def test_a_power_of_all_values_divides_the_exponent(values, power):
    # x -> x^power keeps the order and multiplies every logarithm: alpha - 1 is divided by it, D stays.
    assume(well_apart(values))
    lowest = sorted(f[2] for f in tail_fits(values))
    fit, other = power_law_tail(values), power_law_tail(np.exp(power * np.log(values)))
    assert pytest.approx(fit.D, abs=1e-9) == other.D
    if len(lowest) == 1 or lowest[1] - lowest[0] > 1e-8:
        assert other.alpha - 1 == pytest.approx((fit.alpha - 1) / power, rel=1e-9)


def test_exact_pareto_quantiles_give_their_exponent():
    shares = (np.arange(4000) + 0.5) / 4000
    for alpha in (1.5, 2.5, 4.0, 8.0):
        fit = power_law_tail((1 - shares) ** (-1 / (alpha - 1)))
        assert fit.alpha == pytest.approx(alpha, rel=5e-3)
        assert fit.D < 2e-3
        assert fit.n_tail > 3000


def test_the_standard_error_covers_sampled_exponents():
    inside = 0
    for seed in range(60):
        values = (1 - np.random.default_rng(seed).random(1000)) ** (-1 / 1.5)
        fit = power_law_tail(values)
        inside += abs(fit.alpha - 2.5) <= 2 * fit.sigma
    # 95 % if the cut-off were known; choosing it costs some of that, as the docstring says.
    assert 45 <= inside <= 60


def test_a_tail_below_a_body_of_noise_is_found():
    rng = np.random.default_rng(7)
    body = rng.uniform(0.0, 1.0, 3000)
    tail = (1 - rng.random(800)) ** (-1 / 1.2)
    fit = power_law_tail(np.concatenate([body, tail]))
    assert 0.8 <= fit.x_min <= 2.5
    assert abs(fit.alpha - 2.2) < 4 * fit.sigma
    assert fit.D < 0.03


def test_zeros_are_dropped_and_counted():
    values = np.linspace(1, 3, 20)
    fit = power_law_tail(np.concatenate([np.zeros(7), values, [-0.0]]))
    plain = power_law_tail(values)
    assert (fit.alpha, fit.x_min, fit.D, fit.n_tail) == (plain.alpha, plain.x_min, plain.D, plain.n_tail)
    assert fit.meta.details["zeros"] == 8
    assert fit.meta.n == 20
    assert plain.meta.details == {"zeros": 0, "x_max": 3.0}


def test_equal_values_at_the_top_are_in_every_tail_but_no_cut_off():
    fit = check_against_loop([1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 9.0, 9.0])
    assert fit.x_min < 9.0


def test_two_different_values_have_one_cut_off():
    fit = power_law_tail([1.0] * 5 + [4.0] * 5)
    assert fit.x_min == 1.0
    assert fit.n_tail == 10
    assert fit.alpha == pytest.approx(1 + 10 / (5 * math.log(4)))
    assert pytest.approx(max(0.4, abs(1 - 4 ** (1 - fit.alpha) - 0.5), abs(1 - 4 ** (1 - fit.alpha) - 0.9))) == fit.D


@pytest.mark.parametrize("kind", ["float32", "float16", "int64"])
def test_numpy_kinds_are_read_as_they_are(kind):
    values = np.round(np.exp(np.linspace(0, 6, 40))).astype(kind)
    fit = power_law_tail(values)
    wide = power_law_tail(values.astype(np.float64))
    assert (fit.alpha, fit.x_min, fit.D) == (wide.alpha, wide.x_min, wide.D)
    assert fit.meta.dtype == kind


@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16"])
def test_torch_kinds_are_read_as_they_are(kind):
    torch = pytest.importorskip("torch")
    values = torch.linspace(0, 6, 40).exp().to(getattr(torch, kind)).requires_grad_()
    fit = power_law_tail(values)
    wide = power_law_tail(values.detach().double().numpy())
    assert (fit.alpha, fit.x_min, fit.D) == (wide.alpha, wide.x_min, wide.D)
    assert fit.meta.dtype == kind


def test_input_is_left_alone():
    values = np.exp(np.linspace(3, 0, 50))[::-1][::-1]
    before = values.copy()
    values.flags.writeable = False
    power_law_tail(values)
    power_law_tail(values[::2])
    power_law_tail(values[::-1])
    assert (values == before).all()


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([], ValueError, "must not be empty"),
        (np.ones((5, 5)), ValueError, "1 axes"),
        (3.0, ValueError, "1 axes"),
        (np.arange(1.0, 10.0), ValueError, "at least 10 positive values; got 9 of 9"),
        ([*range(1, 10), 0, 0], ValueError, "got 9 of 11"),
        (np.zeros(20), ValueError, "got 0 of 20"),
        ([*range(1, 20), -1e-9], ValueError, "got 1 negative value"),
        ([*range(20), -1.0, -3.0], ValueError, "got 2 negative values, the smallest -3"),
        ([*range(1, 20), np.nan], ValueError, "non-finite"),
        ([*range(1, 20), np.inf], ValueError, "non-finite"),
        ([2.5] * 12, ValueError, "12 times 2.5"),
        ([2.5] * 12 + [0.0], ValueError, "two different positive values"),
        (np.ones(12, dtype=complex), TypeError, "real"),
        (["a"] * 12, TypeError, "numbers"),
        (None, TypeError, "None"),
        ([[1.0, 2.0], [1.0]], ValueError, "different lengths"),
    ],
)
def test_what_is_refused_is_named(values, error, words):
    with pytest.raises(error, match="`evals`") as caught:
        power_law_tail(values)
    assert words in str(caught.value)


def test_bad_and_extreme_values_are_read_or_refused_by_name():
    ramp = np.arange(1.0, 25.0)
    extra = [ramp * x for x in (5e-324, 1e-310, 1e-300, 1e300, 7e306)] + [np.append(ramp, [5e-324, 1.7e308])]
    fuzz(power_law_tail, arguments={"evals": ramp}, extra={"evals": extra}).raise_for_violations()


def test_the_result_says_how_to_read_it():
    values = np.exp(np.linspace(0, 2, 400))
    fit = power_law_tail(values)
    assert fit.verdict == "unknown"
    assert fit.thresholds == ()
    assert float(fit) == fit.alpha
    assert "alpha alone does not tell" in fit.explanation
    assert f"{fit.D:.3g}" in fit.explanation
    text = fit.summary()
    for label in ("alpha", "sigma", "x_min", "D", "n_tail"):
        assert f"\n  {label} " in text
    assert result_from_json(fit.to_json()) == fit
    assert pickle.loads(pickle.dumps(fit)) == fit
    assert isinstance(result_from_json(fit.to_json()), TailFit)


def test_short_tails_are_said_to_be_short():
    for count in (49, 50):
        shares = (np.arange(count) + 0.5) / count
        fit = power_law_tail((1 - shares) ** -1.0)
        assert fit.n_tail == count
        assert ("Clauset" in fit.explanation) == (count < 50)


def test_blocks_of_the_first_look_do_not_show(monkeypatch):
    values = np.random.default_rng(3).pareto(1.5, 700) + 1
    whole = power_law_tail(values)
    monkeypatch.setattr(_tail, "_CELLS", 100)
    assert power_law_tail(values) == whole


def test_long_lists_are_quick_and_exact_where_the_answer_is_known():
    shares = (np.arange(200_000) + 0.5) / 200_000
    fit = power_law_tail((1 - shares) ** (-1 / 2.0))
    assert fit.alpha == pytest.approx(3.0, rel=1e-3)
    assert fit.n_tail > 150_000


def test_ten_times_faster_than_the_direct_loop():
    values = np.random.default_rng(0).pareto(1.5, 4096) + 1
    start = time.perf_counter()
    alpha, x_min, distance, n_tail = plain_tail_loop(values)
    loop = time.perf_counter() - start
    best = math.inf
    for _ in range(7):
        start = time.perf_counter()
        fit = power_law_tail(values)
        best = min(best, time.perf_counter() - start)
    assert fit.alpha == pytest.approx(alpha, rel=1e-10)
    assert (fit.x_min, fit.n_tail) == (x_min, n_tail)
    assert pytest.approx(distance, abs=1e-10) == fit.D
    assert loop > 10 * best

"""Bounds of a spread against exact binomial sums, the inequalities they come from, and seeded streams."""

from __future__ import annotations

import importlib.util
import math
import pickle
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from oracles.rewards_intervals import binomial, folded, miss
from rankdiag import result_from_json
from rankdiag.rewards import SequentialStd, std_interval

CERTIFIED = ("maurer_pontil", "self_bounding", "binary_exact")
UNIT = st.floats(0.0, 1.0, width=32)


def ends_of(n, method, delta, sides="one"):
    """Bounds after 0, 1, ..., n successes."""
    rows = [[1.0] * s + [0.0] * (n - s) for s in range(n + 1)]
    found = [std_interval(row, method=method, reward_range=(0, 1), delta=delta, sides=sides) for row in rows]
    return [(x.lower, x.upper) for x in found]


def rates(bounds):
    """A grid of success rates, and those at which a bound is about to fail."""
    grid = {Fraction(i, 24) for i in range(1, 13)}
    for lower, upper in bounds:
        for sigma in (lower * (1 - 1e-6), upper * (1 + 1e-6)):
            if 0 < sigma < 0.5:
                grid.add(Fraction((1 - math.sqrt(1 - 4 * sigma**2)) / 2))
    return sorted(grid)


@pytest.mark.parametrize("method", CERTIFIED)
@pytest.mark.parametrize(("n", "delta"), [(2, 0.05), (3, 0.4), (5, 0.05), (8, 0.2), (13, 0.05)])
def test_error_of_certified_bounds_by_exact_enumeration(method, n, delta):
    one, two = ends_of(n, method, delta), ends_of(n, method, delta, "two")
    for p in rates(one + two):
        low, high, _ = miss(n, p, one)
        assert max(low, high) <= delta + 1e-9
        assert miss(n, p, two)[2] <= delta + 1e-9


@pytest.mark.parametrize(("n", "delta"), [(5, 0.05), (12, 0.1), (30, 0.01)])
def test_binary_bounds_are_as_narrow_as_their_error_allows(n, delta):
    for s, (lower, upper) in enumerate(ends_of(n, "binary_exact", delta)):
        m = min(s, n - s)
        if upper < 0.5:
            q = Fraction((1 - math.sqrt(1 - 4 * upper**2)) / 2)
            assert float(folded(n, m, q)) == pytest.approx(delta, rel=1e-6)
        else:
            assert folded(n, m, Fraction(1, 2)) >= delta
        if m:
            q = Fraction((1 - math.sqrt(1 - 4 * lower**2)) / 2)
            assert float(sum(binomial(n, q)[m:])) == pytest.approx(delta, rel=1e-6)
        else:
            assert lower == 0.0


def test_why_two_one_sided_ends_of_the_success_rate_are_not_enough():
    high = 1 - 0.05 ** (1 / 5)  # one-sided Clopper-Pearson end after 0 of 5, and 1 - high the other after 5 of 5
    mapped = math.sqrt(high * (1 - high))
    assert mapped == pytest.approx(0.4976, abs=1e-4)
    bounds = [(0.0, mapped if s in (0, 5) else 0.5) for s in range(6)]
    assert miss(5, Fraction(1, 2), bounds)[1] == Fraction(2, 32) > 0.05
    assert std_interval([0.0] * 5, method="binary_exact", reward_range=(0, 1)).upper == 0.5


def test_two_sided_binary_bounds_are_the_image_of_clopper_pearson():
    for n, delta in ((7, 0.1), (20, 0.05)):
        for s, (lower, upper) in enumerate(ends_of(n, "binary_exact", delta, "two")):
            a, b = stats.binomtest(s, n).proportion_ci(1 - delta, "exact")
            ends = [math.sqrt(max(0.0, p * (1 - p))) for p in (a, b)]
            assert lower == pytest.approx(min(ends), abs=1e-12)
            assert upper == pytest.approx(0.5 if a <= 0.5 <= b else max(ends), abs=1e-12)


def test_stated_figures():
    radii = {n: std_interval([0.0, 1.0] * (n // 2), reward_range=(0, 1)).radius for n in (10, 64, 256, 1024)}
    np.testing.assert_allclose(list(radii.values()), [0.816, 0.308, 0.153, 0.0765], atol=5e-4)
    uppers = [std_interval([1.0] * n, method="binary_exact", reward_range=(0, 1)).upper for n in (10, 1000)]
    np.testing.assert_allclose(uppers, [0.438, 0.0546], atol=5e-4)
    assert "certify nothing" in std_interval([0.0] * 10, reward_range=(0, 1)).explanation


@settings(max_examples=30)
@given(st.lists(UNIT, min_size=2, max_size=40), st.floats(1e-6, 0.9), st.sampled_from(["one", "two"]))
def test_tail_bounds_solve_their_inequalities(row, delta, sides):
    s = float(np.std(row, ddof=1))
    r = math.sqrt(2 * math.log(1 / (delta if sides == "one" else delta / 2)) / (len(row) - 1))
    wide, narrow = (
        std_interval(row, method=method, reward_range=(0, 1), delta=delta, sides=sides)
        for method in ("maurer_pontil", "self_bounding")
    )
    assert wide.std == narrow.std == pytest.approx(s, abs=1e-9)
    assert wide.radius == pytest.approx(r)
    assert (wide.lower, wide.upper) == pytest.approx((max(0, s - r), min(0.5, s + r)), abs=1e-9)
    assert wide.lower - 1e-12 <= narrow.lower <= narrow.upper <= wide.upper + 1e-12
    if narrow.upper < 0.5:
        assert narrow.upper**2 - s**2 == pytest.approx(r * narrow.upper, abs=1e-9)
    if narrow.lower > 0:
        sigma = narrow.lower
        assert s**2 - sigma**2 == pytest.approx(r**2 / 4 + r * math.sqrt(sigma**2 + r**2 / 16), abs=1e-9)
    else:
        assert s**2 <= r**2 / 2 + 1e-12


@settings(max_examples=30)
@given(st.lists(UNIT, min_size=2, max_size=12))
def test_sample_variance_bounds_itself_as_the_derivation_needs(row):
    n, grid = len(row), np.linspace(0, 1, 101)
    z = n * np.var(row, ddof=1)
    drops = []
    for k in range(n):
        rest = row[:k] + row[k + 1 :]
        lowest = min(n * np.var([*rest, y], ddof=1) for y in (*grid, np.mean(rest)))
        drops.append(z - lowest)
        assert drops[-1] == pytest.approx((row[k] - np.mean(rest)) ** 2, abs=1e-9)
    assert max(drops) <= 1 + 1e-9
    assert sum(d**2 for d in drops) <= n / (n - 1) * z + 1e-9


def test_half_the_radius_where_the_spread_is_large():
    row = np.tile([0.25, 0.75], 50_000)
    found = std_interval(row, method="self_bounding", reward_range=(0, 1))
    radius = std_interval(row, reward_range=(0, 1)).radius
    assert (found.upper - found.std) / radius == pytest.approx(0.5, abs=0.01)
    assert (found.std - found.lower) / radius == pytest.approx(0.5, abs=0.01)


def test_chi2_ends_are_those_of_normal_theory():
    row = np.random.default_rng(0).normal(3.0, 2.0, 9)
    for sides, each in (("one", 0.1), ("two", 0.05)):
        found = std_interval(row, method="chi2", delta=0.1, sides=sides)
        q = stats.chi2.ppf([1 - each, each], 8)
        np.testing.assert_allclose([found.lower, found.upper], row.std(ddof=1) * np.sqrt(8 / q))
    equal = std_interval([2.0] * 3, method="chi2")
    assert (equal.std, equal.lower, equal.upper) == (0.0, 0.0, 0.0)


def test_bootstrap_is_that_of_scipy_and_says_why_it_has_none():
    row = np.random.default_rng(1).exponential(size=25)
    found = std_interval(row, method="bootstrap", delta=0.1, rng=5)
    seeded = np.random.default_rng(5)
    plain = stats.bootstrap(
        (row,), lambda x, axis: x.std(axis=axis, ddof=1), n_resamples=2000, confidence_level=0.8, rng=seeded
    ).confidence_interval
    np.testing.assert_allclose([found.lower, found.upper], plain, rtol=1e-9)
    assert found == std_interval(row, method="bootstrap", delta=0.1, rng=5)
    assert found.meta.seed == 5
    for flat in ([1.0] * 8, [0.0, 1.0], [0.0, 1.0, 0.0, 1.0]):
        none = std_interval(flat, method="bootstrap", rng=0)
        assert math.isnan(none.lower)
        assert math.isnan(none.upper)
        assert none.reason in none.explanation


@pytest.mark.parametrize("method", [*CERTIFIED, "chi2", "bootstrap"])
def test_units_order_and_unscorable_rollouts(method):
    row = np.random.default_rng(2).integers(0, 2, 30).astype(float)
    span = None if method in ("chi2", "bootstrap") else (0, 1)
    plain = std_interval(row, method=method, reward_range=span, delta=0.2, rng=0)
    moved = np.append(4.0 * row - 3.0, np.nan)
    moved = std_interval(moved, method=method, reward_range=span and (-3, 1), delta=0.2, rng=0)
    np.testing.assert_allclose(
        [moved.std, moved.lower, moved.upper, moved.radius],
        4 * np.array([plain.std, plain.lower, plain.upper, plain.radius]),
        rtol=1e-9,
    )
    assert moved.meta.n == 30
    if method != "bootstrap":
        assert std_interval(np.sort(row), method=method, reward_range=span, delta=0.2).upper == pytest.approx(
            plain.upper
        )


def test_torch_rewards_and_results_survive_every_trip():
    torch = pytest.importorskip("torch")
    found = std_interval(torch.tensor([0.0, 1.0, 0.5], dtype=torch.bfloat16), reward_range=(0, 1))
    assert found.std == 0.5
    for other in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found))):
        assert other == found
        assert math.isnan(other.lower) is math.isnan(found.lower)
    labels = [number.label for number in found.document().key_numbers]
    assert labels == ["std", "lower bound", "upper bound", "radius"]
    assert "radius" not in std_interval([0.0, 1.0], method="chi2").summary()


def test_extremes_have_bounds_or_a_named_error():
    small = std_interval([0.0, 5e-324], reward_range=(0.0, 5e-324))
    assert (small.lower, small.upper) == (0.0, 0.0) or small.upper <= 5e-324
    tiny = std_interval([0.0] * 50, method="binary_exact", reward_range=(0, 1), delta=1e-300, sides="two")
    assert (tiny.lower, tiny.upper) == (0.0, 0.5)
    sure = std_interval([0.0] * 500, method="binary_exact", reward_range=(0, 1), delta=1e-20, sides="two")
    p = -math.expm1(math.log(0.5e-20) / 500)
    assert sure.upper == pytest.approx(math.sqrt(p * (1 - p)))
    for method in CERTIFIED:
        lax = std_interval([0.0, 1.0, 1.0, 0.0], method=method, reward_range=(0, 1), delta=0.999)
        assert 0 <= lax.lower <= lax.upper <= 0.5
    with pytest.raises(ValueError, match="float64 can hold"):
        std_interval([-1e200, 1e200], method="chi2")
    with pytest.raises(ValueError, match="finite difference"):
        std_interval([0.0, 1.0], reward_range=(-1e308, 1e308))


@pytest.mark.parametrize(
    ("values", "options", "error", "match"),
    [
        ([1.0], {"reward_range": (0, 1)}, ValueError, "at least 2 valid"),
        ([1.0, None], {"reward_range": (0, 1)}, ValueError, "at least 2 valid"),
        ([0.0, np.inf], {"reward_range": (0, 1)}, ValueError, "inf"),
        ([[0.0, 1.0]], {"reward_range": (0, 1)}, ValueError, "one prompt"),
        (np.zeros((1, 1, 2)), {"reward_range": (0, 1)}, ValueError, "shape"),
        ([], {"reward_range": (0, 1)}, ValueError, "values"),
        ("ab", {}, TypeError, "values"),
        ([0.0, 1.0], {}, ValueError, "`reward_range` is required"),
        ([0.0, 2.0], {"reward_range": (0, 1)}, ValueError, "must contain all rewards"),
        ([0.0, 0.5], {"reward_range": (0, 1), "method": "binary_exact"}, ValueError, "0.5. Use 'maurer_pontil'"),
        ([0.0, 1.0], {"reward_range": (1, 0)}, ValueError, "lo < hi"),
        ([0.0, 1.0], {"reward_range": 1.0}, TypeError, "pair"),
        ([0.0, 1.0], {"reward_range": (0, 1), "delta": 1.0}, ValueError, "delta"),
        ([0.0, 1.0], {"reward_range": (0, 1), "sides": "both"}, ValueError, "sides"),
        ([0.0, 1.0], {"reward_range": (0, 1), "method": "wald"}, ValueError, "method"),
        ([0.0, 1.0, 0.3], {"method": "bootstrap", "delta": 0.5}, ValueError, "bootstrap"),
    ],
)
def test_interval_refusals(values, options, error, match):
    with pytest.raises(error, match=match):
        std_interval(values, **options)


# --- one rule, many looks ---------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.data(), st.sampled_from(CERTIFIED), st.sampled_from([0.05, 0.3, 0.45]))
def test_batches_do_not_matter(data, method, tau):
    stream = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 2, 100).astype(float)
    rules = [SequentialStd(tau, reward_range=(0, 1), max_rollouts=90, method=method, delta=0.3) for _ in range(2)]
    rules[0].update(stream)
    cut = 0
    while cut < len(stream):
        step = data.draw(st.integers(1, 40))
        part = stream[cut : cut + step]
        rules[1].update(np.append(part, np.nan))
        cut += step
    assert rules[0].state == rules[1].state != "continue"
    assert rules[0].interval == rules[1].interval
    assert (rules[0].count, rules[0].looks) == (rules[1].count, rules[1].looks)


def test_looks_and_what_they_spend():
    rule = SequentialStd(0.25, reward_range=(0, 1), max_rollouts=100, method="binary_exact")
    assert rule.state == "continue"
    assert rule.interval.reason
    assert rule.interval.upper == 0.5
    stream = np.array([1.0, *[0.0] * 14] * 7)  # sigma about .25: never sure
    seen, spent = [], []
    for reward in stream:
        rule.update([reward])
        if rule.looks > len(seen):
            seen.append(rule.count)
            spent.append(rule.interval.delta)
            plain = std_interval(
                stream[: rule.count], method="binary_exact", reward_range=(0, 1), delta=spent[-1], sides="two"
            )
            assert rule.interval == plain
    assert seen == [8, 16, 32, 64, 100]
    assert rule.state == "exhausted"
    assert repr(rule) == "SequentialStd(tau=0.25, 'exhausted' after 100 rollouts)"
    np.testing.assert_allclose(spent, [6 * 0.05 / (math.pi * j) ** 2 for j in range(1, 6)])
    assert sum(spent) < 0.05 < sum(6 * 0.05 / (math.pi * j) ** 2 for j in range(1, 10_000)) + 1e-4
    before = rule.interval
    assert rule.update([1.0, 0.0]) == "exhausted"
    assert rule.interval == before


def test_decisions_and_their_price():
    low = SequentialStd(0.3, reward_range=(0, 1), max_rollouts=4096)
    high = SequentialStd(0.1, reward_range=(0, 1), max_rollouts=4096)
    assert low.update([0.0] * 4096) == "low"
    assert high.update([0.0, 1.0] * 2048) == "high"
    # needed: n - 1 >= 2 ln(2 / delta_j) / gap^2; looks are at powers of two
    for rule, gap in ((low, 0.3), (high, 0.4)):
        need = 2 * math.log(2 / rule.interval.delta) / gap**2
        assert need <= rule.count < 2.2 * need
    assert SequentialStd(0.0, reward_range=(0, 1), max_rollouts=2).update([0.5, 0.5]) == "exhausted"


@pytest.mark.parametrize("method", CERTIFIED)
def test_wrong_decisions_are_rare(method):
    wrong = 0
    for seed in range(60):
        p = (0.02, 0.1, 0.5)[seed % 3]
        sigma = math.sqrt(p * (1 - p))
        tau = sigma * (0.9, 1.1)[seed % 2]
        rule = SequentialStd(tau, reward_range=(0, 1), delta=0.2, max_rollouts=512, method=method)
        state = rule.update((np.random.default_rng(seed).random(512) < p) * 1.0)
        wrong += state == ("low" if tau < sigma else "high")
    assert wrong <= 12


@pytest.mark.slow
def test_coverage_and_stopping_over_streams(monkeypatch):
    path = Path(__file__).parents[2] / "reproductions" / "rewards_certified.py"
    spec = importlib.util.spec_from_file_location("rewards_certified", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rewards_certified", module)
    spec.loader.exec_module(module)
    streams, delta = 400, 0.1
    limit = delta + 3 * math.sqrt(delta * (1 - delta) / streams)
    for row in module.coverage(streams, delta):
        assert max(row.too_high, row.too_low, row.outside) <= limit, row
        assert math.isnan(row.exact) or row.exact <= delta + 1e-12, row
        if row.n == 256:
            assert row.width == pytest.approx(row.theory, rel=0.1, abs=0.005), row
    widths = {(row.law, row.n, row.method): row.width for row in module.coverage(50, delta)}
    for (law, n, method), width in widths.items():
        if method == "self_bounding":
            assert width <= widths[law, n, "maurer_pontil"]
            assert widths.get((law, n, "binary_exact"), 0.0) <= width
    for row in module.uncertified(300, delta):
        if row.method == "chi2":  # exact on normal rewards: neither more misses nor fewer
            noise = 4 * math.sqrt(delta * (1 - delta) / 300)
            assert all(abs(share - delta) <= noise for share in (row.too_high, row.too_low, row.outside)), row
            assert row.width == pytest.approx(row.theory, rel=0.1), row
    for row in module.stopping(100, delta):
        assert row.wrong <= limit, row
        assert row.median in (min(row.theory, 2048), 2 * row.theory), row


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tau": -1.0}, ValueError),
        ({"max_rollouts": 1}, ValueError),
        ({"method": "chi2"}, ValueError),
        ({"delta": 0.0}, ValueError),
        ({"reward_range": None}, TypeError),
    ],
)
def test_rule_refusals(options, error):
    with pytest.raises(error):
        SequentialStd(**{"tau": 0.1, "reward_range": (0, 1), "max_rollouts": 10, **options})


def test_stream_refusals():
    rule = SequentialStd(0.1, reward_range=(0, 1), max_rollouts=10, method="binary_exact")
    for bad, match in (([2.0], "contain"), ([0.5], "binary_exact"), ([[0.0]], "one prompt"), ([np.inf], "inf")):
        with pytest.raises(ValueError, match=match):
            rule.update(bad)
    assert rule.count == 0

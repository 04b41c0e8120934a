"""What the definition of CHES implies: bounds, symmetries, sums of blocks, shared prefixes, scales, edges, refusals.

States are eighths of small whole numbers, so that sums and products are exact and most checks need no tolerance.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.ches_definition import dot, exact, family, total
from rankdiag.preference import ches_from_padded, ches_from_states, ches_from_sums

COLUMNS = ("ches", "ln_ches", "relative", "cross", "chosen_sq", "rejected_sq", "swapped", "cond")
SQUARES = ("ches", "ln_ches", "cross", "chosen_sq", "rejected_sq", "swapped")  # these grow with the square of a scale
RATIOS = ("relative", "cond")
NUMBERS = st.integers(-64, 64).map(lambda n: n / 8)
SEEDS = st.integers(0, 10_000)
ONE = [[[1.0]]]


def states_of(width, most=5):
    row = st.lists(NUMBERS, min_size=width, max_size=width)
    return st.lists(row, min_size=1, max_size=most).map(np.array)


@st.composite
def pairs(draw, most=5):
    width = draw(st.integers(1, 3))
    return draw(states_of(width, most)), draw(states_of(width, most))


@st.composite
def three(draw, most=4):
    width = draw(st.integers(1, 3))
    return tuple(draw(states_of(width, most)) for _ in range(3))


def apart(a, b):
    """Score one pair with no state taken as shared."""
    return ches_from_states([a], [b], n_shared=[0])


def values(result, names=COLUMNS):
    return {name: getattr(result, name).tolist() for name in names}


def same(found, expected, names=COLUMNS):
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# --- bounds ------------------------------------------------------------------------------------------------------


@given(pairs())
def test_the_score_falls_short_of_a_quarter_of_the_rejected_square_by_a_square(pair):
    """||S-||^2/4 - CHES = ||S+ - S-/2||^2: the bound, and equality at S+ = S-/2 only."""
    a, b = pair
    found, plus, minus = apart(a, b), a.sum(0), b.sum(0)
    assert found.rejected_sq[0] / 4 - found.ches[0] == np.sum((plus - minus / 2) ** 2)
    mean_a, mean_b = plus / len(a), minus / len(b)
    short = np.sum((mean_a - mean_b / 2) ** 2)
    quarter = found.rejected_sq[0] / len(b) ** 2 / 4
    assert quarter - found.ln_ches[0] == pytest.approx(short, abs=1e-12 * (1 + short + quarter))
    half = ches_from_sums([minus / 2], [minus], [1], [1])
    assert half.ches[0] == half.rejected_sq[0] / 4


@given(pairs())
def test_a_positive_score_needs_a_longer_rejected_sum(pair):
    found = apart(*pair)
    long, short = np.sqrt(found.rejected_sq[0]), np.sqrt(found.chosen_sq[0])
    assert found.ches[0] <= short * (long - short) + 1e-12 * (1 + found.rejected_sq[0] + found.chosen_sq[0])
    if found.ches[0] > 0:
        assert found.rejected_sq[0] > found.chosen_sq[0]
    if found.swapped[0] > 0:
        assert found.chosen_sq[0] > found.rejected_sq[0]


@given(states_of(2), st.integers(0, 24).map(lambda n: n / 8))
def test_parallel_sums_reach_the_bound_of_their_lengths(a, times):
    plus = a.sum(0)
    found = ches_from_sums([plus], [times * plus], [1], [1])
    assert found.ches[0] == found.chosen_sq[0] * (times - 1)


# --- exchange ----------------------------------------------------------------------------------------------------


@given(pairs())
def test_exchanging_the_responses(pair):
    a, b = pair
    there, back = apart(a, b), apart(b, a)
    gap = np.sum((a.sum(0) - b.sum(0)) ** 2)
    assert there.ches[0] + back.ches[0] == -gap
    assert (there.swapped[0], back.swapped[0], there.cross[0]) == (back.ches[0], there.ches[0], back.cross[0])
    assert min(there.ches[0], back.ches[0]) <= 0
    between = np.sum((a.mean(0) - b.mean(0)) ** 2)
    size = 1 + there.chosen_sq[0] + there.rejected_sq[0]
    assert there.ln_ches[0] + back.ln_ches[0] == pytest.approx(-between, abs=1e-13 * size)
    assert min(there.ln_ches[0], back.ln_ches[0]) <= 1e-13 * size
    if gap:
        tolerance = 1e-15 * (1 + abs(there.relative[0]) + abs(back.relative[0]))
        assert there.relative[0] + back.relative[0] == pytest.approx(-1, abs=tolerance * 4)
        turned = {"both_fall": "both_rise", "both_rise": "both_fall", "ideal": "ideal"}
        assert back.regime[0] == turned[there.regime[0]]
    else:
        assert there.regime == back.regime == ["undefined"]


# --- lengths -----------------------------------------------------------------------------------------------------


@given(three(most=5))
def test_equal_lengths_divide_by_their_square(states):
    n = min(len(rows) for rows in states[:2])
    found = apart(states[0][:n], states[1][:n])
    assert found.ln_ches[0] == found.ches[0] / n**2


@given(pairs(), st.integers(1, 5), st.integers(1, 5))
def test_repeating_every_state_leaves_the_means(pair, m, k):
    a, b = pair
    once, many = apart(a, b), apart(np.repeat(a, m, axis=0), np.tile(b, (k, 1)))
    assert (many.n_chosen[0], many.n_rejected[0]) == (m * len(a), k * len(b))
    assert (many.cross[0], many.chosen_sq[0], many.rejected_sq[0]) == (
        m * k * once.cross[0],
        m**2 * once.chosen_sq[0],
        k**2 * once.rejected_sq[0],
    )
    size = 1 + once.chosen_sq[0] + once.rejected_sq[0]
    assert many.ln_ches[0] == pytest.approx(once.ln_ches[0], abs=1e-13 * size)


@given(three())
def test_extra_tokens_score_what_they_add(states):
    """With y- = y+ and more, CHES is <S+, sum of the extra states>; nothing else of y+ counts."""
    a, extra, _ = states
    found = ches_from_states([a], [np.vstack([a, extra])])
    plus, more = a.sum(0), extra.sum(0)
    assert found.ches[0] == plus @ more
    assert found.ches[0] + found.swapped[0] == -(more @ more)
    expected = family(a.tolist(), np.vstack([a, extra]).tolist())["ln_ches"]
    assert found.ln_ches[0] == pytest.approx(float(expected), abs=1e-13 * (1 + plus @ plus + abs(plus @ more)))
    back = ches_from_states([np.vstack([a, extra])], [a])
    assert back.ches[0] == -(plus + more) @ more


# --- sums of blocks ----------------------------------------------------------------------------------------------


@given(pairs(), SEEDS)
def test_sums_of_any_blocks_of_positions(pair, seed):
    rng = np.random.default_rng(seed)
    sums = []
    for rows in pair:
        part = rng.integers(0, 3, len(rows))  # some parts may be empty
        sums.append(sum(rows[part == k].sum(0) for k in range(3)))
    lengths = [len(rows) for rows in pair]
    same(ches_from_sums(sums[:1], sums[1:], lengths[:1], lengths[1:]), apart(*pair))


@given(pairs(), SEEDS)
def test_the_order_of_positions_and_of_pairs(pair, seed):
    a, b = pair
    rng = np.random.default_rng(seed)
    same(apart(rng.permutation(a), rng.permutation(b)), apart(a, b))
    chosen, rejected = [a, b, a, 2 * b], [b, a, a, a]
    order = rng.permutation(4)
    together = ches_from_states(chosen, rejected)
    moved = ches_from_states([chosen[i] for i in order], [rejected[i] for i in order])
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(moved, name), getattr(together, name)[order], err_msg=name)
    assert moved.regime == [together.regime[i] for i in order]
    for i in range(4):
        alone = values(ches_from_states([chosen[i]], [rejected[i]]))
        for name, found in alone.items():
            np.testing.assert_array_equal(found, getattr(together, name)[i : i + 1], err_msg=name)


# --- maps of all states ------------------------------------------------------------------------------------------


@given(pairs(), SEEDS)
def test_turns_and_reflections_change_no_column(pair, seed):
    a, b = pair
    rng = np.random.default_rng(seed)
    d = a.shape[1]
    order, signs = rng.permutation(d), rng.choice([-1.0, 1.0], d)
    same(apart(a[:, order] * signs, b[:, order] * signs), apart(a, b))
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    turned, before = apart(a @ q, b @ q), apart(a, b)
    size = 1 + before.chosen_sq[0] + before.rejected_sq[0]
    for name in SQUARES:
        np.testing.assert_allclose(getattr(turned, name), getattr(before, name), atol=1e-13 * size, err_msg=name)


@given(pairs(), st.integers(-300, 300), st.sampled_from([-1.0, 1.0]))
def test_a_scale_of_all_states_enters_squared(pair, power, sign):
    a, b = pair
    before, after = apart(a, b), apart(sign * np.ldexp(a, power), sign * np.ldexp(b, power))
    for name in SQUARES:
        np.testing.assert_array_equal(getattr(after, name), np.ldexp(getattr(before, name), 2 * power), err_msg=name)
    same(after, before, RATIOS)
    assert after.regime == before.regime


@given(pairs(), st.lists(NUMBERS, min_size=3, max_size=3))
def test_a_shift_of_all_states_enters_with_the_lengths(pair, shift):
    a, b = pair
    t = np.array(shift[: a.shape[1]])
    moved = ches_from_sums([a.sum(0) + len(a) * t], [b.sum(0) + len(b) * t], [len(a)], [len(b)])
    same(apart(a + t, b + t), moved)


def test_a_shift_changes_the_worked_example():
    """S+ = (4, 1) and S- = (3, 8) become (6, 1) and (6, 8): 36 + 8 - 37 = 7, where there was 3."""
    a, b = np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]])
    assert ches_from_states([a], [b]).ches.tolist() == [3.0]
    found = ches_from_states([a + np.array([1, 0])], [b + np.array([1, 0])])
    assert (found.ches[0], found.chosen_sq[0], found.rejected_sq[0]) == (7, 37, 100)
    assert found.ln_ches[0] == pytest.approx(44 / 6 - 37 / 4, rel=1e-14)


# --- shared prefixes ---------------------------------------------------------------------------------------------


@given(three(), st.integers(1, 4), SEEDS)
def test_huge_shared_states_leave_the_digits_of_tiny_differences(states, count, seed):
    """The difference of the two sums would be 0 or a multiple of 2^-11; the true one is below 2^-20."""
    a, b, _ = states
    rng = np.random.default_rng(seed)
    shared = rng.integers(2**40, 2**41, (count, a.shape[1])).astype(float)
    first, second = np.vstack([shared, a * 2.0**-24]), np.vstack([shared, b * 2.0**-24])
    left, right = exact(first.tolist()), exact(second.tolist())
    plus = total(left, a.shape[1])
    gap = [y - x for x, y in zip(plus, total(right, a.shape[1]), strict=True)]
    weight = sum(abs(x * y) for x, y in zip(plus, gap, strict=True))
    distance = dot(gap, gap)
    for found in (ches_from_states([first], [second]), ches_from_states([first], [second], n_shared=[count])):
        assert abs(Fraction(found.ches[0]) - dot(plus, gap)) <= weight * Fraction(1, 2**50)
        if distance:
            off = abs(Fraction(found.relative[0]) - dot(plus, gap) / distance)
            assert off <= weight / distance * Fraction(1, 2**49)
        else:
            assert np.isnan(found.relative[0])
        if len(a) == len(b):
            n = count + len(a)
            assert abs(Fraction(found.ln_ches[0]) * n * n - dot(plus, gap)) <= weight * Fraction(1, 2**49)


@given(three(), three())
def test_the_difference_has_nothing_of_shared_states(states, others):
    """||D||^2 = -(CHES + swapped) is the same whatever the two responses share."""
    a, b, shared = states
    d = a.shape[1]
    other = np.resize(others[2], (len(others[2]), d))
    expected = -np.sum((b.sum(0) - a.sum(0)) ** 2)
    for prefix in (shared, other):
        found = ches_from_states([np.vstack([prefix, a])], [np.vstack([prefix, b])])
        assert found.ches[0] + found.swapped[0] == expected
        plus = prefix.sum(0) + a.sum(0)
        assert found.ches[0] == plus @ (b.sum(0) - a.sum(0))


@given(three())
def test_shared_states_are_read_on_the_chosen_side_alone(states):
    a, b, shared = states
    s = len(shared)
    first, second = np.vstack([shared, a]), np.vstack([shared, b])
    spoilt = second.copy()
    spoilt[:s] = 1e30
    same(ches_from_states([first], [spoilt], n_shared=[s]), ches_from_states([first], [second]))


@given(three(), st.sampled_from([list, np.array, torch.tensor]))
def test_any_count_up_to_the_shared_states_gives_the_same(states, kind):
    a, b, shared = states
    first, second = np.vstack([shared, a]), np.vstack([shared, b])
    expected = ches_from_states([first] * 2, [second] * 2)
    for s in range(len(shared) + 1):
        same(ches_from_states([first] * 2, [second] * 2, n_shared=kind([s, len(shared)])), expected)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 2), (3, 3)])
def test_the_count_of_shared_states_has_both_ends(n, m):
    a, b = np.ones((n, 2)), np.ones((m, 2))
    for s in (0, min(n, m)):
        found = ches_from_states([a, a], [b, b], n_shared=[0, s])
        assert found.ches.tolist() == [2.0 * n * (m - n)] * 2
    for s in (-1, min(n, m) + 1):
        with pytest.raises(ValueError, match=rf"`n_shared\[1\]` must be an integer >= 0 and <= {min(n, m)}; got {s}"):
            ches_from_states([a, a], [b, b], n_shared=[0, s])


# --- scales ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e100, 1e150])
def test_scales_whose_products_fit(scale):
    a, b = np.array([[1.0, 2.0], [3.0, -1.0]]) * scale, np.array([[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]]) * scale
    found, expected = ches_from_states([a], [b]), family(a.tolist(), b.tolist())
    for name in COLUMNS:
        assert getattr(found, name)[0] == pytest.approx(float(expected[name]), rel=1e-13, abs=0), name
    assert found.regime == ["both_fall"]
    padded = ches_from_padded(a[None], [[True] * 2], b[None], [[True] * 3])
    same(padded, found)


def test_sums_are_refused_exactly_where_a_product_does_not_fit():
    """S+ = (c, 0) and S- = (0, c): the largest number is ||S+ - S-||^2 = 2 c^2, below 2^1024 up to c = 2^511."""
    fits, over = 2.0**511, 2.0**512
    found = ches_from_sums([[1, 0], [fits, 0]], [[0, 1], [0, fits]], [1, 1], [1, 1])
    assert (found.ches[1], found.swapped[1], found.relative[1], found.cond[1]) == (-(2.0**1022), -(2.0**1022), -0.5, 1)
    words = "pair 1: products of the sums of its states exceed float64; scale all states down"
    with pytest.raises(ValueError, match=words):
        ches_from_sums([[1, 0], [over, 0]], [[0, 1], [0, over]], [1, 1], [1, 1])
    with pytest.raises(ValueError, match=words):
        ches_from_states([ONE[0], [[over]]], [ONE[0], [[-over]]])
    with pytest.raises(ValueError, match=words):  # the sum of the states does not fit, each state does
        ches_from_states([ONE[0], [[1.5e308]] * 2], [ONE[0], ONE[0]])


# --- half precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_states_are_only_widened(first, second):
    rng = torch.Generator().manual_seed(3)
    a = (torch.randn(40, 4, generator=rng) * 30).to(first)
    b = (torch.randn(55, 4, generator=rng) * 30).to(second).requires_grad_()
    found = ches_from_states([a], [b])
    expected = family(a.double().tolist(), b.detach().double().tolist())
    for name in COLUMNS:
        assert getattr(found, name).dtype == np.float64
        assert getattr(found, name)[0] == pytest.approx(float(expected[name]), rel=1e-11), name
    full = [torch.ones(1, len(x), dtype=torch.bool) for x in (a, b)]
    same(ches_from_padded(a[None], full[0], b[None], full[1]), found)
    same(ches_from_padded(a[None], full[0].numpy(), b[None], full[1].tolist()), found)


def test_sums_beyond_the_half_range_are_exact():
    """300 states of 60,000 add up to 1.8e7: 274 times what float16 holds."""
    a, b = np.full((300, 1), 60000, dtype=np.float16), np.full((301, 1), 60000, dtype=np.float16)
    for kind in (np.asarray, torch.tensor):
        found = ches_from_states([kind(a)], [kind(b)])
        assert found.ches.tolist() == [300 * 60000.0**2]
        assert found.ln_ches[0] == pytest.approx(0, abs=1e-15 * 60000.0**2)


# --- regimes and conditioning ------------------------------------------------------------------------------------

TINY = 2.0**-40


@pytest.mark.parametrize(
    ("plus", "minus", "relative", "regime"),
    [
        ([1, 0], [1, 1], 0.0, "ideal"),  # D at a right angle to S+: CHES is 0, the sums are not equal
        ([1, 0], [1 + TINY, 1], TINY, "both_fall"),
        ([1, 0], [1 - TINY, 1], -TINY, "ideal"),
        ([1, 1], [1, 0], -1.0, "ideal"),
        ([1, 1], [1 + TINY, 0], -1 + TINY, "ideal"),
        ([1, 1], [1 - TINY, 0], -1 - TINY, "both_rise"),
        ([2, 3], [0, 0], -1.0, "ideal"),
        ([0, 0], [2, 3], 0.0, "ideal"),
        ([2, 3], [2, 3], float("nan"), "undefined"),
        ([0, 0], [0, 0], float("nan"), "undefined"),
    ],
)
def test_the_edges_of_the_regimes(plus, minus, relative, regime):
    found = ches_from_sums([[9, 9], plus], [[9, 8], minus], [1, 2], [1, 2])
    assert found.relative[1] == pytest.approx(relative, abs=2.0**-52, nan_ok=True)
    assert found.regime[1] == regime


@pytest.mark.parametrize(
    ("plus", "minus", "cond"),
    [
        ([1, 0], [3, 0], 2.0),
        ([1, 0], [1, 5], float("inf")),  # CHES 0, its parts 1 and 1
        ([1, 0], [1, 0], float("inf")),
        ([0, 0], [3, 4], float("nan")),  # CHES 0 and both parts 0
        ([0, 0], [0, 0], float("nan")),
        ([1, 0], [1 + TINY, 0], 2 / TINY + 1),
        ([1, 0], [-1, 0], 1.0),
        ([1, 0], [0, 1], 1.0),
    ],
)
def test_conditioning(plus, minus, cond):
    found = ches_from_sums([plus, [9, 9]], [minus, [9, 8]], [2, 1], [1, 1])
    assert found.cond[0] == pytest.approx(cond, rel=1e-12, nan_ok=True)


@given(pairs())
def test_conditioning_is_at_least_one(pair):
    found = apart(*pair)
    if found.ches[0]:
        assert found.cond[0] >= 1
        assert found.cond[0] == (abs(found.cross[0]) + found.chosen_sq[0]) / abs(found.ches[0])
    else:
        assert np.isnan(found.cond[0]) == (found.chosen_sq[0] == 0)
        assert np.isinf(found.cond[0]) == (found.chosen_sq[0] > 0)


@given(pairs())
def test_two_states_alike_carry_no_information(pair):
    state = pair[0][:1]
    found = ches_from_states([state], [state])
    assert (found.ches[0], found.ln_ches[0]) == (0, 0)


# --- loss weights ------------------------------------------------------------------------------------------------


@given(pairs(), NUMBERS, NUMBERS)
def test_weights_enter_each_on_its_own_side(pair, plus, minus):
    a, b = pair
    found = ches_from_states([a, b], [b, a], n_shared=[0, 0])
    expected = minus * found.cross - plus * found.chosen_sq
    np.testing.assert_array_equal(found.weighted(plus, minus), expected)
    one_each = found.weighted([plus, minus], np.array([minus, plus]))
    assert one_each[0] == expected[0]
    assert one_each[1] == plus * found.cross[1] - minus * found.chosen_sq[1]
    np.testing.assert_array_equal(found.weighted(0, 1), found.cross)
    np.testing.assert_array_equal(found.weighted(1, 0), -found.chosen_sq)


def test_equal_weights_keep_the_digits_of_near_twins():
    found = ches_from_states([[[2.0**40], [1.0]]], [[[2.0**40], [1.0 + 2.0**-30]]])
    assert found.weighted(3, 3)[0] == 3 * found.ches[0]
    assert found.ches[0] == pytest.approx((2.0**40 + 1) * 2.0**-30, rel=1e-15)


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ((float("nan"), 1), ValueError, "`w_chosen` must be finite"),
        ((1, [1.0, float("inf")]), ValueError, "`w_rejected` has 1 non-finite"),
        ((1, [1.0, 2.0, 3.0]), ValueError, "`w_rejected` must be one number or one for each of 2 pairs"),
        (("one", 1), TypeError, "`w_chosen`"),
    ],
)
def test_weights_are_refused(weights, error, words):
    found = ches_from_sums([[1.0], [2.0]], [[2.0], [3.0]], [1, 1], [1, 1])
    with pytest.raises(error, match=words):
        found.weighted(*weights)


# --- masks -------------------------------------------------------------------------------------------------------


@given(pairs(most=6), SEEDS)
def test_a_mask_may_have_holes_and_hides_all_else(pair, seed):
    rng = np.random.default_rng(seed)
    sides = []
    for rows in pair:
        width = len(rows) + int(rng.integers(0, 5))
        at = np.sort(rng.choice(width, len(rows), replace=False))
        states, mask = (
            np.full((1, width, rows.shape[1]), rng.choice([np.nan, np.inf, 1e308])),
            np.zeros((1, width), bool),
        )
        states[0, at], mask[0, at] = rows, True
        sides += [states, mask]
    same(ches_from_padded(*sides), ches_from_states([pair[0]], [pair[1]]))


# --- refusals ----------------------------------------------------------------------------------------------------

GOOD = np.ones((3, 1, 1))
WIDE = np.ones((3, 2, 1))
ALL = np.ones((3, 2), dtype=bool)
HOLE = np.array([[True, True], [True, False], [False, False]])


def with_last(value):
    return [ONE[0], ONE[0], value]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ches_from_states(with_last(np.empty((0, 1))), GOOD), "pair 2: chosen response has no tokens"),
        (lambda: ches_from_states(GOOD, with_last(np.empty((0, 1)))), "pair 2: rejected response has no tokens"),
        (lambda: ches_from_states(GOOD, with_last([[-np.inf]])), "pair 2: hidden states of `rejected` contain NaN/inf"),
        (lambda: ches_from_states(with_last([[np.nan]]), GOOD), "pair 2: hidden states of `chosen` contain NaN/inf"),
        (lambda: ches_from_states(with_last([[np.inf]]), GOOD), "load the model in bfloat16 or float32"),
        (
            lambda: ches_from_states(GOOD, [*GOOD[:2], torch.full((1, 1), torch.nan).half()], n_shared=[1, 1, 1]),
            "pair 2: hidden states of `rejected`",  # not even where it would be taken from the chosen side
        ),
        (lambda: ches_from_states(GOOD, GOOD[:2]), "`rejected` must have as many entries as `chosen`, 3; got 2"),
        (lambda: ches_from_states(GOOD[:2], GOOD), "`rejected` must have as many entries as `chosen`, 2; got 3"),
        (lambda: ches_from_states(GOOD, with_last([[1, 2]])), "pair 2: `rejected` must have width 1.* got 2"),
        (
            lambda: ches_from_states(with_last([[1, 2]]), with_last([[1, 2]])),
            "pair 2: states must have width 1, as in pair 0; got 2",
        ),
        (lambda: ches_from_states([np.empty((2, 0))], [np.empty((2, 0))]), "pair 0: .* at least one entry"),
        (lambda: ches_from_states(GOOD, GOOD, n_shared=[1, 1]), "`n_shared` must have one entry for each of 3 pairs"),
        (lambda: ches_from_states(GOOD, GOOD, n_shared=[0, 0, 2]), r"`n_shared\[2\]`"),
        (lambda: ches_from_sums(GOOD[0], GOOD[0], [1], [0]), "pair 0: `n_rejected` must be a whole number of at lea"),
        (lambda: ches_from_sums(GOOD[:, 0], GOOD[:, 0], [1, 1, -2], [1] * 3), "pair 2: `n_chosen` .* got -2"),
        (lambda: ches_from_sums(GOOD[:, 0], GOOD[:, 0], [1] * 3, [1, 1.5, 1]), "pair 1: `n_rejected` .* got 1.5"),
        (lambda: ches_from_sums(GOOD[:, 0], GOOD[:, 0], [1] * 2, [1] * 3), "`n_chosen` must have one entry for each"),
        (lambda: ches_from_sums(GOOD[:, 0], GOOD[:2, 0], [1] * 3, [1] * 3), "`sum_rejected` must have the shape"),
        (
            lambda: ches_from_sums([[1], [np.nan]], [[1], [1]], [1, 1], [1, 1]),
            r"`sum_chosen` has 1 non-f.*\(1, 0\)",
        ),
        (lambda: ches_from_sums([[1], [1]], [[np.inf], [1]], [1, 1], [1, 1]), r"`sum_rejected` has 1 non-f.*\(0, 0\)"),
        (lambda: ches_from_sums(np.empty((0, 1)), np.empty((0, 1)), [], []), "`sum_chosen` must not be empty"),
        (lambda: ches_from_padded(WIDE, HOLE, WIDE, ALL), "pair 2: chosen response has no tokens"),
        (lambda: ches_from_padded(WIDE, ALL, WIDE, HOLE), "pair 2: rejected response has no tokens"),
        (lambda: ches_from_padded(WIDE, ALL, WIDE[:2], ALL[:2]), "`rejected` must hold as many pairs as `chosen`, 3"),
        (lambda: ches_from_padded(WIDE, ALL, np.ones((3, 2, 4)), ALL), "pair 0: `rejected` must have width 1"),
        (lambda: ches_from_padded(WIDE, ALL, WIDE, ALL[:, :1]), "`rejected_mask` must have the shape of its states"),
        (lambda: ches_from_padded(WIDE[:0], ALL[:0], WIDE[:0], ALL[:0]), "at least one pair"),
        (lambda: ches_from_padded(WIDE[0], ALL, WIDE, ALL), r"`chosen` must be hidden states \(N, T, d\)"),
        (lambda: ches_from_padded(WIDE, ALL, WIDE * np.nan, ALL), "pair 0: hidden states of `rejected`"),
    ],
)
def test_refusals_name_the_pair_and_the_side(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("mask", [np.ones((3, 2)), np.ones((3, 2), dtype=np.int8), torch.ones(3, 2), [[1, 1]] * 3])
def test_a_mask_of_numbers_is_refused_on_either_side(mask):
    for sides, name in (((mask, ALL), "chosen_mask"), ((ALL, mask), "rejected_mask")):
        with pytest.raises(TypeError, match=f"`{name}` must be boolean"):
            ches_from_padded(WIDE, sides[0], WIDE, sides[1])


def test_inputs_are_left_alone():
    a, b = np.arange(6.0).reshape(3, 2), np.arange(8.0).reshape(4, 2)
    kept = a.copy(), b.copy()
    result = ches_from_states([a], [b], n_shared=[3])
    ches_from_sums(a, b[:3], [1, 2, 3], [3, 2, 1])
    np.testing.assert_array_equal(a, kept[0])
    np.testing.assert_array_equal(b, kept[1])
    with pytest.raises(ValueError, match="read-only"):
        result.ches[0] = 0

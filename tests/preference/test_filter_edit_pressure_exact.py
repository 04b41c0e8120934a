"""Filters at rounding edges, edits that have a known cost, pressure in whole numbers, and what each of them refuses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.ches_definition import edit_table
from oracles.windows_and_edits import edit_rows, half_to_even, window
from rankdiag.preference import (
    PreferenceScores,
    ches_from_sums,
    dataset_pressure,
    drop_highest,
    edit_similarity,
    influence_matrix,
    keep_lowest,
    quantile_window,
)

NAN = float("nan")
SCORES = st.lists(st.one_of(st.just(NAN), st.just(math.inf), st.integers(-3, 3).map(float)), min_size=1, max_size=20)


def shuffled(count):
    """Return scores with a known order: place `order[k]` holds the k-th lowest."""
    order = np.random.default_rng(count).permutation(count)
    scores = np.empty(count)
    scores[order] = np.arange(count) - count / 2
    return scores, order.tolist()


# --- windows -----------------------------------------------------------------------------------------------------

GRID = sorted({Fraction(k, m) for m in range(1, 14) for k in range(m + 1)})


def test_halves_go_to_the_even_neighbour():
    assert [half_to_even(Fraction(n, 2)) for n in range(8)] == [0, 0, 1, 2, 2, 2, 3, 4]
    assert [half_to_even(Fraction(n, 3)) for n in range(7)] == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("count", range(1, 31))
def test_the_window_starts_where_the_rule_says(count):
    scores, order = shuffled(count)
    for q in GRID:
        for num in {1, 2, 3, count // 2 + 1, count}:
            start, stop = window(count, q, num)
            assert quantile_window(scores, float(q), num).tolist() == order[start:stop], (q, num)


@pytest.mark.parametrize("count", range(2, 31))
def test_windows_of_one_meet_every_score(count):
    """At q = k/(N-1) the window of one is the k-th score; halfway between two it is the even one of them."""
    scores, order = shuffled(count)
    for k in range(count):
        assert quantile_window(scores, k / (count - 1), 1).tolist() == [order[k]]
    if math.log2(count - 1).is_integer():  # halves are exact in binary there
        for k in range(count - 1):
            assert quantile_window(scores, (2 * k + 1) / (2 * count - 2), 1).tolist() == [order[k + k % 2]]


@given(st.integers(1, 60), st.floats(0, 1), st.integers(1, 70))
def test_windows_of_any_quantile(count, q, num):
    exact = Fraction(q) * (count - 1)
    if abs(exact % 1 - Fraction(1, 2)) < Fraction(1, 10**12):
        return  # a half that the product may round
    start, stop = window(count, Fraction(q), num)
    scores, order = shuffled(count)
    assert quantile_window(scores, q, num).tolist() == order[start:stop]


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 9, 10])
def test_the_window_moves_up_with_the_quantile(num):
    scores, order = shuffled(10)
    starts = [order.index(quantile_window(scores, k / 200, num)[0]) for k in range(201)]
    assert starts == sorted(starts)
    assert (starts[0], starts[-1]) == (0, 10 - num)


def test_windows_pass_over_nan_and_break_ties_by_place():
    scores = [NAN, 2.0, 1.0, NAN, 2.0, -math.inf, 1.0, math.inf]
    assert quantile_window(scores, 0.0, 9).tolist() == [5, 2, 6, 1, 4, 7]
    assert quantile_window(scores, 0.5, 2).tolist() == [2, 6]  # centre 2 of 0..5: half of 5 goes to the even one
    assert quantile_window([1.0] * 7, 0.5, 3).tolist() == [2, 3, 4]


# --- lowest and highest ------------------------------------------------------------------------------------------


@given(SCORES, st.integers(1, 25))
def test_what_is_dropped_is_all_but_the_lowest(scores, n):
    valid = [i for i, s in enumerate(scores) if s == s]
    if not valid:
        return
    low, rest = keep_lowest(scores, n=n), drop_highest(scores, n=n)
    assert (len(low), len(rest)) == (min(n, len(valid)), max(0, len(valid) - n))
    assert low.dtype == rest.dtype == np.int64
    if n < len(valid):
        assert rest.tolist() == keep_lowest(scores, n=len(valid) - n).tolist()
    for found in (low.tolist(), rest.tolist()):
        assert found == sorted(set(found))
    gone = sorted(set(valid) - set(rest.tolist()))
    assert all((scores[i], i) > (scores[j], j) for i in gone for j in rest)


@pytest.mark.parametrize("count", [1, 3, 7, 30, 49, 100, 110, 1000])
def test_shares_round_up_but_not_for_rounding_errors(count):
    scores = np.arange(count)
    for k in range(1, count + 1, 1 + count // 200):  # 7 of 100 among them: 0.07 * 100 is 7.000000000000001
        assert len(keep_lowest(scores, fraction=k / count)) == k
        assert len(drop_highest(scores, fraction=k / count)) == count - k
        if k < count:
            assert len(keep_lowest(scores, fraction=k / count + 1e-6)) == k + 1
            assert len(drop_highest(scores, fraction=k / count + 1e-6)) == count - k - 1
    for tiny in (1e-12, 5e-324):
        assert keep_lowest(scores, fraction=tiny).tolist() == [0]
        assert len(drop_highest(scores, fraction=tiny)) == count - 1


def test_the_published_filter_keeps_19_of_370():
    assert keep_lowest(np.arange(370.0)[::-1], fraction=0.05).tolist() == list(range(351, 370))


def test_ties_go_to_the_earlier_pair():
    many = [float(i % 3) for i in range(300)]  # long enough for a sort that is not stable to show
    order = sorted(range(300), key=lambda i: (many[i], i))
    assert keep_lowest(many, n=150).tolist() == sorted(order[:150])
    assert drop_highest(many, n=150).tolist() == sorted(order[:150])
    assert quantile_window(many, 0.5, 120).tolist() == order[90:210]
    scores = [0.0, -0.0, NAN, 0.0, -0.0]
    assert keep_lowest(scores, n=2).tolist() == [0, 1]
    assert drop_highest(scores, n=1).tolist() == [0, 1, 3]


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, torch.tensor, lambda x: torch.tensor(x).bfloat16()])
def test_scores_of_any_kind(kind):
    scores = kind([3, -1, 2, 2])
    assert keep_lowest(scores, n=2).tolist() == [1, 2]
    assert drop_highest(scores, n=2).tolist() == [1, 2]
    assert quantile_window(scores, 1, 3).tolist() == [2, 3, 0]


def test_the_column_is_chosen_by_name_and_the_unusable_are_left_out():
    lengths = dict.fromkeys(("n_chosen", "n_rejected", "length_gap", "shared_prefix"), [1.0] * 4)
    table = PreferenceScores(
        keys=tuple("abcd"),
        status=("ok", "ok", "identical", "ok"),
        scores={"ches": [1.0, 3.0, 0.0, 2.0], "ln_ches": [3.0, 1.0, 0.0, 2.0], **lengths},
    )
    assert drop_highest(table, n=1).tolist() == [1, 3]
    assert drop_highest(table, n=1, by="ches").tolist() == [0, 3]
    assert keep_lowest(table, fraction=1 / 3, by="ches").tolist() == [0]
    assert quantile_window(table, 1, 2, by="ches").tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"`by` must be one of the columns ches, ln_ches.* got 'head'"):
        drop_highest(table, n=1, by="head")


@pytest.mark.parametrize("keep", [keep_lowest, drop_highest])
@pytest.mark.parametrize(
    ("scores", "options", "error", "words"),
    [
        ([1.0], {}, TypeError, "exactly one of `fraction` and `n`"),
        ([1.0], {"fraction": 0.5, "n": 1}, TypeError, "exactly one of `fraction` and `n`"),
        ([1.0], {"fraction": 0.0}, ValueError, "`fraction`"),
        ([1.0], {"fraction": -0.1}, ValueError, "`fraction`"),
        ([1.0], {"fraction": math.nextafter(1, 2)}, ValueError, "`fraction`"),
        ([1.0], {"fraction": NAN}, ValueError, "`fraction`"),
        ([1.0], {"fraction": "half"}, TypeError, "`fraction`"),
        ([1.0], {"fraction": True}, TypeError, "`fraction`"),
        ([1.0], {"n": 0}, ValueError, "`n`"),
        ([1.0], {"n": -1}, ValueError, "`n`"),
        ([1.0], {"n": 1.0}, TypeError, "`n`"),
        ([1.0], {"n": True}, TypeError, "`n`"),
        ([NAN, NAN], {"n": 1}, ValueError, "at least one pair with a score"),
        ([NAN], {"fraction": 1.0}, ValueError, "at least one pair with a score"),
        ([], {"n": 1}, ValueError, "`scores`"),
        ([[1.0]], {"n": 1}, ValueError, "`scores`"),
        (["a"], {"n": 1}, TypeError, "`scores`"),
        ([1.0], {"n": 1, "by": 3}, TypeError, "`by`"),
    ],
)
def test_filters_refuse(keep, scores, options, error, words):
    with pytest.raises(error, match=words):
        keep(scores, **options)


@pytest.mark.parametrize(
    ("scores", "q", "num", "error", "words"),
    [
        ([1.0], -1e-9, 1, ValueError, "`q`"),
        ([1.0], math.nextafter(1, 2), 1, ValueError, "`q`"),
        ([1.0], NAN, 1, ValueError, "`q`"),
        ([1.0], "0.5", 1, TypeError, "`q`"),
        ([1.0], 0.5, 0, ValueError, "`num`"),
        ([1.0], 0.5, -3, ValueError, "`num`"),
        ([1.0], 0.5, 1.0, TypeError, "`num`"),
        ([NAN], 0.5, 1, ValueError, "at least one pair with a score"),
    ],
)
def test_windows_refuse(scores, q, num, error, words):
    with pytest.raises(error, match=words):
        quantile_window(scores, q, num)


# --- edit similarity ---------------------------------------------------------------------------------------------

IDS = st.lists(st.integers(0, 3), max_size=10)
FAR = [0, 1, -1, -(2**31), 2**31 - 1, 2**31, 2**32, 2**53 + 1, -(2**63), 2**63 - 1]


def distance(a, b):
    """Turn the similarity back into a count of edits; it must be a whole number."""
    edits = -edit_similarity(a, b) * max(len(a), len(b))
    assert edits == pytest.approx(round(edits), abs=1e-9)
    return round(edits)


@given(IDS, IDS, st.permutations(FAR))
def test_similarity_knows_ids_by_equality_alone(a, b, names):
    expected = distance(a, b)
    assert expected == edit_table(a, b) == edit_rows(a, b)
    renamed = [[names[x] for x in ids] for ids in (a, b)]
    assert edit_similarity(*renamed) == edit_similarity(a, b)
    assert edit_similarity(*(np.array(ids, dtype=np.int64) for ids in renamed)) == edit_similarity(a, b)
    assert edit_similarity(*(torch.tensor(ids, dtype=torch.int64) for ids in renamed)) == edit_similarity(a, b)


@given(IDS, IDS, IDS)
def test_a_common_beginning_or_end_costs_nothing(a, b, c):
    ab = distance(a, b)
    assert distance(a + c, b + c) == distance(c + a, c + b) == distance(c + a + c, c + b + c) == ab
    assert -1 <= edit_similarity(a, b) <= 0
    assert distance(a[::-1], b[::-1]) == ab


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12, unique=True), st.integers(0, 999))
def test_one_edit_of_each_kind_costs_one(ids, seed):
    place = seed % len(ids)
    changed = [*ids[:place], -5, *ids[place + 1 :]]
    assert distance(ids, changed) == 1
    assert distance(ids, ids[:place] + ids[place + 1 :]) == 1
    assert distance(ids, [*ids[:place], -5, *ids[place:]]) == 1
    if len(ids) > 1:
        assert distance(ids, [*ids[1:], ids[0]]) == 2  # no exchange of neighbours, no shift


def test_thousands_of_tokens_against_the_whole_table():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 40, 4200), rng.integers(0, 40, 1100)
    b[300:700] = a[2000:2400]
    found = distance(a, b)
    assert found == edit_rows(a.tolist(), b.tolist())
    assert distance(b, a) == found


@pytest.mark.parametrize("size", [4096, 4097, 6001])
def test_thousands_of_tokens_of_a_known_distance(size):
    """Distinct ids, some taken out and some replaced by new ones: no script is shorter than their number."""
    rng = np.random.default_rng(size)
    ids = rng.permutation(size) + 2**31 - size // 2
    places = rng.permutation(np.arange(1, size - 1))
    gone, new = places[:40], places[40:90]
    edited = ids.copy()
    edited[new] = -1 - np.arange(len(new))
    edited[[0, -1]] = (-500, -501)  # nothing in common at either end
    edited = np.delete(edited, gone)
    for kind in (list, np.asarray, torch.tensor):
        assert edit_similarity(kind(ids), kind(edited)) == -(40 + 50 + 2) / size
    assert edit_similarity(ids, ids + size) == -1
    assert edit_similarity(ids, np.roll(ids, 7)) == -14 / size
    assert edit_similarity(ids, ids.copy()) == 0
    assert edit_similarity(ids, ids[:1]) == -(size - 1) / size


@pytest.mark.parametrize("n", [31, 32, 33, 63, 64, 65, 127, 128, 129])
def test_word_lengths(n):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 3, n).tolist(), rng.integers(0, 3, n + 2).tolist()
    a[0], b[0], a[-1], b[-1] = 7, 8, 9, 10
    assert distance(a, b) == edit_table(a, b)
    assert distance(b, a) == edit_table(b, a)


def test_empty_responses():
    nothing = ([], (), np.empty(0, dtype=np.int64), torch.empty(0, dtype=torch.int64))
    for one in nothing:
        assert all(edit_similarity(one, other) == 0 for other in nothing)
        assert edit_similarity(one, [5]) == edit_similarity([5, 6], one) == -1
    assert math.copysign(1, edit_similarity([], [])) == math.copysign(1, edit_similarity([3], [3])) == 1


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_any_width_of_integer(dtype):
    a, b = np.array([1, 2, 3, 4, 127], dtype=dtype), [1, 9, 3, 127]
    assert edit_similarity(a, b) == edit_similarity(b, a) == -2 / 5
    assert edit_similarity(a[::-1], b[::-1]) == -2 / 5
    assert edit_similarity(torch.tensor(a.astype(np.int64)), np.array(b)) == -2 / 5


def test_large_unsigned_ids_are_not_negative_ones():
    big = np.array([2**64 - 1], dtype=np.uint64)
    assert edit_similarity(big, np.array([-1])) == -1
    assert edit_similarity(big, big.copy()) == 0


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([1.0, 2.0], TypeError, "must hold integers"),
        (["a"], TypeError, "must hold integers"),
        ([True, False], TypeError, "must hold integers"),
        (torch.tensor([1.0]), TypeError, "must hold integers"),
        (torch.tensor([True]), TypeError, "must hold integers"),
        ("abc", TypeError, "must be a sequence of token ids"),
        (b"abc", TypeError, "must be a sequence of token ids"),
        ({1: 2}, TypeError, "must be a sequence of token ids"),
        ({1, 2}, TypeError, "must be a sequence of token ids"),
        (7, TypeError, "must be a sequence of token ids"),
        (None, TypeError, "must be a sequence of token ids"),
        ([[1], [2, 3]], TypeError, "must be a sequence of token ids"),
        ([[1, 2]], ValueError, "must have one axis"),
        (torch.ones(2, 2, dtype=torch.int64), ValueError, "must have one axis"),
        (np.array(3), ValueError, "must have one axis"),
    ],
)
def test_edit_similarity_refuses_either_side(value, error, words):
    with pytest.raises(error, match=f"`chosen_ids` {words}"):
        edit_similarity(value, [1])
    with pytest.raises(error, match=f"`rejected_ids` {words}"):
        edit_similarity([1], value)


# --- pressure ----------------------------------------------------------------------------------------------------


def whole_sums(count, width, seed=0):
    """Return sums, and weights in quarters, of small whole numbers: every product and every sum of them is exact."""
    rng = np.random.default_rng(seed)
    plus, minus = rng.integers(-9, 10, (2, count, width)).astype(float)
    return plus, minus, rng.integers(0, 9, count) / 4


def plain(plus, minus, weights):
    """Return the influence and the pressure, times the number of pairs, in whole numbers: no block, no rounding."""
    a, b, g = plus.astype(np.int64), minus.astype(np.int64), (4 * weights).astype(np.int64)
    matrix = np.einsum("id,jd->ij", a, b - a)
    return matrix, (matrix * g).sum(axis=1) / 4


@pytest.mark.parametrize(
    ("count", "width"),
    [(1, 1), (1, 5), (5, 1), (65, 1024), (64, 1024), (63, 1024), (129, 1024), (3, 70_000), (2, 65_536), (700, 100)],
)
def test_blocks_of_rows_of_any_number_are_exact(count, width):
    """A block holds 65,536 entries: here are fewer, as many, one row more, several blocks, and rows longer than one."""
    plus, minus, weights = whole_sums(count, width)
    matrix, total = plain(plus, minus, weights)
    found = dataset_pressure(plus, minus, weights=weights)
    np.testing.assert_array_equal(found.own, np.diag(matrix))
    np.testing.assert_array_equal(influence_matrix(plus, minus), matrix)
    np.testing.assert_allclose(found.pressure * count, total, rtol=1e-13, atol=1e-10)
    np.testing.assert_array_equal(
        ches_from_sums(plus, minus, np.ones(count), np.ones(count)).ches, found.own, err_msg="own is CHES"
    )


@given(st.integers(0, 3), st.integers(1, 4), st.integers(0, 999))
def test_the_row_means_of_the_matrix_are_the_pressure(power, width, seed):
    plus, minus, weights = whole_sums(2**power, width, seed)  # a power of two divides without rounding
    matrix = influence_matrix(plus, minus)
    found = dataset_pressure(plus, minus, weights=weights)
    np.testing.assert_array_equal(found.pressure, (matrix * weights).mean(axis=1))
    np.testing.assert_array_equal(found.own, np.diag(matrix))
    np.testing.assert_array_equal(dataset_pressure(plus, minus).pressure, matrix.mean(axis=1))
    one = np.zeros(2**power)
    one[-1] = 2**power
    np.testing.assert_array_equal(dataset_pressure(plus, minus, weights=one).pressure, matrix[:, -1])


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 999))
def test_influence_under_exchange_of_the_responses(count, width, seed):
    """I(+,-) + I(-,+) = -D D^T with D = S- - S+: symmetric, and never positive on the diagonal."""
    plus, minus, _ = whole_sums(count, width, seed)
    both = influence_matrix(plus, minus) + influence_matrix(minus, plus)
    np.testing.assert_array_equal(both, -(minus - plus) @ (minus - plus).T)
    np.testing.assert_array_equal(influence_matrix(plus, plus), np.zeros((count, count)))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 999))
def test_order_scale_and_weights(count, width, seed):
    plus, minus, weights = whole_sums(count, width, seed)
    base, matrix = dataset_pressure(plus, minus, weights=weights), influence_matrix(plus, minus)
    order = np.random.default_rng(seed).permutation(count)
    moved = dataset_pressure(plus[order], minus[order], weights=weights[order])
    np.testing.assert_array_equal(moved.own, base.own[order])
    np.testing.assert_allclose(moved.pressure, base.pressure[order], rtol=1e-13, atol=1e-11)
    np.testing.assert_array_equal(influence_matrix(plus[order], minus[order]), matrix[order][:, order])
    for c in (-1.0, 2.0**-300, 2.0**300):
        scaled = dataset_pressure(c * plus, c * minus, weights=weights)
        np.testing.assert_array_equal(scaled.own, c * c * base.own)
        np.testing.assert_array_equal(scaled.pressure, c * c * base.pressure)
        np.testing.assert_array_equal(influence_matrix(c * plus, c * minus), c * c * matrix)
    eight = dataset_pressure(plus, minus, weights=-8 * weights)
    np.testing.assert_array_equal(eight.pressure, -8 * base.pressure)
    np.testing.assert_array_equal(eight.own, base.own)  # own influence carries no weight
    rest = dataset_pressure(plus, minus, weights=1 - weights)
    unit = dataset_pressure(plus, minus)
    np.testing.assert_allclose(base.pressure + rest.pressure, unit.pressure, atol=1e-11)
    np.testing.assert_array_equal(dataset_pressure(plus, minus, weights=np.ones(count)).pressure, unit.pressure)
    assert not dataset_pressure(plus, minus, weights=np.zeros(count)).pressure.any()


def test_pairs_that_push_nothing_only_thin_the_mean():
    plus, minus, _ = whole_sums(4, 3)
    base = dataset_pressure(plus, minus)
    with_twins = dataset_pressure(np.vstack([plus, plus]), np.vstack([minus, plus]))
    np.testing.assert_array_equal(with_twins.pressure, np.tile(base.pressure / 2, 2))
    assert with_twins.own[4:].tolist() == [0] * 4
    doubled = dataset_pressure(np.vstack([plus, plus]), np.vstack([minus, minus]))
    np.testing.assert_array_equal(doubled.pressure, np.tile(base.pressure, 2))


def test_one_pair_presses_on_itself_alone():
    found = dataset_pressure([[1.0, 2.0]], [[3.0, -1.0]], weights=[0.5])
    assert (found.own.tolist(), found.pressure.tolist(), len(found)) == ([-4.0], [-2.0], 1)
    assert influence_matrix([[1.0, 2.0]], [[3.0, -1.0]]).tolist() == [[-4.0]]


@pytest.mark.parametrize("kind", [np.asarray, np.float32, np.int64, torch.tensor, lambda x: torch.tensor(x).bfloat16()])
def test_sums_of_any_kind(kind):
    plus, minus, weights = whole_sums(5, 3)
    expected, matrix = dataset_pressure(plus, minus, weights=weights), influence_matrix(plus, minus)
    found = dataset_pressure(kind(plus), kind(minus), weights=list(weights))
    np.testing.assert_array_equal(found.pressure, expected.pressure)
    np.testing.assert_array_equal(found.own, expected.own)
    turned = influence_matrix(np.asfortranarray(plus), minus[:, ::-1].copy()[:, ::-1])
    np.testing.assert_array_equal(influence_matrix(kind(plus), kind(minus)), matrix)
    np.testing.assert_array_equal(turned, matrix)
    assert matrix.dtype == np.float64


BAD = np.array([[1.0, 2.0], [np.nan, 0.0]])
FINE = np.ones((2, 2))


@pytest.mark.parametrize("call", [dataset_pressure, influence_matrix])
@pytest.mark.parametrize(
    ("plus", "minus", "words"),
    [
        (BAD, FINE, r"`sum_chosen` has 1 non-finite.*\(1, 0\)"),
        (FINE, BAD, r"`sum_rejected` has 1 non-finite.*\(1, 0\)"),
        (FINE, np.full((2, 2), np.inf), r"`sum_rejected` has 4 non-finite.*\(0, 0\)"),
        (FINE, FINE[:1], r"`sum_rejected` must have the shape of `sum_chosen`, \(2, 2\); got \(1, 2\)"),
        (FINE, FINE[:, :1], "`sum_rejected` must have the shape of `sum_chosen`"),
        (FINE[0], FINE, "`sum_chosen`"),
        (FINE[:0], FINE[:0], "`sum_chosen` must not be empty"),
        (1e200 * FINE, -FINE * 1e200, "products beyond float64; scale"),
    ],
)
def test_sums_are_refused(call, plus, minus, words):
    with pytest.raises(ValueError, match=words):
        call(plus, minus)


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ([1.0], ValueError, "`weights` must have one entry for each of 2 pairs"),
        ([1.0, NAN], ValueError, r"`weights` has 1 non-finite.*\(1,\)"),
        (FINE, ValueError, "`weights`"),
        (["a", "b"], TypeError, "`weights`"),
    ],
)
def test_weights_are_refused(weights, error, words):
    with pytest.raises(error, match=words):
        dataset_pressure(FINE, FINE, weights=weights)


def test_a_matrix_beyond_memory_is_refused_before_it_is_made():
    many = np.broadcast_to(np.ones((1, 1)), (4_000_000, 1))
    with pytest.raises(ValueError, match=r"\(4000000, 4000000\)"):
        influence_matrix(many, many)

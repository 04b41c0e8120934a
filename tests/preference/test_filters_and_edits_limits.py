"""Windows at every rounding edge, filters against sorted lists, and edit distances of long responses and odd ids."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdiag.preference import (
    dataset_pressure,
    drop_highest,
    edit_similarity,
    influence_matrix,
    keep_lowest,
    quantile_window,
)


def half_to_even(value: Fraction) -> int:
    low = math.floor(value)
    if value - low != Fraction(1, 2):
        return low + (value - low > Fraction(1, 2))
    return low + low % 2


def window(order: list[int], q: Fraction, num: int) -> list[int]:
    """Positions around a quantile, from the written rule, in exact arithmetic."""
    count = len(order)
    if num >= count:
        return order
    centre = half_to_even(q * (count - 1))
    start = max(0, centre - num // 2)
    if start + num > count:
        start = count - num
    return order[start : start + num]


def test_windows_start_where_the_rule_says_for_every_size():
    for count in range(1, 31):
        scores = np.random.default_rng(count).permutation(count).astype(float)
        order = np.argsort(scores, kind="stable").tolist()
        for num in range(1, count + 3):
            for q in (Fraction(k, 16) for k in range(17)):  # exact in binary, halves of q (N - 1) among them
                assert quantile_window(scores, float(q), num).tolist() == window(order, q, num), (count, num, q)


@given(
    st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan")), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40),
    st.integers(1, 45),
)
def test_the_ends_of_the_windows_are_the_lowest_and_the_highest(scores, num):
    valid = [i for i, score in enumerate(scores) if score == score]
    if not valid:
        with pytest.raises(ValueError, match="`scores`"):
            quantile_window(scores, 0.0, num)
        return
    order = sorted(valid, key=lambda i: (scores[i], i))
    assert quantile_window(scores, 0.0, num).tolist() == order[:num]
    assert quantile_window(scores, 1.0, num).tolist() == order[-num:]
    for q in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert len(quantile_window(scores, q, num)) == min(num, len(valid))


@given(st.lists(st.one_of(st.floats(-5, 5), st.just(float("nan")), st.just(1.0)), min_size=1, max_size=40), st.data())
def test_kept_sets_are_nested_and_complete_the_dropped(scores, data):
    valid = [i for i, score in enumerate(scores) if score == score]
    if not valid:
        return
    order = sorted(valid, key=lambda i: (scores[i], i))
    fractions = sorted(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    before: set[int] = set()
    for part in fractions:
        fraction = part / 40
        count = max(1, math.ceil(Fraction(part, 40) * len(valid)))
        kept = keep_lowest(scores, fraction=fraction).tolist()
        assert kept == sorted(order[:count])
        assert before <= set(kept)
        before = set(kept)
        dropped = drop_highest(scores, fraction=fraction).tolist()
        assert dropped == sorted(order[: len(order) - count])


# --- edit distance ----------------------------------------------------------------------------------------------------


def distance(a, b) -> int:
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        change = row[:-1] + (np.asarray(b) != x)
        best = np.minimum(change, row[1:] + 1)
        best = np.concatenate([[i], best])
        row = np.minimum.accumulate(best - np.arange(len(best))) + np.arange(len(best))  # insertions along the row
    return int(row[-1])


def similarity(a, b) -> float:
    return -distance(a, b) / max(len(a), len(b), 1)


def test_long_responses_equal_the_table():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 50, 5000)
    b = a.copy()
    b[rng.integers(0, 5000, 300)] = 60
    b = np.delete(b, rng.integers(0, 5000, 200))
    c = rng.integers(0, 50, 4500)
    for left, right in ((a, b), (a, c), (a[:64], a), (a, a)):
        assert edit_similarity(left, right) == similarity(left, right)


IDS = st.one_of(st.integers(0, 3), st.sampled_from([2**31 - 1, 2**31, 2**40, 2**62]))
SEQUENCES = st.lists(IDS, max_size=70)


@settings(max_examples=100)
@given(SEQUENCES, SEQUENCES, SEQUENCES)
def test_it_is_a_metric_of_any_ids(a, b, c):
    def d(x, y):
        return round(-edit_similarity(x, y) * max(len(x), len(y), 1))

    assert d(a, b) == distance(a, b)
    assert d(a, b) == d(b, a)
    assert (d(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= d(a, b) <= max(len(a), len(b))
    assert d(a, c) <= d(a, b) + d(b, c)
    assert d(a[::-1], b[::-1]) == d(a, b)
    names = {token: 7 * place + 1 for place, token in enumerate(dict.fromkeys(a + b))}
    assert edit_similarity([names[t] for t in a], [names[t] for t in b]) == edit_similarity(a, b)


def test_kinds_of_sequences_agree():
    a, b = [5, 6, 7, 2**31], [5, 7, 8]
    for make in (list, tuple, np.array, torch.tensor):
        assert edit_similarity(make(a), make(b)) == similarity(a, b)
    assert edit_similarity([], []) == 0.0
    assert edit_similarity([], [1]) == -1.0


# --- pressure ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "width"), [(1, 1), (3, 700), (700, 3), (257, 513)])
def test_pressure_is_the_mean_row_of_the_influence(count, width):
    rng = np.random.default_rng(count)
    plus, minus = rng.standard_normal((2, count, width))
    weights = rng.uniform(0.1, 2.0, count)
    matrix = influence_matrix(plus, minus)
    expected = np.array([[a @ (d - c) for c, d in zip(plus, minus, strict=True)] for a in plus[:20]])
    np.testing.assert_allclose(matrix[:20], expected, rtol=1e-10, atol=1e-10)
    bare, weighed = dataset_pressure(plus, minus), dataset_pressure(plus, minus, weights=weights)
    np.testing.assert_allclose(bare.pressure, matrix.mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(weighed.pressure, (matrix * weights).mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bare.own, np.diag(matrix), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(weighed.own, bare.own)
    order = rng.permutation(count)
    moved = dataset_pressure(plus[order], minus[order])
    np.testing.assert_allclose(moved.pressure, bare.pressure[order], rtol=1e-9, atol=1e-9)

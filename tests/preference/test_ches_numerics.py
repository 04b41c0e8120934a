"""Sums that share almost everything keep their digits, blocks of rows change nothing, and every container is read."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.ches_definition import dot, exact, family
from rankdiag.preference import ches_from_padded, ches_from_states, ches_from_sums, dataset_pressure, influence_matrix
from rankdiag.preference._ches_columns import ches_columns, row_blocks

SMALL = 2.0**-20


def test_own_influence_of_nearly_equal_sums_keeps_its_digits():
    plus, minus = np.array([[1e8, 1.0], [1e8, 2.0]]), np.array([[1e8, 1.0 + SMALL], [1e8, 2.0 - SMALL]])
    result = dataset_pressure(plus, minus)
    assert result.own.tolist() == [SMALL, -2 * SMALL]
    assert result.own.tolist() == ches_from_sums(plus, minus, [3, 3], [3, 3]).ches.tolist()
    assert result.pressure.tolist() == [0.0, 0.0]


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 1000))
def test_pressure_is_that_of_fractions(count, width, seed):
    rng = np.random.default_rng(seed)
    plus, minus = (rng.integers(-8, 9, (count, width)) / 4 for _ in range(2))
    weights = rng.integers(0, 9, count) / 8
    result, matrix = dataset_pressure(plus, minus, weights=weights), influence_matrix(plus, minus)
    a, b, g = exact(plus), exact(minus), [Fraction(x) for x in weights]
    gaps = [[y - x for x, y in zip(s, r, strict=True)] for s, r in zip(a, b, strict=True)]
    for i in range(count):
        row = [dot(a[i], gap) for gap in gaps]
        assert matrix[i].tolist() == [float(x) for x in row]
        assert result.own[i] == float(row[i])
        mean = sum((w * x for w, x in zip(g, row, strict=True)), Fraction(0)) / count
        assert result.pressure[i] == pytest.approx(float(mean), abs=1e-13)


def test_many_blocks_of_rows_give_what_single_pairs_give():
    rng = np.random.default_rng(0)
    plus, gap = rng.standard_normal((2, 301, 700))
    n, m = rng.integers(1, 9, (2, 301)).astype(float)
    assert len(list(row_blocks(plus.shape))) > 3
    together = ches_columns(plus, gap, n, m)
    pressure = dataset_pressure(plus, plus + gap)
    np.testing.assert_allclose(pressure.own, together["ches"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pressure.pressure, influence_matrix(plus, plus + gap).mean(axis=1), atol=1e-9)
    for i in (0, 92, 93, 94, 187, 300):
        alone = ches_columns(plus[i : i + 1], gap[i : i + 1], n[i : i + 1], m[i : i + 1])
        for name, values in together.items():
            assert values[i] == pytest.approx(alone[name][0], rel=1e-12), name


def test_row_blocks_cover_every_row_once():
    for shape in ((1, 1), (7, 1 << 20), (1000, 1000), (5, 0)):
        rows = [i for block in row_blocks(shape) for i in range(shape[0])[block]]
        assert rows == list(range(shape[0]))


@pytest.mark.parametrize("lengths", [(3, 3), (1000, 1001), (7, 2)])
def test_mean_of_nearly_equal_sums_keeps_its_digits(lengths):
    n, m = lengths
    plus = np.array([[n * 1.0, n * 0.5]])
    gap = np.array([[m - n + SMALL, (m - n) / 2]])
    found = ches_columns(plus, gap, np.array([float(n)]), np.array([float(m)]))
    assert found["ln_ches"][0] == pytest.approx(SMALL / m, rel=1e-9)  # <(1, 1/2), (2^-20, 0)> / n-


def test_padded_batches_may_be_nested_lists():
    states, others = [[[1.0, 2.0], [3.0, -1.0]]], [[[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]]]
    assert ches_from_padded(states, [[True, True]], others, [[True, True, True]]).ches.tolist() == [3.0]
    assert ches_from_padded(tuple(states), [[True, False]], others, [[True, False, False]]).ches.tolist() == [0.0]


@pytest.mark.parametrize("order", ["C", "F", "reversed", "strided", "read-only", "torch"])
def test_memory_layout_changes_nothing(order):
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 9, (4, 3)).astype(float), rng.integers(-9, 9, (6, 3)).astype(float)
    views = []
    for x in (a, b):
        wide = np.zeros((2 * len(x), 3))
        wide[::2] = x
        fixed = x.copy()
        fixed.flags.writeable = False
        layouts = {
            "C": x.copy(),
            "F": np.asfortranarray(x),
            "reversed": x[::-1].copy()[::-1],
            "strided": wide[::2],
            "read-only": fixed,
            "torch": torch.tensor(x.T.copy(), requires_grad=True).T,
        }
        views.append(layouts[order])
    found = ches_from_states([views[0]], [views[1]])
    assert found.ches[0] == float(family(a, b)["ches"])
    np.testing.assert_array_equal(np.asarray(views[0].detach() if order == "torch" else views[0]), a)

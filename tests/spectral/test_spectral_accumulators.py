"""Streaming: any split into blocks, any order, any merge tree gives the spectrum of the whole matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle
from oracles.spectral_cases import matrices

KINDS = {"gram": sp.GramAccumulator, "qr_svd": sp.QRAccumulator}
both = pytest.mark.parametrize("method", list(KINDS))
SEEDS = st.integers(0, 2**32 - 1)


def tall(matrix):
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def split(rng, matrix, pieces):
    cuts = np.sort(rng.integers(0, matrix.shape[0] + 1, pieces - 1))
    return [block for block in np.split(matrix, cuts) if block.shape[0]]


def accumulate(method, blocks, shape, dtype="float64"):
    accumulator = KINDS[method](blocks[0].shape[1], shape=shape, input_dtype=dtype)
    for block in blocks:
        accumulator.update(block)
    return accumulator


def same(found, matrix, truth):
    assert oracle.error_ratio(found.values, found.error_bound, truth) <= 1
    assert found.frobenius == pytest.approx(float(oracle.tail(np.abs(matrix).ravel(), 0)), rel=1e-12)


@both
@given(matrices(max_side=8), SEEDS, st.integers(1, 6))
def test_any_split_equals_one_shot(method, matrix, seed, pieces):
    rng = np.random.default_rng(seed)
    matrix = tall(matrix)
    whole = sp.spectrum(matrix, method=method)
    found = accumulate(method, split(rng, matrix, pieces), matrix.shape).spectrum()
    assert found.method == method
    assert found.shape == matrix.shape
    assert found.input_dtype == "float64"
    # Adding blocks lengthens the sums of a Gram, and its bound may say so; it may not grow faster than they do.
    assert 0.5 * whole.error_bound <= found.error_bound <= math.sqrt(1 + pieces) * whole.error_bound + 5e-324
    same(found, matrix, oracle.singular_values(matrix))
    assert np.all(np.abs(found.values - whole.values) <= found.error_bound + whole.error_bound)
    assert found.stable_rank() == pytest.approx(whole.stable_rank(), rel=1e-10)


@both
@given(matrices(max_side=8), SEEDS, st.integers(2, 6))
def test_any_merge_tree_and_order_equals_one_shot(method, matrix, seed, pieces):
    rng = np.random.default_rng(seed)
    matrix = tall(matrix)
    blocks = split(rng, matrix, pieces)
    truth = oracle.singular_values(matrix)
    pool = [accumulate(method, [block], matrix.shape) for block in blocks]
    while len(pool) > 1:
        left = pool.pop(int(rng.integers(len(pool))))
        right = pool.pop(int(rng.integers(len(pool))))
        merged = left.merge(right)
        pool.append(left if merged is None else merged)
    same(pool[0].spectrum(), matrix, truth)
    shuffled = accumulate(method, [blocks[i] for i in rng.permutation(len(blocks))], matrix.shape)
    same(shuffled.spectrum(), matrix, truth)


@both
@given(SEEDS, st.permutations([-300, -150, 0, 150, 300]))
def test_blocks_of_any_scale(method, seed, exponents):
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((3, 4)) * 10.0**e for e in exponents]
    matrix = np.vstack(blocks)
    same(accumulate(method, blocks, matrix.shape).spectrum(), matrix, oracle.singular_values(matrix))
    pool = [accumulate(method, [block], matrix.shape) for block in blocks]
    first = pool[0]
    for other in pool[1:]:
        merged = first.merge(other)
        first = first if merged is None else merged
    same(first.spectrum(), matrix, oracle.singular_values(matrix))


@both
@pytest.mark.parametrize("level", [-300, -160, -90, 90, 160, 300])
@given(SEEDS, st.permutations([0, 1, 2, 3]))
def test_blocks_of_neighbouring_scales_far_from_one(method, level, seed, exponents):
    # Close enough that every block counts, far enough out that each is rescaled.
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal((3, 4)) * 10.0 ** (level + e) for e in exponents]
    matrix = np.vstack(blocks)
    truth = oracle.singular_values(matrix)
    same(accumulate(method, blocks, matrix.shape).spectrum(), matrix, truth)
    total = accumulate(method, blocks[:1], matrix.shape)
    for block in blocks[1:]:
        total.merge(accumulate(method, [block], matrix.shape))
    same(total.spectrum(), matrix, truth)


@pytest.mark.parametrize(("method", "rows"), [("gram", 8000), ("qr_svd", 800)])
def test_many_single_rows(method, rows):
    # Sums as long as the stream. This row was searched for: every addition of a binade rounds the same way, and the
    # smaller eigenvalue ends 848 eps s_1^2 too high.
    row = np.array([[0.9550468283403599, 0.9239501801315573]])
    accumulator = KINDS[method](2, shape=(rows, 2), input_dtype="float64")
    for _ in range(rows):
        accumulator.update(row)
    s = accumulator.spectrum()
    long = row.astype(oracle.LONG)
    truth = np.array([np.sqrt(rows * (long * long).sum()), oracle.LONG(0)])
    assert oracle.error_ratio(s.values, s.error_bound, truth) <= 1


@both
@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e300])
def test_extreme_scales_equal_one_shot(method, scale):
    matrix = np.random.default_rng(0).standard_normal((20, 4)) * scale
    found = accumulate(method, np.split(matrix, 5), matrix.shape).spectrum()
    truth = oracle.singular_values(matrix)
    same(found, matrix, truth)
    assert found.effective_rank() == pytest.approx(oracle.effective_rank(truth), rel=1e-9)


@both
def test_wide_matrices_are_fed_by_columns(method):
    matrix = np.random.default_rng(0).standard_normal((5, 300)).astype(np.float32)
    blocks = [matrix[:, i : i + 70].T.astype(np.float64) for i in range(0, 300, 70)]
    found = accumulate(method, blocks, matrix.shape, "float32").spectrum()
    assert found.shape == (5, 300)
    assert found.input_dtype == "float32"
    same(found, matrix.astype(float), oracle.singular_values(matrix))
    assert found.numerical_rank() == 5


@both
@given(SEEDS)
def test_rank_deficient_streams(method, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-3, 4, (30, 2)).astype(float) @ rng.integers(-3, 4, (2, 6)).astype(float)
    truth = oracle.singular_values(matrix)
    s = accumulate(method, split(rng, matrix, 4), matrix.shape).spectrum()
    same(s, matrix, truth)
    rank = int(np.sum(truth > 1e-12 * (truth[0] + 1e-300)))
    if method == "qr_svd":
        assert s.numerical_rank() == rank
    elif rank:
        assert s.numerical_rank(rtol=1e-4) == rank
        with pytest.raises(ValueError, match="gram"):
            s.numerical_rank()


@both
def test_zero_blocks_and_short_blocks(method):
    matrix = np.zeros((9, 3))
    assert accumulate(method, np.split(matrix, 9), (9, 3)).spectrum().values.tolist() == [0.0] * 3
    matrix[4, 1] = 2.0
    s = accumulate(method, np.split(matrix, 9), (9, 3)).spectrum()
    np.testing.assert_allclose(s.values, [2.0, 0, 0], atol=1e-15)
    assert s.stable_rank() == 1


@both
def test_the_spectrum_is_of_all_rows_or_refused(method):
    matrix = np.random.default_rng(1).standard_normal((12, 4))
    accumulator = KINDS[method](4, shape=(12, 4), input_dtype="float64")
    with pytest.raises(ValueError, match="shape"):
        accumulator.spectrum()
    accumulator.update(matrix[:8])
    with pytest.raises(ValueError, match=r"shape.*\b8\b"):  # a part must not pass for the whole
        accumulator.spectrum()
    accumulator.update(matrix[8:])
    for _ in range(2):
        same(accumulator.spectrum(), matrix, oracle.singular_values(matrix))
    twice = accumulate(method, [matrix, matrix], (12, 4))
    with pytest.raises(ValueError, match=r"shape.*\b24\b"):
        twice.spectrum()


@both
def test_blocks_are_neither_kept_nor_changed(method):
    matrix = np.random.default_rng(1).standard_normal((8, 4))
    block = matrix[:4].copy()
    before = block.copy()
    accumulator = KINDS[method](4, shape=(8, 4), input_dtype="float64")
    assert accumulator.update(block) is None
    np.testing.assert_array_equal(block, before)
    block[:] = 1e9
    accumulator.update(matrix[4:])
    same(accumulator.spectrum(), matrix, oracle.singular_values(matrix))


@both
def test_merge_leaves_the_other_alone(method):
    matrix = np.random.default_rng(2).standard_normal((8, 3))
    one = accumulate(method, [matrix[:5]], (8, 3))
    two = accumulate(method, [matrix[5:]], (8, 3))
    merged = one.merge(two)
    total = one if merged is None else merged
    same(total.spectrum(), matrix, oracle.singular_values(matrix))
    third = accumulate(method, [matrix[:5]], (8, 3))
    again = third.merge(two)
    same((third if again is None else again).spectrum(), matrix, oracle.singular_values(matrix))


@both
def test_blocks_may_be_anything_array_like(method):
    import torch

    matrix = np.random.default_rng(3).standard_normal((6, 3)).astype(np.float32)
    for blocks in (
        [matrix[::-1][:4], matrix[::-1][4:]],
        [torch.tensor(matrix[:4]), torch.tensor(matrix[4:])],
        [np.asfortranarray(matrix)],
    ):
        accumulator = KINDS[method](3, shape=(6, 3), input_dtype="float32")
        for block in blocks:
            accumulator.update(block)
        same(accumulator.spectrum(), matrix.astype(float), oracle.singular_values(matrix))


@both
@pytest.mark.parametrize(
    "bad",
    [np.ones(3), np.ones((2, 4)), np.ones((2, 2, 3)), [[1.0, math.nan, 2.0]], [[1.0, 2.0, math.inf]], "block", None],
)
def test_bad_blocks_are_refused_and_leave_no_trace(method, bad):
    matrix = np.random.default_rng(4).standard_normal((6, 3))
    accumulator = KINDS[method](3, shape=(6, 3), input_dtype="float64")
    accumulator.update(matrix[:3])
    with pytest.raises((ValueError, TypeError), match="block"):
        accumulator.update(bad)
    accumulator.update(matrix[3:])
    same(accumulator.spectrum(), matrix, oracle.singular_values(matrix))


@both
def test_bad_options_are_refused(method):
    kind = KINDS[method]
    for side, shape in ((0, (5, 3)), (-1, (5, 3)), (4, (5, 3)), (3, (5, 0)), (3, (5,))):
        with pytest.raises((ValueError, TypeError), match=r"side|shape"):
            kind(side, shape=shape, input_dtype="float64")
    with pytest.raises(TypeError):
        kind(3.0, shape=(5, 3), input_dtype="float64")
    with pytest.raises(TypeError, match="unexpected keyword"):
        kind(3, shape=(5, 3), input_dtype="float64", dtpye="x")
    one = kind(3, shape=(5, 3), input_dtype="float64")
    two = kind(4, shape=(5, 4), input_dtype="float64")
    one.update(np.ones((5, 3)))
    two.update(np.ones((5, 4)))
    with pytest.raises((ValueError, TypeError)):
        one.merge(two)
    with pytest.raises((ValueError, TypeError)):
        one.merge("other")


def test_memory_of_an_accumulator_does_not_grow():
    import tracemalloc

    rng = np.random.default_rng(0)
    for kind in KINDS.values():
        accumulator = kind(32, shape=(5000, 32), input_dtype="float64")
        block = rng.standard_normal((200, 32))
        accumulator.update(block)
        tracemalloc.start()
        for _ in range(24):
            accumulator.update(block)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 4 * 32 * 32 * 8
        assert peak < 4 * (block.nbytes + 32 * 32 * 8)
        values = accumulator.spectrum().values
        np.testing.assert_allclose(values, 5 * np.linalg.svd(block, compute_uv=False), rtol=1e-10)

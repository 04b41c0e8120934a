"""CHES scores against exact fractions, and every identity and bound that follows from the definition."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.ches_definition import family
from rankdiag import ches_score, result_from_dict
from rankdiag.preference import ches_from_padded, ches_from_states, ches_from_sums
from rankdiag.preference.losses import ches_loss, ln_ches_loss, relative_ches_loss

COLUMNS = ("ches", "ln_ches", "relative", "cross", "chosen_sq", "rejected_sq", "swapped")
NUMBERS = st.integers(-64, 64).map(lambda n: n / 8)


@st.composite
def pairs(draw, most=5):
    width = draw(st.integers(1, 3))
    rows = st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=most)
    return np.array(draw(rows)), np.array(draw(rows))


def close(found, expected, size):
    return abs(found - float(expected)) <= 1e-12 * max(1.0, float(size))


@given(pairs())
def test_every_column_is_that_of_the_definition(pair):
    found, expected = ches_from_states([pair[0]], [pair[1]]), family(*pair)
    size = expected["chosen_sq"] + expected["rejected_sq"]
    for name in COLUMNS:
        if expected[name] is None:
            assert np.isnan(found.relative[0])
        else:
            assert close(getattr(found, name)[0], expected[name], size), name
    assert ches_score(*pair) == found.ches[0]
    if expected["cond"] is None:
        assert not np.isfinite(found.cond[0])


@given(pairs())
def test_identities_and_bounds(pair):
    a, b = pair
    there, back = ches_from_states([a], [b]), ches_from_states([b], [a])
    gap = float(np.sum((a.sum(0) - b.sum(0)) ** 2))
    size = 1 + there.chosen_sq[0] + there.rejected_sq[0]
    np.testing.assert_allclose(there.ches + back.ches, -gap, atol=1e-11 * size)
    np.testing.assert_allclose(there.swapped, back.ches, atol=1e-11 * size)
    assert there.ches[0] <= there.rejected_sq[0] / 4 + 1e-11 * size
    if gap > 0:
        np.testing.assert_allclose(there.relative + back.relative, -1, atol=1e-9)
    if there.ches[0] > 1e-9 * size:
        assert there.rejected_sq[0] > there.chosen_sq[0]
    doubled = ches_from_states([np.repeat(a, 2, axis=0)], [b], n_shared=[0])
    np.testing.assert_allclose(doubled.ln_ches, there.ln_ches, atol=1e-10 * size)
    scaled = ches_from_states([3 * a], [3 * b])
    np.testing.assert_allclose(scaled.ches, 9 * there.ches, atol=1e-10 * size)
    np.testing.assert_allclose(there.weighted(1, 1), there.ches)
    per = there.weighted(1 / there.n_chosen, 1 / there.n_rejected) / there.n_chosen
    np.testing.assert_allclose(per, there.ln_ches, atol=1e-10 * size)


@given(pairs(), st.integers(0, 10))
def test_an_orthogonal_map_of_all_states_changes_nothing(pair, seed):
    a, b = pair
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((a.shape[1],) * 2))
    before, after = ches_from_states([a], [b], n_shared=[0]), ches_from_states([a @ q], [b @ q], n_shared=[0])
    np.testing.assert_allclose(after.ches, before.ches, atol=1e-10 * (1 + before.chosen_sq[0] + before.rejected_sq[0]))


@given(pairs(most=4))
def test_identical_responses_give_exactly_nothing(pair):
    result = ches_from_states([pair[0]], [pair[0]])
    assert (result.ches[0], result.ln_ches[0], result.swapped[0]) == (0, 0, 0)
    assert np.isnan(result.relative[0])
    assert result.regime == ["undefined"]


def test_nearly_identical_pairs_keep_their_digits():
    """The two sums share 2,000 large states and differ in one entry by 1e-9: their difference would have none left."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((2000, 4)) * 1e3
    a, b = np.vstack([shared, [[1.0, 0, 0, 0]]]), np.vstack([shared, [[1.0 + 1e-9, 0, 0, 0]]])
    found = ches_from_states([a], [b], n_shared=[2000]).ches[0]
    np.testing.assert_allclose(found, float(family(a, b)["ches"]), rtol=1e-6)


def test_worked_examples():
    one = ches_from_states([[[1, 2], [3, -1]]], [[[1, 2], [0, 4], [2, 2]]])
    assert (one.ches[0], one.swapped[0], one.relative[0]) == (3, -53, 0.06)
    assert one.ln_ches[0] == pytest.approx(-0.916667, abs=1e-6)
    three = ches_from_sums([[1, 0], [1, 0], [5, 0]], [[0, 1], [3, 0], [2, 0]], [1, 1, 1], [1, 1, 1])
    assert three.ches.tolist() == [-1, 2, -15]
    assert three.regime == ["ideal", "both_fall", "both_rise"]
    np.testing.assert_allclose(three.relative, [-0.5, 0.5, -5 / 3])
    states = torch.tensor([[1.0, 0.5]], dtype=torch.bfloat16)
    many = ches_from_states([states.expand(1000, 2)], [states.expand(1001, 2)])
    assert (many.ches[0], many.ln_ches[0]) == (1250, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_states_are_summed_in_full(dtype):
    rng = torch.Generator().manual_seed(0)
    a = (torch.randn(300, 5, generator=rng) * 50).to(dtype).requires_grad_()
    b = (torch.randn(400, 5, generator=rng) * 50).to(dtype)
    found = ches_from_states([a], [b])
    expected = family(a.detach().double().tolist(), b.double().tolist())
    np.testing.assert_allclose(found.ches[0], float(expected["ches"]), rtol=1e-11)


@given(st.lists(pairs(), min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 3))
def test_padding_of_any_kind_is_never_read(rows, left, right, extra):
    rows = [(a[:, :1], b[:, :1]) for a, b in rows]
    plain = ches_from_states([a for a, _ in rows], [b for _, b in rows])

    def padded(side, front):
        width = max(len(row[side]) for row in rows) + extra
        states, mask = np.full((len(rows), width, 1), np.nan), np.zeros((len(rows), width), dtype=bool)
        for place, row in enumerate(rows):
            n = len(row[side])
            at = slice(width - n, width) if front else slice(0, n)
            states[place, at], mask[place, at] = row[side], True
        return states, mask

    (a, m), (b, k) = padded(0, left), padded(1, right)
    for kind in (np.asarray, torch.tensor):
        found = ches_from_padded(kind(a), kind(m), kind(b), kind(k))
        np.testing.assert_array_equal(found.ches, plain.ches)
    found = ches_loss(torch.tensor(a), torch.tensor(m), torch.tensor(b), torch.tensor(k))
    size = 1 + plain.chosen_sq + plain.rejected_sq
    assert (np.abs(found.numpy() - plain.ches) <= 1e-12 * size).all()


def test_losses_equal_the_scores_and_have_gradients():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, n, 4, generator=rng, dtype=torch.float64).requires_grad_() for n in (5, 6))
    m, k = torch.ones(3, 5, dtype=torch.bool), torch.ones(3, 6, dtype=torch.bool)
    m[0, 3:] = False
    k[1, :2] = False
    plain = ches_from_padded(a, m, b, k)
    for loss, name in ((ches_loss, "ches"), (ln_ches_loss, "ln_ches"), (relative_ches_loss, "relative")):
        np.testing.assert_allclose(loss(a, m, b, k).detach(), getattr(plain, name), rtol=1e-10)
        assert torch.autograd.gradcheck(lambda x, y, f=loss: f(x, m, y, k), (a, b))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ches_from_states([], []), ValueError, "at least one pair"),
        (lambda: ches_from_states([[[1.0]]], []), ValueError, "as many entries as `chosen`"),
        (lambda: ches_from_states([[[1.0]]], [[[1.0, 2.0]]]), ValueError, "must have width 1"),
        (lambda: ches_from_states([[[1.0]]], [[[1.0]]], n_shared=[2]), ValueError, r"n_shared\[0\]"),
        (lambda: ches_from_sums([[1.0]], [[1.0]], [0], [1]), ValueError, "pair 0: `n_chosen` must be a whole number"),
        (
            lambda: ches_from_states([[[1.0]]] * 18, [[[1.0]]] * 17 + [np.empty((0, 1))]),
            ValueError,
            "pair 17: rejected",
        ),
        (lambda: ches_from_states([[[1.0]]] * 4, [[[1.0]]] * 3 + [[[np.nan]]]), ValueError, "pair 3: hidden states"),
        (
            lambda: ches_from_padded(np.ones((1, 2, 1)), [[True]], np.ones((1, 2, 1)), [[True, True]]),
            ValueError,
            "`chosen_mask` must have the shape",
        ),
        (
            lambda: ches_from_padded(np.ones((1, 2, 1)), [[1, 1]], np.ones((1, 2, 1)), [[True, True]]),
            TypeError,
            "`chosen_mask` must be boolean",
        ),
        (
            lambda: ches_loss(
                torch.ones(1, 1, 1),
                torch.zeros(1, 1, dtype=torch.bool),
                torch.ones(1, 1, 1),
                torch.ones(1, 1, dtype=torch.bool),
            ),
            ValueError,
            "`chosen_mask` must be True somewhere",
        ),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_results_travel():
    result = ches_from_sums([[1.0, 0.0], [2.0, 2.0]], [[3.0, 0.0], [2.0, 2.0]], [1, 2], [1, 2])
    assert result_from_dict(result.to_dict()) == result == pickle.loads(pickle.dumps(result))
    assert list(result.to_pandas().columns)[-1] == "regime"
    assert "undefined" in result.summary()

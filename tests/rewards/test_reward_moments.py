"""Moments of rewards against fractions, under what must not change them, at the ends of float64, and merged."""

from __future__ import annotations

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oracles.rewards_tables import c4, known, mean, pair_variance, squares, variance
from rankdiag import result_from_json, reward_std, reward_variance
from rankdiag.rewards import MomentState, RewardTable, c4_factor, exact_reward_moments, reward_moments
from rankdiag.rewards import _moments as module

NAN = float("nan")
FIELDS = ("count", "mean", "var", "std", "min", "max", "n_distinct")


@st.composite
def tables(draw):
    """Rewards of few or many levels, of any size and offset, some of them missing, some rows equal."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 9)))
    table = draw(
        st.sampled_from([rng.normal(size=shape), rng.integers(0, 2, shape), 0.1 * rng.integers(0, 4, shape)])
    ).astype(np.float64)
    table = table * draw(st.sampled_from([1.0, 1e-30, 1e30])) + draw(st.sampled_from([0.0, 0.0, 5.0, -1e8]))
    table[rng.random(shape[0]) < 0.2] = table[0, 0]
    table[rng.random(shape) < draw(st.sampled_from([0.0, 0.3]))] = NAN
    return table


def close(found, exact, *, size, power=1):
    """Within rounding of numbers of this size."""
    assert abs(Fraction(float(found)) - exact) <= Fraction(1e-14) * max(abs(exact), Fraction(size) ** power)


@pytest.mark.parametrize("block", [1 << 16, 3])
@given(table=tables(), ddof=st.sampled_from([0, 1, 1, 2]))
def test_moments_equal_fractions(block, table, ddof):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = reward_moments(table, ddof=ddof)
    for index, row in enumerate(map(known, table)):
        assert (found.count[index], found.n_distinct[index]) == (len(row), len(set(row)))
        if not row:
            assert all(np.isnan(getattr(found, name)[index]) for name in ("mean", "var", "std", "min", "max"))
            continue
        assert (found.min[index], found.max[index]) == (min(row), max(row))
        span = max(row) - min(row)
        close(found.mean[index], mean(row), size=max(map(abs, row)))
        assert found.min[index] <= found.mean[index] <= found.max[index]
        exact = variance(row, ddof)
        if exact is None:
            assert np.isnan(found.var[index])
            assert np.isnan(found.std[index])
            continue
        # Differences are taken before anything is summed: the offset of a row costs nothing but its own rounding.
        close(found.var[index], exact, size=span, power=2)
        assert (found.var[index] == 0) == (found.std[index] == 0) == (span == 0)
        assert found.std[index] == pytest.approx(math.sqrt(found.var[index]), rel=1e-15)
        if ddof == 1:
            assert exact == pair_variance(row)  # the identity: a mean over pairs
            bound = Fraction(span, 2) ** 2 * Fraction(len(row), len(row) - 1)  # Popoviciu
            assert found.var[index] <= float(bound) * (1 + 1e-14)


@given(table=tables(), seed=st.integers(0, 99), factor=st.sampled_from([-4.0, 0.5, 8.0]))
def test_what_changes_moments_and_what_does_not(table, seed, factor):
    base = reward_moments(table)
    order = np.random.default_rng(seed).permutation(table.shape[1])
    mixed, scaled = reward_moments(table[:, order]), reward_moments(table * factor)
    for name in ("count", "min", "max", "n_distinct"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(base, name))
    np.testing.assert_allclose(mixed.var, base.var, rtol=1e-13)
    np.testing.assert_allclose(scaled.var, factor**2 * base.var, rtol=1e-13)
    atol = 1e-13 * np.nanmax(np.abs(table * factor), initial=0)
    np.testing.assert_allclose(scaled.std, abs(factor) * base.std, rtol=1e-13)
    np.testing.assert_allclose(scaled.mean, factor * base.mean, rtol=1e-13, atol=atol)
    level = np.round(np.where(np.isnan(table), NAN, np.sign(table)))  # whole numbers, so that a shift rounds nothing
    shifted = reward_moments(level + 1000.0)
    np.testing.assert_array_equal(shifted.var, reward_moments(level).var)
    # A missing reward is one that is not there.
    wide = np.concatenate([np.full((len(table), 2), NAN), table], axis=1)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(reward_moments(wide), name), getattr(base, name), rtol=1e-14, atol=0)
    one = table[0][~np.isnan(table[0])]
    assume(one.size)
    np.testing.assert_allclose([getattr(reward_moments(one), n) for n in FIELDS], [getattr(base, n)[0] for n in FIELDS])


def test_worked_values():
    found = reward_moments([[0, 1, 1, 0], [1, 1, 1, 1]])
    assert found.mean.tolist() == [0.5, 1.0]
    assert found.var.tolist() == [1 / 3, 0.0]
    assert found.meta.ddof == 1
    assert found.explanation.startswith("1 of 2 prompts have equal rewards")
    assert reward_moments([[0, 1, 1, 0]], ddof=0).var.tolist() == [0.25]
    assert reward_moments(RewardTable.from_array([[0.0, None], [1.0, 3.0]])).var.tolist()[1] == 2.0
    assert reward_variance([1, 2, 3]) == 1.0
    assert reward_std([1, 2, 3]) == 1.0
    assert isinstance(reward_std([1.0, 2.0]), float)
    assert reward_variance([[1, 2, 3]]).shape == (1,)
    assert reward_std(np.zeros((2, 3, 4))).shape == (2, 3)
    assert np.isnan(reward_variance([7.0]))
    assert np.isnan(reward_std([NAN, NAN]))


def test_any_kind_of_array(xp):
    values = [[0.1, 0.7, 0.30001], [-3.0, 1e3, 7.0]]
    found, expected = reward_moments(xp.asarray(values)), reward_moments(xp.rounded(values))
    assert found == expected
    assert reward_variance(xp.asarray([0.1, 0.1, 0.1])) == 0.0


@pytest.mark.parametrize("value", [0.1, 1e308, -1e308, 5e-324, -0.0, 1 / 3])
def test_equal_rewards_have_exactly_no_spread(value):
    found = reward_moments([[value] * 7, [value] * 7])
    assert (found.var == 0).all()
    assert (found.std == 0).all()
    assert (found.mean == value).all()
    assert (found.n_distinct == 1).all()


@pytest.mark.parametrize("tiny", [5e-324, 1e-310, 1e-300, 1e-200, 1e-160])
def test_a_spread_below_the_squares_of_float64_is_not_swallowed(tiny):
    found = reward_moments([[0.0, tiny, 0.0, tiny], [tiny] * 4, [0.0, tiny, NAN, NAN]])
    assert found.std[1] == 0
    assert found.std[0] == pytest.approx(tiny / math.sqrt(3), rel=1e-12, abs=5e-324)
    assert found.std[2] == pytest.approx(tiny / math.sqrt(2), rel=1e-12, abs=5e-324)
    assert found.std[0] > 0
    assert found.explanation.startswith("1 of 3 prompts")
    assert found.document().key_numbers[2].value == 1


def test_large_rewards_whose_differences_fit():
    found = reward_moments([[1e307, 1e307, 1e307 * (1 + 1e-300)], [1e150, -1e150, 1e150]])
    assert found.var[0] == 0
    assert found.var[1] == pytest.approx(4e300 / 3)
    neighbours = np.array([1e15, 1e15 + 1, 1e15 + 2])
    assert reward_variance(neighbours) == 1.0


@pytest.mark.parametrize(
    ("error", "words", "values", "options"),
    [
        (ValueError, r"`values` must be finite.*at row 1, column 0", [[0.0, 1.0], [np.inf, 1.0]], {}),
        (ValueError, "`values`", 3.0, {}),
        (ValueError, "`values`", [], {}),
        (ValueError, "`values`", [[], []], {}),
        (TypeError, "`values`", ["a"], {}),
        (ValueError, "`values` must have differences whose squares.*row 1.*scale", [[0, 1], [0, 1e200]], {}),
        (ValueError, "`values` must have differences whose squares", [[-1e308, 1e308]], {}),
        (ValueError, "`values` must have differences whose squares", [[-1e308, 1e308, 1.0]], {"ddof": 2}),
        (ValueError, "`ddof`", [[0, 1]], {"ddof": -1}),
        (TypeError, "`ddof`", [[0, 1]], {"ddof": 0.5}),
        (TypeError, "unexpected keyword", [[0, 1]], {"dof": 1}),
    ],
)
def test_refused(error, words, values, options):
    with pytest.raises(error, match=words):
        reward_moments(values, **options)


@pytest.mark.parametrize(
    "result",
    [
        reward_moments([[0, 1, NAN], [NAN, NAN, NAN], [1e150, -1e150, 5e-324]]),
        reward_moments([0.5, 0.25]),
        exact_reward_moments([[0.2, 0.8]], [1.0, -1.0]),
        exact_reward_moments([0.2, 0.8], [1.0, -1.0]),
    ],
)
def test_results_survive_every_trip_and_show_themselves(result):
    for back in (result_from_json(result.to_json()), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert back == result
        for name in type(result).__annotations__:
            mine, theirs = getattr(back, name), getattr(result, name)
            if isinstance(theirs, np.ndarray):
                assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
                assert not theirs.flags.writeable
    assert result.document().grids[0].rows
    assert "Rewards" in result.summary()
    assert "<table" in result._repr_html_()


# --- exact policies -----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-100, 100)), min_size=1, max_size=6))
def test_exact_moments_equal_fractions(pairs):
    weights, rewards = zip(*pairs, strict=True)
    assume(sum(weights))
    probs = [weight / sum(weights) for weight in weights]
    found = exact_reward_moments(probs, rewards)
    p, r = list(map(Fraction, probs)), list(map(Fraction, rewards))
    value = sum(a * b for a, b in zip(p, r, strict=True)) / sum(p)
    double = sum(a * b * (x - y) ** 2 for a, x in zip(p, r, strict=True) for b, y in zip(p, r, strict=True)) / 2
    assert float(found.mean) == pytest.approx(float(value), rel=1e-12, abs=1e-12)
    assert float(found.exact_var) == pytest.approx(float(double), rel=1e-9, abs=1e-11)
    assert float(found.exact_std) == pytest.approx(math.sqrt(float(found.exact_var)))
    assert found.exact_var <= ((max(rewards) - min(rewards)) / 2) ** 2 * (1 + 1e-12)
    moved = exact_reward_moments(probs, -2.0 * np.array(rewards))
    assert float(moved.exact_var) == pytest.approx(4 * float(found.exact_var), rel=1e-12, abs=1e-13)


def test_exact_moments_of_several_policies():
    found = exact_reward_moments([[1.0, 0.0], [0.5, 0.5]], [0.0, 1.0])
    assert found.mean.tolist() == [0.0, 0.5]
    assert found.exact_var.tolist() == [0.0, 0.25]
    assert exact_reward_moments([0.3, 0.7], [[1.0, 1.0], [0.1, 0.1]]).exact_var.tolist() == [0.0, 0.0]
    assert exact_reward_moments([0.3, 0.7], [1e308, 1e308]).mean == 1e308


@pytest.mark.parametrize(
    ("words", "probs", "rewards"),
    [
        ("`probs`", [0.5, 0.4], [0, 1]),
        ("`probs`", [1.5, -0.5], [0, 1]),
        ("`probs`", [NAN, 1.0], [0, 1]),
        ("`rewards`", [0.5, 0.5], [0, NAN]),
        ("`rewards` must have 2 outputs", [0.5, 0.5], [0, 1, 2]),
        ("`rewards` must fit", [[0.5, 0.5]] * 2, [[0, 1]] * 3),
        ("`rewards` must have 2 outputs", [[0.5, 0.5]], [[1.0]]),
        ("`rewards` must have 1 outputs", [[1.0], [1.0]], [[1.0, 2.0], [1.0, 2.0]]),
        ("`rewards` must have differences whose squares", [0.5, 0.5], [1e200, 0]),
        ("`rewards` must have differences whose squares", [0.5, 0.5], [1e308, -1e308]),
    ],
)
def test_exact_moments_refused(words, probs, rewards):
    with pytest.raises(ValueError, match=words):
        exact_reward_moments(probs, rewards)


# --- c4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "printed"), [(2, 0.797885), (4, 0.921318), (8, 0.965030), (10, 0.972659), (16, 0.983484)]
)
def test_c4_as_printed(k, printed):
    assert c4_factor(k) == pytest.approx(printed, abs=5e-7)


@pytest.mark.parametrize("k", [2, 3, 5, 64, 171, 172, 299, 300, 301, 302, 1000, 20001])
def test_c4_equals_exact_ratios(k):
    assert c4_factor(k) == pytest.approx(c4(k), rel=1e-13)
    assert c4_factor(k) < c4_factor(k + 1) < 1


def test_c4_of_a_million_and_refusals():
    assert 1 - c4_factor(10**6) == pytest.approx(0.25e-6, rel=1e-5)
    for bad, error in ((1, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="`k`"):
            c4_factor(bad)


# --- streams ------------------------------------------------------------------------------------------------


def exactly(state, values):
    """The contract: count and ends exact, the mean to 1e-12 of the largest, m2 to 1e-12 of the sum of squares."""
    row = [Fraction(float(value)) for value in values]
    assert (state.count, state.min, state.max) == (len(row), min(row), max(row))
    assert abs(Fraction(state.mean) - mean(row)) <= Fraction(1e-12) * max(map(abs, row))
    assert abs(Fraction(state.m2) - squares(row)) <= Fraction(1e-12) * sum(value**2 for value in row)


def test_a_thousand_random_trees_of_merges():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        size = int(rng.integers(1, 40))
        scale, offset = 10.0 ** rng.integers(-20, 20), rng.choice([0.0, 1.0, 1e6])
        values = scale * (offset + rng.choice([rng.normal(size=size), rng.integers(0, 2, size) * 1.0]))
        cuts = np.sort(rng.integers(0, size + 1, int(rng.integers(0, 12))))
        parts = [MomentState.from_values(part) for part in np.split(values, cuts)]
        while len(parts) > 1:
            a, b = (parts.pop(int(rng.integers(len(parts)))) for _ in range(2))
            parts.append(a.merge(b))
        exactly(parts[0], values)
        if len(set(values)) == 1:
            assert parts[0].var(0) == 0
            assert parts[0].mean == values[0]


@given(tables())
@settings(max_examples=30)
def test_streaming_equals_all_at_once(table):
    state = MomentState()
    for column in table.T:
        state = state.update(column)
    values = known(table.ravel())
    if not values:
        assert state == MomentState() == MomentState.from_values(table)
        return
    exactly(state, values)
    whole = reward_moments(table.ravel())
    for ddof in (0, 1):
        if len(values) > ddof:
            size = float(max(map(abs, values))) ** 2
            assert state.var(ddof) == pytest.approx(float(variance(values, ddof)), rel=1e-12, abs=1e-12 * size)
            assert state.std(ddof) == math.sqrt(state.var(ddof))
            assert (state.min == state.max) == (float(whole.min) == float(whole.max))
        else:
            assert np.isnan(state.var(ddof))
            assert np.isnan(state.std(ddof))


def test_the_neutral_state_and_symmetry():
    a, b = MomentState.from_values([1.0, 2.0, 7.0]), MomentState.from_values([[3.0], [NAN]])
    assert MomentState().merge(a) == a == a.merge(MomentState())
    ab, ba = a.merge(b), b.merge(a)
    assert (ab.count, ab.min, ab.max) == (ba.count, ba.min, ba.max) == (4, 1.0, 7.0)
    assert ab.mean == pytest.approx(ba.mean, rel=1e-15)
    assert ab.m2 == pytest.approx(ba.m2, rel=1e-15)
    assert MomentState.from_values([]) == MomentState.from_values(NAN) == MomentState()
    assert MomentState.from_values(3.0) == MomentState(1, 3.0, 0.0, 3.0, 3.0)
    equal = MomentState.from_values([0.1] * 3).merge(MomentState.from_values([0.1] * 4))
    assert (equal.m2, equal.mean) == (0.0, 0.1)
    for back in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        assert back == a
    with pytest.raises(AttributeError):
        a.count = 3


def test_states_from_any_kind_of_array(xp):
    assert MomentState.from_values(xp.asarray([0.1, 3.0])) == MomentState.from_values(xp.rounded([0.1, 3.0]))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, r"`values` must be finite", lambda: MomentState.from_values([1.0, np.inf])),
        (TypeError, "`values`", lambda: MomentState.from_values(["a"])),
        (ValueError, "`values` must have differences whose squares", lambda: MomentState.from_values([0.0, 1e200])),
        (ValueError, "`values` must have differences", lambda: MomentState.from_values([-1e308, 1e308])),
        (ValueError, "`other` must have differences", lambda: MomentState.from_values(1e308).update(-1e308)),
        (ValueError, "`other` must have differences", lambda: MomentState.from_values(1e200).update(0.0)),
        (TypeError, "`other` must be a MomentState", lambda: MomentState().merge(3)),
        (ValueError, "`count`", lambda: MomentState(-1)),
        (ValueError, "`count` must be above 0", lambda: MomentState(0, 1.0)),
        (ValueError, "`m2`", lambda: MomentState(2, 1.0, -1.0, 0.0, 2.0)),
        (ValueError, "`min`", lambda: MomentState(1, 1.0)),
        (ValueError, "`min` must be at most `max`", lambda: MomentState(2, 1.0, 0.0, 2.0, 1.0)),
        (ValueError, "`ddof`", lambda: MomentState().var(-1)),
        (TypeError, "`ddof`", lambda: MomentState().std(None)),
    ],
)
def test_states_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()

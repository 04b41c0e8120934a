"""Least times to improve against flows that were run, worked values, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rankdiag import result_from_dict, result_from_json
from rankdiag.rewards import (
    LogLinearPolicy,
    TabularPolicy,
    ranking_accuracy,
    simulate_policy_gradient,
    teacher_times,
    time_lower_bounds,
)


def bounds(gamma=0.5, mean_var=0.01, **options):
    return time_lower_bounds(gamma, mean_var, **{"length": 1, "jacobian": 1.0, **options})


def test_worked_values():
    found = bounds(tabular=True)
    assert float(found.general) == pytest.approx(0.031354, abs=1e-6)
    assert float(found.tabular) == pytest.approx(4.423984, abs=1e-6)
    assert float(found.sharper) == pytest.approx(4.211691, abs=1e-6)
    assert math.isnan(bounds().tabular)


def test_formulas():
    found = bounds(0.3, 0.2, length=5, jacobian=1.7, kl=0.9, n_prompts=7, tabular=True)
    reach = min(1 - math.exp(-0.3 / 9), 1 - math.exp(-7 / 2.7))
    assert float(found.general) == pytest.approx(reach / (8 * 25 * 1.7**2) * 0.2 ** (-1 / 3), rel=1e-13)
    assert float(found.tabular) == pytest.approx(14 * (1 - math.exp(-0.15)) / math.sqrt(0.2), rel=1e-13)
    top = math.sqrt(2) * (1 - math.exp(-0.3 * math.sqrt(2.5)))
    assert float(found.sharper) == pytest.approx(top / (5**1.5 * 1.7**2) / math.sqrt(0.2), rel=1e-13)


def test_a_large_penalty_enters_the_general_bound_only():
    free, tied = bounds(1.0, kl=0.0, tabular=True), bounds(1.0, kl=1e3, tabular=True)
    reach = -math.expm1(-7 / 3e3)
    assert float(tied.general) == pytest.approx(float(free.general) * reach / -math.expm1(-1 / 9), rel=1e-12)
    assert float(tied.tabular) == float(free.tabular)
    assert float(tied.sharper) == float(free.sharper)
    # 1 - exp(-x) of a tiny x is x: no digit is lost
    assert float(bounds(1.0, kl=1e17).general) == pytest.approx(7 / 3e17 / 8 / 0.01 ** (1 / 3), rel=1e-12)
    assert float(bounds(1.0, kl=5e-324).general) == float(free.general)


@given(
    st.floats(1e-6, 2), st.floats(1e-12, 1), st.integers(1, 1000), st.floats(1e-3, 1e3), st.floats(0, 100)
)  # fmt: skip
@settings(max_examples=100)
def test_the_sharper_bound_is_always_above_the_general_one(gamma, var, length, jacobian, kl):
    found = bounds(gamma, var, length=length, jacobian=jacobian, kl=kl)
    assert 0 < float(found.general) < float(found.sharper)
    less = bounds(gamma, var / 4, length=length, jacobian=jacobian, kl=kl)
    assert float(less.sharper) == pytest.approx(2 * float(found.sharper), rel=1e-12)
    assert float(less.general) == pytest.approx(4 ** (1 / 3) * float(found.general), rel=1e-12)


def test_shapes_and_no_variance():
    found = bounds(mean_var=[[0.0, 0.25], [1.0, 0.5]], tabular=True)
    for array in (found.general, found.tabular, found.sharper):
        assert array.shape == (2, 2)
        assert array[0, 0] == math.inf
        assert np.isfinite(array.ravel()[1:]).all()
        assert not array.flags.writeable


@pytest.mark.parametrize("jacobian", [5e-324, 1e-200, 1e200, 1e308])
@pytest.mark.parametrize("kl", [0.0, 1e308])
def test_extremes_stay_numbers(jacobian, kl):
    found = bounds(mean_var=[0.0, 5e-324, 1.0], jacobian=jacobian, kl=kl, length=2**60, n_prompts=2**60, tabular=True)
    for array in (found.general, found.tabular, found.sharper):
        assert array[0] == math.inf
        assert not np.isnan(array).any()
        assert (array >= 0).all()


def test_a_jacobian_whose_square_leaves_float64_still_counts():
    # J^2 Var^(1/2) = 1e-320 * 1e-1: only the quotient matters
    assert float(bounds(2.0, 1e-20, jacobian=1e155).sharper) == pytest.approx(
        math.sqrt(2) * -math.expm1(-math.sqrt(2)) * 1e10 * 1e-310, rel=1e-6
    )


@st.composite
def starts(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(2, 6))
    scale = draw(st.sampled_from([0.05, 0.5, 1.0]))
    train = rng.uniform(-1, 1, count)
    return rng.standard_normal(count), scale * train, (train + rng.uniform(-1, 1, count)) / 2


@given(starts(), st.sampled_from([0.05, 0.3]), st.sampled_from([0.0, 0.02]))
@settings(max_examples=10)
def test_no_flow_of_a_table_is_faster(drawn, gamma, kl):
    z, train, watched = drawn
    policy = TabularPolicy(z)
    level = policy.value(watched) + gamma
    run = simulate_policy_gradient(
        policy.probs, train, {"watched": watched}, horizon=300.0, kl=kl, stop=("watched", level), record=[0.0]
    )
    found = bounds(gamma, policy.exact_var(train), kl=kl, tabular=True)
    assume(run.hitting_time < math.inf)  # what never arrives is no evidence
    assert run.hitting_time >= float(found.tabular) > 0
    assert run.hitting_time >= float(found.sharper) > float(found.general)


@given(starts(), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_no_flow_of_features_is_faster(drawn, size, seed):
    _, train, watched = drawn
    features = np.random.default_rng(seed).standard_normal((len(train), size))
    policy = LogLinearPolicy(features, np.zeros(size))
    level = policy.value(watched) + 0.1
    run = simulate_policy_gradient(
        policy.probs, train, {"watched": watched}, features=features, horizon=100.0, stop=("watched", level), record=[0]
    )
    jacobian = np.linalg.norm(features, 2)
    found = bounds(0.1, policy.exact_var(train), jacobian=jacobian)
    assume(run.hitting_time < math.inf)
    assert run.hitting_time >= float(found.sharper) > float(found.general)


def test_scaled_rewards_take_times_scaled_the_other_way():
    policy, reward = TabularPolicy([0.3, -1.0, 0.5]), np.array([1.0, -0.4, 0.2])
    stop = ("gold", policy.value(reward) + 0.2)
    times = [
        simulate_policy_gradient(policy.probs, c * reward, {"gold": reward}, horizon=1e4, stop=stop).hitting_time
        for c in (1.0, 0.125)
    ]
    assert times[1] == pytest.approx(8 * times[0], rel=1e-6)
    lower = [float(bounds(0.2, policy.exact_var(c * reward), tabular=True).tabular) for c in (1.0, 0.125)]
    assert lower[1] == pytest.approx(8 * lower[0], rel=1e-12)  # the bound has the right power of the spread


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"gamma": -1.0}, ValueError, "gamma"),
        ({"gamma": np.nan}, ValueError, "gamma"),
        ({"gamma": "a"}, TypeError, "gamma"),
        ({"mean_var": -0.1}, ValueError, "mean_var"),
        ({"mean_var": [0.1, 1.1]}, ValueError, "mean_var"),
        ({"mean_var": np.inf}, ValueError, "mean_var"),
        ({"mean_var": []}, ValueError, "mean_var"),
        ({"mean_var": None}, TypeError, "mean_var"),
        ({"length": 0}, ValueError, "length"),
        ({"length": 2.0}, TypeError, "length"),
        ({"jacobian": 0.0}, ValueError, "jacobian"),
        ({"kl": -1e-9}, ValueError, "kl"),
        ({"n_prompts": 0}, ValueError, "n_prompts"),
        ({"tabular": 1}, TypeError, "tabular"),
    ],
)
def test_time_bounds_refuse_by_name(options, kind, name):
    with pytest.raises(kind, match=f"`{name}`"):
        bounds(**options)
    with pytest.raises(TypeError, match="jacobean"):
        time_lower_bounds(0.5, 0.1, length=1, jacobean=1.0)


def published_instance(seed=0, scale=1.0):
    """The accurate and the inaccurate reward of the reproduction: 50 outputs."""
    rng = np.random.default_rng(seed)
    policy = TabularPolicy(rng.standard_normal(50))
    gold = np.sort(rng.uniform(-1, 1, 50))[::-1][rng.permutation(50)]
    rank = gold.argsort().argsort()
    inaccurate = (50 - rank) / 51 * policy.probs[gold.argmax()]
    inaccurate[gold.argmax()] = 1.0
    return policy, gold, (rank + 1) / (51 * scale), inaccurate


def test_teachers_worked_values():
    found = teacher_times([0.25, 0.25, 0.5], [1.0, 0.0, -1.0], 0.5, scale=10.0, n_prompts=2)
    assert found.target == 0
    assert found.rho == pytest.approx(1.25 / 2)
    assert found.accurate_lower == pytest.approx(4 * (1 - math.exp(-0.25)) * 10)
    assert found.inaccurate_upper == pytest.approx(8 * (3 / 8) ** -4 * (4 - 1 / 0.625))
    other = teacher_times([0.25, 0.25, 0.5], [1.0, 0.9, -1.0], 0.5, target=1)
    assert other.target == 1
    assert other.rho == pytest.approx((-0.025 + 1.5) / 1.9)
    assert teacher_times([0.5, 0.25, 0.25], [-1.0, 1.0, 1.0], 0.2).target == 1  # the first of equal ones


def test_flows_of_the_published_teachers_respect_both_times():
    stated = {1.0: 70.1, 10.0: 701.0}
    for scale, time in stated.items():
        policy, gold, accurate, inaccurate = published_instance(scale=scale)
        stop = ("gold", policy.value(gold) + 0.3)
        found = teacher_times(policy.probs, gold, 0.3, scale=scale)
        assert found.accurate_lower == pytest.approx(2 * (1 - math.exp(-0.15)) * scale)
        slow, fast = (
            simulate_policy_gradient(policy.probs, r, {"gold": gold}, horizon=1e5, stop=stop, record=[0.0]).hitting_time
            for r in (accurate, inaccurate)
        )
        assert slow == pytest.approx(time, rel=1e-3)
        assert fast == pytest.approx(159.3, rel=1e-3)
        assert slow >= found.accurate_lower
        assert fast <= found.inaccurate_upper == pytest.approx(1.1e5, rel=0.05)
        assert ranking_accuracy(accurate[None], gold[None]).accuracy == 1.0
        assert ranking_accuracy(inaccurate[None], gold[None]).accuracy == pytest.approx(0.04)


@given(starts(), st.floats(0.01, 0.99))
@settings(max_examples=40)
def test_the_target_needs_more_than_it_has(drawn, part):
    z, _, gold = drawn
    policy = TabularPolicy(z)
    gamma = part * (gold.max() - policy.value(gold))
    found = teacher_times(policy.probs, gold, gamma)
    assert policy.probs[found.target] < found.rho < 1
    assert found.inaccurate_upper > 0
    assert found.accurate_lower > 0


def test_a_target_just_within_reach_takes_nearly_for_ever():
    gamma = math.nextafter(1.0, 0)
    found = teacher_times([0.5, 0.5], [1.0, -1.0], gamma)
    assert found.rho == pytest.approx(1.0)
    assert 1e60 < found.inaccurate_upper <= math.inf
    assert teacher_times([5e-324, 1.0], [1.0, -1.0], 0.5).inaccurate_upper == math.inf
    assert teacher_times([0.5, 0.5], [1.0, -1.0], 0.5, scale=1e308, n_prompts=2**60).accurate_lower == math.inf
    assert teacher_times([0.5, 0.5], [1.0, -1.0], 0.5, scale=5e-324).accurate_lower >= 0


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"pi0": [0.5, 0.6]}, ValueError, "pi0"),
        ({"pi0": [[0.5, 0.5]]}, ValueError, "pi0"),
        ({"pi0": [0.2, 0.3, 0.5]}, ValueError, "pi0"),
        ({"pi0": [0.0, 1.0]}, ValueError, "pi0"),
        ({"gold": [1.5, 0.0]}, ValueError, "gold"),
        ({"gold": [np.nan, 0.0]}, ValueError, "gold"),
        ({"gold": [0.1, 0.0]}, ValueError, "gold"),  # out of reach
        ({"gold": [0.0, 0.0]}, ValueError, "gold"),
        ({"gold": None}, TypeError, "gold"),
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"gamma": 1.0}, ValueError, "gold"),  # V + gamma is the best there is
        ({"target": 2}, ValueError, "target"),
        ({"target": -1}, ValueError, "target"),
        ({"target": 0.0}, TypeError, "target"),
        ({"target": 1}, ValueError, "gold"),
        ({"n_prompts": 0}, ValueError, "n_prompts"),
        ({"scale": 0.0}, ValueError, "scale"),
        ({"scale": np.inf}, ValueError, "scale"),
    ],
)
def test_teacher_times_refuse_by_name(options, kind, name):
    arguments = {"pi0": [0.5, 0.5], "gold": [1.0, -1.0], "gamma": 0.5, **options}
    with pytest.raises(kind, match=f"`{name}`"):
        teacher_times(arguments.pop("pi0"), arguments.pop("gold"), arguments.pop("gamma"), **arguments)


RESULTS = {
    "scalar": lambda: bounds(),
    "rows": lambda: bounds(mean_var=[[0.0, 0.1]], tabular=True),
    "teachers": lambda: teacher_times([0.5, 0.5], [1.0, -1.0], 0.5),
    "endless": lambda: teacher_times([5e-324, 1.0], [1.0, -1.0], 0.5),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_travel_to_the_bit(name):
    found = RESULTS[name]()
    fields = {
        "scalar": ("general", "tabular", "sharper"),
        "rows": ("general", "tabular", "sharper"),
    }.get(name, ("target", "rho", "accurate_lower", "inaccurate_upper"))
    for twin in (
        result_from_dict(found.to_dict()),
        result_from_json(found.to_json()),
        pickle.loads(pickle.dumps(found)),
        copy.copy(found),
        copy.deepcopy(found),
    ):
        assert twin == found
        for field in fields:
            np.testing.assert_array_equal(getattr(twin, field), getattr(found, field))
            assert np.shape(getattr(twin, field)) == np.shape(getattr(found, field))


def test_pages_show_what_was_asked_for():
    labels = [number.label for number in bounds().document().key_numbers]
    assert labels == ["general", "sharper"]
    page = bounds(mean_var=[0.0, 0.0, 0.25], tabular=True).document()
    assert [number.value for number in page.key_numbers] == [math.inf] * 3
    assert page.grids[0].rows[2][2] == pytest.approx(4 * (1 - math.exp(-0.25)))
    assert "accurate lower" in teacher_times([0.5, 0.5], [1.0, -1.0], 0.5).summary()
    assert bounds().verdict == "unknown"
    assert bounds().meta.details["gamma"] == 0.5


def test_every_kind_of_array_comes_in(xp):
    assert bounds(mean_var=xp.asarray([0.25])) == bounds(mean_var=[0.25])
    found = teacher_times(xp.asarray([0.5, 0.5]), xp.asarray([1.0, -1.0]), 0.5)
    assert found == teacher_times([0.5, 0.5], [1.0, -1.0], 0.5)

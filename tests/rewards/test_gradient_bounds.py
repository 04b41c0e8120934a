"""Bounds of a policy gradient: their order on random policies, worked values, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_policies import hitting_time
from rankdiag import result_from_dict, result_from_json
from rankdiag.rewards import (
    EnumeratedAutoregressive,
    TabularPolicy,
    gradient_bounds,
    simulate_policy_gradient,
    two_output_times,
)

SLACK = 1 + 1e-9  # rounding of an eigenvalue


@st.composite
def policies(draw):
    """A policy of one of three kinds over few short outputs, with random derivatives."""
    vocab, length, size = draw(st.integers(2, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["linear", "bent", "table"]))
    if kind == "table":
        size = sum(vocab**depth for depth in range(length)) * vocab
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    weights = {}

    def logits(theta, prefix):
        if kind == "table":
            place = sum(vocab**depth for depth in range(len(prefix)))
            place += sum(token * vocab**i for i, token in enumerate(reversed(prefix)))
            return theta[place * vocab : (place + 1) * vocab]
        matrix = weights.setdefault(prefix, torch.as_tensor(rng.standard_normal((vocab, size))))
        return matrix @ (theta if kind == "linear" else torch.tanh(theta))

    policy = EnumeratedAutoregressive(logits, scale * rng.standard_normal(size), vocab=vocab, length=length)
    sharp = draw(st.sampled_from(["uniform", "signs", "rare"]))
    reward = rng.uniform(-1, 1, len(policy.probs))
    if sharp == "signs":
        reward = np.sign(reward)
    elif sharp == "rare":
        reward = np.where(np.arange(len(reward)) == rng.integers(len(reward)), 1.0, -1.0)
    return policy, reward


def chain(policy, reward, length, half_range=1.0):
    """The gradient and what bounds it, from the tightest to the loosest."""
    fisher, std = policy.fisher(), math.sqrt(policy.exact_var(reward))
    top = max(0.0, float(np.linalg.eigvalsh(fisher)[-1]))
    bounds = gradient_bounds(
        std, length=length, jacobian=policy.jacobian_norm, half_range=half_range, fisher_top=top
    )  # fmt: skip
    return [
        float(np.linalg.norm(policy.grad(reward))),
        float(bounds.fisher),
        std * math.sqrt(np.trace(fisher)),
        float(bounds.sqrt_length),
        float(bounds.published_tight),
        float(bounds.published),
    ]


@given(policies())
@settings(max_examples=60)
def test_every_bound_holds_and_in_this_order(drawn):
    policy, reward = drawn
    values = chain(policy, reward, policy.sequences.shape[1])
    for low, high in itertools.pairwise(values):
        assert low <= high * SLACK + 1e-15
    assert values[1] <= values[3] / math.sqrt(2) * SLACK  # the variance along a unit vector is at most 1/2


@given(policies(), st.floats(0.01, 2), st.floats(1, 20))
@settings(max_examples=30)
def test_a_kl_penalty_and_any_range_keep_the_order(drawn, weight, scale):
    policy, reward = drawn
    reference = np.linspace(1, 2, len(reward)) / np.linspace(1, 2, len(reward)).sum()
    reward = scale * reward - weight * (policy.log_probs - np.log(reference))
    half = max((reward.max() - reward.min()) / 2, 1e-12)
    values = chain(policy, reward, policy.sequences.shape[1], half)
    for low, high in itertools.pairwise(values):
        assert low <= high * SLACK + 1e-12


def test_formulas():
    found = gradient_bounds(0.2, length=9, jacobian=1.5, half_range=8.0, fisher_top=0.25)
    assert float(found.published) == pytest.approx(6 * 2 * 9 * 1.5 * 0.2 ** (2 / 3), rel=1e-14)
    assert float(found.published_tight) == pytest.approx(4.762203 * 2 * 9 * 1.5 * 0.2 ** (2 / 3), rel=1e-6)
    assert float(found.sqrt_length) == pytest.approx(3 * 1.5 * 0.2, rel=1e-14)
    assert float(found.fisher) == pytest.approx(0.1, rel=1e-14)
    assert math.isnan(gradient_bounds(0.2, length=9, jacobian=1.5).fisher)


def test_worked_values_of_a_table():
    policy = TabularPolicy.from_probs([0.2, 0.3, 0.5])
    found = gradient_bounds(math.sqrt(policy.exact_var([1, 0, -1])), length=1, jacobian=1.0, fisher_top=0.388102)
    assert float(found.sqrt_length) == pytest.approx(0.781025, abs=1e-6)
    assert float(found.fisher) == pytest.approx(0.781025 * math.sqrt(0.388102), abs=1e-6)


def test_no_power_of_the_spread_is_attained_everywhere():
    """Scaled rewards: the norm is linear in the spread; rare binary ones: quadratic."""
    for p in (0.1, 0.01, 0.001):
        policy = TabularPolicy.from_probs([p, 1 - p])
        assert np.abs(policy.grad([1.0, 0.0])).sum() == pytest.approx(2 * policy.exact_var([1.0, 0.0]), rel=1e-12)
        assert np.linalg.norm(policy.grad([1e-3, 0.0])) == pytest.approx(1e-3 * np.linalg.norm(policy.grad([1, 0])))


def test_shapes_are_joined():
    found = gradient_bounds([0.1, 0.2], length=4, jacobian=[[1.0], [2.0], [3.0]], fisher_top=1.0)
    for array in (found.published, found.published_tight, found.sqrt_length, found.fisher):
        assert array.shape == (3, 2)
        assert not array.flags.writeable
    assert found.sqrt_length[2, 1] == pytest.approx(1.2)


def test_extremes_stay_numbers():
    for jacobian in (0.0, 5e-324, 1e308):
        found = gradient_bounds(0.0, length=2**40, jacobian=jacobian, half_range=1e300, fisher_top=1e308)
        assert [float(x) for x in (found.published, found.published_tight, found.sqrt_length, found.fisher)] == [0] * 4
    found = gradient_bounds(1e300, length=100, jacobian=1e300)
    assert float(found.sqrt_length) == math.inf
    assert gradient_bounds(1e-300, length=1, jacobian=1e300).sqrt_length == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("options", "kind", "name"),
    [
        ({"std": -0.1}, ValueError, "std"),
        ({"std": [0.1, np.nan]}, ValueError, "std"),
        ({"std": []}, ValueError, "std"),
        ({"std": "x"}, TypeError, "std"),
        ({"length": 0}, ValueError, "length"),
        ({"length": 1.5}, TypeError, "length"),
        ({"jacobian": -1.0}, ValueError, "jacobian"),
        ({"jacobian": np.inf}, ValueError, "jacobian"),
        ({"half_range": 0.0}, ValueError, "half_range"),
        ({"half_range": None}, TypeError, "half_range"),
        ({"fisher_top": -1.0}, ValueError, "fisher_top"),
        ({"std": [0.1, 0.2], "jacobian": [1.0, 2.0, 3.0]}, ValueError, "jacobian"),
    ],
)
def test_bounds_refuse_by_name(options, kind, name):
    arguments = {"std": 0.1, "length": 2, "jacobian": 1.0, **options}
    with pytest.raises(kind, match=f"`{name}`"):
        gradient_bounds(arguments.pop("std"), **arguments)


def test_misspelt_keywords_are_refused():
    with pytest.raises(TypeError, match="lenght"):
        gradient_bounds(0.1, lenght=2, jacobian=1.0)


def test_two_outputs_worked_values():
    found = two_output_times(0.05)
    assert float(found.reinforcement) == pytest.approx(6.209062, abs=1e-6)
    assert float(found.supervised) == pytest.approx(1.945904, abs=1e-6)
    assert two_output_times([0.5]).supervised.tolist() == two_output_times([0.5]).reinforcement.tolist() == [0.0]


@pytest.mark.parametrize("eps", [0.02, 0.2, 0.45])
def test_two_outputs_are_flows(eps):
    found = two_output_times(eps)
    run = simulate_policy_gradient([eps, 1 - eps], [1, -1], horizon=1e4, stop=("train", 0.0))
    assert float(found.reinforcement) == pytest.approx(run.hitting_time, rel=1e-7)

    def good(z):
        return 1 / (1 + math.exp(z[1] - z[0]))

    def reward(z):
        return 2 * good(z) * (1 - good(z)) * np.array([1.0, -1.0])

    def likelihood(z):
        return (1 - good(z)) * np.array([1.0, -1.0])

    start = [math.log(eps), math.log(1 - eps)]
    for velocity, time in ((reward, found.reinforcement), (likelihood, found.supervised)):
        walked = hitting_time(velocity, start, lambda z: good(z) - 0.5, float(time) / 200)
        assert walked == pytest.approx(float(time), rel=1e-5)


def test_two_outputs_lose_no_digits_at_either_end():
    # near 1/2, with d = 1 - 2 eps, both times are 2 d to first order
    d = 2.0**-40
    near = two_output_times((1 - d) / 2)
    assert float(near.reinforcement) == pytest.approx(2 * d, rel=1e-9)
    assert float(near.supervised) == pytest.approx(2 * d, rel=1e-9)
    tiny = two_output_times(1e-300)
    assert float(tiny.reinforcement) == pytest.approx(2.5e299)
    assert float(tiny.supervised) == pytest.approx(0.5 * (1 + 300 * math.log(10)), rel=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.51, -1.0, [0.1, np.nan], 1e-309, []])
def test_two_outputs_refuse_by_name(eps):
    with pytest.raises(ValueError, match="`eps`"):
        two_output_times(eps)
    with pytest.raises(TypeError, match="`eps`"):
        two_output_times(None)


RESULTS = {
    "scalar": lambda: gradient_bounds(0.1, length=2, jacobian=1.0),
    "rows": lambda: gradient_bounds([[0.1, 0.0], [0.3, 1.0]], length=2, jacobian=1e308, fisher_top=2.0),
    "many": lambda: gradient_bounds(np.linspace(0, 1, 300), length=2, jacobian=1.0),
    "two": lambda: two_output_times(0.05),
    "several": lambda: two_output_times([0.05, 0.1]),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_travel_to_the_bit(name):
    found = RESULTS[name]()
    fields = ("reinforcement", "supervised") if name in ("two", "several") else ("published", "sqrt_length", "fisher")
    twins = (
        result_from_dict(found.to_dict()),
        result_from_json(found.to_json()),
        pickle.loads(pickle.dumps(found)),
        copy.copy(found),
        copy.deepcopy(found),
    )
    for twin in twins:
        assert twin == found
        for field in fields:
            np.testing.assert_array_equal(getattr(twin, field), getattr(found, field))
            assert getattr(twin, field).shape == getattr(found, field).shape
            assert not getattr(twin, field).flags.writeable


def test_pages_show_what_was_asked_for():
    page = gradient_bounds(0.1, length=2, jacobian=1.0).document()
    assert [number.label for number in page.key_numbers] == ["published", "published tight", "sqrt length"]
    assert page.key_numbers[2].value == pytest.approx(0.1 * math.sqrt(2))
    assert page.grids == ()
    page = gradient_bounds(np.linspace(0, 1, 300), length=4, jacobian=1.0, fisher_top=1.0).document()
    assert page.key_numbers[2].label == "sqrt length, median"
    assert page.key_numbers[2].value == pytest.approx(2 * 149 / 299)
    assert len(page.grids[0].rows) == 200
    assert page.grids[0].title == "The first 200 of 300"
    assert "supervised" in two_output_times([0.1, 0.2]).summary()
    assert two_output_times(0.1).verdict == "unknown"


def test_every_kind_of_array_comes_in(xp):
    assert gradient_bounds(xp.asarray([0.25]), length=4, jacobian=xp.asarray([2.0])).sqrt_length.tolist() == [1.0]
    assert two_output_times(xp.asarray([0.25])) == two_output_times([0.25])


@pytest.mark.slow
def test_the_reproduction_finds_no_violation(capsys, monkeypatch):
    path = Path(__file__).parents[2] / "reproductions" / "rewards_bounds.py"
    spec = importlib.util.spec_from_file_location("rewards_bounds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["rewards_bounds.py", "--cases", "300", "--groups", "60", "--seed", "1"])
    assert module.main() == 0
    printed = capsys.readouterr().out
    assert printed.endswith("violations: bounds of gradients 0, estimates 0, bounds of times 0\n")
    assert "300 random policies" in printed
    assert printed.count("sum of probabilities 1.000000000") == 4  # tied or not, at the head or everywhere

"""The reward monitor without a trainer: its names and values, and that it leaves rewards alone."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import rewards_monitor as oracle
from rankdiag._validate import RankdiagWarning
from rankdiag.monitors import RewardLandscapeMonitor, wrap_reward_fn
from rankdiag.monitors._reward_groups import Groups, group_moments, merge_groups, rows_of, zero_std_of_multiples
from rankdiag.rewards import summarize

PREFIX = "rankdiag/rewards/"


def giver(name: str, rewards: Any) -> Any:
    """Return a reward function that gives these rewards."""

    def function(prompts: Any, completions: Any, **columns: Any) -> Any:
        return rewards

    function.__name__ = name
    return function


def watch(functions: dict[str, list[Any]], prompts: list[Any], **options: Any) -> dict[str, float]:
    monitor = RewardLandscapeMonitor(**options)
    for name, rewards in functions.items():
        wrap_reward_fn(giver(name, rewards), monitor)(prompts=prompts, completions=[""] * len(prompts))
    return monitor.collect()


def by_group(functions: dict[str, list[Any]], prompts: list[str]) -> list[dict[str, list[Any]]]:
    return [
        {name: [r for r, p in zip(rewards, prompts, strict=True) if p == prompt] for name, rewards in functions.items()}
        for prompt in dict.fromkeys(prompts)
    ]


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert set(found) == {PREFIX + name for name in expected}
    for name, value in expected.items():
        assert found[PREFIX + name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


rewards_of = st.one_of(
    st.sampled_from([None, math.nan, 0, 1, True]), st.integers(-3, 3), st.integers(-8, 8).map(lambda i: i / 4)
)


@settings(max_examples=60)
@given(st.data())
def test_every_reading_is_that_of_its_definition(data: Any) -> None:
    """Quarters and small integer weights: sums are exact, so equality is that of the definition."""
    count = data.draw(st.integers(1, 14))
    prompts = [data.draw(st.sampled_from("abcd")) for _ in range(count)]
    names = ["correct", "format", "length"][: data.draw(st.integers(1, 3))]
    functions = {name: data.draw(st.lists(rewards_of, min_size=count, max_size=count)) for name in names}
    weights = {name: data.draw(st.sampled_from([1.0, 2.0, -1.0, 0.5, 0.0])) for name in names}
    found = watch(functions, prompts, weights=weights, low_std=0.5)
    same(found, oracle.expected(by_group(functions, prompts), weights, 0.5))


def test_the_names_are_those_of_the_specification() -> None:
    found = watch({"f": [0, 1, 1, 1]}, ["a", "a", "b", "b"])
    top = "within_std_rms within_std_q10 within_std_q50 within_std_q90 frac_zero_std frac_all_worst frac_all_best"
    more = "frac_low_std icc normalised_variance effective_prompts f/within_std_rms f/conflict f/zero_in_sum"
    assert set(found) == {PREFIX + name for name in f"{top} {more}".split()}
    assert found[PREFIX + "frac_all_best"] == 0.5
    assert found[PREFIX + "frac_all_worst"] == 0.0


def test_a_table_of_one_step_says_the_same() -> None:
    """The readings that `summarize` has too are those of the table of these rewards."""
    rewards = np.random.default_rng(0).integers(0, 3, (50, 4)) / 2
    rewards[3], rewards[5], rewards[7] = 0.5, 1.0, 0.0
    rewards[9, :3] = rewards[10, 0] = np.nan
    found = watch({"f": rewards.ravel().tolist()}, ["p"] * 200, group_size=4)
    summary = summarize(rewards)
    for name, value in (
        ("within_std_rms", summary.rms_std),
        ("frac_zero_std", summary.frac_zero_std),
        ("frac_all_worst", summary.frac_all_min),
        ("frac_all_best", summary.frac_all_max),
        ("icc", summary.icc1),
        ("normalised_variance", summary.normalised_variance),
    ):
        assert found[PREFIX + name] == pytest.approx(value, rel=1e-12)


def test_functions_that_cancel_conflict() -> None:
    """Both have spread in the first group, and the sum has none; in the second only one moves; in the third both."""
    prompts = ["a"] * 2 + ["b"] * 2 + ["c"] * 2
    found = watch({"f": [0, 1, 0, 1, 0, 1], "g": [1, 0, 5, 5, 0, 3]}, prompts)
    readings = {name: found[PREFIX + name] for name in ("f/conflict", "g/conflict", "f/zero_in_sum", "g/zero_in_sum")}
    assert readings == {
        "f/conflict": pytest.approx(1 / 3),
        "g/conflict": pytest.approx(1 / 3),
        "f/zero_in_sum": 0.0,
        "g/zero_in_sum": pytest.approx(1 / 3),
    }
    assert found[PREFIX + "frac_zero_std"] == pytest.approx(1 / 3)


def test_sums_are_equal_up_to_rounding_and_single_rewards_exactly() -> None:
    f, g = [0.1, 0.2, 0.3, 0.7], [0.9, 0.8, 0.7, 0.3]
    assert len({0.3 * a + 0.3 * b for a, b in zip(f, g, strict=True)}) > 1  # rounding, and nothing else
    found = watch({"f": f, "g": g}, ["a"] * 4, weights={"f": 0.3, "g": 0.3})
    assert found[PREFIX + "frac_zero_std"] == found[PREFIX + "f/conflict"] == 1.0
    assert found[PREFIX + "within_std_rms"] == 0.0
    nearly = [1.0, 1.0 + 2**-52]
    assert watch({"f": nearly}, ["a"] * 2)[PREFIX + "frac_zero_std"] == 0.0
    assert watch({"f": [0.1] * 7}, ["a"] * 7)[PREFIX + "within_std_rms"] == 0.0


def test_rounding_is_that_of_the_magnitudes_not_of_what_they_leave() -> None:
    f, g = [1000.8, 1000.9, 1001.0, 1001.4], [-1000.1, -1000.2, -1000.3, -1000.7]
    assert len({a + b for a, b in zip(f, g, strict=True)}) > 1
    assert watch({"f": f, "g": g}, ["a"] * 4)[PREFIX + "f/conflict"] == 1.0


def test_multiples_of_a_group_size_double() -> None:
    rows = np.array([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.nan], [1.0] * 8])
    found = zero_std_of_multiples([(np.array([0, 1]), rows[:, :3]), (np.array([0, 1]), rows[:, 3:])], 2)
    assert set(found) == {"zero_std_at_2k", "zero_std_at_4k"}
    assert found["zero_std_at_2k"] == pytest.approx((oracle.zero_std_at([0.0] + [1.0] * 6, 4) + 1) / 2)
    assert found["zero_std_at_4k"] == 1.0  # of the one group that has eight
    assert zero_std_of_multiples([(np.array([0]), rows[:1, :3])], 2) == {}


def test_small_spreads_beside_large_constants_stay() -> None:
    found = watch({"f": [1.0, 1.0], "g": [0.0, 1e-12]}, ["a", "a"])
    assert found[PREFIX + "frac_zero_std"] == 0.0
    assert found[PREFIX + "f/zero_in_sum"] == 1.0


def test_groups_by_place_keep_equal_prompts_apart() -> None:
    rewards = {"f": [0, 0, 1, 1]}
    by_text, by_place = watch(rewards, ["a"] * 4), watch(rewards, ["a"] * 4, group_size=2)
    assert by_text[PREFIX + "frac_zero_std"] == 0.0
    assert by_place[PREFIX + "frac_zero_std"] == 1.0
    assert by_place[PREFIX + "frac_all_best"] == by_place[PREFIX + "frac_all_worst"] == 0.5


def test_conversations_are_groups_by_what_they_say() -> None:
    chat = [[{"role": "user", "content": text}] for text in "abab"]
    found = watch({"f": [0, 1, 0, 1]}, chat)
    assert found[PREFIX + "frac_zero_std"] == 1.0


def test_the_ends_are_those_of_the_run_unless_given() -> None:
    monitor = RewardLandscapeMonitor(group_size=2)
    shared: list[Any] = []
    watched = wrap_reward_fn(giver("f", shared), monitor)

    def step(*rewards: float) -> dict[str, float]:
        shared[:] = rewards
        watched(prompts=["p"] * len(rewards), completions=[""] * len(rewards))
        return monitor.collect()

    step(0, 1, 0, 1)
    assert step(1, 1)[PREFIX + "frac_all_worst"] == 0.0
    assert step(0, 0)[PREFIX + "frac_all_best"] == 0.0
    assert step(0.5, 0.5, 0, 0)[PREFIX + "frac_all_worst"] == 0.5
    given = watch({"f": [1, 1]}, ["a"] * 2, reward_range=(0, 2))
    assert given[PREFIX + "frac_all_best"] == given[PREFIX + "frac_all_worst"] == 0.0


def test_batches_of_a_window_are_groups_of_their_own() -> None:
    monitor = RewardLandscapeMonitor()
    watched = wrap_reward_fn(giver("f", [0, 0]), monitor)
    other = wrap_reward_fn(giver("g", [1, 3]), monitor)
    for _ in range(3):
        watched(prompts=["a"] * 2, completions=[""] * 2)
        other(prompts=["a"] * 2, completions=[""] * 2)
    found = monitor.collect()
    assert found[PREFIX + "effective_prompts"] == 3.0
    assert found[PREFIX + "within_std_rms"] == pytest.approx(math.sqrt(2))
    assert monitor.readings == found
    assert monitor.collect() == monitor.readings == {}


def test_nothing_grows_when_nobody_collects() -> None:
    monitor = RewardLandscapeMonitor()
    watched = wrap_reward_fn(giver("f", [0, 1]), monitor)
    for _ in range(600):
        watched(prompts=["a"] * 2, completions=[""] * 2)
    assert monitor.collect()[PREFIX + "effective_prompts"] == 256.0


def test_a_step_of_1024_completions_takes_less_than_a_millisecond() -> None:
    draw = np.random.default_rng(0)
    monitor = RewardLandscapeMonitor(group_size=8)
    functions = [wrap_reward_fn(giver(name, draw.integers(0, 3, 1024).tolist()), monitor) for name in ("f", "g")]
    took = []
    for _ in range(40):
        before = monitor.seconds
        for function in functions:
            function(prompts=["p"] * 1024, completions=[""] * 1024)
        assert monitor.collect()[PREFIX + "effective_prompts"] > 0
        took.append(monitor.seconds - before)
    assert min(took) < 1e-3  # of the monitor itself: the least, for others may be at work on this machine


RETURNED: dict[str, Any] = {
    "list": [1.0, None, 3],
    "tuple": (1.0, 2.0, 3.0),
    "numpy": np.array([1.0, 2.0, 3.0], dtype=np.float32),
    "tensor": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
    "scalars": [torch.tensor(1.0), np.float32(2.0), True],
    "graph": [torch.tensor(1.0, requires_grad=True), None, 2.0],
}


@pytest.mark.parametrize("kind", RETURNED)
def test_what_a_function_returns_is_handed_on(kind: str) -> None:
    output = RETURNED[kind]
    before = copy.deepcopy(output)
    monitor = RewardLandscapeMonitor()
    found = wrap_reward_fn(giver("f", output), monitor)(["a"] * 3, ["x"] * 3)
    assert found is output
    assert all(a is b or bool(a == b) for a, b in zip(before, output, strict=True))
    assert monitor.collect()[PREFIX + "effective_prompts"] == 1.0


def test_an_iterator_comes_back_whole() -> None:
    monitor = RewardLandscapeMonitor()
    watched = wrap_reward_fn(lambda prompts, completions: (float(len(c)) for c in completions), monitor)
    assert list(watched(["a"] * 2, ["x", "yy"])) == [1.0, 2.0]
    assert monitor.collect()[PREFIX + "within_std_rms"] == pytest.approx(math.sqrt(0.5))


def test_names_and_signatures_stay() -> None:
    def correct(prompts: list[str], completions: list[str], *, answer: list[str], **columns: Any) -> list[float]:
        """Say whether it is right."""
        return [float(a == c) for a, c in zip(answer, completions, strict=True)]

    watched = wrap_reward_fn(correct, RewardLandscapeMonitor())
    assert watched.__name__ == "correct"
    assert watched.__doc__ == correct.__doc__
    assert inspect.signature(watched) == inspect.signature(correct)
    assert not inspect.iscoroutinefunction(watched)
    assert watched(prompts=["a"], completions=["1"], answer=["1"]) == [1.0]
    with pytest.raises(TypeError, match="answer"):
        watched(prompts=["a"], completions=["1"])

    part = functools.partial(correct, answer=["1"])
    assert wrap_reward_fn(part, RewardLandscapeMonitor()).__name__ == "correct"


class Judge:
    """A reward function that is an object, as TRL allows."""

    secret = 3

    def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [1.0, 0.0]


class AsyncJudge:
    async def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [1.0, 0.0]


def test_objects_and_coroutines_are_functions_too() -> None:
    monitor = RewardLandscapeMonitor()
    judge = wrap_reward_fn(Judge(), monitor)
    assert judge.__name__ == "Judge"
    assert judge(["a"] * 2, ["x"] * 2) == [1.0, 0.0]

    async def slow(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        await asyncio.sleep(0)
        return [2.0, 0.0]

    for function in (slow, AsyncJudge()):
        watched = wrap_reward_fn(function, monitor)
        assert inspect.iscoroutinefunction(watched)
        assert asyncio.run(watched(prompts=["a"] * 2, completions=["x"] * 2))[1] == 0.0
    assert monitor.names == ("Judge", "slow", "AsyncJudge")
    assert monitor.collect()[PREFIX + "within_std_rms"] == pytest.approx(4 / math.sqrt(2))


def test_infinite_rewards_are_unscorable_and_said_so_once() -> None:
    monitor = RewardLandscapeMonitor()
    watched = wrap_reward_fn(giver("f", [math.inf, 1.0, 2.0]), monitor)
    with pytest.warns(RankdiagWarning, match="'f' returned an infinite reward"):
        watched(["a"] * 3, ["x"] * 3)
    watched(["a"] * 3, ["x"] * 3)
    assert monitor.collect()[PREFIX + "within_std_rms"] == pytest.approx(math.sqrt(0.5))


def test_nothing_scored_says_nothing() -> None:
    assert watch({"f": [None, None, 1.0]}, ["a", "a", "b"]) == {}
    assert watch({"f": []}, []) == {}
    assert RewardLandscapeMonitor().collect("eval") == {}


def test_a_wrong_number_of_rewards_is_left_to_the_trainer() -> None:
    monitor = RewardLandscapeMonitor()
    wrap_reward_fn(giver("f", [0, 1]), monitor)(prompts=["a"] * 2, completions=[""] * 2)
    assert wrap_reward_fn(giver("g", [0]), monitor)(prompts=["a"] * 2, completions=[""] * 2) == [0]
    assert monitor.collect()[PREFIX + "within_std_rms"] == pytest.approx(math.sqrt(0.5))


def test_errors_name_their_argument() -> None:
    monitor = RewardLandscapeMonitor()
    watched = wrap_reward_fn(giver("f", [0]), monitor)
    with pytest.raises(ValueError, match="another 'f' already"):
        wrap_reward_fn(giver("f", [0]), monitor)
    with pytest.raises(ValueError, match="wrapped for this monitor already"):
        wrap_reward_fn(watched, monitor)
    with pytest.raises(ValueError, match="'eval'"):
        wrap_reward_fn(giver("eval", [0]), monitor)
    for wrong in (3, Judge, torch.nn.Identity()):
        with pytest.raises(TypeError, match="`fn` must be a function"):
            wrap_reward_fn(wrong, monitor)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="`monitor`"):
        wrap_reward_fn(giver("g", [0]), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="set `group_size`"):
        watched(completions=["x"], prompts=None)
    for options, kind in (
        ({"group_size": 0}, ValueError),
        ({"group_size": 1.5}, TypeError),
        ({"weights": [1.0]}, TypeError),
        ({"weights": {"f": math.nan}}, ValueError),
        ({"low_std": -1}, ValueError),
        ({"reward_range": 1}, TypeError),
        ({"reward_range": (1, 0)}, ValueError),
    ):
        with pytest.raises(kind, match=next(iter(options))):
            RewardLandscapeMonitor(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`split`"):
        monitor.collect("test")  # type: ignore[arg-type]


def test_a_monitor_is_copied_with_what_it_holds() -> None:
    monitor = RewardLandscapeMonitor(group_size=2)
    wrap_reward_fn(giver("f", [0, 1]), monitor)(["a"] * 2, ["x"] * 2)
    copies = [pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)]
    assert [other.collect() for other in copies] == [monitor.collect()] * 2
    assert repr(monitor) == "RewardLandscapeMonitor(f)"


# --- parts of groups ------------------------------------------------------------


@settings(max_examples=60)
@given(st.data())
def test_parts_merge_into_the_groups_of_all(data: Any) -> None:
    count = data.draw(st.integers(1, 20))
    keys = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count)), dtype=np.int64)
    entry = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6))
    values = np.array(data.draw(st.lists(entry, min_size=count, max_size=count)))
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    parts = [group_moments(*rows_of(keys[owner == part], values[owner == part])) for part in range(3)]
    merged = merge_groups(parts)
    assert merged.keys.tolist() == sorted(set(keys.tolist()))
    for place, key in enumerate(merged.keys):
        own = [float(v) for v, k in zip(values, keys, strict=True) if k == key and not math.isnan(v)]
        assert merged.count[place] == len(own)
        assert (merged.min[place], merged.max[place]) == (min(own, default=math.inf), max(own, default=-math.inf))
        if own:
            mean = math.fsum(own) / len(own)
            largest = max(map(abs, own))
            assert abs(merged.mean[place] - mean) <= 1e-12 * largest
            squares = math.fsum((v - mean) ** 2 for v in own)
            assert abs(merged.m2[place] - squares) <= 1e-9 * squares + 1e-22 * largest**2
        if len(set(own)) == 1:
            assert merged.m2[place] == 0.0
            assert merged.mean[place] == own[0]


def test_no_parts_are_no_groups() -> None:
    none = group_moments(*rows_of(np.zeros(0, dtype=np.int64), np.zeros(0)))
    assert isinstance(none, Groups)
    assert len(merge_groups([none, none]).keys) == 0

"""The streamed metric: any split, order, merge tree or pair of processes says what all rewards at once say."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torchmetrics")

from torchmetrics import MetricCollection

from oracles import rewards_monitor as oracle
from rankdiag.monitors import RewardStdMetric, _reward_metric

NAMES = {"rms_std", "mean_std", "frac_zero_std", "n_prompts", "n_undefined"}


def by_definition(rewards: list[Any], prompts: list[Any]) -> dict[str, float]:
    groups = [
        oracle.scored([r for r, p in zip(rewards, prompts, strict=True) if p == prompt])
        for prompt in dict.fromkeys(prompts)
    ]
    known = [group for group in groups if len(group) >= 2]
    variances = [oracle.variance(group) for group in known]
    return {
        "rms_std": math.sqrt(math.fsum(variances) / len(known)) if known else math.nan,
        "mean_std": math.fsum(map(math.sqrt, variances)) / len(known) if known else math.nan,
        "frac_zero_std": sum(map(oracle.flat, known)) / len(known) if known else math.nan,
        "n_prompts": len(known),
        "n_undefined": len(groups) - len(known),
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    assert set(found) == NAMES
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        assert float(found[name]) == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name


@settings(max_examples=25)
@given(st.data())
def test_any_split_order_and_merge_is_one_shot(data: Any) -> None:
    rollout = st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.sampled_from([0.0, 1.0]), st.floats(-1e3, 1e3)))
    rows = data.draw(st.lists(rollout, max_size=24))
    expected = by_definition([r for _, r in rows], [p for p, _ in rows])
    metrics = [RewardStdMetric() for _ in range(3)]
    for prompt, reward in data.draw(st.permutations(rows)):
        metrics[data.draw(st.integers(0, 2))].update([reward], [prompt])
    total = metrics.pop(data.draw(st.integers(0, 2)))
    if total.update_called:
        total.compute()  # and still it hears of the others
    for other in metrics:
        total.merge_state(other)
    same(total.compute(), expected)
    same(total.compute(), expected)


def test_state_stays_as_large_as_there_are_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reward_metric, "_FEW", 100)
    draw = np.random.default_rng(0)
    metric, stepped = RewardStdMetric(), RewardStdMetric()
    rewards, prompts = draw.normal(size=(300, 16)), draw.integers(0, 40, (300, 16))
    for values, keys in zip(rewards, prompts, strict=True):
        metric.update(values.tolist(), keys.tolist())
        stepped(torch.tensor(values), torch.tensor(keys))
        for one in (metric, stepped):
            assert sum(map(len, one.keys_)) <= 2 * 40 + 100 + 16
            assert len(one.keys_) <= _reward_metric._MANY + 2
    expected = by_definition(rewards.ravel().tolist(), prompts.ravel().tolist())
    same(metric.compute(), expected)
    same(stepped.compute(), expected)


def test_merges_are_few_however_batches_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows double between two merges, so that a row is merged a few times in all: in `update` and in `forward`."""
    monkeypatch.setattr(_reward_metric, "_FEW", 10)
    merged: list[int] = []
    original = RewardStdMetric._compact

    def counted(metric: RewardStdMetric) -> None:
        merged.append(sum(map(len, metric.keys_)))
        original(metric)

    monkeypatch.setattr(RewardStdMetric, "_compact", counted)
    for step in ("update", "__call__"):
        merged.clear()
        metric = RewardStdMetric()
        for place in range(200):
            getattr(metric, step)([0.0, 1.0], [2 * place, 2 * place + 1])
        large = [rows for rows in merged if rows > 4]  # a batch alone is merged to say what forward returns
        assert len(large) <= 7, (step, large)
        assert metric.compute()["n_undefined"] == 400.0


def test_a_batch_alone_is_what_forward_returns() -> None:
    metric = RewardStdMetric()
    metric.update([0.0, 2.0], [7, 7])
    same(metric(torch.tensor([1.0, 1.0]), torch.tensor([7, 7])), by_definition([1.0, 1.0], [7, 7]))
    same(metric.compute(), by_definition([0.0, 2.0, 1.0, 1.0], [7] * 4))


def test_float64_whatever_comes_in_and_whatever_is_asked() -> None:
    values = torch.tensor([2.0**24 + 1, 2.0**24], dtype=torch.float64)
    metric = RewardStdMetric().half().to(torch.bfloat16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metric.update(values, ["a", "a"])
    assert metric.mean[-1].dtype == metric.compute()["rms_std"].dtype == torch.float64
    same(metric.compute(), by_definition(values.tolist(), ["a", "a"]))
    rounded = torch.tensor([0.1, 0.2], dtype=torch.bfloat16)
    metric.reset()
    metric.update(rounded.requires_grad_(), ["a", "a"])
    same(metric.compute(), by_definition(rounded.tolist(), ["a", "a"]))


def test_equal_rewards_have_no_spread_however_they_arrive() -> None:
    metric = RewardStdMetric()
    for _ in range(11):
        metric.update([0.1, 1e300], ["a", "b"])
    assert metric.compute()["frac_zero_std"] == 1.0
    assert metric.compute()["rms_std"] == 0.0


def test_nothing_seen_and_everything_forgotten() -> None:
    metric = RewardStdMetric()
    metric.update([], [])
    same(metric.compute(), by_definition([], []))
    metric.update([0.0, 1.0], ["a", "a"])
    metric.reset()
    metric.update([None], ["a"])
    same(metric.compute(), by_definition([None], ["a"]))
    assert metric.state_dict() == {}


def test_an_integer_and_its_digits_are_two_prompts() -> None:
    metric = RewardStdMetric()
    metric.update([0.0, 1.0, 5.0, 9.0], [5, "5", 5, "5"])
    same(metric.compute(), by_definition([0.0, 1.0, 5.0, 9.0], [5, "5", 5, "5"]))
    metric.reset()
    metric.update(np.array([0.0, 1.0]), np.array([-(2**63), -(2**63)]))
    same(metric.compute(), by_definition([0.0, 1.0], [1, 1]))


def test_prompts_that_share_a_key_are_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The price of 64 bits, which the notes state: nothing breaks, in no order of merges."""
    monkeypatch.setattr(_reward_metric, "text_key", lambda text: 7)
    one, other = RewardStdMetric(), RewardStdMetric()
    one.update([0.0, 1.0], ["a", "b"])
    other.update([5.0], ["c"])
    one.merge_state(other)
    same(one.compute(), by_definition([0.0, 1.0, 5.0], ["a"] * 3))


def test_any_tree_of_merged_metrics_is_one_metric() -> None:
    """Rows as a metric keeps them, merged by any tree: what all rewards at once say."""
    draw = np.random.default_rng(0)
    rewards, prompts = draw.integers(0, 3, 40) / 4 + 1e3, draw.integers(0, 6, 40)
    expected = by_definition(rewards.tolist(), prompts.tolist())
    for _ in range(25):
        owner = draw.integers(0, 5, 40)
        parts = []
        for part in range(5):
            metric = RewardStdMetric()
            metric.update(rewards[owner == part], prompts[owner == part])
            parts.append(metric)
        while len(parts) > 1:
            taken = parts.pop(int(draw.integers(len(parts))))
            parts[int(draw.integers(len(parts)))].merge_state(taken)
        same(parts[0].compute(), expected)


def test_copies_and_collections() -> None:
    metric = RewardStdMetric()
    metric.update([0.0, 1.0], ["a", "a"])
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
        same(other.compute(), by_definition([0.0, 1.0], ["a", "a"]))
        other.update([1.0, None], ["a", "b"])
        same(other.compute(), by_definition([0.0, 1.0, 1.0, None], ["a", "a", "a", "b"]))
    same(metric.compute(), by_definition([0.0, 1.0], ["a", "a"]))
    both = MetricCollection({"one": RewardStdMetric(), "two": RewardStdMetric()})
    for rewards in ([0.0, 1.0], [3.0, 5.0]):
        both.update(rewards, ["a", "a"])
    assert {name: float(value) for name, value in both.compute().items()}["two_rms_std"] == pytest.approx(
        math.sqrt(oracle.variance([0.0, 1.0, 3.0, 5.0]))
    )


def test_errors_name_their_argument_and_leave_the_state() -> None:
    metric = RewardStdMetric()
    metric.update([0.0, 1.0], ["a", "a"])
    for rewards, prompts, kind, text in (
        ([1.0], ["a", "b"], ValueError, "`prompts` must have one entry for each of 1"),
        ([math.inf], ["a"], ValueError, "`rewards` must be finite"),
        ([1.0], "a", TypeError, "`prompts` must be a sequence"),
        ([1.0], [1.5], TypeError, "`prompts` must hold strings or integers"),
        ([1.0], [True], TypeError, "`prompts` must hold"),
        ([1.0], torch.tensor([1.0]), TypeError, "`prompts` must be strings or integers"),
        ([1.0], [2**63], ValueError, "`prompts` must hold integers of 64 bits"),
    ):
        with pytest.raises(kind, match=text):
            metric.update(rewards, prompts)
        with pytest.raises(kind, match=text):
            metric(rewards, prompts)
    with pytest.raises(TypeError, match="nonsense"):
        RewardStdMetric(nonsense=1)
    with pytest.raises(ValueError, match="dict or an instance"):
        metric.merge_state(3)
    same(metric.compute(), by_definition([0.0, 1.0], ["a", "a"]))


PROCESS = """
import json, os, sys
import torch
from rankdiag.monitors import RewardStdMetric
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=3)
metric = RewardStdMetric()
rank = int(sys.argv[2])
batches = [[([0.0, 1.0, 5.0], ["a", "a", "b"]), ([2.0], ["c"])], [([3.0, None, 5.0], ["a", "b", "b"])], []]
for rewards, prompts in batches[rank]:
    metric.update(rewards, prompts)
print(json.dumps({name: float(value) for name, value in metric.compute().items()}), flush=True)
torch.distributed.barrier()
os._exit(0)
"""


@pytest.mark.slow
def test_processes_and_one_that_saw_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "store"), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(3)
    ]
    answers = [process.communicate(timeout=60) for process in started]
    expected = by_definition([0.0, 1.0, 5.0, 2.0, 3.0, None, 5.0], ["a", "a", "b", "c", "a", "b", "b"])
    for out, error in answers:
        assert out, error[-3000:]
        found = json.loads(out.splitlines()[-1])
        assert found == {name: pytest.approx(value) for name, value in expected.items()}

"""The reward monitor in real GRPO and RLOO trainers of TRL: runs with and without it, in one process and in two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl")

from datasets import Dataset

from monitors.dpo_run import Reporter, pairs, plain_trainer, records, save_model, weights
from monitors.rewards_run import Rewards, groups_of, reward_trainer
from oracles import rewards_monitor as oracle
from rankdiag._validate import RankdiagWarning
from rankdiag.monitors import RewardLandscapeCallback, RewardLandscapeMonitor, wrap_reward_fn

PREFIX = "rankdiag/rewards/"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.changes_global_state("python random state", "numpy random state", "torch random state"),
    # TRL still calls methods of transformers by their old names.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _no_bars() -> Any:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def watched(rewards: Rewards, kind: str, monitor: RewardLandscapeMonitor) -> list[Any]:
    return [wrap_reward_fn(function, monitor) for function in rewards.functions(kind)]


def close(found: dict[str, float], expected: dict[str, float], prefix: str = PREFIX) -> None:
    assert {name for name in found if name.startswith("rankdiag/")} == {prefix + name for name in expected}
    for name, value in expected.items():
        assert found[prefix + name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("kind", ["grpo", "rloo", "async"])
def test_training_is_the_same_and_readings_are_right(model_folder: Path, tmp_path: Path, kind: str) -> None:
    options = {"reward_weights": [1.0, 0.5, 2.0][: 3 if kind == "async" else 2]}
    plain = Rewards()
    without = reward_trainer(model_folder, tmp_path / "without", kind, plain.functions(kind), **options)
    without.train()

    rewards, monitor, reporter = Rewards(), RewardLandscapeMonitor(low_std=0.4), Reporter()
    functions = watched(rewards, kind, monitor)
    trainer = reward_trainer(model_folder, tmp_path / "with", kind, functions, callbacks=[reporter], **options)
    RewardLandscapeCallback(monitor).bind(trainer)
    trainer.train()

    assert plain.calls == rewards.calls
    assert any(None in call["early"] for call in rewards.calls)  # what cannot be scored is among it
    for key, value in weights(without.model).items():
        assert torch.equal(value, weights(trainer.model)[key]), key
    assert records(trainer, ours=False) == records(without, ours=False)
    assert any("reward_std" in record for record in records(trainer, ours=False))

    ours = records(trainer, ours=True)
    assert [record["step"] for record in ours] == [1, 2, 3, 4]
    names = [function.__name__ for function in functions]
    weight = dict(zip(names, options["reward_weights"], strict=True))
    seen: list[float] = []
    for record, call in zip(ours, rewards.calls, strict=True):
        groups = groups_of([call], names, 4)
        expected = oracle.expected(groups, weight, 0.4)
        seen += [r for group in groups for r in oracle.scored(oracle.weighted_sums(group, weight))]
        flat = [t for t in (oracle.scored(oracle.weighted_sums(g, weight)) for g in groups) if len(t) > 1]
        for name, end in (("frac_all_worst", min(seen)), ("frac_all_best", max(seen))):  # those of the run so far
            expected[name] = sum(set(t) == {end} for t in flat) / len(flat)
        close(record, expected)
    sent = [logs for logs in reporter.seen if PREFIX + "within_std_rms" in logs]
    assert [{**logs, "step": record["step"]} for logs, record in zip(sent, ours, strict=True)] == ours


def test_batches_that_are_generated_at_once_and_used_twice(model_folder: Path, tmp_path: Path) -> None:
    """Sixteen completions are generated for two steps of eight and used in two rounds; functions log by themselves."""
    options = {"steps_per_generation": 2, "num_iterations": 2, "max_steps": 8, "scale_rewards": "batch"}

    def noting(rewards: Rewards) -> Any:
        def noted(prompts: Any, completions: Any, completion_ids: Any, log_metric: Any, **columns: Any) -> list[float]:
            log_metric("noted/first", float(completion_ids[0][0]))
            return rewards.early(prompts, completions, completion_ids)

        return noted

    plain = Rewards()
    without = reward_trainer(model_folder, tmp_path / "without", "grpo", [noting(plain)], **options)
    without.train()
    rewards, monitor = Rewards(), RewardLandscapeMonitor()
    function = wrap_reward_fn(noting(rewards), monitor)
    trainer = reward_trainer(model_folder, tmp_path / "with", "grpo", [function], **options)
    RewardLandscapeCallback(monitor).bind(trainer)
    trainer.train()

    assert plain.calls == rewards.calls
    assert [len(call["prompts"]) for call in rewards.calls] == [16, 16]
    for key, value in weights(without.model).items():
        assert torch.equal(value, weights(trainer.model)[key]), key
    theirs = records(trainer, ours=False)
    assert theirs == records(without, ours=False)
    assert any("noted/first" in record for record in theirs)

    ours = records(trainer, ours=True)
    assert [record["step"] for record in ours] == [1, 5]  # a generation serves four steps
    for place, record in enumerate(ours):
        found = dict(record)
        call = rewards.calls[place]
        groups = groups_of([{"noted": call["early"], **call}], ["noted"], 4)
        expected = oracle.expected(groups, {"noted": 1.0}, 0.05)
        for name in ("frac_all_worst", "frac_all_best"):  # of the run so far
            found.pop(PREFIX + name)
            expected.pop(name)
        close(found, expected)


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_groups_without_spread_that_the_trainer_does_not_see(model_folder: Path, tmp_path: Path, kind: str) -> None:
    """GRPO with the std of the batch, RLOO with a penalty: the trainer's figure is near 0, every group is flat."""

    calls: list[int] = []

    def longer(prompts: list[str], completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        """Move the policy for two steps, so that the penalty is there; then be the same for a whole group."""
        calls.append(len(prompts))
        if len(calls) <= 2:
            return [float(sum(ids) % 3) for ids in completion_ids]
        return [float(len(prompt)) for prompt in prompts]

    options = {"scale_rewards": "batch"} if kind == "grpo" else {"beta": 0.5}
    monitor = RewardLandscapeMonitor()
    trainer = reward_trainer(
        model_folder, tmp_path, kind, [wrap_reward_fn(longer, monitor)], logging_steps=1, learning_rate=1e-1, **options
    )
    RewardLandscapeCallback(monitor).bind(trainer)
    trainer.train()
    theirs = [r["frac_reward_zero_std"] for r in records(trainer, ours=False) if "frac_reward_zero_std" in r]
    assert theirs[-1] < 0.5
    ours = [record[PREFIX + "frac_zero_std"] for record in records(trainer, ours=True)]
    assert ours[2:] == [1.0] * 2
    assert ours[0] < 1.0


def test_windows_evaluations_and_larger_groups(model_folder: Path, tmp_path: Path) -> None:
    rewards, monitor = Rewards(), RewardLandscapeMonitor()
    functions = watched(rewards, "grpo", monitor)
    trainer = reward_trainer(
        model_folder,
        tmp_path,
        "grpo",
        functions,
        num_generations=2,
        num_generations_eval=8,
        max_steps=5,
        eval_strategy="steps",
        eval_steps=3,
        eval_dataset=Dataset.from_list([{"prompt": pair["prompt"]} for pair in pairs()[:2]]),
    )
    RewardLandscapeCallback(monitor, every=2).bind(trainer)
    trainer.train()
    train = [record for record in records(trainer, ours=True) if PREFIX + "icc" in record]
    assert [record["step"] for record in train] == [2, 4, 5]
    held = [record for record in records(trainer, ours=True) if PREFIX + "eval/within_std_rms" in record]
    assert [record["step"] for record in held] == [3, 5]

    asked = [call for call in rewards.calls if len(set(call["prompts"])) == 1]  # eight completions of one prompt
    assert len(asked) == 4
    weight = {"early": 1.0, "late": 1.0}
    groups = groups_of(asked[:2], list(weight), 8)
    expected = oracle.expected(groups, weight, 0.05)
    totals = [oracle.scored(oracle.weighted_sums(group, weight)) for group in groups]
    for name, k in (("zero_std_at_2k", 4), ("zero_std_at_4k", 8)):
        large = [oracle.zero_std_at(total, k) for total in totals if len(total) >= k]
        if large:
            expected[name] = sum(large) / len(large)
    assert "zero_std_at_2k" in expected
    close(held[0], expected, PREFIX + "eval/")

    others = [call for call in rewards.calls if call not in asked]
    weight_of = oracle.expected(groups_of(others[:2], list(weight), 2), weight, 0.05)
    close(train[0], weight_of)
    assert not any("zero_std_at" in name for name in train[0])


def test_what_a_trainer_must_have(model_folder: Path, tmp_path: Path) -> None:
    rewards, monitor = Rewards(), RewardLandscapeMonitor(group_size=3)
    early, late = watched(rewards, "grpo", monitor)
    with pytest.raises(TypeError, match="`trainer`"):
        RewardLandscapeCallback(monitor).bind(None)
    with pytest.raises(ValueError, match="that of the trainer, 4; got 3"):
        RewardLandscapeCallback(monitor).bind(reward_trainer(model_folder, tmp_path, "grpo", [early, late]))
    plain = reward_trainer(model_folder, tmp_path, "grpo", rewards.functions("grpo"))
    with pytest.raises(ValueError, match="must have a reward function that is wrapped"):
        RewardLandscapeCallback(RewardLandscapeMonitor()).bind(plain)

    monitor = RewardLandscapeMonitor()
    half = [rewards.early, wrap_reward_fn(rewards.late, monitor)]
    trainer = reward_trainer(model_folder, tmp_path, "grpo", half, reward_weights=[5.0, 3.0], max_steps=1)
    with pytest.warns(RankdiagWarning, match="1 of 2 reward functions"):
        RewardLandscapeCallback(monitor).bind(trainer)
    trainer.train()
    assert monitor.names == ("late",)
    groups = groups_of(rewards.calls[-1:], ["late"], 4)
    close(records(trainer, ours=True)[0], oracle.expected(groups, {"late": 3.0}, 0.05))


def test_no_rewards_are_no_record(model_folder: Path, tmp_path: Path) -> None:
    monitor = RewardLandscapeMonitor()
    trainer = plain_trainer(model_folder, tmp_path / "bound", steps=1)
    callback = RewardLandscapeCallback(monitor).bind(trainer)
    assert callback.bind(trainer) is callback
    trainer.train()
    assert records(trainer, ours=True) == []
    alone = plain_trainer(model_folder, tmp_path / "alone", steps=1, callbacks=[RewardLandscapeCallback(monitor)])
    with pytest.warns(RankdiagWarning, match=r"callback\.bind\(trainer\)"):
        alone.train()


def test_two_processes_share_a_group(tmp_path: Path) -> None:
    """Six completions of each process, four of a prompt: the second group lies in both."""
    from monitors.test_processes import torchrun

    model = save_model(tmp_path / "model")
    without = torchrun(model, tmp_path / "without", "rewards", "alone")
    both = torchrun(model, tmp_path / "with", "rewards", "monitored")
    assert [one["theirs"] for one in both] == [one["theirs"] for one in without]
    assert [one["weights"] for one in both] == [one["weights"] for one in without]
    assert both[0]["readings"] == both[1]["readings"]
    names = ["early", "late"]
    seen: list[float] = []
    calls = list(zip(*(one["calls"] for one in both), strict=True))
    assert len(calls) == len(both[0]["ours"]) == 3
    for record, parts in zip(both[0]["ours"], calls, strict=True):
        call = {name: [r for part in parts for r in part[name]] for name in [*names, "prompts"]}
        assert len(call["prompts"]) == 12
        assert call["prompts"][4] == call["prompts"][7] != call["prompts"][3]
        groups = groups_of([call], names, 4)
        weight = dict.fromkeys(names, 1.0)
        expected = oracle.expected(groups, weight, 0.05)
        totals = [oracle.scored(oracle.weighted_sums(group, weight)) for group in groups]
        seen += [r for total in totals for r in total]
        known = [total for total in totals if len(total) > 1]
        expected["frac_all_worst"] = sum(set(t) == {min(seen)} for t in known) / len(known)
        expected["frac_all_best"] = sum(set(t) == {max(seen)} for t in known) / len(known)
        close(record, expected)
    assert json.dumps(both[0]["ours"])

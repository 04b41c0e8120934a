"""What TRL logs of a batch against its own statements, written out in torch."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_intervals import trl_logs
from rankdiag import result_from_json
from rankdiag.rewards import trl_batch_metrics

torch = pytest.importorskip("torch")

OPTIONS = [("grpo", "group"), ("grpo", "batch"), ("grpo", "none"), ("rloo", "group"), ("rloo", "none")]
REWARD = st.sampled_from([0.0, 1.0, 0.25, -3.5, math.nan])


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(OPTIONS), st.data())
def test_batches_as_trl_logs_them(groups, k, option, data):
    rewards = np.array(data.draw(st.lists(REWARD, min_size=groups * k, max_size=groups * k)))
    found = trl_batch_metrics(rewards, num_generations=k, trainer=option[0], scale_rewards=option[1])
    logged = trl_logs(rewards, k, *option)
    for name in ("reward", "reward_std", "frac_reward_zero_std", "advantages"):
        np.testing.assert_allclose(getattr(found, name), logged[name], rtol=1e-6, atol=1e-9, err_msg=name)
    if k > 1:
        np.testing.assert_allclose(found.group_std, logged["group_std"], atol=1e-9)
    else:
        assert (found.group_std == 0).all()
    square = trl_batch_metrics(rewards.reshape(-1, k), num_generations=k, trainer=option[0], scale_rewards=option[1])
    np.testing.assert_array_equal(square.advantages.ravel(), found.advantages)


def test_groups_by_hand():
    rewards = [[1.0, 0.0, np.nan], [1.0, 1.0, 1.0], [np.nan, 4.0, np.nan]]
    found = trl_batch_metrics(rewards, num_generations=3)
    std = math.sqrt(0.5)
    expected = [[0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(found.advantages, expected)
    np.testing.assert_allclose(found.group_std, [std, 0.0, np.nan])
    assert found.frac_reward_zero_std == pytest.approx(1 / 3)
    assert found.reward == pytest.approx(8 / 6)
    assert found.meta.skipped == {"rewards": "3 of 9 unscorable"}
    batch = trl_batch_metrics(rewards, num_generations=3, scale_rewards="batch")
    assert batch.frac_reward_zero_std == 0.0
    loo = trl_batch_metrics(rewards, num_generations=3, trainer="rloo")
    np.testing.assert_allclose(loo.advantages, [[1.0, -1.0, 0], [0, 0, 0], [0, 0, 0]])


def test_spread_between_prompts_hides_in_the_batch():
    found = trl_batch_metrics([0.0, 0.0, 1.0, 1.0], num_generations=2)
    assert found.reward_std == pytest.approx(math.sqrt(1 / 3))
    assert found.frac_reward_zero_std == 1.0
    assert not found.advantages.any()
    assert "raise the group size" in found.explanation
    hidden = trl_batch_metrics([0.0, 0.0, 1.0, 1.0], num_generations=2, scale_rewards="batch")
    assert hidden.frac_reward_zero_std == 0.0
    assert "nothing about single prompts" in hidden.explanation


def test_float32_of_trl_can_miss_equal_rewards():
    rewards = np.full((1, 3), 0.7)
    assert trl_batch_metrics(rewards, num_generations=3).frac_reward_zero_std == 1.0

    def share(value, k):
        return trl_logs([value] * k, k, "grpo", "group", "float32")["frac_reward_zero_std"]

    missed = {(value, k) for value in np.arange(1, 60) / 20 for k in (3, 6, 7) if not share(value, k)}
    assert len(missed) > 20
    assert min(value for value, _ in missed) < 0.5
    assert all(share(value, k) == 1.0 for value in (0.25, 0.5, 1.0, 1.5, 2.0) for k in (3, 6, 7))


def test_metrics_of_tensors_survive_the_trip():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.5], dtype=torch.bfloat16)
    found = trl_batch_metrics(rewards, num_generations=2)
    gaps = trl_batch_metrics([[1.0, np.nan], [0.5, 0.25]], num_generations=2)
    for result in (found, gaps):
        for other in (result_from_json(result.to_json()), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert other == result
            np.testing.assert_array_equal(other.group_std, result.group_std)
            np.testing.assert_array_equal(other.advantages, result.advantages)
            assert not other.advantages.flags.writeable
    assert not found.advantages.flags.writeable
    assert not found.group_std.flags.writeable
    assert "50%" in found.summary()


@pytest.mark.slow
@pytest.mark.changes_global_state("python random state", "numpy random state", "torch random state")
@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing:FutureWarning")  # TRL calls an old name
@pytest.mark.parametrize(("kind", "scale"), [("grpo", "group"), ("grpo", "batch"), ("rloo", "group")])
def test_runs_of_trl_log_these_figures(tmp_path, kind, scale):
    pytest.importorskip("trl")
    from monitors.dpo_run import save_model
    from monitors.rewards_run import Rewards, reward_trainer

    rewards = Rewards()
    options = {} if kind == "rloo" else {"scale_rewards": scale}
    trainer = reward_trainer(
        save_model(tmp_path / "model"),
        tmp_path / "run",
        kind,
        rewards.functions(kind),
        beta=0.0,
        logging_steps=1,
        gradient_accumulation_steps=1,
        **options,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logs) == len(rewards.calls) == 4
    for call, entry in zip(rewards.calls, logs, strict=True):
        parts = np.array([call["early"], call["late"]], dtype=float)
        summed = np.where(np.isnan(parts).all(axis=0), np.nan, np.nansum(parts, axis=0))
        found = trl_batch_metrics(summed, num_generations=4, trainer=kind, scale_rewards=scale)
        for name in ("reward", "reward_std", "frac_reward_zero_std"):
            assert getattr(found, name) == pytest.approx(entry[name], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize(
    ("rewards", "options", "error", "match"),
    [
        ([1.0, 0.0, 1.0], {}, ValueError, "multiple of `num_generations`"),
        ([[1.0, 0.0, 1.0]], {}, ValueError, "2 columns"),
        ([1.0, np.inf], {}, ValueError, "inf"),
        ([1.0, 0.0], {"trainer": "ppo"}, ValueError, "trainer"),
        ([1.0, 0.0], {"scale_rewards": "std"}, ValueError, "scale_rewards"),
        ([1.0, 0.0], {"trainer": "rloo", "scale_rewards": "batch"}, ValueError, "does not scale"),
        ([1.0, 0.0], {"num_generations": 0}, ValueError, "num_generations"),
        ([1.0, 0.0], {"num_generations": 2.0}, TypeError, "num_generations"),
        ([1e200, -1e200], {}, ValueError, "float64 can hold"),
        ([], {}, ValueError, "rewards"),
    ],
)
def test_batch_refusals(rewards, options, error, match):
    with pytest.raises(error, match=match):
        trl_batch_metrics(rewards, **{"num_generations": 2, **options})

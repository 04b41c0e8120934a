"""Completions that trainers of TRL logged, in the columns and files of TRL 1.16."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rankdiag.rewards._table", reason="tables of rewards are not there yet")

from rankdiag.adapters import from_trl_log


def columns(step=1):
    return {
        "step": [step] * 4,
        "prompt": ["a", "a", "a", "a"],  # two groups may share one prompt
        "completion": [f"{step}{i}" for i in range(4)],
        "exact": [0.0, 1.0, None, 1.0],
        "short": [0.5, 0.5, None, None],
        "advantage": [0.0] * 4,
    }


def test_groups_are_taken_by_place_and_rewards_summed_as_the_trainer_does():
    table = from_trl_log(columns(), num_generations=2, rewards=["exact", "short"], weights=[1.0, 2.0], gold="exact")
    np.testing.assert_array_equal(table.values, [[1.0, 2.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(table.gold, [[0.0, 1.0], [np.nan, 1.0]])
    assert tuple(table.prompt_ids) == ("1:0", "1:1")


def test_a_folder_of_parquet_files_without_repeats(tmp_path):
    pandas = pytest.importorskip("pandas", reason="Parquet is read with pandas")
    pytest.importorskip("pyarrow", reason="Parquet is read with pyarrow")
    folder = tmp_path / "completions"
    folder.mkdir()
    for step, content in ((2, columns(2)), (10, columns(10)), (11, columns(10))):
        pandas.DataFrame(content).to_parquet(folder / f"completions_{step:05d}.parquet")
    table = from_trl_log(tmp_path, num_generations=4, rewards="exact")
    assert tuple(table.prompt_ids) == ("2:0", "10:0")


@pytest.mark.parametrize("source", [[{"loss": 0.1, "reward_std": 0.2}], {"reward_std": [0.2]}])
def test_figures_of_batches_name_what_to_switch_on(source):
    with pytest.raises(ValueError, match="log_completions=True"):
        from_trl_log(source, num_generations=2)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="log_completions=True"):
        from_trl_log(tmp_path, num_generations=2)
    with pytest.raises(ValueError, match="must divide the rollouts"):
        from_trl_log(columns(), num_generations=3, rewards="exact")
    with pytest.raises(ValueError, match="`rewards` must name"):
        from_trl_log(columns(), num_generations=2)
    with pytest.raises(ValueError, match="a group has several prompts"):
        from_trl_log(columns() | {"prompt": list("abcd")}, num_generations=2, rewards="exact")
    with pytest.raises(ValueError, match="must have the column 'other'"):
        from_trl_log(columns(), num_generations=2, rewards="other")

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


@pytest.mark.slow
@pytest.mark.changes_global_state("python random state", "numpy random state", "torch random state")
@pytest.mark.filterwarnings("ignore")
def test_a_real_run_of_grpo(tmp_path):
    trl = pytest.importorskip("trl", reason="the run needs TRL")
    datasets = pytest.importorskip("datasets", reason="the run needs datasets")
    transformers = pytest.importorskip("transformers", reason="the run needs transformers")
    from oracles.tiny_tokenizer import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    seen = []

    def remainder(completions, **_):
        seen.append([float(len(text) % 3) for text in completions])
        return seen[-1]

    options = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=4,
        max_steps=3, logging_steps=1, log_completions=True, report_to=[], use_cpu=True, save_strategy="no", bf16=False,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=transformers.LlamaForCausalLM(config), reward_funcs=remainder, args=options, processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_dict({"prompt": ["a b", "b c", "c a"] * 4}),
    )  # fmt: skip
    trainer.train()
    table = from_trl_log(tmp_path, num_generations=2)
    np.testing.assert_array_equal(table.values, np.array(seen).reshape(-1, 2))
    with pytest.raises(ValueError, match="log_completions=True"):
        from_trl_log(trainer.state.log_history, num_generations=2)

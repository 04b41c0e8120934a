"""Legal plain calls of everything public: found by trying, or listed here where trying cannot know.

The tables hold what a signature does not say (a path, a callable under test, a name that exists). A new function that
no automatic choice satisfies fails its test until it is listed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import rankdiag as rd
from meta import plain_graphs
from meta.surface import Entry, classes, functions, methods
from rankdiag._validate import real
from rankdiag.testing._fuzz import plain_result
from rankdiag.testing._guard import put_back, snapshot

# These are not called with wild values: the reason stands beside each.
NOT_FUZZED = {
    "rankdiag.language_models.load_language_model": "opens what a path names; tests/language_models tries bad folders",
    "rankdiag.rewards.HFSampler": "warns of a cut distribution, by design; tests/rewards tries its options",
    "rankdiag.rewards.RewardTable": "made by its class methods, which are fuzzed",
    "rankdiag.language_models.run": "its plan knows its model by identity, which a copy of both loses",
    "rankdiag.cli.main": "reads a command line of texts and ends in exit codes; tests/cli runs it as a process",
}
# These pass NaN on by design.
NAN_OK = {
    "Backend.asarray",
    "Backend.rounded",
    "PreferenceScores.rank_correlation",  # of constant columns
    "RewardStdMetric.compute",  # no prompt with two rewards
    "RewardStdMetric.forward",
    "TrainerLogDisplacement.document",  # a log without rejected rewards
    "ches_from_padded",  # relative to a distance of 0
    "ches_from_states",
    "ches_from_sums",
    "forecast_report",  # no interval below four pairs
    "from_trainer_log",
    # Readings of rewards that are undefined are NaN: too few scorable rollouts, one prompt, no spread, not asked for.
    "ErrorRecord.document",
    "TeacherReport.correlate",
    "TeacherReport.document",
    "TeacherReport.ranked",
    "categorize_errors",
    "error_report",
    "expected_gradient_norm",
    "gradient_bounds",
    "implicit_reward",
    "low_std_fraction",
    "normalised_reward_variance",
    "reward_moments",
    "reward_std",
    "reward_variance",
    "std_interval",
    "summarize",
    "teacher_report",
    "time_lower_bounds",
    "token_cue_share",
    "token_cues",
    "variance_components",
}
# These are made to raise AssertionError.
ASSERTS = {"Backend.assert_close", "FuzzReport.raise_for_violations"}

MATRIX = np.array([[2.0, 0.5, 0.0], [0.1, 1.0, 0.3], [0.0, 0.2, 0.5], [1.0, -1.0, 0.25]])


def measure(value: float) -> float:
    """A correct function, for tools that test functions."""
    return min(real(value, "value"), 1.0)


def spectrum() -> Any:
    return rd.spectrum(MATRIX)


def report() -> Any:
    return rd.weight_report({"a.weight": MATRIX, "b.weight": MATRIX.T})


def filled(kind: str) -> Any:
    """Return an accumulator that has seen all rows it was announced."""
    accumulator = getattr(rd.spectral, kind)(3, shape=MATRIX.shape, input_dtype="float64")
    accumulator.update(MATRIX)
    return accumulator


def half(kind: str) -> Any:
    accumulator = getattr(rd.spectral, kind)(3, shape=MATRIX.shape, input_dtype="float64")
    accumulator.update(MATRIX[:2])
    return accumulator


PAIR = {"prompt_ids": [1, 5], "chosen_ids": [7, 2], "rejected_ids": [8, 2]}


def trainer() -> Any:
    from transformers import Trainer, TrainingArguments

    before = snapshot()
    settings = TrainingArguments(output_dir="run", report_to="none", use_cpu=True)
    made = Trainer(model=torch.nn.Linear(1, 1), args=settings)
    put_back(before, ["python random state", "numpy random state", "torch random state"])  # trainers seed them all
    return made


def parquet_of(data: Any) -> str:
    data.to_parquet("plain.parquet")
    return "plain.parquet"


STATES = [[1.0, 0.5], [0.25, -1.0], [2.0, 0.0]]
BATCH = np.array([STATES])
MASK = np.array([[True, True, False]])
LAW = np.log([0.5, 0.3, 0.2])


def model() -> Any:
    return rd.testing.tiny_language_model()


def pairs() -> Any:
    return rd.language_models.encode_preferences([PAIR, {**PAIR, "rejected_ids": [3, 4, 2]}])


def outputs() -> Any:
    return [rd.language_models.StateSums(), rd.language_models.LogProbs()]


def planned() -> Any:
    return rd.language_models.plan(pairs(), model(), outputs())


def log_probs(shift: float = 0.0) -> Any:
    return rd.preference.LogProbs(
        chosen=[-3.0 + shift, -4.0 - shift], rejected=[-5.0, -6.0], n_chosen=[2, 2], n_rejected=[2, 2]
    )


def pair_scores() -> Any:
    return rd.preference.score_preferences(model(), pairs())


def journal_folder() -> str:
    rd.preference.score_preferences(model(), pairs(), out="journal")
    return "journal"


def tensors() -> Mapping[str, Any]:
    states, mask = torch.tensor(BATCH), torch.tensor(MASK)
    return {"chosen": states, "chosen_mask": mask, "rejected": states + 1, "rejected_mask": mask}


def context() -> Any:
    """Return the context of one forward, as an output that keeps it sees it."""
    kept = []

    class Keep(rd.language_models.StateSums):
        def start(self, context: Any) -> Any:
            kept.append(context)
            return context

    made = rd.language_models.plan(pairs(), model(), [Keep()])
    list(rd.language_models.run(made.subjects[0].given, made, [Keep()]))
    return kept[0]


def journal() -> Any:
    made = rd.language_models.Journal(tempfile.mkdtemp(), {"n_groups": 1})
    made.append(rows_of_journal())
    return made


def rows_of_journal() -> Any:
    return rd.language_models.Columns(
        keys=("a",), group=np.array([0]), slot=np.array([0]), status=("ok",), values={"score": np.array([0.5])}
    )


REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
POLICY = [0.2, 0.3, 0.5]


def sampled() -> Any:
    record = {"prompt_ids": [1, 2], "responses_ids": [[3], [4], [5], [6]]}
    return rd.language_models.encode([record, {**record, "prompt_ids": [3]}], kind="responses")


def rollouts() -> Any:
    return rd.rewards.Rollouts(prompts=("p", "q"), texts=(("a", "b"), ("c", "d")))


def lengths_of(completions: Any, **columns: Any) -> list[float]:
    """A reward function."""
    return [float(len(text)) for text in completions]


def responses() -> Any:
    return rd.rewards.ResponseStates(states=MATRIX[:2], tokens=[0, 1])


def classifier() -> Any:
    made = model()
    with torch.random.fork_rng(devices=[]):
        made.score = torch.nn.Linear(8, 1)
    return made


def sampling_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=16,
        pad_token_id=0,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        return LlamaForCausalLM(config).eval()


def written(name: str, text: str) -> str:
    from pathlib import Path

    Path(name).write_text(text, encoding="utf-8")
    return name


def policy() -> Any:
    def logits(theta: Any, prefix: tuple[int, ...]) -> Any:
        return theta * (1 + len(prefix))

    return {"logit_fn": logits, "params": [0.1, -0.2], "vocab": 2, "length": 2}


# Plain arguments of functions, by public name.
ARGUMENTS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "rankdiag.language_models.HeadGradient": lambda: {"coefficients": [1.0, -1.0, 1.0, -1.0]},
    "rankdiag.language_models.HeadPressure": lambda: {"matrix": np.ones((12, 8))},
    "rankdiag.language_models.HeadReward": lambda: {"weight": np.ones(8)},
    "rankdiag.language_models.Journal": lambda: {"folder": "rows", "manifest": {"n_groups": 1}},
    "rankdiag.language_models.as_batch_fn": lambda: {"models": model(), "outputs": outputs()},
    "rankdiag.language_models.gradients": lambda: {"model": model(), "data": pairs()},
    "rankdiag.language_models.model_fingerprint": lambda: {"model": model()},
    "rankdiag.language_models.plan": lambda: {"data": pairs(), "models": model(), "outputs": outputs()},
    "rankdiag.language_models.run": lambda: {
        "models": (made := planned()).subjects[0].given,
        "plan": made,
        "outputs": outputs(),
    },
    "rankdiag.language_models.sequence_log_probs": lambda: {"model": model(), "data": pairs()},
    "rankdiag.preference.ches_from_padded": lambda: {
        "chosen": BATCH,
        "chosen_mask": MASK,
        "rejected": BATCH + 1,
        "rejected_mask": MASK,
    },
    "rankdiag.preference.ches_from_states": lambda: {"chosen": [STATES], "rejected": [STATES[:2]]},
    "rankdiag.preference.ches_from_sums": lambda: {
        "sum_chosen": STATES,
        "sum_rejected": STATES[::-1],
        "n_chosen": [1, 2, 3],
        "n_rejected": [1, 2, 3],
    },
    "rankdiag.preference.displacement_report": lambda: {"before": log_probs(), "after": log_probs(0.5)},
    "rankdiag.preference.drop_highest": lambda: {"scores": [0.1, 0.3, 0.2], "n": 1},
    "rankdiag.preference.edit_similarity": lambda: {"chosen_ids": [1, 2], "rejected_ids": [1, 3]},
    "rankdiag.preference.export": lambda: {"indices": [0], "dataset": [{"prompt": "a"}], "path": "kept.jsonl"},
    "rankdiag.preference.forecast_report": lambda: {
        "predicted": [0.1, -0.2],
        "before": log_probs(),
        "after": log_probs(0.5),
        "kind": "score",
    },
    "rankdiag.preference.displacement_score": lambda: {"model": model(), "data": pairs()},
    "rankdiag.preference.head_pressure": lambda: {"model": model(), "data": pairs()},
    "rankdiag.preference.logprob_change_along": lambda: {
        "model": model(),
        "data": pairs(),
        "update": {"lm_head.weight": torch.ones(12, 8)},
    },
    "rankdiag.preference.merge_scores": lambda: {"path": journal_folder()},
    "rankdiag.preference.score_preferences": lambda: {"model": model(), "data": pairs()},
    "rankdiag.preference.sequence_log_probs": lambda: {"model": model(), "data": pairs()},
    "rankdiag.preference.token_contributions": lambda: {"model": model(), "data": pairs(), "pairs": [0]},
    "rankdiag.preference.from_trainer_log": lambda: {"log_history": [{"rewards/chosen": 0.1, "step": 1}], "beta": 0.1},
    "rankdiag.preference.keep_lowest": lambda: {"scores": [0.1, 0.3, 0.2], "n": 1},
    "rankdiag.preference.losses.ches_loss": tensors,
    "rankdiag.preference.losses.ln_ches_loss": tensors,
    "rankdiag.preference.losses.relative_ches_loss": tensors,
    "rankdiag.preference.mass_by_group": lambda: {
        "logp_before": LAW,
        "logp_after": LAW[::-1],
        "groups": {"benign": [0], "catastrophic": [2]},
    },
    "rankdiag.preference.multi_sample_dynamics": lambda: {
        "W": MATRIX,
        "hidden": MATRIX[:2],
        "chosen": [0, 1],
        "rejected": [2, 3],
    },
    "rankdiag.preference.multi_token_dynamics": lambda: {
        "W": MATRIX,
        "chosen_states": MATRIX[:2],
        "rejected_states": MATRIX[2:],
        "chosen_ids": [0, 1],
        "rejected_ids": [2, 3],
    },
    "rankdiag.preference.quantile_window": lambda: {"scores": [0.1, 0.3, 0.2], "q": 0.5, "num": 1},
    "rankdiag.preference.simulate_single_token": lambda: {
        "W": MATRIX,
        "h": MATRIX[0],
        "chosen": 0,
        "rejected": 1,
        "lr": 0.1,
        "steps": 2,
    },
    "rankdiag.preference.single_token_dynamics": lambda: {"W": MATRIX, "h": MATRIX[0], "chosen": 0, "rejected": 1},
    "rankdiag.preference.token_mass_shift": lambda: {"logp_before": LAW, "logp_after": LAW[::-1], "preferred": 0},
    "rankdiag.preference.unembedding_geometry": lambda: {"W": MATRIX, "chosen": 0, "rejected": 1},
    "rankdiag.language_models.encode": lambda: {"records": [PAIR]},
    "rankdiag.language_models.encode_preferences": lambda: {"records": [PAIR]},
    "rankdiag.language_models.extract_prompt": lambda: {"record": {"chosen": "a b", "rejected": "a c"}},
    "rankdiag.language_models.read_records": lambda: {"source": [PAIR]},
    "rankdiag.language_models.split_joint": lambda: {
        "prompt_ids": [1, 5],
        "prompt_chosen_ids": [1, 5, 7],
        "prompt_rejected_ids": [1, 5, 8],
    },
    "rankdiag.language_models.truncate_row": lambda: {"prompt_ids": [1, 5], "response_ids": [7, 2], "max_length": 3},
    "rankdiag.monitors.RewardLandscapeCallback": lambda: {"monitor": rd.monitors.RewardLandscapeMonitor()},
    "rankdiag.monitors.wrap_reward_fn": lambda: {"fn": lengths, "monitor": rd.monitors.RewardLandscapeMonitor()},
    "rankdiag.monitors.DisplacementCallback": lambda: {"probe": rd.language_models.encode_preferences([PAIR])},
    "rankdiag.adapters.WalkIndexSparsify": lambda: {"keep_ratio": 0.5},
    "rankdiag.adapters.read_graph": lambda: {"path": written("graph.txt", "0 1\n1 2\n")},
    "rankdiag.adapters.write_graph": lambda: {
        "graph": rd.adapters.read_graph(written("graph.txt", "0 1\n1 2\n")),
        "path": "out.txt",
    },
    "rankdiag.adapters.from_rewardbench": lambda: {
        "path": written("scores.jsonl", '{"scores_chosen": 1.0, "scores_rejected": 0.0, "results": 1, "subset": "a"}\n')
    },
    "rankdiag.adapters.from_trl_log": lambda: {
        "source": {"step": [1, 1], "prompt": ["a", "a"], "completion": ["b", "c"], "exact": [0.0, 1.0]},
        "num_generations": 2,
    },
    "rankdiag.reward_moments": lambda: {"values": REWARDS},
    "rankdiag.reward_std": lambda: {"values": REWARDS},
    "rankdiag.reward_variance": lambda: {"values": REWARDS},
    "rankdiag.rewards.EnumeratedAutoregressive": policy,
    "rankdiag.rewards.HFSampler": lambda: {"model": sampling_model(), "max_new_tokens": 2},
    "rankdiag.rewards.LogLinearPolicy": lambda: {"features": MATRIX[:, :2], "weights": [0.5, -0.5]},
    "rankdiag.rewards.SequentialStd": lambda: {"tau": 0.1, "reward_range": (0.0, 1.0), "max_rollouts": 64},
    "rankdiag.rewards.TableSampler": lambda: {"responses": [["a", "b"], ["c", "d"]]},
    "rankdiag.rewards.TabularPolicy": lambda: {"logits": POLICY},
    "rankdiag.rewards.attraction": lambda: {"probs": POLICY, "reward": [1.0, 0.0, -1.0]},
    "rankdiag.rewards.best_of_n": lambda: {"proxy": [1.0, 2.0, 3.0], "gold": [0.0, 1.0, 0.5], "n": 2},
    "rankdiag.rewards.beta_binomial_zero_std": lambda: {"a": 0.5, "b": 0.5, "k": 4},
    "rankdiag.rewards.c4_factor": lambda: {"k": 4},
    "rankdiag.rewards.categorize_errors": lambda: {
        "pi0": POLICY,
        "r_proxy": [1.0, 0.5, 0.0],
        "r_gold": [1.0, 0.0, 0.0],
    },
    "rankdiag.rewards.credit_report": lambda: {"verdicts": [[[1, 1], [1, 0], [0, 0], [0, 1]]], "group_sizes": (2,)},
    "rankdiag.rewards.error_attribution": lambda: {
        "probs": POLICY,
        "proxy": [1.0, 0.5, 0.0],
        "gold": [1.0, 0.0, 0.0],
    },
    "rankdiag.rewards.error_report": lambda: {"proxy": REWARDS, "gold": [row[::-1] for row in REWARDS]},
    "rankdiag.rewards.exact_reward_moments": lambda: {"probs": POLICY, "rewards": [1.0, 0.0, -1.0]},
    "rankdiag.rewards.expected_gradient_norm": lambda: {
        "model": model(),
        "rollouts": sampled(),
        "rewards": REWARDS[:2],
    },
    "rankdiag.rewards.from_sampler": lambda: {
        "sampler": rd.rewards.TableSampler([["a", "b"]]),
        "prompts": ["p"],
        "k": 2,
        "functions": lengths_of,
    },
    "rankdiag.rewards.generalisation_report": lambda: {
        "rewards": {"m": {"a": ([1.0, 2.0], [0.0, 3.0]), "b": ([1.0, 2.0], [0.0, 1.0])}},
        "groups": {"a": "in_distribution", "b": "token_shift"},
    },
    "rankdiag.rewards.generative_rewards": lambda: {"model": model(), "data": sampled(), "yes": 10},
    "rankdiag.rewards.gradient_alignment": lambda: {
        "probs": POLICY,
        "train": [1.0, 0.5, 0.0],
        "evaluation": [1.0, 0.0, 0.0],
    },
    "rankdiag.rewards.gradient_bounds": lambda: {"std": 0.1, "length": 4, "jacobian": 1.0},
    "rankdiag.rewards.hamiltonian_pairs": lambda: {"n_graphs": 2, "n": 5},
    "rankdiag.rewards.implicit_reward": lambda: {"logp": [-1.0, -2.0]},
    "rankdiag.rewards.implicit_rewards": lambda: {"model": model(), "reference": model(), "data": sampled()},
    "rankdiag.rewards.instance_report": lambda: {
        "instances": {"initial_probs": POLICY, "train_reward": [1, 0.5, 0], "ground_truth_reward": [1, 0, 0]},
        "horizon": 10.0,
    },
    "rankdiag.rewards.is_hamiltonian_cycle": lambda: {"order": [0, 1, 2], "edges": [(0, 1), (1, 2), (0, 2)], "n": 3},
    "rankdiag.rewards.jacobian_norm": lambda: {"model": model(), "rollouts": sampled(), "prefixes": 1, "iterations": 2},
    "rankdiag.rewards.low_std_fraction": lambda: {"table": REWARDS, "tau": 0.1},
    "rankdiag.rewards.normalised_reward_variance": lambda: {"table": REWARDS},
    "rankdiag.rewards.optimal_rollouts": lambda: {"pilot": REWARDS},
    "rankdiag.rewards.pair_accuracy": lambda: {"chosen": [1.0, 2.0], "rejected": [0.0, 3.0]},
    "rankdiag.rewards.pair_report": lambda: {"chosen": [1.0, 2.0], "rejected": [0.0, 3.0]},
    "rankdiag.rewards.pair_weights": lambda: {"log_probs": [[-1.0, -2.0], [-3.0, -1.0]]},
    "rankdiag.rewards.ranking_accuracy": lambda: {
        "proxy": REWARDS,
        "gold": [row[::-1] for row in REWARDS[:2]] + [[*POLICY, 0.0]],
    },
    "rankdiag.rewards.repair_errors": lambda: {
        "pi0": POLICY,
        "r_proxy": [1.0, 0.5, 0.0],
        "r_gold": [1.0, 0.9, 0.0],
        "horizon": 5.0,
    },
    "rankdiag.rewards.response_log_probs": lambda: {
        "logits": np.zeros((1, 3, 4)),
        "input_ids": [[1, 2, 3]],
        "response_mask": [[False, True, True]],
    },
    "rankdiag.rewards.reward_transfer": lambda: {
        "chosen": MATRIX[:2],
        "rejected": MATRIX[2:],
        "evaluation": MATRIX,
        "kind": "ex",
    },
    "rankdiag.rewards.rloo_gradient": lambda: {"rewards": REWARDS[0], "scores": MATRIX},
    "rankdiag.rewards.reward_function": lambda: {"model": classifier()},
    "rankdiag.rewards.score": lambda: {"rollouts": rollouts(), "functions": lengths_of},
    "rankdiag.rewards.score_rollouts": lambda: {"rollouts": rollouts(), "functions": lengths_of},
    "rankdiag.rewards.sequence_rewards": lambda: {"model": classifier(), "data": sampled()},
    "rankdiag.rewards.simulate_policy_gradient": lambda: {
        "p0": POLICY,
        "train_reward": [1.0, 0.0, -1.0],
        "horizon": 1.0,
    },
    "rankdiag.rewards.squared_gradient_norm": lambda: {"rewards": REWARDS[0], "gram": np.eye(4)},
    "rankdiag.rewards.std_interval": lambda: {"values": REWARDS[0], "reward_range": (0.0, 1.0)},
    "rankdiag.rewards.summarize": lambda: {"table": REWARDS},
    "rankdiag.rewards.teacher_report": lambda: {
        "proxies": {"a": REWARDS, "b": [row[::-1] for row in REWARDS]},
        "gold": REWARDS,
        "bootstrap": 0,
    },
    "rankdiag.rewards.teacher_times": lambda: {"pi0": POLICY, "gold": [1.0, 0.0, -1.0], "gamma": 0.3},
    "rankdiag.rewards.time_lower_bounds": lambda: {"gamma": 0.5, "mean_var": 0.1, "length": 1, "jacobian": 1.0},
    "rankdiag.rewards.token_coefficients": lambda: {
        "evaluation": responses(),
        "train": responses(),
        "unembedding": MATRIX,
    },
    "rankdiag.rewards.token_cue_share": lambda: {
        "chosen": [responses()],
        "rejected": [responses()],
        "evaluation": [responses()],
        "unembedding": MATRIX,
    },
    "rankdiag.rewards.token_cues": lambda: {"model": model(), "train": rd.language_models.encode_preferences([PAIR])},
    "rankdiag.rewards.trl_batch_metrics": lambda: {"rewards": REWARDS, "num_generations": 4},
    "rankdiag.rewards.two_output_times": lambda: {"eps": 0.1},
    "rankdiag.rewards.variance_components": lambda: {"table": REWARDS},
    "rankdiag.rewards.verifier_tilt": lambda: {"pi_ref": POLICY, "correct": [0], "delta": 1.0, "beta": 1.0},
    "rankdiag.rewards.zero_std_at_k": lambda: {"values": REWARDS, "k": 2},
    "rankdiag.rewards.zero_std_probability": lambda: {"p": 0.3, "k": 4},
    "rankdiag.report.from_json": lambda: {"text": rd.report.to_json(spectrum())},
    "rankdiag.report.to_html": lambda: {"results": spectrum()},
    "rankdiag.report.to_json": lambda: {"results": spectrum()},
    "rankdiag.report.to_text": lambda: {"results": spectrum()},
    "rankdiag.report.write_html": lambda: {"results": spectrum(), "path": "written.html"},
    "rankdiag.report.write_json": lambda: {"results": spectrum(), "path": "written.json"},
    "rankdiag.result_from_dict": lambda: {"data": spectrum().to_dict()},
    "rankdiag.result_from_json": lambda: {"text": spectrum().to_json()},
    "rankdiag.testing.fuzz": lambda: {"function": measure, "max_cases": 3},
    "rankdiag.testing.strategies.orthogonal": lambda: {"rows": 3, "columns": 2},
    "rankdiag.weights.power_law_tail": lambda: {"evals": np.linspace(1.0, 3.0, 60) ** 4},
}
# Plain arguments of methods, by their name in source, from the object that they are called on.
METHOD_ARGUMENTS: dict[str, Callable[[Any], Mapping[str, Any]]] = {
    "DisplacementCallback.bind": lambda own: {"trainer": trainer()},
    "Encoded.from_parquet": lambda own: {"path": parquet_of(own)},
    "Encoded.to_parquet": lambda own: {"path": "plain.parquet"},
    "GramAccumulator.merge": lambda own: {"other": half("GramAccumulator")},
    "Journal.append": lambda own: {"columns": rows_of_journal()},
    "Journal.manifest": lambda own: {"folder": journal_folder()},
    "Journal.merge_folder": lambda own: {"folder": journal_folder()},
    "Journal.note": lambda own: {"event": {"batch": 1}},
    "Journal.read": lambda own: {"folder": journal_folder()},
    "PairColumns.column": lambda own: {"name": own.columns[0]},
    "PairColumns.usable_values": lambda own: {"name": own.columns[0]},
    "PreferenceScores.rank_correlation": lambda own: {"first": own.columns[0], "second": own.columns[1]},
    "HFSampler.sample": lambda own: {"prompts": [[1, 3]], "k": 2},
    "QRAccumulator.merge": lambda own: {"other": half("QRAccumulator")},
    "RewardTable.from_array": lambda own: {"values": REWARDS},
    "RewardTable.from_dict": lambda own: {"data": own.to_dict()},
    "RewardTable.from_records": lambda own: {"rows": [{"prompt_id": "p", "reward": 1.0}]},
    "TableSampler.sample": lambda own: {"prompts": ["p", "q"], "k": 1},
    "TabularPolicy.from_probs": lambda own: {"probs": [0.25, 0.75]},
    "Scores.table": lambda own: {"name": "lengths_of"},
    "TeacherReport.correlate": lambda own: {"increase": {"a": 1.0, "b": 2.0}},
    "Result.from_dict": lambda own: {"data": own.to_dict()},
    "RewardLandscapeCallback.bind": lambda own: {"trainer": trainer()},
    "RewardStdMetric.forward": lambda own: {"rewards": [0.0, 1.0], "prompts": ["a", "a"]},
    "RewardStdMetric.merge_state": lambda own: {"incoming_state": metric()},
    "RewardStdMetric.update": lambda own: {"rewards": [0.0, 1.0], "prompts": ["a", "a"]},
    "Table.column": lambda own: {"name": own.columns[0].name},
    "WalkIndexSparsify.forward": lambda own: {"data": pyg_path()},
    "WeightComparison.cell": lambda own: {"name": own.rows[0].name, "column": own.rows[0].column},
    "WeightComparison.of": lambda own: {"column": own.rows[0].column},
    "WeightDeltaReport.row": lambda own: {"name": own.rows[0].name},
    "WeightReport.compare": lambda own: {"other": report()},
    "WeightReport.row": lambda own: {"name": own.rows[0].name},
}
ARGUMENTS |= plain_graphs.ARGUMENTS
METHOD_ARGUMENTS |= plain_graphs.METHOD_ARGUMENTS
# Objects to call methods on, by method or class, where no plain call returns a fit one.
OBJECTS: dict[str, Callable[[], Any]] = {
    "GramAccumulator": lambda: filled("GramAccumulator"),
    "GramAccumulator.merge": lambda: half("GramAccumulator"),
    "GramAccumulator.update": lambda: half("GramAccumulator"),
    "QRAccumulator": lambda: filled("QRAccumulator"),
    "QRAccumulator.merge": lambda: half("QRAccumulator"),
    "QRAccumulator.update": lambda: half("QRAccumulator"),
    "HFSampler": lambda: rd.rewards.HFSampler(sampling_model(), max_new_tokens=2),
    "Journal": lambda: journal(),
    "RewardTable": lambda: rd.rewards.RewardTable.from_array(REWARDS),
    "RewardStdMetric": lambda: metric(),
    "Result.document": lambda: report().compare(report()),
    "Result.plot": lambda: spectrum(),
    "WeightComparison": lambda: report().compare(report()),
    **plain_graphs.OBJECTS,
}


def lengths(prompts: Any, completions: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def pyg_path() -> Any:
    from torch_geometric.data import Data

    return Data(edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), num_nodes=3)


def metric() -> Any:
    seen = rd.monitors.RewardStdMetric(compute_with_cache=False)  # torchmetrics' cache answers whatever it is asked
    seen.update([0.0, 1.0, 2.0], ["a", "a", "b"])
    return seen


def arguments(name: str) -> dict[str, Any]:
    return dict(ARGUMENTS[name]()) if name in ARGUMENTS else {}


def fuzzed_functions() -> tuple[Entry, ...]:
    records = [entry for entry in classes() if dataclasses.is_dataclass(entry.value) or hasattr(entry.value, "_fields")]
    protocols = [entry for entry in classes() if getattr(entry.value, "_is_protocol", False)]
    plain = [
        entry for entry in classes() if entry not in (*records, *protocols)
    ]  # a record holds what it is given, as a tuple does
    built = [
        entry for entry in plain if not (issubclass(entry.value, BaseException) or inspect.isabstract(entry.value))
    ]
    return tuple(entry for entry in (*functions(), *built) if entry.name not in NOT_FUZZED)


@functools.cache
def result_of(name: str) -> Any:
    entry = next(entry for entry in fuzzed_functions() if entry.name == name)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # some write files
        return plain_result(entry.value, arguments=arguments(name))


def _parts(value: Any, depth: int = 0) -> list[Any]:
    if depth > 3 or isinstance(value, (str, bytes, np.ndarray, type)):
        return []
    if isinstance(value, (list, tuple)):
        return [part for entry in value[:3] for part in _parts(entry, depth + 1)]
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
        return [value, *(part for field in fields for part in _parts(field, depth + 1))]
    return [value]


@functools.cache
def instances() -> dict[type, Any]:
    """Return one object of every public class that some plain call returns or the tables know."""
    found: dict[type, Any] = {}
    values: list[Any] = [make() for make in OBJECTS.values()]
    for entry in fuzzed_functions():
        with contextlib.suppress(Exception):  # a function without a plain call fails in its own test
            values.append(result_of(entry.name))
    for value in (*values, *rd.testing.BACKENDS):
        for part in _parts(value):
            found.setdefault(type(part), part)
    return found


@dataclasses.dataclass(frozen=True)
class Method:
    """One public method of one object, ready to be called."""

    name: str  # "rankdiag.spectral.Spectrum.stable_rank"
    qualname: str  # "Spectrum.stable_rank", or "Result.summary" where the base defines it

    own: type

    def bound(self) -> Callable[..., Any]:
        method = self.name.rpartition(".")[2]
        for key in (self.qualname, self.own.__name__):
            if key in OBJECTS:
                return getattr(OBJECTS[key](), method)
        return getattr(instances()[self.own], method)

    def arguments(self) -> dict[str, Any]:
        make = METHOD_ARGUMENTS.get(self.qualname)
        return dict(make(instances()[self.own])) if make else {}


def fuzzed_methods() -> tuple[Method, ...]:
    """Return every public method of those objects, each function once."""
    seen: set[int] = set()
    found = []
    for entry in classes():
        if entry.value in instances():
            for method, value in methods(entry.value).items():
                function = getattr(value, "__func__", value)
                # The engine hands an output what it has made itself; nobody else calls its methods.
                called_by_engine = method in {"start", "update", "finish", "check"} and hasattr(entry.value, "needs")
                if id(function) not in seen and not isinstance(value, property) and not called_by_engine:
                    seen.add(id(function))
                    found.append(Method(f"{entry.name}.{method}", function.__qualname__, entry.value))
    return tuple(sorted(found, key=lambda method: method.name))

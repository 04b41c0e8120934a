"""The monitor in the real DPO trainer of TRL: twenty steps with and without it, and what that trainer alone has."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

from datasets import Dataset

from monitors.dpo_run import (
    Reporter,
    dpo_trainer,
    load_model,
    pairs,
    plain_sums,
    records,
    save_model,
    tiny_tokenizer,
    weights,
)
from rankdiag.language_models import encode_preferences
from rankdiag.monitors import DisplacementCallback, DisplacementLimit

PREFIX = "rankdiag/preference/"
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


@pytest.fixture(scope="module")
def probe() -> Any:
    return encode_preferences(pairs()[::2], tiny_tokenizer())


def displacement(model_folder: Path, after: Any, probe: Any) -> tuple[np.ndarray, np.ndarray]:
    before = plain_sums(load_model(model_folder), probe)
    final = plain_sums(after, probe)
    return final[0] - before[0], final[1] - before[1]


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"lora": True},
    "accumulated": {"gradient_accumulation_steps": 2, "max_steps": 6},
    "evaluated": {"eval_strategy": "steps", "eval_steps": 7, "eval": True},
    "bf16": {"bf16": True, "max_steps": 6},
    "checkpointed": {"activation_checkpointing": True, "max_steps": 6},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_training_is_the_same_and_displacement_is_right(
    model_folder: Path, probe: Any, tmp_path: Path, name: str
) -> None:
    def begin(folder: str, **more: Any) -> Any:
        options = dict(VARIANTS[name])
        if options.pop("lora", False):
            from peft import LoraConfig

            options["peft_config"] = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
        if options.pop("eval", False):
            options["eval_dataset"] = Dataset.from_list(pairs()[:8])
        return dpo_trainer(model_folder, tmp_path / folder, **options, **more)

    without = begin("without")
    without.train()
    reporter = Reporter()
    trainer = begin("with", callbacks=[reporter])
    monitor = DisplacementCallback(probe, every=5).bind(trainer)
    trainer.train()

    for key, value in weights(without.model).items():
        assert torch.equal(value, weights(trainer.model)[key]), key
    assert records(trainer, ours=False) == records(without, ours=False)
    assert any("rewards/chosen" in record for record in records(trainer, ours=False))

    tolerance = 0.5 if name == "bf16" else 5e-4  # sixteen bits against thirty-two, over two dozen tokens
    chosen, rejected = displacement(model_folder, trainer.model, probe)
    assert monitor.report is not None
    assert np.abs(chosen).max() > 10 * tolerance or name == "bf16"
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=tolerance)
    np.testing.assert_allclose(monitor.report.delta_rejected, rejected, atol=tolerance)

    if name == "bf16":  # in the precision of the training itself: a model loaded anew has no autocast around it
        exact = load_model(model_folder)
        exact.load_state_dict(weights(trainer.model))
        assert np.abs(monitor.report.delta_chosen - displacement(model_folder, exact, probe)[0]).max() > 1e-3

    probes = [record for record in records(trainer, ours=True) if PREFIX + "mean_delta_chosen" in record]
    last = trainer.args.max_steps
    expected = sorted({*range(5, last + 1, 5), last, *((7, 14) if name == "evaluated" else ())})
    assert [record["step"] for record in probes] == expected
    margin = 0.1 * (chosen - rejected)
    loss = np.log1p(np.exp(-margin)).mean()
    assert probes[-1][PREFIX + "loss"] == pytest.approx(loss, abs=tolerance)
    sent = [logs for logs in reporter.seen if PREFIX + "mean_delta_chosen" in logs]
    assert sent == [{key: value for key, value in record.items() if key != "step"} for record in probes]


def test_windows_are_rewards_in_nats(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    reporter = Reporter()
    trainer = dpo_trainer(model_folder, tmp_path, beta=0.2, max_steps=10, callbacks=[reporter])
    DisplacementCallback(probe, every=100).bind(trainer)
    trainer.train()
    theirs = {r["step"]: r for r in records(trainer, ours=False) if "rewards/chosen" in r}
    windows = [r for r in records(trainer, ours=True) if PREFIX + "window_mean_delta_chosen" in r]
    assert [window["step"] for window in windows] == [4, 8, 10]
    for window in windows:
        for side in ("chosen", "rejected"):
            reward = theirs[window["step"]][f"rewards/{side}"]
            assert window[PREFIX + f"window_mean_delta_{side}"] == pytest.approx(reward / 0.2)
    assert reporter.after_the_end == 0
    assert sum(PREFIX + "window_mean_delta_chosen" in logs for logs in reporter.seen) == 2  # and 10, past their end

    quiet = dpo_trainer(model_folder, tmp_path, max_steps=4)
    DisplacementCallback(probe, every=100, window_log=False).bind(quiet)
    quiet.train()
    assert not any(PREFIX + "window_mean_delta_chosen" in record for record in records(quiet, ours=True))


def test_rewards_that_are_no_sums_are_refused(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    trainer = dpo_trainer(model_folder, tmp_path, ld_alpha=0.5, max_steps=2)
    with pytest.raises(ValueError, match=r"ld_alpha=0\.5.*window_log=False"):
        DisplacementCallback(probe).bind(trainer)
    out = tmp_path / "x.jsonl"
    monitor = DisplacementCallback(probe, window_log=False, out=out).bind(trainer)
    trainer.train()
    chosen, _ = displacement(model_folder, trainer.model, probe)
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=5e-4)
    assert "length-desensitised" in json.loads(out.read_text().splitlines()[0])["loss"]["note"]


def test_a_moving_reference_is_followed(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    options = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 1.0, "max_steps": 5}
    trainer = dpo_trainer(model_folder, tmp_path, **options)
    with pytest.raises(ValueError, match="sync_ref_model"):
        DisplacementCallback(probe).bind(trainer)
    DisplacementCallback(probe, every=1, window_log=False).bind(trainer)
    trainer.train()
    losses = {record["step"]: record[PREFIX + "loss"] for record in records(trainer, ours=True)}
    assert losses[2] == pytest.approx(math.log(2), abs=1e-5)  # the reference has just become the policy
    assert losses[4] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[3] < math.log(2) - 1e-4


@pytest.mark.parametrize("precompute", [False, True])
def test_another_reference_counts_in_the_loss_and_not_in_displacement(
    model_folder: Path, probe: Any, tmp_path: Path, precompute: bool
) -> None:
    other = load_model(model_folder)
    with torch.no_grad():
        other.lm_head.weight.mul_(3.0)
    reference = plain_sums(other, probe)
    options = {"precompute_ref_log_probs": precompute, "max_steps": 3}
    trainer = dpo_trainer(model_folder, tmp_path, ref_model=other, **options)
    monitor = DisplacementCallback(probe, every=3).bind(trainer)
    trainer.train()
    assert monitor.baseline == "start"
    policy = plain_sums(trainer.model, probe)
    chosen, _ = displacement(model_folder, trainer.model, probe)
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=5e-4)
    margin = (policy[0] - reference[0]) - (policy[1] - reference[1])
    assert monitor.report.loss_after == pytest.approx(np.log1p(np.exp(-0.1 * margin)).mean(), abs=1e-4)
    assert monitor.report.implicit_reward_accuracy == (margin > 0).mean()


@pytest.mark.parametrize("case", ["used", "cut", "missing"])
def test_precomputed_references_are_used_where_they_are_the_start(
    model_folder: Path, probe: Any, tmp_path: Path, case: str
) -> None:
    watched = encode_preferences([{"prompt": "Who?", "chosen": " I.", "rejected": " You."}], tiny_tokenizer())
    trainer = dpo_trainer(
        model_folder,
        tmp_path,
        precompute_ref_log_probs=True,
        max_length=30 if case == "cut" else 256,
        max_steps=4,
    )
    watched = watched if case == "missing" else probe
    monitor = DisplacementCallback(watched, every=2).bind(trainer)
    trainer.train()
    assert monitor.baseline == ("precomputed" if case == "used" else "start")
    assert monitor.probes == (2 if case == "used" else 3)
    chosen, rejected = displacement(model_folder, trainer.model, watched)
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=5e-4)
    np.testing.assert_allclose(monitor.report.delta_rejected, rejected, atol=5e-4)


def test_pairs_cut_at_the_front_are_not_those_of_the_trainer(model_folder: Path, tmp_path: Path) -> None:
    cut = encode_preferences(pairs()[::2], tiny_tokenizer(), max_length=26, truncation="keep_end")
    assert cut.prompt_start.any()
    trainer = dpo_trainer(model_folder, tmp_path, precompute_ref_log_probs=True, max_steps=1)
    monitor = DisplacementCallback(cut).bind(trainer)
    trainer.train()
    assert monitor.baseline == "start"


def test_precomputed_references_save_a_resume(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    def begin(steps: int) -> Any:
        return dpo_trainer(
            model_folder,
            tmp_path,
            precompute_ref_log_probs=True,
            save_strategy="steps",
            save_steps=2,
            max_steps=steps,
        )

    begin(2).train()
    trainer = begin(4)
    monitor = DisplacementCallback(probe, every=2).bind(trainer)
    trainer.train(resume_from_checkpoint=True)  # a checkpoint that knows no probe, and no warning
    assert monitor.baseline == "precomputed"
    chosen, _ = displacement(model_folder, trainer.model, probe)
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=5e-4)


def test_a_resumed_run_counts_from_the_start(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    def begin(steps: int) -> tuple[Any, DisplacementCallback]:
        trainer = dpo_trainer(model_folder, tmp_path, save_strategy="steps", save_steps=4, max_steps=steps)
        return trainer, DisplacementCallback(probe, every=4).bind(trainer)

    begin(4)[0].train()
    trainer, monitor = begin(8)
    trainer.train(resume_from_checkpoint=True)
    chosen, rejected = displacement(model_folder, trainer.model, probe)
    assert monitor.baseline == "start"
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=5e-4)
    np.testing.assert_allclose(monitor.report.delta_rejected, rejected, atol=5e-4)


def test_the_gate_stops_a_run(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    """Two responses that begin alike, and a rate far too high: the chosen ones fall."""
    trainer = dpo_trainer(model_folder, tmp_path, learning_rate=0.2, optim="sgd", max_grad_norm=0.0, beta=2.0)
    limit = DisplacementLimit(mean_below=-5.0, patience=2)
    monitor = DisplacementCallback(probe, every=1, stop_if=limit).bind(trainer)
    trainer.train()
    means = [r[PREFIX + "mean_delta_chosen"] for r in records(trainer, ours=True) if PREFIX + "loss" in r]
    assert trainer.state.global_step == len(means) < 20
    assert max(means[-2:]) < -5.0
    assert not any(first < -5.0 and second < -5.0 for first, second in itertools.pairwise(means[:-1]))
    assert monitor.stopped


LOSSES = {
    "sigmoid": ("sigmoid", ""),
    "ipo": ("ipo_norm", ""),
    "hinge": ("hinge", ""),
    "robust": ("robust", ""),
    "apo_zero": ("apo_zero", ""),
    "sigmoid_norm": ("sigmoid_norm", ""),
    "sppo_hard": ("sppo_hard", ""),
    "nca_pair": ("nca_pair", ""),
    "bco_pair": ("bco_pair", ""),
    "apo_down": ("apo_down", ""),
    "aot": ("dpo", "aot"),
    "sft": ("dpo", "sft"),
    "sigmoid+sft": ("dpo", "sum of losses"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_the_report_is_that_of_the_trainer(model_folder: Path, tmp_path: Path, loss: str) -> None:
    """The first step's loss is that of the untrained policy on its batch; the probe is that batch."""
    named, note = LOSSES[loss]
    trainer = dpo_trainer(
        model_folder,
        tmp_path / "run",
        loss_type=loss.split("+"),
        label_smoothing=0.1 if loss == "robust" else 0.0,
        beta=0.3,
        max_steps=2,
        logging_steps=1,
        per_device_train_batch_size=32,
        lr_scheduler_type="constant",
    )
    watched = encode_preferences(pairs(), tiny_tokenizer())
    monitor = DisplacementCallback(watched, every=1, out=tmp_path / "x.jsonl").bind(trainer)
    trainer.train()
    begun = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[0])["loss"]
    assert begun["name"] == named
    assert note in begun["note"]
    if not note:
        own = [record["loss"] for record in records(trainer, ours=False) if "loss" in record]
        probes = [record for record in records(trainer, ours=True) if PREFIX + "loss" in record]
        assert probes[0][PREFIX + "loss"] == pytest.approx(own[1], rel=1e-4, abs=1e-5)
        assert monitor.report is not None
        assert monitor.report.loss_before == pytest.approx(own[0], rel=1e-4, abs=1e-5)

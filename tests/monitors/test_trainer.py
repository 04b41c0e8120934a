"""The monitor in the plain trainer of transformers: what it measures, where it logs, and that it changes nothing."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from monitors.dpo_run import (
    Reporter,
    load_model,
    pairs,
    plain_sums,
    plain_trainer,
    records,
    save_model,
    tiny_tokenizer,
    weights,
)
from rankdiag._validate import RankdiagWarning
from rankdiag.language_models import encode_preferences
from rankdiag.monitors import DisplacementCallback, DisplacementLimit
from rankdiag.preference import LogProbs, displacement_report

PREFIX = "rankdiag/preference/"
# A trainer seeds what its arguments name; the tests here compare runs that do so alike.
pytestmark = pytest.mark.changes_global_state("python random state", "numpy random state", "torch random state")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), dropout=0.1)


@pytest.fixture(scope="module")
def probe() -> Any:
    unusable = {"prompt": "Say nothing.", "chosen": " x", "rejected": " x"}
    return encode_preferences([*pairs()[:7], unusable, *pairs()[-4:]], tiny_tokenizer())


@pytest.fixture(scope="module")
def plain(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list, dict]:
    """Weights, log, and mode of each module of a run without a monitor."""
    trainer = plain_trainer(model_folder, tmp_path_factory.mktemp("plain"), eval_every=4)
    trainer.train()
    return weights(trainer.model), records(trainer, ours=False), modes(trainer.model)


def modes(model: Any) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def expected(model_folder: Path, after: Any, probe: Any) -> tuple[np.ndarray, np.ndarray]:
    before = plain_sums(load_model(model_folder), probe)
    final = plain_sums(after, probe)
    return final[0] - before[0], final[1] - before[1]


def test_training_is_the_same_and_displacement_is_right(
    model_folder: Path, probe: Any, plain: tuple[dict, list, dict], tmp_path: Path
) -> None:
    reporter = Reporter()
    trainer = plain_trainer(model_folder, tmp_path / "run", eval_every=4, callbacks=[reporter])
    monitor = DisplacementCallback(probe, every=3, out=tmp_path / "new" / "probe.jsonl").bind(trainer)
    trainer.train()

    assert plain[0].keys() == weights(trainer.model).keys()
    for name, value in weights(trainer.model).items():
        assert torch.equal(value, plain[0][name]), name
    assert records(trainer, ours=False) == plain[1]
    assert modes(trainer.model) == plain[2]
    assert {step for step, training in reporter.training if training} == {3, 5, 6, 9, 10}

    chosen, rejected = expected(model_folder, trainer.model, probe)
    use = ~np.isnan(chosen)
    assert use.sum() == 11
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen[use], chosen[use], atol=2e-4)
    np.testing.assert_allclose(monitor.report.delta_rejected[use], rejected[use], atol=2e-4)

    ours = records(trainer, ours=True)
    assert [record["step"] for record in ours] == [3, 4, 6, 8, 9, 10]
    assert [logs for logs in reporter.seen if any(key.startswith(PREFIX) for key in logs)] == [
        {key: value for key, value in record.items() if key != "step"} for record in ours
    ]
    assert all(isinstance(value, (int, float)) for record in ours for value in record.values())
    last = ours[-1]
    assert last[PREFIX + "mean_delta_chosen"] == pytest.approx(chosen[use].mean(), abs=1e-4)
    assert last[PREFIX + "median_delta_chosen"] == pytest.approx(np.median(chosen[use]), abs=1e-4)
    assert last[PREFIX + "mean_delta_rejected"] == pytest.approx(rejected[use].mean(), abs=1e-4)
    assert last[PREFIX + "displaced_fraction"] == (chosen[use] < 0).mean()
    assert last[PREFIX + "both_fell_fraction"] == ((chosen[use] < 0) & (rejected[use] < 0)).mean()
    assert last[PREFIX + "delta_chosen_q25"] == pytest.approx(np.quantile(chosen[use], 0.25), abs=1e-4)
    lengths = np.array([len(ids) for ids in probe.chosen_ids])
    per_token = (chosen[use] / lengths[use]).mean()
    assert last[PREFIX + "mean_per_token_delta_chosen"] == pytest.approx(per_token, abs=1e-5)

    lines = [json.loads(line) for line in (tmp_path / "new" / "probe.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [
        ("start", 0),
        ("step", 3),
        ("evaluate", 4),
        ("step", 6),
        ("evaluate", 8),
        ("step", 9),
        ("end", 10),
    ]
    assert lines[0]["keys"] == list(probe.keys)
    assert lines[0]["status"][7] == "identical"
    for line, record in zip(lines[1:], ours, strict=True):
        assert {PREFIX + name: value for name, value in line["summary"].items()}.items() <= record.items()
        assert len(line["delta_chosen"]) == len(probe)
        assert line["delta_chosen"][7] is None
    assert np.array(lines[-1]["delta_chosen"], dtype=float)[use] == pytest.approx(monitor.report.delta_chosen[use])
    assert monitor.probes == 7
    assert 0 < sum(line["seconds"] for line in lines[1:]) < monitor.seconds


def test_no_probe_at_evaluations_if_not_wanted(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    trainer = plain_trainer(model_folder, tmp_path, steps=4, eval_every=1)
    DisplacementCallback(probe, every=100, at_eval=False).bind(trainer)
    trainer.train()
    assert [record["step"] for record in records(trainer, ours=True)] == [4]  # the last step is always measured


def test_the_gate_stops_after_its_patience(model_folder: Path, probe: Any, tmp_path: Path, caplog: Any) -> None:
    trainer = plain_trainer(model_folder, tmp_path / "run")
    limit = DisplacementLimit(mean_below=1e6, patience=2)
    monitor = DisplacementCallback(probe, every=3, stop_if=limit, out=tmp_path / "x.jsonl").bind(trainer)
    trainer.train()
    assert trainer.state.global_step == 6
    assert "below 1e+06 (2 probes in a row)" in monitor.stopped
    assert "training stops at step 6" in caplog.text
    gates = [json.loads(line)["gate"] for line in (tmp_path / "x.jsonl").read_text().splitlines()[1:]]
    assert [(gate["strikes"], gate["stopped"]) for gate in gates] == [(1, False), (2, True)]
    assert [record["step"] for record in records(trainer, ours=True)] == [3, 6]


def test_a_good_probe_resets_the_gate(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    first = plain_trainer(model_folder, tmp_path / "a")
    DisplacementCallback(probe, every=2).bind(first)
    first.train()
    means = [record[PREFIX + "mean_delta_chosen"] for record in records(first, ours=True)]
    assert means[0] < means[1]  # imitation learning lifts what it imitates
    second = plain_trainer(model_folder, tmp_path / "b")
    limit = DisplacementLimit(mean_below=(means[0] + means[1]) / 2, patience=2)
    monitor = DisplacementCallback(probe, every=2, stop_if=limit).bind(second)
    second.train()
    assert second.state.global_step == 10
    assert monitor.stopped == ""


def test_only_probes_in_a_row_count(probe: Any) -> None:
    def moved(by: float) -> Any:
        n = [5, 5]
        before = LogProbs(chosen=[-50.0, -60.0], rejected=[-50.0, -60.0], n_chosen=n, n_rejected=n)
        after = LogProbs(chosen=[-50.0 + by, -60.0 + by], rejected=[-50.0, -60.0], n_chosen=n, n_rejected=n)
        return displacement_report(before, after)

    monitor = DisplacementCallback(probe, stop_if=DisplacementLimit(patience=2))
    stopped = []
    for by in (-9.0, 1.0, -9.0, -2.0, -9.0, -9.0):
        monitor.report = moved(by)
        monitor._ask_gate()
        stopped.append(bool(monitor.stopped))
    assert stopped == [False] * 5 + [True]


def test_another_callback_ends_training_and_the_last_probe_is_logged(
    model_folder: Path, probe: Any, tmp_path: Path
) -> None:
    reporter = Reporter(stop_at=5)
    trainer = plain_trainer(model_folder, tmp_path, callbacks=[reporter], logging_steps=1)
    DisplacementCallback(probe, every=4).bind(trainer)
    trainer.train()
    assert trainer.state.global_step == 5
    assert [record["step"] for record in records(trainer, ours=True)] == [4, 5]
    assert reporter.after_the_end == 0


@pytest.mark.parametrize("restored", [False, True])
def test_a_resumed_run_ends_like_an_unbroken_one(
    model_folder: Path, probe: Any, tmp_path: Path, restored: bool
) -> None:
    def begin(name: str) -> tuple[Any, DisplacementCallback]:
        trainer = plain_trainer(
            model_folder, tmp_path / name, save_every=4, restore_callback_states_from_checkpoint=restored
        )
        limit = DisplacementLimit(mean_below=1e6, patience=100)
        return trainer, DisplacementCallback(
            probe, every=2, out=tmp_path / f"{name}.jsonl", stop_if=limit, name="held/out"
        ).bind(trainer)

    whole, _ = begin("whole")
    whole.train()
    broken, _ = begin("broken")
    broken.train()
    moved = tmp_path / "moved"
    (tmp_path / "broken" / "checkpoint-4").rename(moved)  # wherever the checkpoint is, the numbers are in it
    again, monitor = begin("broken")
    again.train(resume_from_checkpoint=str(moved))
    assert monitor.baseline == "start"
    assert monitor.probes == 3  # steps 6, 8 and 10; the start was not scored again

    def lines(name: str) -> list[dict]:
        found = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "seconds"} for line in found]

    assert lines("broken") == lines("whole")
    assert lines("whole")[-1]["gate"]["strikes"] == 5
    assert all(
        key.startswith(PREFIX + "held/out/") for record in records(again, ours=True) for key in record if "/" in key
    )


def test_a_resume_without_a_start_says_so(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    trainer = plain_trainer(model_folder, tmp_path / "run", steps=4, save_every=4)
    trainer.train()
    again = plain_trainer(model_folder, tmp_path / "run", steps=8)
    monitor = DisplacementCallback(probe, every=2).bind(again)
    with pytest.warns(RankdiagWarning, match="resumes at step 4 .* since the resume"):
        again.train(resume_from_checkpoint=True)
    assert monitor.baseline == "resume"
    ours = records(again, ours=True)
    assert [record["step"] for record in ours] == [6, 8]
    assert all(key.startswith(PREFIX + "since_resume/") for record in ours for key in record if "/" in key)
    middle = plain_sums(load_model(tmp_path / "run" / "checkpoint-4"), probe)[0]
    final = plain_sums(again.model, probe)[0]
    assert ours[-1][PREFIX + "since_resume/mean_delta_chosen"] == pytest.approx(np.nanmean(final - middle), abs=1e-4)


def test_another_probe_does_not_pass_for_the_one_of_the_checkpoint(
    model_folder: Path, probe: Any, tmp_path: Path
) -> None:
    trainer = plain_trainer(model_folder, tmp_path / "run", steps=2, save_every=2)
    DisplacementCallback(probe, every=2).bind(trainer)
    trainer.train()
    again = plain_trainer(model_folder, tmp_path / "run", steps=4)
    monitor = DisplacementCallback(encode_preferences(pairs()[8:12], tiny_tokenizer()), every=2).bind(again)
    with pytest.warns(RankdiagWarning, match="does not know this probe"):
        again.train(resume_from_checkpoint=True)
    assert monitor.baseline == "resume"


def test_the_model_that_stays_is_measured(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    reporter = Reporter()
    trainer = plain_trainer(
        model_folder,
        tmp_path / "run",
        steps=6,
        eval_every=2,
        save_every=2,
        callbacks=[reporter],
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # so that the first evaluation is the best one
    )
    monitor = DisplacementCallback(probe, every=6, at_eval=False, out=tmp_path / "x.jsonl").bind(trainer)
    trainer.train()
    assert trainer.state.best_global_step == 2
    chosen, _ = expected(model_folder, trainer.model, probe)
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=2e-4)
    events = [json.loads(line)["event"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert events == ["start", "end", "best_model"]
    last = records(trainer, ours=True)[-1]
    assert last[PREFIX + "best_model/mean_delta_chosen"] == pytest.approx(np.nanmean(chosen), abs=1e-4)
    assert reporter.after_the_end == 0


# peft still asks transformers for a property by its old name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing:FutureWarning")
def test_adapters_of_the_head_are_read_as_they_are_now(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "lm_head"])
    trainer = plain_trainer(model_folder, tmp_path, model=peft.get_peft_model(load_model(model_folder), config))
    monitor = DisplacementCallback(probe, every=4).bind(trainer)
    trainer.train()
    chosen, rejected = expected(model_folder, trainer.model, probe)
    assert np.nanmax(np.abs(chosen)) > 0.1
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, chosen, atol=2e-4)
    np.testing.assert_allclose(monitor.report.delta_rejected, rejected, atol=2e-4)


def test_two_probes_in_one_run(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    trainer = plain_trainer(model_folder, tmp_path, steps=4)
    for name in ("one", "two"):
        DisplacementCallback(probe, every=4, name=name).bind(trainer)
    trainer.train()
    one, two = records(trainer, ours=True)
    assert {key.replace("/one/", "/two/"): value for key, value in one.items()} == two


def test_a_second_training_starts_from_its_own_policy(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    trainer = plain_trainer(model_folder, tmp_path, steps=3)
    monitor = DisplacementCallback(probe, every=3).bind(trainer)
    trainer.train()
    middle = plain_sums(trainer.model, probe)[0]
    trainer.evaluate()  # outside of training, and measured already
    assert monitor.probes == 2
    trainer.train()
    final = plain_sums(trainer.model, probe)[0]
    assert monitor.report is not None
    np.testing.assert_allclose(monitor.report.delta_chosen, final - middle, atol=2e-4)


def test_without_bind_it_measures_and_says_what_is_missing(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    monitor = DisplacementCallback(probe, every=2, out=tmp_path / "x.jsonl")
    trainer = plain_trainer(model_folder, tmp_path / "run", steps=2, callbacks=[monitor])
    with pytest.warns(RankdiagWarning, match=r"callback\.bind\(trainer\)"):
        trainer.train()
    assert records(trainer, ours=True) == []
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2
    assert monitor.bind(trainer) is monitor
    assert sum(callback is monitor for callback in trainer.callback_handler.callbacks) == 1


def test_it_is_a_callback_that_can_be_copied(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    trainer = plain_trainer(model_folder, tmp_path, steps=2)
    monitor = DisplacementCallback(probe, every=2, out=tmp_path / "x.jsonl", stop_if=DisplacementLimit()).bind(trainer)
    assert isinstance(monitor, TrainerCallback)
    midway = []

    class Copier(TrainerCallback):
        def on_step_end(self, *arguments: Any, **kwargs: Any) -> None:
            midway.append(pickle.loads(pickle.dumps(monitor)))

    trainer.add_callback(Copier())
    trainer.train()
    assert monitor._bound is trainer
    assert [(copied._scorers, copied._trainer) for copied in midway] == [({}, None)] * 2
    for copied in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        assert copied.every == 2
        assert copied.stop_if == monitor.stop_if
        assert copied.report == monitor.report
        assert copied.probe.fingerprint == probe.fingerprint
    assert repr(monitor) == "DisplacementCallback(11 pairs, every=2)"


def test_it_does_not_keep_a_trainer_alive(model_folder: Path, probe: Any, tmp_path: Path) -> None:
    import gc
    import weakref

    trainer = plain_trainer(model_folder, tmp_path, steps=2)
    monitor = DisplacementCallback(probe, every=2).bind(trainer)
    trainer.train()
    gone = weakref.ref(trainer.model)
    del trainer
    gc.collect()
    assert gone() is None
    assert monitor.report is not None


@pytest.mark.parametrize(
    ("options", "error", "word"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"every": 2.0}, TypeError, "every"),
        ({"at_eval": 1}, TypeError, "at_eval"),
        ({"window_log": None}, TypeError, "window_log"),
        ({"stop_if": -5.0}, TypeError, "stop_if"),
        ({"out": 5}, TypeError, "out"),
        ({"name": 5}, TypeError, "name"),
        ({"evry": 5}, TypeError, "evry"),
    ],
)
def test_bad_options_are_refused(probe: Any, options: dict, error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        DisplacementCallback(probe, **options)


def test_a_probe_must_be_one() -> None:
    with pytest.raises(TypeError, match="encode_preferences"):
        DisplacementCallback([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    same = {"prompt_ids": [1], "chosen_ids": [5], "rejected_ids": [5]}
    with pytest.raises(ValueError, match="1 pairs, status identical"):
        DisplacementCallback(encode_preferences([same]))


def test_only_a_trainer_can_be_bound(probe: Any) -> None:
    with pytest.raises(TypeError, match="`trainer`"):
        DisplacementCallback(probe).bind(object())

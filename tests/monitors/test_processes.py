"""Two real processes under torchrun: each scores its part of the probe, and both know the whole of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl")

from monitors.dpo_run import load_model, many_pairs, plain_sums, save_model, tiny_tokenizer
from rankdiag.language_models import encode_preferences

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(model: Path, out: Path, kind: str, how: str) -> list[dict[str, Any]]:
    out.mkdir()
    script = Path(__file__).with_name("one_of_several.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(script.parents[1]), environment.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*command, str(script), str(model), str(out), kind, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        raise
    assert process.returncode == 0, text[-4000:]
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", ["plain", "dpo"])
def test_two_processes_measure_one_displacement(tmp_path: Path, kind: str) -> None:
    model = save_model(tmp_path / "model")
    without = torchrun(model, tmp_path / "without", kind, "alone")
    first, second = torchrun(model, tmp_path / "with", kind, "monitored")
    assert np.array_equal(first["delta_chosen"], second["delta_chosen"], equal_nan=True)
    assert first["step"] == second["step"] == 6  # both heard the gate
    assert first["stopped"] == second["stopped"] != ""

    probe = encode_preferences(many_pairs(), tiny_tokenizer())
    trained = load_model(tmp_path / "with" / "after")
    before, after = plain_sums(load_model(model), probe), plain_sums(trained, probe)
    np.testing.assert_allclose(first["delta_chosen"], after[0] - before[0], atol=5e-4)
    np.testing.assert_allclose(first["delta_rejected"], after[1] - before[1], atol=5e-4)
    assert np.isnan(first["delta_chosen"][-1])

    for one, other in zip(first["fed"], second["fed"], strict=True):  # whole batches, so not quite half
        assert one + other == first["tokens"]
        assert 0 < one < first["tokens"]
    lines = [json.loads(line) for line in (tmp_path / "with" / "probe.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6]  # written once, not twice

    assert first["theirs"] == without[0]["theirs"]
    plain = load_model(tmp_path / "without" / "after").state_dict()
    for name, value in trained.state_dict().items():
        assert torch.equal(value, plain[name]), name


def test_a_model_that_lies_in_two_processes(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    first, second = torchrun(model, tmp_path / "out", "sharded", "")
    expected = plain_sums(load_model(model), encode_preferences(many_pairs(), tiny_tokenizer()))
    for found in (first, second):
        assert found["training"]
        np.testing.assert_allclose(found["chosen"], expected[0], atol=2e-4)
        np.testing.assert_allclose(found["rejected"], expected[1], atol=2e-4)
    assert np.array_equal(first["chosen"], second["chosen"], equal_nan=True)

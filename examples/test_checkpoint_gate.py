"""A CI gate on a checkpoint: copy this file into your tests and point `checkpoint` at your own folder.

Run it with ``python -m pytest examples/test_checkpoint_gate.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import rankdiag as rd


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the checkpoint that your training job saves."""
    generator = torch.Generator().manual_seed(0)
    weights = {f"layers.{i}.weight": torch.randn(64, 96, generator=generator) for i in range(3)}
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_file(weights, path)
    return path


def test_no_layer_has_collapsed(checkpoint: Path) -> None:
    report = rd.weight_report(checkpoint)
    findings = report.flag(["effective_rank_ratio < 0.05"])
    assert not findings, "\n".join(finding.sentence for finding in findings)


def test_every_tensor_was_read(checkpoint: Path) -> None:
    report = rd.weight_report(checkpoint)
    assert len(report) == 3
    assert not report.skipped


def test_a_collapsed_layer_is_caught(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(64, 1, generator=generator), torch.randn(1, 96, generator=generator)
    save_file({"layers.0.weight": left @ right}, tmp_path / "model.safetensors")
    (finding,) = rd.weight_report(tmp_path).flag(["effective_rank_ratio < 0.05"])
    assert finding.name == "layers.0.weight"

"""What a type checker sees of the monitors."""

from __future__ import annotations

from typing import Any, assert_type

from rankdiag.language_models import EncodedPreferences
from rankdiag.monitors import DisplacementCallback, DisplacementLimit
from rankdiag.preference import DisplacementReport, LogProbs


def callback(probe: EncodedPreferences, trainer: Any) -> None:
    monitor = DisplacementCallback(probe, every=5, stop_if=DisplacementLimit(patience=2)).bind(trainer)
    assert_type(monitor, DisplacementCallback)
    assert_type(monitor.report, DisplacementReport | None)
    assert_type(monitor.before, LogProbs | None)
    assert_type(monitor.stopped, str)
    assert_type(monitor.seconds, float)


def limit(report: DisplacementReport) -> None:
    assert_type(DisplacementLimit(mean_below=None, per_token_below=-0.1).exceeded(report), tuple[str, ...])

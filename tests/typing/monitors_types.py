"""What a type checker sees of the monitors."""

from __future__ import annotations

from typing import Any, assert_type

from rankdiag.language_models import EncodedPreferences
from rankdiag.monitors import (
    DisplacementCallback,
    DisplacementLimit,
    RewardLandscapeCallback,
    RewardLandscapeMonitor,
    wrap_reward_fn,
)
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


def watched(trainer: Any) -> None:
    monitor = RewardLandscapeMonitor(weights={"length": 2.0})
    assert_type(wrap_reward_fn(length, monitor)(["a"], ["b"]), list[float])
    assert_type(monitor.collect("eval"), dict[str, float])
    assert_type(RewardLandscapeCallback(monitor, every=5).bind(trainer), RewardLandscapeCallback)


def length(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]

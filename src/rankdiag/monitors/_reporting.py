"""How callbacks log: through the method that every trainer inherits, and without taking the trainer's own turn."""

from __future__ import annotations

from typing import Any

from rankdiag._optional import optional

__all__ = ["log_through", "trainer_class"]


def trainer_class(feature: str) -> Any:
    """Return `transformers.Trainer`."""
    return optional("transformers", extra="hf", feature=feature).Trainer


def log_through(trainer: Any, control: Any, named: dict[str, float], feature: str) -> None:
    """Send numbers to every reporter of a trainer and to its history.

    Trainers of TRL override the method and empty their own window, so it is the inherited one that is called. Logging
    marks the step as logged; the flag is put back, for the trainer's own turn is to come.
    """
    wanted = control.should_log
    trainer_class(feature).log(trainer, named)
    for flags in (control, trainer.control):
        flags.should_log = wanted

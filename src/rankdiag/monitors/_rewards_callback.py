"""Readings of a reward landscape in the log of a trainer: a callback beside wrapped reward functions."""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING, Any, Self

from rankdiag._optional import optional
from rankdiag._validate import RankdiagWarning, describe, integer
from rankdiag.monitors._reporting import log_through, trainer_class
from rankdiag.monitors._rewards import RewardLandscapeMonitor

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback
else:
    TrainerCallback = optional(
        "transformers.trainer_callback", extra="hf", feature="RewardLandscapeCallback"
    ).TrainerCallback

__all__ = ["RewardLandscapeCallback"]

_FEATURE = "RewardLandscapeCallback"


class RewardLandscapeCallback(TrainerCallback):  # type: ignore[misc] # transformers is not followed by the type checker
    """Log what a `RewardLandscapeMonitor` reads: every so many steps, and after each evaluation.

    Call `bind` with the trainer once it exists. The readings then go through the trainer's own logging to every
    reporter and to ``state.log_history``, under ``rankdiag/rewards/...``.

    Training is left as it is: the same weights, to the bit, and the same metrics as without the callback.

    Parameters
    ----------
    monitor : RewardLandscapeMonitor
        Collects what the reward functions of the trainer return.
    every : int
        Steps between two records; each is of all groups since the one before.

    Raises
    ------
    TypeError
        If `monitor` is none, or `every` no integer.
    ValueError
        If `every` is below 1.

    Warns
    -----
    RankdiagWarning
        If training begins and no trainer is bound: nothing is logged then.

    Notes
    -----
    In a run of several processes each record exchanges the moments of the groups, once.

    Examples
    --------
    >>> from rankdiag.monitors import RewardLandscapeCallback, RewardLandscapeMonitor
    >>> RewardLandscapeCallback(RewardLandscapeMonitor(), every=10)
    RewardLandscapeCallback(RewardLandscapeMonitor(no function), every=10)

    Then ``callback.bind(trainer)`` and ``trainer.train()``.
    """

    def __init__(self, monitor: RewardLandscapeMonitor, *, every: int = 1) -> None:
        if not isinstance(monitor, RewardLandscapeMonitor):
            raise TypeError(f"`monitor` must be a RewardLandscapeMonitor; got {describe(monitor)}")
        self.monitor = monitor
        self.every = integer(every, "every", low=1)
        self._trainer: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.monitor!r}, every={self.every})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None}

    def bind(self, trainer: Trainer) -> Self:
        """Attach this callback to a trainer, so that it is called and can log.

        Parameters
        ----------
        trainer : transformers.Trainer
            The trainer that has the wrapped reward functions. It gets this callback unless it has it already.

        Returns
        -------
        RewardLandscapeCallback
            This callback.

        Raises
        ------
        TypeError
            If it is no such trainer.
        ValueError
            If none of its reward functions is wrapped for the monitor, or group sizes differ.

        Warns
        -----
        RankdiagWarning
            If some of its reward functions are not wrapped: the sum is that of the others.
        """
        if not isinstance(trainer, trainer_class(_FEATURE)):
            raise TypeError(f"`trainer` must be a transformers.Trainer; got {describe(trainer)}")
        self.monitor._follow(trainer)
        if not any(callback is self for callback in trainer.callback_handler.callbacks):
            trainer.add_callback(self)
        self._trainer = weakref.ref(trainer)
        return self

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Warn if nothing can be logged."""
        if self._bound is None and state.is_world_process_zero:
            warnings.warn(
                "RewardLandscapeCallback is not bound to its trainer, so nothing is logged; call "
                "callback.bind(trainer) before trainer.train()",
                RankdiagWarning,
                stacklevel=2,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log at every n-th step, and at the last one."""
        last = control.should_training_stop or state.global_step >= state.max_steps
        if last or state.global_step % self.every == 0:
            self._log("train", control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the rewards of an evaluation."""
        self._log("eval", control)

    @property
    def _bound(self) -> Any:
        return self._trainer() if self._trainer is not None else None

    def _log(self, split: Any, control: Any) -> None:
        trainer = self._bound
        if trainer is None:
            return
        found = self.monitor.collect(split)
        if found:
            log_through(trainer, control, found, _FEATURE)

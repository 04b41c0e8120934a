"""Likelihood displacement measured while a model trains: a callback for transformers and TRL trainers."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
import warnings
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from rankdiag._optional import optional
from rankdiag._validate import RankdiagWarning, boolean, describe, integer, string
from rankdiag._version import __version__
from rankdiag.language_models import EncodedPreferences
from rankdiag.monitors._limit import DisplacementLimit
from rankdiag.monitors._lines import Lines, describe_pairs, plain_list, summarise
from rankdiag.monitors._reporting import log_through, trainer_class
from rankdiag.monitors._score import Scorer, record_of
from rankdiag.monitors._settings import (
    LossSettings,
    loss_settings,
    moving_reference,
    precomputed,
    reference_model,
    window_beta,
)
from rankdiag.preference import DisplacementReport, LogProbs, displacement_report, from_trainer_log

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback
else:
    TrainerCallback = optional(
        "transformers.trainer_callback", extra="hf", feature="DisplacementCallback"
    ).TrainerCallback

__all__ = ["DisplacementCallback"]

_LOG = logging.getLogger(__name__)
_LOG.addHandler(logging.NullHandler())
_PREFIX = "rankdiag/preference"
_FEATURE = "DisplacementCallback"
_STATE = "rankdiag.DisplacementCallback"  # under which the state of the trainer keeps what a resumed run needs
Event = Literal["step", "evaluate", "end", "best_model"]
Baseline = Literal["start", "precomputed", "resume"]


class DisplacementCallback(TrainerCallback):  # type: ignore[misc] # transformers is not followed by the type checker
    """Watch a fixed set of preference pairs while a model trains, and see whether chosen responses fall.

    The probe is scored under the initial policy when training begins, and again every so many steps; the differences
    are the likelihood displacement of *these* pairs since the start. That is what a trainer's own curves do not show:
    they average other pairs at every step.

    Call `bind` with the trainer once it exists. The summary then goes through the trainer's own logging to every
    reporter and to ``state.log_history``, under ``rankdiag/preference/...``. Numbers of each pair go to `out`.

    Training is left as it is: the same weights, to the bit, and the same metrics as without the callback.

    Parameters
    ----------
    probe : EncodedPreferences
        The pairs to watch, encoded as the trainer encodes them. A hundred or two say enough.
    every : int
        Steps between two probes.
    at_eval : bool
        Whether each evaluation is followed by a probe as well.
    window_log : bool
        Whether a DPO trainer's own ``rewards/chosen`` is logged in nats too, as ``window_mean_delta_chosen``. It
        averages other pairs in every window, so it may fall while the probe rises.
    out : str or path-like, optional
        File to which each probe appends one line of JSON, with the numbers of every pair. A resumed run goes on after
        its checkpoint.
    stop_if : DisplacementLimit, optional
        When to stop training. None never does.
    name : str, optional
        Distinguishes several probes of one run: keys become ``rankdiag/preference/<name>/...``.

    Attributes
    ----------
    report : DisplacementReport or None
        What the last probe measured.
    before : LogProbs or None
        The probe under the policy that displacement is counted from.
    baseline : str
        Where `before` comes from: ``"start"`` of training; ``"precomputed"``, reference log-probabilities that the
        trainer had computed; or ``"resume"``, if a run was resumed whose start nobody kept.
    stopped : str
        Why the gate stopped training; empty if it did not.
    probes : int
        Number of times that the probe was scored under the policy.
    seconds : float
        Time spent on all of it.

    Raises
    ------
    TypeError
        If `probe` is no `EncodedPreferences`, or an option has the wrong type.
    ValueError
        If no pair of the probe is usable, or an option has a value that it cannot have.

    Warns
    -----
    RankdiagWarning
        If training begins and no trainer is bound, or if a run is resumed and its start is not known.

    Notes
    -----
    One probe costs one forward pass over its pairs, without gradients. Each process of a data-parallel run scores its
    own batches of them. Under sharding (FSDP) every process scores all, as the others need its shards; ZeRO-3 is not
    supported.

    A trainer that holds a separate reference model has it scored once as well, so that loss and implicit-reward
    accuracy are those of its loss; if that reference moves, it is scored with every probe.

    The log-probabilities of the start are kept in the state of the trainer, and so in every checkpoint. Under mixed
    precision the probe runs under the same autocast as training does.

    References
    ----------
    Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment: Likelihood Displacement in Direct
    Preference Optimization", arXiv 2410.08847, Definition 1.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.monitors import DisplacementCallback, DisplacementLimit
    >>> probe = encode_preferences([{"prompt_ids": [1, 5], "chosen_ids": [6, 2], "rejected_ids": [7, 2]}])
    >>> monitor = DisplacementCallback(probe, every=50, stop_if=DisplacementLimit(mean_below=-20.0))
    >>> monitor
    DisplacementCallback(1 pair, every=50)

    Then ``monitor.bind(trainer)`` and ``trainer.train()``.
    """

    def __init__(
        self,
        probe: EncodedPreferences,
        *,
        every: int = 100,
        at_eval: bool = True,
        window_log: bool = True,
        out: str | os.PathLike[str] | None = None,
        stop_if: DisplacementLimit | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(probe, EncodedPreferences):
            raise TypeError(
                f"`probe` must be an EncodedPreferences, as encode_preferences makes; got {describe(probe)}"
            )
        if "ok" not in probe.status:
            found = ", ".join(sorted(set(probe.status))) or "none at all"
            raise ValueError(f"`probe` must hold at least one usable pair; got {len(probe)} pairs, status {found}")
        if stop_if is not None and not isinstance(stop_if, DisplacementLimit):
            raise TypeError(f"`stop_if` must be a DisplacementLimit or None; got {describe(stop_if)}")
        self.probe = probe
        self.every = integer(every, "every", low=1)
        self.at_eval = boolean(at_eval, "at_eval")
        self.window_log = boolean(window_log, "window_log")
        self.out = None if out is None else Lines(out)
        self.stop_if = stop_if
        self.name = None if name is None else string(name, "name")
        self._trainer: weakref.ref[Any] | None = None
        self._clear()

    def _clear(self) -> None:
        """Forget the last run."""
        self.before: LogProbs | None = None
        self.report: DisplacementReport | None = None
        self.baseline: Baseline = "start"
        self.stopped = ""
        self.probes = 0
        self.seconds = 0.0
        self._reference: LogProbs | None = None
        self._scorers: dict[str, tuple[Any, Scorer]] = {}
        self._loss = LossSettings()
        self._strikes = 0
        self._probed_step = -1
        self._windows: list[dict[str, float]] = []
        self._window_beta: float | None = None

    def __repr__(self) -> str:
        pairs = sum(status == "ok" for status in self.probe.status)
        return f"{type(self).__name__}({pairs} pair{'s' * (pairs != 1)}, every={self.every})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None, "_scorers": {}}  # these hold models

    # --- the trainer ---------------------------------------------------------------------------------------

    def bind(self, trainer: Trainer) -> Self:
        """Attach this callback to a trainer, so that it is called and can log.

        Parameters
        ----------
        trainer : transformers.Trainer
            Any trainer derived from it. It gets this callback unless it has it already.

        Returns
        -------
        DisplacementCallback
            This callback.

        Raises
        ------
        TypeError
            If it is no such trainer.
        ValueError
            If `window_log` asks for rewards that are no plain sums against a fixed reference: ``ld_alpha`` or
            ``sync_ref_model`` of TRL.
        """
        base = trainer_class(_FEATURE)
        if not isinstance(trainer, base):
            raise TypeError(f"`trainer` must be a transformers.Trainer; got {describe(trainer)}")
        if self.window_log:
            window_beta(trainer)
        if not any(callback is self for callback in trainer.callback_handler.callbacks):
            trainer.add_callback(self)
        self._trainer = weakref.ref(trainer)
        return self

    @property
    def _bound(self) -> Any:
        return self._trainer() if self._trainer is not None else None

    def _log(self, state: Any, control: Any, logs: dict[str, float], *, reporters: bool = True) -> None:
        """Log to every reporter while they listen, and to the history alone after that."""
        trainer = self._bound
        if trainer is None:
            return
        named = {self._key(name): value for name, value in logs.items()}
        if not reporters:  # at the very end they have closed their run, and some would open another one
            state.log_history.append({**named, "epoch": state.epoch, "step": state.global_step})
            return
        log_through(trainer, control, named, _FEATURE)

    def _key(self, name: str) -> str:
        parts = [_PREFIX, self.name, "since_resume" if self.baseline == "resume" else None, name]
        return "/".join(part for part in parts if part)

    # --- hooks, in the order in which a trainer calls them -----------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Score the probe under the initial policy, or find what the checkpoint kept of it."""
        with self._clock():
            self._clear()
            trainer = self._bound
            if trainer is None:
                self._warn(
                    state,
                    "DisplacementCallback is not bound to its trainer, so nothing reaches its reporters; call "
                    "callback.bind(trainer) before trainer.train()",
                )
            self._loss = loss_settings(trainer)
            self._window_beta = window_beta(trainer) if self.window_log and trainer is not None else None
            resumed = int(state.global_step) > 0
            kept = state.stateful_callbacks.get(_STATE, {}).get(self._identity()) if resumed else None
            if kept is None:
                self._take_baseline(args, state, model, resumed=resumed)
            else:
                self._restore(kept)
            self._score_reference(args)
            self._keep(state)
            self._begin_file(state, resumed=resumed, found=kept is not None)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log what the trainer's last record says; inside `on_log` that would call itself."""
        self._flush(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        """Probe at every n-th step, and at the last one."""
        last = control.should_training_stop or state.global_step >= state.max_steps
        if last or state.global_step % self.every == 0:
            return self._probe("end" if last else "step", args, state, control, model)
        return None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Remember the rewards of a DPO trainer's window."""
        if self._window_beta is not None and logs is not None and "rewards/chosen" in logs:
            read = from_trainer_log([{**logs, "step": int(state.global_step)}], self._window_beta)
            self._windows.append(
                {
                    "window_mean_delta_chosen": float(read.mean_delta_chosen[0]),
                    "window_mean_delta_rejected": float(read.mean_delta_rejected[0]),
                }
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        """Probe after an evaluation; one outside of training has nothing to compare with."""
        if self.at_eval and self.before is not None:
            return self._probe("evaluate", args, state, control, model)
        return None

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        """Probe once more where another callback has ended training, while reporters still listen."""
        self._flush(state, control)
        if control.should_training_stop:
            return self._probe("end", args, state, control, model)
        return None

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Probe the model that stays, if that is not the one of the last step."""
        self._flush(state, control, reporters=False)
        best = getattr(state, "best_global_step", None)
        if args.load_best_model_at_end and best is not None and best != state.global_step:
            self._probed_step = -1
            self._probe("best_model", args, state, control, model)
        self._scorers = {}  # they hold the model

    # --- what a run is compared with ---------------------------------------------------------------------------

    def _take_baseline(self, args: Any, state: Any, model: Any, *, resumed: bool) -> None:
        trainer = self._bound
        known = None
        # A reference beside the policy need not be the initial policy, nor need adapters start as no change. And the
        # trainer's numbers agree with ours up to rounding, which in 16 bits is much. Better than nothing, though.
        plain = not (args.bf16 or args.fp16 or _is_half(model) or hasattr(model, "peft_config"))
        if reference_model(trainer) is None and (resumed or plain):
            known = precomputed(trainer, self.probe)
        if known is not None:
            self.before, self.baseline = known, "precomputed"
            return
        if resumed:
            self.baseline = "resume"
            self._warn(
                state,
                f"training resumes at step {state.global_step} from a checkpoint that does not know this probe; "
                "displacement is counted since the resume, not since the start. Its keys say since_resume",
            )
        self.before = self._score(model, args)

    def _restore(self, kept: Mapping[str, Any]) -> None:
        self.before = record_of(self.probe, kept["chosen"], kept["rejected"])
        self.baseline = kept["baseline"]
        self._strikes = int(kept["strikes"])
        self._probed_step = int(kept["probed_step"])

    def _keep(self, state: Any) -> None:
        """Put what a resumed run needs into the state of the trainer, which each checkpoint holds."""
        if self.before is None:
            return
        state.stateful_callbacks.setdefault(_STATE, {})[self._identity()] = {
            "baseline": self.baseline,
            "chosen": plain_list(self.before.chosen),
            "rejected": plain_list(self.before.rejected),
            "strikes": self._strikes,
            "probed_step": self._probed_step,
        }

    def _identity(self) -> str:
        return self.probe.fingerprint if self.name is None else f"{self.name}:{self.probe.fingerprint}"

    def _score_reference(self, args: Any) -> None:
        """Score the reference of the loss, where that may be another model than the initial policy."""
        trainer = self._bound
        model = reference_model(trainer)
        if model is None:
            return
        known = None if moving_reference(trainer) else precomputed(trainer, self.probe)
        if known is None:
            known = self._scorer("reference", model, args).score()
        self._reference = known

    def _score(self, model: Any, args: Any) -> LogProbs:
        self.probes += 1
        trainer = self._bound
        if trainer is not None and getattr(trainer, "is_fsdp_enabled", False):
            model = trainer.model_wrapped  # the root, which gathers what its parts need
        return self._scorer("policy", model, args).score()

    def _scorer(self, role: str, model: Any, args: Any) -> Scorer:
        """Return what scores the probe on this model; it is made once a run, or when another model comes."""
        known, scorer = self._scorers.get(role, (None, None))
        if scorer is None or known is not model:
            scorer = Scorer(model, self.probe, args)
            self._scorers[role] = (model, scorer)
        return scorer

    # --- one probe ---------------------------------------------------------------------------------------------

    def _probe(self, event: Event, args: Any, state: Any, control: Any, model: Any) -> Any:
        """Measure once for each step, log, write, and ask the gate; return `control` only if training has to stop."""
        if self._probed_step == state.global_step or self.before is None:
            return None
        with self._clock() as clock:
            after = self._score(model, args)
            if moving_reference(self._bound):
                self._score_reference(args)
            self.report = displacement_report(
                self.before,
                after,
                loss=self._loss.loss,
                beta=self._loss.beta,
                loss_options=self._loss.options,
                ref=self._reference,
            )
            self._probed_step = int(state.global_step)
            reasons = () if event == "best_model" else self._ask_gate()
            self._keep(state)
        summary = summarise(self.report)
        self._log(
            state,
            control,
            {f"best_model/{name}": value for name, value in summary.items()} if event == "best_model" else summary,
            reporters=event != "best_model",
        )
        self._write_probe(event, state, reasons, clock.seconds)
        if not self.stopped or event == "best_model":
            return None
        control.should_training_stop = True
        return control

    def _ask_gate(self) -> tuple[str, ...]:
        if self.stop_if is None or self.report is None:
            return ()
        reasons = self.stop_if.exceeded(self.report)
        self._strikes = self._strikes + 1 if reasons else 0
        if self._strikes >= self.stop_if.patience and not self.stopped:
            self.stopped = f"{'; '.join(reasons)} ({self._strikes} probes in a row)"
            _LOG.warning("training stops at step %d: %s", self._probed_step, self.stopped)
        return reasons

    def _flush(self, state: Any, control: Any, *, reporters: bool = True) -> None:
        waiting, self._windows = self._windows, []
        for logs in waiting:
            self._log(state, control, logs, reporters=reporters)

    # --- the file ------------------------------------------------------------------------------------------------

    def _begin_file(self, state: Any, *, resumed: bool, found: bool) -> None:
        if self.out is None or not state.is_world_process_zero or self.before is None:
            return
        self.out.begin(resumed_at=int(state.global_step) if resumed else None)
        if found and self.out.path.exists():
            return
        self.out.append(
            {
                **self._line("start", state),
                "fingerprint": self.probe.fingerprint,
                "rankdiag": __version__,
                "loss": self._loss.to_dict(),
                **describe_pairs(self.probe, self.before),
            }
        )

    def _write_probe(self, event: Event, state: Any, reasons: tuple[str, ...], seconds: float) -> None:
        if self.out is None or not state.is_world_process_zero or self.report is None:
            return
        gate = {"exceeded": list(reasons), "strikes": self._strikes, "stopped": bool(self.stopped)}
        self.out.append(
            {
                **self._line(event, state),
                "seconds": seconds,
                "summary": summarise(self.report),
                "gate": gate if self.stop_if is not None else None,
                "delta_chosen": plain_list(self.report.delta_chosen),
                "delta_rejected": plain_list(self.report.delta_rejected),
            }
        )

    def _line(self, event: str, state: Any) -> dict[str, Any]:
        return {
            "event": event,
            "step": int(state.global_step),
            "epoch": float(state.epoch or 0.0),
            "name": self.name,
            "baseline": self.baseline,
        }

    # --- small things ----------------------------------------------------------------------------------------------

    def _clock(self) -> _Clock:
        return _Clock(self)

    def _warn(self, state: Any, text: str) -> None:
        if state.is_world_process_zero:
            warnings.warn(text, RankdiagWarning, stacklevel=3)


@dataclasses.dataclass(slots=True, eq=False)
class _Clock(contextlib.AbstractContextManager["_Clock"]):
    """Adds the time of a block to the callback's."""

    callback: DisplacementCallback
    began: float = 0.0
    seconds: float = 0.0

    def __enter__(self) -> Self:
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self.began
        self.callback.seconds += self.seconds


def _is_half(model: Any) -> bool:
    return any(parameter.is_floating_point() and parameter.element_size() < 4 for parameter in model.parameters())

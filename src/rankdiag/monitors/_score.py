"""Score a fixed probe on the model that is being trained: planned once, and each process runs its own batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.language_models import EncodedPreferences, Plan, plan, run
from rankdiag.language_models import LogProbs as ResponseLogProbs
from rankdiag.preference import LogProbs

__all__ = ["Scorer", "record_of"]

_SHARDED = {"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine"}


class Scorer:
    """A probe, a model whose weights change, and how to read one under the other again and again.

    What the engine finds out about the model (which layout is right for it, what its head does to logits) is found out
    once, so that each later call costs one forward over the probe.
    """

    def __init__(self, model: Any, probe: EncodedPreferences, args: Any) -> None:
        self._model = model
        self._probe = probe
        self._args = args
        self._outputs = [ResponseLogProbs()]
        self._plan = plan(probe, model, self._outputs)

    def score(self) -> LogProbs:
        """Return the log-probabilities of the probe under the model as it is now, the same on every process.

        Returns
        -------
        LogProbs
            NaN for unusable pairs.

        Raises
        ------
        RuntimeError
            If another process failed; on that one its own error is raised.
        """
        world = int(self._args.world_size)
        if world == 1:
            return self._record(self._sums(self._plan))
        # Sharded models need the same calls on every process, as do groups that split one model or one sequence.
        together = _is_sharded(self._model) or bool(getattr(self._args, "parallelism_config", None))
        own = self._plan if together else self._plan.shard(int(self._args.process_index), world)
        failure: Exception | None = None
        sums = np.zeros((2, len(self._probe)))
        try:
            sums = self._sums(own)
        except Exception as error:  # the other processes wait for this one: first meet them, then raise
            failure = error
        gathered, failed = _gather(sums, failure is not None, self._args.device, agree=together)
        if failure is not None:
            raise failure
        if failed:
            raise RuntimeError(f"the probe failed on {failed} of {world} processes; their own messages say why")
        return self._record(gathered)

    def _sums(self, part: Plan) -> NDArray[np.float64]:
        """Return ln pi of both responses of each pair, shape (2, pairs); zero where a pair is not in this part."""
        sums = np.zeros((2, len(self._probe)))
        for columns in run(self._model, part, self._outputs, autocast=_precision(self._args)):
            sums[columns.slot, columns.group] = columns["logp"]
        return sums

    def _record(self, sums: NDArray[np.float64]) -> LogProbs:
        sums[:, [status != "ok" for status in self._probe.status]] = np.nan
        return record_of(self._probe, sums[0], sums[1])


def record_of(probe: EncodedPreferences, chosen: Any, rejected: Any) -> LogProbs:
    """Return sums of the pairs of a probe, perhaps with None for NaN, as a record with its lengths and keys."""
    lengths = [np.array([len(ids) for ids in side], dtype=float) for side in (probe.chosen_ids, probe.rejected_ids)]
    return LogProbs(
        chosen=np.array(chosen, dtype=float),
        rejected=np.array(rejected, dtype=float),
        n_chosen=lengths[0],
        n_rejected=lengths[1],
        keys=probe.keys,
    )


def _gather(sums: NDArray[np.float64], failed: bool, device: Any, *, agree: bool) -> tuple[NDArray[np.float64], int]:
    """Add up what each process has, or take that of the first; return it with the number of processes that failed."""
    import torch
    from torch import distributed

    flat = torch.tensor([*sums.ravel(), float(failed)], dtype=torch.float64, device=device)
    if agree:
        distributed.broadcast(flat, 0)  # all computed the same; rounding must not let a gate close on one alone
    else:
        distributed.all_reduce(flat)
    *values, count = flat.tolist()
    return np.reshape(values, sums.shape), int(count)


def _precision(args: Any) -> Any:
    """Return the dtype of the trainer's autocast, so that the probe runs as training does; None without one."""
    import torch

    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def _is_sharded(model: Any) -> bool:
    return any(base.__name__ in _SHARDED for module in model.modules() for base in type(module).__mro__)

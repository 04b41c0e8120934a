"""Score a fixed probe on the model that is being trained: each process its slice, and nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag.language_models import EncodedPreferences
from rankdiag.preference import LogProbs, sequence_log_probs

__all__ = ["record_of", "score_probe", "take_pairs"]

_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


def score_probe(model: Any, probe: EncodedPreferences, args: Any) -> LogProbs:
    """Return the log-probabilities of a probe under the model as it is now, the same on every process.

    Parameters
    ----------
    model : torch.nn.Module
        The policy, wrapped or not; it comes back as it was.
    probe : EncodedPreferences
        The pairs.
    args : transformers.TrainingArguments
        Device, precision, and which of how many processes this is.

    Returns
    -------
    LogProbs
        NaN for unusable pairs.

    Raises
    ------
    RuntimeError
        If another process failed; on that one its own error is raised.
    """
    world = int(args.world_size)
    if world == 1:
        return _score(model, probe, args)
    import torch
    from torch import distributed

    # Sharded models need the same calls on every process, and so do groups that hold parts of one model or sequence.
    together = _is_sharded(model) or getattr(args, "parallelism_config", None) is not None or bool(args.deepspeed)
    first, step = (0, 1) if together else (int(args.process_index), world)
    mine = np.arange(first, len(probe), step)
    usable = np.array([status == "ok" for status in probe.status])
    sums, failure = np.zeros((2, len(probe))), None
    if usable[mine].any():
        try:
            part = _score(model, take_pairs(probe, mine), args)
        except Exception as error:  # the other processes wait for this one: first meet them, then raise
            failure = error
        else:
            sums[0, mine], sums[1, mine] = part.chosen, part.rejected
            sums[:, ~usable] = 0.0
    flat = torch.tensor([*sums.ravel(), float(failure is not None)], dtype=torch.float64, device=args.device)
    if together:
        distributed.broadcast(flat, 0)  # all compute the same; rounding must not let a gate close on one alone
    else:
        distributed.all_reduce(flat)
    if failure is not None:
        raise failure
    *values, failed = flat.tolist()
    if failed:
        raise RuntimeError(f"the probe failed on {int(failed)} of {world} processes; their own messages say why")
    gathered = np.reshape(values, (2, len(probe)))
    gathered[:, ~usable] = np.nan
    return record_of(probe, gathered[0], gathered[1])


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


def take_pairs(data: EncodedPreferences, pairs: NDArray[np.intp]) -> EncodedPreferences:
    """Return some pairs of a dataset, in the order given, with only the prompts that they need."""
    rows = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
    kept, prompt_id = np.unique(data.prompt_id[rows], return_inverse=True)
    return dataclasses.replace(
        data,
        keys=tuple(data.keys[int(i)] for i in pairs),
        status=tuple(data.status[int(i)] for i in pairs),
        prompts=tuple(data.prompts[int(i)] for i in kept),
        group=np.repeat(np.arange(len(pairs)), 2),
        slot=data.slot[rows],
        prompt_id=prompt_id.reshape(-1).astype(np.int64),
        prompt_start=data.prompt_start[rows],
        response_ids=tuple(data.response_ids[int(i)] for i in rows),
        loss_mask=tuple(data.loss_mask[int(i)] for i in rows),
        fingerprint="",
    )


def _score(model: Any, probe: EncodedPreferences, args: Any) -> LogProbs:
    with _precision(args):
        record: LogProbs = sequence_log_probs(model, probe)
    return record


def _precision(args: Any) -> Any:
    """Run as the trainer does: under autocast if its arguments say so."""
    if not (args.bf16 or args.fp16):
        return contextlib.nullcontext()
    import torch

    return torch.autocast(args.device.type, dtype=torch.bfloat16 if args.bf16 else torch.float16)


def _is_sharded(model: Any) -> bool:
    return any(base.__name__ in _SHARDED for module in model.modules() for base in type(module).__mro__)

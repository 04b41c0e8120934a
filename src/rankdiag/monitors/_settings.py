"""What a trainer says about its loss, its reference and its rewards, read without importing the trainer's package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rankdiag.language_models import EncodedPreferences
from rankdiag.monitors._score import record_of
from rankdiag.preference import LogProbs

__all__ = [
    "LossSettings",
    "is_dpo",
    "loss_settings",
    "moving_reference",
    "precomputed",
    "reference_model",
    "window_beta",
]

# Names of losses in TRL's DPO trainer -> names here. Its losses over a batch (aot), over generated texts or of other
# arguments (exo_pair, discopop, sft) have no counterpart of one pair.
_LOSSES = {
    "sigmoid": "sigmoid",
    "hinge": "hinge",
    "ipo": "ipo_norm",
    "robust": "robust",
    "nca_pair": "nca_pair",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo_hard",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "sigmoid_norm": "sigmoid_norm",
}
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps")
_BLOCK = 1000  # rows of a dataset that are looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The preference loss that a report is about.

    Attributes
    ----------
    loss : str
        Name, as `loss_weights` knows it.
    beta : float
        Strength of the pull to the reference.
    options : mapping of str to float
        Further hyper-parameters.
    note : str
        Why this is not the loss of the trainer, if it is not.
    """

    loss: str = "dpo"
    beta: float = 0.1
    options: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.loss, "beta": self.beta, "options": dict(self.options), "note": self.note}


def is_dpo(trainer: Any) -> bool:
    """Whether a trainer is TRL's DPO trainer, or derived from it."""
    return any(base.__name__ == "DPOTrainer" and base.__module__.startswith("trl") for base in type(trainer).__mro__)


def loss_settings(trainer: Any) -> LossSettings:
    """Return the loss of a DPO trainer, or the plain DPO loss with the reason why it stands in.

    Parameters
    ----------
    trainer : transformers.Trainer or None
        None where no trainer is bound.

    Returns
    -------
    LossSettings
        Name, beta and options for a displacement report.
    """
    if trainer is None or not is_dpo(trainer):
        return LossSettings(note="the trainer has no DPO loss; DPO with beta 0.1 is the yardstick")
    args = trainer.args
    beta, types = float(args.beta), list(args.loss_type)
    reason = ""
    if len(types) != 1:
        reason = f"a sum of losses ({', '.join(types)})"
    elif types[0] not in _LOSSES:
        reason = f"{types[0]}, which is no function of one pair's log-probabilities"
    elif getattr(args, "f_divergence_type", "reverse_kl") != "reverse_kl":
        reason = f"{types[0]} with the divergence {args.f_divergence_type}"
    elif getattr(args, "ld_alpha", None) is not None:
        reason = f"{types[0]} of length-desensitised log-probabilities"
    elif getattr(args, "use_weighting", False):
        reason = f"{types[0]}, each pair weighted by the policy"
    if reason:
        return LossSettings(beta=beta, note=f"the trainer's loss is {reason}; plain DPO stands in")
    options = {"eps": float(args.label_smoothing)} if types[0] == "robust" else {}
    return LossSettings(loss=_LOSSES[types[0]], beta=beta, options=options)


def window_beta(trainer: Any) -> float | None:
    """Return the beta that turns a DPO trainer's logged rewards into nats, or None for another trainer.

    Raises
    ------
    ValueError
        If the rewards are no plain sums against a fixed reference.
    """
    if not is_dpo(trainer):
        return None
    args = trainer.args
    if getattr(args, "ld_alpha", None) is not None:
        raise ValueError(
            f"`window_log` cannot read the rewards of a trainer with ld_alpha={args.ld_alpha}: they are "
            "length-desensitised, no sums over tokens. Pass window_log=False; the probe itself is measured as always"
        )
    if moving_reference(trainer):
        raise ValueError(
            "`window_log` cannot read the rewards of a trainer with sync_ref_model=True: its reference moves, so they "
            "are no change since the start. Pass window_log=False; the probe itself is measured as always"
        )
    return float(args.beta)


def reference_model(trainer: Any) -> Any:
    """Return the frozen reference model that a trainer holds beside the policy, or None."""
    return getattr(trainer, "ref_model", None) if trainer is not None and is_dpo(trainer) else None


def moving_reference(trainer: Any) -> bool:
    """Whether the reference model follows the policy while it trains."""
    return bool(getattr(trainer.args, "sync_ref_model", False)) if trainer is not None else False


def precomputed(trainer: Any, probe: EncodedPreferences) -> LogProbs | None:
    """Return the reference log-probabilities that a DPO trainer precomputed, if it has them for the whole probe.

    Pairs are found by their token ids. A pair that the trainer cuts at `max_length` is not the pair of the probe.

    Parameters
    ----------
    trainer : transformers.Trainer or None
        The trainer that is bound.
    probe : EncodedPreferences
        The pairs to look for.

    Returns
    -------
    LogProbs or None
        NaN for unusable pairs of the probe; None if a usable one is missing.
    """
    if trainer is None or not is_dpo(trainer) or not getattr(trainer.args, "precompute_ref_log_probs", False):
        return None
    if getattr(trainer.args, "ld_alpha", None) is not None or probe.prompt_start.any():
        return None
    chosen, rejected = probe.chosen_ids, probe.rejected_ids
    prompts = probe.prompt_ids
    usable = [index for index, status in enumerate(probe.status) if status == "ok"]
    longest = getattr(trainer.args, "max_length", None)
    if longest is not None and any(len(prompts[i]) + max(len(chosen[i]), len(rejected[i])) > longest for i in usable):
        return None
    places: dict[tuple[bytes, bytes, bytes], list[int]] = {}
    for index in usable:
        places.setdefault(_signature(prompts[index], chosen[index], rejected[index]), []).append(index)
    sums = np.full((2, len(probe)), np.nan)
    missing = set(places)
    for row in _rows(trainer):
        key = _signature(*row[:3])
        if key in missing:
            sums[0, places[key]], sums[1, places[key]] = row[3], row[4]
            missing.discard(key)
            if not missing:
                break
    if missing:
        return None
    return record_of(probe, sums[0], sums[1])


def _signature(*ids: Any) -> tuple[bytes, bytes, bytes]:
    prompt, chosen, rejected = (np.asarray(part, dtype=np.int64).tobytes() for part in ids)
    return prompt, chosen, rejected


def _rows(trainer: Any) -> Iterator[tuple[Any, Any, Any, float, float]]:
    """Yield the ids and reference log-probabilities of the rows of every dataset of a trainer."""
    held = trainer.eval_dataset
    for dataset in (trainer.train_dataset, *(held.values() if isinstance(held, Mapping) else (held,))):
        names = getattr(dataset, "column_names", None)
        if names is None or not set(_COLUMNS) <= set(names):
            continue
        for block in dataset.select_columns(list(_COLUMNS)).with_format(None).iter(batch_size=_BLOCK):
            yield from zip(*(block[name] for name in _COLUMNS), strict=True)

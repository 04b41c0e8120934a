"""Encoded records: token ids, groups and slots, what was wrong with which row, and a fingerprint of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoded", "EncodedPreferences", "fingerprint_of"]

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoded:
    """Responses to prompts as token ids.

    A *group* is what belongs together: the two responses of a pair, or the rollouts of one prompt. A *row* is one
    response. Rows stand in group order, and inside a group in slot order.

    Attributes
    ----------
    kind : {"pairs", "responses", "ids"}
        What the records were. Pairs have slot 0 chosen and slot 1 rejected.
    keys : tuple of str
        One for each group, unique, in input order.
    status : tuple of str
        One for each group: ``"ok"``, or why it cannot be used.
    prompts : tuple of ndarray of int32
        Distinct prompts, in order of first appearance.
    group, slot, prompt_id, prompt_start : ndarray of int64, shape (rows,)
        Group and slot of each row; which prompt it answers; how many tokens of that prompt were cut off its front.
    response_ids : tuple of ndarray of int32
        One for each row, perhaps empty where the status is not ``"ok"``.
    loss_mask : tuple of (ndarray of bool or None)
        One for each row: which response tokens count; None counts all.
    n_boundary_merges, n_truncated, n_lost_eos : int
        Groups whose prompt and response merged into one token, that were cut, and that lost their EOS by it.
    tokenizer : mapping of str to object
        ``length``, ``hash``, ``eos`` (id or None) and the options of the encoding; JSON-safe.
    notes : tuple of str
        What a reader should know: an example of a merged boundary, say.
    fingerprint : str
        sha256 of ids and options.
    """

    kind: Literal["pairs", "responses", "ids"]
    keys: tuple[str, ...]
    status: tuple[str, ...]
    prompts: tuple[Ids, ...]
    group: NDArray[np.int64]
    slot: NDArray[np.int64]
    prompt_id: NDArray[np.int64]
    prompt_start: NDArray[np.int64]
    response_ids: tuple[Ids, ...]
    loss_mask: tuple[NDArray[np.bool_] | None, ...]
    n_boundary_merges: int = 0
    n_truncated: int = 0
    n_lost_eos: int = 0
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedPreferences(Encoded):
    """Preference pairs as token ids: an `Encoded` of kind ``"pairs"`` read by pair."""

    @property
    def prompt_ids(self) -> tuple[Ids, ...]:
        """Full prompt of each pair."""
        return tuple(self.prompts[int(index)] for index in self.prompt_id[0::2])

    @property
    def chosen_ids(self) -> tuple[Ids, ...]:
        """Chosen response of each pair."""
        return self.response_ids[0::2]

    @property
    def rejected_ids(self) -> tuple[Ids, ...]:
        """Rejected response of each pair."""
        return self.response_ids[1::2]

    @property
    def chosen_start(self) -> NDArray[np.int64]:
        """Prompt tokens cut off in front of each chosen response."""
        return self.prompt_start[0::2]

    @property
    def rejected_start(self) -> NDArray[np.int64]:
        """Prompt tokens cut off in front of each rejected response."""
        return self.prompt_start[1::2]


def fingerprint_of(data: Encoded) -> str:
    """Return the sha256 of everything that a score depends on: ids, masks, cuts, keys, statuses and options."""
    digest = hashlib.sha256()
    header = {"kind": data.kind, "keys": data.keys, "status": data.status, "tokenizer": dict(data.tokenizer)}
    digest.update(json.dumps(header, sort_keys=True, default=str).encode("utf-8", "backslashreplace"))
    for name in ("group", "slot", "prompt_id", "prompt_start"):
        digest.update(np.ascontiguousarray(getattr(data, name), dtype=np.int64).tobytes())
    for ids in (*data.prompts, *data.response_ids):
        digest.update(np.int64(len(ids)).tobytes())
        digest.update(np.ascontiguousarray(ids, dtype=np.int32).tobytes())
    for mask in data.loss_mask:
        digest.update(b"-" if mask is None else np.packbits(mask).tobytes())
    return digest.hexdigest()

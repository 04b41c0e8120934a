"""Moments of the rewards of prompt groups that lie in several parts: made, merged by key, and read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag.rewards._moments import row_moments
from rankdiag.rewards._table import canonical_json
from rankdiag.rewards._zero_std import zero_std_at_k

__all__ = [
    "Groups",
    "as_rewards",
    "group_moments",
    "merge_groups",
    "prompt_keys",
    "rms_of",
    "rows_of",
    "spread_readings",
    "text_key",
    "zero_std_of_multiples",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """Moments of P groups; every array but `keys` has P entries along its last axis.

    Attributes
    ----------
    keys : ndarray of int64, shape (P,)
        Names of the groups; one may stand there more than once, with the parts of its rewards.
    count, mean, m2, min, max : ndarray of float64, shape (..., P)
        Scored rewards, their mean, the sum of squares about it, and their ends; 0, 0, 0, inf, -inf if there are none.
    """

    keys: NDArray[np.int64]
    count: Floats
    mean: Floats
    m2: Floats
    min: Floats
    max: Floats

    @property
    def moments(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Everything but the keys."""
        return self.count, self.mean, self.m2, self.min, self.max


def as_rewards(output: Any) -> Floats:
    """Return float64 rewards, None as NaN, whatever a reward function returned."""
    if hasattr(output, "dtype"):
        return np.array(as_float64(output, "rewards", allow_empty=True, finite=False)).reshape(-1)
    entries = list(output)
    try:
        return np.array(entries, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError):  # tensors of one entry, with a gradient or on an accelerator
        return np.array([np.nan if e is None else float(e.item() if hasattr(e, "item") else e) for e in entries])


def text_key(text: str) -> int:
    """Return a 64-bit key of a text, the same in every process."""
    digest = hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def prompt_keys(prompts: Iterable[Any], place: int) -> NDArray[np.int64]:
    """Return a key for each prompt of a batch: equal for equal texts or conversations, and of this batch alone."""
    known: dict[str, int] = {}
    keys: list[int] = []
    before: Any = None
    key = 0
    for prompt in prompts:
        if not keys or prompt != before:  # prompts stand together as a rule
            text = prompt if isinstance(prompt, str) else canonical_json(prompt)
            if text not in known:
                known[text] = text_key(f"{place} {text}")
            key = known[text]
        keys.append(key)
        before = prompt
    return np.array(keys, dtype=np.int64)


def rows_of(keys: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return distinct keys in ascending order, and values (..., n) as rows (..., P, k), padded with NaN."""
    if len(keys) > 1 and not (keys[1:] >= keys[:-1]).all():
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[..., order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(keys)])
    width = int(sizes.max(initial=0))
    if len(keys) == width * len(starts):
        return keys[starts], values.reshape(*values.shape[:-1], len(starts), width)
    rows = np.full((*values.shape[:-1], len(starts), width), np.nan)
    within = np.arange(len(keys)) - np.repeat(starts, sizes)
    rows[..., np.repeat(np.arange(len(starts)), sizes), within] = values
    return keys[starts], rows


def group_moments(keys: NDArray[np.int64], rows: Floats) -> Groups:
    """Return the moments of rows (..., P, k) of rewards; NaN is left out."""
    if not rows.size:
        none = np.zeros(rows.shape[:-1])
        return Groups(keys, none, none, none, none + np.inf, none - np.inf)
    found = row_moments(rows, ddof=0)
    empty = found.count == 0
    return Groups(
        keys,
        found.count.astype(np.float64),
        np.where(empty, 0.0, found.mean),
        np.asarray(np.where(empty, 0.0, found.var) * found.count, dtype=np.float64),
        np.where(empty, np.inf, found.min),
        np.where(empty, -np.inf, found.max),
    )


def merge_groups(parts: Sequence[Groups]) -> Groups:
    """Return the groups of all parts, each key once, in ascending order.

    Any number of parts of a group are merged at once, as Chan's formula does it for two: sums of squares about a mean
    are added, and what lies between the means; squares are never subtracted.
    """
    keys = np.concatenate([part.keys for part in parts])
    columns = [np.concatenate(arrays, axis=-1) for arrays in zip(*(part.moments for part in parts), strict=True)]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    count, mean, m2, low, high = (column[..., order] for column in columns)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, dtype=np.int64)
    if len(starts) == len(keys):
        return Groups(keys, count, mean, m2, low, high)
    sizes = np.diff(np.r_[starts, len(keys)])
    with np.errstate(over="ignore", invalid="ignore"):  # rewards whose squares float64 cannot hold end as inf
        lowest = np.minimum.reduceat(low, starts, axis=-1)
        highest = np.maximum.reduceat(high, starts, axis=-1)
        base = np.where(
            np.isfinite(lowest), lowest, 0.0
        )  # an entry of the group: equal rewards keep their mean exactly
        total = np.add.reduceat(count, starts, axis=-1)
        gap = np.where(count > 0, mean - np.repeat(base, sizes, axis=-1), 0.0)
        offset = np.add.reduceat(count * gap, starts, axis=-1) / np.maximum(total, 1.0)
        between = count * (gap - np.repeat(offset, sizes, axis=-1)) ** 2
        squares = np.add.reduceat(m2 + between, starts, axis=-1)
        return Groups(keys[starts], total, base + offset, np.where(lowest >= highest, 0.0, squares), lowest, highest)


def rms_of(groups: Groups) -> float:
    """Return the root of the mean unbiased variance of groups (P,); NaN if none has two scored rewards."""
    defined = groups.count >= 2
    if not defined.any():
        return float("nan")
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt((groups.m2[defined] / (groups.count[defined] - 1.0)).mean()))


def zero_std_of_multiples(parts: Sequence[tuple[NDArray[np.int64], Floats]], k: int) -> dict[str, float]:
    """Return the expected share of groups without spread at 2 k, 4 k, ... rollouts, of groups that have so many.

    Parts are keys (P,) and rows (P, width) of rewards, padded with NaN; a group may lie in several.
    """
    keys = np.concatenate([np.repeat(own, rows.shape[1]) for own, rows in parts])
    _, rows = rows_of(keys, np.concatenate([rows.ravel() for _, rows in parts]))
    scored = (~np.isnan(rows)).sum(axis=1)
    found: dict[str, float] = {}
    factor = 2
    while (scored >= factor * k).any():
        found[f"zero_std_at_{factor}k"] = float(np.mean(zero_std_at_k(rows[scored >= factor * k], factor * k)))
        factor *= 2
    return found


def spread_readings(groups: Groups, equal: NDArray[np.bool_], low_std: float) -> dict[str, float]:
    """Return what the moments (P,) of groups say about spread: within groups, and beside that between them.

    Groups with fewer than 2 scored rewards have no variance and are left out of what needs one. What is not defined is
    NaN.
    """
    defined = groups.count >= 2
    n = groups.count[defined]
    if not len(n):
        return {}
    with np.errstate(over="ignore", invalid="ignore"):
        var = np.where(equal[defined], 0.0, groups.m2[defined] / (n - 1.0))
        std = np.sqrt(var)
        quantiles = np.quantile(std, (0.1, 0.5, 0.9))
        found = {
            "within_std_rms": float(np.sqrt(var.mean())),
            "within_std_q10": float(quantiles[0]),
            "within_std_q50": float(quantiles[1]),
            "within_std_q90": float(quantiles[2]),
            "frac_zero_std": float(equal[defined].mean()),
            "frac_low_std": float((std <= low_std).mean()),
            "effective_prompts": float((~equal[defined]).sum()),
        }
        return found | _between(groups, equal, float(var.mean()))


def _between(groups: Groups, equal: NDArray[np.bool_], mean_var: float) -> dict[str, float]:
    """Return ICC(1) and the normalised variance: spread within prompts beside that of all rewards."""
    some = groups.count >= 1
    n, mean = groups.count[some], groups.mean[some]
    rewards, prompts = float(n.sum()), len(n)
    within = float(np.where(equal[some], 0.0, groups.m2[some]).sum())
    middle = mean[0] + (n * (mean - mean[0])).sum() / rewards
    between = float((n * (mean - middle) ** 2).sum())
    if groups.min[some].min() == groups.max[some].max() or within + between == 0.0:
        return {"icc": float("nan"), "normalised_variance": float("nan")}
    normalised = mean_var / ((within + between) / (rewards - 1.0))
    if prompts < 2 or rewards <= prompts:
        return {"icc": float("nan"), "normalised_variance": normalised}
    msw, msb = within / (rewards - prompts), between / (prompts - 1)
    k0 = (rewards - float((n * n).sum()) / rewards) / (prompts - 1)
    return {"icc": (msb - msw) / (msb + (k0 - 1.0) * msw), "normalised_variance": normalised}

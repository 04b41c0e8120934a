"""Spread of rewards within prompts as a metric of torchmetrics, over any number of batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rankdiag._optional import optional
from rankdiag._validate import boolean, describe
from rankdiag.monitors._reward_groups import Groups, as_rewards, merge_groups, text_key

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    Metric = optional("torchmetrics", extra="metrics", feature="RewardStdMetric").Metric

__all__ = ["RewardStdMetric"]

_STATES = ("count", "mean", "m2", "min", "max")
_FEW = 4096  # rows that are not worth a merge
_PART = 1 << 17  # rows that are merged at a time
_MANY = 64  # batches of a list that is read at every update


class RewardStdMetric(Metric):  # type: ignore[misc] # torchmetrics is not followed by the type checker
    """Spread of rewards within prompts, streamed: rollouts of a prompt may come in any batch, on any process.

    ``update(rewards, prompts)`` takes one batch; ``compute()`` returns a dict of float64 tensors: ``rms_std``, the root
    of the mean unbiased variance within prompts; ``mean_std``, the mean standard deviation, which is biased low;
    ``frac_zero_std``, the share of prompts whose rewards are all equal; ``n_prompts``, the prompts that these three are
    of; and ``n_undefined``, those with fewer than two scored rollouts, which are left out.

    Parameters
    ----------
    compute_on_cpu, dist_sync_on_step, process_group, dist_sync_fn, sync_on_compute, compute_with_cache
        Options of `torchmetrics.Metric`, handed on.

    Notes
    -----
    States are rows of a key and of count, mean, sum of squares about the mean, minimum and maximum, in float64
    whatever comes in; processes concatenate them, and `compute` merges rows of one key. Rows are also merged whenever
    their number has doubled, so memory stays O(distinct prompts) and an update O(batch), amortised; `compute` sorts
    once. A prompt given as text has a 64-bit hash of it as key: of a million prompts, some two share one with
    probability 3e-8.

    Examples
    --------
    >>> from rankdiag.monitors import RewardStdMetric
    >>> metric = RewardStdMetric()
    >>> metric.update([0.0, 1.0], ["a", "a"])
    >>> metric.update([1.0, 2.0, 2.0], ["a", "b", "b"])
    >>> {name: round(float(value), 4) for name, value in metric.compute().items()}
    {'rms_std': 0.4082, 'mean_std': 0.2887, 'frac_zero_std': 0.5, 'n_prompts': 2.0, 'n_undefined': 0.0}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    keys_: list[torch.Tensor]
    count: list[torch.Tensor]
    mean: list[torch.Tensor]
    m2: list[torch.Tensor]
    min: list[torch.Tensor]
    max: list[torch.Tensor]

    def __init__(
        self,
        *,
        compute_on_cpu: bool = False,
        dist_sync_on_step: bool = False,
        process_group: Any = None,
        dist_sync_fn: Any = None,
        sync_on_compute: bool = True,
        compute_with_cache: bool = True,
    ) -> None:
        if dist_sync_fn is not None and not callable(dist_sync_fn):
            raise TypeError(f"`dist_sync_fn` must be a function or None; got {describe(dist_sync_fn)}")
        super().__init__(
            compute_on_cpu=boolean(compute_on_cpu, "compute_on_cpu"),
            dist_sync_on_step=boolean(dist_sync_on_step, "dist_sync_on_step"),
            process_group=process_group,
            dist_sync_fn=dist_sync_fn,
            sync_on_compute=boolean(sync_on_compute, "sync_on_compute"),
            compute_with_cache=boolean(compute_with_cache, "compute_with_cache"),
        )
        for name in ("keys_", *_STATES):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._whole = 0  # rows after the last merge
        self._fill()

    def _fill(self) -> None:
        """Put an empty tensor of the right type in each state: what a process without data sends to the others."""
        for name in ("keys_", *_STATES):
            if not getattr(self, name):
                dtype = torch.int64 if name == "keys_" else torch.float64
                setattr(self, name, [torch.empty(0, dtype=dtype, device=self.device)])

    def reset(self) -> None:
        """Forget all rewards."""
        super().reset()
        self._whole = 0
        self._fill()

    def update(self, rewards: Any, prompts: Any) -> None:
        """Take the rewards of a batch of rollouts.

        Parameters
        ----------
        rewards : torch.Tensor or sequence of float, shape (B,)
            One for each rollout; None or NaN for one that cannot be scored.
        prompts : sequence of str or of int, or int64 tensor, shape (B,)
            The prompt of each rollout.

        Raises
        ------
        TypeError
            If `rewards` are no numbers, or `prompts` neither strings nor integers.
        ValueError
            If lengths differ, a reward is infinite, or an integer has more than 64 bits.
        """
        values, keys = self._checked(rewards, prompts)
        scored = ~torch.isnan(values)
        self.keys_.append(keys)
        self.count.append(scored.to(torch.float64))
        self.mean.append(torch.where(scored, values, 0.0))
        self.m2.append(torch.zeros_like(values))
        self.min.append(torch.where(scored, values, torch.inf))
        self.max.append(torch.where(scored, values, -torch.inf))
        self._tidy()

    def _checked(self, rewards: Any, prompts: Any) -> tuple[torch.Tensor, torch.Tensor]:
        values, keys = _rewards(rewards, self.device), _keys(prompts, self.device)
        if values.shape != keys.shape:
            raise ValueError(f"`prompts` must have one entry for each of {values.numel()} rewards; got {keys.numel()}")
        if bool(torch.isinf(values).any()):
            raise ValueError("`rewards` must be finite, or NaN where unscorable; got +-inf")
        return values, keys

    def forward(self, rewards: Any, prompts: Any) -> dict[str, torch.Tensor]:
        """Take a batch, and return what `compute` would say of this batch alone.

        Parameters
        ----------
        rewards, prompts
            As in `update`.

        Returns
        -------
        dict of str to torch.Tensor
            As `compute` does.

        Raises
        ------
        TypeError
            See `update`.
        ValueError
            See `update`.
        """
        batch = self._checked(rewards, prompts)  # first: the base class loses its state if an update fails in here
        whole = self._whole
        found: dict[str, torch.Tensor] = super().forward(*batch)
        self._whole = whole  # which the reset of the base class has forgotten
        self._tidy()
        return found

    def _tidy(self) -> None:
        """Merge rows of one prompt once their number has doubled; keep the lists short."""
        if sum(len(rows) for rows in self.keys_) > 2 * self._whole + _FEW:
            self._compact()
        elif len(self.keys_) > _MANY:
            for name in ("keys_", *_STATES):
                setattr(self, name, [_joined(getattr(self, name))])

    def _groups(self) -> Groups:
        keys, *columns = (_joined(getattr(self, name)).cpu().numpy() for name in ("keys_", *_STATES))
        parts = 1 + len(keys) // _PART
        if parts == 1:
            return merge_groups([Groups(keys, *columns)])
        dealt = keys % parts  # a part at a time: what a merge needs beside its input is a multiple of that
        merged = []
        for part in range(parts):
            own = dealt == part
            merged.append(merge_groups([Groups(keys[own], *(column[own] for column in columns))]))
        found = zip(*(groups.moments for groups in merged), strict=True)
        return Groups(np.concatenate([groups.keys for groups in merged]), *map(np.concatenate, found))

    def _compact(self) -> None:
        for name in ("keys_", *_STATES):
            setattr(self, name, [_joined(getattr(self, name))])  # one after the other: the pieces of each go at once
        groups = self._groups()
        for name, column in zip(("keys_", *_STATES), (groups.keys, *groups.moments), strict=True):
            setattr(self, name, [torch.from_numpy(np.ascontiguousarray(column)).to(self.device)])
        self._whole = len(groups.keys)

    def compute(self) -> dict[str, torch.Tensor]:
        """Return the spread within all prompts seen by all processes.

        Returns
        -------
        dict of str to torch.Tensor
            Scalars in float64; NaN in the first three if no prompt has two scored rollouts.
        """
        groups = self._groups()
        defined = groups.count >= 2
        with np.errstate(over="ignore", invalid="ignore"):
            var = groups.m2[defined] / (groups.count[defined] - 1.0)
        known = len(var) > 0
        found = {
            "rms_std": float(np.sqrt(var.mean())) if known else np.nan,
            "mean_std": float(np.sqrt(var).mean()) if known else np.nan,
            "frac_zero_std": float((groups.max == groups.min)[defined].mean()) if known else np.nan,
            "n_prompts": float(len(var)),
            "n_undefined": float((~defined).sum()),
        }
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in found.items()}

    def merge_state(self, incoming_state: Any) -> None:
        """Take in what another metric has seen.

        Parameters
        ----------
        incoming_state : RewardStdMetric or dict
            The other metric, or its states.

        Raises
        ------
        ValueError
            If it is neither.
        """
        super().merge_state(incoming_state)
        self._computed = None  # the base class would go on returning what was computed before
        self._update_count += max(1, getattr(incoming_state, "_update_count", 1))  # or warn that nothing was seen
        self._compact()


def _joined(state: Any) -> torch.Tensor:
    """Return a state as one tensor: a list of them, or what processes have made of it."""
    if isinstance(state, torch.Tensor):
        return state
    return state[0] if len(state) == 1 else torch.cat(list(state))


def _rewards(rewards: Any, device: torch.device) -> torch.Tensor:
    if isinstance(rewards, torch.Tensor):
        return rewards.detach().to(device=device, dtype=torch.float64).reshape(-1)
    return torch.from_numpy(as_rewards(rewards)).to(device)


def _keys(prompts: Any, device: torch.device) -> torch.Tensor:
    if isinstance(prompts, torch.Tensor):
        if prompts.is_floating_point() or prompts.is_complex():
            raise TypeError(f"`prompts` must be strings or integers; got {describe(prompts)} of {prompts.dtype}")
        return prompts.detach().to(device=device, dtype=torch.int64).reshape(-1)
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, (Sequence, np.ndarray)):
        raise TypeError(f"`prompts` must be a sequence of strings or integers; got {describe(prompts)}")
    known: dict[Any, int] = {}
    keys = []
    for prompt in prompts:
        if isinstance(prompt, str):
            if prompt not in known:
                known[prompt] = text_key(prompt)
            keys.append(known[prompt])
        elif isinstance(prompt, (int, np.integer)) and not isinstance(prompt, bool):
            if not -(2**63) <= prompt < 2**63:
                raise ValueError(
                    f"`prompts` must hold integers of 64 bits; got {describe(prompt)}. Pass it as a string"
                )
            keys.append(int(prompt))
        else:
            raise TypeError(f"`prompts` must hold strings or integers; got {describe(prompt)}")
    return torch.tensor(keys, dtype=torch.int64, device=device)

"""The reward figures that TRL's trainers log, from the rewards alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, integer
from rankdiag.rewards._std_bounds import finite_moments, reward_rows

__all__ = ["TrlBatchMetrics", "trl_batch_metrics"]

Floats = NDArray[np.float64]

_GRPO_EPSILON = 1e-4  # of TRL's GRPO advantage; kept, for logged advantages need it
_ZERO = 1e-8  # absolute tolerance of torch.isclose(std, 0), TRL's test for a std of zero


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrlBatchMetrics(Result):
    """What TRL logs about the rewards of one batch.

    Attributes
    ----------
    reward : float
        Mean of the scorable rewards.
    reward_std : float
        Their std (ddof=1) over the whole batch, which mixes the spread between prompts with that within; NaN below two.
    group_std : ndarray of float64, shape (G,)
        Std (ddof=1) within each group; NaN below two scorable rewards. With one generation a group it is 0, as in TRL.
    frac_reward_zero_std : float
        Share of completions whose scaling std is within 1e-8 of 0.
    advantages : ndarray of float64
        In the shape of the rewards; 0 where there is no signal.

    Examples
    --------
    >>> from rankdiag.rewards import trl_batch_metrics
    >>> trl_batch_metrics([1.0, 0.0, 1.0, 1.0], num_generations=2).frac_reward_zero_std
    0.5
    """

    tag: ClassVar[str] = "rewards.TrlBatchMetrics"

    reward: float
    reward_std: float
    group_std: Floats
    frac_reward_zero_std: float
    advantages: Floats


def trl_batch_metrics(
    rewards: Any,
    *,
    num_generations: int,
    trainer: Literal["grpo", "rloo"] = "grpo",
    scale_rewards: Literal["group", "batch", "none"] = "group",
) -> TrlBatchMetrics:
    """Compute what TRL's GRPO or RLOO trainer logs about the rewards of one batch, and its advantages.

    Parameters
    ----------
    rewards : array-like or torch.Tensor, shape (B,) or (G, k)
        Weighted sums of the reward functions, groups one after another; NaN is a completion that none could score.
    num_generations : int
        Completions of one prompt; divides B, and equals k.
    trainer : {"grpo", "rloo"}
        Whose figures.
    scale_rewards : {"group", "batch", "none"}
        Option of GRPO. RLOO has none: "group" and "none" are the same there and "batch" is refused.

    Returns
    -------
    TrlBatchMetrics
        Figures of the batch.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the rewards do not come in groups of `num_generations`, are infinite, or an option is not in its list.

    Notes
    -----
    TRL 1.16 with its defaults: reward functions are summed before they are normalised, no penalty and no clipping is
    inside RLOO's reward, and its advantages are not normalised. GRPO: (r - group mean) / (std + 1e-4), std that of the
    group or of the batch, no division with "none"; with "batch" the zero test looks at the std of the batch and so is
    0 or 1. RLOO: r minus the mean of the other scorable rewards. TRL adds in float32, this function in float64: TRL's
    share can miss a group of equal rewards that are no dyadic fractions, six of 0.15 or 0.45 say, for which float32
    gives a std above 1e-8. Time O(B).

    Examples
    --------
    >>> from rankdiag.rewards import trl_batch_metrics
    >>> found = trl_batch_metrics([1.0, 0.0, 1.0, 1.0], num_generations=2, trainer="rloo")
    >>> found.advantages.tolist(), found.reward, found.reward_std
    ([1.0, -1.0, 0.0, 0.0], 0.75, 0.5)
    """
    size = integer(num_generations, "num_generations", low=1)
    trainer = choice(trainer, "trainer", cast("tuple[Any, ...]", ("grpo", "rloo")))
    scale = choice(scale_rewards, "scale_rewards", cast("tuple[Any, ...]", ("group", "batch", "none")))
    if trainer == "rloo" and scale == "batch":
        raise ValueError(
            "`scale_rewards` must be 'group' or 'none' for trainer 'rloo', which does not scale; got 'batch'"
        )
    array, flat = reward_rows(rewards, "rewards")
    if not flat and array.shape[1] != size:
        raise ValueError(f"`rewards` must have {size} columns, as `num_generations` says; got shape {array.shape}")
    if array.size % size:
        raise ValueError(f"`rewards` must hold a multiple of `num_generations` = {size} entries; got {array.size}")
    grouped = array.reshape(-1, size)
    whole, groups = finite_moments(array.reshape(1, -1), "rewards"), finite_moments(grouped, "rewards")
    group_std = groups.std if size > 1 else np.zeros(len(grouped))
    scored, reward, batch_std = int(whole.count[0]), float(whole.mean[0]), float(whole.std[0])
    scaling = group_std
    if scale == "batch":
        scaling = np.full(len(grouped), batch_std if array.size > 1 else 0.0)
    advantages = grouped - groups.mean[:, None]
    if trainer == "rloo":
        several = np.where(groups.count > 1, groups.count, np.nan)
        advantages = advantages * (several / (several - 1.0))[:, None]
    elif scale != "none":
        advantages = advantages / (scaling + _GRPO_EPSILON)[:, None]
    advantages = np.where(np.isnan(advantages), 0.0, advantages).reshape(-1 if flat else grouped.shape)
    share = float((scaling <= _ZERO).mean())  # NaN is no zero, and stays in the denominator
    for part in (group_std, advantages):
        part.flags.writeable = False
    return TrlBatchMetrics(
        reward=reward,
        reward_std=batch_std,
        group_std=group_std,
        frac_reward_zero_std=share,
        advantages=advantages,
        explanation=_explain(share, len(grouped), scale),
        meta=Meta(
            definition=f"reward figures of TRL's {trainer.upper()} trainer for one batch",
            ddof=1,
            units="reward",
            n=scored,
            skipped={"rewards": f"{array.size - scored} of {array.size} unscorable"} if scored < array.size else {},
            details={"num_generations": size, "trainer": trainer, "scale_rewards": scale},
        ),
    )


def _explain(share: float, groups: int, scale: str) -> str:
    if scale == "batch":
        said = "has" if share else "has not"
        return f"The batch {said} a std of zero; with batch scaling this says nothing about single prompts."
    text = f"{share:.0%} of {groups} groups have equal rewards and give no gradient."
    return text + (" Half of the batch is wasted: raise the group size, filter, or warm up." if share > 0.5 else "")

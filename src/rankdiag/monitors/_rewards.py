"""Rewards as a trainer's own reward functions give them, group by group: how far they can move the policy."""

from __future__ import annotations

import functools
import inspect
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._optional import optional
from rankdiag._validate import RankdiagWarning, choice, describe, integer, real
from rankdiag.monitors._reward_groups import (
    Groups,
    as_rewards,
    group_moments,
    merge_groups,
    prompt_keys,
    rms_of,
    rows_of,
    spread_readings,
    zero_std_of_multiples,
)

__all__ = ["RewardLandscapeMonitor", "wrap_reward_fn"]

Floats = NDArray[np.float64]
Split = Literal["train", "eval"]
RewardFunction = TypeVar("RewardFunction", bound=Callable[..., Any])

PREFIX = "rankdiag/rewards"
_KEPT = 256  # batches that wait for `collect`; older ones are dropped, so that memory has a bound
_SHIFT = 32  # bits of a key below the number of the batch


@dataclass(slots=True)
class _Batch:
    """What the functions gave for one batch of completions of this process."""

    keys: NDArray[np.int64]
    rewards: dict[str, Floats] = field(default_factory=dict)


@dataclass(slots=True)
class _Part:
    """The groups of one process: each function's, and those of the weighted sum in the last row."""

    groups: Groups
    scale: Floats  # (P,) largest sum of |weight x reward|, by which the sum of a group is rounded
    rows: Floats | None  # (P, k) sums, where groups are large enough to say more


class RewardLandscapeMonitor:
    """Collects what wrapped reward functions return, by prompt group, and reads how far it can move the policy.

    Wrap each function with `wrap_reward_fn`, give the wrapped ones to a GRPO or RLOO trainer, and bind a
    `RewardLandscapeCallback` to it. The expected policy gradient of a prompt vanishes with the standard deviation of
    its rewards, so what matters is the spread *within* groups; a trainer's ``reward_std`` mixes it with that between
    prompts.

    Parameters
    ----------
    group_size : int, optional
        Completions of a prompt, which stand together. None takes that of the trainer; without a trainer, completions
        of equal prompts in a batch are a group.
    weights : mapping of str to float, optional
        Weight of each function, by its name, in the sum. None takes those of the trainer; without one, 1.
    low_std : float
        Standard deviation, in units of the weighted sum, up to which a group counts in ``frac_low_std``.
    reward_range : (float, float), optional
        Lowest and highest weighted sum there can be. None takes those seen so far.

    Attributes
    ----------
    readings : dict of str to float
        What `collect` returned last.
    seconds : float
        Time spent on all of it, without the functions themselves.

    Raises
    ------
    TypeError
        If an option has the wrong type.
    ValueError
        If an option has a value that it cannot have.

    Notes
    -----
    After the prefix ``rankdiag/rewards`` (``rankdiag/rewards/eval`` for evaluations) a reading is called:

    ``within_std_rms``
        Root of the mean unbiased variance within groups.
    ``within_std_q10``, ``within_std_q50``, ``within_std_q90``
        Quantiles of the standard deviation (ddof=1) within groups.
    ``frac_zero_std``
        Share of groups whose rewards are all equal.
    ``frac_all_worst``, ``frac_all_best``
        Share of groups whose rewards are all equal to the lowest, to the highest one.
    ``frac_low_std``
        Share of groups with a standard deviation of at most `low_std`.
    ``effective_prompts``
        Number of groups with spread.
    ``icc``, ``normalised_variance``
        Spread within groups beside all spread: one-way ICC(1), and mean variance over pooled variance (ddof=1).
    ``zero_std_at_2k``, ``zero_std_at_4k``, ...
        Expected ``frac_zero_std`` at a multiple of the trainer's group size, without bias; only of groups that have so
        many scored completions, as in an evaluation with a larger ``num_generations_eval``.
    ``{name}/within_std_rms``
        The same for one function, without its weight.
    ``{name}/conflict``
        Share of groups in which the function has spread and the weighted sum has none.
    ``{name}/zero_in_sum``
        Share of groups in which the weighted sum has spread and the function none: it adds nothing there.

    Groups with fewer than two scored completions have no variance and are left out; a reading that is not defined is
    left out as well. None, NaN and infinite rewards are unscorable. A sum goes over the functions that scored a
    completion, as in TRL. Sums come before a KL penalty, clipping or normalisation by the trainer: those hide a reward
    without spread.

    A function's group has no spread if its rewards are exactly equal. Sums of several functions are rounded, so there
    it is that they differ by no more than rounding can make of equal ones, 2 (m + 1) u times the sum of the m
    magnitudes, u = 2^-53.

    Cost: O(completions) for each batch. Between processes only moments travel, once for each `collect`.

    References
    ----------
    Razin et al., "Vanishing Gradients in Reinforcement Finetuning of Language Models", arXiv 2310.20703, Theorem 1.
    Razin et al., "What Makes a Reward Model a Good Teacher?", arXiv 2503.15477, Table 1, for the normalised variance.

    Examples
    --------
    >>> from rankdiag.monitors import RewardLandscapeMonitor, wrap_reward_fn
    >>> monitor = RewardLandscapeMonitor()
    >>> def correct(prompts, completions, **columns):
    ...     return [float(text == "4") for text in completions]
    >>> watched = wrap_reward_fn(correct, monitor)
    >>> watched(prompts=["2+2="] * 2 + ["9*9="] * 2, completions=["4", "5", "4", "4"])
    [1.0, 0.0, 1.0, 1.0]
    >>> found = monitor.collect()
    >>> found["rankdiag/rewards/frac_zero_std"], found["rankdiag/rewards/effective_prompts"]
    (0.5, 1.0)
    """

    def __init__(
        self,
        *,
        group_size: int | None = None,
        weights: Mapping[str, float] | None = None,
        low_std: float = 0.05,
        reward_range: tuple[float, float] | None = None,
    ) -> None:
        self.group_size = None if group_size is None else integer(group_size, "group_size", low=1)
        if weights is not None and not isinstance(weights, Mapping):
            raise TypeError(f"`weights` must map names of functions to numbers; got {describe(weights)}")
        self.weights = None if weights is None else {str(k): real(v, f"weights[{k!r}]") for k, v in weights.items()}
        self.low_std = real(low_std, "low_std", low=0.0)
        self.reward_range = None if reward_range is None else _range(reward_range)
        self.readings: dict[str, float] = {}
        self.seconds = 0.0
        self._functions: dict[str, Any] = {}
        self._batches: dict[str, dict[int, _Batch]] = {"train": {}, "eval": {}}
        self._calls: dict[str, dict[str, int]] = {"train": {}, "eval": {}}
        self._seen: dict[str, tuple[float, float]] = {}
        self._trainer: weakref.ref[Any] | None = None
        self._warned = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._functions) or 'no function'})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_trainer": None, "_functions": dict.fromkeys(self._functions)}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the functions that are summed: those of the trainer, in its order, or all that were wrapped."""
        trainer = self._bound
        if trainer is None or not hasattr(trainer, "reward_funcs"):
            return tuple(self._functions)
        return tuple(function.__name__ for function in trainer.reward_funcs if _is_watched(function, self))

    def collect(self, split: Split = "train") -> dict[str, float]:
        """Return the readings of all that was collected since the last call, and begin anew.

        Where a bound trainer runs in several processes, all of them have to call this together: they exchange the
        moments of their groups, and all get the same readings.

        Parameters
        ----------
        split : {"train", "eval"}
            Rewards of training, or those that a bound trainer computed while it evaluated.

        Returns
        -------
        dict of str to float
            See the notes of the class; empty if nothing was collected. Groups of several batches count alike.

        Raises
        ------
        TypeError
            If `split` is no string.
        ValueError
            If `split` is neither of the two.
        """
        began = time.perf_counter()
        kind = choice(split, "split", ("train", "eval"))
        batches, self._batches[kind] = self._batches[kind], {}
        names, trainer = self.names, self._bound
        parts = [self._part(kind, tuple(batches.values()), names)]
        if trainer is not None and trainer.accelerator.num_processes > 1:
            gather = optional("accelerate.utils", extra="trl", feature="RewardLandscapeMonitor").gather_object
            parts = gather(parts)
        found = self._read(kind, [part for part in parts if len(part.groups.keys)], names)
        prefix = PREFIX if kind == "train" else f"{PREFIX}/{kind}"
        self.readings = {f"{prefix}/{name}": value for name, value in found.items() if np.isfinite(value)}
        self.seconds += time.perf_counter() - began
        return dict(self.readings)

    # --- what comes in ---------------------------------------------------------------------------------------------

    def _follow(self, trainer: Any) -> None:
        """Take group sizes, weights and the place of this process from a trainer, and have a look at both."""
        functions = getattr(trainer, "reward_funcs", None)
        if functions is not None:
            wrapped = [_is_watched(function, self) for function in functions]
            if not any(wrapped):
                raise ValueError(
                    "`trainer` must have a reward function that is wrapped for this monitor; give it "
                    "wrap_reward_fn(function, monitor) in place of the function"
                )
            if not all(wrapped):
                warnings.warn(
                    f"{wrapped.count(False)} of {len(wrapped)} reward functions of the trainer are not wrapped; what "
                    "the monitor calls the sum leaves them out",
                    RankdiagWarning,
                    stacklevel=3,
                )
        size = getattr(trainer, "num_generations", None)
        if size is not None and self.group_size is not None and int(size) != self.group_size:
            raise ValueError(
                f"`group_size` must be that of the trainer, {int(size)}; got {self.group_size}: leave it out"
            )
        self._trainer = weakref.ref(trainer)

    @property
    def _bound(self) -> Any:
        return self._trainer() if self._trainer is not None else None

    def _register(self, name: str, function: Any) -> None:
        known = self._functions.get(name)
        if known is not None and known is not function:
            raise ValueError(
                f"`fn` must have a name of its own, for readings go by it; this monitor has another {name!r} already: "
                "rename one, or make a new monitor"
            )
        if name in self._batches:
            raise ValueError(
                f"`fn` must not be called {name!r}, which is the name of a part of the readings; rename it"
            )
        self._functions[name] = function

    def _take(self, name: str, output: Any, prompts: Any) -> None:
        """Keep the rewards of one call."""
        began = time.perf_counter()
        rewards = as_rewards(output)
        if np.isinf(rewards).any():
            if not self._warned:
                text = f"the reward function {name!r} returned an infinite reward; it is counted as unscorable"
                warnings.warn(text, RankdiagWarning, stacklevel=3)
            self._warned = True
            rewards = np.where(np.isinf(rewards), np.nan, rewards)
        trainer = self._bound
        split = "eval" if trainer is not None and not trainer.model.training else "train"
        place = self._calls[split].get(name, 0)
        self._calls[split][name] = place + 1
        batches = self._batches[split]
        if place not in batches:
            batches[place] = _Batch(self._keys(prompts, len(rewards), split, place))
            if len(batches) > _KEPT:
                del batches[min(batches)]
        batch = batches.get(place)
        if batch is not None and len(batch.keys) == len(rewards):  # else the trainer says what is wrong
            batch.rewards[name] = rewards
        self.seconds += time.perf_counter() - began

    def _size(self, split: str) -> int | None:
        trainer = self._bound
        size = getattr(trainer, "num_generations", None)
        if size is not None and split == "eval":
            size = getattr(trainer, "num_generations_eval", None) or size
        return self.group_size if size is None else int(size)

    def _keys(self, prompts: Any, count: int, split: str, place: int) -> NDArray[np.int64]:
        """Return the group of each completion: its place among those of all processes, or else its prompt."""
        size = self._size(split)
        if size is not None:
            trainer = self._bound
            first = 0 if trainer is None else trainer.accelerator.process_index * count
            return (place << _SHIFT) + (first + np.arange(count, dtype=np.int64)) // size
        if prompts is None or len(prompts) != count:
            raise ValueError(
                "a reward function was called without a prompt for each completion; set `group_size` of the monitor, "
                "so that it knows which completions belong together"
            )
        return prompt_keys(prompts, place)

    # --- what goes out ---------------------------------------------------------------------------------------------

    def _weight(self, name: str) -> float:
        if self.weights is not None:
            return self.weights.get(name, 1.0)
        trainer = self._bound
        weights = getattr(trainer, "reward_weights", None)
        if weights is None:
            return 1.0
        place = [getattr(function, "__name__", None) for function in trainer.reward_funcs].index(name)
        return float(weights[place])

    def _part(self, split: str, batches: Sequence[_Batch], names: tuple[str, ...]) -> _Part:
        """Return the moments of all groups of this process."""
        keys = np.concatenate([np.zeros(0, dtype=np.int64), *(batch.keys for batch in batches)])
        values = np.full((len(names) + 2, len(keys)), np.nan)
        for row, name in enumerate(names):
            if batches:
                given = [batch.rewards.get(name) for batch in batches]
                values[row] = np.concatenate(
                    [np.full(len(b.keys), np.nan) if r is None else r for b, r in zip(batches, given, strict=True)]
                )
        weights = np.array([self._weight(name) for name in names])
        with np.errstate(over="ignore", invalid="ignore"):
            terms = values[: len(names)] * weights[:, None]
        unscored = np.isnan(values[: len(names)]).all(axis=0)
        values[-2] = np.where(unscored, np.nan, np.nansum(terms, axis=0))
        values[-1] = np.where(unscored, np.nan, np.nansum(np.abs(terms), axis=0))
        keys, rows = rows_of(keys, values)
        groups = group_moments(keys, rows)
        moments = Groups(keys, *(column[:-1] for column in groups.moments))
        again = self._size("train")
        large = self._size(split)
        keep = again is not None and large is not None and large >= 2 * again
        return _Part(moments, groups.max[-1], rows[-2] if keep else None)

    def _read(self, split: str, parts: Sequence[_Part], names: tuple[str, ...]) -> dict[str, float]:
        if not parts:
            return {}
        merged = merge_groups([part.groups for part in parts])
        functions = len(names)
        total = Groups(merged.keys, *(column[-1] for column in merged.moments))
        equal = total.max <= total.min
        slack = np.zeros(len(merged.keys))
        if functions > 1:
            keys = np.concatenate([part.groups.keys for part in parts])
            slack[:] = -np.inf
            np.maximum.at(slack, np.searchsorted(merged.keys, keys), np.concatenate([part.scale for part in parts]))
            slack *= (functions + 1) * np.finfo(np.float64).eps  # 2 (m + 1) u
            equal |= total.max - total.min <= slack
        found = spread_readings(total, equal, self.low_std)
        if not found:
            return {}
        defined = total.count >= 2
        found |= self._ends(split, total, equal, slack)
        k = self._size("train")
        if k is not None and all(part.rows is not None for part in parts):
            found |= zero_std_of_multiples(
                [(part.groups.keys, part.rows) for part in parts if part.rows is not None], k
            )
        for row, name in enumerate(names):
            own = Groups(merged.keys, *(column[row] for column in merged.moments))
            flat = (own.max <= own.min) | (own.count < 2)
            found[f"{name}/within_std_rms"] = rms_of(own)
            found[f"{name}/conflict"] = float((~flat & equal)[defined].mean())
            found[f"{name}/zero_in_sum"] = float((flat & ~equal)[defined].mean())
        return found

    def _ends(self, split: str, total: Groups, equal: NDArray[np.bool_], slack: Floats) -> dict[str, float]:
        """Return the shares of groups that are all at the lowest, and all at the highest reward."""
        some, defined = total.count >= 1, total.count >= 2
        low, high = self._seen.get(split, (np.inf, -np.inf))
        low, high = min(low, float(total.min[some].min())), max(high, float(total.max[some].max()))
        self._seen[split] = (low, high)
        if self.reward_range is not None:
            low, high = self.reward_range
        flat = equal[defined]
        return {
            "frac_all_worst": float((flat & (total.min[defined] - slack[defined] <= low)).mean()),
            "frac_all_best": float((flat & (total.max[defined] + slack[defined] >= high)).mean()),
        }


def wrap_reward_fn(fn: RewardFunction, monitor: RewardLandscapeMonitor) -> RewardFunction:
    """Wrap a reward function, so that a monitor sees what it returns.

    Parameters
    ----------
    fn : callable
        A reward function as TRL takes them: called with ``prompts``, ``completions`` and further columns, it returns
        one reward for each completion, None for one that cannot be scored. May be async. Reward *models* are no
        functions and stay as they are.
    monitor : RewardLandscapeMonitor
        What collects the rewards.

    Returns
    -------
    callable
        With the name and the signature of `fn`. It returns what `fn` returns; an iterator comes back as a list.

    Raises
    ------
    TypeError
        If `fn` is no such function, or `monitor` no monitor.
    ValueError
        If the monitor has another function of the same name.

    Examples
    --------
    >>> from rankdiag.monitors import RewardLandscapeMonitor, wrap_reward_fn
    >>> def length(prompts, completions, **columns):
    ...     return [len(text) for text in completions]
    >>> watched = wrap_reward_fn(length, RewardLandscapeMonitor())
    >>> watched.__name__, watched(["Hi"] * 2, ["Hello", "Go"])
    ('length', [5, 2])
    """
    if not isinstance(monitor, RewardLandscapeMonitor):
        raise TypeError(f"`monitor` must be a RewardLandscapeMonitor; got {describe(monitor)}")
    if not callable(fn) or isinstance(fn, type) or hasattr(fn, "forward"):
        raise TypeError(f"`fn` must be a function from prompts and completions to rewards; got {describe(fn)}")
    if _is_watched(fn, monitor):
        raise ValueError("`fn` must not be wrapped for this monitor already")
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = str(getattr(inner, "__name__", type(inner).__name__))  # as TRL names it
    monitor._register(name, fn)
    positional = _places(fn)

    def see(output: Any, args: tuple[Any, ...], columns: dict[str, Any]) -> Any:
        kept = list(output) if isinstance(output, Iterator) else output
        prompts = columns.get("prompts")
        if prompts is None and positional is not None and len(args) > positional:
            prompts = args[positional]
        monitor._take(name, kept, prompts)
        return kept

    made: Any
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(getattr(inner, "__call__", None)):  # noqa: B004 # asks how it is called, not whether

        async def awaited(*args: Any, **columns: Any) -> Any:
            return see(await fn(*args, **columns), args, columns)

        made = awaited
    else:

        def called(*args: Any, **columns: Any) -> Any:
            return see(fn(*args, **columns), args, columns)

        made = called
    functools.update_wrapper(made, fn, updated=("__dict__",) if inspect.isfunction(fn) else ())
    made.__name__ = name
    made._rankdiag_monitors = (*getattr(fn, "_rankdiag_monitors", ()), monitor)
    return made  # type: ignore[no-any-return]


def _is_watched(function: Any, monitor: RewardLandscapeMonitor) -> bool:
    return any(known is monitor for known in getattr(function, "_rankdiag_monitors", ()))


def _places(function: Any) -> int | None:
    """Return where a positional argument `prompts` stands."""
    try:
        return list(inspect.signature(function).parameters).index("prompts")
    except (TypeError, ValueError):  # no signature, or no such argument
        return None


def _range(value: Any) -> tuple[float, float]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"`reward_range` must be two numbers, the lowest and the highest; got {describe(value)}")
    low, high = real(value[0], "reward_range[0]"), real(value[1], "reward_range[1]")
    if low >= high:
        raise ValueError(f"`reward_range` must go from low to high; got {low!r} and {high!r}")
    return low, high

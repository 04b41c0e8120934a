"""Several reward functions on the same rollouts: the weighted sum, and what each of them adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import choice, describe
from rankdiag.rewards._moments import row_moments
from rankdiag.rewards._rollouts import (
    RewardFunction,
    Rollouts,
    as_rows,
    called,
    function_arguments,
    function_names,
    rollout_table,
    summed,
)
from rankdiag.rewards._table import RewardTable

__all__ = ["FunctionScore", "Scores", "score"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionScore:
    """One reward function: what it scored, its spread within prompts, and how it stands to the weighted sum."""

    name: str
    weight: float
    scored: int
    within_std_rms: float
    conflict: float
    zero_in_sum: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores(Table[FunctionScore]):
    """Rewards of the same rollouts by several functions.

    Attributes
    ----------
    rows : tuple of FunctionScore
        One for each function: root of the mean unbiased variance within prompts, in its own units, without its weight;
        ``conflict``, the share of prompts where it has spread and the weighted sum has none; ``zero_in_sum``, the share
        where the sum has spread and it has none. Shares are over prompts with two rollouts that the sum scores.
    rewards : ndarray of float64, shape (functions, N, k)
        What each function gave; NaN for None, and where a prompt has fewer rollouts.
    values : ndarray of float64, shape (N, k)
        Their weighted sum: NaN where no function scored, else the sum over those that did. `total` is a table of it.
    prompt_ids : tuple of str
        Of the prompts.
    log_probs, gold : ndarray of float64, shape (N, k), or None
        Log-probabilities and ground-truth rewards of the rollouts.
    lengths : ndarray of int64, shape (N, k), or None
        Their response tokens.
    source : mapping of str to object
        How they were drawn.

    Examples
    --------
    >>> from rankdiag.rewards import Rollouts, score
    >>> def right(completions, **_):
    ...     return [float(text == "yes") for text in completions]
    >>> def short(completions, **_):
    ...     return [float(text == "no") for text in completions]
    >>> scores = score(Rollouts(prompts=("p",), texts=(("yes", "no"),)), [right, short])
    >>> scores.total.values.tolist(), scores.column("conflict")
    ([[1.0, 1.0]], [1.0, 1.0])
    """

    tag: ClassVar[str] = "rewards.Scores"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="function"),
        Column(name="weight"),
        Column(name="scored", doc="Rollouts that it could score."),
        Column(name="within_std_rms", label="rms std", doc="Within prompts, without the weight."),
        Column(name="conflict", doc="Share of prompts where it has spread and the weighted sum has none."),
        Column(
            name="zero_in_sum", label="adds nothing", doc="Share of prompts where the sum has spread and it has none."
        ),
    )

    rows: tuple[FunctionScore, ...] = ()
    rewards: NDArray[np.float64]
    values: NDArray[np.float64]
    prompt_ids: tuple[str, ...]
    log_probs: NDArray[np.float64] | None = None
    lengths: NDArray[np.int64] | None = None
    gold: NDArray[np.float64] | None = None
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("rewards", "values", "log_probs", "lengths", "gold"):
            given = getattr(self, name)
            if given is not None:
                array = np.array(given, dtype=np.int64 if name == "lengths" else np.float64)
                array.flags.writeable = False
                object.__setattr__(self, name, array)

    @property
    def total(self) -> RewardTable:
        """The weighted sum: NaN where no function scored, else the sum over those that did, as in TRL."""
        return self._table(self.values, " + ".join(row.name for row in self.rows))

    def table(self, name: str) -> RewardTable:
        """Return the rewards of one function alone, without its weight.

        Parameters
        ----------
        name : str
            Of the function, as in `rows`.

        Returns
        -------
        RewardTable
            Of the same rollouts.

        Raises
        ------
        TypeError
            If `name` is no string.
        ValueError
            If there is no such function.
        """
        names = tuple(row.name for row in self.rows)
        known: Any = choice(name, "name", names)
        return self._table(self.rewards[names.index(known)], str(known))

    def _table(self, values: Floats, reward: str) -> RewardTable:
        return RewardTable.from_array(
            values,
            prompt_ids=self.prompt_ids,
            log_probs=self.log_probs,
            lengths=self.lengths,
            gold=self.gold,
            meta={**self.source, "reward": reward},
        )

    def document(self) -> Document:
        """Return what this result shows: one row a function."""
        return Document(
            title="Reward functions",
            verdict=self.verdict,
            explanation=self.explanation,
            grids=(self.grid(title="Functions"),),
            notes=self.notes(),
        )


def score(
    rollouts: Any,
    functions: RewardFunction | Sequence[RewardFunction],
    *,
    weights: Any = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    gold: RewardFunction | None = None,
) -> Scores:
    """Score rollouts with several reward functions, and keep what each of them gave.

    Parameters
    ----------
    rollouts : Rollouts or RewardTable
        Responses to score. Of a table, which has no texts, functions get its records: ``prompt_ids``, ``rewards``,
        ``log_probs``, ``lengths`` and ``gold``, one entry for each rollout, None for what it has not; rollouts without
        a reward are none.
    functions : callable or sequence of callable
        As `score_rollouts` calls them; may be async, and reward models (see `reward_function`). Names must differ.
    weights : array-like, shape (functions,), optional
        Weight of each function in the sum, 1 by default.
    columns : mapping of str to sequence, optional
        Further columns of the dataset, one entry for each prompt.
    gold : callable, optional
        Ground-truth reward of the same responses; that of a table is kept where none is given.

    Returns
    -------
    Scores
        The weighted sum as a table, the rewards of each function, and how often functions cancel.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a function returns another number of rewards than there are rollouts, columns do not fit, or names repeat.

    Notes
    -----
    A function has no spread in a prompt where its rewards are exactly equal. Sums of m functions are rounded, so there
    it is that they differ by no more than rounding can make of equal ones, 2 (m + 1) u times the sum of the magnitudes,
    u = 2^-53. Cost: that of the functions.

    References
    ----------
    Sums and unscorable rewards are those of TRL's trainers. Why spread within prompts matters: Razin et al., arXiv
    2310.20703, Theorem 1. The shares are derived here.

    Examples
    --------
    >>> from rankdiag.rewards import RewardTable, score
    >>> table = RewardTable.from_array([[1.0, 0.0], [1.0, 1.0]], lengths=[[3, 5], [2, 2]])
    >>> def correct(rewards, **_):
    ...     return rewards
    >>> def brevity(lengths, **_):
    ...     return [-length / 10 for length in lengths]
    >>> scores = score(table, [correct, brevity], weights=[1.0, 0.5])
    >>> scores.total.values.tolist(), scores.column("zero_in_sum")
    ([[0.85, -0.25], [0.9, 0.9]], [0.0, 0.0])
    """
    if isinstance(rollouts, RewardTable):
        base = rollouts
        arguments, where = _records(rollouts, columns), ~np.isnan(rollouts.values)
    elif isinstance(rollouts, Rollouts):
        base = rollout_table(rollouts)
        arguments, where = function_arguments(rollouts, columns), ~np.isnan(base.values)
    else:
        raise TypeError(f"`rollouts` must be Rollouts or a RewardTable; got {describe(rollouts)}")
    every, names, factors = function_names(functions, weights)
    if len(set(names)) < len(names):
        raise ValueError(f"`functions` must have names of their own; got {', '.join(names)}. Rename one, with def")
    count = int(where.sum())
    flat = np.stack([called(function, arguments, count) for function in every])
    rewards = np.stack([as_rows(row, where) for row in flat])
    values = as_rows(summed(flat, factors), where)
    truth = base.gold if gold is None else as_rows(called(gold, arguments, count), where)
    rows = _rows(names, factors, rewards, values)
    worst = max(row.conflict for row in rows) if len(rows) > 1 else 0.0
    return Scores(
        rows=rows,
        rewards=rewards,
        values=values,
        prompt_ids=base.prompt_ids,
        log_probs=base.log_probs,
        lengths=base.lengths,
        gold=truth,
        source={key: value for key, value in base.meta.items() if key != "reward"},
        explanation=f"{count} rollouts of {len(base)} prompts under {len(rows)} functions"
        + (f"; one has spread in {worst:.1%} of the prompts where the sum has none." if worst > 0 else "."),
        meta=Meta(
            definition="weighted sum of reward functions over those that scored a rollout",
            ddof=1,
            n=len(base),
            skipped={"rollouts": f"{int(np.isnan(values[where]).sum())} of {count} have no reward"}
            if np.isnan(values[where]).any()
            else {},
        ),
    )


def _records(table: RewardTable, columns: Any) -> dict[str, Any]:
    """Return the rollouts of a table that have a reward, as lists."""
    where = ~np.isnan(table.values)
    prompts = np.nonzero(where)[0].tolist()
    found: dict[str, Any] = {"prompt_ids": [table.prompt_ids[place] for place in prompts]}
    for name, array in (("rewards", table.values), ("log_probs", table.log_probs), ("lengths", table.lengths)):
        found[name] = None if array is None else array[where].tolist()
    truth = None if table.gold is None else table.gold[where].tolist()
    found["gold"] = None if truth is None else [None if value != value else value for value in truth]
    if columns is not None and not isinstance(columns, Mapping):
        raise TypeError(f"`columns` must map names to one entry for each prompt; got {describe(columns)}")
    for name, entries in (columns or {}).items():
        if name in found:
            raise ValueError(f"`columns` must not hold {name!r}, which is made from the table")
        if isinstance(entries, (str, bytes)) or len(entries) != len(table):
            raise ValueError(f"`columns` must have {len(table)} entries in {name!r}, one for each prompt")
        found[name] = [entries[place] for place in prompts]
    return found


def _rows(names: list[str], weights: Floats, rewards: Floats, values: Floats) -> tuple[FunctionScore, ...]:
    total = row_moments(values)
    with np.errstate(over="ignore", invalid="ignore"):
        sizes = np.nansum(np.abs(rewards * weights[:, None, None]), axis=0)
        slack = sizes.max(axis=1) * (len(names) + 1) * np.finfo(np.float64).eps if len(names) > 1 else 0.0
        flat = total.max - total.min <= slack
    defined = total.count >= 2
    found = []
    for name, weight, own in zip(names, weights.tolist(), rewards, strict=True):
        moments = row_moments(own)
        still = ~(moments.max > moments.min)  # also where fewer than two are scored
        var = moments.var[moments.count >= 2]
        found.append(
            FunctionScore(
                name=name,
                weight=weight,
                scored=int(moments.count.sum()),
                within_std_rms=float(np.sqrt(var.mean())) if len(var) else np.nan,
                conflict=float((~still & flat)[defined].mean()) if defined.any() else np.nan,
                zero_in_sum=float((still & ~flat)[defined].mean()) if defined.any() else np.nan,
            )
        )
    return tuple(found)

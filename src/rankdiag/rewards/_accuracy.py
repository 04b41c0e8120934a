"""How often a proxy reward orders two rollouts of a prompt as the ground truth does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import RankdiagWarning, boolean, choice
from rankdiag.rewards._pair_counts import PairSums, Rule, expected_reward, pair_sums
from rankdiag.rewards._table import RewardTable

__all__ = ["RankingAccuracy", "combine", "log_weights", "ranking_accuracy", "rewards_2d"]

Floats = NDArray[np.float64]
_LARGEST_LOG = 1e300  # of a log-probability; sums of two, or of all rejected responses, are in float64 then
WEIGHTED = ("sequence", "length_normalised")
_TIES = {"drop": "", "sign_agreement": "right where gold ties too", "index_ties": "strict"}
WEIGHTINGS = ("uniform", "prompt", "sequence", "length_normalised")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingAccuracy(Result):
    """Agreement of two rewards on the order of rollouts.

    Attributes
    ----------
    accuracy : float
        Share of the pairs ordered right, weighted as asked.
    per_prompt : ndarray of float64, shape (N,)
        The same of each prompt; NaN where no pair remains.
    n_pairs : int
        Pairs that count.
    ess : float
        Effective number of pairs, (sum w)^2 / sum w^2.
    n_gold_ties, n_proxy_ties : int
        Pairs of valid rollouts that tie in gold; counted pairs that tie in the proxy.

    Examples
    --------
    >>> from rankdiag.rewards import ranking_accuracy
    >>> float(ranking_accuracy([[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]])) == 2 / 3
    True
    """

    tag: ClassVar[str] = "rewards.RankingAccuracy"

    accuracy: float
    per_prompt: NDArray[np.float64]
    n_pairs: int
    ess: float
    n_gold_ties: int
    n_proxy_ties: int

    def __post_init__(self) -> None:
        array = np.array(as_float64(self.per_prompt, "per_prompt", ndim=1, finite=False, allow_empty=True))
        array.flags.writeable = False
        object.__setattr__(self, "per_prompt", array)

    def __float__(self) -> float:
        return self.accuracy

    def document(self) -> Document:
        """Return what this result shows: the accuracy, what ties, and the prompts from worst to best."""
        values = np.sort(self.per_prompt[~np.isnan(self.per_prompt)])
        last = max(0, len(values) - 1)
        at = [int(i) for i in np.unique(np.linspace(0, last, 500).astype(int))] if len(values) else []
        return Document(
            title="Ranking accuracy",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="accuracy", value=self.accuracy),
                KeyNumber(label="pairs", value=self.n_pairs),
                KeyNumber(label="effective pairs", value=self.ess, doc="Far fewer than pairs: ignore the figure."),
                KeyNumber(label="gold ties", value=self.n_gold_ties),
                KeyNumber(label="proxy ties", value=self.n_proxy_ties),
            ),
            plots=(
                Plot(
                    title="Accuracy of the prompts, sorted",
                    x_label="prompt, from the worst",
                    y_label="accuracy",
                    series=(Series(label="prompts", x=at, y=[float(values[i]) for i in at]),),
                ),
            ),
            notes=self.notes(),
        )


def ranking_accuracy(
    proxy: Any,
    gold: Any = None,
    *,
    gold_ties: Literal["drop"] = "drop",
    proxy_ties: Literal["half", "strict"] = "half",
    weighting: Literal["uniform", "prompt", "sequence", "length_normalised"] = "uniform",
    softmax_over: Literal["all", "prompt"] = "all",
    log_probs: Any = None,
    lengths: Any = None,
    harm_aware: bool = False,
    loo: bool = False,
    compat: Literal["sign_agreement", "index_ties"] | None = None,
) -> RankingAccuracy:
    """Say how often a proxy reward orders two rollouts of a prompt as the ground truth does.

    Parameters
    ----------
    proxy : RewardTable or array-like, shape (N, k)
        Proxy rewards; the gold rewards, log-probabilities and lengths of a table are the defaults of the others.
    gold : array-like, shape (N, k), optional
        Ground-truth rewards of the same rollouts.
    gold_ties : {"drop"}
        Pairs that tie in gold do not count.
    proxy_ties : {"half", "strict"}
        A tie of the proxy counts one half, or as wrong.
    weighting : {"uniform", "prompt", "sequence", "length_normalised"}
        All pairs alike; all prompts alike; or a softmax of the summed log-probabilities of the pair, for
        "length_normalised" each divided by max(1, length) first.
    softmax_over : {"all", "prompt"}
        Whether the softmax runs over all pairs of the table, or over those of each prompt, which then weigh alike.
    log_probs, lengths : array-like, shape (N, k), optional
        Of the rollouts, in nats and in tokens.
    harm_aware : bool
        Whether a pair is right also where the rejected rollout has less than the mean proxy reward of its prompt, over
        all its rollouts that the proxy scored.
    loo : bool
        Whether that mean leaves both members of the pair out; needs three scored rollouts of every prompt with a pair.
    compat : {"sign_agreement", "index_ties"}, optional
        Rules of two published programs: signs must agree, ties too, mean over prompts (arXiv 2503.15477); or a gold tie
        makes the later rollout chosen and every pair counts (arXiv 2604.25872). Both round rewards to float32.

    Returns
    -------
    RankingAccuracy
        Accuracy, the same per prompt, numbers of pairs and ties.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a reward is infinite, something needed is missing, options exclude each other, or no pair
        remains.

    Warns
    -----
    RankdiagWarning
        If the effective number of pairs is below 20, or below one hundredth of the pairs, in a weighted mode.

    Notes
    -----
    O(N k^2) in cache-sized blocks, O(N k log k) from 512 rollouts on (not with `loo`). Sampled pairs already follow the
    policy: weighting them again squares it.

    References
    ----------
    Accuracy: arXiv 2503.15477, Definition 1. Harm-aware and weighted accuracy: arXiv 2604.25872, Section 4.

    Examples
    --------
    >>> from rankdiag.rewards import ranking_accuracy
    >>> ranking_accuracy([[1.0, 1.0, 3.0]], [[0.0, 1.0, 2.0]]).accuracy
    0.8333333333333334
    """
    choice(gold_ties, "gold_ties", ("drop",))
    ties = choice(proxy_ties, "proxy_ties", ("half", "strict"))
    mode = choice(weighting, "weighting", WEIGHTINGS)
    over = choice(softmax_over, "softmax_over", ("all", "prompt"))
    rules = "drop" if compat is None else choice(compat, "compat", ("sign_agreement", "index_ties"))
    rule: Rule = "sign_agreement" if rules == "sign_agreement" else "index_ties" if rules == "index_ties" else "drop"
    harm, leave = boolean(harm_aware, "harm_aware"), boolean(loo, "loo")
    if leave and not harm:
        raise ValueError("`loo` must be False without harm_aware=True, for there is no mean to leave out of; got True")
    if rule == "sign_agreement" and (harm or mode in WEIGHTED):
        raise ValueError(
            "`compat`: 'sign_agreement' takes the mean over prompts and has neither a waiver nor weights; it needs "
            f"harm_aware=False and weighting 'uniform' or 'prompt', got {harm} and {mode!r}"
        )
    if isinstance(proxy, RewardTable):
        gold = proxy.gold if gold is None else gold
        log_probs = proxy.log_probs if log_probs is None else log_probs
        lengths = proxy.lengths if lengths is None else lengths
    p = rewards_2d(proxy, "proxy")
    if gold is None:
        raise ValueError("`gold` must be given, or be in the table; got None")
    g = rewards_2d(gold, "gold")
    if g.shape != p.shape:
        raise ValueError(f"gold rewards must align with rewards rollout by rollout: got {g.shape} and {p.shape}")
    if compat is not None:
        with np.errstate(over="ignore"):  # a reward beyond float32 becomes infinite there too, and orders still
            p, g = p.astype(np.float32).astype(np.float64), g.astype(np.float32).astype(np.float64)
    if p.shape[1] < 2:
        raise ValueError("`proxy`: k=1 rollout per prompt makes no pair, draw at least 2")
    bar = expected_reward(p) if harm else None
    lw = log_weights(log_probs, lengths, mode, p.shape) if mode in WEIGHTED else None
    sums = pair_sums(p, g, rule=rule, half=ties == "half", bar=bar, loo=leave, log_weights=lw)
    if not sums.pairs.sum():
        raise ValueError("all gold rewards tie: accuracy is undefined (no pair of valid rollouts differs in `gold`)")
    if bar is not None and leave and ((bar.count < 3) & (sums.pairs > 0)).any():
        row = int(np.flatnonzero((bar.count < 3) & (sums.pairs > 0))[0])
        raise ValueError(
            f"`loo` needs at least 3 scored rollouts of every prompt with a pair; row {row} has "
            f"{int(bar.count[row])}. Drop it, or leave `loo` out"
        )
    accuracy, per_prompt, ess = combine(sums, lw is not None, over, mode == "prompt" or rule == "sign_agreement")
    count = int(sums.pairs.sum())
    if lw is not None and ess < max(20.0, 0.01 * count):
        warnings.warn(
            f"the weights leave {ess:.3g} effective of {count} pairs: ignore this figure", RankdiagWarning, stacklevel=2
        )
    kind = "harm-aware accuracy" if harm else "accuracy"
    return RankingAccuracy(
        accuracy=accuracy,
        per_prompt=per_prompt,
        n_pairs=count,
        ess=ess,
        n_gold_ties=int(sums.gold_ties.sum()),
        n_proxy_ties=int(sums.proxy_ties.sum()),
        explanation=f"The proxy orders {accuracy:.1%} of {count} pairs as the ground truth does.",
        meta=Meta(
            definition=f"{kind} over all pairs of rollouts of a prompt",
            n=len(p),
            details={
                "weighting": "prompt" if rule == "sign_agreement" else mode,
                "proxy_ties": _TIES[rule] or ties,
                **({"softmax_over": over} if mode in WEIGHTED else {}),
                **({"loo": leave} if harm else {}),
                **({"compat": rule} if rule != "drop" else {}),
            },
        ),
    )


def combine(sums: PairSums, weighted: bool, over: str, by_prompt: bool) -> tuple[float, Floats, float]:
    """Return the accuracy, that of each prompt, and the effective number of pairs."""
    some = sums.pairs > 0
    per_prompt = np.full(len(some), np.nan)
    if not weighted:
        per_prompt[some] = sums.credit[some] / sums.pairs[some]
        if not by_prompt:
            return float(sums.credit.sum() / sums.pairs.sum()), per_prompt, float(sums.pairs.sum())
        return float(per_prompt[some].mean()), per_prompt, float(some.sum() ** 2 / (1.0 / sums.pairs[some]).sum())
    per_prompt[some] = sums.weighted_credit[some] / sums.weight[some]
    share = np.ones(int(some.sum()))
    if over == "all" and not by_prompt:
        logs = sums.shift[some] + np.log(sums.weight[some])
        share = np.exp(logs - logs.max())
    share /= share.sum()
    squares = share**2 * sums.weight_squared[some] / sums.weight[some] ** 2
    return float(share @ per_prompt[some]), per_prompt, float(1.0 / squares.sum())


def rewards_2d(value: Any, name: str) -> Floats:
    """Return rewards (N, k) as float64, NaN allowed, infinity refused with its place."""
    if isinstance(value, RewardTable):
        return value.values
    array: Floats = as_float64(value, name, ndim=2, finite=False, expected="rewards (N, k)")
    if np.isinf(array).any():
        i, j = (int(x) for x in np.unravel_index(int(np.isinf(array).argmax()), array.shape))
        raise ValueError(f"`{name}` must be finite or NaN: rewards contain +-inf at row {i}, column {j}")
    return array


def log_weights(log_probs: Any, lengths: Any, mode: str, shape: tuple[int, ...], of: str = "") -> Floats:
    """Return the log-probability of each rollout, for "length_normalised" divided by max(1, length).

    `of` ends the names of the arguments in messages, as "_chosen" does.
    """
    name, table = f"log_probs{of}", "" if of else ", or be in the table"
    if log_probs is None:
        raise ValueError(f"`{name}` must be given for weighting={mode!r}{table}; got None")
    logs: Floats = as_float64(log_probs, name, finite=False, expected="log-probabilities of the rollouts")
    if logs.shape != tuple(shape):
        raise ValueError(f"`{name}` must align with rewards rollout by rollout: got {logs.shape} and {shape}")
    if np.isinf(logs).any():
        raise ValueError(f"`{name}` must be finite or NaN; got an infinite entry")
    if (np.abs(logs) > _LARGEST_LOG).any():
        raise ValueError(f"`{name}` must have sums that float64 can hold, entries of at most {_LARGEST_LOG:g}")
    if mode != "length_normalised":
        return logs
    name = f"lengths{of}"
    if lengths is None:
        raise ValueError(f"`{name}` must be given for weighting='length_normalised'{table}; got None")
    size: Floats = as_float64(lengths, name, expected="numbers of response tokens")
    if size.shape != tuple(shape):
        raise ValueError(f"`{name}` must align with rewards rollout by rollout: got {size.shape} and {shape}")
    return np.asarray(logs / np.maximum(1.0, size), dtype=np.float64)

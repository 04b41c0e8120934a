"""Sums over all pairs of the rollouts of each prompt: every pair in vectorised blocks, or one sorted sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ExpectedReward", "PairSums", "Rule", "expected_reward", "pair_sums", "top_pair"]

Floats = NDArray[np.float64]
Rule = Literal["drop", "sign_agreement", "index_ties"]

_BLOCK = 1 << 15  # numbers of one block of rows: its slices stay in the cache
_SWEEP_FROM = 512  # rollouts from which one sort beats all pairs
_FLAT = 20.0  # a sweep takes differences of sums: the largest weight is at most e^10 times what the best pair implies
_LARGE, _SHRINK = 2.0**960, 2.0**-100  # sums of larger rewards would leave float64
_BYTE = 255  # a byte counts so far
_FACTOR = 300.0  # the product of two weights of e^300 still is a number
_LOST = 1e-3  # and the kept pairs carry at least this share of the best pair


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSums:
    """Sums over the pairs of each prompt; the weights of a prompt are divided by exp(shift)."""

    pairs: Floats
    credit: Floats
    gold_ties: Floats
    proxy_ties: Floats
    shift: Floats
    weight: Floats
    weight_squared: Floats
    weighted_credit: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedReward:
    """Mean reward of each row, as the number of its scored rewards and their sum, `total` + `rest`.

    Comparisons with the mean multiply by the count instead of dividing the sum, so that a reward which equals the mean
    is not taken for one below it.
    """

    values: Floats
    count: Floats
    total: Floats
    rest: Floats

    def below(self) -> NDArray[np.bool_]:
        """Return which rewards (N, k) lie below the mean of their row."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self.values * self.count[:, None] < self.total[:, None])

    def rows(self, at: Any) -> ExpectedReward:
        """Return some of the rows."""
        columns = (self.values, self.count, self.total, self.rest)
        values, count, total, rest = (column[at] for column in columns)
        return ExpectedReward(values=values, count=count, total=total, rest=rest)


def expected_reward(values: Floats) -> ExpectedReward:
    """Add up the scored rewards of each row (N, k): a tree of sums that keeps what each one rounds away."""
    valid = ~np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite rewards have an infinite sum
        large = np.abs(np.where(valid, values, 0.0)).max(axis=1, initial=0.0) > _LARGE
        values = np.where(large[:, None], values * _SHRINK, values)
        high = np.where(valid, values, 0.0)
        low = np.zeros_like(high)
        while high.shape[1] > 1:
            half = high.shape[1] // 2
            both, lost = _two_sum(high[:, :half], high[:, half : 2 * half])
            lost += low[:, :half] + low[:, half : 2 * half]
            high = np.concatenate((both, high[:, 2 * half :]), axis=1)
            low = np.concatenate((lost, low[:, 2 * half :]), axis=1)
        total, rest = _two_sum(high[:, 0], low[:, 0])
        rest = np.where(np.isfinite(rest), rest, 0.0)
        total = np.where(np.isnan(total), high[:, 0], total)
    return ExpectedReward(values=values, count=valid.sum(axis=1).astype(np.float64), total=total, rest=rest)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded sum and what rounding took from it, exactly."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def pair_sums(
    proxy: Floats,
    gold: Floats,
    *,
    rule: Rule = "drop",
    half: bool = True,
    bar: ExpectedReward | None = None,
    loo: bool = False,
    log_weights: Floats | None = None,
) -> PairSums:
    """Sum counts, credits and weights over all pairs i < j of each row.

    Parameters
    ----------
    proxy, gold : ndarray, shape (N, k)
        Rewards; NaN in either drops the rollout.
    rule : {"drop", "sign_agreement", "index_ties"}
        What a gold tie is.
    half : bool
        Whether a proxy tie has credit 1/2, not 0.
    bar : ExpectedReward, optional
        Mean proxy reward of each row: a pair whose rejected rollout lies below it has credit 1.
    loo : bool
        Whether the mean leaves both members of the pair out.
    log_weights : ndarray, shape (N, k), optional
        Logarithm of the weight of each rollout; a pair weighs the product of its two.

    Returns
    -------
    PairSums
        One entry for each row.

    Notes
    -----
    All pairs cost O(N k^2) comparisons and one block of memory. From 512 rollouts on, a row takes O(k log k): the sweep
    halves the gold order level by level, each level one stable partition. Rows with a leave-one-out bar, and rows whose
    weights differ so much that differences of sums would lose digits, take all pairs.
    """
    count, k = proxy.shape
    out = np.zeros((8, count))
    bad = np.isnan(proxy) | np.isnan(gold)
    if log_weights is not None:
        bad |= np.isnan(log_weights)
    p, g = np.where(bad, np.nan, proxy), np.where(bad, np.nan, gold)
    lw = None if log_weights is None else np.where(bad, -np.inf, log_weights)
    if lw is not None:
        out[4] = top_pair(lw)
    low = None if bar is None or loo else bar.below()
    plain = np.ones(count, dtype=bool)
    if k >= _SWEEP_FROM and rule == "drop" and not loo:
        plain = np.zeros(count, dtype=bool) if lw is None else lw.max(axis=1) - out[4] / 2 > _FLAT / 2
        for row in np.flatnonzero(~plain):
            low_row = None if low is None else low[row]
            out[:, row], sound = _sweep(p[row], g[row], half, low_row, None if lw is None else lw[row], out[4, row])
            plain[row] = not sound
    rows = np.flatnonzero(plain)
    size = max(1, _BLOCK // k)
    for start in range(0, len(rows), size):
        at = rows[start : start + size]
        some = None if lw is None else np.ascontiguousarray(lw[at].T)
        block = _Block(
            p[at],
            g[at],
            rule,
            half,
            None if low is None else low[at],
            bar.rows(at) if bar is not None and loo else None,
        )
        out[:, at] = _all_pairs(block, some, out[4, at])
    return PairSums(
        pairs=out[0],
        credit=out[1],
        gold_ties=out[2],
        proxy_ties=out[3],
        shift=out[4],
        weight=out[5],
        weight_squared=out[6],
        weighted_credit=out[7],
    )


def top_pair(log_weights: Floats) -> Floats:
    """Return the sum of the two largest entries of each row, 0 where it is not finite."""
    if log_weights.shape[1] < 2:
        return np.zeros(len(log_weights))
    top = np.partition(log_weights, -2, axis=1)[:, -2:].sum(axis=1)
    return np.asarray(np.where(np.isfinite(top), top, 0.0), dtype=np.float64)


class _Block:
    """A block of rows, its rollouts along the first axis, and the comparisons of all pairs at one distance."""

    def __init__(
        self, p: Floats, g: Floats, rule: Rule, half: bool, low: NDArray[np.bool_] | None, others: ExpectedReward | None
    ) -> None:
        self.p, self.g = np.ascontiguousarray(p.T), np.ascontiguousarray(g.T)
        self.rule: Rule = rule
        self.half = half
        self.low = None if low is None else np.ascontiguousarray(low.T)
        self.others = others

    def compare(self, d: int) -> tuple[Any, Any, Any, Any]:
        """Return what is kept, right, tied by the proxy and tied by gold among the pairs (i, i + d)."""
        pa, pb, ga, gb = self.p[:-d], self.p[d:], self.g[:-d], self.g[d:]
        above, below, same = ga > gb, ga < gb, ga == gb
        proxy_above, proxy_below = pa > pb, pa < pb
        tied = pa == pb
        if self.rule == "index_ties":
            below = below | same
        right = (above & proxy_above) | (below & proxy_below)
        kept = above | below
        if self.rule == "sign_agreement":
            right, kept = right | (same & tied), kept | same
        tied = tied & kept
        if self.low is not None:
            right = right | (above & self.low[d:]) | (below & self.low[:-d])
        elif self.others is not None:
            va, vb = self.others.values.T[:-d], self.others.values.T[d:]
            with np.errstate(over="ignore", invalid="ignore"):
                first, lost = _two_sum(self.others.total, -va)
                rest, more = _two_sum(first, -vb)
                rest = rest + (lost + more + self.others.rest)
                right = right | (above & (vb * (self.others.count - 2) < rest))
                right = right | (below & (va * (self.others.count - 2) < rest))
        return kept, right, tied, same


def _all_pairs(block: _Block, log_weights: Floats | None, shift: Floats) -> Floats:
    k, count = block.p.shape
    out = np.zeros((8, count))
    out[4] = shift
    weigh = None if log_weights is None else _pair_weights(log_weights, shift)
    tally = np.zeros((5, k, count), dtype=np.uint8)  # kept, right, gold ties, proxy ties, halves; by the first rollout
    for d in range(1, k):
        kept, right, tied, same = block.compare(d)
        masks = [kept, right, same, tied]
        if block.half and block.rule == "drop" and tied.any():
            masks.append(tied & ~right)
        for row, mask in zip(tally, masks, strict=False):
            np.add(row[:-d], mask.view(np.uint8), out=row[:-d])
        if d % _BYTE == 0 or d == k - 1:
            _add_up(tally, out)
        if weigh is None:
            continue
        weight = weigh(d)
        if not kept.all():
            weight *= kept
        out[5] += weight.sum(axis=0)
        out[6] += np.einsum("ij,ij->j", weight, weight)
        out[7] += np.einsum("ij,ij->j", weight, right)
        if len(masks) > 4:
            out[7] += 0.5 * np.einsum("ij,ij->j", weight, masks[4])
    if log_weights is not None:
        lost = (out[0] > 0) & (out[6] < _LOST**2)  # the best pair was dropped: start again from the best pair kept
        if lost.any():
            best = _best_kept(block, log_weights)
            moved = lost & (best < shift)
            if moved.any():
                at = np.flatnonzero(moved)
                out[:, at] = _again(block, log_weights, best, at)
    return out


def _add_up(tally: NDArray[np.uint8], out: Floats) -> None:
    """Add what was counted in bytes, which hold no more than 255 distances, to the counts of the rows."""
    found = tally.sum(axis=1, dtype=np.int64)
    out[:4] += found[:4]
    out[1] += 0.5 * found[4]
    tally.fill(0)


def _pair_weights(log_weights: Floats, shift: Floats) -> Callable[[int], Floats]:
    """Return a function that gives the weights of the pairs (i, i + d), divided by exp(shift).

    They are products of the weights of both rollouts, or exponentials of sums where one of the two could overflow.
    """
    logs = log_weights - shift / 2
    if float(logs.max(initial=0.0)) <= _FACTOR:
        factors = np.exp(logs)
        return lambda d: np.asarray(factors[:-d] * factors[d:], dtype=np.float64)

    def weigh(d: int) -> Floats:
        weight = logs[:-d] + logs[d:]
        np.minimum(weight, 0.0, out=weight)  # only pairs that are not kept can lie above the shift
        return np.asarray(np.exp(weight, out=weight), dtype=np.float64)

    return weigh


def _best_kept(block: _Block, log_weights: Floats) -> Floats:
    best = np.full(block.p.shape[1], -np.inf)
    for d in range(1, len(block.p)):
        kept = block.compare(d)[0]
        np.maximum(best, np.where(kept, log_weights[:-d] + log_weights[d:], -np.inf).max(axis=0), out=best)
    return best


def _again(block: _Block, log_weights: Floats, best: Floats, at: NDArray[np.intp]) -> Floats:
    low = None if block.low is None else block.low[:, at].T
    others = None if block.others is None else block.others.rows(at)
    part = _Block(block.p[:, at].T, block.g[:, at].T, block.rule, block.half, low, others)
    return _all_pairs(part, log_weights[:, at], best[at])


def _sweep(
    p: Floats, g: Floats, half: bool, below: NDArray[np.bool_] | None, log_weights: Floats | None, shift: float
) -> tuple[Floats, bool]:
    """Sum over the pairs of one row in O(k log k); False beside it where rounding could matter."""
    use = ~np.isnan(p)
    p, g = p[use], g[use]
    out = np.zeros(8)
    out[4] = shift
    if not len(p):
        return out, True
    ones = np.ones(len(p))
    order = np.lexsort((-p, g))  # by gold; inside a gold tie the proxy falls, so that no such pair looks concordant
    position = np.empty(len(p), dtype=np.int64)
    position[order] = np.arange(len(p))
    low = np.zeros(len(p), dtype=bool) if below is None else below[use]
    total, ties = _below(g[order], ones[order], ones[order]), _tied(p, g, ones, ones)
    out[0], out[3] = total, ties
    out[2] = len(p) * (len(p) - 1) / 2 - total
    out[1] = _credit(p, g, position, order, ones, low, half)
    if log_weights is None:
        return out, True
    w = np.exp(log_weights[use] - shift / 2)
    out[5] = _below(g[order], w[order], w[order])
    out[6] = _below(g[order], w[order] ** 2, w[order] ** 2)
    out[7] = _credit(p, g, position, order, w, low, half)
    return out, bool(out[0] == 0 or out[6] >= _LOST**2)


def _credit(p: Floats, g: Floats, position: Any, order: Any, w: Floats, low: Any, half: bool) -> float:
    rejected = np.where(low, 0.0, w)  # what is not waived
    credit = _concordant(p, position, rejected, w)
    if half:
        credit += 0.5 * _tied(p, g, rejected, w)
    if low.any():
        credit += _below(g[order], np.where(low, w, 0.0)[order], w[order])
    return credit


def _below(sorted_values: Floats, left: Floats, right: Floats) -> float:
    """Sum left_i right_j over all pairs with value_i < value_j, of values in order."""
    start = np.searchsorted(sorted_values, sorted_values, side="left")
    before = np.concatenate(([0.0], np.cumsum(left)))
    return float(right @ before[start])


def _tied(p: Floats, g: Floats, left: Floats, right: Floats) -> float:
    """Sum left_i right_j over all pairs with equal proxies and gold_i < gold_j."""
    order = np.lexsort((g, p))
    ps, gs = p[order], g[order]
    new_p = np.concatenate(([True], ps[1:] != ps[:-1]))
    new_pair = new_p | np.concatenate(([True], gs[1:] != gs[:-1]))
    at = np.arange(len(p))
    start_p = np.maximum.accumulate(np.where(new_p, at, 0))
    start_pair = np.maximum.accumulate(np.where(new_pair, at, 0))
    before = np.concatenate(([0.0], np.cumsum(left[order])))
    return float(right[order] @ (before[start_pair] - before[start_p]))


def _concordant(p: Floats, position: NDArray[np.int64], left: Floats, right: Floats) -> float:
    """Sum left_i right_j over all pairs with position_i < position_j and proxy_i < proxy_j.

    Items stand in the order of their proxy (ties by falling position: they never count), cut into blocks of the gold
    order. In a block, an item of the upper half counts what stands before it and belongs to the lower half.
    """
    order = np.lexsort((-position, p))
    where, lower, upper = position[order], left[order], right[order]
    total = 0.0
    for level in range(max(1, int(len(p) - 1).bit_length()), 0, -1):
        is_upper = (where >> (level - 1)) & 1 == 1
        before = np.cumsum(np.where(is_upper, 0.0, lower))
        block = where >> level
        ends = np.flatnonzero(np.concatenate((block[1:] != block[:-1], [True])))
        base = np.concatenate(([0.0], before[ends[:-1]]))
        sizes = np.diff(np.concatenate(([-1], ends)))
        inside = before - np.repeat(base, sizes)
        total += float(np.where(is_upper, upper, 0.0) @ inside)
        halves = np.argsort(where >> (level - 1), kind="stable")
        where, lower, upper = where[halves], lower[halves], upper[halves]
    return total

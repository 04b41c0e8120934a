"""Gold reward of the best of N rollouts by a proxy, without bias, from one set of rollouts."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankdiag._array import as_float64
from rankdiag._validate import integer

__all__ = ["best_of_n"]


def best_of_n(proxy: Any, gold: Any, n: int) -> float:
    """Return the expected gold reward of the rollout that a proxy picks out of `n`.

    Parameters
    ----------
    proxy, gold : array-like or torch.Tensor, shape (m,)
        Rewards of the m rollouts of one prompt; a rollout with NaN in either is dropped.
    n : int
        Rollouts to pick from, at most the number of valid rollouts.

    Returns
    -------
    float
        Mean over all subsets of size `n` of the gold reward at the largest proxy; a tie picks one at random.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes differ, an entry is infinite, or fewer than `n` rollouts are valid.

    Notes
    -----
    Sort by the proxy; the rollout of rank i is the best of a subset with probability C(i-1, n-1) / C(m, n), and gold is
    averaged inside a tie of the proxy. O(m log m). A perfectly accurate proxy is optimal here whatever its variance
    (arXiv 2503.15477, Proposition 1). The estimator is derived here, as pass@k is.

    Examples
    --------
    >>> from rankdiag.rewards import best_of_n
    >>> round(best_of_n([1.0, 2.0, 3.0], [0.0, 1.0, 0.5], 2), 6)
    0.666667
    """
    p = as_float64(proxy, "proxy", ndim=1, finite=False, expected="rewards of the rollouts of one prompt (m,)")
    g = as_float64(gold, "gold", ndim=1, finite=False, expected="rewards of the rollouts of one prompt (m,)")
    if p.shape != g.shape:
        raise ValueError(f"`gold` must align with `proxy` rollout by rollout: got {g.shape} and {p.shape}")
    for values, name in ((p, "proxy"), (g, "gold")):
        if np.isinf(values).any():
            raise ValueError(f"`{name}` must hold finite rewards or NaN; got +-inf at {int(np.isinf(values).argmax())}")
    size = integer(n, "n", low=1)
    use = ~(np.isnan(p) | np.isnan(g))
    p, g = p[use], g[use]
    count = len(p)
    if size > count:
        raise ValueError(f"`n` must be at most the number of valid rollouts, {count}; got {size}")
    from scipy.special import gammaln

    order = np.argsort(p, kind="stable")
    p, g = p[order], g[order]
    rank = np.arange(size, count + 1)
    logs = gammaln(rank) - gammaln(rank - size + 1) - gammaln(size)
    logs -= gammaln(count + 1) - gammaln(count - size + 1) - gammaln(size + 1)
    weight = np.concatenate((np.zeros(size - 1), np.exp(logs)))
    weight /= weight.sum()  # the sum is 1 up to rounding
    group = np.cumsum(np.concatenate(([0], (p[1:] != p[:-1]).astype(np.int64))))
    scale = float(np.abs(g).max()) or 1.0
    mean = np.bincount(group, weights=g / scale) / np.bincount(group)
    return float(np.bincount(group, weights=weight) @ mean) * scale

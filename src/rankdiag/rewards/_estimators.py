"""Policy gradients from rollouts: the leave-one-out gradient, and its squared norm without the bias of its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe

__all__ = ["centred", "rloo_gradient", "squared_gradient_norm"]

Floats = NDArray[np.float64]

_SYMMETRY = 1e-6  # of the largest entry: products in float32 differ by rounding


def rloo_gradient(rewards: Any, scores: Any) -> NDArray[np.float64]:
    """Estimate a policy gradient from rollouts, each with the mean reward of the others as baseline.

    Parameters
    ----------
    rewards : array-like or torch.Tensor, shape (k,)
        Rewards of at least 2 rollouts.
    scores : array-like or torch.Tensor, shape (k, P)
        Gradients of ln pi of each rollout.

    Returns
    -------
    ndarray of float64, shape (P,)
        (1/k) sum_i (r_i - mean of the others) s_i, unbiased: the sample covariance (ddof=1) of rewards and scores.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If there are fewer than 2 rollouts, an entry is not finite, or shapes do not fit.

    Notes
    -----
    Time O(k P). Exactly 0 where all rewards are equal.

    References
    ----------
    Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization", arXiv 2402.14740; as a covariance,
    derived here.

    Examples
    --------
    >>> from rankdiag.rewards import rloo_gradient
    >>> rloo_gradient([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]).tolist()
    [0.5, -0.5]
    """
    r = as_float64(rewards, "rewards", ndim=1, expected="the rewards of k rollouts")
    s = as_float64(scores, "scores", ndim=2, expected="one gradient for each rollout (k, P)")
    if len(r) < 2:
        raise ValueError(f"`rewards` must hold at least 2 rollouts; got {len(r)}")
    if len(s) != len(r):
        raise ValueError(f"`scores` must have one row for each of {len(r)} rollouts; got {len(s)}")
    with np.errstate(over="ignore", invalid="ignore"):
        gradient: Floats = centred(r) @ s / (len(r) - 1)
    _finite(gradient, "rewards` and `scores")
    return gradient


def squared_gradient_norm(rewards: Any, gram: Any) -> float:
    """Estimate the squared norm of a policy gradient from the inner products of the scores of k rollouts.

    Parameters
    ----------
    rewards : array-like or torch.Tensor, shape (k,)
        Rewards of at least 4 rollouts.
    gram : array-like or torch.Tensor, shape (k, k)
        <s_i, s_j>, s_i the gradient of ln pi of rollout i.

    Returns
    -------
    float
        Unbiased estimate of ||grad E r||^2; may be negative where the truth is small.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If there are fewer than 4 rollouts, an entry is not finite, or `gram` is not symmetric of shape (k, k).

    Notes
    -----
    The mean of (r_i - r_j)(r_l - r_m) <s_i - s_j, s_l - s_m> / 4 over ordered quadruples of different rollouts, which
    is the unbiased Hilbert-Schmidt criterion of rewards and scores with linear kernels; derived here. The square of
    `rloo_gradient` is biased up by its variance. Time O(k^2).

    References
    ----------
    Song et al., "Feature Selection via Dependence Maximization", JMLR 13 (2012), for the form of the estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.rewards import squared_gradient_norm
    >>> s = np.array([1.0, -1.0, 2.0, 0.0])
    >>> round(squared_gradient_norm([1.0, 0.0, 0.0, 1.0], np.outer(s, s)), 6)
    -0.416667
    """
    r = as_float64(rewards, "rewards", ndim=1, expected="the rewards of k rollouts")
    k = len(r)
    if k < 4:
        raise ValueError(f"`rewards` must hold at least 4 rollouts for an unbiased squared norm; got {k}")
    matrix = as_float64(gram, "gram", ndim=2, expected="inner products of scores (k, k)")
    if matrix.shape != (k, k):
        raise ValueError(f"`gram` must have shape ({k}, {k}), one row for each rollout; got {describe(gram)}")
    with np.errstate(over="ignore", invalid="ignore"):
        unlike = float(np.abs(matrix - matrix.T).max())
    if not unlike <= _SYMMETRY * float(np.abs(matrix).max()):
        raise ValueError("`gram` must be symmetric; it is not. Pass scores @ scores.T")
    # Rewards may be moved freely; centred ones keep the sums below from cancelling.
    w = centred(r)
    _finite(w, "rewards")
    size, scale = float(np.abs(w).max()), float(np.abs(matrix).max())
    if size == 0.0 or scale == 0.0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # both are brought to 1, so that no square leaves float64
        w = w / size
        inner = matrix / scale
        np.fill_diagonal(inner, 0.0)
        outer = np.outer(w, w)
        np.fill_diagonal(outer, 0.0)
        rows = inner.sum(axis=1)
        value = (outer * inner).sum() + outer.sum() * inner.sum() / ((k - 1) * (k - 2))
        value = (value - 2.0 / (k - 2) * (outer.sum(axis=1) @ rows)) / (k * (k - 3)) * scale * size * size
    _finite(np.array(value), "rewards` and `gram")
    return float(value)


def centred(rewards: Floats) -> Floats:
    """Return rewards minus their mean, exactly 0 where all are equal."""
    with np.errstate(over="ignore", invalid="ignore"):
        gap = rewards - rewards.min()
        return np.asarray(gap - gap.mean(), dtype=np.float64)


def _finite(value: Any, names: str) -> None:
    if not np.isfinite(value).all():
        raise ValueError(f"`{names}` must have differences and products that float64 can hold; scale them down")

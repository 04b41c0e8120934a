"""Policies over finitely many outputs, and everything of a policy gradient that can be computed without sampling."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import RankdiagWarning, describe, integer, real
from rankdiag.rewards._exact import as_probs, as_rewards

__all__ = ["EnumeratedAutoregressive", "LogLinearPolicy", "TabularPolicy"]

Floats = NDArray[np.float64]

_MOST = 1 << 20  # sequences that are enumerated
_CLIP = 1e-8  # the smallest probability whose logarithm is fitted, as in the published setting
_FITTED = 1e-6  # probabilities closer than this are what was asked for


def _log_softmax(logits: Floats) -> Floats:
    gap = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(gap - np.log(np.exp(gap).sum(axis=-1, keepdims=True)), dtype=np.float64)


class _Policy:
    """What all exact policies share: their probabilities, and readings of a reward under them."""

    _log_probs: Floats

    @property
    def log_probs(self) -> NDArray[np.float64]:
        """Ln pi of every output, shape (..., Y); read-only."""
        return self._log_probs

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probability of every output, shape (..., Y)."""
        return np.exp(self._log_probs)

    def _keep(self, log_probs: Floats, name: str) -> None:
        if np.isnan(log_probs).any():
            raise ValueError(f"`{name}` must give logits that float64 can hold; scale them down")
        log_probs.flags.writeable = False
        self._log_probs = log_probs

    def _advantage(self, reward: Any) -> tuple[Floats, Floats, Floats]:
        """Return probabilities, value and advantages."""
        p = self.probs
        r = as_rewards(reward, "reward", p.shape[-1])
        try:
            np.broadcast_shapes(p.shape, r.shape)
        except ValueError:
            raise ValueError(f"`reward` must fit the shape {p.shape} of the policy; got {r.shape}") from None
        # Rises above the least reward: equal rewards have advantages of exactly 0, and a shift costs no digits.
        with np.errstate(over="ignore", invalid="ignore"):
            base = r.min(axis=-1, keepdims=True)
            rise = r - base
            mean = (p * rise).sum(axis=-1, keepdims=True)
            gap = rise - mean
        if not np.isfinite(gap).all():
            raise ValueError("`reward` must have differences that float64 can hold; scale it down")
        return p, np.asarray((base + mean)[..., 0]), gap

    def value(self, reward: Any) -> Any:
        """Return the expected reward.

        Parameters
        ----------
        reward : array-like or torch.Tensor, shape (Y,) or (..., Y)
            Reward of every output.

        Returns
        -------
        float or ndarray of float64, shape (...)
            V = sum pi r.

        Raises
        ------
        TypeError
            If `reward` holds no numbers.
        ValueError
            If it has not one entry for each output, or one is not finite.
        """
        return _plain(self._advantage(reward)[1])

    def exact_var(self, reward: Any) -> Any:
        """Return the variance of a reward under the policy (no ddof: nothing is sampled).

        Parameters
        ----------
        reward : array-like or torch.Tensor, shape (Y,) or (..., Y)
            Reward of every output.

        Returns
        -------
        float or ndarray of float64, shape (...)
            sum pi (r - V)^2, infinite where that is beyond float64; 0 where all rewards are equal.

        Raises
        ------
        TypeError
            If `reward` holds no numbers.
        ValueError
            If it has not one entry for each output, or one is not finite.
        """
        p, _, gap = self._advantage(reward)
        with np.errstate(over="ignore"):
            return _plain((p * gap**2).sum(axis=-1))

    def grad(self, reward: Any) -> NDArray[np.float64]:
        """Return the gradient of the expected reward by the parameters.

        Parameters
        ----------
        reward : array-like or torch.Tensor, shape (Y,) or (..., Y)
            Reward of every output. For a KL penalty pass r - lam ln(pi / ref): the further term has mean zero.

        Returns
        -------
        ndarray of float64
            sum pi (r - V) score, of the shape of the parameters.

        Raises
        ------
        TypeError
            If `reward` holds no numbers.
        ValueError
            If it has not one entry for each output, one is not finite, or the gradient is beyond float64.
        """
        p, _, gap = self._advantage(reward)
        with np.errstate(over="ignore", invalid="ignore"):
            return _held(self._pull(p * gap), "reward` and the scores")

    def _pull(self, weighted: Floats) -> Floats:
        raise NotImplementedError


def _held(value: Any, names: str) -> Floats:
    """Return an array, or refuse what float64 cannot hold."""
    if not np.isfinite(value).all():
        raise ValueError(f"`{names}` have products beyond float64; scale them down")
    return np.asarray(value, dtype=np.float64)


def _plain(value: Floats) -> Any:
    return float(value) if np.ndim(value) == 0 else value


class TabularPolicy(_Policy):
    """A softmax over a table of logits, one for each output.

    Parameters
    ----------
    logits : array-like or torch.Tensor, shape (Y,) or (..., Y)
        Logits; leading axes are prompts.

    Raises
    ------
    TypeError
        If `logits` holds no numbers.
    ValueError
        If it is empty, or an entry is not finite.

    Notes
    -----
    O(Y) for each prompt; O(Y^2) for the Fisher matrix.

    Examples
    --------
    >>> from rankdiag.rewards import TabularPolicy
    >>> policy = TabularPolicy.from_probs([0.2, 0.3, 0.5])
    >>> round(policy.value([1, 0, -1]), 6), round(policy.exact_var([1, 0, -1]), 6)
    (-0.3, 0.61)
    >>> policy.grad([1, 0, -1]).round(6).tolist()
    [0.26, 0.09, -0.35]
    """

    def __init__(self, logits: Any) -> None:
        array = as_float64(logits, "logits", min_ndim=1, expected="logits (..., Y)")
        with np.errstate(over="ignore", invalid="ignore"):
            self._keep(_log_softmax(np.asarray(array, dtype=np.float64)), "logits")

    @classmethod
    def from_probs(cls, probs: Any) -> TabularPolicy:
        """Make the policy with given probabilities.

        Parameters
        ----------
        probs : array-like or torch.Tensor, shape (..., Y)
            Above 0, adding up to 1 within 1e-8.

        Returns
        -------
        TabularPolicy
            Its probabilities are these, to rounding.

        Raises
        ------
        TypeError
            If `probs` holds no numbers.
        ValueError
            If an entry is 0, whose logit would be -inf, or they do not add up to 1.

        Examples
        --------
        >>> from rankdiag.rewards import TabularPolicy
        >>> TabularPolicy.from_probs([0.25, 0.75]).probs.round(6).tolist()
        [0.25, 0.75]
        """
        p = as_probs(probs, "probs")
        if (p == 0).any():
            raise ValueError("`probs` must be above 0, for the logit of an impossible output is -inf; leave it out")
        return cls(np.log(p))

    def __repr__(self) -> str:
        return f"TabularPolicy({self._log_probs.shape[-1]} outputs)"

    def _pull(self, weighted: Floats) -> Floats:
        return weighted

    def fisher(self) -> NDArray[np.float64]:
        """Return the Fisher matrix diag(pi) - pi pi^T, shape (..., Y, Y)."""
        p = self.probs
        return np.asarray(p[..., None] * np.eye(p.shape[-1]) - p[..., None] * p[..., None, :], dtype=np.float64)

    def kernel(self) -> NDArray[np.float64]:
        """Return K of the flow dz/dt = K (pi * A) of the logits: the identity, shape (Y, Y)."""
        return np.eye(self._log_probs.shape[-1])


class LogLinearPolicy(_Policy):
    """A softmax of linear functions of features: pi proportional to exp(features @ weights / temperature + offset).

    Parameters
    ----------
    features : array-like or torch.Tensor, shape (Y, D)
        Features of the outputs.
    weights : array-like or torch.Tensor, shape (D,)
        The parameters.
    offset : array-like or torch.Tensor, shape (Y,), optional
        Added to the logits, not trained; 0 by default.
    temperature : float
        Above 0.

    Attributes
    ----------
    residual : float
        Largest difference from the probabilities that `from_probs` was asked for; 0 otherwise.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If shapes do not fit, an entry is not finite, or the temperature is not above 0.

    Notes
    -----
    O(Y D); O(Y D^2) for the Fisher matrix, O(Y^2 D) for the kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.rewards import LogLinearPolicy
    >>> policy = LogLinearPolicy([[1.0, 0.0], [0.0, 1.0]], [np.log(3.0), 0.0])
    >>> policy.probs.round(6).tolist(), policy.kernel().tolist()
    ([0.75, 0.25], [[1.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, features: Any, weights: Any, *, offset: Any = None, temperature: float = 1.0) -> None:
        phi = np.array(as_float64(features, "features", ndim=2, expected="features (Y, D)"), dtype=np.float64)
        w = as_float64(weights, "weights", ndim=1, expected="weights (D,)")
        if len(w) != phi.shape[1]:
            raise ValueError(f"`weights` must have one entry for each of {phi.shape[1]} features; got {len(w)}")
        b = np.zeros(len(phi)) if offset is None else as_float64(offset, "offset", ndim=1, expected="offsets (Y,)")
        if len(b) != len(phi):
            raise ValueError(f"`offset` must have one entry for each of {len(phi)} outputs; got {len(b)}")
        self.temperature = real(temperature, "temperature", low=0.0, low_open=True)
        self.residual = 0.0
        phi.flags.writeable = False
        self._features = phi
        with np.errstate(over="ignore", invalid="ignore"):
            self._keep(_log_softmax(phi @ (w / self.temperature) + b), "features` and `weights")

    @classmethod
    def from_probs(cls, features: Any, probs: Any, *, temperature: float = 1.0) -> LogLinearPolicy:
        """Fit the weights to given probabilities by least squares of their logarithms.

        The fit has no free constant, as in the published setting: without a constant among the features it may miss
        probabilities that these features can express.

        Parameters
        ----------
        features : array-like or torch.Tensor, shape (Y, D)
            Features of the outputs.
        probs : array-like or torch.Tensor, shape (Y,)
            Adding up to 1 within 1e-8; below 1e-8 they count as 1e-8, as in the published setting.
        temperature : float
            Above 0.

        Returns
        -------
        LogLinearPolicy
            ``residual`` says how far its probabilities are from those asked for.

        Raises
        ------
        TypeError
            If an argument holds no numbers.
        ValueError
            If shapes do not fit, probabilities do not add up to 1, or the weights are beyond float64.

        Warns
        -----
        RankdiagWarning
            If the fitted policy differs from the probabilities by more than 1e-6.

        Examples
        --------
        >>> from rankdiag.rewards import LogLinearPolicy
        >>> LogLinearPolicy.from_probs([[1.0, 0.0], [0.0, 1.0]], [0.75, 0.25]).probs.round(6).tolist()
        [0.75, 0.25]
        """
        phi = as_float64(features, "features", ndim=2, expected="features (Y, D)")
        p = as_probs(probs, "probs")
        if p.shape != (len(phi),):
            raise ValueError(f"`probs` must have one entry for each of {len(phi)} outputs; got shape {p.shape}")
        heat = real(temperature, "temperature", low=0.0, low_open=True)
        slopes = np.linalg.lstsq(phi, np.log(np.maximum(p, _CLIP)), rcond=None)[0]
        with np.errstate(over="ignore", invalid="ignore"):
            weights = _held(heat * slopes, "features` and `temperature")
        policy = cls(phi, weights, temperature=heat)
        policy.residual = float(np.abs(policy.probs - p).max())
        if policy.residual > _FITTED:
            warnings.warn(
                f"`features` do not fit ln(probs): the policy differs from `probs` by up to {policy.residual:.3g}; "
                "give features that span it, a constant one among them",
                RankdiagWarning,
                stacklevel=2,
            )
        return policy

    def __repr__(self) -> str:
        return f"LogLinearPolicy({len(self._features)} outputs, {self._features.shape[1]} features)"

    def _pull(self, weighted: Floats) -> Floats:
        return np.asarray(weighted @ (self._features / self.temperature), dtype=np.float64)

    def fisher(self) -> NDArray[np.float64]:
        """Return the Fisher matrix Phi^T (diag(pi) - pi pi^T) Phi / T^2, shape (D, D)."""
        p = self.probs
        with np.errstate(over="ignore", invalid="ignore"):
            scores = (self._features - p @ self._features) / self.temperature
            return _held((scores * p[:, None]).T @ scores, "features` and `temperature")

    def kernel(self) -> NDArray[np.float64]:
        """Return K of the flow dz/dt = K (pi * A) of the logits: Phi Phi^T / T^2, shape (Y, Y)."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self._features / self.temperature
            return _held(scaled @ scaled.T, "features` and `temperature")


class EnumeratedAutoregressive(_Policy):
    """An autoregressive policy small enough to write all of its outputs down.

    Parameters
    ----------
    logit_fn : callable
        ``logit_fn(params, prefix)`` with a float64 torch vector and a tuple of tokens; returns the logits (vocab,) of
        the next token, differentiable by `params`.
    params : array-like or torch.Tensor, shape (P,)
        The parameters.
    vocab, length : int
        Tokens, and tokens of every output; length and vocab ** length must be at most 2^20.

    Attributes
    ----------
    sequences : ndarray of int64, shape (Y, length)
        All outputs in lexicographic order.
    scores : ndarray of float64, shape (Y, P)
        Gradients of ln pi of each output.
    jacobian_norm : float
        Largest spectral norm of d logits / d params over all prefixes: J of the gradient bounds, exactly.

    Raises
    ------
    TypeError
        If `logit_fn` is no function, or an argument has the wrong type.
    ValueError
        If there are more than 2^20 outputs (before any is written down), or logits have another shape or are not
        finite.

    Notes
    -----
    One Jacobian for each of the vocab^0 + ... + vocab^(length - 1) prefixes; memory Y P. `logit_fn` is differentiated
    also under ``torch.no_grad`` and ``torch.inference_mode``.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.rewards import EnumeratedAutoregressive
    >>> def logits(theta, prefix):
    ...     return theta * (1 + len(prefix))
    >>> policy = EnumeratedAutoregressive(logits, [0.0, 0.0], vocab=2, length=2)
    >>> policy.probs.tolist(), policy.jacobian_norm
    ([0.25, 0.25, 0.25, 0.25], 2.0)
    """

    sequences: NDArray[np.int64]
    scores: NDArray[np.float64]
    jacobian_norm: float

    def __init__(
        self, logit_fn: Callable[[Any, tuple[int, ...]], Any], params: Any, *, vocab: int, length: int
    ) -> None:
        if not callable(logit_fn):
            raise TypeError(f"`logit_fn` must be a function of params and a prefix; got {describe(logit_fn)}")
        size, steps = integer(vocab, "vocab", low=1), integer(length, "length", low=1, high=_MOST)
        if steps * np.log2(size) > 20:
            raise ValueError(
                f"`vocab` ** `length` must be at most 2^20, for every output is written down; got {size} ** {steps}"
            )
        theta = as_float64(params, "params", ndim=1, expected="parameters (P,)")
        log_probs, scores, norm = np.zeros(1), np.zeros((1, len(theta))), 0.0
        for depth in range(steps):
            laws = [
                _next_token(logit_fn, theta, prefix, size) for prefix in itertools.product(range(size), repeat=depth)
            ]
            norm = max(norm, *(law[2] for law in laws))
            log_probs = (log_probs[:, None] + np.array([law[0] for law in laws])).ravel()
            scores = (scores[:, None, :] + np.array([law[1] for law in laws])).reshape(-1, len(theta))
        place = size ** np.arange(steps - 1, -1, -1, dtype=np.int64)
        sequences = np.arange(len(log_probs), dtype=np.int64)[:, None] // place % size
        for array in (sequences, scores):
            array.flags.writeable = False
        self.sequences, self.scores, self.jacobian_norm = sequences, scores, norm
        self._keep(log_probs, "logit_fn")

    def __repr__(self) -> str:
        return f"EnumeratedAutoregressive({len(self.sequences)} outputs of {self.sequences.shape[1]} tokens)"

    def _pull(self, weighted: Floats) -> Floats:
        return np.asarray(weighted @ self.scores, dtype=np.float64)

    def fisher(self) -> NDArray[np.float64]:
        """Return the Fisher matrix, the second moment of the scores, shape (P, P)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _held((self.scores * self.probs[:, None]).T @ self.scores, "logit_fn")

    def kernel(self) -> NDArray[np.float64]:
        """Return K of the flow d ln pi/dt = K (pi * A), up to a common shift: products of scores, shape (Y, Y)."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _held(self.scores @ self.scores.T, "logit_fn")


def _next_token(logit_fn: Any, theta: Floats, prefix: tuple[int, ...], size: int) -> tuple[Floats, Floats, float]:
    """Return ln pi of every next token, its gradients by the parameters, and the norm of the Jacobian of the logits."""
    logits, jacobian = _differentiated(logit_fn, theta, prefix, size)
    with np.errstate(over="ignore", invalid="ignore"):
        log_p = _log_softmax(logits)
        score = jacobian - np.exp(log_p) @ jacobian
    top = float(np.abs(jacobian).max())  # scaled first, for squares of 1e200 overflow
    norm = top * float(np.linalg.norm(jacobian / top, 2)) if 0 < top < np.inf else top
    if not (np.isfinite(score).all() and np.isfinite(norm)):
        raise ValueError(f"`logit_fn` must have derivatives that float64 can hold; for prefix {prefix} it has not")
    return log_p, score, norm


def _differentiated(logit_fn: Any, theta: Floats, prefix: tuple[int, ...], size: int) -> tuple[Floats, Floats]:
    """Return the logits behind a prefix, and their Jacobian by the parameters."""
    import torch

    with torch.inference_mode(mode=False), torch.enable_grad():
        point = torch.tensor(np.array(theta), dtype=torch.float64, requires_grad=True)
        logits = logit_fn(point, prefix)
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (size,):
            raise ValueError(
                f"`logit_fn` must return a tensor of {size} logits; for prefix {prefix} it returned {describe(logits)}"
            )
        if not bool(torch.isfinite(logits).all()):
            raise ValueError(f"`logit_fn` must return finite logits; for prefix {prefix} it did not")
        rows = []
        for place in range(size):
            found = (
                torch.autograd.grad(logits[place], point, retain_graph=True, allow_unused=True)[0]
                if logits.requires_grad
                else None
            )
            rows.append(np.zeros(len(theta)) if found is None else found.detach().numpy())
    return np.asarray(logits.detach().double().numpy(), dtype=np.float64), np.array(rows)

"""Results of the first derivatives of log-probabilities: one token, whole responses, several samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Document
from rankdiag._result import Result
from rankdiag._validate import choice, integer
from rankdiag.preference import _dynamics_show as show

__all__ = ["MultiSampleDynamics", "MultiTokenDynamics", "SingleTokenDynamics"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleTokenDynamics(Result):
    """How every token's log-probability starts to move when one preference over single tokens is trained.

    Attributes
    ----------
    rate_all : ndarray of float64, shape (V,)
        d ln p_z / dt for every token z, in nats per unit of gradient-flow time (or of learning rate, to first order).
    rate_chosen, rate_rejected : float
        Its entries for the preferred and the dispreferred token.
    m : float
        Part that always raises the preferred token, >= 0; without the weight.
    S : float
        Part of either sign that comes from the unembedding geometry; without the weight.
        ``rate_chosen = weight (m + S)``.
    unembedding_inner : float
        <W+, W->.
    alignment : ndarray of float64, shape (V,)
        <W_z, W+ - W-> for every token.
    other_alignment : float
        Sum of p_z times `alignment` over the tokens other than the two.
    probs : ndarray of float64, shape (V,)
        Probabilities before the step.
    chosen, rejected : int
        The two tokens.
    weight : float
        g = -l'(margin) of the loss, which the rates carry.
    meta : Meta
        Definition, units, size of the vocabulary, dtype.
    verdict : str
        ``"warn"`` where `rate_chosen` < 0 although the weight is > 0 (likelihood displacement), ``"ok"`` where it is
        not; ``"unknown"`` for a weight <= 0, which pushes the preferred token down on purpose.
    explanation : str
        What moves where, and why.
    thresholds : tuple of Threshold
        The bound of the verdict.

    Examples
    --------
    >>> from rankdiag.preference import single_token_dynamics
    >>> d = single_token_dynamics([[2.0, 0.0], [1.0, 1.0]], [0.0, 0.0], 0, 1)
    >>> d.rate_all.tolist(), d.m, d.S, d.verdict
    ([1.0, -1.0], 3.0, -2.0, 'ok')
    """

    tag: ClassVar[str] = "preference.SingleTokenDynamics"

    rate_all: NDArray[np.float64]
    rate_chosen: float
    rate_rejected: float
    m: float
    S: float
    unembedding_inner: float
    alignment: NDArray[np.float64]
    other_alignment: float
    probs: NDArray[np.float64]
    chosen: int
    rejected: int
    weight: float = 1.0

    def top_gaining(self, k: int = 5, *, by: Literal["logp", "prob"] = "prob") -> NDArray[np.int64]:
        """Return the tokens that gain most at the start.

        Parameters
        ----------
        k : int
            How many; a vocabulary of fewer tokens gives all of them. Tokens that lose are listed where too few gain.
        by : {"logp", "prob"}
            Gain in log-probability (`rate_all`), or in probability (p times it). The first is dominated by
            negligible tokens, so the default is the second.

        Returns
        -------
        ndarray of int64, shape (min(k, V),)
            Ids, largest gain first; of equal gains the lower id first.

        Raises
        ------
        TypeError
            If `k` is no integer, or `by` no string.
        ValueError
            If `k` is below 1, or `by` is another word.

        Examples
        --------
        >>> from rankdiag.preference import single_token_dynamics
        >>> W = [[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]]
        >>> d = single_token_dynamics(W, [-0.5, -0.9], chosen=3, rejected=4)
        >>> d.top_gaining(3, by="logp").tolist(), d.top_gaining(3, by="prob").tolist()
        ([0, 1, 2], [2, 5, 0])
        """
        count = integer(k, "k", low=1)
        gains = self.rate_all if choice(by, "by", ("logp", "prob")) == "logp" else self.probs * self.rate_all
        order: NDArray[np.int64] = np.argsort(-gains, kind="stable")[:count].astype(np.int64)
        return order

    def document(self) -> Document:
        """Return what this result shows: the rates, what they are made of, and the tokens that gain and lose most."""
        return show.single_document(self, super(SingleTokenDynamics, self).notes())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiTokenDynamics(Result):
    """How the log-probabilities of whole responses start to move when one preference pair is trained.

    Sums run over positions k of one response and k' of the other; delta_k is the indicator of the response's token
    minus the probabilities at position k, and u_k = W^T delta_k.

    Attributes
    ----------
    rate_chosen, rate_rejected : float
        d ln pi / dt of the two responses, with the weights, in nats per unit of gradient-flow time.
    rate_others : ndarray of float64, shape (number of others,)
        The same for the third responses, in the order given.
    score : float
        ``cross - chosen_sq``: positive where training the output projection alone lowers the preferred response.
    cross : float
        Sum of `alpha_minus` times <h+_k, h-_k'>.
    chosen_sq : float
        Sum of `alpha_plus` times <h+_k, h+_k'>.
    hidden_self : float
        Sum of ||u+_k||^2.
    hidden_shared : float
        Sum of <u+_k, u-_k> over the positions with one prefix.
    alpha_minus : ndarray of float64, shape (n+, n-)
        <delta+_k, delta-_k'>, between -2 and 2.
    alpha_plus : ndarray of float64, shape (n+, n+)
        <delta+_k, delta+_k'>; symmetric, positive semi-definite, diagonal from 0 to 2.
    alpha_positive_fraction : float
        Share of entries > 0 in both together. Near one half, CHES says little: it takes all of them as 1.
    ches : float
        `score` with every alpha set to 1.
    n_shared : int
        Number s of states that both responses share.
    token_contributions : ndarray of float64, shape (n+,)
        d ln pi(y+_k | prefix) / dt, with the weights; sums to `rate_chosen`.
    chosen_ids : ndarray of int64, shape (n+,)
        Tokens of the preferred response.
    w_chosen, w_rejected : float
        Weights of the loss that the rates carry.
    meta : Meta
        Definition, units, number of positions, dtype; in ``details`` the lengths and the largest relative difference
        between states that should be one vector.
    verdict : str
        ``"warn"`` where `rate_chosen` < 0 although `w_chosen` > 0 (likelihood displacement), ``"ok"`` where it is
        not; ``"unknown"`` for `w_chosen` <= 0.
    explanation : str
        What moves, and which part is responsible.
    thresholds : tuple of Threshold
        The bound of the verdict.

    Examples
    --------
    >>> from rankdiag.preference import multi_token_dynamics
    >>> d = multi_token_dynamics([[1.0], [0.0], [-1.0]], [[0.0], [1.0]], [[0.0]], [0, 1], [2])
    >>> d.alpha_plus.shape, d.n_shared, bool(abs(d.token_contributions.sum() - d.rate_chosen) < 1e-12)
    ((2, 2), 1, True)
    """

    tag: ClassVar[str] = "preference.MultiTokenDynamics"

    rate_chosen: float
    rate_rejected: float
    rate_others: NDArray[np.float64]
    score: float
    cross: float
    chosen_sq: float
    hidden_self: float
    hidden_shared: float
    alpha_minus: NDArray[np.float64]
    alpha_plus: NDArray[np.float64]
    alpha_positive_fraction: float
    ches: float
    n_shared: int
    token_contributions: NDArray[np.float64]
    chosen_ids: NDArray[np.int64]
    w_chosen: float = 1.0
    w_rejected: float = 1.0

    def document(self) -> Document:
        """Return what this result shows: rates, their parts, and what every token of the response contributes."""
        return show.multi_document(self, super(MultiTokenDynamics, self).notes())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MultiSampleDynamics(Result):
    """How the preferred tokens of several prompts start to move when all of them are trained together.

    Attributes
    ----------
    rates : ndarray of float64, shape (N,)
        d ln pi(y+_i | x_i) / dt of the mean loss, in nats per unit of gradient-flow time: ``own + cross``.
    own : ndarray of float64, shape (N,)
        Part that comes from the sample itself, with its weight and the 1/N.
    cross : ndarray of float64, shape (N,)
        Part that comes from all other samples, with their weights and the 1/N.
    alpha : ndarray of float64, shape (N, N)
        1[y+_i = y+_j] - 1[y+_i = y-_j] + pi(y-_j | x_i) - pi(y+_j | x_i); the diagonal is not part of `cross`.
    chosen, rejected : ndarray of int64, shape (N,)
        The tokens.
    meta : Meta
        Definition, units, number of samples, dtype.
    verdict : str
        ``"warn"`` where the mean of `rates` is < 0 although every weight is > 0 (likelihood displacement over the
        samples), ``"ok"`` where it is not; ``"unknown"`` if a weight is <= 0.
    explanation : str
        How many fall, and whether their own sample or the others are responsible.
    thresholds : tuple of Threshold
        The bound of the verdict.

    Examples
    --------
    >>> from rankdiag.preference import multi_sample_dynamics
    >>> d = multi_sample_dynamics([[1.0], [-1.0]], [[1.0], [1.0]], [0, 1], [1, 0])  # two samples that contradict
    >>> d.alpha.tolist() == d.alpha.T.tolist(), bool(d.cross.max() < 0)
    (False, True)
    """

    tag: ClassVar[str] = "preference.MultiSampleDynamics"

    rates: NDArray[np.float64]
    own: NDArray[np.float64]
    cross: NDArray[np.float64]
    alpha: NDArray[np.float64]
    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]

    def document(self) -> Document:
        """Return what this result shows: how many samples fall, and own and cross part of each."""
        return show.sample_document(self, super(MultiSampleDynamics, self).notes())

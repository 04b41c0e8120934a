"""Where a reward pulls a policy now: rates of logits, agreement of two rewards, and which errors cost what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag.rewards._exact import as_kernel, as_probs, as_rewards, kernel_product

__all__ = ["Attraction", "GradientAlignment", "attraction", "error_attribution", "gradient_alignment"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attraction(Result):
    """How fast the logit and the log-probability of every output move when a reward is ascended.

    Attributes
    ----------
    logit_rate : ndarray of float64, shape (..., Y)
        K (pi * A): d z / dt.
    logprob_rate : ndarray of float64, shape (..., Y)
        d ln pi / dt = logit_rate less its mean under the policy.

    Examples
    --------
    >>> from rankdiag.rewards import attraction
    >>> [round(float(v), 4) for v in attraction([0.9, 0.05, 0.05], [0.0, -0.05, 1.0]).logprob_rate]
    [-0.0064, 0.0315, 0.084]
    """

    tag: ClassVar[str] = "rewards.Attraction"

    logit_rate: NDArray[np.float64]
    logprob_rate: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("logit_rate", "logprob_rate"):
            object.__setattr__(self, name, _frozen(getattr(self, name), name))
        if self.logit_rate.shape != self.logprob_rate.shape:
            raise ValueError(
                f"`logprob_rate` must have the shape of `logit_rate`, {self.logit_rate.shape}; "
                f"got {self.logprob_rate.shape}"
            )
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain_rates(self.logprob_rate))
        if not self.meta.definition:
            meta = Meta(
                definition="logit_rate = K (pi * A), logprob_rate = logit_rate less its mean under the policy",
                units="1 / time",
                n=int(self.logit_rate.size),
                details={"reference": "arXiv 2604.25872, Section 3"},
            )
            object.__setattr__(self, "meta", meta)

    def document(self) -> Document:
        """Return what this result shows: how many outputs gain, and both rates of every output."""
        index = np.arange(self.logit_rate.size).tolist()
        rates = (("logit", self.logit_rate), ("log-probability", self.logprob_rate))
        return Document(
            title="Attraction of every output",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="outputs that gain", value=int((self.logprob_rate > 0).sum())),
                KeyNumber(label="fastest gain", value=float(self.logprob_rate.max()), unit="1 / time"),
            ),
            plots=(
                Plot(
                    title="Rates",
                    x_label="output",
                    y_label="rate, 1 / time",
                    series=tuple(Series(label=n, x=index, y=v.ravel().tolist(), kind="points") for n, v in rates),
                    description=f"Rates of {len(index)} outputs; above 0 they grow.",
                ),
            ),
            notes=self.notes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientAlignment(Result):
    """Whether ascending one reward raises another, now.

    Attributes
    ----------
    rate : float
        d V_evaluation / dt while the training reward is ascended: the inner product of both gradients.
    cosine : float
        Of the angle between the gradients in weight space; NaN where one of them is zero.

    Examples
    --------
    >>> from rankdiag.rewards import gradient_alignment
    >>> gradient_alignment([0.5, 0.5], [1.0, 0.0], [1.0, 0.0]).rate
    0.125
    """

    tag: ClassVar[str] = "rewards.GradientAlignment"
    rule_names: ClassVar[tuple[str, ...]] = ("rate", "cosine")

    rate: float
    cosine: float

    def __post_init__(self) -> None:
        for name in ("rate", "cosine"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain_alignment(self.rate))
        if not self.meta.definition:
            meta = Meta(
                definition="<grad V_evaluation, grad V_train> in weight space, and its cosine",
                details={"reference": "arXiv 2604.25872, Section 3"},
            )
            object.__setattr__(self, "meta", meta)


def attraction(probs: Any, reward: Any, *, kernel: Any = None) -> Attraction:
    """Rates at which logits and log-probabilities of all outputs move when a reward is ascended.

    Parameters
    ----------
    probs : array-like or torch.Tensor, shape (..., Y)
        Policy.
    reward : array-like or torch.Tensor, shape (..., Y)
        Reward of every output.
    kernel : array-like, shape (Y, Y), optional
        Symmetric; Phi Phi^T of a log-linear policy. None is the identity, a table of logits.

    Returns
    -------
    Attraction
        ``logit_rate`` and ``logprob_rate``.

    Raises
    ------
    TypeError
        If an argument is no array of real numbers.
    ValueError
        If `probs` is no distribution, shapes do not fit, or rates leave float64.

    Notes
    -----
    A negative advantage does not mean a falling probability: the second output of the example has reward below the
    mean, and its log-probability rises, for the first falls faster. "Does not attract" is about logits and odds.
    Time O(Y), O(Y^2) with a kernel.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 3.

    Examples
    --------
    >>> from rankdiag.rewards import attraction
    >>> rates = attraction([0.9, 0.05, 0.05], [0.0, -0.05, 1.0])
    >>> round(float(rates.logit_rate[1]), 6), round(float(rates.logprob_rate[1]), 4)
    (-0.004875, 0.0315)
    """
    policy = as_probs(probs, "probs")
    gram = as_kernel(kernel, "kernel", policy.shape[-1])
    pulls = _pulls(policy, reward, "reward")
    logit = kernel_product(gram, pulls)
    return Attraction(logit_rate=logit, logprob_rate=_logprob_rate(policy, logit, "reward"))


def gradient_alignment(probs: Any, train: Any, evaluation: Any, *, kernel: Any = None) -> GradientAlignment:
    """Rate at which one reward rises while another is ascended, and the angle between the two gradients.

    Parameters
    ----------
    probs : array-like or torch.Tensor, shape (Y,)
        Policy.
    train : array-like or torch.Tensor, shape (Y,)
        Reward that is ascended, a proxy say.
    evaluation : array-like or torch.Tensor, shape (Y,)
        Reward that is watched, the true one say.
    kernel : array-like, shape (Y, Y), optional
        Symmetric and positive semi-definite, not checked beyond symmetry; None is the identity.

    Returns
    -------
    GradientAlignment
        ``rate`` = (pi * A_evaluation)^T K (pi * A_train), and ``cosine``.

    Raises
    ------
    TypeError
        If an argument is no array of real numbers.
    ValueError
        If `probs` is no distribution, shapes do not fit, or the rate leaves float64.

    Notes
    -----
    Time O(Y), O(Y^2) with a kernel. A negative rate means that ascent of the proxy lowers the true reward now.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 3.

    Examples
    --------
    >>> from rankdiag.rewards import gradient_alignment
    >>> found = gradient_alignment([0.1, 0.6, 0.3], [1.0, 0.5, 0.0], [1.0, 0.9, 0.0])
    >>> round(found.rate, 6), round(found.cosine, 4)
    (0.03456, 0.9406)
    """
    policy = as_probs(as_float64(probs, "probs", ndim=1, expected="probabilities (Y,)"), "probs")
    gram = as_kernel(kernel, "kernel", policy.size)
    first = _pulls(policy, _vector(train, "train"), "train")
    second = _pulls(policy, _vector(evaluation, "evaluation"), "evaluation")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rate = float(second @ kernel_product(gram, first))
    if not np.isfinite(rate):
        raise ValueError("`train` and `evaluation` have a product beyond float64; scale them down")
    units = [_unit(pulls, gram) for pulls in (first, second)]
    if units[0] is None or units[1] is None:
        return GradientAlignment(rate=rate, cosine=float("nan"))
    cosine = float(units[1] @ kernel_product(gram, units[0]))
    return GradientAlignment(rate=rate, cosine=min(1.0, max(-1.0, cosine)))


def error_attribution(probs: Any, proxy: Any, gold: Any, *, kernel: Any = None) -> NDArray[np.float64]:
    """Share of every reward error in how fast the true reward rises, to first order.

    Parameters
    ----------
    probs : array-like or torch.Tensor, shape (..., Y)
        Policy.
    proxy : array-like or torch.Tensor, shape (..., Y)
        Reward that is ascended.
    gold : array-like or torch.Tensor, shape (..., Y)
        True reward, on the same scale.
    kernel : array-like, shape (Y, Y), optional
        Symmetric; None is the identity.

    Returns
    -------
    ndarray of float64, shape (..., Y)
        e(y) = (proxy(y) - gold(y)) pi(y) logprob_rate(y), the rate under the true reward. The sum over y is
        dV_gold/dt under the proxy less that under the true reward; negative entries cost.

    Raises
    ------
    TypeError
        If an argument is no array of real numbers.
    ValueError
        If `probs` is no distribution, shapes do not fit, or numbers leave float64.

    Notes
    -----
    Derived here: dV_gold/dt is linear in the proxy. It is myopic: an error that keeps the policy from stalling later
    counts as a cost now; see `categorize_errors` with ``verify="flow"``. Time O(Y), O(Y^2) with a kernel.

    Examples
    --------
    >>> from rankdiag.rewards import error_attribution
    >>> [round(float(v), 6) for v in error_attribution([0.1, 0.6, 0.3], [1.0, 0.5, 0.0], [1.0, 0.9, 0.0])]
    [0.0, -0.027936, 0.0]
    """
    policy = as_probs(probs, "probs")
    size = policy.shape[-1]
    gram = as_kernel(kernel, "kernel", size)
    ascended, true = as_rewards(proxy, "proxy", size), as_rewards(gold, "gold", size)
    rate = _logprob_rate(policy, kernel_product(gram, _pulls(policy, true, "gold")), "gold")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = (ascended - true) * policy * rate + 0.0
    except ValueError:
        raise ValueError(
            f"`proxy` and `gold` must fit `probs` {policy.shape}; got {ascended.shape} and {true.shape}"
        ) from None
    if not np.isfinite(found).all():
        raise ValueError("`proxy` and `gold` have products beyond float64; scale them down")
    return np.asarray(found, dtype=np.float64)


def _vector(value: Any, name: str) -> Floats:
    return as_float64(value, name, ndim=1, expected="one reward for each output (Y,)")


def _pulls(policy: Floats, reward: Any, name: str) -> Floats:
    """Return pi times the advantage; equal rewards give exact zeros."""
    array = as_rewards(reward, name, policy.shape[-1])
    low = array.min(axis=-1, keepdims=True)
    try:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            above = array - low
            pulls = policy * (above - np.sum(policy * above, axis=-1, keepdims=True))
    except ValueError:
        raise ValueError(f"`{name}` must fit `probs` of shape {policy.shape}; got shape {array.shape}") from None
    if not np.isfinite(pulls).all():
        raise ValueError(f"`{name}` spreads beyond float64; scale it down")
    return np.asarray(pulls, dtype=np.float64)


def _logprob_rate(policy: Floats, logit_rate: Floats, name: str) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        rate = logit_rate - np.sum(policy * logit_rate, axis=-1, keepdims=True)
    if not np.isfinite(rate).all():
        raise ValueError(f"`{name}` and `kernel` have products beyond float64; scale them down")
    return np.asarray(rate, dtype=np.float64)


def _unit(pulls: Floats, gram: Floats | None) -> Floats | None:
    """Return the direction with norm 1 in weight space; None where the gradient is zero."""
    largest = float(np.abs(pulls).max())
    if largest == 0:
        return None
    with np.errstate(under="ignore"):
        scaled = pulls / largest
        squared = float(scaled @ kernel_product(gram, scaled))
    scale = float(np.abs(gram).max()) if gram is not None else 1.0
    rounding = np.finfo(np.float64).eps * scale * scaled.size  # a gradient in the null space of the kernel is zero
    return scaled / np.sqrt(squared) if squared > rounding else None


def _frozen(value: Any, name: str) -> Floats:
    array = np.array(as_float64(value, name, min_ndim=1, finite=False))
    array.flags.writeable = False
    return array


def _explain_rates(rate: Floats) -> str:
    flat = rate.ravel()
    if not flat.any():
        return "No output moves: all rewards are equal under this policy."
    return (
        f"{int((flat > 0).sum())} of {flat.size} outputs gain probability; output {int(flat.argmax())} gains fastest, "
        f"{float(flat.max()):.3g} nats per unit of time."
    )


def _explain_alignment(rate: float) -> str:
    if rate < 0:
        return f"Ascent of the training reward lowers the other reward now, by {-rate:.3g} per unit of time."
    if rate > 0:
        return f"Ascent of the training reward raises the other reward now, by {rate:.3g} per unit of time."
    return "Ascent of the training reward does not move the other reward now, to first order."

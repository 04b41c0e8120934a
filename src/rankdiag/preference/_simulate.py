"""Gradient descent on one single-token preference, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, refuse_size
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, Series
from rankdiag._result import Meta, Result, Threshold
from rankdiag._validate import integer, real
from rankdiag.preference._loss_weights import weights_from_options
from rankdiag.preference._unembedding import Unembedding, frozen, token_pair

__all__ = ["SingleTokenTrajectory", "simulate_single_token"]

Floats = NDArray[np.float64]
Step = Callable[[float, float], tuple[float, float, float]]  # a, b -> loss, w+, w-

_DPO = {"dpo", "sigmoid"}
_LINES = 4  # third tokens in the plot
_ROWS = 8  # third tokens in the table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleTokenTrajectory(Result):
    """Log-probabilities of the whole vocabulary, and the loss, over the steps of gradient descent.

    Attributes
    ----------
    logp : ndarray of float64, shape (steps + 1, V)
        Log-probabilities in nats; row 0 is before training.
    loss : ndarray of float64, shape (steps + 1,)
        Loss before training and after each step.
    chosen, rejected : int
        The preferred and the dispreferred token.
    lr : float
        Learning rate.
    meta : Meta
        Definition, units, number of steps, loss and its parameters.
    verdict : str
        ``"warn"`` where the preferred token ends lower although the loss fell (likelihood displacement), ``"ok"``
        where the loss fell and the token did not; ``"unknown"`` where the loss did not fall.
    explanation : str
        What became of the preferred token, and which token gained most.
    thresholds : tuple of Threshold
        The bound of the verdict.

    Examples
    --------
    >>> from rankdiag.preference import SingleTokenTrajectory
    >>> import numpy as np
    >>> t = SingleTokenTrajectory(
    ...     logp=np.log([[0.5, 0.5], [0.6, 0.4]]), loss=np.array([0.7, 0.6]), chosen=0, rejected=1, lr=0.1
    ... )
    >>> t.probs[:, 0].tolist(), round(t.change_chosen, 4)
    ([0.5, 0.6], 0.1823)
    """

    tag: ClassVar[str] = "preference.SingleTokenTrajectory"

    logp: NDArray[np.float64]
    loss: NDArray[np.float64]
    chosen: int
    rejected: int
    lr: float

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities over the steps, shape (steps + 1, V)."""
        return np.exp(self.logp)

    @property
    def change_chosen(self) -> float:
        """Change of ln p of the preferred token from the start to the last step, in nats."""
        return float(self.logp[-1, self.chosen] - self.logp[0, self.chosen])

    def document(self) -> Document:
        """Return what this result shows: start and end, the tokens that moved most, and their paths."""
        return _document(self, super(SingleTokenTrajectory, self).notes())


def simulate_single_token(
    W: Any,
    h: Any,
    chosen: int,
    rejected: int,
    *,
    lr: float,
    steps: int,
    loss: str | Callable[..., Any] = "dpo",
    beta: float | None = 0.1,
    loss_options: Mapping[str, Any] | None = None,
) -> SingleTokenTrajectory:
    r"""Train one single-token preference by gradient descent on the unembedding and the hidden state.

    Parameters
    ----------
    W : array-like of shape (V, d)
        Unembedding matrix at the start; it is not changed.
    h : array-like of shape (d,)
        Final hidden state of the prompt at the start.
    chosen, rejected : int
        Ids of the preferred and the dispreferred token.
    lr : float
        Learning rate, > 0.
    steps : int
        Number of steps, >= 0.
    loss : str or callable
        Name of the loss, or a function, as in `loss_weights`. The reference is the start; both lengths are 1.
    beta : float, optional
        Its parameter beta; None for losses without one.
    loss_options : mapping, optional
        Its further parameters, ``{"tau": 0.01}`` say.

    Returns
    -------
    SingleTokenTrajectory
        Log-probabilities of the whole vocabulary and the loss, before training and after each step.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, or the parameters are not those of the loss.
    ValueError
        If a shape does not fit, an entry is not finite, an id is outside [0, V), both ids are the same, the loss is
        unknown, the trajectory does not fit into memory, or training diverges.

    See Also
    --------
    rankdiag.preference.single_token_dynamics : The derivative at the start, which the first small step follows.

    Notes
    -----
    With :math:`w_+ = -\partial L / \partial \ln p_+`, :math:`w_- = \partial L / \partial \ln p_-` and
    :math:`\delta = w_+ (e_+ - p) - w_- (e_- - p)` a step is

    .. math::

        W \leftarrow W + \eta \, \delta h^\top , \qquad h \leftarrow h + \eta \, W^\top \delta ,

    both from the old values. Cost: 2 V d flops a step where both weights are equal, for then only two rows of W
    move, else 6 V d; memory 8 V (d + steps) bytes.

    References
    ----------
    Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
    arXiv:2410.08847, section 4.1.

    Examples
    --------
    >>> from rankdiag.preference import simulate_single_token
    >>> W = [[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]]
    >>> t = simulate_single_token(W, [-0.5, -0.9], chosen=3, rejected=4, lr=0.2, steps=100)  # No over Never
    >>> t.probs[[0, 1, 10, 100], 3].round(4).tolist()  # No
    [0.6304, 0.6029, 0.3195, 0.0111]
    >>> t.probs[[0, 1, 10, 100], 0].round(4).tolist()  # Yes
    [0.0314, 0.0389, 0.1446, 0.8065]
    """
    matrix = Unembedding(W)
    state = np.array(as_float64(h, "h", ndim=1, expected="a hidden state (d,)"))
    matrix.check_width(state.size, "h")
    plus, minus = (int(token) for token in token_pair(chosen, rejected, matrix.shape[0]))
    rate = real(lr, "lr", low=0.0, low_open=True)
    count = integer(steps, "steps", low=0)
    size = matrix.shape[0]
    refuse_size((count + 1) * size, "steps", (count + 1, size))
    refuse_size(size * matrix.shape[1], "W", matrix.shape)
    rows = np.concatenate([np.array(block) for _, block in matrix.blocks()])
    logp, losses = np.empty((count + 1, size)), np.empty(count + 1)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        logp[0] = _log_softmax(rows @ state)
        _require_finite(logp[0], 0)
        step = _loss_step(loss, float(logp[0, plus]), float(logp[0, minus]), beta, loss_options)
        for t in range(count + 1):
            losses[t], w_plus, w_minus = step(float(logp[t, plus]), float(logp[t, minus]))
            if t == count:
                break
            _descend(rows, state, logp[t], (plus, minus), (rate * w_plus, rate * w_minus))
            logp[t + 1] = _log_softmax(rows @ state)
            _require_finite(logp[t + 1], t + 1)
    logp.flags.writeable = False
    change = float(logp[-1, plus] - logp[0, plus])
    fell = bool(losses[-1] < losses[0])
    bound = Threshold(
        quantity="change_chosen",
        op="<",
        value=0.0,
        source="Razin et al. 2024, arXiv:2410.08847, Definition 1: the loss falls and so does the preferred response",
    )
    return SingleTokenTrajectory(
        logp=logp,
        loss=frozen(losses),
        chosen=plus,
        rejected=minus,
        lr=rate,
        verdict=("warn" if change < 0 else "ok") if fell else "unknown",
        thresholds=(bound,) if fell else (),
        explanation=_explain(logp, losses, plus),
        meta=Meta(
            definition="gradient descent on W and the hidden state of one prompt, both from the old values",
            base="e",
            units="nats",
            n=count,
            dtype=matrix.dtype,
            details={
                "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "a function"),
                "beta": None if beta is None else float(beta),
                **{key: value for key, value in (loss_options or {}).items() if isinstance(value, (int, float, str))},
            },
        ),
    )


def _loss_step(loss: Any, ref_chosen: float, ref_rejected: float, beta: Any, options: Any) -> Step:
    """Return a function of the two log-probabilities that gives the loss and its two weights."""

    def general(a: float, b: float) -> tuple[float, float, float]:
        pairs = ([a], [b], [ref_chosen], [ref_rejected], [1], [1])
        found = weights_from_options(loss, pairs, beta=beta, loss_options=options)
        return float(found.loss[0]), float(found.w_chosen[0]), float(found.w_rejected[0])

    def dpo(a: float, b: float) -> tuple[float, float, float]:
        x = scale * ((a - ref_chosen) - (b - ref_rejected))
        small = math.exp(-abs(x))
        weight = scale * (small if x >= 0 else 1.0) / (1.0 + small)
        return max(-x, 0.0) + math.log1p(small), weight, weight

    general(ref_chosen, ref_rejected)  # refuses what is no loss, or not its parameters
    if not (isinstance(loss, str) and loss in _DPO):
        return general
    scale = float(beta)
    return dpo


def _log_softmax(logits: Floats) -> Floats:
    centred = logits - logits.max()
    weights = np.exp(centred)
    top = int(centred.argmax())
    weights[top] = 0.0  # exp(0) is added by log1p, so that ln p keeps its digits near p = 1
    out: Floats = centred - math.log1p(float(weights.sum()))
    return out


def _require_finite(logp: Floats, step: int) -> None:
    if np.isfinite(logp).all():
        return
    if step == 0:
        raise ValueError("`W` and `h` are so large that logits are beyond float64; divide them by a constant first")
    raise ValueError(f"training diverges at step {step}: logits are beyond float64; use a smaller `lr` or `steps`")


def _descend(W: Floats, h: Floats, logp: Floats, tokens: tuple[int, int], pushes: tuple[float, float]) -> None:
    """Make one step in place; `pushes` are the weights times the learning rate."""
    (plus, minus), (up, down) = tokens, pushes
    if up == down:
        pull = up * (W[plus] - W[minus])
        W[plus] += up * h
        W[minus] -= up * h
    else:
        delta = (down - up) * np.exp(logp)
        delta[plus] += up
        delta[minus] -= down
        pull = delta @ W
        W += np.outer(delta, h)
    h += pull


def _explain(logp: Floats, losses: Floats, chosen: int) -> str:
    p = np.exp(logp[[0, -1]])
    gained = int((p[1] - p[0]).argmax())
    text = (
        f"The loss went from {losses[0]:.4g} to {losses[-1]:.4g}, the probability of the preferred token from "
        f"{p[0, chosen]:.4g} to {p[1, chosen]:.4g}."
    )
    if gained != chosen and p[1, gained] > p[0, gained]:
        text += (
            f" Token {gained} gained most, from {p[0, gained]:.4g} to {p[1, gained]:.4g}. Whether that is harmful "
            "depends on what it means."
        )
    return text


def _document(t: SingleTokenTrajectory, notes: tuple[str, ...]) -> Document:
    start, end = np.exp(t.logp[0]), np.exp(t.logp[-1])
    moved = np.argsort(-np.abs(end - start), kind="stable").tolist()
    third = [z for z in moved if z not in {t.chosen, t.rejected}]
    shown = [t.chosen, t.rejected, *third[:_ROWS]]
    labels = {t.chosen: "preferred", t.rejected: "dispreferred"}
    steps = [float(step) for step in range(len(t.logp))]
    return Document(
        title=f"Training to prefer token {t.chosen} over token {t.rejected}",
        verdict=t.verdict,
        explanation=t.explanation,
        key_numbers=(
            KeyNumber(label="change of ln p of the preferred token", value=t.change_chosen, unit="nats"),
            KeyNumber(label="p of the preferred token, start", value=float(start[t.chosen])),
            KeyNumber(label="p of the preferred token, end", value=float(end[t.chosen])),
            KeyNumber(label="loss, start", value=float(t.loss[0])),
            KeyNumber(label="loss, end", value=float(t.loss[-1])),
            KeyNumber(label="steps", value=len(t.logp) - 1),
            KeyNumber(label="learning rate", value=t.lr),
        ),
        grids=(
            Grid(
                title="The pair, and the tokens whose probability moved most",
                columns=(
                    Column(name="token"),
                    Column(name="role"),
                    Column(name="start", label="p, start"),
                    Column(name="end", label="p, end"),
                    Column(name="change", label="change of ln p", unit="nats"),
                ),
                rows=tuple(
                    (z, labels.get(z, ""), float(start[z]), float(end[z]), float(t.logp[-1, z] - t.logp[0, z]))
                    for z in shown
                ),
            ),
        ),
        plots=(
            Plot(
                title="Probabilities over the steps",
                x_label="step",
                y_label="probability",
                series=tuple(
                    Series(label=f"token {z} {labels.get(z, '')}".rstrip(), x=steps, y=np.exp(t.logp[:, z]).tolist())
                    for z in shown[: 2 + _LINES]
                ),
                description="Probabilities of the pair and of the tokens that moved most, before and after each step.",
            ),
            Plot(
                title="Loss over the steps",
                x_label="step",
                y_label="loss",
                series=(Series(label="", x=steps, y=t.loss.tolist()),),
                description="The loss before training and after each step.",
            ),
        ),
        notes=notes,
    )

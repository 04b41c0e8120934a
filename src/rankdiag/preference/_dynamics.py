"""Exact first derivatives of log-probabilities under a preference loss, with one free hidden state per prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Verdict
from rankdiag._meta import Meta, Threshold
from rankdiag._validate import describe, integer, real
from rankdiag.preference import _dynamics_show as show
from rankdiag.preference._dynamics_results import MultiSampleDynamics, MultiTokenDynamics, SingleTokenDynamics
from rankdiag.preference._pull import Response, pull_between, stack_responses
from rankdiag.preference._unembedding import (
    Unembedding,
    frozen,
    read_head,
    require_within_float64,
    token_ids,
    token_pair,
)

__all__ = [
    "MultiSampleDynamics",
    "MultiTokenDynamics",
    "SingleTokenDynamics",
    "multi_sample_dynamics",
    "multi_token_dynamics",
    "single_token_dynamics",
]

Floats = NDArray[np.float64]

_PAPER = "Razin et al. 2024, arXiv:2410.08847"
_FALLS = "log-probability of the preferred response falls although the loss falls"


def single_token_dynamics(W: Any, h: Any, chosen: int, rejected: int, weight: float = 1.0) -> SingleTokenDynamics:
    r"""Say how every token's log-probability starts to move when one single-token preference is trained.

    The model is the unconstrained one of the paper: W and the hidden state h of the prompt are free, and both follow
    the gradient of a loss of the margin ln p+ - ln p-. The rates are exact for it.

    Parameters
    ----------
    W : array-like of shape (V, d)
        Unembedding matrix (output projection).
    h : array-like of shape (d,)
        Final hidden state of the prompt, the vector that W multiplies.
    chosen, rejected : int
        Ids of the preferred and the dispreferred token.
    weight : float
        g = -l'(margin) of the loss l, the field ``w_chosen`` of `loss_weights`; beta / 2 for DPO at its reference.

    Returns
    -------
    SingleTokenDynamics
        Rates of all tokens, and the two parts m and S of the preferred one.

    Raises
    ------
    TypeError
        If an array holds no numbers, an id is no integer or `weight` no number.
    ValueError
        If a shape does not fit, an entry is not finite, an id is outside [0, V), both ids are the same, or products
        are beyond float64.

    See Also
    --------
    rankdiag.preference.simulate_single_token : What becomes of it over many steps.
    rankdiag.preference.multi_token_dynamics : The same for responses of several tokens.

    Notes
    -----
    With :math:`v = W (W_+ - W_-)` the whole vocabulary moves as

    .. math::

        \frac{d}{dt} \ln p = g \left[ v - p^\top v + \|h\|^2 (e_+ - e_- - (p_+ - p_-)) \right] ,

    and for the preferred token this is :math:`g (m + S)` with

    .. math::

        m = (1 - p_+) \|W_+\|^2 + p_- \|W_-\|^2 + (1 - p_+ + p_-) \|h\|^2 \ge 0 , \qquad
        S = -(1 - p_+ + p_-) \langle W_+, W_- \rangle - \sum_{z \ne +, -} p_z \langle W_z, W_+ - W_- \rangle .

    The term with :math:`\|h\|^2` alone can never lower the preferred token: with frozen hidden states there is no
    displacement. It takes rows of W that are large beside h, and that are similar or aligned with W+ - W-.

    Sums are centred on the most likely token and 1 - p is a sum of the other probabilities, so that nothing cancels
    near p = 1. Cost: O(V d) time (two products with W) and O(V) memory; W is brought to float64 in blocks.

    References
    ----------
    Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
    arXiv:2410.08847, Theorems 1, 2, 4 and 5; the form for the whole vocabulary at once is derived here.

    Examples
    --------
    >>> from rankdiag.preference import single_token_dynamics
    >>> W = [[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]]
    >>> tokens = ["Yes", "Sure", "Maybe", "No", "Never", "other"]
    >>> d = single_token_dynamics(W, [-0.5, -0.9], chosen=3, rejected=4, weight=0.05)  # No over Never
    >>> print(f"m + S = {d.m:.5f} {d.S:.5f} = {d.m + d.S:.5f}, rate of No {d.rate_chosen:.6f}: {d.verdict}")
    m + S = 6.23913 -9.96158 = -3.72245, rate of No -0.186123: warn
    >>> [tokens[z] for z in d.top_gaining(2, by="logp")]
    ['Yes', 'Sure']
    """
    matrix = Unembedding(W)
    state = as_float64(h, "h", ndim=1, expected="a hidden state (d,)")
    matrix.check_width(state.size, "h")
    plus, minus = (int(token) for token in token_pair(chosen, rejected, matrix.shape[0]))
    g = real(weight, "weight")
    pair = matrix.take(np.array([plus, minus]))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        difference = pair[0] - pair[1]
        logits, alignment = (
            np.concatenate(part)
            for part in zip(*((block @ state, block @ difference) for _, block in matrix.blocks()), strict=True)
        )
        top = int(logits.argmax())
        probs = np.exp(logits - logits[top])
        probs /= probs.sum()
        left = [float(np.delete(probs, token).sum()) for token in (plus, minus)]  # 1 - p of the two
        centred = alignment - alignment[top]
        square = float(state @ state)
        through_rows = np.full(probs.size, square * (probs[minus] - probs[plus]))
        through_rows[plus] = square * (left[0] + probs[minus])
        through_rows[minus] = -square * (left[1] + probs[plus])
        rates = g * (centred - float(probs @ centred) + through_rows)
        inner = float(pair[0] @ pair[1])
        gap = left[0] + float(probs[minus])
        others = float(np.delete(probs * alignment, [plus, minus]).sum())
        m = left[0] * float(pair[0] @ pair[0]) + float(probs[minus]) * float(pair[1] @ pair[1]) + gap * square
        s = -gap * inner - others
    require_within_float64(rates, alignment, inner, m, s, names="`W`, `h` and `weight`")
    verdict, thresholds = _judge(float(rates[plus]), g, "rate_chosen", "Theorem 1 and Definition 1")
    return SingleTokenDynamics(
        rate_all=frozen(rates),
        rate_chosen=float(rates[plus]),
        rate_rejected=float(rates[minus]),
        m=m,
        S=s,
        unembedding_inner=inner,
        alignment=frozen(alignment),
        other_alignment=others,
        probs=frozen(probs),
        chosen=plus,
        rejected=minus,
        weight=g,
        verdict=verdict,
        thresholds=thresholds,
        explanation=show.explain_single(float(rates[plus]), g, m, s, -gap * inner, -others),
        meta=Meta(
            definition="d ln p / dt under gradient flow on W and the hidden state of the prompt",
            base="e",
            units="nats per unit of gradient-flow time",
            n=matrix.shape[0],
            dtype=matrix.dtype,
        ),
    )


def _judge(rate: float, weight: float, quantity: str, where: str) -> tuple[Verdict, tuple[Threshold, ...]]:
    """Call it displacement where the loss pushes the preferred response up and it falls."""
    if weight <= 0:
        return "unknown", ()
    bound = Threshold(quantity=quantity, op="<", value=0.0, source=f"{_PAPER}, {where}: the {_FALLS}")
    return ("warn" if rate < 0 else "ok"), (bound,)


def multi_token_dynamics(
    W: Any,
    chosen_states: Any,
    rejected_states: Any,
    chosen_ids: Any,
    rejected_ids: Any,
    n_shared: int | None = None,
    w_chosen: float = 1.0,
    w_rejected: float = 1.0,
    *,
    others: Sequence[tuple[Any, Any]] = (),
) -> MultiTokenDynamics:
    r"""Say how the log-probabilities of whole responses start to move when one preference pair is trained.

    The model is the unconstrained one of the paper: W and one hidden state for every distinct prefix are free.
    Shared prefixes are treated exactly.

    Parameters
    ----------
    W : array-like of shape (V, d)
        Unembedding matrix; read in blocks of rows, never copied to float64 as a whole.
    chosen_states, rejected_states : array-like of shape (n, d)
        Final hidden states; row k is the state that predicts token k of the response (row 0 is that of the last
        prompt token).
    chosen_ids, rejected_ids : array-like of int, shape (n,)
        Tokens of the responses.
    n_shared : int, optional
        Number s of leading states that both responses share: min(c + 1, n+, n-) for c leading tokens in common,
        which None computes; 0 where the two follow different prompts. Shared states are taken from
        `chosen_states`.
    w_chosen, w_rejected : float
        w+ = -dL/da and w- = dL/db of the loss, as in `loss_weights`.
    others : sequence of (states, ids)
        Third responses to the prompt of the preferred one, whose rates are wanted; with ``n_shared=0`` they share
        nothing with the rejected one.

    Returns
    -------
    MultiTokenDynamics
        Rates, the sums they are made of, the alphas, and the contribution of every token.

    Raises
    ------
    TypeError
        If an array holds no numbers, ids are no integers or `others` is no sequence of pairs.
    ValueError
        If a shape does not fit, an entry is not finite, an id is outside [0, V), `n_shared` is above what the ids
        allow, or products are beyond float64.

    See Also
    --------
    rankdiag.preference.single_token_dynamics : One token, with the rate of the whole vocabulary.
    rankdiag.preference.ches_from_states : The score with every alpha set to 1.

    Notes
    -----
    With :math:`\delta_k = e_{y_k} - \pi(\cdot \mid x, y_{<k})`, :math:`u_k = W^\top \delta_k` and
    :math:`\alpha_{kk'} = \langle \delta_k, \delta_{k'} \rangle`,

    .. math::

        \frac{d}{dt} \ln \pi(y^+ \mid x) =
        w_+ \Big[ \sum \alpha^+_{kk'} \langle h^+_k, h^+_{k'} \rangle + \sum_k \|u^+_k\|^2 \Big]
        - w_- \Big[ \sum \alpha^-_{kk'} \langle h^+_k, h^-_{k'} \rangle
        + \sum_{k \le s} \langle u^+_k, u^-_k \rangle \Big] .

    For :math:`s = 1` and equal weights this is Theorem 6. A third response takes the first place of every product,
    and its u-terms run over the prefixes that it shares. Row k of each sum is what token k contributes.

    Positions where both responses have one state and one token cancel before they are summed, and 1 - p is a sum of
    the other probabilities: identical responses give exactly 0, and products near p = 1 keep their digits.

    Cost: for T distinct positions (of all responses together) of which G belong to the pair, 4 T V d flops for
    logits and u, 2 T V G for the alphas (half where there are no others) and T V exponentials, in one pass over W.
    That is about 2 + T / (2 d) times the bare product of states and W, and measured as 2.1 to 2.4 times for T = 127 and
    d from 256 to 2048, 3.7 times for T = 1023 and d = 256. Memory: O(T block + T^2 + T d) beside the inputs, with
    blocks of at most four million entries.

    References
    ----------
    Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
    arXiv:2410.08847, Theorems 3, 6 and 7; the form for any shared prefix and the attribution to tokens are derived
    here.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import multi_token_dynamics
    >>> draw = np.random.default_rng(0)
    >>> W, first, longer, shorter = (draw.normal(size=(n, 4)) for n in (6, 1, 2, 1))
    >>> plus, minus = np.vstack([first, longer]), np.vstack([first, shorter])
    >>> d = multi_token_dynamics(W, plus, minus, [2, 1, 3], [5, 4])
    >>> d.n_shared, d.alpha_minus.shape, bool(np.isclose(d.token_contributions.sum(), d.rate_chosen))
    (1, (3, 2), True)
    """
    matrix = Unembedding(W)
    chosen = Response.checked(matrix, chosen_states, chosen_ids, "chosen_states", "chosen_ids")
    rejected = Response.checked(matrix, rejected_states, rejected_ids, "rejected_states", "rejected_ids")
    shared = _checked_shared(n_shared, chosen, rejected)
    w_plus, w_minus = real(w_chosen, "w_chosen"), real(w_rejected, "w_rejected")
    third = _third_responses(matrix, others)
    stack = stack_responses(chosen, rejected, third, shared)
    head = read_head(matrix, stack.states, stack.all_ids(), gram=stack.pair)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        plus, minus, *rest = pull_between(head, stack)
        rates = [part.rates(w_plus, w_minus) for part in (plus, minus, *rest)]
        contributions = rates[0]
        totals = np.array([float(rate.sum()) for rate in rates])
        chosen_sq, score = float(plus.with_chosen.sum()), float(plus.gap.sum())
        own, common = float(plus.hidden_chosen.sum()), float(plus.hidden_chosen.sum() + plus.hidden_gap.sum())
        ches = stack.ches()
    require_within_float64(totals, chosen_sq, score, own, common, ches, names="`W`, the states and the weights")
    positive = (plus.alpha_chosen > 0).sum() + (plus.alpha_rejected > 0).sum()
    verdict, thresholds = _judge(float(totals[0]), w_plus, "rate_chosen", "Theorem 3 and Definition 1")
    return MultiTokenDynamics(
        rate_chosen=float(totals[0]),
        rate_rejected=float(totals[1]),
        rate_others=frozen(totals[2:]),
        score=score,
        cross=chosen_sq + score,
        chosen_sq=chosen_sq,
        hidden_self=own,
        hidden_shared=common,
        alpha_minus=frozen(plus.alpha_rejected),
        alpha_plus=frozen(plus.alpha_chosen),
        alpha_positive_fraction=float(positive) / (plus.alpha_chosen.size + plus.alpha_rejected.size),
        ches=ches,
        n_shared=shared,
        token_contributions=frozen(contributions),
        chosen_ids=frozen(chosen.ids, np.int64),
        w_chosen=w_plus,
        w_rejected=w_minus,
        verdict=verdict,
        thresholds=thresholds,
        explanation=show.explain_multi(float(totals[0]), float(totals[1]), score, own - common, w_plus, w_minus),
        meta=Meta(
            definition="d ln pi / dt under gradient flow on W and one hidden state for every distinct prefix",
            base="e",
            units="nats per unit of gradient-flow time",
            n=len(stack.states),
            dtype=matrix.dtype,
            details={
                "n_chosen": chosen.ids.size,
                "n_rejected": rejected.ids.size,
                "shared_state_difference": stack.difference,
            },
        ),
    )


def _checked_shared(n_shared: Any, chosen: Response, rejected: Response) -> int:
    most = chosen.shared_with(rejected)
    if n_shared is None:
        return most
    shared = integer(n_shared, "n_shared", low=0)
    if shared > most:
        raise ValueError(
            f"`n_shared` must be at most {most}, for `chosen_ids` and `rejected_ids` have "
            f"{chosen.common_with(rejected)} leading tokens in common; got {shared}"
        )
    return shared


def _third_responses(matrix: Unembedding, others: Any) -> tuple[Response, ...]:
    rule = "`others` must be a list of pairs (states, ids)"
    if not isinstance(others, (list, tuple)):
        raise TypeError(f"{rule}; got {describe(others)}")
    found = []
    for i, entry in enumerate(others):
        if not isinstance(entry, (list, tuple)):
            raise TypeError(f"{rule}; got {describe(entry)} as entry {i}")
        if len(entry) != 2:
            raise ValueError(f"{rule}; got {len(entry)} parts as entry {i}")
        try:
            found.append(Response.checked(matrix, entry[0], entry[1], "states", "ids"))
        except TypeError as error:
            raise TypeError(f"entry {i} of `others`: {error}") from None
        except ValueError as error:
            raise ValueError(f"entry {i} of `others`: {error}") from None
    return tuple(found)


def multi_sample_dynamics(W: Any, hidden: Any, chosen: Any, rejected: Any, weights: Any = 1.0) -> MultiSampleDynamics:
    r"""Say how the preferred tokens of several prompts start to move when all of them are trained together.

    Parameters
    ----------
    W : array-like of shape (V, d)
        Unembedding matrix, free; read in blocks of rows.
    hidden : array-like of shape (N, d)
        Final hidden state of every prompt; the prompts are distinct, so that each row is free by itself.
    chosen, rejected : array-like of int, shape (N,)
        Ids of the preferred and the dispreferred token of each prompt.
    weights : float or array-like of shape (N,)
        g_i = -l'(margin) of every sample at its own margin.

    Returns
    -------
    MultiSampleDynamics
        Rates, split into what a sample does to itself and what the others do to it.

    Raises
    ------
    TypeError
        If an array holds no numbers or ids are no integers.
    ValueError
        If a shape does not fit, an entry is not finite, an id is outside [0, V), a sample has one token as both, or
        products are beyond float64.

    See Also
    --------
    rankdiag.preference.single_token_dynamics : One prompt, with the rate of the whole vocabulary.

    Notes
    -----
    .. math::

        \frac{d}{dt} \ln \pi(y^+_i \mid x_i) = \frac{g_i}{N} (m_i + S_i)
        + \sum_{j \ne i} \frac{g_j}{N} \alpha_{ij} \langle h_i, h_j \rangle .

    Samples act on each other through W alone. Hidden states of one model mostly have positive products, so the sign
    of alpha decides: it is negative for samples that contradict each other (y+_i = y-_j), and for unrelated ones
    where prompt i gives y-_j less probability than y+_j.

    Cost: 4 N V d flops and N V exponentials in one pass over W; memory O(N block + N^2 + N d).

    References
    ----------
    Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
    arXiv:2410.08847, Theorems 8 and 9.

    Examples
    --------
    >>> from rankdiag.preference import multi_sample_dynamics
    >>> W = [[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]]
    >>> d = multi_sample_dynamics(W, [[-0.5, -0.9], [0.4, 0.2]], [3, 0], [4, 3], weights=0.05)
    >>> [round(rate, 4) for rate in d.own.tolist()], [round(rate, 4) for rate in d.cross.tolist()]
    ([-0.0931, 0.1207], [0.0038, 0.0001])
    """
    matrix = Unembedding(W)
    states = as_float64(hidden, "hidden", ndim=2, expected="hidden states (N, d)")
    matrix.check_width(states.shape[1], "hidden")
    count = len(states)
    plus, minus = _sample_ids(chosen, rejected, count, matrix.shape[0])
    g = as_float64(weights, "weights", expected="one weight, or one for each sample")
    if g.shape not in {(), (count,)}:
        raise ValueError(f"`weights` must be one number or have shape ({count},); got shape {g.shape}")
    g = np.broadcast_to(g, count)
    head = read_head(matrix, states, np.concatenate([plus, minus]))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        everyone = np.arange(count)
        delta = head.deltas(everyone, plus)
        at_plus, at_minus = np.searchsorted(head.ids, plus), np.searchsorted(head.ids, minus)
        alpha = delta[:, at_plus] - delta[:, at_minus]
        difference = head.rows[at_plus] - head.rows[at_minus]
        products = alpha * (states @ states.T)
        own = g / count * ((head.pulls(everyone, delta) * difference).sum(axis=1) + products.diagonal())
        np.fill_diagonal(products, 0.0)
        cross = products @ (g / count)
        rates = own + cross
    require_within_float64(rates, own, cross, names="`W`, `hidden` and `weights`")
    verdict, thresholds = _judge(float(rates.mean()), float(g.min()), "mean of rates", "Definition 1")
    return MultiSampleDynamics(
        rates=frozen(rates),
        own=frozen(own),
        cross=frozen(cross),
        alpha=frozen(alpha),
        chosen=frozen(plus, np.int64),
        rejected=frozen(minus, np.int64),
        verdict=verdict,
        thresholds=thresholds,
        explanation=show.explain_samples(rates, own, cross),
        meta=Meta(
            definition="d ln pi(y+) / dt of every sample under gradient flow of the mean loss on W and all states",
            base="e",
            units="nats per unit of gradient-flow time",
            n=count,
            dtype=matrix.dtype,
        ),
    )


def _sample_ids(chosen: Any, rejected: Any, count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    plus, minus = token_ids(chosen, "chosen", size), token_ids(rejected, "rejected", size)
    for name, ids in (("chosen", plus), ("rejected", minus)):
        if ids.size != count:
            raise ValueError(f"`{name}` must have one id for each of the {count} rows of `hidden`; got {ids.size}")
    same = np.flatnonzero(plus == minus)
    if same.size:
        i = int(same[0])
        raise ValueError(f"`chosen` and `rejected` must differ in every sample; sample {i} has {int(plus[i])} twice")
    return plus, minus

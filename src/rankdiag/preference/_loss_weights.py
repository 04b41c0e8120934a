"""Preference losses and their exact weights: how hard each loss pushes the two responses of a pair.

Any loss L(a, b) of a = ln pi(y+|x) and b = ln pi(y-|x) moves the model by w+ grad a - w- grad b, with
w+ = -dL/da and w- = dL/db. The table of losses below is closed form; a loss of your own goes through torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe, real
from rankdiag.preference._loss_table import LOSSES, Loss, Pairs, Triple, by_autograd

__all__ = ["HYPER_PARAMETERS", "ONE_PAIR", "LossWeights", "loss_weights", "weights_from_options"]

Floats = NDArray[np.float64]
HYPER_PARAMETERS = (
    "beta", "tau", "eps", "delta", "gamma", "eta", "lam", "alpha", "reward_chosen", "reward_rejected", "f",
)  # fmt: skip
# Log-probabilities, those of the reference and lengths of a pair on which hyper-parameters can be tried.
ONE_PAIR = tuple(np.array([value]) for value in (-2.0, -3.0, -2.0, -3.0, 1.0, 1.0))


class LossWeights(NamedTuple):
    """Value and weights of a preference loss, one entry for each pair.

    Attributes
    ----------
    loss : ndarray of float64
        L of each pair.
    w_chosen : ndarray of float64
        -dL / d ln pi(chosen). Negative where the loss itself pushes the chosen response down.
    w_rejected : ndarray of float64
        dL / d ln pi(rejected).

    Examples
    --------
    >>> from rankdiag.preference import loss_weights
    >>> loss_weights("ipo", [-1.0], [-2.0], [-1.0], [-2.0], tau=0.01).w_chosen.tolist()
    [100.0]
    """

    loss: Floats
    w_chosen: Floats
    w_rejected: Floats


def loss_weights(
    loss: str | Callable[..., Any],
    chosen_logp: Any,
    rejected_logp: Any,
    ref_chosen: Any = None,
    ref_rejected: Any = None,
    n_chosen: Any = None,
    n_rejected: Any = None,
    *,
    beta: float | None = None,
    tau: float | None = None,
    eps: float | None = None,
    delta: float | None = None,
    gamma: float | None = None,
    eta: float | None = None,
    lam: float | None = None,
    alpha: float | None = None,
    reward_chosen: Any = None,
    reward_rejected: Any = None,
    f: Callable[[Any], Any] | None = None,
) -> LossWeights:
    """Return a preference loss and the two weights with which it pushes the responses of each pair.

    The chosen response is displaced by a step on its own pair exactly if w+ ||grad+||^2 < w- <grad+, grad->, where
    grad+ and grad- are the gradients of the two log-probabilities. A loss of the margin alone has w+ = w-.

    Parameters
    ----------
    loss : str or callable
        A name of the table in the notes, with exactly its hyper-parameters; or a function L(a, b, ra, rb, n+, n-)
        of float64 torch tensors (None where not given) that returns one value for each pair, no pair depending on
        another. Such a function takes no hyper-parameters and is differentiated by torch.
    chosen_logp, rejected_logp : array-like, shape (...)
        Summed log-probabilities a and b of the two responses, in nats.
    ref_chosen, ref_rejected : array-like, shape (...), optional
        The same under the reference model, ra and rb; read only where the loss has them.
    n_chosen, n_rejected : array-like, shape (...) or scalar, optional
        Tokens of the two responses; read only where the loss has them.
    beta, tau : float, optional
        Strength of the pull to the reference, > 0.
    eps : float, optional
        Share of flipped labels that the loss allows for, in [0, 0.5).
    delta : float, optional
        Margin of the hinge, >= 0.
    gamma : float, optional
        Target margin of SimPO.
    eta : float, optional
        Strength of the pull to the reference in REBEL, > 0.
    lam, alpha : float, optional
        Weight of the extra term, >= 0.
    reward_chosen, reward_rejected : array-like, shape (...) or scalar, optional
        Rewards of the two responses.
    f : callable, optional
        Convex function of `gpo`, from a float64 torch tensor to one of the same shape, entry by entry.

    Returns
    -------
    LossWeights
        ``(loss, w_chosen, w_rejected)``, float64 arrays of the shape of `chosen_logp`.

    Raises
    ------
    TypeError
        If a hyper-parameter of the loss is missing or another one is given, or an argument is of the wrong kind.
    ValueError
        If the name is unknown, references or lengths are missing where the formula has them, shapes differ, a value
        is out of its range, the result is beyond float64, or a function of yours fails.

    Notes
    -----
    With D = (a - ra) - (b - rb), c = a - ra, r = b - rb and s the sigmoid:

    ======================= ==================================================================
    name (hyper-parameters) loss
    ======================= ==================================================================
    dpo = sigmoid (beta)    -ln s(beta D)
    dpo_label_smoothing     -(1-eps) ln s(beta D) - eps ln s(-beta D); (beta, eps)
    robust                  [-(1-eps) ln s(beta D) + eps ln s(-beta D)] / (1-2 eps); (beta, eps)
    ipo (tau)               (D - 1/(2 tau))^2
    ipo_norm (beta)         (c/n+ - r/n- - 1/(2 beta))^2; the "ipo" of TRL
    slic (delta)            max(0, delta - (a-b))
    hinge (beta)            max(0, 1 - beta D)
    rebel                   (D/eta - R+ + R-)^2; (eta, reward_chosen, reward_rejected)
    gpo (beta, f)           f(beta D)
    simpo (beta, gamma)     -ln s(beta (a/n+ - b/n-) - gamma)
    sigmoid_norm (beta)     -ln s(beta (c/n+ - r/n-))
    cpo (beta, lam)         -ln s(beta (a-b)) - lam a
    dpo_sft (beta, lam)     dpo - lam a
    rpo (beta, alpha)       dpo - alpha a/n+
    dpop (beta, lam)        -ln s(beta (D - lam max(0, ra-a)))
    orpo (lam)              -a/n+ - lam ln s(o+ - o-), o = ln(p/(1-p)), p = exp(logp/n)
    nca_pair (beta)         -ln s(beta c) - ln s(-beta c)/2 - ln s(-beta r)/2
    bco_pair (beta)         -ln s(beta c) - ln s(-beta r)
    sppo_hard (beta)        (c - 1/(2 beta))^2 + (r + 1/(2 beta))^2
    apo_zero (beta)         1 - s(beta c) + s(beta r)
    apo_down (beta)         s(beta c) + 1 - s(beta D)
    ======================= ==================================================================

    At a kink (`slic`, `hinge`, `dpop`) the weight is that of the flat side. Everything is computed in forms that do
    not overflow: logits of 1e4 are fine. Cost: a few passes over the pairs.

    References
    ----------
    Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment: Likelihood Displacement in Direct
    Preference Optimization", arXiv 2410.08847, equation 2 and Propositions 1 and 2; weights of losses that are not
    functions of the margin derived here.

    Examples
    --------
    >>> from rankdiag.preference import loss_weights
    >>> at = loss_weights("dpo", [-42.0], [-50.5], [-40.0], [-47.0], beta=0.1)
    >>> at.loss.round(6).tolist(), at.w_chosen.round(7).tolist()
    ([0.620957], [0.046257])
    >>> import torch
    >>> own = loss_weights(lambda a, b, ra, rb, n, m: torch.relu(1 - (a - b)), [-3.0], [-2.5])
    >>> own.w_chosen.tolist(), own.w_rejected.tolist()
    ([1.0], [1.0])
    """
    given = dict(
        zip(
            HYPER_PARAMETERS,
            (beta, tau, eps, delta, gamma, eta, lam, alpha, reward_chosen, reward_rejected, f),
            strict=True,
        )
    )
    rule = _find(loss)
    _match(loss, rule, {name for name, value in given.items() if value is not None})
    a = _entries(chosen_logp, "chosen_logp")
    b = _entries(rejected_logp, "rejected_logp", a.shape)
    ra, rb = (
        None if value is None else _entries(value, name, a.shape)
        for value, name in ((ref_chosen, "ref_chosen"), (ref_rejected, "ref_rejected"))
    )
    na, nb = (
        None if value is None else _lengths(value, name, a.shape)
        for value, name in ((n_chosen, "n_chosen"), (n_rejected, "n_rejected"))
    )
    if rule is None:
        found = _own(loss, (a, b), (ra, rb, na, nb))
    else:
        _require(loss, rule.reference, {"ref_chosen": ra, "ref_rejected": rb}, "reference log-probabilities")
        _require(loss, rule.lengths, {"n_chosen": na, "n_rejected": nb}, "lengths")
        options: dict[str, Any] = {str(key): value for key, value in given.items()}
        checked = {name: _hyper_parameter(name, options[name], a.shape) for name in rule.parameters}
        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float64 is refused below, by name
            found = rule.formula(Pairs(a, b, ra, rb, na, nb, checked))
    return _finite(loss, found)


def weights_from_options(
    loss: str | Callable[..., Any],
    pairs: tuple[Any, ...],
    *,
    beta: float | None,
    loss_options: Mapping[str, Any] | None,
) -> LossWeights:
    """Return `loss_weights` with its hyper-parameters as a mapping, as reports take them.

    Raises
    ------
    TypeError
        If `loss_options` is no mapping, or holds what is no hyper-parameter of the loss.
    ValueError
        As in `loss_weights`.
    """
    options = {} if loss_options is None else loss_options
    if not isinstance(options, Mapping):
        raise TypeError(f"`loss_options` must be a mapping of hyper-parameters; got {describe(options)}")
    if "beta" in options:
        raise TypeError("`loss_options` must not hold beta; it is an argument of its own, `beta`")
    unknown = [key for key in options if key not in HYPER_PARAMETERS]
    if unknown:
        raise TypeError(
            f"`loss_options` holds {describe(unknown[0])}, no hyper-parameter of {_called(loss)}; {_takes(_find(loss))}"
        )
    return loss_weights(loss, *pairs, beta=beta, **options)


def _find(loss: Any) -> Loss | None:
    """Return the entry of the table; None for a function of the user's."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, or a function; got {describe(loss)}")
        return LOSSES[loss]
    if not callable(loss):
        raise TypeError(f"`loss` must be a name out of {', '.join(LOSSES)}, or a function; got {describe(loss)}")
    return None


def _called(loss: Any) -> str:
    return f"loss {loss!r}" if isinstance(loss, str) else "a loss function of your own"


def _takes(rule: Loss | None) -> str:
    if rule is None:
        return "such a function takes none: fix them inside it"
    return f"it takes exactly {', '.join(rule.parameters)}"


def _match(loss: Any, rule: Loss | None, given: set[str]) -> None:
    """Refuse missing and extra hyper-parameters, naming those of the loss."""
    wanted = () if rule is None else rule.parameters
    missing = [name for name in wanted if name not in given]
    extra = [name for name in HYPER_PARAMETERS if name in given and name not in wanted]
    if not missing and not extra:
        return
    parts = [f"missing `{name}`" for name in missing] + [f"unexpected `{name}`" for name in extra]
    hint = ". The length-normalised ipo with beta is 'ipo_norm'" if loss == "ipo" and "beta" in extra else ""
    raise TypeError(f"`loss`: {_called(loss)} has {', '.join(parts)}; {_takes(rule)}{hint}")


def _require(loss: Any, needed: bool, values: Mapping[str, Any], what: str) -> None:
    missing = [f"`{name}`" for name, value in values.items() if value is None] if needed else []
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given: loss {loss!r} needs the {what} of both responses")


def _entries(value: Any, name: str, shape: tuple[int, ...] | None = None, *, scalar: bool = False) -> Floats:
    array: Floats = as_float64(value, name, expected="one number for each pair")
    if shape is not None and array.shape != shape and not (scalar and array.ndim == 0):
        raise ValueError(f"`{name}` must have the shape {shape} of `chosen_logp`; got {array.shape}")
    return array


def _lengths(value: Any, name: str, shape: tuple[int, ...]) -> Floats:
    array = _entries(value, name, shape, scalar=True)
    if (array < 1).any() or (array != np.floor(array)).any():
        wrong = array[(array < 1) | (array != np.floor(array))]
        raise ValueError(f"`{name}` must hold whole numbers of tokens >= 1; got {float(wrong.flat[0])!r}")
    return array


def _hyper_parameter(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    if name in {"reward_chosen", "reward_rejected"}:
        return _entries(value, name, shape, scalar=True)
    if name == "f":
        if not callable(value):
            raise TypeError(f"`f` must be a function of a torch tensor; got {describe(value)}")
        return value
    if name == "eps":
        return real(value, name, low=0.0, high=0.5, high_open=True)
    if name == "gamma":
        return real(value, name)
    return real(value, name, low=0.0, low_open=name in {"beta", "tau", "eta"})


def _own(loss: Any, pair: tuple[Floats, Floats], rest: tuple[Floats | None, ...]) -> Triple:
    """Differentiate a loss function of the user's."""
    import torch

    shape = pair[0].shape
    fixed = [
        None if value is None else torch.tensor(np.broadcast_to(value, shape).copy(), device="cpu") for value in rest
    ]
    values, (da, db) = by_autograd(lambda a, b: loss(a, b, *fixed), pair, "loss")
    return values, -da, db


def _finite(loss: Any, found: Triple) -> LossWeights:
    arrays = [np.asarray(part, dtype=np.float64) for part in found]
    for part in arrays:
        bad = ~np.isfinite(part)
        if bad.any():
            raise ValueError(
                f"pair {int(bad.argmax())}: `loss` or its weight is beyond float64 ({_called(loss)}); the "
                "log-probabilities or a hyper-parameter are too large"
            )
    return LossWeights(*arrays)

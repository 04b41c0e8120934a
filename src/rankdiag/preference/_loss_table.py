"""The table of preference losses: each in closed form, with its two weights, free of overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._validate import describe

__all__ = ["LOSSES", "Loss", "Pairs", "Triple", "by_autograd"]

Floats = NDArray[np.float64]
Triple = tuple[Floats, Floats, Floats]
_ROUNDING = 1e-3  # nats by which rounding may lift a log-probability above 0
_LN_HALF = -0.6931471805599453


def by_autograd(function: Callable[..., Any], arrays: tuple[Floats, ...], name: str) -> tuple[Floats, list[Floats]]:
    """Return a function's values, one for each entry, and its slope in each argument."""
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        leaves = [torch.tensor(array, dtype=torch.float64, device="cpu", requires_grad=True) for array in arrays]
        try:
            values = function(*leaves)
        except Exception as error:
            raise ValueError(f"`{name}` failed on its tensors ({type(error).__name__}: {error})") from error
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"`{name}` must return a torch tensor, one value for each pair; got {describe(values)}")
        if values.shape != leaves[0].shape:
            raise ValueError(
                f"`{name}` must return one value for each pair, of shape {tuple(leaves[0].shape)}; got "
                f"{tuple(values.shape)}. Leave the mean out"
            )
        if not values.requires_grad:
            raise ValueError(
                f"`{name}` must compute its value from its tensors by torch operations; got one without a gradient"
            )
        slopes = torch.autograd.grad(values.sum(), leaves, allow_unused=True)
    return (
        as_float64(values, f"the value of {name}", finite=False).copy(),
        [
            np.zeros_like(arrays[0]) if slope is None else as_float64(slope, f"the slope of {name}", finite=False)
            for slope in slopes
        ],
    )


@dataclass(frozen=True, slots=True)
class Pairs:
    """What the formulas read: log-probabilities, references, lengths, and the hyper-parameters of the loss."""

    a: Floats
    b: Floats
    ra: Any
    rb: Any
    na: Any
    nb: Any
    p: Mapping[str, Any]

    @property
    def c(self) -> Floats:
        out: Floats = self.a - self.ra
        return out

    @property
    def r(self) -> Floats:
        out: Floats = self.b - self.rb
        return out

    @property
    def d(self) -> Floats:
        return self.c - self.r


def _s(x: Floats) -> Floats:
    from scipy.special import expit

    out: Floats = expit(x)
    return out


def _minus_ln_s(x: Floats) -> Floats:
    """-ln s(x) = ln(1 + exp(-x)), exact on both sides."""
    return np.logaddexp(0.0, -x)


def _margin(loss: Floats, weight: Floats) -> Triple:
    return loss, weight, weight.copy()


def _dpo(x: Pairs) -> Triple:
    u = x.p["beta"] * x.d
    return _margin(_minus_ln_s(u), x.p["beta"] * _s(-u))


def _dpo_label_smoothing(x: Pairs) -> Triple:
    e, beta = x.p["eps"], x.p["beta"]
    u = beta * x.d
    return _margin((1 - e) * _minus_ln_s(u) + e * _minus_ln_s(-u), beta * ((1 - e) * _s(-u) - e * _s(u)))


def _robust(x: Pairs) -> Triple:
    e, beta = x.p["eps"], x.p["beta"]
    u = beta * x.d
    scale = 1 - 2 * e
    return _margin(
        ((1 - e) * _minus_ln_s(u) - e * _minus_ln_s(-u)) / scale, beta * ((1 - e) * _s(-u) + e * _s(u)) / scale
    )


def _ipo(x: Pairs) -> Triple:
    q = x.d - 1 / (2 * x.p["tau"])
    return _margin(q * q, -2 * q)


def _ipo_norm(x: Pairs) -> Triple:
    q = x.c / x.na - x.r / x.nb - 1 / (2 * x.p["beta"])
    return q * q, -2 * q / x.na, -2 * q / x.nb


def _slic(x: Pairs) -> Triple:
    left = x.p["delta"] - (x.a - x.b)
    return _margin(np.maximum(0.0, left), (left > 0).astype(np.float64))


def _hinge(x: Pairs) -> Triple:
    left = 1 - x.p["beta"] * x.d
    return _margin(np.maximum(0.0, left), x.p["beta"] * (left > 0).astype(np.float64))


def _rebel(x: Pairs) -> Triple:
    q = x.d / x.p["eta"] - (x.p["reward_chosen"] - x.p["reward_rejected"])
    return _margin(q * q, -2 * q / x.p["eta"])


def _gpo(x: Pairs) -> Triple:
    u = x.p["beta"] * x.d
    loss, (slope,) = by_autograd(lambda t: x.p["f"](t), (u,), "f")
    return _margin(loss, -x.p["beta"] * slope)


def _by_length(x: Pairs, u: Floats) -> Triple:
    push = x.p["beta"] * _s(-u)
    return _minus_ln_s(u), push / x.na, push / x.nb


def _simpo(x: Pairs) -> Triple:
    return _by_length(x, x.p["beta"] * (x.a / x.na - x.b / x.nb) - x.p["gamma"])


def _sigmoid_norm(x: Pairs) -> Triple:
    return _by_length(x, x.p["beta"] * (x.c / x.na - x.r / x.nb))


def _cpo(x: Pairs) -> Triple:
    u = x.p["beta"] * (x.a - x.b)
    push = x.p["beta"] * _s(-u)
    return _minus_ln_s(u) - x.p["lam"] * x.a, push + x.p["lam"], push


def _dpo_sft(x: Pairs) -> Triple:
    loss, up, down = _dpo(x)
    return loss - x.p["lam"] * x.a, up + x.p["lam"], down


def _rpo(x: Pairs) -> Triple:
    loss, up, down = _dpo(x)
    return loss - x.p["alpha"] * x.a / x.na, up + x.p["alpha"] / x.na, down


def _dpop(x: Pairs) -> Triple:
    beta, lam = x.p["beta"], x.p["lam"]
    v = beta * (x.d - lam * np.maximum(0.0, x.ra - x.a))
    push = beta * _s(-v)
    return _minus_ln_s(v), push * (1 + lam * (x.a < x.ra)), push


def _orpo(x: Pairs) -> Triple:
    # With p = exp(logp/n), q = 1-p and o = ln(p/q): s(-(o+ - o-)) = p- q+ / (p+ q- + p- q+), so the factor 1/(1-p+)
    # of the weight cancels and a chosen response of probability 1 needs no special case.
    a, b = x.a / x.na, x.b / x.nb
    if (a > _ROUNDING).any():
        raise ValueError(
            f"`chosen_logp` must not be positive, a log-probability is not; the largest is {x.a.max():.6g}"
        )
    if (b >= 0).any():
        raise ValueError(f"`rejected_logp` must be negative, else 'orpo' is infinite; the largest is {x.b.max():.6g}")
    a = np.minimum(a, 0.0)
    ln_qa, ln_qb = _ln_one_minus_exp(a), _ln_one_minus_exp(b)
    both = np.logaddexp(a + ln_qb, b + ln_qa)
    lam = x.p["lam"]
    up = (1 + lam * np.exp(b - both)) / x.na
    down = lam * np.exp(b + ln_qa - both - ln_qb) / x.nb
    return -a + lam * _minus_ln_s(a - ln_qa - (b - ln_qb)), up, down


def _ln_one_minus_exp(x: Floats) -> Floats:
    """ln(1 - exp(x)) for x <= 0, by whichever of two forms keeps its digits; -inf at 0."""
    with np.errstate(divide="ignore"):
        return np.where(x > _LN_HALF, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def _nca_pair(x: Pairs) -> Triple:
    beta = x.p["beta"]
    c, r = beta * x.c, beta * x.r
    loss = _minus_ln_s(c) + 0.5 * _minus_ln_s(-c) + 0.5 * _minus_ln_s(-r)
    return loss, beta * (_s(-c) - 0.5 * _s(c)), 0.5 * beta * _s(r)


def _bco_pair(x: Pairs) -> Triple:
    beta = x.p["beta"]
    c, r = beta * x.c, beta * x.r
    return _minus_ln_s(c) + _minus_ln_s(-r), beta * _s(-c), beta * _s(r)


def _sppo_hard(x: Pairs) -> Triple:
    half = 1 / (2 * x.p["beta"])
    up, down = x.c - half, x.r + half
    return up * up + down * down, -2 * up, 2 * down


def _apo_zero(x: Pairs) -> Triple:
    beta = x.p["beta"]
    c, r = beta * x.c, beta * x.r
    return _s(-c) + _s(r), beta * _s(c) * _s(-c), beta * _s(r) * _s(-r)


def _apo_down(x: Pairs) -> Triple:
    beta = x.p["beta"]
    c, u = beta * x.c, beta * x.d
    down = beta * _s(u) * _s(-u)
    return _s(c) + _s(-u), down - beta * _s(c) * _s(-c), down


@dataclass(frozen=True, slots=True)
class Loss:
    """One line of the table: its formula, exactly its hyper-parameters, and whether it reads references and lengths."""

    formula: Callable[[Pairs], Triple]
    parameters: tuple[str, ...]
    reference: bool = True
    lengths: bool = False


LOSSES: dict[str, Loss] = {
    "dpo": Loss(_dpo, ("beta",)),
    "sigmoid": Loss(_dpo, ("beta",)),
    "dpo_label_smoothing": Loss(_dpo_label_smoothing, ("beta", "eps")),
    "robust": Loss(_robust, ("beta", "eps")),
    "ipo": Loss(_ipo, ("tau",)),
    "ipo_norm": Loss(_ipo_norm, ("beta",), lengths=True),
    "slic": Loss(_slic, ("delta",), reference=False),
    "hinge": Loss(_hinge, ("beta",)),
    "rebel": Loss(_rebel, ("eta", "reward_chosen", "reward_rejected")),
    "gpo": Loss(_gpo, ("beta", "f")),
    "simpo": Loss(_simpo, ("beta", "gamma"), reference=False, lengths=True),
    "sigmoid_norm": Loss(_sigmoid_norm, ("beta",), lengths=True),
    "cpo": Loss(_cpo, ("beta", "lam"), reference=False),
    "dpo_sft": Loss(_dpo_sft, ("beta", "lam")),
    "rpo": Loss(_rpo, ("beta", "alpha"), lengths=True),
    "dpop": Loss(_dpop, ("beta", "lam")),
    "orpo": Loss(_orpo, ("lam",), reference=False, lengths=True),
    "nca_pair": Loss(_nca_pair, ("beta",)),
    "bco_pair": Loss(_bco_pair, ("beta",)),
    "sppo_hard": Loss(_sppo_hard, ("beta",)),
    "apo_zero": Loss(_apo_zero, ("beta",)),
    "apo_down": Loss(_apo_down, ("beta",)),
}

"""Slow and plain versions of the likelihood measurements, from their definitions; nothing of the package is used.

`decimal_loss` and `decimal_weights` know each loss in 250 digits and differentiate it by central differences;
`torch_loss` writes the same table for autograd.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext

import numpy as np

DIGITS = 250
STEP = Decimal(10) ** -60
PARAMETERS = {
    "dpo": ("beta",),
    "sigmoid": ("beta",),
    "dpo_label_smoothing": ("beta", "eps"),
    "robust": ("beta", "eps"),
    "ipo": ("tau",),
    "ipo_norm": ("beta",),
    "slic": ("delta",),
    "hinge": ("beta",),
    "rebel": ("eta", "reward_chosen", "reward_rejected"),
    "gpo": ("beta", "f"),
    "simpo": ("beta", "gamma"),
    "sigmoid_norm": ("beta",),
    "cpo": ("beta", "lam"),
    "dpo_sft": ("beta", "lam"),
    "rpo": ("beta", "alpha"),
    "dpop": ("beta", "lam"),
    "orpo": ("lam",),
    "nca_pair": ("beta",),
    "bco_pair": ("beta",),
    "sppo_hard": ("beta",),
    "apo_zero": ("beta",),
    "apo_down": ("beta",),
}
# Losses of the margin a - b alone: both weights are the same.
OF_THE_MARGIN = (
    "dpo", "sigmoid", "dpo_label_smoothing", "robust", "ipo", "slic", "hinge", "rebel", "gpo",
)  # fmt: skip
WITHOUT_REFERENCE = ("slic", "simpo", "cpo", "orpo")
WITH_LENGTHS = ("ipo_norm", "simpo", "sigmoid_norm", "rpo", "orpo")


def formula(name, ops, a, b, ra, rb, n, m, p):
    """Return one loss by the operations given: `ops` has exp, ln, s (sigmoid), ln_s and relu."""
    d = (a - ra) - (b - rb)
    c, r = a - ra, b - rb

    def odds(logp):
        return logp - ops.ln_one_minus_exp(logp)

    if name in {"dpo", "sigmoid"}:
        return -ops.ln_s(p["beta"] * d)
    if name == "dpo_label_smoothing":
        return -(1 - p["eps"]) * ops.ln_s(p["beta"] * d) - p["eps"] * ops.ln_s(-p["beta"] * d)
    if name == "robust":
        return (-(1 - p["eps"]) * ops.ln_s(p["beta"] * d) + p["eps"] * ops.ln_s(-p["beta"] * d)) / (1 - 2 * p["eps"])
    if name == "ipo":
        return (d - 1 / (2 * p["tau"])) ** 2
    if name == "ipo_norm":
        return (c / n - r / m - 1 / (2 * p["beta"])) ** 2
    if name == "slic":
        return ops.relu(p["delta"] - (a - b))
    if name == "hinge":
        return ops.relu(1 - p["beta"] * d)
    if name == "rebel":
        return (d / p["eta"] - p["reward_chosen"] + p["reward_rejected"]) ** 2
    if name == "gpo":
        return p["f"](p["beta"] * d)
    if name == "simpo":
        return -ops.ln_s(p["beta"] * (a / n - b / m) - p["gamma"])
    if name == "sigmoid_norm":
        return -ops.ln_s(p["beta"] * (c / n - r / m))
    if name == "cpo":
        return -ops.ln_s(p["beta"] * (a - b)) - p["lam"] * a
    if name == "dpo_sft":
        return -ops.ln_s(p["beta"] * d) - p["lam"] * a
    if name == "rpo":
        return -ops.ln_s(p["beta"] * d) - p["alpha"] * a / n
    if name == "dpop":
        return -ops.ln_s(p["beta"] * (d - p["lam"] * ops.relu(ra - a)))
    if name == "orpo":
        return -a / n - p["lam"] * ops.ln_s(odds(a / n) - odds(b / m))
    bc, br = p["beta"] * c, p["beta"] * r
    if name == "nca_pair":
        return -ops.ln_s(bc) - (ops.ln_s(-bc) + ops.ln_s(-br)) / 2
    if name == "bco_pair":
        return -ops.ln_s(bc) - ops.ln_s(-br)
    if name == "sppo_hard":
        return (c - 1 / (2 * p["beta"])) ** 2 + (r + 1 / (2 * p["beta"])) ** 2
    if name == "apo_zero":
        return 1 - ops.s(bc) + ops.s(br)
    assert name == "apo_down"
    return ops.s(bc) + 1 - ops.s(p["beta"] * d)


class DecimalOps:
    """Plain formulas on numbers of 250 digits."""

    @staticmethod
    def ln_s(x):
        return -(1 + (-x).exp()).ln()

    @staticmethod
    def s(x):
        return 1 / (1 + (-x).exp())

    @staticmethod
    def relu(x):
        return max(x, Decimal(0))

    @staticmethod
    def ln_one_minus_exp(x):
        return (1 - x.exp()).ln()


def decimal_weights(name, a, b, ra, rb, n, m, p):
    """Return (loss, -dL/da, dL/db) of one pair as floats."""
    with localcontext(Context(prec=DIGITS, Emin=-999999, Emax=999999)):
        a, b, ra, rb, n, m = (Decimal(x) for x in (a, b, ra, rb, n, m))
        p = {key: value if callable(value) else Decimal(value) for key, value in p.items()}

        def at(da, db):
            return formula(name, DecimalOps, a + da, b + db, ra, rb, n, m, p)

        slope_a = (at(STEP, 0) - at(-STEP, 0)) / (2 * STEP)
        slope_b = (at(0, STEP) - at(0, -STEP)) / (2 * STEP)
        return float(at(0, 0)), -float(slope_a), float(slope_b)


def torch_weights(name, a, b, ra, rb, n, m, p):
    """Return (loss, -dL/da, dL/db) of many pairs by autograd in float64."""
    import torch

    class TorchOps:
        ln_s = staticmethod(torch.nn.functional.logsigmoid)
        s = staticmethod(torch.sigmoid)
        relu = staticmethod(torch.relu)

        @staticmethod
        def ln_one_minus_exp(x):
            return torch.log(-torch.expm1(x))

    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b))
    ra, rb, n, m = (torch.tensor(x, dtype=torch.float64) for x in (ra, rb, n, m))
    p = {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in p.items()}
    values = formula(name, TorchOps, a, b, ra, rb, n, m, p)
    da, db = torch.autograd.grad(values.sum(), (a, b), allow_unused=True)
    return values.detach().numpy(), -da.numpy(), db.numpy()


def max_decrease(run):
    """Scan every pair s <= t row by row, t outside: the definition, in quadratic time."""
    best = (0, 0, 0.0)
    for t in range(len(run)):
        for s in range(t + 1):
            if run[s] - run[t] > best[2]:
                best = (s, t, run[s] - run[t])
    return best


def report(before, after, ref):
    """Return the dataset fields of a displacement report of lists of (a, b, n+, n-), pair by pair."""
    deltas = [(y[0] - x[0], y[1] - x[1]) for x, y in zip(before, after, strict=True)]
    size = len(deltas)
    up, down = [d[0] for d in deltas], [d[1] for d in deltas]
    implicit = [(y[0] - r[0]) - (y[1] - r[1]) > 0 for y, r in zip(after, ref, strict=True)]
    return {
        "mean_delta_chosen": math.fsum(up) / size,
        "mean_delta_rejected": math.fsum(down) / size,
        "mean_per_token_delta_chosen": math.fsum(d / x[2] for d, x in zip(up, before, strict=True)) / size,
        "displaced_fraction": sum(d < 0 for d in up) / size,
        "both_fell_fraction": sum(d < 0 and e < 0 for d, e in deltas) / size,
        "both_rose_fraction": sum(d > 0 and e > 0 for d, e in deltas) / size,
        "accuracy_before": sum(x[0] > x[1] for x in before) / size,
        "accuracy_after": sum(x[0] > x[1] for x in after) / size,
        "implicit_reward_accuracy": sum(implicit) / size,
        "displacement_ratio": [-d / (d - e) if abs(d - e) >= 1e-9 else math.nan for d, e in deltas],
    }


def mass_shift(before, after):
    """Return (probability changes, total variation, KL(before || after)) entry by entry."""
    change = [math.exp(y) - math.exp(x) for x, y in zip(before, after, strict=True)]
    kl = math.fsum(math.exp(x) * (x - y) for x, y in zip(before, after, strict=True) if x > -math.inf)
    return change, math.fsum(abs(c) for c in change) / 2, kl

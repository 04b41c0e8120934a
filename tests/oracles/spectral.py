"""Every matrix reading from its definition, slowly, in extended precision; shares nothing with the library.

`singular_values` is a one-sided Jacobi iteration on long doubles (Hestenes 1958): on x86 its error is a few
1e-19 of the largest value, a thousand times below what a float64 decomposition can reach, so it can judge one.
"""

from __future__ import annotations

import math

import numpy as np

LONG = np.longdouble
EXTENDED = bool(np.finfo(LONG).eps < 1e-18)
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _rounds(n):
    """All pairs of n (even) players, as n - 1 rounds of disjoint pairs."""
    order = list(range(n))
    rounds = []
    for _ in range(n - 1):
        rounds.append((np.array(order[: n // 2]), np.array(order[: n // 2 - 1 : -1])))
        order = [order[0], order[-1], *order[1:-1]]
    return rounds


def singular_values(matrix):
    """Singular values of one small real or complex matrix as long doubles, descending."""
    a = np.asarray(matrix)
    if np.iscomplexobj(a):  # every value of the real form appears twice
        return singular_values(np.block([[a.real, -a.imag], [a.imag, a.real]]))[::2]
    a = a.astype(LONG)
    if a.shape[0] < a.shape[1]:
        a = a.T
    k = a.shape[1]
    scale = np.abs(a).max()
    if scale == 0:
        return np.zeros(k, LONG)
    a = a / scale
    if k % 2:
        a = np.hstack([a, np.zeros((a.shape[0], 1), LONG)])
    rounds = _rounds(a.shape[1])
    tiny = (LONG(1e-22) * np.sqrt((a * a).sum())) ** 2
    eps = np.finfo(LONG).eps
    for _ in range(60):
        moved = False
        for left, right in rounds:
            x, y = a[:, left], a[:, right]
            alpha, beta, gamma = (x * x).sum(0), (y * y).sum(0), (x * y).sum(0)
            turn = (np.abs(gamma) > 2 * eps * np.sqrt(alpha * beta)) & (np.minimum(alpha, beta) > tiny)
            if not turn.any():
                continue
            moved = True
            zeta = np.where(turn, (beta - alpha) / (2 * np.where(turn, gamma, LONG(1))), LONG(0))
            t = np.where(zeta >= 0, LONG(1), LONG(-1)) / (np.abs(zeta) + np.sqrt(1 + zeta * zeta))
            c = 1 / np.sqrt(1 + t * t)
            c, s = np.where(turn, c, LONG(1)), np.where(turn, c * t, LONG(0))
            a[:, left], a[:, right] = c * x - s * y, s * x + c * y
        if not moved:
            break
    found = np.sqrt((a * a).sum(0))
    return np.sort(found)[::-1][:k] * scale


def probabilities(values, weights="sigma"):
    """Values (or their squares) over their sum; exact zeros dropped, an empty list for a zero matrix."""
    kept = [LONG(v) for v in values if v != 0]
    if not kept:
        return []
    top = max(kept)
    parts = [(v / top) ** (2 if weights == "energy" else 1) for v in kept]
    total = sum(parts)
    return [part / total for part in parts]


def entropy(values, weights="sigma", order=1.0):
    """Renyi entropy in nats; 0 for a zero matrix."""
    p = [x for x in probabilities(values, weights) if x > 0]
    if not p:
        return 0.0
    if order == 1:
        return float(-sum(x * np.log(x) for x in p))
    if order == 0:
        return math.log(sum(1 for v in values if v != 0))
    if math.isinf(order):
        return float(-np.log(max(p)))
    return float(np.log(sum(x ** LONG(order) for x in p)) / (1 - LONG(order)))


def effective_rank(values, weights="sigma"):
    return math.exp(entropy(values, weights)) if any(v != 0 for v in values) else 0.0


def participation_ratio(values):
    q = probabilities(values, "energy")
    return float(1 / sum(x * x for x in q)) if q else 0.0


def stable_rank(values):
    q = probabilities(values, "energy")
    return float(1 / max(q)) if q else 0.0


def nuclear_ratio(values):
    p = probabilities(values, "sigma")
    return float(1 / max(p)) if p else 0.0


def schatten_norm(values, p):
    p = {"nuc": 1.0, "fro": 2.0, "spec": math.inf}.get(p, p)
    top = LONG(max(values))
    if top == 0:
        return 0.0
    if math.isinf(p):
        return float(top)
    return float(top * sum((LONG(v) / top) ** LONG(p) for v in values) ** (1 / LONG(p)))


def default_rtol(shape, dtype):
    """The rule of numpy with the eps of the input; 16-bit floats take eps alone; integers count as float64."""
    if dtype in {"float16", "bfloat16"}:
        return EPS[dtype]
    return max(shape) * EPS.get(dtype, 2.0**-52)


def numerical_rank(values, shape, dtype="float64", rtol=None, atol=None):
    rtol = default_rtol(shape, dtype) if rtol is None else rtol
    bound = max(LONG(0 if atol is None else atol), LONG(rtol) * LONG(max(values)))
    return sum(1 for v in values if LONG(v) > bound)


def distance_to_rank(values, rank):
    return tail(values, rank)


def tail(values, rank):
    rest = sorted(LONG(v) for v in values)[: len(values) - rank]
    top = max(rest, default=LONG(0))
    if top == 0:
        return LONG(0)
    return top * np.sqrt(sum((v / top) ** 2 for v in rest))


def eps_rank(values, eps):
    if eps >= 1:
        return 0
    whole = tail(values, 0)
    for rank in range(len(values) + 1):
        if tail(values, rank) <= LONG(eps) * whole:
            return rank
    raise RuntimeError("unreachable: the tail beyond the last value is 0")


def certified_rank(values, error_norm, slack):
    return sum(1 for v in values if LONG(v) > LONG(error_norm) + LONG(slack))


def error_bound_range(method, shape, top, eps=2.0**-52):
    """Between which values the stated bound of a method must lie, absolute.

    The specification says 8 max(m, n) eps s_1, and sqrt(min(m, n) eps) s_1 for a Gram. Both were measured to be
    too small: LAPACK stops at a fixed tolerance, so the error on a clustered spectrum reaches 64 eps s_1 at every
    size from 3 to 12; and the rounding of a Gram over 20,000 rows reached 2.6 times the second. So a floor of 16
    under the size is accepted, and the longer side in place of the shorter one.
    """
    if method in {"svd", "qr_svd"}:
        return 8 * max(shape) * eps * top, 16 * max(*shape, 16) * eps * top
    return math.sqrt(min(shape) * eps) * top, 2 * math.sqrt(max(*shape, 4) * eps) * top


def error_ratio(values, bound, truth):
    """Largest error over the bound; infinite where a bound of 0 is missed."""
    error = np.abs(np.asarray(values).astype(LONG) - truth).max()
    if error == 0:
        return 0.0
    return float(error / LONG(bound)) if bound > 0 else math.inf


def attempt(call):
    """What a call returns and "", or None and the text of its ValueError."""
    try:
        return call(), ""
    except ValueError as refusal:
        return None, str(refusal)


# --- matrices whose singular values are known exactly ------------------------------------------------------


def hilbert(n):
    return np.array([[1.0 / (i + j + 1) for j in range(n)] for i in range(n)])


def hadamard(n):
    """Entries +-1, all n singular values sqrt(n); n a power of two."""
    h = np.array([[1.0]])
    while h.shape[0] < n:
        h = np.block([[h, h], [h, -h]])
    return h


def integer_householder(v):
    """The integer matrix |v|^2 I - 2 v v^T = |v|^2 times a reflection."""
    v = np.asarray(v, dtype=float)
    return (v @ v) * np.eye(v.size) - 2 * np.outer(v, v)


def integer_similar(values, left, right):
    """An exactly representable matrix with singular values |left|^2 |right|^2 values, for small integers."""
    m, n = len(left), len(right)
    middle = np.zeros((m, n))
    for i, v in enumerate(values):
        middle[i, i] = v
    factor = float(np.dot(left, left) * np.dot(right, right))
    return integer_householder(left) @ middle @ integer_householder(right), sorted(v * factor for v in values)[::-1]


def orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def with_spectrum(rng, m, n, values):
    """A random m x n matrix with nearly these singular values (to rounding of its entries)."""
    values = np.asarray(values, dtype=float)
    return (orthogonal(rng, m)[:, : values.size] * values) @ orthogonal(rng, n)[: values.size]

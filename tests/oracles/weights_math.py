"""Tail fits, random-matrix baselines and convolution operators from their definitions, without the library."""

from __future__ import annotations

import math

import numpy as np

LONG = np.longdouble


def tail_fits(evals):
    """Every cut-off of the direct loop, in extended precision: list of (x_min, alpha, D, n_tail), smallest first."""
    x = np.sort(np.asarray(evals, dtype=LONG))
    x = x[x > 0]
    fits = []
    for i in range(x.size - 1):
        if i > 0 and x[i] == x[i - 1]:
            continue
        ratio = x[i:] / x[i]
        # log1p of the exact difference where the quotient would round the distance of close values away
        logs = np.where(ratio < 2, np.log1p((x[i:] - x[i]) / x[i]), np.log(ratio))
        total = logs.sum()
        if total == 0:
            continue
        n = ratio.size
        slope = n / total
        fitted = 1 - np.exp(-slope * logs)
        distance = np.abs(fitted - np.arange(n, dtype=LONG) / n).max()
        fits.append((float(x[i]), float(1 + slope), float(distance), n))
    return fits


def plain_tail_loop(evals):
    """The loop that everyone writes first, in float64, as a yardstick of speed: (alpha, x_min, D, n_tail)."""
    x = np.sort(evals)
    logs = np.log(x)
    best = (math.inf, 0.0, 0.0, 0)
    for i in range(x.size - 1):
        n = x.size - i
        alpha = 1 + n / (logs[i:].sum() - n * logs[i])
        distance = np.abs(1 - (x[i:] / x[i]) ** (1 - alpha) - np.arange(n) / n).max()
        if distance < best[0]:
            best = (distance, alpha, x[i], n)
    return best[1], best[2], best[0], best[3]


def mp_means(m, n):
    """Means of powers and logarithms of t = s / sqrt(max(m, n)) over the Marchenko-Pastur law, by quad."""
    from scipy.integrate import quad

    y = min(m, n) / max(m, n)
    low, high = 1 - math.sqrt(y), 1 + math.sqrt(y)
    middle = 0.5 * (low + high)

    def mean(function):
        def smooth(t):  # the square roots at both ends are handed to quad as algebraic weights
            return function(t) * math.sqrt((high + t) * (low + t)) / (math.pi * y * t)

        if low == 0:

            def flat(t):
                return function(t) * math.sqrt((high - t) * (high + t)) / math.pi if t > 0 else 0.0

            return quad(flat, 0, high, epsabs=1e-13, epsrel=1e-13, limit=500)[0]
        left = quad(
            lambda t: smooth(t) * math.sqrt(high - t), low, middle, weight="alg", wvar=(0.5, 0), epsabs=1e-13, limit=500
        )[0]
        right = quad(
            lambda t: smooth(t) * math.sqrt(t - low), middle, high, weight="alg", wvar=(0, 0.5), epsabs=1e-13, limit=500
        )[0]
        return left + right

    return {
        "1": mean(lambda t: 1.0),
        "t": mean(lambda t: t),
        "t log t": mean(lambda t: t * math.log(t) if t > 0 else 0.0),
        "t2": mean(lambda t: t * t),
        "t2 log t2": mean(lambda t: 2 * t * t * math.log(t) if t > 0 else 0.0),
        "t4": mean(lambda t: t**4),
    }


def mp_effective_rank_series(m, n, terms=20000):
    """Sigma effective rank of the limit law from its moments E t^(2s) = 2F1(-s, 1 - s; 2; y) around s = 1/2."""
    y = min(m, n) / max(m, n)
    s = 0.5
    term, total = 1.0, 1.0
    log_slope, slope = 0.0, 0.0  # derivative of the logarithm of a term in s, and of the sum
    for k in range(terms):
        term *= (k - s) * (k + 1 - s) / ((k + 2) * (k + 1)) * y
        log_slope += -1 / (k - s) - 1 / (k + 1 - s)
        total += term
        slope += term * log_slope
    mean, mean_log = total, slope / 2  # d/ds E t^(2s) = 2 E t^(2s) log t
    return min(m, n) * mean * math.exp(-mean_log / mean)


def circular_convolution_matrix(weight, height, width):
    """Dense matrix of a stride-1 convolution with circular padding, kernel corner at the pixel, entry by entry."""
    out, inner, kh, kw = weight.shape
    dense = np.zeros((out, height, width, inner, height, width))
    for y in range(height):
        for x in range(width):
            for i in range(kh):
                for j in range(kw):
                    dense[:, y, x, :, (y + i) % height, (x + j) % width] += weight[:, :, i, j]
    return dense.reshape(out * height * width, inner * height * width)


def entropy_rank(values):
    """exp of the Shannon entropy of non-negative values normalised to sum 1."""
    p = np.asarray(values, dtype=np.float64)
    p = p[p > 0] / p.sum()
    return math.exp(-(p * np.log(p)).sum())

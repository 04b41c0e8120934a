"""Policy-gradient dynamics as plainly as they can be written: one output at a time, tiny fixed steps."""

from __future__ import annotations

import math

import numpy as np


def probabilities(z):
    top = max(z)
    weights = [math.exp(v - top) for v in z]
    return [w / sum(weights) for w in weights]


def mean(p, r):
    return sum(a * b for a, b in zip(p, r, strict=True))


def velocity(z, r, kernel=None, kl=0.0, ref=None):
    p = probabilities(z)
    reward = [r[i] - (kl * math.log(p[i] / ref[i]) if kl else 0.0) for i in range(len(z))]
    v = mean(p, reward)
    pull = [p[i] * (reward[i] - v) for i in range(len(z))]
    if kernel is None:
        return np.array(pull)
    return np.array([sum(kernel[i][j] * pull[j] for j in range(len(z))) for i in range(len(z))])


def rk4(p0, r, end, steps, **options):
    z, h = np.log(np.array(p0, dtype=float)), end / steps
    for _ in range(steps):
        a = velocity(z, r, **options)
        b = velocity(z + h / 2 * a, r, **options)
        c = velocity(z + h / 2 * b, r, **options)
        d = velocity(z + h * c, r, **options)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
    return np.array(probabilities(z))


def ascend(p0, r, lr, steps, **options):
    z = np.log(np.array(p0, dtype=float))
    for _ in range(steps):
        z = z + lr * velocity(z, r, **options)
    return np.array(probabilities(z))


def rate_by_difference(p0, train, watched, kernel=None, h=1e-5):
    """Derivative in time of the mean of `watched`, by a step forward and one back."""
    z = np.log(np.array(p0, dtype=float))
    v = velocity(z, train, kernel)
    ends = [mean(probabilities(z + s * h * v), watched) for s in (1, -1)]
    return (ends[0] - ends[1]) / (2 * h)


def log_rates_by_difference(p0, train, kernel=None, h=1e-5):
    z = np.log(np.array(p0, dtype=float))
    v = velocity(z, train, kernel)
    return (np.log(probabilities(z + h * v)) - np.log(probabilities(z - h * v))) / (2 * h)

"""Exact policies from their definitions: plain softmax, differences of V, sums over quadruples, small fixed steps."""

from __future__ import annotations

import itertools
import math

import numpy as np


def log_softmax(z):
    top = max(z)
    total = math.log(math.fsum(math.exp(v - top) for v in z))
    return [v - top - total for v in z]


def value(log_probs, reward):
    return math.fsum(math.exp(a) * b for a, b in zip(log_probs, reward, strict=True))


def variance(log_probs, reward):
    mean = value(log_probs, reward)
    return math.fsum(math.exp(a) * (b - mean) ** 2 for a, b in zip(log_probs, reward, strict=True))


def slope(function, point, h=1e-5):
    """Gradient of a scalar function by differences of fourth order."""
    point = np.array(point, dtype=float)
    found = []
    for place in range(point.size):
        step = np.zeros(point.size)
        step[place] = h
        near = function(point + step) - function(point - step)
        far = function(point + 2 * step) - function(point - 2 * step)
        found.append((8 * near - far) / (12 * h))
    return np.array(found)


def tabular(z):
    return log_softmax(list(z))


def log_linear(features, offset, temperature):
    def law(weights):
        return log_softmax(
            [sum(f * w for f, w in zip(row, weights, strict=True)) / temperature + b
             for row, b in zip(features, offset, strict=True)]
        )  # fmt: skip

    return law


def autoregressive(logits, vocab, length):
    """Ln pi of all sequences in lexicographic order, `logits(theta, prefix)` on plain numbers."""

    def law(theta):
        found = []
        for sequence in itertools.product(range(vocab), repeat=length):
            total = 0.0
            for place, token in enumerate(sequence):
                total += log_softmax(list(logits(theta, sequence[:place])))[token]
            found.append(total)
        return found

    return law


def penalised(law, reward, weight, reference):
    """Return theta -> V - weight KL(pi || reference)."""

    def objective(theta):
        log_probs = law(theta)
        gap = math.fsum(math.exp(a) * (a - math.log(b)) for a, b in zip(log_probs, reference, strict=True))
        return value(log_probs, reward) - weight * gap

    return objective


def scores(law, theta):
    return np.array([slope(lambda t, y=y: law(t)[y], theta) for y in range(len(law(theta)))])


def quadruples(rewards, gram):
    """Mean of (r_i - r_j)(r_l - r_m) <s_i - s_j, s_l - s_m> / 4 over ordered quadruples of different rollouts."""
    terms = [
        (rewards[i] - rewards[j]) * (rewards[m] - rewards[n])
        * (gram[i][m] - gram[i][n] - gram[j][m] + gram[j][n]) / 4
        for i, j, m, n in itertools.permutations(range(len(rewards)), 4)
    ]  # fmt: skip
    return math.fsum(terms) / len(terms)


def leave_one_out(rewards, matrix):
    k = len(rewards)
    total = np.zeros(len(matrix[0]))
    for i in range(k):
        others = math.fsum(rewards[j] for j in range(k) if j != i) / (k - 1)
        total += (rewards[i] - others) * np.array(matrix[i], dtype=float)
    return total / k


def every_sample(probs, k):
    """All samples of k outputs, each with its probability."""
    for sample in itertools.product(range(len(probs)), repeat=k):
        yield list(sample), math.prod(probs[y] for y in sample)


def hitting_time(velocity, start, reached, h):
    """First time at which `reached(z)` holds, by Runge-Kutta steps of h and a linear cut of the last one."""
    z, time = np.array(start, dtype=float), 0.0
    while True:
        a = velocity(z)
        b = velocity(z + h / 2 * a)
        c = velocity(z + h / 2 * b)
        d = velocity(z + h * c)
        ahead = z + h / 6 * (a + 2 * b + 2 * c + d)
        if reached(ahead) >= 0:
            short, over = -reached(z), reached(ahead)
            return time + h * short / (short + over)
        z, time = ahead, time + h

"""Implicit and explicit rewards, log-probabilities and cycles, as plainly as their definitions read.

Loops, `math`, and autograd steps on the weight matrix itself; shares no code with src.
"""

from __future__ import annotations

import itertools
import math


def report(chosen, rejected):
    """Accuracy, margin, loss and means of pairs without NaN, one pair at a time."""
    pairs = [(c, r) for c, r in zip(chosen, rejected, strict=True) if c == c and r == r]
    n = len(pairs)
    right = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in pairs) / n
    pool = [value for pair in pairs for value in pair]
    mean = sum(pool) / (2 * n)
    std = math.sqrt(sum((value - mean) ** 2 for value in pool) / (2 * n - 1))
    z = 1.959963984540054
    centre = (right + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(right * (1 - right) / n + z * z / (4 * n * n))
    return {
        "accuracy": right,
        "interval": (centre - half, centre + half),
        "margin": sum(abs(c - r) for c, r in pairs) / n / (std + 1e-8),
        "loss": sum(-math.log(1 / (1 + math.exp(r - c))) for c, r in pairs) / n,
        "chosen": sum(c for c, _ in pairs) / n,
        "rejected": sum(r for _, r in pairs) / n,
    }


def log_prob(logits, ids, mask):
    """ln pi of the response of one row, token by token."""
    total = 0.0
    for t, used in enumerate(mask):
        if used:
            top = max(logits[t - 1])
            total += logits[t - 1][ids[t]] - top - math.log(sum(math.exp(value - top) for value in logits[t - 1]))
    return total


def softmax(values):
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


def coefficients(states_b, tokens_b, states, tokens, unembedding):
    """Rho, one pair of tokens and one word of the vocabulary at a time."""
    table = []
    for h_b, y in zip(states_b, tokens_b, strict=True):
        p = softmax([sum(a * b for a, b in zip(row, h_b, strict=True)) for row in unembedding])
        line = []
        for h, v in zip(states, tokens, strict=True):
            q = softmax([sum(a * b for a, b in zip(row, h, strict=True)) for row in unembedding])
            line.append((y == v) - q[y] - p[v] + sum(a * b for a, b in zip(p, q, strict=True)))
        table.append(line)
    return table


def implicit_step(chosen, rejected, evaluation, unembedding, beta, lr, gap=None):
    """Change of the implicit reward after one SGD step on one pair, by autograd on the unembedding alone.

    Each response is (states, tokens). With `gap` None the reference is taken so that the pair starts with gap 0.
    """
    import torch

    weight = torch.tensor(unembedding, dtype=torch.float64, requires_grad=True)

    def log_prob_of(response, w):
        states, tokens = (torch.tensor(part) for part in response)
        rows = torch.log_softmax(states.double() @ w.T, dim=1)
        return rows[torch.arange(len(tokens)), tokens.long()].sum()

    with torch.no_grad():
        start = log_prob_of(chosen, weight) - log_prob_of(rejected, weight)
    offset = (0.0 if gap is None else gap) - beta * start
    loss = -torch.nn.functional.logsigmoid(
        beta * (log_prob_of(chosen, weight) - log_prob_of(rejected, weight)) + offset
    )
    loss.backward()
    with torch.no_grad():
        before = log_prob_of(evaluation, weight)
        after = log_prob_of(evaluation, weight - lr * weight.grad)
    return float(beta * (after - before))


def explicit_step(chosen, rejected, evaluation, head, lr):
    """Change of an explicit reward after one SGD step on one pair, by autograd on the head."""
    import torch

    head = torch.tensor(head, dtype=torch.float64, requires_grad=True)
    h_c, h_r, h_e = (torch.tensor(h, dtype=torch.float64) for h in (chosen, rejected, evaluation))
    gap = float((h_c - h_r) @ head.detach())
    (-torch.nn.functional.logsigmoid((h_c - h_r) @ head)).backward()
    return float(-lr * head.grad @ h_e), gap


def cycles(edges, n):
    """Every order of n vertices that walks a Hamiltonian cycle of the graph."""
    graph = {frozenset(edge) for edge in edges}
    return {
        order
        for order in itertools.permutations(range(n))
        if all(frozenset((order[i], order[(i + 1) % n])) in graph for i in range(n))
    }


def two_opt_neighbours(order):
    """Every order that one reversal of a stretch makes of a cycle."""
    n = len(order)
    return {order[:i] + order[i:j][::-1] + order[j:] for i in range(n) for j in range(i + 2, n + 1)}


def binomial_two_sided(first, second):
    """Exact McNemar test: twice the smaller tail of a fair coin, at most 1."""
    n, k = first + second, min(first, second)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)

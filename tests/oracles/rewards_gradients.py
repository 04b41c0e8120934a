"""Scores of whole responses by autograd, and estimates of squared norms of policy gradients from their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import torch


def scores(model, prompt: list[int], responses: list[list[int]], chosen) -> np.ndarray:
    """Gradients of ln pi(response | prompt), flattened, one row for each response; `chosen` says which parameters."""
    rows = []
    parameters = [p for name, p in model.named_parameters() if chosen(name)]
    for response in responses:
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        lines = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
        total = sum(lines[place, token] for place, token in enumerate(response))
        parts = torch.autograd.grad(total, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        rows.append(np.concatenate([part.double().numpy().ravel() for part in flat]))
    return np.array(rows)


def by_quadruples(rewards: np.ndarray, matrix: np.ndarray) -> float:
    """Mean over ordered quadruples of (r_i - r_j)(r_l - r_m) <s_i - s_j, s_l - s_m> / 4."""
    total, count = 0.0, 0
    for i, j, m, n in itertools.permutations(range(len(rewards)), 4):
        inner = float((matrix[i] - matrix[j]) @ (matrix[m] - matrix[n]))
        total += (rewards[i] - rewards[j]) * (rewards[m] - rewards[n]) * inner / 4
        count += 1
    return total / count


def leave_one_out(rewards: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Policy gradient with the mean reward of the other rollouts as baseline."""
    k = len(rewards)
    terms = [(rewards[i] - (rewards.sum() - rewards[i]) / (k - 1)) * matrix[i] for i in range(k)]
    return np.mean(terms, axis=0)


def by_parts(rewards: np.ndarray, matrix: np.ndarray, parts) -> float:
    """Mean inner product of the policy gradients of two different parts."""
    found = [leave_one_out(rewards[part], matrix[part]) for part in parts]
    pairs = list(itertools.permutations(found, 2))
    return float(np.mean([a @ b for a, b in pairs]))


def noise(rewards: np.ndarray, matrix: np.ndarray) -> float:
    """Trace of the sample covariance of the terms of the leave-one-out policy gradient."""
    k = len(rewards)
    terms = np.array([(rewards[i] - (rewards.sum() - rewards[i]) / (k - 1)) * matrix[i] for i in range(k)])
    return float(np.trace(np.atleast_2d(np.cov(terms.T, ddof=1))))

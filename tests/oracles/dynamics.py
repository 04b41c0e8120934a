"""First derivatives of log-probabilities by autograd over W and one free vector for every distinct prefix.

Nothing here knows a formula of the library: a response is a sum of log-softmax entries, parameters are a matrix and
a table of vectors, and a rate is minus the product of two flat gradients.
"""

from __future__ import annotations

import torch


class FreeFeatures:
    """W and a table of vectors, one for each (prompt, prefix), made when first asked for or given."""

    def __init__(self, W, *, seed=0):
        self.W = torch.tensor(W, dtype=torch.float64, requires_grad=True)
        self.vectors = {}
        self.generator = torch.Generator().manual_seed(seed)

    def vector(self, prompt, prefix):
        key = (prompt, tuple(prefix))
        if key not in self.vectors:
            drawn = torch.randn(self.W.shape[1], generator=self.generator, dtype=torch.float64)
            self.vectors[key] = drawn.requires_grad_()
        return self.vectors[key]

    def states(self, ids, prompt="x"):
        """Return the states of a response as an array (n, d)."""
        return torch.stack([self.vector(prompt, ids[:k]) for k in range(len(ids))]).detach().numpy()

    def token_logps(self, ids, prompt="x"):
        """Return ln pi(y_k | x, y_<k) for every k, as a list of scalars of the graph."""
        return [torch.log_softmax(self.W @ self.vector(prompt, ids[:k]), dim=0)[token] for k, token in enumerate(ids)]

    def logp(self, ids, prompt="x"):
        return torch.stack(self.token_logps(ids, prompt)).sum()

    def gradient(self, value):
        """Return the flat gradient over W and all vectors made so far."""
        parameters = [self.W, *self.vectors.values()]
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return torch.cat(
            [
                (torch.zeros_like(parameter) if grad is None else grad).reshape(-1)
                for parameter, grad in zip(parameters, found, strict=True)
            ]
        )

    def head_gradient(self, value):
        """Return the gradient over W alone."""
        return torch.autograd.grad(value, self.W, retain_graph=True)[0]

    def rate(self, value, loss):
        """Return d value / dt where all parameters follow minus the gradient of the loss."""
        return -(self.gradient(value) @ self.gradient(loss)).item()

    def descend(self, loss, lr):
        """Make one step of gradient descent on everything, in place."""
        parameters = [self.W, *self.vectors.values()]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, grad in zip(parameters, found, strict=True):
                if grad is not None:
                    parameter -= lr * grad


def dpo(a, b, ref_a, ref_b, beta):
    """The loss as everyone writes it."""
    return -torch.nn.functional.logsigmoid(beta * ((a - ref_a) - (b - ref_b)))


def theorem_parts(W, h, plus, minus):
    """Return m and S of Theorem 1, term by term in plain loops."""
    p = torch.softmax(torch.tensor(W, dtype=torch.float64) @ torch.tensor(h, dtype=torch.float64), dim=0).tolist()

    def dot(x, y):
        return sum(float(a) * float(b) for a, b in zip(x, y, strict=True))

    w_plus, w_minus = W[plus], W[minus]
    m = (1 - p[plus]) * dot(w_plus, w_plus) + p[minus] * dot(w_minus, w_minus)
    m += (1 - p[plus] + p[minus]) * dot(h, h)
    s = -(1 - p[plus] + p[minus]) * dot(w_plus, w_minus)
    for z, row in enumerate(W):
        if z not in {plus, minus}:
            s -= p[z] * (dot(row, w_plus) - dot(row, w_minus))
    return m, s

"""The plainest way to what the engine gives: one sequence at a time, no padding, no mask, the model's own logits.

A row is ``(prompt, response, counted)``: two lists of ids, and which response tokens count (None for all). The state
that predicts response token k stands at position len(prompt) + k - 1 of the fed sequence, k from 0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class RowFacts:
    """One response: what the model says at each of its counted tokens, and what follows from it."""

    states: np.ndarray  # (n, d): state that predicts each counted token
    own_states: np.ndarray  # (n, d): state that the network computes after reading each counted token
    log_probs: np.ndarray  # (n, V): full distribution at each counted token
    ids: np.ndarray  # (n,): counted tokens
    counted: np.ndarray  # (length,): which response tokens count
    last_state: np.ndarray  # (d,): state after the last response token

    @property
    def sum(self) -> np.ndarray:
        return self.states.sum(axis=0)

    @property
    def token_logp(self) -> np.ndarray:
        return self.log_probs[np.arange(len(self.ids)), self.ids]

    @property
    def logp(self) -> float:
        return float(self.token_logp.sum())

    @property
    def entropy(self) -> np.ndarray:
        return -(np.exp(self.log_probs) * self.log_probs).sum(axis=1)

    @property
    def varentropy(self) -> np.ndarray:
        information = -self.log_probs
        return (np.exp(self.log_probs) * (information - self.entropy[:, None]) ** 2).sum(axis=1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def forward(model, ids) -> tuple[np.ndarray, np.ndarray]:
    """Return states (T, d) and logits (T, V) of one sequence, as float64 arrays."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
    for module, flag in flags.items():
        module.training = flag
    return out.hidden_states[-1][0].double().numpy(), out.logits[0].double().numpy()


def facts(model, row) -> RowFacts:
    """Run one row by itself."""
    prompt, response, counted = row
    counted = np.ones(len(response), dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
    states, logits = forward(model, [*prompt, *response])
    places = np.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    return RowFacts(
        states=states[places][counted],
        own_states=states[places + 1][counted],
        log_probs=log_softmax(logits[places][counted]),
        ids=np.asarray(response)[counted],
        counted=counted,
        last_state=states[-1],
    )


def common_prefix(rows) -> int:
    """Number of leading tokens on which all lists agree."""
    shortest = min(len(row) for row in rows)
    for place in range(shortest):
        if len({row[place] for row in rows}) > 1:
            return place
    return shortest


def shared_positions(rows) -> int:
    """Number of leading response positions whose prefix is the same in all rows (the s of the room's notation)."""
    if len({tuple(prompt) for prompt, _, _ in rows}) > 1:
        return 0
    responses = [response for _, response, _ in rows]
    return min(common_prefix(responses) + 1, *(len(response) for response in responses))


def kl(a: RowFacts, b: RowFacts) -> np.ndarray:
    """KL divergence of a from b at each counted token: the mean, under a, of ln a - ln b."""
    return (np.exp(a.log_probs) * (a.log_probs - b.log_probs)).sum(axis=1)


def ches(sum_chosen, sum_rejected) -> float:
    """Inner product of the two sums less the square of the first."""
    return float(sum_chosen @ sum_rejected - sum_chosen @ sum_chosen)


def head_gradients(model, row) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of ln pi(response) with respect to the output projection alone, and to each state.

    Returns G (V, d) and u (n, d), one line for each response position (zero where the token does not count), from a
    float64 copy of the model whose output projection has been cut loose from the embeddings.
    """
    prompt, response, counted = row
    counted = np.ones(len(response), dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
    model = copy.deepcopy(model).double().eval()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    ids = torch.tensor([[*prompt, *response]])
    probe: list[torch.Tensor] = []

    def cut_here(_, inputs):
        probe.append(inputs[0].detach().clone().requires_grad_())
        return (probe[0],)

    handle = head.register_forward_pre_hook(cut_here)
    logits = model(input_ids=ids, use_cache=False).logits[0].double()
    handle.remove()
    places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
    token_logp = logits[places].log_softmax(dim=-1)[torch.arange(len(response)), torch.tensor(response)]
    total = token_logp[torch.from_numpy(counted)].sum()
    weight, states = torch.autograd.grad(total, [head.weight, probe[0]])
    return weight.numpy(), states[0][places].numpy()


def head_gram(model, rows) -> np.ndarray:
    """Inner products (k, k) of the head gradients of all rows of a group."""
    gradients = [head_gradients(model, row)[0] for row in rows]
    return np.array([[float((a * b).sum()) for b in gradients] for a in gradients])


def free_states_gram(model, rows) -> np.ndarray:
    """Inner products (k, k) of gradients over the head and over one free vector for every distinct prefix.

    Prefixes are looked up by their tokens, so what two rows share is found without any rule about it.
    """
    gram = head_gram(model, rows)
    vectors = []
    for prompt, response, counted in rows:
        _, lines = head_gradients(model, (prompt, response, counted))
        vectors.append({(*prompt, *response[:place]): line for place, line in enumerate(lines)})
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors):
            gram[i, j] += sum(float(first[prefix] @ second[prefix]) for prefix in first.keys() & second.keys())
    return gram

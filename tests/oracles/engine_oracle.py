"""The plainest way to what the engine gives: one sequence at a time, no padding, no mask, the model's own logits.

A row is ``(prompt, response, counted)``: two lists of ids, and which response tokens count (None for all). The state
that predicts response token k stands at position len(prompt) + k - 1 of the fed sequence, k from 0.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class RowFacts:
    """One response: what the model says at each of its n tokens, counted or not, and what follows from it."""

    states: np.ndarray  # (n, d): state that predicts each token
    own_states: np.ndarray  # (n, d): state that the network computes after reading each token
    log_probs: np.ndarray  # (n, V): full distribution at each token
    ids: np.ndarray  # (n,)
    counted: np.ndarray  # (n,): which tokens count in sums

    @property
    def last_state(self) -> np.ndarray:
        return self.own_states[-1]

    @property
    def sum(self) -> np.ndarray:
        return self.states[self.counted].sum(axis=0)

    @property
    def token_logp(self) -> np.ndarray:
        return self.log_probs[np.arange(len(self.ids)), self.ids]

    @property
    def logp(self) -> float:
        return float(self.token_logp[self.counted].sum())

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
        states=states[places],
        own_states=states[places + 1],
        log_probs=log_softmax(logits[places]),
        ids=np.asarray(response),
        counted=counted,
    )


def common_prefix(rows) -> int:
    """Number of leading tokens on which all lists agree."""
    shortest = min(len(row) for row in rows)
    for place in range(shortest):
        if len({row[place] for row in rows}) > 1:
            return place
    return shortest


def shared_positions(rows) -> int:
    """Number of leading response positions whose prefix is the same in all rows (the s of the room's notation).

    A row alone in its group shares nothing.
    """
    if len(rows) == 1 or len({tuple(prompt) for prompt, _, _ in rows}) > 1:
        return 0
    responses = [response for _, response, _ in rows]
    return min(common_prefix(responses) + 1, *(len(response) for response in responses))


def kl(a: RowFacts, b: RowFacts) -> np.ndarray:
    """KL divergence KL(a || b) at each token: the mean, under a, of ln a - ln b."""
    return (np.exp(a.log_probs) * (a.log_probs - b.log_probs)).sum(axis=1)


def ches(sum_chosen, sum_rejected) -> float:
    """Inner product of the two sums less the square of the first."""
    return float(sum_chosen @ sum_rejected - sum_chosen @ sum_chosen)


def loosened(model):
    """Return a float64 copy of a model whose output projection is cut loose from the embeddings."""
    model = copy.deepcopy(model).double().eval()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    return model


def head_gradients(model, row, *, copied=None) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of ln pi(response) with respect to the output projection alone, and to each state.

    Returns G (V, d) and u (n, d), one line for each response position (zero where the token does not count), by
    autograd through a loosened copy of the model.
    """
    prompt, response, counted = row
    counted = np.ones(len(response), dtype=bool) if counted is None else np.asarray(counted, dtype=bool)
    model = copied or loosened(model)
    head = model.get_output_embeddings()
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
    return grams(model, rows)[0]


def free_states_gram(model, rows) -> np.ndarray:
    """Inner products (k, k) of gradients over the head and over one free vector for every distinct prefix."""
    return grams(model, rows)[1]


def grams(model, rows) -> tuple[np.ndarray, np.ndarray]:
    """Both Gram matrices of a group.

    Prefixes are looked up by their tokens, so what two rows share is found without any rule about it.
    """
    copied = loosened(model)
    found = [head_gradients(model, row, copied=copied) for row in rows]
    head = np.array([[float((a * b).sum()) for b, _ in found] for a, _ in found])
    vectors = [
        {(*prompt, *response[:place]): line for place, line in enumerate(lines)}
        for (prompt, response, _), (_, lines) in zip(rows, found, strict=True)
    ]
    free = head.copy()
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors):
            free[i, j] += sum(float(first[prefix] @ second[prefix]) for prefix in first.keys() & second.keys())
    return head, free


_KNOWN: dict[tuple, tuple] = {}


def expected_columns(model, case, *, gram: bool = True, ufm: bool = False) -> dict[str, dict]:
    """What every output must give for every row that can be used: column -> (group, slot) -> value.

    Worked out once for equal weights, configuration and case, since many tests ask for the same.
    """
    if hasattr(model, "disable_adapter"):  # its weights do not tell what it does
        return _expected_columns(model, case, gram, ufm)
    key = (_identity(model), id(case), gram, ufm)
    if key not in _KNOWN:
        _KNOWN[key] = (case, _expected_columns(model, case, gram, ufm))
    return _KNOWN[key][1]


def _identity(model) -> tuple:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return type(model), repr(model.config.to_dict()), model.config._attn_implementation, digest.hexdigest()


def _expected_columns(model, case, gram: bool, ufm: bool) -> dict[str, dict]:
    found: dict[str, dict] = {}

    def put(name, place, value):
        found.setdefault(name, {})[place] = value

    groups: dict[int, list[int]] = {}
    for group, slot, _ in case.rows():
        groups.setdefault(group, []).append(slot)
    for group, slots in groups.items():
        rows = [case.fed(group, slot) for slot in slots]
        shared = shared_positions(rows)
        products, free = grams(model, rows) if gram else (None, None)
        for index, (slot, row) in enumerate(zip(slots, rows, strict=True)):
            place, one = (group, slot), facts(model, row)
            beyond = one.counted & (np.arange(len(one.ids)) >= shared)
            put("sum", place, one.sum)
            put("sum_beyond", place, one.states[beyond].sum(axis=0))
            put("n_states", place, one.counted.sum())
            put("n_shared", place, shared)
            put("states", place, one.states)
            put("last_state", place, one.last_state)
            put("logp", place, one.logp)
            put("n_tokens", place, one.counted.sum())
            put("token_logp", place, one.token_logp)
            put("surprisal", place, -one.token_logp)
            put("entropy", place, one.entropy)
            put("varentropy", place, one.varentropy)
            if gram:
                put("head_gram", place, products[index])
            if ufm:
                put("ufm_gram", place, free[index])
    return found


def expected_kl(first, second, case) -> dict[str, dict]:
    """KL divergences at every token, both ways: KL(first || second) is the reverse one, KL(second || first) forward."""
    found: dict[str, dict] = {"kl_forward": {}, "kl_reverse": {}}
    for group, slot, row in case.rows():
        a, b = facts(first, row), facts(second, row)
        found["kl_reverse"][group, slot] = kl(a, b)
        found["kl_forward"][group, slot] = kl(b, a)
    return found


COUNTS = ("n_states", "n_shared", "n_tokens")
NATS = ("logp", "token_logp", "surprisal", "entropy", "varentropy", "kl_forward", "kl_reverse", "reward")


def deviations(found: dict, expected: dict) -> dict[str, float]:
    """Largest relative deviation of each column; infinite where rows, shapes or counts differ.

    States and their sums, and rows of a Gram matrix, are relative to their largest entry. What is measured in nats is
    relative to its size where that is above one nat.
    """
    return {
        name: max((_deviation(name, place, found, expected) for place in expected[name]), default=0.0)
        for name in expected
        if name in found
    }


def _deviation(name, place, found, expected) -> float:
    if set(found[name]) != set(expected[name]):
        return float("inf")
    got = np.asarray(found[name][place], dtype=np.float64)
    want = np.asarray(expected[name][place], dtype=np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    if name in COUNTS:
        return 0.0 if np.array_equal(got, want) else float("inf")
    if want.size == 0:
        return 0.0
    scale = np.maximum(1.0, np.abs(want)) if name in NATS else np.abs(want).max()
    if not np.any(scale):
        return 0.0 if not got.any() else float("inf")
    return float(np.max(np.abs(got - want) / scale))

"""How much training on one response moves another: products of their gradients, position by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag.preference._unembedding import Floats, Head, Ids, Unembedding, token_ids

__all__ = ["Pull", "Response", "Stack", "pull_between", "stack_responses"]

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Tokens of a response, and the states that predict them.

    Attributes
    ----------
    states : ndarray, shape (n, d)
        Row k predicts token k.
    ids : ndarray of int64, shape (n,)
        The tokens.
    """

    states: Floats
    ids: Ids

    @classmethod
    def checked(cls, W: Unembedding, states: Any, ids: Any, states_name: str, ids_name: str) -> Response:
        """Check states and ids of one response.

        Raises
        ------
        TypeError
            If they are of the wrong kind.
        ValueError
            If their shapes do not fit, an entry is not finite or an id is no row of `W`.
        """
        rows = as_float64(states, states_name, ndim=2, expected="hidden states (n, d)")
        W.check_width(rows.shape[1], states_name)
        tokens = token_ids(ids, ids_name, W.shape[0])
        if tokens.size != len(rows):
            raise ValueError(
                f"`{states_name}` must have one row for each of the {tokens.size} tokens of `{ids_name}`; got "
                f"{len(rows)}. Row k predicts token k: the first is the state of the last prompt token, and that of "
                "the last response token is left out"
            )
        return cls(states=rows, ids=tokens)

    def common_with(self, other: Response) -> int:
        """Return the number of leading tokens that two responses have in common."""
        least = min(self.ids.size, other.ids.size)
        differs = np.flatnonzero(self.ids[:least] != other.ids[:least])
        return int(differs[0]) if differs.size else least

    def shared_with(self, other: Response) -> int:
        """Return the number of leading states that follow one prefix, if both responses follow one prompt."""
        return min(self.common_with(other) + 1, self.ids.size, other.ids.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The distinct states of a pair and of third responses, and where each position finds its own.

    Attributes
    ----------
    states : ndarray, shape (T, d)
        Distinct states; those of the pair come first.
    pair : int
        Number G of states that belong to the pair.
    responses : tuple of Response
        Chosen, rejected, others.
    rows : tuple of ndarray of int
        For each response, the row of `states` of each position.
    shared : tuple of (int, int)
        For each response, the number of states shared with the chosen and with the rejected one.
    common : int
        Number of leading positions where the pair has one state and one token.
    difference : float
        Largest relative difference between a state and the one that stands for it.
    """

    states: Floats
    pair: int
    responses: tuple[Response, ...]
    rows: tuple[Rows, ...]
    shared: tuple[tuple[int, int], ...]
    common: int
    difference: float

    def all_ids(self) -> Ids:
        """Return the tokens of all responses, one after the other."""
        return np.concatenate([response.ids for response in self.responses])

    def ches(self) -> float:
        """Return <S+, S- - S+>, the sums taken over positions beyond the shared states in the second place."""
        plus, minus = self.rows[0], self.rows[1]
        first = self.shared[0][1]
        beyond = self.states[minus[first:]].sum(axis=0) - self.states[plus[first:]].sum(axis=0)
        return float(self.states[plus].sum(axis=0) @ beyond)


def stack_responses(chosen: Response, rejected: Response, others: tuple[Response, ...], shared: int) -> Stack:
    """Stack the distinct states of a pair and of third responses; of equal prefixes the first state stands for all."""
    n = chosen.ids.size
    parts = [chosen.states, rejected.states[shared:]]
    pair = n + rejected.ids.size - shared
    plus = np.arange(n)
    minus = np.concatenate([plus[:shared], np.arange(n, pair)])
    rows, counts = [plus, minus], [(n, shared), (shared, rejected.ids.size)]
    size, most = pair, chosen.shared_with(rejected)
    for other in others:
        with_plus, with_minus = other.shared_with(chosen), other.shared_with(rejected)
        if shared < most:  # the rejected response follows states of its own, whatever its tokens say
            with_minus = min(with_minus, shared)
        borrowed = plus[:with_plus] if with_plus >= with_minus else minus[:with_minus]
        own = other.ids.size - borrowed.size
        rows.append(np.concatenate([borrowed, np.arange(size, size + own)]))
        counts.append((with_plus, with_minus))
        parts.append(other.states[borrowed.size :])
        size += own
    states = np.concatenate(parts)
    responses = (chosen, rejected, *others)
    return Stack(
        states=states,
        pair=pair,
        responses=responses,
        rows=tuple(rows),
        shared=tuple(counts),
        common=min(chosen.common_with(rejected), shared),
        difference=max(_difference(states[r], response.states) for r, response in zip(rows, responses, strict=True)),
    )


def _difference(used: Floats, given: Floats) -> float:
    """Largest distance between states used and given, relative to the larger of the two."""
    size = np.abs(used).max(axis=1)
    size = np.maximum(size, np.abs(given).max(axis=1))
    size[size == 0] = 1.0
    return float(np.abs(used / size[:, None] - given / size[:, None]).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """Products of the gradient of one response with those of the pair, for each of its n positions.

    Attributes
    ----------
    with_chosen : ndarray, shape (n,)
        Through W, with the chosen response.
    gap : ndarray, shape (n,)
        Through W, with the rejected response minus with the chosen one; common positions are left out of both.
    hidden_chosen, hidden_gap : ndarray, shape (n,)
        The same through the hidden states.
    alpha_chosen, alpha_rejected : ndarray, shape (n, n+) and (n, n-)
        <delta_k, delta_k'>.
    """

    with_chosen: Floats
    gap: Floats
    hidden_chosen: Floats
    hidden_gap: Floats
    alpha_chosen: Floats
    alpha_rejected: Floats

    def rates(self, w_chosen: float, w_rejected: float) -> Floats:
        """Return d ln pi(y_k | prefix) / dt for each position; equal weights cancel before they multiply."""
        return (w_chosen - w_rejected) * (self.with_chosen + self.hidden_chosen) - w_rejected * (
            self.gap + self.hidden_gap
        )


def pull_between(head: Head, stack: Stack) -> list[Pull]:
    """Return the products of each response with the pair, in the order of the stack."""
    deltas = [head.deltas(rows, response.ids) for rows, response in zip(stack.rows, stack.responses, strict=True)]
    pulls = [head.pulls(rows, delta) for rows, delta in zip(stack.rows, deltas, strict=True)]
    plus, minus = stack.rows[0], stack.rows[1]
    states, skip = stack.states, slice(stack.common, None)
    found = []
    for rows, delta, pull, (with_plus, with_minus) in zip(stack.rows, deltas, pulls, stack.shared, strict=True):
        gram = head.gram[rows]
        alpha_plus = delta @ deltas[0].T + gram[:, plus]
        alpha_minus = delta @ deltas[1].T + gram[:, minus]
        through_plus = alpha_plus * (states[rows] @ states[plus].T)
        through_minus = alpha_minus * (states[rows] @ states[minus].T)
        hidden_plus, hidden_minus = np.zeros(rows.size), np.zeros(rows.size)
        hidden_plus[:with_plus] = (pull[:with_plus] * pulls[0][:with_plus]).sum(axis=1)
        hidden_minus[:with_minus] = (pull[:with_minus] * pulls[1][:with_minus]).sum(axis=1)
        hidden_gap = hidden_minus - hidden_plus
        hidden_gap[: min(stack.common, with_plus, with_minus)] = 0.0  # equal there, but for the order of sums
        found.append(
            Pull(
                with_chosen=through_plus.sum(axis=1),
                gap=through_minus[:, skip].sum(axis=1) - through_plus[:, skip].sum(axis=1),
                hidden_chosen=hidden_plus,
                hidden_gap=hidden_gap,
                alpha_chosen=alpha_plus,
                alpha_rejected=alpha_minus,
            )
        )
    return found

"""How one step on one pair moves the reward of another response, for explicit and for implicit reward models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, refuse_size
from rankdiag._validate import choice, describe, real
from rankdiag.rewards._log_probs import sliceable

__all__ = [
    "ResponseStates",
    "cue_shares",
    "cue_sums",
    "loss_weights",
    "reward_transfer",
    "token_coefficients",
    "token_cue_share",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TOKENS = 2048  # of either side that meet at a time: their table of coefficients takes 32 MiB
_BLOCK = 1 << 21  # probabilities of one block of the vocabulary, 16 MiB


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class ResponseStates:
    """Hidden states and tokens of one response.

    Parameters
    ----------
    states : array-like or torch.Tensor, shape (n, d)
        ``states[k]`` is the hidden state that predicts ``tokens[k]``, so the first one stands at the end of the prompt.
    tokens : array-like or torch.Tensor of int, shape (n,)
        The tokens of the response; at least one.

    Raises
    ------
    TypeError
        If an argument holds no numbers, or `tokens` no integers.
    ValueError
        If the response is empty, lengths differ, a state is not finite, or a token is negative.

    Examples
    --------
    >>> from rankdiag.rewards import ResponseStates
    >>> response = ResponseStates([[1.0, 2.0], [0.0, 1.0]], [3, 0])
    >>> len(response), response.tokens.tolist()
    (2, [3, 0])
    """

    states: NDArray[np.float64]
    tokens: NDArray[np.int64]

    def __init__(self, states: Any, tokens: Any) -> None:
        own = np.array(as_float64(states, "states", ndim=2, expected="hidden states (n, d)"))
        numbers = as_float64(tokens, "tokens", ndim=1, expected="token ids (n,)")
        if "int" not in input_dtype(tokens):
            raise TypeError(f"`tokens` must hold integers, token ids; got dtype {input_dtype(tokens)}")
        if len(numbers) != len(own):
            raise ValueError(f"`tokens` must have one entry for each of {len(own)} states; got {len(numbers)}")
        if not ((numbers >= 0) & (numbers < 2**53)).all():
            raise ValueError(f"`tokens` must be ids, at least 0; got {numbers.min():g} to {numbers.max():g}")
        ids = numbers.astype(np.int64)
        own.flags.writeable = ids.flags.writeable = False
        object.__setattr__(self, "states", own)
        object.__setattr__(self, "tokens", ids)

    def __len__(self) -> int:
        return len(self.tokens)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.states, self.tokens)

    def __repr__(self) -> str:
        return f"ResponseStates({len(self)} tokens, d={self.states.shape[1]})"


def token_coefficients(evaluation: ResponseStates, train: ResponseStates, unembedding: Any) -> Floats:
    """Sign and size with which each training token moves each evaluated one, if only the unembedding is trained.

    Parameters
    ----------
    evaluation : ResponseStates
        Response whose log-probability is watched, n_eval tokens.
    train : ResponseStates
        Response that is trained on, n_train tokens.
    unembedding : array-like or torch.Tensor, shape (V, d)
        Rows of the output layer.

    Returns
    -------
    ndarray of float64, shape (n_eval, n_train)
        rho_kl = 1[y_k = v_l] - pi(y_k | v_<l) - pi(v_l | y_<k) + <pi(. | y_<k), pi(. | v_<l)>, in [-2, 2]. A step that
        raises ln pi(v_l) moves ln pi(y_k) by lr rho_kl <h_k, h_l>.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If widths differ, a token lies outside the vocabulary, a number is not finite, or logits leave float64.

    Notes
    -----
    Never negative for equal tokens; for different ones possibly negative, so that a paraphrase can move the wrong
    way; `token_cue_share` says how much rests on equal tokens.
    Time O((n_eval + n_train) V d + n_eval n_train V); 16 MiB for a block of the vocabulary beside the result.

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 5.

    Examples
    --------
    >>> from rankdiag.rewards import ResponseStates, token_coefficients
    >>> h = [[1.0, 2.0]]
    >>> rho = [token_coefficients(ResponseStates([[1.0, 0.0]], [0]), ResponseStates(h, [v]), [[1, 0], [0, 1], [0, 0]])
    ...        for v in (0, 1)]
    >>> [round(float(r[0, 0]), 6) for r in rho]
    [0.48022, -0.155604]
    """
    left, right = _response(evaluation, "evaluation"), _response(train, "train")
    words = _unembedding(unembedding, {"evaluation": [left], "train": [right]})
    refuse_size(len(left) * len(right), "evaluation", (len(left), len(right)))
    return _coefficients(_joined([left], "evaluation"), _joined([right], "train"), words)


def reward_transfer(
    chosen: Any,
    rejected: Any,
    evaluation: Any,
    *,
    kind: Literal["ex", "im"] = "ex",
    unembedding: Any = None,
    beta: float = 1.0,
    lr: float = 1.0,
    gap: Any = 0.0,
) -> Floats:
    """Change of the reward of each evaluated response by one gradient step on each training pair.

    Parameters
    ----------
    chosen, rejected : array-like, shape (T, d), or sequence of ResponseStates
        Both responses of each training pair: the final hidden states that an explicit head reads, or for an implicit
        reward the states and tokens of whole responses.
    evaluation : array-like, shape (E, d), or sequence of ResponseStates
        Responses whose reward is watched, in the same form.
    kind : {"ex", "im"}
        Explicit reward: a linear head is trained. Implicit reward: the unembedding is trained.
    unembedding : array-like or torch.Tensor, shape (V, d), optional
        Rows of the output layer; needed for "im", refused for "ex".
    beta : float
        Scale of the implicit reward, > 0; "ex" ignores it.
    lr : float
        Step size, >= 0.
    gap : float or array-like of shape (T,)
        Present reward of the chosen less that of the rejected response of each training pair.

    Returns
    -------
    ndarray of float64, shape (E, T)
        Entry (e, t) is the change of the reward of response e by one step of gradient descent on -ln sigmoid(gap) of
        pair t: exact for "ex", to first order in `lr` for "im".

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a token lies outside the vocabulary, a number is not finite, or a change leaves float64.

    Notes
    -----
    Hidden states are held fixed. "ex": lr g <h_e, h+ - h->, g = sigmoid(-gap). "im": lr g beta^2 times the sum of
    rho_kl <h_k, h_l> (see `token_coefficients`) over the tokens of the chosen response less that of the rejected one.
    No gradient of the unembedding is ever formed. "im" takes O(n m (d + V)) time for n evaluated and m training
    tokens, and about 100 MiB, more only if a single response has more than 2048 tokens.

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 5 (learning dynamics of both kinds).

    Examples
    --------
    >>> from rankdiag.rewards import ResponseStates, reward_transfer
    >>> reward_transfer([[1.0, 0.0]], [[0.0, 1.0]], [[2.0, 0.0], [0.0, 4.0]], lr=0.5).tolist()
    [[0.5], [-1.0]]
    >>> plus, minus, other = (ResponseStates([[1.0, 2.0]], [v]) for v in (0, 1, 2))
    >>> words = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    >>> bool(abs(reward_transfer([plus], [minus], [other], kind="im", unembedding=words)) < 2)
    True
    """
    form = choice(kind, "kind", ("ex", "im"))
    scale, step = real(beta, "beta", low=0.0, low_open=True), real(lr, "lr", low=0.0)
    if form == "ex":
        if unembedding is not None:
            raise ValueError("`unembedding` must be None with kind='ex', which trains a head alone; got one")
        sums = _explicit(chosen, rejected, evaluation)
    else:
        sums, step = _implicit(chosen, rejected, evaluation, unembedding), step * scale * scale
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        change = np.asarray(sums * (step * loss_weights(gap, sums.shape[1])) + 0.0, dtype=np.float64)
    if not np.isfinite(change).all():
        raise ValueError("`chosen`, `rejected` and `evaluation` have products beyond float64; scale the states down")
    return change


def token_cue_share(chosen: Any, rejected: Any, evaluation: Any, *, unembedding: Any) -> Floats:
    """Share of what one step on a training pair moves in another response that rests on equal tokens.

    Parameters
    ----------
    chosen, rejected : sequence of ResponseStates
        Both responses of each training pair.
    evaluation : sequence of ResponseStates
        Responses whose implicit reward is watched.
    unembedding : array-like or torch.Tensor, shape (V, d)
        Rows of the output layer, which is what is trained.

    Returns
    -------
    ndarray of float64, shape (E, T)
        Entry (e, t): the sum of ``|rho_kl <h_k, h_l>|`` (see `token_coefficients`) over tokens k of response e and l of
        either response of pair t with the same token, over the sum of all. In [0, 1]; NaN where nothing moves at all.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a token lies outside the vocabulary, a number is not finite, or products leave float64.

    Notes
    -----
    Near 1, what a pair teaches an implicit reward model carries over by the words that both responses use; under
    another wording little of it is left, or it has the other sign. Neither step size nor beta nor the gap of the pair
    enters. Time and memory as `reward_transfer` with ``kind="im"``. For a model and encoded pairs see `token_cues`.

    References
    ----------
    The coefficients: Razin et al., arXiv 2507.07981, Section 5. The share is defined here.

    Examples
    --------
    >>> from rankdiag.rewards import ResponseStates, token_cue_share
    >>> words = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    >>> plus, minus = (ResponseStates([[1.0, 2.0]], [v]) for v in (0, 1))
    >>> token_cue_share([plus], [minus], [ResponseStates([[1.0, 0.0]], [0])], unembedding=words).round(4).tolist()
    [[0.7553]]
    """
    _, matched, total = cue_sums(chosen, rejected, evaluation, unembedding)
    return cue_shares(matched, total)


def cue_shares(matched: Floats, total: Floats) -> Floats:
    """Return the share of equal tokens, NaN where nothing moves; refuse what left float64."""
    if not np.isfinite(total).all():
        raise ValueError("`chosen`, `rejected` and `evaluation` have products beyond float64; scale the states down")
    share = np.full(total.shape, np.nan)
    np.divide(matched, total, out=share, where=total > 0)
    return np.asarray(np.minimum(share, 1.0), dtype=np.float64)  # both sums are rounded


def _explicit(chosen: Any, rejected: Any, evaluation: Any) -> Floats:
    plus, minus, watched = (
        as_float64(value, name, ndim=2, expected="final hidden states (n, d)")
        for value, name in ((chosen, "chosen"), (rejected, "rejected"), (evaluation, "evaluation"))
    )
    if plus.shape != minus.shape:
        raise ValueError(f"`rejected` must have the shape of `chosen`, {plus.shape}; got {minus.shape}")
    if watched.shape[1] != plus.shape[1]:
        raise ValueError(f"`evaluation` must have shape (E, {plus.shape[1]}), as `chosen` has; got {watched.shape}")
    refuse_size(len(watched) * len(plus), "evaluation", (len(watched), len(plus)))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(watched @ (plus - minus).T, dtype=np.float64)


def cue_sums(chosen: Any, rejected: Any, evaluation: Any, unembedding: Any) -> tuple[Floats, Floats, Floats]:
    """Return for each evaluated response and training pair the sum of rho <h, h>, and how much of it moves at all.

    Parameters
    ----------
    chosen, rejected, evaluation, unembedding
        As in `reward_transfer` with ``kind="im"``.

    Returns
    -------
    change, matched, total : ndarray of float64, shape (E, T)
        The signed sum; the sums of absolute values over equal tokens, and over all.
    """
    sides = _sides(chosen, rejected, evaluation, unembedding)
    shape = (len(sides.watched), 2 * len(sides.plus))
    change, matched, total = np.empty(shape), np.empty(shape), np.empty(shape)
    for rows, columns, left, right, table in _tables(sides):
        change[rows, columns] = _by_response(table, left, right)
        np.abs(table, out=table)
        total[rows, columns] = _by_response(table, left, right)
        table[left.tokens[:, None] != right.tokens] = 0.0
        matched[rows, columns] = _by_response(table, left, right)
    count = len(sides.plus)
    with np.errstate(over="ignore", invalid="ignore"):  # refused by the caller
        return (
            change[:, :count] - change[:, count:],
            matched[:, :count] + matched[:, count:],
            total[:, :count] + total[:, count:],
        )


def _implicit(chosen: Any, rejected: Any, evaluation: Any, unembedding: Any) -> Floats:
    sides = _sides(chosen, rejected, evaluation, unembedding)
    found = np.empty((len(sides.watched), 2 * len(sides.plus)))
    for rows, columns, left, right, table in _tables(sides):
        found[rows, columns] = _by_response(table, left, right)
    return found[:, : len(sides.plus)] - found[:, len(sides.plus) :]


@dataclass(frozen=True, slots=True, eq=False)
class _Sides:
    """Checked responses: both of each training pair, those that are watched, and the output layer."""

    plus: list[ResponseStates]
    minus: list[ResponseStates]
    watched: list[ResponseStates]
    words: Any


def _sides(chosen: Any, rejected: Any, evaluation: Any, unembedding: Any) -> _Sides:
    if unembedding is None:
        raise ValueError("`unembedding` must be given with kind='im'; got None. Pass the weight of the output layer")
    plus, minus = _responses(chosen, "chosen"), _responses(rejected, "rejected")
    if len(plus) != len(minus):
        raise ValueError(f"`rejected` must hold one response for each of {len(plus)} pairs; got {len(minus)}")
    watched = _responses(evaluation, "evaluation")
    refuse_size(2 * len(watched) * len(plus), "evaluation", (len(watched), len(plus)))
    words = _unembedding(unembedding, {"chosen": plus, "rejected": minus, "evaluation": watched})
    return _Sides(plus, minus, watched, words)


def _tables(sides: _Sides) -> Iterator[tuple[slice, slice, _Tokens, _Tokens, Floats]]:
    """Yield rho <h, h> of some evaluated responses with some trained ones, and where these stand."""
    trained = [_joined(part, "chosen` or `rejected") for part in _groups([*sides.plus, *sides.minus])]
    row = 0
    for some in _groups(sides.watched):
        left = _joined(some, "evaluation")
        rows = slice(row, row + len(left.starts))
        column = 0
        for right in trained:
            columns = slice(column, column + len(right.starts))
            with np.errstate(over="ignore", invalid="ignore"):  # products of states; refused by the caller
                table = _coefficients(left, right, sides.words) * (left.states @ right.states.T)
            yield rows, columns, left, right, table
            column = columns.stop
        row = rows.stop


def _by_response(table: Floats, left: _Tokens, right: _Tokens) -> Floats:
    """Add up a table of tokens by responses."""
    with np.errstate(over="ignore", invalid="ignore"):  # refused by the caller
        rows = np.add.reduceat(table, left.starts, axis=0)
        return np.asarray(np.add.reduceat(rows, right.starts, axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Tokens:
    """Tokens of several responses, one after the other; `name` is the argument that they came in."""

    states: Floats
    tokens: Ints
    starts: Ints
    name: str


def _joined(responses: Sequence[ResponseStates], name: str) -> _Tokens:
    lengths = [len(response) for response in responses]
    return _Tokens(
        np.concatenate([response.states for response in responses]),
        np.concatenate([response.tokens for response in responses]),
        np.cumsum([0, *lengths[:-1]]),
        name,
    )


def _coefficients(left: _Tokens, right: _Tokens, words: Any) -> Floats:
    """Return rho of all tokens of both sides, in one pass over the vocabulary."""
    sides = _Softmax(left), _Softmax(right)
    rho = np.zeros((len(left.tokens), len(right.tokens)))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for part in _vocabulary(words, len(left.tokens) + len(right.tokens)):
            (weights, shrunk), (others, others_shrunk) = (side.take(part) for side in sides)
            if shrunk is not None:
                rho *= shrunk[:, None]
            if others_shrunk is not None:
                rho *= others_shrunk
            rho += weights @ others.T
    norm, other = (side.log_norm() for side in sides)
    rho /= sides[0].total[:, None]
    rho /= sides[1].total
    rho += left.tokens[:, None] == right.tokens
    logits = _rows(words, left.tokens) @ right.states.T
    rho -= np.exp(np.subtract(logits, other, out=logits), out=logits)
    logits = left.states @ _rows(words, right.tokens).T
    rho -= np.exp(np.subtract(logits, norm[:, None], out=logits), out=logits)
    return rho


class _Softmax:
    """Exponentials of the logits of some tokens, a block of the vocabulary at a time, below the largest logit so far.

    What was summed up before is to be multiplied by exp(largest before - largest now): the probabilities are known at
    the end, and logits are computed once.
    """

    def __init__(self, tokens: _Tokens) -> None:
        self.tokens = tokens
        self.top, self.total = np.full(len(tokens.states), -np.inf), np.zeros(len(tokens.states))

    def take(self, part: Floats) -> tuple[Floats, Floats | None]:
        """Return the exponentials of a block, and by what sums over earlier blocks shrink; None for not at all."""
        logits = self.tokens.states @ part.T
        peak = np.maximum(self.top, logits.max(axis=1))
        logits -= peak[:, None]
        np.exp(logits, out=logits)
        shrunk = None if np.array_equal(peak, self.top) else np.exp(self.top - peak)
        if shrunk is not None:
            self.total *= shrunk
        self.top = peak
        self.total += logits.sum(axis=1)
        return logits, shrunk

    def log_norm(self) -> Floats:
        """Return ln sum exp of the logits of each token."""
        norm = np.asarray(self.top + np.log(self.total), dtype=np.float64)
        if not np.isfinite(norm).all():
            name = self.tokens.name
            raise ValueError(f"`{name}` has logits beyond float64; scale the states or `unembedding` down")
        return norm


def _rows(words: Any, index: Any) -> Floats:
    return as_float64(words[index], "unembedding", expected="rows of the output layer (V, d)")


def _vocabulary(words: Any, tokens: int) -> Iterator[Floats]:
    step = max(1, _BLOCK // max(tokens, int(words.shape[1])))
    for start in range(0, len(words), step):
        yield _rows(words, slice(start, start + step))


def _groups(responses: Sequence[ResponseStates]) -> Iterator[list[ResponseStates]]:
    """Deal whole responses into groups of at most 2048 tokens; a longer response is a group of its own."""
    group: list[ResponseStates] = []
    count = 0
    for response in responses:
        if group and count + len(response) > _TOKENS:
            yield group
            group, count = [], 0
        group.append(response)
        count += len(response)
    yield group


def _response(value: Any, name: str) -> ResponseStates:
    if not isinstance(value, ResponseStates):
        raise TypeError(f"`{name}` must be ResponseStates; got {describe(value)}")
    return value


def _responses(value: Any, name: str) -> list[ResponseStates]:
    if isinstance(value, (ResponseStates, str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a sequence of ResponseStates with kind='im'; got {describe(value)}")
    found = [_response(entry, name) for entry in value]
    if not found:
        raise ValueError(f"`{name}` must hold at least one response; got none")
    return found


def _unembedding(value: Any, sides: Mapping[str, Sequence[ResponseStates]]) -> Any:
    """Check the output layer against all responses; it becomes float64 in parts only."""
    words = sliceable(value, "unembedding", "rows of the output layer (V, d)")
    shape = tuple(words.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"`unembedding` must have shape (V, d), with no axis of length 0; got {shape}")
    for name, responses in sides.items():
        for response in responses:
            if response.states.shape[1] != shape[1]:
                raise ValueError(
                    f"`{name}` must have states of width {shape[1]}, as `unembedding` has; "
                    f"got {response.states.shape[1]}"
                )
            if int(response.tokens.max()) >= shape[0]:
                raise ValueError(
                    f"`{name}` must hold tokens below {shape[0]}, the rows of `unembedding`; "
                    f"got {int(response.tokens.max())}"
                )
    return words


def loss_weights(gap: Any, count: int) -> Floats:
    """Return g = sigmoid(-gap) of each training pair."""
    array = as_float64(gap, "gap", expected="one difference of rewards, or one a pair (T,)")
    if array.ndim and array.shape != (count,):
        raise ValueError(f"`gap` must be a number or have shape ({count},), one a training pair; got {array.shape}")
    return np.asarray(np.exp(-np.logaddexp(0.0, array)), dtype=np.float64)

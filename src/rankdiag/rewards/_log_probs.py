"""Log-probabilities of responses on given logits, in float64: the plain reference of the engine's chunked one."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, is_torch, refuse_size
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import RankdiagWarning

__all__ = ["ResponseLogProbs", "response_log_probs"]

Floats = NDArray[np.float64]

_BLOCK = 1 << 22  # logits that are float64 at a time, 32 MiB
_SHOWN = 12  # responses of a report that are shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResponseLogProbs(Result):
    """ln pi of each response.

    Attributes
    ----------
    sum : ndarray of float64, shape (B,)
        ln pi(y | x), summed over response tokens, in nats; 0 for a response without tokens, -inf for an impossible one.
    lengths : ndarray of int64, shape (B,)
        Response tokens.
    length_normalised : ndarray of float64, shape (B,)
        sum / max(1, length).

    Examples
    --------
    >>> from rankdiag.rewards import response_log_probs
    >>> response_log_probs([[[0.0, 0.0], [0.0, 0.0]]], [[0, 1]], [[0, 1]]).lengths.tolist()
    [1]
    """

    tag: ClassVar[str] = "rewards.ResponseLogProbs"
    judged: ClassVar[bool] = False

    sum: NDArray[np.float64]
    lengths: NDArray[np.int64]
    length_normalised: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, kind in (("sum", np.float64), ("lengths", np.int64), ("length_normalised", np.float64)):
            value = as_float64(getattr(self, name), name, ndim=1, finite=False, expected="one number a response (B,)")
            array = value.astype(kind)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.lengths)

    def document(self) -> Document:
        """Return what this result shows: how many responses and tokens, the first ones, and all per token."""
        first = zip(self.sum[:_SHOWN], self.lengths[:_SHOWN], self.length_normalised[:_SHOWN], strict=True)
        return Document(
            title="Log-probabilities of responses",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="responses", value=len(self)),
                KeyNumber(label="response tokens", value=int(self.lengths.sum())),
            ),
            grids=(
                Grid(
                    title="First responses",
                    columns=(
                        Column(name="response"),
                        Column(name="sum", unit="nats"),
                        Column(name="lengths", label="length", unit="tokens"),
                        Column(name="length_normalised", label="per token", unit="nats"),
                    ),
                    rows=tuple((i, float(s), int(n), float(a)) for i, (s, n, a) in enumerate(first)),
                ),
            ),
            plots=(
                Plot(
                    title="Per token",
                    x_label="response tokens",
                    y_label="log-probability per token, nats",
                    series=(
                        Series(
                            label="responses",
                            x=self.lengths.tolist(),
                            y=self.length_normalised.tolist(),
                            kind="points",
                        ),
                    ),
                    description=f"{len(self)} responses by length.",
                ),
            ),
            notes=self.notes(),
        )


def response_log_probs(logits: Any, input_ids: Any, response_mask: Any) -> ResponseLogProbs:
    """Sum the log-probabilities of the response tokens of each row; logits at t-1 score the token at t.

    Parameters
    ----------
    logits : array-like or torch.Tensor, shape (B, T, V)
        Of any float dtype; -inf forbids a token. Read only where they score a response token.
    input_ids : array-like or torch.Tensor of int, shape (B, T)
        Tokens of prompt, response and padding; those outside the response are not looked at.
    response_mask : array-like or torch.Tensor of bool, shape (B, T)
        Whether a token is of the response: with its first end-of-sequence token, and with nothing after it.

    Returns
    -------
    ResponseLogProbs
        Sums, lengths and sums per token.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If shapes do not fit, the mask selects position 0 (no logit predicts it) or is not boolean, a response token
        lies outside the vocabulary, or its logits hold NaN, +inf, or -inf only.

    Warns
    -----
    RankdiagWarning
        If the mask selects no token of a row; its log-probability is 0.

    Notes
    -----
    The reference on given logits; `rankdiag.language_models` runs models without ever holding (B, T, V). Positions
    are selected first: time O(n V) for n response tokens, 32 MiB in float64 beside the input.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.rewards import response_log_probs
    >>> logits = np.log([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]])
    >>> found = response_log_probs(logits, [[0, 0, 1]], [[False, True, True]])
    >>> round(float(np.exp(found.sum[0])), 6), found.lengths.tolist()
    (0.375, [2])
    """
    scores = sliceable(logits, "logits", "logits (B, T, V)")
    shape = tuple(scores.shape)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"`logits` must have shape (B, T, V) with no axis of length 0; got shape {shape}")
    mask = _mask(response_mask, shape[:2])
    ids = as_float64(input_ids, "input_ids", ndim=2, finite=False, expected="token ids (B, T)")
    if ids.shape != shape[:2]:
        raise ValueError(f"`input_ids` must have shape (B, T) = {shape[:2]}, as `logits` has; got {ids.shape}")
    rows, places = np.nonzero(mask)
    tokens = ids[rows, places]
    legal = (tokens >= 0) & (tokens < shape[2]) & (tokens == np.floor(tokens))
    if not legal.all():
        bad = int((~legal).argmax())
        raise ValueError(
            f"`input_ids` must hold ids from 0 to {shape[2] - 1} in the response; got {tokens[bad]:g} at row "
            f"{rows[bad]}, position {places[bad]}"
        )
    lengths = mask.sum(axis=1)
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        warnings.warn(
            f"`response_mask` selects no token in row {empty[0]}"
            + (f" and {len(empty) - 1} more" if len(empty) > 1 else "")
            + ": log-probability 0, length 0",
            RankdiagWarning,
            stacklevel=2,
        )
    found = np.zeros(shape[0])
    np.add.at(found, rows, _token_log_probs(scores, rows, places - 1, tokens.astype(np.int64)))
    return ResponseLogProbs(
        sum=found,
        lengths=lengths,
        length_normalised=found / np.maximum(1, lengths),
        explanation=f"Log-probabilities of {len(found)} responses with {len(rows)} tokens in all.",
        meta=Meta(
            definition="sum over response tokens of ln pi(token | prefix), by the logits one position before",
            base="e",
            units="nats",
            n=len(found),
            dtype=str(scores.dtype).removeprefix("torch."),
            skipped={f"row {i}": "no response token" for i in empty[:_SHOWN].tolist()},
        ),
    )


def sliceable(value: Any, name: str, expected: str) -> Any:
    """Return numpy arrays and dense tensors as they are, so that parts of a large one become float64 one by one.

    Anything else comes back as float64, and what holds no real numbers is refused as `as_float64` refuses it.
    """
    if is_torch(value):
        dense = not value.is_nested and str(value.layout) == "torch.strided"
    else:
        dense = isinstance(value, np.ndarray)
    if not (dense and len(value.shape)):
        return as_float64(value, name, allow_empty=True, finite=False, expected=expected)
    as_float64(value[:0], name, allow_empty=True, finite=False, expected=expected)
    shape = tuple(value.shape)
    refuse_size(math.prod(shape) * int(value.dtype.itemsize) // 8, name, shape)  # a view may stand for more than memory
    return value


def _mask(value: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    array = as_float64(value, "response_mask", ndim=2, expected="a mask (B, T)")
    if array.shape != shape:
        raise ValueError(f"`response_mask` must have shape (B, T) = {shape}, as `logits` has; got {array.shape}")
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError("`response_mask` must be boolean, or 0 and 1; got other numbers")
    mask = array.astype(np.bool_)
    if mask[:, 0].any():
        raise ValueError(
            f"`response_mask` must not select position 0, for no logit predicts it; it does in row "
            f"{int(mask[:, 0].argmax())}. Put a token in front of the response"
        )
    return mask


def _token_log_probs(
    scores: Any, rows: NDArray[np.intp], places: NDArray[np.intp], tokens: NDArray[np.int64]
) -> Floats:
    """Return ln softmax of chosen logits, a block of positions at a time."""
    found = np.empty(len(rows))
    step = max(1, _BLOCK // int(scores.shape[2]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        block = as_float64(scores[rows[part], places[part]], "logits", finite=False)
        top = block.max(axis=1)
        bad = ~np.isfinite(top)  # a NaN is the maximum of its row; so is +inf, and -inf where there is nothing else
        if bad.any():
            at = start + int(bad.argmax())
            raise ValueError(
                f"`logits` must be numbers, or -inf for a forbidden token; got NaN, +inf or only -inf at row "
                f"{rows[at]}, position {places[at]}"
            )
        with np.errstate(over="ignore", under="ignore"):  # far below the maximum: probability 0
            block = block - top[:, None]
            picked = block[np.arange(len(block)), tokens[part]]
            found[part] = picked - np.log(np.exp(block).sum(axis=1))
    return found

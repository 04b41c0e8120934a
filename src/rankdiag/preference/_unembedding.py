"""The unembedding matrix, read in blocks of rows, and the probabilities that it gives: what every derivative needs.

A matrix of 256k rows is never copied to float64 as a whole, and the probabilities of a whole response are never
held as one array: both go by in blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, input_dtype, is_torch, memory_limit
from rankdiag._validate import describe, integer

__all__ = ["Head", "Unembedding", "frozen", "read_head", "require_within_float64", "token_ids", "token_pair"]

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

_BLOCK = 1 << 22  # entries of one block in float64: 32 MB
_CACHED = 1 << 17  # entries that stay in the cache between a check and a product with a vector or two: 1 MB
_EXPECTED = "an unembedding matrix (V, d)"


class Unembedding:
    """Rows of an unembedding matrix W of shape (V, d), brought to float64 block by block.

    Parameters
    ----------
    W : array-like or torch.Tensor, shape (V, d)
        What the user passed; numpy arrays and torch tensors are not copied as a whole.

    Raises
    ------
    TypeError
        If `W` is of the wrong kind or dtype.
    ValueError
        If it is not 2-D, is empty, has no data or does not fit into memory.
    """

    __slots__ = ("_source", "dtype", "shape")

    def __init__(self, W: Any) -> None:
        self.dtype = ""
        if _is_sliceable(W):
            _refuse_beyond_memory(W)
            first = as_float64(W[:1], "W", expected=_EXPECTED, finite=False)
            self._source, self.shape = W, (int(W.shape[0]), int(first.shape[1]))
        else:
            self._source = as_float64(W, "W", ndim=2, expected=_EXPECTED)
            self.shape = (int(self._source.shape[0]), int(self._source.shape[1]))
        self.dtype = input_dtype(W)

    def take(self, ids: Ids) -> Floats:
        """Return the rows of some tokens.

        Raises
        ------
        ValueError
            If one of their entries is not finite.
        """
        picked: Floats = as_float64(self._source[ids.tolist()], "W", expected=_EXPECTED)
        return picked

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, Floats]]:
        """Yield (first row, block) over the whole matrix.

        Parameters
        ----------
        rows : int, optional
            Rows of one block; None takes as many as stay in the cache.

        Raises
        ------
        ValueError
            If an entry is not finite.
        """
        step = max(1, _CACHED // self.shape[1]) if rows is None else rows
        for start in range(0, self.shape[0], step):
            yield start, as_float64(self._source[start : start + step], "W", expected=_EXPECTED)

    def check_width(self, width: int, name: str) -> None:
        """Refuse states of another width than the rows of W.

        Raises
        ------
        ValueError
            If they differ.
        """
        if width != self.shape[1]:
            raise ValueError(
                f"`{name}` must have the {self.shape[1]} entries of a row of `W`; got {width}. Pass final hidden "
                "states, those that W multiplies"
            )


def _is_sliceable(W: Any) -> bool:
    """Whether W is a plain 2-D array with data, whose slices mean what they say."""
    if is_torch(W):
        import torch

        plain = not W.is_nested and W.layout == torch.strided and not W.is_quantized and W.device.type != "meta"
        return bool(plain and W.ndim == 2 and W.shape[0] > 0)
    return isinstance(W, np.ndarray) and not isinstance(W, np.ma.MaskedArray) and W.ndim == 2 and W.shape[0] > 0


def _refuse_beyond_memory(W: Any) -> None:
    size = W.numel() * W.element_size() if is_torch(W) else W.nbytes
    if size > memory_limit():
        raise ValueError(
            f"`W` of shape {tuple(W.shape)} holds {size / 1e9:.1f} GB, more than the {memory_limit() / 1e9:.1f} GB of "
            "this machine"
        )


def token_pair(chosen: Any, rejected: Any, size: int) -> Ids:
    """Check the ids of a preferred and a dispreferred token and return both as int64.

    Raises
    ------
    TypeError
        If one is no integer.
    ValueError
        If one is outside [0, size), or both are the same.
    """
    pair = [integer(value, name, low=0, high=size - 1) for value, name in ((chosen, "chosen"), (rejected, "rejected"))]
    if pair[0] == pair[1]:
        raise ValueError(f"`chosen` and `rejected` must be different tokens; got {pair[0]} twice")
    return np.array(pair, dtype=np.int64)


def token_ids(values: Any, name: str, size: int) -> Ids:
    """Check a list of token ids and return it as int64.

    Raises
    ------
    TypeError
        If it holds no integers.
    ValueError
        If it is empty, not 1-D, or an id is outside [0, size).
    """
    rule = "must be a list of token ids"
    if isinstance(values, (str, bytes, dict, set, frozenset, np.ma.MaskedArray)) or values is None:
        raise TypeError(f"`{name}` {rule}; got {describe(values)}")
    try:
        array = np.asarray(values.detach().cpu() if is_torch(values) else values)
    except ValueError:
        raise ValueError(f"`{name}` {rule}; got rows of different lengths") from None
    except Exception as error:  # a foreign type may raise anything
        raise TypeError(f"`{name}` {rule}; got {describe(values)}, which numpy cannot read") from error
    if array.ndim != 1:
        raise ValueError(f"`{name}` {rule}, one axis; got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"`{name}` must hold at least one token id; got none")
    if array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold integers; got dtype {array.dtype}")
    outside = np.flatnonzero((array < 0) | (array >= size))
    if outside.size:
        first = int(outside[0])
        raise ValueError(
            f"`{name}` must hold ids from 0 to {size - 1}, the rows of `W`; got {int(array[first])} at index {first}"
        )
    return array.astype(np.int64)


def frozen(values: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """Return a read-only copy for a field of a result."""
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


def require_within_float64(*values: Any, names: str) -> None:
    """Refuse results that overflowed.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError(
            f"{names} are so large that their products are beyond float64; divide them by a constant first"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Next-token probabilities of T states: in full at some tokens, as sums over all others.

    Attributes
    ----------
    ids : ndarray of int64, shape (Y,)
        The tokens held in full, ascending.
    rows : ndarray, shape (Y, d)
        Their rows of W.
    probs : ndarray, shape (T, Y)
        Their probabilities.
    mass : ndarray, shape (T,)
        Probability of all other tokens together.
    mean : ndarray, shape (T, d)
        Sum of p_z W_z over all other tokens.
    gram : ndarray, shape (T, G)
        Sum of p_kz p_k'z over all other tokens, for the first G states as k'.
    """

    ids: Ids
    rows: Floats
    probs: Floats
    mass: Floats
    mean: Floats
    gram: Floats

    def deltas(self, states: NDArray[np.intp], targets: Ids) -> Floats:
        """Return e_target - p at the held tokens, shape (n, Y).

        The entry 1 - p of the target is the sum of all other probabilities, so that it keeps its digits near p = 1.
        """
        place = np.searchsorted(self.ids, targets)
        each = np.arange(targets.size)
        delta = -self.probs[states]
        delta[each, place] = 0.0
        delta[each, place] = self.mass[states] - delta.sum(axis=1)
        return delta

    def pulls(self, states: NDArray[np.intp], delta: Floats) -> Floats:
        """Return u = W^T (e_target - p), the gradient of the log-probability of the target, shape (n, d)."""
        pulled: Floats = delta @ self.rows - self.mean[states]
        return pulled


def read_head(W: Unembedding, states: Floats, ids: Ids, *, gram: int = 0) -> Head:
    """Pass once over the vocabulary, with a running maximum, and keep what the derivatives need.

    Parameters
    ----------
    W : Unembedding
        The matrix.
    states : ndarray, shape (T, d)
        Hidden states.
    ids : ndarray of int64
        Tokens whose probabilities are wanted one by one.
    gram : int
        Number G of leading states whose probabilities are multiplied with those of all states.

    Returns
    -------
    Head
        Probabilities and sums. Cost: 4 T V d + 2 T V G flops (half of the last part where G = T) and T V
        exponentials; memory O(T (block + d + G + Y)).
    """
    held = np.unique(ids)
    rows = W.take(held)
    count, width = states.shape
    mass, mean, products = np.zeros(count), np.zeros((count, width)), np.zeros((count, gram))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        known = states @ rows.T
        top = known.max(axis=1)
        for start, block in W.blocks(max(1, _BLOCK // max(count, width))):
            logits = states @ block.T
            low, high = np.searchsorted(held, (start, start + len(block)))
            logits[:, held[low:high] - start] = -np.inf
            highest = np.maximum(top, logits.max(axis=1))
            if (highest > top).any():
                scale = np.exp(top - highest)
                mass *= scale
                mean *= scale[:, None]
                products *= scale[:, None] * scale[:gram]
                top = highest
            logits -= top[:, None]
            np.exp(logits, out=logits)
            mass += logits.sum(axis=1)
            mean += logits @ block
            if gram:
                first = logits[:gram]
                products[:gram] += first @ first.T  # one buffer: exactly symmetric, and half the work
                products[gram:] += logits[gram:] @ first.T
        known = np.exp(known - top[:, None])
        total = mass + known.sum(axis=1)
        return Head(
            ids=held,
            rows=rows,
            probs=known / total[:, None],
            mass=mass / total,
            mean=mean / total[:, None],
            gram=products / (total[:, None] * total[:gram]),
        )

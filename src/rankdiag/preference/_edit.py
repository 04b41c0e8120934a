"""Edit similarity of two responses on their token ids: bit-parallel, exact, in arbitrary-precision integers.

A column of the table of edit distances is two integers, one bit for each token of the pattern: where it steps up and
where it steps down (Myers 1999, in the form of Hyyrö 2003). A text token then costs a dozen operations on integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch
from rankdiag._validate import describe

__all__ = ["edit_distance", "edit_similarities", "edit_similarity"]


def edit_similarity(chosen_ids: Any, rejected_ids: Any) -> float:
    """Return minus the normalised edit distance of two responses, on token ids.

    Parameters
    ----------
    chosen_ids, rejected_ids : sequence of int, array or torch.Tensor, one axis
        Token ids of the two responses.

    Returns
    -------
    float
        ``-Lev(y+, y-) / max(n+, n-)`` in [-1, 0] with insertions, deletions and substitutions of cost 1; 0 for equal
        sequences, two empty ones among them. Higher is more similar.

    Raises
    ------
    TypeError
        If an argument is no sequence of integers.
    ValueError
        If it has not one axis.

    Notes
    -----
    Exact. Time O(n m / w) with words of w bits, after the common beginning and end are taken off. One of the baselines
    of arXiv 2410.08847, section 5.

    Examples
    --------
    >>> from rankdiag.preference import edit_similarity
    >>> edit_similarity([1, 2, 3, 4], [1, 9, 3, 4])
    -0.25
    """
    a, b = _ids(chosen_ids, "chosen_ids"), _ids(rejected_ids, "rejected_ids")
    longest = max(len(a), len(b))
    return -edit_distance(a, b) / longest if longest else 0.0


def edit_similarities(chosen: Sequence[Any], rejected: Sequence[Any]) -> NDArray[np.float64]:
    """Return the edit similarity of many pairs; see `edit_similarity`."""
    return np.array([edit_similarity(a, b) for a, b in zip(chosen, rejected, strict=True)], dtype=np.float64)


def edit_distance(a: list[int], b: list[int]) -> int:
    """Return the least number of insertions, deletions and substitutions that turn one list into the other."""
    start, stop_a, stop_b = 0, len(a), len(b)
    while start < stop_a and start < stop_b and a[start] == b[start]:
        start += 1
    while stop_a > start and stop_b > start and a[stop_a - 1] == b[stop_b - 1]:
        stop_a, stop_b = stop_a - 1, stop_b - 1
    pattern, text = a[start:stop_a], b[start:stop_b]
    if len(pattern) > len(text):  # the shorter one becomes the bits
        pattern, text = text, pattern
    if not pattern:
        return len(text)
    where: dict[int, int] = {}
    for place, token in enumerate(pattern):
        where[token] = where.get(token, 0) | 1 << place
    size = len(pattern)
    full, top = (1 << size) - 1, 1 << size - 1
    up, down, distance = full, 0, size
    for token in text:
        match = where.get(token, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right_up = down | (full & ~(diagonal | up))
        right_down = up & diagonal
        if right_up & top:
            distance += 1
        elif right_down & top:
            distance -= 1
        right_up = right_up << 1 & full | 1
        up = right_down << 1 & full | (full & ~(diagonal | right_up))
        down = right_up & diagonal
    return distance


def _ids(value: Any, name: str) -> list[int]:
    if is_torch(value):
        if value.device.type == "meta":
            raise ValueError(f"`{name}` is on the meta device and has no data; got {describe(value)}")
        if value.is_nested or ((value.dtype.is_floating_point or value.dtype.is_complex) and value.numel()):
            raise TypeError(f"`{name}` must hold integers; got {describe(value)} of {value.dtype}")
        value = value.detach().cpu().numpy()
    if isinstance(value, (str, bytes, dict, set)) or not hasattr(value, "__len__"):
        raise TypeError(f"`{name}` must be a sequence of token ids; got {describe(value)}")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        raise TypeError(f"`{name}` must be a sequence of token ids; got {describe(value)}") from None
    if array.ndim != 1:
        raise ValueError(f"`{name}` must have one axis; got shape {array.shape}")
    plain = isinstance(value, (list, tuple)) and all(type(token) is int for token in value)
    if array.dtype.kind not in "iu" and plain:
        return list(value)  # beyond 64 bits, where arrays of numpy end
    if len(array) and array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold integers; got dtype {array.dtype}")
    ids: list[int] = array.tolist()
    return ids

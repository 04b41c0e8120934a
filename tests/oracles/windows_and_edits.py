"""Windows around a quantile in fractions, and the table of edit distances row by row for long sequences."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def half_to_even(value):
    """Round a fraction; a half goes to the even neighbour."""
    below = value.numerator // value.denominator
    rest = value - below
    if rest == Fraction(1, 2):
        return below + below % 2
    return below + (rest > Fraction(1, 2))


def window(count, q, num):
    """(start, stop) of `num` places around the quantile `q`, a fraction, of `count` sorted scores."""
    centre = half_to_even(q * (count - 1))
    start = max(0, centre - num // 2)
    if start + num > count:
        start = max(0, count - num)
    return start, min(start + num, count)


def edit_rows(a, b):
    """Unit-cost edit distance by the whole table, one row at a time, so that thousands of tokens take no minutes."""
    a, b = np.array(a, dtype=object), np.array(b, dtype=object)
    places = np.arange(len(b) + 1)
    row = places.copy()
    for i, token in enumerate(a, 1):
        new = np.empty_like(row)
        new[0] = i
        new[1:] = np.minimum(row[1:] + 1, row[:-1] + (b != token))
        row = np.minimum.accumulate(new - places) + places  # insertions: new[j] = min over k <= j of new[k] + j - k
    return int(row[-1])

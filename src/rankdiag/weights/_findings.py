"""What a reader should look at: facts first, then readings; a judgement only where a source backs it."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rankdiag._result import Finding, Threshold

if TYPE_CHECKING:
    from rankdiag.weights._row import WeightRow

__all__ = ["NON_FINITE", "ZERO_WEIGHT", "collapsed", "layer_pattern", "plain_findings"]

NON_FINITE = Threshold(
    quantity="non-finite entries",
    op=">",
    value=0.0,
    severity="alert",
    source="by definition: a matrix with NaN or infinite entries has no singular values, and its model no outputs",
)
ZERO_WEIGHT = Threshold(
    quantity="Frobenius norm of a weight",
    op="==",
    value=0.0,
    severity="warn",
    source="by definition: a zero matrix has rank 0 and passes nothing on",
)

_SIBLINGS = 4  # matrices of one role that a single one is compared with at least
_DROP = 0.5  # of the siblings' median; no source sets this, so such a finding judges nothing
_NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?![A-Za-z0-9_])")


def plain_findings(name: str, *, entries: int, non_finite: int, zero: bool, update: bool) -> list[Finding]:
    """Return what the entries alone say: no numbers, or nothing but zeros.

    Parameters
    ----------
    name : str
        Row.
    entries, non_finite : int
        Entries read, and those that are no numbers.
    zero : bool
        Whether all are zero.
    update : bool
        Whether the matrix is an update, for which zero is a legal state.
    """
    if non_finite:
        return [
            Finding(
                name=name,
                severity="alert",
                sentence=f"{name}: {non_finite} of {entries} entries are NaN or infinite",
                quantity=NON_FINITE.quantity,
                value=float(non_finite),
                threshold=NON_FINITE,
            )
        ]
    if not zero:
        return []
    if update:
        return [Finding(name=name, severity="unknown", sentence=f"{name}: zero update", quantity="fro", value=0.0)]
    return [
        Finding(
            name=name,
            severity="warn",
            sentence=f"{name}: zero weight, every entry is 0",
            quantity="fro",
            value=0.0,
            threshold=ZERO_WEIGHT,
        )
    ]


def layer_pattern(name: str) -> str:
    """Return a name with its numbers replaced, which is the same for all matrices of one role."""
    return _NUMBER.sub("#", name)


def collapsed(rows: Iterable[WeightRow]) -> list[Finding]:
    """Return the matrices whose effective rank ratio is below half the median of their siblings in other layers."""
    groups: dict[str, list[WeightRow]] = {}
    for row in rows:
        if row.effective_rank_ratio is not None and row.fro:
            groups.setdefault(layer_pattern(row.name), []).append(row)
    found = []
    for group in groups.values():
        if len(group) <= _SIBLINGS:
            continue
        ordered = sorted(_ratio(row) for row in group)
        for row in group:
            ratio = _ratio(row)
            median = _median_without(ordered, bisect.bisect_left(ordered, ratio))
            if ratio < _DROP * median:
                found.append(
                    Finding(
                        name=row.name,
                        severity="unknown",
                        sentence=(
                            f"{row.name}: effective rank is {ratio:.3g} of n, less than half the median {median:.3g} "
                            f"of its {len(group) - 1} siblings in other layers"
                        ),
                        quantity="effective_rank_ratio",
                        value=ratio,
                    )
                )
    return found


def _ratio(row: WeightRow) -> float:
    return row.effective_rank_ratio if row.effective_rank_ratio is not None else 0.0


def _median_without(ordered: Sequence[float], left_out: int) -> float:
    """Return the median of an ascending list without one of its places."""
    rest = len(ordered) - 1
    low, high = (rest - 1) // 2, rest // 2
    return 0.5 * sum(ordered[place + (place >= left_out)] for place in (low, high))

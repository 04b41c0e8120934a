"""What every function that runs a model over pairs checks and says of them."""

from __future__ import annotations

from typing import Any, Literal

from rankdiag._validate import describe
from rankdiag.language_models._encoded import EncodedPreferences
from rankdiag.language_models._plan import Plan

__all__ = ["Layout", "encoded_pairs", "remarks_of"]


Layout = Literal["auto", "plain", "packed"]


def encoded_pairs(data: Any) -> EncodedPreferences:
    """Check that data is pairs, at least one."""
    if not isinstance(data, EncodedPreferences):
        raise TypeError(f"`data` must be encoded preference pairs, see encode_preferences; got {describe(data)}")
    if not len(data):
        raise ValueError("`data` must hold at least one pair; got none")
    return data


def remarks_of(made: Plan) -> tuple[str, ...]:
    """Say how the pairs were laid out, and what encoding did to them."""
    pairs = made.data
    remarks = [f"Layout {made.layout}: {made.reason}."]
    if pairs.n_truncated:
        count = "1 pair was" if pairs.n_truncated == 1 else f"{pairs.n_truncated} pairs were"
        remarks.append(f"{count} truncated; {pairs.n_lost_eos} lost the EOS by it.")
    return (*remarks, *pairs.notes)

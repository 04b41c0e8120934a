"""What a run yields: columns over the rows, or over the groups, of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Columns"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Columns of one batch, in the order of the batch.

    Attributes
    ----------
    keys : tuple of str
        Key of the group of each entry. Before `reduce` an entry is a row (a response), and a key repeats once for
        each slot; after it an entry is a group.
    group : ndarray of int64
        Index of the group of each entry in the encoded data.
    slot : ndarray of int64
        Slot of each row; all zero after `reduce`.
    status : tuple of str
        Status of each entry's group.
    values : mapping of str to ndarray or tuple
        Name -> column: an array whose first axis runs over the entries, or a tuple of one array for each entry
        where they are ragged (states, log-probabilities of single tokens).

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.language_models import Columns
    >>> columns = Columns(
    ...     keys=("a",), group=np.array([0]), slot=np.array([0]), status=("ok",), values={"logp": np.array([-3.5])}
    ... )
    >>> len(columns), columns["logp"].tolist()
    (1, [-3.5])
    """

    keys: tuple[str, ...]
    group: Any
    slot: Any
    status: tuple[str, ...]
    values: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

"""Warnings of libraries held back while a call runs, from one thread at a time: the filters belong to the process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_warnings"]

_LOCK = threading.RLock()


@contextmanager
def without_warnings(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Ignore warnings inside a block.

    Python keeps and restores its filters as one list. Two blocks that overlap in time would put back each other's, so
    that a filter outlives them both; the lock lets them run one after the other.

    Parameters
    ----------
    category : type
        Kind of warning to ignore.
    message : str
        Regular expression that their text begins with; empty takes all.

    Yields
    ------
    None

    Examples
    --------
    >>> import warnings
    >>> from rankdiag._warnings import without_warnings
    >>> with without_warnings(DeprecationWarning):
    ...     warnings.warn("old", DeprecationWarning, stacklevel=1)
    """
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message, category=category)
        yield

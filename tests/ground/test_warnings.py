"""Warnings held back in a block: by kind and text, and whole again after blocks of many threads."""

from __future__ import annotations

import threading
import time
import warnings

import pytest

from rankdiag._warnings import without_warnings


def test_kind_and_text_decide():
    with without_warnings(DeprecationWarning, ".*old part"):
        warnings.warn("the old part", DeprecationWarning, stacklevel=1)
        with pytest.raises(DeprecationWarning, match="new"):  # warnings are errors in this suite
            warnings.warn("the new part", DeprecationWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="old"):
            warnings.warn("the old part", UserWarning, stacklevel=1)
    with pytest.raises(DeprecationWarning, match="old"):
        warnings.warn("the old part", DeprecationWarning, stacklevel=1)


def test_blocks_may_nest_and_end_by_an_error():
    before = list(warnings.filters)

    def fail() -> None:
        with without_warnings(), without_warnings(UserWarning):
            warnings.warn("held back", UserWarning, stacklevel=1)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert warnings.filters == before


def test_blocks_of_threads_that_overlap_leave_the_filters_as_they_were():
    before, filters = warnings.filters, list(warnings.filters)

    def work(first: float, inside: float) -> None:
        time.sleep(first)
        with without_warnings(UserWarning):
            time.sleep(inside)

    # The second begins within the first and ends after it: each would put back what it found.
    threads = [threading.Thread(target=work, args=entry) for entry in ((0.0, 0.1), (0.05, 0.1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters is before
    assert warnings.filters == filters

"""Progress bars: off unless asked for, on standard error, and never a reason to fail."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from rankdiag._validate import boolean

__all__ = ["Progress"]


class Progress:
    """A progress bar that costs nothing when it is off.

    tqdm draws it when tqdm is installed and standard error is a terminal; otherwise nothing is drawn.

    Parameters
    ----------
    show : bool
        Whether the caller asked for a bar.
    total : int, optional
        Number of units of work, if it is known.
    label : str
        Words in front of the bar.
    unit : str
        Name of one unit.
    """

    def __init__(self, show: bool, *, total: int | None = None, label: str = "", unit: str = "it") -> None:
        self._bar: Any = None
        if not boolean(show, "progress") or sys.stderr is None:
            return
        try:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc=label, unit=unit, file=sys.stderr, disable=None, leave=False)
        except Exception:  # a missing or broken tqdm must not stop the work it would only decorate
            return

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` more units as done; `note` says what is at hand."""
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(steps)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

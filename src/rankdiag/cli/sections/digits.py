"""The spectrum of a real data set: the handwritten digits that ship with scikit-learn."""

from __future__ import annotations

from pathlib import Path

from rankdiag._optional import optional
from rankdiag._result import Result

__all__ = ["INTRO", "ORDER", "TITLE", "run"]

ORDER = 20
TITLE = "The spectrum of a data set"
INTRO = (
    "The 1797 digits of scikit-learn as one matrix, an image of 64 pixels a row, the mean image taken away. How many "
    "directions carry them is the simplest reading of how compressible a data set is."
)


def run(folder: Path) -> tuple[Result, ...]:
    """Return the spectrum of the centred digits; nothing is written.

    Raises
    ------
    MissingExtraError
        If scikit-learn is missing or broken.
    """
    from rankdiag.spectral import spectrum

    datasets = optional("sklearn.datasets", extra="sklearn", feature="this section of the demo")
    images = datasets.load_digits().data
    return (spectrum(images - images.mean(axis=0)),)

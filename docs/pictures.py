"""The pictures of the concept pages, drawn from what rankdiag computes: ``python docs/pictures.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import rankdiag as rd

SIZE = 64
# Okabe and Ito's palette: told apart by colour-blind readers, too.
INK, SIGMA, STABLE, NUMERICAL = "#444444", "#0072B2", "#D55E00", "#009E73"


def matrix_with(values: np.ndarray) -> np.ndarray:
    """Return a square matrix with these singular values and random singular vectors."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
    right, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
    return (left * values) @ right.T


def four_spectra() -> dict[str, rd.Spectrum]:
    """Return the spectra of the picture on the concept page."""
    index = np.arange(1, SIZE + 1)
    floor = np.where(index <= 4, 1.0, 0.12)
    return {
        "all directions alike": rd.spectrum(matrix_with(np.ones(SIZE))),
        "4 strong directions over a floor": rd.spectrum(matrix_with(floor)),
        "a power law, $s_i = 1/i$": rd.spectrum(matrix_with(1.0 / index)),
        "exactly 5 directions": rd.spectrum(matrix_with(np.where(index <= 5, 1.0, 0.0))),
    }


def draw_four(path: Path) -> None:
    """Draw four spectra of one size with the three readings that answer different questions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 5.4), layout="constrained")
    axes: Any = figure.subplots(2, 2, sharex=True, sharey=True)
    legend_at = (0.5, 0.36, 0.71, 0.5)  # where each panel has room between its lines
    for ax, (title, spectrum), x in zip(axes.flat, four_spectra().items(), legend_at, strict=True):
        ax.fill_between(np.arange(1, SIZE + 1), spectrum.values / spectrum.values[0], step="mid", color="#d7dde3")
        ax.step(np.arange(1, SIZE + 1), spectrum.values / spectrum.values[0], where="mid", color=INK, linewidth=1)
        for name, value, colour, style in (
            ("stable rank", spectrum.stable_rank(), STABLE, ":"),
            ("effective rank", spectrum.effective_rank(), SIGMA, "-"),
            ("numerical rank", spectrum.numerical_rank(), NUMERICAL, "--"),
        ):
            ax.axvline(value, color=colour, linestyle=style, linewidth=2, label=f"{name} {round(value, 1):g}")
        ax.set_title(title, fontsize=10)
        ax.set_ylim(0, 1.08)
        ax.legend(fontsize=8, loc="center", bbox_to_anchor=(x, 0.6))
    for ax in axes[1]:
        ax.set_xlabel("index i of the singular value")
    for ax in axes[:, 0]:
        ax.set_ylabel("$s_i / s_1$")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write an SVG that holds no date, with the letters as shapes."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "rankdiag", "svg.fonttype": "path"}):
        figure.savefig(path, metadata={"Date": None})


def main(folder: Path) -> None:
    """Draw every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_four(folder / "four_spectra.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

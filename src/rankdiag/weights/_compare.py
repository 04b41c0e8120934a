"""Two weight reports side by side: differences and ratios, column by column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._result import Meta, Table
from rankdiag._validate import string

if TYPE_CHECKING:
    from rankdiag.weights._report import WeightReport

__all__ = ["COMPARED", "ComparedCell", "WeightComparison", "compare_reports"]

COMPARED = (
    "stable_rank",
    "effective_rank",
    "erank_energy",
    "participation",
    "numerical_rank",
    "spectral",
    "fro",
    "nuclear",
    "alpha",
    "mp_edge_outliers",
    "condition",
    "effective_rank_ratio",
    "effective_rank_over_baseline",
    "lora_rank_hint",
)
"""Columns that are compared."""

_SHOWN = ("effective_rank", "stable_rank", "numerical_rank", "spectral", "fro")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """One column of one matrix in two reports.

    Attributes
    ----------
    name : str
        Matrix.
    column : str
        Column of the reports.
    before, after : float or None
        Its value in the first and in the second report.
    difference : float or None
        ``after - before``; None unless both have a value.
    ratio : float or None
        ``after / before``; None unless both have a value and the first is not 0.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> before, after = (rd.weight_report({"a": scale * np.eye(2)}) for scale in (1.0, 3.0))
    >>> before.compare(after).cell("a", "spectral").difference
    2.0
    """

    name: str
    column: str
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightComparison(Table[ComparedCell]):
    """What changed between two weight reports: one row for each matrix and column.

    Attributes
    ----------
    rows : tuple of ComparedCell
        Cells of all matrices that both reports hold in one shape.
    only_before, only_after : tuple of str
        Matrices that only one report has.
    reshaped : tuple of str
        Matrices whose shape changed; they are not compared.
    meta : Meta
        Definition, and the sources of both reports.
    verdict : {"unknown"}
        A change alone is neither good nor bad.
    explanation : str
        The largest relative changes of the effective rank.
    thresholds : tuple of Threshold
        Empty.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> before = rd.weight_report({"a.weight": np.eye(3)})
    >>> after = rd.weight_report({"a.weight": np.diag([1.0, 0.0, 0.0])})
    >>> before.compare(after).cell("a.weight", "numerical_rank").difference
    -2.0
    """

    tag: ClassVar[str] = "weights.WeightComparison"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="tensor", doc="Matrix."),
        Column(name="column", doc="Column of the reports."),
        Column(name="before", doc="Value in the first report."),
        Column(name="after", doc="Value in the second report."),
        Column(name="difference", doc="after - before."),
        Column(name="ratio", doc="after / before."),
    )

    rows: tuple[ComparedCell, ...] = ()
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()

    def cell(self, name: str, column: str) -> ComparedCell:
        """Return one cell.

        Parameters
        ----------
        name : str
            Matrix.
        column : str
            Column of the reports.

        Returns
        -------
        ComparedCell
            The cell.

        Raises
        ------
        TypeError
            If an argument is no string.
        ValueError
            If the matrix is not in both reports in one shape, or the column is not compared.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> report = rd.weight_report({"a": np.eye(3)})
        >>> report.compare(report).cell("a", "fro").ratio
        1.0
        """
        wanted = string(name, "name")
        for row in self.of(column):
            if row.name == wanted:
                return row
        raise ValueError(f"`name` must be a matrix that both reports hold in one shape; got {wanted!r}")

    def of(self, column: str) -> tuple[ComparedCell, ...]:
        """Return the cells of one column, in row order.

        Parameters
        ----------
        column : str
            Column of the reports.

        Returns
        -------
        tuple of ComparedCell
            One for each matrix.

        Raises
        ------
        TypeError
            If `column` is no string.
        ValueError
            If it is not compared.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> report = rd.weight_report({"a": np.eye(3), "b": np.eye(2)})
        >>> [cell.name for cell in report.compare(report).of("fro")]
        ['a', 'b']
        """
        if string(column, "column") not in COMPARED:
            raise ValueError(f"`column` must be one of {', '.join(COMPARED)}; got {column!r}")
        return tuple(row for row in self.rows if row.column == column)

    def document(self) -> Document:
        """Return what this comparison shows: the ratios of the main columns, one line for each matrix."""
        names = tuple(dict.fromkeys(row.name for row in self.rows))
        ratios = {(row.name, row.column): row.ratio for row in self.rows}
        shown = tuple(name for name in _SHOWN if any(ratios.get((matrix, name)) is not None for matrix in names))
        effective = [cell for cell in self.of("effective_rank") if cell.ratio is not None]
        plot = Plot(
            title="Change of the effective rank",
            x_label="matrix, in source order",
            y_label="effective rank, after / before",
            series=(
                Series(
                    label="effective rank",
                    x=tuple(float(index) for index in range(len(effective))),
                    y=tuple(cell.ratio if cell.ratio is not None else math.nan for cell in effective),
                    kind="points",
                    names=tuple(cell.name for cell in effective),
                ),
            ),
            lines=(ReferenceLine(axis="y", value=1.0, label="no change"),),
            description="Effective rank of each matrix in the second report over that in the first.",
        )
        return Document(
            title="Comparison of two weight reports",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="matrices compared", value=len(names)),
                KeyNumber(label="only before", value=len(self.only_before)),
                KeyNumber(label="only after", value=len(self.only_after)),
                KeyNumber(label="shape changed", value=len(self.reshaped)),
            ),
            grids=(
                Grid(
                    title="Ratios, after / before",
                    columns=(
                        Column(name="name", label="tensor"),
                        *(Column(name=name, label=name.replace("_", " ")) for name in shown),
                    ),
                    rows=tuple((name, *(ratios.get((name, column)) for column in shown)) for name in names),
                ),
            ),
            plots=(plot,) if effective else (),
            notes=(*self.notes(), *self._unmatched()),
        )

    def _unmatched(self) -> tuple[str, ...]:
        groups = (
            ("Only before", self.only_before),
            ("Only after", self.only_after),
            ("Shape changed, not compared", self.reshaped),
        )
        return tuple(f"{label}: {', '.join(names)}." for label, names in groups if names)


def compare_reports(before: WeightReport, after: WeightReport) -> WeightComparison:
    """Compare two reports; see `WeightReport.compare`."""
    first, second = {row.name: row for row in before.rows}, {row.name: row for row in after.rows}
    common = [name for name in first if name in second]
    reshaped = tuple(name for name in common if first[name].shape != second[name].shape)
    rows = [
        _cell(name, column, getattr(first[name], column), getattr(second[name], column))
        for name in common
        if name not in reshaped
        for column in COMPARED
    ]
    return WeightComparison(
        rows=tuple(rows),
        only_before=tuple(name for name in first if name not in second),
        only_after=tuple(name for name in second if name not in first),
        reshaped=reshaped,
        explanation=_explain(rows),
        meta=Meta(
            definition="columns of two weight reports: after - before, and after / before",
            n=len(common) - len(reshaped),
            details={
                "before": before.meta.details.get("source"),
                "after": after.meta.details.get("source"),
            },
        ),
    )


def _cell(name: str, column: str, before: float | None, after: float | None) -> ComparedCell:
    both = before is not None and after is not None
    difference = after - before if both else None  # type: ignore[operator]  # `both` says that neither is None
    ratio = after / before if both and before else None  # type: ignore[operator]  # as above
    return ComparedCell(
        name=name,
        column=column,
        before=None if before is None else float(before),
        after=None if after is None else float(after),
        difference=None if difference is None else float(difference),
        ratio=None if ratio is None else float(ratio),
    )


def _explain(rows: list[ComparedCell]) -> str:
    moved = [row for row in rows if row.column == "effective_rank" and row.ratio]
    if not moved:
        return "No matrix has an effective rank in both reports."
    moved.sort(key=lambda row: row.ratio or 1.0)
    low, high = moved[0], moved[-1]
    return (
        f"The effective rank of {len(moved)} matrices is compared. It fell most in {low.name} (to {low.ratio:.3g} of "
        f"what it was) and rose most in {high.name} (to {high.ratio:.3g}); a sudden drop of one matrix against its "
        "siblings is a collapse of that layer."
    )

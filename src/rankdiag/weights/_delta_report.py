"""The delta report: a table of updates that accounts for every tensor of both sides."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from rankdiag._document import Column, Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._result import Finding, Table, Threshold
from rankdiag._rules import flag
from rankdiag.weights._delta_row import DELTA_COLUMNS, WeightDeltaRow
from rankdiag.weights._report import (
    find_row,
    findings_grid,
    group_skipped,
    levels_of,
    shown_columns,
    spectra_plot,
    weighted_mean,
)
from rankdiag.weights._row import LOW_RANK_RATIO

__all__ = ["WeightDeltaReport", "explain_delta"]

_MAIN = (
    "name",
    "shape",
    "status",
    "update",
    "n",
    "relative_norm",
    "effective_rank",
    "effective_rank_ratio",
    "numerical_rank",
    "rank_rtol",
    "rank_above_rounding",
    "lora_rank_hint",
    "stable_rank",
    "changed_fraction",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightDeltaReport(Table[WeightDeltaRow]):
    """Spectra of all updates between two checkpoints, one row each.

    Rows, `skipped` and `aliases` together account for every tensor of both sides.

    Attributes
    ----------
    rows : tuple of WeightDeltaRow
        Updates in the order of the tuned side, then what only the base has.
    aliases : mapping of str to str
        Tied tensors -> the name under which they are reported, once.
    findings : tuple of Finding
        Non-finite updates, and adapters that change nothing.
    meta : Meta
        Definition, options, and the skipped tensors with their reasons.
    verdict : {"alert", "unknown"}
        ``"alert"`` for non-finite entries, else ``"unknown"``: a low-rank update is neither good nor bad.
    explanation : str
        How to read the numbers.
    thresholds : tuple of Threshold
        The bound behind the verdict.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> base = {"layer.weight": np.eye(6)}
    >>> tuned = {"layer.weight": np.eye(6) + np.ones((6, 6))}
    >>> (row,) = rd.weight_delta_report(base, tuned).rows
    >>> row.status, row.update, row.numerical_rank, round(row.relative_norm, 4)
    ('changed', 'low rank', 1, 2.4495)
    """

    tag: ClassVar[str] = "weights.WeightDeltaReport"
    columns: ClassVar[tuple[Column, ...]] = DELTA_COLUMNS

    rows: tuple[WeightDeltaRow, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def skipped(self) -> Mapping[str, str]:
        """Tensor -> why it has no row; the same as ``meta.skipped``."""
        return self.meta.skipped

    def row(self, name: str) -> WeightDeltaRow:
        """Return the row of a name.

        Parameters
        ----------
        name : str
            Name of a row: a tensor, or ``"tensor[part]"``.

        Returns
        -------
        WeightDeltaRow
            The row.

        Raises
        ------
        TypeError
            If `name` is no string.
        ValueError
            If there is no such row; the message says why, if the tensor was skipped or is tied.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> rd.weight_delta_report({"a": np.eye(3)}, {"a": np.eye(3)}).row("a").status
        'identical'
        """
        found: WeightDeltaRow = find_row(name, self.rows, self.skipped, self.aliases)
        return found

    def flag(self, rules: Iterable[str | Threshold]) -> tuple[Finding, ...]:
        """Compare every row with declarative thresholds; see `WeightReport.flag`.

        Parameters
        ----------
        rules : iterable of str or Threshold
            ``"COLUMN OP NUMBER"``, ``"alert"``, ``"warn"``, or thresholds.

        Returns
        -------
        tuple of Finding
            One for each row that meets a rule; severity ``"unknown"`` where a row has no value to compare.

        Raises
        ------
        TypeError
            If `rules` is a single string, or holds something that is no rule.
        ValueError
            If a rule does not parse or names an unknown column.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> report = rd.weight_delta_report({"a": np.eye(3)}, {"a": 2 * np.eye(3)})
        >>> [finding.sentence for finding in report.flag(["relative_norm > 0.5"])]
        ['a: relative_norm 1 > 0.5']
        """
        return flag(self, rules)

    def notes(self) -> tuple[str, ...]:
        """Return the conventions as sentences, with skipped tensors counted by reason."""
        base = dataclasses.replace(self.meta, skipped={})
        lines = super(WeightDeltaReport, dataclasses.replace(self, meta=base)).notes()  # short form fails with slots
        return (
            *lines,
            "The numerical rank uses the tolerance of the coarser dtype of the two sides, relative to the largest "
            "singular value of the update. Stored weights are rounded, so that a 16-bit update carries noise of full "
            "rank; the rank above rounding counts what stands out of it.",
            *group_skipped(self.skipped, self.aliases),
        )

    def document(self) -> Document:
        """Return what this report shows: key numbers, findings, the main columns and plots."""
        rows = self.rows
        grids = [self.grid("Updates", shown_columns(_MAIN, rows), levels_of(rows, self.findings))] if rows else []
        if self.findings:
            grids.insert(0, findings_grid(self.findings))
        details = self.meta.details
        return Document(
            title=f"Updates from {details.get('base', 'a base')} to {details.get('tuned', 'a tuned model')}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=self._key_numbers(),
            grids=tuple(grids),
            plots=tuple(plot for plot in (_size_plot(rows), _rank_plot(rows), spectra_plot(rows)) if plot.series),
            notes=self.notes(),
        )

    def _key_numbers(self) -> tuple[KeyNumber, ...]:
        rows = self.rows
        status = Counter(row.status for row in rows)
        numbers = [KeyNumber(label=name, value=count, unit="matrices") for name, count in sorted(status.items())]
        numbers.append(KeyNumber(label="tensors skipped", value=len(self.skipped), doc="each with its reason"))
        moved = [row for row in rows if row.update not in {"", "none", "rounding only"}]
        for name, label in (
            ("relative_norm", "mean update norm / base norm"),
            ("effective_rank_ratio", "mean effective rank / n of updates"),
        ):
            value = weighted_mean(moved, name)
            if value is not None:
                numbers.append(KeyNumber(label=label, value=value, doc="weighted by parameters"))
        hints = [row.lora_rank_hint for row in moved if row.lora_rank_hint is not None]
        if hints:
            numbers.append(
                KeyNumber(
                    label="largest LoRA rank hint",
                    value=max(hints),
                    doc="a rank that keeps 95 % of the energy of every update",
                )
            )
        return tuple(numbers)


def explain_delta(rows: Sequence[WeightDeltaRow], findings: Sequence[Finding], skipped: Mapping[str, str]) -> str:
    """Say in one paragraph what the updates mean."""
    if not rows:
        reasons = Counter(skipped.values()).most_common(3)
        listing = ", ".join(f"{reason} ({count})" for reason, count in reasons)
        return f"No update to report: {listing or 'the sources hold no tensors'}."
    compared = [row for row in rows if row.update]
    kinds = Counter(row.update for row in compared)
    parts = []
    if kinds["none"]:
        parts.append(f"{kinds['none']} of {len(compared)} compared matrices are the same on both sides.")
    low = kinds["low rank"] + kinds["low rank above rounding"]
    if low:
        parts.append(
            f"{_updates(low)} low rank (effective rank below {LOW_RANK_RATIO:g} n, or only so many values above what "
            "rounding makes): an adapter of small rank would do nearly the same."
        )
    if kinds["dense"]:
        parts.append(f"{_updates(kinds['dense'])} dense, spread over many directions.")
    if kinds["rounding only"]:
        parts.append(
            f"{_updates(kinds['rounding only'])} no larger than what rounding the weights makes: nothing can be said "
            "of the rank."
        )
    moved = [row for row in rows if row.relative_norm]
    if moved:
        largest = max(moved, key=lambda row: row.relative_norm or 0.0)
        parts.append(f"The largest relative change is {largest.relative_norm:.3g}, of {largest.name}.")
    lonely = sum(row.status.startswith("only in") or row.status == "shape differs" for row in rows)
    if lonely:
        parts.append(f"{lonely} matrices have no counterpart of their shape.")
    grave = [finding for finding in findings if finding.severity == "alert"]
    parts += [f"{finding.sentence}." for finding in grave[:3]]
    return " ".join(parts)


def _updates(count: int) -> str:
    return "1 update is" if count == 1 else f"{count} updates are"


def _points(rows: Sequence[WeightDeltaRow], column: str, label: str) -> tuple[Series, ...]:
    known = [(index, getattr(row, column), row.name) for index, row in enumerate(rows)]
    kept = [(index, value, name) for index, value, name in known if value is not None]
    if not kept:
        return ()
    return (
        Series(
            label=label,
            x=tuple(float(index) for index, _, _ in kept),
            y=tuple(float(value) for _, value, _ in kept),
            kind="points",
            names=tuple(name for _, _, name in kept),
        ),
    )


def _size_plot(rows: Sequence[WeightDeltaRow]) -> Plot:
    return Plot(
        title="Size of each update",
        x_label="matrix, in source order",
        y_label="norm of the update / norm of the base",
        series=_points(rows, "relative_norm", "relative norm"),
        y_scale="log",
        description="Frobenius norm of each update over that of the matrix it changed.",
    )


def _rank_plot(rows: Sequence[WeightDeltaRow]) -> Plot:
    moved = [
        row if row.update not in {"", "none"} else dataclasses.replace(row, effective_rank_ratio=None) for row in rows
    ]
    return Plot(
        title="Effective rank of each update",
        x_label="matrix, in source order",
        y_label="effective rank / n",
        series=_points(moved, "effective_rank_ratio", "effective rank / n"),
        lines=(ReferenceLine(axis="y", value=LOW_RANK_RATIO, label="strongly low rank"),),
        description="Effective rank of each update over the number of its singular values.",
    )

"""The weight report: a table of matrices that accounts for every tensor, and says what it means."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series, Verdict
from rankdiag._result import Finding, Table, Threshold, worst
from rankdiag._rules import flag
from rankdiag._validate import describe, string
from rankdiag.weights._row import LOW_RANK_RATIO, NAMING, SPECTRAL_COLUMNS, WeightRow, sketch_positions

if TYPE_CHECKING:
    from rankdiag.weights._compare import WeightComparison

__all__ = ["WeightReport", "find_row", "group_skipped", "levels_of", "shown_columns", "spectra_plot", "weighted_mean"]

_MAIN = (
    "name",
    "shape",
    "kind",
    "n",
    "stable_rank",
    "effective_rank",
    "effective_rank_ratio",
    "effective_rank_over_baseline",
    "numerical_rank",
    "rank_rtol",
    "lora_rank_hint",
    "spectral",
    "alpha",
    "n_tail",
    "mp_edge_outliers",
)
_WORST = 5
_PLOT_FLOOR = 1e-6  # of the largest value; what lies below would squeeze all else


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightReport(Table[WeightRow]):
    """Spectra of all weight matrices of a model, one row each.

    Rows, `skipped` and `aliases` together account for every tensor of the source.

    Attributes
    ----------
    rows : tuple of WeightRow
        Matrices in source order; the columns are documented in `WeightRow`.
    aliases : mapping of str to str
        Tied tensors -> the name under which they are reported, once.
    findings : tuple of Finding
        What to look at: non-finite or zero matrices, and layers that fall behind their siblings.
    meta : Meta
        Definition, options, seed, and the skipped tensors with their reasons.
    verdict : {"alert", "warn", "unknown"}
        ``"alert"`` for non-finite entries, ``"warn"`` for a zero weight, else ``"unknown"``: no theory sets a bound
        on the rank of a healthy weight.
    explanation : str
        How to read the numbers.
    thresholds : tuple of Threshold
        The two bounds behind the verdict.

    Examples
    --------
    >>> import numpy as np
    >>> import rankdiag as rd
    >>> weights = {"layer.weight": np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), "layer.bias": np.zeros(3)}
    >>> report = rd.weight_report(weights)
    >>> report.skipped
    {'layer.bias': 'bias/norm, not a matrix'}
    >>> (row,) = report.rows
    >>> round(row.stable_rank, 4), round(row.effective_rank, 4), row.numerical_rank
    (1.1111, 1.7548, 2)
    """

    tag: ClassVar[str] = "weights.WeightReport"
    columns: ClassVar[tuple[Column, ...]] = NAMING + SPECTRAL_COLUMNS

    rows: tuple[WeightRow, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def skipped(self) -> Mapping[str, str]:
        """Tensor -> why it has no row; the same as ``meta.skipped``."""
        return self.meta.skipped

    def row(self, name: str) -> WeightRow:
        """Return the row of a name.

        Parameters
        ----------
        name : str
            Name of a row: a tensor, or ``"tensor[part]"``.

        Returns
        -------
        WeightRow
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
        >>> rd.weight_report({"a.weight": np.eye(3), "a.bias": np.ones(3)}).row("a.weight").numerical_rank
        3
        """
        found: WeightRow = find_row(name, self.rows, self.skipped, self.aliases)
        return found

    def flag(self, rules: Iterable[str | Threshold]) -> tuple[Finding, ...]:
        """Compare every row with declarative thresholds.

        Parameters
        ----------
        rules : iterable of str or Threshold
            ``"COLUMN OP NUMBER"`` such as ``"effective_rank_ratio < 0.05"``, ``"alert"``, ``"warn"``, or thresholds
            with a severity and source of their own.

        Returns
        -------
        tuple of Finding
            One for each row that meets a rule; severity ``"unknown"`` where a row has no value to compare.

        Raises
        ------
        TypeError
            If `rules` is a single string, or holds something that is no rule.
        ValueError
            If a rule does not parse or names an unknown column; the message lists the columns.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> report = rd.weight_report({"a.weight": np.ones((40, 40)), "b.weight": np.eye(40)})
        >>> [finding.sentence for finding in report.flag(["effective_rank_ratio < 0.05"])]
        ['a.weight: effective_rank_ratio 0.025 < 0.05']
        """
        return flag(self, rules)

    def compare(self, other: WeightReport) -> WeightComparison:
        """Compare with another report, row by row and column by column.

        Parameters
        ----------
        other : WeightReport
            The later one, say; rows are matched by name.

        Returns
        -------
        WeightComparison
            Differences and ratios of every column, and the rows that only one report has.

        Raises
        ------
        TypeError
            If `other` is no weight report.

        Examples
        --------
        >>> import numpy as np
        >>> import rankdiag as rd
        >>> before = rd.weight_report({"a.weight": np.eye(4)})
        >>> after = rd.weight_report({"a.weight": 2 * np.diag([1.0, 1.0, 0.0, 0.0])})
        >>> change = before.compare(after).cell("a.weight", "effective_rank")
        >>> round(change.difference, 12), round(change.ratio, 12)
        (-2.0, 0.5)
        """
        from rankdiag.weights._compare import compare_reports

        if not isinstance(other, WeightReport):
            raise TypeError(f"`other` must be a WeightReport; got {describe(other)}")
        return compare_reports(self, other)

    def notes(self) -> tuple[str, ...]:
        """Return the conventions as sentences, with skipped tensors counted by reason."""
        base = dataclasses.replace(self.meta, skipped={})
        lines = super(WeightReport, dataclasses.replace(self, meta=base)).notes()  # short form fails with slots
        return (*lines, *group_skipped(self.skipped, self.aliases))

    def document(self) -> Document:
        """Return what this report shows: key numbers, findings, the main columns, the lowest ranks, and plots."""
        rows = self.rows
        lowest = sorted((row for row in rows if row.effective_rank_ratio is not None), key=_ratio)[:_WORST]
        levels = levels_of(rows, self.findings)
        grids = [self.grid("Matrices", shown_columns(_MAIN, rows), levels)] if rows else []
        if len(rows) > 2 * _WORST and lowest:
            grids.insert(0, _lowest_grid(lowest))
        if self.findings:
            grids.insert(0, findings_grid(self.findings))
        return Document(
            title=f"Weights of {self.meta.details.get('source', 'a model')}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=self._key_numbers(),
            grids=tuple(grids),
            plots=tuple(plot for plot in (_rank_plot(rows), _stable_plot(rows), spectra_plot(rows)) if plot.series),
            notes=self.notes(),
        )

    def _key_numbers(self) -> tuple[KeyNumber, ...]:
        rows = self.rows
        numbers = [
            KeyNumber(label="matrices", value=len(rows)),
            KeyNumber(label="parameters in them", value=sum(row.parameters for row in rows)),
            KeyNumber(label="tensors skipped", value=len(self.skipped), doc="each with its reason"),
            KeyNumber(label="tied tensors", value=len(self.aliases), doc="reported once"),
        ]
        means = (
            ("effective_rank_ratio", "mean effective rank / n", "weighted by parameters"),
            ("effective_rank_over_baseline", "mean effective rank / random", "near 1 looks random; by parameters"),
            ("stable_rank", "mean stable rank", "weighted by parameters"),
            ("alpha", "mean alpha", "weighted by parameters"),
        )
        for name, label, doc in means:
            value = weighted_mean(rows, name)
            if value is not None:
                numbers.append(KeyNumber(label=label, value=value, doc=doc))
        return tuple(numbers)


def find_row(name: Any, rows: Sequence[Any], skipped: Mapping[str, str], aliases: Mapping[str, str]) -> Any:
    """Return the row of a name, or say why there is none."""
    wanted = string(name, "name")
    for row in rows:
        if row.name == wanted:
            return row
    tied = f"it is tied to {aliases[wanted]}" if wanted in aliases else "there is no such tensor"
    why = skipped.get(wanted, tied)
    raise ValueError(f"`name` must be the name of a row; got {wanted!r}: {why}")


def weighted_mean(rows: Sequence[WeightRow], name: str) -> float | None:
    """Return the mean of a column over the rows that have it, weighted by parameters; None if no row has it."""
    pairs = [(row.parameters, getattr(row, name)) for row in rows if getattr(row, name) is not None]
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total if total else None


def explain(rows: Sequence[WeightRow], findings: Sequence[Finding], skipped: Mapping[str, str]) -> str:
    """Say in one paragraph what the rows mean."""
    if not rows:
        reasons = Counter(skipped.values())
        listing = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        return f"No matrix to report: {listing or 'the source holds no tensors'}."
    parts = []
    known = [row for row in rows if row.effective_rank_ratio is not None]
    low = [row for row in known if _ratio(row) < LOW_RANK_RATIO]
    verb = "is" if len(low) == 1 else "are"
    mean = weighted_mean(rows, "effective_rank_ratio")
    if mean is not None:
        parts.append(
            f"On average {mean:.2g} of the directions of a matrix are of comparable size (effective rank over n)."
        )
        parts.append(
            f"{len(low)} of {len(known)} matrices {verb} strongly low rank (below {LOW_RANK_RATIO:g}), hence "
            "compressible."
            if low
            else f"None of {len(known)} matrices is strongly low rank (below {LOW_RANK_RATIO:g})."
        )
    over = weighted_mean(rows, "effective_rank_over_baseline")
    if over is not None:
        parts.append(
            f"The effective rank is {over:.2g} times that of random matrices of these shapes; near 1 looks random "
            "(untrained or frozen)."
        )
    if mean is None:
        stable = weighted_mean(rows, "stable_rank")
        if stable is not None:
            parts.append(
                f"The stable rank is {stable:.3g} on average; it reacts only to the largest value of each spectrum."
            )
    grave = [finding for finding in findings if finding.severity in {"warn", "alert"}]
    parts += [f"{finding.sentence}." for finding in grave[:3]]
    if len(grave) > 3:
        parts.append(f"{len(grave) - 3} more such findings.")
    return " ".join(parts)


def group_skipped(skipped: Mapping[str, str], aliases: Mapping[str, str]) -> tuple[str, ...]:
    """Return one sentence for each reason, with how many tensors it concerns and the first few names."""
    groups: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        groups.setdefault(reason, []).append(name)
    lines = [f"Skipped {len(names)}: {reason} ({_first_names(names)})." for reason, names in groups.items()]
    if aliases:
        lines.append(f"Tied, reported once: {_first_names([f'{k} = {v}' for k, v in aliases.items()])}.")
    return tuple(lines)


def _first_names(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def levels_of(rows: Sequence[Any], findings: Sequence[Finding]) -> tuple[Verdict, ...]:
    """Return the gravest finding of each row."""
    graves: dict[str, list[Verdict]] = {}
    for finding in findings:
        graves.setdefault(finding.name, []).append(finding.severity)
    return tuple(worst(graves.get(row.name, [])) for row in rows)


def shown_columns(names: Sequence[str], rows: Sequence[Any]) -> tuple[str, ...]:
    """Return those columns in which at least one row has a value."""
    return tuple(name for name in names if any(getattr(row, name) not in {None, ""} for row in rows))


def findings_grid(findings: Sequence[Finding]) -> Grid:
    """Return the findings as a table."""
    return Grid(
        title="Findings",
        columns=(Column(name="finding"), Column(name="severity")),
        rows=tuple(
            (finding.sentence, "note" if finding.severity == "unknown" else finding.severity) for finding in findings
        ),
        levels=tuple(finding.severity for finding in findings),
    )


def _lowest_grid(rows: Sequence[WeightRow]) -> Grid:
    names = ("name", "effective_rank_ratio", "effective_rank", "n", "stable_rank")
    known = {column.name: column for column in WeightReport.columns}
    return Grid(
        title="Lowest effective rank",
        columns=tuple(known[name] for name in names),
        rows=tuple(tuple(getattr(row, name) for name in names) for row in rows),
    )


def _ratio(row: WeightRow) -> float:
    return row.effective_rank_ratio if row.effective_rank_ratio is not None else 1.0


def _rank_plot(rows: Sequence[WeightRow]) -> Plot:
    known = [(index, row) for index, row in enumerate(rows) if row.effective_rank_ratio is not None]
    random = [
        (index, row.baseline_effective_rank / row.n)
        for index, row in enumerate(rows)
        if row.baseline_effective_rank is not None and row.n
    ]
    series = []
    if known:
        series.append(
            Series(
                label="effective rank / n",
                x=tuple(float(index) for index, _ in known),
                y=tuple(_ratio(row) for _, row in known),
                kind="points",
                names=tuple(row.name for _, row in known),
            )
        )
        if random:
            series.append(
                Series(
                    label="random matrix of this shape",
                    x=tuple(float(index) for index, _ in random),
                    y=tuple(value for _, value in random),
                    kind="steps",
                )
            )
    return Plot(
        title="Effective rank of each matrix",
        x_label="matrix, in source order",
        y_label="effective rank / n",
        series=tuple(series),
        lines=(ReferenceLine(axis="y", value=LOW_RANK_RATIO, label="strongly low rank"),),
        description="Effective rank over the number of singular values, beside that of a random matrix.",
    )


def _stable_plot(rows: Sequence[WeightRow]) -> Plot:
    known = [(index, row.stable_rank, row.name) for index, row in enumerate(rows) if row.stable_rank]
    series = (
        Series(
            label="stable rank",
            x=tuple(float(index) for index, _, _ in known),
            y=tuple(value for _, value, _ in known),
            kind="points",
            names=tuple(name for _, _, name in known),
        ),
    )
    return Plot(
        title="Stable rank of each matrix",
        x_label="matrix, in source order",
        y_label="stable rank (directions)",
        series=series if known else (),
        y_scale="log",
        description="Sum of squared singular values over the largest squared; reacts only to the top value.",
    )


def spectra_plot(rows: Sequence[Any]) -> Plot:
    """Return the spectra of a few matrices: lowest, middle and highest effective rank ratio."""
    known = sorted((row for row in rows if row.sketch and row.effective_rank_ratio is not None), key=_ratio)
    picked = known if len(known) <= 5 else [*known[:2], known[len(known) // 2], *known[-2:]]
    series = []
    for row in picked:
        places = sketch_positions(row.n)
        series.append(
            Series(
                label=row.name,
                x=tuple((place + 1) / row.n for place in places),
                y=tuple(value if value > _PLOT_FLOOR else math.nan for value in row.sketch),
                kind="line",
            )
        )
    return Plot(
        title="Spectra from the lowest to the highest effective rank",
        x_label="position in the spectrum, i / n",
        y_label="singular value over the largest, s_i / s_1",
        series=tuple(series),
        x_scale="log",
        y_scale="log",
        description="Singular values of a few matrices, each over its largest; below 1e-6 they are left out.",
    )

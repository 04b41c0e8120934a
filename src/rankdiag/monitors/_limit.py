"""The gate of the displacement monitor: when a run has displaced enough to be stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankdiag._validate import integer, real

if TYPE_CHECKING:
    from rankdiag.preference import DisplacementReport

__all__ = ["DisplacementLimit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplacementLimit:
    """How far preferred responses may fall before a run is stopped.

    A probe exceeds the limit if any of the bounds that are set is crossed. Training stops after `patience` such probes
    in a row, so that one noisy probe stops nothing.

    The size of a displacement does not measure its harm; where the probability went does. So no bound here is a
    verdict: it is what *you* want to look at before more compute is spent.

    Attributes
    ----------
    mean_below : float or None
        Lower bound of the mean change of ln pi(chosen), in nats for each response. Longer responses fall further.
    patience : int
        Probes in a row that must exceed the limit.
    displaced_fraction_above : float or None
        Upper bound, in [0, 1), of the share of pairs whose chosen response fell.
    per_token_below : float or None
        Lower bound of the mean change of ln pi(chosen) for each token, in nats; it does not depend on length.

    Raises
    ------
    TypeError
        If a bound is no number, or `patience` no integer.
    ValueError
        If no bound is set, a bound is not finite or no share, or `patience` is below 1.

    Examples
    --------
    >>> from rankdiag.monitors import DisplacementLimit
    >>> from rankdiag.preference import LogProbs, displacement_report
    >>> before = LogProbs(chosen=[-42.0, -30.0], rejected=[-50.0, -35.0], n_chosen=[6, 5], n_rejected=[9, 5])
    >>> after = LogProbs(chosen=[-52.0, -33.0], rejected=[-80.0, -60.0], n_chosen=[6, 5], n_rejected=[9, 5])
    >>> report = displacement_report(before, after)
    >>> DisplacementLimit(mean_below=-5.0).exceeded(report)
    ('mean change of ln pi(chosen) is -6.5 nat, below -5',)
    >>> DisplacementLimit(mean_below=-10.0).exceeded(report)
    ()
    """

    mean_below: float | None = -5.0
    patience: int = 3
    displaced_fraction_above: float | None = None
    per_token_below: float | None = None

    def __post_init__(self) -> None:
        integer(self.patience, "patience", low=1)
        for name in ("mean_below", "per_token_below"):
            if getattr(self, name) is not None:
                real(getattr(self, name), name)
        if self.displaced_fraction_above is not None:
            real(self.displaced_fraction_above, "displaced_fraction_above", low=0.0, high=1.0, high_open=True)
        if self.mean_below is None and self.displaced_fraction_above is None and self.per_token_below is None:
            raise ValueError(
                "a limit needs a bound; set `mean_below`, `displaced_fraction_above` or `per_token_below`, or leave "
                "`stop_if` of the monitor out"
            )

    def exceeded(self, report: DisplacementReport) -> tuple[str, ...]:
        """Say which bounds one probe crosses.

        Parameters
        ----------
        report : DisplacementReport
            What the probe measured.

        Returns
        -------
        tuple of str
            One sentence for each bound that is crossed, with both numbers; empty if none is.
        """
        found = []
        mean, fraction = report.mean_delta_chosen, report.displaced_fraction
        per_token = report.mean_per_token_delta_chosen
        if self.mean_below is not None and mean < self.mean_below:
            found.append(f"mean change of ln pi(chosen) is {mean:.4g} nat, below {self.mean_below:g}")
        if self.displaced_fraction_above is not None and fraction > self.displaced_fraction_above:
            found.append(f"share of displaced pairs is {fraction:.4g}, above {self.displaced_fraction_above:g}")
        if self.per_token_below is not None and per_token < self.per_token_below:
            found.append(f"mean change per token of chosen is {per_token:.4g} nat, below {self.per_token_below:g}")
        return tuple(found)

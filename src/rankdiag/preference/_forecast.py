"""A forecast beside its outcome: how well a score, or a predicted change, told what training did to each pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, describe, string
from rankdiag.preference._log_probs import LogProbs, name_pairs, points_to_show

__all__ = ["ForecastReport", "forecast_report"]

Floats = NDArray[np.float64]
Kind = Literal["score", "change"]

_NORMAL_95 = 1.959963984540054
_FIELLER = 1.06  # variance of atanh of a rank correlation is 1.06 / (n - 3): Fieller, Hartley and Pearson, 1957
_FEWEST = 4  # pairs below which that variance does not exist


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastReport(Result):
    """What was predicted for each pair, and what happened to it.

    Attributes
    ----------
    predicted : ndarray of float64, shape (N,)
        The forecast; NaN where a pair is unusable.
    change : ndarray of float64, shape (N,)
        ln pi_after(chosen) - ln pi_before(chosen), in nats.
    kind : {"score", "change"}
        ``"score"``: higher predicts a fall. ``"change"``: the predicted change itself, in nats.
    name : str
        What the forecast is called.
    keys : tuple of str or None
        One for each pair.
    spearman : float
        Rank correlation of the forecast with the change: -1 is perfect for a score, +1 for a predicted change. NaN if
        either is constant.
    spearman_interval : tuple of float
        Its 95 % interval; NaN below four pairs.
    sign_agreement : float
        Share of pairs whose fall or rise was told.
    displaced_fraction : float
        Share of pairs whose chosen response fell.

    Examples
    --------
    >>> from rankdiag.preference import LogProbs, forecast_report
    >>> before = LogProbs(chosen=[-9.0, -8.0], rejected=[-9.0, -9.0], n_chosen=[3, 3], n_rejected=[3, 3])
    >>> after = LogProbs(chosen=[-9.5, -7.0], rejected=[-9.0, -9.0], n_chosen=[3, 3], n_rejected=[3, 3])
    >>> forecast_report([0.5, -0.5], before, after, kind="score").sign_agreement
    1.0
    """

    tag: ClassVar[str] = "preference.ForecastReport"

    predicted: NDArray[np.float64]
    change: NDArray[np.float64]
    kind: Kind
    name: str
    keys: tuple[str, ...] | None
    spearman: float
    spearman_interval: tuple[float, float]
    sign_agreement: float
    displaced_fraction: float

    def document(self) -> Document:
        """Return what this report shows: the correlation, how often the sign is right, and one against the other."""
        low, high = self.spearman_interval
        return Document(
            title=f"Forecast against outcome: {self.name}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(
                    label="Spearman",
                    value=self.spearman,
                    doc=f"95 % interval {low:.2f} to {high:.2f}; {self._perfect} is perfect.",
                ),
                KeyNumber(
                    label="sign right", value=self.sign_agreement, doc="Share of pairs whose fall or rise was told."
                ),
                KeyNumber(
                    label="displaced", value=self.displaced_fraction, doc="Share of pairs whose chosen response fell."
                ),
                KeyNumber(label="pairs", value=int(self._usable.sum())),
            ),
            plots=(self._plot(),),
            notes=self.notes(),
        )

    @property
    def _usable(self) -> NDArray[np.bool_]:
        return np.isfinite(self.predicted) & np.isfinite(self.change)

    @property
    def _perfect(self) -> str:
        return "-1" if self.kind == "score" else "+1"

    def _plot(self) -> Plot:
        shown = points_to_show(np.flatnonzero(self._usable))
        unit = " (nat)" if self.kind == "change" else ""
        return Plot(
            title="Forecast against outcome",
            x_label=f"{self.name}{unit}",
            y_label="change of ln pi(chosen | prompt) (nat)",
            series=(
                Series(
                    label="pairs",
                    x=self.predicted[shown].tolist(),
                    y=self.change[shown].tolist(),
                    kind="points",
                    names=name_pairs(shown, self.keys),
                ),
            ),
            lines=(
                ReferenceLine(axis="x", value=0.0, label="no change predicted"),
                ReferenceLine(axis="y", value=0.0, label="below: displaced"),
            ),
            description=f"Each of {len(shown)} pairs: what was predicted, and how far its chosen response moved.",
        )


def forecast_report(
    predicted: Any, before: LogProbs, after: LogProbs, *, kind: Kind | None = None, name: str | None = None
) -> ForecastReport:
    """Compare a forecast made before training with what training did to every chosen response.

    Parameters
    ----------
    predicted : array-like of shape (N,), LogProbs or DisplacementScores
        One number for each pair: a score (higher predicts a fall), or a predicted change of ln pi(chosen). A `LogProbs`
        as `logprob_change_along` returns it is read as changes, a `DisplacementScores` as its score. NaN where a pair
        has no forecast.
    before, after : LogProbs
        Log-probabilities of the same pairs before and after training.
    kind : {"score", "change"}, optional
        What an array holds; needed for arrays, not to be given otherwise.
    name : str, optional
        What to call the forecast.

    Returns
    -------
    ForecastReport
        Rank correlation with its interval, agreement of signs, and a plot.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or `kind` is missing.
    ValueError
        If the numbers of pairs or their keys differ, or no pair has a forecast and both log-probabilities.

    Notes
    -----
    Time O(N log N). The interval uses the variance 1.06 / (N - 3) of the arctanh of a rank correlation (Fieller,
    Hartley and Pearson, 1957), which takes pairs as independent.

    Examples
    --------
    >>> from rankdiag.preference import LogProbs, forecast_report
    >>> before = LogProbs(chosen=[-9.0, -8.0, -7.0, -9.0], rejected=[-9.0] * 4, n_chosen=[3] * 4, n_rejected=[3] * 4)
    >>> after = LogProbs(chosen=[-9.5, -8.2, -6.9, -8.0], rejected=[-10.0] * 4, n_chosen=[3] * 4, n_rejected=[3] * 4)
    >>> report = forecast_report([0.4, 0.1, -0.2, -0.3], before, after, kind="score")
    >>> round(report.spearman, 6), report.sign_agreement, report.displaced_fraction
    (-1.0, 1.0, 0.5)
    """
    values, how, title, keys = _read(predicted, kind, name)
    for entry, label in ((before, "before"), (after, "after")):
        if not isinstance(entry, LogProbs):
            raise TypeError(f"`{label}` must be LogProbs; got {describe(entry)}")
        if len(entry) != len(values):
            raise ValueError(f"`{label}` must hold {len(values)} pairs, as the forecast does; got {len(entry)}")
    if before.keys != after.keys:
        raise ValueError("`before` and `after` must hold the same pairs, with the same keys in the same order")
    if keys is not None and before.keys is not None and keys != before.keys:
        raise ValueError("`predicted` must be of the same pairs as `before`, with the same keys in the same order")
    change = np.array(after.chosen - before.chosen)
    usable = np.isfinite(values) & np.isfinite(change)
    if not usable.any():
        raise ValueError("`predicted` must have at least one pair with a forecast and both log-probabilities; got none")
    for array in (values, change):
        array.flags.writeable = False
    told = values[usable] > 0 if how == "score" else values[usable] < 0
    correlation, interval = _spearman(values[usable], change[usable])
    displaced = float((change[usable] < 0).mean())
    agreement = float((told == (change[usable] < 0)).mean())
    return ForecastReport(
        predicted=values,
        change=change,
        kind=how,
        name=title,
        keys=before.keys,
        spearman=correlation,
        spearman_interval=interval,
        sign_agreement=agreement,
        displaced_fraction=displaced,
        explanation=(
            f"{title} ranks the {int(usable.sum())} pairs with a Spearman correlation of {correlation:.2f} to what "
            f"happened, and tells {agreement:.0%} of the falls and rises of the chosen responses; {displaced:.0%} fell."
        ),
        meta=Meta(
            definition="rank correlation of a forecast with ln pi_after(chosen) - ln pi_before(chosen)",
            n=int(usable.sum()),
            skipped={} if usable.all() else {f"{int((~usable).sum())} pairs": "no forecast or no log-probability"},
        ),
    )


def _read(predicted: Any, kind: Any, name: Any) -> tuple[Floats, Kind, str, tuple[str, ...] | None]:
    known: tuple[Any, Kind, str] | None = None
    if isinstance(predicted, LogProbs):
        known = (predicted.chosen, "change", "predicted change")
    elif hasattr(predicted, "level") and hasattr(predicted, "score"):
        known = (predicted.score, "score", f"{predicted.level}-level score")
    if known is None:
        if kind is None:
            raise TypeError("`kind` must say what an array holds, 'score' or 'change'; got None")
        values = as_float64(predicted, "predicted", ndim=1, finite=False, expected="one number for each pair")
        how: Kind = choice(kind, "kind", ("score", "change"))
        title = "forecast" if name is None else string(name, "name")
        return np.array(values), how, title, None
    if kind is not None:
        raise TypeError("`kind` must not be given for LogProbs or scores, which know what they are")
    values, how, title = known
    keys: Sequence[str] | None = predicted.keys
    return np.array(values), how, title if name is None else string(name, "name"), None if keys is None else tuple(keys)


def _spearman(a: Floats, b: Floats) -> tuple[float, tuple[float, float]]:
    nothing = (float("nan"), float("nan"))
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan"), nothing
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    r = float(np.clip((x @ y) / math.sqrt((x @ x) * (y @ y)), -1.0, 1.0))
    if len(a) < _FEWEST:
        return r, nothing
    if abs(r) == 1.0:
        return r, (r, r)
    half = _NORMAL_95 * math.sqrt(_FIELLER / (len(a) - 3))
    return r, (math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))

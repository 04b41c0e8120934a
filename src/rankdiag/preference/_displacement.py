"""What training did to preference pairs: which chosen responses fell, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, histogram
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._rng import as_generator
from rankdiag._validate import describe
from rankdiag.preference._log_probs import ROUNDING, LogProbs, name_pairs, points_to_show, skipped_pairs
from rankdiag.preference._loss_weights import LossWeights, weights_from_options
from rankdiag.preference._pair_columns import PairColumns, check_pairs, score_array

__all__ = ["DisplacementReport", "displacement_report"]

Floats = NDArray[np.float64]

_RESAMPLES = 1000
_LEVEL = (2.5, 97.5)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK = 1 << 22  # drawn indices alive at a time
_NO_MARGIN = 1e-9  # nats: below it a displacement ratio is rounding
_BINS = 30
_WORST = 15
_UNLEARNING, _UNLEARNING_TOKEN = -10.0, -0.1  # nats: experience of what such runs look like, no threshold of a source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DisplacementReport(PairColumns):
    """Change of the log-probabilities of preference pairs between two models.

    Attributes
    ----------
    delta_chosen, delta_rejected : ndarray of float64, shape (N,)
        ln pi_after - ln pi_before of each response, in nats; NaN where a pair is unusable.
    margin_change : ndarray of float64, shape (N,)
        delta_chosen - delta_rejected.
    per_token_delta_chosen : ndarray of float64, shape (N,)
        delta_chosen divided by the tokens of the response.
    displaced : ndarray of bool, shape (N,)
        Whether the chosen response fell.
    displacement_ratio : ndarray of float64, shape (N,)
        -delta_chosen / margin_change, NaN below 1e-9 nats. Where the margin grew: above 0 displaced although it grew,
        -1 to 0 ideal, below -1 both responses rose.
    mean_delta_chosen, mean_delta_rejected, median_delta_chosen : float
        Over the usable pairs.
    quantiles_delta_chosen : tuple of float
        At 5, 25, 50, 75 and 95 %.
    mean_delta_chosen_interval : tuple of float
        95 % bootstrap interval over pairs.
    mean_per_token_delta_chosen : float
        Mean of per_token_delta_chosen.
    loss_before, loss_after : float
        Mean loss over the usable pairs.
    dataset_displaced : bool
        Whether the loss fell and the mean of delta_chosen is below 0 (arXiv 2410.08847, Definition 1).
    displaced_fraction, both_fell_fraction, both_rose_fraction : float
        Shares of the usable pairs; both strict.
    accuracy_before, accuracy_after : float
        Share with ln pi(chosen) > ln pi(rejected).
    implicit_reward_accuracy : float
        Share whose log-ratio to the reference is larger for the chosen response, after training.
    pushed_down_on_purpose : float
        Share of pairs whose chosen response the loss itself pushes down (w_chosen < 0), before training or after it.
    loss : str
        Name of the loss.

    Examples
    --------
    >>> from rankdiag.preference import LogProbs, displacement_report
    >>> before = LogProbs(chosen=[-9.0], rejected=[-9.0], n_chosen=[3], n_rejected=[3])
    >>> after = LogProbs(chosen=[-9.5], rejected=[-12.0], n_chosen=[3], n_rejected=[3])
    >>> displacement_report(before, after).worst_pairs()
    (0,)
    """

    tag: ClassVar[str] = "preference.DisplacementReport"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "delta_chosen",
        "delta_rejected",
        "margin_change",
        "per_token_delta_chosen",
        "displacement_ratio",
        "mean_delta_chosen",
        "mean_delta_rejected",
        "median_delta_chosen",
        "mean_per_token_delta_chosen",
        "loss_before",
        "loss_after",
        "displaced_fraction",
        "both_fell_fraction",
        "both_rose_fraction",
        "accuracy_before",
        "accuracy_after",
        "implicit_reward_accuracy",
        "pushed_down_on_purpose",
    )

    delta_chosen: NDArray[np.float64]
    delta_rejected: NDArray[np.float64]
    margin_change: NDArray[np.float64]
    per_token_delta_chosen: NDArray[np.float64]
    displaced: NDArray[np.bool_]
    displacement_ratio: NDArray[np.float64]
    mean_delta_chosen: float
    mean_delta_rejected: float
    median_delta_chosen: float
    quantiles_delta_chosen: tuple[float, ...]
    mean_delta_chosen_interval: tuple[float, float]
    mean_per_token_delta_chosen: float
    loss_before: float
    loss_after: float
    dataset_displaced: bool
    displaced_fraction: float
    both_fell_fraction: float
    both_rose_fraction: float
    accuracy_before: float
    accuracy_after: float
    implicit_reward_accuracy: float
    pushed_down_on_purpose: float
    loss: str

    def __post_init__(self) -> None:
        checked = check_pairs(self)
        count = len(checked["keys"])
        for name in ("delta_chosen", "delta_rejected", "margin_change", "per_token_delta_chosen", "displacement_ratio"):
            checked[name] = score_array(getattr(self, name), name, count)
        if np.shape(self.displaced) != (count,):
            raise ValueError(
                f"`displaced` must have one entry for each of {count} pairs; got {describe(self.displaced)}"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain(self))

    def _columns(self) -> Mapping[str, Floats]:
        names = ("delta_chosen", "delta_rejected", "margin_change", "per_token_delta_chosen", "displacement_ratio")
        return {name: getattr(self, name) for name in names}

    @property
    def ranking(self) -> str:
        """Column by which pairs are ranked; the worst are those whose chosen response fell the most."""
        return "delta_chosen"

    def worst_pairs(self, n: int = 10, *, by: str | None = None) -> tuple[int, ...]:
        """Return the pairs with the lowest values, which are those to look at first.

        Parameters
        ----------
        n : int
            How many at most.
        by : str, optional
            Column to rank by; None takes ``delta_chosen``.

        Returns
        -------
        tuple of int
            Positions of usable pairs, lowest value first, ties in input order.

        Raises
        ------
        TypeError
            If `n` is no integer or `by` no string.
        ValueError
            If `n` is below 1, or there is no such column.
        """
        from rankdiag._validate import integer

        count = integer(n, "n", low=1)
        values = self.column(self.ranking) if by is None else self._column_of(by, "by")
        index = np.flatnonzero(self.usable & ~np.isnan(values))
        return tuple(int(i) for i in index[np.argsort(values[index], kind="stable")][:count])

    def document(self) -> Document:
        """Return what this report shows: did it happen, to whom, and how far."""
        low, high = self.mean_delta_chosen_interval
        return Document(
            title="Likelihood displacement",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(
                    label="mean change of chosen",
                    value=self.mean_delta_chosen,
                    unit="nat",
                    doc=f"Of ln pi(chosen | prompt); 95 % interval {low:.3g} to {high:.3g}.",
                ),
                KeyNumber(label="mean change of rejected", value=self.mean_delta_rejected, unit="nat"),
                KeyNumber(label="per token of chosen", value=self.mean_per_token_delta_chosen, unit="nat"),
                KeyNumber(label="displaced", value=self.displaced_fraction, doc="Share whose chosen response fell."),
                KeyNumber(label="both fell", value=self.both_fell_fraction, doc="Beyond half: pairs are too alike."),
                KeyNumber(label="both rose", value=self.both_rose_fraction),
                KeyNumber(
                    label="dataset displaced",
                    value=self.dataset_displaced,
                    doc="The loss fell and so did the mean of chosen (arXiv 2410.08847, Definition 1).",
                ),
                KeyNumber(label=f"loss ({self.loss}) before", value=self.loss_before),
                KeyNumber(label="loss after", value=self.loss_after),
                KeyNumber(label="accuracy before", value=self.accuracy_before, doc="ln pi(chosen) > ln pi(rejected)."),
                KeyNumber(label="accuracy after", value=self.accuracy_after),
                KeyNumber(label="implicit-reward accuracy", value=self.implicit_reward_accuracy, doc="After training."),
                KeyNumber(label="pairs", value=int(self.usable.sum())),
            ),
            grids=(self._quantile_grid(), self._worst_grid(), *self._text_grids()),
            plots=(self._histogram(), self._scatter()),
            notes=(*self.notes(), *_READING),
        )

    def _quantile_grid(self) -> Grid:
        use = self.usable
        rows = []
        for name, values in self._columns().items():
            finite = values[use & np.isfinite(values)]
            cells = np.quantile(finite, _QUANTILES).tolist() if len(finite) else [None] * len(_QUANTILES)
            rows.append((name, *cells))
        labels = ("column", "5 %", "25 %", "median", "75 %", "95 %")
        return Grid(
            title="Quantiles over pairs", columns=tuple(Column(name=label) for label in labels), rows=tuple(rows)
        )

    def _worst_grid(self) -> Grid:
        names = ("delta_chosen", "delta_rejected", "margin_change", "per_token_delta_chosen")
        rows = tuple(
            (self.keys[index], *(float(self.column(name)[index]) for name in names))
            for index in self.worst_pairs(_WORST)
        )
        columns = (Column(name="key"), *(Column(name=name, unit="nat") for name in names))
        return Grid(title="Pairs whose chosen response fell the most", columns=columns, rows=rows)

    def _text_grids(self) -> tuple[Grid, ...]:
        if not self.texts:
            return ()
        names = ("key", "prompt", "chosen", "rejected")
        rows = tuple((text.key, text.prompt, text.chosen, text.rejected) for text in self.texts)
        return (Grid(title="Their words", columns=tuple(Column(name=name) for name in names), rows=rows),)

    def _histogram(self) -> Plot:
        values = self.delta_chosen[self.usable]
        centres, counts = histogram(values, _BINS)
        return Plot(
            title="How far chosen responses moved",
            x_label="change of ln pi(chosen | prompt) (nat)",
            y_label="pairs",
            series=(Series(label="", x=centres, y=counts, kind="bars"),),
            lines=(
                ReferenceLine(axis="x", value=0.0, label="no change"),
                ReferenceLine(axis="x", value=self.mean_delta_chosen, label="mean"),
            ),
            description=f"{len(values)} pairs; left of 0 the chosen response became less probable.",
        )

    def _scatter(self) -> Plot:
        shown = points_to_show(np.flatnonzero(self.usable))
        return Plot(
            title="Chosen against rejected",
            x_label="change of ln pi(chosen | prompt) (nat)",
            y_label="change of ln pi(rejected | prompt) (nat)",
            series=(
                Series(
                    label="pairs",
                    x=self.delta_chosen[shown].tolist(),
                    y=self.delta_rejected[shown].tolist(),
                    kind="points",
                    names=name_pairs(shown, self.keys),
                ),
            ),
            lines=(
                ReferenceLine(axis="x", value=0.0, label="left: chosen fell"),
                ReferenceLine(axis="y", value=0.0, label="below: rejected fell"),
            ),
            description=f"{len(shown)} pairs; lower left both responses fell, lower right is what training is for.",
        )


_READING = (
    "A mean change of about 0 or above is fine; down to -1 nat a response is common and usually benign. Below -10 "
    "nats, or below -0.1 nat a token while the margin grows, the policy is mostly unlearning the rejected responses: "
    "read generations, and see where the probability went (mass_by_group).",
    "Harm is decided by where the probability goes, not by how much of it moves.",
    "If both responses fall in more than half of the pairs, pairs are too alike, beta is too small or the learning "
    "rate too high. Remedies, in the order that the paper supports: pairs that differ more (filter, sample again), a "
    "term that raises the chosen response, losses that weigh it more (DPOP).",
)


def displacement_report(
    before: LogProbs,
    after: LogProbs,
    *,
    loss: Any = "dpo",
    beta: float | None = 0.1,
    loss_options: Mapping[str, Any] | None = None,
    ref: LogProbs | None = None,
    rng: Any = 0,
) -> DisplacementReport:
    """Report what training did to the log-probabilities of preference pairs.

    Parameters
    ----------
    before, after : LogProbs
        The same pairs under the initial and the trained model.
    loss : str or callable
        What was trained; see `loss_weights`.
    beta : float, optional
        Its beta; None for a loss without one.
    loss_options : mapping, optional
        Its other hyper-parameters.
    ref : LogProbs, optional
        Reference model of the loss; None takes `before`.
    rng : int or numpy.random.Generator
        Of the bootstrap.

    Returns
    -------
    DisplacementReport
        Changes of each pair, and of the dataset with a 95 % interval of the mean.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or the hyper-parameters are not those of the loss.
    ValueError
        If the records are not of the same pairs, or no pair is usable in all of them.

    Notes
    -----
    A pair is displaced if ln pi(chosen) fell; the dataset is if the loss fell and the mean of the summed changes is
    below 0 ([U] Definition 1, both strict). The interval is a percentile bootstrap over pairs with 1000 resamples.
    Pairs with NaN in any record are left out of everything and counted. Time O(1000 N), memory bounded.

    References
    ----------
    [U] Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment", arXiv 2410.08847.

    Examples
    --------
    >>> from rankdiag.preference import LogProbs, displacement_report
    >>> before = LogProbs(chosen=[-9.0, -8.0], rejected=[-9.0, -9.0], n_chosen=[3, 4], n_rejected=[3, 3])
    >>> after = LogProbs(chosen=[-9.5, -8.1], rejected=[-12.0, -10.0], n_chosen=[3, 4], n_rejected=[3, 3])
    >>> report = displacement_report(before, after)
    >>> round(report.mean_delta_chosen, 3), report.displaced_fraction, report.dataset_displaced
    (-0.3, 1.0, True)
    """
    reference, named = (before, "before") if ref is None else (ref, "ref")
    _same_pairs(before, after, "after")
    if ref is not None:
        _same_pairs(before, ref, "ref")
    for entry, label in ((before, "before"), (after, "after"), (reference, named)):
        _refuse_positive(entry, label)
    use = before.usable & after.usable & reference.usable
    if not use.any():
        sides = "`before` and `after`" if ref is None else "`before`, `after` and `ref`"
        raise ValueError(f"no pair has log-probabilities in {sides}; at least one is needed")
    start, end = (_weights(loss, beta, loss_options, record, reference, use) for record in (before, after))
    down = np.full(len(use), np.nan)
    delta_chosen, delta_rejected = down.copy(), down.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        delta_chosen[use] = after.chosen[use] - before.chosen[use]
        delta_rejected[use] = after.rejected[use] - before.rejected[use]
        margin = delta_chosen - delta_rejected
        total = np.abs(np.stack([delta_chosen, delta_rejected, margin])[:, use]).sum()
    if not np.isfinite(total):
        raise ValueError("`before` and `after` differ by more than float64 can hold; are these log-probabilities?")
    per_token = down.copy()
    per_token[use] = delta_chosen[use] / before.n_chosen[use]
    ratio = down.copy()
    moved = use & (np.abs(margin) >= _NO_MARGIN)
    ratio[moved] = -delta_chosen[moved] / margin[moved]
    plus, minus = delta_chosen[use], delta_rejected[use]
    interval, seed = _bootstrap(plus, rng)
    gained = (after.chosen - reference.chosen)[use] > (after.rejected - reference.rejected)[use]
    mean = float(plus.mean())
    loss_before, loss_after = float(start.loss.mean()), float(end.loss.mean())
    arrays: dict[str, Any] = {
        "delta_chosen": delta_chosen,
        "delta_rejected": delta_rejected,
        "margin_change": margin,
        "per_token_delta_chosen": per_token,
        "displaced": delta_chosen < 0,
        "displacement_ratio": ratio,
    }
    for array in arrays.values():
        array.flags.writeable = False
    keys = tuple(f"pair {index}" for index in range(len(use))) if before.keys is None else before.keys
    return DisplacementReport(
        keys=keys,
        status=tuple("ok" if usable else "unusable" for usable in use.tolist()),
        **arrays,
        mean_delta_chosen=mean,
        mean_delta_rejected=float(minus.mean()),
        median_delta_chosen=float(np.median(plus)),
        quantiles_delta_chosen=tuple(float(value) for value in np.quantile(plus, _QUANTILES)),
        mean_delta_chosen_interval=interval,
        mean_per_token_delta_chosen=float(per_token[use].mean()),
        loss_before=loss_before,
        loss_after=loss_after,
        dataset_displaced=loss_after < loss_before and mean < 0,
        displaced_fraction=float((plus < 0).mean()),
        both_fell_fraction=float(((plus < 0) & (minus < 0)).mean()),
        both_rose_fraction=float(((plus > 0) & (minus > 0)).mean()),
        accuracy_before=float((before.chosen > before.rejected)[use].mean()),
        accuracy_after=float((after.chosen > after.rejected)[use].mean()),
        implicit_reward_accuracy=float(gained.mean()),
        pushed_down_on_purpose=float(((start.w_chosen < 0) | (end.w_chosen < 0)).mean()),
        loss=loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__),
        meta=Meta(
            definition="ln pi_after(response | prompt) - ln pi_before(response | prompt), summed over tokens",
            base="e",
            units="nat",
            n=int(use.sum()),
            seed=seed,
            skipped=skipped_pairs(~use, before.keys, "no log-probability in one of the records"),
            details={
                "beta": None if beta is None else float(beta),
                "bootstrap resamples": _RESAMPLES,
                "reference": named,
                **_origins({"before": before, "after": after, **({} if ref is None else {"ref": ref})}),
            },
        ),
    )


def _origins(records: Mapping[str, LogProbs]) -> dict[str, Any]:
    """Return which models and data records are of, as far as they say."""
    found: dict[str, Any] = {}
    for label, record in records.items():
        details = record.meta.details
        found |= {f"{label} {name}": details[name] for name in ("model", "weights") if details.get(name)}
        if details.get("data"):
            found["data"] = details["data"]
    return found


def _same_pairs(before: Any, other: Any, name: str) -> None:
    for value, label in ((before, "before"), (other, name)):
        if not isinstance(value, LogProbs):
            raise TypeError(f"`{label}` must be LogProbs; got {describe(value)}")
    if before.keys is not None and other.keys is not None and before.keys != other.keys:
        there = set(other.keys)
        missing = [key for key in before.keys if key not in there]
        extra = len(other.keys) - len(before.keys)
        if missing:
            raise ValueError(f"`{name}` must hold the pairs of `before`: {len(missing)} keys missing in {name}")
        if extra > 0:
            raise ValueError(f"`{name}` must hold the pairs of `before`: {extra} keys too many in {name}")
        raise ValueError(f"`{name}` must hold the pairs of `before` in the same order")
    if (before.keys is None) != (other.keys is None):
        raise ValueError(f"`before` and `{name}` must both have keys, or neither")
    if len(before) != len(other):
        raise ValueError(f"`{name}` must hold {len(before)} pairs, as `before` does; got {len(other)}")
    data = [record.meta.details.get("data") for record in (before, other)]
    if None not in data and data[0] != data[1]:
        raise ValueError(
            f"`{name}` must be of the data of `before`: other token ids, or other options of encoding; both must be "
            "encoded alike"
        )
    both = before.usable & other.usable
    for side in ("n_chosen", "n_rejected"):
        different = both & (getattr(before, side) != getattr(other, side))
        if different.any():
            pair = int(different.argmax())
            raise ValueError(
                f"pair {pair}: `{name}` has {getattr(other, side)[pair]:g} tokens in {side} and `before` has "
                f"{getattr(before, side)[pair]:g}; both must be encoded alike"
            )


def _refuse_positive(record: LogProbs, name: str) -> None:
    """Refuse changes of log-probabilities, which a record may hold too."""
    top = float(np.nanmax(np.maximum(record.chosen, record.rejected), initial=-np.inf))
    if top > ROUNDING:
        raise ValueError(f"`{name}` must hold log-probabilities, at most 0; got {top:.6g}. Are these changes of them?")


def _weights(
    loss: Any, beta: float | None, options: Mapping[str, Any] | None, record: LogProbs, ref: LogProbs, use: Any
) -> LossWeights:
    sides = (record.chosen, record.rejected, ref.chosen, ref.rejected, record.n_chosen, record.n_rejected)
    if isinstance(options, Mapping):  # a reward for each pair goes with the pairs that are used
        options = {name: _used(name, value, use) for name, value in options.items()}
    return weights_from_options(loss, tuple(side[use] for side in sides), beta=beta, loss_options=options)


def _used(name: str, value: Any, use: Any) -> Any:
    """Return the entries of an option that has one for each pair which belong to the pairs that are used."""
    if not str(name).startswith("reward_") or value is None:
        return value
    array = as_float64(value, name, finite=False, expected="one number, or one for each pair")
    if array.ndim == 0:
        return array
    if array.shape != use.shape:
        raise ValueError(f"`{name}` must have one entry for each of {len(use)} pairs; got {describe(value)}")
    return array[use]


def _bootstrap(values: Floats, rng: Any) -> tuple[tuple[float, float], int | None]:
    """Return the percentile interval of the mean, and the seed."""
    generator, seed = as_generator(rng)
    means = np.empty(_RESAMPLES)
    size = max(1, _BLOCK // len(values))
    for first in range(0, _RESAMPLES, size):
        count = min(size, _RESAMPLES - first)
        means[first : first + count] = values[generator.integers(len(values), size=(count, len(values)))].mean(axis=1)
    low, high = np.percentile(means, _LEVEL)
    return (float(low), float(high)), seed


def _explain(report: DisplacementReport) -> str:
    low, high = report.mean_delta_chosen_interval
    mean, share = report.mean_delta_chosen, report.displaced_fraction
    if int(report.usable.sum()) == 1:
        first = f"The chosen response of the one pair moved by {mean:.3g} nats, which says nothing of others"
    elif high < 0:
        first = f"Chosen responses became less probable: by {-mean:.3g} nats on average ({low:.3g} to {high:.3g})"
    elif low > 0:
        first = f"Chosen responses became more probable: by {mean:.3g} nats on average ({low:.3g} to {high:.3g})"
    else:
        first = f"Chosen responses moved by {mean:.3g} nats on average, no more than noise ({low:.3g} to {high:.3g})"
    text = f"{first}; {share:.0%} of the pairs fell, in {report.both_fell_fraction:.0%} both responses did."
    if report.pushed_down_on_purpose > 0:
        text += (
            f" The loss itself pushes {report.pushed_down_on_purpose:.0%} of the chosen responses down: a "
            "fall there is on purpose and no displacement."
        )
        return text
    unlearning = report.mean_per_token_delta_chosen < _UNLEARNING_TOKEN and report.mean_delta_rejected < mean
    if mean < _UNLEARNING or unlearning:
        text += " That is mostly unlearning of the rejected responses: look at generations, and where the mass went."
    return text

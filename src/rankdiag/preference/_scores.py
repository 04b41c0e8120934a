"""Scores of preference pairs: which pairs are likely to push their own chosen responses down."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document
from rankdiag._meta import Meta
from rankdiag._validate import choice, describe, real, string
from rankdiag.preference._pair_columns import PairColumns, check_pairs, regime_names, score_array

__all__ = ["DisplacementScores", "Level", "PredictedDelta", "PreferenceScores"]

Floats = NDArray[np.float64]
Level = Literal["ches", "head", "ufm", "full"]

_LEVELS: tuple[Level, ...] = ("ches", "head", "ufm", "full")
_ALWAYS = ("n_chosen", "n_rejected", "length_gap", "shared_prefix")
_RANKING = ("head", "ln_ches", "relative", "ches", "edit_similarity", "last_state_inner")
_NEAR_DUPLICATE = -0.05
_SCORES = (
    "ches",
    "ln_ches",
    "relative",
    "cross",
    "chosen_sq",
    "rejected_sq",
    "swapped",
    "cond",
    "edit_similarity",
    "last_state_inner",
    "head",
    "chosen_logp",
    "rejected_logp",
    *_ALWAYS,
)
_DATASET_NUMBERS = (
    "unusable_fraction",
    "identical_fraction",
    "near_duplicate_fraction",
    "both_fall_fraction",
    "head_positive_fraction",
    "length_correlation",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PreferenceScores(PairColumns):
    """Scores of a preference dataset under one model, one row for each pair.

    Made by `score_preferences`. A higher score means that training on the pair alone is more likely to lower the
    log-probability of its own chosen response. Scores rank the pairs of one dataset under one model; values of other
    models, dtypes or templates are not comparable. Only the sign of `relative` and of `head` means something alone.

    Attributes
    ----------
    keys : tuple of str
        One for each pair, unique, in input order.
    status : tuple of str
        ``"ok"``, or why a pair cannot be used: ``"empty_prompt"``, ``"empty_chosen"``, ``"empty_rejected"``,
        ``"too_long"``, ``"identical"``.
    scores : mapping of str to ndarray of float64, shape (N,)
        Name -> column in input order, NaN where a pair is unusable; read-only. ``n_chosen``, ``n_rejected``,
        ``length_gap`` (n_rejected - n_chosen) and ``shared_prefix`` (equal first tokens) are always there.
    response_end : {"given", "implied_eos"}
        Which states a response has; see the concepts page on likelihood displacement.
    layout : str
        How pairs were laid out in batches: ``"plain"`` or ``"packed"``, or empty if unknown.
    model : mapping of str to object
        What identifies the model: name, revision, checksum, dtype; JSON-safe.
    data_fingerprint : str
        Fingerprint of the encoded data that was scored.
    manifest : mapping of str to object
        Manifest of the scoring run, written beside what `export` writes; JSON-safe.
    remarks : tuple of str
        What else a reader should know: merged boundaries, a layout that was refused.
    texts : tuple of PairText
        Words of the pairs that a report shows.
    attribution : tuple of TokenAttribution
        Contributions of single tokens, for the pairs that a report shows.
    meta : Meta
        Definition, convention, layout, model, fingerprints.
    verdict : str
        ``"unknown"``: no source sets a bound on these scores.
    explanation : str
        What the scores say about this dataset.
    thresholds : tuple of Threshold
        Empty.

    Raises
    ------
    TypeError
        If a field has the wrong type.
    ValueError
        If there is no pair, a key repeats, a status is unknown, a column that is always there is missing, or lengths
        differ.

    Examples
    --------
    >>> from rankdiag.preference import PreferenceScores
    >>> scores = PreferenceScores(
    ...     keys=("a", "b", "c"),
    ...     status=("ok", "identical", "ok"),
    ...     scores={
    ...         "relative": [0.5, float("nan"), -0.2],
    ...         "n_chosen": [6, 4, 5],
    ...         "n_rejected": [9, 4, 5],
    ...         "length_gap": [3, 0, 0],
    ...         "shared_prefix": [2, 4, 0],
    ...     },
    ... )
    >>> scores.both_fall_fraction, scores.worst_pairs()
    (0.5, (0, 2))
    >>> [finding.name for finding in scores.flag(["relative > 0"])]
    ['a', 'b']
    """

    tag: ClassVar[str] = "preference.PreferenceScores"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (*_SCORES, *_DATASET_NUMBERS)

    scores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    response_end: Literal["given", "implied_eos"] = "given"
    layout: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked = check_pairs(self)
        checked["response_end"] = choice(self.response_end, "response_end", ("given", "implied_eos"))
        if not isinstance(self.scores, Mapping):
            raise TypeError(f"`scores` must be a mapping of names to columns; got {describe(self.scores)}")
        missing = [name for name in _ALWAYS if name not in self.scores]
        if missing:
            raise ValueError(f"`scores` must hold the columns {', '.join(_ALWAYS)}; missing are {', '.join(missing)}")
        count = len(checked["keys"])
        checked["scores"] = MappingProxyType(
            {
                name: score_array(values, f"scores[{name!r}]", count, infinite=name == "cond")
                for name, values in self.scores.items()
            }
        )
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "meta", self.meta if self.meta.definition else _scores_meta(self))
        if not self.explanation:
            from rankdiag.preference._scores_show import explain_scores

            object.__setattr__(self, "explanation", explain_scores(self))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        state["scores"] = dict(self.scores)  # the read-only view cannot be copied or pickled
        return _rebuild, (type(self), state)

    def _columns(self) -> Mapping[str, Floats]:
        return self.scores

    # --- numbers of the dataset -----------------------------------------------------------------------------

    @property
    def ranking(self) -> str:
        """Column by which pairs are called the worst: ``head`` where it was computed, else ``ln_ches`` and so on."""
        return next((name for name in _RANKING if name in self.scores), "length_gap")

    @property
    def regime(self) -> list[str]:
        """What `relative` says of each pair: both_fall, ideal, both_rise or undefined (also where it is missing)."""
        if "relative" not in self.scores:
            return ["undefined"] * len(self)
        return regime_names(np.where(self.usable, self.scores["relative"], np.nan))

    @property
    def unusable_fraction(self) -> float:
        """Share of all pairs that cannot be used, those with identical responses among them."""
        return 1.0 - float(self.usable.mean())

    @property
    def identical_fraction(self) -> float:
        """Share of all pairs whose two responses are identical."""
        return self.status.count("identical") / len(self)

    @property
    def near_duplicate_fraction(self) -> float:
        """Share of usable pairs with an edit similarity above -0.05; NaN without that column."""
        return self._share("edit_similarity", _NEAR_DUPLICATE)

    @property
    def both_fall_fraction(self) -> float:
        """Share of usable pairs with `relative` above 0; NaN without that column."""
        return self._share("relative", 0.0)

    @property
    def head_positive_fraction(self) -> float:
        """Share of usable pairs whose head-level score is above 0; NaN without that column."""
        return self._share("head", 0.0)

    @property
    def length_correlation(self) -> float:
        """Spearman correlation of `ches` with the length gap over usable pairs; NaN where it has no value."""
        return self.rank_correlation("ches", "length_gap")

    def rank_correlation(self, first: str, second: str) -> float:
        """Return the Spearman correlation of two columns over the usable pairs.

        Parameters
        ----------
        first, second : str
            Names of columns; a missing one gives NaN.

        Returns
        -------
        float
            Between -1 and 1; NaN for fewer than three pairs, or where a column does not vary.

        Raises
        ------
        TypeError
            If a name is no string.

        Examples
        --------
        >>> from rankdiag.preference import PreferenceScores
        >>> lengths = {"n_chosen": [1, 2, 3], "n_rejected": [2, 4, 6], "length_gap": [1, 2, 3]}
        >>> scores = PreferenceScores(
        ...     keys=("a", "b", "c"), status=("ok",) * 3, scores={"shared_prefix": [0, 1, 0], **lengths}
        ... )
        >>> round(scores.rank_correlation("n_chosen", "length_gap"), 6)
        1.0
        """
        if string(first, "first") not in self.scores or string(second, "second") not in self.scores:
            return float("nan")
        x, y = self.scores[first], self.scores[second]
        both = self.usable & np.isfinite(x) & np.isfinite(y)
        x, y = x[both], y[both]
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan")
        from scipy.stats import spearmanr

        result: Any = spearmanr(x, y)
        return float(result.statistic)

    def _share(self, name: str, above: float) -> float:
        values = self.usable_values(name) if name in self.scores else np.empty(0)
        return float((values > above).mean()) if len(values) else float("nan")

    def document(self) -> Document:
        """Return what the scores show: shares, worst pairs, quartiles, how well they predict, and how to read them."""
        from rankdiag.preference._scores_show import scores_document

        return scores_document(self, super(PreferenceScores, self).notes())


class PredictedDelta(NamedTuple):
    """First-order change of both log-probabilities of each pair, in nats."""

    delta_chosen: Floats
    delta_rejected: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DisplacementScores(PairColumns):
    """First-order scores of a preference dataset at one level, one row for each pair.

    Made by `displacement_score`. With g+ and g- the gradients of ln pi(chosen) and ln pi(rejected) over the parameters
    that the level looks at, a small step on the pair alone lowers ln pi(chosen) where <g+, g-> > ||g+||^2, for losses
    that weigh both responses alike.

    Attributes
    ----------
    keys : tuple of str
        One for each pair, unique, in input order.
    status : tuple of str
        ``"ok"``, or why a pair cannot be used.
    level : {"ches", "head", "ufm", "full"}
        ``"full"``: all trained parameters, exact to first order; ``"head"``: exact if only the output projection
        trains; ``"ufm"``: output projection and one free vector for each prefix; ``"ches"``: a surrogate.
    chosen_sq, cross, rejected_sq : ndarray of float64, shape (N,)
        ||g+||^2, <g+, g->, ||g-||^2 at this level; NaN where a pair is unusable.
    score : ndarray of float64, shape (N,)
        cross - chosen_sq: positive predicts a fall. None computes it from the two.
    relative : ndarray of float64, shape (N,)
        score / ||g+ - g-||^2, NaN if that is 0: at level ``"full"`` the predicted displacement ratio. None computes it.
    layout : str
        How pairs were laid out in batches, or empty if unknown.
    model : mapping of str to object
        What identifies the model; JSON-safe.
    data_fingerprint : str
        Fingerprint of the encoded data that was scored.
    manifest : mapping of str to object
        Manifest of the scoring run; JSON-safe.
    remarks : tuple of str
        What else a reader should know.
    texts : tuple of PairText
        Words of the pairs that a report shows.
    attribution : tuple of TokenAttribution
        Contributions of single tokens, for the pairs that a report shows.
    meta : Meta
        Definition, level, model, fingerprints.
    verdict : str
        ``"unknown"``: no source sets a bound on these scores.
    explanation : str
        What the scores say about this dataset.
    thresholds : tuple of Threshold
        Empty.

    Raises
    ------
    TypeError
        If a field has the wrong type.
    ValueError
        If there is no pair, a key repeats, a status or level is unknown, or lengths differ.

    Examples
    --------
    >>> from rankdiag.preference import DisplacementScores
    >>> scores = DisplacementScores(
    ...     keys=("a", "b"), status=("ok", "ok"), level="head",
    ...     chosen_sq=[1.0, 4.0], cross=[3.0, 0.0], rejected_sq=[9.0, 1.0],
    ... )
    >>> scores.score.tolist(), scores.relative.tolist(), scores.regime
    ([2.0, -4.0], [0.5, -0.8], ['both_fall', 'ideal'])
    >>> scores.predict_delta(0.1).delta_chosen.round(6).tolist()
    [-0.2, 0.4]
    """

    tag: ClassVar[str] = "preference.DisplacementScores"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = (
        "score",
        "relative",
        "chosen_sq",
        "cross",
        "rejected_sq",
        "unusable_fraction",
        "both_fall_fraction",
    )

    level: Level
    chosen_sq: NDArray[np.float64]
    cross: NDArray[np.float64]
    rejected_sq: NDArray[np.float64]
    score: NDArray[np.float64] | None = None
    relative: NDArray[np.float64] | None = None
    layout: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked = check_pairs(self)
        checked["level"] = choice(self.level, "level", _LEVELS)
        count = len(checked["keys"])
        for name in ("chosen_sq", "cross", "rejected_sq"):
            checked[name] = score_array(getattr(self, name), name, count)
        plus, cross, minus = checked["chosen_sq"], checked["cross"], checked["rejected_sq"]
        score = cross - plus if self.score is None else self.score
        checked["score"] = score_array(score, "score", count)
        if self.relative is None:
            distance = plus - 2.0 * cross + minus
            relative = np.full(count, np.nan)
            np.divide(checked["score"], distance, out=relative, where=distance > 0)
        else:
            relative = self.relative
        checked["relative"] = score_array(relative, "relative", count)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "meta", self.meta if self.meta.definition else _level_meta(self))
        if not self.explanation:
            from rankdiag.preference._scores_show import explain_level

            object.__setattr__(self, "explanation", explain_level(self))

    def _columns(self) -> Mapping[str, Floats]:
        return {name: getattr(self, name) for name in ("score", "relative", "chosen_sq", "cross", "rejected_sq")}

    @property
    def ranking(self) -> str:
        """Column by which pairs are called the worst."""
        return "score"

    @property
    def regime(self) -> list[str]:
        """What `relative` says of each pair: both_fall, ideal, both_rise or undefined."""
        return regime_names(np.where(self.usable, self.column("relative"), np.nan))

    @property
    def unusable_fraction(self) -> float:
        """Share of all pairs that cannot be used, those with identical responses among them."""
        return 1.0 - float(self.usable.mean())

    @property
    def both_fall_fraction(self) -> float:
        """Share of usable pairs whose score is above 0; NaN if no pair is usable."""
        values = self.usable_values("score")
        return float((values > 0).mean()) if len(values) else float("nan")

    def predict_delta(self, lr: float, w_chosen: Any = 1.0, w_rejected: Any = 1.0) -> PredictedDelta:
        """Return the first-order change of both log-probabilities after one gradient step on each pair alone.

        Parameters
        ----------
        lr : float
            Step size, not negative.
        w_chosen, w_rejected : float or array-like of shape (N,)
            Loss weights w+ and w- of each pair, as `loss_weights` returns them: DPO at its reference has beta / 2
            for both.

        Returns
        -------
        PredictedDelta
            ``delta_chosen`` = lr (w+ ||g+||^2 - w- <g+, g->) and ``delta_rejected`` = lr (w+ <g+, g-> - w- ||g-||^2),
            float64 arrays of shape (N,), NaN where a pair is unusable. In nats at level ``"full"``; at the other
            levels only the part that comes from the parameters they look at; at ``"ches"`` no unit at all.

        Raises
        ------
        TypeError
            If an argument is no number, or no array of numbers.
        ValueError
            If `lr` is negative, or a weight has neither one entry nor one for each pair.

        Examples
        --------
        >>> from rankdiag.preference import DisplacementScores
        >>> scores = DisplacementScores(
        ...     keys=("a",), status=("ok",), level="full", chosen_sq=[1.0], cross=[3.0], rejected_sq=[9.0]
        ... )
        >>> delta = scores.predict_delta(0.1, w_chosen=0.05, w_rejected=0.05)
        >>> round(float(delta.delta_chosen[0]), 6), round(float(delta.delta_rejected[0]), 6)
        (-0.01, -0.03)
        """
        rate = real(lr, "lr", low=0.0)
        plus, minus = (
            _weight(value, name, len(self)) for value, name in ((w_chosen, "w_chosen"), (w_rejected, "w_rejected"))
        )
        # Written with the score, which is more exact than the difference of two large numbers.
        chosen = rate * ((plus - minus) * self.chosen_sq - minus * self.column("score"))
        rejected = rate * (plus * self.cross - minus * self.rejected_sq)
        return PredictedDelta(chosen, rejected)

    def document(self) -> Document:
        """Return what the scores show: regimes, worst pairs, quartiles, and how well this level predicts."""
        from rankdiag.preference._scores_show import level_document

        return level_document(self, super(DisplacementScores, self).notes())


def _rebuild(cls: type[Any], state: Mapping[str, Any]) -> Any:
    return cls(**state)


def _weight(value: Any, name: str, count: int) -> Floats:
    array = as_float64(value, name, expected="a number, or one for each pair")
    if array.ndim > 1 or (array.ndim == 1 and len(array) not in {1, count}):
        raise ValueError(f"`{name}` must be a number, or one for each of {count} pairs; got shape {array.shape}")
    return np.asarray(array, dtype=np.float64)


def _skipped(result: PairColumns) -> dict[str, str]:
    return {
        f"{count} of {len(result)} pairs ({word})": "their scores say nothing, and no filter keeps them"
        for word, count in result.status_counts().items()
        if word != "ok"
    }


def _scores_meta(result: PreferenceScores) -> Meta:
    details = {
        "response_end": result.response_end,
        "layout": result.layout or None,
        "data_fingerprint": result.data_fingerprint or None,
        **{f"model {key}": value for key, value in result.model.items() if isinstance(value, (str, int, float, bool))},
    }
    return dataclasses.replace(
        result.meta,
        definition=(
            "CHES = <S+, S-> - ||S+||^2 with S the sum of the last hidden states that predict the tokens of a response"
        ),
        n=int(result.usable.sum()),
        skipped={**result.meta.skipped, **_skipped(result)},
        details={**result.meta.details, **{key: value for key, value in details.items() if value is not None}},
    )


def _level_meta(result: DisplacementScores) -> Meta:
    details = {
        "level": result.level,
        "layout": result.layout or None,
        "data_fingerprint": result.data_fingerprint or None,
        **{f"model {key}": value for key, value in result.model.items() if isinstance(value, (str, int, float, bool))},
    }
    return dataclasses.replace(
        result.meta,
        definition="score = <g+, g-> - ||g+||^2, g the gradients of ln pi(response | prompt) at the level named below",
        n=int(result.usable.sum()),
        skipped={**result.meta.skipped, **_skipped(result)},
        details={**result.meta.details, **{key: value for key, value in details.items() if value is not None}},
    )

"""Log-probabilities of preference pairs: sums over the tokens of both responses, with lengths and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe

__all__ = ["ROUNDING", "LogProbs", "name_pairs", "per_pair", "points_to_show", "skipped_pairs"]

Floats = NDArray[np.float64]

_DEFINITION = "ln pi(y|x), the sum over the tokens of the response y of ln pi(token | prompt x, tokens before)"
_SUM_TOLERANCE = 1e-2  # of the sum of sizes: tells a mean from a sum, and forgives the rounding of any dtype
ROUNDING = 1e-3  # nats by which rounding may lift a log-probability above 0
_MAX_POINTS = 1000
_FIRST_NAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogProbs(Result):
    """Log-probabilities of the chosen and the rejected response of each preference pair.

    One model gives one record. Two records of the same pairs, before and after training, make a displacement report.
    You may build a record from your own numbers; the model-facing module of this room builds it from a model.

    A pair that cannot be used (an empty response, say) keeps its place and has NaN in both sums.

    Attributes
    ----------
    chosen, rejected : ndarray of float64, shape (N,)
        Sum of ln pi over the tokens of the response, in nats; NaN in both where a pair is unusable. Changes of
        log-probabilities may stand here too, so a positive number is legal.
    n_chosen, n_rejected : ndarray of float64, shape (N,)
        Number of tokens in the sum: at least 1, or 0 in an unusable pair.
    keys : tuple of str or None
        One name for each pair, unique; integers are taken as their digits. None means "by position".
    chosen_tokens, rejected_tokens : tuple of ndarray of float64, or None
        Log-probability of each token, one array of length n for each pair; empty for an unusable pair.

    Raises
    ------
    TypeError
        If a field is no array, or the keys are no sequence of strings.
    ValueError
        If there is no pair, fields differ in length, a key repeats, a sum is infinite or NaN on one side only, a
        length is no whole number >= 1, or the tokens do not add up to the sum.

    Notes
    -----
    Never average the probabilities of long responses: they underflow. Compare sums, or sums per token.

    Examples
    --------
    >>> from rankdiag.preference import LogProbs
    >>> record = LogProbs(chosen=[-42.0, -3.0], rejected=[-50.5, -4.0], n_chosen=[6, 1], n_rejected=[9, 2])
    >>> record.per_token_chosen.tolist()
    [-7.0, -3.0]
    >>> record.prob_chosen.round(6).tolist()
    [nan, 0.049787]
    """

    tag: ClassVar[str] = "preference.LogProbs"

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    n_chosen: NDArray[np.float64]
    n_rejected: NDArray[np.float64]
    keys: tuple[str, ...] | None = None
    chosen_tokens: tuple[NDArray[np.float64], ...] | None = None
    rejected_tokens: tuple[NDArray[np.float64], ...] | None = None

    def __post_init__(self) -> None:
        chosen = per_pair(self.chosen, "chosen")
        count = len(chosen)
        rejected = per_pair(self.rejected, "rejected", count)
        _check_missing(chosen, rejected)
        usable = ~np.isnan(chosen)
        checked: dict[str, Any] = {"chosen": chosen, "rejected": rejected}
        for side in ("chosen", "rejected"):
            length = _lengths(getattr(self, f"n_{side}"), f"n_{side}", usable)
            checked[f"n_{side}"] = length
            checked[f"{side}_tokens"] = _tokens(
                getattr(self, f"{side}_tokens"), f"{side}_tokens", checked[side], length, usable
            )
        checked["keys"] = _keys(self.keys, count)
        checked["meta"] = self.meta if self.meta.definition else _meta(self.meta, usable, checked["keys"])
        checked["explanation"] = self.explanation or _explain(usable)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each pair has log-probabilities."""
        return ~np.isnan(self.chosen)

    @property
    def per_token_chosen(self) -> NDArray[np.float64]:
        """Mean log-probability of a token of the chosen response, in nats; NaN where a pair is unusable."""
        return _per_token(self.chosen, self.n_chosen)

    @property
    def per_token_rejected(self) -> NDArray[np.float64]:
        """Mean log-probability of a token of the rejected response, in nats; NaN where a pair is unusable."""
        return _per_token(self.rejected, self.n_rejected)

    @property
    def prob_chosen(self) -> NDArray[np.float64]:
        """Probability of the chosen response where it is one token; NaN for longer ones, which underflow."""
        return _single_token(self.chosen, self.n_chosen)

    @property
    def prob_rejected(self) -> NDArray[np.float64]:
        """Probability of the rejected response where it is one token; NaN for longer ones, which underflow."""
        return _single_token(self.rejected, self.n_rejected)

    def to_pandas(self) -> Any:
        """Return one row for each pair as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            Columns ``key`` (positions where there are no keys), ``chosen``, ``rejected``, ``n_chosen``,
            ``n_rejected``.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        table: dict[str, Any] = {"key": list(range(len(self)) if self.keys is None else self.keys)}
        for name in ("chosen", "rejected", "n_chosen", "n_rejected"):
            table[name] = np.array(getattr(self, name))
        return pandas.DataFrame(table)

    def document(self) -> Document:
        """Return what this record shows: means, accuracy, and the two log-probabilities against each other."""
        use = self.usable
        count = int(use.sum())
        numbers = [
            KeyNumber(label="pairs", value=len(self)),
            KeyNumber(label="unusable pairs", value=len(self) - count, doc="NaN in both responses; left out below."),
        ]
        if count:
            a, b = self.chosen[use], self.rejected[use]
            numbers += [
                KeyNumber(label="mean ln pi of chosen", value=float(a.mean()), unit="nat"),
                KeyNumber(label="mean ln pi of rejected", value=float(b.mean()), unit="nat"),
                KeyNumber(label="per token of chosen", value=float(self.per_token_chosen[use].mean()), unit="nat"),
                KeyNumber(label="per token of rejected", value=float(self.per_token_rejected[use].mean()), unit="nat"),
                KeyNumber(
                    label="accuracy",
                    value=float((a > b).mean()),
                    doc="Share of pairs whose chosen response is the more probable one; longer responses are less.",
                ),
            ]
        return Document(
            title="Log-probabilities of preference pairs",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(numbers),
            plots=(self._plot(),) if count else (),
            notes=self.notes(),
        )

    def _plot(self) -> Plot:
        shown = points_to_show(np.flatnonzero(self.usable))
        low = float(min(self.chosen[shown].min(), self.rejected[shown].min()))
        high = float(max(self.chosen[shown].max(), self.rejected[shown].max()))
        return Plot(
            title="Chosen against rejected",
            x_label="ln pi(chosen | prompt) (nat)",
            y_label="ln pi(rejected | prompt) (nat)",
            series=(
                Series(
                    label="pairs",
                    x=self.chosen[shown].tolist(),
                    y=self.rejected[shown].tolist(),
                    kind="points",
                    names=name_pairs(shown, self.keys),
                ),
                Series(label="equal", x=(low, high), y=(low, high)),
            ),
            description=f"{len(shown)} of {int(self.usable.sum())} usable pairs; below the line chosen is likelier.",
        )


def per_pair(value: Any, name: str, count: int | None = None) -> Floats:
    """Return a read-only float64 copy of one number for each pair; NaN is legal, infinity is not.

    Raises
    ------
    TypeError
        If it is no array of numbers.
    ValueError
        If it is empty, has not one axis, holds an infinity, or has not `count` entries.
    """
    array = as_float64(value, name, ndim=1, finite=False, expected="one number for each pair")
    if count is not None and len(array) != count:
        raise ValueError(f"`{name}` must have one entry for each of {count} pairs; got {len(array)}")
    infinite = np.isinf(array)
    if infinite.any():
        raise ValueError(
            f"pair {int(infinite.argmax())}: `{name}` is {float(array[infinite.argmax()])}; a log-probability must be "
            "finite, or NaN in both responses where the pair is unusable"
        )
    return _read_only(array)


def points_to_show(index: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return at most a thousand of the given pairs, evenly spread, so that a plot stays small."""
    if len(index) <= _MAX_POINTS:
        return index
    spread: NDArray[np.intp] = index[np.linspace(0, len(index) - 1, _MAX_POINTS).round().astype(np.intp)]
    return spread


def name_pairs(index: Iterable[int] | NDArray[np.intp], keys: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of some pairs: their keys, or "pair 17"."""
    return tuple(f"pair {int(i)}" if keys is None else keys[int(i)] for i in index)


def _read_only(array: Any) -> Floats:
    out = np.array(array, dtype=np.float64)
    out.flags.writeable = False
    return out


def _check_missing(chosen: Floats, rejected: Floats) -> None:
    """Refuse a pair that has a log-probability on one side only."""
    half = np.isnan(chosen) != np.isnan(rejected)
    if half.any():
        pair = int(half.argmax())
        raise ValueError(
            f"pair {pair}: `chosen` is {float(chosen[pair])!r} and `rejected` is {float(rejected[pair])!r}; give both, "
            "or NaN in both where the pair is unusable"
        )


def _lengths(value: Any, name: str, usable: NDArray[np.bool_]) -> Floats:
    array = as_float64(value, name, ndim=1, expected="one number of tokens for each pair")
    if len(array) != len(usable):
        raise ValueError(f"`{name}` must have one entry for each of {len(usable)} pairs; got {len(array)}")
    wrong = (array != np.floor(array)) | (array < usable)
    if wrong.any():
        pair = int(wrong.argmax())
        raise ValueError(f"pair {pair}: `{name}` must be a whole number of tokens >= 1; got {float(array[pair])!r}")
    return _read_only(array)


def _tokens(
    value: Any, name: str, sums: Floats, lengths: Floats, usable: NDArray[np.bool_]
) -> tuple[Floats, ...] | None:
    if value is None:
        return None
    if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a list of arrays, one for each pair; got {describe(value)}")
    if len(value) != len(sums):
        raise ValueError(f"`{name}` must have one array for each of {len(sums)} pairs; got {len(value)}")
    found = []
    for pair, entry in enumerate(value):
        if not usable[pair]:
            found.append(_read_only([]))
            continue
        array = as_float64(entry, f"{name}[{pair}]", ndim=1, expected="one number for each token")
        if len(array) != lengths[pair]:
            raise ValueError(f"pair {pair}: `{name}` must have {lengths[pair]:g} tokens; got {len(array)}")
        if abs(array.sum() - sums[pair]) > _SUM_TOLERANCE * np.abs(array).sum():
            raise ValueError(
                f"pair {pair}: `{name}` add up to {float(array.sum()):.6g}, not to the sum {float(sums[pair]):.6g} of "
                "the response; give sums over the tokens, not means"
            )
        found.append(_read_only(array))
    return tuple(found)


def _keys(value: Any, count: int) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Sequence):
        raise TypeError(f"`keys` must be a list of strings, one for each pair; got {describe(value)}")
    if len(value) != count:
        raise ValueError(f"`keys` must have one entry for each of {count} pairs; got {len(value)}")
    seen: dict[str, int] = {}
    for pair, entry in enumerate(value):
        if isinstance(entry, bool) or not isinstance(entry, (str, int, np.integer)):
            raise TypeError(f"pair {pair}: `keys` must hold strings or integers; got {describe(entry)}")
        key = str(entry)
        if key in seen:
            raise ValueError(f"pair {pair}: `keys` must be unique; {describe(key)} is the key of pair {seen[key]} too")
        seen[key] = pair
    return tuple(seen)


def _meta(given: Meta, usable: NDArray[np.bool_], keys: tuple[str, ...] | None) -> Meta:
    return dataclasses.replace(
        given,
        definition=_DEFINITION,
        base="e",
        units="nat",
        n=int(usable.sum()),
        skipped={**given.skipped, **skipped_pairs(~usable, keys, "unusable, NaN in both responses")},
    )


def skipped_pairs(left_out: NDArray[np.bool_], keys: Sequence[str] | None, reason: str) -> dict[str, str]:
    """Return the entry of `Meta.skipped` for pairs that are left out: how many, why, and the first few."""
    index = np.flatnonzero(left_out)
    if not len(index):
        return {}
    first = ", ".join(name_pairs(index[:_FIRST_NAMES], keys))
    more = f" and {len(index) - _FIRST_NAMES} more" if len(index) > _FIRST_NAMES else ""
    return {f"{len(index)} of {len(left_out)} pairs": f"{reason} ({first}{more})"}


def _explain(usable: NDArray[np.bool_]) -> str:
    if not usable.any():
        return "No pair can be used."
    return (
        "Sums of log-probabilities over the tokens of each response. Longer responses have lower sums, so compare two "
        "models on the same responses, and responses of one model per token."
    )


def _per_token(sums: Floats, lengths: Floats) -> Floats:
    out = np.full(len(sums), np.nan)
    np.divide(sums, lengths, out=out, where=~np.isnan(sums))
    return out


def _single_token(sums: Floats, lengths: Floats) -> Floats:
    one = (lengths == 1) & (sums <= ROUNDING)  # a larger one is a change, not a log-probability
    out = np.full(len(sums), np.nan)
    out[one] = np.exp(np.minimum(sums[one], 0.0))
    return out

"""CHES: how much the hidden states of two responses pull the preferred one down (arXiv 2410.08847, section 5).

All scores come from S+, the sum of the states of the chosen response, and from D = S- - S+ formed of the states that
the two responses do not share; so identical responses give exactly 0 and nearly identical ones keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, histogram, is_torch, refuse_size
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, integer
from rankdiag.preference._ches_columns import COLUMNS, ches_columns
from rankdiag.preference._pair_columns import regime_names

__all__ = [
    "ChesResult",
    "ches_from_padded",
    "ches_from_states",
    "ches_from_sums",
    "ches_score",
]

Floats = NDArray[np.float64]

_QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_UNRELIABLE = 100.0  # cond beyond which half-precision states cannot vouch for the sign
_BINS = 30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChesResult(Result):
    """CHES scores of preference pairs and everything that is read with them; float64 arrays of shape (N,).

    Attributes
    ----------
    ches : ndarray
        <S+, S-> - ||S+||^2; higher means more likelihood displacement is to be expected.
    ln_ches : ndarray
        <mu+, mu- - mu+> with the means in place of the sums; free of the length effect, used for filtering.
    relative : ndarray
        CHES / ||S+ - S-||^2, NaN if both sums are equal; above 0 both responses are expected to fall, below -1 both to
        rise (derived here).
    cross, chosen_sq, rejected_sq : ndarray
        <S+, S->, ||S+||^2, ||S-||^2.
    swapped : ndarray
        CHES with the responses exchanged; a positive value hints at a flipped label.
    cond : ndarray
        ``(|<S+, S->| + ||S+||^2) / |CHES|``: beyond about 100, half-precision states cannot vouch for the sign.
        Infinite where CHES is 0 and its parts are not; NaN where they are.
    n_chosen, n_rejected : ndarray
        Numbers of states.

    Examples
    --------
    >>> from rankdiag.preference import ches_from_sums
    >>> result = ches_from_sums([[1.0, 0.0]], [[3.0, 0.0]], [1], [1])
    >>> result.ches.tolist(), result.relative.tolist(), result.regime
    ([2.0], [0.5], ['both_fall'])
    """

    tag: ClassVar[str] = "preference.ChesResult"

    ches: NDArray[np.float64]
    ln_ches: NDArray[np.float64]
    relative: NDArray[np.float64]
    cross: NDArray[np.float64]
    chosen_sq: NDArray[np.float64]
    rejected_sq: NDArray[np.float64]
    swapped: NDArray[np.float64]
    cond: NDArray[np.float64]
    n_chosen: NDArray[np.float64]
    n_rejected: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ches)

    @property
    def regime(self) -> list[str]:
        """What `relative` says of each pair: both_fall, ideal, both_rise or undefined."""
        return regime_names(self.relative)

    def weighted(self, w_chosen: Any, w_rejected: Any) -> NDArray[np.float64]:
        """Return the score under loss weights: w- <S+, S-> - w+ ||S+||^2.

        Parameters
        ----------
        w_chosen, w_rejected : float or array-like of shape (N,)
            Weights w+ and w- as `loss_weights` gives them.

        Returns
        -------
        ndarray of float64, shape (N,)
            Positive where the chosen response is expected to fall. With w = 1/n and divided by n+ it is `ln_ches`.

        Raises
        ------
        TypeError
            If a weight is no number.
        ValueError
            If a weight is not finite, or is neither one number nor one for each pair.
        """
        plus, minus = (
            _weight(value, name, len(self)) for value, name in ((w_chosen, "w_chosen"), (w_rejected, "w_rejected"))
        )
        return np.asarray(minus * self.ches + (minus - plus) * self.chosen_sq, dtype=np.float64)

    def to_pandas(self) -> Any:
        """Return one row for each pair as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            The fields of this result and ``regime``.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from rankdiag._optional import optional

        pandas = optional("pandas", extra="tables", feature="to_pandas()")
        names = (*COLUMNS, "n_chosen", "n_rejected")
        return pandas.DataFrame({**{name: np.array(getattr(self, name)) for name in names}, "regime": self.regime})

    def document(self) -> Document:
        """Return what this result shows: regimes, quartiles and the distribution of the length-normalised score."""
        regimes = self.regime
        shares = {word: regimes.count(word) / len(self) for word in ("both_fall", "ideal", "both_rise", "undefined")}
        names = ("ches", "ln_ches", "relative", "cond")
        rows = tuple((name, *_quartiles(getattr(self, name))) for name in names)
        labels = ("minimum", "25 %", "median", "75 %", "maximum")
        return Document(
            title=f"CHES scores of {len(self)} pairs",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="pairs", value=len(self)),
                KeyNumber(label="both expected to fall", value=shares["both_fall"], doc="Share with relative > 0."),
                KeyNumber(label="ideal", value=shares["ideal"], doc="Share with relative from -1 to 0."),
                KeyNumber(label="both expected to rise", value=shares["both_rise"], doc="Share with relative < -1."),
                KeyNumber(label="undefined", value=shares["undefined"], doc="Share whose responses have equal sums."),
            ),
            grids=(Grid(title="Quartiles", columns=tuple(Column(name=n) for n in ("score", *labels)), rows=rows),),
            plots=(_histogram(self.ln_ches),),
            notes=self.notes(),
        )


def _weight(value: Any, name: str, count: int) -> Floats:
    array = as_float64(value, name, expected="one weight, or one for each pair")
    if array.shape not in {(), (count,)}:
        raise ValueError(f"`{name}` must be one number or one for each of {count} pairs; got {describe(value)}")
    return array


def _quartiles(values: Floats) -> tuple[float | None, ...]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (None,) * len(_QUARTILES)
    return tuple(float(value) for value in np.quantile(finite, _QUARTILES))


def _histogram(values: Floats) -> Plot:
    centres, counts = histogram(values, _BINS)
    return Plot(
        title="Distribution of the length-normalised score",
        x_label="ln_ches",
        y_label="pairs",
        series=(Series(label="", x=centres, y=counts, kind="bars"),),
        lines=(ReferenceLine(axis="x", value=0.0, label="0"),),
        description=f"How many of {len(values)} pairs have which score; the highest are the first candidates to drop.",
    )


def _result(sum_chosen: Floats, difference: Floats, n_chosen: Floats, n_rejected: Floats, dtype: str) -> ChesResult:
    with np.errstate(over="ignore", invalid="ignore"):
        columns = ches_columns(sum_chosen, difference, n_chosen, n_rejected)
        distance = columns["ches"] + columns["swapped"]
    parts = (distance, *(columns[name] for name in ("chosen_sq", "rejected_sq", "cross", "ln_ches")))
    over = ~np.isfinite(np.array(parts)).all(axis=0)
    if over.any():
        raise ValueError(
            f"pair {int(over.argmax())}: products of the sums of its states exceed float64; scale all states down"
        )
    fields: dict[str, Any] = {**columns, "n_chosen": np.array(n_chosen), "n_rejected": np.array(n_rejected)}
    for array in fields.values():
        array.flags.writeable = False
    fall = float((columns["relative"] > 0).mean())
    return ChesResult(
        **fields,
        explanation=(
            f"{fall:.0%} of {len(n_chosen)} pairs have a positive score: their states are so alike, or their rejected "
            "response so much longer, that both responses are expected to fall. Scores rank the pairs of one dataset "
            "under one model; ln_ches does so without the effect of length."
        ),
        meta=Meta(
            definition="CHES = <S+, S-> - ||S+||^2, S the sums of the final hidden states that predict each response",
            n=len(n_chosen),
            dtype=dtype,
            details={"reference": "arXiv 2410.08847, Definitions 2 and 3", "sign unreliable beyond cond": _UNRELIABLE},
        ),
    )


# --- ways in ---------------------------------------------------------------------------------------------------------


def ches_score(chosen_states: Any, rejected_states: Any) -> float:
    """CHES score of one pair.

    Parameters
    ----------
    chosen_states, rejected_states : array-like or torch.Tensor, shapes (n+, d) and (n-, d)
        Final hidden states that predict the tokens of each response: the state of the last prompt token first, the
        state of the last response token not among them.

    Returns
    -------
    float
        <S+, S-> - ||S+||^2. Higher means that training on the pair is more likely to lower the probability of its
        chosen response; it ranks the pairs of one dataset under one model.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If a response has no states, the widths differ, or a state is not finite.

    References
    ----------
    Razin, Malladi, Bhaskar, Chen, Arora, Hanin, "Unintentional Unalignment", arXiv 2410.08847, Definition 2.

    Examples
    --------
    >>> from rankdiag import ches_score
    >>> ches_score([[1, 2], [3, -1]], [[1, 2], [0, 4], [2, 2]])
    3.0
    """
    return float(ches_from_states([chosen_states], [rejected_states]).ches[0])


def ches_from_states(
    chosen: Sequence[Any], rejected: Sequence[Any], *, n_shared: Sequence[int] | None = None
) -> ChesResult:
    """CHES scores from the hidden states of each response.

    Parameters
    ----------
    chosen, rejected : sequence of array-like or torch.Tensor, each of shape (n, d)
        One array for each pair, any float dtype: the states that predict the tokens of the response.
    n_shared : sequence of int, optional
        How many leading states the two responses of each pair have in common; these are taken from the chosen side.
        None counts the leading states that are equal to the bit.

    Returns
    -------
    ChesResult
        Columns over the pairs.

    Raises
    ------
    TypeError
        If an argument is no sequence of arrays.
    ValueError
        If there is no pair, numbers of pairs or widths differ, a response is empty, a state is not finite, or a count
        is out of range; the message names the pair.

    Notes
    -----
    Time and memory O((n+ + n-) d) a pair; sums are float64 whatever comes in.

    Examples
    --------
    >>> from rankdiag.preference import ches_from_states
    >>> result = ches_from_states([[[1, 2], [3, -1]]], [[[1, 2], [0, 4], [2, 2]]])
    >>> result.ches.tolist(), result.ln_ches.round(6).tolist(), result.relative.tolist()
    ([3.0], [-0.916667], [0.06])
    """
    plus, minus = _sequence(chosen, "chosen"), _sequence(rejected, "rejected")
    if len(plus) != len(minus):
        raise ValueError(f"`rejected` must have as many entries as `chosen`, {len(plus)}; got {len(minus)}")
    if not plus:
        raise ValueError("`chosen` must hold at least one pair; got none")
    shared = None if n_shared is None else _sequence(n_shared, "n_shared")
    if shared is not None and len(shared) != len(plus):
        raise ValueError(f"`n_shared` must have one entry for each of {len(plus)} pairs; got {len(shared)}")
    sums: list[Floats] = []
    differences: list[Floats] = []
    lengths: list[tuple[int, int]] = []
    for pair, (first, second) in enumerate(zip(plus, minus, strict=True)):
        a, b = _states(first, "chosen", pair), _states(second, "rejected", pair)
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"pair {pair}: `rejected` must have width {a.shape[1]}, as `chosen` has; got {b.shape[1]}")
        if sums and a.shape[1] != len(sums[0]):
            raise ValueError(f"pair {pair}: states must have width {len(sums[0])}, as in pair 0; got {a.shape[1]}")
        if shared is None:
            s = _equal_prefix(a, b)
        else:
            s = integer(shared[pair], f"n_shared[{pair}]", low=0, high=min(len(a), len(b)))
        with np.errstate(over="ignore", invalid="ignore"):
            sums.append(a.sum(axis=0))
            differences.append(b[s:].sum(axis=0) - a[s:].sum(axis=0))
        lengths.append((len(a), len(b)))
    n = np.array(lengths, dtype=np.float64)
    return _result(np.array(sums), np.array(differences), n[:, 0], n[:, 1], _dtype(plus[0]))


def ches_from_sums(sum_chosen: Any, sum_rejected: Any, n_chosen: Any, n_rejected: Any) -> ChesResult:
    """CHES scores from sums of hidden states.

    Parameters
    ----------
    sum_chosen, sum_rejected : array-like or torch.Tensor, shape (N, d)
        S+ and S-, sums of the states that predict the tokens of each response.
    n_chosen, n_rejected : array-like of int, shape (N,)
        Numbers of states in each sum, at least 1.

    Returns
    -------
    ChesResult
        Columns over the pairs.

    Raises
    ------
    TypeError
        If an argument is no array of numbers.
    ValueError
        If shapes do not fit, a sum is not finite, or a length is no whole number of at least 1.

    Notes
    -----
    The difference of the sums has lost the digits that shared states cancel; where pairs are nearly identical, use
    `ches_from_states`.

    Examples
    --------
    >>> from rankdiag.preference import ches_from_sums
    >>> ches_from_sums([[4.0, 1.0]], [[3.0, 8.0]], [2], [3]).swapped.tolist()
    [-53.0]
    """
    plus = as_float64(sum_chosen, "sum_chosen", ndim=2, expected="sums of states (N, d)")
    minus = as_float64(sum_rejected, "sum_rejected", ndim=2, expected="sums of states (N, d)")
    if plus.shape != minus.shape:
        raise ValueError(f"`sum_rejected` must have the shape of `sum_chosen`, {plus.shape}; got {minus.shape}")
    n_plus, n_minus = _lengths(n_chosen, "n_chosen", len(plus)), _lengths(n_rejected, "n_rejected", len(plus))
    with np.errstate(over="ignore", invalid="ignore"):
        difference = minus - plus
    wide = ~np.isfinite(difference).all(axis=1)
    if wide.any():
        raise ValueError(
            f"pair {int(wide.argmax())}: its sums differ by more than float64 can hold; scale all states down"
        )
    return _result(plus, difference, n_plus, n_minus, _dtype(sum_chosen))


def ches_from_padded(chosen: Any, chosen_mask: Any, rejected: Any, rejected_mask: Any) -> ChesResult:
    """CHES scores from padded batches of hidden states.

    Parameters
    ----------
    chosen : array-like or torch.Tensor, shape (N, T, d)
        Hidden states; what lies under False in the mask is never read.
    chosen_mask : array-like or torch.Tensor of bool, shape (N, T)
        True exactly at the states that predict a token of the response; padding on any side.
    rejected : array-like or torch.Tensor, shape (N, T', d)
        The same of the rejected responses; T' need not be T.
    rejected_mask : array-like or torch.Tensor of bool, shape (N, T')
        Their mask.

    Returns
    -------
    ChesResult
        Columns over the pairs.

    Raises
    ------
    TypeError
        If an argument is no array of numbers, or a mask is not boolean.
    ValueError
        If there is no pair, shapes do not fit, a response has no states, or a state under True is not finite.

    Notes
    -----
    Time O(N (T + T') d); one pair at a time is widened to float64.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import ches_from_padded
    >>> states = np.array([[[1.0, 2.0], [3.0, -1.0], [np.nan, np.nan]]])
    >>> others = np.array([[[1.0, 2.0], [0.0, 4.0], [2.0, 2.0]]])
    >>> ches_from_padded(states, [[True, True, False]], others, np.ones((1, 3), bool)).ches.tolist()
    [3.0]
    """
    sides = []
    for given, mask, name in ((chosen, chosen_mask, "chosen"), (rejected, rejected_mask, "rejected")):
        states = given
        try:
            shape = tuple(int(length) for length in np.shape(states))
        except Exception:  # an object whose attributes raise, rows of different lengths
            raise TypeError(f"`{name}` must be hidden states (N, T, d); got {describe(states)}") from None
        if isinstance(states, (list, tuple)):
            states = as_float64(states, name, finite=False, allow_empty=True, expected="hidden states (N, T, d)")
        if len(shape) != 3:
            raise ValueError(f"`{name}` must be hidden states (N, T, d); got shape {shape}")
        keep = _mask(mask, f"{name}_mask", shape[:2])
        sides.append([states[i][_like(keep[i], states)] for i in range(shape[0])])
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"`rejected` must hold as many pairs as `chosen`, {len(sides[0])}; got {len(sides[1])}")
    return ches_from_states(sides[0], sides[1])


def _like(mask: NDArray[np.bool_], states: Any) -> Any:
    if not is_torch(states):
        return mask
    import torch

    return torch.from_numpy(mask).to(states.device)


def _mask(value: Any, name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if is_torch(value):
        if value.is_nested or str(value.dtype) != "torch.bool" or value.device.type == "meta":
            raise TypeError(f"`{name}` must be boolean, True at the states that count; got {describe(value)}")
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError):  # an object that fails to become an array
        raise TypeError(f"`{name}` must be boolean, True at the states that count; got {describe(value)}") from None
    except ValueError:
        raise ValueError(f"`{name}` must be a mask of shape {shape}; got rows of different lengths") from None
    if array.dtype != np.bool_:
        raise TypeError(f"`{name}` must be boolean, True at the states that count; got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"`{name}` must have the shape of its states, {shape}; got {array.shape}")
    return array


def _sequence(value: Any, name: str) -> Sequence[Any]:
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise TypeError(f"`{name}` must be a sequence with one entry for each pair; got {describe(value)}")
    if is_torch(value) and value.is_nested:
        raise TypeError(
            f"`{name}` must be a list of tensors, one for each pair; got a nested tensor. Call .unbind() first"
        )
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        refuse_size(math.prod(int(length) for length in shape), name, shape)
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a sequence with one entry for each pair; got {describe(value)}") from None


def _states(value: Any, name: str, pair: int) -> Floats:
    if isinstance(value, (list, tuple)) and not len(value):
        raise ValueError(f"pair {pair}: {name} response has no tokens; every response needs at least one state")
    array = as_float64(
        value, f"{name}[{pair}]", ndim=2, allow_empty=True, finite=False, expected="hidden states (n, d)"
    )
    if array.shape[0] == 0:
        raise ValueError(f"pair {pair}: {name} response has no tokens; every response needs at least one state")
    if array.shape[1] == 0:
        raise ValueError(f"pair {pair}: `{name}` must have states of at least one entry; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"pair {pair}: hidden states of `{name}` contain NaN/inf; load the model in bfloat16 or float32"
        )
    return array


def _equal_prefix(a: Floats, b: Floats) -> int:
    n = min(len(a), len(b))
    same = (a[:n] == b[:n]).all(axis=1)
    return n if same.all() else int(same.argmin())


def _lengths(value: Any, name: str, count: int) -> Floats:
    array = as_float64(value, name, ndim=1, expected="one length for each pair")
    if len(array) != count:
        raise ValueError(f"`{name}` must have one entry for each of {count} pairs; got {len(array)}")
    bad = (array < 1) | (array != np.floor(array))
    if bad.any():
        pair = int(bad.argmax())
        raise ValueError(f"pair {pair}: `{name}` must be a whole number of at least 1; got {array[pair]:g}")
    return array


def _dtype(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return "float64" if dtype is None else str(dtype).removeprefix("torch.")

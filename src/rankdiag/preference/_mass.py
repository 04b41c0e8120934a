"""Where the probability went: token by token for one distribution, and by groups of tokens or responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, integer, string

__all__ = ["GroupMass", "TokenMassShift", "mass_by_group", "token_mass_shift"]

Floats = NDArray[np.float64]

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenMassShift(Result):
    """Change of one next-token distribution.

    Attributes
    ----------
    prob_change : ndarray of float64, shape (V,)
        p_after - p_before of every token.
    top_prob_ids, top_logp_ids : ndarray of int64, shape (k,)
        Tokens with the largest changes of probability, and of log-probability, whatever their sign. The two differ:
        gains of log-probability are dominated by tokens that hardly ever occur.
    preferred_rank_prob, preferred_rank_logp : int
        Place of the preferred token among all tokens by each change, 0 for the largest.
    total_variation : float
        Half the sum of absolute changes, in [0, 1].
    kl : float
        KL(before || after), in nats; infinite where a token has lost all its probability.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import token_mass_shift
    >>> round(token_mass_shift(np.log([0.5, 0.5]), np.log([0.75, 0.25]), preferred=0).kl, 6)
    0.143841
    """

    tag: ClassVar[str] = "preference.TokenMassShift"

    prob_change: NDArray[np.float64]
    top_prob_ids: NDArray[np.int64]
    top_logp_ids: NDArray[np.int64]
    preferred_rank_prob: int
    preferred_rank_logp: int
    total_variation: float
    kl: float

    def document(self) -> Document:
        """Return what this shift shows: how large it is, and which tokens gained."""
        rows = tuple((int(token), float(self.prob_change[token])) for token in self.top_prob_ids)
        columns = (Column(name="token", doc="Id."), Column(name="change", doc="Of its probability."))
        return Document(
            title="Where the probability went",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="moved in all", value=self.total_variation, doc="Total variation distance."),
                KeyNumber(label="KL(before || after)", value=self.kl, unit="nat"),
                KeyNumber(
                    label="rank of the preferred token", value=self.preferred_rank_prob, doc="0: it gained the most."
                ),
            ),
            grids=(Grid(title="Largest changes of probability", columns=columns, rows=rows),),
            notes=self.notes(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupMass(Result):
    """Change of the probability of groups of tokens.

    Attributes
    ----------
    prob_change : mapping of str to float
        Group -> change of its total probability.
    catastrophic : bool
        Whether the groups named catastrophic gained together, and more than those named benign (a working rule of this
        library; the paper's notion is one of meaning).

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import mass_by_group
    >>> mass_by_group(np.log([0.5, 0.5]), np.log([0.75, 0.25]), {"benign": [0], "catastrophic": [1]}).catastrophic
    False
    """

    tag: ClassVar[str] = "preference.GroupMass"

    prob_change: Mapping[str, float]
    catastrophic: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "prob_change", MappingProxyType(dict(self.prob_change)))

    def __reduce__(self) -> tuple[Any, ...]:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        state["prob_change"] = dict(self.prob_change)  # the read-only view cannot be copied or pickled
        return _rebuild, (state,)

    def document(self) -> Document:
        """Return what these groups show."""
        columns = (Column(name="group"), Column(name="change", doc="Of its probability."))
        return Document(
            title="Where the probability went, by group",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(KeyNumber(label="catastrophic", value=self.catastrophic),),
            grids=(Grid(title="Groups", columns=columns, rows=tuple(self.prob_change.items())),),
            notes=self.notes(),
        )


def _rebuild(state: dict[str, Any]) -> GroupMass:
    return GroupMass(**state)


def token_mass_shift(logp_before: Any, logp_after: Any, preferred: int, k: int = 10) -> TokenMassShift:
    """Say which tokens gained when one next-token distribution changed.

    Parameters
    ----------
    logp_before, logp_after : array-like or torch.Tensor, shape (V,)
        Log-probabilities of all tokens, in nats; -inf is legal.
    preferred : int
        Id of the token that training preferred.
    k : int
        How many of the largest changes to name; all if there are fewer tokens.

    Returns
    -------
    TokenMassShift
        Changes, the top tokens by probability and by log-probability (ties by the lower id), distances.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes differ, the probabilities do not add up to 1 within 1e-3, or an id is out of range.

    Notes
    -----
    Time O(V log V). A token that is impossible before and after has a change of 0 in log-probability too.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import token_mass_shift
    >>> shift = token_mass_shift(np.log([0.5, 0.4, 0.1]), np.log([0.3, 0.4, 0.3]), preferred=0, k=1)
    >>> shift.top_prob_ids.tolist(), shift.preferred_rank_prob, round(shift.total_variation, 6)
    ([2], 2, 0.2)
    """
    before, after = _distribution(logp_before, "logp_before"), _distribution(logp_after, "logp_after")
    if before.shape != after.shape:
        raise ValueError(f"`logp_after` must have the shape of `logp_before`, {before.shape}; got {after.shape}")
    token = integer(preferred, "preferred", low=0, high=len(before) - 1)
    count = min(integer(k, "k", low=1), len(before))
    p, q = np.exp(before), np.exp(after)
    change = q - p
    both = np.isneginf(before) & np.isneginf(after)
    log_change = np.where(both, 0.0, np.where(both, 0.0, after) - np.where(both, 0.0, before))
    by_prob, by_logp = (np.argsort(-values, kind="stable") for values in (change, log_change))
    terms = np.where(p > 0, p * (np.where(p > 0, before, 0.0) - np.where(p > 0, after, 0.0)), 0.0)
    total = min(1.0, 0.5 * float(np.abs(change).sum()))  # probabilities add up to 1 within 1e-3
    top = int(by_prob[0])
    change.flags.writeable = False
    return TokenMassShift(
        prob_change=change,
        top_prob_ids=by_prob[:count].astype(np.int64),
        top_logp_ids=by_logp[:count].astype(np.int64),
        preferred_rank_prob=int(np.flatnonzero(by_prob == token)[0]),
        preferred_rank_logp=int(np.flatnonzero(by_logp == token)[0]),
        total_variation=total,
        kl=max(0.0, float(terms.sum())),
        explanation=(
            f"{total:.3g} of the probability moved; token {top} gained the most ({change[top]:+.3g}), the preferred "
            f"token {token} changed by {change[token]:+.3g}."
            if change[top] > 0
            else "No token gained probability."
        ),
        meta=Meta(definition="change of one next-token distribution", base="e", n=len(p), details={"preferred": token}),
    )


def mass_by_group(
    logp_before: Any,
    logp_after: Any,
    groups: Mapping[str, Any],
    *,
    benign: Sequence[str] = ("benign",),
    catastrophic: Sequence[str] = ("catastrophic",),
) -> GroupMass:
    """Say how much probability groups of tokens gained or lost.

    Parameters
    ----------
    logp_before, logp_after : array-like or torch.Tensor, shape (V,)
        Log-probabilities of all tokens, in nats; -inf is legal.
    groups : mapping of str to sequence of int
        Disjoint groups of token ids; which ids belong where is your knowledge, not this library's.
    benign, catastrophic : sequence of str
        Which groups count as harmless, and as harmful, if they gain; names that are not in `groups` are passed over.

    Returns
    -------
    GroupMass
        Change of each group's probability, and whether the harmful ones gained, and more than the harmless ones.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes differ, the probabilities do not add up to 1 within 1e-3, an id is out of range, or groups overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.preference import mass_by_group
    >>> before, after = np.log([0.7, 0.2, 0.1]), np.log([0.4, 0.3, 0.3])
    >>> result = mass_by_group(before, after, {"benign": [1], "catastrophic": [2]})
    >>> {name: round(change, 6) for name, change in result.prob_change.items()}, result.catastrophic
    ({'benign': 0.1, 'catastrophic': 0.2}, True)
    """
    before, after = _distribution(logp_before, "logp_before"), _distribution(logp_after, "logp_after")
    if before.shape != after.shape:
        raise ValueError(f"`logp_after` must have the shape of `logp_before`, {before.shape}; got {after.shape}")
    if not isinstance(groups, Mapping):
        raise TypeError(f"`groups` must map names to token ids; got {describe(groups)}")
    if not groups:
        raise ValueError("`groups` must map names to token ids, at least one; got none")
    change = np.exp(after) - np.exp(before)
    owner: dict[int, str] = {}
    found: dict[str, float] = {}
    for name, ids in groups.items():
        if not isinstance(name, str):
            raise TypeError(f"`groups` must have names that are strings; got {describe(name)}")
        members = _members(ids, name, len(change))
        for token in members:
            if owner.get(token) == name:
                raise ValueError(f"`groups` must be disjoint; token {token} is twice in {name!r}")
            if token in owner:
                raise ValueError(f"`groups` must be disjoint; token {token} is in {owner[token]!r} and in {name!r}")
            owner[token] = name
        found[name] = float(change[members].sum())
    harmless, harmful = (
        sum(found.get(name, 0.0) for name in set(_names(names, label)))
        for names, label in ((benign, "benign"), (catastrophic, "catastrophic"))
    )
    flagged = harmful > 0 and harmful > harmless
    listing = ", ".join(f"{name} {value:+.3g}" for name, value in found.items())
    return GroupMass(
        prob_change=found,
        catastrophic=bool(flagged),
        explanation=f"Probability of the groups: {listing}."
        + (" The harmful groups gained, and more than the harmless ones." if flagged else ""),
        meta=Meta(definition="change of the total probability of groups of tokens", n=len(change)),
    )


def _distribution(value: Any, name: str) -> Floats:
    array = as_float64(value, name, ndim=1, finite=False, expected="log-probabilities of all tokens (V,)")
    if np.isnan(array).any() or np.isposinf(array).any():
        raise ValueError(f"`{name}` must hold log-probabilities, finite or -inf; got NaN or infinity")
    with np.errstate(over="ignore"):
        total = float(np.exp(array).sum())
    if not abs(total - 1.0) <= _SUM_TOLERANCE:
        raise ValueError(
            f"`{name}` must be log-probabilities whose exponentials add up to 1 within {_SUM_TOLERANCE:g}; they add up "
            f"to {total:.6g}. Apply log_softmax first"
        )
    return array


def _members(ids: Any, name: str, size: int) -> list[int]:
    if isinstance(ids, (str, bytes, Mapping)):
        raise TypeError(f"`groups` must hold sequences of token ids; {name!r} is {describe(ids)}")
    try:
        entries = list(ids)
    except TypeError:
        raise TypeError(f"`groups` must hold sequences of token ids; {name!r} is {describe(ids)}") from None
    return [integer(entry, f"groups[{name!r}]", low=0, high=size - 1) for entry in entries]


def _names(value: Any, name: str) -> Sequence[str]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"`{name}` must be a sequence of names of groups; got {describe(value)}")
    return [string(entry, name) for entry in value]

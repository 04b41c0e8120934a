"""What training an implicit reward model on pairs would do to other pairs, and how much of it rests on equal tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, real
from rankdiag.language_models import _run
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._model import Subject, adapt
from rankdiag.language_models._outputs import LogProbs, States
from rankdiag.language_models._plan import plan
from rankdiag.rewards._transfer import ResponseStates, cue_shares, cue_sums, loss_weights

__all__ = ["TokenCues", "token_cues"]

Floats = NDArray[np.float64]

_SHOWN = 20
_POINTS = 5000  # of a plot


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenCues(Result):
    """Change of the margin of each evaluated pair by one step on each training pair, and its share of token cues.

    Attributes
    ----------
    keys : tuple of str
        Evaluated pairs, E of them.
    train_keys : tuple of str
        Training pairs, T of them.
    margin_change : ndarray of float64, shape (E, T)
        First-order change of r(chosen) - r(rejected) of pair e by one step on pair t; positive widens it in the right
        direction. NaN for a pair that could not be used.
    cue_share : ndarray of float64, shape (E, T)
        Share of ``|rho_kl <h_k, h_l>|`` that falls on equal tokens, over both responses of both pairs; in [0, 1]. See
        `token_cue_share`.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.rewards import token_cues
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6]}])
    >>> found = token_cues(tiny_language_model(), data)
    >>> found.margin_change.shape, bool(found.margin_change[0, 0] > 0)
    ((1, 1), True)
    """

    tag: ClassVar[str] = "rewards.TokenCues"
    judged: ClassVar[bool] = False

    keys: tuple[str, ...]
    train_keys: tuple[str, ...]
    margin_change: NDArray[np.float64]
    cue_share: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("keys", "train_keys"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("margin_change", "cue_share"):
            array = np.array(as_float64(getattr(self, name), name, ndim=2, finite=False, allow_empty=True))
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.keys)

    def document(self) -> Document:
        """Return what this result shows: medians, the pairs that training narrows most, and change against cues."""
        change, share = self.margin_change, self.cue_share
        means = np.array([_mean(row) for row in change])
        order = np.argsort(means, kind="stable")[:_SHOWN]
        order = order[np.isfinite(means[order])]
        flat = np.flatnonzero((np.isfinite(change) & np.isfinite(share)).ravel())
        shown = flat[:: max(1, -(-len(flat) // _POINTS))]
        return Document(
            title="Token cues of an implicit reward model",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="evaluated pairs", value=len(self)),
                KeyNumber(label="training pairs", value=len(self.train_keys)),
                KeyNumber(label="steps that narrow a margin", value=_share_below(change), doc="Of all pairs of pairs."),
                KeyNumber(label="cue share, median", value=_median(share), doc="On equal tokens; 1 is all."),
            ),
            grids=(
                Grid(
                    title="Pairs whose margin training widens least",
                    columns=(
                        Column(name="pair"),
                        Column(name="margin change", doc="Mean over training pairs."),
                        Column(name="narrowed", doc="Share of training pairs that narrow it."),
                        Column(name="cue share", doc="Median over training pairs."),
                    ),
                    rows=tuple(
                        (self.keys[i], float(means[i]), _share_below(change[i]), _median(share[i]))
                        for i in order.tolist()
                    ),
                ),
            ),
            plots=(
                Plot(
                    title="Change of a margin against its share of token cues",
                    x_label="share on equal tokens",
                    y_label="change of the margin, nats beta^2",
                    series=(
                        Series(
                            label="evaluated pair, training pair",
                            x=share.ravel()[shown].tolist(),
                            y=change.ravel()[shown].tolist(),
                            kind="points",
                        ),
                    ),
                    lines=(ReferenceLine(axis="y", value=0.0, label="no change"),),
                    description=f"{len(shown)} of {len(flat)} combinations of an evaluated and a training pair.",
                ),
            ),
            notes=self.notes(),
        )


def token_cues(
    model: Any,
    train: Encoded,
    *,
    evaluation: Encoded | None = None,
    beta: float = 1.0,
    lr: float = 1.0,
    gap: Any = 0.0,
    layout: Literal["auto", "plain", "packed"] = "auto",
    token_budget: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> TokenCues:
    """Forecast what one step on each training pair does to other pairs as an implicit reward, and how.

    Parameters
    ----------
    model : torch.nn.Module
        The policy whose log-probabilities are the reward: a causal language model.
    train : Encoded
        Pairs, chosen in slot 0 and rejected in slot 1; see `rankdiag.language_models.encode_preferences`.
    evaluation : Encoded, optional
        Pairs whose margins are watched: other wordings of the training pairs, say. None takes `train` itself.
    beta : float
        Scale of the reward, > 0.
    lr : float
        Step size, >= 0.
    gap : float or array-like of shape (T,)
        Present reward of chosen less rejected of each training pair; 0 where the policy is its own reference.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`.
    token_budget : int, optional
        See `rankdiag.language_models.plan`.
    autocast : torch.dtype, optional
        Lower precision for the forwards.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    TokenCues
        Change of every margin by every pair, and its share of token cues.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a group is no pair, no pair can be used, or the logits are not a multiple of the output projection of the
        states (a bias, a soft cap).

    Notes
    -----
    Hidden states are held fixed and the output projection alone is trained: the first-order theory of
    `reward_transfer`, on the states of a real model. One forward over all pairs; the states of all responses are kept
    in float64, then as `reward_transfer`. Tokens that a loss mask leaves out neither train nor count.

    References
    ----------
    Razin et al., arXiv 2507.07981, Section 5 (learning dynamics); the share is defined here.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences
    >>> from rankdiag.rewards import token_cues
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6]}])
    >>> other = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [7, 8], "rejected_ids": [9]}])
    >>> token_cues(tiny_language_model(), data, evaluation=other).cue_share.tolist()
    [[0.0]]
    """
    scale, step = real(beta, "beta", low=0.0, low_open=True), real(lr, "lr", low=0.0)
    watched = train if evaluation is None else evaluation
    for data, name in ((train, "train"), (watched, "evaluation")):
        _check_pairs(data, name)
    weights = step * scale * scale * np.broadcast_to(loss_weights(gap, len(train)), len(train))
    subject = adapt(model, "model")
    options: dict[str, Any] = {"layout": layout, "token_budget": token_budget}
    own = _states(subject, train, options, autocast, progress)
    other = own if watched is train else _states(subject, watched, options, autocast, progress)
    change, matched, total = cue_sums(
        [chosen for chosen, _ in own.values()],
        [rejected for _, rejected in own.values()],
        [response for pair in other.values() for response in pair],
        _words(subject),
    )
    place = np.ix_(list(other), list(own))
    moved, share = (np.full((len(watched), len(train)), np.nan) for _ in range(2))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        share[place] = cue_shares(matched[0::2] + matched[1::2], total[0::2] + total[1::2])
        moved[place] = (change[0::2] - change[1::2]) * weights[list(own)]
    if not np.isfinite(moved[place]).all():
        raise ValueError("`beta`, `lr` and the states have products beyond float64; scale `beta` or `lr` down")
    unusable = {"train": len(train) - len(own), "evaluation": len(watched) - len(other)}
    return TokenCues(
        keys=watched.keys,
        train_keys=train.keys,
        margin_change=moved,
        cue_share=share,
        explanation=_explain(moved, share),
        meta=Meta(
            definition="change of r(chosen) - r(rejected) by one step on a pair, states fixed; share of |rho <h, h>| "
            "on equal tokens",
            n=len(other),
            skipped={f"pairs of `{name}`": f"{count} cannot be used" for name, count in unusable.items() if count},
            details={"beta": scale, "lr": step, "model": subject.name},
        ),
    )


def _check_pairs(data: Any, name: str) -> None:
    if not isinstance(data, Encoded):
        raise TypeError(f"`{name}` must be encoded pairs, see encode_preferences; got {describe(data)}")
    sizes = np.bincount(data.group, minlength=len(data))
    usable = [group for group, status in enumerate(data.status) if status == "ok"]
    if not usable:
        raise ValueError(f"`{name}` must hold at least one pair that can be used; got none of {len(data)}")
    odd = [group for group in usable if sizes[group] != 2]
    if odd:
        raise ValueError(
            f"`{name}` must hold pairs, chosen and rejected; {data.keys[odd[0]]!r} has {sizes[odd[0]]} responses"
        )


def _states(
    subject: Subject, data: Encoded, options: dict[str, Any], autocast: torch.dtype | None, progress: bool
) -> dict[int, list[ResponseStates]]:
    """Return the counted states and tokens of both responses of every usable pair, by group."""
    outputs: list[Any] = [States(), LogProbs()]  # log-probabilities make the plan compare the head with the model
    made = plan(data, subject, outputs, **options)
    scale = _scale(subject)
    first = np.searchsorted(data.group, np.arange(len(data)))
    found: dict[int, list[Any]] = {}
    for columns in _run.run(subject, made, outputs, autocast=autocast, progress=progress):
        for group, slot, states in zip(columns.group.tolist(), columns.slot.tolist(), columns["states"], strict=True):
            row = int(first[group]) + slot
            mask = data.loss_mask[row]
            use = slice(None) if mask is None else mask
            tokens = np.asarray(data.response_ids[row], dtype=np.int64)[use]
            found.setdefault(group, [None, None])[slot] = ResponseStates(np.float64(scale) * states[use], tokens)
    return dict(sorted(found.items()))


def _scale(subject: Subject) -> float:
    """Return the factor of the logits; the theory knows none but W h times a number."""
    head = subject.head
    if head is None or head.own or head.cap is not None or head.bias is not None:
        raise ValueError(
            f"`model` must have logits that are a multiple of W h, the output projection of its states; {subject.name} "
            "changes them in another way"
        )
    return head.scale


def _words(subject: Subject) -> Any:
    head: Any = subject.head
    return head.weight


def _explain(change: Floats, share: Floats) -> str:
    cues = _median(share)
    text = f"One step on a training pair narrows the margin of an evaluated one in {_share_below(change):.0%} of cases."
    if cues is not None:
        text += f" Of what it moves, {cues:.0%} rests on equal tokens (median)."
    return text + " What rests on them carries over to other wordings only as far as these keep the words."


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _median(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _share_below(values: Floats | Sequence[float]) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float((known < 0).mean()) if known.size else float("nan")

"""What an output is given and has to give: the states of one forward, their logits by blocks of the vocabulary.

An output sees the states of a forward once, and the logits of these states one block of the vocabulary at a time;
what it keeps is of the size of its answer. Several outputs share one pass, one product and one exponential.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag.language_models._head import Head
from rankdiag.language_models._layout import prefix_length

__all__ = ["Column", "Context", "LogitsBlock", "Output", "PlainOutput", "groups_of", "pair_prefix"]


Column = Any  # an array over rows, or a tuple of one array for each row


@dataclass(slots=True, kw_only=True)
class Context:
    """The states of one forward, and what belongs to which row.

    Attributes
    ----------
    hidden, hidden_b : torch.Tensor, shape (U, d)
        The distinct states that rows use, of the first and of the second model.
    entry : torch.Tensor of int64, shape (E,)
        State of each entry; entry k of a row is the state that predicts its token k.
    targets : torch.Tensor of int64, shape (E,)
        Token that each entry predicts.
    counted : torch.Tensor of bool, shape (E,)
        Whether the entry counts.
    ptr : ndarray of int64, shape (R + 1,)
        Entries of row i are ``ptr[i]:ptr[i + 1]``.
    rows, group, slot, shared : ndarray of int64, shape (R,)
        Row and group of the data, slot, and how many leading states the row shares with all of its group.
    one_prompt : ndarray of bool, shape (R,)
        Whether all rows of its group have one prompt.
    implied_eos : bool
        Whether the last entry of each row predicts an EOS that is not part of its ids.
    last : torch.Tensor or None, shape (R, d)
        States of the last response tokens, where they were asked for.
    head, head_b : Head or None
        Output projections.
    peak, total : torch.Tensor, shape (U,)
        After the pass over the vocabulary: the logarithm of the partition function is ``peak + log(total)``.
    peak_b, total_b : torch.Tensor, shape (U,)
        The same of the second model.
    target_logit : torch.Tensor, shape (E,)
        After the pass: logit of each target.
    """

    hidden: torch.Tensor
    entry: torch.Tensor
    targets: torch.Tensor
    counted: torch.Tensor
    ptr: NDArray[np.int64]
    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    slot: NDArray[np.int64]
    shared: NDArray[np.int64]
    one_prompt: NDArray[np.bool_]
    implied_eos: bool = False
    last: torch.Tensor | None = None
    head: Head | None = None
    hidden_b: torch.Tensor | None = None
    head_b: Head | None = None
    peak: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    total: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    peak_b: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    total_b: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    target_logit: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def log_partition(self) -> torch.Tensor:
        """Logarithm of the partition function of each state, float64."""
        return self.peak.double() + self.total.log()

    def by_row(self, per_entry: torch.Tensor) -> tuple[NDArray[Any], ...]:
        """Cut values of entries into one float64 array for each row."""
        values = per_entry.to("cpu", torch.float64).numpy()
        return tuple(values[first:last].copy() for first, last in zip(self.ptr[:-1], self.ptr[1:], strict=True))

    def selection(self, *, beyond: bool = False, mean: bool = False) -> torch.Tensor:
        """Return the matrix (R, U) that adds up the counted states of each row.

        Parameters
        ----------
        beyond : bool
            Leave out the states that the row shares with its group.
        mean : bool
            Divide by their number.
        """
        matrix = np.zeros((len(self.rows), len(self.hidden)))
        entry, counted = self.entry.cpu().numpy(), self.counted.cpu().numpy()
        for row, (first, last) in enumerate(zip(self.ptr[:-1], self.ptr[1:], strict=True)):
            begin = first + int(self.shared[row]) if beyond else first
            np.add.at(matrix[row], entry[begin:last], counted[begin:last])
            if mean:
                matrix[row] /= max(1, int(counted[begin:last].sum()))
        return torch.from_numpy(matrix).to(self.hidden.device)


@dataclass(slots=True, kw_only=True)
class LogitsBlock:
    """Logits of all states for one range of the vocabulary.

    Attributes
    ----------
    first, last : int
        Range of the vocabulary.
    logits : torch.Tensor, shape (U, last - first)
        Logits.
    weights : torch.Tensor
        ``exp(logits - peak)`` with the largest logit seen so far.
    rescale : torch.Tensor, shape (U,)
        Factor for sums of earlier blocks, 1 where the peak has not grown.
    growth : torch.Tensor, shape (U,)
        By how much the peak has grown; 0 in the first block.
    logits_b, weights_b, rescale_b, growth_b
        The same of the second model.
    """

    first: int
    last: int
    logits: torch.Tensor
    weights: torch.Tensor
    rescale: torch.Tensor
    growth: torch.Tensor
    logits_b: torch.Tensor | None = None
    weights_b: torch.Tensor | None = None
    rescale_b: torch.Tensor | None = None
    growth_b: torch.Tensor | None = None


@runtime_checkable
class Output(Protocol):
    """One reading of a forward.

    Attributes
    ----------
    needs : frozenset of {"states", "last", "logits", "states_b"}
        What has to be there: states of responses, the state of the last token, logits, a second model.
    columns : tuple of str
        Names of what it gives.

    Examples
    --------
    >>> from rankdiag.language_models import LogProbs, Output
    >>> isinstance(LogProbs(), Output), LogProbs().columns
    (True, ('logp', 'n_tokens'))
    """

    needs: frozenset[str]
    columns: tuple[str, ...]

    def start(self, context: Context) -> Any:
        """Begin with the states of one forward, `context`; return whatever `update` and `finish` need."""

    def update(self, acc: Any, block: LogitsBlock) -> None:
        """Take in the logits of one range of the vocabulary; only called where logits are needed.

        Parameters
        ----------
        acc : object
            What `start` returned.
        block : LogitsBlock
            Logits of all states.
        """

    def finish(self, acc: Any) -> Mapping[str, Column]:
        """Return one entry for each row of the forward, from `acc`, which `start` returned."""
        ...


class PlainOutput:
    """Base of the built-in outputs: no pass over the vocabulary, and the context is all they keep.

    Methods without a docstring of their own get that of this class.
    """

    needs: frozenset[str] = frozenset({"states"})
    columns: tuple[str, ...] = ()

    def __init__(self) -> None:
        pass

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("start", "update", "finish"):
            own = cls.__dict__.get(name)
            if own is not None and not own.__doc__:
                own.__doc__ = getattr(PlainOutput, name).__doc__

    def start(self, context: Context) -> Any:
        """Begin with the states of one forward.

        Parameters
        ----------
        context : Context
            The states, and what belongs to which row.

        Returns
        -------
        object
            Whatever `update` and `finish` need.
        """
        return context

    def update(self, acc: Any, block: LogitsBlock) -> None:
        """Take in the logits of one range of the vocabulary; only called where logits are needed.

        Parameters
        ----------
        acc : object
            What `start` returned.
        block : LogitsBlock
            Logits of all states.
        """

    def finish(self, acc: Any) -> Mapping[str, Column]:
        """Return the columns.

        Parameters
        ----------
        acc : object
            What `start` returned.

        Returns
        -------
        mapping of str to array, or tuple of arrays
            One entry for each row of the forward.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        options = ", ".join(f"{key.lstrip('_')}={value!r}" for key, value in vars(self).items() if key != "needs")
        return f"{type(self).__name__}({options})"


def pair_prefix(context: Context, first: int, second: int) -> int:
    """Return how many leading states two rows of one group have in common."""
    if not context.one_prompt[first]:
        return 0
    targets = context.targets.cpu().numpy()
    a = targets[context.ptr[first] : context.ptr[first + 1]]
    b = targets[context.ptr[second] : context.ptr[second + 1]]
    return min(prefix_length(a, b) + 1, len(a), len(b))


def groups_of(context: Context) -> Sequence[tuple[int, int]]:
    """Return the range of rows of each group of a forward."""
    edges = np.flatnonzero(np.diff(context.group)) + 1
    bounds = [0, *edges.tolist(), len(context.group)]
    return list(itertools.pairwise(bounds))

"""Gradients of log-probabilities by the parameters of a model, one group of responses at a time.

A function of its own: the run works in inference mode, which forbids them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint

from rankdiag._progress import Progress
from rankdiag._validate import boolean, choice, describe
from rankdiag.language_models._checks import forward
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._layout import Feed, Rows, Tree, feed_packed, feed_plain
from rankdiag.language_models._model import Subject, adapt, untouched
from rankdiag.language_models._outputs import LogProbs
from rankdiag.language_models._plan import plan

__all__ = ["fold_gradients", "gradients", "selected_parameters"]

_ENTRIES = 1 << 24  # logits alive at a time in the backward pass

Chooser = Sequence[str] | Callable[[str, Any], bool] | None
Gradient = tuple[torch.Tensor, ...]
T = TypeVar("T")


def gradients(
    model: Any, data: Encoded, *, parameters: Chooser = None, layout: str = "auto", progress: bool = False
) -> Iterator[tuple[int, tuple[tuple[torch.Tensor, ...], ...]]]:
    """Yield the gradients of the log-probability of every response of one group after the other.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model, as `run` takes it.
    data : Encoded
        Records of any kind; groups that are not ``"ok"`` are left out.
    parameters : sequence of str, or callable ``(name, parameter) -> bool``, optional
        Which parameters, by their names in ``model.named_parameters()``; None takes all that require a gradient.
    layout : {"auto", "plain", "packed"}
        Whether the responses of a group share one forward.
    progress : bool
        Whether to draw a progress bar.

    Yields
    ------
    group : int
        Index of the group.
    gradients : tuple of tuple of torch.Tensor
        One tuple for each slot, one tensor for each parameter, in the order of ``model.named_parameters()``.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If no parameter is chosen, a name is unknown, or a chosen parameter does not require a gradient; see also
        `plan`.
    NotImplementedError
        If parameters are sharded over processes (ZeRO-3), which keeps no whole gradient anywhere.

    Notes
    -----
    Cost: one forward and one backward pass for each response. The model runs in evaluation mode; its ``.grad`` fields
    are not touched. Memory: the activations of one group, and as many gradients as it has slots.

    Examples
    --------
    >>> from rankdiag.language_models import encode_preferences, gradients
    >>> from rankdiag.testing import tiny_language_model
    >>> model = tiny_language_model()
    >>> data = encode_preferences([{"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [3, 5, 6]}])
    >>> for group, (chosen, rejected) in gradients(model, data, parameters=["lm_head.weight"]):
    ...     print(group, tuple(chosen[0].shape), bool((chosen[0] == rejected[0]).all()))
    0 (12, 8) False
    """
    return fold_gradients(model, data, tuple, parameters=parameters, layout=layout, progress=progress)


def fold_gradients(
    model: Any,
    data: Encoded,
    fold: Callable[[Iterator[Gradient]], T],
    *,
    parameters: Chooser = None,
    layout: str = "auto",
    coefficients: NDArray[np.float64] | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, T]]:
    """Yield what a function makes of the gradients of each group, which it is given one by one.

    Parameters
    ----------
    model, data, parameters, layout, progress
        As in `gradients`.
    fold : callable
        Called once for each group with an iterator over gradients; only those that it keeps stay in memory.
    coefficients : ndarray of float64, shape (m, rows of the data), optional
        The gradients of m weighted sums of the log-probabilities of the responses of each group, instead of those of
        single responses: m backward passes. Sums that are all 0 in a group are left out there.
    """
    subject = adapt(model, "model")
    chosen = list(selected_parameters(subject, parameters).values())
    made = plan(data, subject, [LogProbs()], layout=cast(Any, choice(layout, "layout", ("auto", "plain", "packed"))))
    source, shown = made.source, boolean(progress, "progress")

    def groups() -> Iterator[tuple[int, T]]:
        packed = {group for batch in made.batches if batch.layout == "packed" for group in batch.groups}
        usable = [index for index, status in enumerate(data.status) if status == "ok"]
        with Progress(shown, total=len(usable), label="gradients", unit="group") as bar:
            for group in usable:
                with untouched([subject], gradients=True):
                    found = fold(_group(subject, source, group, group in packed, chosen, coefficients))
                yield group, found
                bar.advance(1)

    return groups()


def selected_parameters(subject: Subject, parameters: Chooser) -> dict[str, torch.nn.Parameter]:
    """Return the chosen parameters by name.

    Raises
    ------
    TypeError
        If the model is a plain callable, or `parameters` is neither names nor a predicate.
    ValueError
        If none is chosen, a name is unknown, or one does not require a gradient.
    NotImplementedError
        If they are sharded over processes.
    """
    if subject.module is None:
        raise TypeError(f"`model` must be a torch module for gradients; got {subject.name}")
    named = dict(subject.module.named_parameters())
    if any(hasattr(parameter, "ds_id") for parameter in named.values()):
        raise NotImplementedError("gradients of single responses need whole parameters; these are sharded (ZeRO-3)")
    if parameters is None:
        found = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    elif callable(parameters):
        found = {name: parameter for name, parameter in named.items() if parameters(name, parameter)}
    elif isinstance(parameters, Sequence) and not isinstance(parameters, (str, bytes)):
        unknown = [name for name in parameters if name not in named]
        if unknown:
            raise ValueError(f"`parameters` must name parameters of the model; {describe(unknown[0])} is none of them")
        wanted = set(parameters)
        found = {name: parameter for name, parameter in named.items() if name in wanted}
    else:
        raise TypeError(f"`parameters` must be names or a predicate (name, parameter); got {describe(parameters)}")
    if not found:
        raise ValueError(
            "`parameters` must choose at least one parameter; none was chosen, or none requires a gradient"
        )
    frozen = [name for name, parameter in found.items() if not parameter.requires_grad]
    if frozen:
        raise ValueError(f"`parameters` must require gradients; {frozen[0]!r} does not. Call .requires_grad_() on it")
    return found


def _group(
    subject: Subject,
    source: Rows,
    group: int,
    packed: bool,
    parameters: Sequence[torch.nn.Parameter],
    coefficients: NDArray[np.float64] | None,
) -> Iterator[Gradient]:
    feed = feed_packed(source, [Tree.grow(source, [group])]) if packed else feed_plain(source, source.of_group(group))
    sums = response_log_probs(subject, feed)
    if coefficients is None:
        values = list(sums)
    else:
        weights = torch.from_numpy(np.ascontiguousarray(coefficients[:, feed.rows])).to(sums)
        values = list((weights[weights.any(dim=1)] * sums).sum(dim=1))
    for place, value in enumerate(values):
        last = place + 1 == len(values)
        parts = torch.autograd.grad(value, list(parameters), retain_graph=not last, allow_unused=True)
        yield tuple(torch.zeros_like(p) if part is None else part for p, part in zip(parameters, parts, strict=True))


def response_log_probs(subject: Subject, feed: Feed) -> torch.Tensor:
    """Return the log-probability of each row of a forward, differentiable."""
    flat = forward(subject, feed)
    device = flat.device
    hidden = flat[torch.from_numpy(feed.place).to(device)]
    targets = torch.from_numpy(feed.targets).to(device)
    head = cast(Any, subject.head)
    size = max(1, _ENTRIES // head.size)
    if len(hidden) <= size:
        return _row_sums(_token_log_probs(head, hidden, targets), feed)
    pieces = [
        checkpoint(
            _token_log_probs, head, hidden[first : first + size], targets[first : first + size], use_reentrant=False
        )
        for first in range(0, len(hidden), size)
    ]
    return _row_sums(torch.cat(pieces), feed)


def _row_sums(per_token: torch.Tensor, feed: Feed) -> torch.Tensor:
    tokens = per_token.double() * torch.from_numpy(feed.counted).to(per_token.device)
    return torch.stack([tokens[first:last].sum() for first, last in zip(feed.ptr[:-1], feed.ptr[1:], strict=True)])


def _token_log_probs(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head.own_logits(hidden) if head.own else head.layer(hidden)
    if not head.own:
        if head.scale != 1.0:
            logits = logits * head.scale
        if head.cap is not None:
            logits = torch.tanh(logits / head.cap) * head.cap
    wide = logits.double() if hidden.dtype == torch.float64 else logits.float()
    return -torch.nn.functional.cross_entropy(wide, targets, reduction="none")

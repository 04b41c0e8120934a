"""Directional derivatives of log-probabilities: what a given step of the parameters does to every response.

Forward-mode differentiation where the model's operators have it, else central differences at three step sizes,
extrapolated, with the parameters put back to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._validate import describe
from rankdiag._warnings import without_warnings
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._layout import Rows, feed_plain
from rankdiag.language_models._model import Subject, adapt, untouched

__all__ = ["load_forward_mode", "log_probs_along"]

Floats = NDArray[np.float64]

# Step sizes relative to the parameters. A single one of 1e-3 errs by its square's term, 3e-3 of the answer; below 1e-5
# the rounding of float32 takes over. Extrapolating neighbours removes the square's term.
_STEPS = (1e-3, 5e-4, 2.5e-4)


def log_probs_along(
    model: Any, data: Encoded, update: Mapping[str, Any], *, method: str, measure: Callable[[], Floats]
) -> tuple[Floats, dict[str, Any]]:
    """Return the first-order change of the log-probability of every row along an update of the parameters.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model.
    data : Encoded
        Its rows are measured.
    update : mapping of str to torch.Tensor
        Name of a parameter -> direction.
    method : {"auto", "jvp", "central"}
        How.
    measure : callable
        Returns the log-probabilities of all rows, NaN for unusable ones, under the parameters as they are.

    Returns
    -------
    change : ndarray of float64, shape (rows,)
        Nats; NaN for unusable rows.
    details : dict
        ``method``, and for differences ``extrapolation_gap``, the largest difference of the two extrapolations.

    Raises
    ------
    TypeError
        If `model` is no module, or `update` no mapping to tensors.
    ValueError
        If a name or shape is not one of the model, an entry is not finite, everything is zero, or the method does not
        work on this model.
    """
    subject = adapt(model, "model")
    parameters, directions = _checked(subject, update)
    if method != "central":
        try:
            return _forward_mode(subject, data, parameters, directions), {"method": "jvp"}
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ImportError) as error:
            if method == "jvp":
                raise ValueError(
                    f"`method='jvp'` does not work on {subject.name} ({type(error).__name__}: {error}); use 'central'"
                ) from error
    return _central(parameters, directions, measure)


def _checked(subject: Subject, update: Any) -> tuple[dict[str, torch.nn.Parameter], dict[str, torch.Tensor]]:
    if subject.module is None:
        raise TypeError(f"`model` must be a torch module; got {subject.name}")
    if not isinstance(update, Mapping) or not update:
        raise TypeError(f"`update` must map names of parameters to tensors; got {describe(update)}")
    named = dict(subject.module.named_parameters())
    parameters, directions = {}, {}
    for name, direction in update.items():
        if name not in named:
            raise ValueError(f"`update` must name parameters of the model; {describe(name)} is none of them")
        if not isinstance(direction, torch.Tensor):
            raise TypeError(f"`update` must hold tensors; {name!r} is {describe(direction)}")
        parameter = named[name]
        if direction.shape != parameter.shape:
            raise ValueError(
                f"`update` of {name!r} must have shape {tuple(parameter.shape)}; got {tuple(direction.shape)}"
            )
        if not bool(torch.isfinite(direction).all()):
            raise ValueError(f"`update` of {name!r} must be finite; it has NaN or infinity")
        parameters[name] = parameter
        directions[name] = direction.detach().to(parameter)
    if not any(bool(direction.any()) for direction in directions.values()):
        raise ValueError("`update` must move something; it is zero everywhere")
    return parameters, directions


@functools.cache
def load_forward_mode() -> None:
    """Make the first forward-mode call of this process, which warns of a part of torch that torch itself uses."""
    with without_warnings(DeprecationWarning, ".*torch.jit.script.*"):
        torch.func.jvp(torch.exp, (torch.zeros(1),), (torch.ones(1),))


def _forward_mode(
    subject: Subject,
    data: Encoded,
    parameters: Mapping[str, torch.nn.Parameter],
    directions: Mapping[str, torch.Tensor],
) -> Floats:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    source = Rows(data=data, implied_eos=False, feed_last=False)
    change = np.full(len(data.response_ids), np.nan)
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    # The fused attention kernels have no forward-mode rule; the plain one has.
    load_forward_mode()
    with untouched([subject], gradients=True), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for row in range(len(data.response_ids)):
            if data.status[int(data.group[row])] != "ok":
                continue
            function = _row_function(subject, source, row)
            change[row] = float(torch.func.jvp(function, (values,), (dict(directions),))[1])
            if not math.isfinite(change[row]):
                raise RuntimeError(f"the derivative of row {row} is not finite")
    return change


def _row_function(subject: Subject, source: Rows, row: int) -> Callable[[Mapping[str, torch.Tensor]], torch.Tensor]:
    feed = feed_plain(source, [row])
    device = subject.device
    inputs = {
        "input_ids": torch.from_numpy(feed.ids).to(device),
        "attention_mask": torch.from_numpy(feed.mask).to(device),
        "position_ids": torch.from_numpy(feed.positions).to(device),
    }
    arguments = {name: value for name, value in inputs.items() if name in subject.accepts}
    place = torch.from_numpy(feed.place).to(device)
    targets = torch.from_numpy(feed.targets).to(device)
    counted = torch.from_numpy(feed.counted).to(device)

    def log_prob(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        module: Any = subject.module
        logits = torch.func.functional_call(module, dict(values), args=(), kwargs={**arguments, "use_cache": False})
        wide = logits.logits[0][place]
        wide = wide if wide.dtype == torch.float64 else wide.float()
        tokens = torch.log_softmax(wide, dim=-1).gather(1, targets[:, None])[:, 0]
        return (tokens.double() * counted).sum()

    return log_prob


def _central(
    parameters: Mapping[str, torch.nn.Parameter], directions: Mapping[str, torch.Tensor], measure: Callable[[], Floats]
) -> tuple[Floats, dict[str, Any]]:
    low = [name for name, parameter in parameters.items() if parameter.dtype not in {torch.float32, torch.float64}]
    if low:
        raise ValueError(
            f"`update` of {low[0]!r}: differences need float32 or float64 parameters, steps of a thousandth are lost "
            f"in {parameters[low[0]].dtype}; load the model in float32"
        )
    size = _norm(list(parameters.values())) or 1.0
    unit = size / _norm(list(directions.values()))
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    slopes = []
    try:
        for step in _STEPS:
            ends = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    for name, parameter in parameters.items():
                        parameter.copy_(kept[name] + sign * step * unit * directions[name])
                ends.append(measure())
            slopes.append((ends[0] - ends[1]) / (2.0 * step * unit))
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
    first, second = ((4.0 * slopes[i + 1] - slopes[i]) / 3.0 for i in (0, 1))
    gap = float(np.nanmax(np.abs(second - first), initial=0.0))
    return second, {"method": "central", "extrapolation_gap": gap, "relative_steps": list(_STEPS)}


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))

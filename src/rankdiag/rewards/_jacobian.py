"""How far the logits of a model move with its parameters: the J of the gradient bounds, estimated from below."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer
from rankdiag.language_models import _run
from rankdiag.language_models._along import load_forward_mode
from rankdiag.language_models._context import Context, LogitsBlock, PlainOutput
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._gradients import selected_parameters
from rankdiag.language_models._model import Subject, adapt, untouched
from rankdiag.language_models._plan import plan
from rankdiag.rewards._rollouts import Rollouts

__all__ = ["JacobianNorm", "jacobian_norm"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Params = Literal["lm_head", "all"] | Sequence[str] | Callable[[str, Any], bool]
Logits = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]

_SHOWN = 20
_SETTLED = 1e-3  # relative growth of the norm in one step of the iteration; it only ever grows towards the norm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JacobianNorm(Result):
    """Largest spectral norm of the Jacobian of the logits by the parameters found at prefixes of each prompt.

    Attributes
    ----------
    keys : tuple of str
        One for each prompt.
    norm : ndarray of float64, shape (N,)
        An estimate from below of gamma(x), the supremum over all prefixes: the largest norm found at those tried. NaN
        where no response can be used.
    n_prefixes : ndarray of int64, shape (N,)
        Prefixes tried.
    params : str
        Parameters that are moved.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import jacobian_norm
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3], [4, 5]]}], kind="responses")
    >>> found = jacobian_norm(tiny_language_model(), data)
    >>> found.n_prefixes.tolist(), bool(found.norm[0] > 0)
    ([2], True)
    """

    tag: ClassVar[str] = "rewards.JacobianNorm"
    judged: ClassVar[bool] = False

    keys: tuple[str, ...]
    norm: NDArray[np.float64]
    n_prefixes: NDArray[np.int64]
    params: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))
        norm = np.array(as_float64(self.norm, "norm", ndim=1, finite=False, allow_empty=True))
        count = np.array(self.n_prefixes, dtype=np.int64)
        norm.flags.writeable = count.flags.writeable = False
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "n_prefixes", count)

    def __len__(self) -> int:
        return len(self.keys)

    def document(self) -> Document:
        """Return what this result shows: the largest norm, its middle, and the prompts with the largest."""
        known = np.flatnonzero(np.isfinite(self.norm))
        order = known[np.argsort(-self.norm[known], kind="stable")][:_SHOWN]
        values = self.norm[known]
        return Document(
            title="Norm of the Jacobian of the logits",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="prompts", value=len(self)),
                KeyNumber(label="largest norm found", value=float(values.max()) if len(values) else None),
                KeyNumber(label="median", value=float(np.median(values)) if len(values) else None),
                KeyNumber(label="prefixes tried", value=int(self.n_prefixes.sum())),
            ),
            grids=(
                Grid(
                    title="Prompts with the largest norms",
                    columns=(Column(name="prompt"), Column(name="norm"), Column(name="prefixes")),
                    rows=tuple((self.keys[i], float(self.norm[i]), int(self.n_prefixes[i])) for i in order.tolist()),
                    note="Estimates from below: another prefix may have a larger one.",
                ),
            ),
            notes=self.notes(),
        )


def jacobian_norm(
    model: Any,
    rollouts: Encoded | Rollouts,
    *,
    params: Params = "lm_head",
    prefixes: int = 8,
    iterations: int = 50,
    rng: Any = None,
    layout: Literal["auto", "plain", "packed"] = "auto",
    token_budget: int | None = None,
    progress: bool = False,
) -> JacobianNorm:
    """Estimate gamma(x), the largest spectral norm of the Jacobian of the logits by the parameters, from below.

    Parameters
    ----------
    model : torch.nn.Module
        The policy: a causal language model.
    rollouts : Encoded or Rollouts
        Responses, whose prefixes are tried.
    params : {"lm_head", "all"}, sequence of str, or callable ``(name, parameter) -> bool``
        Which parameters move, as in `expected_gradient_norm`.
    prefixes : int
        Different prefixes of each prompt that are tried, drawn from its responses. ``"lm_head"`` tries all.
    iterations : int
        Steps of the power iteration at most; it stops when the norm grows by less than a thousandth.
    rng : int or numpy.random.Generator, optional
        Draws prefixes and starts.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`; for ``"lm_head"``.
    token_budget : int, optional
        See `rankdiag.language_models.plan`; for ``"lm_head"``.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    JacobianNorm
        For each prompt the largest norm found: a lower bound of gamma(x), so that bounds made with it are estimates.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If no parameter is chosen, or the model has no output projection or no forward-mode derivatives.

    Notes
    -----
    At ``"lm_head"`` the norm at a prefix is known, ||h|| times the largest slope of the logits, at the cost of a
    forward. Otherwise power iteration on J J^T from a random start: one backward and one forward-mode pass a step; the
    norm it finds is never above the true one (but for rounding). It keeps two sets of parameters in memory.

    References
    ----------
    Razin et al., arXiv 2310.20703, Theorem 1 (gamma).

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import gradient_bounds, jacobian_norm
    >>> from rankdiag.testing import tiny_language_model
    >>> data = encode([{"prompt_ids": [1, 2], "responses_ids": [[3], [4, 5]]}], kind="responses")
    >>> found = jacobian_norm(tiny_language_model(), data)  # of the head alone; "all" takes every parameter
    >>> gradient_bounds([0.1], length=2, jacobian=found.norm).sqrt_length.shape
    (1,)
    """
    data = rollouts.encoded() if isinstance(rollouts, Rollouts) else rollouts
    if not isinstance(data, Encoded):
        raise TypeError(f"`rollouts` must be Rollouts or encoded responses, see encode; got {describe(rollouts)}")
    most, steps = integer(prefixes, "prefixes", low=1), integer(iterations, "iterations", low=1)
    generator, seed = as_generator(rng)
    at_head = isinstance(params, str) and params == "lm_head"
    if isinstance(params, str) and not at_head:
        choice(params, "params", ("lm_head", "all"))
    subject = adapt(model, "model")
    if at_head:
        norm, count = _at_head(subject, data, layout, token_budget, progress)
    else:
        chosen = selected_parameters(subject, None if isinstance(params, str) else params)
        norm, count = _iterated(subject, data, chosen, most, steps, generator)
    called = params if isinstance(params, str) else ("a predicate" if callable(params) else ", ".join(params))
    unusable = int((count == 0).sum())
    return JacobianNorm(
        keys=data.keys,
        norm=norm,
        n_prefixes=count,
        params=called,
        explanation=_explain(norm, count),
        meta=Meta(
            definition="estimate from below of the largest spectral norm of d logits / d theta over prefixes, theta = "
            + called,
            n=len(data) - unusable,
            seed=None if at_head else seed,
            skipped={"prompts": f"{unusable} of {len(data)} cannot be used"} if unusable else {},
            details={} if at_head else {"prefixes": most, "iterations": steps},
        ),
    )


def _explain(norm: Floats, count: Ints) -> str:
    known = norm[np.isfinite(norm)]
    if not len(known):
        return "No prompt has a response that can be used."
    return (
        f"At {int(count.sum())} prefixes the logits move by up to {float(known.max()):.4g} for a step of norm 1 of the "
        "parameters. This is an estimate from below: a prefix that was not tried may have a larger norm."
    )


# --- at the output projection -----------------------------------------------------------------------------------------


class _HeadNorm(PlainOutput):
    """Largest norm over the states of each row of d logits / d W: the length of the state times the largest slope."""

    needs = frozenset({"states", "logits"})
    columns = ("norm",)

    def start(self, context: Context) -> Any:
        head: Any = context.head
        if head.own:
            raise ValueError("`model` changes its logits in a way that is not known; use other `params`")
        return {"context": context, "slope": torch.zeros(len(context.hidden), device=context.hidden.device)}

    def update(self, acc: Any, block: LogitsBlock) -> None:
        head: Any = acc["context"].head
        slope = head.slope(block.logits)
        top = torch.ones_like(acc["slope"]) if slope is None else slope.abs().amax(dim=1)
        acc["slope"] = torch.maximum(acc["slope"].to(top), top)

    def finish(self, acc: Any) -> Mapping[str, Any]:
        context: Context = acc["context"]
        size = (context.hidden.double().norm(dim=1) * acc["slope"].double())[context.entry].cpu().numpy()
        return {"norm": np.array([size[a:b].max() for a, b in zip(context.ptr[:-1], context.ptr[1:], strict=True)])}


def _at_head(subject: Subject, data: Encoded, layout: Any, budget: int | None, progress: bool) -> tuple[Floats, Ints]:
    outputs: list[Any] = [_HeadNorm()]
    made = plan(data, subject, outputs, layout=layout, token_budget=budget)
    norm, count = np.full(len(data), np.nan), np.zeros(len(data), dtype=np.int64)
    for columns in _run.run(subject, made, outputs, progress=progress):
        np.fmax.at(norm, columns.group, columns["norm"])
    for group, found in _prefixes(data).items():
        count[group] = len(found)
    return norm, count


# --- elsewhere --------------------------------------------------------------------------------------------------------


def _prefixes(data: Encoded) -> dict[int, list[tuple[int, ...]]]:
    """Return the different prefixes (prompt and what follows) of the responses of each usable group, in order."""
    found: dict[int, dict[tuple[int, ...], None]] = {}
    for row, response in enumerate(data.response_ids):
        group = int(data.group[row])
        if data.status[group] != "ok":
            continue
        prompt = data.prompts[int(data.prompt_id[row])][int(data.prompt_start[row]) :].tolist()
        ids = response.tolist()
        known = found.setdefault(group, {})
        for end in range(len(ids)):
            known[(*prompt, *ids[:end])] = None
    return {group: list(known) for group, known in found.items()}


def _iterated(
    subject: Subject,
    data: Encoded,
    chosen: Mapping[str, torch.nn.Parameter],
    most: int,
    steps: int,
    generator: np.random.Generator,
) -> tuple[Floats, Ints]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    norm, count = np.full(len(data), np.nan), np.zeros(len(data), dtype=np.int64)
    values = {name: parameter.detach() for name, parameter in chosen.items()}
    load_forward_mode()
    with untouched([subject], gradients=True), sdpa_kernel(SDPBackend.MATH):  # fused kernels have no forward mode
        for group, known in _prefixes(data).items():
            picked = np.sort(generator.permutation(len(known))[:most])
            for place in picked.tolist():
                value = _spectral_norm(_logits(subject, known[place]), values, steps, generator)
                norm[group] = np.fmax(norm[group], value)
            count[group] = len(picked)
    return norm, count


def _logits(subject: Subject, prefix: Sequence[int]) -> Logits:
    """Return the logits behind a prefix as a function of parameters."""
    device = subject.device
    length = len(prefix)
    inputs = {
        "input_ids": torch.tensor([list(prefix)], device=device),
        "attention_mask": torch.ones((1, length), dtype=torch.bool, device=device),
        "position_ids": torch.arange(length, device=device)[None],
    }
    arguments = {name: value for name, value in inputs.items() if name in subject.accepts}

    def logits(values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        module: Any = subject.module
        made = torch.func.functional_call(module, dict(values), args=(), kwargs={**arguments, "use_cache": False})
        last: torch.Tensor = made.logits[0, -1]
        return last if last.dtype == torch.float64 else last.float()

    return logits


def _spectral_norm(
    function: Logits, values: dict[str, torch.Tensor], steps: int, generator: np.random.Generator
) -> float:
    """Return the largest singular value of the Jacobian of a function, by power iteration, from below."""
    try:
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        out = function(leaves)  # plain autograd: torch.func.vjp would load the compiler
        left = torch.from_numpy(generator.standard_normal(out.shape[0])).to(out)
        best = 0.0
        for _ in range(steps):
            left = left / left.norm().clamp_min(torch.finfo(left.dtype).tiny)
            pulled = torch.autograd.grad(out, list(leaves.values()), left, retain_graph=True, materialize_grads=True)
            size = math.sqrt(sum(float(part.double().square().sum()) for part in pulled))
            if size == 0.0:
                break
            unit = {name: (part / size).to(part) for name, part in zip(leaves, pulled, strict=True)}
            left = torch.func.jvp(function, (values,), (unit,))[1].detach()
            value = float(left.double().norm())
            settled = value <= best * (1.0 + _SETTLED)
            best = max(best, value)
            if settled:
                break
    except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        raise ValueError(
            f"`model` must have forward-mode derivatives ({type(error).__name__}: {error}); use params='lm_head'"
        ) from error
    if not np.isfinite(best):
        raise ValueError("`model` must have finite derivatives of its logits; some are not")
    return best

"""What ascending one reward does to a policy over few outputs: exact flow, exact steps, sampled steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, refuse_size
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer, real
from rankdiag.rewards._exact import as_kernel, as_rewards
from rankdiag.rewards._flow_methods import Problem, default_counts, default_times, run_flow, run_steps, softmax

__all__ = ["Trajectory", "simulate_policy_gradient"]

Floats = NDArray[np.float64]

_OFF_SIMPLEX = 1e-5  # published instances are rounded to six digits
_METHODS = ("flow", "gd", "reinforce")
_TRAIN = "train"  # name by which `stop` means the reward that is ascended
_SHOWN = 8  # rows of the table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory(Result):
    """How a policy and its mean rewards moved while one reward was ascended.

    Every array has the T recorded states first. A run on a batch of B problems has the batch as second axis, and
    `hitting_time` is an array with B entries.

    Attributes
    ----------
    times : ndarray of float64, shape (T,)
        Times of the flow, or numbers of updates made (gd, reinforce).
    probs : ndarray of float64, shape (T, Y) or (T, B, Y)
        Policy.
    train_value, train_var : ndarray of float64, shape (T,) or (T, B)
        Exact mean and exact variance of the reward that is ascended, without its KL term.
    values : mapping of str to ndarray of float64, shape (T,) or (T, B)
        Exact mean of every other reward.
    grad_norm : ndarray of float64, shape (T,) or (T, B)
        Norm of the gradient in weight space, sqrt(g^T K g), with the KL term if there is one.
    hitting_time : float or ndarray of float64, shape (B,)
        First time, or number of updates, at which the level of `stop` was reached; inf if it was not.

    Examples
    --------
    >>> from rankdiag.rewards import simulate_policy_gradient
    >>> run = simulate_policy_gradient([0.5, 0.5], [1.0, -1.0], horizon=2.0, record=[0.0, 2.0])
    >>> run.times.tolist(), [round(float(v), 4) for v in run.train_value]
    ([0.0, 2.0], [0.0, 0.6659])
    """

    tag: ClassVar[str] = "rewards.Trajectory"
    rule_names: ClassVar[tuple[str, ...]] = ("hitting_time",)

    times: NDArray[np.float64]
    probs: NDArray[np.float64]
    train_value: NDArray[np.float64]
    train_var: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]
    grad_norm: NDArray[np.float64]
    hitting_time: float | NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("times", "probs", "train_value", "train_var", "grad_norm"):
            object.__setattr__(self, name, _frozen(getattr(self, name), name))
        object.__setattr__(self, "values", {name: _frozen(v, f"values[{name!r}]") for name, v in self.values.items()})
        hit = self.hitting_time
        object.__setattr__(
            self, "hitting_time", _frozen(hit, "hitting_time") if isinstance(hit, np.ndarray) else float(hit)
        )
        if not self.explanation:
            object.__setattr__(self, "explanation", _explain(self))

    def __len__(self) -> int:
        return len(self.times)

    def document(self) -> Document:
        """Return what this result shows: where it went, and the mean rewards over time."""
        curves = {"reward ascended": self.train_value, **self.values}
        lines = {name: v if v.ndim == 1 else v.mean(axis=1) for name, v in curves.items()}
        unit = self.meta.units or "time"
        hits = np.atleast_1d(np.asarray(self.hitting_time))
        reached = float(np.median(hits)) if hits.size else float("inf")
        shown = np.unique(np.linspace(0, len(self) - 1, _SHOWN).astype(int)) if len(self) else np.zeros(0, dtype=int)
        return Document(
            title="Ascent of a reward",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="reached at", value=reached, unit=unit, doc="inf where the level was not reached."),
                *(KeyNumber(label=f"{name}, end", value=float(v[-1])) for name, v in lines.items() if len(v)),
            ),
            grids=(
                Grid(
                    title="Mean rewards",
                    columns=(Column(name=unit), *(Column(name=name) for name in lines)),
                    rows=tuple((float(self.times[t]), *(float(v[t]) for v in lines.values())) for t in shown),
                ),
            ),
            plots=(
                Plot(
                    title="Mean rewards along the ascent",
                    x_label=unit,
                    y_label="mean reward",
                    x_scale="log",
                    series=tuple(Series(label=n, x=self.times.tolist(), y=v.tolist()) for n, v in lines.items()),
                    lines=(ReferenceLine(axis="x", value=reached, label="reached"),) if 0 < reached < np.inf else (),
                    description=f"{len(lines)} mean rewards at {len(self)} recorded states.",
                ),
            ),
            notes=self.notes(),
        )


def simulate_policy_gradient(
    p0: Any,
    train_reward: Any,
    eval_rewards: Mapping[str, Any] | None = None,
    *,
    kernel: Any = None,
    features: Any = None,
    method: Literal["flow", "gd", "reinforce"] = "flow",
    lr: float = 0.1,
    steps: int | None = None,
    horizon: float | None = None,
    kl: float = 0.0,
    ref: Any = None,
    record: Any = None,
    stop: tuple[str, float] | None = None,
    samples: int = 1,
    rng: Any = None,
) -> Trajectory:
    """Ascend a reward from a given policy over Y outputs, and watch other rewards meanwhile.

    Parameters
    ----------
    p0 : array-like or torch.Tensor, shape (Y,), or (B, Y) for gd and reinforce
        Initial probabilities, positive. Off 1 by at most 1e-5 they are renormalised (published instances are rounded).
        Logits start at ln p0 exactly, also where the features do not span it.
    train_reward : array-like or torch.Tensor, shape (Y,) or (B, Y)
        Reward that is ascended.
    eval_rewards : mapping of str to array-like, shape (Y,) or (B, Y), optional
        Other rewards whose means are recorded.
    kernel : array-like, shape (Y, Y), optional
        Symmetric and positive semi-definite, not checked beyond symmetry; None is the identity, a table of logits.
    features : array-like, shape (Y, D), optional
        Instead of a kernel: K = Phi Phi^T, a log-linear policy.
    method : {"flow", "gd", "reinforce"}
        Gradient flow; gradient ascent with exact gradients; updates r ln pi of sampled outputs, without baseline.
    lr : float
        Step size of gd and reinforce; t = lr * steps compares with the flow.
    steps : int, optional
        Updates, required by gd and reinforce.
    horizon : float, optional
        End of the flow, required by it.
    kl : float
        Weight of KL(pi || ref), >= 0.
    ref : array-like, shape (Y,) or (B, Y), optional
        Reference probabilities, positive; None takes `p0`.
    record : array-like, optional
        Times, or numbers of updates, at which the state is kept: row t is the state before update t. None takes the
        start, the end and about 200 log-spaced between.
    stop : (str, float), optional
        Name in `eval_rewards` (or ``"train"``) and level: the run ends when this mean reward reaches it, and keeps
        that state. A batch ends when all have; each has its own hitting time, and goes on until then.
    samples : int
        Outputs drawn for one update of reinforce.
    rng : None, int or numpy.random.Generator
        Randomness of reinforce.

    Returns
    -------
    Trajectory
        Recorded states and the hitting time.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, `p0` is no positive distribution, both kernel and features are given, the method lacks
        its `horizon` or `steps`, `stop` names no reward, or numbers leave float64.

    Notes
    -----
    Flow: dz/dt = K (pi * (r - kl ln(pi/ref) - mean)), by ``scipy.integrate.solve_ivp`` (LSODA with the exact
    Jacobian, rtol 1e-9, atol 1e-12 of the logits; never fixed steps); the hitting time is the root of its event. Time
    O(Y) for a right-hand side, O(Y^2) with a kernel, and O(Y^3) for a stiff step; memory O(Y^2) and the recorded
    states. gd and reinforce: O(B Y) for an update, O(B Y^2) with a kernel. Numbers of one seed do not depend on
    `record`; they do on B.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 3 (log-linear policies and the instances); Razin et al., arXiv 2503.15477,
    Section 3 (gradient flow, time to improve).

    Examples
    --------
    >>> from rankdiag.rewards import simulate_policy_gradient
    >>> gold = {"gold": [1.0, 0.8, -1.0]}
    >>> run = simulate_policy_gradient(
    ...     [0.1, 0.5, 0.4], [1.0, -1.0, -1.0], gold, horizon=1e4, stop=("gold", 0.95))
    >>> round(run.hitting_time, 3)
    13.299
    """
    way = choice(method, "method", _METHODS)
    rate = real(lr, "lr", low=0.0, low_open=True)
    if steps is not None:
        integer(steps, "steps", low=0)
    if horizon is not None:
        real(horizon, "horizon", low=0.0)
    integer(samples, "samples", low=1)
    problem, batched = _problem(p0, train_reward, kernel, features, real(kl, "kl", low=0.0), ref, way)
    rewards = _rewards(eval_rewards, problem.start.shape)
    watched, level = _watched(stop, rewards, problem)
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves float64 is refused below
        if way == "flow":
            if horizon is None:
                raise ValueError("`horizon` is required by method='flow': the time at which the flow ends")
            end = real(horizon, "horizon", low=0.0)
            kept, logits, hit = run_flow(problem, _times(record, end), end, watched, level)
            hits, seed = np.array([hit]), None
        else:
            if steps is None:
                raise ValueError(f"`steps` is required by method={way!r}: the number of updates")
            count = integer(steps, "steps", low=0)
            draws = integer(samples, "samples", low=1) if way == "reinforce" else 0
            generator, seed = as_generator(rng) if draws else (None, None)
            counts = _counts(record, count)
            refuse_size(len(counts) * problem.start.size, "record", (len(counts), *problem.start.shape))
            wide = problem if problem.start.ndim == 2 else _widen(problem)
            wide_watched = None if watched is None else np.atleast_2d(watched)
            made, logits, hits = run_steps(
                wide, counts, count, rate, wide_watched, level, samples=draws, generator=generator
            )
            kept, logits = made.astype(np.float64), logits if batched else logits[:, 0]
        return _trajectory(
            problem,
            rewards,
            kept,
            logits,
            hits if batched else float(hits[0]),
            _meta(way, problem, rate, samples, seed),
        )


def _trajectory(
    problem: Problem, rewards: Mapping[str, Floats], times: Floats, logits: Floats, hits: float | Floats, meta: Meta
) -> Trajectory:
    probs, log_probs = softmax(logits)
    mean = _mean(probs, problem.reward)
    centred = problem.reward - mean[..., None]
    regularised = problem.regularised(log_probs)
    pulls = probs * (regularised - _mean(probs, regularised)[..., None])
    found = Trajectory(
        times=times,
        probs=probs,
        train_value=mean,
        train_var=_mean(probs, centred**2),
        values={name: _mean(probs, reward) for name, reward in rewards.items()},
        grad_norm=np.sqrt(problem.squared_norm(pulls)),
        hitting_time=hits,
        meta=meta,
    )
    if not all(np.isfinite(v).all() for v in (probs, found.train_var, found.grad_norm, *found.values.values())):
        raise ValueError(
            "`train_reward`, `eval_rewards` or the kernel bring numbers beyond float64; scale them, or `lr`, down"
        )
    return found


def _problem(
    p0: Any, train_reward: Any, kernel: Any, features: Any, kl: float, ref: Any, method: str
) -> tuple[Problem, bool]:
    """Return the checked problem, and whether it is a batch."""
    start = _distribution(p0, "p0")
    size = start.shape[-1]
    if kernel is not None and features is not None:
        raise ValueError("`kernel` and `features` must not both be given; features mean the kernel Phi Phi^T")
    reward = as_rewards(train_reward, "train_reward", size)
    reference = start if ref is None else _distribution(ref, "ref")
    parts = {"p0": start, "train_reward": reward, "ref": reference}
    shape = _common(parts, size)
    if len(shape) > 1 and method == "flow":
        raise ValueError(f"`p0` and `train_reward` must be one problem (Y,) for method='flow'; got a batch {shape}")
    start, reward, reference = (np.broadcast_to(part, shape) for part in parts.values())
    gram, factor = as_kernel(kernel, "kernel", size), None
    if features is not None:
        table = as_float64(features, "features", ndim=2, expected="features (Y, D)")
        if len(table) != size:
            raise ValueError(f"`features` must have one row for each of the {size} outputs; got shape {table.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            gram, factor = (table @ table.T, None) if table.shape[1] >= size else (None, table)
        if gram is not None and not np.isfinite(gram).all():
            raise ValueError("`features` have products beyond float64; scale them down")
    made = Problem(start=np.log(start), reward=reward, log_ref=np.log(reference), kl=kl, kernel=gram, factor=factor)
    return made, len(shape) > 1


def _common(parts: Mapping[str, Floats], size: int) -> tuple[int, ...]:
    """Return the shape, (Y,) or (B, Y), that all arrays broadcast to."""
    batches = {part.shape[0] for part in parts.values() if part.ndim == 2}
    if len(batches) > 1 or any(part.ndim > 2 or part.shape[-1] != size for part in parts.values()):
        shapes = ", ".join(f"`{name}` {part.shape}" for name, part in parts.items())
        raise ValueError(f"`p0`, rewards and `ref` must be (Y,) or (B, Y) with one B and Y; got {shapes}")
    return (*batches, size)


def _distribution(value: Any, name: str) -> Floats:
    array = as_float64(value, name, min_ndim=1, expected="probabilities (Y,)")
    if (array <= 0).any():
        raise ValueError(f"`{name}` must be positive, for its logarithm is where logits start; got {array.min():g}")
    with np.errstate(over="ignore"):
        total = array.sum(axis=-1, keepdims=True)
    worst = float(total.ravel()[int(np.abs(total - 1.0).argmax())])
    if not abs(worst - 1.0) <= _OFF_SIMPLEX:
        raise ValueError(f"`{name}` must sum to 1 within {_OFF_SIMPLEX:g} (got {worst:.12g}); divide by the sum")
    return np.asarray(array / total, dtype=np.float64)


def _rewards(given: Mapping[str, Any] | None, shape: tuple[int, ...]) -> dict[str, Floats]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"`eval_rewards` must be a mapping from names to rewards; got {describe(given)}")
    found = {}
    for name, value in given.items():
        label = f"eval_rewards[{name!r}]"
        array = as_rewards(value, label, shape[-1])
        if array.ndim > len(shape) or array.shape[:-1] not in {(), shape[:-1]}:
            raise ValueError(f"`{label}` must have shape {shape[-1:]} or {shape}; got {array.shape}")
        found[name] = array
    return found


def _watched(stop: Any, rewards: Mapping[str, Floats], problem: Problem) -> tuple[Floats | None, float]:
    if stop is None:
        return None, 0.0
    if not isinstance(stop, (tuple, list)) or len(stop) != 2:
        raise TypeError(f"`stop` must be a pair (name of a reward, level); got {describe(stop)}")
    known = {_TRAIN: problem.reward, **rewards}
    name, level = choice(stop[0], "stop", known), real(stop[1], "stop")
    return np.broadcast_to(known[name], problem.start.shape), level


def _times(record: Any, horizon: float) -> Floats:
    if record is None:
        return default_times(horizon) if horizon > 0 else np.zeros(1)
    times = as_float64(record, "record", ndim=1, allow_empty=True, expected="times")
    if times.size and not (times.min() >= 0 and times.max() <= horizon):
        raise ValueError(
            f"`record` must lie between 0 and the horizon {horizon:g}; got {times.min():g}..{times.max():g}"
        )
    return np.unique(times)


def _counts(record: Any, steps: int) -> NDArray[np.int64]:
    if record is None:
        return default_counts(steps)
    counts = as_float64(record, "record", ndim=1, allow_empty=True, expected="numbers of updates")
    if counts.size and not (counts.min() >= 0 and counts.max() <= steps and (counts == np.floor(counts)).all()):
        raise ValueError(f"`record` must hold whole numbers from 0 to {steps}, the number of updates")
    return np.unique(counts).astype(np.int64)


def _widen(problem: Problem) -> Problem:
    return Problem(
        start=problem.start[None],
        reward=problem.reward[None],
        log_ref=problem.log_ref[None],
        kl=problem.kl,
        kernel=problem.kernel,
        factor=problem.factor,
    )


def _meta(method: str, problem: Problem, lr: float, samples: int, seed: int | None) -> Meta:
    details: dict[str, Any] = {"method": method, "kl": problem.kl}
    if method != "flow":
        details["lr"] = float(lr)
    if method == "reinforce":
        details["samples"] = int(samples)
    plain = problem.kernel is None and problem.factor is None
    details["kernel"] = "identity" if plain else "given"
    return Meta(
        definition="policy gradient from p0 on logits that start at ln p0; exact means under the policy",
        units="time" if method == "flow" else "updates",
        seed=seed,
        details=details,
    )


def _mean(probs: Floats, reward: Floats) -> Floats:
    return np.asarray(np.einsum("...y,...y->...", probs, np.broadcast_to(reward, probs.shape)))


def _frozen(value: Any, name: str) -> Floats:
    array = np.array(as_float64(value, name, allow_empty=True, finite=False))
    array.flags.writeable = False
    return array


def _explain(run: Trajectory) -> str:
    if not len(run):
        return "No state was recorded."
    unit = "updates" if run.meta.units == "updates" else "units of time"
    first, last = float(np.mean(run.train_value[0])), float(np.mean(run.train_value[-1]))
    text = f"In {run.times[-1]:.6g} {unit} the reward that is ascended went from {first:.4g} to {last:.4g}."
    for name, values in run.values.items():
        begin, end = float(np.mean(values[0])), float(np.mean(values[-1]))
        text += f" The mean of {name} went from {begin:.4g} to {end:.4g}."
    hits = np.atleast_1d(np.asarray(run.hitting_time))
    if np.isfinite(hits).any():
        text += f" {int(np.isfinite(hits).sum())} of {hits.size} reached the level asked for."
    return text

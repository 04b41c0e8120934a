"""How the logits of a policy move: exact flow, exact gradient steps, sampled steps; arrays checked already."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankdiag._warnings import without_warnings
from rankdiag.rewards._exact import kernel_product

__all__ = ["Problem", "default_counts", "default_times", "run_flow", "run_steps", "softmax"]

Floats = NDArray[np.float64]

_RTOL, _ATOL = 1e-9, 1e-12  # of the logits: the two instances with known times are met to 1e-6
_MOST_CALLS = 300_000  # of the velocity; a flow takes a few thousand
_POINTS = 200
_DECADES = 1e-6  # first recorded time after 0, as a share of the horizon
_MOVE = 16.0  # that a logit may rise above the one that was the largest, before its exponential is taken
_DRAWS = 1 << 15  # uniform numbers drawn at a time; the stream does not depend on it


class _TooLongError(Exception):
    """The solver does not get on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem, or a batch of them: what moves the logits.

    Attributes
    ----------
    start : ndarray of float64, shape (Y,) or (B, Y)
        Logits at time 0, ln p0.
    reward : ndarray of float64, shape (Y,) or (B, Y)
        Reward that is ascended.
    log_ref : ndarray of float64, shape (Y,) or (B, Y)
        Log-probabilities of the reference.
    kl : float
        Weight of the KL term.
    kernel : ndarray of float64, shape (Y, Y), or None
        None is the identity.
    factor : ndarray of float64, shape (Y, D), or None
        Features; the kernel is their Gram, formed or not.
    """

    start: Floats
    reward: Floats
    log_ref: Floats
    kl: float = 0.0
    kernel: Floats | None = None
    factor: Floats | None = None

    def spread(self, pulls: Floats) -> Floats:
        """Return the kernel times `pulls` (.., Y)."""
        if self.kernel is not None:
            return kernel_product(self.kernel, pulls)
        if self.factor is not None:
            return np.asarray((pulls @ self.factor) @ self.factor.T, dtype=np.float64)
        return pulls

    def regularised(self, log_probs: Floats) -> Floats:
        """Return the reward less the KL term, r - kl ln(pi / ref)."""
        return self.reward - self.kl * (log_probs - self.log_ref) if self.kl else self.reward

    def pulls(self, logits: Floats) -> Floats:
        """Return pi times the advantage, (.., Y): the gradient of the objective by the logits."""
        probs, log_probs = softmax(logits)
        reward = self.regularised(log_probs)
        # Near a vertex the mean is the reward of the likeliest output up to little, and that little keeps its digits.
        reward = reward - np.take_along_axis(reward, probs.argmax(axis=-1, keepdims=True), axis=-1)
        return np.asarray(probs * (reward - np.einsum("...y,...y->...", probs, reward)[..., None]))

    def of_unit_size(self) -> tuple[Problem, int]:
        """Return a problem with rewards and kernel of about 1 or less, and e: its time is 2^e times that of this."""
        by_reward = math.frexp(max(float(np.ptp(self.reward)), self.kl))[1]
        table = self.factor if self.kernel is None else self.kernel
        by_kernel = 0 if table is None else math.frexp(float(np.abs(table).max()))[1]
        power = by_reward + (by_kernel if self.factor is None else 2 * by_kernel)
        if power <= 0:
            return self, 0
        scaled = replace(
            self,
            reward=np.ldexp(self.reward, -by_reward),
            kl=math.ldexp(self.kl, -by_reward),
            kernel=None if self.kernel is None else np.ldexp(self.kernel, -by_kernel),
            factor=None if self.factor is None else np.ldexp(self.factor, -by_kernel),
        )
        return scaled, power

    def squared_norm(self, pulls: Floats) -> Floats:
        """Return the squared norm of the gradient in weight space, g^T K g."""
        if self.factor is not None:
            inner = pulls @ self.factor
            return np.asarray(np.einsum("...d,...d->...", inner, inner))
        return np.asarray(np.maximum(np.einsum("...y,...y->...", pulls, self.spread(pulls)), 0.0))


def softmax(logits: Floats) -> tuple[Floats, Floats]:
    """Return probabilities and log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    probs = np.exp(shifted)
    total = probs.sum(axis=-1, keepdims=True)
    return probs / total, shifted - np.log(total)


def default_times(horizon: float) -> Floats:
    """Return 0, about 200 log-spaced times, and the horizon."""
    return np.unique(np.concatenate([[0.0], np.geomspace(horizon * _DECADES, horizon, _POINTS)[:-1], [horizon]]))


def default_counts(steps: int) -> NDArray[np.int64]:
    """Return 0, about 200 log-spaced update counts, and the last."""
    if steps == 0:
        return np.zeros(1, dtype=np.int64)
    inner = np.rint(np.geomspace(1, steps, _POINTS)).astype(np.int64)
    return np.unique(np.concatenate([[0], inner, [steps]]))


def run_flow(
    problem: Problem, times: Floats, horizon: float, watched: Floats | None, level: float
) -> tuple[Floats, Floats, float]:
    """Follow the gradient flow of one problem.

    Parameters
    ----------
    problem : Problem
        One problem, no batch.
    times : ndarray of float64
        Times to keep, ascending, within [0, horizon].
    horizon : float
        Where to end.
    watched : ndarray of float64, shape (Y,), or None
        The flow ends when the mean of this reward reaches `level`.
    level : float
        See `watched`.

    Returns
    -------
    times : ndarray of float64, shape (T,)
        Kept times; with a hit, those before it and the hit itself.
    logits : ndarray of float64, shape (T, Y)
        Logits at these times.
    hit : float
        When the level was reached, inf if it was not.

    Raises
    ------
    ValueError
        If the solver gives up, which rewards or kernels beyond float64 bring about.
    """
    from scipy.integrate import solve_ivp

    reached: list[Callable[[float, Floats], float]] = []
    if watched is not None:
        if float(softmax(problem.start)[0] @ watched) >= level:
            return np.zeros(1), problem.start[None].copy(), 0.0

        def gap(_: float, logits: Floats) -> float:
            return float(softmax(logits)[0] @ watched) - level

        gap.terminal, gap.direction = True, 1.0  # type: ignore[attr-defined]  # the attributes solve_ivp looks for
        reached = [gap]
    if horizon == 0:
        return np.zeros(len(times)), np.tile(problem.start, (len(times), 1)), math.inf
    scaled, power = problem.of_unit_size()
    calls = 0

    def velocity(_: float, logits: Floats) -> Floats:
        nonlocal calls
        calls += 1
        if calls > _MOST_CALLS:
            raise _TooLongError
        return scaled.spread(scaled.pulls(logits))

    try:
        # The solver warns before it reports the same failure in its status.
        with without_warnings(), np.errstate(over="ignore", invalid="ignore", under="ignore"):
            found = solve_ivp(
                velocity,
                (0.0, float(np.ldexp(horizon, power))),
                problem.start,
                method="LSODA",
                t_eval=np.ldexp(times, power),
                events=reached,
                jac=lambda _, logits: jacobian(scaled, logits),
                rtol=_RTOL,
                atol=_ATOL,
            )
    except _TooLongError:
        raise _not_followed(horizon, f"more than {_MOST_CALLS} steps") from None
    logits = np.asarray(found.y, dtype=np.float64).reshape(problem.start.size, -1).T
    if found.status < 0 or not np.isfinite(logits).all():
        raise _not_followed(horizon, found.message)
    kept = np.asarray(times[: len(found.t)], dtype=np.float64)
    if found.status != 1:
        return kept, logits, math.inf
    hit = float(np.ldexp(found.t_events[0][0], -power))
    before = kept < hit
    return np.append(kept[before], hit), np.vstack([logits[before], found.y_events[0][:1]]), hit


def _not_followed(horizon: float, why: str) -> ValueError:
    return ValueError(
        f"`train_reward` and the kernel give a flow that could not be followed to {horizon:g} ({why}); "
        "scale them down, or shorten `horizon`"
    )


def jacobian(problem: Problem, logits: Floats) -> Floats:
    """Return the derivative of the velocity of the logits by the logits, (Y, Y)."""
    probs, _ = softmax(logits)
    pulls = problem.pulls(logits)
    cross = np.outer(pulls, probs)
    table = np.diag(pulls - problem.kl * probs) - cross - cross.T + problem.kl * np.outer(probs, probs)
    return problem.spread(table.T).T if problem.kernel is not None or problem.factor is not None else table


def run_steps(
    problem: Problem,
    counts: NDArray[np.int64],
    steps: int,
    lr: float,
    watched: Floats | None,
    level: float,
    *,
    samples: int = 0,
    generator: np.random.Generator | None = None,
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Make gradient steps, exact or from samples, on a batch of problems.

    Parameters
    ----------
    problem : Problem
        Shapes (B, Y).
    counts : ndarray of int64
        Numbers of updates after which the state is kept, ascending.
    steps : int
        Updates to make.
    lr : float
        Step size.
    watched : ndarray of float64, shape (B, Y), or None
        A problem has hit when the mean of this reward is at least `level`; the run ends when all have.
    level : float
        See `watched`.
    samples : int
        Outputs drawn for one update; 0 takes the exact gradient.
    generator : numpy.random.Generator, optional
        What outputs are drawn from.

    Returns
    -------
    counts : ndarray of int64, shape (T,)
        Kept numbers of updates; the state at which all have hit is always among them.
    logits : ndarray of float64, shape (T, B, Y)
        Logits then.
    hits : ndarray of float64, shape (B,)
        Updates made when the level was reached, inf if it was not.
    """
    batch = len(problem.start)
    draws = _uniform(generator, samples, batch) if samples and generator is not None else None
    if batch == 1:
        row = None if watched is None else watched[0]
        kept, states, hit = _run_one(problem, counts, steps, lr, row, level, draws)
        shape = (len(kept), *problem.start.shape)
        return np.array(kept, dtype=np.int64), np.array(states).reshape(shape), np.array([hit])
    logits = problem.start.copy()
    hits, kept, states, due = np.full(len(logits), np.inf), [], [], 0
    for count in range(steps + 1):
        probs, reward = _state(problem, logits)
        stopped = False
        if watched is not None:
            values = np.einsum("by,by->b", probs, watched)
            hits[np.isinf(hits) & (values >= level)] = count
            stopped = not np.isinf(hits).any()
        if stopped or (due < len(counts) and counts[due] == count):
            kept.append(count)
            states.append(logits.copy())
            due += 1
        if stopped or count == steps:
            break
        pulls = _exact(probs, reward) if draws is None else _sampled(probs, reward, next(draws))
        logits += lr * problem.spread(pulls)
    shape = (len(kept), *logits.shape)
    return np.array(kept, dtype=np.int64), np.array(states).reshape(shape), hits


def _run_one(
    problem: Problem,
    counts: NDArray[np.int64],
    steps: int,
    lr: float,
    watched: Floats | None,
    level: float,
    draws: Iterator[Floats] | None,
) -> tuple[list[int], list[Floats], float]:
    """Make the steps of `run_steps` on a batch of one: a loop of calls on short vectors, without new ones."""
    logits, base, log_ref = problem.start[0].copy(), np.ascontiguousarray(problem.reward[0]), problem.log_ref[0]
    plain, kl = problem.kernel is None and problem.factor is None, problem.kl
    probs, pulls, ones, rate = np.empty_like(logits), np.empty_like(logits), np.ones_like(logits), np.array(lr)
    seen = None if watched is None else np.ascontiguousarray(watched)
    every = _steps_between_maxima(base, lr) if plain and not kl else 1
    kept: list[int] = []
    states: list[Floats] = []
    due = [*counts.tolist(), -1]
    count, waiting, top, reward = 0, 0, logits[0], base
    while True:
        if not waiting:  # the largest logit moves little in `every` steps: it need not be looked for in each
            waiting, top = every, logits.max()
        waiting -= 1
        np.subtract(logits, top, probs)
        np.exp(probs, probs)
        total = probs.dot(ones)
        np.divide(probs, total, probs)
        stopped = seen is not None and bool(probs.dot(seen) >= level)
        if stopped or due[len(kept)] == count:
            kept.append(count)
            states.append(logits.copy())
        if stopped or count == steps:
            return kept, states, float(count) if stopped else math.inf
        if kl:
            reward = base - kl * (logits - top - np.log(total) - log_ref)
        if draws is None:
            np.subtract(reward, probs.dot(reward), pulls)
            np.multiply(pulls, probs, pulls)
        else:
            _sampled_one(probs, reward, next(draws)[:, 0], pulls)
        np.add(logits, np.multiply(pulls if plain else problem.spread(pulls), rate, pulls), logits)
        count += 1


def _steps_between_maxima(reward: Floats, lr: float) -> int:
    """Return in how many plain steps no logit moves by more than what exponentials bear easily."""
    reach = 2.0 * lr * float(np.abs(reward).max())
    return max(1, int(min(_MOVE / reach, 1000.0))) if reach > 0 else 1000


def _sampled_one(probs: Floats, reward: Floats, uniform: Floats, out: Floats) -> None:
    """Write the mean over the draws of r(y) (e_y - pi) into `out`."""
    picked = probs[:-1].cumsum().searchsorted(uniform, side="right")
    if len(picked) == 1:
        gain = reward[picked[0]]
        np.multiply(probs, -gain, out)
        out[picked[0]] += gain
        return
    gains = reward[picked] / len(picked)
    np.subtract(np.bincount(picked, gains, len(probs)), gains.sum() * probs, out)


def _state(problem: Problem, logits: Floats) -> tuple[Floats, Floats]:
    """Return probabilities, and the reward with its KL term."""
    if problem.kl:
        probs, log_probs = softmax(logits)
        return probs, problem.regularised(log_probs)
    probs = np.exp(logits - np.maximum.reduce(logits, axis=-1, keepdims=True))
    probs /= np.add.reduce(probs, axis=-1, keepdims=True)
    return probs, problem.reward


def _exact(probs: Floats, reward: Floats) -> Floats:
    return np.asarray(probs * (reward - np.einsum("by,by->b", probs, reward)[:, None]))


def _sampled(probs: Floats, reward: Floats, uniform: Floats) -> Floats:
    """Return the mean over the draws of r(y) (e_y - pi); `uniform` is (samples, B)."""
    edges = np.cumsum(probs[:, :-1], axis=1)
    rows, total = np.arange(len(probs)), np.zeros_like(probs)
    for draw in uniform:
        picked = (edges <= draw[:, None]).sum(axis=1)
        gain = reward[rows, picked]
        total -= gain[:, None] * probs
        total[rows, picked] += gain
    return total / len(uniform)


def _uniform(generator: np.random.Generator, samples: int, batch: int) -> Iterator[Floats]:
    """Yield (samples, batch) uniform numbers of one stream, for ever."""
    rows = max(1, _DRAWS // (samples * batch))
    while True:
        yield from generator.random((rows, samples, batch))

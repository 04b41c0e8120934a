"""How large the policy gradient of each prompt is, without bias, from a handful of rollouts through the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._rng import as_generator
from rankdiag._validate import boolean, choice, describe, integer
from rankdiag.language_models._encoded import Encoded
from rankdiag.language_models._gradients import Gradient, fold_gradients, selected_parameters
from rankdiag.language_models._model import adapt
from rankdiag.rewards._estimators import centred, squared_gradient_norm
from rankdiag.rewards._gradient_runs import Runs, dealt, head_slopes, score_grams, slopes_along
from rankdiag.rewards._rollouts import Rollouts
from rankdiag.rewards._table import as_table

__all__ = ["GradientNorm", "expected_gradient_norm"]

Floats = NDArray[np.float64]
Params = Literal["lm_head", "all"] | Sequence[str] | Callable[[str, Any], bool]
Estimator = Literal["groups", "gram", "jvp"]

_SMALLEST = 4  # rollouts: with fewer no unbiased estimate of the squared norm exists here
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradientNorm(Result):
    """Size of the policy gradient of each prompt, beside what bounds it.

    Attributes
    ----------
    keys : tuple of str
        One for each prompt.
    squared_norm : ndarray of float64, shape (N,)
        Unbiased estimate of ||grad E r||^2 over the parameters named in `params`; may be negative where the truth is
        small. NaN with fewer than 4 scorable rollouts.
    norm : ndarray of float64, shape (N,)
        sqrt(max(0, squared_norm)), biased.
    reward_std : ndarray of float64, shape (N,)
        Standard deviation of the rewards, ddof=1.
    fisher_top : ndarray of float64, shape (N,)
        Largest eigenvalue of the second moment of the scores over the rollouts: an estimate, biased up, of that of
        the Fisher matrix. NaN where the estimator makes no Gram matrix.
    fisher_bound : ndarray of float64, shape (N,)
        reward_std * sqrt(fisher_top), which bounds the norm (up to the errors of both estimates).
    alignment : ndarray of float64, shape (N,)
        norm / fisher_bound: how much of the spread of the rewards the parameters can use. NaN where the bound is 0. The
        ratio of the true figures is in [0, 1]; noise of the norm may bring that of estimates above 1.
    snr : ndarray of float64, shape (N,)
        max(0, squared_norm) / (trace of the covariance of one rollout's term / k): below 1 the averaged gradient is
        mostly noise.
    n_rollouts : ndarray of int64, shape (N,)
        Scorable rollouts.
    params : str
        Parameters the gradient is over.
    estimator : {"groups", "gram", "jvp"}
        How it was estimated.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import expected_gradient_norm
    >>> from rankdiag.testing import tiny_language_model
    >>> record = {"prompt_ids": [1, 2], "responses_ids": [[3], [4], [5], [6]]}
    >>> data = encode([record], kind="responses")
    >>> flat = expected_gradient_norm(tiny_language_model(), data, [[1.0, 1.0, 1.0, 1.0]], estimator="gram")
    >>> flat.squared_norm.tolist(), flat.reward_std.tolist()
    ([0.0], [0.0])
    """

    tag: ClassVar[str] = "rewards.GradientNorm"

    keys: tuple[str, ...]
    squared_norm: NDArray[np.float64]
    norm: NDArray[np.float64]
    reward_std: NDArray[np.float64]
    fisher_top: NDArray[np.float64]
    fisher_bound: NDArray[np.float64]
    alignment: NDArray[np.float64]
    snr: NDArray[np.float64]
    n_rollouts: NDArray[np.int64]
    params: str
    estimator: Estimator

    def __len__(self) -> int:
        return len(self.keys)

    def document(self) -> Document:
        """Return what these norms show: the flattest prompts, and norms against standard deviations."""
        known = np.flatnonzero(np.isfinite(self.squared_norm))
        order = known[np.argsort(self.squared_norm[known], kind="stable")][:_SHOWN]
        names = ("squared_norm", "norm", "reward_std", "fisher_bound", "alignment", "snr")
        rows = tuple(
            (self.keys[i], int(self.n_rollouts[i]), *(_number(getattr(self, name)[i]) for name in names))
            for i in order.tolist()
        )
        return Document(
            title="Policy gradient of each prompt",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="prompts", value=len(self)),
                KeyNumber(label="median rollouts", value=_median(self.n_rollouts)),
                KeyNumber(label="median norm", value=_median(self.norm)),
                KeyNumber(label="median reward std", value=_median(self.reward_std)),
                KeyNumber(
                    label="median Fisher bound",
                    value=_median(self.fisher_bound),
                    doc="Biased up, more so at few rollouts.",
                ),
                KeyNumber(label="median alignment", value=_median(self.alignment), doc="norm / Fisher bound"),
                KeyNumber(label="median signal to noise", value=_median(self.snr)),
            ),
            grids=(
                Grid(
                    title="Prompts with the smallest gradients",
                    columns=tuple(
                        Column(name=name, label=name.replace("_", " ")) for name in ("prompt", "rollouts", *names)
                    ),
                    note="An unbiased squared norm may be negative; the norm is then 0.",
                    rows=rows,
                ),
            ),
            plots=(
                Plot(
                    title="Gradient against spread of rewards",
                    x_label="reward standard deviation",
                    y_label="norm of the gradient",
                    series=(
                        Series(
                            label="prompts",
                            x=self.reward_std[known].tolist(),
                            y=self.norm[known].tolist(),
                            kind="points",
                        ),
                    ),
                    description=f"{len(known)} prompts; the norm vanishes with the standard deviation.",
                ),
            ),
            notes=self.notes(),
        )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _median(values: NDArray[Any]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def expected_gradient_norm(
    model: Any,
    rollouts: Encoded | Rollouts,
    rewards: Any,
    *,
    params: Params = "lm_head",
    estimator: Estimator = "groups",
    groups: int = 4,
    probes: int = 16,
    rng: Any = None,
    layout: Literal["auto", "plain", "packed"] = "auto",
    token_budget: int | None = None,
    progress: bool = False,
) -> GradientNorm:
    """Estimate the squared norm of the policy gradient of each prompt from rollouts, without bias.

    Parameters
    ----------
    model : torch.nn.Module
        The policy: a causal language model, as `rankdiag.language_models.run` takes it.
    rollouts : Encoded or Rollouts
        Responses that this policy sampled, those of one prompt in one group; see
        `rankdiag.language_models.encode` with ``kind="responses"``, and `HFSampler`.
    rewards : RewardTable or array-like, shape (N, k)
        Reward of each rollout; NaN for one that cannot be scored, which is left out.
    params : {"lm_head", "all"}, sequence of str, or callable ``(name, parameter) -> bool``
        Over which parameters. ``"lm_head"`` is the output side of the output projection, at the cost of a forward;
        the others take backward passes.
    estimator : {"groups", "gram", "jvp"}
        ``"groups"``: independent estimates from parts of the rollouts are multiplied with one another. ``"gram"``: all
        products of pairs of scores, the least noise; for other parameters than the head it keeps one gradient for each
        rollout. ``"jvp"``: forward-mode derivatives along random directions; keeps no gradient.
    groups : int
        Parts of the rollouts of a prompt for ``"groups"``, at least 2; fewer where there are not two rollouts a part.
    probes : int
        Random directions for ``"jvp"``.
    rng : int or numpy.random.Generator, optional
        Deals rollouts to parts, and draws directions.
    layout : {"auto", "plain", "packed"}
        See `rankdiag.language_models.plan`.
    token_budget : int, optional
        See `rankdiag.language_models.plan`.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    GradientNorm
        Estimates for each prompt, with the Fisher bound, alignment and signal-to-noise ratio where they are known.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If rewards do not fit the rollouts, or the model cannot be differentiated in the way asked for.

    Notes
    -----
    The squared norm of an averaged gradient is biased up by its variance; all three estimators here are unbiased over
    the draw of rollouts, and may be negative. With s_i the gradient of ln pi(y_i | x): ``"groups"`` is
    (||sum_g G_g||^2 - sum_g ||G_g||^2) / (m (m - 1)) with G_g the leave-one-out policy gradient of part g; ``"gram"``
    is `squared_gradient_norm`; ``"jvp"`` averages the latter over <s_i, v> for Gaussian v, unbiased for any number of
    them; all prompts share the directions, so their errors do too: few probes do not average out over prompts. They are
    derived here. Read them with the standard deviation: below .01 to .05 of the reward range, with a mean far from the
    best reward, a prompt will not be learned by reinforcement; finetune on examples of some of them first.

    Cost: ``"lm_head"``: a forward, and products of distributions (one more forward for each probe of ``"jvp"``). Other
    parameters: a forward and a backward pass through each part and two gradients in memory for ``"groups"``, through
    each rollout and the k gradients of a prompt for ``"gram"``, and one forward-mode pass for each rollout and probe
    for ``"jvp"``.

    References
    ----------
    Razin et al., "Vanishing Gradients in Reinforcement Finetuning of Language Models", arXiv 2310.20703, Theorem 1: the
    gradient vanishes with the standard deviation. The estimators and the alignment are derived here.

    Examples
    --------
    >>> from rankdiag.language_models import encode
    >>> from rankdiag.rewards import expected_gradient_norm
    >>> from rankdiag.testing import tiny_language_model
    >>> record = {"prompt_ids": [1, 2], "responses_ids": [[3], [4], [5], [6]]}
    >>> data = encode([record], kind="responses")
    >>> found = expected_gradient_norm(tiny_language_model(), data, [[1.0, 0.0, 0.0, 1.0]], estimator="gram")
    >>> found.n_rollouts.tolist(), bool(found.fisher_top[0] > 0)
    ([4], True)
    """
    data = rollouts.encoded() if isinstance(rollouts, Rollouts) else rollouts
    if not isinstance(data, Encoded):
        raise TypeError(f"`rollouts` must be Rollouts or encoded responses, see encode; got {describe(rollouts)}")
    how = cast(Estimator, choice(estimator, "estimator", ("groups", "gram", "jvp")))
    parts, directions = integer(groups, "groups", low=2), integer(probes, "probes", low=1)
    boolean(progress, "progress")
    generator, seed = as_generator(rng)
    values, places = _aligned(rewards, data)
    run = Runs(model=model, data=data, layout=layout, token_budget=token_budget, progress=progress)
    at_head = isinstance(params, str) and params == "lm_head"
    if isinstance(params, str) and not at_head:
        choice(params, "params", ("lm_head", "all"))
    chooser = None if isinstance(params, str) else params
    subject = adapt(model, "model")
    if not at_head:
        selected_parameters(subject, chooser)
    if how == "jvp":
        draws = (
            head_slopes(run, directions, generator) if at_head else slopes_along(run, chooser, directions, generator)
        )
        found = _from_projections(draws, values, places, run.rows())
    elif at_head:
        grams = run.head_grams()
        found = _from_grams(
            grams, values, places, len(data), _deal(values, parts, generator) if how == "groups" else None
        )
    elif how == "gram":
        found = _from_grams(score_grams(run, chooser, places), values, places, len(data), None)
    else:
        found = _from_parts(run, chooser, values, places, _deal(values, parts, generator))
    return _result(found, values, data, how, params, seed, directions if how == "jvp" else None)


# --- rewards and rollouts ---------------------------------------------------------------------------------------------


def _aligned(rewards: Any, data: Encoded) -> tuple[dict[int, Floats], dict[int, NDArray[np.int64]]]:
    """Return for each group that can be run its scorable rewards, and the slots that they belong to."""
    table = as_table(rewards, "rewards").values
    sizes = np.bincount(data.group, minlength=len(data))
    if len(table) != len(data):
        raise ValueError(f"`rewards` must have one row for each of {len(data)} prompts; got {len(table)}")
    if int(sizes.max(initial=0)) > table.shape[1]:
        raise ValueError(
            f"`rewards` must have a reward for each of up to {int(sizes.max())} rollouts of a prompt; got "
            f"{table.shape[1]}"
        )
    values, places = {}, {}
    for group, status in enumerate(data.status):
        beyond = table[group, sizes[group] :]
        if np.isfinite(beyond).any():
            raise ValueError(
                f"`rewards` has more rewards than prompt {data.keys[group]!r} has rollouts, {sizes[group]}"
            )
        row = table[group, : sizes[group]]
        slots = np.flatnonzero(np.isfinite(row)) if status == "ok" else np.empty(0, dtype=np.int64)
        values[group], places[group] = row[slots], slots.astype(np.int64)
    return values, places


def _deal(values: Mapping[int, Floats], parts: int, generator: np.random.Generator) -> dict[int, list[Any]]:
    """Deal the rollouts of each prompt to parts of at least two."""
    return {
        group: np.array_split(generator.permutation(len(row)), max(1, min(parts, len(row) // 2)))
        for group, row in values.items()
    }


def _leave_one_out(rewards: Floats) -> Floats:
    """Return the weight of each score in the policy gradient with the mean of the others as baseline."""
    return np.asarray(centred(rewards) / (len(rewards) - 1), dtype=np.float64)


# --- estimates --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """Squared norm, trace of the covariance of one rollout's term, and top of the Fisher matrix of each prompt."""

    squared: Floats
    trace: Floats
    top: Floats


def _empty(count: int) -> _Found:
    return _Found(np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan))


def _from_grams(
    grams: Iterator[tuple[int, Floats]],
    values: Mapping[int, Floats],
    places: Mapping[int, NDArray[np.int64]],
    count: int,
    parts: Mapping[int, list[Any]] | None,
) -> _Found:
    found = _empty(count)
    for group, whole in grams:
        rewards, slots = values[group], places[group]
        gram = whole[np.ix_(slots, slots)]
        if len(slots):
            found.top[group] = max(0.0, float(np.linalg.eigvalsh(gram)[-1])) / len(slots)
        if len(slots) < _SMALLEST:
            continue
        found.trace[group] = _noise(rewards, gram)
        if parts is None:
            found.squared[group] = squared_gradient_norm(rewards, (gram + gram.T) / 2)
        else:
            weights = np.zeros((len(parts[group]), len(slots)))
            for row, members in zip(weights, parts[group], strict=True):
                row[members] = _leave_one_out(rewards[members])
            product = weights @ gram @ weights.T
            found.squared[group] = (product.sum() - np.trace(product)) / (len(product) * (len(product) - 1))
    return found


def _noise(rewards: Floats, gram: Floats) -> float:
    """Return the trace of the covariance of (r_i - mean of the others) s_i over the rollouts."""
    k = len(rewards)
    factors = centred(rewards) * (k / (k - 1))
    return max(0.0, float((factors**2 @ np.diag(gram) - factors @ gram @ factors / k) / (k - 1)))


def _from_projections(
    draws: Iterator[Floats],
    values: Mapping[int, Floats],
    places: Mapping[int, NDArray[np.int64]],
    first: NDArray[np.int64],
) -> _Found:
    found = _empty(len(first) - 1)
    used = [group for group, slots in places.items() if len(slots) >= _SMALLEST]
    squared, trace, probes = np.zeros(len(used)), np.zeros(len(used)), 0
    for slopes in draws:
        probes += 1
        for at, group in enumerate(used):
            along = slopes[first[group] + places[group]]
            outer = np.outer(along, along)
            squared[at] += squared_gradient_norm(values[group], outer)
            trace[at] += _noise(values[group], outer)
    found.squared[used], found.trace[used] = squared / max(1, probes), trace / max(1, probes)
    return found


def _from_parts(
    run: Runs,
    chooser: Any,
    values: Mapping[int, Floats],
    places: Mapping[int, NDArray[np.int64]],
    parts: Mapping[int, list[Any]],
) -> _Found:
    """Read off the gradients of the parts of each group: each part has a forward and a backward pass of its own."""
    found = _empty(len(run.data))
    first = run.rows()
    drawn, weights = [], []
    for group, rewards in values.items():
        if len(rewards) < _SMALLEST:
            continue
        found.squared[group] = found.trace[group] = 0.0
        for members in parts[group]:
            weight = _leave_one_out(rewards[members])
            if weight.any():  # equal rewards have no gradient
                drawn.append((group, first[group] + places[group][members]))
                weights.append(weight)
    if not drawn:
        return found
    folded = fold_gradients(
        run.model,
        dealt(run.data, drawn),
        next,
        parameters=chooser,
        layout=run.layout,
        coefficients=np.concatenate(weights)[None],
        progress=run.progress,
    )
    for group, own in itertools.groupby(zip(drawn, folded, strict=True), key=lambda entry: entry[0][0]):
        whole, squares = _square_of_sum(gradient for _, (_, gradient) in own)
        k, m = len(values[group]), len(parts[group])
        found.squared[group] = (whole - squares) / (m * (m - 1))
        found.trace[group] = max(0.0, (squares - whole / m) / (m * (m - 1))) * k
    return found


def _square_of_sum(gradients: Iterator[Gradient]) -> tuple[float, float]:
    """Return the squared norm of the sum of some gradients, and the sum of their squared norms."""
    total: list[torch.Tensor] = []
    squares = 0.0
    for gradient in gradients:
        squares += _square(gradient)
        if total:
            for kept, part in zip(total, gradient, strict=True):
                kept.add_(part)
        else:
            total = [part.double() for part in gradient]
    return _square(total), squares


def _square(parts: Sequence[torch.Tensor]) -> float:
    return float(sum(float(part.double().square().sum()) for part in parts))


# --- the result -------------------------------------------------------------------------------------------------------


def _result(
    found: _Found,
    values: Mapping[int, Floats],
    data: Encoded,
    how: Estimator,
    params: Params,
    seed: int | None,
    probes: int | None,
) -> GradientNorm:
    n = np.array([len(values[group]) for group in range(len(data))], dtype=np.int64)
    std = np.array([_std(values[group]) for group in range(len(data))])
    norm = np.sqrt(np.maximum(found.squared, 0.0))
    bound = std * np.sqrt(found.top)
    alignment, snr = np.full(len(data), np.nan), np.full(len(data), np.nan)
    np.divide(norm, bound, out=alignment, where=bound > 0)
    noise = found.trace / np.maximum(n, 1)
    np.divide(np.maximum(found.squared, 0.0), noise, out=snr, where=noise > 0)
    arrays: dict[str, Any] = {
        "squared_norm": found.squared,
        "norm": norm,
        "reward_std": std,
        "fisher_top": found.top,
        "fisher_bound": bound,
        "alignment": alignment,
        "snr": snr,
        "n_rollouts": n,
    }
    for array in arrays.values():
        array.flags.writeable = False
    few = int((n < _SMALLEST).sum())
    called = params if isinstance(params, str) else ("a predicate" if callable(params) else ", ".join(params))
    return GradientNorm(
        keys=data.keys,
        **arrays,
        params=called,
        estimator=how,
        explanation=_explain(norm, alignment, snr, std),
        meta=Meta(
            definition=f"unbiased estimate of ||grad_theta E r||^2 of each prompt, theta = {called}",
            ddof=1,
            n=len(data) - few,
            seed=seed,
            skipped={} if not few else {f"{few} of {len(data)} prompts": f"fewer than {_SMALLEST} scorable rollouts"},
            details={"estimator": how, **({} if probes is None else {"probes": probes})},
        ),
    )


def _std(rewards: Floats) -> float:
    if len(rewards) < 2:
        return float("nan")
    return 0.0 if rewards.max() == rewards.min() else float(rewards.std(ddof=1))


def _explain(norm: Floats, alignment: Floats, snr: Floats, std: Floats) -> str:
    if not np.isfinite(norm).any():
        return "No prompt has the 4 scorable rollouts that an unbiased estimate needs: draw more."
    flat = int((std == 0).sum())
    text = f"The gradient of a prompt has norm {_median(norm):.3g} (median)."
    if flat:
        text += f" {flat} prompts have no spread of rewards and give no gradient at all."
    ratio = _median(alignment)
    if ratio is not None:
        text += f" It uses {ratio:.0%} of what the spread of rewards allows"
        text += ": the spread exists, but these parameters cannot use it." if ratio < 0.1 else "."
    signal = _median(snr)
    if signal is not None and signal < 1:
        text += f" Signal to noise is {signal:.2g}: at this number of rollouts the averaged gradient is mostly noise."
    return text

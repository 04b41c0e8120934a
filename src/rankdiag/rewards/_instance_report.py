"""Policy problems small enough to write down: which reward errors hurt, and how long ascent takes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import choice, describe, integer, real
from rankdiag.rewards._attraction import gradient_alignment
from rankdiag.rewards._categories import ErrorRecord, categorize_errors
from rankdiag.rewards._flow import simulate_policy_gradient

__all__ = ["InstanceCurve", "InstanceError", "InstanceReport", "InstanceRow", "instance_report"]

Floats = NDArray[np.float64]
_NAN = float("nan")
_NEEDED = ("initial_probs", "train_reward", "ground_truth_reward")
_KNOWN = (*_NEEDED, "name", "features", "kernel", "learning_rate", "steps")
_GOLD = "ground_truth_reward"
_LR, _STEPS = 0.1, 50_000  # of the published runs
_PLOTS = 12  # of single instances
_ARGUMENTS = {"`p0`": "`initial_probs`", f"`eval_rewards['{_GOLD}']`": f"`{_GOLD}`"}  # what a flow calls them


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One policy problem; see the columns of `InstanceReport`."""

    name: str
    errors: int
    harmful: int
    beneficial: int
    cosine: float | None
    proxy_time: float
    gold_time: float
    rate: float
    gold_rate: float
    proxy_end: float
    gold_end: float
    worst_attribution: float | None
    worst_effect: float | None
    benign: int
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceError:
    """One output of one problem whose proxy reward differs from the true one.

    Attributes
    ----------
    instance : str
        Name of the problem.
    index : int
        The output.
    probability, proxy, gold : float
        Its initial probability and both rewards.
    category : str
        See `ErrorRecord`.
    attribution, effect : float
        First-order share in the rate of the true reward; integral of the true reward with the error less that with it
        repaired, None unless simulated.
    """

    instance: str
    index: int
    probability: float
    proxy: float
    gold: float
    category: str
    attribution: float
    effect: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCurve:
    """The true reward of one problem along the flow, while the proxy or the true reward is ascended.

    Attributes
    ----------
    instance : str
        Name of the problem.
    ascended : {"proxy", "gold"}
        Which reward.
    times, values : tuple of float
        Times, and the mean true reward.
    """

    instance: str
    ascended: str
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InstanceReport(Table[InstanceRow]):
    """Reward errors of small policy problems, and what they do to the ascent.

    Attributes
    ----------
    rows : tuple of InstanceRow
        One for each problem.
    errors : tuple of InstanceError
        One for each error, in the order of the problems.
    curves : tuple of InstanceCurve
        The true reward over time; both kinds for each problem.

    Examples
    --------
    >>> from rankdiag.rewards import instance_report
    >>> problem = {"initial_probs": [0.1, 0.5, 0.4], "train_reward": [1, -1, -1], "ground_truth_reward": [1, 0.8, -1]}
    >>> report = instance_report(problem)
    >>> report.errors[0].category, round(report.rows[0].proxy_time, 2), round(report.rows[0].gold_time, 1)
    ('beneficial_I', 13.3, 123.7)
    """

    tag: ClassVar[str] = "rewards.InstanceReport"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="instance"),
        Column(name="errors", doc="Outputs whose proxy reward differs from the true one."),
        Column(name="harmful"),
        Column(name="beneficial"),
        Column(name="cosine", doc="Of the angle between both gradients; none where one is zero."),
        Column(
            name="proxy_time",
            label="time, proxy",
            doc="Time or updates until the true reward reaches the level; inf if not before the end.",
        ),
        Column(name="gold_time", label="time, truth", doc="The same while the true reward itself is ascended."),
        Column(name="rate", doc="Of the true reward while the proxy is ascended, now. Below 0: ascent lowers it."),
        Column(name="gold_rate", label="rate, truth", doc="The same while the true reward itself is ascended."),
        Column(name="proxy_end", label="end, proxy", doc="True reward where that ascent ended."),
        Column(name="gold_end", label="end, truth", doc="True reward where that ascent ended."),
        Column(name="worst_attribution", label="worst attribution", doc="Of one error; none without errors."),
        Column(name="worst_effect", label="worst effect", doc="Of one error, where it was simulated."),
        Column(name="benign"),
        Column(name="outputs"),
    )

    rows: tuple[InstanceRow, ...] = ()
    errors: tuple[InstanceError, ...] = ()
    curves: tuple[InstanceCurve, ...] = ()

    def document(self) -> Document:
        """Return what this report shows: problems, their errors, and the true reward over time."""
        level = self.meta.details.get("level")
        unit = "updates" if self.meta.units == "updates" else "time of the flow"
        return Document(
            title="Reward errors of policy problems",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="instances", value=len(self.rows)),
                KeyNumber(label="errors", value=len(self.errors)),
                KeyNumber(label="harmful", value=sum(row.harmful for row in self.rows)),
                KeyNumber(label="beneficial", value=sum(row.beneficial for row in self.rows)),
            ),
            grids=(self.grid("Instances"), *_error_grid(self.errors)),
            plots=tuple(_plot(row.name, self.curves, level, unit) for row in self.rows[:_PLOTS]),
            notes=self.notes(),
        )


def instance_report(
    instances: Any,
    *,
    level: float = 0.95,
    horizon: float = 1e5,
    method: Literal["flow", "gd"] = "flow",
    lr: float | None = None,
    steps: int | None = None,
    verify: Literal["flow"] | None = None,
    tol: float = 1e-6,
    prob_floor: float = 1e-3,
    top_tol: float = 0.05,
) -> InstanceReport:
    """Say which errors of a proxy reward hurt in policy problems of few outputs, and how long ascent takes.

    Parameters
    ----------
    instances : mapping or sequence of mapping
        One problem or several. Each has ``initial_probs``, ``train_reward`` (the proxy) and ``ground_truth_reward``,
        all of shape (Y,), and perhaps a ``name``, and either ``features`` (Y, D) of a log-linear policy or its
        ``kernel`` (Y, Y); with neither, every output has a logit of its own. Both rewards are on one scale. Other
        fields are not used.
    level : float
        True reward whose first time is asked for, in its units.
    horizon : float
        End of every flow.
    method : {"flow", "gd"}
        Gradient flow; or ascent with exact gradients, whose times are numbers of updates.
    lr, steps : float, int, optional
        Step size and updates at most of ``"gd"``; None takes the ``learning_rate`` and the ``steps`` of each problem,
        0.1 and 50,000 where it has none.
    verify : {"flow"}, optional
        Repair every error alone and rerun the flow, for its effect.
    tol, prob_floor, top_tol : float
        As in `categorize_errors`.

    Returns
    -------
    InstanceReport
        One row a problem, all errors, and the true reward over time.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a problem lacks a field, a name repeats, or a field does not fit; the problem is named.

    Notes
    -----
    Two ascents for each problem, one where both rewards agree, and with ``verify`` a flow for each error and one more;
    see `simulate_policy_gradient` for their cost. An ascent ends at the level, at the horizon or after its steps.
    Probabilities off 1 by at most 1e-5 are renormalised.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 3.

    Examples
    --------
    >>> from rankdiag.rewards import instance_report
    >>> hacked = {"initial_probs": [0.1, 0.5, 0.4], "train_reward": [1, 0.8, 1], "ground_truth_reward": [1, 0.8, -1]}
    >>> report = instance_report({"name": "hacked", **hacked}, verify="flow", horizon=1000.0)
    >>> report.errors[0].category, report.errors[0].effect < 0, report.rows[0].proxy_time
    ('harmful_I', True, inf)
    """
    goal, end = real(level, "level"), real(horizon, "horizon", low=0.0, low_open=True)
    way: Literal["flow"] | None = None if verify is None else choice(verify, "verify", ("flow",))
    ascent = _ascent(method, end, lr, steps)
    options: dict[str, Any] = {"tol": tol, "prob_floor": prob_floor, "top_tol": top_tol, "verify": way, "horizon": end}
    rows, errors, curves, skipped = [], [], [], {}
    for name, problem in _named(instances).items():
        try:
            found = _one(name, problem, goal, ascent, options)
        except ValueError as error:
            text = str(error)
            for old, new in _ARGUMENTS.items():
                text = text.replace(old, new)
            raise ValueError(f"`instances`, {name!r}: {text}") from None
        rows.append(found[0])
        errors += found[1]
        curves += found[2]
        unused = sorted(str(key) for key in problem if key not in _KNOWN)
        if unused:
            skipped[f"fields of {name}"] = f"{', '.join(unused)}; not used"
        best = float(np.max(np.asarray(problem[_GOLD], dtype=np.float64)))
        if goal > best:
            skipped[f"times of {name}"] = f"no output has a true reward of {goal:g}; the best has {best:g}"
    return InstanceReport(
        rows=tuple(rows),
        errors=tuple(errors),
        curves=tuple(curves),
        explanation=_explain(rows, errors, goal),
        meta=Meta(
            definition="categories and attributions of reward errors; time of the ascent until the true reward "
            "reaches the level",
            units="time" if ascent["method"] == "flow" else "updates",
            n=len(rows),
            skipped=skipped,
            details={
                "level": goal,
                **{name: value for name, value in ascent.items() if value is not None},
                "effects": f"simulated to {end:g}" if way else "not simulated",
                "tol": float(tol),
                "prob_floor": float(prob_floor),
                "top_tol": float(top_tol),
            },
        ),
    )


def _named(instances: Any) -> dict[str, Mapping[str, Any]]:
    """Return name -> problem, all with the fields that are needed."""
    many = [instances] if isinstance(instances, Mapping) else instances
    if isinstance(many, (str, bytes)) or not isinstance(many, Sequence):
        raise TypeError(f"`instances` must be one problem or a sequence of problems; got {describe(instances)}")
    if not many:
        raise ValueError("`instances` must hold at least one problem; got none")
    named: dict[str, Mapping[str, Any]] = {}
    for place, problem in enumerate(many):
        if not isinstance(problem, Mapping):
            raise TypeError(f"`instances` must hold mappings; entry {place} is {describe(problem)}")
        missing = [key for key in _NEEDED if key not in problem]
        if missing:
            raise ValueError(f"`instances`: entry {place} has no {', '.join(missing)}; each needs {', '.join(_NEEDED)}")
        name = str(problem.get("name", place))
        if name in named:
            raise ValueError(f"`instances` must have names of their own; {name!r} comes twice")
        named[name] = problem
    return named


def _one(
    name: str, problem: Mapping[str, Any], level: float, ascent: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[InstanceRow, list[InstanceError], list[InstanceCurve]]:
    gold = _vector(problem, _GOLD)
    proxy = _vector(problem, "train_reward")
    kernel = _kernel(problem, len(gold))
    start = _vector(problem, "initial_probs")
    how = {"kernel": kernel, "stop": (_GOLD, level), **_steps_of(problem, ascent)}
    runs = {"gold": simulate_policy_gradient(start, gold, {_GOLD: gold}, **how)}
    runs["proxy"] = runs["gold"]
    if not np.array_equal(proxy, gold):
        runs["proxy"] = simulate_policy_gradient(start, proxy, {_GOLD: gold}, **how)
    policy = runs["gold"].probs[0]  # as the flow renormalises it
    records = categorize_errors(policy, proxy, gold, kernel=kernel, **options)
    alignment = gradient_alignment(policy, proxy, gold, kernel=kernel)
    row = InstanceRow(
        name=name,
        outputs=len(policy),
        errors=len(records),
        **{kind: sum(r.category.startswith(kind) for r in records) for kind in ("harmful", "benign", "beneficial")},
        rate=alignment.rate,
        gold_rate=gradient_alignment(policy, gold, gold, kernel=kernel).rate,
        cosine=_known(alignment.cosine),
        proxy_time=float(runs["proxy"].hitting_time),
        gold_time=float(runs["gold"].hitting_time),
        proxy_end=float(runs["proxy"].values[_GOLD][-1]),
        gold_end=float(runs["gold"].values[_GOLD][-1]),
        worst_attribution=min((r.attribution for r in records), default=None),
        worst_effect=_known(min((r.effect for r in records), default=_NAN)),
    )
    curves = [
        InstanceCurve(
            instance=name,
            ascended=kind,
            times=tuple(runs[kind].times.tolist()),
            values=tuple(runs[kind].values[_GOLD].tolist()),
        )
        for kind in ("proxy", "gold")
    ]
    return row, [_error(name, r, policy, proxy, gold) for r in records], curves


def _error(name: str, record: ErrorRecord, policy: Floats, proxy: Floats, gold: Floats) -> InstanceError:
    y = record.index
    return InstanceError(
        instance=name,
        index=y,
        probability=float(policy[y]),
        proxy=float(proxy[y]),
        gold=float(gold[y]),
        category=record.category,
        attribution=record.attribution,
        effect=_known(record.effect),
    )


def _ascent(method: Any, horizon: float, lr: Any, steps: Any) -> dict[str, Any]:
    """Return what `simulate_policy_gradient` needs of the ascent; None where the problem says it."""
    if choice(method, "method", ("flow", "gd")) == "flow":
        for name, value in (("lr", lr), ("steps", steps)):
            if value is not None:
                raise ValueError(f"`{name}` is for method='gd', and a flow has none; got {describe(value)}")
        return {"method": "flow", "horizon": horizon}
    return {
        "method": "gd",
        "lr": None if lr is None else real(lr, "lr", low=0.0, low_open=True),
        "steps": None if steps is None else integer(steps, "steps", low=0),
    }


def _steps_of(problem: Mapping[str, Any], ascent: Mapping[str, Any]) -> dict[str, Any]:
    own = {"lr": problem.get("learning_rate", _LR), "steps": problem.get("steps", _STEPS)}
    return {name: own[name] if value is None else value for name, value in ascent.items()}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _vector(problem: Mapping[str, Any], name: str) -> Floats:
    array: Floats = as_float64(problem[name], name, ndim=1, expected="one number for each output (Y,)")
    return array


def _kernel(problem: Mapping[str, Any], size: int) -> Floats | None:
    features, kernel = problem.get("features"), problem.get("kernel")
    if features is None:
        return None if kernel is None else as_float64(kernel, "kernel", ndim=2, expected="a kernel (Y, Y)")
    if kernel is not None:
        raise ValueError("`kernel` and `features` must not both be given; features mean the kernel Phi Phi^T")
    table: Floats = as_float64(features, "features", ndim=2, expected="features (Y, D)")
    if len(table) != size:
        raise ValueError(f"`features` must have one row for each of the {size} outputs; got shape {table.shape}")
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        gram = np.asarray(table @ table.T, dtype=np.float64)
    if not np.isfinite(gram).all():
        raise ValueError("`features` have products beyond float64; scale them down")
    return gram


def _error_grid(errors: Sequence[InstanceError]) -> tuple[Grid, ...]:
    if not errors:
        return ()
    names = ("instance", "index", "probability", "proxy", "gold", "category", "attribution", "effect")
    shown = tuple(name for name in names if name != "effect" or any(e.effect is not None for e in errors))
    return (
        Grid(
            title="Errors",
            columns=tuple(Column(name=name, label="output" if name == "index" else name) for name in shown),
            rows=tuple(tuple(getattr(error, name) for name in shown) for error in errors),
            note="Attribution: share in the rate of the true reward now. Effect: what the error adds to its integral.",
        ),
    )


def _plot(name: str, curves: Sequence[InstanceCurve], level: float | None, unit: str) -> Plot:
    mine = {curve.ascended: curve for curve in curves if curve.instance == name}
    lines = [("proxy ascended", mine["proxy"]), ("true reward ascended", mine["gold"])]
    if mine["proxy"].values == mine["gold"].values:
        lines = [("either ascended", mine["gold"])]
    return Plot(
        title=f"True reward of {name}",
        x_label=unit,
        y_label="mean true reward",
        x_scale="log",
        series=tuple(
            Series(label=label, x=curve.times[1:], y=curve.values[1:]) for label, curve in lines
        ),  # not time 0
        lines=(ReferenceLine(axis="y", value=level, label=f"level {level:g}"),) if level is not None else (),
        description=f"The true reward of {name} while the proxy and while the true reward is ascended.",
    )


def _explain(rows: Sequence[InstanceRow], errors: Sequence[InstanceError], level: float) -> str:
    kinds: dict[str, int] = {}
    for error in errors:
        kinds[error.category] = kinds.get(error.category, 0) + 1
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    text = f"{len(errors)} errors in {len(rows)} instances{f': {listed}' if listed else ''}."
    wrong = [row for row in rows if row.errors]
    if wrong:
        never = sum(row.proxy_time == float("inf") for row in wrong)
        sooner = sum(row.proxy_time < row.gold_time for row in wrong)
        later = sum(row.gold_time < row.proxy_time < float("inf") for row in wrong)
        text += (
            f" Of the {len(wrong)} instances with errors, ascent of the proxy reaches a true reward of {level:g} "
            f"sooner than ascent of the true reward in {sooner}, later in {later}, and not before the end in {never}."
        )
        down = [row.name for row in wrong if row.rate < 0]
        if down:
            text += f" In {len(down)} ascent of the proxy lowers the true reward now ({', '.join(down[:3])})."
    if any(e.effect is not None and e.attribution < 0 < e.effect for e in errors):
        text += " Some errors that cost now help in the long run: the attribution is of first order, the effect is not."
    return text

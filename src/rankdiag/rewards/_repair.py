"""Counterfactual repair: which errors of a proxy reward to mend, in which order, and what the true reward gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._document import Column, Document, Grid, KeyNumber, Plot, ReferenceLine, Series
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe, integer, real
from rankdiag.rewards._categories import checked_reward, reward_integral
from rankdiag.rewards._exact import as_kernel, as_probs

__all__ = ["RepairReport", "repair_errors"]

Floats = NDArray[np.float64]

_RESOLVED = 1e-6  # of the range of the true reward: smaller gains are rounding of the flows and their integrals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RepairReport(Result):
    """What the true reward gains while errors of a proxy are mended one after the other.

    Attributes
    ----------
    order : ndarray of int64, shape (n,)
        Outputs whose reward was set to the true one, in this order.
    values : ndarray of float64, shape (n + 1,)
        Mean over time, up to the horizon, of the true reward along the flow under the proxy: with none of them mended,
        with the first, and so on.
    gains : ndarray of float64, shape (n,)
        By how much each raised it.
    all_repaired : float
        The same with every error mended, which may be less: an error can help.
    left : ndarray of int64
        Errors that were not mended.

    Examples
    --------
    >>> from rankdiag.rewards import repair_errors
    >>> found = repair_errors([0.1, 0.5, 0.4], [1.0, -1.0, 0.9], [1.0, 0.8, -1.0], horizon=20.0)
    >>> found.order.tolist(), found.left.tolist(), bool(found.values[-1] > found.all_repaired)
    ([2], [1], True)
    """

    tag: ClassVar[str] = "rewards.RepairReport"
    judged: ClassVar[bool] = False
    rule_names: ClassVar[tuple[str, ...]] = ("all_repaired",)

    order: NDArray[np.int64]
    values: NDArray[np.float64]
    gains: NDArray[np.float64]
    all_repaired: float
    left: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, kind in (("order", np.int64), ("values", np.float64), ("gains", np.float64), ("left", np.int64)):
            array = np.array(getattr(self, name), dtype=kind)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.order)

    def document(self) -> Document:
        """Return what this result shows: the order of repairs, and the true reward after each."""
        return Document(
            title="Repair of reward errors",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=(
                KeyNumber(label="as it is", value=float(self.values[0]), doc="Mean of the true reward over time."),
                KeyNumber(label=f"{len(self)} repaired", value=float(self.values[-1])),
                KeyNumber(label="all repaired", value=self.all_repaired, doc="The flow under the true reward."),
            ),
            grids=(
                Grid(
                    title="Repairs",
                    columns=(
                        Column(name="step"),
                        Column(name="output"),
                        Column(name="gain", doc="Of the mean of the true reward over time."),
                        Column(name="after"),
                    ),
                    rows=tuple(
                        (step + 1, int(y), float(self.gains[step]), float(self.values[step + 1]))
                        for step, y in enumerate(self.order.tolist())
                    ),
                    note=f"Not repaired: {', '.join(map(str, self.left.tolist())) or 'none'}.",
                ),
            ),
            plots=(
                Plot(
                    title="True reward by repairs",
                    x_label="errors repaired",
                    y_label="mean of the true reward over time",
                    series=(Series(label="in this order", x=list(range(len(self.values))), y=self.values.tolist()),),
                    lines=(ReferenceLine(axis="y", value=self.all_repaired, label="all repaired"),),
                    description=f"Mean of the true reward after 0 to {len(self)} repairs.",
                ),
            ),
            notes=self.notes(),
        )


def repair_errors(
    pi0: Any,
    r_proxy: Any,
    r_gold: Any,
    *,
    outputs: Literal["greedy"] | Sequence[int] = "greedy",
    most: int | None = None,
    tol: float = 1e-6,
    kernel: Any = None,
    horizon: float = 1e4,
) -> RepairReport:
    """Mend errors of a proxy reward, one after the other, and simulate what the true reward gains.

    Parameters
    ----------
    pi0 : array-like or torch.Tensor, shape (Y,)
        Initial policy, positive.
    r_proxy, r_gold : array-like or torch.Tensor, shape (Y,)
        Reward that is ascended and true reward, on one scale.
    outputs : "greedy" or sequence of int
        ``"greedy"`` mends next whatever raises the true reward most, given what is mended already, and stops where
        nothing raises it by more than 1e-6 of its range. Otherwise the outputs to mend, in this order, each once.
    most : int, optional
        Repairs at most, for ``"greedy"``.
    tol : float
        An output is an error where the rewards differ by more; in units of the range of `r_gold`.
    kernel : array-like, shape (Y, Y), optional
        Symmetric; Phi Phi^T of a log-linear policy. None is the identity, a table of logits.
    horizon : float
        End of the flows, > 0.

    Returns
    -------
    RepairReport
        The order, the mean of the true reward over time after each repair, and what was left.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `pi0` is no positive distribution, shapes do not fit, or an output is out of range, repeated or no error.

    Notes
    -----
    A repair sets the proxy of an output to its true reward and runs the flow anew, so it is exact where the first-order
    attribution (`error_attribution`) is myopic. One repair alone is minus the effect of `categorize_errors` with
    ``verify="flow"``, over the horizon. Greedy takes one flow for each error left at each step, m (m + 1) / 2 at most,
    and need not find the best set. Derived here.

    Examples
    --------
    >>> from rankdiag.rewards import repair_errors
    >>> found = repair_errors([0.1, 0.5, 0.4], [1.0, -1.0, 0.9], [1.0, 0.8, -1.0], outputs=[1, 2], horizon=20.0)
    >>> [round(float(gain), 3) for gain in found.gains]
    [0.678, 0.738]
    """
    policy = as_probs(as_float64(pi0, "pi0", ndim=1, expected="probabilities (Y,)"), "pi0")
    if (policy == 0).any():
        raise ValueError(
            "`pi0` must be positive, for its logarithm is where the flow starts; leave impossible outputs out"
        )
    proxy, gold = (checked_reward(v, n, policy.size) for v, n in ((r_proxy, "r_proxy"), (r_gold, "r_gold")))
    gram = as_kernel(kernel, "kernel", policy.size)
    end = real(horizon, "horizon", low=0.0, low_open=True)
    limit = None if most is None else integer(most, "most", low=0)
    allowed = real(tol, "tol", low=0.0) * float(np.ptp(gold))
    wrong = np.flatnonzero(np.abs(proxy - gold) > allowed).tolist()
    listed = _listed(outputs, wrong)

    def mean_after(mended: Sequence[int]) -> float:
        reward = proxy.copy()
        reward[list(mended)] = gold[list(mended)]
        return reward_integral(policy, reward, gold, gram, end) / end

    values, order = [mean_after(())], list[int]()
    if listed is None:
        while len(order) < len(wrong) and (limit is None or len(order) < limit):
            found = {y: mean_after([*order, y]) for y in wrong if y not in order}
            best = max(found, key=lambda y: found[y])  # the first of equals, by index
            if not found[best] - values[-1] > _RESOLVED * float(np.ptp(gold)):
                break
            order.append(best)
            values.append(found[best])
    else:
        for y in listed:
            order.append(y)
            values.append(mean_after(order))
    left = [y for y in wrong if y not in order]
    everything = values[-1] if not left else mean_after(wrong)
    return RepairReport(
        order=np.array(order, dtype=np.int64),
        values=np.array(values),
        gains=np.diff(values),
        all_repaired=everything,
        left=np.array(left, dtype=np.int64),
        explanation=_explain(values, everything, order, left),
        meta=Meta(
            definition="mean over [0, horizon] of the true reward along the flow under the proxy, repaired",
            n=policy.size,
            details={"horizon": end, "tol": float(tol), "outputs": "greedy" if listed is None else "given"},
        ),
    )


def _listed(outputs: Any, wrong: Sequence[int]) -> list[int] | None:
    if isinstance(outputs, str):
        if outputs != "greedy":
            raise ValueError(f"`outputs` must be 'greedy' or outputs to repair; got {outputs!r}")
        return None
    if not hasattr(outputs, "__iter__"):
        raise TypeError(f"`outputs` must be 'greedy' or a sequence of outputs; got {describe(outputs)}")
    listed = [integer(entry, "outputs", low=0) for entry in outputs]
    odd = [y for y in listed if y not in wrong]
    if odd or len(set(listed)) != len(listed):
        told = f"{odd[0]} is no error" if odd else "one is named twice"
        raise ValueError(f"`outputs` must name errors, each once; {told}. The errors are {list(wrong)}")
    return listed


def _explain(values: Sequence[float], everything: float, order: Sequence[int], left: Sequence[int]) -> str:
    if not order and not left:
        return "The proxy has no error: there is nothing to repair."
    text = (
        f"{len(order)} repairs move the mean of the true reward from {values[0]:.4g} to {values[-1]:.4g}; "
        f"all of them would give {everything:.4g}."
    )
    if left and values[-1] > everything:
        text += " Errors that were left help: they keep the policy from settling on a mediocre output."
    return text

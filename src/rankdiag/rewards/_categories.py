"""Which errors of a reward hurt, which do nothing, which help: categories, with a simulated effect on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import choice, real
from rankdiag.rewards._attraction import error_attribution
from rankdiag.rewards._exact import as_kernel, as_probs
from rankdiag.rewards._flow import simulate_policy_gradient

__all__ = ["ErrorRecord", "categorize_errors", "checked_reward", "reward_integral"]

Floats = NDArray[np.float64]

_NODES = 4001  # times at which a flow is sampled for its integral; log-spaced, for flows are fast first
_TEXTS = {
    "harmful_I": "A high reward on a bad output: the policy moves to it (reward hacking).",
    "harmful_II": "A middling reward on a bad output, above the mean: the policy may settle there (stalling).",
    "harmful_missed": "A good output is rewarded below the mean: it does not attract.",
    "benign_I": "The output is rewarded at or below the mean and does not attract.",
    "benign_II": "The output is so improbable that its error hardly enters.",
    "beneficial_I": "A low reward on a mediocre output: it keeps the policy from settling there.",
    "unclassified": "No rule applies; read the sign.",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ErrorRecord(Result):
    """One output whose proxy reward differs from the true one.

    Attributes
    ----------
    index : int
        The output.
    category : str
        One of harmful_I, harmful_II, harmful_missed, benign_I, benign_II, beneficial_I, unclassified.
    attribution : float
        First-order share in the rate of the true reward; negative costs now, see `error_attribution`.
    effect : float
        Integral over time of the true reward with the error less that with it repaired; NaN unless simulated.

    Examples
    --------
    >>> from rankdiag.rewards import categorize_errors
    >>> categorize_errors([0.1, 0.5, 0.4], [1.0, -1.0, -1.0], [1.0, 0.8, -1.0])[0].category
    'beneficial_I'
    """

    tag: ClassVar[str] = "rewards.ErrorRecord"
    rule_names: ClassVar[tuple[str, ...]] = ("attribution", "effect")

    index: int
    category: str
    attribution: float
    effect: float = float("nan")

    def __post_init__(self) -> None:
        if not self.explanation:
            object.__setattr__(self, "explanation", _TEXTS[choice(self.category, "category", _TEXTS)])

    @property
    def sign(self) -> int:
        """+1 where the error helps, -1 where it hurts, 0 for neither: by `effect`, by `attribution` without it."""
        return int(np.sign(self.attribution if np.isnan(self.effect) else self.effect))


def categorize_errors(
    pi0: Any,
    r_proxy: Any,
    r_gold: Any,
    *,
    tol: float = 1e-6,
    prob_floor: float = 1e-3,
    top_tol: float = 0.05,
    kernel: Any = None,
    verify: Literal["flow"] | None = None,
    horizon: float = 1e4,
) -> list[ErrorRecord]:
    """Sort the errors of a proxy reward into harmful, benign and beneficial ones.

    Parameters
    ----------
    pi0 : array-like or torch.Tensor, shape (Y,)
        Initial policy.
    r_proxy, r_gold : array-like or torch.Tensor, shape (Y,)
        Reward to be ascended and true reward, on one scale, which is the caller's to see to.
    tol : float
        An output is an error where the rewards differ by more; in units of the range of `r_gold`.
    prob_floor : float
        Probability below which an output is negligible.
    top_tol : float
        Width of "top", in units of the range of `r_gold`.
    kernel : array-like, shape (Y, Y), optional
        Symmetric; None is the identity.
    verify : {"flow"}, optional
        Repair each error alone, rerun the flow, and report the effect on the true reward. Needs `pi0` > 0.
    horizon : float
        End of these flows.

    Returns
    -------
    list of ErrorRecord
        One for each error, by index.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `pi0` is no distribution, shapes do not fit, or an option is out of bounds.

    Notes
    -----
    The categories are the paper's; the rule is ours. Quality of an output: "bad" at or below the mean of the true
    reward under `pi0`, "top" within `top_tol` of the largest, else "mediocre". In order: below `prob_floor` is
    benign_II. Proxy at or below its mean: bad or over-rated is benign_I, mediocre is beneficial_I, top is
    harmful_missed. Proxy above its mean, bad and over-rated: harmful_I within `top_tol` of the largest proxy reward,
    else harmful_II. The rest is unclassified: read ``sign``. Time O(Y); with ``verify``, one flow for each error and
    one more. To repair several errors, in the order that helps most, see `repair_errors`.

    References
    ----------
    Shang et al., arXiv 2604.25872, Section 3 (categories).

    Examples
    --------
    >>> from rankdiag.rewards import categorize_errors
    >>> found = categorize_errors([0.1, 0.5, 0.4], [1.0, -1.0, -1.0], [1.0, 0.8, -1.0], verify="flow", horizon=100.0)
    >>> found[0].category, found[0].attribution < 0, found[0].sign
    ('beneficial_I', True, 1)
    """
    policy = as_probs(as_float64(pi0, "pi0", ndim=1, expected="probabilities (Y,)"), "pi0")
    proxy, gold = (checked_reward(v, n, policy.size) for v, n in ((r_proxy, "r_proxy"), (r_gold, "r_gold")))
    gram = as_kernel(kernel, "kernel", policy.size)
    way = None if verify is None else choice(verify, "verify", ("flow",))
    if way and (policy == 0).any():
        raise ValueError("`pi0` must be positive with verify='flow', for its logarithm is where the flow starts")
    end = real(horizon, "horizon", low=0.0, low_open=True)
    spread = float(np.ptp(gold))
    band = real(top_tol, "top_tol", low=0.0) * spread
    floor = real(prob_floor, "prob_floor", low=0.0, high=1.0)
    wrong = np.flatnonzero(np.abs(proxy - gold) > real(tol, "tol", low=0.0) * spread)
    shares = error_attribution(policy, proxy, gold, kernel=gram)
    means = _mean(policy, proxy), _mean(policy, gold)
    base = reward_integral(policy, proxy, gold, gram, end) if way and wrong.size else float("nan")
    meta = Meta(
        definition="categories of reward errors; effect = integral of the true reward with the error less without",
        n=policy.size,
        details={"tol": float(tol), "prob_floor": floor, "top_tol": float(top_tol), "horizon": end if way else None},
    )
    records = []
    for y in wrong.tolist():
        effect = float("nan")
        if way:
            repaired = proxy.copy()
            repaired[y] = gold[y]
            effect = base - reward_integral(policy, repaired, gold, gram, end)
        category = _category(policy[y] < floor, proxy, gold, y, means, band)
        records.append(ErrorRecord(index=y, category=category, attribution=float(shares[y]), effect=effect, meta=meta))
    return records


def _category(rare: bool, proxy: Floats, gold: Floats, y: int, means: tuple[float, float], band: float) -> str:
    if rare:
        return "benign_II"
    bad, over = gold[y] <= means[1], proxy[y] > gold[y]
    if proxy[y] <= means[0]:
        if bad or over:
            return "benign_I"
        return "harmful_missed" if gold[y] >= gold.max() - band else "beneficial_I"
    if bad and over:
        return "harmful_I" if proxy[y] >= proxy.max() - band else "harmful_II"
    return "unclassified"


def reward_integral(policy: Floats, proxy: Floats, gold: Floats, gram: Floats | None, horizon: float) -> float:
    """Integrate the true reward along the flow under `proxy`, by Simpson's rule in the logarithm of 1 + time."""
    from scipy.integrate import simpson

    grid = np.linspace(0.0, np.log1p(horizon), _NODES)
    times = np.minimum(np.expm1(grid), horizon)
    run = simulate_policy_gradient(policy, proxy, {"gold": gold}, kernel=gram, horizon=horizon, record=times)
    return float(simpson(run.values["gold"] * np.exp(grid), x=grid))


def _mean(policy: Floats, reward: Floats) -> float:
    low = float(reward.min())
    return low + float(policy @ (reward - low))  # equal rewards have exactly this mean


def checked_reward(value: Any, name: str, size: int) -> Floats:
    """Return one finite reward for each output, of a spread that float64 holds."""
    array = as_float64(value, name, ndim=1, expected=f"one reward for each of the {size} outputs")
    if array.size != size:
        raise ValueError(f"`{name}` must hold one reward for each of the {size} outputs; got shape {array.shape}")
    if not np.isfinite(np.float64(array.max() / 2 - array.min() / 2) * 4):
        raise ValueError(f"`{name}` spreads beyond float64; scale it down")
    return array

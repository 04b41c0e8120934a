"""How often certified bounds of a spread fail, how wide they are, and when the sequential rule stops.

``python reproductions/rewards_certified.py [--streams 2000] [--delta 0.05]`` draws seeded streams of rewards in [0, 1]
with known standard deviation and prints what came out beside what theory says. Nothing may fail more often than delta,
but for the noise of this many streams.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankdiag.rewards import SequentialStd, std_interval

METHODS = ("maurer_pontil", "self_bounding", "binary_exact")
LAWS = {
    "bernoulli .01": ("bernoulli", 0.01),
    "bernoulli .1": ("bernoulli", 0.1),
    "bernoulli .3": ("bernoulli", 0.3),
    "bernoulli .5": ("bernoulli", 0.5),
    "uniform": ("beta", 1.0, 1.0),
    "beta 2, 6": ("beta", 2.0, 6.0),
    "beta .2, .2": ("beta", 0.2, 0.2),
}
ROUNDING = 1e-12  # a bound that equals sigma but for rounding holds
SIZES = (32, 256)
LARGEST = 2048
TAUS = (
    ("bernoulli .01", 0.2),
    ("bernoulli .1", 0.2),
    ("bernoulli .1", 0.31),  # nearly sigma: all looks are taken
    ("bernoulli .5", 0.35),
    ("uniform", 0.18),
    ("uniform", 0.4),
    ("beta .2, .2", 0.25),
)


@dataclass(frozen=True)
class Coverage:
    """Errors over the streams of one law: each one-sided bound, both two-sided; widths of the two-sided interval.

    `exact` is the two-sided error by the binomial law, NaN for other laws.
    """

    law: str
    n: int
    method: str
    too_high: float
    too_low: float
    outside: float
    exact: float
    width: float
    theory: float
    radius: float


@dataclass(frozen=True)
class Stopping:
    """What the sequential rule did on the streams of one law: wrong and right decisions, and rollouts used."""

    law: str
    sigma: float
    tau: float
    method: str
    wrong: float
    decided: float
    median: float
    theory: float


def spread(law: tuple[Any, ...]) -> float:
    if law[0] == "bernoulli":
        return math.sqrt(law[1] * (1 - law[1]))
    _, a, b = law
    return math.sqrt(a * b / (a + b + 1)) / (a + b)


def draw(law: tuple[Any, ...], shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return (rng.random(shape) < law[1]) * 1.0 if law[0] == "bernoulli" else rng.beta(law[1], law[2], shape)


def fits(method: str, law: str) -> bool:
    return method != "binary_exact" or law.startswith("bernoulli")


def ideal(law: tuple[Any, ...], n: int, method: str, delta: float) -> tuple[float, float]:
    """Two-sided bounds where the sample is exactly as its law says."""
    sigma, r = spread(law), math.sqrt(2 * math.log(2 / delta) / (n - 1))
    if method == "maurer_pontil":
        ends = sigma - r, sigma + r
    elif method == "self_bounding":
        square = sigma**2 + r**2 / 4 - r * math.sqrt(sigma**2 + r**2 / 16)
        ends = math.sqrt(square) if sigma**2 > r**2 / 2 else 0.0, r / 2 + math.sqrt(sigma**2 + r**2 / 4)
    else:
        from scipy.special import betaincinv

        m = n * law[1]
        p = betaincinv(m, n - m + 1, delta / 2), betaincinv(m + 1, n - m, 1 - delta / 2)
        ends = math.sqrt(p[0] * (1 - p[0])), math.sqrt(p[1] * (1 - p[1])) if p[1] < 0.5 else 0.5
    return max(0.0, ends[0]), min(0.5, ends[1])


def coverage(streams: int, delta: float, seed: int = 0) -> list[Coverage]:
    found = []
    for place, (name, law) in enumerate(LAWS.items()):
        sigma = spread(law)
        for n in SIZES:
            rows = draw(law, (streams, n), np.random.default_rng([seed, place, n]))
            weights, exact = np.full(streams, 1 / streams), np.full(streams, math.nan)
            if law[0] == "bernoulli":  # bounds depend on the number of successes alone
                weights = np.bincount(rows.sum(axis=1).astype(int), minlength=n + 1) / streams
                rows = (np.arange(n) < np.arange(n + 1)[:, None]) * 1.0
                exact = np.array([math.comb(n, s) * law[1] ** s * (1 - law[1]) ** (n - s) for s in range(n + 1)])
            for method in filter(lambda method: fits(method, name), METHODS):
                options: dict[str, Any] = {"method": method, "reward_range": (0, 1), "delta": delta}
                one = [std_interval(row, **options) for row in rows]
                two = [std_interval(row, sides="two", **options) for row in rows]
                low, high = np.array([(x.lower, x.upper) for x in one]).T
                both = np.array([(x.lower, x.upper) for x in two])
                outside = (both[:, 0] > sigma + ROUNDING) | (both[:, 1] < sigma - ROUNDING)
                widths = np.repeat(both[:, 1] - both[:, 0], np.rint(weights * streams).astype(int))
                ends = ideal(law, n, method, delta)
                found.append(
                    Coverage(
                        law=name,
                        n=n,
                        method=method,
                        too_high=float(weights @ (low > sigma + ROUNDING)),
                        too_low=float(weights @ (high < sigma - ROUNDING)),
                        outside=float(weights @ outside),
                        exact=float(exact @ outside),
                        width=float(np.median(widths)),
                        theory=ends[1] - ends[0],
                        radius=two[0].radius,
                    )
                )
    return found


def uncertified(streams: int, delta: float, seed: int = 2) -> list[Coverage]:
    """What is no certificate: "chi2" where it is exact, on normal rewards; "bootstrap" where nothing is promised.

    The theory of the bootstrap is the normal interval of the standard deviation with the fourth moment of the law.
    """
    from scipy.special import gammainccinv, gammaincinv, ndtri

    found = []
    cases = [("normal", n, "chi2") for n in (4, *SIZES)] + [(law, 32, "bootstrap") for law in ("uniform", "beta 2, 6")]
    for place, (name, n, method) in enumerate(cases):
        rng = np.random.default_rng([seed, place])
        law = LAWS.get(name, ())
        rows = rng.normal(size=(streams, n)) if name == "normal" else draw(law, (streams, n), rng)
        sigma = 1.0 if name == "normal" else spread(law)
        one = np.empty((streams, 2))
        two = np.empty((streams, 2))
        for i, row in enumerate(rows):
            for ends, sides in ((one, "one"), (two, "two")) if method == "chi2" else ((two, "two"),):
                options: dict[str, Any] = {"method": method, "delta": delta, "sides": sides}
                x = std_interval(row, rng=i if method == "bootstrap" else None, **options)
                ends[i] = x.lower, x.upper
        if method == "chi2":
            half = (n - 1) / 2
            ends = [math.sqrt(half / quantile(half, delta / 2)) for quantile in (gammaincinv, gammainccinv)]
            theory = ends[0] - ends[1]
            theory *= math.sqrt(gammaincinv(half, 0.5) / half)  # the width is a multiple of s: this is its median
        else:
            one[:] = math.nan
            a, b = law[1:]
            excess = 6 * ((a - b) ** 2 * (a + b + 1) - a * b * (a + b + 2)) / (a * b * (a + b + 2) * (a + b + 3))
            theory = -2 * ndtri(delta / 2) * sigma * math.sqrt((excess + 2) / (4 * n))
        found.append(
            Coverage(
                law=name,
                n=n,
                method=method,
                too_high=float((one[:, 0] > sigma).mean()) if method == "chi2" else math.nan,
                too_low=float((one[:, 1] < sigma).mean()) if method == "chi2" else math.nan,
                outside=float(((two[:, 0] > sigma) | (two[:, 1] < sigma)).mean()),
                exact=delta if method == "chi2" else math.nan,
                width=float(np.median(two[:, 1] - two[:, 0])),
                theory=float(theory),
                radius=math.nan,
            )
        )
    return found


def first_look(law: tuple[Any, ...], tau: float, method: str, delta: float) -> float:
    """Rollouts at the first look at which the ideal interval decides."""
    n, look = 8, 1
    while n <= LARGEST:
        low, high = ideal(law, n, method, 6 * delta / (math.pi * look) ** 2)
        if high <= tau or low > tau:
            return n
        n, look = 2 * n, look + 1
    return math.inf


def stopping(streams: int, delta: float, seed: int = 1) -> list[Stopping]:
    found = []
    for place, (name, tau) in enumerate(TAUS):
        law = LAWS[name]
        sigma = spread(law)
        right = "low" if tau > sigma else "high"
        rows = draw(law, (streams, LARGEST), np.random.default_rng([seed, place]))
        for method in filter(lambda method: fits(method, name), METHODS):
            states, counts = [], []
            for row in rows:
                rule = SequentialStd(tau, reward_range=(0, 1), delta=delta, max_rollouts=LARGEST, method=method)
                states.append(rule.update(row))
                counts.append(rule.count)
            found.append(
                Stopping(
                    law=name,
                    sigma=sigma,
                    tau=tau,
                    method=method,
                    wrong=float(np.mean([state not in (right, "exhausted") for state in states])),
                    decided=float(np.mean([state == right for state in states])),
                    median=float(np.median(counts)),
                    theory=first_look(law, tau, method, delta),
                )
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--delta", type=float, default=0.05)
    options = parser.parse_args()
    noise = 3 * math.sqrt(options.delta * (1 - options.delta) / options.streams)
    print(
        f"{options.streams} streams each; errors may be {options.delta} at most, {options.delta + noise:.4f} with noise"
    )
    print("\nlaw             n method          lower > sigma  upper < sigma  two-sided (exact) width (theory)   radius")
    for x in coverage(options.streams, options.delta) + uncertified(options.streams, options.delta):
        print(
            f"{x.law:14s} {x.n:4d} {x.method:14s} {x.too_high:13.4f}  {x.too_low:13.4f} {x.outside:8.4f} "
            f"({x.exact:.4f})  {x.width:.4f} ({x.theory:.4f})  {x.radius:.4f}"
        )
    print(f"\nsequential, at most {LARGEST} rollouts")
    print("law            sigma    tau method          wrong   decided   rollouts, median (theory)")
    for y in stopping(options.streams, options.delta):
        print(
            f"{y.law:14s} {y.sigma:.3f}  {y.tau:.3f} {y.method:14s} {y.wrong:6.4f}  {y.decided:8.4f}   "
            f"{y.median:6.0f} ({y.theory:g})"
        )


if __name__ == "__main__":
    main()

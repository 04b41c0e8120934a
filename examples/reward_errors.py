# %% [markdown]
# # A reward that is wrong about the second-best output finds the best one sooner
#
# Five outputs: one of reward 1, one of reward 0.8 that the policy already likes, three bad ones. Under the true reward
# the policy goes to the second best, because it is likely, and then hardly moves: so close to the best, the reward has
# no spread left. A proxy that calls the second best as bad as the rest has no such place to stall at
# (Shang et al. 2026, arXiv:2604.25872, Section 3). Accuracy counts the error against it.
#
# Three questions. How long does each reward take? Which kinds of errors are there, and does a first derivative tell
# them? And how much do the features matter that outputs share?
#
# Run it with `python examples/reward_errors.py`; it takes a few seconds, prints its results and ends with an error if
# what it says does not hold. `reproductions/rewards_errors.py` adds sampled updates.

# %%
from __future__ import annotations

import math

import numpy as np

from rankdiag.rewards import categorize_errors, gradient_alignment, simulate_policy_gradient

TRUTH = [1.0, 0.8, -1.0, -1.0, -1.0]
PROXY = [1.0, -1.0, -1.0, -1.0, -1.0]  # wrong about the second best
STEPS = 50_000


def start_with(best: float) -> list[float]:
    return [best, 0.5, *[(0.5 - best) / 3] * 3]


# %% How long until the true reward is 0.95? Steps of exact gradient ascent at 0.1, and time of the flow
def times(start: list[float], reward: list[float], features: list[list[float]] | None = None) -> tuple[float, float]:
    watch, stop = {"truth": TRUTH}, ("truth", 0.95)
    steps = simulate_policy_gradient(
        start, reward, watch, features=features, method="gd", lr=0.1, steps=STEPS, stop=stop, record=[0]
    )
    flow = simulate_policy_gradient(start, reward, watch, features=features, horizon=1e6, stop=stop)
    return float(steps.hitting_time), float(flow.hitting_time)


def the_beneficial_error() -> None:
    print("Time until the true reward is 0.95, from a policy that gives the best output with p and the second with 0.5")
    print("    p        truth: steps, flow         proxy: steps, flow    alignment at the start")
    for best in (0.05, 0.10, 0.15):
        start = start_with(best)
        (slow, slow_flow), (fast, fast_flow) = times(start, TRUTH), times(start, PROXY)
        cosine = gradient_alignment(start, PROXY, TRUTH).cosine
        print(f"{best:5.2f} {slow:14.0f} {slow_flow:11.1f} {fast:17.0f} {fast_flow:9.2f} {cosine:15.3f}")
        assert fast < 0.2 * slow
        assert fast_flow < 0.2 * slow_flow
        assert cosine < 0.01
    print(
        "The alignment is the cosine between the gradients of both. Where it is negative, the first step on the proxy"
    )
    print("lowers the true reward, and the proxy is the faster teacher all the same.")


# %% One error at a time: its category, what the first derivative says, what the flow does
def the_categories() -> None:
    start = [0.05, 0.5, 0.2, 0.2495, 0.0005]
    errors = {
        "second best called bad": (1, -1.0),
        "bad one called best": (2, 1.0),
        "bad one called middling": (2, 0.5),
        "bad one called less bad": (2, -0.5),
        "improbable one called best": (4, 1.0),
        "best one called bad": (0, -0.5),
    }
    derivative, gained = {}, {}  # by category
    print("\nOne error at a time, from p =", start)
    print("                                                          mean true reward gained up to")
    print("error                        category        derivative    t = 1000    t = 100000")
    for name, (output, value) in errors.items():
        proxy = list(TRUTH)
        proxy[output] = value
        effects = []
        for horizon in (1e3, 1e5):  # `effect` is an integral over time
            (record,) = categorize_errors(start, proxy, TRUTH, verify="flow", horizon=horizon)
            effects.append(record.effect / horizon)
        derivative[record.category], gained[record.category] = record.attribution, effects
        print(f"{name:28s} {record.category:15s} {record.attribution:+9.4f} {effects[0]:+12.4f} {effects[1]:+13.4f}")
    assert list(gained) == ["beneficial_I", "harmful_I", "harmful_II", "benign_I", "benign_II", "harmful_missed"]
    assert derivative["beneficial_I"] < 0 < min(gained["beneficial_I"])
    assert max(gained["harmful_I"]) < -1
    assert max(abs(x) for kind in ("benign_I", "benign_II") for x in gained[kind]) < 0.005
    assert gained["harmful_missed"][1] < -0.1 < -0.01 < gained["harmful_missed"][0]
    print("The derivative is myopic: it counts the helpful error as a loss, and the missed best output as none. The")
    print(
        "category is a rule about the start. What an error costs depends on how long is trained: a missed best output"
    )
    print("costs nothing while the truth stalls, too, at the second best.")


# %% Outputs that share features move together
def the_similarity() -> None:
    half = math.sqrt(0.5)
    print("\nThe true reward again, p = 0.05, features of the best output (1.5, 0): steps, and flow")
    reached = {}
    for name, second in {"alike": (half, half), "orthogonal": (0.0, 1.0), "opposed": (-half, half)}.items():
        features = np.eye(5)
        features[0, 0], features[1, :2] = 1.5, second
        reached[name] = times(start_with(0.05), TRUTH, features.tolist())
        print(f"second best {name:11s} {reached[name][0]:10.0f} {reached[name][1]:12.1f}")
    assert reached["alike"][0] < reached["orthogonal"][0] < reached["opposed"][0] == math.inf
    print("holds: whether a mediocre output delays the best one depends on what the two share.")


if __name__ == "__main__":
    the_beneficial_error()
    the_categories()
    the_similarity()

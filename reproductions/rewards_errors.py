"""Errors of a reward that help: the five-output instances with exact steps, the exact flow, and sampled steps.

``python reproductions/rewards_errors.py [--seeds 20] [--steps 50000]`` prints what is stated beside what came out. The
nine published instances are read from ``loglinear_bandit_instances.json`` where RANKDIAG_DATA or shared/data has it.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from rankdiag.rewards import simulate_policy_gradient

GOLD, PROXY = [1.0, 0.8, -1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0, -1.0]
STATED = {
    (0.05, "gold"): ("inf", "33577", 0.20),
    (0.05, "proxy"): ("232", "23.13", 1.0),
    (0.10, "gold"): ("10815", "1089.4", 0.60),
    (0.10, "proxy"): ("183", "18.31", 1.0),
    (0.15, "gold"): ("1522", "152.55", 0.95),
    (0.15, "proxy"): ("162", "16.24", 1.0),
}
STATED_FILE = ("inf", "10815", "1522", "232", "183", "162", "inf", "19239", "629")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50_000)
    options = parser.parse_args()
    watch = {"rewards": {"gold": GOLD}, "stop": ("gold", 0.95)}
    print("e      reward  steps to V_G >= .95 (stated)   flow time (stated)     share of seeds, pi(y*) > .9 (stated)")
    for (e, name), (steps, time, share) in STATED.items():
        start, reward = [e, 0.5, *[(0.5 - e) / 3] * 3], GOLD if name == "gold" else PROXY
        exact = simulate_policy_gradient(
            start, reward, watch["rewards"], method="gd", steps=options.steps, stop=watch["stop"]
        )
        flow = simulate_policy_gradient(start, reward, watch["rewards"], horizon=1e6, stop=watch["stop"])
        many = np.tile(start, (options.seeds, 1))
        sampled = simulate_policy_gradient(many, reward, method="reinforce", steps=options.steps, rng=0)
        found = float((sampled.probs[-1, :, 0] > 0.9).mean())
        print(
            f"{e:.2f}   {name:6s}  {exact.hitting_time:8g} ({steps:>5s})   {flow.hitting_time:12.4f} ({time:>6s})   "
            f"{found:.2f} ({share:.2f})   V_G at the end {exact.values['gold'][-1]:.4f}"
        )
    root = os.environ.get("RANKDIAG_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[1].parent / "shared" / "data"
    path = folder / "rewards" / "loglinear_bandit_instances.json"
    if not path.is_file():
        print(f"the published instances are not here ({path.name}); set RANKDIAG_DATA")
        return
    for case, stated in zip(json.loads(path.read_text(encoding="utf-8")), STATED_FILE, strict=True):
        gold = {"gold": case["ground_truth_reward"]}
        run = simulate_policy_gradient(
            case["initial_probs"], case["train_reward"], gold, features=case["features"], method="gd",
            lr=case["learning_rate"], steps=case["steps"], stop=("gold", 0.95),
        )  # fmt: skip
        end = run.values["gold"][-1]
        print(f"{case['name']:32s} {run.hitting_time:8g} (stated {stated:>5s})   V_G at the end {end:.4f}")


if __name__ == "__main__":
    main()

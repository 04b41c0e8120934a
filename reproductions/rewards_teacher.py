"""Reward models as teachers: a perfectly accurate one that is slow, an inaccurate one that is fast.

``python reproductions/rewards_teacher.py [--seeds 3]`` prints what is stated beside what came out.
"""

from __future__ import annotations

import argparse

import numpy as np

from rankdiag.rewards import simulate_policy_gradient

FLOWS = {0: (70.1, 701, 7014, 70140, 159.3, 32.5), 1: (33.1, None, None, None, 140.2, None),
         2: (50.0, None, None, None, 884.7, None)}  # fmt: skip
GAINS = {"gold": (0.906, 0.858, 0.919), "half of the prompts scaled": (0.498, 0.466, 0.502),
         "noise 0.25": (0.854, 0.817, 0.899), "noise 0.5": (0.760, 0.715, 0.737),
         "noise 1": (0.560, 0.525, 0.556)}  # fmt: skip


def one_prompt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(50)
    gold = np.sort(rng.uniform(-1, 1, 50))[::-1][rng.permutation(50)]
    start = np.exp(logits - logits.max())
    start /= start.sum()
    rank = gold.argsort().argsort()
    best = gold.argmax()
    inaccurate = (50 - rank) / 51 * start[best]
    inaccurate[best] = 1.0
    level = float(start @ gold) + 0.3
    rewards = {f"b, T={scale}": (rank + 1) / (51 * scale) for scale in (1, 10, 100, 1000)}
    rewards.update({"c": inaccurate, "r_G": gold})
    for (name, reward), stated in zip(rewards.items(), FLOWS.get(seed, (None,) * 6), strict=True):
        run = simulate_policy_gradient(start, reward, {"gold": gold}, horizon=1e7, stop=("gold", level))
        print(f"  seed {seed}  {name:10s} time {run.hitting_time:12.4f}   stated {stated}")


def many_prompts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((200, 20))
    gold = 0.7 * rng.standard_normal((200, 1)) + 0.7 * rng.standard_normal((200, 20))
    start = np.exp(logits)
    start /= start.sum(axis=1, keepdims=True)
    drawn = np.stack([rng.choice(20, size=10, p=row) for row in start])
    half = gold.copy()
    half[:100] *= 0.001
    rewards = {"gold": gold, "half of the prompts scaled": half}
    for noise in (0.25, 0.5, 1):
        rewards[f"noise {noise}"] = gold + noise * rng.standard_normal(gold.shape)
    unit = np.take_along_axis(gold, drawn, axis=1).std(ddof=1)
    for name, reward in rewards.items():
        seen = np.take_along_axis(reward, drawn, axis=1)
        scaled = (reward - seen.mean()) / seen.std(ddof=1)
        run = simulate_policy_gradient(start, scaled, {"gold": gold}, method="gd", lr=1.0, steps=30, record=[0, 30])
        gain = float((run.values["gold"][-1] - run.values["gold"][0]).mean() / unit)
        stated = GAINS[name][seed] if seed < 3 else None
        print(f"  seed {seed}  {name:28s} gain {gain:.3f}   stated {stated}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("R2: flow time until the true reward rises by 0.3, 50 outputs")
    for seed in range(options.seeds):
        one_prompt(seed)
    print("R3: gain in the true reward after 30 steps, 200 prompts x 20 outputs; the order of draws is not stated")
    for seed in range(options.seeds):
        many_prompts(seed)


if __name__ == "__main__":
    main()

"""How the cost of the rewards room grows: CPU seconds and peak memory for ten and a hundred times the work.

``OMP_NUM_THREADS=1 python benchmarks/rewards_slopes.py`` prints, for each measurement, three sizes and the exponent e
of ``seconds ~ size^e`` between neighbours (least seconds of three rounds). Memory is what Python and numpy allocated
(tracemalloc) beyond the data; for measurements that run torch it is left out, see ``rewards_memory.py``.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import bench_rewards_flow as flow
import bench_rewards_models as models
import bench_rewards_pairs as pairs
import bench_rewards_prompts as prompts
import bench_rewards_transfer as transfer
import numpy as np
import torch

from rankdiag.language_models import encode, sequence_log_probs
from rankdiag.monitors import RewardStdMetric
from rankdiag.rewards import SequentialStd, simulate_policy_gradient, summarize, zero_std_at_k

MIB = 1 << 20
Work = Callable[[], Any]


def table(n: int) -> Work:
    rewards = np.random.default_rng(0).random((n, 8))
    return lambda: summarize(rewards)


def metric(n: int) -> Work:
    batches = prompts.stream(n)

    def work() -> None:
        made = RewardStdMetric()
        for rewards, keys in batches:
            made.update(torch.from_numpy(rewards), torch.from_numpy(keys))
        made.compute()

    return work


def shares(n: int) -> Work:
    rows = prompts.verdicts(n, 16)
    return lambda: zero_std_at_k(rows, 8)


def many_prompts(n: int) -> Work:
    made = pairs.table(n, 16)
    return lambda: pairs.ours(*made)


def many_rollouts(k: int) -> Work:
    made = pairs.table(1, k)
    return lambda: pairs.ours(*made)


def steps(n: int) -> Work:
    return lambda: flow.gd(n)


def horizon(n: int) -> Work:
    """A longer flow of the same five outputs."""
    return lambda: simulate_policy_gradient(flow.START, flow.GOLD, horizon=float(n))


def looks(n: int) -> Work:
    rewards = np.random.default_rng(0).random(n)

    def work() -> None:
        rule = SequentialStd(0.29, reward_range=(0.0, 1.0), max_rollouts=n, method="maurer_pontil")
        for start in range(0, n, 8):
            rule.update(rewards[start : start + 8])

    return work


def responses(n: int) -> Work:
    """More training pairs against eight responses."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(2000, 64)) / 8.0
    chosen, rejected = (transfer.responses(rng, n, 8, 2000, 64) for _ in range(2))
    watched = transfer.responses(rng, 8, 8, 2000, 64)
    return lambda: transfer.reward_transfer(chosen, rejected, watched, kind="im", unembedding=words)


def tokens(n: int) -> Work:
    """More prompts of 24 tokens with four responses of 16."""
    model = models.small(2000, 64, 2)
    data = encode(models.draw(2000, n, 24, 4, 16, 16), kind="responses")
    return lambda: sequence_log_probs(model, data)


MEASUREMENTS: dict[str, tuple[Callable[[int], Work], tuple[int, int, int], bool]] = {
    "summarize, prompts of 8 rollouts": (table, (10_000, 100_000, 1_000_000), True),
    "RewardStdMetric, prompts of 8 rollouts in random order": (metric, (10_000, 100_000, 1_000_000), False),
    "zero_std_at_k, prompts of 16 rollouts": (shares, (10_000, 100_000, 1_000_000), True),
    "four accuracies, prompts of 16 rollouts": (many_prompts, (1_000, 10_000, 100_000), True),
    "four accuracies, rollouts of one prompt": (many_rollouts, (1_000, 10_000, 100_000), True),
    "gradient steps on five outputs": (steps, (500, 5_000, 50_000), True),
    "flow of five outputs, horizon": (horizon, (1_000, 10_000, 100_000), True),
    "SequentialStd, rewards of one prompt in eights": (looks, (1_024, 10_240, 102_400), True),
    "reward_transfer, training pairs of 8 tokens": (responses, (8, 80, 800), True),
    "log-probabilities, prompts with four responses": (tokens, (4, 40, 400), False),
}


def main() -> None:
    torch.set_num_threads(1)
    for name, (make, sizes, counted) in MEASUREMENTS.items():
        print(name)
        before = math.nan
        for size in sizes:
            work, rounds = make(size), []
            for _ in range(3):
                begun = time.process_time()
                work()
                rounds.append(time.process_time() - begun)
            peak = math.nan
            if counted:
                tracemalloc.start()
                work()
                peak = tracemalloc.get_traced_memory()[1] / MIB
                tracemalloc.stop()
            slope = "" if math.isnan(before) else f"e = {math.log10(min(rounds) / before):.2f}"
            memory = f"peak {peak:8.2f} MiB" if counted else ""
            print(f"  {size:9d}  {min(rounds):9.4f} s  {slope:9s}  {memory}", flush=True)
            before = min(rounds)


if __name__ == "__main__":
    main()

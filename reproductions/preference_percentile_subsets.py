"""Whether training on pairs of low or of high score moves ln pi(chosen) as the score says: the percentile experiment.

``python reproductions/preference_percentile_subsets.py [--seed 0] [--steps 300]`` trains the small model, takes the 48
pairs around each of five percentiles of every score, runs one epoch of DPO on them (RMSProp, learning rate 2e-5,
batches of 8, beta 0.1) and prints the mean change of ln pi(chosen) over those pairs.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from preference_model import dpo_loss, records, short_pairs, subset, tokenizer_of, trained_model
from scipy.stats import spearmanr

from rankdiag.preference import displacement_report, quantile_window, score_preferences, sequence_log_probs

PERCENTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=2e-5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = records()
    tokenizer = tokenizer_of(rows)
    model, loss = trained_model(rows, tokenizer, seed=options.seed, steps=options.steps)
    everything = short_pairs(rows, tokenizer)
    data = subset(everything, [i for i, status in enumerate(everything.status) if status == "ok"])
    print(f"seed {options.seed}: {options.steps} steps, loss {loss:.2f}; {len(data)} usable pairs")
    names = ("ches", "ln_ches", "edit_similarity", "last_state_inner")
    scores = score_preferences(model, data, columns=names, head_score=True)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    print(f"mean change of ln pi(chosen), in nats, and (fraction displaced), at percentiles {PERCENTILES}")
    for name in ("ches", "ln_ches", "head", "edit_similarity", "last_state_inner"):
        means, cells = [], []
        for q in PERCENTILES:
            part = subset(data, quantile_window(scores, q, 48, by=name))
            before = sequence_log_probs(model, part)
            train(model, part, before, lr=options.lr, seed=options.seed)
            report = displacement_report(before, sequence_log_probs(model, part), beta=0.1)
            means.append(report.mean_delta_chosen)
            cells.append(f"{report.mean_delta_chosen:6.2f} ({report.displaced_fraction:.2f})")
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), start, strict=True):
                    parameter.copy_(value)
        print(f"  {name:18s} {'  '.join(cells)}   Spearman {spearmanr(PERCENTILES, means).statistic:5.2f}")


def train(model: torch.nn.Module, part: object, before: object, *, lr: float, seed: int) -> None:
    reference = torch.tensor(before.chosen), torch.tensor(before.rejected)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=lr)
    order = np.random.default_rng(seed).permutation(len(part))
    for first in range(0, len(part), 8):
        loss = dpo_loss(model, part, order[first : first + 8].tolist(), reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()


if __name__ == "__main__":
    main()

"""How well each level of the displacement score predicts what one step does: on one pair alone, and on all at once.

``python reproductions/preference_per_pair_step.py [--seed 0] [--steps 300] [--pairs 150]`` trains the small model,
scores the pairs at every level, then takes (a) one SGD step of the DPO loss on each pair by itself and (b) one on all
pairs together, and prints the rank correlation of every score with the change of ln pi(chosen), and how often its sign
is right.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from preference_model import dpo_loss, records, short_pairs, subset, tokenizer_of, trained_model
from scipy.stats import spearmanr

from rankdiag.language_models import StateSums, plan, run
from rankdiag.preference import (
    dataset_pressure,
    displacement_score,
    head_pressure,
    logprob_change_along,
    score_preferences,
    sequence_log_probs,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--lr", type=float, default=0.002)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = records()
    tokenizer = tokenizer_of(rows)
    model, loss = trained_model(rows, tokenizer, seed=options.seed, steps=options.steps)
    print(f"seed {options.seed}: {options.steps} steps, loss {loss:.2f}")

    everything = short_pairs(rows, tokenizer)
    usable = [i for i, status in enumerate(everything.status) if status == "ok"]
    chosen = np.sort(np.random.default_rng(options.seed).permutation(usable)[: options.pairs])
    data = subset(everything, chosen)
    print(f"{len(usable)} of {len(everything)} pairs usable, {len(data)} taken")

    columns = ("ches", "ln_ches", "edit_similarity", "last_state_inner")
    plain = score_preferences(model, data, columns=columns)
    scores = {name: plain.scores[name] for name in columns}
    for level in ("head", "ufm", "full"):
        scores[level] = displacement_score(model, data, level=level).score

    before = sequence_log_probs(model, data)
    reference = torch.tensor(before.chosen), torch.tensor(before.rejected)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    change = np.zeros(len(data))
    for i in range(len(data)):
        step(model, dpo_loss(model, data, [i], reference), options.lr)
        change[i] = sequence_log_probs(model, subset(data, [i])).chosen[0] - before.chosen[i]
        restore(model, start)
    displaced = f"{np.mean(change < 0):.0%} of the pairs displaced"
    print(f"\none SGD step on each pair alone (lr {options.lr}, beta 0.1): {displaced}")
    table(scores, change)

    loss_all = dpo_loss(model, data, list(range(len(data))), reference)
    gradient = torch.autograd.grad(loss_all, list(model.parameters()))
    update = {name: -options.lr * part for (name, _), part in zip(model.named_parameters(), gradient, strict=True)}
    sums = state_sums(model, data)
    weights = np.full(len(data), 0.05)  # the DPO weight where policy and reference agree: beta / 2
    scores["ches pressure"] = dataset_pressure(*sums, weights=weights).pressure
    scores["head pressure"] = head_pressure(model, data, weights=weights).pressure
    scores["step (the given update)"] = -logprob_change_along(model, data, update).chosen
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += update[name]
    change = sequence_log_probs(model, data).chosen - before.chosen
    restore(model, start)
    print(f"\none SGD step on all {len(data)} pairs at once: {np.mean(change < 0):.0%} of the pairs displaced")
    table(scores, change)


def state_sums(model: torch.nn.Module, data: object) -> tuple[np.ndarray, np.ndarray]:
    made = plan(data, model, [StateSums()])
    chosen = rejected = None
    for part in run(model, made, [StateSums()]):
        if chosen is None:
            chosen, rejected = np.zeros((2, len(data), part["sum"].shape[1]))
        chosen[part.group[0::2]], rejected[part.group[0::2]] = part["sum"][0::2], part["sum"][1::2]
    return chosen, rejected


def step(model: torch.nn.Module, loss: torch.Tensor, lr: float) -> None:
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), gradient, strict=True):
            parameter -= lr * part


def restore(model: torch.nn.Module, start: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.copy_(value)


def table(scores: dict[str, np.ndarray], change: np.ndarray) -> None:
    signed = {"ches", "ln_ches", "head", "ufm", "full", "ches pressure", "head pressure", "step (the given update)"}
    for name, values in scores.items():
        rank = spearmanr(values, change).statistic
        right = f"{np.mean((values > 0) == (change < 0)):.2f}" if name in signed else "-"
        print(f"  {name:26s} Spearman {rank:6.3f}   sign right {right}")


if __name__ == "__main__":
    main()

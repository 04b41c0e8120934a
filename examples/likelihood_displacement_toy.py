# %% [markdown]
# # Training a model to say "No" makes it say "Yes"
#
# Preference training on "No rather than Never" should make "No" likelier. In this toy of six tokens the loss falls at
# every step, and the probability of "No" falls with it, from 63 % to 1 %: the mass goes to "Yes". That is likelihood
# displacement (Razin et al. 2024, arXiv:2410.08847), and the first derivative tells it before any step is made.
#
# With "No rather than Yes" the forecast is a rise, and the first steps keep it; after fifteen "Never" is ahead. A
# first derivative speaks of the start alone. The second half asks how far it reaches: 300 random models for each of
# three seeds, 100 steps each.
#
# Run it with `python examples/likelihood_displacement_toy.py`; it takes a few seconds and prints its results.

# %%
from __future__ import annotations

import numpy as np

from rankdiag.preference import simulate_single_token, single_token_dynamics, unembedding_geometry

TOKENS = ["Yes", "Sure", "Maybe", "No", "Never", "other"]
W = np.array([[3.0, 0.0], [3.3, 0.9], [0.3, -0.3], [-3.0, 0.0], [-7.5, 6.0], [0.0, 0.0]])
h = np.array([-0.5, -0.9])
BETA, LR = 0.1, 0.2


# %% Six tokens: the forecast at the start, then what happens
def show(chosen: str, rejected: str) -> None:
    pair = TOKENS.index(chosen), TOKENS.index(rejected)
    forecast = single_token_dynamics(W, h, *pair, weight=BETA / 2)  # the weight of DPO at its reference
    geometry = unembedding_geometry(W, *pair)
    print(f"\n## {chosen} rather than {rejected}")
    print(f"m = {forecast.m:.5f}, S = {forecast.S:.5f}, m + S = {forecast.m + forecast.S:.5f}")
    way = "fall" if forecast.rate_chosen < 0 else "rise"
    print(f"forecast: {chosen} starts to {way}, d ln p / dt = {forecast.rate_chosen:.6f}")
    print(f"<W+, W-> = {geometry.inner:g}, part of W+ - W- across W+ dominates: {geometry.orthogonal_dominates}")
    gaining = [TOKENS[z] for z in forecast.top_gaining(3, by="logp")]
    print(f"gain most at the start, in log-probability: {', '.join(gaining)}")
    run = simulate_single_token(W, h, *pair, lr=LR, steps=100, loss="dpo", beta=BETA)
    print("step   loss   " + "".join(f"{token:>8}" for token in TOKENS))
    for step in (0, 1, 10, 30, 100):
        print(f"{step:4d}  {run.loss[step]:.4f}  " + "".join(f"{p:8.4f}" for p in run.probs[step]))
    way = "falls" if run.logp[1, pair[0]] < run.logp[0, pair[0]] else "rises"
    print(f"{chosen} {way} in the first step and is {run.change_chosen:+.2f} nats after 100", end="; ")
    print(f"loss falls at every step: {bool((np.diff(run.loss) < 0).all())}")


show("No", "Never")
show("No", "Yes")


# %% Three hundred random models: how far does the first derivative reach?
def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def experiment(seed: int, draws: int = 300, vocabulary: int = 30, width: int = 8) -> None:
    rng = np.random.default_rng(seed)
    forecast, similarity, inner = np.empty((3, draws))  # m + S, the two terms of S by sign, <W+, W->
    first, last, strength = np.empty((3, draws))
    for i in range(draws):
        strength[i] = c = rng.integers(1, 4)  # rows of W grow, the hidden state shrinks
        matrix = 2 * c * rng.normal(size=(vocabulary, width)) / np.sqrt(width)
        state = rng.normal(size=width) / c
        chosen, rejected = rng.choice(vocabulary, 2, replace=False)
        start = single_token_dynamics(matrix, state, chosen, rejected, weight=BETA / 2)
        forecast[i], inner[i] = start.m + start.S, start.unembedding_inner
        similarity[i] = -(start.unembedding_inner + start.other_alignment)
        run = simulate_single_token(matrix, state, chosen, rejected, lr=0.02, steps=100, loss="dpo", beta=BETA)
        first[i], last[i] = run.logp[[1, 100], chosen] - run.logp[0, chosen]
    agree = [float((np.sign(forecast) == np.sign(change)).mean()) for change in (first, last)]
    displaced = [float((last[strength == c] < 0).mean()) for c in (1, 2, 3)]
    print(f"\n## Seed {seed}: {draws} random models of {vocabulary} tokens")
    print(f"sign of m + S tells the first step in {agree[0]:.1%}, step 100 in {agree[1]:.1%}")
    print(f"rank correlation of m + S with the change: step 1 {spearman(forecast, first):.2f}", end="")
    print(f", step 100 {spearman(forecast, last):.2f}")
    print(f"... of the two similarity terms alone, step 100: {spearman(similarity, last):.2f}", end="")
    print(f"; of -<W+, W-> alone: {spearman(-inner, last):.2f}")
    print("displaced after 100 steps at scale 1, 2, 3: " + ", ".join(f"{share:.1%}" for share in displaced))


for seed in range(3):
    experiment(seed)

# %% [markdown]
# # The same images, the same network, and a graph that lets them meet
#
# Two handwritten digits: do they show the same class? Each is cut into 16 chunks of 4 pixels, and the 32 chunks stand
# at the vertices of two cliques joined by a single edge. Once each digit has a clique of its own ("low"), once both are
# spread over both cliques ("high"). The network, the pairs and the graph are the same; only who stands where differs.
#
# The walk index of the vertices of the first digit counts the walks that start where the two digits meet: at depth 3
# it is 548 in the first layout and 8258 in the second. A graph network can relate two groups of vertices only as far as
# walks connect them, and whether two images are of one class is nothing but a relation between them. So the layout with
# the larger walk index is fitted better, in training and on digits that were never seen (Razin et al. 2023,
# arXiv:2211.16494, table 1).
#
# Run it with `python examples/graph_same_class.py`; it takes about ten seconds, prints its results and ends with an
# error if what it says does not hold. `reproductions/graphs_same_class.py` repeats it in a larger size.

# %%
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from rankdiag.graphs import make_same_class_task, same_class_graph, same_class_layout, walk_index, walk_index_share

PATCHES = 16


# %% A graph convolutional network over 32 vertices, as dense matrices
def normalised_adjacency() -> torch.Tensor:
    source, target = same_class_graph(PATCHES)
    matrix = np.eye(2 * PATCHES)
    matrix[source, target] = 1.0
    root = matrix.sum(axis=0) ** -0.5
    return torch.tensor(matrix * root[:, None] * root, dtype=torch.float32)


class GCN(nn.Module):
    def __init__(self, features: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [features] + [width] * depth
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, 1)
        for linear in self.linear:  # as graph convolutions are used to start; torch's own start fits this task worse
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        self.register_buffer("adjacency", normalised_adjacency())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for linear, norm in zip(self.linear, self.norm, strict=True):
            x = norm(torch.relu(linear(self.adjacency @ x)))
        return self.head(x.mean(dim=1)).squeeze(1)


# %% One layout: train on pairs of some digits, test on pairs of others
@dataclass
class Scores:
    train: float
    test: float


def experiment(layout: str, seed: int, *, pairs: tuple[int, int], epochs: int, lr: float) -> Scores:
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.data))
    parts = np.split(order, [int(0.8 * len(order))])
    tensors = []
    for part, count, rng in zip(parts, pairs, (seed, seed + 1000), strict=True):
        images, labels = digits.data[part] / 16, digits.target[part]
        x, y = make_same_class_task(images, labels, count, patches=PATCHES, layout=layout, rng=rng)
        tensors.append((torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)))
    (x, y), (x_test, y_test) = tensors
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GCN(x.shape[2], width=16, depth=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return Scores(*(float(((model(a) > 0) == (b > 0.5)).float().mean()) for a, b in ((x, y), (x_test, y_test))))


def show_walks() -> None:
    for layout in ("low", "high"):
        first = same_class_layout(PATCHES, layout)[:, 0] == 0
        counts = [walk_index(same_class_graph(PATCHES), first, depth) for depth in (1, 2, 3)]
        share = walk_index_share(same_class_graph(PATCHES), first, 3)
        print(f"{layout:5s} walk index at depth 1, 2, 3: {counts}; at depth 3 {share:.1%} of all walks")


# %% Both layouts
def main() -> None:
    torch.set_num_threads(1)
    show_walks()
    scores = {}
    for layout in ("low", "high"):
        scores[layout] = experiment(layout, 0, pairs=(1000, 500), epochs=250, lr=0.01)
        print(f"{layout:5s} train {scores[layout].train:.3f}, test {scores[layout].test:.3f}")
    assert scores["high"].train > scores["low"].train
    assert scores["high"].test > scores["low"].test + 0.05
    print("holds: the layout whose digits meet along more walks is fitted better, and carries over to new digits.")


if __name__ == "__main__":
    main()

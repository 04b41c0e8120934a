# %% [markdown]
# # Which edges a graph network can do without
#
# The 1797 digits of scikit-learn stand at the vertices of a graph, each joined to the four others that look most like
# it. A graph network reads the pixels, spoiled by noise, and names the digit; what it cannot see in an image, it can
# ask of the neighbours. How many of the edges are needed for that?
#
# Edges go in three orders: at random, and by walk index sparsification of depth 2 and 3 (1-WIS and 2-WIS: Razin et al.
# 2023, arXiv:2211.16494), which look at nothing but the graph. Each removes the edge whose absence costs single
# vertices least interaction with the rest. One run of `wis_order` gives all levels of sparsity. Random removal leaves
# some vertices alone long before half of the edges are gone; 1-WIS strips the crowded places first.
#
# Run it with `python examples/graph_sparsification.py`; it takes about ten seconds, prints its results and ends
# with an error if what it says does not hold. `reproductions/graphs_sparsification.py` does the same on Cora.

# %%
from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import nn

from rankdiag.graphs import as_edge_list, random_order, wis_order

REMOVED = (0.5, 0.7)


# %% The graph, and a network over what is left of it
def digits_graph(neighbours: int = 4, noise: float = 2.0, seed: int = 0):
    digits = load_digits()
    joined = kneighbors_graph(digits.data, neighbours)
    joined = csr_array(((joined + joined.T) > 0).astype(float))
    pixels = (digits.data - digits.data.mean()) / digits.data.std()
    pixels = pixels + noise * np.random.default_rng(seed).normal(size=pixels.shape)
    return as_edge_list(joined), torch.tensor(pixels, dtype=torch.float32), torch.tensor(digits.target)


def convolution(edges: np.ndarray, n: int) -> torch.Tensor:
    """The normalised adjacency with self-loops of the undirected edges that are left, sparse."""
    loops = np.arange(n)
    source = np.concatenate((edges[:, 0], edges[:, 1], loops))
    target = np.concatenate((edges[:, 1], edges[:, 0], loops))
    root = np.bincount(target, minlength=n) ** -0.5
    values = torch.tensor(root[source] * root[target], dtype=torch.float32)
    matrix = torch.sparse_coo_tensor(torch.tensor(np.stack((target, source))), values, (n, n), check_invariants=True)
    return matrix.coalesce()


class GCN(nn.Module):
    def __init__(self, features: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        sizes = [features] + [width] * depth
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        for linear, norm in zip(self.linear, self.norm, strict=True):
            own = torch.sparse.mm(x, linear.weight.T) + linear.bias if x.is_sparse else linear(x)
            x = norm(torch.relu(torch.sparse.mm(adjacency, own)))
        return self.head(x)


def split(n: int, seed: int) -> list[np.ndarray]:
    """80% to train on, 10% to choose the epoch, 10% to test."""
    return np.split(np.random.default_rng(seed).permutation(n), [int(0.8 * n), int(0.9 * n)])


def accuracy(features, labels, edges, parts, *, seed: int, width: int, epochs: int, lr: float, decay: float) -> float:
    """Test accuracy at the epoch that is best on the second part."""
    train, choose, test = (torch.tensor(part) for part in parts)
    adjacency = convolution(edges, len(labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GCN(features.shape[1], width, depth=3, classes=int(labels.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=decay)
    best, found = -1.0, 0.0
    for _ in range(epochs):
        optimizer.zero_grad()
        logits = model(features, adjacency)
        with torch.no_grad():  # of the weights before this step
            right = (logits.argmax(dim=1) == labels).double()
            if float(right[choose].mean()) > best:
                best, found = float(right[choose].mean()), float(right[test].mean())
        nn.functional.cross_entropy(logits[train], labels[train]).backward()
        optimizer.step()
    return found


def orders(graph, seed: int) -> dict[str, np.ndarray]:
    """Edge ids in removal order; only the random one depends on the seed."""
    return {
        "random": random_order(graph, rng=seed),
        "1-WIS": wis_order(graph, depth=2).edge_ids,
        "2-WIS": wis_order(graph, depth=3).edge_ids,
    }


# %% The table
SETTINGS = {"width": 32, "epochs": 60, "lr": 0.02, "decay": 1e-3}


def main() -> None:
    torch.set_num_threads(1)
    graph, pixels, labels = digits_graph()
    n, total = graph.num_nodes, graph.num_edges
    print(f"{n} vertices, {total} edges. Test accuracy, mean of three splits, and vertices without a neighbour")
    full, found = [], {}
    for seed in range(3):
        parts = split(n, seed)
        full.append(accuracy(pixels, labels, graph.edges, parts, seed=seed, **SETTINGS))
        for name, order in orders(graph, seed).items():
            for share in REMOVED:
                kept = graph.edges[order[int(share * total) :]]
                score = accuracy(pixels, labels, kept, parts, seed=seed, **SETTINGS)
                found.setdefault((name, share), []).append((score, n - len(np.unique(kept))))
    table = {key: np.mean(rows, axis=0) for key, rows in found.items()}
    print(f"all edges {np.mean(full):9.3f}")
    print("removed  " + "".join(f"{share:>16.0%}" for share in REMOVED))
    for name in ("random", "1-WIS", "2-WIS"):
        print(f"{name:9s}" + "".join("{:10.3f} {:5.0f}".format(*table[name, share]) for share in REMOVED))
    assert table["1-WIS", 0.5][0] > np.mean(full) - 0.03
    for name in ("1-WIS", "2-WIS"):
        assert table[name, 0.5][0] > table["random", 0.5][0] + 0.015
        assert table[name, 0.7][0] > table["random", 0.7][0] + 0.03
    print("holds: half of the edges can go almost for nothing if they are chosen by walks, and not if by chance.")


if __name__ == "__main__":
    main()

"""What edges a trained mask removes (UGS, arXiv 2102.06790, on edges alone as in arXiv 2211.16494), beside 1-WIS.

``python reproductions/graphs_ugs.py [--splits 1] [--epochs 100]`` prints test accuracy on Cora with 30 to 90% of the
edges removed: at random, by 1-WIS, and by UGS, whose mask is trained on the same split. One weight for each undirected
edge, at first 1 and noise of 1e-5, scales both directions; degrees count its absolute value, self-loops keep weight 1.
The loss has 0.01 times the sum of absolute weights added. After training, `ugs_prune_step` removes 5% of the original
edges by the mask of the epoch that is best on the validation part, the network goes back to its first weights and the
mask to 1 and noise, and so on, 18 rounds down to 10%. The network that trains the mask is the one that is tested: GCN
of depth 3 and width 64, Adam at 0.005, weight decay 0.001 (none on the mask), 100 epochs a round where the published
runs stop early.

Every order is then judged alike, by a network of its own trained on what is left, as in
``reproductions/graphs_sparsification.py``, whose data this reads. Unlike the other two, UGS looks at features and
labels, and trains 18 networks for one order. About 45 CPU seconds a split.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

import numpy as np
import torch
from graphs_sparsification import cora, read
from torch import nn

from rankdiag.graphs import random_order, ugs_prune_step, wis_order

LEVELS = (0.3, 0.5, 0.7, 0.9)
STEP, PENALTY, NOISE = 0.05, 0.01, 1e-5
SETTINGS = {"width": 64, "epochs": 120, "lr": 5e-3, "decay": 1e-3}
STATED = """published, read off the plot, removed 50 / 70 / 90%: random .806 / .770 / .723, UGS .812 / .787 / .734,
  1-WIS .849 / .818 / .774"""


class Spread(torch.autograd.Function):
    """The product of a symmetric sparse matrix and `h`, with a gradient for the entries that are there."""

    @staticmethod
    def forward(ctx, h, entries, place):
        ctx.save_for_backward(h, entries, place)
        return product(place, entries, h)

    @staticmethod
    def backward(ctx, grad):
        h, entries, place = ctx.saved_tensors
        return product(place, entries, grad), torch.linalg.vecdot(grad[place[0]], h[place[1]]), None


def product(place: torch.Tensor, entries: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    shape = (len(h), len(h))
    matrix = torch.sparse_coo_tensor(place, entries, shape, is_coalesced=True, check_invariants=False)
    return torch.sparse.mm(matrix, h)


def entries_of(edges: np.ndarray, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of the entries of the adjacency with loops, in order, and the edge of each; loops are the last."""
    loops = np.arange(n)
    row, column = np.concatenate((edges[:, 0], edges[:, 1], loops)), np.concatenate((edges[:, 1], edges[:, 0], loops))
    edge = np.concatenate((np.arange(len(edges)), np.arange(len(edges)), np.full(n, len(edges))))
    order = np.lexsort((column, row))
    return torch.tensor(np.stack((row[order], column[order]))), torch.tensor(edge[order])


def logits(model, features, place: torch.Tensor, edge: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The output of the network where every edge has a weight."""
    weights = torch.cat((mask, torch.ones(1, dtype=mask.dtype)))[edge]
    degrees = torch.zeros(features.shape[0], dtype=mask.dtype).index_add(0, place[0], weights.abs())
    root = degrees**-0.5
    weights = weights * root[place[0]] * root[place[1]]
    x = features
    for linear, norm in zip(model.linear, model.norm, strict=True):
        own = torch.sparse.mm(x, linear.weight.T) + linear.bias if x.is_sparse else linear(x)
        x = norm(torch.relu(Spread.apply(own, weights, place)))
    return model.head(x)


def train_mask(model, features, labels, edges, parts, epochs: int, noise: torch.Generator) -> torch.Tensor:
    """Weights and mask are trained together; the mask of the epoch that is best on the second part."""
    place, edge = entries_of(edges, len(labels))
    train, choose = (torch.tensor(part) for part in parts[:2])
    mask = (1 + NOISE * (2 * torch.rand(len(edges), generator=noise) - 1)).requires_grad_()
    groups = [
        {"params": list(model.parameters()), "weight_decay": SETTINGS["decay"]},
        {"params": [mask], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=SETTINGS["lr"])
    best, found = -1.0, mask.detach().clone()
    for _ in range(epochs):
        optimizer.zero_grad()
        out = logits(model, features, place, edge, mask)
        with torch.no_grad():
            right = float((out[choose].argmax(dim=1) == labels[choose]).double().mean())
            if right > best:
                best, found = right, mask.detach().clone()
        (nn.functional.cross_entropy(out[train], labels[train]) + PENALTY * mask.abs().sum()).backward()
        optimizer.step()
    return found


def ugs_rounds(example, graph, features, labels, parts, seed: int, epochs: int) -> list[np.ndarray]:
    """Ids of the edges that are left after each round, down to 10% of them."""
    total, noise = graph.num_edges, torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = example.GCN(features.shape[1], SETTINGS["width"], depth=3, classes=int(labels.max()) + 1)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    left, rounds = np.arange(total), []
    for _ in range(round((1 - 0.1) / STEP)):
        model.load_state_dict(first)
        whole = np.zeros(total)
        edges = graph.edges[left]
        whole[left] = train_mask(model, features, labels, edges, parts, epochs, noise).double().numpy()
        left = np.setdiff1d(left, ugs_prune_step(whole, STEP, total))
        rounds.append(left)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=100, help="of each round that trains a mask")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
    example = importlib.import_module("graph_sparsification")
    torch.set_num_threads(1)
    begin = time.process_time()
    graph, features, labels = read(cora())
    n, total = graph.num_nodes, graph.num_edges
    walks = wis_order(graph, depth=2).edge_ids
    print(STATED)
    print(f"Cora: {n} vertices, {total} edges, {options.epochs} epochs a round")
    found: dict[tuple[str, float], list[float]] = {}
    alone: dict[tuple[str, float], list[int]] = {}
    for seed in range(options.splits):
        parts = example.split(n, seed)
        rounds = ugs_rounds(example, graph, features, labels, parts, seed, options.epochs)
        spent = time.process_time() - begin
        orders = {"random": random_order(graph, rng=seed), "1-WIS": walks}
        for share in LEVELS:
            left = rounds[round(share / STEP) - 1]
            kept = {name: order[total - len(left) :] for name, order in orders.items()} | {"UGS": left}
            for name, ids in kept.items():
                score = example.accuracy(features, labels, graph.edges[ids], parts, seed=seed, **SETTINGS)
                found.setdefault((name, share), []).append(score)
                alone.setdefault((name, share), []).append(n - len(np.unique(graph.edges[ids])))
        print(
            f"split {seed}: masks done after {spent:.0f} CPU s, all after {time.process_time() - begin:.0f}", flush=True
        )
    print(f"test accuracy, mean of {options.splits} splits, and (vertices without a neighbour)")
    print("removed " + "".join(f"{share:>16.0%}" for share in LEVELS))
    for name in ("random", "UGS", "1-WIS"):
        cells = (f"   {np.mean(found[name, s]):.3f} ({np.mean(alone[name, s]):6.1f})" for s in LEVELS)
        print(f"{name:8s}" + "".join(cells))
    gains = [float(np.mean(found["1-WIS", s]) - np.mean(found["UGS", s])) for s in LEVELS]
    print("1-WIS over UGS  " + "   ".join(f"{gain:+.3f}" for gain in gains))
    assert gains[LEVELS.index(0.7)] > 0
    print("holds: at 70% removed, what reads the graph alone keeps more than a mask trained on features and labels")


if __name__ == "__main__":
    main()

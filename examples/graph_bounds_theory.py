# %% [markdown]
# # How strongly can a graph network relate two groups of vertices? The exact answer beside its bounds
#
# A product-aggregation GNN of depth L multiplies what it hears from its neighbours. Its separation rank across a
# partition of the vertices says how strongly it can relate both sides: 1 is not at all. For almost all weights it takes
# one value, which modular arithmetic finds for small networks (`generic_separation_rank`). For larger ones there are
# bounds from walks alone (`separation_rank_bounds`): one by the walk index (Razin et al., arXiv:2211.16494), one by a
# minimum cut of the network.
#
# Three questions. Do the bounds hold? Which of them tells the rank? And which vertices of which layer limit it?
#
# Run it with `python examples/graph_bounds_theory.py`; it takes a few seconds, prints its results and ends with an
# error if what it says does not hold. `reproductions/graphs_bounds.py` does it for hundreds of graphs.

# %%
from __future__ import annotations

import itertools
import math

import networkx as nx
import numpy as np

from rankdiag.graphs import generic_separation_rank, separation_rank_bounds

NAMED = {
    "path of 2, one end": (nx.path_graph(2), [0], 3, 2),
    "path of 2, one end, width 3": (nx.path_graph(2), [0], 2, 3),
    "path of 3, the middle": (nx.path_graph(3), [1], 2, 2),
    "path of 3, one end": (nx.path_graph(3), [0], 2, 2),
    "path of 4, two halves": (nx.path_graph(4), [0, 1], 2, 2),
    "path of 4, every other": (nx.path_graph(4), [0, 2], 2, 2),
    "cycle of 4, two halves": (nx.cycle_graph(4), [0, 1], 2, 2),
}
EXACT = [9, 15, 8, 6, 24, 36, 34]  # as the theory has them


def at_most(low: float, high: float) -> bool:
    return low <= high + 1e-9 * max(1.0, abs(high))


# %% Exact ranks of small graphs beside the bounds
def named_graphs() -> None:
    print("graph, one side                  depth  width   rank   from    to (cut)   polynomial     paper")
    for (name, (graph, side, depth, width)), expected in zip(NAMED.items(), EXACT, strict=True):
        bounds = separation_rank_bounds(graph, side, depth, width, width)
        rank = generic_separation_rank(graph, side, depth, width, width).rank
        print(
            f"{name:32s} {depth:5d} {width:6d} {rank:6d} {bounds.lower_multiset:6d} "
            f"{math.exp(bounds.log_upper_mincut):11.0f} {math.exp(bounds.log_upper_polynomial):12.0f} "
            f"{math.exp(bounds.log_upper_paper):9.1e}"
        )
        assert rank == expected
        assert bounds.lower_multiset <= rank
        assert at_most(math.log(rank), bounds.log_upper_mincut)
        assert at_most(bounds.log_upper_mincut, min(bounds.log_upper_symmetric, bounds.log_upper_polynomial))
        assert at_most(bounds.log_upper_symmetric, bounds.log_upper_layers)
        assert at_most(bounds.log_upper_layers, bounds.log_upper_paper)


# %% Random graphs: what goes along with the rank?
def random_graphs(count: int) -> None:
    rng = np.random.default_rng(0)
    rows, tight = [], np.zeros(2, int)
    while len(rows) < count:
        n, depth = int(rng.integers(3, 6)), int(rng.integers(2, 4))
        graph = nx.gnp_random_graph(n, float(rng.choice([0.4, 0.6])), seed=int(rng.integers(2**31)))
        side = rng.choice(n, int(rng.integers(1, n)), replace=False).tolist()
        target = int(rng.integers(n)) if rng.integers(2) else None
        call = (graph, side, depth, *rng.integers(2, 4, 2).tolist())
        bounds = separation_rank_bounds(*call, target=target)
        found = generic_separation_rank(*call, target=target, max_rank=256)
        if bounds.walk_index == 0 or found.saturated:
            continue  # sides that do not touch, or a rank above 251
        log_rank = math.log(found.rank)
        assert at_most(bounds.log_lower_paper, bounds.log_lower_multiset)
        assert at_most(bounds.log_lower_multiset, log_rank)
        assert at_most(log_rank, bounds.log_upper_mincut)
        assert at_most(log_rank, bounds.log_upper_shared)
        assert at_most(bounds.log_upper_shared, bounds.log_upper_mincut)
        uppers = (bounds.log_upper_mincut, bounds.log_upper_shared)
        tight += np.abs(np.array(uppers) - log_rank) < 1e-9
        rows.append((log_rank, bounds.walk_index, math.log(bounds.walk_index), *uppers))
    rank, index, log_index, cut, shared = np.array(rows).T
    found_in = {
        "walk index": float(np.corrcoef(rank, index)[0, 1]),
        "log of the walk index": float(np.corrcoef(rank, log_index)[0, 1]),
        "minimum cut": float(np.corrcoef(rank, cut)[0, 1]),
        "the same, shared once": float(np.corrcoef(rank, shared)[0, 1]),
    }
    print(f"\n{count} random graphs; correlation of the log of the exact rank with")
    for name, value in found_in.items():
        print(f"  {name:24s} {value:.2f}")
    print(
        f"The minimum cut is exact for {tight[0]} of {count}, and for {tight[1]} where what vertices share counts once."
    )
    print("No bound failed.")
    assert found_in["minimum cut"] > 0.9
    assert found_in["minimum cut"] > max(found_in["walk index"], found_in["log of the walk index"])
    assert 0.6 * count < tight[0] <= tight[1]


# %% A walk index is no log-rank: what one more layer adds
def deeper() -> None:
    print("\nTwo cliques of 8 joined by one edge, width 8: what one more layer adds")
    print("depth   walk index   paper, nats   minimum cut, nats   where the network limits")
    graph = nx.disjoint_union(nx.complete_graph(8), nx.complete_graph(8))
    graph.add_edge(0, 8)
    index, cut = [], []
    for depth in range(2, 7):
        bounds = separation_rank_bounds(graph, range(8), depth, 8, 8)
        print(
            f"{depth:5d} {bounds.walk_index:12d} {bounds.log_upper_paper:13.0f} {bounds.log_upper_mincut:19.1f}   "
            f"{bounds.reading}"
        )
        assert {row.vertex for row in bounds.bottleneck} == {0, 8, None}  # the ends of the joining edge, the readout
        index.append(bounds.walk_index)
        cut.append(bounds.log_upper_mincut)
    assert min(b / a for a, b in itertools.pairwise(index)) > 7
    assert cut[-1] / cut[0] < 20 < 4000 < index[-1] / index[0]
    print(f"Over these layers the walk index grows by {index[-1] / index[0]:.0f}, the bound on the log of the rank by")
    print(f"{cut[-1] / cut[0]:.0f}: the walk index ranks partitions, it is not the log of a rank.")


if __name__ == "__main__":
    named_graphs()
    random_graphs(100)
    deeper()

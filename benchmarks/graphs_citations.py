"""Whole removal orders at depth 2 of citation graphs: how many times faster than plain ways, all in one run.

``python benchmarks/graphs_citations.py [--rounds 15] [--graphs cora citeseer pubmed_graph]`` prints for each graph the
CPU time of ``wis_order(edge_index)``, checks and result included, and of three plain ways from the same array, with
their ratios, best of all rounds and median:

ten lines
    A numpy greedy that holds the key of every edge and corrects those at both ends of a removed one.
degrees again
    A numpy loop that computes all degrees and keys of the remaining edges anew before each removal.
definition
    Before each removal, the walk indices of all vertices are sorted for every remaining edge in turn, without that
    edge. A few removals are measured, at several levels of sparsity; the time of the whole order is extrapolated.

The rounds take turns, so that a busy machine slows all ways alike. Without the files of a graph (see
``bench_graphs_wis.py``) a random one of the same size stands in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_graphs_wis import SIZES, by_definition, columns_of, data_file, looking_again, ten_lines

from rankdiag.graphs import as_edge_list, wis_order

Way = Callable[[Any, Any, int, int], Any]

SHARES = (0.0, 0.25, 0.5, 0.75)  # of the edges removed, where the definition is measured
EACH = 2  # removals at each of them


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def plain(columns: Any, way: Way) -> Any:
    graph = as_edge_list(columns)
    u, v = np.ascontiguousarray(graph.edges.T)
    return way(u, v, graph.num_nodes, graph.num_edges)


def by_definition_extrapolated(columns: Any, order: Any) -> float:
    """CPU time of the whole order by the definition, from a few removals at several levels of sparsity.

    The time of a removal over the number of remaining edges is taken to be linear between the levels, and the same
    after the last one.
    """
    graph = as_edge_list(columns)
    u, v = np.ascontiguousarray(graph.edges.T)
    total = graph.num_edges
    places = [round(share * total) for share in SHARES]
    each = []
    for place in places:
        left = np.sort(order[place:])
        taken, found = spent(lambda left=left: by_definition(u[left], v[left], graph.num_nodes, EACH))
        np.testing.assert_array_equal(left[found], order[place : place + EACH])
        each.append(taken / sum(total - place - k for k in range(EACH)))
    step = np.arange(total)
    return float((np.interp(step, places, each) * (total - step)).sum())


def report(name: str, rounds: int) -> None:
    columns = columns_of(name, 1024)
    ways: dict[str, Callable[[], Any]] = {
        "wis_order": lambda: wis_order(columns).edge_ids,
        "ten lines": lambda: plain(columns, ten_lines),
        "degrees again": lambda: plain(columns, looking_again),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    order = wis_order(columns).edge_ids
    for number in range(rounds):
        for way, work in ways.items():
            if way == "degrees again" and (number >= 3 or name == "pubmed_graph"):
                continue  # slow, and far from the others
            for _ in range(10 if way == "wis_order" else 1):
                taken, found = spent(work)
                times[way].append(taken)
            np.testing.assert_array_equal(found, order)
    kind = name if data_file(name) else f"a random graph of the size of {name}"
    print(f"{kind}: {len(order)} removals, CPU time")
    best, middle = min(times["wis_order"]), statistics.median(times["wis_order"])
    print(f"  wis_order       best {best * 1e3:9.2f} ms            median {middle * 1e3:9.2f} ms")
    for way in ("ten lines", "degrees again"):
        if times[way]:
            low, mid = min(times[way]), statistics.median(times[way])
            print(
                f"  {way:15} best {low * 1e3:9.2f} ms ({low / best:6.1f}x)   median {mid * 1e3:9.2f} ms "
                f"({mid / middle:6.1f}x)"
            )
    if len(order) < 10_000:
        whole = by_definition_extrapolated(columns, order)
        print(
            f"  definition      {whole:.0f} s ({whole / middle:,.0f}x the median), extrapolated from "
            f"{EACH * len(SHARES)} measured removals, {EACH} each after "
            f"{', '.join(f'{share:.0%}' for share in SHARES)} of the edges",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--graphs", nargs="+", choices=list(SIZES), default=["cora", "citeseer"])
    chosen = parser.parse_args()
    for name in chosen.graphs:
        report(name, chosen.rounds)


if __name__ == "__main__":
    main()

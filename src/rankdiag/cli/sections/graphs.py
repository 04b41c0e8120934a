"""A club that split in two, as a graph: what a network can relate across the split, and which edges may go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankdiag._result import Result

__all__ = ["INTRO", "ORDER", "TITLE", "run"]

ORDER = 50
TITLE = "Graphs: where a network cannot see across, and which edges may go"
INTRO = (
    "Zachary's karate club, which ships with networkx: 34 members, 78 friendships, and two leaders between whom the "
    "club split. The report says how much a graph network of three layers can relate the two halves, and the drawing "
    "where they meet. The scan sets this split beside others: communities, the circle around each leader, and a half "
    "drawn at random, across which a network sees far better. Then edges are removed, first the order of walk index "
    "sparsification itself, then its cost beside that of chance and of the spectral order, with the graph at half of "
    "its edges."
)

_DEPTH = 3


def run(folder: Path) -> tuple[Result, ...]:
    """Report on the split, scan other partitions, and remove edges; nothing is written.

    Parameters
    ----------
    folder : pathlib.Path
        Not used.

    Returns
    -------
    tuple of Result
        The report on the split, the scan, the order of removal and the curves.
    """
    from rankdiag.graphs import (
        partition_scan,
        random_order,
        removal_curves,
        spectral_order,
        walk_index_report,
        wis_order,
    )

    club, halves = _club()
    order = wis_order(club)
    orders = {
        "1-WIS": order,
        "2-WIS": wis_order(club, _DEPTH),
        "random": random_order(club, rng=0),
        "spectral": spectral_order(club, rng=0),
    }
    return (
        walk_index_report(club, halves["Mr. Hi"], _DEPTH),
        partition_scan(club, _groups(club, halves), _DEPTH),
        order,
        removal_curves(club, orders, _DEPTH, subsets={"the split": halves["Mr. Hi"]}),
    )


def _club() -> tuple[Any, dict[str, list[int]]]:
    """Return the club as a plain graph, for walks have no use for the weights it comes with, and who went with whom."""
    import networkx

    whole = networkx.karate_club_graph()
    club = networkx.Graph()
    club.add_nodes_from(whole)
    club.add_edges_from(whole.edges)
    halves: dict[str, list[int]] = {}
    for member, leader in whole.nodes(data="club"):
        halves.setdefault(leader, []).append(member)
    return club, halves


def _groups(club: Any, halves: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return candidate partitions: the split, communities, the circles of both leaders, and a random half."""
    from networkx.algorithms.community import greedy_modularity_communities

    from rankdiag._rng import as_generator

    groups = {"the split": halves["Mr. Hi"]}
    for place, members in enumerate(greedy_modularity_communities(club), 1):
        groups[f"community {place}"] = sorted(members)
    groups["Mr. Hi alone"], groups["John A alone"] = [0], [33]
    groups["circle of Mr. Hi"] = sorted([0, *club[0]])
    groups["circle of John A"] = sorted([33, *club[33]])
    generator, _ = as_generator(0)
    groups["a random half"] = sorted(generator.permutation(34)[:17].tolist())
    return groups

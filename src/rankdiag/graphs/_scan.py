"""Scan of groups of vertices: which of them the network can hardly relate to the others, or to one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import out_of_torch
from rankdiag._document import Column, Document, KeyNumber, Plot, Series
from rankdiag._meta import Meta
from rankdiag._result import Table
from rankdiag._validate import boolean, describe
from rankdiag.graphs._adjacency import as_vertex, can_iterate
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._partitions import Partitions, group_totals, one_of_many, partition_totals
from rankdiag.graphs._walk_counts import WalkCounts, as_depth, count_walks, log_of

__all__ = ["PartitionRow", "PartitionScan", "masks_of", "members_of", "partition_scan"]

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_ALL_UNIONS = 14  # groups up to which every union of them is tried as a cut: 2^13 of them
_REST = "(none)"
_SMALL = 0.05  # a share of a few per cent
_SETS = (set, frozenset, list, tuple, range, np.ndarray)
_MANY = 256  # more groups than this, if they do not overlap, are read off the edges at once
_FEW = 12  # groups up to which a plot names its bars


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRow:
    """One cut: a group against all other vertices, or the narrowest cut between two groups.

    Attributes
    ----------
    name : str
        The group.
    other : str
        The other group of a pair; empty where the group is cut from all others.
    size : int
        Vertices on the side of `name`.
    boundary : int
        Vertices of the boundary of the cut.
    walk_index : int
        Walk index of the cut, exact.
    log_walk_index : float
        Its natural logarithm; minus infinity where no edge crosses.
    share : float
        Its part of all walks, 0 to 1; see `walk_index_share`.
    side : tuple of str
        Groups on the side of `name`; ungrouped vertices are called "(none)".

    Examples
    --------
    >>> from rankdiag.graphs import partition_scan
    >>> row = partition_scan([[0, 1, 1, 2], [1, 0, 2, 1]], {"end": [0]}, 2).rows[0]
    >>> row.name, row.boundary, row.walk_index, round(row.share, 3)
    ('end', 2, 5, 0.714)
    """

    name: str
    other: str = ""
    size: int
    boundary: int
    walk_index: int
    log_walk_index: float
    share: float
    side: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartitionScan(Table[PartitionRow]):
    """Groups of vertices, or pairs of them, by how well a network can relate the two sides; the poorest first.

    Attributes
    ----------
    rows : tuple of PartitionRow
        One for each group or pair, ascending by share; equal ones in the order given.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    target : int or None
        Vertex whose prediction is meant; None is a prediction for the graph.
    num_walks : int
        All walks of that length (that end at `target`).
    pairs : bool
        Whether rows are pairs of groups.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import partition_scan
    >>> scan = partition_scan(nx.barbell_graph(4, 2), {"left": range(4), "bridge": [4, 5]}, 3)
    >>> [(row.name, row.walk_index, round(row.share, 2)) for row in scan]
    [('left', 31, 0.19), ('bridge', 62, 0.38)]
    """

    tag: ClassVar[str] = "graphs.PartitionScan"
    judged: ClassVar[bool] = False
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="group"),
        Column(name="other", label="against", doc="The other group of a pair; empty: all other vertices."),
        Column(name="size", label="vertices", doc="On the side of the group."),
        Column(name="boundary", doc="Vertices at edges that cross."),
        Column(name="walk_index", label="walk index", doc="Walks that start at the boundary, exact."),
        Column(name="log_walk_index", label="ln walk index", unit="nats"),
        Column(name="share", doc="Part of all walks. A few per cent: the two sides are hard to relate."),
    )

    rows: tuple[PartitionRow, ...] = ()
    depth: int
    target: int | None = None
    num_walks: int
    pairs: bool = False

    def document(self) -> Document:
        """Return what this scan shows: the smallest share, all rows, and a plot of the shares."""
        shown = tuple(column.name for column in self.columns if self.pairs or column.name != "other")
        grid = self.grid("Cuts, the poorest first", shown)
        if self.pairs:
            side = Column(name="side", doc="Groups that lie with the first one where the cut is narrowest.")
            rows = zip(grid.rows, self.rows, strict=True)
            grid = replace(
                grid,
                columns=(*grid.columns, side),
                rows=tuple((*cells, " + ".join(row.side)) for cells, row in rows),
            )
        labels = [f"{row.name} | {row.other}" if row.other else row.name for row in self.rows]
        numbers = [
            KeyNumber(label="pairs" if self.pairs else "groups", value=len(self.rows)),
            KeyNumber(label="depth", value=self.depth, doc="Layers of the GNN; walks are one shorter."),
            KeyNumber(label="walks", value=self.num_walks, doc="All walks of that length."),
        ]
        if self.rows:
            none = sum(not row.walk_index for row in self.rows)
            if none:
                numbers.append(KeyNumber(label="of share 0", value=none, doc="No edge, or no walk, across the cut."))
            if none < len(labels):
                numbers.append(
                    KeyNumber(
                        label="smallest share above" if none else "smallest share",
                        value=self.rows[none].share,
                        doc=f"Of {labels[none]}.",
                    )
                )
        series = Series(
            label="",
            x=[float(k) for k in range(1, len(labels) + 1)],
            y=[row.share for row in self.rows],
            kind="bars" if len(labels) <= _FEW else "points",
            names=labels,
        )
        plot = Plot(
            title="Share of the walks that start at the boundary",
            x_label="place in the table",
            y_label="share",
            series=(series,),
            description="Shares of all cuts in ascending order.",
        )
        return Document(
            title=f"Walk index {'between pairs of' if self.pairs else 'of'} groups, depth {self.depth}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(numbers),
            grids=(grid,),
            plots=(plot,) if self.rows else (),
            notes=self.notes(),
        )


def partition_scan(
    graph: Any,
    groups: Any,
    depth: int,
    *,
    target: Any = None,
    pairs: bool = False,
    directed: bool = False,
    num_nodes: int | None = None,
) -> PartitionScan:
    """Rank groups of vertices by how well a network of a given depth can relate each to the others.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph; see `as_edge_list`.
    groups : mapping of str to vertices, list of vertices, array-like of int or str (n,), or str
        Candidate groups by name (node labels for a networkx graph), or a list of groups, which are named 0, 1, ...; or
        the class or community of every vertex, None where it has none; or the name of a node attribute of a networkx
        graph, which holds the class.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    pairs : bool
        Whether to look at two groups at a time instead, for which groups must not overlap.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    PartitionScan
        Rows in ascending order of their share of all walks. There is no verdict: theory sets no bound.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the graph is refused (see `as_edge_list`), `depth` is out of its bounds, a group names a vertex
        twice or one that is not there, or groups of `pairs` overlap.

    Warns
    -----
    RankdiagWarning
        If the graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    A row of one group is its walk index against all other vertices, exact. A row of two groups is the smallest walk
    index of the cuts along group lines that have the two on different sides: whatever the other vertices hold, the
    separation rank between the features of the two groups is at most that across any such cut (derived here). With
    up to 14 groups (ungrouped vertices count as one) every union of groups is tried, beyond that single groups alone,
    and the true minimum may be smaller. Walks are counted once; see `walk_indices` for the cost of the cuts.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4, for the walk index.

    Examples
    --------
    >>> from rankdiag.graphs import partition_scan
    >>> path = [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]
    >>> scan = partition_scan(path, ["a", "a", "b", "c"], 3)
    >>> [(row.name, row.walk_index) for row in scan]
    [('c', 13), ('a', 16), ('b', 21)]
    >>> two = partition_scan(path, ["a", "a", "b", "c"], 3, pairs=True)
    >>> [(row.name, row.other, row.walk_index, row.side) for row in two]
    [('a', 'c', 13, ('a', 'b')), ('b', 'c', 13, ('a', 'b')), ('a', 'b', 16, ('a',))]
    """
    layers = as_depth(depth)
    two = boolean(pairs, "pairs")
    listed = normalise(graph, directed=directed, num_nodes=num_nodes)
    goal = None if target is None else as_vertex(target, listed)
    members = members_of(graph, groups, listed)
    counts = count_walks(listed, layers - 1, goal)
    every = counts.total()
    if two:
        rows, tried = _pair_rows(members, listed, counts, every)
    else:
        rows, tried = _group_rows(members, listed, counts, every), len(members)
    rows.sort(key=lambda row: row.walk_index)
    walks = f"depth {layers} (walks of length {layers - 1})"
    what = f"{len(members)} group{'' if len(members) == 1 else 's'}"
    if two:
        what = f"{len(rows)} pair{'' if len(rows) == 1 else 's'} of {what}"
    return PartitionScan(
        rows=tuple(rows),
        depth=layers,
        target=goal,
        num_walks=every,
        pairs=two,
        explanation=f"{what} of {listed.num_nodes} vertices, {walks}, those first that the network can relate least to "
        f"the other side.{_reading(rows)}",
        meta=Meta(
            definition="walks of length depth - 1 that start at the boundary of the cut"
            + (", the smallest number over cuts along group lines between the two groups" if two else ""),
            base="e",
            units="walks",
            n=len(rows),
            details={
                "depth": walks.removeprefix("depth "),
                "cuts tried": tried,
                **({} if goal is None else {"target": goal}),
                **({} if not two else {"unions": "all" if tried != len(members) else "single groups"}),
            },
        ),
    )


def members_of(graph: Any, groups: Any, listed: EdgeList, name: str = "groups") -> dict[str, Ints]:
    """Read groups of vertices: a mapping from names, the class of every vertex, or the name of a node attribute.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If there is not one class for each vertex, two names are equal as text, or a vertex is not in the graph.
    """
    if isinstance(groups, str):
        nodes = getattr(graph, "nodes", None)
        if listed.labels is None or nodes is None:
            raise ValueError(f"`{name}` may name a node attribute of a networkx graph only; got {groups!r}")
        groups = _attribute(nodes, groups, listed.labels, name)
    if isinstance(groups, (list, tuple)) and groups and all(isinstance(entry, _SETS) for entry in groups):
        groups = dict(enumerate(groups))
    if isinstance(groups, Mapping):
        values = list(groups.values())
        if values and all(isinstance(value, (str, int, np.integer)) for value in values):
            raise TypeError(
                f"`{name}` as a mapping goes from names of groups to their vertices; got a value {describe(values[0])}"
                ". For the class of each vertex pass a list, in the order of the vertices"
            )
        found: dict[str, Ints] = {}
        for key, vertices in groups.items():
            if str(key) in found:
                raise ValueError(f"`{name}` has two groups of the name {str(key)!r}")
            found[str(key)] = np.flatnonzero(one_of_many(vertices, listed, name, f"group {str(key)!r}"))
        return found
    n = listed.num_nodes
    rule = f"`{name}` must map names to vertices, or hold the class of each of {n} vertices"
    groups = out_of_torch(groups, name, f"a mapping of names to vertices, or the class of each of {n} vertices")
    if isinstance(groups, bytes) or not can_iterate(groups) or getattr(groups, "ndim", 1) != 1:
        raise TypeError(f"{rule}; got {describe(groups)}")
    classes = list(groups.tolist() if isinstance(groups, np.ndarray) else groups)
    if len(classes) != n:
        raise ValueError(f"{rule}; got {len(classes)} entries")
    places: dict[str, list[int]] = {}
    for vertex, value in enumerate(classes):
        if value is None:
            continue
        if not isinstance(value, (str, int, np.integer, np.bool_)):
            raise TypeError(f"{rule}, integers, strings or None; got {describe(value)} at vertex {vertex}")
        places.setdefault(str(value), []).append(vertex)
    return {key: np.array(places[key], np.int64) for key in places}


def _attribute(nodes: Any, key: str, labels: tuple[Any, ...], name: str) -> list[Any]:
    """Return an attribute of every node, None where it is missing; at least one node must have it."""
    values = [nodes[label].get(key) for label in labels]
    if values and all(value is None for value in values):
        there = ", ".join(sorted({str(other) for label in labels for other in nodes[label]})) or "none"
        raise ValueError(f"`{name}` must name an attribute of the nodes, which have {there}; got {key!r}")
    return values


def masks_of(members: dict[str, Ints], n: int) -> Partitions:
    """Return groups as partitions of n vertices, each against all others."""
    entries = list(members.values())

    def masks(start: int, stop: int) -> Mask:
        found = np.zeros((stop - start, n), bool)
        for row, vertices in enumerate(entries[start:stop]):
            found[row, vertices] = True
        return found

    return Partitions(len(entries), masks)


def _row(
    name: str, other: str, size: int, boundary: int, index: int, every: int, side: tuple[str, ...]
) -> PartitionRow:
    return PartitionRow(
        name=name,
        other=other,
        size=size,
        boundary=boundary,
        walk_index=index,
        log_walk_index=log_of(index),
        share=index / every if every else 0.0,
        side=side,
    )


def _reading(rows: list[PartitionRow]) -> str:
    """Say how the shares are to be read, for rows in ascending order."""
    related = [row for row in rows if row.walk_index]
    none = len(rows) - len(related)
    text = ""
    if none:
        have, their = ("has", "its") if none == 1 else ("have", "their")
        text = f" {none} of them {have} share 0: no walk starts at {their} boundary."
    if not related:
        return text
    text += f" The poorest share{' above 0' if none else ''} is {related[0].share:.4g}."
    if related[0].share < _SMALL and all(row.size == 1 and not row.other for row in rows):
        return f"{text} That of a single vertex is small in any large graph: compare vertices with one another."
    return (
        f"{text} A share of a few per cent means that interactions across the cut are expected to be fitted poorly "
        "whatever the width; more depth, or edges across it (rewiring_hints), raise it."
    )


def _group_rows(members: dict[str, Ints], listed: EdgeList, counts: WalkCounts, every: int) -> list[PartitionRow]:
    """Cut each group from all other vertices."""
    n, figures = listed.num_nodes, None
    if len(members) > _MANY:
        group = np.full(n, len(members), np.int64)
        for place, vertices in enumerate(members.values()):
            group[vertices] = place
        if sum(map(len, members.values())) == np.count_nonzero(group < len(members)):  # no vertex is in two
            figures = group_totals(listed, group, len(members), counts)
    if figures is None:
        figures = partition_totals(listed, masks_of(members, n), counts)
    return [
        _row(name, "", size, boundary, index, every, (name,))
        for name, index, boundary, size in zip(members, *figures, strict=True)
    ]


def _pair_rows(
    members: dict[str, Ints], listed: EdgeList, counts: WalkCounts, every: int
) -> tuple[list[PartitionRow], int]:
    """Cut each group from each other one, along group lines, where that costs least."""
    names, group = _disjoint(members, listed.num_nodes)
    k = len(names)
    if k <= _ALL_UNIONS:  # one side of each cut, without the last group
        codes = np.arange(1, 2 ** max(k - 1, 0))[:, None]
        unions = (codes >> np.arange(k) & 1).astype(bool)
    else:
        unions = np.eye(k, dtype=bool)
    cuts = Partitions(len(unions), lambda start, stop: unions[start:stop][:, group])
    totals, boundaries, sizes = partition_totals(listed, cuts, counts)
    order = sorted(range(len(totals)), key=totals.__getitem__)
    ranked = unions[order]
    rows = []
    for i, j in combinations(range(len(members)), 2):
        cut = order[int(np.argmax(ranked[:, i] != ranked[:, j]))]  # the first one that separates them
        inside = bool(unions[cut, i])
        side = tuple(name for name, there in zip(names, unions[cut].tolist(), strict=True) if there == inside)
        size = sizes[cut] if inside else listed.num_nodes - sizes[cut]
        rows.append(_row(names[i], names[j], size, boundaries[cut], totals[cut], every, side))
    return rows, len(unions)


def _disjoint(members: dict[str, Ints], n: int) -> tuple[list[str], Ints]:
    """Return the names of the groups and the group of every vertex; what is in none is the last group."""
    names = list(members)
    group = np.full(n, len(names), np.int64)
    for place, vertices in enumerate(members.values()):
        taken = group[vertices] < len(names)
        if taken.any():
            vertex = int(vertices[taken.argmax()])
            raise ValueError(
                f"`groups` must not overlap with pairs=True; vertex {vertex} is in {names[group[vertex]]!r} and "
                f"{names[place]!r}"
            )
        group[vertices] = place
    return ([*names, _REST] if (group == len(names)).any() else names), group

"""What a step of preprocessing does to the walk indices of partitions that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch
from rankdiag._document import Column, Document, KeyNumber, Plot, ReferenceLine, Series, Verdict
from rankdiag._meta import Meta, Threshold
from rankdiag._result import Table
from rankdiag._validate import real
from rankdiag.graphs._adjacency import as_vertex, can_iterate
from rankdiag.graphs._edges import EdgeList, is_networkx, normalise
from rankdiag.graphs._partitions import as_partitions, partition_totals
from rankdiag.graphs._scan import masks_of, members_of
from rankdiag.graphs._walk_counts import as_depth, count_walks, log_of

__all__ = ["WalkIndexChange", "WalkIndexChangeRow", "walk_index_change"]

Ints = NDArray[np.int64]

_FEW = 12  # partitions up to which a plot draws bars


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkIndexChangeRow:
    """One partition before and after.

    Attributes
    ----------
    name : str
        Of the partition.
    size : int
        Vertices on the side that was given.
    before, after : int
        Walk index in either graph, exact.
    drop : float
        ``ln before - ln after``; positive where interaction is lost, infinite where all of it is, 0 where there was
        none and is none.
    share_before, share_after : float
        Walk index over all walks of its graph.

    Examples
    --------
    >>> from rankdiag.graphs import walk_index_change
    >>> row = walk_index_change([[0, 1, 1, 2], [1, 0, 2, 1]], [[0, 1], [1, 0]], {"end": [0]}, 2).rows[0]
    >>> row.before, row.after, round(row.drop, 3)
    (5, 4, 0.223)
    """

    name: str
    size: int
    before: int
    after: int
    drop: float
    share_before: float
    share_after: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WalkIndexChange(Table[WalkIndexChangeRow]):
    """Walk indices of partitions before and after a step, and whether one falls by more than allowed.

    Attributes
    ----------
    rows : tuple of WalkIndexChangeRow
        One for each partition, in the order given.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    target : int or None
        Vertex whose prediction is meant, by its place in the graph before; None is a prediction for the graph.
    max_drop : float or None
        Drop that is allowed.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import walk_index_change
    >>> ring = nx.cycle_graph(6)
    >>> change = walk_index_change(ring, nx.path_graph(6), {"half": [0, 1, 2]}, 3, max_drop=0.5)
    >>> change.verdict, [(row.before, row.after, round(row.drop, 3)) for row in change]
    ('alert', [(36, 18, 0.693)])
    """

    tag: ClassVar[str] = "graphs.WalkIndexChange"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="name", label="partition"),
        Column(name="size", label="vertices", doc="On the side that was given."),
        Column(name="before", label="walk index before", doc="Exact."),
        Column(name="after", label="walk index after", doc="Exact."),
        Column(name="drop", unit="nats", doc="ln before - ln after; positive where interaction is lost."),
        Column(name="share_before", label="share before", doc="Part of all walks."),
        Column(name="share_after", label="share after"),
    )

    rows: tuple[WalkIndexChangeRow, ...] = ()
    depth: int
    target: int | None = None
    max_drop: float | None = None

    def document(self) -> Document:
        """Return what this comparison shows: the largest drop, all rows with those beyond the bound marked, a plot."""
        bound = self.max_drop
        levels: tuple[Verdict, ...] = ()
        if bound is not None:
            levels = tuple("alert" if row.drop > bound else "ok" for row in self.rows)
        numbers = [
            KeyNumber(label="partitions", value=len(self.rows)),
            KeyNumber(label="depth", value=self.depth, doc="Layers of the GNN; walks are one shorter."),
        ]
        if self.rows:
            worst = max(self.rows, key=lambda row: row.drop)
            numbers.append(KeyNumber(label="largest drop", value=worst.drop, unit="nats", doc=f"Of {worst.name}."))
        series = Series(
            label="",
            x=[float(place) for place in range(1, len(self.rows) + 1)],
            y=[row.drop for row in self.rows],
            kind="bars" if len(self.rows) <= _FEW else "points",
            names=[row.name for row in self.rows],
        )
        plot = Plot(
            title="Drop of the logarithm of the walk index",
            x_label="place in the table",
            y_label="drop, nats",
            series=(series,),
            lines=() if bound is None else (ReferenceLine(axis="y", value=bound, label="allowed"),),
            description="Drop of each partition, and the drop that is allowed.",
        )
        return Document(
            title=f"Walk index before and after, depth {self.depth}",
            verdict=self.verdict,
            explanation=self.explanation,
            key_numbers=tuple(numbers),
            grids=(self.grid("Before and after", levels=levels),),
            plots=(plot,) if self.rows else (),
            notes=self.notes(),
        )


def walk_index_change(
    before: Any,
    after: Any,
    subsets: Any,
    depth: int,
    *,
    max_drop: float | None = None,
    target: Any = None,
    directed: bool = False,
    num_nodes: int | None = None,
) -> WalkIndexChange:
    """Compare the walk indices of partitions before and after a graph was changed, as a gate in a pipeline does.

    Parameters
    ----------
    before, after : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph before and after sampling, sparsifying, truncating or rewiring; see `as_edge_list`. Both have the
        same vertices. Of networkx graphs the second may lack some, which then count as isolated.
    subsets : mapping of str to vertices, list of subsets, ndarray of bool (P, n), or groups as `partition_scan` takes
        One side of every partition to watch, by name, or by position.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    max_drop : float, optional
        Largest drop of the natural logarithm of a walk index that is allowed, 0 or more; None judges nothing.
    target : int or node label, optional
        Vertex whose prediction is meant; None is a prediction for the graph.
    directed : bool
        Whether columns are directed edges. With False, every column that is no self-loop needs its reverse.
    num_nodes : int, optional
        Vertices of both graphs; None takes what `before` says, or one more than its largest id.

    Returns
    -------
    WalkIndexChange
        A row for each partition. The verdict is "alert" if a drop exceeds `max_drop`, "ok" if none does, and "unknown"
        without a bound, for theory sets none.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a graph is refused (see `as_edge_list`), the vertices differ, `depth` is out of its bounds, or a vertex is
        not in the graph.

    Warns
    -----
    RankdiagWarning
        If a graph has weights other than 1, which walk counts do not use.

    Notes
    -----
    The drop is ln WI(before) - ln WI(after), from exact counts. Removing undirected edges never raises a walk index,
    so that drops are not negative then. Walks of either graph are counted once; see `walk_indices` for the cost.

    References
    ----------
    Razin, Verbin, Cohen, arXiv 2211.16494, section 4, for the walk index; the comparison is derived here.

    Examples
    --------
    >>> from rankdiag.graphs import walk_index_change
    >>> triangle = [[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]]
    >>> path = [[0, 1, 1, 2], [1, 0, 2, 1]]
    >>> change = walk_index_change(triangle, path, [[0], [1]], 2)
    >>> change.verdict, [(row.name, row.before, row.after) for row in change]
    ('unknown', [('0', 9, 5), ('1', 9, 7)])
    """
    layers = as_depth(depth)
    allowed = None if max_drop is None else real(max_drop, "max_drop", low=0.0)
    old = _read(before, "before", directed, num_nodes)
    knows = isinstance(after, EdgeList) or is_networkx(after)  # how many vertices it has
    new = _read(after, "after", directed, None if knows else old.num_nodes)
    place = _places(old, new)
    goal = None if target is None else as_vertex(target, old)
    members = _members(before, subsets, old)
    figures = []
    for graph, own in ((old, members), (new, {name: _moved(ids, place) for name, ids in members.items()})):
        there = goal if graph is old or goal is None or place is None else int(place[goal])
        counts = count_walks(graph, layers - 1, None if there == -1 else there)
        every = 1 if there == -1 else counts.total()  # of a target that is isolated, the walk that stays
        totals = partition_totals(graph, masks_of(own, graph.num_nodes), counts)[0]
        figures.append(([0] * len(totals) if there == -1 else totals, every))
    rows = tuple(
        WalkIndexChangeRow(
            name=name,
            size=len(ids),
            before=first,
            after=second,
            drop=0.0 if first == second else log_of(first) - log_of(second),
            share_before=first / figures[0][1] if figures[0][1] else 0.0,
            share_after=second / figures[1][1] if figures[1][1] else 0.0,
        )
        for (name, ids), first, second in zip(members.items(), figures[0][0], figures[1][0], strict=True)
    )
    return _judged(rows, layers, goal, allowed, old, new)


def _judged(
    rows: tuple[WalkIndexChangeRow, ...],
    depth: int,
    goal: int | None,
    allowed: float | None,
    old: EdgeList,
    new: EdgeList,
) -> WalkIndexChange:
    walks = f"depth {depth} (walks of length {depth - 1})"
    beyond = [row.name for row in rows if allowed is not None and row.drop > allowed]
    verdict: Verdict = "unknown" if allowed is None or not rows else "alert" if beyond else "ok"
    many = f"Walk indices of {len(rows)} partitions" if len(rows) != 1 else "Walk index of a partition"
    text = f"{many}, {walks}, from {old.num_edges} edges to {new.num_edges}."
    if rows:
        worst = max(rows, key=lambda row: row.drop)
        if worst.drop == math.inf:
            text += f" {worst.name} has no walk left across it."
        else:
            text += f" The largest drop of the logarithm is {worst.drop:.4g}, of {worst.name}."
    if beyond:
        lose = "loses" if len(beyond) == 1 else "lose"
        text += f" {len(beyond)} of them {lose} more than the {allowed:g} nats that are allowed."
    bounds: tuple[Threshold, ...] = ()
    if allowed is not None:
        bounds = (Threshold(quantity="drop", op=">", value=allowed, severity="alert", source="given by the caller"),)
    lacking = old.num_nodes - new.num_nodes
    return WalkIndexChange(
        rows=rows,
        depth=depth,
        target=goal,
        max_drop=allowed,
        verdict=verdict,
        explanation=text,
        thresholds=bounds,
        meta=Meta(
            definition="drop = ln of the walk index before - ln of the walk index after",
            base="e",
            units="nats",
            n=len(rows),
            details={
                "depth": walks.removeprefix("depth "),
                "edges before": old.num_edges,
                "edges after": new.num_edges,
                **({} if goal is None else {"target": goal}),
                **({"vertices that are gone": lacking} if lacking else {}),
            },
        ),
    )


def _read(graph: Any, name: str, directed: bool, num_nodes: int | None) -> EdgeList:
    try:
        return normalise(graph, directed=directed, num_nodes=num_nodes)
    except (TypeError, ValueError) as error:  # its messages speak of `graph`
        raise type(error)(str(error).replace("`graph`", f"`{name}`")) from None


def _places(old: EdgeList, new: EdgeList) -> Ints | None:
    """Return where the vertices of the first graph are in the second, -1 where gone; None where they are the same."""
    if old.labels is None or new.labels is None or old.labels == new.labels:
        if old.num_nodes != new.num_nodes:
            raise ValueError(
                f"`after` must have the {old.num_nodes} vertices of `before`; got {new.num_nodes}. Keep vertices that "
                "lost all edges"
            )
        return None
    at = {label: index for index, label in enumerate(new.labels)}
    place = np.array([at.get(label, -1) for label in old.labels], np.int64)
    if int((place >= 0).sum()) != new.num_nodes:
        known = set(old.labels)
        extra = next(label for label in new.labels if label not in known)
        raise ValueError(f"`after` must have no vertex that `before` lacks; got {extra!r}")
    return place


def _moved(ids: Ints, place: Ints | None) -> Ints:
    if place is None:
        return ids
    moved = place[ids]
    return moved[moved >= 0]


def _members(graph: Any, subsets: Any, listed: EdgeList) -> dict[str, Ints]:
    """Read partitions by name, by position, or as groups of `partition_scan`."""
    if isinstance(subsets, (str, Mapping)) or not _is_many(subsets):
        return members_of(graph, subsets, listed, "subsets")
    found = as_partitions(subsets, listed)
    return {str(place): np.flatnonzero(found.masks(place, place + 1)[0]) for place in range(found.count)}


def _is_many(subsets: Any) -> bool:
    """Whether these are subsets one by one, and not one class for each vertex."""
    if isinstance(subsets, np.ndarray) or is_torch(subsets):
        return bool(subsets.ndim == 2)
    if not isinstance(subsets, (list, tuple)):
        return False
    return all(can_iterate(entry) and not isinstance(entry, (str, bytes)) for entry in subsets)

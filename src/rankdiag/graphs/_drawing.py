"""From an edge list to a drawing: names of vertices, and kinds of vertices and edges of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import EdgeClass, Network, NodeClass
from rankdiag.graphs._edges import EdgeList
from rankdiag.graphs._layout import MOST_DRAWN, layout

__all__ = ["Label", "as_labels", "frozen", "name_of", "not_drawn", "partition_network", "places_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Label = str | int

_CROSSING = EdgeClass(label="crossing", dash="dashed", colour=3, strong=True)
_WITHIN = EdgeClass(label="within a side")


def as_labels(graph: EdgeList) -> tuple[Label, ...] | None:
    """Return node labels that a file can hold: integers and strings as they are, anything else in its own words."""
    if graph.labels is None:
        return None
    return tuple(_as_label(label) for label in graph.labels)


def _as_label(label: Any) -> Label:
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return int(label)
    return str(label)


def name_of(labels: Sequence[Label] | None, vertex: int) -> str:
    """Return what a vertex is called: its label, or its id."""
    return str(vertex if labels is None else labels[vertex])


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, read-only."""
    array.flags.writeable = False
    return array


def places_of(graph: EdgeList) -> tuple[Floats, Ints]:
    """Return places and edges of a graph that is small enough to be drawn, else two empty arrays.

    Returns
    -------
    places : ndarray of float64, shape (n, 2) or (0, 2)
        As `layout` finds them.
    edges : ndarray of int64, shape (M, 2) or (0, 2)
        The canonical edges.
    """
    if graph.num_nodes > MOST_DRAWN:
        return frozen(np.zeros((0, 2))), frozen(np.zeros((0, 2), np.int64))
    return frozen(layout(graph)), frozen(graph.edges.copy())


def not_drawn(num_nodes: int) -> tuple[str, ...]:
    """Say that a graph is too large for a drawing, if it is."""
    if num_nodes <= MOST_DRAWN:
        return ()
    return (f"Not drawn: the graph has {num_nodes} vertices, and a drawing is readable up to {MOST_DRAWN}.",)


def partition_network(
    places: Floats,
    edges: Ints,
    *,
    inside: Mask,
    boundary: Ints,
    ringed: Sequence[int] = (),
    target: int | None = None,
    labels: Sequence[Label] | None = None,
    directed: bool = False,
    title: str = "The partition",
    description: str = "",
) -> Network:
    """Draw a partition: shapes are sides, filled vertices the boundary, dashed lines the edges that cross.

    Parameters
    ----------
    places : ndarray of float64, shape (n, 2)
        Where vertices lie in the unit square.
    edges : ndarray of int64, shape (M, 2)
        Edges.
    inside : ndarray of bool, shape (n,)
        One side.
    boundary : ndarray of int64
        Vertices of the boundary.
    ringed : sequence of int
        Vertices of the bottleneck.
    target : int, optional
        Vertex whose prediction is meant; it is drawn as a diamond.
    labels : sequence of str or int, optional
        Node labels; None writes ids.
    directed : bool
        Whether edges have a direction.
    title, description : str
        Heading, and what the drawing shows.

    Returns
    -------
    Network
        The drawing.
    """
    meets, ring = set(boundary.tolist()), set(ringed)
    kinds: dict[NodeClass, int] = {}
    chosen = []
    for vertex, within in enumerate(inside.tolist()):
        words = ["inside" if within else "outside"]
        words += ["boundary"] * (vertex in meets) + ["bottleneck"] * (vertex in ring)
        words += ["target"] * (vertex == target)
        kind = NodeClass(
            label=", ".join(words),
            shape="diamond" if vertex == target else ("circle" if within else "square"),
            colour=0 if within else 1,
            filled=vertex in meets,
            ring=vertex in ring,
        )
        chosen.append(kind)
    for kind in sorted(set(chosen), key=lambda kind: kind.label):
        kinds[kind] = len(kinds)
    crosses = inside[edges[:, 0]] != inside[edges[:, 1]]
    return Network(
        title=title,
        x=places[:, 0].tolist(),
        y=places[:, 1].tolist(),
        names=[name_of(labels, vertex) for vertex in range(len(places))],
        node_class=[kinds[kind] for kind in chosen],
        node_classes=tuple(kinds),
        edges=[(u, v) for u, v in edges.tolist()],
        edge_class=crosses.astype(int).tolist(),
        edge_classes=(_WITHIN, _CROSSING),
        directed=directed,
        description=description,
    )

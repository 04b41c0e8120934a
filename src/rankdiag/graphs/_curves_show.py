"""What curves of removal show: a comparison in words, a plot of each figure, and the graph with what is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rankdiag._document import Document, EdgeClass, KeyNumber, Network, NodeClass, Plot, Series
from rankdiag.graphs._drawing import name_of, not_drawn

if TYPE_CHECKING:
    from rankdiag.graphs._curves import DrawnRemoval, RemovalCurves, RemovalRow

__all__ = ["curves_document", "explain"]

_MOST_SUBSETS = 6  # subsets with a plot of their own
_MOST_DRAWN = 6  # orders with a drawing of their own
_KEPT = EdgeClass(label="kept", colour=0, strong=True)
_REMOVED = EdgeClass(label="removed", dash="dotted")
_JOINED = NodeClass(label="with edges", filled=True)
_ALONE = NodeClass(label="isolated", shape="square", colour=1)


def explain(curves: RemovalCurves) -> str:
    """Compare the orders in words, near the share at which the graph is drawn."""
    if not curves.num_edges:
        return "The graph has no edges to remove."
    near: dict[str, RemovalRow] = {}
    for row in curves.rows:
        best = near.get(row.order)
        if best is None or _off(row, curves) < _off(best, curves):
            near[row.order] = row
    if not near:
        return "No order reaches the shares asked for."
    shares = {row.removed for row in near.values()}
    if len(near) > 1 and len(shares) > 1:
        return "The orders reach different shares, so that they cannot be compared at one."
    first = next(iter(near.values()))
    text = (
        f"With {first.removed} of {curves.num_edges} edges removed ({first.removed_share:.0%}), isolated vertices "
        "and mean ln walk index at the vertices are: "
    )
    text += "; ".join(f"{name} {row.isolated} and {row.mean_log_vertex:.2f}" for name, row in near.items()) + "."
    if len(near) > 1:
        ranked = sorted(near.values(), key=lambda row: -row.mean_log_vertex)
        if ranked[0].mean_log_vertex > ranked[1].mean_log_vertex:
            text += f" By that mean, {ranked[0].order} keeps most."
    return text + _of_subsets(near)


def _of_subsets(near: dict[str, RemovalRow]) -> str:
    """Say in words what each order leaves of the subsets that are followed."""
    logs = {name: row.log_walk_index for name, row in near.items() if row.log_walk_index is not None}
    if not logs:
        return ""
    text = "; ".join(f"{name} {value:.2f}" for name, value in logs.items())
    return (
        f" Of the subsets that are followed the smallest ln walk index is: {text}. Orders that protect single vertices "
        "may leave less of a subset."
    )


def _off(row: RemovalRow, curves: RemovalCurves) -> float:
    return abs(row.removed_share - curves.draw_ratio)


def curves_document(curves: RemovalCurves, conventions: tuple[str, ...]) -> Document:
    """Return the document of `RemovalCurves`."""
    orders = list(dict.fromkeys(row.order for row in curves.rows))
    return Document(
        title=f"Removal of edges, depth {curves.depth}",
        verdict=curves.verdict,
        explanation=curves.explanation,
        key_numbers=(
            KeyNumber(label="edges", value=curves.num_edges),
            KeyNumber(label="vertices", value=curves.num_nodes),
            KeyNumber(label="orders", value=len(orders), doc=", ".join(orders)),
        ),
        grids=(curves.grid("What is left"),),
        plots=_plots(curves, orders),
        notes=(*_notes(curves), *conventions),
        networks=tuple(_network(curves, drawn) for drawn in curves.drawn[:_MOST_DRAWN]),
    )


def _notes(curves: RemovalCurves) -> tuple[str, ...]:
    notes = not_drawn(curves.num_nodes)
    subsets = len({row.subset for row in curves.partitions})
    if subsets > _MOST_SUBSETS:
        notes += (f"{_MOST_SUBSETS} of {subsets} subsets are plotted; `partitions` holds them all.",)
    if len(curves.drawn) > _MOST_DRAWN:
        notes += (f"{_MOST_DRAWN} of {len(curves.drawn)} orders are drawn.",)
    return notes


def _plots(curves: RemovalCurves, orders: list[str]) -> tuple[Plot, ...]:
    figures: tuple[tuple[str, str, Callable[[RemovalRow], float | None]], ...] = (
        ("Walk index of single vertices", "mean ln walk index at the vertex (nats)", lambda row: row.mean_log_vertex),
        ("Closed walks", f"smallest closed walks of length {curves.depth}", lambda row: row.smallest_closed_walks),
        ("Isolated vertices", "vertices without an edge", lambda row: row.isolated),
        ("Components", "connected components", lambda row: row.components),
    )
    plots = [
        _plot(title, label, [(row.order, row.removed_share, read(row)) for row in curves.rows], orders)
        for title, label, read in figures
    ]
    for subset in list(dict.fromkeys(row.subset for row in curves.partitions))[:_MOST_SUBSETS]:
        points = [
            (row.order, row.removed_share, row.log_walk_index) for row in curves.partitions if row.subset == subset
        ]
        plots.append(_plot(f"Walk index of {subset}", "ln walk index (nats)", points, orders))
    return tuple(plots)


def _plot(title: str, label: str, points: Sequence[tuple[str, float, float | None]], orders: list[str]) -> Plot:
    series = []
    for name in orders:
        own = [(x, y) for order, x, y in points if order == name]
        xs, ys = [x for x, _ in own], [float("nan") if y is None else float(y) for _, y in own]
        series.append(Series(label=name, x=xs, y=ys))
    return Plot(
        title=title,
        x_label="share of edges removed",
        y_label=label,
        series=tuple(series),
        description=f"{label} while edges are removed, one line for each order",
    )


def _network(curves: RemovalCurves, drawn: DrawnRemoval) -> Network:
    gone = set(drawn.removed)
    edges = [(u, v) for u, v in curves.edges.tolist()]
    joined = {vertex for place, edge in enumerate(edges) if place not in gone for vertex in edge}
    count = len(curves.places)
    return Network(
        title=f"{drawn.order}: {len(gone)} of {curves.num_edges} edges removed",
        x=curves.places[:, 0].tolist(),
        y=curves.places[:, 1].tolist(),
        names=[name_of(curves.labels, vertex) for vertex in range(count)],
        node_class=[int(vertex not in joined) for vertex in range(count)],
        node_classes=(_JOINED, _ALONE),
        edges=edges,
        edge_class=[int(place in gone) for place in range(len(edges))],
        edge_classes=(_KEPT, _REMOVED),
        directed=curves.directed,
        description=f"The graph after {len(gone)} edges were removed in the order {drawn.order}",
    )

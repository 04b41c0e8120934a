"""What a report on a partition shows: the answer in words, figures, a drawing, tables, growth with depth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rankdiag._document import Column, Document, Grid, KeyNumber, Network, Plot, ReferenceLine, Series
from rankdiag.graphs._drawing import name_of, not_drawn, partition_network

if TYPE_CHECKING:
    from rankdiag.graphs._report import WalkIndexReport

__all__ = ["explain", "report_document"]

_FREE = 0.9  # share from which on nearly every walk starts at the boundary: a way to speak, no threshold of a source
_POOR = 0.05  # share up to which only a few per cent do: as above
_READING = (
    "Compare partitions of one graph at one depth; a walk index says nothing by itself, and it is not the logarithm of "
    "a rank.",
)


def explain(report: WalkIndexReport) -> str:
    """Return in words how much of the network's walks can bring the two sides together."""
    length = f"length {report.depth - 1}"
    if not report.num_nodes:
        return "The graph has no vertices."
    if not report.num_inside or report.num_inside == report.num_nodes:
        return "One side is empty, so there is nothing to relate."
    if not report.num_crossing:
        return "No edge crosses the partition: no depth brings the two sides together before the readout."
    sides = f"{report.num_inside} and {report.num_nodes - report.num_inside} vertices"
    edges = f"{report.num_crossing} edge crosses" if report.num_crossing == 1 else f"{report.num_crossing} edges cross"
    text = f"Between sides of {sides} {edges}, and {_vertices(report.num_boundary)} in the boundary. "
    to = "" if report.target is None else f" to vertex {name_of(report.labels, report.target)}"
    if not report.walk_index:
        return (
            f"{text}No walk of {length} leads from the boundary{to}: at this depth the prediction there cannot depend "
            "on both sides together. A deeper network may."
        )
    text += f"{report.share:.1%} of all walks of {length}{to} start there. "
    if report.share >= _FREE:
        return f"{text}Nearly every walk does: a network of this depth mixes the two sides freely."
    if report.share <= _POOR:
        return (
            f"{text}That is a bottleneck: expect interactions across this partition to be fitted poorly whatever the "
            "width. More layers, or more edges across, would help."
        )
    return f"{text}Compare this share with that of other partitions of this graph at the same depth."


def _vertices(count: int) -> str:
    return "1 vertex is" if count == 1 else f"{count} vertices are"


def report_document(report: WalkIndexReport, conventions: tuple[str, ...]) -> Document:
    """Return the document of a `WalkIndexReport`."""
    at = "" if report.target is None else f" at vertex {name_of(report.labels, report.target)}"
    return Document(
        title=f"Walk index of a partition, depth {report.depth}{at}",
        verdict=report.verdict,
        explanation=report.explanation,
        key_numbers=_numbers(report),
        grids=(_starts(report), _growth(report)),
        plots=_plots(report),
        notes=(*_READING, *not_drawn(report.num_nodes), *conventions),
        sections=() if report.bounds is None else (report.bounds.document(),),
        networks=_networks(report),
    )


def _numbers(report: WalkIndexReport) -> tuple[KeyNumber, ...]:
    length = report.depth - 1
    numbers = [
        KeyNumber(label="walk index", value=report.walk_index, doc=f"Walks of length {length} from the boundary."),
        KeyNumber(label="its logarithm", value=report.log_walk_index, unit="nats"),
        KeyNumber(label="share of all walks", value=report.share, doc="Near 1: the two sides mix freely."),
        KeyNumber(label="boundary", value=report.num_boundary, unit="vertices", doc="Where the two sides meet."),
        KeyNumber(label="crossing edges", value=report.num_crossing, doc=f"Of {report.num_edges} edges."),
        KeyNumber(label="vertices inside", value=report.num_inside, doc=f"Of {report.num_nodes} vertices."),
    ]
    if report.bounds is not None:
        numbers.append(
            KeyNumber(
                label="ln separation rank, at most",
                value=report.bounds.log_upper_shared,
                unit="nats",
                doc=report.bounds.reading,
            )
        )
    return tuple(numbers)


def _starts(report: WalkIndexReport) -> Grid:
    senders = "neighbours that send to it" if report.directed else "neighbours"
    listed, every = len(report.starts), report.num_boundary
    return Grid(
        title="Where the walks start",
        columns=(
            Column(name="label", label="vertex"),
            Column(name="side"),
            Column(name="neighbours", label=senders),
            Column(name="crossing", label="on the other side"),
            Column(name="walks", doc=f"Walks of length {report.depth - 1} that start there."),
            Column(name="share", doc="Of the walk index."),
        ),
        rows=tuple(
            (str(row.label), row.side, row.neighbours, row.crossing, row.walks, row.share) for row in report.starts
        ),
        note=f"The {listed} of {every} vertices of the boundary with most walks." if listed < every else "",
    )


def _growth(report: WalkIndexReport) -> Grid:
    index = {row.depth: row.walk_index for row in report.growth}
    rows = []
    for row in report.growth:
        before = index.get(row.depth - 1, 0)
        factor = row.walk_index / before if before else None
        rows.append((row.depth, row.depth - 1, row.walk_index, row.log_walk_index, factor, row.share))
    return Grid(
        title="The same partition at other depths",
        columns=(
            Column(name="depth"),
            Column(name="length", label="length of walks"),
            Column(name="walk_index", label="walk index"),
            Column(name="log_walk_index", label="its logarithm", unit="nats"),
            Column(name="factor", doc="Over the depth before. At least 2 for undirected graphs with a boundary."),
            Column(name="share", doc="Of all walks of that length."),
        ),
        rows=tuple(rows),
    )


def _plots(report: WalkIndexReport) -> tuple[Plot, ...]:
    rows = [row for row in report.growth if row.walk_index]
    if not rows:
        return ()
    asked = (ReferenceLine(axis="x", value=float(report.depth), label="depth asked for"),)
    depths = [float(row.depth) for row in rows]
    boundary, every = ("walks from the boundary", "all walks")
    logs = [row.log_walk_index for row in rows]
    return (
        Plot(
            title="Walks by depth",
            x_label="depth (layers)",
            y_label="ln of the number of walks",
            series=(
                Series(label=boundary, x=depths, y=logs),
                Series(label=every, x=depths, y=[math.log(row.walks) for row in rows]),
            ),
            lines=asked,
            description="Logarithm of the walk index and of the number of all walks at several depths",
        ),
    )


def _networks(report: WalkIndexReport) -> tuple[Network, ...]:
    if not len(report.places):
        return ()
    ringed = report.bottleneck
    return (
        partition_network(
            report.places,
            report.edges,
            inside=report.inside,
            boundary=report.boundary,
            ringed=ringed,
            target=report.target,
            labels=report.labels,
            directed=report.directed,
            title="The graph and its two sides",
            description=(
                f"The graph, with {report.num_crossing} edges between the two sides and {report.num_boundary} vertices "
                "where they meet" + (f", {len(ringed)} of them or of others in the bottleneck" if ringed else "")
            ),
        ),
    )

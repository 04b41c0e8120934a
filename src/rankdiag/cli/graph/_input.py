"""Graphs, vertices and groups of vertices as a command line names them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankdiag.adapters import GraphFile
    from rankdiag.graphs import EdgeList

__all__ = [
    "add_graph",
    "add_groups",
    "add_subset",
    "add_target",
    "files_of",
    "groups_of",
    "open_graph",
    "subset_of",
    "target_of",
]

_OPTIONS = (  # what messages of read_graph name -> what it is called here
    ("`directed` is False, but edge", "edge"),
    ("`path` must", "FILE must"),
    ("`format` says it", "--format says it"),
    ("`num_nodes`", "--num-nodes"),
    ("`labels`", "--labels"),
    ("labels=True", "--labels"),
    ("read the file with labels", "read it with --labels"),
    ("read it with symmetrise=True or directed=True", "take --symmetrise or --directed"),
)
_KINDS = (
    "a graph: a list of edges (.txt, .tsv, .csv, .edges), .npz with edge_index or of scipy.sparse, .graphml or .mtx, "
    "each also with .gz"
)


def add_graph(parser: argparse.ArgumentParser) -> None:
    """Add the file and the options that say how it is read."""
    parser.add_argument("file", metavar="FILE", help=_KINDS)
    group = parser.add_argument_group("graph")
    group.add_argument(
        "--directed",
        action="store_true",
        help="edges have a direction; else a line of a list is an undirected edge, and other formats hold both",
    )
    group.add_argument("--symmetrise", action="store_true", help="add the reverse of every edge that has none")
    group.add_argument("--num-nodes", type=int, metavar="N", help="vertices, where the file does not tell")
    group.add_argument(
        "--labels", action="store_true", help="take integers of a list of edges for labels, numbered as they appear"
    )
    group.add_argument("--format", choices=("edges", "npz", "graphml", "mtx"), help="of FILE (default: by its name)")


def add_subset(group: Any, *, required: bool = False, text: str = "one side of the partition") -> None:
    """Add the option that names a set of vertices."""
    group.add_argument(
        "--subset",
        metavar="VERTICES",
        required=required,
        help=f"{text}: ids or labels with commas between, 0,1,2 say, or @FILE with such, also one a line",
    )


def add_groups(group: Any, *, text: str) -> None:
    """Add the option that puts every vertex in a group; `text` says what for."""
    group.add_argument(
        "--group-by",
        metavar="NAME",
        help="attribute of vertices (.graphml), array (.npz), or @FILE with a group for each vertex in order, or with "
        f"lines of a vertex and its group: {text}",
    )


def add_target(group: Any) -> None:
    """Add the option that names the vertex of a prediction."""
    group.add_argument("--target", metavar="VERTEX", help="vertex that is predicted for (default: the whole graph)")


def files_of(options: argparse.Namespace) -> list[str | None]:
    """Return the files that the options read."""
    texts = (getattr(options, "subset", None), getattr(options, "group_by", None))
    return [options.file, *(text[1:] for text in texts if text is not None and text.startswith("@"))]


def open_graph(options: argparse.Namespace) -> GraphFile:
    """Read the graph, and say on standard error what of the file is not used.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no graph; the message has file, line and remedy.
    """
    from rankdiag.adapters import read_graph

    if options.file == "-":
        options.usage_error("argument FILE: standard input is /dev/stdin, with --format")
    if options.directed and options.symmetrise:
        options.usage_error("argument --symmetrise: not with --directed")
    try:
        graph = read_graph(
            options.file,
            directed=options.directed,
            num_nodes=options.num_nodes,
            format=options.format,
            symmetrise=options.symmetrise,
            labels=True if options.labels else None,
        )
    except ValueError as error:
        text = str(error)
        for word, option in _OPTIONS:
            text = text.replace(word, option)
        raise ValueError(text) from None
    if not options.quiet:
        for note in (graph.note, "" if options.num_nodes is not None else _unused_ids(graph)):
            if note:
                sys.stderr.write(f"rankdiag: {graph.name}: {note}\n")
    return graph


def _unused_ids(graph: GraphFile) -> str:
    """Say in a sentence how many ids below the largest one have no line in a list of edges."""
    if graph.format != "edges" or graph.edges.labels is not None:
        return ""
    import numpy as np

    n = graph.edges.num_nodes
    gaps = n - len(np.unique(graph.columns))
    if not gaps:
        return ""
    are = "id is" if gaps == 1 else "ids are"
    return f"Of ids 0 to {n - 1}, {gaps} {are} in no line; --labels takes only those that are for vertices."


def subset_of(options: argparse.Namespace, graph: EdgeList) -> list[Any]:
    """Return the vertices of ``--subset``."""
    text = options.subset
    words = _fields(_content(text[1:])) if text.startswith("@") else _fields(text)
    if not words:
        raise ValueError(f"--subset {text}: names no vertex")
    labels = frozenset(graph.labels or ())
    return [_vertex(word, graph, labels, "--subset") for word in words]


def target_of(options: argparse.Namespace, graph: EdgeList) -> Any:
    """Return the vertex of ``--target``; None without it."""
    if options.target is None:
        return None
    return _vertex(options.target, graph, frozenset(graph.labels or ()), "--target")


def groups_of(options: argparse.Namespace, file: GraphFile) -> list[str | None]:
    """Return the group of every vertex that ``--group-by`` says, None where it says nothing.

    Raises
    ------
    ValueError
        If a vertex is unknown or has two groups, or there are not as many groups as vertices.
    """
    name = options.group_by
    found = _listed(name[1:], file.edges) if name.startswith("@") else _stored(file, name)
    if all(group is None for group in found):
        raise ValueError(f"--group-by {name}: puts no vertex in a group")
    return found


def _stored(file: GraphFile, name: str) -> list[str | None]:
    """Read groups out of the file of the graph."""
    from rankdiag.adapters._graph_files import vertex_values

    return [None if value is None else str(value) for value in vertex_values(file, name)]


def _listed(path: str, graph: EdgeList) -> list[str | None]:
    """Read groups out of a file of their own."""
    rows = [
        (number, line.replace(",", " ").split())
        for number, line in enumerate(_content(path).splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    name = Path(path).name
    if all(len(words) == 1 for _, words in rows):
        if len(rows) != graph.num_nodes:
            raise ValueError(f"{name}: must hold a group for each of {graph.num_nodes} vertices; it has {len(rows)}")
        return [words[0] for _, words in rows]
    place = None if graph.labels is None else {label: index for index, label in enumerate(graph.labels)}
    found: list[str | None] = [None] * graph.num_nodes
    for number, words in rows:
        where = f"{name}, line {number}"
        if len(words) != 2:
            raise ValueError(f"{where}: must hold a vertex and its group")
        vertex = _vertex(words[0], graph, place or {}, where)
        index = vertex if place is None else place[vertex]
        if found[index] is not None:
            raise ValueError(f"{where}: vertex {words[0]} has a group already")
        found[index] = words[1]
    return found


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{Path(path).name}: is no UTF-8 text") from None


def _fields(text: str) -> list[str]:
    """Split names of vertices: at line ends and commas, and at spaces where there are neither."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    parts = [part.strip() for line in lines for part in line.split(",")]
    if len(parts) == 1:
        parts = parts[0].split()
    return [part for part in parts if part]


def _vertex(word: str, graph: EdgeList, labels: Container[Any], where: str) -> Any:
    """Return a label as it is, or an id as an integer."""
    if graph.labels is not None:
        if word not in labels:
            raise ValueError(f"{where}: {word!r} is no vertex of the graph; its vertices have names")
        return word
    try:
        vertex = int(word)
    except ValueError:
        raise ValueError(f"{where}: {word!r} is no vertex id; the vertices of this graph are integers") from None
    if not 0 <= vertex < graph.num_nodes:
        raise ValueError(f"{where}: {word} is no vertex of the graph; ids are 0 to {graph.num_nodes - 1}")
    return vertex

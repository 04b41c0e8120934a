"""Graphs in files: lists of edges, npz, GraphML and Matrix Market, read whole and written back in their own format."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._files import file_path, written_whole
from rankdiag._validate import boolean, choice, describe, integer
from rankdiag.adapters._edge_lines import EdgeLines, parse, without
from rankdiag.graphs._edges import EdgeList, GraphColumns, canonical_edges, graph_columns

__all__ = ["GraphFile", "read_graph", "write_graph"]

Format = Literal["edges", "npz", "graphml", "mtx"]

FORMATS: dict[str, Format] = {
    ".txt": "edges",
    ".tsv": "edges",
    ".csv": "edges",
    ".edges": "edges",
    ".edgelist": "edges",
    ".el": "edges",
    ".npz": "npz",
    ".graphml": "graphml",
    ".mtx": "mtx",
}
_SPARSE, _SPARSE_EACH = 10_000_000, 100  # ids from here on, and so many for each edge, are names and not places
ENDINGS = ".txt, .tsv, .csv, .edges, .npz, .graphml or .mtx, also with .gz behind it"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphFile:
    r"""A graph that was read from a file, with what is needed to write it again.

    Attributes
    ----------
    name : str
        Name of the file.
    format : {"edges", "npz", "graphml", "mtx"}
        Its format.
    edges : EdgeList
        The graph, for every function of `rankdiag.graphs`. Vertices that have labels in the file have them here, and
        are named by them.
    columns : ndarray of int64, shape (2, E)
        The edges as they are in the file, in its order: E lines, columns, entries or elements.
    note : str
        What of the file is not used, in a sentence; empty if there is nothing.
    source : object
        The content of the file, for `write_graph`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from rankdiag.adapters import read_graph
    >>> from rankdiag.graphs import walk_index
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "friends.csv")
    ...     _ = path.write_text("from,to\nAda,Ben\nBen,Cem\n", encoding="utf-8")
    ...     graph = read_graph(path)
    >>> graph.edges.labels, walk_index(graph.edges, ["Ada"], 2)
    (('Ada', 'Ben', 'Cem'), 5)
    """

    name: str
    format: Format
    edges: EdgeList
    columns: NDArray[np.int64]
    note: str = ""
    source: Any = None

    def __repr__(self) -> str:
        return f"GraphFile({self.name!r}, {self.format}, {self.edges!r})"


def read_graph(
    path: str | os.PathLike[str],
    *,
    directed: bool = False,
    num_nodes: int | None = None,
    format: Format | None = None,  # noqa: A002 - the word that readers of graph files know
    symmetrise: bool = False,
    labels: bool | None = None,
) -> GraphFile:
    r"""Read a graph from a file.

    Parameters
    ----------
    path : str or path-like
        ``.txt``, ``.tsv``, ``.csv``, ``.edges``: a list of edges, one a line, its two vertices between white space,
        tabs, commas or semicolons; further fields are carried along, lines with # or % in front are comments, and the
        first line may be a header. ``.npz``: an array ``edge_index`` of shape (2, E), or a matrix that
        ``scipy.sparse.save_npz`` wrote. ``.graphml``. ``.mtx``: a Matrix Market file. Each may end in ``.gz`` as well.
    directed : bool
        Whether edges have a direction. With False, each line of a list of edges is an undirected edge, and once is
        enough; the other formats must hold both directions (GraphML and Matrix Market may say that they are
        undirected), or `symmetrise` adds what is missing.
    num_nodes : int, optional
        Vertices, where the file does not tell: isolated ones have no line in a list of edges.
    format : {"edges", "npz", "graphml", "mtx"}, optional
        The format; None goes by the name.
    symmetrise : bool
        Whether every edge stands for both directions.
    labels : bool, optional
        For lists of edges: whether fields are labels, numbered as they appear. None takes them for ids, 0 to n - 1, if
        the first edge is two integers; ids that are in no line are vertices without edges then.

    Returns
    -------
    GraphFile
        ``.edges`` is the graph.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If an option has the wrong type.
    ValueError
        If the format is unknown, or the file is damaged or holds no graph: the message has file, line and remedy.

    Notes
    -----
    Nothing in a file is run: arrays are read without pickle, and GraphML with a document type declaration, which is
    where entities come from, is refused. Lists of integer ids are read with array operations: beside the file itself
    about 120 bytes an edge while that runs and 72 after it; labels and fields in quotes are read line by line.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from rankdiag.adapters import read_graph
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "ring.txt")
    ...     _ = path.write_text("# a ring\n0 1\n1 2\n2 0\n", encoding="utf-8")
    ...     read_graph(path)
    GraphFile('ring.txt', edges, EdgeList(3 vertices, 3 undirected edges, 6 columns))
    """
    place = file_path(path)
    if not place.exists() or place.is_dir():  # a pipe may be read
        what = "; that is a folder" if place.is_dir() else ""
        raise FileNotFoundError(f"there is no file {os.fspath(path)!r}{what}")
    kind = format_of(place, format)
    two_way = not boolean(directed, "directed")
    both = boolean(symmetrise, "symmetrise")
    count = None if num_nodes is None else integer(num_nodes, "num_nodes", low=0)
    named = None if labels is None else boolean(labels, "labels")
    if named is not None and kind != "edges":
        raise ValueError(f"`labels` is for lists of edges; {place.name!r} is {kind}")
    if both and not two_way:
        raise ValueError("`symmetrise` adds reverse edges, so `directed` must be False with it")
    content = _bytes(place)
    try:
        if kind == "edges":
            columns, source, note = _edge_lines(content, place.name, named, count)
            both = two_way
        else:
            reader = {"npz": _npz, "graphml": _graphml, "mtx": _mtx}[kind]
            columns, source, note = reader(content, place.name, count)
        graph = _as_edges(columns, two_way, both)
    except ValueError as error:
        raise ValueError(_named(str(error), place.name)) from None
    pairs = np.stack((columns.source, columns.target))
    return GraphFile(name=place.name, format=kind, edges=graph, columns=pairs, note=note, source=source)


def write_graph(graph: GraphFile, path: str | os.PathLike[str], *, keep: NDArray[np.bool_] | None = None) -> Path:
    r"""Write a graph in the format that it was read from, without some of its edges.

    Parameters
    ----------
    graph : GraphFile
        As `read_graph` gives it.
    path : str or path-like
        Where the file goes, whole or not at all; its name must end as that of the format does, ``.gz`` compresses it.
    keep : array of bool, shape (M,), optional
        Which edges stay, by edge id of ``graph.edges``; self-loops always stay. None keeps all.

    Returns
    -------
    pathlib.Path
        The path of the file.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the name does not fit the format, or `keep` the graph.
    OSError
        If the file cannot be written.

    Notes
    -----
    What stays is as it was: lines of a list of edges to the byte, with comments and header; of an npz all other arrays,
    and arrays named ``edge_...`` cut in step; attributes of GraphML; entries of a matrix. No vertex is removed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from rankdiag.adapters import read_graph, write_graph
    >>> from rankdiag.graphs import wis_order
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "friends.csv")
    ...     _ = path.write_text("u,v,since\na,b,1999\nb,c,2004\na,c,2010\nc,d,2011\n", encoding="utf-8")
    ...     graph = read_graph(path)
    ...     order = wis_order(graph.edges)
    ...     half = write_graph(graph, Path(folder, "half.csv"), keep=order.removal_rank >= 2)
    ...     print(half.read_text(encoding="utf-8"), end="")
    u,v,since
    a,b,1999
    c,d,2011
    """
    if not isinstance(graph, GraphFile):
        raise TypeError(f"`graph` must be a GraphFile, as read_graph gives it; got {describe(graph)}")
    place = file_path(path)
    if format_of(place, None) != graph.format:
        raise ValueError(f"`path` must end as a file of format {graph.format} does; got {place.name!r}")
    stays = np.ones(graph.columns.shape[1], bool)
    if keep is not None:
        mask = _mask(keep, graph.edges.num_edges)
        ids = graph.edges.column_edge[: len(stays)]  # what symmetrising added stands behind
        stays[ids >= 0] = mask[ids[ids >= 0]]
    writer = {"edges": _write_lines, "npz": _write_npz, "graphml": _write_graphml, "mtx": _write_mtx}[graph.format]
    content = writer(graph.source, stays)
    if place.suffix.lower() == ".gz":
        content = gzip.compress(content, mtime=0)
    with written_whole(place) as stream:
        stream.write(content)
    return place


def vertex_values(graph: GraphFile, name: str) -> list[Any]:
    """Return what a file says of each vertex: an attribute of GraphML, or an array of an npz.

    Raises
    ------
    ValueError
        If the file has no such attribute or array, or one of another length.

    Notes
    -----
    None stands where a vertex lacks the attribute, or ``NAME_missing`` marks it in an npz.
    """
    n = graph.edges.num_nodes
    if graph.format == "graphml":
        values = [value for _, value in graph.source.nodes(data=name)]
        if any(value is not None for value in values):
            return values
        listed = sorted({key for _, attributes in graph.source.nodes(data=True) for key in attributes})
    elif graph.format == "npz" and isinstance(graph.source[0], dict):
        arrays = graph.source[0]
        listed = sorted(key for key, array in arrays.items() if array.shape == (n,))
        if name in listed:
            missing = arrays.get(f"{name}_missing", np.zeros(n, bool))
            pairs = zip(arrays[name].tolist(), missing.tolist(), strict=True)
            return [None if absent else value for value, absent in pairs]
    else:
        raise ValueError(f"{graph.name}: holds edges only; {name!r} must be @FILE with the groups of the vertices")
    raise ValueError(f"{graph.name}: has no {name!r} of its vertices; it has {', '.join(listed) or 'nothing'}")


def format_of(path: Path, given: Any = None) -> Format:
    """Return the format that is given, or that the name of a file says.

    Raises
    ------
    ValueError
        If there is no such format.
    """
    if given is not None:
        return choice(given, "format", ("edges", "npz", "graphml", "mtx"))
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    found = FORMATS.get(bare.suffix.lower())
    if found is None:
        raise ValueError(f"`path` must end in {ENDINGS}; got {path.name!r}. `format` says it for other names")
    return found


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path.name}: is a damaged gzip file ({error})") from None


def _named(text: str, name: str) -> str:
    """Put the name of the file before what the normaliser of graphs says."""
    if text.startswith(name):
        return text
    remedy = "symmetrise the graph first or pass directed=True"
    return f"{name}: {text.replace(remedy, 'read it with symmetrise=True or directed=True')}"


def _mask(keep: Any, count: int) -> NDArray[np.bool_]:
    rule = f"`keep` must be a boolean array of shape ({count},), one entry for each edge"
    try:
        mask = np.asarray(keep)
    except Exception as error:  # tensors with gradients, and whatever foreign objects raise
        raise TypeError(f"{rule}; got {describe(keep)}") from error
    if mask.dtype != bool or mask.shape != (count,):
        raise ValueError(f"{rule}; got {describe(mask)} of dtype {mask.dtype}")
    return mask


def _as_edges(columns: GraphColumns, two_way: bool, both: bool) -> EdgeList:
    """Return the graph; `both` adds the reverse of every column, behind them all."""
    if not both:
        return canonical_edges(columns, directed=not two_way)
    source, target = columns.source, columns.target
    low, high = np.minimum(source, target), np.maximum(source, target)
    once = canonical_edges(GraphColumns(low, high, columns.num_nodes, columns.labels), directed=True)
    ids = once.column_edge
    first = np.flatnonzero(ids > np.maximum.accumulate(np.concatenate(([-1], ids[:-1]))) if len(ids) else ids)
    edges = np.stack((source[first], target[first]), axis=1)
    column_edge = np.concatenate((ids, ids))
    for array in (edges, column_edge):
        array.flags.writeable = False
    return EdgeList(columns.num_nodes, edges, column_edge, False, columns.labels)


def _with_count(source: NDArray[Any], target: NDArray[Any], count: int | None, told: int | None) -> GraphColumns:
    """Check ids against the number of vertices that was asked for, or that the file tells."""
    return graph_columns(np.stack((source, target)), num_nodes=told if count is None else count)


Read = tuple[GraphColumns, Any, str]

# --- lists of edges ------------------------------------------------------------------------------------------------


def _edge_lines(content: bytes, name: str, labels: bool | None, count: int | None) -> Read:
    lines = parse(content, name, as_labels=labels)
    if lines.labels is not None:
        if count is not None and count != len(lines.labels):
            raise ValueError(f"`num_nodes` must be {len(lines.labels)}, the labels of the file; got {count}")
        columns = GraphColumns(lines.source, lines.target, len(lines.labels), lines.labels)
    else:
        top = int(max(lines.source.max(initial=0), lines.target.max(initial=0)))
        if count is None and top >= max(_SPARSE, _SPARSE_EACH * len(lines.source)):
            raise ValueError(
                f"{name}: the largest vertex id is {top}, with {len(lines.source)} edges; read it with labels=True, "
                "which numbers the ids that there are, or pass `num_nodes`"
            )
        columns = _with_count(lines.source, lines.target, count, None)
    more = lines.fields - 2
    if more <= 0:
        return columns, lines, ""
    which = "field after the two vertices of a line is" if more == 1 else f"{more} fields after the two vertices are"
    return columns, lines, f"The {which} not used, and kept when the graph is written."


def _write_lines(source: EdgeLines, stays: NDArray[np.bool_]) -> bytes:
    return without(source, ~stays)


# --- npz -----------------------------------------------------------------------------------------------------------


def _npz(content: bytes, name: str, count: int | None) -> Read:
    arrays, compressed = _arrays(content, name)
    if "edge_index" in arrays:
        index = arrays["edge_index"]
        if index.dtype.kind not in "iu" and index.size:
            raise ValueError(f"{name}: edge_index must hold integers; got dtype {index.dtype}")
        columns = graph_columns(index, num_nodes=_told(arrays) if count is None else count)
        return columns, (arrays, compressed), ""
    if {"format", "shape", "data"} <= set(arrays):
        import scipy.sparse

        try:
            matrix = scipy.sparse.load_npz(io.BytesIO(content))
        except Exception as error:  # whatever a damaged file makes scipy raise
            raise ValueError(f"{name}: is no matrix that scipy can read ({error})") from None
        return _of_matrix(matrix, count, (matrix.format, compressed))
    listed = ", ".join(list(arrays)[:12]) or "nothing"
    raise ValueError(
        f"{name}: must hold an array edge_index of shape (2, E), or a sparse matrix of scipy; it has {listed}"
    )


def _arrays(content: bytes, name: str) -> tuple[dict[str, NDArray[Any]], bool]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}, compressed
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name}: is no npz file without pickled objects ({error})") from None


def _told(arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """Return the number of vertices that arrays beside the edges tell."""
    for key, read in (("num_nodes", np.ravel), ("x_shape", np.ravel), ("x", np.shape), ("y", np.shape)):
        values: Any = read(arrays[key]) if key in arrays else ()
        if len(values) and np.asarray(values).dtype.kind in "iu":
            return int(values[0])
    return None


def _write_npz(source: Any, stays: NDArray[np.bool_]) -> bytes:
    content = io.BytesIO()
    stored, how = source
    if not isinstance(stored, dict):
        import scipy.sparse

        kind, compressed = how
        scipy.sparse.save_npz(content, _cut_matrix(stored, stays).asformat(kind), compressed=compressed)
        return content.getvalue()
    arrays: dict[str, Any] = {k: _cut(value, stays) if k.startswith("edge_") else value for k, value in stored.items()}
    (np.savez_compressed if how else np.savez)(content, **arrays)
    return content.getvalue()


def _cut(array: NDArray[Any], stays: NDArray[np.bool_]) -> NDArray[Any]:
    for axis in (0, array.ndim - 1):
        if array.ndim and array.shape[axis] == len(stays):
            return np.compress(stays, array, axis=axis)
    return array


# --- matrices ------------------------------------------------------------------------------------------------------


def _mtx(content: bytes, name: str, count: int | None) -> Read:
    import scipy.io
    import scipy.sparse

    try:
        matrix = scipy.io.mmread(io.BytesIO(content))
        kind = scipy.io.mminfo(io.BytesIO(content))[4:6]
    except Exception as error:  # the reader raises several kinds
        raise ValueError(f"{name}: is no Matrix Market file ({error})") from None
    if not scipy.sparse.issparse(matrix):
        raise ValueError(f"{name}: must be a Matrix Market file of coordinates; it is a dense array")
    return _of_matrix(matrix, count, kind)


def _of_matrix(matrix: Any, count: int | None, how: Any) -> Read:
    rows = matrix.tocsr()
    note = "Weights are not used, and are kept when the graph is written." if np.any(rows.data != 1) else ""
    return graph_columns(rows, num_nodes=count, warn=False), (rows, how), note


def _cut_matrix(rows: Any, stays: NDArray[np.bool_]) -> Any:
    """Return a CSR matrix with some of its stored entries."""
    kept = np.concatenate(([0], np.cumsum(stays)))
    return type(rows)((rows.data[stays], rows.indices[stays], kept[rows.indptr]), shape=rows.shape)


def _write_mtx(source: Any, stays: NDArray[np.bool_]) -> bytes:
    import scipy.io

    rows, (field, symmetry) = source
    content = io.BytesIO()
    scipy.io.mmwrite(content, _cut_matrix(rows, stays).tocoo(), field=field, symmetry=symmetry)
    return content.getvalue()


# --- GraphML -------------------------------------------------------------------------------------------------------


class _RootReached(Exception):
    """The part of a document where a document type can be declared is over."""


def _refuse_doctype(content: bytes, name: str) -> None:
    """Refuse a document type declaration, from which entities come that grow without bound or name other files."""
    from xml.parsers import expat

    def refuse(*_: object) -> None:
        raise ValueError(f"{name}: has a document type declaration, which is refused; a GraphML file needs none")

    def stop(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(content, True)
    except _RootReached:
        return
    except expat.ExpatError as error:
        raise ValueError(f"{name}, line {error.lineno}: is no XML ({error})") from None


def _graphml(content: bytes, name: str, count: int | None) -> Read:
    import networkx

    _refuse_doctype(content, name)
    try:
        graph = networkx.read_graphml(io.BytesIO(content))
    except Exception as error:  # parsers of XML and values raise many kinds
        raise ValueError(f"{name}: is no GraphML that can be read ({type(error).__name__}: {error})") from None
    columns = graph_columns(graph, num_nodes=count, warn=False)
    if not graph.is_directed():
        columns = GraphColumns(columns.source, columns.target, columns.num_nodes, columns.labels)
    note = "Weights are not used, and are kept when the graph is written." if _has_weights(graph) else ""
    return columns, graph, note


def _has_weights(graph: Any) -> bool:
    return any(weight != 1 for _, _, weight in graph.edges(data="weight", default=1))


def _write_graphml(source: Any, stays: NDArray[np.bool_]) -> bytes:
    import networkx

    edges = list(source.edges())
    kept = source.copy()
    kept.remove_edges_from([edge for edge, here in zip(edges, stays[: len(edges)].tolist(), strict=True) if not here])
    content = io.BytesIO()
    networkx.write_graphml_xml(kept, content)
    return content.getvalue()

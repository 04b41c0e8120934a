"""Graph files of every format: read, refused with file and line, and written back without some edges."""

from __future__ import annotations

import gzip
import io
import zipfile

import networkx as nx
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_files import lines_of, plain_edges
from rankdiag.adapters import GraphFile, read_graph, write_graph
from rankdiag.adapters import _edge_lines as edge_lines
from rankdiag.graphs import as_edge_list, walk_index

PATH = nx.path_graph(4)
BOTH = np.array([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])


def file(tmp_path, name: str, content: str | bytes):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content: str | bytes, name: str = "g.txt", **options) -> GraphFile:
    return read_graph(file(tmp_path, name, content), **options)


def pairs(graph: GraphFile) -> list[tuple[int, int]]:
    return [tuple(edge) for edge in graph.edges.edges.tolist()]


# --- lists of edges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.txt", "0 1\n1 2\n2 3\n"),
        ("g.txt", "0 1\n1 2\n2 3"),  # no end of the last line
        ("g.txt", "# a comment\n% another\n\n0 1\n1 2\n \n# 7 8\n2 3\n"),
        ("g.txt", "  0   1  \n\t1\t2\n2 3 \n"),
        ("g.txt", "0 1\r\n1 2\r\n2 3\r\n"),
        ("g.txt", "0 1 {'weight': 1.5, 'kind': 'a'}\n1 2 {}\n2 3 {}\n"),
        ("g.txt", "0 1\n1 2 7 8\n2 3\n"),  # fields of several lines would fill even rows
        ("g.edges", "0 1 0.5 1999\n1 2 -1e-3 2000\n2 3 7 2001\n"),
        ("g.tsv", "0\t1\n1\t2\n2\t3\n"),
        ("g.tsv", "src\tdst\tw\n0\t1\t5\n1\t2\t5\n2\t3\t5\n"),
        ("g.csv", "0,1\n1,2\n2,3\n"),
        ("g.csv", "\ufeffsource,target,weight\n0,1,2.5\n1,2,\n2,3,x\n"),
        ("g.csv", "vertex a, vertex b\n0, 1\n1 ,2\n2,3\n"),
        ("g.csv", "0;1\n1;2\n2;3\n"),
        ("g.csv", '"0","1"\n"1","2"\n2,3\n'),
        ("g.txt", "00 01\n01 02\n2 3\n"),
        ("g.txt", "0 1\n1 2\n2 3\n1 0\n2 1\n3 2\n"),  # both directions are the same edges again
        ("g.txt.gz", gzip.compress(b"0 1\n1 2\n2 3\n")),
        ("unknown", "0 1\n1 2\n2 3\n"),
    ],
)
def test_every_way_to_write_a_path(tmp_path, name, content):
    graph = read(tmp_path, content, name, format="edges" if name == "unknown" else None)
    assert graph.format == "edges"
    assert graph.edges.num_nodes == 4
    assert graph.edges.labels is None
    assert pairs(graph) == [(0, 1), (1, 2), (2, 3)]


def test_labels_are_numbered_as_they_appear(tmp_path):
    graph = read(tmp_path, "Ada Ben\nBen Cem\nDan Ada\n")
    assert graph.edges.labels == ("Ada", "Ben", "Cem", "Dan")
    assert pairs(graph) == [(0, 1), (1, 2), (3, 0)]
    spaced = read(tmp_path, 'from,to\nNew York,"Paris, Texas"\nParis,New York\n', "g.csv")
    assert spaced.edges.labels == ("New York", "Paris, Texas", "Paris")
    tabs = read(tmp_path, "New York\tBonn\nBonn\tÅbo\n", "g.tsv")
    assert tabs.edges.labels == ("New York", "Bonn", "Åbo")
    sparse = read(tmp_path, "1000000000000 7\n7 42\n", labels=True)
    assert sparse.edges.labels == ("1000000000000", "7", "42")


def test_directions(tmp_path):
    assert pairs(read(tmp_path, "0 1\n1 0\n2 1\n", directed=True)) == [(0, 1), (1, 0), (2, 1)]
    assert pairs(read(tmp_path, "0 1\n1 0\n2 1\n")) == [(0, 1), (2, 1)]


def test_loops_and_isolated_vertices(tmp_path):
    graph = read(tmp_path, "0 0\n1 2\n4 4\n", num_nodes=7)
    assert graph.edges.num_nodes == 7
    assert pairs(graph) == [(1, 2)]
    assert graph.columns.tolist() == [[0, 1, 4], [0, 2, 4]]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=15))
def test_lines_are_the_columns_and_their_reverses(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines") / "g.txt"
    path.write_text("".join(f"{u} {v}\n" for u, v in rows))
    found = read_graph(path, num_nodes=6).edges
    wanted = as_edge_list(np.array([*rows, *((v, u) for u, v in rows)], np.int64).reshape(-1, 2).T, num_nodes=6)
    assert found.edges.tolist() == wanted.edges.tolist()
    assert found.column_edge.tolist() == wanted.column_edge.tolist()
    assert not found.edges.flags.writeable


def test_further_fields_are_spoken_of(tmp_path):
    assert read(tmp_path, "0 1\n").note == ""
    assert read(tmp_path, "0 1 5\n").note.startswith("The field after the two vertices of a line is not used")
    assert read(tmp_path, "0,1,5,6\n", "g.csv").note.startswith("The 2 fields after the two vertices are not used")


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n", "source,target\n"])
def test_files_without_edges(tmp_path, content):
    graph = read(tmp_path, content, "g.csv")
    assert (graph.edges.num_nodes, graph.edges.num_edges) == (0, 0)
    assert write_graph(graph, tmp_path / "out.csv").read_text() == content


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("0 1\n2\n", r"g\.txt, line 2: must have two vertices"),
        ("0 1\n1 2\n\n# x\n3 x\n", r"g\.txt, line 5: 'x' is no vertex id"),
        ("0 1\n1 -2\n", r"g\.txt, line 2: -2 is negative"),
        ("0 1\n1 1.5\n", r"g\.txt, line 2: '1\.5' is no vertex id"),
        ("0 1\n1 99999999999999999999\n", r"g\.txt, line 2: 99999999999999999999 is too large"),
        ("0 1\n1 9999999999\n", r"g\.txt: the largest vertex id is 9999999999, with 2 edges; read it with labels=True"),
        ("0,1\n,2\n", r"g\.txt, line 2: must have two vertices"),
        ("0,1\n1,,2\n", r"g\.txt, line 2: must have two vertices"),
        ("0,1\n1\n", r"g\.txt, line 2: must have two vertices"),
        ("a b\nc\n", r"g\.txt, line 2: must have two vertices"),
        ('"0","1"\n"1","y"\n', r"g\.txt, line 2: 'y' is no vertex id"),
        (b"a b\nc \xff\n", r"g\.txt, line 2: is no UTF-8"),
        ("0 1\n".encode("utf-16"), r"g\.txt: is no UTF-8 text"),
        (b"\x1f\x8bbroken", r"g\.txt: is a damaged gzip file"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        read(tmp_path, content)


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12),
    more=st.lists(st.sampled_from(["", " 7", " 7 8", " 0.5", "  ", " x"]), min_size=12, max_size=12),
    between=st.sampled_from([" ", "\t", "  "]),
    comments=st.lists(st.booleans(), min_size=12, max_size=12),
    block=st.sampled_from([4, 16, 1 << 24]),
)
def test_ids_are_those_of_a_plain_reader(tmp_path_factory, rows, more, between, comments, block):
    text = ""
    for (u, v), rest, comment in zip(rows, more, comments, strict=False):
        text += ("# note 1 2\n" if comment else "") + f"{u}{between}{v}{rest}\n"
    before, edge_lines._BLOCK = edge_lines._BLOCK, block
    try:
        lines = edge_lines.parse(text.encode(), "g.txt")
    finally:
        edge_lines._BLOCK = before
    wanted = [(int(u), int(v)) for u, v in plain_edges(text)]
    assert list(zip(lines.source.tolist(), lines.target.tolist(), strict=True)) == wanted
    found = text.split("\n")
    assert [found[number].split()[:2] for number in lines.line] == [list(edge) for edge in plain_edges(text)]


def test_even_and_uneven_blocks_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 1000, size=(500, 3))
    even = "".join(f"{u} {v} {w}\n" for u, v, w in rows)
    uneven = "".join(f"{u}  {v} {w}\n" for u, v, w in rows)
    a, b = read(tmp_path, even), read(tmp_path, uneven)
    assert a.columns.tolist() == b.columns.tolist() == rows[:, :2].T.tolist()


# --- writing lists of edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("g.txt", "# head\n0 1 a\n2 1 b\n\n0 0\n3 2 c\n% foot\n1 2 d", None),
        ("g.csv", "source,target\n0,1\n2,1\n3,2\n", ","),
        ("g.txt", "Ada Ben\nCem Ben\n#\nDan Cem\n", None),
        ("g.txt", "0 1\r\n2 1\r\n3 2\r\n", None),
    ],
)
def test_lines_that_stay_are_as_they_were(tmp_path, name, content, delimiter):
    graph = read(tmp_path, content, name)
    out = tmp_path / f"out{name[1:]}"
    assert write_graph(graph, out).read_bytes() == content.encode()
    keep = np.array([True, False, True])
    ends = graph.edges.edges[1].tolist()
    gone = frozenset(str(v) if graph.edges.labels is None else graph.edges.labels[v] for v in ends)
    written = write_graph(graph, out, keep=keep).read_bytes().decode()
    assert written == lines_of(content, {gone}, delimiter)
    again = read_graph(out)
    assert again.edges.num_edges == 2
    zipped = write_graph(graph, tmp_path / f"{out.name}.gz", keep=keep)
    assert gzip.decompress(zipped.read_bytes()).decode() == written
    assert write_graph(graph, tmp_path / f"{out.name}.gz", keep=keep).read_bytes() == zipped.read_bytes()


def test_all_repeats_of_an_edge_go_and_directions_count(tmp_path):
    content = "0 1\n1 0\n0 1\n1 2\n"
    undirected = read(tmp_path, content)
    out = tmp_path / "out.txt"
    assert write_graph(undirected, out, keep=np.array([False, True])).read_text() == "1 2\n"
    directed = read(tmp_path, content, directed=True)
    assert write_graph(directed, out, keep=np.array([False, True, True])).read_text() == "1 0\n1 2\n"


# --- npz -----------------------------------------------------------------------------------------------------------


def npz(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize(
    ("more", "count"),
    [
        ({}, 4),
        ({"num_nodes": np.int64(9)}, 9),
        ({"x_shape": np.array([6, 3])}, 6),
        ({"y": np.zeros(5, np.int64)}, 5),
        ({"x": np.zeros((7, 2))}, 7),
    ],
)
def test_edge_index_and_what_tells_the_vertices(tmp_path, more, count):
    graph = read(tmp_path, npz(edge_index=BOTH.astype(np.int32), **more), "g.npz")
    assert graph.edges.num_nodes == count
    assert pairs(graph) == [(0, 1), (1, 2), (2, 3)]


def test_arrays_of_edges_are_cut_in_step(tmp_path):
    more = {"edge_attr": np.arange(12.0).reshape(6, 2), "edge_weight": np.arange(6), "y": np.arange(6), "num_nodes": 6}
    graph = read(tmp_path, npz(edge_index=BOTH.astype(np.int32), **more), "g.npz")
    path = write_graph(graph, tmp_path / "out.npz", keep=np.array([True, False, True]))
    with np.load(path, allow_pickle=False) as found:
        assert found["edge_index"].dtype == np.int32
        assert found["edge_index"].tolist() == BOTH[:, [0, 2, 3, 5]].tolist()
        assert found["edge_attr"].tolist() == more["edge_attr"][[0, 2, 3, 5]].tolist()
        assert found["edge_weight"].tolist() == [0, 2, 3, 5]
        assert found["y"].tolist() == [0, 1, 2, 3, 4, 5]
        assert found["num_nodes"] == 6
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED


def test_one_direction_needs_a_word(tmp_path):
    content = npz(edge_index=BOTH[:, :3])
    with pytest.raises(ValueError, match=r"g\.npz: .*edge \(0, 1\) has no reverse.*symmetrise=True or directed=True"):
        read(tmp_path, content, "g.npz")
    both = read(tmp_path, content, "g.npz", symmetrise=True)
    assert pairs(both) == [(0, 1), (1, 2), (2, 3)]
    path = write_graph(both, tmp_path / "out.npz", keep=np.array([True, False, True]))
    assert np.load(path)["edge_index"].tolist() == [[0, 2], [1, 3]]
    assert read(tmp_path, content, "g.npz", directed=True).edges.directed


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_sparse_matrices_of_scipy(tmp_path, kind):
    matrix = scipy.sparse.coo_array((np.arange(1.0, 7), tuple(BOTH)), shape=(5, 5)).asformat(kind)
    path = tmp_path / "g.npz"
    scipy.sparse.save_npz(path, matrix)
    graph = read_graph(path)
    assert graph.edges.num_nodes == 5
    assert graph.note.startswith("Weights are not used")
    keep = ~np.all(np.sort(graph.edges.edges, axis=1) == [1, 2], axis=1)
    found = scipy.sparse.load_npz(write_graph(graph, tmp_path / "out.npz", keep=keep))
    wanted = matrix.toarray()
    wanted[1, 2] = wanted[2, 1] = 0
    assert found.format == kind
    np.testing.assert_array_equal(found.toarray(), wanted)
    assert found.nnz == 4


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no zip", r"g\.npz: is no npz file"),
        (npz(edges=BOTH), r"g\.npz: must hold an array edge_index.*it has edges"),
        (npz(edge_index=BOTH.T), r"g\.npz: .*shape \(2, E\)"),
        (npz(edge_index=BOTH - 1), r"g\.npz: .*negative"),
        (npz(edge_index=BOTH, num_nodes=2), r"g\.npz: .*num_nodes"),
        (npz(edge_index=BOTH * 0.5), r"g\.npz: .*float64"),
        (npz(format=np.array(b"csr"), shape=np.array([2, 2]), data=np.ones(1)), r"g\.npz: is no matrix"),
    ],
)
def test_bad_npz(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        read(tmp_path, content, "g.npz")


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_not_opened(tmp_path):
    content = npz(edge_index=BOTH, extra=np.array([Trap(tmp_path / "opened")], dtype=object))
    with pytest.raises(ValueError, match=r"g\.npz: is no npz file without pickled objects"):
        read(tmp_path, content, "g.npz")
    assert not (tmp_path / "opened").exists()


# --- GraphML -------------------------------------------------------------------------------------------------------


def test_graphml_keeps_attributes(tmp_path):
    graph = nx.Graph(name="club")
    graph.add_node("alone", age=3)
    graph.add_edges_from([("a", "b", {"weight": 2.5}), ("b", "c", {"kind": "x"}), ("c", "a", {})])
    nx.write_graphml_xml(graph, tmp_path / "g.graphml")
    found = read_graph(tmp_path / "g.graphml")
    assert found.edges.labels == ("alone", "a", "b", "c")
    assert found.edges.num_edges == 3
    assert found.note
    out = write_graph(found, tmp_path / "out.graphml", keep=np.array([True, False, True]))
    kept = nx.read_graphml(out)
    assert sorted(kept.nodes(data="age")) == [("a", None), ("alone", 3), ("b", None), ("c", None)]
    assert {frozenset(edge) for edge in kept.edges()} == {
        frozenset(found.edges.labels[v] for v in found.edges.edges[i]) for i in (0, 2)
    }
    assert kept.edges["a", "b"]["weight"] == 2.5
    assert kept.graph["name"] == "club"


def test_directed_graphml(tmp_path):
    nx.write_graphml_xml(nx.DiGraph([(0, 1), (1, 2)]), tmp_path / "g.graphml")
    with pytest.raises(ValueError, match=r"g\.graphml: .*has no reverse"):
        read_graph(tmp_path / "g.graphml")
    graph = read_graph(tmp_path / "g.graphml", directed=True)
    out = write_graph(graph, tmp_path / "out.graphml", keep=np.array([False, True]))
    assert list(nx.read_graphml(out).edges()) == [("1", "2")]
    both = read_graph(tmp_path / "g.graphml", symmetrise=True)
    out = write_graph(both, tmp_path / "out.graphml", keep=np.array([False, True]))
    assert list(nx.read_graphml(out).edges()) == [("1", "2")]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<graphml><graph edgedefault="undirected"><node id="&b;"/></graph></graphml>"""


@pytest.mark.parametrize("content", [BOMB.encode(), BOMB.replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16")])
def test_document_types_are_refused(tmp_path, content):
    with pytest.raises(ValueError, match=r"g\.graphml: has a document type declaration, which is refused"):
        read(tmp_path, content, "g.graphml")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("no xml", r"g\.graphml, line 1: is no XML"),
        ("<graphml>", r"g\.graphml: is no GraphML"),
        ("<graphml><graph edgedefault='undirected'><hyperedge/></graph></graphml>", r"g\.graphml: is no"),
    ],
)
def test_bad_graphml(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        read(tmp_path, content, "g.graphml")


def test_multigraphs_are_refused(tmp_path):
    nx.write_graphml_xml(nx.MultiGraph([(0, 1), (0, 1)]), tmp_path / "g.graphml")
    with pytest.raises(ValueError, match=r"g\.graphml: .*multigraph"):
        read_graph(tmp_path / "g.graphml")


# --- Matrix Market -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetry", ["symmetric", "general"])
def test_matrix_market(tmp_path, symmetry):
    matrix = scipy.sparse.coo_array((np.array([1.0, 2, 3, 1, 2, 3]), tuple(BOTH)), shape=(5, 5))
    scipy.io.mmwrite(tmp_path / "g.mtx", matrix, symmetry=symmetry)
    graph = read_graph(tmp_path / "g.mtx")
    assert graph.edges.num_nodes == 5
    assert graph.edges.num_edges == 3
    keep = ~np.all(np.sort(graph.edges.edges, axis=1) == [1, 2], axis=1)
    out = write_graph(graph, tmp_path / "out.mtx", keep=keep)
    assert out.read_text().splitlines()[0].endswith(symmetry)
    wanted = matrix.toarray()
    wanted[1, 2] = wanted[2, 1] = 0
    np.testing.assert_array_equal(scipy.io.mmread(out).toarray(), wanted)


def test_patterns_stay_patterns(tmp_path):
    head = "%%MatrixMarket matrix coordinate pattern symmetric\n"
    graph = read(tmp_path, f"{head}3 3 2\n2 1\n3 2\n", "g.mtx")
    assert graph.note == ""
    out = write_graph(graph, tmp_path / "out.mtx", keep=np.array([True, False]))
    assert out.read_text().startswith(head)
    assert read_graph(out).edges.edges.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("nothing", r"g\.mtx: is no Matrix Market file"),
        ("%%MatrixMarket matrix coordinate real general\n2 3 1\n1 1 1\n", r"g\.mtx: .*square"),
        ("%%MatrixMarket matrix array real general\n2 2\n1\n1\n1\n1\n", r"g\.mtx: must be .*coordinates"),
    ],
)
def test_bad_matrices(tmp_path, content, text):
    with pytest.raises(ValueError, match=text):
        read(tmp_path, content, "g.mtx")


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"format": "gml"}, ValueError, "`format` must be"),
        ({"num_nodes": 1}, ValueError, r"g\.txt: `num_nodes`"),
        ({"num_nodes": 2.0}, TypeError, "`num_nodes`"),
        ({"directed": "yes"}, TypeError, "`directed`"),
        ({"directed": True, "symmetrise": True}, ValueError, "`symmetrise` adds reverse edges"),
        ({"labels": True, "num_nodes": 9}, ValueError, "`num_nodes` must be 4, the labels"),
        ({"format": "npz", "labels": True}, ValueError, "`labels` is for lists of edges"),
    ],
)
def test_options_are_checked(tmp_path, options, error, text):
    with pytest.raises(error, match=text):
        read(tmp_path, "0 1\n1 2\n2 3\n", **options)


def test_a_file_is_no_graph_but_holds_one(tmp_path):
    graph = read(tmp_path, "0 1\n1 2\n")
    assert walk_index(graph.edges, [0], 2) == 5
    with pytest.raises(TypeError, match=r"got GraphFile. Pass its \.edges"):
        walk_index(graph, [0], 2)


def test_names_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_graph(tmp_path / "absent.txt")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_graph(tmp_path, format="edges")
    with pytest.raises(ValueError, match=r"`path` must end in \.txt"):
        read(tmp_path, "0 1\n", "g.gexf")
    with pytest.raises(TypeError, match="`path`"):
        read_graph(None)
    graph = read(tmp_path, "0 1\n")
    with pytest.raises(ValueError, match="`path` must end as a file of format edges"):
        write_graph(graph, tmp_path / "out.npz")
    with pytest.raises(ValueError, match=r"`keep` must be a boolean array of shape \(1,\)"):
        write_graph(graph, tmp_path / "out.txt", keep=np.ones(2, bool))
    with pytest.raises(TypeError, match="`graph` must be a GraphFile"):
        write_graph(BOTH, tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()


def test_written_files_are_whole_or_as_before(tmp_path):
    graph = read(tmp_path, "0 1\n1 2\n")
    with pytest.raises(FileNotFoundError, match="folder that exists"):
        write_graph(graph, tmp_path / "nowhere" / "out.txt")
    path = tmp_path / "g.txt"  # over the file that was read: it is all in memory
    assert write_graph(graph, path, keep=np.array([False, True])).read_text() == "1 2\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.txt"]

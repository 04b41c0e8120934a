"""``rankdiag graph``: every kind of file, sets of vertices, gates, written graphs, refusals, the installed script."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from oracles.graphs_pyg import surviving
from rankdiag import result_from_json
from rankdiag.adapters import read_graph
from rankdiag.cli import main
from rankdiag.report import from_json

SCRIPT = Path(sysconfig.get_path("scripts")) / "rankdiag"
# The figure of arXiv 2211.16494: at depth 3 the side {0, 1, 2, 3} has walk index 48, its vertices 33, 29, 48, ...
EDGES = [(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
SINGLE = [33, 29, 48, 33, 34, 48, 34]
NAMES = "abcdefg"
BOTH = np.array([*EDGES, *((v, u) for u, v in EDGES)]).T


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    text = "".join(f"{u} {v}\n" for u, v in EDGES)
    (folder / "g.txt").write_text("# a graph\n" + text)
    (folder / "g.tsv").write_text(text.replace(" ", "\t"))
    (folder / "g.csv").write_text("source,target,w\n" + "".join(f"{u},{v},0.5\n" for u, v in EDGES))
    (folder / "g.edges.gz").write_bytes(gzip.compress(text.encode()))
    np.savez(folder / "g.npz", edge_index=BOTH, num_nodes=7, y=np.array([0, 0, 0, 0, 1, 1, 1]))
    matrix = scipy.sparse.coo_array((np.ones(16), tuple(BOTH)), shape=(7, 7))
    scipy.sparse.save_npz(folder / "s.npz", matrix.tocsr())
    scipy.io.mmwrite(folder / "g.mtx", matrix)
    named = nx.Graph()
    named.add_nodes_from((name, {"side": "left" if name in "abcd" else "right"}) for name in NAMES)
    named.add_edges_from((NAMES[u], NAMES[v]) for u, v in EDGES)
    nx.write_graphml_xml(named, folder / "g.graphml")
    (folder / "names.txt").write_text("".join(f"{NAMES[u]} {NAMES[v]}\n" for u, v in EDGES))
    (folder / "side.txt").write_text("# one side\n0\n1,2\n3\n")
    (folder / "groups.txt").write_text("left\nleft\nleft\nleft\nright\nright\nright\n")
    (folder / "pairs.csv").write_text("0,left\n1,left\n2,left\n3,left\n6,right\n5,right\n4,right\n")
    return folder


FILES = ("g.txt", "g.tsv", "g.csv", "g.edges.gz", "g.npz", "s.npz", "g.mtx")


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["graph", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def read(capsys, *arguments: object) -> Any:
    code, out, err = run(capsys, *arguments, "--json", "--quiet")
    assert (code, err) == (0, "")
    return from_json(out)


# --- walk-index ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_figure_in_every_kind_of_file(capsys, files, name):
    found = read(capsys, "walk-index", files / name, "--depth", 3, "--subset", "0,1,2,3")
    assert (found.walk_index, found.num_nodes, found.num_edges) == (48, 7, 8)
    assert found.boundary.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("name", ["g.graphml", "names.txt"])
def test_vertices_with_names(capsys, files, name):
    found = read(capsys, "walk-index", files / name, "--depth", 3, "--subset", "a, b,c,d", "--target", "c")
    assert found.walk_index == 9
    assert sorted(start.label for start in found.starts) == ["c", "d", "e", "f"]


def test_a_set_in_a_file(capsys, files):
    found = read(capsys, "walk-index", files / "g.txt", "--depth", 4, "--subset", f"@{files / 'side.txt'}")
    assert found.walk_index == 163


def test_a_target(capsys, files):
    arguments = ("walk-index", files / "g.txt", "--depth", 3, "--subset", "0,1,2,3", "--target")
    assert [read(capsys, *arguments, target).walk_index for target in range(7)] == [5, 4, 9, 6, 7, 10, 7]


def test_widths_add_bounds(capsys, files):
    found = read(capsys, "walk-index", files / "g.txt", "--depth", 2, "--subset", "0,1", "--d-in", 2, "--d-hidden", 2)
    assert found.bounds.depth == 2


@pytest.mark.parametrize(
    ("name", "by"),
    [("g.npz", "y"), ("g.graphml", "side"), ("g.txt", "@groups.txt"), ("g.csv", "@pairs.csv")],
)
def test_groups_from_everywhere(capsys, files, name, by):
    by = f"@{files / by[1:]}" if by.startswith("@") else by
    scan = read(capsys, "walk-index", files / name, "--depth", 3, "--group-by", by)
    assert {row.name: (row.size, row.walk_index) for row in scan} in (
        {"left": (4, 48), "right": (3, 48)},
        {"0": (4, 48), "1": (3, 48)},
    )
    pair = read(capsys, "walk-index", files / name, "--depth", 3, "--group-by", by, "--pairs")
    assert [row.walk_index for row in pair] == [48]


@pytest.mark.parametrize("name", ["g.txt", "g.graphml"])
def test_without_a_set_every_vertex_is_a_group(capsys, files, name):
    scan = read(capsys, "walk-index", files / name, "--depth", 3)
    names = "0123456" if name == "g.txt" else NAMES
    assert {row.name: row.walk_index for row in scan} == dict(zip(names, SINGLE, strict=True))


def test_single_vertices_of_a_large_graph(capsys, tmp_path):
    edges = np.random.default_rng(0).integers(0, 40_000, (50_000, 2))
    np.savetxt(tmp_path / "g.txt", edges, fmt="%d")
    code, out, _ = run(capsys, "walk-index", tmp_path / "g.txt", "--depth", 2, "--max-rows", 3)
    assert code == 0
    assert "more rows" in out
    assert len(out) < 4000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "far.txt",
            "0 1\n1 50000000\n",
            "far.txt: the largest vertex id is 50000000, with 2 edges; read it with --labels",
        ),
        ("g.adj", "0 1\n", "FILE must end in .*--format says it for other names"),
        ("g.mtx", "%%MatrixMarket matrix coordinate pattern general\n2 2 1\n1 2\n", "take --symmetrise or --directed"),
        ("m.txt", "0 1\n1 b\n", "m.txt, line 2: .*read it with --labels"),
        ("folder.txt", None, "there is no file .*; that is a folder"),
    ],
)
def test_messages_name_options(capsys, tmp_path, name, content, message):
    place = tmp_path / name
    place.mkdir() if content is None else place.write_text(content)
    code, _, err = run(capsys, "walk-index", place, "--depth", 2)
    assert code == 3
    assert re.search(message, err)
    assert "`" not in err


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="pipes have no names here")
def test_a_pipe_is_read(capsys, files):
    taken, given = os.pipe()
    os.write(given, (files / "g.txt").read_bytes())
    os.close(given)
    place = f"/dev/fd/{taken}"
    scan = read(capsys, "walk-index", place, "--format", "edges", "--depth", 3, "--subset", "0,1,2,3")
    os.close(taken)
    assert scan.walk_index == 48


def test_a_dash_is_no_file(capsys):
    code, _, err = run(capsys, "walk-index", "-", "--depth", 2)
    assert code == 2
    assert "standard input is /dev/stdin, with --format" in err


def test_ids_in_no_line_are_told(capsys, tmp_path):
    (tmp_path / "one.txt").write_text("1 2\n2 3\n")
    code, _, err = run(capsys, "walk-index", tmp_path / "one.txt", "--depth", 2)
    assert code == 0
    assert "Of ids 0 to 3, 1 id is in no line; --labels" in err
    for more in (["--labels"], ["--num-nodes", 4], ["--quiet"]):
        assert run(capsys, "walk-index", tmp_path / "one.txt", "--depth", 2, *more)[2] == ""


def test_directed_graphs(capsys, tmp_path):
    (tmp_path / "d.txt").write_text("0 1\n1 2\n2 0\n3 0\n1 3\n")
    found = read(capsys, "walk-index", tmp_path / "d.txt", "--directed", "--depth", 3, "--subset", "0")
    assert found.walk_index == 12
    np.savez(tmp_path / "d.npz", edge_index=np.array(EDGES).T)
    code, _, err = run(capsys, "walk-index", tmp_path / "d.npz", "--depth", 3, "--subset", "0,1,2,3")
    assert code == 3
    assert "d.npz: " in err
    assert "no reverse" in err
    arguments = ("--symmetrise", "--depth", 3, "--subset", "0,1,2,3")
    assert read(capsys, "walk-index", tmp_path / "d.npz", *arguments).walk_index == 48


def test_options_of_the_file(capsys, files, tmp_path):
    (tmp_path / "odd.name").write_text("10 20\n20 30\n")
    arguments = ("walk-index", tmp_path / "odd.name", "--format", "edges", "--depth", 2)
    assert read(capsys, *arguments, "--subset", "10", "--labels").num_nodes == 3
    assert read(capsys, *arguments, "--subset", "10", "--num-nodes", 50).num_nodes == 50
    code, out, err = run(capsys, "walk-index", files / "g.csv", "--depth", 2, "--subset", "0")
    assert code == 0
    assert "not used" not in out
    assert err.startswith("rankdiag: g.csv: The field after the two vertices of a line is not used, and kept")
    assert err.count("\n") == 1


# --- sparsify ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "g.graphml", "names.txt"])
def test_the_written_graph_is_what_sparsification_leaves(capsys, files, tmp_path, name):
    out = tmp_path / f"half.{name.partition('.')[2]}"
    curves = read(capsys, "sparsify", files / name, "--keep-ratio", 0.5, "--write", out)
    source, found = read_graph(files / name), read_graph(out)
    alive = surviving([tuple(edge) for edge in source.edges.edges.tolist()], 4)
    labels = found.edges.labels or tuple(range(found.edges.num_nodes))
    names = source.edges.labels or tuple(range(7))
    assert {frozenset(labels[v] for v in edge) for edge in found.edges.edges.tolist()} == {
        frozenset(names[v] for v in edge) for edge in alive
    }
    assert curves.rows[-1].kept == 4
    assert curves.rows[0].kept == 8


def test_a_certificate_verifies(capsys, files, tmp_path):
    from rankdiag.graphs import verify_wis_certificate

    for depth, tie_break in ((2, "first"), (3, "last")):
        path = tmp_path / f"c{depth}.json"
        options = ("--depth", depth, "--tie-break", tie_break, "--certificate", path)
        read(capsys, "sparsify", files / "g.txt", *options)
        certificate = result_from_json(path.read_text())
        assert verify_wis_certificate(read_graph(files / "g.txt").edges, certificate).valid
        assert (certificate.depth, certificate.tie_break, len(certificate.edge_ids)) == (depth, tie_break, 8)


def test_order_of_the_figure(capsys, files, tmp_path):
    """The published orders: 2-5, 0-1, 2-4 go first by degrees, and 2-5, 5-6, 2-4 at depth 3 with the last of ties."""
    for options, gone in (((), ["2 5", "0 1", "2 4"]), (("--depth", 3, "--tie-break", "last"), ["2 5", "5 6", "2 4"])):
        read(capsys, "sparsify", files / "g.txt", "--num-remove", 3, "--write", tmp_path / "out.txt", *options)
        kept = (tmp_path / "out.txt").read_text().splitlines()
        assert sorted(set((files / "g.txt").read_text().splitlines()) - set(kept)) == sorted(gone)


def test_other_orders_and_sets_are_followed(capsys, files):
    options = ("--compare", "random", "--compare", "spectral", "--seed", 3)
    curves = read(capsys, "sparsify", files / "g.npz", "--group-by", "y", *options)
    assert {row.order for row in curves} == {"WIS", "random", "spectral"}
    assert {part.subset for part in curves.partitions} == {"0", "1"}
    again = read(capsys, "sparsify", files / "g.npz", "--group-by", "y", *options)
    assert again.rows == curves.rows
    one = read(capsys, "sparsify", files / "g.txt", "--subset", "0,1,2,3", "--num-remove", 2)
    assert {part.subset for part in one.partitions} == {"subset"}
    assert {row.kept for row in one} == {8, 7, 6}


def test_vertices_without_a_line_are_spoken_of(capsys, files, tmp_path):
    out = tmp_path / "out.txt"
    for name, remedy in (("g.txt", "; read it with --num-nodes 7"), ("names.txt", "")):
        code, _, err = run(capsys, "sparsify", files / name, "--num-remove", 7, "--write", out)
        assert (code, err) == (0, f"rankdiag: out.txt: 5 vertices have no line any more{remedy}\n")
    assert run(capsys, "sparsify", files / "g.txt", "--num-remove", 1, "--write", out)[2] == ""
    assert run(capsys, "sparsify", files / "g.txt", "--num-remove", 7, "--write", out, "--quiet")[2] == ""


def test_steps_of_several_edges(capsys, files, tmp_path):
    read(capsys, "sparsify", files / "g.txt", "--num-remove", 3, "--batch-size", 3, "--write", tmp_path / "out.txt")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize("content", ["", "3 3\n"])
def test_graphs_without_edges(capsys, tmp_path, content):
    (tmp_path / "g.txt").write_text(content)
    code, _, err = run(capsys, "sparsify", tmp_path / "g.txt", "--keep-ratio", 0.5, "--write", tmp_path / "out.txt")
    assert code == 0
    assert err == (
        "rankdiag: g.txt: Of ids 0 to 3, 3 ids are in no line; --labels takes only those that are for vertices.\n"
        if content
        else ""
    )
    assert (tmp_path / "out.txt").read_text() == content


# --- bounds --------------------------------------------------------------------------------------------------------


def test_bounds_and_the_exact_rank(capsys, tmp_path):
    (tmp_path / "p4.txt").write_text("0 1\n1 2\n2 3\n")
    arguments = ("bounds", tmp_path / "p4.txt", "--subset", "0,1", "--depth", 2, "--d-in", 2, "--d-hidden", 2)
    found = read(capsys, *arguments)
    assert found.log_upper_mincut == pytest.approx(np.log(32))
    bounds, rank = read(capsys, *arguments, "--exact")
    assert bounds == found
    assert (rank.rank, rank.saturated) == (24, False)
    _, small = read(capsys, *arguments, "--exact", "--max-rank", 16)
    assert (small.rank, small.saturated) == (16, True)
    code, out, _ = run(capsys, *arguments, "--exact")
    assert code == 0
    assert "Bounds on the separation rank" in out
    assert "Generic separation rank" in out
    page = tmp_path / "page.html"
    for suffix in ("txt", "md", "json"):
        target = tmp_path / f"both.{suffix}"
        assert run(capsys, *arguments, "--exact", "--output", target, "--html", page)[:2] == (0, "")
        assert "rank" in target.read_text()
    assert "Generic separation rank" in page.read_text()
    depth3 = ("bounds", tmp_path / "p4.txt", "--subset", "0,1", "--depth", 3, "--d-in", 2, "--d-hidden", 2)
    assert [read(capsys, *depth3, "--target", t, "--exact")[1].rank for t in (0, 1)] == [6, 16]


# --- gates, outputs, refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "rule", "code"),
    [
        ("walk-index g.txt --depth 3 --subset 0,1,2,3", "walk_index < 49", 1),
        ("walk-index g.txt --depth 3 --subset 0,1,2,3", "walk_index < 48", 0),
        ("walk-index g.npz --depth 3 --group-by y", "share < 0.9", 1),
        ("walk-index g.txt --depth 3", "walk_index < 29", 0),
        ("sparsify g.txt --num-remove 7", "isolated > 0", 1),
        ("sparsify g.txt --num-remove 1", "isolated > 0", 0),
        ("bounds g.txt --subset 0 --depth 1 --d-in 2 --d-hidden 2", "log_upper_mincut < 1", 1),
        ("bounds g.txt --subset 0 --depth 1 --d-in 2 --d-hidden 2 --exact", "rank > 1", 1),
        ("bounds g.txt --subset 0 --depth 1 --d-in 2 --d-hidden 2 --exact", "rank > 2", 0),
    ],
)
def test_gates(capsys, files, arguments, rule, code):
    command, name, *rest = arguments.split()
    found, _, err = run(capsys, command, files / name, *rest, "--quiet", "--fail-on", rule)
    assert found == code
    assert ("--fail-on" in err) == bool(code)


def test_gates_on_counts_beyond_float64(capsys, files):
    """The figure at depth 2000 has a walk index of 1058 digits."""
    arguments = ("walk-index", files / "g.txt", "--depth", 2000, "--subset", "0,1,2,3", "--fail-on")
    code, out, err = run(capsys, *arguments, "walk_index > 5")
    assert code == 1
    assert "walk_index 10^1057.22 > 5" in err
    assert "Walk index of a partition" in out
    assert run(capsys, *arguments, "walk_index < 5")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("", "required"),
        ("walk-index g.txt", "--depth"),
        ("walk-index g.txt --depth three", "--depth"),
        ("walk-index g.txt --depth 3 --subset 0 --group-by y", "not allowed with"),
        ("walk-index g.txt --depth 3 --pairs", "--pairs: needs --group-by"),
        ("walk-index g.txt --depth 3 --subset 0 --d-in 2", "needs --d-hidden"),
        ("walk-index g.txt --depth 3 --d-in 2 --d-hidden 2", "needs --subset"),
        ("walk-index g.txt --depth 3 --directed --symmetrise", "--symmetrise: not with --directed"),
        ("walk-index g.txt --depth 3 --fail-on colour>3", "--fail-on"),
        ("walk-index g.txt --depth 3 --fail-on alert", "COLUMN OP NUMBER"),
        ("sparsify g.txt --keep-ratio 0.5 --num-remove 3", "not allowed with"),
        ("sparsify g.txt --write out.txt", "--write: needs --keep-ratio or --num-remove"),
        ("sparsify g.txt --num-remove 1 --write out.npz", "--write: must end as FILE does"),
        ("sparsify g.txt --num-remove 1 --write g.txt", "is an input"),
        ("sparsify g.txt --certificate c.txt", "--certificate: must end in .json"),
        ("sparsify g.txt --certificate c.json --output c.json", "is what --output writes"),
        ("sparsify g.txt --tie-break middle", "invalid choice"),
        ("bounds g.txt --depth 2", "required"),
        ("bounds g.txt --subset 0 --depth 2 --d-in 2 --d-hidden 2 --seed 1", "--seed: needs --exact"),
        ("bounds g.txt --subset 0 --depth 2 --d-in 2 --d-hidden 2 --fail-on colour>3", "--fail-on"),
    ],
)
def test_wrong_usage_is_2(capsys, files, monkeypatch, arguments, text):
    monkeypatch.chdir(files)
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert text in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("walk-index absent.txt --depth 3", "there is no file"),
        ("walk-index side.txt --depth 3", "side.txt, line 2: must have two vertices"),
        ("walk-index g.txt --depth 0", "`depth`"),
        ("walk-index g.txt --depth 3 --subset 0,9", "--subset: 9 is no vertex of the graph; ids are 0 to 6"),
        ("walk-index g.txt --depth 3 --subset 0,x", "--subset: 'x' is no vertex id"),
        ("walk-index g.txt --depth 3 --subset 0,0", "duplicate"),
        ("walk-index g.txt --depth 3 --subset ,", "names no vertex"),
        ("walk-index g.txt --depth 3 --subset @absent", "absent"),
        ("walk-index g.graphml --depth 3 --subset 0", "--subset: '0' is no vertex of the graph"),
        ("walk-index g.txt --depth 3 --subset 0 --target 8", "--target: 8"),
        ("walk-index g.txt --depth 3 --group-by y", "g.txt: holds edges only; 'y' must be @FILE"),
        ("walk-index g.npz --depth 3 --group-by z", "g.npz: has no 'z' of its vertices; it has y"),
        ("walk-index g.graphml --depth 3 --group-by z", "g.graphml: has no 'z' of its vertices; it has side"),
        ("walk-index names.txt --depth 3 --group-by @side.txt", "side.txt, line 2"),
        ("walk-index g.txt --depth 3 --num-nodes 8 --group-by @groups.txt", "a group for each of 8 vertices; it has 7"),
        ("sparsify g.txt --keep-ratio 1.5", "`keep_ratio`"),
        ("sparsify g.txt --num-remove -1", "`num_remove`"),
        ("sparsify g.txt --batch-size 0", "`batch_size`"),
        ("bounds g.txt --subset 0 --depth 2 --d-in 0 --d-hidden 2", "`d_in`"),
    ],
)
def test_bad_input_is_3(capsys, files, monkeypatch, arguments, text):
    monkeypatch.chdir(files)
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (3, "")
    assert text in err
    assert err.startswith("rankdiag: ")


def test_a_failed_command_writes_nothing(capsys, files, tmp_path):
    out = tmp_path / "out.txt"
    options = ("--num-remove", 2, "--write", out, "--certificate", tmp_path / "c.json", "--subset", "99")
    assert run(capsys, "sparsify", files / "g.txt", *options)[0] == 3
    assert list(tmp_path.iterdir()) == []


def test_tables_go_to_files(capsys, files, tmp_path):
    for suffix in ("csv", "md", "json", "txt"):
        target = tmp_path / f"scan.{suffix}"
        assert run(capsys, "walk-index", files / "g.txt", "--depth", 3, "--output", target) == (0, "", "")
        assert "48" in target.read_text()
    page = tmp_path / "page.html"
    assert run(capsys, "walk-index", files / "g.txt", "--depth", 3, "--subset", "0", "--html", page)[0] == 0
    assert "<svg" in page.read_text()


def test_a_missing_extra_is_4(capsys, files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run(capsys, "sparsify", files / "g.txt", "--output", tmp_path / "x.parquet")
    assert code == 4
    assert 'pip install "rankdiag[parquet]"' in err


def test_the_installed_script(files, tmp_path):
    command = [SCRIPT, "graph", "sparsify", files / "g.txt", "--num-remove", "2", "--write", tmp_path / "out.txt"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Removal of edges" in done.stdout
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 7


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom rankdiag.cli import main\nmain(['graph', 'sparsify', '--help'])\n"
        "print(sorted({'numpy', 'scipy', 'networkx', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr

"""Check a removal order of walk index sparsification with a program that knows nothing of rankdiag.

``python examples/verify_wis_certificate.py`` makes certificates with rankdiag, saves them as JSON, and checks them with
the functions above ``main``, which use the standard library alone and can be copied anywhere. It also checks spoiled
ones, and ends with an error if one passes. ``python examples/verify_wis_certificate.py certificate.json [edges.json]``
only checks a file, with rankdiag neither imported nor needed; ``edges.json``, if given, holds the edges
[[u, v], ...] of the graph that the certificate should be about.

The JSON, as ``wis_certificate(graph, order).to_json()`` writes it, holds under ``"fields"``

- ``num_nodes``: vertices are 0 to num_nodes - 1;
- ``directed``: whether [u, v] and [v, u] are two edges;
- ``edges``: all edges of the graph; the row number, from 0, is the edge id;
- ``edge_ids``: the removed edges, first removed first;
- ``keys``: one for each removal. For depth 2 of an undirected graph [smaller degree, larger degree] of the two ends,
  self-loops not counted. Otherwise [value, change, value, change, ...], values ascending: how the number of vertices
  with each walk index changes when the edge goes;
- ``depth``: layers L; the walk index of a vertex counts closed walks of length L, with a self-loop at every vertex,
  and is 0 for a vertex that no other vertex points to;
- ``tie_break``: "first" or "last", the smallest or the largest id of several best edges goes;
- ``batch_size``: how many edges go between two looks at the graph; keys are those at the start of the batch.

``edges``, ``edge_ids`` and the keys of depth 2 are ``{"dtype": ..., "shape": [rows, columns], "data": [...]}``, row by
row; other keys are lists of lists. The rest of the file (``"type"``, ``"schema_version"``, ``"meta"``) is for readers.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


# --- The checker: nothing but the standard library -------------------------------------------------------------------
def unpack(entry):
    """Rows of an array of the file."""
    if not isinstance(entry, dict):
        return entry
    data, shape = entry["data"], entry["shape"]
    return data if len(shape) == 1 else [data[i : i + shape[1]] for i in range(0, len(data), shape[1])]


def check(text: str, edges=None) -> str:
    """Return "" if the certificate holds, else what is wrong with it."""
    fields = json.loads(text)["fields"]
    n, directed, depth = fields["num_nodes"], fields["directed"], fields["depth"]
    claimed, removed, keys = unpack(fields["edges"]), unpack(fields["edge_ids"]), unpack(fields["keys"])
    shape = (lambda e: tuple(e)) if directed else (lambda e: tuple(sorted(e)))
    if edges is not None and [shape(e) for e in edges] != [shape(e) for e in claimed]:
        return "the certificate is about another graph"
    if len(set(map(shape, claimed))) < len(claimed) or any(
        u == v or not 0 <= min(u, v) <= max(u, v) < n for u, v in claimed
    ):
        return "the edges are no simple graph"
    if len(set(removed)) < len(removed) or not all(0 <= e < len(claimed) for e in removed) or len(keys) != len(removed):
        return "the removals are no list of different edges with one key each"
    sign = 1 if fields["tie_break"] == "first" else -1
    if depth == 2 and not directed and fields["batch_size"] == 1:
        return check_degrees(n, claimed, removed, keys, sign)
    return check_walks(n, claimed, removed, keys, sign, depth, directed, fields["batch_size"])


def check_degrees(n, edges, removed, keys, sign) -> str:
    """Depth 2 in O(sum of the smaller degrees + M): an edge is looked at when its smaller degree falls.

    `level` is the smaller degree of the current removal. Every living edge has at most this smaller degree. Edges of
    the level are compared with a removal when it lowers an end of degree `level`; edges at an end of higher degree have
    the same key as the removal, so that the worst id that left this end in this level is all that must be remembered.
    """
    at = [[] for _ in range(n)]
    for e, (u, v) in enumerate(edges):
        at[u].append(e)
        at[v].append(e)
    degree = [len(found) for found in at]
    alive = [True] * len(edges)
    lowest = Counter(min(degree[u], degree[v]) for u, v in edges)  # living edges by smaller degree
    level = max(lowest, default=0)
    left: dict[int, tuple[int, int]] = {}  # vertex: (level, worst id that left it there)

    def passed_over(e, ends) -> bool:
        return any(left.get(x, (0, 0))[0] == level and left[x][1] > sign * e for x in ends)

    previous = None
    for step, (e, key) in enumerate(zip(removed, keys, strict=True)):
        u, v = sorted(edges[e], key=degree.__getitem__)
        low, high = degree[u], degree[v]
        if list(key) != [low, high]:
            return f"removal {step}: the key of edge {e} is {[low, high]}, not {list(key)}"
        now = (-low, -high, sign * e)
        if previous is not None and now < previous:
            return f"up to removal {step}: this edge is better than the one before"
        previous = now
        while level > low:
            if lowest[level]:
                return f"up to removal {step}: an edge with smaller degree {level} is still there"
            level -= 1
        if passed_over(e, (u, v)):
            return f"up to removal {step}: an edge at one end of edge {e} was taken before it"
        alive[e] = False
        lowest[low] -= 1
        for x in (u, v):
            if degree[x] == low:
                at[x] = [f for f in at[x] if alive[f]]
                for f in at[x]:
                    far = degree[sum(edges[f]) - x]
                    if far >= low:
                        if (-low, -far, sign * f) < now or passed_over(f, edges[f]):
                            return f"up to removal {step}: edge {f} should have gone before edge {e}"
                        lowest[low] -= 1
                        lowest[low - 1] += 1
            else:
                left[x] = (level, sign * e)
            degree[x] -= 1
    for f, (u, v) in enumerate(edges):
        if removed and alive[f]:
            low, high = sorted((degree[u], degree[v]))
            if low == level and ((-low, -high, sign * f) < previous or passed_over(f, (u, v))):
                return f"edge {f} is left but should have gone"
    return ""


def check_walks(n, edges, removed, keys, sign, depth, directed, batch) -> str:
    """Any depth, from the definition: every living edge is tried at every look at the graph. For small graphs."""

    def walks(kept):
        into = [{t} for t in range(n)]
        for u, v in kept:
            into[v].add(u)
            if not directed:
                into[u].add(v)
        found = []
        for t in range(n):
            count = [int(x == t) for x in range(n)]  # walks to t, by where they start
            for _ in range(depth):
                longer = [0] * n
                for x in range(n):
                    for y in into[x]:
                        longer[y] += count[x]
                count = longer
            found.append(count[t] if len(into[t]) > 1 else 0)
        return found

    alive = dict(enumerate(edges))
    for start in range(0, len(removed), batch):
        now = Counter(walks(alive.values()))
        without = {e: sorted(walks([pair for f, pair in alive.items() if f != e])) for e in alive}
        best = sorted(sorted(alive, key=lambda e: sign * e), key=lambda e: without[e], reverse=True)
        for step in range(start, min(start + batch, len(removed))):
            e = removed[step]
            if depth == 2 and not directed:
                key = sorted(sum(x in pair for pair in alive.values()) for x in edges[e])
            else:
                after = Counter(without[e])
                change = {value: after[value] - now[value] for value in sorted(after | now)}
                key = [entry for value in change if change[value] for entry in (value, change[value])]
            if list(keys[step]) != key:
                return f"removal {step}: the key of edge {e} is {key}, not {list(keys[step])}"
            if best[step - start] != e:
                return f"removal {step}: edge {best[step - start]} should have gone, not edge {e}"
        for e in removed[start : start + batch]:
            del alive[e]
    return ""


# --- Certificates to spoil and to check: this part needs rankdiag and networkx ---------------------------------------
def exchange(fields) -> None:
    for name in ("edge_ids", "keys"):
        rows = unpack(fields[name])
        rows[0], rows[1] = rows[1], rows[0]
        fields[name] = rows


def other_rule(fields) -> None:
    fields["tie_break"] = "last" if fields["tie_break"] == "first" else "first"


def leave_out(fields) -> None:
    for name in ("edge_ids", "keys"):
        fields[name] = unpack(fields[name])[1:]


SPOILED = {"first two exchanged": exchange, "under the other tie rule": other_rule, "first left out": leave_out}


def main() -> None:
    import tempfile

    import networkx as nx

    from rankdiag.graphs import as_edge_list, wis_certificate, wis_order

    graph = nx.karate_club_graph()
    graph = nx.Graph(graph.edges())
    edges = as_edge_list(graph).edges.tolist()
    checked = spoiled = 0
    with tempfile.TemporaryDirectory() as folder:
        for depth, count in ((2, None), (3, 4)):
            for tie in ("first", "last"):
                order = wis_order(graph, depth, num_edges=count, tie_break=tie)
                path = Path(folder) / f"depth_{depth}_{tie}.json"
                path.write_text(wis_certificate(graph, order).to_json(), encoding="utf-8")
                text = path.read_text(encoding="utf-8")
                fault = check(text, edges)
                assert not fault, fault
                checked += 1
                size = f"{len(text) / 1000:.1f} kB"
                print(f"depth {depth}, ties {tie!r}: {len(order)} removals, {size}, holds")
                for name, spoil in SPOILED.items():
                    if depth > 2 and spoil is other_rule:
                        continue  # the first removals have no ties here
                    data = json.loads(text)
                    spoil(data["fields"])
                    fault = check(json.dumps(data), edges)
                    assert fault, name
                    spoiled += 1
                    print(f"  {name}: {fault}")
        assert check(text, edges[::-1]) == "the certificate is about another graph"
    print(f"holds: {checked} certificates pass, {spoiled} spoiled ones and one of another graph do not.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        files = [Path(name).read_text(encoding="utf-8") for name in sys.argv[1:3]]
        problem = check(files[0], json.loads(files[1]) if len(files) > 1 else None)
        print(problem or "the certificate holds")
        sys.exit(bool(problem))
    main()

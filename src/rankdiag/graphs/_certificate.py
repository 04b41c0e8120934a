"""Certificates of removal orders: everything that another program needs to check an order, and the check itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._document import Column, Document, Grid, KeyNumber
from rankdiag._meta import Meta
from rankdiag._result import Result
from rankdiag._validate import describe
from rankdiag.graphs._certificate_checks import (
    batches_by_degree,
    batches_by_walks,
    compact,
    degree_keys,
    degrees_hold,
    walk_keys,
)
from rankdiag.graphs._edges import EdgeList, normalise
from rankdiag.graphs._wis import WISOrder

__all__ = ["WISCertificate", "WISVerification", "verify_wis_certificate", "wis_certificate"]

Ints = NDArray[np.int64]
Reason = Literal["", "other graph", "repeated edge", "wrong key", "better edge", "tie rule"]

_SHOWN = 10
_MOST_NODES = 3_000_000_000  # as for any graph: an ordered pair of vertices still fits into 64 bits
_OPTIONS = ("vertices", "vertex weights", "edges kept by force", "target")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WISCertificate(Result):
    """A removal order of walk index sparsification with what is needed to check it, without the code that made it.

    Attributes
    ----------
    num_nodes : int
        Vertices of the graph, isolated ones included.
    edges : ndarray of int64, shape (M, 2)
        All edges of the graph; the row number is the edge id.
    edge_ids : ndarray of int64, shape (k,)
        Ids of the removed edges, first removed first.
    keys : ndarray of int64, shape (k, 2), or tuple of tuple of int
        What each removal claims about its edge, read at the start of its batch. Depth 2 of an undirected graph:
        (min degree, max degree) of its two ends, self-loops not counted. Otherwise (value, change, value, change, ...)
        with values ascending: in the graph without the edge, the number of vertices with this walk index grows by
        `change`.
    depth : int
        Number L of layers of the GNN; walks have length L - 1.
    directed : bool
        Whether (u, v) and (v, u) are two edges.
    tie_break : {"first", "last"}
        Which of several best edges goes first: the smallest id or the largest.
    batch_size : int
        How many edges go at once, between two looks at the graph.

    Raises
    ------
    ValueError
        If shapes do not belong together, an id is out of range, or `edges` is no simple graph.

    Notes
    -----
    In the JSON of `to_json` these are the entries of ``"fields"``; an array is written as ``{"dtype", "shape",
    "data"}`` with its data row by row.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import wis_certificate, wis_order
    >>> path = nx.path_graph(4)
    >>> certificate = wis_certificate(path, wis_order(path))
    >>> certificate.edge_ids.tolist(), certificate.keys.tolist()
    ([1, 0, 2], [[2, 2], [1, 1], [1, 1]])
    """

    tag: ClassVar[str] = "graphs.WISCertificate"
    judged: ClassVar[bool] = False

    num_nodes: int
    edges: NDArray[np.int64]
    edge_ids: NDArray[np.int64]
    keys: NDArray[np.int64] | tuple[tuple[int, ...], ...]
    depth: int
    directed: bool = False
    tie_break: Literal["first", "last"] = "first"
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.depth < 1 or self.batch_size < 1 or not 0 <= self.num_nodes <= _MOST_NODES:
            raise ValueError(f"`depth` and `batch_size` must be >= 1, and `num_nodes` from 0 to {_MOST_NODES}")
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or self.edge_ids.ndim != 1:
            raise ValueError(
                f"`edges` must have shape (M, 2) and `edge_ids` shape (k,); got {self.edges.shape} and "
                f"{self.edge_ids.shape}"
            )
        if self.edges.dtype.kind not in "iu" or self.edge_ids.dtype.kind not in "iu":
            raise ValueError("`edges` and `edge_ids` must hold integers")
        by_degree = self.depth == 2 and not self.directed
        if by_degree != isinstance(self.keys, np.ndarray) or len(self.keys) != len(self.edge_ids):
            form = "an array (k, 2)" if by_degree else "tuples"
            raise ValueError(f"`keys` must hold one entry for each of {len(self.edge_ids)} removals, as {form}")
        if isinstance(self.keys, np.ndarray) and (self.keys.shape[1:] != (2,) or self.keys.dtype.kind not in "iu"):
            raise ValueError(f"`keys` must be integers of shape (k, 2); got shape {self.keys.shape}")
        if len(self.edge_ids) and not 0 <= int(self.edge_ids.min()) <= int(self.edge_ids.max()) < len(self.edges):
            raise ValueError(f"`edge_ids` must lie between 0 and {len(self.edges) - 1}, the last row of `edges`")
        self._require_simple()

    def _require_simple(self) -> None:
        if not len(self.edges):
            return
        if int(self.edges.min()) < 0 or int(self.edges.max()) >= self.num_nodes:
            raise ValueError(f"`edges` must hold vertices from 0 to {self.num_nodes - 1}")
        u, v = self.edges.astype(np.int64, copy=False).T
        if not self.directed:
            u, v = np.minimum(u, v), np.maximum(u, v)
        pairs = np.sort(u * self.num_nodes + v)
        if (u == v).any() or (pairs[1:] == pairs[:-1]).any():
            raise ValueError("`edges` must hold no self-loop and no edge twice")

    @property
    def num_edges(self) -> int:
        """Number M of edges of the graph."""
        return len(self.edges)

    def document(self) -> Document:
        """Return what this certificate shows: counts, rules, and the first removals with their keys."""
        rows = []
        for place, edge in enumerate(self.edge_ids[:_SHOWN].tolist()):
            key = ", ".join(str(int(entry)) for entry in self.keys[place])
            rows.append((place + 1, edge, *self.edges[edge].tolist(), key))
        columns = (
            Column(name="removal", doc="1 goes first."),
            Column(name="edge_id", label="edge id"),
            Column(name="u", label="from" if self.directed else "end"),
            Column(name="v", label="to" if self.directed else "other end"),
            Column(name="key"),
        )
        return dataclasses.replace(
            super(WISCertificate, self).document(),  # the short form of super() fails in a dataclass with slots
            title=f"Certificate of an order of removal, depth {self.depth}",
            key_numbers=(
                KeyNumber(label="edges", value=self.num_edges),
                KeyNumber(label="removals", value=len(self.edge_ids)),
                KeyNumber(label="vertices", value=self.num_nodes),
                KeyNumber(label="depth", value=self.depth, doc="Layers of the GNN; walks are one shorter."),
            ),
            grids=(Grid(title="First removals", columns=columns, rows=tuple(rows)),),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WISVerification(Result):
    """Whether a certificate holds, and if not, the first removal that is wrong.

    Attributes
    ----------
    valid : bool
        Whether every removal of the certificate is right.
    reason : {"", "other graph", "repeated edge", "wrong key", "better edge", "tie rule"}
        Empty if it is valid. The certificate is about another graph, an edge goes twice, a claimed key is not that of
        the edge, an edge with a better key was there, or one with the same key that the tie rule prefers.
    checked : int
        Removals that are right, before the first wrong one.
    first_wrong : int or None
        Place of the first wrong removal, from 0.
    edge_id : int or None
        Which edge it removes.
    better_edge_id : int or None
        Which edge should have gone instead, for "better edge" and "tie rule".
    key : tuple of int
        True key of the removed edge at that moment; empty for "other graph" and "repeated edge".
    better_key : tuple of int
        Key of the edge that should have gone, or empty.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import verify_wis_certificate, wis_certificate, wis_order
    >>> path = nx.path_graph(6)
    >>> last = wis_certificate(path, wis_order(path, tie_break="last"))
    >>> verify_wis_certificate(path, last).valid
    True
    """

    tag: ClassVar[str] = "graphs.WISVerification"
    judged: ClassVar[bool] = False

    valid: bool
    reason: Reason
    checked: int
    first_wrong: int | None = None
    edge_id: int | None = None
    better_edge_id: int | None = None
    key: tuple[int, ...] = ()
    better_key: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return self.valid

    def document(self) -> Document:
        """Return what the check found."""
        return dataclasses.replace(super(WISVerification, self).document(), title="Check of an order of removal")


def wis_certificate(graph: Any, order: WISOrder) -> WISCertificate:
    """Make a certificate of a removal order, so that another program can verify it.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data or EdgeList
        The graph that the order was made from; see `as_edge_list`.
    order : WISOrder
        What `wis_order` returned, whole or partial.

    Returns
    -------
    WISCertificate
        The graph, the rules, the removals and the key of each; write it with ``to_json()``.

    Raises
    ------
    TypeError
        If `order` is no `WISOrder`.
    ValueError
        If `order` is not about this graph, or was made for some vertices, weights, kept edges or a target only.

    Notes
    -----
    The keys come from replaying the order, nothing is judged: a wrong order gets a certificate that does not verify.
    Depth 2 of an undirected graph: O(M + k). Otherwise closed walks are counted from the definition around each
    removed edge.

    References
    ----------
    arXiv 2211.16494, section 5 (the order); keys and certificates: derived here.

    Examples
    --------
    >>> import networkx as nx
    >>> from rankdiag.graphs import wis_certificate, wis_order
    >>> triangle = nx.complete_graph(3)
    >>> wis_certificate(triangle, wis_order(triangle, depth=3, num_edges=1)).keys
    ((4, 2, 7, 1, 9, -3),)
    """
    if not isinstance(order, WISOrder):
        raise TypeError(f"`order` must be a WISOrder, as wis_order returns it; got {describe(order)}")
    special = [name for name in _OPTIONS if name in order.meta.details]
    if special:
        raise ValueError(f"`order` must be a plain order; this one was made with {', '.join(special)}")
    edges = normalise(graph, directed=order.directed, num_nodes=order.num_nodes, warn=False)
    ids = order.edge_ids
    if edges.num_edges != order.num_edges or not np.array_equal(edges.edges[ids], order.edges):
        raise ValueError(f"`order` must be about `graph`; it has other edges than this {edges!r}")
    keys: NDArray[np.int64] | tuple[tuple[int, ...], ...]
    pairs, n = compact(edges.edges, edges.num_nodes)
    if order.depth == 2 and not order.directed:
        keys = degree_keys(pairs, n, ids, order.batch_size)
        keys.flags.writeable = False
    else:
        keys = walk_keys(pairs, n, order.depth, order.directed, ids, order.batch_size)
    what = "degrees of the two ends" if isinstance(keys, np.ndarray) else "change of the histogram of walk indices"
    return WISCertificate(
        num_nodes=edges.num_nodes,
        edges=edges.edges,
        edge_ids=ids,
        keys=keys,
        depth=order.depth,
        directed=order.directed,
        tie_break=order.tie_break,
        batch_size=order.batch_size,
        explanation=(
            f"{len(ids)} removals from a graph with {edges.num_nodes} vertices and {edges.num_edges} edges, each with "
            f"its key ({what}). Whoever has the graph can check that no removal had a better edge beside it."
        ),
        meta=Meta(
            definition="removal order of walk index sparsification with the key of every removal",
            units="edges",
            n=len(ids),
            details={
                "depth": _walks(order.depth).removeprefix("depth "),
                "ties": f"{order.tie_break} edge id",
                "batch size": order.batch_size,
            },
        ),
    )


def _walks(depth: int) -> str:
    return f"depth {depth} (walks of length {depth - 1})"


def verify_wis_certificate(graph: Any, certificate: WISCertificate, *, num_nodes: int | None = None) -> WISVerification:
    """Check that every removal of a certificate is the one that walk index sparsification makes.

    Parameters
    ----------
    graph : array-like of int (2, E), torch.Tensor, scipy sparse (n, n), networkx graph, PyG Data, EdgeList or None
        The graph the certificate should be about; see `as_edge_list`. None takes the edges in the certificate on trust.
    certificate : WISCertificate
        What `wis_certificate` made, perhaps read from JSON.
    num_nodes : int, optional
        Vertices of `graph`; None takes what the input says, or one more than the largest id of an array.

    Returns
    -------
    WISVerification
        Valid, or the first wrong removal and why; of several reasons a wrong key is told first.

    Raises
    ------
    TypeError
        If `certificate` is no `WISCertificate`.
    ValueError
        If `graph` is not a legal graph.

    Notes
    -----
    *Depth 2, undirected, batches of one* (derived here; arXiv 2211.16494, Algorithm 2, says what the order is). The
    key of an edge is (a, b), the smaller and the larger degree of its ends, and the edge with the largest key, then
    the best id, goes. Keys never rise, and no edge enters a class of equal keys while it is the top one. So a right
    order gets strictly worse, in keys and then ids, from removal to removal; this and the claimed keys are checked
    first. Then an edge that stays has to be compared with one removal only for each value of its key: the last one
    before the key changes, because that is the worst. Call the smaller degree of an edge its level:

    1. An edge leaves level a at the first removal that lowers an end of degree a. Levels of removals only fall, so if
       this one is of level a, no removal before was of a lower level; and the edge must be worse than it.
    2. Inside its level the key of an edge also changes when its other end, of a degree above a, loses an edge. Such a
       hub loses edges of its top key, and all its edges of level a have this key, so only ids count: ids go up from
       one loss of a hub to the next inside a level, and an edge that leaves the level, is removed, or is left at the
       end, must have a worse id than the last loss of a hub of this level at its ends.
    3. Edges that are left are compared with the last removal.

    So each edge is looked at once for each level that it passes through, at most the smaller degree of its ends: all
    together O(arboricity * M) looks, each with one binary search, in whole arrays. A prefix of a right order is right,
    so the first wrong removal is found by bisection over prefixes, log2(k) more checks.

    *Larger batches at depth 2* sort all keys for each batch, O(M log M) each. *Other depths and directed graphs* keep a
    key for every edge, count closed walks again near a removed edge, from the definition (depth 3 of an undirected
    graph: from degrees and triangles, in the few places that change), and compare all keys at each removal: O(M^2) and
    the walks. That is for small graphs; the whole order of Cora at depth 3 takes some seconds.

    References
    ----------
    arXiv 2211.16494, section 5.

    Examples
    --------
    >>> import networkx as nx
    >>> from dataclasses import replace
    >>> from rankdiag.graphs import verify_wis_certificate, wis_certificate, wis_order
    >>> path = nx.path_graph(6)
    >>> certificate = wis_certificate(path, wis_order(path, tie_break="last"))
    >>> found = verify_wis_certificate(path, replace(certificate, tie_break="first"))
    >>> found.valid, found.reason, found.first_wrong, found.edge_id, found.better_edge_id
    (False, 'tie rule', 0, 3, 1)
    """
    if not isinstance(certificate, WISCertificate):
        raise TypeError(
            f"`certificate` must be a WISCertificate; got {describe(certificate)}. Read JSON with result_from_json"
        )
    if graph is not None:
        edges = normalise(graph, directed=certificate.directed, num_nodes=num_nodes, warn=False)
        if not _same_graph(edges, certificate):
            return _outcome(certificate, reason="other graph", checked=0)
    ids = certificate.edge_ids
    fresh = np.zeros(len(ids), bool)
    fresh[np.unique(ids, return_index=True)[1]] = True
    clean = len(ids) if fresh.all() else int((~fresh).argmax())
    wrong = _first_wrong(certificate, clean)
    if wrong is not None:
        return wrong
    if clean < len(ids):
        return _outcome(certificate, reason="repeated edge", checked=clean)
    return _outcome(certificate, reason="", checked=clean)


def _same_graph(edges: EdgeList, certificate: WISCertificate) -> bool:
    ours, theirs = edges.edges, certificate.edges
    if not certificate.directed:
        ours, theirs = np.sort(ours, axis=1), np.sort(theirs, axis=1)
    return edges.num_nodes == certificate.num_nodes and np.array_equal(ours, theirs)


def _first_wrong(certificate: WISCertificate, count: int) -> WISVerification | None:
    edges, n = compact(certificate.edges, certificate.num_nodes)
    ids = certificate.edge_ids[:count].astype(np.int64, copy=False)
    total, keys, batch = len(edges), certificate.keys, certificate.batch_size
    tie = np.arange(total) if certificate.tie_break == "first" else total - 1 - np.arange(total)
    if isinstance(keys, np.ndarray) and batch == 1:
        step = _bisect(edges, n, ids, keys[:count], tie)
        if step is None:
            return None
        alive = np.ones(total, bool)
        alive[ids[:step]] = False
        left = np.flatnonzero(alive)
        degree = np.sort(np.bincount(edges[left].ravel(), minlength=n)[edges], axis=1)
        best = left[np.lexsort((tie[left], -degree[left, 1], -degree[left, 0]))[0]]
        return _judge(certificate, step, int(best), degree)
    if isinstance(keys, np.ndarray):
        rounds: Any = batches_by_degree(edges, n, ids, batch, tie)
    else:
        rounds = batches_by_walks(edges, n, certificate.depth, certificate.directed, ids, batch, tie)
    step = 0
    for best_ones, found in rounds:
        for best in best_ones:
            wrong = _judge(certificate, step, best, found)
            if wrong is not None:
                return wrong
            step += 1
    return None


def _bisect(edges: Ints, n: int, ids: Ints, keys: Ints, tie: Ints) -> int | None:
    """Return the first wrong removal: the smallest step whose prefix, it included, does not hold."""
    high = degrees_hold(edges, n, ids, keys, tie)
    if high is None:
        return None
    low = -1  # the prefix up to `low` holds, that up to `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        found = degrees_hold(edges, n, ids[: middle + 1], keys[: middle + 1], tie)
        if found is None:
            low = middle
        else:
            high = found
    return high


def _judge(certificate: WISCertificate, step: int, best: int, keys: Any) -> WISVerification | None:
    edge = int(certificate.edge_ids[step])
    true = tuple(int(entry) for entry in keys[edge])
    claimed = tuple(int(entry) for entry in certificate.keys[step])
    if claimed != true:
        return _outcome(certificate, reason="wrong key", checked=step, key=true)
    if edge == best:
        return None
    better = tuple(int(entry) for entry in keys[best])
    reason: Reason = "tie rule" if better == true else "better edge"
    return _outcome(certificate, reason=reason, checked=step, key=true, better=best, better_key=better)


def _outcome(
    certificate: WISCertificate,
    *,
    reason: Reason,
    checked: int,
    key: tuple[int, ...] = (),
    better: int | None = None,
    better_key: tuple[int, ...] = (),
) -> WISVerification:
    wrong = None if reason in {"", "other graph"} else checked
    edge = None if wrong is None else int(certificate.edge_ids[wrong])
    count = len(certificate.edge_ids)
    if not reason:
        text = f"All {count} removals are right: no other edge had a better key, or the same key and a better id."
    elif wrong is None or edge is None:
        text = "The certificate is about another graph: its vertices or its edges, in their order, are not these."
    else:
        text = f"Removal {wrong + 1} of {count}, of edge {edge} {tuple(certificate.edges[edge].tolist())}, is wrong. "
        if reason == "repeated edge":
            text += "This edge was removed before."
        elif reason == "wrong key":
            text += f"Its key is {key}, not {tuple(int(entry) for entry in certificate.keys[wrong])}."
        else:
            same = "the same key and a better id" if reason == "tie rule" else f"the better key {better_key}"
            ends = tuple(certificate.edges[better].tolist())
            text += f"Edge {better} {ends} was there with {same}; the key of the removed one is {key}."
    return WISVerification(
        valid=not reason,
        reason=reason,
        checked=checked,
        first_wrong=wrong,
        edge_id=edge,
        better_edge_id=better,
        key=key,
        better_key=better_key,
        explanation=text,
        meta=Meta(
            definition="check of a removal order of walk index sparsification against its definition",
            units="edges",
            n=count,
            details={
                "depth": _walks(certificate.depth).removeprefix("depth "),
                "ties": f"{certificate.tie_break} edge id",
                "batch size": certificate.batch_size,
            },
        ),
    )

"""Walk index sparsification as a transform of PyTorch Geometric."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import is_torch
from rankdiag._optional import optional
from rankdiag._validate import choice, describe, integer, real, string
from rankdiag._warnings import without_warnings
from rankdiag.graphs._edges import normalise
from rankdiag.graphs._wis import number_kept, wis_order

if TYPE_CHECKING:
    from torch_geometric import data as pyg
    from torch_geometric.data.datapipes import functional_transform
    from torch_geometric.transforms import BaseTransform
else:
    _WANTED = {"extra": "graph", "feature": "WalkIndexSparsify"}
    with without_warnings(DeprecationWarning, "`torch.jit.script`"):  # PyG 2.8 compiles two classes as it is imported
        pyg = optional("torch_geometric.data", **_WANTED)
        functional_transform = optional("torch_geometric.data.datapipes", **_WANTED).functional_transform
        BaseTransform = optional("torch_geometric.transforms", **_WANTED).BaseTransform

__all__ = ["WalkIndexSparsify"]

_UNSURE = "Unable to accurately infer 'num_nodes'"  # PyG's warning where nothing but edge_index tells the vertices
_SUPERVISION = {"edge_label", "edge_label_index"}  # edges to be predicted, not edges that carry messages


@dataclass(frozen=True, slots=True)
class _Part:
    """One graph of a batch, or all of a Data: its columns and what its vertex ids start from."""

    columns: NDArray[np.int64]
    offset: int
    num_nodes: int | None
    name: str


@functional_transform("walk_index_sparsify")
class WalkIndexSparsify(BaseTransform):  # type: ignore[misc] # PyTorch Geometric is not followed by the type checker
    """Remove edges, keeping most of how each vertex can interact with the rest (functional name: walk_index_sparsify).

    Both directions of an edge and its duplicates go together, self-loops stay in place, and so do all vertices. Every
    edge-level attribute loses the same columns; order, dtype and device of what stays are kept.

    Parameters
    ----------
    keep_ratio : float, optional
        Share of the edges to keep, 0 to 1; ``int(M * keep_ratio)`` of M edges are kept.
    num_remove : int, optional
        Number of edges to remove instead; more than there are stands for all.
    depth : int
        Layers L of the GNN; walks have length L - 1. 2 looks at degrees alone and is fast on large graphs.
    tie_break : {"first", "last"}
        Which of several best edges goes: the one whose first column comes first, or last.
    attr_rank : str, optional
        Attribute that gets the removal rank of each column, int64: the edge that goes first has 0. A column of rank r
        stays at every level that removes at most r edges, so ``mask = data[attr_rank] >= k`` is the level that removes
        k. Self-loops have the number of edges M, which no level reaches. The whole order is computed, and without
        `keep_ratio` and `num_remove` nothing is removed. A name with "edge" in it is known to PyTorch Geometric for an
        edge-level attribute also where a graph has as many columns as vertices.
    batch_size : int
        How many edges go at once between two looks at the graph; 1 is exact, 100 is faster at depth 3 and more.

    Raises
    ------
    TypeError
        If an option has the wrong type, or not exactly one of `keep_ratio` and `num_remove` is given (none may be
        given with `attr_rank`).
    ValueError
        If an option is out of its bounds.

    Notes
    -----
    A transform gets undirected graphs only: an edge without its reverse raises, with the remedy
    (``torch_geometric.transforms.ToUndirected()``). In a HeteroData every edge type is a graph of its own, and a
    bipartite or directed one raises with its key. In a Batch every graph is one: `keep_ratio` and `num_remove` count
    within each, and the result is the batch of the transformed graphs. ``adj_t`` raises: apply
    ``ToSparseTensor`` afterwards. Supervision edges (``edge_label``, ``edge_label_index``) are left alone, and so is
    data without ``edge_index``. Where nothing but ``edge_index`` tells the number of vertices, ``num_nodes`` is set, so
    that none is lost. The same data give the same result, so this is safe as ``pre_transform``.

    References
    ----------
    .. [1] N. Razin, T. Verbin, N. Cohen (2023), "On the Ability of Graph Neural Networks to Model Interactions Between
       Vertices", arXiv 2211.16494, Section 5.

    Examples
    --------
    >>> import torch
    >>> from rankdiag.adapters import WalkIndexSparsify
    >>> from torch_geometric.data import Data
    >>> edge_index = torch.tensor([[0, 0, 1, 2, 1, 2, 2, 3], [1, 2, 2, 3, 0, 0, 1, 2]])
    >>> transform = WalkIndexSparsify(keep_ratio=0.75)
    >>> transform
    WalkIndexSparsify(keep_ratio=0.75, depth=2, tie_break='first')
    >>> transform(Data(edge_index=edge_index, num_nodes=4)).edge_index.tolist()
    [[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]]
    """

    def __init__(
        self,
        keep_ratio: float | None = None,
        num_remove: int | None = None,
        depth: int = 2,
        tie_break: Literal["first", "last"] = "first",
        attr_rank: str | None = None,
        *,
        batch_size: int = 1,
    ) -> None:
        if keep_ratio is not None and num_remove is not None:
            raise TypeError("only one of `keep_ratio` and `num_remove` may be given")
        if keep_ratio is None and num_remove is None and attr_rank is None:
            raise TypeError("one of `keep_ratio` and `num_remove` must be given, or `attr_rank` to store the order")
        self.keep_ratio = None if keep_ratio is None else real(keep_ratio, "keep_ratio", low=0.0, high=1.0)
        self.num_remove = None if num_remove is None else integer(num_remove, "num_remove", low=0)
        self.depth = integer(depth, "depth", low=1)
        self.tie_break: Literal["first", "last"] = choice(tie_break, "tie_break", ("first", "last"))
        self.attr_rank = None if attr_rank is None else _rank_name(attr_rank)
        self.batch_size = integer(batch_size, "batch_size", low=1)

    def __repr__(self) -> str:
        said = {"keep_ratio": self.keep_ratio, "num_remove": self.num_remove, "attr_rank": self.attr_rank}
        options = {name: value for name, value in said.items() if value is not None}
        options |= {"depth": self.depth, "tie_break": self.tie_break}
        if self.batch_size != 1:
            options["batch_size"] = self.batch_size
        order = ("keep_ratio", "num_remove", "depth", "tie_break", "attr_rank", "batch_size")
        return f"WalkIndexSparsify({', '.join(f'{name}={options[name]!r}' for name in order if name in options)})"

    def forward(self, data: Any) -> Any:
        """Remove edges of `data`, which is changed; calling the transform changes a shallow copy.

        Parameters
        ----------
        data : Data, HeteroData or Batch
            Graphs with every edge in both directions.

        Returns
        -------
        Data, HeteroData or Batch
            `data`.

        Raises
        ------
        TypeError
            If it is none of them.
        ValueError
            If an edge has no reverse, an edge type is bipartite, the edges are an ``adj_t``, or `attr_rank` names an
            attribute that is no edge-level one.
        """
        if not isinstance(data, (pyg.Data, pyg.HeteroData)):
            raise TypeError(f"`data` must be a Data, HeteroData or Batch of PyTorch Geometric; got {describe(data)}")
        for store in data.edge_stores:  # of a HeteroData all are checked before any is changed
            _check(store)
        found = [(store, self._levels(data, store)) for store in data.edge_stores if "edge_index" in store]
        for store, (mask, rank, parts) in found:
            self._apply(data, store, mask, rank, parts)
        return data

    def _levels(self, data: Any, store: Any) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None, list[_Part]]:
        """Return which columns of a store stay, their ranks if asked for, and the graphs that the store holds."""
        index = store["edge_index"].detach().cpu().numpy()
        parts = _parts(data, store, index)
        mask = np.ones(index.shape[1], bool)
        rank = None if self.attr_rank is None else np.zeros(index.shape[1], np.int64)
        for part in parts:
            columns = index[:, part.columns] - part.offset
            mask[part.columns], ranks = self._of_graph(columns, part)
            if rank is not None:
                rank[part.columns] = ranks
        return mask, rank, parts

    def _of_graph(self, columns: NDArray[Any], part: _Part) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        try:
            graph = normalise(columns, num_nodes=part.num_nodes)
        except ValueError as error:
            alone = _without_reverse(columns)
            text = (
                str(error).replace("`graph`", "edge_index")
                if alone is None
                else (
                    f"edge ({alone[0]}, {alone[1]}) has no reverse, and this transform needs undirected graphs; apply "
                    "ToUndirected() first"
                )
            )
            raise ValueError(f"`data`{part.name}: {text}") from None
        total = graph.num_edges
        gone = total - number_kept(total, self.keep_ratio) if self.keep_ratio is not None else self.num_remove or 0
        wanted = None if self.attr_rank is not None else min(gone, total)
        order = wis_order(graph, self.depth, num_edges=wanted, tie_break=self.tie_break, batch_size=self.batch_size)
        ranks = np.full(columns.shape[1], total, np.int64)
        is_edge = graph.column_edge >= 0
        ranks[is_edge] = order.removal_rank[graph.column_edge[is_edge]]
        return order.column_mask(num_removed=gone), ranks

    def _apply(
        self, data: Any, store: Any, mask: NDArray[np.bool_], rank: NDArray[np.int64] | None, parts: list[_Part]
    ) -> None:
        """Select the columns of every edge-level attribute of a store."""
        import torch

        slices = _slices(data, store)
        known = slices or {}
        names = [
            key for key in list(store.keys()) if key not in _SUPERVISION and _is_edge_level(data, store, key, known)
        ]
        if self.attr_rank is not None and self.attr_rank in store and self.attr_rank not in names:
            raise ValueError(
                f"`attr_rank` {self.attr_rank!r} is an attribute of the data already, and no edge-level one"
            )
        _keep_num_nodes(data, store)
        kept = torch.from_numpy(mask)
        moved: dict[str, Any] = {}
        for name in names:
            value = store[name]
            if isinstance(value, list) and name in known:  # what each graph of a batch has, one after the other
                chosen = zip(value, (kept[part.columns] for part in parts), strict=True)
                store[name] = [_select(entry, stays, _dim(data, store, name, entry)) for entry, stays in chosen]
                continue
            store[name] = _select(value, kept, _dim(data, store, name, value))
            if name in known:
                moved[name] = _cut(known[name], mask)
            if f"{name}_ptr" in store:  # asked for with follow_batch
                store[f"{name}_ptr"] = _cut(store[f"{name}_ptr"], mask)
        if rank is not None:
            name = str(self.attr_rank)
            store[name] = torch.from_numpy(rank[mask]).to(store["edge_index"].device)
            if slices is not None and "edge_index" in moved:
                moved[name] = moved["edge_index"]
        if moved:
            _store_slices(data, store, moved)


def _rank_name(name: Any) -> str:
    text = string(name, "attr_rank")
    taken = text in {"face", "num_nodes", "ptr", "x", "y", "pos", "edge_attr", "edge_weight"}
    shifted = any(word in text for word in ("index", "batch", "adj"))
    if not text.isidentifier() or text.startswith("_") or taken or shifted:
        raise ValueError(
            "`attr_rank` must be a name for a new attribute, such as 'wis_rank', without 'index', 'batch' or 'adj' in "
            f"it, whose values PyTorch Geometric shifts when it collates graphs; got {text!r}"
        )
    return text


def _key(store: Any) -> tuple[str, str, str] | None:
    """Return the edge type of a store of a HeteroData, None of a Data."""
    key = getattr(store, "_key", None)
    return key if isinstance(key, tuple) else None


def _check(store: Any) -> None:
    key = _key(store)
    where = "" if key is None else f" of edge type {key}"
    if key is not None and key[0] != key[2] and "edge_index" in store:
        raise ValueError(
            f"`data` has the bipartite edge type {key}; walk index sparsification needs edges among vertices of one "
            "type: turn it into one graph with to_homogeneous(), or transform a copy without this type"
        )
    if "edge_index" not in store and ("adj_t" in store or "adj" in store):
        raise ValueError(
            f"`data`{where} has its edges in adj_t; apply this transform first and ToSparseTensor() after it"
        )
    index = store.get("edge_index")
    if index is not None and (not is_torch(index) or index.is_floating_point() or index.is_complex()):
        raise TypeError(f"`data`{where} must have edge_index as a tensor of integers; got {describe(index)}")


def _parts(data: Any, store: Any, index: NDArray[Any]) -> list[_Part]:
    """Return the graphs of a store: those of a batch, or one."""
    key = _key(store)
    where = "" if key is None else f", edge type {key}"
    if index.ndim != 2 or index.shape[0] != 2:
        raise ValueError(f"`data`{where} must have edge_index of shape (2, E); got shape {index.shape}")
    nodes = store if key is None else data[key[0]] if key[0] in data.node_types else {}
    if not isinstance(data, pyg.Batch):
        return [_Part(np.arange(index.shape[1]), 0, _num_nodes(nodes), where)]
    bounds = (_slices(data, store) or {}).get("edge_index")
    count = int(data.num_graphs)
    if bounds is not None and int(bounds[-1]) == index.shape[1]:
        groups = [np.arange(a, b) for a, b in pairwise(bounds.tolist())]
    elif "batch" in nodes:
        graph_of = nodes["batch"].cpu().numpy()[index[0]]
        order = np.argsort(graph_of, kind="stable")
        groups = np.split(order, np.searchsorted(graph_of[order], np.arange(1, count)))
    else:
        raise ValueError(
            f"`data`{where} is a Batch that does not say which edge is of which graph; transform the graphs"
        )
    ptr = nodes["ptr"].tolist() if "ptr" in nodes else None
    parts = []
    for number, columns in enumerate(groups):
        low = int(index[:, columns].min()) if ptr is None and len(columns) else 0
        offset, size = (low, None) if ptr is None else (ptr[number], ptr[number + 1] - ptr[number])
        parts.append(_Part(columns, offset, size, f"{where}, graph {number} of the batch"))
    return parts


def _num_nodes(store: Any) -> int | None:
    with without_warnings(UserWarning, _UNSURE):
        count = getattr(store, "num_nodes", None)
    return None if count is None else int(count)


def _keep_num_nodes(data: Any, store: Any) -> None:
    """Write the number of vertices down where only the edges tell it."""
    if _key(store) is not None or "num_nodes" in store:
        return
    rest = copy.copy(store)
    del rest["edge_index"]
    if not isinstance(data, pyg.Batch):
        total = _num_nodes(store)
        if _num_nodes(rest) != total:
            store["num_nodes"] = total
    elif "ptr" in store:
        for key in ("batch", "ptr"):
            rest[key] = None
        if _num_nodes(rest) is None:
            sizes = store["ptr"].diff().tolist()
            store["num_nodes"] = sum(sizes)
            store._num_nodes = sizes


def _slices(data: Any, store: Any) -> dict[str, Any] | None:
    """Return where the graphs of a batch begin and end in each attribute, as collation noted it."""
    noted = getattr(data, "_slice_dict", None) if isinstance(data, pyg.Batch) else None
    if noted is None:
        return None
    key = _key(store)
    found: dict[str, Any] = noted if key is None else noted.get(key, {})
    return found


def _store_slices(data: Any, store: Any, moved: dict[str, Any]) -> None:
    """Note new bounds, in new tables: the old ones belong to the batch that came in too."""
    import torch

    key = _key(store)
    for table, values in (
        ("_slice_dict", moved),
        ("_inc_dict", {name: torch.zeros(len(bounds) - 1, dtype=torch.int64) for name, bounds in moved.items()}),
    ):
        noted = dict(getattr(data, table))
        inner = noted if key is None else dict(noted.get(key, {}))
        inner.update({name: value for name, value in values.items() if table == "_slice_dict" or name not in inner})
        if key is not None:
            noted[key] = inner
        setattr(data, table, noted)


def _is_edge_level(data: Any, store: Any, name: str, slices: dict[str, Any]) -> bool:
    """Whether an attribute has an entry for each column; in a batch it must have so in each graph."""
    value = store[name]
    if name == "edge_index":
        return True
    bounds, of_edges = slices.get(name), slices.get("edge_index")
    if bounds is None or of_edges is None:
        with without_warnings(UserWarning, _UNSURE):
            return name not in {"batch", "ptr"} and not name.endswith("_ptr") and bool(store.is_edge_attr(name))
    if isinstance(value, list):
        sizes = of_edges.diff().tolist()
        return len(value) == len(sizes) and all(
            _length(entry, _dim(data, store, name, entry)) == size for entry, size in zip(value, sizes, strict=True)
        )
    if not is_torch(value) or not is_torch(bounds) or bounds.tolist() != of_edges.tolist():
        return False
    of_nodes = store["ptr"].tolist() if _key(store) is None and "ptr" in store else None
    return "edge" in name or bounds.tolist() != of_nodes


def _dim(data: Any, store: Any, name: str, value: Any) -> int:
    return 0 if isinstance(value, (list, tuple)) else int(data.__cat_dim__(name, value, store))


def _length(value: Any, dim: int) -> int | None:
    """Return how many entries a list or an array has; None for a single value."""
    if isinstance(value, (list, tuple)):
        return len(value)
    return int(value.shape[dim]) if isinstance(value, np.ndarray) and value.ndim else None


def _select(value: Any, kept: Any, dim: int) -> Any:
    """Keep the chosen columns of a tensor, an array, a list or a frame."""
    if isinstance(value, np.ndarray):
        return np.compress(kept.numpy(), value, axis=dim)
    if isinstance(value, (list, tuple)):
        return type(value)(entry for entry, stays in zip(value, kept.tolist(), strict=True) if stays)
    if is_torch(value):
        return value.index_select(dim, kept.nonzero().reshape(-1).to(value.device))
    return value[kept.nonzero().reshape(-1)]  # a TensorFrame


def _cut(bounds: Any, mask: NDArray[np.bool_]) -> Any:
    """Return bounds of the graphs of a batch after columns have gone."""
    import torch

    kept = np.concatenate(([0], np.cumsum(mask)))
    return torch.from_numpy(kept[bounds.cpu().numpy()]).to(bounds)


def _without_reverse(columns: NDArray[Any]) -> tuple[int, int] | None:
    """Return the first column that has no reverse."""
    pairs = set(zip(*columns.tolist(), strict=True))
    return next(((u, v) for u, v in zip(*columns.tolist(), strict=True) if (v, u) not in pairs), None)

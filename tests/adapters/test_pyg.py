"""The transform on real objects of PyTorch Geometric: graphs of every kind, batches, datasets on disk, loaders."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from oracles.graphs_pyg import kept_columns
from rankdiag import MissingExtraError

try:
    from rankdiag.adapters import WalkIndexSparsify
except MissingExtraError:
    pytest.skip("the extra graph is not installed", allow_module_level=True)
import torch_geometric.transforms as T
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData, InMemoryDataset, TemporalData
from torch_geometric.loader import DataLoader


def columns_of(data) -> list[tuple[int, int]]:
    return [tuple(column) for column in data.edge_index.T.tolist()]


def random_graph(seed: int, n: int = 9, edges: int = 14, *, loops: int = 2, repeats: int = 2, **more) -> Data:
    """Both directions of random edges in random order, with loops and duplicate columns."""
    rng = np.random.default_rng(seed)
    pairs = [(u, v) for u in range(n) for v in range(u)]
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[: min(edges, len(pairs))]]
    columns = [*chosen, *((v, u) for u, v in chosen), *chosen[:repeats], *((v, v) for v in range(loops))]
    index = torch.tensor(columns, dtype=torch.int64).reshape(-1, 2)[torch.from_numpy(rng.permutation(len(columns)))].T
    count = index.shape[1]
    return Data(
        x=torch.arange(n, dtype=torch.float32)[:, None],
        edge_index=index.contiguous(),
        edge_attr=torch.arange(2 * count, dtype=torch.float64).reshape(count, 2),
        edge_weight=torch.arange(count, dtype=torch.float32),
        kinds=[f"kind {i}" for i in range(count)],
        **more,
    )


def same(found: Data, wanted: Data) -> None:
    assert sorted(found.keys()) == sorted(wanted.keys())
    for key in wanted.keys():  # noqa: SIM118 - iterating over a Data gives pairs
        a, b = found[key], wanted[key]
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b), key
        elif isinstance(b, np.ndarray) or (isinstance(b, list) and b and isinstance(b[0], np.ndarray)):
            assert len(a) == len(b)
            assert all(np.array_equal(first, second) for first, second in zip(a, b, strict=True)), key
        else:
            assert a == b, key


# --- one graph -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie_break", ["first", "last"])
@pytest.mark.parametrize("seed", range(6))
def test_columns_that_stay_are_those_of_the_definition(seed, tie_break):
    data = random_graph(seed)
    for removals in (0, 1, 5, 13, 14, 99):
        kept = kept_columns(columns_of(data), removals, last=tie_break == "last")
        out = WalkIndexSparsify(num_remove=removals, tie_break=tie_break)(data)
        assert torch.equal(out.edge_index, data.edge_index[:, kept])
        assert torch.equal(out.edge_attr, data.edge_attr[kept])
        assert torch.equal(out.edge_weight, data.edge_weight[kept])
        assert out.kinds == [data.kinds[place] for place in kept]
        assert torch.equal(out.x, data.x)


@pytest.mark.parametrize(("ratio", "kept"), [(0.0, 0), (0.29, 4), (0.5, 7), (1.0, 14), (0.999, 13)])
def test_ratio_counts_edges_and_not_columns(ratio, kept):
    out = WalkIndexSparsify(keep_ratio=ratio)(random_graph(0))
    edges = {frozenset(column) for column in columns_of(out) if column[0] != column[1]}
    assert len(edges) == kept
    assert all((v, u) in columns_of(out) for u, v in columns_of(out))
    assert out.num_nodes == 9


def test_input_is_left_alone():
    data = random_graph(1)
    before = copy.deepcopy(data)
    assert all(map(data.is_edge_attr, ("edge_attr", "edge_weight", "kinds")))
    out = WalkIndexSparsify(keep_ratio=0.3, attr_rank="wis_rank")(data)
    same(data, before)
    assert data.is_edge_attr("kinds")
    assert out.is_edge_attr("kinds")
    assert out.num_edges < data.num_edges


def test_every_attribute_of_an_edge_keeps_step():
    data = random_graph(2, edges=15)
    count = data.num_edges
    data.edge_type = torch.arange(count, dtype=torch.int32)
    data.pair_index = torch.arange(3 * count).reshape(3, count)  # "index" in a name puts columns last
    data.stamp = np.arange(count) * 0.5
    data.flags = tuple(i % 2 == 0 for i in range(count))
    data.half = torch.arange(count, dtype=torch.bfloat16)
    data.y = torch.tensor([1])
    data.name = "a graph"
    out = WalkIndexSparsify(num_remove=6)(data)
    kept = kept_columns(columns_of(data), 6)
    assert out.edge_type.tolist() == kept
    assert out.edge_type.dtype == torch.int32
    assert torch.equal(out.pair_index, data.pair_index[:, kept])
    np.testing.assert_array_equal(out.stamp, data.stamp[kept])
    assert out.flags == tuple(data.flags[place] for place in kept)
    assert torch.equal(out.half, data.half[kept])
    assert (out.y.tolist(), out.name) == ([1], "a graph")


def test_as_many_columns_as_vertices_follows_the_rule_of_pyg():
    index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    data = Data(x=torch.ones(4, 1), edge_index=index, edge_mark=torch.arange(4), mark=torch.arange(4))
    out = WalkIndexSparsify(num_remove=1)(data)
    assert out.edge_mark.tolist() == [2, 3]
    assert out.mark.tolist() == [0, 1, 2, 3]


def test_vertices_are_never_lost():
    index = torch.tensor([[0, 1, 1, 2, 3, 9], [1, 0, 2, 1, 9, 3]])
    alone = Data(edge_index=index)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyG warns where it has to guess the number of vertices
        out = WalkIndexSparsify(keep_ratio=0.0)(alone)
        assert out.num_nodes == 10
        assert out.edge_index.shape == (2, 0)
        assert "num_nodes" not in alone
        weighted = Data(edge_index=index, edge_weight=torch.arange(6))
        assert WalkIndexSparsify(num_remove=1)(weighted).edge_weight.tolist() == [2, 3, 4, 5]
        isolated = WalkIndexSparsify(keep_ratio=0.5)(Data(edge_index=index, num_nodes=12))
    assert isolated.num_nodes == 12
    featured = WalkIndexSparsify(keep_ratio=0.5)(Data(x=torch.ones(11, 2), edge_index=index))
    assert featured.num_nodes == 11
    assert sorted(featured.keys()) == ["edge_index", "x"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_order_and_dtype_of_columns_are_kept(dtype):
    data = random_graph(3)
    data.edge_index = data.edge_index.to(dtype)
    out = WalkIndexSparsify(keep_ratio=0.6)(data)
    assert out.edge_index.dtype == dtype
    places = out.edge_weight.to(torch.int64)
    assert torch.equal(places, places.sort().values)


def test_loops_stay_where_they_are():
    index = torch.tensor([[2, 0, 1, 1], [2, 1, 0, 1]])
    out = WalkIndexSparsify(keep_ratio=0.0)(Data(edge_index=index, num_nodes=3))
    assert out.edge_index.tolist() == [[2, 1], [2, 1]]
    same(WalkIndexSparsify(keep_ratio=0.0)(out), out)  # loops only: nothing to remove


@pytest.mark.parametrize("data", [Data(), Data(x=torch.ones(3, 1)), Data(num_nodes=0)])
def test_data_without_edges_passes(data):
    same(WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")(data), data)


def test_an_empty_edge_index_passes():
    data = Data(edge_index=torch.zeros(2, 0, dtype=torch.int64), num_nodes=4, edge_attr=torch.zeros(0, 3))
    out = WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")(data)
    assert out.edge_index.shape == (2, 0)
    assert out.edge_attr.shape == (0, 3)
    assert out.wis_rank.dtype == torch.int64
    assert out.wis_rank.shape == (0,)


def test_gradients_of_weights_pass_through():
    data = random_graph(4)
    data.edge_weight = torch.arange(data.num_edges, dtype=torch.float32, requires_grad=True)
    out = WalkIndexSparsify(num_remove=4)(data)
    out.edge_weight.sum().backward()
    kept = kept_columns(columns_of(data), 4)
    assert torch.equal(data.edge_weight.grad.nonzero().reshape(-1), torch.tensor(kept))


def test_edges_to_predict_are_left_alone():
    data = random_graph(5)
    data.edge_label_index = data.edge_index.clone()
    data.edge_label = torch.ones(data.num_edges)
    out = WalkIndexSparsify(keep_ratio=0.5)(data)
    assert torch.equal(out.edge_label_index, data.edge_index)
    assert torch.equal(out.edge_label, data.edge_label)


def test_edge_index_with_metadata():
    plain = random_graph(6)
    data = copy.copy(plain)
    data.edge_index = EdgeIndex(plain.edge_index, sparse_size=(9, 9))
    out = WalkIndexSparsify(keep_ratio=0.5)(data)
    assert torch.equal(torch.Tensor(out.edge_index.as_tensor()), WalkIndexSparsify(keep_ratio=0.5)(plain).edge_index)
    out.edge_index.validate()
    assert out.num_nodes == 9


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_other_depths_are_the_order_of_the_room(depth):
    from rankdiag.graphs._wis import wis_order

    data = random_graph(7)
    mask = wis_order(data.edge_index, depth, num_nodes=9, tie_break="last").column_mask(num_removed=6)
    out = WalkIndexSparsify(num_remove=6, depth=depth, tie_break="last")(data)
    assert out.edge_index.tolist() == data.edge_index[:, mask].tolist()


def test_larger_steps():
    from rankdiag.graphs._wis import wis_order

    data = random_graph(8, n=12, edges=30)
    mask = wis_order(data.edge_index, 3, num_nodes=12, batch_size=12).column_mask(num_removed=12)
    out = WalkIndexSparsify(num_remove=12, depth=3, batch_size=12)(data)
    assert out.edge_index.tolist() == data.edge_index[:, mask].tolist()
    assert out.edge_index.tolist() != WalkIndexSparsify(num_remove=12, depth=3)(data).edge_index.tolist()


# --- ranks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_every_level_at_once(seed):
    data = random_graph(seed)
    ranked = WalkIndexSparsify(attr_rank="wis_rank")(data)  # removes nothing
    assert torch.equal(ranked.edge_index, data.edge_index)
    for level in range(15):
        kept = kept_columns(columns_of(data), level)
        assert (ranked.wis_rank >= level).nonzero().reshape(-1).tolist() == kept
    loops = data.edge_index[0] == data.edge_index[1]
    assert set(ranked.wis_rank[loops].tolist()) == {14}
    half = WalkIndexSparsify(num_remove=7, attr_rank="wis_rank")(data)
    assert torch.equal(half.wis_rank, ranked.wis_rank[ranked.wis_rank >= 7])
    again = WalkIndexSparsify(num_remove=3, attr_rank="wis_rank")(half)  # ranks of the graph at hand
    assert sorted(set(again.wis_rank.tolist())) == [3, 4, 5, 6, 7]


def test_rank_may_not_replace_something_else():
    data = random_graph(0)
    data.score = torch.ones(9)
    with pytest.raises(ValueError, match="`attr_rank` 'score' is an attribute of the data already"):
        WalkIndexSparsify(attr_rank="score")(data)


# --- refusals ------------------------------------------------------------------------------------------------------


def test_one_direction_is_refused_with_the_remedy():
    data = Data(edge_index=torch.tensor([[0, 1, 2, 0], [1, 0, 2, 2]]), num_nodes=3)
    with pytest.raises(ValueError, match=r"edge \(0, 2\) has no reverse.*apply ToUndirected\(\) first"):
        WalkIndexSparsify(keep_ratio=0.5)(data)
    assert WalkIndexSparsify(keep_ratio=0.5)(T.ToUndirected()(data)).num_edges == 3  # an edge and the loop


def test_only_the_edges_must_be_symmetric():
    data = random_graph(0)  # its attributes differ by direction, for which is_undirected() says False
    assert not data.is_undirected()
    assert WalkIndexSparsify(keep_ratio=0.5)(data).num_edges < data.num_edges


def test_adj_t_is_refused_with_the_remedy():
    plain = random_graph(0, repeats=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its sparse tensors
        data = T.ToSparseTensor(layout=torch.sparse_csr)(Data(x=plain.x, edge_index=plain.edge_index))
    with pytest.raises(ValueError, match=r"edges in adj_t; apply this transform first and ToSparseTensor\(\) after it"):
        WalkIndexSparsify(keep_ratio=0.5)(data)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (torch.tensor([[0, 1], [1, 0], [0, 0]]), r"shape \(2, E\)"),
        (torch.tensor([[0, -1], [-1, 0]]), "negative vertex id"),
        (torch.tensor([[0, 7], [7, 0]]), "edge_index holds vertex 7"),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "edge_index as a tensor of integers"),
    ],
)
def test_columns_that_are_none(index, text):
    with pytest.raises((ValueError, TypeError), match=text):
        WalkIndexSparsify(keep_ratio=0.5)(Data(edge_index=index, num_nodes=3))


@pytest.mark.parametrize("data", [TemporalData(src=torch.tensor([0]), dst=torch.tensor([1])), None, [1, 2]])
def test_other_objects_are_refused(data):
    with pytest.raises(TypeError, match="`data` must be a Data, HeteroData or Batch"):
        WalkIndexSparsify(keep_ratio=0.5)(data)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "one of `keep_ratio` and `num_remove` must be given"),
        ({"keep_ratio": 0.5, "num_remove": 1}, TypeError, "only one of"),
        ({"keep_ratio": 1.5}, ValueError, "`keep_ratio` must be"),
        ({"keep_ratio": float("nan")}, ValueError, "`keep_ratio` must be"),
        ({"keep_ratio": "half"}, TypeError, "`keep_ratio` must be"),
        ({"num_remove": -1}, ValueError, "`num_remove` must be"),
        ({"num_remove": 1.0}, TypeError, "`num_remove` must be"),
        ({"keep_ratio": 1, "depth": 0}, ValueError, "`depth` must be"),
        ({"keep_ratio": 1, "tie_break": "middle"}, ValueError, "`tie_break` must be"),
        ({"keep_ratio": 1, "batch_size": 0}, ValueError, "`batch_size` must be"),
        ({"attr_rank": "rank_index"}, ValueError, "`attr_rank` must be a name"),
        ({"attr_rank": "two words"}, ValueError, "`attr_rank` must be a name"),
        ({"attr_rank": "num_nodes"}, ValueError, "`attr_rank` must be a name"),
        ({"attr_rank": 3}, TypeError, "`attr_rank`"),
        ({"keep_ratio": 1, "keepratio": 1}, TypeError, "unexpected keyword"),
    ],
)
def test_options_are_checked_when_the_transform_is_made(options, error, text):
    with pytest.raises(error, match=text):
        WalkIndexSparsify(**options)


# --- graphs with types ---------------------------------------------------------------------------------------------


def typed_graph() -> HeteroData:
    data = HeteroData()
    data["paper"].x = torch.ones(9, 2)
    data["author"].x = torch.zeros(9, 1)
    for kind, seed in ((("paper", "cites", "paper"), 1), (("author", "knows", "author"), 2)):
        plain = random_graph(seed)
        data[kind].edge_index, data[kind].edge_attr = plain.edge_index, plain.edge_attr
    return data


def test_every_edge_type_is_a_graph():
    data = typed_graph()
    out = WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")(data)
    for kind, seed in ((("paper", "cites", "paper"), 1), (("author", "knows", "author"), 2)):
        alone = WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")(random_graph(seed))
        assert torch.equal(out[kind].edge_index, alone.edge_index)
        assert torch.equal(out[kind].edge_attr, alone.edge_attr)
        assert torch.equal(out[kind].wis_rank, alone.wis_rank)
        assert "wis_rank" not in data[kind]
    assert out.node_types == ["paper", "author"]
    assert out["author"].num_nodes == 9


def test_bipartite_and_directed_types_are_named():
    data = typed_graph()
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1], [1, 0]])
    key = re.escape("('author', 'writes', 'paper')")
    with pytest.raises(ValueError, match=f"bipartite edge type {key}"):
        WalkIndexSparsify(keep_ratio=0.5)(data)
    data = typed_graph()
    data["paper", "refutes", "paper"].edge_index = torch.tensor([[0], [1]])
    key = re.escape("('paper', 'refutes', 'paper')")
    with pytest.raises(ValueError, match=rf"edge type {key}.*\(0, 1\) has no reverse.*ToUndirected"):
        WalkIndexSparsify(keep_ratio=0.5)(data)


def test_types_without_vertices_or_edges():
    same(WalkIndexSparsify(keep_ratio=0.5)(HeteroData()), HeteroData())
    data = HeteroData()
    data["a", "to", "a"].edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # nothing tells how many vertices
    out = WalkIndexSparsify(num_remove=1)(data)
    assert out["a", "to", "a"].edge_index.tolist() == [[1, 2], [2, 1]]
    assert out.node_types == data.node_types


# --- batches -------------------------------------------------------------------------------------------------------


def several() -> list[Data]:
    sizes = ((4, 5), (9, 14), (6, 0), (3, 3), (12, 20))
    return [
        random_graph(
            seed, n, edges, loops=seed % 3, repeats=seed % 2, y=torch.tensor([seed]), name=f"graph {seed}",
            stamp=np.arange(2 * min(edges, n * (n - 1) // 2) + seed % 3 + min(seed % 2, edges)),
        )
        for seed, (n, edges) in enumerate(sizes)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"keep_ratio": 0.5}, {"num_remove": 3}, {"keep_ratio": 0.7, "attr_rank": "wis_rank"}]
)
def test_a_batch_is_the_batch_of_the_transformed_graphs(options):
    transform = WalkIndexSparsify(**options)
    graphs = several()
    follow = ["edge_attr", "x"]
    batch = Batch.from_data_list(graphs, follow_batch=follow)
    before = copy.deepcopy(batch)
    out = transform(batch)
    apart = [transform(graph) for graph in graphs]
    same(out, Batch.from_data_list(apart, follow_batch=follow))
    assert out.num_graphs == 5
    for found, wanted in zip(out.to_data_list(), apart, strict=True):
        same(found, wanted)
    same(out[1:3][1], apart[2])
    same(batch, before)
    for found, wanted in zip(batch.to_data_list(), graphs, strict=True):  # the tables of the old batch are its own
        same(found, wanted)


def test_a_batch_of_edges_alone_keeps_its_vertices():
    graphs = [Data(edge_index=torch.tensor([[0, 4], [4, 0]]), num_nodes=None) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyG guesses, and says so
        batch = Batch.from_data_list(graphs)
    out = WalkIndexSparsify(keep_ratio=0.0)(batch)
    assert out.num_nodes == 15
    assert [graph.num_nodes for graph in out.to_data_list()] == [5, 5, 5]


def test_a_batch_of_graphs_with_as_many_columns_as_vertices():
    graphs = [
        Data(x=torch.ones(4, 1), edge_index=torch.tensor(index), edge_mark=torch.arange(4), mark=torch.arange(4))
        for index in ([[0, 1, 2, 3], [1, 0, 3, 2]], [[0, 1, 1, 2], [1, 0, 2, 1]])
    ]
    transform = WalkIndexSparsify(num_remove=1)
    same(transform(Batch.from_data_list(graphs)), Batch.from_data_list([transform(graph) for graph in graphs]))


def test_sizes_that_agree_in_sum_only_are_no_edge_attributes():
    """The batch has as many columns as vertices, its graphs have not."""
    a = random_graph(0, n=10, edges=4, loops=0, repeats=0)
    b = random_graph(1, n=4, edges=3, loops=0, repeats=0)
    a.level, b.level = torch.arange(8), torch.arange(6)
    batch = Batch.from_data_list([a, b])
    assert batch.num_edges == batch.num_nodes
    transform = WalkIndexSparsify(num_remove=2)
    same(transform(batch), Batch.from_data_list([transform(a), transform(b)]))


def test_a_batch_that_was_changed_after_collation():
    batch = T.AddSelfLoops()(Batch.from_data_list([random_graph(0, loops=0), random_graph(1, loops=0)]).clone())
    out = WalkIndexSparsify(keep_ratio=0.5)(Batch.from_data_list([random_graph(0), random_graph(1)]))
    for key in ("edge_attr", "edge_weight", "kinds"):
        if key in batch:
            del batch[key]
    again = WalkIndexSparsify(keep_ratio=0.5)(batch)  # its loops stand behind the columns of all graphs
    plain = [column for column in columns_of(again) if column[0] != column[1]]
    assert len(again.edge_index[0]) - len(plain) == 18
    assert len({frozenset(column) for column in plain}) == 14
    graph_of = again.batch[torch.tensor(plain).T[0]].tolist()
    assert {graph: graph_of.count(graph) // 2 for graph in (0, 1)}.keys() == {0, 1}
    assert len({frozenset(c) for c in columns_of(out) if c[0] != c[1]}) == 14


def test_a_batch_of_typed_graphs():
    graphs = [typed_graph(), typed_graph()]
    graphs[1]["paper", "cites", "paper"].edge_index = graphs[1]["paper", "cites", "paper"].edge_index.flip(1)
    transform = WalkIndexSparsify(keep_ratio=0.4, attr_rank="wis_rank")
    out = transform(Batch.from_data_list(graphs))
    wanted = [transform(graph) for graph in graphs]
    for kind in out.edge_types:
        assert torch.equal(out[kind].edge_index, Batch.from_data_list(wanted)[kind].edge_index)
    for found, graph in zip(out.to_data_list(), wanted, strict=True):
        for kind in graph.edge_types:
            same(found[kind], graph[kind])


def test_an_error_names_the_graph_and_its_own_vertices():
    bad = Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1, 2], [1, 0, 1]]))
    batch = Batch.from_data_list([Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0, 1], [1, 0]])), bad])
    with pytest.raises(ValueError, match=r"graph 1 of the batch: edge \(2, 1\) has no reverse"):
        WalkIndexSparsify(keep_ratio=0.5)(batch)


# --- where transforms live -----------------------------------------------------------------------------------------


class Stored(InMemoryDataset):
    """Three graphs, processed once into a file."""

    @property
    def processed_file_names(self):
        return ["graphs.pt"]

    def process(self):
        graphs = [random_graph(seed, y=torch.tensor([seed])) for seed in range(3)]
        if self.pre_transform is not None:
            graphs = [self.pre_transform(graph) for graph in graphs]
        self.save(graphs, self.processed_paths[0])


def stored(folder, **options) -> Stored:
    dataset = Stored(str(folder), log=False, **options)
    dataset.load(dataset.processed_paths[0])
    return dataset


def test_as_pre_transform_of_a_dataset_on_disk(tmp_path):
    transform = WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")
    dataset = stored(tmp_path, pre_transform=transform)
    for seed, graph in enumerate(dataset):
        same(graph, transform(random_graph(seed, y=torch.tensor([seed]))))
    again = stored(
        tmp_path, pre_transform=WalkIndexSparsify(keep_ratio=0.5, attr_rank="wis_rank")
    )  # the same: no warning
    assert len(again) == 3
    with pytest.warns(UserWarning, match="pre_transform"):
        stored(tmp_path, pre_transform=WalkIndexSparsify(keep_ratio=0.4, attr_rank="wis_rank"))


def test_with_other_transforms_and_a_loader(tmp_path):
    chain = T.Compose(
        [T.RemoveDuplicatedEdges(key=["edge_weight"]), WalkIndexSparsify(keep_ratio=0.5), T.AddRemainingSelfLoops()]
    )
    dataset = stored(tmp_path, transform=chain)
    assert "WalkIndexSparsify(keep_ratio=0.5" in repr(chain)
    assert dataset[0].has_self_loops()
    alone = WalkIndexSparsify(keep_ratio=0.5)
    (batch,) = DataLoader(stored(tmp_path), batch_size=3, generator=torch.Generator())
    (wanted,) = DataLoader(stored(tmp_path, transform=alone), batch_size=3, generator=torch.Generator())
    same(alone(batch), wanted)


def test_before_a_neighbour_loader():
    from torch_geometric.loader import NeighborLoader

    data = WalkIndexSparsify(keep_ratio=0.5)(random_graph(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sampling without a compiled package is deprecated
        try:
            loader = NeighborLoader(data, num_neighbors=[-1], batch_size=3, generator=torch.Generator())
            parts = list(loader)
        except ImportError as error:
            pytest.skip(f"sampling needs a compiled package: {error}")
    assert sum(part.batch_size for part in parts) == 9


def test_functional_name():
    from torch.utils.data.datapipes.iter import IterableWrapper

    graphs = [random_graph(seed) for seed in range(2)]
    for found, graph in zip(IterableWrapper(graphs).walk_index_sparsify(keep_ratio=0.5), graphs, strict=True):
        same(found, WalkIndexSparsify(keep_ratio=0.5)(graph))


def test_copies_are_equal_and_results_repeat():
    transform = WalkIndexSparsify(num_remove=5, depth=3, tie_break="last", attr_rank="edge_rank", batch_size=2)
    assert repr(transform) == (
        "WalkIndexSparsify(num_remove=5, depth=3, tie_break='last', attr_rank='edge_rank', batch_size=2)"
    )
    for twin in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert repr(twin) == repr(transform)
        same(twin(random_graph(0)), transform(random_graph(0)))


@pytest.mark.slow
def test_import_with_warnings_as_errors():
    code = "from rankdiag.adapters import WalkIndexSparsify\nimport torch_geometric\nprint(WalkIndexSparsify(0.5))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "WalkIndexSparsify(keep_ratio=0.5, depth=2, tie_break='first')\n", done.stderr


def test_the_extra_is_named_where_it_is_missing():
    code = (
        "import sys\nsys.modules['torch_geometric'] = None\nimport rankdiag.adapters\n"
        "from rankdiag import MissingExtraError\n"
        "try:\n    rankdiag.adapters.WalkIndexSparsify\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'python -m pip install "rankdiag[graph]"' in done.stdout, done.stderr
    assert "WalkIndexSparsify" in done.stdout

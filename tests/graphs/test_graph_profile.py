"""Profiles of models: what is known of a function or a GNN comes out, beside the capacity of its architecture."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag import result_from_json
from rankdiag._warnings import without_warnings
from rankdiag.graphs import (
    InteractionProfile,
    ProductGNN,
    generic_separation_rank,
    interaction_profile,
    separation_rank_bounds,
)
from rankdiag.separation import interaction_matrix, interaction_spectrum

PATH = np.array([[0, 1, 2, 1, 2, 3], [1, 2, 3, 0, 1, 2]])
SHORT = np.array([[0, 1, 1, 2], [1, 2, 0, 1]])
X = np.random.default_rng(0).normal(size=(60, 4, 1))


def three_parts(batch: Any) -> Any:
    """Vertices 0 and 1 multiply, 2 is added, 3 is ignored."""
    return batch[:, 0, 0] * batch[:, 1, 0] + batch[:, 2, 0]


def test_partitions_of_a_function_that_is_known() -> None:
    sides = {"0": [0], "01": [0, 1], "2": [2], "3": [3], "none": []}
    found = interaction_profile(three_parts, X, sides, rng=1, samples=40)
    by_name = {row.name: row for row in found}
    assert list(by_name) == list(sides)
    assert [row.rank for row in found] == [2, 2, 2, 1, 1]
    assert [row.interaction_share > 0.1 for row in found] == [True, False, False, False, False]
    assert [row.interaction_share for row in found][1:] == [0.0] * 4
    assert [row.inside for row in found] == [1, 2, 1, 1, 0]
    assert {row.reading for row in found} == {"not compared"}
    assert "'0' most" in found.explanation
    assert found.settings == 40
    same = interaction_profile(three_parts, X, sides, rng=1, samples=40, batch_size=7)
    assert same.rows == found.rows


def test_equals_the_matrix_made_by_hand() -> None:
    found = interaction_profile(three_parts, X[:5], [[1, 3]], rng=0)
    order = np.random.default_rng(0)
    left, right = (X[:5][order.choice(5, size=5, replace=False)] for _ in range(2))

    def cut(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        mixed = b.copy()
        mixed[:, [1, 3]] = a[:, [1, 3]]
        return mixed

    expected = interaction_spectrum(interaction_matrix(three_parts, left, right, combine=cut))
    (row,) = found.rows
    assert (row.interaction_share, row.entropy, row.rank) == (
        expected.interaction_share,
        expected.entropy,
        expected.rank,
    )
    assert row.name == "partition 0"


def test_both_sides_of_a_partition_give_the_same() -> None:
    """Up to which examples each side is taken from, so all pairs of all examples are looked at."""
    a, b = (interaction_profile(three_parts, X, [side], samples=60, rng=0).rows[0] for side in ([0, 2], [1, 3]))
    assert a.interaction_share == pytest.approx(b.interaction_share, rel=1e-12)
    assert a.entropy == pytest.approx(b.entropy, rel=1e-12)


def test_product_gnn_reaches_the_rank_of_its_architecture() -> None:
    model = ProductGNN(2, 2, 2, rng=0, dtype=torch.float64)
    edges = torch.tensor(SHORT)
    x = torch.randn(80, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x / x.norm(dim=-1, keepdim=True)  # features of one size keep the small singular values above rounding
    sides = {"middle": [1], "end": [0]}
    found = interaction_profile(
        lambda batch: model(batch, edges), x, sides, graph=SHORT, depth=2, d_hidden=2, samples=80, rng=0
    )
    for row, side in zip(found, sides.values(), strict=True):
        assert row.rank == generic_separation_rank(SHORT, side, 2, 2, 2).rank
        assert row.log_capacity == separation_rank_bounds(SHORT, side, 2, 2, 2).log_upper_shared
        assert row.capacity_used == pytest.approx(row.entropy / row.log_capacity)
        assert row.rank <= math.exp(row.log_capacity) * (1 + 1e-9)
    assert found.meta.details["depth"] == "2 (walks of length 1)"
    vertex = interaction_profile(
        lambda batch: model(batch, edges, target=0), x, sides, graph=SHORT, depth=2, d_hidden=2, target=0, rng=0
    )
    assert [row.rank for row in vertex] == [
        generic_separation_rank(SHORT, side, 2, 2, 2, target=0).rank for side in sides.values()
    ]
    shallow = ProductGNN(1, 2, 2, rng=0, dtype=torch.float64)
    far = interaction_profile(
        lambda batch: shallow(batch, edges, target=0), x, [[2]], graph=SHORT, depth=1, d_hidden=2, target=0, rng=0
    ).rows[0]
    assert (far.rank, far.log_capacity, far.capacity_used, far.reading) == (1, 0.0, None, "capacity missing")


@pytest.mark.parametrize(("d_in", "read"), [(None, 2), (5, 5)])
def test_widths_are_those_of_the_features_or_as_given(d_in: int | None, read: int) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3, 2))
    found = interaction_profile(
        lambda batch: np.asarray(batch).prod(axis=(1, 2)), x, [[1]], graph=SHORT, depth=2, d_in=d_in, d_hidden=3, rng=0
    )
    assert found.rows[0].log_capacity == separation_rank_bounds(SHORT, [1], 2, read, 3).log_upper_shared
    assert (found.meta.details["d_in"], found.meta.details["d_hidden"]) == (read, 3)


def test_words_for_unused_used_and_missing_capacity() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 2, 8))

    def inner(width: int) -> Any:
        return lambda batch: (batch[:, 0, :width] * batch[:, 1, :width]).sum(axis=1)

    def words(width: int, capacity: float, samples: int = 100) -> Any:
        found = interaction_profile(inner(width), x, [[0]], capacity=[capacity], samples=samples, rng=0)
        return found.rows[0].reading

    entropy = interaction_profile(inner(8), x, [[0]], samples=100, rng=0).rows[0].entropy
    assert entropy > 0.8 * math.log(8.0)
    assert words(8, 2.5 * entropy) == "capacity unused"
    assert words(8, 1.5 * entropy) == "capacity used"
    assert words(8, 1.01 * entropy) == "capacity missing"
    assert words(8, 2.5 * entropy, samples=8) == "too few settings"
    text = interaction_profile(inner(1), x, {"a": [0], "b": [0]}, capacity=[9.0, 0.0], rng=0).explanation
    assert "Capacity unused ('a')" in text
    assert "Capacity missing ('b')" in text
    additive = interaction_profile(lambda batch: batch[:, 0, 0] + batch[:, 1, 0], x, [[0]], rng=0)
    assert additive.explanation == "The model is a sum of a function of each side, for every partition."


def test_partitions_by_label_by_mask_and_a_combine_of_ones_own() -> None:
    graph = nx.relabel_nodes(nx.path_graph(4), dict(enumerate("abcd")))
    options: dict[str, Any] = {"graph": graph, "depth": 2, "d_hidden": 2, "rng": 0}
    named = interaction_profile(three_parts, X, {"side": ["a", "b"]}, target="c", **options)
    masks = np.array([[True, True, False, False]])
    options["graph"] = PATH
    assert interaction_profile(three_parts, X, masks, target=2, **options).rows[0].entropy == named.rows[0].entropy
    assert named.rows[0].log_capacity == separation_rank_bounds(PATH, [0, 1], 2, 1, 2, target=2).log_upper_shared

    def shifted(left: Any, right: Any, mask: Any) -> Any:
        assert left.shape == right.shape
        return np.where(mask[:, None], left, right) + 1.0

    moved = interaction_profile(lambda batch: three_parts(batch - 1.0), X, [[0]], combine=shifted, rng=0).rows[0]
    assert moved.entropy == pytest.approx(interaction_profile(three_parts, X, [[0]], rng=0).rows[0].entropy, rel=1e-9)


def test_float32_models_are_counted_to_their_own_rounding() -> None:
    x = torch.tensor(X, dtype=torch.float32)
    found = interaction_profile(three_parts, x, [[0], [2]], rng=1, samples=40)
    assert [row.rank for row in found] == [2, 2]
    assert interaction_profile(three_parts, x, [[0]], rng=1, samples=40, rtol=0.9).rows[0].rank == 1


def test_result_survives_and_is_repeated_by_its_seed() -> None:
    found = interaction_profile(three_parts, X, {"a": [0], "b": [2]}, capacity=[1.0, 2.0])
    for other in (result_from_json(found.to_json()), pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert isinstance(other, InteractionProfile)
        assert other == found
    again = interaction_profile(three_parts, X, {"a": [0], "b": [2]}, capacity=[1.0, 2.0], rng=found.meta.seed)
    assert again == found
    assert "Interaction profile" in found.summary()
    assert len(found.document().plots) == 2
    assert len(interaction_profile(three_parts, X, [[0]]).document().plots) == 1
    assert found.to_csv().splitlines()[0].startswith("name,inside,interaction_share")


@pytest.mark.slow
def test_a_trained_gcn_interacts_where_its_task_does() -> None:
    """Two networks of PyTorch Geometric, one trained on the square of a sum of two vertices, the other on the sum."""
    with without_warnings(DeprecationWarning):
        conv = pytest.importorskip("torch_geometric.nn").GCNConv
    edges = torch.tensor(PATH)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = conv(2, 24, node_dim=-2), conv(24, 24, node_dim=-2)
            self.drop = torch.nn.Dropout(0.5)
            self.last = torch.nn.Linear(24, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.second(torch.relu(self.first(x, edges)), edges))
            return self.last(self.drop(h[..., 0, :]))[..., 0]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(400, 4, 2)
        shares = []
        sum_of_two = x[:, 0, 0] / 2 + x[:, 1, 0] / 6**0.5  # as the first layer mixes vertices 0 and 1
        for task in (2 * sum_of_two**2, sum_of_two):
            net = Net()
            net.drop.p = 0.0
            optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
            for _ in range(250):
                optimiser.zero_grad()
                loss = ((net(x) - task) ** 2).mean()
                loss.backward()
                optimiser.step()
            assert loss.item() < 0.15 * task.var().item()
            net.drop.p = 0.5  # training mode: the profile has to switch it off
            found = interaction_profile(net, x, {"01": [0], "3": [3]}, graph=edges, depth=2, d_hidden=24, rng=0)
            assert net.training
            assert all(row.log_capacity is not None for row in found)
            shares.append([row.interaction_share for row in found])
    assert shares[0][0] > 0.4 > 0.1 > shares[1][0]  # of the square itself it is 0.48
    assert shares[0][1] == shares[1][1] == 0.0  # vertex 3 is three steps away


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fn": None}, TypeError, "`fn` must be callable"),
        ({"features": [1.0, 2.0]}, ValueError, r"`features` must have shape \(N, n, ...\)"),
        ({"features": []}, ValueError, "`features` must hold at least one"),
        ({"partitions": []}, ValueError, "`partitions` must hold at least one partition"),
        ({"partitions": {0: [1]}}, TypeError, "names that are strings"),
        ({"partitions": [[7]]}, ValueError, "partition 0: `partitions` contains vertex 7"),
        ({"partitions": 3}, TypeError, "`partitions` must be a collection"),
        ({"depth": 2}, ValueError, "`depth` describes an architecture and needs `graph`"),
        ({"d_in": 2}, ValueError, "`d_in` describes an architecture"),
        ({"edge_type": [0]}, ValueError, "`edge_type` describes an architecture"),
        ({"directed": 1}, TypeError, "`directed` must be True or False"),
        ({"rtol": -1.0}, ValueError, "`rtol` must be"),
        ({"graph": PATH}, ValueError, "`depth` must be given with `graph`"),
        ({"graph": PATH, "depth": 2}, ValueError, "`d_hidden` must be given with `graph`"),
        ({"graph": PATH, "depth": 2, "d_hidden": 2, "capacity": [1.0]}, ValueError, "`capacity` must be None"),
        ({"graph": [[0, 5], [5, 0]], "depth": 2, "d_hidden": 2}, ValueError, "vertex 5"),
        ({"capacity": [1.0, 2.0]}, ValueError, "`capacity` must hold 1 logarithms"),
        ({"capacity": [-1.0]}, ValueError, "each >= 0"),
        ({"combine": 3}, TypeError, "`combine` must be callable or None"),
        ({"samples": 0}, ValueError, "`samples` must be"),
        ({"rng": "seed"}, TypeError, "`rng` must be"),
        ({"fn": lambda batch: batch[:, :, 0]}, ValueError, "`fn` must return one number for each"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], text: str) -> None:
    plain: dict[str, Any] = {"fn": three_parts, "features": X, "partitions": [[0]], **options}
    with pytest.raises(error, match=text):
        interaction_profile(plain.pop("fn"), plain.pop("features"), plain.pop("partitions"), **plain)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 6))
def test_readings_are_those_of_every_pair_taken_alone(seed, count):
    """From the definition, pair by pair; as many samples as examples, whose order changes no reading."""
    rng = np.random.default_rng(seed)
    weights, features = rng.normal(size=(3, 4)), rng.normal(size=(count, 4, 1))

    def fn(batch):
        sums = batch[:, :, 0] @ weights.T
        return np.tanh(sums[:, 0]) * sums[:, 1] + sums[:, 2]

    inside = np.flatnonzero(rng.random(4) < 0.5)
    (row,) = interaction_profile(fn, features, {"side": inside}, samples=count, rng=seed)
    values = np.zeros((count, count))
    for a in range(count):
        for b in range(count):
            hybrid = features[b].copy()
            hybrid[inside] = features[a][inside]
            values[a, b] = fn(hybrid[None])[0]
    centred = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    energy = np.linalg.svd(values, compute_uv=False) ** 2
    part = energy[energy > 0] / energy.sum()
    entropy = float(-(part * np.log(part)).sum())
    share = float((centred**2).sum() / ((values - values.mean()) ** 2).sum())
    assert row.interaction_share == pytest.approx(share, rel=1e-7, abs=1e-9)
    assert row.entropy == pytest.approx(entropy, rel=1e-7, abs=1e-9)
    assert row.effective_rank == pytest.approx(math.exp(entropy), rel=1e-7)

"""The product GNN: its definition, its degree in each vertex, and a logarithm that never overflows."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles.graphs_ranks import both_ways, forward, walks
from rankdiag.graphs._edges import as_edge_list
from rankdiag.graphs._product_gnn import ProductGNN, product_gnn_log_forward

F64 = torch.float64
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


def columns_of(edges: Any) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor([list(edge) for edge in edges], dtype=torch.int64).reshape(-1, 3)
    return table[:, :2].T, table[:, 2]


def model_of_the_text(readout: Any = "product") -> tuple[ProductGNN, torch.Tensor]:
    model = ProductGNN(2, 2, 2, readout=readout, dtype=F64)
    first, second = [[[1.0, 2.0], [-1.0, 0.5]]], [[[0.5, 1.0], [1.0, -1.0]]]
    state = {"weights.0": torch.tensor(first), "weights.1": torch.tensor(second)}
    model.load_state_dict({**state, "out_weight": torch.tensor([[1.0, -2.0]])})
    return model, torch.tensor([[1.0, 0.0], [0.5, -1.0], [2.0, 1.0]], dtype=F64)


def test_worked_values() -> None:
    model, x = model_of_the_text()
    assert model(x, PATH).tolist() == [64059.451171875]
    assert [model(x, PATH, target=t).item() for t in range(3)] == [-23.625, 170.4375, -60.75]
    every, x = model_of_the_text(None)
    assert every(x, PATH)[:, 0].tolist() == [-23.625, 170.4375, -60.75]
    sign, size = product_gnn_log_forward(every, x, PATH)
    assert sign[:, 0].tolist() == [-1.0, 1.0, -1.0]
    np.testing.assert_allclose(size[:, 0].detach().exp().tolist(), [23.625, 170.4375, 60.75], rtol=1e-14)


@st.composite
def cases(draw: Any) -> tuple[int, list[tuple[int, int, int]], int, int]:
    n = draw(st.integers(1, 5))
    pairs = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=8))
    types = draw(st.integers(1, 3))
    edges = [(u, v, draw(st.integers(0, types - 1))) for u, v in sorted(pairs)]
    return n, edges, types, draw(st.integers(0, 10**6))


@given(cases())
def test_equals_its_definition_in_whole_numbers(case: tuple[int, list[tuple[int, int, int]], int, int]) -> None:
    n, edges, types, seed = case
    rng = np.random.default_rng(seed)
    depth, d_in, d_hidden, d_out = (int(k) for k in rng.integers(1, 4, size=4))
    model = ProductGNN(depth, d_in, d_hidden, d_out=d_out, num_edge_types=types, rng=seed, dtype=F64)
    x = torch.tensor(rng.integers(-2, 3, size=(n, d_in)), dtype=F64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(rng.integers(-2, 3, size=parameter.shape)))
    weights = [[[[Fraction(v) for v in row] for row in q] for q in w.tolist()] for w in model.weights]
    exact_x, out = [[Fraction(v) for v in row] for row in x.tolist()], model.out_weight.tolist()
    columns, kinds = columns_of(edges)
    for target in (None, int(rng.integers(n))):
        expected = forward(exact_x, edges, weights, [[Fraction(v) for v in row] for row in out], target)
        got = model(x, columns, kinds, target)
        sign, size = product_gnn_log_forward(model, x, columns, edge_type=kinds, target=target)
        for value, plain, s, ln in zip(expected, got.tolist(), sign.tolist(), size.tolist(), strict=True):
            assert plain == pytest.approx(float(value), rel=1e-12)
            if value:
                assert s == (1 if value > 0 else -1)
                assert ln == pytest.approx(math.log(abs(value)), rel=1e-12, abs=1e-12)
            else:
                assert plain == s == 0


@given(cases(), st.integers(1, 4))
def test_homogeneous_of_degree_walks_in_each_vertex(
    case: tuple[int, list[tuple[int, int, int]], int, int], depth: int
) -> None:
    n, edges, types, seed = case
    model = ProductGNN(depth, 2, 3, num_edge_types=types, rng=seed, dtype=F64)
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(n, 2)))
    columns, kinds = columns_of(edges)
    counts = walks(n, edges, depth)
    i, target = (int(k) for k in rng.integers(n, size=2))
    scaled = x.clone()
    scaled[i] *= -1.5
    for place, degree in ((None, sum(counts[i])), (target, counts[i][target])):
        (s0, a), (s1, b) = (
            product_gnn_log_forward(model, each, columns, edge_type=kinds, target=place) for each in (x, scaled)
        )
        assert (b - a).item() == pytest.approx(degree * math.log(1.5), rel=1e-8, abs=1e-8)
        assert (s0 * s1).item() == (-1.0) ** degree


@given(cases())
def test_relabelling_loops_and_repeats_change_nothing(
    case: tuple[int, list[tuple[int, int, int]], int, int],
) -> None:
    n, edges, types, seed = case
    rng = np.random.default_rng(seed)
    model = ProductGNN(2, 2, 2, num_edge_types=types, rng=seed, readout=None, dtype=F64)
    x = torch.tensor(rng.normal(size=(n, 2)))
    order = torch.tensor(rng.permutation(n))
    place = torch.argsort(order)
    columns, kinds = columns_of(edges)
    expected = model(x, columns, kinds)
    torch.testing.assert_close(model(x[order], place[columns], kinds), expected[order])
    more = torch.cat((torch.tensor([[0], [0]]), columns, columns), dim=1)
    again = model(x, more, torch.cat((torch.tensor([7]), kinds, kinds)))
    assert torch.equal(again, expected)


def test_a_batch_is_the_same_as_one_at_a_time() -> None:
    model = ProductGNN(3, 2, 4, d_out=3, rng=1, dtype=F64)
    x = torch.randn(4, 5, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    found, (sign, size) = model(x, PATH), product_gnn_log_forward(model, x, PATH)
    assert found.shape == sign.shape == size.shape == (4, 5, 3)
    assert model.hidden(x, PATH).shape == (4, 5, 3, 4)
    for a in range(4):
        for b in range(5):
            torch.testing.assert_close(found[a, b], model(x[a, b], PATH))
            torch.testing.assert_close((sign * size.exp())[a, b], found[a, b])
    every = ProductGNN(3, 2, 4, readout=None, rng=1, dtype=F64)
    torch.testing.assert_close(every(x, PATH)[..., 1, :], every(x, PATH, target=1))


def test_gradients_hold_where_factors_are_zero() -> None:
    columns, kinds = columns_of([(0, 1, 1), (1, 0, 0), (1, 2, 0), (3, 1, 1), (2, 1, 0)])
    model = ProductGNN(2, 2, 2, num_edge_types=2, rng=3, dtype=F64)
    x = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    x[0] = 0.0  # its factors vanish; so do those of vertices that hear from it
    x[2, 0] = 0.0
    x.requires_grad_()
    names = [name for name, _ in model.named_parameters()]

    def run(features: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(model, state, (features, columns, kinds))

    inputs = (x, *model.parameters())
    with torch.random.fork_rng(devices=[]):  # gradcheck draws from the global state
        assert torch.autograd.gradcheck(run, inputs)
    one = ProductGNN(1, 2, 2, rng=3, dtype=F64)
    y = torch.zeros(3, 2, dtype=F64)
    y[1:] = 1.0
    y.requires_grad_()
    with torch.random.fork_rng(devices=[]):
        assert torch.autograd.gradcheck(lambda z: one(z, PATH), (y,))
        assert torch.autograd.gradgradcheck(lambda z: one(z, PATH), (y,))
    slope = torch.autograd.grad(one(y, PATH).sum(), y)[0]
    assert slope.abs().max() == 0  # a double zero: row 0 sends to itself and to 1
    single = torch.autograd.grad(one(y, PATH, target=0).sum(), y)[0]
    assert single[0].abs().max() > 0  # a single one has a slope


def test_gradient_of_the_logarithm() -> None:
    model = ProductGNN(2, 2, 3, rng=5, dtype=F64)
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    value = model(x, PATH)
    expected = torch.autograd.grad(value.abs().log().sum(), (x, *model.parameters()))
    found = torch.autograd.grad(product_gnn_log_forward(model, x, PATH)[1].sum(), (x, *model.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_hundreds_of_vertices_have_a_logarithm() -> None:
    graph = nx.random_regular_graph(4, 300, seed=0)
    columns, _ = columns_of(both_ways(list(graph.edges())))
    model = ProductGNN(3, 2, 3, rng=0, dtype=F64)
    for scale, plain in ((1e-3, 0.0), (1e3, math.inf)):
        x = scale * torch.randn(300, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
        assert model(x, columns).abs().item() == plain or math.isnan(model(x, columns).item())
        sign, size = product_gnn_log_forward(model, x, columns)
        doubled = product_gnn_log_forward(model, 2 * x, columns)[1]
        degree = 300 * 5**3  # every vertex has five neighbours, itself among them
        assert abs(sign.item()) == 1
        assert (doubled - size).item() == pytest.approx(degree * math.log(2.0), rel=1e-9)


def test_float32_needs_the_scale_after_every_factor() -> None:
    """A hub of 2000 neighbours: its products leave float32 inside of one layer, and inside of the readout."""
    star = torch.stack((torch.arange(1, 2001), torch.zeros(2000, dtype=torch.int64)))
    model = ProductGNN(2, 2, 2, rng=0)
    wide = ProductGNN(2, 2, 2, dtype=F64)
    wide.load_state_dict(model.state_dict())
    x = torch.randn(2001, 2, generator=torch.Generator().manual_seed(0))
    for target in (None, 0):
        sign, size = product_gnn_log_forward(model, x, star, target=target)
        exact_sign, exact = product_gnn_log_forward(wide, x.double(), star, target=target)
        assert abs(sign.item()) == 1
        assert math.isfinite(size.item())
        assert sign.item() == exact_sign.item()
        assert size.item() == pytest.approx(exact.item(), abs=0.05)


def test_a_small_entry_beside_a_large_one_is_not_lost() -> None:
    """With diagonal weights the entries never meet, and an output may read the one that is 10^-1000 of the other."""
    model = ProductGNN(2, 2, 2, rng=0, dtype=F64)
    with torch.no_grad():
        for weight in model.weights:
            weight.copy_(torch.eye(2))
        model.out_weight.copy_(torch.tensor([[0.0, 1.0]]))
    clique = torch.tensor(np.array(np.nonzero(1 - np.eye(30))))
    x = torch.full((30, 2), 1e-3, dtype=F64)
    x[:, 0] = 1e3
    sign, size = product_gnn_log_forward(model, x, clique)
    assert (sign.item(), size.item()) == (1.0, pytest.approx(30**3 * math.log(1e-3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_comes_back(dtype: torch.dtype) -> None:
    model = ProductGNN(2, 2, 2, rng=0, dtype=dtype)
    x = torch.ones(3, 2, dtype=dtype)
    assert model(x, PATH).dtype == dtype
    sign, size = product_gnn_log_forward(model, x, PATH)
    assert sign.dtype == size.dtype == torch.promote_types(dtype, torch.float32)
    wide = ProductGNN(2, 2, 2, dtype=F64)
    wide.load_state_dict(model.state_dict())
    np.testing.assert_allclose((sign * size.exp()).item(), wide(x.double(), PATH).item(), rtol=1e-5)


def test_graphs_of_every_kind() -> None:
    model = ProductGNN(2, 2, 2, rng=0, dtype=F64)
    x = np.arange(6.0).reshape(3, 2)
    expected = model(torch.tensor(x), PATH)
    for graph in (PATH.numpy(), PATH.tolist(), nx.path_graph(3), as_edge_list(PATH), as_edge_list(PATH, directed=True)):
        assert torch.equal(model(x, graph), expected)
    assert model(x, torch.zeros((2, 0), dtype=torch.int64)).shape == (1,)


def test_no_vertices_leave_the_empty_product() -> None:
    model = ProductGNN(2, 2, 3, rng=0, dtype=F64)
    nothing, none = torch.zeros(0, 2, dtype=F64), torch.zeros((2, 0), dtype=torch.int64)
    assert model(nothing, none).item() == pytest.approx(model.out_weight.sum().item())
    sign, size = product_gnn_log_forward(model, nothing, none)
    assert (sign * size.exp()).item() == pytest.approx(model.out_weight.sum().item())
    assert model.hidden(nothing, none).shape == (0, 3)


def test_weights_come_from_the_seed_alone_and_start_at_size_one() -> None:
    a, b, c = (ProductGNN(2, 3, 4, num_edge_types=2, rng=seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.out_weight, c.out_weight)
    assert [tuple(w.shape) for w in a.weights] == [(2, 4, 3), (2, 4, 4)]
    wide = ProductGNN(1, 200, 300, rng=0, dtype=F64)
    x = torch.randn(200, 200, dtype=F64, generator=torch.Generator().manual_seed(0))
    factors = (x @ wide.weights[0][0].T).abs().log()
    assert abs(factors.mean().item()) < 0.02


def test_copies_states_and_printing() -> None:
    model = ProductGNN(3, 2, 2, rng=0)
    other = ProductGNN(3, 2, 2, rng=1)
    other.load_state_dict(model.state_dict())
    x = torch.ones(3, 2)
    assert torch.equal(other(x, PATH), model(x, PATH))
    assert torch.equal(copy.deepcopy(model)(x, PATH), model(x, PATH))
    assert sorted(model.state_dict()) == ["out_weight", "weights.0", "weights.1", "weights.2"]
    assert "depth 3 (walks of length 2)" in repr(model)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ProductGNN(0, 2, 2), ValueError, "`num_layers` must be an integer >= 1"),
        (lambda: ProductGNN(1, 2, 2.0), TypeError, "`d_hidden` must be an integer"),
        (lambda: ProductGNN(2**40, 2, 2), ValueError, "`num_layers` must be"),
        (lambda: ProductGNN(2, 2, 2**40), ValueError, "`d_hidden` of shape"),
        (lambda: ProductGNN(1, 2, 2, dtype=torch.int64), TypeError, "`dtype` must be a floating-point"),
        (lambda: ProductGNN(1, 2, 2, device=3), TypeError, "`device` must be"),
        (lambda: ProductGNN(1, 2, 2, device="abacus"), ValueError, "`device` must be one that torch can use"),
        (lambda: ProductGNN(1, 2, 2, readout="mean"), ValueError, "`readout` must be one of 'product', None"),
        (lambda: small(torch.ones(3, 5), PATH), ValueError, r"shape \(..., n, 2\); got shape \(3, 5\)"),
        (lambda: small(torch.ones(2), PATH), ValueError, r"got shape \(2,\)"),
        (lambda: small(torch.ones(3, 2, dtype=F64), PATH), TypeError, "dtype and device of the weights"),
        (lambda: small(torch.ones(3, 2), PATH.double()), TypeError, "`edge_index` must hold integer vertex ids"),
        (lambda: small("features", PATH), TypeError, "`x` must be features of vertices"),
        (lambda: small(torch.ones(2, 2), PATH), ValueError, "`edge_index` holds vertex 2"),
        (lambda: small(torch.ones(3, 2), PATH, [0, 0, 1, 1]), ValueError, "`edge_type` must be below 1"),
        (lambda: small(torch.ones(3, 2), PATH, None, 3), ValueError, "`target` must be a vertex id below 3"),
        (lambda: product_gnn_log_forward(None, torch.ones(3, 2), PATH), TypeError, "`model` must be a ProductGNN"),
    ],
)
def test_wrong_arguments_are_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def small(*arguments: Any) -> torch.Tensor:
    return ProductGNN(1, 2, 2, rng=0)(*arguments)

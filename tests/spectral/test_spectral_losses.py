"""The differentiable twins: equal to the plain readings, with the right gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankdiag.spectral as sp
from oracles import spectral as oracle
from oracles.spectral_cases import matrices
from rankdiag.spectral import losses

TWINS = {
    "effective_rank": (losses.effective_rank_loss, sp.effective_rank, oracle.effective_rank),
    "participation_ratio": (losses.participation_ratio_loss, sp.participation_ratio, oracle.participation_ratio),
    "stable_rank": (losses.stable_rank_loss, sp.stable_rank, oracle.stable_rank),
}
each = pytest.mark.parametrize("name", list(TWINS))


def gradient(loss, matrix):
    leaf = matrix.clone().requires_grad_(True)
    value = loss(leaf)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), found


def test_losses_are_importable_from_the_room():
    for name in TWINS:
        assert getattr(sp, f"{name}_loss") is getattr(losses, f"{name}_loss")


@each
@given(matrices())
def test_equal_to_the_plain_twin(name, matrix):
    loss, plain, _ = TWINS[name]
    found = loss(torch.tensor(matrix))
    assert found.shape == ()
    assert float(found) == pytest.approx(plain(matrix), rel=1e-9, abs=1e-12)


@each
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (1, 5), (5, 1), (4, 4)])
def test_gradcheck(name, shape):
    matrix = torch.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    assert torch.autograd.gradcheck(TWINS[name][0], (matrix,), eps=1e-6, atol=1e-6)


@each
def test_gradcheck_of_a_batch(name):
    matrix = torch.tensor(np.random.default_rng(1).standard_normal((2, 2, 4, 3)), requires_grad=True)
    assert torch.autograd.gradcheck(TWINS[name][0], (matrix,), eps=1e-6, atol=1e-6)


@each
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 3), (3, 5), (6, 6)]))
def test_gradient_is_the_slope_of_the_definition(name, seed, shape):
    loss, _, definition = TWINS[name]
    rng = np.random.default_rng(seed)
    matrix, direction = rng.standard_normal(shape), rng.standard_normal(shape)
    _, found = gradient(loss, torch.tensor(matrix))
    step = 1e-6
    high = definition(oracle.singular_values(matrix + step * direction))
    low = definition(oracle.singular_values(matrix - step * direction))
    assert float((found * torch.tensor(direction)).sum()) == pytest.approx((high - low) / (2 * step), abs=2e-5)


@each
@given(matrices(max_side=5))
def test_gradient_is_orthogonal_to_scaling(name, matrix):
    # Every reading is the same for c*A, so A itself is a direction of slope 0.
    value, found = gradient(TWINS[name][0], torch.tensor(matrix))
    assert torch.isfinite(value)
    assert torch.isfinite(found).all()
    size = float(found.norm()) * float(np.linalg.norm(matrix))
    assert abs(float((found * torch.tensor(matrix)).sum())) <= 1e-7 * max(size, 1.0)


@each
@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (1, 1), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_zero_matrix_is_zero_with_finite_gradients(name, shape, dtype):
    value, found = gradient(TWINS[name][0], torch.zeros(shape, dtype=getattr(torch, dtype)))
    assert (value == 0).all()
    assert torch.isfinite(found).all()


@each
def test_zero_matrix_in_a_batch_does_not_poison_the_others(name):
    loss = TWINS[name][0]
    batch = torch.tensor(np.random.default_rng(2).standard_normal((3, 4, 3)))
    batch[1] = 0
    value, found = gradient(loss, batch)
    assert float(value[1]) == 0
    for i in (0, 2):
        alone, slope = gradient(loss, batch[i])
        torch.testing.assert_close(value[i], alone, rtol=1e-12, atol=0)
        torch.testing.assert_close(found[i], slope, rtol=1e-9, atol=1e-12)
    assert torch.isfinite(found).all()


@each
@pytest.mark.parametrize(
    "matrix",
    [
        torch.eye(4, dtype=torch.float64),  # repeated values
        torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64)),
        torch.outer(torch.arange(1.0, 4.0), torch.arange(1.0, 5.0)).double(),  # rank one
        torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)),
        torch.diag(torch.tensor([1.0, 1e-12, 1e-200], dtype=torch.float64)),
    ],
    ids=["identity", "pairs", "rank one", "exact zeros", "steep"],
)
def test_degenerate_spectra_have_finite_values_and_gradients(name, matrix):
    loss, plain, _ = TWINS[name]
    value, found = gradient(loss, matrix)
    assert float(value) == pytest.approx(plain(matrix.numpy()), rel=1e-9)
    assert torch.isfinite(found).all()


@each
@pytest.mark.parametrize("scale", [1e-150, 1e-200, 1e150, 1e200])
def test_extreme_scales(name, scale):
    loss, plain, _ = TWINS[name]
    matrix = np.random.default_rng(3).standard_normal((4, 3))
    value, found = gradient(loss, torch.tensor(matrix * scale))
    assert float(value) == pytest.approx(plain(matrix), rel=1e-10)
    _, unit = gradient(loss, torch.tensor(matrix))
    torch.testing.assert_close(found * scale, unit, rtol=1e-7, atol=1e-10)


@each
def test_batches_equal_loops(name):
    loss = TWINS[name][0]
    batch = torch.tensor(np.random.default_rng(4).standard_normal((2, 3, 5, 4)))
    found = loss(batch)
    assert found.shape == (2, 3)
    looped = torch.stack([torch.stack([loss(batch[i, j]) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(found, looped, rtol=1e-12, atol=0)


@each
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtype_and_device_are_kept(name, dtype):
    loss, plain, _ = TWINS[name]
    kind = getattr(torch, dtype)
    matrix = torch.tensor(np.random.default_rng(5).standard_normal((6, 4))).to(kind)
    value, found = gradient(loss, matrix)
    assert value.dtype == kind
    assert found.dtype == kind
    assert value.device == matrix.device
    assert torch.isfinite(found).all()
    exact = plain(matrix.double().numpy())
    assert float(value) == pytest.approx(exact, rel={"float64": 1e-12, "float32": 1e-5}.get(dtype, 1e-2))
    _, reference = gradient(loss, matrix.double())
    rough = {"float64": 1e-12, "float32": 1e-4, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    torch.testing.assert_close(found.double(), reference, rtol=rough, atol=rough * float(reference.abs().max()))


@each
def test_half_precision_does_not_overflow(name):
    loss, plain, _ = TWINS[name]
    matrix = torch.full((64, 64), 200.0, dtype=torch.float16) + 100 * torch.eye(64, dtype=torch.float16)
    value, found = gradient(loss, matrix)  # 200 * 64 and its square are beyond float16
    assert float(value) == pytest.approx(plain(matrix.double().numpy()), rel=1e-2)
    assert torch.isfinite(found).all()


def test_effective_rank_loss_of_energies():
    matrix = np.random.default_rng(6).standard_normal((4, 3))
    found = losses.effective_rank_loss(torch.tensor(matrix), weights="energy")
    assert float(found) == pytest.approx(sp.effective_rank(matrix, weights="energy"), rel=1e-12)
    leaf = torch.tensor(matrix, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: losses.effective_rank_loss(x, weights="energy"), (leaf,))
    with pytest.raises(ValueError, match="'sigma', 'energy'"):
        losses.effective_rank_loss(torch.tensor(matrix), weights="squares")


@each
def test_minimising_lowers_the_rank(name):
    loss = TWINS[name][0]
    matrix = torch.tensor(np.random.default_rng(7).standard_normal((8, 6)), requires_grad=True)
    optimiser = torch.optim.SGD([matrix], lr=0.5)
    before = float(loss(matrix).detach())
    for _ in range(30):
        optimiser.zero_grad()
        value = loss(matrix)
        value.backward()
        optimiser.step()
    assert float(loss(matrix).detach()) < 0.8 * before


@each
def test_input_is_left_alone(name):
    matrix = torch.tensor(np.random.default_rng(8).standard_normal((4, 3)), requires_grad=True)
    before = matrix.detach().clone()
    value = TWINS[name][0](matrix)
    assert matrix.grad is None
    torch.testing.assert_close(matrix.detach(), before, rtol=0, atol=0)
    assert value.requires_grad
    assert not TWINS[name][0](matrix.detach()).requires_grad


@each
@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (torch.ones(7), ValueError, r"expected a matrix, got shape \(7,\)"),
        (torch.ones(0, 3), ValueError, "empty"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, "non-finite"),
        (np.ones((2, 2)), TypeError, "torch"),
        ([[1.0]], TypeError, "torch"),
        (torch.ones(2, 2, dtype=torch.int64), (TypeError, ValueError), "float"),
    ],
)
def test_what_losses_refuse(name, bad, error, words):
    with pytest.raises(error, match=words):
        TWINS[name][0](bad)


@each
def test_losses_refuse_unknown_keywords(name):
    with pytest.raises(TypeError, match="unexpected keyword"):
        TWINS[name][0](torch.eye(2), weigths="energy")

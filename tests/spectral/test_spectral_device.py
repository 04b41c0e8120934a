"""The route of accelerators, run on CPU tensors: the same numbers as the plain route, and every refusal left to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rankdiag as rd
from rankdiag.spectral import _routes
from rankdiag.spectral._device import device_gram, on_accelerator


@pytest.fixture
def accelerated(monkeypatch):
    """Take CPU tensors for tensors on an accelerator, and count how often the route is taken."""
    taken = []

    def counted(tensor):
        found = device_gram(tensor)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(_routes, "on_accelerator", lambda a: isinstance(a, torch.Tensor))
    monkeypatch.setattr(_routes, "device_gram", counted)
    return taken


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 6), (6, 1), (3, 7, 5), (2, 3, 4, 9)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128])
@pytest.mark.parametrize("scale", [1.0, 2.0**-12])
def test_values_are_those_of_an_svd_within_the_bound(accelerated, shape, dtype, scale):
    generator = torch.Generator().manual_seed(3)
    tensor = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if dtype.is_complex:
        tensor = tensor * (1 + 2j)
    found = rd.spectrum(tensor, method="gram")
    exact = np.linalg.svd(tensor.to(torch.complex128 if dtype.is_complex else torch.float64).numpy(), compute_uv=False)
    assert accelerated == [True]
    assert found.method == "gram"
    assert found.input_dtype == str(dtype).removeprefix("torch.")
    assert found.shape == shape[-2:]
    assert (np.abs(found.values - exact) <= np.asarray(found.error_bound)[..., None]).all()
    assert found.meta.details["device"] == "cpu"


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_scales_keep_their_digits(accelerated, scale):
    matrix = np.random.default_rng(0).standard_normal((6, 4))
    found = rd.spectrum(torch.from_numpy(matrix * scale), method="gram")
    np.testing.assert_allclose(found.values / scale, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12)


def test_stacks_are_read_in_one_go_and_like_the_plain_route(accelerated):
    stack = np.random.default_rng(0).standard_normal((5, 12, 9))
    tensor = torch.from_numpy(stack)
    np.testing.assert_allclose(rd.effective_rank(tensor), rd.effective_rank(stack), rtol=1e-6)
    np.testing.assert_allclose(rd.participation_ratio(tensor), rd.participation_ratio(stack), rtol=1e-6)
    sums = rd.spectrum(tensor, need="sums")
    assert sums.method == "gram"
    assert accelerated == [True] * 3
    assert isinstance(rd.effective_rank(tensor[0]), float)


def test_noise_that_would_show_sends_the_matrix_to_the_plain_route(accelerated):
    rng = np.random.default_rng(0)
    low = rng.standard_normal((80, 2)) @ rng.standard_normal((2, 60))
    assert rd.effective_rank(torch.from_numpy(low)) == pytest.approx(rd.effective_rank(low), rel=1e-9)
    assert rd.spectrum(torch.from_numpy(low), need="sums").method == "svd"
    assert accelerated == [True, True]


def test_a_zero_matrix_is_zero(accelerated):
    assert rd.effective_rank(torch.zeros(4, 3)) == 0.0


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        (torch.ones(3), ValueError),
        (torch.ones(0, 3), ValueError),
        (torch.tensor([[1.0, float("nan")]]), ValueError),
        (torch.eye(3).to_sparse(), TypeError),
    ],
)
def test_refusals_are_those_of_the_plain_route(accelerated, tensor, error):
    with pytest.raises(error, match="`a`"):
        rd.effective_rank(tensor)
    assert accelerated == [False]


def test_other_routes_stay_on_the_cpu(accelerated):
    tensor = torch.eye(4, dtype=torch.float64)
    assert rd.spectrum(tensor).method == "svd"
    assert rd.spectrum(tensor, method="gram", dtype="float32").method == "gram"
    assert rd.numerical_rank(tensor) == 4
    assert accelerated == []


def test_the_tensor_is_left_as_it_was(accelerated):
    tensor = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = tensor.detach().clone()
    rd.effective_rank(tensor)
    assert torch.equal(tensor.detach(), before)
    assert tensor.grad is None


def test_cpu_tensors_and_arrays_are_no_accelerator():
    assert not on_accelerator(torch.ones(2, 2))
    assert not on_accelerator(np.ones((2, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_device():
    tensor = torch.randn(8, 96, 64, generator=torch.Generator().manual_seed(0))
    there = rd.spectrum(tensor.cuda(), need="sums")
    assert there.meta.details["device"].startswith("cuda")
    np.testing.assert_allclose(there.values, rd.spectrum(tensor).values, rtol=1e-6)
    np.testing.assert_allclose(rd.effective_rank(tensor.cuda()), rd.effective_rank(tensor), rtol=1e-6)

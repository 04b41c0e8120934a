"""The differentiable twins: their slopes by finite differences, and padding that neither counts nor gets a slope."""

from __future__ import annotations

import pytest
import torch

from rankdiag.preference import ches_from_padded
from rankdiag.preference.losses import ches_loss, ln_ches_loss, relative_ches_loss

TWINS = {"ches": ches_loss, "ln_ches": ln_ches_loss, "relative": relative_ches_loss}
each = pytest.mark.parametrize("name", list(TWINS))
LEFT = torch.tensor([[False, True, True, True], [False, False, False, True]])
RIGHT = torch.tensor([[True, True, False], [True, True, True]])


def batch(dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 3), (2, 3, 3))
    return tuple(torch.randn(s, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)


@each
def test_gradcheck(name):
    a, b = batch()
    assert torch.autograd.gradcheck(lambda x, y: TWINS[name](x, LEFT, y, RIGHT), (a, b), eps=1e-6, atol=1e-7)
    outer = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)  # given, so that none is drawn
    twice = torch.autograd.gradgradcheck
    assert twice(lambda x, y: TWINS[name](x, LEFT, y, RIGHT), (a, b), outer, eps=1e-6, atol=1e-6)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equal_to_the_plain_score_of_the_rounded_states(name, dtype):
    a, b = batch(dtype)
    found = TWINS[name](a, LEFT, b, RIGHT)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.tensor(getattr(ches_from_padded(a, LEFT, b, RIGHT), name))
    close = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(found.detach().double(), expected, rtol=close, atol=close)


@each
def test_padding_may_hold_anything_and_gets_no_slope(name):
    a, b = batch()
    dirty = a.detach().clone()
    dirty[~LEFT] = float("nan")
    dirty.requires_grad_()
    found, plain = TWINS[name](dirty, LEFT, b, RIGHT), TWINS[name](a, LEFT, b, RIGHT)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    (slope,) = torch.autograd.grad(found.sum(), dirty)
    (expected,) = torch.autograd.grad(plain.sum(), a)
    torch.testing.assert_close(slope, expected, rtol=0, atol=0)
    assert not slope[~LEFT].any()


def test_a_step_against_the_score_lowers_it():
    a, b = batch()
    before = ln_ches_loss(a, LEFT, b, RIGHT).mean()
    slopes = torch.autograd.grad(before, (a, b))
    after = ln_ches_loss(a - 1e-3 * slopes[0], LEFT, b - 1e-3 * slopes[1], RIGHT).mean()
    assert after < before


@each
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({0: [[1.0]]}, TypeError, "`chosen` must be a float tensor"),
        ({0: torch.ones(2, 4, 3, dtype=torch.int64)}, TypeError, "`chosen` must be a float tensor"),
        ({2: torch.ones(3, 3)}, ValueError, "`rejected` must have shape"),
        ({1: LEFT.float()}, TypeError, "`chosen_mask` must be a boolean tensor"),
        ({3: RIGHT[:, :2]}, ValueError, "`rejected_mask` must have the shape"),
        ({1: torch.zeros_like(LEFT)}, ValueError, "`chosen_mask` must be True somewhere"),
        ({2: torch.ones(2, 3, 5)}, ValueError, "`rejected` must hold as many pairs"),
    ],
)
def test_refusals(name, change, error, words):
    a, b = batch()
    arguments = [change.get(i, value) for i, value in enumerate((a, LEFT, b, RIGHT))]
    with pytest.raises(error, match=words):
        TWINS[name](*arguments)

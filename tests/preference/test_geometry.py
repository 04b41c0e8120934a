"""Geometry of two unembedding rows: against a plain decomposition, at the edges, and as a result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankdiag import result_from_json
from rankdiag.preference import unembedding_geometry


@given(seed=st.integers(0, 100_000), width=st.integers(1, 6))
def test_against_a_basis(seed, width):
    """An orthogonal basis whose first vector is W+ gives the parts as coordinates."""
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(4, width)) * 10.0 ** rng.integers(-3, 4)
    plus, minus = (int(i) for i in rng.choice(4, 2, replace=False))
    basis, triangle = np.linalg.qr(np.column_stack([W[plus], rng.normal(size=(width, width - 1))]))
    basis = basis * np.sign(triangle[0, 0])
    coordinates = basis.T @ W[minus]
    near = 1e-12 * np.abs(W).max()
    g = unembedding_geometry(W, plus, minus)
    assert g.norm_chosen == pytest.approx(np.sqrt((W[plus] ** 2).sum()), abs=near)
    assert g.norm_rejected == pytest.approx(np.sqrt((W[minus] ** 2).sum()), abs=near)
    assert g.inner == pytest.approx((W[plus] * W[minus]).sum(), rel=1e-9, abs=near * np.abs(W).max())
    assert g.rejected_projection_on_chosen == pytest.approx(coordinates[0], abs=near)
    assert g.difference_projection_on_chosen == pytest.approx(g.norm_chosen - coordinates[0], abs=near)
    assert g.orthogonal_norm == pytest.approx(np.sqrt((coordinates[1:] ** 2).sum()), abs=near)
    assert g.orthogonal_dominates == (g.orthogonal_norm > abs(g.difference_projection_on_chosen))


def test_nearly_parallel_rows_keep_their_digits():
    g = unembedding_geometry([[1.0, 0.0], [1.0, 1e-12]], 0, 1)
    assert g.orthogonal_norm == 1e-12
    assert g.difference_projection_on_chosen == 0
    assert g.orthogonal_dominates


def test_only_two_rows_are_read():
    W = np.full((5, 2), np.nan)
    W[1], W[3] = (3.0, 0.0), (4.0, 5.0)
    for matrix in (W, torch.tensor(W), torch.tensor(W).to(torch.bfloat16)):
        assert unembedding_geometry(matrix, 1, 3).orthogonal_norm == 5
    with pytest.raises(ValueError, match="`W` has 2 non-finite"):
        unembedding_geometry(W, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([[0.0, 0.0], [1.0, 1.0]], 0, 1), "must have a direction at row `chosen` = 0"),
        (([[1.0, 0.0], [1.0, 1.0]], 1, 1), "must be different tokens"),
        (([[1.0, 0.0], [1.0, 1.0]], 0, 2), "`rejected` must be an integer"),
        (([[1e200, 0.0], [1e200, 1.0]], 0, 1), "beyond float64"),
        (([1.0, 0.0], 0, 1), "with 2 axes"),
    ],
)
def test_what_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        unembedding_geometry(*arguments)


def test_result():
    g = unembedding_geometry([[3.0, 0.0], [4.0, 5.0]], 0, 1)
    assert result_from_json(g.to_json()) == g
    assert g.verdict == "unknown"
    assert "larger than" in g.explanation
    assert g.meta.details["rejected"] == 1
    assert [number.value for number in g.document().key_numbers][:3] == [-1.0, 5.0, True]
    assert "not larger than" in unembedding_geometry([[3.0, 0.0], [0.0, 1.0]], 0, 1).explanation

"""Every cell of a row against numpy's SVD of the dense matrix: all routes, all block sizes, all dtypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankdiag as rd
from oracles.weight_cells import bfloat16, cells
from rankdiag.weights import marchenko_pastur_effective_rank, power_law_tail

EXACT = ("n", "numerical_rank", "lora_rank_hint", "mp_edge_outliers", "numerical_rank_ratio")
CLOSE = (
    "stable_rank",
    "effective_rank",
    "erank_energy",
    "participation",
    "spectral",
    "fro",
    "nuclear",
    "effective_rank_ratio",
    "stable_rank_ratio",
)


def one_row(matrix, **options):
    (row,) = rd.weight_report({"a.weight": matrix}, **options).rows
    return row


def agrees(row, matrix, dtype="float64", rtol=1e-6):
    truth = cells(matrix, dtype)
    for name in EXACT:
        if name in truth and getattr(row, name) is not None:
            assert getattr(row, name) == truth[name], name
    for name in CLOSE:
        if name in truth:
            assert getattr(row, name) == pytest.approx(truth[name], rel=rtol, abs=1e-300), name
    assert row.rank_rtol == pytest.approx(truth["rank_rtol"])
    if row.condition is not None:
        assert row.condition == pytest.approx(truth["condition"], rel=2e-3)


@st.composite
def matrices(draw):
    m, n = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    rank = draw(st.integers(1, min(m, n)))
    seed = draw(st.integers(0, 2**32 - 1))
    scale = 10.0 ** draw(st.sampled_from([0, 0, 3, -5, -30, 30]))
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((m, rank)), rng.standard_normal((rank, n))
    mean = draw(st.sampled_from([0.0, 0.0, 1.0]))
    return scale * (left @ right + mean)


@given(matrices(), st.sampled_from(["auto", "svd", "qr_svd"]))
def test_cells_in_memory(matrix, method):
    row = one_row(matrix, method=method)
    truth = cells(matrix)
    for name in CLOSE:
        assert getattr(row, name) == pytest.approx(truth[name], rel=1e-6, abs=1e-300), name
    assert row.numerical_rank == truth["numerical_rank"]
    assert row.rank_rtol == pytest.approx(truth["rank_rtol"])


@given(matrices(), st.integers(1, 3000))
def test_streaming_gives_the_same_cells(matrix, max_bytes):
    # Small sides of at most 24 leave the second, exact pass always affordable, so no sum may be missing.
    row, whole = one_row(matrix, max_bytes=max_bytes), one_row(matrix)
    truth = cells(matrix)
    for name in CLOSE:
        assert getattr(row, name) == pytest.approx(truth[name], rel=1e-6, abs=1e-300), name
    assert row.numerical_rank == whole.numerical_rank
    assert row.mp_edge_outliers == whole.mp_edge_outliers
    assert row.baseline_effective_rank == whole.baseline_effective_rank


@pytest.mark.parametrize("shape", [(600, 520), (520, 900), (1, 40), (40, 1), (1, 1)])
@pytest.mark.parametrize("method", ["auto", "svd", "qr_svd"])
def test_cells_of_larger_matrices(shape, method):
    matrix = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    row = one_row(matrix, method=method)
    agrees(row, matrix, "float32")
    assert row.method == {"auto": "gram" if min(shape) > 512 else "svd"}.get(method, method)


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")])
def test_sixteen_bit_weights_are_read_as_they_are_stored(dtype, name):
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    row = one_row(weight)
    agrees(row, weight.to(torch.float64).numpy(), name)
    assert row.dtype == name
    assert row.rank_rtol == {"bfloat16": 2.0**-7, "float16": 2.0**-10}[name]


def test_the_bfloat16_oracle_rounds_as_torch_does():
    array = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (bfloat16(array) == torch.from_numpy(array).bfloat16().float().numpy()).all()


def test_baseline_and_ratios():
    row = one_row(np.random.default_rng(2).standard_normal((90, 60)))
    assert row.baseline_effective_rank == pytest.approx(marchenko_pastur_effective_rank(90, 60))
    assert row.effective_rank_over_baseline == pytest.approx(row.effective_rank / row.baseline_effective_rank)
    assert 0.98 < row.effective_rank_over_baseline < 1.02
    assert row.effective_rank_ratio == row.effective_rank / 60


def test_outliers_are_counted_against_the_edge_of_the_centred_entries():
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((80, 50))
    spiked = noise + 40 * np.outer(np.eye(80)[0], np.eye(50)[0])
    assert one_row(noise).mp_edge_outliers == 0
    assert one_row(spiked).mp_edge_outliers == cells(spiked)["mp_edge_outliers"] == 1
    assert one_row(noise + 5.0).mp_edge_outliers == cells(noise + 5.0)["mp_edge_outliers"] == 1


def test_tail_columns_are_those_of_the_public_fit():
    rng = np.random.default_rng(4)
    matrix = rng.standard_normal((60, 40)) * np.exp(rng.standard_normal(40))
    row = one_row(matrix)
    fit = power_law_tail(np.linalg.svd(matrix, compute_uv=False) ** 2)
    assert row.n_tail == fit.n_tail
    for name in ("alpha", "D", "sigma", "x_min"):
        assert getattr(row, name) == pytest.approx(getattr(fit, name), rel=1e-9)


def test_shuffled_baseline_is_repeatable_and_close_to_the_closed_form():
    matrix = np.random.default_rng(5).standard_normal((70, 40))
    report = rd.weight_report({"a.weight": matrix}, baseline="shuffle")
    again = rd.weight_report({"a.weight": matrix}, baseline="shuffle", rng=report.meta.seed)
    assert report.meta.seed is not None
    assert report.rows[0].baseline_effective_rank == again.rows[0].baseline_effective_rank
    assert report.rows[0].baseline_effective_rank == pytest.approx(marchenko_pastur_effective_rank(70, 40), rel=0.02)
    streamed = rd.weight_report({"a.weight": matrix}, baseline="shuffle", max_bytes=1000).rows[0]
    assert streamed.baseline_effective_rank is None
    assert "shuffling needs the whole matrix" in streamed.nulls["baseline_effective_rank"]


def test_shuffled_baselines_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(6)
    weights = {f"layers.{i}.weight": rng.standard_normal((20, 15)) for i in range(6)}
    one = rd.weight_report(weights, baseline="shuffle", rng=7)
    many = rd.weight_report(weights, baseline="shuffle", rng=7, n_jobs=3)
    assert one.column("baseline_effective_rank") == many.column("baseline_effective_rank")
    assert len(set(one.column("baseline_effective_rank"))) == 6


@pytest.mark.parametrize("n_jobs", [2, 5])
def test_threads_change_nothing_but_the_clock(n_jobs):
    rng = np.random.default_rng(8)
    weights = {f"layers.{i}.weight": rng.standard_normal((30 + i, 20)) for i in range(8)}
    one, many = rd.weight_report(weights), rd.weight_report(weights, n_jobs=n_jobs)
    for column in one.columns:
        if column.name != "seconds":
            assert one.column(column.name) == many.column(column.name), column.name


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e290])
def test_extreme_scales_change_only_the_norms(scale):
    matrix = np.random.default_rng(9).standard_normal((30, 20))
    plain = one_row(matrix)
    for row in (one_row(scale * matrix), one_row(scale * matrix, max_bytes=2000)):
        for name in ("stable_rank", "effective_rank", "erank_energy", "participation", "alpha"):
            assert getattr(row, name) == pytest.approx(getattr(plain, name), rel=1e-6), name
        assert row.mp_edge_outliers == plain.mp_edge_outliers
        assert row.fro == pytest.approx(scale * plain.fro, rel=1e-9)
        assert row.x_min is None
        assert row.nulls["x_min"] == "a square beyond float64"


def test_only_what_is_asked_for_is_measured():
    matrix = np.random.default_rng(10).standard_normal((20, 15))
    row = one_row(matrix, measures=["nuclear", "lora_rank_hint"])
    assert row.nuclear is not None
    assert row.lora_rank_hint is not None
    assert row.effective_rank is None
    assert row.alpha is None
    assert not row.nulls
    top = one_row(matrix, measures="stable_rank")
    truth = cells(matrix)
    for name in ("stable_rank", "spectral", "fro", "stable_rank_ratio"):
        assert getattr(top, name) == pytest.approx(truth[name], rel=1e-6), name
    assert top.effective_rank is None
    assert one_row(matrix, measures="no_tail").alpha is None


def test_the_stable_rank_profile_needs_no_full_decomposition():
    matrix = np.random.default_rng(11).standard_normal((700, 600)).astype(np.float32)
    row = one_row(matrix, measures="stable_rank")
    assert row.method == "topk"
    assert row.stable_rank == pytest.approx(cells(matrix)["stable_rank"], rel=1e-6)
    streamed = one_row(matrix, measures="stable_rank", max_bytes=100_000)
    assert streamed.stable_rank == pytest.approx(row.stable_rank, rel=1e-6)


def test_sketch_ends_are_the_first_and_the_last_value():
    matrix = np.random.default_rng(12).standard_normal((80, 60))
    s = np.linalg.svd(matrix, compute_uv=False)
    row = one_row(matrix)
    assert row.sketch[0] == 1.0
    assert row.sketch[-1] == pytest.approx(s[-1] / s[0])
    assert list(row.sketch) == sorted(row.sketch, reverse=True)
    assert math.isfinite(sum(row.sketch))

"""The precision policy: what a Gram matrix may give, when the work is done again, what stays empty and why."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankdiag as rd
from oracles.spectral import orthogonal, with_spectrum
from oracles.weight_cells import cells
from rankdiag.weights._spectra import gram_sum_error, settled_rank


def one_row(matrix, **options):
    (row,) = rd.weight_report({"a.weight": matrix}, **options).rows
    return row


@st.composite
def spectra(draw):
    """Flat, steep, clustered and deficient spectra of up to 24 values."""
    n = draw(st.integers(2, 24))
    kind = draw(st.sampled_from(["steep", "deficient", "floor", "flat"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.ones(n)
    if kind == "steep":
        values = 10.0 ** -np.linspace(0, draw(st.floats(0, 16)), n)
    elif kind == "deficient":
        values[draw(st.integers(1, n)) :] = 0.0
    elif kind == "floor":
        values[draw(st.integers(1, n)) :] = 10.0 ** -draw(st.floats(3, 12))
    else:
        values = rng.uniform(0.1, 1.0, n)
    return np.sort(values)[::-1], rng


@given(spectra())
def test_the_stated_error_of_a_gram_spectrum_covers_the_real_one(case):
    values, rng = case
    n = values.size
    matrix = with_spectrum(rng, n + 3, n, values)
    gram = rd.spectrum(matrix, method="gram")
    truth = cells(matrix)
    stated = gram_sum_error(gram.values, float(gram.error_bound))
    # The bound is of first order; 1e-12 is for the SVD of the oracle itself.
    for name, value in (("effective_rank", gram.effective_rank()), ("nuclear", gram.schatten_norm("nuc"))):
        assert abs(value - truth[name]) <= (1.5 * stated + 1e-12) * truth[name], name


@given(spectra())
def test_a_rank_is_counted_right_or_not_at_all(case):
    values, rng = case
    matrix = with_spectrum(rng, values.size + 2, values.size, values)
    for method in ("gram", "svd"):
        for dtype in ("float64", "float32", "bfloat16"):
            found = dataclasses.replace(rd.spectrum(matrix, method=method), input_dtype=dtype)
            rank = settled_rank(found)
            threshold = float(found.rank_threshold())
            if rank is not None and np.abs(values - threshold).min() > 1e-13:
                assert rank == (values > threshold).sum()


def test_the_error_of_a_gram_spectrum_is_zero_where_nothing_is_uncertain():
    assert gram_sum_error(np.zeros(3), 0.0) == 0.0
    assert gram_sum_error(np.ones(3), 0.0) == 0.0
    assert gram_sum_error(np.ones(3), 1e-7) < 1e-13


@pytest.mark.parametrize("rank", [1, 5, 300])
def test_rank_deficient_layers_keep_their_digits(rank):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((560, rank)) @ rng.standard_normal((rank, 540))
    for row in (one_row(matrix), one_row(matrix, max_bytes=1_000_000)):
        truth = cells(matrix)
        assert row.numerical_rank == rank
        assert row.effective_rank == pytest.approx(truth["effective_rank"], rel=1e-6)
        assert row.nuclear == pytest.approx(truth["nuclear"], rel=1e-6)
        assert row.condition is None
        assert "not known to 0.1 %" in row.nulls["condition"]


def test_an_explicit_gram_keeps_its_noise_and_says_so():
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))
    row = one_row(matrix, method="gram")
    truth = cells(matrix)
    assert row.method == "gram"
    assert row.effective_rank == pytest.approx(truth["effective_rank"], rel=1e-3)
    assert "effective rank and nuclear norm from a Gram matrix, good to" in row.remark
    assert row.numerical_rank is None
    assert "pass method='qr_svd'" in row.nulls["numerical_rank"]
    assert row.fro == pytest.approx(truth["fro"], rel=1e-12)
    assert row.stable_rank == pytest.approx(truth["stable_rank"], rel=1e-12)


def test_an_explicit_exact_route_streams_too():
    rng = np.random.default_rng(2)
    matrix = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))
    for method in ("svd", "qr_svd"):
        row = one_row(matrix, method=method, max_bytes=3000)
        assert row.method == "qr_svd"
        assert row.numerical_rank == 3


def test_without_memory_for_a_second_pass_the_cells_stay_empty(monkeypatch):
    monkeypatch.setattr("rankdiag.weights._spectra.SECOND_PASS_BYTES", 1)
    rng = np.random.default_rng(3)
    matrix = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))
    row = one_row(matrix, max_bytes=3000)
    truth = cells(matrix)
    assert row.method == "gram"
    assert row.effective_rank is None
    assert row.nuclear is None
    assert row.numerical_rank is None
    assert "a Gram matrix leaves it open by" in row.nulls["effective_rank"]
    assert row.effective_rank_ratio is None
    for name in ("fro", "spectral", "stable_rank", "participation", "erank_energy"):
        assert getattr(row, name) == pytest.approx(truth[name], rel=1e-6), name
    full = rng.standard_normal((60, 50))
    assert one_row(full, max_bytes=3000).effective_rank == pytest.approx(cells(full)["effective_rank"], rel=1e-6)


@pytest.mark.parametrize("exponent", [1, 3, 5, 6, 7, 12, 17])
@pytest.mark.parametrize("method", ["gram", "svd"])
def test_the_condition_number_is_right_or_empty(exponent, method):
    rng = np.random.default_rng(4)
    values = np.logspace(0, -exponent, 30)
    matrix = with_spectrum(rng, 40, 30, values)
    row = one_row(matrix, method=method)
    if row.condition is not None:
        assert row.condition == pytest.approx(10.0**exponent, rel=1e-3)
    else:
        reason = row.nulls["condition"]
        least = float(reason.partition("at least ")[2].partition(";")[0])
        assert least <= 10.0**exponent * 1.01
    assert (row.condition is None) == (exponent >= {"gram": 6, "svd": 12}[method])


def test_the_tail_fit_never_sees_noise():
    rng = np.random.default_rng(5)
    values = np.concatenate([np.logspace(1, 0, 40), np.zeros(520)])
    matrix = orthogonal(rng, 580)[:, :560] * values @ orthogonal(rng, 560)
    row = one_row(matrix)
    clean = one_row(np.diag(values[:40]))
    assert row.alpha == pytest.approx(clean.alpha, rel=1e-6)
    assert row.n_tail == clean.n_tail
    for options in ({}, {"method": "svd"}, {"method": "gram"}, {"max_bytes": 400_000}):
        noisy = one_row(orthogonal(rng, 60)[:, :8] * np.logspace(1, 0, 8) @ orthogonal(rng, 50)[:8], **options)
        assert noisy.alpha is None
        assert noisy.nulls["alpha"] == "a tail needs 10 eigenvalues above the noise floor; there are 8"
    few = one_row(np.diag([3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert few.alpha is None
    assert few.nulls["alpha"] == "a tail needs 10 eigenvalues above the noise floor; there are 3"
    equal = one_row(np.eye(20))
    assert equal.alpha is None
    assert equal.nulls["alpha"]


def test_every_empty_cell_that_was_asked_for_has_a_reason():
    rng = np.random.default_rng(6)
    for matrix in (np.zeros((20, 20)), np.eye(15), rng.standard_normal((30, 2)) @ rng.standard_normal((2, 20))):
        for options in (
            {},
            {"method": "gram"},
            {"max_bytes": 500},
            {"baseline": "shuffle", "max_bytes": 500, "rng": 0},
        ):
            row = one_row(matrix, **options)
            for name in (
                "stable_rank",
                "effective_rank",
                "numerical_rank",
                "nuclear",
                "alpha",
                "condition",
                "mp_edge_outliers",
                "baseline_effective_rank",
                "lora_rank_hint",
            ):
                assert (getattr(row, name) is None) == (name in row.nulls), (name, options)

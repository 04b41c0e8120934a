"""Edit similarity, filters, pressure, mass, falls and trainer logs, each against the plainest form of itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.ches_definition import edit_table, largest_fall
from rankdiag import result_from_dict
from rankdiag.preference import (
    PreferenceScores,
    dataset_pressure,
    drop_highest,
    edit_similarity,
    from_trainer_log,
    influence_matrix,
    keep_lowest,
    mass_by_group,
    max_decrease,
    quantile_window,
    strictly_decreasing_loss,
    token_mass_shift,
)
from rankdiag.preference._edit import edit_distance

IDS = st.lists(st.integers(0, 4), max_size=12)
SCORES = st.lists(st.one_of(st.just(float("nan")), st.integers(-3, 3).map(float)), min_size=1, max_size=12)


# --- edit distance -----------------------------------------------------------------------------------------------


@settings(max_examples=400)
@given(IDS, IDS)
def test_edit_distance_is_that_of_the_table(a, b):
    distance = edit_table(a, b)
    assert edit_distance(a, b) == distance == edit_distance(b, a) == edit_distance(a[::-1], b[::-1])
    relabelled = [[1_000_000_007 - x for x in ids] for ids in (a, b)]
    assert edit_distance(*relabelled) == distance
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    longest = max(len(a), len(b))
    assert edit_similarity(a, b) == (-distance / longest if longest else 0)
    assert (edit_similarity(a, b) == 0) == (a == b)


@given(IDS, IDS, IDS)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize("size", [63, 64, 65, 300])
def test_long_responses(size):
    rng = np.random.default_rng(size)
    a, b = rng.integers(0, 50, size), rng.integers(0, 50, size + 7)
    expected = -edit_table(a.tolist(), b.tolist()) / (size + 7)
    for kind in (list, np.asarray, torch.tensor):
        assert edit_similarity(kind(a), kind(b)) == expected


# --- filters -----------------------------------------------------------------------------------------------------


@given(SCORES, st.integers(1, 12), st.floats(0.01, 1.0))
def test_filters_are_sorted_lists(scores, n, fraction):
    valid = [i for i, s in enumerate(scores) if s == s]
    if not valid:
        with pytest.raises(ValueError, match="at least one pair with a score"):
            keep_lowest(scores, n=n)
        return
    order = sorted(valid, key=lambda i: (scores[i], i))
    assert keep_lowest(scores, n=n).tolist() == sorted(order[:n])
    count = max(1, int(np.ceil(len(valid) * fraction - 1e-9)))
    assert keep_lowest(scores, fraction=fraction).tolist() == sorted(order[:count])
    assert drop_highest(scores, fraction=fraction).tolist() == sorted(order[: len(order) - count])
    window = quantile_window(scores, 0.0, n)
    assert window.tolist() == order[:n]
    assert quantile_window(scores, 1.0, n).tolist() == order[-n:]
    middle = quantile_window(scores, fraction, n)
    assert len(middle) == min(n, len(valid))
    start = order.index(middle[0])
    assert middle.tolist() == order[start : start + len(middle)]
    centre = round(fraction * (len(order) - 1))
    assert start <= centre < start + len(middle)


def test_identical_and_unusable_pairs_never_pass():
    lengths = dict.fromkeys(("n_chosen", "n_rejected", "length_gap", "shared_prefix"), [1.0] * 4)
    scores = PreferenceScores(
        keys=tuple("abcd"),
        status=("ok", "identical", "empty_chosen", "ok"),
        scores={"ln_ches": [1.0, 0.0, np.nan, 2.0], **lengths},
    )
    assert keep_lowest(scores, n=4).tolist() == [0, 3]
    assert quantile_window(scores, 0.0, 4).tolist() == [0, 3]
    with pytest.raises(ValueError, match="`by` must be one of the columns"):
        keep_lowest(scores, n=1, by="head")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: keep_lowest([1.0]), TypeError),
        (lambda: keep_lowest([1.0], n=1, fraction=0.5), TypeError),
        (lambda: keep_lowest([1.0], fraction=0.0), ValueError),
        (lambda: keep_lowest([1.0], fraction=1.1), ValueError),
        (lambda: quantile_window([1.0], -0.1, 1), ValueError),
        (lambda: quantile_window([1.0], 0.5, 0), ValueError),
    ],
)
def test_filters_refuse(call, error):
    with pytest.raises(error):
        call()


# --- pressure ----------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_pressure_is_the_mean_of_the_influence_matrix(count, width, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, count, width))
    g = rng.random(count)
    matrix = np.array([[a[i] @ (b[j] - a[j]) for j in range(count)] for i in range(count)])
    np.testing.assert_allclose(influence_matrix(a, b), matrix, atol=1e-12)
    found = dataset_pressure(a, b, weights=g)
    np.testing.assert_allclose(found.pressure, (matrix * g).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.own, np.diag(matrix), atol=1e-12)
    assert result_from_dict(found.to_dict()) == found


# --- where the mass went -----------------------------------------------------------------------------------------


@given(st.integers(2, 8), st.integers(0, 99))
def test_mass_shift_is_that_of_the_definition(size, seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size), 2)
    with np.errstate(divide="ignore"):
        before, after = np.log(p), np.log(q)
    shift = token_mass_shift(before, after, preferred=0, k=size)
    change, gain = q - p, after - before
    np.testing.assert_allclose(shift.prob_change, change, atol=1e-12)
    assert shift.total_variation == pytest.approx(0.5 * np.abs(change).sum())
    assert shift.kl == pytest.approx(np.sum(p * (before - after)), abs=1e-12)
    assert shift.top_prob_ids.tolist() == sorted(range(size), key=lambda i: (-shift.prob_change[i], i))
    assert shift.top_logp_ids.tolist() == sorted(range(size), key=lambda i: (-gain[i], i))
    assert shift.top_prob_ids[shift.preferred_rank_prob] == 0
    groups = mass_by_group(before, after, {"benign": [0], "catastrophic": list(range(1, size))})
    assert sum(groups.prob_change.values()) == pytest.approx(0, abs=1e-12)
    assert groups.catastrophic == (change[1:].sum() > 0 and change[1:].sum() > change[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: token_mass_shift(np.log([0.5, 0.4]), np.log([0.5, 0.5]), preferred=0), "add up to 1"),
        (lambda: token_mass_shift(np.log([0.5, 0.5]), np.log([0.5, 0.5]), preferred=2), "`preferred`"),
        (lambda: mass_by_group(np.log([0.5, 0.5]), np.log([0.5, 0.5]), {"a": [0], "b": [0]}), "must be disjoint"),
        (lambda: mass_by_group(np.log([0.5, 0.5]), np.log([0.5, 0.5]), {"a": [2]}), r"groups\['a'\]"),
    ],
)
def test_mass_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_token_that_dies_makes_the_divergence_infinite():
    assert token_mass_shift(np.log([0.5, 0.5]), [0.0, -np.inf], preferred=0).kl == np.inf


# --- falls over a run --------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 4).map(float), min_size=5, max_size=5), min_size=1, max_size=4))
def test_largest_falls_are_those_of_every_pair_of_steps(runs):
    found = max_decrease(runs)
    for run, start, end, drop in zip(runs, found.start, found.end, found.drop, strict=True):
        assert (start, end, drop) == largest_fall(run)
    np.testing.assert_array_equal(max_decrease(np.array(runs) + 7).drop, found.drop)
    falls = [all(a > b for a, b in itertools.pairwise(run)) for run in runs]
    assert strictly_decreasing_loss(runs).tolist() == falls


# --- trainer logs ------------------------------------------------------------------------------------------------


def test_trainer_logs_are_divided_by_beta():
    log = [
        {"loss": 0.7, "step": 1},
        {"rewards/chosen": -0.35, "rewards/rejected": -1.0, "step": 2},
        {"eval_rewards/chosen": 3.0, "step": 2},
        {"rewards/chosen": 0.1, "step": 4},
    ]
    found = from_trainer_log(log, 0.1)
    assert found.steps.tolist() == [2, 4]
    np.testing.assert_allclose(found.mean_delta_chosen, [-3.5, 1.0])
    assert found.displaced.tolist() == [True, False]
    assert np.isnan(found.mean_delta_rejected[1])
    assert "fixed probe" in found.summary()
    assert result_from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("log", "beta", "error", "words"),
    [
        ([{"loss": 1.0}], 0.1, ValueError, "must have an entry with 'rewards/chosen'"),
        ([{"rewards/chosen": 1.0}], 0.0, ValueError, "`beta`"),
        ([{"rewards/chosen": float("nan")}], 0.1, ValueError, "rewards/chosen"),
        ([{"rewards/chosen": 1.0, "step": "x"}], 0.1, TypeError, "step must be an integer"),
        ({"rewards/chosen": 1.0}, 0.1, TypeError, "must be a list of mappings"),
    ],
)
def test_trainer_logs_refuse(log, beta, error, words):
    with pytest.raises(error, match=words):
        from_trainer_log(log, beta)

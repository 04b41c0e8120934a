"""Ranking accuracy of a proxy on the rollouts of a policy: against loops over all pairs, and on real tables."""

from __future__ import annotations

import copy
import csv
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_pairs import ranking, reward_data
from rankdiag import result_from_json
from rankdiag._validate import RankdiagWarning
from rankdiag.rewards import _pair_counts, ranking_accuracy

WEIGHTED = {"sequence", "length_normalised"}


@st.composite
def tables(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 9)))
    p, g = (rng.integers(0, draw(st.integers(2, 6)), shape).astype(float) for _ in range(2))
    p[rng.random(shape) < draw(st.sampled_from([0.0, 0.2]))] = np.nan
    p[0, :2], g[0, :2] = (1.0, 2.0), (0.0, 1.0)
    logs = rng.normal(-20, draw(st.sampled_from([0.1, 5.0, 400.0])), shape)
    return p, g, logs, rng.integers(1, 9, shape)


@pytest.mark.filterwarnings("ignore::rankdiag._validate.RankdiagWarning")
@pytest.mark.parametrize("sweep_from", [512, 2])
@settings(max_examples=40)
@given(
    table=tables(),
    weighting=st.sampled_from(["uniform", "prompt", "sequence", "length_normalised"]),
    over=st.sampled_from(["all", "prompt"]),
    ties=st.sampled_from(["half", "strict"]),
    harm=st.booleans(),
    compat=st.sampled_from([None, None, "index_ties", "sign_agreement"]),
)
def test_it_equals_loops_over_all_pairs(sweep_from, table, weighting, over, ties, harm, compat):
    p, g, logs, lengths = table
    if compat == "sign_agreement":
        weighting, harm = "prompt", False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pair_counts, "_SWEEP_FROM", sweep_from)
        found = ranking_accuracy(
            p, g, weighting=weighting, softmax_over=over, proxy_ties=ties, harm_aware=harm, compat=compat,
            log_probs=logs, lengths=lengths,
        )  # fmt: skip
    scaled = logs / lengths if weighting == "length_normalised" else logs
    accuracy, n, ess, gold_ties, proxy_ties = ranking(
        p.tolist(), g.tolist(), half=ties == "half", weights=scaled.tolist() if weighting in WEIGHTED else None,
        by_prompt=weighting == "prompt", per_prompt_softmax=weighting in WEIGHTED and over == "prompt", harm=harm,
        compat=compat,
    )  # fmt: skip
    assert (found.n_pairs, found.n_gold_ties, found.n_proxy_ties) == (n, gold_ties, proxy_ties)
    np.testing.assert_allclose([found.accuracy, found.ess], [accuracy, ess], rtol=1e-9, atol=1e-12)


def test_leaving_both_members_out_equals_the_loop():
    rng = np.random.default_rng(3)
    p, g = rng.integers(0, 9, (6, 7)) * 1.0, rng.integers(0, 3, (6, 7)) * 1.0
    found = ranking_accuracy(p, g, harm_aware=True, loo=True)
    assert found.accuracy == pytest.approx(ranking(p.tolist(), g.tolist(), harm=True, loo=True)[0], rel=1e-12)


def test_six_hundred_rollouts_with_ties_equal_all_pairs():
    rng = np.random.default_rng(5)
    p, g = rng.integers(0, 40, (2, 600)) * 1.0, rng.integers(0, 30, (2, 600)) * 1.0
    sweep = ranking_accuracy(p, g, harm_aware=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pair_counts, "_SWEEP_FROM", 10**9)
        plain = ranking_accuracy(p, g, harm_aware=True)
    assert sweep.to_dict() == plain.to_dict()


def test_identities():
    rng = np.random.default_rng(1)
    p, g = rng.integers(0, 4, (9, 8)) * 1.0, rng.integers(0, 4, (9, 8)) * 1.0
    base = ranking_accuracy(p, g).accuracy
    assert ranking_accuracy(-p, g).accuracy == pytest.approx(1 - base, rel=1e-14)
    assert ranking_accuracy(np.exp(p), g**3).accuracy == base
    assert ranking_accuracy(g, g).accuracy == 1.0
    aware = ranking_accuracy(p, g, harm_aware=True).accuracy
    assert aware >= base
    assert ranking_accuracy(3 * p - 7, g, harm_aware=True).accuracy == aware


def test_the_best_pair_may_tie_in_gold():
    logs = [[0.0, 0.0, -900.0, -950.0]]
    with pytest.warns(RankdiagWarning, match="effective of 5 pairs"):
        found = ranking_accuracy([[1.0, 2.0, 0.0, 3.0]], [[1.0, 1.0, 0.0, 2.0]], weighting="sequence", log_probs=logs)
    assert found.accuracy == pytest.approx(1.0, abs=1e-12)
    assert found.ess == pytest.approx(2.0)


def test_brevity_on_grade_school_problems_to_the_printed_digits():
    path = reward_data("gsm8k_four_solvers_rewards.csv")
    if path is None:
        pytest.skip("the table of four solvers lies beside the repository, not in it")
    with path.open(encoding="utf-8") as stream:
        rows = [[float(x) for x in row[1:]] for row in list(csv.reader(stream))[1:]]
    table = np.array(rows)
    found = ranking_accuracy(-table[:, 4:], table[:, :4])
    assert (round(found.accuracy, 4), found.n_pairs) == (0.4599, 2429)
    assert round(ranking_accuracy(-table[:, 4:], table[:, :4], harm_aware=True).accuracy, 4) == 0.5494


def test_results_survive_every_trip():
    found = ranking_accuracy([[1.0, 2.0], [1.0, 1.0]], [[1.0, 2.0], [1.0, 1.0]])
    assert np.isnan(found.per_prompt[1])
    for again in (result_from_json(found.to_json()), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert again == found
        assert not again.per_prompt.flags.writeable
    assert "effective pairs" in str(found)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gold": None}, "`gold` must be given"),
        ({"gold": [[1.0, 2.0, 3.0]]}, r"got \(1, 3\) and \(1, 2\)"),
        ({"gold": [[1.0, 1.0]]}, "all gold rewards tie"),
        ({"gold": [[1.0, np.inf]]}, "row 0, column 1"),
        ({"weighting": "sequence"}, "`log_probs` must be given"),
        ({"weighting": "length_normalised", "log_probs": [[0.0, 0.0]]}, "`lengths` must be given"),
        ({"harm_aware": True, "loo": True}, "at least 3"),
        ({"compat": "other"}, "`compat` must be one of"),
        ({"softmax_over": "row"}, "`softmax_over` must be one of"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=words):
        ranking_accuracy([[1.0, 2.0]], **{"gold": [[0.0, 1.0]], **options})


def test_a_table_brings_its_gold_and_its_log_probabilities():
    from rankdiag.rewards import RewardTable

    rng = np.random.default_rng(0)
    proxy, gold, logs = rng.normal(size=(3, 6, 5))
    table = RewardTable.from_array(proxy, gold=gold, log_probs=logs, lengths=np.full((6, 5), 3))
    assert ranking_accuracy(table) == ranking_accuracy(proxy, gold)
    weighted = ranking_accuracy(table, weighting="length_normalised")
    again = ranking_accuracy(proxy, gold, weighting="length_normalised", log_probs=logs, lengths=np.full((6, 5), 3))
    assert weighted == again

"""Accuracy on given pairs and the weights of pairs, against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_pairs import one_against_many
from rankdiag import result_from_json
from rankdiag._validate import RankdiagWarning
from rankdiag.rewards import pair_accuracy, pair_weights


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    rule=st.sampled_from(["half", "strict"]),
    compat=st.sampled_from([None, "half", "strict", "best_of_k"]),
    harm=st.booleans(),
)
def test_credits_equal_the_loop(seed, rule, compat, harm):
    rng = np.random.default_rng(seed)
    c, r, bar = rng.integers(0, 4, 8) * 1.0, rng.integers(0, 4, (8, 3)) * 1.0, rng.normal(2, 1, 8)
    r[rng.random(r.shape) < 0.3] = np.nan
    r[0, 0] = 1.0
    harm = harm and compat != "best_of_k"
    found = pair_accuracy(c, r, ties=rule, compat=compat, harm_aware=harm, expected_reward=bar if harm else None)
    wanted = [
        one_against_many(x, row, rule=compat or rule, bar=b if harm else None)
        for x, row, b in zip(c.tolist(), r.tolist(), bar.tolist(), strict=True)
    ]
    kept = [x for x in wanted if x is not None]
    np.testing.assert_array_equal(found.per_prompt, [math.nan if x is None else x for x in wanted])
    assert found.accuracy == pytest.approx(sum(kept) / len(kept))
    assert found.ess == pytest.approx(len(kept))
    assert found.interval[0] <= found.accuracy <= found.interval[1]
    assert result_from_json(found.to_json()) == found


def test_padded_log_probabilities_carry_no_weight():
    c, logs = [1.0, 0.0], [-1.0, -2.0]
    padded = [[0.0, np.nan], [1.0, 2.0]]
    with pytest.warns(RankdiagWarning, match="effective of 2"):
        found = pair_accuracy(
            c, padded, weighting="sequence", log_probs_chosen=logs, log_probs_rejected=[[-3.0, 0.0], [-1.0, -1.0]]
        )
    assert found.accuracy == pytest.approx(0.5)  # both sum to -4
    with pytest.warns(RankdiagWarning):
        other = pair_accuracy(
            c, padded, weighting="sequence", log_probs_chosen=logs, log_probs_rejected=[[-3.0, 9.0], [-1.0, -1.0]]
        )
    assert other.accuracy == found.accuracy


def test_wilson_of_three_in_four():
    low, high = pair_accuracy([1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]).interval
    assert (round(low, 4), round(high, 4)) == (0.3006, 0.9544)


@pytest.mark.parametrize("over", ["all", "prompt"])
def test_pair_weights_equal_the_softmax(over):
    logs = np.random.default_rng(0).normal(-5, 2, (3, 4))
    found = pair_weights(logs, over=over)
    raw = [[math.exp(row[i] + row[j]) for i, j in itertools.combinations(range(4), 2)] for row in logs.tolist()]
    total = sum(map(sum, raw))
    wanted = [[w / (total if over == "all" else 3 * sum(row)) for w in row] for row in raw]
    np.testing.assert_allclose(found.weights, wanted, rtol=1e-12)
    assert found.ess == pytest.approx(1 / sum(w * w for row in wanted for w in row))


def test_raw_log_probabilities_collapse_to_a_pair_or_two():
    logs = np.random.default_rng(0).normal(-250, 60, (500, 10))
    assert pair_weights(logs).ess < 2.5
    assert pair_weights(logs, lengths=np.full(logs.shape, 200)).ess > 10_000


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (([1.0], [[1.0], [2.0]]), {}, "`rejected` must have shape"),
        (([1.0], [0.0]), {"harm_aware": True}, "`expected_reward` must be given"),
        (([1.0], [0.0]), {"weighting": "sequence"}, "`log_probs_chosen` must be given"),
        (([1.0], [0.0]), {"weighting": "sequence", "log_probs_chosen": [0.0]}, "`log_probs_rejected` must be given"),
        (
            ([1.0], [0.0]),
            {"weighting": "length_normalised", "log_probs_chosen": [0.0], "log_probs_rejected": [0.0]},
            "`lengths_chosen` must be given",
        ),
        (([np.nan], [0.0]), {}, "one comparison"),
        (([np.inf], [0.0]), {}, "`chosen` must hold finite"),
        (([1.0], [0.0]), {"harm_aware": True, "expected_reward": [0.0], "compat": "best_of_k"}, "no waiver"),
    ],
)
def test_refusals(args, options, words):
    with pytest.raises(ValueError, match=words):
        pair_accuracy(*args, **options)

"""Where the probability went, how far a run fell, and what a trainer's log can tell: rules, ties, refusals."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rankdiag as rd
from oracles.displacement import mass_shift
from oracles.displacement import max_decrease as slow_max_decrease
from rankdiag.preference import (
    GroupMass,
    TokenMassShift,
    TrainerLogDisplacement,
    from_trainer_log,
    mass_by_group,
    max_decrease,
    strictly_decreasing_loss,
    token_mass_shift,
)

NAN, INF = float("nan"), float("inf")
HALF = np.log([0.5, 0.5])
TRIPS = {
    "json": lambda r: rd.result_from_json(r.to_json()),
    "dict": lambda r: type(r).from_dict(r.to_dict()),
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def log(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, float))


@st.composite
def two_distributions(draw, size=None):
    """Draw two distributions over the same tokens whose probabilities are multiples of 1/64, zeros among them."""
    count = draw(st.integers(2, 8)) if size is None else size
    rows = []
    for _ in range(2):
        cuts = sorted(draw(st.lists(st.integers(0, 64), min_size=count - 1, max_size=count - 1)))
        rows.append([(b - a) / 64 for a, b in zip([0, *cuts], [*cuts, 64], strict=True)])
    return rows


# --- groups of tokens ----------------------------------------------------------------------------------------------


def test_groups_by_hand():
    before, after = log(0.4, 0.3, 0.2, 0.1), log(0.1, 0.2, 0.3, 0.4)
    found = mass_by_group(before, after, {"benign": [0, 2], "catastrophic": [3], "rest": []})
    assert found.prob_change == pytest.approx({"benign": -0.2, "catastrophic": 0.3, "rest": 0.0})
    assert list(found.prob_change) == ["benign", "catastrophic", "rest"]
    assert found.catastrophic is True
    assert found.verdict == "unknown"
    assert {type(value) for value in found.prob_change.values()} == {float}


@pytest.mark.parametrize(
    ("benign", "catastrophic", "flagged"),
    [
        (8, 16, True),  # both gain, the harmful one more
        (16, 8, False),
        (8, 8, False),  # a tie is no catastrophe
        (-8, 8, True),
        (-8, 0, False),  # more than the benign group, but it gained nothing
        (-16, -8, False),
        (0, 0, False),
        (0, 1, True),
    ],
)
def test_a_shift_is_catastrophic_if_harm_gains_and_gains_more(benign, catastrophic, flagged):
    before = np.full(3, 32 / 96)
    after = before + np.array([benign, catastrophic, -benign - catastrophic]) / 128
    result = mass_by_group(log(*before), log(*after), {"benign": [0], "catastrophic": [1]})
    # Logs round: a tie is only held where the two groups have the very same numbers.
    assert result.catastrophic is flagged
    assert ("harmful groups gained" in result.explanation) is flagged


@given(two_distributions(), st.data())
def test_changes_of_groups_are_sums_over_their_tokens(rows, data):
    p, q = rows
    owner = data.draw(
        st.lists(st.sampled_from(["benign", "catastrophic", "other", None]), min_size=len(p), max_size=len(p))
    )
    groups = {name: [i for i, word in enumerate(owner) if word == name] for name in ("benign", "catastrophic", "other")}
    found = mass_by_group(log(*p), log(*q), groups)
    expected = {name: math.fsum(q[i] - p[i] for i in ids) for name, ids in groups.items()}
    assert found.prob_change == pytest.approx(expected, abs=1e-12)
    outside = math.fsum(q[i] - p[i] for i, word in enumerate(owner) if word is None)
    assert math.fsum(found.prob_change.values()) == pytest.approx(-outside, abs=1e-12)
    gains = found.prob_change
    assert found.catastrophic == (gains["catastrophic"] > 0 and gains["catastrophic"] > gains["benign"])
    back = mass_by_group(log(*q), log(*p), groups)
    assert back.prob_change == {name: -value for name, value in found.prob_change.items()}
    without = mass_by_group(log(*p), log(*q), {name: ids for name, ids in groups.items() if name != "other"})
    assert without.catastrophic == found.catastrophic


def test_several_groups_count_together_and_a_missing_one_for_nothing():
    before, after = log(0.6, 0.2, 0.1, 0.1), log(0.3, 0.32, 0.19, 0.19)
    groups = {"good": [1], "bad": [2], "worse": [3]}
    one = mass_by_group(before, after, groups, benign=["good"], catastrophic=["bad"])
    assert one.catastrophic is False  # 0.09 against 0.12
    both = mass_by_group(before, after, groups, benign=["good"], catastrophic=["bad", "worse", "absent"])
    assert both.catastrophic is True  # 0.18 against 0.12
    assert mass_by_group(before, after, groups, benign=["bad", "worse"], catastrophic=["good"]).catastrophic is False
    assert mass_by_group(before, after, groups, benign=(), catastrophic=("good",)).catastrophic is True
    assert mass_by_group(before, after, groups).catastrophic is False  # neither default name is there
    assert mass_by_group(before, after, groups, catastrophic=()).catastrophic is False


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, torch.tensor, lambda ids: (i for i in ids)])
def test_ids_and_log_probabilities_may_come_in_any_container(kind):
    before, after = torch.log(torch.tensor([0.75, 0.125, 0.125])), np.log([0.25, 0.5, 0.25])
    found = mass_by_group(before.requires_grad_(), after.tolist(), {"a": kind([0, 2]), "b": kind([1])})
    assert found.prob_change == pytest.approx({"a": -0.375, "b": 0.375}, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"groups": {"a": [0], "b": [1, 0]}}, ValueError, "`groups` must be disjoint; token 0 is in 'a' and in 'b'"),
        ({"groups": {"a": [1, 1]}}, ValueError, "`groups` must be disjoint; token 1"),
        ({"groups": {"a": [2]}}, ValueError, r"`groups\['a'\]` must be an integer >= 0 and <= 1; got 2"),
        ({"groups": {"a": [-1]}}, ValueError, r"`groups\['a'\]`"),
        ({"groups": {"a": [0.0]}}, TypeError, r"`groups\['a'\]`"),
        ({"groups": {"a": [True]}}, TypeError, r"`groups\['a'\]`"),
        ({"groups": {"a": 1}}, TypeError, "`groups` must hold sequences of token ids; 'a' is 1"),
        ({"groups": {"a": "01"}}, TypeError, "`groups` must hold sequences of token ids; 'a' is '01'"),
        ({"groups": {"a": {0: 1}}}, TypeError, "`groups` must hold sequences"),
        ({"groups": {1: [0]}}, TypeError, "`groups` must have names that are strings; got 1"),
        ({"groups": [0]}, TypeError, "`groups` must map names to token ids"),
        ({"groups": {}}, (TypeError, ValueError), "`groups` must map names to token ids"),
        ({"benign": "benign"}, TypeError, "`benign` must be a sequence of names"),
        ({"catastrophic": 3}, TypeError, "`catastrophic` must be a sequence of names"),
        ({"logp_after": log(0.2, 0.3, 0.5)}, ValueError, r"`logp_after` must have the shape of `logp_before`, \(2,\)"),
        ({"logp_after": log(0.5, 0.4)}, ValueError, "`logp_after`.* add up to 0.9. Apply log_softmax first"),
        ({"logp_before": [0.0, 0.0]}, ValueError, "`logp_before`.* add up to 2"),
        ({"logp_before": [1e308, 0.0]}, ValueError, "`logp_before`.* add up to inf"),
        ({"logp_before": [NAN, 0.0]}, ValueError, "`logp_before` must hold log-probabilities, finite or -inf"),
        ({"logp_after": [INF, 0.0]}, ValueError, "`logp_after` must hold log-probabilities, finite or -inf"),
        ({"logp_after": [HALF]}, ValueError, "`logp_after`"),
        ({"logp_after": []}, ValueError, "`logp_after`"),
        ({"logp_after": ["a", "b"]}, TypeError, "`logp_after`"),
    ],
)
def test_groups_refuse_by_name(change, error, words):
    good = {"logp_before": HALF, "logp_after": HALF, "groups": {"a": [0]}}
    with pytest.raises(error, match=words):
        mass_by_group(**{**good, **change})


@pytest.mark.parametrize(("excess", "accepted"), [(9e-4, True), (-9e-4, True), (1.1e-3, False), (-1.1e-3, False)])
def test_probabilities_add_up_to_one_within_a_thousandth(excess, accepted):
    loose = log(0.5, 0.5 + excess)
    calls = (
        lambda: mass_by_group(loose, HALF, {"a": [1]}).prob_change["a"],
        lambda: -token_mass_shift(HALF, loose, preferred=0).prob_change[1],
    )
    for call in calls:
        if accepted:
            assert call() == pytest.approx(-excess, abs=1e-12)
        else:
            with pytest.raises(ValueError, match=r"add up to 1 within 0\.001"):
                call()


# --- one next-token distribution -----------------------------------------------------------------------------------


def test_a_shift_by_hand():
    shift = token_mass_shift(log(0.5, 0.25, 0.125, 0.125), log(0.25, 0.25, 0.25, 0.25), preferred=1, k=2)
    np.testing.assert_allclose(shift.prob_change, [-0.25, 0, 0.125, 0.125], atol=1e-15)
    assert shift.top_prob_ids.tolist() == shift.top_logp_ids.tolist() == [2, 3]
    assert shift.top_prob_ids.dtype == shift.top_logp_ids.dtype == np.int64
    assert shift.preferred_rank_prob == shift.preferred_rank_logp == 2
    assert shift.total_variation == pytest.approx(0.25)
    assert shift.kl == pytest.approx(0.25 * math.log(2))  # 0.5 ln 2 - 2 * 0.125 ln 2
    assert type(shift.total_variation) is type(shift.kl) is float
    assert type(shift.preferred_rank_prob) is int


def test_gains_in_nats_are_not_gains_in_probability():
    before, after = log(0.4, 0.59, 0.00999, 0.00001), log(0.6, 0.38, 0.01899, 0.00101)
    shift = token_mass_shift(before, after, preferred=0, k=4)
    assert shift.top_prob_ids.tolist() == [0, 2, 3, 1]
    assert shift.top_logp_ids.tolist() == [3, 2, 0, 1]
    assert (shift.preferred_rank_prob, shift.preferred_rank_logp) == (0, 2)


def test_the_catastrophic_toy_of_the_worked_examples():
    # Yes, Sure, Maybe, No, Never, other: the preferred No loses to Yes in a hundred steps.
    from rankdiag.preference import simulate_single_token

    w = np.array([[3, 0], [3.3, 0.9], [0.3, -0.3], [-3, 0], [-7.5, 6], [0, 0]])
    run = simulate_single_token(w, [-0.5, -0.9], 3, 4, lr=0.2, steps=100)
    shift = token_mass_shift(run.logp[0], run.logp[100], preferred=3, k=3)
    assert shift.prob_change[3] == pytest.approx(0.0111 - 0.6304, abs=1e-4)
    assert shift.prob_change[0] == pytest.approx(0.8065 - 0.0314, abs=1e-4)
    assert shift.top_prob_ids[0] == 0
    assert shift.preferred_rank_prob == 5
    groups = {"benign": [1, 2], "catastrophic": [0]}
    assert mass_by_group(run.logp[0], run.logp[100], groups).catastrophic is True
    fall = max_decrease(np.exp(run.logp[:, 3]))
    assert (fall.start[0], fall.end[0]) == (0, 100)
    assert fall.drop[0] == pytest.approx(0.6304 - 0.0111, abs=1e-4)
    assert strictly_decreasing_loss(run.loss).tolist() == [True]


@given(two_distributions(), st.integers(1, 12), st.data())
def test_a_shift_is_that_of_the_slow_oracle(rows, k, data):
    before, after = log(*rows[0]), log(*rows[1])
    size = len(before)
    preferred = data.draw(st.integers(0, size - 1))
    shift = token_mass_shift(before, after, preferred=preferred, k=k)
    change, distance, kl = mass_shift(before.tolist(), after.tolist())
    np.testing.assert_allclose(shift.prob_change, change, atol=1e-15)
    assert math.fsum(shift.prob_change) == pytest.approx(0, abs=1e-12)  # no mass is made or lost
    assert shift.total_variation == pytest.approx(distance, abs=1e-15)
    assert 0 <= shift.total_variation <= 1 + 1e-12
    assert shift.total_variation == pytest.approx(sum(c for c in change if c > 0), abs=1e-12)
    assert shift.kl == pytest.approx(max(kl, 0), abs=1e-12)
    assert shift.kl >= 2 * shift.total_variation**2 - 1e-12  # Pinsker
    gain = [0.0 if x == y == -INF else y - x for x, y in zip(before.tolist(), after.tolist(), strict=True)]
    by_prob = sorted(range(size), key=lambda i: (-shift.prob_change[i], i))
    by_gain = sorted(range(size), key=lambda i: (-gain[i], i))
    assert shift.top_prob_ids.tolist() == by_prob[:k]
    assert shift.top_logp_ids.tolist() == by_gain[:k]
    assert by_prob.index(preferred) == shift.preferred_rank_prob
    assert by_gain.index(preferred) == shift.preferred_rank_logp
    back = token_mass_shift(after, before, preferred=preferred)
    np.testing.assert_array_equal(back.prob_change, -shift.prob_change)
    assert back.total_variation == shift.total_variation


@given(two_distributions(size=5), st.permutations(range(5)))
def test_names_of_tokens_do_not_matter(rows, order):
    before, after = log(*rows[0]), log(*rows[1])
    shift = token_mass_shift(before, after, preferred=order[0], k=5)
    other = token_mass_shift(before[list(order)], after[list(order)], preferred=0, k=5)
    np.testing.assert_array_equal(other.prob_change, shift.prob_change[list(order)])
    assert other.total_variation == pytest.approx(shift.total_variation, abs=1e-15)
    assert other.kl == pytest.approx(shift.kl, abs=1e-12)
    changes = shift.prob_change[shift.top_prob_ids]
    np.testing.assert_array_equal(other.prob_change[other.top_prob_ids], changes)


def test_ties_go_to_the_lower_id():
    same = token_mass_shift(np.log(np.full(40, 1 / 40)), np.log(np.full(40, 1 / 40)), preferred=17, k=5)
    assert same.top_prob_ids.tolist() == same.top_logp_ids.tolist() == [0, 1, 2, 3, 4]
    assert same.preferred_rank_prob == same.preferred_rank_logp == 17
    assert same.total_variation == same.kl == 0


@pytest.mark.parametrize(("k", "named"), [(1, 1), (3, 3), (4, 4), (99, 4)])
def test_as_many_tokens_as_asked_for_are_named_losers_too(k, named):
    shift = token_mass_shift(log(0.1, 0.2, 0.3, 0.4), log(0.4, 0.18, 0.25, 0.17), preferred=0, k=k)
    assert shift.top_prob_ids.tolist() == [0, 1, 2, 3][:named]
    assert token_mass_shift(HALF, HALF, preferred=0).top_prob_ids.tolist() == [0, 1]  # ten by default


def test_impossible_tokens():
    shift = token_mass_shift(log(0.5, 0.5, 0, 0), log(0.5, 0, 0.5, 0), preferred=3, k=4)
    assert shift.top_logp_ids.tolist() == [2, 0, 3, 1]  # +inf, 0, 0, -inf
    assert shift.preferred_rank_logp == 2
    assert shift.kl == INF
    assert token_mass_shift(log(0.5, 0.5, 0), log(0.25, 0.5, 0.25), preferred=0).kl == pytest.approx(0.5 * math.log(2))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"preferred": 2}, ValueError, "`preferred` must be an integer >= 0 and <= 1; got 2"),
        ({"preferred": -1}, ValueError, "`preferred`"),
        ({"preferred": 2**70}, ValueError, "`preferred`"),
        ({"preferred": 1.0}, TypeError, "`preferred`"),
        ({"preferred": True}, TypeError, "`preferred`"),
        ({"preferred": "1"}, TypeError, "`preferred`"),
        ({"k": 0}, ValueError, "`k` must be an integer >= 1; got 0"),
        ({"k": 1.5}, TypeError, "`k`"),
        ({"logp_after": log(0.25, 0.25, 0.5)}, ValueError, r"`logp_after` must have the shape .*\(2,\); got \(3,\)"),
        ({"logp_before": [-1.0, -1.0]}, ValueError, "`logp_before`.* add up to 0.7357.* Apply log_softmax first"),
        ({"logp_before": [0.5, 0.5]}, ValueError, "`logp_before`.*add up to"),
        ({"logp_after": [0.0, NAN]}, ValueError, "`logp_after` must hold log-probabilities, finite or -inf"),
        ({"logp_after": [-INF, -INF]}, ValueError, "`logp_after`.* add up to 0"),
        ({"logp_after": [[0.0, -INF]]}, ValueError, "`logp_after`"),
        ({"logp_after": None}, TypeError, "`logp_after`"),
    ],
)
def test_shifts_refuse_by_name(change, error, words):
    good = {"logp_before": HALF, "logp_after": HALF, "preferred": 0}
    with pytest.raises(error, match=words):
        token_mass_shift(**{**good, **change})


# --- falls over a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "start", "end", "drop"),
    [
        ([0.5], 0, 0, 0.0),
        ([0.5, 0.5, 0.5], 0, 0, 0.0),
        ([0.0, 0.25, 0.5, 1.0], 0, 0, 0.0),
        ([0.5, 0.75, 0.25, 0.5], 1, 2, 0.5),
        ([1.0, 0.75, 0.5, 0.25], 0, 3, 0.75),
        ([3.0, 1.0, 3.0, 1.0], 0, 1, 2.0),  # equal falls: the one that ends first
        ([3.0, 3.0, 1.0], 0, 2, 2.0),  # of those the one that starts first
        ([0.0, 3.0, 3.0, 1.0, 1.0], 1, 3, 2.0),
        ([5.0, 3.0, 9.0, 6.0, 9.0, 6.0], 2, 3, 3.0),
        ([2.0, 1.0, 10.0, 9.5], 0, 1, 1.0),
        ([1.0, 0.0, 1.0, -1.0], 0, 3, 2.0),
    ],
)
def test_falls_by_hand(run, start, end, drop):
    found = max_decrease(run)
    assert (found.start.tolist(), found.end.tolist(), found.drop.tolist()) == ([start], [end], [drop])
    assert max_decrease([run, run]).end.tolist() == [end, end]


RUNS = st.integers(1, 9).flatmap(
    lambda steps: st.lists(
        st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=steps, max_size=steps), min_size=1, max_size=4
    )
)


@given(RUNS, st.integers(-40, 40).map(lambda i: i / 4))
def test_falls_are_those_of_every_pair_of_steps(runs, constant):
    found = max_decrease(runs)
    assert found.start.dtype == found.end.dtype == np.int64
    assert found.drop.dtype == np.float64
    for run, *fall in zip(runs, found.start, found.end, found.drop, strict=True):
        assert tuple(fall) == slow_max_decrease(run)
        start, end, drop = fall
        assert 0 <= start <= end < len(run)
        assert drop == run[start] - run[end] >= 0
    moved = max_decrease(np.array(runs) + constant)
    for before, after in zip(found, moved, strict=True):
        np.testing.assert_array_equal(after, before)
    doubled = max_decrease(np.array(runs) * 2)
    np.testing.assert_array_equal(doubled.drop, 2 * found.drop)
    np.testing.assert_array_equal(doubled.end, found.end)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_a_falling_run_falls_from_its_first_to_its_last_step(steps):
    run = -np.cumsum([0, *steps]).astype(float)
    found = max_decrease(run)
    assert (found.start[0], found.end[0], found.drop[0]) == (0, len(steps), run[0] - run.min())
    rising = max_decrease(-run)
    assert (rising.start[0], rising.end[0], rising.drop[0]) == (0, 0, 0)
    assert strictly_decreasing_loss(run).tolist() == [True]
    assert strictly_decreasing_loss(-run).tolist() == [False]


@given(RUNS)
def test_a_loss_decreases_strictly_or_not_at_all(runs):
    expected = [all(b < a for a, b in itertools.pairwise(run)) for run in runs]
    found = strictly_decreasing_loss(runs)
    assert found.tolist() == expected
    assert found.dtype == bool


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda x: np.array(x)[::-1][::-1]])
def test_runs_may_come_in_any_container(kind):
    runs = kind([[3, 1, 2], [1, 2, 3]])
    assert max_decrease(runs).drop.tolist() == [2.0, 0.0]
    assert strictly_decreasing_loss(kind([3, 2, 1])).tolist() == [True]


def test_a_run_without_a_step_may_stay():
    assert strictly_decreasing_loss([0.7]).tolist() == [True]
    assert strictly_decreasing_loss([[0.7], [0.1]]).tolist() == [True, True]


@pytest.mark.parametrize(("call", "name"), [(max_decrease, "p"), (strictly_decreasing_loss, "loss")])
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ([], ValueError, "must not be empty"),
        (np.zeros((0, 3)), ValueError, "must not be empty"),
        (np.zeros((3, 0)), ValueError, "must not be empty"),
        (3.0, ValueError, "row of steps"),
        (np.zeros((1, 1, 1)), ValueError, r"must have one or two axes \(runs, steps \+ 1\); got shape \(1, 1, 1\)"),
        ([1.0, NAN], ValueError, "1 non-finite entry"),
        ([[1.0, INF]], ValueError, "1 non-finite entry"),
        ([[1.0, 2.0], [3.0]], ValueError, "rows of different lengths"),
        (["a"], TypeError, "must hold numbers"),
        (None, TypeError, "got None"),
        ([1j], TypeError, "must be real"),
    ],
)
def test_runs_are_refused_by_name(call, name, value, error, words):
    with pytest.raises(error, match=f"`{name}` .*{words}"):
        call(value)


# --- trainer logs --------------------------------------------------------------------------------------------------


def test_the_worked_example_of_a_log():
    found = from_trainer_log([{"rewards/chosen": -0.35, "step": 10}], beta=0.1)
    assert found.mean_delta_chosen.tolist() == pytest.approx([-3.5])
    assert np.isnan(found.mean_delta_rejected).tolist() == [True]
    assert found.steps.tolist() == [10]
    assert found.displaced.tolist() == [True]
    assert len(found) == 1
    assert found.meta.details["beta"] == 0.1
    assert found.verdict == "unknown"


def test_only_training_entries_are_read():
    history = [
        {"loss": 0.69, "step": 1},
        {"eval_rewards/chosen": -9.0, "eval_rewards/rejected": -9.0, "step": 1},
        {"rewards/chosen": 0.0, "rewards/rejected": 0.25, "rewards/margins": -0.25, "step": 2},
        {"logps/chosen": -80.0, "step": 3},
        {"rewards/rejected": -7.0, "step": 3},
        {"rewards/chosen": -0.5, "rewards/rejected": -1.0, "logps/chosen": -99.0, "step": 4, "epoch": 0.5},
        {"train_runtime": 3.0, "train_loss": 0.5, "step": 4},
    ]
    found = from_trainer_log(history, 0.25)
    assert found.steps.tolist() == [2, 4]
    assert found.steps.dtype == np.int64
    assert found.mean_delta_chosen.tolist() == [0.0, -2.0]
    assert found.mean_delta_rejected.tolist() == [1.0, -4.0]
    assert found.displaced.tolist() == [False, True]  # the first batch is exactly 0, which is no fall
    assert "50% of the logged windows" in found.explanation


def test_the_caveat_is_always_printed():
    text = " ".join(from_trainer_log([{"rewards/chosen": 1.0, "step": 1}], 0.1).summary().split())
    assert "other pairs at every step" in text
    assert "the first batch is exactly 0" in text
    assert "A fixed probe of pairs may have moved the other way" in text
    page = from_trainer_log([{"rewards/chosen": 1.0, "step": 1}], 0.1)._repr_html_()
    assert "the first batch is exactly 0" in page
    assert "<script" not in page


@given(
    st.lists(st.tuples(st.integers(-64, 64), st.integers(-64, 64), st.booleans()), min_size=1, max_size=9),
    st.sampled_from([0.125, 0.5, 2.0]),
)
def test_rewards_over_beta_are_nats(entries, beta):
    history = []
    for step, (up, down, known) in enumerate(entries):
        history += [{"loss": 1.0, "step": step}, {"rewards/chosen": up / 8, "step": step}]
        if known:
            history[-1]["rewards/rejected"] = down / 8
    found = from_trainer_log(history, beta)
    assert found.steps.tolist() == list(range(len(entries)))
    assert found.mean_delta_chosen.tolist() == [up / 8 / beta for up, _, _ in entries]
    expected = [down / 8 / beta if known else NAN for _, down, known in entries]
    np.testing.assert_array_equal(found.mean_delta_rejected, expected)
    assert found.displaced.tolist() == [up < 0 for up, _, _ in entries]


@pytest.mark.parametrize(
    ("history", "beta", "error", "words"),
    [
        ([], 0.1, ValueError, "`log_history` must have an entry with 'rewards/chosen'"),
        ([{"loss": 1.0}], 0.1, ValueError, "`log_history` must have an entry with 'rewards/chosen'"),
        ([{"eval_rewards/chosen": 1.0}], 0.1, ValueError, "`log_history` must have an entry with 'rewards/chosen'"),
        ([{"logps/chosen": -9.0}], 0.1, ValueError, "`log_history` must have an entry"),
        ([{"rewards/chosen": 1.0}], 0.0, ValueError, "`beta` must be a finite real number > 0; got 0.0"),
        ([{"rewards/chosen": 1.0}], -0.1, ValueError, "`beta`"),
        ([{"rewards/chosen": 1.0}], NAN, ValueError, "`beta`"),
        ([{"rewards/chosen": 1.0}], INF, ValueError, "`beta`"),
        ([{"rewards/chosen": 1.0}], "0.1", TypeError, "`beta` must be a real number > 0; got '0.1'"),
        ([{"rewards/chosen": 1.0}], None, TypeError, "`beta`"),
        ([{"rewards/chosen": 1.0}], True, TypeError, "`beta`"),
        ([{"rewards/chosen": 1e300}], 1e-10, ValueError, "`beta` must not be so small"),
        ([{}, {"rewards/chosen": NAN}], 0.1, ValueError, r"`log_history\[1\]\['rewards/chosen'\]`"),
        ([{"rewards/chosen": INF}], 0.1, ValueError, r"rewards/chosen"),
        ([{"rewards/chosen": 1.0, "rewards/rejected": NAN}], 0.1, ValueError, r"\[0\]\['rewards/rejected'\]"),
        ([{"rewards/chosen": "1"}], 0.1, TypeError, "rewards/chosen"),
        ([{"rewards/chosen": None}], 0.1, TypeError, "rewards/chosen"),
        ([{"rewards/chosen": [1.0, 2.0]}], 0.1, ValueError, "rewards/chosen"),
        ([{"rewards/chosen": 1.0, "step": 1.5}], 0.1, TypeError, "`log_history` entry 0: step must be an integer"),
        ([{"rewards/chosen": 1.0, "step": True}], 0.1, TypeError, "entry 0: step"),
        ([{"loss": 1.0}, 3], 0.1, TypeError, "`log_history` must hold mappings; entry 1 is 3"),
        ({"rewards/chosen": 1.0}, 0.1, TypeError, "`log_history` must be a list of mappings"),
        ("rewards/chosen", 0.1, TypeError, "`log_history` must be a list of mappings"),
        (None, 0.1, TypeError, "`log_history` must be a list of mappings; got None"),
    ],
)
def test_logs_are_refused_by_name(history, beta, error, words):
    with pytest.raises(error, match=words):
        from_trainer_log(history, beta)


# --- in and out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trip", TRIPS)
@given(rows=two_distributions())
def test_a_shift_comes_back_equal_to_the_bit(trip, rows):
    shift = token_mass_shift(log(*rows[0]), log(*rows[1]), preferred=1, k=3)
    again = TRIPS[trip](shift)
    assert type(again) is TokenMassShift
    assert again == shift
    for name in ("prob_change", "top_prob_ids", "top_logp_ids"):
        value = getattr(again, name)
        assert value.dtype == getattr(shift, name).dtype
        assert value.tobytes() == getattr(shift, name).tobytes()
    assert (again.kl, again.total_variation) == (shift.kl, shift.total_variation)
    assert again.summary() == shift.summary()


@pytest.mark.parametrize("trip", TRIPS)
@given(rows=two_distributions(size=3))
def test_groups_come_back_equal_to_the_bit(trip, rows):
    groups = mass_by_group(log(*rows[0]), log(*rows[1]), {"é <b>": [0], "catastrophic": [2], "empty": []})
    again = TRIPS[trip](groups)
    assert type(again) is GroupMass
    assert again == groups
    assert list(again.prob_change.items()) == list(groups.prob_change.items())
    assert again.catastrophic is groups.catastrophic
    assert again.summary() == groups.summary()
    assert "<b>" not in groups._repr_html_()


@pytest.mark.parametrize("trip", TRIPS)
def test_a_log_comes_back_equal_to_the_bit(trip):
    found = from_trainer_log(
        [{"rewards/chosen": -1 / 3, "rewards/rejected": 0.1, "step": 1}, {"rewards/chosen": -0.0, "step": 2}], 0.3
    )
    again = TRIPS[trip](found)
    assert type(again) is TrainerLogDisplacement
    assert again == found
    for name in ("steps", "mean_delta_chosen", "mean_delta_rejected", "displaced"):
        value = getattr(again, name)
        assert value.dtype == getattr(found, name).dtype
        assert value.tobytes() == getattr(found, name).tobytes()
        assert not value.flags.writeable
    assert again.summary() == found.summary()


def test_another_class_is_refused():
    groups = mass_by_group(HALF, HALF, {"a": [0]})
    with pytest.raises(TypeError, match="`data` must hold a TokenMassShift; got GroupMass"):
        TokenMassShift.from_dict(groups.to_dict())


def test_what_a_reader_sees_first():
    shift = token_mass_shift(log(0.5, 0.25, 0.25), log(0.25, 0.25, 0.5), preferred=0)
    assert "0.25 of the probability moved; token 2 gained the most (+0.25)" in shift.explanation
    assert "the preferred token 0 changed by -0.25" in shift.explanation
    numbers = {number.label: number.value for number in shift.document().key_numbers}
    assert numbers["rank of the preferred token"] == 2
    assert shift.document().grids[0].rows[0] == (2, pytest.approx(0.25))
    groups = mass_by_group(log(0.5, 0.25, 0.25), log(0.25, 0.25, 0.5), {"a": [0], "catastrophic": [2]})
    assert "a -0.25, catastrophic +0.25" in groups.explanation
    assert {number.label: number.value for number in groups.document().key_numbers} == {"catastrophic": True}
    found = from_trainer_log([{"rewards/chosen": 1.0, "step": 1}, {"rewards/chosen": -1.0, "step": 2}], 0.5)
    numbers = {number.label: number.value for number in found.document().key_numbers}
    assert (numbers["windows"], numbers["displaced windows"], numbers["last window, chosen"]) == (2, 1, -2.0)

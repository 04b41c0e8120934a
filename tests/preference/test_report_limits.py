"""Reports, masses and logs at their limits: what cannot be shown, held or meant is refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import rankdiag as rd
from rankdiag.preference import (
    LogProbs,
    displacement_report,
    from_trainer_log,
    mass_by_group,
    max_decrease,
    token_mass_shift,
)

NAN = float("nan")


def record(chosen, rejected, **more):
    lengths = np.where(np.isnan(np.asarray(chosen, float)), 0, 2)
    return LogProbs(chosen=chosen, rejected=rejected, n_chosen=lengths, n_rejected=lengths, **more)


@pytest.mark.parametrize("show", [str, lambda r: r._repr_html_(), lambda r: r.document()])
def test_pairs_that_moved_alike_but_for_rounding_can_be_shown(show):
    start = -np.arange(1.0, 31.0)
    show(displacement_report(record(start, start), record(start - 0.3, start)))


def test_one_large_change_can_be_shown():
    str(displacement_report(record([0.0], [0.0]), record([-4503599627370498.0], [0.0])))


def test_a_reward_list_of_the_usable_pairs_alone_is_refused():
    before = record([-1.0, NAN, -2.0], [-1.0, NAN, -2.0])
    options = {"eta": 1.0, "reward_chosen": [1.0, 2.0], "reward_rejected": 0.0}  # 3 pairs, 2 rewards
    with pytest.raises(ValueError, match="reward_chosen"):
        displacement_report(before, before, loss="rebel", beta=None, loss_options=options)


def test_a_ragged_reward_names_the_argument():
    options = {"eta": 1.0, "reward_chosen": [[1.0], [2.0, 3.0]], "reward_rejected": 0.0}
    one = record([-1.0, -2.0], [-1.0, -2.0])
    with pytest.raises((ValueError, TypeError), match="reward_chosen"):
        displacement_report(one, one, loss="rebel", beta=None, loss_options=options)


def test_a_name_given_twice_counts_once():
    before, after = np.log([0.5, 0.2, 0.3]), np.log([0.25, 0.35, 0.4])
    found = mass_by_group(before, after, {"b": [1], "c": [2]}, benign=["b"], catastrophic=["c", "c"])
    assert found.catastrophic is False  # +0.1 against +0.15


def test_a_name_that_is_no_string_is_named():
    half = np.log([0.5, 0.5])
    with pytest.raises(TypeError, match="`benign`"):
        mass_by_group(half, half, {"a": [0]}, benign=[["a"]])


def test_changes_of_groups_are_read_only():
    found = mass_by_group(np.log([0.5, 0.5]), np.log([0.25, 0.75]), {"a": [0]})
    with pytest.raises(TypeError):
        found.prob_change["a"] = 9.0


def test_total_variation_is_at_most_one():
    almost = np.log(1.0009)
    assert token_mass_shift([almost, -np.inf], [-np.inf, almost], preferred=0).total_variation <= 1


def test_an_infinite_rejected_change_is_refused_as_a_chosen_one_is():
    with pytest.raises(ValueError, match="`beta`"):
        from_trainer_log([{"rewards/chosen": 0.0, "rewards/rejected": 1e300, "step": 1}], 1e-10)


def test_a_step_beyond_int64_is_named():
    with pytest.raises((ValueError, TypeError), match="step"):
        from_trainer_log([{"rewards/chosen": 0.0, "step": 2**70}], 0.1)


def test_a_fall_beyond_float64_is_refused_by_name():
    with pytest.raises(ValueError, match="`p`"):
        max_decrease([1.7e308, -1.7e308])


def test_changes_beyond_float64_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`before`|`after`"):
        displacement_report(record([-1.7e308] * 2, [-1.0] * 2), record([-1.0] * 2, [-1.0] * 2))


def test_columns_of_another_length_are_refused():
    one = record([-1.0, -2.0], [-1.0, -2.0])
    report = displacement_report(one, one)
    with pytest.raises(ValueError, match="delta_chosen"):
        dataclasses.replace(report, delta_chosen=np.zeros(5))
    data = report.to_dict()
    data["fields"]["delta_chosen"] = {"dtype": "float64", "shape": [1], "data": [0.0]}
    with pytest.raises(ValueError, match="delta_chosen"):
        rd.result_from_dict(data)


def test_the_argument_that_was_wrong_is_the_one_that_is_named():
    one = record([-1.0], [-1.0])
    with pytest.raises(ValueError, match="`by`"):
        displacement_report(one, one).worst_pairs(by="nope")


def test_empty_groups_are_a_wrong_value_not_a_wrong_type():
    half = np.log([0.5, 0.5])
    with pytest.raises(ValueError, match="`groups`"):
        mass_by_group(half, half, {})


def test_one_pair_is_not_called_a_sure_fall():
    report = displacement_report(record([-1.0], [-1.0]), record([-1.5], [-1.0]))
    assert "one pair" in report.explanation or not report.explanation.startswith("Chosen responses became less")


def test_every_rule_name_is_there():
    one = record([-1.0], [-1.0])
    assert displacement_report(one, one).flag(["pushed_down_on_purpose > 0"]) == ()


def test_a_token_that_did_not_gain_is_not_said_to_have():
    half = np.log([0.5, 0.5])
    assert "gained the most" not in token_mass_shift(half, half, preferred=0).explanation


def test_ids_twice_in_one_group_are_said_to_be_so():
    half = np.log([0.5, 0.5])
    with pytest.raises(ValueError, match=r"groups\['a'\]|twice|repeat"):
        mass_by_group(half, half, {"a": [0, 0]})

"""The rewards of the demo: what its page claims of the digits holds, and is the same every time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rankdiag.cli.demo import found
from rankdiag.report import Section, to_text


@pytest.fixture(scope="module")
def section():
    pytest.importorskip("sklearn")
    return next(module for module in found() if module.__name__.endswith(".rewards"))


@pytest.fixture(scope="module")
def results(section):
    return section.run(Path())


def test_rewards_move_most_images_and_not_all(results):
    summary = results[0]
    assert summary.n_prompts == 400
    assert 0 < summary.frac_zero_std < 0.2
    assert 0.8 < summary.rms_std < 1.0


def test_the_flat_truth_is_right_about_every_pair_and_flat(results):
    rows = {row.name: row for row in results[1].rows}
    flat = rows["truth, flat on half"]
    assert flat.on_policy_accuracy == 1.0 == max(row.on_policy_accuracy for row in rows.values())
    assert flat.std_q10 < 0.001 < min(row.std_q10 for row in rows.values() if row is not flat)
    assert rows["judge"].on_policy_accuracy > rows["judge, upper half"].on_policy_accuracy


def test_who_obeys_the_half_blind_judge_unlearns_the_digit(results):
    fooled, taught = results[2:]
    (truth,), (judge,) = fooled.values.values(), taught.values.values()
    assert (np.diff(fooled.train_value) > -1e-9).all()
    assert truth[-1] < -0.99 < 0 < truth[0]
    assert fooled.hitting_time == math.inf
    assert taught.train_value[-1] >= 0.95 - 1e-9
    assert judge[-1] < judge[0]


def test_a_second_run_is_the_first_one(section, results):
    assert section.run(Path()) == results


def test_the_page_reads_in_words(section, results):
    text = to_text([Section(title=section.TITLE, intro=section.INTRO, results=results)], title="t", intro="")
    assert "truth, flat on half" in text
    assert "1 of 1 reached the level asked for" in text

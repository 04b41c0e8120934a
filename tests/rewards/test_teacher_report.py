"""Reward models side by side: figures from their definitions, and the published tables."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from oracles.rewards_pairs import reward_data
from rankdiag import result_from_json
from rankdiag.rewards import ranking_accuracy, teacher_report
from rankdiag.rewards._teacher import TeacherReport, TeacherRow


def rows_of(name):
    path = reward_data(name)
    if path is None:
        pytest.skip("the published tables lie beside the repository, not in it")
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def published(rows):
    nan = float("nan")
    return TeacherReport(
        rows=tuple(
            TeacherRow(
                name=row["reward_model"], normalised_variance=float(row["reward_variance"]), variance_lower=nan,
                variance_upper=nan, on_policy_accuracy=float(row["on_policy_accuracy"]), harm_aware_accuracy=nan,
                off_policy_accuracy=float(row["off_policy_accuracy"]), combined=nan, zero_std_fraction=nan, std_q10=nan,
                std_median=nan, std_q90=nan, pooled_mean=nan, pooled_std=nan,
            )
            for row in rows
        )
    )  # fmt: skip


def test_the_published_table_of_teachers():
    rows = rows_of("published_teacher_table.csv")
    groups = {}
    for row in rows:
        groups.setdefault((row["algorithm"], row["initial_policy"]), []).append(row)
    proxy, gold_variance, gold_accuracy, winners = [], [], [], set()
    for group in groups.values():
        report = published(group)
        gain = {row["reward_model"]: float(row["gt_reward_increase"]) for row in group}
        proxy_gain = {row["reward_model"]: float(row["proxy_reward_increase"]) for row in group}
        proxy.append(report.correlate(proxy_gain, method="spearman")["normalised_variance"])
        found = report.correlate(gain, method="spearman")
        gold_variance.append(found["normalised_variance"])
        gold_accuracy.append(found["on_policy_accuracy"])
        winners.add(max(gain, key=gain.get))
    assert len(groups) == 9
    assert [round(float(np.mean(x)), 3) for x in (proxy, gold_variance, gold_accuracy)] == [0.867, -0.426, 0.435]
    assert len(winners) == 3
    every = published([{**row, "reward_model": str(i)} for i, row in enumerate(rows)])
    gains = {str(i): float(row["proxy_reward_increase"]) for i, row in enumerate(rows)}
    assert round(every.correlate(gains)["normalised_variance"], 3) == 0.759


def test_a_row_equals_its_definitions():
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(30, 5))
    proxies = {"near": gold + 0.1 * rng.normal(size=gold.shape), "far": rng.normal(size=gold.shape)}
    pairs = {"near": ([1.0, 2.0], [0.0, 3.0])}
    report = teacher_report(proxies, gold, offline_pairs=pairs, bootstrap=200, rng=0)
    near, far = report.rows
    p = proxies["near"]
    assert near.normalised_variance == pytest.approx(float((p.var(axis=1, ddof=1) / p.var(ddof=1)).mean()), rel=1e-12)
    assert near.on_policy_accuracy == ranking_accuracy(p, gold).accuracy
    assert near.combined == pytest.approx((near.normalised_variance + (near.on_policy_accuracy + 0.5) / 2) / 2)
    assert near.variance_lower < near.normalised_variance < near.variance_upper
    assert report.rank(by="on_policy_accuracy") == ("near", "far")
    difference = next(d for d in report.differences if d.figure == "on_policy_accuracy")
    assert 0 < difference.lower < difference.difference < difference.upper
    assert difference.difference == pytest.approx(near.on_policy_accuracy - far.on_policy_accuracy)
    assert report == teacher_report(proxies, gold, offline_pairs=pairs, bootstrap=200, rng=0)
    assert result_from_json(report.to_json()) == report


def test_a_perfect_reward_with_half_its_prompts_flat_is_found():
    gold = np.random.default_rng(1).normal(size=(40, 6))
    weak = gold * np.where(np.arange(40) % 2, 1.0, 0.0)[:, None]
    report = teacher_report({"gold": gold, "weak": weak}, gold, bootstrap=0)
    assert report.rows[1].zero_std_fraction == 0.5
    assert report.rows[1].std_q10 == 0.0
    assert report.differences == ()


def test_refusals():
    with pytest.raises(ValueError, match="same rollouts"):
        teacher_report({"a": [[1.0, 2.0]], "b": [[1.0, 2.0, 3.0]]})
    with pytest.raises(ValueError, match="all rewards identical for 'a'"):
        teacher_report({"a": [[1.0, 1.0]]})
    with pytest.raises(TypeError, match="`proxies` must map"):
        teacher_report([[1.0, 2.0]])
    report = teacher_report({"a": [[1.0, 2.0]]}, bootstrap=0)
    with pytest.raises(ValueError, match="`increase` must have an entry"):
        report.correlate({})
    with pytest.raises(ValueError, match="`by` must be one of"):
        report.rank(by="nothing")

"""Tables 1 and 2 of arXiv 2503.15477, and the table of GSM8K: every stated figure out of the library's own reports.

Table 2 correlates the rows of Table 1 with gains that are not published; the figures that follow from others do not
need them. The thirty-six runs of Tables 10 to 12 are in ``test_teacher_report.py``.
"""

from __future__ import annotations

import csv
import itertools
import math

import numpy as np
import pytest

from oracles.rewards_pairs import reward_data
from rankdiag.rewards import ranking_accuracy, summarize, zero_std_at_k
from rankdiag.rewards._teacher import TeacherReport, TeacherRow

VARIANCE, ON, OFF = "normalised_variance", "on_policy_accuracy", "off_policy_accuracy"
FIGURES = {
    "reward_variance": VARIANCE,
    "on_policy_accuracy": ON,
    "off_policy_accuracy": OFF,
    "on_and_off_policy_accuracy": "harm_aware_accuracy",  # the column that the papers do not have holds their mean
    "reward_variance_and_accuracy": "combined",
}


def rows_of(name):
    path = reward_data(name)
    if path is None:
        pytest.skip("the published tables lie beside the repository, not in it; RANKDIAG_DATA may name their folder")
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def report_of(rows):
    nan, made = float("nan"), []
    for place, row in enumerate(rows):
        variance, on, off = (float(row[name]) for name in ("reward_variance", ON, OFF))
        made.append(
            TeacherRow(
                name=f"{place} {row['reward_model']}", normalised_variance=variance, variance_lower=nan,
                variance_upper=nan, on_policy_accuracy=on, harm_aware_accuracy=(on + off) / 2, off_policy_accuracy=off,
                combined=(variance + (on + off) / 2) / 2, zero_std_fraction=nan, std_q10=nan, std_median=nan,
                std_q90=nan, pooled_mean=nan, pooled_std=nan,
            )
        )  # fmt: skip
    return TeacherReport(rows=tuple(made))


def correlations(report, gains, method):
    found = report.correlate(dict(zip((row.name for row in report.rows), gains, strict=True)), method=method)
    return {name: found[figure] for name, figure in FIGURES.items()}


# --- Tables 1 and 2: reward models of one policy of 2.8 billion parameters ---------------------------------------


@pytest.fixture(scope="module")
def table1():
    rows = rows_of("published_pythia28b_rm_properties.csv")
    assert [row["reward_model"] for row in rows][-1] == "ground_truth"
    return report_of(rows[:-1])  # the correlations of Table 2 are over reward models, so without the truth


@pytest.fixture(scope="module")
def table2():
    rows = rows_of("published_pythia28b_correlations.csv")
    return {
        column: {row["property"]: float(row[column]) for row in rows}
        for column in ("proxy_pearson", "proxy_spearman", "gt_pearson", "gt_spearman")
    }


def test_table_1_is_ranked_by_variance_as_by_its_rows(table1):
    assert list(table1.column(VARIANCE)) == [0.63, 0.616, 0.555, 0.438, 0.314, 0.111]
    assert table1.rank(by=VARIANCE) == tuple(row.name for row in table1.rows)
    assert table1.rank(by=ON)[0].endswith("perfect_accuracy_low_variance")


def test_rank_correlations_with_the_proxy_follow_from_the_first(table1, table2):
    stated = table2["proxy_spearman"]
    assert stated["reward_variance"] == 1.0  # so the gains have the order of the variances, and tell all other ranks
    found = correlations(table1, table1.column(VARIANCE), "spearman")
    assert {name: round(value, 3) for name, value in found.items()} == stated


def test_rank_correlations_with_the_truth_belong_to_an_order(table1, table2):
    stated, fits = table2["gt_spearman"], 0
    for order in itertools.permutations(range(6)):
        found = correlations(table1, order, "spearman")
        fits += all(abs(found[name] - value) < 0.001 for name, value in stated.items())
    assert fits == 1


@pytest.mark.parametrize("side", ["proxy_pearson", "gt_pearson"])
def test_pearson_correlations_of_sums_follow_from_their_parts(table1, table2, side):
    parts = ("reward_variance", "on_policy_accuracy", "off_policy_accuracy")
    columns = np.array([table1.column(FIGURES[name]) for name in parts])
    centred = columns - columns.mean(axis=1, keepdims=True)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    stated = np.array([table2[side][name] for name in parts])
    gains = units.T @ np.linalg.solve(units @ units.T, stated)  # of all gains with these correlations, the smallest
    rest = 1 - gains @ gains
    assert rest > -0.01
    across = np.linalg.svd(np.vstack([units, np.ones(6)]))[2][-1]  # changes no correlation but for the length
    found = correlations(table1, gains + math.sqrt(max(rest, 0.0)) * across, "pearson")
    for name, value in table2[side].items():
        assert found[name] == pytest.approx(value, abs=0.0015), name


# --- GSM8K: four solvers, as a report prints them ----------------------------------------------------------------


def test_the_report_of_gsm8k_prints_every_stated_figure():
    rows = rows_of("gsm8k_four_solvers_rewards.csv")
    names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    correct = np.array([[float(row[f"correct_{name}"]) for name in names] for row in rows])
    brevity = -np.array([[float(row[f"chars_{name}"]) for name in names] for row in rows])
    text = summarize(correct).summary(width=110)
    for label, printed in {
        "rms std": "0.3917",
        "mean variance": "0.1535",
        "mean std": "0.2909",
        "share of zero std": "0.4458",
        "all lowest": "0.3275",
        "all highest": "0.1183",
        "normalised variance": "0.6517",
        "prompts": "1319",
    }.items():
        assert any(line.split("  ")[1:2] == [label] and printed in line for line in text.splitlines()), label
    assert [f"{zero_std_at_k(correct, k).mean():.4f}" for k in (2, 3)] == ["0.6931", "0.5396"]
    for harm_aware, printed in ((False, "0.4599"), (True, "0.5494")):
        report = ranking_accuracy(brevity, correct, harm_aware=harm_aware).summary(width=110)
        assert printed in report
        assert "2429" in report

"""Error reports: figures from their definitions, by loops; published instances; hostile input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.rewards_flow import rate_by_difference, rk4
from oracles.rewards_pairs import ranking, reward_data
from rankdiag import result_from_json
from rankdiag.rewards import RewardTable, credit_report, error_report, gradient_alignment, instance_report
from rankdiag.rewards._error_report import ErrorReport

NAN = float("nan")
PROBLEM = {"initial_probs": [0.1, 0.5, 0.4], "train_reward": [1, -1, -1], "ground_truth_reward": [1, 0.8, -1]}


def correlation(x, y):
    """Pearson's, as it is written in books."""
    mx, my = sum(x) / len(x), sum(y) / len(y)
    xx, yy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / math.sqrt(xx * yy) if xx * yy > 0 else NAN


# --- rollouts ------------------------------------------------------------------------------------------------------


def noisy(seed, shape=(30, 6), noise=1.0):
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=shape)
    return gold + noise * rng.normal(size=shape), gold


def test_figures_are_those_of_their_definitions():
    proxy, gold = noisy(0, noise=2.0)
    proxy[3, 2:4] = NAN
    gold[4] = 1.0
    proxy[5, 1:] = NAN
    proxy[6] = NAN
    report = error_report(proxy, gold)
    plain, harm = ranking(proxy.tolist(), gold.tolist()), ranking(proxy.tolist(), gold.tolist(), harm=True)
    assert report.accuracy == pytest.approx(plain[0], rel=1e-12)
    assert report.harm_aware_accuracy == pytest.approx(harm[0], rel=1e-12)
    assert report.harmless_pairs == pytest.approx(harm[0] - plain[0], rel=1e-9)
    assert report.harmless_misrankings == pytest.approx((harm[0] - plain[0]) / (1 - plain[0]), rel=1e-9)
    assert (report.n_pairs, report.n_gold_ties, report.n_proxy_ties) == (plain[1], plain[3], plain[4])
    cosines = []
    for i in range(len(proxy)):
        good = [j for j in range(6) if not math.isnan(proxy[i][j])]
        x, y = [proxy[i][j] for j in good], [gold[i][j] for j in good]
        assert report.n_rollouts[i] == len(good)
        if not good:
            assert math.isnan(report.prompt_rate[i])
            continue
        cosines.append(correlation(x, y))
        assert report.prompt_cosine[i] == pytest.approx(cosines[-1], rel=1e-9, nan_ok=True)
        start = [1 / len(good)] * len(good)
        assert report.prompt_rate[i] == pytest.approx(rate_by_difference(start, x, y), rel=1e-5, abs=1e-9)
    known = [c for c in cosines if not math.isnan(c)]
    assert report.share_negative == sum(c < 0 for c in known) / len(known) > 0
    assert report.cosine_quantiles["0.5"] == pytest.approx(float(np.median(known)), rel=1e-9)
    assert report.rate == pytest.approx(np.nanmean(report.prompt_rate), rel=1e-12)
    assert report.meta.skipped == {"alignment": "3 of 30 prompts, where a reward does not vary"}


def test_equal_outputs_are_one_output_with_their_frequency():
    texts = [["a", "b", "a", "c"], ["x", "x", "x", "x"]]
    proxy, gold = [[1.0, 2.0, 3.0, 0.0], [1.0, 1.0, 1.0, 1.0]], [[0.0, 1.0, 1.0, 3.0], [0.1, 0.1, 0.1, 0.1]]
    report = error_report(proxy, gold, outputs=texts)
    expected = gradient_alignment([0.5, 0.25, 0.25], [2.0, 2.0, 0.0], [0.5, 1.0, 3.0])
    assert report.prompt_cosine[0] == pytest.approx(expected.cosine, rel=1e-12)
    assert report.prompt_rate.tolist() == pytest.approx([expected.rate, 0.0], rel=1e-12)
    assert math.isnan(report.prompt_cosine[1])
    assert report.meta.details["outputs"] == 4
    same = error_report(proxy, gold, outputs=[[0, 1, 0, 2], [7, 7, 7, 7]])
    assert same == report
    assert error_report(proxy, gold).prompt_cosine[0] == pytest.approx(correlation(proxy[0], gold[0]))


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-10, 10))
@settings(max_examples=15)
def test_scale_and_shift_of_either_reward_change_no_ratio(seed, scale, shift):
    proxy, gold = noisy(seed, (5, 4))
    first, second = error_report(proxy, gold), error_report(scale * proxy + shift, gold / scale - shift)
    for name in ("accuracy", "harm_aware_accuracy", "alignment", "share_negative"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-9)
    np.testing.assert_allclose(first.prompt_cosine, second.prompt_cosine, atol=1e-9)
    assert first.harm_aware_accuracy >= first.accuracy
    np.testing.assert_allclose(error_report(-proxy, gold).prompt_cosine, -first.prompt_cosine, atol=1e-12)


def test_a_gradient_that_is_zero_by_design_has_no_sign():
    report = error_report([[0.1, 0.2, 0.1, 0.2]], [[0.3, 0.3, 0.7, 0.7]])
    assert report.prompt_cosine.tolist() == [0.0]
    assert report.share_negative == 0.0
    flat = error_report([[1 / 3, 1 / 3, 1 / 3]], [[0.0, 1.0, 2.0]])
    assert flat.alignment is flat.share_negative is None
    assert "no direction" in flat.explanation


def test_weights_collapse_and_say_so():
    proxy, gold = noisy(2)
    rng = np.random.default_rng(0)
    logs, lengths = rng.normal(-250, 60, proxy.shape), np.full(proxy.shape, 100)
    table = RewardTable.from_array(
        proxy, gold=gold, log_probs=logs, lengths=lengths, prompt_ids=[f"p{i}" for i in range(30)]
    )
    report = error_report(table)
    raw, short = report.weighted
    assert (raw.weighting, short.weighting) == ("sequence", "length_normalised")
    assert not raw.reliable
    assert short.reliable
    expected = ranking(proxy.tolist(), gold.tolist(), weights=(logs / 100).tolist(), harm=True)
    assert short.harm_aware_accuracy == pytest.approx(expected[0], rel=1e-9)
    assert short.ess == pytest.approx(expected[2], rel=1e-9)
    assert "sequence weighting: ignore" in report.explanation
    assert report.prompts[:2] == ("p0", "p1")
    assert error_report(proxy, gold, log_probs=logs).weighted[0].ess == raw.ess


def test_verdicts_are_a_ground_truth_and_bring_the_credit_report():
    verdicts = np.random.default_rng(0).integers(0, 2, (6, 4, 2))
    report = error_report(verdicts.mean(axis=2), verdicts=verdicts)
    assert report.credit == credit_report(verdicts)
    assert report.accuracy == 1.0  # partial credit never orders a whole success below a failure
    assert report.harmless_misrankings is None
    assert np.nanmin(report.prompt_cosine) < 1.0  # but it also pulls towards half a success
    assert report.document().sections[0].title == "Binary or partial credit"
    assert report.meta.details["truth"] == "all verdicts hold"
    with pytest.raises(ValueError, match="same number of rollouts"):
        error_report([[1.0, NAN], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], verdicts=np.ones((2, 2, 1)))


def test_real_table_of_four_solvers():
    path = reward_data("gsm8k_four_solvers_rewards.csv")
    if path is None:
        pytest.skip("the table lies beside the repository, not in it")
    rows = np.genfromtxt(path, delimiter=",", names=True)
    correct = np.array([rows[n] for n in rows.dtype.names if n.startswith("correct")]).T
    brief = -np.array([rows[n] for n in rows.dtype.names if n.startswith("chars")]).T
    report = error_report(brief, correct)
    assert (round(report.accuracy, 4), report.n_pairs, round(report.harm_aware_accuracy, 4)) == (0.4599, 2429, 0.5494)


def test_a_report_survives_and_is_shown():
    proxy, gold = noisy(1, noise=2.0)
    proxy[3, 1:] = NAN
    report = error_report(proxy, gold, log_probs=gold)
    assert result_from_json(report.to_json()) == report
    assert not report.prompt_cosine.flags.writeable
    rows = list(report.records())
    assert rows[3]["cosine"] is None
    assert report.to_csv().splitlines()[4].endswith(",,0.0,") or rows[3]["accuracy"] is None
    assert len(report.to_csv().splitlines()) == len(report) + 1
    document = report.document()
    assert sum(document.plots[0].series[0].y) == 29
    assert document.grids[2].rows[0][0] == str(int(np.nanargmin(report.prompt_cosine)))
    assert isinstance(report, ErrorReport)
    assert not report.judged


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: error_report([[1.0, 2.0]]), "`gold` must be given"),
        (lambda: error_report([[1.0, 2.0]], [[1.0, 1.0]]), "all gold rewards tie"),
        (lambda: error_report([[1.0, 2.0]], [[1.0]]), "align"),
        (lambda: error_report([[1.0, 2.0]], [[1.0, 2.0]], outputs=[["a"]]), "`outputs`"),
        (lambda: error_report([[1.0, 2.0]], [[1.0, 2.0]], outputs=[["a", "b"], ["c"]]), "`outputs`"),
        (lambda: error_report([[1.0, 2.0]], [[1.0, 2.0]], verdicts=[[[1], [0], [1]]]), "`verdicts`"),
        (lambda: error_report([[1e308, -1e308]], [[1.0, 2.0]]), "`proxy` spreads"),
        (lambda: error_report([[1.0, 2.0]], [[1e200, -1e200]]), None),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, said):
    if said is None:
        assert call().accuracy == 0.0
        return
    with pytest.raises(ValueError, match=said):
        call()


# --- instances -----------------------------------------------------------------------------------------------------


def test_one_instance_is_what_a_fine_integration_gives():
    (row,) = instance_report(PROBLEM).rows
    before, after = (np.dot(rk4(PROBLEM["initial_probs"], PROBLEM["train_reward"], t, 400), [1, 0.8, -1])
                     for t in (row.proxy_time * 0.99, row.proxy_time * 1.01))  # fmt: skip
    assert before < 0.95 < after
    assert row.proxy_end == pytest.approx(0.95, abs=1e-9)
    start, proxy, gold = PROBLEM.values()
    assert row.rate == pytest.approx(rate_by_difference(start, proxy, gold), rel=1e-6)
    assert row.gold_rate == pytest.approx(rate_by_difference(start, gold, gold), rel=1e-6)
    assert (row.outputs, row.errors, row.beneficial, row.harmful, row.benign) == (3, 1, 1, 0, 0)


def test_a_published_file_gives_the_published_times():
    problems = published()
    report = instance_report(problems)
    times = {row.name: (row.proxy_time, row.gold_time) for row in report.rows}
    for name, proxy, gold in (("005", 23.13, 33577), ("010", 18.31, 1089.4), ("015", 16.24, 152.55)):
        assert times[f"mediocre_p{name}_proxy"] == pytest.approx((proxy, gold), rel=3e-4)
        assert times[f"mediocre_p{name}_ground_truth"] == pytest.approx((gold, gold), rel=3e-4)
    assert times["similarity_negative"] == (math.inf, math.inf)
    assert report.rows[0].errors == report.rows[6].errors == 0
    for place, value in ((6, 0.7998), (0, 0.7999)):  # after what 50,000 steps of size 0.1 come to
        assert instance_report(problems[place], horizon=5000).rows[0].gold_end == pytest.approx(value, abs=1.5e-4)
    assert [(e.instance, e.index, e.category) for e in report.errors] == [
        (f"mediocre_p{name}_proxy", 1, "beneficial_I") for name in ("005", "010", "015")
    ]


def published(*names):
    path = reward_data("loglinear_bandit_instances.json")
    if path is None:
        pytest.skip("the instances lie beside the repository, not in it")
    problems = json.loads(path.read_text(encoding="utf-8"))
    return [problem for problem in problems if not names or problem["name"].removeprefix("mediocre_") in names]


STEPS = {
    "p005_ground_truth": math.inf, "p010_ground_truth": 10815, "p015_ground_truth": 1522, "p005_proxy": 232,
    "p010_proxy": 183, "p015_proxy": 162, "similarity_negative": math.inf, "similarity_orthogonal": 19239,
    "similarity_positive": 629,
}  # fmt: skip


def test_steps_of_exact_ascent_are_the_published_ones():
    report = instance_report(published("p015_ground_truth", "similarity_positive"), method="gd")
    assert report.column("proxy_time") == [1522, 629]
    assert report.meta.units == "updates"
    assert report.document().plots[0].x_label == "updates"
    assert instance_report(PROBLEM, method="gd", lr=1.0, steps=4).rows[0].gold_time == math.inf
    assert instance_report(PROBLEM, method="gd", lr=1.0).rows[0].proxy_time == 13
    for option in ({"lr": 0.1}, {"steps": 3}):
        with pytest.raises(ValueError, match="is for method='gd'"):
            instance_report(PROBLEM, **option)


@pytest.mark.slow
def test_all_published_steps():
    report = instance_report(published(), method="gd")
    assert {row.name.removeprefix("mediocre_"): row.proxy_time for row in report.rows} == STEPS
    assert [report.rows[i].gold_end for i in (0, 6)] == pytest.approx([0.7999, 0.7998], abs=5.1e-5)
    assert report.rows[3].gold_time == math.inf


def test_effects_agree_with_the_categories_and_features_with_their_kernel():
    features = np.array([[1.0, 0.5], [0.0, 1.0], [0.3, 0.0]])
    hacked = {
        "name": "hacked",
        "initial_probs": [0.1, 0.5, 0.4],
        "train_reward": [1, 0.8, 1],
        "ground_truth_reward": [1, 0.8, -1],
    }
    report = instance_report([hacked, {**hacked, "name": "kernel", "kernel": features @ features.T},
                              {**hacked, "name": "features", "features": features, "note": "by hand"}],
                             verify="flow", horizon=200.0)  # fmt: skip
    first, kernel, same = report.rows
    assert (first.harmful, first.proxy_time) == (1, math.inf)
    assert report.errors[0].effect == first.worst_effect < 0
    assert (kernel.rate, kernel.worst_effect) == pytest.approx((same.rate, same.worst_effect), rel=1e-9)
    assert kernel.rate != first.rate
    assert report.meta.skipped["fields of features"] == "note; not used"
    assert result_from_json(report.to_json()) == report
    document = report.document()
    assert [plot.title for plot in document.plots] == [f"True reward of {n}" for n in ("hacked", "kernel", "features")]
    assert document.grids[1].columns[-1].name == "effect"
    assert instance_report(hacked).errors[0].effect is None


def test_a_level_out_of_reach_is_named():
    report = instance_report({**PROBLEM, "name": "p"}, level=2.0, horizon=10.0)
    assert report.rows[0].gold_time == math.inf
    assert report.meta.skipped["times of p"] == "no output has a true reward of 2; the best has 1"


@pytest.mark.parametrize(
    ("problem", "error", "said"),
    [
        ({k: v for k, v in PROBLEM.items() if k != "train_reward"}, ValueError, "entry 0 has no train_reward"),
        ({**PROBLEM, "initial_probs": [0.5, 0.5, 0.5]}, ValueError, "`initial_probs` must sum to 1"),
        ({**PROBLEM, "initial_probs": [0.5, 0.5, 0.0]}, ValueError, "`initial_probs` must be positive"),
        ({**PROBLEM, "train_reward": [1, 2]}, ValueError, "`train_reward`"),
        ({**PROBLEM, "ground_truth_reward": [1, NAN, 2]}, ValueError, "`ground_truth_reward`"),
        ({**PROBLEM, "features": [[1.0], [2.0]]}, ValueError, "`features` must have one row"),
        ({**PROBLEM, "features": [[1e200], [1], [1]]}, ValueError, "beyond float64"),
        ({**PROBLEM, "features": [[1], [1], [1]], "kernel": np.eye(3)}, ValueError, "must not both"),
        ({**PROBLEM, "kernel": np.ones((2, 2))}, ValueError, "`kernel`"),
        ([PROBLEM, {**PROBLEM, "name": "0"}], ValueError, "comes twice"),
        ([], ValueError, "at least one"),
        ([3], TypeError, "entry 0"),
        ("text", TypeError, "one problem"),
    ],
)
def test_problems_that_do_not_fit_are_named(problem, error, said):
    with pytest.raises(error, match=said):
        instance_report(problem)

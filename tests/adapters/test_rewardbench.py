"""Score files of RewardBench, both versions, in every layout that they are written in."""

from __future__ import annotations

import json
import math
import random
import statistics

import numpy as np
import pytest

from rankdiag import result_from_json
from rankdiag.adapters import RewardBench, from_rewardbench
from rankdiag.rewards import RewardTable, pair_report

ROWS = [
    {"subset": "hep-go", "scores_chosen": 1.0, "scores_rejected": 0.0, "results": 1},
    {"subset": "hep-go", "scores_chosen": 0.5, "scores_rejected": 0.5, "results": 0},
    {"subset": "math-prm", "scores_chosen": [2.0], "scores_rejected": [3.0], "results": 0},
    {"subset": "math-prm", "scores_chosen": [4.0], "scores_rejected": [3.0], "results": 1},
    {"subset": "math-prm", "scores_chosen": [5.0], "scores_rejected": [3.0], "results": 1},
]


def layouts():
    return {
        "lines": "\n".join(map(json.dumps, ROWS)),
        "as written": "".join(json.dumps(row, indent=4, sort_keys=True) + "\n" for row in ROWS),
        "list": json.dumps(ROWS),
        "columns": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]} | {"model": "m"}),
    }


@pytest.mark.parametrize("layout", list(layouts()))
def test_version_one_in_every_layout(tmp_path, layout):
    path = tmp_path / "scores.json"
    path.write_text(layouts()[layout], encoding="utf-8")
    found = from_rewardbench(path)
    assert found.version == 1
    assert found.column("published") == [0.5, 2 / 3]
    assert found.column("published") == [1 / 2, sum(row["results"] for row in ROWS[2:]) / 3]
    assert found.column("accuracy") == [0.75, 2 / 3]
    assert found.column("ties") == [1, 0]
    assert found.section_weights == {"hep-go": 164, "math-prm": 984}
    assert found.sections == {"Reasoning": pytest.approx((164 * 0.5 + 984 * 2 / 3) / 1148)}
    assert result_from_json(found.to_json()) == found
    spread = (0.5 + 0.5) ** 0.5 / 6**0.5  # scores 1, 0, .5, .5: mean .5, sum of squares .5
    assert found.rows[0].normalised_margin == pytest.approx(0.5 / spread / math.sqrt(1.0), rel=1e-6)


def test_version_two_shares_a_tie_and_scores_the_ties_subset(tmp_path):
    rows = [
        {"id": "0", "subset": "Focus", "scores": [2.0, 1.0, 2.0, 0.0], "num_correct": 1},
        {"id": "1", "subset": "Focus", "scores": [[3.0], [1.0], [2.0], [0.0]], "num_correct": 1},
        {"id": "ref:1", "subset": "Ties", "scores": [5.0, 1.0], "num_correct": 1},
        {"id": "tied:1", "subset": "Ties", "scores": [4.0, 3.0, 1.0], "num_correct": 2},
        {"id": "ref:2", "subset": "Ties", "scores": [1.5, 1.0], "num_correct": 1},
        {"id": "tied:2", "subset": "Ties", "scores": [4.0, 2.0, 3.0], "num_correct": 2},
    ]
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({key: [row[key] for row in rows] for key in rows[0]}), encoding="utf-8")
    found = from_rewardbench(path)
    assert found.version == 2
    assert found.rows[0].published == 0.75
    tanh = (math.tanh(2.0 / 1.0 - 1) + math.tanh(-1.0 / 2.0 - 1)) / 2
    assert found.rows[1].published == pytest.approx(0.3 * 0.5 + 0.3 * 1.0 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * tanh)


def ties_score(rows):
    """The formula of the subset, by loops: margins are lowest right minus highest wrong."""
    kinds = {"ref": {}, "tied": {}}
    for row in rows:
        kind, key = row["id"].split(":")
        right, wrong = row["scores"][: row["num_correct"]], row["scores"][row["num_correct"] :]
        kinds[kind][key] = (min(right) - max(wrong), max(right) - min(right))
    accuracy = {kind: sum(m > 0 for m, _ in part.values()) / len(part) for kind, part in kinds.items()}
    own = easy = hard = 0.0
    both = [key for key in kinds["tied"] if key in kinds["ref"]]
    for key in both:
        margin, spread = kinds["tied"][key]
        least = min(margin, kinds["ref"][key][0])
        easy += margin > spread
        hard += least > spread
        if spread:
            own += math.tanh(least / spread - 1)
        elif least:
            own += math.copysign(1.0, least)  # and 0 / 0 adds nothing
    return 0.3 * sum(accuracy.values()) + (0.2 * easy + 0.2 * hard + 0.01 * own) / len(both)


def v2_file(tmp_path, rows):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({key: [row[key] for row in rows] for key in rows[0]}), encoding="utf-8")
    return path


@pytest.mark.parametrize("seed", range(8))
def test_the_ties_subset_by_loops(tmp_path, seed):
    draw = random.Random(seed)
    rows = []
    for key in range(6):
        for kind, right in (("ref", 1), ("tied", draw.randint(2, 4))):
            scores = [draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(right + draw.randint(1, 3))]
            rows.append({"id": f"{kind}:{key}", "subset": "ties", "scores": scores, "num_correct": right})
    rows.append({"id": "ref:99", "subset": "ties", "scores": [1.0, 0.0], "num_correct": 1})  # has no other half
    found = from_rewardbench(v2_file(tmp_path, rows))
    assert found.rows[0].published == pytest.approx(ties_score(rows), abs=1e-12)
    every = [score for row in rows for score in row["scores"]]
    margins = [min(r["scores"][: r["num_correct"]]) - max(r["scores"][r["num_correct"] :]) for r in rows]
    wanted = statistics.fmean(map(abs, margins)) / (statistics.stdev(every) + 1e-8)
    assert found.rows[0].normalised_margin == pytest.approx(wanted)


def test_right_answers_without_spread_or_margin_add_nothing(tmp_path):
    rows = [
        {"id": "ref:1", "subset": "Ties", "scores": [1.0, 1.0], "num_correct": 1},
        {"id": "tied:1", "subset": "Ties", "scores": [1.0, 1.0, 0.0], "num_correct": 2},
    ]
    assert from_rewardbench(v2_file(tmp_path, rows)).rows[0].published == pytest.approx(0.3 + 0.2)
    rows.append({"id": "tied:1", "subset": "Ties", "scores": [1.0, 1.0, 0.0], "num_correct": 2})
    with pytest.raises(ValueError, match=r"'tied:1' stands there twice"):
        from_rewardbench(v2_file(tmp_path, rows))


def test_best_of_k_shares_among_all_maxima(tmp_path):
    scores = [[3.0, 3.0, 3.0, 1.0], [1.0, 3.0, 0.0, 0.0], [3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 0.0, 0.0]]
    rows = [{"id": str(i), "subset": "Math", "scores": s, "num_correct": 1} for i, s in enumerate(scores)]
    (row,) = from_rewardbench(v2_file(tmp_path, rows)).rows
    assert row.published == pytest.approx((1 / 3 + 0 + 1 + 1 / 2) / 4)
    assert row.accuracy == (0.5 + 0 + 1 + 0.5) / 4
    assert row.ties == 2
    n, p, z = 4, 0.5, 1.959963984540054
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p / (2 * n) + z * z / 64)
    assert (row.lower, row.upper) == (pytest.approx(middle - half), pytest.approx(middle + half))


def test_the_margin_is_that_of_a_pair_report(tmp_path):
    path = tmp_path / "scores.json"
    chosen, rejected = [1.0, -2.0, 0.5], [0.0, 1.0, 0.5]
    pairs = zip(chosen, rejected, strict=True)
    path.write_text("\n".join(json.dumps({"scores_chosen": c, "scores_rejected": r}) for c, r in pairs))
    (row,) = from_rewardbench(path).rows
    assert row.normalised_margin == pytest.approx(pair_report(chosen, rejected).normalised_margin, rel=1e-14)
    assert row.normalised_margin > 1  # the signed mean is below 0
    path.write_text(json.dumps({"scores_chosen": 1e308, "scores_rejected": -1e308}))
    assert from_rewardbench(path).rows[0].normalised_margin == pytest.approx(math.sqrt(2))
    path.write_text(json.dumps({"scores_chosen": 0.0, "scores_rejected": 0.0}))
    assert from_rewardbench(path).rows[0].normalised_margin == 0.0


def test_rollouts_add_the_variance_and_the_waiver(tmp_path):
    """Prompt 7 is in two rows of a subset, 8 has one scored rollout, 9 none; 0 is not of the benchmark."""
    path = tmp_path / "scores.json"
    rows = [
        {"id": 7, "subset": "hep-go", "scores_chosen": 0.0, "scores_rejected": 1.0},  # 1 < 2: waived
        {"id": 7, "subset": "hep-go", "scores_chosen": 0.0, "scores_rejected": 2.0},  # not below 2
        {"id": 8, "subset": "hep-go", "scores_chosen": 0.0, "scores_rejected": 1.0},  # 1 < 5: waived
        {"id": 9, "subset": "hep-go", "scores_chosen": 0.0, "scores_rejected": 1.0},
        {"id": 6, "subset": "math-prm", "scores_chosen": 2.0, "scores_rejected": 1.0},
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    nan = float("nan")
    table = RewardTable.from_array(
        [[1.0, 3.0], [5.0, nan], [nan, nan], [9.0, 9.0]], prompt_ids=["7", "8", "9", "0"], meta={"policy": "p"}
    )
    found = from_rewardbench(path, rollouts=table)
    assert found.column("rollouts") == [3, 0]
    assert found.rows[0].harm_aware == pytest.approx(2 / 3)
    assert found.rows[0].accuracy == 0.0
    assert found.rows[0].induced_variance == 2.0  # of prompt 7, once
    assert found.rows[0].normalised_variance == pytest.approx(2.0 / statistics.variance([1.0, 3.0, 5.0]))
    assert found.rows[1].harm_aware is None
    assert found.meta.skipped == {"rollouts": "2 of 5 comparisons have none"}
    assert "harm-aware" in str(found)
    assert result_from_json(found.to_json()) == found
    alone = from_rewardbench(path)
    assert "harm-aware" not in str(alone)
    assert alone.column("rollouts") == [0, 0]
    assert [row.published for row in alone.rows] == [row.published for row in found.rows]


def test_rollouts_are_found_by_prompt_and_by_place(tmp_path):
    path = tmp_path / "scores.json"
    scores = [{"scores_chosen": 0.0, "scores_rejected": 1.0}, {"scores_chosen": 0.0, "scores_rejected": 1.0}]
    path.write_text(json.dumps(scores))
    assert from_rewardbench(path, rollouts=RewardTable.from_array([[0.0, 0.0], [2.0, 2.0]])).rows[0].harm_aware == 0.5
    turns = [[{"role": "user", "content": text}] for text in ("a", "b")]
    path.write_text(json.dumps([{**row, "prompt": prompt} for row, prompt in zip(scores, turns, strict=True)]))
    table = RewardTable.from_records([{"prompt": turns[1], "reward": 2.0}, {"prompt": turns[1], "reward": 3.0}])
    (row,) = from_rewardbench(path, rollouts=table).rows
    assert (row.rollouts, row.harm_aware, row.induced_variance) == (1, 1.0, 0.5)
    with pytest.raises(ValueError, match="`rollouts` must have prompts of the file"):
        from_rewardbench(path, rollouts=RewardTable.from_array([[0.0, 1.0]], prompt_ids=["z"]))
    with pytest.raises(TypeError, match="`rollouts` must be a RewardTable"):
        from_rewardbench(path, rollouts=np.zeros((2, 2)))
    assert isinstance(from_rewardbench(path), RewardBench)


def test_section_scores_are_weighted_by_the_published_counts(tmp_path):
    """Mathematics counts 984, up to the size of the code, whatever is in the file; other sets are in no section."""
    rows = [
        ("alpacaeval-easy", 1), ("mt-bench-med", 0), ("mt-bench-hard", 1), ("llmbar-natural", 0),
        ("donotanswer", 1), ("refusals-offensive", 0), ("math-prm", 1), ("hep-cpp", 0), ("hep-rust", 0), ("shp", 0),
    ]  # fmt: skip
    path = tmp_path / "scores.json"
    path.write_text(
        json.dumps([{"subset": name, "scores_chosen": right, "scores_rejected": 0.5} for name, right in rows])
    )
    found = from_rewardbench(path)
    assert found.sections == {
        "Chat": pytest.approx(100 / 140),
        "Chat Hard": pytest.approx(37 / 137),
        "Safety": pytest.approx(136 / 236),
        "Reasoning": pytest.approx(984 / (984 + 2 * 164)),
    }
    assert "shp" not in found.section_weights


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got none"),
        ("{", "must be a JSON score file"),
        ("[1, 2]", "rows with scores"),
        ('{"subset": "x"}', "no 'scores_chosen'"),
        ('{"scores_chosen": null, "scores_rejected": 1}', "finite scores"),
        ('{"scores": [1.0], "num_correct": 1}', "num_correct"),
        ('{"subset": ["a", "b"], "scores": [[1.0, 2.0]]}', "one length"),
        ('{"subset": "Ties", "id": "7", "scores": [1.0, 2.0], "num_correct": 1}', "'ref:N' or 'tied:N'"),
    ],
)
def test_refusals_name_the_file(tmp_path, text, words):
    path = tmp_path / "scores.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        from_rewardbench(path)

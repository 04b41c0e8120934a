"""Score files of RewardBench, both versions, in every layout that they are written in."""

from __future__ import annotations

import json
import math

import pytest

from rankdiag import result_from_json
from rankdiag.adapters import from_rewardbench

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

"""``rankdiag rewards errors``: real files of rollouts and of policy problems, exit codes, gates, round trips."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rankdiag as rd
from oracles.html_page import Page
from oracles.rewards_pairs import ranking, reward_data
from rankdiag.cli import main
from rankdiag.rewards import RewardTable, credit_report, error_report, instance_report

HOSTILE = "<script>alert(1)</script>\x1b[31m"
PROBLEM = {"name": HOSTILE, "initial_probs": [0.1, 0.5, 0.4], "train_reward": [1, 0.8, 1],
           "ground_truth_reward": [1, 0.8, -1]}  # fmt: skip


def rollouts() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for prompt in range(12):
        for slot in range(5):
            both = [bool(v) for v in rng.integers(0, 2, 2)]
            rows.append({
                "prompt_id": f"p{prompt}", "reward": float(rng.normal()), "gold": float(rng.normal()),
                "log_prob": float(rng.normal(-250, 60)), "length": int(rng.integers(20, 40)),
                "response": f"text {slot % 4}", "short": both[0], "polite": both[1],
            })  # fmt: skip
    rows[7]["reward"] = None
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    rows = rollouts()
    (root / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = [row for row in rows if row["prompt_id"] != "p1"]
    (root / "verdicts.jsonl").write_text(
        "".join(json.dumps({k: row[k] for k in ("prompt_id", "short", "polite")}) + "\n" for row in whole)
    )
    (root / "bare.jsonl").write_text('{"prompt_id": "a", "reward": 1}\n{"prompt_id": "a", "reward": 0}\n')
    (root / "wide.csv").write_text("proxy_1,proxy_2,true_1,true_2\n1,0,0,1\n0,1,0,1\n2,1,2,1\n")
    (root / "problem.json").write_text(json.dumps(PROBLEM))
    (root / "problems.json").write_text(
        json.dumps([{**PROBLEM, "name": "a"}, {**PROBLEM, "name": "b", "train_reward": [1, 0.8, -1]}])
    )
    (root / "broken.json").write_text('[{"initial_probs": [0.5, 0.5], "train_reward": [1, 0]}]')
    (root / "twice.json").write_text('{"initial_probs": [1, 2')
    return root


def call(folder: Path, line: str, *more: str) -> int:
    """Run a command line in this process; words that name something in the folder become paths."""
    words = [str(folder / word) if (folder / word).exists() else word for word in line.split()]
    return main(["rewards", "errors", *words, *more])


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert err == ""
    return rd.result_from_json(out)


# --- rollouts ------------------------------------------------------------------------------------------------------


def test_a_table_gives_the_figures_of_the_python_call(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "rollouts.jsonl --json") == 0
    report = result(capsys)
    rows = rollouts()
    table = RewardTable.from_records(
        [{k: row[k] for k in ("prompt_id", "reward", "gold", "log_prob", "length")} for row in rows]
    )
    texts = np.array([row["response"] for row in rows]).reshape(12, 5)
    expected = error_report(table, outputs=texts)
    for name in ("accuracy", "harm_aware_accuracy", "alignment", "share_negative", "weighted", "prompts", "n_pairs"):
        assert getattr(report, name) == getattr(expected, name), name
    np.testing.assert_array_equal(report.prompt_cosine, expected.prompt_cosine)
    assert report.meta.details["outputs"] == 12 * 4 - 1
    assert report.harm_aware_accuracy == pytest.approx(
        ranking(table.values.tolist(), table.gold.tolist(), harm=True)[0]
    )
    assert call(folder, "rollouts.jsonl --json --response gold --loo") == 0
    other = result(capsys)
    assert other.meta.details["outputs"] == 59
    assert other.harm_aware_accuracy == error_report(table, loo=True).harm_aware_accuracy


def test_words_wide_rows_and_a_reversed_proxy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "wide.csv --wide proxy_* --gold-wide true_*") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "orders 66.7% of 3 pairs" in out
    assert "In 1 of 3 prompts ascent of the proxy lowers the true reward now" in out
    assert "distinct rollouts of a prompt" in out
    assert call(folder, "wide.csv --wide proxy_* --gold-wide true_* --negate --json") == 0
    assert result(capsys).share_negative == pytest.approx(2 / 3)


def test_verdicts_bring_credit_and_stand_in_for_both_rewards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "verdicts.jsonl --verdicts short,polite --json") == 0
    report = result(capsys)
    verdicts = np.array([[row["short"], row["polite"]] for row in rollouts() if row["prompt_id"] != "p1"])
    assert report.credit == credit_report(verdicts.reshape(11, 5, 2))
    assert report.accuracy == 1.0
    assert report.meta.details["truth"] == "all verdicts hold"
    assert call(folder, "verdicts.jsonl --verdicts short,polite --reward short --json") == 0
    assert result(capsys).accuracy < 1.0
    assert call(folder, "rollouts.jsonl --verdicts short,polite") == 3
    assert "same number of rollouts" in capsys.readouterr().err


def test_a_stored_table_brings_its_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = np.array([[[1, 1], [1, 0], [0, 0]]], dtype=bool)
    path = tmp_path / "table.json"
    for rewards, expected in (([[2.0, 1.0, 0.0]], credit_report(verdicts)), ([[2.0, np.nan, 0.0]], None)):
        table = RewardTable.from_array(rewards, gold=[[1.0, 0.5, 0.0]], verdicts=verdicts)
        path.write_text(json.dumps(table.to_dict()))
        assert main(["rewards", "errors", str(path), "--json"]) == 0
        assert result(capsys).credit == expected


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("harm_aware_accuracy < 0.99", 1),
        ("harm_aware_accuracy < 0.01", 0),
        ("share_negative > 0.01", 1),
        ("alignment > 0.999", 0),
        ("harmless_misrankings >= 0", 1),
    ],
)
def test_gates(folder: Path, rule: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "rollouts.jsonl", "--fail-on", rule) == code
    assert capsys.readouterr().err.startswith(f"rankdiag: --fail-on: {rule.split()[0]}" if code else "")


def test_files_of_every_kind(folder: Path, tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.jsonl", "a.md", "a.txt"):
        assert call(folder, "rollouts.jsonl --output", str(tmp_path / name), "--html", str(tmp_path / "page.html")) == 0
    report = rd.result_from_json((tmp_path / "a.json").read_text())
    assert (tmp_path / "a.csv").read_text() == report.to_csv()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == list(report.records())
    page = Page((tmp_path / "page.html").read_text())
    assert "Alignment of the proxy with the true reward" in page.text


# --- policy problems -----------------------------------------------------------------------------------------------


def test_the_published_instances_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = reward_data("loglinear_bandit_instances.json")
    if path is None:
        pytest.skip("the instances lie beside the repository, not in it")
    assert main(["rewards", "errors", str(path), "--json"]) == 0
    rows = {row.name: row for row in result(capsys).rows}
    for name, proxy, gold in (("005", 23.13, 33577), ("010", 18.31, 1089.4), ("015", 16.24, 152.55)):
        row = rows[f"mediocre_p{name}_proxy"]
        assert (row.proxy_time, row.gold_time) == pytest.approx((proxy, gold), rel=3e-4)
        assert row.beneficial == row.errors == 1
    assert rows["similarity_orthogonal"].gold_time == pytest.approx(1943.3, rel=1e-4)
    assert rows["similarity_negative"].gold_time == math.inf
    few = tmp_path / "few.json"
    few.write_text(
        json.dumps([p for p in json.loads(path.read_text()) if p["name"].endswith(("15_proxy", "_positive"))])
    )
    assert main(["rewards", "errors", str(few), "--method", "gd", "--json"]) == 0
    assert {row.name: row.proxy_time for row in result(capsys).rows} == {
        "mediocre_p015_proxy": 162, "similarity_positive": 629,
    }  # fmt: skip


def test_problems_of_several_files_are_verified(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert call(folder, "problems.json problem.json --verify --horizon 100 --level 0.9 --json --html", str(page)) == 0
    report = result(capsys)
    problems = [*json.loads((folder / "problems.json").read_text()), PROBLEM]
    assert report == instance_report(problems, verify="flow", horizon=100.0, level=0.9)
    assert [row.harmful for row in report.rows] == [1, 0, 1]
    assert report.rows[0].worst_effect < 0
    text = page.read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count("<figure") == 3
    assert call(folder, "problems.json --horizon 100", "--fail-on", "harmful > 0") == 1
    assert capsys.readouterr().err == "rankdiag: --fail-on: a: harmful 1 > 0\n"
    assert call(folder, "problems.json --horizon 100", "--fail-on", "worst_attribution < -100") == 0
    assert "1 rows have no worst_attribution" in capsys.readouterr().err
    assert call(folder, "problems.json --horizon 100", "--fail-on", "worst_effect < 0") == 3


# --- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("", 2, "INPUT"),
        ("rollouts.jsonl bare.jsonl", 2, "one table at a time"),
        ("problem.json rollouts.jsonl", 2, "not together"),
        ("problem.json --gold g", 2, "--gold: is for a table"),
        ("problem.json --negate", 2, "--negate: is for a table"),
        ("problem.json --verdicts a", 2, "--verdicts: is for a table"),
        ("rollouts.jsonl --verify", 2, "--verify: is for policy problems"),
        ("rollouts.jsonl --method gd", 2, "--method: is for policy problems"),
        ("problem.json --lr 1", 2, "--lr: needs --method gd"),
        ("problem.json --steps 1", 2, "--steps: needs --method gd"),
        ("problem.json --method gd --horizon 1", 2, "it is the end of --verify alone"),
        ("problem.json --method gd --steps -1", 3, "`steps`"),
        ("rollouts.jsonl --level 1", 2, "--level: is for policy problems"),
        ("rollouts.jsonl --fail-on harmful>0", 2, "harmful"),
        ("problem.json --fail-on accuracy<1", 2, "accuracy"),
        ("rollouts.jsonl --fail-on alert", 2, "no source sets a bound"),
        ("rollouts.jsonl --output rollouts.jsonl", 2, "is an input"),
        ("problem.json --output x.xyz", 2, "must end in"),
        ("bare.jsonl", 3, "no true reward; name its column with --gold"),
        ("rollouts.jsonl --gold nothing", 3, "nothing"),
        ("rollouts.jsonl --response nothing", 3, "no column 'nothing' of responses"),
        ("rollouts.jsonl --verdicts gold", 3, "'gold' must hold verdicts"),
        ("rollouts.jsonl --verdicts short,nothing", 3, "nothing"),
        ("none.jsonl", 3, "none.jsonl"),
        ("broken.json", 3, "entry 0 has no ground_truth_reward"),
        ("twice.json", 3, "twice.json"),
        ("problem.json --horizon -1", 3, "`horizon`"),
        ("problem.json problem.json", 3, "comes twice"),
    ],
)
def test_every_refusal_is_an_exit_code_and_one_line(
    folder: Path, line: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert call(folder, line) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert code == 2 or err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

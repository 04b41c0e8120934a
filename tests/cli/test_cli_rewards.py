"""``rankdiag rewards summary`` and ``teacher``: real files of every kind, refusals, gates, pages, a classifier."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oracles.rewards_pairs import reward_data
from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag import result_from_json
from rankdiag.cli import main
from rankdiag.rewards import RewardTable, TeacherReport, ranking_accuracy, summarize

SCRIPT = Path(sysconfig.get_path("scripts")) / "rankdiag"
K = 4
RNG = np.random.default_rng(0)
REWARD = RNG.integers(0, 2, size=(30, K)).astype(float)
GOLD = np.round(REWARD + 0.5 * RNG.normal(size=REWARD.shape), 6)
LOGP = np.round(-20 + RNG.normal(size=REWARD.shape), 6)
LENGTH = RNG.integers(1, 40, size=REWARD.shape)
MISSING = REWARD.copy()
MISSING[3, 1] = np.nan
IDS = [f"p{i}" for i in range(len(REWARD))]
ROWS: list[dict[str, Any]] = [
    {
        "prompt_id": IDS[i],
        "reward": None if np.isnan(MISSING[i, j]) else float(MISSING[i, j]),
        "gold": float(GOLD[i, j]),
        "log_prob": float(LOGP[i, j]),
        "length": int(LENGTH[i, j]),
    }
    for j in range(K)  # rollouts of a prompt do not stand together
    for i in range(len(REWARD))
]


def csv_text(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [",".join("" if row[name] is None else str(row[name]) for name in names) for row in rows]
    return "\n".join([",".join(names), *lines]) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rollouts")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "rows.csv").write_text("\ufeff" + csv_text(ROWS), encoding="utf-8")
    wide = [
        {"prompt_id": IDS[i]}
        | {f"r{j}": None if np.isnan(MISSING[i, j]) else MISSING[i, j] for j in range(K)}
        | {f"g{j}": GOLD[i, j] for j in range(K)}
        | {f"l{j}": LOGP[i, j] for j in range(K)}
        for i in range(len(REWARD))
    ]
    (folder / "wide.csv").write_text(csv_text(wide))
    lists = [{"rewards": row["r"]} for row in ({"r": [None if v != v else v for v in r]} for r in MISSING.tolist())]
    (folder / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    np.save(folder / "values.npy", MISSING)
    np.savez(folder / "values.npz", values=MISSING, gold=GOLD, log_probs=LOGP, lengths=LENGTH, prompt_ids=np.array(IDS))
    table = RewardTable.from_array(MISSING, prompt_ids=IDS, gold=GOLD, log_probs=LOGP, meta={"policy": "mine"})
    (folder / "stored.json").write_text(json.dumps(table.to_dict()))
    return folder


@pytest.fixture(scope="module")
def parquet(files) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    writer.write_table(pyarrow.Table.from_pylist(ROWS), files / "rows.parquet")
    completions = files / "trainer" / "completions"
    completions.mkdir(parents=True)
    rows = [
        {
            "step": 1,
            "prompt": f"prompt {i}",
            "completion": f"c{i}{j}",
            "exact": None if np.isnan(MISSING[i, j]) else MISSING[i, j],
            "true": GOLD[i, j],
            "advantage": 0.0,
        }
        for i in range(len(REWARD))
        for j in range(K)
    ]
    writer.write_table(pyarrow.Table.from_pylist(rows), completions / "completions_00001.parquet")
    return files


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main(["rewards", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def read(capsys, *arguments: object) -> Any:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return result_from_json(out)


SAME = summarize(MISSING)


def check_same(found: Any) -> None:
    for name in SAME.rule_names:
        assert getattr(found, name) == pytest.approx(getattr(SAME, name), rel=1e-12), name


# --- every kind of file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rows.jsonl", ()),
        ("rows.json", ()),
        ("rows.csv", ()),
        ("wide.csv", ("--wide", "r?")),
        ("lists.jsonl", ("--wide", "rewards")),
        ("values.npy", ()),
        ("values.npz", ()),
        ("stored.json", ()),
    ],
)
def test_every_kind_of_file_is_one_table(files, capsys, name, options):
    check_same(read(capsys, "summary", files / name, *options))


def test_parquet_and_the_log_of_a_trainer(parquet, capsys):
    check_same(read(capsys, "summary", parquet / "rows.parquet"))
    log = ("--num-generations", K, "--reward", "exact")
    check_same(read(capsys, "summary", parquet / "trainer", *log))
    check_same(read(capsys, "summary", parquet / "trainer" / "completions" / "completions_00001.parquet", *log))
    both = read(
        capsys, "summary", parquet / "trainer", *log, "--reward", "true", "--reward-weight", 1, "--reward-weight", 2
    )
    total = np.where(np.isnan(MISSING), 0.0, MISSING) + 2 * GOLD
    assert both.mean_var == pytest.approx(summarize(total).mean_var)
    assert read(capsys, "summary", parquet / "trainer", *log, "--negate").grand_mean == pytest.approx(-SAME.grand_mean)
    report = read(
        capsys, "teacher", parquet / "trainer", "--num-generations", K, "--gold", "true", "--proxy", "e=exact",
        "--bootstrap", 0,
    )  # fmt: skip
    assert report.rows[0].on_policy_accuracy == ranking_accuracy(MISSING, GOLD).accuracy
    code, _, err = run(capsys, "summary", parquet / "trainer")
    assert code == 3
    assert "--num-generations" in err


def test_other_names_of_columns_and_a_sign(tmp_path, capsys):
    path = tmp_path / "other.csv"
    rows = [{"question": row["prompt_id"], "score": row["reward"], "tokens": row["length"]} for row in ROWS]
    path.write_text(csv_text(rows))
    options = ("--prompt-id", "question", "--reward", "score", "--length", "tokens")
    check_same(read(capsys, "summary", path, *options))
    assert read(capsys, "summary", path, *options, "--negate").grand_mean == pytest.approx(-SAME.grand_mean)
    arrays = tmp_path / "named.npz"
    np.savez(arrays, a=MISSING, b=GOLD)
    check_same(read(capsys, "summary", arrays, "--reward", "a", "--gold", "b"))


def test_prompts_without_ids_are_their_own_ids(tmp_path, capsys):
    path = tmp_path / "chats.jsonl"
    rows = [{"prompt": [{"role": "user", "content": row["prompt_id"]}], "reward": row["reward"]} for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_same(read(capsys, "summary", path))
    path.write_text('{"prompt": "a", "reward": true}\n{"prompt": "a", "reward": false}\n')
    assert read(capsys, "summary", path).grand_mean == 0.5


# --- refusals ------------------------------------------------------------------------------------------------------

LINE = '{"prompt_id": "a", "reward": 1}\n'


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", "", (), "a.jsonl: holds no row"),
        ("a.csv", "", (), "a.csv: must have a header"),
        ("a.csv", "prompt_id,reward\n", (), "a.csv: holds no row"),
        ("a.json", "[]", (), "holds no row"),
        ("a.txt", LINE, (), "must be a file that ends in"),
        ("a.jsonl", LINE + '{"prompt_id": "a", "reward": "0.5"}\n', (), "line 2.*'reward' must be a number.*quotes"),
        ("a.csv", "prompt_id,reward\na,1\na,good\n", (), r"a.csv, line 3: 'reward' must be a number"),
        ("a.csv", "prompt_id,reward\na,1_0\n", (), r"line 2: 'reward' must be a number"),
        ("a.csv", "prompt_id,reward\na,inf\n", (), r"line 2: 'reward' must be finite"),
        ("a.jsonl", LINE + '{"prompt_id": "a", "reward": -Infinity}\n', (), "line 2.*'reward' must be finite"),
        ("a.jsonl", LINE + '{"prompt_id": "a", "reward": 1' + "0" * 400 + "}\n", (), "must be finite"),
        ("a.jsonl", LINE + '{"prompt_id": "a"}\n', (), "line 2.*has no 'reward', which the first row has"),
        ("a.jsonl", LINE + '{"prompt_id": null, "reward": 1}\n', (), "line 2.*has no 'prompt_id'"),
        ("a.jsonl", LINE + '{"prompt_id": 1, "reward": 1}\n', (), "line 2.*one kind in all rows"),
        ("a.jsonl", '{"prompt_id": 1.5, "reward": 1}\n', (), "line 1.*a text or a whole number"),
        ("a.jsonl", '{"prompt_id": true, "reward": 1}\n', (), "line 1.*a text or a whole number"),
        ("a.csv", "prompt_id,reward\na,1\n,1\n", (), "line 3: has no 'prompt_id'"),
        ("a.csv", "prompt_id,reward\na,1,2\n", (), "line 2: has 3 cells, and the header has 2"),
        ("a.csv", "a,a\n1,2\n", (), "line 1: the column 'a' stands there twice"),
        ("a.csv", 'prompt_id,reward\n"a,1\n', (), "is no CSV"),
        ("a.csv", b"prompt_id,reward\n\xff,1\n", (), "is no UTF-8"),
        ("a.csv", "id,value\na,1\n", (), "has no column 'reward'; columns are 'id', 'value'. Name one with --reward"),
        ("a.csv", "id,reward\na,1\n", (), "'prompt_id' or a 'prompt'; they have 'id', 'reward'.*--prompt-id"),
        ("a.csv", "prompt_id,reward\na,1\n", ("--gold", "truth"), "has no column 'truth'.*--gold"),
        ("a.csv", "prompt_id,reward,n\na,1,1.5\n", ("--length", "n"), "line 2: 'n' must be a whole number of tokens"),
        ("a.csv", "a,b\n1,2\n", ("--wide", "r*"), "no column matches 'r\\*'; columns are 'a', 'b'"),
        ("a.csv", "a,b,g\n1,2,3\n", ("--wide", "[ab]", "--gold-wide", "g"), "gives 1 rollouts of a prompt"),
        ("a.csv", "prompt_id,a\nx,1\nx,2\n", ("--wide", "a"), "line 3: the prompt 'x' has a row already"),
        ("a.jsonl", '{"r": [1, "x"]}\n', ("--wide", "r"), "line 1.*entry 1: 'r' must be a number"),
        ("a.jsonl", '{"r": [1]}\n{"r": 2}\n', ("--wide", "r"), "line 2.*'r' must be a list of numbers"),
        ("a.jsonl", "{nonsense\n", (), "a.jsonl, line 1.*is no JSON"),
        ("a.json", '{"type": "rewards.RewardTable"}', (), "a.json: is no table of rewards that to_dict wrote"),
        ("a.json", '{"type": 3}', (), "must hold a list of objects"),
        ("a.npy", b"nonsense", (), "a.npy: is no readable file of arrays"),
        ("a.npz", b"PK", (), "a.npz: is no readable file of arrays"),
    ],
)  # fmt: skip
def test_bad_tables_are_named_with_their_place(tmp_path, capsys, name, content, options, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = run(capsys, "summary", path, *options)
    assert (code, out) == (3, "")
    assert err.startswith("rankdiag: ")
    assert "Traceback" not in err
    assert re.search(message, err, flags=re.DOTALL), err


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"values": np.ones(3)}, (), "'values' is no table of rewards"),
        ({"values": np.array([[1.0, np.inf]])}, (), "contain .-inf at row 0, column 1"),
        ({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, (), "has no array 'values'; arrays are 'a', 'b'"),
        ({"values": np.ones((2, 2)), "gold": np.ones((2, 3))}, (), "must align"),
        ({"values": np.ones((2, 2)), "prompt_ids": np.array([1.5, 2.0])}, (), "prompt ids must be texts or whole"),
        ({"values": np.ones((2, 2))}, ("--wide", "v*"), "holds arrays, one row a prompt"),
        ({"values": np.array([[object()]])}, (), "is no readable file of arrays"),
    ],
)
def test_bad_arrays_are_named(tmp_path, capsys, arrays, options, message):
    np.savez(tmp_path / "a.npz", **arrays)
    code, _, err = run(capsys, "summary", tmp_path / "a.npz", *options)
    assert code == 3
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reward", "x", "--gold", "x"), "argument --reward: 'x' is the column of --gold"),
        (("--wide", "a", "--gold-wide", "a"), "argument --gold-wide: 'a' is the column of --wide"),
        (("--wide", "a", "--reward", "b"), "argument --reward: not with --wide"),
        (("--wide", "a", "--gold", "b"), "argument --gold: not with --wide"),
        (("--gold-wide", "a"), "argument --gold-wide: needs --wide"),
        (("--wide", "a", "--num-generations", "2"), "argument --num-generations: not with --wide"),
        (("--reward", "a", "--reward", "b"), "argument --reward: several only with --num-generations"),
        (("--reward-weight", "2"), "argument --reward-weight"),
        (("--meta", "policy"), "argument --meta: must be NAME=VALUE"),
        (("--fail-on", "alert"), "argument --fail-on"),
        (("--fail-on", "nothing > 1"), "argument --fail-on"),
    ],
)  # fmt: skip
def test_wrong_usage_of_summary(files, capsys, options, message):
    code, out, err = run(capsys, "summary", files / "rows.csv", *options)
    assert (code, out) == (2, "")
    assert message in err


def test_files_that_are_not_there_and_options_that_are_out_of_range(files, capsys):
    assert run(capsys, "summary", files / "none.csv")[0] == 3
    code, _, err = run(capsys, "summary", files / "rows.csv", "--group-size", 0)
    assert code == 3
    assert "`group_sizes`" in err
    code, _, err = run(capsys, "summary", files / "rows.csv", "--output", files / "rows.csv")
    assert code == 2
    assert "is an input" in err


# --- what comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [f"{name} > -1e300" for name in SAME.rule_names])
def test_every_figure_of_a_summary_is_a_gate(files, capsys, rule):
    assert run(capsys, "summary", files / "rows.csv", "--fail-on", rule)[0] == 1


def test_gates_pass_and_fail(files, capsys):
    code, _, err = run(capsys, "summary", files / "rows.csv", "--fail-on", "frac_zero_std > 0.01")
    assert code == 1
    assert "frac_zero_std" in err
    assert run(capsys, "summary", files / "rows.csv", "--fail-on", "frac_zero_std > 0.99")[0] == 0


def test_options_of_a_summary_reach_it(files, capsys):
    options = ("--tau", 0.3, "--ci", 0.9, "--bootstrap", 50, "--seed", 1, "--r-max", 2, "--margin", 0.5)
    found = read(capsys, "summary", files / "rows.csv", *options, "--group-size", 3, "--group-size", 64)
    wanted = summarize(
        MISSING, taus=(0.3,), ci=0.9, bootstrap=50, rng=1, r_max=2.0, margin=0.5, group_sizes=(3, 64)
    )  # fmt: skip
    assert found.ci_mean_var == pytest.approx(wanted.ci_mean_var)
    assert found.share_far_from_opt == wanted.share_far_from_opt
    assert (found.group_sizes, found.meta.seed) == ((3, 64), 1)
    text = run(capsys, "summary", files / "rows.csv", "--meta", "policy=base", "--meta", "temperature=0.7")[1]
    assert "policy base, temperature 0.7" in " ".join(text.split())


def test_pages_and_files_hold_every_plot(files, tmp_path, capsys):
    page, out = tmp_path / "s.html", tmp_path / "s.json"
    assert run(capsys, "summary", files / "rows.csv", "--html", page, "--output", out)[0] == 0
    summary = result_from_json(out.read_text())
    check_same(summary)
    teacher, saved = tmp_path / "t.html", tmp_path / "t.json"
    options = ("--proxy", "a=reward", "--bootstrap", 50, "--seed", 0)
    assert run(capsys, "teacher", files / "rows.csv", *options, "--html", teacher, "--output", saved)[0] == 0
    for result, text in ((summary, page.read_text()), (result_from_json(saved.read_text()), teacher.read_text())):
        plots = result.document().plots
        assert len(plots) == 3
        for plot in plots:
            assert f">{plot.title}</h" in text


# --- teacher -------------------------------------------------------------------------------------------------------


def test_proxies_of_columns_files_and_signs(files, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    rows = [{"prompt_id": row["prompt_id"], "mine": row["log_prob"]} for row in reversed(ROWS)]
    order = sorted(range(len(rows)), key=lambda i: ROWS[::-1][i]["prompt_id"])  # prompts in another order
    rollout: dict[str, list[float]] = {}
    for row in ROWS:
        rollout.setdefault(row["prompt_id"], []).append(row["log_prob"])
    seen = dict.fromkeys(rollout, 0)
    lines = []
    for i in order:
        name = rows[i]["prompt_id"]
        lines.append(json.dumps({"prompt_id": name, "mine": rollout[name][seen[name]]}))
        seen[name] += 1
    other.write_text("\n".join(lines))
    report = read(
        capsys, "teacher", files / "rows.jsonl", "--proxy", "col=reward", "--proxy", f"file={other}:mine", "--proxy",
        "minus=reward", "--negate", "minus", "--proxy", f"npz={files / 'values.npz'}", "--bootstrap", 20, "--seed", 3,
        "--by", "on_policy_accuracy",
    )  # fmt: skip
    assert isinstance(report, TeacherReport)
    found = {row.name: row for row in report.rows}
    accuracy = ranking_accuracy(MISSING, GOLD).accuracy
    assert found["col"].on_policy_accuracy == found["npz"].on_policy_accuracy == accuracy
    assert found["minus"].on_policy_accuracy == pytest.approx(1 - accuracy)
    assert found["file"].on_policy_accuracy == ranking_accuracy(LOGP, GOLD).accuracy
    values = [row.on_policy_accuracy for row in report.rows]
    assert values == sorted(values, reverse=True)
    assert report.ranked_by == "on_policy_accuracy"
    assert found["col"].ess == pytest.approx(ranking_accuracy(MISSING, GOLD, weighting="sequence", log_probs=LOGP).ess)


def test_a_gate_names_the_reward_model_that_fails(files, capsys):
    options = ("--proxy", "good=reward", "--proxy", "bad=reward", "--negate", "bad", "--bootstrap", 0)
    code, _, err = run(capsys, "teacher", files / "rows.csv", *options, "--fail-on", "on_policy_accuracy < 0.5")
    assert code == 1
    assert "--fail-on: bad: on_policy_accuracy" in err
    assert "good" not in err
    code, _, err = run(capsys, "teacher", files / "rows.csv", *options, "--fail-on", "off_policy_accuracy < 0.5")
    assert code == 3
    assert "could not be checked on any row" in err


def test_names_out_of_files_stay_text_in_the_page(tmp_path, capsys):
    hostile = "<script>alert(1)</script>"
    path, page = tmp_path / "hostile.csv", tmp_path / "page.html"
    path.write_text(f"prompt_id,{hostile}\na,0\na,1\nb,1\nb,1\n")
    assert run(capsys, "summary", path, "--reward", hostile, "--html", page)[0] == 0
    assert "<script>" not in page.read_text()
    options = ("--proxy", f"{hostile}={hostile}", "--bootstrap", 0, "--html", page)
    assert run(capsys, "teacher", path, *options)[0] == 0
    assert "<script>" not in page.read_text()


def test_a_teacher_without_gold_is_ranked_by_variance(files, capsys):
    report = read(capsys, "teacher", files / "values.npy", "--proxy", "a=values", "--bootstrap", 0)
    assert report.ranked_by == "normalised_variance"
    assert np.isnan(report.rows[0].on_policy_accuracy)


def test_offline_pairs_of_names_of_benchmarks_and_of_files_that_name_their_models(files, tmp_path, capsys):
    bench = tmp_path / "bench.jsonl"
    bench.write_text(
        "".join(
            json.dumps({"subset": s, "scores_chosen": c, "scores_rejected": r, "results": int(c > r)}) + "\n"
            for s, c, r in (("hep-go", 1.0, 0.0), ("hep-go", 1.0, 1.0), ("xstest-should-refuse", 0.0, 1.0))
        )
    )
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("b_chosen,b_rejected\n1,0\n2,1\n0,3\n")
    options = ("--proxy", "a=reward", "--proxy", "b=gold", "--bootstrap", 0)
    report = read(capsys, "teacher", files / "rows.csv", *options, "--pairs", f"a={bench}", "--pairs", pairs)
    found = {row.name: row.off_policy_accuracy for row in report.rows}
    assert found == pytest.approx({"a": 0.5, "b": 2 / 3})
    code, _, err = run(capsys, "teacher", files / "rows.csv", *options, "--pairs", f"a={pairs}")
    assert code == 3
    assert "has no scores of 'a'; it has those of 'b'" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "one of the arguments --proxy --reward-model is required"),
        (("--proxy", "reward"), 2, "argument --proxy: must be NAME=SOURCE"),
        (("--proxy", "a=reward", "--proxy", "a=gold"), 2, "argument --proxy: 'a' is there twice"),
        (("--proxy", "a=reward", "--reward-model", "a=x"), 2, "argument --reward-model: 'a' is a proxy already"),
        (("--proxy", "a=reward", "--negate", "b"), 2, "argument --negate: must be the name of a proxy"),
        (("--proxy", "a=reward", "--by", "luck"), 2, "argument --by: must be one of normalised_variance"),
        (("--proxy", "a=reward", "--bootstrap", "-1"), 2, "argument --bootstrap"),
        (("--proxy", "a=reward", "--pairs", "c=none.csv"), 2, "argument --pairs: must be NAME=FILE with a name of a"),
        (("--wide", "r?", "--reward-model", "a=x"), 2, "not with --wide"),
        (("--proxy", "a=nowhere"), 3, "neither a column nor a file 'nowhere'; columns of TABLE are 'prompt_id'"),
        (("--reward-model", "a=./no-such-folder"), 3, "no column 'prompt' or 'prompt_ids' for --reward-model"),
    ],
)
def test_wrong_usage_of_teacher(files, capsys, options, code, message):
    got, out, err = run(capsys, "teacher", files / "rows.csv", *options)
    assert (got, out) == (code, "")
    assert message in err


def test_proxies_of_other_rollouts_are_refused(files, tmp_path, capsys):
    few = tmp_path / "few.csv"
    few.write_text("prompt_id,reward\np0,1\np0,0\n")
    code, _, err = run(capsys, "teacher", files / "rows.csv", "--proxy", "a=reward", "--proxy", f"b={few}")
    assert code == 3
    assert "b: must be rewards of the same rollouts; it has no prompt 'p1'" in err
    np.savez(tmp_path / "wide.npz", values=np.ones((30, 2)), prompt_ids=np.array(IDS))
    code, _, err = run(
        capsys, "teacher", files / "rows.csv", "--proxy", "a=reward", "--proxy", f"b={tmp_path}/wide.npz"
    )
    assert code == 3
    assert "up to 2 of a prompt, and others have 4" in err
    code, _, err = run(capsys, "teacher", files / "values.npy", "--reward-model", "a=./x")
    assert code == 3
    assert "holds rewards alone; --reward-model needs rows" in err


def test_a_cut_distribution_is_a_caution_in_the_report(files, capsys):
    code, out, _ = run(
        capsys, "teacher", files / "rows.csv", "--proxy", "a=reward", "--bootstrap", 0, "--meta", "top_k=50",
        "--policy", "base",
    )  # fmt: skip
    assert code == 0
    assert "Warning: The rollouts were drawn with top_k 50" in out
    assert "Reward models as teachers of base" in out


def test_the_published_check_values_of_the_solvers(capsys):
    path = reward_data("gsm8k_four_solvers_rewards.csv")
    if path is None:
        pytest.skip("the table of four solvers lies beside the repository, not in it")
    found = read(capsys, "summary", path, "--wide", "correct_*")
    figures = {
        "frac_all_min": 0.3275, "frac_all_max": 0.1183, "frac_zero_std": 0.4458, "rms_std": 0.3917, "mean_std": 0.2909,
        "normalised_variance": 0.6517,
    }  # fmt: skip
    assert {name: round(getattr(found, name), 4) for name in figures} == figures
    assert (round(found.mean_var, 5), round(found.se_mean_var, 5)) == (0.15346, 0.00387)
    curve = {k: round(mean, 4) for k, mean, *_ in found.zero_std_curve}
    assert curve == {1.0: 1.0, 2.0: 0.6931, 3.0: 0.5396, 4.0: 0.4458}
    report = read(
        capsys, "teacher", path, "--gold-wide", "correct_*", "--proxy", "brevity=chars_*", "--negate", "brevity",
        "--bootstrap", 0,
    )  # fmt: skip
    row = report.rows[0]
    assert (round(row.on_policy_accuracy, 4), round(row.harm_aware_accuracy, 4)) == (0.4599, 0.5494)


# --- real reward models --------------------------------------------------------------------------------------------

TEXTS = [
    {"prompt": f"What is {a} plus {b}?", "response": f" It is {a + b + miss}.", "gold": float(miss == 0)}
    for a, b in ((1, 2), (3, 4), (5, 9), (8, 8), (7, 30))
    for miss in (0, 1, 2)
]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification
    from transformers.utils import logging

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        id2label={0: "reward"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(config)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()
    return folder


def by_hand(folder: Path, texts: list[tuple[str, str]]) -> list[float]:
    """Head on the last token of each text, one text at a time, through transformers alone."""
    import torch
    from transformers import AutoTokenizer, LlamaForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    logging.enable_progress_bar()
    found = []
    for prompt, response in texts:
        ids = torch.tensor([[*tokenizer(prompt + response).input_ids]])
        if ids[0, -1] != tokenizer.eos_token_id:
            ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
        with torch.no_grad():
            found.append(float(model.score(model.model(ids).last_hidden_state[0, -1])))
    return found


@pytest.mark.slow
def test_a_real_classifier_scores_rows_and_pairs(classifier, tmp_path, capsys):
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TEXTS[::2] + TEXTS[1::2]))
    pairs = tmp_path / "pairs.jsonl"
    offline = [
        {"prompt": f"What is {a} plus {a}?", "chosen": f" {a + a}.", "rejected": f" {a}{a}."} for a in range(2, 8)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in offline))
    report = read(
        capsys, "teacher", path, "--reward-model", f"rm={classifier}", "--proxy", "gold=gold", "--pairs", f"rm={pairs}",
        "--bootstrap", 0, "--quiet",
    )  # fmt: skip
    row = next(row for row in report.rows if row.name == "rm")
    rows = TEXTS[::2] + TEXTS[1::2]
    scores = by_hand(classifier, [(r["prompt"], r["response"]) for r in rows])
    table = RewardTable.from_records([{**r, "reward": s} for r, s in zip(rows, scores, strict=True)])
    assert row.pooled_mean == pytest.approx(float(np.nanmean(table.values)), abs=1e-5)
    assert row.normalised_variance == pytest.approx(summarize(table).normalised_variance, rel=1e-3)
    assert row.on_policy_accuracy == pytest.approx(ranking_accuracy(table).accuracy)
    chosen = by_hand(classifier, [(r["prompt"], r["chosen"]) for r in offline])
    rejected = by_hand(classifier, [(r["prompt"], r["rejected"]) for r in offline])
    assert row.off_policy_accuracy == pytest.approx(np.mean(np.array(chosen) > np.array(rejected)))


@pytest.mark.slow
def test_token_ids_need_no_tokenizer_and_bad_rows_are_named(classifier, tmp_path, capsys):
    path = tmp_path / "ids.jsonl"
    rows = [{"prompt_id": "a", "prompt_ids": [1, 5], "response_ids": [7 + i, 2]} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (classifier / "tokenizer.json").rename(tmp_path / "kept")
    try:
        report = read(capsys, "teacher", path, "--reward-model", f"rm={classifier}", "--bootstrap", 0, "--quiet")
    finally:
        (tmp_path / "kept").rename(classifier / "tokenizer.json")
    assert report.rows[0].normalised_variance == pytest.approx(1.0)  # one prompt: all spread is within it
    rows[2]["prompt_ids"] = [1, 6]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run(capsys, "teacher", path, "--reward-model", f"rm={classifier}")
    assert code == 3
    assert "line 3" in err
    assert "differs from that of an earlier row of the prompt 'a'" in err


@pytest.mark.slow
def test_scores_of_a_reward_model_may_be_given_and_unusable_rows_are_said(classifier, tmp_path, capsys):
    path = tmp_path / "rollouts.jsonl"
    rows = [*TEXTS, {"prompt": "Say nothing.", "response": "", "gold": 0.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores, bench = tmp_path / "scores.csv", tmp_path / "bench.json"
    scores.write_text("chosen,rejected\n1,0\n0,1\n1,0\n")
    made = {"subset": "hep-go", "scores_chosen": 1.0, "scores_rejected": 0.0, "results": 1}
    bench.write_text(json.dumps(made) + "\n" + json.dumps(made))
    for file, accuracy in ((scores, 2 / 3), (bench, 1.0)):
        code, out, err = run(
            capsys, "teacher", path, "--reward-model", f"rm={classifier}", "--pairs", f"rm={file}", "--bootstrap", 0,
            "--json",
        )  # fmt: skip
        assert code == 0
        assert "rankdiag: rm could not score 1 of 6 prompts" in err
        assert result_from_json(out).rows[0].off_policy_accuracy == pytest.approx(accuracy)
    code, _, err = run(capsys, "teacher", path, "--reward-model", f"rm={classifier}", "--response", "answer")
    assert code == 3
    assert "TABLE has no column 'answer' for --reward-model" in err


@pytest.mark.slow
def test_the_script_itself(files):
    command = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "rankdiag"]
    done = subprocess.run(
        [*command, "rewards", "summary", str(files / "rows.csv"), "--fail-on", "frac_zero_std > 2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Rewards of 30 prompts")


@pytest.mark.slow
def test_a_reward_model_stands_for_the_column_of_rewards(classifier, tmp_path, capsys):
    path = tmp_path / "rollouts.jsonl"
    rows = TEXTS[::2] + TEXTS[1::2]  # rows of a prompt need not stand together
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = by_hand(classifier, [(r["prompt"], r["response"]) for r in rows])
    table = RewardTable.from_records([{**r, "reward": s} for r, s in zip(rows, scores, strict=True)])
    summary = read(capsys, "summary", path, "--reward-model", classifier, "--quiet")
    assert summary.rms_std == pytest.approx(summarize(table).rms_std, rel=1e-3)
    assert (summary.n_prompts, summary.k_min, summary.k_max) == (5, 3, 3)
    assert summary.meta.details["reward"] == classifier.name
    errors = read(capsys, "errors", path, "--reward-model", classifier, "--quiet")
    assert errors.accuracy == pytest.approx(ranking_accuracy(table).accuracy)
    assert errors.harm_aware_accuracy == pytest.approx(ranking_accuracy(table, harm_aware=True).accuracy)
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({k: r[k] for k in ("prompt", "response")}) + "\n" for r in rows))
    alone = read(capsys, "summary", bare, "--reward-model", classifier, "--quiet")
    assert alone.rms_std == pytest.approx(summary.rms_std, rel=1e-6)
    code, _, err = run(capsys, "errors", bare, "--reward-model", classifier)
    assert code == 3
    assert "has no true reward; name its column with --gold" in err


@pytest.mark.parametrize("command", ["summary", "errors"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reward-model", "x", "--reward", "r"), "argument --reward-model: not with --reward"),
        (("--reward-model", "x", "--negate"), "argument --reward-model: not with --negate"),
        (("--reward-model", "x", "--wide", "r?"), "argument --reward-model: not with --wide"),
        (("--reward-model", "x", "--num-generations", "2"), "argument --reward-model: not with --num-generations"),
        (("--label", "0"), "argument --label: needs --reward-model"),
        (("--max-length", "9"), "argument --max-length: needs --reward-model"),
    ],
)
def test_a_reward_model_excludes_columns_of_rewards(files, capsys, command, words, said):
    code, _, err = run(capsys, command, files / "values.npy", *words)
    assert code == 2
    assert said in err

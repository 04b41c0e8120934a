"""``rankdiag rewards implicit``: checkpoints on disk, score files of every kind, exit codes, gates, round trips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rankdiag as rd
from oracles.html_page import Page
from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag.cli import main
from rankdiag.rewards import generalisation_report, pair_report

PAIRS = [
    {"prompt": f"What is {a} plus {b}?", "chosen": f" It is {a + b}.", "rejected": f" {a}{b}, I believe, or so."}
    for a, b in ((1, 2), (3, 4), (5, 9), (8, 8), (7, 30), (21, 2))
] + [{"prompt": "Say it twice.", "chosen": " Twice.", "rejected": " Twice."}]
REWORDED = [{**pair, "chosen": pair["chosen"].replace("It is", "That makes")} for pair in PAIRS]
ELSEWHERE = [{"prompt": "Is it day?", "chosen": " Yes, it is.", "rejected": " No."},
             {"prompt": "Is it night?", "chosen": " No, it is not.", "rejected": " Yes."}]  # fmt: skip
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}  # fmt: skip


def save(folder: Path, kind: str, seed: int) -> None:
    import transformers
    from transformers.utils import logging

    tokenizer = tiny_tokenizer()
    labels = {"num_labels": 1} if kind.endswith("Classification") else {}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), **SIZES, **labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, kind)(config)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("implicit")
    for name, rows in (("home", PAIRS), ("french", REWORDED), ("math", ELSEWHERE)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rng = np.random.default_rng(0)
    long, wide = [], []
    for dataset, group, count in (("id", "in_distribution", 40), ("fr", "token_shift", 40), ("far", "domain_shift", 9)):
        for _ in range(count):
            row = {"dataset": dataset, "group": group}
            scores = {"ex": rng.normal((1.5, 0.0)), "im": rng.normal((0.3, 0.0))}
            wide.append({**row, **{f"{m}_{side}": float(v) for m, both in scores.items()
                                   for side, v in zip(("chosen", "rejected"), both, strict=True)}})  # fmt: skip
            long += [{**row, "model": m, "chosen": float(v[0]), "rejected": float(v[1])} for m, v in scores.items()]
    for name, rows in (("long", long), ("wide", wide)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = list(wide[0])
    text = "\n".join([",".join(names), *(",".join(str(row[n]) for n in names) for row in wide), ""])
    (root / "wide.csv").write_text(text)
    (root / "wide.json").write_text(json.dumps(wide))
    (root / "plain.csv").write_text("chosen,rejected\n2,1\n1,1\n0.5,\n3,4\n")
    (root / "other.csv").write_text("chosen,rejected\n2,1\n1,0\n1,0\n3,2\n")
    (root / "bad.csv").write_text("chosen,rejected\n2,high\n")
    (root / "odd.csv").write_text("good,bad\n2,1\n")
    (root / "group.csv").write_text("chosen,rejected,dataset,group\n2,1,a,elsewhere\n")
    (root / "two.csv").write_text("chosen,rejected,dataset\n2,1,a\n1,2,b\n")
    (root / "empty.jsonl").write_text("")
    v1 = [{"subset": s, "scores_chosen": c, "scores_rejected": r, "results": int(c > r)}
          for s, c, r in (("hep-go", 1.0, 1.0), ("hep-go", 2.0, 0.0), ("math-prm", [0.5], [0.7]))]  # fmt: skip
    (root / "bench1.json").write_text("\n".join(map(json.dumps, v1)))
    v2 = {
        "id": ["0", "1"],
        "subset": ["Focus", "Math"],
        "scores": [[2.0, 1.0, 2.5, 0.0], [3.0, 1.0]],
        "num_correct": [1, 1],
    }
    (root / "bench2.json").write_text(json.dumps(v2))
    return root


@pytest.fixture(scope="module")
def models(folder: Path) -> Path:
    for name, kind, seed in (("policy", "LlamaForCausalLM", 1), ("reference", "LlamaForCausalLM", 0),
                             ("classifier", "LlamaForSequenceClassification", 2)):  # fmt: skip
        save(folder / name, kind, seed)
    return folder


def call(folder: Path, line: str, *more: str) -> int:
    """Run a command line in this process; words, and what follows a = in them, become paths if they name something."""
    words = []
    for word in line.split():
        name, sign, path = word.rpartition("=")
        words.append(f"{name}{sign}{folder / path}" if (folder / path).exists() else word)
    return main(["rewards", "implicit", *words, *more])


def result(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert err == ""
    return rd.result_from_json(out)


# --- scores that exist ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long.jsonl", "wide.jsonl", "wide.csv", "wide.json"])
def test_scores_of_every_layout_give_the_report_of_the_python_call(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (folder / "wide.jsonl").read_text().splitlines()]
    sides = ("chosen", "rejected")
    scores = {m: {d: tuple([row[f"{m}_{side}"] for row in rows if row["dataset"] == d] for side in sides)
                  for d in ("id", "fr", "far")} for m in ("ex", "im")}  # fmt: skip
    groups = {"id": "in_distribution", "fr": "token_shift", "far": "domain_shift"}
    assert call(folder, f"--rewards {name} --seed 7 --bootstrap 200 --json") == 0
    report = result(capsys)
    assert report == generalisation_report(scores, groups, bootstrap=200, rng=7)
    chosen, rejected = (np.array(v) for v in scores["im"]["fr"])
    cell = next(row for row in report.rows if (row.model, row.dataset) == ("im", "fr"))
    assert cell.accuracy == (chosen > rejected).mean()
    home = (np.array(scores["im"]["id"][0]) > np.array(scores["im"]["id"][1])).mean()
    assert cell.gap == pytest.approx(home - cell.accuracy)


def test_one_model_on_one_dataset_is_a_short_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "--rewards plain.csv --json") == 0
    report = result(capsys)
    assert report == pair_report([2, 1, 0.5, 3], [1, 1, float("nan"), 4])
    assert report.accuracy == 0.5
    assert call(folder, "--rewards plain.csv", "--fail-on", "accuracy < 0.6") == 1
    assert capsys.readouterr().err == "rankdiag: --fail-on: accuracy 0.5 < 0.6\n"
    assert call(folder, "--rewards plain.csv", "--fail-on", "lower > 0.4") == 0


def test_two_files_of_one_dataset_are_two_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "--rewards ex=other.csv --rewards plain.csv --json --seed 0") == 0
    report = result(capsys)
    assert [(row.model, row.dataset, row.group) for row in report.rows] == [
        ("ex", "pairs", "in_distribution"), ("plain", "pairs", "in_distribution"),
    ]  # fmt: skip
    (difference,) = report.differences
    assert (difference.n, difference.first_only, difference.second_only) == (3, 2, 0)


def test_files_of_rewardbench_are_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rankdiag.adapters import from_rewardbench

    assert call(folder, "--rewards rm=bench1.json --in-distribution hep-go --domain-shift math-prm --json") == 0
    report = result(capsys)
    assert report.column("dataset") == ["hep-go", "math-prm"]
    assert (
        report.column("accuracy") == [row.accuracy for row in from_rewardbench(folder / "bench1.json")] == [0.75, 0.0]
    )
    assert report.column("gap") == [0.0, 0.75]
    assert call(folder, "--rewards bench2.json --json") == 0
    out, err = capsys.readouterr()
    assert err == "rankdiag: no groups are given, so all datasets count as in distribution\n"
    report = rd.result_from_json(out)
    assert report.column("accuracy") == [row.accuracy for row in from_rewardbench(folder / "bench2.json")] == [0.0, 1.0]


def test_gates_on_real_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "--rewards wide.csv --seed 0", "--fail-on", "gap > 0.99", "--fail-on", "accuracy < 0.01") == 0
    assert call(folder, "--rewards wide.csv --seed 0", "--fail-on", "accuracy < 0.8") == 1
    assert "rankdiag: --fail-on: im on fr: accuracy" in capsys.readouterr().err
    assert call(folder, "--rewards wide.csv --seed 0", "--fail-on", "flip_rate > 0.999") == 0
    assert "4 rows have no flip_rate" in capsys.readouterr().err


def test_a_page_shows_accuracies_and_margins(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert call(folder, "--rewards wide.csv --output", str(tmp_path / "a.csv"), "--html", str(page)) == 0
    assert (tmp_path / "a.csv").read_text().startswith("model,dataset,group,n,accuracy,lower,upper")
    parsed = Page(page.read_text())
    assert parsed.problems == []
    for words in ("Accuracy, and its interval at 95 %", "Normalised margin", "ex has accuracy"):
        assert words in page.read_text()


# --- scores of models ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(models: Path) -> Any:
    """Tokenizer, policy, reference and classifier, as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    found = (
        AutoTokenizer.from_pretrained(models / "policy"),
        *(AutoModelForCausalLM.from_pretrained(models / name).eval() for name in ("policy", "reference")),
        AutoModelForSequenceClassification.from_pretrained(models / "classifier").eval(),
    )
    if shown:
        logging.enable_progress_bar()
    return found


def by_hand(loaded: Any, rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Explicit and implicit rewards (N, 2), one row at a time, by transformers' own forwards without padding."""
    tokenizer, policy, reference, classifier = loaded
    explicit, implicit = [], []
    for row in rows:
        for side in ("chosen", "rejected"):
            start = len(tokenizer(row["prompt"])["input_ids"])
            ids = torch.tensor([[*tokenizer(row["prompt"] + row[side])["input_ids"], tokenizer.eos_token_id]])
            with torch.no_grad():
                states = classifier.model(input_ids=ids).last_hidden_state[0, -1]
                explicit.append(float(classifier.score(states)[0]))
                logps = []
                for model in (policy, reference):
                    table = model(input_ids=ids).logits[0].double().log_softmax(-1)
                    logps.append(sum(float(table[t - 1, ids[0, t]]) for t in range(start, ids.shape[1])))
            implicit.append(0.1 * (logps[0] - logps[1]))
    return np.array(explicit).reshape(-1, 2), np.array(implicit).reshape(-1, 2)


def test_models_give_the_rewards_of_plain_forwards(
    models: Path, loaded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "--policy policy --reference reference --beta 0.1 --explicit ex=classifier --seed 0 --json"
    assert (
        call(models, f"{line} --in-distribution home.jsonl --token-shift fr=french.jsonl --domain-shift math.jsonl")
        == 0
    )
    report = result(capsys)
    assert [(r.model, r.dataset, r.n) for r in report.rows][:4] == [
        ("implicit", "home", 6), ("implicit", "fr", 6), ("implicit", "math", 2), ("ex", "home", 6),
    ]  # fmt: skip
    for name, rows in (("home", PAIRS[:6]), ("fr", REWORDED[:6]), ("math", ELSEWHERE)):
        for model, table in zip(("ex", "implicit"), by_hand(loaded, rows), strict=True):
            cell = next(r for r in report.rows if (r.model, r.dataset) == (model, name))
            expected = pair_report(table[:, 0], table[:, 1])
            assert cell.accuracy == expected.accuracy
            assert cell.normalised_margin == pytest.approx(expected.normalised_margin, rel=1e-4)
    assert report.meta.skipped["pairs of implicit on home"] == "1 of 7 hold a NaN"
    assert {d.dataset for d in report.differences} == {"home", "fr", "math"}


def test_one_model_and_one_dataset(models: Path, loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(models, "--explicit classifier --domain-shift math.jsonl --json") == 0
    report = result(capsys)
    table, _ = by_hand(loaded, ELSEWHERE)
    assert report.mean_chosen == pytest.approx(table[:, 0].mean(), rel=1e-4)
    assert call(models, "--policy policy --in-distribution math.jsonl --json") == 0
    assert result(capsys).mean_chosen < 0  # without a reference it is ln pi


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft under transformers 5.24
def test_an_adapter_is_the_policy(models: Path, loaded: Any, tmp_path: Path, capsys: Any) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    tokenizer, _, reference, classifier = loaded
    base = AutoModelForCausalLM.from_pretrained(models / "reference").eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        chosen = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        tuned = peft.get_peft_model(base, chosen)
    tuned.save_pretrained(tmp_path / "adapter")
    capsys.readouterr()
    line = "--policy reference --reference reference --beta 0.1 --in-distribution math.jsonl --json"
    assert call(models, line, "--adapter", str(tmp_path / "adapter")) == 0
    report = rd.result_from_json(capsys.readouterr().out)
    _, table = by_hand((tokenizer, tuned.eval(), reference, classifier), ELSEWHERE)
    assert report.mean_chosen == pytest.approx(table[:, 0].mean(), rel=1e-3)
    assert report.mean_rejected == pytest.approx(table[:, 1].mean(), rel=1e-3)
    assert abs(report.mean_chosen) > 1e-3  # without the adapter both models are one, and every reward is 0


def test_the_mean_over_tokens_is_another_reward(models: Path, loaded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer, _, _, classifier = loaded
    assert call(models, "--explicit classifier --pool mean --label 0 --domain-shift math.jsonl --json") == 0
    report = result(capsys)
    found = []
    for row in ELSEWHERE:
        start = len(tokenizer(row["prompt"])["input_ids"])
        ids = torch.tensor([[*tokenizer(row["prompt"] + row["chosen"])["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            states = classifier.model(input_ids=ids).last_hidden_state[0, start:]
            found.append(float(classifier.score(states)[:, 0].mean()))
    assert report.mean_chosen == pytest.approx(np.mean(found), rel=1e-4)


def test_scores_in_parquet_are_those_of_the_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [json.loads(line) for line in (folder / "long.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "long.parquet")
    reports = []
    for name in ("long.parquet", "long.jsonl"):
        assert call(folder, f"--rewards {name} --seed 7 --bootstrap 50 --json") == 0
        reports.append(result(capsys))
    assert reports[0] == reports[1]


def test_a_checkpoint_without_its_head_is_refused(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(models, "--explicit policy --in-distribution home.jsonl") == 3
    assert "score.weight, which would be drawn at random" in capsys.readouterr().err


def test_a_missing_extra_is_four(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("transformers", "transformers.utils", "transformers.utils.logging"):
        monkeypatch.setitem(sys.modules, name, None)
    assert call(models, "--policy policy --in-distribution home.jsonl") == 4
    assert "rankdiag[hf]" in capsys.readouterr().err
    assert call(models, "--rewards plain.csv") == 0


# --- what cannot work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("", 2, "one of --policy, --explicit and --rewards"),
        ("--policy policy", 2, "a dataset is needed"),
        ("--policy policy --token-shift home.jsonl --domain-shift math.jsonl", 2, "--in-distribution: is needed"),
        ("--explicit classifier --in-distribution home.jsonl --reference r", 2, "--reference: needs --policy"),
        ("--explicit classifier --in-distribution home.jsonl --adapter r", 2, "--adapter: needs --policy"),
        ("--policy policy --in-distribution home.jsonl --label 1", 2, "--label: needs --explicit"),
        ("--policy policy --in-distribution home.jsonl --beta 0", 2, "--beta: must be > 0"),
        ("--policy p --policy q --policy x/p --in-distribution home.jsonl", 2, "two models are named 'p'"),
        ("--policy p --in-distribution home.jsonl --token-shift home.jsonl", 2, "named 'home' is there already"),
        ("--policy p --in-distribution home.jsonl --original fr", 2, "--original: must be NAME=NAME"),
        ("--policy p --in-distribution home.jsonl --original fr=home", 2, "--original: must name datasets"),
        ("--policy p --in-distribution home.jsonl --fail-on gap>0.1", 2, "gap"),
        ("--policy p --in-distribution home.jsonl --fail-on alert", 2, "no source sets a bound"),
        ("--policy p --in-distribution home.jsonl --output home.jsonl", 2, "is an input"),
        ("--rewards wide.csv --policy p", 2, "--policy: not with --rewards"),
        ("--rewards wide.csv --beta 2", 2, "--beta: not with --rewards"),
        ("--rewards two.csv --in-distribution c", 2, "must be a dataset of --rewards, 'a', 'b'"),
        ("--rewards two.csv --in-distribution a --token-shift a", 2, "in another group too"),
        ("--rewards two.csv --in-distribution a", 2, "datasets without a group: 'b'"),
        ("--rewards wide.csv --fail-on nothing<1", 2, "nothing"),
        ("--rewards none.csv", 3, "there is no file"),
        ("--rewards odd.csv", 3, "columns are 'good', 'bad'"),
        ("--rewards bad.csv", 3, "bad.csv, line 2: 'rejected' must be a score; got 'high'"),
        ("--rewards home.jsonl", 3, "'chosen' must be a score; got ' It is 3.'. Texts of pairs need a model"),
        ("--rewards group.csv", 3, "'group' of 'a' must be one of"),
        ("--rewards empty.jsonl", 3, "holds no row"),
        ("--rewards plain.csv --rewards plain.csv", 3, "stand in another file too"),
        (
            "--rewards a=two.csv --rewards b=plain.csv --in-distribution a --domain-shift b --token-shift pairs",
            3,
            "'a'",
        ),
        ("--policy ./none --in-distribution home.jsonl", 3, "`path` must be a folder that exists"),
        ("--policy policy --in-distribution none.jsonl", 3, "none.jsonl"),
    ],
)
def test_every_refusal_is_an_exit_code_and_one_line(
    folder: Path, line: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, line) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert code == 2 or err.count("\n") == 1

"""``rankdiag preference``: real checkpoints and files, exit codes, hostile rows; the script itself in a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rankdiag as rd
from oracles.chromium import PROGRAM, Browser
from oracles.tiny_tokenizer import tiny_tokenizer
from rankdiag.cli import main

SCRIPT = Path(sysconfig.get_path("scripts")) / "rankdiag"
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>\x1b[31m"&\u202e'
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"What is {a} plus {b}?", "chosen": f" It is {a + b}.", "rejected": f" {a}{b}, I believe, or so."}
    for a, b in ((1, 2), (3, 4), (5, 9), (8, 8), (7, 30), (21, 2), (40, 1), (6, 5))
] + [
    {"prompt": "Say it twice.", "chosen": " Twice.", "rejected": " Twice."},
    {"prompt": "Say nothing.", "chosen": "", "rejected": " Nothing."},
    {"prompt": HOSTILE, "chosen": f" {HOSTILE} yes", "rejected": f" {HOSTILE} no"},
]
UNUSABLE = {8, 9}


def save(folder: Path, seed: int) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

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
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if shown:
        logging.enable_progress_bar()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("preference")
    save(root / "before", 0)
    save(root / "after", 1)
    text = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    (root / "pairs.jsonl").write_text(text, encoding="utf-8")
    (root / "pairs.json").write_text(json.dumps(PAIRS), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def scored(folder: Path) -> Path:
    target = folder / "scores.json"
    assert call(folder, "score before pairs.jsonl --head-score --output scores.json") == 0
    return target


def call(folder: Path, line: str, *more: str) -> int:
    """Run a command line in this process; words that name something in the folder become paths."""
    words = [
        str(folder / word) if (folder / word).exists() or word.endswith(".json") else word for word in line.split()
    ]
    return main(["preference", *words, *more])


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# --- score ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_python_call(folder: Path, scored: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rankdiag.language_models import encode_preferences
    from rankdiag.preference import score_preferences

    model = AutoModelForCausalLM.from_pretrained(folder / "before").eval()
    data = encode_preferences(PAIRS, AutoTokenizer.from_pretrained(folder / "before"))
    expected = score_preferences(model, data, head_score=True)
    found = rd.result_from_json(scored.read_text(encoding="utf-8"))
    assert found.columns == expected.columns
    assert found.status == expected.status == ("ok",) * 8 + ("identical", "empty_chosen", "ok")
    for name in expected.columns:
        np.testing.assert_allclose(found.column(name), expected.column(name), rtol=1e-12, err_msg=name)
    assert found.data_fingerprint == data.fingerprint


@pytest.mark.parametrize("source", ["pairs.json", "pairs.parquet", "dataset", "splits"])
def test_every_kind_of_data_gives_the_same_rows(folder: Path, source: str, tmp_path: Path) -> None:
    options = []
    if source == "pairs.parquet":
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").Table.from_pylist(PAIRS), folder / source
        )
    elif source in {"dataset", "splits"}:
        datasets = pytest.importorskip("datasets")
        bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        table = datasets.Dataset.from_list(PAIRS)
        if source == "splits":
            table, options = datasets.DatasetDict(train=table, test=table.select([0])), ["--split", "train"]
        table.save_to_disk(folder / source)
        if not bars:
            datasets.enable_progress_bars()
    assert call(folder, f"score before {source}", "--output", str(tmp_path / "a.jsonl"), *options) == 0
    assert call(folder, "score before pairs.jsonl", "--output", str(tmp_path / "b.jsonl")) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len(lines(tmp_path / "a.jsonl")) == len(PAIRS)


def test_the_terminal_shows_the_answer_and_no_words_of_pairs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, "score before pairs.jsonl", "--html", str(tmp_path / "page.html")) == 0
    out, err = capsys.readouterr()
    assert "CHES ranks 9 usable pairs" in " ".join(out.split())
    assert "owned" not in out
    assert "plus" not in out
    assert err == ""


def test_a_page_shows_the_worst_pairs_with_their_words_and_tokens_escaped(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert call(folder, "score before pairs.jsonl --worst 99 --head-score", "--html", str(target)) == 0
    page = target.read_text(encoding="utf-8")
    assert page.count("Pair ") >= 9
    assert "What is 40 plus 1?" in page
    assert "pushed down most" in page
    assert "&lt;script&gt;document.title" in page
    for live in ("<script", "<img", "\x1b", "\u202e"):
        assert live not in page
    assert call(folder, "score before pairs.jsonl --worst 0", "--html", str(target)) == 0
    assert "What is 40 plus 1?" not in target.read_text(encoding="utf-8")


def test_words_are_found_under_other_names_and_without_a_prompt(folder: Path, tmp_path: Path) -> None:
    renamed = [{"q": p["prompt"], "good": p["chosen"], "bad": p["rejected"]} for p in PAIRS[:4]]
    (tmp_path / "renamed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    whole = [{"chosen": p["prompt"] + p["chosen"], "rejected": p["prompt"] + p["rejected"]} for p in PAIRS[:4]]
    (tmp_path / "whole.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole))
    chats = [
        {
            "prompt": "told twice",
            "chosen": turns(p["prompt"], p["chosen"]),
            "rejected": turns(p["prompt"], p["rejected"]),
        }
        for p in PAIRS[:4]
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    target = tmp_path / "page.html"
    for name, more in (("renamed", ["--columns", "prompt=q,chosen=good,rejected=bad"]), ("whole", []), ("chats", [])):
        words = ["preference", "score", str(folder / "before"), str(tmp_path / f"{name}.jsonl"), "--html", str(target)]
        assert main([*words, *more]) == 0
        page = target.read_text(encoding="utf-8")
        assert "What is 3 plus 4?" in page, name
        assert "told twice" not in page


@pytest.mark.parametrize("level", ["ches", "head", "ufm", "full"])
def test_levels(folder: Path, tmp_path: Path, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "level.json"
    assert call(folder, f"score before pairs.jsonl --level {level}", "--output", str(target)) == 0
    result = rd.result_from_json(target.read_text())
    assert result.level == level
    assert np.isfinite(result.score).tolist() == [i not in UNUSABLE for i in range(len(PAIRS))]
    out = tmp_path / "kept.jsonl"
    words = ["preference", "filter", str(folder / "pairs.jsonl"), "--scores", str(target), "--by", "score", "-n", "3"]
    assert main([*words, "--output", str(out)]) == 0
    best = np.argsort(np.where([i in UNUSABLE for i in range(len(PAIRS))], np.inf, result.score), kind="stable")[:3]
    kept = [{k: v for k, v in row.items() if not k.startswith("rankdiag")} for row in lines(out)]
    assert kept == [PAIRS[i] for i in sorted(best)]


def test_a_journal_goes_on_and_is_read_by_the_filter(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for _ in range(2):
        words = ["--journal", str(journal), "--output", str(tmp_path / "out.jsonl")]
        assert call(folder, "score before pairs.jsonl", *words) == 0
    rows = lines(tmp_path / "out.jsonl")
    assert [row["key"] for row in rows] == [str(i) for i in range(len(PAIRS))]
    part = journal / "part-r000-00000.jsonl"
    part.write_text("\n".join(part.read_text().splitlines()[:3]) + "\n")  # as if killed
    for path in journal.glob("scores*"):
        path.unlink()
    assert call(folder, "score before pairs.jsonl", *words) == 0
    assert lines(tmp_path / "out.jsonl") == rows
    words = ["preference", "filter", str(folder / "pairs.jsonl"), "--scores", str(journal), "-n", "2"]
    assert main([*words, "--output", str(tmp_path / "kept.jsonl")]) == 0
    assert len(lines(tmp_path / "kept.jsonl")) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail-on", "alert"], "no source sets a bound"),
        (["--fail-on", "head > 0"], "--head-score"),
        (["--fail-on", "head_positive_fraction >= 0"], "--head-score"),
        (["--fail-on", "chosen_logp < -10"], "--logps"),
        (["--fail-on", "cond > 100"], "--column cond"),
        (["--fail-on", "ln_ches > inf"], "finite number"),
        (["--worst", "-1"], "--worst"),
        (["--output", "out.xyz"], "must end in"),
        (["--output", "pairs.jsonl"], "is an input"),
        (["--html", "pairs.jsonl"], "is an input"),
        (["--html", "before"], "is a folder"),
        (["--output", "same.json", "--html", "./same.json"], "what --output writes"),
    ],
)
def test_what_cannot_work_is_wrong_usage_before_any_work(
    folder: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "pairs.jsonl").read_bytes()
    assert main(["preference", "score", "before", "pairs.jsonl", *words]) == 2
    assert said in capsys.readouterr().err
    assert (folder / "pairs.jsonl").read_bytes() == before


def test_filter_never_writes_over_what_it_reads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_bytes((folder / "pairs.jsonl").read_bytes())
    assert call(folder, "score before pairs.jsonl", "--output", str(tmp_path / "scores.json")) == 0
    monkeypatch.chdir(tmp_path)
    before = pairs.read_bytes(), (tmp_path / "scores.json").read_bytes()
    common = ["preference", "filter", "pairs.jsonl", "--scores", "scores.json", "-n", "3"]
    for words in (
        ["--output", "pairs.jsonl"],
        ["--output", str(pairs)],
        ["--output", "kept.jsonl", "--removed", "./pairs.jsonl"],
        ["--output", "kept.jsonl", "--removed", "kept.jsonl"],
    ):
        assert main([*common, *words]) == 2
        assert "take another name" in capsys.readouterr().err
    assert (pairs.read_bytes(), (tmp_path / "scores.json").read_bytes()) == before
    assert not (tmp_path / "kept.jsonl").exists()


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet", "journal"])
def test_scores_of_any_form_know_their_records(folder: Path, tmp_path: Path, form: str, capsys: Any) -> None:
    target = tmp_path / f"scores.{form}"
    words = ["--journal", str(target)] if form == "journal" else ["--output", str(target)]
    assert call(folder, "score before pairs.jsonl", *words) == 0
    rows = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("".join(rows[::-1]), encoding="utf-8")
    common = ["--scores", str(target), "-n", "2", "--output", str(tmp_path / "kept.jsonl")]
    assert main(["preference", "filter", str(folder / "pairs.jsonl"), *common]) == 0
    assert "do not say which records" not in capsys.readouterr().err
    (tmp_path / "kept.jsonl").unlink()
    assert main(["preference", "filter", str(shuffled), *common]) == 3
    assert "scores` must be those of this dataset" in capsys.readouterr().err
    assert not (tmp_path / "kept.jsonl").exists()


def test_rows_without_their_manifest_are_compared_by_keys_with_a_word(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    target = tmp_path / "scores.jsonl"
    assert call(folder, "score before pairs.jsonl", "--output", str(target)) == 0
    assert "can be used; wrote" in capsys.readouterr().err
    (tmp_path / "scores.jsonl.manifest.json").unlink()
    words = ["--scores", str(target), "-n", "2", "--output", str(tmp_path / "kept.jsonl")]
    assert main(["preference", "filter", str(folder / "pairs.jsonl"), *words]) == 0
    assert "do not say which records" in capsys.readouterr().err


def test_a_checkpoint_without_all_weights_is_refused(folder: Path, tmp_path: Path, capsys: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(folder / "before", broken)
    tensors = load_file(broken / "model.safetensors")
    name = next(name for name in tensors if name.endswith("up_proj.weight"))
    del tensors[name]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    assert main(["preference", "score", str(broken), str(folder / "pairs.jsonl")]) == 3
    assert f"lacks {name}" in capsys.readouterr().err


def test_the_trained_model_is_looked_for_before_the_initial_one_is_run(folder: Path, capsys: Any) -> None:
    assert call(folder, "displacement before ./nowhere pairs.jsonl") == 3
    assert "nowhere" in capsys.readouterr().err


def test_the_spelling_of_a_path_does_not_stop_a_journal(folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for spelling in ("before", "before/", "./before"):
        words = [str(folder) + "/" + spelling, str(folder / "pairs.jsonl"), "--journal", str(journal)]
        assert main(["preference", "score", *words, "--output", str(tmp_path / "out.json")]) == 0


def test_a_displacement_report_names_what_it_compares(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    assert call(folder, "displacement before after pairs.jsonl", "--output", str(target)) == 0
    details = rd.result_from_json(target.read_text()).meta.details
    assert details["before model"].endswith("before")
    assert details["after model"].endswith("after")
    assert details["before weights"] != details["after weights"]
    assert len(details["data"]) == 64


# --- gates and exit codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("unusable_fraction > 0.1", 1),
        ("unusable_fraction > 0.5", 0),
        ("n_chosen >= 1", 1),
        ("n_chosen < 1", 0),  # an empty response does not count as a short one: it has no value
    ],
)
def test_a_gate_decides_the_exit_code(folder: Path, rule: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "score before pairs.jsonl", "--fail-on", rule) == code
    err = capsys.readouterr().err
    assert ("--fail-on" in err) == (code != 0 or rule == "n_chosen < 1")


USAGE = [
    [],
    ["score"],
    ["score", "m"],
    ["rank", "m", "d"],
    ["score", "m", "d", "--level", "deep"],
    ["score", "m", "d", "--level", "head", "--logps"],
    ["score", "m", "d", "--fail-on", "no_such > 1"],
    ["score", "m", "d", "--fail-on", "ches >"],
    ["score", "m", "d", "--output", "no/such/folder/x.json"],
    ["score", "m", "d", "--mode", "loose"],
    ["filter", "d", "--scores", "s", "--output", "k.jsonl"],
    ["filter", "d", "--scores", "s", "--output", "k.jsonl", "-n", "2", "--keep-lowest", "0.5"],
    ["filter", "d", "--scores", "s", "--output", "k.csv", "-n", "2"],
    ["filter", "d", "--scores", "s", "--output", "k.jsonl", "--removed", "r.txt", "-n", "2"],
    ["displacement", "m", "m"],
    ["displacement", "m", "m", "d", "--loss-option", "eps=much"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_wrong_usage_is_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preference", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: rankdiag preference" in err


def test_unknown_columns_of_data_are_usage_and_columns_of_scores_too(folder: Path, scored: Path) -> None:
    assert call(folder, "score before pairs.jsonl --columns prompt") == 2
    words = ["--scores", str(scored), "--output", str(folder / "x.jsonl"), "-n", "2", "--by", "nothing"]
    assert call(folder, "filter pairs.jsonl", *words) == 2


def test_bad_input_is_three_with_one_line_that_says_what(
    folder: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": \n')
    (tmp_path / "other.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    changed = [{**pair, "rejected": pair["rejected"] + "!"} for pair in PAIRS]
    (tmp_path / "changed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    (tmp_path / "short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS[:5]))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text((folder / "before" / "config.json").read_text())
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    model, good = str(folder / "before"), str(folder / "pairs.jsonl")
    keep = ["--scores", str(scored), "-n", "2", "--output", str(tmp_path / "kept.jsonl")]
    cases = [
        (["score", model, str(tmp_path / "bad.jsonl")], "bad.jsonl"),
        (["score", model, str(tmp_path / "other.jsonl")], "chosen"),
        (["score", model, str(tmp_path / "empty.jsonl")], "one"),
        (["score", model, str(tmp_path / "absent.jsonl")], "no file or folder"),
        (["score", str(tmp_path / "absent"), good], "absent"),
        (["score", str(tmp_path / "pickled"), good], "pickle"),
        (["score", model, good, "--column", "chess"], "chess"),
        (["score", model, good, "--device", "moon"], "device"),
        (["filter", str(tmp_path / "changed.jsonl"), *keep], "another fingerprint"),
        (["filter", str(tmp_path / "short.jsonl"), *keep], "pairs"),
        (["filter", good, "--scores", good, *keep[2:]], "status"),
        (["filter", good, "--scores", str(tmp_path / "no.json"), *keep[2:]], "no.json"),
        (["filter", good, *keep[:2], "--keep-lowest", "1.5", *keep[4:]], "fraction"),
        (["displacement", model, model, good, "--loss", "dppo"], "dppo"),
    ]
    for words, said in cases:
        assert main(["preference", *words]) == 3, words
        out, err = capsys.readouterr()
        assert out == "", words
        assert err.startswith("rankdiag: "), words
        assert said in err, (words, err)
        assert "Traceback" not in err
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_missing_extra_is_four(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("transformers", "transformers.utils", "transformers.utils.logging"):
        monkeypatch.setitem(sys.modules, name, None)
    assert call(folder, "score before pairs.jsonl") == 4
    assert "rankdiag[hf]" in capsys.readouterr().err


# --- filter --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "count"),
    [("--keep-lowest 0.5", 5), ("--keep-lowest 1", 9), ("--drop-highest 0.2", 7), ("-n 4", 4), ("-n 99", 9)],
)
@pytest.mark.parametrize("by", ["ln_ches", "head", "edit_similarity", "n_rejected"])
def test_kept_and_removed_are_the_input_in_its_order(
    folder: Path, scored: Path, tmp_path: Path, rule: str, count: int, by: str
) -> None:
    kept, removed = tmp_path / "kept.jsonl", tmp_path / "removed.jsonl"
    words = ["--scores", str(scored), "--by", by, "--output", str(kept), "--removed", str(removed)]
    assert main(["preference", "filter", str(folder / "pairs.jsonl"), *words, *rule.split()]) == 0
    scores = rd.result_from_json(scored.read_text()).column(by)
    plain = {True: [], False: []}
    highest_kept = -np.inf
    for good, path in ((True, kept), (False, removed)):
        for row in lines(path):
            plain[good].append(PAIRS.index({k: v for k, v in row.items() if not k.startswith("rankdiag_")}))
            if good:
                assert row[f"rankdiag_{by}"] == scores[plain[True][-1]]
                highest_kept = max(highest_kept, row[f"rankdiag_{by}"])
    assert plain[True] == sorted(plain[True])
    assert plain[False] == sorted(plain[False])
    assert sorted(plain[True] + plain[False]) == list(range(len(PAIRS)))
    assert len(plain[True]) == count
    for place, row in zip(plain[False], lines(removed), strict=True):
        assert row["rankdiag_status"] == ("identical" if place == 8 else "empty_chosen" if place == 9 else "ok")
        if place in UNUSABLE:
            assert row["rankdiag_reason"].startswith("unusable: ")
            assert row[f"rankdiag_{by}"] is None
            assert row["rankdiag_rank"] is None
        else:
            assert row[f"rankdiag_{by}"] >= highest_kept
            assert by in row["rankdiag_reason"]
            usable = [s for i, s in enumerate(scores) if i not in UNUSABLE]
            first, last = sum(s > scores[place] for s in usable) + 1, sum(s >= scores[place] for s in usable)
            assert first <= row["rankdiag_rank"] <= last
    manifest = json.loads((tmp_path / "kept.jsonl.manifest.json").read_text())
    assert manifest["scores"]["models"][0]["class"] == "LlamaForCausalLM"


def test_every_kind_of_scores_file_keeps_the_same(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {}
    for suffix in ("json", "jsonl", "parquet"):
        target = tmp_path / f"scores.{suffix}"
        assert call(folder, "score before pairs.jsonl --head-score", "--output", str(target)) == 0
        words = ["--scores", str(target), "--keep-lowest", "0.4", "--output", str(tmp_path / f"kept-{suffix}.jsonl")]
        assert main(["preference", "filter", str(folder / "pairs.jsonl"), *words]) == 0
        kept[suffix] = lines(tmp_path / f"kept-{suffix}.jsonl")
    assert kept["json"] == kept["jsonl"] == kept["parquet"]
    out = capsys.readouterr().out
    assert "kept 4 of 11 pairs by ln_ches" in out
    assert "removed 7, 2 of them unusable or identical" in out
    assert "head-level score above 0" in out
    assert "rank correlation of ln_ches with the head-level score" in out


# --- displacement --------------------------------------------------------------------------------------------------


def plain_logp(folder: Path, name: str) -> np.ndarray:
    """Sum ln pi(chosen) and ln pi(rejected) of the first eight pairs, one sequence at a time, in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / name).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    found = []
    for pair in PAIRS[:8]:
        prompt = tokenizer(pair["prompt"])["input_ids"]
        sums = []
        for side in ("chosen", "rejected"):
            ids = [*tokenizer(pair["prompt"] + pair[side])["input_ids"], 2]
            assert ids[: len(prompt)] == prompt
            with torch.no_grad():
                logp = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], dim=-1)
            sums.append(sum(float(logp[k - 1, ids[k]]) for k in range(len(prompt), len(ids))))
        found.append(sums)
    return np.array(found)


def test_displacement_is_that_of_plain_forwards(folder: Path, tmp_path: Path) -> None:
    target, page = tmp_path / "rows.jsonl", tmp_path / "page.html"
    words = ["--output", str(target), "--html", str(page)]
    assert call(folder, "displacement before after pairs.jsonl", *words) == 0
    rows = lines(target)
    assert [row["key"] for row in rows] == [str(i) for i in range(len(PAIRS))]
    change = plain_logp(folder, "after") - plain_logp(folder, "before")
    np.testing.assert_allclose([row["delta_chosen"] for row in rows[:8]], change[:, 0], atol=2e-4)
    np.testing.assert_allclose([row["delta_rejected"] for row in rows[:8]], change[:, 1], atol=2e-4)
    assert rows[8]["delta_chosen"] is None
    assert rows[8]["status"] != "ok"
    shown = page.read_text(encoding="utf-8")
    assert "What is 40 plus 1?" in shown
    assert "<script" not in shown
    assert "<svg" in shown


def test_losses_and_their_options(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    for words in (["--loss", "ipo", "--loss-option", "tau=0.5"], ["--loss", "robust", "--loss-option", "eps=0.1"]):
        assert call(folder, "displacement before before pairs.jsonl", "--output", str(target), *words) == 0
        report = rd.result_from_json(target.read_text())
        np.testing.assert_array_equal(np.nan_to_num(report.delta_chosen), np.zeros(len(PAIRS)))
        assert not report.dataset_displaced
    assert call(folder, "displacement before before pairs.jsonl", "--loss", "ipo") == 3


def test_a_wrong_loss_is_refused_before_a_model_is_opened(folder: Path, capsys: Any) -> None:
    for words, said in ((["--loss", "dppo"], "dppo"), (["--loss", "ipo"], "tau"), (["--beta", "-1"], "beta")):
        assert call(folder, "displacement no-model no-model pairs.jsonl", *words) == 3
        assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft 0.21 under transformers 5.24
def test_an_adapter_makes_the_trained_model(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "before")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tuned = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    merged = tuned.merge_and_unload()
    merged.save_pretrained(folder / "merged")
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder / "before").save_pretrained(folder / "merged")
    found = []
    for after, more in (("before", ["--adapter", str(tmp_path / "adapter")]), ("merged", [])):
        target = tmp_path / f"{after}.jsonl"
        assert call(folder, f"displacement before {after} pairs.jsonl", "--output", str(target), *more) == 0
        found.append([row["delta_chosen"] for row in lines(target)[:8]])
    assert np.abs(found[0]).max() > 1e-3
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


# --- the script itself ---------------------------------------------------------------------------------------------


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [SCRIPT, "preference", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["score", "--help"], ["filter", "--help"], ["displacement", "--help"]])
def test_help_loads_no_framework(words: list[str]) -> None:
    code = (
        "import sys; from rankdiag.cli import main; code = main(['preference', *sys.argv[1:]]);"
        "heavy = {'torch', 'numpy', 'transformers', 'scipy'} & set(sys.modules);"
        "sys.exit(code or (7 if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: rankdiag preference" in done.stdout
    for name in words[:-1]:
        assert name in done.stdout


def test_the_installed_script_scores(folder: Path) -> None:
    done = script(folder, "score", "before", "pairs.jsonl", "--json", "--fail-on", "unusable_fraction > 0")
    assert done.returncode == 1, done.stderr
    assert len(json.loads(done.stdout)["fields"]["keys"]) == len(PAIRS)
    assert done.stderr == "rankdiag: --fail-on: unusable_fraction 0.181818 > 0\n"


@pytest.mark.slow
def test_the_installed_script_from_pairs_to_pairs(folder: Path) -> None:
    for words, code in (
        (["score", "before", "pairs.jsonl", "--output", "out.parquet", "--html", "out.html"], 0),
        (["filter", "pairs.jsonl", "--scores", "out.parquet", "--keep-lowest", "0.5", "--output", "kept.parquet"], 0),
        (["score", "before", "kept.parquet", "--output", "again.csv"], 0),
        (["displacement", "before", "after", "kept.parquet", "--output", "moved.json"], 0),
        (["score", "before"], 2),
        (["score", "nowhere/at/all", "pairs.jsonl"], 3),
    ):
        done = script(folder, *words)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
        told = [
            line for line in done.stderr.splitlines() if "can be used; wrote" not in line and "Warning:" not in line
        ]
        assert (told == []) == (code == 0), (words, done.stderr)
    rows = (folder / "again.csv").read_text().splitlines()
    assert len(rows) == 1 + 5
    assert rd.result_from_json((folder / "moved.json").read_text()).delta_chosen.shape == (5,)


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH")
def test_pages_in_a_real_browser_run_nothing_and_load_nothing(folder: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "score.html", tmp_path / "level.html", tmp_path / "moved.html"]
    assert call(folder, "score before pairs.jsonl --head-score --worst 99", "--html", str(pages[0])) == 0
    assert call(folder, "score before pairs.jsonl --level ufm", "--html", str(pages[1])) == 0
    assert call(folder, "displacement before after pairs.jsonl", "--html", str(pages[2])) == 0
    browser = Browser(tmp_path / "profile")
    try:
        for page in pages:
            for width in (375, 1280):
                browser.open(page, width)
                assert browser.ask("document.title") != "owned"
                assert browser.ask("document.scripts.length + document.images.length") == 0
                inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
                assert browser.ask(inside), (page.name, width)
                asked = [e["params"]["request"]["url"] for e in browser.events if e["method"].endswith("WillBeSent")]
                assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
                assert browser.ask("document.querySelectorAll('svg').length") > 1
                assert "What is 40 plus 1?" in browser.ask("document.body.textContent")
                picture = browser.picture(tmp_path / "page.png")
            if os.environ.get("RANKDIAG_PICTURES"):
                (Path(os.environ["RANKDIAG_PICTURES"]) / f"preference-{page.stem}.png").write_bytes(picture)
    finally:
        browser.close()

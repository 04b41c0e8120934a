"""The command line: exit codes, streams, files; the installed script itself runs in a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import rankdiag as rd
from rankdiag.cli import main
from rankdiag.cli._main import COMMANDS

SCRIPT = Path(sysconfig.get_path("scripts")) / "rankdiag"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file(
        {
            "layers.0.weight": rng.standard_normal((24, 16)).astype(np.float32),
            "layers.1.weight": (rng.standard_normal((24, 1)) @ rng.standard_normal((1, 16))).astype(np.float32),
            "layers.0.bias": np.zeros(24, np.float32),
        },
        folder / "model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def tuned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.numpy import load_file

    rng = np.random.default_rng(1)
    weights = load_file(checkpoint / "model.safetensors")
    weights["layers.0.weight"] = weights["layers.0.weight"] + 0.1 * np.outer(
        rng.standard_normal(24), rng.standard_normal(16)
    ).astype(np.float32)
    folder = tmp_path_factory.mktemp("tuned")
    save_file(weights, folder / "model.safetensors")
    return folder


def test_the_table_names_every_tensor(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(checkpoint)]) == 0
    out, err = capsys.readouterr()
    for name in ("layers.0.weight", "layers.1.weight", "layers.0.bias"):
        assert name in out
    assert err == ""


def test_json_is_the_result_and_nothing_else(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(checkpoint), "--json"]) == 0
    out, _ = capsys.readouterr()
    document = json.loads(out)
    assert document["schema_version"] == 1
    report = rd.result_from_dict(document)
    assert [row.name for row in report.rows] == ["layers.0.weight", "layers.1.weight"]
    assert report.rows[1].effective_rank == pytest.approx(1.0, rel=1e-5)


def test_the_delta_sees_a_rank_one_update(checkpoint: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(tuned), "--delta", str(checkpoint), "--json"]) == 0
    report = rd.result_from_json(capsys.readouterr().out)
    row = next(row for row in report.rows if row.name == "layers.0.weight")
    assert row.effective_rank == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "txt"])
def test_output_goes_to_a_file_and_not_to_the_screen(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    target = tmp_path / f"report.{suffix}"
    assert main(["weights", str(checkpoint), "--output", str(target)]) == 0
    assert capsys.readouterr().out == ""
    text = target.read_text(encoding="utf-8")
    assert "layers.1.weight" in text.replace("\\", "")
    if suffix == "json":
        assert len(rd.result_from_json(text).rows) == 2


def test_html_is_written_beside_the_table(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    assert main(["weights", str(checkpoint), "--html", str(target)]) == 0
    assert "layers.1.weight" in capsys.readouterr().out
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("effective_rank_ratio < 0.1", 1),
        ("effective_rank_ratio<0.01", 0),
        ("fro >= 0", 1),
        ("fro < 0", 0),
    ],
)
def test_a_gate_decides_the_exit_code(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], rule: str, code: int
) -> None:
    assert main(["weights", str(checkpoint), "--fail-on", rule]) == code
    err = capsys.readouterr().err
    assert ("--fail-on" in err) == bool(code)
    if code and "ratio" in rule:
        assert "layers.1.weight" in err
        assert "layers.0.weight" not in err


def test_one_met_gate_among_several_is_enough(checkpoint: Path) -> None:
    rules = ["--fail-on", "fro < 0", "--fail-on", "effective_rank_ratio < 0.1"]
    assert main(["weights", str(checkpoint), *rules]) == 1


def test_a_gate_on_a_column_without_values_is_not_passed_in_silence(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["weights", str(checkpoint), "--measures", "stable_rank", "--fail-on", "effective_rank < 0"])
    assert code == 3
    assert "could not be checked on any row" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["weights"],
        ["weights", "x", "--frobnicate"],
        ["weights", "x", "--jso"],
        ["weights", "x", "--max-rows", "none"],
        ["weights", "x", "--max-rows", "0"],
        ["weights", "x", "--fail-on", "nonsense"],
        ["weights", "x", "--fail-on", "no_such_column < 1"],
        ["weights", "x", "--fail-on", "effective_rank_ratio < many"],
        ["weights", "x", "--output", "no/such/folder/file.json"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "rankdiag" in err


def test_unreadable_input_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00")
    target = tmp_path / "out.json"
    target.write_text("before")
    assert main(["weights", str(tmp_path), "--output", str(target)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "model.safetensors" in err
    assert "Traceback" not in err
    assert target.read_text() == "before"


def test_a_missing_path_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", str(tmp_path / "absent")]) == 3
    assert "absent" in capsys.readouterr().err


def test_help_and_version_are_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"rankdiag {rd.__version__}"
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for name in COMMANDS:
        assert name in top
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert "exit codes" in text


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed beside this interpreter")
def test_the_installed_script(checkpoint: Path) -> None:
    done = run_script("weights", str(checkpoint), "--json", "--fail-on", "effective_rank_ratio < 0.1")
    assert done.returncode == 1, done.stderr
    assert len(rd.result_from_json(done.stdout).rows) == 2


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed beside this interpreter")
def test_a_reader_that_leaves_is_no_error(checkpoint: Path) -> None:
    command = f'"{SCRIPT}" weights "{checkpoint}" --max-rows 1000000 | head -c 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_help_is_quick_and_loads_no_array_library() -> None:
    code = (
        "import sys, time; from rankdiag.cli import main; main(['--help']);"
        "print(time.process_time(), 'numpy' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, numpy_loaded = done.stderr.split()
    assert float(seconds) < 0.3
    assert numpy_loaded == "False"


_WITHOUT_EXTRAS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {'transformers', 'sklearn'}:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name.partition('.')[0])
sys.meta_path.insert(0, Absent())
from rankdiag.cli import demo, main
"""


def test_without_extras_the_demo_shows_what_it_can(tmp_path: Path) -> None:
    code = f"{_WITHOUT_EXTRAS}raise SystemExit(main(['demo', '--output', {str(tmp_path / 'demo')!r}]))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "Not shown: " in page
    assert "python -m pip install &quot;rankdiag[" in page
    assert "karate club" in page


def test_a_missing_extra_is_4(tmp_path: Path) -> None:
    code = (
        f"{_WITHOUT_EXTRAS}"
        "needy = [module for module in demo.found() if not module.__name__.endswith('.graphs')]\n"
        "demo.found = lambda: needy\n"
        f"raise SystemExit(main(['demo', '--output', {str(tmp_path / 'demo')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert 'python -m pip install "rankdiag[' in done.stderr


@pytest.mark.slow
def test_the_demo_writes_one_page(tmp_path: Path) -> None:
    done = run_script("demo", "--output", str(tmp_path / "demo"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "model.layers.0.self_attn.q_proj.weight" in page
    assert "lm_head.weight" in page
    assert "http://" not in page.replace("http://www.w3.org", "")

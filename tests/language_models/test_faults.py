"""Scoring that is killed, cut off, dealt to several processes or changed half-way: real processes, real signals."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).resolve().parents[1] / "oracles" / "scoring_worker.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
KILLS = 20
pytestmark = pytest.mark.slow


def bytes_of(out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob("part-*.jsonl"))


def outcome(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("scores.jsonl", "sum_chosen.npy", "sum_rejected.npy")}


class Nursery:
    """A process with everything imported and loaded, which forks a worker for each run."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), "serve", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def run(self, out: Path, kill_at: float = float("inf")) -> bool:
        """Score into a folder, killed once the journal holds so many bytes; return whether it came to that."""
        self.process.stdin.write(f"run {out}\n")
        self.process.stdin.flush()
        child = int(self.line())
        if kill_at < float("inf"):
            while bytes_of(out) < kill_at and not (out / "scores.jsonl").exists():
                time.sleep(0.0005)
            os.kill(child, signal.SIGKILL)
        status = int(self.line())
        if os.WIFSIGNALED(status):
            return True
        assert os.WEXITSTATUS(status) == 0, self.process.stderr.read()
        return False

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    done = subprocess.run(
        [sys.executable, str(WORKER), "build", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    nursery = Nursery(folder)
    assert not nursery.run(folder / "whole")
    yield folder, nursery
    nursery.close()


def test_killed_twenty_times_the_files_are_those_of_an_unbroken_run(world, tmp_path):
    folder, nursery = world
    expected = outcome(folder / "whole")
    size = bytes_of(folder / "whole")
    generator = random.Random(0)
    places, runs, torn = [], 0, 0
    while len(places) < KILLS:
        out = tmp_path / f"run {runs}"
        runs += 1
        out.mkdir()
        while True:
            here = bytes_of(out)
            ends = here >= size or len(places) >= KILLS  # with all rows there, a kill would try nothing new
            if not nursery.run(out, float("inf") if ends else here + generator.random() * (size - here) / 4):
                break
            if bytes_of(out) < size:
                places.append(bytes_of(out))
            part = sorted(out.glob("part-*.jsonl"))
            if part and generator.random() < 0.5:  # a kill inside a write leaves half a line; they are too quick to hit
                data = part[-1].read_bytes()
                part[-1].write_bytes(data[: len(data) - generator.randrange(1, 40)] if data else data)
                torn += 1
        assert outcome(out) == expected
    assert len(set(places)) >= KILLS // 2  # all over the journal, not at one place again and again
    sys.stdout.write(
        f"\n{len(places)} kills with rows still to come, in {runs} runs, survived, {torn} with a torn line\n"
    )


def test_another_model_row_or_option_is_refused_by_name(world, tmp_path):
    import torch

    sys.path.insert(0, str(WORKER.parent))
    import scoring_worker

    folder, _ = world
    model, data = scoring_worker.loaded(folder)
    out = tmp_path / "copy"
    shutil.copytree(folder / "whole", out)
    scoring_worker.score(model, data, str(out))  # nothing to do, nothing refused
    with pytest.raises(ValueError, match="response_end was"):
        scoring_worker.score(model, data, str(out), response_end="implied_eos")
    with pytest.raises(ValueError, match="columns was"):
        scoring_worker.score(model, data, str(out), columns=("ln_ches",))
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    with pytest.raises(ValueError, match=r"models\[0\]\.weights was"):
        scoring_worker.score(model, data, str(out))
    with torch.no_grad():
        model.model.norm.weight[3] -= 1e-3
    rows = scoring_worker.pairs()
    rows[20]["chosen"] += "!"
    from rankdiag.language_models import encode_preferences, load_language_model

    changed = encode_preferences(rows, load_language_model(folder / "model").tokenizer)
    with pytest.raises(ValueError, match="data was"):
        scoring_worker.score(load_language_model(folder / "model").model, changed, str(out))


def torchrun(folder: Path, out: Path, processes: int, **environment: str) -> subprocess.CompletedProcess:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"]
    command += [str(WORKER), "once", str(folder), str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**ENVIRONMENT, **environment}, timeout=300
    )


def test_two_processes_write_what_one_writes(world, tmp_path):
    folder, _ = world
    done = torchrun(folder, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert outcome(tmp_path / "two") == outcome(folder / "whole")
    assert len(list((tmp_path / "two").glob("part-r001-*.jsonl"))) == 1


def test_one_of_two_processes_killed_and_all_started_again(world, tmp_path):
    folder, nursery = world
    out = tmp_path / "broken"
    assert torchrun(folder, out, 2, DIE_AT_RANK="1").returncode != 0
    assert not (out / "scores.jsonl").exists()
    assert not nursery.run(out)  # with another number of processes: one
    assert outcome(out) == outcome(folder / "whole")

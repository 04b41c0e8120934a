"""Peak memory of scoring beside a bare forward and beside full logits, each in a process of its own.

``python benchmarks/preference_memory.py`` builds a Llama of 4 layers, width 256 and 32,000 tokens in memory and scores
32 pairs of 64 prompt and 2 x 256 response tokens. Printed is the peak of resident memory above that after the model was
built and everything was called once (``VmHWM`` of Linux), in MB: a bare forward over the planned batches, CHES,
log-probabilities, the head-level score, and the plain way, which holds the logits of both responses and their
log-softmax.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import pathlib, sys
sys.path.insert(0, {folder!r})
import numpy as np, torch
torch.set_num_threads(1)
import bench_language_models as bench
from rankdiag.language_models import encode_preferences
from rankdiag.preference import displacement_score, score_preferences, sequence_log_probs
def status(name):
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024
model = bench.llama(32000, 1024)
rng = np.random.default_rng(0)
draw = lambda n: rng.integers(1, 32000, n).tolist()
data = encode_preferences([
    dict(prompt_ids=draw(64), chosen_ids=draw(256), rejected_ids=draw(256)) for _ in range(32)
])
warm = encode_preferences([dict(prompt_ids=draw(8), chosen_ids=draw(8), rejected_ids=draw(9))])
score_preferences(model, warm, head_score=True, logps=True)  # what is imported and allocated once
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = status("VmRSS")
{work}
print(f"{{status('VmHWM') - before:.0f}}")
"""
_WORK = {
    "bare forward": "bench.bare(0)(model, data)()",
    "CHES": "score_preferences(model, data)",
    "log-probabilities": "sequence_log_probs(model, data)",
    "head-level score": "displacement_score(model, data, level='head')",
    "plain, full logits, two rows at a time": """
with torch.no_grad():
    for prompt, chosen, rejected in zip(data.prompt_ids, data.chosen_ids, data.rejected_ids):
        both = np.stack([np.concatenate([prompt, ids]) for ids in (chosen, rejected)])
        rows = torch.from_numpy(both.astype(np.int64))
        logits = model(input_ids=rows).logits
        torch.log_softmax(logits.float(), dim=-1).gather(2, rows[:, 1:, None])
""",
}


def main() -> None:
    folder = str(Path(__file__).resolve().parent)
    for name, work in _WORK.items():
        script = _SCRIPT.format(folder=folder, work=work)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
        )
        print(f"{name:40s} {done.stdout.strip() or done.stderr[-300:]} MB")


if __name__ == "__main__":
    main()

"""Peak memory of summaries of rewards in multiples of the table, each in a process of its own.

``python benchmarks/rewards_memory.py`` makes 10^6 prompts of 8 rewards (64 MB). Printed is the peak of resident memory
above that before the call (``VmHWM`` of Linux), over the size of the table, which itself is not counted: add 1 for it.
"""

from __future__ import annotations

import os
import subprocess
import sys

_SCRIPT = """
import pathlib
import numpy as np
from rankdiag.rewards import reward_moments, summarize
def status(name):
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
def plain(table):
    return [f(table, axis=1) for f in (np.nanmean, np.nanvar, np.nanstd, np.nanmin, np.nanmax)]
table = np.random.default_rng(0).random((1_000_000, 8))
if {holes}:
    table.reshape(-1)[::10] = np.nan
for work in (summarize, reward_moments, plain):
    work(table[:100])  # what is imported and allocated once
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = status("VmRSS")
{work}(table)
print(f"{{(status('VmHWM') - before) / table.nbytes:.2f}}")
"""


def main() -> None:
    for holes in (False, True):
        for work in ("summarize", "reward_moments", "plain"):
            script = _SCRIPT.format(holes=holes, work=work)
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
            )
            name = f"{work}{', a tenth missing' if holes else ''}"
            print(f"{name:40s} {done.stdout.strip() or done.stderr[-300:]} x the table")


if __name__ == "__main__":
    main()

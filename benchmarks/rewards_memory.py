"""Peak memory of the rewards room beside plain code, each work in a process of its own.

``python benchmarks/rewards_memory.py [part of a group's name ...]`` takes groups of ``bench_rewards_*.py`` at full
size. What a work imports and allocates once is called before, at a small size, and what is free by then goes back to
the system. Printed is the peak of resident memory above that before the call (``VmHWM`` of Linux), in MiB; for tables
of 10^6 x 8 rewards also over the size of the table (61 MiB), which itself is not counted: add 1 for it. Streams of
three sizes follow, in bytes for each prompt.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20
TABLE = 8 * 8e6 / MIB
GROUPS = {
    "pairs": ("accuracy and weighted accuracy", "four accuracies of one prompt"),
    "tables": ("moments of", "summary of"),
    "prompts": ("800000 rewards",),
    "transfer": ("transfer, 16", "transfer, 8"),
    "models": ("log-probabilities", "8 prompts of 256", "squared gradient norms"),
}


def status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(lines[name].split()[0]) * 1024


def child(module: str, group: str, name: str, group_size: str = "") -> None:
    """Print the peak of one work in bytes."""
    import torch

    torch.set_num_threads(1)
    bench = importlib.import_module(f"bench_rewards_{module}")
    if group in bench.CASES:
        make, size = bench.CASES[group][0], 1024
        make(128)[name]()
    else:
        make, size = getattr(bench, group), int(group_size or 0)
        make(1000)[name]()
    work = make(size)[name]
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forgets the peak so far
    before = status("VmRSS")
    work()
    print(status("VmHWM") - before)


def peak_of(*arguments: str) -> float:
    """Return the peak of one work in bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    wanted = sys.argv[1:]
    for module, parts in GROUPS.items():
        cases = importlib.import_module(f"bench_rewards_{module}").CASES
        for group, (_, names) in cases.items():
            if not any(part in group for part in parts) or (wanted and not any(part in group for part in wanted)):
                continue
            print(group)
            for name in names:
                peak = peak_of(module, group, name) / MIB
                share = f"  {peak / TABLE:6.2f} x the table" if module == "tables" else ""
                print(f"  {name:34s} {peak:8.1f} MiB{share}", flush=True)
    for name in ("plain-dictionary", "RewardStdMetric"):
        if wanted and "stream" not in wanted:
            continue
        print(f"stream, {name}")
        for prompts in (10_000, 100_000, 1_000_000):
            peak = peak_of("prompts", "streams", name, str(prompts))
            print(f"  {prompts:9d} prompts  {peak / MIB:8.1f} MiB  {peak / prompts:6.0f} bytes a prompt", flush=True)


if __name__ == "__main__":
    main()

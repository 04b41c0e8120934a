"""Peak memory of a process that reports on one large tensor: read from the kernel, not estimated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the memory figures of Linux"),
]

# VmHWM is the peak of this program; ru_maxrss would hold that of the test process which started it.
SCRIPT = """
import sys
import rankdiag as rd
row = rd.weight_report(sys.argv[1], measures=sys.argv[2]).rows[0]
if len(sys.argv) > 3:
    row = rd.weight_delta_report(sys.argv[1], sys.argv[3]).rows[0]
status = open("/proc/self/status").read()
print(int(status.partition("VmHWM:")[2].split()[0]) // 1024, row.method, row.effective_rank, "torch" in sys.modules)
"""


def peak(*arguments):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    megabytes, method, rank, has_torch = done.stdout.split()
    assert has_torch == "False"
    return int(megabytes), method, rank


def saved(folder, name, shape, dtype, low_rank=0):
    generator = torch.Generator().manual_seed(0)
    if low_rank:
        weight = torch.randn(shape[0], low_rank, generator=generator, dtype=torch.float64) @ torch.randn(
            low_rank, shape[1], generator=generator, dtype=torch.float64
        )
    else:
        weight = torch.randn(shape, generator=generator)
    path = folder / f"{name}.safetensors"
    save_file({"a.weight": weight.to(dtype)}, path)
    return path, weight.numel() * weight.to(dtype).element_size() / 2**20


@pytest.mark.parametrize(
    ("shape", "dtype", "low_rank", "method"),
    [
        ((512, 150_000), torch.bfloat16, 0, "gram"),
        ((150_000, 512), torch.bfloat16, 0, "gram"),
        ((30_000, 400), torch.float64, 5, "qr_svd"),
        ((2880, 2880), torch.bfloat16, 0, "gram"),
        ((4096, 4096), torch.bfloat16, 0, "gram"),
        ((80_000, 400), torch.float32, 0, "gram"),
    ],
    ids=str,
)
def test_peak_memory_of_a_report(tmp_path, shape, dtype, low_rank, method):
    path, size = saved(tmp_path, "model", shape, dtype, low_rank)
    megabytes, route, rank = peak(path, "no_tail")
    assert route == method
    assert rank != "None"
    assert megabytes <= min(1024, 3 * size + 400)


def test_peak_memory_of_a_delta_report(tmp_path):
    base, size = saved(tmp_path, "base", (60_000, 512), torch.bfloat16)
    tuned, _ = saved(tmp_path, "tuned", (60_000, 512), torch.bfloat16, low_rank=7)
    megabytes, _, _ = peak(base, "stable_rank", tuned)
    assert megabytes <= min(1024, 3 * size + 400)

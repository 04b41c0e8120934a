"""Time and peak memory of ``weight_report`` on checkpoints of gigabytes, beside the least work that they need.

``python benchmarks/large_checkpoint.py FOLDER`` writes three checkpoints below FOLDER (about 3 GB): a sharded Llama in
bfloat16 as transformers saves it, and two files with one matrix of 537 MB, wide and tall. Each is then read in
processes of their own, on one thread:

* plain: read every byte once, form each matrix's small-side Gram product in float64, and take its eigenvalues;
* report: ``weight_report`` without the tail fit, at its defaults;
* blocks: the same with ``max_bytes`` of 64 MB, so that no whole tensor is ever held.

Printed are CPU seconds, the ratio to plain, peak resident memory (``VmHWM`` of Linux, since a process inherits the
``ru_maxrss`` of the one that started it), and the limit that it is held to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

MEGABYTE = 1 << 20
BLOCKS = 64 * MEGABYTE

_MEASURE = """
import json, pathlib, time
begun = time.process_time()
{work}
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(json.dumps([time.process_time() - begun, 1024 * int(status["VmHWM"].split()[0])]))
"""
_REPORT = """
import rankdiag
report = rankdiag.weight_report({path!r}, measures="no_tail"{options})
assert all(row.spectral > 0 for row in report.rows)
"""
_PLAIN = """
import glob, json, numpy as np, scipy.linalg
for name in sorted(glob.glob({path!r} + "/*.safetensors")):
    with open(name, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        for entry in header.values():
            low, high = entry["data_offsets"]
            stream.seek(8 + size + low)
            raw = np.frombuffer(stream.read(high - low), np.uint16)
            if len(entry["shape"]) != 2:
                continue
            matrix = raw.reshape(entry["shape"])
            matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            gram = np.zeros((matrix.shape[1],) * 2)
            rows = max(1, 2**23 // matrix.shape[1])
            for start in range(0, matrix.shape[0], rows):
                block = (matrix[start : start + rows].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
                gram += block.T @ block
            scipy.linalg.eigh(gram, eigvals_only=True, driver="evr", overwrite_a=True, check_finite=False)
"""


def run(work: str) -> tuple[float, int]:
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE.format(work=work)],
        env={**os.environ, **single},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def make_sharded(folder: Path) -> int:
    """Write the Llama checkpoint and return the bytes of its largest tensor."""
    import torch
    import transformers

    if not folder.exists():
        config = transformers.LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=17,
            num_attention_heads=16,
            dtype="bfloat16",
        )
        model = transformers.LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder, max_shard_size="500MB")
    return 32000 * 2048 * 2


def make_single(folder: Path, shape: tuple[int, int]) -> int:
    """Write one matrix and return its bytes."""
    import torch
    from safetensors.torch import save_file

    if not folder.exists():
        folder.mkdir()
        generator = torch.Generator().manual_seed(0)
        matrix = torch.empty(shape, dtype=torch.bfloat16).normal_(generator=generator)
        save_file({"embedding.weight": matrix}, folder / "model.safetensors")
    return 2 * shape[0] * shape[1]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    largest = {
        "sharded": make_sharded(folder / "sharded"),
        "wide": make_single(folder / "wide", (2048, 131072)),
        "tall": make_single(folder / "tall", (131072, 2048)),
    }
    for name, size in largest.items():
        path = str(folder / name)
        total = sum(file.stat().st_size for file in (folder / name).glob("*.safetensors"))
        print(f"{name}: {total / 1e9:.2f} GB, largest tensor {size / 1e6:.0f} MB")
        plain, peak = run(_PLAIN.format(path=path))
        print(f"  plain   {plain:7.1f} s           peak {peak / MEGABYTE:6.0f} MB")
        limit = 3 * size / MEGABYTE + 400
        for label, options, bound in (("report", "", limit), ("blocks", f", max_bytes={BLOCKS}", 1024)):
            seconds, peak = run(_REPORT.format(path=path, options=options))
            print(
                f"  {label}  {seconds:7.1f} s  x{seconds / plain:5.2f}   peak {peak / MEGABYTE:6.0f} MB "
                f"(at most {bound:.0f} MB)"
            )


if __name__ == "__main__":
    main()

"""Files to read: written by safetensors itself, or byte by byte where they must be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file


def raw_file(path: Path, header, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a safetensors file from a header (an object or its bytes) and the bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def shards(folder: Path, parts: dict[str, dict[str, np.ndarray]], *, index: bool = True) -> Path:
    """Write several files, and the index that names their tensors."""
    folder.mkdir(exist_ok=True)
    for file, tensors in parts.items():
        save_file(tensors, folder / file)
    if index:
        table = {name: file for file, tensors in parts.items() for name in tensors}
        write_index(folder, table)
    return folder


def write_index(folder: Path, table) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


@pytest.fixture
def make_raw():
    return raw_file


@pytest.fixture
def make_shards():
    return shards


@pytest.fixture
def make_index():
    return write_index


@pytest.fixture
def two_shards(tmp_path):
    """A folder with an index, two shards and four tensors."""
    rng = np.random.default_rng(0)
    parts = {
        "model-00001-of-00002.safetensors": {
            "a.weight": rng.standard_normal((6, 5)),
            "a.bias": rng.standard_normal(6).astype(np.float32),
        },
        "model-00002-of-00002.safetensors": {
            "b.weight": rng.standard_normal((4, 3, 2, 2)).astype(np.float16),
            "b.ids": np.arange(3),
        },
    }
    return shards(tmp_path / "model", parts)

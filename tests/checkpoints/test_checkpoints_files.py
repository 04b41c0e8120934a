"""One file: dtypes, damage of every kind, handles, and files that change under the reader."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from rankdiag.checkpoints import CheckpointError, open_source
from rankdiag.checkpoints._header import DTYPES


def test_what_a_file_says(tmp_path):
    path = tmp_path / "x.safetensors"
    save_torch(
        {"w": torch.ones(4, 3, 2, dtype=torch.bfloat16), "b": torch.zeros(4), "s": torch.tensor(2.5)},
        path,
        metadata={"format": "pt"},
    )
    with open_source(path) as source:
        assert source.format == "safetensors"
        assert source.location == str(path)
        assert source.files == ("x.safetensors",)
        assert source.config == {}
        assert source.revision is None
        assert len(source) == 3
        assert "w" in source
        assert "v" not in source
        info = source.info("w")
        assert (info.shape, info.dtype, info.nbytes, info.file) == ((4, 3, 2), "bfloat16", 48, "x.safetensors")
        assert (info.alias_of, info.readable, info.reason, info.size) == (None, True, "", 24)
        assert info.matrix_shape == (4, 6)
        assert source.info("s").matrix_shape == (1, 1)
        assert source.read("s") == 2.5
        assert source.module_kind("w") is None
        assert source.module_of("w") is None
        assert repr(source) == f"<safetensors {str(path)!r}: 3 tensors>"
    assert repr(source).endswith(", closed>")


def test_order_is_that_of_the_bytes(tmp_path, make_raw):
    entry = {"dtype": "F32", "shape": [1]}
    header = {
        "late": {**entry, "data_offsets": [4, 8]},
        "early": {**entry, "data_offsets": [0, 4]},
        "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]},
    }
    path = make_raw(tmp_path / "x.safetensors", header, np.array([1, 2], "<f4").tobytes())
    with open_source(path) as source:
        assert [info.name for info in source.tensors] == ["early", "none", "late"]
        assert source.read("late") == 2
        assert source.read("none").shape == (0, 3)


def test_config_beside_a_file(tmp_path):
    save_file({"w": np.eye(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 4, "n_head": 5}')
    with open_source(tmp_path / "model.safetensors") as source:
        assert source.config["n_head"] == 5
        with pytest.raises(TypeError):
            source.config["n_head"] = 6


REASONS = {
    "F8_E4M3": "float8 without scales",
    "F8_E5M2": "float8 without scales",
    "F8_E4M3FNUZ": "float8 without scales",
    "F8_E5M2FNUZ": "float8 without scales",
    "F8_E8M0": "float8 exponents: scales of another tensor",
    "F6_E2M3": "float6 without scales",
    "F6_E3M2": "float6 without scales",
    "F4": "float4 without scales",
    "C64": "complex tensor: no real matrix",
    "BOOL": "bool tensor: a mask, no weights",
}
INTEGERS = "integer tensor: quantised weights without scales, or indices"


@pytest.mark.parametrize("code", DTYPES)
def test_every_dtype_is_read_or_has_a_reason(tmp_path, make_raw, code):
    name, bits = DTYPES[code]
    size = 8 * bits // 8
    header = {
        "w": {"dtype": code, "shape": [2, 4], "data_offsets": [0, size]},
        "v": {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]},
    }
    path = make_raw(tmp_path / "x.safetensors", header, bytes(size) + np.float32(7).tobytes())
    with open_source(path) as source:
        info = source.info("w")
        assert (info.dtype, info.nbytes) == (name, size)
        if code in {"F16", "BF16", "F32", "F64"}:
            np.testing.assert_array_equal(source.read("w"), np.zeros((2, 4)))
        else:
            assert not info.readable
            assert info.reason == REASONS.get(code, INTEGERS)
            with pytest.raises(ValueError, match=f"'w' of .* is not readable: {info.reason}"):
                source.read("w")
            with pytest.raises(ValueError, match="is not readable"):
                source.blocks("w", axis=0, max_bytes=8)
        assert source.read("v") == 7


def test_names_of_dtypes_are_those_of_torch(tmp_path):
    """What torch can write, it must call by the same name."""
    codes = [name for name, _ in DTYPES.values() if hasattr(torch, name)]
    assert len(codes) >= 16
    tensors = {name: torch.zeros(2, 2, dtype=torch.uint8).to(getattr(torch, name)) for name in codes}
    save_torch(tensors, tmp_path / "x.safetensors")
    with open_source(tmp_path / "x.safetensors") as disk, open_source(tensors) as memory:
        for name in codes:
            assert disk.info(name).dtype == name
            assert memory.info(name).dtype == name
            assert memory.info(name).reason == disk.info(name).reason


# --- damage --------------------------------------------------------------------------------------------------------

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGE = {
    "empty file": (None, b"", None),
    "seven bytes": (None, b"\0" * 7, None),
    "no JSON": (b"{not json", b"", None),
    "no UTF-8": (b'{"\xff\xfe": 1}', b"", None),
    "an array": (b"[]", b"", None),
    "a number": (b"7", b"", None),
    "header past the end": (b"{}", b"", 1000),
    "header longer than any file": (b"{}", b"", (1 << 64) - 1),
    "header beyond the limit": (b"{}", b"", 1 << 40),
    "header cut short": (b'{"a":{"dtype":"F32"', b"", None),
    "deep nesting": (b'{"a":' * 5000 + b"1" + b"}" * 5000, b"", None),
    "name twice": (b'{"a":%b,"a":%b}' % (json.dumps(F32).encode(), json.dumps(F32).encode()), bytes(8), None),
    "truncated data": ({"a": F32}, bytes(7), None),
    "no data": ({"a": F32}, b"", None),
    "data too long": ({"a": F32}, bytes(9), None),
    "offsets past the end": ({"a": {**F32, "data_offsets": [1 << 40, (1 << 40) + 8]}}, bytes(8), None),
    "offsets reversed": ({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8), None),
    "offsets negative": ({"a": {**F32, "data_offsets": [-8, 0]}}, bytes(8), None),
    "offsets of floats": ({"a": {**F32, "data_offsets": [0.0, 8.0]}}, bytes(8), None),
    "one offset": ({"a": {**F32, "data_offsets": [0]}}, bytes(8), None),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), None),
    "overlap": ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12), None),
    "same bytes twice": ({"a": F32, "b": F32}, bytes(8), None),
    "a hole": ({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, bytes(20), None),
    "wrong count for the shape": ({"a": {**F32, "shape": [3]}}, bytes(8), None),
    "negative shape": ({"a": {**F32, "shape": [-1, -2]}}, bytes(8), None),
    "huge shape": ({"a": {**F32, "shape": [1 << 62, 1 << 62, 4]}}, bytes(8), None),
    "huge shape without entries": ({"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}}, b"", None),
    "too many axes": ({"a": {**F32, "shape": [1] * 40 + [2]}}, bytes(8), None),
    "unknown dtype": ({"a": {**F32, "dtype": "F31"}}, bytes(8), None),
    "dtype is a number": ({"a": {**F32, "dtype": 5}}, bytes(8), None),
    "entry is a list": ({"a": [1, 2]}, bytes(8), None),
    "nothing in it": ({}, b"", None),
    "metadata only": ({"__metadata__": {"format": "pt"}}, b"", None),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("library", [True, False], ids=["", "own rules"])
def test_damage_is_named_before_any_work(tmp_path, make_raw, monkeypatch, case, library):
    """The rules of our own hold also where the package would let a file pass."""
    header, data, length = DAMAGE[case]
    path = tmp_path / "x.safetensors"
    if header is None:
        path.write_bytes(data)
    else:
        make_raw(path, header, data, length=length)
    if not library:
        monkeypatch.setattr("rankdiag.checkpoints._header._ask_library", lambda path, shown: None)
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert repr(str(path)) in str(caught.value)


def test_every_truncation_of_a_real_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((3, 2), np.float32), "b": np.arange(4)}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            open_source(path)


def test_random_flips_of_a_real_file(tmp_path):
    """A flipped file is read in full or refused by name; nothing else, and never at the cost of memory or time."""
    path = tmp_path / "x.safetensors"
    rng = np.random.default_rng(0)
    save_torch(
        {
            "layers.0.weight": torch.zeros(7, 5, dtype=torch.bfloat16),
            "layers.0.bias": torch.zeros(7),
            "head.weight": torch.zeros(2, 3, 4, dtype=torch.float16),
            "ids": torch.arange(5),
        },
        path,
        metadata={"format": "pt"},
    )
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    header = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    good = 0
    for trial in range(600):
        damaged = whole.copy()
        end = len(whole) if trial % 3 == 0 else header if trial % 3 == 1 else 8
        for place in rng.integers(0, end, size=rng.integers(1, 5)):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged.tobytes())
        try:
            with open_source(path) as source:
                for info in source.tensors:
                    if info.readable:
                        assert source.read(info.name).shape == info.shape
                        total = sum(b.size for b in source.blocks(info.name, axis=-1, max_bytes=64))
                        assert total == info.size
            good += 1
        except CheckpointError as error:
            assert str(path) in str(error)
    assert 20 < good < 580


def test_foreign_formats_are_told_apart(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"torch\.save or pickle"):
        open_source(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_source(path)


def test_special_files_are_not_opened(tmp_path):
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="must be a regular file"):
        open_source(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="must be a regular file"):
        open_source(tmp_path)


# --- while it is open ----------------------------------------------------------------------------------------------


def test_a_file_that_changes_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.eye(2)}, path)
    with open_source(path) as source:
        save_file({"a": np.ones((3, 3))}, path)
        with pytest.raises(CheckpointError, match=r"x\.safetensors' has changed since it was opened"):
            source.read("a")


def test_a_file_that_shrinks_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((100, 300)), "b": np.ones(3)}, path)
    with open_source(path) as source:
        walk = source.blocks("a", axis=0, max_bytes=24_000)
        next(walk)
        os.truncate(path, 60_000)
        with pytest.raises(CheckpointError, match=r"x\.safetensors' was truncated while tensor 'a' was read"):
            list(walk)


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_handles_are_open_and_all_are_closed(tmp_path):
    for i in range(40):
        save_file({f"w{i}": np.full((50, 4), float(i))}, tmp_path / f"part{i:02d}.safetensors")
    before = descriptors()
    with open_source(tmp_path) as source:
        assert descriptors() == before  # opening closes what it looked into
        walks = [source.blocks(f"w{i}", axis=0, max_bytes=32) for i in range(40)]
        for _ in range(2):
            for i, walk in enumerate(walks):
                assert next(walk)[0, 0] == i
        assert descriptors() - before <= 8
        assert source.files == tuple(f"part{i:02d}.safetensors" for i in range(40))
    assert descriptors() == before
    source.close()
    with pytest.raises(ValueError, match="is closed; open it again"):
        next(walks[0])
    with pytest.raises(ValueError, match="is closed"):
        source.read("w0")
    with pytest.raises(ValueError, match="is closed"), source:
        pass


def test_a_forgotten_source_closes_its_handles(tmp_path):
    save_file({"w": np.eye(3)}, tmp_path / "x.safetensors")
    before = descriptors()
    source = open_source(tmp_path / "x.safetensors")
    source.read("w")
    assert descriptors() == before + 1
    del source
    gc.collect()
    assert descriptors() == before


def test_closing_waits_for_a_reader(tmp_path, monkeypatch):
    """A descriptor in use is not pulled away; it is closed when the read ends."""
    import rankdiag.checkpoints._disk as disk

    save_file({"w": np.eye(300)}, tmp_path / "x.safetensors")
    before = descriptors()
    source = open_source(tmp_path / "x.safetensors")
    inside, go, found = threading.Event(), threading.Event(), []
    plain = disk._read_at

    def slow(handle, view, place):
        inside.set()
        assert go.wait(20)
        return plain(handle, view, place)

    monkeypatch.setattr(disk, "_read_at", slow)
    reader = threading.Thread(target=lambda: found.append(source.read("w")))
    reader.start()
    assert inside.wait(20)
    source.close()
    assert descriptors() == before + 1
    go.set()
    reader.join()
    np.testing.assert_array_equal(found[0], np.eye(300))
    assert descriptors() == before


def test_tensors_beyond_the_memory_are_refused(tmp_path, make_raw, monkeypatch):
    """A sparse file can claim what no machine holds; it must not be tried."""
    size = 1 << 40
    path = make_raw(
        tmp_path / "x.safetensors", {"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    )
    os.truncate(path, path.stat().st_size + size)
    with open_source(path) as source:
        with pytest.raises(ValueError, match=r"'w' of shape .* needs 1099\.5 GB at once, .* `blocks`"):
            source.read("w")
        with pytest.raises(ValueError, match="smaller `max_bytes`"):
            source.blocks("w", axis=-1, max_bytes=1 << 50)
        assert next(source.blocks("w", axis=0, max_bytes=80)).shape == (10, 1)


def test_unknown_names_get_a_hint(two_shards):
    with open_source(two_shards) as source:
        with pytest.raises(ValueError, match=r"must be a tensor of .* got 'a.weights'; close are 'a.weight'"):
            source.read("a.weights")
        with pytest.raises(ValueError, match=r"got 'zzz'$"):
            source.info("zzz")
        with pytest.raises(TypeError, match="`name` must be a string"):
            source.info(3)
        with pytest.raises(ValueError, match="must be a tensor of"):
            source.module_kind("zzz")
        with pytest.raises(ValueError, match="must be a tensor of"):
            source.module_of("zzz")


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from rankdiag.checkpoints import open_source

def high_water():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e3

with open_source(sys.argv[1]) as source:
    for axis in (0, -1):
        for block in source.blocks("small", axis=axis, max_bytes=1 << 20):
            del block
    base = high_water()
    for name in ("wide", "tall"):
        for axis in (0, -1):
            total = 0
            for block in source.blocks(name, axis=axis, max_bytes=32 << 20):
                total += block.size
                del block
            assert total == source.info(name).size
    streamed = high_water() - base
    whole = source.read("wide")
    print(streamed, high_water() - base, "torch" in sys.modules)
"""


def test_memory_is_one_block(tmp_path, make_raw):
    """Walking 2 x 64 MB of bfloat16 in blocks of 34 MB leaves neither the file nor the tensor in memory.

    A new process inherits `ru_maxrss` from the one that starts it, so its own high-water mark is read.
    """
    size = 64 << 20
    header = {
        "wide": {"dtype": "BF16", "shape": [512, 65536], "data_offsets": [0, size]},
        "tall": {"dtype": "BF16", "shape": [65536, 512], "data_offsets": [size, 2 * size]},
        "small": {"dtype": "BF16", "shape": [4096, 64], "data_offsets": [2 * size, 2 * size + (1 << 19)]},
    }
    path = make_raw(tmp_path / "x.safetensors", header)
    with path.open("ab") as stream:
        for _ in range(2 * 64):
            stream.write(b"\x80\x3f" * (1 << 19))
        stream.write(bytes(1 << 19))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    streamed, whole, torch_loaded = done.stdout.split()
    assert float(streamed) < 34 + 8
    assert float(whole) < 134 + 8
    assert torch_loaded == "False"

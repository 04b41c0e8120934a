"""Blocks put together are the whole tensor, whatever the shape, dtype, axis and size of a block."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

import rankdiag.checkpoints._disk as disk
from rankdiag.checkpoints import open_source

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def random_bits(shape, dtype, seed):
    """Every bit pattern may occur: NaN of both kinds, infinities, subnormals."""
    generator = torch.Generator().manual_seed(seed)
    item = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape, item), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def sources(tensor):
    """The same tensor in a file, in a torch state dict and, where numpy knows the dtype, in a numpy one."""
    found = {"torch": {"w": tensor}}
    if tensor.dtype != torch.bfloat16:
        found["numpy"] = {"w": tensor.numpy()}
    return found


def check(source, tensor, axis, max_bytes):
    matrix = (1, 1) if tensor.ndim == 0 else (len(tensor), int(np.prod(tensor.shape[1:])))
    whole = tensor.to(torch.float64).numpy().reshape(matrix)
    across = matrix[1] if axis == 0 else matrix[0]
    blocks = list(source.blocks("w", axis=axis, max_bytes=max_bytes))
    if tensor.numel() == 0:
        assert blocks == []
    else:
        np.testing.assert_array_equal(np.concatenate(blocks, axis=axis), whole)
    sizes = [block.shape[axis] for block in blocks]
    assert sizes[:-1] == [max(1, max_bytes // (8 * max(1, across)))] * (len(sizes) - 1)
    for block in blocks:
        assert block.dtype == np.float64
        assert block.flags.c_contiguous
        assert block.flags.writeable
        assert block.nbytes <= max_bytes or block.shape[axis] == 1
    read = source.read("w")
    assert read.dtype == (np.float64 if tensor.dtype == torch.float64 else np.float32)
    assert read.shape == tuple(tensor.shape)
    np.testing.assert_array_equal(read.reshape(matrix), whole)


@given(
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    axis=st.sampled_from([0, -1]),
    max_bytes=st.integers(1, 700),
    seed=st.integers(0, 1000),
)
@example(shape=(), dtype=torch.bfloat16, axis=0, max_bytes=1, seed=0)
@example(shape=(0, 3), dtype=torch.float32, axis=-1, max_bytes=1, seed=0)
@example(shape=(3, 0, 2), dtype=torch.float32, axis=0, max_bytes=1, seed=0)
def test_blocks_make_up_the_tensor(shape, dtype, axis, max_bytes, seed):
    tensor = random_bits(shape, dtype, seed)
    for mapping in sources(tensor).values():
        with open_source(mapping) as source:
            check(source, tensor, axis, max_bytes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        save_file({"before": torch.zeros(3), "w": tensor, "z": torch.ones(2, dtype=torch.bfloat16)}, path)
        with open_source(path) as source:
            check(source, tensor, axis, max_bytes)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    axis=st.sampled_from([0, -1]),
    max_bytes=st.integers(1, 3000),
    chunk=st.integers(1, 400),
    gap=st.sampled_from([0, 7, 30, 1 << 14]),
)
def test_every_way_to_read_a_rectangle(rows, columns, dtype, axis, max_bytes, chunk, gap):
    """Small limits drive small tensors through every branch that large ones take."""
    tensor = random_bits((rows, columns), dtype, rows * columns)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(disk, "_CHUNK", chunk)
        patch.setattr(disk, "_GAP", gap)
        path = Path(folder, "x.safetensors")
        save_file({"w": tensor, "z": torch.ones(3)}, path)
        with open_source(path) as source:
            check(source, tensor, axis, max_bytes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, -1])
def test_real_chunk_sizes(tmp_path, dtype, axis):
    """Wide and tall enough to read in several chunks with the limits as they are."""
    for shape in [(3, 700_001), (100_003, 21), (70, 20_000)]:
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        save_file({"w": tensor}, tmp_path / "x.safetensors")
        with open_source(tmp_path / "x.safetensors") as source:
            check(source, tensor, axis, 3_000_000)


@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=st.integers(0, 100),
    axis=st.sampled_from([0, -1]),
    max_bytes=st.integers(1, 600),
)
def test_memory_in_any_order(shape, seed, axis, max_bytes):
    """Transposed, sliced, reversed and expanded tensors are read as they look, not as they lie."""
    rng = np.random.default_rng(seed)
    array = rng.standard_normal([2 * size for size in shape]).astype(np.float32)
    array = array.transpose(rng.permutation(array.ndim))[tuple(slice(None, None, 2) for _ in shape)]
    with open_source({"w": array, "r": array[::-1]}) as source:
        check(source, torch.tensor(np.ascontiguousarray(array)), axis, max_bytes)
        np.testing.assert_array_equal(source.read("r"), array[::-1])
    tensor = torch.from_numpy(np.ascontiguousarray(array)).transpose(0, -1)
    for view in (tensor, tensor.half(), tensor[:1].expand(5, *tensor.shape[1:]), torch._neg_view(tensor)):
        with open_source({"w": view}) as source:
            check(source, view.clone(), axis, max_bytes)


def test_non_contiguous_axes_are_joined_in_pieces(monkeypatch):
    """Column blocks of a tensor whose axes cannot be joined in place copy only a few rows at once."""
    import rankdiag.checkpoints._memory as memory

    tensor = torch.randn(50, 4, 6, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    for chunk in (1, 500, 1 << 25):
        monkeypatch.setattr(memory, "_CHUNK", chunk)
        for value in (tensor, tensor.numpy()):
            with open_source({"w": value}) as source:
                check(source, tensor, -1, 2000)


def test_threads_read_the_same(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"w{i}": torch.randn(300, 200, generator=generator).to(DTYPES[i % 4]) for i in range(24)}
    folder = tmp_path / "many"
    folder.mkdir()
    for i, (name, tensor) in enumerate(tensors.items()):
        save_file({name: tensor}, folder / f"part{i:02d}.safetensors")
    with open_source(folder) as source, ThreadPoolExecutor(8) as pool:

        def work(job):
            name, axis = f"w{job % 24}", -(job % 2)
            blocks = list(source.blocks(name, axis=axis, max_bytes=20_000))
            return name, np.concatenate(blocks, axis=axis), source.read(name)

        for name, joined, read in pool.map(work, range(96)):
            np.testing.assert_array_equal(joined, tensors[name].double().numpy())
            np.testing.assert_array_equal(read, joined)


def test_systems_without_positioned_reads(tmp_path, monkeypatch):
    tensor = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    save_file({"w": tensor}, tmp_path / "x.safetensors")
    monkeypatch.delattr("os.preadv")
    with open_source(tmp_path / "x.safetensors") as source, ThreadPoolExecutor(4) as pool:
        for read in pool.map(source.read, ["w"] * 20):
            np.testing.assert_array_equal(read, tensor.numpy())
        check(source, tensor, -1, 10_000)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"axis": 1, "max_bytes": 8}, "`axis` must be 0 .* got 1"),
        ({"axis": "rows", "max_bytes": 8}, "`axis` must be an integer"),
        ({"axis": 0, "max_bytes": 0}, "`max_bytes` must be an integer >= 1; got 0"),
        ({"axis": 0, "max_bytes": 1e6}, "`max_bytes` must be an integer"),
    ],
)
def test_wrong_options_fail_in_the_call(options, word):
    with open_source({"w": np.eye(3)}) as source, pytest.raises((ValueError, TypeError), match=word):
        source.blocks("w", **options)


def test_options_are_keywords_and_known():
    with open_source({"w": np.eye(3)}) as source:
        with pytest.raises(TypeError, match="axes"):
            source.blocks("w", axes=0, max_bytes=8)
        with pytest.raises(TypeError):
            source.blocks("w", 0, 8)
    with pytest.raises(TypeError, match="revison"):
        open_source({"w": np.eye(3)}, revison="main")

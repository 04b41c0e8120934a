"""Modules and state dicts: names, ties, owners, what is skipped and why, and nothing left behind."""

from __future__ import annotations

import collections
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from rankdiag.checkpoints import open_source


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.LSTM(4, 3))
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("scratch", torch.zeros(5), persistent=False)


def test_names_kinds_and_owners():
    module = seeded(Tied)
    with open_source(module) as source:
        assert source.format == "module"
        assert source.location == "Tied"
        assert [info.name for info in source.tensors] == list(module.state_dict())
        assert "scratch" not in source
        kinds = {name: source.module_kind(name) for name in ("embed.weight", "body.0.bias", "head.weight", "steps")}
        assert kinds == {
            "embed.weight": "Embedding",
            "body.0.bias": "Linear",
            "head.weight": "Linear",
            "steps": "Tied",
        }
        assert source.module_kind("body.2.weight_ih_l0") == "LSTM"
        assert source.module_of("body.2.weight_ih_l0") is module.body[2]
        assert source.module_of("steps") is module
        assert source.info("head.weight").alias_of == "embed.weight"
        assert source.info("embed.weight").alias_of is None
        assert not source.info("steps").readable
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                np.testing.assert_array_equal(source.read(name), value)


def test_the_module_is_left_as_it_is():
    module = seeded(Tied).train()
    module.embed.weight.grad = torch.ones(7, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with open_source(module) as source:
        for info in source.tensors:
            if info.readable:
                array = source.read(info.name)
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
                for block in source.blocks(info.name, axis=0, max_bytes=100):
                    block[...] = 0
    assert module.training
    assert module.embed.weight.requires_grad
    assert torch.equal(module.embed.weight.grad, torch.ones(7, 4))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_reading_plain_floats_copies_nothing():
    weight = torch.zeros(10, 10)
    array = np.zeros((10, 10))
    with open_source({"t": weight, "n": array, "h": weight.half()}) as source:
        assert source.read("t").ctypes.data == weight.data_ptr()
        assert np.shares_memory(source.read("n"), array)
        assert source.read("h").flags.writeable
        assert array.flags.writeable


def test_closing_lets_go():
    module = seeded(lambda: nn.Linear(3, 3))
    ref = weakref.ref(module.weight)
    with open_source(module) as source:
        del module
    gc.collect()
    assert ref() is None
    with pytest.raises(ValueError, match="is closed"):
        source.read("weight")


def test_ties_are_the_same_memory_seen_the_same_way():
    base, square = torch.arange(12.0).reshape(3, 4), torch.eye(3)
    views = {
        "square": square,
        "square, transposed": square.T,
        "base": base,
        "same": base.view(3, 4),
        "transposed": base.T,
        "flat": base.reshape(-1),
        "part": base[:2],
        "shifted": base[1:],
        "copy": base.clone(),
        "as integers": base.view(torch.int32),
        "again": nn.Parameter(base),
        "nothing": base[:0],
        "nothing too": base[:0],
    }
    with open_source(views) as source:
        aliases = {info.name: info.alias_of for info in source.tensors if info.alias_of}
        assert aliases == {"same": "base", "again": "base"}
    array = base.numpy().copy()
    arrays = {
        "a": array,
        "b": array[:],
        "c": array.T,
        "d": array[::-1],
        "e": array[:2],
        "f": array.copy(),
        "g": square.numpy(),
        "h": square.numpy().T,
        "i": array[:0],
        "j": array[:0],
    }
    with open_source(arrays) as source:
        assert {info.name: info.alias_of for info in source.tensors if info.alias_of} == {"b": "a"}


def test_shared_modules_are_ties():
    layer = seeded(lambda: nn.Linear(2, 2))
    with open_source(nn.ModuleDict({"one": layer, "two": layer})) as source:
        assert [(info.name, info.alias_of) for info in source.tensors] == [
            ("one.weight", None),
            ("one.bias", None),
            ("two.weight", "one.weight"),
            ("two.bias", "one.bias"),
        ]
        assert source.module_of("two.weight") is layer


@pytest.mark.parametrize("at_root", [True, False])
def test_parametrised_weights_are_the_stored_originals(at_root):
    layer = seeded(lambda: parametrizations.weight_norm(nn.Linear(5, 3)))
    module, prefix = (layer, "") if at_root else (nn.Sequential(nn.ReLU(), layer), "1.")
    with open_source(module) as source:
        names = [prefix + f"parametrizations.weight.original{i}" for i in (0, 1)]
        assert [info.name for info in source.tensors] == [prefix + "bias", *names]
        for name in names:
            assert source.module_kind(name) == "Linear"
            assert source.module_of(name) is layer
        assert source.info(names[0]).shape == (3, 1)
        np.testing.assert_array_equal(source.read(names[1]), layer.parametrizations.weight.original1.detach())


def test_a_parametrisation_with_weights_of_its_own():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3, 1))

        def forward(self, weight):
            return self.factor * weight

    layer = seeded(lambda: nn.Linear(5, 3))
    parametrize.register_parametrization(layer, "weight", Scale())
    with open_source(layer) as source:
        assert source.module_kind("parametrizations.weight.0.factor") == "Scale"
        assert source.module_kind("parametrizations.weight.original") == "Linear"


def test_wrapped_modules_keep_their_names():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 2)))
    with open_source(nn.DataParallel(module)) as source:
        assert [info.name for info in source.tensors] == ["module.0.weight", "module.0.bias"]
        assert source.module_kind("module.0.weight") == "Linear"


@pytest.mark.slow
def test_compiled_modules_keep_their_names():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 2)))
    with open_source(torch.compile(module, backend="eager")) as source:
        assert [info.name for info in source.tensors] == ["_orig_mod.0.weight", "_orig_mod.0.bias"]
        assert source.module_of("_orig_mod.0.weight") is module[0]


def test_owners_are_unknown_where_names_are_rewritten():
    module = seeded(lambda: nn.Linear(3, 2))

    def rename(module, state, prefix, metadata):
        state["renamed.weight"] = state.pop("weight")

    module.register_state_dict_post_hook(rename)
    with open_source(module) as source:
        assert source.module_kind("renamed.weight") is None
        assert source.module_of("renamed.weight") is None
        assert source.module_kind("bias") == "Linear"


def test_the_configuration_of_a_module():
    class Config:
        def to_dict(self):
            return {"n_head": 4}

    module = seeded(lambda: nn.Linear(2, 2))
    for config, found in (
        (Config(), {"n_head": 4}),
        ({"n_head": 2}, {"n_head": 2}),
        (3, {}),
        (None, {}),
    ):
        module.config = config
        with open_source(module) as source:
            assert source.config == found
    module.config = Config()
    with open_source(nn.DataParallel(module)) as source:
        assert source.config == {"n_head": 4}


# --- what is not there, or not plain ----------------------------------------------------------------------------------


def test_meta_tensors_have_no_data():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 2))
    for source in (module, module.state_dict(), {"real": torch.ones(2), "0.weight": module[0].weight}):
        with pytest.raises(ValueError, match=r"tensor '0\.weight' of .* on the meta device .*path of the checkpoint"):
            open_source(source)


def test_modules_and_state_dicts_without_tensors():
    with pytest.raises(ValueError, match="at least one tensor; got a ReLU without any"):
        open_source(nn.ReLU())
    with pytest.raises(ValueError, match="got an empty state dict"):
        open_source({})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's, on what is made here
def test_what_cannot_be_read_has_a_reason():
    from torch.masked import masked_tensor
    from torch.testing._internal.two_tensor import TwoTensor

    eye = torch.eye(3)
    tensors = {
        "plain": eye,
        "coo": eye.to_sparse(),
        "csr": eye.to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(eye, 0.1, 0, torch.qint8),
        "int4": torch.zeros(3, dtype=torch.int32),
        "bool": eye > 0,
        "complex": eye * 1j,
        "float8": eye.to(torch.float8_e4m3fn),
        "lazy": nn.LazyLinear(3).weight,
        "nested": torch.nested.nested_tensor([eye, eye[:2]]),
        "wrapped": TwoTensor(eye, eye),
        "masked": masked_tensor(eye, eye > 0),
        "numpy masked": np.ma.masked_array(np.eye(2), np.eye(2) > 0),
        "objects": np.array([None, {}]),
        "text": np.array(["a"]),
        "long": np.ones(2, np.longdouble),
        "none": None,
        "number": 0.5,
        "scalar": np.float32(2.5),
        "inner": {"a": eye},
        "list": [1.0, 2.0],
        "parameter": nn.Parameter(eye),
    }
    reasons = {
        "coo": "sparse tensor (sparse_coo)",
        "csr": "sparse tensor (sparse_csr)",
        "quantised": "quantised tensor (qint8)",
        "int4": "integer tensor: quantised weights without scales, or indices",
        "bool": "bool tensor: a mask, no weights",
        "complex": "complex tensor: no real matrix",
        "float8": "float8 without scales",
        "lazy": "parameter of a lazy module that has not run yet",
        "nested": "nested tensor",
        "wrapped": "tensor subclass TwoTensor: no plain data behind it",
        "masked": "tensor subclass MaskedTensor: no plain data behind it",
        "numpy masked": "masked array: fill the masked entries first",
        "objects": "dtype object: no plain float up to 64 bits",
        "text": "dtype str32: no plain float up to 64 bits",
        "long": f"dtype {np.dtype(np.longdouble).name}: no plain float up to 64 bits",
        "none": "no tensor but None",
        "number": "no tensor but 0.5",
        "inner": "no tensor but dict",
        "list": "no tensor but list",
    }
    with open_source(tensors) as source:
        assert [info.name for info in source.tensors] == list(tensors)
        assert {info.name: info.reason for info in source.tensors if not info.readable} == reasons
        assert source.read("scalar") == 2.5
        assert source.info("parameter").alias_of == "plain"
        for name, reason in reasons.items():
            with pytest.raises(ValueError, match="is not readable"):
                source.read(name)
            assert source.info(name).reason == reason


def test_tensor_subclasses_with_plain_data_are_read():
    class Named(torch.Tensor):
        pass

    with open_source({"w": torch.eye(3).as_subclass(Named)}) as source:
        np.testing.assert_array_equal(source.read("w"), np.eye(3))
        np.testing.assert_array_equal(next(source.blocks("w", axis=-1, max_bytes=1000)), np.eye(3))


def test_numpy_extension_floats():
    types = pytest.importorskip("ml_dtypes")
    array = np.arange(6).reshape(2, 3)
    with open_source({"b": array.astype(types.bfloat16), "f": array.astype(types.float8_e4m3fn)}) as source:
        assert source.info("b").dtype == "bfloat16"
        np.testing.assert_array_equal(source.read("b"), array)
        assert source.info("f").reason == "float8 without scales"


def test_foreign_byte_order_and_maps(tmp_path):
    big = np.arange(6, dtype=">f4").reshape(2, 3)
    np.save(tmp_path / "x.npy", big.astype("<f8"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    with open_source({"big": big, "mapped": mapped}) as source:
        for name in ("big", "mapped"):
            np.testing.assert_array_equal(source.read(name), big)
            np.testing.assert_array_equal(next(source.blocks(name, axis=0, max_bytes=1000)), big)
        assert source.read("big").dtype.isnative


def test_training_checkpoints_say_where_their_tensors_are():
    state = {"epoch": 3, "model": {"w": torch.ones(2)}, "optimizer": {"state": {}}}
    with pytest.raises(TypeError, match=r"got a mapping of 3 entries without one.* pass source\['model'\]"):
        open_source(state)
    with pytest.raises(TypeError, match=r"without one$"):
        open_source({"epoch": 3})
    with pytest.raises(TypeError, match="got the key 3"):
        open_source({"w": torch.ones(2), 3: torch.ones(2)})


def test_extra_state_is_a_row_with_a_reason():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"version": 2}

        def set_extra_state(self, state):
            pass

    with open_source(seeded(lambda: Extra(2, 2))) as source:
        assert source.info("_extra_state").reason == "no tensor but dict"


def test_other_mappings():
    frozen = collections.ChainMap({"a": torch.ones(2)}, {"b": np.ones(3)})
    with open_source(frozen) as source:
        assert {info.name for info in source.tensors} == {"a", "b"}


def test_expanded_tensors_take_no_memory():
    wide = torch.zeros(1).expand(1 << 20, 1 << 20)
    with open_source({"w": wide, "h": torch.zeros(1).half().expand(1 << 20, 1 << 20)}) as source:
        assert source.read("w").shape == (1 << 20, 1 << 20)
        with pytest.raises(ValueError, match=r"needs 4398\.0 GB at once"):
            source.read("h")
        assert next(source.blocks("h", axis=0, max_bytes=1)).shape == (1, 1 << 20)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_of_a_device_move_block_by_block(dtype):
    generator = torch.Generator("cuda").manual_seed(0)
    weight = torch.randn(4096, 2048, device="cuda", generator=generator, dtype=dtype)
    held = torch.cuda.memory_allocated()
    with open_source({"w": weight, "tied": weight.view(4096, 2048), "t": weight.T}) as source:
        assert source.info("tied").alias_of == "w"
        for name, tensor in (("w", weight), ("t", weight.T)):
            whole = tensor.double().cpu().numpy()
            torch.cuda.reset_peak_memory_stats()
            for axis in (0, -1):
                blocks = list(source.blocks(name, axis=axis, max_bytes=1 << 20))
                np.testing.assert_array_equal(np.concatenate(blocks, axis=axis), whole)
            assert torch.cuda.max_memory_allocated() <= held + (8 << 20)
            np.testing.assert_array_equal(source.read(name), whole)

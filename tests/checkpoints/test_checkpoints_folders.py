"""Folders: which files count, the index against the shards, links, and refusals with the way out."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rankdiag.checkpoints import CheckpointError, open_source

EYE = np.eye(2, dtype=np.float32)


def put(folder: Path, *names: str) -> None:
    """One file for each name, each with a tensor of its own."""
    folder.mkdir(exist_ok=True)
    for name in names:
        save_file({f"tensor of {name}": EYE}, folder / name)


def opened(path):
    with open_source(path) as source:
        assert [info.name for info in source.tensors] == [f"tensor of {name}" for name in source.files]
        return source.format, source.files, dict(source.set_aside)


# --- which files count ----------------------------------------------------------------------------------------------


def test_index_and_shards(two_shards):
    (two_shards / "config.json").write_text('{"model_type": "llama"}')
    for path in (two_shards, str(two_shards), two_shards / "model.safetensors.index.json"):
        with open_source(path) as source:
            assert source.format == "sharded"
            assert source.files == tuple(f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
            assert [(info.name, info.file[:11]) for info in source.tensors] == [
                ("a.weight", "model-00001"),
                ("a.bias", "model-00001"),
                ("b.ids", "model-00002"),
                ("b.weight", "model-00002"),
            ]
            assert source.config == {"model_type": "llama"}
            assert source.read("b.weight").shape == (4, 3, 2, 2)
            assert source.set_aside == {}


def test_shards_in_a_sub_folder_of_the_index(tmp_path, make_index):
    (tmp_path / "parts").mkdir()
    save_file({"a": EYE}, tmp_path / "parts" / "x.safetensors")
    make_index(tmp_path, {"a": "parts/x.safetensors"})
    with open_source(tmp_path) as source:
        assert source.files == ("parts/x.safetensors",)
        assert source.read("a").sum() == 2


SHARDS = tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))


def test_one_file(tmp_path):
    put(tmp_path, "model.safetensors")
    assert opened(tmp_path) == ("safetensors", ("model.safetensors",), {})


@pytest.mark.parametrize(
    "name", ["diffusion_pytorch_model.safetensors", "consolidated.safetensors", "v1.5.safetensors"]
)
def test_one_file_of_any_name(tmp_path, name):
    put(tmp_path, name)
    assert opened(tmp_path) == ("safetensors", (name,), {})


def test_several_files_without_an_index_are_one_checkpoint(tmp_path):
    put(tmp_path, "b.safetensors", "a.safetensors", "model.safetensors")
    assert opened(tmp_path) == ("sharded", ("a.safetensors", "b.safetensors", "model.safetensors"), {})


def test_numbered_shards_without_an_index_must_all_be_there(tmp_path):
    put(tmp_path, *SHARDS)
    assert opened(tmp_path) == ("sharded", SHARDS, {})
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"the file '{SHARDS[1]}' is missing"):
        open_source(tmp_path)


def test_two_names_of_one_tensor_without_an_index(tmp_path):
    for name in ("a", "b"):
        save_file({"w": EYE}, tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"'w' is in both 'a\.safetensors' and 'b\.safetensors'"):
        open_source(tmp_path)


def test_mistral_files_do_not_count_twice(tmp_path, make_index):
    put(tmp_path, "consolidated.safetensors", *SHARDS)
    assert opened(tmp_path)[1:] == (SHARDS, {"consolidated.safetensors": "the same weights in another layout"})
    make_index(tmp_path, {f"tensor of {name}": name for name in SHARDS})
    assert opened(tmp_path)[1] == SHARDS
    assert set(opened(tmp_path)[2]) == {"consolidated.safetensors"}
    assert opened(tmp_path / "consolidated.safetensors") == ("safetensors", ("consolidated.safetensors",), {})
    two = tuple(f"consolidated-0000{i}-of-00002.safetensors" for i in (1, 2))
    put(tmp_path / "own", *two)
    assert opened(tmp_path / "own") == ("sharded", two, {})


def test_variants_do_not_count_twice(tmp_path, make_index):
    """Names as diffusers and transformers write them, one file or several, with an index or without."""
    put(tmp_path, "model.safetensors", "model.fp16.safetensors", "model.fp16-00001-of-00001.safetensors")
    kind, files, aside = opened(tmp_path)
    assert (kind, files) == ("safetensors", ("model.safetensors",))
    assert aside == dict.fromkeys(
        ["model.fp16.safetensors", "model.fp16-00001-of-00001.safetensors"], "a variant of 'model'"
    )
    shards = tmp_path / "shards"
    put(shards, *SHARDS, "model.fp16.safetensors", "model-00001-of-00001.bf16.safetensors")
    assert opened(shards)[1] == SHARDS
    assert len(opened(shards)[2]) == 2
    make_index(shards, {f"tensor of {name}": name for name in SHARDS})
    other = json.dumps({"weight_map": {"tensor of model.fp16.safetensors": "model.fp16.safetensors"}})
    (shards / "model.safetensors.index.fp16.json").write_text(other)
    assert opened(shards)[1] == SHARDS
    assert opened(shards / "model.safetensors.index.fp16.json")[1] == ("model.fp16.safetensors",)
    put(tmp_path / "only", "model.fp16.safetensors")
    assert opened(tmp_path / "only") == ("safetensors", ("model.fp16.safetensors",), {})
    put(tmp_path / "dots", "llama-3.1.safetensors", "llama-3.2.safetensors")
    assert len(opened(tmp_path / "dots")[1]) == 2


def test_one_file_goes_before_shards_as_in_transformers(tmp_path, make_index):
    put(tmp_path, *SHARDS, "model.safetensors")
    make_index(tmp_path, {f"tensor of {name}": name for name in SHARDS})
    aside = dict.fromkeys(SHARDS, "model.safetensors goes first")
    assert opened(tmp_path) == ("safetensors", ("model.safetensors",), aside)
    assert opened(tmp_path / "model.safetensors.index.json")[1] == SHARDS


def test_files_that_the_index_does_not_name_are_listed(tmp_path, make_index):
    put(tmp_path, *SHARDS, "old.safetensors")
    make_index(tmp_path, {f"tensor of {name}": name for name in SHARDS})
    assert opened(tmp_path) == ("sharded", SHARDS, {"old.safetensors": "not named in the index"})


def test_several_indexes_need_a_choice(tmp_path, make_index):
    put(tmp_path, *SHARDS)
    make_index(tmp_path, {f"tensor of {name}": name for name in SHARDS})
    text = (tmp_path / "model.safetensors.index.json").read_text()
    (tmp_path / "other.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"several indexes, 'model\.safetensors\.index\.json', 'other"):
        open_source(tmp_path)
    assert opened(tmp_path / "other.safetensors.index.json")[1] == SHARDS


def test_hidden_files_and_folders_are_no_weights(tmp_path):
    put(tmp_path, "model.safetensors")
    (tmp_path / "._model.safetensors").write_bytes(b"resource fork")
    (tmp_path / "backup.safetensors").mkdir()
    assert opened(tmp_path) == ("safetensors", ("model.safetensors",), {})


# --- adapters -------------------------------------------------------------------------------------------------------


def adapter(folder):
    put(folder, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 8}')
    return folder


def test_adapter(tmp_path):
    (adapter(tmp_path) / "config.json").write_text('{"model_type": "base"}')
    assert opened(tmp_path) == ("adapter", ("adapter_model.safetensors",), {})
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with open_source(path) as source:
            assert source.format == "adapter"
            assert source.config == {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def test_adapter_with_other_files(tmp_path):
    put(adapter(tmp_path), "optimizer.safetensors")
    assert opened(tmp_path)[2] == {"optimizer.safetensors": "beside an adapter"}


@pytest.mark.parametrize("names", [["model.safetensors"], list(SHARDS)])
def test_adapter_and_model_need_a_choice(tmp_path, names):
    put(adapter(tmp_path), *names)
    with pytest.raises(
        CheckpointError, match=r"both a model and an adapter; pass the file .*adapter_model\.safetensors"
    ):
        open_source(tmp_path)
    assert opened(tmp_path / "adapter_model.safetensors")[0] == "adapter"


def test_adapter_without_its_config_is_a_plain_file(tmp_path):
    put(tmp_path, "adapter_model.safetensors")
    assert opened(tmp_path)[0] == "safetensors"


# --- nothing to read ------------------------------------------------------------------------------------------------


def test_empty_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is empty"):
        open_source(tmp_path)


def test_no_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"has no \.safetensors file$"):
        open_source(tmp_path)


def test_weights_further_down_are_pointed_at(tmp_path):
    put(tmp_path / "unet", "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"there are some in .*unet"):
        open_source(tmp_path)


def test_other_files(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"must be a \.safetensors file.* got '.*model\.gguf'"):
        open_source(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match=r"has no \.safetensors"):
        open_source(tmp_path)


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a path that exists"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must be a path that exists"):
        open_source("nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="must be a path that exists") as caught:
        open_source("x" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_impossible_paths(text):
    with pytest.raises(ValueError, match="`source` must be the path"):
        open_source(text)


@pytest.mark.parametrize("bad", [None, 3, 2.5, [EYE], EYE, b"bytes", object()])
def test_other_kinds(bad):
    with pytest.raises(TypeError, match="`source` must be a torch module, a state dict, the path"):
        open_source(bad)


# --- pickles --------------------------------------------------------------------------------------------------------


def snippet(message: str) -> str:
    """The indented lines of the message are the conversion to run."""
    return textwrap.dedent("\n".join(line for line in message.splitlines() if line.startswith("    ")))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "it's \\ odd.bin"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_pickle_is_refused_and_the_way_out_works(tmp_path, name, whole_folder):
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"a": weight, "tied": weight, "t": weight.T, "epoch": 3}
    torch.save({"state_dict": state} if name.endswith("ckpt") else state, tmp_path / name)
    source = tmp_path if whole_folder else tmp_path / name
    with pytest.raises(ValueError, match="whose weights are pickles") as caught:
        open_source(source)
    assert not isinstance(caught.value, CheckpointError)
    assert repr(str(tmp_path / name)) in str(caught.value)
    exec(snippet(str(caught.value)), {})
    with open_source(tmp_path) as converted:
        np.testing.assert_array_equal(converted.read("a"), weight)
        np.testing.assert_array_equal(converted.read("t"), weight.T)
        assert converted.set_aside == {name: "a pickle, never loaded"}


def test_sharded_pickles(tmp_path):
    for i in range(1, 7):
        torch.save({f"w{i}": torch.full((2, 2), float(i))}, tmp_path / f"pytorch_model-0000{i}-of-00006.bin")
    torch.save({"seed": 1}, tmp_path / "training_args.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(ValueError, match="whose weights are pickles"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match=r"pytorch_model-0000\*\.bin") as caught:
        open_source(tmp_path / "pytorch_model.bin.index.json")
    exec(snippet(str(caught.value)), {})
    with open_source(tmp_path) as source:
        assert [info.name for info in source.tensors] == [f"w{i}" for i in range(1, 7)]


def test_a_pickle_is_never_opened(tmp_path):
    """Not even to look at it: the file here would not survive that."""
    (tmp_path / "pytorch_model.bin").symlink_to("/dev/does/not/exist")
    with pytest.raises(CheckpointError, match=r"has no \.safetensors"):
        open_source(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match="whose weights are pickles"):
        open_source(tmp_path / "model.pt")


def test_safetensors_go_before_pickles(tmp_path):
    put(tmp_path, "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert opened(tmp_path) == (
        "safetensors",
        ("model.safetensors",),
        {"pytorch_model.bin": "a pickle, never loaded"},
    )


# --- config.json ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"", b"\xff\xfe", b"null", b"[" * 200_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_broken_config(tmp_path, text):
    put(tmp_path, "model.safetensors")
    (tmp_path / "config.json").write_bytes(text)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"config\.json' is damaged"):
            open_source(path)
    put(tmp_path / "adapter", "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"adapter_config\.json' is damaged"):
        open_source(tmp_path / "adapter")


def test_huge_json_is_not_read(tmp_path):
    put(tmp_path, "model.safetensors")
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"config\.json' is damaged: a JSON file of 1099511627776 bytes"):
        open_source(tmp_path)


# --- the index ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "7",
        "",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": []}',
        '{"weight_map": {"a.weight": 3}}',
        '{"weight_map": {"a.weight": null}}',
        '{"weight_map": {"a.weight": "pytorch_model.bin"}}',
        '{"weight_map": {"a.weight": "x.safetensors", "a.weight": "y.safetensors"}}',
        "[" * 200_000,
    ],
)
def test_broken_index(two_shards, text):
    (two_shards / "model.safetensors.index.json").write_text(text)
    for path in (two_shards, two_shards / "model.safetensors.index.json"):
        with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json' (is damaged|must name)"):
            open_source(path)


def change_index(folder, change):
    path = folder / "model.safetensors.index.json"
    data = json.loads(path.read_text())
    change(data["weight_map"])
    path.write_text(json.dumps(data))


def test_missing_shard_names_the_entry(two_shards):
    (two_shards / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json' names the file 'model-00002-of-00002\.safetensors'"):
        open_source(two_shards)


def test_name_of_the_index_that_no_shard_has(two_shards):
    change_index(two_shards, lambda table: table.update({"ghost": "model-00001-of-00002.safetensors"}))
    with pytest.raises(CheckpointError, match=r"'ghost' is not in 'model-00001-of-00002\.safetensors'"):
        open_source(two_shards)


def test_tensor_of_a_shard_that_the_index_does_not_name(two_shards):
    change_index(two_shards, lambda table: table.pop("a.bias"))
    with pytest.raises(CheckpointError, match=r"'a\.bias' is in 'model-00001.*', but the index does not name it"):
        open_source(two_shards)


def test_tensor_in_another_shard_than_the_index_says(two_shards):
    change_index(two_shards, lambda table: table.update({"a.bias": "model-00002-of-00002.safetensors"}))
    with pytest.raises(CheckpointError, match=r"'a\.bias' is in 'model-00001.*', but the index says 'model-00002"):
        open_source(two_shards)


def test_duplicate_name_across_shards(two_shards):
    extra = {"b.weight": EYE, "b.ids": EYE, "a.bias": EYE}
    save_file(extra, two_shards / "model-00002-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"'a\.bias' is in 'model-00002.*', but the index says 'model-00001"):
        open_source(two_shards)


@pytest.mark.parametrize("place", [0, 3, 20, -1])
def test_truncated_shard(two_shards, place):
    path = two_shards / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors' is damaged"):
        open_source(two_shards)


# --- names that point outside -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "sub/../../secret.safetensors",
        "/etc/secret.safetensors",
        "..\\secret.safetensors",
        "\\secret.safetensors",
        "C:\\secret.safetensors",
        "C:secret.safetensors",
        "\\\\host\\share\\secret.safetensors",
        "a\0b.safetensors",
        "\ud800.safetensors",
        "x" * 5000 + ".safetensors",
    ],
)
def test_names_outside_the_folder(tmp_path, make_index, name):
    save_file({"a": EYE}, tmp_path / "secret.safetensors")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    make_index(folder, {"a": name})
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"index\.json' names the file") as caught:
        open_source(folder)
    assert isinstance(caught.value, CheckpointError) or len(name) > 4096
    assert len(str(caught.value)) < 1000


def test_names_that_step_up_are_refused_even_if_they_come_back(tmp_path, make_index):
    put(tmp_path, "x.safetensors")
    (tmp_path / "sub").mkdir()
    make_index(tmp_path, {"tensor of x.safetensors": "sub/../x.safetensors"})
    with pytest.raises(CheckpointError, match="no name inside the folder"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("kind", "with_index"),
    [
        ("absolute", True),
        ("absolute", False),
        ("relative", True),
        ("relative", False),
        ("chain", True),
        ("chain", False),
        ("folder", True),
    ],
)
def test_links_out_of_the_folder(tmp_path, make_index, kind, with_index):
    (tmp_path / "private").mkdir()
    secret = tmp_path / "private" / "secret.safetensors"
    save_file({"a": EYE}, secret)
    folder = tmp_path / "model"
    folder.mkdir()
    name = "x.safetensors"
    if kind == "absolute":
        (folder / name).symlink_to(secret)
    elif kind == "relative":
        (folder / name).symlink_to("../private/secret.safetensors")
    elif kind == "chain":
        (folder / "hop").symlink_to("../private")
        (folder / name).symlink_to("hop/secret.safetensors")
    else:
        (folder / "hop").symlink_to("../private")
        name = "hop/secret.safetensors"
    if with_index:
        make_index(folder, {"a": name})
    with pytest.raises(CheckpointError, match="leads outside of the folder"):
        open_source(folder)


def test_links_of_other_files_out_of_the_folder(tmp_path, two_shards):
    (tmp_path / "secret.json").write_text('{"key": 1}')
    (two_shards / "config.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(CheckpointError, match=r"config\.json', which leads outside"):
        open_source(two_shards)
    (two_shards / "config.json").unlink()
    index = two_shards / "model.safetensors.index.json"
    index.rename(tmp_path / "index.json")
    index.symlink_to(tmp_path / "index.json")
    with pytest.raises(CheckpointError, match=r"index\.json', which leads outside"):
        open_source(two_shards)


def test_links_that_stay_inside_or_that_the_user_names(tmp_path):
    folder = tmp_path / "model"
    (folder / "real").mkdir(parents=True)
    save_file({"a": EYE}, folder / "real" / "x.safetensors")
    (folder / "model.safetensors").symlink_to("real/x.safetensors")
    with open_source(folder) as source:
        assert source.read("a").sum() == 2
    (tmp_path / "alias").symlink_to(folder)
    with open_source(tmp_path / "alias") as source:
        assert source.location == str(tmp_path / "alias")
    (tmp_path / "chosen.safetensors").symlink_to(folder / "real" / "x.safetensors")
    with open_source(tmp_path / "chosen.safetensors") as source:
        assert source.files == ("chosen.safetensors",)


def test_links_to_nothing_and_in_circles(tmp_path):
    (tmp_path / "a.safetensors").symlink_to("gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"'a\.safetensors', which is missing: a link to"):
        open_source(tmp_path)
    (tmp_path / "a.safetensors").unlink()
    (tmp_path / "a.safetensors").symlink_to("b.safetensors")
    (tmp_path / "b.safetensors").symlink_to("a.safetensors")
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"a\.safetensors"):
        open_source(tmp_path)


def test_one_file_under_two_names(tmp_path, make_index):
    save_file({"a": EYE, "b": EYE}, tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").symlink_to("x.safetensors")
    make_index(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"})
    with pytest.raises(CheckpointError, match="contradicts its files"):
        open_source(tmp_path)


def test_special_files_in_a_folder(tmp_path, make_index):
    os.mkfifo(tmp_path / "x.safetensors")
    make_index(tmp_path, {"a": "x.safetensors"})
    with pytest.raises(CheckpointError, match="must be a regular file"):
        open_source(tmp_path)
    make_index(tmp_path, {"a": "d.safetensors"})
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="must be a regular file"):
        open_source(tmp_path)

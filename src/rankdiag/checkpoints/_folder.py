"""Which files of a folder are the checkpoint, and where a name in it may point.

Whatever a file of the folder says is checked here: names of shards, links, the index against the shards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rankdiag._validate import describe
from rankdiag.checkpoints._disk import DiskSource, Shard
from rankdiag.checkpoints._header import MAX_JSON, load_json, open_regular, read_header
from rankdiag.checkpoints._info import CheckpointError

__all__ = ["open_path"]

_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
_ADAPTER = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_STATE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")  # pickles, not weights
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(.*)\.safetensors")


def open_path(path: Path, *, location: str | None = None, revision: str | None = None) -> DiskSource:
    """Open a file, an index or a folder that exists; see `open_source`."""
    where = location or str(path)
    if path.is_dir():
        return _open_folder(path, where, revision)
    if path.name.endswith(_INDEX):
        return _open_index(path.parent, path.name, where, revision, {})
    if path.name.endswith(_SUFFIX):
        shard = (path.name, *read_header(os.path.realpath(path)))
        adapter = path.name == _ADAPTER and (path.parent / _ADAPTER_CONFIG).exists()
        return DiskSource(
            location=where,
            format="adapter" if adapter else "safetensors",
            shards=[shard],
            config=_config(path.parent, _ADAPTER_CONFIG if adapter else "config.json"),
            revision=revision,
        )
    if path.suffix.lower() in _PICKLES or path.name.endswith(".bin.index.json"):
        names = _pickles(path.parent) if path.name.endswith(".json") else [path.name]
        raise _pickle_error(path, [path.parent / name for name in names])
    raise ValueError(
        f"`source` must be a .safetensors file, a {_INDEX[1:]} file or a folder with such files; got {where!r}"
    )


# --- folders -----------------------------------------------------------------------------------------------------


def _open_folder(folder: Path, where: str, revision: str | None) -> DiskSource:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    weights = [name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]
    indexes = [name for name in names if name.endswith(_INDEX) and not name.startswith(".")]
    if _ADAPTER in weights and _ADAPTER_CONFIG in names:
        rest = [name for name in weights if name != _ADAPTER]
        if indexes or any(name == "model.safetensors" or _SHARD.fullmatch(name) for name in rest):
            raise CheckpointError(
                f"{where!r} holds both a model and an adapter; pass the file that is meant, for example "
                f"{str(folder / _ADAPTER)!r}"
            )
        aside = dict.fromkeys(rest, f"beside {_ADAPTER}")
        return _combine(folder, [_ADAPTER], "adapter", where, revision, aside)
    if indexes:
        index = _choose_index(folder, indexes)
        single = index.removesuffix(".index.json")
        if single not in weights or single in _weight_map(folder, index).values():
            return _open_index(folder, index, where, revision, {})
        aside = {name: f"{single} goes first" for name in weights if name != single}
        return _combine(folder, [single], "safetensors", where, revision, aside)
    chosen, aside = _choose_weights(weights)
    if not chosen:
        raise _no_weights(folder, names)
    _require_whole_sets(folder, chosen)
    return _combine(folder, chosen, "sharded" if len(chosen) > 1 else "safetensors", where, revision, aside)


def _choose_index(folder: Path, indexes: list[str]) -> str:
    if len(indexes) == 1:
        return indexes[0]
    plain = [name for name in indexes if "." not in name.removesuffix(_INDEX) and not name.startswith("consolidated")]
    if len(plain) == 1:
        return plain[0]
    raise CheckpointError(f"{str(folder)!r} has several indexes, {', '.join(indexes)}; pass the one that is meant")


def _choose_weights(weights: list[str]) -> tuple[list[str], dict[str, str]]:
    """Leave out files that hold the same tensors once more: other precisions, and Mistral's own format."""
    stems = {name.removesuffix(_SUFFIX) for name in weights}
    bases = stems | {match[1] for name in weights if (match := _SHARD.fullmatch(name)) and "." not in match[1]}
    aside = {}
    for name in weights:
        stem = name.removesuffix(_SUFFIX)
        if stem.startswith("consolidated") and any(not other.startswith("consolidated") for other in stems):
            aside[name] = "the same weights in another layout"
        elif "." in stem and stem.partition(".")[0] in bases and not stem.startswith("consolidated"):
            aside[name] = f"a variant of {stem.partition('.')[0]}"
    return [name for name in weights if name not in aside], aside


def _require_whole_sets(folder: Path, chosen: Iterable[str]) -> None:
    """Without an index the names of the shards still say how many there are."""
    sets: dict[tuple[str, str, str], set[int]] = {}
    for name in chosen:
        match = _SHARD.fullmatch(name)
        if match:
            sets.setdefault((match[1], match[3], match[4]), set()).add(int(match[2]))
    for (stem, total, tail), found in sets.items():
        for number in range(1, int(total) + 1):
            if number not in found:
                missing = f"{stem}-{number:05d}-of-{total}{tail}{_SUFFIX}"
                raise FileNotFoundError(f"shard {missing!r} is missing in {str(folder)!r}; fetch the checkpoint again")


def _combine(
    folder: Path, files: list[str], kind: Any, where: str, revision: str | None, aside: Mapping[str, str]
) -> DiskSource:
    shards: list[Shard] = [(file, *read_header(_inside(folder, file, "the folder"))) for file in files]
    seen: dict[str, str] = {}
    for file, entries, _ in shards:
        for entry in entries:
            if entry.name in seen:
                raise CheckpointError(
                    f"{str(folder)!r} is damaged: tensor {entry.name!r} is in both {seen[entry.name]!r} and {file!r}; "
                    "pass the file or the index that is meant"
                )
            seen[entry.name] = file
    config = _config(folder, _ADAPTER_CONFIG if kind == "adapter" else "config.json")
    return DiskSource(location=where, format=kind, shards=shards, config=config, set_aside=aside, revision=revision)


def _config(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        return {}
    return _json_object(_inside(folder, name, "the folder"), "content")


def _json_object(path: str, what: str) -> dict[str, Any]:
    handle, stamp = open_regular(path)
    with os.fdopen(handle, "rb") as stream:
        if stamp.size > MAX_JSON:
            raise CheckpointError(f"{path!r} is damaged: a JSON file of {stamp.size} bytes is not read")
        parsed = load_json(stream.read(MAX_JSON), path, what)
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path!r} is damaged: its {what} must be an object; got {describe(parsed)}")
    return parsed


# --- the index ---------------------------------------------------------------------------------------------------


def _weight_map(folder: Path, index: str) -> dict[str, str]:
    path = _inside(folder, index, "the folder") if (folder / index).is_symlink() else str(folder / index)
    table = _json_object(path, "content").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(
            f"{path!r} is damaged: it must have an object `weight_map` of tensor and file names; got {describe(table)}"
        )
    for name, file in table.items():
        if not isinstance(file, str) or not file.endswith(_SUFFIX):
            raise CheckpointError(f"{path!r} must name a .safetensors file for tensor {name!r}; got {describe(file)}")
    return table


def _open_index(folder: Path, index: str, where: str, revision: str | None, aside: Mapping[str, str]) -> DiskSource:
    table = _weight_map(folder, index)
    origin = str(folder / index)
    paths: dict[str, str] = {}
    for name, file in table.items():
        if file not in paths:
            paths[file] = _inside(folder, file, origin)
            if not Path(paths[file]).is_file():
                raise FileNotFoundError(f"{origin!r} names the file {file!r} for tensor {name!r}, which is missing")
    shards: list[Shard] = [(file, *read_header(paths[file])) for file in sorted(paths)]
    for file, entries, _ in shards:
        held = {entry.name for entry in entries}
        for name in sorted(held):
            if table.get(name) != file:
                other = f"says it is in {table[name]!r}" if name in table else "does not name it"
                raise CheckpointError(
                    f"{origin!r} contradicts its files: {name!r} is in {file!r}, but the index {other}"
                )
        for name, wanted in table.items():
            if wanted == file and name not in held:
                raise CheckpointError(f"{origin!r} contradicts its files: {name!r} is not in {file!r}")
    beside = {
        entry.name: "not named in the index"
        for entry in sorted(folder.iterdir())
        if entry.name.endswith(_SUFFIX) and entry.name not in paths
    }
    return DiskSource(
        location=where,
        format="sharded",
        shards=shards,
        config=_config(folder, "config.json"),
        set_aside={**beside, **aside},
        revision=revision,
    )


# --- where a name may point ----------------------------------------------------------------------------------------


def _inside(folder: Path, name: str, origin: str) -> str:
    """Resolve a file name that came out of a checkpoint; it must lead to a file of the same checkpoint.

    Links are followed. The file must lie in the folder or, where the folder is a snapshot in a cache of the hub, in
    the ``blobs`` folder of the same repo.
    """
    windows = PureWindowsPath(name)
    if (
        not name
        or "\0" in name
        or PurePosixPath(name).is_absolute()
        or windows.drive
        or windows.root
        or ".." in windows.parts
    ):
        raise CheckpointError(f"{origin!r} names the file {name!r:.200}, which is outside of the folder")
    try:
        root, real = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{origin!r} names the file {name!r:.200}, which is no legal name ({error})") from None
    blobs = _blobs(root)
    if not (real.is_relative_to(root) or (blobs is not None and real.parent == blobs)):
        raise CheckpointError(f"{origin!r} names the file {name!r}, a link to {str(real)!r} outside of the folder")
    return str(real)


def _blobs(root: Path) -> Path | None:
    """Return the blobs of a folder ``models--ORG--NAME/snapshots/COMMIT[/...]``, the layout of the hub's cache."""
    for commit in (root, *root.parents):
        if commit.parent.name == "snapshots" and commit.parent.parent.name.startswith("models--"):
            return commit.parent.parent / "blobs"
    return None


# --- refusals ------------------------------------------------------------------------------------------------------


def _pickles(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in _PICKLES and not entry.name.startswith((".", *_STATE)) and entry.is_file()
    )


def _pickle_error(what: Path, files: list[Path]) -> ValueError:
    shown = ", ".join(repr(str(file)) for file in files)
    return ValueError(
        f"`source` must be a safetensors checkpoint; got {str(what)!r}, whose weights are pickles. Loading a pickle "
        "can run code that is hidden in it, so rankdiag never does. If you trust the file, convert it yourself and "
        "pass the result:\n"
        "    import pathlib, torch\n"
        "    from safetensors.torch import save_file\n"
        f"    for file in [{shown}]:\n"
        '        state = torch.load(file, map_location="cpu", weights_only=True)\n'
        '        state = state.get("state_dict", state)\n'
        "        tensors = {k: v.clone().contiguous() for k, v in state.items() if isinstance(v, torch.Tensor)}\n"
        '        save_file(tensors, pathlib.Path(file).with_suffix(".safetensors"))'
    )


def _no_weights(folder: Path, names: list[str]) -> ValueError:
    pickles = _pickles(folder)
    if pickles:
        return _pickle_error(folder, [folder / name for name in pickles])
    deeper = sorted({str(found.parent) for found in folder.glob(f"*/*{_SUFFIX}")})
    deeper += sorted(str(found.parent) for found in folder.glob(f"snapshots/*/*{_SUFFIX}"))
    hint = f"; there are some in {', '.join(deeper[:5])}" if deeper else ""
    state = "is empty" if not names and not deeper else f"has no {_SUFFIX} file"
    return CheckpointError(f"`source` must be a folder with weights; {str(folder)!r} {state}{hint}")

"""Which files of a folder are the checkpoint, and where a name in it may point.

Whatever a file of the folder says is checked here: names of shards, links, the index against the shards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from rankdiag._validate import describe
from rankdiag.checkpoints._disk import DiskSource, Shard
from rankdiag.checkpoints._header import MAX_JSON, load_json, open_regular, read_header
from rankdiag.checkpoints._info import CheckpointError
from rankdiag.checkpoints._source import Format

__all__ = ["open_path"]

_SUFFIX = ".safetensors"
_ADAPTER = "adapter_model"
_ADAPTER_CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_STATE = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")  # pickles, not weights
_INDEX = re.compile(r"(.+)\.safetensors\.index(\.[^.]+)?\.json")  # the second part names a variant, such as fp16
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.[^.]+)?\.safetensors")
_SHARED = re.compile(r"[0-9a-f]{64}")


def open_path(path: Path, *, location: str | None = None, revision: str | None = None) -> DiskSource:
    """Open a file, an index or a folder that exists; see `open_source`."""
    where = location or str(path)
    if path.is_dir():
        return _open_folder(path, where, revision)
    if _INDEX.fullmatch(path.name):
        return _open_index(path.parent, path.name, os.path.realpath(path), where, revision)
    if path.name.endswith(_SUFFIX):
        adapter = path.name == _ADAPTER + _SUFFIX and os.path.lexists(path.parent / _ADAPTER_CONFIG)
        shard = (path.name, *read_header(os.path.realpath(path), str(path)))
        return _source(path.parent, [shard], "adapter" if adapter else "safetensors", where, revision, {})
    if path.suffix.lower() in _PICKLES or path.name.endswith(".bin.index.json"):
        names = _pickles(path.parent) if path.name.endswith(".json") else [path.name]
        raise _pickle_error(path, [path.parent / name for name in names])
    raise ValueError(
        "`source` must be a .safetensors file, a .safetensors.index.json file or a folder with such files; got "
        f"{where!r}"
    )


# --- folders -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """Files of one stem: ``STEM.safetensors``, its shards ``STEM-00001-of-00002.safetensors``, and its index."""

    single: str = ""
    index: str = ""
    shards: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The weight files, in order."""
        return [self.single] if self.single else self.shards


def _open_folder(folder: Path, where: str, revision: str | None) -> DiskSource:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir() and not entry.name.startswith("."))
    groups = _group(names)
    aside = dict.fromkeys(_pickles(folder), "a pickle, never loaded")
    if _ADAPTER in groups and groups[_ADAPTER].files and _ADAPTER_CONFIG in names:
        if "model" in groups:
            raise CheckpointError(
                f"{where!r} holds both a model and an adapter; pass the file that is meant, for example "
                f"{str(folder / (_ADAPTER + _SUFFIX))!r}"
            )
        aside |= {name: "beside an adapter" for stem in groups if stem != _ADAPTER for name in groups[stem].files}
        return _combine(folder, groups[_ADAPTER].files, "adapter", where, revision, aside)
    _set_repeats_aside(groups, aside)
    indexed = [group for group in groups.values() if group.index and not group.single]
    if len(indexed) > 1:
        listed = ", ".join(repr(group.index) for group in indexed)
        raise CheckpointError(f"{where!r} has several indexes, {listed}; pass the one that is meant")
    if indexed:
        index = indexed[0].index
        return _open_index(folder, index, _locate(folder, index), where, revision, aside)
    for stem, group in groups.items():
        if group.single:
            aside |= dict.fromkeys(group.shards, f"{stem + _SUFFIX} goes first")
        else:
            _require_all_shards(folder, group.shards)
    files = sorted(name for group in groups.values() for name in group.files)
    if not files:
        raise _no_weights(folder, names)
    return _combine(folder, files, "sharded" if len(files) > 1 else "safetensors", where, revision, aside)


def _group(names: list[str]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for name in names:
        shard, index = _SHARD.fullmatch(name), _INDEX.fullmatch(name)
        if shard:
            groups.setdefault(shard[1] + (shard[4] or ""), _Group()).shards.append(name)
        elif index:
            groups.setdefault(index[1] + (index[2] or ""), _Group()).index = name
        elif name.endswith(_SUFFIX):
            groups.setdefault(name.removesuffix(_SUFFIX), _Group()).single = name
    return groups


def _set_repeats_aside(groups: dict[str, _Group], aside: dict[str, str]) -> None:
    """Leave out what holds the same tensors once more: other precisions, and the layout of Mistral's own tools."""
    own = [stem for stem in groups if stem.startswith("consolidated")]
    for stem in list(groups):
        base = stem.partition(".")[0]
        if stem in own and len(own) < len(groups):
            reason = "the same weights in another layout"
        elif stem not in own and base != stem and base in groups:
            reason = f"a variant of {base!r}"
        else:
            continue
        own = [other for other in own if other != stem]
        group = groups.pop(stem)
        aside |= dict.fromkeys([*filter(None, [group.single]), *group.shards], reason)


def _require_all_shards(folder: Path, shards: list[str]) -> None:
    """Without an index, the names of the shards still say how many there are."""
    found = [match for name in shards if (match := _SHARD.fullmatch(name))]
    sets = {(match.string[: match.start(2)], match.string[match.end(2) :], int(match[3])) for match in found}
    present = set(shards)
    for head, tail, total in sorted(sets):
        for number in range(1, total + 1):
            if (name := f"{head}{number:05d}{tail}") not in present:
                raise FileNotFoundError(f"the file {name!r} is missing in {str(folder)!r}; fetch the checkpoint again")


def _combine(
    folder: Path, files: list[str], kind: Format, where: str, revision: str | None, aside: Mapping[str, str]
) -> DiskSource:
    shards: list[Shard] = [(file, *read_header(_locate(folder, file), str(folder / file))) for file in files]
    seen: dict[str, str] = {}
    for file, entries, _ in shards:
        for entry in entries:
            if entry.name in seen:
                raise CheckpointError(
                    f"{str(folder)!r} is damaged: tensor {entry.name!r} is in both {seen[entry.name]!r} and {file!r}; "
                    "pass the file or the index that is meant"
                )
            seen[entry.name] = file
    return _source(folder, shards, kind, where, revision, aside)


def _source(
    folder: Path, shards: list[Shard], kind: Format, where: str, revision: str | None, aside: Mapping[str, str]
) -> DiskSource:
    if not any(entries for _, entries, _ in shards):
        raise CheckpointError(f"`source` must hold at least one tensor; there is none in {where!r}")
    name = _ADAPTER_CONFIG if kind == "adapter" else "config.json"
    config = _json_object(_locate(folder, name), str(folder / name)) if os.path.lexists(folder / name) else {}
    return DiskSource(location=where, format=kind, shards=shards, config=config, set_aside=aside, revision=revision)


def _json_object(path: str, shown: str, *, unique: bool = False) -> dict[str, Any]:
    handle, stamp = open_regular(path, shown)
    with os.fdopen(handle, "rb") as stream:
        if stamp.size > MAX_JSON:
            raise CheckpointError(f"{shown!r} is damaged: a JSON file of {stamp.size} bytes is not read")
        parsed = load_json(stream.read(MAX_JSON), shown, "content", unique=unique)
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{shown!r} is damaged: it must hold a JSON object; got {describe(parsed)}")
    return parsed


# --- the index ---------------------------------------------------------------------------------------------------


def _weight_map(path: str, shown: str) -> dict[str, str]:
    table = _json_object(path, shown, unique=True).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(
            f"{shown!r} is damaged: it must have an object `weight_map` of tensor and file names; got {describe(table)}"
        )
    for name, file in table.items():
        if not isinstance(file, str) or not file.endswith(_SUFFIX):
            raise CheckpointError(f"{shown!r} must name a .safetensors file for tensor {name!r}; got {describe(file)}")
    return table


def _open_index(
    folder: Path, index: str, path: str, where: str, revision: str | None, aside: Mapping[str, str] | None = None
) -> DiskSource:
    shown = str(folder / index)
    table = _weight_map(path, shown)
    owners: dict[str, set[str]] = {}
    for name, file in table.items():
        owners.setdefault(file, set()).add(name)
    paths = {
        file: _locate(folder, file, f"{shown!r} names the file {file!r:.200} for tensor {min(owners[file])!r:.200}")
        for file in sorted(owners)
    }
    shards: list[Shard] = [(file, *read_header(paths[file], str(folder / file))) for file in paths]
    for file, entries, _ in shards:
        held = {entry.name for entry in entries}
        for name in sorted(held - owners[file]):
            says = f"says {table[name]!r}" if name in table else "does not name it"
            raise CheckpointError(f"{shown!r} contradicts its files: {name!r} is in {file!r}, but the index {says}")
        for name in sorted(owners[file] - held):
            raise CheckpointError(f"{shown!r} contradicts its files: {name!r} is not in {file!r}")
    beside = {path.name: "not named in the index" for path in sorted(folder.glob(f"*{_SUFFIX}"))} | dict(aside or {})
    beside = {name: reason for name, reason in beside.items() if name not in paths}
    return _source(folder, shards, "sharded", where, revision, beside)


# --- where a name may point ----------------------------------------------------------------------------------------


def _locate(folder: Path, name: str, claim: str = "") -> str:
    """Resolve a file name that came out of a checkpoint; it must lead to a file of the same checkpoint.

    Links are followed. The file must lie in the folder or, where the folder is a snapshot in a cache of the hub, among
    the blobs of that cache that the repo uses.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    name : str
        File name, relative to it.
    claim : str
        What an index says, for messages; empty if the name comes from the listing of the folder.

    Returns
    -------
    str
        The path without links.
    """
    origin = claim or f"{str(folder)!r} has the file {name!r:.200}"
    if claim:
        other = PureWindowsPath(name)  # a drive, a root or a backslash has no business in a checkpoint on any system
        if not name or "\0" in name or "\\" in name or other.drive or other.root or ".." in other.parts:
            raise CheckpointError(f"{origin}, which is no name inside the folder")
    try:
        root, real = Path(os.path.realpath(folder)), Path(os.path.realpath(folder / name))
        found = real.is_file()
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{origin}, which is no legal name ({error!s:.80})") from None
    if not (real.is_relative_to(root) or _is_blob(real, root)):
        raise CheckpointError(f"{origin}, which leads outside of the folder, to {str(real)!r}")
    if not found and not real.exists():
        raise FileNotFoundError(f"{origin}, which is missing" + ("" if claim else f": a link to {str(real)!r}"))
    return str(real)


def _is_blob(real: Path, root: Path) -> bool:
    """Whether a file holds the content of a file of a snapshot in a cache of the hub.

    A snapshot is a folder CACHE/models--ORG--NAME/snapshots/COMMIT. Its files are links into the folder ``blobs`` of
    the repo, whose files may themselves be links to CACHE/blobs/ab/abcd..., which all repos share.
    """
    for commit in (root, *root.parents):
        repo = commit.parent.parent
        if commit.parent.name == "snapshots" and repo.name.startswith("models--"):
            shared = _SHARED.fullmatch(real.name) is not None and real.parent == repo.parent / "blobs" / real.name[:2]
            return shared or real.parent == repo / "blobs"
    return False


# --- refusals ------------------------------------------------------------------------------------------------------


def _pickles(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.suffix.lower() in _PICKLES and not entry.name.startswith((".", *_STATE)) and entry.is_file()
    )


def _pickle_error(what: Path, files: list[Path]) -> ValueError:
    loop = "[" + ", ".join(repr(str(file)) for file in files) + "]"
    if len(files) > 4 and len({file.suffix for file in files}) == 1:
        stem = os.path.commonprefix([file.name for file in files])  # noqa: RUF071 - of names, not of paths
        loop = f"pathlib.Path({str(files[0].parent)!r}).glob({stem + '*' + files[0].suffix!r})"
    return ValueError(
        f"`source` must be a safetensors checkpoint; got {str(what)!r}, whose weights are pickles. Loading a pickle "
        "can run code that is hidden in it, so rankdiag never does. If you trust the file, convert it yourself and "
        "pass the result:\n"
        "    import pathlib, torch\n"
        "    from safetensors.torch import save_file\n"
        f"    for file in {loop}:\n"
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

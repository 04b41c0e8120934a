"""One call that opens whatever holds tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from rankdiag._optional import is_loaded
from rankdiag._validate import describe, string
from rankdiag.checkpoints._source import TensorSource

if TYPE_CHECKING:
    import torch

__all__ = ["open_source"]

Source = Union["torch.nn.Module", Mapping[str, Any], str, os.PathLike[str]]


def open_source(source: Source, *, revision: str | None = None) -> TensorSource:
    """Open a model or a checkpoint, to read its tensors one at a time or block by block.

    No model is built from a checkpoint, no pickle is loaded and torch is not imported for files on disk.

    Parameters
    ----------
    source : torch.nn.Module, mapping of str to tensor or ndarray, or path-like
        - a module: parameters and persistent buffers as its state dict names them; it is left as it is;
        - a state dict: torch tensors or numpy arrays; values of other kinds are listed as not readable;
        - a ``.safetensors`` file, or a ``.safetensors.index.json`` file;
        - a folder of HuggingFace: its index, or ``model.safetensors``, or all safetensors files in sorted order;
        - a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, as peft writes it;
        - a repo id ``"org/name"``, if there is no such path and no such folder ``org``; huggingface_hub takes it from
          its cache or downloads it.
    revision : str, optional
        Branch, tag or commit of a repo id.

    Returns
    -------
    TensorSource
        A context manager; see there.

    Raises
    ------
    TypeError
        If `source` is of another kind, or a mapping without tensors.
    ValueError
        If the weights are pickles (the message has the conversion to use), a tensor is on the meta device, or
        `revision` comes without a repo id.
    CheckpointError
        If a file is damaged, files contradict each other or the index, or a name points outside the folder. Every
        file is checked before the first tensor is read.
    FileNotFoundError
        If the path or a shard does not exist, or a repo cannot be had.
    MissingExtraError
        If `source` is a repo id and huggingface_hub is not installed.

    Notes
    -----
    Opening costs the headers only. With both an index and ``model.safetensors``, the latter is read, as transformers
    does. Files that repeat the weights (``consolidated*`` beside others, ``model.fp16.safetensors`` beside
    ``model.safetensors``, files that an index does not name) are not read, and are listed in ``set_aside``.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.checkpoints import open_source
    >>> weight = np.arange(6, dtype="float32").reshape(2, 3)
    >>> with open_source({"first.weight": weight, "tied.weight": weight}) as source:
    ...     source.format, [(info.name, info.alias_of) for info in source.tensors]
    ('state_dict', [('first.weight', None), ('tied.weight', 'first.weight')])
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(source, None if revision is None else string(revision, "revision"))
    if revision is not None:
        raise ValueError(f"`revision` is for repo ids of the hub; got {describe(revision)} with {describe(source)}")
    if _is_module(source):
        from rankdiag.checkpoints._memory import open_module

        return open_module(source)
    if isinstance(source, Mapping):
        from rankdiag.checkpoints._memory import open_state_dict

        return open_state_dict(source)
    raise TypeError(
        "`source` must be a torch module, a state dict, the path of a safetensors file or folder, or a repo id; got "
        f"{describe(source)}"
    )


def _is_module(source: object) -> bool:
    if not is_loaded("torch"):
        return False
    import torch

    return isinstance(source, torch.nn.Module)


def _open_path(source: str | os.PathLike[str], revision: str | None) -> TensorSource:
    from rankdiag.checkpoints._folder import open_path

    text = os.fspath(source)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"`source` must be the path of a safetensors file or folder; got {describe(text)}")
    path = Path(text)
    if _exists(path):
        if revision is not None:
            raise ValueError(f"`revision` is for repo ids of the hub; got {revision!r} with the path {text!r}")
        return open_path(path)
    from rankdiag.checkpoints._hub import fetch, looks_like_repo_id

    is_repo = isinstance(source, str) and looks_like_repo_id(text)
    if is_repo and (revision is not None or not path.parent.is_dir()):
        folder, commit = fetch(text, revision)
        return open_path(folder, location=text, revision=commit)
    if revision is not None:
        raise ValueError(f"`revision` is for repo ids of the hub, 'org/name'; got {revision!r} with {describe(text)}")
    hint = f", a path because the folder {str(path.parent)!r} exists" if is_repo else ""
    raise FileNotFoundError(f"`source` must be a path that exists, or a repo id 'org/name'; got {describe(text)}{hint}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise
    except OSError:  # a name too long, for one
        return False

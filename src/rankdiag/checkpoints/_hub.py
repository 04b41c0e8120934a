"""Repo ids of the HuggingFace hub: from the local cache, or downloaded by huggingface_hub."""

from __future__ import annotations

import re
from pathlib import Path

from rankdiag._optional import optional

__all__ = ["fetch", "looks_like_repo_id"]

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_JSON = ["config.json", "adapter_config.json", "*.safetensors.index.json"]


def looks_like_repo_id(source: str) -> bool:
    """Whether a string has the form ``org/name``."""
    return _REPO.fullmatch(source) is not None and not source.endswith((".safetensors", ".json"))


def fetch(repo: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder and the commit of a repo, downloading what is not in the cache.

    Parameters
    ----------
    repo : str
        Repo id ``org/name``.
    revision : str, optional
        Branch, tag or commit; None is the main branch.

    Returns
    -------
    folder : pathlib.Path
        Snapshot in the cache, with the safetensors and JSON files of the top folder of the repo.
    commit : str
        Commit that `revision` stands for.

    Raises
    ------
    MissingExtraError
        If huggingface_hub is not installed.
    FileNotFoundError
        If the repo cannot be had: not cached and offline, not there, or not open to this user.
    """
    hub = optional("huggingface_hub", extra="hf", feature=f"opening the repo id {repo!r}")
    try:
        # Mistral's consolidated files hold the same weights once more: they are taken only if nothing else is there.
        folder = _snapshot(hub, repo, revision, ["*/*", "consolidated*"])
        if not any(folder.glob("*.safetensors")):
            folder = _snapshot(hub, repo, revision, ["*/*"])
    except Exception as error:  # the hub's errors share no base class; all of them mean that there is nothing to open
        at = f" at revision {revision!r}" if revision is not None else ""
        raise FileNotFoundError(
            f"`source` must be a path that exists, or a repo of the hub that is cached or can be downloaded; got "
            f"{repo!r}{at}: {type(error).__name__}: {str(error).strip()}"
        ) from error
    return folder, folder.name


def _snapshot(hub: object, repo: str, revision: str | None, leave: list[str]) -> Path:
    return Path(
        hub.snapshot_download(  # type: ignore[attr-defined]  # an optional module has no types here
            repo, revision=revision, allow_patterns=["*.safetensors", *_JSON], ignore_patterns=leave
        )
    )

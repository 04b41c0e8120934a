"""Repo ids and the cache of the hub: laid by hand, read without a network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rankdiag import MissingExtraError
from rankdiag.checkpoints import CheckpointError, open_source

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EYE = np.eye(3, dtype=np.float32)


class Cache:
    """A cache folder as huggingface_hub lays it out."""

    def __init__(self, root: Path, repo: str = "org/name", commit: str = COMMIT) -> None:
        self.root = root
        self.repo = root / ("models--" + repo.replace("/", "--"))
        self.snapshot = self.repo / "snapshots" / commit
        for folder in (self.repo / "blobs", self.repo / "refs", self.snapshot):
            folder.mkdir(parents=True, exist_ok=True)
        (self.repo / "refs" / "main").write_text(commit)

    def put(self, name: str, content: bytes, *, shared: bool = False) -> None:
        digest = hashlib.sha256(content).hexdigest()
        blob = self.repo / "blobs" / digest
        if shared:  # content that all repos share; the blob of the repo is a link as well
            store = self.root / "blobs" / digest[:2] / digest
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_bytes(content)
            blob.symlink_to(os.path.relpath(store, blob.parent))
        else:
            blob.write_bytes(content)
        link = self.snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "hub")


def fill(cache, *, shared=False):
    parts = {f"model-0000{i}-of-00002.safetensors": f"w{i}" for i in (1, 2)}
    for number, (file, name) in enumerate(parts.items()):
        cache.put(file, save({name: EYE * (number + 1)}), shared=shared)
    table = {name: file for file, name in parts.items()}
    cache.put("model.safetensors.index.json", json.dumps({"weight_map": table}).encode())
    cache.put("config.json", b'{"model_type": "llama"}')


@pytest.mark.parametrize("shared", [False, True])
def test_a_snapshot_is_links_to_blobs(cache, shared):
    fill(cache, shared=shared)
    for path in (cache.snapshot, cache.snapshot / "model.safetensors.index.json"):
        with open_source(path) as source:
            assert source.format == "sharded"
            assert source.files == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
            assert source.config == {"model_type": "llama"}
            np.testing.assert_array_equal(source.read("w2"), 2 * EYE)
    with open_source(cache.snapshot / "model-00001-of-00002.safetensors") as source:
        np.testing.assert_array_equal(source.read("w1"), EYE)


def test_a_folder_inside_a_snapshot(cache):
    cache.put("unet/diffusion_pytorch_model.safetensors", save({"w": EYE}))
    with open_source(cache.snapshot / "unet") as source:
        np.testing.assert_array_equal(source.read("w"), EYE)


def test_a_cache_behind_a_link(cache, tmp_path):
    fill(cache)
    (tmp_path / "elsewhere").symlink_to(cache.root)
    with open_source(tmp_path / "elsewhere" / "models--org--name" / "snapshots" / COMMIT) as source:
        assert len(source) == 2


def test_messages_name_the_file_and_not_the_blob(cache):
    cache.put("model.safetensors", b"damaged on the way")
    with pytest.raises(CheckpointError, match=r"snapshots/.*/model\.safetensors' is damaged"):
        open_source(cache.snapshot)


def test_a_blob_that_was_deleted(cache):
    fill(cache)
    for blob in (cache.repo / "blobs").iterdir():
        if not blob.read_bytes().startswith(b"{"):
            blob.unlink()
    with pytest.raises(FileNotFoundError, match="which is missing"):
        open_source(cache.snapshot)


@pytest.mark.parametrize("target", ["other repo", "plain file", "other shared", "refs", "unmarked", "nested blob"])
def test_links_of_a_snapshot_to_anything_but_its_blobs(cache, tmp_path, target):
    content = save({"w": EYE})
    digest = hashlib.sha256(content).hexdigest()
    places = {
        "other repo": cache.root / "models--org--private" / "blobs" / digest,
        "plain file": tmp_path / "secret.safetensors",
        "other shared": cache.root / "blobs" / "zz" / digest,
        "refs": cache.repo / "refs" / digest,
        "unmarked": tmp_path / "blobs" / digest,
        "nested blob": cache.repo / "blobs" / "deeper" / digest,
    }
    place = places[target]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    snapshot = tmp_path / "snapshots" / COMMIT if target == "unmarked" else cache.snapshot
    snapshot.mkdir(parents=True, exist_ok=True)
    (snapshot / "model.safetensors").symlink_to(os.path.relpath(place, snapshot))
    with pytest.raises(CheckpointError, match="leads outside of the folder"):
        open_source(snapshot)


def test_the_folder_of_a_repo_points_to_its_snapshots(cache):
    fill(cache)
    with pytest.raises(CheckpointError, match=f"there are some in .*snapshots/{COMMIT}"):
        open_source(cache.repo)


# --- repo ids -------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from rankdiag.checkpoints import open_source

def outcome(source, **options):
    try:
        with open_source(source, **options) as found:
            return [found.location, found.revision, list(found.files), list(found.set_aside), found.format]
    except Exception as error:
        return [type(error).__name__, str(error)]

jobs = json.loads(sys.argv[1])
print(json.dumps([outcome(job[0], **job[1]) for job in jobs] + ["torch" in sys.modules]))
"""


def in_new_process(cache, cwd, *jobs):
    """The hub reads its environment when it is imported, so each setting needs its own process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": str(cache.root),
            "HF_HOME": str(cache.root / "home"),
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        },
    )
    return json.loads(done.stdout)


def test_repo_ids_from_the_cache_and_offline(cache, tmp_path):
    fill(cache)
    cache.put("consolidated.safetensors", save({"again": EYE}))
    mistral = Cache(cache.root, "mistral/own")
    mistral.put("consolidated.safetensors", save({"w": EYE}))
    bins = Cache(cache.root, "org/bins")
    bins.put("config.json", b"{}")
    (cache.repo / "refs" / "v1").write_text(COMMIT)
    (tmp_path / "runs").mkdir()
    found = in_new_process(
        cache,
        tmp_path,
        ("org/name", {}),
        ("org/name", {"revision": "v1"}),
        ("org/name", {"revision": COMMIT}),
        ("mistral/own", {}),
        ("org/name", {"revision": "absent"}),
        ("org/absent", {}),
        ("org/bins", {}),
        ("runs/step-100", {}),
        ("gpt2", {}),
        ("a/b/c", {}),
        ("bad--name/..x", {}),
    )
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert found[0] == ["org/name", COMMIT, shards, ["consolidated.safetensors"], "sharded"]
    assert found[1] == found[2] == found[0]
    assert found[3] == ["mistral/own", COMMIT, ["consolidated.safetensors"], [], "safetensors"]
    assert found[4][0] == "FileNotFoundError"
    assert "'org/name' at revision 'absent'" in found[4][1]
    assert found[5][0] == "FileNotFoundError"
    assert "a repo of the hub that is cached or can be downloaded; got 'org/absent'" in found[5][1]
    assert "HF_HUB_OFFLINE" in found[5][1]
    assert found[6][0] == "CheckpointError"
    assert "no .safetensors file" in found[6][1]
    assert found[7][0] == "FileNotFoundError"
    assert "a path because the folder 'runs' exists" in found[7][1]
    for outcome in found[8:11]:
        assert outcome[0] == "FileNotFoundError"
        assert "repo id 'org/name'" in outcome[1] or "HFValidationError" in outcome[1]
    assert found[-1] is False


def test_without_the_hub_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"opening the repo id 'org/name' .*rankdiag\[hf\]"):
        open_source("org/name")


def test_revision_is_for_repo_ids_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "name").mkdir(parents=True)
    for source in ("org/name", tmp_path, {"w": EYE}, "a/b/c"):
        with pytest.raises(ValueError, match="`revision` is for repo ids of the hub"):
            open_source(source, revision="main")
    with pytest.raises(TypeError, match="`revision` must be a string"):
        open_source("org/name", revision=3)

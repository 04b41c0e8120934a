"""Files appear whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankdiag import _files
from rankdiag._files import write_text

OLD = "what was there before\n"


def leftovers(folder, *known):
    return sorted(path.name for path in folder.iterdir() if path.name not in known)


def test_a_new_file(tmp_path):
    path = write_text(tmp_path / "a.txt", "é\r\n€\n")
    assert path == tmp_path / "a.txt"
    assert path.read_bytes() == "é\r\n€\n".encode()
    assert leftovers(tmp_path, "a.txt") == []


def test_the_path_may_be_a_text_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_text("a.txt", "x") == Path("a.txt")
    assert (tmp_path / "a.txt").read_text() == "x"


def test_an_old_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(OLD * 1000)
    write_text(path, "new")
    assert path.read_text() == "new"


def test_halves_of_surrogate_pairs_are_escaped(tmp_path):
    assert write_text(tmp_path / "a.txt", "a\ud800b").read_bytes() == b"a\\ud800b"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_of_a_new_file_are_those_of_the_system(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = write_text(tmp_path / "a.txt", "x")
        now = os.umask(mask)
    finally:
        os.umask(before)
    assert now == mask
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_permissions_of_an_old_file_are_kept(tmp_path, mode):
    path = tmp_path / "a.txt"
    path.write_text(OLD)
    path.chmod(mode)
    write_text(path, "x")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_missing_folder(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"`path` must lie in a folder that exists; create that of '.*a\.txt' first"
    ):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "a", "", "."):
        with pytest.raises(IsADirectoryError, match="`path` must be that of a file"):
            write_text(path, "x")
    assert leftovers(tmp_path, "a") == []


@pytest.mark.parametrize("path", [None, 3, b"a.txt", ["a"], object()])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match="`path` must be"):
        write_text(path, "x")


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_names_that_no_file_can_have_are_refused(path):
    with pytest.raises(ValueError, match="`path` must be a name that a file can have"):
        write_text(path, "x")


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.txt"
    target.write_text(OLD)
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    """On a terminal of its own: a fault that replaced /dev/null would hurt the whole machine."""
    reader, terminal = os.openpty()
    try:
        link = tmp_path / "device"
        link.symlink_to(os.ttyname(terminal))
        write_text(link, "x")
        assert os.read(reader, 10) == b"x"
        assert stat.S_ISCHR(link.stat().st_mode)
    finally:
        os.close(reader)
        os.close(terminal)


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(
        [sys.executable, "-c", f"print(open({str(pipe)!r}).read())"], stdout=subprocess.PIPE, text=True
    )
    write_text(pipe, "through")
    assert reader.communicate(timeout=20)[0] == "through\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("step", ["fsync", "fdopen", "replace", "write"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_at_any_step_keeps_the_old_file(tmp_path, monkeypatch, step, error):
    path = tmp_path / "a.txt"
    path.write_text(OLD)

    def fail(*args, **kwargs):
        raise error

    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    elif step == "write":
        monkeypatch.setattr(_files.os, "fsync", lambda number: fail() if path.read_text() == OLD else None)
    elif step == "fdopen":

        def fail_and_close(handle, mode):
            os.close(handle)
            raise error

        monkeypatch.setattr(_files.os, "fdopen", fail_and_close)
    else:
        monkeypatch.setattr(_files.os, "fsync", fail)
    with pytest.raises(type(error)):
        write_text(path, "new" * 100)
    monkeypatch.undo()
    assert path.read_text() == OLD
    assert leftovers(tmp_path, "a.txt") == []


def test_a_full_disk_keeps_the_old_file(tmp_path):
    """The system itself refuses the write: files of this process may not grow beyond 4 KB."""
    path = tmp_path / "a.txt"
    path.write_text(OLD)
    script = (
        "import resource, signal, sys\n"
        "from rankdiag._files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_text(sys.argv[1], 'x' * 100_000)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "OSError" in process.stderr
    assert path.read_text() == OLD
    assert leftovers(tmp_path, "a.txt") == []


def test_a_killed_process_keeps_the_old_file(tmp_path):
    """Kill a process that writes over and over: whatever is there is whole."""
    path = tmp_path / "a.txt"
    path.write_text("0" * 200_000)
    script = (
        "import sys\n"
        "from rankdiag._files import write_text\n"
        "for i in range(10**6):\n"
        "    write_text(sys.argv[1], str(i % 10) * 200_000)\n"
        "    print(i, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(5):
            process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    text = path.read_text()
    assert len(text) == 200_000
    assert len(set(text)) == 1

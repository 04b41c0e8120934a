"""Public names that load on first use."""

import subprocess
import sys

import pytest

from rankdiag._lazy import attach


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A real package on a real path, with a name that loads, one that does not exist and one that breaks."""
    folder = tmp_path / "lazypkg"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from rankdiag._lazy import attach\n"
        "here = 1\n"
        "__getattr__, __dir__, __all__ = attach(__name__, {'f': 'lazypkg._impl', 'gone': 'lazypkg._impl',\n"
        "    'broken': 'lazypkg._broken'}, ('part',))\n"
    )
    (folder / "_impl.py").write_text("def f():\n    return 3\n")
    (folder / "_broken.py").write_text("raise RuntimeError('half written')\n")
    (folder / "part.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__("lazypkg")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazypkg"]:
        del sys.modules[name]


def test_names_load_on_first_use_and_stay(package):
    assert "lazypkg._impl" not in sys.modules
    assert package.f() == 3
    assert vars(package)["f"] is sys.modules["lazypkg._impl"].f
    assert "lazypkg.part" not in sys.modules
    assert package.part.value == 7


def test_listing(package):
    assert package.__all__ == ["broken", "f", "gone", "part"]
    assert {"broken", "f", "gone", "part", "here", "__name__"} <= set(dir(package))
    assert "lazypkg._impl" not in sys.modules


def test_what_is_not_there(package):
    with pytest.raises(AttributeError, match="module 'lazypkg' has no attribute 'nothing'"):
        _ = package.nothing
    assert not hasattr(package, "nothing")
    with pytest.raises(AttributeError, match="gone"):
        _ = package.gone
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from lazypkg import nothing")


def test_an_error_while_loading_is_shown_and_not_hidden(package):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half written"):
            _ = package.broken


def test_from_import_and_star(package):
    namespace = {}
    exec("from lazypkg import f, part", namespace)
    assert namespace["f"]() == 3
    with pytest.raises((AttributeError, RuntimeError)):
        exec("from lazypkg import *", namespace)  # loads every name, so the broken one shows


def test_attach_returns_sorted_names():
    getattr_, dir_, all_ = attach("rankdiag", {"z": "x", "a": "x"}, ["m"])
    assert all_ == ["a", "m", "z"]
    assert callable(getattr_)
    assert "a" in dir_()


def test_many_threads_may_ask_first(tmp_path):
    """The first use of a lazy name from many threads at once gives every thread the same object."""
    script = (
        "import threading, rankdiag as rd\n"
        "start = threading.Barrier(8)\n"
        "seen = []\n"
        "def ask():\n"
        "    start.wait()\n"
        "    seen.append(rd.effective_rank)\n"
        "threads = [threading.Thread(target=ask) for _ in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "assert len(seen) == 8 and len(set(map(id, seen))) == 1, seen\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr

"""Progress bars: off, on a terminal, off a terminal, without tqdm."""

import io
import sys

import pytest

from rankdiag._progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_off_costs_nothing_and_imports_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(False, total=3) as bar:
        bar.advance()
        bar.advance(2, note="layer 1")
    assert terminal.getvalue() == ""


def test_a_terminal_gets_a_bar_on_standard_error(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(True, total=3, label="reading", unit="tensor") as bar:
        bar.advance(note="layer 1")
        bar.advance(2)
    assert "reading" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_the_bar_counts_and_says_what_is_at_hand(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Progress(True, total=3, label="reading", unit="tensor")
    bar.advance(note="layer 1")
    bar.advance(2)
    bar._bar.refresh()
    assert bar._bar.n == 3
    assert "3/3" in terminal.getvalue()
    assert "layer 1" in terminal.getvalue()
    bar.advance(0, note="")
    bar._bar.refresh()
    assert terminal.getvalue().strip().endswith("layer 1]")  # no note keeps the last one
    inner = bar._bar
    bar.close()
    assert inner.disable


def test_off_a_terminal_nothing_is_drawn(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(True, total=3, label="reading") as bar:
        bar.advance(3)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("blocked", ["tqdm", "tqdm.auto"])
def test_without_tqdm_the_work_goes_on(monkeypatch, blocked):
    monkeypatch.setitem(sys.modules, blocked, None)
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    if blocked == "tqdm.auto":
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(True, total=3) as bar:
        bar.advance(3, note="x")
    assert terminal.getvalue() == ""


def test_a_broken_tqdm_does_not_stop_the_work(monkeypatch):
    import tqdm.auto

    def broken(**options):
        raise RuntimeError("no widgets")

    monkeypatch.setattr(tqdm.auto, "tqdm", broken)
    with Progress(True, total=3) as bar:
        bar.advance(3)


def test_without_standard_error_the_work_goes_on(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(True, total=3) as bar:
        bar.advance(3)
        assert bar._bar is None


def test_the_bar_goes_away_after_an_error_and_may_be_closed_twice(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = Progress(True, total=3)
    with pytest.raises(KeyError), bar:
        raise KeyError("x")
    bar.close()
    bar.advance()


@pytest.mark.parametrize("value", [1, "yes", None])
def test_the_option_is_checked(value):
    with pytest.raises(TypeError, match="`progress` must be True or False"):
        Progress(value)

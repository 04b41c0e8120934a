"""Optional packages: missing, broken, too old, healthy."""

import subprocess
import sys
import textwrap

import pytest

from rankdiag._optional import MissingExtraError, is_loaded, optional

PACKAGES = {
    "healthy": "value = 3",
    "raises": "raise RuntimeError('the driver is too old')",
    "leaves": "raise SystemExit(3)",
    "needs_more": "import a_package_that_nobody_has",
    "syntax": "def broken(:",
    "divides": "1 / 0",
    "unnamed": "raise ModuleNotFoundError('no name')",
}

SCRIPT = """
from rankdiag._optional import MissingExtraError, optional
import sys
try:
    module = optional({module!r}, extra="plot", feature="drawing")
except MissingExtraError as error:
    assert isinstance(error, ImportError)
    assert error.__cause__ is not None
    print(error.name, "|", error, "|", type(error.__cause__).__name__)
else:
    print("value", module.value)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Try every package in one real process, where it can really fail."""
    folder = tmp_path_factory.mktemp("packages")
    for name, source in PACKAGES.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(source)
    modules = [*PACKAGES, "absent", "absent.part", "healthy.part"]
    script = "\n".join(SCRIPT.format(module=module) for module in modules)
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(f"import sys\nsys.path.insert(0, {str(folder)!r})\n") + script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return dict(zip(modules, process.stdout.splitlines(), strict=True))


def test_a_healthy_package(answers):
    assert answers["healthy"] == "value 3"


@pytest.mark.parametrize("module", ["absent", "absent.part"])
def test_a_missing_package(answers, module):
    name, text, cause = answers[module].split(" | ")
    assert name == "absent"
    assert text == (
        "drawing needs the package 'absent', which is not installed. Run: python -m pip install \"rankdiag[plot]\""
    )
    assert cause == "ModuleNotFoundError"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("raises", "RuntimeError: the driver is too old"),
        ("leaves", "SystemExit: 3"),
        ("needs_more", "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"),
        ("syntax", "SyntaxError"),
        ("divides", "ZeroDivisionError"),
        ("unnamed", "ModuleNotFoundError: no name"),
        ("healthy.part", "No module named 'healthy.part'"),
    ],
)
def test_a_broken_package_is_not_called_missing(answers, module, words):
    name, text, _ = answers[module].split(" | ")
    assert name == module.partition(".")[0]
    assert "which is installed but failed to import" in text
    assert words in text
    assert text.endswith('Repair it with: python -m pip install "rankdiag[plot]" --upgrade')


def test_is_loaded(monkeypatch):
    assert is_loaded("sys")
    assert not is_loaded("absent")
    monkeypatch.setitem(sys.modules, "blocked", None)
    assert not is_loaded("blocked")
    with pytest.raises(MissingExtraError, match="'blocked', which is not installed"):
        optional("blocked", extra="x", feature="this")


def test_an_interrupt_passes_through(tmp_path, monkeypatch):
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        optional("interrupted", extra="x", feature="this")


@pytest.mark.parametrize("name", ["raises", "leaves", "needs_more"])
def test_broken_packages_in_this_process(tmp_path, monkeypatch, name):
    (tmp_path / f"rankdiag_test_{name}.py").write_text(PACKAGES[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=f"'rankdiag_test_{name}', which is installed but failed") as caught:
        optional(f"rankdiag_test_{name}", extra="x", feature="this")
    assert caught.value.name == f"rankdiag_test_{name}"

"""The package works without any optional package, and with every one of them broken."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# An object may need an optional package for all it does; then its example ends in the error that names the extra.
SCRIPT = r"""
import doctest, importlib, inspect, json, sys, traceback, warnings
sys.path.insert(0, sys.argv[1])
packages = json.loads(sys.argv[3])

if sys.argv[2] == "missing":
    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Blocker())
else:
    sys.path.insert(0, sys.argv[4])

import rankdiag
from rankdiag import MissingExtraError

def blocked(error):
    return isinstance(error, MissingExtraError) and 'pip install "rankdiag[' in str(error)

class Runner(doctest.DocTestRunner):
    def report_unexpected_exception(self, out, test, example, info):
        text = "".join(traceback.format_exception(*info))[-800:]
        kinds["named" if blocked(info[1]) else "bad"].append((test.name, text))
    def report_failure(self, out, test, example, got):
        kinds["bad"].append((test.name, f"{example.source}: expected {example.want!r}, got {got!r}"))

kinds = {"named": [], "bad": [], "passed": []}
runner, finder = Runner(verbose=False, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE), doctest.DocTestFinder()
warnings.simplefilter("error")
seen = set()
from meta.surface import module_names
for name in json.loads(sys.argv[5]):
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        kinds["named" if blocked(error) else "bad"].append((name, str(error)))
        continue
    for public in module.__all__:
        try:
            value = getattr(module, public)
        except MissingExtraError:  # a public module that needs an extra; it is in the list by itself
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if inspect.isclass(value) or inspect.isfunction(value):
            for test in finder.find(value, f"{name}.{public}", globs={"__name__": "__main__"}):
                if test.examples:
                    before = len(kinds["named"]) + len(kinds["bad"])
                    runner.run(test, clear_globs=True)
                    if len(kinds["named"]) + len(kinds["bad"]) == before:
                        kinds["passed"].append(test.name)
spectrum = rankdiag.spectrum([[3.0, 0.0], [0.0, 1.0]])
shown = {"text": spectrum.summary(), "json": spectrum.to_json(), "html": spectrum._repr_html_()}
try:
    spectrum.plot()
except MissingExtraError as error:
    kinds["named"].append(("plot", str(error)))
loaded = sorted(package for package in packages if sys.modules.get(package) is not None)
print(json.dumps({**kinds, "loaded": loaded, "shown": {key: len(value) for key, value in shown.items()}}))
"""


def optional_packages() -> list[str]:
    """Read the extras of pyproject.toml and return the import names of their packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in project["dependencies"]}
    wanted = set()
    for extra, lines in project["optional-dependencies"].items():
        if extra not in {"dev", "all"}:
            wanted |= {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in lines}
    by_distribution: dict[str, list[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            by_distribution.setdefault(distribution.lower(), []).append(module)
    names = [module for dist in sorted(wanted - required) for module in by_distribution.get(dist, [dist])]
    return sorted(name for name in set(names) if name.isidentifier() and not name.startswith("_"))


def test_the_list_is_the_one_of_pyproject():
    packages = optional_packages()
    assert {"transformers", "matplotlib", "pandas", "sklearn", "hypothesis", "torch_geometric", "tqdm"} <= set(packages)
    assert not {"numpy", "scipy", "torch", "safetensors", "networkx"} & set(packages)


@pytest.fixture(scope="module", params=["missing", "broken"])
def answers(request, tmp_path_factory):
    from meta.surface import module_names

    folder = tmp_path_factory.mktemp("broken")
    packages = optional_packages()
    if request.param == "broken":
        packages.remove("tqdm")  # torch itself fails with a broken tqdm; that case has a test of its own
    for package in packages:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("raise RuntimeError('this package is broken on purpose')\n")
    names = [name for name in module_names() if not name.startswith("rankdiag.cli")]
    work = tmp_path_factory.mktemp("work")  # examples that write files write them here
    arguments = [str(ROOT / "tests"), request.param, json.dumps(packages), str(folder), json.dumps(names)]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False, cwd=work
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return {**json.loads(process.stdout.splitlines()[-1]), "how": request.param, "packages": packages}


def test_every_example_runs_or_names_the_extra(answers):
    assert answers["bad"] == []
    assert len(answers["passed"]) >= 20


def test_the_numpy_rooms_need_none_of_them(answers):
    named = {name for name, _ in answers["named"]}
    assert not [name for name in named if name.startswith("rankdiag.spectral")]
    assert any(name.startswith("rankdiag.spectral") for name in answers["passed"])
    assert any(name.startswith("rankdiag.weights") for name in answers["passed"])
    assert any(name.startswith("rankdiag.report") for name in answers["passed"])


def test_results_can_still_be_shown(answers):
    assert all(answers["shown"].values())


def test_the_error_says_what_is_wrong_and_what_to_run(answers):
    texts = dict(answers["named"])
    assert "plot" in texts
    assert "rankdiag.testing.strategies" in texts
    for text in texts.values():
        assert 'python -m pip install "rankdiag[' in text
        words = (
            "which is not installed" if answers["how"] == "missing" else "failed to import (RuntimeError: this package"
        )
        assert words in text


def test_nothing_slipped_through(answers):
    assert answers["loaded"] == []


def test_a_broken_tqdm_stops_no_numpy_room(tmp_path):
    (tmp_path / "tqdm").mkdir()
    (tmp_path / "tqdm" / "__init__.py").write_text("raise RuntimeError('broken on purpose')\n")
    script = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "import numpy as np, rankdiag as rd\n"
        "report = rd.weight_report({'w': np.diag([3.0, 1.0])}, progress=True)\n"
        "print(len(report), rd.effective_rank(np.eye(2)))\n"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.stdout == "1 2.0\n", process.stderr


def test_the_extra_that_an_error_names_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    named = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r'extra="([a-z_]+)"', path.read_text(encoding="utf-8")))
    assert named
    assert named <= extras

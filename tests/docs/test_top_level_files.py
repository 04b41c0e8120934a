"""The files at the top say the same as the code and as each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rankdiag

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def package(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def group(name: str) -> set[str]:
    entries: set[str] = set()
    for entry in PROJECT["dependency-groups"][name]:
        entries |= group(entry["include-group"]) if isinstance(entry, dict) else {entry}
    return entries


def test_group_and_extra_list_the_same_tools() -> None:
    assert group("dev") == set(EXTRAS["dev"])


def test_extras_are_those_that_the_readme_names() -> None:
    own = {"hf", "parquet", "datasets", "trl", "ray", "plot", "tables", "graph", "sklearn", "metrics", "testing"}
    assert set(EXTRAS) == own | {"all", "dev"}
    for name in EXTRAS:
        assert f"`{name}`" in text("README.md")


def test_extra_all_is_the_sum_of_the_others() -> None:
    named = re.fullmatch(r"rankdiag\[(.*)\]", EXTRAS["all"][0])
    assert named is not None
    assert set(named[1].split(",")) == set(EXTRAS) - {"all", "dev"}


def test_no_requirement_has_an_upper_bound() -> None:
    requirements = [*PROJECT["project"]["dependencies"], *(entry for name in EXTRAS for entry in EXTRAS[name])]
    assert not [entry for entry in requirements if "<" in entry or "==" in entry]


def test_every_requirement_is_pinned() -> None:
    pins = dict(line.split("==") for line in text("constraints.txt").splitlines() if line and line[0] != "#")
    assert pins["torch"] == "2.13.0"
    assert not [name for name, version in pins.items() if "+" in version]
    names = {name.lower().replace("_", "-") for name in pins}
    requirements = [*PROJECT["project"]["dependencies"], *(entry for name in EXTRAS for entry in EXTRAS[name])]
    assert {package(entry) for entry in requirements} - {"rankdiag"} <= names
    assert "rankdiag" not in names


def test_readme_has_the_two_commands() -> None:
    lines = text("README.md").splitlines()
    assert lines.count('python -m pip install -c constraints.txt ".[all]" && rankdiag demo') == 1
    assert lines.count('python -m pip install -c constraints.txt -e ".[all,dev]" && python -m pytest') == 1


def test_rooms_stand_where_the_readme_says_so() -> None:
    states = dict(re.findall(r"^\| `(\w+)` \| .* \| (stands|planned) \|$", text("README.md"), re.MULTILINE))
    assert len(states) == 14
    source = Path(rankdiag.__file__).parent
    assert {name for name, state in states.items() if state == "stands"} == {
        name for name in states if (source / name / "__init__.py").is_file()
    }


def test_version_is_said_once_and_repeated_rightly() -> None:
    assert f"\nversion: {rankdiag.__version__}\n" in text("CITATION.cff")


def test_ledger_has_its_rows() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", text("docs/reproduction.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 20))
    assert {row.count("|") for _, row in rows} == {6}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/index.md", "docs/start.md"])
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text(page))
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert not missing


def test_hooks_and_script_are_well_formed() -> None:
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

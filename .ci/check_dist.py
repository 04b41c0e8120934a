"""Check what the built wheel and source archive hold: `python .ci/check_dist.py FOLDER`."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of this kind, or stop."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"expected one {pattern} in {folder}; found {[path.name for path in found]}")
    return found[0]


def main(folder: Path) -> int:
    """Compare both archives with the files of the source tree."""
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "rankdiag").rglob("*")
        if (path.is_file() and path.suffix in {".py", ".pyi", ".typed"}) or path.name == "py.typed"
    }
    with zipfile.ZipFile(only(folder, "*.whl")) as archive:
        wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
        extra = [name for name in archive.namelist() if ".dist-info/" in name]
    with tarfile.open(only(folder, "*.tar.gz")) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    needed = {f"src/{name}" for name in package} | {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "constraints.txt",
    }
    problems = [f"the wheel lacks {name}" for name in sorted(package - wheel)]
    problems += [f"the wheel also holds {name}" for name in sorted(wheel - package) if not name.endswith("/")]
    problems += [f"the source archive lacks {name}" for name in sorted(needed - source)]
    for wanted in ("LICENSE", "entry_points.txt", "METADATA"):
        if not any(name.endswith(wanted) for name in extra):
            problems.append(f"the wheel lacks {wanted} among its metadata")
    stubs = sorted(name for name in wheel if name.endswith((".pyi", "py.typed")))
    print(f"wheel: {len(wheel)} files, types: {', '.join(stubs)}")
    print(f"source archive: {len(source)} entries")
    for problem in problems:
        print(problem)
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

"""What `import rankdiag` costs, and what it may not load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BUDGET = 0.5  # seconds of CPU; the goal is half of it
HEAVY = (
    "torch",
    "transformers",
    "matplotlib",
    "pandas",
    "networkx",
    "scipy",
    "sklearn",
    "tensorly",
    "numpy",  # an array library costs more than half of the goal, so it waits for the first reading
    "hypothesis",
    "safetensors",
    "tqdm",
)
MEASURE = """
import json, sys, time
before = set(sys.modules)
start = time.process_time()
{code}
seconds = time.process_time() - start
print(json.dumps({{"seconds": seconds, "modules": sorted(set(sys.modules) - before)}}))
"""


def measured(code: str, repeats: int = 3) -> dict:
    """Run code in a fresh interpreter and return its cheapest CPU time and the modules it loaded."""
    best = None
    for _ in range(repeats):
        command = [sys.executable, "-c", MEASURE.format(code=code)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        found = json.loads(process.stdout.splitlines()[-1])
        if best is None or found["seconds"] < best["seconds"]:
            best = found
    return best


def test_import_is_cheap_and_loads_nothing_heavy(record_property):
    found = measured("import rankdiag")
    loaded = {name.partition(".")[0] for name in found["modules"]}
    assert sorted(loaded & set(HEAVY)) == []
    assert found["seconds"] <= BUDGET
    ours = [name for name in found["modules"] if name.startswith("rankdiag")]
    assert len(ours) <= 5, ours
    record_property("import_seconds", found["seconds"])
    record_property("import_modules", len(found["modules"]))


def test_costs_are_printed(capsys, record_property):
    """State the cost beyond a bare interpreter, beyond numpy, and of the first use of a reading."""
    costs = {
        "import rankdiag": measured("import rankdiag"),
        "import numpy": measured("import numpy"),
        "import numpy, rankdiag": measured("import numpy, rankdiag"),
        "first effective_rank": measured(
            "import rankdiag as rd\nassert abs(rd.effective_rank([[3.0, 0.0], [0.0, 1.0]]) - 1.754765) < 1e-6"
        ),
        "rankdiag.report": measured("import rankdiag.report"),
        "rankdiag.cli": measured("import rankdiag.cli"),
    }
    numpy = costs["import numpy"]["seconds"]
    with capsys.disabled():
        print()
        for name, found in costs.items():
            print(f"  {name:<24} {found['seconds']:.3f} s CPU, {len(found['modules'])} modules")
        print(f"  beyond numpy: import {costs['import numpy, rankdiag']['seconds'] - numpy:.3f} s, ", end="")
        print(f"first reading {costs['first effective_rank']['seconds'] - numpy:.3f} s")
    for name, found in costs.items():
        record_property(name, found["seconds"])
    assert costs["import numpy, rankdiag"]["seconds"] - numpy <= BUDGET


@pytest.mark.parametrize(
    "code", ["import rankdiag.spectral, rankdiag as rd\nrd.effective_rank([[1.0]])", "import rankdiag.cli"]
)
def test_first_use_loads_no_framework(code):
    loaded = {name.partition(".")[0] for name in measured(code, repeats=1)["modules"]}
    assert sorted(loaded & {"torch", "transformers", "matplotlib", "pandas", "networkx", "sklearn", "tensorly"}) == []
    assert "scipy.stats" not in measured(code, repeats=1)["modules"]


def test_importing_any_room_loads_no_framework_and_leaves_no_trace():
    script = """
import numpy  # so that its own traces are not taken for ours
import rankdiag
from rankdiag.testing import no_global_change
with no_global_change():
    for name in rankdiag.__all__:
        if name != "score_preferences":  # it runs a model, so torch is what it is made of
            getattr(rankdiag, name)
"""
    found = measured(script, repeats=1)
    loaded = {name.partition(".")[0] for name in found["modules"]}
    assert sorted(loaded & {"torch", "transformers", "matplotlib", "pandas", "networkx", "sklearn", "tensorly"}) == []
    assert "scipy.stats" not in found["modules"]

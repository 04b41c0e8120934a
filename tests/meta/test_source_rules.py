"""Rules of the source that no linter here knows."""

from __future__ import annotations

import ast
import pkgutil
import tomllib
from pathlib import Path

import pytest

import rankdiag

PACKAGE = Path(rankdiag.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Code that is torch code through and through, loaded only when it is used.
TORCH_MODULES = {
    "graphs/_product_gnn.py",
    "spectral/losses.py",
    "monitors/_reward_metric.py",
    "preference/losses.py",
    *(
        f"rewards/{name}.py"
        for name in ("_gradient_norm", "_gradient_runs", "_hf_sampler", "_jacobian", "_model_rewards", "_token_cues")
    ),
    *(f"preference/{name}.py" for name in ("_levels", "_model_pairs", "_score_pairs", "_sequences")),
    *(
        f"language_models/_{name}.py"
        for name in (
            *(
                "along",
                "batch_fn",
                "checks",
                "context",
                "fingerprint",
                "gradients",
                "head",
                "head_outputs",
                "model",
                "outputs",
            ),
            *("plan", "run"),
        )
    ),
}
HEAVY = {"transformers", "peft", "matplotlib", "pandas", "sklearn", "networkx", "tensorly", "tqdm", "huggingface_hub"}
FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "print": "results and reports return text; the command line writes it",
    "breakpoint": "stops the program",
    "np.random.seed": "touches the global state of numpy",
    "numpy.random.seed": "touches the global state of numpy",
    "np.random.rand": "draws from the global state of numpy",
    "np.random.randn": "draws from the global state of numpy",
    "np.seterr": "changes global state; use np.errstate",
    "torch.manual_seed": "touches the global state of torch",
    "torch.set_default_dtype": "changes global state",
    "torch.set_grad_enabled": "changes global state; use torch.no_grad",
    "torch.set_num_threads": "changes global state",
    "tl.set_backend": "changes global state; use a context",
    "tensorly.set_backend": "changes global state; use a context",
    "warnings.simplefilter": "changes filters of the whole process",
    "warnings.filterwarnings": "changes filters of the whole process",
    "logging.basicConfig": "takes over the logging of the whole process",
    "os.system": "runs a shell",
    "os.chdir": "changes the working directory of the whole process",
    "os.umask": "changes the permissions of files of other threads",
    "np.load": "may unpickle",
    "torch.load": "may unpickle",
}
# The same, where a file has a reason.
ALLOWED = {
    "adapters/_graph_files.py": {"np.load"},  # with allow_pickle=False
    "cli/rewards/_arrays.py": {"np.load"},  # with allow_pickle=False
    "preference/_score_pairs.py": {"np.load"},  # with allow_pickle=False
    "cli/sections/preference.py": {"torch.manual_seed", "torch.set_num_threads"},  # as in the section on weights
    "rewards/_hf_sampler.py": {"torch.manual_seed"},  # inside of fork_rng: transformers draws from the global state
    "_warnings.py": {"warnings.filterwarnings"},  # inside catch_warnings, from one thread at a time
    "testing/_observe.py": {"warnings.simplefilter"},  # inside catch_warnings, to record
    # inside fork_rng, for models that draw from global state; the number of threads is put back
    "cli/sections/weights.py": {"torch.manual_seed", "torch.set_num_threads"},
}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "subprocess", "yaml"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def at_module_level(tree: ast.Module):
    """Yield the statements that run at import: those of the module, of its classes, and of its branches."""
    stack = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING"):
            stack += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            stack += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_there_are_files():
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_forbidden_call(path):
    allowed = ALLOWED.get(name_of(path), set())
    found = [
        f"line {node.lineno}: {dotted(node.func)} {FORBIDDEN_CALLS[dotted(node.func)]}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and dotted(node.func) in FORBIDDEN_CALLS.keys() - allowed
    ]
    assert found == []


def test_every_exception_is_in_use():
    for name, calls in ALLOWED.items():
        tree = tree_of(PACKAGE / name)
        assert calls <= {dotted(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_the_floors_name_every_module():
    """A module that no contract of import-linter names could import anything."""
    root = Path(__file__).parents[2]
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    floors = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    bound = {
        name
        for contract in contracts
        if "rankdiag.testing" in contract.get("forbidden_modules", ())
        for name in contract["source_modules"]
    }
    present = {f"rankdiag.{info.name}" for info in pkgutil.iter_modules([str(PACKAGE)]) if info.name != "__main__"}
    assert floors == present - {"rankdiag.testing"}
    assert bound == floors


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_forbidden_module(path):
    roots = {name.partition(".")[0] for node in ast.walk(tree_of(path)) for name in imported(node)}
    assert sorted(roots & FORBIDDEN_MODULES) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_assert_no_bare_except_no_relative_import(path):
    found = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert) and "noqa: S101 - " not in lines[node.lineno - 1]:
            found.append(f"line {node.lineno}: assert vanishes under python -O")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"line {node.lineno}: relative import")
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_import_nothing_heavy_when_they_are_imported(path):
    roots = {name.partition(".")[0] for node in at_module_level(tree_of(path)) for name in imported(node)}
    heavy = HEAVY | (set() if name_of(path) in TORCH_MODULES else {"torch"})
    if not name_of(path).startswith("testing/"):
        heavy |= {"hypothesis"}
    assert sorted(roots & heavy) == []
    names = {name for node in at_module_level(tree_of(path)) for name in imported(node)}
    assert not [name for name in names if name.partition(".")[0] == "scipy"], "scipy is imported inside functions"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_optional_packages_are_imported_through_the_helper(path):
    """A plain import of an optional package would fail without naming the extra that brings it."""
    optional = {
        "transformers",
        "peft",
        "matplotlib",
        "pandas",
        "sklearn",
        "huggingface_hub",
        "hypothesis",
        "torchmetrics",
        "torch_geometric",
    }
    found = []
    tree = tree_of(path)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        roots = {name.partition(".")[0] for name in imported(node)}
        if roots & optional and id(node) not in guarded:
            found.append(f"line {node.lineno}: {sorted(roots & optional)}")
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_state_their_encoding(path):
    """Text is UTF-8 on every system, not what the locale says."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            name = dotted(node.func).rpartition(".")[2]
            keywords = {keyword.arg for keyword in node.keywords}
            if (
                name in {"read_text", "write_text"}
                and isinstance(node.func, ast.Attribute)
                and "encoding" not in keywords
            ):
                found.append(f"line {node.lineno}: {name}")
    assert found == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_unfinished_marks(path):
    text = path.read_text(encoding="utf-8")
    for mark in ("TODO", "FIXME", "XXX", "HACK"):
        assert mark not in text
    for number, line in enumerate(text.splitlines(), 1):
        if "# noqa" in line or "type: ignore" in line:
            reason = line.split("# noqa")[-1] if "# noqa" in line else line.split("type: ignore")[-1]
            assert "-" in reason or "#" in reason, f"line {number} silences a tool without a reason"

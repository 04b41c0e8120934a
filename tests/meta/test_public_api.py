"""The public surface is what the checked-in snapshot says, and every module says what it exports.

After a deliberate change: ``python tests/meta/test_public_api.py --write``.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
from functools import partial
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("public_api.txt")
ROOT = Path(__file__).parents[2]
if __name__ == "__main__":  # as a script, this file finds its neighbours by itself
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

import pytest  # noqa: E402 - after the path is set

from meta.surface import (  # noqa: E402 - after the path is set
    Entry,
    all_module_names,
    classes,
    entries,
    functions,
    method_entries,
    methods,
    module_names,
    modules,
)


def signature(value) -> str:
    """Write a signature as in source: annotations without quotes."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parts, marked = [], False
    parameters = list(found.parameters.values())
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_POSITIONAL:
            marked = True
        if parameter.kind is parameter.KEYWORD_ONLY and not marked:
            parts.append("*")
            marked = True
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = f"{star}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {default(parameter.default)}"
        parts.append(text)
        last = index + 1 == len(parameters) or parameters[index + 1].kind is not parameter.POSITIONAL_ONLY
        if parameter.kind is parameter.POSITIONAL_ONLY and last:
            parts.append("/")
    returns = "" if found.return_annotation is found.empty else f" -> {annotation(found.return_annotation)}"
    return f"({', '.join(parts)}){returns}"


def annotation(value) -> str:
    return value if isinstance(value, str) else inspect.formatannotation(value)


def default(value) -> str:
    text = repr(value)
    return "..." if " at 0x" in text or text.startswith("<") or "version=" in text else text


def described(entry: Entry) -> list[str]:
    if entry.kind == "value":
        return [f"{entry.name}: {type(entry.value).__name__}"]
    if entry.kind == "function":
        return [f"{entry.name}{signature(entry.value)}"]
    bases = [base.__name__ for base in entry.value.__bases__ if base is not object]
    lines = [f"class {entry.name}({', '.join(bases)})", f"    {signature(entry.value)}"]
    own = {name: value for name, value in methods(entry.value).items() if name in vars(entry.value)}
    return lines + members(own)


def members(found) -> list[str]:
    lines = []
    for name, value in sorted(found.items()):
        if isinstance(value, property):
            lines.append(f"    {name}: property{signature(value.fget).removeprefix('(self)')}")
        else:
            kind = {classmethod: "classmethod ", staticmethod: "staticmethod "}.get(type(value), "")
            lines.append(f"    {kind}{name}{signature(getattr(value, '__func__', value))}")
    return lines


def snapshot() -> str:
    lines = ["# The public surface of rankdiag. To update: python tests/meta/test_public_api.py --write", ""]
    for name, module in modules().items():
        lines.append(f"module {name}")
        lines += [f"    {public}" for public in sorted(getattr(module, "__all__", ()))]
    lines.append("")
    bases = {}
    for entry in entries():
        lines += described(entry)
        if entry.kind == "class":
            public = {id(other.value) for other in classes()}
            for base in entry.value.__mro__[1:]:
                if base.__module__.startswith("rankdiag") and id(base) not in public:
                    bases[f"{base.__module__}.{base.__qualname__}"] = base
    lines += ["", "# Private bases of public classes, for the methods that come with them."]
    for name, base in sorted(bases.items()):
        lines.append(f"class {name}")
        lines += members({n: v for n, v in methods(base).items() if n in vars(base)})
    return "\n".join(lines) + "\n"


def test_the_surface_is_the_one_that_was_agreed_on():
    assert SNAPSHOT.is_file(), "run python tests/meta/test_public_api.py --write"
    old, new = SNAPSHOT.read_text(encoding="utf-8"), snapshot()
    difference = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "agreed on", "found", lineterm="", n=1))
    assert not difference, "\n".join([*difference, "If it is meant: python tests/meta/test_public_api.py --write"])


def test_the_walk_finds_something():
    """An empty walk would let every test of this folder pass."""
    names = {entry.name for entry in entries()}
    assert {"rankdiag.testing.fuzz", "rankdiag.spectral.effective_rank", "rankdiag.spectral.Spectrum"} <= names
    assert len(functions()) >= 20
    assert len(method_entries()) >= 20


def test_modules_that_no_room_announces_are_private():
    """The command line finds its sub-commands and sections by looking for them, so only there the rule is void."""
    open_ = [name for name in all_module_names() if not any(part.startswith("_") for part in name.split("."))]
    assert [name for name in open_ if name not in module_names() and not name.startswith("rankdiag.cli.")] == []


@pytest.mark.parametrize("name", module_names())
def test_every_public_module_says_what_it_exports(name):
    module = modules()[name]
    assert isinstance(module.__all__, list)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(not public.startswith("_") or public == "__version__" for public in module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None
        assert public in dir(module)


@pytest.mark.parametrize("name", module_names())
def test_everything_that_a_module_defines_in_public_is_exported(name):
    module = modules()[name]
    defined = [
        public
        for public, value in vars(module).items()
        if not public.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == name
    ]
    assert sorted(set(defined) - set(module.__all__)) == []


@pytest.mark.parametrize("name", [n for n in module_names() if modules()[n].__file__.endswith("__init__.py")])
def test_stubs_name_what_is_there_at_run_time(name):
    module = modules()[name]
    stub = Path(module.__file__).with_suffix(".pyi")
    lazy = "__getattr__" in vars(module)
    assert stub.is_file() == lazy, "a package that loads its names lazily has a stub beside it, and no other has one"
    if not lazy:
        return
    named, sources = set(), {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, f"{alias.name} must be exported as itself"
                named.add(alias.name)
                sources[alias.name] = node.module
    assert named == set(module.__all__)
    for public, source in sources.items():
        value = getattr(module, public)
        if inspect.ismodule(value):
            assert value.__name__ == f"{source}.{public}"
        else:
            assert value is getattr(sys.modules[source], public), f"{public} comes from another module than {source}"


def test_every_lazy_name_loads():
    """Import everything eagerly: a name that is announced and does not exist fails here, not at a user's."""
    for name, module in modules().items():
        for public in module.__all__:
            assert hasattr(module, public), f"{name}.{public}"


def parameters(value):
    try:
        return inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ()


CALLABLES = [*functions(), *classes(), *method_entries()]
CALLABLES = [entry for entry in CALLABLES if not getattr(entry.value, "_is_protocol", False)]  # nobody makes one


@pytest.mark.parametrize("entry", CALLABLES, ids=lambda entry: entry.name)
def test_a_misspelt_keyword_is_refused(entry):
    assert all(p.kind is not p.VAR_KEYWORD for p in parameters(entry.value)), "**kwargs swallows misspelt keywords"
    # An abstract class is refused before its keywords are looked at: its constructor is asked by itself.
    call = partial(entry.value.__init__, None) if inspect.isabstract(entry.value) else entry.value
    with pytest.raises(TypeError, match=r"no_such_keyword|takes no keyword"):
        call(no_such_keyword=1)


# Signatures that the specification of likelihood displacement writes out, data first.
ALSO_BY_POSITION = {
    *("tokenizer", "reduce", "n_shared", "w_chosen", "w_rejected", "weight", "weights", "k"),
    *("ref_chosen", "ref_rejected", "n_chosen", "n_rejected"),
    # Those that the specification of reward landscapes writes out.
    *("logp_ref", "beta", "gold", "eval_rewards", "n", "p"),
    "depth",  # of a graph network: the one number beside the graph that every call of that room has
}
DATA = {
    *("chosen", "chosen_mask", "rejected", "rejected_mask", "sum_chosen", "sum_rejected", "n_chosen", "n_rejected"),
    *("loss", "chosen_logp", "rejected_logp", "ref_chosen", "ref_rejected", "W", "h", "hidden", "weight", "weights"),
    *("chosen_states", "rejected_states", "chosen_ids", "rejected_ids", "n_shared", "w_chosen", "w_rejected"),
    *("logp_before", "logp_after", "preferred", "k"),
    *("sampler", "prompts", "functions"),
    *("graph", "subset", "depth", "d_in", "d_hidden"),  # a graph, a cut of it, and the network in three sizes
    *("before", "after", "subsets"),
}


@pytest.mark.parametrize("entry", functions(), ids=lambda entry: entry.name)
def test_options_are_keyword_only(entry):
    positional = [p for p in parameters(entry.value) if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = [p.name for p in positional if p.default is not p.empty and p.name not in {"argv", "ax", "path"}]
    options = [name for name in options if name not in ALSO_BY_POSITION]
    assert options == []
    # What is data in several parts (two responses with their masks, say) counts as one part for each kind.
    assert len(positional) <= 3 or {p.name for p in positional} <= DATA
    assert not [p.name for p in positional if p.annotation in (bool, "bool")]


@pytest.mark.parametrize("entry", CALLABLES, ids=lambda entry: entry.name)
def test_signatures_are_fully_annotated(entry):
    """The bodies are mypy's business; that every public signature has types is checked here at run time."""
    if isinstance(entry.value, type):
        if issubclass(entry.value, BaseException):
            return
        missing = [p.name for p in parameters(entry.value) if p.annotation is p.empty]
    else:
        missing = [p.name for p in parameters(entry.value) if p.annotation is p.empty and p.name not in {"self", "cls"}]
        if inspect.signature(entry.value).return_annotation is inspect.Signature.empty:
            missing.append("return")
    assert missing == []


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: python tests/meta/test_public_api.py --write")
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    sys.stdout.write(f"wrote {SNAPSHOT}\n")

"""Every public function, class and method is documented in numpydoc, completely, with an example that runs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

from meta.surface import Entry, classes, functions, method_entries, module_names, modules

CLASSES = tuple(entry for entry in classes() if not issubclass(entry.value, BaseException))
ERRORS = tuple(entry for entry in classes() if issubclass(entry.value, BaseException))
METHODS = method_entries()


def parsed(entry: Entry):
    doc = inspect.getdoc(entry.value) or ""
    if entry.kind == "class":
        return ClassDoc(entry.value, doc=doc, config={"show_class_members": False})
    return FunctionDoc(entry.value, doc=doc)


def documented(section) -> dict[str, object]:
    """Return the documented names, ``a, b : int`` counting as two."""
    return {name.strip().lstrip("*"): entry for entry in section for name in entry.name.split(",")}


def parameters(value) -> list[str]:
    try:
        found = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in found if name not in {"self", "cls"}]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("entry", [*functions(), *classes(), *METHODS], ids=lambda entry: entry.name)
def test_summary_is_one_sentence_on_one_line(entry):
    doc = inspect.getdoc(entry.value)
    assert doc, "there is no docstring"
    assert entry.value.__doc__, "the docstring is somebody else's"
    first, *rest = doc.splitlines()
    assert first.endswith((".", "?")), f"the summary must end with a full stop: {first!r}"
    assert len(first) <= 120
    assert not rest or not rest[0].strip(), "the summary must fit on one line"


@pytest.mark.parametrize("name", module_names())
def test_modules_say_what_they_are_for(name):
    doc = inspect.getdoc(modules()[name])
    assert doc
    assert doc.splitlines()[0].endswith(".")


@pytest.mark.parametrize("entry", functions(), ids=lambda entry: entry.name)
def test_functions_have_every_section(entry):
    doc = parsed(entry)
    names = parameters(entry.value)
    missing = []
    if names and not doc["Parameters"]:
        missing.append("Parameters")
    returns = inspect.signature(entry.value).return_annotation
    if returns not in {None, "None"} and not (doc["Returns"] or doc["Yields"]):
        missing.append("Returns")
    if names and not doc["Raises"]:
        missing.append("Raises")
    if not doc["Examples"]:
        missing.append("Examples")
    assert missing == []


def explained_elsewhere(text: str) -> set[str]:
    """Return the parameters of the public functions that a text points to: "see `f`", "as in `f`"."""
    known = {name: entry for entry in functions() for name in (entry.name, entry.name.rpartition(".")[2])}
    targets = [known[name] for name in re.findall(r"(?:[Ss]ee|[Aa]s in) `([\w.]+)`", text) if name in known]
    return {name for target in targets for name in documented(parsed(target)["Parameters"])}


@pytest.mark.parametrize("entry", [*functions(), *METHODS], ids=lambda entry: entry.name)
def test_every_parameter_is_documented_and_no_other(entry):
    found = documented(parsed(entry)["Parameters"])
    names = parameters(entry.value)
    text = inspect.getdoc(entry.value)
    if not found and entry in METHODS:  # a method may point to its function, or name one argument in its sentences
        elsewhere = explained_elsewhere(text)
        assert [name for name in names if name not in elsewhere and (len(names) > 1 or f"`{name}`" not in text)] == []
        return
    assert list(found) == names, "names and order must be those of the signature"
    for name, part in found.items():
        words = " ".join(part.desc)
        assert words.strip(), f"`{name}` has no description"
        assert part.type.strip() or name in explained_elsewhere(words), f"`{name}` has no type"


@pytest.mark.parametrize("entry", CLASSES, ids=lambda entry: entry.name)
def test_classes_document_every_field(entry):
    doc = parsed(entry)
    found = set(documented(doc["Attributes"])) | set(documented(doc["Parameters"]))
    if dataclasses.is_dataclass(entry.value):
        inherited = set()
        for base in entry.value.__mro__[1:]:  # what a base documents need not be said again
            if dataclasses.is_dataclass(base):
                inherited |= {field.name for field in dataclasses.fields(base)}
        names = {field.name for field in dataclasses.fields(entry.value)} - inherited
    elif getattr(entry.value, "_is_protocol", False):  # nobody makes one
        names = set()
    else:
        names = set(parameters(entry.value))
    assert sorted(names - found) == []


@pytest.mark.parametrize("entry", [*functions(), *CLASSES], ids=lambda entry: entry.name)
def test_examples_run_and_use_what_they_explain(entry):
    text = "\n".join(parsed(entry)["Examples"])
    assert ">>>" in text
    assert "doctest: +SKIP" not in text
    if entry.kind == "function":  # objects mostly come out of a function, without their class being named
        assert f"{entry.name.rpartition('.')[2]}(" in text


@pytest.mark.parametrize("entry", functions(), ids=lambda entry: entry.name)
def test_raised_errors_are_documented(entry):
    """An error that the function itself raises by name is in its section Raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(entry.value))))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    listed = {part.type.strip() or part.name.strip() for part in parsed(entry)["Raises"]}
    assert sorted(raised - listed) == []


@pytest.mark.parametrize("entry", [*functions(), *classes(), *METHODS], ids=lambda entry: entry.name)
def test_sections_are_in_the_order_of_numpydoc(entry):
    order = ["Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "See Also", "Notes", "References"]
    order.append("Examples")
    lines = (inspect.getdoc(entry.value) or "").splitlines()
    found = [a for a, b in itertools.pairwise(lines) if b and set(b) == {"-"} and len(b) == len(a) and a in order]
    assert found == sorted(found, key=order.index)
    assert len(set(found)) == len(found)


def test_there_is_something_to_look_at():
    assert len(functions()) >= 20
    assert CLASSES
    assert ERRORS
    assert METHODS

"""Results: frozen, readable, and the same after any trip."""

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rankdiag import _result
from rankdiag._document import KeyNumber, Plot, Series
from rankdiag._result import Finding, Meta, Result, Threshold, result_from_dict, result_from_json, worst
from rankdiag._version import __version__


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    weight: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Everything(Result):
    """One field of every kind that a result may have."""

    tag: ClassVar[str] = "groundtest.Everything2"

    a_bool: bool = True
    an_int: int = 3
    a_float: float = 1.5
    a_str: str = "x"
    maybe: float | None = None
    either: int | float = 3
    word: Literal["a", "b"] = "a"
    number: Literal[0, 1] = 0
    shape: tuple[int, int] = (2, 3)
    many: tuple[float, ...] = ()
    nested: tuple[tuple[str, float], ...] = ()
    table: Mapping[str, float] = dataclasses.field(default_factory=dict)
    values: NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    maybe_values: NDArray[np.float64] | float | None = None
    counts: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    mask: NDArray[np.bool_] = dataclasses.field(default_factory=lambda: np.zeros(0, dtype=bool))
    part: Part = dataclasses.field(default_factory=lambda: Part(name="p"))
    parts: tuple[Part, ...] = ()
    finding: Finding | None = None
    anything: Any = None

    def __float__(self) -> float:
        return self.a_float


FLOATS = st.floats(allow_nan=True, allow_infinity=True)
TEXT = st.text(st.characters(codec=None), max_size=5)  # halves of surrogate pairs included
KEYS = st.text("ab/~\\ \x00é", max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | FLOATS | TEXT
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
THRESHOLDS = st.builds(
    Threshold,
    quantity=TEXT,
    op=st.sampled_from(["<", ">=", "!="]),
    value=FLOATS,
    severity=st.just("alert"),
    source=TEXT,
)
METAS = st.builds(
    Meta,
    definition=TEXT,
    base=st.none() | TEXT,
    ddof=st.none() | st.integers(0, 2),
    n=st.none() | st.integers(),
    seed=st.none() | st.integers(0, 2**53),
    skipped=st.dictionaries(KEYS, TEXT, max_size=3),
    dtype=st.none() | TEXT,
    details=st.dictionaries(KEYS, ANYTHING, max_size=3),
)
PARTS = st.builds(Part, name=TEXT, weight=st.none() | FLOATS)
ARRAYS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), elements=FLOATS)
RESULTS = st.builds(
    Everything,
    meta=METAS,
    verdict=st.sampled_from(["ok", "warn", "alert", "unknown"]),
    explanation=TEXT,
    thresholds=st.lists(THRESHOLDS, max_size=2).map(tuple),
    a_bool=st.booleans(),
    an_int=st.integers(),
    a_float=FLOATS,
    a_str=TEXT,
    maybe=st.none() | FLOATS,
    either=st.integers() | FLOATS,
    word=st.sampled_from(["a", "b"]),
    shape=st.tuples(st.integers(), st.integers()),
    many=st.lists(FLOATS, max_size=3).map(tuple),
    nested=st.lists(st.tuples(TEXT, FLOATS), max_size=2).map(tuple),
    table=st.dictionaries(KEYS, FLOATS, max_size=3),
    values=ARRAYS,
    maybe_values=st.none() | FLOATS | ARRAYS.filter(lambda values: values.ndim > 0),
    counts=hnp.arrays(np.int64, 3),
    mask=hnp.arrays(np.bool_, (2, 2)),
    part=PARTS,
    parts=st.lists(PARTS, max_size=2).map(tuple),
    finding=st.none() | st.builds(Finding, name=TEXT, severity=st.just("warn"), sentence=TEXT, threshold=THRESHOLDS),
    anything=ANYTHING,
)


def same(a, b):
    """Equality of values and of types, NaN equal to NaN."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, float):
        return isinstance(b, float) and (a == b or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return type(a) is type(b) and a == b


def has_array_like_dict(value):
    """A plain dict that looks like a written array would come back as one."""
    if isinstance(value, dict):
        return set(value) == {"dtype", "shape", "data"} or any(map(has_array_like_dict, value.values()))
    return isinstance(value, tuple) and any(map(has_array_like_dict, value))


@given(RESULTS, st.sampled_from([None, 0, 2]))
def test_round_trip_through_real_json(result, indent):
    text = result.to_json(indent=indent)
    text.encode("utf-8")
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    for back in (result_from_json(text), result_from_dict(result.to_dict()), Everything.from_dict(json.loads(text))):
        assert same(back, result)
        assert back == result
        assert hash(back) == hash(result)
        assert back.to_json() == result.to_json()


@given(RESULTS)
def test_copies_are_equal_and_as_read_only_as_the_original(result):
    result.values.flags.writeable = False
    for back in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same(back, result)
        assert hash(back) == hash(result)
        assert not back.values.flags.writeable
        assert back.counts.flags.writeable


@given(RESULTS)
def test_anything_can_be_shown(result):
    for text in (str(result), result.summary(width=40, max_rows=1)):
        assert text.startswith("Everything")
        assert all(c.isprintable() or c == "\n" for c in text)
    assert result.document().title == "Everything"


@given(RESULTS, RESULTS)
def test_equality_is_that_of_what_is_written(a, b):
    assert (a == b) == (a.to_dict() == b.to_dict())
    if a == b:
        assert hash(a) == hash(b)


def test_equal_results_have_equal_hashes_whatever_their_order_and_spelling():
    a = Everything(table={"a": 1.0, "b": 0.0}, an_int=1)
    b = Everything(table={"b": -0.0, "a": 1.0}, an_int=True)
    assert a == b
    assert hash(a) == hash(b)
    assert a != Everything(table={"a": 1.0, "b": 0.5}, an_int=1)
    assert a != "something else"
    assert Everything(a_float=math.nan) == Everything(a_float=math.nan)
    assert Everything(a_float=math.nan) != Everything(a_float=math.inf)
    assert len({a, b}) == 1


def test_results_are_frozen_keyword_only_and_closed():
    result = Everything()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.a_float = 2.0
    with pytest.raises((AttributeError, TypeError)):
        result.new = 1
    with pytest.raises(TypeError, match="positional"):
        Everything(Meta())
    with pytest.raises(TypeError, match="unexpected keyword argument 'a_floot'"):
        Everything(a_floot=1.0)
    for cls in (Meta, Threshold, Finding):
        with pytest.raises(TypeError, match="positional"):
            cls("x")


def test_meta_knows_the_version():
    assert Everything().meta.version == __version__
    assert json.loads(Everything().to_json())["fields"]["meta"]["version"] == __version__


def test_non_finite_values_are_null_with_their_reason():
    data = Everything(a_float=math.nan, values=np.array([[1.0, -math.inf]]), table={"a/b~": math.inf}).to_dict()
    assert data["fields"]["a_float"] is None
    assert data["fields"]["values"]["data"] == [1.0, None]
    assert data["non_finite"] == {"/a_float": "nan", "/values/data/1": "-inf", "/table/a~1b~0": "inf"}
    assert data["schema_version"] == 1
    assert data["type"] == "groundtest.Everything2"


def test_halves_of_surrogate_pairs_are_escaped():
    result = Everything(a_str="\ud800é\\")
    assert "\\ud800é\\\\" in result.to_json()
    assert result_from_json(result.to_json()).a_str == "\ud800é\\"


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, 1j, np.array([1j]), np.array(["a"]), b"x", {1, 2}, np.datetime64("NaT")]
)
def test_what_cannot_be_written_is_refused_at_its_place(value):
    with pytest.raises(TypeError, match="JSON"):
        Everything(anything=(0, value)).to_dict()


def test_torch_tensors_are_refused():
    import torch

    with pytest.raises(TypeError, match="Tensor at /anything"):
        Everything(anything=torch.ones(2)).to_dict()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int32", "uint8", "uint64", "bool"])
def test_arrays_of_every_dtype_come_back_as_they_were(dtype):
    values = np.array([[0, 1, 1]], dtype=dtype)
    back = result_from_json(Everything(anything=values).to_json()).anything
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)
    assert not back.flags.writeable


def test_numpy_scalars_are_written_as_numbers():
    result = Everything(anything=(np.float32(0.5), np.int8(3), np.bool_(True), np.float64("nan")))
    back = result_from_json(result.to_json())
    assert same(back.anything, (0.5, 3, True, math.nan))


def test_from_dict_of_a_class_checks_the_class():
    data = Everything().to_dict()
    assert type(Result.from_dict(data)) is Everything
    with pytest.raises(TypeError, match="`data` must hold a Table; got Everything"):
        _result.Table.from_dict(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 2}, "schema_version 1; got 2"),
        ({"schema_version": True}, "schema_version"),
        ({"schema_version": None}, "schema_version"),
        ({"type": "groundtest.Nothing"}, "unknown type 'groundtest.Nothing'"),
        ({"type": "weights.NoSuchReport"}, "unknown type"),
        ({"type": "../../etc.Passwd"}, "type tag"),
        ({"type": "testing.strategies"}, "type tag"),
        ({"type": None}, "type tag"),
        ({"type": ["a"]}, "type tag"),
        ({"fields": None}, "must hold Everything at /; got None"),
        ({"fields": {"a_floot": 1}}, r"unknown \['a_floot'\]"),
        ({"fields": {1: 1, "x": 2}}, "unknown"),
        ({"fields": {"a_float": "1"}}, "must hold float at /a_float; got '1'"),
        ({"fields": {"a_float": True}}, "/a_float"),
        ({"fields": {"a_float": 10**400}}, "/a_float"),
        ({"fields": {"a_float": math.nan}}, "/a_float"),
        ({"fields": {"an_int": 1.0}}, "/an_int"),
        ({"fields": {"an_int": False}}, "/an_int"),
        ({"fields": {"a_bool": 1}}, "/a_bool"),
        ({"fields": {"a_str": None}}, "/a_str"),
        ({"fields": {"word": "c"}}, "/word"),
        ({"fields": {"word": []}}, "/word"),
        ({"fields": {"number": True}}, "/number"),
        ({"fields": {"number": 1.0}}, "/number"),
        ({"fields": {"shape": [1]}}, "/shape"),
        ({"fields": {"shape": [1, "x"]}}, "/shape/1"),
        ({"fields": {"many": {"a": 1}}}, "/many"),
        ({"fields": {"table": []}}, "/table"),
        ({"fields": {"table": {"a/b": "x"}}}, "/table/a~1b"),
        ({"fields": {"table": {1: 1.0}}}, "strings as keys at /table"),
        ({"fields": {"anything": {1: 1.0}}}, "strings as keys at /anything"),
        ({"fields": {"part": {"weight": 1.0}}}, r"missing \['name'\]"),
        ({"fields": {"part": 3}}, "/part"),
        ({"fields": {"values": [1.0]}}, "/values"),
        ({"fields": {"values": {"dtype": "object", "shape": [1], "data": [1]}}}, "/values"),
        ({"fields": {"values": {"dtype": ["x"], "shape": [1], "data": [1]}}}, "/values"),
        ({"fields": {"values": {"dtype": "float64", "shape": [-1], "data": [1.0]}}}, "/values"),
        ({"fields": {"values": {"dtype": "float64", "shape": [2**62, 2**62], "data": [1.0]}}}, "/values"),
        ({"fields": {"values": {"dtype": "float64", "shape": ["1"], "data": [1.0]}}}, "/values"),
        ({"fields": {"values": {"dtype": "float64", "shape": [2], "data": [1.0]}}}, "/values"),
        ({"fields": {"counts": {"dtype": "int8", "shape": [1], "data": [1000]}}}, "/counts"),
        ({"fields": {"finding": {"name": 3}}}, "/finding"),
        ({"non_finite": []}, "non_finite"),
        ({"fields": {"a_float": None}, "non_finite": {"/a_float": "many"}}, "nan, inf, -inf for /a_float"),
        ({"fields": {"a_float": None}, "non_finite": {"/a_float": []}}, "for /a_float"),
        ({"fields": {"anything": [None]}, "non_finite": {"/anything/0": 3}}, "for /anything/0"),
        ({"fields": {"a_str": None}, "non_finite": {"/a_str": "nan"}}, "must hold str"),
        ({"fields": {"an_int": None}, "non_finite": {"/an_int": "nan"}}, "must hold int"),
        (
            {
                "fields": {"counts": {"dtype": "int64", "shape": [1], "data": [None]}},
                "non_finite": {"/counts/data/0": "inf"},
            },
            "/counts",
        ),
    ],
)
def test_damaged_dictionaries_are_refused_at_their_place(change, words):
    with pytest.raises(ValueError, match=words):
        result_from_dict({**Everything().to_dict(), **change})


@pytest.mark.parametrize("data", [None, 3, "x", [], [1], object()])
def test_what_is_no_mapping_is_refused(data):
    with pytest.raises(TypeError, match="`data` must be a mapping"):
        result_from_dict(data)


@pytest.mark.parametrize(
    "text", ["", "{", "nan", '{"schema_version": NaN}', "[" * 100_000, "Infinity", '"x', "9" * 5000, "\ud800"]
)
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"`text` (must be JSON|is nested too deeply)"):
        result_from_json(text)


def test_text_that_is_no_text_and_json_that_is_no_result():
    with pytest.raises(TypeError, match="`text` must be a string"):
        result_from_json(b"{}")
    with pytest.raises(TypeError, match="`data` must be a mapping"):
        result_from_json("[1, 2]")
    with pytest.raises(ValueError, match="schema_version"):
        result_from_json("{}")


def test_data_nested_too_deeply():
    deep: Any = None
    for _ in range(50_000):
        deep = [deep]
    data = {**Everything().to_dict(), "fields": {"anything": deep}}
    with pytest.raises(ValueError, match="`data` is nested too deeply"):
        result_from_dict(data)
    while deep:  # unroll: a chain of this length overflows the stack when it is freed at once
        deep = deep[0]


def _sub_trees(data, path=()):
    yield path
    if isinstance(data, dict):
        for key in data:
            yield from _sub_trees(data[key], (*path, key))
    elif isinstance(data, list):
        for index in range(len(data)):
            yield from _sub_trees(data[index], (*path, index))


def _replaced(data, path, value):
    if not path:
        return value
    changed = copy.copy(data)
    changed[path[0]] = _replaced(data[path[0]], path[1:], value)
    return changed


FULL = Everything(
    thresholds=(Threshold(quantity="q", op="<", value=1.0),),
    meta=Meta(skipped={"a": "b"}, details={"c": (1, 2.0)}),
    values=np.array([1.0, math.nan]),
    parts=(Part(name="x", weight=math.inf),),
    finding=Finding(name="", severity="warn", sentence="", threshold=Threshold(quantity="q", op="<", value=0.0)),
    nested=(("a", 1.0),),
    table={"a": 1.0},
    anything={"k": (1, {"dtype": "float64"})},
).to_dict()
PLACES = list(_sub_trees(FULL))
HOSTILE = st.recursive(
    LEAVES | st.binary(max_size=2) | st.just(object()) | st.just({1: 2}) | st.sampled_from(["nan", "inf", "float64"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | st.sampled_from(["dtype", "shape", "data", "name", "fields"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from(PLACES), HOSTILE)
def test_hostile_changes_anywhere_give_a_result_or_a_named_error(path, value):
    try:
        back = result_from_dict(_replaced(FULL, path, value))
    except (ValueError, TypeError) as error:
        assert "`data`" in str(error)
    else:
        assert isinstance(back, Everything)
        json.dumps(FULL)


@given(HOSTILE)
def test_hostile_data_give_a_named_error(value):
    with pytest.raises((ValueError, TypeError), match="`data`"):
        result_from_dict(value)


def test_tags():
    for tag in ("NoRoom", "room.", "room.lower", "Room.Name", "a.b.C"):
        with pytest.raises(TypeError, match=r"must look like 'room\.ClassName'"):
            type("Bad", (Result,), {"tag": tag})


def test_worst():
    assert worst(()) == "unknown"
    assert worst(["ok", "unknown"]) == "ok"
    assert worst(iter(["ok", "alert", "warn"])) == "alert"


def test_document_and_notes_say_everything():
    result = Everything(
        a_float=2.5,
        verdict="warn",
        explanation="Something is small.",
        thresholds=(Threshold(quantity="a_float", op="<", value=3.0, source="a paper"),),
        meta=Meta(
            definition="a definition",
            base="e",
            ddof=1,
            units="nats",
            n=7,
            seed=3,
            dtype="float32",
            skipped={"layer.bias": "one axis"},
            details={"some_tolerance": 1e-3},
        ),
    )
    document = result.document()
    assert document.verdict == "warn"
    assert KeyNumber(label="a float", value=2.5) in document.key_numbers
    text = result.summary()
    for words in (
        "Everything [WARN]",
        "Something is small.",
        "a float",
        "2.5",
        "Definition: a definition.",
        "warn where a_float < 3 (a paper).",
        "log base e",
        "ddof 1",
        "unit nats",
        "n 7",
        "seed 3",
        "dtype float32",
        "some tolerance 0.001",
        "Skipped layer.bias: one axis.",
    ):
        assert words in text, words
    assert float(result) == 2.5


@pytest.mark.parametrize(("name", "value"), [("width", 5), ("width", "x"), ("max_rows", 0), ("max_rows", 1.5)])
def test_summary_checks_its_options(name, value):
    with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
        Everything().summary(**{name: value})


def test_to_json_checks_its_option():
    for value in (-1, "x", 1.5, 2**31):
        with pytest.raises((ValueError, TypeError), match="`indent`"):
            Everything().to_json(indent=value)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn(Result):
    tag: ClassVar[str] = "groundtest.Drawn"

    def document(self):
        plot = Plot(title="t", x_label="x", y_label="y", series=(Series(label="s", x=(1.0, 2.0), y=(1.0, 2.0)),))
        return dataclasses.replace(super(Drawn, self).document(), plots=(plot,))


def test_plot_refuses_what_is_not_there():
    with pytest.raises(ValueError, match="`which` names one of the plots of a result, and Everything has none here"):
        Everything().plot()
    with pytest.raises(ValueError, match=r"`which` must be below 1, .* got 1"):
        Drawn().plot(which=1)
    with pytest.raises((ValueError, TypeError), match="`which`"):
        Drawn().plot(which="first")


def test_plot_draws_on_given_axes():
    pytest.importorskip("rankdiag._mpl")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert Drawn().plot(ax=ax) is ax
    assert len(ax.lines) == 1


def test_notebooks_get_escaped_html():
    pytest.importorskip("rankdiag._html")
    html = Everything(explanation="<script>alert(1)</script>")._repr_html_()
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html

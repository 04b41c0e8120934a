"""The fuzz helper: it must catch what was planted, and let a correct function pass."""

import dataclasses
import os
import pickle
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

import rankdiag as rd
from rankdiag._array import as_float64
from rankdiag._result import result_from_json
from rankdiag._validate import boolean, choice, real
from rankdiag.testing import FuzzReport, Violation, fuzz
from rankdiag.testing._fuzz import _DOCS, plain_result
from rankdiag.testing._observe import aliases, fingerprint, has_nan
from rankdiag.testing._signature import parameters_of
from rankdiag.testing._values import hostile_arrays, hostile_objects


def norm(
    values: ArrayLike, *, order: float = 2.0, kind: Literal["plain", "mean"] = "plain", twice: bool = False
) -> float:
    """A correct function: checks everything, scales first, touches nothing."""
    p = real(order, "order", low=1.0)
    word = choice(kind, "kind", ("plain", "mean"))
    factor = 2.0 if boolean(twice, "twice") else 1.0
    array = np.abs(as_float64(values, "values")).ravel()
    largest = float(array.max())
    if largest == 0.0:
        return 0.0
    scaled = array / largest
    with np.errstate(under="ignore"):
        total = float((scaled**p).sum())
    mean = total / array.size if word == "mean" else total
    return min(factor * mean ** (1.0 / p), float(np.finfo(np.float64).max) / largest) * largest


def planted(bug: Callable[[Any, NDArray[np.float64]], Any]) -> Callable[..., Any]:
    """Plant a bug into an otherwise correct function."""

    def measure(values: ArrayLike, *, order: float = 2.0) -> Any:
        array = as_float64(values, "values")
        real(order, "order", low=1.0)
        return bug(values, array)

    return measure


def nan_out(values, array):
    with np.errstate(invalid="ignore"):
        return float(np.float64(array.flat[0]) * 0.0 / abs(array).max()) if abs(array).max() else float("nan")


def mutated_input(values, array):
    if isinstance(values, np.ndarray) and values.flags.writeable and values.dtype == np.float64:
        values += 1.0
    return 0.0


def mutated_list(values, array):
    if isinstance(values, list):
        values.reverse()
    return 0.0


def mutated_tensor(values, array):
    if isinstance(values, torch.Tensor) and values.is_floating_point() and not values.is_inference():
        values.requires_grad_(not values.requires_grad) if values.is_leaf else None
    return 0.0


def bare_assertion(values, array):
    assert array.ndim == 2
    return 0.0


def stray_warning(values, array):
    if (array == 0).any():
        warnings.warn("there are zeros", stacklevel=2)
    return 0.0


def numpy_warning(values, array):
    return 0.0 if (1.0 / array).size else 1.0


def aliased_output(values, array):
    return array[...]


def aliased_inside(values, array):
    return {"parts": [(array.T, 1)]}


def same_object(values, array):
    return values if isinstance(values, list) else 0.0


def random_state(values, array):
    return random.random()


def default_dtype(values, array):
    torch.set_default_dtype(torch.float64)
    return 0.0


def environment(values, array):
    os.environ["RANKDIAG_FUZZED"] = "1"
    return 0.0


def index_error(values, array):
    return float(array[3, 0]) * 0.0


def nobody_named(values, array):
    if array.ndim != 2:
        raise ValueError("wrong shape")
    return 0.0


def hang(values, array):
    while array.size == 1:
        time.sleep(0.001)
    return 0.0


def deaf(values, array):
    """Swallows every Exception, and so must not swallow the alarm."""
    while array.size == 1:
        try:
            time.sleep(0.001)
        except Exception:  # the bug that is planted
            continue
    return 0.0


def printed(values, array):
    print("rank", array.ndim)
    return 0.0


def leaves(values, array):
    if array.ndim == 3:
        raise SystemExit(3)
    return 0.0


PLANTED = {
    "nan": [nan_out],
    "mutated": [mutated_input, mutated_list, mutated_tensor],
    "assertion": [bare_assertion],
    "warning": [stray_warning, numpy_warning],
    "aliased": [aliased_output, aliased_inside, same_object],
    "state": [random_state, default_dtype, environment],
    "crash": [index_error, leaves],
    "unnamed": [nobody_named],
    "hang": [hang, deaf],
    "printed": [printed],
}


@pytest.mark.parametrize(("kind", "bug"), [(kind, bug) for kind, bugs in PLANTED.items() for bug in bugs])
def test_planted_bugs_are_caught_and_called_by_their_name(kind, bug):
    report = fuzz(planted(bug), time_limit=0.05 if kind == "hang" else 10.0)
    assert {row.kind for row in report} == {kind}, report.rows[:3]
    assert report.verdict == "alert"
    assert all(row.parameter in {"", "values", "order"} and row.case and row.detail for row in report)
    with pytest.raises(AssertionError, match=f"{kind}: "):
        report.raise_for_violations()


def test_every_kind_is_planted():
    assert set(PLANTED) | {"accepted"} == set(_DOCS)


def test_a_correct_function_passes():
    report = fuzz(norm)
    report.raise_for_violations()
    assert report.verdict == "ok"
    assert report.violations == ()
    assert report.cases == report.returned + report.refused
    assert report.returned > 200
    assert report.refused > 300
    assert report.function == "norm"


def test_values_that_the_annotation_forbids_must_be_refused():
    def careless(
        values: NDArray[np.float64],
        *,
        kind: Literal["a", "b"] = "a",
        count: int = 3,
        flag: bool = False,
        label: str = "",
        maybe: float | None = None,
        anything: Any = None,
    ) -> float:
        as_float64(values, "values")
        return 0.0

    report = fuzz(careless)
    assert {row.kind for row in report} == {"accepted"}
    found = {name: [row.case for row in report if row.parameter == name] for name in (*parameter_names(careless), "")}
    assert found["values"] == []
    assert found["anything"] == []
    assert "kind = a text that is no option" in found["kind"]
    assert "count = 1.5" in found["count"]
    assert "count = 7" not in found["count"]
    assert "flag = a text that is no option" in found["flag"]
    assert "label = 7" in found["label"]
    assert "label = an empty text" not in found["label"]
    assert "maybe = a dict" in found["maybe"]
    assert "maybe = None" not in found["maybe"]
    assert fuzz(careless, strict=False).violations == ()


def parameter_names(function):
    return [parameter.name for parameter in parameters_of(function)]


def test_an_unknown_keyword_must_be_refused():
    def open_ended(values: NDArray[np.float64], **options: Any) -> float:
        as_float64(values, "values")
        return 0.0

    (row,) = fuzz(open_ended).rows
    assert (row.kind, row.case) == ("accepted", "an unknown keyword")


def test_arrays_meet_every_option():
    def measure(values: NDArray[np.float64], *, method: Literal["good", "bad"] = "good") -> float:
        array = as_float64(values, "values")
        return float("nan") if choice(method, "method", ("good", "bad")) == "bad" and array.ndim == 4 else 0.0

    (row,) = fuzz(measure).rows
    assert row.case == "values = four axes, method = 'bad'"
    assert fuzz(measure, combine=False).violations == ()
    assert fuzz(measure, nan_ok=True).violations == ()
    assert fuzz(measure, skip=["method"]).violations == ()


def test_documented_exceptions_and_warnings():
    def reader(path: str) -> float:
        if not isinstance(path, str):
            raise TypeError("`path` must be a string")
        if len(path) > 1000:
            warnings.warn("long", FutureWarning, stacklevel=2)
        elif path != "name":
            raise FileNotFoundError(path)
        return 0.0

    assert {kind for kind, rows in fuzz(reader).kinds().items() if rows} == {"crash", "warning"}
    report = fuzz(reader, allowed=(FileNotFoundError,), allowed_warnings=(FutureWarning,))
    report.raise_for_violations()


def test_missing_extras_are_allowed():
    def needs_more(values: NDArray[np.float64]) -> float:
        as_float64(values, "values")
        raise rd.MissingExtraError("measure needs 'x'")

    report = fuzz(needs_more)
    report.raise_for_violations()
    assert report.absent > 10
    assert report.returned == 0


def test_arguments_and_extra_values():
    def ratio(part: float, whole: float) -> float:
        """Refuses the plain values that an annotation suggests."""
        a, b = real(part, "part"), real(whole, "whole", low=1000.0)
        if a == 42.0:
            raise IndexError("found")
        return min(a / b, 1.0)

    with pytest.raises(
        ValueError, match=r"`arguments` must hold a legal plain call of .*ratio; `part`, `whole` was not"
    ):
        fuzz(ratio)
    assert fuzz(ratio, arguments={"whole": 2000.0}).violations == ()
    (row,) = fuzz(ratio, arguments={"whole": 2000.0}, extra={"part": [41.0, 42.0]}).rows
    assert (row.case, row.detail) == ("part = extra value 1", "IndexError: found")


def test_arguments_are_copied_for_every_call():
    given = np.array([[2.0, 1.0], [0.5, 1.0]])
    before = given.copy()
    report = fuzz(planted(mutated_input), arguments={"values": given})
    assert "the plain call" in {row.case for row in report}
    np.testing.assert_array_equal(given, before)


def test_the_number_of_cases_is_bounded_and_repeatable():
    assert fuzz(norm, max_cases=10).cases == 10
    first, again = fuzz(planted(nan_out)), fuzz(planted(nan_out))
    assert first == again


def test_every_value_reaches_every_parameter():
    seen: dict[str, set[str]] = {"a": set(), "b": set()}

    def spy(a: Any, b: Any) -> float:
        for name, value in (("a", a), ("b", b)):
            seen[name].add(type(value).__name__)
        return 0.0

    report = fuzz(spy)
    expected = {type(value.make()).__name__ for value in (*hostile_arrays(), *hostile_objects())}
    assert seen["a"] >= expected
    assert seen["b"] >= expected
    assert report.cases >= 2 * (len(hostile_arrays()) + len(hostile_objects()))


def test_arrays_beyond_memory_do_not_fill_the_machine():
    def copies(values: NDArray[np.float64]) -> float:
        return float(np.array(values, dtype=float, copy=True).size)

    rows = fuzz(copies).kinds()["crash"]
    rows = [row for row in rows if "beyond memory" in row.case]
    assert len(rows) >= 3
    assert all(row.detail.startswith(("MemoryError", "_ArrayMemoryError", "RuntimeError")) for row in rows), rows


def test_lazy_results_are_drawn():
    def rows(values: NDArray[np.float64]) -> Iterable[float]:
        array = as_float64(values, "values")
        return (float("nan") if entry == 0.0 else 1.0 for entry in array.ravel())

    assert {row.kind for row in fuzz(rows)} == {"nan"}


def test_methods_classes_and_builtins():
    spectrum = rd.spectrum([[3.0, 0.0], [0.0, 1.0]])
    assert fuzz(spectrum.effective_rank).violations == ()

    class Scale:
        def __init__(self, factor: float) -> None:
            self.factor = real(factor, "factor")

        def __call__(self, value: float) -> float:
            return min(self.factor * real(value, "value"), 1e308)

    fuzz(Scale).raise_for_violations()
    fuzz(Scale(0.5)).raise_for_violations()
    with pytest.raises(TypeError, match="`function` must have a signature"):
        fuzz(dict.fromkeys if False else type)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"function": 3}, TypeError, "`function` must be callable"),
        ({"arguments": [1]}, TypeError, "`arguments` must be a mapping"),
        ({"arguments": {"valeus": 1}}, ValueError, "`arguments` must hold names among kind, order, twice, values"),
        ({"extra": {"x": [1]}}, ValueError, "`extra` must hold names"),
        ({"skip": "values"}, TypeError, "`skip` must be a list of names"),
        ({"skip": ["x"]}, ValueError, "`skip` must hold names"),
        ({"allowed": ValueError}, TypeError, "`allowed` must be a tuple"),
        ({"allowed_warnings": (ValueError,)}, TypeError, "`allowed_warnings` must be a tuple"),
        ({"nan_ok": 1}, TypeError, "`nan_ok`"),
        ({"strict": "yes"}, TypeError, "`strict`"),
        ({"combine": None}, TypeError, "`combine`"),
        ({"time_limit": 0}, ValueError, "`time_limit`"),
        ({"max_cases": 0}, ValueError, "`max_cases`"),
        ({"no_such": 0}, TypeError, "no_such"),
    ],
)
def test_options_are_checked(options, kind, words):
    with pytest.raises(kind, match=words):
        fuzz(**{"function": norm, **options})


def test_the_report_is_a_result():
    report = fuzz(planted(nan_out))
    assert isinstance(report, FuzzReport)
    assert all(isinstance(row, Violation) for row in report)
    assert result_from_json(report.to_json()) == report
    assert pickle.loads(pickle.dumps(report)) == report
    assert "returned a NaN" in report.explanation
    assert report.kinds()["nan"] == report.violations
    assert set(report.kinds()) == set(_DOCS)
    assert "kind,parameter,case,detail" in report.to_csv()
    assert report.meta.n == report.cases


def test_outside_the_main_thread_the_time_is_measured_afterwards():
    def slow(values: NDArray[np.float64]) -> float:
        if as_float64(values, "values").ndim == 4:
            time.sleep(0.3)
        return 0.0

    reports = []
    thread = threading.Thread(target=lambda: reports.append(fuzz(slow, time_limit=0.2)))
    thread.start()
    thread.join()
    (row,) = reports[0].rows
    assert (row.kind, row.case) == ("hang", "values = four axes")
    assert row.detail.startswith("took 0.")


def test_an_alarm_of_somebody_else_is_kept():
    rung = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60.0)
        fuzz(norm, max_cases=20)
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0.0)
        assert 50.0 < left <= 60.0
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        fuzz(norm, max_cases=400)
        time.sleep(0.1)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, old)


def test_the_user_may_interrupt():
    def interrupted(values: NDArray[np.float64]) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fuzz(interrupted)


def test_torch_functions_start_from_tensors():
    def squared(matrix: torch.Tensor) -> torch.Tensor:
        if not isinstance(matrix, torch.Tensor):
            raise TypeError("`matrix` must be a tensor")
        as_float64(matrix, "matrix")
        return (matrix.double() ** 2).sum().clamp(max=1e300)

    fuzz(squared).raise_for_violations()
    assert plain_result(squared).dtype == torch.float64


def test_plain_results():
    assert plain_result(norm, arguments={"values": [3.0, 4.0]}) == 5.0
    with pytest.raises(ValueError, match="`arguments` must hold a legal plain call"):
        plain_result(norm, arguments={"values": "x"})


# --- the parts ----------------------------------------------------------------------------------------------------


def test_other_annotations():
    def function(
        a: Annotated[int, "a note"],
        b: Sized,
        c: list[float],
        d: None,
        e: Path,
        f: Literal["x"] | Any,
        g: bytes | complex,
    ):
        pass

    read = {parameter.name: parameter for parameter in parameters_of(function)}
    assert read["a"].kinds == {"int"}
    assert read["b"].kinds == {"other"}
    assert "iterable" in read["c"].kinds
    assert read["d"].kinds == {"none"}
    assert read["e"].kinds == {"path", "str"}
    assert read["f"].kinds is None
    assert read["f"].options == ("x",)
    assert read["g"].kinds == {"bytes", "complex", "int", "float"}

    def broken(a: "1 +"):  # noqa: F722 - an annotation that is no type
        pass

    assert parameters_of(broken)[0].kinds is None


def test_annotations_are_read():
    class Own:
        pass

    def function(
        a: "ArrayLike",
        b: "NotThere.at_all[int]",  # noqa: F821 - a name that only a type checker can see
        c: torch.Tensor,
        d: int | None,
        e: Literal["x", 1],
        f: Mapping[str, float],
        g: Callable[[int], int],
        h: "str | os.PathLike[str]",
        i: Own,
        j,
        k: bool = False,
        *args: int,
        m: "np.random.Generator | int | None" = None,
        **kwargs: int,
    ):
        pass

    read = {parameter.name: parameter for parameter in parameters_of(function)}
    assert list(read) == ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m"]
    assert "array" in read["a"].kinds
    assert read["b"].kinds is None
    assert "array" in read["c"].kinds
    assert read["d"].kinds == {"int", "none"}
    assert read["d"].options == (None,)
    assert read["e"].options == ("x", 1)
    assert read["f"].kinds == {"mapping"}
    assert read["g"].kinds == {"callable"}
    assert read["h"].kinds == {"str", "path"}
    assert read["j"].kinds is None
    assert read["k"].options == (False, True)
    assert read["m"].kinds == {"other", "int", "none"}
    assert read["a"].required
    assert not read["k"].required


@pytest.mark.parametrize("value", hostile_arrays(), ids=lambda value: value.label)
def test_values_are_made_afresh_and_alike(value):
    first, second = value.make(), value.make()
    assert first is not second
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) == fingerprint(first)


CHANGES = {
    "an entry": (lambda: np.ones(3), lambda value: value.__setitem__(1, 2.0)),
    "a flag": (lambda: np.ones(3), lambda value: setattr(value.flags, "writeable", False)),
    "the shape": (lambda: np.ones(4), lambda value: value.resize((2, 2), refcheck=False)),
    "NaN for a number": (lambda: np.ones(3), lambda value: value.__setitem__(1, np.nan)),
    "an entry of a view": (lambda: np.ones((4, 4))[::2, ::-1], lambda value: value.__setitem__((0, 0), 2.0)),
    "a mask": (lambda: np.ma.masked_array([1.0, 2.0]), lambda value: value.__setitem__(0, np.ma.masked)),
    "an object": (lambda: np.array([[1], [2]], dtype=object), lambda value: value.__setitem__((0, 0), 2)),
    "a list": (lambda: [1.0, [2.0]], lambda value: value[1].append(3.0)),
    "a dict": (lambda: {"a": 1}, lambda value: value.update(b=2)),
    "a set": (lambda: {1}, lambda value: value.add(2)),
    "a tensor": (lambda: torch.ones(3), lambda value: value.add_(1)),
    "a gradient flag": (lambda: torch.ones(3), lambda value: value.requires_grad_()),
    "a gradient": (lambda: torch.ones(3, requires_grad=True), lambda value: value.sum().backward()),
    "a weight": (lambda: torch.nn.Linear(2, 2), lambda value: value.weight.data.add_(1)),
    "a mode": (lambda: torch.nn.Linear(2, 2), lambda value: value.eval()),
    "a hook": (lambda: torch.nn.Linear(2, 2), lambda value: value.register_forward_hook(lambda *a: None)),
}


@pytest.mark.changes_global_state("torch random state")
@pytest.mark.parametrize(("make", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_fingerprints_see_every_change(make, change):
    value = make()
    before = fingerprint(value)
    assert fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before


@dataclasses.dataclass(frozen=True)
class Holder:
    values: Any


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        np.float32("nan"),
        complex(0, float("nan")),
        np.array([1.0, np.nan]),
        np.array([complex(np.nan, 0)]),
        torch.tensor([1.0, float("nan")]),
        torch.tensor(float("nan"), requires_grad=True),
        [1.0, (2.0, {"a": float("nan")})],
        Holder(np.array([np.nan])),
        {"a": Holder([Holder(float("nan"))])},
    ],
    ids=lambda value: type(value).__name__,
)
def test_nan_is_found_at_any_depth(value):
    assert has_nan(value)


@pytest.mark.parametrize(
    "value", [1.0, "nan", None, np.inf, np.array(["nan"]), np.arange(3), torch.arange(3), Holder(1.0), []]
)
def test_numbers_are_no_nan(value):
    assert not has_nan(value)


def test_shared_memory_is_found():
    values, tensor = np.ones((4, 4)), torch.ones(4)
    assert aliases(values[1:, ::2], {"x": values}) == ("x",)
    assert aliases(Holder([values.T]), {"x": [values]}) == ("x",)
    assert aliases(tensor.numpy(), {"y": tensor}) == ("y",)
    assert aliases(torch.from_numpy(values), {"x": values, "y": tensor}) == ("x",)
    assert aliases(values.copy(), {"x": values}) == ()
    assert aliases(1.0, {"x": values}) == ()
    assert aliases(values, {"x": Holder(values)}) == ()  # a frozen result has given its arrays away
    assert aliases(np.zeros(0), {"x": np.zeros(0)}) == ()

"""Fuzzing of one function: bad and extreme values into each parameter, and what must not come of it."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rankdiag._document import Column
from rankdiag._optional import MissingExtraError
from rankdiag._result import Meta, Table
from rankdiag._validate import boolean, describe, integer, names, real
from rankdiag.testing._observe import Hang, Outcome, aliases, has_nan, observe
from rankdiag.testing._signature import Parameter, parameters_of
from rankdiag.testing._values import Hostile, hostile_arrays, hostile_objects

__all__ = ["FuzzReport", "Violation", "fuzz"]

Kind = Literal[
    "nan", "mutated", "assertion", "warning", "aliased", "state", "crash", "unnamed", "hang", "printed", "accepted"
]

_DOCS: dict[Kind, str] = {
    "nan": "returned a NaN",
    "mutated": "changed an argument in place",
    "assertion": "raised AssertionError, which vanishes under python -O and names nothing",
    "warning": "let a warning out",
    "aliased": "returned memory of an argument",
    "state": "changed global state",
    "crash": "raised something else than ValueError, TypeError or MissingExtraError",
    "unnamed": "raised an error whose text names no argument",
    "hang": "went on beyond the time limit",
    "printed": "wrote to standard output",
    "accepted": "took a value that its annotation forbids",
}
_ATTEMPTS = 300  # combinations of likely values that are tried before a legal call counts as unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that a function did and may not do.

    Attributes
    ----------
    kind : str
        ``"nan"``, ``"mutated"``, ``"assertion"``, ``"warning"``, ``"aliased"``, ``"state"``, ``"crash"``,
        ``"unnamed"``, ``"hang"``, ``"printed"`` or ``"accepted"``.
    parameter : str
        Parameter that was given the unusual value; empty for the plain call.
    case : str
        What was passed.
    detail : str
        What happened.

    Examples
    --------
    >>> from rankdiag.testing import Violation
    >>> Violation(kind="nan", parameter="values", case="values = all zeros", detail="returned nan").kind
    'nan'
    """

    kind: Kind
    parameter: str
    case: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FuzzReport(Table[Violation]):
    """What `fuzz` found: a table with one row for each violation.

    Attributes
    ----------
    function : str
        Name of the function.
    cases : int
        Calls made.
    returned : int
        Calls that returned a value.
    refused : int
        Calls that raised a ValueError, a TypeError or an exception that was allowed.
    absent : int
        Calls that raised MissingExtraError.
    rows : tuple of Violation
        What went wrong, in the order of the calls.

    Examples
    --------
    >>> from rankdiag.testing import fuzz
    >>> def first(values: list) -> float:
    ...     return values[0]
    >>> report = fuzz(first, arguments={"values": [1.0, 2.0]}, max_cases=50)
    >>> report.verdict, report.kinds()["crash"][0].detail
    ('alert', 'IndexError: index 0 is out of bounds for axis 0 with size 0')
    """

    tag: ClassVar[str] = "testing.FuzzReport"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="kind", doc="What rule was broken."),
        Column(name="parameter", doc="Parameter that was given the unusual value."),
        Column(name="case", doc="What was passed."),
        Column(name="detail", doc="What happened."),
    )

    function: str
    cases: int
    returned: int
    refused: int
    absent: int
    rows: tuple[Violation, ...] = ()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The rows, under the name that says what they are."""
        return self.rows

    def kinds(self) -> dict[str, tuple[Violation, ...]]:
        """Return the violations by kind.

        Returns
        -------
        dict of str to tuple of Violation
            Every kind is a key, also those that did not occur.
        """
        return {kind: tuple(row for row in self.rows if row.kind == kind) for kind in _DOCS}

    def raise_for_violations(self) -> None:
        """Raise if there is any violation, for use in a test.

        Raises
        ------
        AssertionError
            The text lists them, those of one kind and the same words together.
        """
        if not self.rows:
            return
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            groups.setdefault((row.kind, row.detail), []).append(row.case)
        lines = [
            f"{kind}: {detail}: {cases[0]}" + (f" and {len(cases) - 1} more cases" if len(cases) > 1 else "")
            for (kind, detail), cases in groups.items()
        ]
        raise AssertionError("\n".join([self.explanation, *lines]))


def fuzz(
    function: Callable[..., Any],
    *,
    arguments: Mapping[str, Any] | None = None,
    extra: Mapping[str, Sequence[Any]] | None = None,
    skip: Collection[str] = (),
    allowed: tuple[type[BaseException], ...] = (),
    allowed_warnings: tuple[type[Warning], ...] = (),
    nan_ok: bool = False,
    strict: bool = True,
    combine: bool = True,
    time_limit: float = 10.0,
    max_cases: int | None = None,
) -> FuzzReport:
    """Feed bad and extreme values into each parameter of a function and report what it may not do with them.

    The signature says what to try: arrays of every shape, scale, dtype and layout, arrays beyond memory, tensors,
    ragged lists, numbers at and beyond the edges, texts, and objects of the wrong kind go into each parameter in
    turn; arrays also meet every option that an annotation lists. A call may return a value or raise a ValueError or
    TypeError that names an argument, in backticks or quotes. `MissingExtraError` is always allowed.

    Parameters
    ----------
    function : callable
        Function, method or class.
    arguments : mapping of str to object, optional
        Legal values for a plain call; each call gets a deep copy. Required parameters that are not named here get
        values from their annotations.
    extra : mapping of str to sequence, optional
        Further values to try, by parameter.
    skip : collection of str
        Parameters that are left at their plain value.
    allowed : tuple of exception types
        Further exceptions that the function documents, ``FileNotFoundError`` say.
    allowed_warnings : tuple of warning types
        Warnings that the function documents.
    nan_ok : bool
        Whether the function documents that it may return NaN.
    strict : bool
        Whether a value that the annotation forbids must be refused.
    combine : bool
        Whether arrays also meet the options of the other parameters.
    time_limit : float
        Seconds for one call; Python code beyond it is interrupted.
    max_cases : int, optional
        Stop after so many calls; None makes them all.

    Returns
    -------
    FuzzReport
        Calls made and violations: NaN returned, argument changed, AssertionError raised, warning let out, memory of
        an argument returned, global state changed, any other exception, no argument named, time limit exceeded,
        something printed, forbidden value accepted.

    Raises
    ------
    TypeError
        If `function` is not callable or has no readable signature, or an option has the wrong type.
    ValueError
        If a name in `arguments`, `extra` or `skip` is no parameter, or if no legal plain call is known: pass it in
        `arguments`.

    Notes
    -----
    Cost: some hundred calls for each parameter, about 0.3 ms each beside the function's own time. Values of
    packages that are not loaded (torch, scipy.sparse, pandas) are left out: import them first to have them tried.
    Code that never returns to Python cannot be interrupted, and outside the main thread nothing is; there the time
    is measured and reported afterwards. Files that the function writes are the caller's concern: run it in a folder
    of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.testing import fuzz
    >>> def total(values: np.ndarray) -> float:
    ...     assert values.ndim == 1
    ...     return float(values.sum())
    >>> report = fuzz(total, max_cases=50)
    >>> report.verdict, report.kinds()["assertion"][0].case, len(report.kinds()["nan"])
    ('alert', 'values = no rows', 1)
    """
    if not callable(function):
        raise TypeError(f"`function` must be callable; got {describe(function)}")
    parameters = parameters_of(function)
    known = {parameter.name for parameter in parameters}
    given, more = _by_name(arguments, "arguments", known), _by_name(extra, "extra", known)
    left = names(skip, "skip", sorted(known))
    runner = _Runner(
        function=function,
        parameters=parameters,
        allowed=_types(allowed, "allowed", BaseException),
        allowed_warnings=_types(allowed_warnings, "allowed_warnings", Warning),
        nan_ok=boolean(nan_ok, "nan_ok"),
        strict=boolean(strict, "strict"),
        time_limit=real(time_limit, "time_limit", low=0.0, low_open=True),
    )
    limit = None if max_cases is None else integer(max_cases, "max_cases", low=1)
    plain = runner.plain_call(given)
    cases = _cases(parameters, plain, more, left, combine=boolean(combine, "combine"))
    for case in itertools.islice(cases, limit):
        runner.run(case)
    return runner.report()


def plain_result(function: Callable[..., Any], *, arguments: Mapping[str, Any] | None = None) -> Any:
    """Make the plain call that `fuzz` starts from, and return what it returned."""
    runner = _Runner(function=function, parameters=parameters_of(function))
    outcome = runner.call(runner.plain_call(dict(arguments or {})))[1]
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


# --- what is called ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One call: makers of all arguments, what is unusual about it, and for which parameter."""

    makers: Mapping[str, Callable[[], Any]]
    label: str
    parameter: str = ""
    forbidden: bool = False
    huge: bool = False


def _copies(value: Any) -> Callable[[], Any]:
    def make() -> Any:
        try:
            return copy.deepcopy(value)
        except Exception:  # an open file, say: then all calls share it
            return value

    return make


def _cases(
    parameters: tuple[Parameter, ...],
    plain: Mapping[str, Callable[[], Any]],
    extra: Mapping[str, Any],
    skip: Collection[str],
    *,
    combine: bool,
) -> Iterator[_Case]:
    yield _Case(makers=plain, label="the plain call")
    yield _Case(makers={**plain, "no_such_parameter": _copies(1)}, label="an unknown keyword", forbidden=True)
    arrays, objects = hostile_arrays(), hostile_objects()
    for parameter in parameters:
        if parameter.name in skip:
            continue
        name = parameter.name
        for value in (*arrays, *objects):
            yield _case(parameter, value, plain)
        for index, value in enumerate(extra.get(name, ())):
            yield _Case(makers={**plain, name: _copies(value)}, label=f"{name} = extra value {index}", parameter=name)
        for option in parameter.options:
            yield _Case(makers={**plain, name: _copies(option)}, label=f"{name} = {option!r}", parameter=name)
    if not combine:
        return
    for parameter, other in itertools.permutations(parameters, 2):
        if {parameter.name, other.name} & set(skip) or not (parameter.kinds is None or "array" in parameter.kinds):
            continue
        if parameter.kinds is None and not parameter.required:
            continue  # an optional parameter of unknown kind is rarely an array
        for option in other.options:
            if other.required or option != other.default:
                for value in arrays:
                    yield _case(
                        parameter, value, {**plain, other.name: _copies(option)}, f", {other.name} = {option!r}"
                    )


def _case(parameter: Parameter, value: Hostile, plain: Mapping[str, Callable[[], Any]], also: str = "") -> _Case:
    kinds = parameter.kinds
    forbidden = kinds is not None and value.fits is not None and not (value.fits & kinds)
    if kinds is not None and "option" in kinds and "int" in (value.fits or ()):
        forbidden = False  # a number may be among the options
    return _Case(
        makers={**plain, parameter.name: value.make},
        label=f"{parameter.name} = {value.label}{also}",
        parameter=parameter.name,
        forbidden=forbidden,
        huge=value.group == "size" or value.label == "a tensor beyond memory",
    )


# --- what comes of it --------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Runner:
    """Calls one function and keeps the score."""

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    allowed: tuple[type[BaseException], ...] = ()
    allowed_warnings: tuple[type[Warning], ...] = ()
    nan_ok: bool = False
    strict: bool = True
    time_limit: float = 10.0
    cases: int = 0
    returned: int = 0
    refused: int = 0
    absent: int = 0
    violations: list[Violation] | None = None

    def plain_call(self, given: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
        """Find legal values for all required parameters by trying."""
        fixed = {name: _copies(value) for name, value in given.items()}
        open_ = [parameter for parameter in self.parameters if parameter.required and parameter.name not in fixed]
        last: BaseException | None = None
        product = itertools.product(*(parameter.candidates() for parameter in open_))
        for makers in itertools.islice(product, _ATTEMPTS):
            plain = {**fixed, **{parameter.name: make for parameter, make in zip(open_, makers, strict=True)}}
            last = self.call(plain)[1].error
            if last is None or isinstance(last, MissingExtraError):
                return plain
        asked = ", ".join(f"`{parameter.name}`" for parameter in open_)
        raise ValueError(
            f"`arguments` must hold a legal plain call of {_name(self.function)}; {asked or 'what was passed'} "
            f"was not accepted: {type(last).__name__}: {last}"
        )

    def call(self, makers: Mapping[str, Callable[[], Any]], huge: bool = False) -> tuple[dict[str, Any], Outcome]:
        """Make the arguments and one watched call with them."""
        arguments = {name: make() for name, make in makers.items()}
        first = [arguments[p.name] for p in self.parameters if p.positional and p.name in arguments]
        positional = {p.name for p in self.parameters if p.positional}
        rest = {name: value for name, value in arguments.items() if name not in positional}
        outcome = observe(
            lambda: self.function(*first, **rest), arguments, time_limit=self.time_limit, limit_memory=huge
        )
        return arguments, outcome

    def run(self, case: _Case) -> None:
        """Make one call and judge it."""
        arguments, outcome = self.call(case.makers, case.huge)
        self.cases += 1
        error = outcome.error
        if error is None:
            self.returned += 1
            if case.forbidden and self.strict:
                self._add("accepted", case, f"returned {_short(outcome.value)}")
            if not self.nan_ok and has_nan(outcome.value):
                self._add("nan", case, f"returned {_short(outcome.value)}")
            for name in aliases(outcome.value, arguments):
                self._add("aliased", case, f"the result shares memory with `{name}`")
        else:
            self._judge(error, case)
        for name in outcome.mutated:
            self._add("mutated", case, f"`{name}` was changed")
        for message in outcome.warned:
            if not issubclass(message.category, self.allowed_warnings):
                self._add("warning", case, f"{message.category.__name__}: {message.message}")
        for state, how in outcome.state.items():
            self._add("state", case, f"{state}: {how}")
        if outcome.printed:
            self._add("printed", case, _short(outcome.printed))
        if outcome.seconds > self.time_limit and not isinstance(error, Hang):
            self._add("hang", case, f"took {outcome.seconds:.1f} s")

    def _judge(self, error: BaseException, case: _Case) -> None:
        if isinstance(error, Hang):
            self._add("hang", case, f"interrupted after {self.time_limit:g} s")
        elif isinstance(error, MissingExtraError):
            self.absent += 1
        elif self.allowed and isinstance(error, self.allowed):
            self.refused += 1
        elif isinstance(error, AssertionError):
            self._add("assertion", case, f"AssertionError: {error}")
        elif isinstance(error, (ValueError, TypeError)):
            self.refused += 1
            known = [parameter.name for parameter in self.parameters]
            if not _names_one_of(str(error), [*known, "no_such_parameter"]):
                self._add("unnamed", case, f"{type(error).__name__}: {error}")
        else:
            self._add("crash", case, f"{type(error).__name__}: {error}")

    def _add(self, kind: Kind, case: _Case, detail: str) -> None:
        if self.violations is None:
            self.violations = []
        self.violations.append(
            Violation(kind=kind, parameter=case.parameter, case=case.label, detail=_short(detail, 300))
        )

    def report(self) -> FuzzReport:
        """Return the score."""
        rows = tuple(self.violations or ())
        counts: list[tuple[Kind, int]] = [(kind, sum(row.kind == kind for row in rows)) for kind in _DOCS]
        found = "; ".join(
            f"{count} {'times' if count > 1 else 'time'} it {_DOCS[kind]}" for kind, count in counts if count
        )
        return FuzzReport(
            function=_name(self.function),
            cases=self.cases,
            returned=self.returned,
            refused=self.refused,
            absent=self.absent,
            rows=rows,
            verdict="alert" if rows else "ok",
            explanation=f"{_name(self.function)}: {self.cases} calls, {found or 'no violation'}.",
            meta=Meta(
                definition="a violation is anything but a value, or a ValueError or TypeError that names an argument",
                n=self.cases,
            ),
        )


def _names_one_of(text: str, known: Sequence[str]) -> bool:
    quoted = "|".join(map(re.escape, known))
    return re.search(rf"[`'\"]({quoted})[`'\"=]", text) is not None


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def _short(value: Any, limit: int = 100) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # an integer too long to print, an object that cannot show itself
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _by_name(value: Any, name: str, known: Collection[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a mapping of parameters to values; got {describe(value)}")
    names(value, name, sorted(known))
    return dict(value)


def _types(value: Any, name: str, base: type[Any]) -> tuple[type[Any], ...]:
    if not isinstance(value, tuple) or not all(isinstance(entry, type) and issubclass(entry, base) for entry in value):
        raise TypeError(f"`{name}` must be a tuple of sub-classes of {base.__name__}; got {describe(value)}")
    return value

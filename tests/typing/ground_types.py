"""What type checkers see of the front door and of the ground floor; checked by mypy and pyright, never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import rankdiag as rd
from rankdiag import MissingExtraError, RankdiagWarning, result_from_dict, result_from_json
from rankdiag._result import Finding, Meta, Result, Table, Threshold
from rankdiag.testing import BACKENDS, Backend, FuzzReport, GlobalStateError, Violation, fuzz, no_global_change
from rankdiag.testing import strategies as rst

assert_type(rd.__version__, str)

# Results come back as what they are.
spectrum = rd.spectrum(np.eye(3))
assert_type(spectrum, rd.Spectrum)
assert_type(spectrum.values, NDArray[np.float64])
assert_type(spectrum.meta, Meta)
assert_type(spectrum.verdict, Literal["ok", "warn", "alert", "unknown"])
assert_type(spectrum.thresholds, tuple[Threshold, ...])
assert_type(spectrum.explanation, str)
assert_type(spectrum.summary(), str)
assert_type(spectrum.to_json(indent=2), str)
assert_type(spectrum.to_dict(), dict[str, Any])
assert_type(rd.Spectrum.from_dict(spectrum.to_dict()), rd.Spectrum)
assert_type(result_from_dict(spectrum.to_dict()), Result)
assert_type(result_from_json(spectrum.to_json()), Result)
assert_type(rd.Spectrum.from_values([3.0, 1.0]), rd.Spectrum)

# Everything array-like is accepted.
rd.effective_rank(np.eye(3, dtype=np.float32))
rd.effective_rank(torch.eye(3))
rd.effective_rank([[1.0, 0.0], [0.0, 1.0]])
rd.effective_rank(spectrum, weights="energy")

# Reports are tables whose rows are typed.
report = rd.weight_report(Path("model.safetensors"))
assert_type(report, rd.weights.WeightReport)
assert_type(list(report), list[rd.weights.WeightRow])
assert_type(iter(report), Iterator[rd.weights.WeightRow])
assert_type(len(report), int)
assert_type(report.column("name"), list[Any])
assert_type(report.to_csv(), str)
assert_type(report.to_markdown(), str)
assert_type(report.findings, tuple[Finding, ...])
assert_type(rd.weight_delta_report("base", "tuned"), rd.weights.WeightDeltaReport)
assert_type(report.compare(report), rd.weights.WeightComparison)

# Mistakes are seen.
spectrum.verdict = "ok"  # type: ignore[misc]  # results are frozen
Meta("a definition")  # type: ignore[call-arg]  # and keyword-only
rd.effective_rank(np.eye(3), weigths="energy")  # type: ignore[call-arg]  # a misspelt option
rd.effective_rank(np.eye(3), weights="enery")  # type: ignore[arg-type]  # a misspelt word
rd.spectrum(np.eye(3), "svd")  # type: ignore[call-arg]  # options are keyword-only
rd.no_such_name  # type: ignore[attr-defined]  # noqa: B018 - the stub names what there is

# Errors and warnings sub-class what user code catches.
error: ImportError = MissingExtraError("x")
warning: type[UserWarning] = RankdiagWarning


class Row:
    """A row of somebody's own table."""

    name: str


class Own(Table[Row]):
    """A table of somebody's own."""


assert_type(list(Own()), list[Row])

# Testing tools.
found = fuzz(rd.stable_rank, arguments={"a": np.eye(2)})
assert_type(found, FuzzReport)
assert_type(found.violations, tuple[Violation, ...])
assert_type(found.cases, int)
assert_type(list(found), list[Violation])
assert_type(BACKENDS, tuple[Backend, ...])
assert_type(BACKENDS[0].rounded([1.0]), NDArray[np.float64])
with no_global_change(ignore=["warning filters"]):
    pass


@no_global_change()
def guarded(value: int) -> str:
    """Keep its type under the decorator."""
    return str(value)


assert_type(guarded(3), str)
state_error: AssertionError = GlobalStateError("x")
assert_type(rst.matrices().example(), rst.PrescribedMatrix)
assert_type(rst.scales().example(), float)
assert_type(rst.spectra().example(), NDArray[np.float64])
